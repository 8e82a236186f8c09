/* The JSON scanner: what RFC 8259 allows, nothing else, byte by byte. */
#include "base/json.h"

#include <stdlib.h>
#include <time.h>

#include "base/limits.h"
#include "base/rand.h"
#include "tests/support/check.h"

/* Parse a copy that ends where its memory ends, so that a sanitizer sees a look beyond. */
static enum skald_rc
parse(struct skald_slice text, struct skald_err *err)
{
	char *copy = malloc(text.bytes ? text.bytes : 1);
	struct skald_json root;
	enum skald_rc rc;

	memcpy(copy, text.data, text.bytes);
	rc = skald_json_parse(skald_slice_make(copy, text.bytes), 64 << 20,
		SKALD_JSON_DEPTH_MAX, &root, err);
	free(copy);
	return rc;
}

static struct skald_json
parsed(const char *text)
{
	struct skald_json root = { 0 };
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_json_parse(
		    skald_slice_text(text), 1 << 20, SKALD_JSON_DEPTH_MAX, &root, &err)) {
		printf("\n    %s: %s", text, err.text);
		CU_FAIL("a good document is refused");
	}
	return root;
}

static void
accepts_the_grammar(void)
{
	static const char *const good[] = { "null", "true", "false", "0", "-0", "-1",
		"10.00", "1e5", "1E+5", "1.5e-07", "0.1", "0e0",
		"123456789012345678901234567890", "\"\"", "\"a\"", "[]", "{}", "[ ]",
		"{ }", " [ 1 , 2 ] ", "\t{\n\"a\"\r:1}\n", "[[],[[]]]", "[\"\",null]",
		"{\"a\":{},\"b\":[]}", "{\"\":0}", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
		"\"\\u00e9\\u20AC\"", "\"\\ud83d\\ude00\"", "\"\\uD800\\uDC00\"",
		"\"\\uDBFF\\uDFFF\"", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"",
		"\"\x7F\"", "\"\xEF\xBF\xBF\"", "\"\\uFFFF\"", "\"\\u0001\"",
		"{\"a\":1,\"A\":2}", "{\"a\":{\"a\":1}}", "[{\"a\":1},{\"a\":1}]",
		"{\"a\":[{\"b\":1}],\"b\":2}", "\"\\u002f\"", "\"\xED\x9F\xBF\"" };

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct skald_err err = SKALD_ERR_INIT;

		if (parse(skald_slice_text(good[i]), &err)) {
			printf("\n    %s: %s", good[i], err.text);
			CU_FAIL("refused");
		}
	}
}

