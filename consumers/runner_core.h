/*
 * runner_core.h - what to do with one batch of messages, and after each failure.
 */
#ifndef SKALD_CONSUMERS_RUNNER_CORE_H
#define SKALD_CONSUMERS_RUNNER_CORE_H

#include <stdbool.h>
#include <stdint.h>

enum run_state {
	RUN_IDLE, /* no batch */
	RUN_BUSY, /* the shell runs [lo, hi) in one transaction */
	RUN_WAITING, /* until `until_ms`: a message's own backoff, or a conflict's */
	RUN_AWAY, /* infrastructure: until `until_ms`, then see whether it is back */
	RUN_ENDED, /* a handler said FATAL */
};

/* What becomes of a message when its range is run. */
enum run_fate {
	RUN_HANDLE, /* its handler runs (or it is passed over: the shell knows) */
	RUN_DEAD_RETRY, /* its attempts are spent: write the dead letter */
	RUN_DEAD_FATAL, /* rejected: write the dead letter */
};

enum run_fault {
	RUN_CONFLICT, /* 40001 40P01 55P03: nobody's attempt */
	RUN_OUTAGE, /* database, callee: nobody's attempt */
	RUN_FENCED, /* lanes were taken away; the shell has dropped their messages */
	RUN_FAILED, /* the message's own: tried again */
	RUN_REJECTED, /* the message's own: never to succeed */
	RUN_FATAL,
};

struct run_msg { /* caller's storage, one per message of the batch, zeroed */
	uint16_t attempts; /* own failures so far */
	uint8_t fate; /* enum run_fate; the shell may preset a dead one */
};

struct run_conf {
	unsigned attempts; /* own failures until the dead letter, >= 1 */
	int64_t backoff_ms, backoff_max_ms; /* full jitter between them */
	int64_t conflict_ms; /* jitter of a lone message that meets conflicts */
	int64_t outage_ms, outage_max_ms;
};

enum run_event_kind {
	RUN_EV_BATCH, /* a new batch of `count` messages */
	RUN_EV_COMMITTED, /* [lo, hi) is committed */
	RUN_EV_FAILED, /* [lo, hi) was rolled back */
	RUN_EV_TIME, /* time has passed */
	RUN_EV_BACK, /* the infrastructure answers again */
	RUN_EV_GONE, /* it still does not */
	RUN_EV_DROP, /* the partitions were taken away */
};

struct run_event {
	enum run_event_kind kind;
	unsigned count; /* BATCH */
	enum run_fault fault; /* FAILED */
	int culprit; /* FAILED: index, -1: unknown */
	int64_t defer_ms; /* FAILED: handler's wish, 0: none */
	uint64_t rand; /* FAILED, GONE */
};

enum run_do_kind {
	RUN_DO_NOTHING,
	RUN_DO_RUN, /* run [lo, hi) */
	RUN_DO_WAIT, /* give EV_TIME at until_ms */
	RUN_DO_PROBE, /* see whether the infrastructure is back: EV_BACK or EV_GONE */
	RUN_DO_NEXT, /* the batch is settled */
	RUN_DO_STOP, /* leave the loop, FATAL */
};

struct run_do {
	enum run_do_kind kind;
	unsigned lo, hi;
	int64_t until_ms;
};

struct run_core {
	enum run_state state;
	struct run_conf conf;
	struct run_msg *msgs; /* borrowed for the batch */
	unsigned count;
	unsigned lo, hi; /* the range in hand; everything below lo is settled */
	unsigned suspect; /* end of the range that holds an unknown culprit; 0: none */
	unsigned width; /* most messages per transaction: halved by conflicts */
	int held; /* message that waits for its next attempt, -1: none */
	int64_t held_until_ms;
	int64_t until_ms;
	unsigned conflict_count; /* of a lone message, in a row */
	unsigned outage_count; /* in a row */
};

void skald__run_init(struct run_core *c, const struct run_conf *conf);
/* The messages of the next batch; call before EV_BATCH. */
void skald__run_load(struct run_core *c, struct run_msg *msgs);
struct run_do skald__run_step(
	struct run_core *c, const struct run_event *ev, int64_t now_ms);

#endif
