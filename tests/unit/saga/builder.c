/* Definitions built in code: the same as parsed ones, and wrong use has the same faults. */
#include <stdio.h>
#include <stdlib.h>

#include "saga/def.h"
#include "tests/support/check.h"

struct told {
	unsigned count;
	char text[2048]; /* "pointer: rule; ..." */
};

static void
hear(const struct skald_saga_fault *fault, void *ctx)
{
	struct told *told = ctx;
	size_t used = strlen(told->text);

	(void)snprintf(told->text + used, sizeof(told->text) - used, "%s%s: %s",
		told->count++ ? "; " : "", fault->pointer, fault->rule);
	CU_ASSERT_PTR_NOT_NULL(fault->hint);
}

static struct skald_saga_def_builder *
begin(const char *name, int version)
{
	struct skald_saga_def_builder *b = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_saga_def_builder_create(&b, name, version, &err))
		abort();
	return b;
}

/* What it becomes; faults in told. */
static struct skald_saga_def *
end(struct skald_saga_def_builder *b, struct told *told)
{
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;

	memset(told, 0, sizeof(*told));
	rc = skald_saga_def_build(b, &def, hear, told, &err);
	CU_ASSERT_EQUAL(rc, told->count ? SKALD_REJECT : SKALD_OK);
	CU_ASSERT_EQUAL(def == NULL, told->count > 0);
	if (told->count) {
		CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "definition"));
	}
	return def;
}

static struct skald_saga_def *
file(const char *name)
{
	static char text[SKALD_SAGA_DEF_BYTES_MAX];
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	FILE *f = fopen(name, "r");
	size_t bytes = f ? fread(text, 1, sizeof(text), f) : 0;

	if (f)
		(void)fclose(f);
	if (skald_saga_def_create(
		    &def, skald_slice_make(text, bytes), NULL, NULL, &err)) {
		(void)fprintf(stderr, "\n%s: %s\n", name, err.text);
		abort();
	}
	return def;
}

/* examples/order-saga.json */
static struct skald_saga_def_builder *
order(void)
{
	struct skald_saga_def_builder *b = begin("order", 1);
	struct skald_saga_def_step reserve = SKALD_SAGA_DEF_STEP_INIT;
	struct skald_saga_def_step charge = SKALD_SAGA_DEF_STEP_INIT;
	struct skald_saga_def_step ship = SKALD_SAGA_DEF_STEP_INIT;

	skald_saga_def_builder_deadline(b, "15m");
	reserve.name = "reserve";
	reserve.kind = "compensatable";
	reserve.timeout = "10s";
	reserve.action = (struct skald_saga_def_command){ "inventory.commands",
		"inventory.reserve",
		"{\"order_id\":\"$.input.order_id\", \"sku\":\"$.input.sku\","
		" \"quantity\":\"$.input.quantity\"}",
		NULL };
	reserve.compensation = (struct skald_saga_def_command){ "inventory.commands",
		"inventory.release",
		"{\"reservation\":\"$.steps.reserve.reservation\","
		" \"order_id\":\"$.input.order_id\"}",
		NULL };
	skald_saga_def_builder_step(b, &reserve);
	charge.name = "charge";
	charge.kind = "pivot";
	charge.timeout = "10s";
	charge.action = (struct skald_saga_def_command){ "payment.commands",
		"payment.charge",
		"{\"order_id\":\"$.input.order_id\",\"amount\":\"$.input.amount\"}",
		NULL };
	skald_saga_def_builder_step(b, &charge);
	ship.name = "ship";
	ship.kind = "retriable";
	ship.timeout = "10s";
	ship.action =
		(struct skald_saga_def_command){ "shipping.commands", "shipping.ship",
			"{\"order_id\":\"$.input.order_id\",\"sku\":\"$.input.sku\","
			"\"quantity\":\"$.input.quantity\"}",
			NULL };
	skald_saga_def_builder_step(b, &ship);
	skald_saga_def_builder_output(b,
		"{\"charge\":\"$.steps.charge.charge\",\"tracking\":\"$.steps.ship."
		"tracking\"}");
	return b;
}

