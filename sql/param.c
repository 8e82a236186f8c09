/*
 * param.c - parameters and array literals.
 */
#include "sql/own.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/buf.h"

#define OID_BYTEA 17

struct skald_param
skald_param_text(const char *text)
{
	return (struct skald_param){ skald_slice_text(text), false, 0 };
}

struct skald_param
skald_param_bytea(struct skald_slice bytes)
{
	return (struct skald_param){ bytes, true, OID_BYTEA };
}

struct skald_param
skald_param_int(int64_t value, char dst[static 24])
{
	(void)snprintf(dst, 24, "%" PRId64, value);
	return skald_param_text(dst);
}

void
skald__params_fill(
	struct skald__params *dst, const struct skald_param *params, unsigned count)
{
	SKALD_ASSERT(count <= SKALD__PARAMS_MAX);
	for (unsigned i = 0; i < count; i++) {
		SKALD_ASSERT(params[i].value.bytes <= INT_MAX);
		dst->types[i] = params[i].type_oid;
		dst->values[i] = params[i].value.data;
		dst->lengths[i] = (int)params[i].value.bytes;
		dst->formats[i] = params[i].is_binary;
	}
}

/* --- array literals: {"a","b\"c",NULL} ----------------------------------------------------- */

static void
next(struct skald_buf *buf)
{
	if (buf->bytes && buf->data[buf->bytes - 1] != '{')
		skald_buf_add(buf, ",", 1);
}

void
skald_array_begin(struct skald_buf *buf)
{
	skald_buf_add(buf, "{", 1);
}

void
skald_array_end(struct skald_buf *buf)
{
	skald_buf_add(buf, "}", 1);
}

void
skald_array_add_text(struct skald_buf *buf, struct skald_slice text)
{
	size_t from = 0;

	next(buf);
	if (!text.data) {
		skald_buf_add(buf, "NULL", 4);
		return;
	}
	skald_buf_add(buf, "\"", 1);
	for (size_t i = 0; i < text.bytes; i++) {
		if (text.data[i] != '"' && text.data[i] != '\\')
			continue;
		skald_buf_add(buf, text.data + from, i - from);
		skald_buf_add(buf, "\\", 1);
		from = i;
	}
	if (from < text.bytes)
		skald_buf_add(buf, text.data + from, text.bytes - from);
	skald_buf_add(buf, "\"", 1);
}

void
skald_array_add_bytea(struct skald_buf *buf, struct skald_slice bytes)
{
	static const char digits[] = "0123456789abcdef";

	next(buf);
	if (!bytes.data) {
		skald_buf_add(buf, "NULL", 4);
		return;
	}
	skald_buf_add_text(buf, "\"\\\\x");
	for (size_t i = 0; i < bytes.bytes;) {
		char chunk[512];
		size_t n = 0;

		for (; n < sizeof(chunk) && i < bytes.bytes; i++) {
			unsigned char byte = (unsigned char)bytes.data[i];

			chunk[n++] = digits[byte >> 4];
			chunk[n++] = digits[byte & 15];
		}
		skald_buf_add(buf, chunk, n);
	}
	skald_buf_add(buf, "\"", 1);
}

void
skald_array_add_int(struct skald_buf *buf, int64_t value)
{
	next(buf);
	skald_buf_addf(buf, "%" PRId64, value);
}

/* --- binary arrays: a header of five words, then each element's length and bytes --------------- */

enum { DIMENSIONS, HAS_NULLS, ELEMENT, COUNT, LOWER_BOUND };

static void
add_word(struct skald_buf *buf, uint32_t word)
{
	word = htonl(word);
	skald_buf_add(buf, &word, sizeof(word));
}

static uint32_t
get_word(const struct skald_buf *buf, unsigned index)
{
	uint32_t word;

	memcpy(&word, buf->data + index * sizeof(word), sizeof(word));
	return ntohl(word);
}

static void
set_word(struct skald_buf *buf, unsigned index, uint32_t word)
{
	word = htonl(word);
	memcpy(buf->data + index * sizeof(word), &word, sizeof(word));
}

void
skald_array_binary_begin(struct skald_buf *buf, enum skald_oid element)
{
	SKALD_ASSERT(!buf->bytes);
	add_word(buf, 1);
	add_word(buf, 0);
	add_word(buf, element);
	add_word(buf, 0);
	add_word(buf, 1);
}

void
skald_array_binary_add(struct skald_buf *buf, struct skald_slice value)
{
	add_word(buf, value.data ? (uint32_t)value.bytes : UINT32_MAX);
	skald_buf_add(buf, value.data, value.data ? value.bytes : 0);
	if (buf->failed)
		return;
	set_word(buf, COUNT, get_word(buf, COUNT) + 1);
	if (!value.data)
		set_word(buf, HAS_NULLS, 1);
}

void
skald_array_binary_add_int(struct skald_buf *buf, int64_t value)
{
	uint32_t words[2] = { htonl((uint32_t)((uint64_t)value >> 32)),
		htonl((uint32_t)value) };

	if (buf->failed)
		return;
	switch ((enum skald_oid)get_word(buf, ELEMENT)) {
	case SKALD_OID_INT8:
		skald_array_binary_add(buf, skald_slice_make(words, sizeof(words)));
		return;
	case SKALD_OID_INT4:
		SKALD_ASSERT(value >= INT32_MIN && value <= INT32_MAX);
		skald_array_binary_add(
			buf, skald_slice_make(&words[1], sizeof(words[1])));
		return;
	case SKALD_OID_BYTEA:
	case SKALD_OID_TEXT:
	case SKALD_OID_TIMESTAMPTZ:
	case SKALD_OID_UUID:
	case SKALD_OID_JSONB:
		break;
	}
	SKALD_ASSERT(false && "an array of numbers");
}

static unsigned
array_of(enum skald_oid element)
{
	switch (element) {
	case SKALD_OID_BYTEA:
		return 1001;
	case SKALD_OID_INT8:
		return 1016;
	case SKALD_OID_INT4:
		return 1007;
	case SKALD_OID_TEXT:
		return 1009;
	case SKALD_OID_TIMESTAMPTZ:
		return 1185;
	case SKALD_OID_UUID:
		return 2951;
	case SKALD_OID_JSONB:
		return 3807;
	}
	return 0;
}

struct skald_param
skald_array_binary_end(struct skald_buf *buf)
{
	SKALD_ASSERT(!buf->failed);
	if (get_word(buf, COUNT) == 0) { /* an empty array has no dimension */
		set_word(buf, DIMENSIONS, 0);
		buf->bytes = COUNT * sizeof(uint32_t);
	}
	return (struct skald_param){ skald_buf_slice(buf), true,
		array_of((enum skald_oid)get_word(buf, ELEMENT)) };
}
