/* Paths and templates: what they are, where they lead, what they render. */
#include "saga/path.h"

#include <stdlib.h>

#include "saga/def.h"
#include "tests/support/check.h"

#define INPUT \
	"{\"id\":9007199254740993,\"amount\":10.00,\"e\":1E+2,\"none\":null," \
	"\"x\":[{\"a b\":{\"c\":\"deep\"}},[1,2 , " \
	"3]],\"k\\u0065y\":\"caf\\u00e9\",\"\":0," \
	"\"empty\":\"\",\"t\":true}"

static struct skald_slice step_data[2];

static struct saga_data
data_at_hand(void)
{
	step_data[0] = SKALD_SLICE_LIT(" {\"reservation\":\"r-1\",\"n\":1.50} ");
	step_data[1] = SKALD_SLICE_NULL;
	return (struct saga_data){ .input = SKALD_SLICE_LIT(INPUT),
		.steps = step_data,
		.step_count = 2,
		.id = SKALD_SLICE_LIT("0198-id"),
		.key = SKALD_SLICE_LIT("a \"key\""),
		.correlation_id = SKALD_SLICE_LIT("c-1"),
		.run = 3 };
}

/* Two steps, "one" and "two"; the data belongs to the action of "two". */
static struct skald_saga_def *
make(const char *data, const char *key)
{
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	char text[4096];

	snprintf(text, sizeof(text),
		"{\"name\":\"s\",\"version\":1,\"steps\":[{\"name\":\"one\","
		"\"compensation\":null,\"action\":{\"topic\":\"t\",\"type\":\"y\"}},"
		"{\"name\":\"two\",\"compensation\":{\"topic\":\"t\",\"type\":\"y\","
		"\"data\":%s},\"action\":{\"topic\":\"t\",\"type\":\"y\",\"data\":%s%s%s%"
		"s}}],"
		"\"output\":{\"x\":\"$.steps.two.x\"}}",
		data, data, key ? ",\"key\":\"" : "", key ? key : "", key ? "\"" : "");
	if (skald_saga_def_create(&def, skald_slice_text(text), NULL, NULL, &err))
		printf("\n    %s: %s", data, err.text);
	CU_ASSERT_PTR_NOT_NULL(def);
	return def;
}

static enum saga_render
render(const char *data, enum saga_op op, struct skald_buf *out, char missing[64])
{
	struct skald_saga_def *def = make(data, NULL);
	struct saga_data at_hand = data_at_hand();
	const char *path = "";
	enum saga_render result = SAGA_RENDER_NO_MEMORY;

	skald_buf_init(out, SKALD_SAGA_DATA_BYTES_MAX);
	if (def)
		result = skald__saga_def_render(def, 1, op, &at_hand, out, &path);
	if (missing)
		snprintf(missing, 64, "%s", path);
	skald_saga_def_destroy(def);
	return result;
}

static const struct row {
	const char *data, *expected; /* NULL: data_missing */
} table[] = {
	{ "{}", "{}" },
	{ "{\"id\":\"$.input.id\",\"amount\":\"$.input.amount\"}",
		"{\"id\":9007199254740993,\"amount\":10.00}" },
	{ "[ 10.00, 9007199254740993 , 1e400 ]", "[ 10.00, 9007199254740993 , 1e400 ]" },
	{ "\"$.input.e\"", "1E+2" },
	{ "\"$.input.none\"", "null" }, /* there, and null */
	{ "\"$.input.x[0]['a b'].c\"", "\"deep\"" },
	{ "\"$.input['x'][1][2]\"", "3" },
	{ "\"$.input.x[1]\"", "[1,2 , 3]" },
	{ "\"$.input.x[1][3]\"", NULL },
	{ "\"$.input.x.c\"", NULL }, /* a member of a list */
	{ "\"$.input[0]\"", NULL }, /* an element of an object */
	{ "\"$.input.id.x\"", NULL }, /* a member of a number */
	{ "\"$.input.key\"", "\"caf\\u00e9\"" },
	{ "\"$.input['']\"", "0" },
	{ "\"$.input.nowhere\"", NULL },
	{ "\"$?.input.nowhere\"", "null" },
	{ "{\"a\":\"$?.input.nowhere.at.all\",\"b\":\"$?.input.t\"}",
		"{\"a\":null,\"b\":true}" },
	{ "\"$.steps.one.reservation\"", "\"r-1\"" },
	{ "\"$.steps['one']\"", "{\"reservation\":\"r-1\",\"n\":1.50}" },
	{ "[\"$.saga.id\",\"$.saga.key\",\"$.saga.correlation_id\",\"$.saga.run\"]",
		"[\"0198-id\",\"a \\\"key\\\"\",\"c-1\",3]" },
	{ "[\"$$.input.id\",\"$$?.x\",\"$\",\"$5\",\"$$\",\"a $.input\",\"$?\"]",
		"[\"$.input.id\",\"$?.x\",\"$\",\"$5\",\"$$\",\"a $.input\",\"$?\"]" },
	{ "[\"\\u0024$.quote\\\"\",\"\\u0024.input.t\"]", "[\"$.quote\\\"\",true]" },
	{ "{\"$.input.id\":\"names are no paths\"}",
		"{\"$.input.id\":\"names are no paths\"}" },
};

