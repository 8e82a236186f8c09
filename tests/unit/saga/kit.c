/* kit.c - see kit.h. */
#include "tests/unit/saga/kit.h"

#include <stdio.h>
#include <stdlib.h>

struct saga_plan plan;
struct saga_core core;
struct saga_dos todo;
int64_t now_ms;

/* --- events --------------------------------------------------------------------------------- */

const char *const event_names[EVENTS] = { "START", "SUCCESS", "FAILURE", "RETRYABLE",
	"UNKNOWN", "OLDER", "DEAD", "TIMEOUT", "DUE", "DEADLINE", "CANCEL", "PAUSE",
	"RESUME" };

void
next(struct saga_event ev)
{
	ev.rand = 10;
	skald__saga_next(&plan, &core, &ev, NULL, now_ms, &todo);
}

static struct saga_tries *
tries_of(unsigned step, enum saga_op op)
{
	return op == SAGA_OP_ACTION ? &core.steps[step].action : &core.steps[step].undo;
}

void
reply_as(unsigned step, enum saga_op op, uint32_t attempt, enum saga_reply reply,
	enum saga_barrier barrier)
{
	const struct saga_tries *tries = tries_of(step, op);

	next((struct saga_event){ .kind = SAGA_EV_REPLY,
		.step = step,
		.op = op,
		.attempt = attempt,
		.round = tries->round,
		.reply = reply,
		.barrier = barrier });
}

static void
reply(unsigned step, enum saga_op op, enum saga_reply outcome)
{
	reply_as(step, op, tries_of(step, op)->attempts, outcome, SAGA_BARRIER_NONE);
}

void
act(unsigned step, enum saga_reply outcome)
{
	reply(step, SAGA_OP_ACTION, outcome);
}

void
undo(unsigned step, enum saga_reply outcome)
{
	reply(step, SAGA_OP_UNDO, outcome);
}

void
time_out(unsigned step, enum saga_op op)
{
	next((struct saga_event){ .kind = SAGA_EV_TIMEOUT,
		.step = step,
		.op = op,
		.attempt = tries_of(step, op)->attempts });
}

void
due(void)
{
	now_ms += 1000;
	next((struct saga_event){ .kind = SAGA_EV_DUE });
}

void
tell(enum saga_event_kind kind)
{
	if (kind == SAGA_EV_DEADLINE)
		now_ms = core.deadline_at_ms;
	next((struct saga_event){ .kind = kind });
}

/* --- what there is to see ------------------------------------------------------------------- */

static char seen[512];

const char *
look(void)
{
	static const char *const names[] = { "a", "p", "r" };
	size_t n = (size_t)snprintf(seen, sizeof(seen),
		"%s/%s/%s:", skald__saga_status_name((enum saga_status)core.status),
		skald__saga_outcome_name((enum saga_outcome)core.outcome),
		skald__saga_undo_name((enum saga_undo)core.undo));

	for (unsigned i = 0; i < core.step_count; i++)
		n += (size_t)snprintf(seen + n, sizeof(seen) - n, " %s",
			skald__saga_state_name((enum saga_state)core.steps[i].state));
	for (unsigned i = 0; i < todo.count; i++) {
		const struct saga_do *d = &todo.items[i];

		if (d->kind == SAGA_DO_SEND)
			n += (size_t)snprintf(seen + n, sizeof(seen) - n, "; %s-%s %u:%u",
				d->op == SAGA_OP_ACTION ? "do" : "undo", names[d->step],
				d->attempt, d->round);
		if (d->kind == SAGA_DO_LIFE)
			n += (size_t)snprintf(seen + n, sizeof(seen) - n, "; .%s",
				skald__saga_life_name(d->life));
		if (d->kind == SAGA_DO_REFUSE)
			n += (size_t)snprintf(seen + n, sizeof(seen) - n, "; refused");
		if (d->kind == SAGA_DO_ROW && d->row != SAGA_ROW_COMMAND)
			n += (size_t)snprintf(seen + n, sizeof(seen) - n, "; %s",
				skald__saga_row_name(d->row));
	}
	return seen;
}

/* --- positions ------------------------------------------------------------------------------ */

