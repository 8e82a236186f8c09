/*
 * contract.sql.barrier - participate, reply, reply_later, reply_by_key, action_reply against
 * PostgreSQL: the whole table of verdicts, what is kept, what is refused, who waits for whom.
 */
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/clock.h"
#include "sql/sql.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

#define TEXT_BYTES 2048

static struct skald_sql *sql; /* as a member of skald_app only */
static struct skald_sql *owner; /* looks at the rows */
static char saga[64]; /* of the case in hand */
static char last_id[64]; /* ce_id of the newest command */

/* --- what a test says --------------------------------------------------------------------------- */

static void
new_saga(void)
{
	(void)snprintf(
		saga, sizeof(saga), "%s", pg_text(owner, "SELECT skald.uuid7()::text"));
}

/* Headers of a command of step "reserve" as a literal; good for the next few calls. */
static const char *
headers(const char *op, int attempt, const char *round)
{
	static char texts[8][TEXT_BYTES];
	static unsigned next;
	char *text = texts[next++ % 8];

	(void)snprintf(last_id, sizeof(last_id), "%s",
		pg_text(owner, "SELECT skald.uuid7()::text"));
	(void)snprintf(text, TEXT_BYTES,
		"'{\"ce_id\":\"%s\",\"ce_type\":\"inventory.%s\",\"ce_sagaid\":\"%s\","
		"\"ce_saganame\":\"order\",\"ce_sagastep\":\"reserve\","
		"\"ce_sagaop\":\"%s\",\"ce_sagaattempt\":\"%d\","
		"\"ce_replyto\":\"skald.replies.shop\",\"ce_correlationid\":\"corr\","
		"\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
		"01\",\"idempotency-key\":\"%s:reserve:%s%s\"}'::jsonb",
		last_id, op, saga, op, attempt, saga,
		strcmp(op, "query") == 0 ? "action" : op, round);
	return text;
}

static const char *ask(struct skald_sql *who, const char *fmt, ...) SKALD_PRINTF(2, 3);

/* First cell, or the SQLSTATE of what went wrong. */
static const char *
ask(struct skald_sql *who, const char *fmt, ...)
{
	static char texts[8][TEXT_BYTES];
	static unsigned next;
	char *text = texts[next++ % 8], statement[2 * TEXT_BYTES];
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(statement, sizeof(statement), fmt, args);
	va_end(args);
	if (skald_conn_query(skald_sql_conn(who), statement, NULL, 0, &rows, &err))
		(void)snprintf(text, TEXT_BYTES, "%s", err.code);
	else if (skald_rows_count(rows) == 0)
		text[0] = '\0';
	else
		(void)skald_slice_copy(skald_rows_get(rows, 0, 0), text, TEXT_BYTES);
	skald_rows_free(rows);
	return text;
}

static const char *
participate(const char *h)
{
	return ask(
		sql, "SELECT skald.participate(headers => %s, participant => 'inv')", h);
}

static const char *
reply(const char *h, const char *outcome, const char *data)
{
	return ask(sql,
		"SELECT skald.reply(headers => %s, participant => 'inv',"
		" outcome => '%s', data => '%s')",
		h, outcome, data);
}

#define NO "{\"code\":\"no\",\"message\":\"it is so\"}"

static const char *
data_of(const char *outcome)
{
	return strcmp(outcome, "success") == 0 ? "{\"r\":10.00}" : NO;
}

static void
begin(void)
{
	pg_exec(sql, "BEGIN");
}

static void
commit(void)
{
	pg_exec(sql, "COMMIT");
}

static void
rollback(void)
{
	pg_exec(sql, "ROLLBACK");
}

/* A whole transaction: told to run, answers; what participate said. */
static const char *
handle(const char *op, const char *round, const char *outcome)
{
	const char *h = headers(op, 1, round), *verdict;

	begin();
	verdict = participate(h);
	if (strcmp(verdict, "run") == 0 || strcmp(verdict, "query") == 0)
		CU_ASSERT_EQUAL(strlen(reply(h, outcome, data_of(outcome))), 36);
	commit();
	return verdict;
}

