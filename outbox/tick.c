/*
 * tick.c - the relay's SQL: turns, and the rows of a window in chunks.
 *
 * A window is what tick_snapshot sees and acked_snapshot does not. The statements
 * here find it by two index conditions (see sql/functions/relay.sql) and bind it to
 * the term: when another leads, they find nothing.
 *
 * A big window is not read through a cursor: sorting 300,000 whole rows and keeping
 * them for later takes over a second and 300 MB of temporary files before the first
 * row comes. Its map (ids and transactions only) takes 0.2 s, and then each chunk of
 * 10,000 rows is found by the index, asked for while the one before is produced, and
 * put in order here.
 */
#include "outbox/own.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/failpoint.h"

#define TEXT_OF_(x)  #x
#define TEXT_OF(x)   TEXT_OF_(x)
#define CHUNK_ROWS   TEXT_OF(SKALD_RELAY_CHUNK_ROWS)
#define CHUNK_BYTES  "16777216" /* half of what may be in flight; one row may be as big */
#define BUCKET_BYTES "1048576" /* a bucket of ids above it is no unit to count in */

_Static_assert(SKALD_RELAY_INFLIGHT_BYTES == 2 * 16777216, "chunk bytes are half of it");

/* clang-format off */
#define COLUMNS \
	"id, xid, message_id, at, topic, key, type, source, subject, content_type, data, " \
	"headers, correlation_id, causation_id, traceparent, expires_at"
#define ROW_BYTES \
	"512 + coalesce(octet_length(data), 0) + coalesce(octet_length(key), 0)" \
	" + coalesce(pg_column_size(headers), 0)"

/*
 * $1 the term, $2 the tick: a leader of the past, or one whose lost session went on without
 * it, finds no row of skald.relay, hence no window; never the rows of another tick.
 */
#define MINE " FROM skald.relay WHERE term = $1::bigint AND tick = $2::bigint"
#define IN_TICK "pg_visible_in_snapshot(xid, (SELECT tick_snapshot" MINE "))"
/* began after the acknowledged snapshot: nothing of it is visible there */
#define IS_LATER \
	"xid >= (SELECT pg_snapshot_xmax(acked_snapshot)" MINE ")" \
	" AND xid < (SELECT pg_snapshot_xmax(tick_snapshot)" MINE ") AND " IN_TICK
/* was under way in it and has ended since */
#define HAS_ENDED \
	"xid = ANY (ARRAY(SELECT x FROM skald.relay, pg_snapshot_xip(acked_snapshot) AS x" \
	" WHERE term = $1::bigint AND tick = $2::bigint" \
	" AND pg_visible_in_snapshot(x, tick_snapshot)))"

static const char sql_lead[] =
	"SELECT held, my_stream, my_epoch, my_tick, is_open, from_id, from_ordinal, epoch_due,"
	" mode, acked_lsn, acked, recover_from"
	" FROM skald.relay_lead($1::bigint, $2, $3, nullif($4, ''))";
static const char sql_turn[] =
	"SELECT held, opened, my_epoch, recover_from, is_quiet"
	" FROM skald.relay_turn($1::bigint, $2::bigint, $3, $4::boolean, $5::boolean,"
	" $6::boolean, $7::xid8)";
static const char sql_progress[] =
	"SELECT skald.relay_progress($1::bigint, $2::bigint, $3::bigint, $4::bigint, $5)";

/*
 * $3: after this id. All of the window when it fits into one chunk; else one row, which
 * tells so. In any order: sorting is left to the reader, who has the rows in hand, while a
 * sort here would copy every row of a big window before the first one comes.
 */
static const char sql_head[] =
	"SELECT " COLUMNS ", is_whole FROM ("
	" SELECT w.*, n = 1 OR n <= " CHUNK_ROWS " AND bytes < " CHUNK_BYTES " AS is_whole FROM ("
	"  SELECT h.*, row_number() OVER () AS i, count(*) OVER () AS n,"
	"   sum(" ROW_BYTES ") OVER () AS bytes FROM ("
	"    SELECT " COLUMNS " FROM skald.outbox WHERE " IS_LATER " AND id > $3::bigint"
	"    UNION ALL"
	"    SELECT " COLUMNS " FROM skald.outbox WHERE " HAS_ENDED " AND id > $3::bigint"
	"    LIMIT " CHUNK_ROWS " + 1) AS h) AS w) AS c"
	" WHERE is_whole OR i = 1";

