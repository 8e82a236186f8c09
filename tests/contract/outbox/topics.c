/*
 * topics.c - how many partitions a relay takes a topic to have: a key stays where it is
 * until nothing is outstanding.
 */
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

static void
a_topic_keeps_its_partitions_until_nothing_is_outstanding(void)
{
	struct skald_sql *sql = pg_open("grown", SKALD_SQL_TOOL);
	int32_t old = skald_partition_of(SKALD_SLICE_LIT("k1"), 4);
	int32_t now = skald_partition_of(SKALD_SLICE_LIT("k1"), KIT_PARTITIONS);
	struct kit_records all;
	struct kit_relay r;

	CU_ASSERT(old != now);
	pg_exec(sql, "INSERT INTO skald.relay_topic VALUES ('grown', 4)");
	kit_relay_start(&r, "grown", 0);
	kit_add(sql, "grown", "k1", 1);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT(kit_wait(
		sql, "SELECT partitions FROM skald.relay_topic", KIT_PARTITIONS));
	kit_add(sql, "grown", "k1", 2);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	all = kit_read("grown");
	CU_ASSERT_EQUAL(all.count, 2);
	for (unsigned i = 0; i < all.count; i++)
		CU_ASSERT_EQUAL(all.items[i].partition,
			strcmp(all.items[i].value, "1") == 0 ? old : now);
	kit_free(&all);
	skald_sql_close(sql);
}

static void
fewer_partitions_are_taken_up_at_once(void)
{
	struct skald_sql *sql = pg_open("shrunk", SKALD_SQL_TOOL);
	struct kit_relay r;

	pg_exec(sql, "INSERT INTO skald.relay_topic VALUES ('shrunk', 64)");
	kit_relay_start(&r, "shrunk", 0);
	kit_add_numbered(sql, "shrunk", 1, 100);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT partitions FROM skald.relay_topic"), KIT_PARTITIONS);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.parked_key"), 0);
	kit_relay_stop(&r);
	kit_check("shrunk", 100, 0);
	skald_sql_close(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_topic_keeps_its_partitions_until_nothing_is_outstanding),
		CHECK(fewer_partitions_are_taken_up_at_once),
	};

	return check_main("contract.outbox.topics", cases, CHECK_COUNT(cases));
}
