/*
 * contract.consumers.replay - dead letters keep the record byte by byte; replayed
 * they have one effect, whoever asks how often.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/contract/consumers/kit.h"
#include "tests/support/check.h"

#define VALUE_BYTES (10 * 1024 * 1024)

static struct skald_sql *sql;

/* Rejects until the table `repaired` has a row; then compares what it gets with `wanted`. */
struct wanted {
	struct skald_slice key, value;
	const struct skald_header *headers;
	size_t header_count;
	bool is_same;
	bool was_replay;
};

static bool
is_same(const struct skald_delivery *d, const struct wanted *w)
{
	struct skald_headers headers = skald_delivery_headers(d);

	if (!skald_slice_is_equal(skald_delivery_key(d), w->key) ||
		!skald_delivery_key(d).data != !w->key.data ||
		!skald_slice_is_equal(skald_delivery_value(d), w->value) ||
		!skald_delivery_value(d).data != !w->value.data)
		return false;
	if (headers.count < w->header_count)
		return false;
	/* ours are the last ones, in order */
	for (size_t i = 0; i < w->header_count; i++) {
		const struct skald_header *got =
			&headers.items[headers.count - w->header_count + i];

		if (!skald_slice_is_equal(got->name, w->headers[i].name) ||
			!skald_slice_is_equal(got->value, w->headers[i].value) ||
			!got->value.data != !w->headers[i].value.data)
			return false;
	}
	return true;
}

static enum skald_rc
until_repaired(
	struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	struct wanted *w = ctx;
	struct skald_rows *rows = NULL;
	enum skald_rc rc;
	bool is_repaired;

	rc = skald_conn_query(tx, "SELECT 1 FROM repaired", NULL, 0, &rows, err);
	if (rc)
		return rc;
	is_repaired = skald_rows_count(rows) > 0;
	skald_rows_free(rows);
	if (w) {
		w->is_same = is_same(d, w);
		w->was_replay = skald_delivery_is_replay(d);
	}
	if (!is_repaired)
		return skald_fail(err, SKALD_REJECT, "shop", "broken", "sku: unknown");
	return kit_effect(d, tx, NULL, err);
}

static void
clean(void)
{
	pg_exec(sql, "TRUNCATE effect, sent, repaired, skald.dead_letter_entry,"
		     " skald.audit_entry");
}

static const char *
request(struct skald_sql *session, const char *id, struct skald_err *err)
{
	static _Thread_local char answer[400];
	struct skald_param params[1] = { skald_param_text(id) };
	struct skald_rows *rows = NULL;

	answer[0] = '\0';
	if (skald_sql_query(session,
		    "SELECT skald.operator_act(action => 'dlq.replay', target => $1,"
		    " actor => 'ann', reason => 'repaired') ->> 'state'",
		    params, 1, false, &rows, err))
		return err->code;
	(void)skald_slice_copy(skald_rows_get(rows, 0, 0), answer, sizeof(answer));
	skald_rows_free(rows);
	return answer;
}

static char *
copy_text(const char *text)
{
	return strdup(text);
}

/* --- bytes --------------------------------------------------------------------------------------------- */

static void
bytes_survive(const char *group, const struct kit_record *record, struct wanted *wanted)
{
	struct skald_consumer_conf conf = kit_conf(group, &record->topic);
	struct skald_err err = SKALD_ERR_INIT;
	struct kit_run run;
	char *id;

	clean();
	kit_send(record);
	kit_flush();
	conf.handler = until_repaired;
	conf.ctx = wanted;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql,
		"SELECT count(*) FROM skald.dead_letters WHERE class = 'FATAL'"
		" AND code = 'broken'",
		1, 40));
	CU_ASSERT(wanted->is_same && !wanted->was_replay);
	wanted->is_same = false;
	pg_exec(sql, "INSERT INTO repaired VALUES (1)");
	id = copy_text(pg_text(sql, "SELECT id FROM skald.dead_letters"));
	CHECK_TEXT(request(sql, id, &err), "requested");
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 1, 20));
	CU_ASSERT(wanted->is_same && wanted->was_replay);
	CHECK_TEXT(pg_text(sql, "SELECT state || attempts FROM skald.dead_letters"),
		"resolved2");
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	free(id);
}

static void
odd_bytes_survive_dead_letter_and_replay(void)
{
	static const struct skald_header odd[] = {
		{ { "dup", 3 }, { "1", 1 } },
		{ { "dup", 3 }, { "2", 1 } },
		{ { "null", 4 }, { NULL, 0 } },
		{ { "empty", 5 }, { "", 0 } },
		{ { "quote\"\\", 7 }, { "\"\\\n\t", 4 } },
	};
	struct wanted wanted = { .key = { "k\xff\x01", 3 },
		.value = { "\0\1\2\xff{", 5 },
		.headers = odd,
		.header_count = 5 };
	const char *topic = kit_topic(1);

	bytes_survive("odd",
		&(struct kit_record){ .topic = topic,
			.key = "k\xff\x01",
			.value = "\0\1\2\xff{",
			.value_bytes = 5,
			.point = 1,
			.more = odd,
			.more_count = 5 },
		&wanted);
	CHECK_TEXT(pg_text(sql, "SELECT headers ->> 'dup' FROM skald.dead_letters"), "2");
}

