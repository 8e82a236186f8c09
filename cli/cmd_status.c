/*
 * cmd_status.c - `skald status [--watch]`: every source on one screen, and what
 * needs somebody at its end.
 */
#include "cli/own.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"

#define WATCH_MS      1000
#define HEARTBEAT_MS  30000 /* older: nobody relays there (it beats while idle, too) */
#define ATTENTION_MAX 16

const struct skald__flag skald__status_flags[] = {
	{ "--watch", NULL, "again every second, until interrupted" },
	{ NULL, NULL, NULL },
};

static const struct skald__column relay_columns[] = {
	{ "mode", "RELAY", SKALD_KIND_TEXT, 0 },
	{ "owner", "LEADER", SKALD_KIND_TEXT, 12 },
	{ "position", "POSITION", SKALD_KIND_POSITION, 12 },
	{ "lag_rows", "WAITING", SKALD_KIND_NUMBER, 0 },
	{ "lag_seconds", "LAG (s)", SKALD_KIND_NUMBER, 0 },
	{ "parked_keys", "PARKED", SKALD_KIND_NUMBER, 0 },
	{ "heartbeat_at", "HEARTBEAT", SKALD_KIND_TIME, 0 },
	{ "stream", NULL, SKALD_KIND_TEXT, 0 },
	{ "epoch", NULL, SKALD_KIND_NUMBER, 0 },
	{ "term", NULL, SKALD_KIND_NUMBER, 0 },
	{ "slot", NULL, SKALD_KIND_TEXT, 0 },
	{ "slot_status", NULL, SKALD_KIND_TEXT, 0 },
	{ "lag_bytes", NULL, SKALD_KIND_BYTES, 0 },
	{ "wal_held_bytes", NULL, SKALD_KIND_BYTES, 0 },
	{ "safe_wal_size", NULL, SKALD_KIND_BYTES, 0 },
	{ "spill_bytes", NULL, SKALD_KIND_BYTES, 0 },
	{ "parked_messages", NULL, SKALD_KIND_NUMBER, 0 },
	{ "recovering", NULL, SKALD_KIND_RAW, 0 },
	{ "slot_dropped", NULL, SKALD_KIND_TEXT, 0 },
	{ "slot_dropped_at", NULL, SKALD_KIND_TIME, 0 },
	{ "epoch_wanted", NULL, SKALD_KIND_RAW, 0 },
};
enum {
	RELAY_ROWS = 3,
	RELAY_PARKED = 5,
	RELAY_HEARTBEAT = 6,
	RELAY_SLOT = 10,
	RELAY_SLOT_STATUS = 11,
	RELAY_LAG_BYTES = 12,
	RELAY_HELD = 13,
	RELAY_SAFE = 14,
	RELAY_SPILL = 15,
	RELAY_PARKED_MESSAGES = 16,
	RELAY_RECOVERING = 17,
	RELAY_DROPPED = 18,
	RELAY_DROPPED_AT = 19,
	RELAY_EPOCH_WANTED = 20,
	RELAY_COLUMNS = 21
};
#define SAFE_LOW \
	(256 * 1024 * 1024) /* of WAL until the slot is lost: minutes, on a busy server */

/* The same row's second line, when there is a slot. */
static const struct skald__column slot_columns[RELAY_COLUMNS] = {
	[RELAY_SLOT] = { NULL, "SLOT", SKALD_KIND_TEXT, 12 },
	[RELAY_SLOT_STATUS] = { NULL, "STATE", SKALD_KIND_TEXT, 0 },
	[RELAY_LAG_BYTES] = { NULL, "LAG", SKALD_KIND_BYTES, 0 },
	[RELAY_HELD] = { NULL, "WAL HELD", SKALD_KIND_BYTES, 0 },
	[RELAY_SAFE] = { NULL, "SAFE", SKALD_KIND_BYTES, 0 },
	[RELAY_SPILL] = { NULL, "SPILLED", SKALD_KIND_BYTES, 0 },
};

