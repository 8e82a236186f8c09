/*
 * act.c - events go into the core, and what it says is written down: rows of history,
 * commands, life-cycle events, data. Nothing here talks to anybody: it fills the sets
 * of the batch.
 */
#include "saga/own.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/json.h"
#include "base/log.h"

#define LOOK_US 500000 /* a timer that may not act yet is looked at again */
#define GAP_US  5000000 /* replies not known to be applied for so long: a gap */
#define PATIENCE_US \
	((int64_t)30 * 60 * 1000000) /* marks of the relay are kept for an hour */

/* --- rendering a command ---------------------------------------------------------------------- */

static struct saga_data
data_of(const struct saga__inst *inst)
{
	return (struct saga_data){ .input = inst->input,
		.steps = inst->steps,
		.step_count = inst->v.core.step_count,
		.id = skald_slice_text(inst->id),
		.key = inst->key,
		.correlation_id = inst->correlation_id,
		.run = inst->run };
}

static enum saga_fault
fault_of(enum saga_render result)
{
	switch (result) {
	case SAGA_RENDER_OK:
		return SAGA_FAULT_NONE;
	case SAGA_RENDER_MISSING:
		return SAGA_FAULT_DATA_MISSING;
	case SAGA_RENDER_TOO_LARGE:
	case SAGA_RENDER_NO_MEMORY:
		break;
	}
	return SAGA_FAULT_DATA_TOO_LARGE;
}

/* The core looks whether the data is there; what was rendered is kept for the SEND. */
static enum saga_fault
look(void *ctx, unsigned step, enum saga_op op)
{
	struct skald_orchestrator *o = ctx;
	struct saga__inst *inst = o->looking;
	struct saga_data data = data_of(inst);
	const struct saga_path *path = skald__saga_def_key(inst->def, step);
	struct saga__rendered *r = &o->rendered[o->rendered_count];
	const char *missing = NULL;
	enum saga_render result;

	skald_buf_clear(&o->scratch);
	skald_buf_clear(&o->scratch2);
	result =
		skald__saga_def_render(inst->def, step, op, &data, &o->scratch, &missing);
	if (!result && path) {
		result = skald__path_render_key(path, &data, &o->scratch2);
		if (result == SAGA_RENDER_MISSING)
			missing = path->text;
		if (result && op == SAGA_OP_UNDO) { /* it had one when it was sent */
			result = SAGA_RENDER_OK;
			skald_buf_clear(&o->scratch2);
		}
	}
	if (missing)
		(void)snprintf(o->missing, sizeof(o->missing),
			"%.200s leads nowhere in the saga's data", missing);
	if (result)
		return fault_of(result);
	r->data_at = o->texts.bytes;
	r->data_bytes = o->scratch.bytes;
	skald_buf_add_slice(&o->texts, skald_buf_slice(&o->scratch));
	r->key_at = o->texts.bytes;
	r->key_bytes = o->scratch2.bytes;
	skald_buf_add_slice(&o->texts, skald_buf_slice(&o->scratch2));
	o->rendered_count++;
	return SAGA_FAULT_NONE;
}

/* --- writing down ----------------------------------------------------------------------------- */

static void
new_id(struct skald_orchestrator *o, char dst[SKALD_UUID_TEXT_BYTES])
{
	skald_uuid_format(skald_uuid_v7(o->clock_us / 1000, skald_rand_next(&o->rand),
				  skald_rand_next(&o->rand)),
		dst);
}

static void
trace_child(struct skald_orchestrator *o, const struct saga__inst *inst,
	char dst[SKALD_TRACEPARENT_BYTES])
{
	skald_trace_child(inst->traceparent, skald_rand_next(&o->rand),
		skald_rand_next(&o->rand), skald_rand_next(&o->rand), dst);
}

