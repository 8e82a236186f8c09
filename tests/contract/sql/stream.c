/*
 * Logical replication against a server: what arrives, in which order, once.
 */
#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/contract/sql/stream_kit.h"
#include "tests/support/check.h"

static struct skald_sql *sql; /* a writer */

#define INSERT \
	"INSERT INTO skald.outbox (message_id, topic, key, type, source, data, headers," \
	" correlation_id, traceparent) "
/* One row, of that topic. */
#define ROW(topic) \
	INSERT "VALUES (gen_random_uuid(), '" topic \
	       "', 'k', 'T', 's', 'd', NULL, 'c', 't');"

static char text[16384];

static void
d7_the_slot_is_made_while_another_database_writes(void)
{
	struct skald_sql *other;
	struct skald_stream *s = kit_open("asked", NULL);
	struct skald_err err = SKALD_ERR_INIT;
	bool is_made = true;
	uint64_t lsn = 0;
	int64_t began_ms;

	pg_create("elsewhere", false);
	other = pg_session("elsewhere", "postgres", SKALD_SQL_TOOL);
	pg_exec(other, "BEGIN; SELECT txid_current()");
	began_ms = skald_mono_ms();
	CU_ASSERT_EQUAL(skald_stream_ask_slot(s, &err), SKALD_OK);
	for (int i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL(
			skald_stream_take_slot(s, &is_made, &lsn, &err), SKALD_OK);
		CU_ASSERT_FALSE(is_made);
		(void)poll(NULL, 0, 50);
	}
	CU_ASSERT(skald_mono_ms() - began_ms < check_patience_ms(1000));
	pg_exec(other, "COMMIT");
	for (int i = 0; i < 200 && !is_made; i++) {
		struct pollfd pfd = { .fd = skald_stream_fd(s), .events = POLLIN };

		(void)poll(&pfd, 1, 100);
		CU_ASSERT_EQUAL(
			skald_stream_take_slot(s, &is_made, &lsn, &err), SKALD_OK);
	}
	CU_ASSERT_TRUE(is_made);
	(void)snprintf(text, sizeof(text),
		"SELECT (confirmed_flush_lsn = '%X/%X')::int FROM pg_replication_slots"
		" WHERE slot_name = 'asked'",
		(unsigned)(lsn >> 32), (unsigned)lsn);
	CU_ASSERT_EQUAL(pg_int(sql, text), 1);
	/* the session goes on with it */
	CU_ASSERT_EQUAL(skald_stream_start(s, lsn, &err), SKALD_OK);
	skald_stream_close(s);
	skald_sql_close(other);
	kit_drop_slot("asked");
}

static void
given_up_the_slot_leaves_nothing(void)
{
	struct skald_sql *other = pg_session(KIT_DATABASE, "postgres", SKALD_SQL_TOOL);
	struct skald_stream *s = kit_open("given_up", NULL);
	struct skald_err err = SKALD_ERR_INIT;
	int64_t count = 1;

	pg_exec(other, "BEGIN; SELECT txid_current()");
	CU_ASSERT_EQUAL(skald_stream_ask_slot(s, &err), SKALD_OK);
	(void)poll(NULL, 0, 100);
	skald_stream_close(s);
	pg_exec(other, "COMMIT");
	for (int i = 0; i < 200 && count; i++) {
		count = pg_int(sql, "SELECT count(*) FROM pg_stat_activity WHERE"
				    " backend_type = 'walsender'");
		(void)poll(NULL, 0, 20);
	}
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM pg_replication_slots"), 0);
	skald_sql_close(other);
}

/* --- rows -------------------------------------------------------------------------------- */

static void
check_cells(
	const struct skald_stream_item *item, const struct skald_rows *rows, unsigned row)
{
	struct skald_uuid a, b;
	int64_t from_stream = 0, from_rows = 1;

	for (unsigned c = 0; c < KIT_NOT_THERE; c++) {
		struct skald_slice want = skald_rows_get(rows, row, c);

		CU_ASSERT_EQUAL(!item->cells[c].data, !want.data);
		CU_ASSERT_TRUE(skald_slice_is_equal(item->cells[c], want));
	}
	CU_ASSERT_PTR_NULL(item->cells[KIT_NOT_THERE].data);
	CU_ASSERT_EQUAL(skald_cell_int(item->cells[KIT_ID], -1),
		skald_rows_int(rows, row, KIT_ID, -2));
	CU_ASSERT_TRUE(skald_cell_uuid(item->cells[KIT_MESSAGE_ID], &a));
	CU_ASSERT_TRUE(skald_rows_uuid(rows, row, KIT_MESSAGE_ID, &b));
	CU_ASSERT_EQUAL(memcmp(&a, &b, sizeof(a)), 0);
	CU_ASSERT_TRUE(skald_cell_time_us(item->cells[KIT_AT], &from_stream));
	CU_ASSERT_TRUE(skald_rows_time_us(rows, row, KIT_AT, &from_rows));
	CU_ASSERT_EQUAL(from_stream, from_rows);
}

