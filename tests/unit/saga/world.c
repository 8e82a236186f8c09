/* world.c - participants, network and time of a random walk. */
#include "tests/unit/saga/world.h"

#include <stdlib.h>
#include <string.h>

enum { HEALTHY_AFTER = 250, TURNS_MAX = 3000, SENT_BEFORE_FULL = 80 };

static bool
one_in(struct world *w, uint64_t n)
{
	return skald_rand_below(&w->rand, n) == 0;
}

static uint32_t
between(struct world *w, uint32_t low, uint32_t high)
{
	return low + (uint32_t)skald_rand_below(&w->rand, high - low + 1);
}

/* --- the network ------------------------------------------------------------------------------ */

static void
post(struct world *w, const struct world_packet *p)
{
	if (w->packet_count < WORLD_PACKETS_MAX)
		w->packets[w->packet_count++] = *p;
	else
		abort(); /* the walk below keeps the network small */
}

static void
take_dos(struct world *w)
{
	for (unsigned i = 0; i < w->todo.count; i++) {
		const struct saga_do *d = &w->todo.items[i];
		struct world_packet p = { .has_expiry = d->has_expiry,
			.step = (uint8_t)d->step,
			.op = (uint8_t)d->op,
			.attempt = d->attempt,
			.round = d->round };

		if (d->kind == SAGA_DO_SEND)
			post(w, &p);
		w->late += d->kind == SAGA_DO_ROW && d->row == SAGA_ROW_LATE;
		w->stale += d->kind == SAGA_DO_ROW && d->row == SAGA_ROW_STALE;
	}
}

static void
tell(struct world *w, struct saga_event ev)
{
	ev.rand = skald_rand_next(&w->rand);
	memcpy(&w->before, &w->core, sizeof(w->core));
	w->next(&w->plan, &w->core, &ev, w->now_ms, &w->todo);
	w->events++;
	world_observe(w, &ev);
	take_dos(w);
}

/* --- a participant ---------------------------------------------------------------------------- */

static enum saga_reply
mood(struct world *w)
{
	if (w->turns > HEALTHY_AFTER || !one_in(w, 3))
		return SAGA_REPLY_SUCCESS;
	return (enum saga_reply)between(w, SAGA_REPLY_FAILURE, SAGA_REPLY_UNKNOWN);
}

static void
keep(struct world_key *key, enum saga_reply reply)
{
	if (reply == SAGA_REPLY_SUCCESS || reply == SAGA_REPLY_FAILURE)
		key->kept = reply;
}

static enum saga_reply
run_action(struct world *w, unsigned step, struct world_key *key)
{
	struct world_part *part = &w->parts[step];
	enum saga_reply reply = mood(w);
	bool may_lie =
		w->plan.steps[step].kind == SAGA_COMPENSATABLE && key->unknown_seen;

	if (key->is_landed && !may_lie && reply != SAGA_REPLY_UNKNOWN)
		reply = SAGA_REPLY_SUCCESS; /* it remembers what it did */
	if (!key->is_landed && (reply == SAGA_REPLY_SUCCESS ||
				       (reply == SAGA_REPLY_UNKNOWN && one_in(w, 2)))) {
		key->is_landed = true;
		part->landed++;
	}
	if (reply == SAGA_REPLY_SUCCESS)
		part->trace = TRACE_DONE;
	else if (reply == SAGA_REPLY_UNKNOWN && part->trace == TRACE_NONE)
		part->trace = TRACE_MAYBE;
	return reply;
}

static enum saga_reply
run_undo(struct world *w, unsigned step, enum saga_barrier *barrier)
{
	struct world_part *part = &w->parts[step];
	enum saga_reply reply;

	part->is_refusing = true;
	if (part->trace == TRACE_NONE) {
		*barrier = SAGA_BARRIER_EMPTY;
		return SAGA_REPLY_SUCCESS;
	}
	reply = mood(w);
	if (part->undone < part->landed &&
		(reply == SAGA_REPLY_SUCCESS ||
			(reply == SAGA_REPLY_UNKNOWN && one_in(w, 2))))
		part->undone++;
	return reply;
}

