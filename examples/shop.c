/*
 * shop.c - the order of a command, trouble on request, the ledger, JSON lines.
 */
#include "examples/shop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum skald_rc
shop_number(struct skald_service *svc, const char *flag, double fallback, double max,
	double *out, struct skald_err *err)
{
	const char *text = skald_service_flag(svc, flag, NULL);
	char *end = NULL;
	double value = fallback;

	if (text) {
		errno = 0;
		value = strtod(text, &end);
		if (errno || end == text || *end || !(value >= 0 && value <= max))
			return skald_fail(err, SKALD_FATAL, "usage", "",
				"%s %s: a number from 0 to %g", flag, text, max);
	}
	*out = value;
	return SKALD_OK;
}

static enum skald_rc
read_refuse(
	struct shop_trouble *trouble, struct skald_service *svc, struct skald_err *err)
{
	const char *text = skald_service_flag(svc, "--refuse", NULL);
	const char *colon = text ? strchr(text, ':') : NULL;
	char *end = NULL;
	unsigned long count = colon ? strtoul(colon + 1, &end, 10) : 0;

	if (!text)
		return SKALD_OK;
	for (int op = SKALD_OP_ACTION; colon && op <= SKALD_OP_QUERY; op++) {
		const char *name = skald_op_name((enum skald_op)op);

		if (strlen(name) != (size_t)(colon - text) ||
			strncmp(text, name, strlen(name)) != 0)
			continue;
		if (end == colon + 1 || *end || count > 1000000)
			break;
		trouble->refuse_op = (enum skald_op)op;
		trouble->refuse_attempts = (unsigned)count;
		return SKALD_OK;
	}
	return skald_fail(err, SKALD_FATAL, "usage", "",
		"--refuse %s: OP:N, as in compensation:3", text);
}

enum skald_rc
shop_trouble_init(
	struct shop_trouble *trouble, struct skald_service *svc, struct skald_err *err)
{
	const char *seed_text = getenv("SKALD_SEED");
	long long seed = seed_text ? strtoll(seed_text, NULL, 10) : skald_wall_us();
	enum skald_rc rc;

	for (unsigned i = 0; i < 3; i++)
		trouble->dice[i] = (unsigned short)(seed >> (16 * i));
	rc = shop_number(svc, "--fail", 0, 1, &trouble->fail, err);
	if (!rc)
		rc = shop_number(svc, "--slow", 0, 3600000, &trouble->slow_ms, err);
	if (!rc)
		rc = shop_number(svc, "--crash", 0, 1, &trouble->crash, err);
	if (!rc)
		rc = shop_number(svc, "--duplicate", 0, 1, &trouble->duplicate, err);
	if (!rc)
		rc = read_refuse(trouble, svc, err);
	trouble->emit_topic = "";
	return rc;
}

bool
shop_happens(struct shop_trouble *trouble, double rate)
{
	return rate > 0 && erand48(trouble->dice) < rate;
}

enum skald_rc
shop_trouble(struct shop_trouble *trouble, struct skald_err *err)
{
	if (trouble->slow_ms > 0) {
		long long ns = (long long)(trouble->slow_ms * 1000000);
		struct timespec time = { ns / 1000000000, ns % 1000000000 };

		(void)nanosleep(&time, NULL);
	}
	if (shop_happens(trouble, trouble->crash))
		(void)raise(SIGKILL);
	if (shop_happens(trouble, trouble->fail))
		return skald_fail(err, SKALD_RETRY, "shop", "", "failed on request");
	return SKALD_OK;
}

enum skald_rc
shop_field(struct skald_json object, const char *name, enum skald_json_kind kind,
	char dst[static SHOP_FIELD_BYTES], struct skald_err *err)
{
	const char *what = kind == SKALD_JSON_NUMBER ? "a number" : "a text";
	struct skald_json value;

	if (!skald_json_member(object, name, &value) || value.kind != kind)
		return skald_fail(err, SKALD_REJECT, "shop", "field",
			"%s: %s is required", name, what);
	if (kind == SKALD_JSON_NUMBER
			? !skald_slice_copy(value.text, dst, SHOP_FIELD_BYTES)
			: !skald_json_text(value, dst, SHOP_FIELD_BYTES))
		return skald_fail(err, SKALD_REJECT, "shop", "field",
			"%s: at most %d bytes", name, SHOP_FIELD_BYTES - 1);
	return SKALD_OK;
}

enum skald_rc
shop_ledger_add(
	struct pg_conn *tx, const struct shop_effect *effect, struct skald_err *err)
{
	const struct skald_param params[] = {
		skald_param_text(effect->saga_id),
		skald_param_text(effect->step),
		skald_param_text(effect->op),
		skald_param_text(effect->order_id),
		skald_param_text(effect->amount),
		skald_param_text(effect->message_id),
		skald_param_text(effect->correlation_id),
	};