void
make_plan(void)
{
	plan = (struct saga_plan){ .step_count = 3, .pivot = P, .deadline_ms = 100000 };
	for (unsigned i = 0; i < 3; i++)
		plan.steps[i] = (struct saga_plan_step){ .kind = (enum saga_kind)i,
			.has_undo = i == A,
			.timeout_ms = 100,
			.retry = { i == R ? 0 : 2, 10, 40 },
			.undo_retry = { 2, 10, 40 } };
	skald__saga_plan_sequence(&plan);
	skald__saga_init(&core, &plan);
	now_ms = 1000;
}

void
begin(void)
{
	make_plan();
	tell(SAGA_EV_START);
}

const char *const position_names[POSITIONS] = { "NEW", "A_SENT", "A_WAITING", "A_UNKNOWN",
	"A_SENT_AGAIN", "P_SENT", "P_STUCK", "R_SENT", "R_WAITING", "UNDO_SENT",
	"UNDO_BACKOFF", "UNDO_SPENT", "COMPLETED", "COMPENSATED" };

static void
go_back_to(enum position position)
{
	act(P, SAGA_REPLY_FAILURE);
	if (position == UNDO_BACKOFF || position == UNDO_SPENT)
		time_out(A, SAGA_OP_UNDO);
	if (position == UNDO_SPENT) {
		due();
		time_out(A, SAGA_OP_UNDO);
	}
	if (position == COMPENSATED)
		undo(A, SAGA_REPLY_SUCCESS);
}

static void
go_on_to(enum position position)
{
	if (position == P_STUCK) {
		time_out(P, SAGA_OP_ACTION);
		due();
		time_out(P, SAGA_OP_ACTION);
		return;
	}
	act(P, SAGA_REPLY_SUCCESS);
	if (position == R_WAITING)
		act(R, SAGA_REPLY_FAILURE);
	if (position == COMPLETED)
		act(R, SAGA_REPLY_SUCCESS);
}

void
go_to(enum position position)
{
	make_plan();
	if (position == NEW)
		return;
	begin();
	if (position == A_WAITING)
		act(A, SAGA_REPLY_RETRYABLE);
	if (position == A_UNKNOWN || position == A_SENT_AGAIN)
		time_out(A, SAGA_OP_ACTION);
	if (position == A_SENT_AGAIN)
		due();
	if (position < P_SENT)
		return;
	act(A, SAGA_REPLY_SUCCESS);
	if (position == P_SENT)
		return;
	if (position <= R_WAITING || position == COMPLETED)
		go_on_to(position);
	else
		go_back_to(position);
}

/* The step and op an answer in this position is about. */
void
give(enum position position, enum event event)
{
	bool is_undo = position >= UNDO_SENT && position != COMPLETED;
	unsigned step = position <= A_SENT_AGAIN || is_undo         ? A
			: position == P_SENT || position == P_STUCK ? P
								    : R;
	enum saga_op op = is_undo ? SAGA_OP_UNDO : SAGA_OP_ACTION;
	uint32_t last = tries_of(step, op)->attempts;

	switch (event) {
	case START:
		tell(SAGA_EV_START);
		return;
	case SUCCESS:
	case FAILURE:
	case RETRYABLE:
	case UNKNOWN:
		reply(step, op,
			(enum saga_reply)(SAGA_REPLY_SUCCESS + (event - SUCCESS)));
		return;
	case OLDER:
		reply_as(step, op, last - 1, SAGA_REPLY_SUCCESS, SAGA_BARRIER_NONE);
		return;
	case DEAD:
		next((struct saga_event){ .kind = SAGA_EV_DEAD_LETTER,
			.step = step,
			.op = op,
			.attempt = last });
		return;
	case TIMEOUT:
		time_out(step, op);
		return;
	case DUE:
		due();
		return;
	case DEADLINE:
		tell(SAGA_EV_DEADLINE);
		return;
	case CANCEL:
		tell(SAGA_EV_CANCEL);
		return;
	case PAUSE:
		tell(SAGA_EV_PAUSE);
		return;
	case RESUME:
		tell(SAGA_EV_RESUME);
		return;
	case EVENTS:
		break;
	}
	abort();
}
