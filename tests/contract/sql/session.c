#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

static struct skald_sql *sql; /* one for the tests that do not break it */

static enum skald_rc
query(const char *statement, struct skald_err *err)
{
	return skald_sql_query(sql, statement, NULL, 0, false, NULL, err);
}

static void
cells_come_back_in_both_formats(void)
{
	static const char bytes[] = "\x00\x01'\\\xff";
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	struct skald_buf buf;
	struct skald_uuid id;
	char number[24], text[SKALD_UUID_TEXT_BYTES];
	struct skald_param params[] = { skald_param_bytea(skald_slice_make(bytes, 5)),
		skald_param_int(INT64_MIN, number), skald_param_text("na\xc3\xafve"),
		SKALD_PARAM_NULL };

	for (int binary = 0; binary < 2; binary++) {
		CU_ASSERT_EQUAL(
			skald_sql_query(sql,
				"SELECT $1::bytea AS b, $2::bigint AS n, $3::text AS t,"
				" $4::text AS nothing, 7::smallint, -8::int, true, false,"
				" '01a1fc30-ff60-7781-8544-ad394d9ea951'::uuid,"
				" '1970-01-01 00:00:01.5+00'::timestamptz,"
				" 'infinity'::timestamptz",
				params, 4, binary, &rows, &err),
			SKALD_OK);
		CU_ASSERT_EQUAL(skald_rows_count(rows), 1);
		CU_ASSERT_EQUAL(skald_rows_columns(rows), 11);
		CHECK_TEXT(skald_rows_name(rows, 1), "n");
		skald_buf_init(&buf, 100);
		CU_ASSERT(skald_rows_bytea(rows, 0, 0, &buf));
		CU_ASSERT(buf.bytes == 5 && memcmp(buf.data, bytes, 5) == 0);
		skald_buf_done(&buf);
		CU_ASSERT_EQUAL(skald_rows_int(rows, 0, 1, 0), INT64_MIN);
		CU_ASSERT(
			skald_slice_is_text(skald_rows_get(rows, 0, 2), "na\xc3\xafve"));
		CU_ASSERT_PTR_NULL(skald_rows_get(rows, 0, 3).data);
		CU_ASSERT_EQUAL(skald_rows_int(rows, 0, 3, 42), 42);
		CU_ASSERT_EQUAL(skald_rows_int(rows, 0, 4, 0), 7);
		CU_ASSERT_EQUAL(skald_rows_int(rows, 0, 5, 0), -8);
		CU_ASSERT_TRUE(skald_rows_bool(rows, 0, 6));
		CU_ASSERT_FALSE(skald_rows_bool(rows, 0, 7));
		CU_ASSERT_FATAL(skald_rows_uuid(rows, 0, 8, &id));
		skald_uuid_format(id, text);
		CHECK_TEXT(text, "01a1fc30-ff60-7781-8544-ad394d9ea951");
		if (binary) {
			int64_t us = 0;

			CU_ASSERT(skald_rows_time_us(rows, 0, 9, &us));
			CU_ASSERT_EQUAL(us, 1500000);
			CU_ASSERT_FALSE(skald_rows_time_us(rows, 0, 10, &us));
		}
		skald_rows_free(rows);
	}
}

static void
array_literals_arrive_whole(void)
{
	static const char *const texts[] = { "plain", "a\"b\\c{d},e", "", NULL, "NULL",
		" two  spaces ", "\xc3\xa4\n\t" };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	struct skald_buf text, bytes;
	struct skald_param params[2];

	skald_buf_init(&text, 10000);
	skald_buf_init(&bytes, 10000);
	skald_array_begin(&text);
	skald_array_begin(&bytes);
	for (size_t i = 0; i < 7; i++) {
		skald_array_add_text(&text, skald_slice_text(texts[i]));
		skald_array_add_bytea(&bytes, skald_slice_text(texts[i]));
	}
	skald_array_end(&text);
	skald_array_end(&bytes);
	params[0] = skald_param_text(text.data);
	params[1] = skald_param_text(bytes.data);
	CU_ASSERT_EQUAL(skald_sql_query(sql,
				"SELECT t, convert_from(b, 'UTF8') FROM"
				" unnest($1::text[], $2::bytea[]) AS u (t, b)",
				params, 2, false, &rows, &err),
		SKALD_OK);
	CU_ASSERT_EQUAL(skald_rows_count(rows), 7);
	for (unsigned i = 0; i < 7; i++)
		for (unsigned column = 0; column < 2; column++) {
			struct skald_slice cell = skald_rows_get(rows, i, column);

			CU_ASSERT_EQUAL(!cell.data, !texts[i]);
			if (texts[i])
				CU_ASSERT(skald_slice_is_text(cell, texts[i]));
		}
	skald_rows_free(rows);
	skald_buf_done(&text);
	skald_buf_done(&bytes);
}

