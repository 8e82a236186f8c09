/*
 * contract.sql.barrier - the barrier's verdicts against PostgreSQL: the whole table, what is
 * kept across rounds, who waits for whom.
 */
#include "tests/contract/sql/barrier_kit.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"

/* --- the table ------------------------------------------------------------------------------------- */

static void
each_cell_of_the_table(void)
{
	static const char *const states[] = { "no row", "taken", "pending", "retryable",
		"unknown", "failure", "success" };
	static const char *const op[] = { "action", "action", "compensation", "query" };
	static const char *const round[] = { "", ":2", "", "" };
	static const char *const verdicts[7][4] = {
		/* same key, next key, compensation, query */
		{ "run", "run", "empty", "query" },
		{ "pending", "run", "run", "pending" },
		{ "pending", "run", "run", "pending" },
		{ "run", "run", "empty", "query" },
		{ "run", "run", "run", "query" },
		{ "duplicate", "run", "empty", "duplicate" },
		{ "duplicate", "run", "run", "duplicate" },
	};
	char echo[256];

	for (unsigned s = 0; s < 7; s++)
		for (unsigned k = 0; k < 4; k++) {
			bool is_open = strcmp(states[s], "taken") == 0;
			const char *h, *verdict;
			int64_t before;

			new_saga();
			bring(states[s]);
			before = answers();
			h = headers(op[k], 7, round[k]);
			if (!is_open)
				begin();
			verdict = participate(h);
			if (strcmp(verdict, verdicts[s][k]) != 0)
				printf("\n    %s, %s%s", states[s], op[k], round[k]);
			CHECK_TEXT(verdict, verdicts[s][k]);
			if (is_open) {
				rollback();
				continue;
			}
			if (strcmp(verdict, "run") == 0 || strcmp(verdict, "query") == 0)
				(void)reply(h, "success", "{}");
			commit();
			CU_ASSERT_EQUAL(
				answers() - before, strcmp(verdict, "pending") != 0);
			if (strcmp(verdict, "duplicate") == 0) {
				/* the answer of old, in the name of who asks now */
				(void)snprintf(echo, sizeof(echo), "%s duplicate 7 %s %s",
					states[s], op[k],
					s == 6 ? "{\"r\": 10.00}"
					       : "{\"code\": \"no\", \"message\": \"it "
						 "is so\"}");
				CHECK_TEXT(answer(), echo);
			} else if (strcmp(verdict, "empty") == 0) {
				CHECK_TEXT(answer(), "success empty 7 compensation {}");
			}
		}
}

/* --- what is kept across rounds ---------------------------------------------------------------------- */

static void
the_trace_goes_across_rounds(void)
{
	/* what the action's keys say, in turn; what the compensation is told */
	static const struct {
		const char *said[4][3]; /* op, round, outcome */
		const char *verdict;
	} cases[] = {
		{ { { "action", "", "failure" }, { "action", ":2", "retryable" } },
			"empty" },
		{ { { "action", "", "failure" }, { "action", ":2", "success" } }, "run" },
		{ { { "action", "", "failure" }, { "action", ":2", "unknown" } }, "run" },
		/* not taken back by the same key, nor by a later one ... */
		{ { { "action", "", "unknown" }, { "action", "", "failure" } }, "run" },
		{ { { "action", "", "unknown" }, { "action", "", "retryable" } }, "run" },
		{ { { "action", "", "unknown" }, { "action", "", "failure" },
			  { "action", ":2", "failure" } },
			"run" },
		/* ... but by the answer to a query that asks about it */
		{ { { "action", "", "unknown" }, { "query", "", "failure" } }, "empty" },
		{ { { "action", "", "unknown" }, { "query", "", "retryable" } }, "run" },
		{ { { "action", "", "unknown" }, { "query", "", "unknown" } }, "run" },
		{ { { "action", "", "unknown" }, { "query", "", "success" } }, "run" },
		{ { { "query", "", "retryable" } }, "empty" },
		{ { { "query", "", "unknown" } }, "run" },
		{ { { "query", ":12", "success" } }, "run" },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *verdict;

		new_saga();
		for (unsigned k = 0; k < 4 && cases[i].said[k][0]; k++)
			CHECK_TEXT(handle(cases[i].said[k][0], cases[i].said[k][1],
					   cases[i].said[k][2]),
				cases[i].said[k][0][0] == 'q' ? "query" : "run");
		verdict = handle("compensation", "", "success");
		if (strcmp(verdict, cases[i].verdict) != 0)
			printf("\n    case %u", i);
		CHECK_TEXT(verdict, cases[i].verdict);
	}
}

