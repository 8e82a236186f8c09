/*
 * consumer_bench.c - a consumer that embeds libskald, as one would write it.
 *
 *	skald-bench-consumer BROKERS TOPIC GROUP CONNINFO COUNT BATCH MODE
 *
 * insert    a handler with one INSERT a message
 * hot       a handler with one UPDATE of one of ten rows a message
 * set       a batch handler with one set-based INSERT
 * set-hot   a batch handler with one set-based UPDATE of ten rows
 * pipeline  a batch handler with one INSERT a message, in libpq's pipeline
 *
 * sql_context is off: these handlers call no SQL function that would read it.
 * A second connection counts the effects once the last message was handled, so
 * the clock stops when they are committed; more effects than messages is a failure.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include <libpq-fe.h>

#include "base/buf.h"
#include "base/config.h"
#include "base/log.h"
#include "base/wake.h"
#include "broker/broker.h"
#include "consumers/consumers.h"
#include "sql/sql.h"
#include "tests/bench/bench.h"

struct bench {
	const char *conninfo;
	struct skald_consumer *consumer;
	bool is_hot;
	int64_t count;
	int prepared_pid; /* of the session that has our statement */
	_Atomic int64_t handled, first_us, end_us, effects;
};

/* --- the handlers ---------------------------------------------------------------------- */

#define SQL_EFFECT \
	"INSERT INTO effects (partition, record_offset, key, body)" \
	" VALUES ($1, $2, $3, $4)"
#define SQL_HOT "UPDATE counter SET n = n + 1 WHERE id = $1"
#define SQL_SET \
	"INSERT INTO effects (partition, record_offset, key, body)" \
	" SELECT * FROM unnest($1, $2, $3, $4)"
#define SQL_SET_HOT \
	"UPDATE counter c SET n = c.n + d.n" \
	" FROM (SELECT id, count(*) AS n FROM unnest($1::int[]) id GROUP BY id) d" \
	" WHERE c.id = d.id"

static enum skald_rc
failed(PGconn *tx, struct skald_err *err)
{
	return skald_fail(err, SKALD_RETRY, "pg", "", "%s", PQerrorMessage(tx));
}

static void
count_up(struct bench *b, int64_t count)
{
	int64_t none = 0;

	atomic_compare_exchange_strong(&b->first_us, &none, bench_now_us());
	atomic_fetch_add(&b->handled, count);
}

/* Once per session of the runner. */
static enum skald_rc
prepare(struct bench *b, PGconn *tx, const char *sql, struct skald_err *err)
{
	PGresult *res;
	bool is_ok;

	if (b->prepared_pid == PQbackendPID(tx))
		return SKALD_OK;
	res = PQprepare(tx, "bench", sql, 0, NULL);
	is_ok = PQresultStatus(res) == PGRES_COMMAND_OK;
	PQclear(res);
	if (!is_ok)
		return failed(tx, err);
	b->prepared_pid = PQbackendPID(tx);
	return SKALD_OK;
}

struct row {
	char partition[16], offset[24];
	const char *value[4];
	int bytes[4];
};
static const int ROW_FORMAT[4] = { 0, 0, 1, 1 };

static void
row_of(const struct skald_delivery *d, struct row *row)
{
	struct skald_slice key = skald_delivery_key(d), body = skald_delivery_value(d);

	snprintf(row->partition, sizeof(row->partition), "%" PRId32,
		skald_delivery_partition(d));
	snprintf(row->offset, sizeof(row->offset), "%" PRId64, skald_delivery_offset(d));
	row->value[0] = row->partition;
	row->value[1] = row->offset;
	row->value[2] = key.data;
	row->value[3] = body.data;
	row->bytes[2] = (int)key.bytes;
	row->bytes[3] = (int)body.bytes;
}

static enum skald_rc
one_insert(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	struct bench *b = ctx;
	struct row row;
	PGresult *res;
	bool is_ok;
	enum skald_rc rc = prepare(b, tx, SQL_EFFECT, err);

	if (rc)
		return rc;
	row_of(d, &row);
	res = PQexecPrepared(tx, "bench", 4, row.value, row.bytes, ROW_FORMAT, 0);
	is_ok = PQresultStatus(res) == PGRES_COMMAND_OK;
	PQclear(res);
	count_up(b, 1);
	return is_ok ? SKALD_OK : failed(tx, err);
}

