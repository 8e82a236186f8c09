/*
 * latency.c - how long a message takes, at a steady rate.
 *
 *	skald-bench-latency outbox BROKERS TOPIC RATE SECONDS CONNINFO
 *	skald-bench-latency produce BROKERS TOPIC RATE SECONDS LINGER_MS
 *
 * outbox   one transaction a message: INSERT of an order, skald.outbox_add_bytes;
 *          from the moment COMMIT returned until the record is seen
 * produce  librdkafka alone, acks=all, idempotent: from produce() until its
 *          delivery report (what kcat waits for), and until the record is seen
 *
 * "Seen" is by a consumer in this process that waits at every partition, with
 * one monotonic clock; the broker shows a record to consumers when all replicas
 * that count have it, which is also when it acknowledges. `produce` measures both
 * ends, so the distance between them is known in the same run.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>

#include "tests/bench/bench.h"

#define COUNT_MAX   2000000
#define VALUE_BYTES 300

static int64_t begun_us[COUNT_MAX]; /* by the writer */
static int64_t acked_us[COUNT_MAX]; /* produce: by the delivery report */
static _Atomic int64_t seen_us[COUNT_MAX];
static atomic_long seen_count;
static atomic_bool stop;

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char why[256];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
		BENCH_DIE("%s", why);
}

/* --- the watching consumer ------------------------------------------------------------ */

static rd_kafka_t *
open_watcher(const char *brokers, const char *topic)
{
	rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(8);
	const struct rd_kafka_metadata *meta = NULL;
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_t *rkt;
	int64_t lo = 0, hi = 0;
	rd_kafka_t *rk;
	rd_kafka_resp_err_t rc = RD_KAFKA_RESP_ERR_NO_ERROR;
	char why[256];

	set(conf, "bootstrap.servers", brokers);
	set(conf, "group.id", "bench-latency");
	set(conf, "enable.auto.commit", "false");
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof(why));
	if (!rk)
		BENCH_DIE("%s", why);
	rd_kafka_poll_set_consumer(rk);
	rkt = rd_kafka_topic_new(rk, topic, NULL);
	if (rd_kafka_metadata(rk, 0, rkt, &meta, 10000) || meta->topic_cnt != 1)
		BENCH_DIE("no metadata of %s", topic);
	for (int p = 0; p < meta->topics[0].partition_cnt; p++) {
		/* a young topic's partitions may be looking for their leader yet */
		for (int tries = 0; tries < 100; tries++) {
			rc = rd_kafka_query_watermark_offsets(
				rk, topic, p, &lo, &hi, 10000);
			if (rc == RD_KAFKA_RESP_ERR_NO_ERROR)
				break;
			clock_nanosleep(CLOCK_MONOTONIC, 0,
				&(struct timespec){ 0, 100000000 }, NULL);
		}
		if (rc)
			BENCH_DIE(
				"offsets of %s[%d]: %s", topic, p, rd_kafka_err2str(rc));
		rd_kafka_topic_partition_list_add(all, topic, p)->offset = hi;
	}
	if (rd_kafka_assign(rk, all))
		BENCH_DIE("could not assign %s", topic);
	rd_kafka_topic_partition_list_destroy(all);
	rd_kafka_metadata_destroy(meta);
	rd_kafka_topic_destroy(rkt);
	return rk;
}

/* {"n":17,... -> 17; -1 when it is something else */
static long
number_of(const rd_kafka_message_t *msg)
{
	static const char head[] = "{\"n\":";
	const char *text = msg->payload;
	long n = 0;

	if (msg->len < sizeof(head) || memcmp(text, head, sizeof(head) - 1) != 0)
		return -1;
	for (size_t i = sizeof(head) - 1; i < msg->len; i++) {
		if (text[i] < '0' || text[i] > '9')
			break;
		n = n * 10 + (text[i] - '0');
	}
	return n < COUNT_MAX ? n : -1;
}

