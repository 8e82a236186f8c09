/*
 * saga_core.c - what a saga does next; orchestrator and simulator do it.
 *
 * The saga:
 *                       every step settled
 *   RUNNING ------------------------------------------------> FINISHED completed
 *    |  ^  \                                                        |
 *    |  |   `-- pivot unknown, retriable spent --> STUCK            | late success of
 *    |  +------ late reply ------------------------'  ^             | what never ran
 *    | a step fails or stays unknown,                 |             v
 *    | deadline, cancel (before the pivot)            +---------- STUCK
 *    v                                                |             ^ (likewise)
 *   COMPENSATING -- an undo's budget is spent --------'             |
 *    |                                                              |
 *    +---- nothing in effect, nothing out --> FINISHED failed, cancelled, expired
 *
 * A step, its action and then its undo:
 *
 *   PENDING -> SENT -- success ------------------> SUCCEEDED --+
 *               | ^ -- failure, budget spent ----> FAILED      | compensating
 *               | ^ -- retryable --> WAITING                   v
 *               | +--- backoff over ---'           +-------> UNDOING --> UNDONE
 *               |                                  |           |
 *               +----- time-out, unknown --> UNKNOWN (spent)   +--> UNDO_STUCK
 *
 * after retriable's budget: STUCK (known not done) instead of FAILED.
 *
 * I1  At most one command of a step is out. Actions are sent only before anything is
 *     undone (outcome open), compensations only after.
 * I2  An action is sent when all it comes after is settled; a compensation when nothing
 *     that comes behind it is in effect or out: reverse order of dependency.
 * I3  The key of an op changes only after its known failure; after a time-out, retryable
 *     or unknown it is the same.
 * I4  Attempts of an op only grow, by one.
 * I5  Once the pivot's command is written, compensation begins only when the pivot is
 *     known not to have happened.
 * I6  A reply changes a step only if it answers the attempt that is out; or, known to be
 *     of the same key, an older one that succeeded or the last one that failed; or tells
 *     of an effect where none was thought to be.
 * I7  Finished: nothing is out or due; completed: every step is settled; else nothing
 *     is in effect. What is unknown, stuck or undo_stuck is never called finished.
 * I8  An unknown action is retried, compensated, or makes the saga stuck: never forgotten,
 *     never taken as failed.
 * I9  Nothing is sent while paused, nothing after the end, no attempt beyond its budget.
 * I10 Rows of history are numbered from 1 without a gap, to SAGA_ROWS_MAX.
 */
#include "saga/saga_core.h"

#include <string.h>

#include "base/assert.h"

struct turn { /* one call of skald__saga_next */
	const struct saga_plan *plan;
	struct saga_core *c;
	const struct saga_event *ev;
	const struct saga_view *view;
	int64_t now_ms;
	struct saga_dos *todo;
};

/* --- commands ------------------------------------------------------------------------------- */

static struct saga_tries *
tries_of(struct saga_step *s, enum saga_op op)
{
	return op == SAGA_OP_ACTION ? &s->action : &s->undo;
}

static const struct saga_budget *
budget_of(const struct turn *t, unsigned step, enum saga_op op)
{
	const struct saga_plan_step *p = &t->plan->steps[step];

	return op == SAGA_OP_ACTION ? &p->retry : &p->undo_retry;
}

static struct saga_do *
add(struct turn *t, enum saga_do_kind kind, int step)
{
	struct saga_do *d;

	SKALD_ASSERT(t->todo->count < SAGA_DO_MAX);
	d = &t->todo->items[t->todo->count++];
	*d = (struct saga_do){ .kind = kind, .step = step };
	return d;
}

static struct saga_do *
add_row(struct turn *t, enum saga_row row, int step)
{
	struct saga_do *d = add(t, SAGA_DO_ROW, step);

	d->row = row;
	d->seq = skald__saga_take_seq(t->c);
	return d;
}

/* A row about what the event tells. */
static struct saga_do *
add_event_row(struct turn *t, enum saga_row row, enum saga_fault fault)
{
	bool is_idle = row == SAGA_ROW_STALE || row == SAGA_ROW_LATE;
	struct saga_do *d = add(t, SAGA_DO_ROW, (int)t->ev->step);

	d->row = row;
	d->op = t->ev->op;
	d->attempt = t->ev->attempt;
	d->round = t->ev->round;
	d->reply = t->ev->reply;
	d->fault = fault;
	if (!is_idle || t->c->row_count < SAGA_ROWS_STALE_MAX)
		d->seq = skald__saga_take_seq(t->c);
	return d;
}

