/*
 * park.c - what Kafka refuses waits with its key in the database, everything else flows,
 * and what is let out comes in order, whoever crashes when.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/position.h"
#include "base/rand.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

#define TOO_LARGE      10
#define NOT_AUTHORISED 29
#define INVALID_RECORD 87

#define PARKED_KEYS     "SELECT count(*) FROM skald.parked_key"
#define PARKED_MESSAGES "SELECT count(*) FROM skald.parked_message"

static const struct skald_topic_conf no_topics = { .partitions = KIT_PARTITIONS,
	.replication = -1 };

/* In mode wal it streams before anything is written. */
static void
start(struct kit_relay *r, struct skald_sql *sql, const char *db,
	const struct skald_topic_conf *topics)
{
	kit_relay_start_with(r, db, 0, topics);
	if (kit_ways.wants_wal)
		CU_ASSERT(
			kit_wait(sql, "SELECT (mode = 'wal')::int FROM skald.relay", 1));
}

static void
release(struct skald_sql *sql, const char *topic, const char *key)
{
	char script[256];

	(void)snprintf(script, sizeof(script), "SELECT skald.park_release('%s', '%s')",
		topic, key);
	CHECK_TEXT(pg_text(sql, script), "t");
}

/* Everything that is committed is published or parked, and nothing waits any more. */
static bool
wait_all_out(struct skald_sql *sql)
{
	return kit_wait_relayed(sql) && kit_wait(sql, PARKED_KEYS, 0) &&
	       kit_wait(sql, PARKED_MESSAGES, 0) && kit_wait_relayed(sql);
}

/* --- topics that are not there -------------------------------------------------------- */

static void
a_missing_topic_parks_its_rows_and_no_others(void)
{
	struct skald_sql *sql = pg_open("miss", SKALD_SQL_TOOL);
	struct kit_relay r;

	kit_make_topic("miss.there");
	start(&r, sql, "miss", &no_topics);
	pg_exec(sql,
		"SELECT skald.outbox_add(topic => CASE g % 2 WHEN 0 THEN 'miss.there' "
		"ELSE 'miss.gone' END, key => 'k' || g % 10, type => 't', data => "
		"to_jsonb(g)) FROM generate_series(1, 200) AS g");
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_published_total"), 100);
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_parked_keys"), 5);
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_parked_messages_total"), 100);
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_rebuilds_total"), 0);
	CU_ASSERT_EQUAL(pg_int(sql, PARKED_MESSAGES), 100);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT min(waiting) FROM skald.parked"), 20);
	CHECK_TEXT(pg_text(sql, "SELECT code FROM skald.parked_key LIMIT 1"), "3");
	/* a keyless one waits for itself, and holds up no other */
	pg_exec(sql, "SELECT skald.outbox_add(topic => 'miss.gone', key => NULL, "
		     "type => 't', data => '500')");
	CU_ASSERT(kit_wait(sql, PARKED_KEYS, 6));
	kit_make_topic("miss.gone");
	pg_exec(sql, "SELECT skald.outbox_add(topic => 'miss.gone', key => 'k1', "
		     "type => 't', data => '501')");
	CU_ASSERT(wait_all_out(sql)); /* by itself */
	for (int i = 0; i < 5000 && kit_metric(&r, "skald_relay_parked_keys"); i++)
		(void)usleep(1000); /* it hears the answer after we do */
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_parked_keys"), 0);
	kit_relay_stop(&r);
	kit_check("miss.there", 100, 0);
	kit_check("miss.gone", 102, 0);
	kit_end(sql);
}

