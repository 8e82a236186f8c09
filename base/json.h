/*
 * json.h - JSON as bounded text: checked, looked into, rendered by copying
 * slices of the source. Never a tree, never a double: digits and bytes survive.
 *
 * Grammar: RFC 8259. Refused besides its errors: duplicate members (compared
 * after unescaping), depth and size beyond the limits, invalid UTF-8,
 * unpaired surrogates, \u0000.
 */
#ifndef SKALD_BASE_JSON_H
#define SKALD_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

enum skald_json_kind {
	SKALD_JSON_NULL,
	SKALD_JSON_FALSE,
	SKALD_JSON_TRUE,
	SKALD_JSON_NUMBER,
	SKALD_JSON_STRING,
	SKALD_JSON_ARRAY,
	SKALD_JSON_OBJECT,
};

/* A value inside a checked document; ends with the document's memory. */
struct skald_json {
	enum skald_json_kind kind;
	struct skald_slice text; /* the exact source, quotes and braces included */
};

/*
 * Check a whole document; on success *root views all of it without white space
 * around. max_bytes and depth_max bound the work; REJECT names the byte offset
 * and the rule. O(bytes), no allocation but for the members of wide objects.
 */
SKALD_MUSTUSE enum skald_rc skald_json_parse(struct skald_slice text, size_t max_bytes,
	unsigned depth_max, struct skald_json *root, struct skald_err *err);

/* The functions below take values of a document that skald_json_parse accepted. */

/* Member of an object by its (unescaped) name; false if absent or not an object. */
bool skald_json_member(
	struct skald_json object, const char *name, struct skald_json *value);

struct skald_json_iter { /* zeroed but for rest; see skald_json_iter_init */
	struct skald_slice rest;
	bool is_object;
};
void skald_json_iter_init(struct skald_json_iter *it, struct skald_json container);
/* Next element; *name (object only, else NULL slice) is raw, still escaped, no quotes. */
bool skald_json_next(
	struct skald_json_iter *it, struct skald_slice *name, struct skald_json *value);

/* Append the unescaped text of a string value (or of a raw name). */
void skald_json_unescape(struct skald_slice raw_without_quotes, struct skald_buf *out);
/* Unescaped text of a string value into dst; false if not a string or too long. */
bool skald_json_text(struct skald_json value, char *dst, size_t dst_bytes);
bool skald_json_int64(struct skald_json value, int64_t *out);

/* Writer: quoted and escaped; invalid UTF-8 becomes U+FFFD. */
void skald_json_add_string(struct skald_buf *out, struct skald_slice text);
/* "name":  with a comma before it unless it is the first of its object. */
void skald_json_add_name(struct skald_buf *out, const char *name);
void skald_json_add_member(
	struct skald_buf *out, const char *name, struct skald_slice text);
void skald_json_add_member_int(struct skald_buf *out, const char *name, int64_t value);

#endif
