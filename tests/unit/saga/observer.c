/*
 * observer.c - checks the invariants of saga_core.c from outside: by what was sent
 * and by the difference of two states, not by the core's own predicates.
 */
#include <string.h>

#include "tests/unit/saga/world.h"

static void
rule(struct world *w, unsigned number, bool holds)
{
	w->broken[number] += !holds;
}

static bool
was_forward(const struct saga_core *c)
{
	return c->outcome == SAGA_OUTCOME_NONE;
}

/* The step may have an effect that is to be undone, or is on its way to one. */
static bool
is_held(const struct saga_plan_step *p, const struct saga_step *s)
{
	switch ((enum saga_state)s->state) {
	case SAGA_STEP_SENT:
	case SAGA_STEP_UNDOING:
	case SAGA_STEP_UNDO_STUCK:
		return true;
	case SAGA_STEP_UNKNOWN:
	case SAGA_STEP_SUCCEEDED:
		return p->has_undo;
	case SAGA_STEP_FAILED:
		return p->has_undo && s->is_maybe;
	case SAGA_STEP_PENDING:
	case SAGA_STEP_WAITING:
	case SAGA_STEP_STUCK:
	case SAGA_STEP_SKIPPED:
	case SAGA_STEP_UNDONE:
	case SAGA_STEP_RESOLVED:
		return false;
	}
	return true;
}

static void
see_send(struct world *w, const struct saga_do *d)
{
	unsigned step = (unsigned)d->step;
	const struct saga_step *s = &w->core.steps[step];
	bool is_action = d->op == SAGA_OP_ACTION;
	const struct saga_tries *tries = is_action ? &s->action : &s->undo;
	const struct saga_plan_step *p = &w->plan.steps[step];
	uint32_t budget = is_action ? p->retry.attempts : p->undo_retry.attempts;

	rule(w, 1, s->wait == SAGA_WAIT_REPLY && s->wait_op == d->op);
	rule(w, 1, was_forward(&w->core) == is_action);
	if (is_action && step > 0)
		rule(w, 2, w->core.steps[step - 1].state == SAGA_STEP_SUCCEEDED);
	for (unsigned i = step + 1; !is_action && i < w->plan.step_count; i++)
		rule(w, 2,
			d->attempt > 1 || !is_held(&w->plan.steps[i], &w->core.steps[i]));
	rule(w, 3, d->round == tries->round);
	rule(w, 3, d->is_repeat == (tries->attempts > tries->round_base + 1));
	rule(w, 4, d->attempt == tries->attempts);
	rule(w, 9, !w->core.is_paused && w->before.status != SAGA_IS_FINISHED);
	rule(w, 9, !budget || d->attempt <= budget);
	rule(w, 9, is_action || p->has_undo);
}

static void
see_tries(struct world *w, const struct saga_event *ev, unsigned step, enum saga_op op)
{
	const struct saga_step *was = &w->before.steps[step], *is = &w->core.steps[step];
	const struct saga_tries *a = op == SAGA_OP_ACTION ? &was->action : &was->undo;
	const struct saga_tries *b = op == SAGA_OP_ACTION ? &is->action : &is->undo;
	bool is_failure = ev->kind == SAGA_EV_REPLY && ev->reply == SAGA_REPLY_FAILURE &&
			  ev->step == step && ev->op == op;

	rule(w, 3, b->round == a->round || (b->round == a->round + 1 && is_failure));
	rule(w, 4, b->attempts == a->attempts || b->attempts == a->attempts + 1);
}

static bool
is_answer(const struct saga_event *ev, unsigned step, enum saga_op op)
{
	return ev->kind == SAGA_EV_REPLY && ev->step == step && ev->op == op;
}

