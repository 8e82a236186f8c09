#include <pthread.h>

#include "base/clock.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

/* The order of the cases matters: the first ones want a cluster without our roles. */

static void
make_database(const char *name, const char *owner)
{
	struct skald_sql *sql = pg_session("postgres", "postgres", SKALD_SQL_TOOL);
	char script[128];

	pg_create(name, false);
	if (owner) {
		(void)snprintf(script, sizeof(script), "ALTER DATABASE %s OWNER TO %s",
			name, owner);
		pg_exec(sql, script);
	}
	skald_sql_close(sql);
}

static enum skald_rc
migrate(const char *database, const char *role, bool no_roles,
	struct skald_migrate_report *report, struct skald_err *err)
{
	struct skald_sql *sql = pg_session(database, role, SKALD_SQL_TOOL);
	enum skald_rc rc = skald_migrate(sql, no_roles, report, err);

	CU_ASSERT_FALSE(skald_sql_is_in_transaction(skald_sql_conn(sql)));
	skald_sql_close(sql);
	return rc;
}

static const char *
ask(const char *database, const char *role, const char *query)
{
	static char text[4096];
	struct skald_sql *sql = pg_session(database, role, SKALD_SQL_TOOL);

	(void)snprintf(text, sizeof(text), "%s", pg_text(sql, query));
	skald_sql_close(sql);
	return text;
}

static const char *
code_of(const char *database, const char *role, const char *statement)
{
	static struct skald_err err;
	struct skald_sql *sql = pg_session(database, role, SKALD_SQL_TOOL);

	memset(&err, 0, sizeof(err));
	(void)!skald_sql_exec(sql, statement, &err);
	skald_sql_close(sql);
	return err.code;
}

static void
nothing_there_is_said(void)
{
	struct skald_sql *sql = pg_session("postgres", "postgres", SKALD_SQL_TOOL);
	struct skald_err err = SKALD_ERR_INIT;
	int have = -1, want = -1;

	CU_ASSERT_EQUAL(skald_migrate_version(sql, &have, &want, &err), SKALD_OK);
	CU_ASSERT_EQUAL(have, 0);
	CU_ASSERT(want >= 1);
	CU_ASSERT_EQUAL(skald_migrate_check(sql, &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "3F000");
	CHECK_TEXT(
		err.text, "schema skald: missing in this database; run skald db migrate");
	skald_sql_close(sql);
}

#define ROLES \
	"SELECT count(*) FROM pg_roles WHERE rolname LIKE 'skald\\_%' AND " \
	"rolname <> 'skald_plain'"

static void
without_roles_it_belongs_to_whoever_migrates(void)
{
	struct skald_migrate_report report = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_sql *sql = pg_session("postgres", "postgres", SKALD_SQL_TOOL);

	pg_exec(sql, "CREATE ROLE skald_plain LOGIN");
	skald_sql_close(sql);
	make_database("plain", "skald_plain");
	/* no right to create roles: the error names the way out, nothing is half there */
	CU_ASSERT_EQUAL(
		migrate("plain", "skald_plain", false, &report, &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "42501");
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "--no-roles"));
	CHECK_TEXT(
		ask("plain", "postgres", "SELECT count(to_regnamespace('skald'))"), "0");

	CU_ASSERT_EQUAL(migrate("plain", "skald_plain", true, &report, &err), SKALD_OK);
	CU_ASSERT_TRUE(report.roles_missing);
	CU_ASSERT_EQUAL(report.version_before, 0);
	CU_ASSERT(report.version_after >= 1);
	CHECK_TEXT(ask("plain", "postgres", ROLES), "0");
	CHECK_TEXT(
		ask("plain", "postgres",
			"SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ' ') FROM"
			" pg_class WHERE relnamespace = 'skald'::regnamespace"),
		"skald_plain");
	CHECK_TEXT(code_of("plain", "skald_plain",
			   "SELECT skald.outbox_add('t','k','t','{}')"),
		"");
	CU_ASSERT_EQUAL(migrate("plain", "skald_plain", true, &report, &err), SKALD_OK);
	CU_ASSERT_EQUAL(report.functions_replaced, 0);
	CU_ASSERT_PTR_NOT_NULL(
		strstr(skald_migrate_roles_sql(), "CREATE ROLE skald_app"));
}

/* --- at once ------------------------------------------------------------------------------------ */

struct racer {
	const char *database;
	enum skald_rc rc;
	struct skald_err err;
	struct skald_migrate_report report;
};

