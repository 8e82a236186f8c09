/*
 * saga_service.c - a participant as one would write it: one statement a command,
 * prepared once, and an answer with a number of it.
 *
 *	skald-bench-saga-service NAME --topic TOPIC --mode insert|hot [flags of a service]
 *
 * insert  INSERT of a row, its number is the answer
 * hot     UPDATE of one of ten rows
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <libpq-fe.h>

#include <skald/skald.h>

struct work {
	bool is_hot;
	int prepared_pid; /* of the session that has our statement */
};

static const char tables[] =
	"CREATE TABLE IF NOT EXISTS public.effects (id bigint GENERATED ALWAYS AS "
	"IDENTITY"
	" PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), saga_id uuid NOT NULL,"
	" order_id bigint NOT NULL, amount numeric NOT NULL);"
	"CREATE TABLE IF NOT EXISTS public.counter (id int PRIMARY KEY, n bigint NOT "
	"NULL);"
	"INSERT INTO public.counter SELECT i, 0 FROM generate_series(0, 9) AS i"
	" ON CONFLICT DO NOTHING;";

static enum skald_rc
failed(PGconn *tx, struct skald_err *err)
{
	return skald_fail(err, SKALD_RETRY, "pg", "", "%s", PQerrorMessage(tx));
}

static enum skald_rc
prepare(struct work *work, PGconn *tx, struct skald_err *err)
{
	PGresult *res;
	bool is_prepared;

	if (PQbackendPID(tx) == work->prepared_pid)
		return SKALD_OK;
	res = PQprepare(tx, "bench",
		work->is_hot ? "UPDATE public.counter SET n = n + 1"
			       " WHERE id = $2::bigint % 10 AND $1::uuid IS NOT NULL"
			       " AND $3::numeric >= 0 RETURNING n"
			     : "INSERT INTO public.effects (saga_id, order_id, amount)"
			       " VALUES ($1, $2, $3) RETURNING id",
		0, NULL);
	is_prepared = PQresultStatus(res) == PGRES_COMMAND_OK;
	PQclear(res);
	if (!is_prepared)
		return failed(tx, err);
	work->prepared_pid = PQbackendPID(tx);
	return SKALD_OK;
}

static enum skald_rc
number(struct skald_json data, const char *name, char *text, size_t room,
	struct skald_err *err)
{
	struct skald_json value;

	if (!skald_json_member(data, name, &value) || value.kind != SKALD_JSON_NUMBER ||
		!skald_slice_copy(value.text, text, room))
		return skald_fail(
			err, SKALD_REJECT, "bench", "", "%s: must be a number", name);
	return SKALD_OK;
}

static enum skald_rc
run(struct skald_command *cmd, struct pg_conn *conn, struct skald_reply *reply, void *ctx,
	struct skald_err *err)
{
	PGconn *tx = (PGconn *)conn;
	char saga[40], order[32], amount[32];
	const char *values[] = { saga, order, amount };
	enum skald_rc rc;
	PGresult *res;

	(void)skald_slice_copy(skald_command_saga_id(cmd), saga, sizeof(saga));
	rc = number(skald_command_data(cmd), "order", order, sizeof(order), err);
	if (!rc)
		rc = number(
			skald_command_data(cmd), "amount", amount, sizeof(amount), err);
	if (!rc)
		rc = prepare(ctx, tx, err);
	if (rc)
		return rc;
	res = PQexecPrepared(tx, "bench", 3, values, NULL, NULL, 0);
	if (PQresultStatus(res) != PGRES_TUPLES_OK || PQntuples(res) != 1)
		rc = failed(tx, err);
	else
		rc = skald_reply_success(reply, "{\"number\":%s}", PQgetvalue(res, 0, 0));
	PQclear(res);
	return rc;
}

int
main(int argc, char **argv)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_service *svc = NULL;
	struct work work = { .is_hot = false };
	const char *name = argc > 1 ? argv[1] : "bench";

	if (skald_service_create(&svc, name, argc - 1, argv + 1, &err))
		return skald_service_fail(svc, &err);
	work.is_hot = strcmp(skald_service_flag(svc, "--mode", "insert"), "hot") == 0;
	if (skald_service_setup(svc, tables, &err) ||
		skald_service_commands(
			svc, skald_service_flag(svc, "--topic", "bench"), &err) ||
		skald_service_on_command(svc, "bench.do", run, &work, &err) ||
		skald_service_on_command(svc, "bench.undo", run, &work, &err))
		return skald_service_fail(svc, &err);
	return skald_service_run(svc);
}
