/*
 * barrier_kit.h - what the barrier's contract tests share: commands of one saga's step
 * "reserve", participant "inv", and what the functions say to them.
 */
#ifndef SKALD_TESTS_CONTRACT_SQL_BARRIER_KIT_H
#define SKALD_TESTS_CONTRACT_SQL_BARRIER_KIT_H

#include <stdint.h>

#include "sql/sql.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

#define TEXT_BYTES 2048
#define NO         "{\"code\":\"no\",\"message\":\"it is so\"}"

extern struct skald_sql *sql; /* as a member of skald_app only */
extern struct skald_sql *owner; /* looks at the rows */
extern char saga[64]; /* of the case in hand */
extern char last_id[64]; /* ce_id of the newest command */

int kit_main(const char *name, const struct check_case *cases, size_t count);
void new_saga(void);
/* Headers of a command as a literal; good for the next few calls. */
const char *headers(const char *op, int attempt, const char *round);
/* First cell, or the SQLSTATE of what went wrong. */
const char *ask(struct skald_sql *who, const char *fmt, ...) SKALD_PRINTF(2, 3);
const char *participate(const char *h);
const char *reply(const char *h, const char *outcome, const char *data);
void begin(void);
void commit(void);
void rollback(void);
/* A whole transaction: told to run, answers; what participate said. */
const char *handle(const char *op, const char *round, const char *outcome);
/* The newest answer: "outcome barrier attempt op data". */
const char *answer(void);
int64_t answers(void);
/* Bring the action's first key into a state; "taken" leaves its transaction open. */
void bring(const char *state);

#endif
