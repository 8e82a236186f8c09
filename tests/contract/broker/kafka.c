/*
 * contract.broker.kafka - the same boundary against Apache Kafka itself, whose
 * address is in SKALD_TEST_KAFKA: without it, or with a mock cluster behind it,
 * this fails.
 */
#include "tests/contract/broker/kit.h"

#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "tests/support/check.h"

#define PARTS 3

static struct skald_kafka_props *props;
static const char *bootstrap;

static const char *
new_topic(const char *what)
{
	static char name[96];
	static unsigned number;

	snprintf(name, sizeof(name), "broker-%s-%ld-%lld-%u", what, (long)getpid(),
		(long long)(skald_wall_us() / 1000000), ++number);
	return name;
}

static struct skald_cluster *
open_cluster(void)
{
	struct skald_cluster *cluster = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_cluster_open(&cluster, props, &err))
		printf("\n    %s\n", err.text);
	return cluster;
}

static bool
make_topic(const char *topic, int32_t partitions)
{
	struct skald_topic_conf conf = {
		.partitions = partitions, .replication = -1, .create = true
	};
	struct skald_cluster *cluster = open_cluster();
	struct skald_err err = SKALD_ERR_INIT;
	int32_t count = 0;

	if (cluster && skald_topic_ensure(cluster, topic, &conf, 20000, &count, &err))
		printf("\n    %s\n", err.text);
	skald_cluster_close(cluster);
	return count == partitions;
}

/* --- tests -------------------------------------------------------------------------------- */

static void
is_no_mock(void)
{
	struct skald_cluster *cluster = open_cluster();
	struct skald_err err = SKALD_ERR_INIT;
	char id[SKALD_CLUSTER_ID_BYTES] = "";
	unsigned brokers = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(cluster);
	CU_ASSERT_EQUAL(skald_cluster_id(cluster, 10000, id, &err), SKALD_OK);
	printf("\n    librdkafka %s, cluster %s ", skald_kafka_version(), id);
	CU_ASSERT(id[0] != '\0');
	CU_ASSERT_FALSE(skald_cluster_is_dev(id));
	CU_ASSERT_EQUAL(skald_cluster_brokers(cluster, 10000, &brokers, &err), SKALD_OK);
	CU_ASSERT(brokers >= 1);
	skald_cluster_close(cluster);
}

static void
makes_topics(void)
{
	struct skald_topic_conf conf = { .partitions = 5, .replication = -1 };
	struct skald_cluster *cluster = open_cluster();
	struct skald_err err = SKALD_ERR_INIT;
	const char *topic = new_topic("made");
	int32_t count = -1;

	CU_ASSERT_PTR_NOT_NULL_FATAL(cluster);
	CU_ASSERT_EQUAL(
		skald_topic_partitions(cluster, topic, 10000, &count, &err), SKALD_OK);
	CU_ASSERT_EQUAL(count, 0);
	CU_ASSERT_EQUAL(skald_topic_ensure(cluster, topic, &conf, 10000, &count, &err),
		SKALD_REJECT);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "[topics] create"));
	conf.create = true;
	CU_ASSERT_EQUAL(
		skald_topic_ensure(cluster, topic, &conf, 20000, &count, &err), SKALD_OK);
	CU_ASSERT_EQUAL(count, 5);
	/* one that is there stays as it is */
	conf.partitions = 9;
	CU_ASSERT_EQUAL(
		skald_topic_ensure(cluster, topic, &conf, 20000, &count, &err), SKALD_OK);
	CU_ASSERT_EQUAL(count, 5);
	conf.replication = 77;
	CU_ASSERT_EQUAL(skald_topic_ensure(cluster, new_topic("many-copies"), &conf,
				20000, &count, &err),
		SKALD_REJECT);
	skald_cluster_close(cluster);
}

