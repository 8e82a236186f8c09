/*
 * rows.c - results: cells as slices, numbers, times, ids.
 */
#include "sql/own.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

struct skald_rows {
	PGresult *res;
};

enum skald_rc
skald__rows_take(PGresult **res, struct skald_rows **rows, struct skald_err *err)
{
	struct skald_rows *taken;

	if (!rows) {
		PQclear(*res);
		*res = NULL;
		return SKALD_OK;
	}
	taken = malloc(sizeof(*taken));
	if (!taken) {
		PQclear(*res);
		*res = NULL;
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	}
	taken->res = *res;
	*res = NULL;
	*rows = taken;
	return SKALD_OK;
}

void
skald_rows_free(struct skald_rows *rows)
{
	if (!rows)
		return;
	PQclear(rows->res);
	free(rows);
}

unsigned
skald_rows_count(const struct skald_rows *rows)
{
	return (unsigned)PQntuples(rows->res);
}

unsigned
skald_rows_columns(const struct skald_rows *rows)
{
	return (unsigned)PQnfields(rows->res);
}

const char *
skald_rows_name(const struct skald_rows *rows, unsigned column)
{
	return PQfname(rows->res, (int)column);
}

int64_t
skald_rows_affected(const struct skald_rows *rows)
{
	const char *verb = PQcmdStatus(rows->res);
	long long n = 0;

	if (strncmp(verb, "INSERT", 6) != 0 && strncmp(verb, "UPDATE", 6) != 0 &&
		strncmp(verb, "DELETE", 6) != 0)
		return 0;
	if (!skald_slice_int64(skald_slice_text(PQcmdTuples(rows->res)), &n))
		return 0;
	return n;
}

struct skald_slice
skald_rows_get(const struct skald_rows *rows, unsigned row, unsigned column)
{
	if (PQgetisnull(rows->res, (int)row, (int)column))
		return SKALD_SLICE_NULL;
	return skald_slice_make(PQgetvalue(rows->res, (int)row, (int)column),
		(size_t)PQgetlength(rows->res, (int)row, (int)column));
}

static bool
is_binary(const struct skald_rows *rows, unsigned column)
{
	return PQfformat(rows->res, (int)column) == 1;
}

int64_t
skald_rows_int(
	const struct skald_rows *rows, unsigned row, unsigned column, int64_t fallback)
{
	struct skald_slice cell = skald_rows_get(rows, row, column);
	long long parsed;

	if (!cell.data)
		return fallback;
	if (is_binary(rows, column))
		return skald_cell_int(cell, fallback);
	return skald_slice_int64(cell, &parsed) ? (int64_t)parsed : fallback;
}

bool
skald_rows_bool(const struct skald_rows *rows, unsigned row, unsigned column)
{
	struct skald_slice cell = skald_rows_get(rows, row, column);

	if (is_binary(rows, column))
		return skald_cell_bool(cell);
	return cell.data && cell.bytes == 1 && cell.data[0] == 't';
}

bool
skald_rows_uuid(const struct skald_rows *rows, unsigned row, unsigned column,
	struct skald_uuid *out)
{
	struct skald_slice cell = skald_rows_get(rows, row, column);

	if (!cell.data)
		return false;
	if (is_binary(rows, column))
		return skald_cell_uuid(cell, out);
	return skald_uuid_parse(cell, out);
}

bool
skald_rows_time_us(
	const struct skald_rows *rows, unsigned row, unsigned column, int64_t *wall_us)
{
	return is_binary(rows, column) &&
	       skald_cell_time_us(skald_rows_get(rows, row, column), wall_us);
}

bool
skald_rows_bytea(const struct skald_rows *rows, unsigned row, unsigned column,
	struct skald_buf *dst)
{
	struct skald_slice cell = skald_rows_get(rows, row, column);

	if (!cell.data)
		return false;
	if (is_binary(rows, column)) {
		skald_buf_add_slice(dst, cell);
		return !dst->failed;
	}
	if (cell.bytes < 2 || cell.bytes % 2 != 0 || memcmp(cell.data, "\\x", 2) != 0)
		return false;
	for (size_t i = 2; i < cell.bytes; i += 2) {
		int high = skald_hex_digit(cell.data[i]),
		    low = skald_hex_digit(cell.data[i + 1]);
		char byte = (char)(high << 4 | low);

		if (high < 0 || low < 0)
			return false;
		skald_buf_add(dst, &byte, 1);
	}
	return !dst->failed;
}
