/*
 * vector.c - a saga's state as its row has it. First one item per step, in the order of
 * the definition, that views read (docs/protocol.md):
 *
 *	word:attempts:compensation attempts:key round:its compensation's:started:finished:code
 *
 * an empty one for a step that was never reached; then, after a semicolon, what the core
 * reads (state.c); then, after a bar, the cause, which may be any text.
 */
#include "saga/own.h"

#include <inttypes.h>
#include <string.h>

#include "saga/state.h"

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
	skald_buf_add(out, ";", 1);
	skald__saga_state_write(c, out);
	skald_buf_addf(out, "|%s", v->cause);
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
read_time(struct skald_slice field, int64_t *at_us)
{
	long long at = 0;

	if (field.bytes && (!skald_slice_int64(field, &at) || at <= 0))
		return false;
	*at_us = at;
	return true;
}

/* What the core's own text says again is for views only. */
static bool
read_item(struct skald_slice item, struct saga__memo *memo)
{
	if (item.bytes == 0)
		return true;
	for (int i = 0; i < 5; i++)
		(void)cut(&item, ':');
	return read_time(cut(&item, ':'), &memo->started_us) &&
	       read_time(cut(&item, ':'), &memo->finished_us) &&
	       skald_slice_copy(item, memo->error, sizeof(memo->error));
}

enum skald_rc
skald__saga_decode(struct skald_slice text, const struct saga_plan *plan,
	struct saga__vector *v, struct skald_err *err)
{
	struct skald_slice items;
	bool is_sound = true;

	memset(v->memos, 0, plan->step_count * sizeof(v->memos[0]));
	v->cause[0] = '\0';
	if (text.bytes == 0) {
		skald__saga_init(&v->core, plan);
		return SKALD_OK;
	}
	items = cut(&text, ';');
	is_sound = text.bytes && memchr(text.data, '|', text.bytes);
	for (unsigned i = 0; i < plan->step_count && is_sound; i++) {
		bool is_last = i + 1 == plan->step_count;

		/* as many items as steps: a comma behind each but the last */
		is_sound = (memchr(items.data, ',', items.bytes) == NULL) == is_last &&
			   read_item(cut(&items, ','), &v->memos[i]);
	}
	if (!is_sound)
		return skald_fail(err, SKALD_REJECT, "skald", "SK001",
			"saga state: not of a saga of %u steps", plan->step_count);
	if (skald__saga_state_read(&v->core, plan, cut(&text, '|'), err))
		return SKALD_REJECT;
	(void)skald_slice_copy(text, v->cause, sizeof(v->cause));
	return SKALD_OK;
}
