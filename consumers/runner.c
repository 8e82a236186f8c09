/*
 * runner.c - the loop of a consumer: serves Kafka, asks the core what to do with
 * the batch in hand, does it. One thread, one session, one member of the group.
 */
#include "consumers/own.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"

#define OPEN_RETRY_MS 1000
#define REOPEN_MS     2000 /* joining anew disturbs the whole group: not too often */
#define TOPIC_MS      10000
#define CLUSTER_MS    5000
#define CONFLICT_MS   5
#define OUTAGE_MS     100
#define OUTAGE_MAX_MS 5000

/* --- create, destroy -------------------------------------------------------------------------- */

static enum skald_rc
check_conf(const struct skald_consumer_conf *conf, struct skald_err *err)
{
	const char *rule = NULL;

	if (conf->struct_bytes != sizeof(*conf))
		rule = "consumer: begin with SKALD_CONSUMER_INIT of this library's "
		       "version";
	else if (!conf->group || !*conf->group ||
		 strlen(conf->group) > SKALD__GROUP_BYTES_MAX)
		rule = "group: must be 1 to 255 bytes";
	else if (!conf->url)
		rule = "url: must be given";
	else if (!conf->kafka)
		rule = "kafka: must be given";
	else if (!conf->topics || conf->topic_count == 0)
		rule = "topics: at least one";
	else if (!conf->handler == !conf->batch)
		rule = "handler, batch: exactly one of them";
	else if (conf->batch_max < 1 || conf->batch_max > 10000)
		rule = "batch_max: must be 1 to 10000";
	else if (conf->lanes < 1 || conf->lanes > LANES_MAX)
		rule = "lanes: must be 1 to 64";
	else if (conf->attempts < 1 || conf->attempts > 1000)
		rule = "attempts: must be 1 to 1000";
	for (unsigned i = 0; !rule && i < conf->topic_count; i++)
		if (!conf->topics[i] || !*conf->topics[i] ||
			strlen(conf->topics[i]) > SKALD_TOPIC_BYTES_MAX)
			rule = "topics: each 1 to 249 bytes";
	return rule ? skald_fail(err, SKALD_FATAL, "skald", "SK001", "%s", rule)
		    : SKALD_OK;
}

static bool
copy_conf(struct skald_consumer *c, const struct skald_consumer_conf *conf)
{
	char **topics = calloc(conf->topic_count, sizeof(*topics));

	c->conf = *conf;
	c->conf.group = strdup(conf->group);
	c->conf.name = strdup(conf->name ? conf->name : conf->group);
	c->conf.url = strdup(conf->url);
	c->conf.topics = (const char *const *)topics;
	for (unsigned i = 0; topics && i < conf->topic_count; i++) {
		topics[i] = strdup(conf->topics[i]);
		if (!topics[i])
			return false;
	}
	return c->conf.group && c->conf.name && c->conf.url && topics;
}

static skald_metric *
counter(struct skald_consumer *c, const char *name, const char *labels, const char *help)
{
	return skald_metrics_at(
		c->conf.metrics, SKALD_METRIC_COUNTER, name, labels, help, 1);
}

static void
register_metrics(struct skald_consumer *c)
{
	char labels[SKALD__GROUP_BYTES_MAX + 16];

	(void)snprintf(labels, sizeof(labels), "group=\"%s\"", c->conf.group);
	c->count.applied = counter(c, "skald_consumer_applied_total", labels,
		"messages whose handler's effects are committed");
	c->count.duplicate = counter(c, "skald_consumer_duplicate_total", labels,
		"messages applied before and passed over");
	c->count.skipped = counter(c, "skald_consumer_skipped_total", labels,
		"messages of a type nobody here handles, or for another group");
	c->count.dead = counter(c, "skald_consumer_dead_total", labels,
		"messages that became dead letters");
	c->count.retries = counter(c, "skald_consumer_retries_total", labels,
		"transactions rolled back by a message's own failure");
	c->count.conflicts = counter(c, "skald_consumer_conflicts_total", labels,
		"transactions rolled back by another one");
	c->count.outages = counter(c, "skald_consumer_outages_total", labels,
		"transactions rolled back by trouble of the infrastructure");
	c->count.fenced = counter(c, "skald_consumer_fenced_total", labels,
		"times another owner had taken a partition");
	c->count.batches = counter(
		c, "skald_consumer_batches_total", labels, "transactions committed");
	c->count.replayed = counter(c, "skald_consumer_replayed_total", labels,
		"dead letters resolved by a replay");
	c->count.stopped = skald_metrics_at(c->conf.metrics, SKALD_METRIC_GAUGE,
		"skald_consumer_stopped_partitions", labels,
		"partitions that stopped and wait for a person", 1);
	c->count.lag = skald_metrics_at(c->conf.metrics, SKALD_METRIC_GAUGE,
		"skald_consumer_lag_records", labels, "records not yet applied", 1);
}

