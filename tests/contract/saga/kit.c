#include "tests/contract/saga/kit.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/json.h"
#include "base/wake.h"
#include "tests/support/check.h"

#define PATIENCE_S 20

struct skald_sql *kit_sql;

static struct {
	struct skald_dev_broker *broker;
	struct skald_config *config;
	struct skald_kafka_props *props;
	struct skald_topic_conf topics;
	char url[PG_URL_BYTES];
	struct kit_run run;
	bool is_running;
	struct skald_relay *relay;
	pthread_t relay_thread;
	struct skald_producer *producer; /* of the tests */
	pthread_t participant;
	atomic_bool is_mute, is_over;
} kit = { .topics = { .partitions = KIT_PARTITIONS, .replication = -1, .create = true } };

static const char *const definitions[] = {
	"{\"name\":\"order\",\"version\":1,\"steps\":["
	"{\"name\":\"reserve\",\"timeout\":\"500ms\","
	"\"action\":{\"topic\":\"work\",\"type\":\"stock.reserve\","
	"\"data\":{\"how\":\"$.input.reserve\",\"n\":\"$?.input.n\"}},"
	"\"compensation\":{\"topic\":\"work\",\"type\":\"stock.release\","
	"\"data\":{\"how\":\"$.input.release\",\"of\":\"$.steps.reserve.id\"}},"
	"\"retry\":{\"attempts\":2,\"backoff\":\"10ms\"},"
	"\"compensation_retry\":{\"attempts\":4,\"backoff\":\"10ms\"}},"
	"{\"name\":\"charge\",\"kind\":\"pivot\",\"timeout\":\"500ms\","
	"\"action\":{\"topic\":\"work\",\"type\":\"money.charge\","
	"\"data\":{\"how\":\"$.input.charge\",\"of\":\"$.steps.reserve.id\"}},"
	"\"retry\":{\"attempts\":2,\"backoff\":\"10ms\"}},"
	"{\"name\":\"ship\",\"kind\":\"retriable\",\"timeout\":\"500ms\","
	"\"action\":{\"topic\":\"work\",\"type\":\"parcel.ship\","
	"\"data\":{\"how\":\"$.input.ship\"}},\"retry\":{\"backoff\":\"10ms\"}}],"
	"\"output\":{\"parcel\":\"$.steps.ship.id\"}}",

	"{\"name\":\"hurry\",\"version\":1,\"deadline\":\"400ms\",\"steps\":["
	"{\"name\":\"slow\",\"timeout\":\"20s\","
	"\"action\":{\"topic\":\"work\",\"type\":\"slow.do\","
	"\"data\":{\"how\":\"$.input.slow\"}},\"compensation\":null},"
	"{\"name\":\"next\",\"action\":{\"topic\":\"work\",\"type\":\"next.do\","
	"\"data\":{\"how\":\"$.input.next\"}},\"compensation\":null}]}",
};

static void
die(const char *what, const struct skald_err *err)
{
	(void)fprintf(stderr, "\nkit: %s: %s\n", what, err ? err->text : "");
	exit(2);
}

/* --- the participant --------------------------------------------------------------------- */

static void
on_group(enum skald_group_event event, struct skald_kafka_partition *partitions,
	unsigned count, void *ctx)
{
	(void)event;
	(void)partitions;
	(void)count;
	(void)ctx;
}

static void
on_stopped(const char *topic, int32_t partition, const struct skald_err *err, void *ctx)
{
	(void)ctx;
	(void)fprintf(stderr, "\nkit: %s/%d\n", topic, (int)partition);
	die("the participant cannot read", err);
}

static void
report(uint64_t tag, enum skald_rc rc, const struct skald_err *err, void *ctx)
{
	(void)tag;
	(void)ctx;
	if (rc)
		die("a record was refused", err);
}

static void
send_on(struct skald_producer *producer, const struct skald_record *record)
{
	struct skald_err err = SKALD_ERR_INIT;
	bool full = true;

	while (full) {
		(void)skald_producer_serve(producer, report, NULL);
		if (skald_producer_send(producer, record, &full, &err))
			die("produce", &err);
	}
}

