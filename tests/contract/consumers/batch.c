/*
 * contract.consumers.batch - what becomes of a batch: applied, duplicate, dead;
 * each once, whatever fails.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rand.h"
#include "tests/contract/consumers/kit.h"
#include "tests/support/check.h"

#define COUNT  500
#define POISON 7

static struct skald_sql *sql;

static void
clean(void)
{
	pg_exec(sql, "TRUNCATE effect, sent");
}

/* Sends COUNT records over 4 partitions with positions, POISON of them with value "poison". */
static void
send_poisoned(const char *topic, uint64_t seed)
{
	struct skald_rand rand;
	bool is_poison[COUNT] = { false };
	char id[32], key[32], statement[128];

	skald_rand_seed(&rand, seed);
	for (unsigned left = POISON; left > 0;) {
		unsigned i = (unsigned)skald_rand_below(&rand, COUNT);

		left -= !is_poison[i];
		is_poison[i] = true;
	}
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(id, sizeof(id), "m-%u", i);
		snprintf(key, sizeof(key), "k-%u", i % 61);
		kit_send(&(struct kit_record){ .topic = topic,
			.partition = (int32_t)(i % 61 % 4),
			.key = key,
			.id = id,
			.value = is_poison[i] ? "poison" : "good",
			.point = 100 + i });
		if (is_poison[i])
			continue;
		snprintf(statement, sizeof(statement), "INSERT INTO sent VALUES ('%s')",
			id);
		pg_exec(sql, statement);
	}
	kit_flush();
}

static uint64_t
seed_of_run(void)
{
	const char *text = getenv("SKALD_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)skald_wall_us();

	printf(" SKALD_SEED=%llu ", (unsigned long long)seed);
	return seed;
}

static enum skald_rc
reject_poison(
	struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	enum skald_rc rc = kit_effect(d, tx, ctx, err);

	if (!rc && skald_slice_is_text(skald_delivery_value(d), "poison"))
		return skald_fail(
			err, SKALD_REJECT, "shop", "bad", "value: is poison 17");
	return rc;
}

static void
seven_of_500_die_alone(void)
{
	const char *topic = kit_topic(4);
	struct skald_consumer_conf conf = kit_conf("one-by-one", &topic);
	struct kit_run run;

	clean();
	send_poisoned(topic, seed_of_run());
	conf.handler = reject_poison;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until_metric(
		&run, "skald_consumer_applied_total", COUNT - POISON, 30));
	CU_ASSERT(kit_until(sql,
		"SELECT count(*) FROM skald.dead_letters WHERE consumer_group = "
		"'one-by-one'",
		POISON, 10));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM effect"), COUNT - POISON);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(DISTINCT fingerprint) FROM skald.dead_letters"
			    " WHERE consumer_group = 'one-by-one' AND class = 'FATAL'"
			    " AND code = 'bad' AND state = 'dead' AND attempts = 1"),
		1);
	/* each mirrored, with its own key, value and id */
	CU_ASSERT_EQUAL(
		pg_int(sql,
			"SELECT count(*) FROM skald.outbox WHERE topic LIKE"
			" 'dlq.one-by-one.%' AND convert_from(data, 'UTF8') = 'poison'"
			" AND headers ->> 'x-dlq-reason' = 'fatal'"),
		POISON);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

/* One INSERT for all; the table refuses poison, so nobody names the culprit. */
static enum skald_rc
insert_all(struct skald_delivery *const *list, unsigned count, struct pg_conn *tx,
	void *ctx, struct skald_err *err)
{
	struct skald_buf ids, values;
	struct skald_param params[2];
	enum skald_rc rc;

	(*(unsigned *)ctx)++;
	skald_buf_init(&ids, 1 << 20);
	skald_buf_init(&values, 1 << 20);
	skald_array_begin(&ids);
	skald_array_begin(&values);
	for (unsigned i = 0; i < count; i++) {
		skald_array_add_text(&ids, skald_delivery_id(list[i]));
		skald_array_add_text(&values, skald_delivery_value(list[i]));
	}
	skald_array_end(&ids);
	skald_array_end(&values);
	params[0] = skald_param_text(ids.data);
	params[1] = skald_param_text(values.data);
	rc = skald_conn_query(tx,
		"INSERT INTO effect SELECT * FROM unnest($1::text[], $2::text[])", params,
		2, NULL, err);
	skald_buf_done(&ids);
	skald_buf_done(&values);
	return rc;
}

