/*
 * feed.c - what brings rows to the publisher: one place that says which is next,
 * and what its position is.
 */
#include "outbox/own.h"

#include "base/assert.h"

/* --- the next row ---------------------------------------------------------------------------- */

void
skald__feed_peek(struct skald_relay *r, struct skald__row *row)
{
	const struct skald__reader *reader = &r->tick.reader;
	struct skald__place place;

	row->is_recovered = false;
	row->position = (struct skald_position){ r->tick.epoch, (uint64_t)r->tick.number,
		(uint32_t)r->window.next };
	if (r->release.left) {
		if (r->core.is_wal)
			row->position = skald__wal_place_of_released(r);
		skald__release_peek(r, row);
		row->is_recovered = !r->core.is_wal && r->recover.is_tick;
		return;
	}
	if (r->core.is_wal) {
		skald__wal_peek(r, row);
		return;
	}
	SKALD_ASSERT(reader->rows && reader->next < skald_rows_count(reader->rows));
	place = reader->order[reader->next];
	for (unsigned c = 0; c < SKALD__COLUMN_COUNT; c++)
		row->cells[c] = skald_rows_get(reader->rows, place.row, c);
	row->mark = place.id;
	row->is_recovered = r->recover.is_tick;
}

void
skald__feed_pop(struct skald_relay *r)
{
	if (r->release.left) {
		if (r->core.is_wal)
			skald__wal_pop_released(r);
		skald__release_pop(r);
	} else if (r->core.is_wal) {
		skald__wal_pop(r);
	} else {
		r->tick.reader.next++;
	}
}

bool
skald__feed_is_empty(const struct skald_relay *r)
{
	const struct skald__reader *reader = &r->tick.reader;

	if (r->release.left)
		return false;
	if (r->core.is_wal)
		return r->wal.count == 0;
	return !reader->rows || reader->next == skald_rows_count(reader->rows);
}

struct skald_position
skald__feed_place(const struct skald_relay *r, uint64_t ordinal)
{
	if (r->core.is_wal)
		return r->wal.places[ordinal & (SKALD__WINDOW_SLOTS - 1)];
	return (struct skald_position){ r->tick.epoch, (uint64_t)r->tick.number,
		(uint32_t)ordinal };
}
