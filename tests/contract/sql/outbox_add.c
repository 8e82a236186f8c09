#include "base/uuid.h"
#include "sql/sql.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

static struct skald_sql *sql; /* as a member of skald_app only */
static struct skald_sql *owner; /* looks at the rows */

/* The newest row's column, as text. */
static const char *
row(const char *column)
{
	char query[256];

	(void)snprintf(query, sizeof(query),
		"SELECT (%s)::text FROM skald.outbox ORDER BY id DESC LIMIT 1", column);
	return pg_text(owner, query);
}

static int64_t
rows(void)
{
	return pg_int(owner, "SELECT count(*) FROM skald.outbox");
}

/* --- what is refused --------------------------------------------------------------------------- */

struct bad {
	const char *args;
	const char *code;
	const char *text;
};

#define FORM   "SK001"
#define LARGE  "SK007"
#define TOPIC  "topic: must be 1 to 249 of [A-Za-z0-9._-]"
#define TYPE   "type: must be 1 to 255 bytes"
#define NAMES  "headers: names must be 1 to 255 printable ASCII characters without spaces"
#define KEPT   ": is reserved (ce_*, x-dlq-*, x-replay-*, content-type)"
#define LONG   "repeat('x', 256)"
#define OBJECT "headers: must be a JSON object of names and texts"

static const struct bad bads[] = {
	{ "NULL, 'k', 't', '{}'", FORM, TOPIC },
	{ "'', 'k', 't', '{}'", FORM, TOPIC },
	{ "repeat('t', 250), 'k', 't', '{}'", FORM, TOPIC },
	{ "'a b', 'k', 't', '{}'", FORM, TOPIC },
	{ "'a/b', 'k', 't', '{}'", FORM, TOPIC },
	{ "E'a\\n', 'k', 't', '{}'", FORM, TOPIC },
	{ "'\xc3\xa4', 'k', 't', '{}'", FORM, TOPIC },
	{ "E'a\\x01b', 'k', 't', '{}'", FORM, TOPIC },
	{ "E'a\\x01b', 'k', '', '{}'", FORM, TOPIC },
	{ "'.', 'k', 't', '{}'", FORM, "topic: must not be . or .." },
	{ "'..', 'k', 't', '{}'", FORM, "topic: must not be . or .." },
	{ "'t', repeat('k', 32769), 't', '{}'", LARGE, "key: must be at most 32 KiB" },
	{ "'t', repeat('\xc3\xa4', 16385), 't', '{}'", LARGE,
		"key: must be at most 32 KiB" },
	{ "'t', 'k', NULL, '{}'", FORM, TYPE },
	{ "'t', 'k', '', '{}'", FORM, TYPE },
	{ "'t', 'k', " LONG ", '{}'", LARGE, TYPE },
	{ "'t', 'k', repeat('\xc3\xa4', 128), '{}'", LARGE, TYPE },
	{ "'t', 'k', 't', to_jsonb(repeat('x', 16777215))", LARGE,
		"data: must be at most 16 MiB" },
	{ "'t', 'k', 't', '{}', subject => " LONG, LARGE,
		"subject: must be at most 255 bytes" },
	{ "'t', 'k', 't', '{}', source => " LONG, LARGE,
		"source: must be at most 255 bytes" },
	{ "'t', 'k', 't', '{}', correlation_id => " LONG, LARGE,
		"correlation_id: must be at most 255 bytes" },
	{ "'t', 'k', 't', '{}', causation_id => " LONG, LARGE,
		"causation_id: must be at most 255 bytes" },
	{ "'t', 'k', 't', '{}', expires_at => 'infinity'", FORM,
		"expires_at: must be finite" },
	{ "'t', 'k', 't', '{}', headers => '[]'", FORM, OBJECT },
	{ "'t', 'k', 't', '{}', headers => 'null'", FORM, OBJECT },
	{ "'t', 'k', 't', '{}', headers => '{\"a\":1}'", FORM,
		"headers.a: must be a text" },
	{ "'t', 'k', 't', '{}', headers => '{\"a\":null}'", FORM,
		"headers.a: must be a text" },
	{ "'t', 'k', 't', '{}', headers => '{\"a\":{}}'", FORM,
		"headers.a: must be a text" },
	{ "'t', 'k', 't', '{}', headers => '{\"\":\"v\"}'", FORM, NAMES },
	{ "'t', 'k', 't', '{}', headers => '{\"a b\":\"v\"}'", FORM, NAMES },
	{ "'t', 'k', 't', '{}', headers => '{\"\xc3\xa4\":\"v\"}'", FORM, NAMES },
	{ "'t', 'k', 't', '{}', headers => jsonb_build_object(" LONG ", 'v')", FORM,
		NAMES },
	{ "'t', 'k', 't', '{}', headers => '{\"ce_id\":\"v\"}'", FORM,
		"headers.ce_id" KEPT },
	{ "'t', 'k', 't', '{}', headers => '{\"CE_Whatever\":\"v\"}'", FORM,
		"headers.CE_Whatever" KEPT },
	{ "'t', 'k', 't', '{}', headers => '{\"x-dlq-id\":\"v\"}'", FORM,
		"headers.x-dlq-id" KEPT },
	{ "'t', 'k', 't', '{}', headers => '{\"X-Replay-Run\":\"v\"}'", FORM,
		"headers.X-Replay-Run" KEPT },
	{ "'t', 'k', 't', '{}', headers => '{\"Content-Type\":\"v\"}'", FORM,
		"headers.Content-Type" KEPT },
	{ "'t', 'k', 't', '{}', headers => jsonb_build_object('a', repeat('x', 8000),"
	  " 'b', repeat('y', 193))",
		LARGE, "headers: values together must be at most 8 KiB" },
	{ "'t', 'k', 't', '{}', headers => (SELECT jsonb_object_agg('h' || i, 'v')"
	  " FROM generate_series(1, 101) AS i)",
		LARGE, "headers: must be at most 100" },
};

