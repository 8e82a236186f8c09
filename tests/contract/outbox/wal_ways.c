/*
 * contract.outbox.wal_ways - to mode wal and back: a slot that is lost, shed or not wanted
 * any more, a catch-up that publishes nothing twice, what makes mode wal impossible, a
 * commit that is in WAL long before it is seen, and the gate.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

static bool
wait_trouble(struct kit_relay *r, const char *part)
{
	struct skald_relay_health health;

	for (int i = 0; i < 5000; i++) {
		skald_relay_health(r->relay, &health);
		if (strstr(health.trouble, part))
			return true;
		(void)usleep(1000);
	}
	printf("\n    trouble is: %s", health.trouble);
	return false;
}

static int64_t
slots(struct skald_sql *sql)
{
	return pg_int(sql, "SELECT count(*) FROM pg_replication_slots WHERE database = "
			   "current_database()");
}

/* --- a slot that is gone ------------------------------------------------------------------- */

static void
a_dropped_slot_is_caught_up_with_and_made_again(void)
{
	struct skald_sql *sql = pg_open("dropped", SKALD_SQL_TOOL);
	struct kit_load load[3];
	struct kit_relay r;
	struct kit_findings f;
	unsigned added = 0;

	CU_ASSERT(kit_relay_start_wal(&r, "dropped", 0));
	for (int i = 0; i < 3; i++)
		kit_load_start(&load[i], "dropped", 1000000 * i);
	for (int i = 1; i <= 3; i++) {
		(void)usleep(400000);
		kit_drop_slots(sql);
		CU_ASSERT(kit_wait_metric(&r, "skald_relay_catchups_total", i));
		CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	}
	for (int i = 0; i < 3; i++) {
		kit_load_stop(&load[i]);
		added += (unsigned)load[i].added;
	}
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT(
		pg_int(sql, "SELECT (recover_from IS NULL)::int FROM skald.relay") == 1);
	kit_relay_stop(&r);
	f = kit_check("dropped", added, 0);
	CU_ASSERT(f.recovered > 0);
	kit_end(sql);
}

/* Nobody was there to see it. */
static void
a_slot_dropped_while_nobody_leads(void)
{
	struct skald_sql *sql = pg_open("absent", SKALD_SQL_TOOL);
	struct kit_relay r;
	struct kit_findings f;

	CU_ASSERT(kit_relay_start_wal(&r, "absent", 0));
	kit_add_numbered(sql, "absent", 1, 3000);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 1500));
	kit_relay_stop(&r); /* drained, perhaps not to the end of the transaction */
	kit_drop_slots(sql);
	kit_add_numbered(sql, "absent", 3001, 4000);
	kit_ways.wants_wal = true;
	kit_relay_start(&r, "absent", 0);
	kit_ways = (struct kit_ways){ 0 };
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_catchups_total"), 1);
	kit_relay_stop(&r);
	f = kit_check("absent", 4000, 0);
	CU_ASSERT(f.recovered >= 1000);
	kit_end(sql);
}

/* Kafka is away, WAL is held: the slot is given up, and comes back. */
static void
a_slot_that_holds_too_much_is_shed(void)
{
	struct skald_sql *sql = pg_open("shed", SKALD_SQL_TOOL);
	struct kit_relay r;

	kit_ways.slot_limit_bytes = 8 << 20;
	CU_ASSERT(kit_relay_start_wal(&r, "shed", 0));
	kit_add_numbered(sql, "shed", 1, 100);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_broker_set_up(false);
	kit_add_numbered(sql, "shed", 101, 200);
	pg_exec(sql, "CREATE TABLE ballast AS SELECT repeat(md5(g::text), 30) AS x FROM "
		     "generate_series(1, 24000) AS g");
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_left_wal_total", 1));
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM pg_replication_slots WHERE database = 'shed'", 0));
	CHECK_TEXT(pg_text(sql, "SELECT mode FROM skald.relay"), "poll");
	CU_ASSERT(strstr(pg_text(sql, "SELECT slot_dropped FROM skald.relay"),
			  "slot_limit") != NULL);
	kit_add_numbered(sql, "shed", 201, 300);
	kit_broker_set_up(true);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	kit_add_numbered(sql, "shed", 301, 400);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	kit_check("shed", 400, 0);
	kit_end(sql);
}

