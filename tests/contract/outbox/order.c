/*
 * Which rows a reader of the outbox takes, and in which order: the relay and two
 * readers as others build them go through the same schedules; one checker looks at
 * what each has published.
 */
#include <stdlib.h>

#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

#define LOG_MAX 64

/* What a reader has published, in order: "key version". */
struct log {
	char entries[LOG_MAX][32];
	unsigned count;
};

struct findings {
	unsigned lost, inverted, doubled;
};

static bool
is_first(const struct log *log, unsigned at)
{
	for (unsigned i = 0; i < at; i++)
		if (strcmp(log->entries[i], log->entries[at]) == 0)
			return false;
	return true;
}

/* Per key, first appearances must be versions 1, 2, 3... up to what was committed. */
static struct findings
check(const struct log *log, const char *const *keys, const int *versions, unsigned count)
{
	struct findings f = { 0, 0, 0 };

	for (unsigned k = 0; k < count; k++) {
		int highest = 0, found = 0;

		for (unsigned i = 0; i < log->count; i++) {
			size_t bytes = strlen(keys[k]);
			int version;

			if (strncmp(log->entries[i], keys[k], bytes) != 0 ||
				log->entries[i][bytes] != ' ')
				continue;
			version = (int)strtol(log->entries[i] + bytes, NULL, 10);
			if (!is_first(log, i)) {
				f.doubled++;
				continue;
			}
			found++;
			f.inverted += version < highest;
			highest = version > highest ? version : highest;
		}
		f.lost += (unsigned)(versions[k] - found);
	}
	return f;
}

/* --- readers ------------------------------------------------------------------------ */

struct reader {
	struct skald_sql *sql; /* of a session of its own */
	const char *database;
	void (*poll)(struct reader *reader);
	struct log log;
};

static void
note(struct log *log, const char *entry)
{
	if (log->count < LOG_MAX)
		(void)snprintf(
			log->entries[log->count++], sizeof(log->entries[0]), "%s", entry);
}

/* One answer, a line an entry. */
static void
note_lines(struct log *log, const char *lines)
{
	while (*lines) {
		size_t bytes = strcspn(lines, "\n");
		char entry[32];

		(void)snprintf(entry, sizeof(entry), "%.*s", (int)bytes, lines);
		note(log, entry);
		lines += bytes + (lines[bytes] == '\n');
	}
}

#define ENTRIES(order) \
	"string_agg(convert_from(key, 'UTF8') || ' ' || convert_from(data, 'UTF8'), " \
	"E'\\n' ORDER BY " order ")"

/* The home-made one: everything above the last id seen. */
static void
poll_by_id(struct reader *reader)
{
	note_lines(&reader->log,
		pg_text(reader->sql,
			"WITH new AS (SELECT * FROM skald.outbox WHERE id > (SELECT last "
			"FROM cursor)), "
			"moved AS (UPDATE cursor SET last = (SELECT max(id) FROM new) "
			"WHERE EXISTS (SELECT FROM new)) SELECT " ENTRIES(
				"id") " FROM new"));
}

/* The popular repair: below the oldest open transaction, ordered by (xid, id). */
static void
poll_by_xid(struct reader *reader)
{
	note_lines(&reader->log,
		pg_text(reader->sql,
			"WITH new AS (SELECT * FROM skald.outbox WHERE xid >= (SELECT "
			"last FROM horizon) "
			"AND xid < pg_snapshot_xmin(pg_current_snapshot())), "
			"moved AS (UPDATE horizon SET last = "
			"pg_snapshot_xmin(pg_current_snapshot())) "
			"SELECT " ENTRIES("xid, id") " FROM new"));
}

/* The relay's own statements, one tick a poll. */
static void
poll_by_tick(struct reader *reader)
{
	struct skald_sql *sql = reader->sql;
	int64_t tick = pg_int(sql,
		"SELECT opened FROM skald.relay_turn(1, NULL, NULL, true, false, false)");

	if (tick < 0)
		return;
	note_lines(&reader->log,
		pg_text(sql,
			"SELECT " ENTRIES(
				"id") " FROM skald.outbox, skald.relay "
				      "WHERE pg_visible_in_snapshot(xid, tick_snapshot) "
				      "AND NOT pg_visible_in_snapshot(xid, "
				      "acked_snapshot)"));
	pg_exec(sql, "SELECT skald.relay_turn(1, tick, NULL, false, false, false) FROM "
		     "skald.relay");
}

/* --- schedules ---------------------------------------------------------------------- */

static void
poll(struct reader *reader)
{
	if (reader->poll)
		reader->poll(reader);
}