static const struct skald__column consumer_columns[] = {
	{ "consumer_group", "CONSUMERS", SKALD_KIND_TEXT, 12 },
	{ "topic", "TOPIC", SKALD_KIND_TEXT, 12 },
	{ "partitions", "PARTITIONS", SKALD_KIND_NUMBER, 0 },
	{ "lanes", NULL, SKALD_KIND_NUMBER, 0 },
	{ "lag", "LAG", SKALD_KIND_NUMBER, 0 },
	{ "owners", "OWNERS", SKALD_KIND_NUMBER, 0 },
	{ "stopped", "STOPPED", SKALD_KIND_NUMBER, 0 },
	{ "stopped_reason", NULL, SKALD_KIND_TEXT, 0 },
	{ "stopped_partitions", NULL, SKALD_KIND_TEXT, 0 },
};
enum { CONSUMER_GROUP = 0, CONSUMER_TOPIC = 1, CONSUMER_STOPPED = 6, CONSUMER_WHY = 7 };

static const struct skald__column letter_columns[] = {
	{ "consumer_group", "DEAD LETTERS", SKALD_KIND_TEXT, 12 },
	{ "open", "OPEN", SKALD_KIND_NUMBER, 0 },
	{ "dead", "DEAD", SKALD_KIND_NUMBER, 0 },
	{ "replaying", "REPLAYING", SKALD_KIND_NUMBER, 0 },
	{ "oldest_at", "OLDEST", SKALD_KIND_TIME, 0 },
	{ "newest_at", "NEWEST", SKALD_KIND_TIME, 0 },
};
enum { LETTER_GROUP = 0, LETTER_DEAD = 2 };

static const struct skald__column saga_columns[] = {
	{ "name", "SAGAS", SKALD_KIND_TEXT, 12 },
	{ "running", "RUNNING", SKALD_KIND_NUMBER, 0 },
	{ "compensating", "COMPENSATING", SKALD_KIND_NUMBER, 0 },
	{ "stuck", "STUCK", SKALD_KIND_NUMBER, 0 },
	{ "overdue", "OVERDUE", SKALD_KIND_NUMBER, 0 },
	{ "oldest_at", "OLDEST", SKALD_KIND_TIME, 0 },
	{ "due", NULL, SKALD_KIND_NUMBER, 0 },
};
enum { SAGA_STUCK = 3, SAGA_DUE = 6 };
#define DUE_LATE       "10 s" /* nobody looks at sagas that are due for longer */
#define COUNT(columns) ((unsigned)(sizeof(columns) / sizeof((columns)[0])))

struct look { /* at one source */
	const struct skald__place *place;
	struct skald_rows *relay;
	struct skald_rows *consumers;
	struct skald_rows *letters;
	struct skald_rows *sagas; /* open ones, by definition */
	struct skald_rows *stuck;
	enum skald_rc rc;
	enum skald__exit status; /* of it */
	struct skald_err err; /* why not, if rc says so */
};

struct screen {
	struct look looks[SKALD__PLACES_MAX];
	struct skald_sql *sessions[SKALD__PLACES_MAX]; /* kept while watching */
	struct skald__places places;
	char attention[ATTENTION_MAX][256];
	unsigned attention_count;
};

static void attend(struct screen *screen, const char *fmt, ...) SKALD_PRINTF(2, 3);

static void
attend(struct screen *screen, const char *fmt, ...)
{
	va_list args;

	if (screen->attention_count == ATTENTION_MAX)
		return;
	va_start(args, fmt);
	(void)vsnprintf(screen->attention[screen->attention_count++],
		sizeof(screen->attention[0]), fmt, args);
	va_end(args);
}

/* --- looking --------------------------------------------------------------------------------- */

static enum skald_rc
read_sagas(struct look *look, struct skald_sql *sql)
{
	enum skald_rc rc;

	rc = skald_sql_query(sql,
		"SELECT name, (count(*) FILTER (WHERE status = 'running'))::text,"
		" (count(*) FILTER (WHERE status = 'compensating'))::text,"
		" (count(*) FILTER (WHERE status = 'stuck'))::text,"
		" (count(*) FILTER (WHERE overdue))::text," SKALD__UTC(
			"min(created_at)") ","
					   " (count(*) FILTER (WHERE due_at < "
					   "clock_timestamp() -"
					   " interval '" DUE_LATE "'))::text"
					   " FROM skald.sagas WHERE status <> 'finished' "
					   "GROUP BY 1 ORDER BY 1",
		NULL, 0, false, &look->sagas, &look->err);
	if (!rc)
		rc = skald_sql_query(sql,
			"SELECT name || '/' || key, reason ->> 'step',"
			" reason ->> 'code' FROM skald.sagas WHERE status = 'stuck'"
			" ORDER BY updated_at LIMIT 5", /* the others are counted */
			NULL, 0, false, &look->stuck, &look->err);
	return rc;
}

