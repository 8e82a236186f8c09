/*
 * cmd_outbox.c - `skald outbox ls|tail`. Never shows data: that is payload.
 */
#include "cli/own.h"

#include <poll.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"

#define FOLLOW_MS      200 /* a person does not notice, the server neither */
#define TAIL_ROWS      10
#define STATEMENT_MAX  (96 * 1024)
#define SNAPSHOT_BYTES (3 * 65536)

const struct skald__flag skald__limit_flags[] = {
	{ "--limit", "N", "at most so many; 0 shows all (50)" },
	{ NULL, NULL, NULL },
};
const struct skald__flag skald__outbox_flags[] = {
	{ "--topic", "TOPIC", "to this topic" },
	{ "--key", "KEY", "with this key" },
	{ "--type", "TYPE", "of this ce_type" },
	{ "--correlation", "ID", "of this correlation id" },
	{ "--since", "TIME", "not older: an age like 2h, or RFC 3339" },
	{ "--until", "TIME", "not younger" },
	{ "--waiting", NULL, "not published yet, parked ones too" },
	{ NULL, NULL, NULL },
};
const struct skald__flag skald__tail_flags[] = {
	{ "--follow", NULL, "go on with those that follow" },
	{ "--published", NULL, "when they are published, not when they are committed" },
	{ "--lines", "N", "begin with the last N (10)" },
	{ NULL, NULL, NULL },
};

/* clang-format off */
/* What is not seen by the acknowledged snapshot waits; see sql/functions/views.sql. */
#define IS_BEYOND(r) \
	"(NOT pg_visible_in_snapshot(o.xid, " r ".acked_snapshot) AND NOT (o.id <= " r \
	".done_id AND pg_visible_in_snapshot(o.xid, " r ".tick_snapshot)))"
#define IS_WAITING IS_BEYOND("r")
#define IS_PARKED  "EXISTS (SELECT FROM skald.parked_message AS p WHERE p.id = o.id)"

#define OUTBOX_COLUMNS \
	"o.id::text, " SKALD__UTC("o.at") ", o.message_id::text," \
	" CASE WHEN " IS_PARKED " THEN 'parked' WHEN " IS_WAITING \
	" THEN 'waiting' ELSE 'published' END," \
	" o.topic, o.type, encode(o.key, 'hex'), o.subject, o.source," \
	" o.correlation_id, "
/* the last column: a reader may not even ask how long the data is */
#define WITH_BYTES    OUTBOX_COLUMNS "octet_length(o.data)::text"
#define WITHOUT_BYTES OUTBOX_COLUMNS "NULL::text"
/* clang-format on */

static const struct skald__column columns[] = {
	{ NULL, NULL, SKALD_KIND_TEXT, 0 }, /* the snapshot, or how many there are */
	{ "id", NULL, SKALD_KIND_NUMBER, 0 },
	{ "at", "AGE", SKALD_KIND_TIME, 0 },
	{ "message_id", NULL, SKALD_KIND_TEXT, 0 },
	{ "state", "STATE", SKALD_KIND_TEXT, 0 },
	{ "topic", "TOPIC", SKALD_KIND_TEXT, 12 },
	{ "type", "TYPE", SKALD_KIND_TEXT, 12 },
	{ "key", "KEY", SKALD_KIND_HEX, 8 },
	{ "subject", NULL, SKALD_KIND_TEXT, 0 },
	{ "source", NULL, SKALD_KIND_TEXT, 0 },
	{ "correlation_id", "CORRELATION", SKALD_KIND_TEXT, 11 },
	{ "bytes", "BYTES", SKALD_KIND_NUMBER, 0 },
};
#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

static enum skald__exit
where_messages(struct skald__cli *cli, struct skald__where *where)
{
	static const struct skald__where_flag flags[] = {
		{ "--topic", "o.topic = %s", false },
		{ "--key", "o.key = convert_to(%s, 'UTF8')", false },
		{ "--type", "o.type = %s", false },
		{ "--correlation", "o.correlation_id = %s", false },
		{ "--since", "o.at >= %s::timestamptz", true },
		{ "--until", "o.at <= %s::timestamptz", true },
		{ NULL, NULL, false },
	};
	enum skald__exit status;

	/* a marker that lets a parked key out is no message (sql/functions/park.sql) */
	skald__where_add(where, "o.topic <> ''", SKALD_SLICE_NULL);
	status = skald__where_flags(cli, where, flags);
	if (!status && skald__flag_is_given(cli, "--waiting"))
		skald__where_add(
			where, "(" IS_WAITING " OR " IS_PARKED ")", SKALD_SLICE_NULL);
	if (!status && skald__flag_is_given(cli, "--published"))
		skald__where_add(
			where, "NOT " IS_WAITING " AND NOT " IS_PARKED, SKALD_SLICE_NULL);
	return status;
}

