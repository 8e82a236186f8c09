/* The saga core as a table: in each position every event, and what becomes of it. */
#include "saga/saga_core.h"

#include "tests/support/check.h"
#include "tests/unit/saga/kit.h"

static const struct row {
	enum position from;
	enum event event;
	const char *expected;
} table[] = {
	{ NEW, START,
		"running//none: sent pending pending; started; .started; do-a 1:1" },
	{ NEW, SUCCESS, "running//none: pending pending pending" },
	{ NEW, FAILURE, "running//none: pending pending pending" },
	{ NEW, RETRYABLE, "running//none: pending pending pending" },
	{ NEW, UNKNOWN, "running//none: pending pending pending" },
	{ NEW, OLDER, "running//none: pending pending pending" },
	{ NEW, DEAD, "running//none: pending pending pending" },
	{ NEW, TIMEOUT, "running//none: pending pending pending" },
	{ NEW, DUE, "running//none: pending pending pending" },
	{ NEW, DEADLINE, "running//none: pending pending pending" },
	{ NEW, CANCEL, "running//none: pending pending pending" },
	{ NEW, PAUSE, "running//none: pending pending pending" },
	{ NEW, RESUME, "running//none: pending pending pending" },
	{ A_SENT, START, "running//none: sent pending pending" },
	{ A_SENT, SUCCESS, "running//none: succeeded sent pending; reply; do-p 1:1" },
	{ A_SENT, FAILURE,
		"finished/failed/none: failed pending pending; reply; finished; "
		".compensated" },
	{ A_SENT, RETRYABLE, "running//none: waiting pending pending; reply" },
	{ A_SENT, UNKNOWN, "running//none: unknown pending pending; reply" },
	{ A_SENT, OLDER, "running//none: sent pending pending; stale" },
	{ A_SENT, DEAD, "running//none: unknown pending pending; reply" },
	{ A_SENT, TIMEOUT, "running//none: unknown pending pending; timeout" },
	{ A_SENT, DUE, "running//none: sent pending pending" },
	{ A_SENT, DEADLINE,
		"compensating/expired/none: sent pending pending; compensating; "
		".compensating" },
	{ A_SENT, CANCEL,
		"compensating/cancelled/none: sent pending pending; compensating; "
		".compensating" },
	{ A_SENT, PAUSE, "running//none: sent pending pending" },
	{ A_SENT, RESUME, "running//none: sent pending pending" },
	{ A_WAITING, START, "running//none: waiting pending pending" },
	{ A_WAITING, SUCCESS, "running//none: succeeded sent pending; late; do-p 1:1" },
	{ A_WAITING, FAILURE, "running//none: waiting pending pending; stale" },
	{ A_WAITING, RETRYABLE, "running//none: waiting pending pending; stale" },
	{ A_WAITING, UNKNOWN, "running//none: waiting pending pending; stale" },
	{ A_WAITING, OLDER, "running//none: waiting pending pending; stale" },
	{ A_WAITING, DEAD, "running//none: waiting pending pending" },
	{ A_WAITING, TIMEOUT, "running//none: waiting pending pending" },
	{ A_WAITING, DUE, "running//none: sent pending pending; do-a 2:1" },
	{ A_WAITING, DEADLINE,
		"finished/expired/none: failed pending pending; finished; .compensated" },
	{ A_WAITING, CANCEL,
		"finished/cancelled/none: failed pending pending; finished; "
		".compensated" },
	{ A_WAITING, PAUSE, "running//none: waiting pending pending" },
	{ A_WAITING, RESUME, "running//none: waiting pending pending" },
	{ A_UNKNOWN, START, "running//none: unknown pending pending" },
	{ A_UNKNOWN, SUCCESS, "running//none: succeeded sent pending; late; do-p 1:1" },
	{ A_UNKNOWN, FAILURE,
		"finished/failed/none: failed pending pending; late; finished; "
		".compensated" },
	{ A_UNKNOWN, RETRYABLE, "running//none: unknown pending pending; stale" },
	{ A_UNKNOWN, UNKNOWN, "running//none: unknown pending pending; stale" },
	{ A_UNKNOWN, OLDER, "running//none: unknown pending pending; stale" },
	{ A_UNKNOWN, DEAD, "running//none: unknown pending pending" },
	{ A_UNKNOWN, TIMEOUT, "running//none: unknown pending pending" },
	{ A_UNKNOWN, DUE, "running//none: sent pending pending; do-a 2:1" },
	{ A_UNKNOWN, DEADLINE,
		"compensating/expired/running: undoing pending pending; compensating; "
		".compensating; undo-a 1:1" },
	{ A_UNKNOWN, CANCEL,
		"compensating/cancelled/running: undoing pending pending; compensating; "
		".compensating; undo-a 1:1" },
	{ A_UNKNOWN, PAUSE, "running//none: unknown pending pending" },
	{ A_UNKNOWN, RESUME, "running//none: unknown pending pending" },
	{ A_SENT_AGAIN, START, "running//none: sent pending pending" },
	{ A_SENT_AGAIN, SUCCESS,
		"running//none: succeeded sent pending; reply; do-p 1:1" },
	{ A_SENT_AGAIN, FAILURE,
		"finished/failed/none: failed pending pending; reply; finished; "
		".compensated" },
	{ A_SENT_AGAIN, RETRYABLE,
		"finished/failed/none: failed pending pending; reply; finished; "
		".compensated" },
	{ A_SENT_AGAIN, UNKNOWN,
		"compensating/failed/running: undoing pending pending; reply; "
		"compensating; .compensating; undo-a 1:1" },
	{ A_SENT_AGAIN, OLDER, "running//none: succeeded sent pending; late; do-p 1:1" },
	{ A_SENT_AGAIN, DEAD,
		"compensating/failed/running: undoing pending pending; reply; "
		"compensating; .compensating; undo-a 1:1" },
	{ A_SENT_AGAIN, TIMEOUT,
		"compensating/failed/running: undoing pending pending; timeout; "
		"compensating; .compensating; undo-a 1:1" },
	{ A_SENT_AGAIN, DUE, "running//none: sent pending pending" },
	{ A_SENT_AGAIN, DEADLINE,
		"compensating/expired/none: sent pending pending; compensating; "
		".compensating" },
	{ A_SENT_AGAIN, CANCEL,
		"compensating/cancelled/none: sent pending pending; compensating; "
		".compensating" },
	{ A_SENT_AGAIN, PAUSE, "running//none: sent pending pending" },
	{ A_SENT_AGAIN, RESUME, "running//none: sent pending pending" },
	{ P_SENT, START, "running//none: succeeded sent pending" },
	{ P_SENT, SUCCESS, "running//none: succeeded succeeded sent; reply; do-r 1:1" },
	{ P_SENT, FAILURE,
		"compensating/failed/running: undoing failed pending; reply; "
		"compensating; .compensating; undo-a 1:1" },
	{ P_SENT, RETRYABLE, "running//none: succeeded waiting pending; reply" },
	{ P_SENT, UNKNOWN, "running//none: succeeded unknown pending; reply" },
	{ P_SENT, OLDER, "running//none: succeeded sent pending; stale" },
	{ P_SENT, DEAD, "running//none: succeeded unknown pending; reply" },
	{ P_SENT, TIMEOUT, "running//none: succeeded unknown pending; timeout" },
	{ P_SENT, DUE, "running//none: succeeded sent pending" },
	{ P_SENT, DEADLINE, "running//none: succeeded sent pending" },
	{ P_SENT, CANCEL, "running//none: succeeded sent pending; refused" },
	{ P_SENT, PAUSE, "running//none: succeeded sent pending" },
	{ P_SENT, RESUME, "running//none: succeeded sent pending" },
	{ P_STUCK, START, "stuck//none: succeeded unknown pending" },
	{ P_STUCK, SUCCESS, "running//none: succeeded succeeded sent; late; do-r 1:1" },
	{ P_STUCK, FAILURE,
		"compensating/failed/running: undoing failed pending; late; "
		"compensating; .compensating; undo-a 1:1" },
	{ P_STUCK, RETRYABLE, "stuck//none: succeeded unknown pending; stale" },
	{ P_STUCK, UNKNOWN, "stuck//none: succeeded unknown pending; stale" },
	{ P_STUCK, OLDER, "running//none: succeeded succeeded sent; late; do-r 1:1" },
	{ P_STUCK, DEAD, "stuck//none: succeeded unknown pending" },
	{ P_STUCK, TIMEOUT, "stuck//none: succeeded unknown pending" },
	{ P_STUCK, DUE, "stuck//none: succeeded unknown pending" },
	{ P_STUCK, DEADLINE, "stuck//none: succeeded unknown pending" },
	{ P_STUCK, CANCEL, "stuck//none: succeeded unknown pending; refused" },
	{ P_STUCK, PAUSE, "stuck//none: succeeded unknown pending" },
	{ P_STUCK, RESUME, "stuck//none: succeeded unknown pending" },
	{ R_SENT, START, "running//none: succeeded succeeded sent" },
	{ R_SENT, SUCCESS,
		"finished/completed/none: succeeded succeeded succeeded; reply; "
		"finished; .completed" },
	{ R_SENT, FAILURE, "running//none: succeeded succeeded waiting; reply" },
	{ R_SENT, RETRYABLE, "running//none: succeeded succeeded waiting; reply" },
	{ R_SENT, UNKNOWN, "running//none: succeeded succeeded unknown; reply" },
	{ R_SENT, OLDER, "running//none: succeeded succeeded sent; stale" },
	{ R_SENT, DEAD, "running//none: succeeded succeeded unknown; reply" },
	{ R_SENT, TIMEOUT, "running//none: succeeded succeeded unknown; timeout" },
	{ R_SENT, DUE, "running//none: succeeded succeeded sent" },
	{ R_SENT, DEADLINE, "running//none: succeeded succeeded sent" },
	{ R_SENT, CANCEL, "running//none: succeeded succeeded sent; refused" },
	{ R_SENT, PAUSE, "running//none: succeeded succeeded sent" },
	{ R_SENT, RESUME, "running//none: succeeded succeeded sent" },
	{ R_WAITING, START, "running//none: succeeded succeeded waiting" },
	{ R_WAITING, SUCCESS, "running//none: succeeded succeeded waiting; stale" },
	{ R_WAITING, FAILURE, "running//none: succeeded succeeded waiting; stale" },
	{ R_WAITING, RETRYABLE, "running//none: succeeded succeeded waiting; stale" },
	{ R_WAITING, UNKNOWN, "running//none: succeeded succeeded waiting; stale" },
	{ R_WAITING, OLDER, "running//none: succeeded succeeded waiting; stale" },
	{ R_WAITING, DEAD, "running//none: succeeded succeeded waiting" },
	{ R_WAITING, TIMEOUT, "running//none: succeeded succeeded waiting" },
	{ R_WAITING, DUE, "running//none: succeeded succeeded sent; do-r 2:2" },
	{ R_WAITING, DEADLINE, "running//none: succeeded succeeded waiting" },
	{ R_WAITING, CANCEL, "running//none: succeeded succeeded waiting; refused" },
	{ R_WAITING, PAUSE, "running//none: succeeded succeeded waiting" },
	{ R_WAITING, RESUME, "running//none: succeeded succeeded waiting" },
	{ UNDO_SENT, START, "compensating/failed/running: undoing failed pending" },
	{ UNDO_SENT, SUCCESS,
		"finished/failed/done: undone failed pending; reply; finished; "
		".compensated" },
	{ UNDO_SENT, FAILURE,
		"compensating/failed/running: undoing failed pending; reply" },
	{ UNDO_SENT, RETRYABLE,
		"compensating/failed/running: undoing failed pending; reply" },
	{ UNDO_SENT, UNKNOWN,
		"compensating/failed/running: undoing failed pending; reply" },
	{ UNDO_SENT, OLDER,
		"compensating/failed/running: undoing failed pending; stale" },
	{ UNDO_SENT, DEAD, "compensating/failed/running: undoing failed pending; reply" },
	{ UNDO_SENT, TIMEOUT,
		"compensating/failed/running: undoing failed pending; timeout" },
	{ UNDO_SENT, DUE, "compensating/failed/running: undoing failed pending" },
	{ UNDO_SENT, DEADLINE, "compensating/failed/running: undoing failed pending" },
	{ UNDO_SENT, CANCEL,
		"compensating/failed/running: undoing failed pending; refused" },
	{ UNDO_SENT, PAUSE, "compensating/failed/running: undoing failed pending" },
	{ UNDO_SENT, RESUME, "compensating/failed/running: undoing failed pending" },
	{ UNDO_BACKOFF, START, "compensating/failed/running: undoing failed pending" },
	{ UNDO_BACKOFF, SUCCESS,
		"finished/failed/done: undone failed pending; late; finished; "
		".compensated" },
	{ UNDO_BACKOFF, FAILURE,
		"compensating/failed/running: undoing failed pending; late" },
	{ UNDO_BACKOFF, RETRYABLE,
		"compensating/failed/running: undoing failed pending; stale" },
	{ UNDO_BACKOFF, UNKNOWN,
		"compensating/failed/running: undoing failed pending; stale" },
	{ UNDO_BACKOFF, OLDER,
		"compensating/failed/running: undoing failed pending; stale" },
	{ UNDO_BACKOFF, DEAD, "compensating/failed/running: undoing failed pending" },
	{ UNDO_BACKOFF, TIMEOUT, "compensating/failed/running: undoing failed pending" },
	{ UNDO_BACKOFF, DUE,
		"compensating/failed/running: undoing failed pending; undo-a 2:1" },
	{ UNDO_BACKOFF, DEADLINE, "compensating/failed/running: undoing failed pending" },
	{ UNDO_BACKOFF, CANCEL,
		"compensating/failed/running: undoing failed pending; refused" },
	{ UNDO_BACKOFF, PAUSE, "compensating/failed/running: undoing failed pending" },
	{ UNDO_BACKOFF, RESUME, "compensating/failed/running: undoing failed pending" },
	{ UNDO_SPENT, START, "stuck/failed/stuck: undo_stuck failed pending" },
	{ UNDO_SPENT, SUCCESS,
		"finished/failed/done: undone failed pending; late; finished; "
		".compensated" },
	{ UNDO_SPENT, FAILURE, "stuck/failed/stuck: undo_stuck failed pending; late" },
	{ UNDO_SPENT, RETRYABLE, "stuck/failed/stuck: undo_stuck failed pending; stale" },
	{ UNDO_SPENT, UNKNOWN, "stuck/failed/stuck: undo_stuck failed pending; stale" },
	{ UNDO_SPENT, OLDER,
		"finished/failed/done: undone failed pending; late; finished; "
		".compensated" },
	{ UNDO_SPENT, DEAD, "stuck/failed/stuck: undo_stuck failed pending" },
	{ UNDO_SPENT, TIMEOUT, "stuck/failed/stuck: undo_stuck failed pending" },
	{ UNDO_SPENT, DUE, "stuck/failed/stuck: undo_stuck failed pending" },
	{ UNDO_SPENT, DEADLINE, "stuck/failed/stuck: undo_stuck failed pending" },
	{ UNDO_SPENT, CANCEL, "stuck/failed/stuck: undo_stuck failed pending; refused" },
	{ UNDO_SPENT, PAUSE, "stuck/failed/stuck: undo_stuck failed pending" },
	{ UNDO_SPENT, RESUME, "stuck/failed/stuck: undo_stuck failed pending" },
	{ COMPLETED, START, "finished/completed/none: succeeded succeeded succeeded" },
	{ COMPLETED, SUCCESS,
		"finished/completed/none: succeeded succeeded succeeded; stale" },
	{ COMPLETED, FAILURE,
		"finished/completed/none: succeeded succeeded succeeded; stale" },
	{ COMPLETED, RETRYABLE,
		"finished/completed/none: succeeded succeeded succeeded; stale" },
	{ COMPLETED, UNKNOWN,
		"finished/completed/none: succeeded succeeded succeeded; stale" },
	{ COMPLETED, OLDER,
		"finished/completed/none: succeeded succeeded succeeded; stale" },
	{ COMPLETED, DEAD, "finished/completed/none: succeeded succeeded succeeded" },
	{ COMPLETED, TIMEOUT, "finished/completed/none: succeeded succeeded succeeded" },
	{ COMPLETED, DUE, "finished/completed/none: succeeded succeeded succeeded" },
	{ COMPLETED, DEADLINE, "finished/completed/none: succeeded succeeded succeeded" },
	{ COMPLETED, CANCEL,
		"finished/completed/none: succeeded succeeded succeeded; refused" },
	{ COMPLETED, PAUSE,
		"finished/completed/none: succeeded succeeded succeeded; refused" },
	{ COMPLETED, RESUME, "finished/completed/none: succeeded succeeded succeeded" },
	{ COMPENSATED, START, "finished/failed/done: undone failed pending" },
	{ COMPENSATED, SUCCESS, "finished/failed/done: undone failed pending; stale" },
	{ COMPENSATED, FAILURE, "finished/failed/done: undone failed pending; stale" },
	{ COMPENSATED, RETRYABLE, "finished/failed/done: undone failed pending; stale" },
	{ COMPENSATED, UNKNOWN, "finished/failed/done: undone failed pending; stale" },
	{ COMPENSATED, OLDER, "finished/failed/done: undone failed pending; stale" },
	{ COMPENSATED, DEAD, "finished/failed/done: undone failed pending" },
	{ COMPENSATED, TIMEOUT, "finished/failed/done: undone failed pending" },
	{ COMPENSATED, DUE, "finished/failed/done: undone failed pending" },
	{ COMPENSATED, DEADLINE, "finished/failed/done: undone failed pending" },
	{ COMPENSATED, CANCEL, "finished/failed/done: undone failed pending; refused" },
	{ COMPENSATED, PAUSE, "finished/failed/done: undone failed pending; refused" },
	{ COMPENSATED, RESUME, "finished/failed/done: undone failed pending" },
};

static void
every_event_in_every_position(void)
{
	CU_ASSERT_EQUAL(CHECK_COUNT(table), (size_t)POSITIONS * EVENTS);
	for (size_t i = 0; i < CHECK_COUNT(table); i++) {
		const char *is;

		go_to(table[i].from);
		give(table[i].from, table[i].event);
		is = look();
		if (strcmp(is, table[i].expected) != 0)
			printf("\n    { %s, %s, \"%s\" },", position_names[table[i].from],
				event_names[table[i].event], is);
		CU_ASSERT_STRING_EQUAL(is, table[i].expected);
	}
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(every_event_in_every_position) };

	return check_main("unit.saga.core_table", cases, CHECK_COUNT(cases));
}
