/*
 * param.c - parameters and array literals.
 */
#include "sql/own.h"

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