static void
serve(struct world *w, struct world_packet p)
{
	struct world_part *part = &w->parts[p.step];
	struct world_key *key = &part->keys[p.op][p.round % WORLD_ROUNDS_MAX];
	enum saga_reply reply;
	enum saga_barrier barrier = SAGA_BARRIER_NONE;

	if (key->kept) {
		reply = key->kept;
		barrier = SAGA_BARRIER_DUPLICATE;
	} else if (p.op == SAGA_OP_UNDO) {
		reply = run_undo(w, p.step, &barrier);
		keep(key, reply);
	} else if (part->is_refusing) {
		reply = SAGA_REPLY_FAILURE;
		barrier = SAGA_BARRIER_REFUSED;
	} else if (p.has_expiry && w->now_ms > w->core.deadline_at_ms) {
		reply = SAGA_REPLY_FAILURE;
		barrier = SAGA_BARRIER_EXPIRED;
	} else {
		reply = run_action(w, p.step, key);
		keep(key, reply);
	}
	p.is_reply = true;
	p.reply = (uint8_t)reply;
	p.barrier = (uint8_t)barrier;
	post(w, &p);
}

/* --- turns ------------------------------------------------------------------------------------ */

static bool
is_out(const struct world *w, const struct world_packet *p)
{
	const struct saga_step *s = &w->core.steps[p->step];

	return s->wait == SAGA_WAIT_REPLY && s->wait_op == p->op &&
	       (p->op == SAGA_OP_ACTION ? s->action : s->undo).attempts == p->attempt;
}

/* A reply may be lost or spoilt when its time-out will ask again and nothing else can. */
static bool
may_lose(const struct world *w, const struct world_packet *p)
{
	if (w->turns > HEALTHY_AFTER || !is_out(w, p))
		return false;
	for (unsigned i = 0; i < w->packet_count; i++)
		if (w->packets[i].step == p->step)
			return false;
	return true;
}

/*
 * An `unknown` that reaches a finished saga, or a failed step without an undo, is a
 * stale event: only a success leads back. So here the participant has found out by
 * then what it did.
 */
static struct world_packet
found_out(const struct world *w, struct world_packet p)
{
	const struct world_key *key =
		&w->parts[p.step].keys[p.op][p.round % WORLD_ROUNDS_MAX];
	bool is_settled = w->core.status == SAGA_IS_FINISHED ||
			  (w->core.steps[p.step].state == SAGA_STEP_FAILED &&
				  !w->plan.steps[p.step].has_undo);

	if (is_settled && p.op == SAGA_OP_ACTION && p.reply == SAGA_REPLY_UNKNOWN &&
		key->is_landed)
		p.reply = SAGA_REPLY_SUCCESS;
	return p;
}

static void
deliver_reply(struct world *w, const struct world_packet *p)
{
	if (may_lose(w, p) && one_in(w, 12)) {
		if (one_in(w, 2))
			tell(w, (struct saga_event){ .kind = SAGA_EV_DEAD_LETTER,
					.step = p->step,
					.op = (enum saga_op)p->op,
					.attempt = p->attempt });
		return;
	}
	if (p->op == SAGA_OP_ACTION && p->reply == SAGA_REPLY_UNKNOWN &&
		w->core.status != SAGA_IS_FINISHED)
		w->parts[p->step].keys[p->op][p->round % WORLD_ROUNDS_MAX].unknown_seen =
			true;
	tell(w, (struct saga_event){ .kind = SAGA_EV_REPLY,
			.step = p->step,
			.op = (enum saga_op)p->op,
			.attempt = p->attempt,
			.round = p->round,
			.reply = (enum saga_reply)p->reply,
			.barrier = (enum saga_barrier)p->barrier });
}

static void
deliver(struct world *w)
{
	unsigned at = (unsigned)skald_rand_below(&w->rand, w->packet_count);
	struct world_packet p = w->packets[at];

	if (w->packet_count > SENT_BEFORE_FULL ||
		!one_in(w, 20)) /* else it comes again */
		w->packets[at] = w->packets[--w->packet_count];
	if (p.is_reply)
		p = found_out(w, p);
	if (p.is_reply)
		deliver_reply(w, &p);
	else
		serve(w, p);
}

static void
fire(struct world *w)
{
	struct saga_core *c = &w->core;
	int64_t due_at_ms = skald__saga_due_at_ms(c);

	if (due_at_ms == INT64_MAX)
		return;
	if (w->now_ms < due_at_ms)
		w->now_ms = due_at_ms;
	if (c->deadline_at_ms && w->now_ms >= c->deadline_at_ms && !c->is_deadline_over)
		tell(w, (struct saga_event){ .kind = SAGA_EV_DEADLINE });
	for (unsigned i = 0; i < c->step_count; i++) {
		const struct saga_step *s = &c->steps[i];
		enum saga_op op = (enum saga_op)s->wait_op;

		if (s->wait == SAGA_WAIT_REPLY && s->due_at_ms <= w->now_ms)
			tell(w, (struct saga_event){ .kind = SAGA_EV_TIMEOUT,
					.step = i,
					.op = op,
					.attempt = (op == SAGA_OP_ACTION ? s->action
									 : s->undo)
							   .attempts });
	}
	tell(w, (struct saga_event){ .kind = SAGA_EV_DUE });
}