static void *
watch(void *arg)
{
	rd_kafka_message_t *msg;
	int64_t expected;
	long n;

	while (!atomic_load(&stop)) {
		msg = rd_kafka_consumer_poll(arg, 100);
		if (!msg)
			continue;
		n = msg->err ? -1 : number_of(msg);
		expected = 0;
		/* the first appearance counts */
		if (n >= 0 && atomic_compare_exchange_strong(
				      &seen_us[n], &expected, bench_now_us()))
			atomic_fetch_add(&seen_count, 1);
		rd_kafka_message_destroy(msg);
	}
	return NULL;
}

/* --- the two writers ------------------------------------------------------------------- */

struct writer {
	PGconn *pg;
	rd_kafka_t *rk;
	const char *topic;
};

static void
on_report(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *ctx)
{
	(void)rk;
	(void)ctx;
	if (msg->err)
		BENCH_DIE("delivery: %s", rd_kafka_err2str(msg->err));
	acked_us[(intptr_t)msg->_private] = bench_now_us();
}

static void *
serve_reports(void *arg)
{
	while (!atomic_load(&stop))
		rd_kafka_poll(arg, 100);
	return NULL;
}

static rd_kafka_t *
open_producer(const char *brokers, const char *linger_ms)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	char why[256];

	set(conf, "bootstrap.servers", brokers);
	set(conf, "enable.idempotence", "true");
	set(conf, "linger.ms", linger_ms);
	rd_kafka_conf_set_dr_msg_cb(conf, on_report);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
	if (!rk)
		BENCH_DIE("%s", why);
	return rk;
}

static void
statement(PGconn *pg, PGresult *res, const char *what)
{
	if (PQresultStatus(res) != PGRES_COMMAND_OK &&
		PQresultStatus(res) != PGRES_TUPLES_OK)
		BENCH_DIE("%s: %s", what, PQerrorMessage(pg));
	PQclear(res);
}

static PGconn *
open_database(const char *conninfo)
{
	PGconn *pg = PQconnectdb(conninfo);

	if (PQstatus(pg) != CONNECTION_OK)
		BENCH_DIE("%s", PQerrorMessage(pg));
	statement(pg,
		PQprepare(
			pg, "order", "INSERT INTO orders (amount) VALUES ($1)", 0, NULL),
		"prepare");
	statement(pg,
		PQprepare(pg, "add",
			"SELECT skald.outbox_add_bytes(topic => $1, key => $2::bytea,"
			" type => 'bench.order.placed', data => $3::bytea,"
			" content_type => 'application/json')",
			0, NULL),
		"prepare");
	return pg;
}

static void
write_row(struct writer *w, const char *key, const char *value)
{
	const char *params[3] = { w->topic, key, value };
	const int bytes[3] = { 0, (int)strlen(key), VALUE_BYTES };
	const int format[3] = { 0, 1, 1 };
	const char *amount = "17";

	statement(w->pg, PQexec(w->pg, "BEGIN"), "begin");
	statement(w->pg, PQexecPrepared(w->pg, "order", 1, &amount, NULL, NULL, 0),
		"insert");
	statement(w->pg, PQexecPrepared(w->pg, "add", 3, params, bytes, format, 0),
		"outbox_add_bytes");
	statement(w->pg, PQexec(w->pg, "COMMIT"), "commit");
}

static void
write_one(struct writer *w, long n)
{
	char key[24], value[VALUE_BYTES];
	rd_kafka_resp_err_t rc;
	int used;

	snprintf(key, sizeof(key), "key-%06ld", n % 10000);
	used = snprintf(value, sizeof(value), "{\"n\":%ld,\"pad\":\"", n);
	memset(value + used, 'x', sizeof(value) - (size_t)used);
	memcpy(value + sizeof(value) - 2, "\"}", 2);
	if (w->pg) {
		write_row(w, key, value);
		begun_us[n] = bench_now_us();
		return;
	}
	begun_us[n] = bench_now_us();
	rc = rd_kafka_producev(w->rk, RD_KAFKA_V_TOPIC(w->topic),
		RD_KAFKA_V_KEY(key, strlen(key)), RD_KAFKA_V_VALUE(value, sizeof(value)),
		RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
		RD_KAFKA_V_OPAQUE((void *)(intptr_t)n), RD_KAFKA_V_END);
	if (rc)
		BENCH_DIE("produce: %s", rd_kafka_err2str(rc));
}

