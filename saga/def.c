/* def.c - a definition's life, its hash, and what others ask of it. */
#include "saga/def.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/digest.h"
#include "base/limits.h"

/* --- canonical text ------------------------------------------------------------------------- */

struct member {
	size_t at, bytes; /* the unescaped name in `names` */
	const char *name;
	struct skald_json value;
};

static int
compare_members(const void *left, const void *right)
{
	const struct member *a = left, *b = right;
	size_t shorter = a->bytes < b->bytes ? a->bytes : b->bytes;
	int order = shorter ? memcmp(a->name, b->name, shorter) : 0;

	return order ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static bool
gather_members(struct skald_json object, struct skald_buf *names, struct member **members,
	size_t *count)
{
	struct skald_json_iter it;
	struct skald_json value;
	struct skald_slice raw;
	size_t room = 0;

	skald_json_iter_init(&it, object);
	while (skald_json_next(&it, &raw, &value)) {
		if (*count == room) {
			struct member *grown;

			room = room ? room * 2 : 8;
			grown = realloc(*members, room * sizeof(*grown));
			if (!grown)
				return false;
			*members = grown;
		}
		(*members)[*count] =
			(struct member){ .at = names->bytes, .value = value };
		skald_json_unescape(raw, names);
		(*members)[*count].bytes = names->bytes - (*members)[*count].at;
		(*count)++;
	}
	for (size_t i = 0; i < *count && !names->failed; i++)
		(*members)[i].name = names->data ? names->data + (*members)[i].at : "";
	return !names->failed;
}

static bool
add_object(struct skald_json object, struct skald_buf *out)
{
	struct member *members = NULL;
	struct skald_buf names;
	size_t count = 0;
	bool done;

	skald_buf_init(&names, object.text.bytes);
	done = gather_members(object, &names, &members, &count);
	if (done && count)
		qsort(members, count, sizeof(*members), compare_members);
	skald_buf_add(out, "{", 1);
	for (size_t i = 0; i < count && done; i++) {
		if (i)
			skald_buf_add(out, ",", 1);
		skald_json_add_string(
			out, skald_slice_make(members[i].name, members[i].bytes));
		skald_buf_add(out, ":", 1);
		done = skald__json_canonical(members[i].value, out);
	}
	skald_buf_add(out, "}", 1);
	free(members);
	skald_buf_done(&names);
	return done;
}

static bool
add_array(struct skald_json array, struct skald_buf *out)
{
	struct skald_json_iter it;
	struct skald_json value;
	bool is_first = true;

	skald_buf_add(out, "[", 1);
	skald_json_iter_init(&it, array);
	while (skald_json_next(&it, NULL, &value)) {
		if (!is_first)
			skald_buf_add(out, ",", 1);
		is_first = false;
		if (!skald__json_canonical(value, out))
			return false;
	}
	skald_buf_add(out, "]", 1);
	return true;
}

static void
add_canonical_string(struct skald_json string, struct skald_buf *out)
{
	struct skald_buf text;

	skald_buf_init(&text, string.text.bytes);
	skald_json_unescape(
		skald_slice_make(string.text.data + 1, string.text.bytes - 2), &text);
	if (text.failed)
		out->failed = true;
	skald_json_add_string(out, skald_buf_slice(&text));
	skald_buf_done(&text);
}

/* As deep as the scanner lets it: SKALD_JSON_DEPTH_MAX calls. */
bool
skald__json_canonical(struct skald_json value, struct skald_buf *out)
{
	bool done = true;

	switch (value.kind) {
	case SKALD_JSON_OBJECT:
		done = add_object(value, out);
		break;
	case SKALD_JSON_ARRAY:
		done = add_array(value, out);
		break;
	case SKALD_JSON_STRING:
		add_canonical_string(value, out);
		break;
	case SKALD_JSON_NUMBER:
	case SKALD_JSON_NULL:
	case SKALD_JSON_TRUE:
	case SKALD_JSON_FALSE:
		skald_buf_add_slice(out, value.text);
		break;
	}
	return done && !out->failed;
}

static bool
make_hash(struct skald_saga_def *def, struct skald_json root)
{
	uint8_t digest[SKALD_SHA1_BYTES];
	struct skald_buf text;
	struct skald_sha1 sha;
	bool done;

	/* Escapes grow a control character to six bytes at most, as they were before. */
	skald_buf_init(&text, 6 * (size_t)SKALD_SAGA_DEF_BYTES_MAX);
	done = skald__json_canonical(root, &text);
	skald_sha1_init(&sha);
	skald_sha1_add(&sha, skald_buf_slice(&text).data, text.bytes);
	skald_sha1_end(&sha, digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(def->hash + 2 * i, 3, "%02x", digest[i]);
	skald_buf_done(&text);
	return done;
}

/* --- life ----------------------------------------------------------------------------------- */

static enum skald_rc
no_memory(struct skald_err *err)
{
	return skald_fail(err, SKALD_RETRY, "skald", "", "definition: out of memory");
}

static enum skald_rc
parse(struct skald_saga_def *def, skald_saga_fault_fn fault, void *ctx,
	struct skald_json *root, struct skald_err *err)
{
	struct skald_err why = SKALD_ERR_INIT;
	struct skald_saga_fault found = { .pointer = "",
		.rule = "a definition is JSON text of at most 256 KiB" };
	enum skald_rc rc = skald_json_parse(skald_slice_make(def->text, def->text_bytes),
		SKALD_SAGA_DEF_BYTES_MAX, SKALD_JSON_DEPTH_MAX, root, &why);

	if (rc && err)
		*err = why;
	if (rc != SKALD_REJECT)
		return rc;
	found.hint = why.text;
	if (fault)
		fault(&found, ctx);
	return skald_fail_in(err, rc, "definition");
}

static enum skald_rc
check(struct skald_saga_def *def, struct skald_json root, struct saga_faults *faults,
	struct skald_err *err)
{
	skald__saga_def_check(def, root, faults);
	if (faults->no_memory)
		return no_memory(err);
	if (faults->count)
		return skald_fail(err, SKALD_REJECT, "skald", "SK001",
			"definition: %u fault%s, first: %s", faults->count,
			faults->count == 1 ? "" : "s", faults->first);
	return make_hash(def, root) ? SKALD_OK : no_memory(err);
}

enum skald_rc
skald_saga_def_create(struct skald_saga_def **def, struct skald_slice text,
	skald_saga_fault_fn fault, void *ctx, struct skald_err *err)
{
	struct saga_faults faults = { .fault = fault, .ctx = ctx };
	struct skald_saga_def *made;
	struct skald_json root;
	enum skald_rc rc;

	made = calloc(1, sizeof(*made));
	if (!made)
		return no_memory(err);
	/* One byte more than allowed is enough to be told that it is too many. */
	made->text_bytes = text.bytes <= SKALD_SAGA_DEF_BYTES_MAX
				   ? text.bytes
				   : SKALD_SAGA_DEF_BYTES_MAX + 1;
	made->text = malloc(made->text_bytes + 1);
	if (!made->text) {
		rc = no_memory(err);
		goto out;
	}
	if (made->text_bytes)
		memcpy(made->text, text.data, made->text_bytes);
	made->text[made->text_bytes] = '\0';
	rc = parse(made, fault, ctx, &root, err);
	if (rc)
		goto out;
	rc = check(made, root, &faults, err);
	if (rc)
		goto out;
	*def = made;
	made = NULL;
out:
	skald_saga_def_destroy(made);
	return rc;
}

static void
command_done(struct saga_command *command)
{
	free(command->topic);
	free(command->type);
	skald__template_done(&command->data);
}

void
skald_saga_def_destroy(struct skald_saga_def *def)
{
	if (!def)
		return;
	for (unsigned i = 0; def->steps && i < def->plan.step_count; i++) {
		command_done(&def->steps[i].action);
		command_done(&def->steps[i].undo);
		free(def->steps[i].key);
	}
	free(def->steps);
	skald__template_done(&def->output);
	free(def->text);
	free(def);
}

/* --- asking --------------------------------------------------------------------------------- */

const char *
skald_saga_def_name(const struct skald_saga_def *def)
{
	return def->name;
}

int
skald_saga_def_version(const struct skald_saga_def *def)
{
	return def->version;
}

struct skald_slice
skald_saga_def_text(const struct skald_saga_def *def)
{
	return skald_slice_make(def->text, def->text_bytes);
}

const char *
skald_saga_def_hash(const struct skald_saga_def *def)
{
	return def->hash;
}

unsigned
skald_saga_def_step_count(const struct skald_saga_def *def)
{
	return def->plan.step_count;
}

const char *
skald_saga_def_step_name(const struct skald_saga_def *def, unsigned step)
{
	SKALD_ASSERT(step < def->plan.step_count);
	return def->steps[step].name;
}

const char *
skald_saga_def_step_kind(const struct skald_saga_def *def, unsigned step)
{
	static const char *const names[] = { [SAGA_COMPENSATABLE] = "compensatable",
		[SAGA_PIVOT] = "pivot",
		[SAGA_RETRIABLE] = "retriable" };

	SKALD_ASSERT(step < def->plan.step_count);
	return names[def->plan.steps[step].kind];
}

int
skald_saga_def_step(const struct skald_saga_def *def, struct skald_slice name)
{
	for (unsigned i = 0; i < def->plan.step_count; i++)
		if (skald_slice_is_text(name, def->steps[i].name))
			return (int)i;
	return -1;
}

const struct saga_plan *
skald__saga_def_plan(const struct skald_saga_def *def)
{
	return &def->plan;
}

const struct saga_command *
skald__saga_def_command(const struct skald_saga_def *def, unsigned step, enum saga_op op)
{
	const struct saga_command *command;

	SKALD_ASSERT(step < def->plan.step_count);
	command =
		op == SAGA_OP_ACTION ? &def->steps[step].action : &def->steps[step].undo;
	return command->topic ? command : NULL;
}

const struct saga_path *
skald__saga_def_key(const struct skald_saga_def *def, unsigned step)
{
	SKALD_ASSERT(step < def->plan.step_count);
	return def->steps[step].key;
}

bool
skald__saga_def_refers(const struct skald_saga_def *def, unsigned step)
{
	SKALD_ASSERT(step < def->plan.step_count);
	return saga_set_has(&def->referred, step);
}

bool
skald__saga_def_refers_to_input(const struct skald_saga_def *def)
{
	return def->refers_to_input;
}

enum saga_render
skald__saga_def_render(const struct skald_saga_def *def, unsigned step, enum saga_op op,
	const struct saga_data *data, struct skald_buf *out, const char **missing)
{
	const struct saga_command *command = skald__saga_def_command(def, step, op);

	SKALD_ASSERT(command);
	return skald__template_render(
		&command->data, data, op == SAGA_OP_UNDO, out, missing);
}

enum saga_render
skald__saga_def_render_output(const struct skald_saga_def *def,
	const struct saga_data *data, struct skald_buf *out)
{
	return skald__template_render(&def->output, data, true, out, NULL);
}
