/*
 * lease.c - which partitions of replies and commands are ours, from where they are
 * read, and since when they are known to be applied up to their end.
 */
#include "saga/own.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

#define ENDS_MS    500
#define OFFSETS_MS 2000

struct saga__part *
skald__saga_part(struct skald_orchestrator *o, const char *topic, int32_t partition)
{
	for (unsigned i = 0; i < o->part_count; i++)
		if (o->parts[i].partition == partition &&
			strcmp(o->parts[i].topic, topic) == 0)
			return &o->parts[i];
	return NULL;
}

/* --- caught up --------------------------------------------------------------------------------- */

/* The clock was read before: ask where the ends are now, and see later when they are reached. */
static void
ask_ends(struct skald_orchestrator *o)
{
	struct skald_kafka_partition *ends;
	struct skald_err err = SKALD_ERR_INIT;
	unsigned count = 0;

	if (!o->kafka || !o->clock_us || o->wants_assign || !o->part_count)
		return;
	ends = calloc(o->part_count, sizeof(*ends));
	for (unsigned i = 0; ends && i < o->part_count; i++)
		if (o->parts[i].is_reply && o->parts[i].check_end < 0)
			ends[count++] =
				(struct skald_kafka_partition){ .topic =
									o->parts[i].topic,
					.partition = o->parts[i].partition };
	if (count && skald_kafka_consumer_ends(o->kafka, ends, count, ENDS_MS, &err))
		skald_log_err(SKALD_LOG_DEBUG, &err, "could not see the ends of replies");
	else
		for (unsigned i = 0; i < count; i++) {
			struct saga__part *p =
				skald__saga_part(o, ends[i].topic, ends[i].partition);

			p->check_end = ends[i].offset;
			p->check_clock_us = o->clock_us;
		}
	free(ends);
}

/* Arrays of the partitions that reached the end they had. */
static void
add_caught(struct skald_orchestrator *o, struct saga__set *set)
{
	skald__saga_set_begin(set, 4);
	for (unsigned i = 0; i < o->part_count; i++) {
		struct saga__part *p = &o->parts[i];

		if (p->check_end < 0 || p->done < p->check_end)
			continue;
		skald_array_add_text(&set->columns[0], skald_slice_text(p->topic));
		skald_array_add_int(&set->columns[1], p->partition);
		skald_array_add_int(&set->columns[2], p->term);
		skald_array_add_int(&set->columns[3], p->check_clock_us);
		p->check_end = -1;
	}
	for (unsigned i = 0; i < 4; i++)
		skald_array_end(&set->columns[i]);
}

/* --- the beat ---------------------------------------------------------------------------------- */

static void
drop_in_hand(struct skald_orchestrator *o)
{
	skald_kafka_records_free(o->records);
	o->records = NULL;
	skald__saga_replay_drop(o);
	o->msg_count = o->msg_next = 0;
}

static bool
is_same(struct skald_orchestrator *o, const struct skald_rows *rows)
{
	if (skald_rows_count(rows) != o->part_count)
		return false;
	for (unsigned i = 0; i < o->part_count; i++) {
		const struct saga__part *p = &o->parts[i];

		if (!skald_slice_is_text(skald_rows_get(rows, i, 0), p->topic) ||
			skald_rows_int(rows, i, 1, -1) != p->partition ||
			skald_rows_int(rows, i, 2, -1) != p->term)
			return false;
	}
	return true;
}

/* Another set of partitions: what is in hand is read again by whoever has it now. */
static enum skald_rc
adopt(struct skald_orchestrator *o, const struct skald_rows *rows, struct skald_err *err)
{
	unsigned count = skald_rows_count(rows);
	struct saga__part *parts = calloc(count ? count : 1, sizeof(*parts));

	if (!parts)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	drop_in_hand(o);
	for (unsigned i = 0; i < count; i++) {
		struct saga__part *p = &parts[i];

		p->is_reply =
			skald_slice_is_text(skald_rows_get(rows, i, 0), o->reply_topic);
		p->topic = p->is_reply ? o->reply_topic : SAGA__COMMAND_TOPIC;
		p->partition = (int32_t)skald_rows_int(rows, i, 1, 0);
		p->term = skald_rows_int(rows, i, 2, 0);
		p->done = p->next = skald_rows_int(rows, i, 3, 0);
		p->hinted = -1;
		p->check_end = -1;
	}
	free(o->parts);
	o->parts = parts;
	o->part_count = count;
	o->wants_assign = true;
	atomic_store(o->count.partitions, count);
	skald_log(SKALD_LOG_INFO, "orchestrator serves partitions=%u installation=%s",
		count, o->installation);
	return SKALD_OK;
}

