/*
 * def_data.c - templates and paths of a definition: read once, checked against the
 * steps, kept as literal slices of the text with paths between them.
 */
#include "saga/def_check.h"

#include <stdlib.h>
#include <string.h>

struct compile { /* of one template */
	struct check *ck;
	struct saga_template *t;
	const char *done; /* the text before it is in pieces */
	unsigned depth;
};

/* A path must lead to what can be there (protocol: 3 and 6). */
static void
check_target(struct check *ck, struct saga_path *path)
{
	unsigned reach = ck->place == CHECK_ACTION ? ck->step
			 : ck->place == CHECK_UNDO ? ck->step + 1
						   : ck->def->plan.step_count;
	int step;

	if (path->root == SAGA_ROOT_SIGNALS) {
		skald__check_fault(ck, "no step waits for this signal",
			"waits are not in this release");
		return;
	}
	if (path->root == SAGA_ROOT_INPUT)
		ck->def->refers_to_input = true;
	if (path->root != SAGA_ROOT_STEPS)
		return;
	step = -1;
	for (unsigned i = 0; i < ck->def->plan.step_count && step < 0; i++)
		if (strcmp(ck->def->steps[i].name, path->step_name) == 0)
			step = (int)i;
	if (step >= 0) {
		path->step = (unsigned)step;
		saga_set_add(&ck->def->referred, (unsigned)step);
	}
	if (step < 0 && !ck->has_foreign)
		skald__check_fault(ck, "a path leads to a step of this definition",
			"no step is named %.63s", path->step_name);
	else if (step >= 0 && (unsigned)step >= reach)
		skald__check_fault(ck, "a path leads to a step that has run", "%.63s %s",
			path->step_name,
			(unsigned)step == ck->step ? "is this step" : "comes later");
}

static struct saga_path *
take_path(struct check *ck, struct skald_slice text)
{
	const char *rule;
	struct saga_path *path = skald__path_create(text, &rule);

	if (path)
		check_target(ck, path);
	else if (rule)
		skald__check_fault(ck, rule, "a text that begins with $. is written $$.");
	else
		ck->faults->no_memory = true;
	return path;
}

/* Everything up to `end` is literal; a path, or a text of our own, follows. */
static void
cut(struct compile *c, const char *end, struct saga_path *path)
{
	if (!skald__template_add(
		    c->t, skald_slice_make(c->done, (size_t)(end - c->done)), path, NULL))
		c->ck->faults->no_memory = true;
}

static void
cut_escaped(struct compile *c, const char *end, struct skald_slice text)
{
	struct skald_buf json;

	cut(c, end, NULL);
	skald_buf_init(&json, 6 * text.bytes + 2);
	skald_json_add_string(&json, text);
	if (json.failed ||
		!skald__template_add(c->t, skald_buf_slice(&json), NULL, json.data)) {
		c->ck->faults->no_memory = true;
		if (json.failed)
			skald_buf_done(&json);
	} /* else the template owns the bytes */
}

static void
compile_string(struct compile *c, struct skald_json value)
{
	struct skald_buf text;
	struct skald_slice s;

	if (!memchr(value.text.data, '$', value.text.bytes) &&
		!memchr(value.text.data, '\\', value.text.bytes))
		return; /* most strings: literal as they are */
	skald_buf_init(&text, value.text.bytes);
	skald_json_unescape(
		skald_slice_make(value.text.data + 1, value.text.bytes - 2), &text);
	s = skald_buf_slice(&text);
	c->ck->faults->no_memory |= text.failed;
	switch (skald__path_classify(s)) {
	case SAGA_TEXT_PLAIN:
		break;
	case SAGA_TEXT_PATH:
		cut(c, value.text.data, take_path(c->ck, s));
		c->done = value.text.data + value.text.bytes;
		break;
	case SAGA_TEXT_ESCAPED:
		cut_escaped(
			c, value.text.data, skald_slice_make(s.data + 1, s.bytes - 1));
		c->done = value.text.data + value.text.bytes;
		break;
	}
	skald_buf_done(&text);
}

static void compile_value(struct compile *c, struct skald_json value);

static void
compile_elements(struct compile *c, struct skald_json container)
{
	struct skald_json_iter it;
	struct skald_json value;
	struct skald_slice raw;
	unsigned index = 0;

	skald_json_iter_init(&it, container);
	while (skald_json_next(&it, &raw, &value)) {
		struct skald_buf name;
		size_t before;

		skald_buf_init(&name, container.text.bytes);
		if (raw.data)
			skald_json_unescape(raw, &name);
		c->ck->faults->no_memory |= name.failed;
		before = raw.data ? skald__check_enter(c->ck, name.data ? name.data : "")
				  : skald__check_enter_index(c->ck, index++);
		compile_value(c, value);
		skald__check_leave(c->ck, before);
		skald_buf_done(&name);
	}
}

static void
compile_value(struct compile *c, struct skald_json value)
{
	switch (value.kind) {
	case SKALD_JSON_STRING:
		compile_string(c, value);
		return;
	case SKALD_JSON_OBJECT:
	case SKALD_JSON_ARRAY:
		if (c->depth == SKALD_SAGA_TEMPLATE_DEPTH_MAX) {
			skald__check_fault(
				c->ck, "data is nested at most 16 deep", "%s", "");
			return;
		}
		c->depth++;
		compile_elements(c, value);
		c->depth--;
		return;
	case SKALD_JSON_NUMBER:
	case SKALD_JSON_NULL:
	case SKALD_JSON_TRUE:
	case SKALD_JSON_FALSE:
		return;
	}
}

void
skald__check_template(struct check *ck, const char *name, struct skald_json value,
	struct saga_template *t)
{
	struct compile c = { .ck = ck, .t = t, .done = value.text.data };
	const char *end = value.text.data + value.text.bytes;
	size_t before = skald__check_enter(ck, name);

	t->source = value.text;
	compile_value(&c, value);
	if (c.done < end)
		cut(&c, end, NULL);
	skald__check_leave(ck, before);
}

struct saga_path *
skald__check_key(struct check *ck, struct skald_json value)
{
	size_t before = skald__check_enter(ck, "key");
	struct saga_path *path = NULL;
	struct skald_buf text;

	skald_buf_init(&text, value.text.bytes);
	if (value.kind == SKALD_JSON_STRING)
		skald_json_unescape(
			skald_slice_make(value.text.data + 1, value.text.bytes - 2),
			&text);
	ck->faults->no_memory |= text.failed;
	if (skald__path_classify(skald_buf_slice(&text)) == SAGA_TEXT_PATH)
		path = take_path(ck, skald_buf_slice(&text));
	else
		skald__check_fault(ck, "an action's key is a path",
			"such as \"$.input.account\"; without a key it is the saga's id");
	skald_buf_done(&text);
	skald__check_leave(ck, before);
	return path;
}
