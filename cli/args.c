/*
 * args.c - the command line: nouns, verbs and flags in any order.
 */
#include "cli/own.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define WORDS_MAX 256 /* candidates of "did you mean" */

static const struct skald__flag global_flags[] = {
	{ "--config", "FILE",
		"configuration; else $SKALD_CONFIG, ./skald.conf, "
		"/etc/skald/skald.conf" },
	{ "--set", "KEY=VALUE", "one key of it; may be repeated" },
	{ "--database", "URL", "the same as --set database.url=URL" },
	{ "--brokers", "LIST", "the same as --set kafka.bootstrap.servers=LIST" },
	{ "--source", "NAME", "the database of [source.NAME] instead of [database]" },
	{ "--json", NULL, "one JSON object a line; errors too, on stderr" },
	{ "--no-color", NULL, "no colours (they come on a terminal only)" },
	{ "--quiet", NULL, "only errors" },
	{ "--yes", NULL, "do not ask" },
	{ "--reason", "TEXT", "why, for the audit" },
	{ "--actor", "NAME", "who, for the audit; else your user name" },
	{ "--help", NULL, "this text" },
	{ NULL, NULL, NULL },
};

/* --- looking up ------------------------------------------------------------------------- */

static const struct skald__flag *
find_in(const struct skald__flag *flags, const char *name)
{
	for (; flags->name; flags++)
		if (strcmp(flags->name, name) == 0)
			return flags;
	return NULL;
}

static const struct skald__flag *
find_of_command(const struct skald__command *command, const char *name)
{
	const struct skald__flag *flag = NULL;

	for (unsigned i = 0; command->flags && command->flags[i] && !flag; i++)
		flag = find_in(command->flags[i], name);
	return flag;
}

/* The command that the words so far name; NULL while they do not. */
static const struct skald__command *
command_so_far(const struct skald__cli *cli)
{
	for (unsigned i = 0; i < skald__command_count; i++) {
		const struct skald__command *each = &skald__commands[i];

		if (cli->arg_count >= (each->verb ? 2 : 1) &&
			strcmp(each->noun, cli->args[0]) == 0 &&
			(!each->verb || strcmp(each->verb, cli->args[1]) == 0))
			return each;
	}
	return NULL;
}

/*
 * The command's own (`dlq cat --key` is a switch, `dlq ls --key K` is not), else
 * of any command: the verb may still come.
 */
static const struct skald__flag *
find_flag(const struct skald__cli *cli, const char *name)
{
	const struct skald__command *command = command_so_far(cli);
	const struct skald__flag *flag = find_in(global_flags, name);

	if (!flag && command)
		flag = find_of_command(command, name);

	for (unsigned i = 0; i < skald__command_count && !flag; i++)
		flag = find_of_command(&skald__commands[i], name);
	return flag;
}

static void
add_words(const struct skald__flag *flags, const char **words, unsigned *count)
{
	for (; flags->name && *count < WORDS_MAX; flags++)
		words[(*count)++] = flags->name;
}

/* command NULL: not known yet, then the flags of all. */
static enum skald__exit
unknown_flag(
	struct skald__cli *cli, const struct skald__command *command, const char *name)
{
	const char *words[WORDS_MAX];
	unsigned count = 0;
	const char *near;
	char hint[160];

	add_words(global_flags, words, &count);
	for (unsigned i = 0; i < skald__command_count; i++) {
		const struct skald__command *each = &skald__commands[i];

		if (command && each != command)
			continue;
		for (unsigned k = 0; each->flags && each->flags[k]; k++)
			add_words(each->flags[k], words, &count);
	}
	near = skald_nearest(name, words, count);
	if (near)
		(void)snprintf(hint, sizeof(hint), "did you mean %s?", near);
	else
		(void)snprintf(hint, sizeof(hint), "skald%s%s%s%s --help lists the flags",
			command ? " " : "", command ? command->noun : "",
			command && command->verb ? " " : "",
			command && command->verb ? command->verb : "");
	return skald__fail(
		cli, SKALD_EXIT_USAGE, "usage", name, hint, "%s: no such flag", name);
}

static enum skald__exit
unknown_word(struct skald__cli *cli, const char *noun, const char *verb)
{
	const char *words[WORDS_MAX];
	unsigned count = 0;
	const char *near;
	char hint[320];
	size_t at = 0;

	for (unsigned i = 0; i < skald__command_count; i++) {
		const struct skald__command *each = &skald__commands[i];
		const char *word = verb ? each->verb : each->noun;

		if (verb && strcmp(each->noun, noun) != 0)
			continue;
		if (word && (!count || strcmp(words[count - 1], word) != 0))
			words[count++] = word;
	}
	near = skald_nearest(verb ? verb : noun, words, count);
	if (near) {
		(void)snprintf(hint, sizeof(hint), "did you mean `skald %s%s%s`?",
			verb ? noun : near, verb ? " " : "", verb ? near : "");
	} else {
		at = (size_t)snprintf(hint, sizeof(hint), "there is");
		for (unsigned i = 0; i < count && at < sizeof(hint); i++)
			at += (size_t)snprintf(hint + at, sizeof(hint) - at, "%s %s",
				i ? "," : "", words[i]);
	}
	return skald__fail(cli, SKALD_EXIT_USAGE, "usage", NULL, hint,
		"%s%s%s: no such command", noun, verb ? " " : "", verb ? verb : "");
}

