/*
 * ring.c - retention: empties the oldest leaf of the outbox, moves the sequence on
 * when nothing else does, sweeps what other tables keep for a while only, and drops a
 * slot that could not go before.
 *
 * The lock comes first and the look after it, both inside sql/functions/relay.sql:
 * a transaction that commits between a look and a lock would lose its rows. Until
 * both succeed the leaf stays as it is; a ring that comes round is no error.
 */
#include "outbox/own.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/failpoint.h"
#include "base/log.h"

static const char sql_tidy[] = "SELECT skald.relay_tidy($1::bigint)";
static const char sql_sweep[] =
	"SELECT skald.relay_sweep($1::bigint, $2::interval, $3::interval, $4::interval,"
	" $5::interval)";
static const char sql_oldest[] = "SELECT leaf::bigint, since::text FROM "
				 "skald.relay_ring_oldest($1::interval, $2::int)";
static const char sql_lock[] =
	"SELECT skald.relay_leaf_lock($1::int, $2::xid8, $3::interval)";
static const char sql_truncate[] =
	"SELECT skald.relay_leaf_truncate($1::int, $2::xid8, $3::interval)";
static const char sql_move[] = "SELECT skald.relay_ring_move($1::interval)";

/* 0, for ever, is SQL NULL. */
static struct skald_param
interval_param(int64_t ms, char dst[static 32])
{
	(void)snprintf(dst, 32, "%" PRId64 " ms", ms);
	return skald_param_text(ms > 0 ? dst : NULL);
}

static struct skald_param
retention_param(const struct skald_relay *r, char dst[static 32])
{
	return interval_param(r->retention_ms, dst);
}

/* A lock that did not come in time is nobody's trouble: another turn tries again. */
static enum skald_rc
forgive(struct skald_relay *r, enum skald_rc rc, const struct skald_err *err,
	bool *is_busy)
{
	*is_busy = rc && skald_err_is_conflict(err) && skald_sql_is_open(r->work);
	if (!*is_busy)
		return rc;
	skald_sql_rollback(r->work);
	return SKALD_OK;
}

static enum skald_rc
find_oldest(struct skald_relay *r, struct skald_err *err)
{
	char retention[32], busy[24];
	struct skald_param params[] = { retention_param(r, retention),
		skald_param_int(r->ring.busy, busy) };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald__tick_query(r, sql_oldest, params, 2, &rows, err);
	if (rc)
		return rc;
	r->ring.leaf = skald_rows_int(rows, 0, 0, -1);
	r->ring.is_ready = r->ring.leaf >= 0 && skald_rows_get(rows, 0, 1).data &&
			   skald_slice_copy(skald_rows_get(rows, 0, 1), r->ring.since,
				   sizeof(r->ring.since));
	skald_rows_free(rows);
	return SKALD_OK;
}

static enum skald_rc
empty_leaf(struct skald_relay *r, struct skald_err *err)
{
	char leaf[24], retention[32];
	struct skald_param params[] = { skald_param_int(r->ring.leaf, leaf),
		skald_param_text(r->ring.since), retention_param(r, retention) };
	struct skald_rows *rows = NULL;
	bool is_free = false, is_busy;
	enum skald_rc rc;

	rc = skald_sql_exec(r->work, "BEGIN ISOLATION LEVEL READ COMMITTED", err);
	if (!rc)
		rc = skald__tick_query(r, sql_lock, params, 3, &rows, err);
	if (!rc) {
		is_free = skald_rows_bool(rows, 0, 0);
		skald_rows_free(rows);
		rows = NULL;
		if (is_free)
			SKALD_FAILPOINT(relay_after_truncate_check);
	}
	if (!rc && is_free)
		rc = skald__tick_query(r, sql_truncate, params, 3, &rows, err);
	if (!rc)
		rc = skald_sql_exec(r->work, "COMMIT", err);
	if (!rc) {
		if (is_free && skald_rows_bool(rows, 0, 0)) {
			atomic_fetch_add(r->metrics.truncated, 1);
			skald_log(SKALD_LOG_DEBUG,
				"emptied a leaf of the outbox source=%s leaf=%" PRId64,
				r->source, r->ring.leaf);
		}
	}
	skald_rows_free(rows);
	rc = forgive(r, rc, err, &is_busy);
	if (is_busy) /* an open transaction has it: the next one may do meanwhile */
		r->ring.busy |= 1 << r->ring.leaf;
	r->ring.is_ready = false;
	return rc;
}

static enum skald_rc
move_on(struct skald_relay *r, struct skald_err *err)
{
	char retention[32];
	struct skald_param params[] = { retention_param(r, retention) };

	bool is_busy;

	return forgive(
		r, skald__tick_query(r, sql_move, params, 1, NULL, err), err, &is_busy);
}

static enum skald_rc
sweep(struct skald_relay *r, struct skald_err *err)
{
	char term[24], consumed[32], dead_letters[32], audit[32], barrier[32];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		interval_param(r->consumed_ms, consumed),
		interval_param(r->dead_letters_ms, dead_letters),
		interval_param(r->audit_ms, audit),
		interval_param(r->barrier_ms, barrier) };
	bool is_busy;

	return forgive(
		r, skald__tick_query(r, sql_sweep, params, 5, NULL, err), err, &is_busy);
}

enum skald_rc
skald__ring_turn(struct skald_relay *r, struct skald_err *err)
{
	char term[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term) };
	enum skald_rc rc;

	rc = skald__tick_query(r, sql_tidy, params, 1, NULL, err);
	if (!rc)
		rc = sweep(r, err);
	if (!rc)
		rc = skald__park_turn(r, err);
	if (!rc)
		rc = skald__wal_drop_due(r, err);
	if (rc || r->retention_ms <= 0)
		goto out;
	rc = find_oldest(r, err);
	if (rc)
		goto out;
	if (r->ring.is_ready)
		rc = empty_leaf(r, err);
	else
		r->ring.busy = 0; /* once round: try them again */
	if (!rc && r->ring.leaf < 0)
		rc = move_on(r, err);
out:
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_RUNG });
	return rc;
}
