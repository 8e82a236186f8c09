/*
 * saga_core.h - what a saga does next; see saga_core.c for the picture.
 */
#ifndef SKALD_SAGA_SAGA_CORE_H
#define SKALD_SAGA_SAGA_CORE_H

#include <stdbool.h>
#include <stdint.h>

enum {
	SAGA_STEPS_MAX = 200,
	SAGA_ROWS_MAX = 10000, /* of history */
	SAGA_ROWS_RETRY_MAX =
		9000, /* from here on no retries: first attempts, undo, ending */
	SAGA_ROWS_STALE_MAX =
		8900, /* from here on what changes nothing is only counted */
	SAGA_DO_MAX = 160, /* commands of one event: 32 branches of 4, and the ending */
};

/* --- the definition, as far as the core wants to know it ------------------------------------ */

enum saga_kind { SAGA_COMPENSATABLE, SAGA_PIVOT, SAGA_RETRIABLE };
enum saga_on_unknown { SAGA_UNKNOWN_RETRY, SAGA_UNKNOWN_COMPENSATE };

/* A set of steps. */
struct saga_set {
	uint64_t bits[(SAGA_STEPS_MAX + 63) / 64];
};

struct saga_budget {
	uint32_t attempts; /* 0: unlimited */
	int64_t backoff_ms, backoff_max_ms; /* full jitter, doubling */
};

struct saga_plan_step {
	enum saga_kind kind;
	enum saga_on_unknown on_unknown;
	bool has_undo; /* there is a compensation to send */
	struct saga_set after; /* begins when these are settled */
	struct saga_set behind; /* those that come after it, near or far */
	int64_t timeout_ms; /* of each attempt, action and compensation */
	struct saga_budget retry, undo_retry;
};

struct saga_plan { /* constant */
	unsigned step_count; /* at least 1 */
	int pivot; /* index, -1: none */
	int64_t deadline_ms; /* 0: none */
	struct saga_plan_step steps[SAGA_STEPS_MAX];
};

/* --- an instance ------------------------------------------------------------------------------ */

/* Each list of words: enum, its names for people and views, in the same order. */
#define SAGA_STATUSES(X) \
	X(RUNNING, "running") \
	X(COMPENSATING, "compensating") \
	X(STUCK, "stuck") \
	X(FINISHED, "finished")
#define SAGA_OUTCOMES(X) \
	X(NONE, "") \
	X(COMPLETED, "completed") \
	X(FAILED, "failed") \
	X(CANCELLED, "cancelled") \
	X(EXPIRED, "expired")
#define SAGA_UNDOS(X) \
	X(NONE, "none") \
	X(RUNNING, "running") \
	X(DONE, "done") \
	X(STUCK, "stuck") \
	X(RESOLVED, "resolved")
#define SAGA_STATES(X) \
	X(PENDING, "pending") \
	X(WAITING, "waiting") /* known not done, tried again later */ \
	X(SENT, "sent") \
	X(UNKNOWN, "unknown") \
	X(SUCCEEDED, "succeeded") \
	X(FAILED, "failed") \
	X(STUCK, "stuck") /* known not done, budget spent */ \
	X(SKIPPED, "skipped") \
	X(UNDOING, "undoing") \
	X(UNDONE, "undone") \
	X(UNDO_STUCK, "undo_stuck") \
	X(RESOLVED, "resolved")
#define SAGA_OPS(X) X(ACTION, "action") X(UNDO, "compensation")
/* Why a step or a saga went wrong; REPLY: the participant's own code and message say it. */
#define SAGA_FAULTS(X) \
	X(NONE, "") \
	X(REPLY, "reply") \
	X(TIMEOUT, "timeout") \
	X(DEAD_LETTER, "dead_letter") \
	X(DATA_MISSING, "data_missing") \
	X(DATA_TOO_LARGE, "data_too_large") \
	X(DEADLINE, "deadline") \
	X(CANCELLED, "cancelled") \
	X(LATE_SUCCESS, "late_success") \
	X(EVENTS_SPENT, "too_many_events")
#define SAGA_REPLIES(X) \
	X(NONE, "") \
	X(SUCCESS, "success") \
	X(FAILURE, "failure") \
	X(RETRYABLE, "retryable") \
	X(UNKNOWN, "unknown")
#define SAGA_ROWS(X) \
	X(STARTED, "started") \
	X(COMMAND, "command") \
	X(REPLY, "reply") \
	X(TIMEOUT, "timeout") \
	X(COMPENSATING, "compensating") \
	X(LATE, "late") \
	X(STALE, "stale") \
	X(STUCK, "stuck") \
	X(RESOLVED, "resolved") \
	X(FINISHED, "finished")
/* ce_type of the life-cycle event is skald.saga.<name>. */
#define SAGA_LIVES(X) \
	X(STARTED, "started") \
	X(COMPENSATING, "compensating") \
	X(STUCK, "stuck") \
	X(COMPLETED, "completed") \
	X(COMPENSATED, "compensated") \
	X(RESOLVED, "resolved")

