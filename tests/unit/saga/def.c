/*
 * Definitions: the corpus of wrong ones, each with exactly the faults it is told,
 * the right ones, and what is read out of them.
 */
#include <dirent.h>
#include <stdlib.h>

#include "saga/def.h"
#include "tests/support/check.h"

enum { FAULTS_MAX = 32, POINTER_BYTES = 128 };

static const struct row {
	const char *file, *pointer, *rule;
} wrong[] = {
	{ "empty", "", "a definition is JSON text of at most 256 KiB" },
	{ "no-json", "", "a definition is JSON text of at most 256 KiB" },
	{ "cut-off", "", "a definition is JSON text of at most 256 KiB" },
	{ "double-member", "", "a definition is JSON text of at most 256 KiB" },
	{ "double-member-escaped", "", "a definition is JSON text of at most 256 KiB" },
	{ "too-deep", "", "a definition is JSON text of at most 256 KiB" },
	{ "list", "", "an object is expected" },
	{ "nothing-in-it", "/name", "a needed member is missing" },
	{ "nothing-in-it", "/version", "a needed member is missing" },
	{ "nothing-in-it", "/steps", "a needed member is missing" },
	{ "unknown-member", "/color", "unknown member" },
	{ "unknown-member-escaped", "/a~1b~0c", "unknown member" },
	{ "name-capital", "/name", "a name is [a-z][a-z0-9-]{0,62}" },
	{ "name-digit", "/name", "a name is [a-z][a-z0-9-]{0,62}" },
	{ "name-empty", "/name", "a name is [a-z][a-z0-9-]{0,62}" },
	{ "name-long", "/name", "a name is [a-z][a-z0-9-]{0,62}" },
	{ "name-number", "/name", "a name is [a-z][a-z0-9-]{0,62}" },
	{ "version-zero", "/version", "a whole number from 1 is expected" },
	{ "version-text", "/version", "a whole number from 1 is expected" },
	{ "version-fraction", "/version", "a whole number from 1 is expected" },
	{ "version-huge", "/version", "a whole number from 1 is expected" },
	{ "deadline-number", "/deadline",
		"a duration is a number with ms, s, m, h or d" },
	{ "deadline-unit", "/deadline", "a duration is a number with ms, s, m, h or d" },
	{ "deadline-zero", "/deadline",
		"a duration is more than nothing and at most 3650d" },
	{ "deadline-bare-zero", "/deadline",
		"a duration is a number with ms, s, m, h or d" },
	{ "deadline-far", "/deadline",
		"a duration is more than nothing and at most 3650d" },
	{ "deadline-overflow", "/deadline",
		"a duration is a number with ms, s, m, h or d" },
	{ "steps-object", "/steps", "steps are a list" },
	{ "steps-none", "/steps", "a definition has 1 to 200 steps" },
	{ "steps-many", "/steps", "a definition has 1 to 200 steps" },
	{ "step-text", "/steps/0", "an object is expected" },
	{ "step-no-name", "/steps/1/name", "a needed member is missing" },
	{ "step-name-underscore", "/steps/1/name", "a name is [a-z][a-z0-9-]{0,62}" },
	{ "step-name-twice", "/steps/2/name", "a step's name is its own" },
	{ "step-unknown-member", "/steps/0/retries", "unknown member" },
	{ "step-no-action", "/steps/1/action", "a needed member is missing" },
	{ "kind-unknown", "/steps/0/kind",
		"a kind is compensatable, pivot or retriable" },
	{ "kind-null", "/steps/1/kind", "a kind is compensatable, pivot or retriable" },
	{ "no-compensation", "/steps/0/compensation",
		"a compensatable step needs a compensation" },
	{ "no-compensation", "/steps/0/compensation_retry",
		"compensation_retry goes with a compensation" },
	{ "no-compensation-default-kind", "/steps/0/compensation",
		"a compensatable step needs a compensation" },
	{ "compensation-retry-of-null", "/steps/0/compensation_retry",
		"compensation_retry goes with a compensation" },
	{ "two-pivots", "/steps/2/kind", "there is at most one pivot" },
	{ "pivot-compensation", "/steps/1/compensation",
		"only a compensatable step is compensated" },
	{ "retriable-compensation", "/steps/2/compensation",
		"only a compensatable step is compensated" },
	{ "compensatable-after-pivot", "/steps/2/kind",
		"steps after the pivot are retriable" },
	{ "default-kind-after-pivot", "/steps/2/kind",
		"steps after the pivot are retriable" },
	{ "default-kind-after-pivot", "/steps/2/compensation",
		"a compensatable step needs a compensation" },
	{ "retriable-before-pivot", "/steps/0/kind",
		"a retriable step comes after the pivot" },
	{ "retriable-without-pivot", "/steps/1/kind",
		"a retriable step comes after the pivot" },
	{ "unknown-compensate-pivot", "/steps/1/on_unknown",
		"only a compensatable step is compensated when unknown" },
	{ "unknown-compensate-retriable", "/steps/2/on_unknown",
		"only a compensatable step is compensated when unknown" },
	{ "unknown-word", "/steps/0/on_unknown",
		"on_unknown is retry, query or compensate" },
	{ "timeout-zero", "/steps/0/timeout",
		"a duration is more than nothing and at most 3650d" },
	{ "timeout-negative", "/steps/0/timeout",
		"a duration is a number with ms, s, m, h or d" },
	{ "timeout-object", "/steps/0/timeout",
		"a duration is a number with ms, s, m, h or d" },
	{ "attempts-zero", "/steps/0/retry/attempts",
		"a whole number from 1 is expected" },
	{ "attempts-many", "/steps/0/retry/attempts",
		"a whole number from 1 is expected" },
	{ "retry-number", "/steps/0/retry", "an object is expected" },
	{ "retry-unknown-member", "/steps/0/retry/attempt", "unknown member" },
	{ "backoff-order", "/steps/0/retry/max_backoff",
		"max_backoff is not less than backoff" },
	{ "backoff-text", "/steps/0/compensation_retry/backoff",
		"a duration is a number with ms, s, m, h or d" },
	{ "action-list", "/steps/1/action", "an object is expected" },
	{ "action-no-topic", "/steps/1/action/topic", "a needed member is missing" },
	{ "action-no-type", "/steps/1/action/type", "a needed member is missing" },
	{ "topic-space", "/steps/1/action/topic",
		"a topic has letters, digits, dots, _ and -" },
	{ "topic-dots", "/steps/1/action/topic",
		"a topic has letters, digits, dots, _ and -" },
	{ "topic-long", "/steps/1/action/topic",
		"a topic has letters, digits, dots, _ and -" },
	{ "type-empty", "/steps/1/action/type", "a type is a text" },
	{ "type-number", "/steps/1/action/type", "a type is a text" },
	{ "action-unknown-member", "/steps/1/action/headers", "unknown member" },
	{ "compensation-key", "/steps/0/compensation/key", "unknown member" },
	{ "compensation-text", "/steps/0/compensation", "an object is expected" },
	{ "key-literal", "/steps/1/action/key", "an action's key is a path" },
	{ "key-number", "/steps/1/action/key", "an action's key is a path" },
	{ "path-later-step", "/steps/0/action/data/a",
		"a path leads to a step that has run" },
	{ "path-own-action", "/steps/0/action/data/a/1",
		"a path leads to a step that has run" },
	{ "path-later-in-compensation", "/steps/0/compensation/data/a",
		"a path leads to a step that has run" },
	{ "path-unknown-step", "/steps/2/action/data",
		"a path leads to a step of this definition" },
	{ "path-unknown-step-in-output", "/output/x",
		"a path leads to a step of this definition" },
	{ "path-steps-alone", "/steps/2/action/data",
		"a path into steps names one of them: $.steps.NAME" },
	{ "path-steps-index", "/steps/2/action/data",
		"a path into steps names one of them: $.steps.NAME" },
	{ "path-unknown-root", "/steps/2/action/data",
		"a path begins with $.input, $.steps, $.signals or $.saga" },
	{ "path-saga-member", "/steps/2/action/data",
		"$.saga has id, key, correlation_id and run" },
	{ "path-saga-deeper", "/steps/2/action/data",
		"$.saga.id, key, correlation_id and run have no members" },
	{ "path-signal", "/steps/2/action/data", "no step waits for this signal" },
	{ "path-in-text", "/steps/2/action/data",
		"a path is the whole text: . or [ is expected" },
	{ "path-empty", "/steps/2/action/data",
		"in a path a name follows the dot: a letter or _, then letters, digits, "
		"_ and -" },
	{ "path-dot-at-end", "/steps/2/action/data",
		"in a path a name follows the dot: a letter or _, then letters, digits, "
		"_ and -" },
	{ "path-index-text", "/steps/2/action/data",
		"in a path brackets hold an index of at most 9 digits or a 'name'" },
	{ "path-index-negative", "/steps/2/action/data",
		"in a path brackets hold an index of at most 9 digits or a 'name'" },
	{ "path-quote-open", "/steps/2/action/data",
		"in a path a quoted name ends with ']" },
	{ "path-escaped-dollar", "/steps/2/action/data/order",
		"a path begins with $.input, $.steps, $.signals or $.saga" },
	{ "data-deep", "/steps/2/action/data/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0",
		"data is nested at most 16 deep" },
	{ "output-text", "/output", "output is an object" },
	{ "later-when", "/steps/1/when", "not in this release" },
	{ "later-query", "/steps/0/query", "not in this release" },
	{ "later-on-unknown-query", "/steps/0/on_unknown", "not in this release" },
	{ "later-parallel", "/steps/0/parallel", "not in this release" },
	{ "later-wait", "/steps/0/wait", "not in this release" },
	{ "later-sleep", "/steps/1/sleep", "not in this release" },
	{ "later-fail", "/steps/0/fail", "not in this release" },
	{ "later-fail", "/steps/0/when", "not in this release" },
	{ "later-saga", "/steps/3/saga", "not in this release" },
	{ "many-faults", "/colour", "unknown member" },
	{ "many-faults", "/name", "a name is [a-z][a-z0-9-]{0,62}" },
	{ "many-faults", "/version", "a whole number from 1 is expected" },
	{ "many-faults", "/steps/1/name", "a step's name is its own" },
	{ "many-faults", "/steps/0/action/type", "a needed member is missing" },
	{ "many-faults", "/steps/0/action/topic",
		"a topic has letters, digits, dots, _ and -" },
	{ "many-faults", "/steps/0/action/data",
		"a path begins with $.input, $.steps, $.signals or $.saga" },
	{ "many-faults", "/steps/0/compensation",
		"only a compensatable step is compensated" },
	{ "many-faults", "/steps/1/action", "a needed member is missing" },
	{ "many-faults", "/steps/1/kind", "steps after the pivot are retriable" },
	{ "many-faults", "/steps/1/timeout",
		"a duration is a number with ms, s, m, h or d" },
	{ "many-faults", "/steps/1/compensation",
		"a compensatable step needs a compensation" },
};

