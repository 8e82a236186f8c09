/*
 * table.c - the rows of a query as a table that fits the terminal, or as JSON.
 *
 * A cell is made twice, once for its width and once for printing, rather than
 * kept: a list may be long.
 */
#include "cli/own.h"

#include <string.h>

#include "base/json.h"

#define COLUMNS_MAX    24
#define CELL_BYTES_MAX (64 * 1024)
#define GAP            2
#define ID_DIGITS      8

/* Hexadecimal fields without their leading zeros: what differs can be seen. */
static void
add_position(struct skald_buf *buf, struct skald_slice text)
{
	for (size_t at = 0; at < text.bytes;) {
		const char *dot = memchr(text.data + at, '.', text.bytes - at);
		size_t end = dot ? (size_t)(dot - text.data) : text.bytes;

		while (at + 1 < end && text.data[at] == '0')
			at++;
		skald_buf_add(buf, text.data + at, end - at);
		if (dot)
			skald_buf_add_text(buf, ".");
		at = end + 1;
	}
}

void
skald__cell(const struct skald__column *column, struct skald_slice value,
	struct skald_buf *cell)
{
	struct skald_buf bytes;
	long long number;
	char age[24];

	skald_buf_clear(cell);
	if (!value.data) {
		skald_buf_add_text(cell, "-");
		return;
	}
	switch (column->kind) {
	case SKALD_KIND_TIME:
		skald__age(value, age, sizeof(age));
		skald_buf_add_text(cell, age);
		break;
	case SKALD_KIND_BYTES:
		if (skald_slice_int64(value, &number)) {
			skald__size(number, age, sizeof(age));
			skald_buf_add_text(cell, age);
		}
		break;
	case SKALD_KIND_POSITION:
		add_position(cell, value);
		break;
	case SKALD_KIND_ID:
		if (value.bytes > ID_DIGITS)
			value.bytes = ID_DIGITS;
		skald_buf_add_slice(cell, value);
		break;
	case SKALD_KIND_HEX:
		skald_buf_init(&bytes, CELL_BYTES_MAX);
		skald__add_unhex(&bytes, value);
		skald__add_clean(cell, skald_buf_slice(&bytes));
		skald_buf_done(&bytes);
		break;
	case SKALD_KIND_TEXT:
	case SKALD_KIND_NUMBER:
	case SKALD_KIND_RAW:
		skald__add_clean(cell, value);
		break;
	}
}

/* --- widths ------------------------------------------------------------------------------- */

static unsigned
total_of(const struct skald__column *columns, const unsigned *widths, unsigned count)
{
	unsigned total = 0;

	for (unsigned c = 0; c < count; c++)
		if (columns[c].title)
			total += widths[c] + (total ? GAP : 0);
	return total;
}

/* Take from the widest that may give, until it fits or nobody may. */
static void
fit(const struct skald__column *columns, unsigned *widths, unsigned count, unsigned room)
{
	while (total_of(columns, widths, count) > room) {
		unsigned widest = count;

		for (unsigned c = 0; c < count; c++)
			if (columns[c].title && columns[c].columns_min &&
				widths[c] > columns[c].columns_min &&
				(widest == count || widths[c] > widths[widest]))
				widest = c;
		if (widest == count)
			return;
		widths[widest]--;
	}
}

static void
measure(const struct skald__column *columns, unsigned count,
	const struct skald_rows *rows, unsigned *widths, struct skald_buf *cell)
{
	for (unsigned c = 0; c < count; c++) {
		widths[c] = 0;
		if (!columns[c].title)
			continue;
		widths[c] = (unsigned)strlen(columns[c].title);
		for (unsigned r = 0; r < skald_rows_count(rows); r++) {
			unsigned wide;

			skald__cell(&columns[c], skald_rows_get(rows, r, c), cell);
			wide = skald__columns_of(skald_buf_slice(cell));
			if (wide > widths[c])
				widths[c] = wide;
		}
	}
}

/* --- printing -------------------------------------------------------------------------------- */

static bool
is_right(const struct skald__column *column)
{
	return column->kind == SKALD_KIND_NUMBER || column->kind == SKALD_KIND_BYTES ||
	       column->kind == SKALD_KIND_TIME;
}

static void
add_spaces(struct skald_buf *line, unsigned count)
{
	while (count--)
		skald_buf_add_text(line, " ");
}

static void
add_cell(struct skald_buf *line, const struct skald__column *column,
	struct skald_slice text, unsigned width)
{
	unsigned wide = skald__columns_of(text);
	unsigned fill = wide < width ? width - wide : 0;

