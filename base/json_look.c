/* json_look.c - the looking half of json.h, over text that json.c has checked. */
#include "base/json.h"

#include "base/own.h"

static bool
is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* --- escapes ----------------------------------------------------------------------------- */

static unsigned
hex4(const char *p)
{
	unsigned value = 0;

	for (int i = 0; i < 4; i++) {
		unsigned c = (unsigned char)p[i];
		unsigned digit = c <= '9' ? c - '0' : (c | 0x20u) - 'a' + 10;

		value = value << 4 | (digit & 15);
	}
	return value;
}

static size_t
put_utf8(unsigned code, unsigned char out[4])
{
	if (code < 0x80) {
		out[0] = (unsigned char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (unsigned char)(0xC0 | code >> 6);
		out[1] = (unsigned char)(0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (unsigned char)(0xE0 | code >> 12);
		out[1] = (unsigned char)(0x80 | (code >> 6 & 0x3F));
		out[2] = (unsigned char)(0x80 | (code & 0x3F));
		return 3;
	}
	out[0] = (unsigned char)(0xF0 | code >> 18);
	out[1] = (unsigned char)(0x80 | (code >> 12 & 0x3F));
	out[2] = (unsigned char)(0x80 | (code >> 6 & 0x3F));
	out[3] = (unsigned char)(0x80 | (code & 0x3F));
	return 4;
}

size_t
skald__json_escape(const char *p, const char *end, unsigned char out[4], size_t *used)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	const char *found;
	unsigned code, low;

	*used = 0;
	if (p == end)
		return 0;
	*used = 1;
	if (*p != 'u' || end - p < 5) {
		found = *p ? strchr(from, *p) : NULL;
		out[0] = (unsigned char)(found ? to[found - from] : *p);
		return 1;
	}
	*used = 5;
	code = hex4(p + 1);
	if (code >= 0xD800 && code <= 0xDBFF && end - p >= 11) {
		low = hex4(p + 7);
		code = 0x10000 + ((code - 0xD800) << 10) + ((low - 0xDC00) & 0x3FF);
		*used = 11;
	}
	return put_utf8(code, out);
}

/* Reads a raw text byte by byte as what it means. */
struct reader {
	const char *p, *end;
	unsigned char ready[4];
	size_t ready_count, ready_at;
};

static int
next_byte(struct reader *r)
{
	size_t used;

	while (r->ready_at == r->ready_count) {
		if (r->p == r->end)
			return -1;
		if (*r->p != '\\')
			return (unsigned char)*r->p++;
		r->p++;
		r->ready_at = 0;
		r->ready_count = skald__json_escape(r->p, r->end, r->ready, &used);
		r->p += used;
	}
	return r->ready[r->ready_at++];
}

static int
compare_bytes(struct skald_slice a, struct skald_slice b)
{
	size_t shorter = a.bytes < b.bytes ? a.bytes : b.bytes;
	int order = shorter ? memcmp(a.data, b.data, shorter) : 0;

	return order ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

int
skald__json_compare(struct skald_slice a, struct skald_slice b)
{
	struct reader left = { .p = a.data, .end = a.data + a.bytes };
	struct reader right = { .p = b.data, .end = b.data + b.bytes };
	int x, y;

	if (!memchr(a.data, '\\', a.bytes) && !memchr(b.data, '\\', b.bytes))
		return compare_bytes(a, b);
	do {
		x = next_byte(&left);
		y = next_byte(&right);
	} while (x == y && x >= 0);
	return x - y;
}

void
skald_json_unescape(struct skald_slice raw, struct skald_buf *out)
{
	const char *p = raw.data, *end = raw.data + raw.bytes;

	while (p < end) {
		const char *slash = memchr(p, '\\', (size_t)(end - p));
		unsigned char bytes[4];
		size_t count, used;

		skald_buf_add(out, p, (size_t)((slash ? slash : end) - p));
		if (!slash)
			return;
		count = skald__json_escape(slash + 1, end, bytes, &used);
		skald_buf_add(out, bytes, count);
		p = slash + 1 + used;
	}
}

/* --- steps ------------------------------------------------------------------------------- */

static const char *
skip_space(const char *p, const char *end)
{
	while (p < end && is_space(*p))
		p++;
	return p;
}

/* p is at the opening quote; returns the place behind the closing one. */
static const char *
skip_string(const char *p, const char *end)
{
	for (p++; p < end && *p != '"'; p++)
		if (*p == '\\' && p + 1 < end)
			p++;
	return p < end ? p + 1 : end;
}

static const char *
skip_container(const char *p, const char *end)
{
	unsigned depth = 0;

	while (p < end) {
		if (*p == '"') {
			p = skip_string(p, end);
			continue;
		}
		if (*p == '{' || *p == '[')
			depth++;
		else if (*p == '}' || *p == ']')
			depth--;
		p++;
		if (!depth)
			break;
	}
	return p;
}

static const char *
take_value(const char *p, const char *end, struct skald_json *value)
{
	const char *at = p;

	switch (*p) {
	case '{':
		value->kind = SKALD_JSON_OBJECT;
		p = skip_container(p, end);
		break;
	case '[':
		value->kind = SKALD_JSON_ARRAY;
		p = skip_container(p, end);
		break;
	case '"':
		value->kind = SKALD_JSON_STRING;
		p = skip_string(p, end);
		break;
	default:
		value->kind = *p == 't'   ? SKALD_JSON_TRUE
			      : *p == 'f' ? SKALD_JSON_FALSE
			      : *p == 'n' ? SKALD_JSON_NULL
					  : SKALD_JSON_NUMBER;
		while (p < end && !is_space(*p) && *p != ',' && *p != '}' && *p != ']')
			p++;
	}
	value->text = skald_slice_make(at, (size_t)(p - at));
	return p;
}

void
skald_json_iter_init(struct skald_json_iter *it, struct skald_json container)
{
	it->is_object = container.kind == SKALD_JSON_OBJECT;
	it->rest = skald_slice_make("", 0);
	if ((it->is_object || container.kind == SKALD_JSON_ARRAY) &&
		container.text.bytes > 2)
		it->rest = skald_slice_make(
			container.text.data + 1, container.text.bytes - 2);
}

bool
skald_json_next(
	struct skald_json_iter *it, struct skald_slice *name, struct skald_json *value)
{
	const char *p = it->rest.data, *end = p + it->rest.bytes;
	struct skald_slice found = SKALD_SLICE_NULL;

	p = skip_space(p, end);
	if (p < end && *p == ',')
		p = skip_space(p + 1, end);
	if (p < end && it->is_object) {
		const char *at = p;

		p = skip_string(p, end);
		found = skald_slice_make(at + 1, (size_t)(p - at - 2));
		p = skip_space(p, end);
		if (p < end) /* the colon */
			p = skip_space(p + 1, end);
	}
	if (p >= end) {
		it->rest.bytes = 0;
		return false;
	}
	p = take_value(p, end, value);
	if (name)
		*name = found;
	it->rest = skald_slice_make(p, (size_t)(end - p));
	return true;
}

bool
skald_json_member(struct skald_json object, const char *name, struct skald_json *value)
{
	struct skald_json_iter it;
	struct skald_json found;
	struct skald_slice raw;
	struct skald_slice wanted = skald_slice_text(name);

	if (object.kind != SKALD_JSON_OBJECT)
		return false;
	skald_json_iter_init(&it, object);
	while (skald_json_next(&it, &raw, &found)) {
		struct reader r = { .p = raw.data, .end = raw.data + raw.bytes };
		size_t i = 0;
		int c;

		while ((c = next_byte(&r)) >= 0 && i < wanted.bytes &&
			c == (unsigned char)wanted.data[i])
			i++;
		if (c < 0 && i == wanted.bytes) {
			*value = found;
			return true;
		}
	}
	return false;
}

bool
skald_json_text(struct skald_json value, char *dst, size_t dst_bytes)
{
	struct skald_buf out = { .data = dst,
		.room_bytes = dst_bytes,
		.max_bytes = dst_bytes ? dst_bytes - 1 : 0 };

	if (value.kind != SKALD_JSON_STRING || value.text.bytes < 2 || !dst_bytes)
		return false;
	dst[0] = '\0';
	skald_json_unescape(
		skald_slice_make(value.text.data + 1, value.text.bytes - 2), &out);
	if (out.failed)
		dst[0] = '\0';
	return !out.failed;
}

bool
skald_json_int64(struct skald_json value, int64_t *out)
{
	long long n;

	if (value.kind != SKALD_JSON_NUMBER || !skald_slice_int64(value.text, &n))
		return false;
	*out = n;
	return true;
}
