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
	skald_headers_json(r->headers, &c->text);
	skald_headers_pack(r->headers, &c->packed);
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