static const struct {
	const char *text, *rule; /* part of the message */
} bad[] = {
	{ "", "byte 0: the text ends too early" },
	{ " ", "byte 1: the text ends too early" },
	{ "nul", "byte 0: a value expected" },
	{ "nulll", "byte 4: text after" },
	{ "True", "a value expected" },
	{ "truefalse", "byte 4: text after" },
	{ "NaN", "a value expected" },
	{ "Infinity", "a value expected" },
	{ "-Infinity", "needs digits" },
	{ "+1", "a value expected" },
	{ "01", "must not begin with 0" },
	{ "-01", "must not begin with 0" },
	{ "1.", "after its point" },
	{ ".5", "a value expected" },
	{ "-.5", "needs digits" },
	{ "1e", "in its exponent" },
	{ "1e+", "in its exponent" },
	{ "1.e5", "after its point" },
	{ "0x1", "text after" },
	{ "-", "needs digits" },
	{ "--1", "needs digits" },
	{ "1 2", "text after" },
	{ "1,", "text after" },
	{ "[", "too early" },
	{ "[1", "too early" },
	{ "[1,", "too early" },
	{ "[1,]", "byte 3: a value expected" },
	{ "[,1]", "a value expected" },
	{ "[1 2]", "a comma or ] expected" },
	{ "[1}", "a comma or ] expected" },
	{ "]", "a value expected" },
	{ "[]]", "text after" },
	{ "{", "too early" },
	{ "{1:1}", "in quotes or }" },
	{ "{a:1}", "in quotes or }" },
	{ "{'a':1}", "in quotes or }" },
	{ "{\"a\"}", "a colon expected" },
	{ "{\"a\" 1}", "a colon expected" },
	{ "{\"a\":}", "a value expected" },
	{ "{\"a\":1,}", "byte 7: a member name in quotes expected" },
	{ "{\"a\":1 \"b\":2}", "a comma or } expected" },
	{ "{\"a\":1]", "a comma or } expected" },
	{ "{,}", "in quotes or }" },
	{ "\"", "not closed" },
	{ "\"a", "not closed" },
	{ "\"\\", "ends inside" },
	{ "\"\\\"", "not closed" },
	{ "\"\\x41\"", "no such escape" },
	{ "\"\\'\"", "no such escape" },
	{ "\"\\u\"", "four hex digits" },
	{ "\"\\u12\"", "four hex digits" },
	{ "\"\\u12G4\"", "four hex digits" },
	{ "\"\\u0000\"", "\\u0000 is not allowed" },
	{ "\"\\ud83d\"", "unpaired surrogate" },
	{ "\"\\ud83dx\"", "unpaired surrogate" },
	{ "\"\\ud83d\\n\"", "unpaired surrogate" },
	{ "\"\\ud83d\\ud83d\"", "unpaired surrogate" },
	{ "\"\\ud83d\\u0041\"", "unpaired surrogate" },
	{ "\"\\ude00\"", "unpaired surrogate" },
	{ "\"\n\"", "control characters" },
	{ "\"\t\"", "control characters" },
	{ "\"\x1F\"", "control characters" },
	{ "\"\x80\"", "byte 1: invalid UTF-8" },
	{ "\"\xC0\x80\"", "invalid UTF-8" },
	{ "\"\xED\xA0\x80\"", "invalid UTF-8" },
	{ "\"\xF4\x90\x80\x80\"", "invalid UTF-8" },
	{ "\"\xE2\x82\"", "invalid UTF-8" },
	{ "\"\xE2\x82", "invalid UTF-8" },
	{ "{\"\xFF\":1}", "invalid UTF-8" },
	{ "\xEF\xBB\xBF{}", "a value expected" },
	{ "/* c */ 1", "a value expected" },
	{ "1 // c", "text after" },
	{ "\xC2\xA0"
	  "1",
		"a value expected" },
	{ "[\f1]", "a value expected" },
	{ "{\"a\":1,\"a\":2}", "byte 7: a member appears twice" },
	{ "{\"a\":1,\"\\u0061\":2}", "byte 7: a member appears twice" },
	{ "{\"\\/\":1,\"/\":2}", "twice" },
	{ "{\"\":1,\"\":2}", "twice" },
	{ "{\"\xF0\x9F\x98\x80\":1,\"\\ud83d\\ude00\":2}", "twice" },
	{ "[{\"x\":{\"b\":1,\"c\":2,\"b\":3}}]", "byte 19: a member appears twice" },
};

static void
refuses_everything_else(void)
{
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct skald_err err = SKALD_ERR_INIT;

		if (parse(skald_slice_text(bad[i].text), &err) != SKALD_REJECT ||
			!strstr(err.text, bad[i].rule)) {
			printf("\n    %s: %s", bad[i].text, err.text);
			CU_FAIL("accepted, or another rule");
		}
	}
	CU_ASSERT(parse(SKALD_SLICE_LIT("1\0"), NULL) == SKALD_REJECT);
	CU_ASSERT(parse(SKALD_SLICE_LIT("\"a\0b\""), NULL) == SKALD_REJECT);
	CU_ASSERT(skald_json_parse(SKALD_SLICE_NULL, 10, 1, NULL, NULL) == SKALD_REJECT);
}

static void
keeps_its_limits(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	char deep[2 * SKALD_JSON_DEPTH_MAX + 2];
	unsigned n = SKALD_JSON_DEPTH_MAX;

	memset(deep, '[', n);
	memset(deep + n, ']', n);
	CU_ASSERT(parse(skald_slice_make(deep, 2 * n), &err) == SKALD_OK);
	memset(deep, '[', n + 1);
	memset(deep + n + 1, ']', n + 1);
	CU_ASSERT(parse(skald_slice_make(deep, 2 * n + 2), &err) == SKALD_REJECT);
	CHECK_TEXT(err.code, "SK007");
	CHECK_TEXT(err.text, "json: byte 64: nested deeper than 64");
	CU_ASSERT(skald_json_parse(SKALD_SLICE_LIT("[]"), 10, 0, NULL, &err) ==
		  SKALD_REJECT);
	CU_ASSERT(skald_json_parse(SKALD_SLICE_LIT("1"), 10, 0, NULL, &err) == SKALD_OK);
	CU_ASSERT(skald_json_parse(SKALD_SLICE_LIT("[1]"), 2, 9, NULL, &err) ==
		  SKALD_REJECT);
	CHECK_TEXT(err.code, "SK007");
	CHECK_TEXT(err.text, "json: 3 bytes, at most 2 are allowed");
}

