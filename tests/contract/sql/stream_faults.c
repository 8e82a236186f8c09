/*
 * Logical replication when it is cut: what is sent again, what keeps a session alive,
 * and what the server refuses.
 */
#include <malloc.h>
#include <poll.h>

#include "base/clock.h"
#include "tests/contract/sql/stream_kit.h"
#include "tests/support/check.h"

static struct skald_sql *sql; /* a writer */

#define ROWS(topic, count) \
	"INSERT INTO skald.outbox (message_id, topic, type, source, correlation_id," \
	" traceparent) SELECT gen_random_uuid(), '" topic \
	"', 'T', 's', 'c', 't' FROM generate_series(1, " #count ");"

static char text[4096];

/* Until the slot has confirmed lsn; false: not within some seconds. */
static bool
is_confirmed(const char *slot, uint64_t lsn)
{
	int64_t until_ms = skald_mono_ms() + check_patience_ms(10000);
	char query[256];

	(void)snprintf(query, sizeof(query),
		"SELECT (confirmed_flush_lsn = '%X/%X')::int FROM pg_replication_slots"
		" WHERE slot_name = '%s'",
		(unsigned)(lsn >> 32), (unsigned)lsn, slot);
	while (pg_int(sql, query) != 1)
		if (skald_mono_ms() > until_ms || poll(NULL, 0, 20))
			return false;
	return true;
}

static void
confirm(struct skald_stream *s, const char *slot, uint64_t lsn)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(skald_stream_status(s, lsn, &err), SKALD_OK);
	CU_ASSERT_TRUE(is_confirmed(slot, lsn));
}

/* --- again ---------------------------------------------------------------------------------- */

static void
d11_confirmed_to_the_end_nothing_comes_again(void)
{
	uint64_t lsn = kit_make_slot("ends");
	struct skald_stream *s = kit_start("ends", lsn, NULL);
	struct skald_stream_item commit;

	pg_exec(sql, ROWS("a", 2));
	pg_exec(sql, ROWS("b", 3));
	pg_exec(sql, ROWS("c", 1));
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 2);
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 3);
	confirm(s, "ends", commit.lsn);
	skald_stream_close(s);
	kit_wait_inactive("ends");
	s = kit_start("ends", 0, NULL);
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 1);
	CHECK_TEXT(text, "c:0");
	skald_stream_close(s);
	kit_wait_inactive("ends");
	/* not confirmed, but known to us: the same */
	s = kit_start("ends", commit.lsn, NULL);
	CU_ASSERT_EQUAL(kit_transaction(s, 300, text, sizeof(text), &commit), -1);
	skald_stream_close(s);
	kit_drop_slot("ends");
}

static void
confirmed_to_less_than_the_end_the_whole_comes_again(void)
{
	uint64_t lsn = kit_make_slot("less"), at_commit;
	struct skald_stream *s = kit_start("less", lsn, NULL);
	struct skald_stream_item item, commit, again;

	pg_exec(sql, ROWS("a", 3));
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_BEGIN);
	at_commit = item.lsn;
	while (kit_next(s, 0, 10000, &commit) == SKALD_STREAM_ROW)
		;
	CU_ASSERT_EQUAL(commit.kind, SKALD_STREAM_COMMIT);
	confirm(s, "less", at_commit);
	skald_stream_close(s);
	kit_wait_inactive("less");
	s = kit_start("less", 0, NULL);
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &again), 3);
	CHECK_TEXT(text, "a:0,a:1,a:2");
	CU_ASSERT_EQUAL(again.lsn, commit.lsn);
	skald_stream_close(s);
	kit_drop_slot("less");
}