static void
add_life(struct turn *t, enum saga_life life)
{
	add(t, SAGA_DO_LIFE, -1)->life = life;
}

/* --- sending -------------------------------------------------------------------------------- */

static void begin_undo(
	struct turn *t, enum saga_outcome outcome, int step, enum saga_fault fault);

/* What a failing step makes of the saga: a participant may see the deadline first. */
static enum saga_outcome
failed_outcome(const struct turn *t)
{
	bool is_expired = t->ev->kind == SAGA_EV_REPLY &&
			  t->ev->barrier == SAGA_BARRIER_EXPIRED &&
			  t->c->deadline_at_ms && t->now_ms >= t->c->deadline_at_ms;

	return is_expired ? SAGA_OUTCOME_EXPIRED : SAGA_OUTCOME_FAILED;
}

/* The step failed for good: before the pivot is done the saga goes back. */
static void
fail_step(struct turn *t, unsigned step, enum saga_fault fault)
{
	struct saga_step *s = &t->c->steps[step];

	s->wait = SAGA_WAIT_NONE;
	s->fault = (uint8_t)fault;
	if (t->plan->steps[step].kind == SAGA_RETRIABLE) {
		s->state = SAGA_STEP_STUCK;
		return;
	}
	s->state = SAGA_STEP_FAILED;
	begin_undo(t, failed_outcome(t), (int)step, fault);
}

static void
stick_undo(struct turn *t, unsigned step, enum saga_fault fault)
{
	struct saga_step *s = &t->c->steps[step];

	s->wait = SAGA_WAIT_NONE;
	s->state = SAGA_STEP_UNDO_STUCK;
	s->fault = (uint8_t)fault;
}

/* Write the command of the next attempt (I1, I4); unless its data cannot be made. */
static void
send(struct turn *t, unsigned step, enum saga_op op)
{
	struct saga_step *s = &t->c->steps[step];
	struct saga_tries *tries = tries_of(s, op);
	enum saga_fault fault = SAGA_FAULT_NONE;
	struct saga_do *d;

	SKALD_ASSERT(s->wait == SAGA_WAIT_NONE && !t->c->is_paused);
	if (t->view && t->view->look)
		fault = t->view->look(t->view->ctx, step, op);
	if (fault) {
		if (op == SAGA_OP_ACTION)
			fail_step(t, step, fault);
		else
			stick_undo(t, step, fault);
		return;
	}
	tries->attempts++;
	s->state = op == SAGA_OP_ACTION ? SAGA_STEP_SENT : SAGA_STEP_UNDOING;
	s->wait = SAGA_WAIT_REPLY;
	s->wait_op = (uint8_t)op;
	s->due_at_ms = t->now_ms + t->plan->steps[step].timeout_ms;
	if (op == SAGA_OP_UNDO)
		t->c->undo = SAGA_UNDO_RUNNING;
	d = add_row(t, SAGA_ROW_COMMAND, (int)step);
	d->op = op;
	d->attempt = tries->attempts;
	d->round = tries->round;
	d = add(t, SAGA_DO_SEND, (int)step);
	d->op = op;
	d->attempt = tries->attempts;
	d->round = tries->round;
	d->due_at_ms = s->due_at_ms;
	d->is_repeat = tries->attempts > tries->round_base + 1;
	d->has_expiry = op == SAGA_OP_ACTION &&
			t->plan->steps[step].kind != SAGA_RETRIABLE &&
			t->c->deadline_at_ms;
}

static enum saga_fault
spent_fault(const struct turn *t, enum saga_fault fault)
{
	return t->c->row_count >= SAGA_ROWS_RETRY_MAX ? SAGA_FAULT_EVENTS_SPENT : fault;
}

static void
back_off(struct turn *t, unsigned step, enum saga_op op)
{
	struct saga_step *s = &t->c->steps[step];
	const struct saga_tries *tries = tries_of(s, op);
	const struct saga_budget *budget = budget_of(t, step, op);
	uint32_t n = tries->attempts - tries->budget_base;
	struct saga_do *d;

	s->wait = SAGA_WAIT_BACKOFF;
	s->wait_op = (uint8_t)op;
	s->due_at_ms = t->now_ms + skald__saga_jitter(t->ev->rand, n ? n - 1 : 0,
					   budget->backoff_ms, budget->backoff_max_ms);
	d = add(t, SAGA_DO_ARM, (int)step);
	d->op = op;
	d->due_at_ms = s->due_at_ms;
}

