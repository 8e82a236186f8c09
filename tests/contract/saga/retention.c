/* Finished sagas go when their retention is over; what saga_start needs of them never does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/check.h"
#include "tests/support/pg.h"

static struct skald_sql *sql;

/* The id, or the SQLSTATE. */
static const char *
start(const char *key, const char *again, const char *input)
{
	static char texts[4][64];
	static unsigned next;
	char *text = texts[next++ % 4];
	const struct skald_param params[] = { skald_param_text(key),
		skald_param_text(again), skald_param_text(input) };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (skald_sql_query(sql,
		    "SELECT skald.saga_start(name => 'order', key => $1, again => $2,"
		    " input => $3::jsonb)::text",
		    params, 3, false, &rows, &err))
		(void)snprintf(text, sizeof(texts[0]), "%s", err.code);
	else
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 0), text, sizeof(texts[0]));
	skald_rows_free(rows);
	return text;
}

/* Ended so many days ago, a day after it began, with all that a saga leaves. */
static void
finish(const char *key, const char *outcome, int days)
{
	char script[2048];

	(void)snprintf(script, sizeof(script),
		"CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT id, (lpad(to_hex(("
		" extract(epoch FROM now() - interval '%d days') * 1000)::bigint), 12,"
		" '0') || '7' || substr(replace(id::text, '-', ''), 14))::uuid AS new"
		" FROM skald.saga WHERE key = '%s' AND status <> 'finished';"
		" INSERT INTO skald.saga_event_entry (saga_id, seq, kind) SELECT id, n,"
		"  'command' FROM moved, generate_series(1, 8) AS n;"
		" INSERT INTO skald.saga_data SELECT id, 'reserve', '{}' FROM moved;"
		" INSERT INTO skald.saga_inbox (saga_id, kind) SELECT id, 'signal' FROM"
		"  moved;"
		" UPDATE skald.saga_event_entry AS e SET saga_id = m.new FROM moved AS m"
		"  WHERE e.saga_id = m.id;"
		" UPDATE skald.saga_data AS e SET saga_id = m.new FROM moved AS m WHERE"
		"  e.saga_id = m.id;"
		" UPDATE skald.saga_inbox AS e SET saga_id = m.new FROM moved AS m WHERE"
		"  e.saga_id = m.id;"
		" UPDATE skald.saga AS s SET id = m.new, status = 'finished', outcome ="
		"  '%s', finished_at = now() - interval '%d days', due_at = NULL"
		"  FROM moved AS m WHERE s.id = m.id",
		days + 1, key, outcome, days);
	pg_exec(sql, "BEGIN");
	pg_exec(sql, script);
	pg_exec(sql, "COMMIT");
}

static int64_t
sweep(int max)
{
	char query[128];

	(void)snprintf(query, sizeof(query),
		"SELECT skald.orchestrator_sweep('90 days', %d)", max);
	return pg_int(sql, query);
}

/* Rows of sagas, their data, events and inbox. */
static const char *
what_is_left(const char *key)
{
	char query[1024];

	(void)snprintf(query, sizeof(query),
		"SELECT concat_ws(' ', (SELECT count(*) FROM skald.saga WHERE key = "
		"'%s'),"
		" (SELECT count(*) FROM skald.saga_data AS d JOIN ids ON id = saga_id),"
		" (SELECT count(*) FROM skald.saga_event_entry JOIN ids ON id = saga_id),"
		" (SELECT count(*) FROM skald.saga_inbox AS i JOIN ids ON ids.id ="
		"  saga_id), (SELECT count(*) FROM skald.saga_past WHERE key = '%s'))",
		key, key);
	return pg_text(sql, query);
}

static void
keep_ids(const char *key)
{
	char script[256];

	(void)snprintf(script, sizeof(script),
		"CREATE TEMP TABLE IF NOT EXISTS ids (id uuid); TRUNCATE ids;"
		" INSERT INTO ids SELECT id FROM skald.saga WHERE key = '%s'",
		key);
	pg_exec(sql, script);
}