/* clang-format off */
enum saga_status {
#define SAGA_X(enumerator, name) SAGA_IS_##enumerator,
	SAGA_STATUSES(SAGA_X)
#undef SAGA_X
};
enum saga_outcome {
#define SAGA_X(enumerator, name) SAGA_OUTCOME_##enumerator,
	SAGA_OUTCOMES(SAGA_X)
#undef SAGA_X
};
enum saga_undo {
#define SAGA_X(enumerator, name) SAGA_UNDO_##enumerator,
	SAGA_UNDOS(SAGA_X)
#undef SAGA_X
};
enum saga_state {
#define SAGA_X(enumerator, name) SAGA_STEP_##enumerator,
	SAGA_STATES(SAGA_X)
#undef SAGA_X
};
enum saga_op {
#define SAGA_X(enumerator, name) SAGA_OP_##enumerator,
	SAGA_OPS(SAGA_X)
#undef SAGA_X
};
enum saga_fault {
#define SAGA_X(enumerator, name) SAGA_FAULT_##enumerator,
	SAGA_FAULTS(SAGA_X)
#undef SAGA_X
};
enum saga_reply {
#define SAGA_X(enumerator, name) SAGA_REPLY_##enumerator,
	SAGA_REPLIES(SAGA_X)
#undef SAGA_X
};
enum saga_row {
#define SAGA_X(enumerator, name) SAGA_ROW_##enumerator,
	SAGA_ROWS(SAGA_X)
#undef SAGA_X
};
enum saga_life {
#define SAGA_X(enumerator, name) SAGA_LIFE_##enumerator,
	SAGA_LIVES(SAGA_X)
#undef SAGA_X
};
/* clang-format on */

const char *skald__saga_status_name(enum saga_status status);
const char *skald__saga_outcome_name(enum saga_outcome outcome); /* "": null */
const char *skald__saga_undo_name(enum saga_undo undo);
const char *skald__saga_state_name(enum saga_state state);
const char *skald__saga_op_name(enum saga_op op);
const char *skald__saga_fault_name(enum saga_fault fault);
const char *skald__saga_reply_name(enum saga_reply reply);
const char *skald__saga_row_name(enum saga_row row);
const char *skald__saga_life_name(enum saga_life life);

enum saga_wait {
	SAGA_WAIT_NONE,
	SAGA_WAIT_REPLY, /* a command is out; due_at_ms is its earliest time-out */
	SAGA_WAIT_BACKOFF, /* the next attempt is made at due_at_ms */
};

/* Attempts of one op of a step. */
struct saga_tries {
	uint32_t attempts; /* ce_sagaattempt of the last command; 0: none yet */
	uint32_t round; /* n of the idempotency key, from 1 */
	uint32_t round_base; /* attempts before this round */
	uint32_t budget_base; /* attempts before this budget */
};

struct saga_step {
	uint8_t state; /* enum saga_state */
	uint8_t wait; /* enum saga_wait */
	uint8_t wait_op; /* enum saga_op, for which it waits */
	uint8_t fault; /* enum saga_fault: `error`; NONE: none */
	bool is_maybe; /* a participant said that it does not know */
	bool is_empty; /* the undo found nothing to undo */
	bool is_late; /* the action's success came while its undo was out */
	uint32_t open; /* bit n: attempt round_base + 1 + n of the action is unanswered */
	int64_t due_at_ms; /* a shell may move a reply's time-out later, never sooner */
	struct saga_tries action, undo;
};

struct saga_core { /* the state vector; plain values, zeroed beyond step_count */
	uint8_t status, outcome, undo;
	bool is_paused, is_overdue, is_signed;
	bool is_deadline_over; /* the deadline has been looked at */
	uint8_t reason; /* enum saga_fault */
	int16_t reason_step; /* -1: the saga itself */
	uint16_t step_count;
	uint32_t row_count; /* seq of the last row of history */
	int64_t deadline_at_ms; /* 0: none */
	struct saga_step steps[SAGA_STEPS_MAX];
};

/* --- events and commands ------------------------------------------------------------------------ */

enum saga_event_kind {
	SAGA_EV_START, /* at_ms: when the saga was made, 0: now */
	SAGA_EV_REPLY, /* step, op, attempt, round, reply, barrier */
	SAGA_EV_DEAD_LETTER, /* step, op, attempt: its reply could not be used */
	SAGA_EV_TIMEOUT, /* step, op, attempt: published, read and served hold */
	SAGA_EV_DUE, /* a backoff is over */
	SAGA_EV_DEADLINE, /* read and served hold */
	SAGA_EV_CANCEL,
	SAGA_EV_PAUSE,
	SAGA_EV_RESUME,
};

