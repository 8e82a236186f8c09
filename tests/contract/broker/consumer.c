/*
 * contract.broker.consumer - a member of a group that starts where it is told,
 * stops what cannot go on, and leaves in time.
 *
 * The mock cluster lets the first member of a group wait 3 s, and every later
 * rebalance nearly a session: hence the patience.
 */
#include "tests/contract/broker/kit.h"

#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/support/check.h"

#define SESSION_MS  3500
#define PARTS       4
#define PATIENCE_MS 15000

static struct kit_mock mock;
static struct skald_kafka_props *props;
static struct skald_kafka_props *lingering; /* long enough for whole batches */

/* A consumer and what it was told. */
struct member {
	struct skald_kafka_consumer *consumer;
	const char *topic;
	int64_t start[PARTS]; /* the offset answered for each partition */
	unsigned assigned, revoked; /* events */
	unsigned owned; /* partitions, now */
	unsigned stops;
	int32_t stopped;
	struct skald_err why;
	unsigned got[PARTS]; /* records */
	int64_t next[PARTS]; /* offset expected next; -1: any */
	bool in_order;
};

static void
on_group(enum skald_group_event event, struct skald_kafka_partition *partitions,
	unsigned count, void *ctx)
{
	struct member *m = ctx;

	if (event != SKALD_GROUP_ASSIGNED) {
		m->revoked++;
		m->owned = 0;
		return;
	}
	m->assigned++;
	m->owned = count;
	for (unsigned i = 0; i < count; i++) {
		if (partitions[i].partition >= PARTS)
			continue;
		partitions[i].offset = m->start[partitions[i].partition];
		m->next[partitions[i].partition] = partitions[i].offset;
	}
}

static void
on_stopped(const char *topic, int32_t partition, const struct skald_err *err, void *ctx)
{
	struct member *m = ctx;

	(void)topic;
	m->stops++;
	m->stopped = partition;
	m->why = *err;
}

static bool
join(struct member *m, const char *topic, const char *group)
{
	const char *topics[] = { topic };
	struct skald_kafka_consumer_conf conf = { .group = group,
		.client_id = "test",
		.topics = topics,
		.topic_count = 1,
		.session_timeout_ms = SESSION_MS,
		.on_group = on_group,
		.on_stopped = on_stopped,
		.ctx = m };
	struct skald_err err = SKALD_ERR_INIT;

	m->topic = topic;
	m->in_order = true;
	m->stopped = -1;
	if (skald_kafka_consumer_open(&m->consumer, props, &conf, &err) == SKALD_OK)
		return true;
	printf("\n    %s\n", err.text);
	return false;
}

static void
count_records(struct member *m, const struct skald_kafka_records *records)
{
	for (unsigned i = 0; i < skald_kafka_records_count(records); i++) {
		const struct skald_kafka_record *r = skald_kafka_records_at(records, i);

		if (r->partition < 0 || r->partition >= PARTS ||
			strcmp(r->topic, m->topic) != 0 ||
			r->offset != m->next[r->partition])
			m->in_order = false;
		m->got[r->partition]++;
		m->next[r->partition] = r->offset + 1;
	}
}

/* One turn of a loop: sleep on the descriptor, serve, take. */
static unsigned
turn(struct member *m, unsigned max)
{
	struct pollfd fd = { .fd = skald_kafka_consumer_fd(m->consumer),
		.events = POLLIN };
	struct skald_kafka_records *records = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	unsigned count;

	poll(&fd, 1, 100);
	skald_kafka_consumer_serve(m->consumer);
	if (skald_kafka_records_take(m->consumer, max, &records, &err))
		return 0;
	count = skald_kafka_records_count(records);
	count_records(m, records);
	skald_kafka_records_free(records);
	return count;
}

static unsigned
total(const struct member *m)
{
	return m->got[0] + m->got[1] + m->got[2] + m->got[3];
}

