/*
 * cmd_doctor.c - every requirement: ok, warn or fail, each with a fix that can
 * be pasted. Looks only, changes nothing; goes on after a failure as far as
 * the rest can still be looked at.
 */
#include "cli/doctor_own.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "broker/broker.h"

#define SERVER_VERSION   130000
#define NAME_WIDTH       12
#define FIX_COLUMN       (NAME_WIDTH + 14)
#define FIX_WIDTH        78 /* and a backslash */
#define KAFKA_OLDEST     0x020002ff
#define KAFKA_LESS_FATAL 0x020300ff
#define KAFKA_WITH_FIXES 0x020500ff

/* --- saying -------------------------------------------------------------------------------- */

static void
say_json(const struct skald__doctor *doctor, enum skald__verdict verdict,
	const char *check, const char *fix, const char *message)
{
	static const char *const names[] = { "ok", "warn", "fail" };
	struct skald_buf out;

	skald_buf_init(&out, 65536);
	skald_buf_add_text(&out, "{");
	skald_json_add_member(&out, "check", skald_slice_text(check));
	skald__json_add(&out, "source", skald_slice_text(doctor->source));
	skald_json_add_member(&out, "status", skald_slice_text(names[verdict]));
	skald_json_add_member(&out, "message", skald_slice_text(message));
	skald__json_add(&out, "fix", skald_slice_text(fix));
	skald_buf_add_text(&out, "}\n");
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
}

/* A command that goes on in another line says so; SQL need not. */
static void
print_fix(const char *fix)
{
	static const char *const programs[] = { "skald ", "skaldd ", "kafka-" };
	unsigned column = FIX_COLUMN;
	bool is_command = false;

	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
		is_command |= strncmp(fix, programs[i], strlen(programs[i])) == 0;
	if (!is_command) {
		skald__wrap(stdout, fix, FIX_COLUMN, FIX_COLUMN);
		return;
	}
	for (bool is_first = true; *fix; is_first = false) {
		size_t word = strcspn(fix, " ");

		if (!is_first && column + 1 + word > FIX_WIDTH) {
			printf(" \\\n%*s", FIX_COLUMN, "");
			column = FIX_COLUMN;
		} else if (!is_first) {
			printf(" ");
			column++;
		}
		(void)fwrite(fix, 1, word, stdout);
		column += (unsigned)word;
		fix += word;
		fix += strspn(fix, " ");
	}
	printf("\n");
}

void
skald__doctor_say(struct skald__doctor *doctor, enum skald__verdict verdict,
	const char *check, const char *fix, const char *fmt, ...)
{
	static const char *const marks[] = { "ok  ", "warn", "FAIL" };
	static const enum skald__paint paints[] = { SKALD_PAINT_GOOD, SKALD_PAINT_WARN,
		SKALD_PAINT_BAD };
	struct skald_buf clean;
	char message[1024];
	va_list args;

	va_start(args, fmt);
	if (vsnprintf(message, sizeof(message), fmt, args) < 0)
		message[0] = '\0';
	va_end(args);
	doctor->counts[verdict]++;
	if (doctor->cli->is_json) {
		say_json(doctor, verdict, check, fix, message);
		return;
	}
	skald_buf_init(&clean, 65536);
	skald__add_clean(&clean, skald_slice_text(message));
	printf("  %s%s%s  %-*s ", skald__paint(doctor->cli, paints[verdict]),
		marks[verdict], skald__unpaint(doctor->cli), NAME_WIDTH, check);
	skald__wrap(stdout, clean.data ? clean.data : "", NAME_WIDTH + 9, NAME_WIDTH + 9);
	if (fix) {
		printf("%*sfix: %s", NAME_WIDTH + 9, "",
			skald__paint(doctor->cli, SKALD_PAINT_STRONG));
		print_fix(fix);
		printf("%s", skald__unpaint(doctor->cli));
	}
	skald_buf_done(&clean);
	fflush(stdout); /* the next check may take seconds */
}

static void
begin_section(struct skald__doctor *doctor, const char *title)
{
	bool is_first = !doctor->counts[SKALD_VERDICT_OK] &&
			!doctor->counts[SKALD_VERDICT_WARN] &&
			!doctor->counts[SKALD_VERDICT_FAIL];

	if (!doctor->cli->is_json)
		printf("%s%s%s%s\n", is_first ? "" : "\n",
			skald__paint(doctor->cli, SKALD_PAINT_STRONG), title,
			skald__unpaint(doctor->cli));
}

