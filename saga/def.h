/*
 * def.h - what a definition is inside: the plan of the core, and by step the
 * templates of its commands. def_check.c fills it, def.c keeps it.
 */
#ifndef SKALD_SAGA_DEF_H
#define SKALD_SAGA_DEF_H

#include "base/json.h"
#include "saga/path.h"
#include "saga/saga.h"
#include "saga/saga_core.h"

struct saga_command { /* topic NULL: there is none */
	char *topic, *type;
	struct saga_template data;
};

struct saga_def_step {
	char name[SKALD_SAGA_NAME_BYTES_MAX + 1];
	struct saga_command action, undo;
	struct saga_path *key; /* of both; NULL: the saga's id */
};

struct skald_saga_def {
	char *text;
	size_t text_bytes;
	char name[SKALD_SAGA_NAME_BYTES_MAX + 1];
	int version;
	char hash[SKALD_SAGA_HASH_TEXT_BYTES];
	struct saga_template output; /* no pieces: none */
	struct saga_def_step *steps; /* plan.step_count */
	struct saga_set referred; /* steps whose answers some template has a path to */
	bool refers_to_input;
	struct saga_plan plan;
};

const struct saga_plan *skald__saga_def_plan(const struct skald_saga_def *def);
/* The step's action or compensation; NULL: it has none. */
const struct saga_command *skald__saga_def_command(
	const struct skald_saga_def *def, unsigned step, enum saga_op op);
/* The path of the ordering key, NULL: the saga's id. */
const struct saga_path *skald__saga_def_key(
	const struct skald_saga_def *def, unsigned step);

/* Does any path lead to what the step answered? Others need not be loaded. */
bool skald__saga_def_refers(const struct skald_saga_def *def, unsigned step);
bool skald__saga_def_refers_to_input(const struct skald_saga_def *def);

/* Render a command's data; on MISSING *missing is the path (of the definition). */
enum saga_render skald__saga_def_render(const struct skald_saga_def *def, unsigned step,
	enum saga_op op, const struct saga_data *data, struct skald_buf *out,
	const char **missing);
/* Render `output`; nothing is added when the definition has none. */
enum saga_render skald__saga_def_render_output(const struct skald_saga_def *def,
	const struct saga_data *data, struct skald_buf *out);

/* --- def_check.c ---------------------------------------------------------------------------- */

struct saga_faults { /* where faults go */
	skald_saga_fault_fn fault;
	void *ctx;
	unsigned count;
	bool no_memory;
	char first[200]; /* "pointer: rule" */
};

/* Fill def from its parsed text; what is wrong is told. def is sound when none was. */
void skald__saga_def_check(
	struct skald_saga_def *def, struct skald_json root, struct saga_faults *faults);

/* The canonical text of any JSON value; false: no memory. */
bool skald__json_canonical(struct skald_json value, struct skald_buf *out);

#endif
