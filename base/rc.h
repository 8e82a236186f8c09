/*
 * rc.h - the one answer of every command: what the caller should do next.
 */
#ifndef SKALD_BASE_RC_H
#define SKALD_BASE_RC_H

#define SKALD_MUSTUSE __attribute__((warn_unused_result))
#define SKALD_PRINTF(fmt_index, first_index) \
	__attribute__((format(printf, fmt_index, first_index)))

enum skald_rc {
	SKALD_OK = 0,
	SKALD_RETRY, /* did not happen, or unknown; repeating is safe */
	SKALD_REJECT, /* this input can never succeed: dead-letter it */
	SKALD_FATAL, /* this process cannot go on: stop, be restarted */
};

const char *skald_rc_name(enum skald_rc rc);

#endif
