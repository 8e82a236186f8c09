/*
 * dev.c - the dev broker: librdkafka's mock cluster, one node on loopback.
 *
 * The mock binds to a port of the kernel's choice and leaves Nagle's delay on,
 * which costs 40 ms an acknowledgement. A program that links dev_bind.c (skaldd)
 * corrects both in its bind(2), in the one call that is meant.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdlib.h>

#include "base/log.h"

struct skald_dev_broker {
	rd_kafka_t *rk;
	rd_kafka_mock_cluster_t *cluster;
	const char *address;
	int32_t partitions;
};

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
	if (atol(strrchr(address, ':') ? strrchr(address, ':') + 1 : "") != port)
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
	if (partitions < 1 || partitions > 1000) {
		rc = skald_fail(err, SKALD_REJECT, "skald", "", "partitions: 1 to 1000");
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
