/* What is wrong on the wire: a dead letter or a counted stale event, and the others flow. */
#include <poll.h>
#include <stdlib.h>

#include "tests/contract/saga/kit.h"
#include "tests/support/check.h"

#define WELL    "{\"reserve\":\"ok\",\"charge\":\"ok\",\"ship\":\"ok\",\"release\":\"ok\"}"
#define REPLIES "skald.replies.orders"
#define NOBODY  "01900000-0000-7000-8000-000000000001"

enum { HEADERS_MAX = 12 };
static char target[64]; /* the id of a finished saga */
static char key_text[160];

/* A sound reply to its first step, with one header otherwise: NULL value: left out. */
static unsigned
headers_with(struct skald_header *headers, const char *name, const char *value)
{
	const char *const pairs[][2] = { { "ce_id", "r1" },
		{ "ce_type", "stock.reserve.reply" }, { "ce_sagaid", target },
		{ "ce_saganame", "order" }, { "ce_sagastep", "reserve" },
		{ "ce_sagaop", "action" }, { "ce_sagaattempt", "1" },
		{ "idempotency-key", key_text }, { "ce_sagaoutcome", "success" } };
	unsigned count = 0;
	bool is_there = false;

	for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		bool is_it = name && strcmp(pairs[i][0], name) == 0;
		const char *text = is_it ? value : pairs[i][1];

		is_there |= is_it;
		if (text)
			headers[count++] =
				(struct skald_header){ skald_slice_text(pairs[i][0]),
					skald_slice_text(text) };
	}
	if (name && !is_there)
		headers[count++] = (struct skald_header){ skald_slice_text(name),
			skald_slice_text(value) };
	return count;
}

static void
send_reply(const char *name, const char *value, struct skald_slice data)
{
	struct skald_header headers[HEADERS_MAX];

	kit_send(REPLIES, target, data, headers, headers_with(headers, name, value));
}

static int64_t
dead(const char *code)
{
	char query[256];

	snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.dead_letters WHERE code = '%s' AND "
		"consumer_group ="
		" 'skald.orders'",
		code);
	return pg_int(kit_sql, query);
}

/* One more dead letter of this code for what the caller sent; then a saga still runs. */
static void
expect_dead(const char *code, int64_t before, const char *what)
{
	char query[256];

	snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.dead_letters WHERE code = '%s' AND "
		"consumer_group ="
		" 'skald.orders'",
		code);
	if (!kit_until(query, before + 1, 10)) {
		printf(" for %s", what);
		CU_ASSERT(false);
	}
}

static void
headers_that_cannot_be(void)
{
	static const struct {
		const char *name, *value, *code;
	} rows[] = {
		{ "ce_sagaid", NULL, "missing_echo" },
		{ "ce_sagaid", "nonsense", "contradictory_echo" },
		{ "ce_saganame", NULL, "missing_echo" },
		{ "ce_saganame", "other", "contradictory_echo" },
		{ "ce_sagastep", NULL, "missing_echo" },
		{ "ce_sagastep", "charge", "contradictory_echo" },
		{ "ce_sagaop", NULL, "missing_echo" },
		{ "ce_sagaop", "compensation", "contradictory_echo" },
		{ "ce_sagaop", "query", "contradictory_echo" },
		{ "ce_sagaattempt", NULL, "missing_echo" },
		{ "ce_sagaattempt", "0", "contradictory_echo" },
		{ "ce_sagaattempt", "one", "contradictory_echo" },
		{ "ce_sagaattempt", "99999999999", "contradictory_echo" },
		{ "idempotency-key", NULL, "missing_echo" },
		{ "idempotency-key", "x", "contradictory_echo" },
		{ "ce_sagaoutcome", NULL, "missing_echo" },
		{ "ce_sagaoutcome", "maybe", "unknown_outcome" },
		{ "ce_sagabarrier", "perhaps", "contradictory_echo" },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t before = dead(rows[i].code);

		send_reply(rows[i].name, rows[i].value, SKALD_SLICE_LIT("{}"));
		expect_dead(rows[i].code, before, rows[i].name);
	}
}