static void
built_is_parsed(void)
{
	struct skald_saga_def_builder *b = order();
	struct skald_saga_def *parsed = file(SAGA_EXAMPLES "/order-saga.json"), *again;
	struct skald_err err = SKALD_ERR_INIT;
	struct told told;
	struct skald_saga_def *built = end(b, &told);

	CHECK_TEXT(told.text, "");
	CHECK_TEXT(skald_saga_def_hash(built), skald_saga_def_hash(parsed));
	CU_ASSERT_EQUAL(memcmp(skald__saga_def_plan(built), skald__saga_def_plan(parsed),
				sizeof(struct saga_plan)),
		0);
	/* its text is canonical, and what is stored: parsed it is itself again */
	CU_ASSERT_EQUAL(skald_saga_def_create(
				&again, skald_saga_def_text(built), NULL, NULL, &err),
		SKALD_OK);
	CHECK_TEXT(skald_saga_def_hash(again), skald_saga_def_hash(built));
	CU_ASSERT_EQUAL(strncmp(skald_saga_def_text(built).data, "{\"deadline\":\"15m\",",
				strlen("{\"deadline\":\"15m\",")),
		0);
	skald_saga_def_destroy(again);
	skald_saga_def_destroy(parsed);
	skald_saga_def_destroy(built);
	skald_saga_def_builder_destroy(b);
}

/* Each member that a step may have. */
static void
every_member_has_its_place(void)
{
	struct skald_saga_def_builder *b = begin("order", 1);
	struct skald_saga_def *parsed = file(SAGA_FILES "/right/order.json"), *built;
	struct skald_saga_def_step reserve = SKALD_SAGA_DEF_STEP_INIT;
	struct skald_saga_def_step charge = SKALD_SAGA_DEF_STEP_INIT;
	struct skald_saga_def_step ship = SKALD_SAGA_DEF_STEP_INIT;
	struct told told;

	skald_saga_def_builder_deadline(b, "15m");
	reserve.name = "reserve";
	reserve.kind = "compensatable";
	reserve.timeout = "10s";
	reserve.action.topic = reserve.compensation.topic = "inventory.commands";
	reserve.action.type = "inventory.reserve";
	reserve.action.data =
		"{\"sku\":\"$.input.sku\",\"quantity\":\"$.input.quantity\"}";
	reserve.compensation.type = "inventory.release";
	reserve.compensation.data = "{\"reservation\":\"$.steps.reserve.reservation\"}";
	reserve.retry = (struct skald_saga_def_retry){ 5, "200ms", "30s" };
	reserve.compensation_retry = (struct skald_saga_def_retry){ 20, "1s", "5m" };
	reserve.on_unknown = "retry";
	skald_saga_def_builder_step(b, &reserve);
	charge.name = "charge";
	charge.kind = "pivot";
	charge.action = (struct skald_saga_def_command){ "payment.commands",
		"payment.charge", "{\"amount\":\"$.input.amount\"}", "$.input.account" };
	skald_saga_def_builder_step(b, &charge);
	ship.name = "ship";
	ship.kind = "retriable";
	ship.action = (struct skald_saga_def_command){ "shipping.commands",
		"shipping.ship",
		"{\"order\":\"$.input.id\",\"charge\":\"$.steps.charge.id\"}", NULL };
	skald_saga_def_builder_step(b, &ship);
	skald_saga_def_builder_output(b, "{\"tracking\":\"$.steps.ship.tracking\"}");
	built = end(b, &told);
	CHECK_TEXT(told.text, "");
	CHECK_TEXT(skald_saga_def_hash(built), skald_saga_def_hash(parsed));
	skald_saga_def_destroy(built);
	skald_saga_def_destroy(parsed);
	skald_saga_def_builder_destroy(b);
}

/* A step that is right but for what the row changes. */
static struct skald_saga_def_step
sound(const char *name)
{
	struct skald_saga_def_step step = SKALD_SAGA_DEF_STEP_INIT;

	step.name = name;
	step.action.topic = "t";
	step.action.type = "y";
	step.has_nothing_to_undo = true;
	return step;
}

#define WRONG(change, faults) \
	do { \
		struct skald_saga_def_builder *b = begin("s", 1); \
		struct skald_saga_def_step step = sound("a"), other = sound("b"); \
		struct told told; \
\
		(void)other; \
		change; \
		skald_saga_def_builder_step(b, &step); \
		skald_saga_def_destroy(end(b, &told)); \
		CHECK_TEXT(told.text, faults); \
		skald_saga_def_builder_destroy(b); \
	} while (0)

