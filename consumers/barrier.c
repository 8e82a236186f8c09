/*
 * barrier.c - the barrier by itself, for programs that have their own consumer and
 * their own transaction: the functions of sql/functions/barrier.sql.
 */
#include "consumers/own.h"

#include <stdlib.h>

#include "base/limits.h"

/* Every header, each as JSON: names and values of a record that Kafka delivered. */
#define HEADERS_BYTES_MAX (256 * 1024)

static const char *const verdict_names[] = { "run", "query", "pending", "duplicate",
	"empty", "refused" };

const char *
skald__verdict_name(enum skald_verdict verdict)
{
	return verdict_names[verdict];
}

bool
skald__verdict_read(struct skald_slice text, enum skald_verdict *verdict)
{
	for (unsigned i = 0; i < sizeof(verdict_names) / sizeof(verdict_names[0]); i++)
		if (skald_slice_is_text(text, verdict_names[i])) {
			*verdict = (enum skald_verdict)i;
			return true;
		}
	return false;
}

/* The headers as a parameter that borrows json, which is the caller's to free. */
static enum skald_rc
headers_param(struct skald_headers headers, struct skald_buf *json,
	struct skald_param *param, struct skald_err *err)
{
	skald_buf_init(json, HEADERS_BYTES_MAX);
	skald_headers_json(headers, json);
	if (json->failed)
		return skald_fail(err, SKALD_REJECT, "skald", "SK007",
			"headers: too large, or out of memory");
	*param = skald_param_text(json->data);
	return SKALD_OK;
}

static enum skald_rc
check_conn(struct pg_conn *conn, bool wants_transaction, struct skald_err *err)
{
	if (skald_conn_is_pipeline(conn))
		return skald_fail(err, SKALD_REJECT, "skald", "SK006",
			"conn: must not be in pipeline mode: the answer is needed");
	if (wants_transaction && !skald_sql_is_in_transaction(conn))
		return skald_fail(err, SKALD_REJECT, "skald", "SK006",
			"conn: must be inside a transaction: the work belongs to its "
			"commit");
	return SKALD_OK;
}

enum skald_rc
skald_participate(struct pg_conn *conn, struct skald_headers headers,
	const char *participant, enum skald_verdict *verdict, struct skald_err *err)
{
	struct skald_buf json;
	struct skald_param params[2];
	struct skald_rows *rows = NULL;
	enum skald_rc rc = check_conn(conn, true, err);

	if (rc)
		return rc;
	rc = headers_param(headers, &json, &params[0], err);
	if (rc)
		goto out;
	params[1] = skald_param_text(participant);
	rc = skald_conn_query(conn,
		"SELECT skald.participate(headers => $1::jsonb, participant => $2)",
		params, 2, &rows, err);
	if (rc)
		goto out;
	if (!skald__verdict_read(skald_rows_get(rows, 0, 0), verdict))
		rc = skald_fail(err, SKALD_FATAL, "skald", "",
			"participate: a verdict this version does not know");
out:
	skald_rows_free(rows);
	skald_buf_done(&json);
	return rc;
}

enum skald_rc
skald_reply(struct pg_conn *conn, struct skald_headers headers, const char *participant,
	enum skald_outcome outcome, const char *data, struct skald_uuid *id,
	struct skald_err *err)
{
	struct skald_buf json;
	struct skald_param params[4];
	struct skald_rows *rows = NULL;
	enum skald_rc rc = check_conn(conn, true, err);

	if (rc)
		return rc;
	rc = headers_param(headers, &json, &params[0], err);
	if (rc)
		goto out;
	params[1] = skald_param_text(participant);
	params[2] = skald_param_text(skald__outcome_name(outcome));
	params[3] = skald_param_text(data);
	rc = skald_conn_query(conn,
		"SELECT skald.reply(headers => $1::jsonb, participant => $2,"
		" outcome => $3, data => $4::jsonb)",
		params, 4, &rows, err);
	if (!rc && id && !skald_rows_uuid(rows, 0, 0, id))
		rc = skald_fail(err, SKALD_FATAL, "skald", "", "reply: no id came back");
out:
	skald_rows_free(rows);
	skald_buf_done(&json);
	return rc;
}

enum skald_rc
skald_reply_by_key(struct pg_conn *conn, const char *key, const char *participant,
	enum skald_outcome outcome, const char *data, bool *answered,
	struct skald_err *err)
{
	struct skald_param params[4];
	struct skald_rows *rows = NULL;
	enum skald_rc rc = check_conn(conn, false, err);

	if (rc)
		return rc;
	params[0] = skald_param_text(key);
	params[1] = skald_param_text(participant);
	params[2] = skald_param_text(skald__outcome_name(outcome));
	params[3] = skald_param_text(data);
	rc = skald_conn_query(conn,
		"SELECT skald.reply_by_key(idempotency_key => $1, participant => $2,"
		" outcome => $3, data => $4::jsonb)",
		params, 4, &rows, err);
	if (!rc && answered)
		*answered = skald_rows_get(rows, 0, 0).data != NULL;
	skald_rows_free(rows);
	return rc;
}

enum skald_rc
skald_command_action_reply(const struct skald_command *cmd, struct pg_conn *tx,
	struct skald_buf *out, bool *found, struct skald_err *err)
{
	struct skald_buf json;
	struct skald_param params[2];
	struct skald_rows *rows = NULL;
	struct skald_slice data;
	enum skald_rc rc;

	rc = headers_param(skald_command_headers(cmd), &json, &params[0], err);
	if (rc) { /* they were small enough to come here */
		rc = skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
		goto out;
	}
	params[1] = skald_param_text(cmd->participant);
	rc = skald_conn_query(tx,
		"SELECT skald.action_reply(headers => $1::jsonb, participant => $2)",
		params, 2, &rows, err);
	if (rc)
		goto out;
	data = skald_rows_get(rows, 0, 0);
	*found = data.data != NULL;
	skald_buf_add_slice(out, data);
	if (out->failed)
		rc = skald_fail(err, SKALD_RETRY, "skald", "53200",
			"could not copy the action's answer: out of memory");
out:
	skald_rows_free(rows);
	skald_buf_done(&json);
	return rc;
}
