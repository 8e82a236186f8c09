#include "base/context.h"

#include <stdio.h>
#include <strings.h>

static _Thread_local struct skald_context *current;

struct skald_context *
skald_context_enter(struct skald_context *ctx)
{
	struct skald_context *previous = current;

	current = ctx;
	return previous;
}

void
skald_context_leave(struct skald_context *previous)
{
	current = previous;
}

struct skald_context *
skald_context_current(void)
{
	return current;
}

/* --- W3C trace context ------------------------------------------------------------------- */

static bool
is_hex_id(const char *p, size_t bytes, bool may_be_zero)
{
	bool is_zero = true;

	for (size_t i = 0; i < bytes; i++) {
		if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
			return false;
		is_zero = is_zero && p[i] == '0';
	}
	return may_be_zero || !is_zero;
}

bool
skald_trace_is_valid(struct skald_slice traceparent)
{
	const char *p = traceparent.data;

	return traceparent.bytes == SKALD_TRACEPARENT_BYTES - 1 &&
	       memcmp(p, "00-", 3) == 0 && is_hex_id(p + 3, 32, false) && p[35] == '-' &&
	       is_hex_id(p + 36, 16, false) && p[52] == '-' && is_hex_id(p + 53, 2, true);
}

static unsigned long long
not_zero(uint64_t value)
{
	return value ? value : 1;
}

void
skald_trace_child(struct skald_slice parent, uint64_t rand_a, uint64_t rand_b,
	uint64_t rand_c, char dst[SKALD_TRACEPARENT_BYTES])
{
	char made[SKALD_TRACEPARENT_BYTES];

	if (skald_trace_is_valid(parent))
		snprintf(made, sizeof(made), "00-%.32s-%016llx-%.2s", parent.data + 3,
			not_zero(rand_c), parent.data + 53);
	else
		snprintf(made, sizeof(made), "00-%016llx%016llx-%016llx-01",
			not_zero(rand_a), (unsigned long long)rand_b, not_zero(rand_c));
	memcpy(dst, made, sizeof(made)); /* parent may live in dst */
}

/* --- reading a message ------------------------------------------------------------------- */

static struct skald_slice
get_any_case(struct skald_headers headers, const char *name)
{
	size_t bytes = strlen(name);

	for (size_t i = headers.count; i > 0; i--) {
		struct skald_slice found = headers.items[i - 1].name;

		if (found.bytes == bytes && strncasecmp(found.data, name, bytes) == 0)
			return headers.items[i - 1].value;
	}
	return SKALD_SLICE_NULL;
}

/* An id is kept whole or not at all: a part of one is another one. */
static bool
take_id(struct skald_slice value, char dst[SKALD_CONTEXT_ID_BYTES])
{
	if (!value.data || !value.bytes || value.bytes >= SKALD_CONTEXT_ID_BYTES ||
		!skald_slice_is_utf8(value))
		return false;
	return skald_slice_copy(value, dst, SKALD_CONTEXT_ID_BYTES);
}

static void
read_correlation(struct skald_context *ctx, struct skald_headers headers)
{
	static const char *const dialects[] = { "correlation-id", "correlation_id",
		"correlationId", "CorrelationId", "NServiceBus.CorrelationId",
		"kafka_correlationId" };

	if (take_id(skald_headers_get(headers, SKALD_H_CORRELATION),
		    ctx->correlation_id) ||
		take_id(get_any_case(headers, "x-correlation-id"), ctx->correlation_id))
		return;
	for (size_t i = 0; i < sizeof(dialects) / sizeof(dialects[0]); i++)
		if (take_id(skald_headers_get(headers, dialects[i]), ctx->correlation_id))
			return;
	take_id(skald_headers_get(headers, SKALD_H_ID), ctx->correlation_id);
}

static void
read_trace(struct skald_context *ctx, struct skald_headers headers)
{
	struct skald_slice parent = skald_headers_get(headers, SKALD_H_TRACEPARENT);
	struct skald_slice state = skald_headers_get(headers, SKALD_H_TRACESTATE);

	if (!parent.data || !skald_trace_is_valid(parent))
		return; /* a tracestate without its parent means nothing */
	skald_slice_copy(parent, ctx->traceparent, sizeof(ctx->traceparent));
	if (state.data && state.bytes < sizeof(ctx->tracestate) &&
		skald_slice_is_utf8(state))
		skald_slice_copy(state, ctx->tracestate, sizeof(ctx->tracestate));
}

void
skald_context_read(struct skald_context *ctx, struct skald_headers headers)
{
	struct skald_slice id = skald_headers_get(headers, SKALD_H_ID);
	struct skald_slice baggage = skald_headers_get(headers, SKALD_H_BAGGAGE);

	memset(ctx, 0, sizeof(*ctx));
	read_correlation(ctx, headers);
	take_id(id, ctx->causation_id);
	read_trace(ctx, headers);
	if (baggage.data && baggage.bytes < SKALD_BAGGAGE_BYTES &&
		skald_slice_is_utf8(baggage))
		ctx->baggage = baggage;
	ctx->has_message_id = id.data && skald_uuid_parse(id, &ctx->message_id);
	if (!ctx->has_message_id && id.data)
		ctx->message_id = skald_uuid_v5((struct skald_uuid){ { 0 } }, id);
}

struct skald_uuid
skald_context_next_id(struct skald_context *ctx)
{
	char name[512];
	int bytes;

	bytes = snprintf(name, sizeof(name), "%.480s:%u",
		ctx->handler ? ctx->handler : "", ctx->emitted_count++);
	return skald_uuid_v5(ctx->message_id, skald_slice_make(name, (size_t)bytes));
}