static void
poll_wanted_again_drops_the_slot(void)
{
	struct skald_sql *sql = pg_open("wanted", SKALD_SQL_TOOL);
	struct kit_relay r;

	CU_ASSERT(kit_relay_start_wal(&r, "wanted", 0));
	kit_add_numbered(sql, "wanted", 1, 500);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	CU_ASSERT_EQUAL(slots(sql), 1);
	kit_add_numbered(sql, "wanted", 501, 600);
	kit_relay_start(&r, "wanted", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(slots(sql), 0);
	CHECK_TEXT(pg_text(sql, "SELECT mode FROM skald.relay"), "poll");
	kit_add_numbered(sql, "wanted", 601, 700);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	kit_check("wanted", 700, 0);
	kit_end(sql);
}

/* --- not possible --------------------------------------------------------------------------- */

static unsigned
count_in(const char *path, const char *text)
{
	char line[1024];
	unsigned count = 0;
	FILE *f = fopen(path, "r");

	while (f && fgets(line, sizeof(line), f))
		count += strstr(line, text) != NULL;
	if (f)
		(void)fclose(f);
	return count;
}

/* Polls, says why for people, and once in the log. */
static void
impossible(const char *name, const char *why)
{
	char path[] = "/tmp/skald-log-XXXXXX";
	struct skald_sql *sql = pg_session(name, "postgres", SKALD_SQL_TOOL);
	int saved = dup(STDERR_FILENO), fd = mkstemp(path);
	struct kit_relay r;

	CU_ASSERT(saved >= 0 && fd >= 0);
	(void)dup2(fd, STDERR_FILENO);
	kit_ways.wants_wal = true;
	kit_relay_start(&r, name, 0);
	kit_ways = (struct kit_ways){ 0 };
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM skald.relay WHERE slot_dropped IS NOT NULL", 1));
	kit_add_numbered(sql, name, 1, 200);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	(void)dup2(saved, STDERR_FILENO);
	if (!strstr(pg_text(sql, "SELECT slot_dropped FROM skald.relay"), why))
		printf("\n    why: %s",
			pg_text(sql, "SELECT slot_dropped FROM skald.relay"));
	CU_ASSERT_PTR_NOT_NULL(
		strstr(pg_text(sql, "SELECT slot_dropped FROM skald.relay"), why));
	CU_ASSERT_EQUAL(count_in(path, "mode wal is not possible"), 1);
	CU_ASSERT_EQUAL(slots(sql), 0);
	CHECK_TEXT(pg_text(sql, "SELECT mode FROM skald.relay"), "poll");
	kit_check(name, 200, 0);
	(void)close(fd);
	(void)close(saved);
	(void)unlink(path);
	skald_sql_close(sql);
}

static void
without_the_right_to_replicate_it_polls(void)
{
	struct skald_sql *sql = pg_open("noright", SKALD_SQL_TOOL);

	pg_exec(sql, "CREATE ROLE no_replication LOGIN; GRANT skald_daemon TO "
		     "no_replication");
	skald_sql_close(sql);
	kit_role = "no_replication";
	impossible("noright", "replication");
	kit_role = "postgres";
}

static void
without_a_publication_it_polls(void)
{
	struct skald_sql *sql = pg_open("nopub", SKALD_SQL_TOOL);

	pg_exec(sql, "DROP PUBLICATION skald_outbox");
	skald_sql_close(sql);
	impossible("nopub", "publication");
}

static bool
wait_backend(struct skald_sql *sql, const char *where)
{
	char query[300];

	(void)snprintf(query, sizeof(query),
		"SELECT least(count(*), 1) FROM pg_stat_activity WHERE %s", where);
	return kit_wait(sql, query, 1);
}

/* --- trouble while a slot is made ----------------------------------------------------------- */

/* The producer dies meanwhile: that the slot is made goes on all the same. */
static void
a_producer_dies_while_a_slot_is_made(void)
{
	struct skald_sql *sql = pg_open("making", SKALD_SQL_TOOL);
	struct skald_sql *other = pg_session("making", "postgres", SKALD_SQL_TOOL);
	struct kit_relay r;

	pg_exec(other, "BEGIN; SELECT pg_current_xact_id()"); /* is waited for */
	kit_ways.wants_wal = true;
	kit_relay_start(&r, "making", 0);
	kit_ways = (struct kit_ways){ 0 };
	CU_ASSERT(wait_backend(sql, "backend_type = 'walsender' AND wait_event_type = "
				    "'Lock'"));
	kit_refuse_produce(45, 1); /* out of order sequence number: fatal */
	kit_add_numbered(sql, "making", 1, 100);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_rebuilds_total", 1));
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 100));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_streaming"), 0);
	pg_exec(other, "COMMIT");
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	kit_relay_stop(&r);
	skald_sql_close(other);
	kit_end(sql);
}