/* The newest answer: "outcome barrier attempt op data". */
static const char *
answer(void)
{
	return ask(owner,
		"SELECT concat_ws(' ', headers ->> 'ce_sagaoutcome',"
		" headers ->> 'ce_sagabarrier', headers ->> 'ce_sagaattempt',"
		" headers ->> 'ce_sagaop', convert_from(data, 'UTF8'))"
		" FROM skald.outbox WHERE headers ->> 'ce_sagaid' = '%s'"
		" ORDER BY id DESC LIMIT 1",
		saga);
}

static int64_t
answers(void)
{
	return strtoll(ask(owner,
			       "SELECT count(*) FROM skald.outbox WHERE headers ->> "
			       "'ce_sagaid' = '%s'",
			       saga),
		NULL, 10);
}

/* --- the table ------------------------------------------------------------------------------------- */

/* Bring the action's first key into a state; "taken" leaves its transaction open. */
static void
bring(const char *state)
{
	if (strcmp(state, "no row") == 0)
		return;
	if (strcmp(state, "taken") == 0 || strcmp(state, "pending") == 0) {
		const char *h = headers("action", 1, "");

		begin();
		CHECK_TEXT(participate(h), "run");
		if (strcmp(state, "taken") == 0)
			return;
		CHECK_TEXT(ask(sql,
				   "SELECT skald.reply_later(headers => %s, participant "
				   "=> 'inv')",
				   h),
			"");
		commit();
		return;
	}
	CHECK_TEXT(handle("action", "", state), "run");
}

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

/* --- answers ---------------------------------------------------------------------------------------------- */

static void
an_answer_echoes_the_command(void)
{
	const char *h, *id;
	char wanted[128], command[64];

	new_saga();
	h = headers("action", 3, ":2");
	(void)snprintf(command, sizeof(command), "%s", last_id);
	begin();
	CHECK_TEXT(participate(h), "run");
	id = reply(h, "success", "{\"n\": 9007199254740993, \"d\": 10.00}");
	commit();
	(void)snprintf(wanted, sizeof(wanted), "%s",
		ask(owner, "SELECT skald.uuid5('%s', 'inv:reply')", command));
	CHECK_TEXT(id, wanted);
	CHECK_TEXT(ask(owner,
			   "SELECT concat_ws(' ', topic, convert_from(key, 'UTF8') = "
			   "'%s', type, source, content_type, convert_from(data, 'UTF8'),"
			   " correlation_id, causation_id = '%s', left(traceparent, 36),"
			   " expires_at) FROM skald.outbox WHERE message_id = '%s'",
			   saga, command, id),
		"skald.replies.shop t inventory.action.reply inv application/json "
		"{\"d\": 10.00, \"n\": 9007199254740993} corr t "
		"00-0af7651916cd43dd8448eb211c80319c-");
	CHECK_TEXT(
		ask(owner,
			"SELECT headers = '{\"ce_sagaid\":\"%s\",\"ce_saganame\":"
			"\"order\",\"ce_sagastep\":\"reserve\",\"ce_sagaop\":\"action\","
			"\"ce_sagaattempt\":\"3\",\"ce_sagaoutcome\":\"success\","
			"\"idempotency-key\":\"%s:reserve:action:2\"}' FROM skald.outbox"
			" WHERE message_id = '%s'",
			saga, saga, id),
		"t");
}

static void
what_is_emitted_belongs_to_the_command(void)
{
	const char *h;

	new_saga();
	h = headers("action", 1, "");
	begin();
	CHECK_TEXT(participate(h), "run");
	pg_exec(sql, "SELECT skald.outbox_add('shop.stock', 'k', 'stock.moved', '{}')");
	(void)reply(h, "success", "{}");
	commit();
	CHECK_TEXT(ask(owner,
			   "SELECT concat_ws(' ', correlation_id, causation_id = '%s',"
			   " left(traceparent, 36)) FROM skald.outbox WHERE topic ="
			   " 'shop.stock' ORDER BY id DESC LIMIT 1",
			   last_id),
		"corr t 00-0af7651916cd43dd8448eb211c80319c-");
}