static void
parked_keys_are_known_to_the_next_relay(void)
{
	struct skald_sql *sql = pg_open("next", SKALD_SQL_TOOL);
	struct kit_relay r;

	start(&r, sql, "next", &no_topics);
	kit_add(sql, "next", "a", 1);
	kit_add(sql, "next", "b", 2);
	CU_ASSERT(kit_wait(sql, PARKED_MESSAGES, 2));
	kit_relay_stop(&r);
	kit_add(sql, "next", "a", 3);
	kit_make_topic("next"); /* nobody looked yet: a still waits */
	start(&r, sql, "next", &no_topics);
	CU_ASSERT(wait_all_out(sql));
	kit_relay_stop(&r);
	kit_check("next", 3, 0);
	kit_end(sql);
}

/* --- records that are refused ----------------------------------------------------------- */

static void
a_record_of_30_mb_waits_and_the_others_do_not(void)
{
	struct skald_sql *sql = pg_open("huge", SKALD_SQL_TOOL);
	struct kit_relay r;
	int64_t began_ms;

	start(&r, sql, "huge", kit_topics());
	kit_add(sql, "huge", "small", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	began_ms = skald_mono_ms();
	pg_exec(sql,
		"INSERT INTO skald.outbox (message_id, topic, key, type, source, data, "
		"correlation_id, traceparent) VALUES (gen_random_uuid(), 'huge', "
		"'big', 't', '/', convert_to(repeat('x', 30000000), 'UTF8'), '', "
		"'')");
	kit_add_numbered(sql, "huge", 1, 100);
	kit_add(sql, "huge", "big", 101);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 101));
	printf("(%lld ms) ", (long long)(skald_mono_ms() - began_ms));
	CU_ASSERT(kit_wait(sql, PARKED_MESSAGES, 2));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_rebuilds_total"), 0);
	CHECK_TEXT(pg_text(sql, "SELECT code FROM skald.parked_key"), "10");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT octet_length(data) FROM skald.parked_message "
				    "ORDER BY position LIMIT 1"),
		30000000);
	/* without it the other is let out */
	pg_exec(sql, "UPDATE skald.parked_key SET next_at = NULL");
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM skald.parked_key WHERE releasing_id IS NULL", 1));
	pg_exec(sql, "DELETE FROM skald.parked_message WHERE octet_length(data) > 1000");
	release(sql, "huge", "big");
	CU_ASSERT(wait_all_out(sql));
	kit_relay_stop(&r);
	kit_check("huge", 102, 0);
	kit_end(sql);
}

/* Several keys of one partition, so that a batch holds them all. */
static void
names_of_one_partition(char names[5][16])
{
	int32_t want = skald_partition_of(SKALD_SLICE_LIT("key0"), KIT_PARTITIONS);
	unsigned count = 0;

	for (int n = 0; count < 5; n++) {
		(void)snprintf(names[count], 16, "key%d", n);
		if (skald_partition_of(skald_slice_text(names[count]), KIT_PARTITIONS) ==
			want)
			count++;
	}
}

/*
 * A hundred rows wait for the broker; their batch is refused, and when they are sent one
 * by one the one after `before` others.
 */
