/*
 * wal.c - mode wal: rows come out of a replication slot in the order of their commits.
 *
 * W1  A row's position is the LSN of its transaction's commit record and its ordinal
 *     there: known before the first row comes, the same whenever it comes again.
 * W2  `flushed` is the end of a transaction of which, and of all before, every row is
 *     acknowledged; or where the server said to be while nothing was under way.
 * W3  A snapshot becomes a mark once `flushed` has reached the end of WAL as it was when
 *     the snapshot was taken: whoever it sees had committed below. Not all that had
 *     committed below is seen by it: `unseen` knows who of those was streamed.
 * W5  The server is told only what is written down: what a slot knows beyond that, it
 *     does not know from us.
 * W4  Nothing is kept of a row but its place in the window once it is produced: after
 *     trouble the stream begins again at `flushed`.
 */
#include "outbox/own.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

#define QUEUE_BYTES_MAX (8 * 1024 * 1024) /* read, not produced; one row may be as big */
#define STATUS_MS       200 /* how often the server is told that we got on */
#define BOUND_MS        10000 /* what was streamed before this stream is seen by all then */
#define MOVED_BYTES     65536 /* of others' WAL: worth writing down, so that it can go */
#define MOVED_MS        2000
#define BUSY_MS         1000 /* so long a slot may be in use before that is trouble */
#define REPLY_MS        50 /* a server that stops asks in a loop */
#define STATUS_QUIET_MS 10000 /* and that we live; wal_sender_timeout is a minute */
#define SNAPSHOT_BYTES  (1024 * 1024)
#define CONNECT_MS      3000
#define ACTIVE_RETRY_MS 50 /* the last leader's walsender is on its way out */

static const char *const columns[SKALD__COLUMN_COUNT] = {
	[SKALD__COL_ID] = "id",
	[SKALD__COL_XID] = "xid",
	[SKALD__COL_MESSAGE_ID] = "message_id",
	[SKALD__COL_AT] = "at",
	[SKALD__COL_TOPIC] = "topic",
	[SKALD__COL_KEY] = "key",
	[SKALD__COL_TYPE] = "type",
	[SKALD__COL_SOURCE] = "source",
	[SKALD__COL_SUBJECT] = "subject",
	[SKALD__COL_CONTENT_TYPE] = "content_type",
	[SKALD__COL_DATA] = "data",
	[SKALD__COL_HEADERS] = "headers",
	[SKALD__COL_CORRELATION] = "correlation_id",
	[SKALD__COL_CAUSATION] = "causation_id",
	[SKALD__COL_TRACEPARENT] = "traceparent",
	[SKALD__COL_EXPIRES] = "expires_at",
};

static const char sql_record[] =
	"SELECT held, my_epoch, epoch_due, next_snapshot, next_lsn, wal_held_bytes,"
	" wal_behind_bytes, safe_wal_bytes, spill_bytes"
	" FROM skald.relay_stream_turn($1::bigint, $2::bigint, $3,"
	" $4::pg_snapshot, $5::bigint, $6::boolean)";
static const char sql_end_other[] =
	"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
	" WHERE slot_name = $1 AND active_pid IS NOT NULL";

/* --- the queue ------------------------------------------------------------------------------- */

static struct skald__queued *
queued_at(struct skald__wal *w, unsigned index)
{
	return &w->queue[(w->head + index) & (SKALD__QUEUE_ROWS - 1)];
}

static void
drop_queue(struct skald__wal *w)
{
	for (; w->count > 0; w->count--) {
		skald_stream_free(queued_at(w, 0)->buffer);
		w->head++;
	}
	if (w->has_last)
		skald_stream_free(w->last.buffer);
	w->has_last = false;
	w->is_in_transaction = false;
	w->queue_bytes = 0;
}

/* What follows the last row is here: now it is known what is behind it. */
static void
push_last(struct skald__wal *w, int64_t mark)
{
	SKALD_ASSERT(w->has_last && w->count < SKALD__QUEUE_ROWS);
	w->last.mark = mark;
	*queued_at(w, w->count++) = w->last;
	w->queue_bytes += w->last.bytes;
	w->has_last = false;
}

