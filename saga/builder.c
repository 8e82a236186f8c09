/*
 * builder.c - a definition built in code: it becomes the JSON that a person would have
 * written, and the one validator reads that.
 */
#include "saga/def.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

/* A step has 14 texts, each of at most one byte more than a definition may have, and
   escapes grow a byte to six: what is too large is still built, to be told so. */
#define BUILD_BYTES_MAX ((size_t)96 * SKALD_SAGA_DEF_BYTES_MAX)

struct broken { /* a piece that cannot be given to the validator */
	const char *rule;
	char pointer[64];
	char hint[sizeof(((struct skald_err *)0)->text)];
};

struct skald_saga_def_builder {
	struct skald_buf head; /* name, version */
	struct skald_buf deadline, output; /* as members; empty: none */
	struct skald_buf steps;
	unsigned step_count;
	struct broken *broken; /* by step, the output last */
	unsigned broken_count, broken_room;
	struct broken bad_output; /* pointer "": it is not */
	bool has_no_memory;
};

/* --- pieces --------------------------------------------------------------------------------- */

static struct skald_slice
bounded(const char *text)
{
	return skald_slice_make(text, strnlen(text, SKALD_SAGA_DEF_BYTES_MAX + 1));
}

static void
add_text(struct skald_buf *out, const char *name, const char *text)
{
	if (text && skald_slice_is_utf8(bounded(text))) {
		skald_json_add_member(out, name, bounded(text));
	} else if (text) { /* not repaired in silence: the scanner shall name it */
		skald_json_add_name(out, name);
		skald_buf_add_text(out, "\"\xff\"");
	}
}

/* Adds {} for what is no JSON, so that the validator finds no second fault there. */
static bool
add_json(struct skald_buf *out, const char *name, const char *text, struct broken *why)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_slice json = bounded(text);
	struct skald_json root;

	skald_json_add_name(out, name);
	if (skald_json_parse(
		    json, SKALD_SAGA_DEF_BYTES_MAX, SKALD_JSON_DEPTH_MAX, &root, &err)) {
		skald_buf_add_text(out, "{}");
		why->rule = "a template is JSON";
		(void)snprintf(why->hint, sizeof(why->hint), "%s", err.text);
		return false;
	}
	skald_buf_add_slice(out, json);
	return true;
}

static void
note_broken(struct skald_saga_def_builder *b, const struct broken *why)
{
	if (b->broken_count == b->broken_room) {
		unsigned room = b->broken_room ? 2 * b->broken_room : 8;
		struct broken *grown = realloc(b->broken, room * sizeof(*grown));

		if (!grown) {
			b->has_no_memory = true;
			return;
		}
		b->broken = grown;
		b->broken_room = room;
	}
	b->broken[b->broken_count++] = *why;
}

static void
add_command(struct skald_saga_def_builder *b, const char *name,
	const struct skald_saga_def_command *command)
{
	struct broken why;

	if (!command->topic && !command->type && !command->data && !command->key)
		return;
	skald_json_add_name(&b->steps, name);
	skald_buf_add_text(&b->steps, "{");
	add_text(&b->steps, "topic", command->topic);
	add_text(&b->steps, "type", command->type);
	add_text(&b->steps, "key", command->key);
	if (command->data && !add_json(&b->steps, "data", command->data, &why)) {
		(void)snprintf(why.pointer, sizeof(why.pointer), "/steps/%u/%s/data",
			b->step_count, name);
		note_broken(b, &why);
	}
	skald_buf_add_text(&b->steps, "}");
}

static void
add_retry(
	struct skald_buf *out, const char *name, const struct skald_saga_def_retry *retry)
{
	if (!retry->attempts && !retry->backoff && !retry->max_backoff)
		return;
	skald_json_add_name(out, name);
	skald_buf_add_text(out, "{");
	if (retry->attempts)
		skald_json_add_member_int(out, "attempts", retry->attempts);
	add_text(out, "backoff", retry->backoff);
	add_text(out, "max_backoff", retry->max_backoff);
	skald_buf_add_text(out, "}");
}

/* --- building ------------------------------------------------------------------------------- */

static enum skald_rc
no_memory(struct skald_err *err)
{
	return skald_fail(err, SKALD_RETRY, "skald", "", "definition: out of memory");
}

enum skald_rc
skald_saga_def_builder_create(struct skald_saga_def_builder **out, const char *name,
	int version, struct skald_err *err)
{
	struct skald_saga_def_builder *b = calloc(1, sizeof(*b));

	if (!b)
		return no_memory(err);
	skald_buf_init(&b->head, BUILD_BYTES_MAX);
	skald_buf_init(&b->deadline, BUILD_BYTES_MAX);
	skald_buf_init(&b->output, BUILD_BYTES_MAX);
	skald_buf_init(&b->steps, BUILD_BYTES_MAX);
	skald_buf_add_text(&b->head, "{");
	add_text(&b->head, "name", name);
	skald_json_add_member_int(&b->head, "version", version);
	*out = b;
	return SKALD_OK;
}

void
skald_saga_def_builder_destroy(struct skald_saga_def_builder *b)
{
	if (!b)
		return;
	skald_buf_done(&b->head);
	skald_buf_done(&b->deadline);
	skald_buf_done(&b->output);
	skald_buf_done(&b->steps);
	free(b->broken);
	free(b);
}

void
skald_saga_def_builder_deadline(struct skald_saga_def_builder *b, const char *duration)
{
	skald_buf_clear(&b->deadline);
	add_text(&b->deadline, "deadline", duration);
}

