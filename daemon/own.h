/*
 * own.h - what the files of skaldd share.
 *
 * Threads: main (signals, readiness, systemd), one per source (its relay), one
 * that asks Kafka whether it is there, one of the HTTP server. They share the state of a source under its lock, a wake
 * pipe and a stop flag each, and the metrics.
 */
#ifndef SKALD_DAEMON_OWN_H
#define SKALD_DAEMON_OWN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/config.h"
#include "base/err.h"
#include "base/metrics.h"
#include "base/wake.h"
#include "broker/broker.h"
#include "http/http.h"
#include "outbox/outbox.h"

#define SKALD__STALL_MS 30000 /* a loop without a turn for so long is stuck */

/* --- options.c: the command line ------------------------------------------------------- */

enum skald__role {
	SKALD_ROLE_RELAY = 1 << 0,
	SKALD_ROLE_DEV_BROKER = 1 << 1,
	SKALD_ROLE_ORCHESTRATOR = 1 << 2,
};

enum skald__action {
	SKALD_ACTION_RUN,
	SKALD_ACTION_PRINT_CONFIG,
	SKALD_ACTION_LIST_FAILPOINTS,
	SKALD_ACTION_VERSION,
	SKALD_ACTION_HELP,
};

#define SKALD__SETS_MAX 256

struct skald__options {
	enum skald__action action;
	const char *config_file; /* NULL: searched for */
	const char *sets[SKALD__SETS_MAX];
	unsigned set_count;
	const char *roles; /* --roles, or NULL: daemon.roles */
	bool is_dev;
};

/* REJECT: usage; names the flag and the nearest known one. argv is borrowed. */
SKALD_MUSTUSE enum skald_rc skald__options_parse(
	struct skald__options *options, int argc, char **argv, struct skald_err *err);
/* "relay,orchestrator" -> bits; where names the flag or key in the error. */
SKALD_MUSTUSE enum skald_rc skald__roles_parse(
	const char *list, const char *where, unsigned *roles, struct skald_err *err);
void skald__options_help(FILE *out);

/* --- notify.c: systemd's datagram ------------------------------------------------------- */

struct skald__notify {
	int fd; /* -1: nobody listens */
	struct sockaddr_un addr;
	socklen_t addr_bytes;
	int64_t watchdog_ms; /* feed at least so often; 0: none wanted */
};

void skald__notify_open(struct skald__notify *notify);
void skald__notify_close(struct skald__notify *notify);
void skald__notify_send(const struct skald__notify *notify, const char *text);

/* --- roles.c: which loops run ------------------------------------------------------------ */

struct skald__loop_state { /* a copy of what a loop last said */
	bool is_leader;
	bool is_ready;
	bool has_begun; /* it turned at least once */
	bool is_waiting; /* for somebody else: no progress, but no stall of ours */
	int64_t progress_at_ms;
	char trouble[240]; /* "" or what is wrong now */
	char attention[400]; /* "" or what waits for somebody while all else goes on */
};

struct skald__source;
struct skald__orchestra;
struct skald__watch;

struct skald__daemon {
	const struct skald_config *config;
	unsigned roles;
	int64_t started_at_ms;
	int64_t drain_ms;
	atomic_bool is_draining;
	struct skald_kafka_props *kafka;
	struct skald__watch *kafka_watch; /* NULL: no relay here */
	struct skald_topic_conf topics;
	struct skald_metrics *metrics;
	struct skald_dev_broker *dev_broker;
	struct skald_http *http;
	struct skald_wake wake; /* main's: signals and ended loops */
	struct skald__orchestra *orchestra; /* NULL: not a role of ours */
	struct skald__source **sources;
	unsigned source_count;
};

/* Create the relay of [database] and of each [source.NAME]; configuration errors are REJECT. */
SKALD_MUSTUSE enum skald_rc skald__sources_create(
	struct skald__daemon *daemon, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__sources_start(
	struct skald__daemon *daemon, struct skald_err *err);
void skald__sources_stop(struct skald__daemon *daemon); /* asks; does not wait */
bool skald__sources_are_done(struct skald__daemon *daemon);
/* A loop that found its configuration impossible at start: err says what. */
bool skald__sources_refused(struct skald__daemon *daemon, struct skald_err *err);
/* Something was written into its outbox. */
void skald__sources_wake(struct skald__daemon *daemon, const char *name);
/* Joins the threads (call when done, or never started) and frees everything. */
void skald__sources_destroy(struct skald__daemon *daemon);
const char *skald__source_name(const struct skald__source *source);
/* The mode each is to have. A source that is new or gone waits for a restart. */
void skald__sources_reload(
	struct skald__daemon *daemon, const struct skald_config *fresh);
void skald__source_state(struct skald__source *source, struct skald__loop_state *out);

/* --- watch.c: is Kafka there? ----------------------------------------------------------------- */

SKALD_MUSTUSE enum skald_rc skald__watch_start(
	struct skald__daemon *daemon, struct skald_err *err);
void skald__watch_stop(struct skald__watch *kafka); /* asks; NULL is fine */
bool skald__watch_is_done(const struct skald__watch *kafka);
void skald__watch_destroy(struct skald__watch *kafka); /* joins; NULL is fine */
void skald__watch_state(struct skald__watch *kafka, struct skald__loop_state *out);

/* --- orchestrate.c: the role orchestrator ------------------------------------------------ */

SKALD_MUSTUSE enum skald_rc skald__orchestra_create(
	struct skald__daemon *daemon, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__orchestra_start(
	struct skald__daemon *daemon, struct skald_err *err);
void skald__orchestra_stop(struct skald__daemon *daemon);
bool skald__orchestra_is_done(struct skald__daemon *daemon);
/* Another installation's database, a wrong definition: err says what. */
bool skald__orchestra_refused(struct skald__daemon *daemon, struct skald_err *err);
void skald__orchestra_destroy(struct skald__daemon *daemon);
void skald__orchestra_state(struct skald__daemon *daemon, struct skald__loop_state *out);

/* --- reload.c: SIGHUP -------------------------------------------------------------------- */

/* level and format of [log]; also at start. */
void skald__log_configure(const struct skald_config *config);
/* Read the configuration again: takes over what can be, names what waits for a restart. */
void skald__reload(struct skald__daemon *daemon, const struct skald_config_args *args);

/* --- health.c: what HTTP, systemd and the log are told ------------------------------------ */

SKALD_MUSTUSE enum skald_rc skald__health_start(
	struct skald__daemon *daemon, struct skald_err *err);
bool skald__health_is_ready(struct skald__daemon *daemon);
bool skald__health_is_alive(struct skald__daemon *daemon); /* every loop turns */

#endif
