#include "base/buf.h"
#include "sql/own.h"
#include "tests/support/check.h"

static void
quotes_every_text(void)
{
	struct skald_buf buf;

	skald_buf_init(&buf, 1000);
	skald_array_begin(&buf);
	skald_array_add_text(&buf, SKALD_SLICE_LIT("plain"));
	skald_array_add_text(&buf, SKALD_SLICE_LIT("a\"b\\c{d},e"));
	skald_array_add_text(&buf, SKALD_SLICE_LIT(""));
	skald_array_add_text(&buf, SKALD_SLICE_NULL);
	skald_array_add_text(&buf, SKALD_SLICE_LIT("NULL"));
	skald_array_end(&buf);
	CHECK_TEXT(buf.data, "{\"plain\",\"a\\\"b\\\\c{d},e\",\"\",NULL,\"NULL\"}");
	skald_buf_done(&buf);
}

static void
writes_bytes_as_hex(void)
{
	struct skald_buf buf;

	skald_buf_init(&buf, 1000);
	skald_array_begin(&buf);
	skald_array_add_bytea(&buf, skald_slice_make("\x00\xff\x10", 3));
	skald_array_add_bytea(&buf, SKALD_SLICE_NULL);
	skald_array_add_bytea(&buf, SKALD_SLICE_LIT(""));
	skald_array_end(&buf);
	CHECK_TEXT(buf.data, "{\"\\\\x00ff10\",NULL,\"\\\\x\"}");
	skald_buf_done(&buf);
}

static void
writes_numbers_and_nothing(void)
{
	struct skald_buf buf;

	skald_buf_init(&buf, 1000);
	skald_array_begin(&buf);
	skald_array_add_int(&buf, INT64_MIN);
	skald_array_add_int(&buf, 0);
	skald_array_add_int(&buf, INT64_MAX);
	skald_array_end(&buf);
	CHECK_TEXT(buf.data, "{-9223372036854775808,0,9223372036854775807}");
	skald_buf_clear(&buf);
	skald_array_begin(&buf);
	skald_array_end(&buf);
	CHECK_TEXT(buf.data, "{}");
	skald_buf_done(&buf);
}

static void
longer_than_a_chunk(void)
{
	static char bytes[3000];
	struct skald_buf buf;

	memset(bytes, 0xab, sizeof(bytes));
	skald_buf_init(&buf, 10000);
	skald_array_begin(&buf);
	skald_array_add_bytea(&buf, skald_slice_make(bytes, sizeof(bytes)));
	skald_array_end(&buf);
	CU_ASSERT_EQUAL(buf.bytes, 1 + 4 + 6000 + 1 + 1);
	CU_ASSERT_FALSE(buf.failed);
	for (size_t i = 5; i < 6005; i += 2)
		CU_ASSERT(memcmp(buf.data + i, "ab", 2) == 0);
	skald_buf_done(&buf);
}

static void
writes_binary_arrays(void)
{
	static const char texts[] = "\0\0\0\1\0\0\0\1\0\0\0\31\0\0\0\3\0\0\0\1"
				    "\0\0\0\2a\"\377\377\377\377\0\0\0\0";
	static const char numbers[] = "\0\0\0\1\0\0\0\0\0\0\0\24\0\0\0\2\0\0\0\1"
				      "\0\0\0\10\377\377\377\377\377\377\377\376"
				      "\0\0\0\10\0\0\0\1\0\0\0\0";
	static const char small[] = "\0\0\0\1\0\0\0\0\0\0\0\27\0\0\0\1\0\0\0\1"
				    "\0\0\0\4\377\377\377\377";
	static const char none[] = "\0\0\0\0\0\0\0\0\0\0\0\21";
	struct skald_param p;
	struct skald_buf buf;

	skald_buf_init(&buf, 1000);
	skald_array_binary_begin(&buf, SKALD_OID_TEXT);
	skald_array_binary_add(&buf, SKALD_SLICE_LIT("a\""));
	skald_array_binary_add(&buf, SKALD_SLICE_NULL);
	skald_array_binary_add(&buf, SKALD_SLICE_LIT(""));
	p = skald_array_binary_end(&buf);
	CU_ASSERT(p.is_binary && p.type_oid == 1009);
	CU_ASSERT(skald_slice_is_equal(p.value, SKALD_SLICE_LIT(texts)));
	skald_buf_clear(&buf);
	skald_array_binary_begin(&buf, SKALD_OID_INT8);
	skald_array_binary_add_int(&buf, -2);
	skald_array_binary_add_int(&buf, INT64_C(1) << 32);
	p = skald_array_binary_end(&buf);
	CU_ASSERT(p.type_oid == 1016);
	CU_ASSERT(skald_slice_is_equal(p.value, SKALD_SLICE_LIT(numbers)));
	skald_buf_clear(&buf);
	skald_array_binary_begin(&buf, SKALD_OID_INT4);
	skald_array_binary_add_int(&buf, -1);
	p = skald_array_binary_end(&buf);
	CU_ASSERT(p.type_oid == 1007);
	CU_ASSERT(skald_slice_is_equal(p.value, SKALD_SLICE_LIT(small)));
	skald_buf_clear(&buf);
	skald_array_binary_begin(&buf, SKALD_OID_BYTEA);
	p = skald_array_binary_end(&buf);
	CU_ASSERT(p.type_oid == 1001);
	CU_ASSERT(skald_slice_is_equal(p.value, SKALD_SLICE_LIT(none)));
	skald_buf_done(&buf);
}

/* Out of room: failed, and nothing is written beyond. */
static void
binary_arrays_have_a_limit(void)
{
	struct skald_buf buf;

	skald_buf_init(&buf, 30);
	skald_array_binary_begin(&buf, SKALD_OID_TEXT);
	skald_array_binary_add(&buf, SKALD_SLICE_LIT("123"));
	CU_ASSERT_FALSE(buf.failed);
	skald_array_binary_add(&buf, SKALD_SLICE_LIT("4"));
	CU_ASSERT_TRUE(buf.failed);
	skald_array_binary_add_int(&buf, 5);
	CU_ASSERT_TRUE(buf.failed);
	skald_buf_done(&buf);
	skald_buf_init(&buf, 10);
	skald_array_binary_begin(&buf, SKALD_OID_INT4);
	skald_array_binary_add_int(&buf, 5);
	CU_ASSERT_TRUE(buf.failed);
	skald_buf_done(&buf);
}

static void
fills_parameters(void)
{
	struct skald__params p;
	char number[24];
	struct skald_param params[] = { skald_param_text("x"), skald_param_text(NULL),
		skald_param_bytea(skald_slice_make("\x00z", 2)),
		skald_param_int(-7, number), SKALD_PARAM_NULL };

	skald__params_fill(&p, params, 5);
	CHECK_TEXT(p.values[0], "x");
	CU_ASSERT_PTR_NULL(p.values[1]);
	CU_ASSERT_EQUAL(p.lengths[2], 2);
	CU_ASSERT_EQUAL(p.formats[2], 1);
	CU_ASSERT_EQUAL(p.types[2], 17);
	CHECK_TEXT(p.values[3], "-7");
	CU_ASSERT_EQUAL(p.formats[3], 0);
	CU_ASSERT_PTR_NULL(p.values[4]);
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(quotes_every_text),
		CHECK(writes_bytes_as_hex), CHECK(writes_numbers_and_nothing),
		CHECK(longer_than_a_chunk), CHECK(fills_parameters),
		CHECK(writes_binary_arrays), CHECK(binary_arrays_have_a_limit) };

	return check_main("unit.sql.param", cases, CHECK_COUNT(cases));
}