static void
tells_what_a_topic_is_set_to(void)
{
	struct skald_topic_setting settings[] = { { .name = "min.insync.replicas" },
		{ .name = "no.such.setting" }, { .name = "cleanup.policy" } };
	struct skald_cluster *cluster = open_cluster();
	struct skald_err err = SKALD_ERR_INIT;
	const char *topic = new_topic("set");
	int64_t bytes = -1;
	int32_t copies = -1;
	bool is_there = true;

	CU_ASSERT_PTR_NOT_NULL_FATAL(cluster);
	CU_ASSERT_EQUAL(
		skald_topic_max_bytes(cluster, topic, 10000, &bytes, &err), SKALD_OK);
	CU_ASSERT_EQUAL(bytes, 0); /* not there, and not made by asking */
	CU_ASSERT_EQUAL(
		skald_topic_settings(cluster, topic, 10000, settings, 3, &is_there, &err),
		SKALD_OK);
	CU_ASSERT_FALSE(is_there);
	CU_ASSERT(make_topic(topic, 1));
	CU_ASSERT_EQUAL(
		skald_topic_replicas(cluster, topic, 10000, &copies, &err), SKALD_OK);
	CU_ASSERT_EQUAL(copies, 1);
	CU_ASSERT_EQUAL(
		skald_topic_max_bytes(cluster, topic, 10000, &bytes, &err), SKALD_OK);
	CU_ASSERT_EQUAL(bytes, SKALD_RECORD_BYTES_MAX + 64 * 1024);
	CU_ASSERT_EQUAL(
		skald_topic_settings(cluster, topic, 10000, settings, 3, &is_there, &err),
		SKALD_OK);
	CU_ASSERT(is_there);
	CU_ASSERT_STRING_EQUAL(settings[0].value, "1");
	CU_ASSERT_STRING_EQUAL(settings[1].value, "");
	CU_ASSERT_STRING_EQUAL(settings[2].value, "delete");
	CU_ASSERT_EQUAL(skald_topic_settings(
				cluster, "no/topic", 10000, settings, 3, &is_there, &err),
		SKALD_REJECT);
	skald_cluster_close(cluster);
}

static void
carries_records(void)
{
	const char *topic = new_topic("carry");
	struct skald_cluster *cluster = open_cluster();
	struct skald_producer *p = NULL;
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_record big = { .topic = topic, .partition = 1, .tag = 5000 };
	char *value = calloc(1, SKALD_DATA_BYTES_MAX);
	int64_t lo = -1, hi = -1;
	struct kit_log log;
	bool full;

	CU_ASSERT_FATAL(cluster && value && make_topic(topic, PARTS));
	CU_ASSERT_EQUAL_FATAL(skald_producer_create(&p, props, "carry", &err), SKALD_OK);
	CU_ASSERT_EQUAL(kit_send(p, topic, 0, 999), 1000);
	big.value = skald_slice_make(value, SKALD_DATA_BYTES_MAX);
	CU_ASSERT_EQUAL(skald_producer_send(p, &big, &full, &err), SKALD_OK);
	CU_ASSERT(kit_await(p, &reports, 1001, 20000));
	CU_ASSERT_EQUAL(reports.ok, 1001);
	CU_ASSERT_EQUAL(
		skald_topic_offsets(cluster, topic, 0, 10000, &lo, &hi, &err), SKALD_OK);
	CU_ASSERT(lo == 0 && hi == 1000);
	CU_ASSERT(kit_read(bootstrap, topic, 0, &log));
	CU_ASSERT_EQUAL(log.count, 1000);
	for (unsigned i = 0; i < log.count; i++)
		CU_ASSERT(strtol(log.items[i]->payload, NULL, 10) == (long)i);
	kit_log_done(&log);
	CU_ASSERT(kit_read(bootstrap, topic, 1, &log));
	CU_ASSERT(log.count == 1 && log.items[0]->len == SKALD_DATA_BYTES_MAX);
	kit_log_done(&log);
	skald_producer_destroy(p);
	skald_cluster_close(cluster);
	free(value);
}

/* A topic that is not there is never made by sending: REJECT, and the end of it. */
static void
makes_no_topic_by_sending(void)
{
	const char *topic = new_topic("absent");
	struct skald_cluster *cluster = open_cluster();
	struct skald_producer *p = NULL;
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	int32_t count = -1;

	CU_ASSERT_PTR_NOT_NULL_FATAL(cluster);
	CU_ASSERT_EQUAL_FATAL(skald_producer_create(&p, props, "absent", &err), SKALD_OK);
	CU_ASSERT_EQUAL(kit_send(p, topic, 1, 1), 1);
	CU_ASSERT(kit_await(p, &reports, 1, 20000));
	CU_ASSERT_EQUAL(reports.reject, 1);
	CU_ASSERT(skald_producer_is_dead(p, NULL));
	CU_ASSERT_EQUAL(
		skald_topic_partitions(cluster, topic, 10000, &count, &err), SKALD_OK);
	CU_ASSERT_EQUAL(count, 0);
	skald_producer_destroy(p);
	skald_cluster_close(cluster);
}

