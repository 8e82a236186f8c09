/*
 * unit.consumers.envelope - which records can be believed, and the exact form in
 * which a dead letter keeps headers.
 */
#include <stdlib.h>

#include "base/json.h"
#include "base/limits.h"
#include "consumers/own.h"
#include "tests/support/check.h"

/* constant, unlike SKALD_SLICE_LIT: these stand in tables */
#define LIT(text) \
	{ \
		(text), sizeof(text) - 1 \
	}
#define H(n, v) \
	{ \
		LIT(n), LIT(v) \
	}
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const struct skald_header whole[] = {
	H("ce_specversion", "1.0"),
	H("ce_id", "1"),
	H("ce_source", "/s"),
	H("ce_type", "t"),
	H("ce_stream", "00000000000000ab"),
	H("ce_sequence", "0000000a.000000000000000b.0000000c"),
	H("ce_expirytime", "2026-01-01T00:00:00Z"),
	H("app", "x"),
};

/* Reads `whole` with header `index` replaced (or left out: value NULL), `more` added. */
static enum skald_rc
read(size_t index, struct skald_slice value, const struct skald_header *more,
	struct skald__envelope *out, struct skald_err *err)
{
	static struct skald_header list[COUNT(whole) + 1];
	struct skald_kafka_record record = { .topic = "t" };
	size_t count = 0;

	for (size_t i = 0; i < COUNT(whole); i++) {
		if (i == index && !value.data)
			continue;
		list[count] = whole[i];
		if (i == index)
			list[count].value = value;
		count++;
	}
	if (more)
		list[count++] = *more;
	record.headers = (struct skald_headers){ list, count };
	return skald__envelope_read(&record, out, err);
}

static void
a_whole_one_is_read(void)
{
	struct skald__envelope e;
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(read(99, SKALD_SLICE_NULL, NULL, &e, &err), SKALD_OK);
	CU_ASSERT(skald_slice_is_text(e.type, "t"));
	CU_ASSERT_EQUAL(e.stream, 0xab);
	CU_ASSERT(e.position.epoch == 10 && e.position.point == 11 &&
		  e.position.ordinal == 12);
	CU_ASSERT_EQUAL(e.expires_at_us, 1767225600000000);
}

static void
what_cannot_be_believed_is_refused(void)
{
	static const struct {
		size_t index;
		struct skald_slice value;
		struct skald_header more;
		const char *code;
		const char *text;
	} rows[] = {
		{ 0, { NULL, 0 }, H("y", ""), "missing", "ce_specversion: is required" },
		{ 1, { NULL, 0 }, H("y", ""), "missing", "ce_id: is required" },
		{ 1, { "", 0 }, H("y", ""), "missing", "ce_id: is required" },
		{ 2, { NULL, 0 }, H("y", ""), "missing", "ce_source: is required" },
		{ 3, { NULL, 0 }, H("y", ""), "missing", "ce_type: is required" },
		{ 0, { "0.3", 3 }, H("y", ""), "invalid", "ce_specversion: must be 1.0" },
		{ 4, { "ab", 2 }, H("y", ""), "invalid",
			"ce_stream: must be 16 hex digits" },
		{ 5, { NULL, 0 }, H("y", ""), "missing",
			"ce_sequence: is required beside ce_stream" },
		{ 5, { "7", 1 }, H("y", ""), "invalid",
			"ce_sequence: must be a position (8.16.8 hex digits)" },
		{ 6, { "soon", 4 }, H("y", ""), "invalid",
			"ce_expirytime: must be an RFC 3339 time" },
		{ 99, { NULL, 0 }, H("ce_id", "2"), "double",
			"ce_id: given twice with different values" },
		{ 99, { NULL, 0 }, { LIT("ce_id"), { NULL, 0 } }, "double",
			"ce_id: given twice with different values" },
		{ 99, { NULL, 0 }, H("app2", "\xff\xfe"), "utf8", "app2: is not UTF-8" },
		{ 99, { NULL, 0 }, H("a\xff", "x"), "utf8",
			"headers: a name is not UTF-8" },
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		struct skald__envelope e;
		struct skald_err err = SKALD_ERR_INIT;

		CU_ASSERT_EQUAL(
			read(rows[i].index, rows[i].value, &rows[i].more, &e, &err),
			SKALD_REJECT);
		CHECK_TEXT(err.code, rows[i].code);
		CHECK_TEXT(err.text, rows[i].text);
	}
}