static void
d11_a_clean_restart_of_the_server(void)
{
	uint64_t lsn = kit_make_slot("restart");
	struct skald_stream *s = kit_start("restart", lsn, NULL);
	struct skald_stream_item item, commit;
	struct skald_err err = SKALD_ERR_INIT;

	pg_exec(sql, ROWS("a", 1));
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 1);
	confirm(s, "restart", commit.lsn);
	skald_sql_close(sql);
	skald_stream_close(s); /* a server that stops waits for what is not confirmed */
	pg_stop("fast");
	pg_start();
	sql = pg_session(KIT_DATABASE, "postgres", SKALD_SQL_TOOL);
	s = kit_start("restart", commit.lsn, NULL); /* what the slot knows may be older */
	pg_exec(sql, ROWS("b", 1));
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 1);
	CHECK_TEXT(text, "b:0");
	pg_kill((int)pg_int(sql, "SELECT active_pid FROM pg_replication_slots"));
	for (;;) {
		struct pollfd pfd = { .fd = skald_stream_fd(s), .events = POLLIN };
		enum skald_rc rc = skald_stream_next(s, &item, &err);

		if (rc) {
			CU_ASSERT_EQUAL(rc, SKALD_RETRY);
			CU_ASSERT_TRUE(skald_err_is_outage(&err));
			break;
		}
		if (item.kind == SKALD_STREAM_NOTHING && poll(&pfd, 1, 10000) != 1) {
			CU_ASSERT(0);
			break;
		}
	}
	CU_ASSERT_EQUAL(skald_stream_next(s, &item, &err), SKALD_RETRY);
	CU_ASSERT_EQUAL(skald_stream_status(s, 0, &err), SKALD_RETRY);
	skald_stream_close(s);
	skald_sql_close(sql);
	pg_stop("immediate"); /* it restarts by itself meanwhile: make it sure */
	pg_start();
	sql = pg_session(KIT_DATABASE, "postgres", SKALD_SQL_TOOL);
	kit_drop_slot("restart");
}

/* --- alive ---------------------------------------------------------------------------------- */

/* Writes elsewhere, reads for a while; how far behind the slot then is. */
static int64_t
lag_after_traffic_elsewhere(const char *slot, bool confirms_keepalives)
{
	struct skald_sql *other = pg_session("elsewhere", "postgres", SKALD_SQL_TOOL);
	struct skald_stream *s = kit_start(slot, 0, NULL);
	int64_t until_ms =
		skald_mono_ms() + check_patience_ms(confirms_keepalives ? 15000 : 2000);
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_stream_item item;
	int64_t lag = -1;
	char query[256];

	(void)snprintf(query, sizeof(query),
		"SELECT pg_current_wal_flush_lsn() - confirmed_flush_lsn FROM"
		" pg_replication_slots WHERE slot_name = '%s'",
		slot);
	pg_exec(other, "INSERT INTO noise SELECT repeat('x', 1000) FROM"
		       " generate_series(1, 2000)");
	while (skald_mono_ms() < until_ms && (lag < 0 || lag > 100000)) {
		struct pollfd pfd = { .fd = skald_stream_fd(s), .events = POLLIN };

		if (skald_stream_next(s, &item, &err))
			break;
		if (item.kind == SKALD_STREAM_KEEPALIVE && confirms_keepalives)
			CU_ASSERT_EQUAL(skald_stream_status(s, item.lsn, &err), SKALD_OK);
		if (item.kind == SKALD_STREAM_NOTHING) {
			pg_exec(other, "INSERT INTO noise VALUES ('x')");
			(void)poll(&pfd, 1, 50);
			lag = pg_int(sql, query);
		}
	}
	skald_stream_close(s);
	skald_sql_close(other);
	return lag;
}

static void
d17_keepalives_move_under_traffic_of_another_database(void)
{
	struct skald_sql *other;
	int64_t confirmed, control;

	pg_create("elsewhere", false);
	other = pg_session("elsewhere", "postgres", SKALD_SQL_TOOL);
	pg_exec(other, "CREATE TABLE noise (t text)");
	skald_sql_close(other);
	(void)kit_make_slot("moves");
	control = lag_after_traffic_elsewhere("moves", false);
	CU_ASSERT(control > 1000000);
	kit_wait_inactive("moves");
	confirmed = lag_after_traffic_elsewhere("moves", true);
	CU_ASSERT(confirmed >= 0 && confirmed <= 100000);
	kit_drop_slot("moves");
}

