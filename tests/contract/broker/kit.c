#include "tests/contract/broker/kit.h"

#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/config.h"

#define SETS_MAX 16

struct skald_kafka_props *
kit_props(const char *bootstrap, const char *const *sets)
{
	struct skald_kafka_props *props = NULL;
	struct skald_config *config = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	char servers[256];
	const char *all[SETS_MAX] = { servers };
	struct skald_config_args args = {
		.file = "/dev/null", .sets = all, .set_count = 1
	};

	snprintf(servers, sizeof(servers), "kafka.bootstrap.servers=%s", bootstrap);
	while (sets && *sets && args.set_count < SETS_MAX)
		all[args.set_count++] = *sets++;
	if (skald_config_load(&config, &args, &err) ||
		skald_kafka_props_create(&props, config, &err))
		printf("\n    %s\n", err.text);
	skald_config_destroy(config);
	return props;
}

/* --- mock cluster ------------------------------------------------------------------------- */

bool
kit_mock_start(struct kit_mock *mock, int brokers)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char text[200];

	memset(mock, 0, sizeof(*mock));
	rd_kafka_conf_set(conf, "log_level", "0", NULL, 0);
	mock->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	if (!mock->rk) {
		rd_kafka_conf_destroy(conf);
		return false;
	}
	mock->cluster = rd_kafka_mock_cluster_new(mock->rk, brokers);
	if (mock->cluster)
		mock->bootstrap = rd_kafka_mock_cluster_bootstraps(mock->cluster);
	return mock->cluster != NULL;
}

void
kit_mock_stop(struct kit_mock *mock)
{
	if (mock->cluster)
		rd_kafka_mock_cluster_destroy(mock->cluster);
	if (mock->rk)
		rd_kafka_destroy(mock->rk);
	memset(mock, 0, sizeof(*mock));
}

const char *
kit_topic(struct kit_mock *mock, int partitions)
{
	static char name[32];
	static unsigned number;

	snprintf(name, sizeof(name), "t%u", ++number);
	if (rd_kafka_mock_topic_create(mock->cluster, name, partitions, 1))
		return NULL;
	return name;
}

/* --- reading -------------------------------------------------------------------------------- */

static rd_kafka_t *
plain_reader(const char *bootstrap)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	char text[200];

	rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, NULL, 0);
	rd_kafka_conf_set(conf, "group.id", "kit", NULL, 0);
	rd_kafka_conf_set(conf, "enable.auto.commit", "false", NULL, 0);
	rd_kafka_conf_set(conf, "fetch.wait.max.ms", "5", NULL, 0);
	rd_kafka_conf_set(conf, "log_level", "0", NULL, 0);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text));
	if (!rk)
		rd_kafka_conf_destroy(conf);
	return rk;
}

static void
read_up_to(rd_kafka_t *rk, int64_t next, struct kit_log *log)
{
	int64_t until_ms = skald_mono_ms() + 20000;

	while (skald_mono_ms() < until_ms) {
		rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);
		bool is_last;

		if (!m)
			continue;
		if (m->err) {
			rd_kafka_message_destroy(m);
			continue;
		}
		is_last = m->offset + 1 >= next;
		log->items[log->count++] = m;
		if (is_last)
			return;
	}
}

bool
kit_read(const char *bootstrap, const char *topic, int32_t partition, struct kit_log *log)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_t *rk = plain_reader(bootstrap);
	int64_t lo = 0, hi = 0;
	bool is_whole = false;

	memset(log, 0, sizeof(*log));
	if (!rk || rd_kafka_query_watermark_offsets(rk, topic, partition, &lo, &hi, 5000))
		goto out;
	log->items = calloc((size_t)(hi - lo) + 1, sizeof(rd_kafka_message_t *));
	if (!log->items)
		goto out;
	rd_kafka_topic_partition_list_add(list, topic, partition)->offset = lo;
	rd_kafka_assign(rk, list);
	if (hi > lo)
		read_up_to(rk, hi, log);
	is_whole = log->count == (unsigned)(hi - lo);
	/* Kept messages would make the reader's end hang: a copy of each. */
	for (unsigned i = 0; i < log->count; i++) {
		rd_kafka_message_t *m = log->items[i], *copy = calloc(1, sizeof(*copy));

		copy->offset = m->offset;
		copy->len = m->len;
		copy->payload = m->payload ? strndup(m->payload, m->len) : NULL;
		copy->key_len = m->key_len;
		copy->key = m->key ? strndup(m->key, m->key_len) : NULL;
		log->items[i] = copy;
		rd_kafka_message_destroy(m);
	}
out:
	rd_kafka_topic_partition_list_destroy(list);
	if (rk) {
		rd_kafka_consumer_close(rk);
		rd_kafka_destroy(rk);
	}
	return is_whole;
}

void
kit_log_done(struct kit_log *log)
{
	for (unsigned i = 0; i < log->count; i++) {
		free(log->items[i]->payload);
		free(log->items[i]->key);
		free(log->items[i]);
	}
	free(log->items);
	memset(log, 0, sizeof(*log));
}

const char *
kit_payloads(const struct kit_log *log, char *dst, size_t bytes)
{
	size_t at = 0;

	dst[0] = '\0';
	for (unsigned i = 0; i < log->count && at < bytes; i++)
		at += (size_t)snprintf(dst + at, bytes - at, "%s%s", i ? " " : "",
			log->items[i]->payload ? (char *)log->items[i]->payload : "-");
	return dst;
}

/* --- sending ---------------------------------------------------------------------------------- */

void
kit_report(uint64_t tag, enum skald_rc rc, const struct skald_err *err, void *ctx)
{
	struct kit_reports *r = ctx;

	if (r->ok + r->retry + r->reject == 0)
		r->in_order = true;
	if (rc == SKALD_OK) {
		r->ok++;
		r->in_order = r->in_order && (r->ok == 1 || tag > r->last_tag);
		r->last_tag = tag;
		return;
	}
	r->err = *err;
	if (rc == SKALD_REJECT) {
		r->reject++;
		r->rejected_tag = tag;
	} else {
		r->retry++;
	}
}

bool
kit_await(struct skald_producer *producer, struct kit_reports *reports, unsigned count,
	int64_t ms)
{
	struct pollfd fd = { .fd = skald_producer_fd(producer), .events = POLLIN };
	int64_t until_ms = skald_mono_ms() + ms;

	while (reports->ok + reports->retry + reports->reject < count &&
		!skald_producer_is_dead(producer, NULL)) {
		if (skald_mono_ms() > until_ms)
			return false;
		/* a dying producer wants to be served without being asked to */
		poll(&fd, 1, 100);
		skald_producer_serve(producer, kit_report, reports);
	}
	return true;
}

unsigned
kit_send(struct skald_producer *producer, const char *topic, unsigned from, unsigned to)
{
	struct skald_err err = SKALD_ERR_INIT;
	char text[16];
	unsigned sent = 0;
	bool full = false;

	for (unsigned i = from; i <= to; i++, sent++) {
		struct skald_record r = { .topic = topic, .tag = i };

		snprintf(text, sizeof(text), "%u", i);
		r.value = skald_slice_text(text);
		if (skald_producer_send(producer, &r, &full, &err)) {
			printf("\n    send: %s\n", err.text);
			break;
		}
		if (full)
			break;
	}
	return sent;
}
