/* Starting sagas in SQL: one for a key, again or not, by many callers at once. */
#include <pthread.h>

#include "tests/support/check.h"
#include "tests/support/pg.h"

enum { CALLERS = 20 };

static struct skald_sql *sql;

/* The SQLSTATE of a statement that must fail; "" when it did not. */
static const char *
refusal(const char *statement)
{
	static char code[8];
	struct skald_err err = SKALD_ERR_INIT;

	code[0] = '\0';
	if (skald_sql_exec(sql, statement, &err))
		snprintf(code, sizeof(code), "%s", err.code);
	return code;
}

static void
finish(const char *key, const char *outcome)
{
	char statement[256];

	snprintf(statement, sizeof(statement),
		"UPDATE skald.saga SET status = 'finished', outcome = '%s' WHERE key = "
		"'%s'",
		outcome, key);
	pg_exec(sql, statement);
}

/* The run that a start of this key with this word and input gives: 0: refused with SK003. */
static int
run_of(const char *key, const char *again, const char *input)
{
	char query[512];
	const char *id;
	struct skald_err err = SKALD_ERR_INIT;

	snprintf(query, sizeof(query),
		"CREATE TEMP TABLE IF NOT EXISTS got (id uuid); TRUNCATE got;"
		" INSERT INTO got SELECT skald.saga_start(name => 'order', key => '%s',"
		" input => '%s', again => '%s')",
		key, input, again);
	if (skald_sql_exec(sql, query, &err)) {
		CHECK_TEXT(err.code, "SK003");
		return 0;
	}
	id = pg_text(sql, "SELECT run FROM skald.saga WHERE id = (SELECT id FROM got)");
	return id[0] - '0';
}

static void
one_row_and_its_input(void)
{
	pg_exec(sql, "SELECT skald.saga_start('order', 'one', '{\"n\": 9007199254740993,"
		     " \"a\": 10.00}', correlation_id => 'corr')");
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM skald.saga WHERE key = 'one'"
			    " AND status = 'running' AND state = '' AND seq = 0"
			    " AND due_at <= clock_timestamp() AND version = 2 AND run = 1"
			    " AND correlation_id = 'corr'"
			    " AND skald.trace_is_valid(traceparent)"),
		1);
	CHECK_TEXT(pg_text(sql, "SELECT data FROM skald.saga_data d JOIN skald.saga s"
				" ON s.id = d.saga_id WHERE key = 'one'"),
		"{\"a\": 10.00, \"n\": 9007199254740993}");
	pg_exec(sql, "SELECT skald.saga_start('order', 'two', '{}', version => 1)");
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM skald.saga WHERE key = 'two' AND"
			    " version = 1 AND correlation_id = id::text"),
		1);
	CHECK_TEXT(pg_text(sql, "SELECT waiting_for #>> '{0,what}' FROM skald.sagas"
				" WHERE key = 'two'"),
		"daemon");
}

static void
the_again_matrix(void)
{
	static const char *const outcomes[] = { NULL, "completed", "failed", "cancelled",
		"expired" };
	static const struct {
		const char *again;
		int same[5], other[5]; /* the run by outcome; 0: SK003 */
	} rows[] = {
		{ "never", { 1, 1, 1, 1, 1 }, { 0, 0, 0, 0, 0 } },
		{ "failed", { 1, 1, 2, 2, 2 }, { 0, 0, 2, 2, 2 } },
		{ "finished", { 1, 2, 2, 2, 2 }, { 0, 2, 2, 2, 2 } },
	};

	for (unsigned r = 0; r < 3; r++)
		for (unsigned o = 0; o < 5; o++)
			for (int other = 0; other < 2; other++) {
				char key[32];
				int want = other ? rows[r].other[o] : rows[r].same[o];
				int got;

				snprintf(key, sizeof(key), "again-%u-%u-%d", r, o, other);
				CU_ASSERT_EQUAL(run_of(key, "never", "{\"x\": 1}"), 1);
				if (outcomes[o])
					finish(key, outcomes[o]);
				got = run_of(key, rows[r].again,
					other ? "{\"x\": 2}" : "{ \"x\" : 1 }");
				if (got != want)
					printf("\n    again %s, outcome %s, %s input: "
					       "run "
					       "%d, not %d",
						rows[r].again,
						outcomes[o] ? outcomes[o] : "open",
						other ? "other" : "same", got, want);
				CU_ASSERT_EQUAL(got, want);
			}
}