void
skald__wal_peek(struct skald_relay *r, struct skald__row *row)
{
	struct skald__wal *w = &r->wal;
	const struct skald__queued *q = queued_at(w, 0);

	SKALD_ASSERT(w->count > 0);
	memcpy(row->cells, q->cells, sizeof(row->cells));
	row->position = (struct skald_position){ r->tick.epoch, q->lsn,
		q->ordinal + (q->lsn == w->place.point ? w->extra : 0) };
	row->mark = q->mark;
	row->is_recovered = false;
}

/* The row is in the window. */
void
skald__wal_pop(struct skald_relay *r)
{
	struct skald__wal *w = &r->wal;
	struct skald__queued *q = queued_at(w, 0);

	if (w->place.point != q->lsn)
		w->extra = 0;
	w->place =
		(struct skald_position){ r->tick.epoch, q->lsn, q->ordinal + w->extra };
	w->queue_bytes -= q->bytes;
	skald_stream_free(q->buffer);
	w->head++;
	w->count--;
}

/*
 * What a marker lets out takes ordinals behind its own; the rest of its transaction moves
 * up by as many.
 */
struct skald_position
skald__wal_place_of_released(const struct skald_relay *r)
{
	struct skald_position place = r->wal.place;

	place.ordinal++;
	return place;
}

void
skald__wal_pop_released(struct skald_relay *r)
{
	r->wal.place.ordinal++;
	r->wal.extra++;
}

bool
skald__wal_is_quiet(const struct skald_relay *r)
{
	const struct skald__wal *w = &r->wal;

	return r->window.done == r->window.next && w->count == 0 && !w->has_last &&
	       !w->is_in_transaction;
}

/* --- life ------------------------------------------------------------------------------------- */

void
skald__wal_close(struct skald_relay *r)
{
	struct skald__wal *w = &r->wal;

	drop_queue(w);
	skald_stream_close(w->session);
	w->session = NULL;
	w->is_started = false;
	w->is_reply_due = false;
	w->extra = 0;
	w->place = (struct skald_position){ 0, 0, 0 };
	w->next_lsn = 0;
	skald_buf_clear(&w->next_snapshot);
	skald__snapshot_done(&w->next);
}

void
skald__wal_done(struct skald_relay *r)
{
	skald__wal_close(r);
	skald__snapshot_done(&r->wal.acked);
	skald_buf_done(&r->wal.next_snapshot);
	free(r->wal.queue);
	r->wal.queue = NULL;
}

static enum skald_rc
need_queue(struct skald__wal *w, struct skald_err *err)
{
	if (!w->next_snapshot.max_bytes)
		skald_buf_init(&w->next_snapshot, SNAPSHOT_BYTES);
	if (!w->queue)
		w->queue = calloc(SKALD__QUEUE_ROWS, sizeof(*w->queue));
	return w->queue ? SKALD_OK
			: skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
}

enum skald_rc
skald__wal_open(struct skald_relay *r, struct skald_err *err)
{
	char name[160];
	struct skald_stream_conf conf = { .url = r->url,
		.application = name,
		.connect_timeout_ms = CONNECT_MS,
		.slot = r->wal.slot,
		.publication = "skald_outbox",
		.schema = "skald",
		.table = "outbox",
		.columns = columns,
		.column_count = SKALD__COLUMN_COUNT };
	enum skald_rc rc = need_queue(&r->wal, err);

	skald__wal_close(r);
	(void)snprintf(name, sizeof(name), "skald stream %s", r->source);
	skald__wal_name_slot(r);
	return rc ? rc : skald_stream_open(&r->wal.session, &conf, err);
}

/* No waiting repairs this slot, or this server's streaming from it (codes: sql/sql.h). */
static bool
is_of_no_use(const struct skald_err *err)
{
	static const char *const codes[] = { "42704", "3F000", "55000", "0A000",
		"42501" };

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(err->code, codes[i]) == 0)
			return true;
	return false;
}