static void
d1_cells_are_those_of_a_binary_select(void)
{
	uint64_t lsn = kit_make_slot("cells");
	struct skald_stream *s = kit_start("cells", lsn, NULL);
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_stream_item item, commit;
	struct skald_slice json = SKALD_SLICE_NULL;
	struct skald_rows *rows = NULL;
	void *kept[3];

	pg_exec(sql,
		"TRUNCATE skald.outbox;" INSERT
		"VALUES (gen_random_uuid(), 'a', NULL, 'T', 's', NULL, NULL, 'c', 't'),"
		" (gen_random_uuid(), 'b', '', 'T', 's', '', '{\"a\": [1, "
		"\"\\u00e9\"]}',"
		" 'c', 't'),"
		" (gen_random_uuid(), 'c', '\\x00ff', 'T', 's',"
		" convert_to(repeat('long ', 100000), 'UTF8'), '{}', 'c', 't')");
	pg_exec(sql, "UPDATE pg_description SET description = description WHERE false");
	CU_ASSERT_EQUAL(
		skald_sql_query(sql,
			"SELECT id, message_id, at, topic, key, type, headers, data, xid,"
			" expires_at FROM skald.outbox ORDER BY id",
			NULL, 0, true, &rows, &err),
		SKALD_OK);
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_BEGIN);
	CU_ASSERT_EQUAL(item.xid, (uint32_t)skald_rows_int(rows, 0, KIT_XID, 0));
	CU_ASSERT(llabs(item.commit_us - skald_wall_us()) < 60 * INT64_C(1000000));
	lsn = item.lsn;
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_ROW);
		CU_ASSERT_EQUAL(item.ordinal, i);
		CU_ASSERT_EQUAL(item.lsn, lsn);
		kept[i] = skald_stream_keep(s);
		CU_ASSERT_PTR_NOT_NULL(kept[i]);
		CU_ASSERT_PTR_NULL(skald_stream_keep(s));
		if (i == 1) {
			CU_ASSERT_TRUE(skald_cell_jsonb(item.cells[KIT_HEADERS], &json));
		}
		if (i == 2)
			CU_ASSERT(item.bytes > 500000);
		if (i < 2)
			check_cells(&item, rows, i);
	}
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &commit), SKALD_STREAM_COMMIT);
	CU_ASSERT(commit.lsn > lsn);
	CU_ASSERT_EQUAL(commit.commit_us > 0, 1);
	/* the buffers were kept: both are still there */
	check_cells(&item, rows, 2);
	CU_ASSERT_TRUE(skald_slice_is_text(json, "{\"a\": [1, \"\xC3\xA9\"]}"));
	for (unsigned i = 0; i < 3; i++)
		skald_stream_free(kept[i]);
	skald_stream_free(NULL);
	skald_rows_free(rows);
	skald_stream_close(s);
	kit_drop_slot("cells");
}

static void
transactions_come_in_the_order_of_their_commits(void)
{
	uint64_t lsn = kit_make_slot("commits");
	struct skald_stream *s = kit_start("commits", lsn, NULL);
	struct skald_sql *late = pg_session(KIT_DATABASE, "postgres", SKALD_SQL_TOOL);
	struct skald_stream_item commit;
	uint64_t first = 0;

	pg_exec(late, "BEGIN;" ROW("late1"));
	pg_exec(sql, ROW("early"));
	pg_exec(late, ROW("late2") "COMMIT");
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 1);
	CHECK_TEXT(text, "early:0");
	first = commit.lsn;
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 2);
	CHECK_TEXT(text, "late1:0,late2:1");
	CU_ASSERT(commit.lsn > first);
	skald_sql_close(late);
	skald_stream_close(s);
	kit_drop_slot("commits");
}

