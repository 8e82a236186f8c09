/*
 * record.c - a record of the reply or command topic becomes a message to a saga.
 *
 * What cannot be decoded or contradicts itself is never guessed at: it is a dead
 * letter. Whether it fits the saga's state is the core's to say.
 */
#include "saga/own.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/headers.h"
#include "base/json.h"
#include "base/limits.h"

void
skald__saga_kill(struct saga__msg *msg, const char *code, const char *fmt, ...)
{
	va_list args;

	if (msg->is_dead)
		return;
	msg->is_dead = true;
	msg->why = (struct skald_err)SKALD_ERR_INIT;
	va_start(args, fmt);
	(void)vsnprintf(msg->why.text, sizeof(msg->why.text), fmt, args);
	va_end(args);
	/* code is longer than an err's: it goes beside it */
	(void)snprintf(msg->code, sizeof(msg->code), "%s", code);
}

/* --- the echo ------------------------------------------------------------------------------ */

/* Exactly one, not empty. */
static struct skald_slice
take_header(struct saga__msg *msg, const char *name)
{
	struct skald_headers headers = msg->record->headers;
	struct skald_slice value = skald_headers_get(headers, name);

	if (skald_headers_count(headers, name) > 1)
		skald__saga_kill(
			msg, "contradictory_echo", "%s: must be there once", name);
	else if (!value.data || value.bytes == 0)
		skald__saga_kill(
			msg, "missing_echo", "%s: must be as in the command", name);
	else if (value.bytes > SKALD_ID_TEXT_BYTES_MAX * 2 || !skald_slice_is_utf8(value))
		skald__saga_kill(msg, "contradictory_echo",
			"%s: must be a text as in the command", name);
	return msg->is_dead ? SKALD_SLICE_LIT("") : value;
}

static void
read_op(struct saga__msg *msg)
{
	struct skald_slice op = take_header(msg, "ce_sagaop");

	if (skald_slice_is_text(op, "action"))
		msg->op = SAGA_OP_ACTION;
	else if (skald_slice_is_text(op, "compensation"))
		msg->op = SAGA_OP_UNDO;
	else
		skald__saga_kill(msg, "contradictory_echo",
			"ce_sagaop: must be action or compensation");
}

static void
read_attempt(struct saga__msg *msg)
{
	struct skald_slice text = take_header(msg, "ce_sagaattempt");
	long long n = 0;

	if (!skald_slice_int64(text, &n) || n < 1 || n > INT32_MAX)
		skald__saga_kill(msg, "contradictory_echo",
			"ce_sagaattempt: must be a decimal from 1");
	msg->attempt = (uint32_t)n;
}

/* `<saga id>:<step>:<op>`, from the second round on with `:<n>`. */
static void
read_key(struct saga__msg *msg)
{
	struct skald_slice key = take_header(msg, "idempotency-key");
	char begin[SKALD_UUID_TEXT_BYTES + SKALD_SAGA_NAME_BYTES_MAX + 32];
	long long n = 1;
	size_t bytes;

	if (msg->is_dead)
		return;
	(void)snprintf(begin, sizeof(begin), "%s:%.*s:%s", msg->saga_id,
		(int)msg->step_name.bytes, msg->step_name.data,
		skald__saga_op_name(msg->op));
	bytes = strlen(begin);
	if (key.bytes < bytes || memcmp(key.data, begin, bytes) != 0 ||
		(key.bytes > bytes &&
			(key.data[bytes] != ':' ||
				!skald_slice_int64(skald_slice_make(key.data + bytes + 1,
							   key.bytes - bytes - 1),
					&n) ||
				n < 2 || n > INT32_MAX)))
		skald__saga_kill(msg, "contradictory_echo",
			"idempotency-key: does not fit saga, step and op");
	msg->round = (uint32_t)n;
}

static void
read_echo(struct saga__msg *msg)
{
	struct skald_slice id = take_header(msg, "ce_sagaid");
	struct skald_uuid uuid;

	if (!msg->is_dead && !skald_uuid_parse(id, &uuid))
		skald__saga_kill(msg, "contradictory_echo", "ce_sagaid: must be a UUID");
	if (msg->is_dead)
		return;
	skald_uuid_format(uuid, msg->saga_id);
	msg->has_saga = true;
	msg->saga_name = take_header(msg, "ce_saganame");
	msg->step_name = take_header(msg, "ce_sagastep");
	if (!msg->is_dead && (msg->saga_name.bytes > SKALD_SAGA_NAME_BYTES_MAX ||
				     msg->step_name.bytes > SKALD_SAGA_NAME_BYTES_MAX))
		skald__saga_kill(msg, "contradictory_echo",
			"ce_saganame, ce_sagastep: are at most 63 bytes");
	if (!msg->is_dead)
		read_op(msg);
	if (!msg->is_dead)
		read_attempt(msg);
	if (!msg->is_dead)
		read_key(msg);
	msg->has_attempt = !msg->is_dead;
}

/* --- outcome and data ------------------------------------------------------------------------ */

