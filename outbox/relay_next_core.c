/*
 * relay_next_core.c - what the relay does next, given what it knows. The picture and the
 * invariants R1 to R11 stand in relay_core.c.
 */
#include "outbox/relay_core.h"

#include "base/assert.h"

#define WAIT_MAX_MS 100

static int64_t
min_of(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static struct skald__relay_do
do_verb(enum skald__relay_verb verb)
{
	return (struct skald__relay_do){ .verb = verb };
}

static struct skald__relay_do
wait_until(const struct skald__relay_core *c, int64_t at_ms, int64_t now_ms)
{
	if (skald__relay_is_leader(c))
		at_ms = min_of(at_ms, min_of(c->renew_at_ms, c->lease_until_ms));
	if (c->is_stopping)
		at_ms = min_of(at_ms, c->stop_at_ms);
	return (struct skald__relay_do){ .verb = SKALD__DO_WAIT,
		.at_ms = at_ms > now_ms ? at_ms : now_ms };
}

/* Rows below may be produced as far as the gate goes (R10). */
static uint64_t
limit_of(const struct skald__relay_core *c)
{
	return c->conf.has_gate && c->gated < c->here ? c->gated : c->here;
}

static bool
can_send(const struct skald__relay_core *c, int64_t now_ms)
{
	return c->sent < limit_of(c) && now_ms >= c->send_at_ms && !c->is_full &&
	       c->sent - c->done < c->conf.inflight_max;
}

static bool
must_ask_gate(const struct skald__relay_core *c, int64_t now_ms)
{
	return c->conf.has_gate && c->gated < c->here && now_ms >= c->gate_at_ms;
}

static struct skald__relay_do
send(const struct skald__relay_core *c, bool to_mark)
{
	uint64_t room = c->conf.inflight_max - (c->sent - c->done);
	uint64_t count = limit_of(c) - c->sent;

	count = count < room ? count : room; /* R5 */
	count = count < c->conf.slice_rows ? count : c->conf.slice_rows;
	return (struct skald__relay_do){
		.verb = SKALD__DO_SEND, .count = count, .to_mark = to_mark
	};
}

/* --- mode poll ------------------------------------------------------------------------------ */

static bool
is_slot_due(const struct skald__relay_core *c, int64_t now_ms)
{
	return c->conf.wants_wal && c->slot == SKALD__SLOT_NONE &&
	       now_ms >= c->slot_at_ms;
}

static bool
is_tired(const struct skald__relay_core *c, int64_t now_ms)
{
	return c->conf.sleep_after_ms > 0 && c->nap == SKALD__NAP_AWAKE &&
	       !c->is_restless && c->slot == SKALD__SLOT_NONE &&
	       !is_slot_due(c, now_ms) &&
	       now_ms - c->busy_at_ms >= c->conf.sleep_after_ms;
}

static struct skald__relay_do
next_idle(const struct skald__relay_core *c, int64_t now_ms)
{
	bool mark = c->mark_due && now_ms - c->marked_at_ms >= c->conf.mark_ms;

	if (c->slot == SKALD__SLOT_COVERED)
		return do_verb(
			c->nap == SKALD__NAP_AWAKE ? SKALD__DO_ENTER : SKALD__DO_DOZE);
	if (now_ms >= c->ring_at_ms)
		return do_verb(SKALD__DO_RING);
	if (is_slot_due(c, now_ms))
		return do_verb(SKALD__DO_SLOT);
	if (now_ms >= c->poll_at_ms)
		return (struct skald__relay_do){ .verb = SKALD__DO_TURN,
			.open_next = true,
			.mark = mark,
			.advance = c->is_slow || c->slot == SKALD__SLOT_MADE };
	if (c->is_restless && c->nap != SKALD__NAP_AWAKE)
		return do_verb(SKALD__DO_DOZE);
	if (is_tired(c, now_ms))
		return (struct skald__relay_do){ .verb = SKALD__DO_DOZE,
			.is_open = true };
	return wait_until(c, min_of(c->poll_at_ms, c->ring_at_ms), now_ms);
}

static struct skald__relay_do
next_sending(const struct skald__relay_core *c, int64_t now_ms)
{
	int64_t at_ms = now_ms + WAIT_MAX_MS;

	if (c->resume > c->recorded && now_ms >= c->progress_at_ms)
		return do_verb(SKALD__DO_PROGRESS);
	if (!c->is_asked && !c->is_end_known)
		return do_verb(SKALD__DO_ASK);
	if (can_send(c, now_ms))
		return send(c, false);
	if (c->nap != SKALD__NAP_AWAKE)
		return do_verb(SKALD__DO_DOZE);
	if (must_ask_gate(c, now_ms))
		return do_verb(SKALD__DO_GATE);
	if (c->sent == c->here && c->is_asked)
		return do_verb(SKALD__DO_TAKE);
	if (c->sent < c->here && now_ms < c->send_at_ms)
		at_ms = min_of(at_ms, c->send_at_ms);
	if (c->conf.has_gate && c->gated < c->here)
		at_ms = min_of(at_ms, c->gate_at_ms);
	if (c->resume > c->recorded)
		at_ms = min_of(at_ms, c->progress_at_ms);
	return wait_until(c, at_ms, now_ms);
}

/* Under load there is no idle moment but the one that is made for the ring and the slot. */
static struct skald__relay_do
next_recording(const struct skald__relay_core *c, int64_t now_ms)
{
	if (c->nap !=
		SKALD__NAP_AWAKE) /* there is work: writers need not call any more */
		return do_verb(SKALD__DO_DOZE);
	bool is_chore_due = now_ms >= c->ring_at_ms || is_slot_due(c, now_ms);

	return (struct skald__relay_do){ .verb = SKALD__DO_TURN,
		.done_tick = c->tick,
		.open_next = !c->is_stopping && !c->epoch_due && !is_chore_due &&
			     c->slot != SKALD__SLOT_COVERING, /* R3, R8 */
		.mark = now_ms - c->marked_at_ms >= c->conf.mark_ms };
}

/* --- mode wal ------------------------------------------------------------------------------- */

static bool
is_drained(const struct skald__relay_core *c)
{
	return c->done == c->sent && c->resume == c->done && c->is_between &&
	       c->is_caught_up; /* R9 */
}

static int64_t
record_at(const struct skald__relay_core *c)
{
	if (c->resume > c->recorded || c->marks_left > 0 || c->is_moved)
		return c->recorded_at_ms + c->conf.mark_ms;
	if (c->here > c->done || c->is_restless)
		return c->recorded_at_ms + c->conf.progress_ms;
	return INT64_MAX;
}

static bool
can_read(const struct skald__relay_core *c)
{
	return !c->is_dry && !c->is_stuffed && c->here - c->sent < c->conf.queue_rows;
}

static struct skald__relay_do
read(const struct skald__relay_core *c)
{
	return (struct skald__relay_do){ .verb = SKALD__DO_READ,
		.count = c->conf.slice_rows };
}

static struct skald__relay_do
next_streaming(const struct skald__relay_core *c, int64_t now_ms)
{
	bool is_draining = c->drain_due && c->is_caught_up;
	bool is_halting = is_draining || c->is_stopping;
	bool may_begin = !is_halting || !c->is_between; /* no half of a transaction */
	int64_t at_ms;

	if (c->must_leave || !c->conf.wants_wal)
		return do_verb(SKALD__DO_LEAVE_WAL);
	if (now_ms >= record_at(c) || (c->drain_due && is_drained(c)))
		return (struct skald__relay_do){ .verb = SKALD__DO_RECORD,
			.is_drained = c->drain_due && is_drained(c) };
	if (now_ms >= c->ring_at_ms)
		return do_verb(SKALD__DO_RING);
	/* reading comes first: a server that can send no more does not decode */
	if (!is_halting && can_read(c))
		return read(c);
	if (may_begin && can_send(c, now_ms))
		return send(c, is_halting);
	if (must_ask_gate(c, now_ms))
		return do_verb(SKALD__DO_GATE);
	if (may_begin && can_read(c)) /* the rest of a transaction */
		return read(c);
	at_ms = min_of(record_at(c), c->ring_at_ms);
	if (c->sent < c->here && now_ms < c->send_at_ms)
		at_ms = min_of(at_ms, c->send_at_ms);
	if (c->conf.has_gate && c->gated < c->here)
		at_ms = min_of(at_ms, c->gate_at_ms);
	return wait_until(c, at_ms, now_ms);
}

/* --- all ------------------------------------------------------------------------------------ */

/* Something is under way that a drain finishes. */
static bool
is_open(const struct skald__relay_core *c)
{
	if (c->state == SKALD__RELAY_STREAMING)
		return c->sent > c->done || c->resume > c->recorded || !c->is_between;
	return c->state == SKALD__RELAY_SENDING || c->state == SKALD__RELAY_RECORDING ||
	       (c->state == SKALD__RELAY_REBUILDING && !c->is_wal);
}

/* What stands above the state: R4, the renewal, the drain. */
static bool
next_of_all(
	const struct skald__relay_core *c, int64_t now_ms, struct skald__relay_do *todo)
{
	bool is_leader = skald__relay_is_leader(c);

	if (c->state == SKALD__RELAY_GONE)
		*todo = do_verb(SKALD__DO_LEAVE);
	else if (c->must_abandon || (is_leader && now_ms >= c->lease_until_ms))
		*todo = do_verb(SKALD__DO_ABANDON);
	else if (c->is_stopping && (!is_open(c) || now_ms >= c->stop_at_ms))
		*todo = do_verb(SKALD__DO_GIVE_UP);
	else if (is_leader && now_ms >= c->renew_at_ms)
		*todo = do_verb(SKALD__DO_RENEW);
	else
		return false;
	return true;
}

/* States in which there is one thing to do, once its time has come. */
static struct skald__relay_do
try_again(const struct skald__relay_core *c, enum skald__relay_verb verb, int64_t now_ms)
{
	return now_ms < c->retry_at_ms ? wait_until(c, c->retry_at_ms, now_ms)
				       : do_verb(verb);
}

struct skald__relay_do
skald__relay_next(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_do todo;

	if (next_of_all(c, now_ms, &todo))
		return todo;
	switch (c->state) {
	case SKALD__RELAY_DOWN:
		return try_again(c, SKALD__DO_CONNECT, now_ms);
	case SKALD__RELAY_STANDBY:
		return try_again(c, SKALD__DO_TAKE_LEASE, now_ms);
	case SKALD__RELAY_REBUILDING:
		return try_again(c, SKALD__DO_REBUILD, now_ms);
	case SKALD__RELAY_OPENING:
		return try_again(c, SKALD__DO_START, now_ms);
	case SKALD__RELAY_ELECTED:
		return do_verb(SKALD__DO_LEAD);
	case SKALD__RELAY_IDLE:
		return next_idle(c, now_ms);
	case SKALD__RELAY_SENDING:
		return next_sending(c, now_ms);
	case SKALD__RELAY_RECORDING:
		return next_recording(c, now_ms);
	case SKALD__RELAY_STREAMING:
		return next_streaming(c, now_ms);
	case SKALD__RELAY_GONE:
		break;
	}
	return do_verb(SKALD__DO_LEAVE);
}
