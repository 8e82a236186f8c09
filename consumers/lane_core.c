/*
 * lane_core.c - what a consumer remembers instead of a row per message.
 *
 *   partition   0 1 2 3 4 5 6 7 8        keys hash to lanes; lane 0 did 0 2 3,
 *   lane 0      x . x x . . o . .        lane 1 did 1 4 5: applied = {4, 6},
 *   lane 1      . x . . x x . o o        reading starts at 4, and 5 is passed over
 *
 * Two watermarks per lane, because each stops what the other lets through: the
 * offset stops a record that Kafka delivers again (same offset), the position
 * one that the relay published again (same position, new offset).
 *
 * L1  applied[lane] and applied positions never fall, but by a claim (lane_set).
 * L2  seen >= applied, for offsets and positions.
 * L3  A record is NEW at most once between two forgets.
 * L4  forget restores seen = applied: a dropped batch leaves no trace.
 * L5  start() <= every offset that was never committed nor bumped.
 */
#include "consumers/lane_core.h"

#include <string.h>

#include "base/assert.h"

void
skald__lane_init(struct lane_core *c, unsigned lane_count)
{
	SKALD_ASSERT(lane_count >= 1 && lane_count <= LANES_MAX);
	memset(c, 0, sizeof(*c));
	c->lane_count = lane_count;
}

unsigned
skald__lane_of(uint64_t key_hash, unsigned lane_count)
{
	return (unsigned)(key_hash % lane_count);
}

/* The entry of (stream, lane), or a free one, or NULL when three quarters are used. */
static struct lane_mark *
find_mark(struct lane_core *c, uint64_t stream, unsigned lane)
{
	uint64_t h = (stream + lane * 0x9E3779B97F4A7C15u) * 0xD6E8FEB86659FD93u;
	unsigned at;

	if (!c->mark_room)
		return NULL;
	at = (unsigned)(h >> 32) & (c->mark_room - 1);
	while (c->marks[at].is_used) {
		if (c->marks[at].stream == stream && c->marks[at].lane == lane)
			return &c->marks[at];
		at = (at + 1) & (c->mark_room - 1);
	}
	return c->mark_count >= c->mark_room / 4 * 3 ? NULL : &c->marks[at];
}

static struct lane_mark *
take_mark(struct lane_core *c, uint64_t stream, unsigned lane)
{
	struct lane_mark *mark = find_mark(c, stream, lane);

	if (mark && !mark->is_used) {
		mark->is_used = true;
		mark->stream = stream;
		mark->lane = lane;
		c->mark_count++;
	}
	return mark;
}

void
skald__lane_grow(struct lane_core *c, struct lane_mark *marks, unsigned room)
{
	struct lane_mark *old = c->marks;
	unsigned old_room = c->mark_room;

	SKALD_ASSERT(room > old_room && (room & (room - 1)) == 0);
	memset(marks, 0, room * sizeof(*marks));
	c->marks = marks;
	c->mark_room = room;
	for (unsigned i = 0; i < old_room; i++)
		if (old[i].is_used)
			*find_mark(c, old[i].stream, old[i].lane) = old[i];
}

void
skald__lane_set(struct lane_core *c, unsigned lane, int64_t done)
{
	SKALD_ASSERT(lane < c->lane_count);
	c->applied[lane] = done;
	c->seen[lane] = done;
}

bool
skald__lane_set_position(struct lane_core *c, unsigned lane, uint64_t stream,
	struct skald_position position)
{
	struct lane_mark *mark;

	SKALD_ASSERT(lane < c->lane_count);
	mark = take_mark(c, stream, lane);
	if (!mark)
		return false;
	mark->has_applied = true;
	mark->has_seen = true;
	mark->applied = position;
	mark->seen = position;
	return true;
}

enum lane_verdict
skald__lane_offer(struct lane_core *c, const struct lane_record *r)
{
	struct lane_mark *mark;

	SKALD_ASSERT(r->lane < c->lane_count);
	if (r->offset < c->seen[r->lane])
		return LANE_PASSED;
	if (r->has_position) {
		mark = find_mark(c, r->stream, r->lane);
		if (!mark)
			return LANE_FULL;
		if (mark->has_seen &&
			skald_position_compare(r->position, mark->seen) <= 0) {
			c->seen[r->lane] = r->offset + 1;
			return LANE_REPEATED;
		}
		mark = take_mark(c, r->stream, r->lane);
		mark->has_seen = true;
		mark->seen = r->position;
	}
	c->seen[r->lane] = r->offset + 1;
	return LANE_NEW;
}

void
skald__lane_forget(struct lane_core *c)
{
	for (unsigned i = 0; i < c->lane_count; i++)
		c->seen[i] = c->applied[i];
	for (unsigned i = 0; i < c->mark_room; i++) {
		c->marks[i].has_seen = c->marks[i].has_applied;
		c->marks[i].seen = c->marks[i].applied;
	}
}

void
skald__lane_commit(struct lane_core *c, const struct lane_record *r)
{
	struct lane_mark *mark;

	SKALD_ASSERT(r->lane < c->lane_count);
	if (c->applied[r->lane] <= r->offset)
		c->applied[r->lane] = r->offset + 1;
	if (c->seen[r->lane] < c->applied[r->lane])
		c->seen[r->lane] = c->applied[r->lane];
	if (!r->has_position)
		return;
	mark = find_mark(c, r->stream, r->lane);
	SKALD_ASSERT(mark && mark->is_used); /* it was offered */
	if (!mark->has_applied || skald_position_compare(r->position, mark->applied) > 0)
		mark->applied = r->position;
	mark->has_applied = true;
	if (!mark->has_seen || skald_position_compare(mark->seen, mark->applied) < 0)
		mark->seen = mark->applied;
	mark->has_seen = true;
}

void
skald__lane_bump(struct lane_core *c, int64_t frontier)
{
	for (unsigned i = 0; i < c->lane_count; i++) {
		if (c->applied[i] < frontier)
			c->applied[i] = frontier;
		if (c->seen[i] < c->applied[i])
			c->seen[i] = c->applied[i];
	}
}

int64_t
skald__lane_start(const struct lane_core *c)
{
	int64_t start = c->applied[0];

	for (unsigned i = 1; i < c->lane_count; i++)
		if (c->applied[i] < start)
			start = c->applied[i];
	return start;
}
