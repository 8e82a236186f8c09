/*
 * contract.outbox.large - windows of more rows, or bytes, than one chunk holds: all of
 * them, once, in the order of their ids, whatever the order the server finds them in.
 */
#include <stdlib.h>
#include <string.h>

#include "base/headers.h"
#include "outbox/outbox.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

/* Rows `from` to `to`; the type says which. */
static void
add(struct skald_sql *sql, const char *topic, int from, int to, int bytes)
{
	char script[320];

	(void)snprintf(script, sizeof(script),
		"SELECT skald.outbox_add_bytes(topic => '%s', type => n::text,"
		" key => convert_to('k' || n %% 50, 'UTF8'), content_type => "
		"'text/plain',"
		" data => convert_to(repeat('x', %d), 'UTF8'))"
		" FROM generate_series(%d, %d) AS n",
		topic, bytes, from, to);
	pg_exec(sql, script);
}

static int
by_position(const void *a, const void *b)
{
	return strcmp(kit_header(a, SKALD_H_SEQUENCE), kit_header(b, SKALD_H_SEQUENCE));
}

/* By their positions the records are rows 1 to count. */
static void
is_whole(const char *topic, unsigned count)
{
	struct kit_records all = kit_read(topic);
	unsigned wrong = 0;

	CU_ASSERT_EQUAL(all.count, count);
	qsort(all.items, all.count, sizeof(all.items[0]), by_position);
	for (unsigned i = 0; i < all.count; i++)
		wrong += strtoul(kit_header(&all.items[i], SKALD_H_TYPE), NULL, 10) !=
			 i + 1;
	CU_ASSERT_EQUAL(wrong, 0);
	kit_free(&all);
}

/* The index on xid finds 1 to 400 and 12,001 to 12,400 first; ids say otherwise. */
static void
rows_found_out_of_order_go_out_in_order(void)
{
	struct skald_sql *sql = pg_open("large", SKALD_SQL_TOOL);
	struct skald_sql *slow = pg_session("large", "postgres", SKALD_SQL_TOOL);
	struct kit_relay r;

	pg_exec(slow, "BEGIN");
	add(slow, "large", 1, 400, 2);
	for (int n = 401; n <= 12000; n += 400)
		add(sql, "large", n, n + 399, 2);
	add(slow, "large", 12001, 12400, 2);
	pg_exec(slow, "COMMIT");
	kit_relay_start(&r, "large", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_ticks_total"), 1);
	kit_relay_stop(&r);
	is_whole("large", 12400);
	skald_sql_close(slow);
	skald_sql_close(sql);
}

/* The same within one chunk. */
static void
a_small_window_is_put_in_order_too(void)
{
	struct skald_sql *sql = pg_open("small", SKALD_SQL_TOOL);
	struct skald_sql *slow = pg_session("small", "postgres", SKALD_SQL_TOOL);
	struct kit_relay r;

	pg_exec(slow, "BEGIN");
	add(slow, "small", 1, 10, 2);
	add(sql, "small", 11, 20, 2);
	add(slow, "small", 21, 30, 2);
	pg_exec(slow, "COMMIT");
	kit_relay_start(&r, "small", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_ticks_total"), 1);
	kit_relay_stop(&r);
	is_whole("small", 30);
	skald_sql_close(slow);
	skald_sql_close(sql);
}

/* So large that a bucket of ids is no unit: chunks end at rows. */
static void
large_rows_are_counted_one_by_one(void)
{
	struct skald_sql *sql = pg_open("heavy", SKALD_SQL_TOOL);
	struct kit_relay r;

	for (int n = 1; n <= 96; n += 8)
		add(sql, "heavy", n, n + 7, 250000);
	kit_relay_start(&r, "heavy", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_ticks_total"), 1);
	kit_relay_stop(&r);
	is_whole("heavy", 96);
	skald_sql_close(sql);
}

/* Rows that the index on xid led to, by now. */
static int64_t
looked_at(struct skald_sql *sql)
{
	/* a session that ends reports last of all what it looked at */
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
		" AND application_name LIKE 'skald relay%'",
		0));
	pg_exec(sql, "SELECT pg_stat_clear_snapshot()");
	return pg_int(sql, "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes"
			   " WHERE indexrelname ~ '^outbox_[0-7]_xid$'");
}

/*
 * Four chunks of one transaction, which began after the last tick or was under way in it:
 * found by the map, by their chunk, and by who waits here. Each in each chunk would be
 * twice as many.
 */
static void
rows_of_one_transaction_are_found_by_their_chunk(void)
{
	struct skald_sql *sql = pg_open("one", SKALD_SQL_TOOL);
	struct skald_sql *slow = pg_session("one", "postgres", SKALD_SQL_TOOL);
	const int64_t most = 3 * 40000 + 15000; /* and to learn that they are many */
	struct kit_relay r;

	add(sql, "one", 1, 40000, 2);
	kit_relay_start(&r, "one", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	pg_exec(slow, "BEGIN");
	add(slow, "one", 40001, 40001, 2);
	add(sql, "one.other", 1, 1, 2);
	CU_ASSERT(kit_wait(sql,
		"SELECT (count(*) > 0)::int FROM skald.relay, "
		"pg_snapshot_xip(acked_snapshot)",
		1));
	kit_relay_stop(&r);
	printf("(%lld", (long long)looked_at(sql));
	CU_ASSERT(looked_at(sql) < most);
	pg_exec(sql, "SELECT pg_stat_reset()");
	add(slow, "one", 40002, 80000, 2);
	pg_exec(slow, "COMMIT");
	kit_relay_start(&r, "one", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	printf(", %lld) ", (long long)looked_at(sql));
	CU_ASSERT(looked_at(sql) < most);
	is_whole("one", 80000);
	skald_sql_close(slow);
	skald_sql_close(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(rows_found_out_of_order_go_out_in_order),
		CHECK(a_small_window_is_put_in_order_too),
		CHECK(large_rows_are_counted_one_by_one),
		CHECK(rows_of_one_transaction_are_found_by_their_chunk),
	};

	return check_main("contract.outbox.large", cases, CHECK_COUNT(cases));
}