static const char *
text_of(const struct skald__where *where)
{
	return where->text.data ? where->text.data : "";
}

/*
 * before, the columns, after: with the size of the data where this role may see
 * it, else without.
 */
static enum skald__exit
ask(const struct skald__cli *cli, struct skald_sql *sql, const struct skald_buf *before,
	const struct skald_buf *after, const struct skald__where *where,
	struct skald_rows **rows)
{
	static const char *const columns_to_try[] = { WITH_BYTES, WITHOUT_BYTES };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_buf statement;
	enum skald_rc rc = SKALD_OK;

	skald_buf_init(&statement, STATEMENT_MAX + SNAPSHOT_BYTES);
	for (unsigned i = 0; i < 2; i++) {
		skald_buf_clear(&statement);
		skald_buf_add_slice(&statement, skald_buf_slice(before));
		skald_buf_add_text(&statement, columns_to_try[i]);
		skald_buf_add_slice(&statement, skald_buf_slice(after));
		rc = skald_conn_query(skald_sql_conn(sql), statement.data, where->params,
			where->count, rows, &err);
		if (!rc || strcmp(err.code, "42501") != 0)
			break;
	}
	skald_buf_done(&statement);
	if (!rc)
		return SKALD_EXIT_DONE;
	return skald__fail_err(cli, rc, &err,
		strcmp(err.code, "42501") == 0 ? "GRANT skald_reader TO you" : NULL);
}

/* --- ls ------------------------------------------------------------------------------------- */

enum skald__exit
skald__cmd_outbox_ls(struct skald__cli *cli)
{
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	struct skald_buf before;
	struct skald_buf after;
	struct skald__where where;
	enum skald__exit status;
	int64_t limit = 50;
	unsigned count;

	skald__where_init(&where);
	skald_buf_init(&before, STATEMENT_MAX);
	skald_buf_init(&after, STATEMENT_MAX);
	status = skald__flag_int(cli, "--limit", 0, INT32_MAX, &limit);
	if (!status)
		status = where_messages(cli, &where);
	if (!status)
		status = skald__open(cli, &sql);
	if (status)
		goto out;
	skald_buf_add_text(&before, "SELECT count(*) OVER ()::text, ");
	skald_buf_addf(&after,
		" FROM skald.outbox AS o CROSS JOIN skald.relay AS r %s"
		" ORDER BY o.id DESC LIMIT nullif(%lld, 0)",
		text_of(&where), (long long)limit);
	status = ask(cli, sql, &before, &after, &where, &rows);
	if (status)
		goto out;
	count = skald_rows_count(rows);
	if (count || cli->is_json)
		skald__rows_print(cli, columns, COLUMN_COUNT, rows, 0);
	skald__rows_count_print(
		cli, "messages", count, count ? skald_rows_int(rows, 0, 0, 0) : 0);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	skald_buf_done(&after);
	skald_buf_done(&before);
	skald__where_done(&where);
	return status;
}

/* --- tail -------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void
on_interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

/* One line a message: a table cannot know the widths of those to come. */
static void
print_lines(const struct skald__cli *cli, const struct skald_rows *rows)
{
	struct skald_buf line;
	struct skald_buf clean;
	struct skald_buf cell;

	skald_buf_init(&line, 1024 * 1024);
	skald_buf_init(&clean, 1024 * 1024);
	skald_buf_init(&cell, 64 * 1024);
	for (unsigned r = 0; r < skald_rows_count(rows); r++) {
		static const unsigned shown[] = { 5, 6, 7,
			10 }; /* topic type key corr. */
		struct skald_slice at = skald_rows_get(rows, r, 2);

		if (!skald_rows_get(rows, r, 1).data)
			continue; /* the snapshot alone */
		skald_buf_clear(&line);
		skald_buf_clear(&clean);
		if (cli->is_json) {
			skald__row_json(columns, COLUMN_COUNT, rows, r, &line);
		} else {
			/* HH:MM:SS.mmm of the stamp */
			if (at.bytes > 23)
				skald_buf_add(&clean, at.data + 11, 12);
			for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
				skald_buf_add_text(&clean, "  ");
				skald__cell(&columns[shown[i]],
					skald_rows_get(rows, r, shown[i]), &cell);
				skald_buf_add_slice(&clean, skald_buf_slice(&cell));
			}
			skald__add_cut(&line, skald_buf_slice(&clean), cli->width);
		}
		skald_buf_add_text(&line, "\n");
		skald__put(skald_buf_slice(&line));
	}
	fflush(stdout);
	skald_buf_done(&cell);
	skald_buf_done(&clean);
	skald_buf_done(&line);
}