struct told {
	unsigned count;
	struct {
		char pointer[POINTER_BYTES];
		char rule[POINTER_BYTES];
	} faults[FAULTS_MAX];
};

static void
hear(const struct skald_saga_fault *fault, void *ctx)
{
	struct told *told = ctx;

	CU_ASSERT(told->count < FAULTS_MAX);
	if (told->count == FAULTS_MAX)
		return;
	snprintf(told->faults[told->count].pointer, POINTER_BYTES, "%s", fault->pointer);
	snprintf(told->faults[told->count].rule, POINTER_BYTES, "%s", fault->rule);
	CU_ASSERT_PTR_NOT_NULL(fault->hint);
	told->count++;
}

/* The file's text, to be freed. */
static char *
slurp(const char *path, size_t *bytes)
{
	FILE *file = fopen(path, "rb");
	char *text = malloc(SKALD_SAGA_DEF_BYTES_MAX + 2);

	*bytes = 0;
	if (!file || !text) {
		perror(path);
		abort();
	}
	*bytes = fread(text, 1, SKALD_SAGA_DEF_BYTES_MAX + 1, file);
	fclose(file);
	return text;
}

static enum skald_rc
load(struct skald_saga_def **def, const char *folder, const char *name, struct told *told,
	struct skald_err *err)
{
	char path[1024];
	char *text;
	size_t bytes;
	enum skald_rc rc;