enum saga_barrier { /* ce_sagabarrier, a refusal with its code */
	SAGA_BARRIER_NONE,
	SAGA_BARRIER_DUPLICATE,
	SAGA_BARRIER_EMPTY,
	SAGA_BARRIER_REFUSED,
	SAGA_BARRIER_EXPIRED, /* refused, code `expired` */
};

struct saga_event {
	enum saga_event_kind kind;
	unsigned step;
	enum saga_op op;
	uint32_t attempt;
	uint32_t round; /* of the echoed idempotency key */
	enum saga_reply reply;
	enum saga_barrier barrier;
	int64_t at_ms;
	uint64_t rand; /* for the jitter */
};

enum saga_do_kind {
	SAGA_DO_ROW, /* row, step, op, attempt, reply, fault, seq */
	SAGA_DO_SEND, /* step, op, attempt, round, due_at_ms; its row comes before it */
	SAGA_DO_ARM, /* backoff of step, or the deadline (step -1), at due_at_ms */
	SAGA_DO_LIFE, /* a life-cycle event */
	SAGA_DO_FINISH, /* the saga ended: render `output` if completed */
	SAGA_DO_REFUSE, /* the event is not allowed now; nothing changed */
};

struct saga_do {
	enum saga_do_kind kind;
	enum saga_row row;
	enum saga_life life;
	int step; /* -1: the saga itself */
	enum saga_op op;
	uint32_t attempt;
	uint32_t round;
	enum saga_reply reply;
	enum saga_fault fault;
	uint32_t seq; /* 0: the history is full, count it only */
	int64_t due_at_ms;
	bool is_repeat; /* SEND: same key as the attempt before, so the same cause */
	bool has_expiry; /* SEND: carries the saga's deadline as ce_expirytime */
};

struct saga_dos {
	unsigned count;
	struct saga_do items[SAGA_DO_MAX];
};

/*
 * The data, read only. `look` renders the command's data (and keeps it for the SEND
 * that follows at once): NONE, or DATA_MISSING or DATA_TOO_LARGE. NULL: all renders.
 */
struct saga_view {
	enum saga_fault (*look)(void *ctx, unsigned step, enum saga_op op);
	void *ctx;
};

/* A new instance, before its START. */
void skald__saga_init(struct saga_core *c, const struct saga_plan *plan);
/* Changes c in place; what is to be done is in *todo, in this order. */
void skald__saga_next(const struct saga_plan *plan, struct saga_core *c,
	const struct saga_event *ev, const struct saga_view *view, int64_t now_ms,
	struct saga_dos *todo);
/* The earliest time at which anything may be due; INT64_MAX: never. */
int64_t skald__saga_due_at_ms(const struct saga_core *c);
/* The next seq for a row of the shell's own; 0: the history is full. */
uint32_t skald__saga_take_seq(struct saga_core *c);
/* May it still be cancelled: the pivot's command is not written? */
bool skald__saga_can_cancel(const struct saga_plan *plan, const struct saga_core *c);

/* --- looking (saga_look.c) -------------------------------------------------------------------- */

struct saga_survey {
	int blocked; /* the first step that only a person can move, -1: none */
	bool is_waiting; /* for a reply or a backoff */
	bool is_undo_stuck, is_in_effect; /* of any step */
	bool is_settled; /* of every step */
};

/* No compensation was decided. */
bool skald__saga_is_forward(const struct saga_core *c);
struct saga_survey skald__saga_survey(
	const struct saga_plan *plan, const struct saga_core *c);
/* In effect or out: nothing that such a step depends on may be undone. */
struct saga_set skald__saga_busy(const struct saga_plan *plan, const struct saga_core *c);
bool skald__saga_is_ready(
	const struct saga_plan *plan, const struct saga_core *c, unsigned step);
bool skald__saga_can_undo(const struct saga_plan *plan, const struct saga_core *c,
	unsigned step, const struct saga_set *busy);

/* The budget allows no further attempt. */
bool skald__saga_is_spent(const struct saga_plan *plan, const struct saga_core *c,
	unsigned step, enum saga_op op);
/* Full jitter: uniform in [0, min(max, base * 2^n)]. */
int64_t skald__saga_jitter(uint64_t rand, uint32_t n, int64_t base_ms, int64_t max_ms);

/* Fill `after` and `behind` of a plan whose steps follow one another. */
void skald__saga_plan_sequence(struct saga_plan *plan);

static inline bool
saga_set_has(const struct saga_set *set, unsigned step)
{
	return set->bits[step / 64] >> (step % 64) & 1;
}

static inline void
saga_set_add(struct saga_set *set, unsigned step)
{
	set->bits[step / 64] |= (uint64_t)1 << (step % 64);
}

static inline bool
saga_set_meets(const struct saga_set *a, const struct saga_set *b)
{
	uint64_t both = 0;

	for (unsigned i = 0; i < sizeof(a->bits) / sizeof(a->bits[0]); i++)
		both |= a->bits[i] & b->bits[i];
	return both != 0;
}

#endif
