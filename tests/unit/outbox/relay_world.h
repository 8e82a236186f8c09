/*
 * relay_world.h - a world for random walks of the relay's core, with everything in it:
 * transactions of several rows that are in WAL before a snapshot sees them, a slot, a
 * gate, writers that look at the flag after their transaction has its id, epochs,
 * shedding, lost streams, dead producers, lost leases. Then it becomes calm.
 */
#ifndef SKALD_TESTS_UNIT_OUTBOX_RELAY_WORLD_H
#define SKALD_TESTS_UNIT_OUTBOX_RELAY_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rand.h"
#include "outbox/relay_core.h"

#define TX_MAX    1200
#define ROWS_MAX  6 /* of one transaction */
#define ITEMS_MAX (TX_MAX * ROWS_MAX)

/* Findings besides R1 to R11. */
enum { WAITS = 0, MOVED = 12, LOST, UNRECORDED, STUCK_IN_POLL, NOT_RUNG, RULES };

typedef struct skald__relay_do (*next_fn)(const struct skald__relay_core *, int64_t);

struct snapshot {
	unsigned xmax;
	bool sees[TX_MAX];
};

struct position {
	uint64_t epoch, major;
	uint64_t ordinal;
};

struct tx {
	unsigned rows;
	uint64_t lsn; /* 0: not committed */
	bool is_visible;
	bool saw_flag; /* will NOTIFY */
	bool is_there[ROWS_MAX]; /* in its topic */
	struct position at[ROWS_MAX];
};

struct item { /* a row of the open tick or of the stream, in order */
	unsigned tx, row;
	struct position at;
	bool is_sent, is_acked;
};

struct world {
	struct skald__relay_core core;
	struct skald_rand rand;
	int64_t now_ms;
	bool is_calm, says_quiet;
	/* database */
	struct tx txs[TX_MAX];
	unsigned tx_count, first_open; /* all below have ended, and are seen */
	uint64_t lsn;
	int64_t db_term, lease_until_ms, tick;
	bool is_wal, is_open, epoch_wanted, recovers, flag;
	uint64_t epoch, done, acked_lsn;
	struct snapshot acked, seen; /* seen: of the open tick */
	bool has_slot;
	uint64_t slot_lsn;
	/* relay: what its shell keeps */
	struct item items[ITEMS_MAX];
	uint64_t item_count, produced, window_done, resume;
	unsigned asleep_xid, slot_xid, slot_waits_for;
	bool is_slot_asked, must_poll, is_notified;
	uint64_t stream_lsn, flushed, next_lsn;
	int64_t silent_until_ms; /* the server decodes what nobody wants */
	struct snapshot skip, next_snapshot;
	bool has_producer;
	uint64_t standby_lsn;
	int64_t rung_at_ms;
	/* findings */
	unsigned broken[RULES];
	uint64_t published, entered, left, epochs, rebuilds, slept, catchups, streamed;
};

struct twin {
	const char *name;
	next_fn next;
	bool says_quiet;
	unsigned rule;
};

/* One walk of this core (or of a twin that breaks a rule) by this seed; free() it. Ends at the
   first finding. */
struct world *world_walk(const struct twin *twin, uint64_t seed);
bool world_is_broken(const struct world *w);

#endif
