/*
 * own.h - what the files of the orchestrator share.
 *
 *	orchestrator.c  the loop: sessions, leases, reading, life
 *	lease.c         partitions: ours, read, caught up      record.c  a record becomes a message
 *	batch.c         one transaction          act.c   events into the core, what it says out
 *	render.c        life-cycle events        vector.c the state vector as text
 *	store.c         the sets a batch writes  defs.c  definitions in use
 *	replay.c        dead letters again      sweep.c  retention
 */
#ifndef SKALD_SAGA_OWN_H
#define SKALD_SAGA_OWN_H

#include <pthread.h>

#include "base/buf.h"
#include "base/context.h"
#include "base/headers_form.h"
#include "base/metrics.h"
#include "base/rand.h"
#include "base/uuid.h"
#include "base/wake.h"
#include "broker/broker.h"
#include "saga/def.h"
#include "saga/saga.h"
#include "saga/saga_core.h"
#include "sql/sql.h"

#define SAGA__COMMAND_TOPIC "skald.saga.commands"
#define SAGA__LIFE_TOPIC    "skald.saga.events"
#define SAGA__NEVER_US      INT64_MAX

enum {
	SAGA__BATCH_MAX = 500, /* sagas and records of one transaction */
	SAGA__CODE_BYTES = 64,
	SAGA__TEXT_BYTES = 256,
	SAGA__CAUSE_BYTES = 256,
};

/* --- vector.c ------------------------------------------------------------------------------ */

struct saga__memo { /* of a step: what the loop remembers beside the core */
	int64_t started_us, finished_us; /* 0: not */
	char error[SAGA__CODE_BYTES]; /* "": none */
};

struct saga__vector {
	struct saga_core core;
	struct saga__memo memos[SAGA_STEPS_MAX];
	char cause[SAGA__CAUSE_BYTES]; /* ce_id of what led to the newest command; "" */
};

/* Append the text of a vector. */
void skald__saga_encode(const struct saga__vector *v, struct skald_buf *out);
/* "": not begun. REJECT: not a vector of this definition. */
SKALD_MUSTUSE enum skald_rc skald__saga_decode(struct skald_slice text,
	const struct saga_plan *plan, struct saga__vector *v, struct skald_err *err);

/* --- lease.c -------------------------------------------------------------------------------- */

struct saga__part { /* a partition that is ours */
	const char *topic; /* the orchestrator's own text */
	bool is_reply;
	int32_t partition;
	int64_t term;
	int64_t done; /* every offset below is applied and committed */
	int64_t next; /* below is applied by the batch in hand */
	int64_t hold_until_ms; /* a start waits for somebody: not read until then; 0: not held */
	int64_t check_end,
		check_clock_us; /* caught up once done is there; end -1: no check */
	int64_t hinted;
	bool is_new, is_kept;
};

/* --- record.c ------------------------------------------------------------------------------- */

enum saga__msg_kind {
	SAGA__MSG_REPLY,
	SAGA__MSG_START,
	SAGA__MSG_DEAD, /* cannot be used: why says it */
	SAGA__MSG_PASS, /* not for us */
};

struct saga__replay;
struct saga__msg {
	const struct skald_kafka_record *record;
	struct saga__part *part;
	struct saga__replay *replay; /* NULL: it came from the topic */
	enum saga__msg_kind kind;
	bool has_saga; /* saga_id is one */
	bool has_attempt; /* step_name, op, attempt can be believed: a dead letter names it */
	bool is_dead; /* a dead letter is to be written */
	bool is_poison; /* broke its batch */
	char saga_id[SKALD_UUID_TEXT_BYTES];
	struct skald_slice saga_name, step_name, id; /* id: ce_id */
	enum saga_op op;
	uint32_t attempt, round;
	enum saga_reply reply;
	enum saga_barrier barrier;
	struct skald_slice data; /* of a success; NULL: none */
	char code[SAGA__CODE_BYTES];
	char text[SAGA__TEXT_BYTES];
	struct skald_err why;
};

/* Look at a record of replies or commands. */
void skald__saga_read(const struct skald_kafka_record *record, struct saga__part *part,
	struct saga__msg *msg);
void skald__saga_kill(struct saga__msg *msg, const char *code, const char *fmt, ...)
	SKALD_PRINTF(3, 4);