/* clang-format off */
static const char relay_statement[] =
	"SELECT mode, owner, position, lag_rows::text, lag_seconds::text,"
	" parked_keys::text, " SKALD__UTC("heartbeat_at") ", stream, epoch::text, term::text,"
	" slot, slot_status, lag_bytes::text, wal_held_bytes::text, safe_wal_size::text,"
	" spill_bytes::text, parked_messages::text, recovering::text, slot_dropped,"
	" " SKALD__UTC("slot_dropped_at") ", epoch_wanted::text FROM skald.relays";
/* clang-format on */

static enum skald_rc
read_rows(struct look *look, struct skald_sql *sql)
{
	struct skald_param all[2] = { skald_param_text(""), skald_param_text("") };
	enum skald_rc rc;

	rc = skald_sql_query(
		sql, relay_statement, NULL, 0, false, &look->relay, &look->err);
	if (!rc)
		rc = skald__consumers_by_topic(sql, all, &look->consumers, &look->err);
	if (!rc)
		rc = skald_sql_query(sql,
			"SELECT consumer_group, count(*)::text,"
			" (count(*) FILTER (WHERE state = 'dead'))::text,"
			" (count(*) FILTER (WHERE state <> 'dead'))::text,"
			" " SKALD__UTC("min(at)") ", " SKALD__UTC(
				"max(at)") " FROM skald.dead_letters"
					   " WHERE state IN ('dead', 'requested', "
					   "'claimed')"
					   " GROUP BY 1 ORDER BY 1",
			NULL, 0, false, &look->letters, &look->err);
	return rc ? rc : read_sagas(look, sql);
}

static void
forget(struct look *look)
{
	skald_rows_free(look->relay);
	skald_rows_free(look->consumers);
	skald_rows_free(look->letters);
	skald_rows_free(look->sagas);
	skald_rows_free(look->stuck);
	look->relay = look->consumers = look->letters = NULL;
	look->sagas = look->stuck = NULL;
}

static void
look_at(const struct skald__cli *cli, struct look *look, struct skald_sql **sql)
{
	enum skald_rc rc = SKALD_OK;

	forget(look);
	if (*sql && !skald_sql_is_open(*sql)) {
		skald_sql_close(*sql);
		*sql = NULL;
	}
	if (!*sql)
		rc = skald__place_try(cli, look->place, sql, &look->err);
	if (!rc)
		rc = read_rows(look, *sql);
	look->rc = rc;
	look->status = rc ? skald__status_of(rc, &look->err) : SKALD_EXIT_DONE;
	if (rc)
		forget(look);
}

/* --- what needs somebody ---------------------------------------------------------------------- */

static const char *
source_flag(const struct look *look)
{
	return strcmp(look->place->name, "main") ? " --source " : "";
}

static const char *
source_name(const struct look *look)
{
	return strcmp(look->place->name, "main") ? look->place->name : "";
}

