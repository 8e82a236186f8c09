/*
 * main_skald.c - the operator's tool: its commands, and the way through it.
 */
#include "cli/own.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"

#define WIDTH_DEFAULT 80
#define WIDTH_MIN     60
#define WIDTH_MAX     200

/* Lists of flags; a command has some of them. */
static const struct skald__flag *const status_lists[] = { skald__status_flags, NULL };
static const struct skald__flag *const migrate_lists[] = { skald__migrate_flags, NULL };
static const struct skald__flag *const grants_lists[] = { skald__grants_flags, NULL };
static const struct skald__flag *const outbox_lists[] = { skald__outbox_flags,
	skald__limit_flags, NULL };
static const struct skald__flag *const tail_lists[] = { skald__outbox_flags,
	skald__tail_flags, NULL };
static const struct skald__flag *const parked_lists[] = { skald__parked_flags,
	skald__limit_flags, NULL };
static const struct skald__flag *const parked_act_lists[] = { skald__parked_flags,
	skald__guard_flags, NULL };
static const struct skald__flag *const epoch_lists[] = { skald__epoch_flags, NULL };
static const struct skald__flag *const consumer_lists[] = { skald__consumer_flags, NULL };
static const struct skald__flag *const lane_lists[] = { skald__consumer_flags,
	skald__limit_flags, NULL };
static const struct skald__flag *const dlq_lists[] = { skald__select_flags,
	skald__limit_flags, NULL };
static const struct skald__flag *const cat_lists[] = { skald__cat_flags, NULL };
static const struct skald__flag *const replay_lists[] = { skald__replay_flags, NULL };
static const struct skald__flag *const saga_lists[] = { skald__saga_select_flags,
	skald__limit_flags, NULL };
static const struct skald__flag *const saga_start_lists[] = { skald__saga_start_flags,
	NULL };
static const struct skald__flag *const saga_deploy_lists[] = { skald__saga_deploy_flags,
	NULL };

