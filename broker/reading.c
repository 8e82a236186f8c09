/*
 * reading.c - records out of the partitions' queues, fairly, and the moves within
 * a partition. consumer.c has the rules (C1 to C5).
 */
#include "broker/consumer_own.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>

#include "base/log.h"

#define SEEK_MS 2000

/* The protocol's numbers; librdkafka 2.0.2 has no names for them. */
enum { UNKNOWN_TOPIC_ID = 100, INCONSISTENT_TOPIC_ID = 103 };

/* --- reading -------------------------------------------------------------------------------------- */

/* Errors after which librdkafka would skip records or wait for ever. */
static bool
is_stop(int code)
{
	static const int stops[] = {
		RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET,
		RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
		RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
		UNKNOWN_TOPIC_ID,
		INCONSISTENT_TOPIC_ID,
		RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
		RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
		RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
		RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
		RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
		RD_KAFKA_RESP_ERR_INVALID_MSG,
		RD_KAFKA_RESP_ERR__BAD_MSG,
		RD_KAFKA_RESP_ERR__BAD_COMPRESSION,
		RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED,
		RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE,
		RD_KAFKA_RESP_ERR_UNSUPPORTED_COMPRESSION_TYPE,
	};

	for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++)
		if (code == stops[i])
			return true;
	return false;
}

static void
stop_part(struct skald_kafka_consumer *c, struct skald__part *p,
	const rd_kafka_message_t *m)
{
	p->is_stopped = true;
	skald__kafka_fail(&p->why, m->err, "%s/%d at offset %lld: %s", p->topic,
		(int)p->partition, (long long)m->offset, rd_kafka_message_errstr(m));
	c->has_untold = true;
	rd_kafka_queue_io_event_enable(p->queue, -1, NULL, 0);
}

/* Keeps the records before the first stop in order; frees everything else. */
static unsigned
sort_out(struct skald_kafka_consumer *c, struct skald__part *p,
	rd_kafka_message_t **messages, size_t count)
{
	unsigned kept = 0;

	for (size_t i = 0; i < count; i++) {
		rd_kafka_message_t *m = messages[i];

		if (!p->is_stopped && !m->err) {
			messages[kept++] = m;
			continue;
		}
		if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			p->met_end = m->offset;
		else if (!p->is_stopped && is_stop(m->err))
			stop_part(c, p, m);
		else if (!p->is_stopped)
			skald__consumer_complain(c, m->err, rd_kafka_message_errstr(m));
		rd_kafka_message_destroy(m);
	}
	return kept;
}

/* One partition's turn; returns how many came. */
static unsigned
read_part(struct skald_kafka_consumer *c, struct skald__part *p,
	struct skald_kafka_records *records, unsigned share)
{
	rd_kafka_message_t **tail;
	unsigned room, kept;
	ssize_t count;

	tail = skald__records_tail(records, &room);
	count = rd_kafka_consume_batch_queue(
		p->queue, 0, tail, room < share ? room : share);
	if (count <= 0)
		return 0;
	kept = sort_out(c, p, tail, (size_t)count);
	skald__records_keep(records, kept);
	return kept;
}

enum skald_rc
skald_kafka_records_take(struct skald_kafka_consumer *c, unsigned max,
	struct skald_kafka_records **out, struct skald_err *err)
{
	struct skald_kafka_records *records = skald__records_create(max);
	unsigned share, got = 1, room = max;

	if (!records)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	skald__eventfd_drain(c->fd);
	/* Equal shares first; what some leave over the next round gives to others. */
	while (got > 0 && room > 0) {
		got = 0;
		share = c->part_count ? room / c->part_count : 0;
		share = share ? share : 1;
		for (unsigned i = 0; i < c->part_count && room > 0; i++) {
			struct skald__part *p = &c->parts[(c->turn + i) % c->part_count];

			if (p->is_stopped)
				continue;
			got += read_part(c, p, records, share);
			skald__records_tail(records, &room);
		}
		c->turn = c->part_count ? (c->turn + 1) % c->part_count : 0;
	}
	skald__consumer_rearm(c);
	if (!skald__records_finish(records)) {
		skald_kafka_records_free(records);
		return skald_fail(err, SKALD_RETRY, "skald", "",
			"out of memory for the headers of a batch");
	}
	*out = records;
	return SKALD_OK;
}