static bool
run_until(struct member *m, const unsigned *value, unsigned wanted)
{
	int64_t until_ms = skald_mono_ms() + PATIENCE_MS;

	while (*value < wanted && skald_mono_ms() < until_ms)
		turn(m, 500);
	return *value >= wanted;
}

static bool
read_all(struct member *m, unsigned wanted)
{
	int64_t until_ms = skald_mono_ms() + PATIENCE_MS;

	while (total(m) < wanted && skald_mono_ms() < until_ms)
		turn(m, 500);
	/* nothing more may come */
	for (int i = 0; i < 3; i++)
		turn(m, 500);
	return total(m) == wanted;
}

/* count records in each of the partitions; their values are their offsets. */
static void
fill_as(const struct skald_kafka_props *with, const char *topic, unsigned count)
{
	struct skald_producer *p = NULL;
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	bool full;
	char text[16];

	CU_ASSERT_EQUAL_FATAL(skald_producer_create(&p, with, "fill", &err), SKALD_OK);
	for (unsigned i = 0; i < count * PARTS;) {
		struct skald_record r = { .topic = topic,
			.partition = (int32_t)(i % PARTS) };

		snprintf(text, sizeof(text), "%u", i / PARTS);
		r.value = skald_slice_text(text);
		CU_ASSERT_EQUAL_FATAL(skald_producer_send(p, &r, &full, &err), SKALD_OK);
		if (full)
			kit_await(p, &reports, reports.ok + 1, 1000);
		else
			i++;
	}
	CU_ASSERT(kit_await(p, &reports, count * PARTS, 10000));
	CU_ASSERT_EQUAL(reports.ok, count * PARTS);
	skald_producer_destroy(p);
}

static void
fill(const char *topic, unsigned count)
{
	fill_as(props, topic, count);
}

/* --- tests -------------------------------------------------------------------------------- */

/* A group's start, from the offsets told; -1 leaves a partition out. */
static void
starts_where_told(void)
{
	struct member m = { .start = { 0, 40, 100, -1 } };
	const char *topic = kit_topic(&mock, PARTS);
	struct skald_err err = SKALD_ERR_INIT;
	int64_t lo = -1, hi = -1;

	fill(topic, 100);
	CU_ASSERT_FATAL(join(&m, topic, "g-start"));
	CU_ASSERT(read_all(&m, 100 + 60));
	CU_ASSERT_EQUAL(m.assigned, 1);
	CU_ASSERT_EQUAL(m.owned, PARTS);
	CU_ASSERT_EQUAL(m.got[0], 100);
	CU_ASSERT_EQUAL(m.got[1], 60);
	CU_ASSERT_EQUAL(m.got[2], 0);
	CU_ASSERT_EQUAL(m.got[3], 0);
	CU_ASSERT(m.in_order);
	CU_ASSERT_EQUAL(m.stops, 0);
	CU_ASSERT(skald_kafka_consumer_is_connected(m.consumer));
	CU_ASSERT_EQUAL(skald_kafka_consumer_end(m.consumer, topic, 0), 100);
	CU_ASSERT_EQUAL(
		skald_kafka_consumer_offsets(m.consumer, topic, 3, 5000, &lo, &hi, &err),
		SKALD_OK);
	CU_ASSERT(lo == 0 && hi == 100);
	skald_kafka_consumer_close(m.consumer);
	CU_ASSERT_EQUAL(m.revoked, 1);
}