#define WINDOW_ROWS \
	"SELECT id, xid::text::bigint AS later, " ROW_BYTES " AS bytes" \
	" FROM skald.outbox WHERE " IS_LATER " AND id > $3::bigint" \
	" UNION ALL " \
	"SELECT id, NULL::bigint, " ROW_BYTES \
	" FROM skald.outbox WHERE " HAS_ENDED " AND id > $3::bigint"

/*
 * Where each chunk ends and between which transactions its later rows lie. Chunks are made
 * of buckets of ids, which are counted without sorting; OFFSET 0 keeps the sort out.
 */
static const char sql_map[] =
	"SELECT max(last_id) AS last_id, min(first_xid) AS first_xid,"
	" max(last_xid) AS last_xid, sum(n)::bigint AS row_count,"
	" bool_or(bytes > " BUCKET_BYTES ") AS is_coarse FROM ("
	"  SELECT b.*, ((sum(n) OVER w)::bigint - 1) / " CHUNK_ROWS
	"   + (sum(bytes) OVER w)::bigint / " CHUNK_BYTES " AS chunk FROM ("
	"    SELECT id >> 7 AS bucket, max(id) AS last_id, min(later) AS first_xid,"
	"     max(later) AS last_xid, count(*) AS n, sum(bytes) AS bytes"
	"     FROM (" WINDOW_ROWS ") AS s GROUP BY 1 OFFSET 0) AS b"
	"   WINDOW w AS (ORDER BY bucket ROWS UNBOUNDED PRECEDING)) AS c"
	" GROUP BY chunk ORDER BY chunk";

/* The same to the row, for rows so large that a bucket of them is. OFFSET 0 keeps the
   payload out of the sort. */
static const char sql_fine_map[] =
	"SELECT max(id) AS last_id, min(later) AS first_xid, max(later) AS last_xid,"
	" count(*) AS row_count, false AS is_coarse FROM ("
	"  SELECT id, later, (row_number() OVER w - 1) / " CHUNK_ROWS
	"   + (sum(bytes) OVER w) / " CHUNK_BYTES " AS chunk FROM ("
	"    " WINDOW_ROWS " OFFSET 0) AS s"
	"   WINDOW w AS (ORDER BY id ROWS UNBOUNDED PRECEDING)) AS c"
	" GROUP BY chunk ORDER BY chunk";

/*
 * $3 < id <= $4, the later ones of transactions $5 to $6, or of $5 alone: then the index
 * leads to them, however many rows that transaction has.
 */
#define IN_CHUNK " AND id > $3::bigint AND id <= $4::bigint"
#define CHUNK_OF(transactions) \
	"SELECT " COLUMNS " FROM skald.outbox WHERE " transactions \
	" AND xid >= (SELECT pg_snapshot_xmax(acked_snapshot)" MINE ") AND " IN_TICK \
	IN_CHUNK " UNION ALL" \
	" SELECT " COLUMNS " FROM skald.outbox WHERE " HAS_ENDED IN_CHUNK
static const char sql_chunk[] = CHUNK_OF("xid >= $5::xid8 AND xid <= $6::xid8");
static const char sql_chunk_of_one[] = CHUNK_OF("xid = $5::xid8");
/* clang-format on */

/*
 * Plans must not depend on statistics, which lag behind an insert-only table: only the
 * index on xid will do. JIT would cost more than the statements.
 */
enum skald_rc
skald__tick_session(struct skald_sql *sql, struct skald_err *err)
{
	return skald_sql_exec(sql,
		"SET enable_seqscan = off; SET work_mem = '64MB'; "
		"SET max_parallel_workers_per_gather = 0; "
		"SET plan_cache_mode = force_generic_plan; "
		"SET statement_timeout = '10min'",
		err);
}

/* --- asking and taking -------------------------------------------------------------------- */

static enum skald_rc
send_one(struct skald_relay *r, const char *sql, const struct skald_param *params,
	unsigned count, struct skald_err *err)
{
	enum skald_rc rc = skald_pipe_begin(r->work, err);

	if (!rc)
		rc = skald_pipe_send(r->work, sql, params, count, true, err);
	if (!rc)
		rc = skald_pipe_sync(r->work, err);
	return rc;
}

