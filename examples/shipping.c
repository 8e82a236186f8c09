/*
 * shipping.c - skald-example-shipping: ships what was ordered, each order once.
 *
 * An order without a saga by its event, shop.order.placed from shop.orders; an
 * article that the catalogue does not know is a dead letter, until a person adds it
 * and replays. An order with a saga by the saga's command, shipping.ship from
 * shipping.commands, answered with the tracking number or `failure` no_sku.
 * --emit TOPIC   where events go (shop.shipments; "" for nowhere); trouble of shop.h
 */
#include "examples/shop.h"

static const char tables[] = SHOP_LEDGER
	"CREATE TABLE IF NOT EXISTS public.catalogue (sku text PRIMARY KEY);"
	"INSERT INTO public.catalogue VALUES ('lamp'), ('chair'), ('table'), ('rug'),"
	" ('mirror') ON CONFLICT DO NOTHING;"
	"CREATE TABLE IF NOT EXISTS public.shipment (order_id text NOT NULL,"
	" sku text NOT NULL, quantity int NOT NULL, message_id text NOT NULL,"
	" saga_id uuid);"
	"CREATE INDEX IF NOT EXISTS shipment_order ON public.shipment (order_id);";

/* Data from outside: checked here, refused with field and rule. */
static enum skald_rc
read_order(struct skald_slice data, struct shop_order *order, bool *has_saga,
	struct skald_err *err)
{
	struct skald_json root, saga;

	if (skald_json_parse(data, 65536, 16, &root, err) ||
		shop_field(root, "order_id", SKALD_JSON_STRING, order->order_id, err) ||
		shop_field(root, "sku", SKALD_JSON_STRING, order->sku, err) ||
		shop_field(root, "quantity", SKALD_JSON_NUMBER, order->quantity, err) ||
		shop_field(root, "amount", SKALD_JSON_NUMBER, order->amount, err))
		return SKALD_REJECT;
	*has_saga = skald_json_member(root, "saga_id", &saga);
	return SKALD_OK;
}

/* *is_new = false: another message announced this order before. REJECT: no such article. */
static enum skald_rc
ship(struct pg_conn *tx, const struct shop_effect *effect, const struct shop_order *order,
	bool *is_new, struct skald_err *err)
{
	const struct skald_param params[] = { skald_param_text(order->order_id),
		skald_param_text(order->sku), skald_param_text(order->quantity),
		skald_param_text(effect->message_id), skald_param_text(effect->saga_id) };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald_conn_query(tx,
		"WITH known AS (SELECT sku FROM public.catalogue WHERE sku = $2),"
		" shipped AS (INSERT INTO public.shipment"
		"  SELECT $1, sku, $3::int, $4, $5::uuid"
		"  FROM known WHERE NOT EXISTS (SELECT FROM public.shipment"
		"   WHERE order_id = $1 AND message_id <> $4"
		"    AND saga_id IS NOT DISTINCT FROM $5::uuid) RETURNING 1)"
		" SELECT (SELECT count(*) FROM known), (SELECT count(*) FROM shipped)",
		params, 5, &rows, err);
	if (rc)
		return rc;
	if (skald_rows_int(rows, 0, 0, 0) == 0)
		rc = skald_fail(err, SKALD_REJECT, "shop", "no_sku",
			"sku: the catalogue has no article '%s'", order->sku);
	*is_new = skald_rows_int(rows, 0, 1, 0) == 1;
	skald_rows_free(rows);
	return rc;
}

static enum skald_rc
placed(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	const struct skald_context *context = skald_context_current();
	struct shop_order order;
	const struct shop_effect effect = { NULL, "ship", "action", order.order_id,
		order.amount, context->causation_id, context->correlation_id };
	bool is_new = false, has_saga = false;
	enum skald_rc rc = read_order(skald_delivery_value(d), &order, &has_saga, err);

	if (!rc && !has_saga)
		rc = ship(tx, &effect, &order, &is_new, err);
	if (rc || !is_new)
		return rc;
	rc = shop_ledger_add(tx, &effect, err);
	if (!rc)
		rc = shop_announce(ctx, tx, "shop.order.shipped", order.order_id,
			skald_delivery_value(d), err);
	if (!rc)
		rc = shop_trouble(ctx, err);
	if (!rc)
		shop_effect_print(&effect);
	return rc;
}

static enum skald_rc
ship_command(struct skald_command *cmd, struct pg_conn *tx, struct skald_reply *reply,
	void *ctx, struct skald_err *err)
{
	struct shop_command c;
	bool is_new = false;
	enum skald_rc rc =
		shop_command_read(ctx, cmd, "order_id sku quantity", &c, reply, err);

	if (rc || c.is_refused)
		return rc;
	rc = ship(tx, &c.effect, &c.order, &is_new, err);
	if (!rc)
		rc = skald_reply_success(
			reply, "{\"tracking\":\"t-%.8s\"}", c.order.saga_id + 28);
	return rc || !is_new ? rc : shop_command_done(ctx, &c, cmd, tx, err);
}

int
main(int argc, char **argv)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_service *svc = NULL;
	struct shop_trouble dock = { 0 };

	if (skald_service_create(&svc, "shipping", argc, argv, &err) ||
		shop_trouble_init(&dock, svc, &err) ||
		skald_service_setup(svc, tables, &err) ||
		skald_service_events(svc, "shop.orders", &err) ||
		skald_service_on_event(svc, "shop.order.placed", placed, &dock, &err) ||
		skald_service_commands(svc, "shipping.commands", &err) ||
		skald_service_on_command(svc, "shipping.ship", ship_command, &dock, &err))
		return skald_service_fail(svc, &err);
	dock.emit_topic = skald_service_flag(svc, "--emit", "shop.shipments");
	return skald_service_run(svc);
}
