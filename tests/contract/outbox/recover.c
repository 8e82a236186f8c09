/*
 * contract.outbox.recover - the catch-up: rows that a snapshot does not see and that were
 * published all the same are found in the tails of their topics, and not sent again.
 *
 * The past is made up: what was published is forgotten in skald.relay, up to a position.
 */
#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

#define AWAY_AFTER_MS 2500 /* a catch-up begins to read a second after it began */
#define AWAY_MS       4500

struct past {
	char snapshot[2000];
	char position[64];
};

static struct past
remember(struct skald_sql *sql)
{
	struct past p;

	(void)snprintf(p.snapshot, sizeof(p.snapshot), "%s",
		pg_text(sql, "SELECT acked_snapshot FROM skald.relay"));
	(void)snprintf(p.position, sizeof(p.position), "%s",
		pg_text(sql, "SELECT coalesce(position, '') FROM skald.relay"));
	return p;
}

/* As after a slot was lost: what came later is known to the topics alone. */
static void
forget(struct skald_sql *sql, const struct past *p)
{
	char script[4400];

	(void)snprintf(script, sizeof(script),
		"UPDATE skald.relay SET acked_snapshot = '%s', tick_snapshot = '%s', "
		"recover_from = '%s', epoch = epoch + 1",
		p->snapshot, p->snapshot, p->position);
	pg_exec(sql, script);
}

