/*
 * inventory.c - skald-example-inventory: keeps goods for orders of a saga.
 *
 * Serves inventory.commands: inventory.reserve takes from the stock and answers
 * with the reservation, or `failure` out_of_stock; inventory.release gives back
 * what its saga holds. The barrier around both knows what ran before, so neither
 * looks for repetitions. The trouble of shop.h; --emit TOPIC for events.
 */
#include "examples/shop.h"

static const char tables[] = SHOP_LEDGER
	"CREATE TABLE IF NOT EXISTS public.stock (sku text PRIMARY KEY,"
	" on_hand int NOT NULL CHECK (on_hand >= 0));"
	"INSERT INTO public.stock VALUES ('lamp', 1000000), ('chair', 1000000),"
	" ('table', 1000000), ('rug', 1000000), ('mirror', 1000000)"
	" ON CONFLICT DO NOTHING;"
	"CREATE TABLE IF NOT EXISTS public.reservation ("
	" reservation bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
	" saga_id uuid NOT NULL, step text NOT NULL, order_id text NOT NULL,"
	" sku text NOT NULL, quantity int NOT NULL);"
	"CREATE INDEX IF NOT EXISTS reservation_saga ON public.reservation (saga_id);";

static enum skald_rc
reserve(struct skald_command *cmd, struct pg_conn *tx, struct skald_reply *reply,
	void *ctx, struct skald_err *err)
{
	struct shop_command c;
	struct skald_rows *rows = NULL;
	enum skald_rc rc = shop_command_read(ctx, cmd, "sku quantity", &c, reply, err);
	const struct skald_param params[] = { skald_param_text(c.order.sku),
		skald_param_text(c.order.quantity), skald_param_text(c.order.saga_id),
		skald_param_text(c.step), skald_param_text(c.order.order_id) };

	if (rc || c.is_refused)
		return rc;
	rc = skald_conn_query(tx,
		"WITH taken AS (UPDATE public.stock SET on_hand = on_hand - $2::int"
		"  WHERE sku = $1 AND on_hand >= $2::int AND $2::int > 0 RETURNING sku)"
		" INSERT INTO public.reservation (saga_id, step, order_id, sku, quantity)"
		" SELECT $3, $4, $5, sku, $2::int FROM taken RETURNING reservation::text",
		params, 5, &rows, err);
	if (!rc && skald_rows_count(rows) == 0)
		rc = skald_reply_failure(reply, "out_of_stock",
			"sku: not %s of '%s' left", c.order.quantity, c.order.sku);
	else if (!rc)
		rc = skald_reply_success(reply, "{\"reservation\":\"r-%s\"}",
			skald_rows_get(rows, 0, 0).data);
	if (!rc && skald_rows_count(rows) > 0)
		rc = shop_command_done(ctx, &c, cmd, tx, err);
	skald_rows_free(rows);
	return rc;
}

/* By saga and step, not by the reservation's number: its answer may never have arrived. */
static enum skald_rc
release(struct skald_command *cmd, struct pg_conn *tx, struct skald_reply *reply,
	void *ctx, struct skald_err *err)
{
	struct shop_command c;
	struct skald_rows *rows = NULL;
	enum skald_rc rc = shop_command_read(ctx, cmd, "", &c, reply, err);
	const struct skald_param params[] = { skald_param_text(c.order.saga_id),
		skald_param_text(c.step) };

	if (rc || c.is_refused)
		return rc;
	rc = skald_conn_query(tx,
		"WITH gone AS (DELETE FROM public.reservation"
		"  WHERE saga_id = $1 AND step = $2 RETURNING order_id, sku, quantity),"
		" back AS (UPDATE public.stock SET on_hand = on_hand + g.quantity"
		"  FROM gone AS g WHERE stock.sku = g.sku)"
		" SELECT order_id FROM gone",
		params, 2, &rows, err);
	if (!rc)
		rc = skald_reply_success(reply, NULL);
	if (!rc && skald_rows_count(rows) > 0) {
		c.effect.order_id = skald_rows_get(rows, 0, 0).data;
		rc = shop_command_done(ctx, &c, cmd, tx, err);
	}
	skald_rows_free(rows);
	return rc;
}

int
main(int argc, char **argv)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_service *svc = NULL;
	struct shop_trouble trouble = { 0 };

	if (skald_service_create(&svc, "inventory", argc, argv, &err) ||
		shop_trouble_init(&trouble, svc, &err) ||
		skald_service_setup(svc, tables, &err) ||
		skald_service_commands(svc, "inventory.commands", &err) ||
		skald_service_on_command(
			svc, "inventory.reserve", reserve, &trouble, &err) ||
		skald_service_on_command(
			svc, "inventory.release", release, &trouble, &err))
		return skald_service_fail(svc, &err);
	trouble.emit_topic = skald_service_flag(svc, "--emit", "");
	return skald_service_run(svc);
}