static void
harmless_oddities_pass(void)
{
	static const struct skald_header same = H("ce_id", "1"),
					 null = { LIT("n"), { NULL, 0 } },
					 app = H("app", "other");
	struct skald__envelope e;
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(read(99, SKALD_SLICE_NULL, &same, &e, &err), SKALD_OK);
	CU_ASSERT_EQUAL(read(99, SKALD_SLICE_NULL, &null, &e, &err), SKALD_OK);
	CU_ASSERT_EQUAL(read(99, SKALD_SLICE_NULL, &app, &e, &err), SKALD_OK);
	/* somebody else's ce_sequence is no position */
	CU_ASSERT_EQUAL(read(4, SKALD_SLICE_NULL, NULL, &e, &err), SKALD_OK);
	CU_ASSERT(!e.has_position);
}

static void
limits_are_named(void)
{
	static char big[40000];
	struct skald_header header = { LIT("big"), { big, sizeof(big) } };
	static struct skald_header many[200];
	struct skald_kafka_record record = { .topic = "t" };
	struct skald__envelope e;
	struct skald_err err = SKALD_ERR_INIT;

	memset(big, 'x', sizeof(big));
	CU_ASSERT_EQUAL(read(99, SKALD_SLICE_NULL, &header, &e, &err), SKALD_REJECT);
	CHECK_TEXT(err.text, "headers: at most 32 KiB together");
	CU_ASSERT_EQUAL(
		read(1, skald_slice_make(big, 256), NULL, &e, &err), SKALD_REJECT);
	CHECK_TEXT(err.text, "ce_id: at most 255 bytes");
	for (size_t i = 0; i < COUNT(many); i++)
		many[i] = (struct skald_header)H("a", "b");
	record.headers = (struct skald_headers){ many, COUNT(many) };
	CU_ASSERT_EQUAL(skald__envelope_read(&record, &e, &err), SKALD_REJECT);
	CHECK_TEXT(err.text, "headers: too many");
}

/* --- headers of a dead letter ------------------------------------------------------------------------ */

static const struct skald_header odd[] = {
	H("a", "1"),
	H("a", "2"),
	{ LIT("null"), { NULL, 0 } },
	H("empty", ""),
	{ { "", 0 }, LIT("no name") },
	H("bin", "\0\1\377"),
	H("quote", "\"\\\n"),
};

static void
packed_headers_come_back_as_they_were(void)
{
	struct skald_headers in = { odd, COUNT(odd) };
	struct skald_header *out = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_buf buf;
	size_t count = 0;

	skald_buf_init(&buf, 1 << 16);
	skald_headers_pack(in, &buf);
	CU_ASSERT_EQUAL(skald_headers_unpack(skald_buf_slice(&buf), &out, &count, &err),
		SKALD_OK);
	CU_ASSERT_EQUAL(count, COUNT(odd));
	for (size_t i = 0; i < count; i++) {
		CU_ASSERT(skald_slice_is_equal(out[i].name, odd[i].name));
		CU_ASSERT(skald_slice_is_equal(out[i].value, odd[i].value));
		CU_ASSERT_EQUAL(!out[i].value.data, !odd[i].value.data);
	}
	free(out);
	/* every cut is noticed or ends at a header's end */
	for (size_t bytes = 0; bytes < buf.bytes; bytes++) {
		char *copy = malloc(bytes + 1); /* exact: a sanitizer sees an overrun */
		enum skald_rc rc;

		if (!copy)
			break;
		memcpy(copy, buf.data, bytes);
		out = NULL;
		rc = skald_headers_unpack(
			skald_slice_make(copy, bytes), &out, &count, &err);
		CU_ASSERT(rc == SKALD_REJECT || (rc == SKALD_OK && count < COUNT(odd)));
		if (rc == SKALD_OK)
			free(out);
		free(copy);
	}
	skald_buf_done(&buf);
}

static void
readable_headers_are_json(void)
{
	struct skald_headers in = { odd, COUNT(odd) };
	struct skald_buf buf;

	skald_buf_init(&buf, 1 << 16);
	skald_headers_json(in, &buf);
	CHECK_TEXT(buf.data,
		"{\"a\":\"1\",\"a\":\"2\",\"null\":null,\"empty\":\"\",\"\":\"no name\","
		"\"bin\":{\"base64\":\"AAH/\"},\"quote\":\"\\\"\\\\\\n\"}");
	skald_buf_done(&buf);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_whole_one_is_read),
		CHECK(what_cannot_be_believed_is_refused),
		CHECK(harmless_oddities_pass),
		CHECK(limits_are_named),
		CHECK(packed_headers_come_back_as_they_were),
		CHECK(readable_headers_are_json),
	};

	return check_main("unit.consumers.envelope", cases, CHECK_COUNT(cases));
}
