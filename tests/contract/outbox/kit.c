#include "tests/contract/outbox/kit.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/wake.h"
#include "tests/support/check.h"

#define WAIT_MS 30000

const char *kit_role = "postgres";
struct kit_ways kit_ways;
enum kit_producer kit_producer;

static struct {
	rd_kafka_t *mock_handle;
	rd_kafka_mock_cluster_t *mock;
	struct skald_config *configs[KIT_PRODUCERS];
	struct skald_kafka_props *props[KIT_PRODUCERS];
	struct skald_topic_conf topics;
} kit = { .topics = { .partitions = KIT_PARTITIONS, .replication = -1, .create = true } };

static void
die(const char *what, const struct skald_err *err)
{
	(void)fprintf(stderr, "\nkit: %s: %s\n", what, err ? err->text : "");
	exit(2);
}

static void
stop_broker(void)
{
	for (int i = 0; i < KIT_PRODUCERS; i++) {
		skald_kafka_props_destroy(kit.props[i]);
		skald_config_destroy(kit.configs[i]);
	}
	rd_kafka_mock_cluster_destroy(kit.mock);
	rd_kafka_destroy(kit.mock_handle);
}

static void
make_props(int index)
{
	struct skald_err err = SKALD_ERR_INIT;
	char servers[128];
	const char *sets[] = { servers, "kafka.fetch.wait.max.ms=10",
		index == KIT_ONE_IN_FLIGHT ? "kafka.max.in.flight=1"
					   : "kafka.queue.buffering.max.messages=2000" };
	struct skald_config_args args = { .file = "/dev/null",
		.sets = sets,
		.set_count = index == KIT_AS_SET ? 2 : 3 };

	(void)snprintf(servers, sizeof(servers), "kafka.bootstrap.servers=%s",
		rd_kafka_mock_cluster_bootstraps(kit.mock));
	if (skald_config_load(&kit.configs[index], &args, &err) ||
		skald_kafka_props_create(&kit.props[index], kit.configs[index], &err))
		die("configuration", &err);
}

const struct skald_kafka_props *
kit_kafka(void)
{
	char reason[256];

	if (kit.props[KIT_AS_SET])
		return kit.props[kit_producer];
	kit.mock_handle = rd_kafka_new(
		RD_KAFKA_PRODUCER, rd_kafka_conf_new(), reason, sizeof(reason));
	kit.mock = kit.mock_handle ? rd_kafka_mock_cluster_new(kit.mock_handle, 1) : NULL;
	if (!kit.mock)
		die("mock cluster", NULL);
	for (int i = 0; i < KIT_PRODUCERS; i++)
		make_props(i);
	(void)atexit(stop_broker);
	return kit.props[kit_producer];
}

void
kit_refuse_produce(int error, unsigned count)
{
	while (count--)
		rd_kafka_mock_push_request_errors(
			kit.mock, 0, 1, (rd_kafka_resp_err_t)error);
}

void
kit_refuse_nothing(void)
{
	rd_kafka_mock_clear_request_errors(kit.mock, 0);
}

#define FETCH 1 /* the request */

void
kit_withhold_after(unsigned answers)
{
	enum { FINE = 0, NOT_LEADER = 6, ENOUGH = 10000 };

	(void)kit_kafka(); /* there is one */
	for (unsigned i = 0; i < answers + ENOUGH; i++)
		rd_kafka_mock_push_request_errors(kit.mock, FETCH, 1,
			(rd_kafka_resp_err_t)(i < answers ? FINE : NOT_LEADER));
}

void
kit_let_go(void)
{
	rd_kafka_mock_clear_request_errors(kit.mock, FETCH);
}

void
kit_broker_set_up(bool is_up)
{
	if (is_up)
		rd_kafka_mock_broker_set_up(kit.mock, 1);
	else
		rd_kafka_mock_broker_set_down(kit.mock, 1);
}

