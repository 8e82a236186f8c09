/*
 * service_run.c - the threads of a service: relay, consumer, the program's loops.
 * Main waits for a signal or for the first of them that ends, then drains all.
 */
#include "consumers/service_own.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "outbox/outbox.h"

#define WAIT_MIN_MS 100
#define WAIT_MAX_MS 5000
#define RETRY_MS    200 /* a loop that failed by its own fault */
#define SETUP_TRIES 5 /* two processes that create the same table at once collide */

enum kind { KIND_RELAY, KIND_CONSUMER, KIND_LOOP };

struct crew;

struct worker {
	struct crew *crew;
	enum kind kind;
	pthread_t thread;
	bool is_started;
	bool is_joined;
	struct skald__loop loop;
	struct skald_wake wake; /* of a loop */
	bool has_wake;
	atomic_bool is_over;
	enum skald_rc rc;
	struct skald_err err;
};

struct crew {
	struct skald_service *svc;
	const char *url;
	int64_t drain_ms;
	struct skald_kafka_props *kafka;
	struct skald_topic_conf topics;
	struct skald_relay *relay;
	struct skald_consumer *consumer;
	struct worker workers[SERVICE_LOOPS_MAX + 2];
	unsigned count;
};

/* --- signals -------------------------------------------------------------------------------------- */

static struct skald_wake *volatile signal_wake;

static void
on_signal(int number)
{
	struct skald_wake *wake = signal_wake;

	(void)number;
	if (wake)
		skald_wake_stop(wake);
}

static void
catch_signals(struct skald_wake *wake)
{
	struct sigaction action = { .sa_handler = on_signal };

	signal_wake = wake;
	(void)sigemptyset(&action.sa_mask);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGINT, &action, NULL);
	action.sa_handler = SIG_IGN;
	(void)sigaction(SIGPIPE, &action, NULL);
}

/* --- the database, before anything else ------------------------------------------------------------- */

static enum skald_rc
open_session(const struct crew *crew, const char *application, struct skald_sql **sql,
	struct skald_err *err)
{
	struct skald_sql_conf conf = { .url = crew->url,
		.application = application,
		.kind = SKALD_SQL_SERVICE,
		.connect_timeout_ms = skald_config_ms(
			crew->svc->config, "database", "connect_timeout") };

	return skald_sql_open(sql, &conf, err);
}

/* Waits as long as it takes; *sql stays NULL when the service is told to stop. */
static enum skald_rc
wait_for_database(struct crew *crew, struct skald_sql **sql, struct skald_err *err)
{
	int64_t pause_ms = WAIT_MIN_MS;
	bool is_told = false;
	enum skald_rc rc;

	while (!atomic_load(&crew->svc->wake.stop)) {
		rc = open_session(crew, crew->svc->name, sql, err);
		if (rc != SKALD_RETRY)
			return rc;
		if (!is_told)
			skald_log_err(SKALD_LOG_WARN, err, "waiting for the database");
		is_told = true;
		(void)skald_wake_wait(&crew->svc->wake, NULL, 0, (int)pause_ms);
		pause_ms = pause_ms * 2 < WAIT_MAX_MS ? pause_ms * 2 : WAIT_MAX_MS;
	}
	return SKALD_OK;
}

static enum skald_rc
run_setup(struct skald_sql *sql, const char *script, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = 0; i < SETUP_TRIES; i++) {
		rc = skald_sql_exec(sql, script, err);
		if (!rc)
			return rc;
		skald_sql_rollback(sql);
		if (!skald_err_is_conflict(err) && strcmp(err->code, "23505") != 0 &&
			strncmp(err->code, "42", 2) != 0)
			break;
	}
	return skald_fail_in(err, rc, "setup");
}

static enum skald_rc
prepare_database(struct crew *crew, struct skald_err *err)
{
	struct skald_sql *sql = NULL;
	enum skald_rc rc = wait_for_database(crew, &sql, err);

	if (rc || !sql)
		return rc;
	rc = skald_migrate_check(sql, err);
	for (unsigned i = 0; i < crew->svc->setup_count && !rc; i++)
		rc = run_setup(sql, crew->svc->setups[i], err);
	skald_sql_close(sql);
	return rc;
}

