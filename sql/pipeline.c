/*
 * pipeline.c - many statements in one round trip.
 *
 * Each thing sent is remembered in a ring; taking walks the ring and libpq's
 * results side by side. The results of PREPAREs and syncs are consumed on the
 * way, so that the caller sees exactly one result per statement it sent.
 *
 * P1  Between begin and end, ring and server owe the same results in the same order.
 * P2  After a failure the server skips up to the next sync, and so does `failed`.
 */
#include "sql/own.h"

#include <libpq-fe.h>
#include <stdlib.h>

#include "base/assert.h"

#define OPS_ROOM_FIRST 64

static enum skald_rc
push(struct skald_sql *sql, enum skald__op_kind kind, struct skald__statement *st,
	struct skald_err *err)
{
	if (sql->op_count == sql->op_room) {
		size_t room = sql->op_room ? sql->op_room * 2 : OPS_ROOM_FIRST;
		struct skald__op *ops = malloc(room * sizeof(*ops));

		if (!ops)
			return skald_fail(
				err, SKALD_RETRY, "skald", "53200", "out of memory");
		for (size_t i = 0; i < sql->op_count; i++)
			ops[i] = sql->ops[(sql->op_head + i) & (sql->op_room - 1)];
		free(sql->ops);
		sql->ops = ops;
		sql->op_room = room;
		sql->op_head = 0;
	}
	sql->ops[(sql->op_head + sql->op_count++) & (sql->op_room - 1)] =
		(struct skald__op){ kind, st };
	sql->is_unsynced = kind != SKALD__OP_SYNC;
	sql->unflushed_count = kind == SKALD__OP_SYNC ? 0 : sql->unflushed_count + 1;
	return SKALD_OK;
}

enum skald_rc
skald_pipe_begin(struct skald_sql *sql, struct skald_err *err)
{
	SKALD_ASSERT(PQpipelineStatus(sql->conn) == PQ_PIPELINE_OFF);
	sql->op_head = sql->op_count = sql->unflushed_count = 0;
	sql->is_unsynced = false;
	sql->failed = SKALD_OK;
	if (!skald_sql_is_open(sql) || !PQenterPipelineMode(sql->conn))
		return skald__fail_result(sql->conn, NULL, err);
	return SKALD_OK;
}

enum skald_rc
skald_pipe_send(struct skald_sql *sql, const char *statement,
	const struct skald_param *params, unsigned count, bool binary_results,
	struct skald_err *err)
{
	struct skald__statement *st = skald__statement_get(sql, statement);
	struct skald__params p;
	char name[SKALD__NAME_BYTES];
	enum skald_rc rc;
	int sent;

	skald__params_fill(&p, params, count);
	if (st) {
		skald__statement_name(st, name);
		if (!st->is_prepared) {
			if (!PQsendPrepare(
				    sql->conn, name, st->text, (int)count, p.types))
				return skald__fail_result(sql->conn, NULL, err);
			rc = push(sql, SKALD__OP_PREPARE, st, err);
			if (rc)
				return rc;
			st->is_prepared = true; /* taken back should it fail */
		}
		sent = PQsendQueryPrepared(sql->conn, name, (int)count, p.values,
			p.lengths, p.formats, binary_results);
	} else {
		sent = PQsendQueryParams(sql->conn, statement, (int)count, p.types,
			p.values, p.lengths, p.formats, binary_results);
	}
	if (!sent)
		return skald__fail_result(sql->conn, NULL, err);
	return push(sql, SKALD__OP_QUERY, st, err);
}

enum skald_rc
skald_pipe_sync(struct skald_sql *sql, struct skald_err *err)
{
	if (!PQpipelineSync(sql->conn))
		return skald__fail_result(sql->conn, NULL, err);
	return push(sql, SKALD__OP_SYNC, NULL, err);
}

/* Remember the first failure of this segment. */
static void
note_failure(struct skald_sql *sql, const PGresult *res, enum skald_rc rc_or_ok)
{
	enum skald_rc rc;

	if (sql->failed)
		return;
	rc = skald__fail_session(sql, res, &sql->failure);
	sql->failed = rc_or_ok ? rc_or_ok : rc;
}

/* The result of a PREPARE or of a statement, and the NULL that ends it. */
static PGresult *
read_result(struct skald_sql *sql, const struct skald__op *op)
{
	PGresult *res = PQgetResult(sql->conn), *more;
	ExecStatusType status = PQresultStatus(res);

	while (res && (more = PQgetResult(sql->conn)) != NULL)
		PQclear(more);
	if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
		return res;
	if (status != PGRES_PIPELINE_ABORTED || !skald_sql_is_open(sql)) {
		bool is_stale = res && op->statement && skald__statement_is_stale(res);

		note_failure(sql, res, is_stale ? SKALD_RETRY : SKALD_OK);
		if (is_stale && op->statement->is_prepared)
			skald__statement_forget(sql, op->statement);
	}
	if (op->kind == SKALD__OP_PREPARE)
		skald__statement_forget(sql, op->statement);
	PQclear(res);
	return NULL;
}

/* Walk over what the caller does not see; then *res is the next statement's result or NULL. */
static bool
next_result(struct skald_sql *sql, PGresult **res)
{
	*res = NULL;
	while (sql->op_count > 0) {
		struct skald__op op = sql->ops[sql->op_head & (sql->op_room - 1)];

		sql->op_head++;
		sql->op_count--;
		if (op.kind == SKALD__OP_SYNC) {
			PQclear(PQgetResult(sql->conn));
			/* a lost connection stays the answer of everything that follows */
			if (skald_sql_is_open(sql))
				sql->failed = SKALD_OK;
			continue;
		}
		*res = read_result(sql, &op);
		if (op.kind == SKALD__OP_QUERY)
			return true;
		PQclear(*res);
		*res = NULL;
	}
	return false;
}

enum skald_rc
skald_pipe_take(struct skald_sql *sql, struct skald_rows **rows, struct skald_err *err)
{
	PGresult *res;
	bool is_taken;

	if (sql->unflushed_count > 0 && sql->unflushed_count == sql->op_count) {
		/* nothing tells the server yet that an answer is wanted */
		if (!PQsendFlushRequest(sql->conn))
			return skald__fail_result(sql->conn, NULL, err);
		sql->unflushed_count = 0;
	}
	if (PQflush(sql->conn) < 0)
		return skald__fail_result(sql->conn, NULL, err);
	is_taken = next_result(sql, &res);
	SKALD_ASSERT(is_taken); /* taken more often than sent */
	if (res)
		return skald__rows_take(&res, rows, err);
	if (err)
		*err = sql->failure;
	return sql->failed;
}

enum skald_rc
skald_pipe_end(struct skald_sql *sql, struct skald_err *err)
{
	struct skald_err failure = SKALD_ERR_INIT;
	enum skald_rc rc = SKALD_OK;
	PGresult *res;

	if (PQpipelineStatus(sql->conn) == PQ_PIPELINE_OFF)
		return SKALD_OK;
	if (sql->is_unsynced)
		rc = skald_pipe_sync(sql, &failure);
	while (next_result(sql, &res)) {
		if (!res && !rc) {
			rc = sql->failed;
			failure = sql->failure;
		}
		PQclear(res);
	}
	if (!PQexitPipelineMode(sql->conn)) {
		/* A good-bye came where a sync's answer was due: libpq waits for more. */
		sql->is_dead = true;
		if (!rc)
			rc = skald__fail_result(sql->conn, NULL, &failure);
	}
	if (rc && err)
		*err = failure;
	return rc;
}