/* --- parsing ------------------------------------------------------------------------------ */

static enum skald__exit
give(struct skald__cli *cli, const char *name, const char *value)
{
	if (cli->given_count == sizeof(cli->given) / sizeof(cli->given[0]))
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", name, NULL,
			"%s: too many flags", name);
	cli->given[cli->given_count].name = name;
	cli->given[cli->given_count].value = value;
	cli->given_count++;
	return SKALD_EXIT_DONE;
}

static enum skald__exit
add_set(struct skald__cli *cli, const char *set)
{
	if (cli->config_args.set_count == SKALD__SETS_MAX)
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", "--set", NULL,
			"--set: at most %d of them", SKALD__SETS_MAX);
	cli->sets[cli->config_args.set_count++] = set;
	return SKALD_EXIT_DONE;
}

/* --database and --brokers are other names of two keys. */
static enum skald__exit
add_alias(struct skald__cli *cli, unsigned index, const char *key, const char *value)
{
	free(cli->made_sets[index]);
	if (asprintf(&cli->made_sets[index], "%s=%s", key, value) < 0) {
		cli->made_sets[index] = NULL;
		return skald__fail(
			cli, SKALD_EXIT_NO, "memory", NULL, NULL, "out of memory");
	}
	return add_set(cli, cli->made_sets[index]);
}

static enum skald__exit
take_global(struct skald__cli *cli, const char *name, const char *value)
{
	if (strcmp(name, "--config") == 0)
		cli->config_args.file = value;
	else if (strcmp(name, "--set") == 0)
		return add_set(cli, value);
	else if (strcmp(name, "--database") == 0)
		return add_alias(cli, 0, "database.url", value);
	else if (strcmp(name, "--brokers") == 0)
		return add_alias(cli, 1, "kafka.bootstrap.servers", value);
	else if (strcmp(name, "--json") == 0)
		cli->is_json = true;
	else if (strcmp(name, "--no-color") == 0)
		cli->is_color = false;
	else if (strcmp(name, "--quiet") == 0)
		cli->is_quiet = true;
	else if (strcmp(name, "--help") == 0)
		cli->is_help = true;
	return SKALD_EXIT_DONE;
}

/* One flag at argv[*at], its value behind '=' or in the next argument. */
static enum skald__exit
take_flag(struct skald__cli *cli, int argc, char **argv, int *at)
{
	const char *equals = strchr(argv[*at], '=');
	const char *value = equals ? equals + 1 : NULL;
	const struct skald__flag *flag;
	enum skald__exit status;
	char name[64];

	if (!skald_slice_copy(
		    skald_slice_make(argv[*at],
			    equals ? (size_t)(equals - argv[*at]) : strlen(argv[*at])),
		    name, sizeof(name)))
		return unknown_flag(cli, NULL, argv[*at]);
	flag = find_flag(cli, strcmp(name, "-h") == 0 ? "--help" : name);
	if (!flag)
		return unknown_flag(cli, command_so_far(cli), name);
	if (flag->value && !value) {
		if (*at + 1 >= argc)
			return skald__fail(cli, SKALD_EXIT_USAGE, "usage", flag->name,
				NULL, "%s: needs a value, %s", flag->name, flag->value);
		value = argv[++*at];
	} else if (!flag->value && value) {
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", flag->name, NULL,
			"%s: takes no value", flag->name);
	}
	status = give(cli, flag->name, value);
	return status ? status : take_global(cli, flag->name, value);
}

/* The command the words name; the words left over are its arguments. */
static enum skald__exit
find_command(struct skald__cli *cli)
{
	bool has_noun = false;
	unsigned used;

	cli->command = command_so_far(cli);
	if (cli->command) {
		used = cli->command->verb ? 2 : 1;
		cli->arg_count -= used;
		memmove(cli->args, cli->args + used,
			cli->arg_count * sizeof(cli->args[0]));
		return SKALD_EXIT_DONE;
	}
	for (unsigned i = 0; i < skald__command_count; i++)
		has_noun |= strcmp(skald__commands[i].noun, cli->args[0]) == 0;
	if (!has_noun)
		return unknown_word(cli, cli->args[0], NULL);
	if (cli->arg_count >= 2)
		return unknown_word(cli, cli->args[0], cli->args[1]);
	if (cli->is_help) {
		skald__help_noun(cli->args[0], stdout);
		return SKALD_EXIT_DONE;
	}
	if (cli->is_json)
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", NULL, NULL,
			"%s: needs a verb", cli->args[0]);
	skald__help_noun(cli->args[0], stderr);
	return SKALD_EXIT_USAGE;
}

