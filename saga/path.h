/*
 * path.h - `$.input.x[0]['a b'].c` and templates: data of a command with paths in
 * it, rendered by copying slices of what the saga knows. Digits survive.
 */
#ifndef SKALD_SAGA_PATH_H
#define SKALD_SAGA_PATH_H

#include <stdint.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/slice.h"

enum saga_root {
	SAGA_ROOT_INPUT,
	SAGA_ROOT_STEPS, /* of one step: `step` */
	SAGA_ROOT_SIGNALS, /* of one signal: the first segment; in no release yet */
	SAGA_ROOT_ID, /* $.saga.id and so on */
	SAGA_ROOT_KEY,
	SAGA_ROOT_CORRELATION_ID,
	SAGA_ROOT_RUN,
};

struct saga_segment {
	const char *name; /* NULL: an index */
	uint32_t index;
};

struct saga_path { /* one piece of heap; the names are inside */
	enum saga_root root;
	bool is_optional; /* $?. */
	unsigned step; /* STEPS: set by whoever knows the definition */
	const char *step_name; /* STEPS */
	const char *text; /* as written */
	unsigned segment_count;
	struct saga_segment segments[];
};

enum saga_text {
	SAGA_TEXT_PLAIN,
	SAGA_TEXT_PATH, /* begins with $. or $?. */
	SAGA_TEXT_ESCAPED, /* begins with $$. or $$?. and means it without the first $ */
};

/* What a string (unescaped) of a template is. */
enum saga_text skald__path_classify(struct skald_slice text);

/*
 * Read a path. *rule is NULL on success, else what it breaks, or no path and no rule:
 * no memory. Free with free().
 */
struct saga_path *skald__path_create(struct skald_slice text, const char **rule);

/* What a saga knows, borrowed: JSON texts that were checked when they came in. */
struct saga_data {
	struct skald_slice input;
	const struct skald_slice *steps; /* by index; NULL slice: nothing there */
	unsigned step_count;
	struct skald_slice id, key, correlation_id; /* texts, not JSON */
	uint32_t run;
};

enum saga_render {
	SAGA_RENDER_OK,
	SAGA_RENDER_MISSING, /* a path leads nowhere */
	SAGA_RENDER_TOO_LARGE, /* more than out->max_bytes */
	SAGA_RENDER_NO_MEMORY,
};

struct saga_piece { /* a literal, then a path's value */
	struct skald_slice literal;
	struct saga_path *path; /* NULL: none */
	char *owned; /* the literal, when it is not the definition's own text */
};

struct saga_template { /* zeroed: no template */
	struct saga_piece *pieces;
	unsigned piece_count, piece_room;
	struct skald_slice source; /* of the JSON value */
};

/* Append a piece; takes path and owned in any case. False: no memory. */
bool skald__template_add(struct saga_template *t, struct skald_slice literal,
	struct saga_path *path, char *owned);
void skald__template_done(struct saga_template *t);

/*
 * Append the rendered JSON to out. all_optional: in compensations and outputs a path
 * that leads nowhere is null. On MISSING *missing is the path's text (of the template).
 */
enum saga_render skald__template_render(const struct saga_template *t,
	const struct saga_data *data, bool all_optional, struct skald_buf *out,
	const char **missing);

/* A command's key: a text or number of 1 to SKALD_SAGA_KEY_BYTES_MAX bytes, else MISSING. */
enum saga_render skald__path_render_key(const struct saga_path *path,
	const struct saga_data *data, struct skald_buf *out);

#endif
