#include <libpq-fe.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/context.h"
#include "base/limits.h"
#include "outbox/outbox.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

static struct skald_sql *sql;

static struct skald_msg
a_message(void)
{
	struct skald_msg msg = SKALD_MSG_INIT;

	msg.topic = "shop.orders";
	msg.key = SKALD_SLICE_LIT("order-1");
	msg.type = "shop.order.placed";
	msg.data = SKALD_SLICE_LIT("{\"total\":10.00}");
	return msg;
}

static enum skald_rc
add(const struct skald_msg *msg, struct skald_uuid *id, struct skald_err *err)
{
	return skald_outbox_add(skald_sql_conn(sql), msg, id, err);
}

/* One cell of the newest row. */
static const char *
newest(const char *column)
{
	static char query[256];

	(void)snprintf(query, sizeof(query),
		"SELECT %s FROM skald.outbox ORDER BY id DESC LIMIT 1", column);
	return pg_text(sql, query);
}

/* --- writing ------------------------------------------------------------------------ */

static void
writes_what_it_is_given(void)
{
	struct skald_msg msg = a_message();
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_header own[] = { { SKALD_SLICE_LIT("x-tenant"),
					      SKALD_SLICE_LIT("a\"b") },
		{ SKALD_SLICE_LIT("tracestate"), SKALD_SLICE_LIT("k=v") } };
	struct skald_uuid id, given;
	char text[SKALD_UUID_TEXT_BYTES];

	CU_ASSERT(skald_uuid_parse(
		skald_slice_text("01a1fc30-ff60-7781-8544-ad394d9ea951"), &given));
	msg.subject = "order-1";
	msg.source = "/shop";
	msg.id = &given;
	msg.headers = (struct skald_headers){ own, 2 };
	msg.correlation_id = "corr";
	msg.causation_id = "cause";
	msg.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
	msg.expires_at_us = INT64_C(1700000000123456);
	pg_exec(sql, "BEGIN");
	CU_ASSERT_EQUAL(add(&msg, &id, &err), SKALD_OK);
	pg_exec(sql, "COMMIT");
	skald_uuid_format(id, text);
	CHECK_TEXT(text, "01a1fc30-ff60-7781-8544-ad394d9ea951");
	CHECK_TEXT(newest("concat_ws('|', message_id, topic, convert_from(key, 'UTF8'), "
			  "type, "
			  "convert_from(data, 'UTF8'), content_type)"),
		"01a1fc30-ff60-7781-8544-ad394d9ea951|shop.orders|order-1|shop.order."
		"placed|"
		"{\"total\":10.00}|application/json");
	CHECK_TEXT(newest("concat_ws('|', subject, source, correlation_id, causation_id, "
			  "left(traceparent, 36), headers ->> 'x-tenant', "
			  "headers ->> 'tracestate', extract(epoch FROM expires_at))"),
		"order-1|/shop|corr|cause|00-0af7651916cd43dd8448eb211c80319c-|a\"b|k=v|"
		"1700000000.123456");
}

static void
leaves_out_what_it_is_not_given(void)
{
	struct skald_msg msg = a_message();
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_uuid id;
	char text[SKALD_UUID_TEXT_BYTES];

	msg.key = SKALD_SLICE_NULL;
	msg.data = SKALD_SLICE_NULL;
	pg_exec(sql, "BEGIN");
	CU_ASSERT_EQUAL(add(&msg, &id, &err), SKALD_OK);
	pg_exec(sql, "COMMIT");
	skald_uuid_format(id, text);
	CU_ASSERT_EQUAL(text[14], '7');
	CHECK_TEXT(newest("message_id"), text);
	CHECK_TEXT(newest("correlation_id"), text);
	CHECK_TEXT(newest("num_nulls(key, data, content_type, subject, headers, "
			  "causation_id, "
			  "expires_at)"),
		"7");
}

static void
keeps_bytes_that_are_not_json(void)
{
	struct skald_msg msg = a_message();
	struct skald_err err = SKALD_ERR_INIT;

	msg.content_type = "application/octet-stream";
	msg.data = skald_slice_make("\0\xff'\\", 4);
	pg_exec(sql, "BEGIN");
	CU_ASSERT_EQUAL(add(&msg, NULL, &err), SKALD_OK);
	pg_exec(sql, "COMMIT");
	CHECK_TEXT(newest("encode(data, 'hex')"), "00ff275c");
}