/* --- one database ---------------------------------------------------------------------------- */

const char *
skald__doctor_source_flag(const struct skald__doctor *doctor, char *dst, size_t dst_bytes)
{
	bool is_main = !doctor->source || strcmp(doctor->source, "main") == 0;

	(void)snprintf(dst, dst_bytes, "%s%s", is_main ? "" : " --source ",
		is_main ? "" : doctor->source);
	return dst;
}

bool
skald__doctor_ask(struct skald_sql *sql, const char *statement, struct skald_rows **rows,
	struct skald_err *err)
{
	*rows = NULL;
	return skald_conn_query(skald_sql_conn(sql), statement, NULL, 0, rows, err) ==
		       SKALD_OK &&
	       skald_rows_count(*rows) > 0;
}

static void
check_server(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (!skald__doctor_ask(sql,
		    "SELECT current_setting('server_version_num'),"
		    " current_setting('server_version'), current_database(), "
		    "current_user,"
		    " format('GRANT skald_reader TO %I;', current_user)",
		    &rows, &err)) {
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "server", NULL, "%s", err.text);
		skald_rows_free(rows);
		return;
	}
	(void)skald_slice_copy(
		skald_rows_get(rows, 0, 4), doctor->grant, sizeof(doctor->grant));
	if (skald_rows_int(rows, 0, 0, 0) < SERVER_VERSION)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "server",
			"upgrade PostgreSQL to 13 or newer",
			"PostgreSQL %s: 13 is needed", skald_rows_get(rows, 0, 1).data);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "server", NULL,
			"PostgreSQL %s, database %s, user %s",
			skald_rows_get(rows, 0, 1).data, skald_rows_get(rows, 0, 2).data,
			skald_rows_get(rows, 0, 3).data);
	skald_rows_free(rows);
}

/* true when there is a schema to look into. */
static bool
check_schema(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	int have = 0;
	int want = 0;

	if (skald_migrate_version(sql, &have, &want, &err))
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "schema",
			strcmp(err.code, "42501") == 0 ? doctor->grant
						       : "skald db migrate",
			"%s", err.text);
	else if (have == 0)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "schema",
			"skald db migrate", "not installed");
	else if (have < want)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "schema",
			"skald db migrate", "version %d, this program needs %d", have,
			want);
	else if (have > want)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "schema", "upgrade skald",
			"version %d is newer than this program (%d)", have, want);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "schema", NULL,
			"version %d, current", have);
	return have > 0;
}

/* What the four roles allow, and which of them this session has. */
static void
check_rights(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	int64_t missing;

	if (!skald__doctor_ask(sql,
		    "SELECT 4 - count(*), coalesce(string_agg(rolname, ', ' ORDER BY "
		    "rolname)"
		    " FILTER (WHERE pg_has_role(oid, 'MEMBER')), 'none'),"
		    " bool_or(rolname = 'skald_operator' AND pg_has_role(oid, 'MEMBER')),"
		    " quote_ident(current_user) FROM pg_roles WHERE rolname IN"
		    " ('skald_app', 'skald_operator', 'skald_daemon', 'skald_reader')",
		    &rows, &err)) {
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "rights", NULL, "%s", err.text);
		skald_rows_free(rows);
		return;
	}
	missing = skald_rows_int(rows, 0, 0, 4);
	if (missing > 0) {
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "rights",
			"skald db migrate",
			"%lld of the 4 roles of Skald do not exist; somebody who may "
			"create roles should run:",
			(long long)missing);
	} else if (!skald_rows_bool(rows, 0, 2)) {
		char fix[160];

		(void)snprintf(fix, sizeof(fix), "GRANT skald_operator TO %s;",
			skald_rows_get(rows, 0, 3).data);
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "rights", fix,
			"this session is member of: %s; to act on dead letters it must "
			"be "
			"an operator",
			skald_rows_get(rows, 0, 1).data);
	} else {
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "rights", NULL,
			"this session is member of: %s", skald_rows_get(rows, 0, 1).data);
	}
	skald_rows_free(rows);
}