static void
a_query_is_kept_for_the_key_it_asks_about(void)
{
	new_saga();
	CHECK_TEXT(handle("query", "", "failure"), "query");
	CHECK_TEXT(handle("action", "", "success"), "duplicate");
	CHECK_TEXT(answer(), "failure duplicate 1 action {\"code\": \"no\", \"message\": "
			     "\"it is so\"}");
	CHECK_TEXT(handle("action", ":2", "success"), "run");
	CHECK_TEXT(handle("query", ":2", "success"), "duplicate");
}

static void
an_undone_step_stays_undone(void)
{
	new_saga();
	CHECK_TEXT(handle("action", "", "success"), "run");
	CHECK_TEXT(handle("compensation", "", "retryable"), "run");
	CHECK_TEXT(handle("action", ":2", "success"), "refused");
	CHECK_TEXT(answer(),
		"failure refused 1 action {\"code\": \"refused\", "
		"\"message\": \"the compensation of this step came first\"}");
	CHECK_TEXT(handle("compensation", "", "failure"), "run");
	CHECK_TEXT(handle("compensation", "", "success"), "duplicate");
	CHECK_TEXT(handle("compensation", ":2", "success"), "run");
	CHECK_TEXT(handle("compensation", ":2", "success"), "duplicate");
	/* the kept answer, still */
	CHECK_TEXT(handle("action", "", "success"), "duplicate");
	CHECK_TEXT(answer(), "success duplicate 1 action {\"r\": 10.00}");

	new_saga();
	CHECK_TEXT(handle("compensation", "", "success"), "empty");
	CHECK_TEXT(handle("compensation", "", "success"), "duplicate");
	CHECK_TEXT(handle("action", "", "success"), "refused");
	CHECK_TEXT(handle("action", "", "success"), "refused");
	CHECK_TEXT(handle("action", ":2", "success"), "refused");

	/* what was retryable is fenced as well */
	new_saga();
	CHECK_TEXT(handle("action", "", "retryable"), "run");
	CHECK_TEXT(handle("compensation", "", "success"), "empty");
	CHECK_TEXT(handle("action", "", "success"), "refused");
}

static void
participants_are_apart(void)
{
	const char *h;

	new_saga();
	CHECK_TEXT(handle("action", "", "success"), "run");
	h = headers("compensation", 1, "");
	CHECK_TEXT(
		ask(sql,
			"SELECT skald.participate(headers => %s, participant => 'other')",
			h),
		"empty");
	CHECK_TEXT(handle("compensation", "", "success"), "run");
}

/* --- at the same time --------------------------------------------------------------------------------------------- */

struct other {
	struct skald_sql *session;
	char headers[TEXT_BYTES];
	char verdict[32];
};

static void *
participate_there(void *arg)
{
	struct other *o = arg;
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	char statement[2 * TEXT_BYTES];

	(void)snprintf(statement, sizeof(statement),
		"SELECT skald.participate(headers => %s, participant => 'inv')",
		o->headers);
	if (skald_sql_exec(o->session, "BEGIN", &err) ||
		skald_conn_query(
			skald_sql_conn(o->session), statement, NULL, 0, &rows, &err))
		(void)snprintf(o->verdict, sizeof(o->verdict), "%s", err.code);
	else
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 0), o->verdict, sizeof(o->verdict));
	skald_rows_free(rows);
	skald_sql_rollback(o->session);
	return NULL;
}

