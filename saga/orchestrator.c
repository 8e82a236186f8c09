/*
 * orchestrator.c - the loop: sessions, leases, reading, batches. One thread.
 *
 * Each turn does what is possible: without PostgreSQL nothing, without Kafka still
 * what is due. Whatever fails is said once and tried again.
 */
#include "saga/own.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define CONNECT_MS   3000
#define RETRY_MS     100 /* after trouble, doubling to ... */
#define RETRY_MAX_MS 2000
#define CONFLICT_MS  2
#define CLUSTER_MS   3000
#define TOPIC_MS     20000
#define JOIN_MS      1000
#define BEAT_MS      500
#define REPLAY_MS    500 /* a person waits for it */
#define DUE_MIN_MS   2 /* between looks at what is due: while there is work, */
#define DUE_SOON_MS  8 /* within DUE_WARM_MS of it: the next start is not far, */
#define DUE_MAX_MS   25 /* and when idle */
#define DUE_WARM_MS  1000

/* --- what others see ----------------------------------------------------------------------- */

void
skald_orchestrator_health(
	struct skald_orchestrator *o, struct skald_orchestrator_health *out)
{
	(void)pthread_mutex_lock(&o->lock);
	*out = o->health;
	(void)pthread_mutex_unlock(&o->lock);
}

static void
trouble(struct skald_orchestrator *o, const struct skald_err *err)
{
	char was[sizeof(o->health.trouble)];

	if (!err && !o->has_trouble)
		return;
	(void)pthread_mutex_lock(&o->lock);
	memcpy(was, o->health.trouble, sizeof(was));
	(void)snprintf(o->health.trouble, sizeof(o->health.trouble), "%.159s",
		err ? err->text : "");
	(void)pthread_mutex_unlock(&o->lock);
	if (!err)
		skald_log(SKALD_LOG_INFO, "orchestrator goes on");
	else if (strncmp(was, err->text, sizeof(was) - 1) != 0)
		skald_log_err(SKALD_LOG_WARN, err, "orchestrator waits");
	o->has_trouble = err != NULL;
}

static void
note_progress(struct skald_orchestrator *o)
{
	(void)pthread_mutex_lock(&o->lock);
	o->health.progress_at_ms = skald_mono_ms();
	o->health.partitions = o->part_count;
	o->health.is_ready = o->sql && o->kafka && !o->wants_assign && !o->has_trouble &&
			     skald_kafka_consumer_is_connected(o->kafka);
	(void)pthread_mutex_unlock(&o->lock);
}

/* --- PostgreSQL ------------------------------------------------------------------------------- */

static void
close_sql(struct skald_orchestrator *o)
{
	skald_sql_close(o->sql);
	o->sql = NULL;
	o->connect_at_ms =
		skald_mono_ms() + RETRY_MS +
		skald_backoff_ms(&o->rand, o->connect_tries++, RETRY_MS, RETRY_MAX_MS);
}

static enum skald_rc
name_installation(struct skald_orchestrator *o, struct skald_err *err)
{
	struct skald_rows *rows = NULL;
	char text[256];
	enum skald_rc rc;

	if (o->installation)
		return SKALD_OK;
	rc = skald_sql_query(
		o->sql, "SELECT current_database()", NULL, 0, false, &rows, err);
	if (rc)
		return rc;
	(void)skald_slice_copy(skald_rows_get(rows, 0, 0), text, sizeof(text));
	skald_rows_free(rows);
	if (o->conf.installation && o->conf.installation[0])
		(void)snprintf(text, sizeof(text), "%s", o->conf.installation);
	o->installation = strdup(text);
	(void)snprintf(o->source, sizeof(o->source), "/skald/%s", text);
	if (asprintf(&o->group, "skald.%s", text) < 0)
		o->group = NULL;
	if (o->conf.reply_topic && o->conf.reply_topic[0])
		o->reply_topic = strdup(o->conf.reply_topic);
	else if (asprintf(&o->reply_topic, "skald.replies.%s", text) < 0)
		o->reply_topic = NULL;
	if (!o->installation || !o->group || !o->reply_topic)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	return SKALD_OK;
}

