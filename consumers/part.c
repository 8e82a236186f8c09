/*
 * part.c - the partitions that the group gave us, and what stops one of them.
 */
#include "consumers/own.h"

#include <stdlib.h>

#include "base/log.h"

#define MARKS_FIRST 64

struct skald__part *
skald__part_find(struct skald_consumer *c, const char *topic, int32_t partition)
{
	for (unsigned i = 0; i < c->part_count; i++)
		if (c->parts[i]->partition == partition &&
			strcmp(c->parts[i]->topic, topic) == 0)
			return c->parts[i];
	return NULL;
}

static void
part_free(struct skald__part *part)
{
	if (!part)
		return;
	free(part->lanes.marks);
	free(part->topic);
	free(part);
}

void
skald__part_free_all(struct skald_consumer *c)
{
	for (unsigned i = 0; i < c->part_count; i++)
		part_free(c->parts[i]);
	free(c->parts);
	c->parts = NULL;
	c->part_count = 0;
}

struct skald__part *
skald__part_add(struct skald_consumer *c, const char *topic, int32_t partition)
{
	struct skald__part *part = skald__part_find(c, topic, partition), **parts;

	if (part)
		return part;
	parts = realloc(c->parts, (c->part_count + 1) * sizeof(*parts));
	if (!parts)
		return NULL;
	c->parts = parts;
	part = calloc(1, sizeof(*part));
	if (!part)
		return NULL;
	part->topic = strdup(topic);
	if (!part->topic) {
		part_free(part);
		return NULL;
	}
	part->partition = partition;
	part->next = part->check_offset = part->seen_offset = part->ticked = part->end =
		-1;
	skald__lane_init(&part->lanes, 1);
	c->parts[c->part_count++] = part;
	return part;
}

void
skald__part_remove(struct skald_consumer *c, const char *topic, int32_t partition)
{
	for (unsigned i = 0; i < c->part_count; i++) {
		if (c->parts[i]->partition != partition ||
			strcmp(c->parts[i]->topic, topic) != 0)
			continue;
		part_free(c->parts[i]);
		c->parts[i] = c->parts[--c->part_count];
		return;
	}
}

enum skald_rc
skald__part_grow(struct skald__part *part, struct skald_err *err)
{
	unsigned room = part->lanes.mark_room ? part->lanes.mark_room * 2 : MARKS_FIRST;
	struct lane_mark *old = part->lanes.marks, *marks;

	if (room > SKALD__MARKS_MAX)
		return skald_fail(err, SKALD_REJECT, "skald", "SK007",
			"ce_stream: more than %u histories in one partition",
			SKALD__MARKS_MAX / 4 * 3);
	marks = calloc(room, sizeof(*marks));
	if (!marks)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	skald__lane_grow(&part->lanes, marks, room);
	free(old);
	return SKALD_OK;
}

/* --- stopping -------------------------------------------------------------------------------- */

void
skald__part_count(struct skald_consumer *c)
{
	unsigned stopped = 0;

	for (unsigned i = 0; i < c->part_count; i++)
		stopped += c->parts[i]->state == PART_STOPPED;
	atomic_store(c->count.stopped, stopped);
	(void)pthread_mutex_lock(&c->lock);
	c->health.stopped_count = stopped;
	(void)pthread_mutex_unlock(&c->lock);
}

void
skald__part_lose(struct skald_consumer *c, struct skald__part *part, int64_t claim_at_ms)
{
	part->state = PART_PENDING;
	part->claim_at_ms = claim_at_ms;
	for (unsigned i = 0; i < c->delivery_count; i++)
		if (c->deliveries[i].part == part)
			c->deliveries[i].base = c->deliveries[i].verdict = VERDICT_GONE;
}