/* clang-format off */
const struct skald__command skald__commands[] = {
	{ "status", NULL, NULL, 0, 0,
		"relays, consumers, sagas and dead letters on one screen",
		"Shows every database of the configuration, or the one of --source. What needs "
		"somebody stands at the end, with the command that goes on from there.\n\n"
		"Exit status 3 when some of several databases could not be reached, 6 when none "
		"could.",
		status_lists, skald__cmd_status },
	{ "doctor", NULL, NULL, 0, 0,
		"every requirement checked: ok, warn or fail, each with its fix",
		"Looks at the configuration, the databases, the rights of this session, Kafka and "
		"the libraries. Changes nothing. Exit status 1 when a check fails; a warning is "
		"no failure.",
		NULL, skald__cmd_doctor },
	{ "db", "migrate", NULL, 0, 0,
		"install or upgrade the schema",
		"In [database] and in each [source.NAME], or the one of --source. One transaction "
		"a database, forward only; safe to run twice and from two places at once. Migrate "
		"first, then restart the daemons one by one.",
		migrate_lists, skald__cmd_db_migrate },
	{ "db", "status", NULL, 0, 0,
		"version of the schema in each database",
		"Exit status 1 when one of them is missing or older than this program.",
		NULL, skald__cmd_db_status },
	{ "db", "grants", "[ROLE]", 0, 1,
		"print the GRANT statements for the role of a service",
		"Changes nothing: read what is printed, then pipe it into psql. Members of a role "
		"have its rights in every database of the cluster that they can connect to.",
		grants_lists, skald__cmd_db_grants },
	{ "db", "adopt", NULL, 0, 0,
		"make a copied or moved database an installation of its own",
		"For a copy, a dump restored elsewhere, or a change to another Kafka: records "
		"daemon.installation and the Kafka cluster's id, and begins a new stream and epoch "
		"of the relay. What is not known to be published is published, marked "
		"ce_recovered. Stop skaldd first (else exit status 5). Needs --reason.\n\n"
		"Of the two databases that now exist, only one may go on with the sagas that are "
		"open in both.",
		NULL, skald__cmd_db_adopt },
	{ "outbox", "ls", NULL, 0, 0,
		"messages in the outbox, newest first",
		"Messages stay for the retention after they are published, so this lists both. "
		"Never shows data.",
		outbox_lists, skald__cmd_outbox_ls },
	{ "outbox", "parked", NULL, 0, 0,
		"keys that wait because the head of theirs could not be published",
		"The head was refused for good: too large for its topic, no such topic, not "
		"allowed, invalid. What follows for the same key waits behind it, in order; every "
		"other key flows. The relay tries again by itself, less and less often.",
		parked_lists, skald__cmd_outbox_parked },
	{ "outbox", "retry", NULL, 0, 0,
		"let parked keys out now, in order",
		"After the cause was repaired. What is refused again is parked again.",
		parked_act_lists, skald__cmd_outbox_retry },
	{ "outbox", "skip", NULL, 0, 0,
		"drop the head of parked keys, and let the others out",
		"That message will never be published. The audit keeps what it was, not its data. "
		"Needs --reason.",
		parked_act_lists, skald__cmd_outbox_skip },
	{ "outbox", "new-epoch", NULL, 0, 0,
		"begin a new epoch of the relay's positions",
		"Positions of a new epoch are above all older ones, whatever this server counts "
		"by. Needed by hand only when it was changed in a way that the relay cannot see.",
		epoch_lists, skald__cmd_outbox_new_epoch },
	{ "outbox", "tail", NULL, 0, 0,
		"the newest messages, then those that follow",
		"With --follow it goes on until it is interrupted. Messages appear when their "
		"transaction commits, in whatever order they do; with --published when the broker "
		"has acknowledged them.",
		tail_lists, skald__cmd_outbox_tail },
	{ "consumer", "ls", NULL, 0, 0,
		"consumer groups, with their lag and stopped partitions", NULL,
		consumer_lists, skald__cmd_consumer_ls },
	{ "consumer", "lanes", NULL, 0, 0,
		"how far each lane of each partition is, and who owns it", NULL,
		lane_lists, skald__cmd_consumer_lanes },
	{ "dlq", "ls", NULL, 0, 0,
		"dead letters, newest first",
		"Open ones; with --all also those that are resolved, archived, superseded or "
		"expired. The short ids are enough for the other verbs.",
		dlq_lists, skald__cmd_dlq_ls },
	{ "dlq", "show", "ID", 1, 1,
		"one dead letter: what, where, why, and what next",
		"ID is the id or its beginning. Headers and value need the right to read payload "
		"(skald_operator).",
		NULL, skald__cmd_dlq_show },
	{ "dlq", "cat", "ID", 1, 1,
		"its raw bytes on standard output",
		"Exactly the bytes Kafka had, without a newline at the end. Exit status 1 when "
		"there are none because the record's key or value is null.",
		cat_lists, skald__cmd_dlq_cat },
	{ "dlq", "replay", "ID", 1, 1,
		"give it once more to the one group that failed",
		"The group's own consumer takes it in the message's own lane: run twice, or from "
		"two terminals at once, it has one effect, and the loser is told so. Nothing goes "
		"back to the topic.\n\n"
		"With --wait the exit status is 0 when it was applied, 1 when it failed again, 4 "
		"when the time is up.",
		replay_lists, skald__cmd_dlq_replay },
	{ "saga", "validate", "FILE", 1, 1,
		"check a definition: every fault at once",
		"Each fault with its JSON pointer, the rule, and a hint. Exit status 2 when there "
		"is one. With --json one object a line. FILE - is standard input.",
		NULL, skald__cmd_saga_validate },
	{ "saga", "deploy", "FILE", 1, 1,
		"store a version of a definition and make it current",
		"The same version again is nothing, or refused (exit status 5) when its content "
		"differs. Sagas that run stay on their version.",
		saga_deploy_lists, skald__cmd_saga_deploy },
	{ "saga", "defs", NULL, 0, 0,
		"definitions, their versions and open sagas", NULL, NULL,
		skald__cmd_saga_defs },
	{ "saga", "use", "NAME VERSION", 2, 2,
		"make a version the current one: the rollback", NULL, NULL,
		skald__cmd_saga_use },
	{ "saga", "retire", "NAME [VERSION]", 1, 2,
		"refuse new starts of a definition, or of one version",
		"Sagas that run on it go on.", NULL, skald__cmd_saga_retire },
	{ "saga", "start", "NAME", 1, 1,
		"start a saga, or find the one that runs",
		"The same name, key and input again returns the same saga; another input is "
		"refused (exit status 5). --again failed starts a new run when the last one did "
		"not complete.\n\n"
		"With --wait the exit status is 0 when it completed, 1 when it finished otherwise, "
		"3 when it is stuck, 4 when the time is up.",
		saga_start_lists, skald__cmd_saga_start },
	{ "saga", "ls", NULL, 0, 0,
		"sagas, newest first: open ones, with --all finished ones too", NULL,
		saga_lists, skald__cmd_saga_ls },
	{ "saga", "show", "ID", 1, 1,
		"one saga: where it is, each step, why",
		"ID is a uuid, its beginning, or NAME/KEY (the newest run).",
		NULL, skald__cmd_saga_show },
	{ "saga", "history", "ID", 1, 1,
		"what happened to it, event by event", NULL, NULL, skald__cmd_saga_history },
	{ "trace", NULL, "CORRELATION_ID", 1, 1,
		"one timeline: messages, sagas, dead letters, replays",
		"In every database of the configuration, in the order of time.",
		NULL, skald__cmd_trace },
	{ "config", "sample", NULL, 0, 0,
		"print a documented skald.conf", NULL, NULL, skald__cmd_config_sample },
	{ "config", "show", NULL, 0, 0,
		"print what is in force, and where each value comes from", NULL, NULL,
		skald__cmd_config_show },
	{ "version", NULL, NULL, 0, 0,
		"versions of skald, its libraries and the schema", NULL, NULL,
		skald__cmd_version },
};
/* clang-format on */
const unsigned skald__command_count =
	sizeof(skald__commands) / sizeof(skald__commands[0]);

