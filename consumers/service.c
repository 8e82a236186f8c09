/*
 * service.c - what a program that embeds the library asks for: configuration,
 * flags, topics, handlers, loops. service_run.c does it.
 */
#include "consumers/service_own.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

static enum skald_rc
too_many(struct skald_err *err, const char *what, unsigned max)
{
	return skald_fail(
		err, SKALD_FATAL, "skald", "SK007", "%s: at most %u", what, max);
}

/* --- arguments -------------------------------------------------------------------------------- */

static bool
is_flag(const struct skald__flag *flag, const char *name)
{
	return flag->name_bytes == strlen(name) &&
	       memcmp(flag->name, name, flag->name_bytes) == 0;
}

static enum skald_rc
take_flag(
	struct skald_service *svc, const struct skald__flag *flag, struct skald_err *err)
{
	if (is_flag(flag, "--config")) {
		svc->config_file = flag->value;
	} else if (is_flag(flag, "--set")) {
		if (svc->set_count == SERVICE_SETS_MAX)
			return too_many(err, "--set", SERVICE_SETS_MAX);
		svc->sets[svc->set_count++] = flag->value;
	} else {
		if (svc->flag_count == SERVICE_FLAGS_MAX)
			return too_many(err, "flags", SERVICE_FLAGS_MAX);
		svc->flags[svc->flag_count++] = *flag;
	}
	return SKALD_OK;
}

/* "--name value" and "--name=value"; whose they are turns out later. */
static enum skald_rc
read_args(struct skald_service *svc, int argc, char **argv, struct skald_err *err)
{
	enum skald_rc rc;

	for (int i = 1; i < argc; i++) {
		struct skald__flag flag = { .name = argv[i] };
		const char *equals = strchr(argv[i], '=');

		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			svc->wants_help = true;
			continue;
		}
		if (strncmp(argv[i], "--", 2) != 0 || !argv[i][2])
			return skald_fail(err, SKALD_FATAL, "usage", "",
				"%s: not a flag; see --help", argv[i]);
		if (equals) {
			flag.name_bytes = (size_t)(equals - argv[i]);
			flag.value = equals + 1;
		} else if (i + 1 < argc) {
			flag.name_bytes = strlen(argv[i]);
			flag.value = argv[++i];
		} else {
			return skald_fail(err, SKALD_FATAL, "usage", "",
				"%s: needs a value", argv[i]);
		}
		rc = take_flag(svc, &flag, err);
		if (rc)
			return rc;
	}
	return SKALD_OK;
}

static enum skald_log_level
level_of(const char *text)
{
	static const char *const names[] = { "error", "warn", "info", "debug" };

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (text && strcmp(text, names[i]) == 0)
			return (enum skald_log_level)i;
	return SKALD_LOG_INFO;
}

static enum skald_log_format
format_of(const char *text)
{
	if (text && strcmp(text, "json") == 0)
		return SKALD_LOG_JSON;
	return text && strcmp(text, "text") == 0 ? SKALD_LOG_TEXT : SKALD_LOG_AUTO;
}

enum skald_rc
skald_service_create(struct skald_service **out, const char *name, int argc, char **argv,
	struct skald_err *err)
{
	struct skald_service *svc = calloc(1, sizeof(*svc));
	struct skald_config_args args = { .file = NULL };
	enum skald_rc rc;

	if (!svc)
		return skald_fail(err, SKALD_FATAL, "skald", "", "out of memory");
	*out = svc;
	svc->name = name;
	skald_log_init(name, SKALD_LOG_INFO, SKALD_LOG_AUTO);
	rc = read_args(svc, argc, argv, err);
	if (rc)
		return rc;
	args.file = svc->config_file;
	args.sets = svc->sets;
	args.set_count = svc->set_count;
	rc = skald_config_load(&svc->config, &args, err);
	if (rc)
		return rc;
	skald_log_init(name, level_of(skald_config_text(svc->config, "log", "level")),
		format_of(skald_config_text(svc->config, "log", "format")));
	rc = skald_wake_open(&svc->wake, err);
	svc->has_wake = !rc;
	return rc;
}

