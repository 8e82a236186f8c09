/*
 * render.c - what the orchestrator writes into messages: headers of commands, the
 * object of a life-cycle event (docs/protocol.md, State).
 */
#include "saga/own.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/json.h"

static void
add_null(struct skald_buf *out, const char *name)
{
	skald_json_add_name(out, name);
	skald_buf_add_text(out, "null");
}

static void
add_bool(struct skald_buf *out, const char *name, bool value)
{
	skald_json_add_name(out, name);
	skald_buf_add_text(out, value ? "true" : "false");
}

static void
add_time(struct skald_buf *out, const char *name, int64_t at_us)
{
	char text[SKALD_TIME_TEXT_BYTES];

	if (at_us == 0 || at_us == SAGA__NEVER_US) {
		add_null(out, name);
		return;
	}
	skald_time_format(at_us, text);
	skald_json_add_member(out, name, skald_slice_text(text));
}

static void
add_text_or_null(struct skald_buf *out, const char *name, const char *text)
{
	if (text[0])
		skald_json_add_member(out, name, skald_slice_text(text));
	else
		add_null(out, name);
}

static void
add_wait(const struct saga__inst *inst, unsigned step, bool is_first,
	struct skald_buf *out)
{
	const struct saga_step *s = &inst->v.core.steps[step];
	const char *what = "backoff";

	if (s->wait == SAGA_WAIT_REPLY)
		what = inst->published_us ? "reply" : "relay";
	skald_buf_add_text(out, is_first ? "{" : ",{");
	skald_json_add_member(
		out, "step", skald_slice_text(skald_saga_def_step_name(inst->def, step)));
	skald_json_add_member(out, "what", skald_slice_text(what));
	add_time(out, "since", inst->updated_us);
	add_time(out, "until", s->due_at_ms * 1000);
	skald_buf_add_text(out, "}");
}

static void
add_waits(const struct saga__inst *inst, struct skald_buf *out)
{
	const struct saga_core *c = &inst->v.core;
	bool is_first = true;

	skald_json_add_name(out, "waiting_for");
	skald_buf_add_text(out, "[");
	for (unsigned i = 0; i < c->step_count; i++) {
		if (c->steps[i].wait == SAGA_WAIT_NONE)
			continue;
		add_wait(inst, i, is_first, out);
		is_first = false;
	}
	if (is_first && c->status == SAGA_IS_STUCK) {
		skald_buf_add_text(out, "{");
		add_text_or_null(out, "step",
			c->reason_step >= 0 ? skald_saga_def_step_name(
						      inst->def, (unsigned)c->reason_step)
					    : "");
		skald_json_add_member(out, "what", SKALD_SLICE_LIT("operator"));
		add_time(out, "since", inst->updated_us);
		add_null(out, "until");
		skald_buf_add_text(out, "}");
	}
	skald_buf_add_text(out, "]");
}

static void
add_reason(const struct saga__inst *inst, struct skald_buf *out)
{
	int step = inst->v.core.reason_step;

	if (inst->v.core.reason == SAGA_FAULT_NONE) {
		add_null(out, "reason");
		return;
	}
	skald_json_add_name(out, "reason");
	skald_buf_add_text(out, "{");
	add_text_or_null(out, "step",
		step >= 0 ? skald_saga_def_step_name(inst->def, (unsigned)step) : "");
	skald_json_add_member(out, "code", skald_slice_text(inst->reason_code));
	skald_json_add_member(out, "message", skald_slice_text(inst->reason_text));
	skald_buf_add_text(out, "}");
}

void
skald__saga_life_json(const struct skald_orchestrator *o, const struct saga__inst *inst,
	struct skald_buf *out)
{
	const struct saga_core *c = &inst->v.core;

	skald_buf_add_text(out, "{");
	skald_json_add_member(out, "id", skald_slice_text(inst->id));
	skald_json_add_member(out, "name", inst->name);
	skald_json_add_member_int(out, "version", inst->version);
	skald_json_add_member(out, "key", inst->key);
	skald_json_add_member_int(out, "run", inst->run);
	skald_json_add_member(out, "correlation_id", inst->correlation_id);
	skald_json_add_member(out, "traceparent", inst->traceparent);
	skald_json_add_member(out, "status",
		skald_slice_text(skald__saga_status_name((enum saga_status)c->status)));
	add_text_or_null(
		out, "outcome", skald__saga_outcome_name((enum saga_outcome)c->outcome));
	skald_json_add_member(out, "undo",
		skald_slice_text(skald__saga_undo_name((enum saga_undo)c->undo)));
	add_bool(out, "paused", c->is_paused);
	add_bool(out, "overdue", c->is_overdue);
	add_bool(out, "signed", c->is_signed);
	add_reason(inst, out);
	add_waits(inst, out);
	add_time(out, "created_at", inst->created_us);
	add_time(out, "updated_at", o->clock_us);
	add_time(out, "finished_at", inst->finished_us);
	add_time(out, "deadline_at", inst->deadline_us);
	skald_buf_add_text(out, "}");
}

void
skald__saga_command_headers(const struct skald_orchestrator *o,
	const struct saga__inst *inst, const struct saga_do *d, struct skald_buf *out)
{
	const char *step = skald_saga_def_step_name(inst->def, (unsigned)d->step);
	const char *op = skald__saga_op_name(d->op);
	char key[256], attempt[16];

	if (d->round > 1)
		(void)snprintf(
			key, sizeof(key), "%s:%s:%s:%u", inst->id, step, op, d->round);
	else
		(void)snprintf(key, sizeof(key), "%s:%s:%s", inst->id, step, op);
	(void)snprintf(attempt, sizeof(attempt), "%u", d->attempt);
	skald_buf_add_text(out, "{");
	skald_json_add_member(out, "ce_sagaid", skald_slice_text(inst->id));
	skald_json_add_member(out, "ce_saganame", inst->name);
	skald_json_add_member(out, "ce_sagastep", skald_slice_text(step));
	skald_json_add_member(out, "ce_sagaop", skald_slice_text(op));
	skald_json_add_member(out, "ce_sagaattempt", skald_slice_text(attempt));
	skald_json_add_member(out, "ce_replyto", skald_slice_text(o->reply_topic));
	skald_json_add_member(out, "idempotency-key", skald_slice_text(key));
	skald_buf_add_text(out, "}");
}
