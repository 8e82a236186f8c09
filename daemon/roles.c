/*
 * roles.c - one thread per source: first the gate, then the relay.
 *
 *            database and schema are there           the relay gave up
 *   GATE ------------------------------------> RELAY -----------------> PAUSE
 *    ^ | not there: named once, tried again                               |
 *    | +--> refused at start (no such configuration): the daemon ends     |
 *    +--------------------------------------------------------------------+
 *
 * The relay itself waits out PostgreSQL and Kafka. The gate exists so that a
 * database without the schema is told how to get it, and a configuration that
 * can never work ends the daemon at its start rather than being tried for ever.
 */
#include "daemon/own.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rand.h"
#include "sql/sql.h"

#define CONNECT_TIMEOUT_MS 5000 /* below SKALD__STALL_MS: a turn of the gate ends */
#define GATE_BASE_MS       100 /* a database that restarts is met soon */
#define GATE_MAX_MS        2000
#define PAUSE_MS           5000 /* a relay that gave up is started again so much later */

struct skald__source {
	struct skald__daemon *daemon;
	char name[64];
	const char *url; /* borrowed from the configuration */
	pthread_t thread;
	bool is_started;
	bool has_passed; /* the gate, once; this thread's */
	struct skald_rand rand;
	struct skald_wake wake; /* ends the waits of gate and pause */
	atomic_bool is_done;

	pthread_mutex_t lock; /* of what follows: read by HTTP and main */
	struct skald_relay *relay; /* NULL for a moment after it gave up */
	bool wants_wal; /* as the configuration was last read */
	bool is_relaying;
	int64_t progress_at_ms;
	char trouble[240];
	bool is_refused;
	struct skald_err refusal;
};

/* --- what others see ---------------------------------------------------------------------- */

const char *
skald__source_name(const struct skald__source *source)
{
	return source->name;
}

void
skald__source_state(struct skald__source *source, struct skald__loop_state *out)
{
	*out = (struct skald__loop_state){ .progress_at_ms = 0 };
	pthread_mutex_lock(&source->lock);
	if (source->is_relaying) {
		struct skald_relay_health health = { .progress_at_ms = 0 };

		skald_relay_health(source->relay, &health);
		out->is_leader = health.is_leader;
		out->is_ready = health.is_ready;
		out->progress_at_ms = health.progress_at_ms;
		/* a relay that names an outage waits it out; its own stall is no outage */
		out->is_waiting = !health.is_ready && health.trouble[0] &&
				  strncmp(health.trouble, "no progress", 11) != 0;
		(void)snprintf(out->trouble, sizeof(out->trouble), "%s", health.trouble);
		(void)snprintf(
			out->attention, sizeof(out->attention), "%s", health.attention);
		if (out->progress_at_ms < source->progress_at_ms)
			out->progress_at_ms = source->progress_at_ms;
	} else {
		out->progress_at_ms = source->progress_at_ms;
		(void)snprintf(out->trouble, sizeof(out->trouble), "%s", source->trouble);
	}
	out->has_begun = out->progress_at_ms != 0;
	pthread_mutex_unlock(&source->lock);
}

/* Record a trouble and say it once; the same again is only a turn. */
static void
note_trouble(struct skald__source *source, const char *what, const struct skald_err *err)
{
	char text[sizeof(source->trouble)];
	bool is_news;

	(void)snprintf(text, sizeof(text), "%s: %s", what, err->text);
	pthread_mutex_lock(&source->lock);
	is_news = strcmp(text, source->trouble) != 0;
	(void)snprintf(source->trouble, sizeof(source->trouble), "%s", text);
	source->progress_at_ms = skald_mono_ms();
	pthread_mutex_unlock(&source->lock);
	if (is_news)
		skald_log_err(SKALD_LOG_WARN, err, "%s source=%s", what, source->name);
}

static void
note_turn(struct skald__source *source, bool is_relaying)
{
	bool is_over;

	pthread_mutex_lock(&source->lock);
	is_over = is_relaying && source->trouble[0];
	source->is_relaying = is_relaying;
	source->progress_at_ms = skald_mono_ms();
	if (is_relaying)
		source->trouble[0] = '\0';
	pthread_mutex_unlock(&source->lock);
	if (is_over)
		skald_log(
			SKALD_LOG_INFO, "the database is there source=%s", source->name);
}

static void
note_refusal(struct skald__source *source, const struct skald_err *err)
{
	pthread_mutex_lock(&source->lock);
	source->is_refused = true;
	source->refusal = *err;
	pthread_mutex_unlock(&source->lock);
}

static bool
is_stopped(struct skald__source *source)
{
	return atomic_load(&source->wake.stop);
}

/* --- the gate ------------------------------------------------------------------------------ */

/*
 * One look. FATAL means that no waiting helps: the URL is nonsense (class 08,
 * no server was asked). A refusal by the server (no such database, no such
 * role) can be repaired there, so it is waited for.
 */
