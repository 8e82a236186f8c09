/*
 * contract.consumers.trouble - trouble of the infrastructure is nobody's attempt: no
 * dead letter, nothing lost, nothing twice, and it goes on by itself.
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "outbox/outbox.h"
#include "tests/contract/consumers/kit.h"
#include "tests/support/check.h"

static struct skald_sql *sql;

static void
open_sql(void)
{
	skald_sql_close(sql);
	sql = pg_session("shop", "postgres", SKALD_SQL_TOOL);
}

static void
send_many(const char *topic, unsigned count, unsigned partitions)
{
	char id[32], key[32];

	pg_exec(sql, "TRUNCATE effect, sent");
	for (unsigned i = 0; i < count; i++) {
		snprintf(id, sizeof(id), "m-%u", i);
		snprintf(key, sizeof(key), "k-%u", i % 97);
		kit_send(&(struct kit_record){ .topic = topic,
			.partition = (int32_t)(i % 97 % partitions),
			.key = key,
			.id = id,
			.value = "x",
			.point = 1 + i });
	}
	kit_flush();
	snprintf(id, sizeof(id), "%u", count - 1);
	struct skald_param param = skald_param_text(id);
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_sql_query(sql,
		    "INSERT INTO sent SELECT 'm-' || i FROM generate_series(0, $1::int) "
		    "i",
		    &param, 1, false, NULL, &err))
		CU_FAIL("could not note what was sent");
}

static enum skald_rc
slow_effect(
	struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	(void)usleep(300);
	return kit_effect(d, tx, ctx, err);
}

static void
dead_letters_are_none(const char *group)
{
	char query[160];

	snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.dead_letters WHERE consumer_group = '%s'",
		group);
	CU_ASSERT_EQUAL(pg_int(sql, query), 0);
}

static void
postgres_crashes_under_load(void)
{
	const char *topic = kit_topic(4);
	struct skald_consumer_conf conf = kit_conf("crash", &topic);
	struct kit_run run;

	send_many(topic, 4000, 4);
	conf.handler = slow_effect;
	conf.batch_max = 100;
	conf.attempts = 1;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_applied_total", 500, 30));
	for (unsigned i = 0; i < 2; i++) {
		skald_sql_close(sql);
		sql = NULL;
		pg_stop("immediate");
		(void)poll(NULL, 0, 700);
		pg_start();
		open_sql();
		(void)poll(NULL, 0, 300);
	}
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 4000, 60));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	dead_letters_are_none("crash");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT max(attempt) FROM effect"), 1);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static void
sessions_are_killed_under_load(void)
{
	const char *topic = kit_topic(4);
	struct skald_consumer_conf conf = kit_conf("killed", &topic);
	struct kit_run run;

	send_many(topic, 3000, 4);
	conf.handler = slow_effect;
	conf.batch_max = 100;
	conf.attempts = 1;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_applied_total", 100, 30));
	for (unsigned i = 0; i < 15; i++) {
		pg_exec(sql, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
			     " WHERE application_name LIKE 'skald consumer %'");
		(void)poll(NULL, 0, 60);
	}
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 3000, 60));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	dead_letters_are_none("killed");
	CU_ASSERT(kit_metric(&run, "skald_consumer_outages_total") > 0);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static void
postgres_is_away_at_start(void)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf("early", &topic);
	struct skald_consumer_health health;
	struct kit_run run;

	send_many(topic, 100, 2);
	skald_sql_close(sql);
	sql = NULL;
	pg_stop("fast");
	conf.handler = kit_effect;
	kit_run(&run, &conf);
	(void)poll(
		NULL, 0, 5000); /* it has joined the group by then, without its lanes */
	skald_consumer_health(run.consumer, &health);
	CU_ASSERT(!health.is_ready);
	CU_ASSERT(health.trouble[0] != '\0');
	CU_ASSERT(skald_mono_ms() - health.progress_at_ms < 4500);
	pg_start();
	open_sql();
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 100, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	for (unsigned i = 0; i < 100 && !health.is_ready; i++) {
		(void)poll(NULL, 0, 50);
		skald_consumer_health(run.consumer, &health);
	}
	CU_ASSERT(health.is_ready);
	CHECK_TEXT(health.trouble, "");
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static enum skald_rc
call_out(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	atomic_bool *is_away = ctx;

	if (atomic_load(is_away))
		return skald_fail(
			err, SKALD_RETRY, "callee", "", "the bank does not answer");
	return kit_effect(d, tx, NULL, err);
}

static void
a_callee_is_away(void)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf("callee", &topic);
	atomic_bool is_away = true;
	struct skald_consumer_health health;
	struct kit_run run;

	send_many(topic, 50, 2);
	conf.handler = call_out;
	conf.ctx = &is_away;
	conf.attempts = 1;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_outages_total", 4, 30));
	skald_consumer_health(run.consumer, &health);
	CHECK_TEXT(health.trouble, "the bank does not answer");
	atomic_store(&is_away, false);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 50, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	dead_letters_are_none("callee");
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

/* A row lock of somebody else is waited for, 200 ms at a time, as long as it takes. */
static enum skald_rc
update_row(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	enum skald_rc rc =
		skald_conn_query(tx, "UPDATE hot SET n = n + 1", NULL, 0, NULL, err);

	return rc ? rc : kit_effect(d, tx, ctx, err);
}