static enum skald_rc
connect(struct skald_orchestrator *o, struct skald_err *err)
{
	struct skald_sql_conf conf = { .url = o->conf.url,
		.application = "skald orchestrator",
		.kind = SKALD_SQL_DAEMON,
		.connect_timeout_ms = CONNECT_MS };
	enum skald_rc rc;

	rc = skald_sql_open(&o->sql, &conf, err);
	if (rc == SKALD_FATAL && !o->was_connected && strncmp(err->code, "08", 2) == 0)
		return SKALD_REJECT; /* no waiting helps: the URL is nonsense */
	if (!rc)
		rc = skald_migrate_check(o->sql, err);
	if (!rc)
		rc = name_installation(o, err);
	if (!rc && !o->was_connected && o->conf.definitions && o->conf.definitions[0]) {
		rc = skald__saga_deploy_all(o->sql, o->conf.definitions, err);
		if (rc == SKALD_REJECT)
			return rc;
	}
	if (rc)
		return SKALD_RETRY;
	o->was_connected = true;
	o->connect_tries = 0;
	o->beat_at_ms = 0;
	return SKALD_OK;
}

/* --- Kafka ------------------------------------------------------------------------------------- */

static void
on_group(enum skald_group_event event, struct skald_kafka_partition *partitions,
	unsigned count, void *ctx)
{
	(void)event; /* there is no group */
	(void)partitions;
	(void)count;
	(void)ctx;
}

static void
on_stopped(const char *topic, int32_t partition, const struct skald_err *err, void *ctx)
{
	struct skald_orchestrator *o = ctx;

	skald_log_err(SKALD_LOG_WARN, err,
		"reading stopped, looked at again topic=%s partition=%d", topic,
		(int)partition);
	o->wants_assign = true;
	o->join_at_ms = skald_mono_ms() + JOIN_MS;
}

static enum skald_rc
identify(struct skald_orchestrator *o, const char *cluster_id, struct skald_err *err)
{
	struct skald_param params[] = { skald_param_text(o->installation),
		skald_param_text(o->is_dev ? NULL : cluster_id),
		skald_param_text(o->reply_topic) };
	struct skald_rows *rows = NULL;
	struct skald_slice rule;
	enum skald_rc rc;

	rc = skald_sql_query(o->sql, "SELECT skald.orchestrator_identity($1, $2, $3)",
		params, 3, false, &rows, err);
	if (rc)
		return rc == SKALD_REJECT ? SKALD_RETRY : rc;
	rule = skald_rows_get(rows, 0, 0);
	if (rule.data)
		rc = skald_fail(
			err, SKALD_REJECT, "config", "SK005", "%.220s", rule.data);
	skald_rows_free(rows);
	return rc;
}

static enum skald_rc
make_topics(struct skald_orchestrator *o, struct skald_cluster *cluster,
	struct skald_err *err)
{
	const char *const topics[] = { o->reply_topic, SAGA__COMMAND_TOPIC,
		SAGA__LIFE_TOPIC };
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = 0; i < 3 && !rc; i++) {
		char number[24];
		int32_t count = 0;

		rc = skald_topic_ensure(
			cluster, topics[i], o->conf.topics, TOPIC_MS, &count, err);
		if (rc || i == 2)
			continue;
		struct skald_param params[] = { skald_param_text(topics[i]),
			skald_param_int(count, number) };

		rc = skald_sql_query(o->sql,
			"SELECT skald.orchestrator_partitions($1, $2::int)", params, 2,
			false, NULL, err);
	}
	return rc == SKALD_REJECT ? SKALD_RETRY : rc;
}

/* REJECT: this database is another installation's. */
static enum skald_rc
join(struct skald_orchestrator *o, struct skald_err *err)
{
	struct skald_kafka_consumer_conf conf = { .group = o->group,
		.client_id = "skald-orchestrator",
		.on_group = on_group,
		.on_stopped = on_stopped,
		.ctx = o };
	struct skald_cluster *cluster = NULL;
	char id[SKALD_CLUSTER_ID_BYTES] = "";
	enum skald_rc rc;

	rc = skald_cluster_open(&cluster, o->conf.kafka, err);
	if (!rc)
		rc = skald_cluster_id(cluster, CLUSTER_MS, id, err);
	if (!rc) {
		o->is_dev = skald_cluster_is_dev(id);
		rc = identify(o, id, err);
	}
	if (!rc)
		rc = make_topics(o, cluster, err);
	skald_cluster_close(cluster);
	if (!rc)
		rc = skald_kafka_consumer_open(&o->kafka, o->conf.kafka, &conf, err);
	o->wants_assign = true;
	o->beat_at_ms = 0;
	return rc;
}

/* --- turns --------------------------------------------------------------------------------------- */

