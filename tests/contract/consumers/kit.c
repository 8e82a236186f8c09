#include "tests/contract/consumers/kit.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/wake.h"
#include "tests/support/check.h"

static struct {
	struct skald_dev_broker *broker;
	struct skald_kafka_props *props;
	struct skald_producer *producer;
	char url[PG_URL_BYTES];
	unsigned long long sent, acked;
	bool is_kafka;
} kit;

static void
must(enum skald_rc rc, const struct skald_err *err, const char *what)
{
	if (!rc)
		return;
	fprintf(stderr, "%s: %s\n", what, err->text);
	_exit(1);
}

void
kit_start(bool kafka)
{
	struct skald_config *config = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	const char *given = getenv("SKALD_TEST_KAFKA");
	char servers[256];
	const char *sets[] = { servers };
	struct skald_config_args args = {
		.file = "/dev/null", .sets = sets, .set_count = 1
	};
	struct skald_sql *sql;

	kit.is_kafka = kafka;
	if (kafka && !given) {
		fprintf(stderr, "SKALD_TEST_KAFKA: must be a bootstrap server\n");
		_exit(1);
	}
	if (!kafka)
		must(skald_dev_broker_start(&kit.broker, 0, 4, &err), &err, "dev broker");
	snprintf(servers, sizeof(servers), "kafka.bootstrap.servers=%s",
		kafka ? given : skald_dev_broker_address(kit.broker));
	must(skald_config_load(&config, &args, &err), &err, "config");
	must(skald_kafka_props_create(&kit.props, config, &err), &err, "props");
	skald_config_destroy(config);
	must(skald_producer_create(&kit.producer, kit.props, "kit", &err), &err,
		"producer");
	sql = pg_open("shop", SKALD_SQL_TOOL);
	pg_exec(sql, "CREATE TABLE effect (id text, value text, attempt int);"
		     "CREATE TABLE sent (id text PRIMARY KEY)");
	skald_sql_close(sql);
	pg_url("shop", kit.url);
}

void
kit_stop(void)
{
	skald_producer_destroy(kit.producer);
	skald_kafka_props_destroy(kit.props);
	if (kit.broker)
		skald_dev_broker_stop(kit.broker);
}

const struct skald_kafka_props *
kit_props(void)
{
	return kit.props;
}

const char *
kit_url(void)
{
	return kit.url;
}

const char *
kit_topic(int partitions)
{
	static char names[32][64];
	static unsigned number;
	char *name = names[number % 32];
	struct skald_topic_conf conf = { partitions, -1, true };
	struct skald_cluster *cluster = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	int32_t count = 0;

	snprintf(name, sizeof(names[0]), "things-%ld-%u", (long)getpid(), ++number);
	must(skald_cluster_open(&cluster, kit.props, &err), &err, "cluster");
	must(skald_topic_ensure(cluster, name, &conf, 20000, &count, &err), &err,
		"topic");
	skald_cluster_close(cluster);
	return name;
}

int64_t
kit_end(const char *topic, int32_t partition)
{
	struct skald_cluster *cluster = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	int64_t lo, hi;

	must(skald_cluster_open(&cluster, kit.props, &err), &err, "cluster");
	must(skald_topic_offsets(cluster, topic, partition, 10000, &lo, &hi, &err), &err,
		"offsets");
	skald_cluster_close(cluster);
	return hi;
}

static void
report(uint64_t tag, enum skald_rc rc, const struct skald_err *err, void *ctx)
{
	(void)tag;
	(void)ctx;
	must(rc, err, "delivery report");
	kit.acked++;
}

void
kit_send(const struct kit_record *r)
{
	static unsigned number;
	char id[64], sequence[64];
	struct skald_header headers[48];
	size_t count = 0;
	struct skald_record record = { .topic = r->topic, .partition = r->partition };
	struct skald_err err = SKALD_ERR_INIT;
	bool full = true;

#define ADD(n, v) \
	headers[count++] = \
		(struct skald_header){ skald_slice_text(n), skald_slice_text(v) }
	snprintf(id, sizeof(id), "id-%u", ++number);
	snprintf(sequence, sizeof(sequence), "00000001.%016llx.00000000", r->point);
	if (!r->is_bare) {
		ADD("ce_specversion", "1.0");
		ADD("ce_id", r->id ? r->id : id);
		ADD("ce_source", "/kit");
		ADD("ce_type", r->type ? r->type : "shop.thing");
		ADD("content-type", "application/json");
	}
	if (r->point) {
		ADD("ce_stream", KIT_STREAM);
		ADD("ce_sequence", sequence);
	}
#undef ADD
	for (size_t i = 0; i < r->more_count; i++)
		headers[count++] = r->more[i];
	record.headers = (struct skald_headers){ headers, count };
	record.key = skald_slice_text(r->key);
	record.value = r->value_bytes ? skald_slice_make(r->value, r->value_bytes)
				      : skald_slice_text(r->value);
	while (full) {
		must(skald_producer_send(kit.producer, &record, &full, &err), &err,
			"send");
		(void)skald_producer_serve(kit.producer, report, NULL);
	}
	kit.sent++;
}