static void
all_of_it_goes(void)
{
	(void)start("gone", "never", "{}");
	finish("gone", "completed", 91);
	keep_ids("gone");
	CHECK_TEXT(what_is_left("gone"), "1 2 8 1 0");
	CU_ASSERT_EQUAL(sweep(100), 1);
	CHECK_TEXT(what_is_left("gone"), "0 0 0 0 1");
	CU_ASSERT_EQUAL(sweep(100), 0);
	CHECK_TEXT(pg_text(sql, "SELECT concat_ws(' ', name, key, run, version, outcome,"
				" id = (SELECT id FROM ids)) FROM skald.saga_past"),
		"order gone 1 1 completed t");
}

static void
what_is_younger_or_open_stays(void)
{
	(void)start("young", "never", "{}");
	finish("young", "completed", 89); /* it began 90 days ago */
	(void)start("open", "never", "{}");
	finish("open", "failed", 95);
	pg_exec(sql, "UPDATE skald.saga SET status = 'stuck', finished_at = NULL"
		     " WHERE key = 'open'");
	CU_ASSERT_EQUAL(sweep(100), 0);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(*) FROM skald.saga WHERE key IN ('young',"
			    " 'open')"),
		2);
	pg_exec(sql, "DELETE FROM skald.saga");
}

/* As contract.saga.start has it for sagas that are there. */
static void
the_again_matrix_of_what_is_gone(void)
{
	static const char *const outcomes[] = { "completed", "failed", "cancelled",
		"expired" };
	static const struct {
		const char *again;
		int same[4], other[4]; /* run by outcome; 0: SK003 */
	} rows[] = {
		{ "never", { 1, 1, 1, 1 }, { 0, 0, 0, 0 } },
		{ "failed", { 1, 2, 2, 2 }, { 0, 2, 2, 2 } },
		{ "finished", { 2, 2, 2, 2 }, { 2, 2, 2, 2 } },
	};

	for (unsigned r = 0; r < 3; r++)
		for (unsigned o = 0; o < 4; o++)
			for (int other = 0; other < 2; other++) {
				int want = other ? rows[r].other[o] : rows[r].same[o];
				char key[32], first[64], query[256];
				const char *got;

				(void)snprintf(
					key, sizeof(key), "again-%u-%u-%d", r, o, other);
				(void)start(key, "never", "{\"x\": [1.50, \"1.50\"]}");
				finish(key, outcomes[o], 91);
				(void)snprintf(query, sizeof(query),
					"SELECT id FROM skald.saga WHERE key = '%s'",
					key);
				(void)snprintf(
					first, sizeof(first), "%s", pg_text(sql, query));
				CU_ASSERT_EQUAL(sweep(100), 1);
				got = start(key, rows[r].again,
					other ? "{\"x\": [1.50, \"1.5\"]}"
					      : "{ \"x\" : [1.5, \"1.50\"] }");
				if (want < 2) {
					CHECK_TEXT(got, want ? first : "SK003");
					continue;
				}
				(void)snprintf(query, sizeof(query),
					"SELECT run FROM skald.saga WHERE id = '%s'",
					got);
				CU_ASSERT_EQUAL(pg_int(sql, query), want);
			}
	pg_exec(sql, "DELETE FROM skald.saga");
}

static void
runs_go_in_their_order(void)
{
	char second[64];

	(void)start("runs", "never", "{}");
	finish("runs", "failed", 89); /* a late answer has kept it from ending */
	(void)start("runs", "failed", "{}");
	finish("runs", "completed", 95);
	(void)snprintf(second, sizeof(second), "%s",
		pg_text(sql, "SELECT id FROM skald.saga WHERE key = 'runs' AND run = 2"));
	CU_ASSERT_EQUAL(sweep(100), 0);
	CHECK_TEXT(start("runs", "never", "{}"), second);
	pg_exec(sql, "UPDATE skald.saga_data SET saga_id ="
		     " '017f0000-0000-7000-8000-000000000001' WHERE saga_id ="
		     " (SELECT id FROM skald.saga WHERE key = 'runs' AND run = 1);"
		     " UPDATE skald.saga SET finished_at = now() - interval '91 days',"
		     " id = '017f0000-0000-7000-8000-000000000001' WHERE key = 'runs'"
		     " AND run = 1");
	CU_ASSERT_EQUAL(sweep(1), 1);
	CHECK_TEXT(start("runs", "never", "{}"), second);
	CU_ASSERT_EQUAL(sweep(1), 1);
	CHECK_TEXT(start("runs", "never", "{}"), second);
	(void)start("runs", "finished", "{}");
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT max(run) FROM skald.saga WHERE key = 'runs'"), 3);
	pg_exec(sql, "DELETE FROM skald.saga");
}

