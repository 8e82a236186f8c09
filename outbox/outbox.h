/*
 * outbox.h - table -> topic: the writer and the relay.
 */
#ifndef SKALD_OUTBOX_OUTBOX_H
#define SKALD_OUTBOX_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/headers.h"
#include "base/metrics.h"
#include "base/slice.h"
#include "base/uuid.h"

struct pg_conn;
struct skald_kafka_props;
struct skald_topic_conf;
struct skald_wake;

/* --- writer ------------------------------------------------------------------------------- */

struct skald_msg {
	unsigned struct_bytes; /* set by SKALD_MSG_INIT */
	const char *topic; /* 1..249 of [A-Za-z0-9._-] */
	struct skald_slice key; /* up to 32 KiB; NULL slice: none */
	const char *type; /* 1..255 bytes: ce_type */
	struct skald_slice
		data; /* up to 16 MiB, kept byte by byte; NULL slice: tombstone */
	const char *content_type; /* NULL: application/json, checked to be JSON */
	const char *subject; /* NULL: none */
	const char *source; /* NULL: setting skald.source, else "/" + database */
	const struct skald_uuid *id; /* NULL: derived inside a handler, else UUIDv7 */
	struct skald_headers headers; /* own ones, text; reserved names are refused */
	const char *correlation_id; /* NULL: inherited from the context, else ce_id */
	const char *causation_id;
	const char *traceparent;
	int64_t expires_at_us; /* 0: never */
};
/* clang-format off */
#define SKALD_MSG_INIT { .struct_bytes = sizeof(struct skald_msg) }
/* clang-format on */

/*
 * Add one message to the outbox inside the caller's open transaction; a relay
 * publishes it when the caller has committed. Call it *after* the statement
 * that writes or locks what the key stands for.
 *
 * conn     borrowed; must be inside a transaction (checked: REJECT outside). In
 *          libpq's pipeline mode the INSERT is queued behind the caller's
 *          statements, and its result is the caller's to read.
 * msg      borrowed; copied before return.
 * id       written on success; may be NULL.
 * Blocks   one round trip (none in pipeline mode), at most statement_timeout.
 * Returns  REJECT: field and rule in err, nothing was written.
 *          RETRY: the server went away; roll back and start again.
 * Inside a consumer's handler correlation, causation, trace and a derived id
 * are inherited (base/context.h).
 */
SKALD_MUSTUSE enum skald_rc skald_outbox_add(struct pg_conn *conn,
	const struct skald_msg *msg, struct skald_uuid *id, struct skald_err *err);

/* --- relay -------------------------------------------------------------------------------- */

/*
 * One relay per source database; many may run, one leads (lease "relay"). Two ways out
 * of the table: it is looked at in turns (poll: snapshot difference), or a replication
 * slot streams it (wal). See relay_core.c and docs/outbox.md.
 */
struct skald_relay;

struct skald_relay_conf {
	unsigned struct_bytes; /* set by SKALD_RELAY_INIT */
	const char *source; /* name for logs and metrics; "main" for [database] */
	const char *url; /* of the source database */
	const struct skald_kafka_props *kafka; /* borrowed for the relay's life */
	const struct skald_topic_conf *topics; /* borrowed for the relay's life */
	int64_t poll_min_ms; /* after work: 2 */
	int64_t poll_max_ms; /* idle: 100 */
	int64_t retention_ms; /* of published rows; 0: for ever */
	int64_t consumed_ms; /* of the id inbox; 0: for ever */
	int64_t dead_letters_ms; /* of those that are not open */
	int64_t audit_ms;
	int64_t barrier_ms; /* at least skald.barrier_retention, see retention.sql */
	struct skald_metrics *metrics; /* may be NULL */
	bool wants_wal; /* where it is not possible the relay polls, and says why */
	int64_t slot_limit_bytes; /* WAL held at which the slot is given up; 0: never */
	const char *gate; /* standbys that must have what is published: application names,
			     comma separated; NULL or "": none */
};
/* clang-format off */
#define SKALD_RELAY_INIT { .struct_bytes = sizeof(struct skald_relay_conf), .source = "main", \
	.poll_min_ms = 2, .poll_max_ms = 100, .retention_ms = 86400000, \
	.consumed_ms = 1209600000, .dead_letters_ms = 7776000000, .audit_ms = 34560000000, \
	.barrier_ms = 34560000000 }
/* clang-format on */

/* What the configuration says of a source ("main": [database]); borrows its texts. */
struct skald_config;
bool skald_relay_wants_wal(const struct skald_config *config, const char *source);
SKALD_MUSTUSE enum skald_rc skald_relay_configure(struct skald_relay_conf *conf,
	const struct skald_config *config, const char *source, struct skald_err *err);

SKALD_MUSTUSE enum skald_rc skald_relay_create(struct skald_relay **out,
	const struct skald_relay_conf *conf, struct skald_err *err);
/*
 * Run until skald_wake_stop(skald_relay_wake(r)): drains (finishes the tick in
 * flight within drain_ms), gives the lease up, returns OK. Trouble of PostgreSQL
 * or Kafka is logged once per change and waited out. FATAL: configuration.
 */
SKALD_MUSTUSE enum skald_rc skald_relay_run(
	struct skald_relay *relay, int64_t drain_ms, struct skald_err *err);
void skald_relay_destroy(struct skald_relay *relay);
/* Other loops of the process wake it after a commit that added messages. Any thread. */
struct skald_wake *skald_relay_wake(struct skald_relay *relay);

/* The mode that is wanted from now on. Any thread. */
void skald_relay_wish(struct skald_relay *relay, bool wants_wal);

/* For readiness, any thread. */
struct skald_relay_health {
	bool is_leader;
	bool is_ready; /* connected to both sides, made progress lately or is standby */
	int64_t progress_at_ms; /* skald_mono_ms of the last completed turn */
	char trouble[160]; /* "" or what is wrong now */
	char attention[400]; /* "" or what waits for somebody while all else goes on */
};
void skald_relay_health(struct skald_relay *relay, struct skald_relay_health *out);

#endif