static const struct bad bad_bytes[] = {
	{ "'', 'k', 't', 'd', 'text/plain'", FORM, TOPIC },
	{ "'t', convert_to(repeat('k', 32769), 'UTF8'), 't', 'd', 'text/plain'", LARGE,
		"key: must be at most 32 KiB" },
	{ "'t', 'k', 't', convert_to(repeat('x', 16777217), 'UTF8'), 'text/plain'", LARGE,
		"data: must be at most 16 MiB" },
	{ "'t', 'k', 't', 'd', ''", FORM, "content_type: must not be empty" },
	{ "'t', 'k', 't', 'd', " LONG, LARGE, "content_type: must be at most 255 bytes" },
};

static void
refuses(const char *function, const struct bad *bad)
{
	struct skald_err err = SKALD_ERR_INIT;
	char statement[512], check[1024];

	(void)snprintf(
		statement, sizeof(statement), "SELECT skald.%s(%s)", function, bad->args);
	if (skald_sql_exec(sql, statement, &err) != SKALD_REJECT ||
		strcmp(err.code, bad->code) != 0 || strcmp(err.text, bad->text) != 0) {
		printf("\n    %s\n    got %s %s", statement, err.code, err.text);
		CU_FAIL("not refused as it should be");
	}
	/* the rule stands in DETAIL, whatever the message says */
	(void)snprintf(check, sizeof(check),
		"DO $do$ DECLARE d text; BEGIN PERFORM skald.%s(%s); EXCEPTION WHEN "
		"OTHERS THEN"
		"  GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL;"
		"  IF d <> $x$%s$x$ THEN RAISE 'detail is %%', d; END IF; END $do$",
		function, bad->args, bad->text);
	CU_ASSERT_EQUAL(skald_sql_exec(sql, check, &err), SKALD_OK);
}

static void
bad_arguments_name_field_and_rule(void)
{
	int64_t before = rows();

	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++)
		refuses("outbox_add", &bads[i]);
	for (size_t i = 0; i < sizeof(bad_bytes) / sizeof(bad_bytes[0]); i++)
		refuses("outbox_add_bytes", &bad_bytes[i]);
	CU_ASSERT_EQUAL(rows(), before);
}

