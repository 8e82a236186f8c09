/*
 * relay_core.c - what the relay decides; relay.c does it.
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
 * Backoff is no state of its own but a time in DOWN, SENDING and REBUILDING before
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
 *     again from `done`, the last ordinal below which everything is acknowledged.
 * R7  done never falls within a tick; progress is written down only up to `resume`, which
 *     is `done` unless that lies in the middle of something.
 */
#include "outbox/relay_core.h"

#include <string.h>

#include "base/assert.h"
#include "base/limits.h"

#define SLOW_TURN_MS 5 /* an idle turn that took longer is asked for less often */
#define WAIT_MAX_MS  100

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
	       c->state == SKALD__RELAY_REBUILDING;
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
		[SKALD__RELAY_GONE] = "gone",
	};

	return names[state];
}

/* --- events ------------------------------------------------------------------------------- */

/* The rows of a tick begin, or begin again, at an ordinal. */
static void
begin_rows(struct skald__relay_core *c, uint64_t ordinal)
{
	c->done = c->resume = c->sent = c->here = ordinal;
	c->is_end_known = false;
	c->is_asked = false;
	c->is_full = false;
	c->send_at_ms = 0;
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
	c->tick = ev->tick;
	c->epoch_due = ev->epoch_due;
	c->mark_due = true; /* whether the last leader left one is not known */
	c->poll_ms = c->conf.poll_min_ms;
	c->poll_at_ms = now_ms;
	c->ring_at_ms = now_ms + c->conf.ring_ms;
	c->progress_at_ms = now_ms + c->conf.progress_ms;
	c->recorded = ev->ordinal;
	begin_rows(c, ev->ordinal);
	c->state = ev->is_open ? SKALD__RELAY_SENDING : SKALD__RELAY_IDLE;
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
	c->poll_ms = was_idle ? min_of(c->poll_ms * 2, c->conf.poll_max_ms)
			      : c->conf.poll_min_ms;
	c->poll_at_ms =
		now_ms + max_of(c->poll_ms, was_idle ? min_of(4 * ev->took_ms, 1000) : 0);
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
	if (c->state != SKALD__RELAY_SENDING)
		return;
	SKALD_ASSERT(ev->ordinal >= c->done && ev->ordinal <= c->sent); /* R7 */
	SKALD_ASSERT(ev->resume <= ev->ordinal);
	c->done = ev->ordinal;
	c->resume = ev->resume;
	c->is_full = false;
	look_for_end(c);
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
see_stuck(struct skald__relay_core *c, const struct skald__relay_ev *ev)
{
	if (c->state == SKALD__RELAY_REBUILDING)
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
	begin_rows(c, 0);
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
		c->sent += ev->count;
		c->is_full = ev->is_full;
		SKALD_ASSERT(c->sent <= c->here); /* R6 */
		break;
	case SKALD__EV_ACKED:
		see_acked(c, ev);
		break;
	case SKALD__EV_GREW:
		if (c->state == SKALD__RELAY_SENDING)
			c->here += ev->count;
		break;
	case SKALD__EV_PROGRESSED:
		c->recorded = ev->ordinal;
		c->progress_at_ms = now_ms + c->conf.progress_ms;
		break;
	case SKALD__EV_RUNG:
		c->ring_at_ms = now_ms + c->conf.ring_ms;
		break;
	case SKALD__EV_DEAD:
		if (c->state == SKALD__RELAY_SENDING) {
			c->state = SKALD__RELAY_REBUILDING;
			c->retry_at_ms = ev->at_ms;
		}
		break;
	case SKALD__EV_REBUILT:
		if (c->state == SKALD__RELAY_REBUILDING) {
			c->state = SKALD__RELAY_SENDING;
			begin_rows(c, ev->ordinal); /* R6 */
		}
		break;
	case SKALD__EV_STUCK:
		see_stuck(c, ev);
		break;
	case SKALD__EV_WOKEN:
		c->poll_at_ms = now_ms;
		break;
	case SKALD__EV_CONNECTED:
	case SKALD__EV_LEASE:
	case SKALD__EV_LOST:
	case SKALD__EV_FAILED:
	case SKALD__EV_ABANDONED:
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
		if (skald__relay_is_leader(c)) /* else an answer that came too late */
			see_leader_event(c, ev, now_ms);
		break;
	}
}

/* --- commands ----------------------------------------------------------------------------- */

static struct skald__relay_do
wait_until(const struct skald__relay_core *c, int64_t at_ms, int64_t now_ms)
{
	if (skald__relay_is_leader(c))
		at_ms = min_of(at_ms, min_of(c->renew_at_ms, c->lease_until_ms));
	if (c->is_stopping)
		at_ms = min_of(at_ms, c->stop_at_ms);
	return (struct skald__relay_do){ .verb = SKALD__DO_WAIT,
		.at_ms = max_of(at_ms, now_ms) };
}