static void
do_send(struct skald_orchestrator *o, struct saga__inst *inst, const struct saga_do *d)
{
	const struct saga_command *command =
		skald__saga_def_command(inst->def, (unsigned)d->step, d->op);
	const struct saga__rendered *r = &o->rendered[o->rendered_next++];
	struct saga__out out = { .topic = command->topic,
		.type = command->type,
		.key = skald_slice_text(inst->id),
		.data = skald_slice_make(o->texts.data + r->data_at, r->data_bytes),
		.correlation_id = inst->correlation_id,
		.causation_id = inst->v.cause[0] ? skald_slice_text(inst->v.cause)
						 : SKALD_SLICE_NULL,
		.traceparent = o->command_trace,
		.expires_us = d->has_expiry ? inst->v.core.deadline_at_ms * 1000 : 0 };

	if (r->key_bytes)
		out.key = skald_slice_make(o->texts.data + r->key_at, r->key_bytes);
	memcpy(out.id, o->command_id, sizeof(out.id));
	skald_buf_clear(&o->scratch);
	skald__saga_command_headers(o, inst, d, &o->scratch);
	out.headers = skald_buf_slice(&o->scratch);
	skald__saga_put(o, &out);
	inst->is_sent = true;
	inst->published_us = 0;
	atomic_fetch_add(o->count.commands, 1);
}

static void
count_life(struct skald_orchestrator *o, enum saga_life life)
{
	switch (life) {
	case SAGA_LIFE_STARTED:
		atomic_fetch_add(o->count.started, 1);
		return;
	case SAGA_LIFE_STUCK:
		atomic_fetch_add(o->count.stuck, 1);
		return;
	case SAGA_LIFE_COMPLETED:
		atomic_fetch_add(o->count.completed, 1);
		return;
	case SAGA_LIFE_COMPENSATED:
	case SAGA_LIFE_RESOLVED:
		atomic_fetch_add(o->count.compensated, 1);
		return;
	case SAGA_LIFE_COMPENSATING:
		return;
	}
}

static void
do_life(struct skald_orchestrator *o, struct saga__inst *inst, enum saga_life life)
{
	char type[48], trace[SKALD_TRACEPARENT_BYTES];
	struct saga__out out = { .topic = SAGA__LIFE_TOPIC,
		.type = type,
		.key = skald_slice_text(inst->id),
		.headers = SKALD_SLICE_LIT("{}"),
		.correlation_id = inst->correlation_id,
		.causation_id = inst->v.cause[0] ? skald_slice_text(inst->v.cause)
						 : SKALD_SLICE_NULL,
		.traceparent = trace };

	(void)snprintf(type, sizeof(type), "skald.saga.%s", skald__saga_life_name(life));
	new_id(o, out.id);
	trace_child(o, inst, trace);
	skald_buf_clear(&o->scratch);
	skald__saga_life_json(o, inst, &o->scratch);
	out.data = skald_buf_slice(&o->scratch);
	skald__saga_put(o, &out);
	count_life(o, life);
}

static void
do_finish(struct skald_orchestrator *o, struct saga__inst *inst)
{
	struct saga_data data = data_of(inst);

	if (inst->v.core.outcome != SAGA_OUTCOME_COMPLETED)
		return;
	skald_buf_clear(&o->scratch);
	if (skald__saga_def_render_output(inst->def, &data, &o->scratch) ==
			SAGA_RENDER_OK &&
		o->scratch.bytes > 0)
		skald__saga_keep(o, inst, "$output", skald_buf_slice(&o->scratch));
}

static void
count_row(struct skald_orchestrator *o, enum saga_row row)
{
	if (row == SAGA_ROW_REPLY)
		atomic_fetch_add(o->count.replies, 1);
	else if (row == SAGA_ROW_STALE)
		atomic_fetch_add(o->count.stale, 1);
	else if (row == SAGA_ROW_TIMEOUT)
		atomic_fetch_add(o->count.timeouts, 1);
}

/* A line for each row of history, in the saga's context; of a batch that is rolled back it is
   decided, and said, again. */
