/*
 * contract.sql.barrier_use - how the barrier's functions are used and misused: answers and
 * their headers, SK001, SK002, SK006, deadlines, old sagas, rights.
 */
#include "tests/contract/sql/barrier_kit.h"

#include <stdlib.h>

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
}

static void
a_put_off_answer_leaves_the_trace_of_what_it_says(void)
{
	const char *h;
	int64_t before;

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

/* Take three as the runner does; the expiry of the third as SQL. */
static void
take_three(const char *expires_us, const char *wanted)
{
	CHECK_TEXT(
		ask(sql,
			"SELECT string_agg(v, ' ') FROM skald.participant_take('inv',"
			" ARRAY['%s:one:action', '%s:two:action', '%s:reserve:action'],"
			" ARRAY[true, true, true], ARRAY['{}', '{}', (%s ||"
			" '{\"ce_expirytime\":\"2020-01-01T00:00:00Z\"}')::text],"
			" ARRAY[NULL, NULL, gen_random_uuid()]::uuid[], ARRAY[NULL, "
			"NULL, %s]::"
			"bigint[]) AS v",
			saga, saga, saga, headers("action", 1, ""), expires_us),
		wanted);
}

static void
answer_some(const char *steps)
{
	CHECK_TEXT(
		ask(sql,
			"SELECT skald.participant_answer('inv', array_agg('%s:' || s ||"
			" ':action'), array_agg(false), array_agg('success'::text),"
			" array_agg('{}'::text), array_agg(gen_random_uuid()),"
			" array_agg('skald.replies.shop'::text), array_agg('t'::text),"
			" array_agg('{}'::text), array_agg('c'::text),"
			" array_agg('c'::text), array_agg('00-0af7651916cd43dd8448eb211"
			"c80319c-b7ad6b7169203331-01'::text)) FROM"
			" unnest(string_to_array('%s', ' ')) AS s",
			saga, steps),
		"");
}

/* What the runner takes for many at once must be answered as well, each of it. */
static void
a_batch_is_answered_whole(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	new_saga();
	begin();
	take_three("NULL", "run run run");
	answer_some("one two");
	CU_ASSERT_EQUAL(skald_sql_exec(sql, "COMMIT", &err), SKALD_REJECT);
	CHECK_TEXT(err.code, "SK002");
	begin();
	take_three("NULL", "run run run");
	answer_some("one");
	pg_exec(sql, "SAVEPOINT s");
	answer_some("two reserve");
	pg_exec(sql, "ROLLBACK TO s");
	CU_ASSERT_EQUAL(skald_sql_exec(sql, "COMMIT", &err), SKALD_REJECT);
	CHECK_TEXT(err.code, "SK002");
	/* one by participate beside them counts, too; answered by whichever way */
	begin();
	take_three("extract(epoch FROM now()) * 1000000 - 1", "run run refused");
	CHECK_TEXT(participate(headers("action", 1, "")), "run");
	answer_some("one two");
	CU_ASSERT_EQUAL(skald_sql_exec(sql, "COMMIT", &err), SKALD_REJECT);
	CHECK_TEXT(err.code, "SK002");
	begin();
	take_three("extract(epoch FROM now()) * 1000000 + 5000000", "run run run");
	answer_some("one two");
	(void)reply(headers("action", 1, ""), "success", "{}");
	commit();
	CHECK_TEXT(ask(owner,
			   "SELECT count(*) FROM skald.barrier WHERE idempotency_key LIKE"
			   " '%s%%' AND state = 'answered'",
			   saga),
		"3");
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

/* A change of the headers; what the error says. */
static const struct {
	const char *change, *code, *text;
} contradictions[] = {
	{ "- 'ce_id'", "SK001", "headers.ce_id: is required" },
	{ "- 'ce_type'", "SK001", "headers.ce_type: is required" },
	{ "- 'ce_sagaid'", "SK001", "headers.ce_sagaid: is required" },
	{ "- 'ce_saganame'", "SK001", "headers.ce_saganame: is required" },
	{ "- 'ce_sagastep'", "SK001", "headers.ce_sagastep: is required" },
	{ "- 'ce_sagaop'", "SK001", "headers.ce_sagaop: is required" },
	{ "- 'ce_sagaattempt'", "SK001", "headers.ce_sagaattempt: is required" },
	{ "- 'ce_replyto'", "SK001", "headers.ce_replyto: is required" },
	{ "- 'idempotency-key'", "SK001", "headers.idempotency-key: is required" },
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

static void
a_command_that_contradicts_itself_is_refused(void)
{
	static const char *const doors[] = { "participate(h, 'inv')",
		"reply(h, 'inv', 'success')", "reply_later(h, 'inv')",
		"action_reply(h, 'inv')" };
	char statement[2 * TEXT_BYTES];

	new_saga();
	for (unsigned i = 0; i < sizeof(contradictions) / sizeof(contradictions[0]); i++)
		for (unsigned k = 0; k < 4; k++) {
			struct skald_err err = SKALD_ERR_INIT;

			(void)snprintf(statement, sizeof(statement),
				"SELECT skald.%s FROM (SELECT %s %s AS h FROM (SELECT "
				"'%s'::text AS saga) AS x) AS y",
				doors[k], headers("action", 1, ""),
				contradictions[i].change, saga);
			CU_ASSERT_EQUAL(
				skald_sql_exec(sql, statement, &err), SKALD_REJECT);
			CHECK_TEXT(err.code, contradictions[i].code);
			err.text[strlen(contradictions[i].text)] = '\0';
			CHECK_TEXT(err.text, contradictions[i].text);
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
		CHECK(an_answer_echoes_the_command),
		CHECK(what_is_emitted_belongs_to_the_command),
		CHECK(put_off_answers_come_by_key),
		CHECK(a_put_off_answer_leaves_the_trace_of_what_it_says),
		CHECK(a_compensation_finds_what_the_action_said),
		CHECK(who_was_told_to_run_must_answer),
		CHECK(a_batch_is_answered_whole),
		CHECK(answers_out_of_turn_are_refused),
		CHECK(an_answer_has_a_form),
		CHECK(a_command_that_contradicts_itself_is_refused),
		CHECK(reply_topics_can_be_set),
		CHECK(an_expired_action_is_refused),
		CHECK(what_is_older_than_the_memory_is_not_guessed),
		CHECK(an_application_has_the_doors_only),
	};

	return kit_main("contract.sql.barrier_use", cases, CHECK_COUNT(cases));
}
