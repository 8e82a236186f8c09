/*
 * topics.c - what the cluster is and which topics it has; topics made before the
 * first record goes there.
 *
 * Never left to automatic creation on Apache Kafka: that races with the first
 * metadata answer, and decides partition count and record size by the broker's
 * defaults. The dev broker has no admin calls (SKALD__DEV_TOPICS stands in), and
 * there every metadata request for one topic creates it, so looking is done by
 * listing all.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/limits.h"

/* A batch of one record of the largest size, and its frame. */
#define TOPIC_RECORD_BYTES_MAX (SKALD_RECORD_BYTES_MAX + 64 * 1024)

struct skald_cluster {
	rd_kafka_t *rk;
	const struct skald_kafka_props *props;
	char id[SKALD_CLUSTER_ID_BYTES]; /* "": not known yet */
};

enum skald_rc
skald_cluster_open(struct skald_cluster **out, const struct skald_kafka_props *props,
	struct skald_err *err)
{
	static const struct skald__setting ours[] = {
		{ "isolation.level", "read_uncommitted" } /* ends are ends */
	};
	struct skald_cluster *c = calloc(1, sizeof(*c));
	struct rd_kafka_conf_s *conf = NULL;
	enum skald_rc rc;

	if (!c)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	c->props = props;
	rc = skald__kafka_conf(props, "skald-admin", &conf, err);
	if (!rc)
		rc = skald__kafka_conf_set(props, conf, ours, 1, false, err);
	/* A consumer's handle, because only it never asks for automatic creation. */
	if (!rc)
		rc = skald__kafka_new(&c->rk, SKALD__CLIENT_CONSUMER, &conf, err);
	if (rc) {
		free(c);
		return rc;
	}
	*out = c;
	return SKALD_OK;
}

void
skald_cluster_close(struct skald_cluster *cluster)
{
	if (!cluster)
		return;
	skald__kafka_destroy(cluster->rk, 1000);
	free(cluster);
}

struct rd_kafka_s *
skald__cluster_handle(struct skald_cluster *cluster)
{
	return cluster->rk;
}

bool
skald_cluster_is_dev(const char *cluster_id)
{
	return strncmp(cluster_id, "mockCluster", strlen("mockCluster")) == 0;
}

enum skald_rc
skald_cluster_id(struct skald_cluster *cluster, int64_t timeout_ms,
	char id[SKALD_CLUSTER_ID_BYTES], struct skald_err *err)
{
	char *found;

	if (!cluster->id[0]) {
		found = rd_kafka_clusterid(cluster->rk, (int)timeout_ms);
		if (!found)
			return skald_fail(err, SKALD_RETRY, "kafka", "-195",
				"no broker answers within %lld ms",
				(long long)timeout_ms);
		snprintf(cluster->id, sizeof(cluster->id), "%s", found);
		rd_kafka_mem_free(cluster->rk, found);
		skald__kafka_props_note_dev(
			cluster->props, skald_cluster_is_dev(cluster->id));
	}
	snprintf(id, SKALD_CLUSTER_ID_BYTES, "%s", cluster->id);
	return SKALD_OK;
}

/* --- looking ------------------------------------------------------------------------------ */

struct topic_state {
	int32_t partitions; /* 0: no such topic */
	int32_t replicas; /* of the partition that has the fewest */
	bool has_leaders; /* every partition has one */
};

static void
read_topic(const rd_kafka_metadata_topic_t *t, struct topic_state *state)
{
	if (t->err && t->err != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE)
		return;
	state->partitions = t->partition_cnt;
	state->has_leaders = !t->err && t->partition_cnt > 0;
	for (int i = 0; i < t->partition_cnt; i++) {
		if (t->partitions[i].leader < 0 || t->partitions[i].err)
			state->has_leaders = false;
		if (i == 0 || t->partitions[i].replica_cnt < state->replicas)
			state->replicas = t->partitions[i].replica_cnt;
	}
}

static enum skald_rc
look(struct skald_cluster *c, const char *topic, int64_t timeout_ms,
	struct topic_state *state, struct skald_err *err)
{
	char id[SKALD_CLUSTER_ID_BYTES];
	int64_t until_ms = skald_mono_ms() + timeout_ms;
	const rd_kafka_metadata_t *md = NULL;
	rd_kafka_topic_t *rkt = NULL;
	rd_kafka_resp_err_t code;
	enum skald_rc rc;
	bool all;