	if (is_right(column))
		add_spaces(line, fill);
	skald__add_cut(line, text, width);
	if (!is_right(column))
		add_spaces(line, fill);
}

static void
put_line(const struct skald__cli *cli, struct skald_buf *line, bool is_title)
{
	while (line->bytes && line->data[line->bytes - 1] == ' ')
		line->data[--line->bytes] = '\0';
	if (is_title)
		printf("%s", skald__paint(cli, SKALD_PAINT_FAINT));
	skald__put(skald_buf_slice(line));
	printf("%s\n", is_title ? skald__unpaint(cli) : "");
}

static void
print_table(const struct skald__cli *cli, const struct skald__column *columns,
	unsigned count, const struct skald_rows *rows, unsigned indent)
{
	unsigned widths[COLUMNS_MAX];
	struct skald_buf line;
	struct skald_buf cell;

	skald_buf_init(&line, CELL_BYTES_MAX * 4);
	skald_buf_init(&cell, CELL_BYTES_MAX);
	measure(columns, count, rows, widths, &cell);
	fit(columns, widths, count, cli->width > indent ? cli->width - indent : 1);
	for (unsigned r = 0; r <= skald_rows_count(rows); r++) { /* 0: the titles */
		bool is_first = true;

		skald_buf_clear(&line);
		add_spaces(&line, indent);
		for (unsigned c = 0; c < count; c++) {
			if (!columns[c].title)
				continue;
			if (!is_first)
				add_spaces(&line, GAP);
			is_first = false;
			if (r == 0) {
				add_cell(&line, &columns[c],
					skald_slice_text(columns[c].title), widths[c]);
				continue;
			}
			skald__cell(&columns[c], skald_rows_get(rows, r - 1, c), &cell);
			add_cell(&line, &columns[c], skald_buf_slice(&cell), widths[c]);
		}
		put_line(cli, &line, r == 0);
	}
	skald_buf_done(&cell);
	skald_buf_done(&line);
}

static void
add_member(const struct skald__column *column, struct skald_slice value,
	struct skald_buf *out)
{
	struct skald_buf bytes;

	switch (column->kind) {
	case SKALD_KIND_NUMBER:
	case SKALD_KIND_BYTES:
	case SKALD_KIND_RAW:
		skald__json_add_raw(out, column->name, value);
		return;
	case SKALD_KIND_HEX:
		skald_buf_init(&bytes, SKALD__BYTES_MAX);
		skald__add_unhex(&bytes, value);
		skald__json_add(out, column->name,
			value.data ? skald_buf_slice(&bytes) : SKALD_SLICE_NULL);
		skald_buf_done(&bytes);
		return;
	case SKALD_KIND_TEXT:
	case SKALD_KIND_TIME:
	case SKALD_KIND_POSITION:
	case SKALD_KIND_ID:
		skald__json_add(out, column->name, value);
		return;
	}
}

void
skald__row_json(const struct skald__column *columns, unsigned column_count,
	const struct skald_rows *rows, unsigned row, struct skald_buf *out)
{
	skald_buf_add_text(out, "{");
	for (unsigned c = 0; c < column_count; c++) {
		if (columns[c].name)
			add_member(&columns[c], skald_rows_get(rows, row, c), out);
	}
	skald_buf_add_text(out, "}");
}

void
skald__rows_print(const struct skald__cli *cli, const struct skald__column *columns,
	unsigned column_count, const struct skald_rows *rows, unsigned indent)
{
	struct skald_buf line;

	if (!cli->is_json) {
		print_table(cli, columns, column_count, rows, indent);
		return;
	}
	skald_buf_init(&line, SKALD__BYTES_MAX);
	for (unsigned r = 0; r < skald_rows_count(rows); r++) {
		skald_buf_clear(&line);
		skald__row_json(columns, column_count, rows, r, &line);
		skald_buf_add_text(&line, "\n");
		skald__put(skald_buf_slice(&line));
	}
	skald_buf_done(&line);
}

void
skald__rows_count_print(
	const struct skald__cli *cli, const char *what, unsigned shown, int64_t total)
{
	if (cli->is_json)
		return;
	if (shown == 0) {
		printf("no %s\n", what);
		return;
	}
	printf("%s%u of %lld%s%s\n", skald__paint(cli, SKALD_PAINT_FAINT), shown,
		(long long)total, shown < total ? " (--limit 0 shows all)" : "",
		skald__unpaint(cli));
}
