/*
 * saga_stub.c - participants at the wire: every command is answered at once with a
 * success, from topic to topic; no database, no barrier.
 *
 *	skald-bench-saga-stub BROKERS TOPIC...
 *
 * Reads all partitions of the topics from their end, until it is ended. Says
 * "ready" once it reads.
 */
#include <stdbool.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "tests/bench/bench.h"

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char why[256];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
		BENCH_DIE("%s", why);
}

static rd_kafka_t *
open_kafka(rd_kafka_type_t type, const char *brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	char why[256];

	set(conf, "bootstrap.servers", brokers);
	if (type == RD_KAFKA_PRODUCER) {
		set(conf, "enable.idempotence", "true");
		set(conf, "linger.ms", "0");
		set(conf, "queue.buffering.max.messages", "1000000");
		set(conf, "partitioner", "murmur2_random");
	} else {
		set(conf, "group.id", "bench-saga-stub");
		set(conf, "enable.auto.commit", "false");
		set(conf, "fetch.wait.max.ms", "100");
	}
	rk = rd_kafka_new(type, conf, why, sizeof(why));
	if (!rk)
		BENCH_DIE("%s", why);
	return rk;
}

static void
read_topics(rd_kafka_t *rk, int count, char **topics)
{
	rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(24);
	const struct rd_kafka_metadata *meta = NULL;

	for (int i = 0; i < count; i++) {
		rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topics[i], NULL);

		if (rd_kafka_metadata(rk, 0, rkt, &meta, 10000) || meta->topic_cnt != 1)
			BENCH_DIE("no metadata of %s", topics[i]);
		for (int p = 0; p < meta->topics[0].partition_cnt; p++)
			rd_kafka_topic_partition_list_add(all, topics[i], p)->offset =
				RD_KAFKA_OFFSET_BEGINNING;
		rd_kafka_metadata_destroy(meta);
		rd_kafka_topic_destroy(rkt);
	}
	if (rd_kafka_assign(rk, all))
		BENCH_DIE("assign failed");
	rd_kafka_topic_partition_list_destroy(all);
}

static void
add(rd_kafka_headers_t *list, const char *name, const char *value, size_t bytes)
{
	if (rd_kafka_header_add(list, name, -1, value, (ssize_t)bytes))
		BENCH_DIE("header %s", name);
}

/* What a command says of itself, echoed; *reply_to: where the answer goes. */
static rd_kafka_headers_t *
echo(const rd_kafka_headers_t *from, char *reply_to, size_t room)
{
	rd_kafka_headers_t *list = rd_kafka_headers_new(16);
	const char *name;
	const void *value;
	size_t bytes;

	reply_to[0] = '\0';
	for (size_t i = 0; !rd_kafka_header_get_all(from, i, &name, &value, &bytes);
		i++) {
		const char *text = value;

		if (strcmp(name, "ce_replyto") == 0) {
			snprintf(reply_to, room, "%.*s", (int)bytes, text);
		} else if (strcmp(name, "ce_type") == 0) {
			char type[128];

			snprintf(type, sizeof(type), "%.*s.reply", (int)bytes, text);
			add(list, name, type, strlen(type));
		} else if (strcmp(name, "ce_id") == 0) {
			add(list, "ce_causationid", text, bytes);
			add(list, name, text, bytes);
		} else if (strcmp(name, "ce_position") != 0 &&
			   strcmp(name, "ce_stream") != 0 &&
			   strcmp(name, "ce_causationid") != 0) {
			add(list, name, text, bytes);
		}
	}
	add(list, "ce_sagaoutcome", "success", 7);
	if (!reply_to[0])
		BENCH_DIE("a command without ce_replyto");
	return list;
}

static void
answer(rd_kafka_t *producer, const rd_kafka_message_t *msg)
{
	static const char data[] = "{\"number\":1}";
	rd_kafka_headers_t *from = NULL, *list;
	char reply_to[256];
	rd_kafka_resp_err_t rc;

	if (rd_kafka_message_headers(msg, &from))
		BENCH_DIE("a command without headers");
	list = echo(from, reply_to, sizeof(reply_to));
	do {
		rc = rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(reply_to),
			RD_KAFKA_V_KEY(msg->key, msg->key_len),
			RD_KAFKA_V_VALUE((void *)(uintptr_t)data, sizeof(data) - 1),
			RD_KAFKA_V_HEADERS(list),
			RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
		if (rc == RD_KAFKA_RESP_ERR__QUEUE_FULL)
			(void)rd_kafka_poll(producer, 10);
	} while (rc == RD_KAFKA_RESP_ERR__QUEUE_FULL);
	if (rc)
		BENCH_DIE("produce: %s", rd_kafka_err2str(rc));
}

int
main(int argc, char **argv)
{
	rd_kafka_t *consumer, *producer;
	rd_kafka_queue_t *queue;
	rd_kafka_message_t *msgs[500];

	if (argc < 3)
		BENCH_DIE("usage: skald-bench-saga-stub BROKERS TOPIC...");
	producer = open_kafka(RD_KAFKA_PRODUCER, argv[1]);
	consumer = open_kafka(RD_KAFKA_CONSUMER, argv[1]);
	(void)rd_kafka_poll_set_consumer(consumer);
	read_topics(consumer, argc - 2, argv + 2);
	queue = rd_kafka_queue_get_consumer(consumer);
	puts("ready");
	(void)fflush(stdout);
	for (;;) {
		ssize_t count = rd_kafka_consume_batch_queue(queue, 5, msgs, 500);

		for (ssize_t i = 0; i < count; i++) {
			if (!msgs[i]->err)
				answer(producer, msgs[i]);
			rd_kafka_message_destroy(msgs[i]);
		}
		(void)rd_kafka_poll(producer, 0);
	}
}