void
kit_add(struct skald_sql *sql, const char *topic, const char *key, int data)
{
	char script[256];

	(void)snprintf(script, sizeof(script),
		"SELECT skald.outbox_add(topic => '%s', key => '%s', type => 't', "
		"data => '%d')",
		topic, key, data);
	pg_exec(sql, script);
}

void
kit_add_numbered(struct skald_sql *sql, const char *topic, int from, int to)
{
	char script[512];

	(void)snprintf(script, sizeof(script),
		"SELECT skald.outbox_add(topic => '%s', key => 'k' || g %% 50, type => "
		"'numbered',"
		" data => to_jsonb(g)) FROM generate_series(%d, %d) AS g",
		topic, from, to);
	pg_exec(sql, script);
}

void
kit_make_topic(const char *name)
{
	(void)kit_kafka();
	/* exists already: fine */
	(void)rd_kafka_mock_topic_create(kit.mock, name, KIT_PARTITIONS, 1);
}

void
kit_servers(char *dst, size_t bytes)
{
	(void)kit_kafka();
	(void)snprintf(dst, bytes, "%s", rd_kafka_mock_cluster_bootstraps(kit.mock));
}

const struct skald_topic_conf *
kit_topics(void)
{
	return &kit.topics;
}

/* --- relays ------------------------------------------------------------------------- */

static void *
run(void *arg)
{
	struct kit_relay *r = arg;

	r->rc = skald_relay_run(r->relay, r->drain_ms, &r->err);
	return NULL;
}

void
kit_relay_start(struct kit_relay *r, const char *database, int64_t retention_ms)
{
	kit_relay_start_with(r, database, retention_ms, kit_topics());
}

void
kit_relay_start_with(struct kit_relay *r, const char *database, int64_t retention_ms,
	const struct skald_topic_conf *topics)
{
	struct skald_relay_conf conf = SKALD_RELAY_INIT;
	struct skald_err err = SKALD_ERR_INIT;
	char url[PG_URL_BYTES];

	memset(r, 0, sizeof(*r));
	if (topics->create)
		kit_make_topic(database); /* else the mock makes it, with 4 partitions */
	pg_url_as(database, kit_role, url);
	conf.source = database;
	conf.url = url;
	conf.kafka = kit_kafka();
	conf.topics = topics;
	conf.retention_ms = retention_ms;
	conf.wants_wal = kit_ways.wants_wal;
	conf.slot_limit_bytes = kit_ways.slot_limit_bytes;
	conf.gate = kit_ways.gate;
	if (skald_metrics_create(&r->metrics, &err))
		die("metrics", &err);
	conf.metrics = r->metrics;
	r->drain_ms = kit_ways.drain_ms ? kit_ways.drain_ms : WAIT_MS;
	if (skald_relay_create(&r->relay, &conf, &err))
		die("relay", &err);
	if (pthread_create(&r->thread, NULL, run, r))
		die("thread", NULL);
}

bool
kit_relay_start_wal(struct kit_relay *r, const char *database, int64_t retention_ms)
{
	kit_ways.wants_wal = true;
	kit_relay_start(r, database, retention_ms);
	kit_ways = (struct kit_ways){ 0 };
	return kit_wait_metric(r, "skald_relay_streaming", 1);
}

void
kit_relay_stop(struct kit_relay *r)
{
	skald_wake_stop(skald_relay_wake(r->relay));
	(void)pthread_join(r->thread, NULL);
	skald_relay_destroy(r->relay);
	skald_metrics_destroy(r->metrics);
	r->relay = NULL;
	r->metrics = NULL;
}

int64_t
kit_metric(struct kit_relay *r, const char *name)
{
	struct skald_buf buf;
	const char *at;
	int64_t value = -1;

	skald_buf_init(&buf, 1 << 20);
	skald_metrics_print(r->metrics, &buf);
	for (at = buf.data; at && (at = strstr(at, name)); at++) {
		if (at[strlen(name)] != '{' || (at > buf.data && at[-1] != '\n'))
			continue;
		at = strstr(at, "} ");
		value = at ? (int64_t)strtod(at + 2, NULL) : -1;
		break;
	}
	skald_buf_done(&buf);
	return value;
}

