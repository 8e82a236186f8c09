/*
 * contract.consumers.sql - the functions that programs in any language call:
 * consume_once, consume_offset, dead_letter, operator_act.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "sql/sql.h"
#include "tests/support/check.h"
#include "tests/support/pg.h"

static struct skald_sql *sql, *other;

/* The SQLSTATE a query fails with; "" if it does not. */
static const char *
state_of(const char *query)
{
	static char state[8];
	struct skald_err err = SKALD_ERR_INIT;

	state[0] = '\0';
	if (skald_sql_exec(sql, query, &err))
		(void)snprintf(state, sizeof(state), "%s", err.code);
	return state;
}

struct caller {
	const char *query;
	atomic_bool is_back;
	char answer[8];
};

static void *
call(void *arg)
{
	struct caller *c = arg;

	(void)snprintf(c->answer, sizeof(c->answer), "%s", pg_text(other, c->query));
	atomic_store(&c->is_back, true);
	return NULL;
}

/* While one holds the id in an open transaction, another waits for how it ends. */
static void
second_waits(const char *query, const char *end, const char *answer)
{
	struct caller c = { .query = query };
	pthread_t thread;

	pg_exec(sql, "BEGIN");
	CHECK_TEXT(pg_text(sql, query), "t");
	(void)pthread_create(&thread, NULL, call, &c);
	(void)poll(NULL, 0, 300);
	CU_ASSERT(!atomic_load(&c.is_back));
	pg_exec(sql, end);
	(void)pthread_join(thread, NULL);
	CHECK_TEXT(c.answer, answer);
}

static void
once_means_once(void)
{
	static const char query[] = "SELECT skald.consume_once('g', '/s 1')";

	CHECK_TEXT(pg_text(sql, query), "t");
	CHECK_TEXT(pg_text(sql, query), "f");
	CHECK_TEXT(pg_text(sql, "SELECT skald.consume_once('other', '/s 1')"), "t");
	second_waits("SELECT skald.consume_once('g', '/s 2')", "COMMIT", "f");
	second_waits("SELECT skald.consume_once('g', '/s 3')", "ROLLBACK", "t");
}

static void
offsets_only_rise(void)
{
	CHECK_TEXT(pg_text(sql, "SELECT skald.consume_offset('g', 't', 0, 5)"), "t");
	CHECK_TEXT(pg_text(sql, "SELECT skald.consume_offset('g', 't', 0, 5)"), "f");
	CHECK_TEXT(pg_text(sql, "SELECT skald.consume_offset('g', 't', 0, 4)"), "f");
	CHECK_TEXT(pg_text(sql, "SELECT skald.consume_offset('g', 't', 1, 4)"), "t");
	CHECK_TEXT(pg_text(sql, "SELECT skald.consume_offset('g', 't', 0, 9)"), "t");
	second_waits("SELECT skald.consume_offset('g', 't', 7, 1)", "COMMIT", "f");
	second_waits("SELECT skald.consume_offset('g', 't', 8, 1)", "ROLLBACK", "t");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT record_offset FROM skald.consumer_offset"
				    " WHERE topic = 't' AND partition = 0"),
		9);
}

static void
wrong_arguments_are_named(void)
{
	CHECK_TEXT(state_of("SELECT skald.consume_once('', 'x')"), "SK001");
	CHECK_TEXT(state_of("SELECT skald.consume_once('g', NULL)"), "SK001");
	CHECK_TEXT(
		state_of("SELECT skald.consume_once('g', repeat('x', 1025))"), "SK007");
	CHECK_TEXT(state_of("SELECT skald.consume_offset('g', '', 0, 1)"), "SK001");
	CHECK_TEXT(state_of("SELECT skald.consume_offset('g', 't', -1, 1)"), "SK001");
	CHECK_TEXT(state_of("SELECT skald.consume_offset('g', 't', 0, -1)"), "SK001");
	CHECK_TEXT(state_of("SELECT skald.consume_offset(repeat('g', 256), 't', 0, 1)"),
		"SK007");
	CHECK_TEXT(state_of("SELECT skald.dead_letter('g', 't', 0, 1, NULL, NULL, '{}', "
			    "'BAD', '', '')"),
		"SK001");
	CHECK_TEXT(state_of("SELECT skald.dead_letter('g', 't', 0, 1, NULL, NULL, '[]', "
			    "'RETRY', '', '')"),
		"SK001");
	CHECK_TEXT(state_of("SELECT skald.dead_letter('g', 't', 0, 1, NULL, NULL, "
			    "'{\"a\":1}',"
			    " 'RETRY', '', '')"),
		"SK001");
	CHECK_TEXT(
		state_of("SELECT skald.operator_act('dlq.replay', 'no uuid')"), "SK001");
	CHECK_TEXT(state_of("SELECT skald.operator_act('dlq.eat', 'x')"), "SK001");
	CHECK_TEXT(state_of("SELECT skald.operator_act('dlq.replay',"
			    " '00000000-0000-0000-0000-000000000000')"),
		"SK004");
}

#define DEAD \
	"SELECT skald.dead_letter(consumer_group => 'g', topic => 'orders', partition " \
	"=> 3," \
	" record_offset => 77, key => 'k', value => '\\x00ff', headers => '{\"ce_id\": " \
	"\"m1\"," \
	" \"ce_type\": \"t\", \"X-Correlation-Id\": \"c1\", \"own\": \"o\", \"b\":" \
	" {\"base64\": \"/w==\"}}', class => 'RETRY', code => 'E1', message => 'line 5 " \
	"is bad')"