/* Or the session that makes it is ended: another is made by itself. */
static void
the_session_that_makes_a_slot_is_ended(void)
{
	struct skald_sql *sql = pg_open("ended", SKALD_SQL_TOOL);
	struct skald_sql *other = pg_session("ended", "postgres", SKALD_SQL_TOOL);
	struct kit_relay r;

	pg_exec(other, "BEGIN; SELECT pg_current_xact_id()");
	kit_ways.wants_wal = true;
	kit_relay_start(&r, "ended", 0);
	kit_ways = (struct kit_ways){ 0 };
	CU_ASSERT(wait_backend(sql, "backend_type = 'walsender' AND wait_event_type = "
				    "'Lock'"));
	pg_exec(sql, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
		     "backend_type = 'walsender'");
	kit_add_numbered(sql, "ended", 1, 100);
	CU_ASSERT(kit_wait_relayed(sql)); /* polling goes on */
	pg_exec(other, "COMMIT");
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	kit_relay_stop(&r);
	kit_check("ended", 100, 0);
	skald_sql_close(other);
	kit_end(sql);
}

/* --- a commit that is seen late ----------------------------------------------------------- */

static void *
commit(void *sql)
{
	pg_exec(sql, "COMMIT");
	return NULL;
}

/*
 * With synchronous replication a commit is in WAL, and no snapshot sees it, for as long as
 * the standby takes. One that lies below the slot's begin must have been seen by what is
 * polled last, or nobody publishes it.
 */