/* Reads nothing for three times wal_sender_timeout; how the first reads then end. */
static enum skald_rc
stop_reading(const char *slot, bool sends_status, struct skald_err *err)
{
	struct skald_stream *s = kit_start(slot, 0, "options='-c wal_sender_timeout=1s'");
	int64_t until_ms = skald_mono_ms() + 3000;
	struct skald_stream_item item;
	enum skald_rc rc = SKALD_OK;
	unsigned rows = 0;

	while (!rc && skald_mono_ms() < until_ms) {
		if (sends_status)
			rc = skald_stream_status(s, 0, err);
		(void)poll(NULL, 0, 100);
	}
	until_ms = skald_mono_ms() + check_patience_ms(30000);
	while (!rc && rows < 30 && skald_mono_ms() < until_ms) {
		struct pollfd pfd = { .fd = skald_stream_fd(s), .events = POLLIN };

		rc = skald_stream_next(s, &item, err);
		rows += item.kind == SKALD_STREAM_ROW;
		if (!rc && (item.kind == SKALD_STREAM_NOTHING || item.wants_reply)) {
			rc = skald_stream_status(s, 0, err);
			(void)poll(&pfd, 1, 100);
		}
	}
	if (!rc)
		CU_ASSERT_EQUAL(rows, 30);
	skald_stream_close(s);
	kit_wait_inactive(slot);
	return rc;
}

static void
who_stops_reading_lives_by_its_status(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	(void)kit_make_slot("stalled");
	pg_exec(sql,
		"INSERT INTO skald.outbox (message_id, topic, type, source,"
		" correlation_id, traceparent, data) SELECT gen_random_uuid(), 'big',"
		" 'T', 's', 'c', 't', convert_to(repeat('0123456789', 100000),"
		" 'UTF8') FROM generate_series(1, 30)");
	CU_ASSERT_EQUAL(stop_reading("stalled", true, &err), SKALD_OK);
	if (err.text[0])
		printf("\n    %s %s", err.code, err.text);
	/* the control: silent, it is disconnected */
	CU_ASSERT_EQUAL(stop_reading("stalled", false, &err), SKALD_RETRY);
	kit_drop_slot("stalled");
}

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static size_t
heap_bytes(void)
{
	if (__sanitizer_get_current_allocated_bytes)
		return __sanitizer_get_current_allocated_bytes();
	return mallinfo2().uordblks + mallinfo2().hblkhd;
}

static void
d12_memory_stays_flat_in_a_big_transaction(void)
{
	uint64_t lsn = kit_make_slot("flat");
	struct skald_stream *s = kit_start("flat", lsn, NULL);
	struct skald_stream_item item;
	size_t early = 0, most = 0;
	unsigned rows = 0, wrong = 0;
	int64_t began_ms;

	pg_exec(sql, ROWS("a", 100000));
	CU_ASSERT_EQUAL(kit_next(s, 0, 30000, &item), SKALD_STREAM_BEGIN);
	while (kit_next(s, 0, 30000, &item) == SKALD_STREAM_ROW) {
		wrong += item.ordinal != rows++;
		if (rows == 1000)
			early = heap_bytes();
		if (rows > 1000 && rows % 1000 == 0 && heap_bytes() > most)
			most = heap_bytes();
	}
	CU_ASSERT_EQUAL(item.kind, SKALD_STREAM_COMMIT);
	CU_ASSERT_EQUAL(rows, 100000);
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT(most > 0 && most < early + 256 * 1024);
	skald_stream_close(s);
	kit_wait_inactive("flat");
	/* in the middle of it all: closing waits for nobody */
	s = kit_start("flat", 0, NULL);
	CU_ASSERT_EQUAL(kit_next(s, 0, 30000, &item), SKALD_STREAM_BEGIN);
	began_ms = skald_mono_ms();
	skald_stream_close(s);
	CU_ASSERT(skald_mono_ms() - began_ms < check_patience_ms(500));
	kit_drop_slot("flat");
}

