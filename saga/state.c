/*
 * state.c - the state vector as text.
 *
 *   1 STATUS OUTCOME UNDO FLAGS REASON REASON_STEP STEPS ROWS DEADLINE
 *   ;INDEX STATE WAIT OP FAULT FLAGS OPEN DUE ATTEMPTS ROUND BASE BUDGET (x2)  ...
 *
 * Decimal numbers with one space between, a group for each step that differs from a
 * new one, in rising order. The enums' order is kept for ever: new words come last.
 */
#include "saga/state.h"

#include <string.h>

enum { FORMAT = 1, HEAD_NUMBERS = 10, STEP_NUMBERS = 16 };

static void
add_numbers(struct skald_buf *out, const int64_t *numbers, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		skald_buf_addf(out, "%s%lld", i ? " " : "", (long long)numbers[i]);
}

static bool
is_new(const struct saga_step *s)
{
	return s->state == SAGA_STEP_PENDING && !s->action.attempts &&
	       !s->undo.attempts && !s->fault && !s->wait && !s->is_maybe;
}

void
skald__saga_state_write(const struct saga_core *c, struct skald_buf *out)
{
	int64_t head[HEAD_NUMBERS] = { FORMAT, c->status, c->outcome, c->undo,
		c->is_paused | c->is_overdue << 1 | c->is_signed << 2 |
			c->is_deadline_over << 3,
		c->reason, c->reason_step, c->step_count, c->row_count,
		c->deadline_at_ms };

	add_numbers(out, head, HEAD_NUMBERS);
	for (unsigned i = 0; i < c->step_count; i++) {
		const struct saga_step *s = &c->steps[i];
		int64_t numbers[STEP_NUMBERS] = { i, s->state, s->wait, s->wait_op,
			s->fault, s->is_maybe | s->is_empty << 1 | s->is_late << 2,
			s->open, s->due_at_ms, s->action.attempts, s->action.round,
			s->action.round_base, s->action.budget_base, s->undo.attempts,
			s->undo.round, s->undo.round_base, s->undo.budget_base };

		if (is_new(s))
			continue;
		skald_buf_add(out, ";", 1);
		add_numbers(out, numbers, STEP_NUMBERS);
	}
}

/* --- reading -------------------------------------------------------------------------------- */

struct reader {
	const char *p, *end;
};

/* One number and what ends it; no more than 18 digits, so no overflow. */
static bool
take_number(struct reader *r, int64_t *number)
{
	bool is_negative = r->p < r->end && *r->p == '-';
	const char *at;

	r->p += is_negative;
	at = r->p;
	*number = 0;
	while (r->p < r->end && *r->p >= '0' && *r->p <= '9' && r->p - at < 18)
		*number = *number * 10 + (*r->p++ - '0');
	if (is_negative)
		*number = -*number;
	return r->p > at;
}

static bool
take_numbers(struct reader *r, int64_t *numbers, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		if (i && (r->p == r->end || *r->p++ != ' '))
			return false;
		if (!take_number(r, &numbers[i]))
			return false;
	}
	return r->p == r->end || *r->p == ';';
}

static bool
is_within(int64_t number, int64_t low, int64_t high)
{
	return number >= low && number <= high;
}

static bool
take_head(struct reader *r, struct saga_core *c)
{
	int64_t n[HEAD_NUMBERS];

	if (!take_numbers(r, n, HEAD_NUMBERS) || n[0] != FORMAT ||
		!is_within(n[1], 0, SAGA_IS_FINISHED) ||
		!is_within(n[2], 0, SAGA_OUTCOME_EXPIRED) ||
		!is_within(n[3], 0, SAGA_UNDO_RESOLVED) || !is_within(n[4], 0, 15) ||
		!is_within(n[5], 0, SAGA_FAULT_EVENTS_SPENT) ||
		!is_within(n[6], -1, c->step_count - 1) || n[7] != c->step_count ||
		!is_within(n[8], 0, SAGA_ROWS_MAX) || n[9] < 0)
		return false;
	c->status = (uint8_t)n[1];
	c->outcome = (uint8_t)n[2];
	c->undo = (uint8_t)n[3];
	c->is_paused = n[4] & 1;
	c->is_overdue = n[4] & 2;
	c->is_signed = n[4] & 4;
	c->is_deadline_over = n[4] & 8;
	c->reason = (uint8_t)n[5];
	c->reason_step = (int16_t)n[6];
	c->row_count = (uint32_t)n[8];
	c->deadline_at_ms = n[9];
	return true;
}

static bool
set_tries(struct saga_tries *tries, const int64_t n[4])
{
	for (int i = 0; i < 4; i++)
		if (!is_within(n[i], i == 1, UINT32_MAX))
			return false;
	*tries = (struct saga_tries){ (uint32_t)n[0], (uint32_t)n[1], (uint32_t)n[2],
		(uint32_t)n[3] };
	return tries->round_base <= tries->attempts &&
	       tries->budget_base <= tries->attempts;
}

static bool
take_step(struct reader *r, struct saga_core *c, int64_t *last)
{
	int64_t n[STEP_NUMBERS];
	struct saga_step *s;

	r->p++; /* the semicolon */
	if (!take_numbers(r, n, STEP_NUMBERS) ||
		!is_within(n[0], *last + 1, c->step_count - 1) ||
		!is_within(n[1], 0, SAGA_STEP_RESOLVED) ||
		!is_within(n[2], 0, SAGA_WAIT_BACKOFF) ||
		!is_within(n[3], 0, SAGA_OP_UNDO) ||
		!is_within(n[4], 0, SAGA_FAULT_EVENTS_SPENT) || !is_within(n[5], 0, 7) ||
		!is_within(n[6], 0, UINT32_MAX) || n[7] < 0)
		return false;
	*last = n[0];
	s = &c->steps[n[0]];
	s->state = (uint8_t)n[1];
	s->wait = (uint8_t)n[2];
	s->wait_op = (uint8_t)n[3];
	s->fault = (uint8_t)n[4];
	s->is_maybe = n[5] & 1;
	s->is_empty = n[5] & 2;
	s->is_late = n[5] & 4;
	s->open = (uint32_t)n[6];
	s->due_at_ms = n[7];
	return set_tries(&s->action, n + 8) && set_tries(&s->undo, n + 12);
}

enum skald_rc
skald__saga_state_read(struct saga_core *c, const struct saga_plan *plan,
	struct skald_slice text, struct skald_err *err)
{
	struct reader r = { text.data, text.data + text.bytes };
	struct saga_core read;
	int64_t last = -1;
	bool is_good;

	skald__saga_init(&read, plan);
	is_good = text.bytes && take_head(&r, &read);
	while (is_good && r.p < r.end)
		is_good = take_step(&r, &read, &last);
	if (!is_good)
		return skald_fail(err, SKALD_REJECT, "skald", "SK001",
			"saga state: byte %zu: not a state of this definition",
			text.bytes ? (size_t)(r.p - text.data) : 0);
	memcpy(c, &read, sizeof(*c));
	return SKALD_OK;
}
