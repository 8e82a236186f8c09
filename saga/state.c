/*
 * state.c - the state vector as text. First one item per step, in the order of the
 * definition, that views read (docs/protocol.md):
 *
 *	word:attempts:compensation attempts:key round:its compensation's:started:finished:code
 *
 * an empty one for a step that was never reached; then, after a semicolon, what the core
 * keeps beside that: the saga's own, and by step; after another the cause, which may be
 * any text.
 */
#include "saga/own.h"

#include <inttypes.h>
#include <string.h>

/* --- writing ------------------------------------------------------------------------------- */

static bool
is_untouched(const struct saga_step *s)
{
	return s->state == SAGA_STEP_PENDING && s->wait == SAGA_WAIT_NONE &&
	       s->action.attempts == 0 && s->undo.attempts == 0 && s->fault == 0;
}

static void
add_item(const struct saga_step *s, const struct saga__memo *memo, struct skald_buf *out)
{
	if (is_untouched(s))
		return;
	skald_buf_addf(out,
		"%s:%u:%u:%u:%u:", skald__saga_state_name((enum saga_state)s->state),
		s->action.attempts, s->undo.attempts, s->action.round, s->undo.round);
	if (memo->started_us)
		skald_buf_addf(out, "%" PRId64, memo->started_us);
	skald_buf_add(out, ":", 1);
	if (memo->finished_us)
		skald_buf_addf(out, "%" PRId64, memo->finished_us);
	skald_buf_addf(out, ":%s", memo->error);
}

void
skald__saga_encode(const struct saga__vector *v, struct skald_buf *out)
{
	const struct saga_core *c = &v->core;

	for (unsigned i = 0; i < c->step_count; i++) {
		if (i)
			skald_buf_add(out, ",", 1);
		add_item(&c->steps[i], &v->memos[i], out);
	}
	skald_buf_addf(out, ";1:%d:%d:%d:%d:%d:%d:%d:%d:%d:%" PRId64, c->status,
		c->outcome, c->undo, c->is_paused, c->is_overdue, c->is_signed,
		c->is_deadline_over, c->reason, c->reason_step, c->deadline_at_ms);
	for (unsigned i = 0; i < c->step_count; i++) {
		const struct saga_step *s = &c->steps[i];

		if (is_untouched(s))
			continue;
		skald_buf_addf(out, "/%u:%d:%d:%d:%d:%d:%d:%u:%" PRId64 ":%u:%u:%u:%u", i,
			s->wait, s->wait_op, s->fault, s->is_maybe, s->is_empty,
			s->is_late, s->open, s->due_at_ms, s->action.round_base,
			s->action.budget_base, s->undo.round_base, s->undo.budget_base);
	}
	skald_buf_addf(out, ";%s", v->cause);
}

/* --- reading ------------------------------------------------------------------------------- */

/* The text before the next `mark`, and step over it. */
static struct skald_slice
cut(struct skald_slice *rest, char mark)
{
	const char *end = memchr(rest->data, mark, rest->bytes);
	size_t bytes = end ? (size_t)(end - rest->data) : rest->bytes;
	struct skald_slice field = skald_slice_make(rest->data, bytes);

	*rest = skald_slice_make(
		rest->data + bytes + (end != NULL), rest->bytes - bytes - (end != NULL));
	return field;
}

static bool
take(struct skald_slice *rest, int64_t max, int64_t *value)
{
	long long number = 0;
	struct skald_slice field = cut(rest, ':');

	if (!skald_slice_int64(field, &number) || number < -1 || number > max)
		return false;
	*value = number;
	return true;
}

static bool
read_word(struct skald_slice word, uint8_t *state)
{
	for (int i = 0; i <= SAGA_STEP_RESOLVED; i++)
		if (skald_slice_is_text(
			    word, skald__saga_state_name((enum saga_state)i))) {
			*state = (uint8_t)i;
			return true;
		}
	return false;
}