static void
read_outcome(struct saga__msg *msg)
{
	struct skald_slice outcome = take_header(msg, "ce_sagaoutcome");

	for (int i = SAGA_REPLY_SUCCESS; i <= SAGA_REPLY_UNKNOWN && !msg->is_dead; i++)
		if (skald_slice_is_text(
			    outcome, skald__saga_reply_name((enum saga_reply)i)))
			msg->reply = (enum saga_reply)i;
	if (msg->reply == SAGA_REPLY_NONE)
		skald__saga_kill(msg, "unknown_outcome",
			"ce_sagaoutcome: must be success, failure, retryable or unknown");
}

static void
read_barrier(struct saga__msg *msg)
{
	struct skald_slice barrier =
		skald_headers_get(msg->record->headers, "ce_sagabarrier");

	if (!barrier.data)
		return;
	if (skald_slice_is_text(barrier, "duplicate"))
		msg->barrier = SAGA_BARRIER_DUPLICATE;
	else if (skald_slice_is_text(barrier, "empty"))
		msg->barrier = SAGA_BARRIER_EMPTY;
	else if (skald_slice_is_text(barrier, "refused"))
		msg->barrier = SAGA_BARRIER_REFUSED;
	else
		skald__saga_kill(msg, "contradictory_echo",
			"ce_sagabarrier: must be duplicate, empty or refused");
}

/* All but success say why: {"code","message"}. */
static void
read_reason(struct saga__msg *msg, struct skald_json root)
{
	struct skald_json value;

	if (root.kind != SKALD_JSON_OBJECT || !skald_json_member(root, "code", &value) ||
		value.kind != SKALD_JSON_STRING) {
		skald__saga_kill(msg, "no_code",
			"value: a reply other than success is {\"code\",\"message\"}");
		return;
	}
	if (!skald_json_text(value, msg->code, sizeof(msg->code)))
		(void)snprintf(msg->code, sizeof(msg->code), "too_long");
	if (skald_json_member(root, "message", &value) &&
		!skald_json_text(value, msg->text, sizeof(msg->text)))
		(void)snprintf(
			msg->text, sizeof(msg->text), "a message of more than 255 bytes");
	if (msg->barrier == SAGA_BARRIER_REFUSED && strcmp(msg->code, "expired") == 0)
		msg->barrier = SAGA_BARRIER_EXPIRED;
}

static void
read_data(struct saga__msg *msg)
{
	struct skald_slice value = msg->record->value;
	struct skald_json root = { .kind = SKALD_JSON_NULL };
	struct skald_err err = SKALD_ERR_INIT;

	if (value.bytes > SKALD_SAGA_REPLY_BYTES_MAX) {
		skald__saga_kill(msg, "too_large", "value: must be at most 256 KiB");
		return;
	}
	if (value.bytes > 0 && skald_json_parse(value, SKALD_SAGA_REPLY_BYTES_MAX,
				       SKALD_SAGA_DATA_DEPTH_MAX, &root, &err)) {
		skald__saga_kill(msg, "invalid_json", "value: %s", err.text);
		return;
	}
	if (msg->reply != SAGA_REPLY_SUCCESS) {
		read_reason(msg, root);
		return;
	}
	if (value.bytes == 0)
		return;
	if (root.kind != SKALD_JSON_OBJECT)
		skald__saga_kill(
			msg, "no_object", "value: a success is a JSON object or nothing");
	else
		msg->data = root.text;
}

/* --- starts ---------------------------------------------------------------------------------- */

static void
read_start(struct saga__msg *msg)
{
	struct skald_slice type = skald_headers_get(msg->record->headers, SKALD_H_TYPE);
	struct skald_json root;
	struct skald_err err = SKALD_ERR_INIT;

	msg->kind = SAGA__MSG_START;
	if (!skald_slice_is_text(type, "skald.saga.start")) {
		skald__saga_kill(
			msg, "unknown_type", "ce_type: must be skald.saga.start");
		return;
	}
	if (skald_json_parse(msg->record->value, 2 * SKALD_SAGA_INPUT_BYTES_MAX,
		    SKALD_SAGA_DATA_DEPTH_MAX, &root, &err))
		skald__saga_kill(msg, "invalid_json", "value: %s", err.text);
	else if (root.kind != SKALD_JSON_OBJECT)
		skald__saga_kill(msg, "no_object", "value: must be a JSON object");
	else
		msg->data = root.text;
}

void
skald__saga_read(const struct skald_kafka_record *record, struct saga__part *part,
	struct saga__msg *msg)
{
	struct skald_slice target =
		skald_headers_get(record->headers, SKALD_H_REPLAY_GROUP);

	*msg = (struct saga__msg){ .record = record,
		.part = part,
		.replay = msg->replay,
		.kind = SAGA__MSG_REPLY,
		.data = SKALD_SLICE_NULL };
	msg->id = skald_headers_get(record->headers, SKALD_H_ID);
	if (msg->id.bytes > SKALD_ID_TEXT_BYTES_MAX || !skald_slice_is_utf8(msg->id))
		msg->id = SKALD_SLICE_NULL;
	if (target.data && target.bytes && strncmp(target.data, "skald.", 6) != 0) {
		msg->kind = SAGA__MSG_PASS;
	} else if (part->is_reply) {
		read_echo(msg);
		if (!msg->is_dead)
			read_barrier(msg);
		if (!msg->is_dead)
			read_outcome(msg);
		if (!msg->is_dead)
			read_data(msg);
	} else {
		read_start(msg);
	}
}
