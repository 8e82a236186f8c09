/*
 * refusal.c - the broker refuses a batch, or loses count: after the first record
 * that is not written nothing may be written, and of a refused batch only the
 * guilty record is REJECTed in the end.
 *
 * Five batches of ten are made while the broker is away, so that several are on
 * their way when the first is refused.
 */
#include "tests/contract/broker/refusal.h"

#include <stdlib.h>

#include "tests/support/check.h"

#define PRODUCE 0 /* the request's number in Kafka's protocol */
#define COUNT   50

struct kit_mock *refusal_mock;

static const char *const batches_of_ten[] = { "kafka.batch.num.messages=10", NULL };

static struct skald_producer *
open_producer(struct skald_kafka_props *props)
{
	struct skald_producer *p = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	if (props && skald_producer_create(&p, props, "refused", &err))
		printf("\n    %s\n", err.text);
	return p;
}

/* One record to be connected, then COUNT that wait for the broker. */
static void
fill(struct skald_producer *p, const char *topic, struct kit_reports *reports)
{
	CU_ASSERT_EQUAL(kit_send(p, topic, 0, 0), 1);
	CU_ASSERT(kit_await(p, reports, 1, 10000));
	rd_kafka_mock_broker_set_down(refusal_mock->cluster, -1);
	CU_ASSERT_EQUAL(kit_send(p, topic, 1, COUNT), COUNT);
}

static void
refuse_then_let_go(rd_kafka_resp_err_t code)
{
	rd_kafka_mock_push_request_errors(refusal_mock->cluster, PRODUCE, 1, code);
	rd_kafka_mock_broker_set_up(refusal_mock->cluster, -1);
}

static unsigned
log_count(const char *topic, const char *expected)
{
	struct kit_log log;
	char text[512];
	unsigned count;

	CU_ASSERT(kit_read(refusal_mock->bootstrap, topic, 0, &log));
	count = log.count;
	if (expected)
		CHECK_TEXT(kit_payloads(&log, text, sizeof(text)), expected);
	kit_log_done(&log);
	return count;
}

