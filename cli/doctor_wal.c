/*
 * doctor_wal.c - doctor: what streaming from WAL needs of the server, of the role,
 * of the publication and of the slot; and whom the gate waits for.
 *
 * Wanted is what [relay] mode says, or what the relay does now. In mode poll only
 * what is left over of the other is looked at: a slot that nobody reads fills the disk.
 */
#include "cli/doctor_own.h"

#include <string.h>

#define ALIVE_S      30
#define MIB          (1024 * 1024)
#define SLOTS_MORE   4
#define LIMIT_NEAR_P 80 /* percent of slot_limit */

struct wal { /* of one database */
	struct skald__doctor *doctor;
	struct skald_sql *sql;
	bool is_wanted; /* by the configuration */
	bool is_streaming; /* the relay's own mode */
	bool is_alive;
	char slot[80];
	char user[160]; /* quoted */
	int64_t slot_limit;
};

/* --- the server ------------------------------------------------------------------------- */

static void
say_full(struct wal *wal, const char *check, const char *setting, int64_t free,
	int64_t have, bool is_needed)
{
	char fix[160];

	(void)snprintf(fix, sizeof(fix),
		"ALTER SYSTEM SET %s = %lld; /* then restart PostgreSQL */", setting,
		(long long)have + SLOTS_MORE);
	if (is_needed && free < 1)
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, check, fix,
			"all %lld of %s are taken", (long long)have, setting);
	else
		skald__doctor_say(wal->doctor, SKALD_VERDICT_OK, check, NULL,
			"%lld of %lld %s are free", (long long)free, (long long)have,
			setting);
}

static void
check_kept(struct wal *wal, int64_t keep_mib, const char *text)
{
	char fix[160];

	(void)snprintf(fix, sizeof(fix),
		"ALTER SYSTEM SET max_slot_wal_keep_size = '%lldMB'; "
		"SELECT pg_reload_conf();",
		(long long)(wal->slot_limit ? wal->slot_limit / MIB * 2 : 10240));
	if (keep_mib < 0)
		skald__doctor_say(wal->doctor, SKALD_VERDICT_WARN, "wal kept", fix,
			"max_slot_wal_keep_size is unlimited: a slot that nobody reads "
			"fills the disk");
	else if (wal->slot_limit && keep_mib < wal->slot_limit / MIB)
		skald__doctor_say(wal->doctor, SKALD_VERDICT_WARN, "wal kept", fix,
			"max_slot_wal_keep_size (%s) is below relay.slot_limit: the "
			"server breaks the slot before the relay gives it up",
			text);
	else
		skald__doctor_say(wal->doctor, SKALD_VERDICT_OK, "wal kept", NULL,
			"max_slot_wal_keep_size is %s", text);
}

/* clang-format off */
static const char server_statement[] =
	"SELECT current_setting('wal_level'),"
	" current_setting('max_replication_slots'), (current_setting('max_replication_slots')::int"
	"  - (SELECT count(*) FROM pg_replication_slots))::text,"
	" current_setting('max_wal_senders'), (current_setting('max_wal_senders')::int"
	"  - (SELECT count(*) FROM pg_stat_replication))::text,"
	" (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),"
	" current_setting('max_slot_wal_keep_size'),"
	" (SELECT (rolreplication OR rolsuper)::text FROM pg_roles WHERE rolname = current_user),"
	" EXISTS (SELECT FROM pg_replication_slots AS s, skald.relay AS r"
	"  WHERE s.slot_name = 'skald_' || r.stream)::text,"
	" EXISTS (SELECT FROM pg_replication_slots AS s, skald.relay AS r"
	"  WHERE s.slot_name = 'skald_' || r.stream AND s.active)::text";

static const char emit_statement[] =
	"SELECT string_agg(p.oid::regprocedure::text, ', ' ORDER BY p.oid) FROM pg_proc AS p"
	" WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace"
	" AND has_function_privilege('public', p.oid, 'EXECUTE')";
/* clang-format on */