/* A known failure is tried again under another key (I3). */
static void
next_round(struct saga_step *s, enum saga_op op)
{
	struct saga_tries *tries = tries_of(s, op);

	tries->round++;
	tries->round_base = tries->attempts;
	if (op == SAGA_OP_ACTION)
		s->open = 0;
}

/* Remember that the attempt of the event is not answered, or that it is now. */
static void
mark_open(struct turn *t, bool is_open)
{
	struct saga_step *s = &t->c->steps[t->ev->step];
	uint32_t n = t->ev->attempt - s->action.round_base - 1;

	if (n >= 32)
		s->is_maybe |= is_open;
	else if (is_open)
		s->open |= (uint32_t)1 << n;
	else
		s->open &= ~((uint32_t)1 << n);
}

/* --- backwards ------------------------------------------------------------------------------ */

/* Turn round: no further action is sent; what is out is awaited (I1). */
static void
begin_undo(struct turn *t, enum saga_outcome outcome, int step, enum saga_fault fault)
{
	struct saga_core *c = t->c;
	struct saga_set busy;

	if (!skald__saga_is_forward(c))
		return;
	c->outcome = (uint8_t)outcome;
	c->reason = (uint8_t)fault;
	c->reason_step = (int16_t)step;
	for (unsigned i = 0; i < c->step_count; i++) {
		struct saga_step *s = &c->steps[i];

		if (s->wait == SAGA_WAIT_BACKOFF)
			s->wait = SAGA_WAIT_NONE;
		if (s->state == SAGA_STEP_WAITING)
			s->state = SAGA_STEP_FAILED;
	}
	busy = skald__saga_busy(t->plan, t->c);
	if (!saga_set_meets(&busy, &busy))
		return; /* it ends at once */
	add_row(t, SAGA_ROW_COMPENSATING, step)->fault = fault;
	add_life(t, SAGA_LIFE_COMPENSATING);
}

/* --- outcomes of attempts ------------------------------------------------------------------- */

static void
retry_action(struct turn *t, unsigned step, bool is_known, enum saga_fault fault)
{
	struct saga_step *s = &t->c->steps[step];
	const struct saga_plan_step *p = &t->plan->steps[step];

	s->wait = SAGA_WAIT_NONE;
	s->fault = (uint8_t)fault;
	s->state = is_known ? SAGA_STEP_WAITING : SAGA_STEP_UNKNOWN;
	if (!skald__saga_is_forward(t->c)) { /* no action is sent any more */
		if (is_known)
			s->state = SAGA_STEP_FAILED;
		return;
	}
	if (!is_known && p->on_unknown == SAGA_UNKNOWN_COMPENSATE) {
		begin_undo(t, SAGA_OUTCOME_FAILED, (int)step, fault);
		return;
	}
	if (!skald__saga_is_spent(t->plan, t->c, step, SAGA_OP_ACTION)) {
		back_off(t, step, SAGA_OP_ACTION);
		return;
	}
	fault = spent_fault(t, fault);
	s->fault = (uint8_t)fault;
	if (s->is_maybe) { /* `retryable` does not take an `unknown` back */
		is_known = false;
		s->state = SAGA_STEP_UNKNOWN;
	}
	if (is_known)
		fail_step(t, step, fault);
	else if (p->kind == SAGA_COMPENSATABLE)
		begin_undo(t, SAGA_OUTCOME_FAILED, (int)step, fault); /* I8 */
	/* else it is blocked: the saga is stuck, I5 */
}

static void
retry_undo(struct turn *t, unsigned step, enum saga_fault fault)
{
	t->c->steps[step].wait = SAGA_WAIT_NONE;
	if (skald__saga_is_spent(t->plan, t->c, step, SAGA_OP_UNDO))
		stick_undo(t, step, spent_fault(t, fault));
	else
		back_off(t, step, SAGA_OP_UNDO);
}

