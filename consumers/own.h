/*
 * own.h - what the files of consumers/ share.
 *
 *	runner.c   the loop: serves Kafka, asks the core, does what it says
 *	part.c     partitions, stopped ones     claim.c  taken over   tick.c  once a second
 *	batch.c    records become deliveries   range.c  a range of them, one transaction
 *	marks.c    the watermarks it moves
 *	dead.c     dead letters       replay.c  the ones an operator wants again
 *	envelope.c what headers say   delivery.c  what a handler sees
 *	command.c  commands of sagas  participant.c  taken and answered   reply.c, barrier.c
 */
#ifndef SKALD_CONSUMERS_OWN_H
#define SKALD_CONSUMERS_OWN_H

#include <pthread.h>

#include "base/buf.h"
#include "base/context.h"
#include "base/headers_form.h"
#include "base/rand.h"
#include "base/wake.h"
#include "broker/broker.h"
#include "consumers/consumers.h"
#include "consumers/lane_core.h"
#include "consumers/runner_core.h"
#include "sql/sql.h"

#define SKALD__MARKS_MAX \
	(1u << 16) /* histories of a partition: 5 MiB; one or two are usual */
#define SKALD__ARGS_BYTES_MAX \
	(64 * 1024 * 1024) /* arrays of one statement: batch x keys */
#define SKALD__TICK_MS    1000 /* idle lanes, offsets for lag tools */
#define SKALD__REPLAY_MS  500 /* a person waits for it */
#define SKALD__STOPPED_MS 5000 /* did an operator let a stopped partition go on? */
#define SKALD__SERVE_MS   100 /* longest sleep: the group wants to be served */
#define SKALD__CLAIM_MS   2000 /* longest stay in the assign callback */
#define SKALD__OFFSETS_MS 3000 /* longest wait for a partition's leader */

#define SKALD__GROUP_BYTES_MAX 255

enum skald__part_state {
	PART_PENDING, /* given to us by Kafka, its lanes not claimed yet (or not any more) */
	PART_ACTIVE,
	PART_STOPPED, /* loudly, until an operator or a restart */
};

/* A partition that the group gave us. */
struct skald__part {
	char *topic;
	int32_t partition;
	enum skald__part_state state;
	int64_t claim_at_ms; /* PENDING: try again then */
	unsigned claim_tries; /* without success: a young topic's leader may be slow */
	int64_t term;
	int64_t next; /* offset after the last record taken */
	struct lane_core lanes;
	/* the newest applied record, and whether the database knows it */
	int64_t seen_offset;
	int64_t seen_digest;
	bool is_seen_dirty;
	/* the record that must look as it did when it was applied; -1: none to check */
	int64_t check_offset;
	int64_t check_digest;
	bool clears_stop; /* the database says stopped; undone once the check passed */
	int64_t hinted; /* offset last left with Kafka */
	int64_t ticked; /* frontier of the last tick */
	int64_t end; /* of the log, as the last tick told it */
	bool is_ticking; /* scratch of tick.c */
	unsigned ordinals[LANES_MAX]; /* scratch of marks.c */
};

enum skald__verdict {
	VERDICT_RUN, /* its handler decides */
	VERDICT_DUPLICATE,
	VERDICT_SKIP, /* for another group, or of a type nobody here wants */
	VERDICT_DEAD, /* malformed or expired: never handed to a handler */
	VERDICT_GONE, /* its partition is not ours any more */
};

struct skald__envelope { /* what the headers say; slices into the record */
	struct skald_slice id, type, source, replay_group;
	bool has_position;
	bool is_recovered;
	uint64_t stream;
	struct skald_position position;
	int64_t expires_at_us; /* 0: never */
};

/* Who handles a type of command. */
struct skald__route_command {
	skald_command_fn handler;
	void *ctx;
};
/* NULL: not a command of ours. */
typedef const struct skald__route_command *(*skald__find_command_fn)(
	struct skald_slice type, void *ctx);