static void
check_server(struct wal *wal)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	char fix[240];

	if (!skald__doctor_ask(wal->sql, server_statement, &rows, &err)) {
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "wal_level", NULL,
			"%s", err.text);
		skald_rows_free(rows);
		return;
	}
	if (!skald_slice_is_text(skald_rows_get(rows, 0, 0), "logical"))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "wal_level",
			"ALTER SYSTEM SET wal_level = logical; /* then restart "
			"PostgreSQL */",
			"%s: mode wal needs logical; until then the relay polls",
			skald_rows_get(rows, 0, 0).data);
	else
		skald__doctor_say(
			wal->doctor, SKALD_VERDICT_OK, "wal_level", NULL, "logical");
	(void)snprintf(fix, sizeof(fix), "ALTER ROLE %s REPLICATION;", wal->user);
	if (!skald_slice_is_text(skald_rows_get(rows, 0, 7), "true"))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "replication", fix,
			"role %s may not replicate: mode wal needs it", wal->user);
	else
		skald__doctor_say(wal->doctor, SKALD_VERDICT_OK, "replication", NULL,
			"role %s may replicate", wal->user);
	say_full(wal, "slots", "max_replication_slots", skald_rows_int(rows, 0, 2, 0),
		skald_rows_int(rows, 0, 1, 0),
		!skald_slice_is_text(skald_rows_get(rows, 0, 8), "true"));
	say_full(wal, "senders", "max_wal_senders", skald_rows_int(rows, 0, 4, 0),
		skald_rows_int(rows, 0, 3, 0),
		!skald_slice_is_text(skald_rows_get(rows, 0, 9), "true"));
	check_kept(wal, skald_rows_int(rows, 0, 5, -1), skald_rows_get(rows, 0, 6).data);
	skald_rows_free(rows);
}

/* Whoever may write messages into WAL makes every slot of the database read them. */
static void
check_emit(struct wal *wal)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	char fix[400];

	if (!skald__doctor_ask(wal->sql, emit_statement, &rows, &err)) {
		skald__doctor_say(wal->doctor, SKALD_VERDICT_WARN, "emit_message", NULL,
			"%s", err.text);
	} else if (skald_rows_get(rows, 0, 0).data) {
		(void)snprintf(fix, sizeof(fix),
			"REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC;",
			skald_rows_get(rows, 0, 0).data);
		skald__doctor_say(wal->doctor, SKALD_VERDICT_WARN, "emit_message", fix,
			"everybody may call pg_logical_emit_message, and so write into "
			"the WAL that the slot reads");
	} else {
		skald__doctor_say(wal->doctor, SKALD_VERDICT_OK, "emit_message", NULL,
			"pg_logical_emit_message is not everybody's");
	}
	skald_rows_free(rows);
}

/* --- the publication ----------------------------------------------------------------------- */

/* clang-format off */
/* to_jsonb: row filters and column lists exist from PostgreSQL 15 on */
static const char publication_statement[] =
	"SELECT (p.oid IS NOT NULL)::text, p.pubinsert::text,"
	" (p.pubupdate OR p.pubdelete OR p.pubtruncate)::text, p.pubviaroot::text,"
	" (p.puballtables OR r.oid IS NOT NULL)::text,"
	" (to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL)::text,"
	" (SELECT count(*) FROM pg_publication_rel AS o WHERE o.prpubid = p.oid"
	"  AND o.prrelid <> 'skald.outbox'::regclass)::text"
	" FROM (SELECT 1) AS one"
	" LEFT JOIN pg_publication AS p ON p.pubname = 'skald_outbox'"
	" LEFT JOIN pg_publication_rel AS r ON r.prpubid = p.oid"
	"  AND r.prrelid = 'skald.outbox'::regclass";
/* clang-format on */

static bool
is_true(const struct skald_rows *rows, unsigned column)
{
	return skald_slice_is_text(skald_rows_get(rows, 0, column), "true");
}

