/*
 * contract.consumers.participant - a saga's commands through the consumer: what runs, what
 * is answered, what stays of the work.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rand.h"
#include "consumers/own.h"
#include "tests/contract/consumers/kit.h"
#include "tests/support/check.h"

#define HEADERS  9
#define COMMANDS 300

static struct skald_sql *sql;
static atomic_int calls; /* of the handler, over all commands */

/* --- the participant ---------------------------------------------------------------------------- */

static enum skald_rc
work(const struct skald_command *cmd, struct pg_conn *tx, struct skald_err *err)
{
	struct skald_param params[3];
	char key[256], id[64];

	(void)skald_slice_copy(skald_command_key(cmd), key, sizeof(key));
	(void)skald_slice_copy(skald_command_id(cmd), id, sizeof(id));
	params[0] = skald_param_text(id);
	params[1] = skald_param_text(key);
	return skald_conn_query(tx,
		"INSERT INTO effect (id, value, attempt) VALUES ($1, $2, 1)", params, 2,
		NULL, err);
}

static enum skald_rc
undo(const struct skald_command *cmd, struct pg_conn *tx, struct skald_reply *reply,
	struct skald_err *err)
{
	struct skald_buf kept;
	bool found = false;
	enum skald_rc rc;

	skald_buf_init(&kept, 4096);
	rc = skald_command_action_reply(cmd, tx, &kept, &found, err);
	if (!rc)
		rc = skald_reply_success(
			reply, "{\"undone\":%s}", found ? kept.data : "null");
	skald_buf_done(&kept);
	return rc;
}

static enum skald_rc
fail_in_sql(struct pg_conn *tx, struct skald_reply *reply, struct skald_err *err)
{
	if (skald_conn_query(tx, "SELECT 1/0", NULL, 0, NULL, err))
		return skald_reply_failure(reply, "divided", "%s", "by zero");
	return SKALD_OK;
}

/* Writes first, then does what the command's data say. */
static enum skald_rc
reserve(struct skald_command *cmd, struct pg_conn *tx, struct skald_reply *reply,
	void *ctx, struct skald_err *err)
{
	struct skald_json verb;
	char what[32] = "";
	enum skald_rc rc = work(cmd, tx, err);

	(void)ctx;
	atomic_fetch_add(&calls, 1);
	if (rc)
		return rc;
	if (skald_json_member(skald_command_data(cmd), "do", &verb))
		(void)skald_json_text(verb, what, sizeof(what));
	if (skald_command_op(cmd) == SKALD_OP_COMPENSATION)
		return undo(cmd, tx, reply, err);
	if (skald_command_op(cmd) == SKALD_OP_QUERY)
		return skald_reply_failure(reply, "not_found", "nothing of it here");
	if (strcmp(what, "failure") == 0)
		return skald_reply_failure(reply, "out_of_stock", "%s: %d left", "a", 3);
	if (strcmp(what, "retryable") == 0)
		return skald_reply_retryable(reply, "busy", NULL);
	if (strcmp(what, "unknown") == 0)
		return skald_reply_unknown(reply, "timeout", "no answer");
	if (strcmp(what, "later") == 0)
		return skald_reply_later(reply);
	if (strcmp(what, "retry") == 0)
		return skald_fail(err, SKALD_RETRY, "test", "mine", "own trouble");
	if (strcmp(what, "reject") == 0)
		return skald_fail(err, SKALD_REJECT, "test", "no", "never");
	if (strcmp(what, "sql") == 0)
		return fail_in_sql(tx, reply, err);
	if (strcmp(what, "nothing") == 0)
		return SKALD_OK;
	if (strcmp(what, "scalar") == 0)
		return skald_reply_success(reply, "%d", 7);
	return skald_reply_success(
		reply, "{\"reservation\":10.00,\"n\":%lld}", 9007199254740993ll);
}

static enum skald_rc
no_event(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	(void)tx;
	(void)ctx;
	return skald_fail(err, SKALD_FATAL, "test", "", "%.*s: no command",
		(int)skald_delivery_type(d).bytes, skald_delivery_type(d).data);
}