static void
d3_a_thousand_rows_of_one_statement_have_their_own_ordinals(void)
{
	uint64_t lsn = kit_make_slot("many");
	struct skald_stream *s = kit_start("many", lsn, NULL);
	struct skald_stream_item item;
	uint64_t of_begin;
	unsigned wrong = 0;

	pg_exec(sql, "COPY skald.outbox (message_id, topic, type, source, correlation_id,"
		     " traceparent) FROM PROGRAM $$for i in $(seq 1000); do"
		     " printf '%08d-0000-4000-8000-000000000000\\tt\\tT\\ts\\tc\\tt\\n' "
		     "$i; done$$");
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_BEGIN);
	of_begin = item.lsn;
	for (uint64_t i = 0; i < 1000; i++) {
		char want[9], got[9];

		if (kit_next(s, 0, 10000, &item) != SKALD_STREAM_ROW ||
			item.lsn != of_begin || item.ordinal != i ||
			item.cells[KIT_MESSAGE_ID].bytes != 16) {
			wrong++;
			continue;
		}
		(void)snprintf(want, sizeof(want), "%08llu", (unsigned long long)i + 1);
		for (int n = 0; n < 4; n++)
			(void)snprintf(got + 2 * n, 3, "%02x",
				(unsigned)(unsigned char)item.cells[KIT_MESSAGE_ID]
					.data[n]);
		wrong += strcmp(want, got) != 0;
	}
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_COMMIT);
	skald_stream_close(s);
	kit_drop_slot("many");
}

static void
d3_a_message_beside_an_insert_is_not_counted(void)
{
	uint64_t lsn = kit_make_slot("message");
	struct skald_stream *s = kit_start("message", lsn, NULL);
	struct skald_stream_item commit;

	pg_exec(sql,
		"BEGIN; SELECT pg_logical_emit_message(true, 'p', 'x');" ROW(
			"a") "SELECT pg_logical_emit_message(false, 'p', 'x');" ROW("b") "COMMIT");
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 2);
	CHECK_TEXT(text, "a:0,b:1");
	skald_stream_close(s);
	kit_drop_slot("message");
}

static void
d4_what_is_rolled_back_is_not_sent(void)
{
	uint64_t lsn = kit_make_slot("rolled");
	struct skald_stream *s = kit_start("rolled", lsn, NULL);
	struct skald_stream_item commit;

	pg_exec(sql,
		"BEGIN;" ROW("no") "ROLLBACK; BEGIN;" ROW("a") "SAVEPOINT s;" ROW(
			"no") "ROLLBACK TO s;" ROW("b") "SAVEPOINT t;" ROW("c") "RELEASE "
										"t; "
										"COMMIT; "
										"SELECT "
										"pg_"
										"logical_"
										"emit_"
										"message("
										"false, "
										"'p', "
										"'x')");
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 3);
	CHECK_TEXT(text, "a:0,b:1,c:2");
	CU_ASSERT_EQUAL(kit_transaction(s, 200, text, sizeof(text), &commit), -1);
	skald_stream_close(s);
	kit_drop_slot("rolled");
}

static void
d5_columns_come_go_and_are_renamed(void)
{
	uint64_t lsn = kit_make_slot("altered");
	struct skald_stream *s = kit_start("altered", lsn, NULL);
	struct skald_stream_item item, commit;

	pg_exec(sql,
		ROW("a") "ALTER TABLE skald.outbox ADD COLUMN not_there int DEFAULT 7");
	pg_exec(sql, "BEGIN;" ROW("b") "ALTER TABLE skald.outbox ADD COLUMN z text;" ROW(
			     "c") "COMMIT");
	pg_exec(sql, "ALTER TABLE skald.outbox DROP COLUMN z;"
		     "ALTER TABLE skald.outbox RENAME COLUMN subject TO about;"
		     "ALTER TABLE skald.outbox RENAME COLUMN expires_at TO other");
	pg_exec(sql,
		"INSERT INTO skald.outbox (message_id, topic, type, source,"
		" correlation_id, traceparent, other) VALUES (gen_random_uuid(), 'd',"
		" 'T', 's', 'c', 't', now())");
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 1);
	CHECK_TEXT(text, "a:0");
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_BEGIN);
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_ROW);
	CU_ASSERT_TRUE(skald_slice_is_text(item.cells[KIT_TOPIC], "b"));
	CU_ASSERT_EQUAL(skald_cell_int(item.cells[KIT_NOT_THERE], -1), 7);
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_ROW);
	CU_ASSERT_TRUE(skald_slice_is_text(item.cells[KIT_TOPIC], "c"));
	CU_ASSERT_EQUAL(skald_cell_int(item.cells[KIT_NOT_THERE], -1), 7);
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_COMMIT);
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_BEGIN);
	CU_ASSERT_EQUAL(kit_next(s, 0, 10000, &item), SKALD_STREAM_ROW);
	CU_ASSERT_TRUE(skald_slice_is_text(item.cells[KIT_TOPIC], "d"));
	CU_ASSERT_PTR_NULL(item.cells[KIT_EXPIRES_AT].data);
	skald_stream_close(s);
	pg_exec(sql, "ALTER TABLE skald.outbox DROP COLUMN not_there;"
		     "ALTER TABLE skald.outbox RENAME COLUMN about TO subject;"
		     "ALTER TABLE skald.outbox RENAME COLUMN other TO expires_at");
	kit_drop_slot("altered");
}