static void
rolled_back_starts_nothing(void)
{
	pg_exec(sql, "BEGIN; SELECT skald.saga_start('order', 'back', '{}'); ROLLBACK");
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM skald.saga WHERE key = 'back'"), 0);
	CU_ASSERT_EQUAL(run_of("back", "never", "{\"other\": 1}"), 1);
}

struct caller {
	pthread_t thread;
	struct skald_sql *session;
	char id[40];
};

/* pg_text keeps its text for all threads: so each asks by itself. */
static void *
call(void *arg)
{
	struct caller *c = arg;
	struct skald_rows *rows = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_sql_query(c->session,
		    "SELECT skald.saga_start('order', 'race', '{\"x\": 1}')::text", NULL,
		    0, false, &rows, &err))
		snprintf(c->id, sizeof(c->id), "%.39s", err.text);
	else
		(void)skald_slice_copy(skald_rows_get(rows, 0, 0), c->id, sizeof(c->id));
	skald_rows_free(rows);
	return NULL;
}

static void
twenty_callers_one_saga(void)
{
	static struct caller callers[CALLERS];
	struct skald_sql *watch = pg_session("orders", "postgres", SKALD_SQL_TOOL);

	pg_exec(sql, "BEGIN; SELECT skald.saga_start('order', 'race', '{\"x\": 1}')");
	for (int i = 0; i < CALLERS; i++) {
		callers[i].session = pg_session("orders", "postgres", SKALD_SQL_TOOL);
		(void)pthread_create(&callers[i].thread, NULL, call, &callers[i]);
	}
	/* all of them wait for the open transaction; it starts nothing after all */
	while (pg_int(watch, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type"
			     " = 'Lock' AND query LIKE '%saga_start%'") < CALLERS)
		;
	skald_sql_close(watch);
	pg_exec(sql, "ROLLBACK");
	for (int i = 0; i < CALLERS; i++) {
		(void)pthread_join(callers[i].thread, NULL);
		CHECK_TEXT(callers[i].id, callers[0].id);
		skald_sql_close(callers[i].session);
	}
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM skald.saga WHERE key = 'race'"), 1);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM skald.saga_data d JOIN skald.saga s"
			    " ON s.id = d.saga_id WHERE key = 'race'"),
		1);
}

static void
what_nobody_refers_to_is_weighed_only(void)
{
	pg_exec(sql, "SELECT skald.saga_start('order', 'heavy', '{\"a\": \"bc\"}')");
	CHECK_TEXT(
		pg_text(sql, "SELECT string_agg(concat_ws(' ', l.name, l.data, l.bytes),"
			     " '; ' ORDER BY w) FROM skald.saga AS s, unnest(ARRAY[true,"
			     " false]) AS w, skald.orchestrator_look(ARRAY[s.id, s.id],"
			     " ARRAY['$input', 'reserve'], ARRAY[w, w]) AS l"
			     " WHERE key = 'heavy'"),
		"$input 11; $input {\"a\": \"bc\"} 11");
}