static void
a_row_is_locked_for_long(void)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf("locked", &topic);
	struct skald_sql *other = pg_session("shop", "postgres", SKALD_SQL_TOOL);
	struct kit_run run;

	send_many(topic, 30, 2);
	pg_exec(sql, "CREATE TABLE hot (n int); INSERT INTO hot VALUES (0)");
	pg_exec(other, "BEGIN; UPDATE hot SET n = 0");
	conf.handler = update_row;
	conf.attempts = 1;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_conflicts_total", 8, 30));
	pg_exec(other, "COMMIT");
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 30, 30));
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT n FROM hot"), 30);
	dead_letters_are_none("locked");
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	skald_sql_close(other);
}

/* --- the context --------------------------------------------------------------------------------------- */

/* Emits one by C and one by SQL; the first attempt of all fails after that. */
static enum skald_rc
emit(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	struct skald_msg msg = SKALD_MSG_INIT;
	struct skald_uuid id;
	char text[SKALD_UUID_TEXT_BYTES];
	struct skald_param param;
	enum skald_rc rc;

	msg.topic = "answers";
	msg.type = "shop.answer";
	msg.data = SKALD_SLICE_LIT("{}");
	rc = skald_outbox_add(tx, &msg, &id, err);
	if (rc)
		return rc;
	skald_uuid_format(id, text);
	param = skald_param_text(text);
	if (skald_delivery_attempt(d) == 1)
		(void)snprintf(ctx, SKALD_UUID_TEXT_BYTES, "%s", text);
	rc = skald_conn_query(tx,
		"SELECT skald.outbox_add('answers', 'k', 'shop.sql', '{}')", NULL, 0,
		NULL, err);
	if (!rc && skald_delivery_attempt(d) == 1)
		return skald_fail(err, SKALD_RETRY, "shop", "", "once more");
	if (!rc)
		rc = skald_conn_query(
			tx, "INSERT INTO effect (id) VALUES ($1)", &param, 1, NULL, err);
	return rc;
}

static void
what_a_handler_emits_inherits(void)
{
	static const struct skald_header more[] = {
		{ { "ce_correlationid", 16 }, { "order 7", 7 } },
		{ { "traceparent", 11 },
			{ "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
				55 } },
		{ { "baggage", 7 }, { "a=b", 3 } },
	};
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("emits", &topic);
	char first_id[SKALD_UUID_TEXT_BYTES] = "";
	struct kit_run run;

	pg_exec(sql, "TRUNCATE effect, sent");
	kit_send(&(struct kit_record){ .topic = topic,
		.id = "00000000-0000-7000-8000-000000000007",
		.value = "x",
		.point = 1,
		.more = more,
		.more_count = 3 });
	kit_flush();
	conf.handler = emit;
	conf.ctx = first_id;
	conf.sql_context = true;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 1, 30));
	/* derived: the second attempt emitted the same id as the first, which rolled back */
	CHECK_TEXT(pg_text(sql, "SELECT id FROM effect"), first_id);
	CHECK_TEXT(pg_text(sql, "SELECT string_agg(concat_ws('|', type, correlation_id, "
				"causation_id,"
				" substr(traceparent, 1, 35), headers ->> 'baggage'), ' "
				"' ORDER BY id)"
				" FROM skald.outbox WHERE topic = 'answers'"),
		"shop.answer|order 7|00000000-0000-7000-8000-000000000007"
		"|00-0af7651916cd43dd8448eb211c80319c|a=b "
		"shop.sql|order 7|00000000-0000-7000-8000-000000000007"
		"|00-0af7651916cd43dd8448eb211c80319c|a=b");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(DISTINCT message_id) FROM skald.outbox"
				    " WHERE topic = 'answers'"),
		2);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static void
replays_for_another_group_are_passed_over(void)
{
	static const struct skald_header theirs[] = { { { "x-replay-target-group", 21 },
		{ "others", 6 } } };
	static const struct skald_header ours[] = { { { "x-replay-target-group", 21 },
		{ "target", 6 } } };
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("target", &topic);
	struct kit_run run;

	pg_exec(sql, "TRUNCATE effect, sent; INSERT INTO sent VALUES ('ours')");
	kit_send(&(struct kit_record){ .topic = topic,
		.id = "theirs",
		.point = 1,
		.more = theirs,
		.more_count = 1 });
	kit_send(&(struct kit_record){ .topic = topic,
		.id = "ours",
		.point = 2,
		.more = ours,
		.more_count = 1 });
	kit_flush();
	conf.handler = kit_effect;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 1, 30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT(kit_until_metric(&run, "skald_consumer_skipped_total", 1, 10));
	CU_ASSERT_EQUAL(kit_metric(&run, "skald_consumer_skipped_total"), 1);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(postgres_crashes_under_load),
		CHECK(sessions_are_killed_under_load),
		CHECK(postgres_is_away_at_start),
		CHECK(a_callee_is_away),
		CHECK(a_row_is_locked_for_long),
		CHECK(what_a_handler_emits_inherits),
		CHECK(replays_for_another_group_are_passed_over),
	};
	int status;

	kit_start(false);
	open_sql();
	status = check_main("contract.consumers.trouble", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	kit_stop();
	return status;
}