static void
the_edge_of_each_limit_is_allowed(void)
{
	static const char *const edges[] = {
		"outbox_add(repeat('t', 249), 'k', 't', '{}')",
		"outbox_add('...', 'k', 't', '{}')",
		"outbox_add('.a', 'k', 't', '{}')",
		"outbox_add('t', repeat('k', 32768), 't', '{}')",
		"outbox_add('t', '', 't', '{}')",
		"outbox_add('t', 'k', repeat('x', 255), '{}')",
		"outbox_add('t', 'k', 't', to_jsonb(repeat('x', 16777214)))",
		"outbox_add_bytes('t', 'k', 't', convert_to(repeat('x', 16777216), "
		"'UTF8'),"
		" repeat('c', 255))",
		"outbox_add('t', 'k', 't', '{}', subject => repeat('x', 255),"
		" source => repeat('x', 255), correlation_id => repeat('x', 255),"
		" causation_id => repeat('x', 255))",
		"outbox_add(repeat('t', 249), repeat('k', 32768), repeat('x', 255), '{}',"
		" subject => repeat('x', 255), source => repeat('x', 255))",
		"outbox_add('t', 'k', 't', '{}', headers => jsonb_build_object('a',"
		" repeat('x', 8000), 'b', repeat('y', 192)))",
		"outbox_add('t', 'k', E'a\\x01b', '{}', subject => E'a\\x01b')",
		"outbox_add('t', 'k', 't', '{}', headers => (SELECT"
		" jsonb_object_agg('h' || i, 'v') FROM generate_series(1, 100) AS i))",
	};

	for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
		struct skald_err err = SKALD_ERR_INIT;
		int64_t before = rows();
		char statement[512];

		(void)snprintf(statement, sizeof(statement), "SELECT skald.%s", edges[i]);
		CU_ASSERT_EQUAL(skald_sql_exec(sql, statement, &err), SKALD_OK);
		if (err.text[0])
			printf("\n    %s: %s", edges[i], err.text);
		CU_ASSERT_EQUAL(rows(), before + 1);
	}
}

/* --- what is written --------------------------------------------------------------------------- */

static void
a_plain_message_has_everything(void)
{
	char id[64];

	(void)snprintf(id, sizeof(id), "%s",
		pg_text(sql,
			"SELECT skald.outbox_add('orders', 'k1', 'order.placed',"
			" '{\"n\": 9007199254740993, \"d\": 10.00}', subject => 's')"));
	CHECK_TEXT(row("message_id"), id);
	CHECK_TEXT(row("topic"), "orders");
	CHECK_TEXT(row("convert_from(key, 'UTF8')"), "k1");
	CHECK_TEXT(row("type"), "order.placed");
	CHECK_TEXT(row("source"), "/outbox_add");
	CHECK_TEXT(row("subject"), "s");
	CHECK_TEXT(row("content_type"), "application/json");
	CHECK_TEXT(row("convert_from(data, 'UTF8')"),
		"{\"d\": 10.00, \"n\": 9007199254740993}");
	CHECK_TEXT(row("headers IS NULL AND causation_id IS NULL AND expires_at IS NULL"),
		"true");
	CHECK_TEXT(row("correlation_id"), id);
	CHECK_TEXT(row("traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-01$'"), "true");
	CHECK_TEXT(row("xid = (xmin::text)::xid8 AND at > now() - interval '1 min'"),
		"true");
	/* UUIDv7 of now */
	CHECK_TEXT(row("substr(message_id::text, 15, 1) = '7' AND"
		       " substr(message_id::text, 20, 1) IN ('8', '9', 'a', 'b')"),
		"true");
	CHECK_TEXT(row("abs(('x0' || substr(replace(message_id::text, '-', ''), 1, "
		       "12))::bit(52)"
		       "::bigint - extract(epoch FROM at) * 1000) < 1000"),
		"true");
}