static void *
race(void *arg)
{
	struct racer *r = arg;
	struct skald_sql *sql = pg_session(r->database, "postgres", SKALD_SQL_DAEMON);

	r->rc = skald_migrate(sql, false, &r->report, &r->err);
	skald_sql_close(sql);
	return NULL;
}

static void
two_sessions_in_each_of_two_databases_at_once(void)
{
	struct racer racers[4] = { { .database = "race_a" }, { .database = "race_a" },
		{ .database = "race_b" }, { .database = "race_b" } };
	pthread_t threads[4];

	make_database("race_a", NULL);
	make_database("race_b", NULL);
	for (int i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
	for (int i = 0; i < 4; i++) {
		CU_ASSERT_EQUAL(pthread_join(threads[i], NULL), 0);
		if (racers[i].rc)
			printf("\n    %s: %s %s", racers[i].database, racers[i].err.code,
				racers[i].err.text);
		CU_ASSERT_EQUAL(racers[i].rc, SKALD_OK);
		CU_ASSERT_FALSE(racers[i].report.roles_missing);
	}
	for (int i = 0; i < 4; i += 2) { /* one installed, the other found it */
		CU_ASSERT_EQUAL(racers[i].report.version_before +
					racers[i + 1].report.version_before,
			racers[i].report.version_after);
		CU_ASSERT_EQUAL(racers[i].report.functions_replaced *
					racers[i + 1].report.functions_replaced,
			0);
		CHECK_TEXT(
			ask(racers[i].database, "postgres",
				"SELECT string_agg(version::text, ' ' ORDER BY version) "
				"|| ' ' || (SELECT"
				" count(*) FROM skald.relay) FROM skald.schema_version"),
			"1 2 3 4 5 1");
	}
	CHECK_TEXT(ask("race_a", "postgres", ROLES), "5");
	CU_ASSERT(strcmp(ask("race_a", "postgres", "SELECT stream FROM skald.relay"),
			  "") != 0);
}

static void
the_relay_begins_with_everything_outstanding(void)
{
	CHECK_TEXT(ask("race_a", "postgres",
			   "SELECT mode || ' ' || tick || ' ' || term || ' ' ||"
			   " (stream ~ '^[0-9a-f]{16}$') || ' ' ||"
			   " (abs(epoch - extract(epoch FROM now())) < 600) || ' ' ||"
			   " (system_identifier = (SELECT system_identifier::text FROM"
			   "   pg_control_system())) || ' ' || timeline || ' ' ||"
			   " acked_snapshot || ' ' || tick_snapshot || ' ' || done_id"
			   " FROM skald.relay"),
		"poll 0 0 true true true 00000001 1:1: 1:1: -1");
	CHECK_TEXT(ask("race_a", "postgres",
			   "SELECT skald.outbox_add('t', 'k', 't', '{}') IS NOT NULL"),
		"t");
	CHECK_TEXT(
		ask("race_a", "postgres",
			"SELECT source || ' ' || lag_rows || ' ' || (lag_seconds >= 0) ||"
			" ' ' || parked_keys FROM skald.relays"),
		"main 1 true 0");
	CHECK_TEXT(
		code_of("race_a", "postgres",
			"UPDATE skald.relay SET acked_snapshot = pg_current_snapshot()"),
		"");
	CHECK_TEXT(ask("race_a", "postgres",
			   "SELECT lag_rows || ' ' || lag_seconds FROM skald.relays"),
		"0 0");
}

/* --- again --------------------------------------------------------------------------------------- */

static void
twice_is_once(void)
{
	struct skald_migrate_report report = { 0 };
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(migrate("race_a", "postgres", false, &report, &err), SKALD_OK);
	CU_ASSERT_EQUAL(report.version_before, report.version_after);
	CU_ASSERT_EQUAL(report.functions_replaced, 0);
	CU_ASSERT_FALSE(report.roles_missing);
}

static void
a_changed_file_is_applied_again_with_the_rights(void)
{
	struct skald_sql *sql = pg_session("race_a", "postgres", SKALD_SQL_TOOL);
	struct skald_migrate_report report = { 0 };
	struct skald_err err = SKALD_ERR_INIT;

	pg_exec(sql,
		"UPDATE skald.function_file SET hash = 'old' WHERE name = 'views.sql';"
		"DROP VIEW skald.audit;"
		"REVOKE EXECUTE ON FUNCTION skald.context(jsonb) FROM skald_app");
	CU_ASSERT_EQUAL(migrate("race_a", "postgres", false, &report, &err), SKALD_OK);
	CU_ASSERT_EQUAL(report.functions_replaced, 2); /* views and rights */
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.audit"), 0);
	CHECK_TEXT(pg_text(sql, "SELECT has_function_privilege('skald_app',"
				" 'skald.context(jsonb)', 'EXECUTE')"),
		"t");
	CHECK_TEXT(pg_text(sql, "SELECT length(hash) FROM skald.function_file"
				" WHERE name = 'views.sql'"),
		"64");
	skald_sql_close(sql);
}

static void
a_newer_schema_is_left_alone(void)
{
	struct skald_sql *sql = pg_session("race_b", "postgres", SKALD_SQL_TOOL);
	struct skald_migrate_report report = { 0 };
	struct skald_err err = SKALD_ERR_INIT;

	pg_exec(sql, "INSERT INTO skald.schema_version (version) VALUES (999);"
		     "UPDATE skald.function_file SET hash = 'newer'");
	CU_ASSERT_EQUAL(migrate("race_b", "postgres", false, &report, &err), SKALD_OK);
	CU_ASSERT_EQUAL(report.version_after, 999);
	CU_ASSERT_EQUAL(report.functions_replaced, 0);
	CU_ASSERT_EQUAL(skald_migrate_check(sql, &err), SKALD_OK);
	pg_exec(sql, "DELETE FROM skald.schema_version");
	CU_ASSERT_EQUAL(skald_migrate_check(sql, &err), SKALD_FATAL);
	skald_sql_close(sql);
}

static void
what_fails_in_the_middle_leaves_nothing(void)
{
	struct skald_migrate_report report = { .version_after = -5 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_sql *sql;

	make_database("broken", NULL);
	sql = pg_session("broken", "postgres", SKALD_SQL_TOOL);
	pg_exec(sql, "CREATE SCHEMA skald AUTHORIZATION skald_owner;"
		     "CREATE VIEW skald.audit_entry AS SELECT 1");
	CU_ASSERT_NOT_EQUAL(
		migrate("broken", "postgres", false, &report, &err), SKALD_OK);
	CHECK_TEXT(err.code, "42P07");
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "0001.sql"));
	CU_ASSERT_EQUAL(report.version_after, -5); /* written on success only */
	CHECK_TEXT(pg_text(sql, "SELECT count(*) FROM pg_class"
				" WHERE relnamespace = 'skald'::regnamespace"),
		"1");
	pg_exec(sql, "DROP VIEW skald.audit_entry");
	CU_ASSERT_EQUAL(migrate("broken", "postgres", false, &report, &err), SKALD_OK);
	skald_sql_close(sql);
}