static void
binary_arrays_arrive_whole(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	struct skald_param params[4];
	struct skald_buf buf[4];

	for (unsigned i = 0; i < 4; i++)
		skald_buf_init(&buf[i], 1000);
	skald_array_binary_begin(&buf[0], SKALD_OID_TEXT);
	skald_array_binary_add(&buf[0], SKALD_SLICE_LIT("a\"b\\{,}"));
	skald_array_binary_add(&buf[0], SKALD_SLICE_NULL);
	skald_array_binary_begin(&buf[1], SKALD_OID_INT8);
	skald_array_binary_add_int(&buf[1], INT64_MIN);
	skald_array_binary_add_int(&buf[1], 7);
	skald_array_binary_begin(&buf[2], SKALD_OID_BYTEA);
	skald_array_binary_add(&buf[2], skald_slice_make("\x00\xff", 2));
	skald_array_binary_begin(&buf[3], SKALD_OID_INT4);
	for (unsigned i = 0; i < 4; i++)
		params[i] = skald_array_binary_end(&buf[i]);
	CU_ASSERT_EQUAL(skald_sql_query(sql,
				"SELECT $1[1] = E'a\"b\\\\{,}' AND $1[2] IS NULL"
				" AND array_length($1, 1) = 2,"
				" $2 = '{-9223372036854775808,7}', $3[1] = '\\x00ff',"
				" $4 = '{}'",
				params, 4, false, &rows, &err),
		SKALD_OK);
	for (unsigned i = 0; i < 4; i++) {
		CU_ASSERT_TRUE(skald_rows_bool(rows, 0, i));
		skald_buf_done(&buf[i]);
	}
	skald_rows_free(rows);
}

static void
rows_affected_are_counted(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	static const struct {
		const char *statement;
		int64_t affected;
	} steps[] = {
		{ "CREATE TEMP TABLE counted (n int)", 0 },
		{ "INSERT INTO counted SELECT generate_series(1, 5)", 5 },
		{ "UPDATE counted SET n = n + 1 WHERE n > 3", 2 },
		{ "SELECT n FROM counted", 0 },
		{ "DELETE FROM counted WHERE n = 100", 0 },
		{ "DELETE FROM counted", 5 },
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		CU_ASSERT_EQUAL(skald_sql_query(sql, steps[i].statement, NULL, 0, false,
					&rows, &err),
			SKALD_OK);
		CU_ASSERT_EQUAL(skald_rows_affected(rows), steps[i].affected);
		skald_rows_free(rows);
	}
}

static void
statements_are_prepared_once(void)
{
	static const char statement[] = "SELECT 'prepared once'";
	static char scratch[32] = "SELECT 1";
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	for (int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(query(statement, &err), SKALD_OK);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM pg_prepared_statements"
				    " WHERE statement = 'SELECT ''prepared once'''"),
		1);
	/* an address used for another text is another statement */
	CU_ASSERT_EQUAL(query(scratch, &err), SKALD_OK);
	memcpy(scratch, "SELECT 2", 8);
	CU_ASSERT_EQUAL(
		skald_sql_query(sql, scratch, NULL, 0, true, &rows, &err), SKALD_OK);
	CU_ASSERT_EQUAL(skald_rows_int(rows, 0, 0, 0), 2);
	skald_rows_free(rows);
}