static void
wrong_use_has_the_validators_faults(void)
{
	WRONG((void)0, "");
	WRONG(step.struct_bytes = 0; skald_saga_def_builder_step(b, &other),
		"/steps/1: a step begins as SKALD_SAGA_DEF_STEP_INIT");
	WRONG(step.name = NULL, "/steps/0/name: a needed member is missing");
	WRONG(step.name = "A b", "/steps/0/name: a name is [a-z][a-z0-9-]{0,62}");
	WRONG(step.kind = "sometimes",
		"/steps/0/kind: a kind is compensatable, pivot or retriable");
	WRONG(step.timeout = "soon",
		"/steps/0/timeout: a duration is a number with ms, s, m, h or d");
	WRONG(step.action = (struct skald_saga_def_command){ 0 },
		"/steps/0/action: a needed member is missing");
	WRONG(step.action.topic = NULL,
		"/steps/0/action/topic: a needed member is missing");
	WRONG(step.has_nothing_to_undo = false,
		"/steps/0/compensation: a compensatable step needs a compensation");
	WRONG(step.compensation_retry.attempts = 3,
		"/steps/0/compensation_retry: compensation_retry goes with a "
		"compensation");
	WRONG(skald_saga_def_builder_step(b, &step),
		"/steps/1/name: a step's name is its own");
	WRONG(skald_saga_def_builder_deadline(b, "15"),
		"/deadline: a duration is a number with ms, s, m, h or d");
	/* said twice: no JSON object has a member twice */
	WRONG(step.compensation = step.action,
		": a definition is JSON text of at most 256 KiB");
	WRONG(step.action.type = "\xff",
		": a definition is JSON text of at most 256 KiB");
}

static void
what_is_no_json_is_told_beside_the_rest(void)
{
	WRONG(step.action.data = "{\"a\":}", "/steps/0/action/data: a template is JSON");
	WRONG(step.action.data = "{}, \"more\": 1",
		"/steps/0/action/data: a template is JSON");
	WRONG(other.action.data = ""; step.timeout = "1"; step.action.data = "nothing";
		skald_saga_def_builder_step(b, &other);
		skald_saga_def_builder_output(b, "{"),
		"/steps/0/action/data: a template is JSON; "
		"/steps/1/action/data: a template is JSON; "
		"/output: a template is JSON; "
		"/steps/1/timeout: a duration is a number with ms, s, m, h or d");
	/* set again it counts as if it had never been wrong */
	WRONG(skald_saga_def_builder_output(b, "{");
		skald_saga_def_builder_output(b, "{}"), "");
	WRONG(skald_saga_def_builder_output(b, "{");
		skald_saga_def_builder_output(b, NULL), "");
}

static void
nothing_built_is_nothing(void)
{
	struct skald_saga_def_builder *b = begin(NULL, 0);
	struct told told;

	skald_saga_def_destroy(end(b, &told));
	CHECK_TEXT(told.text, "/name: a needed member is missing; "
			      "/version: a whole number from 1 is expected; "
			      "/steps: a definition has 1 to 200 steps");
	skald_saga_def_builder_destroy(b);
	skald_saga_def_builder_destroy(NULL);
}

/* More may be added to what was built. */
static void
building_goes_on(void)
{
	struct skald_saga_def_builder *b = begin("s", 1);
	struct skald_saga_def_step one = sound("one"), two = sound("two");
	struct skald_saga_def *def;
	struct told told;

	skald_saga_def_builder_step(b, &one);
	def = end(b, &told);
	CU_ASSERT_EQUAL(skald_saga_def_step_count(def), 1);
	skald_saga_def_destroy(def);
	skald_saga_def_builder_step(b, &two);
	def = end(b, &told);
	CU_ASSERT_EQUAL(skald_saga_def_step_count(def), 2);
	skald_saga_def_destroy(def);
	skald_saga_def_builder_destroy(b);
}

/* Whatever is too large ends as what it is. */
static void
too_large_is_refused(void)
{
	size_t bytes = SKALD_SAGA_DEF_BYTES_MAX + 1000;
	char *text = malloc(bytes + 1);

	memset(text, '\1', bytes);
	text[bytes] = '\0';
	WRONG(step.action.type = text, ": a definition is JSON text of at most 256 KiB");
	WRONG(for (int i = 0; i < 5000; i++) skald_saga_def_builder_step(b, &step),
		": a definition is JSON text of at most 256 KiB");
	memset(text, '"', 1);
	memset(text + 1, 'x', bytes - 2);
	text[bytes - 1] = '"';
	WRONG(step.action.data = text, "/steps/0/action/data: a template is JSON");
	free(text);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(built_is_parsed),
		CHECK(every_member_has_its_place),
		CHECK(wrong_use_has_the_validators_faults),
		CHECK(what_is_no_json_is_told_beside_the_rest),
		CHECK(nothing_built_is_nothing),
		CHECK(building_goes_on),
		CHECK(too_large_is_refused),
	};

	return check_main("unit.saga.builder", cases, CHECK_COUNT(cases));
}