static void
put_off_answers_come_by_key(void)
{
	char key[128];
	const char *h;
	int64_t before;

	new_saga();
	bring("pending");
	(void)snprintf(key, sizeof(key), "%s:reserve:action", saga);
	/* asked again: the answer is for the newest attempt */
	h = headers("action", 2, "");
	CHECK_TEXT(participate(h), "pending");
	before = answers();
	CU_ASSERT_EQUAL(before, 0);
	CU_ASSERT_EQUAL(strlen(ask(sql,
				"SELECT skald.reply_by_key('%s', 'inv', 'success',"
				" '{\"r\":1}')",
				key)),
		36);
	CHECK_TEXT(answer(), "success 2 action {\"r\": 1}");
	CHECK_TEXT(ask(owner,
			   "SELECT message_id = skald.uuid5('%s', 'inv:reply') AND "
			   "correlation_id = 'corr' FROM skald.outbox WHERE causation_id"
			   " = '%s'",
			   last_id, last_id),
		"t");
	CHECK_TEXT(handle("action", "", "success"), "duplicate");
	CHECK_TEXT(handle("compensation", "", "success"), "run");

	/* pending, then a no: it left no trace */
	new_saga();
	bring("pending");
	CU_ASSERT_EQUAL(
		strlen(ask(sql,
			"SELECT skald.reply_by_key('%s:reserve:action', 'inv', 'failure',"
			" '" NO "')",
			saga)),
		36);
	CHECK_TEXT(handle("compensation", "", "success"), "empty");

	/* ended by its compensation */
	new_saga();
	bring("pending");
	CHECK_TEXT(handle("compensation", "", "success"), "run");
	before = answers();
	CHECK_TEXT(ask(sql,
			   "SELECT skald.reply_by_key('%s:reserve:action', 'inv',"
			   " 'success') IS NULL",
			   saga),
		"t");
	CU_ASSERT_EQUAL(answers(), before);
	CHECK_TEXT(handle("action", "", "success"), "refused");
	/* of a later round as well */
	new_saga();
	CHECK_TEXT(handle("action", "", "failure"), "run");
	h = headers("action", 2, ":2");
	begin();
	CHECK_TEXT(participate(h), "run");
	(void)ask(
		sql, "SELECT skald.reply_later(headers => %s, participant => 'inv')", h);
	commit();
	CHECK_TEXT(handle("compensation", "", "success"), "run");
	CHECK_TEXT(ask(sql,
			   "SELECT skald.reply_by_key('%s:reserve:action:2', 'inv',"
			   " 'success') IS NULL",
			   saga),
		"t");
}

static void
a_compensation_finds_what_the_action_said(void)
{
	const char *h;

	new_saga();
	h = headers("compensation", 1, "");
	CHECK_TEXT(ask(sql,
			   "SELECT skald.action_reply(headers => %s, participant => "
			   "'inv') IS NULL",
			   h),
		"t");
	CHECK_TEXT(handle("action", "", "failure"), "run");
	CHECK_TEXT(handle("action", ":2", "success"), "run");
	CHECK_TEXT(ask(sql,
			   "SELECT skald.action_reply(headers => %s, participant => "
			   "'inv')",
			   h),
		"{\"r\": 10.00}");
	CHECK_TEXT(ask(sql,
			   "SELECT skald.action_reply(headers => %s, participant => "
			   "'other') IS NULL",
			   h),
		"t");
}

/* --- told to run, and no answer ------------------------------------------------------------------------------ */