	memset(state, 0, sizeof(*state));
	rc = skald_cluster_id(c, timeout_ms, id, err);
	if (rc)
		return rc;
	all = skald_cluster_is_dev(id);
	if (!all)
		rkt = rd_kafka_topic_new(c->rk, topic, NULL);
	timeout_ms = until_ms - skald_mono_ms();
	code = rd_kafka_metadata(
		c->rk, all, rkt, &md, timeout_ms > 1 ? (int)timeout_ms : 1);
	if (code) {
		rc = skald__kafka_fail_as(
			err, SKALD_RETRY, code, "could not ask for topic %s", topic);
		goto out;
	}
	rc = SKALD_OK;
	for (int i = 0; i < md->topic_cnt && !rc; i++) {
		const rd_kafka_metadata_topic_t *t = &md->topics[i];

		if (strcmp(t->topic, topic) != 0)
			continue;
		read_topic(t, state);
		if (t->err && t->err != RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE &&
			t->err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
			rc = skald__kafka_fail(err, t->err, "topic %s", topic);
	}
	rd_kafka_metadata_destroy(md);
out:
	if (rkt)
		rd_kafka_topic_destroy(rkt);
	return rc;
}

enum skald_rc
skald_topic_partitions(struct skald_cluster *cluster, const char *topic,
	int64_t timeout_ms, int32_t *count, struct skald_err *err)
{
	struct topic_state state;
	enum skald_rc rc;

	rc = look(cluster, topic, timeout_ms, &state, err);
	if (!rc)
		*count = state.partitions;
	return rc;
}

static int
by_name(const void *name, const void *item)
{
	return strcmp(name, *(const char *const *)item);
}

enum skald_rc
skald_topics_partitions(struct skald_cluster *cluster, const char *const *topics,
	unsigned count, int64_t timeout_ms, int32_t *counts, struct skald_err *err)
{
	const rd_kafka_metadata_t *md = NULL;
	rd_kafka_resp_err_t code;

	if (count == 1) {
		struct topic_state state;
		enum skald_rc rc = look(cluster, topics[0], timeout_ms, &state, err);

		counts[0] = rc ? 0 : state.partitions;
		return rc == SKALD_REJECT ? SKALD_OK : rc;
	}
	code = rd_kafka_metadata(cluster->rk, 1, NULL, &md, (int)timeout_ms);
	if (code)
		return skald__kafka_fail_as(
			err, SKALD_RETRY, code, "could not ask for topics");
	for (unsigned i = 0; i < count; i++)
		counts[i] = 0;
	for (int i = 0; i < md->topic_cnt; i++) {
		const char *const *at = bsearch(
			md->topics[i].topic, topics, count, sizeof(*topics), by_name);
		struct topic_state state = { .partitions = 0 };

		if (!at)
			continue;
		read_topic(&md->topics[i], &state);
		counts[at - topics] = state.partitions;
	}
	rd_kafka_metadata_destroy(md);
	return SKALD_OK;
}

enum skald_rc
skald_topic_replicas(struct skald_cluster *cluster, const char *topic, int64_t timeout_ms,
	int32_t *count, struct skald_err *err)
{
	struct topic_state state;
	enum skald_rc rc;

	rc = look(cluster, topic, timeout_ms, &state, err);
	if (!rc)
		*count = state.replicas;
	return rc;
}

enum skald_rc
skald_cluster_brokers(struct skald_cluster *cluster, int64_t timeout_ms, unsigned *count,
	struct skald_err *err)
{
	const rd_kafka_metadata_t *md = NULL;
	rd_kafka_resp_err_t code;