static void
tell(const struct saga__inst *inst, const struct saga_do *d)
{
	bool is_stuck = d->row == SAGA_ROW_STUCK;
	enum skald_log_level level = is_stuck ? SKALD_LOG_WARN : SKALD_LOG_DEBUG;
	struct skald_context context, *previous;

	if (!skald_log_is_on(level))
		return;
	memset(&context, 0, sizeof(context));
	(void)skald_slice_copy(inst->correlation_id, context.correlation_id,
		sizeof(context.correlation_id));
	previous = skald_context_enter(&context);
	skald_log(level, "saga %s%s saga=%s name=%s step=%s op=%s attempt=%u outcome=%s",
		skald__saga_row_name(d->row),
		is_stuck ? ": nothing moves without a person" : "", inst->id,
		skald_saga_def_name(inst->def),
		d->step >= 0 ? skald_saga_def_step_name(inst->def, (unsigned)d->step)
			     : "",
		d->step >= 0 ? skald__saga_op_name(d->op) : "",
		d->step >= 0 ? d->attempt : 0,
		is_stuck ? inst->reason_code
		: d->row == SAGA_ROW_FINISHED
			? skald__saga_outcome_name(
				  (enum saga_outcome)inst->v.core.outcome)
			: skald__saga_reply_name(d->reply));
	skald_context_leave(previous);
}

static void
do_row(struct skald_orchestrator *o, struct saga__inst *inst, const struct saga_do *d,
	const struct saga__msg *msg)
{
	struct skald_slice id = SKALD_SLICE_NULL, detail = SKALD_SLICE_NULL;
	struct skald_slice trace = inst->traceparent;

	count_row(o, d->row);
	skald_buf_clear(&o->scratch);
	if (d->row == SAGA_ROW_COMMAND) {
		new_id(o, o->command_id);
		trace_child(o, inst, o->command_trace);
		id = skald_slice_text(o->command_id);
		trace = skald_slice_text(o->command_trace);
	} else if (msg && (d->row == SAGA_ROW_REPLY || d->row == SAGA_ROW_LATE ||
				  d->row == SAGA_ROW_STALE)) {
		id = msg->id;
		if (msg->code[0]) {
			skald_buf_add_text(&o->scratch, "{");
			skald_json_add_member(
				&o->scratch, "code", skald_slice_text(msg->code));
			skald_json_add_member(&o->scratch, "message",
				skald_slice_text(
					msg->is_dead ? msg->why.text : msg->text));
			skald_buf_add_text(&o->scratch, "}");
			detail = skald_buf_slice(&o->scratch);
		}
	} else if (d->fault) {
		skald_buf_addf(&o->scratch, "{\"code\":\"%s\"}",
			d->fault == SAGA_FAULT_REPLY && inst->reason_code[0]
				? inst->reason_code
				: skald__saga_fault_name(d->fault));
		detail = skald_buf_slice(&o->scratch);
	}
	skald__saga_log(o, inst, d, id, detail, trace);
	tell(inst, d);
}

static void
carry_out(struct skald_orchestrator *o, struct saga__inst *inst,
	const struct saga__msg *msg)
{
	for (unsigned i = 0; i < o->todo.count; i++) {
		const struct saga_do *d = &o->todo.items[i];

		switch (d->kind) {
		case SAGA_DO_ROW:
			do_row(o, inst, d, msg);
			break;
		case SAGA_DO_SEND:
			do_send(o, inst, d);
			break;
		case SAGA_DO_LIFE:
			do_life(o, inst, d->life);
			break;
		case SAGA_DO_FINISH:
			do_finish(o, inst);
			break;
		case SAGA_DO_ARM:
		case SAGA_DO_REFUSE:
			break;
		}
	}
}

/* --- what the loop remembers -------------------------------------------------------------------- */

/* A participant's code, fit for the state vector. */
static void
copy_code(const char *code, char dst[SAGA__CODE_BYTES])
{
	size_t n = 0;

	for (; code[n] && n + 1 < SAGA__CODE_BYTES; n++) {
		char c = code[n];
		bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
				(c >= '0' && c <= '9') || c == '_' || c == '-' ||
				c == '.';

		dst[n] = is_plain ? c : '_';
	}
	dst[n] = '\0';
}

static bool
is_end(uint8_t state)
{
	return state != SAGA_STEP_PENDING && state != SAGA_STEP_WAITING &&
	       state != SAGA_STEP_SENT && state != SAGA_STEP_UNKNOWN &&
	       state != SAGA_STEP_UNDOING;
}