static void
who_was_told_to_run_must_answer(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	const char *h;

	new_saga();
	CHECK_TEXT(participate(headers("action", 1, "")), "SK002"); /* autocommit */
	CHECK_TEXT(participate(headers("query", 1, "")), "SK002");
	CHECK_TEXT(ask(owner,
			   "SELECT count(*) FROM skald.barrier WHERE idempotency_key "
			   "LIKE '%s%%'",
			   saga),
		"0");
	/* with the work of the transaction */
	pg_exec(owner, "CREATE TABLE IF NOT EXISTS public.work (id int);"
		       "GRANT ALL ON public.work TO shop");
	begin();
	CHECK_TEXT(participate(headers("action", 1, "")), "run");
	pg_exec(sql, "INSERT INTO public.work VALUES (1)");
	CU_ASSERT_EQUAL(skald_sql_exec(sql, "COMMIT", &err), SKALD_REJECT);
	CHECK_TEXT(err.code, "SK002");
	CHECK_TEXT(ask(owner, "SELECT count(*) FROM public.work"), "0");

	/* an answer that is rolled back is none */
	h = headers("action", 1, "");
	begin();
	CHECK_TEXT(participate(h), "run");
	pg_exec(sql, "SAVEPOINT s");
	(void)reply(h, "success", "{}");
	pg_exec(sql, "ROLLBACK TO s");
	CU_ASSERT_EQUAL(skald_sql_exec(sql, "COMMIT", &err), SKALD_REJECT);
	CHECK_TEXT(err.code, "SK002");

	/* nor is a take that is rolled back one */
	begin();
	pg_exec(sql, "SAVEPOINT s");
	CHECK_TEXT(participate(headers("action", 1, "")), "run");
	pg_exec(sql, "ROLLBACK TO s");
	commit();

	/* a business no rolls back the work, not the barrier */
	h = headers("action", 1, "");
	begin();
	CHECK_TEXT(participate(h), "run");
	pg_exec(sql, "SAVEPOINT s; INSERT INTO public.work VALUES (1)");
	pg_exec(sql, "ROLLBACK TO s");
	(void)reply(h, "failure", NO);
	commit();
	CHECK_TEXT(ask(owner, "SELECT count(*) FROM public.work"), "0");
	CHECK_TEXT(answer(),
		"failure 1 action {\"code\": \"no\", \"message\": \"it is so\"}");
}

/* --- misuse ------------------------------------------------------------------------------------------------- */

static void
answers_out_of_turn_are_refused(void)
{
	const char *h;

	new_saga();
	h = headers("action", 1, "");
	CHECK_TEXT(reply(h, "success", "{}"), "SK006"); /* without participate */
	CHECK_TEXT(
		ask(sql, "SELECT skald.reply_later(headers => %s, participant => 'inv')",
			h),
		"SK006");
	CHECK_TEXT(ask(sql,
			   "SELECT skald.reply_by_key('%s:reserve:action', 'inv', "
			   "'success')",
			   saga),
		"SK006"); /* never taken */
	begin();
	CHECK_TEXT(participate(h), "run");
	CU_ASSERT_EQUAL(strlen(reply(h, "success", "{}")), 36);
	CHECK_TEXT(reply(h, "success", "{}"), "SK006"); /* twice */
	rollback();
	begin();
	CHECK_TEXT(participate(h), "run");
	CU_ASSERT_EQUAL(strlen(reply(h, "retryable", "{}")), 36);
	CHECK_TEXT(reply(h, "success", "{}"), "SK006");
	rollback();
	begin();
	CHECK_TEXT(participate(h), "run");
	CHECK_TEXT(ask(sql,
			   "SELECT skald.reply_by_key('%s:reserve:action', 'inv', "
			   "'success')",
			   saga),
		"SK006"); /* it is for reply */
	rollback();
	bring("pending");
	CHECK_TEXT(reply(h, "success", "{}"), "SK006"); /* it is for reply_by_key */
	CU_ASSERT_EQUAL(strlen(ask(sql,
				"SELECT skald.reply_by_key('%s:reserve:action', 'inv', "
				"'success')",
				saga)),
		36);
	CHECK_TEXT(ask(sql,
			   "SELECT skald.reply_by_key('%s:reserve:action', 'inv', "
			   "'success')",
			   saga),
		"SK006"); /* answered */
	/* the barrier has answered it already */
	begin();
	CHECK_TEXT(participate(h), "duplicate");
	CHECK_TEXT(reply(h, "success", "{}"), "SK006");
	rollback();
	/* a place to stand on is not a key that was taken */
	new_saga();
	CHECK_TEXT(handle("compensation", "", "success"), "empty");
	CHECK_TEXT(ask(sql,
			   "SELECT skald.reply_by_key('%s:reserve:action', 'inv', "
			   "'success')",
			   saga),
		"SK006");
}

