/* Slices, buffers, UTF-8, positions, headers. */
#include "base/buf.h"
#include "base/headers.h"
#include "base/position.h"
#include "base/slice.h"

#include "tests/support/check.h"

static void
reads_whole_int64_only(void)
{
	static const struct {
		const char *text;
		bool ok;
		long long value;
	} rows[] = {
		{ "0", true, 0 },
		{ "-0", true, 0 },
		{ "9223372036854775807", true, 9223372036854775807LL },
		{ "9223372036854775808", false, 0 },
		{ "-9223372036854775808", true, -9223372036854775807LL - 1 },
		{ "-9223372036854775809", false, 0 },
		{ "99999999999999999999", false, 0 },
		{ "", false, 0 },
		{ "-", false, 0 },
		{ "+1", false, 0 },
		{ " 1", false, 0 },
		{ "1 ", false, 0 },
		{ "1.0", false, 0 },
		{ "0x1", false, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		long long value = 42;
		bool ok = skald_slice_int64(skald_slice_text(rows[i].text), &value);

		CU_ASSERT(ok == rows[i].ok);
		CU_ASSERT(value == (rows[i].ok ? rows[i].value : 42));
	}
}

static void
knows_utf8(void)
{
	static const char *const good[] = { "", "a", "\xC2\x80", "\xDF\xBF",
		"\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
		"\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "a\xE2\x82\xACz" };
	static const char *const bad[] = { "\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2",
		"\xC2\x41", "\xE0\x9F\xBF", "\xE0\x80\x80", "\xE2\x82", "\xED\xA0\x80",
		"\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98", "\xF4\x90\x80\x80",
		"\xF5\x80\x80\x80", "\xFE", "\xFF", "a\xE2\x82" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CU_ASSERT(skald_slice_is_utf8(skald_slice_text(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT(!skald_slice_is_utf8(skald_slice_text(bad[i])));
	CU_ASSERT(!skald_slice_is_utf8(SKALD_SLICE_LIT("a\0b")));
	CU_ASSERT(skald_slice_is_utf8(SKALD_SLICE_NULL));
}

/* Eight at a time or one by one: a bad byte is seen wherever it stands. */
static void
knows_utf8_at_every_place(void)
{
	static const char odd[] = { '\0', '\x80', '\xC3', '\xFF' };
	char text[24];

	for (size_t bytes = 1; bytes <= sizeof(text); bytes++)
		for (size_t at = 0; at < bytes; at++) {
			for (size_t k = 0; k < sizeof(odd); k++) {
				memset(text, 'a' + (int)k, sizeof(text));
				text[at] = odd[k];
				CU_ASSERT(!skald_slice_is_utf8(
					skald_slice_make(text, bytes)));
			}
			memset(text, '\x01', sizeof(text));
			text[at] = '\x7F';
			CU_ASSERT(skald_slice_is_utf8(skald_slice_make(text, bytes)));
			if (at + 1 < bytes) {
				memcpy(text + at, "\xC3\xA4", 2);
				CU_ASSERT(skald_slice_is_utf8(
					skald_slice_make(text, bytes)));
			}
		}
}

static void
copies_and_compares(void)
{
	char dst[4] = "zzz";

	CU_ASSERT(skald_slice_copy(SKALD_SLICE_LIT("abc"), dst, sizeof(dst)));
	CHECK_TEXT(dst, "abc");
	CU_ASSERT(!skald_slice_copy(SKALD_SLICE_LIT("abcd"), dst, sizeof(dst)));
	CHECK_TEXT(dst, "abc");
	CU_ASSERT(skald_slice_copy(SKALD_SLICE_NULL, dst, sizeof(dst)));
	CHECK_TEXT(dst, "");
	CU_ASSERT(!skald_slice_copy(SKALD_SLICE_NULL, dst, 0));
	CU_ASSERT(skald_slice_is_text(SKALD_SLICE_LIT(""), ""));
	CU_ASSERT(!skald_slice_is_text(SKALD_SLICE_NULL, ""));
	CU_ASSERT(!skald_slice_is_equal(SKALD_SLICE_LIT("ab"), SKALD_SLICE_LIT("a")));
}

static void
grows_up_to_its_limit(void)
{
	struct skald_buf buf;

	skald_buf_init(&buf, 100);
	for (int i = 0; i < 10; i++)
		skald_buf_addf(&buf, "%s%d", "123456789", i);
	CU_ASSERT(!buf.failed && buf.bytes == 100 && buf.data[100] == '\0');
	skald_buf_add_text(&buf, "x");
	CU_ASSERT(buf.failed && buf.bytes == 100);
	skald_buf_clear(&buf);
	CU_ASSERT(!buf.failed && buf.bytes == 0);
	CHECK_TEXT(buf.data, "");
	skald_buf_done(&buf);
	CU_ASSERT(buf.data == NULL && skald_buf_slice(&buf).data != NULL);
}

static void
leaves_no_holes_after_a_failure(void)
{
	struct skald_buf buf;

	skald_buf_init(&buf, 4);
	skald_buf_add_text(&buf, "ab");
	skald_buf_addf(&buf, "%s", "too long");
	skald_buf_add_text(&buf, "c");
	CU_ASSERT(buf.failed);
	CHECK_TEXT(buf.data, "ab");
	skald_buf_done(&buf);
	skald_buf_init(&buf, (size_t)-1);
	skald_buf_add_slice(&buf, SKALD_SLICE_LIT("abc"));
	CHECK_TEXT(buf.data, "abc");
	skald_buf_done(&buf);
}

static void
writes_positions_whose_text_order_is_their_order(void)
{
	static const struct skald_position sorted[] = { { 0, 0, 0 }, { 0, 0, 1 },
		{ 0, 0, UINT32_MAX }, { 0, 9, 0 }, { 0, 10, 0 }, { 0, UINT64_MAX, 0 },
		{ 1, 0, 0 }, { UINT32_MAX, UINT64_MAX, UINT32_MAX } };
	char a[SKALD_POSITION_TEXT_BYTES], b[SKALD_POSITION_TEXT_BYTES];
	struct skald_position back;

	skald_position_format((struct skald_position){ 0x1a, 0x2b, 0x3c }, a);
	CHECK_TEXT(a, "0000001a.000000000000002b.0000003c");
	for (size_t i = 0; i < sizeof(sorted) / sizeof(sorted[0]); i++)
		for (size_t j = 0; j < sizeof(sorted) / sizeof(sorted[0]); j++) {
			int order = skald_position_compare(sorted[i], sorted[j]);

			skald_position_format(sorted[i], a);
			skald_position_format(sorted[j], b);
			CU_ASSERT((order < 0) == (i < j) && (order == 0) == (i == j));
			CU_ASSERT((strcmp(a, b) < 0) == (order < 0));
			CU_ASSERT(skald_position_parse(skald_slice_text(a), &back));
			CU_ASSERT(skald_position_compare(back, sorted[i]) == 0);
		}
}

static void
refuses_positions_that_are_not_exact(void)
{
	static const char *const bad[] = { "", "0000001a.000000000000002b.0000003",
		"0000001a.000000000000002b.0000003c ",
		"0000001A.000000000000002b.0000003c",
		"0000001a-000000000000002b.0000003c",
		"0000001a.000000000000002b-0000003c",
		"0000001g.000000000000002b.0000003c",
		"0000001a.00000000000000 b.0000003c" };
	struct skald_position out;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT(!skald_position_parse(skald_slice_text(bad[i]), &out));
	CU_ASSERT(skald_stream_is_valid(SKALD_SLICE_LIT("0123456789abcdef")));
	CU_ASSERT(!skald_stream_is_valid(SKALD_SLICE_LIT("0123456789abcdeF")));
	CU_ASSERT(!skald_stream_is_valid(SKALD_SLICE_LIT("0123456789abcde")));
}

static void
takes_the_last_header_of_a_name(void)
{
	const struct skald_header items[] = {
		{ SKALD_SLICE_LIT("a"), SKALD_SLICE_LIT("1") },
		{ SKALD_SLICE_LIT("A"), SKALD_SLICE_LIT("2") },
		{ SKALD_SLICE_LIT("a"), SKALD_SLICE_LIT("3") },
		{ SKALD_SLICE_LIT("n"), SKALD_SLICE_NULL },
	};
	struct skald_headers headers = { items, 4 };

	CU_ASSERT(skald_slice_is_text(skald_headers_get(headers, "a"), "3"));
	CU_ASSERT(skald_slice_is_text(skald_headers_get(headers, "A"), "2"));
	CU_ASSERT(!skald_headers_get(headers, "b").data);
	CU_ASSERT(skald_headers_count(headers, "a") == 2);
	CU_ASSERT(skald_headers_count(headers, "n") == 1);
	CU_ASSERT(skald_headers_count((struct skald_headers){ NULL, 0 }, "a") == 0);
}

static void
knows_the_reserved_names(void)
{
	static const char *const reserved[] = { "ce_id", "ce_", "ce_anything",
		"x-dlq-reason", "x-replay-target-group", "content-type" };
	static const char *const free_names[] = { "", "ce", "cex", "x-dlq", "traceparent",
		"content-types", "tenant" };

	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
		CU_ASSERT(skald_header_is_reserved(skald_slice_text(reserved[i])));
	for (size_t i = 0; i < sizeof(free_names) / sizeof(free_names[0]); i++)
		CU_ASSERT(!skald_header_is_reserved(skald_slice_text(free_names[i])));
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(reads_whole_int64_only),
		CHECK(knows_utf8),
		CHECK(knows_utf8_at_every_place),
		CHECK(copies_and_compares),
		CHECK(grows_up_to_its_limit),
		CHECK(leaves_no_holes_after_a_failure),
		CHECK(writes_positions_whose_text_order_is_their_order),
		CHECK(refuses_positions_that_are_not_exact),
		CHECK(takes_the_last_header_of_a_name),
		CHECK(knows_the_reserved_names),
	};

	return check_main("unit.base.bytes", cases, CHECK_COUNT(cases));
}