static void
more_statements_than_the_cache_holds(void)
{
	struct skald_sql *many = pg_session("session", "postgres", SKALD_SQL_TOOL);
	struct skald_err err = SKALD_ERR_INIT;
	static char texts[400][32];

	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 400; i++) {
			struct skald_rows *rows = NULL;

			(void)snprintf(texts[i], sizeof(texts[i]), "SELECT %d", i);
			CU_ASSERT_EQUAL(skald_sql_query(many, texts[i], NULL, 0, false,
						&rows, &err),
				SKALD_OK);
			CU_ASSERT_EQUAL(skald_rows_int(rows, 0, 0, -1), i);
			skald_rows_free(rows);
		}
	CU_ASSERT_EQUAL(pg_int(many, "SELECT count(*) FROM pg_prepared_statements"), 256);
	skald_sql_close(many);
}

static void
a_migration_under_a_prepared_statement_is_retried(void)
{
	static const char statement[] = "SELECT * FROM reshaped";
	struct skald_err err = SKALD_ERR_INIT;

	pg_exec(sql, "CREATE TEMP TABLE reshaped (a int)");
	CU_ASSERT_EQUAL(query(statement, &err), SKALD_OK);
	CU_ASSERT_EQUAL(query(statement, &err), SKALD_OK); /* now it is prepared */
	pg_exec(sql, "ALTER TABLE reshaped ADD COLUMN b text");
	CU_ASSERT_EQUAL(query(statement, &err), SKALD_RETRY);
	CHECK_TEXT(err.code, "0A000");
	CU_ASSERT_EQUAL(query(statement, &err), SKALD_OK);
}

static void
errors_say_what_happened_without_payload(void)
{
	static const struct {
		const char *statement;
		enum skald_rc rc;
		const char *code;
		const char *text;
	} rows[] = {
		{ "SELECT 'secret-17'::int", SKALD_REJECT, "22P02",
			"invalid input syntax for type integer" },
		{ "INSERT INTO strict (n) VALUES (-17)", SKALD_REJECT, "23514",
			"new row for relation \"strict\" violates check constraint"
			" \"strict_n_check\"" },
		{ "INSERT INTO strict (n) VALUES (1), (1)", SKALD_REJECT, "23505",
			"duplicate key value violates unique constraint "
			"\"strict_pkey\"" },
		{ "SELECT * FROM nowhere", SKALD_FATAL, "42P01",
			"relation \"nowhere\" does not exist" },
		{ "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'SK001', MESSAGE = 'no "
		  "good',"
		  " DETAIL = 'topic: must be short'; END $$",
			SKALD_REJECT, "SK001", "no good: topic: must be short" },
		{ "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'SK007', MESSAGE = "
		  "'twice',"
		  " DETAIL = 'twice'; END $$",
			SKALD_REJECT, "SK007", "twice" },
		{ "DO $$ BEGIN RAISE EXCEPTION E'two\\nlines'; END $$", SKALD_RETRY,
			"P0001", "two lines" },
	};

	pg_exec(sql, "CREATE TEMP TABLE strict (n int PRIMARY KEY CHECK (n > 0))");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct skald_err err = SKALD_ERR_INIT;

		CU_ASSERT_EQUAL(query(rows[i].statement, &err), rows[i].rc);
		CHECK_TEXT(err.code, rows[i].code);
		CHECK_TEXT(err.text, rows[i].text);
		CHECK_TEXT(err.origin, "pg");
	}
}

