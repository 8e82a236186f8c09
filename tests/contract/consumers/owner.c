/*
 * contract.consumers.owner - who may write: terms, former owners, partitions that
 * change hands, logs that are not the one that was read.
 */
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>

#include "tests/contract/consumers/kit.h"
#include "tests/support/check.h"

static struct skald_sql *sql;

static void
clean(void)
{
	pg_exec(sql, "TRUNCATE effect, sent");
}

static void
send_one(const char *topic, int32_t partition, const char *id, unsigned long long point)
{
	kit_send(&(struct kit_record){ .topic = topic,
		.partition = partition,
		.key = "k",
		.id = id,
		.value = "x",
		.point = point });
	kit_flush();
}

/* The first call waits inside its transaction, after its effect. */
struct gate {
	sem_t is_inside, may_go;
	atomic_bool is_used;
};

static enum skald_rc
wait_inside(
	struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	struct gate *gate = ctx;
	enum skald_rc rc = kit_effect(d, tx, NULL, err);

	if (rc || atomic_exchange(&gate->is_used, true))
		return rc;
	(void)sem_post(&gate->is_inside);
	while (sem_wait(&gate->may_go))
		;
	return SKALD_OK;
}

static void
a_former_owner_commits_nothing(void)
{
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("fenced", &topic);
	struct gate gate = { .is_used = false };
	struct kit_run run;
	char claim[200];

	clean();
	(void)sem_init(&gate.is_inside, 0, 0);
	(void)sem_init(&gate.may_go, 0, 0);
	send_one(topic, 0, "z", 1);
	pg_exec(sql, "INSERT INTO sent VALUES ('z')");
	conf.handler = wait_inside;
	conf.ctx = &gate;
	conf.attempts = 1;
	kit_run(&run, &conf);
	while (sem_wait(&gate.is_inside))
		;
	/* another owner claims; it writes nothing, and Kafka knows nothing of it */
	snprintf(claim, sizeof(claim),
		"SELECT count(*) FROM skald.consumer_claim('fenced', '%s', 0, 4, "
		"'h:1:other', 0)",
		topic);
	CU_ASSERT_EQUAL(pg_int(sql, claim), 4);
	(void)sem_post(&gate.may_go);
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_fenced_total", 1, 10));
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM effect"), 0);
	/* the other never shows up in the group: after a session's time it was a zombie */
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 1, 20));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(kit_metric(&run, "skald_consumer_dead_total"), 0);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT max(term) FROM skald.consumer_lane"
				    " WHERE consumer_group = 'fenced'"),
		3);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

/* A member that was stopped in a transaction: its session holds rows that the next one needs. */
static void
a_stuck_session_of_a_former_owner_is_ended(void)
{
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("stuck", &topic);
	struct skald_sql_conf zombie_conf = { .url = kit_url(),
		.application = "skald consumer 00000000deadbeef",
		.kind = SKALD_SQL_SERVICE,
		.connect_timeout_ms = 5000 };
	struct skald_sql *zombie = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	struct kit_run run;
	char claim[200];

	clean();
	send_one(topic, 0, "s", 1);
	pg_exec(sql,
		"INSERT INTO sent VALUES ('s'); CREATE UNIQUE INDEX once ON effect (id)");
	CU_ASSERT_EQUAL(skald_sql_open(&zombie, &zombie_conf, &err), SKALD_OK);
	if (!zombie)
		return;
	snprintf(claim, sizeof(claim),
		"SELECT count(*) FROM skald.consumer_claim('stuck', '%s', 0, 4,"
		" 'h:1:00000000deadbeef', 0)",
		topic);
	CU_ASSERT_EQUAL(pg_int(zombie, claim), 4);
	pg_exec(zombie,
		"BEGIN; INSERT INTO effect VALUES ('s');"
		"UPDATE skald.consumer_lane SET done = 1 WHERE consumer_group = 'stuck'");
	conf.handler = kit_effect;
	conf.attempts = 1;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect WHERE attempt = 1", 1, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT(skald_sql_exec(zombie, "COMMIT", &err) != SKALD_OK);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	skald_sql_close(zombie);
	pg_exec(sql, "DROP INDEX once");
}

static void
send_range(const char *topic, unsigned from, unsigned to)
{
	char id[32], statement[80];

	for (unsigned i = from; i < to; i++) {
		snprintf(id, sizeof(id), "p-%u", i);
		snprintf(statement, sizeof(statement), "INSERT INTO sent VALUES ('%s')",
			id);
		pg_exec(sql, statement);
		kit_send(&(struct kit_record){ .topic = topic,
			.partition = (int32_t)(i % 4),
			.key = "k",
			.id = id,
			.value = "x",
			.point = 1 + i });
	}
	kit_flush();
}

