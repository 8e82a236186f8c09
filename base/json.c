/*
 * json.c - the checking half of json.h: one pass, no recursion.
 *
 *            '{'                  '"name" :'               value
 *   VALUE ---------> FIRST_NAME -------------> VALUE ... ---------> AFTER
 *     |      '['                   value                              |
 *     +------------> FIRST_ITEM -------------------------> AFTER      |
 *                                                                     |
 *   NAME  <---- ',' in an object ----+---- ',' in an array ----> VALUE
 *   AFTER <---- '}' or ']', one level up
 *
 * J1  The open containers are at most depth_max, one bit each says which kind.
 * J2  names holds the members of the open objects, innermost last, so that a
 *     closing object finds all of its own at the end: those are sorted and
 *     compared with their neighbours, O(n log n), then dropped.
 */
#include "base/json.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/limits.h"
#include "base/own.h"

enum { NAMES_AT_HAND = 48, NAMES_COMPARED_IN_PAIRS = 16 };

enum state { VALUE, FIRST_ITEM, FIRST_NAME, NAME, AFTER };

struct name {
	const char *data;
	uint32_t bytes;
};

struct level {
	bool is_object;
	size_t first_name; /* index into names */
};

struct scan {
	const char *start, *p, *end;
	struct skald_err *err;
	struct level levels[SKALD_JSON_DEPTH_MAX];
	unsigned depth, depth_max;
	struct name *names;
	size_t name_count, name_room;
	struct name names_at_hand[NAMES_AT_HAND];
};

static enum skald_rc
refuse(const struct scan *s, const char *at, const char *rule)
{
	return skald_fail(s->err, SKALD_REJECT, "skald", "SK001", "json: byte %zu: %s",
		(size_t)(at - s->start), rule);
}

/* --- names ------------------------------------------------------------------------------- */

static int
compare(const struct name *a, const struct name *b)
{
	return skald__json_compare(
		skald_slice_make(a->data, a->bytes), skald_slice_make(b->data, b->bytes));
}

/* Heap sort: whatever the names are, n log n and no memory. */
static void
sift_down(struct name *names, size_t root, size_t count)
{
	for (;;) {
		size_t child = 2 * root + 1;
		struct name swap;

		if (child >= count)
			return;
		if (child + 1 < count && compare(&names[child], &names[child + 1]) < 0)
			child++;
		if (compare(&names[root], &names[child]) >= 0)
			return;
		swap = names[root];
		names[root] = names[child];
		names[child] = swap;
		root = child;
	}
}

static void
sort_names(struct name *names, size_t count)
{
	for (size_t i = count / 2; i > 0; i--)
		sift_down(names, i - 1, count);
	for (size_t i = count; i > 1; i--) {
		struct name last = names[i - 1];

		names[i - 1] = names[0];
		names[0] = last;
		sift_down(names, 0, i - 1);
	}
}

static const struct name *
find_double(struct name *names, size_t count)
{
	if (count <= NAMES_COMPARED_IN_PAIRS) {
		for (size_t i = 1; i < count; i++)
			for (size_t j = 0; j < i; j++)
				if (compare(&names[i], &names[j]) == 0)
					return &names[i];
		return NULL;
	}
	sort_names(names, count);
	for (size_t i = 1; i < count; i++)
		if (compare(&names[i - 1], &names[i]) == 0)
			return names[i - 1].data > names[i].data ? &names[i - 1]
								 : &names[i];
	return NULL;
}

static enum skald_rc
add_name(struct scan *s, const char *data, size_t bytes)
{
	if (s->name_count == s->name_room) {
		size_t room = s->name_room * 2;
		bool is_at_hand = s->names == s->names_at_hand;
		struct name *names;

		names = realloc(is_at_hand ? NULL : s->names, room * sizeof(*names));
		if (!names)
			return skald_fail(s->err, SKALD_RETRY, "skald", "",
				"json: out of memory for %zu members", room);
		if (is_at_hand)
			memcpy(names, s->names_at_hand, sizeof(s->names_at_hand));
		s->names = names;
		s->name_room = room;
	}
	s->names[s->name_count++] = (struct name){ data, (uint32_t)bytes };
	return SKALD_OK;
}

/* --- tokens ------------------------------------------------------------------------------ */