static enum skald_rc
one_update(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	struct bench *b = ctx;
	const char *value;
	char id[16];
	PGresult *res;
	bool is_ok;
	enum skald_rc rc = prepare(b, tx, SQL_HOT, err);

	if (rc)
		return rc;
	snprintf(id, sizeof(id), "%d", (int)(skald_delivery_offset(d) % 10));
	value = id;
	res = PQexecPrepared(tx, "bench", 1, &value, NULL, NULL, 0);
	is_ok = PQresultStatus(res) == PGRES_COMMAND_OK;
	PQclear(res);
	count_up(b, 1);
	return is_ok ? SKALD_OK : failed(tx, err);
}

static enum skald_rc
one_set(struct skald_delivery *const *deliveries, unsigned count, struct pg_conn *tx,
	void *ctx, struct skald_err *err)
{
	static const enum skald_oid types[4] = { SKALD_OID_INT4, SKALD_OID_INT8,
		SKALD_OID_TEXT, SKALD_OID_TEXT };
	struct skald_buf column[4];
	struct skald_param params[4];
	enum skald_rc rc;
	unsigned i;

	for (i = 0; i < 4; i++) {
		skald_buf_init(&column[i], 64 << 20);
		skald_array_binary_begin(&column[i], types[i]);
	}
	for (i = 0; i < count; i++) {
		const struct skald_delivery *d = deliveries[i];

		skald_array_binary_add_int(&column[0], skald_delivery_partition(d));
		skald_array_binary_add_int(&column[1], skald_delivery_offset(d));
		skald_array_binary_add(&column[2], skald_delivery_key(d));
		skald_array_binary_add(&column[3], skald_delivery_value(d));
	}
	for (i = 0; i < 4; i++)
		params[i] = skald_array_binary_end(&column[i]);
	rc = skald_conn_query(tx, SQL_SET, params, 4, NULL, err);
	for (i = 0; i < 4; i++)
		skald_buf_done(&column[i]);
	count_up(ctx, count);
	return rc;
}

static enum skald_rc
one_set_hot(struct skald_delivery *const *deliveries, unsigned count, struct pg_conn *tx,
	void *ctx, struct skald_err *err)
{
	struct skald_param param;
	struct skald_buf ids;
	enum skald_rc rc;

	skald_buf_init(&ids, 1 << 20);
	skald_array_begin(&ids);
	for (unsigned i = 0; i < count; i++)
		skald_array_add_int(&ids, skald_delivery_offset(deliveries[i]) % 10);
	skald_array_end(&ids);
	param = skald_param_text(ids.data);
	rc = skald_conn_query(tx, SQL_SET_HOT, &param, 1, NULL, err);
	skald_buf_done(&ids);
	count_up(ctx, count);
	return rc;
}

/* Take every result; the first that is wrong fails the batch. */
static enum skald_rc
take_results(PGconn *tx, unsigned count, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;
	PGresult *res;

	for (unsigned i = 0; i < count; i++) {
		res = PQgetResult(tx);
		if (PQresultStatus(res) != PGRES_COMMAND_OK && !rc)
			rc = failed(tx, err);
		PQclear(res);
		PQclear(PQgetResult(tx)); /* NULL: the end of this statement */
	}
	PQclear(PQgetResult(tx)); /* the sync */
	return rc;
}

static enum skald_rc
pipelined(struct skald_delivery *const *deliveries, unsigned count, struct pg_conn *tx,
	void *ctx, struct skald_err *err)
{
	struct bench *b = ctx;
	struct row row;
	unsigned sent;
	enum skald_rc rc = prepare(b, tx, SQL_EFFECT, err);

	if (rc)
		return rc;
	if (!PQenterPipelineMode(tx))
		return failed(tx, err);
	for (sent = 0; sent < count; sent++) {
		row_of(deliveries[sent], &row);
		if (!PQsendQueryPrepared(
			    tx, "bench", 4, row.value, row.bytes, ROW_FORMAT, 0))
			break;
	}
	if (sent < count || !PQpipelineSync(tx))
		return failed(tx, err);
	rc = take_results(tx, count, err);
	if (!PQexitPipelineMode(tx) && !rc)
		rc = failed(tx, err);
	count_up(b, count);
	return rc;
}

/* --- the clock ------------------------------------------------------------------------- */

