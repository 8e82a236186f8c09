/*
 * saga_floor.c - the rows and records of three-step sagas without anybody who decides:
 * what is left when all logic, all reading and all waiting for each other is taken out.
 *
 *	skald-bench-saga-floor BROKERS TOPIC COUNT CONNINFO SERVICE SERVICE SERVICE
 *
 * Set-based, by 500: one transaction for the starts, one for each transition, one for
 * each participant, into the same tables with the same indexes; a record of the same
 * size for each row of an outbox. Prints {"seconds": ...}.
 */
#include <inttypes.h>
#include <string.h>

#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>

#include "tests/bench/bench.h"

#define SET   500
#define STEPS 3

static int64_t acked, produced;

static void
on_report(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *ctx)
{
	(void)rk;
	(void)ctx;
	if (msg->err)
		BENCH_DIE("delivery: %s", rd_kafka_err2str(msg->err));
	acked++;
}

static rd_kafka_t *
open_kafka(const char *brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	char why[256];

	if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof(why)) ||
		rd_kafka_conf_set(conf, "enable.idempotence", "true", why, sizeof(why)) ||
		rd_kafka_conf_set(conf, "linger.ms", "0", why, sizeof(why)))
		BENCH_DIE("%s", why);
	rd_kafka_conf_set_dr_msg_cb(conf, on_report);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
	if (!rk)
		BENCH_DIE("%s", why);
	return rk;
}

/* A value as long as headers and value of a command, a reply, a life-cycle event. */
static void
produce(rd_kafka_t *rk, const char *topic, size_t bytes)
{
	static char value[1024];

	memset(value, 'x', sizeof(value));
	for (int i = 0; i < SET; i++) {
		char key[37];
		rd_kafka_resp_err_t rc;

		snprintf(key, sizeof(key), "%036" PRId64, produced++);
		rc = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic),
			RD_KAFKA_V_KEY(key, 36), RD_KAFKA_V_VALUE(value, bytes),
			RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
		if (rc)
			BENCH_DIE("produce: %s", rd_kafka_err2str(rc));
	}
	while (acked < produced)
		(void)rd_kafka_poll(rk, 10);
}

static PGconn *
open_pg(const char *conninfo)
{
	PGconn *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
		BENCH_DIE("%s", PQerrorMessage(conn));
	return conn;
}

/* A transaction of several statements, each about the sagas of a set. */
static void
write_rows(PGconn *conn, long first, int step, const char *sql)
{
	char text[8192];
	PGresult *res;

	snprintf(text, sizeof(text),
		"DO $$ DECLARE a int := %ld; b int := %ld; s int := %d; BEGIN %s END $$",
		first, first + SET - 1, step, sql);
	res = PQexec(conn, text);
	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		BENCH_DIE("%s", PQerrorMessage(conn));
	PQclear(res);
}

#define ID  "lpad(to_hex(n), 32, '0')::uuid"
#define ALL " FROM generate_series(a, b) AS n;"
/* Rows of an outbox: lengths of data and headers. */
#define OUTBOX(data, headers) \
	"INSERT INTO skald.outbox (message_id, topic, key, type, source, content_type," \
	" data, headers, correlation_id, causation_id, traceparent)" \
	" SELECT gen_random_uuid(), 'bench', convert_to(n::text, 'UTF8'), 'bench.do'," \
	" '/skald/bench', 'application/json', convert_to(repeat('x', " data \
	"), 'UTF8')," \
	" jsonb_build_object('x', repeat('x', " headers "))," \
	" (" ID ")::text, (" ID ")::text, repeat('0', 55)" ALL
#define ENTRIES(count) \
	"INSERT INTO skald.saga_event_entry (saga_id, seq, kind, step, op, attempt," \
	" outcome, message_id, correlation_id, traceparent)" \
	" SELECT " ID ", 2 * s + m, 'command', 'reserve', 'action', 1, 'success'," \
	" gen_random_uuid()::text, (" ID ")::text, repeat('0', 55)" \
	" FROM generate_series(a, b) AS n, generate_series(1, " count ") AS m;"
#define DATA(name) \
	"INSERT INTO skald.saga_data (saga_id, name, data)" \
	" SELECT " ID ", " name ", repeat('x', 30)" ALL
#define UPDATE(status, due) \
	"UPDATE skald.saga SET status = '" status "', state = repeat('x', 260)," \
	" seq = 2 * s + 2, due_at = " due ", updated_at = clock_timestamp()" \
	" WHERE id IN (SELECT " ID " FROM generate_series(a, b) AS n);"

static const char start_rows[] =
	"INSERT INTO skald.saga (id, name, version, key, correlation_id, traceparent)"
	" SELECT " ID ", 'floor', 1, n::text, (" ID
	")::text, repeat('0', 55)" ALL DATA("'$input'");
static const char first_rows[] = UPDATE("running", "now() + interval '1 min'")
	ENTRIES("2") OUTBOX("600", "10") OUTBOX("32", "250");
static const char next_rows[] = UPDATE("running", "now() + interval '1 min'") ENTRIES("2")
	DATA("'step' || s") OUTBOX("32", "250");
static const char last_rows[] = UPDATE("finished", "NULL") ENTRIES("2")
	DATA("'step' || s") DATA("'$output'") OUTBOX("530", "10");
static const char service_rows[] =
	"INSERT INTO skald.barrier (participant, idempotency_key, state, outcome, data)"
	" SELECT 'floor', (" ID ")::text || ':reserve:action', 'answered', 'success',"
	" '{\"number\":1}'" ALL
	"INSERT INTO public.effects (saga_id, order_id, amount) SELECT " ID
	", n, 10.00" ALL OUTBOX("12", "250");

int
main(int argc, char **argv)
{
	PGconn *sagas, *services[STEPS];
	int64_t begin_us;
	rd_kafka_t *rk;
	long count;

	if (argc != 5 + STEPS)
		BENCH_DIE("usage: skald-bench-saga-floor BROKERS TOPIC COUNT CONNINFO"
			  " SERVICE SERVICE SERVICE");
	count = bench_number(argv[3], SET, 10000000, "COUNT");
	rk = open_kafka(argv[1]);
	sagas = open_pg(argv[4]);
	for (int i = 0; i < STEPS; i++)
		services[i] = open_pg(argv[5 + i]);
	begin_us = bench_now_us();
	for (long first = 1; first <= count; first += SET) {
		write_rows(sagas, first, 0, start_rows);
		write_rows(sagas, first, 0, first_rows);
		produce(rk, argv[2], 1000);
		for (int step = 1; step <= STEPS; step++) {
			produce(rk, argv[2], 700);
			write_rows(services[step - 1], first, step, service_rows);
			produce(rk, argv[2], 700);
			write_rows(
				sagas, first, step, step < STEPS ? next_rows : last_rows);
		}
		produce(rk, argv[2], 1000);
	}
	printf("{\"seconds\": %.6f}\n", (double)(bench_now_us() - begin_us) / 1e6);
	for (int i = 0; i < STEPS; i++)
		PQfinish(services[i]);
	PQfinish(sagas);
	rd_kafka_destroy(rk);
	return 0;
}