/* Our daemon sets it on for its own sessions; what breaks the promise is a server that lies. */
static void
check_durability(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (!skald__doctor_ask(sql,
		    "SELECT current_setting('fsync'), "
		    "current_setting('full_page_writes'),"
		    " current_setting('synchronous_commit'),"
		    " (SELECT string_agg(r.rolname || ': ' || c, ', ')"
		    "  FROM pg_db_role_setting AS s JOIN pg_roles AS r ON r.oid = "
		    "s.setrole,"
		    "  unnest(s.setconfig) AS c WHERE c LIKE 'synchronous_commit=%off'"
		    "  OR c LIKE 'synchronous_commit=%local')",
		    &rows, &err))
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "durability", NULL, "%s", err.text);
	else if (!skald_slice_is_text(skald_rows_get(rows, 0, 0), "on"))
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "durability",
			"ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf();",
			"fsync is off: a power cut can undo what was published");
	else if (!skald_slice_is_text(skald_rows_get(rows, 0, 1), "on"))
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "durability",
			"ALTER SYSTEM SET full_page_writes = on; SELECT "
			"pg_reload_conf();",
			"full_page_writes is off");
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "durability", NULL,
			"fsync on, synchronous_commit %s; skaldd's own sessions: on%s%s",
			skald_rows_get(rows, 0, 2).data,
			skald_rows_get(rows, 0, 3).data ? "; roles with their own: " : "",
			skald_rows_get(rows, 0, 3).data ? skald_rows_get(rows, 0, 3).data
							: "");
	skald_rows_free(rows);
}

/* How a stopped partition begins anew; the reason stays to be filled in, for the audit. */
static void
say_stopped(struct skald__doctor *doctor, const struct skald_rows *rows, unsigned row)
{
	struct skald_slice group = skald_rows_get(rows, row, 0);
	struct skald_slice topic = skald_rows_get(rows, row, 1);
	struct skald_slice partitions = skald_rows_get(rows, row, 8);
	char fix[700];

	(void)snprintf(fix, sizeof(fix),
		"SELECT skald.operator_act(action => 'consumer.reset', target => "
		"'%s/%s/%.*s', reason => 'looked into');",
		group.data, topic.data, (int)strcspn(partitions.data, ","),
		partitions.data);
	skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "consumers", fix,
		"%s on %s stopped at partition %s: %s. Find out why; then, to begin at "
		"its "
		"first record:",
		group.data, topic.data, partitions.data,
		skald_rows_get(rows, row, 7).data);
}

static void
check_consumers(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_param all[2] = { skald_param_text(""), skald_param_text("") };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	unsigned stopped_count = 0;

	if (skald__consumers_by_topic(sql, all, &rows, &err)) {
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "consumers", NULL, "%s", err.text);
		return;
	}
	for (unsigned r = 0; r < skald_rows_count(rows); r++)
		if (skald_rows_int(rows, r, 6, 0) > 0) {
			stopped_count++;
			say_stopped(doctor, rows, r);
		}
	if (!stopped_count)
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "consumers", NULL,
			"%u groups and topics, none stopped", skald_rows_count(rows));
	skald_rows_free(rows);
}

static void
check_letters(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	int64_t count;
	char fix[96];

	if (!skald__doctor_ask(sql,
		    "SELECT count(*) FROM skald.dead_letters"
		    " WHERE state IN ('dead', 'requested', 'claimed')",
		    &rows, &err)) {
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "dead letters", NULL, "%s", err.text);
		skald_rows_free(rows);
		return;
	}
	count = skald_rows_int(rows, 0, 0, 0);
	(void)snprintf(fix, sizeof(fix), "skald dlq ls%s%s",
		strcmp(doctor->source, "main") ? " --source " : "",
		strcmp(doctor->source, "main") ? doctor->source : "");
	if (count > 0)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "dead letters", fix,
			"%lld open", (long long)count);
	else
		skald__doctor_say(
			doctor, SKALD_VERDICT_OK, "dead letters", NULL, "none open");
	skald_rows_free(rows);
}

/* --- sagas ------------------------------------------------------------------------------------- */