/* --- a loop of the program ---------------------------------------------------------------------------- */

static void
nap(struct worker *w, int64_t ms)
{
	if (ms > 0)
		(void)skald_wake_wait(&w->wake, NULL, 0, ms > 60000 ? 60000 : (int)ms);
}

/* Trouble is told when it begins and when it is another. */
static void
tell(struct skald_err *told, const struct skald_err *err)
{
	if (strcmp(told->text, err->text) != 0)
		skald_log_err(SKALD_LOG_WARN, err, "loop waits");
	*told = *err;
}

/* One turn; *pause_ms until the next. */
static enum skald_rc
turn_once(
	struct worker *w, struct skald_sql *sql, int64_t *pause_ms, struct skald_err *err)
{
	bool is_left_open;
	enum skald_rc rc;

	*pause_ms = 0;
	rc = w->loop.turn(skald_sql_conn(sql), pause_ms, w->loop.ctx, err);
	is_left_open = skald_sql_is_in_transaction(skald_sql_conn(sql));
	skald_sql_rollback(sql);
	if (!rc && is_left_open)
		return skald_fail(err, SKALD_FATAL, "skald", "SK006",
			"a loop's turn left its transaction open");
	if (!rc)
		skald_wake_up(skald_relay_wake(w->crew->relay));
	return rc;
}

static enum skald_rc
run_loop(struct worker *w, struct skald_err *err)
{
	struct skald_err told = SKALD_ERR_INIT;
	struct skald_sql *sql = NULL;
	int64_t pause_ms, away_ms = WAIT_MIN_MS;
	enum skald_rc rc = SKALD_OK;

	while (!atomic_load(&w->wake.stop)) {
		rc = sql ? SKALD_OK
			 : open_session(w->crew, w->crew->svc->name, &sql, err);
		if (!rc)
			rc = turn_once(w, sql, &pause_ms, err);
		if (!rc) {
			if (told.text[0])
				skald_log(SKALD_LOG_INFO, "loop goes on");
			told.text[0] = '\0';
			away_ms = WAIT_MIN_MS;
			nap(w, pause_ms);
			continue;
		}
		if (rc != SKALD_RETRY)
			break;
		if (skald_err_is_conflict(err)) {
			nap(w, 1);
			continue;
		}
		tell(&told, err);
		if (sql && skald_sql_is_open(sql) && !skald_err_is_outage(err)) {
			nap(w, RETRY_MS);
			continue;
		}
		skald_sql_close(sql);
		sql = NULL;
		nap(w, away_ms);
		away_ms = away_ms * 2 < WAIT_MAX_MS ? away_ms * 2 : WAIT_MAX_MS;
	}
	skald_sql_close(sql);
	return atomic_load(&w->wake.stop) && rc == SKALD_RETRY ? SKALD_OK : rc;
}

/* --- threads --------------------------------------------------------------------------------------------- */

static void *
work(void *arg)
{
	struct worker *w = arg;

	switch (w->kind) {
	case KIND_RELAY:
		w->rc = skald_relay_run(w->crew->relay, w->crew->drain_ms, &w->err);
		break;
	case KIND_CONSUMER:
		w->rc = skald_consumer_run(w->crew->consumer, w->crew->drain_ms, &w->err);
		break;
	case KIND_LOOP:
		w->rc = run_loop(w, &w->err);
		break;
	}
	atomic_store(&w->is_over, true);
	skald_wake_up(&w->crew->svc->wake);
	return NULL;
}

static struct worker *
hire(struct crew *crew, enum kind kind)
{
	struct worker *w = &crew->workers[crew->count++];

	w->crew = crew;
	w->kind = kind;
	w->err = (struct skald_err)SKALD_ERR_INIT;
	return w;
}

/* Signals are main's: the others have them blocked. */
static enum skald_rc
start_all(struct crew *crew, struct skald_err *err)
{
	sigset_t all, before;
	int failed = 0;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, &before);
	for (unsigned i = 0; i < crew->count && !failed; i++) {
		struct worker *w = &crew->workers[i];

		failed = pthread_create(&w->thread, NULL, work, w);
		w->is_started = !failed;
	}
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (failed)
		return skald_fail(err, SKALD_FATAL, "skald", "",
			"could not start a thread: %s", strerror(failed));
	return SKALD_OK;
}