static void
twice_the_same_header(void)
{
	struct skald_header headers[HEADERS_MAX];
	unsigned count = headers_with(headers, NULL, NULL);
	int64_t before = dead("contradictory_echo");

	headers[count++] = (struct skald_header){ SKALD_SLICE_LIT("ce_sagastep"),
		SKALD_SLICE_LIT("reserve") };
	kit_send(REPLIES, target, SKALD_SLICE_LIT("{}"), headers, count);
	expect_dead("contradictory_echo", before, "a header that is there twice");
}

static void
values_that_cannot_be(void)
{
	size_t bytes = 3 * 1000 * 1000;
	char *large = malloc(bytes);
	int64_t before;

	if (!large)
		return;
	memset(large, '[', bytes);
	before = dead("too_large");
	send_reply(NULL, NULL, skald_slice_make(large, bytes));
	expect_dead("too_large", before, "3 MB");
	before = dead("invalid_json");
	send_reply(NULL, NULL, skald_slice_make(large, 100000));
	expect_dead("invalid_json", before, "depth 100000");
	before = dead("invalid_json");
	send_reply(NULL, NULL, SKALD_SLICE_LIT("\xff\xfe"));
	expect_dead("invalid_json", before, "no UTF-8");
	before = dead("no_object");
	send_reply(NULL, NULL, SKALD_SLICE_LIT("[1]"));
	expect_dead("no_object", before, "an array");
	before = dead("no_code");
	send_reply("ce_sagaoutcome", "failure", SKALD_SLICE_LIT("{}"));
	expect_dead("no_code", before, "a failure without code");
	before = dead("missing_echo");
	kit_send(REPLIES, "x", SKALD_SLICE_LIT("garbage"), NULL, 0);
	expect_dead("missing_echo", before, "no headers at all");
	free(large);
}

static void
an_unknown_saga(void)
{
	char was[64], was_key[160];
	int64_t before = dead("saga_unknown");

	snprintf(was, sizeof(was), "%s", target);
	snprintf(was_key, sizeof(was_key), "%s", key_text);
	snprintf(target, sizeof(target), NOBODY);
	snprintf(key_text, sizeof(key_text), NOBODY ":reserve:action");
	send_reply(NULL, NULL, SKALD_SLICE_LIT("{}"));
	expect_dead("saga_unknown", before, NOBODY);
	snprintf(target, sizeof(target), "%s", was);
	snprintf(key_text, sizeof(key_text), "%s", was_key);
}

static void
what_fits_nothing_is_stale(void)
{
	char query[256];

	snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.saga_events WHERE saga_id = '%s' AND kind = "
		"'stale'",
		target);
	send_reply(NULL, NULL, SKALD_SLICE_LIT("{}")); /* a finished saga's */
	send_reply("ce_sagaattempt", "7", SKALD_SLICE_LIT("{}")); /* never sent */
	CU_ASSERT(kit_until(query, 2, 10));
	CHECK_TEXT(kit_ending("target"), "finished completed none");
}

/* A reply that cannot be used, for the attempt that is out: the step is unknown. */
static void
a_dead_letter_is_an_unknown_attempt(void)
{
	char was[64], was_key[160];

	snprintf(was, sizeof(was), "%s", target);
	snprintf(was_key, sizeof(was_key), "%s", key_text);
	kit_saga("order", "broken",
		"{\"reserve\":\"silent,ok\",\"charge\":\"ok\",\"ship\":\"ok\"}");
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.saga WHERE key = 'broken' AND seq = 2", 1,
		10));
	snprintf(target, sizeof(target), "%s",
		pg_text(kit_sql, "SELECT id FROM skald.saga WHERE key = 'broken'"));
	snprintf(key_text, sizeof(key_text), "%s:reserve:action", target);
	send_reply(NULL, NULL, SKALD_SLICE_LIT("[]"));
	CHECK_TEXT(kit_ending("broken"), "finished completed none");
	CU_ASSERT_PTR_NOT_NULL(strstr(kit_history("broken"),
		"command:reserve:action:1 reply:reserve:action:1:unknown "
		"command:reserve:action:2"));
	snprintf(target, sizeof(target), "%s", was);
	snprintf(key_text, sizeof(key_text), "%s", was_key);
}

