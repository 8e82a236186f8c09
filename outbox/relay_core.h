/*
 * relay_core.h - what the relay decides; see relay_core.c for the picture.
 */
#ifndef SKALD_OUTBOX_RELAY_CORE_H
#define SKALD_OUTBOX_RELAY_CORE_H

#include <stdbool.h>
#include <stdint.h>

enum skald__relay_state {
	SKALD__RELAY_DOWN, /* no session */
	SKALD__RELAY_STANDBY, /* another leads, or nobody yet */
	SKALD__RELAY_ELECTED, /* the lease is ours, what was left is not known */
	SKALD__RELAY_IDLE, /* leads; nothing is outstanding */
	SKALD__RELAY_SENDING, /* a tick is open: rows are read, produced, acknowledged */
	SKALD__RELAY_RECORDING, /* all of it acknowledged, being written down */
	SKALD__RELAY_REBUILDING, /* the producer is dead; a new one sends what is left */
	SKALD__RELAY_OPENING, /* mode wal: the stream is to be started */
	SKALD__RELAY_STREAMING, /* mode wal: rows come by themselves */
	SKALD__RELAY_GONE, /* drained, the lease handed back */
};

enum skald__relay_event {
	SKALD__EV_CONNECTED,
	SKALD__EV_LEASE, /* taken (term) or not (term 0); at_ms = when it was asked for */
	SKALD__EV_RENEWED, /* still ours; at_ms likewise */
	SKALD__EV_LOST, /* the lease or a statement's term belongs to another */
	SKALD__EV_LED, /* is_wal; or tick, is_open, ordinal = where it goes on, epoch_due */
	SKALD__EV_TURNED, /* tick = the one opened (0: none), count = rows that came with it, is_end,
			     is_quiet: nobody is left who had not seen that we sleep, or who
			     was under way when the slot was made */
	SKALD__EV_ASKED, /* the next rows are on their way */
	SKALD__EV_ROWS, /* count more rows are here; is_end: the last of the tick */
	SKALD__EV_SENT, /* count rows produced; is_full: no room for more now; is_between: the
			   last ended a transaction */
	SKALD__EV_ACKED, /* everything below ordinal is acknowledged; below resume it may be recorded */
	SKALD__EV_GREW, /* count more rows are here, let out in front of what was */
	SKALD__EV_PROGRESSED, /* ordinal is written down */
	SKALD__EV_RUNG, /* looked after the ring */
	SKALD__EV_RESTLESS, /* is_open: something in the database wants looking after */
	SKALD__EV_DOZING, /* writers are told to wake us (is_open), or no longer */
	SKALD__EV_GATED, /* ordinal: what is below is as durable as wanted; at_ms: ask again */
	SKALD__EV_SLOT_ASKED, /* a slot is being made */
	SKALD__EV_SLOT_MADE,
	SKALD__EV_SLOT_FAILED, /* no slot; not before at_ms again */
	SKALD__EV_ENTERED, /* mode wal is recorded */
	SKALD__EV_STARTED, /* rows will come */
	SKALD__EV_READABLE, /* something came */
	SKALD__EV_MOVED, /* nothing of ours, but WAL that need not be kept */
	SKALD__EV_READ, /* count rows are here; is_end: nothing more for now; is_full: no room
			   until some are sent */
	SKALD__EV_RECORDED, /* ordinal is written down; is_marked; epoch_due: drain; is_full: too
			       much WAL is held, leave */
	SKALD__EV_LEFT, /* stream and producer are closed: lead again */
	SKALD__EV_DEAD, /* the producer; a new one not before at_ms */
	SKALD__EV_REBUILT, /* ordinal = where the new producer goes on */
	SKALD__EV_STUCK, /* Kafka: a row or a producer could not be made, not before at_ms again */
	SKALD__EV_FAILED, /* PostgreSQL: sessions are closed, not before at_ms again */
	SKALD__EV_ABANDONED, /* producer and rows are dropped */
	SKALD__EV_WOKEN, /* somebody committed */
	SKALD__EV_WISH, /* is_open: mode wal, else poll */
	SKALD__EV_STOP, /* drain; at_ms = the latest end */
	SKALD__EV_GIVEN_UP, /* nothing is held any more */
};

struct skald__relay_ev {
	enum skald__relay_event kind;
	int64_t at_ms;
	int64_t term;
	int64_t tick;
	int64_t took_ms; /* TURNED: how long the question took */
	uint64_t ordinal;
	uint64_t resume;
	uint64_t count;
	bool is_open;
	bool is_end;
	bool is_full;
	bool is_marked; /* it left a mark */
	bool is_wal;
	bool is_quiet;
	bool is_between;
	bool epoch_due;
};

