/*
 * The definition loader on any bytes. What it refuses has a fault and a reason; what
 * it takes holds together: its canonical text is a definition with the same hash,
 * its commands render or say what is missing, and the core can run it.
 */
#include "saga/def.h"

#include "base/assert.h"
#include "base/limits.h"
#include "tests/fuzz/fuzz.h"

static void
hear(const struct skald_saga_fault *fault, void *ctx)
{
	unsigned *count = ctx;

	SKALD_ASSERT(fault->rule[0] && fault->hint);
	SKALD_ASSERT(fault->pointer[0] == '\0' || fault->pointer[0] == '/');
	++*count;
}

static void
check_canonical(const struct skald_saga_def *def)
{
	struct skald_saga_def *again = NULL;
	struct skald_json root;
	struct skald_buf text;

	SKALD_ASSERT(skald_json_parse(skald_saga_def_text(def), SKALD_SAGA_DEF_BYTES_MAX,
			     SKALD_JSON_DEPTH_MAX, &root, NULL) == SKALD_OK);
	skald_buf_init(&text, SKALD_SAGA_DEF_BYTES_MAX);
	if (skald__json_canonical(root, &text)) { /* escapes may make it too long */
		SKALD_ASSERT(skald_saga_def_create(&again, skald_buf_slice(&text), NULL,
				     NULL, NULL) == SKALD_OK);
		SKALD_ASSERT(strcmp(skald_saga_def_hash(def),
				     skald_saga_def_hash(again)) == 0);
		skald_saga_def_destroy(again);
	}
	skald_buf_done(&text);
}

static void
check_command(const struct skald_saga_def *def, unsigned step, enum saga_op op)
{
	struct skald_slice steps[SAGA_STEPS_MAX];
	struct saga_data data = {
		.input = SKALD_SLICE_LIT("{\"sku\":1.50,\"x\":[{\"a b\":{}}]}"),
		.steps = steps,
		.step_count = step,
		.id = SKALD_SLICE_LIT("i"),
		.key = SKALD_SLICE_LIT("k"),
		.correlation_id = SKALD_SLICE_LIT("c"),
	};
	struct skald_buf out, key;
	struct skald_json root;
	const char *missing = NULL;
	enum saga_render result;

	if (!skald__saga_def_command(def, step, op))
		return;
	for (unsigned i = 0; i < step; i++)
		steps[i] = SKALD_SLICE_LIT("{\"reservation\":\"r\",\"id\":7}");
	skald_buf_init(&out, SKALD_SAGA_DATA_BYTES_MAX);
	skald_buf_init(&key, 1024);
	result = skald__saga_def_render(def, step, op, &data, &out, &missing);
	SKALD_ASSERT(
		result == SAGA_RENDER_MISSING
			? missing != NULL
			: result == SAGA_RENDER_OK || result == SAGA_RENDER_TOO_LARGE);
	SKALD_ASSERT(op == SAGA_OP_ACTION || result != SAGA_RENDER_MISSING);
	if (result == SAGA_RENDER_OK)
		SKALD_ASSERT(
			skald_json_parse(skald_buf_slice(&out), SKALD_SAGA_DATA_BYTES_MAX,
				SKALD_JSON_DEPTH_MAX, &root, NULL) == SKALD_OK);
	if (skald__saga_def_key(def, step) &&
		skald__path_render_key(skald__saga_def_key(def, step), &data, &key) ==
			SAGA_RENDER_OK)
		SKALD_ASSERT(key.bytes >= 1 && key.bytes <= SKALD_SAGA_KEY_BYTES_MAX);
	skald_buf_done(&key);
	skald_buf_done(&out);
}

/* All succeed: completed after one command a step. */
static void
check_run(const struct saga_plan *plan)
{
	static struct saga_core core;
	static struct saga_dos todo;
	struct saga_event ev = { .kind = SAGA_EV_START };

	skald__saga_init(&core, plan);
	for (unsigned i = 0; i <= plan->step_count; i++) {
		skald__saga_next(plan, &core, &ev, NULL, 1000, &todo);
		ev = (struct saga_event){ .kind = SAGA_EV_REPLY,
			.step = i < plan->step_count ? i : 0,
			.attempt = 1,
			.round = 1,
			.reply = SAGA_REPLY_SUCCESS };
	}
	SKALD_ASSERT(core.outcome == SAGA_OUTCOME_COMPLETED);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct skald_slice text = skald_slice_make(data ? (const void *)data : "", bytes);
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	unsigned faults = 0;
	enum skald_rc rc = skald_saga_def_create(&def, text, hear, &faults, &err);

	SKALD_ASSERT(rc == SKALD_OK || (rc == SKALD_REJECT && faults && err.text[0]));
	if (rc)
		return 0;
	SKALD_ASSERT(!faults);
	check_canonical(def);
	for (unsigned i = 0; i < skald_saga_def_step_count(def); i++) {
		check_command(def, i, SAGA_OP_ACTION);
		check_command(def, i, SAGA_OP_UNDO);
	}
	check_run(skald__saga_def_plan(def));
	skald_saga_def_destroy(def);
	return 0;
}
