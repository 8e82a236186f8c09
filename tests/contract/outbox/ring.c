/*
 * The ring of leaves: emptied by lock-then-look, moved on when it is quiet, never
 * in the way of a writer.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

#define ROUND "1048576" /* ids of a leaf */

static void
add(struct skald_sql *sql, const char *topic, int n)
{
	char script[256];

	(void)snprintf(script, sizeof(script),
		"SELECT skald.outbox_add(topic => '%s', key => 'k', type => 't', data => "
		"'%d')",
		topic, n);
	pg_exec(sql, script);
}

/* The relay's turns without Kafka: whatever is committed counts as published. */
static void
publish_all(struct skald_sql *sql)
{
	pg_exec(sql, "SELECT skald.relay_turn(1, NULL, NULL, true, false, false)");
	if (pg_int(sql, "SELECT (acked_snapshot::text <> tick_snapshot::text)::int FROM "
			"skald.relay"))
		pg_exec(sql,
			"INSERT INTO published SELECT id FROM skald.outbox, skald.relay "
			"WHERE pg_visible_in_snapshot(xid, tick_snapshot) "
			"AND NOT pg_visible_in_snapshot(xid, acked_snapshot); "
			"SELECT skald.relay_turn(1, tick, NULL, false, false, false) "
			"FROM skald.relay");
}

/* --- lock, then look ---------------------------------------------------------------- */

/* One session holds a row of leaf 0 open while the leaf is looked at, then commits. */
struct race {
	struct skald_sql *sql;
	struct skald_sql *late;
	char since[32];
};

static void
race_open(struct race *race, const char *database)
{
	race->sql = pg_open(database, SKALD_SQL_TOOL);
	race->late = pg_session(database, "postgres", SKALD_SQL_TOOL);
	pg_exec(race->sql,
		"CREATE TABLE published (id bigint); CREATE TABLE committed (id bigint); "
		"SELECT skald.relay_lead(1, 'test', 'poll')");
	add(race->sql, database, 1);
	pg_exec(race->late, "BEGIN");
	add(race->late, database, 2);
	publish_all(race->sql);
	pg_exec(race->sql, "SELECT setval('skald.outbox_id', " ROUND ", false)");
	/* the look: the open row is invisible, so there is nothing against it */
	(void)snprintf(race->since, sizeof(race->since), "%s",
		pg_text(race->sql, "SELECT skald.relay_leaf_ready(0, '0 s')"));
	CU_ASSERT(race->since[0] != '\0');
}

/* Lost: committed, neither published nor in the table. */
static int64_t
race_close(struct race *race)
{
	int64_t lost;

	publish_all(race->sql);
	lost = 2 - pg_int(race->sql,
			   "SELECT count(DISTINCT id) FROM (SELECT id FROM published "
			   "UNION ALL SELECT id FROM skald.outbox) AS x");
	skald_sql_close(race->late);
	skald_sql_close(race->sql);
	return lost;
}

static const char *
call(struct race *race, const char *function)
{
	char query[160];

	(void)snprintf(query, sizeof(query), "SELECT skald.%s(0, '%s', '0 s')", function,
		race->since);
	return pg_text(race->sql, query);
}

static void
lock_then_look_loses_nothing(void)
{
	struct race race;

	race_open(&race, "lock_look");
	pg_exec(race.late, "COMMIT");
	CHECK_TEXT(call(&race, "relay_leaf_lock"), "f");
	CHECK_TEXT(call(&race, "relay_leaf_truncate"), "f"); /* looks for itself */
	CU_ASSERT_EQUAL(race_close(&race), 0);
}

static void
control_look_then_lock_loses_a_row(void)
{
	struct race race;

	race_open(&race, "look_lock");
	pg_exec(race.late, "COMMIT");
	pg_exec(race.sql, "BEGIN; LOCK TABLE skald.outbox_0 IN ACCESS EXCLUSIVE MODE; "
			  "TRUNCATE skald.outbox_0; COMMIT");
	CU_ASSERT_EQUAL(race_close(&race), 1);
}

static enum skald_rc
try_lock(struct race *race, struct skald_err *err)
{
	char query[160];
	enum skald_rc rc;

	(void)snprintf(query, sizeof(query),
		"SELECT skald.relay_leaf_lock(0, '%s', '0 s')", race->since);
	rc = skald_sql_exec(race->sql, query, err);
	skald_sql_rollback(race->sql);
	return rc;
}