/* --- starts from the topic --------------------------------------------------------------- */

static void
send_start(const char *type, const char *value)
{
	static unsigned number;
	char id[32];
	struct skald_header headers[] = {
		{ SKALD_SLICE_LIT("ce_type"), skald_slice_text(type) },
		{ SKALD_SLICE_LIT("ce_id"), SKALD_SLICE_NULL },
		{ SKALD_SLICE_LIT("ce_correlationid"), SKALD_SLICE_LIT("from-afar") },
	};

	snprintf(id, sizeof(id), "start-%u", ++number);
	headers[1].value = skald_slice_text(id);
	kit_send("skald.saga.commands", "start", skald_slice_text(value), headers, 3);
}

static void
starts_come_by_message(void)
{
	static const char *const bad[][2] = {
		{ "SK004", "{\"name\":\"nothing\",\"key\":\"k\",\"input\":{}}" },
		{ "SK001", "{\"name\":\"order\",\"input\":{}}" },
		{ "SK001", "{\"name\":\"order\",\"key\":\"k\",\"input\":[]}" },
		{ "SK001", "{\"name\":\"order\",\"key\":\"k\",\"input\":{},\"odd\":1}" },
		{ "SK001", "{\"name\":\"order\",\"key\":\"k\",\"input\":{},\"version\":1."
			   "5}" },
		{ "SK003",
			"{\"name\":\"order\",\"key\":\"target\",\"input\":{\"x\":1}}" },
		{ "invalid_json", "no JSON" },
		{ "no_object", "[]" },
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int64_t before = dead(bad[i][0]);

		send_start("skald.saga.start", bad[i][1]);
		expect_dead(bad[i][0], before, bad[i][1]);
	}
	int64_t before = dead("unknown_type");

	send_start("skald.saga.begin", "{}");
	expect_dead("unknown_type", before, "skald.saga.begin");
	send_start("skald.saga.start",
		"{\"name\":\"order\",\"key\":\"by-message\",\"input\":" WELL "}");
	CHECK_TEXT(kit_ending("by-message"), "finished completed none");
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(*) FROM skald.saga WHERE key = 'by-message' AND"
			" correlation_id = 'from-afar' AND causation_id LIKE 'start-%'"),
		1);
}

/* An application's open start of the same key holds up its own saga only. */
static void
an_open_start_holds_nobody_up(void)
{
	struct skald_sql *app = pg_session("orders", "postgres", SKALD_SQL_TOOL);

	pg_exec(app, "BEGIN; SELECT skald.saga_start('order', 'held', '" WELL "')");
	send_start("skald.saga.start",
		"{\"name\":\"order\",\"key\":\"held\",\"input\":" WELL "}");
	kit_saga("order", "meanwhile", WELL);
	CHECK_TEXT(kit_ending("meanwhile"), "finished completed none");
	CU_ASSERT_EQUAL(
		pg_int(kit_sql, "SELECT count(*) FROM skald.saga WHERE key = 'held'"), 0);
	pg_exec(app, "ROLLBACK");
	CHECK_TEXT(kit_ending("held"), "finished completed none");
	skald_sql_close(app);
}

/* --- PostgreSQL ------------------------------------------------------------------------------- */

static void
it_outlives_its_sessions(void)
{
	kit_saga("order", "before", WELL);
	pg_exec(kit_sql, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
			 " application_name = 'skald orchestrator'");
	kit_saga("order", "after", WELL);
	CHECK_TEXT(kit_ending("before"), "finished completed none");
	CHECK_TEXT(kit_ending("after"), "finished completed none");
}

/* A saga whose row is not readable is left alone; a record that breaks its batch is a
   dead letter, and nobody else's. */
