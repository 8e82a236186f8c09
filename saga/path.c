/*
 * path.c - reading and following paths, rendering templates.
 *
 * A value is never built: it is found as a slice of the text it came in, and copied.
 */
#include "saga/path.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "saga/saga.h"

enum {
	SEGMENTS_MAX = SKALD_JSON_DEPTH_MAX,
	INDEX_DIGITS_MAX = 9,
	SMALL_BYTES_MAX = 2048
};

static bool
begins_with(struct skald_slice s, const char *prefix)
{
	size_t bytes = strlen(prefix);

	return s.bytes >= bytes && memcmp(s.data, prefix, bytes) == 0;
}

enum saga_text
skald__path_classify(struct skald_slice text)
{
	if (begins_with(text, "$.") || begins_with(text, "$?."))
		return SAGA_TEXT_PATH;
	if (begins_with(text, "$$.") || begins_with(text, "$$?."))
		return SAGA_TEXT_ESCAPED;
	return SAGA_TEXT_PLAIN;
}

/* --- reading -------------------------------------------------------------------------------- */

struct reader {
	const char *p, *end;
	const char *rule;
	char *names; /* where the next name goes */
	unsigned count;
	struct saga_segment segments[SEGMENTS_MAX];
};

static bool
is_name_char(char c, bool is_first)
{
	if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_')
		return true;
	return !is_first && ((c >= '0' && c <= '9') || c == '-');
}

static void
add_segment(struct reader *r, const char *name, size_t bytes, uint32_t index)
{
	struct saga_segment *segment;

	if (r->count == SEGMENTS_MAX) {
		r->rule = "a path goes at most 64 members deep";
		return;
	}
	segment = &r->segments[r->count++];
	*segment = (struct saga_segment){ NULL, index };
	if (!name)
		return;
	memcpy(r->names, name, bytes);
	r->names[bytes] = '\0';
	segment->name = r->names;
	r->names += bytes + 1;
}

/* p is behind the dot. */
static void
read_name(struct reader *r)
{
	const char *at = r->p;

	while (r->p < r->end && is_name_char(*r->p, r->p == at))
		r->p++;
	if (r->p == at)
		r->rule =
			"in a path a name follows the dot: a letter or _, then letters, "
			"digits, _ and -";
	else
		add_segment(r, at, (size_t)(r->p - at), 0);
}

/* p is behind [' */
static void
read_quoted(struct reader *r)
{
	const char *at = r->p;
	const char *quote = memchr(at, '\'', (size_t)(r->end - at));

	if (!quote || quote + 1 == r->end || quote[1] != ']') {
		r->rule = "in a path a quoted name ends with ']";
		return;
	}
	r->p = quote + 2;
	add_segment(r, at, (size_t)(quote - at), 0);
}

/* p is behind [ */
static void
read_index(struct reader *r)
{
	const char *at = r->p;
	uint32_t index = 0;

	while (r->p < r->end && *r->p >= '0' && *r->p <= '9' &&
		r->p - at < INDEX_DIGITS_MAX)
		index = index * 10 + (uint32_t)(*r->p++ - '0');
	if (r->p == at || r->p == r->end || *r->p != ']') {
		r->rule = "in a path brackets hold an index of at most 9 digits or a "
			  "'name'";
		return;
	}
	r->p++;
	add_segment(r, NULL, 0, index);
}

static void
read_segments(struct reader *r)
{
	while (r->p < r->end && !r->rule) {
		if (*r->p == '.') {
			r->p++;
			read_name(r);
		} else if (*r->p != '[') {
			r->rule = "a path is the whole text: . or [ is expected";
		} else if (r->p + 1 < r->end && r->p[1] == '\'') {
			r->p += 2;
			read_quoted(r);
		} else {
			r->p++;
			read_index(r);
		}
	}
}

/* The first segment is the root; what the root asks for is taken from the second. */
static const char *
find_root(struct reader *r, struct saga_path *path, unsigned *used)
{
	static const struct {
		const char *name;
		enum saga_root root;
	} members[] = { { "id", SAGA_ROOT_ID }, { "key", SAGA_ROOT_KEY },
		{ "correlation_id", SAGA_ROOT_CORRELATION_ID },
		{ "run", SAGA_ROOT_RUN } };
	const char *root = r->count ? r->segments[0].name : NULL;
	const char *next = r->count > 1 ? r->segments[1].name : NULL;

	*used = 1;
	if (root && strcmp(root, "input") == 0) {
		path->root = SAGA_ROOT_INPUT;
		return NULL;
	}
	if (root && strcmp(root, "signals") == 0) {
		path->root = SAGA_ROOT_SIGNALS;
		return NULL;
	}
	*used = 2;
	if (root && strcmp(root, "steps") == 0) {
		path->root = SAGA_ROOT_STEPS;
		path->step_name = next;
		return next ? NULL : "a path into steps names one of them: $.steps.NAME";
	}
	if (!root || strcmp(root, "saga") != 0)
		return "a path begins with $.input, $.steps, $.signals or $.saga";
	for (size_t i = 0; next && i < sizeof(members) / sizeof(members[0]); i++)
		if (strcmp(next, members[i].name) == 0) {
			path->root = members[i].root;
			return r->count == 2 ? NULL
					     : "$.saga.id, key, correlation_id and run "
					       "have no members";
		}
	return "$.saga has id, key, correlation_id and run";
}

