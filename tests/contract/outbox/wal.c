/*
 * contract.outbox.wal - the relay while it streams: from poll to wal by itself, positions
 * that stay what they are, the order of commits, restarts of either side, another leader.
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/position.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

static const char slot_name[] = "SELECT 'skald_' || stream FROM skald.relay";

static bool
position_of(const struct kit_record *record, struct skald_position *out)
{
	const char *text = kit_header(record, "ce_sequence");

	return text && skald_position_parse(skald_slice_text(text), out);
}

/* What was polled does not come again out of the slot; positions rise over the change. */
static void
polls_then_streams_by_itself(void)
{
	struct skald_sql *sql = pg_open("enter", SKALD_SQL_TOOL);
	struct kit_load load;
	struct kit_relay r;
	int64_t epoch = pg_int(sql, "SELECT epoch FROM skald.relay");

	kit_add_numbered(sql, "enter", 1, 500);
	kit_load_start(&load, "enter", 501);
	CU_ASSERT(kit_relay_start_wal(&r, "enter", 0));
	(void)usleep(300000);
	kit_load_stop(&load);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_published_total"), 500 + load.added);
	CHECK_TEXT(pg_text(sql, "SELECT mode FROM skald.relay"), "wal");
	CU_ASSERT(pg_int(sql, "SELECT epoch FROM skald.relay") > epoch);
	CU_ASSERT(kit_wait(sql, "SELECT lag_rows FROM skald.relays", 0));
	/* marks see what was published, whichever way */
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM skald.outbox AS o WHERE NOT EXISTS "
		"(SELECT FROM skald.relay_mark AS m WHERE pg_visible_in_snapshot(o.xid, "
		"m.snapshot))",
		0));
	kit_relay_stop(&r);
	kit_check("enter", (unsigned)(500 + load.added), 0);
	kit_end(sql);
}

