/*
 * payment.c - skald-example-payment: charges orders of a saga, and pays back.
 *
 * Serves payment.commands: payment.charge writes a charge, or answers `failure`
 * declined above the limit; payment.refund takes the charge of its saga back.
 * --limit AMOUNT   what is charged at most (1000000)
 * --emit TOPIC     for events (""); and the trouble of shop.h.
 */
#include "examples/shop.h"

#include <stdio.h>

struct till {
	struct shop_trouble trouble;
	double limit;
	char limit_text[32];
};

static const char tables[] = SHOP_LEDGER
	"CREATE TABLE IF NOT EXISTS public.charge ("
	" charge bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
	" saga_id uuid NOT NULL, step text NOT NULL, order_id text NOT NULL,"
	" amount numeric NOT NULL, is_refunded boolean NOT NULL DEFAULT false);"
	"CREATE INDEX IF NOT EXISTS charge_saga ON public.charge (saga_id);";

static enum skald_rc
charge(struct skald_command *cmd, struct pg_conn *tx, struct skald_reply *reply,
	void *ctx, struct skald_err *err)
{
	struct till *till = ctx;
	struct shop_command c;
	struct skald_rows *rows = NULL;
	enum skald_rc rc =
		shop_command_read(&till->trouble, cmd, "amount", &c, reply, err);
	const struct skald_param params[] = { skald_param_text(c.order.saga_id),
		skald_param_text(c.step), skald_param_text(c.order.order_id),
		skald_param_text(c.order.amount), skald_param_text(till->limit_text) };

	if (rc || c.is_refused)
		return rc;
	rc = skald_conn_query(tx,
		"INSERT INTO public.charge (saga_id, step, order_id, amount)"
		" SELECT $1, $2, $3, $4::numeric"
		"  WHERE $4::numeric BETWEEN 0 AND $5::numeric RETURNING charge::text",
		params, 5, &rows, err);
	if (!rc && skald_rows_count(rows) == 0)
		rc = skald_reply_failure(reply, "declined",
			"amount: %s is not from 0 to %s", c.order.amount,
			till->limit_text);
	else if (!rc)
		rc = skald_reply_success(reply, "{\"charge\":\"c-%s\",\"amount\":%s}",
			skald_rows_get(rows, 0, 0).data, c.order.amount);
	if (!rc && skald_rows_count(rows) > 0)
		rc = shop_command_done(&till->trouble, &c, cmd, tx, err);
	skald_rows_free(rows);
	return rc;
}

static enum skald_rc
refund(struct skald_command *cmd, struct pg_conn *tx, struct skald_reply *reply,
	void *ctx, struct skald_err *err)
{
	struct till *till = ctx;
	struct shop_command c;
	struct skald_rows *rows = NULL;
	enum skald_rc rc = shop_command_read(&till->trouble, cmd, "", &c, reply, err);
	const struct skald_param params[] = { skald_param_text(c.order.saga_id),
		skald_param_text(c.step) };

	if (rc || c.is_refused)
		return rc;
	rc = skald_conn_query(tx,
		"UPDATE public.charge SET is_refunded = true"
		" WHERE saga_id = $1 AND step = $2 AND NOT is_refunded"
		" RETURNING order_id, amount::text",
		params, 2, &rows, err);
	if (!rc)
		rc = skald_reply_success(reply, NULL);
	if (!rc && skald_rows_count(rows) > 0) {
		c.effect.order_id = skald_rows_get(rows, 0, 0).data;
		c.effect.amount = skald_rows_get(rows, 0, 1).data;
		rc = shop_command_done(&till->trouble, &c, cmd, tx, err);
	}
	skald_rows_free(rows);
	return rc;
}

int
main(int argc, char **argv)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_service *svc = NULL;
	struct till till = { .limit = 0 };

	if (skald_service_create(&svc, "payment", argc, argv, &err) ||
		shop_trouble_init(&till.trouble, svc, &err) ||
		shop_number(svc, "--limit", 1e6, 1e15, &till.limit, &err) ||
		skald_service_setup(svc, tables, &err) ||
		skald_service_commands(svc, "payment.commands", &err) ||
		skald_service_on_command(svc, "payment.charge", charge, &till, &err) ||
		skald_service_on_command(svc, "payment.refund", refund, &till, &err))
		return skald_service_fail(svc, &err);
	(void)snprintf(till.limit_text, sizeof(till.limit_text), "%.2f", till.limit);
	till.trouble.emit_topic = skald_service_flag(svc, "--emit", "");
	return skald_service_run(svc);
}