static const struct skald__route_command *
find(struct skald_slice type, void *ctx)
{
	static const struct skald__route_command route = { reserve, NULL };

	(void)ctx;
	return skald_slice_is_text(type, "inventory.reserve") ? &route : NULL;
}

struct run {
	struct skald_consumer *consumer;
	pthread_t thread;
	enum skald_rc rc;
	struct skald_err err;
};

static void *
run_thread(void *arg)
{
	struct run *run = arg;

	run->rc = skald_consumer_run(run->consumer, 5000, &run->err);
	return NULL;
}

static void
start(struct run *run, const char *const *topics, const char *group)
{
	struct skald_consumer_conf conf = kit_conf(group, topics);

	memset(run, 0, sizeof(*run));
	run->err = (struct skald_err)SKALD_ERR_INIT;
	conf.handler = no_event;
	conf.attempts = 3;
	if (skald_consumer_create(&run->consumer, &conf, &run->err) ||
		skald__consumer_commands(
			run->consumer, "inventory", find, NULL, &run->err) ||
		pthread_create(&run->thread, NULL, run_thread, run) != 0) {
		fprintf(stderr, "start: %s\n", run->err.text);
		_exit(1);
	}
}

static enum skald_rc
stop(struct run *run)
{
	skald_wake_stop(skald_consumer_wake(run->consumer));
	(void)pthread_join(run->thread, NULL);
	skald_consumer_destroy(run->consumer);
	return run->rc;
}

/* --- the orchestrator ------------------------------------------------------------------------------ */

struct sent {
	char saga[64], id[64], key[192];
};

static void
draw_saga(struct sent *s)
{
	(void)snprintf(s->saga, sizeof(s->saga), "%s",
		pg_text(sql, "SELECT skald.uuid7()::text"));
}

/* A command of step "reserve"; expiry may be NULL. */
static void
command(const char *topic, struct sent *s, const char *op, const char *round, int attempt,
	const char *data, const char *expiry)
{
	static unsigned long long point = 1000;
	char number[16];
	struct skald_header more[HEADERS];
	size_t count = 0;

	(void)snprintf(
		s->id, sizeof(s->id), "%s", pg_text(sql, "SELECT skald.uuid7()::text"));
	(void)snprintf(s->key, sizeof(s->key), "%s:reserve:%s%s", s->saga,
		strcmp(op, "query") == 0 ? "action" : op, round);
	(void)snprintf(number, sizeof(number), "%d", attempt);
#define ADD(n, v) \
	more[count++] = (struct skald_header){ skald_slice_text(n), skald_slice_text(v) }
	ADD("ce_sagaid", s->saga);
	ADD("ce_saganame", "order");
	ADD("ce_sagastep", "reserve");
	ADD("ce_sagaop", op);
	ADD("ce_sagaattempt", number);
	ADD("ce_replyto", "skald.replies.test");
	ADD("idempotency-key", s->key);
	ADD("ce_correlationid", "the-correlation");
	if (expiry)
		ADD("ce_expirytime", expiry);
#undef ADD
	kit_send(&(struct kit_record){ .topic = topic,
		.key = s->saga,
		.id = s->id,
		.type = "inventory.reserve",
		.value = data,
		.point = ++point,
		.more = more,
		.more_count = count });
}

/* "outcome barrier attempt data" of the answer to a command, "" while there is none. */
static const char *
answer(const struct sent *s)
{
	char query[512];

	(void)snprintf(query, sizeof(query),
		"SELECT concat_ws(' ', headers ->> 'ce_sagaoutcome',"
		" headers ->> 'ce_sagabarrier', headers ->> 'ce_sagaattempt',"
		" convert_from(data, 'UTF8')) FROM skald.outbox WHERE causation_id = "
		"'%s'",
		s->id);
	return pg_text(sql, query);
}

static const char *
wait_answer(const struct sent *s)
{
	char query[256];

	(void)snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.outbox WHERE causation_id = '%s'", s->id);
	(void)kit_until(sql, query, 1, 30);
	return answer(s);
}

