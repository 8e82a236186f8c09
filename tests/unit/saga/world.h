/*
 * world.h - the small world of one saga for random walks: participants with the
 * barrier of docs/protocol.md, a network that delays, reorders, doubles and loses,
 * and an observer who checks the invariants of saga_core.c after every event.
 */
#ifndef SKALD_TESTS_UNIT_SAGA_WORLD_H
#define SKALD_TESTS_UNIT_SAGA_WORLD_H

#include "base/rand.h"
#include "saga/saga_core.h"

enum { WORLD_STEPS_MAX = 6, WORLD_ROUNDS_MAX = 80, WORLD_PACKETS_MAX = 96 };

/* The core under test: the true one or a broken twin. */
typedef void (*world_next_fn)(const struct saga_plan *plan, struct saga_core *c,
	const struct saga_event *ev, int64_t now_ms, struct saga_dos *todo);

struct world_key { /* the barrier's row of one idempotency key */
	enum saga_reply kept;
	enum saga_barrier kept_barrier;
	bool is_taken;
	bool is_landed; /* this key had its effect */
	bool unknown_seen; /* the saga read that this key is unknown */
};

struct world_part { /* the participant of one step */
	struct world_key keys[2][WORLD_ROUNDS_MAX];
	enum { TRACE_NONE, TRACE_MAYBE, TRACE_DONE } trace;
	bool is_refusing; /* a compensation was taken */
	unsigned landed, undone; /* effects in truth */
};

struct world_packet {
	bool is_reply, has_expiry;
	uint8_t step, op, reply, barrier;
	uint32_t attempt, round;
};

enum { WORLD_RULES = 12 }; /* broken[n]: In; [11]: the ledger */

struct world {
	struct skald_rand rand;
	world_next_fn next;
	struct saga_plan plan;
	struct saga_core core, before;
	struct world_part parts[WORLD_STEPS_MAX];
	struct world_packet packets[WORLD_PACKETS_MAX];
	unsigned packet_count, turns;
	int64_t now_ms;
	struct saga_dos todo;
	uint32_t last_seq;
	/* findings, over all walks */
	uint64_t broken[WORLD_RULES];
	uint64_t events, finished[5], stuck, undone, late, stale, endless, walks;
};

void world_begin(struct world *w, uint64_t seed);
/* One saga from its start to its end; false: it did not end. */
bool world_walk(struct world *w);
/* observer.c: what is wrong after an event, by rule. */
void world_observe(struct world *w, const struct saga_event *ev);
void world_judge(struct world *w);

#endif