void
refusal_leaves_no_gap(void)
{
	struct skald_kafka_props *props =
		kit_props(refusal_mock->bootstrap, batches_of_ten);
	struct skald_producer *p = open_producer(props);
	const char *topic = kit_topic(refusal_mock, 1);
	struct kit_reports reports = { 0 };
	struct skald_err why = SKALD_ERR_INIT;
	bool full;
	struct skald_record r = { .topic = topic };

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	fill(p, topic, &reports);
	refuse_then_let_go(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	CU_ASSERT(kit_await(p, &reports, COUNT + 1, 10000));
	CU_ASSERT(skald_producer_is_dead(p, &why));
	CHECK_TEXT(why.origin, "kafka");
	CU_ASSERT_EQUAL(reports.ok, 1);
	/* nobody knows yet which of the ten it was */
	CU_ASSERT_EQUAL(reports.reject, 0);
	CU_ASSERT_EQUAL(reports.retry, COUNT);
	CU_ASSERT_EQUAL(skald_producer_send(p, &r, &full, &why), SKALD_RETRY);
	CU_ASSERT_EQUAL(log_count(topic, "0"), 1);
	skald_producer_destroy(p);
	skald_kafka_props_destroy(props);
}

/* The control: librdkafka without its gapless mode writes what comes after. */
void
refusal_without_gapless_leaves_one(void)
{
	static const char *const pairs[] = { "enable.idempotence", "true",
		"batch.num.messages", "10", "linger.ms", "0", "reconnect.backoff.ms",
		"50", "reconnect.backoff.max.ms", "200", "log_level", "0" };
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	const char *topic = kit_topic(refusal_mock, 1);
	char text[200];
	rd_kafka_t *rk;

	rd_kafka_conf_set(conf, "bootstrap.servers", refusal_mock->bootstrap, NULL, 0);
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i += 2)
		rd_kafka_conf_set(conf, pairs[i], pairs[i + 1], NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	CU_ASSERT_PTR_NOT_NULL_FATAL(rk);
	for (int i = 0; i <= COUNT; i++) {
		snprintf(text, sizeof(text), "%d", i);
		CU_ASSERT(!rd_kafka_producev(rk, RD_KAFKA_VTYPE_TOPIC, topic,
			RD_KAFKA_VTYPE_PARTITION, (int32_t)0, RD_KAFKA_VTYPE_MSGFLAGS,
			(int)RD_KAFKA_MSG_F_COPY, RD_KAFKA_VTYPE_VALUE, text,
			strlen(text), RD_KAFKA_VTYPE_END));
		if (i == 0) {
			CU_ASSERT(!rd_kafka_flush(rk, 10000));
			rd_kafka_mock_broker_set_down(refusal_mock->cluster, -1);
		}
	}
	refuse_then_let_go(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	CU_ASSERT(!rd_kafka_flush(rk, 10000));
	rd_kafka_destroy(rk);
	CU_ASSERT_EQUAL(log_count(topic, NULL), COUNT + 1 - 10);
}

static void
send_the_rest(struct skald_producer *p, const char *topic, struct kit_reports *reports,
	unsigned from)
{
	unsigned next = from;

	for (int turns = 0; next <= COUNT && turns < 1000; turns++) {
		next += kit_send(p, topic, next, COUNT);
		if (skald_producer_is_dead(p, NULL) ||
			!kit_await(p, reports, next - from, 10000))
			break;
	}
	kit_await(p, reports, next - from, 10000);
}

/*
 * Record 4 is too large. First the batch of ten is refused; the next producer
 * sends one by one, so that record 4 is refused alone; the third goes on behind.
 */
void
refusal_finds_the_guilty(void)
{
	struct skald_kafka_props *props =
		kit_props(refusal_mock->bootstrap, batches_of_ten);
	struct skald_producer *p = open_producer(props);
	const char *topic = kit_topic(refusal_mock, 1);
	struct kit_reports first = { 0 }, second = { 0 }, third = { 0 };
	char expected[512] = "0 1 2 3", number[16];

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	fill(p, topic, &first);
	refuse_then_let_go(RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	CU_ASSERT(kit_await(p, &first, COUNT + 1, 10000));
	skald_producer_destroy(p);

	rd_kafka_mock_push_request_errors(refusal_mock->cluster, PRODUCE, 4, 0, 0, 0,
		RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	p = open_producer(props);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	send_the_rest(p, topic, &second, 1);
	CU_ASSERT(skald_producer_is_dead(p, NULL));
	CU_ASSERT_EQUAL(second.ok, 3);
	CU_ASSERT_EQUAL(second.reject, 1);
	CU_ASSERT_EQUAL(second.rejected_tag, 4);
	CHECK_TEXT(second.err.code, "10");
	skald_producer_destroy(p);

	p = open_producer(props);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	send_the_rest(p, topic, &third, 5);
	CU_ASSERT_EQUAL(third.ok, COUNT - 4);
	skald_producer_destroy(p);
	for (int i = 5; i <= COUNT; i++) {
		snprintf(number, sizeof(number), " %d", i);
		memcpy(expected + strlen(expected), number, strlen(number) + 1);
	}
	CU_ASSERT_EQUAL(log_count(topic, expected), COUNT);
	skald_kafka_props_destroy(props);
}

/* A broker that lost count: dead, a prefix written; a new producer repeats the rest. */
void
lost_order_kills_the_producer(void)
{
	struct skald_kafka_props *props =
		kit_props(refusal_mock->bootstrap, batches_of_ten);
	struct skald_producer *p = open_producer(props);
	const char *topic = kit_topic(refusal_mock, 1);
	struct kit_reports reports = { 0 }, again = { 0 };
	struct skald_err why = SKALD_ERR_INIT;
	struct kit_log log;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	fill(p, topic, &reports);
	refuse_then_let_go(RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
	CU_ASSERT(kit_await(p, &reports, COUNT + 1, 10000));
	CU_ASSERT(skald_producer_is_dead(p, &why));
	CU_ASSERT_EQUAL(reports.reject, 0);
	CU_ASSERT(kit_read(refusal_mock->bootstrap, topic, 0, &log));
	CU_ASSERT(log.count >= reports.ok);
	for (unsigned i = 0; i < log.count; i++)
		CU_ASSERT(strtoul(log.items[i]->payload, NULL, 10) == i);
	kit_log_done(&log);
	skald_producer_destroy(p);
	p = open_producer(props);
	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	send_the_rest(p, topic, &again, reports.ok);
	CU_ASSERT_EQUAL(again.ok, COUNT + 1 - reports.ok);
	skald_producer_destroy(p);
	skald_kafka_props_destroy(props);
}