/* An object of count members; the one at `twice` gets the first one's name. */
static void
make_wide(struct skald_buf *out, unsigned count, unsigned twice, const char *prefix)
{
	skald_buf_clear(out);
	skald_buf_add_text(out, "{");
	for (unsigned i = 0; i < count; i++)
		skald_buf_addf(out, "%s\"%s%u\":%u", i ? "," : "", prefix,
			i == twice ? 0 : i, i);
	skald_buf_add_text(out, "}");
}

/* With a quadratic comparison this is 10^10 steps, far beyond the time limit. */
static void
finds_a_double_among_many_quickly(void)
{
	static const unsigned counts[] = { 2, 16, 17, 48, 49, 50, 1000, 200000 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_buf text;
	char expected[64];

	skald_buf_init(&text, 64 << 20);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		unsigned n = counts[i];

		make_wide(&text, n, n, "a_long_common_prefix_");
		CU_ASSERT(parse(skald_buf_slice(&text), &err) == SKALD_OK);
		make_wide(&text, n, n - 1, "\\u0061");
		CU_ASSERT(parse(skald_buf_slice(&text), &err) == SKALD_REJECT);
		snprintf(expected, sizeof(expected),
			"json: byte %zu: a member appears twice",
			(size_t)(strrchr(text.data, ',') + 1 - text.data));
		CHECK_TEXT(err.text, expected);
	}
	skald_buf_done(&text);
}

static void
refuses_every_beginning_of_a_document(void)
{
	static const char text[] = "{\"a\\u00e9\":[1.5e3,\"\\ud83d\\ude00\",true,null],"
				   "\"b\":{\"c\":false}}";

	for (size_t bytes = 0; bytes < sizeof(text) - 1; bytes++)
		CU_ASSERT(parse(skald_slice_make(text, bytes), NULL) == SKALD_REJECT);
	CU_ASSERT(parse(SKALD_SLICE_LIT(text), NULL) == SKALD_OK);
}

static void
views_the_document_without_its_white_space(void)
{
	struct skald_json root = parsed(" \n {\"a\" : [ 9007199254740993 , 10.00 ] } \t");
	struct skald_json list, item;
	struct skald_json_iter it;
	struct skald_slice name;

	CU_ASSERT(root.kind == SKALD_JSON_OBJECT);
	CU_ASSERT(skald_slice_is_text(
		root.text, "{\"a\" : [ 9007199254740993 , 10.00 ] }"));
	CU_ASSERT(skald_json_member(root, "a", &list));
	CU_ASSERT(skald_slice_is_text(list.text, "[ 9007199254740993 , 10.00 ]"));
	skald_json_iter_init(&it, list);
	CU_ASSERT(skald_json_next(&it, &name, &item) && !name.data);
	CU_ASSERT(skald_slice_is_text(item.text, "9007199254740993"));
	CU_ASSERT(skald_json_next(&it, NULL, &item));
	CU_ASSERT(skald_slice_is_text(item.text, "10.00"));
	CU_ASSERT(item.kind == SKALD_JSON_NUMBER);
	CU_ASSERT(!skald_json_next(&it, NULL, &item));
	CU_ASSERT(!skald_json_next(&it, NULL, &item));
}

