/* The orchestrator against PostgreSQL, the dev broker and a participant at the wire. */
#include <poll.h>
#include <stdlib.h>

#include "tests/contract/saga/kit.h"
#include "tests/support/check.h"

#define ALL(reserve, charge, ship, release) \
	"{\"reserve\":\"" reserve "\",\"charge\":\"" charge "\",\"ship\":\"" ship \
	"\",\"release\":\"" release "\"}"

static int64_t
count_of(const char *key, const char *kind)
{
	char query[256];

	snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.saga_events e JOIN skald.saga s ON s.id = "
		"e.saga_id"
		" WHERE s.key = '%s' AND e.kind = '%s'",
		key, kind);
	return pg_int(kit_sql, query);
}

/* Distinct idempotency keys of a type's commands, without the saga's id. */
static const char *
keys_of(const char *key, const char *type)
{
	char query[512];

	snprintf(query, sizeof(query),
		"SELECT string_agg(substr(o.headers ->> 'idempotency-key', 38) || '#' ||"
		" (o.headers ->> 'ce_sagaattempt'), ' ' ORDER BY o.id) FROM skald.outbox "
		"o"
		" JOIN skald.saga s ON s.id::text = o.headers ->> 'ce_sagaid'"
		" WHERE s.key = '%s' AND o.type = '%s'",
		key, type);
	return pg_text(kit_sql, query);
}

/* --- one saga ---------------------------------------------------------------------------- */

static void
all_goes_well(void)
{
	kit_saga("order", "well",
		"{\"reserve\":\"ok\",\"charge\":\"ok\",\"ship\":\"ok\",\"release\":"
		"\"ok\","
		"\"n\":{\"id\":9007199254740993,\"amount\":10.00}}");
	CHECK_TEXT(kit_ending("well"), "finished completed none");
	CHECK_TEXT(kit_history("well"),
		"started command:reserve:action:1 reply:reserve:action:1:success "
		"command:charge:action:1 reply:charge:action:1:success "
		"command:ship:action:1 reply:ship:action:1:success finished:completed");
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(*) FROM skald.outbox WHERE convert_from(data, "
			"'UTF8')"
			" LIKE '%9007199254740993%' AND convert_from(data, 'UTF8') LIKE"
			" '%10.00%' AND type = 'stock.reserve'"),
		1);
	CU_ASSERT_EQUAL(
		pg_int(kit_sql, "SELECT count(*) FROM skald.sagas WHERE key = 'well'"
				" AND output::jsonb -> 'parcel' IS NOT NULL AND"
				" waiting_for = '[]' AND steps -> 2 ->> 'state' ="
				" 'succeeded'"),
		1);
	/* one trace, one correlation, and each command caused by the reply before */
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(*) FROM skald.outbox o JOIN skald.saga s ON"
			" convert_from(o.key, 'UTF8') = s.id::text WHERE s.key = 'well'"
			" AND o.correlation_id = s.correlation_id AND"
			" substr(o.traceparent, 4, 32) = substr(s.traceparent, 4, 32)"),
		5);
	CU_ASSERT_EQUAL(
		pg_int(kit_sql, "SELECT count(*) FROM skald.outbox o JOIN "
				"skald.saga_event_entry e ON"
				" e.message_id = o.causation_id AND e.kind = 'reply' "
				"JOIN skald.saga s"
				" ON s.id = e.saga_id WHERE s.key = 'well' AND o.type IN"
				" ('money.charge', 'parcel.ship')"),
		2);
	CHECK_TEXT(
		pg_text(kit_sql,
			"SELECT string_agg(type, ' ' ORDER BY o.id) FROM skald.outbox o "
			"JOIN"
			" skald.saga s ON convert_from(o.key, 'UTF8') = s.id::text WHERE"
			" s.key = 'well' AND topic = 'skald.saga.events'"),
		"skald.saga.started skald.saga.completed");
}

