/*
 * delivery.c - a record as a handler sees it, and the context it is handled in.
 */
#include "consumers/own.h"

const char *
skald_delivery_topic(const struct skald_delivery *d)
{
	return d->record.topic;
}

int32_t
skald_delivery_partition(const struct skald_delivery *d)
{
	return d->record.partition;
}

int64_t
skald_delivery_offset(const struct skald_delivery *d)
{
	return d->record.offset;
}

struct skald_slice
skald_delivery_key(const struct skald_delivery *d)
{
	return d->record.key;
}

struct skald_slice
skald_delivery_value(const struct skald_delivery *d)
{
	return d->record.value;
}

struct skald_slice
skald_delivery_type(const struct skald_delivery *d)
{
	return d->envelope.type;
}

struct skald_slice
skald_delivery_id(const struct skald_delivery *d)
{
	return d->envelope.id;
}

struct skald_headers
skald_delivery_headers(const struct skald_delivery *d)
{
	return d->record.headers;
}

unsigned
skald_delivery_attempt(const struct skald_delivery *d)
{
	return d->attempt;
}

bool
skald_delivery_is_replay(const struct skald_delivery *d)
{
	return d->is_replay;
}

void
skald_delivery_defer(struct skald_delivery *d, int64_t ms)
{
	d->defer_ms = ms > 0 ? ms : 0;
}

void
skald_delivery_use(struct skald_delivery *d)
{
	struct skald_err err = SKALD_ERR_INIT;

	skald__delivery_use(d->consumer, d);
	/* A failure leaves the transaction failed: the handler's next statement shows it. */
	if (d->consumer->conf.sql_context &&
		skald__delivery_use_sql(d->consumer, &err) != SKALD_OK)
		return;
}

void
skald__delivery_use(struct skald_consumer *c, struct skald_delivery *d)
{
	if (c->in_use)
		c->in_use->emitted_count = c->context.emitted_count;
	c->in_use = d;
	if (!d) {
		skald_context_leave(NULL);
		return;
	}
	skald_context_read(&c->context, d->record.headers);
	c->context.handler = c->conf.name;
	c->context.emitted_count = d->emitted_count;
	if (skald_context_current() != &c->context)
		(void)skald_context_enter(&c->context);
}

/* Terminated text of a slice for a parameter; "" for none. */
static struct skald_param
text_param(struct skald_buf *buf, struct skald_slice s)
{
	skald_buf_clear(buf);
	skald_buf_add_slice(buf, s);
	return skald_param_text(buf->data && !buf->failed ? buf->data : "");
}

/* As skald.context() does, without taking the headers to JSON and apart again. */
static const char context_statement[] =
	"SELECT set_config('skald.correlation_id', $1, true),"
	" set_config('skald.causation_id', $2, true),"
	" set_config('skald.traceparent', $3, true),"
	" set_config('skald.tracestate', $4, true),"
	" set_config('skald.baggage', $5, true),"
	" set_config('skald.message_id', $2, true),"
	" set_config('skald.emitted', '0', true)";

static void
context_params(struct skald_consumer *c, struct skald_param params[static 5])
{
	params[0] = skald_param_text(c->context.correlation_id);
	params[1] = skald_param_text(c->context.causation_id);
	params[2] = skald_param_text(c->context.traceparent);
	params[3] = skald_param_text(c->context.tracestate);
	params[4] = text_param(&c->text, c->context.baggage);
}

enum skald_rc
skald__delivery_use_sql(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_param params[5];

	context_params(c, params);
	return skald_sql_query(c->sql, context_statement, params, 5, false, NULL, err);
}

enum skald_rc
skald__delivery_send_context(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_param params[5];

	context_params(c, params);
	return skald_pipe_send(c->sql, context_statement, params, 5, false, err);
}
