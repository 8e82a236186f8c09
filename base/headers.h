/*
 * headers.h - the names of every header Skald reads or writes, and a list of
 * headers as a message carries them.
 */
#ifndef SKALD_BASE_HEADERS_H
#define SKALD_BASE_HEADERS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"

#define SKALD_H_SPECVERSION  "ce_specversion"
#define SKALD_H_ID           "ce_id"
#define SKALD_H_SOURCE       "ce_source"
#define SKALD_H_TYPE         "ce_type"
#define SKALD_H_TIME         "ce_time"
#define SKALD_H_SUBJECT      "ce_subject"
#define SKALD_H_CONTENT_TYPE "content-type"
#define SKALD_H_CORRELATION  "ce_correlationid"
#define SKALD_H_CAUSATION    "ce_causationid"
#define SKALD_H_TRACEPARENT  "traceparent"
#define SKALD_H_TRACESTATE   "tracestate"
#define SKALD_H_BAGGAGE      "baggage"
#define SKALD_H_EXPIRY       "ce_expirytime"
#define SKALD_H_STREAM       "ce_stream"
#define SKALD_H_SEQUENCE     "ce_sequence"
#define SKALD_H_RECOVERED    "ce_recovered"
#define SKALD_H_REPLAY_GROUP "x-replay-target-group"

struct skald_header {
	struct skald_slice name;
	struct skald_slice value; /* data NULL: a null value */
};

struct skald_headers { /* borrowed view, in wire order */
	const struct skald_header *items;
	size_t count;
};

/* Value of the last header of this exact name, as Kafka's convention has it; NULL slice if none. */
struct skald_slice skald_headers_get(struct skald_headers headers, const char *name);
/* How many of this name: more than one of a ce_* name is a contradiction. */
size_t skald_headers_count(struct skald_headers headers, const char *name);
/* Names an application may not set: ce_*, x-dlq-*, x-replay-*, content-type. */
bool skald_header_is_reserved(struct skald_slice name);

#endif