/* --- refused -------------------------------------------------------------------------------- */

static enum skald_rc
start_of(const char *slot, struct skald_err *err)
{
	struct skald_stream *s = kit_open(slot, NULL);
	enum skald_rc rc = skald_stream_start(s, 0, err);

	skald_stream_close(s);
	return rc;
}

static void
d16_a_slot_has_one_consumer(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_stream *s;

	(void)kit_make_slot("held");
	s = kit_start("held", 0, NULL);
	CU_ASSERT_EQUAL(start_of("held", &err), SKALD_RETRY);
	CHECK_TEXT(err.code, "55006");
	skald_stream_close(s);
	kit_wait_inactive("held");
	CU_ASSERT_EQUAL(start_of("held", &err), SKALD_OK);
	kit_drop_slot("held");
	CU_ASSERT_EQUAL(start_of("held", &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "42704");
}

static void
a_slot_that_is_there_is_not_made_again(void)
{
	struct skald_stream *s;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = SKALD_OK;
	bool is_made = false;
	uint64_t lsn;

	(void)kit_make_slot("twice");
	s = kit_open("twice", NULL);
	CU_ASSERT_EQUAL(skald_stream_ask_slot(s, &err), SKALD_OK);
	for (int i = 0; i < 100 && !rc && !is_made; i++) {
		rc = skald_stream_take_slot(s, &is_made, &lsn, &err);
		(void)poll(NULL, 0, 50);
	}
	CU_ASSERT_EQUAL(rc, SKALD_FATAL);
	CHECK_TEXT(err.code, "42710");
	skald_stream_close(s);
	kit_drop_slot("twice");
}

static void
d16_the_publication_must_be_there_before_the_slot(void)
{
	struct skald_migrate_report report = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_stream_item item;
	struct skald_stream *s;
	enum skald_rc rc = SKALD_OK;

	pg_exec(sql, "DROP PUBLICATION skald_outbox");
	(void)kit_make_slot("old");
	CU_ASSERT_EQUAL(start_of("old", &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "3F000");
	CHECK_TEXT(err.text, "publication skald_outbox: missing in this database; run"
			     " skald db migrate");
	pg_exec(sql, "CREATE PUBLICATION skald_outbox");
	CU_ASSERT_EQUAL(start_of("old", &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "3F000");
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "skald.outbox"));
	pg_exec(sql, "DROP PUBLICATION skald_outbox");
	pg_exec(sql, ROWS("before", 1));
	CU_ASSERT_EQUAL(skald_migrate(sql, false, &report, &err), SKALD_OK);
	s = kit_start("old", 0, NULL);
	for (int i = 0; i < 100 && !rc; i++) {
		struct pollfd pfd = { .fd = skald_stream_fd(s), .events = POLLIN };

		rc = skald_stream_next(s, &item, &err);
		CU_ASSERT(item.kind != SKALD_STREAM_ROW);
		if (!rc)
			(void)poll(&pfd, 1, 100);
	}
	CU_ASSERT_EQUAL(rc, SKALD_FATAL);
	CHECK_TEXT(err.code, "42704");
	CU_ASSERT_PTR_NOT_NULL(
		strstr(err.text, "slot old: older than publication skald_outbox"));
	skald_stream_close(s);
	kit_drop_slot("old");
	/* made now, it works */
	s = kit_start("new", kit_make_slot("new"), NULL);
	pg_exec(sql, ROWS("after", 1));
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &item), 1);
	CHECK_TEXT(text, "after:0");
	skald_stream_close(s);
	kit_drop_slot("new");
}