static void
action_failed(struct turn *t, unsigned step)
{
	struct saga_step *s = &t->c->steps[step];
	enum saga_kind kind = t->plan->steps[step].kind;

	if (t->ev->barrier >= SAGA_BARRIER_REFUSED && (s->is_maybe || s->open)) {
		/* This attempt was not let in; an earlier one may have been. I5, I8 */
		s->wait = SAGA_WAIT_NONE;
		s->state = SAGA_STEP_UNKNOWN;
		s->fault = SAGA_FAULT_REPLY;
		if (kind == SAGA_COMPENSATABLE)
			begin_undo(t, failed_outcome(t), (int)step, SAGA_FAULT_REPLY);
		return;
	}
	if (kind == SAGA_RETRIABLE) {
		next_round(s, SAGA_OP_ACTION);
		retry_action(t, step, true, SAGA_FAULT_REPLY);
		return;
	}
	fail_step(t, step, SAGA_FAULT_REPLY);
}

/* The attempt that is out is answered, or never will be. */
static void
action_ended(struct turn *t, unsigned step, enum saga_reply reply, enum saga_fault fault)
{
	struct saga_step *s = &t->c->steps[step];

	switch (reply) {
	case SAGA_REPLY_SUCCESS:
		s->wait = SAGA_WAIT_NONE;
		s->state = SAGA_STEP_SUCCEEDED;
		s->fault = SAGA_FAULT_NONE;
		s->is_maybe = false;
		s->open = 0;
		return;
	case SAGA_REPLY_FAILURE:
		action_failed(t, step);
		return;
	case SAGA_REPLY_RETRYABLE:
		retry_action(t, step, true, fault);
		return;
	case SAGA_REPLY_UNKNOWN:
		if (fault == SAGA_FAULT_TIMEOUT)
			mark_open(t, true);
		else
			s->is_maybe = true; /* the participant began something */
		retry_action(t, step, false, fault);
		return;
	case SAGA_REPLY_NONE:
		break;
	}
}

static void
undo_succeeded(struct turn *t, unsigned step)
{
	struct saga_step *s = &t->c->steps[step];

	s->wait = SAGA_WAIT_NONE;
	s->state = SAGA_STEP_UNDONE;
	s->is_empty = t->ev->barrier == SAGA_BARRIER_EMPTY;
	if (s->is_empty && s->is_late) { /* the effect came behind the empty undo */
		s->state = SAGA_STEP_SUCCEEDED;
		next_round(s, SAGA_OP_UNDO);
	}
	s->is_late = false;
}

static void
undo_ended(struct turn *t, unsigned step, enum saga_reply reply, enum saga_fault fault)
{
	switch (reply) {
	case SAGA_REPLY_SUCCESS:
		undo_succeeded(t, step);
		return;
	case SAGA_REPLY_FAILURE:
		next_round(&t->c->steps[step], SAGA_OP_UNDO);
		retry_undo(t, step, fault);
		return;
	case SAGA_REPLY_RETRYABLE:
	case SAGA_REPLY_UNKNOWN:
		retry_undo(t, step, fault);
		return;
	case SAGA_REPLY_NONE:
		break;
	}
}

static void
ended(struct turn *t, enum saga_reply reply, enum saga_fault fault)
{
	if (t->ev->op == SAGA_OP_ACTION)
		action_ended(t, t->ev->step, reply, fault);
	else
		undo_ended(t, t->ev->step, reply, fault);
}

/* --- replies -------------------------------------------------------------------------------- */

static bool
is_out(const struct turn *t)
{
	struct saga_step *s = &t->c->steps[t->ev->step];

	return s->wait == SAGA_WAIT_REPLY && s->wait_op == t->ev->op &&
	       tries_of(s, t->ev->op)->attempts == t->ev->attempt;
}

/* An effect where the saga thinks there is none (I6). */
static void
late_effect(struct turn *t)
{
	struct saga_core *c = t->c;
	struct saga_step *s = &c->steps[t->ev->step];
	const struct saga_plan_step *p = &t->plan->steps[t->ev->step];

	if (s->state == SAGA_STEP_UNDONE)
		next_round(s,
			SAGA_OP_UNDO); /* the answer `empty` is kept under the old key */
	s->is_empty = false;
	if (c->status != SAGA_IS_FINISHED &&
		(skald__saga_is_forward(c) || p->kind != SAGA_PIVOT)) {
		s->state = SAGA_STEP_SUCCEEDED; /* going back: undone with the rest */
		return;
	}
	stick_undo(t, t->ev->step, SAGA_FAULT_LATE_SUCCESS);
	c->reason = SAGA_FAULT_LATE_SUCCESS;
	c->reason_step = (int16_t)t->ev->step;
	if (c->status == SAGA_IS_FINISHED) {
		c->status =
			SAGA_IS_RUNNING; /* settle() makes it stuck: the one way back */
		c->undo = SAGA_UNDO_STUCK;
	}
}

