/*
 * main_skaldd.c - the daemon: starts the loops, follows their health, drains.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/heap.h"
#include "base/log.h"
#include "daemon/own.h"

enum { EXIT_OK = 0, EXIT_OTHER = 1, EXIT_CONFIG = 2 };

#define TURN_MS       250 /* of main, when all is well */
#define START_TURN_MS 5 /* until ready: "ready in 12 ms" should be true */
#define START_MS      2000 /* from then on there is an outage: less eager */

static volatile sig_atomic_t stop_count;
static volatile sig_atomic_t reload_wanted;
static struct skald_wake *signal_wake; /* main's, for the handler */

static void
on_signal(int number)
{
	if (number == SIGHUP)
		reload_wanted = 1;
	else if (++stop_count > 1)
		_exit(EXIT_OTHER); /* asked twice: at once, whatever main does */
	skald_wake_up(signal_wake);
}

static const int caught[] = { SIGTERM, SIGINT, SIGHUP };

/*
 * Handlers run in main only. Until live() they are blocked, and every thread
 * that is started before inherits that: a poll(2) of librdkafka's mock that is
 * interrupted ends its broker for good.
 */
static void
mask_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		sigaddset(&set, caught[i]);
	(void)pthread_sigmask(how, &set, NULL);
}

static void
catch_signals(struct skald_wake *wake)
{
	struct sigaction action = { .sa_handler = on_signal };

	signal_wake = wake;
	sigemptyset(&action.sa_mask);
	mask_signals(SIG_BLOCK);
	for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++)
		sigaction(caught[i], &action, NULL);
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
}

/* --- start --------------------------------------------------------------------------------- */

/* Where --dev may step in: only if nobody said where Kafka is. */
static void
note_bootstrap(const char *key, const char *value, void *ctx)
{
	bool *is_set = ctx;

	if (value && value[0] &&
		(strcmp(key, "bootstrap.servers") == 0 ||
			strcmp(key, "metadata.broker.list") == 0))
		*is_set = true;
}

/* The mock listens on loopback and nowhere else: only the port is ours to choose. */
static enum skald_rc
find_dev_port(const struct skald_config *config, int *port, struct skald_err *err)
{
	const char *listen = skald_config_text(config, "dev_broker", "listen");
	const char *colon = listen ? strrchr(listen, ':') : NULL;
	long long value = 0;

	if (!colon || !skald_http_is_loopback(listen) ||
		!skald_slice_int64(skald_slice_text(colon + 1), &value))
		return skald_fail(err, SKALD_REJECT, "config", "",
			"dev_broker.listen: '%s' is no loopback address like 127.0.0.1:0",
			listen ? listen : "");
	*port = (int)value;
	return SKALD_OK;
}

/* The in-process broker; its address for people and scripts, its limits on the log. */
static enum skald_rc
start_dev_broker(struct skald__daemon *daemon, struct skald_config_args *args,
	const char **sets, char *bootstrap, size_t bootstrap_bytes,
	struct skald_config **config, struct skald_err *err)
{
	bool is_set = false;
	enum skald_rc rc;
	int port = 0;

	rc = find_dev_port(*config, &port, err);
	if (rc)
		return rc;
	rc = skald_dev_broker_start(&daemon->dev_broker, port,
		(int32_t)skald_config_int(*config, "dev_broker", "partitions"), err);
	if (rc)
		return rc;
	printf("dev broker on %s\n", skald_dev_broker_address(daemon->dev_broker));
	fflush(stdout);
	skald_log(SKALD_LOG_WARN, "%s", skald_dev_broker_warning());
	skald_config_each(*config, "kafka", note_bootstrap, &is_set);
	if (is_set || args->set_count == SKALD__SETS_MAX)
		return SKALD_OK;
	(void)snprintf(bootstrap, bootstrap_bytes, "kafka.bootstrap.servers=%s",
		skald_dev_broker_address(daemon->dev_broker));
	sets[args->set_count++] = bootstrap;
	skald_config_destroy(*config);
	*config = NULL;
	return skald_config_load(config, args, err);
}

static enum skald_rc
create_loops(struct skald__daemon *daemon, struct skald_err *err)
{
	const struct skald_config *config = daemon->config;
	enum skald_rc rc;

	rc = skald_kafka_props_create(&daemon->kafka, config, err);
	if (rc)
		return rc;
	daemon->topics.create = skald_config_bool(config, "topics", "create");
	daemon->topics.partitions =
		(int32_t)skald_config_int(config, "topics", "partitions");
	daemon->topics.replication =
		(int32_t)skald_config_int(config, "topics", "replication");
	if (daemon->roles & SKALD_ROLE_RELAY)
		rc = skald__sources_create(daemon, err);
	if (!rc && (daemon->roles & SKALD_ROLE_ORCHESTRATOR))
		rc = skald__orchestra_create(daemon, err);
	return rc ? rc : skald__watch_start(daemon, err);
}