static void
a_role_that_may_create_roles_is_enough(void)
{
	struct skald_sql *sql = pg_session("postgres", "postgres", SKALD_SQL_TOOL);
	struct skald_migrate_report report = { 0 };
	struct skald_err err = SKALD_ERR_INIT;

	pg_exec(sql, "CREATE ROLE builder LOGIN CREATEROLE");
	skald_sql_close(sql);
	make_database("built", "builder");
	CU_ASSERT_EQUAL(migrate("built", "builder", false, &report, &err), SKALD_OK);
	if (err.text[0])
		printf("\n    %s", err.text);
	CHECK_TEXT(ask("built", "postgres",
			   "SELECT pg_get_userbyid(relowner) FROM pg_class"
			   " WHERE oid = 'skald.outbox'::regclass"),
		"skald_owner");
	CU_ASSERT_EQUAL(migrate("built", "builder", false, &report, &err), SKALD_OK);
	CU_ASSERT_EQUAL(report.functions_replaced, 0);
}

/* --- what WAL mode reads ------------------------------------------------------------------------ */

#define PUBLICATION \
	"SELECT coalesce(string_agg(concat_ws(' ', p.pubinsert, p.pubupdate," \
	" p.pubdelete, p.pubtruncate, p.pubviaroot, t.schemaname, t.tablename), ','), " \
	"'')" \
	" FROM pg_publication AS p LEFT JOIN pg_publication_tables AS t USING (pubname)" \
	" WHERE p.pubname = 'skald_outbox'"
#define AS_IT_SHOULD_BE "t f f f t skald outbox"

static void
the_publication_is_there_for_whoever_migrates(void)
{
	CHECK_TEXT(ask("plain", "postgres", PUBLICATION), AS_IT_SHOULD_BE);
	CHECK_TEXT(ask("race_a", "postgres", PUBLICATION), AS_IT_SHOULD_BE);
	CHECK_TEXT(ask("race_b", "postgres", PUBLICATION), AS_IT_SHOULD_BE);
	CHECK_TEXT(ask("built", "postgres", PUBLICATION), AS_IT_SHOULD_BE);
}