static void
name_owner(struct skald_consumer *c)
{
	char host[128] = "";

	if (gethostname(host, sizeof(host) - 1) || !host[0])
		(void)snprintf(host, sizeof(host), "host");
	(void)snprintf(c->token, sizeof(c->token), "%016llx",
		(unsigned long long)skald_rand_next(&c->rand));
	(void)snprintf(
		c->owner, sizeof(c->owner), "%s:%d:%s", host, (int)getpid(), c->token);
}

enum skald_rc
skald_consumer_create(struct skald_consumer **out, const struct skald_consumer_conf *conf,
	struct skald_err *err)
{
	struct skald_consumer *c;
	enum skald_rc rc = check_conf(conf, err);

	if (rc)
		return rc;
	c = calloc(1, sizeof(*c));
	if (!c)
		return skald_fail(err, SKALD_FATAL, "skald", "", "out of memory");
	c->wake.read_fd = c->wake.write_fd = -1;
	(void)pthread_mutex_init(&c->lock, NULL);
	for (unsigned i = 0; i < sizeof(c->args) / sizeof(c->args[0]); i++)
		skald_buf_init(&c->args[i], SKALD__ARGS_BYTES_MAX);
	skald_buf_init(&c->text, SKALD__ARGS_BYTES_MAX);
	skald_buf_init(&c->packed, SKALD__ARGS_BYTES_MAX);
	c->msgs = calloc(conf->batch_max, sizeof(*c->msgs));
	c->deliveries = calloc(conf->batch_max, sizeof(*c->deliveries));
	c->picked = calloc(conf->batch_max, sizeof(struct skald_delivery *));
	c->scratch = calloc(conf->batch_max, sizeof(*c->scratch));
	if (!copy_conf(c, conf) || !c->msgs || !c->deliveries || !c->picked ||
		!c->scratch)
		rc = skald_fail(err, SKALD_FATAL, "skald", "", "out of memory");
	if (!rc)
		rc = skald_wake_open(&c->wake, err);
	if (rc) {
		skald_consumer_destroy(c);
		return rc;
	}
	skald_rand_init(&c->rand);
	name_owner(c);
	register_metrics(c);
	skald__run_init(&c->core, &(struct run_conf){ .attempts = conf->attempts,
					  .backoff_ms = conf->backoff_ms,
					  .backoff_max_ms = conf->backoff_max_ms,
					  .conflict_ms = CONFLICT_MS,
					  .outage_ms = OUTAGE_MS,
					  .outage_max_ms = OUTAGE_MAX_MS });
	*out = c;
	return SKALD_OK;
}

void
skald_consumer_destroy(struct skald_consumer *c)
{
	if (!c)
		return;
	skald__consumer_drop(c);
	skald__participant_free(c);
	skald_kafka_consumer_close(c->kafka);
	skald__part_free_all(c);
	skald_sql_close(c->sql);
	skald_wake_close(&c->wake);
	for (unsigned i = 0; i < sizeof(c->args) / sizeof(c->args[0]); i++)
		skald_buf_done(&c->args[i]);
	skald_buf_done(&c->text);
	skald_buf_done(&c->packed);
	for (unsigned i = 0; c->conf.topics && i < c->conf.topic_count; i++)
		free((char *)(uintptr_t)c->conf.topics[i]);
	free((void *)(uintptr_t)c->conf.topics);
	free((char *)(uintptr_t)c->conf.group);
	free((char *)(uintptr_t)c->conf.name);
	free((char *)(uintptr_t)c->conf.url);
	free(c->msgs);
	free(c->deliveries);
	free(c->picked);
	free(c->scratch);
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
}