/* As long as the late one is open the lock does not come, and nobody waits for long. */
static void
an_open_writer_keeps_its_leaf(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct race race;
	int64_t began_ms;

	race_open(&race, "keeps");
	began_ms = skald_mono_ms();
	CU_ASSERT_EQUAL(try_lock(&race, &err), SKALD_RETRY);
	CHECK_TEXT(err.code, "55P03");
	CU_ASSERT(skald_mono_ms() - began_ms < 3000);
	pg_exec(race.late, "COMMIT");
	publish_all(race.sql);
	CHECK_TEXT(call(&race, "relay_leaf_truncate"), "t"); /* now published: free */
	CU_ASSERT_EQUAL(pg_int(race.sql, "SELECT count(*) FROM skald.outbox_0"), 0);
	CU_ASSERT_EQUAL(race_close(&race), 0);
}

static void
an_older_snapshot_may_not_empty_a_leaf(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct race race;

	race_open(&race, "snapshot");
	pg_exec(race.late, "COMMIT");
	pg_exec(race.sql, "BEGIN ISOLATION LEVEL REPEATABLE READ");
	CU_ASSERT_EQUAL(try_lock(&race, &err), SKALD_REJECT);
	CHECK_TEXT(err.code, "SK006");
	CU_ASSERT_EQUAL(race_close(&race), 0);
}

static void
a_leaf_is_kept_while_a_row_is_young_or_the_sequence_is_there(void)
{
	struct race race;

	race_open(&race, "young");
	pg_exec(race.late, "ROLLBACK");
	CHECK_TEXT(pg_text(race.sql, "SELECT skald.relay_leaf_ready(0, '1 h')"), "");
	CHECK_TEXT(pg_text(race.sql, "SELECT skald.relay_leaf_lock(0, '0', '1 h')"), "f");
	CHECK_TEXT(pg_text(race.sql, "SELECT skald.relay_leaf_lock(0, '0', '0 s')"), "t");
	pg_exec(race.sql, "SELECT setval('skald.outbox_id', 5)");
	CHECK_TEXT(pg_text(race.sql, "SELECT skald.relay_leaf_lock(0, '0', '0 s')"), "f");
	skald_sql_close(race.late);
	skald_sql_close(race.sql);
}

/* --- the sequence ------------------------------------------------------------------- */

static void
the_sequence_moves_only_forward_and_only_when_all_is_old(void)
{
	struct skald_sql *sql = pg_open("moves", SKALD_SQL_TOOL);
	struct skald_sql *open = pg_session("moves", "postgres", SKALD_SQL_TOOL);
	struct skald_err err = SKALD_ERR_INIT;

	pg_exec(sql, "CREATE TABLE published (id bigint); SELECT skald.relay_lead(1, "
		     "'test', 'poll')");
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT skald.relay_ring_move('0 s')"), -1); /* empty */
	add(sql, "moves", 1);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT skald.relay_ring_move('0 s')"), -1); /* unpublished */
	publish_all(sql);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT skald.relay_ring_move('1 h')"), -1); /* young */
	pg_exec(open, "BEGIN");
	add(open, "moves", 2); /* has drawn an id */
	CU_ASSERT_EQUAL(skald_sql_exec(sql, "SELECT skald.relay_ring_move('0 s')", &err),
		SKALD_RETRY);
	CHECK_TEXT(err.code, "55P03");
	pg_exec(open, "ROLLBACK");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT skald.relay_ring_move('0 s')"), 1048576);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT skald.relay_ring_move('0 s')"), -1); /* empty again */
	add(sql, "moves", 3);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT max(id) FROM skald.outbox"), 1048576);
	publish_all(sql);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM published"), 2);
	skald_sql_close(open);
	skald_sql_close(sql);
}

