/*
 * cmd_trace.c - `skald trace CORRELATION_ID`: one timeline of everything that
 * bears the id, in every database of the configuration.
 */
#include "cli/own.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define PLACE_WIDTH_MAX  20 /* topic or saga/step; longer ones push on */
#define SOURCE_WIDTH_MAX 12

/* clang-format off */
/* at, what, where (topic or saga/step), detail, id: of outbox, sagas, dead letters. */
static const char timeline[] =
	"SELECT " SKALD__UTC("t.at") ", t.what, t.place, t.detail, t.id FROM ("
	" SELECT o.at, 'message' AS what, o.topic AS place, o.type AS detail,"
	"  o.message_id::text AS id, o.id AS n FROM skald.outbox AS o"
	"  WHERE o.correlation_id = $1"
	" UNION ALL SELECT e.at, 'saga ' || e.kind, s.name || coalesce('/' || e.step, ''),"
	"  concat_ws(' ', e.op, 'try ' || e.attempt, e.outcome), coalesce(e.message_id,"
	"  e.saga_id::text), e.seq FROM skald.saga_events AS e JOIN skald.sagas AS s"
	"  ON s.id = e.saga_id WHERE s.correlation_id = $1"
	" UNION ALL SELECT d.at, 'dead letter', d.topic, d.class || ' ' || d.message,"
	"  d.id::text, 0 FROM skald.dead_letters AS d WHERE d.correlation_id = $1"
	" UNION ALL SELECT a.at, a.action, a.target, concat_ws(' ', a.actor, a.reason),"
	"  d.id::text, 0 FROM skald.audit AS a JOIN skald.dead_letters AS d"
	"  ON a.target = d.id::text WHERE d.correlation_id = $1"
	") AS t ORDER BY t.at, t.n";
/* clang-format on */

struct line {
	char at[SKALD_TIME_TEXT_BYTES];
	char source[64];
	size_t index; /* as the databases gave them: rows of one instant keep their order */
	struct skald_buf cells[4]; /* what, place, detail, id */
};
struct lines {
	struct line *items;
	size_t count, room;
	unsigned source_width, place_width; /* 0: no column of sources */
};

static int
by_time(const void *a, const void *b)
{
	const struct line *x = a;
	const struct line *y = b;
	int order = strcmp(x->at, y->at);

	return order ? order : x->index < y->index ? -1 : x->index > y->index;
}

static bool
add_rows(struct lines *lines, const char *source, const struct skald_rows *rows)
{
	for (unsigned r = 0; r < skald_rows_count(rows); r++) {
		struct line *line;

		if (lines->count == lines->room) {
			size_t room = lines->room ? lines->room * 2 : 64;
			struct line *items = realloc(lines->items, room * sizeof(*items));

			if (!items)
				return false;
			lines->items = items;
			lines->room = room;
		}
		line = &lines->items[lines->count];
		line->index = lines->count++;
		(void)skald_slice_copy(
			skald_rows_get(rows, r, 0), line->at, sizeof(line->at));
		(void)snprintf(line->source, sizeof(line->source), "%s", source);
		for (unsigned c = 0; c < 4; c++) {
			skald_buf_init(&line->cells[c], 16 * 1024);
			skald_buf_add_slice(
				&line->cells[c], skald_rows_get(rows, r, c + 1));
		}
	}
	return true;
}

static void
add_padded(struct skald_buf *out, struct skald_slice text, unsigned width)
{
	struct skald_buf clean;
	unsigned columns;

	skald_buf_init(&clean, 64 * 1024);
	skald__add_clean(&clean, text);
	columns = skald__columns_of(skald_buf_slice(&clean));
	skald_buf_add_slice(out, skald_buf_slice(&clean));
	if (width)
		skald_buf_addf(
			out, "%*s  ", columns < width ? (int)(width - columns) : 0, "");
	skald_buf_done(&clean);
}

