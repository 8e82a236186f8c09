/*
 * watch.c - one thread that asks Kafka whether it is there.
 *
 * A relay with nothing to send does not notice that Kafka has gone, and
 * would be called ready; the first message would learn better. All sources share
 * one Kafka, so one thread asks for all of them: every few seconds while it
 * answers, every second while it does not.
 */
#include "daemon/own.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define ASK_MS       1500 /* one question; also how long leaving may take */
#define ASK_AGAIN_MS 5000
#define MISSING_MS   1000

struct skald__watch {
	struct skald__daemon *daemon;
	struct skald_cluster *cluster;
	struct skald_wake wake;
	pthread_t thread;
	bool is_started;
	atomic_bool is_done;

	pthread_mutex_t lock; /* of what follows: read by HTTP and main */
	bool is_there;
	int64_t progress_at_ms;
	char trouble[240];
};

/* Said first: whoever sees the state finds it in the log. */
static void
note(struct skald__watch *kafka, const struct skald_err *err)
{
	bool was_there = kafka->is_there; /* nobody else writes them */
	bool was_missed = kafka->trouble[0] != '\0';

	if (err && (was_there || !was_missed))
		skald_log_err(SKALD_LOG_WARN, err, "Kafka does not answer");
	else if (!err && was_missed)
		skald_log(SKALD_LOG_INFO, "Kafka answers");
	pthread_mutex_lock(&kafka->lock);
	kafka->is_there = err == NULL;
	kafka->progress_at_ms = skald_mono_ms();
	(void)snprintf(
		kafka->trouble, sizeof(kafka->trouble), "%s", err ? err->text : "");
	pthread_mutex_unlock(&kafka->lock);
}

static void *
kafka_main(void *arg)
{
	struct skald__watch *kafka = arg;
	struct skald_err err = SKALD_ERR_INIT;
	unsigned broker_count;

	while (!atomic_load(&kafka->wake.stop)) {
		enum skald_rc rc = skald_cluster_brokers(
			kafka->cluster, ASK_MS, &broker_count, &err);

		note(kafka, rc ? &err : NULL);
		skald_wake_wait(&kafka->wake, NULL, 0, rc ? MISSING_MS : ASK_AGAIN_MS);
	}
	atomic_store(&kafka->is_done, true);
	skald_wake_up(&kafka->daemon->wake);
	return NULL;
}

enum skald_rc
skald__watch_start(struct skald__daemon *daemon, struct skald_err *err)
{
	struct skald__watch *kafka = calloc(1, sizeof(*kafka));
	enum skald_rc rc;

	if (!kafka)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	kafka->daemon = daemon;
	kafka->wake.read_fd = kafka->wake.write_fd = -1;
	pthread_mutex_init(&kafka->lock, NULL);
	daemon->kafka_watch = kafka; /* destroyed with the daemon, half-built or not */
	rc = skald_wake_open(&kafka->wake, err);
	if (!rc)
		rc = skald_cluster_open(&kafka->cluster, daemon->kafka, err);
	if (rc)
		return rc;
	if (pthread_create(&kafka->thread, NULL, kafka_main, kafka))
		return skald_fail(err, SKALD_FATAL, "skald", "",
			"could not start the thread that watches Kafka");
	kafka->is_started = true;
	return SKALD_OK;
}

void
skald__watch_stop(struct skald__watch *kafka)
{
	if (kafka && kafka->wake.write_fd >= 0)
		skald_wake_stop(&kafka->wake);
}

bool
skald__watch_is_done(const struct skald__watch *kafka)
{
	return !kafka || !kafka->is_started || atomic_load(&kafka->is_done);
}

void
skald__watch_destroy(struct skald__watch *kafka)
{
	if (!kafka)
		return;
	if (kafka->is_started)
		pthread_join(kafka->thread, NULL);
	skald_cluster_close(kafka->cluster);
	skald_wake_close(&kafka->wake);
	pthread_mutex_destroy(&kafka->lock);
	free(kafka);
}

void
skald__watch_state(struct skald__watch *kafka, struct skald__loop_state *out)
{
	*out = (struct skald__loop_state){ .progress_at_ms = 0 };
	pthread_mutex_lock(&kafka->lock);
	out->is_ready = kafka->is_there;
	out->progress_at_ms = kafka->progress_at_ms;
	out->has_begun = kafka->progress_at_ms != 0;
	(void)snprintf(out->trouble, sizeof(out->trouble), "%s", kafka->trouble);
	pthread_mutex_unlock(&kafka->lock);
}