static int64_t
effects(const struct sent *s)
{
	char query[256];

	(void)snprintf(query, sizeof(query),
		"SELECT count(*) FROM effect WHERE id = '%s'", s->id);
	return pg_int(sql, query);
}

/* --- one by one ---------------------------------------------------------------------------------------- */

static void
each_answer_is_as_the_handler_says(void)
{
	static const struct {
		const char *data, *answer;
		int effects;
	} cases[] = {
		{ "{}", "success 1 {\"reservation\":10.00,\"n\":9007199254740993}", 1 },
		{ NULL, "success 1 {\"reservation\":10.00,\"n\":9007199254740993}", 1 },
		{ "{\"do\":\"failure\"}",
			"failure 1 "
			"{\"code\":\"out_of_stock\",\"message\":\"a: 3 left\"}",
			0 },
		{ "{\"do\":\"retryable\"}",
			"retryable 1 {\"code\":\"busy\",\"message\":\"\"}", 0 },
		{ "{\"do\":\"unknown\"}",
			"unknown 1 {\"code\":\"timeout\",\"message\":\"no answer\"}", 1 },
		{ "{\"do\":\"reject\"}",
			"failure 1 {\"code\":\"no\",\"message\":\"never\"}", 0 },
		{ "{\"do\":\"sql\"}",
			"failure 1 {\"code\":\"divided\",\"message\":\"by zero\"}", 0 },
		{ "{\"do\":\"retry\"}",
			"retryable 1 {\"code\":\"mine\",\"message\":\"own trouble\"}",
			0 },
	};
	enum { N = sizeof(cases) / sizeof(cases[0]) };
	const char *topics[] = { kit_topic(1) };
	struct sent sent[N];
	struct run run;

	start(&run, topics, "answers");
	for (unsigned i = 0; i < N; i++) {
		draw_saga(&sent[i]);
		command(topics[0], &sent[i], "action", "", 1, cases[i].data, NULL);
	}
	kit_flush();
	for (unsigned i = 0; i < N; i++) {
		CHECK_TEXT(wait_answer(&sent[i]), cases[i].answer);
		CU_ASSERT_EQUAL(effects(&sent[i]), cases[i].effects);
	}
	CU_ASSERT_EQUAL(stop(&run), SKALD_OK);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.dead_letter_entry"), 0);
}

static void
an_answer_has_every_header(void)
{
	const char *topics[] = { kit_topic(1) };
	char query[1024];
	struct sent s;
	struct run run;

	start(&run, topics, "headers");
	draw_saga(&s);
	command(topics[0], &s, "action", "", 3, "{}", NULL);
	kit_flush();
	(void)wait_answer(&s);
	CU_ASSERT_EQUAL(stop(&run), SKALD_OK);
	(void)snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.outbox WHERE causation_id = '%s'"
		" AND topic = 'skald.replies.test' AND key = '%s'"
		" AND type = 'inventory.reserve.reply' AND source = 'inventory'"
		" AND content_type = 'application/json'"
		" AND correlation_id = 'the-correlation'"
		" AND message_id = skald.uuid5('%s', 'inventory:reply')"
		" AND skald.trace_is_valid(traceparent) AND headers = '{"
		"\"ce_sagaid\":\"%s\",\"ce_saganame\":\"order\",\"ce_sagastep\":"
		"\"reserve\","
		"\"ce_sagaop\":\"action\",\"ce_sagaattempt\":\"3\",\"ce_sagaoutcome\":"
		"\"success\",\"idempotency-key\":\"%s\"}'",
		s.id, s.saga, s.id, s.saga, s.key);
	CU_ASSERT_EQUAL(pg_int(sql, query), 1);
}

/* --- in one batch ---------------------------------------------------------------------------------------- */

