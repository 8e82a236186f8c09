/*
 * recover.c - the catch-up: what of it is in the topics already.
 *
 * Rows that the acknowledged snapshot does not see may have been published all the same:
 * the slot that knew is gone, or the server that did. Their positions there are above
 * `from`, in our own stream. So the tails of the tick's topics are read back to it, and
 * what is found is not sent again; a consumer that goes by positions could not tell.
 *
 * C1  A partition is read from its end, as it was when the catch-up began, back in ever
 *     larger chunks, until a chunk holds a record of our stream at or below `from`, or
 *     the partition begins. Silence is no end: the broker says where the end is, and
 *     what lies behind somebody's open transaction is read, too.
 * C2  What comes later than that end (a zombie's last requests) bears positions of a
 *     former epoch, and is ignored by whoever has seen one of the new.
 */
#include "outbox/own.h"

#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

#define CHUNK_FIRST  1000
#define CHUNK_GROWS  4
#define DEPTH_MAX    4000000 /* records of one partition; further back nothing is known */
#define STEP_MS      100 /* the lease is renewed between two steps */
#define SETTLE_MS    1000 /* a request of a producer that is gone may still be handled */
#define ASK_MS       1000
#define STALL_MS     3000 /* no record for so long: is there one? */
#define REST_MS      10
#define TAKE_RECORDS 2000
#define FOUND_ROOM   4096

/* clang-format off */
static const char sql_topics[] =
	/* a marker's own is empty: what it lets out may be there, too */
	"SELECT DISTINCT CASE o.topic WHEN '' THEN o.subject ELSE o.topic END"
	" FROM skald.outbox o, skald.relay r WHERE r.term = $1::bigint"
	" AND o.xid >= pg_snapshot_xmin(r.acked_snapshot)"
	" AND NOT pg_visible_in_snapshot(o.xid, r.acked_snapshot)"
	" AND pg_visible_in_snapshot(o.xid, r.tick_snapshot)";
/* clang-format on */

enum skald_rc
skald__recover_begin(
	struct skald_relay *r, struct skald_slice from, struct skald_err *err)
{
	struct skald__recover *c = &r->recover;
	char term[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term) };

	skald__recover_done(r);
	if (!from.data)
		return SKALD_OK;
	/* nothing was ever acknowledged: everything there is above the lowest position */
	if (!skald_position_parse(from, &c->from))
		c->from = (struct skald_position){ 0, 0, 0 };
	c->is_tick = true;
	skald_log(SKALD_LOG_INFO,
		"relay catches up: looks for what is published already source=%s from=%s",
		r->source, from.data);
	return skald__tick_query(r, sql_topics, params, 1, &c->topics, err);
}

void
skald__recover_done(struct skald_relay *r)
{
	struct skald__recover *c = &r->recover;

	skald_rows_free(c->topics);
	skald_kafka_consumer_close(c->reader);
	free(c->found);
	*c = (struct skald__recover){ .partition = 0 };
}

/* --- what is found ------------------------------------------------------------------------------ */

static enum skald_rc
note_found(struct skald__recover *c, const struct skald_uuid *id, struct skald_err *err)
{
	if (c->found_count == c->found_room) {
		size_t room = c->found_room ? 2 * c->found_room : FOUND_ROOM;
		struct skald_uuid *found = realloc(c->found, room * sizeof(*found));

		if (!found)
			return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		c->found = found;
		c->found_room = room;
	}
	c->found[c->found_count++] = *id;
	return SKALD_OK;
}

static int
compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct skald_uuid));
}

bool
skald__recover_has(const struct skald_relay *r, const struct skald_uuid *id)
{
	const struct skald__recover *c = &r->recover;

	return c->found_count > 0 &&
	       bsearch(id, c->found, c->found_count, sizeof(*id), compare);
}

/* A record of another history, or of none, says nothing. */
static enum skald_rc
look_at(struct skald_relay *r, const struct skald_kafka_record *record,
	struct skald_err *err)
{
	struct skald__recover *c = &r->recover;
	struct skald_slice stream = skald_headers_get(record->headers, SKALD_H_STREAM);
	struct skald_slice at = skald_headers_get(record->headers, SKALD_H_SEQUENCE);
	struct skald_position position;
	struct skald_uuid id;