static void
d5_leaves_come_and_go_under_the_root(void)
{
	uint64_t lsn = kit_make_slot("leaves");
	struct skald_stream *s = kit_start("leaves", lsn, NULL);
	struct skald_stream_item commit;

	pg_exec(sql, ROW("a") "TRUNCATE skald.outbox_0;" ROW("b"));
	pg_exec(sql, "BEGIN;" ROW("c") "TRUNCATE skald.outbox;" ROW("d") "COMMIT");
	/* a leaf that is no part of the root is nobody's */
	pg_exec(sql, "ALTER TABLE skald.outbox DETACH PARTITION skald.outbox_7");
	pg_exec(sql, "INSERT INTO skald.outbox_7 (id, message_id, topic, type, source,"
		     " correlation_id, traceparent) VALUES (7 << 20, gen_random_uuid(),"
		     " 'no', 'T', 's', 'c', 't')");
	pg_exec(sql, ROW("e") "ALTER TABLE skald.outbox ATTACH PARTITION skald.outbox_7"
			      " FOR VALUES IN (7)");
	pg_exec(sql, "INSERT INTO skald.outbox (id, message_id, topic, type, source,"
		     " correlation_id, traceparent) VALUES (7 << 20, gen_random_uuid(),"
		     " 'f', 'T', 's', 'c', 't')");
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 2);
	CHECK_TEXT(text, "a:0,b:1"); /* one script is one transaction */
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 2);
	CHECK_TEXT(text, "c:0,d:1");
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 1);
	CHECK_TEXT(text, "e:0");
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 1);
	CHECK_TEXT(text, "f:0");
	skald_stream_close(s);
	kit_drop_slot("leaves");
}

static void
rows_of_other_tables_count_but_are_not_handed_out(void)
{
	uint64_t lsn;
	struct skald_stream *s;
	struct skald_stream_item commit;

	pg_exec(sql, "CREATE TABLE beside (id int PRIMARY KEY);"
		     "ALTER PUBLICATION skald_outbox ADD TABLE beside");
	lsn = kit_make_slot("beside");
	s = kit_start("beside", lsn, NULL);
	pg_exec(sql, "BEGIN; INSERT INTO beside VALUES (1), (2);" ROW(
			     "a") "UPDATE beside SET id = 3 WHERE id = 1;"
				  "INSERT INTO beside VALUES (4);" ROW("b") "COMMIT");
	CU_ASSERT_EQUAL(kit_transaction(s, 10000, text, sizeof(text), &commit), 2);
	CHECK_TEXT(text, "a:2,b:4");
	skald_stream_close(s);
	kit_drop_slot("beside");
	pg_exec(sql, "DROP TABLE beside");
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(d7_the_slot_is_made_while_another_database_writes),
		CHECK(given_up_the_slot_leaves_nothing),
		CHECK(d1_cells_are_those_of_a_binary_select),
		CHECK(transactions_come_in_the_order_of_their_commits),
		CHECK(d3_a_thousand_rows_of_one_statement_have_their_own_ordinals),
		CHECK(d3_a_message_beside_an_insert_is_not_counted),
		CHECK(d4_what_is_rolled_back_is_not_sent),
		CHECK(d5_columns_come_go_and_are_renamed),
		CHECK(d5_leaves_come_and_go_under_the_root),
		CHECK(rows_of_other_tables_count_but_are_not_handed_out),
	};
	int failed;

	sql = pg_open(KIT_DATABASE, SKALD_SQL_TOOL);
	failed = check_main("contract.sql.stream", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	return failed;
}