struct skald_wake *
skald_consumer_wake(struct skald_consumer *consumer)
{
	return &consumer->wake;
}

void
skald__consumer_filter(struct skald_consumer *c, skald__wants_fn wants, void *ctx)
{
	c->wants = wants;
	c->wants_ctx = ctx;
}

/* --- health -------------------------------------------------------------------------------------- */

void
skald__consumer_trouble(struct skald_consumer *c, const struct skald_err *err)
{
	char was[sizeof(c->health.trouble)];

	if (!err && !c->has_trouble)
		return;
	(void)pthread_mutex_lock(&c->lock);
	memcpy(was, c->health.trouble, sizeof(was));
	(void)snprintf(c->health.trouble, sizeof(c->health.trouble), "%.159s",
		err ? err->text : "");
	(void)pthread_mutex_unlock(&c->lock);
	if (!err)
		skald_log(SKALD_LOG_INFO, "consumer goes on group=%s", c->conf.group);
	else if (strncmp(was, err->text, sizeof(was) - 1) != 0)
		skald_log_err(
			SKALD_LOG_WARN, err, "consumer waits group=%s", c->conf.group);
	c->has_trouble = err != NULL;
	c->has_failed = c->has_failed || err;
}

void
skald__consumer_fatal(
	struct skald_consumer *c, enum skald_rc rc, const struct skald_err *err)
{
	if (c->fatal)
		return;
	c->fatal = rc == SKALD_OK ? SKALD_FATAL : rc;
	c->fatal_err = *err;
}

void
skald_consumer_health(struct skald_consumer *c, struct skald_consumer_health *out)
{
	(void)pthread_mutex_lock(&c->lock);
	*out = c->health;
	(void)pthread_mutex_unlock(&c->lock);
}

static void
note_progress(struct skald_consumer *c, int64_t now_ms)
{
	(void)pthread_mutex_lock(&c->lock);
	c->health.progress_at_ms = now_ms;
	c->health.is_ready = c->sql && c->kafka && !c->has_trouble &&
			     skald_kafka_consumer_is_connected(c->kafka);
	(void)pthread_mutex_unlock(&c->lock);
}

/* --- joining the group -------------------------------------------------------------------------- */

static enum skald_rc
look_at_cluster(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_cluster *cluster = NULL;
	char id[SKALD_CLUSTER_ID_BYTES] = "";
	struct skald_topic_conf fallback = { 8, -1, true };
	int32_t count;
	enum skald_rc rc;

	rc = skald_cluster_open(&cluster, c->conf.kafka, err);
	if (!rc)
		rc = skald_cluster_id(cluster, CLUSTER_MS, id, err);
	for (unsigned i = 0; i < c->conf.topic_count && !rc; i++)
		rc = skald_topic_ensure(cluster, c->conf.topics[i],
			c->conf.topics_conf ? c->conf.topics_conf : &fallback, TOPIC_MS,
			&count, err);
	c->is_dev = !rc && skald_cluster_is_dev(id);
	skald_cluster_close(cluster);
	return rc;
}

static enum skald_rc
join(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_kafka_consumer_conf conf = { .group = c->conf.group,
		.client_id = c->conf.name,
		.topics = c->conf.topics,
		.topic_count = c->conf.topic_count,
		.session_timeout_ms = c->conf.session_timeout_ms,
		.on_group = skald__claim_on_group,
		.on_stopped = skald__claim_on_stopped,
		.ctx = c };
	enum skald_rc rc = look_at_cluster(c, err);

	if (!rc)
		rc = skald_kafka_consumer_open(&c->kafka, c->conf.kafka, &conf, err);
	return rc;
}