static enum skald_rc
turn_sessions(struct skald_orchestrator *o, int64_t now_ms, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	if (o->sql && !skald_sql_is_open(o->sql))
		close_sql(o);
	if (!o->sql && now_ms >= o->connect_at_ms) {
		rc = connect(o, err);
		if (rc) {
			trouble(o, err);
			close_sql(o);
		}
	}
	if (o->sql && !o->kafka && now_ms >= o->join_at_ms) {
		rc = join(o, err);
		o->join_at_ms = skald_mono_ms() + JOIN_MS;
		if (rc)
			trouble(o, err);
		else
			trouble(o, NULL);
	}
	return rc == SKALD_REJECT ? rc : SKALD_OK;
}

static void
turn_leases(struct skald_orchestrator *o, int64_t now_ms)
{
	struct skald_err err = SKALD_ERR_INIT;

	if (!o->sql || !o->kafka)
		return;
	skald_kafka_consumer_serve(o->kafka);
	for (unsigned i = 0; i < o->part_count; i++)
		if (o->parts[i].hold_until_ms && now_ms >= o->parts[i].hold_until_ms) {
			o->parts[i].hold_until_ms = 0;
			o->wants_assign = true;
		}
	if (now_ms >= o->beat_at_ms) {
		o->beat_at_ms = now_ms + BEAT_MS;
		skald__saga_hint(o);
		if (skald__saga_beat(o, &err)) {
			trouble(o, &err);
			skald_sql_rollback(o->sql);
			return;
		}
	}
	if (o->wants_assign && now_ms >= o->join_at_ms && skald__saga_assign(o, &err)) {
		o->join_at_ms = now_ms + JOIN_MS;
		trouble(o, &err);
	} else if (!o->wants_assign && !o->failed_count) {
		trouble(o, NULL);
	}
}

/* Nothing waits for it: what fails is tried again when its time comes. */
static void
turn_sweep(struct skald_orchestrator *o, int64_t now_ms)
{
	struct skald_err err = SKALD_ERR_INIT;

	if (skald__saga_sweep(o, now_ms, &err))
		skald_log_err(SKALD_LOG_WARN, &err, "could not sweep finished sagas");
}

static void
turn_take(struct skald_orchestrator *o, int64_t now_ms)
{
	struct skald_err err = SKALD_ERR_INIT;

	if (!o->kafka || !o->sql || o->wants_assign || o->msg_next < o->msg_count)
		return;
	skald_kafka_records_free(o->records);
	o->records = NULL;
	o->msg_count = o->msg_next = 0;
	if (skald_kafka_records_take(o->kafka, SAGA__BATCH_MAX, &o->records, &err)) {
		trouble(o, &err);
		return;
	}
	if (skald_kafka_records_count(o->records) == 0 && now_ms >= o->replay_at_ms) {
		o->replay_at_ms = now_ms + REPLAY_MS;
		if (skald__saga_replay_claim(o, &err))
			trouble(o, &err);
		return;
	}
	for (unsigned i = 0; i < skald_kafka_records_count(o->records); i++) {
		const struct skald_kafka_record *r =
			skald_kafka_records_at(o->records, i);
		struct saga__part *part = skald__saga_part(o, r->topic, r->partition);

		if (part)
			o->msgs[o->msg_count++] =
				(struct saga__msg){ .record = r, .part = part };
	}
}

/* Is anything due? One small question while idle. */
static bool
is_due(struct skald_orchestrator *o, int64_t now_ms)
{
	struct skald_rows *rows = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	bool due;

	if (now_ms < o->due_at_ms)
		return false;
	if (skald_sql_query(o->sql, "SELECT skald.orchestrator_is_due()", NULL, 0, false,
		    &rows, &err)) {
		trouble(o, &err);
		return false;
	}
	due = skald_rows_bool(rows, 0, 0);
	skald_rows_free(rows);
	if (!due)
		o->failed_count = 0; /* another daemon did what failed here */
	return due;
}

/* When to ask again. */
static void
wait_for_due(struct skald_orchestrator *o, int64_t now_ms, bool worked)
{
	int64_t most_ms;

	if (worked)
		o->worked_at_ms = now_ms;
	else if (now_ms < o->due_at_ms)
		return;
	most_ms = now_ms - o->worked_at_ms < DUE_WARM_MS ? DUE_SOON_MS : DUE_MAX_MS;
	o->due_wait_ms = worked ? DUE_MIN_MS : 2 * o->due_wait_ms;
	if (o->due_wait_ms > most_ms)
		o->due_wait_ms = most_ms;
	o->due_at_ms = now_ms + o->due_wait_ms;
}

