/*
 * offsets.c - where partitions begin and end, asked of their leaders.
 *
 * Not by rd_kafka_query_watermark_offsets: its time-out ends the search for the leader
 * only. To a leader that died just now the question waits until it is back, were it for
 * hours, and the caller with it. offsets_for_times keeps its time-out; the two "times"
 * -1 and -2 mean the end and the beginning.
 */
#include "broker/consumer_own.h"

#include <librdkafka/rdkafka.h>

#include "base/clock.h"

/* What: RD_KAFKA_OFFSET_BEGINNING or _END; into the partitions' offsets. */
static rd_kafka_resp_err_t
ask(rd_kafka_t *rk, struct skald_kafka_partition *partitions, unsigned count,
	int64_t what, int64_t timeout_ms)
{
	rd_kafka_topic_partition_list_t *list =
		rd_kafka_topic_partition_list_new((int)count);
	rd_kafka_resp_err_t code;

	for (unsigned i = 0; i < count; i++)
		rd_kafka_topic_partition_list_add(
			list, partitions[i].topic, partitions[i].partition)
			->offset = what;
	code = rd_kafka_offsets_for_times(rk, list, timeout_ms > 0 ? (int)timeout_ms : 0);
	for (unsigned i = 0; i < count && !code; i++) {
		code = list->elems[i].err;
		partitions[i].offset = list->elems[i].offset;
	}
	rd_kafka_topic_partition_list_destroy(list);
	return code;
}

static enum skald_rc
ask_both(rd_kafka_t *rk, const char *topic, int32_t partition, int64_t timeout_ms,
	int64_t *lo, int64_t *hi, struct skald_err *err)
{
	struct skald_kafka_partition first = { topic, partition, 0 }, next = first;
	int64_t until_ms = skald_mono_ms() + timeout_ms;
	rd_kafka_resp_err_t code =
		ask(rk, &first, 1, RD_KAFKA_OFFSET_BEGINNING, timeout_ms);

	if (!code)
		code = ask(rk, &next, 1, RD_KAFKA_OFFSET_END, until_ms - skald_mono_ms());
	if (code)
		return skald__kafka_fail(err, code,
			"could not ask for the offsets of %s/%d", topic, (int)partition);
	*lo = first.offset;
	*hi = next.offset;
	return SKALD_OK;
}

enum skald_rc
skald_topic_offsets(struct skald_cluster *cluster, const char *topic, int32_t partition,
	int64_t timeout_ms, int64_t *lo, int64_t *hi, struct skald_err *err)
{
	return ask_both(skald__cluster_handle(cluster), topic, partition, timeout_ms, lo,
		hi, err);
}

enum skald_rc
skald_kafka_consumer_offsets(struct skald_kafka_consumer *consumer, const char *topic,
	int32_t partition, int64_t timeout_ms, int64_t *lo, int64_t *hi,
	struct skald_err *err)
{
	return ask_both(consumer->rk, topic, partition, timeout_ms, lo, hi, err);
}

enum skald_rc
skald_kafka_consumer_ends(struct skald_kafka_consumer *c,
	struct skald_kafka_partition *partitions, unsigned count, int64_t timeout_ms,
	struct skald_err *err)
{
	rd_kafka_resp_err_t code =
		ask(c->rk, partitions, count, RD_KAFKA_OFFSET_END, timeout_ms);

	return code ? skald__kafka_fail_as(err, SKALD_RETRY, code,
			      "could not ask for the ends of %u partitions", count)
		    : SKALD_OK;
}