static bool
read_item(struct skald_slice item, struct saga_step *s, struct saga__memo *memo)
{
	int64_t n[4];
	long long at = 0;
	struct skald_slice field;

	if (item.bytes == 0)
		return true;
	if (!read_word(cut(&item, ':'), &s->state))
		return false;
	for (int i = 0; i < 4; i++)
		if (!take(&item, UINT32_MAX, &n[i]))
			return false;
	s->action.attempts = (uint32_t)n[0];
	s->undo.attempts = (uint32_t)n[1];
	s->action.round = (uint32_t)n[2];
	s->undo.round = (uint32_t)n[3];
	field = cut(&item, ':');
	if (field.bytes && !skald_slice_int64(field, &at))
		return false;
	memo->started_us = field.bytes ? at : 0;
	field = cut(&item, ':');
	if (field.bytes && !skald_slice_int64(field, &at))
		return false;
	memo->finished_us = field.bytes ? at : 0;
	return skald_slice_copy(item, memo->error, sizeof(memo->error));
}

static bool
read_saga(struct skald_slice text, struct saga_core *c)
{
	int64_t n[11];

	for (int i = 0; i < 11; i++)
		if (!take(&text, INT64_MAX, &n[i]))
			return false;
	if (n[0] != 1 || n[1] > SAGA_IS_FINISHED || n[2] > SAGA_OUTCOME_EXPIRED ||
		n[3] > SAGA_UNDO_RESOLVED || n[8] > SAGA_FAULT_EVENTS_SPENT ||
		n[9] >= c->step_count)
		return false;
	c->status = (uint8_t)n[1];
	c->outcome = (uint8_t)n[2];
	c->undo = (uint8_t)n[3];
	c->is_paused = n[4];
	c->is_overdue = n[5];
	c->is_signed = n[6];
	c->is_deadline_over = n[7];
	c->reason = (uint8_t)n[8];
	c->reason_step = (int16_t)n[9];
	c->deadline_at_ms = n[10];
	return true;
}

static bool
read_step(struct skald_slice text, struct saga_core *c)
{
	struct saga_step *s;
	int64_t n[13];

	for (int i = 0; i < 13; i++)
		if (!take(&text, INT64_MAX, &n[i]))
			return false;
	if (n[0] < 0 || n[0] >= c->step_count || n[1] > SAGA_WAIT_BACKOFF ||
		n[2] > SAGA_OP_UNDO || n[3] > SAGA_FAULT_EVENTS_SPENT)
		return false;
	s = &c->steps[n[0]];
	s->wait = (uint8_t)n[1];
	s->wait_op = (uint8_t)n[2];
	s->fault = (uint8_t)n[3];
	s->is_maybe = n[4];
	s->is_empty = n[5];
	s->is_late = n[6];
	s->open = (uint32_t)n[7];
	s->due_at_ms = n[8];
	s->action.round_base = (uint32_t)n[9];
	s->action.budget_base = (uint32_t)n[10];
	s->undo.round_base = (uint32_t)n[11];
	s->undo.budget_base = (uint32_t)n[12];
	return true;
}

enum skald_rc
skald__saga_decode(struct skald_slice text, uint32_t seq, const struct saga_plan *plan,
	struct saga__vector *v, struct skald_err *err)
{
	struct skald_slice items, own;
	bool is_sound = true;

	skald__saga_init(&v->core, plan);
	memset(v->memos, 0, plan->step_count * sizeof(v->memos[0]));
	v->cause[0] = '\0';
	v->core.row_count = seq;
	if (text.bytes == 0)
		return SKALD_OK;
	items = cut(&text, ';');
	own = cut(&text, ';');
	for (unsigned i = 0; i < plan->step_count && is_sound; i++)
		is_sound = read_item(cut(&items, ','), &v->core.steps[i], &v->memos[i]);
	is_sound = is_sound && items.bytes == 0 && read_saga(cut(&own, '/'), &v->core);
	while (is_sound && own.bytes)
		is_sound = read_step(cut(&own, '/'), &v->core);
	is_sound = is_sound && skald_slice_copy(text, v->cause, sizeof(v->cause));
	if (is_sound)
		return SKALD_OK;
	return skald_fail(err, SKALD_REJECT, "skald", "",
		"state: is not the vector of a saga of %u steps", plan->step_count);
}