static void
belongs_to_the_callers_transaction(void)
{
	struct skald_msg msg = a_message();
	struct skald_err err = SKALD_ERR_INIT;
	int64_t before = pg_int(sql, "SELECT count(*) FROM skald.outbox");

	CU_ASSERT_EQUAL(add(&msg, NULL, &err), SKALD_REJECT);
	CU_ASSERT(strstr(err.text, "conn: must be inside a transaction") != NULL);
	pg_exec(sql, "BEGIN");
	CU_ASSERT_EQUAL(add(&msg, NULL, &err), SKALD_OK);
	pg_exec(sql, "ROLLBACK");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"), before);
}

/* --- refusing ----------------------------------------------------------------------- */

static char long_text[40000];

static void
refused(struct skald_msg msg, const char *code, const char *text)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = add(&msg, NULL, &err);

	CU_ASSERT_EQUAL(rc, SKALD_REJECT);
	CHECK_TEXT(err.code, code);
	if (strncmp(err.text, text, strlen(text)) != 0)
		CHECK_TEXT(err.text, text);
}

static void
names_field_and_rule_and_writes_nothing(void)
{
	int64_t before = pg_int(sql, "SELECT count(*) FROM skald.outbox");
	struct skald_msg good = a_message(), msg;

	memset(long_text, 'x', sizeof(long_text) - 1);
	pg_exec(sql, "BEGIN");
#define REFUSED(change, code, text) \
	do { \
		msg = good; \
		change; \
		refused(msg, code, text); \
	} while (0)
	REFUSED(msg.struct_bytes = 0, "SK001", "msg: ");
	REFUSED(msg.topic = NULL, "SK001", "topic: must be 1 to 249 of [A-Za-z0-9._-]");
	REFUSED(msg.topic = "", "SK001", "topic: must be 1 to 249");
	REFUSED(msg.topic = "a b", "SK001", "topic: must be 1 to 249");
	REFUSED(msg.topic = long_text, "SK001", "topic: must be 1 to 249");
	REFUSED(msg.topic = "..", "SK001", "topic: must not be . or ..");
	REFUSED(msg.key = skald_slice_make(long_text, 32769), "SK007",
		"key: must be at most 32 KiB");
	REFUSED(msg.type = "", "SK001", "type: must be 1 to 255 bytes");
	REFUSED(msg.type = long_text, "SK007", "type: must be 1 to 255 bytes");
	REFUSED(msg.type = "\xff", "SK001", "type: must be UTF-8");
	REFUSED(msg.data = SKALD_SLICE_LIT("{\"a\":1,\"a\":2}"), "SK001",
		"data: must be JSON");
	REFUSED(msg.data = SKALD_SLICE_LIT("nonsense"), "SK001", "data: must be JSON");
	REFUSED(msg.content_type = "", "SK001", "content_type: must not be empty");
	REFUSED(msg.subject = long_text, "SK007", "subject: must be at most 255 bytes");
	REFUSED(msg.source = long_text, "SK007", "source: must be at most 255 bytes");
	REFUSED(msg.correlation_id = long_text, "SK007",
		"correlation_id: must be at most 255");
	REFUSED(msg.causation_id = long_text, "SK007",
		"causation_id: must be at most 255");
#undef REFUSED
	pg_exec(sql, "SELECT 1; COMMIT"); /* the transaction never noticed */
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"), before);
}

static void
refuses_data_over_16_mib(void)
{
	struct skald_msg msg = a_message();
	char *big = calloc(1, SKALD_DATA_BYTES_MAX + 1);

	pg_exec(sql, "BEGIN");
	msg.content_type = "text/plain";
	msg.data = skald_slice_make(big, SKALD_DATA_BYTES_MAX + 1);
	refused(msg, "SK007", "data: must be at most 16 MiB");
	pg_exec(sql, "ROLLBACK");
	free(big);
}

static void
headers_refused(struct skald_slice name, struct skald_slice value, const char *code,
	const char *text)
{
	struct skald_msg msg = a_message();
	struct skald_header own = { name, value };

	msg.headers = (struct skald_headers){ &own, 1 };
	refused(msg, code, text);
}

