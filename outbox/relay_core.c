/*
 * relay_core.c - what the relay makes of what happens; relay_next_core.c says what it
 * does next, relay.c does it.
 *
 *   DOWN ----CONNECTED----> STANDBY ----LEASE(term)----> ELECTED <------------------+
 *    ^                         ^                            |                       |
 *    | FAILED (any state)      | LOST, ABANDONED            | LED                   | epoch_due
 *    |                         | (any leader)               |                       |
 *    |        nothing open     +--------------+-------------+----+ a tick is open   |
 *    |                         v                                 v                  |
 *    |     TURNED, none   +-> IDLE ------TURNED(tick)-------> SENDING <---REBUILT---|--+
 *    |     opened         |   | ^                              |  |  \              |  |
 *    |                    +---+ | TURNED,               all of |  |   +--DEAD--> REBUILDING
 *    |                          | none opened            it    |  |
 *    |                          |                 acknowledged |  | TURNED(tick)
 *    |                          |                              v  |
 *    +------------              +-------------------------- RECORDING --------------+
 *
 * Mode wal, when it is wanted and possible:
 *
 *   IDLE --ENTERED--> OPENING --STARTED--> STREAMING --LEFT--> ELECTED --LED--> IDLE, OPENING
 *                        ^                     | DEAD (producer or stream)        ^
 *                        | LED(is_wal)         v                                  |
 *                     ELECTED <--REBUILT-- REBUILDING                ELECTED, see above
 *
 * and how it is entered, beside IDLE, SENDING and RECORDING:
 *
 *   NONE --SLOT_ASKED--> ASKED --SLOT_MADE--> MADE --TURNED(tick)--> COVERING
 *    ^                     | SLOT_FAILED        | TURNED(none)           | TURNED, it is done
 *    +---------------------+                    +-------> COVERED <------+
 *                      both is_quiet: who was under         (ENTERED, or any end of leading: NONE)
 *                      way when it was made has ended
 *
 * Sleep, in IDLE: AWAKE --DOZING--> DOZING --TURNED(is_quiet)--> ASLEEP --WOKEN--> DOZING,
 * and back to AWAKE as soon as there is work.
 *
 * Backoff is no state of its own but a time in DOWN, SENDING, REBUILDING and OPENING before
 * which nothing is tried. Draining is a flag: the open tick is finished and no other
 * begun. GIVEN_UP leads from everywhere to GONE.
 *
 * R1  Rows are produced only of a tick whose TURNED (its commit) was seen, or that was
 *     found open by LED: nothing is published that a crash of PostgreSQL can undo.
 * R2  A tick is recorded as done only when its end is known and every row of it is
 *     acknowledged: done == sent == here.
 * R3  At most one tick is open: the next is opened by the transaction that records this
 *     one, or from IDLE.
 * R4  Without the lease (LOST, or its time by our own clock is over) nothing is produced,
 *     and the producer is dropped before anything else happens.
 * R5  sent - done <= inflight_max.
 * R6  Rows are produced in the order of their ordinals, without a gap; after a rebuild
 *     again from `resume`, the last place to go on from.
 * R7  done never falls within a tick; progress is written down only up to `resume`, which
 *     is `done` unless that lies in the middle of something.
 * R8  Mode wal is entered only when a tick is done whose snapshot is younger than the slot
 *     and sees everybody who was under way when it was made: a commit can be in WAL below
 *     the slot's begin long before a snapshot sees it (synchronous replication).
 * R9  Another epoch begins in mode wal only when done == sent, the last row sent ended its
 *     transaction, and what may have been sent before the stream was started is acknowledged:
 *     no transaction is sent half under each, none again under another.
 * R10 With a gate no row at or above `gated` is produced.
 * R11 Two looks are `asleep_ms` apart only while the flag is up and every transaction that
 *     may not have seen it has ended.
 */
#include "outbox/relay_core.h"

#include <string.h>

#include "base/assert.h"
#include "base/limits.h"

#define SLOW_TURN_MS 5 /* an idle turn that took longer is asked for less often */
#define MARKS_LEFT   3 /* a commit is streamed a moment before every snapshot sees it */