static bool
make_compacted(const char *topic)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_NewTopic_t *made;
	rd_kafka_event_t *event = NULL;
	rd_kafka_queue_t *queue;
	rd_kafka_t *rk;
	char text[200];
	bool is_done;

	made = rd_kafka_NewTopic_new(topic, 1, -1, text, sizeof(text));
	rd_kafka_NewTopic_set_config(made, "cleanup.policy", "compact");
	rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	queue = rd_kafka_queue_new(rk);
	rd_kafka_CreateTopics(rk, &made, 1, NULL, queue);
	event = rd_kafka_queue_poll(queue, 10000);
	is_done = event && !rd_kafka_event_error(event);
	rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	rd_kafka_NewTopic_destroy(made);
	rd_kafka_destroy(rk);
	return is_done && make_topic(topic, 1); /* waits for its leader */
}

#define MANY   4000
#define GUILTY 3500

struct prefix {
	uint64_t next; /* everything below is acknowledged, or its refusal settled */
	uint64_t rejected;
	bool in_order;
};

static void
on_report(uint64_t tag, enum skald_rc rc, const struct skald_err *err, void *ctx)
{
	struct prefix *x = ctx;

	(void)err;
	if (rc == SKALD_REJECT)
		x->rejected = tag;
	if (rc != SKALD_OK)
		return;
	x->in_order = x->in_order && tag == x->next;
	x->next = tag + 1;
}

/* Until all is sent and acknowledged, or the producer is dead. */
static void
send_from(struct skald_producer *p, const char *topic, struct prefix *x)
{
	int64_t until_ms = skald_mono_ms() + 20000;
	struct skald_err err = SKALD_ERR_INIT;
	uint64_t sent = x->next;

	while (x->next < MANY && !skald_producer_is_dead(p, NULL) &&
		skald_mono_ms() < until_ms) {
		struct pollfd fd = { .fd = skald_producer_fd(p), .events = POLLIN };
		bool full = false;

		while (sent < MANY && !full) {
			struct skald_record r = { .topic = topic, .tag = sent };

			r.value = SKALD_SLICE_LIT("value");
			if (sent != GUILTY)
				r.key = SKALD_SLICE_LIT("key");
			if (skald_producer_send(p, &r, &full, &err))
				return;
			sent += !full;
		}
		poll(&fd, 1, 10);
		skald_producer_serve(p, on_report, x);
	}
}

/* A record without a key in a compacted topic, far behind in a big batch. */
static void
finds_the_guilty_in_few_round_trips(void)
{
	const char *topic = new_topic("compacted");
	struct prefix x = { .rejected = UINT64_MAX, .in_order = true };
	struct skald_err err = SKALD_ERR_INIT;
	int64_t began_ms, took_ms;
	unsigned producers = 0;

	CU_ASSERT_FATAL(make_compacted(topic));
	began_ms = skald_mono_ms();
	while (x.rejected == UINT64_MAX && producers < 10) {
		struct skald_producer *p = NULL;

		CU_ASSERT_EQUAL_FATAL(
			skald_producer_create(&p, props, "guilty", &err), SKALD_OK);
		producers++;
		send_from(p, topic, &x);
		skald_producer_destroy(p);
	}
	took_ms = skald_mono_ms() - began_ms;
	printf("(%u producers, %lld ms) ", producers, (long long)took_ms);
	CU_ASSERT_EQUAL(x.rejected, GUILTY);
	CU_ASSERT_EQUAL(x.next, GUILTY);
	CU_ASSERT(x.in_order);
	CU_ASSERT(producers <= 5);
}

/* --- consumer ------------------------------------------------------------------------------ */

struct member {
	struct skald_kafka_consumer *consumer;
	int64_t start;
	unsigned assigned, left, stops, got; /* left: revoked, or stopped */
	bool in_order;
	int64_t next[PARTS];
};

static void
on_group(enum skald_group_event event, struct skald_kafka_partition *partitions,
	unsigned count, void *ctx)
{
	struct member *m = ctx;

	if (event != SKALD_GROUP_ASSIGNED) {
		m->left++;
		return;
	}
	m->assigned++;
	for (unsigned i = 0; i < count; i++) {
		partitions[i].offset = m->start;
		if (partitions[i].partition < PARTS)
			m->next[partitions[i].partition] = m->start;
	}
}