/* true when an orchestrator has ever served this database: the rest asks about it. */
static bool
check_installation(struct skald__doctor *doctor, struct skald_sql *sql)
{
	const char *name =
		skald_config_text(doctor->cli->config, "daemon", "installation");
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	bool is_there = false;

	if (!skald__doctor_ask(sql,
		    "SELECT i.installation, coalesce('cluster ' || i.kafka_cluster_id,"
		    " 'a dev broker'), current_database(),"
		    " i.reply_topic FROM (SELECT 1) AS one LEFT JOIN skald.installation "
		    "AS i"
		    " ON true",
		    &rows, &err)) {
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "installation",
			rows ? NULL : doctor->grant, "%s", err.text);
	} else if (!skald_rows_get(rows, 0, 0).data) {
		if (strcmp(doctor->source, "main") == 0)
			skald__doctor_say(doctor, SKALD_VERDICT_OK, "installation", NULL,
				"none recorded: no orchestrator has served this "
				"database");
	} else {
		const char *mine =
			name && name[0] ? name : skald_rows_get(rows, 0, 2).data;
		bool is_main = strcmp(doctor->source, "main") == 0;

		is_there = true;
		if (is_main && !skald_slice_is_text(skald_rows_get(rows, 0, 0), mine))
			skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "installation",
				"skald db adopt --reason copied",
				"this database belongs to %s, not to %s. Set "
				"daemon.installation, or, if this is a copy:",
				skald_rows_get(rows, 0, 0).data, mine);
		else
			skald__doctor_say(doctor, SKALD_VERDICT_OK, "installation", NULL,
				"%s on %s, replies to %s",
				skald_rows_get(rows, 0, 0).data,
				skald_rows_get(rows, 0, 1).data,
				skald_rows_get(rows, 0, 3).data);
	}
	skald_rows_free(rows);
	return is_there;
}

/* Who drives sagas here, and has every partition of replies an owner that keeps up? */
static void
check_orchestrator(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (!skald__doctor_ask(sql,
		    "SELECT (SELECT count(*) FROM skald.saga_owner"
		    "  WHERE until > clock_timestamp())::text,"
		    " count(*)::text, (count(*) FILTER (WHERE until > "
		    "clock_timestamp()))::text,"
		    " (count(*) FILTER (WHERE until > clock_timestamp() AND topic = ("
		    "  SELECT reply_topic FROM skald.installation) AND (caught_up_at IS "
		    "NULL"
		    "  OR caught_up_at < clock_timestamp() - interval '30 s')))::text"
		    " FROM skald.saga_partition",
		    &rows, &err))
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "orchestrator", NULL, "%s", err.text);
	else if (skald_rows_int(rows, 0, 0, 0) == 0)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "orchestrator",
			"systemctl start skaldd", "none is alive: sagas stand still");
	else if (skald_rows_int(rows, 0, 2, 0) < skald_rows_int(rows, 0, 1, 0))
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "orchestrator",
			"skald doctor", "%s alive, %s of %s partitions served",
			skald_rows_get(rows, 0, 0).data, skald_rows_get(rows, 0, 2).data,
			skald_rows_get(rows, 0, 1).data);
	else if (skald_rows_int(rows, 0, 3, 0) > 0)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "orchestrator",
			"journalctl -u skaldd -n 50",
			"%s partitions of replies are behind: time-outs wait",
			skald_rows_get(rows, 0, 3).data);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "orchestrator", NULL,
			"%s alive, all %s partitions served and caught up",
			skald_rows_get(rows, 0, 0).data, skald_rows_get(rows, 0, 1).data);
	skald_rows_free(rows);
}

static void
check_definitions(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (!skald__doctor_ask(sql,
		    "SELECT count(DISTINCT name)::text, count(*)::text,"
		    " (SELECT string_agg(n, ', ') FROM (SELECT name AS n"
		    "  FROM skald.saga_definitions GROUP BY name"
		    "  HAVING NOT bool_or(current) LIMIT 5) AS x)"
		    " FROM skald.saga_definitions",
		    &rows, &err))
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "definitions", NULL, "%s", err.text);
	else if (skald_rows_int(rows, 0, 0, 0) == 0)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "definitions",
			"skald saga deploy FILE, or saga.definitions",
			"none is deployed: no saga can start");
	else if (skald_rows_get(rows, 0, 2).data)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "definitions",
			"skald saga use NAME VERSION", "no current version: %s",
			skald_rows_get(rows, 0, 2).data);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "definitions", NULL,
			"%s, in %s versions", skald_rows_get(rows, 0, 0).data,
			skald_rows_get(rows, 0, 1).data);
	skald_rows_free(rows);
}

