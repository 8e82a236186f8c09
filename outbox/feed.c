/*
 * feed.c - what brings rows to the publisher: one place that says which is next,
 * and what its position is.
 */
#include "outbox/own.h"

#include <string.h>

#include "base/assert.h"

/* --- cells ---------------------------------------------------------------------------------- */

#define PG_EPOCH_US INT64_C(946684800000000) /* 2000-01-01 in us since 1970 */

/* Big-endian, eight bytes: bigint, xid8, timestamptz. */
static bool
read_int64(struct skald_slice cell, int64_t *value)
{
	const unsigned char *p = (const unsigned char *)cell.data;
	uint64_t n = 0;

	if (!cell.data || cell.bytes != 8)
		return false;
	for (size_t i = 0; i < 8; i++)
		n = n << 8 | p[i];
	*value = (int64_t)n;
	return true;
}

int64_t
skald__row_int(const struct skald__row *row, enum skald__column column)
{
	int64_t value = 0;

	return read_int64(row->cells[column], &value) ? value : 0;
}

bool
skald__row_uuid(
	const struct skald__row *row, enum skald__column column, struct skald_uuid *out)
{
	struct skald_slice cell = row->cells[column];

	if (!cell.data || cell.bytes != sizeof(out->bytes))
		return false;
	memcpy(out->bytes, cell.data, sizeof(out->bytes));
	return true;
}

bool
skald__row_time_us(
	const struct skald__row *row, enum skald__column column, int64_t *wall_us)
{
	int64_t since_2000;

	if (!read_int64(row->cells[column], &since_2000))
		return false;
	if (since_2000 == INT64_MIN || since_2000 > INT64_MAX - PG_EPOCH_US)
		return false; /* -infinity, infinity */
	*wall_us = since_2000 + PG_EPOCH_US;
	return true;
}

/* --- the next row ---------------------------------------------------------------------------- */

void
skald__feed_peek(struct skald_relay *r, struct skald__row *row)
{
	const struct skald__reader *reader = &r->tick.reader;

	row->position = (struct skald_position){ r->tick.epoch, (uint64_t)r->tick.number,
		(uint32_t)r->window.next };
	if (r->release.left) {
		skald__release_peek(r, row);
		return;
	}
	SKALD_ASSERT(reader->rows && reader->next < skald_rows_count(reader->rows));
	for (unsigned c = 0; c < SKALD__COLUMN_COUNT; c++)
		row->cells[c] = skald_rows_get(reader->rows, reader->next, c);
	row->mark = skald__row_int(row, SKALD__COL_ID);
}

void
skald__feed_pop(struct skald_relay *r)
{
	if (r->release.left)
		skald__release_pop(r);
	else
		r->tick.reader.next++;
}

bool
skald__feed_is_empty(const struct skald_relay *r)
{
	const struct skald__reader *reader = &r->tick.reader;

	if (r->release.left)
		return false;
	return !reader->rows || reader->next == skald_rows_count(reader->rows);
}