const char *
skald_service_flag(struct skald_service *svc, const char *flag, const char *fallback)
{
	const char *value = fallback;
	bool is_known = false;

	for (unsigned i = 0; i < svc->flag_count; i++)
		if (is_flag(&svc->flags[i], flag)) {
			svc->flags[i].is_asked = true;
			value = svc->flags[i].value; /* the last one counts */
		}
	for (unsigned i = 0; i < svc->asked_count; i++)
		is_known = is_known || strcmp(svc->asked[i], flag) == 0;
	if (!is_known && svc->asked_count < SERVICE_FLAGS_MAX)
		svc->asked[svc->asked_count++] = flag;
	return value;
}

/* --- what it consists of ------------------------------------------------------------------------ */

enum skald_rc
skald_service_events(struct skald_service *svc, const char *topic, struct skald_err *err)
{
	if (!topic || !*topic)
		return skald_fail(
			err, SKALD_FATAL, "skald", "SK001", "topic: must not be empty");
	if (svc->topic_count == SERVICE_TOPICS_MAX)
		return too_many(err, "topics", SERVICE_TOPICS_MAX);
	svc->topics[svc->topic_count++] = topic;
	return SKALD_OK;
}

enum skald_rc
skald_service_commands(
	struct skald_service *svc, const char *topic, struct skald_err *err)
{
	return skald_service_events(svc, topic, err);
}

static enum skald_rc
add_route(struct skald_service *svc, const char *type, bool has_handler,
	struct skald__route route, struct skald_err *err)
{
	if (!type || !*type || !has_handler)
		return skald_fail(err, SKALD_FATAL, "skald", "SK001",
			"type, handler: must be given");
	for (unsigned i = 0; i < svc->route_count; i++)
		if (strcmp(svc->routes[i].type, type) == 0)
			return skald_fail(err, SKALD_FATAL, "skald", "SK001",
				"type %s: has a handler already", type);
	if (svc->route_count == SERVICE_HANDLERS_MAX)
		return too_many(err, "handlers", SERVICE_HANDLERS_MAX);
	svc->routes[svc->route_count++] = route;
	return SKALD_OK;
}

enum skald_rc
skald_service_on_event(struct skald_service *svc, const char *type,
	skald_handler_fn handler, void *ctx, struct skald_err *err)
{
	struct skald__route route = { .type = type, .handler = handler, .ctx = ctx };

	return add_route(svc, type, handler != NULL, route, err);
}

enum skald_rc
skald_service_on_command(struct skald_service *svc, const char *type,
	skald_command_fn handler, void *ctx, struct skald_err *err)
{
	struct skald__route route = { .type = type, .command = { handler, ctx } };

	if (type && strcmp(type, "*") == 0)
		return skald_fail(err, SKALD_FATAL, "skald", "SK001",
			"type *: is for events; a command's type must be named");
	svc->has_commands = true;
	return add_route(svc, type, handler != NULL, route, err);
}

enum skald_rc
skald_service_loop(
	struct skald_service *svc, skald_turn_fn turn, void *ctx, struct skald_err *err)
{
	if (svc->loop_count == SERVICE_LOOPS_MAX)
		return too_many(err, "loops", SERVICE_LOOPS_MAX);
	svc->loops[svc->loop_count++] = (struct skald__loop){ turn, ctx };
	return SKALD_OK;
}

enum skald_rc
skald_service_setup(
	struct skald_service *svc, const char *sql_script, struct skald_err *err)
{
	if (svc->setup_count == SERVICE_SETUPS_MAX)
		return too_many(err, "setup scripts", SERVICE_SETUPS_MAX);
	svc->setups[svc->setup_count++] = sql_script;
	return SKALD_OK;
}

const struct skald__route *
skald__service_route(const struct skald_service *svc, struct skald_slice type)
{
	const struct skald__route *rest = NULL;

	for (unsigned i = 0; i < svc->route_count; i++) {
		if (skald_slice_is_text(type, svc->routes[i].type))
			return &svc->routes[i];
		if (strcmp(svc->routes[i].type, "*") == 0)
			rest = &svc->routes[i];
	}
	return rest;
}

/* --- is it whole? -------------------------------------------------------------------------------- */