static enum skald_rc
take_one(struct skald_relay *r, struct skald_rows **rows, struct skald_err *err)
{
	enum skald_rc rc = skald__relay_await(r, err);

	if (!rc)
		rc = skald_pipe_take(r->work, rows, err);
	if (!rc)
		rc = skald_pipe_end(r->work, err);
	return rc;
}

enum skald_rc
skald__tick_query(struct skald_relay *r, const char *sql,
	const struct skald_param *params, unsigned count, struct skald_rows **rows,
	struct skald_err *err)
{
	enum skald_rc rc = send_one(r, sql, params, count, err);

	return rc ? rc : take_one(r, rows, err);
}

void
skald__tick_drop(struct skald_relay *r)
{
	struct skald__reader *reader = &r->tick.reader;

	skald_rows_free(reader->rows);
	skald_rows_free(reader->map);
	free(reader->order);
	*reader = (struct skald__reader){ 0 };
}

/* Head and maps take the same: term, tick, after which id. */
static enum skald_rc
ask_rest(struct skald_relay *r, enum skald__asked what, struct skald_err *err)
{
	static const char *const statements[] = {
		[SKALD__ASKED_HEAD] = sql_head,
		[SKALD__ASKED_MAP] = sql_map,
		[SKALD__ASKED_FINE_MAP] = sql_fine_map,
	};
	char term[24], tick[24], after[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_int(r->tick.number, tick),
		skald_param_int(r->tick.reader.last_id, after) };

	r->tick.reader.asked = what;
	return send_one(r, statements[what], params, 3, err);
}

static enum skald_rc
ask_chunk(struct skald_relay *r, struct skald_err *err)
{
	struct skald__reader *reader = &r->tick.reader;
	char term[24], tick[24], after[24], last[24], from[24], to[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_int(r->tick.number, tick),
		skald_param_int(reader->last_id, after),
		skald_param_int(
			skald_rows_int(reader->map, reader->map_next, 0, 0), last),
		SKALD_PARAM_NULL, SKALD_PARAM_NULL };

	if (skald_rows_get(reader->map, reader->map_next, 1).data) {
		params[4] = skald_param_int(
			skald_rows_int(reader->map, reader->map_next, 1, 0), from);
		params[5] = skald_param_int(
			skald_rows_int(reader->map, reader->map_next, 2, 0), to);
	}
	reader->asked = SKALD__ASKED_CHUNK;
	if (params[4].value.data && strcmp(from, to) == 0)
		return send_one(r, sql_chunk_of_one, params, 5, err);
	return send_one(r, sql_chunk, params, 6, err);
}

/* The rest of a window after what is in hand. */
enum skald_rc
skald__tick_ask(struct skald_relay *r, struct skald_err *err)
{
	struct skald__reader *reader = &r->tick.reader;
	enum skald_rc rc;

	if (!reader->rows) {
		reader->last_id = r->window.resume_mark;
		rc = ask_rest(r, SKALD__ASKED_HEAD, err);
	} else if (!reader->map) {
		SKALD_ASSERT(reader->is_large);
		rc = ask_rest(r, SKALD__ASKED_MAP, err);
	} else {
		rc = ask_chunk(r, err);
	}
	if (!rc)
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_ASKED });
	return rc;
}