bool
kit_wait_metric(struct kit_relay *r, const char *name, int64_t at_least)
{
	int64_t until_ms = skald_mono_ms() + check_patience_ms(WAIT_MS);

	while (kit_metric(r, name) < at_least) {
		if (skald_mono_ms() > until_ms) {
			printf("\n    gave up waiting for %s %lld: %lld", name,
				(long long)at_least, (long long)kit_metric(r, name));
			return false;
		}
		(void)usleep(200);
	}
	return true;
}

/* --- waiting ------------------------------------------------------------------------ */

bool
kit_wait(struct skald_sql *sql, const char *query, int64_t want)
{
	int64_t until_ms = skald_mono_ms() + check_patience_ms(WAIT_MS);

	while (pg_int(sql, query) != want) {
		if (skald_mono_ms() > until_ms) {
			printf("\n    gave up waiting for %lld: %s", (long long)want,
				query);
			return false;
		}
		(void)usleep(2000);
	}
	return true;
}

bool
kit_wait_relayed(struct skald_sql *sql)
{
	return kit_wait(sql,
		"SELECT count(*) FROM skald.outbox, skald.relay "
		"WHERE NOT pg_visible_in_snapshot(xid, acked_snapshot)",
		0);
}

/* --- load --------------------------------------------------------------------------- */

static void *
add_rows(void *arg)
{
	struct kit_load *load = arg;
	struct skald_sql *sql = pg_session(load->database, "postgres", SKALD_SQL_TOOL);

	for (int n = 0; !atomic_load(&load->is_over); n++) {
		int rows = 1 + n % 5, from = load->from + load->added;

		kit_add_numbered(sql, load->database, from, from + rows - 1);
		load->added += rows;
		(void)usleep(500);
	}
	skald_sql_close(sql);
	return NULL;
}

void
kit_load_start(struct kit_load *load, const char *database, int from)
{
	memset(load, 0, sizeof(*load));
	load->database = database;
	load->from = from;
	if (pthread_create(&load->thread, NULL, add_rows, load))
		die("thread", NULL);
}

void
kit_load_stop(struct kit_load *load)
{
	atomic_store(&load->is_over, true);
	(void)pthread_join(load->thread, NULL);
}

/* --- reading ------------------------------------------------------------------------ */

static char *
copy(const void *bytes, size_t count)
{
	char *made = bytes ? malloc(count + 1) : NULL;

	if (!made)
		return NULL;
	memcpy(made, bytes, count);
	made[count] = '\0';
	return made;
}

static void
take(struct kit_records *all, const rd_kafka_message_t *m)
{
	struct kit_record *r;
	rd_kafka_headers_t *headers;
	rd_kafka_timestamp_type_t type;
	const char *name;
	const void *value;
	size_t bytes;

	if (all->count == all->room) {
		all->room = all->room ? 2 * all->room : 64;
		all->items = realloc(all->items, all->room * sizeof(*all->items));
		if (!all->items)
			die("out of memory", NULL);
	}
	r = &all->items[all->count++];
	memset(r, 0, sizeof(*r));
	r->partition = m->partition;
	r->offset = m->offset;
	r->timestamp_ms = rd_kafka_message_timestamp(m, &type);
	r->key = copy(m->key, m->key_len);
	r->value = copy(m->payload, m->len);
	r->value_bytes = m->len;
	if (rd_kafka_message_headers(m, &headers))
		return;
	while (r->header_count < KIT_HEADERS_MAX &&
		!rd_kafka_header_get_all(
			headers, r->header_count, &name, &value, &bytes)) {
		r->names[r->header_count] = copy(name, strlen(name));
		r->values[r->header_count++] = copy(value, bytes);
	}
}