	code = rd_kafka_metadata(cluster->rk, 0, NULL, &md, (int)timeout_ms);
	if (code)
		return skald__kafka_fail_as(
			err, SKALD_RETRY, code, "could not ask for the brokers");
	*count = (unsigned)md->broker_cnt;
	rd_kafka_metadata_destroy(md);
	return SKALD_OK;
}

/* --- making --------------------------------------------------------------------------------- */

static enum skald_rc
check_name(const char *topic, struct skald_err *err)
{
	size_t bytes = strlen(topic);

	if (bytes == 0 || bytes > SKALD_TOPIC_BYTES_MAX)
		return skald_fail(err, SKALD_REJECT, "skald", "",
			"topic: 1 to %d characters", SKALD_TOPIC_BYTES_MAX);
	if (strspn(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			  "0123456789._-") != bytes ||
		strcmp(topic, ".") == 0 || strcmp(topic, "..") == 0)
		return skald_fail(err, SKALD_REJECT, "skald", "",
			"topic: %s: letters, digits, . _ - only", topic);
	return SKALD_OK;
}

/* The first topic's answer, or that there was none. */
static enum skald_rc
read_created(rd_kafka_event_t *event, const char *topic, struct skald_err *err)
{
	const rd_kafka_CreateTopics_result_t *result;
	const rd_kafka_topic_result_t **topics;
	rd_kafka_resp_err_t code;
	size_t count = 0;

	if (!event)
		return skald_fail(err, SKALD_RETRY, "kafka", "-185",
			"could not create topic %s: the broker does not answer", topic);
	code = rd_kafka_event_error(event);
	if (code)
		return skald__kafka_fail_as(
			err, SKALD_RETRY, code, "could not create topic %s", topic);
	result = rd_kafka_event_CreateTopics_result(event);
	topics = result ? rd_kafka_CreateTopics_result_topics(result, &count) : NULL;
	code = count ? rd_kafka_topic_result_error(topics[0]) : RD_KAFKA_RESP_ERR__FAIL;
	if (!code || code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
		return SKALD_OK;
	return skald__kafka_fail(err, code, "could not create topic %s (%s)", topic,
		count && rd_kafka_topic_result_error_string(topics[0])
			? rd_kafka_topic_result_error_string(topics[0])
			: "");
}

static enum skald_rc
create_by_admin(struct skald_cluster *c, const char *topic,
	const struct skald_topic_conf *conf, int64_t timeout_ms, struct skald_err *err)
{
	char text[160], bytes_max[16];
	rd_kafka_queue_t *queue = rd_kafka_queue_new(c->rk);
	rd_kafka_AdminOptions_t *options =
		rd_kafka_AdminOptions_new(c->rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	rd_kafka_event_t *event = NULL;
	rd_kafka_NewTopic_t *made;
	rd_kafka_resp_err_t code;
	enum skald_rc rc;

	made = rd_kafka_NewTopic_new(
		topic, conf->partitions, conf->replication, text, sizeof(text));
	if (!made) {
		rc = skald_fail(err, SKALD_REJECT, "kafka", "", "topics: %s", text);
		goto out;
	}
	snprintf(bytes_max, sizeof(bytes_max), "%d", TOPIC_RECORD_BYTES_MAX);
	code = rd_kafka_NewTopic_set_config(made, "max.message.bytes", bytes_max);
	if (!code)
		code = rd_kafka_AdminOptions_set_request_timeout(
			options, (int)timeout_ms, text, sizeof(text));
	if (code) {
		rc = skald__kafka_fail(err, code, "could not create topic %s", topic);
		goto out;
	}
	rd_kafka_CreateTopics(c->rk, &made, 1, options, queue);
	event = rd_kafka_queue_poll(queue, (int)timeout_ms + 100);
	rc = read_created(event, topic, err);
out:
	rd_kafka_event_destroy(event);
	if (made)
		rd_kafka_NewTopic_destroy(made);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	return rc;
}

/* Another's mock cluster: a client that allows automatic creation asks once. */
static enum skald_rc
create_by_asking(struct rd_kafka_s *rk, const char *topic, int64_t timeout_ms,
	struct skald_err *err)
{
	rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
	const rd_kafka_metadata_t *md = NULL;
	rd_kafka_resp_err_t code;

	code = rd_kafka_metadata(rk, 0, rkt, &md, (int)timeout_ms);
	rd_kafka_topic_destroy(rkt);
	if (code)
		return skald__kafka_fail_as(
			err, SKALD_RETRY, code, "could not create topic %s", topic);
	rd_kafka_metadata_destroy(md);
	return SKALD_OK;
}

/* Our dev broker: it reads this topic and makes what is asked for (dev.c). */
static enum skald_rc
create_by_record(struct rd_kafka_s *rk, const char *topic, int32_t partitions,
	int64_t timeout_ms, struct skald_err *err)
{
	char count[16];
	rd_kafka_resp_err_t code;

	snprintf(count, sizeof(count), "%d", (int)partitions);
	code = rd_kafka_producev(rk, RD_KAFKA_VTYPE_TOPIC, SKALD__DEV_TOPICS,
		RD_KAFKA_VTYPE_PARTITION, (int32_t)0, RD_KAFKA_VTYPE_MSGFLAGS,
		(int)RD_KAFKA_MSG_F_COPY, RD_KAFKA_VTYPE_KEY, topic, strlen(topic),
		RD_KAFKA_VTYPE_VALUE, count, strlen(count), RD_KAFKA_VTYPE_END);
	if (!code)
		code = rd_kafka_flush(rk, (int)timeout_ms);
	if (code)
		return skald__kafka_fail_as(
			err, SKALD_RETRY, code, "could not create topic %s", topic);
	return SKALD_OK;
}

static enum skald_rc
create_on_dev(struct skald_cluster *c, const char *topic, int32_t partitions,
	int64_t timeout_ms, struct skald_err *err)
{
	static const struct skald__setting ours[] = {
		{ "allow.auto.create.topics", "true" },
		{ "linger.ms", "0" },
	};
	struct rd_kafka_conf_s *conf = NULL;
	struct topic_state requests;
	rd_kafka_t *rk = NULL;
	enum skald_rc rc;

	rc = look(c, SKALD__DEV_TOPICS, timeout_ms, &requests, err);
	if (!rc)
		rc = skald__kafka_conf(c->props, "skald-admin", &conf, err);
	if (!rc)
		rc = skald__kafka_conf_set(c->props, conf, ours, 2, false, err);
	if (!rc)
		rc = skald__kafka_new(&rk, SKALD__CLIENT_PRODUCER, &conf, err);
	if (!rc)
		rc = requests.partitions
			     ? create_by_record(rk, topic, partitions, timeout_ms, err)
			     : create_by_asking(rk, topic, timeout_ms, err);
	if (conf)
		rd_kafka_conf_destroy(conf);
	skald__kafka_destroy(rk, 1000);
	return rc;
}

static enum skald_rc
create(struct skald_cluster *c, const char *topic, const struct skald_topic_conf *conf,
	int64_t timeout_ms, struct skald_err *err)
{
	timeout_ms = timeout_ms > 1 ? timeout_ms : 1;
	if (skald_cluster_is_dev(c->id))
		return create_on_dev(c, topic, conf->partitions, timeout_ms, err);
	return create_by_admin(c, topic, conf, timeout_ms, err);
}

enum skald_rc
skald_topic_ensure(struct skald_cluster *cluster, const char *topic,
	const struct skald_topic_conf *conf, int64_t timeout_ms, int32_t *count,
	struct skald_err *err)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000000L };
	int64_t until_ms = skald_mono_ms() + timeout_ms, left_ms = timeout_ms;
	struct topic_state state = { .partitions = 0 };
	bool is_created = false;
	enum skald_rc rc;

	rc = check_name(topic, err);
	while (!rc && left_ms > 0) {
		rc = look(cluster, topic, left_ms, &state, err);
		if (!rc && state.has_leaders) {
			*count = state.partitions;
			return SKALD_OK;
		}
		left_ms = until_ms - skald_mono_ms();
		if (!rc && state.partitions == 0 && !is_created) {
			if (!conf->create)
				return skald_fail(err, SKALD_REJECT, "kafka", "3",
					"topic %s: does not exist, and [topics] create "
					"is false",
					topic);
			rc = create(cluster, topic, conf, left_ms, err);
			is_created = true;
		} else if (!rc) {
			nanosleep(&pause, NULL); /* a leader is being elected */
		}
		left_ms = until_ms - skald_mono_ms();
	}
	if (rc)
		return rc;
	return skald_fail(err, SKALD_RETRY, "kafka", "5", "topic %s: %s after %lld ms",
		topic, state.partitions ? "a partition without a leader" : "not there",
		(long long)timeout_ms);
}