static int
by_id(const void *a, const void *b)
{
	const struct skald__place *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* The server sends rows as it finds them, which mostly is the order they go out in. */
static enum skald_rc
put_in_order(struct skald__reader *reader, struct skald_err *err)
{
	unsigned count = skald_rows_count(reader->rows);
	int64_t last = INT64_MIN;
	bool is_sorted = true;

	if (count > reader->order_room) {
		struct skald__place *order =
			realloc(reader->order, count * sizeof(*order));

		if (!order)
			return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		reader->order = order;
		reader->order_room = count;
	}
	for (unsigned row = 0; row < count; row++) {
		int64_t id = skald_rows_int(reader->rows, row, SKALD__COL_ID, 0);

		reader->order[row] = (struct skald__place){ id, row };
		is_sorted = is_sorted && id > last;
		last = id;
	}
	if (!is_sorted)
		qsort(reader->order, count, sizeof(reader->order[0]), by_id);
	return SKALD_OK;
}

/* Rows become those in hand: *count can be produced; *is_end: they end the window. */
static enum skald_rc
adopt(struct skald__reader *reader, struct skald_rows **rows, uint64_t *count,
	bool *is_end, struct skald_err *err)
{
	enum skald_rc rc;

	skald_rows_free(reader->rows);
	reader->rows = *rows;
	*rows = NULL;
	reader->next = 0;
	*count = skald_rows_count(reader->rows);
	*is_end = true;
	rc = put_in_order(reader, err);
	if (rc)
		return rc;
	if (reader->map) {
		*is_end = ++reader->map_next == skald_rows_count(reader->map);
	} else if (*count && !skald_rows_bool(reader->rows, 0, SKALD__COL_IS_WHOLE)) {
		reader->is_large = true;
		reader->next = (unsigned)*count;
		*count = 0;
		*is_end = false;
	}
	if (*count)
		reader->last_id = reader->order[*count - 1].id;
	return SKALD_OK;
}

/* Rows that are missing or too many mean that the window moved under us: it never does while
   the term is ours. */
static enum skald_rc
check_chunk(const struct skald__reader *reader, const struct skald_rows *rows,
	struct skald_err *err)
{
	int64_t want = skald_rows_int(reader->map, reader->map_next, 3, 0);

	if (want == (int64_t)skald_rows_count(rows))
		return SKALD_OK;
	return skald_fail(err, SKALD_RETRY, "skald", "",
		"a chunk of the outbox has %u rows, not %" PRId64
		": another relay leads, or rows were deleted",
		skald_rows_count(rows), want);
}

static bool
is_coarse(const struct skald_rows *map)
{
	for (unsigned i = 0; i < skald_rows_count(map); i++)
		if (skald_rows_bool(map, i, 4))
			return true;
	return false;
}

/* The map came: it is followed by the first chunk. */
static enum skald_rc
take_map(struct skald_relay *r, struct skald_rows **rows, struct skald_err *err)
{
	struct skald__reader *reader = &r->tick.reader;
	enum skald_rc rc = SKALD_OK;

	if (reader->asked == SKALD__ASKED_MAP && is_coarse(*rows)) {
		skald_rows_free(*rows);
		*rows = NULL;
		rc = ask_rest(r, SKALD__ASKED_FINE_MAP, err);
		if (!rc)
			rc = take_one(r, rows, err);
		if (rc)
			return rc;
	}
	reader->map = *rows;
	reader->map_next = 0;
	*rows = NULL;
	if (skald_rows_count(reader->map) == 0)
		return skald_fail(err, SKALD_RETRY, "skald", "",
			"the rest of the tick is gone: another relay leads");
	rc = ask_chunk(r, err);
	return rc ? rc : take_one(r, rows, err);
}

enum skald_rc
skald__tick_take(struct skald_relay *r, struct skald_err *err)
{
	struct skald__relay_ev ev = { .kind = SKALD__EV_ROWS };
	struct skald__reader *reader = &r->tick.reader;
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = take_one(r, &rows, err);
	if (!rc && reader->asked == SKALD__ASKED_MAP)
		rc = take_map(r, &rows, err);
	if (!rc && reader->asked == SKALD__ASKED_CHUNK)
		rc = check_chunk(reader, rows, err);
	if (!rc)
		rc = adopt(reader, &rows, &ev.count, &ev.is_end, err);
	if (rc) {
		skald_rows_free(rows);
		return rc;
	}
	reader->asked = SKALD__ASKED_NOTHING;
	SKALD_FAILPOINT(relay_after_read);
	skald__relay_tell(r, ev);
	return SKALD_OK;
}

/* --- leading ------------------------------------------------------------------------------ */

static void
lost(struct skald_relay *r)
{
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_LOST });
}