static enum skald_rc
look_at_database(struct skald__source *source, const char **what, struct skald_err *err)
{
	struct skald_sql_conf conf = {
		.url = source->url,
		.kind = SKALD_SQL_DAEMON,
		.connect_timeout_ms = CONNECT_TIMEOUT_MS,
	};
	struct skald_sql *sql = NULL;
	char application[96];
	enum skald_rc rc;

	(void)snprintf(application, sizeof(application), "skaldd check %s", source->name);
	conf.application = application;
	*what = "could not reach the database";
	rc = skald_sql_open(&sql, &conf, err);
	if (rc == SKALD_FATAL && strncmp(err->code, "08", 2) != 0)
		rc = SKALD_RETRY;
	if (rc)
		return rc;
	*what = "the database is not ready for messages";
	rc = skald_migrate_check(sql, err);
	skald_sql_close(sql);
	return rc ? SKALD_RETRY : SKALD_OK;
}

/* Until the database and its schema are there. Returns false when told to stop or refused. */
static bool
pass_gate(struct skald__source *source)
{
	struct skald_err err = SKALD_ERR_INIT;
	unsigned attempt = 0;

	while (!is_stopped(source)) {
		const char *what = NULL;
		enum skald_rc rc = look_at_database(source, &what, &err);

		if (!rc)
			return true;
		if (rc != SKALD_RETRY && !source->has_passed) {
			note_refusal(source, &err);
			return false;
		}
		note_trouble(source, what, &err);
		skald_wake_wait(&source->wake, NULL, 0,
			(int)(GATE_BASE_MS + skald_backoff_ms(&source->rand, attempt++,
						     GATE_BASE_MS, GATE_MAX_MS)));
	}
	return false;
}

/* --- the relay ----------------------------------------------------------------------------- */

static enum skald_rc
create_relay(struct skald__source *source, struct skald_err *err)
{
	const struct skald__daemon *daemon = source->daemon;
	struct skald_relay_conf conf = SKALD_RELAY_INIT;
	struct skald_relay *relay = NULL;
	enum skald_rc rc;

	conf.url = source->url;
	conf.kafka = daemon->kafka;
	conf.topics = &daemon->topics;
	conf.metrics = daemon->metrics;
	rc = skald_relay_configure(&conf, daemon->config, source->name, err);
	if (!rc)
		rc = skald_relay_create(&relay, &conf, err);
	if (rc)
		return rc;
	pthread_mutex_lock(&source->lock);
	source->relay = relay;
	skald_relay_wish(relay, source->wants_wal); /* a reload may have been since */
	if (is_stopped(source)) /* stop came in between and saw no relay */
		skald_wake_stop(skald_relay_wake(relay));
	pthread_mutex_unlock(&source->lock);
	return SKALD_OK;
}

static void
drop_relay(struct skald__source *source)
{
	struct skald_relay *relay;

	pthread_mutex_lock(&source->lock);
	relay = source->relay;
	source->relay = NULL;
	source->is_relaying = false;
	pthread_mutex_unlock(&source->lock);
	skald_relay_destroy(relay);
}

/* Run the relay until it leaves; a relay that gives up is one source's trouble, not all of ours. */
static void
relay_until_it_leaves(struct skald__source *source)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = SKALD_OK;

	if (!source->relay)
		rc = create_relay(source, &err);
	if (!rc) {
		note_turn(source, true);
		source->has_passed = true;
		rc = skald_relay_run(source->relay, source->daemon->drain_ms, &err);
	}
	if (!rc || is_stopped(source)) {
		if (rc)
			skald_log_err(SKALD_LOG_WARN, &err,
				"the relay did not leave cleanly source=%s",
				source->name);
		return;
	}
	drop_relay(source);
	note_trouble(source, "the relay gave up and starts again", &err);
	skald_wake_wait(&source->wake, NULL, 0, PAUSE_MS);
}

static void *
source_main(void *arg)
{
	struct skald__source *source = arg;

	while (!is_stopped(source)) {
		note_turn(source, false);
		if (!pass_gate(source))
			break;
		relay_until_it_leaves(source);
	}
	atomic_store(&source->is_done, true);
	skald_wake_up(&source->daemon->wake);
	return NULL;
}

/* --- all sources ---------------------------------------------------------------------------- */

static void
destroy_source(struct skald__source *source)
{
	if (!source)
		return;
	if (source->is_started)
		pthread_join(source->thread, NULL);
	skald_relay_destroy(source->relay);
	skald_wake_close(&source->wake);
	pthread_mutex_destroy(&source->lock);
	free(source);
}

/* name "main": [database]. Takes effect in daemon->sources only when complete. */
static enum skald_rc
add_source(struct skald__daemon *daemon, const char *name, const char *url,
	struct skald_err *err)
{
	struct skald__source **grown = NULL;
	struct skald__source *source = NULL;
	enum skald_rc rc;