/* One message every 1/rate s by the clock; late ones follow at once. */
static void
write_all(struct writer *w, long rate, long count)
{
	int64_t begin = bench_now_us(), due;
	struct timespec until;

	for (long n = 0; n < count; n++) {
		due = begin + n * 1000000 / rate;
		until.tv_sec = due / 1000000;
		until.tv_nsec = due % 1000000 * 1000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		write_one(w, n);
	}
}

/* --- figures --------------------------------------------------------------------------- */

static int
by_size(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void
figures(const char *name, int64_t *us, long count)
{
	qsort(us, (size_t)count, sizeof(*us), by_size);
	printf("\"%s\": {\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}, ", name,
		(double)us[count / 2] / 1e3, (double)us[count * 99 / 100] / 1e3,
		(double)us[count - 1] / 1e3);
}

/* The first second warms up and does not count. */
static void
print(long rate, long count, bool is_produced)
{
	static int64_t us[COUNT_MAX];
	long first = rate, n;

	printf("{");
	for (n = first; n < count; n++)
		us[n - first] = atomic_load(&seen_us[n]) - begun_us[n];
	figures("seen", us, count - first);
	if (is_produced) {
		for (n = first; n < count; n++)
			us[n - first] = acked_us[n] - begun_us[n];
		figures("acked", us, count - first);
		for (n = first; n < count; n++)
			us[n - first] = atomic_load(&seen_us[n]) - acked_us[n];
		figures("seen_after_ack", us, count - first);
	}
	printf("\"count\": %ld, \"per_second\": %.1f}\n", count - first,
		(double)(count - 1) * 1e6 / (double)(begun_us[count - 1] - begun_us[0]));
}

int
main(int argc, char **argv)
{
	int64_t patience_us = 20000000, end_us;
	pthread_t watcher, reports = 0;
	struct writer w = { 0 };
	long rate, count;
	rd_kafka_t *rk;

	if (argc != 7)
		BENCH_DIE("usage: %s outbox|produce BROKERS TOPIC RATE SECONDS "
			  "CONNINFO|LINGER_MS",
			argv[0]);
	rate = bench_number(argv[4], 1, 10000, "RATE");
	count = rate * (1 + bench_number(argv[5], 1, 100, "SECONDS"));
	w.topic = argv[3];
	if (strcmp(argv[1], "outbox") == 0)
		w.pg = open_database(argv[6]);
	else
		w.rk = open_producer(argv[2], argv[6]);
	rk = open_watcher(argv[2], argv[3]);
	if (pthread_create(&watcher, NULL, watch, rk) ||
		(w.rk && pthread_create(&reports, NULL, serve_reports, w.rk)))
		BENCH_DIE("no thread");
	write_all(&w, rate, count);
	end_us = bench_now_us() + patience_us;
	while (atomic_load(&seen_count) < count && bench_now_us() < end_us)
		clock_nanosleep(
			CLOCK_MONOTONIC, 0, &(struct timespec){ 0, 10000000 }, NULL);
	atomic_store(&stop, true);
	pthread_join(watcher, NULL);
	if (w.rk)
		pthread_join(reports, NULL);
	if (atomic_load(&seen_count) < count)
		BENCH_DIE("%ld of %ld seen after 20 s", atomic_load(&seen_count), count);
	print(rate, count, w.rk != NULL);
	if (w.rk)
		rd_kafka_destroy(w.rk);
	PQfinish(w.pg);
	rd_kafka_destroy(rk);
	return 0;
}
