/*
 * contract.sql.outbox_wake - a writer sends a NOTIFY while the relay sleeps, and only
 * then. Writers are members of skald_app, who may not touch the flag themselves.
 */
#include <libpq-fe.h>

#include "sql/sql.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

static struct skald_sql *sql; /* as a member of skald_app only */
static struct skald_sql *owner; /* the relay's part: sets the flag, listens */

#define DOOR(call) "SELECT skald." call
#define ADD        DOOR("outbox_add('t', 'k', 't', '{}')")

/* Every way a row gets into the outbox from here: the short ones and the general one. */
static const char *const doors[] = { ADD,
	DOOR("outbox_add_bytes('t', 'k', 't', '{}', 'text/plain')"),
	DOOR("outbox_add('t', 'k', 't', '{}', subject => 's')"),
	DOOR("outbox_add_bytes('t', 'k', 't', '{}', 'text/plain', source => '/s')") };

#define DOOR_COUNT (sizeof(doors) / sizeof(doors[0]))

static void
sleeps(bool is_asleep)
{
	pg_exec(owner, is_asleep ? "SELECT setval('skald.relay_sleep', 0, true)"
				 : "SELECT setval('skald.relay_sleep', 0, false)");
}

/* NOTIFYs since the last call. They come in the order of the commits: one of our own is
   the end of what can have been sent, so nobody has to wait for what does not come. */
static int
notified(void)
{
	struct pg_conn *conn = skald_sql_conn(owner);
	bool is_end = false;
	int count = 0;

	pg_exec(owner, "NOTIFY skald_outbox, 'end'");
	while (!is_end) {
		PGnotify *n;

		pg_exec(owner, "SELECT 1");
		while ((n = PQnotifies(conn))) {
			is_end = strcmp(n->extra, "end") == 0;
			if (!is_end) {
				count++;
				CHECK_TEXT(n->relname, "skald_outbox");
				CHECK_TEXT(n->extra, "");
			}
			PQfreemem(n);
		}
	}
	return count;
}

static void
awake_nothing_is_sent(void)
{
	sleeps(false);
	for (size_t i = 0; i < DOOR_COUNT; i++) {
		pg_exec(sql, doors[i]);
		CU_ASSERT_EQUAL(notified(), 0);
	}
}

static void
asleep_every_door_sends_one(void)
{
	sleeps(true);
	for (size_t i = 0; i < DOOR_COUNT; i++) {
		pg_exec(sql, doors[i]);
		CU_ASSERT_EQUAL(notified(), 1);
	}
	sleeps(false);
	pg_exec(sql, ADD);
	CU_ASSERT_EQUAL(notified(), 0);
}

/* A reply's and a dead letter's rows are written by functions of the owner. */
static void
asleep_the_owners_functions_send_too(void)
{
	static const char put[] =
		"SELECT skald.outbox_put(gen_random_uuid(), 't', 'k', 't', '/s', NULL, "
		"NULL, NULL, '{}', NULL, NULL, NULL, NULL)";
	static const char send[] =
		"SELECT skald.orchestrator_send('/s', ARRAY[gen_random_uuid()], "
		"ARRAY['t'], ARRAY['k'], ARRAY['t'], ARRAY['{}'], ARRAY['{}'], "
		"ARRAY['c'], ARRAY['c'], "
		"ARRAY['00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'], "
		"ARRAY[NULL::bigint])";

	for (int asleep = 0; asleep < 2; asleep++) {
		sleeps(asleep);
		pg_exec(owner, put);
		CU_ASSERT_EQUAL(notified(), asleep);
		pg_exec(owner, send);
		CU_ASSERT_EQUAL(notified(), asleep);
	}
}

static void
a_transaction_sends_one_when_it_commits(void)
{
	sleeps(true);
	pg_exec(sql, "BEGIN");
	for (int i = 0; i < 3; i++)
		pg_exec(sql, ADD);
	CU_ASSERT_EQUAL(notified(), 0);
	pg_exec(sql, "COMMIT");
	CU_ASSERT_EQUAL(notified(), 1);
	pg_exec(sql, "BEGIN; " ADD "; ROLLBACK");
	CU_ASSERT_EQUAL(notified(), 0);
}

