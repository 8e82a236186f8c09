/*
 * offsets.c - where partitions begin and end, asked of their leaders.
 *
 * Not by rd_kafka_query_watermark_offsets: its time-out ends the search for the leader
 * only. To a leader that died just now the question waits until it is back, were it for
 * hours, and the caller with it. offsets_for_times keeps its time-out; the two "times"
 * -1 and -2 mean the end and the beginning.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>

#include "base/clock.h"

static rd_kafka_resp_err_t
ask(rd_kafka_t *rk, const char *topic, int32_t partition, int64_t what,
	int64_t timeout_ms, int64_t *offset)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_t *place =
		rd_kafka_topic_partition_list_add(list, topic, partition);
	rd_kafka_resp_err_t code;

	place->offset = what;
	code = rd_kafka_offsets_for_times(rk, list, timeout_ms > 0 ? (int)timeout_ms : 0);
	if (!code)
		code = place->err;
	*offset = place->offset;
	rd_kafka_topic_partition_list_destroy(list);
	return code;
}

enum skald_rc
skald__ask_offsets(struct rd_kafka_s *rk, const char *topic, int32_t partition,
	int64_t timeout_ms, int64_t *lo, int64_t *hi, struct skald_err *err)
{
	int64_t until_ms = skald_mono_ms() + timeout_ms, first = 0, next = 0;
	rd_kafka_resp_err_t code =
		ask(rk, topic, partition, RD_KAFKA_OFFSET_BEGINNING, timeout_ms, &first);

	if (!code)
		code = ask(rk, topic, partition, RD_KAFKA_OFFSET_END,
			until_ms - skald_mono_ms(), &next);
	if (code)
		return skald__kafka_fail(err, code,
			"could not ask for the offsets of %s/%d", topic, (int)partition);
	*lo = first;
	*hi = next;
	return SKALD_OK;
}