	snprintf(path, sizeof(path), SAGA_FILES "/%s/%s.json", folder, name);
	text = slurp(path, &bytes);
	memset(told, 0, sizeof(*told));
	rc = skald_saga_def_create(def, skald_slice_make(text, bytes), hear, told, err);
	free(text);
	return rc;
}

static struct skald_saga_def *
load_right(const char *name)
{
	struct skald_saga_def *def = NULL;
	struct told told;
	struct skald_err err = SKALD_ERR_INIT;

	if (load(&def, "right", name, &told, &err) == SKALD_OK)
		return def;
	printf("\n    %s: %s", name, err.text);
	abort();
}

static struct skald_saga_def *
make(const char *text)
{
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_saga_def_create(&def, skald_slice_text(text), NULL, NULL, &err))
		printf("\n    %s", err.text);
	return def;
}

/* Each fault that the table names, and no other. */
static void
check_told(const char *file, const struct told *told)
{
	unsigned expected = 0;

	for (size_t i = 0; i < CHECK_COUNT(wrong); i++) {
		bool is_told = strcmp(wrong[i].file, file) != 0;

		if (is_told)
			continue;
		expected++;
		for (unsigned j = 0; j < told->count; j++)
			is_told |=
				strcmp(told->faults[j].pointer, wrong[i].pointer) == 0 &&
				strcmp(told->faults[j].rule, wrong[i].rule) == 0;
		if (!is_told)
			printf("\n    %s: not told: %s: %s", file, wrong[i].pointer,
				wrong[i].rule);
		CU_ASSERT(is_told);
	}
	if (told->count != expected || !expected)
		for (unsigned j = 0; j < told->count; j++)
			printf("\n    %s: told: %s: %s", file, told->faults[j].pointer,
				told->faults[j].rule);
	CU_ASSERT_EQUAL(told->count, expected);
	CU_ASSERT(expected > 0);
}

