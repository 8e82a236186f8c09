#include "base/clock.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

static struct skald_sql *sql;

static void
send(const char *statement, const struct skald_param *params, unsigned count)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(
		skald_pipe_send(sql, statement, params, count, true, &err), SKALD_OK);
}

static void
sync(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(skald_pipe_sync(sql, &err), SKALD_OK);
}

/* The next result's first cell, or -1 after a failure, whose code goes to code. */
static int64_t
take(char code[8])
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	int64_t value = -1;
	enum skald_rc rc = skald_pipe_take(sql, &rows, &err);

	memcpy(code, err.code, 8);
	if (!rc)
		value = skald_rows_count(rows) ? skald_rows_int(rows, 0, 0, -2) : 0;
	skald_rows_free(rows);
	return value;
}

static void
begin(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(skald_pipe_begin(sql, &err), SKALD_OK);
}

static enum skald_rc
end(char code[8])
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = skald_pipe_end(sql, &err);

	memcpy(code, err.code, 8);
	CU_ASSERT_FALSE(skald_conn_is_pipeline(skald_sql_conn(sql)));
	return rc;
}

static void
results_come_in_order(void)
{
	char number[24], code[8];
	struct skald_param param;

	begin();
	CU_ASSERT_TRUE(skald_conn_is_pipeline(skald_sql_conn(sql)));
	for (int i = 0; i < 1000; i++) {
		param = skald_param_int(i, number);
		send("SELECT $1::bigint", &param, 1);
		if (i % 100 == 99)
			sync();
	}
	for (int i = 0; i < 1000; i++)
		CU_ASSERT_EQUAL(take(code), i);
	CU_ASSERT_EQUAL(end(code), SKALD_OK);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT 5"), 5); /* usable afterwards */
}

static void
taking_while_sending_needs_no_sync(void)
{
	char code[8];

	begin();
	send("SELECT 1::bigint", NULL, 0);
	CU_ASSERT_EQUAL(take(code), 1);
	send("SELECT 2::bigint", NULL, 0);
	send("SELECT 3::bigint", NULL, 0);
	CU_ASSERT_EQUAL(take(code), 2);
	send("SELECT 4::bigint", NULL, 0);
	CU_ASSERT_EQUAL(take(code), 3);
	CU_ASSERT_EQUAL(take(code), 4);
	CU_ASSERT_EQUAL(end(code), SKALD_OK);
}