static void
refuses_headers_that_are_reserved_or_no_text(void)
{
	static struct skald_header many[SKALD_HEADERS_COUNT_MAX + 1];
	struct skald_msg msg = a_message();
	struct skald_slice v = SKALD_SLICE_LIT("v");

	pg_exec(sql, "BEGIN");
	headers_refused(
		SKALD_SLICE_LIT("ce_id"), v, "SK001", "headers.ce_id: is reserved");
	headers_refused(
		SKALD_SLICE_LIT("Content-Type"), v, "SK001", "headers.Content-Type: is");
	headers_refused(
		SKALD_SLICE_LIT("x-dlq-a"), v, "SK001", "headers.x-dlq-a: is reserved");
	headers_refused(
		SKALD_SLICE_LIT("x-replay-a"), v, "SK001", "headers.x-replay-a: is");
	headers_refused(SKALD_SLICE_LIT(""), v, "SK001", "headers: names must be");
	headers_refused(SKALD_SLICE_LIT("a b"), v, "SK001", "headers: names must be");
	headers_refused(SKALD_SLICE_LIT("a"), SKALD_SLICE_NULL, "SK001",
		"headers.a: must be a text");
	headers_refused(SKALD_SLICE_LIT("a"), SKALD_SLICE_LIT("\xff"), "SK001",
		"headers.a: must be a text");
	headers_refused(SKALD_SLICE_LIT("a"), skald_slice_make(long_text, 8193), "SK007",
		"headers: values together must be at most 8 KiB");
	many[0] = many[1] = (struct skald_header){ SKALD_SLICE_LIT("a"), v };
	msg.headers = (struct skald_headers){ many, 2 };
	refused(msg, "SK001", "headers.a: must be given once");
	msg.headers = (struct skald_headers){ many, SKALD_HEADERS_COUNT_MAX + 1 };
	refused(msg, "SK007", "headers: must be at most 100");
	pg_exec(sql, "ROLLBACK");
}

/* --- context ------------------------------------------------------------------------ */

#define TEXT(literal) \
	{ \
		literal, sizeof(literal) - 1 \
	}

