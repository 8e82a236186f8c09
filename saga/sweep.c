/*
 * sweep.c - retention: finished sagas go some time after their end, a few at a time.
 *
 * It is the work of whoever serves the first partition of replies: one of all daemons,
 * another one when that dies. Two at once would do no harm: each takes sagas that nobody
 * has locked (orchestrator_sweep in sql/functions/orchestrator.sql).
 */
#include "saga/own.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"

#define SWEEP_MAX     200 /* some 2,000 rows: a batch waits for it */
#define SWEEP_NEXT_MS 50 /* while there are more */
#define SWEEP_IDLE_MS 10000

enum skald_rc
skald__saga_sweep(struct skald_orchestrator *o, int64_t now_ms, struct skald_err *err)
{
	char retention[32], max[24];
	struct skald_param params[2];
	struct skald_rows *rows = NULL;
	int64_t count;
	enum skald_rc rc;

	if (o->conf.retention_ms <= 0 || !o->sql || now_ms < o->sweep_at_ms ||
		!o->reply_topic || !skald__saga_part(o, o->reply_topic, 0))
		return SKALD_OK;
	o->sweep_at_ms = now_ms + SWEEP_IDLE_MS;
	(void)snprintf(
		retention, sizeof(retention), "%" PRId64 " ms", o->conf.retention_ms);
	params[0] = skald_param_text(retention);
	params[1] = skald_param_int(SWEEP_MAX, max);
	rc = skald_sql_query(o->sql,
		"SELECT skald.orchestrator_sweep($1::interval, $2::int)", params, 2,
		false, &rows, err);
	count = rc ? 0 : skald_rows_int(rows, 0, 0, 0);
	if (count > 0)
		skald_log(SKALD_LOG_DEBUG, "swept finished sagas count=%" PRId64, count);
	if (count >= SWEEP_MAX)
		o->sweep_at_ms = now_ms + SWEEP_NEXT_MS;
	skald_rows_free(rows);
	return rc;
}