static void
two_share_and_one_takes_over(void)
{
	const char *topic = kit_topic(4);
	struct skald_consumer_conf conf = kit_conf("pair", &topic);
	struct kit_run first, second;

	clean();
	conf.handler = kit_effect;
	kit_run(&first, &conf);
	send_range(topic, 0, 300);
	CU_ASSERT(kit_until_metric(&first, "skald_consumer_applied_total", 1, 30));
	kit_run(&second, &conf);
	CU_ASSERT(kit_until(sql,
		"SELECT count(DISTINCT owner) FROM skald.consumer_lane"
		" WHERE consumer_group = 'pair'",
		2, 60));
	send_range(topic, 300, 600);
	CU_ASSERT(kit_until_metric(&second, "skald_consumer_applied_total", 1, 30));
	CU_ASSERT(kit_until_metric(&first, "skald_consumer_applied_total", 301, 30));
	CU_ASSERT_EQUAL(kit_end_run(&first), SKALD_OK);
	send_range(topic, 600, 900);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 900, 60));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.dead_letters"
				    " WHERE consumer_group = 'pair'"),
		0);
	CU_ASSERT_EQUAL(kit_end_run(&second), SKALD_OK);
}

/* --- another log -------------------------------------------------------------------------------------- */

/* On the dev broker, whose topics come and go: begins anew, and says so; positions still hold. */
static void
another_log_of_the_dev_broker_begins_anew(const char *group, const char *tamper)
{
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf(group, &topic);
	struct kit_run run;

	clean();
	pg_exec(sql, "INSERT INTO sent VALUES ('a'), ('b')");
	send_one(topic, 0, "a", 1);
	conf.handler = kit_effect;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 1, 30));
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	pg_exec(sql, tamper);
	send_one(topic, 0, "b", 2);
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 2, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(kit_metric(&run, "skald_consumer_stopped_partitions"), 0);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static void
a_recreated_topic_is_noticed_by_its_records(void)
{
	another_log_of_the_dev_broker_begins_anew("digest",
		"UPDATE skald.consumer_partition SET seen_digest = seen_digest + 1"
		" WHERE consumer_group = 'digest'");
}

static void
a_recreated_topic_is_noticed_by_its_end(void)
{
	another_log_of_the_dev_broker_begins_anew("beyond",
		"UPDATE skald.consumer_lane SET done = 1000000"
		" WHERE consumer_group = 'beyond'");
}

static void
the_same_log_goes_on(void)
{
	another_log_of_the_dev_broker_begins_anew("same", "SELECT 1");
	/* started at the last applied record, and found it as it was */
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT seen_offset FROM skald.consumer_partition"
				    " WHERE consumer_group = 'same'"),
		1);
}

static void
stored_lanes_win(void)
{
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("lanes", &topic);
	struct kit_run run;

	clean();
	pg_exec(sql, "INSERT INTO sent VALUES ('a'), ('b')");
	send_one(topic, 0, "a", 1);
	conf.handler = kit_effect;
	conf.lanes = 3;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 1, 30));
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	conf.lanes = 9;
	send_one(topic, 0, "b", 2);
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 2, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.consumer_lane"
				    " WHERE consumer_group = 'lanes'"),
		3);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

/* A lane without traffic does not hold back the start of reading. */
static void
idle_lanes_follow(void)
{
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("idle", &topic);
	struct kit_run run;

	clean();
	for (unsigned i = 0; i < 20; i++)
		send_one(topic, 0, NULL, 1 + i); /* one key: one lane */
	conf.handler = kit_effect;
	conf.lanes = 8;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql,
		"SELECT min(done) FROM skald.consumer_lane"
		" WHERE consumer_group = 'idle'",
		20, 30));
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT max(lag) FROM skald.consumers"
				    " WHERE consumer_group = 'idle'"),
		0);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_former_owner_commits_nothing),
		CHECK(a_stuck_session_of_a_former_owner_is_ended),
		CHECK(two_share_and_one_takes_over),
		CHECK(a_recreated_topic_is_noticed_by_its_records),
		CHECK(a_recreated_topic_is_noticed_by_its_end),
		CHECK(the_same_log_goes_on),
		CHECK(stored_lanes_win),
		CHECK(idle_lanes_follow),
	};
	int status;

	kit_start(false);
	sql = pg_session("shop", "postgres", SKALD_SQL_TOOL);
	status = check_main("contract.consumers.owner", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	kit_stop();
	return status;
}
