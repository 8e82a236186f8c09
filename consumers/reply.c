/*
 * reply.c - what a handler of commands answers.
 */
#include "consumers/own.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"

#define REPLY_BYTES_MAX   (256 * 1024) /* docs/protocol.md 5 */
#define CODE_BYTES_MAX    255
#define MESSAGE_BYTES_MAX 4096

static const char *const outcome_names[] = { "success", "failure", "retryable",
	"unknown" };

const char *
skald__outcome_name(enum skald_outcome outcome)
{
	return outcome_names[outcome];
}

void
skald__reply_init(struct skald_reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	skald_buf_init(&reply->data, REPLY_BYTES_MAX);
	skald_buf_init(&reply->scratch, REPLY_BYTES_MAX);
}

void
skald__reply_done(struct skald_reply *reply)
{
	skald_buf_done(&reply->data);
	skald_buf_done(&reply->scratch);
}

void
skald__reply_clear(struct skald_reply *reply)
{
	reply->is_set = reply->is_later = false;
	reply->outcome = SKALD_OUTCOME_SUCCESS;
	reply->fault = SKALD_OK;
	reply->err = (struct skald_err)SKALD_ERR_INIT;
	skald_buf_clear(&reply->data);
}

/* Formatted text of any length into buf, which says by itself when it is too long. */
static void add_formatted(struct skald_buf *buf, const char *fmt, va_list args)
	SKALD_PRINTF(2, 0);
static enum skald_rc set_error_va(struct skald_reply *reply, enum skald_outcome outcome,
	const char *code, const char *fmt, va_list args) SKALD_PRINTF(4, 0);

static void
add_formatted(struct skald_buf *buf, const char *fmt, va_list args)
{
	char small[1024], *text = small;
	va_list again;
	int n;

	va_copy(again, args);
	n = vsnprintf(small, sizeof(small), fmt, args);
	if (n >= (int)sizeof(small)) {
		text = malloc((size_t)n + 1);
		if (text)
			(void)vsnprintf(text, (size_t)n + 1, fmt, again);
	}
	va_end(again);
	if (n < 0 || !text)
		buf->failed = true;
	else
		skald_buf_add(buf, text, (size_t)n);
	if (text != small)
		free(text);
}

static enum skald_rc
at_fault(struct skald_reply *reply, const char *code, const char *rule)
{
	reply->fault =
		skald_fail(&reply->err, SKALD_FATAL, "skald", code, "reply: %s", rule);
	return reply->fault;
}

enum skald_rc
skald_reply_success(struct skald_reply *reply, const char *fmt, ...)
{
	struct skald_json root;
	va_list args;

	skald__reply_clear(reply);
	va_start(args, fmt);
	if (fmt)
		add_formatted(&reply->data, fmt, args);
	else
		skald_buf_add_text(&reply->data, "{}");
	va_end(args);
	if (reply->data.failed)
		return at_fault(reply, "SK007", "must be at most 256 KiB");
	if (skald_json_parse(skald_buf_slice(&reply->data), REPLY_BYTES_MAX,
		    SKALD_JSON_DEPTH_MAX, &root, &reply->err)) {
		reply->fault = skald_fail_in(&reply->err, SKALD_FATAL, "reply");
		return reply->fault;
	}
	if (root.kind != SKALD_JSON_OBJECT)
		return at_fault(reply, "SK001", "must be a JSON object");
	reply->is_set = true;
	return SKALD_OK;
}

static enum skald_rc
set_error(struct skald_reply *reply, enum skald_outcome outcome, const char *code,
	struct skald_slice message)
{
	if (!code || !*code || strlen(code) > CODE_BYTES_MAX ||
		!skald_slice_is_utf8(skald_slice_text(code)))
		return at_fault(reply, "SK001", "code: must be a text of 1 to 255 bytes");
	skald_buf_clear(&reply->data);
	skald_buf_add_text(&reply->data, "{");
	skald_json_add_member(&reply->data, "code", skald_slice_text(code));
	skald_json_add_member(&reply->data, "message", message);
	skald_buf_add_text(&reply->data, "}");
	if (reply->data.failed)
		return at_fault(reply, "53200", "out of memory");
	reply->outcome = outcome;
	reply->is_set = true;
	return SKALD_OK;
}

static enum skald_rc
set_error_va(struct skald_reply *reply, enum skald_outcome outcome, const char *code,
	const char *fmt, va_list args)
{
	struct skald_slice message;

	skald__reply_clear(reply);
	skald_buf_clear(&reply->scratch);
	if (fmt)
		add_formatted(&reply->scratch, fmt, args);
	if (reply->scratch.failed)
		return at_fault(reply, "SK007", "message: too long");
	message = skald_buf_slice(&reply->scratch);
	if (message.bytes > MESSAGE_BYTES_MAX)
		message.bytes = MESSAGE_BYTES_MAX; /* a cut character becomes U+FFFD */
	return set_error(reply, outcome, code, message);
}

enum skald_rc
skald_reply_failure(struct skald_reply *reply, const char *code, const char *fmt, ...)
{
	enum skald_rc rc;
	va_list args;

	va_start(args, fmt);
	rc = set_error_va(reply, SKALD_OUTCOME_FAILURE, code, fmt, args);
	va_end(args);
	return rc;
}

enum skald_rc
skald_reply_retryable(struct skald_reply *reply, const char *code, const char *fmt, ...)
{
	enum skald_rc rc;
	va_list args;

	va_start(args, fmt);
	rc = set_error_va(reply, SKALD_OUTCOME_RETRYABLE, code, fmt, args);
	va_end(args);
	return rc;
}

enum skald_rc
skald_reply_unknown(struct skald_reply *reply, const char *code, const char *fmt, ...)
{
	enum skald_rc rc;
	va_list args;

	va_start(args, fmt);
	rc = set_error_va(reply, SKALD_OUTCOME_UNKNOWN, code, fmt, args);
	va_end(args);
	return rc;
}

enum skald_rc
skald_reply_later(struct skald_reply *reply)
{
	skald__reply_clear(reply);
	reply->is_set = reply->is_later = true;
	return SKALD_OK;
}

void
skald__reply_set_error(struct skald_reply *reply, enum skald_outcome outcome,
	const char *fallback, const struct skald_err *why)
{
	skald__reply_clear(reply);
	(void)set_error(reply, outcome, why->code[0] ? why->code : fallback,
		skald_slice_text(why->text));
}
