/*
 * contract.sql.barrier_sweep - the barrier's retention: a row stays as long as anybody may
 * rely on it, and once it is gone a late action is refused and a late compensation runs.
 */
#include "tests/contract/sql/barrier_kit.h"

#include <inttypes.h>
#include <stdlib.h>

/* A saga that began so many days ago. */
static void
old_saga(int days)
{
	static int count;

	(void)snprintf(saga, sizeof(saga), "%s",
		ask(owner,
			"SELECT left(h, 8) || '-' || substr(h, 9) || '-7000-8000-' ||"
			" lpad('%d', 12, '0') FROM lpad(to_hex((extract(epoch FROM now() "
			"-"
			" interval '%d days') * 1000)::bigint), 12, '0') AS h",
			++count, days));
}

/* A command that was handled when its saga was young. */
static void
handled(const char *op, const char *outcome, int days)
{
	pg_exec(sql, "SET skald.barrier_retention = '0'");
	CHECK_TEXT(handle(op, "", outcome), "run");
	pg_exec(sql, "RESET skald.barrier_retention");
	(void)ask(owner,
		"UPDATE skald.barrier SET at = now() - interval '%d days'"
		" WHERE idempotency_key LIKE '%s%%'",
		days, saga);
}

static int64_t
rows_of(const char *id)
{
	return strtoll(ask(owner,
			       "SELECT count(*) FROM skald.barrier WHERE"
			       " idempotency_key LIKE '%s%%'",
			       id),
		NULL, 10);
}

/* As the leading relay does it; barrier: the configured retention as SQL. */
static int64_t
sweep(const char *barrier)
{
	return strtoll(
		ask(owner, "SELECT skald.relay_sweep(0, NULL, NULL, NULL, %s)", barrier),
		NULL, 10);
}

static void
what_is_old_goes_and_is_not_guessed(void)
{
	char young[64], odd[64];

	old_saga(399);
	handled("action", "success", 399);
	(void)snprintf(young, sizeof(young), "%s", saga);
	(void)snprintf(saga, sizeof(saga), "018f0000-0000-4000-8000-%012x", 9);
	handled("action", "success", 900); /* its id does not tell its age */
	(void)snprintf(odd, sizeof(odd), "%s", saga);
	old_saga(402);
	handled("action", "success", 402);
	CU_ASSERT_EQUAL(rows_of(saga), 1);
	CU_ASSERT_EQUAL(sweep("'400 days'"), 1);
	CU_ASSERT_EQUAL(rows_of(saga), 0);
	CU_ASSERT_EQUAL(rows_of(young), 1);
	CU_ASSERT_EQUAL(rows_of(odd), 1);
	/* late: the action is refused, the compensation runs, and what it says is kept */
	CHECK_TEXT(handle("action", "", "success"), "refused");
	CHECK_TEXT(handle("compensation", "", "success"), "run");
	CHECK_TEXT(handle("compensation", "", "success"), "duplicate");
	CU_ASSERT_EQUAL(sweep("'400 days'"), 0); /* these rows are young */
	CHECK_TEXT(handle("action", "", "success"), "refused");
}

/* The control: a sweep that goes by its own clock takes rows that an action relies on. */
static void
control_too_early_a_sweep_doubles_an_effect(void)
{
	pg_exec(owner, "DELETE FROM skald.barrier");
	old_saga(100);
	handled("action", "success", 100);
	CHECK_TEXT(handle("action", "", "success"), "duplicate");
	CHECK_TEXT(ask(owner, "SELECT skald.barrier_sweep('90 days', 100)"), "1");
	CHECK_TEXT(handle("action", "", "success"), "run");
}

static void
who_relies_on_it_longest_decides(void)
{
	old_saga(100);
	handled("action", "success", 100);
	CU_ASSERT_EQUAL(sweep("'90 days'"), 0); /* 400 days unless it is set */
	pg_exec(owner, "ALTER ROLE shop SET skald.barrier_retention = '200 days'");
	pg_exec(owner, "SET skald.barrier_retention = '90 days'");
	CU_ASSERT_EQUAL(sweep("'90 days'"), 0); /* a session of shop's may look */
	pg_exec(owner, "ALTER ROLE shop SET skald.barrier_retention = '95 days'");
	CU_ASSERT_EQUAL(sweep("'200 days'"), 0);
	CU_ASSERT_EQUAL(sweep("NULL"), 0);
	pg_exec(owner, "ALTER ROLE shop SET skald.barrier_retention = '0'");
	CU_ASSERT_EQUAL(sweep("'90 days'"), 0);
	pg_exec(owner, "ALTER ROLE shop SET skald.barrier_retention = 'nonsense'");
	CU_ASSERT_EQUAL(sweep("'90 days'"), 0);
	pg_exec(owner, "ALTER ROLE shop SET skald.barrier_retention = '95 days'");
	CU_ASSERT_EQUAL(rows_of(saga), 1);
	CU_ASSERT_EQUAL(sweep("'90 days'"), 1);
	pg_exec(owner, "ALTER ROLE shop RESET skald.barrier_retention");
	pg_exec(owner, "RESET skald.barrier_retention");
}

/* Small batches over all participants; what somebody has locked waits for the next one. */
static void
it_goes_in_small_batches(void)
{
	struct skald_sql *other = pg_session("barrier", "postgres", SKALD_SQL_TOOL);

	pg_exec(owner,
		"DELETE FROM skald.barrier;"
		" INSERT INTO skald.barrier (participant, idempotency_key, state, at)"
		" SELECT p, '018f0000-0000-7000-8000-' || lpad(n::text, 12, '0') ||"
		" ':reserve:action', 'answered', '2024-04-21' FROM generate_series(1, 40)"
		" AS n, unnest(ARRAY['inv', 'pay', 'ship']) AS p");
	pg_exec(other, "BEGIN; SELECT FROM skald.barrier WHERE participant = 'pay' AND"
		       " idempotency_key LIKE '%000000000001:%' FOR UPDATE");
	CHECK_TEXT(ask(owner, "SELECT skald.barrier_sweep('400 days', 50)"), "50");
	CHECK_TEXT(ask(owner, "SELECT string_agg(participant || n, ' ' ORDER BY"
			      " participant) FROM (SELECT participant, count(*) AS n"
			      " FROM skald.barrier GROUP BY 1) AS g"),
		"pay30 ship40");
	CHECK_TEXT(ask(owner, "SELECT skald.barrier_sweep('400 days', 1000)"), "69");
	pg_exec(other, "ROLLBACK");
	CHECK_TEXT(ask(owner, "SELECT skald.barrier_sweep('400 days', 1000)"), "1");
	CHECK_TEXT(ask(owner, "SELECT skald.barrier_sweep('400 days', 1000)"), "0");
	skald_sql_close(other);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(what_is_old_goes_and_is_not_guessed),
		CHECK(control_too_early_a_sweep_doubles_an_effect),
		CHECK(who_relies_on_it_longest_decides),
		CHECK(it_goes_in_small_batches),
	};

	return kit_main("contract.sql.barrier_sweep", cases, CHECK_COUNT(cases));
}
