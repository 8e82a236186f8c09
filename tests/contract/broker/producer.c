/*
 * contract.broker.producer - what goes in comes out, whole and in order; refusals
 * and broken promises of the broker are in refusal.c.
 */
#include "tests/contract/broker/kit.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/limits.h"
#include "tests/contract/broker/refusal.h"
#include "tests/support/check.h"

static struct kit_mock mock;

static struct skald_producer *
open_producer(struct skald_kafka_props **props, const char *const *sets)
{
	struct skald_producer *p = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	*props = kit_props(mock.bootstrap, sets);
	if (*props && skald_producer_create(&p, *props, "test", &err))
		printf("\n    %s\n", err.text);
	return p;
}

static void
close_producer(struct skald_producer *p, struct skald_kafka_props *props)
{
	skald_producer_destroy(p);
	skald_kafka_props_destroy(props);
}

static void
keeps_the_order(void)
{
	enum { COUNT = 20000, PARTS = 4 };
	struct skald_kafka_props *props;
	struct skald_producer *p = open_producer(&props, NULL);
	const char *topic = kit_topic(&mock, PARTS);
	struct kit_reports reports = { 0 };
	unsigned next[PARTS] = { 0 }, read = 0;
	bool full;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	for (unsigned i = 0; i < COUNT;) {
		struct skald_err err = SKALD_ERR_INIT;
		struct skald_record r = {
			.topic = topic, .partition = (int32_t)(i % PARTS), .tag = i
		};
		char text[16];

		snprintf(text, sizeof(text), "%u", i / PARTS);
		r.value = skald_slice_text(text);
		CU_ASSERT_EQUAL_FATAL(skald_producer_send(p, &r, &full, &err), SKALD_OK);
		if (full)
			kit_await(p, &reports, reports.ok + 1, 1000);
		else
			i++;
	}
	CU_ASSERT(kit_await(p, &reports, COUNT, 20000));
	CU_ASSERT_EQUAL(reports.ok, COUNT);
	for (int32_t k = 0; k < PARTS; k++) {
		struct kit_log log;

		CU_ASSERT(kit_read(mock.bootstrap, topic, k, &log));
		for (unsigned i = 0; i < log.count; i++)
			CU_ASSERT(strtoul(log.items[i]->payload, NULL, 10) == next[k]++);
		read += log.count;
		kit_log_done(&log);
	}
	CU_ASSERT_EQUAL(read, COUNT);
	close_producer(p, props);
}

static void
send_odd_records(struct skald_producer *p, const char *topic)
{
	const struct skald_header headers[] = {
		{ SKALD_SLICE_LIT("a"), SKALD_SLICE_LIT("1") },
		{ SKALD_SLICE_LIT("null"), SKALD_SLICE_NULL },
		{ SKALD_SLICE_LIT("a"), SKALD_SLICE_LIT("2") },
		{ SKALD_SLICE_LIT("empty"), SKALD_SLICE_LIT("") },
		{ SKALD_SLICE_LIT("bytes"), SKALD_SLICE_LIT("x\0y") },
	};
	const struct skald_record records[] = {
		{ .topic = topic,
			.key = SKALD_SLICE_LIT("k"),
			.value = SKALD_SLICE_LIT("v"),
			.headers = { headers, 5 },
			.timestamp_ms = 1700000000123 },
		{ .topic = topic, .key = SKALD_SLICE_LIT("tombstone") },
		{ .topic = topic, .value = SKALD_SLICE_LIT("no key") },
		{ .topic = topic,
			.key = SKALD_SLICE_LIT(""),
			.value = SKALD_SLICE_LIT("") },
	};
	struct skald_err err = SKALD_ERR_INIT;
	bool full;

	for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++)
		CU_ASSERT_EQUAL(
			skald_producer_send(p, &records[i], &full, &err), SKALD_OK);
}