static void
a_failure_is_undone(void)
{
	kit_saga("order", "poor", ALL("ok", "fail", "ok", "ok"));
	CHECK_TEXT(kit_ending("poor"), "finished failed done charge no");
	CHECK_TEXT(kit_history("poor"),
		"started command:reserve:action:1 reply:reserve:action:1:success "
		"command:charge:action:1 reply:charge:action:1:failure "
		"compensating:charge "
		"command:reserve:compensation:1 reply:reserve:compensation:1:success "
		"finished:failed");
	kit_saga("order", "empty", ALL("fail", "ok", "ok", "ok"));
	CHECK_TEXT(kit_ending("empty"), "finished failed none reserve no");
	CU_ASSERT_EQUAL(count_of("empty", "compensating"), 0);
}

static void
retries_and_their_keys(void)
{
	kit_saga("order", "again", ALL("retry,ok", "unknown,ok", "fail,fail,ok", "ok"));
	CHECK_TEXT(kit_ending("again"), "finished completed none");
	CHECK_TEXT(
		keys_of("again", "stock.reserve"), "reserve:action#1 reserve:action#2");
	CHECK_TEXT(keys_of("again", "money.charge"), "charge:action#1 charge:action#2");
	CHECK_TEXT(keys_of("again", "parcel.ship"),
		"ship:action#1 ship:action:2#2 ship:action:3#3");
	/* a repetition has the cause of the first attempt, a new round what began it */
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(DISTINCT o.causation_id) FROM skald.outbox o JOIN"
			" skald.saga s ON s.id::text = o.headers ->> 'ce_sagaid' WHERE"
			" s.key = 'again' AND o.type = 'money.charge'"),
		1);
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(DISTINCT o.causation_id) FROM skald.outbox o JOIN"
			" skald.saga s ON s.id::text = o.headers ->> 'ce_sagaid' WHERE"
			" s.key = 'again' AND o.type = 'parcel.ship'"),
		3);
}

static void
silence_is_unknown(void)
{
	kit_saga("order", "silent", ALL("silent", "ok", "ok", "ok"));
	CHECK_TEXT(kit_ending("silent"), "finished failed done reserve timeout");
	CHECK_TEXT(kit_history("silent"),
		"started command:reserve:action:1 timeout:reserve:action:1 "
		"command:reserve:action:2 timeout:reserve:action:2 compensating:reserve "
		"command:reserve:compensation:1 reply:reserve:compensation:1:success "
		"finished:failed");
	CHECK_TEXT(
		keys_of("silent", "stock.reserve"), "reserve:action#1 reserve:action#2");
	kit_saga("order", "pivot", ALL("ok", "silent", "ok", "ok"));
	CHECK_TEXT(kit_ending("pivot"), "stuck none charge timeout");
	CU_ASSERT_EQUAL(
		pg_int(kit_sql, "SELECT count(*) FROM skald.sagas WHERE key = 'pivot'"
				" AND waiting_for #>> '{0,what}' = 'operator' AND"
				" steps -> 1 ->> 'state' = 'unknown'"),
		1);
}

static void
undo_has_its_own_budget(void)
{
	kit_saga("order", "stubborn", ALL("ok", "fail", "ok", "fail,fail,fail,ok"));
	CHECK_TEXT(kit_ending("stubborn"), "finished failed done charge no");
	CHECK_TEXT(keys_of("stubborn", "stock.release"),
		"reserve:compensation#1 reserve:compensation:2#2 "
		"reserve:compensation:3#3 "
		"reserve:compensation:4#4");
	kit_saga("order", "never", ALL("ok", "fail", "ok", "fail"));
	CHECK_TEXT(kit_ending("never"), "stuck failed stuck charge no");
	CU_ASSERT_EQUAL(
		pg_int(kit_sql, "SELECT count(*) FROM skald.sagas WHERE key = 'never'"
				" AND steps -> 0 ->> 'state' = 'undo_stuck'"),
		1);
}

