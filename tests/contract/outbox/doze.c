/*
 * contract.outbox.doze - a relay that sleeps: woken by who commits, wherever in falling
 * asleep or looking it is; and hardly a statement while nothing happens.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

#define SOON_MS  1500 /* a look by itself is 5 s away */
#define FALLS_MS 800 /* from the flag to sleep, at most: looks at 2, 4, ... 100 ms */

static void
fall_asleep(struct kit_relay *r)
{
	CU_ASSERT(kit_wait_metric(r, "skald_relay_asleep", 1));
	(void)usleep(FALLS_MS * 1000);
}

static bool
is_awake_soon(struct kit_relay *r)
{
	for (int i = 0; i < 2000 && kit_metric(r, "skald_relay_asleep") != 0; i++)
		(void)usleep(1000);
	return kit_metric(r, "skald_relay_asleep") == 0;
}

static int64_t
publish_ms(struct kit_relay *r, struct skald_sql *sql, const char *script)
{
	int64_t had = kit_metric(r, "skald_relay_published_total");
	int64_t began_ms = skald_mono_ms();

	pg_exec(sql, script);
	CU_ASSERT(kit_wait_metric(r, "skald_relay_published_total", had + 1));
	return skald_mono_ms() - began_ms;
}

static void
a_commit_wakes_it(void)
{
	struct skald_sql *sql = pg_open("woken", SKALD_SQL_TOOL);
	int64_t ms, worst_ms = 0;
	struct kit_relay r;

	kit_relay_start(&r, "woken", 0);
	for (int i = 0; i < 4; i++) {
		fall_asleep(&r);
		ms = publish_ms(
			&r, sql, "SELECT skald.outbox_add('woken', 'k', 't', '{}')");
		worst_ms = ms > worst_ms ? ms : worst_ms;
		CU_ASSERT(kit_wait_metric(&r, "skald_relay_woken_total", i + 1));
		CU_ASSERT(is_awake_soon(&r)); /* the flag goes down once it has sent */
	}
	printf("(at most %lld ms) ", (long long)worst_ms);
	CU_ASSERT(worst_ms < SOON_MS);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	skald_sql_close(sql);
}

/* R11: begun so late that its id is above the xmax of the next snapshots (no lease is renewed in
   between, mostly), and so early that it will not call. */
static void
who_missed_the_flag_is_waited_for(void)
{
	static const char add[] = "SELECT skald.outbox_add('missed', 'k', 't', '{}')";
	struct skald_sql *sql = pg_open("missed", SKALD_SQL_TOOL);
	struct skald_sql *other = pg_session("missed", "postgres", SKALD_SQL_TOOL);
	int64_t ms, worst_ms = 0;
	struct kit_relay r;

	kit_relay_start(&r, "missed", 0);
	for (int i = 0; i < 5; i++) {
		(void)publish_ms(&r, sql, add);
		(void)usleep(870000);
		pg_exec(other, "BEGIN");
		pg_exec(other, add);
		fall_asleep(&r);
		ms = publish_ms(&r, other, "COMMIT");
		worst_ms = ms > worst_ms ? ms : worst_ms;
	}
	printf("(at most %lld ms) ", (long long)worst_ms);
	CU_ASSERT(worst_ms < SOON_MS);
	kit_relay_stop(&r);
	skald_sql_close(other);
	skald_sql_close(sql);
}

/* The call arrives together with the answer to a look that did not see the row. */
static void
a_call_during_a_look_is_heard(void)
{
	struct skald_sql *sql = pg_open("during", SKALD_SQL_TOOL);
	struct skald_sql *lock = pg_session("during", "postgres", SKALD_SQL_TOOL);
	struct kit_relay r;
	int64_t ms;

	kit_relay_start(&r, "during", 0);
	fall_asleep(&r);
	/* no writer is in the last leaf, but every look goes through it, with its snapshot */
	pg_exec(lock, "BEGIN; LOCK TABLE ONLY skald.outbox_7 IN ACCESS EXCLUSIVE MODE");
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM pg_stat_activity WHERE datname = 'during' AND "
		"wait_event_type = 'Lock' AND application_name LIKE 'skald relay%'",
		1));
	pg_exec(sql, "SELECT skald.outbox_add('during', 'k', 't', '{}')");
	ms = publish_ms(&r, lock, "ROLLBACK");
	printf("(%lld ms) ", (long long)ms);
	CU_ASSERT(ms < SOON_MS);
	kit_relay_stop(&r);
	skald_sql_close(lock);
	skald_sql_close(sql);
}