static int
by_place(const void *a, const void *b)
{
	const struct kit_record *x = a, *y = b;

	if (x->partition != y->partition)
		return x->partition < y->partition ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static rd_kafka_t *
open_reader(void)
{
	char reason[256];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;

	(void)kit_kafka();
	if (rd_kafka_conf_set(conf, "bootstrap.servers",
		    rd_kafka_mock_cluster_bootstraps(kit.mock), reason, sizeof(reason)) ||
		rd_kafka_conf_set(conf, "group.id", "kit", reason, sizeof(reason)) ||
		rd_kafka_conf_set(
			conf, "enable.auto.commit", "false", reason, sizeof(reason)) ||
		rd_kafka_conf_set(
			conf, "fetch.wait.max.ms", "10", reason, sizeof(reason)))
		die(reason, NULL);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason));
	if (!rk)
		die(reason, NULL);
	(void)rd_kafka_poll_set_consumer(rk);
	return rk;
}

struct kit_records
kit_read(const char *topic)
{
	struct kit_records all = { NULL, 0, 0 };
	rd_kafka_t *rk = open_reader();
	rd_kafka_topic_partition_list_t *list;
	int64_t want = 0, until_ms = skald_mono_ms() + check_patience_ms(WAIT_MS);

	list = rd_kafka_topic_partition_list_new(kit.topics.partitions);
	for (int p = 0; p < kit.topics.partitions; p++) {
		int64_t low, high;

		if (rd_kafka_query_watermark_offsets(rk, topic, p, &low, &high, WAIT_MS))
			die("could not ask for the ends of a topic", NULL);
		want += high - low;
		rd_kafka_topic_partition_list_add(list, topic, p)->offset =
			RD_KAFKA_OFFSET_BEGINNING;
	}
	if (rd_kafka_assign(rk, list))
		die("could not assign", NULL);
	rd_kafka_topic_partition_list_destroy(list);
	while (all.count < want && skald_mono_ms() < until_ms) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);

		if (m && !m->err)
			take(&all, m);
		if (m)
			rd_kafka_message_destroy(m);
	}
	if (all.count < want)
		die("could not read a topic to its ends", NULL);
	(void)rd_kafka_assign(rk, NULL);
	rd_kafka_destroy(rk);
	if (all.count)
		qsort(all.items, all.count, sizeof(*all.items), by_place);
	return all;
}

void
kit_free(struct kit_records *records)
{
	for (unsigned i = 0; i < records->count; i++) {
		struct kit_record *r = &records->items[i];

		free(r->key);
		free(r->value);
		for (unsigned h = 0; h < r->header_count; h++) {
			free(r->names[h]);
			free(r->values[h]);
		}
	}
	free(records->items);
	*records = (struct kit_records){ NULL, 0, 0 };
}

const char *
kit_header(const struct kit_record *record, const char *name)
{
	for (unsigned i = 0; i < record->header_count; i++)
		if (strcmp(record->names[i], name) == 0)
			return record->values[i];
	return NULL;
}

unsigned
kit_header_count(const struct kit_record *record, const char *name)
{
	unsigned count = 0;

	for (unsigned i = 0; i < record->header_count; i++)
		count += strcmp(record->names[i], name) == 0;
	return count;
}

/* --- judging -------------------------------------------------------------------------- */

struct seen {
	const char *id;
	const char *sequence;
};

static int
by_id(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;
	int order = strcmp(x->id, y->id);

	return order ? order : strcmp(x->sequence, y->sequence);
}

static int
by_sequence(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;
	int order = strcmp(x->sequence, y->sequence);

	return order ? order : strcmp(x->id, y->id);
}

/* A key's numbers rise, but for repetitions. */
static unsigned
count_inverted(const struct kit_records *all)
{
	unsigned count = 0;

	for (unsigned i = 0; i < all->count; i++) {
		const struct kit_record *a = &all->items[i];
		long n = strtol(a->value ? a->value : "", NULL, 10), most = -1;
		bool is_first = true;

		if (!a->key)
			continue;
		for (unsigned j = 0; j < i && is_first; j++) {
			const struct kit_record *b = &all->items[j];
			long m = strtol(b->value ? b->value : "", NULL, 10);

			if (!b->key || strcmp(a->key, b->key) != 0)
				continue;
			is_first = strcmp(kit_header(a, "ce_id"),
					   kit_header(b, "ce_id")) != 0;
			most = m > most ? m : most;
		}
		count += is_first && n < most;
	}
	return count;
}