static void
ids_and_spans_are_drawn_anew(void)
{
	int64_t before = rows();

	pg_exec(sql, "SELECT skald.outbox_add('t', 'k', 't', '{}')"
		     " FROM generate_series(1, 1000)");
	pg_exec(sql, "SELECT skald.outbox_add('t', 'k', 't', NULL)"
		     " FROM generate_series(1, 1000)");
	CU_ASSERT_EQUAL(rows(), before + 2000);
	CU_ASSERT_EQUAL(pg_int(owner, "SELECT count(DISTINCT message_id) + "
				      "count(DISTINCT substr(traceparent, 4, 32)) + "
				      "count(DISTINCT substr(traceparent, 37, 16)) "
				      "FROM (SELECT * FROM skald.outbox ORDER BY id DESC "
				      "LIMIT 2000) AS o"),
		6000);
}

static void
arguments_are_taken_as_given(void)
{
	pg_exec(sql, "SELECT skald.outbox_add('t', NULL, 't', '[]', subject => 'sub', "
		     "source => '/s',"
		     " id => '00000000-0000-0000-0000-000000000017', headers => "
		     "'{\"tenant\":\"a\"}',"
		     " correlation_id => 'corr', causation_id => 'caus', traceparent =>"
		     " '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00',"
		     " expires_at => '2030-01-02 03:04:05.678901+00')");
	CHECK_TEXT(
		row("concat_ws(' ', message_id, subject, source, headers, correlation_id,"
		    " causation_id, expires_at AT TIME ZONE 'UTC')"),
		"00000000-0000-0000-0000-000000000017 sub /s {\"tenant\": \"a\"} corr "
		"caus"
		" 2030-01-02 03:04:05.678901");
	CHECK_TEXT(row("key IS NULL"), "true");
	/* a child span of the given one */
	CHECK_TEXT(row("left(traceparent, 36) || right(traceparent, 3)"),
		"00-0af7651916cd43dd8448eb211c80319c--00");
	CHECK_TEXT(row("substr(traceparent, 37, 16) <> 'b7ad6b7169203331'"), "true");
	CHECK_TEXT(row("octet_length(traceparent)"), "55");
}

static void
a_tombstone_has_no_data(void)
{
	pg_exec(sql, "SELECT skald.outbox_add('t', 'k', 't', NULL)");
	CHECK_TEXT(row("data IS NULL AND content_type IS NULL"), "true");
	pg_exec(sql, "SELECT skald.outbox_add('t', 'k', 't', 'null')");
	CHECK_TEXT(row("convert_from(data, 'UTF8') || ' ' || content_type"),
		"null application/json");
	pg_exec(sql, "SELECT skald.outbox_add_bytes('t', 'k', 't', NULL, NULL)");
	CHECK_TEXT(row("data IS NULL AND content_type IS NULL"), "true");
}

static void
bytes_are_kept(void)
{
	pg_exec(sql, "SELECT skald.outbox_add_bytes('t', '\\x00ff', 't', '\\x7b20007d',"
		     " 'application/x-thing', headers => '{\"h\":\"v\"}')");
	CHECK_TEXT(row("key"), "\\x00ff");
	CHECK_TEXT(row("data"), "\\x7b20007d");
	CHECK_TEXT(row("content_type || headers::text"),
		"application/x-thing{\"h\": \"v\"}");
	pg_exec(sql, "SELECT skald.outbox_add_bytes('t', '', 't', '', 'text/plain')");
	CHECK_TEXT(row("octet_length(key) + octet_length(data)"), "0");
}

static void
what_rolls_back_was_never_there(void)
{
	int64_t before = rows();

	pg_exec(sql, "BEGIN; SELECT skald.outbox_add('t', 'k', 't', '{}'); ROLLBACK");
	CU_ASSERT_EQUAL(rows(), before);
	pg_exec(sql,
		"BEGIN; SAVEPOINT s; SELECT skald.outbox_add('t', 'k', 't', '{}');"
		"ROLLBACK TO s; SELECT skald.outbox_add('t', 'k', 'kept', '{}'); COMMIT");
	CU_ASSERT_EQUAL(rows(), before + 1);
	CHECK_TEXT(row("type"), "kept");
	/* inside a savepoint the row carries the top transaction's id, as snapshots do */
	pg_exec(sql,
		"BEGIN; SELECT skald.outbox_add('t', 'k', 'outer', '{}'); SAVEPOINT s;"
		"SELECT skald.outbox_add('t', 'k', 'inner', '{}'); COMMIT");
	CU_ASSERT_EQUAL(pg_int(owner, "SELECT count(DISTINCT xid) FROM (SELECT xid FROM"
				      " skald.outbox ORDER BY id DESC LIMIT 2) AS o"),
		1);
}