static void
batch_is_bisected(bool is_deferred, const char *group)
{
	const char *topic = kit_topic(4);
	struct skald_consumer_conf conf = kit_conf(group, &topic);
	struct kit_run run;
	unsigned calls = 0;
	char query[160];

	clean();
	send_poisoned(topic, seed_of_run());
	if (is_deferred)
		pg_exec(sql, "CREATE TABLE good (value text PRIMARY KEY);"
			     "INSERT INTO good VALUES ('good');"
			     "ALTER TABLE effect ADD CONSTRAINT sane FOREIGN KEY (value)"
			     " REFERENCES good DEFERRABLE INITIALLY DEFERRED");
	else
		pg_exec(sql, "ALTER TABLE effect ADD CONSTRAINT sane CHECK (value <> "
			     "'poison')");
	conf.batch = insert_all;
	conf.ctx = &calls;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until_metric(
		&run, "skald_consumer_applied_total", COUNT - POISON, 60));
	snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.dead_letters WHERE consumer_group = '%s'"
		" AND code = '%s'",
		group, is_deferred ? "23503" : "23514");
	CU_ASSERT(kit_until(sql, query, POISON, 10));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	/* the core's bound, C6: failing runs <= k log2 n + k; each is followed by a good one */
	CU_ASSERT(
		kit_metric(&run, "skald_consumer_retries_total") <= POISON * 9 + POISON);
	printf("calls=%u ", calls);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	pg_exec(sql,
		"ALTER TABLE effect DROP CONSTRAINT sane; DROP TABLE IF EXISTS good");
}

static void
unknown_culprits_are_bisected(void)
{
	batch_is_bisected(false, "bisected");
}

static void
deferred_constraint_fails_the_commit(void)
{
	batch_is_bisected(true, "deferred");
}

/* --- duplicates --------------------------------------------------------------------------------- */

/* The same 50 messages twice in the log, as a relay that starts again sends them. */
static void
send_twice(const char *topic, bool has_positions)
{
	char id[32], key[32], statement[128];

	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < 50; i++) {
			snprintf(id, sizeof(id), "d-%u", i);
			snprintf(key, sizeof(key), "k-%u", i % 7);
			kit_send(&(struct kit_record){ .topic = topic,
				.partition = (int32_t)(i % 7 % 2),
				.key = key,
				.id = id,
				.value = "x",
				.point = has_positions ? 10 + i : 0 });
			if (round > 0)
				continue;
			snprintf(statement, sizeof(statement),
				"INSERT INTO sent VALUES ('%s')", id);
			pg_exec(sql, statement);
		}
	kit_flush();
}

static void
repeats_by_position_are_passed_over(void)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf("positions", &topic);
	struct kit_run run;

	clean();
	send_twice(topic, true);
	conf.handler = kit_effect;
	conf.batch_max = 7; /* repeats within a batch and across batches */
	kit_run(&run, &conf);
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_duplicate_total", 50, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

/* The control: without positions nothing stops them, and the checker names them. */
static void
control_without_positions_doubles(void)
{
	const char *topic = kit_topic(2), *wrong;
	struct skald_consumer_conf conf = kit_conf("no-positions", &topic);
	struct kit_run run;

	clean();
	send_twice(topic, false);
	conf.handler = kit_effect;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 100, 30));
	wrong = kit_wrong_effects(sql);
	CU_ASSERT(strstr(wrong, "d-0:2") != NULL);
	CU_ASSERT(strstr(wrong, "d-49:2") != NULL);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static void
repeats_by_id_are_passed_over(void)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf("ids", &topic);
	struct kit_run run;

	clean();
	send_twice(topic, false);
	conf.handler = kit_effect;
	conf.id_inbox = true;
	conf.batch_max = 11;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_duplicate_total", 50, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

/* Kafka is told to begin again (its offset means nothing); the lanes know better. */
static void
restart_applies_nothing_twice(void)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf("restart", &topic);
	struct kit_run run;

	clean();
	send_twice(topic, true);
	conf.handler = kit_effect;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 50, 30));
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	/* as after a crash before the last tick: some lanes are behind the others */
	pg_exec(sql, "UPDATE skald.consumer_lane SET done = 0"
		     " WHERE consumer_group = 'restart' AND lane = 1");
	pg_exec(sql, "UPDATE skald.consumer_partition SET seen_offset = NULL"
		     " WHERE consumer_group = 'restart'");
	kit_send(&(struct kit_record){ .topic = topic,
		.partition = 0,
		.key = "new",
		.id = "new",
		.point = 999 });
	kit_flush();
	pg_exec(sql, "INSERT INTO sent VALUES ('new')");
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect WHERE id = 'new'", 1, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_duplicate_total", 1, 10));
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

/* --- failures that are nobody's ------------------------------------------------------------------- */

static enum skald_rc
conflict_often(
	struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	unsigned *calls = ctx;
	enum skald_rc rc = kit_effect(d, tx, NULL, err);

	if (rc || ++*calls > 400 || *calls % 3)
		return rc;
	return skald_conn_query(tx,
		"DO $$ BEGIN RAISE EXCEPTION 'met another' USING ERRCODE = '40001'; END "
		"$$",
		NULL, 0, NULL, err);
}

static void
conflicts_count_against_nobody(void)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf("storm", &topic);
	struct kit_run run;
	unsigned calls = 0;

	clean();
	send_twice(topic, true);
	conf.handler = conflict_often;
	conf.ctx = &calls;
	conf.attempts = 1; /* a single counted failure would kill */
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 50, 60));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT(kit_metric(&run, "skald_consumer_conflicts_total") > 20);
	CU_ASSERT_EQUAL(kit_metric(&run, "skald_consumer_dead_total"), 0);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT max(attempt) FROM effect"), 1);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static enum skald_rc
