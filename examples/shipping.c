/*
 * shipping.c - skald-example-shipping: ships what was ordered, each order once.
 *
 * Consumes shop.order.placed from shop.orders; in one transaction writes the
 * shipment, the ledger and the event shop.order.shipped. An article that the
 * catalogue does not know is a dead letter, until a person adds it and replays.
 * --emit TOPIC   where shop.order.shipped goes (shop.shipments; "" for nowhere)
 * and the trouble of shop.h.
 */
#include "examples/shop.h"

struct dock {
	struct shop_trouble trouble;
	const char *emit_topic;
};

static const char tables[] = SHOP_LEDGER
	"CREATE TABLE IF NOT EXISTS public.catalogue (sku text PRIMARY KEY);"
	"INSERT INTO public.catalogue VALUES ('lamp'), ('chair'), ('table'), ('rug'),"
	" ('mirror') ON CONFLICT DO NOTHING;"
	"CREATE TABLE IF NOT EXISTS public.shipment (order_id text NOT NULL,"
	" sku text NOT NULL, quantity int NOT NULL, message_id text NOT NULL);"
	"CREATE INDEX IF NOT EXISTS shipment_order ON public.shipment (order_id);";

struct order {
	char order_id[SHOP_FIELD_BYTES], sku[SHOP_FIELD_BYTES];
	char amount[SHOP_FIELD_BYTES], quantity[SHOP_FIELD_BYTES];
};

/* Data from outside: checked here, refused with field and rule. */
static enum skald_rc
read_order(struct skald_slice data, struct order *order, struct skald_err *err)
{
	struct skald_json root;

	if (skald_json_parse(data, 65536, 16, &root, err) ||
		shop_field(root, "order_id", SKALD_JSON_STRING, order->order_id, err) ||
		shop_field(root, "sku", SKALD_JSON_STRING, order->sku, err) ||
		shop_field(root, "quantity", SKALD_JSON_NUMBER, order->quantity, err) ||
		shop_field(root, "amount", SKALD_JSON_NUMBER, order->amount, err))
		return SKALD_REJECT;
	return SKALD_OK;
}

/* *is_new = false: another message announced this order before. */
static enum skald_rc
ship(struct pg_conn *tx, const struct order *order, const char *message_id, bool *is_new,
	struct skald_err *err)
{
	const struct skald_param params[] = { skald_param_text(order->order_id),
		skald_param_text(order->sku), skald_param_text(order->quantity),
		skald_param_text(message_id) };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald_conn_query(tx,
		"WITH known AS (SELECT sku FROM public.catalogue WHERE sku = $2),"
		" shipped AS (INSERT INTO public.shipment SELECT $1, sku, $3::int, $4"
		"  FROM known WHERE NOT EXISTS (SELECT FROM public.shipment"
		"   WHERE order_id = $1 AND message_id <> $4) RETURNING 1)"
		" SELECT (SELECT count(*) FROM known), (SELECT count(*) FROM shipped)",
		params, 4, &rows, err);
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
	struct dock *dock = ctx;
	struct order order;
	const struct shop_effect effect = { "ship", "action", order.order_id,
		order.amount, context->causation_id, context->correlation_id };
	struct skald_msg msg = SKALD_MSG_INIT;
	bool is_new = false;
	enum skald_rc rc = read_order(skald_delivery_value(d), &order, err);

	if (!rc)
		rc = ship(tx, &order, effect.message_id, &is_new, err);
	if (rc || !is_new)
		return rc;
	msg.topic = dock->emit_topic;
	msg.type = "shop.order.shipped";
	msg.key = skald_slice_text(order.order_id);
	msg.data = skald_delivery_value(d);
	rc = shop_ledger_add(tx, &effect, err);
	for (int n = 1 + shop_happens(&dock->trouble, dock->trouble.duplicate);
		n > 0 && !rc && *dock->emit_topic; n--)
		rc = skald_outbox_add(tx, &msg, NULL, err);
	if (!rc)
		rc = shop_trouble(&dock->trouble, err);
	if (!rc)
		shop_effect_print(&effect);
	return rc;
}

int
main(int argc, char **argv)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_service *svc = NULL;
	struct dock dock = { .emit_topic = "" };

	if (skald_service_create(&svc, "shipping", argc, argv, &err) ||
		shop_trouble_init(&dock.trouble, svc, &err) ||
		skald_service_setup(svc, tables, &err) ||
		skald_service_events(svc, "shop.orders", &err) ||
		skald_service_on_event(svc, "shop.order.placed", placed, &dock, &err))
		return skald_service_fail(svc, &err);
	dock.emit_topic = skald_service_flag(svc, "--emit", "shop.shipments");
	return skald_service_run(svc);
}