static void
the_same_dead_letter_twice_is_one(void)
{
	char id[64];

	(void)snprintf(id, sizeof(id), "%s", pg_text(sql, DEAD));
	CHECK_TEXT(pg_text(sql, DEAD), id);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.dead_letters"), 1);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"), 1);
	CHECK_TEXT(
		pg_text(sql, "SELECT concat_ws('|', correlation_id, message_id, type,"
			     " encode(headers_raw, 'hex')) FROM skald.dead_letter_entry"),
		"c1|m1|t|"
		"00000010582d436f7272656c6174696f6e2d49640000000263310000000162"
		"00000001ff0000000563655f6964000000026d310000000763655f747970650000000174"
		"000000036f776e000000016f");
	CHECK_TEXT(
		pg_text(sql,
			"SELECT concat_ws('|', topic, convert_from(key, 'UTF8'), type,"
			" encode(data, 'hex'), correlation_id, headers ->> 'own',"
			" headers ->> 'x-dlq-original-topic',"
			" headers ->> 'x-dlq-original-partition',"
			" headers ->> 'x-dlq-original-offset', headers ->> 'x-dlq-class',"
			" headers ->> 'x-dlq-reason', headers ->> 'x-dlq-code',"
			" headers ->> 'x-dlq-message', headers ? 'b') FROM skald.outbox"),
		"dlq.g.orders|k|t|00ff|c1|o|orders|3|77|RETRY|exhausted|E1|line 5 is "
		"bad|f");
	/* other bytes at the same place: the topic was made again */
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(DISTINCT skald.dead_letter('g', "
				    "'orders', 3, 77, 'k',"
				    " v::bytea, '{}', 'FATAL', '', 'x')) FROM "
				    "unnest('{a,b,a}'::text[]) v"),
		2);
}

static void
odd_groups_have_a_topic_of_their_own(void)
{
	CHECK_TEXT(pg_text(sql, "SELECT skald.dead_letter_topic('g', 't')"), "dlq.g.t");
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT count(DISTINCT skald.dead_letter_topic(g, t)) FROM"
			    " (VALUES ('a b', 't'), ('a_b', 't'), ('a/b', 't'),"
			    " (repeat('x', 255), repeat('y', 249)),"
			    " (repeat('x', 255), repeat('y', 248) || 'z')) x(g, t)"),
		5);
	CU_ASSERT_EQUAL(
		pg_int(sql, "SELECT max(length(skald.dead_letter_topic(repeat('\u00e4',"
			    " 255), repeat('y', 249))))"),
		249);
}

static void
changes_since_are_refused(void)
{
	pg_exec(sql, "SELECT skald.operator_act('dlq.replay', id::text, args => "
		     "'{\"version\": 1}')"
		     " FROM skald.dead_letters WHERE code = 'E1'");
	CHECK_TEXT(state_of("SELECT skald.operator_act('dlq.replay', id::text)"
			    " FROM skald.dead_letters WHERE code = 'E1'"),
		"SK006");
	pg_exec(sql, "UPDATE skald.dead_letter_entry SET state = 'dead', version = 5");
	CHECK_TEXT(state_of("SELECT skald.operator_act('dlq.replay', id::text,"
			    " args => '{\"version\": 4}') FROM skald.dead_letters"
			    " WHERE code = 'E1'"),
		"SK006");
	CHECK_TEXT(pg_text(sql,
			   "SELECT actor || '|' || action || '|' || (before ->> 'state')"
			   " || '|' || (after ->> 'state') FROM skald.audit"),
		"postgres|dlq.replay|dead|requested");
}

static void
rights_are_as_written(void)
{
	struct skald_sql *app, *boss;
	struct skald_err err = SKALD_ERR_INIT;

	pg_exec(sql, "CREATE ROLE app LOGIN IN ROLE skald_app;"
		     "CREATE ROLE boss LOGIN IN ROLE skald_operator");
	app = pg_session("rights", "app", SKALD_SQL_SERVICE);
	boss = pg_session("rights", "boss", SKALD_SQL_TOOL);
	CHECK_TEXT(pg_text(app, "SELECT skald.consume_once('r', '1')"), "t");
	CU_ASSERT_EQUAL(pg_int(app, "SELECT count(*) FROM"
				    " skald.consumer_claim('r', 't', 0, 2, 'h:1:x', 0)"),
		2);
	CU_ASSERT(skald_sql_exec(app, "SELECT * FROM skald.consumer_lane", &err) ==
		  SKALD_FATAL);
	CU_ASSERT(skald_sql_exec(app, "SELECT skald.operator_act('dlq.replay', 'x')",
			  &err) == SKALD_FATAL);
	CHECK_TEXT(err.code, "42501");
	CU_ASSERT(skald_sql_exec(boss, "SELECT skald.operator_act('dlq.replay', 'x')",
			  &err) == SKALD_REJECT);
	CU_ASSERT(skald_sql_exec(boss, "SELECT value FROM skald.dead_letters", &err) ==
		  SKALD_OK);
	CU_ASSERT(skald_sql_exec(boss, "SELECT skald.consume_once('r', '2')", &err) ==
		  SKALD_FATAL);
	skald_sql_close(app);
	skald_sql_close(boss);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(once_means_once),
		CHECK(offsets_only_rise),
		CHECK(wrong_arguments_are_named),
		CHECK(the_same_dead_letter_twice_is_one),
		CHECK(odd_groups_have_a_topic_of_their_own),
		CHECK(changes_since_are_refused),
		CHECK(rights_are_as_written),
	};
	int status;

	sql = pg_open("rights", SKALD_SQL_TOOL);
	other = pg_session("rights", "postgres", SKALD_SQL_TOOL);
	status = check_main("contract.consumers.sql", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	skald_sql_close(other);
	return status;
}