static enum skald_rc
check_flags(const struct skald_service *svc, struct skald_err *err)
{
	const char *names[SERVICE_FLAGS_MAX + 3], *nearest;
	unsigned count = 0;
	char given[64];

	names[count++] = "--config";
	names[count++] = "--set";
	names[count++] = "--help";
	for (unsigned i = 0; i < svc->asked_count; i++)
		names[count++] = svc->asked[i];
	for (unsigned i = 0; i < svc->flag_count; i++) {
		const struct skald__flag *flag = &svc->flags[i];

		if (flag->is_asked)
			continue;
		(void)snprintf(given, sizeof(given), "%.*s",
			flag->name_bytes < 60 ? (int)flag->name_bytes : 60, flag->name);
		nearest = skald_nearest(given, names, count);
		return skald_fail(err, SKALD_FATAL, "usage", "", "%s: no such flag%s%s",
			given, nearest ? "; did you mean " : "; see --help",
			nearest ? nearest : "");
	}
	return SKALD_OK;
}

/* [service] topics beats what the program asked for. */
static enum skald_rc
take_topics(struct skald_service *svc, struct skald_err *err)
{
	const char *list = skald_config_text(svc->config, "service", "topics");
	size_t bytes;
	char *word;

	if (!list || !*list)
		return SKALD_OK;
	svc->topic_list = strdup(list);
	if (!svc->topic_list)
		return skald_fail(err, SKALD_FATAL, "skald", "", "out of memory");
	svc->topic_count = 0;
	for (word = svc->topic_list; *word; word += bytes) {
		word += strspn(word, ", \t");
		bytes = strcspn(word, ", \t");
		if (bytes == 0)
			break;
		if (skald_service_events(svc, word, err))
			return SKALD_FATAL;
		if (word[bytes])
			word[bytes++] = '\0';
	}
	return SKALD_OK;
}

enum skald_rc
skald__service_check(struct skald_service *svc, struct skald_err *err)
{
	enum skald_rc rc = check_flags(svc, err);

	if (!rc)
		rc = take_topics(svc, err);
	if (rc)
		return rc;
	if (svc->route_count > 0 && svc->topic_count == 0)
		return skald_fail(err, SKALD_FATAL, "config", "",
			"service.topics: handlers, but no topic to read");
	if (svc->route_count == 0 && svc->topic_count > 0)
		return skald_fail(err, SKALD_FATAL, "skald", "SK001",
			"topic %s: no handler for any type", svc->topics[0]);
	return SKALD_OK;
}

void
skald__service_help(const struct skald_service *svc)
{
	printf("usage: %s [--config FILE] [--set section.key=value]...", svc->name);
	for (unsigned i = 0; i < svc->asked_count; i++)
		printf(" [%s VALUE]", svc->asked[i]);
	printf("\n\nConfiguration: FILE, else $SKALD_CONFIG, ./skald.conf, "
	       "/etc/skald/skald.conf;\nSKALD_<SECTION>_<KEY> and --set beat it. "
	       "`skald config sample` prints all of it.\n");
}

/* --- the end --------------------------------------------------------------------------------------- */

void
skald__service_free(struct skald_service *svc)
{
	if (!svc)
		return;
	skald_config_destroy(svc->config);
	if (svc->has_wake)
		skald_wake_close(&svc->wake);
	free(svc->topic_list);
	free(svc);
}

/* 2: what the caller wrote is wrong; 1: everything else. */
static int
status_of(const struct skald_err *err)
{
	return strcmp(err->origin, "usage") == 0 || strcmp(err->origin, "config") == 0
		       ? 2
		       : 1;
}

int
skald_service_fail(struct skald_service *svc, struct skald_err *err)
{
	if (svc && svc->wants_help) {
		skald__service_help(svc);
		skald__service_free(svc);
		return 0;
	}
	skald_log_err(SKALD_LOG_ERROR, err, "could not start");
	skald__service_free(svc);
	return status_of(err);
}

int
skald_service_run(struct skald_service *svc)
{
	struct skald_err err = SKALD_ERR_INIT;
	bool is_stuck = false;
	enum skald_rc rc;
	int status = 0;

	if (svc->wants_help) {
		skald__service_help(svc);
		skald__service_free(svc);
		return 0;
	}
	rc = skald__service_check(svc, &err);
	if (rc)
		return skald_service_fail(svc, &err);
	rc = skald__service_work(svc, &is_stuck, &err);
	if (rc) {
		skald_log_err(SKALD_LOG_ERROR, &err, "stopped");
		status = status_of(&err);
	}
	if (is_stuck) /* threads still use it; the process ends now */
		return 1;
	skald__service_free(svc);
	return status;
}
