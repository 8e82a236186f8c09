#include "tests/contract/sql/stream_kit.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "tests/support/check.h"

static const char *const columns[] = { "id", "message_id", "at", "topic", "key", "type",
	"headers", "data", "xid", "expires_at", "not_there" };

_Static_assert(sizeof(columns) / sizeof(columns[0]) == KIT_COLUMN_COUNT, "columns");

static void
die(const char *what, const struct skald_err *err)
{
	(void)fprintf(stderr, "\nstream: %s: %s %s\n", what, err->code, err->text);
	exit(2);
}

struct skald_stream *
kit_open(const char *slot, const char *more)
{
	char url[PG_URL_BYTES], full[2 * PG_URL_BYTES];
	struct skald_stream_conf conf = { .url = full,
		.application = "test stream",
		.connect_timeout_ms = 10000,
		.slot = slot,
		.publication = "skald_outbox",
		.schema = "skald",
		.table = "outbox",
		.columns = columns,
		.column_count = KIT_COLUMN_COUNT };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_stream *s = NULL;

	pg_url(KIT_DATABASE, url);
	(void)snprintf(full, sizeof(full), "%s %s", url, more ? more : "");
	if (skald_stream_open(&s, &conf, &err))
		die("no stream", &err);
	return s;
}

uint64_t
kit_make_slot(const char *slot)
{
	struct skald_stream *s = kit_open(slot, NULL);
	int64_t until_ms = skald_mono_ms() + check_patience_ms(20000);
	struct skald_err err = SKALD_ERR_INIT;
	bool is_made = false;
	uint64_t lsn = 0;

	if (skald_stream_ask_slot(s, &err))
		die("could not ask for the slot", &err);
	for (;;) {
		struct pollfd pfd = { .fd = skald_stream_fd(s), .events = POLLIN };

		if (skald_stream_take_slot(s, &is_made, &lsn, &err))
			die("no slot", &err);
		if (is_made)
			break;
		if (skald_mono_ms() > until_ms)
			die("the slot takes too long", &err);
		(void)poll(&pfd, 1, 100);
	}
	skald_stream_close(s);
	kit_wait_inactive(slot);
	return lsn;
}

struct skald_stream *
kit_start(const char *slot, uint64_t lsn, const char *more)
{
	struct skald_stream *s = kit_open(slot, more);
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_stream_start(s, lsn, &err))
		die("could not start", &err);
	return s;
}

void
kit_wait_inactive(const char *slot)
{
	struct skald_sql *sql = pg_session(KIT_DATABASE, "postgres", SKALD_SQL_TOOL);
	int64_t until_ms = skald_mono_ms() + check_patience_ms(20000);
	char query[256];

	(void)snprintf(query, sizeof(query),
		"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '%s' AND "
		"active",
		slot);
	while (pg_int(sql, query) != 0 && skald_mono_ms() < until_ms)
		(void)poll(NULL, 0, 20);
	skald_sql_close(sql);
}

void
kit_drop_slot(const char *slot)
{
	struct skald_sql *sql = pg_session(KIT_DATABASE, "postgres", SKALD_SQL_TOOL);
	char query[256];

	kit_wait_inactive(slot);
	(void)snprintf(query, sizeof(query),
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
		" WHERE slot_name = '%s'",
		slot);
	pg_exec(sql, query);
	skald_sql_close(sql);
}

enum skald_stream_kind
kit_next(struct skald_stream *s, uint64_t confirmed_lsn, int64_t ms,
	struct skald_stream_item *item)
{
	int64_t until_ms = skald_mono_ms() + check_patience_ms(ms);
	struct skald_err err = SKALD_ERR_INIT;

	for (;;) {
		struct pollfd pfd = { .fd = skald_stream_fd(s), .events = POLLIN };
		int64_t left_ms = until_ms - skald_mono_ms();

		if (skald_stream_next(s, item, &err))
			die("the stream broke", &err);
		if (item->kind == SKALD_STREAM_KEEPALIVE) {
			if (item->wants_reply &&
				skald_stream_status(s, confirmed_lsn, &err))
				die("no status", &err);
		} else if (item->kind != SKALD_STREAM_NOTHING || left_ms <= 0) {
			return item->kind;
		} else {
			(void)poll(&pfd, 1, (int)left_ms);
		}
	}
}

int
kit_transaction(struct skald_stream *s, int64_t ms, char *text, size_t text_bytes,
	struct skald_stream_item *commit)
{
	struct skald_stream_item item;
	struct skald_err order = { "test", "", "items out of order" };
	uint64_t commit_lsn;
	size_t used = 0;
	int rows = 0;

	text[0] = '\0';
	if (kit_next(s, 0, ms, &item) == SKALD_STREAM_NOTHING)
		return -1;
	if (item.kind != SKALD_STREAM_BEGIN)
		die("no begin", &order);
	commit_lsn = item.lsn;
	while (kit_next(s, 0, 20000, &item) == SKALD_STREAM_ROW) {
		int n = snprintf(text + used, text_bytes - used, "%s%.*s:%llu",
			rows ? "," : "", (int)item.cells[KIT_TOPIC].bytes,
			item.cells[KIT_TOPIC].data ? item.cells[KIT_TOPIC].data : "",
			(unsigned long long)item.ordinal);

		if (item.lsn != commit_lsn)
			die("a row of another transaction", &order);
		if (n > 0 && (size_t)n < text_bytes - used)
			used += (size_t)n;
		rows++;
	}
	if (item.kind != SKALD_STREAM_COMMIT || item.lsn < commit_lsn)
		die("no commit", &order);
	*commit = item;
	return rows;
}