static int64_t
effects_now(const struct bench *b, PGconn *pg)
{
	PGresult *res = PQexec(pg, b->is_hot ? "SELECT sum(n) FROM counter"
					     : "SELECT count(*) FROM effects");
	int64_t count;

	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		BENCH_DIE("count: %s", PQerrorMessage(pg));
	count = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
	PQclear(res);
	return count;
}

static void *
watch(void *arg)
{
	struct bench *b = arg;
	PGconn *pg = PQconnectdb(b->conninfo);
	const struct timespec pause = { 0, 1000000 };
	int64_t count;

	if (PQstatus(pg) != CONNECTION_OK)
		BENCH_DIE("%s", PQerrorMessage(pg));
	while (atomic_load(&b->handled) < b->count)
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	while ((count = effects_now(b, pg)) < b->count)
		clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	atomic_store(&b->effects, count);
	atomic_store(&b->end_us, bench_now_us());
	skald_wake_stop(skald_consumer_wake(b->consumer));
	PQfinish(pg);
	return NULL;
}

/* --- main ------------------------------------------------------------------------------ */

static bool
choose(struct skald_consumer_conf *conf, struct bench *b, const char *mode)
{
	if (strcmp(mode, "insert") == 0)
		conf->handler = one_insert;
	else if (strcmp(mode, "hot") == 0)
		conf->handler = one_update;
	else if (strcmp(mode, "set") == 0)
		conf->batch = one_set;
	else if (strcmp(mode, "set-hot") == 0)
		conf->batch = one_set_hot;
	else if (strcmp(mode, "pipeline") == 0)
		conf->batch = pipelined;
	else
		return false;
	b->is_hot = strstr(mode, "hot") != NULL;
	return true;
}

static void
consume(struct bench *b, struct skald_consumer_conf *conf, const char *brokers)
{
	struct skald_kafka_props *props = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_config *config = NULL;
	struct skald_config_args args = { .file = "/dev/null", .set_count = 1 };
	const char *sets[1];
	pthread_t watcher;
	char set[256];

	snprintf(set, sizeof(set), "kafka.bootstrap.servers=%s", brokers);
	sets[0] = set;
	args.sets = sets;
	if (skald_config_load(&config, &args, &err) ||
		skald_kafka_props_create(&props, config, &err))
		BENCH_DIE("%s", err.text);
	conf->kafka = props;
	if (skald_consumer_create(&b->consumer, conf, &err))
		BENCH_DIE("%s", err.text);
	if (pthread_create(&watcher, NULL, watch, b))
		BENCH_DIE("no thread");
	if (skald_consumer_run(b->consumer, 5000, &err))
		BENCH_DIE("%s", err.text);
	pthread_join(watcher, NULL);
	skald_consumer_destroy(b->consumer);
	skald_kafka_props_destroy(props);
	skald_config_destroy(config);
}

int
main(int argc, char **argv)
{
	struct skald_topic_conf topics = { .partitions = 8, .replication = -1 };
	struct skald_consumer_conf conf = SKALD_CONSUMER_INIT;
	int64_t begin_us = bench_now_us();
	struct bench b = { 0 };

	if (argc != 8)
		BENCH_DIE("usage: %s BROKERS TOPIC GROUP CONNINFO COUNT BATCH MODE",
			argv[0]);
	skald_log_init("skald-bench-consumer", SKALD_LOG_WARN, SKALD_LOG_TEXT);
	b.conninfo = argv[4];
	b.count = bench_number(argv[5], 1, 100000000, "COUNT");
	conf.group = argv[3];
	conf.url = argv[4];
	conf.topics_conf = &topics;
	conf.topics = (const char *const[]){ argv[2] };
	conf.topic_count = 1;
	conf.batch_max = (unsigned)bench_number(argv[6], 1, 10000, "BATCH");
	conf.sql_context = false;
	conf.ctx = &b;
	if (!choose(&conf, &b, argv[7]))
		BENCH_DIE(
			"mode: insert, hot, set, set-hot or pipeline, is '%s'", argv[7]);
	consume(&b, &conf, argv[1]);
	printf("{\"count\": %" PRId64 ", \"seconds\": %.6f, \"first_s\": %.6f,"
	       " \"handled\": %" PRId64 "}\n",
		atomic_load(&b.effects),
		(double)(atomic_load(&b.end_us) - begin_us) / 1e6,
		(double)(atomic_load(&b.first_us) - begin_us) / 1e6,
		atomic_load(&b.handled));
	return atomic_load(&b.effects) == b.count ? 0 : 1;
}