/* Leave and join: partitions that were stopped are looked at again. */
static void
turn_kafka(struct skald_consumer *c, int64_t now_ms)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;

	if (c->kafka && c->wants_reopen && now_ms >= c->reopen_at_ms &&
		c->core.state == RUN_IDLE) {
		skald_kafka_consumer_close(c->kafka);
		c->kafka = NULL;
		skald__part_free_all(c);
		c->wants_reopen = false;
		c->reopen_at_ms = now_ms + REOPEN_MS;
	}
	if (c->kafka) {
		skald_kafka_consumer_serve(c->kafka);
		return;
	}
	if (now_ms < c->join_at_ms)
		return;
	rc = join(c, &err);
	c->join_at_ms = skald_mono_ms() + OPEN_RETRY_MS;
	if (rc == SKALD_FATAL)
		skald__consumer_fatal(c, rc, &err);
	else if (rc)
		skald__consumer_trouble(c, &err);
}

/* --- the batch in hand ----------------------------------------------------------------------------- */

void
skald__consumer_drop(struct skald_consumer *c)
{
	struct run_event drop = { .kind = RUN_EV_DROP };

	for (unsigned i = 0; i < c->part_count && c->delivery_count > 0; i++)
		skald__lane_forget(&c->parts[i]->lanes);
	(void)skald__run_step(&c->core, &drop, skald_mono_ms());
	c->todo = (struct run_do){ .kind = RUN_DO_NOTHING };
	if (c->records)
		skald_kafka_records_free(c->records);
	c->records = NULL;
	c->delivery_count = 0;
}

static void
step(struct skald_consumer *c, struct run_event ev)
{
	c->todo = skald__run_step(&c->core, &ev, skald_mono_ms());
}

/* Is the database there? Connects if not. */
static enum skald_rc
connect(struct skald_consumer *c)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;

	if (c->sql && skald_sql_is_open(c->sql))
		return SKALD_OK;
	rc = skald__claim_connect(c, &err);
	if (!rc) {
		skald__consumer_trouble(c, NULL);
		return SKALD_OK;
	}
	if (rc == SKALD_FATAL && !c->was_connected)
		skald__consumer_fatal(c, rc, &err);
	else
		skald__consumer_trouble(c, &err);
	return rc;
}

static void
turn_database(struct skald_consumer *c, int64_t now_ms)
{
	if (c->sql && !skald_sql_is_open(c->sql)) {
		skald_sql_close(c->sql);
		c->sql = NULL;
	}
	if (!c->sql && c->core.state == RUN_IDLE && now_ms >= c->connect_at_ms &&
		connect(c) == SKALD_OK)
		c->was_connected = true;
}

static void
settle(struct skald_consumer *c)
{
	skald__batch_settled(c);
	c->todo = (struct run_do){ .kind = RUN_DO_NOTHING };
}

/* Do what the core said; it says the next thing. */
static void
turn_batch(struct skald_consumer *c, int64_t now_ms)
{
	switch (c->todo.kind) {
	case RUN_DO_NOTHING:
		return;
	case RUN_DO_RUN:
		if (!c->sql) /* lost by something else than the batch */
			step(c, (struct run_event){ .kind = RUN_EV_FAILED,
					.fault = RUN_OUTAGE,
					.culprit = -1,
					.rand = skald_rand_next(&c->rand) });
		else
			step(c, skald__range_run(c, c->todo.lo, c->todo.hi));
		if (c->todo.kind == RUN_DO_NEXT)
			settle(c); /* the core is idle: the next batch would take its place */
		return;
	case RUN_DO_WAIT:
		if (now_ms >= c->todo.until_ms)
			step(c, (struct run_event){ .kind = RUN_EV_TIME });
		return;
	case RUN_DO_PROBE:
		step(c, connect(c) == SKALD_OK
				? (struct run_event){ .kind = RUN_EV_BACK }
				: (struct run_event){ .kind = RUN_EV_GONE,
					  .rand = skald_rand_next(&c->rand) });
		return;
	case RUN_DO_NEXT:
		settle(c);
		return;
	case RUN_DO_STOP:
		SKALD_ASSERT(c->fatal);
		return;
	}
}

static bool
has_active(const struct skald_consumer *c)
{
	for (unsigned i = 0; i < c->part_count; i++)
		if (c->parts[i]->state == PART_ACTIVE)
			return true;
	return false;
}

/* Not taking is the back-pressure. */
static void
turn_take(struct skald_consumer *c)
{
	if (c->core.state != RUN_IDLE || !c->sql || !c->kafka || !has_active(c))
		return;
	if (!skald__batch_take(c))
		return;
	skald__run_load(&c->core, c->msgs);
	step(c, (struct run_event){ .kind = RUN_EV_BATCH, .count = c->delivery_count });
}

