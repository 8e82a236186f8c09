/*
 * service_own.h - what service.c (asked for) and service_run.c (running) share.
 */
#ifndef SKALD_CONSUMERS_SERVICE_OWN_H
#define SKALD_CONSUMERS_SERVICE_OWN_H

#include <pthread.h>

#include "base/config.h"
#include "base/wake.h"
#include "consumers/own.h"

/* A program's own; more is a mistake in it. */
#define SERVICE_FLAGS_MAX    64
#define SERVICE_TOPICS_MAX   64
#define SERVICE_HANDLERS_MAX 256
#define SERVICE_LOOPS_MAX    16
#define SERVICE_SETUPS_MAX   16
#define SERVICE_SETS_MAX     64

struct skald__flag {
	const char *name; /* "--rate" */
	size_t name_bytes;
	const char *value;
	bool is_asked;
};

struct skald__route {
	const char *type; /* "*": what nothing else takes */
	skald_handler_fn handler; /* NULL: a type of command */
	void *ctx;
	struct skald__route_command command;
};

struct skald__loop {
	skald_turn_fn turn;
	void *ctx;
};

struct skald_service {
	const char *name;
	struct skald_config *config;
	struct skald_wake wake; /* of the main thread: signals, ended threads */
	bool has_wake;
	bool wants_help;

	const char *sets[SERVICE_SETS_MAX];
	const char *config_file;
	unsigned set_count;
	struct skald__flag flags[SERVICE_FLAGS_MAX]; /* given */
	unsigned flag_count;
	const char *asked[SERVICE_FLAGS_MAX]; /* by the program, for --help */
	unsigned asked_count;

	const char *topics[SERVICE_TOPICS_MAX];
	unsigned topic_count;
	char *topic_list; /* of [service] topics, cut up */
	struct skald__route routes[SERVICE_HANDLERS_MAX];
	unsigned route_count;
	bool has_commands;
	struct skald__loop loops[SERVICE_LOOPS_MAX];
	unsigned loop_count;
	const char *setups[SERVICE_SETUPS_MAX];
	unsigned setup_count;
};

void skald__service_free(struct skald_service *svc);
/* Everything was asked for: is it whole? Usage errors are FATAL of origin "usage". */
enum skald_rc skald__service_check(struct skald_service *svc, struct skald_err *err);
/* --help */
void skald__service_help(const struct skald_service *svc);
const struct skald__route *skald__service_route(
	const struct skald_service *svc, struct skald_slice type);
/* Relay, consumer, loops, until a signal or the first that ends. */
enum skald_rc skald__service_work(
	struct skald_service *svc, bool *is_stuck, struct skald_err *err);

#endif