static void
check_odd_records(struct member *m)
{
	struct skald_kafka_records *records = NULL;
	const struct skald_kafka_record *a, *b;
	struct skald_err err = SKALD_ERR_INIT;
	int64_t until_ms = skald_mono_ms() + PATIENCE_MS;

	do {
		skald_kafka_records_free(records);
		skald_kafka_consumer_serve(m->consumer);
		CU_ASSERT_EQUAL_FATAL(
			skald_kafka_records_take(m->consumer, 10, &records, &err),
			SKALD_OK);
	} while (skald_kafka_records_count(records) < 2 && skald_mono_ms() < until_ms);
	CU_ASSERT_EQUAL_FATAL(skald_kafka_records_count(records), 2);
	a = skald_kafka_records_at(records, 0);
	b = skald_kafka_records_at(records, 1);
	CU_ASSERT_EQUAL(a->timestamp_ms, 1700000000123);
	CU_ASSERT(skald_slice_is_text(a->key, "k"));
	CU_ASSERT_PTR_NULL(a->value.data);
	CU_ASSERT_EQUAL_FATAL(a->headers.count, 4);
	CU_ASSERT(skald_slice_is_text(a->headers.items[0].name, "a"));
	CU_ASSERT(skald_slice_is_text(a->headers.items[0].value, "1"));
	CU_ASSERT(skald_slice_is_text(a->headers.items[1].name, "null"));
	CU_ASSERT_PTR_NULL(a->headers.items[1].value.data);
	CU_ASSERT(skald_slice_is_text(a->headers.items[2].value, "2"));
	CU_ASSERT(a->headers.items[3].value.data && a->headers.items[3].value.bytes == 0);
	CU_ASSERT_EQUAL(skald_headers_count(a->headers, "a"), 2);
	CU_ASSERT_PTR_NULL(b->key.data);
	CU_ASSERT(skald_slice_is_text(b->value, "bare"));
	CU_ASSERT_EQUAL(b->headers.count, 0);
	/* a batch stays readable whatever happens to the assignment */
	skald_kafka_consumer_close(m->consumer);
	CHECK_TEXT(a->topic, m->topic);
	CU_ASSERT(skald_slice_is_text(b->value, "bare"));
	skald_kafka_records_free(records);
}

static void
keeps_nulls_and_duplicates(void)
{
	const struct skald_header headers[] = {
		{ SKALD_SLICE_LIT("a"), SKALD_SLICE_LIT("1") },
		{ SKALD_SLICE_LIT("null"), SKALD_SLICE_NULL },
		{ SKALD_SLICE_LIT("a"), SKALD_SLICE_LIT("2") },
		{ SKALD_SLICE_LIT("empty"), SKALD_SLICE_LIT("") },
	};
	const char *topic = kit_topic(&mock, 1);
	struct skald_record odd = { .topic = topic,
		.key = SKALD_SLICE_LIT("k"),
		.headers = { headers, 4 },
		.timestamp_ms = 1700000000123 };
	struct skald_record bare = { .topic = topic, .value = SKALD_SLICE_LIT("bare") };
	struct member m = { .start = { 0 } };
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_producer *p = NULL;
	bool full;

	/* lingering: both leave together, and one answer to a fetch brings both */
	CU_ASSERT_EQUAL_FATAL(
		skald_producer_create(&p, lingering, "odd", &err), SKALD_OK);
	CU_ASSERT_EQUAL(skald_producer_send(p, &odd, &full, &err), SKALD_OK);
	CU_ASSERT_EQUAL(skald_producer_send(p, &bare, &full, &err), SKALD_OK);
	CU_ASSERT(kit_await(p, &reports, 2, 10000));
	skald_producer_destroy(p);
	CU_ASSERT_FATAL(join(&m, topic, "g-odd"));
	check_odd_records(&m);
}

/* Beyond the end: that partition stops, once; the others do not notice. */
static void
stops_out_of_range(void)
{
	struct member m = { .start = { 0, 5000, 0, 0 } };
	const char *topic = kit_topic(&mock, PARTS);

	fill(topic, 50);
	CU_ASSERT_FATAL(join(&m, topic, "g-range"));
	CU_ASSERT(run_until(&m, &m.stops, 1));
	CU_ASSERT(read_all(&m, 150));
	CU_ASSERT_EQUAL(m.stops, 1);
	CU_ASSERT_EQUAL(m.stopped, 1);
	CHECK_TEXT(m.why.origin, "kafka");
	CU_ASSERT_PTR_NOT_NULL(strstr(m.why.text, "offset 5000"));
	CU_ASSERT(m.in_order);
	skald_kafka_consumer_close(m.consumer);
}