void
kit_flush(void)
{
	struct pollfd fd = { .fd = skald_producer_fd(kit.producer), .events = POLLIN };
	int64_t until_ms = skald_mono_ms() + 20000;

	(void)skald_producer_push(kit.producer, true);
	while (kit.acked < kit.sent && skald_mono_ms() < until_ms)
		if (skald_producer_serve(kit.producer, report, NULL) == 0)
			(void)poll(&fd, 1, 50);
	SKALD_ASSERT(kit.acked == kit.sent);
}

/* --- a consumer ------------------------------------------------------------------------------ */

struct skald_consumer_conf
kit_conf(const char *group, const char *const *topics)
{
	struct skald_consumer_conf conf = SKALD_CONSUMER_INIT;

	conf.group = group;
	conf.url = kit.url;
	conf.kafka = kit.props;
	conf.topics = topics;
	conf.topic_count = 1;
	conf.sql_context = false;
	conf.session_timeout_ms = 6000;
	conf.backoff_ms = 2;
	conf.backoff_max_ms = 10;
	return conf;
}

static void *
run_thread(void *arg)
{
	struct kit_run *run = arg;

	run->rc = skald_consumer_run(run->consumer, 5000, &run->err);
	return NULL;
}

void
kit_run(struct kit_run *run, struct skald_consumer_conf *conf)
{
	struct skald_err err = SKALD_ERR_INIT;

	memset(run, 0, sizeof(*run));
	must(skald_metrics_create(&run->metrics, &err), &err, "metrics");
	conf->metrics = run->metrics;
	must(skald_consumer_create(&run->consumer, conf, &err), &err, "consumer");
	SKALD_ASSERT(pthread_create(&run->thread, NULL, run_thread, run) == 0);
}

enum skald_rc
kit_end_run(struct kit_run *run)
{
	skald_wake_stop(skald_consumer_wake(run->consumer));
	(void)pthread_join(run->thread, NULL);
	skald_consumer_destroy(run->consumer);
	skald_metrics_destroy(run->metrics);
	return run->rc;
}

long long
kit_metric(struct kit_run *run, const char *name)
{
	struct skald_buf text;
	long long value = -1;
	const char *at;

	skald_buf_init(&text, 1 << 20);
	skald_metrics_print(run->metrics, &text);
	for (at = text.data; at && (at = strstr(at, name)); at++) {
		if (at[strlen(name)] != '{' || (at != text.data && at[-1] != '\n'))
			continue;
		at = strchr(at, '}');
		value = strtoll(at + 1, NULL, 10);
		break;
	}
	skald_buf_done(&text);
	return value;
}

/* --- waiting and counting ----------------------------------------------------------------------- */

bool
kit_until(struct skald_sql *sql, const char *query, int64_t wanted, int seconds)
{
	int64_t until_ms = skald_mono_ms() + check_patience_ms(seconds * 1000), got;

	do {
		got = pg_int(sql, query);
		if (got == wanted)
			return true;
		(void)poll(NULL, 0, 20);
	} while (skald_mono_ms() < until_ms);
	printf("\n    %s: %lld, not %lld, after %d s", query, (long long)got,
		(long long)wanted, seconds);
	return false;
}

bool
kit_until_metric(struct kit_run *run, const char *name, int64_t wanted, int seconds)
{
	int64_t until_ms = skald_mono_ms() + check_patience_ms(seconds * 1000), got;

	do {
		got = kit_metric(run, name);
		if (got >= wanted)
			return true;
		(void)poll(NULL, 0, 20);
	} while (skald_mono_ms() < until_ms);
	printf("\n    %s: %lld, not %lld, after %d s", name, (long long)got,
		(long long)wanted, seconds);
	return false;
}

enum skald_rc
kit_effect(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	char id[256], value[256], attempt[24];
	struct skald_param params[3];

	(void)ctx;
	(void)skald_slice_copy(skald_delivery_id(d), id, sizeof(id));
	(void)skald_slice_copy(skald_delivery_value(d), value, sizeof(value));
	params[0] = skald_param_text(id);
	params[1] = skald_param_text(skald_delivery_value(d).data ? value : NULL);
	params[2] = skald_param_int(skald_delivery_attempt(d), attempt);
	return skald_conn_query(tx,
		"INSERT INTO effect (id, value, attempt) VALUES ($1, $2, $3::int)",
		params, 3, NULL, err);
}

const char *
kit_wrong_effects(struct skald_sql *sql)
{
	return pg_text(sql,
		"SELECT string_agg(id || ':' || n, ' ' ORDER BY id) FROM"
		" (SELECT coalesce(s.id, e.id) AS id, count(e.id) AS n FROM sent s"
		"  FULL JOIN effect e ON e.id = s.id GROUP BY 1 HAVING count(e.id) <> 1"
		"  OR count(s.id) = 0) x");
}