/* Streaming from WAL, or why not. */
static void
judge_slot(struct screen *screen, const struct look *look)
{
	struct skald_slice mode = skald_rows_get(look->relay, 0, 0);
	struct skald_slice state = skald_rows_get(look->relay, 0, RELAY_SLOT_STATUS);
	struct skald_slice dropped = skald_rows_get(look->relay, 0, RELAY_DROPPED);
	int64_t safe = skald_rows_int(look->relay, 0, RELAY_SAFE, INT64_MAX);
	const char *name = look->place->name;
	char text[24];

	/* the relay's own word for a change that was asked for: nobody need see to it */
	if (dropped.data && strncmp(dropped.data, "mode poll", 9) != 0) {
		skald__age(skald_rows_get(look->relay, 0, RELAY_DROPPED_AT), text,
			sizeof(text));
		attend(screen, "%s: polls since %s, does not stream: %s", name, text,
			dropped.data);
	}
	if (skald_slice_is_text(mode, "wal") && state.data &&
		!skald_slice_is_text(state, "active"))
		attend(screen, "%s: the slot is %s: skald doctor", name, state.data);
	else if (!skald_slice_is_text(mode, "wal") && state.data && dropped.data)
		attend(screen, "%s: a slot holds WAL, nobody streams: skald doctor",
			name);
	if (safe < SAFE_LOW) {
		skald__size(safe > 0 ? safe : 0, text, sizeof(text));
		attend(screen, "%s: the slot is lost after %s more of WAL", name, text);
	}
	if (skald_slice_is_text(skald_rows_get(look->relay, 0, RELAY_RECOVERING), "true"))
		attend(screen,
			"%s: catches up: what is not known to be published is looked up "
			"in "
			"the topics",
			name);
	if (skald_slice_is_text(
		    skald_rows_get(look->relay, 0, RELAY_EPOCH_WANTED), "true"))
		attend(screen, "%s: a new epoch is wanted", name);
}

static void
judge_relay(struct screen *screen, const struct look *look)
{
	struct skald_slice beat = skald_rows_get(look->relay, 0, RELAY_HEARTBEAT);
	int64_t waiting = skald_rows_int(look->relay, 0, RELAY_ROWS, 0);
	int64_t parked = skald_rows_int(look->relay, 0, RELAY_PARKED, 0);
	int64_t at_us = 0;

	if (!beat.data)
		attend(screen, "%s: never relayed yet: start skaldd", look->place->name);
	else if (skald_time_parse(beat, &at_us) &&
		 skald_wall_us() - at_us > (int64_t)HEARTBEAT_MS * 1000)
		attend(screen,
			"%s: no relay is alive, %lld rows wait: is skaldd running?",
			look->place->name, (long long)waiting);
	if (parked)
		attend(screen,
			"%s: %lld keys are parked, %s messages: skald outbox parked%s%s",
			look->place->name, (long long)parked,
			skald_rows_get(look->relay, 0, RELAY_PARKED_MESSAGES).data,
			source_flag(look), source_name(look));
	judge_slot(screen, look);
}

static void
judge_sagas(struct screen *screen, const struct look *look)
{
	const char *flag = source_flag(look);
	const char *name = source_name(look);
	int64_t stuck = 0;
	int64_t due = 0;

	for (unsigned r = 0; r < skald_rows_count(look->sagas); r++) {
		stuck += skald_rows_int(look->sagas, r, SAGA_STUCK, 0);
		due += skald_rows_int(look->sagas, r, SAGA_DUE, 0);
	}
	if (due)
		attend(screen,
			"%s: %lld sagas are due, nobody drives them: is skaldd running?",
			look->place->name, (long long)due);
	for (unsigned r = 0; r < skald_rows_count(look->stuck); r++) {
		struct skald_slice step = skald_rows_get(look->stuck, r, 1);
		struct skald_slice code = skald_rows_get(look->stuck, r, 2);

		attend(screen, "stuck%s%.24s, %.24s: skald saga show %s%s%s",
			step.data ? " at " : "", step.data ? step.data : "",
			code.data ? code.data : "no reason",
			skald_rows_get(look->stuck, r, 0).data, flag, name);
	}
	if (stuck > skald_rows_count(look->stuck))
		attend(screen, "%lld sagas are stuck: skald saga ls --status stuck%s%s",
			(long long)stuck, flag, name);
}

static void
judge(struct screen *screen, const struct look *look)
{
	if (look->status) {
		attend(screen, "%s: could not be looked at", look->place->name);
		return;
	}
	if (skald_rows_count(look->relay))
		judge_relay(screen, look);
	judge_sagas(screen, look);
	for (unsigned r = 0; r < skald_rows_count(look->consumers); r++)
		if (skald_rows_int(look->consumers, r, CONSUMER_STOPPED, 0) > 0)
			attend(screen, "%s on %s stopped: %s",
				skald_rows_get(look->consumers, r, CONSUMER_GROUP).data,
				skald_rows_get(look->consumers, r, CONSUMER_TOPIC).data,
				skald_rows_get(look->consumers, r, CONSUMER_WHY).data);
	for (unsigned r = 0; r < skald_rows_count(look->letters); r++) {
		int64_t dead = skald_rows_int(look->letters, r, LETTER_DEAD, 0);

		if (dead)
			attend(screen, "%lld dead: skald dlq ls --group %s%s%s",
				(long long)dead,
				skald_rows_get(look->letters, r, LETTER_GROUP).data,
				source_flag(look), source_name(look));
	}
}