/* Start failed. What is wrong with the slot itself no waiting repairs: poll, and make another. */
static enum skald_rc
judge_start(struct skald_relay *r, enum skald_rc rc, const struct skald_err *err)
{
	if (is_of_no_use(err)) {
		skald__wal_lost(r, err);
		return SKALD_OK;
	}
	if (strcmp(err->code, "55006") != 0)
		return rc;
	if (r->wal.busy_since_ms == 0)
		r->wal.busy_since_ms = skald_mono_ms();
	if (skald_mono_ms() - r->wal.busy_since_ms > BUSY_MS)
		skald__relay_trouble(r, &r->pg, err, "the slot is in use");
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_STUCK,
				     .at_ms = skald_mono_ms() + ACTIVE_RETRY_MS });
	return SKALD_OK;
}

enum skald_rc
skald__wal_start(struct skald_relay *r, struct skald_err *err)
{
	struct skald_param slot;
	enum skald_rc rc = skald__wal_open(r, err);

	/* the lease is ours: whoever still has the slot leads no more. Without the right to
	   end that session it is waited for. */
	slot = skald_param_text(r->wal.slot);
	if (!rc && skald_sql_query(r->guard, sql_end_other, &slot, 1, false, NULL, err) &&
		!skald_sql_is_open(r->guard))
		return SKALD_RETRY;
	if (!rc)
		rc = skald_stream_start(r->wal.session, r->wal.flushed, err);
	if (rc) {
		skald__wal_close(r);
		return judge_start(r, rc, err);
	}
	skald_log(SKALD_LOG_INFO, "relay streams from slot %s source=%s", r->wal.slot,
		r->source);
	r->wal.is_started = true;
	r->wal.started_at_ms = skald_mono_ms();
	skald__unseen_clear(&r->wal.unseen);
	skald__gate_reset(r);
	r->wal.busy_since_ms = 0;
	r->wal.followed = 0;
	r->wal.recorded = r->wal.told = r->wal.flushed;
	r->wal.recorded_at_ms = skald_mono_ms();
	r->wal.told_at_ms = skald_mono_ms();
	skald__window_reset(&r->window, 0, (int64_t)r->wal.flushed);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_STARTED });
	return SKALD_OK;
}

void
skald__wal_lost(struct skald_relay *r, const struct skald_err *err)
{
	bool is_opening = r->core.state == SKALD__RELAY_OPENING;

	/* a slot that cannot be used while the server says it can */
	if (is_of_no_use(err)) {
		(void)snprintf(r->wal.leave_reason, sizeof(r->wal.leave_reason), "%.110s",
			err->text);
		r->wal.drop_due = true;
	}
	skald__relay_trouble(r, &r->pg, err, "the stream of the outbox broke");
	skald__wal_close(r);
	skald__publish_settle(r);
	skald__relay_tell(r, (struct skald__relay_ev){
				     .kind = is_opening ? SKALD__EV_LEFT : SKALD__EV_DEAD,
				     .at_ms = skald__relay_backoff(r, &r->pg) });
}

/* --- reading ----------------------------------------------------------------------------------- */

static void
take_row(struct skald_relay *r, const struct skald_stream_item *item, uint64_t *count)
{
	struct skald__wal *w = &r->wal;
	uint64_t xid = (uint64_t)skald_cell_int(item->cells[SKALD__COL_XID], 0);

	if (skald__snapshot_sees(&w->acked, xid))
		return; /* it was polled, or came out of the slot before */
	if (!w->next_lsn || !skald__snapshot_sees(&w->next, xid))
		skald__unseen_add(&w->unseen, xid, w->lsn);
	if (w->has_last) {
		push_last(w, SKALD__NO_MARK);
		(*count)++;
		SKALD_FAILPOINT(stream_mid_transaction);
	}
	w->last = (struct skald__queued){ .lsn = w->lsn,
		.ordinal = (uint32_t)item->ordinal,
		.bytes = item->bytes,
		.buffer = skald_stream_keep(w->session) };
	memcpy(w->last.cells, item->cells, sizeof(w->last.cells));
	w->has_last = true;
}