/* What is wrong with one that is there; each with the statement that puts it right. */
static unsigned
judge_publication(struct wal *wal, const struct skald_rows *rows)
{
	const struct {
		bool is_wrong;
		const char *fix;
		const char *message;
	} faults[] = {
		{ !is_true(rows, 4),
			"ALTER PUBLICATION skald_outbox ADD TABLE skald.outbox;",
			"skald_outbox does not contain skald.outbox" },
		{ !is_true(rows, 1) || is_true(rows, 2),
			"ALTER PUBLICATION skald_outbox SET (publish = 'insert');",
			is_true(rows, 1)
				? "skald_outbox must be of inserts only: emptied "
				  "leaves are no messages"
				: "skald_outbox does not publish inserts" },
		{ !is_true(rows, 3),
			"ALTER PUBLICATION skald_outbox SET (publish_via_partition_root "
			"= "
			"true);",
			"skald_outbox names the leaves: it must publish via the "
			"partition "
			"root" },
		{ is_true(rows, 4) && is_true(rows, 5),
			"ALTER PUBLICATION skald_outbox SET TABLE skald.outbox;",
			"skald_outbox leaves out rows or columns" },
		{ skald_rows_int(rows, 0, 6, 0) > 0,
			"ALTER PUBLICATION skald_outbox SET TABLE skald.outbox;",
			"skald_outbox contains other tables, which are sent for "
			"nothing" },
	};
	unsigned count = 0;

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		if (faults[i].is_wrong) {
			skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "publication",
				faults[i].fix, "%s", faults[i].message);
			count++;
		}
	return count;
}

static void
check_publication(struct wal *wal)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (!skald__doctor_ask(wal->sql, publication_statement, &rows, &err))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "publication", NULL,
			"%s", err.text);
	else if (!is_true(rows, 0))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "publication",
			"CREATE PUBLICATION skald_outbox FOR TABLE skald.outbox WITH "
			"(publish = 'insert', publish_via_partition_root = true);",
			"there is no publication skald_outbox");
	else if (!judge_publication(wal, rows))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_OK, "publication", NULL,
			"skald_outbox: inserts into skald.outbox, via its root");
	skald_rows_free(rows);
}

/* --- the slot ---------------------------------------------------------------------------------- */

/* clang-format off */
/*
 * is_late: what the publication is now came after the point that the slot decodes from;
 * there it does not exist yet, or is another.
 */
static const char slot_statement[] =
	"SELECT s.active::text, coalesce(s.wal_status, ''),"
	" (s.plugin = 'pgoutput' AND s.database = current_database())::text,"
	" (w.wal_held_bytes)::text, w.safe_wal_size::text,"
	" (SELECT bool_or(age(x) <= age(s.catalog_xmin)) FROM"
	"   (SELECT p.xmin FROM pg_publication AS p WHERE p.pubname = 'skald_outbox'"
	"    UNION ALL SELECT r.xmin FROM pg_publication_rel AS r"
	"    JOIN pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = 'skald_outbox'"
	"    AND r.prrelid = 'skald.outbox'::regclass) AS t(x))::text"
	" FROM pg_replication_slots AS s, skald.wal_slot(s.slot_name, NULL) AS w"
	" WHERE s.slot_name = $1::text";
/* clang-format on */

/* None is there: the relay makes one by itself, if it lives. */
static void
say_missing(struct wal *wal)
{
	const char *fix =
		wal->is_alive ? "skald status --watch" : "systemctl start skaldd";
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (wal->is_streaming)
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "slot", fix,
			"%s is gone: the relay catches up from the table, then makes "
			"another",
			wal->slot);
	else if (skald__doctor_ask(wal->sql,
			 "SELECT slot_dropped FROM skald.relays WHERE slot_dropped IS "
			 "NOT NULL",
			 &rows, &err))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_WARN, "slot", fix,
			"none (%s): the relay polls, and makes one as soon as it can",
			skald_rows_get(rows, 0, 0).data);
	else
		skald__doctor_say(wal->doctor, SKALD_VERDICT_WARN, "slot", fix,
			"none yet: the relay polls, and makes it");
	skald_rows_free(rows);
}