static void
each_kind_has_its_settings(void)
{
	static const struct {
		enum skald_sql_kind kind;
		const char *name, *value;
	} rows[] = {
		{ SKALD_SQL_DAEMON, "synchronous_commit", "on" },
		{ SKALD_SQL_DAEMON, "jit", "off" },
		{ SKALD_SQL_DAEMON, "idle_in_transaction_session_timeout", "2s" },
		{ SKALD_SQL_DAEMON, "lock_timeout", "2s" },
		{ SKALD_SQL_DAEMON, "statement_timeout", "30s" },
		{ SKALD_SQL_SERVICE, "synchronous_commit", "off" },
		{ SKALD_SQL_SERVICE, "lock_timeout", "200ms" },
		{ SKALD_SQL_SERVICE, "idle_in_transaction_session_timeout", "5min" },
		{ SKALD_SQL_TOOL, "statement_timeout", "1min" },
		{ SKALD_SQL_TOOL, "client_encoding", "UTF8" },
		{ SKALD_SQL_TOOL, "application_name", "test" },
		{ SKALD_SQL_TOOL, "search_path", "elsewhere" },
	};
	char show[64];

	pg_exec(sql, "ALTER DATABASE session SET synchronous_commit = off;"
		     "ALTER DATABASE session SET search_path = elsewhere");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct skald_sql *one = pg_session("session", "postgres", rows[i].kind);

		(void)snprintf(show, sizeof(show), "SHOW %s", rows[i].name);
		CHECK_TEXT(pg_text(one, show), rows[i].value);
		skald_sql_close(one);
	}
	pg_exec(sql, "ALTER DATABASE session RESET ALL");
}

static void
transactions_are_known_and_rolled_back(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct pg_conn *conn = skald_sql_conn(sql);

	CU_ASSERT_FALSE(skald_sql_is_in_transaction(conn));
	pg_exec(sql, "BEGIN; CREATE TEMP TABLE gone (n int)");
	CU_ASSERT_TRUE(skald_sql_is_in_transaction(conn));
	CU_ASSERT_EQUAL(query("SELECT 1 / 0", &err), SKALD_REJECT);
	CU_ASSERT_FALSE(skald_sql_is_in_transaction(conn)); /* failed is not open */
	CU_ASSERT_EQUAL(query("SELECT 1", &err), SKALD_RETRY);
	skald_sql_rollback(sql);
	CU_ASSERT_EQUAL(query("SELECT 1", &err), SKALD_OK);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(to_regclass('gone'))"), 0);
	skald_sql_rollback(sql); /* nothing open: nothing happens */
	CU_ASSERT_TRUE(skald_sql_is_open(sql));
}

/* --- no connection ----------------------------------------------------------------------------- */

static enum skald_rc
try_open(const char *url, int64_t timeout_ms, struct skald_err *err)
{
	struct skald_sql_conf conf = { .url = url,
		.application = "test",
		.kind = SKALD_SQL_TOOL,
		.connect_timeout_ms = timeout_ms };
	struct skald_sql *opened = NULL;
	enum skald_rc rc = skald_sql_open(&opened, &conf, err);

	CU_ASSERT_EQUAL(!opened, rc != SKALD_OK);
	skald_sql_close(opened);
	return rc;
}

static void
a_wrong_url_is_fatal_and_keeps_its_password(void)
{
	static const char *const urls[] = { "postgresql://u:topsecret@[::1/db",
		"password=topsecret host", "host=x hots=y password=topsecret",
		"postgresql://u:topsecret@h/db?hots=1",
		"postgresql://u:top%zzsecret@h/db" };

	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		struct skald_err err = SKALD_ERR_INIT;

		CU_ASSERT_EQUAL(try_open(urls[i], 1000, &err), SKALD_FATAL);
		CU_ASSERT(strncmp(err.text, "url: ", 5) == 0);
		CU_ASSERT_PTR_NULL(strstr(err.text, "secret"));
	}
}