static unsigned
terminal_width(void)
{
	const char *columns = getenv("COLUMNS");
	struct winsize size;
	long long value = WIDTH_DEFAULT;

	if (isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) &&
		size.ws_col)
		value = size.ws_col;
	else if (columns)
		(void)skald_slice_int64(skald_slice_text(columns), &value);
	if (value < WIDTH_MIN)
		value = WIDTH_MIN;
	return value > WIDTH_MAX ? WIDTH_MAX : (unsigned)value;
}

static void
look_around(struct skald__cli *cli)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");

	cli->is_color = isatty(STDOUT_FILENO) && !(no_color && no_color[0]) &&
			!(term && strcmp(term, "dumb") == 0);
	cli->width = terminal_width();
}

static enum skald__exit
run(struct skald__cli *cli)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald__exit status;

	if (cli->is_quiet && !freopen("/dev/null", "w", stdout))
		return skald__fail(
			cli, SKALD_EXIT_NO, "output", NULL, NULL, "could not be quiet");
	if (cli->command->run != skald__cmd_config_sample && /* helps with a broken one */
		skald_config_load(&cli->config, &cli->config_args, &err))
		return skald__fail(cli, SKALD_EXIT_USAGE, "config", NULL,
			"skald config sample prints every key", "%s", err.text);
	status = cli->command->run(cli);
	skald_config_destroy(cli->config);
	return status;
}

int
main(int argc, char **argv)
{
	struct skald__cli cli = { .command = NULL };
	enum skald__exit status;

	skald_log_init("skald", SKALD_LOG_WARN, SKALD_LOG_TEXT);
	look_around(&cli);
	status = skald__args_parse(&cli, argc, argv);
	if (!status && cli.is_help && (cli.command || !cli.arg_count)) {
		skald__help(&cli, stdout);
	} else if (!status && !cli.command && !cli.arg_count) {
		skald__help(&cli, stderr);
		status = SKALD_EXIT_USAGE;
	} else if (!status && cli.command) {
		status = run(&cli);
	}
	skald__args_done(&cli);
	if (fflush(stdout) || ferror(stdout)) {
		fputs("skald: could not write the output\n", stderr);
		status = status ? status : SKALD_EXIT_NO;
	}
	return (int)status;
}
