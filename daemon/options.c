/*
 * options.c - the command line of skaldd.
 */
#include "daemon/own.h"

#include <stdio.h>
#include <string.h>

static const char *const flags[] = {
	"--config",
	"--set",
	"--roles",
	"--dev",
	"--print-config",
	"--list-failpoints",
	"--version",
	"--help",
};
#define FLAG_COUNT (sizeof(flags) / sizeof(flags[0]))

void
skald__options_help(FILE *out)
{
	fputs("usage: skaldd [flags]\n"
	      "\n"
	      "Carries messages from the outbox of one or more PostgreSQL databases to\n"
	      "Kafka, drives the sagas of [database], and tells how it fares over HTTP.\n"
	      "\n"
	      "  --config FILE       configuration; else $SKALD_CONFIG, ./skald.conf,\n"
	      "                      /etc/skald/skald.conf\n"
	      "  --set KEY=VALUE     one key, such as "
	      "database.url=postgresql:///orders;\n"
	      "                      beats environment and file; may be repeated\n"
	      "  --roles LIST        what runs here: relay, orchestrator, dev-broker;\n"
	      "                      without it daemon.roles\n"
	      "  --dev               adds the dev broker: Kafka's protocol in memory, "
	      "for\n"
	      "                      trying things out; its data live as long as this "
	      "process\n"
	      "  --print-config      what is in force and where it comes from\n"
	      "  --list-failpoints   where a test build can be killed\n"
	      "  --version, --help\n"
	      "\n"
	      "SIGTERM drains and leaves, a second one leaves at once; SIGHUP reloads "
	      "the\n"
	      "log settings and the relays' modes. See skaldd(8), skald.conf(5).\n",
		out);
}

/* "--flag value" and "--flag=value". */
static enum skald_rc
take_value(const char *flag, const char *inline_value, int argc, char **argv, int *at,
	const char **value, struct skald_err *err)
{
	if (inline_value) {
		*value = inline_value;
		return SKALD_OK;
	}
	if (*at + 1 >= argc)
		return skald_fail(
			err, SKALD_REJECT, "usage", "", "%s: needs a value", flag);
	*value = argv[++*at];
	return SKALD_OK;
}

static enum skald_rc
unknown_flag(const char *arg, struct skald_err *err)
{
	const char *near = skald_nearest(arg, flags, FLAG_COUNT);

	if (arg[0] != '-')
		return skald_fail(err, SKALD_REJECT, "usage", "",
			"%s: skaldd takes flags only%s", arg,
			near ? "" : "; the operator's tool is `skald`");
	if (near)
		return skald_fail(err, SKALD_REJECT, "usage", "",
			"%s: no such flag; did you mean %s?", arg, near);
	return skald_fail(
		err, SKALD_REJECT, "usage", "", "%s: no such flag; see --help", arg);
}

static enum skald_rc
add_set(struct skald__options *options, const char *set, struct skald_err *err)
{
	if (options->set_count == SKALD__SETS_MAX)
		return skald_fail(err, SKALD_REJECT, "usage", "",
			"--set: at most %d of them", SKALD__SETS_MAX);
	options->sets[options->set_count++] = set;
	return SKALD_OK;
}

enum skald_rc
skald__options_parse(
	struct skald__options *options, int argc, char **argv, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	*options = (struct skald__options){ .action = SKALD_ACTION_RUN };
	for (int at = 1; at < argc && !rc; at++) {
		const char *equals = strchr(argv[at], '=');
		const char *value = NULL;
		char flag[32];

		if (!skald_slice_copy(skald_slice_make(argv[at],
					      equals ? (size_t)(equals - argv[at])
						     : strlen(argv[at])),
			    flag, sizeof(flag)))
			return unknown_flag(argv[at], err);
		if (equals)
			equals++;
		if (strcmp(flag, "--config") == 0) {
			rc = take_value(flag, equals, argc, argv, &at,
				&options->config_file, err);
		} else if (strcmp(flag, "--set") == 0) {
			rc = take_value(flag, equals, argc, argv, &at, &value, err);
			if (!rc)
				rc = add_set(options, value, err);
		} else if (strcmp(flag, "--roles") == 0) {
			rc = take_value(
				flag, equals, argc, argv, &at, &options->roles, err);
		} else if (equals) {
			rc = unknown_flag(argv[at], err);
		} else if (strcmp(flag, "--dev") == 0) {
			options->is_dev = true;
		} else if (strcmp(flag, "--print-config") == 0) {
			options->action = SKALD_ACTION_PRINT_CONFIG;
		} else if (strcmp(flag, "--list-failpoints") == 0) {
			options->action = SKALD_ACTION_LIST_FAILPOINTS;
		} else if (strcmp(flag, "--version") == 0) {
			options->action = SKALD_ACTION_VERSION;
		} else if (strcmp(flag, "--help") == 0 || strcmp(flag, "-h") == 0) {
			options->action = SKALD_ACTION_HELP;
		} else {
			rc = unknown_flag(argv[at], err);
		}
	}
	return rc;
}

static enum skald_rc
add_role(struct skald_slice name, const char *where, unsigned *roles,
	struct skald_err *err)
{
	if (skald_slice_is_text(name, "relay"))
		*roles |= SKALD_ROLE_RELAY;
	else if (skald_slice_is_text(name, "dev-broker"))
		*roles |= SKALD_ROLE_DEV_BROKER;
	else if (skald_slice_is_text(name, "orchestrator"))
		*roles |= SKALD_ROLE_ORCHESTRATOR;
	else
		return skald_fail(err, SKALD_REJECT, "config", "",
			"%s: no role '%.*s'; roles are relay, orchestrator and "
			"dev-broker",
			where, (int)name.bytes, name.data);
	return SKALD_OK;
}

enum skald_rc
skald__roles_parse(
	const char *list, const char *where, unsigned *roles, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;
	unsigned found = 0;

	while (!rc && *list) {
		const char *end = strchr(list, ',');
		struct skald_slice name =
			skald_slice_make(list, end ? (size_t)(end - list) : strlen(list));

		list = end ? end + 1 : list + name.bytes;
		while (name.bytes && name.data[0] == ' ')
			name = skald_slice_make(name.data + 1, name.bytes - 1);
		while (name.bytes && name.data[name.bytes - 1] == ' ')
			name.bytes--;
		rc = add_role(name, where, &found, err);
	}
	if (!rc && !found)
		rc = skald_fail(err, SKALD_REJECT, "config", "",
			"%s: names no role; roles are relay, orchestrator and dev-broker",
			where);
	if (!rc)
		*roles = found;
	return rc;
}