/* What lets a relay fall asleep: whoever read the flag before is in a later snapshot. */
static void
who_missed_the_flag_is_under_way(void)
{
	static const char is_under_way[] =
		"SELECT count(*) FROM pg_snapshot_xip(pg_current_snapshot()) AS x WHERE "
		"x "
		"= '%s'";
	char query[160];

	for (size_t i = 0; i < DOOR_COUNT; i++) {
		sleeps(false);
		pg_exec(sql, "BEGIN");
		pg_exec(sql, doors[i]);
		(void)snprintf(query, sizeof(query), is_under_way,
			pg_text(sql, "SELECT pg_current_xact_id_if_assigned()"));
		sleeps(true);
		CU_ASSERT_EQUAL(pg_int(owner, query), 1);
		pg_exec(sql, "COMMIT");
		CU_ASSERT_EQUAL(notified(), 0);
		CU_ASSERT_EQUAL(pg_int(owner, query), 0);
	}
}

/* The flag is asked for after the row is there; a function that asks first is caught. */
static void
the_flag_is_read_after_the_insert(void)
{
	static const char early[] =
		"CREATE FUNCTION public.early() RETURNS void LANGUAGE plpgsql AS $$ "
		"DECLARE asleep boolean; BEGIN"
		" asleep := pg_sequence_last_value('skald.relay_sleep') IS NOT NULL;"
		" INSERT INTO skald.outbox (message_id, topic, type, source,"
		"  correlation_id, traceparent) VALUES (gen_random_uuid(), 't', 't', "
		"'/', "
		"'', '');"
		" IF asleep THEN PERFORM pg_notify('skald_outbox', ''); END IF; END $$";
	/* the relay falls asleep while the row is being inserted */
	static const char falls_asleep[] =
		"CREATE FUNCTION public.falls_asleep() RETURNS trigger LANGUAGE plpgsql "
		"AS "
		"$$ BEGIN PERFORM setval('skald.relay_sleep', 0, true); RETURN NEW; END "
		"$$;"
		"CREATE TRIGGER falls_asleep BEFORE INSERT ON skald.outbox FOR EACH ROW"
		" EXECUTE FUNCTION public.falls_asleep()";

	pg_exec(owner, early);
	pg_exec(owner, falls_asleep);
	for (size_t i = 0; i < DOOR_COUNT; i++) {
		sleeps(false);
		pg_exec(owner, doors[i]);
		CU_ASSERT_EQUAL(notified(), 1);
	}
	sleeps(false);
	pg_exec(owner, "SELECT public.early()");
	CU_ASSERT_EQUAL(notified(), 0); /* the control */
	pg_exec(owner, "DROP TRIGGER falls_asleep ON skald.outbox");
}

static void
two_phase_commit_may_go_without(void)
{
	sleeps(true);
	pg_exec(sql, "SET skald.notify = 'off'");
	for (size_t i = 0; i < DOOR_COUNT; i++)
		pg_exec(sql, doors[i]);
	CU_ASSERT_EQUAL(notified(), 0);
	pg_exec(sql, "RESET skald.notify");
	pg_exec(sql, ADD);
	CU_ASSERT_EQUAL(notified(), 1);
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(awake_nothing_is_sent),
		CHECK(asleep_every_door_sends_one),
		CHECK(asleep_the_owners_functions_send_too),
		CHECK(a_transaction_sends_one_when_it_commits),
		CHECK(who_missed_the_flag_is_under_way),
		CHECK(the_flag_is_read_after_the_insert),
		CHECK(two_phase_commit_may_go_without) };
	int failed;

	owner = pg_open("outbox_wake", SKALD_SQL_TOOL);
	pg_exec(owner, "CREATE ROLE wake_writer LOGIN IN ROLE skald_app");
	pg_exec(owner, "LISTEN skald_outbox");
	sql = pg_session("outbox_wake", "wake_writer", SKALD_SQL_TOOL);
	failed = check_main("contract.sql.outbox_wake", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	skald_sql_close(owner);
	return failed;
}