fail_at_first(
	struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	bool is_hopeless = skald_slice_is_text(skald_delivery_value(d), "hopeless");
	bool is_shy = skald_slice_is_text(skald_delivery_value(d), "shy");

	if (is_hopeless || (is_shy && skald_delivery_attempt(d) < 3))
		return skald_fail(err, SKALD_RETRY, "shop", "", "not yet");
	return kit_effect(d, tx, ctx, err);
}

static void
own_failures_are_tried_again_then_die(void)
{
	static const char *const values[] = { "good", "shy", "hopeless", "good", "shy" };
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("tries", &topic);
	struct kit_run run;
	char id[32];

	clean();
	for (unsigned i = 0; i < 5; i++) {
		snprintf(id, sizeof(id), "t-%u", i);
		kit_send(&(struct kit_record){ .topic = topic,
			.key = "k",
			.id = id,
			.value = values[i],
			.point = 1 + i });
	}
	kit_flush();
	pg_exec(sql, "INSERT INTO sent VALUES ('t-0'), ('t-1'), ('t-3'), ('t-4')");
	conf.handler = fail_at_first;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 4, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CHECK_TEXT(
		pg_text(sql,
			"SELECT string_agg(attempt::text, ',' ORDER BY id) FROM effect"),
		"1,3,1,3");
	CHECK_TEXT(
		pg_text(sql, "SELECT message_id || ' ' || class || ' ' || attempts"
			     " FROM skald.dead_letters WHERE consumer_group = 'tries'"),
		"t-2 RETRY 5");
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static enum skald_rc
misbehave(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	struct skald_err ignored = SKALD_ERR_INIT;

	if (skald_slice_is_text(skald_delivery_value(d), "silent")) {
		/* fails, and says OK */
		if (skald_conn_query(tx, "SELECT 1/0", NULL, 0, NULL, &ignored))
			return SKALD_OK;
	}
	if (skald_slice_is_text(skald_delivery_value(d), "commits"))
		return skald_conn_query(tx, "COMMIT", NULL, 0, NULL, err);
	if (skald_slice_is_text(skald_delivery_value(d), "restarts") &&
		skald_conn_query(tx, "COMMIT", NULL, 0, NULL, err) == SKALD_OK)
		return skald_conn_query(tx, "BEGIN", NULL, 0, NULL, err);
	return kit_effect(d, tx, ctx, err);
}

static void
one_misbehaves(const char *value, const char *group, enum skald_rc wanted, int effects)
{
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf(group, &topic);
	struct kit_run run;

	clean();
	kit_send(&(struct kit_record){ .topic = topic, .value = "good", .point = 1 });
	kit_send(&(struct kit_record){ .topic = topic, .value = value, .point = 2 });
	kit_send(&(struct kit_record){ .topic = topic, .value = "good", .point = 3 });
	kit_flush();
	conf.handler = misbehave;
	kit_run(&run, &conf);
	if (wanted == SKALD_OK) {
		CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", effects, 30));
	} else {
		(void)pthread_join(run.thread, NULL); /* ends by itself */
		CU_ASSERT_EQUAL(run.rc, wanted);
		CU_ASSERT(strstr(run.err.text, "ended the transaction") != NULL);
		skald_consumer_destroy(run.consumer);
		skald_metrics_destroy(run.metrics);
		return;
	}
	CU_ASSERT_EQUAL(kit_end_run(&run), wanted);
}

static void
ok_in_a_failed_transaction_is_a_failure(void)
{
	one_misbehaves("silent", "silent", SKALD_OK, 2);
	CHECK_TEXT(pg_text(sql, "SELECT class || ' ' || code FROM skald.dead_letters"
				" WHERE consumer_group = 'silent'"),
		"RETRY 25P02");
}

static void
a_handler_that_commits_stops_the_process(void)
{
	one_misbehaves("commits", "commits", SKALD_FATAL, 0);
	one_misbehaves("restarts", "restarts", SKALD_FATAL, 0);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(seven_of_500_die_alone),
		CHECK(unknown_culprits_are_bisected),
		CHECK(deferred_constraint_fails_the_commit),
		CHECK(repeats_by_position_are_passed_over),
		CHECK(control_without_positions_doubles),
		CHECK(repeats_by_id_are_passed_over),
		CHECK(restart_applies_nothing_twice),
		CHECK(conflicts_count_against_nobody),
		CHECK(own_failures_are_tried_again_then_die),
		CHECK(ok_in_a_failed_transaction_is_a_failure),
		CHECK(a_handler_that_commits_stops_the_process),
	};
	int status;

	kit_start(false);
	sql = pg_session("shop", "postgres", SKALD_SQL_TOOL);
	status = check_main("contract.consumers.batch", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	kit_stop();
	return status;
}
