/*
 * topic_config.c - what a topic is set to, asked of the brokers and not of a file.
 *
 * DescribeConfigs is a right of its own, which a relay need not have: who may not
 * ask goes by our own limits and lets the broker refuse what is too much.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>

#include "base/limits.h"

/* The values of an answered resource; one that has no such setting stays "". */
static void
read_values(const rd_kafka_ConfigResource_t *resource,
	struct skald_topic_setting *settings, unsigned count)
{
	const rd_kafka_ConfigEntry_t **entries;
	size_t entry_count = 0;

	entries = rd_kafka_ConfigResource_configs(resource, &entry_count);
	for (size_t e = 0; e < entry_count; e++) {
		const char *name = rd_kafka_ConfigEntry_name(entries[e]);
		const char *value = rd_kafka_ConfigEntry_value(entries[e]);

		for (unsigned i = 0; i < count && value; i++)
			if (strcmp(settings[i].name, name) == 0)
				snprintf(settings[i].value, sizeof(settings[i].value),
					"%s", value);
	}
}

static enum skald_rc
read_answer(rd_kafka_event_t *event, const char *topic, bool *is_there,
	struct skald_topic_setting *settings, unsigned count, struct skald_err *err)
{
	const rd_kafka_DescribeConfigs_result_t *result;
	const rd_kafka_ConfigResource_t **resources;
	rd_kafka_resp_err_t code;
	size_t resource_count = 0;

	if (!event)
		return skald_fail(err, SKALD_RETRY, "kafka", "-185",
			"could not ask what topic %s is set to: the broker does not "
			"answer",
			topic);
	code = rd_kafka_event_error(event);
	if (code)
		return skald__kafka_fail_as(err, SKALD_RETRY, code,
			"could not ask what topic %s is set to", topic);
	result = rd_kafka_event_DescribeConfigs_result(event);
	resources = result ? rd_kafka_DescribeConfigs_result_resources(
				     result, &resource_count)
			   : NULL;
	code = resource_count ? rd_kafka_ConfigResource_error(resources[0])
			      : RD_KAFKA_RESP_ERR__FAIL;
	*is_there = code != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	if (code && *is_there)
		return skald__kafka_fail(
			err, code, "could not ask what topic %s is set to", topic);
	if (*is_there)
		read_values(resources[0], settings, count);
	return SKALD_OK;
}

enum skald_rc
skald_topic_settings(struct skald_cluster *cluster, const char *topic, int64_t timeout_ms,
	struct skald_topic_setting *settings, unsigned count, bool *is_there,
	struct skald_err *err)
{
	rd_kafka_t *rk = skald__cluster_handle(cluster);
	char id[SKALD_CLUSTER_ID_BYTES], text[160];
	rd_kafka_AdminOptions_t *options;
	rd_kafka_ConfigResource_t *resource;
	rd_kafka_queue_t *queue;
	rd_kafka_event_t *event = NULL;
	enum skald_rc rc;

	for (unsigned i = 0; i < count; i++)
		settings[i].value[0] = '\0';
	*is_there = true;
	rc = skald_cluster_id(cluster, timeout_ms, id, err);
	if (rc || skald_cluster_is_dev(id))
		return rc; /* the dev broker has no admin calls */
	queue = rd_kafka_queue_new(rk);
	options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
	if (rd_kafka_AdminOptions_set_request_timeout(
		    options, (int)timeout_ms, text, sizeof(text))) {
		rc = skald_fail(err, SKALD_REJECT, "kafka", "", "%s", text);
		goto out;
	}
	rd_kafka_DescribeConfigs(rk, &resource, 1, options, queue);
	event = rd_kafka_queue_poll(queue, (int)timeout_ms + 100);
	rc = read_answer(event, topic, is_there, settings, count, err);
out:
	rd_kafka_event_destroy(event);
	rd_kafka_ConfigResource_destroy(resource);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	return rc;
}

enum skald_rc
skald_topic_max_bytes(struct skald_cluster *cluster, const char *topic,
	int64_t timeout_ms, int64_t *bytes, struct skald_err *err)
{
	struct skald_topic_setting setting = { .name = "max.message.bytes" };
	struct skald_err why = SKALD_ERR_INIT;
	bool is_there = false;
	long long number = 0;
	enum skald_rc rc;

	rc = skald_topic_settings(
		cluster, topic, timeout_ms, &setting, 1, &is_there, &why);
	if (rc == SKALD_REJECT) { /* not ours to ask, or nothing it understands */
		*bytes = SKALD_RECORD_BYTES_MAX;
		return SKALD_OK;
	}
	if (rc) {
		*err = why;
		return rc;
	}
	if (!is_there)
		*bytes = 0;
	else if (skald_slice_int64(skald_slice_text(setting.value), &number) &&
		 number > 0)
		*bytes = number;
	else
		*bytes = SKALD_RECORD_BYTES_MAX;
	return SKALD_OK;
}