static void
null_key_and_value_survive(void)
{
	struct wanted wanted = { .key = { NULL, 0 }, .value = { NULL, 0 } };
	const char *topic = kit_topic(1);

	bytes_survive(
		"nulls", &(struct kit_record){ .topic = topic, .point = 1 }, &wanted);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.dead_letters"
				    " WHERE key IS NULL AND value IS NULL"),
		1);
}

/* Less than 5 MiB of records fit into a partition of the dev broker: one that is larger stays. */
static void
ten_megabytes_survive(void)
{
	char *value = malloc(VALUE_BYTES);
	const char *topic = kit_topic(1);

	if (!value) {
		CU_FAIL("out of memory");
		return;
	}
	for (size_t i = 0; i < VALUE_BYTES; i++)
		value[i] = (char)(i * 2654435761u >> 24);
	struct wanted wanted = { .key = { "k", 1 }, .value = { value, VALUE_BYTES } };

	bytes_survive("big",
		&(struct kit_record){ .topic = topic,
			.key = "k",
			.value = value,
			.value_bytes = VALUE_BYTES,
			.point = 1 },
		&wanted);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT octet_length(data) FROM skald.outbox"
				    " WHERE topic LIKE 'dlq.big.%'"),
		VALUE_BYTES);
	free(value);
}

/* --- garbage ------------------------------------------------------------------------------------------------ */

static void
garbage_becomes_dead_letters(void)
{
	static const struct skald_header wild[] = {
		{ { "ce_id", 5 }, { "\xff\xfe", 2 } },
		{ { "\xc3\x28", 2 }, { "x", 1 } },
	};
	static const struct skald_header twice[] = { { { "ce_id", 5 }, { "other", 5 } } };
	static const struct skald_header past[] = { { { "ce_expirytime", 13 },
		{ "2020-01-01T00:00:00Z", 20 } } };
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("garbage", &topic);
	struct kit_run run;

	clean();
	pg_exec(sql, "INSERT INTO repaired VALUES (1)");
	kit_send(&(struct kit_record){
		.topic = topic, .is_bare = true, .value = "\xff\xff" });
	kit_send(&(struct kit_record){ .topic = topic,
		.is_bare = true,
		.value = "{}",
		.more = wild,
		.more_count = 2 });
	kit_send(&(struct kit_record){ .topic = topic,
		.id = "one",
		.value = "{}",
		.more = twice,
		.more_count = 1 });
	kit_send(&(struct kit_record){ .topic = topic,
		.id = "late",
		.value = "{}",
		.more = past,
		.more_count = 1 });
	kit_send(&(struct kit_record){ .topic = topic, .id = "good", .value = "{}" });
	kit_flush();
	conf.handler = until_repaired;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM effect", 1, 30));
	CHECK_TEXT(pg_text(sql, "SELECT string_agg(class || ' ' || code, ', ' ORDER BY"
				" record_offset) FROM skald.dead_letters"),
		"DECODE missing, DECODE utf8, DECODE double, EXPIRED expired");
	CHECK_TEXT(pg_text(sql, "SELECT string_agg(encode(value, 'hex'), ' ' ORDER BY"
				" record_offset) FROM skald.dead_letters"),
		"ffff 7b7d 7b7d 7b7d");
	CHECK_TEXT(
		pg_text(sql,
			"SELECT headers -> 'ce_id' ->> 'base64' FROM skald.dead_letters"
			" WHERE code = 'utf8'"),
		"//4=");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"
				    " WHERE topic LIKE 'dlq.garbage.%'"),
		4);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static void
an_expired_one_stays_without_effect(void)
{
	struct skald_consumer_conf conf;
	const char *topic = kit_topic(1);
	static const struct skald_header past[] = { { { "ce_expirytime", 13 },
		{ "2020-01-01T00:00:00Z", 20 } } };
	struct skald_err err = SKALD_ERR_INIT;
	struct kit_run run;
	char *id;

	clean();
	conf = kit_conf("expired", &topic);
	pg_exec(sql, "INSERT INTO repaired VALUES (1)");
	kit_send(&(struct kit_record){ .topic = topic,
		.id = "late",
		.value = "{}",
		.more = past,
		.more_count = 1 });
	kit_flush();
	conf.handler = until_repaired;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM skald.dead_letters", 1, 30));
	id = copy_text(pg_text(sql, "SELECT id FROM skald.dead_letters"));
	CHECK_TEXT(request(sql, id, &err), "requested");
	CU_ASSERT(kit_until(sql,
		"SELECT count(*) FROM skald.dead_letters WHERE state = 'expired'", 1,
		20));
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM effect"), 0);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	free(id);
}

/* --- twice ----------------------------------------------------------------------------------------------------- */

struct asker {
	const char *ids[8];
	unsigned count;
	unsigned requested, refused;
	char text[232];
};

