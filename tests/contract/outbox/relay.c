#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/position.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

/* --- what a published message is ---------------------------------------------------- */

static void
check_header(const struct kit_record *r, const char *name, const char *value)
{
	CU_ASSERT_EQUAL(kit_header_count(r, name), 1);
	CHECK_TEXT(kit_header(r, name), value);
}

static void
check_full_record(const struct kit_record *r, struct skald_sql *sql)
{
	char time[SKALD_TIME_TEXT_BYTES], position[SKALD_POSITION_TEXT_BYTES];

	check_header(r, "ce_specversion", "1.0");
	check_header(r, "ce_id", "01a1fc30-ff60-7781-8544-ad394d9ea951");
	check_header(r, "ce_source", "/shop");
	check_header(r, "ce_type", "shop.order.placed");
	check_header(r, "ce_subject", "order-1");
	check_header(r, "content-type", "application/json");
	check_header(r, "ce_correlationid", "corr");
	check_header(r, "ce_causationid", "cause");
	check_header(r, "ce_expirytime", "2030-01-02T03:04:05.678901Z");
	check_header(r, "x-tenant", "a\"b\xc3\xa4");
	check_header(r, "tracestate", "k=v");
	check_header(r, "ce_stream", pg_text(sql, "SELECT stream FROM skald.relay"));
	check_header(
		r, "traceparent", pg_text(sql, "SELECT traceparent FROM skald.outbox"));
	skald_position_format(
		(struct skald_position){
			(uint32_t)pg_int(sql, "SELECT epoch FROM skald.relay"), 1, 0 },
		position);
	check_header(r, "ce_sequence", position);
	skald_time_format(pg_int(sql, "SELECT (extract(epoch FROM at) * 1000000)::bigint "
				      "FROM skald.outbox"),
		time);
	check_header(r, "ce_time", time);
	CU_ASSERT_EQUAL(r->header_count, 15);
	CU_ASSERT_EQUAL(
		r->timestamp_ms, pg_int(sql, "SELECT floor(extract(epoch FROM at) * "
					     "1000)::bigint FROM skald.outbox"));
	CHECK_TEXT(r->key, "order-1");
	CHECK_TEXT(r->value, "{\"total\": 10.00}");
	CU_ASSERT_EQUAL(r->partition,
		skald_partition_of(SKALD_SLICE_LIT("order-1"), KIT_PARTITIONS));
}