/* Everything that committed below is handed out. */
static void
take_end(struct skald_relay *r, uint64_t lsn)
{
	if (skald__wal_is_quiet(r) && lsn > r->wal.flushed)
		r->wal.flushed = lsn; /* W2 */
}

static void
take_item(struct skald_relay *r, const struct skald_stream_item *item, uint64_t *count)
{
	struct skald__wal *w = &r->wal;

	switch (item->kind) {
	case SKALD_STREAM_BEGIN:
		w->is_in_transaction = true;
		w->lsn = item->lsn;
		w->commit_us = item->commit_us;
		break;
	case SKALD_STREAM_ROW:
		take_row(r, item, count);
		break;
	case SKALD_STREAM_COMMIT:
		w->is_in_transaction = false;
		if (w->has_last) {
			push_last(w, (int64_t)item->lsn);
			(*count)++;
		} else {
			take_end(r, item->lsn);
		}
		break;
	case SKALD_STREAM_KEEPALIVE:
		take_end(r, item->lsn);
		w->is_reply_due = w->is_reply_due || item->wants_reply;
		break;
	case SKALD_STREAM_NOTHING:
		break;
	}
}

enum skald_rc
skald__wal_read(struct skald_relay *r, uint64_t count, struct skald_err *err)
{
	struct skald__relay_ev ev = { .kind = SKALD__EV_READ };
	struct skald_stream_item item = { .kind = SKALD_STREAM_BEGIN };
	struct skald__wal *w = &r->wal;
	enum skald_rc rc = SKALD_OK;

	/* one item may bring one row; other items are bounded too, or the lease waits */
	for (uint64_t n = 0; !rc && n < 4 * count && ev.count < count; n++) {
		ev.is_full = w->count >= SKALD__QUEUE_ROWS - 1 ||
			     w->queue_bytes > QUEUE_BYTES_MAX;
		if (ev.is_full)
			break;
		rc = skald_stream_next(w->session, &item, err);
		ev.is_end = !rc && item.kind == SKALD_STREAM_NOTHING;
		if (ev.is_end)
			break;
		if (!rc)
			take_item(r, &item, &ev.count);
	}
	if (ev.count > 0)
		SKALD_FAILPOINT(stream_after_read);
	skald__relay_tell(r, ev);
	return rc;
}

/* --- telling the server ------------------------------------------------------------------------ */

static void
follow_window(struct skald_relay *r)
{
	struct skald__wal *w = &r->wal;

	if (r->window.resume > 0 && (uint64_t)r->window.resume_mark > w->flushed)
		w->flushed = (uint64_t)r->window.resume_mark; /* W2 */
	/* kept: a long transaction takes up all places while it is sent */
	if (r->window.resume > w->followed) {
		w->followed = r->window.resume;
		w->resume_place = skald__feed_place(r, w->followed - 1);
	}
}

void
skald__wal_serve(struct skald_relay *r)
{
	struct skald__wal *w = &r->wal;
	struct skald_err err = SKALD_ERR_INIT;
	int64_t now_ms = skald_mono_ms();

	if (!w->is_started) {
		if (w->session)
			skald__wal_slot_serve(r);
		return;
	}
	follow_window(r);
	if (w->flushed - w->recorded >= MOVED_BYTES &&
		now_ms - w->recorded_at_ms >= MOVED_MS)
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_MOVED });
	if (now_ms - w->told_at_ms < (w->is_reply_due                ? REPLY_MS
					     : w->recorded > w->told ? STATUS_MS
								     : STATUS_QUIET_MS))
		return;
	if (skald_stream_status(w->session, w->recorded, &err)) {
		skald__wal_lost(r, &err);
		return;
	}
	w->told = w->recorded;
	w->told_at_ms = now_ms;
	w->is_reply_due = false;
	SKALD_FAILPOINT(stream_after_status);
}

/* --- writing down ------------------------------------------------------------------------------- */