struct skald_command { /* slices into the record */
	struct skald_delivery *delivery;
	const char *participant;
	struct skald_slice saga_id, saga_name, step, attempt_text, key, reply_to;
	struct skald_json data;
	enum skald_op op;
	unsigned attempt;
	bool is_plain; /* an action's first key: nothing but its deadline can be against it */
	uint64_t step_hash; /* of saga and step */
};

struct skald_reply {
	bool is_set;
	bool is_later;
	enum skald_outcome outcome;
	struct skald_buf data;
	struct skald_buf scratch;
	enum skald_rc fault; /* the handler's mistake in setting it */
	struct skald_err err;
};

struct skald__participant;

struct skald_delivery {
	struct skald_consumer *consumer;
	struct skald_kafka_record record;
	struct skald__part *part; /* NULL in a replay */
	struct skald__envelope envelope;
	struct lane_record lane;
	enum skald__verdict base; /* without regard to watermarks */
	enum skald__verdict verdict;
	bool is_passed; /* below done already: moves no watermark */
	bool has_inbox; /* deduped by id as well */
	bool is_known; /* its id was consumed before, says this attempt's transaction */
	bool is_replay;
	const struct skald__route_command *route; /* NULL: no command */
	struct skald_command command;
	bool is_told; /* the barrier's verdict on it is known: */
	enum skald_verdict told;
	bool gives_up; /* attempts spent: answered, its handler not called */
	const char *class; /* of the dead letter: RETRY FATAL DECODE EXPIRED */
	struct skald_err why;
	unsigned attempt; /* from 1 */
	unsigned emitted_count; /* kept while another delivery is in use */
	int64_t defer_ms;
	int64_t first_failure_us;
};

struct skald__counters {
	skald_metric *applied, *duplicate, *dead, *skipped, *retries, *fenced, *batches;
	skald_metric *stopped, *lag, *replayed, *outages, *conflicts;
};

typedef bool (*skald__wants_fn)(struct skald_slice type, void *ctx);

struct skald_consumer {
	struct skald_consumer_conf conf; /* texts are ours */
	skald__wants_fn wants; /* NULL: everything */
	void *wants_ctx;
	struct skald__participant *participant; /* NULL: serves no commands */
	struct skald_wake wake;
	struct skald_rand rand;
	struct skald__counters count;
	char token
		[17]; /* names this consumer among all: part of owner and session name */
	char owner[320];
	bool is_dev; /* the dev broker: its topics come and go */

	struct skald_sql *sql; /* NULL: not connected */
	int64_t connect_at_ms;
	unsigned connect_tries;
	struct skald_kafka_consumer *kafka;
	int64_t join_at_ms;
	bool was_connected; /* a wrong schema at start is fatal, later it is waited for */
	bool has_trouble;
	bool has_failed; /* something, in this turn */
	bool wants_reopen; /* join the group anew: a stopped partition may go on */
	int64_t reopen_at_ms;

	struct skald__part **parts;
	unsigned part_count;

	struct run_core core;
	struct run_do todo;
	struct run_msg *msgs; /* conf.batch_max of each */
	struct skald_delivery *deliveries;
	struct skald_delivery **picked;
	unsigned *scratch;
	unsigned delivery_count;
	struct skald_kafka_records *records;
	bool is_lanes_told; /* that the stored number of lanes wins */
	bool has_emitted; /* by this attempt: wake the relay after its commit */

	char batch_token[48];
	uint64_t batch_number;
	struct skald_buf args[11]; /* of consumer_advance and consumer_tick */
	struct skald_buf text; /* headers of a dead letter as JSON */
	struct skald_buf packed; /* and exactly */

	struct skald_context context; /* of the delivery in use */
	struct skald_delivery *in_use;

	int64_t tick_at_ms, replay_at_ms, stopped_at_ms;
	int64_t drain_until_ms; /* 0: not draining */
	enum skald_rc fatal;
	struct skald_err fatal_err;

	pthread_mutex_t lock; /* of health: read from other threads */
	struct skald_consumer_health health;
};

/* --- runner.c ------------------------------------------------------------------------------ */