static void
refuse_one_of_a_batch(const char *db, int error, unsigned before)
{
	struct skald_sql *sql = pg_open(db, SKALD_SQL_TOOL);
	char names[5][16];
	struct kit_relay r;
	int64_t began_ms;

	names_of_one_partition(names);
	kit_producer = KIT_ONE_IN_FLIGHT;
	start(&r, sql, db, kit_topics());
	kit_producer = KIT_AS_SET;
	kit_add(sql, db, names[0], 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_broker_set_up(false);
	pg_exec(sql, "BEGIN");
	for (int i = 1; i <= 100; i++)
		kit_add(sql, db, names[i % 5], i);
	pg_exec(sql, "COMMIT");
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_inflight", 100));
	kit_refuse_produce(error, 1);
	kit_refuse_produce(0, before);
	kit_refuse_produce(error, 1);
	began_ms = skald_mono_ms();
	kit_broker_set_up(true);
	CU_ASSERT(kit_wait_relayed(sql));
	printf("(%lld ms, %lld rebuilds) ", (long long)(skald_mono_ms() - began_ms),
		(long long)kit_metric(&r, "skald_relay_rebuilds_total"));
	CU_ASSERT(kit_metric(&r, "skald_relay_rebuilds_total") <= 2);
	CU_ASSERT_EQUAL(pg_int(sql, PARKED_KEYS), 1);
	CHECK_TEXT(pg_text(sql, "SELECT convert_from(key, 'UTF8') FROM skald.parked_key"),
		names[(before + 1) % 5]);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT code::int FROM skald.parked_key"), error);
	/* a stream begins anew with a new producer, and repeats */
	CU_ASSERT(kit_metric(&r, "skald_relay_published_total") >=
		  101 - pg_int(sql, PARKED_MESSAGES));
	kit_add(sql, db, names[(before + 1) % 5], 101);
	CU_ASSERT(kit_wait_relayed(sql));
	release(sql, db, names[(before + 1) % 5]);
	kit_add(sql, db, names[(before + 1) % 5], 102);
	CU_ASSERT(wait_all_out(sql));
	kit_relay_stop(&r);
	kit_check(db, 103, kit_ways.wants_wal ? 100 : 0);
	kit_end(sql);
}

static void
too_large_for_the_broker_is_found_and_parked(void)
{
	refuse_one_of_a_batch("large", TOO_LARGE, 7);
}

static void
an_invalid_record_is_found_and_parked(void)
{
	refuse_one_of_a_batch("invalid", INVALID_RECORD, 42);
}

static void
a_topic_that_is_not_ours_parks_all_of_it(void)
{
	struct skald_sql *sql = pg_open("rights", SKALD_SQL_TOOL);
	struct kit_relay r;

	kit_make_topic("rights.other");
	kit_producer = KIT_ONE_IN_FLIGHT;
	start(&r, sql, "rights", kit_topics());
	kit_producer = KIT_AS_SET;
	kit_add(sql, "rights", "a", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_refuse_produce(NOT_AUTHORISED, 1);
	kit_add(sql, "rights", "a", 1);
	CU_ASSERT(kit_wait(sql, PARKED_KEYS, 1));
	kit_add_numbered(sql, "rights", 2, 51);
	kit_add_numbered(sql, "rights.other", 1, 50);
	CU_ASSERT(kit_wait(sql, PARKED_KEYS, 51));
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_published_total"), 51);
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_rebuilds_total"), 1);
	pg_exec(sql, "UPDATE skald.parked_key SET next_at = now() + interval '5 s'");
	pg_exec(sql, "SELECT pg_sleep(5.1)"); /* no longer taken for granted */
	pg_exec(sql, "SELECT skald.park_release(topic, key) FROM skald.parked_key");
	CU_ASSERT(wait_all_out(sql));
	kit_relay_stop(&r);
	kit_check("rights", 52, 0);
	kit_check("rights.other", 50, 0);
	kit_end(sql);
}

static void
an_outage_parks_nothing(void)
{
	struct skald_sql *sql = pg_open("outage", SKALD_SQL_TOOL);
	struct kit_relay r;

	kit_make_topic("outage.new");
	start(&r, sql, "outage", kit_topics());
	kit_add(sql, "outage", "a", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_broker_set_up(false);
	kit_add(sql, "outage", "a", 1);
	kit_add(sql, "outage.new", "a", 1);
	(void)usleep(1500 * 1000);
	CU_ASSERT_EQUAL(pg_int(sql, PARKED_KEYS), 0);
	kit_broker_set_up(true);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(pg_int(sql, PARKED_KEYS), 0);
	kit_relay_stop(&r);
	kit_check("outage", 2, 1);
	kit_check("outage.new", 1, 0);
	kit_end(sql);
}

/* --- letting out ------------------------------------------------------------------------ */

/* The head is refused once more: it and what follows keep waiting, in order. */
static void
refused_again_waits_again(void)
{
	struct skald_sql *sql = pg_open("again", SKALD_SQL_TOOL);
	struct kit_relay r;

	kit_producer = KIT_ONE_IN_FLIGHT;
	start(&r, sql, "again", kit_topics());
	kit_producer = KIT_AS_SET;
	kit_add(sql, "again", "k", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_refuse_produce(INVALID_RECORD, 1);
	kit_add(sql, "again", "k", 1);
	CU_ASSERT(kit_wait(sql, PARKED_KEYS, 1));
	for (int i = 2; i <= 5; i++)
		kit_add(sql, "again", "k", i);
	CU_ASSERT(kit_wait(sql, PARKED_MESSAGES, 5));
	kit_broker_set_up(false);
	pg_exec(sql, "BEGIN");
	release(sql, "again", "k");
	kit_add(sql, "again", "k", 6);
	pg_exec(sql, "COMMIT");
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_inflight", 6));
	/* the batch, then 1 and 2 go, 3 does not */
	kit_refuse_produce(INVALID_RECORD, 1);
	kit_refuse_produce(0, 2);
	kit_refuse_produce(INVALID_RECORD, 1);
	kit_broker_set_up(true);
	CU_ASSERT(kit_wait(sql, "SELECT attempts FROM skald.parked_key", 2));
	CU_ASSERT(kit_wait(sql, PARKED_MESSAGES, 4)); /* 3, 4, 5, 6 */
	CU_ASSERT(kit_wait(sql, "SELECT waiting FROM skald.parked_key", 4));
	release(sql, "again", "k");
	CU_ASSERT(wait_all_out(sql));
	kit_relay_stop(&r);
	kit_check("again", 7, 7);
	kit_end(sql);
}

static void
a_key_that_keeps_writing_is_let_out_in_order(void)
{
	struct skald_sql *sql = pg_open("busy", SKALD_SQL_TOOL);
	struct kit_relay r;
	int n = 0;

	start(&r, sql, "busy", &no_topics);
	while (n < 300)
		kit_add(sql, "busy", "k", ++n);
	CU_ASSERT(kit_wait(sql, PARKED_MESSAGES, 300));
	kit_make_topic("busy");
	for (int64_t until_ms = skald_mono_ms() + 10000;
		pg_int(sql, PARKED_KEYS) && skald_mono_ms() < until_ms;) {
		kit_add(sql, "busy", "k", ++n);
		(void)usleep(1000); /* the mock keeps 5 MB of a partition */
	}
	CU_ASSERT(wait_all_out(sql));
	kit_relay_stop(&r);
	printf("(%d messages) ", n);
	kit_check("busy", (unsigned)n, 0);
	kit_end(sql);
}

/* More than is read at once. */
static void
many_rows_are_let_out_in_parts(void)
{
	struct skald_sql *sql = pg_open("many", SKALD_SQL_TOOL);
	struct kit_relay r;

	start(&r, sql, "many", &no_topics);
	pg_exec(sql, "SELECT skald.outbox_add(topic => 'many', key => 'k', type => 't', "
		     "data => to_jsonb(g)) FROM generate_series(1, 4500) AS g");
	CU_ASSERT(kit_wait(sql, PARKED_MESSAGES, 4500));
	CU_ASSERT(kit_wait_relayed(sql));
	kit_make_topic("many");
	CU_ASSERT(wait_all_out(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_released_total"), 4500);
	kit_relay_stop(&r);
	kit_check("many", 4500, 0);
	kit_end(sql);
}

/* The control: what waits is sent again without a marker, and the checker sees it. */
static void
let_out_without_a_marker_is_an_inversion(void)
{
	struct skald_sql *sql = pg_open("naive", SKALD_SQL_TOOL);
	struct kit_findings f;
	struct kit_records all;
	struct kit_relay r;

	start(&r, sql, "naive", &no_topics);
	for (int i = 1; i <= 3; i++)
		kit_add(sql, "naive", "k", i);
	CU_ASSERT(kit_wait(sql, PARKED_MESSAGES, 3));
	kit_relay_stop(&r);
	pg_exec(sql, "DELETE FROM skald.parked_key");
	kit_make_topic("naive");
	start(&r, sql, "naive", &no_topics);
	kit_add(sql, "naive", "k", 4);
	CU_ASSERT(kit_wait_relayed(sql));
	pg_exec(sql,
		"INSERT INTO skald.outbox (message_id, topic, key, type, source, data, "
		"correlation_id, traceparent) SELECT message_id, topic, key, type, "
		"source, data, correlation_id, traceparent FROM skald.parked_message "
		"ORDER BY position");
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	all = kit_read("naive");
	f = kit_inspect(&all);
	CU_ASSERT_EQUAL(f.messages, 4);
	CU_ASSERT(f.inverted > 0);
	kit_free(&all);
	kit_end(sql);
}

/* --- crashes and zombies ----------------------------------------------------------------- */

static void
crash(struct skald_sql *sql)
{
	pg_exec(sql, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
		     "WHERE application_name LIKE 'skald relay%'");
}

/*
 * Sessions are cut and relays replaced at random moments while keys are parked, let out,
 * refused again and written to.
 */
static void
crashes_repeat_equal_positions_and_lose_nothing(void)
{
	struct skald_sql *sql = pg_open("walk", SKALD_SQL_TOOL);
	struct skald_rand rand;
	struct kit_relay r;
	int n = 0;

	skald_rand_init(&rand);
	kit_producer = KIT_ONE_IN_FLIGHT;
	kit_ways.drain_ms = 1;
	start(&r, sql, "walk", kit_topics());
	for (int round = 0; round < 60; round++) {
		int count = 1 + (int)skald_rand_below(&rand, 60);

		kit_add_numbered(sql, "walk", n + 1, n + count);
		n += count;
		switch (skald_rand_below(&rand, 8)) {
		case 0:
		case 1:
		case 5:
		case 6:
			kit_refuse_produce(
				INVALID_RECORD, 1 + (unsigned)skald_rand_below(&rand, 3));
			break;
		case 2:
			pg_exec(sql, "SELECT skald.park_release(topic, key) FROM "
				     "skald.parked_key WHERE random() < 0.3");
			break;
		/* the next relay cannot know what is in the topics already: a broker that
		   took it does not refuse it now */
		case 3:
			kit_refuse_nothing();
			pg_exec(sql, "SELECT skald.park_release(topic, key) FROM "
				     "skald.parked_key");
			(void)usleep((unsigned)skald_rand_below(&rand, 20000));
			crash(sql);
			CU_ASSERT(kit_wait_relayed(sql));
			break;
		case 4:
			kit_refuse_nothing();
			kit_relay_stop(&r);
			start(&r, sql, "walk", kit_topics());
			CU_ASSERT(kit_wait_relayed(sql));
			break;
		default:
			break;
		}
		(void)usleep((unsigned)skald_rand_below(&rand, 30000));
	}
	kit_producer = KIT_AS_SET;
	kit_ways.drain_ms = 0;
	CU_ASSERT(kit_wait_relayed(sql));
	for (int i = 0; i < 100 && pg_int(sql, PARKED_KEYS); i++) {
		pg_exec(sql,
			"SELECT skald.park_release(topic, key) FROM skald.parked_key");
		(void)usleep(300 * 1000);
	}
	CU_ASSERT(wait_all_out(sql));
	printf("(%d messages, %lld parked, %lld rebuilds) ", n,
		(long long)kit_metric(&r, "skald_relay_parked_messages_total"),
		(long long)kit_metric(&r, "skald_relay_rebuilds_total"));
	kit_relay_stop(&r);
	kit_check("walk", (unsigned)n, (unsigned)n * 10);
	kit_end(sql);
}

/* The server that knew what was let out is lost; another takes over where it was before. */
static void
a_catch_up_lets_out_only_what_is_not_there(void)
{
	struct skald_sql *sql = pg_open("lagging", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;

	start(&r, sql, "lagging", &no_topics);
	for (int i = 1; i <= 3; i++)
		kit_add(sql, "lagging", "k", i);
	CU_ASSERT(kit_wait(sql, PARKED_MESSAGES, 3));
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	kit_make_topic("lagging");
	release(sql, "lagging", "k");
	kit_add(sql, "lagging", "k", 4);
	pg_exec(sql, "CREATE TABLE relay_then AS TABLE skald.relay; "
		     "CREATE TABLE key_then AS TABLE skald.parked_key; "
		     "CREATE TABLE message_then AS TABLE skald.parked_message");
	start(&r, sql, "lagging", &no_topics);
	CU_ASSERT(wait_all_out(sql));
	kit_relay_stop(&r);
	pg_exec(sql, "BEGIN; DELETE FROM skald.relay; "
		     "INSERT INTO skald.relay SELECT * FROM relay_then; "
		     "INSERT INTO skald.parked_key SELECT * FROM key_then; "
		     "INSERT INTO skald.parked_message SELECT * FROM message_then; "
		     "UPDATE skald.relay SET timeline = '00000099', "
		     "term = (SELECT term FROM skald.lease); COMMIT");
	start(&r, sql, "lagging", &no_topics);
	CU_ASSERT(wait_all_out(sql));
	kit_relay_stop(&r);
	all = kit_read("lagging");
	CU_ASSERT_EQUAL(all.count, 4); /* nothing twice */
	CU_ASSERT_EQUAL(kit_inspect(&all).inverted, 0);
	kit_free(&all);
	kit_end(sql);
}

static void
a_zombie_parks_and_releases_nothing(void)
{
	struct skald_sql *sql = pg_open("zombie", SKALD_SQL_TOOL);
	static const char park[] =
		"SELECT skald.relay_park(%d, '{t}', '{k}', '{m}', "
		"'{00000001.0000000000000001.00000000}', '{why}', '{87}', '{1000}', "
		"'{}', "
		"'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', "
		"'{}', '{}', '{}', '{}', '{}', '{}', '{}')";
	char script[512];

	pg_exec(sql, "SELECT skald.relay_lead(4, 'b', 'poll')");
	(void)snprintf(script, sizeof(script), park, 3);
	CHECK_TEXT(pg_text(sql, script), "f");
	CU_ASSERT_EQUAL(pg_int(sql, PARKED_KEYS), 0);
	(void)snprintf(script, sizeof(script), park, 4);
	CHECK_TEXT(pg_text(sql, script), "t");
	CU_ASSERT_EQUAL(pg_int(sql, PARKED_KEYS), 1);
	CHECK_TEXT(
		pg_text(sql,
			"SELECT held FROM skald.relay_release(3, 't', 'k', 1, 'p', 3)"),
		"f");
	pg_exec(sql, "UPDATE skald.parked_key SET next_at = '-infinity'");
	pg_exec(sql, "SELECT skald.relay_park_turn(3, '{}')");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"), 0);
	pg_exec(sql, "SELECT skald.relay_park_turn(4, '{}')");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"), 1);
	CHECK_TEXT(
		pg_text(sql, "SELECT held FROM skald.relay_topic_use(3, 't', 8)"), "f");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.relay_topic"), 0);
	kit_end(sql);
}

/* Out of a slot a marker comes before its transaction is seen: then it is not an old one. */
static void
a_marker_that_nobody_sees_yet_is_waited_for(void)
{
	static const char ask[] =
		"SELECT (SELECT r FROM skald.relay_release(4, 't', 'k', m.id,"
		" '00000001.0000000000000009.00000000', m.xid) AS r)::text FROM m";
	struct skald_sql *sql = pg_open("unseen", SKALD_SQL_TOOL);
	struct skald_sql *other = pg_session("unseen", "postgres", SKALD_SQL_TOOL);
	char note[128];

	pg_exec(sql,
		"SELECT skald.relay_lead(4, 'b', 'poll'); CREATE TABLE m (id bigint, xid "
		"bigint); INSERT INTO skald.parked_key (kind, place, topic, key, reason, "
		"parked_at) VALUES ('relay', 'main', 't', 'k', 'why', "
		"'00000001.0000000000000001.00000000')");
	pg_exec(other, "BEGIN; SELECT skald.park_release('t', 'k')");
	(void)snprintf(note, sizeof(note),
		"INSERT INTO m SELECT last_value, %s FROM skald.outbox_id",
		pg_text(other, "SELECT pg_current_xact_id()::text"));
	pg_exec(sql, note);
	CHECK_TEXT(pg_text(sql, ask), "(t,f,)");
	pg_exec(other, "COMMIT");
	CHECK_TEXT(pg_text(sql, ask), "(t,t,0)");
	CHECK_TEXT(pg_text(sql, ask), "(t,t,0)"); /* a crash: the same once more */
	pg_exec(sql, "UPDATE skald.parked_key SET releasing_id = NULL");
	CHECK_TEXT(pg_text(sql, ask), "(t,t,)"); /* an old one */
	skald_sql_close(other);
	kit_end(sql);
}

/* Its topic is there: those beside it wait no longer. */
static void
a_key_beside_one_that_is_let_out_is_tried(void)
{
	struct skald_sql *sql = pg_open("beside", SKALD_SQL_TOOL);

	pg_exec(sql,
		"SELECT skald.relay_lead(4, 'b', 'poll');"
		"INSERT INTO skald.parked_key (kind, place, topic, key, reason, code, "
		"parked_at, releasing_id, released_at)"
		" SELECT 'relay', 'main', t, k, 'why', '3', "
		"'00000001.0000000000000001.00000000', CASE k WHEN 'out' THEN 7 END,"
		" CASE k WHEN 'out' THEN 'ffffffff.0000000000000001.00000000' END"
		" FROM (VALUES ('t', 'out'::bytea), ('t', 'k'), ('other', 'k')) v (t, "
		"k)");
	pg_exec(sql, "SELECT skald.relay_parked(4)");
	CHECK_TEXT(pg_text(sql,
			   "SELECT string_agg(topic || ' ' || convert_from(key, 'UTF8'), "
			   "',') FROM skald.parked_key WHERE next_at IS NOT NULL"),
		"t k");
	kit_end(sql);
}

/* Parked once more because its topic was missing, which is found before that is settled. */
static void
a_topic_found_too_early_is_not_forgotten(void)
{
	static const char due[] = "SELECT (releasing_id IS NULL AND next_at <= "
				  "clock_timestamp() + %s)::text FROM skald.parked_key";
	struct skald_sql *sql = pg_open("early", SKALD_SQL_TOOL);
	char script[256];

	pg_exec(sql,
		"SELECT skald.relay_lead(4, 'b', 'poll');"
		"INSERT INTO skald.parked_key (kind, place, topic, key, reason, code, "
		"parked_at, releasing_id, released_at, again_at) VALUES ('relay', "
		"'main', "
		"'t', 'k', 'why', '3', '00000001.0000000000000001.00000000', 7, "
		"'00000001.0000000000000002.00000000', "
		"'00000001.0000000000000002.00000001')");
	pg_exec(sql, "SELECT skald.relay_park_turn(4, '{t}')"); /* found */
	pg_exec(sql,
		"UPDATE skald.relay SET position = '00000001.0000000000000003.00000000'");
	pg_exec(sql, "SELECT skald.park_clean(1000)"); /* settled */
	(void)snprintf(script, sizeof(script), due, "interval '0'");
	CHECK_TEXT(pg_text(sql, script), "true");
	pg_exec(sql,
		"UPDATE skald.parked_key SET next_at = NULL, released_at = "
		"'00000001.0000000000000002.00000000', again_at = "
		"'00000001.0000000000000002.00000001'; SELECT skald.park_clean(1000)");
	(void)snprintf(script, sizeof(script), due, "interval '5 min'");
	CHECK_TEXT(pg_text(sql, script), "true");
	kit_end(sql);
}

/* --- what it costs ------------------------------------------------------------------------ */

/* Calls of the relay's functions, as PostgreSQL counts them: name like. */
static int64_t
calls(struct skald_sql *sql, const char *name)
{
	char script[256];

	(void)usleep(1200 * 1000); /* sessions report once a second */
	(void)snprintf(script, sizeof(script),
		"SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_user_functions "
		"WHERE funcname ~ '%s'",
		name);
	return pg_int(sql, script);
}

/* Per message nothing; a key that waits costs one statement a second. */
static void
the_others_cost_no_statement_more(void)
{
	struct skald_sql *sql = pg_open("cost", SKALD_SQL_TOOL);
	int64_t turns, began_ms, took_s;
	struct kit_relay r;

	pg_exec(sql, "ALTER DATABASE cost SET track_functions = 'pl'");
	kit_make_topic("cost");
	start(&r, sql, "cost", &no_topics);
	kit_add_numbered(sql, "cost", 1, 1000);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(calls(sql, "^(relay_park|relay_park_turn|relay_release)$"), 0);
	CU_ASSERT_EQUAL(calls(sql, "^relay_topic_use$"), 1);
	kit_add(sql, "cost.gone", "k", 1);
	CU_ASSERT(kit_wait(sql, PARKED_KEYS, 1));
	began_ms = skald_mono_ms();
	for (int i = 0; i < 40; i++)
		kit_add_numbered(sql, "cost", 2000 + i * 100, 2099 + i * 100);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 5000));
	turns = calls(sql, "^relay_park_turn$");
	took_s = (skald_mono_ms() - began_ms) / 1000 + 1;
	printf("(4000 messages: %lld statements in %lld s) ", (long long)turns,
		(long long)took_s);
	CU_ASSERT(turns <= took_s + 1);
	CU_ASSERT_EQUAL(calls(sql, "^relay_park$"), 1);
	CU_ASSERT_EQUAL(calls(sql, "^(relay_release|relay_topic_use)$"), 1);
	kit_relay_stop(&r);
	kit_end(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_missing_topic_parks_its_rows_and_no_others),
		CHECK(parked_keys_are_known_to_the_next_relay),
		CHECK(a_record_of_30_mb_waits_and_the_others_do_not),
		CHECK(too_large_for_the_broker_is_found_and_parked),
		CHECK(an_invalid_record_is_found_and_parked),
		CHECK(a_topic_that_is_not_ours_parks_all_of_it),
		CHECK(an_outage_parks_nothing),
		CHECK(refused_again_waits_again),
		CHECK(a_key_that_keeps_writing_is_let_out_in_order),
		CHECK(many_rows_are_let_out_in_parts),
		CHECK(let_out_without_a_marker_is_an_inversion),
		CHECK(crashes_repeat_equal_positions_and_lose_nothing),
		CHECK(a_catch_up_lets_out_only_what_is_not_there),
		CHECK(a_zombie_parks_and_releases_nothing),
		CHECK(a_marker_that_nobody_sees_yet_is_waited_for),
		CHECK(a_key_beside_one_that_is_let_out_is_tried),
		CHECK(a_topic_found_too_early_is_not_forgotten),
		CHECK(the_others_cost_no_statement_more),
	};

#ifdef PARK_WAL
	kit_ways.wants_wal = true;
#endif
	return check_main("contract.outbox.park", cases, CHECK_COUNT(cases));
}