/* An answer to what was never asked. */
static void
stray(struct world *w)
{
	unsigned step = (unsigned)skald_rand_below(&w->rand, w->plan.step_count);
	enum saga_op op = one_in(w, 2) ? SAGA_OP_ACTION : SAGA_OP_UNDO;
	const struct saga_step *s = &w->core.steps[step];
	const struct saga_tries *tries = op == SAGA_OP_ACTION ? &s->action : &s->undo;
	bool is_ahead = one_in(w, 2);

	tell(w, (struct saga_event){ .kind = SAGA_EV_REPLY,
			.step = step,
			.op = op,
			.attempt = is_ahead ? tries->attempts + between(w, 1, 3)
					    : tries->attempts,
			.round =
				is_ahead ? tries->round : tries->round + between(w, 1, 2),
			.reply = (enum saga_reply)between(
				w, SAGA_REPLY_SUCCESS, SAGA_REPLY_UNKNOWN) });
}

static void
turn(struct world *w)
{
	uint64_t dice = skald_rand_below(&w->rand, 1000);

	w->turns++;
	w->now_ms += (int64_t)skald_rand_below(&w->rand, 4);
	if (dice < 8)
		tell(w, (struct saga_event){ .kind = SAGA_EV_CANCEL });
	else if (dice < 12 && w->turns < HEALTHY_AFTER)
		tell(w, (struct saga_event){ .kind = SAGA_EV_PAUSE });
	else if (dice < 40 && w->core.is_paused)
		tell(w, (struct saga_event){ .kind = SAGA_EV_RESUME });
	else if (dice < 60)
		stray(w);
	else if (dice < 180 || !w->packet_count)
		fire(w);
	else
		deliver(w);
}

/* --- walks ------------------------------------------------------------------------------------ */

static void
make_step(struct world *w, unsigned i)
{
	struct saga_plan_step *p = &w->plan.steps[i];
	bool is_behind = w->plan.pivot >= 0 && (int)i > w->plan.pivot;

	memset(p, 0, sizeof(*p));
	p->kind = (int)i == w->plan.pivot ? SAGA_PIVOT
		  : is_behind             ? SAGA_RETRIABLE
					  : SAGA_COMPENSATABLE;
	p->has_undo = p->kind == SAGA_COMPENSATABLE && !one_in(w, 6);
	if (p->kind == SAGA_COMPENSATABLE && one_in(w, 4))
		p->on_unknown = SAGA_UNKNOWN_COMPENSATE;
	p->timeout_ms = between(w, 10, 60);
	p->retry = (struct saga_budget){ between(w, 1, 4), between(w, 0, 8), 40 };
	if (is_behind && one_in(w, 2))
		p->retry.attempts = 0;
	p->undo_retry = (struct saga_budget){ between(w, 1, 6), between(w, 0, 8), 40 };
}

static void
make_plan(struct world *w)
{
	w->plan.step_count = between(w, 1, WORLD_STEPS_MAX);
	w->plan.pivot =
		one_in(w, 3) ? -1 : (int)skald_rand_below(&w->rand, w->plan.step_count);
	w->plan.deadline_ms = one_in(w, 3) ? between(w, 5, 120) : 0;
	for (unsigned i = 0; i < w->plan.step_count; i++)
		make_step(w, i);
	skald__saga_plan_sequence(&w->plan);
}

void
world_begin(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	skald_rand_seed(&w->rand, seed);
}

static bool
is_over(const struct world *w)
{
	return w->packet_count == 0 &&
	       (w->core.status == SAGA_IS_FINISHED ||
		       skald__saga_due_at_ms(&w->core) == INT64_MAX);
}

bool
world_walk(struct world *w)
{
	make_plan(w);
	memset(w->parts, 0, sizeof(w->parts[0]) * w->plan.step_count);
	w->packet_count = 0;
	w->turns = 0;
	w->last_seq = 0;
	w->now_ms = 1000;
	w->walks++;
	skald__saga_init(&w->core, &w->plan);
	tell(w, (struct saga_event){ .kind = SAGA_EV_START });
	while (!is_over(w) || w->core.is_paused) {
		if (is_over(w) || w->turns > HEALTHY_AFTER)
			if (w->core.is_paused)
				tell(w, (struct saga_event){ .kind = SAGA_EV_RESUME });
		turn(w);
		if (w->turns > TURNS_MAX) {
			w->endless++;
			return false;
		}
	}
	world_judge(w);
	return true;
}