	grown = realloc(daemon->sources, (daemon->source_count + 1) * sizeof(*grown));
	if (grown)
		daemon->sources = grown;
	source = grown ? calloc(1, sizeof(*source)) : NULL;
	if (!source)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	source->daemon = daemon;
	source->url = url ? url : "";
	pthread_mutex_init(&source->lock, NULL);
	skald_rand_init(&source->rand);
	source->wake.read_fd = source->wake.write_fd = -1;
	(void)snprintf(source->name, sizeof(source->name), "%s", name);
	source->wants_wal = skald_relay_wants_wal(daemon->config, name);
	rc = skald_wake_open(&source->wake, err);
	if (rc)
		goto out;
	rc = create_relay(source, err);
	if (rc)
		goto out;
	daemon->sources[daemon->source_count++] = source;
	source = NULL;
out:
	destroy_source(source);
	return rc;
}

struct named_sources { /* of skald_config_each_section, which cannot fail */
	struct skald__daemon *daemon;
	enum skald_rc rc;
	struct skald_err *err;
};

static void
add_named_source(const char *name, const char *section, void *ctx)
{
	struct named_sources *named = ctx;
	const char *url;

	(void)section;
	if (named->rc)
		return;
	/* the configuration has seen to name and url */
	url = skald_config_source_text(named->daemon->config, name, "url");
	named->rc = add_source(named->daemon, name, url, named->err);
}

enum skald_rc
skald__sources_create(struct skald__daemon *daemon, struct skald_err *err)
{
	struct named_sources named = { daemon, SKALD_OK, err };

	named.rc = add_source(daemon, "main",
		skald_config_text(daemon->config, "database", "url"), err);
	if (!named.rc)
		skald_config_each_section(
			daemon->config, "source.", add_named_source, &named);
	return named.rc;
}

enum skald_rc
skald__sources_start(struct skald__daemon *daemon, struct skald_err *err)
{
	for (unsigned i = 0; i < daemon->source_count; i++) {
		struct skald__source *source = daemon->sources[i];

		if (pthread_create(&source->thread, NULL, source_main, source))
			return skald_fail(err, SKALD_FATAL, "skald", "",
				"could not start the thread of source %s", source->name);
		source->is_started = true;
	}
	return SKALD_OK;
}

void
skald__sources_stop(struct skald__daemon *daemon)
{
	for (unsigned i = 0; i < daemon->source_count; i++) {
		struct skald__source *source = daemon->sources[i];

		pthread_mutex_lock(&source->lock);
		skald_wake_stop(&source->wake);
		if (source->relay)
			skald_wake_stop(skald_relay_wake(source->relay));
		pthread_mutex_unlock(&source->lock);
	}
}

void
skald__sources_wake(struct skald__daemon *daemon, const char *name)
{
	for (unsigned i = 0; i < daemon->source_count; i++) {
		struct skald__source *source = daemon->sources[i];

		if (strcmp(source->name, name) != 0)
			continue;
		pthread_mutex_lock(&source->lock);
		if (source->relay)
			skald_wake_up(skald_relay_wake(source->relay));
		pthread_mutex_unlock(&source->lock);
	}
}

void
skald__sources_reload(struct skald__daemon *daemon, const struct skald_config *fresh)
{
	for (unsigned i = 0; i < daemon->source_count; i++) {
		struct skald__source *source = daemon->sources[i];

		pthread_mutex_lock(&source->lock);
		source->wants_wal = skald_relay_wants_wal(fresh, source->name);
		if (source->relay)
			skald_relay_wish(source->relay, source->wants_wal);
		pthread_mutex_unlock(&source->lock);
	}
}

bool
skald__sources_are_done(struct skald__daemon *daemon)
{
	for (unsigned i = 0; i < daemon->source_count; i++)
		if (daemon->sources[i]->is_started &&
			!atomic_load(&daemon->sources[i]->is_done))
			return false;
	return true;
}

bool
skald__sources_refused(struct skald__daemon *daemon, struct skald_err *err)
{
	bool is_refused = false;

	for (unsigned i = 0; i < daemon->source_count && !is_refused; i++) {
		struct skald__source *source = daemon->sources[i];

		pthread_mutex_lock(&source->lock);
		is_refused = source->is_refused;
		if (is_refused)
			skald_fail(err, SKALD_REJECT, "config", source->refusal.code,
				"source %s: %s", source->name, source->refusal.text);
		pthread_mutex_unlock(&source->lock);
	}
	return is_refused;
}

void
skald__sources_destroy(struct skald__daemon *daemon)
{
	for (unsigned i = 0; i < daemon->source_count; i++)
		destroy_source(daemon->sources[i]);
	free(daemon->sources);
	daemon->sources = NULL;
	daemon->source_count = 0;
}