static void
the_publication_is_put_right(void)
{
	static const char *const breaks[] = { "DROP PUBLICATION skald_outbox",
		"ALTER PUBLICATION skald_outbox SET (publish = 'insert, update')",
		"ALTER PUBLICATION skald_outbox SET (publish_via_partition_root = false)",
		"ALTER PUBLICATION skald_outbox DROP TABLE skald.outbox" };
	struct skald_migrate_report report = { 0 };
	struct skald_err err = SKALD_ERR_INIT;

	for (size_t i = 0; i < CHECK_COUNT(breaks); i++) {
		CHECK_TEXT(code_of("race_a", "postgres", breaks[i]), "");
		CU_ASSERT(strcmp(ask("race_a", "postgres", PUBLICATION),
				  AS_IT_SHOULD_BE) != 0);
		CU_ASSERT_EQUAL(
			migrate("race_a", "postgres", false, &report, &err), SKALD_OK);
		CU_ASSERT_EQUAL(report.functions_replaced, 0);
		CHECK_TEXT(ask("race_a", "postgres", PUBLICATION), AS_IT_SHOULD_BE);
	}
}

/* May become the tables' owner, but is not: the migration goes on, without. */
static void
without_the_right_to_publish_the_rest_is_done(void)
{
	struct skald_sql *sql = pg_session("postgres", "postgres", SKALD_SQL_TOOL);
	struct skald_migrate_report report = { 0 };
	struct skald_err err = SKALD_ERR_INIT;

	pg_exec(sql, "CREATE ROLE apart LOGIN CREATEROLE NOINHERIT");
	skald_sql_close(sql);
	make_database("apart", "apart");
	CU_ASSERT_EQUAL(migrate("apart", "apart", false, &report, &err), SKALD_OK);
	CU_ASSERT(report.version_after >= 1);
	CHECK_TEXT(ask("apart", "postgres", PUBLICATION), "");
	CHECK_TEXT(ask("apart", "postgres", "SELECT to_regclass('skald.outbox')"),
		"skald.outbox");
	CU_ASSERT_EQUAL(migrate("apart", "postgres", false, &report, &err), SKALD_OK);
	CHECK_TEXT(ask("apart", "postgres", PUBLICATION), AS_IT_SHOULD_BE);
}

static void
roles_made_later_get_their_rights(void)
{
	/* the roles exist by now; "plain" was migrated without them */
	CHECK_TEXT(code_of("plain", "shop", "SELECT skald.outbox_add('t','k','t','{}')"),
		"42501");
	CHECK_TEXT(code_of("plain", "skald_plain", "SELECT skald.apply_rights()"), "");
	CHECK_TEXT(code_of("plain", "shop", "SELECT skald.outbox_add('t','k','t','{}')"),
		"");
}

/* --- rights -------------------------------------------------------------------------------------- */