/* The word of this attempt. */
static void
word_of(const struct skald_kafka_record *r, char *word, size_t bytes)
{
	struct skald_slice number = skald_headers_get(r->headers, "ce_sagaattempt");
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_json root, how;
	char list[256], *at = list;
	long long attempt = 1;

	(void)skald_slice_int64(number, &attempt);
	if (skald_json_parse(r->value, 1 << 20, 60, &root, &err) ||
		!skald_json_member(root, "how", &how) ||
		!skald_json_text(how, list, sizeof(list)))
		(void)snprintf(list, sizeof(list), "ok");
	for (; attempt > 1 && strchr(at, ','); attempt--)
		at = strchr(at, ',') + 1;
	(void)snprintf(word, bytes, "%.*s", (int)strcspn(at, ","), at);
}

static void
reply(struct skald_producer *producer, const struct skald_kafka_record *r,
	const char *outcome)
{
	static const char *const echo[] = { "ce_sagaid", "ce_saganame", "ce_sagastep",
		"ce_sagaop", "ce_sagaattempt", "idempotency-key" };
	bool is_success = strcmp(outcome, "success") == 0;
	struct skald_header headers[12];
	struct skald_record record = { .key = r->key, .headers = { headers, 0 } };
	char topic[256], value[128], id[128];

	for (unsigned i = 0; i < 6; i++)
		headers[record.headers.count++] =
			(struct skald_header){ skald_slice_text(echo[i]),
				skald_headers_get(r->headers, echo[i]) };
	(void)snprintf(id, sizeof(id), "reply-%d-%lld-%s", (int)r->partition,
		(long long)r->offset, outcome);
	headers[record.headers.count++] =
		(struct skald_header){ SKALD_SLICE_LIT("ce_sagaoutcome"),
			skald_slice_text(outcome) };
	headers[record.headers.count++] =
		(struct skald_header){ SKALD_SLICE_LIT("ce_id"), skald_slice_text(id) };
	if (is_success)
		(void)snprintf(value, sizeof(value), "{\"id\":%d%lld}",
			(int)r->partition + 1, (long long)r->offset);
	else
		(void)snprintf(value, sizeof(value),
			"{\"code\":\"no\",\"message\":\"as asked for\"}");
	record.value = skald_slice_text(value);
	(void)skald_slice_copy(
		skald_headers_get(r->headers, "ce_replyto"), topic, sizeof(topic));
	record.topic = topic;
	record.partition = skald_partition_of(r->key, KIT_PARTITIONS);
	send_on(producer, &record);
}

static void
answer(struct skald_producer *producer, const struct skald_kafka_record *r)
{
	char word[32];

	word_of(r, word, sizeof(word));
	if (strcmp(word, "fail") == 0)
		reply(producer, r, "failure");
	else if (strcmp(word, "retry") == 0)
		reply(producer, r, "retryable");
	else if (strcmp(word, "unknown") == 0)
		reply(producer, r, "unknown");
	else if (strcmp(word, "silent") != 0)
		reply(producer, r, "success");
	if (strcmp(word, "twice") == 0)
		reply(producer, r, "success");
}

static void *
participate(void *arg)
{
	struct skald_kafka_consumer_conf conf = { .group = "participant",
		.client_id = "participant",
		.on_group = on_group,
		.on_stopped = on_stopped };
	struct skald_kafka_partition places[KIT_PARTITIONS];
	struct skald_kafka_consumer *consumer = NULL;
	struct skald_producer *producer = NULL;
	struct skald_err err = SKALD_ERR_INIT;

	(void)arg;
	for (int i = 0; i < KIT_PARTITIONS; i++)
		places[i] = (struct skald_kafka_partition){ "work", i, 0 };
	if (skald_producer_create(&producer, kit.props, "participant", &err) ||
		skald_kafka_consumer_open(&consumer, kit.props, &conf, &err) ||
		skald_kafka_consumer_assign(consumer, places, KIT_PARTITIONS, &err))
		die("participant", &err);
	while (!atomic_load(&kit.is_over)) {
		struct pollfd fd = { skald_kafka_consumer_fd(consumer), POLLIN, 0 };
		struct skald_kafka_records *records = NULL;

		if (atomic_load(&kit.is_mute)) {
			(void)poll(NULL, 0, 5);
			continue;
		}
		(void)poll(&fd, 1, 20);
		skald_kafka_consumer_serve(consumer);
		if (skald_kafka_records_take(consumer, 500, &records, &err))
			die("take", &err);
		for (unsigned i = 0; i < skald_kafka_records_count(records); i++)
			answer(producer, skald_kafka_records_at(records, i));
		skald_kafka_records_free(records);
		(void)skald_producer_serve(producer, report, NULL);
	}
	skald_kafka_consumer_close(consumer);
	skald_producer_destroy(producer);
	return NULL;
}