/* --- context ----------------------------------------------------------------------------------- */

#define TRACE "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

static void
context_is_inherited_for_the_transaction(void)
{
	pg_exec(sql, "BEGIN; SELECT "
		     "skald.context('{\"ce_id\":\"m1\",\"ce_correlationid\":\"c1\","
		     "\"traceparent\":\"" TRACE
		     "\",\"tracestate\":\"a=1\",\"baggage\":\"b=2\"}');"
		     "SELECT skald.outbox_add('t', 'k', 't', '{}', headers => "
		     "'{\"own\":\"1\"}');"
		     "COMMIT");
	CHECK_TEXT(
		row("concat_ws(' ', correlation_id, causation_id, left(traceparent, 36),"
		    " headers)"),
		"c1 m1 00-0af7651916cd43dd8448eb211c80319c- {\"own\": \"1\","
		" \"baggage\": \"b=2\", \"tracestate\": \"a=1\"}");
	CHECK_TEXT(row("traceparent <> '" TRACE "'"), "true");
	/* and gone with it */
	pg_exec(sql, "SELECT skald.outbox_add('t', 'k', 't', '{}')");
	CHECK_TEXT(row("correlation_id = message_id::text AND causation_id IS NULL"
		       " AND headers IS NULL AND traceparent NOT LIKE '00-0af%'"),
		"true");
}

static void
arguments_beat_the_context(void)
{
	pg_exec(sql,
		"BEGIN; SELECT "
		"skald.context('{\"ce_id\":\"m1\",\"ce_correlationid\":\"c1\","
		"\"traceparent\":\"" TRACE
		"\",\"tracestate\":\"a=1\",\"baggage\":\"b=2\"}');"
		"SELECT skald.outbox_add('t', 'k', 't', '{}', correlation_id => 'mine',"
		" causation_id => 'also', headers => '{\"baggage\":\"own=1\"}', "
		"traceparent =>"
		" '00-11111111111111111111111111111111-2222222222222222-01'); COMMIT");
	/* the state of another trace is not carried along */
	CHECK_TEXT(
		row("concat_ws(' ', correlation_id, causation_id, left(traceparent, 36),"
		    " headers)"),
		"mine also 00-11111111111111111111111111111111- {\"baggage\": "
		"\"own=1\"}");
}

static void
settings_serve_too_and_empty_is_unset(void)
{
	pg_exec(sql,
		"BEGIN; SET LOCAL skald.correlation_id = 'c2';"
		"SET LOCAL skald.causation_id = 'm2'; SET LOCAL skald.source = '/shop';"
		"SET LOCAL skald.traceparent = '" TRACE "';"
		"SELECT skald.outbox_add('t', 'k', 't', '{}'); COMMIT");
	CHECK_TEXT(row("concat_ws(' ', correlation_id, causation_id, source,"
		       " left(traceparent, 36))"),
		"c2 m2 /shop 00-0af7651916cd43dd8448eb211c80319c-");
	pg_exec(sql, "SET skald.correlation_id = ''; SET skald.causation_id = '';"
		     "SET skald.source = ''; SET skald.traceparent = '';"
		     "SELECT skald.outbox_add('t', 'k', 't', '{}', correlation_id => '',"
		     " causation_id => '', source => '', traceparent => '')");
	CHECK_TEXT(row("correlation_id = message_id::text AND causation_id IS NULL"
		       " AND source = '/outbox_add'"),
		"true");
	pg_exec(sql, "SET skald.source = '/only'; SELECT skald.outbox_add('t', 'k', 't', "
		     "'{}');"
		     "RESET skald.source");
	CHECK_TEXT(row("source"), "/only");
}

