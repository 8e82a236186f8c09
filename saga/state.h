/*
 * state.h - the state vector as one line of text, for the saga's row: a few dozen
 * bytes for each step that was reached, nothing for the others.
 */
#ifndef SKALD_SAGA_STATE_H
#define SKALD_SAGA_STATE_H

#include "base/buf.h"
#include "base/err.h"
#include "saga/saga_core.h"

void skald__saga_state_write(const struct saga_core *c, struct skald_buf *out);
/*
 * REJECT: not written by skald__saga_state_write, or by a later release, or for a plan
 * with another number of steps. c is whole or untouched.
 */
SKALD_MUSTUSE enum skald_rc skald__saga_state_read(struct saga_core *c,
	const struct saga_plan *plan, struct skald_slice text, struct skald_err *err);

#endif