/* Epoch, the commit's place in WAL, the row's in its transaction. */
static void
a_position_is_commit_and_ordinal(void)
{
	struct skald_sql *sql = pg_open("place", SKALD_SQL_TOOL);
	struct skald_sql *other = pg_session("place", "postgres", SKALD_SQL_TOOL);
	struct skald_position at[8] = { 0 };
	struct kit_records all;
	struct kit_relay r;
	uint64_t before, after;

	CU_ASSERT(kit_relay_start_wal(&r, "place", 0));
	before = (uint64_t)pg_int(
		sql, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint");
	pg_exec(other, "BEGIN");
	kit_add_numbered(other, "place", 4, 4); /* begins first, commits last */
	pg_exec(sql, "BEGIN");
	kit_add_numbered(sql, "place", 1, 2);
	pg_exec(sql,
		"CREATE TABLE t ()"); /* what else a transaction does takes no ordinal */
	kit_add_numbered(sql, "place", 3, 3);
	pg_exec(sql, "COMMIT");
	kit_add_numbered(other, "place", 5, 5);
	pg_exec(other, "COMMIT");
	after = (uint64_t)pg_int(
		sql, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint");
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	all = kit_read("place");
	CU_ASSERT_EQUAL(all.count, 5);
	for (unsigned i = 0; i < all.count; i++)
		CU_ASSERT(position_of(
			&all.items[i], &at[strtol(all.items[i].value, NULL, 10) & 7]));
	for (int n = 1; n <= 5; n++) {
		CU_ASSERT_EQUAL(
			at[n].epoch, pg_int(sql, "SELECT epoch FROM skald.relay"));
		CU_ASSERT(at[n].point > before && at[n].point < after);
		CU_ASSERT_EQUAL(at[n].point == at[1].point, n <= 3);
		CU_ASSERT_EQUAL((int)at[n].ordinal, n <= 3 ? n - 1 : n - 4);
	}
	CU_ASSERT(at[4].point > at[1].point); /* the order of the commits */
	kit_free(&all);
	skald_sql_close(other);
	kit_end(sql);
}

static void
kill_sessions(struct skald_sql *sql, const char *like)
{
	char query[200];

	(void)snprintf(query, sizeof(query),
		"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
		"datname = current_database() AND application_name LIKE '%s'",
		like);
	(void)pg_int(sql, query);
}

static void
a_dead_producer_is_replaced_without_a_gap(void)
{
	struct skald_sql *sql = pg_open("replaced", SKALD_SQL_TOOL);
	struct kit_relay r;

	CU_ASSERT(kit_relay_start_wal(&r, "replaced", 0));
	kit_add_numbered(sql, "replaced", 1, 100);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_refuse_produce(45, 1); /* out of order sequence number: fatal */
	for (int i = 1; i < 20; i++)
		kit_add_numbered(sql, "replaced", 100 * i + 1, 100 * i + 100);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT(kit_metric(&r, "skald_relay_rebuilds_total") >= 1);
	kit_relay_stop(&r);
	kit_check("replaced", 2000, KIT_ANY);
	kit_end(sql);
}

/* Lost sessions, a lost stream, a stop in the middle of things. */
static void
trouble_repeats_equal_positions(void)
{
	struct skald_sql *sql = pg_open("again", SKALD_SQL_TOOL);
	struct kit_load load;
	struct kit_relay r;

	kit_load_start(&load, "again", 1);
	kit_ways.drain_ms = 1;
	CU_ASSERT(kit_relay_start_wal(&r, "again", 0));
	kill_sessions(sql, "skald stream%");
	(void)usleep(300000);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	kill_sessions(sql, "skald relay%");
	(void)usleep(300000);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	kit_relay_stop(&r);
	CU_ASSERT(kit_relay_start_wal(&r, "again", 0));
	kit_load_stop(&load);
	CU_ASSERT(kit_wait_relayed(sql));
	CHECK_TEXT(pg_text(sql, "SELECT mode FROM skald.relay"), "wal");
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_left_wal_total"), 0);
	kit_relay_stop(&r);
	kit_check("again", (unsigned)load.added, KIT_ANY);
	kit_end(sql);
}

/* One transaction that is larger than the queue, the window and one chunk: who is told to
   stop in the middle of it finishes it, and nothing comes twice. */
static void
a_big_transaction_is_finished_by_a_stop(void)
{
	struct skald_sql *sql = pg_open("large", SKALD_SQL_TOOL);
	struct kit_records all;
	struct skald_position first = { 0 }, at;
	struct kit_relay r;
	int64_t published;

	CU_ASSERT(kit_relay_start_wal(&r, "large", 0));
	kit_add_numbered(sql, "large", 1, 30000);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 3000));
	published = kit_metric(&r, "skald_relay_published_total");
	kit_relay_stop(&r);
	printf("(stopped at about %lld) ", (long long)published);
	CU_ASSERT(kit_relay_start_wal(&r, "large", 0));
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	kit_check("large", 30000, 0);
	all = kit_read("large");
	for (unsigned i = 0; i < all.count; i++) {
		CU_ASSERT(position_of(&all.items[i], &at));
		first = i ? first : at;
		CU_ASSERT_EQUAL(at.point, first.point);
		CU_ASSERT_EQUAL(at.ordinal + 1, strtol(all.items[i].value, NULL, 10));
	}
	kit_free(&all);
	kit_end(sql);
}

/* The position that is written down is never one inside a transaction under way, however long
   that is: what was released before it would be forgotten. */
