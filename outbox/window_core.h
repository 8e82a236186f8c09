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

#define SKALD__NO_MARK INT64_MIN /* a row behind which nothing can be resumed */

/*
 * Ordinals count rows from 0: of one tick, or of the stream since it was started. A
 * mark says how to go on behind its row: its outbox id (poll), the end of its
 * transaction (wal); rows in the middle of something have none.
 */
struct skald__window {
	uint64_t done; /* every ordinal below is acknowledged */
	uint64_t next; /* the next to be produced */
	uint64_t resume; /* behind the last acknowledged row that has a mark, */
	int64_t resume_mark; /* which is this */
	uint64_t inflight_bytes; /* of rows produced and not acknowledged */
	uint64_t acked[SKALD__WINDOW_SLOTS / 64]; /* a bit per ordinal in done..next */
	/* of before it was rewound */
	uint64_t known_done; /* every ordinal below is acknowledged, */
	uint64_t known_next; /* and below this those with a bit in known */
	uint64_t known[SKALD__WINDOW_SLOTS / 64];
	int64_t marks[SKALD__WINDOW_SLOTS];
	uint32_t bytes[SKALD__WINDOW_SLOTS];
};

/* Begin at ordinal: everything below it is done, and may be resumed at mark. */
void skald__window_reset(struct skald__window *w, uint64_t ordinal, int64_t mark);
/* Begin again at resume; what is acknowledged is remembered. */
void skald__window_rewind(struct skald__window *w);
/* Is the ordinal next acknowledged already, from before it was rewound? */
bool skald__window_is_known(const struct skald__window *w);
bool skald__window_is_full(const struct skald__window *w);
/* The newest row has a mark. */
bool skald__window_is_at_mark(const struct skald__window *w);
/* Ordinal next is produced: a row of so many bytes. The window must not be full. */
void skald__window_push(struct skald__window *w, int64_t mark, uint32_t bytes);
/* Acknowledged, in any order; false when that ordinal is not in flight (a bug of the caller). */
bool skald__window_ack(struct skald__window *w, uint64_t ordinal);

#endif
