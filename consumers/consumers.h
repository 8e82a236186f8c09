/*
 * consumers.h - topic -> handler, effectively once: consumers, dead letters,
 * replay, and the service that puts relay and consumer into one program.
 */
#ifndef SKALD_CONSUMERS_CONSUMERS_H
#define SKALD_CONSUMERS_CONSUMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/headers.h"
#include "base/metrics.h"
#include "base/slice.h"

struct pg_conn;
struct skald_config;
struct skald_kafka_props;
struct skald_topic_conf;
struct skald_wake;

/* --- a delivery ---------------------------------------------------------------------------- */

/* One record as a handler sees it; borrowed for the call. */
struct skald_delivery;

const char *skald_delivery_topic(const struct skald_delivery *d);
int32_t skald_delivery_partition(const struct skald_delivery *d);
int64_t skald_delivery_offset(const struct skald_delivery *d);
struct skald_slice skald_delivery_key(const struct skald_delivery *d);
struct skald_slice skald_delivery_value(
	const struct skald_delivery *d); /* NULL slice: tombstone */
struct skald_slice skald_delivery_type(const struct skald_delivery *d); /* ce_type */
struct skald_slice skald_delivery_id(const struct skald_delivery *d); /* ce_id */
struct skald_headers skald_delivery_headers(const struct skald_delivery *d);
unsigned skald_delivery_attempt(const struct skald_delivery *d); /* from 1 */
bool skald_delivery_is_replay(const struct skald_delivery *d);
/* Before returning RETRY: try again not before ms from now. */
void skald_delivery_defer(struct skald_delivery *d, int64_t ms);
/* Batch handlers: emit and log in the name of this delivery from here on. */
void skald_delivery_use(struct skald_delivery *d);

/*
 * Handles one message in the open transaction tx (never commits or rolls back).
 * OK; RETRY (its own trouble, tried again; trouble of PostgreSQL or of a callee
 * (err.origin "callee") is told apart by err and is nobody's attempt); REJECT
 * (dead letter); FATAL (the process stops).
 */
typedef enum skald_rc (*skald_handler_fn)(
	struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err);
/* Many at once, each once in effect; a failing batch is bisected down to the culprit. */
typedef enum skald_rc (*skald_batch_fn)(struct skald_delivery *const *deliveries,
	unsigned count, struct pg_conn *tx, void *ctx, struct skald_err *err);

/* --- consumer ------------------------------------------------------------------------------ */

struct skald_consumer;

struct skald_consumer_conf {
	unsigned struct_bytes; /* set by SKALD_CONSUMER_INIT */
	const char *group;
	const char *name; /* of the consumer, in logs and derived ids; NULL: the group */
	const char *url; /* of the database that holds effects and watermarks */
	const struct skald_kafka_props *kafka; /* borrowed for its life */
	const struct skald_topic_conf *topics_conf;
	const char *const *topics;
	unsigned topic_count;
	unsigned batch_max; /* deliveries per transaction: 500 */
	unsigned lanes; /* per partition, 1 to 64; the group's first use fixes it: 4 */
	unsigned attempts; /* of a message's own failure, in place: 5 */
	int64_t backoff_ms; /* full jitter from here: 50 */
	int64_t backoff_max_ms; /* 1000 */
	int64_t session_timeout_ms; /* of the Kafka group: 10 s */
	bool id_inbox; /* records without a position: dedupe by ce_source, ce_id too
	                  (recovered ones always are) */
	bool sql_context; /* set skald.correlation_id ... per message, for handlers that
	                            call skald.outbox_add in SQL; skald_outbox_add needs it not */
	skald_handler_fn handler; /* one of the two */
	skald_batch_fn batch;
	void *ctx;
	struct skald_metrics *metrics; /* may be NULL */
	struct skald_wake *relay_wake; /* woken after commits that emitted; may be NULL */
};
/* clang-format off */
#define SKALD_CONSUMER_INIT { .struct_bytes = sizeof(struct skald_consumer_conf), .batch_max = 500, \
	.lanes = 4, .attempts = 5, .backoff_ms = 50, .backoff_max_ms = 1000, \
	.session_timeout_ms = 10000, .sql_context = true }
/* clang-format on */

SKALD_MUSTUSE enum skald_rc skald_consumer_create(struct skald_consumer **out,
	const struct skald_consumer_conf *conf, struct skald_err *err);
/* Run until its wake is stopped: finishes and commits the batch in hand, commits offsets, leaves
   the group. FATAL: a handler said so, or configuration. */
SKALD_MUSTUSE enum skald_rc skald_consumer_run(
	struct skald_consumer *consumer, int64_t drain_ms, struct skald_err *err);
void skald_consumer_destroy(struct skald_consumer *consumer);
struct skald_wake *skald_consumer_wake(struct skald_consumer *consumer);

struct skald_consumer_health {
	bool is_ready;
	int64_t progress_at_ms;
	unsigned stopped_count; /* partitions that stopped loudly */
	char trouble[160];
};
void skald_consumer_health(
	struct skald_consumer *consumer, struct skald_consumer_health *out);

/* --- service ------------------------------------------------------------------------------- */

/*
 * A whole program: configuration, relay thread of its own database, one
 * consumer, signals, drain. See examples/. Flags: --config, --set, --help and
 * those the program asks for by skald_service_flag.
 */
struct skald_service;

/* argv is borrowed for the service's life. On failure *svc may be set: hand it to _fail. */
SKALD_MUSTUSE enum skald_rc skald_service_create(struct skald_service **svc,
	const char *name, int argc, char **argv, struct skald_err *err);
/* Value of the program's own flag ("--rate"), or fallback. Flags asked for by nobody are a usage
   error of skald_service_run. */
const char *skald_service_flag(
	struct skald_service *svc, const char *flag, const char *fallback);
/* Subscribe to events of a type; topic from [service] topics or skald_service_events. */
SKALD_MUSTUSE enum skald_rc skald_service_events(
	struct skald_service *svc, const char *topic, struct skald_err *err);
/* type "*" takes what nothing else takes; else an unknown type is passed over and counted. */
SKALD_MUSTUSE enum skald_rc skald_service_on_event(struct skald_service *svc,
	const char *type, skald_handler_fn handler, void *ctx, struct skald_err *err);
/*
 * Call turn on a thread of its own with its own session until the service stops: for programs
 * that also write. It ends the transactions it begins. *idle_ms = how long to sleep before the
 * next turn. RETRY: rolled back, said on the log, called again (on a new session if the old one
 * is lost). REJECT, FATAL: the whole service stops with status 1.
 */
typedef enum skald_rc (*skald_turn_fn)(
	struct pg_conn *conn, int64_t *idle_ms, void *ctx, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald_service_loop(
	struct skald_service *svc, skald_turn_fn turn, void *ctx, struct skald_err *err);
/* Create tables and the like, once connected, before anything else runs. */
SKALD_MUSTUSE enum skald_rc skald_service_setup(
	struct skald_service *svc, const char *sql_script, struct skald_err *err);
/* Relay, consumer, loops; drain on SIGTERM and SIGINT. Returns main's exit status; frees svc. */
int skald_service_run(struct skald_service *svc);
/* Log err, free svc (NULL is fine), return the exit status. */
int skald_service_fail(struct skald_service *svc, struct skald_err *err);

#endif