static struct skald_wake *
wake_of(struct worker *w)
{
	switch (w->kind) {
	case KIND_RELAY:
		return skald_relay_wake(w->crew->relay);
	case KIND_CONSUMER:
		return skald_consumer_wake(w->crew->consumer);
	case KIND_LOOP:
		return &w->wake;
	}
	return NULL;
}

/* Stop those of a kind (or all but), wait until the deadline; false: one did not come. */
static bool
join(struct crew *crew, bool relays, int64_t until_ms)
{
	struct timespec at;
	int64_t left_ms;
	bool all = true;

	for (unsigned i = 0; i < crew->count; i++)
		if ((crew->workers[i].kind == KIND_RELAY) == relays &&
			crew->workers[i].is_started)
			skald_wake_stop(wake_of(&crew->workers[i]));
	for (unsigned i = 0; i < crew->count; i++) {
		struct worker *w = &crew->workers[i];

		if ((w->kind == KIND_RELAY) != relays || !w->is_started || w->is_joined)
			continue;
		left_ms = until_ms - skald_mono_ms();
		(void)clock_gettime(CLOCK_REALTIME, &at);
		at.tv_sec += left_ms > 0 ? left_ms / 1000 : 0;
		at.tv_nsec += left_ms > 0 ? left_ms % 1000 * 1000000 : 0;
		if (at.tv_nsec >= 1000000000) {
			at.tv_sec++;
			at.tv_nsec -= 1000000000;
		}
		w->is_joined = pthread_timedjoin_np(w->thread, NULL, &at) == 0;
		all = all && w->is_joined;
	}
	return all;
}

/* --- putting it together ----------------------------------------------------------------------------------- */

static bool
wants(struct skald_slice type, void *ctx)
{
	return skald__service_route(ctx, type) != NULL;
}

static enum skald_rc
dispatch(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	const struct skald__route *route =
		skald__service_route(ctx, skald_delivery_type(d));

	return route->handler(d, tx, route->ctx, err);
}

static const struct skald__route_command *
find_command(struct skald_slice type, void *ctx)
{
	const struct skald__route *route = skald__service_route(ctx, type);

	return route && route->command.handler ? &route->command : NULL;
}

static enum skald_rc
make_relay(struct crew *crew, struct skald_err *err)
{
	struct skald_relay_conf conf = SKALD_RELAY_INIT;
	enum skald_rc rc;

	conf.url = crew->url;
	conf.kafka = crew->kafka;
	conf.topics = &crew->topics;
	rc = skald_relay_configure(&conf, crew->svc->config, "main", err);
	if (!rc)
		rc = skald_relay_create(&crew->relay, &conf, err);
	if (!rc)
		(void)hire(crew, KIND_RELAY);
	return rc;
}

static enum skald_rc
make_consumer(struct crew *crew, struct skald_err *err)
{
	struct skald_service *svc = crew->svc;
	struct skald_consumer_conf conf = SKALD_CONSUMER_INIT;
	const char *group = skald_config_text(svc->config, "service", "group");
	enum skald_rc rc;

	if (svc->route_count == 0)
		return SKALD_OK;
	conf.group = group && *group ? group : svc->name;
	conf.name = svc->name;
	conf.url = crew->url;
	conf.kafka = crew->kafka;
	conf.topics_conf = &crew->topics;
	conf.topics = svc->topics;
	conf.topic_count = svc->topic_count;
	conf.batch_max = (unsigned)skald_config_int(svc->config, "service", "batch");
	conf.lanes = (unsigned)skald_config_int(svc->config, "service", "lanes");
	conf.attempts = (unsigned)skald_config_int(svc->config, "service", "attempts");
	conf.session_timeout_ms =
		skald_config_ms(svc->config, "service", "session_timeout");
	conf.sql_context = skald_config_bool(svc->config, "service", "sql_context");
	conf.handler = dispatch;
	conf.ctx = svc;
	conf.relay_wake = skald_relay_wake(crew->relay);
	rc = skald_consumer_create(&crew->consumer, &conf, err);
	if (rc)
		return rc;
	skald__consumer_filter(crew->consumer, wants, svc);
	if (svc->has_commands)
		rc = skald__consumer_commands(
			crew->consumer, svc->name, find_command, svc, err);
	if (rc)
		return rc;
	(void)hire(crew, KIND_CONSUMER);
	return SKALD_OK;
}