	if (!skald_slice_is_text(stream, r->tick.stream) ||
		!skald_position_parse(at, &position))
		return SKALD_OK;
	if (skald_position_compare(position, c->from) <= 0) {
		c->is_deep_enough = true;
		return SKALD_OK;
	}
	if (!skald_uuid_parse(skald_headers_get(record->headers, SKALD_H_ID), &id))
		return SKALD_OK;
	return note_found(c, &id, err);
}

/* --- chunks --------------------------------------------------------------------------------------- */

static const char *
topic_of(const struct skald__recover *c)
{
	return skald_rows_get(c->topics, c->next_topic, 0).data;
}

/* A partition that cannot be read any more: the catch-up begins again. */
static void
on_stopped(const char *topic, int32_t partition, const struct skald_err *err, void *ctx)
{
	struct skald__recover *c = ctx;

	(void)topic;
	(void)partition;
	c->is_stopped = true;
	c->why = *err;
}

static enum skald_rc
need_reader(struct skald_relay *r, struct skald_err *err)
{
	struct skald_kafka_consumer_conf conf = { .group = "skald-relay",
		.client_id = r->client_id,
		.reads_all = true,
		.on_stopped = on_stopped,
		.ctx = &r->recover };

	if (!r->publisher.cluster) {
		enum skald_rc rc =
			skald_cluster_open(&r->publisher.cluster, r->kafka, err);

		if (rc)
			return rc;
	}
	return r->recover.reader ? SKALD_OK
				 : skald_kafka_consumer_open(
					   &r->recover.reader, r->kafka, &conf, err);
}

static enum skald_rc
open_chunk(struct skald_relay *r, int64_t begin, int64_t end, struct skald_err *err)
{
	struct skald__recover *c = &r->recover;
	struct skald_kafka_partition place = { topic_of(c), c->partition, begin };

	c->begin = c->at = begin;
	c->end = end;
	c->is_chunk_open = true;
	c->idle_since_ms = skald_mono_ms();
	return skald_kafka_consumer_assign(c->reader, &place, 1, err);
}

/* The partition in hand: its newest records first. */
static enum skald_rc
open_partition(struct skald_relay *r, struct skald_err *err)
{
	struct skald__recover *c = &r->recover;
	int64_t low = 0, high = 0;
	enum skald_rc rc;

	c->is_deep_enough = false;
	rc = skald_topic_offsets(r->publisher.cluster, topic_of(c), c->partition, ASK_MS,
		&low, &high, err);
	if (rc)
		return rc;
	c->first_end = high;
	if (low == high) {
		c->begin = c->end = c->at = low;
		c->is_chunk_open = true;
		c->is_deep_enough = true;
		return SKALD_OK;
	}
	return open_chunk(
		r, high - low > CHUNK_FIRST ? high - CHUNK_FIRST : low, high, err);
}

/* A chunk is read: further back, the next partition, the next topic. */
static enum skald_rc
move_on(struct skald_relay *r, struct skald_err *err)
{
	struct skald__recover *c = &r->recover;
	int64_t low = 0, high = 0, wanted = (c->end - c->begin) * CHUNK_GROWS;
	enum skald_rc rc;

	c->is_chunk_open = false;
	if (!c->is_deep_enough && c->first_end - c->begin < DEPTH_MAX) {
		rc = skald_topic_offsets(r->publisher.cluster, topic_of(c), c->partition,
			ASK_MS, &low, &high, err);
		if (rc || c->begin <= low)
			c->is_deep_enough = !rc;
		else
			return open_chunk(r,
				c->begin - low > wanted ? c->begin - wanted : low,
				c->begin, err);
		if (rc)
			return rc;
	}
	if (!c->is_deep_enough)
		skald_log(SKALD_LOG_WARN,
			"did not look further back than %d records, something may repeat "
			"source=%s topic=%s partition=%d",
			DEPTH_MAX, r->source, topic_of(c), (int)c->partition);
	if (++c->partition >= c->partition_count) {
		c->partition = 0;
		c->partition_count = 0;
		c->next_topic++;
	}
	return SKALD_OK;
}

/*
 * Nothing for a while: a slow network, or the partition has become shorter than it was (an
 * election that was not clean), and its end will not be met.
 */