static struct skald_context
a_context(void)
{
	static struct skald_header in[] = {
		{ TEXT("ce_id"), TEXT("01a1fc30-ff60-7781-8544-ad394d9ea951") },
		{ TEXT("ce_correlationid"), TEXT("business-7") },
		{ TEXT("traceparent"),
			TEXT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") },
		{ TEXT("tracestate"), TEXT("vendor=1") },
		{ TEXT("baggage"), TEXT("user=7") },
	};
	struct skald_context ctx;

	skald_context_read(
		&ctx, (struct skald_headers){ in, sizeof(in) / sizeof(in[0]) });
	ctx.handler = "shipping";
	return ctx;
}

static void
inherits_from_the_message_being_handled(void)
{
	struct skald_msg msg = a_message();
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_uuid first[2], again[2];

	for (int run = 0; run < 2; run++) {
		struct skald_context ctx = a_context();
		struct skald_context *previous = skald_context_enter(&ctx);

		pg_exec(sql, "BEGIN");
		for (int n = 0; n < 2; n++)
			CU_ASSERT_EQUAL(
				add(&msg, run ? &again[n] : &first[n], &err), SKALD_OK);
		pg_exec(sql, run ? "COMMIT" : "ROLLBACK");
		skald_context_leave(previous);
	}
	CHECK_TEXT(newest("concat_ws('|', correlation_id, causation_id, "
			  "left(traceparent, 36), "
			  "headers ->> 'tracestate', headers ->> 'baggage')"),
		"business-7|01a1fc30-ff60-7781-8544-ad394d9ea951|"
		"00-0af7651916cd43dd8448eb211c80319c-|vendor=1|user=7");
	/* another span of the same trace */
	CHECK_TEXT(newest("substr(traceparent, 37, 16) <> 'b7ad6b7169203331'"), "t");
	CU_ASSERT(memcmp(first, again, sizeof(first)) ==
		  0); /* a re-run emits the same ids */
	CU_ASSERT(memcmp(&first[0], &first[1], sizeof(first[0])) != 0);
}

static void
its_own_values_beat_the_context(void)
{
	struct skald_msg msg = a_message();
	struct skald_context ctx = a_context(), *previous = skald_context_enter(&ctx);
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_header own = { SKALD_SLICE_LIT("baggage"),
		SKALD_SLICE_LIT("mine=1") };

	msg.correlation_id = "other";
	msg.causation_id = "none";
	msg.traceparent = "00-11111111111111111111111111111111-2222222222222222-00";
	msg.headers = (struct skald_headers){ &own, 1 };
	pg_exec(sql, "BEGIN");
	CU_ASSERT_EQUAL(add(&msg, NULL, &err), SKALD_OK);
	pg_exec(sql, "COMMIT");
	skald_context_leave(previous);
	CHECK_TEXT(newest("concat_ws('|', correlation_id, causation_id, "
			  "left(traceparent, 36), "
			  "headers::text)"),
		"other|none|00-11111111111111111111111111111111-|{\"baggage\": "
		"\"mine=1\"}");
}

/* Baggage that would break the limit is left behind, not the message. */
static void
heavy_baggage_refuses_nothing(void)
{
	struct skald_msg msg = a_message();
	struct skald_context ctx = a_context(), *previous = skald_context_enter(&ctx);
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_header own = { SKALD_SLICE_LIT("x-a"), SKALD_SLICE_LIT("1") };

	ctx.baggage = skald_slice_make(long_text, 8192);
	msg.headers = (struct skald_headers){ &own, 1 };
	pg_exec(sql, "BEGIN");
	CU_ASSERT_EQUAL(add(&msg, NULL, &err), SKALD_OK);
	pg_exec(sql, "COMMIT");
	skald_context_leave(previous);
	CHECK_TEXT(newest("headers::text"),
		"{\"x-a\": \"1\", \"tracestate\": \"vendor=1\"}");
}

/* --- pipeline ----------------------------------------------------------------------- */

static void
queues_behind_the_callers_statements(void)
{
	struct skald_msg msg = a_message();
	struct skald_err err = SKALD_ERR_INIT;
	struct pg_conn *conn = skald_sql_conn(sql);
	int64_t before = pg_int(sql, "SELECT count(*) FROM skald.outbox");
	struct skald_uuid id;
	char text[SKALD_UUID_TEXT_BYTES];
	unsigned results = 0;
	PGresult *res;

	CU_ASSERT(PQenterPipelineMode(conn));
	CU_ASSERT(PQsendQueryParams(conn, "BEGIN", 0, NULL, NULL, NULL, NULL, 0));
	CU_ASSERT_EQUAL(skald_outbox_add(conn, &msg, &id, &err), SKALD_OK);
	msg.topic = "wrong topic"; /* refused at once: nothing is queued */
	CU_ASSERT_EQUAL(skald_outbox_add(conn, &msg, NULL, &err), SKALD_REJECT);
	CU_ASSERT(PQsendQueryParams(conn, "COMMIT", 0, NULL, NULL, NULL, NULL, 0));
	CU_ASSERT(PQpipelineSync(conn));
	for (bool is_synced = false; !is_synced;) {
		res = PQgetResult(conn);
		is_synced = PQresultStatus(res) == PGRES_PIPELINE_SYNC;
		results += PQresultStatus(res) == PGRES_TUPLES_OK;
		PQclear(res);
	}
	CU_ASSERT(PQexitPipelineMode(conn));
	CU_ASSERT_EQUAL(results, 1);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"), before + 1);
	skald_uuid_format(id, text);
	CHECK_TEXT(newest("message_id"), text);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(writes_what_it_is_given),
		CHECK(leaves_out_what_it_is_not_given),
		CHECK(keeps_bytes_that_are_not_json),
		CHECK(belongs_to_the_callers_transaction),
		CHECK(names_field_and_rule_and_writes_nothing),
		CHECK(refuses_data_over_16_mib),
		CHECK(refuses_headers_that_are_reserved_or_no_text),
		CHECK(inherits_from_the_message_being_handled),
		CHECK(its_own_values_beat_the_context),
		CHECK(heavy_baggage_refuses_nothing),
		CHECK(queues_behind_the_callers_statements),
	};
	int rc;

	sql = pg_open("add", SKALD_SQL_TOOL);
	rc = check_main("contract.outbox.add", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	return rc;
}
