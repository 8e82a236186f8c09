/*
 * cmd_saga_def.c - `skald saga validate|deploy|defs|use|retire`: definitions.
 */
#include "cli/own.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "saga/saga.h"

#define SAID_BYTES_MAX (16 * 1024 * 1024) /* of all faults, and of the call */

const struct skald__flag skald__saga_deploy_flags[] = {
	{ "--no-use", NULL, "store it only: another version stays the current one" },
	{ NULL, NULL, NULL },
};

static const struct skald__column def_columns[] = {
	{ "name", "NAME", SKALD_KIND_TEXT, 10 },
	{ "version", "VERSION", SKALD_KIND_NUMBER, 0 },
	{ "current", "CURRENT", SKALD_KIND_RAW, 0 },
	{ "retired", "RETIRED", SKALD_KIND_RAW, 0 },
	{ "open", "OPEN SAGAS", SKALD_KIND_NUMBER, 0 },
	{ "hash", "HASH", SKALD_KIND_TEXT, 8 },
};

struct faults {
	const struct skald__cli *cli;
	struct skald_buf said;
	unsigned count;
};

static void
add_fault(const struct skald_saga_fault *fault, void *ctx)
{
	struct faults *faults = ctx;
	struct skald_buf *said = &faults->said;

	faults->count++;
	if (faults->cli->is_json) {
		skald_buf_add_text(said, "{");
		skald_json_add_member(said, "pointer", skald_slice_text(fault->pointer));
		skald_json_add_member(said, "rule", skald_slice_text(fault->rule));
		skald_json_add_member(said, "hint", skald_slice_text(fault->hint));
		skald_buf_add_text(said, "}\n");
		return;
	}
	skald_buf_addf(said, "%s\n    %s\n",
		*fault->pointer ? fault->pointer : "(the whole)", fault->rule);
	if (*fault->hint)
		skald_buf_addf(said, "    %s\n", fault->hint);
}

static enum skald__exit
read_file(struct skald__cli *cli, struct skald_buf *text)
{
	const char *path = cli->args[0];
	FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
	char part[4096];
	size_t n;

	if (!file)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "FILE", NULL,
			"%s: could not be read", path);
	while ((n = fread(part, 1, sizeof(part), file)) > 0)
		skald_buf_add(text, part, n);
	if (file != stdin)
		(void)fclose(file);
	return SKALD_EXIT_DONE;
}

/* All faults on stdout, status 2; else the definition. */
static enum skald__exit
load(struct skald__cli *cli, struct skald_saga_def **def)
{
	struct faults faults = { .cli = cli };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_buf text;
	enum skald__exit status;
	enum skald_rc rc;

	skald_buf_init(&text, SKALD_SAGA_DEF_BYTES_MAX + 1);
	skald_buf_init(&faults.said, SAID_BYTES_MAX);
	status = read_file(cli, &text);
	if (status)
		goto out;
	rc = skald_saga_def_create(def, skald_buf_slice(&text), add_fault, &faults, &err);
	if (!rc)
		goto out;
	status = faults.count ? SKALD_EXIT_USAGE : skald__fail_err(cli, rc, &err, NULL);
	skald__put(skald_buf_slice(&faults.said));
	if (faults.count && !cli->is_json)
		printf("%s: %s%u %s%s\n", cli->args[0],
			skald__paint(cli, SKALD_PAINT_BAD), faults.count,
			faults.count == 1 ? "fault" : "faults", skald__unpaint(cli));
out:
	skald_buf_done(&faults.said);
	skald_buf_done(&text);
	return status;
}

enum skald__exit
skald__cmd_saga_validate(struct skald__cli *cli)
{
	struct skald_saga_def *def = NULL;
	enum skald__exit status = load(cli, &def);

	if (!status && !cli->is_json && !cli->is_quiet)
		printf("%s: %sok%s, definition %s version %d, %u steps\n", cli->args[0],
			skald__paint(cli, SKALD_PAINT_GOOD), skald__unpaint(cli),
			skald_saga_def_name(def), skald_saga_def_version(def),
			skald_saga_def_step_count(def));
	skald_saga_def_destroy(def);
	return status;
}

/* What operator_act('saga.deploy') takes. */
static void
add_args(const struct skald_saga_def *def, bool is_used, struct skald_buf *args)
{
	skald_buf_add_text(args, "{");
	skald_json_add_member_int(args, "version", skald_saga_def_version(def));
	skald_json_add_member(args, "hash", skald_slice_text(skald_saga_def_hash(def)));
	skald_json_add_member(args, "body", skald_saga_def_text(def));
	skald_json_add_name(args, "use");
	skald_buf_add_text(args, is_used ? "true" : "false");
	skald_json_add_name(args, "steps");
	for (unsigned i = 0; i < skald_saga_def_step_count(def); i++) {
		skald_buf_add_text(args, i ? "," : "[");
		skald_json_add_string(
			args, skald_slice_text(skald_saga_def_step_name(def, i)));
	}
	skald_buf_add_text(args, "]");
	skald_json_add_name(args, "kinds");
	for (unsigned i = 0; i < skald_saga_def_step_count(def); i++) {
		skald_buf_add_text(args, i ? "," : "[");
		skald_json_add_string(
			args, skald_slice_text(skald_saga_def_step_kind(def, i)));
	}
	skald_buf_add_text(args, "]}");
}