static void
note_steps(struct skald_orchestrator *o, struct saga__inst *inst, const uint8_t *states,
	const struct saga__msg *msg)
{
	for (unsigned i = 0; i < inst->v.core.step_count; i++) {
		const struct saga_step *s = &inst->v.core.steps[i];
		struct saga__memo *memo = &inst->v.memos[i];

		if (s->action.attempts > 0 && !memo->started_us)
			memo->started_us = o->clock_us;
		if (s->state != states[i])
			memo->finished_us = is_end(s->state) ? o->clock_us : 0;
		if (s->fault == SAGA_FAULT_NONE)
			memo->error[0] = '\0';
		else if (s->fault != SAGA_FAULT_REPLY)
			copy_code(skald__saga_fault_name((enum saga_fault)s->fault),
				memo->error);
		else if (msg && msg->code[0] && o->event_step == i)
			copy_code(msg->code, memo->error);
	}
}

static void
note_reason(struct skald_orchestrator *o, struct saga__inst *inst, enum saga_fault was,
	int was_step, const struct saga__msg *msg)
{
	const struct saga_core *c = &inst->v.core;

	if (c->reason == was && c->reason_step == was_step)
		return;
	inst->reason_text[0] = inst->reason_code[0] = '\0';
	if (c->reason == SAGA_FAULT_NONE)
		return;
	if (c->reason != SAGA_FAULT_REPLY) {
		copy_code(skald__saga_fault_name((enum saga_fault)c->reason),
			inst->reason_code);
		if (c->reason == SAGA_FAULT_DATA_MISSING)
			(void)snprintf(inst->reason_text, sizeof(inst->reason_text), "%s",
				o->missing);
		return;
	}
	if (c->reason_step >= 0)
		copy_code(inst->v.memos[c->reason_step].error, inst->reason_code);
	if (msg && o->event_step == (unsigned)c->reason_step)
		(void)snprintf(
			inst->reason_text, sizeof(inst->reason_text), "%s", msg->text);
}

static bool
is_accepted(const struct skald_orchestrator *o)
{
	return o->todo.count > 0 && o->todo.items[0].kind == SAGA_DO_ROW &&
	       (o->todo.items[0].row == SAGA_ROW_REPLY ||
		       o->todo.items[0].row == SAGA_ROW_LATE);
}

/* A reply that counts: its data is kept once, and what follows is caused by it. */
static void
note_reply(struct skald_orchestrator *o, struct saga__inst *inst, struct saga_event *ev,
	const struct saga__msg *msg, bool has_data)
{
	if (!is_accepted(o)) {
		if (has_data)
			inst->steps[ev->step] = SKALD_SLICE_NULL;
		return;
	}
	if (!has_data)
		return;
	skald__saga_keep(
		o, inst, skald_saga_def_step_name(inst->def, ev->step), msg->data);
	inst->is_kept[ev->step] = true;
	inst->kept_bytes += msg->data.bytes;
}

enum skald_rc
skald__saga_act(struct skald_orchestrator *o, struct saga__inst *inst,
	struct saga_event *ev, struct saga__msg *msg, struct skald_err *err)
{
	const struct saga_plan *plan = skald__saga_def_plan(inst->def);
	struct saga_view view = { look, o };
	struct saga_core *c = &inst->v.core;
	enum saga_fault was = (enum saga_fault)c->reason;
	int was_step = c->reason_step;
	uint8_t states[SAGA_STEPS_MAX];
	bool is_telling, has_data = false;

	for (unsigned i = 0; i < c->step_count; i++)
		states[i] = c->steps[i].state;
	if (msg && !msg->is_dead && msg->reply == SAGA_REPLY_SUCCESS &&
		msg->op == SAGA_OP_ACTION && msg->data.data && !inst->is_kept[ev->step]) {
		inst->steps[ev->step] = msg->data;
		has_data = true;
	}
	/* A retry is caused by what caused the first attempt; only what is known to have
	   happened or not leads to something new. */
	is_telling =
		msg && msg->id.data && !msg->is_dead &&
		(msg->reply == SAGA_REPLY_SUCCESS || msg->reply == SAGA_REPLY_FAILURE);
	ev->rand = skald_rand_next(&o->rand);
	o->looking = inst;
	o->event_step = ev->step;
	o->rendered_count = o->rendered_next = 0;
	skald_buf_clear(&o->texts);
	skald__saga_next(plan, c, ev, &view, o->clock_us / 1000, &o->todo);
	if (o->texts.failed)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	if (msg)
		note_reply(o, inst, ev, msg, has_data);
	if (is_telling && is_accepted(o))
		(void)skald_slice_copy(msg->id, inst->v.cause, sizeof(inst->v.cause));
	if (c->status == SAGA_IS_FINISHED) {
		if (!inst->finished_us)
			inst->finished_us = o->clock_us;
	} else {
		inst->finished_us = 0;
	}
	inst->deadline_us = c->deadline_at_ms * 1000;
	note_steps(o, inst, states, msg);
	note_reason(o, inst, was, was_step, msg);
	carry_out(o, inst, msg);
	inst->is_dirty = inst->is_dirty || o->todo.count > 0;
	atomic_fetch_add(o->count.transitions, 1);
	return SKALD_OK;
}

