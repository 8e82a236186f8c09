/*
 * dev.c - the dev broker: librdkafka's mock cluster, one node on loopback.
 *
 * The mock binds to a port of the kernel's choice and leaves Nagle's delay on,
 * which costs 40 ms an acknowledgement. A program that links dev_bind.c (skaldd)
 * corrects both in its bind(2), in the one call that is meant.
 *
 * The mock has no CreateTopics either: a thread of ours reads SKALD__DEV_TOPICS
 * and makes the topics that Skald's programs ask for there. It ends with the
 * broker.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/limits.h"

#define PARTITIONS_MAX 1000 /* the mock keeps all in memory */

struct skald_dev_broker {
	rd_kafka_t *rk;
	rd_kafka_mock_cluster_t *cluster;
	const char *address;
	int32_t partitions; /* of a topic asked for without a number */
	rd_kafka_t *reader; /* of the requests for topics */
	pthread_t thread;
	bool has_thread;
	atomic_bool stop;
};

/* --- requests for topics ------------------------------------------------------------------ */

static void
make_topic(struct skald_dev_broker *b, const rd_kafka_message_t *m)
{
	char name[SKALD_TOPIC_BYTES_MAX + 1];
	long long count;

	if (!m->key || m->key_len == 0 ||
		!skald_slice_copy(
			skald_slice_make(m->key, m->key_len), name, sizeof(name)))
		return;
	if (!skald_slice_int64(skald_slice_make(m->payload, m->len), &count) ||
		count < 1 || count > PARTITIONS_MAX)
		count = b->partitions;
	/* One that exists already stays as it is, as with Kafka. */
	(void)rd_kafka_mock_topic_create(b->cluster, name, (int)count, 1);
}

static void *
read_requests(void *arg)
{
	struct skald_dev_broker *b = arg;

	while (!atomic_load(&b->stop)) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(b->reader, 100);

		if (!m)
			continue;
		if (!m->err)
			make_topic(b, m);
		rd_kafka_message_destroy(m);
	}
	return NULL;
}

static enum skald_rc
start_reader(struct skald_dev_broker *b, struct skald_err *err)
{
	const char *const settings[][2] = {
		{ "bootstrap.servers", b->address },
		{ "group.id", SKALD__DEV_TOPICS },
		{ "client.id", "skald-dev-broker" },
		{ "enable.auto.commit", "false" },
		{ "auto.offset.reset", "earliest" }, /* the oldest are dropped one day */
		{ "fetch.wait.max.ms", "100" },
	};
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
	enum skald_rc rc;

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], NULL, 0) !=
			RD_KAFKA_CONF_OK)
			code = RD_KAFKA_RESP_ERR__INVALID_ARG;
	rc = skald__kafka_new(&b->reader, SKALD__CLIENT_CONSUMER, &conf, err);
	if (rc)
		return rc;
	list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_list_add(list, SKALD__DEV_TOPICS, 0)->offset = 0;
	if (!code)
		code = rd_kafka_mock_topic_create(b->cluster, SKALD__DEV_TOPICS, 1, 1);
	if (!code)
		code = rd_kafka_assign(b->reader, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (code)
		return skald__kafka_fail(err, code, "could not start the dev broker");
	if (pthread_create(&b->thread, NULL, read_requests, b))
		return skald_fail(err, SKALD_RETRY, "skald", "",
			"could not start the dev broker: no thread");
	b->has_thread = true;
	return SKALD_OK;
}

/* --- life --------------------------------------------------------------------------------- */

struct skald__bind_order *
skald__bind_order(void)
{
	static _Thread_local struct skald__bind_order order;

	return &order;
}

static enum skald_rc
check_port(int port, const struct skald__bind_order *order, const char *address,
	struct skald_err *err)
{
	if (port == 0)
		return SKALD_OK;
	if (!order->was_seen)
		return skald_fail(err, SKALD_REJECT, "skald", "",
			"port: this program's dev broker cannot choose one; skaldd can");
	if (order->error)
		return skald_fail(err, SKALD_RETRY, "skald", "", "port: %d: %s", port,
			strerror(order->error));
	if (strtol(strrchr(address, ':') ? strrchr(address, ':') + 1 : "", NULL, 10) !=
		port)
		return skald_fail(err, SKALD_REJECT, "skald", "",
			"port: asked for %d, the dev broker listens at %s", port,
			address);
	return SKALD_OK;
}

enum skald_rc
skald_dev_broker_start(struct skald_dev_broker **out, int port, int32_t partitions,
	struct skald_err *err)
{
	struct skald__bind_order *order = skald__bind_order();
	struct skald_dev_broker *b = NULL;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	enum skald_rc rc;

	if (port < 0 || port > 65535) {
		rc = skald_fail(err, SKALD_REJECT, "skald", "", "port: 0 to 65535");
		goto out;
	}
	if (partitions < 1 || partitions > PARTITIONS_MAX) {
		rc = skald_fail(err, SKALD_REJECT, "skald", "", "partitions: 1 to %d",
			PARTITIONS_MAX);
		goto out;
	}
	b = calloc(1, sizeof(*b));
	if (!b) {
		rc = skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		goto out;
	}
	b->partitions = partitions;
	rc = skald__kafka_new(&b->rk, SKALD__CLIENT_PRODUCER, &conf, err);
	if (rc)
		goto out;
	*order = (struct skald__bind_order){ .is_wanted = true, .port = port };
	b->cluster = rd_kafka_mock_cluster_new(b->rk, 1);
	order->is_wanted = false;
	if (!b->cluster) {
		rc = skald_fail(err, SKALD_RETRY, "kafka", "",
			"could not start the dev broker on loopback");
		goto out;
	}
	b->address = rd_kafka_mock_cluster_bootstraps(b->cluster);
	rc = check_port(port, order, b->address, err);
	if (!rc)
		rc = start_reader(b, err);
	if (rc)
		goto out;
	*out = b;
	b = NULL;
out:
	if (conf)
		rd_kafka_conf_destroy(conf);
	skald_dev_broker_stop(b);
	return rc;
}

void
skald_dev_broker_stop(struct skald_dev_broker *broker)
{
	if (!broker)
		return;
	if (broker->has_thread) {
		atomic_store(&broker->stop, true);
		pthread_join(broker->thread, NULL);
	}
	skald__kafka_destroy(broker->reader, 1000);
	if (broker->cluster)
		rd_kafka_mock_cluster_destroy(broker->cluster);
	skald__kafka_destroy(broker->rk, 1000);
	free(broker);
}

const char *
skald_dev_broker_address(const struct skald_dev_broker *broker)
{
	return broker->address;
}

const char *
skald_dev_broker_warning(void)
{
	return "dev broker: for development only: records live in memory, at most 5 MiB "
	       "a partition (older ones are dropped), and end with this process; no "
	       "admin calls, no transactions";
}