static void
an_answer_has_a_form(void)
{
	static const char *const bad[][3] = {
		{ "done", "{}", "SK001" },
		{ "success", "[1]", "SK001" },
		{ "success", "7", "SK001" },
		{ "failure", "{}", "SK001" },
		{ "failure", "{\"code\":\"\"}", "SK001" },
		{ "failure", "{\"code\":7}", "SK001" },
		{ "failure", "{\"code\":\"a\",\"message\":7}", "SK001" },
		{ "retryable", "{\"code\":7}", "SK001" },
	};
	static const char *const good[][3] = {
		{ "success", "null", "success 1 action {}" },
		{ "retryable", "{}",
			"retryable 1 action {\"code\": \"retryable\", \"message\": "
			"\"\"}" },
		{ "unknown", "{}",
			"unknown 1 action {\"code\": \"unknown\", \"message\": \"\"}" },
		{ "failure", "{\"code\":\"a\"}",
			"failure 1 action {\"code\": \"a\", \"message\": \"\"}" },
	};
	const char *h;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		new_saga();
		h = headers("action", 1, "");
		begin();
		CHECK_TEXT(participate(h), "run");
		CHECK_TEXT(reply(h, bad[i][0], bad[i][1]), bad[i][2]);
		rollback();
	}
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		new_saga();
		h = headers("action", 1, "");
		begin();
		CHECK_TEXT(participate(h), "run");
		CU_ASSERT_EQUAL(strlen(reply(h, good[i][0], good[i][1])), 36);
		commit();
		CHECK_TEXT(answer(), good[i][2]);
	}
	new_saga();
	h = headers("action", 1, "");
	begin();
	CHECK_TEXT(participate(h), "run");
	CHECK_TEXT(
		ask(sql,
			"SELECT skald.reply(headers => %s, participant => 'inv', outcome"
			" => 'success', data => jsonb_build_object('a', repeat('x', "
			"262144)))",
			h),
		"SK007");
	rollback();
}

