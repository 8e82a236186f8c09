/*
 * dead.c - dead letters: written in the transaction that moves the watermarks
 * past them, with the record byte by byte. The forms of headers are described
 * in sql/functions/dead_letter.sql.
 */
#include "consumers/own.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
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
skald__headers_pack(struct skald_headers headers, struct skald_buf *out)
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
skald__headers_unpack(struct skald_slice packed, struct skald_header **items,
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

static void
add_base64(struct skald_buf *out, struct skald_slice s)
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
skald__headers_json(struct skald_headers headers, struct skald_buf *out)
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
			add_base64(out, h->value);
			skald_buf_add_text(out, "\"}");
		}
	}
	skald_buf_add_text(out, "}");
}

void
skald__dead_note(struct skald_delivery *d, const char *class, const struct skald_err *err)
{
	d->class = class;
	d->why = *err;
	if (!skald_slice_is_utf8(skald_slice_text(d->why.text)))
		(void)skald_fail(&d->why, SKALD_REJECT, err->origin, err->code,
			"the handler's message is not UTF-8");
	if (!d->first_failure_us)
		d->first_failure_us = skald_wall_us();
}

static const char *
reason_of(const char *class)
{
	if (strcmp(class, "RETRY") == 0)
		return "exhausted";
	return strcmp(class, "FATAL") == 0 ? "fatal" : "poison";
}

enum skald_rc
skald__dead_send(
	struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	static const char statement[] =
		"SELECT skald.consumer_dead_letter($1, $2, $3::int, $4::bigint,"
		" to_timestamp($5::float8 / 1000), $6, $7, $8::jsonb, $9, $10, $11, $12,"
		" $13::int, $14, $15::timestamptz, $16)";
	char partition[24], offset[24], at_ms[24], attempts[24];
	char first[SKALD_TIME_TEXT_BYTES];
	const struct skald_kafka_record *r = &d->record;
	unsigned attempt = d->attempt ? d->attempt : 1;

	skald_buf_clear(&c->text);
	skald_buf_clear(&c->packed);
	skald__headers_json(r->headers, &c->text);
	skald__headers_pack(r->headers, &c->packed);
	if (c->text.failed || c->packed.failed)
		return skald_fail(err, SKALD_RETRY, "skald", "53200",
			"could not copy the headers: out of memory");
	skald_time_format(d->first_failure_us, first);
	struct skald_param params[16] = {
		skald_param_text(c->conf.group),
		skald_param_text(r->topic),
		skald_param_int(r->partition, partition),
		skald_param_int(r->offset, offset),
		r->timestamp_ms >= 0 ? skald_param_int(r->timestamp_ms, at_ms)
				     : SKALD_PARAM_NULL,
		skald_param_bytea(r->key),
		skald_param_bytea(r->value),
		skald_param_text(c->text.data),
		skald_param_bytea(skald_buf_slice(&c->packed)),
		skald_param_text(d->class),
		skald_param_text(d->why.code),
		skald_param_text(d->why.text),
		skald_param_int(attempt, attempts),
		skald_param_text(reason_of(d->class)),
		skald_param_text(first),
		skald_param_text(c->conf.name),
	};

	return skald_pipe_send(c->sql, statement, params, 16, false, err);
}
