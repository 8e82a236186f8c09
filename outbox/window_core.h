/*
 * window_core.h - which rows of a tick are produced and which acknowledged.
 */
#ifndef SKALD_OUTBOX_WINDOW_CORE_H
#define SKALD_OUTBOX_WINDOW_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"

#define SKALD__WINDOW_SLOTS 65536 /* a power of two, not below the limit of rows */

_Static_assert(SKALD__WINDOW_SLOTS >= SKALD_RELAY_INFLIGHT_ROWS, "window too small");

/* Ordinals count the rows of one tick from 0. */
struct skald__window {
	uint64_t done; /* every ordinal below is acknowledged */
	uint64_t next; /* the next to be produced */
	int64_t done_id; /* outbox id of ordinal done - 1; -1: none */
	uint64_t inflight_bytes; /* of rows produced and not acknowledged */
	uint64_t acked[SKALD__WINDOW_SLOTS / 64]; /* a bit per ordinal in done..next */
	int64_t ids[SKALD__WINDOW_SLOTS];
	uint32_t bytes[SKALD__WINDOW_SLOTS];
};

/* Begin at ordinal: everything below it is done, the last of it is row id. */
void skald__window_reset(struct skald__window *w, uint64_t ordinal, int64_t id);
bool skald__window_is_full(const struct skald__window *w);
/* Ordinal next is produced: row id, of so many bytes. The window must not be full. */
void skald__window_push(struct skald__window *w, int64_t id, uint32_t bytes);
/* Acknowledged, in any order; false when that ordinal is not in flight (a bug of the caller). */
bool skald__window_ack(struct skald__window *w, uint64_t ordinal);

#endif
