/* Rules of the saga core that need more than one event, each by its name. */
#include "saga/saga_core.h"

#include "tests/support/check.h"
#include "tests/unit/saga/kit.h"

static const struct saga_do *
find(enum saga_do_kind kind)
{
	for (unsigned i = 0; i < todo.count; i++)
		if (todo.items[i].kind == kind)
			return &todo.items[i];
	return NULL;
}

/* Two compensatable steps and the pivot. */
static void
begin_two(void)
{
	make_plan();
	plan.pivot = R;
	plan.steps[P] = plan.steps[A];
	plan.steps[R].kind = SAGA_PIVOT;
	plan.steps[R].retry.attempts = 2;
	skald__saga_plan_sequence(&plan);
	tell(SAGA_EV_START);
}

static void
the_key_stays_after_unknown_and_changes_after_failure(void)
{
	go_to(UNDO_SENT);
	undo(A, SAGA_REPLY_UNKNOWN);
	due();
	CU_ASSERT_EQUAL(find(SAGA_DO_SEND)->round, 1);
	CU_ASSERT_TRUE(find(SAGA_DO_SEND)->is_repeat);
	CU_ASSERT_EQUAL(find(SAGA_DO_SEND)->attempt, 2);
	go_to(UNDO_SENT);
	undo(A, SAGA_REPLY_FAILURE);
	due();
	CU_ASSERT_EQUAL(find(SAGA_DO_SEND)->round, 2);
	CU_ASSERT_FALSE(find(SAGA_DO_SEND)->is_repeat);
	CU_ASSERT_EQUAL(find(SAGA_DO_SEND)->attempt, 2);
}

static void
a_late_failure_of_an_undo_moves_on_to_the_next_key(void)
{
	go_to(UNDO_BACKOFF);
	undo(A, SAGA_REPLY_FAILURE);
	due();
	CHECK_TEXT(look(), "compensating/failed/running: undoing failed pending; "
			   "undo-a 2:2");
}

static void
undo_goes_backwards_one_by_one(void)
{
	begin_two();
	act(A, SAGA_REPLY_SUCCESS);
	act(P, SAGA_REPLY_SUCCESS);
	act(R, SAGA_REPLY_FAILURE);
	CHECK_TEXT(look(),
		"compensating/failed/running: succeeded undoing failed; reply; "
		"compensating; .compensating; undo-p 1:1");
	undo(P, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(), "compensating/failed/running: undoing undone failed; reply; "
			   "undo-a 1:1");
	undo(A, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(), "finished/failed/done: undone undone failed; reply; finished; "
			   ".compensated");
}

static void
a_stuck_undo_holds_what_is_before_it(void)
{
	begin_two();
	act(A, SAGA_REPLY_SUCCESS);
	act(P, SAGA_REPLY_SUCCESS);
	act(R, SAGA_REPLY_FAILURE);
	undo(P, SAGA_REPLY_FAILURE);
	due();
	undo(P, SAGA_REPLY_FAILURE);
	CHECK_TEXT(look(),
		"stuck/failed/stuck: succeeded undo_stuck failed; reply; stuck; "
		".stuck");
	CU_ASSERT_EQUAL(
		core.reason, SAGA_FAULT_REPLY); /* why it failed, not why it sticks */
	CU_ASSERT_EQUAL(core.reason_step, R);
	CU_ASSERT_EQUAL(skald__saga_due_at_ms(&core), INT64_MAX);
}

static void
nothing_to_undo_is_passed_over(void)
{
	begin_two();
	plan.steps[P].has_undo = false;
	act(A, SAGA_REPLY_SUCCESS);
	act(P, SAGA_REPLY_SUCCESS);
	act(R, SAGA_REPLY_FAILURE);
	CHECK_TEXT(look(),
		"compensating/failed/running: undoing succeeded failed; reply; "
		"compensating; .compensating; undo-a 1:1");
	begin_two();
	plan.steps[A].has_undo = false;
	act(A, SAGA_REPLY_SUCCESS);
	act(P, SAGA_REPLY_FAILURE);
	CHECK_TEXT(look(), "finished/failed/none: succeeded failed pending; reply; "
			   "finished; .compensated");
}

static void
a_late_success_makes_a_finished_saga_stuck(void)
{
	begin();
	act(A, SAGA_REPLY_FAILURE);
	CU_ASSERT_EQUAL(core.status, SAGA_IS_FINISHED);
	act(A, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(), "stuck/failed/stuck: undo_stuck pending pending; late; stuck; "
			   ".stuck");
	CU_ASSERT_EQUAL(core.reason, SAGA_FAULT_LATE_SUCCESS);
	CU_ASSERT_EQUAL(core.reason_step, A);
	act(A, SAGA_REPLY_SUCCESS); /* and once more changes nothing */
	CHECK_TEXT(look(), "stuck/failed/stuck: undo_stuck pending pending; stale");
}