/* Where a look stands: what is visible, or what the relay has recorded as acknowledged. */
#define SEEN_COMMITTED "pg_current_snapshot()::text || ' 1:1: -1'"
#define SEEN_PUBLISHED \
	"r.acked_snapshot::text || ' ' || r.tick_snapshot::text || ' ' || r.done_id"

/*
 * What this look sees and the last did not, as the relay itself does it: by
 * snapshot difference, never `id > last`, which misses who commits late.
 * seen "" begins: the newest few.
 */
static enum skald__exit
look(const struct skald__cli *cli, struct skald_sql *sql, struct skald__where *where,
	int64_t lines, struct skald_buf *seen)
{
	bool is_published = skald__flag_is_given(cli, "--published");
	struct skald_rows *rows = NULL;
	struct skald_buf before;
	struct skald_buf after;
	enum skald__exit status;

	skald_buf_init(&before, STATEMENT_MAX);
	skald_buf_init(&after, STATEMENT_MAX + SNAPSHOT_BYTES);
	skald_buf_addf(&before,
		"SELECT %s, m.* FROM skald.relay AS r"
		" LEFT JOIN LATERAL (SELECT * FROM (SELECT ",
		is_published ? SEEN_PUBLISHED : SEEN_COMMITTED);
	skald_buf_add_text(&after, ", o.id AS n FROM skald.outbox AS o");
	if (seen->bytes)
		skald_buf_addf(&after,
			", (SELECT s[1]::pg_snapshot AS acked_snapshot,"
			" s[2]::pg_snapshot AS tick_snapshot, s[3]::bigint AS done_id"
			" FROM string_to_array('%s', ' ') AS s OFFSET 0) AS l",
			seen->data);
	skald_buf_addf(&after, " %s", text_of(where));
	if (seen->bytes)
		skald_buf_add_text(&after,
			" AND o.xid >= pg_snapshot_xmin(l.acked_snapshot)"
			" AND " IS_BEYOND("l"));
	skald_buf_add_text(&after, " ORDER BY o.id DESC");
	if (!seen->bytes)
		skald_buf_addf(&after, " LIMIT %lld", (long long)lines);
	skald_buf_add_text(&after, ") AS l ORDER BY l.n) AS m ON true");
	status = ask(cli, sql, &before, &after, where, &rows);
	if (!status && skald_rows_count(rows)) {
		struct skald_slice now = skald_rows_get(rows, 0, 0);

		skald_buf_clear(seen);
		skald_buf_add_slice(seen, now);
		print_lines(cli, rows);
	}
	skald_rows_free(rows);
	skald_buf_done(&after);
	skald_buf_done(&before);
	return status;
}

enum skald__exit
skald__cmd_outbox_tail(struct skald__cli *cli)
{
	struct sigaction action = { .sa_handler = on_interrupt };
	struct skald_sql *sql = NULL;
	struct skald__where where;
	struct skald_buf seen;
	enum skald__exit status;
	int64_t lines = TAIL_ROWS;

	sigaction(SIGINT, &action, NULL);
	skald__where_init(&where);
	skald_buf_init(&seen, SNAPSHOT_BYTES);
	status = skald__flag_int(cli, "--lines", 0, 100000, &lines);
	if (!status)
		status = where_messages(cli, &where);
	if (!status)
		status = skald__open(cli, &sql);
	while (!status) {
		status = look(cli, sql, &where, lines, &seen);
		if (status || interrupted || !skald__flag_is_given(cli, "--follow"))
			break;
		(void)poll(NULL, 0, FOLLOW_MS);
		if (interrupted)
			break;
	}
	skald_sql_close(sql);
	skald_buf_done(&seen);
	skald__where_done(&where);
	return status;
}
