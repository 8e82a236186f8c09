/*
 * doctor_outbox.c - doctor: the outbox as it stands, whichever way the relay reads it.
 */
#include "cli/doctor_own.h"

#include <string.h>

#include "base/clock.h"
#include "base/limits.h"

#define WAITING_WARN_S 60
#define ALIVE_S        30 /* it beats while idle, too */

/* clang-format off */
/* the last column: as the migrations make a leaf */
static const char ring_statement[] =
	"SELECT (SELECT count(*) FROM pg_inherits"
	"  WHERE inhparent = to_regclass('skald.outbox'))::text,"
	" (SELECT seqcache FROM pg_sequence"
	"  WHERE seqrelid = to_regclass('skald.outbox_id'))::text,"
	" (SELECT string_agg(format('CREATE TABLE skald.outbox_%1$s PARTITION OF skald.outbox FOR"
	"   VALUES IN (%1$s) WITH (autovacuum_vacuum_insert_threshold = 200000,"
	"   fillfactor = 100); CREATE INDEX outbox_%1$s_xid ON skald.outbox_%1$s (xid, id);"
	"   ALTER TABLE skald.outbox_%1$s OWNER TO %2$I;', leaf, pg_get_userbyid(c.relowner)), ' ')"
	"  FROM generate_series(0, 7) AS leaf, pg_class AS c"
	"  WHERE c.oid = to_regclass('skald.outbox')"
	"  AND to_regclass('skald.outbox_' || leaf) IS NULL)";
/* clang-format on */

static void
check_ring(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	int64_t leaves;
	int64_t cache;

	if (!skald__doctor_ask(sql, ring_statement, &rows, &err)) {
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "outbox", NULL, "%s", err.text);
		skald_rows_free(rows);
		return;
	}
	leaves = skald_rows_int(rows, 0, 0, 0);
	cache = skald_rows_int(rows, 0, 1, 1);
	if (leaves != SKALD_OUTBOX_LEAVES)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "outbox",
			skald_rows_get(rows, 0, 2).data,
			"%lld of %d leaves of the ring are there. Restore the others "
			"from "
			"a backup; or, without what was in them:",
			(long long)leaves, SKALD_OUTBOX_LEAVES);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "outbox", NULL,
			"all %d leaves of the ring are there", SKALD_OUTBOX_LEAVES);
	if (cache != 1)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "sequence",
			"ALTER SEQUENCE skald.outbox_id CACHE 1;",
			"skald.outbox_id caches %lld ids: messages of one key can be "
			"published out of order",
			(long long)cache);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "sequence", NULL,
			"skald.outbox_id, without a cache");
	skald_rows_free(rows);
}

/* clang-format off */
static const char relay_statement[] =
	"SELECT lag_rows::text, floor(lag_seconds)::bigint::text,"
	" coalesce(extract(epoch FROM clock_timestamp() - heartbeat_at)::bigint, -1)::text,"
	" owner, mode, recovering::text, epoch_wanted::text FROM skald.relays";
/* clang-format on */

static void
check_backlog(struct skald__doctor *doctor, const struct skald_rows *rows)
{
	int64_t waiting = skald_rows_int(rows, 0, 0, 0);
	int64_t oldest_s = skald_rows_int(rows, 0, 1, 0);
	int64_t keep_s =
		skald_config_ms(doctor->cli->config, "retention", "outbox") / 1000;
	char flag[80];
	char fix[128];

	(void)snprintf(fix, sizeof(fix), "skald outbox ls --waiting%s",
		skald__doctor_source_flag(doctor, flag, sizeof(flag)));
	if (waiting && oldest_s > WAITING_WARN_S)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "backlog", fix,
			"%lld rows wait, the oldest for %lld s", (long long)waiting,
			(long long)oldest_s);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "backlog", NULL,
			"%lld rows wait", (long long)waiting);
	/* nothing unpublished is ever emptied: the ring only grows beyond its eight leaves */
	if (waiting && keep_s && oldest_s > keep_s)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "retention", fix,
			"the oldest row that waits is older than retention.outbox: its "
			"leaf cannot be emptied, nor what stands beside it");
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "retention", NULL,
			"published rows are kept for %s",
			skald_config_text(doctor->cli->config, "retention", "outbox"));
}

static void
check_relay(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	struct skald_slice owner;
	int64_t beat_s;

	if (!skald__doctor_ask(sql, relay_statement, &rows, &err)) {
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "relay",
			rows ? "skald db migrate" : doctor->grant, "%s",
			rows ? "the outbox has no history yet" : err.text);
		skald_rows_free(rows);
		return;
	}
	beat_s = skald_rows_int(rows, 0, 2, -1);
	owner = skald_rows_get(rows, 0, 3);
	if (beat_s < 0)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "relay",
			"systemctl start skaldd", "none has ever run here");
	else if (beat_s > ALIVE_S)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "relay",
			"systemctl start skaldd", "last sign of life %lld s ago",
			(long long)beat_s);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "relay", NULL,
			"mode %s, led by %s, last sign of life %lld s ago",
			skald_rows_get(rows, 0, 4).data,
			owner.data ? owner.data : "nobody", (long long)beat_s);
	if (skald_slice_is_text(skald_rows_get(rows, 0, 5), "true"))
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "catch-up",
			beat_s < 0 || beat_s > ALIVE_S ? "systemctl start skaldd"
						       : "skald status --watch",
			"what is not known to be published is looked up in the topics, "
			"and comes with ce_recovered");
	if (skald_slice_is_text(skald_rows_get(rows, 0, 6), "true"))
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "epoch",
			beat_s < 0 || beat_s > ALIVE_S ? "systemctl start skaldd"
						       : "skald status --watch",
			"a new epoch is wanted, and begins once nothing is outstanding");
	check_backlog(doctor, rows);
	skald_rows_free(rows);
}

/* Keys whose head was refused; what is on its way out is no trouble any more. */
static void
check_parked(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	char flag[80];
	char fix[160];

	if (!skald__doctor_ask(sql,
		    "SELECT (count(*) FILTER (WHERE NOT releasing))::text,"
		    " coalesce(sum(waiting) FILTER (WHERE NOT releasing), 0)::text,"
		    " (count(*) FILTER (WHERE releasing))::text,"
		    " (array_agg(topic || ': ' || left(reason, 300) ORDER BY since)"
		    "  FILTER (WHERE NOT releasing))[1]"
		    " FROM skald.parked WHERE kind = 'relay'",
		    &rows, &err)) {
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "parked", NULL, "%s", err.text);
	} else if (skald_rows_int(rows, 0, 0, 0) > 0) {
		(void)snprintf(fix, sizeof(fix),
			"skald outbox retry --all --yes --reason repaired%s",
			skald__doctor_source_flag(doctor, flag, sizeof(flag)));
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "parked", fix,
			"%s keys with %s messages; first of all %s. Repair that, then:",
			skald_rows_get(rows, 0, 0).data, skald_rows_get(rows, 0, 1).data,
			skald_rows_get(rows, 0, 3).data);
	} else if (skald_rows_int(rows, 0, 2, 0) > 0) {
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "parked", NULL,
			"%s keys are being let out", skald_rows_get(rows, 0, 2).data);
	} else {
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "parked", NULL, "no key");
	}
	skald_rows_free(rows);
}

void
skald__doctor_outbox(struct skald__doctor *doctor, struct skald_sql *sql)
{
	check_ring(doctor, sql);
	check_relay(doctor, sql);
	check_parked(doctor, sql);
}