static void
judge_slot(struct wal *wal, const struct skald_rows *rows)
{
	int64_t held = skald_rows_int(rows, 0, 3, 0);
	struct skald_slice safe = skald_rows_get(rows, 0, 4);
	bool is_active = is_true(rows, 0);
	char drop[160];
	char keep[160];
	char size[24];
	char left[24] = "no limit";

	(void)snprintf(
		drop, sizeof(drop), "SELECT pg_drop_replication_slot('%s');", wal->slot);
	(void)snprintf(keep, sizeof(keep),
		"ALTER SYSTEM SET max_slot_wal_keep_size = '%lldMB'; "
		"SELECT pg_reload_conf();",
		(long long)(held / MIB * 2 + 1024));
	skald__size(held, size, sizeof(size));
	if (safe.data)
		skald__size(skald_rows_int(rows, 0, 4, 0), left, sizeof(left));
	if (!is_true(rows, 2))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "slot", drop,
			"%s is not of pgoutput and this database", wal->slot);
	else if (skald_slice_is_text(skald_rows_get(rows, 0, 1), "lost"))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "slot", drop,
			"%s is lost: its WAL was removed. The relay catches up from the "
			"table, then makes another",
			wal->slot);
	else if (skald_slice_is_text(skald_rows_get(rows, 0, 1), "unreserved"))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "slot", keep,
			"%s holds %s of WAL, more than max_slot_wal_keep_size: the next "
			"checkpoint breaks it",
			wal->slot, size);
	else if (!is_active && !wal->is_wanted && !wal->is_streaming)
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "slot", drop,
			"%s holds %s of WAL, and nobody streams any more", wal->slot,
			size);
	else if (!is_active && is_true(rows, 5))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "slot", drop,
			"%s is older than the publication, and cannot see it: the relay "
			"makes another, and catches up from the table",
			wal->slot);
	else if (!is_active)
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "slot",
			wal->is_alive ? "skald status --watch" : "systemctl start skaldd",
			"nobody reads %s, and it holds %s of WAL; more until it is lost: "
			"%s",
			wal->slot, size, left);
	else if (wal->slot_limit && held / LIMIT_NEAR_P * 100 > wal->slot_limit)
		skald__doctor_say(wal->doctor, SKALD_VERDICT_WARN, "slot",
			"skald status --watch",
			"%s holds %s of WAL: near relay.slot_limit, where it is given up",
			wal->slot, size);
	else
		skald__doctor_say(wal->doctor, SKALD_VERDICT_OK, "slot", NULL,
			"%s is read, holds %s of WAL; more until it is lost: %s",
			wal->slot, size, left);
}

static void
check_slot(struct wal *wal)
{
	struct skald_param param = skald_param_text(wal->slot);
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (skald_conn_query(
		    skald_sql_conn(wal->sql), slot_statement, &param, 1, &rows, &err))
		skald__doctor_say(
			wal->doctor, SKALD_VERDICT_FAIL, "slot", NULL, "%s", err.text);
	else if (skald_rows_count(rows))
		judge_slot(wal, rows);
	else if (wal->is_wanted || wal->is_streaming)
		say_missing(wal);
	skald_rows_free(rows);
}

/* Of streams that this database had before it was adopted. */
static void
check_other_slots(struct wal *wal)
{
	struct skald_param param = skald_param_text(wal->slot);
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	char fix[160];

	if (skald_conn_query(skald_sql_conn(wal->sql),
		    "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE"
		    " 'skald\\_%' AND database = current_database() AND NOT active"
		    " AND NOT temporary AND slot_name <> $1::text LIMIT 20",
		    &param, 1, &rows, &err))
		return; /* the same was asked before, and its failure told */
	for (unsigned r = 0; r < skald_rows_count(rows); r++) {
		(void)snprintf(fix, sizeof(fix), "SELECT pg_drop_replication_slot('%s');",
			skald_rows_get(rows, r, 0).data);
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "slot", fix,
			"%s is of a stream that this database has no more, and holds WAL",
			skald_rows_get(rows, r, 0).data);
	}
	skald_rows_free(rows);
}

/* --- the gate ---------------------------------------------------------------------------------- */

/* The gate as a flag, without one of its names. */
static void
add_gate_without(
	struct wal *wal, const char *gate, struct skald_slice name, struct skald_buf *out)
{
	bool is_main = strcmp(wal->doctor->source, "main") == 0;
	bool is_first = true;

	skald_buf_addf(out, "skaldd --set %s%s.gate=", is_main ? "relay" : "source.",
		is_main ? "" : wal->doctor->source);
	for (const char *p = gate; p;) {
		const char *comma = strchr(p, ',');
		struct skald_slice each =
			skald_slice_make(p, comma ? (size_t)(comma - p) : strlen(p));

		if (!skald_slice_is_equal(each, name)) {
			skald_buf_add_text(out, is_first ? "" : ",");
			skald_buf_add_slice(out, each);
			is_first = false;
		}
		p = comma ? comma + 1 : NULL;
	}
}

