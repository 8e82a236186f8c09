/*
 * orchestrate.c - the thread of the role orchestrator, and what others see of it.
 */
#include "daemon/own.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "saga/saga.h"

struct skald__orchestra {
	struct skald__daemon *daemon;
	struct skald_orchestrator *orchestrator;
	pthread_t thread;
	bool is_started;
	atomic_bool is_done;
	atomic_bool is_refused; /* refusal is written before */
	struct skald_err refusal;
};

/* Commands wait in the outbox: the relay of the same database need not sleep on. */
static void
on_emitted(void *ctx)
{
	struct skald__daemon *daemon = ctx;

	skald__sources_wake(daemon, "main");
}

static void *
orchestra_main(void *arg)
{
	struct skald__orchestra *orchestra = arg;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;

	rc = skald_orchestrator_run(
		orchestra->orchestrator, orchestra->daemon->drain_ms, &err);
	if (rc) {
		orchestra->refusal = err;
		atomic_store(&orchestra->is_refused, true);
	}
	atomic_store(&orchestra->is_done, true);
	skald_wake_up(&orchestra->daemon->wake);
	return NULL;
}

enum skald_rc
skald__orchestra_create(struct skald__daemon *daemon, struct skald_err *err)
{
	const struct skald_config *config = daemon->config;
	const char *url = skald_config_text(config, "database", "url");
	struct skald_orchestrator_conf conf = { .url = url ? url : "",
		.installation = skald_config_text(config, "daemon", "installation"),
		.reply_topic = skald_config_text(config, "saga", "reply_topic"),
		.definitions = skald_config_text(config, "saga", "definitions"),
		.retention_ms = skald_config_ms(config, "retention", "sagas"),
		.batch_max = (unsigned)skald_config_int(config, "saga", "batch"),
		.kafka = daemon->kafka,
		.topics = &daemon->topics,
		.metrics = daemon->metrics,
		.emitted = on_emitted,
		.ctx = daemon };
	struct skald__orchestra *orchestra = calloc(1, sizeof(*orchestra));
	enum skald_rc rc;

	if (!orchestra)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	orchestra->daemon = daemon;
	rc = skald_orchestrator_create(&orchestra->orchestrator, &conf, err);
	if (rc) {
		free(orchestra);
		return rc;
	}
	daemon->orchestra = orchestra;
	return SKALD_OK;
}

enum skald_rc
skald__orchestra_start(struct skald__daemon *daemon, struct skald_err *err)
{
	struct skald__orchestra *orchestra = daemon->orchestra;

	if (!orchestra)
		return SKALD_OK;
	if (pthread_create(&orchestra->thread, NULL, orchestra_main, orchestra))
		return skald_fail(err, SKALD_FATAL, "skald", "",
			"could not start the thread of the orchestrator");
	orchestra->is_started = true;
	return SKALD_OK;
}

void
skald__orchestra_stop(struct skald__daemon *daemon)
{
	if (daemon->orchestra)
		skald_wake_stop(skald_orchestrator_wake(daemon->orchestra->orchestrator));
}

bool
skald__orchestra_is_done(struct skald__daemon *daemon)
{
	struct skald__orchestra *orchestra = daemon->orchestra;

	return !orchestra || !orchestra->is_started || atomic_load(&orchestra->is_done);
}

bool
skald__orchestra_refused(struct skald__daemon *daemon, struct skald_err *err)
{
	struct skald__orchestra *orchestra = daemon->orchestra;

	if (!orchestra || !atomic_load(&orchestra->is_refused))
		return false;
	*err = orchestra->refusal;
	return true;
}

void
skald__orchestra_destroy(struct skald__daemon *daemon)
{
	struct skald__orchestra *orchestra = daemon->orchestra;

	if (!orchestra)
		return;
	if (orchestra->is_started)
		pthread_join(orchestra->thread, NULL);
	skald_orchestrator_destroy(orchestra->orchestrator);
	free(orchestra);
	daemon->orchestra = NULL;
}

void
skald__orchestra_state(struct skald__daemon *daemon, struct skald__loop_state *out)
{
	struct skald_orchestrator_health health;

	skald_orchestrator_health(daemon->orchestra->orchestrator, &health);
	*out = (struct skald__loop_state){ .is_leader = health.partitions > 0,
		.is_ready = health.is_ready,
		.has_begun = health.progress_at_ms != 0,
		.is_waiting = !health.is_ready && health.trouble[0],
		.progress_at_ms = health.progress_at_ms };
	(void)snprintf(out->trouble, sizeof(out->trouble), "%s", health.trouble);
}