static void
the_position_stays_before_a_big_transaction(void)
{
	struct skald_sql *sql = pg_open("stays", SKALD_SQL_TOOL);
	char before[SKALD_POSITION_TEXT_BYTES];
	unsigned looks = 0, wrong = 0;
	struct kit_relay r;

	CU_ASSERT(kit_relay_start_wal(&r, "stays", 2000));
	kit_add_numbered(sql, "stays", 1, 3);
	CU_ASSERT(kit_wait_relayed(sql));
	(void)snprintf(before, sizeof(before), "%s",
		pg_text(sql, "SELECT position FROM skald.relay"));
	CU_ASSERT_EQUAL(strlen(before), SKALD_POSITION_TEXT_BYTES - 1);
	kit_add_numbered(sql, "stays", 1, 150000);
	for (; looks < 6000; looks++) {
		bool is_it = strcmp(pg_text(sql, "SELECT position FROM skald.relay"),
				     before) == 0;

		if (kit_metric(&r, "skald_relay_published_total") >= 149000)
			break; /* asked after the position */
		wrong += !is_it;
		(void)usleep(10000);
	}
	printf("(%u looks) ", looks);
	CU_ASSERT(looks > 1 && looks < 6000);
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 150003));
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM skald.relay WHERE position LIKE "
		"'%.' || lpad(to_hex(149999), 8, '0')",
		1));
	kit_relay_stop(&r);
	kit_end(sql);
}

static void
restart(const char *how)
{
	struct skald_sql *sql = pg_open(how, SKALD_SQL_TOOL);
	struct kit_relay r;

	CU_ASSERT(kit_relay_start_wal(&r, how, 0));
	for (int i = 0; i < 50; i++)
		kit_add_numbered(sql, how, 100 * i + 1, 100 * i + 100);
	skald_sql_close(sql);
	pg_stop(how);
	pg_start();
	sql = pg_session(how, "postgres", SKALD_SQL_TOOL);
	kit_add_numbered(sql, how, 5001, 5500);
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_streaming", 1));
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_left_wal_total"), 0);
	CHECK_TEXT(pg_text(sql, "SELECT mode FROM skald.relay"), "wal");
	kit_relay_stop(&r);
	kit_check(how, 5500, KIT_ANY);
	kit_end(sql);
}

static void
postgresql_restarts_in_order(void)
{
	restart("fast");
}

static void
postgresql_crashes(void)
{
	restart("immediate");
}

static void
the_ring_is_emptied(void)
{
	struct skald_sql *sql = pg_open("emptied", SKALD_SQL_TOOL);
	struct kit_load load;
	struct kit_relay r;

	CU_ASSERT(kit_relay_start_wal(&r, "emptied", 100));
	kit_load_start(&load, "emptied", 1);
	/* under load, too: the sequence moves on, as many rows would make it */
	(void)usleep(300000);
	pg_exec(sql, "SELECT setval('skald.outbox_id', ((last_value >> 20) + 1) << 20) "
		     "FROM skald.outbox_id");
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_truncated_total", 1));
	kit_load_stop(&load);
	CU_ASSERT(kit_wait(sql, "SELECT count(*) FROM skald.outbox", 0));
	kit_relay_stop(&r);
	kit_check("emptied", (unsigned)load.added, 0);
	kit_end(sql);
}

/* --- another epoch ------------------------------------------------------------------------ */

static int
by_place(const void *a, const void *b)
{
	const struct skald_position *x = a, *y = b;

	if (x->point != y->point)
		return x->point < y->point ? -1 : 1;
	return x->epoch < y->epoch ? -1 : x->epoch > y->epoch;
}

/* Transactions (or ticks) of which records bear two epochs. */
static unsigned
split(const struct kit_records *all, unsigned *epochs)
{
	struct skald_position *at = calloc(all->count + 1, sizeof(*at));
	uint32_t low = UINT32_MAX, high = 0;
	unsigned found = 0;

	for (unsigned i = 0; i < all->count; i++) {
		CU_ASSERT(position_of(&all->items[i], &at[i]));
		low = at[i].epoch < low ? at[i].epoch : low;
		high = at[i].epoch > high ? at[i].epoch : high;
	}
	qsort(at, all->count, sizeof(*at), by_place);
	for (unsigned i = 1; i < all->count; i++)
		found += at[i].point == at[i - 1].point && at[i].epoch != at[i - 1].epoch;
	*epochs = high - low;
	free(at);
	return found;
}