static void
a_wrong_traceparent_begins_a_new_trace(void)
{
	static const char *const wrong[] = { "garbage",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n" };

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		char statement[512];

		(void)snprintf(statement, sizeof(statement),
			"SELECT skald.outbox_add('t', 'k', 't', '{}', traceparent => "
			"'%s')",
			wrong[i]);
		pg_exec(sql, statement);
		CHECK_TEXT(row("traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-01$' AND"
			       " lower(traceparent) NOT LIKE '%0af7651916cd%'"),
			"true");
		/* the same by way of the context, which then drops the state too */
		(void)snprintf(statement, sizeof(statement),
			"BEGIN; SELECT skald.context(jsonb_build_object('traceparent', "
			"'%s',"
			" 'tracestate', 'a=1')); SELECT skald.outbox_add('t', 'k', 't', "
			"'{}');"
			"COMMIT",
			wrong[i]);
		pg_exec(sql, statement);
		CHECK_TEXT(row("traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-01$' AND"
			       " lower(traceparent) NOT LIKE '%0af7651916cd%' AND"
			       " headers IS NULL"),
			"true");
	}
	/* in a header of one's own it is the same thing: one value per name */
	pg_exec(sql, "SELECT skald.outbox_add('t', 'k', 't', '{}', headers =>"
		     " '{\"traceparent\":\"" TRACE "\"}')");
	CHECK_TEXT(row("left(traceparent, 36) || (headers IS NULL)::text"),
		"00-0af7651916cd43dd8448eb211c80319c-true");
}