void
kit_answer(bool on)
{
	atomic_store(&kit.is_mute, !on);
}

/* --- relay and orchestrators ---------------------------------------------------------------- */

static void *
relay_main(void *arg)
{
	struct skald_err err = SKALD_ERR_INIT;

	(void)arg;
	if (skald_relay_run(kit.relay, 5000, &err))
		die("relay", &err);
	return NULL;
}

void
kit_relay(bool on)
{
	struct skald_relay_conf conf = SKALD_RELAY_INIT;
	struct skald_err err = SKALD_ERR_INIT;

	if (on == (kit.relay != NULL))
		return;
	if (!on) {
		skald_wake_stop(skald_relay_wake(kit.relay));
		(void)pthread_join(kit.relay_thread, NULL);
		skald_relay_destroy(kit.relay);
		kit.relay = NULL;
		return;
	}
	conf.source = "main";
	conf.url = kit.url;
	conf.kafka = kit.props;
	conf.topics = &kit.topics;
	if (skald_relay_create(&kit.relay, &conf, &err) ||
		pthread_create(&kit.relay_thread, NULL, relay_main, NULL))
		die("relay", &err);
}

static void *
run_main(void *arg)
{
	struct kit_run *run = arg;

	run->rc = skald_orchestrator_run(run->orchestrator, 5000, &run->err);
	return NULL;
}

void
kit_run(struct kit_run *run, const char *installation)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_orchestrator_conf conf = { .url = kit.url,
		.installation = installation,
		.kafka = kit.props,
		.topics = &kit.topics };

	memset(run, 0, sizeof(*run));
	if (skald_metrics_create(&run->metrics, &err))
		die("metrics", &err);
	conf.metrics = run->metrics;
	if (skald_orchestrator_create(&run->orchestrator, &conf, &err) ||
		pthread_create(&run->thread, NULL, run_main, run))
		die("orchestrator", &err);
}

enum skald_rc
kit_end(struct kit_run *run)
{
	skald_wake_stop(skald_orchestrator_wake(run->orchestrator));
	(void)pthread_join(run->thread, NULL);
	skald_orchestrator_destroy(run->orchestrator);
	skald_metrics_destroy(run->metrics);
	return run->rc;
}

void
kit_orchestrate(bool on)
{
	if (on == kit.is_running)
		return;
	kit.is_running = on;
	if (on)
		kit_run(&kit.run, NULL);
	else if (kit_end(&kit.run))
		die("the orchestrator gave up", &kit.run.err);
}

/* --- life ------------------------------------------------------------------------------------- */

static void
start_broker(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	char servers[128];
	const char *sets[] = { servers };
	struct skald_config_args args = {
		.file = "/dev/null", .sets = sets, .set_count = 1
	};
	struct skald_cluster *cluster = NULL;
	int32_t count;

	if (skald_dev_broker_start(&kit.broker, 0, KIT_PARTITIONS, &err))
		die("broker", &err);
	(void)snprintf(servers, sizeof(servers), "kafka.bootstrap.servers=%s",
		skald_dev_broker_address(kit.broker));
	if (skald_config_load(&kit.config, &args, &err) ||
		skald_kafka_props_create(&kit.props, kit.config, &err) ||
		skald_cluster_open(&cluster, kit.props, &err) ||
		skald_topic_ensure(cluster, "work", &kit.topics, 5000, &count, &err) ||
		skald_producer_create(&kit.producer, kit.props, "test", &err))
		die("broker", &err);
	skald_cluster_close(cluster);
}