	return skald_conn_query(tx,
		"INSERT INTO public.ledger"
		" (saga_id, step, op, order_id, amount, message_id, correlation_id)"
		" VALUES ($1, $2, $3, $4, nullif($5, '')::numeric, $6, $7)",
		params, 7, NULL, err);
}

void
shop_effect_print(const struct shop_effect *effect)
{
	struct skald_buf line;

	skald_buf_init(&line, 4096);
	skald_buf_add_text(&line, "{");
	if (effect->saga_id)
		skald_json_add_member(
			&line, "saga_id", skald_slice_text(effect->saga_id));
	skald_json_add_member(&line, "step", skald_slice_text(effect->step));
	skald_json_add_member(&line, "op", skald_slice_text(effect->op));
	skald_json_add_member(&line, "order_id", skald_slice_text(effect->order_id));
	skald_json_add_member(&line, "amount", skald_slice_text(effect->amount));
	skald_json_add_member(&line, "message_id", skald_slice_text(effect->message_id));
	skald_json_add_member(
		&line, "correlation_id", skald_slice_text(effect->correlation_id));
	skald_buf_add_text(&line, "}\n");
	(void)!write(STDOUT_FILENO, line.data, line.bytes);
	skald_buf_done(&line);
}

enum skald_rc
shop_announce(struct shop_trouble *trouble, struct pg_conn *tx, const char *type,
	const char *key, struct skald_slice data, struct skald_err *err)
{
	struct skald_msg msg = SKALD_MSG_INIT;
	enum skald_rc rc = SKALD_OK;

	msg.topic = trouble->emit_topic;
	msg.type = type;
	msg.key = skald_slice_text(key);
	msg.data = data;
	for (int n = 1 + shop_happens(trouble, trouble->duplicate);
		n > 0 && !rc && *msg.topic; n--)
		rc = skald_outbox_add(tx, &msg, NULL, err);
	return rc;
}

/* Of the members a service needs not: "" when the command has none. */
static enum skald_rc
command_field(struct skald_json data, const char *name, const char *needed,
	enum skald_json_kind kind, char dst[static SHOP_FIELD_BYTES],
	struct skald_err *err)
{
	struct skald_json value;

	dst[0] = '\0';
	if (!strstr(needed, name) && !skald_json_member(data, name, &value))
		return SKALD_OK;
	return shop_field(data, name, kind, dst, err);
}

enum skald_rc
shop_command_read(struct shop_trouble *trouble, struct skald_command *cmd,
	const char *needed, struct shop_command *out, struct skald_reply *reply,
	struct skald_err *err)
{
	const struct skald_context *context = skald_context_current();
	struct skald_json data = skald_command_data(cmd);
	enum skald_op op = skald_command_op(cmd);
	struct shop_order *order = &out->order;

	memset(out, 0, sizeof(*out));
	out->is_refused = op == trouble->refuse_op &&
			  skald_command_attempt(cmd) <= trouble->refuse_attempts;
	if (out->is_refused)
		return skald_reply_failure(reply, "refused_on_request", "attempt %u",
			skald_command_attempt(cmd));
	if (command_field(
		    data, "order_id", needed, SKALD_JSON_STRING, order->order_id, err) ||
		command_field(data, "sku", needed, SKALD_JSON_STRING, order->sku, err) ||
		command_field(data, "quantity", needed, SKALD_JSON_NUMBER,
			order->quantity, err) ||
		command_field(
			data, "amount", needed, SKALD_JSON_NUMBER, order->amount, err))
		return SKALD_REJECT;
	if (!skald_slice_copy(
		    skald_command_saga_id(cmd), order->saga_id, SHOP_FIELD_BYTES) ||
		!skald_slice_copy(skald_command_step(cmd), out->step, SHOP_FIELD_BYTES))
		return skald_fail(err, SKALD_REJECT, "shop", "field",
			"saga id and step: at most %d bytes", SHOP_FIELD_BYTES - 1);
	out->effect = (struct shop_effect){ order->saga_id, out->step, skald_op_name(op),
		order->order_id, order->amount, context->causation_id,
		context->correlation_id };
	return SKALD_OK;
}

enum skald_rc
shop_command_done(struct shop_trouble *trouble, struct shop_command *done,
	struct skald_command *cmd, struct pg_conn *tx, struct skald_err *err)
{
	enum skald_rc rc = shop_ledger_add(tx, &done->effect, err);

	if (!rc) {
		char type[SHOP_FIELD_BYTES + 8];
		struct skald_slice of = skald_command_type(cmd);

		(void)snprintf(type, sizeof(type), "%.*s.done", (int)of.bytes, of.data);
		rc = shop_announce(trouble, tx, type, done->order.saga_id,
			skald_command_data(cmd).text, err);
	}
	if (!rc)
		rc = shop_trouble(trouble, err);
	if (!rc)
		shop_effect_print(&done->effect);
	return rc;
}
