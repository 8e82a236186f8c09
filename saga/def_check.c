/*
 * def_check.c - is this JSON a definition? Tells every fault, and fills the
 * definition as it goes.
 *
 * An object is read by a table of its members: what is unknown, of a later release
 * or missing is told in one place (take_members). The rules that decide money are in
 * take_kind, take_undo and take_on_unknown.
 */
#include "saga/def_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/limits.h"

enum { FAULTS_MAX = 1000, POINTER_BYTES_MAX = 4096, MEMBERS_MAX = 20 };
enum { ATTEMPTS_MAX = SAGA_ROWS_MAX };

static const char LATER[] = "not in this release";

/* --- faults --------------------------------------------------------------------------------- */

void
skald__check_fault(struct check *ck, const char *rule, const char *hint_fmt, ...)
{
	char hint[256];
	struct skald_saga_fault fault = { .rule = rule, .hint = hint };
	struct saga_faults *to = ck->faults;
	va_list args;

	if (to->count >= FAULTS_MAX)
		return;
	va_start(args, hint_fmt);
	vsnprintf(hint, sizeof(hint), hint_fmt, args);
	va_end(args);
	fault.pointer = ck->pointer.data ? ck->pointer.data : "";
	if (to->count++ == 0)
		snprintf(to->first, sizeof(to->first), "%.80s: %.110s", fault.pointer,
			rule);
	if (to->fault)
		to->fault(&fault, to->ctx);
}

size_t
skald__check_enter(struct check *ck, const char *name)
{
	size_t before = ck->pointer.bytes;

	skald_buf_add(&ck->pointer, "/", 1);
	for (; *name && ck->pointer.bytes < POINTER_BYTES_MAX - 8; name++) {
		if (*name == '~')
			skald_buf_add(&ck->pointer, "~0", 2);
		else if (*name == '/')
			skald_buf_add(&ck->pointer, "~1", 2);
		else
			skald_buf_add(&ck->pointer, name, 1);
	}
	return before;
}

size_t
skald__check_enter_index(struct check *ck, unsigned index)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", index);
	return skald__check_enter(ck, text);
}

void
skald__check_leave(struct check *ck, size_t before)
{
	ck->pointer.bytes = before;
	if (ck->pointer.data)
		ck->pointer.data[before] = '\0';
}

static void
fault_at(struct check *ck, const char *name, const char *rule, const char *hint)
{
	size_t before = skald__check_enter(ck, name);

	skald__check_fault(ck, rule, "%s", hint);
	skald__check_leave(ck, before);
}

/* --- members -------------------------------------------------------------------------------- */

struct member {
	const char *name;
	enum { OPTIONAL, NEEDED, LATER_ON } when;
};

static bool
has(struct skald_json value)
{
	return value.text.data != NULL;
}

static void
list_members(const struct member *table, unsigned count, char *dst, size_t dst_bytes)
{
	size_t used = 0;

	dst[0] = '\0';
	for (unsigned i = 0; i < count && used < dst_bytes; i++)
		if (table[i].when != LATER_ON)
			used += (size_t)snprintf(dst + used, dst_bytes - used, "%s%s",
				used ? " " : "", table[i].name);
}

static void
take_member(struct check *ck, const struct member *table, unsigned count,
	const char *name, struct skald_json value, struct skald_json *values)
{
	char known[200];
	unsigned i = 0;

	while (i < count && strcmp(table[i].name, name) != 0)
		i++;
	if (i < count)
		values[i] = value;
	if (i < count && table[i].when != LATER_ON)
		return;
	list_members(table, count, known, sizeof(known));
	if (i < count)
		fault_at(ck, name, LATER, "leave it out");
	else
		fault_at(ck, name, "unknown member", known);
}

/* values[i] is the member table[i], without text where absent. False: no object. */
static bool
take_members(struct check *ck, struct skald_json object, const struct member *table,
	unsigned count, struct skald_json *values)
{
	struct skald_json_iter it;
	struct skald_json value;
	struct skald_slice raw;

	SKALD_ASSERT(count <= MEMBERS_MAX);
	memset(values, 0, count * sizeof(*values));
	if (object.kind != SKALD_JSON_OBJECT) {
		skald__check_fault(ck, "an object is expected", "%s", "");
		return false;
	}
	skald_json_iter_init(&it, object);
	while (skald_json_next(&it, &raw, &value)) {
		struct skald_buf name;

		skald_buf_init(&name, object.text.bytes);
		skald_json_unescape(raw, &name);
		ck->faults->no_memory |= name.failed;
		take_member(ck, table, count, name.data ? name.data : "", value, values);
		skald_buf_done(&name);
	}
	return true;
}