static bool
waits(int backend_pid)
{
	int64_t until_ms = skald_mono_ms() + 20000;

	while (skald_mono_ms() < until_ms) {
		if (strcmp(ask(owner,
				   "SELECT wait_event_type = 'Lock' FROM "
				   "pg_stat_activity "
				   "WHERE pid = %d",
				   backend_pid),
			    "t") == 0)
			return true;
		(void)poll(NULL, 0, 5);
	}
	return false;
}

static void
an_action_and_its_undo_wait_for_each_other(void)
{
	static const struct {
		const char *before; /* what the action's first key has said already */
		const char *first, *first_round; /* ours: told to run, answers success */
		const char *second, *second_round; /* theirs, at the same time */
		const char *if_committed, *if_rolled_back;
	} cases[] = {
		{ "no row", "action", "", "compensation", "", "run", "empty" },
		{ "no row", "action", ":2", "compensation", "", "run", "empty" },
		{ "no row", "compensation", "", "action", "", "refused", "run" },
		{ "no row", "compensation", "", "action", ":2", "refused", "run" },
		{ "no row", "compensation", "", "compensation", "", "duplicate",
			"empty" },
		{ "no row", "action", "", "action", "", "duplicate", "run" },
		{ "no row", "action", ":2", "action", ":2", "duplicate", "run" },
		{ "no row", "action", "", "query", "", "duplicate", "query" },
		{ "no row", "query", "", "action", "", "duplicate", "run" },
		{ "retryable", "action", "", "compensation", "", "run", "empty" },
		{ "retryable", "action", "", "action", "", "duplicate", "run" },
		{ "retryable", "compensation", "", "action", "", "refused", "run" },
		{ "failure", "action", ":2", "compensation", "", "run", "empty" },
		{ "failure", "compensation", "", "action", ":2", "refused", "run" },
		{ "success", "compensation", "", "action", ":2", "refused", "run" },
		{ "success", "compensation", "", "compensation", "", "duplicate", "run" },
	};
	struct other o;
	pthread_t thread;

	o.session = pg_session("barrier", "shop", SKALD_SQL_TOOL);
	for (unsigned i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		bool commits = i % 2 == 0;
		const char *h, *verdict, *wanted;

		new_saga();
		bring(cases[i / 2].before);
		h = headers(cases[i / 2].first, 1, cases[i / 2].first_round);
		(void)snprintf(o.headers, sizeof(o.headers), "%s",
			headers(cases[i / 2].second, 1, cases[i / 2].second_round));
		wanted =
			commits ? cases[i / 2].if_committed : cases[i / 2].if_rolled_back;
		begin();
		verdict = participate(h);
		CU_ASSERT_EQUAL_FATAL(
			pthread_create(&thread, NULL, participate_there, &o), 0);
		CU_ASSERT(waits(skald_sql_backend_pid(o.session)));
		if (strcmp(verdict, "empty") != 0)
			CU_ASSERT_EQUAL(strlen(reply(h, "success", "{}")), 36);
		if (commits)
			commit();
		else
			rollback();
		(void)pthread_join(thread, NULL);
		if (strcmp(o.verdict, wanted) != 0)
			printf("\n    case %u, %s", i / 2,
				commits ? "committed" : "rolled back");
		CHECK_TEXT(o.verdict, wanted);
	}
	skald_sql_close(o.session);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(each_cell_of_the_table),
		CHECK(the_trace_goes_across_rounds),
		CHECK(a_query_is_kept_for_the_key_it_asks_about),
		CHECK(an_undone_step_stays_undone),
		CHECK(participants_are_apart),
		CHECK(an_action_and_its_undo_wait_for_each_other),
	};

	return kit_main("contract.sql.barrier", cases, CHECK_COUNT(cases));
}