/* --- printing --------------------------------------------------------------------------------- */

static void
print_section(const struct skald__cli *cli, const struct skald__column *columns,
	unsigned count, const struct skald_rows *rows, const char *none)
{
	if (!skald_rows_count(rows)) {
		printf("  %s%s%s\n", skald__paint(cli, SKALD_PAINT_FAINT), none,
			skald__unpaint(cli));
		return;
	}
	skald__rows_print(cli, columns, count, rows, 2);
}

static void
print_look(const struct skald__cli *cli, const struct look *look)
{
	struct skald_buf line;

	printf("\n%s%s%s\n", skald__paint(cli, SKALD_PAINT_STRONG), look->place->name,
		skald__unpaint(cli));
	if (look->status) {
		skald_buf_init(&line, 65536);
		skald__add_cut(&line, skald_slice_text(look->err.text), cli->width - 2);
		printf("  %s%s%s\n", skald__paint(cli, SKALD_PAINT_BAD),
			line.data ? line.data : "", skald__unpaint(cli));
		skald_buf_done(&line);
		return;
	}
	print_section(cli, relay_columns, COUNT(relay_columns), look->relay,
		"no relay: skald db migrate");
	if (skald_rows_count(look->relay) &&
		skald_rows_get(look->relay, 0, RELAY_SLOT).data)
		skald__rows_print(cli, slot_columns, COUNT(slot_columns), look->relay, 2);
	print_section(cli, consumer_columns, COUNT(consumer_columns), look->consumers,
		"no consumers");
	print_section(cli, letter_columns, COUNT(letter_columns), look->letters,
		"no open dead letters");
	print_section(
		cli, saga_columns, COUNT(saga_columns), look->sagas, "no open sagas");
}

static void
print_screen(const struct skald__cli *cli, const struct screen *screen)
{
	char now[SKALD_TIME_TEXT_BYTES];
	struct skald_buf line;

	skald_time_format(skald_wall_us(), now);
	printf("%sskald %s%s%*.10s %.8s UTC\n", skald__paint(cli, SKALD_PAINT_STRONG),
		SKALD_VERSION, skald__unpaint(cli),
		(int)(cli->width - 6 - strlen(SKALD_VERSION) - 13), now, now + 11);
	for (unsigned i = 0; i < screen->places.count; i++)
		print_look(cli, &screen->looks[i]);
	printf("\n");
	if (!screen->attention_count)
		printf("%sall is well%s\n", skald__paint(cli, SKALD_PAINT_GOOD),
			skald__unpaint(cli));
	skald_buf_init(&line, 65536);
	for (unsigned i = 0; i < screen->attention_count; i++) {
		struct skald_buf clean;

		skald_buf_init(&clean, 65536);
		skald_buf_clear(&line);
		skald__add_clean(&clean, skald_slice_text(screen->attention[i]));
		skald__add_cut(&line, skald_buf_slice(&clean), cli->width - 2);
		printf("%s!%s %s\n", skald__paint(cli, SKALD_PAINT_WARN),
			skald__unpaint(cli), line.data ? line.data : "");
		skald_buf_done(&clean);
	}
	skald_buf_done(&line);
}

static void
add_list(struct skald_buf *out, const char *name, const struct skald__column *columns,
	unsigned count, const struct skald_rows *rows)
{
	skald_json_add_name(out, name);
	skald_buf_add_text(out, "[");
	for (unsigned r = 0; r < skald_rows_count(rows); r++) {
		if (r)
			skald_buf_add_text(out, ",");
		skald__row_json(columns, count, rows, r, out);
	}
	skald_buf_add_text(out, "]");
}

