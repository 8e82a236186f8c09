/*
 * saga.h - many steps, one outcome: definitions of sagas, and who drives them.
 */
#ifndef SKALD_SAGA_SAGA_H
#define SKALD_SAGA_SAGA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/metrics.h"
#include "base/slice.h"

/* What a saga may hold, as docs/protocol.md says. */
#define SKALD_SAGA_DEF_BYTES_MAX   (256 * 1024)
#define SKALD_SAGA_STEPS_MAX       200
#define SKALD_SAGA_NAME_BYTES_MAX  63
#define SKALD_SAGA_KEY_BYTES_MAX   255
#define SKALD_SAGA_INPUT_BYTES_MAX (256 * 1024)
#define SKALD_SAGA_REPLY_BYTES_MAX (256 * 1024)
#define SKALD_SAGA_DATA_BYTES_MAX  (1024 * 1024) /* all of it, and what is rendered */
/* A template of the definition around a value of the data: SKALD_JSON_DEPTH_MAX together. */
#define SKALD_SAGA_TEMPLATE_DEPTH_MAX 16
#define SKALD_SAGA_DATA_DEPTH_MAX     48
#define SKALD_SAGA_DURATION_DAYS_MAX  3650 /* of a time-out, a backoff, a deadline */
#define SKALD_SAGA_PATH_BYTES_MAX     1024
#define SKALD_SAGA_HASH_TEXT_BYTES    41 /* SHA-1 in hex and a NUL */

/* --- definitions --------------------------------------------------------------------------- */

/* A checked definition: on the heap, never changed, so any thread may read it. */
struct skald_saga_def;

/* One thing that is wrong; borrowed for the call. */
struct skald_saga_fault {
	const char *pointer; /* JSON pointer; of a missing member the one it would have */
	const char *rule; /* what is asked for; the same words each time */
	const char *hint; /* what was found, or what to write instead; may be "" */
};
typedef void (*skald_saga_fault_fn)(const struct skald_saga_fault *fault, void *ctx);

/*
 * Read and check the text of a definition. Every fault is told, not only the first
 * (at most 1000); a text that is no JSON has one, with pointer "".
 *
 * text     borrowed; copied.
 * fault    may be NULL.
 * Returns  REJECT: faults were found; err has the first and their number.
 *          RETRY: no memory.
 */
SKALD_MUSTUSE enum skald_rc skald_saga_def_create(struct skald_saga_def **def,
	struct skald_slice text, skald_saga_fault_fn fault, void *ctx,
	struct skald_err *err);
void skald_saga_def_destroy(struct skald_saga_def *def);

const char *skald_saga_def_name(const struct skald_saga_def *def);
int skald_saga_def_version(const struct skald_saga_def *def);
/* The text as it was given: what is stored and shown. */
struct skald_slice skald_saga_def_text(const struct skald_saga_def *def);
/*
 * SHA-1 of the canonical text, in lower-case hex: no white space, members in the
 * order of their names (bytes), strings in one way of escaping, numbers digit by
 * digit as written. So layout and the order of members do not matter.
 */
const char *skald_saga_def_hash(const struct skald_saga_def *def);

unsigned skald_saga_def_step_count(const struct skald_saga_def *def);
const char *skald_saga_def_step_name(const struct skald_saga_def *def, unsigned step);
const char *skald_saga_def_step_kind(const struct skald_saga_def *def, unsigned step);
/* Index of the step, or -1. */
int skald_saga_def_step(const struct skald_saga_def *def, struct skald_slice name);

/* --- definitions in code ------------------------------------------------------------------- */

/*
 * A definition that a program builds instead of writing JSON:
 *
 *	struct skald_saga_def_step charge = SKALD_SAGA_DEF_STEP_INIT;
 *
 *	charge.name = "charge";
 *	charge.kind = "pivot";
 *	charge.action.topic = "payment.commands";
 *	charge.action.type = "payment.charge";
 *	charge.action.data = "{\"amount\":\"$.input.amount\"}";
 *	rc = skald_saga_def_builder_create(&b, "order", 1, err);
 *	...
 *	skald_saga_def_builder_step(b, &charge);
 *	rc = skald_saga_def_build(b, &def, NULL, NULL, err);
 *
 * What is built is the JSON that a person would have written, in its canonical form, and
 * goes through the same validator: members, rules and faults are those of docs/sagas.md.
 * Texts are copied by the call that is given them. NULL or 0: the member is left out.
 */
struct skald_saga_def_builder;

struct skald_saga_def_command { /* all NULL: there is no such command */
	const char *topic, *type;
	const char *data; /* JSON, with paths as texts */
	const char *key; /* of an action: a path */
};
struct skald_saga_def_retry { /* nothing given: there is no such member */
	int attempts;
	const char *backoff, *max_backoff; /* "200ms" */
};
struct skald_saga_def_step {
	unsigned struct_bytes; /* set by SKALD_SAGA_DEF_STEP_INIT */
	const char *name;
	const char *kind; /* "compensatable", "pivot", "retriable" */
	const char *timeout;
	struct skald_saga_def_command action, compensation;
	bool has_nothing_to_undo; /* "compensation": null, said aloud */
	struct skald_saga_def_retry retry, compensation_retry;
	const char *on_unknown;
};
#define SKALD_SAGA_DEF_STEP_INIT \
	{ \
		.struct_bytes = sizeof(struct skald_saga_def_step) \
	}

SKALD_MUSTUSE enum skald_rc skald_saga_def_builder_create(
	struct skald_saga_def_builder **out, const char *name, int version,
	struct skald_err *err);
void skald_saga_def_builder_destroy(struct skald_saga_def_builder *b);
/* These do not fail: whatever is wrong, memory too, is told by skald_saga_def_build. */
void skald_saga_def_builder_deadline(
	struct skald_saga_def_builder *b, const char *duration);
/* One more, after those that were added before. */
void skald_saga_def_builder_step(
	struct skald_saga_def_builder *b, const struct skald_saga_def_step *step);
void skald_saga_def_builder_output(struct skald_saga_def_builder *b, const char *json);
/*
 * The definition as it stands; more may be added and built again.
 *
 * fault    as of skald_saga_def_create; may be NULL. A `data` or `output` that is no JSON
 *          is a fault at its pointer, told before the validator's.
 * Returns  as skald_saga_def_create.
 */
SKALD_MUSTUSE enum skald_rc skald_saga_def_build(struct skald_saga_def_builder *b,
	struct skald_saga_def **def, skald_saga_fault_fn fault, void *ctx,
	struct skald_err *err);

/* --- orchestrator -------------------------------------------------------------------------- */

/*
 * Drives the sagas of one database: replies, timers and starts in, commands out. Any
 * number of them may run; each serves its share of the partitions.
 */
struct skald_kafka_props;
struct skald_topic_conf;
struct skald_wake;
struct skald_orchestrator;

struct skald_orchestrator_conf {
	const char *url; /* of the database with the sagas */
	const char *installation; /* NULL: the database's name */
	const char *reply_topic; /* NULL: skald.replies.<installation> */
	const char *definitions; /* a directory deployed at start; NULL: none */
	unsigned batch_max; /* of a transaction; 0: what fits */
	int64_t retention_ms; /* of finished sagas; 0: for ever */
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
