/*
 * add.c - the writer: one call of skald.outbox_add_bytes in the caller's open
 * transaction. Fields are checked here, by the same rules and in the same words as
 * in sql/functions/outbox.sql, so that a refused message costs no round trip and does
 * not fail the caller's transaction; the server checks them again.
 */
#include "outbox/outbox.h"

#include <sys/random.h>

#include "base/clock.h"
#include "base/context.h"
#include "base/json.h"
#include "base/limits.h"
#include "sql/sql.h"

#define OID_UUID      2950
#define HEADERS_BYTES (SKALD_HEADERS_COUNT_MAX * 256 + 6 * SKALD_HEADERS_BYTES_MAX + 4096)
#define DEFAULT_TYPE  "application/json"

static const char sql_add[] =
	"SELECT skald.outbox_add_bytes(topic => $1, key => $2, type => $3, data => $4, "
	"content_type => $5, subject => $6, source => $7, id => $8, headers => $9, "
	"correlation_id => $10, causation_id => $11, traceparent => $12, expires_at => "
	"$13)";

/* --- checks ------------------------------------------------------------------------------- */

static enum skald_rc
refuse(struct skald_err *err, const char *code, const char *rule)
{
	return skald_fail(err, SKALD_REJECT, "skald", code, "%s", rule);
}

static bool
is_topic(const char *topic)
{
	size_t bytes = topic ? strlen(topic) : 0;

	return bytes >= 1 && bytes <= SKALD_TOPIC_BYTES_MAX &&
	       strspn(topic, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456"
			     "789._-") == bytes;
}

/* An optional text: UTF-8 and not too long. */
static enum skald_rc
check_text(const char *field, const char *text, size_t bytes_max, struct skald_err *err)
{
	if (!text)
		return SKALD_OK;
	if (strlen(text) > bytes_max)
		return skald_fail(err, SKALD_REJECT, "skald", "SK007",
			"%s: must be at most %zu bytes", field, bytes_max);
	if (!skald_slice_is_utf8(skald_slice_text(text)))
		return skald_fail(
			err, SKALD_REJECT, "skald", "SK001", "%s: must be UTF-8", field);
	return SKALD_OK;
}

static bool
is_json_type(const char *content_type)
{
	size_t bytes = sizeof(DEFAULT_TYPE) - 1;

	return !content_type ||
	       (strncmp(content_type, DEFAULT_TYPE, bytes) == 0 &&
		       (content_type[bytes] == '\0' || content_type[bytes] == ';'));
}

static enum skald_rc
check_data(const struct skald_msg *msg, struct skald_err *err)
{
	struct skald_json root;
	enum skald_rc rc;

	if (msg->data.bytes > SKALD_DATA_BYTES_MAX)
		return refuse(err, "SK007", "data: must be at most 16 MiB");
	if (msg->content_type && !msg->content_type[0])
		return refuse(err, "SK001", "content_type: must not be empty");
	if (!msg->data.data || !is_json_type(msg->content_type))
		return SKALD_OK;
	rc = skald_json_parse(
		msg->data, SKALD_DATA_BYTES_MAX, SKALD_JSON_DEPTH_MAX, &root, err);
	if (rc == SKALD_REJECT)
		(void)skald_fail_in(err, rc, "data: must be JSON");
	return rc;
}

