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
#include "base/json.h"
#include "base/metrics.h"
#include "base/slice.h"
#include "base/uuid.h"

struct pg_conn;
struct skald_buf;
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

/* --- commands of sagas ---------------------------------------------------------------------- */

enum skald_op { SKALD_OP_ACTION, SKALD_OP_COMPENSATION, SKALD_OP_QUERY };
/* "action", "compensation", "query" */
const char *skald_op_name(enum skald_op op);

/* One command as a handler sees it; borrowed for the call. */
struct skald_command;

struct skald_slice skald_command_saga_id(const struct skald_command *cmd); /* 36 bytes */
struct skald_slice skald_command_saga_name(const struct skald_command *cmd);
struct skald_slice skald_command_step(const struct skald_command *cmd);
enum skald_op skald_command_op(const struct skald_command *cmd);
unsigned skald_command_attempt(const struct skald_command *cmd); /* the saga's, from 1 */
struct skald_slice skald_command_type(const struct skald_command *cmd); /* ce_type */
struct skald_slice skald_command_id(const struct skald_command *cmd); /* ce_id */
/* The same for every attempt: what a callee outside the database is given. */
struct skald_slice skald_command_key(const struct skald_command *cmd);
/* Checked; JSON null when the command carries none. */
struct skald_json skald_command_data(const struct skald_command *cmd);
struct skald_headers skald_command_headers(const struct skald_command *cmd);
/* For topic, offset, skald_delivery_defer. */
struct skald_delivery *skald_command_delivery(const struct skald_command *cmd);
/*
 * What this participant's action of the same step answered, as JSON text into out;
 * *found = false: nothing is kept. For compensations. Blocks one round trip.
 */
SKALD_MUSTUSE enum skald_rc skald_command_action_reply(const struct skald_command *cmd,
	struct pg_conn *tx, struct skald_buf *out, bool *found, struct skald_err *err);

/* What a handler answers: exactly one of these before it returns OK, the last one counts. */
struct skald_reply;

/* Done. fmt: a JSON object, or NULL for nothing; it becomes steps.<name> of the saga. FATAL if
   it is no JSON object: a handler's mistake. */
SKALD_MUSTUSE enum skald_rc skald_reply_success(
	struct skald_reply *reply, const char *fmt, ...) SKALD_PRINTF(2, 3);
/* A business no: the work of this command is rolled back. code: 1 to 255 bytes. */
SKALD_MUSTUSE enum skald_rc skald_reply_failure(struct skald_reply *reply,
	const char *code, const char *fmt, ...) SKALD_PRINTF(3, 4);
/* Not done, ask again; rolled back too. */
SKALD_MUSTUSE enum skald_rc skald_reply_retryable(struct skald_reply *reply,
	const char *code, const char *fmt, ...) SKALD_PRINTF(3, 4);
/* It may have happened outside the database; what the handler wrote stays. */
SKALD_MUSTUSE enum skald_rc skald_reply_unknown(struct skald_reply *reply,
	const char *code, const char *fmt, ...) SKALD_PRINTF(3, 4);
/* Answered later by skald_reply_by_key with skald_command_key. */
SKALD_MUSTUSE enum skald_rc skald_reply_later(struct skald_reply *reply);

/*
 * Handles one command in the open transaction tx; the barrier has answered `run`, or `query`
 * (then op is SKALD_OP_QUERY: find out whether it happened). Returns OK with a reply set;
 * RETRY: its own trouble, tried again, after the last attempt answered `retryable`; REJECT:
 * answered `failure` with err's code; FATAL: the process stops.
 */
typedef enum skald_rc (*skald_command_fn)(struct skald_command *cmd, struct pg_conn *tx,
	struct skald_reply *reply, void *ctx, struct skald_err *err);

/* The barrier by itself, on the caller's connection and in its open transaction (checked). */
enum skald_verdict {
	SKALD_VERDICT_RUN, /* do the work, then skald_reply */
	SKALD_VERDICT_QUERY, /* find out, then skald_reply */
	SKALD_VERDICT_PENDING, /* taken before, not answered yet: just commit */
	SKALD_VERDICT_DUPLICATE, /* these three: the answer is in the outbox, just commit */
	SKALD_VERDICT_EMPTY,
	SKALD_VERDICT_REFUSED,
};
enum skald_outcome {
	SKALD_OUTCOME_SUCCESS,
	SKALD_OUTCOME_FAILURE,
	SKALD_OUTCOME_RETRYABLE,
	SKALD_OUTCOME_UNKNOWN,
};
/* REJECT: a header is missing or contradicts another (SK001). */
SKALD_MUSTUSE enum skald_rc skald_participate(struct pg_conn *conn,
	struct skald_headers headers, const char *participant,
	enum skald_verdict *verdict, struct skald_err *err);
/* data: JSON text, or NULL; *id (may be NULL) is the reply's. REJECT SK006: not taken in this
   transaction, or answered. */
SKALD_MUSTUSE enum skald_rc skald_reply(struct pg_conn *conn,
	struct skald_headers headers, const char *participant, enum skald_outcome outcome,
	const char *data, struct skald_uuid *id, struct skald_err *err);
/* Any transaction, or none. *answered = false: its compensation came in between. */
SKALD_MUSTUSE enum skald_rc skald_reply_by_key(struct pg_conn *conn, const char *key,
	const char *participant, enum skald_outcome outcome, const char *data,
	bool *answered, struct skald_err *err);

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
/* Serve commands from this topic, as the participant of the service's name. */
SKALD_MUSTUSE enum skald_rc skald_service_commands(
	struct skald_service *svc, const char *topic, struct skald_err *err);
/* A type has one handler, of events or of commands; "*" is for events only. */
SKALD_MUSTUSE enum skald_rc skald_service_on_command(struct skald_service *svc,
	const char *type, skald_command_fn handler, void *ctx, struct skald_err *err);
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
