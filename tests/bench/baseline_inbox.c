/*
 * baseline_inbox.c - the consumer that is usually written: a row per message
 * in an inbox table, many messages per transaction, the offset after it.
 *
 *	skald-bench-inbox BROKERS TOPIC GROUP CONNINFO COUNT BATCH insert|hot|pipeline
 *
 * insert    per message INSERT inbox ON CONFLICT DO NOTHING, then INSERT effect
 * hot       the same with UPDATE of one of ten rows for an effect
 * pipeline  both as one statement, the whole batch in libpq's pipeline
 *
 * Knows nothing of libskald. Prints the seconds from main to the last COMMIT.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>

#include "tests/bench/bench.h"

#define BATCH_MAX 10000

enum mode { INSERT, HOT, PIPELINE };

struct bench {
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	PGconn *pg;
	enum mode mode;
	int64_t doubled;
	int64_t commits;
};

/* One message as parameters of a statement. */
struct row {
	char id[40], partition[16], offset[24], counter[4];
	const char *value[5]; /* id, partition, offset, key, body */
	int bytes[5];
};
static const int ROW_FORMAT[5] = { 0, 0, 0, 1,
	1 }; /* text as binary: no terminator needed */

static void
check(struct bench *b, PGresult *res, const char *what)
{
	ExecStatusType status = PQresultStatus(res);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		BENCH_DIE("%s: %s", what, PQerrorMessage(b->pg));
}

static void
command(struct bench *b, const char *sql)
{
	PGresult *res = PQexec(b->pg, sql);

	check(b, res, sql);
	PQclear(res);
}

static void
prepare(struct bench *b, const char *name, const char *sql)
{
	PGresult *res = PQprepare(b->pg, name, sql, 0, NULL);

	check(b, res, sql);
	PQclear(res);
}

static void
open_database(struct bench *b, const char *conninfo)
{
	b->pg = PQconnectdb(conninfo);
	if (PQstatus(b->pg) != CONNECTION_OK)
		BENCH_DIE("%s", PQerrorMessage(b->pg));
	prepare(b, "inbox",
		"INSERT INTO inbox (consumer_group, message_id) VALUES ('bench', $1)"
		" ON CONFLICT DO NOTHING");
	prepare(b, "effect",
		"INSERT INTO effects (partition, record_offset, key, body)"
		" VALUES ($1, $2, $3, $4)");
	prepare(b, "hot", "UPDATE counter SET n = n + 1 WHERE id = $1");
	prepare(b, "both",
		"WITH new AS (INSERT INTO inbox (consumer_group, message_id)"
		" VALUES ('bench', $1)"
		" ON CONFLICT DO NOTHING RETURNING 1)"
		" INSERT INTO effects (partition, record_offset, key, body)"
		" SELECT $2::int, $3::bigint, $4::text, $5::text FROM new");
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char why[256];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
		BENCH_DIE("%s", why);
}

static void
open_consumer(struct bench *b, const char *brokers, const char *topic, const char *group)
{
	rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_resp_err_t rc;
	char why[256];

	set(conf, "bootstrap.servers", brokers);
	set(conf, "group.id", group);
	set(conf, "enable.auto.commit", "false");
	set(conf, "auto.offset.reset", "earliest");
	b->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
	if (!b->rk)
		BENCH_DIE("%s", why);
	rd_kafka_poll_set_consumer(b->rk);
	rd_kafka_topic_partition_list_add(topics, topic, RD_KAFKA_PARTITION_UA);
	rc = rd_kafka_subscribe(b->rk, topics);
	if (rc)
		BENCH_DIE("subscribe: %s", rd_kafka_err2str(rc));
	rd_kafka_topic_partition_list_destroy(topics);
	b->queue = rd_kafka_queue_get_consumer(b->rk);
}

static void
row_of(const rd_kafka_message_t *msg, struct row *row)
{
	rd_kafka_headers_t *headers = NULL;
	const void *id = NULL;
	size_t bytes = 0;

	if (rd_kafka_message_headers(msg, &headers) ||
		rd_kafka_header_get_last(headers, "ce_id", &id, &bytes))
		BENCH_DIE("a message without ce_id");
	snprintf(row->id, sizeof(row->id), "%.*s", (int)bytes, (const char *)id);
	snprintf(row->partition, sizeof(row->partition), "%" PRId32, msg->partition);
	snprintf(row->offset, sizeof(row->offset), "%" PRId64, msg->offset);
	snprintf(row->counter, sizeof(row->counter), "%d", (int)(msg->offset % 10));
	row->value[0] = row->id;
	row->value[1] = row->partition;
	row->value[2] = row->offset;
	row->value[3] = msg->key;
	row->value[4] = msg->payload;
	row->bytes[3] = (int)msg->key_len;
	row->bytes[4] = (int)msg->len;
}

static bool
execute(struct bench *b, const char *name, int count, const char *const *value,
	const int *bytes, const int *format)
{
	PGresult *res = PQexecPrepared(b->pg, name, count, value, bytes, format, 0);
	bool is_done;

	check(b, res, name);
	is_done = PQcmdTuples(res)[0] == '1';
	PQclear(res);
	return is_done;
}

static void
apply(struct bench *b, const rd_kafka_message_t *msg)
{
	const char *counter;
	struct row row;

	row_of(msg, &row);
	if (!execute(b, "inbox", 1, row.value, row.bytes, ROW_FORMAT)) {
		b->doubled++;
		return;
	}
	counter = row.counter;
	if (b->mode == HOT)
		(void)execute(b, "hot", 1, &counter, NULL, NULL);
	else
		(void)execute(
			b, "effect", 4, row.value + 1, row.bytes + 1, ROW_FORMAT + 1);
}