/* --- the life of main ------------------------------------------------------------------------ */

struct life { /* what main remembers from turn to turn */
	struct skald__notify notify;
	bool was_ever_ready;
	bool is_ready;
	int64_t fed_at_ms;
};

/* The loops themselves say why, each once: here is only which. */
static void
name_unready(struct skald__daemon *daemon)
{
	struct skald__loop_state state;

	for (unsigned i = 0; i < daemon->source_count; i++) {
		skald__source_state(daemon->sources[i], &state);
		if (!state.is_ready)
			skald_log(SKALD_LOG_WARN, "not ready: relay source=%s",
				skald__source_name(daemon->sources[i]));
	}
	if (daemon->orchestra) {
		skald__orchestra_state(daemon, &state);
		if (!state.is_ready)
			skald_log(SKALD_LOG_WARN, "not ready: orchestrator");
	}
	skald__watch_state(daemon->kafka_watch, &state);
	if (!state.is_ready)
		skald_log(SKALD_LOG_WARN, "not ready: Kafka");
}

static void
follow_readiness(struct skald__daemon *daemon, struct life *life)
{
	bool is_ready = skald__health_is_ready(daemon);

	if (is_ready == life->is_ready)
		return;
	life->is_ready = is_ready;
	if (!is_ready) {
		if (daemon->kafka_watch)
			name_unready(daemon);
		return;
	}
	if (life->was_ever_ready) {
		skald_log(SKALD_LOG_INFO, "ready again");
		return;
	}
	life->was_ever_ready = true;
	skald__notify_send(&life->notify, "READY=1");
	skald_log(SKALD_LOG_INFO, "ready in %lld ms",
		(long long)(skald_mono_ms() - daemon->started_at_ms));
}

static void
feed_watchdog(struct skald__daemon *daemon, struct life *life)
{
	int64_t now_ms = skald_mono_ms();

	if (!life->notify.watchdog_ms ||
		now_ms - life->fed_at_ms < life->notify.watchdog_ms / 2 ||
		!skald__health_is_alive(daemon))
		return;
	life->fed_at_ms = now_ms;
	skald__notify_send(&life->notify, "WATCHDOG=1");
}

static int
turn_timeout_ms(const struct skald__daemon *daemon, const struct life *life)
{
	if (life->is_ready)
		return TURN_MS;
	return skald_mono_ms() - daemon->started_at_ms < START_MS ? START_TURN_MS
								  : TURN_MS / 2;
}

/* Ask every loop to finish and leave; what does not in time is left to its fate. */
static int
drain(struct skald__daemon *daemon, struct life *life)
{
	int64_t until_ms = skald_mono_ms() + daemon->drain_ms;

	atomic_store(&daemon->is_draining, true);
	skald__notify_send(&life->notify, "STOPPING=1");
	if (stop_count)
		skald_log(SKALD_LOG_INFO, "draining");
	skald__sources_stop(daemon);
	skald__orchestra_stop(daemon);
	skald__watch_stop(daemon->kafka_watch);
	while (!skald__sources_are_done(daemon) || !skald__orchestra_is_done(daemon) ||
		!skald__watch_is_done(daemon->kafka_watch)) {
		if (skald_mono_ms() >= until_ms) {
			skald_log(SKALD_LOG_ERROR,
				"could not drain in time, leaving as it is: nothing is "
				"lost, some may be sent twice shutdown_timeout_ms=%lld",
				(long long)daemon->drain_ms);
			_exit(EXIT_OTHER);
		}
		feed_watchdog(daemon, life);
		skald_wake_wait(&daemon->wake, NULL, 0, TURN_MS / 5);
	}
	return EXIT_OK;
}

static int
live(struct skald__daemon *daemon, const struct skald_config_args *args)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct life life = { .is_ready = false };
	int status = EXIT_OK;
	int drain_status;

	skald__notify_open(&life.notify);
	mask_signals(SIG_UNBLOCK);
	while (!stop_count) {
		if (reload_wanted) {
			reload_wanted = 0;
			skald__reload(daemon, args);
		}
		if (skald__sources_refused(daemon, &err) ||
			skald__orchestra_refused(daemon, &err)) {
			skald_log_err(SKALD_LOG_ERROR, &err, "could not start");
			status = EXIT_CONFIG;
			break;
		}
		follow_readiness(daemon, &life);
		feed_watchdog(daemon, &life);
		skald_wake_wait(&daemon->wake, NULL, 0, turn_timeout_ms(daemon, &life));
	}
	drain_status = drain(daemon, &life);
	skald__notify_close(&life.notify);
	if (!status && !drain_status)
		skald_log(SKALD_LOG_INFO, "left cleanly");
	return status ? status : drain_status;
}

/* --- main -------------------------------------------------------------------------------------- */