static void
epochs(const char *name, bool is_wal)
{
	struct skald_sql *sql = pg_open(name, SKALD_SQL_TOOL);
	int64_t epoch = 0, first;
	struct kit_records all;
	struct kit_load load;
	struct kit_relay r;
	unsigned span = 0;

	if (is_wal)
		CU_ASSERT(kit_relay_start_wal(&r, name, 0));
	if (!is_wal)
		kit_relay_start(&r, name, 0);
	kit_load_start(&load, name, 1);
	first = pg_int(sql, "SELECT epoch FROM skald.relay");
	for (int i = 0; i < 4; i++) {
		CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 100 * i));
		pg_exec(sql, "UPDATE skald.relay SET epoch_wanted = true");
		CU_ASSERT(kit_wait(sql, "SELECT epoch_wanted::int FROM skald.relay", 0));
		CU_ASSERT(pg_int(sql, "SELECT epoch FROM skald.relay") > epoch);
		epoch = pg_int(sql, "SELECT epoch FROM skald.relay");
	}
	kit_load_stop(&load);
	kit_add_numbered(sql, name, load.added + 1, load.added + 1); /* in the last one */
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT(epoch >= first + 4);
	kit_relay_stop(&r);
	kit_check(name, (unsigned)load.added + 1, 0);
	all = kit_read(name);
	CU_ASSERT_EQUAL(split(&all, &span), 0);
	CU_ASSERT(span >= 3);
	kit_free(&all);
	kit_end(sql);
}

static void
another_epoch_splits_nothing_in_mode_wal(void)
{
	epochs("epochs_wal", true);
}

static void
another_epoch_splits_nothing_in_mode_poll(void)
{
	epochs("epochs_poll", false);
}

/* Wanted while nothing happens: it does not wait for the next message. */
static void
an_idle_stream_notices_a_wanted_epoch(void)
{
	struct skald_sql *sql = pg_open("epoch_idle", SKALD_SQL_TOOL);
	struct kit_relay r;

	CU_ASSERT(kit_relay_start_wal(&r, "epoch_idle", 2000)); /* looks each 200 ms */
	kit_add_numbered(sql, "epoch_idle", 1, 1);
	CU_ASSERT(kit_wait_relayed(sql));
	(void)usleep(600000);
	pg_exec(sql, "UPDATE skald.relay SET epoch_wanted = true");
	CU_ASSERT(kit_wait(sql, "SELECT epoch_wanted::int FROM skald.relay", 0));
	kit_relay_stop(&r);
	kit_end(sql);
}

/* --- another leader ----------------------------------------------------------------------- */

static bool
wait_leader(struct kit_relay *r, int64_t within_ms, int64_t *took_ms)
{
	struct skald_relay_health health = { 0 };
	int64_t began_ms = skald_mono_ms();

	while (!health.is_leader && skald_mono_ms() - began_ms < within_ms) {
		skald_relay_health(r->relay, &health);
		(void)usleep(1000);
	}
	*took_ms = skald_mono_ms() - began_ms;
	return health.is_leader;
}

static void
signal_sessions(const char *pids, int signal)
{
	char text[200];
	char *at = text;

	(void)snprintf(text, sizeof(text), "%s", pids);
	while (*at) {
		pid_t pid = (pid_t)strtol(at, &at, 10);

		if (pid > 0)
			CU_ASSERT_EQUAL(kill(pid, signal), 0);
		at += *at == ',';
	}
}

/* Between two transactions: who stands in one holds its locks, and nobody can lead. */
static void
stop_sessions(struct skald_sql *sql, const char *pids)
{
	char query[300];

	(void)snprintf(query, sizeof(query),
		"SELECT count(*) FROM pg_locks WHERE pid IN (%s) AND locktype = "
		"'transactionid'",
		pids);
	for (int i = 0; i < 1000; i++) {
		signal_sessions(pids, SIGSTOP);
		(void)usleep(1000);
		if (pg_int(sql, query) == 0)
			return;
		signal_sessions(pids, SIGCONT);
		(void)usleep(2000);
	}
	CU_FAIL("they are never between two transactions");
}

/* Its sessions do not answer any more: its thread stands in the middle of a statement, its
   stream is still there. */