struct kit_findings
kit_inspect(const struct kit_records *all)
{
	struct seen *seen = calloc(all->count + 1, sizeof(*seen));
	struct kit_findings f = { 0 };
	const char *highest;

	for (unsigned i = 0; i < all->count; i++) {
		seen[i].id = kit_header(&all->items[i], "ce_id");
		seen[i].sequence = kit_header(&all->items[i], "ce_sequence");
	}
	qsort(seen, all->count, sizeof(*seen), by_id);
	for (unsigned i = 0; i < all->count; i++) {
		bool is_same = i && strcmp(seen[i].id, seen[i - 1].id) == 0;

		f.messages += !is_same;
		f.repeats += is_same;
		f.moved += is_same && strcmp(seen[i].sequence, seen[i - 1].sequence) != 0;
	}
	qsort(seen, all->count, sizeof(*seen), by_sequence);
	for (unsigned i = 1; i < all->count; i++)
		f.moved += strcmp(seen[i].sequence, seen[i - 1].sequence) == 0 &&
			   strcmp(seen[i].id, seen[i - 1].id) != 0;
	free(seen);
	/* what a consumer with a watermark would drop although it never had it */
	highest = "";
	for (unsigned i = 0; i < all->count; i++) {
		const char *sequence = kit_header(&all->items[i], "ce_sequence");
		bool is_first = true;

		if (i && all->items[i].partition != all->items[i - 1].partition)
			highest = "";
		if (strcmp(sequence, highest) > 0) {
			highest = sequence;
			continue;
		}
		for (unsigned j = i; j-- > 0 && is_first;) {
			if (all->items[j].partition != all->items[i].partition)
				break;
			is_first = strcmp(kit_header(&all->items[j], "ce_sequence"),
					   sequence) != 0;
		}
		f.fallen += is_first;
	}
	for (unsigned i = 0; i < all->count; i++)
		f.recovered += kit_header_count(&all->items[i], "ce_recovered");
	f.inverted = all->count <= 5000 ? count_inverted(all) : 0;
	return f;
}

struct kit_findings
kit_check(const char *topic, unsigned messages, unsigned repeats_max)
{
	struct kit_records all = kit_read(topic);
	struct kit_findings f = kit_inspect(&all);

	printf("(%u messages, %u repeats, %u of catch-ups) ", f.messages, f.repeats,
		f.recovered);
	CU_ASSERT_EQUAL(f.messages, messages);
	CU_ASSERT(f.repeats <= repeats_max);
	CU_ASSERT_EQUAL(f.moved, 0);
	CU_ASSERT_EQUAL(f.fallen, 0);
	CU_ASSERT_EQUAL(f.inverted, 0);
	kit_free(&all);
	return f;
}

void
kit_drop_slots(struct skald_sql *sql)
{
	static const char drop[] =
		"DO $$ DECLARE s record; BEGIN FOR i IN 1..5000 LOOP"
		" SELECT * INTO s FROM pg_replication_slots WHERE database = "
		"current_database();"
		" EXIT WHEN s.slot_name IS NULL;"
		" PERFORM pg_terminate_backend(s.active_pid);"
		" BEGIN PERFORM pg_drop_replication_slot(s.slot_name);"
		" EXCEPTION WHEN object_in_use OR undefined_object THEN NULL; END;"
		" PERFORM pg_sleep(0.001); END LOOP; END $$";

	pg_exec(sql, drop);
}

void
kit_end(struct skald_sql *sql)
{
	(void)kit_wait(sql,
		"SELECT count(*) FROM pg_replication_slots WHERE active AND database = "
		"current_database()",
		0);
	kit_drop_slots(sql);
	skald_sql_close(sql);
}