/* One piece of heap: segments, text, names. */
static struct saga_path *
keep_path(const struct saga_path *found, const struct reader *r, const char *names,
	struct skald_slice text, unsigned used)
{
	size_t count = r->count - used, heads = count * sizeof(r->segments[0]);
	size_t names_bytes = (size_t)(r->names - names);
	struct saga_path *path =
		malloc(sizeof(*path) + heads + text.bytes + 1 + names_bytes);
	char *copy, *kept_names;

	if (!path)
		return NULL;
	*path = *found;
	path->segment_count = (unsigned)count;
	copy = (char *)path->segments + heads;
	memcpy(copy, text.data, text.bytes);
	copy[text.bytes] = '\0';
	path->text = copy;
	kept_names = copy + text.bytes + 1;
	memcpy(kept_names, names, names_bytes);
	for (unsigned i = 0; i < count; i++) {
		path->segments[i] = r->segments[used + i];
		if (path->segments[i].name)
			path->segments[i].name =
				kept_names + (path->segments[i].name - names);
	}
	if (found->step_name)
		path->step_name = kept_names + (found->step_name - names);
	return path;
}

struct saga_path *
skald__path_create(struct skald_slice text, const char **rule)
{
	/* Each name with its NUL is shorter than what it stands in: a dot or a bracket
	   comes before it. */
	char names[SKALD_SAGA_PATH_BYTES_MAX + 1];
	struct reader r = {
		.p = text.data, .end = text.data + text.bytes, .names = names
	};
	struct saga_path found = { .is_optional = begins_with(text, "$?.") };
	unsigned used = 0;

	*rule = NULL;
	if (text.bytes > SKALD_SAGA_PATH_BYTES_MAX) {
		*rule = "a path has at most 1024 bytes";
		return NULL;
	}
	r.p += found.is_optional ? 2 : 1;
	read_segments(&r);
	if (!r.rule)
		r.rule = find_root(&r, &found, &used);
	if (r.rule) {
		*rule = r.rule;
		return NULL;
	}
	return keep_path(&found, &r, names, text, used);
}

/* --- following ------------------------------------------------------------------------------ */

/* A JSON text that was checked before: its kind shows in its first character. */
static struct skald_json
checked_json(struct skald_slice text)
{
	struct skald_json value = { .kind = SKALD_JSON_NUMBER };

	while (text.bytes && strchr(" \t\r\n", text.data[0])) {
		text.data++;
		text.bytes--;
	}
	while (text.bytes && strchr(" \t\r\n", text.data[text.bytes - 1]))
		text.bytes--;
	value.text = text;
	switch (text.bytes ? text.data[0] : '0') {
	case '{':
		value.kind = SKALD_JSON_OBJECT;
		break;
	case '[':
		value.kind = SKALD_JSON_ARRAY;
		break;
	case '"':
		value.kind = SKALD_JSON_STRING;
		break;
	case 't':
		value.kind = SKALD_JSON_TRUE;
		break;
	case 'f':
		value.kind = SKALD_JSON_FALSE;
		break;
	case 'n':
		value.kind = SKALD_JSON_NULL;
		break;
	default:
		break;
	}
	return value;
}

static bool
take_element(struct skald_json array, uint32_t index, struct skald_json *value)
{
	struct skald_json_iter it;

	if (array.kind != SKALD_JSON_ARRAY)
		return false;
	skald_json_iter_init(&it, array);
	while (skald_json_next(&it, NULL, value))
		if (index-- == 0)
			return true;
	return false;
}

/* The value a path of input or steps leads to. */
static bool
follow(const struct saga_path *path, const struct saga_data *data,
	struct skald_json *value)
{
	struct skald_slice text = SKALD_SLICE_NULL;
	struct skald_json at;

	if (path->root == SAGA_ROOT_INPUT)
		text = data->input;
	else if (path->root == SAGA_ROOT_STEPS && path->step < data->step_count)
		text = data->steps[path->step];
	if (!text.data)
		return false;
	at = checked_json(text);
	if (!at.text.bytes)
		return false;
	for (unsigned i = 0; i < path->segment_count; i++) {
		const struct saga_segment *segment = &path->segments[i];
		struct skald_json next;

		if (segment->name ? !skald_json_member(at, segment->name, &next)
				  : !take_element(at, segment->index, &next))
			return false;
		at = next;
	}
	*value = at;
	return true;
}