static void
need_members(struct check *ck, const struct member *table, unsigned count,
	const struct skald_json *values)
{
	for (unsigned i = 0; i < count; i++)
		if (table[i].when == NEEDED && !has(values[i]))
			fault_at(ck, table[i].name, "a needed member is missing", "");
}

/* --- plain values --------------------------------------------------------------------------- */

/* Each take_ function reads the member `name` of the object in hand, if it is there. */

static void
take_name(struct check *ck, const char *name, struct skald_json value,
	char dst[SKALD_SAGA_NAME_BYTES_MAX + 1])
{
	char text[SKALD_SAGA_NAME_BYTES_MAX + 1];
	bool fits;

	if (!has(value))
		return;
	fits = skald_json_text(value, text, sizeof(text)) && text[0] >= 'a' &&
	       text[0] <= 'z';
	for (const char *p = text; fits && *p; p++)
		fits = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-';
	if (fits)
		memcpy(dst, text, strlen(text) + 1);
	else
		fault_at(ck, name, "a name is [a-z][a-z0-9-]{0,62}", "");
}

static void
take_integer(struct check *ck, const char *name, struct skald_json value, int64_t max,
	int64_t *out)
{
	size_t before = skald__check_enter(ck, name);
	int64_t n;

	if (has(value) && (!skald_json_int64(value, &n) || n < 1 || n > max))
		skald__check_fault(ck, "a whole number from 1 is expected",
			"at most %lld", (long long)max);
	else if (has(value))
		*out = n;
	skald__check_leave(ck, before);
}

static void
take_duration(struct check *ck, const char *name, struct skald_json value, int64_t min_ms,
	int64_t *out)
{
	const int64_t max_ms = (int64_t)SKALD_SAGA_DURATION_DAYS_MAX * 24 * 3600 * 1000;
	size_t before = skald__check_enter(ck, name);
	char text[32];
	int64_t ms;

	if (!has(value)) {
		skald__check_leave(ck, before);
		return;
	}
	if (!skald_json_text(value, text, sizeof(text)) || strcmp(text, "0") == 0 ||
		!skald_duration_parse(skald_slice_text(text), &ms))
		skald__check_fault(ck, "a duration is a number with ms, s, m, h or d",
			"write \"150ms\", \"10s\", \"5m\", \"2h\" or \"7d\"");
	else if (ms < min_ms || ms > max_ms)
		skald__check_fault(ck,
			"a duration is more than nothing and at most 3650d", "%s", text);
	else
		*out = ms;
	skald__check_leave(ck, before);
}

