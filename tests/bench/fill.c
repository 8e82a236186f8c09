/*
 * fill.c - put messages into a topic as a relay would have: keys, CloudEvents
 * headers, one stream with rising positions. So the consumer is measured without it.
 *
 *	skald-bench-fill BROKERS TOPIC COUNT KEYS BYTES
 */
#include <inttypes.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "tests/bench/bench.h"

static int64_t acked;

static void
on_report(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *ctx)
{
	(void)rk;
	(void)ctx;
	if (msg->err)
		BENCH_DIE("delivery: %s", rd_kafka_err2str(msg->err));
	acked++;
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char why[256];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
		BENCH_DIE("%s", why);
}

static rd_kafka_t *
open_producer(const char *brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	char why[256];

	set(conf, "bootstrap.servers", brokers);
	set(conf, "enable.idempotence", "true");
	set(conf, "queue.buffering.max.messages", "1000000");
	set(conf, "partitioner", "murmur2_random");
	rd_kafka_conf_set_dr_msg_cb(conf, on_report);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
	if (!rk)
		BENCH_DIE("%s", why);
	return rk;
}

static void
header(rd_kafka_headers_t *list, const char *name, const char *value)
{
	if (rd_kafka_header_add(list, name, -1, value, -1))
		BENCH_DIE("header %s", name);
}

static rd_kafka_headers_t *
headers_of(int64_t i)
{
	rd_kafka_headers_t *list = rd_kafka_headers_new(12);
	char id[64], position[64], trace[64];

	snprintf(id, sizeof(id), "0192d3a4-%04" PRIx64 "-7%03" PRIx64 "-8000-%012" PRIx64,
		(i >> 12) & 0xffff, i & 0xfff, i);
	snprintf(position, sizeof(position), "6740a000.%016" PRIx64 ".%08" PRIx64,
		1 + i / 10000, i % 10000);
	snprintf(trace, sizeof(trace),
		"00-4bf92f3577b34da6%016" PRIx64 "-00f067aa0ba902b7-01", i + 1);
	header(list, "ce_specversion", "1.0");
	header(list, "ce_id", id);
	header(list, "ce_source", "/bench");
	header(list, "ce_type", "bench.order.placed");
	header(list, "ce_time", "2026-01-01T12:00:00.000000Z");
	header(list, "content-type", "application/json");
	header(list, "ce_correlationid", id);
	header(list, "traceparent", trace);
	header(list, "ce_stream", "00000000000be9c4");
	header(list, "ce_sequence", position);
	return list;
}

static void
send_one(rd_kafka_t *rk, const char *topic, int64_t i, int64_t keys, char *value,
	size_t bytes)
{
	rd_kafka_headers_t *list = headers_of(i);
	rd_kafka_resp_err_t rc;
	char key[40];
	int n;

	snprintf(key, sizeof(key), "key-%06" PRId64, (i * 7919) % keys);
	n = snprintf(
		value, bytes, "{\"n\":%" PRId64 ",\"key\":\"%s\",\"pad\":\"", i, key);
	memset(value + n, 'x', bytes - (size_t)n);
	memcpy(value + bytes - 2, "\"}", 2);
	for (;;) {
		rc = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic),
			RD_KAFKA_V_KEY(key, strlen(key)), RD_KAFKA_V_VALUE(value, bytes),
			RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
			RD_KAFKA_V_HEADERS(list), RD_KAFKA_V_END);
		if (rc != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			break;
		rd_kafka_poll(rk, 50);
	}
	if (rc)
		BENCH_DIE("produce: %s", rd_kafka_err2str(rc));
}

int
main(int argc, char **argv)
{
	int64_t count, keys, i;
	rd_kafka_t *rk;
	size_t bytes;
	char *value;

	if (argc != 6)
		BENCH_DIE("usage: %s BROKERS TOPIC COUNT KEYS BYTES", argv[0]);
	count = bench_number(argv[3], 1, 100000000, "COUNT");
	keys = bench_number(argv[4], 1, 1000000, "KEYS");
	bytes = (size_t)bench_number(argv[5], 100, 1000000, "BYTES");
	value = malloc(bytes);
	if (!value)
		BENCH_DIE("no memory");
	rk = open_producer(argv[1]);
	for (i = 0; i < count; i++) {
		send_one(rk, argv[2], i, keys, value, bytes);
		rd_kafka_poll(rk, 0);
	}
	rd_kafka_flush(rk, 60000);
	if (acked != count)
		BENCH_DIE("%" PRId64 " of %" PRId64 " acknowledged", acked, count);
	rd_kafka_destroy(rk);
	free(value);
	printf("{\"count\": %" PRId64 "}\n", count);
	return 0;
}
