/*
 * marks.c - the arguments of consumer_advance: which lanes and positions a range
 * of the batch moves, each once.
 */
#include "consumers/own.h"

enum {
	A_TOPIC,
	A_PARTITION,
	A_LANE,
	A_TERM,
	A_BEFORE,
	A_AFTER,
	A_MARK_AT,
	A_STREAM,
	A_POSITION,
	A_COUNT
};

static bool
moves(const struct skald_delivery *d)
{
	return d->verdict != VERDICT_GONE && !d->is_passed;
}

bool
skald__marks_are_any(const struct skald_consumer *c, unsigned lo, unsigned hi)
{
	for (unsigned i = lo; i < hi; i++)
		if (moves(&c->deliveries[i]))
			return true;
	return false;
}

/* The lanes of one partition that the range moves; *count is the ordinal of the last one. */
static void
add_lanes(struct skald_consumer *c, struct skald__part *part, unsigned lo, unsigned hi,
	unsigned *count)
{
	int64_t after[LANES_MAX];

	for (unsigned lane = 0; lane < part->lanes.lane_count; lane++) {
		after[lane] = -1;
		part->ordinals[lane] = 0;
	}
	for (unsigned i = lo; i < hi; i++) {
		const struct skald_delivery *d = &c->deliveries[i];

		if (d->part == part && moves(d) &&
			d->record.offset >= after[d->lane.lane])
			after[d->lane.lane] = d->record.offset + 1;
	}
	for (unsigned lane = 0; lane < part->lanes.lane_count; lane++) {
		if (after[lane] < 0)
			continue;
		part->ordinals[lane] = ++*count;
		skald_array_add_text(&c->args[A_TOPIC], skald_slice_text(part->topic));
		skald_array_add_int(&c->args[A_PARTITION], part->partition);
		skald_array_add_int(&c->args[A_LANE], lane);
		skald_array_add_int(&c->args[A_TERM], part->term);
		skald_array_add_int(&c->args[A_BEFORE], part->lanes.applied[lane]);
		skald_array_add_int(&c->args[A_AFTER], after[lane]);
	}
}

/* Positions rise within (stream, lane), so the last new record of each holds the highest. */
static void
add_positions(struct skald_consumer *c, unsigned lo, unsigned hi)
{
	char stream[SKALD_STREAM_TEXT_BYTES + 8], text[SKALD_POSITION_TEXT_BYTES];
	unsigned *kept = c->scratch, kept_count = 0;

	for (unsigned i = hi; i-- > lo;) {
		const struct skald_delivery *d = &c->deliveries[i], *k = NULL;

		if (!moves(d) || !d->lane.has_position)
			continue;
		for (unsigned n = 0; n < kept_count && !k; n++) {
			const struct skald_delivery *other = &c->deliveries[kept[n]];

			if (other->part == d->part && other->lane.lane == d->lane.lane &&
				other->lane.stream == d->lane.stream)
				k = other;
		}
		if (k && skald_position_compare(k->lane.position, d->lane.position) >= 0)
			continue;
		if (k) { /* the later one was a repetition: this one is higher */
			for (unsigned n = 0; n < kept_count; n++)
				if (&c->deliveries[kept[n]] == k)
					kept[n] = i;
			continue;
		}
		kept[kept_count++] = i;
	}
	for (unsigned n = 0; n < kept_count; n++) {
		const struct skald_delivery *d = &c->deliveries[kept[n]];

		(void)snprintf(stream, sizeof(stream), "%016llx",
			(unsigned long long)d->lane.stream);
		skald_position_format(d->lane.position, text);
		skald_array_add_int(&c->args[A_MARK_AT], d->part->ordinals[d->lane.lane]);
		skald_array_add_text(&c->args[A_STREAM], skald_slice_text(stream));
		skald_array_add_text(&c->args[A_POSITION], skald_slice_text(text));
	}
}

enum skald_rc
skald__marks_send(
	struct skald_consumer *c, unsigned lo, unsigned hi, struct skald_err *err)
{
	static const char statement[] =
		"SELECT skald.consumer_advance($1, $2, $3::text[], $4::int[], $5::int[],"
		" $6::bigint[], $7::bigint[], $8::bigint[], $9::int[], $10::text[],"
		" $11::text[])";
	struct skald_param params[2 + A_COUNT];
	unsigned count = 0;

	for (unsigned i = 0; i < A_COUNT; i++) {
		skald_buf_clear(&c->args[i]);
		skald_array_begin(&c->args[i]);
	}
	for (unsigned i = 0; i < c->part_count; i++)
		if (c->parts[i]->state == PART_ACTIVE)
			add_lanes(c, c->parts[i], lo, hi, &count);
	add_positions(c, lo, hi);
	params[0] = skald_param_text(c->conf.group);
	params[1] = skald_param_text(c->batch_token);
	for (unsigned i = 0; i < A_COUNT; i++) {
		skald_array_end(&c->args[i]);
		if (c->args[i].failed)
			return skald_fail(
				err, SKALD_RETRY, "skald", "53200", "out of memory");
		params[2 + i] = skald_param_text(c->args[i].data);
	}
	return skald_pipe_send(c->sql, statement, params, 2 + A_COUNT, false, err);
}
