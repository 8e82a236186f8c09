/*
 * runner_core.c - what the runner decides about one batch; runner.c does it.
 *
 *            BATCH                    COMMITTED, all settled
 *   IDLE ------------> BUSY [lo, hi) ------------------------> IDLE (NEXT)
 *    ^                  | ^  |  COMMITTED: lo = hi, next range
 *    | DROP (any state) | |  | FAILED conflict, n > 1: half of it
 *    |                  | |  | FAILED unknown culprit, n > 1: half of it
 *                       | |  | FAILED culprit i rejected: [lo, i], i dead
 *        FAILED alone,  | |  |
 *        or conflict    v |  v FAILED outage          FAILED fatal: ENDED (STOP)
 *                   WAITING  AWAY <--+ GONE
 *                    TIME |   | TIME: PROBE, BACK: same range
 *
 * A batch is settled from left to right, so that order within a key is the order
 * of the log. A failing range is bisected: its left half, then the left half of
 * what is left of it, until one message is alone. The right half of a range whose
 * left half succeeded is not run whole: it holds the culprit.
 *
 * C1  lo never falls; messages below it are settled and never run again.
 * C2  lo < hi <= count in BUSY, WAITING and AWAY.
 * C3  Conflicts, outages and fencing count against no message.
 * C4  A message dies by REJECTED, or by FAILED conf.attempts times, never otherwise.
 * C5  A message counts a failure only when it is named or alone.
 * C6  k rejected messages of n cost at most k * ceil(log2 n) + k failing runs.
 * C7  A dead letter that cannot be written is waited for, never given up.
 */
#include "consumers/runner_core.h"

#include <string.h>

#include "base/assert.h"

static struct run_do
nothing(void)
{
	return (struct run_do){ .kind = RUN_DO_NOTHING };
}

void
skald__run_init(struct run_core *c, const struct run_conf *conf)
{
	memset(c, 0, sizeof(*c));
	c->conf = *conf;
	c->held = -1;
	c->width = UINT32_MAX;
	SKALD_ASSERT(conf->attempts >= 1);
}

void
skald__run_load(struct run_core *c, struct run_msg *msgs)
{
	SKALD_ASSERT(c->state == RUN_IDLE);
	c->msgs = msgs;
}

/* Uniform in [0, min(max, base * 2^n)]. */
static int64_t
jitter(uint64_t rand, unsigned n, int64_t base_ms, int64_t max_ms)
{
	int64_t high = base_ms;

	while (n-- > 0 && high < max_ms)
		high *= 2;
	if (high > max_ms)
		high = max_ms;
	return high <= 0 ? 0 : (int64_t)(rand % ((uint64_t)high + 1));
}

static struct run_do
settle_idle(struct run_core *c)
{
	c->state = RUN_IDLE;
	c->count = c->lo = c->hi = c->suspect = 0;
	c->held = -1;
	c->conflict_count = 0;
	return (struct run_do){ .kind = RUN_DO_NEXT };
}

static struct run_do
run(struct run_core *c)
{
	SKALD_ASSERT(c->lo < c->hi && c->hi <= c->count);
	c->state = RUN_BUSY;
	return (struct run_do){ .kind = RUN_DO_RUN, .lo = c->lo, .hi = c->hi };
}

static struct run_do
wait_until(struct run_core *c, enum run_state state, int64_t until_ms)
{
	c->state = state;
	c->until_ms = until_ms;
	return (struct run_do){ .kind = RUN_DO_WAIT, .until_ms = until_ms };
}

/* Choose the next range from lo on and run it, or wait for the message that heads it. */
static struct run_do
run_next(struct run_core *c, int64_t now_ms)
{
	unsigned span;

	if (c->lo >= c->count)
		return settle_idle(c);
	if (c->suspect <= c->lo)
		c->suspect = 0;
	span = c->count - c->lo;
	if (c->suspect)
		span = c->suspect - c->lo > 1 ? (c->suspect - c->lo) / 2 : 1;
	if (c->held >= (int)c->lo) {
		unsigned before = (unsigned)c->held - c->lo;

		if (before == 0)
			span = 1;
		else if (span > before)
			span = before;
	}
	if (span > c->width)
		span = c->width;
	c->hi = c->lo + span;
	if (c->held == (int)c->lo && now_ms < c->held_until_ms)
		return wait_until(c, RUN_WAITING, c->held_until_ms);
	return run(c);
}

static struct run_do
on_committed(struct run_core *c, int64_t now_ms)
{
	c->lo = c->hi;
	if (c->held >= 0 && (unsigned)c->held < c->lo)
		c->held = -1;
	if (c->width < UINT32_MAX / 2)
		c->width *= 2;
	else
		c->width = UINT32_MAX;
	c->conflict_count = 0;
	c->outage_count = 0;
	return run_next(c, now_ms);
}

static struct run_do
on_conflict(struct run_core *c, uint64_t rand, int64_t now_ms)
{
	unsigned span = c->hi - c->lo;
	int64_t wait_ms;

	if (span > 1) {
		c->width = span / 2;
		c->hi = c->lo + c->width;
		return run(c);
	}
	c->width = 1;
	wait_ms = jitter(
		rand, c->conflict_count, c->conf.conflict_ms, c->conf.conflict_ms * 16);
	if (c->conflict_count < 1000)
		c->conflict_count++;
	return wait_until(c, RUN_WAITING, now_ms + wait_ms);
}