static enum skald_rc
take_record(struct skald_relay *r, const struct skald_rows *rows,
	struct skald__relay_ev *ev, struct skald_err *err)
{
	struct skald__wal *w = &r->wal;
	struct skald_slice snapshot = skald_rows_get(rows, 0, 3);
	int64_t held = skald_rows_int(rows, 0, 5, 0);

	r->tick.epoch = (uint32_t)skald_rows_int(rows, 0, 1, 0);
	ev->epoch_due = skald_rows_bool(rows, 0, 2);
	skald_buf_clear(&w->next_snapshot);
	skald_buf_add_slice(&w->next_snapshot, snapshot);
	skald_buf_add(&w->next_snapshot, "", 1);
	w->next_lsn = (uint64_t)skald_rows_int(rows, 0, 4, 0);
	atomic_store(r->metrics.wal_held, held);
	atomic_store(r->metrics.wal_behind, skald_rows_int(rows, 0, 6, 0));
	atomic_store(r->metrics.safe_wal, skald_rows_int(rows, 0, 7, -1));
	atomic_store(r->metrics.spilled, skald_rows_int(rows, 0, 8, 0));
	atomic_store(r->metrics.lag, skald__wal_is_quiet(r) || !w->commit_us
					     ? 0
					     : (skald_wall_us() - w->commit_us) / 1000);
	ev->is_full = r->slot_limit_bytes > 0 && held > r->slot_limit_bytes;
	if (ev->is_full)
		(void)snprintf(w->leave_reason, sizeof(w->leave_reason),
			"the slot held %" PRId64 " MiB of WAL, above relay.slot_limit",
			held / 1048576);
	if (w->next_snapshot.failed)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	if (skald__snapshot_parse(&w->next, snapshot, err))
		return SKALD_RETRY;
	skald__unseen_look(&w->unseen, &w->next);
	return SKALD_OK;
}

enum skald_rc
skald__wal_record(struct skald_relay *r, bool is_drained, struct skald_err *err)
{
	struct skald__wal *w = &r->wal;
	struct skald__relay_ev ev = { .kind = SKALD__EV_RECORDED,
		.ordinal = r->window.resume };
	char term[24], lsn[24], mark_lsn[24], position[SKALD_POSITION_TEXT_BYTES];
	uint64_t flushed;
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		SKALD_PARAM_NULL, SKALD_PARAM_NULL, SKALD_PARAM_NULL, SKALD_PARAM_NULL,
		skald_param_text(is_drained ? "t" : "f") };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	follow_window(r);
	if (r->window.resume > r->core.recorded)
		SKALD_FAILPOINT(stream_after_ack);
	flushed = w->flushed;
	params[1] = skald_param_int((int64_t)flushed, lsn);
	if (w->followed > 0) {
		skald_position_format(w->resume_place, position);
		params[2] = skald_param_text(position);
	}
	if (w->next_lsn && w->next_lsn <= w->flushed) { /* W3 */
		ev.is_marked = true;
		params[3] = skald_param_text(w->next_snapshot.data);
		if (skald_mono_ms() - w->started_at_ms > BOUND_MS)
			params[4] = skald_param_int(
				(int64_t)skald__unseen_bound(&w->unseen, w->next_lsn),
				mark_lsn); /* else the last one holds */
	}
	rc = skald_sql_query(r->guard, sql_record, params, 6, true, &rows, err);
	if (rc)
		return rc;
	SKALD_FAILPOINT(stream_after_record);
	if (!skald_rows_bool(rows, 0, 0)) {
		skald_rows_free(rows);
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_LOST });
		return SKALD_OK;
	}
	w->recorded = flushed;
	w->recorded_at_ms = skald_mono_ms();
	rc = take_record(r, rows, &ev, err);
	skald_rows_free(rows);
	if (!rc && is_drained)
		rc = skald__topics_regrow(r, err);
	else if (!rc)
		ev.epoch_due = ev.epoch_due || skald__topics_have_grown(r);
	if (!rc)
		skald__relay_tell(r, ev);
	return rc ? rc : skald__park_turn(r, err);
}