static struct skald__relay_do
next_idle(const struct skald__relay_core *c, int64_t now_ms)
{
	bool mark = c->mark_due && now_ms - c->marked_at_ms >= c->conf.mark_ms;

	if (now_ms >= c->poll_at_ms)
		return (struct skald__relay_do){ .verb = SKALD__DO_TURN,
			.open_next = true,
			.mark = mark,
			.advance = c->is_slow };
	if (now_ms >= c->ring_at_ms)
		return (struct skald__relay_do){ .verb = SKALD__DO_RING };
	return wait_until(c, min_of(c->poll_at_ms, c->ring_at_ms), now_ms);
}

static struct skald__relay_do
next_sending(const struct skald__relay_core *c, int64_t now_ms)
{
	uint64_t room = c->conf.inflight_max - (c->sent - c->done);
	int64_t at_ms = now_ms + WAIT_MAX_MS;

	if (c->resume > c->recorded && now_ms >= c->progress_at_ms)
		return (struct skald__relay_do){ .verb = SKALD__DO_PROGRESS };
	if (!c->is_asked && !c->is_end_known)
		return (struct skald__relay_do){ .verb = SKALD__DO_ASK };
	if (c->sent < c->here && now_ms >= c->send_at_ms && !c->is_full && room > 0) {
		uint64_t count = c->here - c->sent;

		count = count < room ? count : room; /* R5 */
		count = count < c->conf.slice_rows ? count : c->conf.slice_rows;
		return (struct skald__relay_do){ .verb = SKALD__DO_SEND, .count = count };
	}
	if (c->sent == c->here && c->is_asked)
		return (struct skald__relay_do){ .verb = SKALD__DO_TAKE };
	if (c->sent < c->here && now_ms < c->send_at_ms)
		at_ms = min_of(at_ms, c->send_at_ms);
	if (c->resume > c->recorded)
		at_ms = min_of(at_ms, c->progress_at_ms);
	return wait_until(c, at_ms, now_ms);
}

/* What stands above the state: R4, the renewal, the drain. */
static bool
next_of_all(
	const struct skald__relay_core *c, int64_t now_ms, struct skald__relay_do *todo)
{
	bool is_leader = skald__relay_is_leader(c);
	bool is_open = c->state == SKALD__RELAY_SENDING ||
		       c->state == SKALD__RELAY_RECORDING ||
		       c->state == SKALD__RELAY_REBUILDING;

	if (c->state == SKALD__RELAY_GONE)
		*todo = (struct skald__relay_do){ .verb = SKALD__DO_LEAVE };
	else if (c->must_abandon || (is_leader && now_ms >= c->lease_until_ms))
		*todo = (struct skald__relay_do){ .verb = SKALD__DO_ABANDON };
	else if (c->is_stopping && (!is_open || now_ms >= c->stop_at_ms))
		*todo = (struct skald__relay_do){ .verb = SKALD__DO_GIVE_UP };
	else if (is_leader && now_ms >= c->renew_at_ms)
		*todo = (struct skald__relay_do){ .verb = SKALD__DO_RENEW };
	else
		return false;
	return true;
}

struct skald__relay_do
skald__relay_next(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_do todo = { .verb = SKALD__DO_LEAVE };

	if (next_of_all(c, now_ms, &todo))
		return todo;
	switch (c->state) {
	case SKALD__RELAY_DOWN:
	case SKALD__RELAY_STANDBY:
	case SKALD__RELAY_REBUILDING:
		if (now_ms < c->retry_at_ms)
			return wait_until(c, c->retry_at_ms, now_ms);
		todo.verb = c->state == SKALD__RELAY_DOWN      ? SKALD__DO_CONNECT
			    : c->state == SKALD__RELAY_STANDBY ? SKALD__DO_TAKE_LEASE
							       : SKALD__DO_REBUILD;
		break;
	case SKALD__RELAY_ELECTED:
		todo.verb = SKALD__DO_LEAD;
		break;
	case SKALD__RELAY_IDLE:
		return next_idle(c, now_ms);
	case SKALD__RELAY_SENDING:
		return next_sending(c, now_ms);
	case SKALD__RELAY_RECORDING:
		todo.verb = SKALD__DO_TURN;
		todo.done_tick = c->tick;
		todo.open_next = !c->is_stopping && !c->epoch_due; /* R3 */
		todo.mark = now_ms - c->marked_at_ms >= c->conf.mark_ms;
		break;
	case SKALD__RELAY_GONE:
		break;
	}
	return todo;
}