static void
no_such_database_or_role_is_fatal(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	char url[PG_URL_BYTES];

	pg_url("nosuchdb", url);
	CU_ASSERT_EQUAL(try_open(url, 5000, &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "3D000");
	CHECK_TEXT(err.text, "database \"nosuchdb\" does not exist");
	pg_url_as("session", "nobody_here", url);
	CU_ASSERT_EQUAL(try_open(url, 5000, &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "28000");
	CHECK_TEXT(err.text, "role \"nobody_here\" does not exist");
}

static void
nobody_there_is_an_outage(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(
		try_open("host=127.0.0.1 port=1 dbname=x", 5000, &err), SKALD_RETRY);
	CHECK_TEXT(err.code, "08001");
	CU_ASSERT(skald_err_is_outage(&err));
}

static void
a_silent_server_costs_the_timeout(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t bytes = sizeof(a);
	struct skald_err err = SKALD_ERR_INIT;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int64_t began_ms;
	char url[PG_URL_BYTES];

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	CU_ASSERT_EQUAL(listen(fd, 5), 0);
	CU_ASSERT_EQUAL(getsockname(fd, (struct sockaddr *)&a, &bytes), 0);
	(void)snprintf(
		url, sizeof(url), "host=127.0.0.1 port=%d dbname=x", ntohs(a.sin_port));
	began_ms = skald_mono_ms();
	CU_ASSERT_EQUAL(try_open(url, 300, &err), SKALD_RETRY);
	CU_ASSERT(skald_mono_ms() - began_ms >= 300);
	CU_ASSERT(skald_mono_ms() - began_ms < 5000);
	CU_ASSERT(skald_err_is_outage(&err));
	(void)close(fd);
}

/* --- the server goes away ------------------------------------------------------------------------ */

static void
a_killed_backend_is_an_outage(void)
{
	struct skald_sql *victim = pg_session("session", "postgres", SKALD_SQL_DAEMON);
	struct skald_err err = SKALD_ERR_INIT;
	char script[64];

	pg_exec(victim, "BEGIN");
	(void)snprintf(script, sizeof(script),
		"SELECT pg_terminate_backend(%d, 5000)::int",
		skald_sql_backend_pid(victim));
	CU_ASSERT_EQUAL(pg_int(sql, script), 1);
	CU_ASSERT_EQUAL(skald_sql_query(victim, "SELECT 1", NULL, 0, false, NULL, &err),
		SKALD_RETRY);
	CU_ASSERT(skald_err_is_outage(&err));
	CU_ASSERT_PTR_NULL(strchr(err.text, '\n'));
	CU_ASSERT_FALSE(skald_sql_is_open(victim));
	skald_sql_rollback(victim); /* harmless */
	CU_ASSERT_EQUAL(skald_sql_exec(victim, "COMMIT", &err), SKALD_RETRY);
	CU_ASSERT(skald_err_is_outage(&err));
	skald_sql_close(victim);
}

static void
a_killed_server_is_an_outage(void)
{
	struct skald_sql *victim = pg_session("session", "postgres", SKALD_SQL_SERVICE);
	struct skald_err err = SKALD_ERR_INIT;

	pg_stop("immediate");
	CU_ASSERT_EQUAL(skald_sql_query(victim, "SELECT 1", NULL, 0, false, NULL, &err),
		SKALD_RETRY);
	CU_ASSERT(skald_err_is_outage(&err));
	CU_ASSERT_FALSE(skald_sql_is_open(victim));
	CU_ASSERT_EQUAL(skald_pipe_begin(victim, &err), SKALD_RETRY);
	skald_sql_close(victim);
	pg_start();
	skald_sql_close(sql);
	sql = pg_session("session", "postgres", SKALD_SQL_TOOL);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT 1"), 1);
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(cells_come_back_in_both_formats),
		CHECK(array_literals_arrive_whole), CHECK(binary_arrays_arrive_whole),
		CHECK(rows_affected_are_counted), CHECK(statements_are_prepared_once),
		CHECK(more_statements_than_the_cache_holds),
		CHECK(a_migration_under_a_prepared_statement_is_retried),
		CHECK(errors_say_what_happened_without_payload),
		CHECK(each_kind_has_its_settings),
		CHECK(transactions_are_known_and_rolled_back),
		CHECK(a_wrong_url_is_fatal_and_keeps_its_password),
		CHECK(no_such_database_or_role_is_fatal),
		CHECK(nobody_there_is_an_outage),
		CHECK(a_silent_server_costs_the_timeout),
		CHECK(a_killed_backend_is_an_outage),
		CHECK(a_killed_server_is_an_outage) };
	int status;

	pg_create("session", false);
	sql = pg_session("session", "postgres", SKALD_SQL_TOOL);
	status = check_main("contract.sql.session", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	return status;
}