static enum skald_rc
check_fields(const struct skald_msg *msg, struct skald_err *err)
{
	enum skald_rc rc;

	if (msg->struct_bytes < sizeof(*msg))
		return refuse(err, "SK001", "msg: must begin as SKALD_MSG_INIT");
	if (!is_topic(msg->topic))
		return refuse(err, "SK001", "topic: must be 1 to 249 of [A-Za-z0-9._-]");
	if (strcmp(msg->topic, ".") == 0 || strcmp(msg->topic, "..") == 0)
		return refuse(err, "SK001", "topic: must not be . or ..");
	if (msg->key.bytes > SKALD_KEY_BYTES_MAX)
		return refuse(err, "SK007", "key: must be at most 32 KiB");
	if (!msg->type || !msg->type[0])
		return refuse(err, "SK001", "type: must be 1 to 255 bytes");
	if (strlen(msg->type) > SKALD_TYPE_BYTES_MAX)
		return refuse(err, "SK007", "type: must be 1 to 255 bytes");
	rc = check_text("type", msg->type, SKALD_TYPE_BYTES_MAX, err);
	if (!rc)
		rc = check_data(msg, err);
	if (!rc)
		rc = check_text("content_type", msg->content_type, 255, err);
	if (!rc)
		rc = check_text("subject", msg->subject, SKALD_SUBJECT_BYTES_MAX, err);
	if (!rc)
		rc = check_text("source", msg->source, SKALD_SOURCE_BYTES_MAX, err);
	if (!rc)
		rc = check_text("correlation_id", msg->correlation_id,
			SKALD_ID_TEXT_BYTES_MAX, err);
	if (!rc)
		rc = check_text(
			"causation_id", msg->causation_id, SKALD_ID_TEXT_BYTES_MAX, err);
	if (!rc)
		rc = check_text(
			"traceparent", msg->traceparent, SKALD_ID_TEXT_BYTES_MAX, err);
	return rc;
}

static bool
is_header_name(struct skald_slice name)
{
	if (!name.data || name.bytes < 1 || name.bytes > 255)
		return false;
	for (size_t i = 0; i < name.bytes; i++)
		if (name.data[i] < '!' || name.data[i] > '~')
			return false;
	return true;
}

static bool
is_repeated(struct skald_headers headers, size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (skald_slice_is_equal(
			    headers.items[i].name, headers.items[index].name))
			return true;
	return false;
}

static enum skald_rc
check_headers(struct skald_headers headers, size_t *value_bytes, struct skald_err *err)
{
	if (headers.count > SKALD_HEADERS_COUNT_MAX)
		return refuse(err, "SK007", "headers: must be at most 100");
	for (size_t i = 0; i < headers.count; i++) {
		const struct skald_header *h = &headers.items[i];
		int bytes = h->name.bytes < 100 ? (int)h->name.bytes : 100;
		const char *rule = NULL;

		if (!is_header_name(h->name))
			return refuse(err, "SK001",
				"headers: names must be 1 to 255 printable ASCII "
				"characters "
				"without spaces");
		if (skald_header_is_reserved(h->name))
			rule = "is reserved (ce_*, x-dlq-*, x-replay-*, content-type)";
		else if (!h->value.data || !skald_slice_is_utf8(h->value))
			rule = "must be a text";
		else if (is_repeated(headers, i))
			rule = "must be given once";
		if (rule)
			return skald_fail(err, SKALD_REJECT, "skald", "SK001",
				"headers.%.*s: %s", bytes, h->name.data, rule);
		*value_bytes += h->value.bytes;
	}
	if (*value_bytes > SKALD_HEADERS_BYTES_MAX)
		return refuse(
			err, "SK007", "headers: values together must be at most 8 KiB");
	return SKALD_OK;
}

/* --- what goes to the server ---------------------------------------------------------------- */

struct call {
	struct skald_buf headers; /* a JSON object, or empty */
	struct skald_uuid id;
	char expires[SKALD_TIME_TEXT_BYTES];
};

static void
add_header(struct skald_buf *buf, struct skald_slice name, struct skald_slice value)
{
	skald_buf_add_text(buf, buf->bytes ? "," : "{");
	skald_json_add_string(buf, name);
	skald_buf_add_text(buf, ":");
	skald_json_add_string(buf, value);
}

/* What is carried on besides the columns; left out when the message has its own or no room is
   left: of baggage and state a hop may keep nothing, of the application's headers all. */
static void
carry(struct skald_buf *buf, const struct skald_msg *msg, const char *name,
	struct skald_slice value, size_t *value_bytes)
{
	if (!value.data || !value.bytes || skald_headers_count(msg->headers, name) ||
		*value_bytes + value.bytes > SKALD_HEADERS_BYTES_MAX)
		return;
	*value_bytes += value.bytes;
	add_header(buf, skald_slice_text(name), value);
}