/* A name that no standby has: nothing is published until it comes. */
static void
check_standby(struct wal *wal, const char *gate, struct skald_slice name)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	struct skald_param param;
	struct skald_buf fix;
	char text[128];

	if (!skald_slice_copy(name, text, sizeof(text)))
		return;
	param = skald_param_text(text);
	skald_buf_init(&fix, 4096);
	add_gate_without(wal, gate, name, &fix);
	if (skald_conn_query(skald_sql_conn(wal->sql),
		    "SELECT count(*)::text FROM pg_stat_replication"
		    " WHERE application_name = $1",
		    &param, 1, &rows, &err))
		skald__doctor_say(
			wal->doctor, SKALD_VERDICT_FAIL, "gate", NULL, "%s", err.text);
	else if (skald_rows_int(rows, 0, 0, 0) == 0)
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "gate", fix.data,
			"no standby has the application_name %s, and nothing is "
			"published "
			"without it. Start it, or wait for it no more:",
			text);
	else
		skald__doctor_say(wal->doctor, SKALD_VERDICT_OK, "gate", NULL,
			"standby %s is connected", text);
	skald_rows_free(rows);
	skald_buf_done(&fix);
}

static void
check_gate(struct wal *wal)
{
	const char *gate = skald_config_source_text(
		wal->doctor->cli->config, wal->doctor->source, "gate");
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	char fix[240];

	if (!gate || !gate[0])
		return;
	(void)snprintf(fix, sizeof(fix), "GRANT pg_read_all_stats TO %s;", wal->user);
	if (skald__doctor_ask(wal->sql,
		    "SELECT pg_has_role(current_user, 'pg_read_all_stats', "
		    "'USAGE')::text",
		    &rows, &err) &&
		!is_true(rows, 0))
		skald__doctor_say(wal->doctor, SKALD_VERDICT_FAIL, "gate", fix,
			"role %s may not see how far standbys are: with a gate nothing "
			"is "
			"published",
			wal->user);
	skald_rows_free(rows);
	for (const char *p = gate; p;) {
		const char *comma = strchr(p, ',');

		check_standby(wal, gate,
			skald_slice_make(p, comma ? (size_t)(comma - p) : strlen(p)));
		p = comma ? comma + 1 : NULL;
	}
}

/* --- all of it ------------------------------------------------------------------------------------ */

void
skald__doctor_wal(struct skald__doctor *doctor, struct skald_sql *sql)
{
	const struct skald_config *config = doctor->cli->config;
	const char *mode = skald_config_source_text(config, doctor->source, "mode");
	struct wal wal = { .doctor = doctor, .sql = sql };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (!skald__doctor_ask(sql,
		    "SELECT 'skald_' || stream, quote_ident(current_user), mode,"
		    " coalesce(extract(epoch FROM clock_timestamp() - "
		    "heartbeat_at)::bigint,"
		    " 1000000)::text FROM skald.relay",
		    &rows, &err)) {
		skald_rows_free(rows); /* told by the check of the relay */
		return;
	}
	wal.is_wanted = mode && strcmp(mode, "wal") == 0;
	wal.is_streaming = skald_slice_is_text(skald_rows_get(rows, 0, 2), "wal");
	wal.is_alive = skald_rows_int(rows, 0, 3, 1000000) <= ALIVE_S;
	wal.slot_limit = skald_config_source_bytes(config, doctor->source, "slot_limit");
	(void)skald_slice_copy(skald_rows_get(rows, 0, 0), wal.slot, sizeof(wal.slot));
	(void)skald_slice_copy(skald_rows_get(rows, 0, 1), wal.user, sizeof(wal.user));
	skald_rows_free(rows);
	if (wal.is_wanted || wal.is_streaming) {
		check_server(&wal);
		check_emit(&wal);
		check_publication(&wal);
	}
	check_slot(&wal);
	check_other_slots(&wal);
	check_gate(&wal);
}