static void
finds_members_by_what_their_name_means(void)
{
	struct skald_json root = parsed("{\"a\":{\"b\":0},\"\\u00e9\\\"\":1,\"\":2,"
					"\"bb\":\"}\\\"]\",\"b\":[],\"last\":null}");
	struct skald_json value = { 0 };

	CU_ASSERT(skald_json_member(root, "\xC3\xA9\"", &value));
	CU_ASSERT(skald_slice_is_text(value.text, "1"));
	CU_ASSERT(skald_json_member(root, "", &value));
	CU_ASSERT(skald_slice_is_text(value.text, "2"));
	CU_ASSERT(skald_json_member(root, "b", &value));
	CU_ASSERT(value.kind == SKALD_JSON_ARRAY);
	CU_ASSERT(skald_json_member(root, "last", &value));
	CU_ASSERT(value.kind == SKALD_JSON_NULL);
	CU_ASSERT(!skald_json_member(root, "c", &value));
	CU_ASSERT(!skald_json_member(root, "bbb", &value));
	CU_ASSERT(!skald_json_member(root, "las", &value));
	CU_ASSERT(!skald_json_member(parsed("[\"a\"]"), "a", &value));
	CU_ASSERT(!skald_json_member(parsed("{}"), "a", &value));
	CU_ASSERT(!skald_json_member(parsed("{ }"), "", &value));
}

static void
reads_texts_and_integers(void)
{
	char text[8];
	int64_t n = 7;

	CU_ASSERT(skald_json_text(parsed("\"a\\n\\u20ac\""), text, sizeof(text)));
	CHECK_TEXT(text, "a\n\xE2\x82\xAC");
	CU_ASSERT(skald_json_text(parsed("\"1234567\""), text, sizeof(text)));
	CU_ASSERT(!skald_json_text(parsed("\"12345678\""), text, sizeof(text)));
	CU_ASSERT(!skald_json_text(parsed("\"\""), text, 0));
	CU_ASSERT(!skald_json_text(parsed("1"), text, sizeof(text)));
	CU_ASSERT(skald_json_int64(parsed("-9223372036854775808"), &n) && n == INT64_MIN);
	CU_ASSERT(!skald_json_int64(parsed("9223372036854775808"), &n));
	CU_ASSERT(!skald_json_int64(parsed("1.0"), &n));
	CU_ASSERT(!skald_json_int64(parsed("1e2"), &n));
	CU_ASSERT(!skald_json_int64(parsed("\"1\""), &n));
	CU_ASSERT(n == INT64_MIN);
}

static void
writes_what_it_reads(void)
{
	struct skald_buf out;

	skald_buf_init(&out, 4096);
	skald_buf_add_text(&out, "{");
	skald_json_add_member(&out, "a\"b", SKALD_SLICE_LIT("x\n\x01\\\"/\x7F\xC3\xA9"));
	skald_json_add_member(&out, "null", SKALD_SLICE_NULL);
	skald_json_add_member(&out, "empty", SKALD_SLICE_LIT(""));
	skald_json_add_member(&out, "bad", SKALD_SLICE_LIT("a\xFF\0\xE2\x82z"));
	skald_json_add_member_int(&out, "n", INT64_MIN);
	skald_json_add_name(&out, "o");
	skald_buf_add_text(&out, "{");
	skald_json_add_member_int(&out, "brace", 1);
	skald_buf_add_text(&out, "}");
	skald_json_add_member(&out, "z{", SKALD_SLICE_LIT("{"));
	skald_json_add_member_int(&out, "end", 2);
	skald_buf_add_text(&out, "}");
	CHECK_TEXT(out.data,
		"{\"a\\\"b\":\"x\\n\\u0001\\\\\\\"/"
		"\x7F\xC3\xA9\",\"null\":null,\"empty\":\"\","
		"\"bad\":\"a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz\","
		"\"n\":-9223372036854775808,\"o\":{\"brace\":1},\"z{\":\"{\",\"end\":2}");
	parsed(out.data);
	skald_buf_done(&out);
}

/* --- random documents ------------------------------------------------------------------- */

static void
make_string(struct skald_rand *r, struct skald_buf *out, const char *unique)
{
	static const char *const parts[] = { "a", "\\n", "\\u00e9", "\xC3\xA9", "{", "}",
		"[", "]", ",", ":", "\\\"", "\\\\", "\\ud83d\\ude00", "\xF0\x9F\x98\x80",
		" ", "\\/" };

	skald_buf_addf(out, "\"%s", unique);
	for (uint64_t n = skald_rand_below(r, 5); n; n--)
		skald_buf_add_text(out, parts[skald_rand_below(r, 16)]);
	skald_buf_add_text(out, "\"");
}

static void
make_space(struct skald_rand *r, struct skald_buf *out)
{
	static const char *const spaces[] = { "", "", "", " ", "\n", "\t \r" };

	skald_buf_add_text(out, spaces[skald_rand_below(r, 6)]);
}