static void *
ask(void *arg)
{
	struct asker *a = arg;
	struct skald_sql *session = pg_session("shop", "postgres", SKALD_SQL_TOOL);

	for (unsigned i = 0; i < a->count; i++) {
		struct skald_err err = SKALD_ERR_INIT;
		const char *answer = request(session, a->ids[i], &err);

		if (strcmp(answer, "SK006") == 0) {
			a->refused++;
			(void)snprintf(a->text, sizeof(a->text), "%s", err.text);
		} else {
			a->requested += strcmp(err.code, "") == 0;
		}
	}
	skald_sql_close(session);
	return NULL;
}

static void
replayed_twice_at_once_has_one_effect(void)
{
	const char *topic = kit_topic(2);
	struct skald_consumer_conf conf = kit_conf("twice", &topic);
	struct asker askers[2] = { { .count = 7 }, { .count = 7 } };
	struct kit_run run;
	pthread_t threads[2];
	char query[120], id[16];

	clean();
	for (unsigned i = 0; i < 7; i++) {
		snprintf(id, sizeof(id), "r-%u", i);
		kit_send(&(struct kit_record){ .topic = topic,
			.partition = (int32_t)(i % 2),
			.key = "k",
			.id = id,
			.value = "x",
			.point = 1 + i });
	}
	kit_flush();
	conf.handler = until_repaired;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM skald.dead_letters", 7, 30));
	pg_exec(sql, "INSERT INTO repaired VALUES (1);"
		     "INSERT INTO sent SELECT message_id FROM skald.dead_letters");
	for (unsigned i = 0; i < 7; i++) {
		snprintf(query, sizeof(query),
			"SELECT id FROM skald.dead_letters WHERE message_id = 'r-%u'", i);
		askers[0].ids[i] = askers[1].ids[i] = copy_text(pg_text(sql, query));
	}
	for (unsigned i = 0; i < 2; i++)
		(void)pthread_create(&threads[i], NULL, ask, &askers[i]);
	for (unsigned i = 0; i < 2; i++)
		(void)pthread_join(threads[i], NULL);
	CU_ASSERT_EQUAL(askers[0].requested + askers[1].requested, 7);
	CU_ASSERT_EQUAL(askers[0].refused + askers[1].refused, 7);
	CU_ASSERT(strstr(askers[askers[0].refused ? 0 : 1].text, "allowed now:") != NULL);
	CU_ASSERT(kit_until(sql,
		"SELECT count(*) FROM skald.dead_letters WHERE state = 'resolved'", 7,
		30));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.audit WHERE"
				    " action = 'dlq.replay' AND actor = 'ann'"),
		7);
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.audit WHERE"
				    " action = 'dlq.replay.end'"
				    " AND after ->> 'state' = 'resolved'"),
		7);
	for (unsigned i = 0; i < 7; i++)
		free((char *)(uintptr_t)askers[0].ids[i]);
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
}

static void
what_fails_again_is_dead_again(void)
{
	const char *topic = kit_topic(1);
	struct skald_consumer_conf conf = kit_conf("again", &topic);
	struct skald_err err = SKALD_ERR_INIT;
	struct kit_run run;
	char *id;

	clean();
	kit_send(&(struct kit_record){
		.topic = topic, .id = "a", .value = "x", .point = 1 });
	kit_flush();
	conf.handler = until_repaired;
	kit_run(&run, &conf);
	CU_ASSERT(kit_until(sql, "SELECT count(*) FROM skald.dead_letters", 1, 30));
	id = copy_text(pg_text(sql, "SELECT id FROM skald.dead_letters"));
	for (unsigned i = 2; i <= 3; i++) {
		CHECK_TEXT(request(sql, id, &err), "requested");
		CU_ASSERT(kit_until(sql,
			"SELECT attempts FROM skald.dead_letters WHERE state = 'dead'", i,
			20));
	}
	/* left claimed by an owner that died: claimed again, and shut out by the version */
	pg_exec(sql,
		"INSERT INTO repaired VALUES (1); INSERT INTO sent VALUES ('a');"
		"UPDATE skald.dead_letter_entry SET state = 'claimed', version = 100");
	CU_ASSERT(kit_until(sql,
		"SELECT count(*) FROM skald.dead_letters WHERE state = 'resolved'", 1,
		20));
	CHECK_TEXT(kit_wrong_effects(sql), "");
	CHECK_TEXT(request(sql, id, &err), "SK006");
	CU_ASSERT_EQUAL(kit_end_run(&run), SKALD_OK);
	free(id);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(odd_bytes_survive_dead_letter_and_replay),
		CHECK(null_key_and_value_survive),
		CHECK(ten_megabytes_survive),
		CHECK(garbage_becomes_dead_letters),
		CHECK(an_expired_one_stays_without_effect),
		CHECK(replayed_twice_at_once_has_one_effect),
		CHECK(what_fails_again_is_dead_again),
	};
	int status;

	kit_start(false);
	sql = pg_session("shop", "postgres", SKALD_SQL_TOOL);
	pg_exec(sql, "CREATE TABLE repaired (n int)");
	status = check_main("contract.consumers.replay", cases, CHECK_COUNT(cases));
	skald_sql_close(sql);
	kit_stop();
	return status;
}