static void
on_stopped(const char *topic, int32_t partition, const struct skald_err *err, void *ctx)
{
	struct member *m = ctx;

	printf("\n    %s/%d: %s ", topic, (int)partition, err->text);
	m->stops++;
	m->left++;
}

static bool
join(struct member *m, const char *topic)
{
	const char *topics[] = { topic };
	struct skald_kafka_consumer_conf conf = { .group = topic,
		.client_id = "test",
		.topics = topics,
		.topic_count = 1,
		.session_timeout_ms = 6000,
		.on_group = on_group,
		.on_stopped = on_stopped,
		.ctx = m };
	struct skald_err err = SKALD_ERR_INIT;

	m->in_order = true;
	return skald_kafka_consumer_open(&m->consumer, props, &conf, &err) == SKALD_OK;
}

static void
turn(struct member *m)
{
	struct pollfd fd = { .fd = skald_kafka_consumer_fd(m->consumer),
		.events = POLLIN };
	struct skald_kafka_records *records = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	poll(&fd, 1, 100);
	skald_kafka_consumer_serve(m->consumer);
	if (skald_kafka_records_take(m->consumer, 500, &records, &err))
		return;
	for (unsigned i = 0; i < skald_kafka_records_count(records); i++) {
		const struct skald_kafka_record *r = skald_kafka_records_at(records, i);

		m->in_order = m->in_order && r->offset == m->next[r->partition];
		m->next[r->partition] = r->offset + 1;
		m->got++;
	}
	skald_kafka_records_free(records);
}

static bool
run_until(struct member *m, const unsigned *value, unsigned wanted)
{
	int64_t until_ms = skald_mono_ms() + 20000;

	while (*value < wanted && skald_mono_ms() < until_ms)
		turn(m);
	return *value >= wanted;
}

/* Offset that the group has as a hint, asked with a plain client. */
static int64_t
committed(const char *group, const char *topic)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	int64_t offset = -1;
	rd_kafka_t *rk;
	char text[200];

	rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, NULL, 0);
	rd_kafka_conf_set(conf, "group.id", group, NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
	rd_kafka_topic_partition_list_add(list, topic, 0);
	if (rk && !rd_kafka_committed(rk, list, 10000))
		offset = list->elems[0].offset;
	rd_kafka_topic_partition_list_destroy(list);
	if (rk)
		rd_kafka_destroy(rk);
	return offset;
}

static void
consumes(void)
{
	const char *topic = new_topic("read");
	struct skald_kafka_partition hint = { .topic = topic, .offset = 600 };
	struct member m = { .start = 0 };
	struct skald_producer *p = NULL;
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	int64_t lo = -1, hi = -1, until_ms;

	CU_ASSERT_FATAL(make_topic(topic, PARTS));
	CU_ASSERT_EQUAL_FATAL(skald_producer_create(&p, props, "read", &err), SKALD_OK);
	CU_ASSERT_EQUAL(kit_send(p, topic, 0, 999), 1000);
	CU_ASSERT(kit_await(p, &reports, 1000, 20000));
	skald_producer_destroy(p);
	CU_ASSERT_FATAL(join(&m, topic));
	CU_ASSERT(run_until(&m, &m.got, 1000));
	CU_ASSERT_EQUAL(m.got, 1000);
	CU_ASSERT(m.in_order);
	CU_ASSERT(skald_kafka_consumer_is_connected(m.consumer));
	CU_ASSERT_EQUAL(skald_kafka_consumer_end(m.consumer, topic, 0), 1000);
	CU_ASSERT_EQUAL(
		skald_kafka_consumer_offsets(m.consumer, topic, 0, 10000, &lo, &hi, &err),
		SKALD_OK);
	CU_ASSERT(lo == 0 && hi == 1000);
	CU_ASSERT_EQUAL(
		skald_kafka_consumer_seek(m.consumer, topic, 0, 995, &err), SKALD_OK);
	m.next[0] = 995;
	m.got = 0;
	CU_ASSERT(run_until(&m, &m.got, 5));
	CU_ASSERT(m.in_order);
	skald_kafka_consumer_commit(m.consumer, &hint, 1);
	until_ms = skald_mono_ms() + 20000;
	while (committed(topic, topic) != 600 && skald_mono_ms() < until_ms)
		turn(&m);
	CU_ASSERT_EQUAL(committed(topic, topic), 600);
	skald_kafka_consumer_close(m.consumer);
}

