/*
 * kit.h - what the broker's contract tests share: properties from pairs, a mock
 * cluster whose requests can be made to fail, and a reader of whole partitions
 * that is not the consumer under test.
 */
#ifndef SKALD_TESTS_CONTRACT_BROKER_KIT_H
#define SKALD_TESTS_CONTRACT_BROKER_KIT_H

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#include "broker/broker.h"

/* "kafka.a=b" pairs, NULL at the end; NULL on a fault, which is printed. */
struct skald_kafka_props *kit_props(const char *bootstrap, const char *const *sets);

struct kit_mock {
	rd_kafka_t *rk;
	rd_kafka_mock_cluster_t *cluster;
	const char *bootstrap;
};
bool kit_mock_start(struct kit_mock *mock, int brokers);
void kit_mock_stop(struct kit_mock *mock);
/* A topic name nobody used before, with so many partitions. */
const char *kit_topic(struct kit_mock *mock, int partitions);

/* What a partition holds, by a plain consumer: payloads as text, one a line. */
struct kit_log {
	rd_kafka_message_t **items;
	unsigned count;
};
bool kit_read(
	const char *bootstrap, const char *topic, int32_t partition, struct kit_log *log);
void kit_log_done(struct kit_log *log);
/* "1 2 3": the payloads, for comparing as a whole. */
const char *kit_payloads(const struct kit_log *log, char *dst, size_t bytes);

/* Reports counted by what they said. */
struct kit_reports {
	unsigned ok, retry, reject;
	uint64_t rejected_tag; /* of the last REJECT */
	bool in_order; /* OK tags rise */
	uint64_t last_tag;
	struct skald_err err; /* of the last that failed */
};
void kit_report(uint64_t tag, enum skald_rc rc, const struct skald_err *err, void *ctx);
/* Serve until so many reports came or the producer is dead; false when time is up. */
bool kit_await(struct skald_producer *producer, struct kit_reports *reports,
	unsigned count, int64_t ms);
/* Send records "from".."to" (decimal text, tag = number) to partition 0; stops at full. */
unsigned kit_send(
	struct skald_producer *producer, const char *topic, unsigned from, unsigned to);

#endif