/* The whole relay on a quiet system: everything old goes by itself. */
static void
a_quiet_outbox_is_emptied(void)
{
	struct skald_sql *sql = pg_open("quiet", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;

	kit_relay_start(&r, "quiet", 100);
	for (int round = 0; round < 3; round++) {
		add(sql, "quiet", round);
		CU_ASSERT(kit_wait(sql, "SELECT count(*) FROM skald.outbox", 0));
	}
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_truncated_total", 3));
	kit_relay_stop(&r);
	all = kit_read("quiet");
	CU_ASSERT_EQUAL(all.count, 3);
	kit_free(&all);
	skald_sql_close(sql);
}

/* A writer that stays open keeps its row through it all, and delays nobody. */
static void
a_long_transaction_keeps_its_row_while_leaves_are_emptied(void)
{
	struct skald_sql *sql = pg_open("long", SKALD_SQL_TOOL);
	struct skald_sql *open = pg_session("long", "postgres", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;
	int64_t slowest_ms = 0;

	pg_exec(open, "BEGIN");
	add(open, "long", 0);
	kit_relay_start(&r, "long", 100);
	for (int i = 1; i <= 12; i++) {
		int64_t began_ms = skald_mono_ms();

		add(sql, "long", i);
		if (skald_mono_ms() - began_ms > slowest_ms)
			slowest_ms = skald_mono_ms() - began_ms;
		/* a busier system would have drawn these */
		pg_exec(sql, "SELECT setval('skald.outbox_id', last_value + 700000) "
			     "FROM skald.outbox_id");
		CU_ASSERT(
			kit_wait(sql, "SELECT (count(*) < 4)::int FROM skald.outbox", 1));
	}
	CU_ASSERT(kit_metric(&r, "skald_relay_truncated_total") > 0);
	CU_ASSERT(slowest_ms < 1000);
	pg_exec(open, "COMMIT");
	CU_ASSERT(kit_wait(sql, "SELECT count(*) FROM skald.outbox", 0));
	kit_relay_stop(&r);
	all = kit_read("long");
	CU_ASSERT_EQUAL(all.count, 13);
	kit_free(&all);
	skald_sql_close(open);
	skald_sql_close(sql);
}

/* pg_dump holds ACCESS SHARE on every leaf for as long as it takes. */
static void
d26_a_dump_delays_the_ring_and_nobody_else(void)
{
	struct skald_sql *sql = pg_open("dump", SKALD_SQL_TOOL);
	struct skald_sql *dump = pg_session("dump", "postgres", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;
	int64_t slowest_ms = 0;

	kit_relay_start(&r, "dump", 100);
	add(sql, "dump", 0);
	pg_exec(dump, "BEGIN ISOLATION LEVEL REPEATABLE READ;"
		      "LOCK TABLE skald.outbox IN ACCESS SHARE MODE");
	for (int i = 1; i <= 10; i++) {
		int64_t began_ms = skald_mono_ms();

		add(sql, "dump", i);
		if (skald_mono_ms() - began_ms > slowest_ms)
			slowest_ms = skald_mono_ms() - began_ms;
		pg_exec(sql, "SELECT setval('skald.outbox_id', last_value + 700000) "
			     "FROM skald.outbox_id");
		CU_ASSERT(kit_wait_relayed(sql));
		(void)usleep(60000); /* a turn of the ring's or two */
	}
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"), 11);
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_truncated_total"), 0);
	CU_ASSERT(slowest_ms < 1000);
	pg_exec(dump, "COMMIT");
	CU_ASSERT(kit_wait(sql, "SELECT count(*) FROM skald.outbox", 0));
	kit_relay_stop(&r);
	all = kit_read("dump");
	CU_ASSERT_EQUAL(all.count, 11);
	kit_free(&all);
	skald_sql_close(dump);
	skald_sql_close(sql);
}

/* 20 million ids, the ring goes round twice, no daemon: every leaf is written again. */
static void
a_ring_that_comes_round_is_only_emptied_later(void)
{
	struct skald_sql *sql = pg_open("round", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;

	for (int i = 0; i < 40; i++) {
		add(sql, "round", i);
		pg_exec(sql, "SELECT setval('skald.outbox_id', last_value + 500000) "
			     "FROM skald.outbox_id");
	}
	CU_ASSERT(pg_int(sql, "SELECT last_value FROM skald.outbox_id") >= 20000000);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(DISTINCT tableoid) FROM skald.outbox"), 8);
	kit_relay_start(&r, "round", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	all = kit_read("round");
	CU_ASSERT_EQUAL(all.count, 40);
	for (unsigned i = 0; i < all.count; i++) /* one key, one partition: in id order */
		CU_ASSERT_EQUAL(strtol(all.items[i].value, NULL, 10), (long)i);
	kit_free(&all);
	kit_relay_start(&r, "round", 100);
	CU_ASSERT(kit_wait(sql, "SELECT count(*) FROM skald.outbox", 0));
	kit_relay_stop(&r);
	skald_sql_close(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(lock_then_look_loses_nothing),
		CHECK(control_look_then_lock_loses_a_row),
		CHECK(an_open_writer_keeps_its_leaf),
		CHECK(an_older_snapshot_may_not_empty_a_leaf),
		CHECK(a_leaf_is_kept_while_a_row_is_young_or_the_sequence_is_there),
		CHECK(the_sequence_moves_only_forward_and_only_when_all_is_old),
		CHECK(a_quiet_outbox_is_emptied),
		CHECK(a_long_transaction_keeps_its_row_while_leaves_are_emptied),
		CHECK(d26_a_dump_delays_the_ring_and_nobody_else),
		CHECK(a_ring_that_comes_round_is_only_emptied_later),
	};

	return check_main("contract.outbox.ring", cases, CHECK_COUNT(cases));
}