static int64_t
min_of(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t
max_of(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

void
skald__relay_init(struct skald__relay_core *c, const struct skald__relay_conf *conf)
{
	memset(c, 0, sizeof(*c));
	c->conf = *conf;
	c->state = SKALD__RELAY_DOWN;
	c->poll_ms = conf->poll_min_ms;
}

bool
skald__relay_is_leader(const struct skald__relay_core *c)
{
	return c->state == SKALD__RELAY_ELECTED || c->state == SKALD__RELAY_IDLE ||
	       c->state == SKALD__RELAY_SENDING || c->state == SKALD__RELAY_RECORDING ||
	       c->state == SKALD__RELAY_REBUILDING || c->state == SKALD__RELAY_OPENING ||
	       c->state == SKALD__RELAY_STREAMING;
}

const char *
skald__relay_state_name(enum skald__relay_state state)
{
	static const char *const names[] = {
		[SKALD__RELAY_DOWN] = "down",
		[SKALD__RELAY_STANDBY] = "standby",
		[SKALD__RELAY_ELECTED] = "elected",
		[SKALD__RELAY_IDLE] = "idle",
		[SKALD__RELAY_SENDING] = "sending",
		[SKALD__RELAY_RECORDING] = "recording",
		[SKALD__RELAY_REBUILDING] = "rebuilding",
		[SKALD__RELAY_OPENING] = "opening",
		[SKALD__RELAY_STREAMING] = "streaming",
		[SKALD__RELAY_GONE] = "gone",
	};

	return names[state];
}

/* --- events ------------------------------------------------------------------------------- */

/* The rows of a tick begin, or begin again, at an ordinal. */
static void
begin_rows(struct skald__relay_core *c, uint64_t ordinal)
{
	c->done = c->resume = c->sent = c->here = c->gated = ordinal;
	c->is_end_known = false;
	c->is_asked = false;
	c->is_full = false;
	c->is_dry = false;
	c->is_moved = false;
	c->is_stuffed = false;
	c->is_between = true;
	c->send_at_ms = 0;
	c->gate_at_ms = 0;
}

static void
look_for_end(struct skald__relay_core *c)
{
	if (c->state == SKALD__RELAY_SENDING && c->is_end_known && c->done == c->here)
		c->state = SKALD__RELAY_RECORDING; /* R2 */
}

static void
see_led(struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	if (c->state != SKALD__RELAY_ELECTED)
		return;
	c->is_wal = ev->is_wal;
	c->tick = ev->tick;
	c->epoch_due = ev->epoch_due;
	c->drain_due = c->must_leave = false;
	c->slot = SKALD__SLOT_NONE;
	c->nap = SKALD__NAP_AWAKE;
	c->busy_at_ms = now_ms;
	c->retry_at_ms = now_ms;
	c->mark_due = true; /* whether the last leader left one is not known */
	c->poll_ms = c->conf.poll_min_ms;
	c->poll_at_ms = now_ms;
	c->ring_at_ms = now_ms + c->conf.ring_ms;
	c->progress_at_ms = now_ms + c->conf.progress_ms;
	c->recorded = ev->ordinal;
	begin_rows(c, ev->ordinal);
	if (ev->is_wal)
		c->state = SKALD__RELAY_OPENING;
	else
		c->state = ev->is_open ? SKALD__RELAY_SENDING : SKALD__RELAY_IDLE;
}

/* A turn that looked for the next tick: does its snapshot cover the slot (R8)? */
static void
cover_slot(struct skald__relay_core *c, const struct skald__relay_ev *ev, bool was_idle)
{
	if (c->slot == SKALD__SLOT_COVERING && !was_idle)
		c->slot = SKALD__SLOT_COVERED;
	else if (c->slot == SKALD__SLOT_MADE && ev->is_open && ev->is_quiet)
		c->slot = ev->tick ? SKALD__SLOT_COVERING : SKALD__SLOT_COVERED;
}

/* When to look again after nothing was found. */
static void
pace(struct skald__relay_core *c, const struct skald__relay_ev *ev, bool was_idle,
	int64_t now_ms)
{
	bool is_lazy = was_idle && c->poll_ms == c->conf.poll_max_ms;

	c->poll_ms = was_idle ? min_of(c->poll_ms * 2, c->conf.poll_max_ms)
			      : c->conf.poll_min_ms;
	c->poll_at_ms =
		now_ms + max_of(c->poll_ms, was_idle ? min_of(4 * ev->took_ms, 1000) : 0);
	if (c->nap == SKALD__NAP_DOZING && is_lazy && ev->is_quiet)
		c->nap = SKALD__NAP_ASLEEP; /* R11 */
	if (c->nap == SKALD__NAP_ASLEEP && c->slot != SKALD__SLOT_MADE)
		c->poll_at_ms = now_ms + c->conf.asleep_ms;
}

static void
see_turned(struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	bool was_idle = c->state == SKALD__RELAY_IDLE;

	if (!was_idle && c->state != SKALD__RELAY_RECORDING)
		return;
	c->mark_due = (c->mark_due || !was_idle) && !ev->is_marked;
	if (ev->is_marked)
		c->marked_at_ms = now_ms;
	cover_slot(c, ev, was_idle);
	if (ev->tick || !was_idle)
		c->busy_at_ms = now_ms;
	if (ev->tick) {
		c->tick = ev->tick;
		c->recorded = 0;
		c->progress_at_ms = now_ms + c->conf.progress_ms;
		begin_rows(c, 0);
		c->here = ev->count;
		c->is_end_known = ev->is_end;
		c->state = SKALD__RELAY_SENDING;
		look_for_end(c);
		return;
	}
	c->is_slow = was_idle && ev->took_ms > SLOW_TURN_MS;
	pace(c, ev, was_idle, now_ms);
	c->state = SKALD__RELAY_IDLE;
	if (c->epoch_due && !was_idle)
		c->state =
			SKALD__RELAY_ELECTED; /* the open tick is done: now the new epoch */
}

static void
see_rows(struct skald__relay_core *c, const struct skald__relay_ev *ev)
{
	if (c->state != SKALD__RELAY_SENDING || !c->is_asked)
		return;
	c->is_asked = false;
	c->here += ev->count;
	c->is_end_known = ev->is_end;
	look_for_end(c);
}

static void
see_acked(struct skald__relay_core *c, const struct skald__relay_ev *ev)
{
	if (c->state != SKALD__RELAY_SENDING && c->state != SKALD__RELAY_STREAMING)
		return;
	SKALD_ASSERT(ev->ordinal >= c->done && ev->ordinal <= c->sent); /* R7 */
	SKALD_ASSERT(ev->resume <= ev->ordinal);
	if (ev->resume > c->resume)
		c->marks_left = MARKS_LEFT;
	if (ev->ordinal > c->done || c->done == c->sent)
		c->is_full = false; /* else there is no more room than before */
	c->done = ev->ordinal;
	c->resume = ev->resume;
	look_for_end(c);
}

static void
see_sent(struct skald__relay_core *c, const struct skald__relay_ev *ev)
{
	c->sent += ev->count;
	c->is_full = ev->is_full;
	if (ev->count > 0) {
		c->is_between = ev->is_between;
		c->is_stuffed = false;
		c->is_dry = false; /* while they were sent more came */
	}
	SKALD_ASSERT(c->sent <= c->here); /* R6 */
}

static void
see_grew(struct skald__relay_core *c, const struct skald__relay_ev *ev)
{
	if (c->state != SKALD__RELAY_SENDING && c->state != SKALD__RELAY_STREAMING)
		return;
	c->here += ev->count;
	c->gated += ev->count; /* they were durable long ago */
}

static void
see_progressed(
	struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	c->recorded = ev->ordinal;
	c->progress_at_ms = now_ms + c->conf.progress_ms;
}

/* In mode wal this is also when what is new is looked for without traffic. */
static void
see_rung(struct skald__relay_core *c, int64_t now_ms)
{
	c->ring_at_ms = now_ms + c->conf.ring_ms;
	if (c->marks_left == 0)
		c->marks_left = 1;
}

static void
see_woken(struct skald__relay_core *c, int64_t now_ms)
{
	c->poll_at_ms = now_ms;
	if (c->nap != SKALD__NAP_ASLEEP)
		return;
	c->nap = SKALD__NAP_DOZING;
	c->poll_ms = c->conf.poll_min_ms;
}

static void
see_lease(struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	if (c->state != SKALD__RELAY_STANDBY)
		return;
	c->term = ev->term;
	c->retry_at_ms = now_ms + c->conf.standby_ms;
	if (!ev->term)
		return;
	c->lease_until_ms = ev->at_ms + SKALD_LEASE_MS;
	c->renew_at_ms = ev->at_ms + SKALD_LEASE_RENEW_MS;
	c->state = SKALD__RELAY_ELECTED;
}

static void
see_wish(struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	c->conf.wants_wal = ev->is_open;
	c->slot_at_ms = now_ms;
}

static void
see_stuck(struct skald__relay_core *c, const struct skald__relay_ev *ev)
{
	if (c->state == SKALD__RELAY_REBUILDING || c->state == SKALD__RELAY_OPENING)
		c->retry_at_ms = ev->at_ms;
	else
		c->send_at_ms = ev->at_ms;
}

/* Not ours any more: back to waiting, the producer goes first (R4). */
static void
step_down(struct skald__relay_core *c, enum skald__relay_state to, int64_t retry_at_ms)
{
	c->must_abandon = c->must_abandon || skald__relay_is_leader(c);
	c->state = to;
	c->term = 0;
	c->retry_at_ms = retry_at_ms;
	c->slot = SKALD__SLOT_NONE;
	c->nap = SKALD__NAP_AWAKE;
	begin_rows(c, 0);
}

static void
see_dead(struct skald__relay_core *c, const struct skald__relay_ev *ev)
{
	if (c->state != SKALD__RELAY_SENDING && c->state != SKALD__RELAY_STREAMING)
		return;
	c->state = SKALD__RELAY_REBUILDING;
	c->retry_at_ms = ev->at_ms;
}

/* In mode wal whether the slot still stands is looked at first. */
static void
see_rebuilt(struct skald__relay_core *c, const struct skald__relay_ev *ev)
{
	if (c->state != SKALD__RELAY_REBUILDING)
		return;
	c->state = c->is_wal ? SKALD__RELAY_ELECTED : SKALD__RELAY_SENDING;
	begin_rows(c, ev->ordinal); /* R6 */
}

static void
see_slot(struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	if (ev->kind == SKALD__EV_SLOT_ASKED) {
		c->slot = SKALD__SLOT_ASKED;
	} else if (ev->kind == SKALD__EV_SLOT_MADE && c->slot == SKALD__SLOT_ASKED) {
		c->slot = SKALD__SLOT_MADE;
		c->poll_at_ms = now_ms;
	} else if (ev->kind == SKALD__EV_SLOT_FAILED) {
		c->slot = SKALD__SLOT_NONE;
		c->slot_at_ms = ev->at_ms;
	}
}

static void
see_started(struct skald__relay_core *c, int64_t now_ms)
{
	if (c->state != SKALD__RELAY_OPENING)
		return;
	begin_rows(c, 0);
	c->recorded = 0;
	c->recorded_at_ms = now_ms;
	c->marks_left = MARKS_LEFT; /* whether the last leader left one is not known */
	c->is_caught_up = false;
	c->state = SKALD__RELAY_STREAMING;
}

static void
see_recorded(
	struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	if (c->state != SKALD__RELAY_STREAMING)
		return;
	c->recorded = ev->ordinal;
	c->recorded_at_ms = now_ms;
	c->is_moved = false;
	if (ev->is_marked && c->marks_left > 0)
		c->marks_left--;
	c->is_caught_up = c->is_caught_up || ev->is_marked;
	c->drain_due = ev->epoch_due;
	c->must_leave = ev->is_full;
}

/* What only mode wal, the way to it, gate and sleep know. */
static void
see_other(struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	bool is_streaming = c->state == SKALD__RELAY_STREAMING;

	if (ev->kind == SKALD__EV_STARTED) {
		see_started(c, now_ms);
	} else if (ev->kind == SKALD__EV_RECORDED) {
		see_recorded(c, ev, now_ms);
	} else if (ev->kind == SKALD__EV_ENTERED && c->slot == SKALD__SLOT_COVERED) {
		c->slot = SKALD__SLOT_NONE;
		c->is_wal = true;
		c->retry_at_ms = now_ms;
		c->state = SKALD__RELAY_OPENING;
	} else if (ev->kind == SKALD__EV_MOVED) {
		c->is_moved = true;
	} else if (ev->kind == SKALD__EV_READABLE) {
		c->is_dry = false;
	} else if (ev->kind == SKALD__EV_READ && is_streaming) {
		c->here += ev->count;
		c->is_dry = ev->is_end;
		c->is_stuffed = ev->is_full;
	} else if (ev->kind == SKALD__EV_LEFT &&
		   (is_streaming || c->state == SKALD__RELAY_OPENING)) {
		c->slot_at_ms = ev->at_ms;
		c->state = SKALD__RELAY_ELECTED;
	} else if (ev->kind == SKALD__EV_GATED) {
		if (ev->ordinal > c->gated)
			c->gated = ev->ordinal;
		c->gate_at_ms = ev->at_ms;
	} else if (ev->kind == SKALD__EV_WOKEN) {
		see_woken(c, now_ms);
	} else if (ev->kind == SKALD__EV_RESTLESS) {
		c->is_restless = ev->is_open;
	} else if (ev->kind == SKALD__EV_DOZING) {
		c->nap = ev->is_open ? SKALD__NAP_DOZING : SKALD__NAP_AWAKE;
	} else {
		see_slot(c, ev, now_ms);
	}
}

static void
see_leader_event(
	struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	switch (ev->kind) {
	case SKALD__EV_RENEWED:
		c->lease_until_ms = ev->at_ms + SKALD_LEASE_MS;
		c->renew_at_ms = ev->at_ms + SKALD_LEASE_RENEW_MS;
		break;
	case SKALD__EV_LED:
		see_led(c, ev, now_ms);
		break;
	case SKALD__EV_TURNED:
		see_turned(c, ev, now_ms);
		break;
	case SKALD__EV_ASKED:
		c->is_asked = true;
		break;
	case SKALD__EV_ROWS:
		see_rows(c, ev);
		break;
	case SKALD__EV_SENT:
		see_sent(c, ev);
		break;
	case SKALD__EV_ACKED:
		see_acked(c, ev);
		break;
	case SKALD__EV_GREW:
		see_grew(c, ev);
		break;
	case SKALD__EV_PROGRESSED:
		see_progressed(c, ev, now_ms);
		break;
	case SKALD__EV_RUNG:
		see_rung(c, now_ms);
		break;
	case SKALD__EV_DEAD:
		see_dead(c, ev);
		break;
	case SKALD__EV_REBUILT:
		see_rebuilt(c, ev);
		break;
	case SKALD__EV_STUCK:
		see_stuck(c, ev);
		break;
	case SKALD__EV_WOKEN:
	case SKALD__EV_SLOT_ASKED:
	case SKALD__EV_SLOT_MADE:
	case SKALD__EV_SLOT_FAILED:
	case SKALD__EV_STARTED:
	case SKALD__EV_RECORDED:
	case SKALD__EV_ENTERED:
	case SKALD__EV_READABLE:
	case SKALD__EV_MOVED:
	case SKALD__EV_READ:
	case SKALD__EV_LEFT:
	case SKALD__EV_GATED:
	case SKALD__EV_DOZING:
	case SKALD__EV_RESTLESS:
		see_other(c, ev, now_ms);
		break;
	case SKALD__EV_CONNECTED:
	case SKALD__EV_LEASE:
	case SKALD__EV_LOST:
	case SKALD__EV_FAILED:
	case SKALD__EV_ABANDONED:
	case SKALD__EV_WISH:
	case SKALD__EV_STOP:
	case SKALD__EV_GIVEN_UP:
		break; /* of every state, see below */
	}
}

void
skald__relay_see(
	struct skald__relay_core *c, const struct skald__relay_ev *ev, int64_t now_ms)
{
	if (c->state == SKALD__RELAY_GONE)
		return;
	switch (ev->kind) {
	case SKALD__EV_CONNECTED:
		if (c->state == SKALD__RELAY_DOWN)
			step_down(c, SKALD__RELAY_STANDBY, now_ms);
		break;
	case SKALD__EV_FAILED:
		step_down(c, SKALD__RELAY_DOWN, ev->at_ms);
		break;
	case SKALD__EV_LOST:
		if (c->state != SKALD__RELAY_DOWN)
			step_down(c, SKALD__RELAY_STANDBY, now_ms + c->conf.standby_ms);
		break;
	case SKALD__EV_ABANDONED:
		if (skald__relay_is_leader(c))
			step_down(c, SKALD__RELAY_STANDBY, now_ms);
		c->must_abandon = false;
		break;
	case SKALD__EV_LEASE:
		see_lease(c, ev, now_ms);
		break;
	case SKALD__EV_WISH:
		see_wish(c, ev, now_ms);
		break;
	case SKALD__EV_STOP:
		c->is_stopping = true;
		c->stop_at_ms = ev->at_ms;
		break;
	case SKALD__EV_GIVEN_UP:
		c->state = SKALD__RELAY_GONE;
		c->must_abandon = false;
		break;
	case SKALD__EV_RENEWED:
	case SKALD__EV_LED:
	case SKALD__EV_TURNED:
	case SKALD__EV_ASKED:
	case SKALD__EV_ROWS:
	case SKALD__EV_SENT:
	case SKALD__EV_ACKED:
	case SKALD__EV_GREW:
	case SKALD__EV_PROGRESSED:
	case SKALD__EV_RUNG:
	case SKALD__EV_DEAD:
	case SKALD__EV_REBUILT:
	case SKALD__EV_STUCK:
	case SKALD__EV_WOKEN:
	case SKALD__EV_DOZING:
	case SKALD__EV_RESTLESS:
	case SKALD__EV_GATED:
	case SKALD__EV_SLOT_ASKED:
	case SKALD__EV_SLOT_MADE:
	case SKALD__EV_SLOT_FAILED:
	case SKALD__EV_ENTERED:
	case SKALD__EV_STARTED:
	case SKALD__EV_READABLE:
	case SKALD__EV_MOVED:
	case SKALD__EV_READ:
	case SKALD__EV_RECORDED:
	case SKALD__EV_LEFT:
		if (skald__relay_is_leader(c)) /* else an answer that came too late */
			see_leader_event(c, ev, now_ms);
		break;
	}
}