/* --- time ------------------------------------------------------------------------------------- */

static void
look_again(struct saga__inst *inst, int64_t at_us)
{
	if (at_us < inst->look_us)
		inst->look_us = at_us;
}

/*
 * May the attempt that is out be given up? It counts from the relay's mark, anew from
 * the end of a gap; and every reply up to a moment after it became due must be applied.
 * Moves its time-out later where it must.
 */
static bool
is_timed_out(struct skald_orchestrator *o, struct saga__inst *inst, unsigned step)
{
	struct saga_step *s = &inst->v.core.steps[step];
	int64_t timeout_us =
		skald__saga_def_plan(inst->def)->steps[step].timeout_ms * 1000;
	int64_t from_us = inst->published_us, due_us;

	if (!from_us || !o->caught_us || o->clock_us - o->caught_us >= GAP_US) {
		/* not published, or in a gap: not before a whole time-out from now */
		s->due_at_ms = (o->clock_us + timeout_us) / 1000;
		return false;
	}
	if (from_us < o->gap_us)
		from_us = o->gap_us;
	due_us = from_us + timeout_us;
	if (due_us > o->clock_us) {
		s->due_at_ms = (due_us + 999) / 1000;
		return false;
	}
	if (o->caught_us <= due_us) {
		look_again(inst, o->clock_us + LOOK_US);
		return false;
	}
	return true;
}

static enum skald_rc
act_timeouts(struct skald_orchestrator *o, struct saga__inst *inst, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = 0; i < inst->v.core.step_count && !rc; i++) {
		const struct saga_step *s = &inst->v.core.steps[i];
		enum saga_op op = (enum saga_op)s->wait_op;
		struct saga_event ev = { .kind = SAGA_EV_TIMEOUT, .step = i, .op = op };

		if (s->wait != SAGA_WAIT_REPLY || s->due_at_ms * 1000 > o->clock_us)
			continue;
		ev.attempt = op == SAGA_OP_ACTION ? s->action.attempts : s->undo.attempts;
		if (is_timed_out(o, inst, i))
			rc = skald__saga_act(o, inst, &ev, NULL, err);
	}
	return rc;
}

static enum skald_rc
act_deadline(struct skald_orchestrator *o, struct saga__inst *inst, struct skald_err *err)
{
	const struct saga_core *c = &inst->v.core;
	struct saga_event ev = { .kind = SAGA_EV_DEADLINE };

	if (!c->deadline_at_ms || c->is_deadline_over || !skald__saga_is_forward(c) ||
		c->status == SAGA_IS_FINISHED || c->deadline_at_ms * 1000 > o->clock_us)
		return SKALD_OK;
	if (o->caught_us <= c->deadline_at_ms * 1000) {
		look_again(inst, o->clock_us + LOOK_US);
		return SKALD_OK;
	}
	return skald__saga_act(o, inst, &ev, NULL, err);
}

enum skald_rc
skald__saga_act_due(
	struct skald_orchestrator *o, struct saga__inst *inst, struct skald_err *err)
{
	struct saga_event ev = { .kind = SAGA_EV_DUE };
	enum skald_rc rc;

	inst->is_dirty = true; /* its due time moves in any case */
	rc = act_deadline(o, inst, err);
	if (!rc)
		rc = skald__saga_act(o, inst, &ev, NULL, err);
	if (!rc)
		rc = act_timeouts(o, inst, err);
	if (!inst->published_us && !inst->is_sent) /* while the marks are there */
		look_again(inst, o->clock_us + PATIENCE_US);
	return rc;
}