static int
fail(const struct skald_err *err, enum skald_rc rc)
{
	skald_log_err(SKALD_LOG_ERROR, err, "could not start");
	return rc == SKALD_REJECT ? EXIT_CONFIG : EXIT_OTHER;
}

static int
run(struct skald__options *options, struct skald_config_args *args,
	struct skald_config **config, unsigned roles)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald__daemon daemon = {
		.roles = roles,
		.started_at_ms = skald_mono_ms(),
		.wake = { .read_fd = -1, .write_fd = -1 },
	};
	char bootstrap[128];
	enum skald_rc rc;
	int status;

	rc = skald_wake_open(&daemon.wake, &err);
	if (rc)
		goto out;
	catch_signals(&daemon.wake);
	if (roles & SKALD_ROLE_DEV_BROKER) {
		rc = start_dev_broker(&daemon, args, options->sets, bootstrap,
			sizeof(bootstrap), config, &err);
		if (rc)
			goto out;
	}
	daemon.config = *config;
	daemon.drain_ms = skald_config_ms(*config, "daemon", "shutdown_timeout");
	rc = skald_metrics_create(&daemon.metrics, &err);
	if (!rc && (roles & (SKALD_ROLE_RELAY | SKALD_ROLE_ORCHESTRATOR)))
		rc = create_loops(&daemon, &err);
	if (!rc)
		rc = skald__health_start(&daemon, &err);
	if (!rc)
		rc = skald__sources_start(&daemon, &err);
	if (!rc)
		rc = skald__orchestra_start(&daemon, &err);
	if (!rc && daemon.http)
		skald_log(SKALD_LOG_INFO, "serving health and metrics port=%d",
			skald_http_port(daemon.http));
out:
	status = rc ? fail(&err, rc) : live(&daemon, args);
	skald__sources_stop(&daemon);
	skald__orchestra_stop(&daemon);
	skald__watch_stop(daemon.kafka_watch);
	skald_http_stop(daemon.http);
	skald__orchestra_destroy(&daemon); /* wakes sources */
	skald__sources_destroy(&daemon);
	skald__watch_destroy(daemon.kafka_watch);
	skald_kafka_props_destroy(daemon.kafka);
	skald_metrics_destroy(daemon.metrics);
	skald_dev_broker_stop(daemon.dev_broker);
	signal(SIGHUP, SIG_IGN); /* the pipe of the handler goes away */
	skald_wake_close(&daemon.wake);
	return status;
}

/* The roles in force: --roles, else daemon.roles; --dev adds the dev broker. */
static enum skald_rc
find_roles(const struct skald__options *options, const struct skald_config *config,
	unsigned *roles, struct skald_err *err)
{
	const char *configured = skald_config_text(config, "daemon", "roles");
	enum skald_rc rc = SKALD_OK;

	if (options->roles)
		rc = skald__roles_parse(options->roles, "--roles", roles, err);
	else if (configured)
		rc = skald__roles_parse(configured, "daemon.roles", roles, err);
	else
		*roles = SKALD_ROLE_RELAY | SKALD_ROLE_ORCHESTRATOR;
	if (!rc && options->is_dev)
		*roles |= SKALD_ROLE_DEV_BROKER;
	return rc;
}

static int
start(struct skald__options *options)
{
	struct skald_config_args args = { options->config_file, options->sets,
		options->set_count };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_config *config = NULL;
	unsigned roles = 0;
	int status = EXIT_OK;

	skald_log_init("skaldd", SKALD_LOG_INFO, SKALD_LOG_AUTO);
	if (skald_config_load(&config, &args, &err)) {
		status = fail(&err, SKALD_REJECT);
		goto out;
	}
	skald__log_configure(config);
	if (options->action == SKALD_ACTION_PRINT_CONFIG) {
		skald_config_print(config, stdout);
		goto out;
	}
	if (find_roles(options, config, &roles, &err)) {
		status = fail(&err, SKALD_REJECT);
		goto out;
	}
	skald_log(SKALD_LOG_INFO, "skaldd " SKALD_VERSION " begins");
	status = run(options, &args, &config, roles);
out:
	skald_config_destroy(config);
	return status;
}

int
main(int argc, char **argv)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald__options options;

	skald_heap_for_records();
	if (skald__options_parse(&options, argc, argv, &err)) {
		fprintf(stderr, "skaldd: %s\n", err.text);
		return EXIT_CONFIG;
	}
	switch (options.action) {
	case SKALD_ACTION_HELP:
		skald__options_help(stdout);
		return EXIT_OK;
	case SKALD_ACTION_VERSION:
		puts("skaldd " SKALD_VERSION);
		return EXIT_OK;
	case SKALD_ACTION_LIST_FAILPOINTS:
		skald_failpoint_list(stdout);
		return EXIT_OK;
	case SKALD_ACTION_PRINT_CONFIG:
	case SKALD_ACTION_RUN:
		break;
	}
	return start(&options);
}