static void
check_stuck(struct skald__doctor *doctor, struct skald_sql *sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (!skald__doctor_ask(sql,
		    "SELECT (count(*) FILTER (WHERE status = 'stuck'))::text, "
		    "count(*)::text,"
		    " (count(*) FILTER (WHERE overdue))::text"
		    " FROM skald.sagas WHERE status <> 'finished'",
		    &rows, &err))
		skald__doctor_say(
			doctor, SKALD_VERDICT_FAIL, "sagas", NULL, "%s", err.text);
	else if (skald_rows_int(rows, 0, 0, 0) > 0)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "sagas",
			"skald saga ls --status stuck", "%s stuck, of %s open",
			skald_rows_get(rows, 0, 0).data, skald_rows_get(rows, 0, 1).data);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "sagas", NULL,
			"%s open, %s overdue, none stuck",
			skald_rows_get(rows, 0, 1).data, skald_rows_get(rows, 0, 2).data);
	skald_rows_free(rows);
}

/* --- Kafka ------------------------------------------------------------------------------------ */

static void
check_library(struct skald__doctor *doctor)
{
	const char *version = skald_kafka_version();
	unsigned major = 0;
	unsigned minor = 0;
	unsigned patch = 0;
	unsigned number;

	if (sscanf(version, "%u.%u.%u", &major, &minor, &patch) < 2) {
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "librdkafka", NULL,
			"%s: unknown version", version);
		return;
	}
	number = major << 24 | minor << 16 | patch << 8 | 0xff;
	if (number < KAFKA_OLDEST)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "librdkafka",
			"upgrade to 2.5 or newer", "%s: 2.0.2 is needed", version);
	else if (number < KAFKA_WITH_FIXES)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "librdkafka",
			"upgrade to 2.5 or newer",
			"%s works, but now and then ends a producer without need (%s): "
			"the relay makes a new one and may send some messages twice",
			version,
			number < KAFKA_LESS_FATAL ? "bugs #4438, #4750" : "bug #4750");
	else
		skald__doctor_say(
			doctor, SKALD_VERDICT_OK, "librdkafka", NULL, "%s", version);
}

static bool
check_cluster(struct skald__doctor *doctor, struct skald_cluster *cluster)
{
	char id[SKALD_CLUSTER_ID_BYTES];
	struct skald_err err = SKALD_ERR_INIT;
	unsigned brokers = 0;

	if (skald_cluster_id(cluster, SKALD__DOCTOR_KAFKA_MS, id, &err) ||
		skald_cluster_brokers(cluster, SKALD__DOCTOR_KAFKA_MS, &brokers, &err)) {
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "brokers",
			"is Kafka up, and --brokers or kafka.bootstrap.servers right?",
			"%s", err.text);
		return false;
	}
	if (skald_cluster_is_dev(id))
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "brokers",
			"use Apache Kafka for what matters", "%s",
			skald_dev_broker_warning());
	else
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "brokers", NULL,
			"%u, cluster %s", brokers, id);
	return true;
}

static const char *
adopt_fix(const struct skald__doctor *doctor, char *dst, size_t dst_bytes)
{
	char flag[80];

	(void)snprintf(dst, dst_bytes, "skald db adopt --reason moved%s",
		skald__doctor_source_flag(doctor, flag, sizeof(flag)));
	return dst;
}

/* Where participants answer, and whose Kafka this is. */
static void
check_reply_topic(struct skald__doctor *doctor, struct skald_cluster *cluster,
	struct skald_sql *sql)
{
	char id[SKALD_CLUSTER_ID_BYTES] = "";
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	char fix[160];
	const char *recorded;

	if (!skald__doctor_ask(sql,
		    "SELECT reply_topic, kafka_cluster_id FROM skald.installation", &rows,
		    &err) ||
		skald_cluster_id(cluster, SKALD__DOCTOR_KAFKA_MS, id, &err)) {
		skald_rows_free(rows); /* said before */
		return;
	}
	recorded = skald_rows_get(rows, 0, 1).data;
	if (recorded && !skald_cluster_is_dev(id) && strcmp(recorded, id) != 0)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "cluster",
			adopt_fix(doctor, fix, sizeof(fix)),
			"this database belongs to cluster %s, not to %s. Set "
			"kafka.bootstrap.servers, or, if it moved for good:",
			recorded, id);
	if (skald__doctor_topic(doctor, cluster, skald_rows_get(rows, 0, 0).data) > 0)
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "replies", NULL,
			"%s is there", skald_rows_get(rows, 0, 0).data);
	skald_rows_free(rows);
}

/* --- all of it ---------------------------------------------------------------------------------- */