/* What relay_lead answered, made ours. */
static enum skald_rc
take_lead(struct skald_relay *r, const struct skald_rows *rows,
	struct skald__relay_ev *ev, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	(void)skald_slice_copy(
		skald_rows_get(rows, 0, 1), r->tick.stream, sizeof(r->tick.stream));
	r->tick.epoch = (uint32_t)skald_rows_int(rows, 0, 2, 0);
	r->tick.number = skald_rows_int(rows, 0, 3, 0);
	ev->is_wal = skald_slice_is_text(skald_rows_get(rows, 0, 8), "wal");
	ev->tick = r->tick.number;
	ev->is_open = skald_rows_bool(rows, 0, 4);
	ev->ordinal = (uint64_t)skald_rows_int(rows, 0, 6, 0);
	ev->epoch_due = skald_rows_bool(rows, 0, 7);
	if (ev->is_wal) {
		r->wal.flushed = (uint64_t)skald_rows_int(rows, 0, 9, 0);
		return skald__snapshot_parse(
			&r->wal.acked, skald_rows_get(rows, 0, 10), err);
	}
	skald__window_reset(&r->window, ev->ordinal, skald_rows_int(rows, 0, 5, -1));
	if (skald_rows_get(rows, 0, 11).data) {
		r->wal.drop_due = true;
		SKALD_FAILPOINT(recover_after_leave);
	}
	if (ev->is_open)
		rc = skald__recover_begin(r, skald_rows_get(rows, 0, 11), err);
	return rc;
}

enum skald_rc
skald__tick_lead(struct skald_relay *r, struct skald_err *err)
{
	bool wants_wal = r->core.conf.wants_wal && !r->wal.leave_reason[0];
	char term[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_text(r->owner), skald_param_text(wants_wal ? "wal" : "poll"),
		skald_param_text(r->wal.leave_reason) };
	struct skald__relay_ev ev = { .kind = SKALD__EV_LED };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald__tick_query(r, sql_lead, params, 4, &rows, err);
	if (rc)
		return rc;
	if (skald_rows_count(rows) != 1 || !skald_rows_bool(rows, 0, 0)) {
		skald_rows_free(rows);
		lost(r);
		return SKALD_OK;
	}
	skald__tick_drop(r);
	skald__wal_close(r);
	skald__recover_done(r);
	skald__gate_reset(r);
	rc = take_lead(r, rows, &ev, err);
	skald_rows_free(rows);
	if (!rc) /* whatever the last leader left: we are awake */
		rc = skald__doze(r, false, err);
	if (!rc && !ev.is_wal && (r->wal.drop_due || !r->core.conf.wants_wal))
		rc = skald__wal_drop_slot(r, err);
	if (!rc)
		rc = skald__park_load(r, err);
	if (rc)
		return rc;
	r->wal.leave_reason[0] = '\0';
	skald__relay_tell(r, ev);
	return SKALD_OK;
}

static void
position_of_last(
	const struct skald_relay *r, uint64_t count, char dst[SKALD_POSITION_TEXT_BYTES])
{
	skald_position_format((struct skald_position){ r->tick.epoch,
				      (uint64_t)r->tick.number, (uint32_t)(count - 1) },
		dst);
}

/*
 * One round trip: record the tick that is done, open the next, read its head. The
 * COMMIT is synchronous, and with it everything that the new tick sees is on disk.
 */
static enum skald_rc
send_turn(
	struct skald_relay *r, const struct skald__relay_do *todo, struct skald_err *err)
{
	char term[24], done[24], next[24], position[SKALD_POSITION_TEXT_BYTES];
	struct skald_param term_param = skald_param_int(r->lease.term, term);
	struct skald_param turn[] = { term_param, SKALD_PARAM_NULL, SKALD_PARAM_NULL,
		skald_param_text(todo->open_next ? "t" : "f"),
		skald_param_text(todo->mark ? "t" : "f"),
		skald_param_text(todo->advance ? "t" : "f"),
		skald_param_text(r->asleep_xid[0] ? r->asleep_xid : NULL) };
	struct skald_param head[] = { term_param,
		skald_param_int(r->tick.number + 1, next), skald_param_text("-1") };
	enum skald_rc rc;

	if (r->core.slot == SKALD__SLOT_MADE) /* R8; younger than the one of sleep */
		turn[6] = skald_param_text(r->wal.slot_xid);
	if (todo->done_tick) {
		turn[1] = skald_param_int(todo->done_tick, done);
		if (r->window.done) {
			position_of_last(r, r->window.done, position);
			turn[2] = skald_param_text(position);
		}
	}
	rc = skald_pipe_begin(r->work, err);
	if (!rc)
		rc = skald_pipe_send(r->work, "BEGIN ISOLATION LEVEL READ COMMITTED",
			NULL, 0, true, err);
	if (!rc)
		rc = skald_pipe_send(r->work, sql_turn, turn, 7, true, err);
	if (!rc && todo->open_next)
		rc = skald_pipe_send(r->work, sql_head, head, 3, true, err);
	if (!rc)
		rc = skald_pipe_send(r->work, "COMMIT", NULL, 0, true, err);
	if (!rc)
		rc = skald_pipe_sync(r->work, err);
	if (!rc)
		rc = skald__relay_await(r, err);
	return rc;
}