static void
the_barrier_decides_in_order_of_the_log(void)
{
	const char *topics[] = { kit_topic(1) };
	struct sent first, again, undone, late, empty, refused, old, once, waits, more,
		ask;
	struct run run;
	int before = atomic_load(&calls);

	draw_saga(&first);
	again = undone = late = first;
	draw_saga(&empty);
	refused = empty;
	draw_saga(&old);
	draw_saga(&once);
	draw_saga(&waits);
	more = waits;
	draw_saga(&ask);
	command(topics[0], &first, "action", "", 1, "{}", NULL);
	command(topics[0], &again, "action", "", 2, "{}", NULL);
	command(topics[0], &undone, "compensation", "", 1, "{}", NULL);
	command(topics[0], &late, "action", ":2", 3, "{}", NULL);
	command(topics[0], &empty, "compensation", "", 1, "{}", NULL);
	command(topics[0], &refused, "action", "", 1, "{}", NULL);
	command(topics[0], &old, "action", "", 1, "{}", "2020-01-01T00:00:00Z");
	command(topics[0], &once, "action", "", 1, "{}", "2999-01-01T00:00:00Z");
	command(topics[0], &waits, "action", "", 1, "{\"do\":\"later\"}", NULL);
	command(topics[0], &more, "action", "", 2, "{\"do\":\"later\"}", NULL);
	command(topics[0], &ask, "query", "", 1, "{}", NULL);
	kit_flush(); /* all are there: one batch */
	start(&run, topics, "order");
	CHECK_TEXT(wait_answer(&first),
		"success 1 {\"reservation\":10.00,\"n\":9007199254740993}");
	CHECK_TEXT(wait_answer(&again),
		"success duplicate 2 {\"reservation\":10.00,\"n\":9007199254740993}");
	CHECK_TEXT(wait_answer(&undone),
		"success 1 {\"undone\":{\"n\": 9007199254740993, \"reservation\": "
		"10.00}}");
	CHECK_TEXT(wait_answer(&late),
		"failure refused 3 {\"code\": \"refused\", \"message\": \"the "
		"compensation of this step came first\"}");
	CHECK_TEXT(wait_answer(&empty), "success empty 1 {}");
	CHECK_TEXT(wait_answer(&refused),
		"failure refused 1 {\"code\": \"refused\", \"message\": \"the "
		"compensation of this step came first\"}");
	CHECK_TEXT(wait_answer(&old),
		"failure refused 1 {\"code\": \"expired\", \"message\": \"ce_expirytime: "
		"is over\"}");
	CHECK_TEXT(wait_answer(&once),
		"success 1 {\"reservation\":10.00,\"n\":9007199254740993}");
	CHECK_TEXT(wait_answer(&ask),
		"failure 1 {\"code\":\"not_found\",\"message\":\"nothing of it here\"}");
	CU_ASSERT_EQUAL(stop(&run), SKALD_OK);
	CHECK_TEXT(answer(&waits), "");
	CHECK_TEXT(answer(&more), "");
	CU_ASSERT_EQUAL(atomic_load(&calls) - before, 5);
	CU_ASSERT_EQUAL(effects(&again) + effects(&late) + effects(&refused) +
				effects(&old) + effects(&more),
		0);
	CU_ASSERT_EQUAL(effects(&waits), 1);
}

static void
what_was_put_off_is_answered_by_key(void)
{
	const char *topics[] = { kit_topic(1) };
	struct skald_err err = SKALD_ERR_INIT;
	bool answered = false;
	struct sent s;
	struct run run;
	char query[320];

	start(&run, topics, "later");
	draw_saga(&s);
	command(topics[0], &s, "action", "", 1, "{\"do\":\"later\"}", NULL);
	kit_flush();
	(void)snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.barrier WHERE idempotency_key = '%s'"
		" AND state = 'pending'",
		s.key);
	CU_ASSERT(kit_until(sql, query, 1, 30));
	CU_ASSERT_EQUAL(stop(&run), SKALD_OK);
	CU_ASSERT_EQUAL(skald_reply_by_key(skald_sql_conn(sql), s.key, "inventory",
				SKALD_OUTCOME_SUCCESS, "{\"r\": 1}", &answered, &err),
		SKALD_OK);
	CU_ASSERT(answered);
	CHECK_TEXT(answer(&s), "success 1 {\"r\": 1}");
	CU_ASSERT_EQUAL(skald_reply_by_key(skald_sql_conn(sql), s.key, "inventory",
				SKALD_OUTCOME_SUCCESS, "{\"r\": 1}", &answered, &err),
		SKALD_REJECT);
	CHECK_TEXT(err.code, "SK006");
}