static void
a_failure_skips_up_to_the_sync(void)
{
	char code[8];

	pg_exec(sql, "CREATE TEMP TABLE kept (n int PRIMARY KEY)");
	begin();
	send("INSERT INTO kept VALUES (1)", NULL, 0);
	sync();
	send("INSERT INTO kept VALUES (2)", NULL, 0);
	send("SELECT 1 / 0", NULL, 0);
	send("INSERT INTO kept VALUES (3)", NULL, 0);
	send("SELECT 'never prepared before'", NULL, 0);
	sync();
	send("INSERT INTO kept VALUES (4)", NULL, 0);
	sync();
	CU_ASSERT_EQUAL(take(code), 0);
	CU_ASSERT_EQUAL(take(code), 0);
	for (int i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(take(code), -1);
		CHECK_TEXT(code, "22012");
	}
	CU_ASSERT_EQUAL(take(code), 0);
	CU_ASSERT_EQUAL(end(code), SKALD_OK);
	/* the second segment was one implicit transaction */
	CHECK_TEXT(pg_text(sql, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM kept"),
		"1 4");
	/* what was skipped while being prepared is prepared again */
	begin();
	send("SELECT 'never prepared before'", NULL, 0);
	sync();
	CU_ASSERT_EQUAL(take(code), -2);
	CHECK_TEXT(code, "");
	CU_ASSERT_EQUAL(end(code), SKALD_OK);
}

static void
a_statement_that_cannot_be_prepared(void)
{
	char code[8];

	for (int i = 0; i < 2; i++) {
		begin();
		send("SELECT * FROM nowhere_at_all", NULL, 0);
		send("SELECT 7::bigint", NULL, 0);
		sync();
		CU_ASSERT_EQUAL(take(code), -1);
		CHECK_TEXT(code, "42P01");
		CU_ASSERT_EQUAL(take(code), -1);
		CHECK_TEXT(code, "42P01");
		CU_ASSERT_EQUAL(end(code), SKALD_OK);
	}
}

static void
end_reports_what_nobody_took(void)
{
	char code[8];

	begin();
	send("SELECT 1", NULL, 0);
	send("SELECT 1 / 0", NULL, 0);
	send("SELECT 2", NULL, 0);
	CU_ASSERT_EQUAL(end(code), SKALD_REJECT);
	CHECK_TEXT(code, "22012");
	begin();
	send("SELECT 1", NULL, 0);
	CU_ASSERT_EQUAL(end(code), SKALD_OK);
}

static void
a_transaction_in_one_round_trip(void)
{
	char code[8];

	pg_exec(sql, "CREATE TEMP TABLE once (n int)");
	for (int i = 0; i < 2; i++) {
		begin();
		send("BEGIN", NULL, 0);
		send("INSERT INTO once VALUES (1)", NULL, 0);
		send("COMMIT", NULL, 0);
		sync();
		CU_ASSERT_EQUAL(end(code), SKALD_OK);
		CU_ASSERT_FALSE(skald_sql_is_in_transaction(skald_sql_conn(sql)));
	}
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM once"), 2);
	/* a failure leaves the transaction failed; rollback gets out of pipeline and transaction */
	begin();
	send("BEGIN", NULL, 0);
	send("INSERT INTO once VALUES (1 / 0)", NULL, 0);
	sync();
	CU_ASSERT_EQUAL(take(code), 0);
	CU_ASSERT_EQUAL(take(code), -1);
	skald_sql_rollback(sql);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM once"), 2);
}

/* Both directions full at once would lock up a client that only writes. */
static void
more_than_the_sockets_hold(void)
{
	static char big[64 * 1024];
	struct skald_param param = skald_param_text(big);
	char code[8];

	memset(big, 'x', sizeof(big) - 1);
	begin();
	for (int i = 0; i < 300; i++)
		send("SELECT octet_length($1::text)::bigint, $1::text", &param, 1);
	sync();
	for (int i = 0; i < 300; i++)
		CU_ASSERT_EQUAL(take(code), (int64_t)sizeof(big) - 1);
	CU_ASSERT_EQUAL(end(code), SKALD_OK);
}

static void
a_plain_query_does_not_fit_into_a_pipeline(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	struct skald_param param = skald_param_text("x");
	char code[8];

	CU_ASSERT_EQUAL(skald_conn_query(skald_sql_conn(sql), "SELECT $1::text", &param,
				1, &rows, &err),
		SKALD_OK);
	CU_ASSERT(skald_slice_is_text(skald_rows_get(rows, 0, 0), "x"));
	skald_rows_free(rows);
	begin();
	CU_ASSERT_EQUAL(
		skald_conn_query(skald_sql_conn(sql), "SELECT 1", NULL, 0, &rows, &err),
		SKALD_REJECT);
	CHECK_TEXT(err.text, "conn: must not be in pipeline mode");
	CU_ASSERT_EQUAL(end(code), SKALD_OK);
}

static void
the_server_goes_away_in_the_middle(void)
{
	struct skald_sql *other = pg_session("pipeline", "postgres", SKALD_SQL_TOOL);
	char script[64], code[8];

	begin();
	send("SELECT 1::bigint", NULL, 0);
	sync();
	CU_ASSERT_EQUAL(take(code), 1);
	send("SELECT pg_sleep(20)", NULL, 0);
	send("SELECT 2::bigint", NULL, 0);
	sync();
	send("SELECT 3::bigint", NULL, 0);
	sync();
	(void)snprintf(script, sizeof(script),
		"SELECT pg_terminate_backend(%d, 5000)::int", skald_sql_backend_pid(sql));
	CU_ASSERT_EQUAL(pg_int(other, script), 1);
	for (int i = 0; i < 3; i++) {
		struct skald_err err = SKALD_ERR_INIT;
		struct skald_rows *rows = NULL;

		CU_ASSERT_EQUAL(skald_pipe_take(sql, &rows, &err), SKALD_RETRY);
		CU_ASSERT(skald_err_is_outage(&err));
		CU_ASSERT_PTR_NULL(rows);
	}
	CU_ASSERT_FALSE(skald_sql_is_open(sql));
	skald_sql_rollback(sql); /* harmless, and leaves the pipeline */
	skald_sql_close(sql);
	sql = other;
}

/* A good-bye in the place of a sync's answer: nothing is there to say so but the end. */
static void
the_server_goes_away_before_a_sync(void)
{
	struct skald_sql *other = pg_session("pipeline", "postgres", SKALD_SQL_TOOL);
	struct skald_err err = SKALD_ERR_INIT;
	char script[64], code[8];

	begin();
	send("SELECT 1::bigint", NULL, 0);
	CU_ASSERT_EQUAL(take(code), 1);
	(void)snprintf(script, sizeof(script),
		"SELECT pg_terminate_backend(%d, 5000)::int", skald_sql_backend_pid(sql));
	CU_ASSERT_EQUAL(pg_int(other, script), 1);
	(void)!skald_pipe_sync(sql, &err); /* goes nowhere, seen or not */
	CU_ASSERT_NOT_EQUAL(skald_pipe_end(sql, &err), SKALD_OK);
	CU_ASSERT_FALSE(skald_sql_is_open(sql));
	skald_sql_rollback(sql);
	skald_sql_close(sql);
	sql = other;
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(results_come_in_order),
		CHECK(taking_while_sending_needs_no_sync),
		CHECK(a_failure_skips_up_to_the_sync),
		CHECK(a_statement_that_cannot_be_prepared),
		CHECK(end_reports_what_nobody_took),
		CHECK(a_transaction_in_one_round_trip), CHECK(more_than_the_sockets_hold),
		CHECK(a_plain_query_does_not_fit_into_a_pipeline),
		CHECK(the_server_goes_away_in_the_middle),
		CHECK(the_server_goes_away_before_a_sync) };
	int status;

	pg_create("pipeline", false);
	sql = pg_session("pipeline", "postgres", SKALD_SQL_TOOL);
	status = check_main("contract.sql.pipeline", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	return status;
}
