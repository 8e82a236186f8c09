/*
 * saga_look.c - what the core sees when it looks at a plan and an instance: pure,
 * and apart from saga_core.c because views and shells ask the same questions.
 */
#include "saga/saga_core.h"

#include <string.h>

#include "base/assert.h"

/* --- plans ---------------------------------------------------------------------------------- */

void
skald__saga_plan_sequence(struct saga_plan *plan)
{
	for (unsigned i = 0; i < plan->step_count; i++) {
		memset(&plan->steps[i].after, 0, sizeof(plan->steps[i].after));
		memset(&plan->steps[i].behind, 0, sizeof(plan->steps[i].behind));
		if (i > 0)
			saga_set_add(&plan->steps[i].after, i - 1);
		for (unsigned j = i + 1; j < plan->step_count; j++)
			saga_set_add(&plan->steps[i].behind, j);
	}
}

/* --- looking -------------------------------------------------------------------------------- */

bool
skald__saga_is_forward(const struct saga_core *c)
{
	return c->outcome == SAGA_OUTCOME_NONE || c->outcome == SAGA_OUTCOME_COMPLETED;
}

static bool
is_settled(const struct saga_step *s)
{
	return s->state == SAGA_STEP_SUCCEEDED || s->state == SAGA_STEP_SKIPPED ||
	       s->state == SAGA_STEP_RESOLVED;
}

/* There may be something to undo, or it is being undone. */
static bool
is_in_effect(const struct saga_plan_step *p, const struct saga_step *s)
{
	if (s->state == SAGA_STEP_UNDO_STUCK)
		return true;
	return p->has_undo &&
	       (s->state == SAGA_STEP_SUCCEEDED || s->state == SAGA_STEP_UNKNOWN ||
		       s->state == SAGA_STEP_UNDOING ||
		       (s->state == SAGA_STEP_FAILED && s->is_maybe));
}

/* Only a person can move it. */
static bool
is_blocked(const struct saga_core *c, const struct saga_step *s)
{
	if (s->wait != SAGA_WAIT_NONE)
		return false;
	return s->state == SAGA_STEP_STUCK || s->state == SAGA_STEP_UNDO_STUCK ||
	       (s->state == SAGA_STEP_UNKNOWN && skald__saga_is_forward(c));
}

static bool
is_pivot_written(const struct saga_plan *plan, const struct saga_core *c)
{
	return plan->pivot >= 0 && c->steps[plan->pivot].action.attempts > 0;
}

bool
skald__saga_can_cancel(const struct saga_plan *plan, const struct saga_core *c)
{
	return c->status != SAGA_IS_FINISHED && c->outcome == SAGA_OUTCOME_NONE &&
	       !is_pivot_written(plan, c);
}

int64_t
skald__saga_due_at_ms(const struct saga_core *c)
{
	int64_t due_at_ms = INT64_MAX;

	if (c->status == SAGA_IS_FINISHED)
		return due_at_ms;
	if (c->deadline_at_ms && !c->is_deadline_over && skald__saga_is_forward(c))
		due_at_ms = c->deadline_at_ms;
	for (unsigned i = 0; i < c->step_count; i++)
		if (c->steps[i].wait != SAGA_WAIT_NONE &&
			c->steps[i].due_at_ms < due_at_ms)
			due_at_ms = c->steps[i].due_at_ms;
	return due_at_ms;
}

uint32_t
skald__saga_take_seq(struct saga_core *c)
{
	return c->row_count < SAGA_ROWS_MAX ? ++c->row_count : 0; /* I10 */
}

/* What is in effect or out: nothing that it depends on may be undone. */
struct saga_set
skald__saga_busy(const struct saga_plan *plan, const struct saga_core *c)
{
	struct saga_set busy = { { 0 } };

	for (unsigned i = 0; i < c->step_count; i++) {
		const struct saga_step *s = &c->steps[i];

		if (s->wait != SAGA_WAIT_NONE || is_in_effect(&plan->steps[i], s))
			saga_set_add(&busy, i);
	}
	return busy;
}

