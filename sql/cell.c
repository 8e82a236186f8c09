/*
 * cell.c - cells in PostgreSQL's binary format, of a result or of a stream.
 */
#include "sql/own.h"

#include <string.h>

#define PG_EPOCH_US INT64_C(946684800000000) /* 2000-01-01 in us since 1970 */

/* Big-endian two's complement of 1, 2, 4 or 8 bytes. */
static bool
read_int(struct skald_slice cell, int64_t *value)
{
	const unsigned char *p = (const unsigned char *)cell.data;
	uint64_t n = 0;

	if (!p || (cell.bytes != 1 && cell.bytes != 2 && cell.bytes != 4 &&
			  cell.bytes != 8))
		return false;
	if (p[0] & 0x80 && cell.bytes > 1)
		n = UINT64_MAX;
	for (size_t i = 0; i < cell.bytes; i++)
		n = n << 8 | p[i];
	*value = (int64_t)n;
	return true;
}

int64_t
skald_cell_int(struct skald_slice cell, int64_t fallback)
{
	int64_t value;

	return read_int(cell, &value) ? value : fallback;
}

bool
skald_cell_bool(struct skald_slice cell)
{
	return cell.data && cell.bytes == 1 && cell.data[0] != 0;
}

bool
skald_cell_uuid(struct skald_slice cell, struct skald_uuid *out)
{
	if (!cell.data || cell.bytes != sizeof(out->bytes))
		return false;
	memcpy(out->bytes, cell.data, sizeof(out->bytes));
	return true;
}

bool
skald__time_us(int64_t since_2000, int64_t *wall_us)
{
	if (since_2000 == INT64_MIN || since_2000 > INT64_MAX - PG_EPOCH_US)
		return false; /* -infinity, infinity */
	*wall_us = since_2000 + PG_EPOCH_US;
	return true;
}

bool
skald_cell_time_us(struct skald_slice cell, int64_t *wall_us)
{
	int64_t since_2000;

	return cell.bytes == 8 && read_int(cell, &since_2000) &&
	       skald__time_us(since_2000, wall_us);
}

bool
skald_cell_jsonb(struct skald_slice cell, struct skald_slice *text)
{
	if (!cell.data || cell.bytes < 2 || cell.data[0] != 1)
		return false;
	*text = skald_slice_make(cell.data + 1, cell.bytes - 1);
	return true;
}