static void
publish(struct skald_sql *sql, const char *name, int from, int to)
{
	struct kit_relay r;

	kit_add_numbered(sql, name, from, to);
	kit_relay_start(&r, name, 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
}

/* A database of this name, whose relay has published so many and knows of the first ones. */
static struct skald_sql *
open_with_past(const char *name, int known, int published)
{
	struct skald_sql *sql = pg_open(name, SKALD_SQL_TOOL);
	struct past past;

	publish(sql, name, 1, known);
	past = remember(sql);
	publish(sql, name, known + 1, published);
	forget(sql, &past);
	return sql;
}

/* Catches up; checks how many rows were found. */
static void
catch_up(struct skald_sql *sql, const char *name, int64_t found)
{
	struct kit_relay r;

	kit_relay_start(&r, name, 0);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_catchups_total"), 1);
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_catchup_skipped_total"), found);
	if (kit_metric(&r, "skald_relay_catchup_skipped_total") != found)
		printf("\n    found %lld of %lld",
			(long long)kit_metric(&r, "skald_relay_catchup_skipped_total"),
			(long long)found);
	CU_ASSERT_EQUAL(
		pg_int(sql,
			"SELECT count(*) FROM skald.relay WHERE recover_from IS NULL"),
		1);
	kit_relay_stop(&r);
}

static void
check(const char *topic, unsigned messages, unsigned repeats, unsigned recovered)
{
	struct kit_records all = kit_read(topic);
	unsigned seen[3] = { 0 };

	for (unsigned i = 0; i < all.count; i++) {
		bool is_first = kit_header(&all.items[i], "ce_id") != NULL;

		for (unsigned j = 0; j < i && is_first; j++) {
			const char *id = kit_header(&all.items[j], "ce_id");

			is_first = !id ||
				   strcmp(id, kit_header(&all.items[i], "ce_id")) != 0;
		}
		seen[0] += is_first;
		seen[1] += !is_first && kit_header(&all.items[i], "ce_id");
		seen[2] += kit_header_count(&all.items[i], "ce_recovered");
	}
	printf("(%u messages, %u repeats, %u flagged) ", seen[0], seen[1], seen[2]);
	CU_ASSERT_EQUAL(seen[0], messages);
	CU_ASSERT_EQUAL(seen[1], repeats);
	CU_ASSERT_EQUAL(seen[2], recovered);
	kit_free(&all);
}

/* --- records of others -------------------------------------------------------------------- */

static rd_kafka_t *
open_producer(void)
{
	char reason[256], servers[128];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;

	kit_servers(servers, sizeof(servers));
	if (rd_kafka_conf_set(conf, "bootstrap.servers", servers, reason, sizeof(reason)))
		abort();
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
	if (!rk)
		abort();
	return rk;
}

static void
put(rd_kafka_t *rk, const char *topic, int32_t partition, rd_kafka_headers_t *headers)
{
	static char value[] = "x";
	rd_kafka_vu_t parts[] = { { .vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = topic },
		{ .vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = partition },
		{ .vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = { value, 1 } },
		{ .vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers } };
	rd_kafka_error_t *error;

	while ((error = rd_kafka_produceva(rk, parts, CHECK_COUNT(parts)))) {
		rd_kafka_error_destroy(error); /* no room for now */
		(void)rd_kafka_poll(rk, 10);
	}
}

/* count records in one partition: with these headers (a name may be NULL: none of it). */
static void
produce(const char *topic, int32_t partition, int count, const char *stream,
	const char *sequence, const char *id)
{
	rd_kafka_t *rk = open_producer();

	for (int i = 0; i < count; i++) {
		rd_kafka_headers_t *headers = rd_kafka_headers_new(4);

		if (stream)
			(void)rd_kafka_header_add(headers, "ce_stream", -1, stream, -1);
		if (sequence)
			(void)rd_kafka_header_add(
				headers, "ce_sequence", -1, sequence, -1);
		if (id)
			(void)rd_kafka_header_add(headers, "ce_id", -1, id, -1);
		put(rk, topic, partition, headers);
	}
	CU_ASSERT_EQUAL(rd_kafka_flush(rk, 10000), RD_KAFKA_RESP_ERR_NO_ERROR);
	rd_kafka_destroy(rk);
}

/* --- the tests ------------------------------------------------------------------------------- */

/* Sixteen partitions, 900 records above the position, 100 rows that never were there. */
static void
what_is_there_is_not_sent_again(void)
{
	struct skald_sql *sql = open_with_past("tails", 100, 1000);

	kit_add_numbered(sql, "tails", 1001, 1100);
	catch_up(sql, "tails", 900);
	check("tails", 1100, 0, 100);
	/* and then as always */
	publish(sql, "tails", 1101, 1150);
	check("tails", 1150, 0, 100);
	skald_sql_close(sql);
}

/* Control: the same past, and no position to look back to: the rows come again. */
static void
without_a_catch_up_it_would_be(void)
{
	struct skald_sql *sql = open_with_past("control", 10, 30);

	pg_exec(sql, "UPDATE skald.relay SET recover_from = NULL");
	publish(sql, "control", 31, 31);
	check("control", 31, 20, 0);
	skald_sql_close(sql);
}

/* The tail of each partition is someone else's: more of it than one chunk. */
static void
looks_back_beyond_what_others_wrote(void)
{
	struct skald_sql *sql = pg_open("others", SKALD_SQL_TOOL);
	struct past past;

	publish(sql, "others", 1, 50);
	past = remember(sql);
	publish(sql, "others", 51, 150);
	for (int32_t p = 0; p < KIT_PARTITIONS; p += 5) {
		produce("others", p, 700, NULL, NULL, NULL);
		produce("others", p, 700, "0123456789abcdef",
			"00000001.0000000000000001.00000000", NULL);
		produce("others", p, 1600, pg_text(sql, "SELECT stream FROM skald.relay"),
			NULL, NULL);
		produce("others", p, 2300, pg_text(sql, "SELECT stream FROM skald.relay"),
			"no position", NULL);
	}
	forget(sql, &past);
	kit_add_numbered(sql, "others", 151, 160);
	catch_up(sql, "others", 100);
	check("others", 160, 0, 10);
	skald_sql_close(sql);
}

/* An id under another history, or under no position, says nothing: the row is sent. */
static void
records_of_another_stream_say_nothing(void)
{
	struct skald_sql *sql = pg_open("foreign", SKALD_SQL_TOOL);
	struct past past;
	char id[64];

	publish(sql, "foreign", 1, 10);
	past = remember(sql);
	kit_add_numbered(sql, "foreign", 11, 11);
	(void)snprintf(id, sizeof(id), "%s",
		pg_text(sql, "SELECT message_id FROM skald.outbox ORDER BY id DESC "
			     "LIMIT 1"));
	produce("foreign", 3, 1, "0123456789abcdef", "ffffffff.0000000000000001.00000000",
		id);
	produce("foreign", 4, 1, NULL, NULL, id);
	produce("foreign", 5, 1, pg_text(sql, "SELECT stream FROM skald.relay"),
		"ffffffff", id);
	forget(sql, &past);
	catch_up(sql, "foreign", 0);
	check("foreign", 11, 3, 1); /* three made up, one sent */
	skald_sql_close(sql);
}

/* What is in its topic twice is one message. */
static void
repetitions_are_one(void)
{
	struct skald_sql *sql = pg_open("twice", SKALD_SQL_TOOL);
	struct kit_records all;
	struct past past;

	publish(sql, "twice", 1, 20);
	past = remember(sql);
	publish(sql, "twice", 21, 120);
	all = kit_read("twice");
	for (unsigned i = 0; i < all.count; i += 7)
		produce("twice", all.items[i].partition, 3,
			kit_header(&all.items[i], "ce_stream"),
			kit_header(&all.items[i], "ce_sequence"),
			kit_header(&all.items[i], "ce_id"));
	kit_free(&all);
	forget(sql, &past);
	kit_add_numbered(sql, "twice", 121, 125);
	catch_up(sql, "twice", 100);
	check("twice", 125, 3 * 18, 5);
	skald_sql_close(sql);
}

/* Of two topics one has nothing yet. */
static void
a_topic_that_is_new_holds_nothing(void)
{
	struct skald_sql *sql = open_with_past("newer", 20, 40);

	kit_make_topic("empty");
	kit_add_numbered(sql, "empty", 1, 5);
	catch_up(sql, "newer", 20);
	check("newer", 40, 0, 0);
	check("empty", 5, 0, 5);
	skald_sql_close(sql);
}

/* A catch-up that is interrupted begins again, and finds what it has sent itself. */
static void
an_interrupted_catch_up_sends_nothing_twice(void)
{
	struct skald_sql *sql = open_with_past("halfway", 20, 1500);
	struct kit_relay r;

	kit_add_numbered(sql, "halfway", 1501, 6000);
	kit_ways.drain_ms = 1;
	kit_relay_start(&r, "halfway", 0);
	kit_ways = (struct kit_ways){ 0 };
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 2000));
	kit_relay_stop(&r);
	kit_relay_start(&r, "halfway", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	kit_check("halfway", 6000, 0);
	skald_sql_close(sql);
}

