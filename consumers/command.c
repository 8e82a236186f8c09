/*
 * command.c - a saga's command as a handler sees it, and whether it can be believed.
 *
 * The rules are those of barrier_complain in sql/functions/barrier.sql; what breaks one
 * here becomes a dead letter of class DECODE before it meets a transaction.
 */
#include "consumers/own.h"

#include "base/digest.h"
#include "base/limits.h"

#define NAME_BYTES_MAX    63
#define SAGA_ID_BYTES     36
#define REPLY_BYTES       6 /* ".reply" */
#define ATTEMPT_BYTES_MAX 9

static const char *const op_names[] = { "action", "compensation", "query" };

const char *
skald_op_name(enum skald_op op)
{
	return op_names[op];
}

/* --- accessors -------------------------------------------------------------------------------- */

struct skald_slice
skald_command_saga_id(const struct skald_command *cmd)
{
	return cmd->saga_id;
}

struct skald_slice
skald_command_saga_name(const struct skald_command *cmd)
{
	return cmd->saga_name;
}

struct skald_slice
skald_command_step(const struct skald_command *cmd)
{
	return cmd->step;
}

enum skald_op
skald_command_op(const struct skald_command *cmd)
{
	return cmd->op;
}

unsigned
skald_command_attempt(const struct skald_command *cmd)
{
	return cmd->attempt;
}

struct skald_slice
skald_command_type(const struct skald_command *cmd)
{
	return cmd->delivery->envelope.type;
}

struct skald_slice
skald_command_id(const struct skald_command *cmd)
{
	return cmd->delivery->envelope.id;
}

struct skald_slice
skald_command_key(const struct skald_command *cmd)
{
	return cmd->key;
}

struct skald_json
skald_command_data(const struct skald_command *cmd)
{
	return cmd->data;
}

struct skald_headers
skald_command_headers(const struct skald_command *cmd)
{
	return cmd->delivery->record.headers;
}

struct skald_delivery *
skald_command_delivery(const struct skald_command *cmd)
{
	return cmd->delivery;
}

/* --- reading ----------------------------------------------------------------------------------- */

static enum skald_rc
refuse(struct skald_err *err, const char *code, const char *name, const char *rule)
{
	return skald_fail(err, SKALD_REJECT, "message", code, "%s: %s", name, rule);
}

static enum skald_rc
need(struct skald_headers headers, const char *name, struct skald_slice *value,
	struct skald_err *err)
{
	*value = skald_headers_get(headers, name);
	if (!value->data || !value->bytes)
		return refuse(err, "missing", name, "a command must have it");
	return SKALD_OK;
}

static bool
is_step_name(struct skald_slice s)
{
	if (s.bytes > NAME_BYTES_MAX || s.data[0] < 'a' || s.data[0] > 'z')
		return false;
	for (size_t i = 0; i < s.bytes; i++)
		if (!((s.data[i] >= 'a' && s.data[i] <= 'z') ||
			    (s.data[i] >= '0' && s.data[i] <= '9') || s.data[i] == '-'))
			return false;
	return true;
}

static bool
is_topic(struct skald_slice s)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		"0123456789._-";

	if (s.bytes > SKALD_TOPIC_BYTES_MAX || skald_slice_is_text(s, ".") ||
		skald_slice_is_text(s, ".."))
		return false;
	for (size_t i = 0; i < s.bytes; i++)
		if (!memchr(allowed, s.data[i], sizeof(allowed) - 1))
			return false;
	return true;
}

/* Decimal, from `least`, no leading zero. */
static bool
read_number(struct skald_slice s, unsigned least, unsigned *out)
{
	unsigned value = 0;

	if (s.bytes < 1 || s.bytes > ATTEMPT_BYTES_MAX || s.data[0] == '0')
		return false;
	for (size_t i = 0; i < s.bytes; i++) {
		if (s.data[i] < '0' || s.data[i] > '9')
			return false;
		value = value * 10 + (unsigned)(s.data[i] - '0');
	}
	*out = value;
	return value >= least;
}

static bool
read_op(struct skald_slice s, enum skald_op *op)
{
	for (unsigned i = 0; i < sizeof(op_names) / sizeof(op_names[0]); i++)
		if (skald_slice_is_text(s, op_names[i])) {
			*op = (enum skald_op)i;
			return true;
		}
	return false;
}