static void
each_template_renders_as_expected(void)
{
	for (size_t i = 0; i < CHECK_COUNT(table); i++) {
		struct skald_buf out;
		enum saga_render result =
			render(table[i].data, SAGA_OP_ACTION, &out, NULL);

		CU_ASSERT_EQUAL(
			result, table[i].expected ? SAGA_RENDER_OK : SAGA_RENDER_MISSING);
		if (table[i].expected)
			CHECK_TEXT(out.data, table[i].expected);
		skald_buf_done(&out);
	}
}

static void
what_is_missing_is_named(void)
{
	struct skald_buf out;
	char missing[64];

	CU_ASSERT_EQUAL(render("{\"a\":\"$.input.t\",\"b\":[\"$.steps.one.nowhere\"]}",
				SAGA_OP_ACTION, &out, missing),
		SAGA_RENDER_MISSING);
	CHECK_TEXT(missing, "$.steps.one.nowhere");
	skald_buf_done(&out);
}

static void
in_a_compensation_every_path_is_optional(void)
{
	struct skald_buf out;

	CU_ASSERT_EQUAL(render("{\"a\":\"$.input.nowhere\",\"b\":\"$.input.t\"}",
				SAGA_OP_UNDO, &out, NULL),
		SAGA_RENDER_OK);
	CHECK_TEXT(out.data, "{\"a\":null,\"b\":true}");
	skald_buf_done(&out);
}

static void
a_step_without_data_leads_nowhere(void)
{
	struct skald_saga_def *def = make("{}", NULL);
	struct saga_data data = data_at_hand();
	struct skald_buf out;

	skald_buf_init(&out, 100);
	CU_ASSERT_EQUAL(skald__saga_def_render_output(def, &data, &out), SAGA_RENDER_OK);
	CHECK_TEXT(out.data, "{\"x\":null}");
	skald_buf_done(&out);
	skald_saga_def_destroy(def);
}

static void
what_is_rendered_is_bounded(void)
{
	struct skald_saga_def *def = make("[\"$.input\",\"$.input\"]", NULL);
	struct saga_data data = data_at_hand();
	struct skald_buf out;
	size_t bytes = 2 * strlen(INPUT) + 3;

	skald_buf_init(&out, bytes);
	CU_ASSERT_EQUAL(skald__saga_def_render(def, 1, SAGA_OP_ACTION, &data, &out, NULL),
		SAGA_RENDER_OK);
	CU_ASSERT_EQUAL(out.bytes, bytes);
	skald_buf_done(&out);
	for (size_t room = 1; room < bytes; room += 7) {
		skald_buf_init(&out, room);
		CU_ASSERT_EQUAL(
			skald__saga_def_render(def, 1, SAGA_OP_ACTION, &data, &out, NULL),
			SAGA_RENDER_TOO_LARGE);
		skald_buf_done(&out);
	}
	skald_saga_def_destroy(def);
}

static void
a_key_is_a_text_or_a_number(void)
{
	static const struct {
		const char *path, *expected;
	} keys[] = {
		{ "$.input.id", "9007199254740993" },
		{ "$.input.amount", "10.00" },
		{ "$.input.key", "caf\xC3\xA9" },
		{ "$.saga.key", "a \"key\"" },
		{ "$.steps.one.reservation", "r-1" },
		{ "$.input.empty", NULL },
		{ "$.input.none", NULL },
		{ "$.input.t", NULL },
		{ "$.input.x", NULL },
		{ "$.input.nowhere", NULL },
		{ "$?.input.nowhere", NULL },
	};

	for (size_t i = 0; i < CHECK_COUNT(keys); i++) {
		struct skald_saga_def *def = make("{}", keys[i].path);
		struct saga_data data = data_at_hand();
		struct skald_buf out;
		enum saga_render result;

		skald_buf_init(&out, 4096);
		result = skald__path_render_key(skald__saga_def_key(def, 1), &data, &out);
		CU_ASSERT_EQUAL(
			result, keys[i].expected ? SAGA_RENDER_OK : SAGA_RENDER_MISSING);
		if (keys[i].expected)
			CHECK_TEXT(out.data, keys[i].expected);
		skald_buf_done(&out);
		skald_saga_def_destroy(def);
	}
}

static void
a_key_has_at_most_255_bytes(void)
{
	static const size_t lengths[] = { 1, 255, 256, 1600, 100000 };
	struct skald_saga_def *def = make("{}", "$.input");
	struct saga_data data = data_at_hand();

	for (size_t i = 0; i < CHECK_COUNT(lengths); i++) {
		char *text = malloc(lengths[i] + 3);
		struct skald_buf out;

		memset(text, 'k', lengths[i] + 2);
		text[0] = text[lengths[i] + 1] = '"';
		data.input = skald_slice_make(text, lengths[i] + 2);
		skald_buf_init(&out, 4096);
		CU_ASSERT_EQUAL(
			skald__path_render_key(skald__saga_def_key(def, 1), &data, &out),
			lengths[i] <= 255 ? SAGA_RENDER_OK : SAGA_RENDER_MISSING);
		skald_buf_done(&out);
		free(text);
	}
	skald_saga_def_destroy(def);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(each_template_renders_as_expected),
		CHECK(what_is_missing_is_named),
		CHECK(in_a_compensation_every_path_is_optional),
		CHECK(a_step_without_data_leads_nowhere),
		CHECK(what_is_rendered_is_bounded),
		CHECK(a_key_is_a_text_or_a_number),
		CHECK(a_key_has_at_most_255_bytes),
	};

	return check_main("unit.saga.path", cases, CHECK_COUNT(cases));
}