static void
misuse_has_its_code(void)
{
	CHECK_TEXT(refusal("SELECT skald.saga_start('Order', 'k', '{}')"), "SK001");
	CHECK_TEXT(refusal("SELECT skald.saga_start(NULL, 'k', '{}')"), "SK001");
	CHECK_TEXT(refusal("SELECT skald.saga_start('order', '', '{}')"), "SK001");
	CHECK_TEXT(refusal("SELECT skald.saga_start('order', repeat('k', 256), '{}')"),
		"SK007");
	CHECK_TEXT(refusal("SELECT skald.saga_start('order', 'k', '[]')"), "SK001");
	CHECK_TEXT(refusal("SELECT skald.saga_start('order', 'k', NULL)"), "SK001");
	CHECK_TEXT(refusal("SELECT skald.saga_start('order', 'k', jsonb_build_object('x',"
			   " repeat('x', 262144)))"),
		"SK007");
	CHECK_TEXT(
		refusal("SELECT skald.saga_start('order', 'k', '{}', again => 'maybe')"),
		"SK001");
	CHECK_TEXT(refusal("SELECT skald.saga_start('order', 'k', '{}', correlation_id =>"
			   " repeat('c', 256))"),
		"SK007");
	CHECK_TEXT(refusal("SELECT skald.saga_start('nothing', 'k', '{}')"), "SK004");
	CHECK_TEXT(refusal("SELECT skald.saga_start('order', 'k', '{}', version => 9)"),
		"SK004");
	pg_exec(sql, "SELECT skald.operator_act('saga.retire', 'order', 'me', 'old',"
		     " '{\"version\": 1}')");
	CHECK_TEXT(refusal("SELECT skald.saga_start('order', 'k', '{}', version => 1)"),
		"SK006");
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM skald.saga WHERE key = 'k'"), 0);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.audit WHERE action ="
				    " 'saga.retire' AND actor = 'me'"),
		1);
}

static void
nobody_serves_this_database(void)
{
	struct skald_sql *other = pg_open("elsewhere", SKALD_SQL_TOOL);
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(skald_sql_exec(other,
				"SELECT skald.saga_start('order', 'k', '{}')", &err),
		SKALD_FATAL);
	CHECK_TEXT(err.code, "SK005");
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "skald.saga.commands"));
	skald_sql_close(other);
}

static void
versions_are_deployed_once(void)
{
	CHECK_TEXT(pg_text(sql,
			   "SELECT skald.operator_act('saga.deploy', 'order', 'me', NULL,"
			   " '{\"version\": 2, \"hash\": \"h2\", \"body\": \"{}\"}')"
			   " ->> 'state'"),
		"unchanged");
	CHECK_TEXT(refusal("SELECT skald.operator_act('saga.deploy', 'order', 'me', NULL,"
			   " '{\"version\": 2, \"hash\": \"h3\", \"body\": \"{}\"}')"),
		"SK003");
	pg_exec(sql, "SELECT skald.operator_act('saga.use', 'order', 'me', NULL,"
		     " '{\"version\": 2}')");
	CHECK_TEXT(
		pg_text(sql, "SELECT string_agg(version || current::text || retired, ','"
			     " ORDER BY version) FROM skald.saga_definitions"),
		"1falsetrue,2truefalse");
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(one_row_and_its_input),
		CHECK(the_again_matrix), CHECK(rolled_back_starts_nothing),
		CHECK(twenty_callers_one_saga),
		CHECK(what_nobody_refers_to_is_weighed_only), CHECK(misuse_has_its_code),
		CHECK(nobody_serves_this_database), CHECK(versions_are_deployed_once) };
	int status;

	sql = pg_open("orders", SKALD_SQL_TOOL);
	pg_exec(sql, "INSERT INTO skald.installation (installation, reply_topic)"
		     " VALUES ('orders', 'skald.replies.orders')");
	for (int version = 1; version <= 2; version++) {
		char statement[256];

		snprintf(statement, sizeof(statement),
			"SELECT skald.operator_act('saga.deploy', 'order', 'me', NULL,"
			" '{\"version\": %d, \"hash\": \"h%d\", \"body\": \"{}\"}')",
			version, version);
		pg_exec(sql, statement);
	}
	status = check_main("contract.saga.start", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	return status;
}