/* <saga>:<step>:<op>[:<n>], a query's with its action's op. */
static bool
is_key_fitting(const struct skald_command *cmd, bool *is_first)
{
	const char *op = op_names[cmd->op == SKALD_OP_QUERY ? SKALD_OP_ACTION : cmd->op];
	size_t op_bytes = strlen(op);
	size_t first_bytes = SAGA_ID_BYTES + 1 + cmd->step.bytes + 1 + op_bytes;
	const char *p = cmd->key.data;
	unsigned round;

	if (cmd->key.bytes < first_bytes ||
		memcmp(p, cmd->saga_id.data, SAGA_ID_BYTES) != 0 ||
		p[SAGA_ID_BYTES] != ':' ||
		memcmp(p + SAGA_ID_BYTES + 1, cmd->step.data, cmd->step.bytes) != 0 ||
		p[SAGA_ID_BYTES + 1 + cmd->step.bytes] != ':' ||
		memcmp(p + first_bytes - op_bytes, op, op_bytes) != 0)
		return false;
	*is_first = cmd->key.bytes == first_bytes;
	return *is_first || (p[first_bytes] == ':' &&
				    read_number(skald_slice_make(p + first_bytes + 1,
							cmd->key.bytes - first_bytes - 1),
					    2, &round));
}

static enum skald_rc
check(struct skald_command *cmd, struct skald_slice op, bool *is_first,
	struct skald_err *err)
{
	struct skald_uuid id;

	if (!skald_uuid_parse(cmd->saga_id, &id))
		return refuse(
			err, "invalid", "ce_sagaid", "must be a uuid in lower case");
	if (!is_step_name(cmd->saga_name))
		return refuse(err, "invalid", "ce_saganame",
			"must be a lower-case name of 1 to 63 of [a-z0-9-]");
	if (!is_step_name(cmd->step))
		return refuse(err, "invalid", "ce_sagastep",
			"must be a lower-case name of 1 to 63 of [a-z0-9-]");
	if (!read_op(op, &cmd->op))
		return refuse(err, "invalid", "ce_sagaop",
			"must be action, compensation or query");
	if (!read_number(cmd->attempt_text, 1, &cmd->attempt))
		return refuse(
			err, "invalid", "ce_sagaattempt", "must be a number from 1");
	if (!is_topic(cmd->reply_to))
		return refuse(err, "invalid", "ce_replyto", "must be a topic");
	if (!is_key_fitting(cmd, is_first))
		return refuse(err, "invalid", "idempotency-key",
			"must fit ce_sagaid, ce_sagastep and ce_sagaop");
	if (cmd->delivery->envelope.type.bytes > SKALD_TYPE_BYTES_MAX - REPLY_BYTES)
		return refuse(err, "size", "ce_type",
			"at most 249 bytes, so that .reply can follow");
	return SKALD_OK;
}

enum skald_rc
skald__command_read(struct skald_delivery *d, struct skald_err *err)
{
	struct skald_headers headers = d->record.headers;
	struct skald_command *cmd = &d->command;
	struct skald_slice op = SKALD_SLICE_NULL;
	bool is_first = false;
	enum skald_rc rc;

	cmd->delivery = d;
	rc = need(headers, "ce_sagaid", &cmd->saga_id, err);
	if (!rc)
		rc = need(headers, "ce_saganame", &cmd->saga_name, err);
	if (!rc)
		rc = need(headers, "ce_sagastep", &cmd->step, err);
	if (!rc)
		rc = need(headers, "ce_sagaop", &op, err);
	if (!rc)
		rc = need(headers, "ce_sagaattempt", &cmd->attempt_text, err);
	if (!rc)
		rc = need(headers, "ce_replyto", &cmd->reply_to, err);
	if (!rc)
		rc = need(headers, "idempotency-key", &cmd->key, err);
	if (!rc)
		rc = check(cmd, op, &is_first, err);
	if (rc)
		return rc;
	cmd->data = (struct skald_json){ SKALD_JSON_NULL, SKALD_SLICE_LIT("null") };
	if (d->record.value.data && d->record.value.bytes &&
		skald_json_parse(d->record.value, SKALD_DATA_BYTES_MAX,
			SKALD_JSON_DEPTH_MAX, &cmd->data, err))
		return skald_fail_in(err, SKALD_REJECT, "value");
	cmd->is_plain = cmd->op == SKALD_OP_ACTION && is_first &&
			d->envelope.expires_at_us >= 0 && cmd->reply_to.bytes >= 13 &&
			memcmp(cmd->reply_to.data, "skald.replies", 13) == 0;
	cmd->step_hash = skald_hash64(
		skald_slice_make(cmd->key.data, SAGA_ID_BYTES + 1 + cmd->step.bytes));
	return SKALD_OK;
}