static void
each_wrong_one_is_told_where_and_why(void)
{
	DIR *folder = opendir(SAGA_FILES "/wrong");
	const struct dirent *entry;
	unsigned files = 0;

	while (folder && (entry = readdir(folder)) != NULL) {
		struct skald_saga_def *def = NULL;
		struct skald_err err = SKALD_ERR_INIT;
		struct told told;
		char name[256];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%.*s",
			(int)(strlen(entry->d_name) - strlen(".json")), entry->d_name);
		CU_ASSERT_EQUAL(load(&def, "wrong", name, &told, &err), SKALD_REJECT);
		CU_ASSERT_PTR_NULL(def);
		CU_ASSERT_STRING_EQUAL(err.code[0] ? "SK" : "", "SK");
		CU_ASSERT(err.text[0] != '\0');
		check_told(name, &told);
		files++;
	}
	if (folder)
		closedir(folder);
	CU_ASSERT(files >= 40);
}

static void
each_right_one_is_taken(void)
{
	static const char *const names[] = { "order", "smallest", "pivot-alone",
		"defaults", "retriable-only-after-first", "most-steps", "paths" };

	for (size_t i = 0; i < CHECK_COUNT(names); i++) {
		struct skald_saga_def *def = load_right(names[i]);

		CU_ASSERT_EQUAL(strlen(skald_saga_def_hash(def)), 40);
		CU_ASSERT(skald_saga_def_step_count(def) > 0);
		skald_saga_def_destroy(def);
	}
}

static void
the_plan_is_what_was_written(void)
{
	struct skald_saga_def *def = load_right("order");
	const struct saga_plan *plan = skald__saga_def_plan(def);

	CHECK_TEXT(skald_saga_def_name(def), "order");
	CU_ASSERT_EQUAL(skald_saga_def_version(def), 1);
	CU_ASSERT_EQUAL(plan->step_count, 3);
	CU_ASSERT_EQUAL(plan->pivot, 1);
	CU_ASSERT_EQUAL(plan->deadline_ms, 900000);
	CU_ASSERT_EQUAL(plan->steps[0].kind, SAGA_COMPENSATABLE);
	CU_ASSERT_EQUAL(plan->steps[0].timeout_ms, 10000);
	CU_ASSERT_TRUE(plan->steps[0].has_undo);
	CU_ASSERT_EQUAL(plan->steps[1].kind, SAGA_PIVOT);
	CU_ASSERT_FALSE(plan->steps[1].has_undo);
	CU_ASSERT_EQUAL(plan->steps[2].kind, SAGA_RETRIABLE);
	CU_ASSERT_TRUE(saga_set_has(&plan->steps[2].after, 1));
	CU_ASSERT_FALSE(saga_set_has(&plan->steps[2].after, 0));
	CU_ASSERT_TRUE(saga_set_has(&plan->steps[0].behind, 2));
	CU_ASSERT_EQUAL(skald_saga_def_step(def, SKALD_SLICE_LIT("ship")), 2);
	CU_ASSERT_EQUAL(skald_saga_def_step(def, SKALD_SLICE_LIT("shi")), -1);
	CHECK_TEXT(
		skald__saga_def_command(def, 0, SAGA_OP_UNDO)->type, "inventory.release");
	CU_ASSERT_PTR_NULL(skald__saga_def_command(def, 1, SAGA_OP_UNDO));
	CU_ASSERT_PTR_NOT_NULL(skald__saga_def_key(def, 1));
	CU_ASSERT_PTR_NULL(skald__saga_def_key(def, 0));
	skald_saga_def_destroy(def);
}