/* --- rendering ------------------------------------------------------------------------------ */

bool
skald__template_add(struct saga_template *t, struct skald_slice literal,
	struct saga_path *path, char *owned)
{
	if (t->piece_count == t->piece_room) {
		unsigned room = t->piece_room ? t->piece_room * 2 : 4;
		struct saga_piece *pieces = realloc(t->pieces, room * sizeof(*t->pieces));

		if (!pieces) {
			free(path);
			free(owned);
			return false;
		}
		t->pieces = pieces;
		t->piece_room = room;
	}
	t->pieces[t->piece_count++] = (struct saga_piece){ literal, path, owned };
	return true;
}

void
skald__template_done(struct saga_template *t)
{
	for (unsigned i = 0; i < t->piece_count; i++) {
		free(t->pieces[i].path);
		free(t->pieces[i].owned);
	}
	free(t->pieces);
	memset(t, 0, sizeof(*t));
}

static bool
add_text(struct skald_slice text, struct skald_buf *out)
{
	if (text.data)
		skald_json_add_string(out, text);
	return text.data != NULL;
}

/* False: it leads nowhere. */
static bool
add_value(
	const struct saga_path *path, const struct saga_data *data, struct skald_buf *out)
{
	struct skald_json value;

	switch (path->root) {
	case SAGA_ROOT_INPUT:
	case SAGA_ROOT_STEPS:
	case SAGA_ROOT_SIGNALS:
		if (!follow(path, data, &value))
			return false;
		skald_buf_add_slice(out, value.text);
		return true;
	case SAGA_ROOT_ID:
		return add_text(data->id, out);
	case SAGA_ROOT_KEY:
		return add_text(data->key, out);
	case SAGA_ROOT_CORRELATION_ID:
		return add_text(data->correlation_id, out);
	case SAGA_ROOT_RUN:
		skald_buf_addf(out, "%u", data->run);
		return true;
	}
	return false;
}

/* Why a buffer failed to take `more` bytes at `at`. */
static enum saga_render
failure_of(const struct skald_buf *out, size_t at, size_t more)
{
	return more > out->max_bytes - at ? SAGA_RENDER_TOO_LARGE : SAGA_RENDER_NO_MEMORY;
}

enum saga_render
skald__template_render(const struct saga_template *t, const struct saga_data *data,
	bool all_optional, struct skald_buf *out, const char **missing)
{
	for (unsigned i = 0; i < t->piece_count; i++) {
		const struct saga_piece *piece = &t->pieces[i];
		struct skald_json value;
		size_t before;

		before = out->bytes;
		skald_buf_add_slice(out, piece->literal);
		if (out->failed)
			return failure_of(out, before, piece->literal.bytes);
		if (!piece->path)
			continue;
		before = out->bytes;
		if (!add_value(piece->path, data, out)) {
			if (!all_optional && !piece->path->is_optional) {
				if (missing)
					*missing = piece->path->text;
				return SAGA_RENDER_MISSING;
			}
			skald_buf_add_text(out, "null");
		}
		if (out->failed)
			return failure_of(out, before,
				follow(piece->path, data, &value) ? value.text.bytes
								  : SMALL_BYTES_MAX);
	}
	return SAGA_RENDER_OK;
}

enum saga_render
skald__path_render_key(
	const struct saga_path *path, const struct saga_data *data, struct skald_buf *out)
{
	struct skald_buf json;
	struct skald_json value;
	size_t before = out->bytes;
	enum saga_render result = SAGA_RENDER_MISSING;

	skald_buf_init(&json, 6 * SKALD_SAGA_KEY_BYTES_MAX + 2);
	if (!add_value(path, data, &json))
		goto out;
	if (json.failed) {
		/* Longer than any key, or no memory: the value's length tells. */
		if (!follow(path, data, &value) || value.text.bytes <= json.max_bytes)
			result = SAGA_RENDER_NO_MEMORY;
		goto out;
	}
	value = checked_json(skald_buf_slice(&json));
	if (value.kind == SKALD_JSON_STRING)
		skald_json_unescape(
			skald_slice_make(value.text.data + 1, value.text.bytes - 2), out);
	else if (value.kind == SKALD_JSON_NUMBER)
		skald_buf_add_slice(out, value.text);
	if (out->failed)
		result = SAGA_RENDER_NO_MEMORY;
	else if (out->bytes > before && out->bytes - before <= SKALD_SAGA_KEY_BYTES_MAX)
		result = SAGA_RENDER_OK;
out:
	skald_buf_done(&json);
	return result;
}
