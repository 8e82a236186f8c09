/*
 * contract.consumers.kafka - on Apache Kafka, whose address is in SKALD_TEST_KAFKA: a log
 * that is not the one that was read stops the partition, loudly and alone, until an
 * operator lets it begin anew.
 */
#include <poll.h>
#include <stdio.h>

#include "tests/contract/consumers/kit.h"
#include "tests/support/check.h"

static struct skald_sql *sql;

static void
send_to(const char *topic, int32_t partition, const char *id, unsigned long long point)
{
	char statement[80];

	kit_send(&(struct kit_record){ .topic = topic,
		.partition = partition,
		.key = "k",
		.id = id,
		.value = "x",
		.point = point });
	kit_flush();
	snprintf(statement, sizeof(statement), "INSERT INTO sent VALUES ('%s')", id);
	pg_exec(sql, statement);
}

static void
it_is_kafka(void)
{
	struct skald_cluster *cluster = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	char id[SKALD_CLUSTER_ID_BYTES] = "";

	CU_ASSERT_EQUAL(skald_cluster_open(&cluster, kit_props(), &err), SKALD_OK);
	CU_ASSERT_EQUAL(skald_cluster_id(cluster, 10000, id, &err), SKALD_OK);
	CU_ASSERT(id[0] && !skald_cluster_is_dev(id));
	printf(" cluster %s ", id);
	skald_cluster_close(cluster);
}

/* Two records applied in partition 0, one in 1; tampered; then one more in each. */
static void
stops_alone(const char *group, const char *tamper, const char *why)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf(group, &topic);
	struct skald_consumer_health health;
	struct kit_run run;
	char statement[300];

	pg_exec(sql, "TRUNCATE effect, sent");
	send_to(topic, 0, "a", 1);
	send_to(topic, 0, "b", 2);
	send_to(topic, 1, "c", 3);
	conf.handler = kit_effect;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 3, 30));
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	pg_exec(sql, tamper);
	send_to(topic, 0, "d", 4);
	send_to(topic, 1, "e", 5);
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect WHERE id = 'e'", 1, 30));
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_stopped_partitions", 1, 10));
	(void)poll(NULL, 0, 1500); /* a tick must not move what stands */
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM effect WHERE id = 'd'"), 0);
	skald_consumer_health(run.consumer, &health);
	CU_ASSERT_EQUAL(health.stopped_count, 1);
	snprintf(statement, sizeof(statement),
		"SELECT count(*) FROM skald.consumer_partition WHERE consumer_group = "
		"'%s'"
		" AND partition = 0 AND stopped LIKE '%s'",
		group, why);
	CU_ASSERT_EQUAL(pg_int(sql, statement), 1);
	/* the way out, as the log says it; positions still know what was applied */
	snprintf(statement, sizeof(statement),
		"SELECT skald.operator_act(action => 'consumer.reset', target => "
		"'%s/%s/0',"
		" reason => 'looked at')",
		group, topic);
	pg_exec(sql, statement);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect WHERE id = 'd'", 1, 40));
	CHECK_TEXT(pg_text(sql, "SELECT string_agg(id, ' ' ORDER BY id) FROM effect"),
		"a b c d e");
	CU_ASSERT_EQUAL(kit_metric(&run, "skald_consumer_stopped_partitions"), 0);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static void
another_record_at_the_last_offset_stops(void)
{
	stops_alone("k-digest",
		"UPDATE skald.consumer_partition SET seen_digest = seen_digest + 1"
		" WHERE consumer_group = 'k-digest' AND partition = 0",
		"the topic was recreated:%");
}

static void
an_end_before_what_is_done_stops(void)
{
	stops_alone("k-beyond",
		"UPDATE skald.consumer_lane SET done = 1000000"
		" WHERE consumer_group = 'k-beyond' AND partition = 0",
		"the topic was recreated: 1000000 is done, its log ends at 3");
}

static void
two_members_share_and_take_over(void)
{
	const char *topic = kit_topic(4);
	struct skald_consumer_conf conf = kit_conf("k-pair", &topic);
	struct kit_run first, second;
	char id[32];

	pg_exec(sql, "TRUNCATE effect, sent");
	conf.handler = kit_effect;
	kit_run(&first, &conf);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(id, sizeof(id), "p-%u", i);
		send_to(topic, (int32_t)(i % 4), id, 1 + i);
	}
	CU_ASSERT(kit_until_metric(&first, "skald_consumer_applied_total", 1, 30));
	kit_run(&second, &conf);
	CU_ASSERT(kit_until(sql,
		"SELECT count(DISTINCT owner) FROM skald.consumer_lane"
		" WHERE consumer_group = 'k-pair'",
		2, 60));
	for (unsigned i = 100; i < 200; i++) {
		snprintf(id, sizeof(id), "p-%u", i);
		send_to(topic, (int32_t)(i % 4), id, 1 + i);
	}
	CU_ASSERT(kit_until_metric(&second, "skald_consumer_applied_total", 1, 30));
	CU_ASSERT_EQUAL(kit_end_run(&first), SKALD_OK);
	send_to(topic, 0, "last", 1000);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 201, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(kit_end_run(&second), SKALD_OK);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(it_is_kafka),
		CHECK(another_record_at_the_last_offset_stops),
		CHECK(an_end_before_what_is_done_stops),
		CHECK(two_members_share_and_take_over),
	};
	int status;

	kit_start(true);
	sql = pg_session("shop", "postgres", SKALD_SQL_TOOL);
	status = check_main("contract.consumers.kafka", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	kit_stop();
	return status;
}