static void
correlation_dialects_are_read_in_order(void)
{
	static const struct {
		const char *headers, *expected;
	} cases[] = {
		{ "{\"ce_id\":\"id\",\"kafka_correlationId\":\"8\"}", "8" },
		{ "{\"kafka_correlationId\":\"8\",\"NServiceBus.CorrelationId\":\"7\"}",
			"7" },
		{ "{\"NServiceBus.CorrelationId\":\"7\",\"CorrelationId\":\"6\"}", "6" },
		{ "{\"CorrelationId\":\"6\",\"correlationId\":\"5\"}", "5" },
		{ "{\"correlationId\":\"5\",\"correlation_id\":\"4\"}", "4" },
		{ "{\"correlation_id\":\"4\",\"correlation-id\":\"3\"}", "3" },
		{ "{\"correlation-id\":\"3\",\"X-Correlation-ID\":\"2\"}", "2" },
		{ "{\"x-correlation-id\":\"2\",\"ce_correlationid\":\"1\"}", "1" },
		{ "{\"ce_correlationid\":\"\",\"ce_id\":\"id\"}", "id" },
		{ "{\"ce_id\":\"id\"}", "id" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char statement[512];

		(void)snprintf(statement, sizeof(statement),
			"BEGIN; SELECT skald.context('%s');"
			"SELECT skald.outbox_add('t', 'k', 't', '{}'); COMMIT",
			cases[i].headers);
		pg_exec(sql, statement);
		CHECK_TEXT(row("correlation_id"), cases[i].expected);
	}
	pg_exec(sql, "BEGIN; SELECT skald.context('{}');"
		     "SELECT skald.outbox_add('t', 'k', 't', '{}'); COMMIT");
	CHECK_TEXT(row("correlation_id = message_id::text"), "true");
}

static void
ids_emitted_in_a_context_are_derived(void)
{
	struct skald_uuid space, id;
	char text[SKALD_UUID_TEXT_BYTES];

	(void)skald_uuid_parse(
		SKALD_SLICE_LIT("01a1fc30-ff60-7781-8544-ad394d9ea951"), &space);
	for (int run = 0; run < 2;
		run++) { /* a handler that runs again emits the same ids */
		pg_exec(sql, "BEGIN; SET LOCAL skald.handler = 'billing'; SELECT "
			     "skald.context("
			     "'{\"ce_id\":\"01a1fc30-ff60-7781-8544-ad394d9ea951\"}');"
			     "SELECT skald.outbox_add('t', 'k', 't', '{}');"
			     "SELECT skald.outbox_add('t', 'k', 't', '{}'); COMMIT");
		id = skald_uuid_v5(space, SKALD_SLICE_LIT("billing:sql:1"));
		skald_uuid_format(id, text);
		CHECK_TEXT(row("message_id"), text);
		id = skald_uuid_v5(space, SKALD_SLICE_LIT("billing:sql:0"));
		skald_uuid_format(id, text);
		CHECK_TEXT(pg_text(owner, "SELECT message_id FROM skald.outbox"
					  " ORDER BY id DESC LIMIT 1 OFFSET 1"),
			text);
	}
	/* an id that is no UUID serves as well */
	pg_exec(sql, "BEGIN; SELECT skald.context('{\"ce_id\":\"order-17\"}');"
		     "SELECT skald.outbox_add('t', 'k', 't', '{}'); COMMIT");
	space = skald_uuid_v5((struct skald_uuid){ { 0 } }, SKALD_SLICE_LIT("order-17"));
	id = skald_uuid_v5(space, SKALD_SLICE_LIT("sql:sql:0"));
	skald_uuid_format(id, text);
	CHECK_TEXT(row("message_id"), text);
}

/* Against the library's SHA-1, over lengths around the blocks' edges. */
static void
sql_and_c_derive_the_same_ids(void)
{
	char name[160], query[512], text[SKALD_UUID_TEXT_BYTES];
	struct skald_uuid space = { { 0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1,
		0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8 } };

	for (int bytes = 1; bytes<150; bytes += bytes> 30 && bytes < 60 ? 1 : 13) {
		for (int i = 0; i < bytes; i++)
			name[i] = (char)('a' + (i * 7 + bytes) % 26);
		name[bytes] = '\0';
		skald_uuid_format(skald_uuid_v5(space, skald_slice_text(name)), text);
		(void)snprintf(query, sizeof(query),
			"SELECT skald.uuid5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', "
			"'%s')",
			name);
		CHECK_TEXT(pg_text(owner, query), text);
	}
}

static void
a_context_must_be_an_object(void)
{
	static const char *const wrong[] = { "NULL", "'[]'", "'1'", "'null'" };

	for (size_t i = 0; i < 4; i++) {
		struct skald_err err = SKALD_ERR_INIT;
		char statement[128];

		(void)snprintf(statement, sizeof(statement), "SELECT skald.context(%s)",
			wrong[i]);
		CU_ASSERT_EQUAL(skald_sql_exec(sql, statement, &err), SKALD_REJECT);
		CHECK_TEXT(err.code, "SK001");
		CHECK_TEXT(err.text, OBJECT);
	}
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(bad_arguments_name_field_and_rule),
		CHECK(the_edge_of_each_limit_is_allowed),
		CHECK(a_plain_message_has_everything),
		CHECK(ids_and_spans_are_drawn_anew), CHECK(arguments_are_taken_as_given),
		CHECK(a_tombstone_has_no_data), CHECK(bytes_are_kept),
		CHECK(what_rolls_back_was_never_there),
		CHECK(context_is_inherited_for_the_transaction),
		CHECK(arguments_beat_the_context),
		CHECK(settings_serve_too_and_empty_is_unset),
		CHECK(a_wrong_traceparent_begins_a_new_trace),
		CHECK(correlation_dialects_are_read_in_order),
		CHECK(ids_emitted_in_a_context_are_derived),
		CHECK(sql_and_c_derive_the_same_ids), CHECK(a_context_must_be_an_object)
	};
	int status;

	owner = pg_open("outbox_add", SKALD_SQL_TOOL);
	pg_exec(owner, "CREATE ROLE shop LOGIN IN ROLE skald_app");
	sql = pg_session("outbox_add", "shop", SKALD_SQL_SERVICE);
	status = check_main("contract.sql.outbox_add", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	skald_sql_close(owner);
	return status;
}