/* A success of an action that is not the attempt that is out. */
static void
late_action_success(struct turn *t)
{
	struct saga_step *s = &t->c->steps[t->ev->step];
	bool is_same_key = t->ev->round == s->action.round;

	switch ((enum saga_state)s->state) {
	case SAGA_STEP_WAITING:
	case SAGA_STEP_SENT:
	case SAGA_STEP_UNKNOWN:
	case SAGA_STEP_STUCK:
		add_event_row(
			t, is_same_key ? SAGA_ROW_LATE : SAGA_ROW_STALE, SAGA_FAULT_NONE);
		if (is_same_key)
			action_ended(t, t->ev->step, SAGA_REPLY_SUCCESS, SAGA_FAULT_NONE);
		return;
	case SAGA_STEP_FAILED:
	case SAGA_STEP_SKIPPED:
		add_event_row(t, SAGA_ROW_LATE, SAGA_FAULT_LATE_SUCCESS);
		late_effect(t);
		return;
	case SAGA_STEP_UNDOING:
		add_event_row(t, SAGA_ROW_LATE, SAGA_FAULT_NONE);
		s->is_late = true;
		return;
	case SAGA_STEP_UNDONE:
		add_event_row(t, SAGA_ROW_LATE,
			s->is_empty ? SAGA_FAULT_LATE_SUCCESS : SAGA_FAULT_NONE);
		if (s->is_empty)
			late_effect(t);
		return;
	case SAGA_STEP_PENDING:
	case SAGA_STEP_SUCCEEDED:
	case SAGA_STEP_UNDO_STUCK:
	case SAGA_STEP_RESOLVED:
		add_event_row(t, SAGA_ROW_STALE, SAGA_FAULT_NONE);
		return;
	}
}

/* The last attempt's failure after its time-out: what was unknown is known now. */
static void
late_failure(struct turn *t)
{
	struct saga_step *s = &t->c->steps[t->ev->step];
	bool is_retried = t->ev->op == SAGA_OP_UNDO ||
			  t->plan->steps[t->ev->step].kind == SAGA_RETRIABLE;

	add_event_row(t, SAGA_ROW_LATE, SAGA_FAULT_NONE);
	if (!is_retried) {
		action_failed(t, t->ev->step);
		return;
	}
	next_round(s, t->ev->op); /* its backoff goes on */
	s->fault = SAGA_FAULT_REPLY;
	if (t->ev->op == SAGA_OP_ACTION)
		s->state = s->wait == SAGA_WAIT_BACKOFF ? SAGA_STEP_WAITING
							: SAGA_STEP_STUCK;
}

static bool
is_open_to_failure(const struct turn *t)
{
	struct saga_step *s = &t->c->steps[t->ev->step];
	const struct saga_tries *tries = tries_of(s, t->ev->op);

	if (t->ev->reply != SAGA_REPLY_FAILURE || t->ev->attempt != tries->attempts ||
		t->ev->round != tries->round || t->c->status == SAGA_IS_FINISHED)
		return false;
	if (t->ev->op == SAGA_OP_ACTION)
		return s->state == SAGA_STEP_UNKNOWN;
	return s->state == SAGA_STEP_UNDO_STUCK ||
	       (s->state == SAGA_STEP_UNDOING && s->wait == SAGA_WAIT_BACKOFF);
}

/* An older attempt says what it came to: no outcome, but a doubt more or less. */
static void
learn_from_stale(struct turn *t)
{
	struct saga_step *s = &t->c->steps[t->ev->step];

	if (t->c->status == SAGA_IS_FINISHED || t->ev->round != s->action.round)
		return;
	if (t->ev->reply == SAGA_REPLY_UNKNOWN)
		s->is_maybe = true;
	else
		mark_open(t, false);
}