static void
each_role_may_what_it_needs(void)
{
	static const struct {
		const char *role, *statement, *code;
	} cases[] = {
		{ "shop", "SELECT skald.outbox_add('t', 'k', 't', '{}')", "" },
		{ "shop", "SELECT skald.outbox_add_bytes('t', 'k', 't', '{}', 'x')", "" },
		{ "shop", "SELECT skald.context('{}')", "" },
		{ "shop", "SELECT * FROM skald.outbox", "42501" },
		{ "shop", "SELECT * FROM skald.dead_letter_entry", "42501" },
		{ "shop", "SELECT id FROM skald.dead_letters", "42501" },
		{ "shop", "INSERT INTO skald.lease VALUES ('a', 'b', 'c', 1, now())",
			"42501" },
		{ "shop", "SELECT skald.uuid7()", "42501" },
		{ "shop",
			"SELECT skald.outbox_put(NULL, 't', NULL, 't', 's', NULL, NULL, "
			"NULL,"
			" NULL, NULL, NULL, NULL, NULL)",
			"42501" },
		{ "shop", "SELECT nextval('skald.outbox_id')", "42501" },
		{ "shop", "SELECT version FROM skald.schema_version", "" },
		{ "watcher",
			"SELECT id, topic, class, code, message, state FROM"
			" skald.dead_letters",
			"" },
		{ "watcher", "SELECT key FROM skald.dead_letters", "42501" },
		{ "watcher", "SELECT value FROM skald.dead_letters", "42501" },
		{ "watcher", "SELECT headers FROM skald.dead_letters", "42501" },
		{ "watcher", "SELECT * FROM skald.relays", "" },
		{ "watcher", "SELECT * FROM skald.consumers", "" },
		{ "watcher", "SELECT * FROM skald.parked", "" },
		{ "watcher", "SELECT * FROM skald.audit", "" },
		{ "watcher", "SELECT data FROM skald.outbox", "42501" },
		{ "watcher", "SELECT headers FROM skald.outbox", "42501" },
		{ "watcher", "SELECT id, topic, type, at FROM skald.outbox", "" },
		{ "watcher", "SELECT * FROM skald.dead_letter_entry", "42501" },
		{ "watcher", "SELECT skald.outbox_add('t', 'k', 't', '{}')", "42501" },
		{ "person", "SELECT key, value, headers FROM skald.dead_letters", "" },
		{ "person", "SELECT data FROM skald.outbox", "" },
		{ "person", "UPDATE skald.dead_letter_entry SET state = 'dead'",
			"42501" },
		{ "person", "SELECT skald.outbox_add('t', 'k', 't', '{}')", "42501" },
		{ "loop", "SELECT data FROM skald.outbox", "" },
		{ "loop", "UPDATE skald.relay SET heartbeat_at = now()", "" },
		{ "loop", "INSERT INTO skald.lease VALUES ('a', 'b', 'c', 1, now())",
			"" },
		{ "loop", "INSERT INTO skald.relay_mark VALUES (now(), '1:1:')", "" },
		{ "loop", "SELECT skald.outbox_add('t', 'k', 't', '{}')", "" },
		{ "loop", "DELETE FROM skald.outbox", "42501" },
		{ "loop", "TRUNCATE skald.outbox_0", "42501" },
		{ "loop", "SELECT done FROM skald.consumer_lane", "" },
		{ "nobody", "SELECT skald.outbox_add('t', 'k', 't', '{}')", "42501" },
		{ "nobody", "SELECT skald.context('{}')", "42501" },
		{ "nobody", "SELECT * FROM skald.relays", "42501" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *code = code_of("race_a", cases[i].role, cases[i].statement);

		if (strcmp(code, cases[i].code) != 0)
			printf("\n    %s: %s", cases[i].role, cases[i].statement);
		CHECK_TEXT(code, cases[i].code);
	}
}

/* Over all functions there are, also those of the next release. */
static void
functions_are_closed_unless_granted(void)
{
	CHECK_TEXT(ask("race_a", "postgres",
			   "SELECT string_agg(p.oid::regprocedure::text, ' ') FROM "
			   "pg_proc AS p,"
			   " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) "
			   "AS a"
			   " WHERE p.pronamespace = 'skald'::regnamespace AND a.grantee "
			   "= 0"),
		"");
	CHECK_TEXT(
		ask("race_a", "postgres",
			"SELECT string_agg(DISTINCT p.oid::regprocedure::text, ' ') FROM"
			" pg_proc AS p, aclexplode(p.proacl) AS a"
			" WHERE p.pronamespace = 'skald'::regnamespace"
			" AND a.grantee <> p.proowner AND (NOT p.prosecdef OR"
			" 'search_path=pg_catalog, pg_temp' <> ALL (p.proconfig))"),
		"");
	CHECK_TEXT(ask("race_a", "postgres",
			   "SELECT string_agg(DISTINCT relname, ' ') FROM pg_class AS c,"
			   " aclexplode(c.relacl) AS a WHERE relnamespace ="
			   " 'skald'::regnamespace AND (a.grantee = 0 OR"
			   " pg_get_userbyid(c.relowner) <> 'skald_owner')"),
		"");
	/* no two functions of one name: a short call would be ambiguous */
	CHECK_TEXT(ask("race_a", "postgres",
			   "SELECT string_agg(proname, ' ') FROM (SELECT proname FROM "
			   "pg_proc"
			   " WHERE pronamespace = 'skald'::regnamespace GROUP BY proname"
			   " HAVING count(*) > 1) AS p"),
		"");
}

static void
views_have_the_published_columns(void)
{
	CHECK_TEXT(ask("race_a", "postgres",
			   "SELECT string_agg(t, '; ' ORDER BY t) FROM (SELECT c.relname "
			   "|| ': ' ||"
			   " string_agg(a.attname, ' ' ORDER BY a.attnum) AS t FROM "
			   "pg_class AS c"
			   " JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > "
			   "0 WHERE"
			   " c.relnamespace = 'skald'::regnamespace AND c.relkind = 'v'"
			   " GROUP BY c.relname) AS v"),
		"audit: at actor session_role action target reason before after; "
		"consumers: consumer_group topic partition lane position term owner lag; "
		"dead_letters: id at consumer_group topic partition record_offset key "
		"value"
		" headers message_id class code message fingerprint attempts state"
		" correlation_id replay_run; "
		"parked: kind place topic key head_message_id waiting since next_at "
		"reason code attempts releasing; "
		"relays: source mode stream term epoch position lag_rows lag_bytes"
		" lag_seconds parked_keys owner heartbeat_at slot slot_status"
		" safe_wal_size wal_held_bytes spill_bytes parked_messages recovering"
		" slot_dropped slot_dropped_at epoch_wanted; "
		"saga_definitions: name version hash current retired open; "
		"saga_events: saga_id seq at kind step op attempt outcome detail "
		"message_id correlation_id traceparent; "
		"sagas: id name version key run correlation_id traceparent status "
		"outcome "
		"undo paused overdue signed reason steps due_at deadline_at created_at "
		"updated_at finished_at input data output waiting_for");
}

static void
consumers_show_lanes_and_lag(void)
{
	struct skald_sql *sql = pg_session("race_a", "postgres", SKALD_SQL_TOOL);

	pg_exec(sql,
		"INSERT INTO skald.consumer_partition (consumer_group, topic, partition,"
		" end_offset) VALUES ('g', 't', 0, 100), ('o', 't', 0, 50);"
		"INSERT INTO skald.consumer_lane (consumer_group, topic, partition, "
		"lane, done,"
		" term, owner) VALUES ('g', 't', 0, 0, 90, 3, 'me'), ('g', 't', 0, 1, "
		"120, 3, 'me'),"
		" ('g', 't', 1, 0, 5, 1, NULL);"
		"INSERT INTO skald.consumer_position VALUES ('g', 't', 0, 0, 's1', 'a'),"
		" ('g', 't', 0, 0, 's2', 'b');"
		"INSERT INTO skald.consumer_offset VALUES ('o', 't', 0, 46)");
	CHECK_TEXT(
		pg_text(sql, "SELECT string_agg(concat_ws(',', consumer_group, partition,"
			     " coalesce(lane, -1), coalesce(position, '-'), "
			     "coalesce(term, -1),"
			     " coalesce(owner, '-'), coalesce(lag, -1)), ' ' ORDER BY"
			     " consumer_group, partition, lane) FROM skald.consumers"),
		"g,0,0,b,3,me,10 g,0,1,-,3,me,0 g,1,0,-,1,-,-1 o,0,-1,-,-1,-,3");
	skald_sql_close(sql);
}

static void
make_people(void)
{
	struct skald_sql *sql = pg_session("postgres", "postgres", SKALD_SQL_TOOL);

	pg_exec(sql, "CREATE ROLE shop LOGIN IN ROLE skald_app;"
		     "CREATE ROLE watcher LOGIN IN ROLE skald_reader;"
		     "CREATE ROLE person LOGIN IN ROLE skald_operator;"
		     "CREATE ROLE loop LOGIN IN ROLE skald_daemon;"
		     "CREATE ROLE nobody LOGIN");
	skald_sql_close(sql);
	CU_PASS("made");
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(nothing_there_is_said),
		CHECK(without_roles_it_belongs_to_whoever_migrates),
		CHECK(two_sessions_in_each_of_two_databases_at_once),
		CHECK(the_relay_begins_with_everything_outstanding), CHECK(twice_is_once),
		CHECK(a_changed_file_is_applied_again_with_the_rights),
		CHECK(a_newer_schema_is_left_alone),
		CHECK(what_fails_in_the_middle_leaves_nothing),
		CHECK(a_role_that_may_create_roles_is_enough),
		CHECK(the_publication_is_there_for_whoever_migrates),
		CHECK(the_publication_is_put_right),
		CHECK(without_the_right_to_publish_the_rest_is_done), CHECK(make_people),
		CHECK(roles_made_later_get_their_rights),
		CHECK(each_role_may_what_it_needs),
		CHECK(functions_are_closed_unless_granted),
		CHECK(views_have_the_published_columns),
		CHECK(consumers_show_lanes_and_lag) };

	(void)pg_port(); /* the threads below find it started */
	return check_main("contract.sql.migrate", cases, CHECK_COUNT(cases));
}