/* Bulk: one that sleeps and a hundred who commit at once; nobody waits for the next look. */
static void
many_writers_at_once(void)
{
	struct skald_sql *sql = pg_open("many", SKALD_SQL_TOOL);
	struct kit_load loads[4];
	struct kit_relay r;
	int64_t began_ms;
	int added = 0;

	kit_relay_start(&r, "many", 0);
	for (int round = 0; round < 3; round++) {
		fall_asleep(&r);
		for (int i = 0; i < 4; i++)
			kit_load_start(&loads[i], "many", 0);
		(void)usleep(50000 + 30000 * (unsigned)round);
		for (int i = 0; i < 4; i++) {
			kit_load_stop(&loads[i]);
			added += loads[i].added;
		}
		began_ms = skald_mono_ms();
		CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", added));
		CU_ASSERT(skald_mono_ms() - began_ms < SOON_MS);
	}
	kit_relay_stop(&r);
	skald_sql_close(sql);
}

static void
asleep_it_hardly_asks(void)
{
	static const char count[] = "SELECT xact_commit + xact_rollback FROM "
				    "pg_stat_database WHERE datname = 'quiet'";
	struct skald_sql *sql = pg_open("quiet", SKALD_SQL_TOOL);
	struct skald_sql *other = pg_session("postgres", "postgres", SKALD_SQL_TOOL);
	int64_t before, after;
	struct kit_relay r;

	skald_sql_close(sql); /* what it counts is only the relay */
	pg_exec(other, "ALTER SYSTEM SET autovacuum = off");
	pg_exec(other, "SELECT pg_reload_conf()");
	kit_relay_start(&r, "quiet", 0);
	fall_asleep(&r);
	(void)usleep(2000000); /* statistics come a second later */
	before = pg_int(other, count);
	(void)usleep(8000000);
	after = pg_int(other, count);
	printf("(%lld statements a minute, of which 120 renew the lease) ",
		(long long)(after - before) * 60 / 8);
	CU_ASSERT(after - before < 8 * 5); /* awake: ten looks a second besides */
	kit_relay_stop(&r);
	skald_sql_close(other);
}

/* Another who leads is awake first: nobody would hear for whom the flag is up. */
static void
the_flag_goes_down_with_another_leader(void)
{
	struct skald_sql *sql = pg_open("flag", SKALD_SQL_TOOL);
	struct kit_relay r;
	int64_t ms;

	pg_exec(sql, "SELECT setval('skald.relay_sleep', 0, true)");
	kit_relay_start(&r, "flag", 0);
	CU_ASSERT(kit_wait(sql, "SELECT term FROM skald.relay", 1));
	CU_ASSERT(kit_wait(sql, "SELECT is_called::int FROM skald.relay_sleep", 0));
	ms = publish_ms(&r, sql, "SELECT skald.outbox_add('flag', 'k', 't', '{}')");
	CU_ASSERT(ms < SOON_MS);
	kit_relay_stop(&r);
	skald_sql_close(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_commit_wakes_it),
		CHECK(who_missed_the_flag_is_waited_for),
		CHECK(a_call_during_a_look_is_heard),
		CHECK(many_writers_at_once),
		CHECK(asleep_it_hardly_asks),
		CHECK(the_flag_goes_down_with_another_leader),
	};

	return check_main("contract.outbox.doze", cases, CHECK_COUNT(cases));
}