static void
on_reply(struct turn *t)
{
	const struct saga_event *ev = t->ev;
	struct saga_step *s = &t->c->steps[ev->step];
	const struct saga_tries *tries = tries_of(s, ev->op);
	bool fits = ev->attempt > 0 && ev->attempt <= tries->attempts && ev->round > 0 &&
		    ev->round <= tries->round &&
		    (ev->attempt > tries->round_base) == (ev->round == tries->round);

	if (fits && is_out(t)) {
		add_event_row(t, SAGA_ROW_REPLY, SAGA_FAULT_NONE);
		ended(t, ev->reply, SAGA_FAULT_REPLY);
	} else if (fits && ev->reply == SAGA_REPLY_SUCCESS && ev->op == SAGA_OP_ACTION) {
		late_action_success(t);
	} else if (fits && ev->reply == SAGA_REPLY_SUCCESS && ev->round == tries->round &&
		   (s->state == SAGA_STEP_UNDOING || s->state == SAGA_STEP_UNDO_STUCK)) {
		add_event_row(t, SAGA_ROW_LATE, SAGA_FAULT_NONE);
		s->fault = SAGA_FAULT_NONE;
		undo_succeeded(t, ev->step);
	} else if (fits && is_open_to_failure(t)) {
		late_failure(t);
	} else {
		add_event_row(t, SAGA_ROW_STALE, SAGA_FAULT_NONE);
		if (fits && ev->op == SAGA_OP_ACTION)
			learn_from_stale(t);
	}
}

/* --- time ----------------------------------------------------------------------------------- */

static void
on_timeout(struct turn *t)
{
	if (t->c->is_paused || !is_out(t))
		return;
	add_event_row(t, SAGA_ROW_TIMEOUT, SAGA_FAULT_TIMEOUT);
	ended(t, SAGA_REPLY_UNKNOWN, SAGA_FAULT_TIMEOUT);
}

static void
on_due(struct turn *t)
{
	for (unsigned i = 0; i < t->c->step_count && !t->c->is_paused; i++) {
		struct saga_step *s = &t->c->steps[i];

		if (s->wait != SAGA_WAIT_BACKOFF || s->due_at_ms > t->now_ms)
			continue;
		s->wait = SAGA_WAIT_NONE;
		send(t, i, (enum saga_op)s->wait_op);
	}
}

static void
on_deadline(struct turn *t)
{
	struct saga_core *c = t->c;

	if (c->is_paused || !c->deadline_at_ms || c->is_deadline_over ||
		t->now_ms < c->deadline_at_ms || !skald__saga_is_forward(c))
		return;
	c->is_deadline_over = true;
	if (!skald__saga_can_cancel(t->plan, c))
		c->is_overdue = true;
	else
		begin_undo(t, SAGA_OUTCOME_EXPIRED, -1, SAGA_FAULT_DEADLINE);
}

static void
on_start(struct turn *t)
{
	struct saga_core *c = t->c;
	int64_t at_ms = t->ev->at_ms ? t->ev->at_ms : t->now_ms;

	if (c->row_count)
		return; /* started before */
	add_row(t, SAGA_ROW_STARTED, -1);
	add_life(t, SAGA_LIFE_STARTED);
	if (!t->plan->deadline_ms)
		return;
	c->deadline_at_ms = at_ms + t->plan->deadline_ms;
	add(t, SAGA_DO_ARM, -1)->due_at_ms = c->deadline_at_ms;
}

/* --- going on ------------------------------------------------------------------------------- */

/* Send all that may be sent now. */
static void
advance(struct turn *t)
{
	struct saga_set busy;

	if (t->c->is_paused || t->c->status == SAGA_IS_FINISHED)
		return;
	for (unsigned i = 0; i < t->c->step_count && skald__saga_is_forward(t->c); i++)
		if (skald__saga_is_ready(t->plan, t->c, i))
			send(t, i, SAGA_OP_ACTION);
	if (skald__saga_is_forward(t->c))
		return;
	busy = skald__saga_busy(t->plan, t->c);
	for (unsigned i = t->c->step_count; i-- > 0;)
		if (skald__saga_can_undo(t->plan, t->c, i, &busy))
			send(t, i, SAGA_OP_UNDO);
}