/* Only what this wants is handed to a handler; the rest is passed over and counted. */
void skald__consumer_filter(
	struct skald_consumer *consumer, skald__wants_fn wants, void *ctx);
/* What is wrong now ("": nothing); logged when it changes. */
void skald__consumer_trouble(struct skald_consumer *c, const struct skald_err *err);
/* Forget the batch in hand. */
void skald__consumer_drop(struct skald_consumer *c);
void skald__consumer_fatal(
	struct skald_consumer *c, enum skald_rc rc, const struct skald_err *err);

/* --- part.c -------------------------------------------------------------------------------- */

struct skald__part *skald__part_find(
	struct skald_consumer *c, const char *topic, int32_t partition);
struct skald__part *skald__part_add(
	struct skald_consumer *c, const char *topic, int32_t partition);
void skald__part_remove(struct skald_consumer *c, const char *topic, int32_t partition);
void skald__part_free_all(struct skald_consumer *c);
/* Room for one more history in the lanes; RETRY without memory, REJECT at the limit. */
enum skald_rc skald__part_grow(struct skald__part *part, struct skald_err *err);
/* Tell metrics and health how many stopped. */
void skald__part_count(struct skald_consumer *c);
/* Not ours, or not known to be: its deliveries are dropped, claimed again at that time. */
void skald__part_lose(
	struct skald_consumer *c, struct skald__part *part, int64_t claim_at_ms);
/* Loudly: log, database, health. The others go on. */
void skald__part_stop(
	struct skald_consumer *c, struct skald__part *part, const char *why);
/* What the database calls stopped goes on. */
void skald__part_unstop(struct skald_consumer *c, struct skald__part *part);
/* The watermark of offsets starts again at `begin`; positions stay. */
enum skald_rc skald__part_restart(struct skald_consumer *c, struct skald__part *part,
	int64_t begin, struct skald_err *err);
/* Is the record at check_offset the one that was applied? Else stops the partition. */
void skald__part_check(struct skald_consumer *c, struct skald__part *part,
	const struct skald_delivery *d);

/* --- claim.c, tick.c ----------------------------------------------------------------------- */

void skald__claim_on_group(enum skald_group_event event,
	struct skald_kafka_partition *partitions, unsigned count, void *ctx);
void skald__claim_on_stopped(
	const char *topic, int32_t partition, const struct skald_err *err, void *ctx);
/* Connect, and claim again what was ours: the session is new, so is the term. */
enum skald_rc skald__claim_connect(struct skald_consumer *c, struct skald_err *err);
/* PENDING partitions whose time has come. */
void skald__claim_pending(struct skald_consumer *c, int64_t now_ms);

/* See consumer_tick in consume.sql; then the hint to Kafka. */
void skald__tick(struct skald_consumer *c);
/* consumer_advance refused: find out which partitions are gone, drop their deliveries. */
enum skald_rc skald__tick_fenced(struct skald_consumer *c, struct skald_err *err);
/* Partitions that an operator has let go on. */
void skald__tick_stopped(struct skald_consumer *c);

/* --- batch.c ------------------------------------------------------------------------------- */

/* Take what has come; false: nothing. */
bool skald__batch_take(struct skald_consumer *c);
/* New, duplicate, dead: for deliveries from `from` on. Again after a claim. */
void skald__batch_decide(struct skald_consumer *c, unsigned from);
int64_t skald__batch_digest(const struct skald_delivery *d);
/* Everything of the batch is settled. */
void skald__batch_settled(struct skald_consumer *c);

/* --- range.c, marks.c ---------------------------------------------------------------------- */

/* One transaction; the answer for the core. */
struct run_event skald__range_run(struct skald_consumer *c, unsigned lo, unsigned hi);
/* BEGIN, named so that consumer_advance knows it again; in a pipeline, and by itself. */
enum skald_rc skald__range_send_begin(struct skald_consumer *c, struct skald_err *err);
enum skald_rc skald__range_begin(struct skald_consumer *c, struct skald_err *err);
/* What a failure means for the core. */
enum run_fault skald__fault_of(
	struct skald_consumer *c, enum skald_rc rc, const struct skald_err *err);