/* Read by librdkafka itself, so that a fault of our consumer cannot hide one here. */
static void
check_headers(const char *topic)
{
	static const char *const expected[] = { "a=1", "null=(null)", "a=2",
		"empty=", "bytes=x" };
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_headers_t *headers = NULL;
	rd_kafka_timestamp_type_t type;
	rd_kafka_message_t *m = NULL;
	rd_kafka_t *rk;
	const char *name;
	const void *value;
	size_t bytes, count = 0;
	char line[64];

	rd_kafka_conf_set(conf, "bootstrap.servers", mock.bootstrap, NULL, 0);
	rd_kafka_conf_set(conf, "group.id", "kit", NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, line, sizeof(line));
	rd_kafka_topic_partition_list_add(list, topic, 0)->offset = 0;
	rd_kafka_assign(rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	for (int i = 0; i < 100 && !m; i++)
		m = rd_kafka_consumer_poll(rk, 100);
	CU_ASSERT(m && !m->err && !rd_kafka_message_headers(m, &headers));
	CU_ASSERT(m && rd_kafka_message_timestamp(m, &type) == 1700000000123);
	while (headers &&
		!rd_kafka_header_get_all(headers, count, &name, &value, &bytes)) {
		snprintf(line, sizeof(line), "%s=%s", name,
			value ? (const char *)value : "(null)");
		CHECK_TEXT(line, count < 5 ? expected[count] : "no more");
		if (strcmp(name, "bytes") == 0)
			CU_ASSERT(bytes == 3 && memcmp(value, "x\0y", 3) == 0);
		count++;
	}
	CU_ASSERT_EQUAL(count, 5);
	if (m)
		rd_kafka_message_destroy(m);
	rd_kafka_consumer_close(rk);
	rd_kafka_destroy(rk);
}

static void
keeps_nulls_and_duplicates(void)
{
	struct skald_kafka_props *props;
	struct skald_producer *p = open_producer(&props, NULL);
	const char *topic = kit_topic(&mock, 1);
	struct kit_reports reports = { 0 };
	struct kit_log log;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	send_odd_records(p, topic);
	CU_ASSERT(kit_await(p, &reports, 4, 10000));
	CU_ASSERT_EQUAL(reports.ok, 4);
	CU_ASSERT(kit_read(mock.bootstrap, topic, 0, &log));
	CU_ASSERT_EQUAL(log.count, 4);
	if (log.count == 4) {
		CHECK_TEXT(log.items[0]->key, "k");
		CHECK_TEXT(log.items[0]->payload, "v");
		CU_ASSERT_PTR_NULL(log.items[1]->payload);
		CHECK_TEXT(log.items[1]->key, "tombstone");
		CU_ASSERT_PTR_NULL(log.items[2]->key);
		CHECK_TEXT(log.items[2]->payload, "no key");
		CHECK_TEXT(log.items[3]->key, "");
		CHECK_TEXT(log.items[3]->payload, "");
	}
	kit_log_done(&log);
	check_headers(topic);
	close_producer(p, props);
}

/* A broker that is away fills the queue; nothing is lost, nothing waits in send. */
static void
says_full_and_loses_nothing(void)
{
	static const char *const sets[] = { "kafka.queue.buffering.max.messages=100",
		NULL };
	struct skald_kafka_props *props;
	struct skald_producer *p = open_producer(&props, sets);
	const char *topic = kit_topic(&mock, 1);
	struct kit_reports reports = { 0 };
	struct skald_err complaint = SKALD_ERR_INIT;
	struct kit_log log;
	unsigned sent;
	int64_t began_ms;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	sent = kit_send(p, topic, 1, 10);
	CU_ASSERT(kit_await(p, &reports, 10, 10000));
	rd_kafka_mock_broker_set_down(mock.cluster, -1);
	began_ms = skald_mono_ms();
	sent += kit_send(p, topic, sent + 1, 1000);
	CU_ASSERT_EQUAL(sent, 110);
	CU_ASSERT(skald_mono_ms() - began_ms < 500);
	CU_ASSERT_FALSE(kit_await(p, &reports, sent, 1500));
	CU_ASSERT_EQUAL(reports.ok, 10);
	CU_ASSERT(skald_producer_complaint(p, &complaint));
	CHECK_TEXT(complaint.origin, "kafka");
	CU_ASSERT_FALSE(skald_producer_is_dead(p, NULL));
	rd_kafka_mock_broker_set_up(mock.cluster, -1);
	CU_ASSERT(kit_await(p, &reports, sent, 10000));
	CU_ASSERT_EQUAL(reports.ok, 110);
	CU_ASSERT(reports.in_order);
	CU_ASSERT(kit_read(mock.bootstrap, topic, 0, &log));
	CU_ASSERT_EQUAL(log.count, 110);
	for (unsigned i = 0; i < log.count; i++)
		CU_ASSERT(strtoul(log.items[i]->payload, NULL, 10) == i + 1);
	kit_log_done(&log);
	close_producer(p, props);
}

static void
rejects_at_the_door(void)
{
	static char big[SKALD_RECORD_BYTES_MAX + 1];
	struct skald_kafka_props *props;
	struct skald_producer *p = open_producer(&props, NULL);
	const char *topic = kit_topic(&mock, 2);
	struct skald_record r = { .topic = topic,
		.value = skald_slice_make(big, sizeof(big)) };
	struct kit_reports reports = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	bool full = true;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_EQUAL(kit_send(p, topic, 1, 1), 1);
	CU_ASSERT(kit_await(p, &reports, 1, 10000));
	CU_ASSERT_EQUAL(skald_producer_send(p, &r, &full, &err), SKALD_REJECT);
	CU_ASSERT_FALSE(full);
	CHECK_TEXT(err.code, "10");
	r.value = SKALD_SLICE_LIT("x");
	r.partition = 2;
	CU_ASSERT_EQUAL(skald_producer_send(p, &r, &full, &err), SKALD_REJECT);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, topic));
	/* others are not touched, and the largest that fits goes through */
	r.partition = 0;
	r.value = skald_slice_make(big, SKALD_DATA_BYTES_MAX);
	CU_ASSERT_EQUAL(skald_producer_send(p, &r, &full, &err), SKALD_OK);
	CU_ASSERT_EQUAL(kit_send(p, topic, 2, 2), 1);
	CU_ASSERT(kit_await(p, &reports, 3, 20000));
	CU_ASSERT_EQUAL(reports.ok, 3);
	close_producer(p, props);
}