/* What no path leads to is not loaded. */
static void
it_knows_what_it_refers_to(void)
{
	struct skald_saga_def *def = load_right("order");

	CU_ASSERT_TRUE(skald__saga_def_refers_to_input(def));
	CU_ASSERT_TRUE(skald__saga_def_refers(def, 0)); /* its compensation */
	CU_ASSERT_TRUE(skald__saga_def_refers(def, 1)); /* ship */
	CU_ASSERT_TRUE(skald__saga_def_refers(def, 2)); /* output */
	skald_saga_def_destroy(def);
	def = make("{\"name\":\"s\",\"version\":1,\"steps\":["
		   "{\"name\":\"a\",\"compensation\":null,\"action\":{\"topic\":\"t\","
		   "\"type\":\"y\",\"data\":{\"x\":\"$$.steps.b\"}}},"
		   "{\"name\":\"b\",\"compensation\":null,\"action\":{\"topic\":\"t\","
		   "\"type\":\"y\",\"key\":\"$.steps.a.id\"}}]}");
	CU_ASSERT_FALSE(skald__saga_def_refers_to_input(def));
	CU_ASSERT_TRUE(skald__saga_def_refers(def, 0));
	CU_ASSERT_FALSE(skald__saga_def_refers(def, 1));
	skald_saga_def_destroy(def);
}

static void
defaults_are_those_of_the_protocol(void)
{
	struct skald_saga_def *def = load_right("defaults");
	const struct saga_plan *plan = skald__saga_def_plan(def);
	const struct saga_plan_step *s = &plan->steps[0];

	CU_ASSERT_EQUAL(plan->deadline_ms, 0);
	CU_ASSERT_EQUAL(s->timeout_ms, 30000);
	CU_ASSERT_EQUAL(s->retry.attempts, 5);
	CU_ASSERT_EQUAL(s->retry.backoff_ms, 200);
	CU_ASSERT_EQUAL(s->retry.backoff_max_ms, 30000);
	CU_ASSERT_EQUAL(s->undo_retry.attempts, 20);
	CU_ASSERT_EQUAL(s->undo_retry.backoff_ms, 1000);
	CU_ASSERT_EQUAL(s->undo_retry.backoff_max_ms, 300000);
	CU_ASSERT_EQUAL(s->on_unknown, SAGA_UNKNOWN_RETRY);
	CU_ASSERT_EQUAL(plan->steps[1].retry.attempts, 5); /* the pivot */
	CU_ASSERT_EQUAL(plan->steps[2].retry.attempts, 0); /* retriable: unlimited */
	skald_saga_def_destroy(def);
}

static bool
same_hash(const char *left, const char *right)
{
	struct skald_saga_def *a = make(left), *b = make(right);
	bool is_same =
		a && b && strcmp(skald_saga_def_hash(a), skald_saga_def_hash(b)) == 0;

	skald_saga_def_destroy(a);
	skald_saga_def_destroy(b);
	return is_same;
}

#define SMALL(data) \
	"{\"name\":\"s\",\"version\":1,\"steps\":[{\"name\":\"a\",\"compensation\":" \
	"null," \
	"\"action\":{\"topic\":\"t\",\"type\":\"y\",\"data\":" data "}}]}"