static void
d13_a_slot_that_lost_its_wal_is_told(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	(void)kit_make_slot("lost");
	pg_exec(sql, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
	pg_exec(sql, "SELECT pg_reload_conf()");
	for (int i = 0; i < 20 && pg_int(sql, "SELECT count(*) FROM pg_replication_slots"
					      " WHERE wal_status = 'lost'") == 0;
		i++) {
		pg_exec(sql, ROWS("a", 10));
		pg_exec(sql, "SELECT pg_switch_wal()");
		pg_exec(sql, "CHECKPOINT");
	}
	CU_ASSERT_EQUAL(start_of("lost", &err), SKALD_RETRY);
	CHECK_TEXT(err.code, "55000");
	pg_exec(sql, "ALTER SYSTEM RESET max_slot_wal_keep_size");
	pg_exec(sql, "SELECT pg_reload_conf()");
	kit_drop_slot("lost");
}

static enum skald_rc
open_as(const char *url, const char *slot, struct skald_stream **s, struct skald_err *err)
{
	struct skald_stream_conf conf = { .url = url,
		.application = "test stream",
		.connect_timeout_ms = 10000,
		.slot = slot,
		.publication = "skald_outbox",
		.schema = "skald",
		.table = "outbox" };

	return skald_stream_open(s, &conf, err);
}

static void
whatever_the_url_looks_like(void)
{
	char conninfo[PG_URL_BYTES], host[128] = "", uri[2 * PG_URL_BYTES];
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_stream *s = NULL;

	pg_exec(sql, "CREATE ROLE streamer LOGIN REPLICATION; CREATE ROLE nobody LOGIN");
	(void)kit_make_slot("uri");
	pg_url(KIT_DATABASE, conninfo);
	(void)sscanf(conninfo, "host=%127s", host);
	/* the right to replicate is all it takes, and options of the URL stay */
	(void)snprintf(uri, sizeof(uri),
		"postgresql:///" KIT_DATABASE
		"?host=%s&port=%d&user=streamer&application_name=by-uri",
		host, pg_port());
	CU_ASSERT_EQUAL(open_as(uri, "uri", &s, &err), SKALD_OK);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM pg_stat_activity WHERE"
				    " backend_type = 'walsender' AND application_name ="
				    " 'by-uri' AND usename = 'streamer'"),
		1);
	CU_ASSERT(skald_stream_server_version(s) >= 140000);
	CU_ASSERT_EQUAL(skald_stream_start(s, 0, &err), SKALD_OK);
	skald_stream_close(s);
	s = NULL;
	(void)snprintf(uri, sizeof(uri),
		"host=%s port=%d dbname=" KIT_DATABASE " user=nobody", host, pg_port());
	CU_ASSERT_EQUAL(open_as(uri, "uri", &s, &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "42501");
	CU_ASSERT_EQUAL(open_as(conninfo, "no\"name", &s, &err), SKALD_FATAL);
	CHECK_TEXT(err.code, "42602");
	CU_ASSERT_EQUAL(open_as("a=b", "uri", &s, &err), SKALD_FATAL);
	CU_ASSERT_EQUAL(open_as("host=127.0.0.1 port=1", "uri", &s, &err), SKALD_RETRY);
	CU_ASSERT_PTR_NULL(s);
	skald_stream_close(NULL);
	kit_drop_slot("uri");
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(d11_confirmed_to_the_end_nothing_comes_again),
		CHECK(confirmed_to_less_than_the_end_the_whole_comes_again),
		CHECK(d17_keepalives_move_under_traffic_of_another_database),
		CHECK(who_stops_reading_lives_by_its_status),
		CHECK(d12_memory_stays_flat_in_a_big_transaction),
		CHECK(d16_a_slot_has_one_consumer),
		CHECK(a_slot_that_is_there_is_not_made_again),
		CHECK(d16_the_publication_must_be_there_before_the_slot),
		CHECK(d13_a_slot_that_lost_its_wal_is_told),
		CHECK(whatever_the_url_looks_like),
		CHECK(d11_a_clean_restart_of_the_server),
	};
	int failed;

	sql = pg_open(KIT_DATABASE, SKALD_SQL_TOOL);
	failed = check_main("contract.sql.stream_faults", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	return failed;
}
