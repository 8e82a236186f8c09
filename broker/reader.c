/*
 * reader.c - partitions without a group: the caller has leases of its own and says
 * what is read from where. The rest is the consumer's (consumer.c, reading.c).
 */
#include "broker/consumer_own.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>

enum skald_rc
skald_kafka_consumer_assign(struct skald_kafka_consumer *c,
	const struct skald_kafka_partition *partitions, unsigned count,
	struct skald_err *err)
{
	return skald__consumer_set_parts(c, partitions, count, err);
}

enum skald_rc
skald_kafka_consumer_ends(struct skald_kafka_consumer *c,
	struct skald_kafka_partition *partitions, unsigned count, int64_t timeout_ms,
	struct skald_err *err)
{
	rd_kafka_topic_partition_list_t *list =
		rd_kafka_topic_partition_list_new((int)count);
	rd_kafka_resp_err_t code;
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = 0; i < count; i++)
		rd_kafka_topic_partition_list_add(
			list, partitions[i].topic, partitions[i].partition)
			->offset = RD_KAFKA_OFFSET_END;
	code = rd_kafka_offsets_for_times(c->rk, list, (int)timeout_ms);
	for (unsigned i = 0; i < count && !code; i++) {
		code = list->elems[i].err;
		partitions[i].offset = list->elems[i].offset;
	}
	if (code)
		rc = skald__kafka_fail_as(err, SKALD_RETRY, code,
			"could not ask for the ends of %u partitions", count);
	rd_kafka_topic_partition_list_destroy(list);
	return rc;
}