static void
finish(struct turn *t)
{
	struct saga_core *c = t->c;
	enum saga_life life = SAGA_LIFE_COMPENSATED;

	if (skald__saga_is_forward(c)) {
		c->outcome = SAGA_OUTCOME_COMPLETED;
		c->reason = SAGA_FAULT_NONE;
		c->reason_step = -1;
		life = SAGA_LIFE_COMPLETED;
	} else if (c->undo == SAGA_UNDO_RUNNING) {
		c->undo = SAGA_UNDO_DONE;
	}
	c->status = SAGA_IS_FINISHED;
	add_row(t, SAGA_ROW_FINISHED, -1);
	add_life(t, life);
	add(t, SAGA_DO_FINISH, -1);
}

static void
get_stuck(struct turn *t, int step)
{
	struct saga_core *c = t->c;

	if (c->outcome == SAGA_OUTCOME_NONE) {
		c->reason = c->steps[step].fault;
		c->reason_step = (int16_t)step;
	}
	c->status = SAGA_IS_STUCK;
	add_row(t, SAGA_ROW_STUCK, step)->fault = (enum saga_fault)c->steps[step].fault;
	add_life(t, SAGA_LIFE_STUCK);
}

/* What the saga is now, from what its steps are (I7). */
static void
settle(struct turn *t)
{
	struct saga_core *c = t->c;
	struct saga_survey v = skald__saga_survey(t->plan, t->c);

	if (c->status == SAGA_IS_FINISHED)
		return;
	if (v.is_undo_stuck)
		c->undo = SAGA_UNDO_STUCK;
	else if (c->undo == SAGA_UNDO_STUCK)
		c->undo = SAGA_UNDO_RUNNING;
	if (v.blocked >= 0 && !v.is_waiting) {
		if (c->status != SAGA_IS_STUCK)
			get_stuck(t, v.blocked);
		return;
	}
	if (!v.is_waiting &&
		(skald__saga_is_forward(c) ? v.is_settled : !v.is_in_effect)) {
		finish(t);
		return;
	}
	if (c->status == SAGA_IS_STUCK && c->outcome == SAGA_OUTCOME_NONE) {
		c->reason = SAGA_FAULT_NONE; /* an answer came after all */
		c->reason_step = -1;
	}
	c->status = skald__saga_is_forward(c) ? SAGA_IS_RUNNING : SAGA_IS_COMPENSATING;
}

static void
see(struct turn *t)
{
	struct saga_core *c = t->c;

	switch (t->ev->kind) {
	case SAGA_EV_START:
		on_start(t);
		return;
	case SAGA_EV_REPLY:
		on_reply(t);
		return;
	case SAGA_EV_DEAD_LETTER:
		if (!is_out(t))
			return;
		add_event_row(t, SAGA_ROW_REPLY, SAGA_FAULT_DEAD_LETTER)->reply =
			SAGA_REPLY_UNKNOWN;
		ended(t, SAGA_REPLY_UNKNOWN, SAGA_FAULT_DEAD_LETTER);
		return;
	case SAGA_EV_TIMEOUT:
		on_timeout(t);
		return;
	case SAGA_EV_DUE:
		on_due(t);
		return;
	case SAGA_EV_DEADLINE:
		on_deadline(t);
		return;
	case SAGA_EV_CANCEL:
		if (skald__saga_can_cancel(t->plan, c))
			begin_undo(t, SAGA_OUTCOME_CANCELLED, -1, SAGA_FAULT_CANCELLED);
		else
			add(t, SAGA_DO_REFUSE, -1);
		return;
	case SAGA_EV_PAUSE:
		if (c->status == SAGA_IS_FINISHED)
			add(t, SAGA_DO_REFUSE, -1);
		else
			c->is_paused = true;
		return;
	case SAGA_EV_RESUME:
		c->is_paused = false;
		on_due(t);
		return;
	}
}

void
skald__saga_next(const struct saga_plan *plan, struct saga_core *c,
	const struct saga_event *ev, const struct saga_view *view, int64_t now_ms,
	struct saga_dos *todo)
{
	struct turn t = { .plan = plan,
		.c = c,
		.ev = ev,
		.view = view,
		.now_ms = now_ms,
		.todo = todo };

	SKALD_ASSERT(c->step_count == plan->step_count && ev->step < plan->step_count);
	todo->count = 0;
	if (c->row_count == 0 && ev->kind != SAGA_EV_START)
		return; /* not begun */
	see(&t);
	advance(&t);
	settle(&t);
}