static enum skald_rc
take_turn(struct skald_relay *r, const struct skald__relay_do *todo,
	struct skald_rows **turn, struct skald_rows **head, struct skald_err *err)
{
	enum skald_rc rc;

	rc = skald_pipe_take(r->work, NULL, err);
	if (!rc)
		rc = skald_pipe_take(r->work, turn, err);
	if (!rc && todo->open_next)
		rc = skald_pipe_take(r->work, head, err);
	if (!rc)
		rc = skald_pipe_take(r->work, NULL, err);
	if (!rc)
		rc = skald_pipe_end(r->work, err);
	return rc;
}

/* The next tick is open. */
static enum skald_rc
take_open(struct skald_relay *r, const struct skald_rows *turn, struct skald_rows **head,
	struct skald__relay_ev *ev, struct skald_err *err)
{
	enum skald_rc rc;

	SKALD_FAILPOINT(relay_after_tick);
	r->tick.number = ev->tick;
	skald__window_reset(&r->window, 0, -1);
	skald__gate_reset(r);
	r->tick.reader.last_id = -1;
	rc = adopt(&r->tick.reader, head, &ev->count, &ev->is_end, err);
	if (rc)
		return rc;
	SKALD_FAILPOINT(relay_after_read);
	rc = skald__recover_begin(r, skald_rows_get(turn, 0, 3), err);
	if (!rc && r->recover.is_tick)
		atomic_fetch_add(r->metrics.recovered, 1);
	return rc;
}

enum skald_rc
skald__tick_turn(
	struct skald_relay *r, const struct skald__relay_do *todo, struct skald_err *err)
{
	struct skald__relay_ev ev = { .kind = SKALD__EV_TURNED,
		.is_marked = todo->mark,
		.is_open = todo->open_next };
	struct skald_rows *turn = NULL, *head = NULL;
	int64_t began_ms = skald_mono_ms();
	enum skald_rc rc;

	rc = send_turn(r, todo, err);
	if (!rc)
		rc = take_turn(r, todo, &turn, &head, err);
	if (rc)
		goto out;
	if (!skald_rows_bool(turn, 0, 0)) {
		lost(r);
		goto out;
	}
	skald__tick_drop(r);
	skald__recover_done(r);
	ev.took_ms = skald_mono_ms() - began_ms;
	ev.tick = skald_rows_int(turn, 0, 1, 0);
	ev.is_quiet = skald_rows_bool(turn, 0, 4);
	r->tick.epoch = (uint32_t)skald_rows_int(turn, 0, 2, r->tick.epoch);
	if (ev.tick)
		rc = take_open(r, turn, &head, &ev, err);
	if (!rc)
		skald__relay_tell(r, ev);
out:
	skald_rows_free(turn);
	skald_rows_free(head);
	return rc;
}

/* On the guard's session: the work session may be reading. */
enum skald_rc
skald__tick_progress(struct skald_relay *r, struct skald_err *err)
{
	char term[24], tick[24], id[24], ordinal[24], position[SKALD_POSITION_TEXT_BYTES];
	uint64_t done = r->window.resume;
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_int(r->tick.number, tick),
		skald_param_int(r->window.resume_mark, id),
		skald_param_int((int64_t)done, ordinal), SKALD_PARAM_NULL };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	position_of_last(r, done, position);
	params[4] = skald_param_text(position);
	rc = skald_sql_query(r->guard, sql_progress, params, 5, true, &rows, err);
	if (rc)
		return rc;
	if (skald_rows_bool(rows, 0, 0))
		skald__relay_tell(
			r, (struct skald__relay_ev){
				   .kind = SKALD__EV_PROGRESSED, .ordinal = done });
	else
		lost(r);
	skald_rows_free(rows);
	return SKALD_OK;
}