/* Back and forth; what was prefetched does not show up afterwards. */
static void
seeks(void)
{
	struct member m = { .start = { 0, -1, -1, -1 } };
	const char *topic = kit_topic(&mock, PARTS);
	struct skald_err err = SKALD_ERR_INIT;

	fill(topic, 2000);
	CU_ASSERT_FATAL(join(&m, topic, "g-seek"));
	while (m.assigned == 0 || total(&m) < 10)
		turn(&m, 10);
	CU_ASSERT_EQUAL(
		skald_kafka_consumer_seek(m.consumer, topic, 0, 3, &err), SKALD_OK);
	m.next[0] = 3;
	m.got[0] = 0;
	CU_ASSERT(read_all(&m, 1997));
	CU_ASSERT(m.in_order);
	CU_ASSERT_EQUAL(
		skald_kafka_consumer_seek(m.consumer, topic, 0, 1990, &err), SKALD_OK);
	m.next[0] = 1990;
	m.got[0] = 0;
	CU_ASSERT(read_all(&m, 10));
	CU_ASSERT(m.in_order);
	CU_ASSERT_EQUAL(
		skald_kafka_consumer_seek(m.consumer, topic, 1, 0, &err), SKALD_REJECT);
	skald_kafka_consumer_close(m.consumer);
}

static bool
is_readable(struct member *m)
{
	struct pollfd fd = { .fd = skald_kafka_consumer_fd(m->consumer),
		.events = POLLIN };

	return poll(&fd, 1, 0) == 1;
}

/* Small bites: the descriptor stays readable, every partition has its turn. */
static void
is_fair_and_level(void)
{
	struct member m = { .start = { 0, 0, 0, 0 } };
	const char *topic = kit_topic(&mock, PARTS);
	unsigned begin[PARTS], until;

	/* one batch a partition, so one answer to a fetch brings all of it: all is there
	   when each partition has given something; the first ones have given more by then */
	fill_as(lingering, topic, 2000);
	CU_ASSERT_FATAL(join(&m, topic, "g-fair"));
	while (m.assigned == 0)
		turn(&m, 1);
	while (m.got[0] == 0 || m.got[1] == 0 || m.got[2] == 0 || m.got[3] == 0)
		turn(&m, 4);
	memcpy(begin, m.got, sizeof(begin));
	until = total(&m) + 400;
	while (total(&m) < until) {
		CU_ASSERT(is_readable(&m));
		turn(&m, 7);
	}
	for (int i = 0; i < PARTS; i++)
		CU_ASSERT(m.got[i] - begin[i] > 60);
	skald_kafka_consumer_stop(m.consumer, topic, 2);
	{
		unsigned before = m.got[2];

		CU_ASSERT(read_all(&m, 6000 + before));
		CU_ASSERT_EQUAL(m.got[2], before);
		/* statistics come once a second, and are served */
		for (int i = 0; i < 5 && is_readable(&m); i++)
			turn(&m, 500);
		CU_ASSERT_FALSE(is_readable(&m));
	}
	CU_ASSERT(m.in_order);
	CU_ASSERT_EQUAL(m.stops, 0);
	skald_kafka_consumer_close(m.consumer);
}

/* Full queues that nobody reads must not hold the end up. */
static void
closes_with_unread_records(void)
{
	struct member m = { .start = { 0, 0, 0, 0 } };
	const char *topic = kit_topic(&mock, PARTS);
	int64_t began_ms;

	fill(topic, 3000);
	CU_ASSERT_FATAL(join(&m, topic, "g-unread"));
	while (m.assigned == 0 || total(&m) < 5)
		turn(&m, 1);
	began_ms = skald_mono_ms();
	skald_kafka_consumer_close(m.consumer);
	CU_ASSERT(skald_mono_ms() - began_ms < 3000);
	CU_ASSERT_EQUAL(m.revoked, 1);
	skald_kafka_consumer_close(NULL);
}