static bool
turn_batch(struct skald_orchestrator *o, int64_t now_ms)
{
	struct skald_err err = SKALD_ERR_INIT;
	bool worked = false;

	if (!o->sql || !o->has_identity || now_ms < o->retry_at_ms ||
		(o->msg_next >= o->msg_count && !is_due(o, now_ms)))
		goto out;
	if (!skald__saga_batch(o, &worked, &err)) {
		o->failed_count = 0;
	} else if (skald_err_is_conflict(&err)) {
		atomic_fetch_add(o->count.conflicts, 1);
		skald_log_err(SKALD_LOG_DEBUG, &err, "another one was first");
		o->beat_at_ms = 0; /* is everything still ours? */
		o->retry_at_ms = now_ms + CONFLICT_MS;
	} else {
		trouble(o, &err);
		o->beat_at_ms = 0;
		o->retry_at_ms = now_ms + RETRY_MS +
				 skald_backoff_ms(&o->rand, o->failed_count++, RETRY_MS,
					 RETRY_MAX_MS);
	}
out:
	wait_for_due(o, now_ms, worked);
	return worked;
}

static void
rest(struct skald_orchestrator *o, bool worked)
{
	struct pollfd fd = { .fd = -1, .events = POLLIN };
	int64_t now_ms = skald_mono_ms(), until_ms = o->beat_at_ms;

	if (worked || (o->msg_next < o->msg_count && now_ms >= o->retry_at_ms && o->sql))
		return;
	if (o->due_at_ms < until_ms)
		until_ms = o->due_at_ms;
	if (until_ms <= now_ms)
		until_ms = now_ms + 1;
	if (!o->sql || !o->kafka)
		until_ms = now_ms + RETRY_MS / 2;
	if (o->kafka && o->sql && !o->wants_assign && o->msg_next >= o->msg_count)
		fd.fd = skald_kafka_consumer_fd(o->kafka);
	(void)skald_wake_wait(&o->wake, &fd, fd.fd >= 0, (int)(until_ms - now_ms));
}

static void
leave(struct skald_orchestrator *o)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_param owner = skald_param_text(o->owner);

	skald__saga_hint(o);
	if (o->sql && skald_sql_query(o->sql, "SELECT skald.orchestrator_leave($1)",
			      &owner, 1, false, NULL, &err))
		skald_log_err(SKALD_LOG_INFO, &err,
			"could not give the partitions back, they run out by themselves");
	skald_kafka_records_free(o->records);
	o->records = NULL;
	o->msg_count = o->msg_next = 0;
	free(o->parts);
	o->parts = NULL;
	o->part_count = 0;
	skald_kafka_consumer_close(o->kafka);
	o->kafka = NULL;
	skald_sql_close(o->sql);
	o->sql = NULL;
}

enum skald_rc
skald_orchestrator_run(
	struct skald_orchestrator *o, int64_t drain_ms, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	(void)drain_ms; /* a batch is short, and the next one is not begun */
	while (!rc && !atomic_load(&o->wake.stop)) {
		int64_t now_ms = skald_mono_ms();
		bool worked;

		rc = turn_sessions(o, now_ms, err);
		o->has_identity = o->has_identity || o->kafka;
		turn_leases(o, now_ms);
		turn_take(o, now_ms);
		worked = turn_batch(o, now_ms);
		turn_sweep(o, now_ms);
		note_progress(o);
		if (!rc)
			rest(o, worked);
	}
	leave(o);
	return rc;
}

/* --- life ----------------------------------------------------------------------------------------- */

static skald_metric *
counter(struct skald_orchestrator *o, const char *name, const char *help)
{
	return skald_metrics_at(o->conf.metrics, SKALD_METRIC_COUNTER, name, "", help, 1);
}

