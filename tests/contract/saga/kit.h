/*
 * kit.h - what the tests of the orchestrator share: a dev broker, a private database
 * with its relay, orchestrators on threads, and a participant at the wire that does
 * what the command's data says.
 *
 * "how" of a command is a list of words, one for each attempt, the last one for all
 * that follow: ok, fail, retry, unknown, silent, twice.
 */
#ifndef SKALD_TESTS_CONTRACT_SAGA_KIT_H
#define SKALD_TESTS_CONTRACT_SAGA_KIT_H

#include <pthread.h>

#include "base/metrics.h"
#include "broker/broker.h"
#include "outbox/outbox.h"
#include "saga/saga.h"
#include "tests/support/pg.h"

#define KIT_PARTITIONS 4

extern struct skald_sql *kit_sql; /* on the database `orders` */

/* Broker, database, definitions of kit.c deployed, participant. */
void kit_start(void);
void kit_stop(void);

struct kit_run {
	struct skald_orchestrator *orchestrator;
	struct skald_metrics *metrics;
	pthread_t thread;
	enum skald_rc rc;
	struct skald_err err;
};
/* installation NULL: the database's name. */
void kit_run(struct kit_run *run, const char *installation);
enum skald_rc kit_end(struct kit_run *run);
/* The default one of most tests, and the relay. */
void kit_orchestrate(bool on);
void kit_relay(bool on);
void kit_answer(bool on); /* the participant */

/* Start a saga; input as JSON. */
void kit_saga(const char *name, const char *key, const char *input);
/* Until the first cell is that; false (and printed) when time is up. */
bool kit_until(const char *query, int64_t wanted, int seconds);
/* Until it is finished or stuck: "status outcome undo reason". */
const char *kit_ending(const char *key);
/* Its history: "kind:step:op:attempt:outcome" by spaces, what is empty left out. */
const char *kit_history(const char *key);
/* A record as it is. */
void kit_send(const char *topic, const char *key, struct skald_slice value,
	const struct skald_header *headers, unsigned count);

#endif