static void
skip_space(struct scan *s)
{
	while (s->p < s->end &&
		(*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
		s->p++;
}

/* The four digits at p, or -1. */
static int
hex4(const char *p, const char *end)
{
	int value = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		int digit = skald_hex_digit(p[i]);

		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/* p is at a backslash. */
static enum skald_rc
check_escape(struct scan *s)
{
	const char *at = s->p++;
	int unit;

	if (s->p == s->end)
		return refuse(s, at, "the text ends inside a string");
	if (*s->p != 'u') {
		if (!*s->p || !strchr("\"\\/bfnrt", *s->p))
			return refuse(s, at, "no such escape");
		s->p++;
		return SKALD_OK;
	}
	unit = hex4(s->p + 1, s->end);
	if (unit < 0)
		return refuse(s, at, "\\u must be followed by four hex digits");
	s->p += 5;
	if (unit == 0)
		return refuse(s, at, "\\u0000 is not allowed");
	if (unit < 0xD800 || unit > 0xDFFF)
		return SKALD_OK;
	if (unit > 0xDBFF || s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u')
		return refuse(s, at, "unpaired surrogate");
	unit = hex4(s->p + 2, s->end);
	if (unit < 0xDC00 || unit > 0xDFFF)
		return refuse(s, at, "unpaired surrogate");
	s->p += 6;
	return SKALD_OK;
}

/* p is at the opening quote; afterwards behind the closing one. */
static enum skald_rc
check_string(struct scan *s)
{
	const char *at = s->p++;

	while (s->p < s->end) {
		unsigned char c = (unsigned char)*s->p;
		size_t bytes;

		if (c == '"') {
			s->p++;
			return SKALD_OK;
		}
		if (c == '\\') {
			enum skald_rc rc = check_escape(s);

			if (rc)
				return rc;
			continue;
		}
		if (c < 0x20)
			return refuse(s, s->p,
				"control characters in a string must be escaped");
		bytes = c < 0x80 ? 1
				 : skald__utf8_bytes((const unsigned char *)s->p,
					   (size_t)(s->end - s->p));
		if (!bytes)
			return refuse(s, s->p, "invalid UTF-8");
		s->p += bytes;
	}
	return refuse(s, at, "the string is not closed");
}

static bool
skip_digits(struct scan *s)
{
	const char *at = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p > at;
}

static enum skald_rc
check_number(struct scan *s)
{
	const char *at = s->p;

	if (*s->p == '-')
		s->p++;
	if (s->p < s->end && *s->p == '0') {
		s->p++;
		if (s->p < s->end && *s->p >= '0' && *s->p <= '9')
			return refuse(s, at, "a number must not begin with 0");
	} else if (!skip_digits(s)) {
		return refuse(s, at, "a number needs digits");
	}
	if (s->p < s->end && *s->p == '.') {
		s->p++;
		if (!skip_digits(s))
			return refuse(s, at, "a number needs digits after its point");
	}
	if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
		s->p++;
		if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
			s->p++;
		if (!skip_digits(s))
			return refuse(s, at, "a number needs digits in its exponent");
	}
	return SKALD_OK;
}

static bool
take_word(struct scan *s, const char *word)
{
	size_t bytes = strlen(word);

	if ((size_t)(s->end - s->p) < bytes || memcmp(s->p, word, bytes) != 0)
		return false;
	s->p += bytes;
	return true;
}

/* --- the machine ------------------------------------------------------------------------- */

static enum skald_rc
open_container(struct scan *s, enum state *state)
{
	bool is_object = *s->p == '{';

	if (s->depth == s->depth_max)
		return skald_fail(s->err, SKALD_REJECT, "skald", "SK007",
			"json: byte %zu: nested deeper than %u",
			(size_t)(s->p - s->start), s->depth_max);
	s->levels[s->depth++] = (struct level){ is_object, s->name_count };
	s->p++;
	*state = is_object ? FIRST_NAME : FIRST_ITEM;
	return SKALD_OK;
}

static enum skald_rc
close_container(struct scan *s, enum state *state)
{
	struct level *level = &s->levels[--s->depth];

	if (level->is_object) {
		const struct name *twice = find_double(
			s->names + level->first_name, s->name_count - level->first_name);

		if (twice)
			return refuse(s, twice->data - 1, "a member appears twice");
		s->name_count = level->first_name;
	}
	s->p++;
	*state = AFTER;
	return SKALD_OK;
}

static enum skald_rc
take_value(struct scan *s, enum state *state)
{
	*state = AFTER;
	switch (*s->p) {
	case '{':
	case '[':
		return open_container(s, state);
	case '"':
		return check_string(s);
	case 't':
		return take_word(s, "true") ? SKALD_OK
					    : refuse(s, s->p, "a value expected");
	case 'f':
		return take_word(s, "false") ? SKALD_OK
					     : refuse(s, s->p, "a value expected");
	case 'n':
		return take_word(s, "null") ? SKALD_OK
					    : refuse(s, s->p, "a value expected");
	default:
		if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9'))
			return check_number(s);
		return refuse(s, s->p, "a value expected");
	}
}

static enum skald_rc
take_name(struct scan *s, enum state *state)
{
	const char *at = s->p;
	enum skald_rc rc;

	if (*s->p != '"')
		return refuse(s, s->p,
			*state == NAME ? "a member name in quotes expected"
				       : "a member name in quotes or } expected");
	rc = check_string(s);
	if (rc)
		return rc;
	rc = add_name(s, at + 1, (size_t)(s->p - at - 2));
	if (rc)
		return rc;
	skip_space(s);
	if (s->p == s->end || *s->p != ':')
		return refuse(s, s->p, "a colon expected after the member name");
	s->p++;
	*state = VALUE;
	return SKALD_OK;
}

static enum skald_rc
take_after(struct scan *s, enum state *state)
{
	bool is_object;

	if (!s->depth)
		return refuse(s, s->p, "text after the end of the document");
	is_object = s->levels[s->depth - 1].is_object;
	if (*s->p == (is_object ? '}' : ']'))
		return close_container(s, state);
	if (*s->p != ',')
		return refuse(s, s->p,
			is_object ? "a comma or } expected" : "a comma or ] expected");
	s->p++;
	*state = is_object ? NAME : VALUE;
	return SKALD_OK;
}

static enum skald_rc
run(struct scan *s)
{
	enum state state = VALUE;
	enum skald_rc rc = SKALD_OK;

	while (!rc) {
		skip_space(s);
		if (s->p == s->end)
			break;
		switch (state) {
		case FIRST_ITEM:
			rc = *s->p == ']' ? close_container(s, &state)
					  : take_value(s, &state);
			break;
		case VALUE:
			rc = take_value(s, &state);
			break;
		case FIRST_NAME:
			rc = *s->p == '}' ? close_container(s, &state)
					  : take_name(s, &state);
			break;
		case NAME:
			rc = take_name(s, &state);
			break;
		case AFTER:
			rc = take_after(s, &state);
			break;
		}
	}
	if (!rc && (state != AFTER || s->depth))
		rc = refuse(s, s->p, "the text ends too early");
	return rc;
}

static enum skald_json_kind
kind_of(char first)
{
	switch (first) {
	case '{':
		return SKALD_JSON_OBJECT;
	case '[':
		return SKALD_JSON_ARRAY;
	case '"':
		return SKALD_JSON_STRING;
	case 't':
		return SKALD_JSON_TRUE;
	case 'f':
		return SKALD_JSON_FALSE;
	case 'n':
		return SKALD_JSON_NULL;
	default:
		return SKALD_JSON_NUMBER;
	}
}

enum skald_rc
skald_json_parse(struct skald_slice text, size_t max_bytes, unsigned depth_max,
	struct skald_json *root, struct skald_err *err)
{
	struct scan s = { .start = text.data, .p = text.data, .err = err };
	enum skald_rc rc;

	SKALD_ASSERT(depth_max <= SKALD_JSON_DEPTH_MAX);
	if (!text.data)
		return skald_fail(err, SKALD_REJECT, "skald", "SK001", "json: no text");
	if (text.bytes > max_bytes || text.bytes > UINT32_MAX)
		return skald_fail(err, SKALD_REJECT, "skald", "SK007",
			"json: %zu bytes, at most %zu are allowed", text.bytes,
			max_bytes);
	s.end = text.data + text.bytes;
	s.depth_max = depth_max;
	s.names = s.names_at_hand;
	s.name_room = NAMES_AT_HAND;
	rc = run(&s);
	if (!rc && root) {
		const char *first = text.data, *last = s.end;

		s.p = text.data;
		skip_space(&s);
		first = s.p;
		while (last > first && strchr(" \n\r\t", last[-1]))
			last--;
		root->kind = kind_of(*first);
		root->text = skald_slice_make(first, (size_t)(last - first));
	}
	if (s.names != s.names_at_hand)
		free(s.names);
	return rc;
}
