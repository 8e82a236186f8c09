/*
 * headers_form.c - headers as they are kept: exact bytes, and JSON for people.
 * The forms are described in sql/functions/dead_letter.sql.
 */
#include "base/headers_form.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/json.h"

static void
add_int32(struct skald_buf *out, uint32_t value)
{
	unsigned char bytes[4] = { (unsigned char)(value >> 24),
		(unsigned char)(value >> 16), (unsigned char)(value >> 8),
		(unsigned char)value };

	skald_buf_add(out, bytes, sizeof(bytes));
}

void
skald_headers_pack(struct skald_headers headers, struct skald_buf *out)
{
	for (size_t i = 0; i < headers.count; i++) {
		const struct skald_header *h = &headers.items[i];

		add_int32(out, (uint32_t)h->name.bytes);
		skald_buf_add_slice(out, h->name);
		add_int32(out, h->value.data ? (uint32_t)h->value.bytes : UINT32_MAX);
		skald_buf_add_slice(out, h->value);
	}
}

/* One length and its bytes; false: damaged. */
static bool
take_field(struct skald_slice *rest, bool may_be_null, struct skald_slice *field)
{
	const unsigned char *p = (const unsigned char *)rest->data;
	uint32_t bytes;

	if (rest->bytes < 4)
		return false;
	bytes = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	*rest = skald_slice_make(rest->data + 4, rest->bytes - 4);
	if (bytes == UINT32_MAX && may_be_null) {
		*field = SKALD_SLICE_NULL;
		return true;
	}
	if (bytes > rest->bytes)
		return false;
	*field = skald_slice_make(rest->data, bytes);
	*rest = skald_slice_make(rest->data + bytes, rest->bytes - bytes);
	return true;
}

enum skald_rc
skald_headers_unpack(struct skald_slice packed, struct skald_header **items,
	size_t *count, struct skald_err *err)
{
	struct skald_header *list, h;
	struct skald_slice rest = packed;
	size_t n = 0;

	while (rest.bytes > 0) {
		if (!take_field(&rest, false, &h.name) ||
			!take_field(&rest, true, &h.value))
			return skald_fail(err, SKALD_REJECT, "message", "invalid",
				"headers_raw: damaged after %zu headers", n);
		n++;
	}
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	rest = packed;
	for (size_t i = 0; i < n; i++) {
		(void)take_field(&rest, false, &list[i].name);
		(void)take_field(&rest, true, &list[i].value);
	}
	*items = list;
	*count = n;
	return SKALD_OK;
}

void
skald_base64_add(struct skald_buf *out, struct skald_slice s)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const unsigned char *p = (const unsigned char *)s.data;

	for (size_t i = 0; i < s.bytes; i += 3) {
		size_t left = s.bytes - i;
		uint32_t v = (uint32_t)p[i] << 16 |
			     (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
			     (left > 2 ? (uint32_t)p[i + 2] : 0);
		char quad[4] = { digits[v >> 18 & 63], digits[v >> 12 & 63],
			left > 1 ? digits[v >> 6 & 63] : '=',
			left > 2 ? digits[v & 63] : '=' };

		skald_buf_add(out, quad, sizeof(quad));
	}
}

void
skald_headers_json(struct skald_headers headers, struct skald_buf *out)
{
	skald_buf_add_text(out, "{");
	for (size_t i = 0; i < headers.count; i++) {
		const struct skald_header *h = &headers.items[i];

		if (i > 0)
			skald_buf_add_text(out, ",");
		skald_json_add_string(
			out, h->name); /* the last of a name wins in jsonb */
		skald_buf_add_text(out, ":");
		if (!h->value.data) {
			skald_buf_add_text(out, "null");
		} else if (skald_slice_is_utf8(h->value)) {
			skald_json_add_string(out, h->value);
		} else {
			skald_buf_add_text(out, "{\"base64\":\"");
			skald_base64_add(out, h->value);
			skald_buf_add_text(out, "\"}");
		}
	}
	skald_buf_add_text(out, "}");
}