static enum skald_rc
look_for_end(struct skald_relay *r, struct skald_err *err)
{
	struct skald__recover *c = &r->recover;
	int64_t low = 0, high = 0;
	enum skald_rc rc;

	c->idle_since_ms = skald_mono_ms();
	rc = skald_topic_offsets(r->publisher.cluster, topic_of(c), c->partition, ASK_MS,
		&low, &high, err);
	if (!rc && high < c->end)
		c->end = high;
	return rc;
}

static void
rest(struct skald__recover *c)
{
	struct pollfd fd = { .fd = skald_kafka_consumer_fd(c->reader), .events = POLLIN };

	(void)poll(&fd, 1, REST_MS);
}

static enum skald_rc
read_some(struct skald_relay *r, struct skald_err *err)
{
	struct skald__recover *c = &r->recover;
	struct skald_kafka_records *records = NULL;
	enum skald_rc rc;

	skald_kafka_consumer_serve(c->reader);
	if (c->is_stopped) {
		*err = c->why;
		c->is_stopped = c->is_chunk_open = false;
		return SKALD_RETRY;
	}
	rc = skald_kafka_records_take(c->reader, TAKE_RECORDS, &records, err);
	if (rc)
		return rc;
	for (unsigned i = 0; !rc && records && i < skald_kafka_records_count(records);
		i++) {
		const struct skald_kafka_record *record =
			skald_kafka_records_at(records, i);

		if (strcmp(record->topic, topic_of(c)) != 0 ||
			record->partition != c->partition || record->offset < c->at)
			continue; /* of a chunk before */
		if (record->offset < c->end)
			rc = look_at(r, record, err);
		c->at = record->offset + 1;
		c->idle_since_ms = skald_mono_ms();
	}
	if (!rc && skald_kafka_records_count(records) == 0)
		rest(c);
	skald_kafka_records_free(records);
	if (skald_kafka_consumer_met_end(c->reader, topic_of(c), c->partition) >= c->end)
		c->at = c->end;
	if (!rc && c->at < c->end && skald_mono_ms() - c->idle_since_ms > STALL_MS)
		rc = look_for_end(r, err);
	return rc;
}

static enum skald_rc
step(struct skald_relay *r, struct skald_err *err)
{
	struct skald__recover *c = &r->recover;

	if (c->is_chunk_open)
		return c->at >= c->end ? move_on(r, err) : read_some(r, err);
	if (c->partition_count == 0) {
		enum skald_rc rc = skald_topic_partitions(r->publisher.cluster,
			topic_of(c), ASK_MS, &c->partition_count, err);

		if (!rc && c->partition_count == 0)
			c->next_topic++; /* no such topic: nothing is there */
		return rc;
	}
	return open_partition(r, err);
}

enum skald_rc
skald__recover_step(struct skald_relay *r, bool *is_ready, struct skald_err *err)
{
	struct skald__recover *c = &r->recover;
	int64_t until_ms = skald_mono_ms() + STEP_MS;
	enum skald_rc rc = SKALD_OK;

	*is_ready = !c->is_tick || c->is_scanned;
	if (*is_ready)
		return SKALD_OK;
	rc = need_reader(r, err);
	if (!rc && !c->begin_at_ms) {
		unsigned ignored;

		rc = skald_cluster_brokers(r->publisher.cluster, ASK_MS, &ignored, err);
		if (!rc)
			c->begin_at_ms = skald_mono_ms() + SETTLE_MS;
	}
	if (!rc && skald_mono_ms() < c->begin_at_ms)
		return SKALD_OK;
	while (!rc && c->next_topic < skald_rows_count(c->topics) &&
		skald_mono_ms() < until_ms)
		rc = step(r, err);
	if (rc || c->next_topic < skald_rows_count(c->topics))
		return rc;
	if (c->found_count)
		qsort(c->found, c->found_count, sizeof(*c->found), compare);
	c->is_scanned = *is_ready = true;
	skald_kafka_consumer_close(c->reader);
	c->reader = NULL;
	skald_log(SKALD_LOG_INFO,
		"relay catches up: %zu records may be in the topics already source=%s",
		c->found_count, r->source);
	SKALD_FAILPOINT(recover_after_scan);
	return SKALD_OK;
}