enum skald__relay_verb {
	SKALD__DO_CONNECT,
	SKALD__DO_TAKE_LEASE,
	SKALD__DO_RENEW,
	SKALD__DO_LEAD,
	SKALD__DO_TURN, /* records tick `done_tick` if not 0; opens the next if `open_next` */
	SKALD__DO_ASK, /* ask for the next rows, do not wait */
	SKALD__DO_TAKE, /* wait for them */
	SKALD__DO_SEND, /* up to count rows */
	SKALD__DO_PROGRESS, /* write down ordinal */
	SKALD__DO_RING,
	SKALD__DO_DOZE, /* is_open: writers shall wake us; or no longer */
	SKALD__DO_GATE, /* ask how far the standbys are */
	SKALD__DO_SLOT, /* begin to make a slot, do not wait */
	SKALD__DO_ENTER, /* record mode wal */
	SKALD__DO_START, /* the stream, from what is recorded */
	SKALD__DO_READ, /* up to count rows of what has come */
	SKALD__DO_RECORD, /* write down how far it is; is_drained: nothing is outstanding */
	SKALD__DO_LEAVE_WAL, /* the slot must go: close stream and producer */
	SKALD__DO_REBUILD, /* a new producer */
	SKALD__DO_ABANDON, /* drop producer and rows: another leads */
	SKALD__DO_GIVE_UP, /* drop producer, write progress if any, hand the lease back */
	SKALD__DO_WAIT, /* until at_ms, a report, or a wake-up */
	SKALD__DO_LEAVE,
};

struct skald__relay_do {
	enum skald__relay_verb verb;
	int64_t at_ms;
	int64_t done_tick;
	uint64_t count;
	bool open_next;
	bool mark;
	bool advance;
	bool is_open;
	bool is_drained;
	bool to_mark; /* SEND: stop where a transaction ends */
};

struct skald__relay_conf {
	int64_t poll_min_ms;
	int64_t poll_max_ms;
	int64_t standby_ms; /* between two tries to take the lease */
	int64_t ring_ms;
	int64_t mark_ms;
	int64_t progress_ms;
	uint64_t inflight_max; /* rows */
	uint64_t slice_rows; /* produced between two looks at the rest of the world */
	uint64_t queue_rows; /* mode wal: read, not produced */
	int64_t sleep_after_ms; /* idle for so long: let writers wake us; 0: never */
	int64_t asleep_ms; /* between two looks all the same */
	bool wants_wal;
	bool has_gate;
};

/* From poll to wal. */
enum skald__slot {
	SKALD__SLOT_NONE,
	SKALD__SLOT_ASKED, /* being made; polling goes on */
	SKALD__SLOT_MADE, /* a snapshot is to cover it */
	SKALD__SLOT_COVERING, /* the open tick's does */
	SKALD__SLOT_COVERED, /* and all of it is acknowledged: enter */
};

enum skald__nap {
	SKALD__NAP_AWAKE,
	SKALD__NAP_DOZING, /* the flag is up, somebody may not have seen it */
	SKALD__NAP_ASLEEP,
};

struct skald__relay_core {
	struct skald__relay_conf conf;
	enum skald__relay_state state;
	int64_t term;
	int64_t lease_until_ms; /* by our own clock, from before it was asked for */
	int64_t renew_at_ms;
	int64_t retry_at_ms; /* DOWN, STANDBY, REBUILDING */
	/* the open tick; ordinals from 0 */
	int64_t tick;
	uint64_t done; /* below: acknowledged */
	uint64_t resume; /* below: acknowledged, and a place to go on from */
	uint64_t sent; /* below: produced */
	uint64_t here; /* below: read */
	uint64_t recorded; /* below: written down */
	bool is_end_known; /* `here` is the end of the tick */
	bool is_asked; /* rows are on their way */
	bool is_full; /* the producer's word, until the next report */
	bool epoch_due;
	bool must_abandon; /* another leads and the producer still exists */
	int64_t send_at_ms;
	int64_t progress_at_ms;
	/* idle */
	int64_t poll_at_ms;
	int64_t poll_ms;
	int64_t ring_at_ms;
	bool mark_due; /* something was acknowledged since the last mark */
	int64_t marked_at_ms;
	bool is_slow; /* the last idle turn took long: look past what nobody may see yet */
	int64_t busy_at_ms;
	enum skald__nap nap;
	bool is_restless; /* no sleep */
	enum skald__slot slot;
	int64_t slot_at_ms; /* not before: another try */
	/* the gate */
	uint64_t gated; /* below: may be produced */
	int64_t gate_at_ms;
	/* mode wal */
	bool is_wal; /* what is done now, not what is wanted */
	bool is_dry; /* nothing to read until told */
	bool is_moved; /* to be written down */
	bool is_stuffed; /* no room to read into until some is sent */
	bool is_caught_up; /* what came before the stream was started is acknowledged */
	bool is_between; /* the last row produced ended its transaction */
	bool drain_due; /* produce to the end of the transaction, then record */
	bool must_leave; /* the slot holds too much */
	unsigned
		marks_left; /* to be left until every row that was acknowledged is seen by one */
	int64_t recorded_at_ms;
	/* drain */
	bool is_stopping;
	int64_t stop_at_ms;
};

void skald__relay_init(struct skald__relay_core *c, const struct skald__relay_conf *conf);
/* Something happened. */
void skald__relay_see(
	struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms);
/* What to do next; asking twice changes nothing. */
struct skald__relay_do skald__relay_next(
	const struct skald__relay_core *c, int64_t now_ms);
bool skald__relay_is_leader(const struct skald__relay_core *c);
const char *skald__relay_state_name(enum skald__relay_state state);

#endif