static void
small_batches_that_wait_for_nobody(void)
{
	struct skald_sql *other = pg_session("orders", "postgres", SKALD_SQL_TOOL);

	for (int i = 0; i < 7; i++) {
		char key[32];

		(void)snprintf(key, sizeof(key), "batch-%d", i);
		(void)start(key, "never", "{}");
		finish(key, "completed", 100);
	}
	pg_exec(other, "BEGIN; SELECT FROM skald.saga WHERE key = 'batch-0' FOR UPDATE");
	CU_ASSERT_EQUAL(sweep(4), 4);
	CU_ASSERT_EQUAL(sweep(4), 2);
	pg_exec(other, "ROLLBACK");
	CU_ASSERT_EQUAL(sweep(4), 1);
	skald_sql_close(other);
}

/* Equal inputs have equal digests, others have not; NULL: both agree on all pairs. */
static void
digests_agree_with_equality(void)
{
	CHECK_TEXT(pg_text(sql,
			   "WITH v(j) AS (VALUES ('{}'::jsonb), ('{\"a\": 1}'),"
			   " ('{\"a\": 1.0}'), ('{\"a\": 1.00, \"b\": 2}'), ('{\"b\": 2,"
			   " \"a\": 1}'), ('{\"a\": \"1.0\"}'), ('{\"a\": \"1\"}'),"
			   " ('{\"a\": 10}'), ('{\"a\": 1e1}'), ('{\"a\": 100.0}'),"
			   " ('{\"a\": 0.10}'), ('{\"a\": 0.1}'), ('{\"a\": 0.010}'),"
			   " ('{\"a\": -0.0}'), ('{\"a\": 0}'), ('{\"a\": [1.50, 2.0]}'),"
			   " ('{\"a\": [1.5, 2]}'), ('{\"a\": \"\\\\\\\" 1.0\"}'),"
			   " ('{\"a\": \"\\\\\\\" 1\"}'), ('{\"1.0\": 1}'),"
			   " ('{\"1\": 1}'), ('{\"a\": 1.05}'), ('{\"a\": 1.050}'),"
			   " ('{\"a\": 1000000000000000000000.000}'), ('{\"a\": 1e21}'))"
			   " SELECT string_agg(x.j::text || y.j, '; ') FROM v AS x,"
			   " v AS y WHERE (x.j = y.j) <> (skald.saga_digest(x.j) ="
			   " skald.saga_digest(y.j))"),
		"");
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT octet_length(skald.saga_digest(jsonb_build_object("
			    "'x', repeat('1.00\"\\', 40000))))"),
		32);
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(all_of_it_goes),
		CHECK(what_is_younger_or_open_stays),
		CHECK(the_again_matrix_of_what_is_gone), CHECK(runs_go_in_their_order),
		CHECK(small_batches_that_wait_for_nobody),
		CHECK(digests_agree_with_equality) };
	int status;

	sql = pg_open("orders", SKALD_SQL_TOOL);
	pg_exec(sql, "INSERT INTO skald.installation (installation, reply_topic)"
		     " VALUES ('orders', 'skald.replies.orders');"
		     "SELECT skald.operator_act('saga.deploy', 'order', 'me', NULL,"
		     " '{\"version\": 1, \"hash\": \"h1\", \"body\": \"{}\"}')");
	status = check_main("contract.saga.retention", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	return status;
}