static void
a_command_that_contradicts_itself_is_refused(void)
{
	/* a change of the headers; what the error says */
	static const struct {
		const char *change, *code, *text;
	} bad[] = {
		{ "- 'ce_id'", "SK001", "headers.ce_id: is required" },
		{ "- 'ce_type'", "SK001", "headers.ce_type: is required" },
		{ "- 'ce_sagaid'", "SK001", "headers.ce_sagaid: is required" },
		{ "- 'ce_saganame'", "SK001", "headers.ce_saganame: is required" },
		{ "- 'ce_sagastep'", "SK001", "headers.ce_sagastep: is required" },
		{ "- 'ce_sagaop'", "SK001", "headers.ce_sagaop: is required" },
		{ "- 'ce_sagaattempt'", "SK001", "headers.ce_sagaattempt: is required" },
		{ "- 'ce_replyto'", "SK001", "headers.ce_replyto: is required" },
		{ "- 'idempotency-key'", "SK001",
			"headers.idempotency-key: is required" },
		{ "|| '{\"ce_sagaid\":\"X\"}'", "SK001",
			"headers.ce_sagaid: must be a uuid in lower case" },
		{ "|| '{\"ce_saganame\":\"A\"}'", "SK001",
			"headers.ce_saganame: must be a lower-case name" },
		{ "|| '{\"ce_sagastep\":\"a:b\"}'", "SK001",
			"headers.ce_sagastep: must be a lower-case name" },
		{ "|| '{\"ce_sagaop\":\"undo\"}'", "SK001",
			"headers.ce_sagaop: must be action, compensation or query" },
		{ "|| '{\"ce_sagaattempt\":\"0\"}'", "SK001",
			"headers.ce_sagaattempt: must be a number from 1" },
		{ "|| '{\"ce_sagaattempt\":\"1x\"}'", "SK001",
			"headers.ce_sagaattempt: must be a number from 1" },
		{ "|| '{\"ce_sagastep\":\"other\"}'", "SK001",
			"headers.idempotency-key: must fit saga, step and op" },
		{ "|| '{\"ce_sagaop\":\"compensation\"}'", "SK001",
			"headers.idempotency-key: must fit saga, step and op" },
		{ "|| jsonb_build_object('idempotency-key', saga || "
		  "':reserve:action:1')",
			"SK001", "headers.idempotency-key: must fit saga, step and op" },
		{ "|| '{\"ce_replyto\":\"shop.orders\"}'", "SK001",
			"headers.ce_replyto: must match skald.reply_topics "
			"(skald.replies*)" },
		{ "|| '{\"ce_replyto\":\"skald.replies/x\"}'", "SK001",
			"headers.ce_replyto: must match skald.reply_topics" },
		{ "|| jsonb_build_object('ce_type', repeat('x', 250))", "SK007",
			"headers.ce_type: must be at most 249 bytes" },
	};
	static const char *const doors[] = { "participate(h, 'inv')",
		"reply(h, 'inv', 'success')", "reply_later(h, 'inv')",
		"action_reply(h, 'inv')" };
	char statement[2 * TEXT_BYTES];

	new_saga();
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		for (unsigned k = 0; k < 4; k++) {
			struct skald_err err = SKALD_ERR_INIT;

			(void)snprintf(statement, sizeof(statement),
				"SELECT skald.%s FROM (SELECT %s %s AS h FROM (SELECT "
				"'%s'::text AS saga) AS x) AS y",
				doors[k], headers("action", 1, ""), bad[i].change, saga);
			CU_ASSERT_EQUAL(
				skald_sql_exec(sql, statement, &err), SKALD_REJECT);
			CHECK_TEXT(err.code, bad[i].code);
			err.text[strlen(bad[i].text)] = '\0';
			CHECK_TEXT(err.text, bad[i].text);
		}
	CHECK_TEXT(ask(sql, "SELECT skald.participate(NULL, 'inv')"), "SK001");
	CHECK_TEXT(ask(sql, "SELECT skald.participate('[]', 'inv')"), "SK001");
	CHECK_TEXT(ask(sql, "SELECT skald.participate(%s, '')", headers("action", 1, "")),
		"SK001");
	CHECK_TEXT(ask(sql, "SELECT skald.participate(%s, repeat('x', 256))",
			   headers("action", 1, "")),
		"SK007");
	CU_ASSERT_EQUAL(answers(), 0);
}

static void
reply_topics_can_be_set(void)
{
	const char *h;

	new_saga();
	h = headers("action", 1, "");
	begin();
	pg_exec(sql, "SET LOCAL skald.reply_topics = 'answers.*, skald.replies_shop'");
	CHECK_TEXT(participate(h), "SK001");
	rollback();
	begin();
	pg_exec(sql, "SET LOCAL skald.reply_topics = 'answers.*, *.shop'");
	CHECK_TEXT(participate(h), "run");
	CU_ASSERT_EQUAL(strlen(reply(h, "success", "{}")), 36);
	commit();
}

/* --- too late -------------------------------------------------------------------------------------------------- */

static const char *
with_expiry(const char *h, const char *at)
{
	static char text[TEXT_BYTES + 128];

	(void)snprintf(text, sizeof(text), "(%s || '{\"ce_expirytime\":\"%s\"}')", h, at);
	return text;
}

#define EXPIRED \
	"failure refused 1 action {\"code\": \"expired\", \"message\": " \
	"\"ce_expirytime: is " \
	"over\"}"