bool
skald__saga_is_ready(
	const struct saga_plan *plan, const struct saga_core *c, unsigned step)
{
	if (c->steps[step].state != SAGA_STEP_PENDING)
		return false;
	for (unsigned i = 0; i < c->step_count; i++)
		if (saga_set_has(&plan->steps[step].after, i) &&
			!is_settled(&c->steps[i]))
			return false;
	return true;
}

bool
skald__saga_can_undo(const struct saga_plan *plan, const struct saga_core *c,
	unsigned step, const struct saga_set *busy)
{
	const struct saga_step *s = &c->steps[step];

	return s->wait == SAGA_WAIT_NONE && s->state != SAGA_STEP_UNDO_STUCK &&
	       is_in_effect(&plan->steps[step], s) &&
	       !saga_set_meets(&plan->steps[step].behind, busy); /* I2 */
}

struct saga_survey
skald__saga_survey(const struct saga_plan *plan, const struct saga_core *c)
{
	struct saga_survey v = { .blocked = -1, .is_settled = true };

	for (unsigned i = 0; i < c->step_count; i++) {
		const struct saga_step *s = &c->steps[i];

		if (v.blocked < 0 && is_blocked(c, s))
			v.blocked = (int)i;
		v.is_waiting |= s->wait != SAGA_WAIT_NONE;
		v.is_undo_stuck |= s->state == SAGA_STEP_UNDO_STUCK;
		v.is_settled &= is_settled(s);
		v.is_in_effect |= is_in_effect(&plan->steps[i], s);
	}
	return v;
}

void
skald__saga_init(struct saga_core *c, const struct saga_plan *plan)
{
	memset(c, 0, sizeof(*c));
	c->step_count = (uint16_t)plan->step_count;
	c->reason_step = -1;
	for (unsigned i = 0; i < plan->step_count; i++)
		c->steps[i].action.round = c->steps[i].undo.round = 1;
}

/* Uniform in [0, min(max, base * 2^n)]. */
int64_t
skald__saga_jitter(uint64_t rand, uint32_t n, int64_t base_ms, int64_t max_ms)
{
	int64_t high = base_ms;

	while (n-- > 0 && high > 0 && high < max_ms)
		high *= 2;
	if (high > max_ms)
		high = max_ms;
	return high <= 0 ? 0 : (int64_t)(rand % ((uint64_t)high + 1));
}

bool
skald__saga_is_spent(const struct saga_plan *plan, const struct saga_core *c,
	unsigned step, enum saga_op op)
{
	bool is_action = op == SAGA_OP_ACTION;
	const struct saga_step *s = &c->steps[step];
	const struct saga_tries *tries = is_action ? &s->action : &s->undo;
	uint32_t attempts = is_action ? plan->steps[step].retry.attempts
				      : plan->steps[step].undo_retry.attempts;

	if (c->row_count >= SAGA_ROWS_RETRY_MAX)
		return true;
	return attempts && tries->attempts - tries->budget_base >= attempts; /* I9 */
}

/* --- words ---------------------------------------------------------------------------------- */

#define NAME(enumerator, name) name,
/* The word of a value; out of range it is our own bug. */
#define WORD(list, value) \
	static const char *const names[] = { list(NAME) }; \
\
	SKALD_ASSERT((size_t)(value) < sizeof(names) / sizeof(names[0])); \
	return names[value]

const char *
skald__saga_status_name(enum saga_status status)
{
	WORD(SAGA_STATUSES, status);
}

const char *
skald__saga_outcome_name(enum saga_outcome outcome)
{
	WORD(SAGA_OUTCOMES, outcome);
}

const char *
skald__saga_undo_name(enum saga_undo undo)
{
	WORD(SAGA_UNDOS, undo);
}

const char *
skald__saga_state_name(enum saga_state state)
{
	WORD(SAGA_STATES, state);
}

const char *
skald__saga_op_name(enum saga_op op)
{
	WORD(SAGA_OPS, op);
}

const char *
skald__saga_fault_name(enum saga_fault fault)
{
	WORD(SAGA_FAULTS, fault);
}

const char *
skald__saga_reply_name(enum saga_reply reply)
{
	WORD(SAGA_REPLIES, reply);
}

const char *
skald__saga_row_name(enum saga_row row)
{
	WORD(SAGA_ROWS, row);
}

const char *
skald__saga_life_name(enum saga_life life)
{
	WORD(SAGA_LIVES, life);
}