/* The text goes in as the command line and the daemon do it; steps as the view wants them. */
static void
deploy(const char *body)
{
	struct skald_param param = skald_param_text(body);
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_sql_query(kit_sql,
		    "SELECT skald.operator_act('saga.deploy', ($1::text)::jsonb ->> "
		    "'name', 'me',"
		    " NULL, jsonb_build_object('version', 1, 'hash', md5($1::text), "
		    "'body', $1::text,"
		    " 'steps', (SELECT jsonb_agg(s ->> 'name') FROM jsonb_array_elements("
		    "($1::text)::jsonb -> 'steps') s), 'kinds', (SELECT "
		    "jsonb_agg(coalesce(s ->>"
		    " 'kind', 'compensatable')) FROM "
		    "jsonb_array_elements(($1::text)::jsonb ->"
		    " 'steps') s)))",
		    &param, 1, false, NULL, &err))
		die("deploy", &err);
}

void
kit_start(void)
{
	kit_sql = pg_open("orders", SKALD_SQL_TOOL);
	pg_exec(kit_sql, "CREATE ROLE loops LOGIN IN ROLE skald_daemon");
	pg_url_as("orders", "loops", kit.url); /* no more rights than it is given */
	start_broker();
	for (unsigned i = 0; i < sizeof(definitions) / sizeof(definitions[0]); i++)
		deploy(definitions[i]);
	kit_relay(true);
	if (pthread_create(&kit.participant, NULL, participate, NULL))
		die("thread", NULL);
	kit_orchestrate(true);
	if (!kit_until("SELECT count(*) FROM skald.installation", 1, PATIENCE_S))
		die("the orchestrator does not begin", NULL);
}

void
kit_stop(void)
{
	kit_orchestrate(false);
	kit_relay(false);
	atomic_store(&kit.is_over, true);
	(void)pthread_join(kit.participant, NULL);
	skald_producer_destroy(kit.producer);
	skald_kafka_props_destroy(kit.props);
	skald_config_destroy(kit.config);
	skald_dev_broker_stop(kit.broker);
	skald_sql_close(kit_sql);
}

/* --- looking ------------------------------------------------------------------------------------ */

void
kit_saga(const char *name, const char *key, const char *input)
{
	struct skald_param params[] = { skald_param_text(name), skald_param_text(key),
		skald_param_text(input) };
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_sql_query(kit_sql, "SELECT skald.saga_start($1, $2, $3::jsonb)", params,
		    3, false, NULL, &err))
		die("saga_start", &err);
}

bool
kit_until(const char *query, int64_t wanted, int seconds)
{
	int64_t until_ms = skald_mono_ms() + check_patience_ms(seconds * 1000), got;

	while ((got = pg_int(kit_sql, query)) != wanted && skald_mono_ms() < until_ms)
		(void)poll(NULL, 0, 10);
	if (got != wanted)
		printf("\n    %s: %lld, not %lld", query, (long long)got,
			(long long)wanted);
	return got == wanted;
}

const char *
kit_ending(const char *key)
{
	char query[512];

	(void)snprintf(query, sizeof(query),
		"SELECT count(*) FROM skald.saga WHERE key = '%s' AND status IN "
		"('finished',"
		" 'stuck')",
		key);
	(void)kit_until(query, 1, PATIENCE_S);
	(void)snprintf(query, sizeof(query),
		"SELECT concat_ws(' ', status, outcome, undo, reason ->> 'step', reason "
		"->>"
		" 'code') FROM skald.sagas WHERE key = '%s'",
		key);
	return pg_text(kit_sql, query);
}

const char *
kit_history(const char *key)
{
	char query[512];

	(void)snprintf(query, sizeof(query),
		"SELECT string_agg(concat_ws(':', e.kind, e.step, e.op, e.attempt, "
		"e.outcome),"
		" ' ' ORDER BY e.seq) FROM skald.saga_events e JOIN skald.saga s ON s.id "
		"="
		" e.saga_id WHERE s.key = '%s'",
		key);
	return pg_text(kit_sql, query);
}

void
kit_send(const char *topic, const char *key, struct skald_slice value,
	const struct skald_header *headers, unsigned count)
{
	struct skald_record record = { .topic = topic,
		.partition = skald_partition_of(skald_slice_text(key), KIT_PARTITIONS),
		.key = skald_slice_text(key),
		.value = value,
		.headers = { headers, count } };

	send_on(kit.producer, &record);
}
