/*
 * query.c - one statement at a time. Statements are prepared on second use (preparing
 * is a round trip of its own) and found again by the address of their text; a copy
 * tells when an address was used for another text.
 */
#include "sql/own.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

/* --- the cache of statements --------------------------------------------------------------- */

static size_t
slot_of(const char *address)
{
	return (size_t)(((uintptr_t)address >> 3) * UINT64_C(0x9E3779B97F4A7C15) >> 32) %
	       SKALD__SLOTS;
}

struct skald__statement *
skald__statement_get(struct skald_sql *sql, const char *text)
{
	size_t i = slot_of(text);
	struct skald__statement *st;

	/* never full: at most SKALD__STATEMENTS_MAX of the slots are taken */
	for (st = &sql->slots[i]; st->address;
		st = &sql->slots[i = (i + 1) % SKALD__SLOTS])
		if (st->address == text)
			break;
	if (st->address && strcmp(st->text, text) == 0)
		return st;
	if (!st->address) {
		if (sql->statement_count == SKALD__STATEMENTS_MAX)
			return NULL;
		st->text = strdup(text);
		if (!st->text)
			return NULL;
		st->address = text;
		sql->statement_count++;
	} else {
		char *copy = strdup(text);

		if (!copy)
			return NULL;
		free(st->text);
		st->text = copy;
	}
	skald__statement_forget(sql, st);
	return st;
}

void
skald__statement_forget(struct skald_sql *sql, struct skald__statement *st)
{
	st->number = sql->next_number++;
	st->is_prepared = false;
	st->was_used = false;
}

void
skald__statement_name(const struct skald__statement *st, char dst[SKALD__NAME_BYTES])
{
	(void)snprintf(dst, SKALD__NAME_BYTES, "s%u", st->number);
}

bool
skald__statement_is_stale(const PGresult *res)
{
	const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);

	/* "cached plan must not change result type": a migration ran meanwhile */
	return state && (strcmp(state, "0A000") == 0 || strcmp(state, "26000") == 0);
}

/* --- running ------------------------------------------------------------------------------- */

static bool
is_good(const PGresult *res)
{
	ExecStatusType status = PQresultStatus(res);

	return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

static enum skald_rc
prepare(struct skald_sql *sql, struct skald__statement *st,
	const struct skald__params *params, unsigned count, struct skald_err *err)
{
	char name[SKALD__NAME_BYTES];
	enum skald_rc rc = SKALD_OK;
	PGresult *res;

	skald__statement_name(st, name);
	res = PQprepare(sql->conn, name, st->text, (int)count, params->types);
	if (is_good(res))
		st->is_prepared = true;
	else
		rc = skald__fail_session(sql, res, err);
	PQclear(res);
	return rc;
}

enum skald_rc
skald_sql_query(struct skald_sql *sql, const char *statement,
	const struct skald_param *params, unsigned count, bool binary_results,
	struct skald_rows **rows, struct skald_err *err)
{
	struct skald__statement *st;
	struct skald__params p;
	char name[SKALD__NAME_BYTES];
	bool is_first;
	enum skald_rc rc;
	PGresult *res;

	SKALD_ASSERT(PQpipelineStatus(sql->conn) == PQ_PIPELINE_OFF);
	skald__params_fill(&p, params, count);
	st = skald__statement_get(sql, statement);
	is_first = st && !st->is_prepared && !st->was_used;
	if (is_first) {
		st->was_used = true;
	} else if (st && !st->is_prepared) {
		rc = prepare(sql, st, &p, count, err);
		if (rc)
			return rc;
	}
	if (st && !is_first) {
		skald__statement_name(st, name);
		res = PQexecPrepared(sql->conn, name, (int)count, p.values, p.lengths,
			p.formats, binary_results);
	} else {
		res = PQexecParams(sql->conn, statement, (int)count, p.types, p.values,
			p.lengths, p.formats, binary_results);
	}
	if (is_good(res))
		return skald__rows_take(&res, rows, err);
	rc = skald__fail_session(sql, res, err);
	if (st && !is_first && skald__statement_is_stale(res)) {
		skald__statement_forget(sql, st);
		rc = SKALD_RETRY;
	}
	PQclear(res);
	return rc;
}

enum skald_rc
skald_sql_exec(struct skald_sql *sql, const char *script, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;
	PGresult *res;

	SKALD_ASSERT(PQpipelineStatus(sql->conn) == PQ_PIPELINE_OFF);
	res = PQexec(sql->conn, script);
	if (!is_good(res) && PQresultStatus(res) != PGRES_EMPTY_QUERY)
		rc = skald__fail_session(sql, res, err);
	PQclear(res);
	return rc;
}

void
skald_sql_rollback(struct skald_sql *sql)
{
	struct skald_err ignored = SKALD_ERR_INIT;

	if (PQpipelineStatus(sql->conn) != PQ_PIPELINE_OFF &&
		skald_pipe_end(sql, &ignored) != SKALD_OK && !skald_sql_is_open(sql))
		return;
	if (!skald_sql_is_open(sql) || PQtransactionStatus(sql->conn) == PQTRANS_IDLE)
		return;
	/* a failure here is the connection's, and shows at its next use */
	(void)!skald_sql_exec(sql, "ROLLBACK", &ignored);
}

/* --- a connection that is not ours --------------------------------------------------------- */

enum skald_rc
skald_conn_query(struct pg_conn *conn, const char *statement,
	const struct skald_param *params, unsigned count, struct skald_rows **rows,
	struct skald_err *err)
{
	struct skald__params p;
	enum skald_rc rc;
	PGresult *res;

	if (PQpipelineStatus(conn) != PQ_PIPELINE_OFF)
		return skald_fail(err, SKALD_REJECT, "skald", "SK001",
			"conn: must not be in pipeline mode");
	skald__params_fill(&p, params, count);
	res = PQexecParams(
		conn, statement, (int)count, p.types, p.values, p.lengths, p.formats, 0);
	if (is_good(res))
		return skald__rows_take(&res, rows, err);
	rc = skald__fail_result(conn, res, err);
	PQclear(res);
	return rc;
}

bool
skald_conn_is_pipeline(struct pg_conn *conn)
{
	return PQpipelineStatus(conn) != PQ_PIPELINE_OFF;
}

enum skald_rc
skald_conn_send(struct pg_conn *conn, const char *statement,
	const struct skald_param *params, unsigned count, struct skald_err *err)
{
	struct skald__params p;

	SKALD_ASSERT(PQpipelineStatus(conn) != PQ_PIPELINE_OFF);
	skald__params_fill(&p, params, count);
	if (!PQsendQueryParams(conn, statement, (int)count, p.types, p.values, p.lengths,
		    p.formats, 0))
		return skald__fail_result(conn, NULL, err);
	return SKALD_OK;
}