/* --- what is not a command ---------------------------------------------------------------------------------- */

struct garbage {
	const char *header, *value, *text;
};

/* A whole command, one header of it changed or taken away. */
static void
send_garbage(const char *topic, const struct garbage *g)
{
	static const char *const whole[][2] = {
		{ "ce_sagaid", "018f0000-0000-7000-8000-000000000001" },
		{ "ce_saganame", "order" },
		{ "ce_sagastep", "a" },
		{ "ce_sagaop", "action" },
		{ "ce_sagaattempt", "1" },
		{ "ce_replyto", "skald.replies.test" },
		{ "idempotency-key", "018f0000-0000-7000-8000-000000000001:a:action" },
	};
	struct skald_header more[HEADERS];
	size_t count = 0;

	for (unsigned k = 0; k < sizeof(whole) / sizeof(whole[0]); k++) {
		bool is_it = strcmp(whole[k][0], g->header) == 0;
		const char *value = is_it ? g->value : whole[k][1];

		if (value)
			more[count++] =
				(struct skald_header){ skald_slice_text(whole[k][0]),
					skald_slice_text(value) };
	}
	kit_send(&(struct kit_record){ .topic = topic,
		.key = "k",
		.type = "inventory.reserve",
		.value = strcmp(g->header, "value") == 0 ? g->value : "{}",
		.more = more,
		.more_count = count });
}

static void
garbage_becomes_a_dead_letter(void)
{
	static const struct garbage cases[] = {
		{ "ce_sagaid", NULL, "ce_sagaid: a command must have it" },
		{ "ce_sagaid", "x", "ce_sagaid: must be a uuid in lower case" },
		{ "ce_saganame", "No", "ce_saganame: must be a lower-case name" },
		{ "ce_sagastep", "1", "ce_sagastep: must be a lower-case name" },
		{ "ce_sagaop", "do", "ce_sagaop: must be action, compensation or query" },
		{ "ce_sagaattempt", "0", "ce_sagaattempt: must be a number from 1" },
		{ "ce_replyto", "a b", "ce_replyto: must be a topic" },
		{ "idempotency-key", "k", "idempotency-key: must fit ce_sagaid" },
		{ "idempotency-key", "018f0000-0000-7000-8000-000000000001:a:action:1",
			"idempotency-key: must fit ce_sagaid" },
		{ "value", "{\"a\":1,\"a\":2}", "value: " },
		{ "ce_replyto", "shop.orders",
			"headers.ce_replyto: must match skald.reply_topics" },
	};
	enum { N = sizeof(cases) / sizeof(cases[0]) };
	const char *topics[] = { kit_topic(1) };
	int before = atomic_load(&calls);
	char query[128];
	struct run run;

	pg_exec(sql, "TRUNCATE skald.dead_letter_entry");
	for (unsigned i = 0; i < N; i++)
		send_garbage(topics[0], &cases[i]);
	kit_flush();
	start(&run, topics, "garbage");
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM skald.dead_letter_entry", N, 30));
	CU_ASSERT_EQUAL(stop(&run), SKALD_OK);
	CU_ASSERT_EQUAL(atomic_load(&calls), before);
	for (unsigned i = 0; i < N; i++) {
		const char *got;

		(void)snprintf(query, sizeof(query),
			"SELECT message FROM skald.dead_letter_entry WHERE "
			"record_offset = %u",
			i);
		got = pg_text(sql, query);
		CU_ASSERT(strstr(got, cases[i].text) != NULL);
		if (!strstr(got, cases[i].text))
			printf("\n    %s, not %s", got, cases[i].text);
	}
	/* the last one only the database knows */
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.dead_letter_entry WHERE "
				    "class = 'DECODE'"),
		N - 1);
}