static struct skald__part *
find_part(const struct skald_kafka_consumer *c, const char *topic, int32_t partition)
{
	for (unsigned i = 0; i < c->part_count; i++)
		if (c->parts[i].partition == partition &&
			strcmp(c->parts[i].topic, topic) == 0)
			return &c->parts[i];
	return NULL;
}

int64_t
skald_kafka_consumer_met_end(
	const struct skald_kafka_consumer *c, const char *topic, int32_t partition)
{
	const struct skald__part *p = find_part(c, topic, partition);

	return p ? p->met_end : -1;
}

/* --- moving --------------------------------------------------------------------------------------- */

enum skald_rc
skald_kafka_consumer_seek(struct skald_kafka_consumer *c, const char *topic,
	int32_t partition, int64_t offset, struct skald_err *err)
{
	/* librdkafka before 2.1.0 takes the time-out for a thousandth of it. */
	const int factor = rd_kafka_version() < 0x020100ff ? 1000 : 1;
	rd_kafka_topic_partition_list_t *list;
	struct skald__part *p = find_part(c, topic, partition);
	rd_kafka_resp_err_t code;
	rd_kafka_error_t *error;

	if (!p || p->is_stopped)
		return skald_fail(err, SKALD_REJECT, "kafka", "-168",
			"could not seek %s/%d: it is %s", topic, (int)partition,
			p ? "stopped" : "not assigned");
	list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_list_add(list, topic, partition)->offset = offset;
	error = rd_kafka_seek_partitions(c->rk, list, SEEK_MS * factor);
	code = error ? rd_kafka_error_code(error) : list->elems[0].err;
	rd_kafka_error_destroy(error);
	rd_kafka_topic_partition_list_destroy(list);
	if (code)
		return skald__kafka_fail_as(err, SKALD_RETRY, code,
			"could not seek %s/%d to %lld", topic, (int)partition,
			(long long)offset);
	return SKALD_OK;
}

void
skald_kafka_consumer_stop(
	struct skald_kafka_consumer *c, const char *topic, int32_t partition)
{
	struct skald__part *p = find_part(c, topic, partition);

	if (!p || p->is_stopped)
		return;
	/* Not read any more, its queue fills up to its limit and fetching ends. */
	p->is_stopped = true;
	p->is_told = true; /* the caller knows */
	rd_kafka_queue_io_event_enable(p->queue, -1, NULL, 0);
}

void
skald_kafka_consumer_commit(struct skald_kafka_consumer *c,
	const struct skald_kafka_partition *partitions, unsigned count)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t code;
	struct skald_err err = SKALD_ERR_INIT;

	if (count == 0)
		return;
	list = rd_kafka_topic_partition_list_new((int)count);
	for (unsigned i = 0; i < count; i++)
		rd_kafka_topic_partition_list_add(
			list, partitions[i].topic, partitions[i].partition)
			->offset = partitions[i].offset;
	code = rd_kafka_commit(c->rk, list, 1);
	rd_kafka_topic_partition_list_destroy(list);
	if (!code)
		return;
	skald__kafka_fail(&err, code, "commit");
	skald_log_err(SKALD_LOG_DEBUG, &err, "could not leave the offsets as a hint");
}

int64_t
skald_kafka_consumer_end(
	struct skald_kafka_consumer *consumer, const char *topic, int32_t partition)
{
	int64_t lo = -1, hi = -1;

	if (rd_kafka_get_watermark_offsets(consumer->rk, topic, partition, &lo, &hi))
		return -1;
	return hi >= 0 ? hi : -1;
}