/* The index of a word in a list, -1: absent or told as a fault. */
static int
take_word(struct check *ck, const char *name, struct skald_json value,
	const char *const *words, int count, const char *rule)
{
	char text[32];

	if (!has(value))
		return -1;
	for (int i = 0; skald_json_text(value, text, sizeof(text)) && i < count; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	fault_at(ck, name, rule, "");
	return -1;
}

static char *
take_text(struct check *ck, const char *name, struct skald_json value, size_t max_bytes,
	const char *rule)
{
	size_t before = skald__check_enter(ck, name);
	char *text = NULL;

	if (has(value) && value.kind == SKALD_JSON_STRING) {
		text = malloc(max_bytes + 1);
		if (!text)
			ck->faults->no_memory = true;
		else if (!skald_json_text(value, text, max_bytes + 1))
			text[0] = '\0';
	}
	if (has(value) && (value.kind != SKALD_JSON_STRING || (text && !text[0]))) {
		skald__check_fault(ck, rule, "from 1 to %zu bytes", max_bytes);
		free(text);
		text = NULL;
	}
	skald__check_leave(ck, before);
	return text;
}

static bool
is_topic(const char *topic)
{
	return strspn(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			     "0123456789._-") == strlen(topic) &&
	       strcmp(topic, ".") != 0 && strcmp(topic, "..") != 0;
}

/* --- commands ------------------------------------------------------------------------------- */

enum { C_TOPIC, C_TYPE, C_DATA, C_KEY, C_COUNT };
static const struct member action_members[C_COUNT] = {
	[C_TOPIC] = { "topic", NEEDED },
	[C_TYPE] = { "type", NEEDED },
	[C_DATA] = { "data", OPTIONAL },
	[C_KEY] = { "key", OPTIONAL },
};

static void
take_topic(struct check *ck, struct skald_json value, char **topic)
{
	static const char rule[] = "a topic has letters, digits, dots, _ and -";

	*topic = take_text(ck, "topic", value, SKALD_TOPIC_BYTES_MAX, rule);
	if (*topic && !is_topic(*topic))
		fault_at(ck, "topic", rule, *topic);
}

static void
take_command(struct check *ck, const char *name, struct skald_json value,
	struct saga_command *command, struct saga_path **key)
{
	/* The compensation goes where the action went: it has no key of its own. */
	unsigned count = key ? C_COUNT : C_KEY;
	struct skald_json values[C_COUNT] = { { 0 } };
	size_t before = skald__check_enter(ck, name);

	if (take_members(ck, value, action_members, count, values)) {
		need_members(ck, action_members, count, values);
		take_topic(ck, values[C_TOPIC], &command->topic);
		command->type = take_text(ck, "type", values[C_TYPE],
			SKALD_TYPE_BYTES_MAX, "a type is a text");
		if (!has(values[C_DATA]))
			values[C_DATA] = (struct skald_json){ SKALD_JSON_OBJECT,
				SKALD_SLICE_LIT("{}") };
		skald__check_template(ck, "data", values[C_DATA], &command->data);
		if (key && has(values[C_KEY]))
			*key = skald__check_key(ck, values[C_KEY]);
	}
	skald__check_leave(ck, before);
}

/* --- budgets -------------------------------------------------------------------------------- */

enum { B_ATTEMPTS, B_BACKOFF, B_MAX_BACKOFF, B_COUNT };
static const struct member budget_members[B_COUNT] = {
	[B_ATTEMPTS] = { "attempts", OPTIONAL },
	[B_BACKOFF] = { "backoff", OPTIONAL },
	[B_MAX_BACKOFF] = { "max_backoff", OPTIONAL },
};

static void
take_budget(struct check *ck, const char *name, struct skald_json value,
	struct saga_budget *budget)
{
	struct skald_json values[B_COUNT];
	int64_t attempts = budget->attempts;
	size_t before = skald__check_enter(ck, name);

	if (has(value) && take_members(ck, value, budget_members, B_COUNT, values)) {
		take_integer(ck, "attempts", values[B_ATTEMPTS], ATTEMPTS_MAX, &attempts);
		budget->attempts = (uint32_t)attempts;
		take_duration(ck, "backoff", values[B_BACKOFF], 0, &budget->backoff_ms);
		take_duration(ck, "max_backoff", values[B_MAX_BACKOFF], 0,
			&budget->backoff_max_ms);
		if (budget->backoff_max_ms < budget->backoff_ms &&
			has(values[B_BACKOFF]) && has(values[B_MAX_BACKOFF]))
			fault_at(ck, "max_backoff",
				"max_backoff is not less than backoff", "");
	}
	skald__check_leave(ck, before);
}

/* --- steps ---------------------------------------------------------------------------------- */

enum {
	S_NAME,
	S_KIND,
	S_TIMEOUT,
	S_ACTION,
	S_COMPENSATION,
	S_RETRY,
	S_COMPENSATION_RETRY,
	S_ON_UNKNOWN,
	S_WHEN,
	S_QUERY,
	S_FOREIGN, /* from here on: kinds of steps of later releases */
	S_PARALLEL = S_FOREIGN,
	S_WAIT,
	S_SLEEP,
	S_FAIL,
	S_SAGA,
	S_COUNT
};
static const struct member step_members[S_COUNT] = {
	[S_NAME] = { "name", NEEDED },
	[S_KIND] = { "kind", OPTIONAL },
	[S_TIMEOUT] = { "timeout", OPTIONAL },
	[S_ACTION] = { "action", NEEDED },
	[S_COMPENSATION] = { "compensation", OPTIONAL },
	[S_RETRY] = { "retry", OPTIONAL },
	[S_COMPENSATION_RETRY] = { "compensation_retry", OPTIONAL },
	[S_ON_UNKNOWN] = { "on_unknown", OPTIONAL },
	[S_WHEN] = { "when", LATER_ON },
	[S_QUERY] = { "query", LATER_ON },
	[S_PARALLEL] = { "parallel", LATER_ON },
	[S_WAIT] = { "wait", LATER_ON },
	[S_SLEEP] = { "sleep", LATER_ON },
	[S_FAIL] = { "fail", LATER_ON },
	[S_SAGA] = { "saga", LATER_ON },
};

static bool
is_foreign(struct skald_json step)
{
	struct skald_json found;

	for (unsigned i = S_FOREIGN; i < S_COUNT; i++)
		if (skald_json_member(step, step_members[i].name, &found))
			return true;
	return false;
}

static void
take_kind(struct check *ck, struct skald_json value, struct saga_plan_step *p)
{
	static const char *const kinds[] = { "compensatable", "pivot", "retriable" };
	int pivot = ck->def->plan.pivot;
	int kind = take_word(ck, "kind", value, kinds, 3,
		"a kind is compensatable, pivot or retriable");

	if (has(value) && kind < 0) { /* told; no more faults because of it */
		ck->is_kind_known = false;
		ck->has_wrong_kind = true;
		return;
	}
	p->kind = kind < 0 ? SAGA_COMPENSATABLE : (enum saga_kind)kind;
	if (p->kind == SAGA_PIVOT && pivot >= 0) {
		fault_at(ck, "kind", "there is at most one pivot",
			ck->def->steps[pivot].name);
		return;
	}
	if (p->kind == SAGA_PIVOT)
		ck->def->plan.pivot = (int)ck->step;
	else if (p->kind == SAGA_COMPENSATABLE && pivot >= 0)
		fault_at(ck, "kind", "steps after the pivot are retriable",
			"nothing is undone after the pivot: write \"kind\": "
			"\"retriable\"");
	else if (p->kind == SAGA_RETRIABLE && pivot < 0 && !ck->has_wrong_kind)
		fault_at(ck, "kind", "a retriable step comes after the pivot",
			"before it a step is compensatable or the pivot");
}

static void
take_undo(struct check *ck, const struct skald_json *values, struct saga_plan_step *p,
	struct saga_def_step *step)
{
	struct skald_json undo = values[S_COMPENSATION];
	bool is_null = has(undo) && undo.kind == SKALD_JSON_NULL;

	if (!ck->is_kind_known)
		return;
	if (p->kind == SAGA_COMPENSATABLE && !has(undo))
		fault_at(ck, "compensation", "a compensatable step needs a compensation",
			"null says aloud that there is nothing to undo");
	else if (p->kind != SAGA_COMPENSATABLE && has(undo) && !is_null)
		fault_at(ck, "compensation", "only a compensatable step is compensated",
			"leave it out");
	else if (has(undo) && !is_null)
		take_command(ck, "compensation", undo, &step->undo, NULL);
	p->has_undo = has(undo) && !is_null;
	if (has(values[S_COMPENSATION_RETRY]) && !p->has_undo)
		fault_at(ck, "compensation_retry",
			"compensation_retry goes with a compensation", "leave it out");
}

static void
take_on_unknown(struct check *ck, struct skald_json value, struct saga_plan_step *p)
{
	static const char *const words[] = { "retry", "compensate", "query" };
	int word = take_word(ck, "on_unknown", value, words, 3,
		"on_unknown is retry, query or compensate");

	if (word == 2)
		fault_at(ck, "on_unknown", LATER, "write \"retry\" or \"compensate\"");
	if (word != SAGA_UNKNOWN_COMPENSATE)
		return;
	p->on_unknown = SAGA_UNKNOWN_COMPENSATE;
	if (ck->is_kind_known && p->kind != SAGA_COMPENSATABLE)
		fault_at(ck, "on_unknown",
			"only a compensatable step is compensated when unknown",
			"a pivot or retriable step is asked again: \"retry\"");
}

static void
take_step(struct check *ck, struct skald_json value)
{
	struct saga_plan_step *p = &ck->def->plan.steps[ck->step];
	struct saga_def_step *step = &ck->def->steps[ck->step];
	struct skald_json values[S_COUNT];

	*p = (struct saga_plan_step){ .timeout_ms = 30000,
		.retry = { 5, 200, 30000 },
		.undo_retry = { 20, 1000, 300000 } };
	if (!take_members(ck, value, step_members, S_COUNT, values) || is_foreign(value))
		return;
	need_members(ck, step_members, S_COUNT, values);
	ck->is_kind_known = true;
	take_kind(ck, values[S_KIND], p);
	if (p->kind == SAGA_RETRIABLE)
		p->retry.attempts = 0;
	take_duration(ck, "timeout", values[S_TIMEOUT], 1, &p->timeout_ms);
	ck->place = CHECK_ACTION;
	if (has(values[S_ACTION]))
		take_command(ck, "action", values[S_ACTION], &step->action, &step->key);
	ck->place = CHECK_UNDO;
	take_undo(ck, values, p, step);
	take_budget(ck, "retry", values[S_RETRY], &p->retry);
	take_budget(
		ck, "compensation_retry", values[S_COMPENSATION_RETRY], &p->undo_retry);
	take_on_unknown(ck, values[S_ON_UNKNOWN], p);
}

/* --- names of the steps, before anything refers to them ---------------------------------------- */

static void
take_step_name(struct check *ck, struct skald_json step, unsigned index)
{
	char *name = ck->def->steps[index].name;
	struct skald_json value = { 0 };
	size_t before = skald__check_enter_index(ck, index);

	if (is_foreign(step))
		ck->has_foreign = true;
	if (skald_json_member(step, "name", &value))
		take_name(ck, "name", value, name);
	for (unsigned i = 0; i < index && name[0]; i++)
		if (strcmp(ck->def->steps[i].name, name) == 0) {
			fault_at(ck, "name", "a step's name is its own", name);
			break;
		}
	skald__check_leave(ck, before);
}

static unsigned
count_steps(struct check *ck, struct skald_json steps)
{
	struct skald_json_iter it;
	struct skald_json step;
	unsigned count = 0;

	if (steps.kind != SKALD_JSON_ARRAY) {
		skald__check_fault(ck, "steps are a list", "%s", "");
		return 0;
	}
	skald_json_iter_init(&it, steps);
	while (skald_json_next(&it, NULL, &step))
		count++;
	if (count < 1 || count > SKALD_SAGA_STEPS_MAX) {
		skald__check_fault(ck, "a definition has 1 to 200 steps", "%u", count);
		return 0;
	}
	return count;
}

static void
take_steps(struct check *ck, struct skald_json steps)
{
	size_t before = skald__check_enter(ck, "steps");
	unsigned count = count_steps(ck, steps);
	struct skald_json_iter it;
	struct skald_json step;

	ck->def->steps = count ? calloc(count, sizeof(*ck->def->steps)) : NULL;
	if (count && !ck->def->steps)
		ck->faults->no_memory = true;
	ck->def->plan.step_count = ck->def->steps ? count : 0;
	ck->has_foreign = count == 0; /* their names are not known */
	skald_json_iter_init(&it, steps);
	for (unsigned i = 0; ck->def->steps && skald_json_next(&it, NULL, &step); i++)
		take_step_name(ck, step, i);
	skald_json_iter_init(&it, steps);
	for (ck->step = 0; ck->def->steps && skald_json_next(&it, NULL, &step);
		ck->step++) {
		size_t at = skald__check_enter_index(ck, ck->step);

		take_step(ck, step);
		skald__check_leave(ck, at);
	}
	skald__check_leave(ck, before);
}

/* --- the whole ------------------------------------------------------------------------------ */

enum { D_NAME, D_VERSION, D_DEADLINE, D_STEPS, D_OUTPUT, D_COUNT };
static const struct member def_members[D_COUNT] = {
	[D_NAME] = { "name", NEEDED },
	[D_VERSION] = { "version", NEEDED },
	[D_DEADLINE] = { "deadline", OPTIONAL },
	[D_STEPS] = { "steps", NEEDED },
	[D_OUTPUT] = { "output", OPTIONAL },
};

void
skald__saga_def_check(
	struct skald_saga_def *def, struct skald_json root, struct saga_faults *faults)
{
	struct check ck = { .def = def, .faults = faults };
	struct skald_json values[D_COUNT];
	int64_t version = 1;

	/* Names are cut at POINTER_BYTES_MAX; the slashes of the deepest still fit. */
	skald_buf_init(&ck.pointer, POINTER_BYTES_MAX + SKALD_JSON_DEPTH_MAX);
	def->plan.pivot = -1;
	if (take_members(&ck, root, def_members, D_COUNT, values)) {
		need_members(&ck, def_members, D_COUNT, values);
		take_name(&ck, "name", values[D_NAME], def->name);
		take_integer(&ck, "version", values[D_VERSION], INT32_MAX, &version);
		def->version = (int)version;
		take_duration(
			&ck, "deadline", values[D_DEADLINE], 1, &def->plan.deadline_ms);
		if (has(values[D_STEPS]))
			take_steps(&ck, values[D_STEPS]);
		ck.place = CHECK_OUTPUT;
		if (has(values[D_OUTPUT]) && values[D_OUTPUT].kind != SKALD_JSON_OBJECT)
			fault_at(&ck, "output", "output is an object", "");
		else if (has(values[D_OUTPUT]))
			skald__check_template(
				&ck, "output", values[D_OUTPUT], &def->output);
	}
	skald__saga_plan_sequence(&def->plan);
	faults->no_memory |= ck.pointer.failed;
	skald_buf_done(&ck.pointer);
}
