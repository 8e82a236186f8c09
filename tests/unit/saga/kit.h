/*
 * kit.h - a saga of three steps for the tests of the core: positions it can be in,
 * events, and what there is to see afterwards.
 */
#ifndef SKALD_TESTS_UNIT_SAGA_KIT_H
#define SKALD_TESTS_UNIT_SAGA_KIT_H

#include "saga/saga_core.h"

enum { A, P, R }; /* compensatable, pivot, retriable */

extern struct saga_plan plan;
extern struct saga_core core;
extern struct saga_dos todo; /* of the last event */
extern int64_t now_ms;

enum event {
	START,
	SUCCESS, /* of the attempt that is out, or was last */
	FAILURE,
	RETRYABLE,
	UNKNOWN,
	OLDER, /* success of the attempt before */
	DEAD,
	TIMEOUT,
	DUE,
	DEADLINE,
	CANCEL,
	PAUSE,
	RESUME,
	EVENTS
};
extern const char *const event_names[EVENTS];

enum position {
	NEW,
	A_SENT,
	A_WAITING, /* known not done, backoff */
	A_UNKNOWN, /* timed out, backoff */
	A_SENT_AGAIN, /* with the same key */
	P_SENT,
	P_STUCK, /* unknown, budget spent */
	R_SENT,
	R_WAITING, /* failed once */
	UNDO_SENT, /* the pivot failed */
	UNDO_BACKOFF, /* timed out */
	UNDO_SPENT, /* stuck */
	COMPLETED,
	COMPENSATED,
	POSITIONS
};
extern const char *const position_names[POSITIONS];

/* The plan and a new instance, not started; started. */
void make_plan(void);
void begin(void);
void go_to(enum position position);
/* An event about the step that the position is about. */
void give(enum position position, enum event event);

void next(struct saga_event ev);
void tell(enum saga_event_kind kind); /* a deadline at its time */
/* A reply to the last attempt; to any. */
void act(unsigned step, enum saga_reply outcome);
void undo(unsigned step, enum saga_reply outcome);
void reply_as(unsigned step, enum saga_op op, uint32_t attempt, enum saga_reply reply,
	enum saga_barrier barrier);
void time_out(unsigned step, enum saga_op op);
void due(void); /* much later */

/* "status/outcome/undo: states; rows, sends, life-cycle events" */
const char *look(void);

#endif
