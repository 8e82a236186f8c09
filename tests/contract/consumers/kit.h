/*
 * kit.h - what the consumers' contract tests share: a dev broker in the process, a
 * private database, records written as a relay would, a consumer on a thread.
 */
#ifndef SKALD_TESTS_CONTRACT_CONSUMERS_KIT_H
#define SKALD_TESTS_CONTRACT_CONSUMERS_KIT_H

#include <pthread.h>

#include "base/metrics.h"
#include "broker/broker.h"
#include "consumers/consumers.h"
#include "tests/support/pg.h"

#define KIT_STREAM "00000000000000aa"

/* Dev broker (or the one of SKALD_TEST_KAFKA when kafka) and database "shop". */
void kit_start(bool kafka);
void kit_stop(void);
const struct skald_kafka_props *kit_props(void);
const char *kit_url(void);
/* A topic name nobody used before, with so many partitions. */
const char *kit_topic(int partitions);

/* A record; what is NULL has a default or is not there. */
struct kit_record {
	const char *topic;
	int32_t partition;
	const char *key; /* NULL: no key */
	const char *value; /* NULL: tombstone */
	size_t value_bytes; /* 0: its length as text */
	const char *id; /* NULL: "id-<n>", unique */
	const char *type; /* NULL: "shop.thing" */
	unsigned long long point; /* of its position; 0: no position */
	const struct skald_header *more;
	size_t more_count;
	bool is_bare; /* no headers but `more` */
};
void kit_send(const struct kit_record *record);
/* Until all are acknowledged. */
void kit_flush(void);
int64_t kit_end(const char *topic, int32_t partition);

struct kit_run {
	struct skald_consumer *consumer;
	struct skald_metrics *metrics;
	pthread_t thread;
	enum skald_rc rc;
	struct skald_err err;
};
/* Filled with group, url, kafka, one topic; the caller adds its handler. */
struct skald_consumer_conf kit_conf(const char *group, const char *const *topics);
void kit_run(struct kit_run *run, struct skald_consumer_conf *conf);
enum skald_rc kit_end_run(struct kit_run *run);
/* The number of a metric, of any labels; -1 if it is not there. */
long long kit_metric(struct kit_run *run, const char *name);

/* Until the query's first cell is that; false (and printed) when time is up. */
bool kit_until(struct skald_sql *sql, const char *query, int64_t wanted, int seconds);
/* The same of a metric. */
bool kit_until_metric(struct kit_run *run, const char *name, int64_t wanted, int seconds);

/* Handler: INSERT INTO effect (id, value), of the database's table of that name. */
enum skald_rc kit_effect(
	struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err);
/* Ids that have another number of effects than one, or none of those sent: a text, "" = good. */
const char *kit_wrong_effects(struct skald_sql *sql);

#endif