/* What a step became needs an event that says so. */
static void
see_step(struct world *w, const struct saga_event *ev, unsigned step)
{
	const struct saga_step *was = &w->before.steps[step], *is = &w->core.steps[step];
	bool is_back = was_forward(&w->before) && !was_forward(&w->core);

	see_tries(w, ev, step, SAGA_OP_ACTION);
	see_tries(w, ev, step, SAGA_OP_UNDO);
	if (was->state == is->state)
		return;
	if (is->state == SAGA_STEP_SUCCEEDED)
		rule(w, 6,
			is_answer(ev, step, SAGA_OP_ACTION) &&
				ev->reply == SAGA_REPLY_SUCCESS &&
				ev->attempt <= was->action.attempts &&
				ev->round <= was->action.round);
	if (is->state == SAGA_STEP_UNDONE)
		rule(w, 6,
			is_answer(ev, step, SAGA_OP_UNDO) &&
				ev->reply == SAGA_REPLY_SUCCESS &&
				ev->attempt <= was->undo.attempts &&
				ev->round == was->undo.round);
	if (is->state == SAGA_STEP_FAILED && was->state != SAGA_STEP_WAITING)
		rule(w, 6,
			is_answer(ev, step, SAGA_OP_ACTION) &&
				ev->attempt == was->action.attempts &&
				(ev->reply == SAGA_REPLY_FAILURE ||
					ev->reply == SAGA_REPLY_RETRYABLE));
	if (is->state == SAGA_STEP_FAILED && was->state == SAGA_STEP_WAITING)
		rule(w, 6, is_back);
	if (ev->kind == SAGA_EV_TIMEOUT && ev->step == step && ev->op == SAGA_OP_ACTION)
		rule(w, 8,
			is->state == SAGA_STEP_UNKNOWN ||
				is->state == SAGA_STEP_UNDOING ||
				is->state == SAGA_STEP_SENT);
}

static void
see_status(struct world *w)
{
	const struct saga_core *c = &w->core;
	const struct saga_step *pivot =
		w->plan.pivot >= 0 ? &c->steps[w->plan.pivot] : NULL;

	if (was_forward(&w->before) && !was_forward(c) &&
		c->outcome != SAGA_OUTCOME_COMPLETED && pivot && pivot->action.attempts)
		rule(w, 5, pivot->state == SAGA_STEP_FAILED);
	if (c->status == SAGA_IS_FINISHED)
		rule(w, 7, skald__saga_due_at_ms(c) == INT64_MAX);
	rule(w, 7,
		w->before.status != SAGA_IS_FINISHED || c->status == SAGA_IS_FINISHED ||
			c->status == SAGA_IS_STUCK);
	for (unsigned i = 0; c->status == SAGA_IS_FINISHED && i < c->step_count; i++) {
		rule(w, 7, c->steps[i].wait == SAGA_WAIT_NONE);
		if (c->outcome == SAGA_OUTCOME_COMPLETED)
			rule(w, 7, c->steps[i].state == SAGA_STEP_SUCCEEDED);
		else
			rule(w, 7, !is_held(&w->plan.steps[i], &c->steps[i]));
	}
	if (c->status == SAGA_IS_STUCK)
		rule(w, 7, c->undo == SAGA_UNDO_STUCK || c->outcome == SAGA_OUTCOME_NONE);
}

void
world_observe(struct world *w, const struct saga_event *ev)
{
	for (unsigned i = 0; i < w->todo.count; i++) {
		const struct saga_do *d = &w->todo.items[i];

		if (d->kind == SAGA_DO_SEND)
			see_send(w, d);
		if (d->kind == SAGA_DO_ROW && d->seq)
			rule(w, 10, d->seq == ++w->last_seq);
		for (unsigned j = 0; j < i && d->kind == SAGA_DO_SEND; j++)
			rule(w, 1,
				w->todo.items[j].kind != SAGA_DO_SEND ||
					w->todo.items[j].step != d->step);
	}
	rule(w, 10, w->last_seq == w->core.row_count);
	for (unsigned i = 0; i < w->plan.step_count; i++)
		see_step(w, ev, i);
	see_status(w);
}

/* All is delivered: does the ledger agree with what the saga says of itself? */
void
world_judge(struct world *w)
{
	const struct saga_core *c = &w->core;

	for (unsigned i = 0; i < w->plan.step_count; i++) {
		const struct world_part *part = &w->parts[i];
		unsigned wanted = w->plan.steps[i].has_undo ? part->landed : 0;
		bool may_stay = w->plan.steps[i].kind == SAGA_COMPENSATABLE &&
				!w->plan.steps[i].has_undo;

		rule(w, 11, part->landed <= 1 && part->undone <= part->landed);
		w->undone += part->undone;
		if (c->status != SAGA_IS_FINISHED)
			continue;
		if (c->outcome == SAGA_OUTCOME_COMPLETED)
			rule(w, 11, part->landed == 1 && part->undone == 0);
		else
			rule(w, 11,
				part->undone == wanted &&
					(part->landed == part->undone || may_stay));
	}
	rule(w, 7, c->status == SAGA_IS_FINISHED || c->status == SAGA_IS_STUCK);
	w->stuck += c->status == SAGA_IS_STUCK;
	if (c->status == SAGA_IS_FINISHED)
		w->finished[c->outcome]++;
}
