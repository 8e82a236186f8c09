/*
 * batch.c - records become deliveries; a range of them becomes one transaction:
 * handlers, dead letters, watermarks, commit.
 */
#include "consumers/own.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/digest.h"

/* --- taking ------------------------------------------------------------------------------- */

int64_t
skald__batch_digest(const struct skald_delivery *d)
{
	const struct skald_kafka_record *r = &d->record;
	struct skald_slice what = d->envelope.id.data ? d->envelope.id : r->value;
	uint64_t h = skald_hash64(r->key) ^ (uint64_t)r->timestamp_ms;

	h = (h << 23 | h >> 41) * 0x9E3779B97F4A7C15u;
	return (int64_t)(h ^ skald_hash64(what));
}

static unsigned
lane_of(const struct skald_delivery *d)
{
	char text[32];
	struct skald_slice what = d->record.key;

	if (!what.data) {
		int n = snprintf(text, sizeof(text), "%lld", (long long)d->record.offset);

		what = skald_slice_make(text, (size_t)n);
	}
	return skald__lane_of(skald_hash64(what), d->part->lanes.lane_count);
}

static void
kill_delivery(struct skald_consumer *c, unsigned i, const char *class,
	const struct skald_err *err)
{
	struct skald_delivery *d = &c->deliveries[i];

	d->base = VERDICT_DEAD;
	c->msgs[i].fate = RUN_DEAD_FATAL;
	skald__dead_note(d, class, err);
}

static void
read_record(struct skald_consumer *c, unsigned i, const struct skald_kafka_record *record)
{
	struct skald_delivery *d = &c->deliveries[i];
	struct skald_err err = SKALD_ERR_INIT;

	/* why is 250 bytes that only a failure reads */
	d->consumer = c;
	d->record = *record;
	d->part = skald__part_find(c, record->topic, record->partition);
	d->is_passed = d->has_inbox = d->is_replay = false;
	d->route = NULL;
	d->class = NULL;
	d->attempt = 1;
	d->emitted_count = 0;
	d->defer_ms = 0;
	d->first_failure_us = 0;
	c->msgs[i] = (struct run_msg){ 0 };
	d->base = d->verdict = VERDICT_GONE;
	if (!d->part || d->part->state != PART_ACTIVE)
		return;
	d->base = VERDICT_RUN;
	if (skald__envelope_read(record, &d->envelope, &err) ||
		skald__participant_find(c, d, &err)) {
		kill_delivery(c, i, "DECODE", &err);
	} else if (d->envelope.expires_at_us && !d->route &&
		   d->envelope.expires_at_us < skald_wall_us()) {
		(void)skald_fail(&err, SKALD_REJECT, "message", "expired",
			"ce_expirytime: is over");
		kill_delivery(c, i, "EXPIRED", &err);
	} else if ((d->envelope.replay_group.data &&
			   !skald_slice_is_text(
				   d->envelope.replay_group, c->conf.group)) ||
		   (c->wants && !c->wants(d->envelope.type, c->wants_ctx))) {
		d->base = VERDICT_SKIP;
	}
	d->verdict = d->base;
	d->lane.lane = lane_of(d);
	d->lane.offset = record->offset;
	d->lane.has_position = d->envelope.has_position;
	d->lane.stream = d->envelope.stream;
	d->lane.position = d->envelope.position;
	d->has_inbox = d->envelope.source.data && !d->route &&
		       (d->envelope.is_recovered ||
			       (c->conf.id_inbox && !d->envelope.has_position));
}

bool
skald__batch_take(struct skald_consumer *c)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;
	unsigned count;

	rc = skald_kafka_records_take(c->kafka, c->conf.batch_max, &c->records, &err);
	if (rc) {
		c->records = NULL;
		if (rc == SKALD_FATAL)
			skald__consumer_fatal(c, rc, &err);
		else
			skald__consumer_trouble(c, &err);
		return false;
	}
	count = skald_kafka_records_count(c->records);
	if (count == 0) {
		skald_kafka_records_free(c->records);
		c->records = NULL;
		return false;
	}
	for (unsigned i = 0; i < count; i++)
		read_record(c, i, skald_kafka_records_at(c->records, i));
	c->delivery_count = count;
	skald__batch_decide(c, 0);
	return true;
}

/* --- deciding ----------------------------------------------------------------------------- */

static enum lane_verdict
offer(struct skald_consumer *c, struct skald_delivery *d)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum lane_verdict verdict;

	while ((verdict = skald__lane_offer(&d->part->lanes, &d->lane)) == LANE_FULL)
		if (skald__part_grow(d->part, &err)) {
			skald__part_stop(c, d->part, err.text);
			return LANE_FULL;
		}
	return verdict;
}

static void
decide_one(struct skald_consumer *c, struct skald_delivery *d)
{
	struct skald__part *part = d->part;

	if (!part || part->state != PART_ACTIVE) {
		d->verdict = VERDICT_GONE;
		return;
	}
	if (part->check_offset >= 0) {
		skald__part_check(c, part, d);
		if (part->state != PART_ACTIVE) {
			d->verdict = VERDICT_GONE;
			return;
		}
	}
	d->verdict = d->base;
	d->is_passed = false;
	if (part->next <= d->record.offset)
		part->next = d->record.offset + 1;
	switch (offer(c, d)) {
	case LANE_NEW:
		break;
	case LANE_PASSED:
		d->is_passed = true;
		d->verdict = VERDICT_DUPLICATE;
		break;
	case LANE_REPEATED:
		d->verdict = VERDICT_DUPLICATE;
		break;
	case LANE_FULL:
		d->verdict = VERDICT_GONE;
		break;
	}
}

void
skald__batch_decide(struct skald_consumer *c, unsigned from)
{
	for (unsigned i = from; i < c->delivery_count; i++)
		if (c->deliveries[i].verdict != VERDICT_GONE)
			decide_one(c, &c->deliveries[i]);
	/* a partition may have stopped at a later record */
	for (unsigned i = from; i < c->delivery_count; i++)
		if (c->deliveries[i].part && c->deliveries[i].part->state != PART_ACTIVE)
			c->deliveries[i].verdict = VERDICT_GONE;
}

void
skald__batch_settled(struct skald_consumer *c)
{
	for (unsigned i = 0; i < c->delivery_count; i++) {
		const struct skald_delivery *d = &c->deliveries[i];
		bool is_last = i + 1 == c->delivery_count ||
			       c->deliveries[i + 1].part != d->part;

		if (!is_last || d->verdict == VERDICT_GONE ||
			d->record.offset <= d->part->seen_offset)
			continue;
		d->part->seen_offset = d->record.offset;
		d->part->seen_digest = skald__batch_digest(d);
		d->part->is_seen_dirty = true;
	}
	skald_kafka_records_free(c->records);
	c->records = NULL;
	c->delivery_count = 0;
}
