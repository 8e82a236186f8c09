#include <poll.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/limits.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

static struct skald_sql *first, *second;

static struct skald_lease
lease(const char *name, const char *owner)
{
	return (struct skald_lease){ .kind = "relay", .name = name, .owner = owner };
}

static int64_t
take(struct skald_sql *sql, struct skald_lease *l)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(skald_lease_take(sql, l, &err), SKALD_OK);
	return l->term;
}

static bool
renew(struct skald_sql *sql, struct skald_lease *l)
{
	struct skald_err err = SKALD_ERR_INIT;
	bool held = false;

	CU_ASSERT_EQUAL(skald_lease_renew(sql, l, &held, &err), SKALD_OK);
	return held;
}

static void
drop(struct skald_sql *sql, struct skald_lease *l)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(skald_lease_drop(sql, l, &err), SKALD_OK);
	CU_ASSERT_EQUAL(l->term, 0);
}

static void
one_leads_at_a_time(void)
{
	struct skald_lease a = lease("one", "a"), b = lease("one", "b");
	struct skald_lease other = lease("another", "b");

	CU_ASSERT_EQUAL(take(first, &a), 1);
	CU_ASSERT_EQUAL(take(second, &b), 0);
	CU_ASSERT_EQUAL(take(first, &a), 1); /* its own again: same term */
	CU_ASSERT_EQUAL(take(second, &other), 1); /* another lease is another matter */
	CU_ASSERT_TRUE(renew(first, &a));
	CU_ASSERT_EQUAL(a.term, 1);
}

static void
a_dropped_lease_is_free_at_once(void)
{
	struct skald_lease a = lease("dropped", "a"), b = lease("dropped", "b");

	CU_ASSERT_EQUAL(take(first, &a), 1);
	drop(first, &a);
	CU_ASSERT_EQUAL(take(second, &b), 2);
	CU_ASSERT_EQUAL(take(first, &a), 0);
	drop(first, &a); /* not held: nothing happens */
	CU_ASSERT_TRUE(renew(second, &b));
}

static void
an_expired_lease_is_taken_over_within_two_seconds(void)
{
	struct skald_lease a = lease("expired", "a"), b = lease("expired", "b");
	int64_t began_ms = skald_mono_ms(), took_ms;

	CU_ASSERT_EQUAL(take(first, &a), 1);
	while (take(second, &b) == 0 && skald_mono_ms() - began_ms < 10000)
		(void)poll(NULL, 0, 20);
	took_ms = skald_mono_ms() - began_ms;
	CU_ASSERT_EQUAL(b.term, 2);
	CU_ASSERT(took_ms > SKALD_LEASE_MS - 200); /* not before it ended */
	CU_ASSERT(took_ms < SKALD_LEASE_MS + 5000);
	/* the first one learns it, and its term is gone */
	CU_ASSERT_FALSE(renew(first, &a));
	CU_ASSERT_EQUAL(a.term, 0);
	CU_ASSERT_TRUE(renew(second, &b));
}

static void
late_but_untaken_is_still_held(void)
{
	struct skald_lease a = lease("late", "a");

	CU_ASSERT_EQUAL(take(first, &a), 1);
	pg_exec(second,
		"UPDATE skald.lease SET until = clock_timestamp() - interval '1 h'"
		" WHERE name = 'late'");
	CU_ASSERT_TRUE(renew(first, &a));
	CU_ASSERT_EQUAL(pg_int(second, "SELECT (until > clock_timestamp())::int"
				       " FROM skald.lease WHERE name = 'late'"),
		1);
}

static void
an_old_term_renews_nothing(void)
{
	struct skald_lease a = lease("old", "a"), b = lease("old", "b");

	CU_ASSERT_EQUAL(take(first, &a), 1);
	drop(first, &a);
	CU_ASSERT_EQUAL(take(second, &b), 2);
	drop(second, &b);
	CU_ASSERT_EQUAL(take(first, &a), 3);
	a.term = 1; /* a stopped process with its old term */
	CU_ASSERT_FALSE(renew(second, &a));
}

/* --- many at once ------------------------------------------------------------------------------ */

#define RACERS 6

static void *
race(void *arg)
{
	struct skald_sql *sql = pg_session("lease", "postgres", SKALD_SQL_DAEMON);
	struct skald_lease *l = arg;
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_lease_take(
		    sql, l, &err)) /* CUnit is not for threads: judged by the caller */
		l->term = -1;
	skald_sql_close(sql);
	return NULL;
}

static void
one_of_many_wins(void)
{
	static const char *const names[RACERS] = { "r0", "r1", "r2", "r3", "r4", "r5" };
	struct skald_lease leases[RACERS];
	pthread_t threads[RACERS];
	int winners;

	for (int64_t round = 1; round <= 5; round++) {
		for (int i = 0; i < RACERS; i++) {
			leases[i] = lease("race", names[i]);
			CU_ASSERT_EQUAL(
				pthread_create(&threads[i], NULL, race, &leases[i]), 0);
		}
		winners = 0;
		for (int i = 0; i < RACERS; i++) {
			CU_ASSERT_EQUAL(pthread_join(threads[i], NULL), 0);
			winners += leases[i].term != 0;
			/* same winner as before keeps its term */
			CU_ASSERT(leases[i].term >= 0 && leases[i].term <= round);
		}
		CU_ASSERT_EQUAL(winners, 1);
		pg_exec(first, "UPDATE skald.lease SET until = '-infinity'"
			       " WHERE name = 'race'");
	}
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(one_leads_at_a_time),
		CHECK(a_dropped_lease_is_free_at_once),
		CHECK(an_expired_lease_is_taken_over_within_two_seconds),
		CHECK(late_but_untaken_is_still_held), CHECK(an_old_term_renews_nothing),
		CHECK(one_of_many_wins) };
	int status;

	first = pg_open("lease", SKALD_SQL_DAEMON);
	second = pg_session("lease", "postgres", SKALD_SQL_DAEMON);
	status = check_main("contract.sql.lease", cases, CHECK_COUNT(cases));
	skald_sql_close(first);
	skald_sql_close(second);
	return status;
}