static void
an_expired_action_is_refused(void)
{
	const char *past = "2020-01-01T00:00:00Z", *h;

	new_saga();
	CHECK_TEXT(participate(with_expiry(headers("action", 1, ""), past)), "refused");
	CHECK_TEXT(answer(), EXPIRED);
	/* it has left no trace, and may run yet if it is sent without a deadline */
	CHECK_TEXT(participate(with_expiry(headers("action", 1, ""), past)), "refused");
	CHECK_TEXT(handle("action", "", "success"), "run");
	/* what was answered is repeated, late or not */
	CHECK_TEXT(participate(with_expiry(headers("action", 1, ""), past)), "duplicate");
	/* only actions expire */
	h = with_expiry(headers("compensation", 1, ""), past);
	begin();
	CHECK_TEXT(participate(h), "run");
	rollback();
	new_saga();
	h = with_expiry(headers("action", 1, ""), "2999-01-01T00:00:00Z");
	begin();
	CHECK_TEXT(participate(h), "run");
	rollback();
	CHECK_TEXT(participate(with_expiry(headers("action", 1, ""), "soon")), "SK001");
	new_saga();
	CHECK_TEXT(participate(with_expiry(headers("action", 1, ""), past)), "refused");
	CHECK_TEXT(handle("compensation", "", "success"), "empty");
}

static void
what_is_older_than_the_memory_is_not_guessed(void)
{
	const char *h;

	(void)snprintf(saga, sizeof(saga), "018f0000-0000-7000-8000-%012x", 1); /* 2024 */
	CHECK_TEXT(handle("action", "", "success"), "refused");
	CHECK_TEXT(handle("compensation", "", "success"), "run");
	(void)snprintf(saga, sizeof(saga), "018f0000-0000-7000-8000-%012x", 2);
	CHECK_TEXT(handle("action", ":2", "success"), "refused");
	CHECK_TEXT(handle("query", "", "failure"), "query");
	/* a longer memory, one without an end, a shorter one */
	(void)snprintf(saga, sizeof(saga), "018f0000-0000-7000-8000-%012x", 3);
	pg_exec(sql, "SET skald.barrier_retention = '40000d'");
	CHECK_TEXT(handle("action", "", "success"), "run");
	pg_exec(sql, "SET skald.barrier_retention = '0'");
	CHECK_TEXT(handle("action", ":2", "success"), "run");
	pg_exec(sql, "SET skald.barrier_retention = '1ms'");
	CHECK_TEXT(handle("action", ":2", "success"), "duplicate"); /* it is remembered */
	CHECK_TEXT(handle("action", ":3", "success"), "refused");
	pg_exec(sql, "RESET skald.barrier_retention");
	/* an id that does not tell its age is not old */
	(void)snprintf(saga, sizeof(saga), "018f0000-0000-4000-8000-%012x", 4);
	h = headers("action", 1, "");
	begin();
	CHECK_TEXT(participate(h), "run");
	rollback();
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

/* --- rights -------------------------------------------------------------------------------------------------------- */

static void
an_application_has_the_doors_only(void)
{
	CHECK_TEXT(ask(sql, "SELECT count(*) FROM skald.barrier"), "42501");
	CHECK_TEXT(ask(sql, "DELETE FROM skald.barrier"), "42501");
	CHECK_TEXT(ask(sql, "SELECT skald.barrier_take('inv', '{}', NULL)"), "42501");
	CHECK_TEXT(
		ask(sql, "SELECT skald.barrier_send('inv', '{}', 'success', '{}', NULL, "
			 "NULL)"),
		"42501");
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
		CHECK(an_answer_echoes_the_command),
		CHECK(what_is_emitted_belongs_to_the_command),
		CHECK(put_off_answers_come_by_key),
		CHECK(a_compensation_finds_what_the_action_said),
		CHECK(who_was_told_to_run_must_answer),
		CHECK(answers_out_of_turn_are_refused),
		CHECK(an_answer_has_a_form),
		CHECK(a_command_that_contradicts_itself_is_refused),
		CHECK(reply_topics_can_be_set),
		CHECK(an_expired_action_is_refused),
		CHECK(what_is_older_than_the_memory_is_not_guessed),
		CHECK(an_action_and_its_undo_wait_for_each_other),
		CHECK(an_application_has_the_doors_only),
	};
	int status;

	owner = pg_open("barrier", SKALD_SQL_TOOL);
	pg_exec(owner, "CREATE ROLE shop LOGIN IN ROLE skald_app");
	sql = pg_session("barrier", "shop", SKALD_SQL_SERVICE);
	status = check_main("contract.sql.barrier", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	skald_sql_close(owner);
	return status;
}