/* Flags and arguments that this command takes. */
static enum skald__exit
check_command(struct skald__cli *cli)
{
	const struct skald__command *command = cli->command;
	char name[64];

	(void)snprintf(name, sizeof(name), "%s%s%s", command->noun,
		command->verb ? " " : "", command->verb ? command->verb : "");
	for (unsigned i = 0; i < cli->given_count; i++)
		if (!find_in(global_flags, cli->given[i].name) &&
			!find_of_command(command, cli->given[i].name))
			return unknown_flag(cli, command, cli->given[i].name);
	if (cli->is_help)
		return SKALD_EXIT_DONE;
	if (cli->arg_count < command->args_min)
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", command->args, NULL,
			"%s: needs %s", name, command->args);
	if (cli->arg_count > command->args_max)
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", NULL, NULL,
			"%s: '%s' is one argument too many", name,
			cli->args[command->args_max]);
	return SKALD_EXIT_DONE;
}

enum skald__exit
skald__args_parse(struct skald__cli *cli, int argc, char **argv)
{
	enum skald__exit status = SKALD_EXIT_DONE;
	bool is_words = false;

	cli->config_args.sets = cli->sets;
	/* First of all: errors of the flags themselves are wanted as JSON too. */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--json") == 0)
			cli->is_json = true;
	for (int at = 1; at < argc && !status; at++) {
		if (!is_words && strcmp(argv[at], "--") == 0)
			is_words = true;
		else if (!is_words && argv[at][0] == '-' && argv[at][1])
			status = take_flag(cli, argc, argv, &at);
		else if (cli->arg_count == SKALD__ARGS_MAX)
			status = skald__fail(cli, SKALD_EXIT_USAGE, "usage", NULL, NULL,
				"'%s': too many arguments", argv[at]);
		else
			cli->args[cli->arg_count++] = argv[at];
	}
	if (status || !cli->arg_count)
		return status;
	status = find_command(cli);
	return status || !cli->command ? status : check_command(cli);
}

void
skald__args_done(struct skald__cli *cli)
{
	for (unsigned i = 0; i < sizeof(cli->made_sets) / sizeof(cli->made_sets[0]); i++)
		free(cli->made_sets[i]);
}

/* --- asking ---------------------------------------------------------------------------------- */

const char *
skald__flag_value(const struct skald__cli *cli, const char *name)
{
	const char *value = NULL;

	for (unsigned i = 0; i < cli->given_count; i++)
		if (strcmp(cli->given[i].name, name) == 0)
			value = cli->given[i].value;
	return value;
}

bool
skald__flag_is_given(const struct skald__cli *cli, const char *name)
{
	for (unsigned i = 0; i < cli->given_count; i++)
		if (strcmp(cli->given[i].name, name) == 0)
			return true;
	return false;
}

enum skald__exit
skald__flag_int(struct skald__cli *cli, const char *name, int64_t min, int64_t max,
	int64_t *value)
{
	const char *text = skald__flag_value(cli, name);
	long long parsed;

	if (!text)
		return SKALD_EXIT_DONE;
	if (!skald_slice_int64(skald_slice_text(text), &parsed) || parsed < min ||
		parsed > max)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", name, NULL,
			"%s: '%s' is no whole number from %lld to %lld", name, text,
			(long long)min, (long long)max);
	*value = parsed;
	return SKALD_EXIT_DONE;
}

enum skald__exit
skald__flag_ms(struct skald__cli *cli, const char *name, int64_t *ms)
{
	const char *text = skald__flag_value(cli, name);

	if (text && !skald_duration_parse(skald_slice_text(text), ms))
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", name, NULL,
			"%s: '%s' is no duration like 500ms, 30s, 5m, 2h, 7d", name,
			text);
	return SKALD_EXIT_DONE;
}

enum skald__exit
skald__flag_time(struct skald__cli *cli, const char *name, char *dst, size_t dst_bytes)
{
	const char *text = skald__flag_value(cli, name);
	char stamp[SKALD_TIME_TEXT_BYTES];
	int64_t at_us;
	int64_t ms;

	dst[0] = '\0';
	if (!text)
		return SKALD_EXIT_DONE;
	if (skald_duration_parse(skald_slice_text(text), &ms))
		at_us = skald_wall_us() - ms * 1000;
	else if (!skald_time_parse(skald_slice_text(text), &at_us))
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", name, NULL,
			"%s: '%s' is neither an age like 2h nor a time like "
			"2026-01-31T12:00:00Z",
			name, text);
	skald_time_format(at_us, stamp);
	(void)snprintf(dst, dst_bytes, "%s", stamp);
	return SKALD_EXIT_DONE;
}

const struct skald__flag *
skald__global_flags(void)
{
	return global_flags;
}