static void
apply_pipelined(struct bench *b, rd_kafka_message_t **msgs, ssize_t count)
{
	PGresult *res;
	struct row row;
	ssize_t i;

	if (!PQenterPipelineMode(b->pg))
		BENCH_DIE("pipeline: %s", PQerrorMessage(b->pg));
	for (i = 0; i < count; i++) {
		row_of(msgs[i], &row);
		if (!PQsendQueryPrepared(
			    b->pg, "both", 5, row.value, row.bytes, ROW_FORMAT, 0))
			BENCH_DIE("pipeline: %s", PQerrorMessage(b->pg));
	}
	if (!PQpipelineSync(b->pg))
		BENCH_DIE("pipeline: %s", PQerrorMessage(b->pg));
	for (i = 0; i < count; i++) {
		res = PQgetResult(b->pg);
		check(b, res, "pipeline");
		b->doubled += PQcmdTuples(res)[0] != '1';
		PQclear(res);
		PQclear(PQgetResult(b->pg)); /* NULL: the end of this statement */
	}
	PQclear(PQgetResult(b->pg)); /* the sync */
	if (!PQexitPipelineMode(b->pg))
		BENCH_DIE("pipeline: %s", PQerrorMessage(b->pg));
}

/* The offsets of the batch, as a hint, without waiting. */
static void
commit_offsets(struct bench *b, rd_kafka_message_t **msgs, ssize_t count)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
	rd_kafka_topic_partition_t *place;
	const char *topic;
	ssize_t i;

	for (i = 0; i < count; i++) {
		topic = rd_kafka_topic_name(msgs[i]->rkt);
		place = rd_kafka_topic_partition_list_find(
			list, topic, msgs[i]->partition);
		if (!place)
			place = rd_kafka_topic_partition_list_add(
				list, topic, msgs[i]->partition);
		place->offset = msgs[i]->offset + 1;
	}
	if (rd_kafka_commit(b->rk, list, 1))
		BENCH_DIE("could not commit offsets");
	rd_kafka_topic_partition_list_destroy(list);
}

/* Drops what is no message; returns how many are left. */
static ssize_t
only_messages(rd_kafka_message_t **msgs, ssize_t count)
{
	ssize_t kept = 0;

	for (ssize_t i = 0; i < count; i++) {
		if (!msgs[i]->err) {
			msgs[kept++] = msgs[i];
			continue;
		}
		if (msgs[i]->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
			fprintf(stderr, "kafka: %s\n", rd_kafka_message_errstr(msgs[i]));
		rd_kafka_message_destroy(msgs[i]);
	}
	return kept;
}

static void
turn(struct bench *b, rd_kafka_message_t **msgs, ssize_t count)
{
	command(b, "BEGIN");
	if (b->mode == PIPELINE)
		apply_pipelined(b, msgs, count);
	for (ssize_t i = 0; b->mode != PIPELINE && i < count; i++)
		apply(b, msgs[i]);
	command(b, "COMMIT");
	b->commits++;
	commit_offsets(b, msgs, count);
	for (ssize_t i = 0; i < count; i++)
		rd_kafka_message_destroy(msgs[i]);
}

static enum mode
mode_of(const char *text)
{
	if (strcmp(text, "insert") == 0)
		return INSERT;
	if (strcmp(text, "hot") == 0)
		return HOT;
	if (strcmp(text, "pipeline") == 0)
		return PIPELINE;
	BENCH_DIE("mode: insert, hot or pipeline, is '%s'", text);
}

int
main(int argc, char **argv)
{
	static rd_kafka_message_t *msgs[BATCH_MAX];
	int64_t begin_us = bench_now_us(), first_us = 0, end_us = 0;
	int64_t count, done = 0;
	struct bench b = { 0 };
	size_t batch;
	ssize_t n;

	if (argc != 8)
		BENCH_DIE("usage: %s BROKERS TOPIC GROUP CONNINFO COUNT BATCH MODE",
			argv[0]);
	count = bench_number(argv[5], 1, 100000000, "COUNT");
	batch = (size_t)bench_number(argv[6], 1, BATCH_MAX, "BATCH");
	b.mode = mode_of(argv[7]);
	open_database(&b, argv[4]);
	open_consumer(&b, argv[1], argv[2], argv[3]);
	while (done < count) {
		n = rd_kafka_consume_batch_queue(b.queue, 100, msgs, batch);
		if (n < 0)
			BENCH_DIE("kafka: %s", rd_kafka_err2str(rd_kafka_last_error()));
		n = only_messages(msgs, n);
		if (!n)
			continue;
		if (!first_us)
			first_us = bench_now_us();
		turn(&b, msgs, n);
		done += n;
		end_us = bench_now_us();
	}
	printf("{\"count\": %" PRId64 ", \"seconds\": %.6f, \"first_s\": %.6f,"
	       " \"commits\": %" PRId64 ", \"doubled\": %" PRId64 "}\n",
		done, (double)(end_us - begin_us) / 1e6,
		(double)(first_us - begin_us) / 1e6, b.commits, b.doubled);
	rd_kafka_queue_destroy(b.queue);
	rd_kafka_consumer_close(b.rk);
	rd_kafka_destroy(b.rk);
	PQfinish(b.pg);
	return 0;
}