static enum skald_rc
build_headers(struct call *call, const struct skald_msg *msg,
	const struct skald_context *ctx, size_t value_bytes, struct skald_err *err)
{
	for (size_t i = 0; i < msg->headers.count; i++)
		add_header(&call->headers, msg->headers.items[i].name,
			msg->headers.items[i].value);
	if (ctx) {
		if (!msg->traceparent) /* the state belongs to the trace that is continued */
			carry(&call->headers, msg, SKALD_H_TRACESTATE,
				skald_slice_text(ctx->tracestate), &value_bytes);
		carry(&call->headers, msg, SKALD_H_BAGGAGE, ctx->baggage, &value_bytes);
	}
	if (call->headers.bytes)
		skald_buf_add_text(&call->headers, "}");
	if (call->headers.failed)
		return skald_fail(
			err, SKALD_RETRY, "skald", "53200", "headers: out of memory");
	return SKALD_OK;
}

static enum skald_rc
draw_id(struct skald_uuid *id, const struct skald_msg *msg, struct skald_context *ctx,
	struct skald_err *err)
{
	uint64_t entropy[2];

	if (msg->id) {
		*id = *msg->id;
	} else if (ctx) {
		*id = skald_context_next_id(ctx);
	} else {
		/* not base/rand: two processes of one SKALD_SEED must not draw one id */
		if (getrandom(entropy, sizeof(entropy), 0) != (ssize_t)sizeof(entropy))
			return skald_fail(err, SKALD_RETRY, "skald", "58000",
				"id: the kernel gave no random bytes");
		*id = skald_uuid_v7(skald_wall_us() / 1000, entropy[0], entropy[1]);
	}
	return SKALD_OK;
}

/* The message's own value, else the context's, else NULL: then the server's settings decide. */
static struct skald_param
inherited(const char *own, const char *from_context)
{
	if (own)
		return skald_param_text(own);
	return skald_param_text(from_context && from_context[0] ? from_context : NULL);
}

static enum skald_rc
send(struct pg_conn *conn, const struct skald_msg *msg, const struct skald_context *ctx,
	struct call *call, struct skald_err *err)
{
	const char *type = msg->content_type;
	struct skald_param params[13] = { skald_param_text(msg->topic),
		skald_param_bytea(msg->key), skald_param_text(msg->type),
		skald_param_bytea(msg->data),
		skald_param_text(type             ? type
				 : msg->data.data ? DEFAULT_TYPE
						  : NULL),
		skald_param_text(msg->subject), skald_param_text(msg->source),
		{ skald_slice_make(call->id.bytes, sizeof(call->id.bytes)), true,
			OID_UUID },
		skald_param_text(call->headers.bytes ? call->headers.data : NULL),
		inherited(msg->correlation_id, ctx ? ctx->correlation_id : NULL),
		inherited(msg->causation_id, ctx ? ctx->causation_id : NULL),
		inherited(msg->traceparent, ctx ? ctx->traceparent : NULL),
		SKALD_PARAM_NULL };

	if (msg->expires_at_us) {
		skald_time_format(msg->expires_at_us, call->expires);
		params[12] = skald_param_text(call->expires);
	}
	if (skald_conn_is_pipeline(conn))
		return skald_conn_send(conn, sql_add, params, 13, err);
	return skald_conn_query(conn, sql_add, params, 13, NULL, err);
}

enum skald_rc
skald_outbox_add(struct pg_conn *conn, const struct skald_msg *msg, struct skald_uuid *id,
	struct skald_err *err)
{
	struct skald_context *ctx = skald_context_current();
	struct call call;
	size_t value_bytes = 0;
	enum skald_rc rc;

	skald_buf_init(&call.headers, HEADERS_BYTES);
	rc = check_fields(msg, err);
	if (!rc)
		rc = check_headers(msg->headers, &value_bytes, err);
	/* in pipeline mode the BEGIN may still be on its way: what is queued together commits
	   together */
	if (!rc && !skald_conn_is_pipeline(conn) && !skald_sql_is_in_transaction(conn))
		rc = refuse(err, "SK006",
			"conn: must be inside a transaction: the message belongs to its "
			"commit");
	if (!rc)
		rc = draw_id(&call.id, msg, ctx, err);
	if (!rc)
		rc = build_headers(&call, msg, ctx, value_bytes, err);
	if (!rc)
		rc = send(conn, msg, ctx, &call, err);
	if (!rc && id)
		*id = call.id;
	skald_buf_done(&call.headers);
	return rc;
}