/* One verb of operator_act; the answer's JSON in answer. */
static enum skald__exit
act(struct skald__cli *cli, const char *action, const char *target, const char *args,
	struct skald_buf *answer)
{
	const struct skald_param params[] = { skald_param_text(action),
		skald_param_text(target), skald_param_text(skald__actor(cli)),
		skald_param_text(skald__flag_value(cli, "--reason")),
		skald_param_text(args) };
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	enum skald__exit status;

	status = skald__open(cli, &sql);
	if (!status)
		status = skald__query(cli, sql,
			"SELECT skald.operator_act(action => $1, target => $2,"
			" actor => $3, reason => $4, args => $5::jsonb)::text",
			params, 5, &rows);
	if (!status)
		skald_buf_add_slice(answer, skald_rows_get(rows, 0, 0));
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}

static void
say(const struct skald__cli *cli, const struct skald_buf *answer, const char *text)
{
	if (cli->is_json)
		printf("%s\n", answer->data);
	else if (!cli->is_quiet)
		printf("%s\n", text);
}

enum skald__exit
skald__cmd_saga_deploy(struct skald__cli *cli)
{
	struct skald_saga_def *def = NULL;
	struct skald_buf args, answer;
	enum skald__exit status;
	char text[160];

	skald_buf_init(&args, SAID_BYTES_MAX);
	skald_buf_init(&answer, SAID_BYTES_MAX);
	status = load(cli, &def);
	if (status)
		goto out;
	add_args(def, !skald__flag_is_given(cli, "--no-use"), &args);
	status = act(cli, "saga.deploy", skald_saga_def_name(def), args.data, &answer);
	if (status)
		goto out;
	(void)snprintf(text, sizeof(text), "definition %s version %d: %s",
		skald_saga_def_name(def), skald_saga_def_version(def),
		strstr(answer.data, "\"unchanged\"") ? "deployed before, the same"
		: skald__flag_is_given(cli, "--no-use")
			? "deployed"
			: "deployed, now the current one");
	say(cli, &answer, text);
out:
	skald_saga_def_destroy(def);
	skald_buf_done(&answer);
	skald_buf_done(&args);
	return status;
}

enum skald__exit
skald__cmd_saga_defs(struct skald__cli *cli)
{
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	enum skald__exit status;

	status = skald__open(cli, &sql);
	if (!status)
		status = skald__query(cli, sql,
			"SELECT name, version::text, current::text, retired::text,"
			" open::text, hash FROM skald.saga_definitions"
			" ORDER BY name, saga_definitions.version DESC",
			NULL, 0, &rows);
	if (!status && !skald_rows_count(rows) && !cli->is_json)
		printf("no definitions\n");
	else if (!status)
		skald__rows_print(cli, def_columns,
			sizeof(def_columns) / sizeof(def_columns[0]), rows, 0);
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}

/* "use NAME VERSION" and "retire NAME [VERSION]". */
static enum skald__exit
act_on_version(struct skald__cli *cli, const char *action, const char *done)
{
	long long version = 0;
	char args[64] = "{}", text[160];
	struct skald_buf answer;
	enum skald__exit status;

	if (cli->arg_count > 1 &&
		(!skald_slice_int64(skald_slice_text(cli->args[1]), &version) ||
			version < 1 || version > INT32_MAX))
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "VERSION", NULL,
			"VERSION: '%s' is no whole number from 1", cli->args[1]);
	if (cli->arg_count > 1)
		(void)snprintf(args, sizeof(args), "{\"version\":%lld}", version);
	skald_buf_init(&answer, SAID_BYTES_MAX);
	status = act(cli, action, cli->args[0], args, &answer);
	if (!status) {
		(void)snprintf(text, sizeof(text), "definition %s%s%s: %s", cli->args[0],
			cli->arg_count > 1 ? " version " : "",
			cli->arg_count > 1 ? cli->args[1] : "", done);
		say(cli, &answer, text);
	}
	skald_buf_done(&answer);
	return status;
}

enum skald__exit
skald__cmd_saga_use(struct skald__cli *cli)
{
	return act_on_version(cli, "saga.use", "the current one");
}

enum skald__exit
skald__cmd_saga_retire(struct skald__cli *cli)
{
	return act_on_version(cli, "saga.retire", "retired, new starts are refused");
}
