/*
 * order.c - skald-example-order: places orders, each with its event and its saga,
 * in one transaction of its own; of what rolls back neither ever happens.
 *
 * The saga lives in the same database, so it is started by a function call; where
 * no definition of that name is deployed, the event is all there is.
 *
 * --rate N       orders a second (20)
 * --count N      transactions in all, rolled back ones included (0: no end)
 * --rollback R   share of transactions that roll back at their end (0)
 * --saga NAME    started for each order (order); "" for none
 * --prefix P     of order ids (o-); and the trouble of shop.h.
 */
#include "examples/shop.h"

#include <stdlib.h>

struct desk {
	struct shop_trouble trouble;
	double rate, count, rollback, tried, opened_at_ms;
	const char *prefix, *saga;
};

static const char tables[] = SHOP_LEDGER
	"CREATE SEQUENCE IF NOT EXISTS public.order_number;"
	"CREATE TABLE IF NOT EXISTS public.orders (order_id text PRIMARY KEY,"
	" sku text NOT NULL, quantity int NOT NULL, amount numeric NOT NULL);";

/* The order's row and its saga; the data of its event comes back as JSON. */
static const char insert_order[] =
	"WITH placed AS (INSERT INTO public.orders (order_id, sku, quantity, amount)"
	" VALUES ($1 || nextval('public.order_number'),"
	"  (ARRAY['lamp','chair','table','rug','mirror'])[1 + $2::int % 5],"
	"  1 + $2::int % 3, (990 + $2::int % 9000) / 100.0)"
	" RETURNING order_id, sku, quantity, amount),"
	"begun AS (SELECT order_id, skald.saga_start(name => $3, key => order_id,"
	"  input => to_jsonb(placed), correlation_id => order_id) AS saga_id FROM placed"
	"  WHERE EXISTS (SELECT FROM skald.saga_definitions WHERE name = $3 AND current))"
	" SELECT order_id, amount::text, json_strip_nulls(json_build_object("
	"  'order_id', order_id, 'sku', sku, 'quantity', quantity, 'amount', amount,"
	"  'saga_id', saga_id))::text, saga_id::text"
	"  FROM placed LEFT JOIN begun USING (order_id)";

static enum skald_rc
place(struct desk *desk, struct pg_conn *tx, struct shop_effect *effect,
	struct skald_rows **rows, char message_id[SKALD_UUID_TEXT_BYTES],
	struct skald_err *err)
{
	struct skald_msg msg = SKALD_MSG_INIT;
	struct skald_uuid id = { { 0 } };
	char dice[24];
	const struct skald_param params[] = { skald_param_text(desk->prefix),
		skald_param_int(nrand48(desk->trouble.dice) % 100000, dice),
		skald_param_text(desk->saga) };
	enum skald_rc rc = skald_conn_query(tx, insert_order, params, 3, rows, err);

	if (rc)
		return rc;
	effect->order_id = skald_rows_get(*rows, 0, 0).data;
	effect->amount = skald_rows_get(*rows, 0, 1).data;
	effect->saga_id = skald_rows_get(*rows, 0, 3).data;
	effect->correlation_id = effect->order_id;
	msg.topic = "shop.orders";
	msg.type = "shop.order.placed";
	msg.key = skald_rows_get(*rows, 0, 0);
	msg.data = skald_rows_get(*rows, 0, 2);
	msg.correlation_id = effect->correlation_id;
	rc = skald_outbox_add(tx, &msg, &id, err);
	skald_uuid_format(id, message_id);
	effect->message_id = message_id;
	if (!rc && shop_happens(&desk->trouble, desk->trouble.duplicate))
		rc = skald_outbox_add(tx, &msg, NULL, err);
	if (!rc)
		rc = shop_ledger_add(tx, effect, err);
	if (!rc)
		rc = shop_trouble(&desk->trouble, err);
	return rc;
}

/* One transaction; runs on a thread and session of its own. */
static enum skald_rc
turn(struct pg_conn *conn, int64_t *idle_ms, void *ctx, struct skald_err *err)
{
	struct desk *desk = ctx;
	struct shop_effect effect = { .step = "order", .op = "action" };
	char message_id[SKALD_UUID_TEXT_BYTES];
	struct skald_rows *rows = NULL;
	bool is_kept = !shop_happens(&desk->trouble, desk->rollback);
	enum skald_rc rc;

	*idle_ms = 200;
	if (desk->rate <= 0 || (desk->count > 0 && desk->tried >= desk->count))
		return SKALD_OK;
	rc = skald_conn_query(conn, "BEGIN", NULL, 0, NULL, err);
	if (!rc)
		rc = place(desk, conn, &effect, &rows, message_id, err);
	if (!rc)
		rc = skald_conn_query(
			conn, is_kept ? "COMMIT" : "ROLLBACK", NULL, 0, NULL, err);
	if (!rc && is_kept)
		shop_effect_print(&effect);
	if (!rc) {
		double due_at_ms = desk->opened_at_ms + ++desk->tried * 1000 / desk->rate;
		double wait_ms = due_at_ms - (double)skald_mono_ms();

		*idle_ms = wait_ms > 0 ? (int64_t)wait_ms : 0;
	}
	skald_rows_free(rows);
	return rc;
}

int
main(int argc, char **argv)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_service *svc = NULL;
	struct desk desk = { .opened_at_ms = (double)skald_mono_ms() };

	if (skald_service_create(&svc, "order", argc, argv, &err) ||
		shop_trouble_init(&desk.trouble, svc, &err) ||
		shop_number(svc, "--rate", 20, 1e6, &desk.rate, &err) ||
		shop_number(svc, "--count", 0, 1e15, &desk.count, &err) ||
		shop_number(svc, "--rollback", 0, 1, &desk.rollback, &err) ||
		skald_service_setup(svc, tables, &err) ||
		skald_service_loop(svc, turn, &desk, &err))
		return skald_service_fail(svc, &err);
	desk.prefix = skald_service_flag(svc, "--prefix", "o-");
	desk.saga = skald_service_flag(svc, "--saga", "order");
	return skald_service_run(svc);
}