static void
ends_in_time(void)
{
	struct skald_kafka_props *props;
	struct skald_producer *p = open_producer(&props, NULL);
	const char *topic = kit_topic(&mock, 1);
	struct kit_reports reports = { 0 };
	int64_t began_ms;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_EQUAL(kit_send(p, topic, 1, 1), 1);
	CU_ASSERT(kit_await(p, &reports, 1, 10000));
	rd_kafka_mock_broker_set_down(mock.cluster, -1);
	CU_ASSERT_EQUAL(kit_send(p, topic, 2, 500), 499);
	began_ms = skald_mono_ms();
	close_producer(p, props);
	CU_ASSERT(skald_mono_ms() - began_ms < 1500);
	rd_kafka_mock_broker_set_up(mock.cluster, -1);
	skald_producer_destroy(NULL);
}

/* linger.ms is the user's; push sends what lingers. */
static void
pushes_what_lingers(void)
{
	static const char *const sets[] = { "kafka.linger.ms=20000", NULL };
	struct skald_kafka_props *props;
	struct skald_producer *p = open_producer(&props, sets);
	const char *topic = kit_topic(&mock, 1);
	struct kit_reports reports = { 0 };

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT_EQUAL(kit_send(p, topic, 1, 20), 20);
	CU_ASSERT_FALSE(kit_await(p, &reports, 20, 700)); /* it does linger */
	for (int i = 0; i < 100 && reports.ok < 20; i++) {
		CU_ASSERT_TRUE(skald_producer_push(p, true));
		kit_await(p, &reports, 20, 20);
	}
	CU_ASSERT_EQUAL(reports.ok, 20);
	close_producer(p, props);
}

/* One in a quiet time leaves at once; a stream of them together, or when it has ended. */
static void
a_stream_is_not_pushed(void)
{
	static const char *const sets[] = { "kafka.linger.ms=20000", NULL };
	struct skald_kafka_props *props;
	struct skald_producer *p = open_producer(&props, sets);
	const char *topic = kit_topic(&mock, 1);
	struct kit_reports reports = { 0 };
	unsigned sent = 0;
	bool is_pushed = true;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	for (; sent < 3; sent++) {
		CU_ASSERT_EQUAL(kit_send(p, topic, sent + 1, sent + 1), 1);
		CU_ASSERT_TRUE(skald_producer_push(p, false));
	}
	/* a stream that was interrupted for 10 ms is none */
	for (int i = 0; i < 50 && is_pushed; i++, sent += 100) {
		CU_ASSERT_EQUAL(kit_send(p, topic, sent + 1, sent + 100), 100);
		is_pushed = skald_producer_push(p, false);
	}
	CU_ASSERT_FALSE(is_pushed);
	for (int i = 0; i < 100 && reports.ok < sent; i++) {
		CU_ASSERT_TRUE(skald_producer_push(p, true));
		kit_await(p, &reports, sent, 20);
	}
	CU_ASSERT_EQUAL(reports.ok, sent);
	close_producer(p, props);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(keeps_the_order),
		CHECK(keeps_nulls_and_duplicates),
		CHECK(says_full_and_loses_nothing),
		CHECK(rejects_at_the_door),
		CHECK(ends_in_time),
		CHECK(pushes_what_lingers),
		CHECK(a_stream_is_not_pushed),
		CHECK(refusal_leaves_no_gap),
		CHECK(refusal_without_gapless_leaves_one),
		CHECK(refusal_finds_the_guilty),
		CHECK(lost_order_kills_the_producer),
	};
	int failed;

	if (!kit_mock_start(&mock, 1))
		return 1;
	refusal_mock = &mock;
	failed = check_main("contract.broker.producer", cases, CHECK_COUNT(cases));
	kit_mock_stop(&mock);
	return failed;
}