static void
register_metrics(struct skald_orchestrator *o)
{
	struct saga__counters *c = &o->count;

	c->batches = counter(o, "skald_saga_batches_total", "Transactions committed.");
	c->transitions = counter(o, "skald_saga_transitions_total", "Events decided.");
	c->started = counter(o, "skald_saga_started_total", "Sagas begun.");
	c->completed = counter(o, "skald_saga_completed_total", "Sagas completed.");
	c->compensated = counter(o, "skald_saga_compensated_total",
		"Sagas that ended without being completed.");
	c->stuck = counter(
		o, "skald_saga_stuck_total", "Times a saga could not go on by itself.");
	c->commands = counter(o, "skald_saga_commands_total", "Commands sent.");
	c->replies = counter(o, "skald_saga_replies_total", "Replies that fitted.");
	c->stale = counter(o, "skald_saga_stale_total", "Replies that came too late.");
	c->timeouts = counter(o, "skald_saga_timeouts_total", "Attempts given up.");
	c->dead = counter(
		o, "skald_saga_dead_letters_total", "Records that could not be used.");
	c->conflicts = counter(o, "skald_saga_conflicts_total",
		"Batches rolled back because another one was first.");
	c->partitions = skald_metrics_at(o->conf.metrics, SKALD_METRIC_GAUGE,
		"skald_saga_partitions", "", "Partitions served by this daemon.", 1);
}

static void
name_owner(struct skald_orchestrator *o)
{
	char host[64] = "";

	(void)gethostname(host, sizeof(host) - 1);
	(void)snprintf(o->owner, sizeof(o->owner), "%s:%ld:%016llx", host, (long)getpid(),
		(unsigned long long)skald_rand_next(&o->rand));
}

static char *
copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

enum skald_rc
skald_orchestrator_create(struct skald_orchestrator **out,
	const struct skald_orchestrator_conf *conf, struct skald_err *err)
{
	struct skald_orchestrator *o = calloc(1, sizeof(*o));
	enum skald_rc rc;

	if (!o)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	o->wake.read_fd = o->wake.write_fd = -1;
	(void)pthread_mutex_init(&o->lock, NULL);
	o->conf = *conf;
	o->conf.url = copy(conf->url);
	o->conf.installation = copy(conf->installation);
	o->conf.reply_topic = copy(conf->reply_topic);
	o->conf.definitions = copy(conf->definitions);
	if (o->conf.batch_max == 0 || o->conf.batch_max > SAGA__BATCH_MAX)
		o->conf.batch_max = SAGA__BATCH_MAX;
	o->batch_max = o->conf.batch_max;
	o->due_wait_ms = DUE_MIN_MS;
	skald_buf_init(&o->texts, (size_t)SAGA_DO_MAX * SKALD_SAGA_DATA_BYTES_MAX);
	skald_buf_init(&o->scratch, SKALD_SAGA_DATA_BYTES_MAX);
	skald_buf_init(&o->scratch2, SKALD_SAGA_DATA_BYTES_MAX);
	/* a due saga is none that a record names: never more than both together */
	o->insts = calloc(2 * (size_t)SAGA__BATCH_MAX, sizeof(*o->insts));
	o->order = calloc(2 * (size_t)SAGA__BATCH_MAX, sizeof(struct saga__inst *));
	o->msgs = calloc(SAGA__BATCH_MAX, sizeof(*o->msgs));
	skald_rand_init(&o->rand);
	name_owner(o);
	register_metrics(o);
	rc = skald_wake_open(&o->wake, err);
	if (!rc && (!o->conf.url || !o->insts || !o->order || !o->msgs))
		rc = skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	if (rc) {
		skald_orchestrator_destroy(o);
		return rc;
	}
	*out = o;
	return SKALD_OK;
}

static void
free_text(const char *text)
{
	free((char *)(uintptr_t)text);
}

void
skald_orchestrator_destroy(struct skald_orchestrator *o)
{
	if (!o)
		return;
	for (unsigned i = 0; i < o->def_count; i++)
		skald_saga_def_destroy(o->defs[i].def);
	free(o->defs);
	skald__saga_replay_drop(o);
	skald__saga_set_done(&o->save);
	skald__saga_set_done(&o->log);
	skald__saga_set_done(&o->keep);
	skald__saga_set_done(&o->put);
	skald__saga_set_done(&o->done);
	skald_buf_done(&o->texts);
	skald_buf_done(&o->scratch);
	skald_buf_done(&o->scratch2);
	skald_wake_close(&o->wake);
	(void)pthread_mutex_destroy(&o->lock);
	free(o->insts);
	free(o->order);
	free(o->msgs);
	free(o->installation);
	free(o->group);
	free(o->reply_topic);
	free_text(o->conf.url);
	free_text(o->conf.installation);
	free_text(o->conf.reply_topic);
	free_text(o->conf.definitions);
	free(o);
}

struct skald_wake *
skald_orchestrator_wake(struct skald_orchestrator *o)
{
	return &o->wake;
}