static void
a_handler_without_an_answer_stops_the_process(void)
{
	static const char *const data[] = { "{\"do\":\"nothing\"}",
		"{\"do\":\"scalar\"}" };
	static const char *const text[] = { "said OK, but set no reply",
		"reply: must be a JSON object" };

	for (unsigned i = 0; i < 2; i++) {
		const char *topics[] = { kit_topic(1) };
		struct sent s;
		struct run run;

		start(&run, topics, i ? "scalar" : "nothing");
		draw_saga(&s);
		command(topics[0], &s, "action", "", 1, data[i], NULL);
		kit_flush();
		(void)pthread_join(run.thread, NULL);
		CU_ASSERT_EQUAL(run.rc, SKALD_FATAL);
		CU_ASSERT(strstr(run.err.text, text[i]) != NULL);
		skald_consumer_destroy(run.consumer);
		CU_ASSERT_EQUAL(effects(&s), 0);
		CHECK_TEXT(answer(&s), "");
	}
}

/* --- many ------------------------------------------------------------------------------------------------------- */

/* Random commands, some twice, handlers that fail half way: each key one effect, every
   command one answer. */
static void
each_key_runs_once_and_every_command_is_answered(void)
{
	static const char *const data[] = { "{}", "{\"do\":\"failure\"}",
		"{\"do\":\"retry\"}", "{\"do\":\"sql\"}" };
	const char *given = getenv("SKALD_SEED"), *topics[] = { kit_topic(1) };
	uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)skald_wall_us();
	struct skald_rand rand;
	struct sent sagas[COMMANDS / 3];
	struct run run;
	char query[512];

	printf(" SKALD_SEED=%llu ", (unsigned long long)seed);
	skald_rand_seed(&rand, seed);
	pg_exec(sql, "TRUNCATE effect, skald.outbox, skald.barrier");
	for (unsigned i = 0; i < COMMANDS / 3; i++)
		draw_saga(&sagas[i]);
	for (unsigned i = 0; i < COMMANDS; i++) {
		struct sent *s = &sagas[skald_rand_below(&rand, COMMANDS / 3)];
		uint64_t dice = skald_rand_below(&rand, 10);

		command(topics[0], s, dice == 0 ? "compensation" : "action", "",
			(int)i + 1, data[dice < 6 ? 0 : dice - 6], NULL);
		if (i == COMMANDS / 2)
			start(&run, topics, "many");
	}
	kit_flush();
	CU_ASSERT(kit_until(sql,
		"SELECT count(*) FROM skald.outbox WHERE topic = 'skald.replies.test'",
		COMMANDS, 60));
	CU_ASSERT_EQUAL(stop(&run), SKALD_OK);
	(void)snprintf(query, sizeof(query),
		"SELECT count(*) FROM (SELECT causation_id FROM skald.outbox GROUP BY 1"
		" HAVING count(*) = 1) AS x");
	CU_ASSERT_EQUAL(pg_int(sql, query), COMMANDS);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM (SELECT value FROM effect GROUP BY 1"
			    " HAVING count(*) > 1) AS x"),
		0);
	/* work and answer agree: an effect where, and only where, a success is kept that
	   the barrier did not make itself */
	CU_ASSERT_EQUAL(
		pg_int(sql,
			"SELECT count(*) FROM skald.barrier AS b FULL JOIN effect AS e"
			" ON e.value = b.idempotency_key"
			" WHERE coalesce(b.outcome = 'success' AND b.data <> '{}', false)"
			" IS DISTINCT FROM (e.id IS NOT NULL)"),
		0);
	CU_ASSERT(pg_int(sql, "SELECT count(*) FROM effect") > 20);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(each_answer_is_as_the_handler_says),
		CHECK(an_answer_has_every_header),
		CHECK(the_barrier_decides_in_order_of_the_log),
		CHECK(what_was_put_off_is_answered_by_key),
		CHECK(garbage_becomes_a_dead_letter),
		CHECK(a_handler_without_an_answer_stops_the_process),
		CHECK(each_key_runs_once_and_every_command_is_answered),
	};
	int status;

	kit_start(false);
	sql = pg_open("shop", SKALD_SQL_TOOL);
	status = check_main("contract.consumers.participant", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	kit_stop();
	return status;
}