/* The file that was read, by the order of skald_config_args. */
static const char *
config_file(const struct skald__cli *cli)
{
	static const char *const usual[] = { "./skald.conf", "/etc/skald/skald.conf" };
	const char *file = cli->config_args.file;

	if (!file)
		file = getenv("SKALD_CONFIG");
	for (unsigned i = 0; (!file || !file[0]) && i < 2; i++)
		if (access(usual[i], R_OK) == 0)
			file = usual[i];
	return file && file[0] ? file : NULL;
}

static void
check_config(struct skald__doctor *doctor)
{
	const char *file = config_file(doctor->cli);
	const char *listen = skald_config_text(doctor->cli->config, "http", "listen");

	skald__doctor_say(doctor, SKALD_VERDICT_OK, "config", NULL,
		"%s; health and metrics on %s",
		file ? file : "no file: environment and flags",
		listen && listen[0] ? listen : "nothing");
}

static void
check_sagas(struct skald__doctor *doctor, struct skald_sql *sql,
	struct skald_cluster *cluster)
{
	if (!check_installation(doctor, sql))
		return;
	check_orchestrator(doctor, sql);
	check_definitions(doctor, sql);
	check_stuck(doctor, sql);
	if (cluster)
		check_reply_topic(doctor, cluster, sql);
}

static void
check_database(struct skald__doctor *doctor, const struct skald__place *place,
	struct skald_cluster *cluster)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_sql *sql = NULL;
	char title[96];

	doctor->source = place->name;
	(void)snprintf(title, sizeof(title), "Database %s", place->name);
	begin_section(doctor, title);
	if (skald__place_try(doctor->cli, place, &sql, &err)) {
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "database",
			strcmp(place->name, "main")
				? "is the server up, and the url of this source right?"
				: "is the server up, and --database or database.url "
				  "right?",
			"%s", err.text);
		return;
	}
	check_server(doctor, sql);
	check_durability(doctor, sql);
	if (check_schema(doctor, sql)) {
		check_rights(doctor, sql);
		skald__doctor_outbox(doctor, sql);
		skald__doctor_wal(doctor, sql);
		check_consumers(doctor, sql);
		check_letters(doctor, sql);
		check_sagas(doctor, sql, cluster);
		if (cluster) {
			skald__doctor_topics(doctor, cluster, sql);
			skald__doctor_position(doctor, cluster, sql);
		}
	}
	skald_sql_close(sql);
}

/* Kafka, if it can be reached: then the topics are looked at, too. */
static void
check_kafka(struct skald__doctor *doctor, struct skald_kafka_props **props,
	struct skald_cluster **cluster)
{
	struct skald_err err = SKALD_ERR_INIT;

	begin_section(doctor, "Kafka");
	check_library(doctor);
	if (skald_kafka_props_create(props, doctor->cli->config, &err) ||
		skald_cluster_open(cluster, *props, &err)) {
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "brokers",
			"--brokers HOST:PORT, or kafka.bootstrap.servers", "%s",
			err.text);
		return;
	}
	if (!check_cluster(doctor, *cluster)) {
		skald_cluster_close(*cluster);
		*cluster = NULL;
	}
}

enum skald__exit
skald__cmd_doctor(struct skald__cli *cli)
{
	struct skald__doctor doctor = { .cli = cli };
	struct skald_kafka_props *props = NULL;
	struct skald_cluster *cluster = NULL;
	struct skald__places places;
	enum skald__exit status = skald__places_find(cli, true, &places);

	if (status)
		return status;
	begin_section(&doctor, "This program");
	check_config(&doctor);
	check_kafka(&doctor, &props, &cluster);
	for (unsigned i = 0; i < places.count; i++)
		check_database(&doctor, &places.items[i], cluster);
	if (!cli->is_json)
		printf("\n%s%u ok, %u to look at, %u failed%s\n",
			skald__paint(cli, doctor.counts[SKALD_VERDICT_FAIL]
						  ? SKALD_PAINT_BAD
						  : SKALD_PAINT_GOOD),
			doctor.counts[SKALD_VERDICT_OK],
			doctor.counts[SKALD_VERDICT_WARN],
			doctor.counts[SKALD_VERDICT_FAIL], skald__unpaint(cli));
	skald_cluster_close(cluster);
	skald_kafka_props_destroy(props);
	return doctor.counts[SKALD_VERDICT_FAIL] ? SKALD_EXIT_NO : SKALD_EXIT_DONE;
}