/* Call the handler in the delivery's context; finds a transaction left failed or ended. */
enum skald_rc skald__handler_call(
	struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err);
bool skald__marks_are_any(const struct skald_consumer *c, unsigned lo, unsigned hi);
/* Queue consumer_advance for the range. */
enum skald_rc skald__marks_send(
	struct skald_consumer *c, unsigned lo, unsigned hi, struct skald_err *err);

/* --- delivery.c, envelope.c ---------------------------------------------------------------- */

/* REJECT: names header and rule; class DECODE. */
enum skald_rc skald__envelope_read(const struct skald_kafka_record *record,
	struct skald__envelope *out, struct skald_err *err);
/* The context of d becomes the thread's; NULL leaves it. */
void skald__delivery_use(struct skald_consumer *c, struct skald_delivery *d);
/* The same inside PostgreSQL, for handlers that emit by SQL. */
enum skald_rc skald__delivery_use_sql(struct skald_consumer *c, struct skald_err *err);
/* The same, queued in a pipeline. */
enum skald_rc skald__delivery_send_context(
	struct skald_consumer *c, struct skald_err *err);

/* --- command.c, reply.c -------------------------------------------------------------------- */

/* Fill d->command from its headers and value; REJECT names header and rule; class DECODE. */
enum skald_rc skald__command_read(struct skald_delivery *d, struct skald_err *err);
const char *skald__verdict_name(enum skald_verdict verdict);
bool skald__verdict_read(struct skald_slice text, enum skald_verdict *verdict);
const char *skald__outcome_name(enum skald_outcome outcome);
void skald__reply_init(struct skald_reply *reply);
void skald__reply_done(struct skald_reply *reply);
void skald__reply_clear(struct skald_reply *reply);
/* {"code","message"} from what a handler said about itself. */
void skald__reply_set_error(struct skald_reply *reply, enum skald_outcome outcome,
	const char *fallback, const struct skald_err *why);

/* --- participant.c ------------------------------------------------------------------------- */

/*
 * Commands in the batch's transaction: taken together at its begin, answered together at its
 * end, what lies between runs in a savepoint. One of a step that has another before it in
 * the range is taken when its turn comes.
 */
enum skald_rc skald__consumer_commands(struct skald_consumer *c, const char *participant,
	skald__find_command_fn find, void *ctx, struct skald_err *err);
void skald__participant_free(struct skald_consumer *c);
/* Is d a command? Then d->route and d->command are set; REJECT: a malformed one. */
enum skald_rc skald__participant_find(
	struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err);
/* Forget what the last attempt took and owes. */
void skald__participant_reset(struct skald_consumer *c);
/* Add d to those taken at the begin, if it is the first of its step. */
void skald__participant_ask(struct skald_consumer *c, struct skald_delivery *d);
/* In a pipeline: queue the take of all asked and a savepoint; how many results that gives. */
enum skald_rc skald__participant_send_take(
	struct skald_consumer *c, unsigned *results, struct skald_err *err);
enum skald_rc skald__participant_take_results(
	struct skald_consumer *c, struct skald_err *err);
/* Participate unless done, handler, answer. */
enum skald_rc skald__participant_call(
	struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err);
/* Write the answers owed: in a pipeline, and by itself. */
bool skald__participant_owes(const struct skald_consumer *c);
enum skald_rc skald__participant_send_answers(
	struct skald_consumer *c, struct skald_err *err);
enum skald_rc skald__participant_flush(struct skald_consumer *c, struct skald_err *err);

/* --- dead.c -------------------------------------------------------------------------------- */

/* Queue the dead letter of d in the pipeline; one result. */
enum skald_rc skald__dead_send(
	struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err);
/* Class and reason of what a handler said. */
void skald__dead_note(
	struct skald_delivery *d, const char *class, const struct skald_err *err);

/* --- replay.c ------------------------------------------------------------------------------ */

/* Run at most one requested dead letter of our partitions; false: there was none. */
bool skald__replay_turn(struct skald_consumer *c);

#endif