static void
a_reply_counts_once(void)
{
	kit_saga("order", "twice", ALL("twice", "twice", "twice", "ok"));
	CHECK_TEXT(kit_ending("twice"), "finished completed none");
	(void)kit_until(
		"SELECT count(*) FROM skald.saga_events e JOIN skald.saga s ON s.id ="
		" e.saga_id WHERE s.key = 'twice' AND e.kind = 'stale'",
		3, 10);
	CU_ASSERT_EQUAL(count_of("twice", "stale"), 3);
	CU_ASSERT_EQUAL(count_of("twice", "command"), 3);
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(*) FROM skald.saga s WHERE seq <> (SELECT"
			" count(*) FROM skald.saga_event_entry e WHERE e.saga_id ="
			" s.id) OR seq <> (SELECT max(e.seq) FROM"
			" skald.saga_event_entry e WHERE e.saga_id = s.id)"),
		0);
}

static void
data_that_is_not_there(void)
{
	kit_saga("order", "bare", "{\"reserve\":\"ok\"}");
	CHECK_TEXT(kit_ending("bare"), "finished failed done charge data_missing");
	CU_ASSERT_EQUAL(
		pg_int(kit_sql, "SELECT count(*) FROM skald.sagas WHERE key = 'bare' AND"
				" reason ->> 'message' LIKE '%$.input.charge%'"),
		1);
}

static void
a_deadline_expires(void)
{
	kit_saga("hurry", "late", "{\"slow\":\"silent\",\"next\":\"ok\"}");
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.saga WHERE key = 'late' AND outcome ="
		" 'expired'",
		1, 10));
	CU_ASSERT_EQUAL(pg_int(kit_sql, "SELECT count(*) FROM skald.outbox WHERE type ="
					" 'slow.do' AND expires_at IS NOT NULL"),
		1);
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(*) FROM skald.outbox WHERE type = 'next.do'"),
		0);
}

/* --- outages ------------------------------------------------------------------------------- */

static void
replies_in_the_topic_are_no_timeouts(void)
{
	kit_saga("order", "away", ALL("ok", "ok", "ok", "ok"));
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.saga WHERE key = 'away' AND seq > 0", 1, 10));
	kit_orchestrate(false);
	(void)poll(NULL, 0, 1800); /* more than three time-outs */
	kit_orchestrate(true);
	CHECK_TEXT(kit_ending("away"), "finished completed none");
	CU_ASSERT_EQUAL(count_of("away", "timeout"), 0);
}

static void
unpublished_commands_do_not_time_out(void)
{
	kit_relay(false);
	kit_saga("order", "kept", ALL("ok", "ok", "ok", "ok"));
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.saga WHERE key = 'kept' AND seq > 0", 1, 10));
	CHECK_TEXT(pg_text(kit_sql,
			   "SELECT waiting_for #>> '{0,what}' FROM skald.sagas WHERE"
			   " key = 'kept'"),
		"relay");
	(void)poll(NULL, 0, 1800);
	kit_relay(true);
	CHECK_TEXT(kit_ending("kept"), "finished completed none");
	CU_ASSERT_EQUAL(count_of("kept", "timeout"), 0);
}

/* The control: here it is the participant who is away. */
static void
a_participant_that_is_away_does_time_out(void)
{
	kit_answer(false);
	kit_saga("order", "nobody", ALL("ok", "ok", "ok", "ok"));
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.saga_events e JOIN skald.saga s ON s.id ="
		" e.saga_id WHERE s.key = 'nobody' AND e.kind = 'timeout'",
		1, 5));
	kit_answer(true);
	CHECK_TEXT(kit_ending("nobody"), "finished completed none");
}

/* --- many ------------------------------------------------------------------------------------- */

static void
hundreds_in_one_transaction(void)
{
	kit_orchestrate(false);
	pg_exec(kit_sql,
		"SELECT skald.saga_start('order', 'many-' || n, '{\"reserve\":\"ok\","
		"\"charge\":\"ok\",\"ship\":\"ok\",\"release\":\"ok\"}')"
		" FROM generate_series(1, 400) n");
	kit_orchestrate(true);
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.saga WHERE key LIKE 'many-%' AND outcome"
		" = 'completed'",
		400, 30));
	CU_ASSERT(pg_int(kit_sql,
			  "SELECT count(DISTINCT o.xid) FROM skald.outbox o JOIN"
			  " skald.saga s ON s.id::text = o.headers ->> 'ce_sagaid' WHERE"
			  " s.key LIKE 'many-%' AND o.type = 'stock.reserve'") <= 3);
}