/*
 * T1 is first to get a transaction id and first to draw an outbox id, and commits last;
 * b's second version is T1's, which it may write only after T2, its first, has committed.
 */
static void
run_schedule(struct reader *reader, const char *topic)
{
	struct skald_sql *t1 = pg_session(reader->database, "postgres", SKALD_SQL_TOOL);
	struct skald_sql *t2 = pg_session(reader->database, "postgres", SKALD_SQL_TOOL);

	pg_exec(t1, "BEGIN; SELECT pg_current_xact_id()");
	kit_add(t1, topic, "a", 1);
	pg_exec(t2, "BEGIN");
	kit_add(t2, topic, "b", 1);
	pg_exec(t2, "COMMIT");
	poll(reader);
	kit_add(t1, topic, "b", 2);
	pg_exec(t1, "COMMIT");
	poll(reader);
	kit_add(t2, topic, "a", 2);
	poll(reader);
	skald_sql_close(t1);
	skald_sql_close(t2);
}

static const char *const keys[] = { "a", "b" };
static const int versions[] = { 2, 2 };

static struct findings
schedule_of(const char *database, void (*fn)(struct reader *))
{
	struct reader reader = { .database = database, .poll = fn };

	reader.sql = pg_open(database, SKALD_SQL_TOOL);
	pg_exec(reader.sql, "CREATE TABLE cursor AS SELECT -1::bigint AS last; "
			    "CREATE TABLE horizon AS SELECT '1'::xid8 AS last; "
			    "SELECT skald.relay_lead(1, 'test', 'poll')");
	run_schedule(&reader, database);
	skald_sql_close(reader.sql);
	return check(&reader.log, keys, versions, 2);
}

static void
ticks_lose_and_invert_nothing(void)
{
	struct findings f = schedule_of("ticks", poll_by_tick);

	CU_ASSERT_EQUAL(f.lost, 0);
	CU_ASSERT_EQUAL(f.inverted, 0);
	CU_ASSERT_EQUAL(f.doubled, 0);
}

static void
control_a_cursor_on_id_loses_a_row(void)
{
	CU_ASSERT(schedule_of("by_id", poll_by_id).lost > 0);
}

static void
control_the_xmin_horizon_inverts_a_key(void)
{
	CU_ASSERT(schedule_of("by_xid", poll_by_xid).inverted > 0);
}

/* The whole relay in the place of the reader: one partition a key, so offsets are its log. */
static void
the_relay_loses_and_inverts_nothing(void)
{
	struct reader reader = { .database = "whole" };
	struct kit_records all;
	struct kit_relay r;
	struct findings f;

	reader.sql = pg_open("whole", SKALD_SQL_TOOL);
	kit_relay_start(&r, "whole", 0);
	run_schedule(&reader, "whole");
	CU_ASSERT(kit_wait_relayed(reader.sql));
	kit_relay_stop(&r);
	all = kit_read("whole");
	for (unsigned i = 0; i < all.count; i++) {
		char entry[32];

		(void)snprintf(entry, sizeof(entry), "%s %s", all.items[i].key,
			all.items[i].value);
		note(&reader.log, entry);
	}
	f = check(&reader.log, keys, versions, 2);
	CU_ASSERT_EQUAL(reader.log.count, 4);
	CU_ASSERT_EQUAL(f.lost, 0);
	CU_ASSERT_EQUAL(f.inverted, 0);
	CU_ASSERT_EQUAL(f.doubled, 0);
	kit_free(&all);
	skald_sql_close(reader.sql);
}

/* Neither an open transaction on the outbox nor one in another database stalls others. */
static void
an_open_transaction_stalls_nobody_else(void)
{
	struct skald_sql *sql = pg_open("stall", SKALD_SQL_TOOL), *open, *foreign;
	struct kit_records all;
	struct kit_relay r;

	kit_relay_start(&r, "stall", 0);
	open = pg_session("stall", "postgres", SKALD_SQL_TOOL);
	pg_create("elsewhere", false);
	foreign = pg_session("elsewhere", "postgres", SKALD_SQL_TOOL);
	pg_exec(open, "BEGIN");
	kit_add(open, "stall", "a", 1);
	pg_exec(foreign, "BEGIN; SELECT pg_current_xact_id()");
	for (int i = 1; i <= 20; i++)
		kit_add(sql, "stall", "b", i);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 20));
	pg_exec(open, "COMMIT");
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	all = kit_read("stall");
	CU_ASSERT_EQUAL(all.count, 21);
	kit_free(&all);
	skald_sql_close(foreign);
	skald_sql_close(open);
	skald_sql_close(sql);
}

/* --- how a window is found ---------------------------------------------------------- */

