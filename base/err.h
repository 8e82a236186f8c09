/*
 * err.h - what went wrong, for a person and for a program.
 *
 * The rc says what to do, the err says what happened. The struct is the
 * caller's, lives on its stack and never allocates. It is written only when a
 * call does not return SKALD_OK.
 */
#ifndef SKALD_BASE_ERR_H
#define SKALD_BASE_ERR_H

#include <stdbool.h>

#include "base/rc.h"

struct skald_err {
	const char *origin; /* static text: "pg", "kafka", "callee", "config", "skald" */
	char code[8]; /* SQLSTATE, librdkafka error number, or "" */
	char text[232]; /* lower case, names the field and the rule */
};

/* clang-format off */
#define SKALD_ERR_INIT { "skald", "", "" }
/* clang-format on */

/*
 * Fill err and return rc, so that a failing function can say
 * `return skald_fail(err, SKALD_REJECT, "skald", "SK001", "topic: ...")`.
 * err may be NULL; text longer than the field is cut at a character's end.
 */
enum skald_rc skald_fail(struct skald_err *err, enum skald_rc rc, const char *origin,
	const char *code, const char *fmt, ...) SKALD_PRINTF(5, 6);

/* Put "prefix: " in front of err->text; returns rc. */
enum skald_rc skald_fail_in(struct skald_err *err, enum skald_rc rc, const char *fmt, ...)
	SKALD_PRINTF(3, 4);

/*
 * Trouble of the infrastructure (server away, shutting down, out of resources,
 * a callee that does not answer): nobody's fault, never counted against a
 * message. SQLSTATE classes 08, 53, 57P0x, 58, no SQLSTATE (the connection
 * broke), origin "callee", or "kafka" unless it complains of the record itself.
 */
bool skald_err_is_outage(const struct skald_err *err);

/* Two transactions met: 40001, 40P01, 55P03. Nobody's attempt either. */
bool skald_err_is_conflict(const struct skald_err *err);

#endif
