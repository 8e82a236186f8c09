/*
 * context.h - what every hop hands on: correlation, causation, trace.
 *
 * A consumer enters the context of the message it handles; what is emitted or
 * logged on this thread until it leaves inherits from it. This is the one
 * deliberate thread-local of the library: a handler never passes or copies it.
 */
#ifndef SKALD_BASE_CONTEXT_H
#define SKALD_BASE_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/headers.h"
#include "base/slice.h"
#include "base/uuid.h"

#define SKALD_CONTEXT_ID_BYTES  256 /* 255 and a NUL */
#define SKALD_TRACEPARENT_BYTES 56 /* 55 and a NUL */
#define SKALD_TRACESTATE_BYTES  513 /* W3C: at least 512 characters are kept */
#define SKALD_BAGGAGE_BYTES     8193 /* W3C: 8192 */

struct skald_context {
	char correlation_id[SKALD_CONTEXT_ID_BYTES]; /* "" = none */
	char causation_id[SKALD_CONTEXT_ID_BYTES];
	char traceparent[SKALD_TRACEPARENT_BYTES];
	char tracestate[SKALD_TRACESTATE_BYTES];
	struct skald_slice
		baggage; /* borrowed from the delivery's headers, or NULL slice */
	struct skald_uuid message_id; /* of the incoming message: seed of derived ids */
	bool has_message_id; /* its ce_id was a UUID; else derived ids hash its text */
	const char *handler; /* borrowed; part of derived ids */
	uint32_t emitted_count; /* n of the next derived id */
};

/*
 * Read a message's headers. Unknown correlation dialects are read in the order
 * of ce_correlationid, x-correlation-id (any case), correlation-id,
 * correlation_id, correlationId, CorrelationId, NServiceBus.CorrelationId,
 * kafka_correlationId; without any, the message's own ce_id. The causation id
 * of what follows is this message's ce_id. An invalid traceparent is dropped
 * and a new trace begun by whoever emits (see skald_trace_child). Of a message
 * without ce_id message_id is all zero: whoever knows its place sets it.
 */
void skald_context_read(struct skald_context *ctx, struct skald_headers headers);

/* Enter: becomes the thread's current one; returns the previous, to hand to leave. */
struct skald_context *skald_context_enter(struct skald_context *ctx);
void skald_context_leave(struct skald_context *previous);
struct skald_context *skald_context_current(void); /* NULL outside */

/* Strict W3C check: version 00, lower-case hex, ids not all zero. */
bool skald_trace_is_valid(struct skald_slice traceparent);
/* A child span of parent (same trace id, new span id), or a new trace if parent is invalid. */
void skald_trace_child(struct skald_slice parent, uint64_t rand_a, uint64_t rand_b,
	uint64_t rand_c, char dst[SKALD_TRACEPARENT_BYTES]);

/* Id of the n-th message emitted by a handler: UUIDv5(incoming id, handler ":" n). Advances n. */
struct skald_uuid skald_context_next_id(struct skald_context *ctx);

#endif