static void
another_takes_over_from_one_that_hangs(void)
{
	struct skald_sql *sql = pg_open("hangs", SKALD_SQL_TOOL);
	struct kit_relay a, b;
	struct kit_load load;
	int64_t took_ms;
	char pids[200];

	CU_ASSERT(kit_relay_start_wal(&a, "hangs", 0));
	kit_load_start(&load, "hangs", 1);
	(void)snprintf(pids, sizeof(pids), "%s",
		pg_text(sql, "SELECT string_agg(pid::text, ',') FROM pg_stat_activity "
			     "WHERE application_name = 'skald relay hangs'"));
	CU_ASSERT(pids[0] != '\0');
	kit_ways.wants_wal = true;
	kit_relay_start(&b, "hangs", 0);
	kit_ways = (struct kit_ways){ 0 };
	CU_ASSERT(kit_wait_metric(&a, "skald_relay_published_total", 50));
	stop_sessions(sql, pids);
	CU_ASSERT(wait_leader(&b, 6000, &took_ms));
	printf("(took over after %lld ms", (long long)took_ms);
	CU_ASSERT(kit_wait_metric(&b, "skald_relay_streaming", 1));
	CU_ASSERT(kit_wait_metric(&b, "skald_relay_published_total", 50));
	signal_sessions(pids, SIGCONT);
	(void)usleep(300000);
	kit_load_stop(&load);
	CU_ASSERT(kit_wait_relayed(sql));
	printf(") ");
	kit_relay_stop(&a);
	kit_relay_stop(&b);
	kit_check("hangs", (unsigned)load.added, KIT_ANY);
	kit_end(sql);
}

/* Handed over in order: nothing repeats. */
static void
another_takes_over_from_one_that_stops(void)
{
	struct skald_sql *sql = pg_open("stops", SKALD_SQL_TOOL);
	struct kit_relay a, b;
	struct kit_load load;
	int64_t took_ms;

	CU_ASSERT(kit_relay_start_wal(&a, "stops", 0));
	kit_load_start(&load, "stops", 1);
	kit_ways.wants_wal = true;
	kit_relay_start(&b, "stops", 0);
	kit_ways = (struct kit_ways){ 0 };
	CU_ASSERT(kit_wait_metric(&a, "skald_relay_published_total", 50));
	kit_relay_stop(&a);
	CU_ASSERT(
		wait_leader(&b, 1400, &took_ms)); /* before it could run out by itself */
	CU_ASSERT(kit_wait_metric(&b, "skald_relay_streaming", 1));
	kit_load_stop(&load);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM pg_replication_slots WHERE "
				    "database = 'stops'"),
		1);
	CHECK_TEXT(pg_text(sql, "SELECT slot_name FROM pg_replication_slots WHERE "
				"database = 'stops' AND slot_name = "
				"(SELECT 'skald_' || stream FROM skald.relay)"),
		pg_text(sql, slot_name));
	kit_relay_stop(&b);
	kit_check("stops", (unsigned)load.added, 0);
	kit_end(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(polls_then_streams_by_itself),
		CHECK(a_position_is_commit_and_ordinal),
		CHECK(a_dead_producer_is_replaced_without_a_gap),
		CHECK(trouble_repeats_equal_positions),
		CHECK(a_big_transaction_is_finished_by_a_stop),
		CHECK(the_position_stays_before_a_big_transaction),
		CHECK(postgresql_restarts_in_order),
		CHECK(postgresql_crashes),
		CHECK(the_ring_is_emptied),
		CHECK(another_epoch_splits_nothing_in_mode_wal),
		CHECK(another_epoch_splits_nothing_in_mode_poll),
		CHECK(an_idle_stream_notices_a_wanted_epoch),
		CHECK(another_takes_over_from_one_that_hangs),
		CHECK(another_takes_over_from_one_that_stops),
	};

	kit_producer = KIT_ONE_IN_FLIGHT; /* see kit.h */
	return check_main("contract.outbox.wal", cases, CHECK_COUNT(cases));
}
