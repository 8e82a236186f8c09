/*
 * shop.c - trouble on request, the ledger, effects as JSON lines.
 */
#include "examples/shop.h"

#include <errno.h>
#include <signal.h>
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
		skald_param_text(effect->step),
		skald_param_text(effect->op),
		skald_param_text(effect->order_id),
		skald_param_text(effect->amount),
		skald_param_text(effect->message_id),
		skald_param_text(effect->correlation_id),
	};

	return skald_conn_query(tx,
		"INSERT INTO public.ledger"
		" (step, op, order_id, amount, message_id, correlation_id)"
		" VALUES ($1, $2, $3, $4, $5, $6)",
		params, 6, NULL, err);
}

void
shop_effect_print(const struct shop_effect *effect)
{
	struct skald_buf line;

	skald_buf_init(&line, 4096);
	skald_buf_add_text(&line, "{");
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