/* Rows that an index scan of a plan threw away, by EXPLAIN (ANALYZE). */
static int64_t
rows_visited(struct skald_sql *sql, const char *query)
{
	char text[1024];

	(void)snprintf(text, sizeof(text),
		"CREATE OR REPLACE FUNCTION pg_temp.visited() RETURNS bigint LANGUAGE "
		"plpgsql AS $f$ "
		"DECLARE plan json; BEGIN EXECUTE $q$EXPLAIN (ANALYZE, BUFFERS, FORMAT "
		"json) %s$q$ "
		"INTO plan; RETURN (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::bigint "
		"+ (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::bigint; END $f$",
		query);
	pg_exec(sql, text);
	return pg_int(sql, "SELECT pg_temp.visited()");
}

/* An old transaction holds the snapshot's xmin back; ticks do not scan from there. */
static void
an_old_transaction_makes_no_tick_slow(void)
{
	struct skald_sql *sql = pg_open("oldest", SKALD_SQL_TOOL);
	struct skald_sql *open = pg_session("oldest", "postgres", SKALD_SQL_TOOL);
	int64_t blocks;

	pg_exec(sql, "SELECT skald.relay_lead(1, 'test', 'poll')");
	pg_exec(open, "BEGIN");
	kit_add(open, "oldest", "a", 1); /* old, and with a row of its own */
	for (int i = 0; i < 30; i++)
		pg_exec(sql, "SELECT skald.outbox_add(topic => 'oldest', key => 'b', "
			     "type => 't', "
			     "data => '1') FROM generate_series(1, 1000)");
	pg_exec(sql, "SELECT skald.relay_turn(1, NULL, NULL, true, false, false); "
		     "SELECT skald.relay_turn(1, 1, NULL, false, false, false)");
	kit_add(sql, "oldest", "b", 2);
	pg_exec(sql, "SET enable_seqscan = off; SET jit = off; "
		     "SET plan_cache_mode = force_generic_plan");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT opened FROM skald.relay_turn(1, NULL, NULL, "
				    "true, false, false)"),
		2);
	pg_exec(sql, "SELECT skald.relay_turn(1, 2, NULL, false, false, false)");
	blocks = rows_visited(sql,
		"SELECT opened FROM skald.relay_turn(1, NULL, NULL, true, false, false)");
	printf("(%lld blocks) ", (long long)blocks);
	CU_ASSERT(blocks < 200); /* the table has over 1500 */
	skald_sql_close(open);
	skald_sql_close(sql);
}

/* A bulk load under way is looked at once, not at every turn. */
static void
a_bulk_load_under_way_is_passed_over(void)
{
	struct skald_sql *sql = pg_open("bulk", SKALD_SQL_TOOL);
	struct skald_sql *open = pg_session("bulk", "postgres", SKALD_SQL_TOOL);

	pg_exec(sql, "SELECT skald.relay_lead(1, 'test', 'poll')");
	pg_exec(open, "BEGIN");
	pg_exec(open, "SELECT skald.outbox_add(topic => 'bulk', key => 'b', type => 't', "
		      "data => '1') FROM generate_series(1, 1000)");
	/* the first turn's own transaction id closes the range behind the load's */
	for (int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(
			pg_int(sql, "SELECT opened FROM skald.relay_turn(1, NULL, NULL, "
				    "true, false, true)"),
			-1);
	/* all that is seen is acknowledged; the load is not seen */
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.relay, skald.outbox "
				    "WHERE pg_visible_in_snapshot(xid, acked_snapshot)"),
		0);
	CU_ASSERT(pg_int(sql, "SELECT count(*) FROM skald.relay, "
			      "pg_snapshot_xip(acked_snapshot)") > 0);
	pg_exec(open, "COMMIT");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT opened FROM skald.relay_turn(1, NULL, NULL, "
				    "true, false, true)"),
		1);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM skald.relay, skald.outbox WHERE "
			    "pg_visible_in_snapshot(xid, tick_snapshot) AND NOT "
			    "pg_visible_in_snapshot(xid, acked_snapshot)"),
		1000);
	skald_sql_close(open);
	skald_sql_close(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(ticks_lose_and_invert_nothing),
		CHECK(control_a_cursor_on_id_loses_a_row),
		CHECK(control_the_xmin_horizon_inverts_a_key),
		CHECK(the_relay_loses_and_inverts_nothing),
		CHECK(an_open_transaction_stalls_nobody_else),
		CHECK(an_old_transaction_makes_no_tick_slow),
		CHECK(a_bulk_load_under_way_is_passed_over),
	};

	return check_main("contract.outbox.order", cases, CHECK_COUNT(cases));
}