/* Kafka goes away while the tails are read, for longer than silence lasts without a question:
   what was not read yet is read when it is back. */
static void
an_outage_in_the_middle_hides_nothing(void)
{
	struct skald_sql *sql = open_with_past("outage", 100, 6000);
	struct kit_relay r;

	kit_add_numbered(sql, "outage", 6001, 6010);
	/* in the middle of a partition, however quick it is: what is known is read */
	kit_withhold_after(1);
	kit_relay_start(&r, "outage", 0);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_catchups_total", 1));
	(void)usleep(AWAY_AFTER_MS * 1000);
	kit_broker_set_up(false);
	kit_let_go();
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_published_total"), 0);
	(void)usleep(AWAY_MS * 1000);
	kit_broker_set_up(true);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_catchup_skipped_total"), 5900);
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_catchups_total"), 1); /* it goes on */
	kit_relay_stop(&r);
	CU_ASSERT_EQUAL(kit_check("outage", 6010, 0).recovered, 10);
	skald_sql_close(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(what_is_there_is_not_sent_again),
		CHECK(without_a_catch_up_it_would_be),
		CHECK(looks_back_beyond_what_others_wrote),
		CHECK(records_of_another_stream_say_nothing),
		CHECK(repetitions_are_one),
		CHECK(a_topic_that_is_new_holds_nothing),
		CHECK(an_interrupted_catch_up_sends_nothing_twice),
		CHECK(an_outage_in_the_middle_hides_nothing),
	};

	return check_main("contract.outbox.recover", cases, CHECK_COUNT(cases));
}
