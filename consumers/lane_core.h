/*
 * lane_core.h - how far each lane of one partition is, and whether a record is new.
 */
#ifndef SKALD_CONSUMERS_LANE_CORE_H
#define SKALD_CONSUMERS_LANE_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/position.h"

#define LANES_MAX 64 /* of a partition; the database checks the same */

/* The highest position of one history (stream) in one lane. */
struct lane_mark {
	uint64_t stream; /* the 16 hex digits of ce_stream */
	uint32_t lane;
	bool is_used;
	bool has_applied; /* `applied` holds something */
	bool has_seen; /* `seen` does */
	struct skald_position applied; /* committed */
	struct skald_position seen; /* with the batch in hand */
};

struct lane_core {
	unsigned lane_count;
	int64_t applied[LANES_MAX]; /* every offset of the lane below is committed */
	int64_t seen[LANES_MAX]; /* with the batch in hand */
	/* Open hash table in the caller's storage; mark_room is a power of two. */
	struct lane_mark *marks;
	unsigned mark_room;
	unsigned mark_count;
};

/* What is known of a record before its handler runs. */
struct lane_record {
	unsigned lane;
	int64_t offset;
	bool has_position;
	uint64_t stream;
	struct skald_position position;
};

enum lane_verdict {
	LANE_NEW,
	LANE_PASSED, /* offset below done: Kafka repeats itself */
	LANE_REPEATED, /* position at or below the watermark: the relay repeated it */
	LANE_FULL, /* no room for another history: enlarge marks, offer again */
};

void skald__lane_init(struct lane_core *c, unsigned lane_count);
/* key_hash: of the key; without one, of the offset. */
unsigned skald__lane_of(uint64_t key_hash, unsigned lane_count);
/* Moves every entry of the old table into zeroed marks of room entries. */
void skald__lane_grow(struct lane_core *c, struct lane_mark *marks, unsigned room);

/* What the database says, at a claim: both offsets of the lane, both positions. */
void skald__lane_set(struct lane_core *c, unsigned lane, int64_t done);
bool skald__lane_set_position(struct lane_core *c, unsigned lane, uint64_t stream,
	struct skald_position position); /* false: LANE_FULL */

/* Is the record new? Raises `seen`, so the same record offered again is not. */
enum lane_verdict skald__lane_offer(struct lane_core *c, const struct lane_record *r);
/* The batch in hand is dropped: forget what was only seen. */
void skald__lane_forget(struct lane_core *c);
/* The transaction that holds the record is committed. */
void skald__lane_commit(struct lane_core *c, const struct lane_record *r);
/* Nothing below frontier is in hand: every lane is done up to it. Committed. */
void skald__lane_bump(struct lane_core *c, int64_t frontier);
/* Where to read from: the lowest `applied`. */
int64_t skald__lane_start(const struct lane_core *c);

#endif