static void
a_late_success_while_compensating_is_undone_too(void)
{
	begin_two();
	act(A, SAGA_REPLY_SUCCESS);
	act(P, SAGA_REPLY_FAILURE);
	act(P, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(), "compensating/failed/running: undoing undoing pending; late; "
			   "undo-p 1:1");
	undo(A, SAGA_REPLY_SUCCESS);
	CU_ASSERT_EQUAL(core.status, SAGA_IS_COMPENSATING);
	undo(P, SAGA_REPLY_SUCCESS);
	CU_ASSERT_EQUAL(core.status, SAGA_IS_FINISHED);
}

static void
a_late_pivot_cannot_be_undone(void)
{
	go_to(UNDO_SENT);
	act(P, SAGA_REPLY_SUCCESS);
	CU_ASSERT_EQUAL(core.steps[P].state, SAGA_STEP_UNDO_STUCK);
	undo(A, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(), "stuck/failed/stuck: undone undo_stuck pending; reply; stuck; "
			   ".stuck");
}

static void
an_effect_behind_an_empty_undo_is_undone_under_the_next_key(void)
{
	begin_two();
	plan.steps[P].on_unknown = SAGA_UNKNOWN_COMPENSATE;
	act(A, SAGA_REPLY_SUCCESS);
	time_out(P, SAGA_OP_ACTION);
	reply_as(P, SAGA_OP_UNDO, 1, SAGA_REPLY_SUCCESS, SAGA_BARRIER_EMPTY);
	act(P, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(), "compensating/failed/running: undoing undoing pending; late; "
			   "undo-p 2:2");
	undo(P, SAGA_REPLY_SUCCESS);
	undo(A, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(),
		"finished/failed/done: undone undone pending; reply; finished; "
		".compensated");
	act(P, SAGA_REPLY_SUCCESS); /* told again: its undo has run */
	CHECK_TEXT(look(), "finished/failed/done: undone undone pending; late");
}

static void
the_same_behind_the_end_is_stuck(void)
{
	begin();
	plan.steps[A].on_unknown = SAGA_UNKNOWN_COMPENSATE;
	time_out(A, SAGA_OP_ACTION);
	reply_as(A, SAGA_OP_UNDO, 1, SAGA_REPLY_SUCCESS, SAGA_BARRIER_EMPTY);
	CU_ASSERT_EQUAL(core.status, SAGA_IS_FINISHED);
	act(A, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(), "stuck/failed/stuck: undo_stuck pending pending; late; stuck; "
			   ".stuck");
}

static void
unknown_is_not_taken_back_by_retryable(void)
{
	begin();
	act(A, SAGA_REPLY_UNKNOWN);
	due();
	act(A, SAGA_REPLY_RETRYABLE);
	CHECK_TEXT(look(), "compensating/failed/running: undoing pending pending; reply; "
			   "compensating; .compensating; undo-a 1:1");
	go_to(P_SENT);
	act(P, SAGA_REPLY_UNKNOWN);
	due();
	act(P, SAGA_REPLY_RETRYABLE);
	CHECK_TEXT(
		look(), "stuck//none: succeeded unknown pending; reply; stuck; .stuck");
}

static void
a_refusal_says_nothing_of_earlier_attempts(void)
{
	go_to(P_SENT);
	time_out(P, SAGA_OP_ACTION);
	due();
	reply_as(P, SAGA_OP_ACTION, 2, SAGA_REPLY_FAILURE, SAGA_BARRIER_EXPIRED);
	CHECK_TEXT(
		look(), "stuck//none: succeeded unknown pending; reply; stuck; .stuck");
	go_to(P_SENT);
	time_out(P, SAGA_OP_ACTION);
	due();
	reply_as(P, SAGA_OP_ACTION, 1, SAGA_REPLY_FAILURE, SAGA_BARRIER_EXPIRED);
	reply_as(P, SAGA_OP_ACTION, 2, SAGA_REPLY_FAILURE, SAGA_BARRIER_EXPIRED);
	CHECK_TEXT(look(), "compensating/failed/running: undoing failed pending; reply; "
			   "compensating; .compensating; undo-a 1:1");
}

static void
a_participant_may_see_the_deadline_first(void)
{
	begin();
	now_ms = core.deadline_at_ms + 1;
	reply_as(A, SAGA_OP_ACTION, 1, SAGA_REPLY_FAILURE, SAGA_BARRIER_EXPIRED);
	CHECK_TEXT(look(), "finished/expired/none: failed pending pending; reply; "
			   "finished; .compensated");
}

