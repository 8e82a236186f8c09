/*
 * log.h - one line per event, for people (text) and machines (json).
 *
 * Only shells and mains log, one failure once. Never payloads or secrets.
 * Inside a message's context every line carries its correlation id. Lines go
 * to stderr in one write each; safe from any thread.
 */
#ifndef SKALD_BASE_LOG_H
#define SKALD_BASE_LOG_H

#include <stdbool.h>

#include "base/err.h"
#include "base/rc.h"

enum skald_log_level { SKALD_LOG_ERROR, SKALD_LOG_WARN, SKALD_LOG_INFO, SKALD_LOG_DEBUG };
enum skald_log_format { SKALD_LOG_AUTO, SKALD_LOG_TEXT, SKALD_LOG_JSON };

/* Once, by main, before threads start. program is borrowed for ever. */
void skald_log_init(
	const char *program, enum skald_log_level level, enum skald_log_format format);

/* Would a line of this level be written? For what is costly to say. */
bool skald_log_is_on(enum skald_log_level level);
/* "could not do x: why key=value key2=value2": pairs stand at the end of the message. */
void skald_log(enum skald_log_level level, const char *fmt, ...) SKALD_PRINTF(2, 3);
/* The message, then err's origin, code and text as fields. */
void skald_log_err(enum skald_log_level level, const struct skald_err *err,
	const char *fmt, ...) SKALD_PRINTF(3, 4);

#endif