void
skald_saga_def_builder_output(struct skald_saga_def_builder *b, const char *json)
{
	skald_buf_clear(&b->output);
	b->bad_output.pointer[0] = '\0';
	if (json && !add_json(&b->output, "output", json, &b->bad_output))
		(void)snprintf(
			b->bad_output.pointer, sizeof(b->bad_output.pointer), "/output");
}

void
skald_saga_def_builder_step(
	struct skald_saga_def_builder *b, const struct skald_saga_def_step *step)
{
	if (b->steps.bytes > SKALD_SAGA_DEF_BYTES_MAX)
		return; /* too large already */
	if (step->struct_bytes < sizeof(*step)) {
		struct broken why = { .rule = "a step begins as "
					      "SKALD_SAGA_DEF_STEP_INIT" };

		(void)snprintf(
			why.pointer, sizeof(why.pointer), "/steps/%u", b->step_count);
		note_broken(b, &why);
		return;
	}
	skald_buf_add_text(&b->steps, b->step_count ? ",{" : "{");
	add_text(&b->steps, "name", step->name);
	add_text(&b->steps, "kind", step->kind);
	add_text(&b->steps, "timeout", step->timeout);
	add_command(b, "action", &step->action);
	add_command(b, "compensation", &step->compensation);
	if (step->has_nothing_to_undo) { /* beside a compensation it is a member given twice */
		skald_json_add_name(&b->steps, "compensation");
		skald_buf_add_text(&b->steps, "null");
	}
	add_retry(&b->steps, "retry", &step->retry);
	add_retry(&b->steps, "compensation_retry", &step->compensation_retry);
	add_text(&b->steps, "on_unknown", step->on_unknown);
	skald_buf_add_text(&b->steps, "}");
	b->step_count++;
}

/* The whole text as it was put together. */
static bool
join(const struct skald_saga_def_builder *b, struct skald_buf *text)
{
	if (b->has_no_memory || b->head.failed || b->deadline.failed ||
		b->output.failed || b->steps.failed)
		return false;
	skald_buf_add_slice(text, skald_buf_slice(&b->head));
	if (b->deadline.bytes)
		skald_buf_add_text(text, ",");
	skald_buf_add_slice(text, skald_buf_slice(&b->deadline));
	skald_buf_add_text(text, ",\"steps\":[");
	skald_buf_add_slice(text, skald_buf_slice(&b->steps));
	skald_buf_add_text(text, b->output.bytes ? "]," : "]");
	skald_buf_add_slice(text, skald_buf_slice(&b->output));
	skald_buf_add_text(text, "}");
	return !text->failed;
}

/* --- faults --------------------------------------------------------------------------------- */

struct listener { /* hears the validator for the caller, and counts */
	skald_saga_fault_fn fault;
	void *ctx;
	unsigned count;
	char first[200];
};

static void
hear(const struct skald_saga_fault *fault, void *ctx)
{
	struct listener *l = ctx;

	if (l->count++ == 0)
		(void)snprintf(l->first, sizeof(l->first), "%.80s: %.110s",
			fault->pointer, fault->rule);
	if (l->fault)
		l->fault(fault, l->ctx);
}

static void
tell_broken(const struct skald_saga_def_builder *b, struct listener *l)
{
	struct skald_saga_fault fault;

	for (unsigned i = 0; i < b->broken_count; i++) {
		fault.pointer = b->broken[i].pointer;
		fault.rule = b->broken[i].rule;
		fault.hint = b->broken[i].hint;
		hear(&fault, l);
	}
	if (b->bad_output.pointer[0]) {
		fault.pointer = b->bad_output.pointer;
		fault.rule = b->bad_output.rule;
		fault.hint = b->bad_output.hint;
		hear(&fault, l);
	}
}

enum skald_rc
skald_saga_def_build(struct skald_saga_def_builder *b, struct skald_saga_def **def,
	skald_saga_fault_fn fault, void *ctx, struct skald_err *err)
{
	struct listener l = { .fault = fault, .ctx = ctx };
	struct skald_err ignored = SKALD_ERR_INIT;
	struct skald_saga_def *made = NULL;
	struct skald_buf text, canonical;
	struct skald_json root;
	enum skald_rc rc;
	unsigned broken;

	skald_buf_init(&text, 4 * BUILD_BYTES_MAX);
	skald_buf_init(&canonical, 4 * BUILD_BYTES_MAX);
	if (!join(b, &text)) {
		rc = no_memory(err);
		goto out;
	}
	tell_broken(b, &l);
	broken = l.count;
	rc = skald_json_parse(skald_buf_slice(&text), SKALD_SAGA_DEF_BYTES_MAX,
		SKALD_JSON_DEPTH_MAX, &root, &ignored);
	if (rc == SKALD_RETRY || (!rc && !skald__json_canonical(root, &canonical)))
		rc = no_memory(err);
	else /* what cannot be parsed is told by the validator */
		rc = skald_saga_def_create(
			&made, skald_buf_slice(rc ? &text : &canonical), hear, &l, err);
	if (rc != SKALD_RETRY && broken)
		rc = skald_fail(err, SKALD_REJECT, "skald", "SK001",
			"definition: %u fault%s, first: %s", l.count,
			l.count == 1 ? "" : "s", l.first);
	if (!rc) {
		*def = made;
		made = NULL;
	}
out:
	skald_saga_def_destroy(made);
	skald_buf_done(&text);
	skald_buf_done(&canonical);
	return rc;
}