static enum skald_rc
make_all(struct crew *crew, struct skald_err *err)
{
	const struct skald_config *config = crew->svc->config;
	const char *url = skald_config_text(config, "database", "url");
	enum skald_rc rc;

	crew->url = url ? url : ""; /* libpq's own environment */
	crew->drain_ms = skald_config_ms(config, "daemon", "shutdown_timeout");
	crew->topics = (struct skald_topic_conf){ .partitions = (int32_t)skald_config_int(
							  config, "topics", "partitions"),
		.replication = (int32_t)skald_config_int(config, "topics", "replication"),
		.create = skald_config_bool(config, "topics", "create") };
	rc = skald_kafka_props_create(&crew->kafka, config, err);
	if (!rc)
		rc = make_relay(crew, err);
	if (!rc)
		rc = make_consumer(crew, err);
	for (unsigned i = 0; i < crew->svc->loop_count && !rc; i++) {
		struct worker *w = hire(crew, KIND_LOOP);

		w->loop = crew->svc->loops[i];
		rc = skald_wake_open(&w->wake, err);
		w->has_wake = !rc;
	}
	return rc;
}

static void
dismiss(struct crew *crew)
{
	for (unsigned i = 0; i < crew->count; i++)
		if (crew->workers[i].has_wake)
			skald_wake_close(&crew->workers[i].wake);
	skald_consumer_destroy(crew->consumer);
	skald_relay_destroy(crew->relay);
	skald_kafka_props_destroy(crew->kafka);
	free(crew);
}

/* The first that ended by itself; NULL: none. */
static struct worker *
first_over(struct crew *crew)
{
	for (unsigned i = 0; i < crew->count; i++)
		if (atomic_load(&crew->workers[i].is_over))
			return &crew->workers[i];
	return NULL;
}

enum skald_rc
skald__service_work(struct skald_service *svc, bool *is_stuck, struct skald_err *err)
{
	struct crew *crew = calloc(1, sizeof(*crew));
	struct worker *over = NULL;
	enum skald_rc rc;
	int64_t until_ms;

	if (!crew)
		return skald_fail(err, SKALD_FATAL, "skald", "", "out of memory");
	crew->svc = svc;
	catch_signals(&svc->wake);
	rc = make_all(crew, err);
	if (!rc)
		rc = prepare_database(crew, err);
	if (rc || atomic_load(&svc->wake.stop))
		goto out;
	rc = start_all(crew, err);
	if (!rc)
		skald_log(SKALD_LOG_INFO, "started service=%s topics=%u loops=%u",
			svc->name, svc->topic_count, svc->loop_count);
	while (!rc && !atomic_load(&svc->wake.stop) && !(over = first_over(crew)))
		(void)skald_wake_wait(&svc->wake, NULL, 0, -1);
	skald_log(SKALD_LOG_INFO, "stopping service=%s", svc->name);
	/* The relay last: what the others still commit can still be published. */
	until_ms = skald_mono_ms() + crew->drain_ms;
	*is_stuck = !join(crew, false, until_ms);
	*is_stuck = !join(crew, true, until_ms) || *is_stuck;
	for (unsigned i = 0; i < crew->count && !rc; i++)
		if (crew->workers[i].is_joined && crew->workers[i].rc) {
			rc = crew->workers[i].rc;
			*err = crew->workers[i].err;
		}
	if (!rc && over)
		rc = skald_fail(err, SKALD_FATAL, "skald", "", "a loop ended by itself");
	if (*is_stuck) {
		skald_log(SKALD_LOG_ERROR,
			"could not drain within %lld ms: what is in flight is rolled "
			"back",
			(long long)crew->drain_ms);
		return rc;
	}
	skald_log(SKALD_LOG_INFO, "stopped service=%s", svc->name);
out:
	signal_wake = NULL;
	dismiss(crew);
	return rc;
}
