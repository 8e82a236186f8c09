/*
 * The n-th allocation fails while a definition, right or wrong, is read and
 * rendered: RETRY and nothing leaks (a sanitizer looks); with memory it works again.
 * Linked with --wrap for malloc, calloc, realloc and strdup.
 */
#include "saga/def.h"

#include <stdlib.h>

#include "tests/support/torture.h"

#define DEF(compensation) \
	"{\"name\":\"s\",\"version\":1,\"steps\":[{\"name\":\"one\"" compensation \
	",\"action\":{\"topic\":\"t\",\"type\":\"y\",\"key\":\"$.input.k\",\"data\":" \
	"{\"a\":\"$.input.x['a']\",\"b\":\"$$.x\",\"c\":[1,\"\\u00e9\"]}}}]," \
	"\"output\":{\"o\":\"$.steps.one\"}}"

static void
hear(const struct skald_saga_fault *fault, void *ctx)
{
	(void)fault;
	++*(unsigned *)ctx;
}

static bool
read_right(void)
{
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = skald_saga_def_create(
		&def, skald_slice_text(DEF(",\"compensation\":null")), NULL, NULL, &err);
	bool is_good = has_failed ? rc == SKALD_RETRY && !def : rc == SKALD_OK && def;

	if (!is_good)
		printf("\n    rc %d: %s", rc, err.text);
	skald_saga_def_destroy(def);
	return is_good;
}

static bool
read_wrong(void)
{
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	unsigned faults = 0;
	enum skald_rc rc = skald_saga_def_create(
		&def, skald_slice_text(DEF(",\"color\":\"red\"")), hear, &faults, &err);

	return !def &&
	       (has_failed ? rc == SKALD_RETRY : rc == SKALD_REJECT && faults == 2);
}

static bool
build(void)
{
	struct skald_saga_def_step step = SKALD_SAGA_DEF_STEP_INIT;
	struct skald_saga_def_builder *b = NULL;
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = skald_saga_def_builder_create(&b, "s", 1, &err);
	bool is_good;

	step.name = "one";
	step.action.topic = "t";
	step.action.type = "y";
	step.action.data = "{\"a\":"; /* told, and its telling needs memory */
	step.has_nothing_to_undo = true;
	if (!rc) {
		skald_saga_def_builder_step(b, &step);
		rc = skald_saga_def_build(b, &def, NULL, NULL, &err);
	}
	is_good = !def && rc == (has_failed ? SKALD_RETRY : SKALD_REJECT);
	skald_saga_def_builder_destroy(b);
	b = NULL;
	if (!is_good || has_failed)
		return is_good;
	step.action.data = "{\"a\":\"$.input\"}";
	rc = skald_saga_def_builder_create(&b, "s", 1, &err);
	if (!rc) {
		skald_saga_def_builder_step(b, &step);
		skald_saga_def_builder_output(b, "{}");
		rc = skald_saga_def_build(b, &def, NULL, NULL, &err);
	}
	is_good = has_failed ? rc == SKALD_RETRY && !def : rc == SKALD_OK && def;
	skald_saga_def_destroy(def);
	skald_saga_def_builder_destroy(b);
	return is_good;
}

static void
a_built_definition(void)
{
	torture(build, 30);
}

static struct skald_saga_def *rendered;

static bool
render(void)
{
	struct saga_data data = { .input = SKALD_SLICE_LIT(
					  "{\"x\":{\"a\":1.0},\"k\":7}") };
	struct skald_buf out;
	enum saga_render result, key;
	bool is_good;

	skald_buf_init(&out, 1000);
	result = skald__saga_def_render(rendered, 0, SAGA_OP_ACTION, &data, &out, NULL);
	if (result == SAGA_RENDER_OK)
		CHECK_TEXT(out.data, "{\"a\":1.0,\"b\":\"$.x\",\"c\":[1,\"\\u00e9\"]}");
	skald_buf_clear(&out);
	key = skald__path_render_key(skald__saga_def_key(rendered, 0), &data, &out);
	is_good = has_failed ? result == SAGA_RENDER_NO_MEMORY ||
				       key == SAGA_RENDER_NO_MEMORY
			     : result == SAGA_RENDER_OK && key == SAGA_RENDER_OK;
	skald_buf_done(&out);
	return is_good;
}

static void
a_right_definition(void)
{
	torture(read_right, 20);
}

static void
a_wrong_definition(void)
{
	torture(read_wrong, 15);
}

static void
a_command(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_saga_def_create(&rendered,
		    skald_slice_text(DEF(",\"compensation\":null")), NULL, NULL, &err))
		abort();
	torture(render, 2);
	skald_saga_def_destroy(rendered);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_right_definition),
		CHECK(a_wrong_definition),
		CHECK(a_built_definition),
		CHECK(a_command),
	};

	return check_main("torture.saga.definition", cases, CHECK_COUNT(cases));
}