/* A document of any shape; its compact form without white space goes to compact. */
static void
make_value(struct skald_rand *r, struct skald_buf *out, struct skald_buf *compact,
	unsigned depth)
{
	static const char *const scalars[] = { "null", "true", "false", "0", "-1.50e+3",
		"12345678901234567890" };
	uint64_t kind = skald_rand_below(r, depth ? 9 : 7);
	size_t before;
	char unique[16];

	make_space(r, out);
	if (kind < 6) {
		skald_buf_add_text(out, scalars[kind]);
		skald_buf_add_text(compact, scalars[kind]);
	} else if (kind == 6) {
		before = out->bytes;
		make_string(r, out, "");
		skald_buf_add(compact, out->data + before, out->bytes - before);
	} else {
		bool is_object = kind == 8;
		uint64_t count = skald_rand_below(r, 5);

		skald_buf_add_text(out, is_object ? "{" : "[");
		skald_buf_add_text(compact, is_object ? "{" : "[");
		for (uint64_t i = 0; i < count; i++) {
			if (i) {
				skald_buf_add_text(out, ",");
				skald_buf_add_text(compact, ",");
			}
			if (is_object) {
				make_space(r, out);
				before = out->bytes;
				snprintf(unique, sizeof(unique), "%u-", (unsigned)i);
				make_string(r, out, unique);
				skald_buf_add(
					compact, out->data + before, out->bytes - before);
				make_space(r, out);
				skald_buf_add_text(out, ":");
				skald_buf_add_text(compact, ":");
			}
			make_value(r, out, compact, depth - 1);
		}
		make_space(r, out);
		skald_buf_add_text(out, is_object ? "}" : "]");
		skald_buf_add_text(compact, is_object ? "}" : "]");
	}
	make_space(r, out);
}

/* The same, seen through the iterator. */
static void
render(struct skald_json value, struct skald_buf *out)
{
	struct skald_json_iter it;
	struct skald_json item;
	struct skald_slice name;
	bool is_object = value.kind == SKALD_JSON_OBJECT, any = false;

	if (!is_object && value.kind != SKALD_JSON_ARRAY) {
		skald_buf_add_slice(out, value.text);
		return;
	}
	skald_buf_add_text(out, is_object ? "{" : "[");
	skald_json_iter_init(&it, value);
	for (; skald_json_next(&it, &name, &item); any = true) {
		skald_buf_add_text(out, any ? "," : "");
		if (is_object)
			skald_buf_addf(out, "\"%.*s\":", (int)name.bytes, name.data);
		render(item, out);
	}
	skald_buf_add_text(out, is_object ? "}" : "]");
}

static void
renders_random_documents_byte_by_byte(void)
{
	const char *text = getenv("SKALD_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	struct skald_buf document, compact, seen;
	struct skald_rand r;

	printf(" SKALD_SEED=%llu ", (unsigned long long)seed);
	skald_rand_seed(&r, seed);
	skald_buf_init(&document, 1 << 20);
	skald_buf_init(&compact, 1 << 20);
	skald_buf_init(&seen, 1 << 20);
	for (int i = 0; i < 3000; i++) {
		struct skald_json root;

		skald_buf_clear(&document);
		skald_buf_clear(&compact);
		skald_buf_clear(&seen);
		make_value(&r, &document, &compact, 5);
		root = parsed(document.data);
		render(root, &seen);
		if (strcmp(seen.data, compact.data) != 0)
			CHECK_TEXT(seen.data, compact.data);
		/* A byte changed at random: refused or accepted, never beyond the end. */
		document.data[skald_rand_below(&r, document.bytes)] =
			(char)skald_rand_below(&r, 256);
		(void)!parse(skald_buf_slice(&document), NULL);
	}
	skald_buf_done(&document);
	skald_buf_done(&compact);
	skald_buf_done(&seen);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(accepts_the_grammar),
		CHECK(refuses_everything_else),
		CHECK(keeps_its_limits),
		CHECK(finds_a_double_among_many_quickly),
		CHECK(refuses_every_beginning_of_a_document),
		CHECK(views_the_document_without_its_white_space),
		CHECK(finds_members_by_what_their_name_means),
		CHECK(reads_texts_and_integers),
		CHECK(writes_what_it_reads),
		CHECK(renders_random_documents_byte_by_byte),
	};

	return check_main("unit.base.json", cases, CHECK_COUNT(cases));
}