static enum skald_rc
take_rows(struct skald_orchestrator *o, const struct skald_rows *rows,
	struct skald_err *err)
{
	if (skald_rows_count(rows))
		o->clock_us = skald_rows_int(rows, 0, 4, o->clock_us);
	if (!is_same(o, rows))
		return adopt(o, rows, err);
	for (unsigned i = 0; i < o->part_count; i++) {
		int64_t done = skald_rows_int(rows, i, 3, 0);

		/* a commit whose answer was lost had happened */
		if (done > o->parts[i].done)
			o->parts[i].done = o->parts[i].next = done;
	}
	return SKALD_OK;
}

enum skald_rc
skald__saga_beat(struct skald_orchestrator *o, struct skald_err *err)
{
	struct saga__set *set = &o->done;
	struct skald_rows *rows = NULL;
	struct skald_buf topics;
	enum skald_rc rc;

	ask_ends(o);
	add_caught(o, set);
	skald_buf_init(&topics, 4096);
	skald_array_begin(&topics);
	skald_array_add_text(&topics, skald_slice_text(o->reply_topic));
	skald_array_add_text(&topics, SKALD_SLICE_LIT(SAGA__COMMAND_TOPIC));
	skald_array_end(&topics);
	struct skald_param params[] = { skald_param_text(o->owner),
		skald_param_text(topics.data), skald_param_text(set->columns[0].data),
		skald_param_text(set->columns[1].data),
		skald_param_text(set->columns[2].data),
		skald_param_text(set->columns[3].data) };

	rc = skald_sql_query(o->sql,
		"SELECT topic, partition, term, done, clock_us FROM"
		" skald.orchestrator_beat($1, $2::text[], $3::text[], $4::int[],"
		" $5::bigint[], $6::bigint[])",
		params, 6, false, &rows, err);
	skald_buf_done(&topics);
	if (!rc)
		rc = take_rows(o, rows, err);
	skald_rows_free(rows);
	return rc;
}

/* --- reading ----------------------------------------------------------------------------------- */

/* Behind the beginning or beyond the end: the topic is another one, or was cut. A reply
   read twice is stale, so from the beginning is safe. */
static enum skald_rc
check_place(struct skald_orchestrator *o, struct saga__part *p, struct skald_err *err)
{
	char partition[24], term[24], done[24];
	int64_t lo = 0, hi = 0;
	enum skald_rc rc;

	rc = skald_kafka_consumer_offsets(
		o->kafka, p->topic, p->partition, OFFSETS_MS, &lo, &hi, err);
	if (rc || (p->done >= lo && p->done <= hi))
		return rc;
	skald_log(p->done == 0 || o->is_dev ? SKALD_LOG_INFO : SKALD_LOG_ERROR,
		"reading from the beginning: offset %lld is not in the topic topic=%s"
		" partition=%d lo=%lld hi=%lld",
		(long long)p->done, p->topic, (int)p->partition, (long long)lo,
		(long long)hi);
	p->done = p->next = lo;
	struct skald_param params[] = { skald_param_text(o->owner),
		skald_param_text(p->topic), skald_param_int(p->partition, partition),
		skald_param_int(p->term, term), skald_param_int(p->done, done) };

	return skald_sql_query(o->sql,
		"SELECT skald.orchestrator_done($1, ARRAY[$2], ARRAY[$3::int],"
		" ARRAY[$4::bigint], ARRAY[$5::bigint])",
		params, 5, false, NULL, err);
}

enum skald_rc
skald__saga_assign(struct skald_orchestrator *o, struct skald_err *err)
{
	struct skald_kafka_partition *places;
	enum skald_rc rc = SKALD_OK;
	unsigned count = 0;

	drop_in_hand(o);
	places = calloc(o->part_count ? o->part_count : 1, sizeof(*places));
	if (!places)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	for (unsigned i = 0; i < o->part_count && !rc; i++) {
		struct saga__part *p = &o->parts[i];

		if (p->hold_until_ms)
			continue;
		rc = check_place(o, p, err);
		places[count++] =
			(struct skald_kafka_partition){ p->topic, p->partition, p->done };
	}
	if (!rc)
		rc = skald_kafka_consumer_assign(o->kafka, places, count, err);
	free(places);
	if (!rc)
		o->wants_assign = false;
	return rc;
}

void
skald__saga_hint(struct skald_orchestrator *o)
{
	struct skald_kafka_partition *places;
	unsigned count = 0;

	if (!o->kafka || !o->part_count)
		return;
	places = calloc(o->part_count, sizeof(*places));
	for (unsigned i = 0; places && i < o->part_count; i++) {
		struct saga__part *p = &o->parts[i];

		if (p->hinted == p->done)
			continue;
		p->hinted = p->done;
		places[count++] =
			(struct skald_kafka_partition){ p->topic, p->partition, p->done };
	}
	if (count) {
		SKALD_FAILPOINT(orchestrator_before_offset);
		skald_kafka_consumer_commit(o->kafka, places, count);
	}
	free(places);
}