/* A second member: the first is told, both go on with their share. */
static void
shares_with_a_second(void)
{
	struct member a = { .start = { 0, 0, 0, 0 } }, b = { .start = { 0, 0, 0, 0 } };
	struct skald_kafka_partition hint = { .partition = 0, .offset = 5 };
	const char *topic = kit_topic(&mock, PARTS);
	int64_t until_ms;

	fill(topic, 10);
	CU_ASSERT_FATAL(join(&a, topic, "g-two"));
	CU_ASSERT(run_until(&a, &a.assigned, 1));
	hint.topic = topic;
	skald_kafka_consumer_commit(a.consumer, &hint, 1);
	CU_ASSERT_EQUAL(a.owned, PARTS);
	CU_ASSERT_FATAL(join(&b, topic, "g-two"));
	until_ms = skald_mono_ms() + 2 * PATIENCE_MS;
	while ((a.owned != 2 || b.owned != 2) && skald_mono_ms() < until_ms) {
		turn(&a, 100);
		turn(&b, 100);
	}
	CU_ASSERT_EQUAL(a.owned, 2);
	CU_ASSERT_EQUAL(b.owned, 2);
	CU_ASSERT(a.revoked >= 1);
	CU_ASSERT(read_all(&b, 20));
	CU_ASSERT(b.in_order);
	skald_kafka_consumer_close(b.consumer);
	skald_kafka_consumer_close(a.consumer);
}

/* The broker is gone: told as not connected; questions and the end are still bounded. */
static void
closes_without_a_broker(void)
{
	struct member m = { .start = { 0, 0, 0, 0 } };
	const char *topic = kit_topic(&mock, PARTS);
	struct skald_err err = SKALD_ERR_INIT;
	int64_t began_ms, until_ms, lo = 0, hi = 0;

	fill(topic, 10);
	CU_ASSERT_FATAL(join(&m, topic, "g-gone"));
	CU_ASSERT(read_all(&m, 40));
	rd_kafka_mock_broker_set_down(mock.cluster, -1);
	until_ms = skald_mono_ms() + PATIENCE_MS;
	while (skald_kafka_consumer_is_connected(m.consumer) &&
		skald_mono_ms() < until_ms)
		turn(&m, 10);
	CU_ASSERT_FALSE(skald_kafka_consumer_is_connected(m.consumer));
	CU_ASSERT_EQUAL(m.stops, 0); /* an outage stops nothing */
	began_ms = skald_mono_ms();
	CU_ASSERT_EQUAL(
		skald_kafka_consumer_offsets(m.consumer, topic, 0, 1000, &lo, &hi, &err),
		SKALD_RETRY);
	CU_ASSERT(skald_mono_ms() - began_ms < 9000);
	began_ms = skald_mono_ms();
	skald_kafka_consumer_close(m.consumer);
	CU_ASSERT(skald_mono_ms() - began_ms < 9000);
	CU_ASSERT_EQUAL(m.revoked, 1);
	rd_kafka_mock_broker_set_up(mock.cluster, -1);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(starts_where_told),
		CHECK(keeps_nulls_and_duplicates),
		CHECK(stops_out_of_range),
		CHECK(seeks),
		CHECK(is_fair_and_level),
		CHECK(closes_with_unread_records),
		CHECK(shares_with_a_second),
		CHECK(closes_without_a_broker),
	};
	static const char *const linger[] = { "kafka.linger.ms=1000", NULL };
	int failed;

	if (!kit_mock_start(&mock, 1))
		return 1;
	props = kit_props(mock.bootstrap, NULL);
	lingering = kit_props(mock.bootstrap, linger);
	failed = !props || !lingering ||
		 check_main("contract.broker.consumer", cases, CHECK_COUNT(cases));
	skald_kafka_props_destroy(props);
	skald_kafka_props_destroy(lingering);
	kit_mock_stop(&mock);
	return failed;
}