static void
the_culprit_alone(void)
{
	int64_t before = dead("unreadable");
	char was[64], was_key[160];

	kit_saga("order", "odd",
		"{\"reserve\":\"silent\",\"charge\":\"ok\",\"ship\":\"ok\"}");
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.saga WHERE key = 'odd' AND seq = 2", 1, 10));
	pg_exec(kit_sql, "UPDATE skald.saga SET state = 'nonsense' WHERE key = 'odd'");
	snprintf(was, sizeof(was), "%s", target);
	snprintf(was_key, sizeof(was_key), "%s", key_text);
	snprintf(target, sizeof(target), "%s",
		pg_text(kit_sql, "SELECT id FROM skald.saga WHERE key = 'odd'"));
	snprintf(key_text, sizeof(key_text), "%s:reserve:action", target);
	send_reply(NULL, NULL, SKALD_SLICE_LIT("{}"));
	expect_dead("unreadable", before, "a state that is nonsense");
	snprintf(target, sizeof(target), "%s", was);
	snprintf(key_text, sizeof(key_text), "%s", was_key);

	/* any write of history for one saga fails: all others go on */
	before = dead("poison");
	pg_exec(kit_sql, "ALTER TABLE skald.saga_event_entry ADD CONSTRAINT odd CHECK"
			 " (message_id <> 'poison') NOT VALID");
	send_reply("ce_id", "poison", SKALD_SLICE_LIT("{}"));
	kit_saga("order", "beside", WELL);
	expect_dead("poison", before, "a record that breaks its batch");
	CHECK_TEXT(kit_ending("beside"), "finished completed none");
	pg_exec(kit_sql, "ALTER TABLE skald.saga_event_entry DROP CONSTRAINT odd");
}

/* What an operator wants again is run again: and it is still dead, or it fits now. */
static void
a_dead_letter_is_replayed(void)
{
	struct skald_header headers[HEADERS_MAX];
	int64_t before = dead("SK004");
	unsigned count = headers_with(headers, "ce_saganame", "other");

	kit_send(REPLIES, "replayed", SKALD_SLICE_LIT("{}"), headers, count);
	send_start("skald.saga.start",
		"{\"name\":\"later\",\"key\":\"replayed\",\"input\":{\"only\":\"ok\"}}");
	expect_dead("SK004", before, "a definition that comes later");
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.dead_letters WHERE key = 'replayed'", 1, 10));
	pg_exec(kit_sql,
		"SELECT skald.operator_act('saga.deploy', 'later', 'me', NULL,"
		" jsonb_build_object('version', 1, 'hash', 'h', 'steps', "
		"'[\"only\"]'::jsonb,"
		" 'kinds', '[\"compensatable\"]'::jsonb, 'body', '{\"name\":\"later\","
		"\"version\":1,\"steps\":[{\"name\":\"only\",\"compensation\":null,"
		"\"action\":{\"topic\":\"work\",\"type\":\"only.do\",\"data\":"
		"{\"how\":\"$.input.only\"}}}]}'))");
	pg_exec(kit_sql,
		"SELECT skald.operator_act('dlq.replay', id::text, 'me', 'again') FROM"
		" skald.dead_letters WHERE state = 'dead' AND (key = 'replayed' OR"
		" value LIKE '%replayed%')");
	CHECK_TEXT(kit_ending("replayed"), "finished completed none");
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.dead_letters WHERE state = 'resolved'"
		" AND code = 'SK004'",
		1, 10));
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.dead_letters WHERE state = 'dead' AND"
		" key = 'replayed' AND attempts = 2",
		1, 10));
}

static void
make_target(void)
{
	kit_saga("order", "target", WELL);
	CHECK_TEXT(kit_ending("target"), "finished completed none");
	snprintf(target, sizeof(target), "%s",
		pg_text(kit_sql, "SELECT id FROM skald.saga WHERE key = 'target'"));
	snprintf(key_text, sizeof(key_text), "%s:reserve:action", target);
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(make_target),
		CHECK(headers_that_cannot_be), CHECK(twice_the_same_header),
		CHECK(values_that_cannot_be), CHECK(an_unknown_saga),
		CHECK(what_fits_nothing_is_stale),
		CHECK(a_dead_letter_is_an_unknown_attempt), CHECK(starts_come_by_message),
		CHECK(an_open_start_holds_nobody_up), CHECK(it_outlives_its_sessions),
		CHECK(the_culprit_alone), CHECK(a_dead_letter_is_replayed) };
	int status;

	kit_start();
	status = check_main("contract.saga.trouble", cases, CHECK_COUNT(cases));
	kit_stop();
	return status;
}