static void
commands_up_to_the_pivot_expire(void)
{
	begin();
	CU_ASSERT_TRUE(find(SAGA_DO_SEND)->has_expiry);
	act(A, SAGA_REPLY_SUCCESS);
	CU_ASSERT_TRUE(find(SAGA_DO_SEND)->has_expiry);
	act(P, SAGA_REPLY_SUCCESS);
	CU_ASSERT_FALSE(find(SAGA_DO_SEND)->has_expiry);
	go_to(UNDO_SENT);
	CU_ASSERT_FALSE(find(SAGA_DO_SEND)->has_expiry);
}

static void
after_the_pivots_command_the_deadline_is_overdue(void)
{
	go_to(P_SENT);
	tell(SAGA_EV_DEADLINE);
	CU_ASSERT_TRUE(core.is_overdue);
	CU_ASSERT_EQUAL(skald__saga_due_at_ms(&core), core.steps[P].due_at_ms);
	go_to(A_SENT);
	now_ms = core.deadline_at_ms - 1;
	next((struct saga_event){ .kind = SAGA_EV_DEADLINE });
	CU_ASSERT_EQUAL(core.status, SAGA_IS_RUNNING); /* not before its time */
}

static void
a_deadline_counts_from_when_the_saga_was_made(void)
{
	make_plan();
	next((struct saga_event){ .kind = SAGA_EV_START, .at_ms = 400 });
	CU_ASSERT_EQUAL(core.deadline_at_ms, 400 + plan.deadline_ms);
	CU_ASSERT_EQUAL(find(SAGA_DO_ARM)->due_at_ms, core.deadline_at_ms);
	CU_ASSERT_EQUAL(find(SAGA_DO_ARM)->step, -1);
}

static void
paused_nothing_is_sent_and_resume_makes_up_for_it(void)
{
	begin();
	tell(SAGA_EV_PAUSE);
	act(A, SAGA_REPLY_SUCCESS);
	CHECK_TEXT(look(), "running//none: succeeded pending pending; reply");
	tell(SAGA_EV_RESUME);
	CHECK_TEXT(look(), "running//none: succeeded sent pending; do-p 1:1");
	tell(SAGA_EV_PAUSE);
	time_out(P, SAGA_OP_ACTION);
	CHECK_TEXT(look(), "running//none: succeeded sent pending");
	act(P, SAGA_REPLY_RETRYABLE);
	due();
	CHECK_TEXT(look(), "running//none: succeeded waiting pending");
	tell(SAGA_EV_RESUME);
	CHECK_TEXT(look(), "running//none: succeeded sent pending; do-p 2:1");
}

static enum saga_fault
cannot_render(void *ctx, unsigned step, enum saga_op op)
{
	(void)op;
	return step == *(unsigned *)ctx ? SAGA_FAULT_DATA_MISSING : SAGA_FAULT_NONE;
}

static void
what_cannot_be_rendered_fails_its_step(void)
{
	unsigned step = P;
	struct saga_view view = { cannot_render, &step };
	struct saga_event ok = { .kind = SAGA_EV_REPLY,
		.attempt = 1,
		.round = 1,
		.reply = SAGA_REPLY_SUCCESS };

	begin();
	skald__saga_next(&plan, &core, &ok, &view, now_ms, &todo);
	CHECK_TEXT(look(), "compensating/failed/running: undoing failed pending; reply; "
			   "compensating; .compensating; undo-a 1:1");
	CU_ASSERT_EQUAL(core.reason, SAGA_FAULT_DATA_MISSING);
	CU_ASSERT_EQUAL(core.reason_step, P);
	CU_ASSERT_EQUAL(core.steps[P].action.attempts, 0); /* never written */
	go_to(P_SENT);
	step = R;
	ok.step = P;
	skald__saga_next(&plan, &core, &ok, &view, now_ms, &todo);
	CHECK_TEXT(
		look(), "stuck//none: succeeded succeeded stuck; reply; stuck; .stuck");
}

static void
fencing_is_by_step_op_attempt_and_key(void)
{
	struct saga_event ev = { .kind = SAGA_EV_REPLY,
		.attempt = 1,
		.round = 1,
		.reply = SAGA_REPLY_SUCCESS };
	struct saga_event wrong[5];

	for (int i = 0; i < 5; i++)
		wrong[i] = ev;
	wrong[0].step = P; /* not sent yet */
	wrong[1].op = SAGA_OP_UNDO;
	wrong[2].attempt = 2;
	wrong[3].round = 2;
	wrong[4].attempt = 0;
	for (int i = 0; i < 5; i++) {
		begin();
		next(wrong[i]);
		CHECK_TEXT(look(), "running//none: sent pending pending; stale");
	}
	go_to(R_WAITING); /* attempt 1 was of key 1; key 2 cannot claim it */
	due();
	ev.step = R;
	ev.round = 2;
	next(ev);
	CHECK_TEXT(look(), "running//none: succeeded succeeded sent; stale");
}