static void
print_line(
	const struct skald__cli *cli, const struct lines *lines, const struct line *line)
{
	static const char *const names[] = { "what", "place", "detail", "id" };
	struct skald_buf clean, out;

	skald_buf_init(&clean, 128 * 1024);
	skald_buf_init(&out, 256 * 1024);
	if (cli->is_json) {
		skald_buf_add_text(&out, "{");
		skald__json_add(&out, "at", skald_slice_text(line->at));
		skald__json_add(&out, "source", skald_slice_text(line->source));
		for (unsigned c = 0; c < 4; c++)
			skald__json_add(&out, names[c], skald_buf_slice(&line->cells[c]));
		skald_buf_add_text(&out, "}");
	} else {
		const char *what = line->cells[0].data ? line->cells[0].data : "";

		/* HH:MM:SS.mmm of the stamp */
		skald_buf_add(&clean, line->at + 11, 12);
		if (lines->source_width)
			skald_buf_addf(&clean, "  %-*.*s", (int)lines->source_width,
				(int)lines->source_width, line->source);
		/* its place says that it is a saga's */
		skald_buf_addf(&clean, "  %-12s ",
			strncmp(what, "saga ", 5) == 0 ? what + 5 : what);
		add_padded(&clean, skald_buf_slice(&line->cells[1]),
			line->cells[2].bytes ? lines->place_width : 0);
		skald__add_clean(&clean, skald_buf_slice(&line->cells[2]));
		skald__add_cut(&out, skald_buf_slice(&clean), cli->width);
	}
	skald_buf_add_text(&out, "\n");
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
	skald_buf_done(&clean);
}

static unsigned
wider(unsigned width, size_t columns, unsigned max)
{
	return columns > max ? max : columns > width ? (unsigned)columns : width;
}

static void
print_lines(const struct skald__cli *cli, struct lines *lines, bool is_many)
{
	const char *day = "";

	qsort(lines->items, lines->count, sizeof(*lines->items), by_time);
	for (size_t i = 0; i < lines->count; i++) {
		const struct line *line = &lines->items[i];

		lines->place_width =
			wider(lines->place_width, line->cells[1].bytes, PLACE_WIDTH_MAX);
		if (is_many)
			lines->source_width = wider(lines->source_width,
				strlen(line->source), SOURCE_WIDTH_MAX);
	}
	for (size_t i = 0; i < lines->count; i++) {
		const struct line *line = &lines->items[i];

		if (!cli->is_json && strncmp(day, line->at, 10) != 0)
			printf("%s%.10s UTC%s\n", skald__paint(cli, SKALD_PAINT_FAINT),
				line->at, skald__unpaint(cli));
		day = line->at;
		print_line(cli, lines, line);
	}
}

static void
done(struct lines *lines)
{
	for (size_t i = 0; i < lines->count; i++)
		for (unsigned c = 0; c < 4; c++)
			skald_buf_done(&lines->items[i].cells[c]);
	free(lines->items);
}

enum skald__exit
skald__cmd_trace(struct skald__cli *cli)
{
	const struct skald_param params[] = { skald_param_text(cli->args[0]) };
	struct skald__places places;
	struct lines lines = { 0 };
	enum skald__exit status;

	status = skald__places_find(cli, true, &places);
	for (unsigned i = 0; i < places.count && !status; i++) {
		struct skald_rows *rows = NULL;
		struct skald_sql *sql = NULL;

		status = skald__place_open(cli, &places.items[i], &sql);
		if (!status)
			status = skald__query(cli, sql, timeline, params, 1, &rows);
		if (!status && !add_rows(&lines, places.items[i].name, rows))
			status = skald__fail(cli, SKALD_EXIT_NO, "memory", NULL, NULL,
				"out of memory");
		skald_rows_free(rows);
		skald_sql_close(sql);
	}
	if (!status)
		print_lines(cli, &lines, places.count > 1);
	if (!status && !lines.count)
		status = skald__fail(cli, SKALD_EXIT_NO, "not_found", "CORRELATION_ID",
			NULL, "%s: nothing bears this correlation id", cli->args[0]);
	done(&lines);
	return status;
}