/* The largest message there may be, between small ones. */
static void
consumes_the_largest(void)
{
	const char *topic = new_topic("large");
	struct member m = { .start = 0 };
	struct skald_producer *p = NULL;
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	char *value = calloc(1, SKALD_DATA_BYTES_MAX);
	struct skald_record big = { .topic = topic,
		.value = skald_slice_make(value, SKALD_DATA_BYTES_MAX) };
	bool full;

	CU_ASSERT_FATAL(value && make_topic(topic, 1));
	CU_ASSERT_EQUAL_FATAL(skald_producer_create(&p, props, "large", &err), SKALD_OK);
	CU_ASSERT_EQUAL(kit_send(p, topic, 1, 10), 10);
	for (int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(skald_producer_send(p, &big, &full, &err), SKALD_OK);
	CU_ASSERT_EQUAL(kit_send(p, topic, 11, 20), 10);
	CU_ASSERT(kit_await(p, &reports, 22, 20000));
	CU_ASSERT_EQUAL(reports.ok, 22);
	skald_producer_destroy(p);
	CU_ASSERT_FATAL(join(&m, topic));
	CU_ASSERT(run_until(&m, &m.got, 22));
	CU_ASSERT_EQUAL(m.got, 22);
	CU_ASSERT(m.in_order);
	CU_ASSERT_EQUAL(m.stops, 0);
	skald_kafka_consumer_close(m.consumer);
	free(value);
}

static void
stops_out_of_range(void)
{
	const char *topic = new_topic("range");
	struct member m = { .start = 77 };

	CU_ASSERT_FATAL(make_topic(topic, PARTS));
	CU_ASSERT_FATAL(join(&m, topic));
	CU_ASSERT(run_until(&m, &m.stops, PARTS));
	for (int i = 0; i < 10; i++)
		turn(&m);
	CU_ASSERT_EQUAL(m.stops, PARTS); /* each once */
	CU_ASSERT_EQUAL(m.got, 0);
	skald_kafka_consumer_close(m.consumer);
}

static bool
delete_topic(const char *topic)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_DeleteTopic_t *gone = rd_kafka_DeleteTopic_new(topic);
	rd_kafka_event_t *event = NULL;
	rd_kafka_queue_t *queue;
	rd_kafka_t *rk;
	char text[200];
	bool is_done;

	rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	queue = rd_kafka_queue_new(rk);
	rd_kafka_DeleteTopics(rk, &gone, 1, NULL, queue);
	event = rd_kafka_queue_poll(queue, 10000);
	is_done = event && !rd_kafka_event_error(event);
	rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	rd_kafka_DeleteTopic_destroy(gone);
	rd_kafka_destroy(rk);
	return is_done;
}

/*
 * Deleted while it is read: what is assigned is taken back or stopped, and when
 * the topic is there again, it is assigned again: then the owner of the offsets
 * can see that they are beyond its end.
 */
static void
outlives_a_topic(void)
{
	const char *topic = new_topic("gone");
	struct member m = { .start = 0 };
	unsigned before;

	CU_ASSERT_FATAL(make_topic(topic, 1));
	CU_ASSERT_FATAL(join(&m, topic));
	CU_ASSERT(run_until(&m, &m.assigned, 1));
	before = m.assigned;
	CU_ASSERT(delete_topic(topic));
	CU_ASSERT(run_until(&m, &m.left, 1));
	CU_ASSERT(make_topic(topic, 1));
	CU_ASSERT(run_until(&m, &m.assigned, before + 1));
	skald_kafka_consumer_close(m.consumer);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(is_no_mock),
		CHECK(makes_topics),
		CHECK(tells_what_a_topic_is_set_to),
		CHECK(carries_records),
		CHECK(makes_no_topic_by_sending),
		CHECK(finds_the_guilty_in_few_round_trips),
		CHECK(consumes),
		CHECK(consumes_the_largest),
		CHECK(stops_out_of_range),
		CHECK(outlives_a_topic),
	};
	int failed;

	bootstrap = getenv("SKALD_TEST_KAFKA");
	if (!bootstrap || !*bootstrap) {
		fprintf(stderr, "SKALD_TEST_KAFKA: set it to Apache Kafka's host:port, "
				"as ./dev test does\n");
		return 1;
	}
	props = kit_props(bootstrap, NULL);
	failed = !props || check_main("contract.broker.kafka", cases, CHECK_COUNT(cases));
	skald_kafka_props_destroy(props);
	return failed;
}