void
skald__part_stop(struct skald_consumer *c, struct skald__part *part, const char *why)
{
	struct skald_param params[5];
	struct skald_err err = SKALD_ERR_INIT;
	char partition[24], term[24];

	skald__part_lose(c, part, INT64_MAX);
	part->state = PART_STOPPED;
	skald_log(SKALD_LOG_ERROR,
		"partition stopped: %s; once that is understood, begin it anew: SELECT "
		"skald.operator_act(action => 'consumer.reset', target => '%s/%s/%d', "
		"reason => '...') group=%s topic=%s partition=%d",
		why, c->conf.group, part->topic, (int)part->partition, c->conf.group,
		part->topic, (int)part->partition);
	params[0] = skald_param_text(c->conf.group);
	params[1] = skald_param_text(part->topic);
	params[2] = skald_param_int(part->partition, partition);
	params[3] = skald_param_int(part->term, term);
	params[4] = skald_param_text(why);
	if (c->sql && skald_sql_query(c->sql,
			      "SELECT skald.consumer_stop($1, $2, $3::int, "
			      "$4::bigint, $5)",
			      params, 5, false, NULL, &err))
		skald__consumer_trouble(c, &err);
	if (c->kafka)
		skald_kafka_consumer_stop(c->kafka, part->topic, part->partition);
	skald__part_count(c);
}

/* What the database calls stopped goes on. */
void
skald__part_unstop(struct skald_consumer *c, struct skald__part *part)
{
	struct skald_param params[4];
	struct skald_err err = SKALD_ERR_INIT;
	char partition[24], term[24];

	part->clears_stop = false;
	params[0] = skald_param_text(c->conf.group);
	params[1] = skald_param_text(part->topic);
	params[2] = skald_param_int(part->partition, partition);
	params[3] = skald_param_int(part->term, term);
	if (skald_sql_query(c->sql,
		    "SELECT skald.consumer_stop($1, $2, $3::int, $4::bigint, NULL)",
		    params, 4, false, NULL, &err))
		skald__consumer_trouble(c, &err);
	else
		skald_log(SKALD_LOG_INFO,
			"partition goes on group=%s topic=%s partition=%d", c->conf.group,
			part->topic, (int)part->partition);
}

/* The watermark of offsets starts again at `begin`; positions stay. */
enum skald_rc
skald__part_restart(struct skald_consumer *c, struct skald__part *part, int64_t begin,
	struct skald_err *err)
{
	struct skald_param params[5];
	char partition[24], term[24], offset[24];
	enum skald_rc rc;

	params[0] = skald_param_text(c->conf.group);
	params[1] = skald_param_text(part->topic);
	params[2] = skald_param_int(part->partition, partition);
	params[3] = skald_param_int(part->term, term);
	params[4] = skald_param_int(begin, offset);
	rc = skald_sql_query(c->sql,
		"SELECT skald.consumer_restart($1, $2, $3::int, $4::bigint, $5::bigint)",
		params, 5, false, NULL, err);
	if (rc)
		return rc;
	for (unsigned lane = 0; lane < part->lanes.lane_count; lane++)
		skald__lane_set(&part->lanes, lane, begin);
	part->seen_offset = part->check_offset = -1;
	part->next = begin;
	part->clears_stop = false;
	skald_log(SKALD_LOG_WARN,
		"the dev broker has another log: begin anew group=%s topic=%s "
		"partition=%d offset=%lld",
		c->conf.group, part->topic, (int)part->partition, (long long)begin);
	return SKALD_OK;
}

void
skald__part_check(struct skald_consumer *c, struct skald__part *part,
	const struct skald_delivery *d)
{
	struct skald_err err = SKALD_ERR_INIT;
	int64_t lo, hi;
	bool is_same = d->record.offset != part->check_offset ||
		       skald__batch_digest(d) == part->check_digest;

	part->check_offset = -1; /* a gap, left by compaction, cannot be checked */
	if (is_same) {
		if (part->clears_stop)
			skald__part_unstop(c, part);
		return;
	}
	if (!c->is_dev) {
		skald__part_stop(c, part,
			"the topic was recreated: another record has the offset of the "
			"last "
			"one applied");
		return;
	}
	if (skald_kafka_consumer_offsets(c->kafka, part->topic, part->partition,
		    SKALD__OFFSETS_MS, &lo, &hi, &err) ||
		skald__part_restart(c, part, lo, &err))
		skald__consumer_trouble(c, &err); /* the next claim finds it again */
	skald__part_lose(c, part, 0);
}