static bool
has_pending(const struct skald_consumer *c)
{
	for (unsigned i = 0; i < c->part_count; i++)
		if (c->parts[i]->state == PART_PENDING)
			return true;
	return false;
}

/* Once a second everything is tried; when nothing failed, what was wrong is over. */
static void
turn_chores(struct skald_consumer *c, int64_t now_ms)
{
	bool is_tick = now_ms >= c->tick_at_ms;

	if (!c->kafka || !c->sql)
		return;
	c->has_failed = false;
	if (is_tick) {
		skald__tick(c);
		c->tick_at_ms = now_ms + SKALD__TICK_MS;
	}
	if (c->core.state != RUN_IDLE)
		return;
	skald__claim_pending(c, now_ms);
	if (now_ms >= c->stopped_at_ms) {
		skald__tick_stopped(c);
		c->stopped_at_ms = now_ms + SKALD__STOPPED_MS;
	}
	if ((is_tick || now_ms >= c->replay_at_ms) && !skald__replay_turn(c))
		c->replay_at_ms = now_ms + SKALD__REPLAY_MS;
	if (is_tick && !c->has_failed && !has_pending(c))
		skald__consumer_trouble(c, NULL);
}

/* --- the loop ---------------------------------------------------------------------------------------- */

static int
sleep_ms(const struct skald_consumer *c, int64_t now_ms)
{
	int64_t until_ms = now_ms + SKALD__SERVE_MS;

	switch (c->todo.kind) {
	case RUN_DO_RUN:
	case RUN_DO_PROBE:
	case RUN_DO_NEXT:
	case RUN_DO_STOP:
		return 0;
	case RUN_DO_WAIT:
		if (c->todo.until_ms < until_ms)
			until_ms = c->todo.until_ms;
		break;
	case RUN_DO_NOTHING:
		break;
	}
	return until_ms > now_ms ? (int)(until_ms - now_ms) : 0;
}

static void
rest(struct skald_consumer *c)
{
	struct pollfd fd = { .events = POLLIN };
	int ms = sleep_ms(c, skald_mono_ms());

	if (ms == 0)
		return;
	/* While nothing is taken the descriptor stays ready: the group is served by time. */
	if (c->kafka && c->sql && c->core.state == RUN_IDLE && has_active(c)) {
		fd.fd = skald_kafka_consumer_fd(c->kafka);
		(void)skald_wake_wait(&c->wake, &fd, 1, ms);
	} else {
		(void)skald_wake_wait(&c->wake, NULL, 0, ms);
	}
}

/* Draining: what can be finished is; what waits for the infrastructure is rolled back already. */
static bool
is_over(struct skald_consumer *c, int64_t drain_ms, int64_t now_ms)
{
	if (c->fatal)
		return true;
	if (!atomic_load(&c->wake.stop))
		return false;
	if (!c->drain_until_ms)
		c->drain_until_ms = now_ms + drain_ms;
	return c->core.state == RUN_IDLE || c->core.state == RUN_AWAY ||
	       now_ms >= c->drain_until_ms;
}

enum skald_rc
skald_consumer_run(struct skald_consumer *c, int64_t drain_ms, struct skald_err *err)
{
	int64_t now_ms = skald_mono_ms();

	while (!is_over(c, drain_ms, now_ms)) {
		turn_kafka(c, now_ms);
		turn_database(c, now_ms);
		turn_batch(c, now_ms);
		if (!atomic_load(&c->wake.stop)) {
			turn_chores(c, now_ms);
			turn_take(c);
		}
		rest(c);
		now_ms = skald_mono_ms();
		note_progress(c, now_ms);
	}
	if (c->todo.kind == RUN_DO_NEXT)
		skald__batch_settled(c);
	skald__consumer_drop(c);
	if (c->kafka)
		skald__tick(c);
	skald_kafka_consumer_close(c->kafka);
	c->kafka = NULL;
	skald__part_free_all(c);
	skald_sql_close(c->sql);
	c->sql = NULL;
	if (c->fatal && err)
		*err = c->fatal_err;
	return c->fatal;
}