static void
a_commit_below_the_slot_is_waited_for(void)
{
	struct skald_sql *sql = pg_open("late", SKALD_SQL_TOOL);
	struct skald_sql *first, *second, *late;
	pthread_t thread;
	struct kit_relay r;

	pg_exec(sql, "CREATE ROLE hasty SUPERUSER LOGIN; "
		     "ALTER ROLE hasty SET synchronous_commit = local");
	first = pg_session("late", "hasty", SKALD_SQL_TOOL);
	second = pg_session("late", "hasty", SKALD_SQL_TOOL);
	late = pg_session("late", "postgres", SKALD_SQL_TOOL);
	skald_sql_close(sql);
	sql = pg_session("late", "hasty", SKALD_SQL_TOOL);
	/* a slot waits for who was there, and then for who came meanwhile */
	pg_exec(first, "BEGIN; SELECT pg_current_xact_id()");
	kit_ways.wants_wal = true;
	kit_relay_start(&r, "late", 0);
	kit_ways = (struct kit_ways){ 0 };
	CU_ASSERT(wait_backend(sql, "backend_type = 'walsender' AND wait_event_type = "
				    "'Lock'"));
	pg_exec(second, "BEGIN; SELECT pg_current_xact_id()");
	pg_exec(first, "COMMIT");
	(void)usleep(300000); /* on to the second */
	pg_exec(sql, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	pg_exec(sql, "SELECT pg_reload_conf()");
	CU_ASSERT(kit_wait(sql,
		"SELECT (current_setting('synchronous_standby_names') = 'nobody')::int",
		1));
	pg_exec(late, "BEGIN");
	kit_add_numbered(late, "late", 1, 1);
	CU_ASSERT_EQUAL(pthread_create(&thread, NULL, commit, late), 0);
	CU_ASSERT(wait_backend(sql, "application_name = 'test' AND wait_event = "
				    "'SyncRep'"));
	pg_exec(second, "COMMIT");
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM pg_replication_slots WHERE database = 'late' AND "
		"confirmed_flush_lsn IS NOT NULL",
		1));
	(void)usleep(400000); /* a look that does not see it is under way, or over */
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_streaming"), 0);
	pg_exec(sql, "ALTER SYSTEM RESET synchronous_standby_names");
	pg_exec(sql, "SELECT pg_reload_conf()");
	(void)pthread_join(thread, NULL);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	kit_add_numbered(sql, "late", 2, 2);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 2));
	kit_relay_stop(&r);
	kit_check("late", 2, 0);
	skald_sql_close(first);
	skald_sql_close(second);
	skald_sql_close(late);
	kit_end(sql);
}

/* --- the gate -------------------------------------------------------------------------------- */

static void
gate(const char *name, bool is_wal)
{
	struct skald_sql *sql = pg_open(name, SKALD_SQL_TOOL);
	struct kit_relay r;

	kit_ways.gate = "a_standby, another_one";
	kit_ways.drain_ms = 1;
	if (is_wal)
		CU_ASSERT(kit_relay_start_wal(&r, name, 0));
	if (!is_wal)
		kit_relay_start(&r, name, 0);
	kit_ways = (struct kit_ways){ 0 };
	kit_add_numbered(sql, name, 1, 50);
	CU_ASSERT(wait_trouble(&r, "a_standby"));
	CU_ASSERT(wait_trouble(&r, "another_one"));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_published_total"), 0);
	kit_relay_stop(&r);
	kit_check(name, 0, 0);
	/* without it they go */
	if (is_wal)
		CU_ASSERT(kit_relay_start_wal(&r, name, 0));
	if (!is_wal)
		kit_relay_start(&r, name, 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	kit_check(name, 50, 0);
	kit_end(sql);
}

static void
a_gate_without_its_standbys_is_shut_in_mode_poll(void)
{
	gate("gate_poll", false);
}

static void
a_gate_without_its_standbys_is_shut_in_mode_wal(void)
{
	gate("gate_wal", true);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_dropped_slot_is_caught_up_with_and_made_again),
		CHECK(a_slot_dropped_while_nobody_leads),
		CHECK(a_slot_that_holds_too_much_is_shed),
		CHECK(poll_wanted_again_drops_the_slot),
		CHECK(without_the_right_to_replicate_it_polls),
		CHECK(without_a_publication_it_polls),
		CHECK(a_producer_dies_while_a_slot_is_made),
		CHECK(the_session_that_makes_a_slot_is_ended),
		CHECK(a_commit_below_the_slot_is_waited_for),
		CHECK(a_gate_without_its_standbys_is_shut_in_mode_poll),
		CHECK(a_gate_without_its_standbys_is_shut_in_mode_wal),
	};

	kit_producer = KIT_ONE_IN_FLIGHT; /* see kit.h */
	return check_main("contract.outbox.wal_ways", cases, CHECK_COUNT(cases));
}
