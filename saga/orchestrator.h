/*
 * orchestrator.h - drives the sagas of one database: replies, timers and starts in,
 * commands out. Any number of them may run; each serves its share.
 */
#ifndef SKALD_SAGA_ORCHESTRATOR_H
#define SKALD_SAGA_ORCHESTRATOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/metrics.h"

struct skald_kafka_props;
struct skald_topic_conf;
struct skald_wake;
struct skald_orchestrator;

struct skald_orchestrator_conf {
	const char *url; /* of the database with the sagas */
	const char *installation; /* NULL: the database's name */
	const char *reply_topic; /* NULL: skald.replies.<installation> */
	const char *definitions; /* a directory deployed at start; NULL: none */
	const struct skald_kafka_props *kafka; /* borrowed for its life */
	const struct skald_topic_conf *topics;
	struct skald_metrics *metrics; /* may be NULL */
	void (*emitted)(void *ctx); /* after commits that wrote commands; may be NULL */
	void *ctx;
};

SKALD_MUSTUSE enum skald_rc skald_orchestrator_create(struct skald_orchestrator **out,
	const struct skald_orchestrator_conf *conf, struct skald_err *err);
/* Until its wake is stopped; then what is in hand is finished and the leases are given back.
   REJECT: the configuration is not this database's, or a definition is wrong. */
SKALD_MUSTUSE enum skald_rc skald_orchestrator_run(
	struct skald_orchestrator *o, int64_t drain_ms, struct skald_err *err);
void skald_orchestrator_destroy(struct skald_orchestrator *o);
struct skald_wake *skald_orchestrator_wake(struct skald_orchestrator *o);

struct skald_orchestrator_health {
	bool is_ready; /* both sides are there */
	int64_t progress_at_ms;
	unsigned partitions; /* served by this one */
	char trouble[160]; /* "" or what is wrong now */
};
void skald_orchestrator_health(
	struct skald_orchestrator *o, struct skald_orchestrator_health *out);

#endif