static void
backoff_doubles_to_its_limit_with_full_jitter(void)
{
	int64_t most[6] = { 0 };

	for (uint64_t rand = 0; rand < 2000; rand++)
		for (unsigned n = 0; n < 6; n++) {
			int64_t ms = skald__saga_jitter(rand * 7919, n, 100, 1000);

			CU_ASSERT(ms >= 0);
			most[n] = ms > most[n] ? ms : most[n];
		}
	CU_ASSERT_EQUAL(most[0], 100);
	CU_ASSERT_EQUAL(most[1], 200);
	CU_ASSERT_EQUAL(most[3], 800);
	CU_ASSERT_EQUAL(most[4], 1000);
	CU_ASSERT_EQUAL(skald__saga_jitter(UINT64_MAX, UINT32_MAX, 0, 1000), 0);
	CU_ASSERT(skald__saga_jitter(7, UINT32_MAX, 1, INT64_MAX / 4) >= 0);
}

static void
history_ends_before_its_limit(void)
{
	uint32_t seq = 0;

	go_to(R_SENT);
	seq = core.row_count;
	for (int i = 0; i < 6000 && core.status == SAGA_IS_RUNNING; i++) {
		act(R, SAGA_REPLY_FAILURE);
		for (unsigned j = 0; j < todo.count; j++)
			if (todo.items[j].kind == SAGA_DO_ROW)
				CU_ASSERT_EQUAL_FATAL(todo.items[j].seq, ++seq);
		due();
		seq = core.row_count;
	}
	CHECK_TEXT(look(), "stuck//none: succeeded succeeded stuck");
	CU_ASSERT_EQUAL(core.reason, SAGA_FAULT_EVENTS_SPENT);
	for (int i = 0; i < 6000; i++)
		act(A, SAGA_REPLY_FAILURE); /* stale ones are counted only */
	CU_ASSERT_EQUAL(find(SAGA_DO_ROW)->seq, 0);
	CU_ASSERT(core.row_count <= SAGA_ROWS_RETRY_MAX + 10);
}

/* 200 steps that all succeed, then all are undone: the reserve of rows is enough. */
static void
the_longest_saga_is_undone_whole(void)
{
	make_plan();
	plan.step_count = SAGA_STEPS_MAX;
	plan.pivot = -1;
	for (unsigned i = 1; i < SAGA_STEPS_MAX; i++)
		plan.steps[i] = plan.steps[A];
	skald__saga_plan_sequence(&plan);
	skald__saga_init(&core, &plan);
	tell(SAGA_EV_START);
	for (unsigned i = 0; i + 1 < SAGA_STEPS_MAX; i++)
		act(i, SAGA_REPLY_SUCCESS);
	core.row_count = SAGA_ROWS_RETRY_MAX + 400; /* as after many retries */
	act(SAGA_STEPS_MAX - 1, SAGA_REPLY_FAILURE);
	for (unsigned i = SAGA_STEPS_MAX - 1; i-- > 0;)
		undo(i, SAGA_REPLY_SUCCESS);
	CU_ASSERT_EQUAL(core.status, SAGA_IS_FINISHED);
	CU_ASSERT_EQUAL(core.undo, SAGA_UNDO_DONE);
	CU_ASSERT(core.row_count < SAGA_ROWS_MAX);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(the_key_stays_after_unknown_and_changes_after_failure),
		CHECK(a_late_failure_of_an_undo_moves_on_to_the_next_key),
		CHECK(undo_goes_backwards_one_by_one),
		CHECK(a_stuck_undo_holds_what_is_before_it),
		CHECK(nothing_to_undo_is_passed_over),
		CHECK(a_late_success_makes_a_finished_saga_stuck),
		CHECK(a_late_success_while_compensating_is_undone_too),
		CHECK(a_late_pivot_cannot_be_undone),
		CHECK(an_effect_behind_an_empty_undo_is_undone_under_the_next_key),
		CHECK(the_same_behind_the_end_is_stuck),
		CHECK(unknown_is_not_taken_back_by_retryable),
		CHECK(a_refusal_says_nothing_of_earlier_attempts),
		CHECK(a_participant_may_see_the_deadline_first),
		CHECK(commands_up_to_the_pivot_expire),
		CHECK(after_the_pivots_command_the_deadline_is_overdue),
		CHECK(a_deadline_counts_from_when_the_saga_was_made),
		CHECK(paused_nothing_is_sent_and_resume_makes_up_for_it),
		CHECK(what_cannot_be_rendered_fails_its_step),
		CHECK(fencing_is_by_step_op_attempt_and_key),
		CHECK(backoff_doubles_to_its_limit_with_full_jitter),
		CHECK(history_ends_before_its_limit),
		CHECK(the_longest_saga_is_undone_whole),
	};

	return check_main("unit.saga.core_rules", cases, CHECK_COUNT(cases));
}