static struct run_do
on_outage(struct run_core *c, uint64_t rand, int64_t now_ms)
{
	int64_t base_ms = c->conf.outage_ms, wait_ms;

	for (unsigned i = 0; i < c->outage_count && base_ms < c->conf.outage_max_ms; i++)
		base_ms *= 2;
	if (base_ms > c->conf.outage_max_ms)
		base_ms = c->conf.outage_max_ms;
	/* Half fixed, half jitter: many consumers must not come back in step. */
	wait_ms = base_ms / 2 + (int64_t)(rand % ((uint64_t)base_ms / 2 + 1));
	if (c->outage_count < 1000)
		c->outage_count++;
	return wait_until(c, RUN_AWAY, now_ms + wait_ms);
}

/* Message i is to be a dead letter: settle what is before it in the same transaction. */
static struct run_do
bury(struct run_core *c, unsigned i, enum run_fate fate)
{
	c->msgs[i].fate = (uint8_t)fate;
	c->held = -1;
	c->hi = i + 1;
	return run(c);
}

static struct run_do
on_own_failure(struct run_core *c, const struct run_event *ev, int64_t now_ms)
{
	struct run_msg *msg;
	unsigned i;

	if (ev->culprit < 0 && c->hi - c->lo > 1) {
		c->suspect = c->hi;
		c->hi = c->lo + (c->hi - c->lo) / 2;
		return run(c);
	}
	i = ev->culprit < 0 ? c->lo : (unsigned)ev->culprit;
	SKALD_ASSERT(i >= c->lo && i < c->hi);
	c->suspect = 0; /* found; whatever else is wrong fails by itself */
	msg = &c->msgs[i];
	if (msg->fate != RUN_HANDLE)
		return on_outage(c, ev->rand, now_ms); /* C7 */
	if (ev->fault == RUN_REJECTED)
		return bury(c, i, RUN_DEAD_FATAL);
	if (msg->attempts < UINT16_MAX)
		msg->attempts++;
	if (msg->attempts >= c->conf.attempts)
		return bury(c, i, RUN_DEAD_RETRY);
	c->held = (int)i;
	c->held_until_ms =
		now_ms +
		(ev->defer_ms > 0 ? ev->defer_ms
				  : jitter(ev->rand, msg->attempts - 1u,
					    c->conf.backoff_ms, c->conf.backoff_max_ms));
	return run_next(c, now_ms);
}

static struct run_do
on_failed(struct run_core *c, const struct run_event *ev, int64_t now_ms)
{
	switch (ev->fault) {
	case RUN_CONFLICT:
		return on_conflict(c, ev->rand, now_ms);
	case RUN_OUTAGE:
		return on_outage(c, ev->rand, now_ms);
	case RUN_FENCED:
		return run(c);
	case RUN_FAILED:
	case RUN_REJECTED:
		return on_own_failure(c, ev, now_ms);
	case RUN_FATAL:
		c->state = RUN_ENDED;
		return (struct run_do){ .kind = RUN_DO_STOP };
	}
	return nothing();
}

static struct run_do
in_idle(struct run_core *c, const struct run_event *ev, int64_t now_ms)
{
	switch (ev->kind) {
	case RUN_EV_BATCH:
		c->count = ev->count;
		c->lo = c->hi = c->suspect = 0;
		c->held = -1;
		return run_next(c, now_ms);
	case RUN_EV_COMMITTED:
	case RUN_EV_FAILED:
	case RUN_EV_TIME:
	case RUN_EV_BACK:
	case RUN_EV_GONE:
	case RUN_EV_DROP:
		break;
	}
	return nothing();
}

static struct run_do
in_busy(struct run_core *c, const struct run_event *ev, int64_t now_ms)
{
	switch (ev->kind) {
	case RUN_EV_COMMITTED:
		return on_committed(c, now_ms);
	case RUN_EV_FAILED:
		return on_failed(c, ev, now_ms);
	case RUN_EV_DROP:
		return settle_idle(c);
	case RUN_EV_BATCH:
	case RUN_EV_TIME:
	case RUN_EV_BACK:
	case RUN_EV_GONE:
		break;
	}
	return nothing();
}

static struct run_do
in_waiting(struct run_core *c, const struct run_event *ev, int64_t now_ms)
{
	switch (ev->kind) {
	case RUN_EV_TIME:
		if (now_ms < c->until_ms)
			return wait_until(c, RUN_WAITING, c->until_ms);
		return run(c);
	case RUN_EV_DROP:
		return settle_idle(c);
	case RUN_EV_BATCH:
	case RUN_EV_COMMITTED:
	case RUN_EV_FAILED:
	case RUN_EV_BACK:
	case RUN_EV_GONE:
		break;
	}
	return nothing();
}

static struct run_do
in_away(struct run_core *c, const struct run_event *ev, int64_t now_ms)
{
	switch (ev->kind) {
	case RUN_EV_TIME:
		if (now_ms < c->until_ms)
			return wait_until(c, RUN_AWAY, c->until_ms);
		return (struct run_do){ .kind = RUN_DO_PROBE };
	case RUN_EV_BACK:
		return run(c);
	case RUN_EV_GONE:
		return on_outage(c, ev->rand, now_ms);
	case RUN_EV_DROP:
		return settle_idle(c);
	case RUN_EV_BATCH:
	case RUN_EV_COMMITTED:
	case RUN_EV_FAILED:
		break;
	}
	return nothing();
}

struct run_do
skald__run_step(struct run_core *c, const struct run_event *ev, int64_t now_ms)
{
	switch (c->state) {
	case RUN_IDLE:
		return in_idle(c, ev, now_ms);
	case RUN_BUSY:
		return in_busy(c, ev, now_ms);
	case RUN_WAITING:
		return in_waiting(c, ev, now_ms);
	case RUN_AWAY:
		return in_away(c, ev, now_ms);
	case RUN_ENDED:
		break;
	}
	return nothing();
}