static void
add_look(struct skald_buf *out, const struct look *look)
{
	skald_buf_add_text(out, "{");
	skald_json_add_member(out, "source", skald_slice_text(look->place->name));
	skald__json_add(out, "error",
		look->status ? skald_slice_text(look->err.text) : SKALD_SLICE_NULL);
	skald_json_add_name(out, "relay");
	if (look->relay && skald_rows_count(look->relay))
		skald__row_json(relay_columns, COUNT(relay_columns), look->relay, 0, out);
	else
		skald_buf_add_text(out, "null");
	if (!look->status) {
		add_list(out, "consumers", consumer_columns, COUNT(consumer_columns),
			look->consumers);
		add_list(out, "dead_letters", letter_columns, COUNT(letter_columns),
			look->letters);
		add_list(out, "sagas", saga_columns, COUNT(saga_columns), look->sagas);
	}
	skald_buf_add_text(out, "}");
}

static void
print_screen_json(const struct screen *screen)
{
	char now[SKALD_TIME_TEXT_BYTES];
	struct skald_buf out;

	skald_time_format(skald_wall_us(), now);
	skald_buf_init(&out, SKALD__BYTES_MAX);
	skald_buf_add_text(&out, "{");
	skald_json_add_member(&out, "at", skald_slice_text(now));
	skald__json_add_raw(
		&out, "ok", skald_slice_text(screen->attention_count ? "false" : "true"));
	skald_json_add_name(&out, "sources");
	skald_buf_add_text(&out, "[");
	for (unsigned i = 0; i < screen->places.count; i++) {
		if (i)
			skald_buf_add_text(&out, ",");
		add_look(&out, &screen->looks[i]);
	}
	skald_buf_add_text(&out, "]");
	skald_json_add_name(&out, "attention");
	skald_buf_add_text(&out, "[");
	for (unsigned i = 0; i < screen->attention_count; i++) {
		if (i)
			skald_buf_add_text(&out, ",");
		skald_json_add_string(&out, skald_slice_text(screen->attention[i]));
	}
	skald_buf_add_text(&out, "]}\n");
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
}

/* --- the command -------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void
on_interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

/* All reached: 0; some: 3; none: why. */
static enum skald__exit
show(const struct skald__cli *cli, struct screen *screen, bool is_watching)
{
	enum skald__exit worst = SKALD_EXIT_DONE;
	unsigned good_count = 0;

	screen->attention_count = 0;
	for (unsigned i = 0; i < screen->places.count; i++) {
		struct look *look = &screen->looks[i];

		look_at(cli, look, &screen->sessions[i]);
		judge(screen, look);
		if (look->status)
			worst = look->status;
		else
			good_count++;
	}
	if (is_watching && !cli->is_json && cli->is_color)
		printf("\033[H\033[J"); /* a terminal: the same place again */
	if (cli->is_json)
		print_screen_json(screen);
	else
		print_screen(cli, screen);
	fflush(stdout);
	if (!worst)
		return SKALD_EXIT_DONE;
	return good_count ? SKALD_EXIT_PART : worst;
}

enum skald__exit
skald__cmd_status(struct skald__cli *cli)
{
	struct sigaction action = { .sa_handler = on_interrupt };
	bool is_watching = skald__flag_is_given(cli, "--watch");
	struct screen *screen = calloc(1, sizeof(*screen));
	enum skald__exit status;

	if (!screen)
		return skald__fail(
			cli, SKALD_EXIT_NO, "memory", NULL, NULL, "out of memory");
	status = skald__places_find(cli, true, &screen->places);
	if (status)
		goto out;
	for (unsigned i = 0; i < screen->places.count; i++)
		screen->looks[i].place = &screen->places.items[i];
	if (is_watching)
		sigaction(SIGINT, &action, NULL);
	do {
		status = show(cli, screen, is_watching);
		if (is_watching && !interrupted)
			(void)poll(NULL, 0, WATCH_MS);
	} while (is_watching && !interrupted);
	if (is_watching)
		status = SKALD_EXIT_DONE;
	else if (status && status != SKALD_EXIT_PART)
		status = skald__fail_err(
			cli, screen->looks[0].rc, &screen->looks[0].err, NULL);
out:
	for (unsigned i = 0; i < screen->places.count; i++) {
		forget(&screen->looks[i]);
		skald_sql_close(screen->sessions[i]);
	}
	free(screen);
	return status;
}