static void
two_share_the_work(void)
{
	struct kit_run second;

	kit_run(&second, NULL);
	CU_ASSERT(kit_until(
		"SELECT count(DISTINCT owner) FROM skald.saga_partition WHERE until >"
		" now()",
		2, 10));
	CU_ASSERT(kit_until("SELECT max(n) - min(n) FROM (SELECT count(*) n FROM"
			    " skald.saga_partition GROUP BY owner) c",
		0, 10));
	pg_exec(kit_sql,
		"SELECT skald.saga_start('order', 'both-' || n, '{\"reserve\":\"ok\","
		"\"charge\":\"ok\",\"ship\":\"ok\",\"release\":\"ok\"}')"
		" FROM generate_series(1, 200) n");
	CU_ASSERT(kit_until(
		"SELECT count(*) FROM skald.saga WHERE key LIKE 'both-%' AND outcome"
		" = 'completed'",
		200, 30));
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(*) FROM skald.saga_events e JOIN skald.saga s ON"
			" s.id = e.saga_id WHERE s.key LIKE 'both-%' AND kind IN"
			" ('command', 'reply')"),
		1200);
	CU_ASSERT_EQUAL(kit_end(&second), SKALD_OK);
	CU_ASSERT(kit_until(
		"SELECT count(DISTINCT owner) FROM skald.saga_partition WHERE until >"
		" now() AND owner IS NOT NULL",
		1, 10));
}

/* --- who is who ----------------------------------------------------------------------------------- */

static void
another_installation_is_refused(void)
{
	struct kit_run other;

	kit_run(&other, "copy");
	(void)pthread_join(other.thread, NULL);
	CU_ASSERT_EQUAL(other.rc, SKALD_REJECT);
	CU_ASSERT_PTR_NOT_NULL(strstr(other.err.text, "skald db adopt"));
	CU_ASSERT_PTR_NOT_NULL(strstr(other.err.text, "daemon.installation"));
	skald_orchestrator_destroy(other.orchestrator);
	skald_metrics_destroy(other.metrics);
	CU_ASSERT_EQUAL(
		pg_int(kit_sql,
			"SELECT count(*) FROM skald.installation WHERE installation ="
			" 'orders' AND kafka_cluster_id IS NULL"),
		1);
	CHECK_TEXT(pg_text(kit_sql, "SELECT skald.orchestrator_identity('orders', 'A',"
				    " 'skald.replies.orders')"),
		"");
	CU_ASSERT_PTR_NOT_NULL(strstr(
		pg_text(kit_sql, "SELECT skald.orchestrator_identity('orders', 'B',"
				 " 'skald.replies.orders')"),
		"skald db adopt"));
	CHECK_TEXT(pg_text(kit_sql, "SELECT skald.orchestrator_identity('orders', NULL,"
				    " 'skald.replies.orders')"),
		"");
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(all_goes_well),
		CHECK(a_failure_is_undone), CHECK(retries_and_their_keys),
		CHECK(silence_is_unknown), CHECK(undo_has_its_own_budget),
		CHECK(a_reply_counts_once), CHECK(data_that_is_not_there),
		CHECK(a_deadline_expires), CHECK(replies_in_the_topic_are_no_timeouts),
		CHECK(unpublished_commands_do_not_time_out),
		CHECK(a_participant_that_is_away_does_time_out),
		CHECK(hundreds_in_one_transaction), CHECK(two_share_the_work),
		CHECK(another_installation_is_refused) };
	int status;

	kit_start();
	status = check_main("contract.saga.orchestrator", cases, CHECK_COUNT(cases));
	kit_stop();
	return status;
}