static void
a_message_has_every_header_that_applies(void)
{
	struct skald_sql *sql = pg_open("full", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;

	kit_relay_start(&r, "full", 0);
	pg_exec(sql, "SELECT skald.outbox_add(topic => 'full', key => 'order-1', "
		     "type => 'shop.order.placed', data => '{\"total\": 10.00}', "
		     "subject => 'order-1', source => '/shop', "
		     "id => '01a1fc30-ff60-7781-8544-ad394d9ea951', "
		     "headers => '{\"x-tenant\": \"a\\\"b\xc3\xa4\", \"tracestate\": "
		     "\"k=v\"}', "
		     "correlation_id => 'corr', causation_id => 'cause', "
		     "traceparent => "
		     "'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', "
		     "expires_at => '2030-01-02 03:04:05.678901+00')");
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	all = kit_read("full");
	CU_ASSERT_EQUAL(all.count, 1);
	if (all.count == 1)
		check_full_record(&all.items[0], sql);
	kit_free(&all);
	skald_sql_close(sql);
}

static void
a_bare_message_has_no_header_of_nothing(void)
{
	static const char *const absent[] = { "ce_subject", "content-type",
		"ce_causationid", "ce_expirytime", "tracestate", "baggage" };
	struct skald_sql *sql = pg_open("bare", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;

	pg_exec(sql, "SELECT skald.outbox_add(topic => 'bare', key => NULL, type => 't', "
		     "data => NULL)");
	kit_relay_start(&r, "bare", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	all = kit_read("bare");
	CU_ASSERT_EQUAL(all.count, 1);
	if (all.count == 1) {
		const struct kit_record *m = &all.items[0];
		const char *id = kit_header(m, "ce_id");

		CU_ASSERT_PTR_NULL(m->key);
		CU_ASSERT_PTR_NULL(m->value);
		check_header(m, "ce_source", "/bare");
		CHECK_TEXT(kit_header(m, "ce_correlationid"), id);
		CU_ASSERT_EQUAL(m->partition,
			skald_partition_of(skald_slice_text(id), KIT_PARTITIONS));
		for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
			CU_ASSERT_EQUAL(kit_header_count(m, absent[i]), 0);
	}
	kit_free(&all);
	skald_sql_close(sql);
}

static void
what_is_rolled_back_never_appears(void)
{
	struct skald_sql *sql = pg_open("rolled", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;

	kit_relay_start(&r, "rolled", 0);
	kit_add_numbered(sql, "rolled", 1, 1);
	pg_exec(sql, "BEGIN");
	kit_add_numbered(sql, "rolled", 2, 20);
	pg_exec(sql, "ROLLBACK; BEGIN");
	kit_add_numbered(sql, "rolled", 21, 21);
	pg_exec(sql, "SAVEPOINT s");
	kit_add_numbered(sql, "rolled", 22, 22);
	pg_exec(sql, "ROLLBACK TO s");
	kit_add_numbered(sql, "rolled", 23, 23);
	pg_exec(sql, "COMMIT");
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	all = kit_read("rolled");
	CU_ASSERT_EQUAL(all.count, 3);
	for (unsigned i = 0; i < all.count; i++) {
		int n = (int)strtol(all.items[i].value, NULL, 10);

		CU_ASSERT(n == 1 || n == 21 || n == 23);
	}
	kit_free(&all);
	skald_sql_close(sql);
}

/* --- positions ---------------------------------------------------------------------- */

/* Big enough for a map and three chunks; some rows of a transaction that outlives two ticks. */
static void
a_big_window_interrupted_repeats_equal_positions(void)
{
	struct skald_sql *sql = pg_open("big", SKALD_SQL_TOOL);
	struct skald_sql *other = pg_session("big", "postgres", SKALD_SQL_TOOL);
	struct kit_findings f;
	struct kit_relay r;
	int64_t first;

	kit_relay_start(&r, "big", 0);
	pg_exec(other, "BEGIN");
	kit_add_numbered(other, "big", 1, 1000);
	kit_add_numbered(sql, "big", 1001, 1001);
	CU_ASSERT(kit_wait(sql,
		"SELECT tick FROM skald.relay WHERE acked_snapshot::text = "
		"tick_snapshot::text",
		1));
	kit_relay_stop(&r);
	for (int i = 0; i < 24; i++)
		kit_add_numbered(sql, "big", 2000 + i * 1000, 2999 + i * 1000);
	kit_add_numbered(other, "big", 50000, 50999);
	pg_exec(other, "COMMIT");

	kit_producer = KIT_SHORT_QUEUE;
	kit_ways.drain_ms = 1;
	kit_relay_start(&r, "big", 0);
	kit_ways = (struct kit_ways){ 0 };
	kit_producer = KIT_AS_SET;
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", 3000));
	/* a crash as PostgreSQL sees it: nothing more is written down */
	pg_exec(sql, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
		     "WHERE application_name LIKE 'skald relay%'");
	first = kit_metric(&r, "skald_relay_published_total");
	CU_ASSERT(kit_wait_metric(&r, "skald_relay_published_total", first + 11000));
	kit_relay_stop(&r);
	CU_ASSERT(pg_int(sql, "SELECT done_ordinal FROM skald.relay") > 0);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT tick FROM skald.relay"), 2);
	kit_relay_start(&r, "big", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT tick FROM skald.relay"), 2); /* all in one tick */

	f = kit_check("big", 26001, KIT_ANY);
	CU_ASSERT(f.repeats > 0); /* else nothing was proved */
	skald_sql_close(other);
	skald_sql_close(sql);
}

/* The rows of 40 x 1 MiB do not fit into one chunk: chunks are bounded in bytes, too. */
static void
big_rows_are_read_a_few_at_a_time(void)
{
	struct skald_sql *sql = pg_open("fat", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;

	pg_exec(sql,
		"SELECT skald.outbox_add_bytes(topic => 'fat', key => NULL, type => 't', "
		"data => convert_to(repeat(chr(65 + g % 26), 1048576), 'UTF8'), "
		"content_type => 'text/plain') FROM generate_series(1, 40) AS g");
	kit_relay_start(&r, "fat", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_published_total"), 40);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT tick FROM skald.relay"), 1);
	kit_relay_stop(&r);
	all = kit_read("fat"); /* the mock keeps 5 MiB a partition */
	CU_ASSERT(all.count > 10);
	for (unsigned i = 0; i < all.count; i++)
		CU_ASSERT_EQUAL(all.items[i].value_bytes, 1048576);
	CU_ASSERT_EQUAL(kit_inspect(&all).fallen, 0);
	kit_free(&all);
	skald_sql_close(sql);
}

/* --- Kafka in trouble --------------------------------------------------------------- */

static void
a_dead_producer_is_replaced_without_a_gap(void)
{
	struct skald_sql *sql = pg_open("dead", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_findings f;
	struct kit_relay r;
	int64_t parked;

	kit_producer = KIT_ONE_IN_FLIGHT;
	kit_relay_start(&r, "dead", 0);
	kit_producer = KIT_AS_SET;
	kit_add_numbered(sql, "dead", 1, 100);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_refuse_produce(45, 1); /* out of order sequence number: fatal */
	kit_add_numbered(sql, "dead", 101, 2000);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_refuse_produce(
		10, 1); /* message too large: the batch fails, a gap would follow */
	kit_add_numbered(sql, "dead", 2001, 4000);
	CU_ASSERT(kit_wait_relayed(sql));
	/* it may have been one record, which is parked then, and tried again */
	CU_ASSERT(kit_wait(sql, "SELECT count(*) FROM skald.parked_key", 0));
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT(kit_metric(&r, "skald_relay_rebuilds_total") >= 2);
	kit_relay_stop(&r);
	all = kit_read("dead");
	f = kit_inspect(&all);
	/* a record that was refused all alone is parked with its key */
	parked = pg_int(sql, "SELECT count(*) FROM skald.parked_message");
	printf("(%d published, %d parked) ", (int)f.messages, (int)parked);
	CU_ASSERT_EQUAL(f.messages + parked, 4000);
	CU_ASSERT_EQUAL(f.moved, 0);
	CU_ASSERT_EQUAL(f.fallen, 0);
	kit_free(&all);
	skald_sql_close(sql);
}

static bool
wait_trouble(struct kit_relay *r, const char *part)
{
	struct skald_relay_health health;

	for (int i = 0; i < 5000; i++) {
		skald_relay_health(r->relay, &health);
		if (part ? strstr(health.trouble, part) != NULL : health.is_ready)
			return true;
		(void)usleep(1000);
	}
	printf("\n    trouble is: %s", health.trouble);
	return false;
}

static void
waits_for_postgresql_and_goes_on(void)
{
	struct skald_sql *sql = pg_open("restart", SKALD_SQL_TOOL);
	struct kit_relay r;

	kit_relay_start(&r, "restart", 0);
	kit_add_numbered(sql, "restart", 1, 50);
	CU_ASSERT(kit_wait_relayed(sql));
	skald_sql_close(sql);
	pg_stop("immediate");
	CU_ASSERT(wait_trouble(&r, " "));
	pg_start();
	sql = pg_session("restart", "postgres", SKALD_SQL_TOOL);
	kit_add_numbered(sql, "restart", 51, 100);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT(wait_trouble(&r, NULL));
	kit_relay_stop(&r);
	kit_check("restart", 100, KIT_ANY);
	skald_sql_close(sql);
}

/* --- who leads ---------------------------------------------------------------------- */

static bool
is_leader(struct kit_relay *r)
{
	struct skald_relay_health health;

	skald_relay_health(r->relay, &health);
	return health.is_leader;
}

static bool
wait_leader(struct kit_relay *r, int64_t within_ms)
{
	int64_t until_ms = skald_mono_ms() + within_ms;

	while (!is_leader(r)) {
		if (skald_mono_ms() > until_ms)
			return false;
		(void)usleep(1000);
	}
	return true;
}

static void
one_leads_and_another_takes_over(void)
{
	struct skald_sql *sql = pg_open("two", SKALD_SQL_TOOL);
	struct kit_relay a, b;
	struct kit_records all;
	int64_t term;

	kit_relay_start(&a, "two", 0);
	CU_ASSERT(wait_leader(&a, 5000));
	kit_relay_start(&b, "two", 0);
	kit_add_numbered(sql, "two", 1, 100);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_FALSE(is_leader(&b));
	CU_ASSERT_EQUAL(kit_metric(&b, "skald_relay_published_total"), 0);
	term = pg_int(sql, "SELECT term FROM skald.relay");
	kit_relay_stop(&a); /* hands the lease back */
	CU_ASSERT(wait_leader(&b, 1400)); /* before it could run out by itself */
	kit_add_numbered(sql, "two", 101, 200);
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT term FROM skald.relay"), term + 1);
	kit_relay_stop(&b);
	all = kit_read("two");
	CU_ASSERT_EQUAL(all.count, 200); /* an orderly change repeats nothing */
	kit_free(&all);
	skald_sql_close(sql);
}

/* Another took the lease while this one was not looking, then died. */
static void
a_fenced_relay_drops_everything_and_waits(void)
{
	struct skald_sql *sql = pg_open("fenced", SKALD_SQL_TOOL);
	struct kit_relay r;
	int64_t published;
	bool is_over;

	kit_relay_start(&r, "fenced", 0);
	CU_ASSERT(wait_leader(&r, 5000));
	pg_exec(sql, "UPDATE skald.lease SET owner = 'another', term = term + 1, "
		     "until = clock_timestamp() + interval '1 s'; "
		     "UPDATE skald.relay AS r SET term = l.term, owner = l.owner FROM "
		     "skald.lease AS l");
	kit_add_numbered(sql, "fenced", 1, 10);
	do { /* looked at before the clock is */
		published = kit_metric(&r, "skald_relay_published_total");
		is_over = pg_int(sql, "SELECT count(*) FROM skald.lease "
				      "WHERE until < clock_timestamp()") == 1;
	} while (!is_over && published == 0);
	CU_ASSERT(is_over);
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_fenced_total"), 1);
	CU_ASSERT(wait_leader(&r, 3000)); /* its turn again */
	CU_ASSERT(kit_wait_relayed(sql));
	CU_ASSERT_EQUAL(kit_metric(&r, "skald_relay_published_total"), 10);
	kit_relay_stop(&r);
	skald_sql_close(sql);
}

/* A zombie's statements find that its term is over. */
static void
an_old_term_can_do_nothing(void)
{
	struct skald_sql *sql = pg_open("old", SKALD_SQL_TOOL);

	pg_exec(sql, "SELECT skald.relay_lead(3, 'a', 'poll')");
	kit_add_numbered(sql, "old", 1, 10);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT opened FROM skald.relay_turn(3, NULL, NULL, "
				    "true, true, false)"),
		1);
	pg_exec(sql, "SELECT skald.relay_lead(4, 'b', 'poll')");
	CHECK_TEXT(
		pg_text(sql, "SELECT held FROM skald.relay_lead(3, 'a', 'poll')"), "f");
	CHECK_TEXT(pg_text(sql, "SELECT held FROM skald.relay_turn(3, 1, 'p', true, "
				"true, false)"),
		"f");
	CHECK_TEXT(pg_text(sql, "SELECT skald.relay_progress(3, 1, 5, 6, 'p')"), "f");
	CHECK_TEXT(pg_text(sql, "SELECT skald.relay_tidy(3)"), "f");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT tick FROM skald.relay"), 1);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT done_id FROM skald.relay"), -1);
	CHECK_TEXT(pg_text(sql, "SELECT skald.relay_progress(4, 1, 5, 6, 'p')"), "t");
	CHECK_TEXT(pg_text(sql, "SELECT held FROM skald.relay_turn(4, 1, 'p', true, "
				"true, false)"),
		"t");
	skald_sql_close(sql);
}

/* A lease that was lost with its table must not lock the relay out for ever. */
static void
a_lost_lease_catches_up(void)
{
	struct skald_sql *sql = pg_open("lease", SKALD_SQL_TOOL);
	struct kit_relay r;

	pg_exec(sql, "UPDATE skald.relay SET term = 41");
	kit_relay_start(&r, "lease", 0);
	CU_ASSERT(kit_wait(sql, "SELECT term FROM skald.relay", 42));
	kit_relay_stop(&r);
	skald_sql_close(sql);
}

/* --- epochs ------------------------------------------------------------------------- */

static void
another_timeline_begins_an_epoch_after_the_open_tick(void)
{
	struct skald_sql *sql = pg_open("epoch", SKALD_SQL_TOOL);
	int64_t epoch = pg_int(sql, "SELECT epoch FROM skald.relay");
	struct kit_records all;
	struct kit_relay r;
	char old[SKALD_POSITION_TEXT_BYTES];

	pg_exec(sql, "SELECT skald.relay_lead(1, 'a', 'poll')");
	kit_add_numbered(sql, "epoch", 1, 1);
	pg_exec(sql, "SELECT skald.relay_turn(1, NULL, NULL, true, true, false); "
		     "UPDATE skald.relay SET timeline = '00000099'");
	kit_add_numbered(sql, "epoch", 2, 2);
	pg_exec(sql, "INSERT INTO skald.lease VALUES ('relay', 'outbox', 'a', 1, "
		     "'-infinity')");
	kit_relay_start(&r, "epoch", 0);
	CU_ASSERT(kit_wait_relayed(sql));
	kit_relay_stop(&r);
	CU_ASSERT(pg_int(sql, "SELECT epoch FROM skald.relay") > epoch);
	CHECK_TEXT(pg_text(sql, "SELECT timeline FROM skald.relay"), "00000001");
	all = kit_read("epoch");
	CU_ASSERT_EQUAL(all.count, 2);
	skald_position_format((struct skald_position){ (uint32_t)epoch, 1, 0 }, old);
	for (unsigned i = 0; i < all.count; i++) {
		const char *sequence = kit_header(&all.items[i], "ce_sequence");

		if (strcmp(all.items[i].value, "1") ==
			0) /* may be in the topic already */
			CHECK_TEXT(sequence, old);
		else
			CU_ASSERT(strncmp(sequence, old, 8) > 0);
	}
	kit_free(&all);
	skald_sql_close(sql);
}

/* Transaction ids that begin anew would make new rows look acknowledged. */
static void
refuses_a_copy_from_another_cluster(void)
{
	struct skald_sql *sql = pg_open("copied", SKALD_SQL_TOOL);
	struct kit_relay r;

	pg_exec(sql, "UPDATE skald.relay SET acked_snapshot = '900000000:900000000:', "
		     "tick_snapshot = '900000000:900000000:'");
	kit_add_numbered(sql, "copied", 1, 1);
	kit_relay_start(&r, "copied", 0);
	CU_ASSERT(wait_trouble(&r, "copied from another cluster"));
	kit_relay_stop(&r);
	skald_sql_close(sql);
}

/* --- rights -------------------------------------------------------------------------- */

/* Nothing but membership in skald_daemon: ticks, chunks, progress, the ring. */
static void
the_rights_of_a_daemon_are_enough(void)
{
	struct skald_sql *sql = pg_open("rights", SKALD_SQL_TOOL);
	struct kit_records all;
	struct kit_relay r;

	pg_exec(sql, "CREATE ROLE humble LOGIN; GRANT skald_daemon TO humble");
	kit_add_numbered(sql, "rights", 1, 15000);
	kit_role = "humble";
	kit_relay_start(&r, "rights", 100);
	kit_role = "postgres";
	CU_ASSERT(kit_wait(sql, "SELECT count(*) FROM skald.outbox", 0));
	kit_relay_stop(&r);
	all = kit_read("rights");
	CU_ASSERT_EQUAL(all.count, 15000);
	kit_free(&all);
	skald_sql_close(sql);
}

/* --- marks -------------------------------------------------------------------------- */

static void
a_mark_sees_everything_that_was_published(void)
{
	struct skald_sql *sql = pg_open("marks", SKALD_SQL_TOOL);
	struct kit_relay r;

	pg_exec(sql,
		"INSERT INTO skald.relay_mark "
		"SELECT now() - interval '2 h', '1:1:' FROM generate_series(1, 1500)");
	kit_relay_start(&r, "marks", 2000);
	for (int i = 0; i < 20; i++)
		kit_add_numbered(sql, "marks", i, i);
	/* also the last one, although marks are at least 100 ms apart */
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM skald.outbox AS o WHERE NOT EXISTS "
		"(SELECT FROM skald.relay_mark AS m WHERE pg_visible_in_snapshot(o.xid, "
		"m.snapshot))",
		0));
	CU_ASSERT(pg_int(sql, "SELECT count(*) FROM skald.relay_mark WHERE at > now() - "
			      "interval '1 h'") < 20);
	CU_ASSERT(kit_wait(sql,
		"SELECT count(*) FROM skald.relay_mark WHERE at < now() - interval '1 h'",
		0));
	kit_relay_stop(&r);
	skald_sql_close(sql);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_message_has_every_header_that_applies),
		CHECK(a_bare_message_has_no_header_of_nothing),
		CHECK(what_is_rolled_back_never_appears),
		CHECK(a_big_window_interrupted_repeats_equal_positions),
		CHECK(big_rows_are_read_a_few_at_a_time),
		CHECK(a_dead_producer_is_replaced_without_a_gap),
		CHECK(waits_for_postgresql_and_goes_on),
		CHECK(one_leads_and_another_takes_over),
		CHECK(a_fenced_relay_drops_everything_and_waits),
		CHECK(an_old_term_can_do_nothing),
		CHECK(a_lost_lease_catches_up),
		CHECK(another_timeline_begins_an_epoch_after_the_open_tick),
		CHECK(refuses_a_copy_from_another_cluster),
		CHECK(the_rights_of_a_daemon_are_enough),
		CHECK(a_mark_sees_everything_that_was_published),
	};

	return check_main("contract.outbox.relay", cases, CHECK_COUNT(cases));
}