/* --- replay.c ------------------------------------------------------------------------------- */

struct skald_orchestrator;
struct saga__replay { /* a dead letter in hand */
	struct skald_rows *rows;
	struct skald_header *headers;
	char id[SKALD_UUID_TEXT_BYTES];
	int64_t version;
	char topic[256];
	struct skald_kafka_record record;
	struct saga__part part; /* in its place: of nobody */
};
void skald__saga_replay_drop(struct skald_orchestrator *o);
SKALD_MUSTUSE enum skald_rc skald__saga_replay_claim(
	struct skald_orchestrator *o, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__saga_replay_end(
	struct skald_orchestrator *o, const struct saga__msg *msg, struct skald_err *err);

/* --- a saga of a batch ---------------------------------------------------------------------- */

struct saga__inst {
	char id[SKALD_UUID_TEXT_BYTES];
	struct skald_slice name, key, correlation_id, traceparent,
		causation_id; /* of rows */
	int version;
	uint32_t run;
	int64_t created_us, updated_us, finished_us, deadline_us; /* 0: none */
	int64_t published_us; /* of the newest command; 0: not known */
	int64_t look_us; /* look again then at the latest; NEVER */
	bool is_due, is_dirty, is_sent;
	const struct skald_saga_def *def;
	struct saga__vector v;
	char reason_code[SAGA__CODE_BYTES];
	char reason_text[SAGA__TEXT_BYTES];
	struct skald_slice input; /* as far as somebody refers to it, */
	struct skald_slice steps[SAGA_STEPS_MAX]; /* and what each step answered */
	size_t kept_bytes; /* all that is stored of it */
	bool is_kept[SAGA_STEPS_MAX];
};

/* --- store.c -------------------------------------------------------------------------------- */

enum { SAGA__SETS = 17 };
struct saga__set { /* array literals of one statement */
	struct skald_buf columns[SAGA__SETS];
	unsigned column_count, row_count;
};

struct skald_orchestrator;
void skald__saga_set_begin(struct saga__set *set, unsigned columns);
void skald__saga_set_done(struct saga__set *set);
void skald__saga_save(struct skald_orchestrator *o, struct saga__inst *inst);
void skald__saga_log(struct skald_orchestrator *o, const struct saga__inst *inst,
	const struct saga_do *d, struct skald_slice message_id, struct skald_slice detail,
	struct skald_slice traceparent);
void skald__saga_keep(struct skald_orchestrator *o, const struct saga__inst *inst,
	const char *name, struct skald_slice data);

struct saga__out { /* a row of the outbox */
	char id[SKALD_UUID_TEXT_BYTES];
	const char *topic, *type;
	struct skald_slice key, data;
	struct skald_slice headers; /* JSON */
	struct skald_slice correlation_id, causation_id;
	const char *traceparent;
	int64_t expires_us; /* 0: never */
};
void skald__saga_put(struct skald_orchestrator *o, const struct saga__out *out);
/* Queue every set that has rows, and dead letters; then the marks. */
SKALD_MUSTUSE enum skald_rc skald__saga_write(
	struct skald_orchestrator *o, struct skald_err *err);

/* --- defs.c --------------------------------------------------------------------------------- */

struct saga__def {
	char name[SKALD_SAGA_NAME_BYTES_MAX + 1];
	int version;
	struct skald_saga_def *def; /* NULL: not there, or not sound */
};

/* The definition if it is known already. */
const struct skald_saga_def *skald__saga_def_find(
	struct skald_orchestrator *o, struct skald_slice name, int version, bool *known);
/* Asks the database, in the open transaction. */
SKALD_MUSTUSE enum skald_rc skald__saga_def_load(struct skald_orchestrator *o,
	struct skald_slice name, int version, struct skald_err *err);
/* Deploy every *.json of a directory; REJECT: one is wrong, or deployed with other content. */
SKALD_MUSTUSE enum skald_rc skald__saga_deploy_all(
	struct skald_sql *sql, const char *directory, struct skald_err *err);

/* --- the orchestrator ----------------------------------------------------------------------- */

struct saga__rendered { /* of a command about to be sent: places in texts */
	size_t data_at, data_bytes, key_at, key_bytes;
};

struct saga__counters {
	skald_metric *batches, *transitions, *started, *completed, *compensated, *stuck;
	skald_metric *commands, *replies, *stale, *timeouts, *dead, *conflicts, *fenced;
	skald_metric *partitions;
};

struct skald_orchestrator {
	struct skald_orchestrator_conf conf; /* texts are ours */
	char *installation; /* conf.installation or the database's name; set once connected */
	char *reply_topic;
	char *group;
	char source[300];
	char owner[160];
	struct skald_wake wake;
	struct skald_rand rand;
	struct saga__counters count;

	struct skald_sql *sql;
	struct skald_kafka_consumer *kafka;
	int64_t connect_at_ms, join_at_ms, beat_at_ms, due_at_ms, retry_at_ms;
	unsigned connect_tries;
	int64_t due_wait_ms, worked_at_ms;
	bool was_connected, has_identity, is_dev, has_trouble;
	unsigned failed_count; /* batches in a row, not by conflict */

	struct saga__part *parts;
	unsigned part_count;
	bool wants_assign;

	struct skald_kafka_records *records; /* in hand */
	struct saga__msg *msgs;
	unsigned msg_count, msg_next; /* of it: read, committed */

	struct saga__replay replay;
	int64_t replay_at_ms, sweep_at_ms;

	/* of the batch */
	unsigned batch_max; /* shrinks while one breaks it */
	struct saga__inst *insts;
	struct saga__inst **order; /* by id */
	unsigned inst_count;
	struct skald_rows *rows[4]; /* what slices of instances point into */
	int64_t clock_us, caught_us, gap_us; /* 0: none */
	struct saga__set save, log, keep, put, done;
	struct skald_buf texts; /* rendered commands of one event */
	struct skald_buf scratch, scratch2;
	struct saga__rendered rendered[SAGA_DO_MAX];
	unsigned rendered_count, rendered_next;
	struct saga__inst *looking;
	unsigned event_step;
	char missing[SAGA__TEXT_BYTES]; /* the path of the newest DATA_MISSING */
	char command_id[SKALD_UUID_TEXT_BYTES];
	char command_trace[SKALD_TRACEPARENT_BYTES];
	struct saga_dos todo;
	unsigned dead_count;
	unsigned lo, hi; /* messages of the batch */
	bool has_emitted;

	struct saga__def *defs;
	unsigned def_count;

	int64_t drain_until_ms;
	pthread_mutex_t lock;
	struct skald_orchestrator_health health;
};

/* act.c */
/* One event; msg NULL: of time or a start. */
SKALD_MUSTUSE enum skald_rc skald__saga_act(struct skald_orchestrator *o,
	struct saga__inst *inst, struct saga_event *ev, struct saga__msg *msg,
	struct skald_err *err);
/* What time says to a saga that is due. */
SKALD_MUSTUSE enum skald_rc skald__saga_act_due(
	struct skald_orchestrator *o, struct saga__inst *inst, struct skald_err *err);

/* render.c */
void skald__saga_life_json(const struct skald_orchestrator *o,
	const struct saga__inst *inst, struct skald_buf *out);
/* ce_saga* headers of a command as JSON. */
void skald__saga_command_headers(const struct skald_orchestrator *o,
	const struct saga__inst *inst, const struct saga_do *d, struct skald_buf *out);

/* batch.c */
/* One transaction of at most o->batch_max messages and due sagas. *worked: there was something. */
SKALD_MUSTUSE enum skald_rc skald__saga_batch(
	struct skald_orchestrator *o, bool *worked, struct skald_err *err);

/* lease.c */
SKALD_MUSTUSE enum skald_rc skald__saga_beat(
	struct skald_orchestrator *o, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__saga_assign(
	struct skald_orchestrator *o, struct skald_err *err);
struct saga__part *skald__saga_part(
	struct skald_orchestrator *o, const char *topic, int32_t partition);
void skald__saga_hint(struct skald_orchestrator *o);

/* sweep.c */
/* Some finished sagas whose retention is over go, now and then; of all daemons one does it. */
SKALD_MUSTUSE enum skald_rc skald__saga_sweep(
	struct skald_orchestrator *o, int64_t now_ms, struct skald_err *err);

#endif