static void
the_hash_sees_content_and_not_layout(void)
{
	struct skald_saga_def *def = make(SMALL("{}"));

	/* sha1 of {"name":"s","steps":[{"action":{"data":{},"topic":"t",...: a stored hash
	   must mean the same in every release. */
	CHECK_TEXT(def ? skald_saga_def_hash(def) : NULL,
		"a26f5772f9098f66d94dfeb768255055f0de9562");
	skald_saga_def_destroy(def);
	CU_ASSERT(same_hash(SMALL("{\"a\":1,\"b\":[1, 2]}"),
		SMALL("{ \"b\" : [1,2],\n\t\"\\u0061\":1 }")));
	CU_ASSERT(same_hash(SMALL("\"\\u00e9\\/\""), SMALL("\"\xC3\xA9/\"")));
	CU_ASSERT_FALSE(same_hash(SMALL("{\"a\":1}"), SMALL("{\"a\":1.0}")));
	CU_ASSERT_FALSE(same_hash(SMALL("[1,2]"), SMALL("[2,1]")));
	CU_ASSERT_FALSE(same_hash(SMALL("\"a\""), SMALL("\"A\"")));
}

static void
too_large_is_refused_at_the_limit(void)
{
	size_t bytes = SKALD_SAGA_DEF_BYTES_MAX;
	const char *head = SMALL("{}");
	char *text = malloc(bytes + 1);
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	memset(text, ' ', bytes + 1);
	memcpy(text, head, strlen(head));
	CU_ASSERT_EQUAL(skald_saga_def_create(
				&def, skald_slice_make(text, bytes), NULL, NULL, &err),
		SKALD_OK);
	skald_saga_def_destroy(def);
	def = NULL;
	CU_ASSERT_EQUAL(skald_saga_def_create(&def, skald_slice_make(text, bytes + 1),
				NULL, NULL, &err),
		SKALD_REJECT);
	CHECK_TEXT(err.code, "SK007");
	free(text);
}

/* A fault a step, 200 steps, 10 faults each: told up to a limit, in bounded time. */
static void
no_end_of_faults_ends(void)
{
	struct skald_buf text;
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	skald_buf_init(&text, SKALD_SAGA_DEF_BYTES_MAX);
	skald_buf_add_text(&text, "{\"steps\":[");
	for (int i = 0; i < 200; i++)
		skald_buf_addf(&text,
			"%s{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,"
			"\"name\":\"-\",\"kind\":\"\"}",
			i ? "," : "");
	skald_buf_add_text(&text, "]}");
	CU_ASSERT_EQUAL(
		skald_saga_def_create(&def, skald_buf_slice(&text), NULL, NULL, &err),
		SKALD_REJECT);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "1000 faults"));
	skald_buf_done(&text);
}

/* A pointer as long as the text is cut, and the fault is told all the same. */
static void
long_names_are_cut_in_pointers(void)
{
	struct skald_buf text;
	struct skald_saga_def *def = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	skald_buf_init(&text, SKALD_SAGA_DEF_BYTES_MAX);
	skald_buf_add_text(&text,
		"{\"name\":\"s\",\"version\":1,\"steps\":[{\"name\":\"a\","
		"\"compensation\":null,\"action\":{\"topic\":\"t\","
		"\"type\":\"y\",\"data\":");
	for (int depth = 0; depth < 16; depth++)
		skald_buf_addf(&text, "{\"%05000d\":", depth);
	skald_buf_add_text(&text, "\"$.nowhere\"");
	for (int depth = 0; depth < 16; depth++)
		skald_buf_add_text(&text, "}");
	skald_buf_add_text(&text, "}}]}");
	CU_ASSERT_FALSE(text.failed);
	CU_ASSERT_EQUAL(
		skald_saga_def_create(&def, skald_buf_slice(&text), NULL, NULL, &err),
		SKALD_REJECT);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "1 fault"));
	skald_buf_done(&text);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(each_wrong_one_is_told_where_and_why),
		CHECK(each_right_one_is_taken),
		CHECK(the_plan_is_what_was_written),
		CHECK(it_knows_what_it_refers_to),
		CHECK(defaults_are_those_of_the_protocol),
		CHECK(the_hash_sees_content_and_not_layout),
		CHECK(too_large_is_refused_at_the_limit),
		CHECK(no_end_of_faults_ends),
		CHECK(long_names_are_cut_in_pointers),
	};

	return check_main("unit.saga.def", cases, CHECK_COUNT(cases));
}
