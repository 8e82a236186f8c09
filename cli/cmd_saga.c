/*
 * cmd_saga.c - `skald saga ls|show|history|start`: sagas as people see them.
 */
#include "cli/own.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/limits.h"

#define WAIT_DEFAULT_MS 30000
#define WAIT_LOOK_MS    50
#define INPUT_BYTES_MAX (1024 * 1024)

const struct skald__flag skald__saga_select_flags[] = {
	{ "--name", "NAME", "of this definition" },
	{ "--version", "N", "of this version of it" },
	{ "--key", "KEY", "with this business key" },
	{ "--run", "N", "this run of the key" },
	{ "--status", "STATUS", "running, compensating, stuck or finished" },
	{ "--step", "STEP", "that are at this step" },
	{ "--correlation", "ID", "of this correlation id" },
	{ "--since", "TIME", "started not before: an age like 2h, or RFC 3339" },
	{ "--until", "TIME", "started not after" },
	{ "--all", NULL, "finished ones as well" },
	{ NULL, NULL, NULL },
};
const struct skald__flag skald__saga_start_flags[] = {
	{ "--key", "KEY", "the business key: one open saga per name and key" },
	{ "--input", "JSON", "the input, or @FILE" },
	{ "--version", "N", "of the definition; else the current one" },
	{ "--again", "WHEN", "never (the default), failed or finished" },
	{ "--correlation", "ID", "its correlation id; else its own id" },
	{ "--wait", NULL, "until it is finished or stuck" },
	{ "--timeout", "TIME", "of --wait (30s)" },
	{ NULL, NULL, NULL },
};

/* clang-format off */
#define WHERE_AT \
	"(SELECT string_agg(x ->> 'name' || ' ' || (x ->> 'state'), ', ')" \
	" FROM jsonb_array_elements(s.steps) AS x WHERE x ->> 'state'" \
	" NOT IN ('pending', 'succeeded', 'undone', 'skipped', 'resolved', 'failed'))"
#define LIST_COLUMNS \
	"SELECT count(*) OVER ()::text, s.id::text, " SKALD__UTC("s.created_at") "," \
	" s.status || CASE WHEN s.paused THEN ' paused' ELSE '' END" \
	"  || CASE WHEN s.overdue THEN ' overdue' ELSE '' END," \
	" s.outcome, s.undo, s.name, s.version::text, s.key, s.run::text, " WHERE_AT "," \
	" s.reason ->> 'code', s.correlation_id, " SKALD__UTC("s.finished_at")
/* clang-format on */

static const struct skald__column list_columns[] = {
	{ NULL, NULL, SKALD_KIND_TEXT, 0 },
	{ "id", NULL, SKALD_KIND_ID, 0 }, /* its beginning is a time: NAME/KEY names it */
	{ "created_at", "AGE", SKALD_KIND_TIME, 0 },
	{ "status", "STATUS", SKALD_KIND_TEXT, 0 },
	{ "outcome", "OUTCOME", SKALD_KIND_TEXT, 0 },
	{ "undo", "UNDO", SKALD_KIND_TEXT, 0 },
	{ "name", "NAME", SKALD_KIND_TEXT, 8 },
	{ "version", NULL, SKALD_KIND_NUMBER, 0 },
	{ "key", "KEY", SKALD_KIND_TEXT, 8 },
	{ "run", "RUN", SKALD_KIND_NUMBER, 0 },
	{ "at", "AT", SKALD_KIND_TEXT, 16 },
	{ "reason", "REASON", SKALD_KIND_TEXT, 8 },
	{ "correlation_id", NULL, SKALD_KIND_TEXT, 0 },
	{ "finished_at", NULL, SKALD_KIND_TIME, 0 },
};

/* --- which ------------------------------------------------------------------------------ */

static enum skald__exit
where_sagas(struct skald__cli *cli, struct skald__where *where)
{
	static const struct skald__where_flag flags[] = {
		{ "--name", "s.name = %s", false },
		{ "--version", "s.version::text = %s", false },
		{ "--key", "s.key = %s", false },
		{ "--run", "s.run::text = %s", false },
		{ "--status", "s.status = %s", false },
		{ "--correlation", "s.correlation_id = %s", false },
		{ "--step",
			"EXISTS (SELECT FROM jsonb_array_elements(s.steps) AS x WHERE"
			" x ->> 'name' = %s AND x ->> 'state' NOT IN ('pending',"
			" 'succeeded', 'undone', 'skipped', 'resolved', 'failed'))",
			false },
		{ "--since", "s.created_at >= %s::timestamptz", true },
		{ "--until", "s.created_at <= %s::timestamptz", true },
		{ NULL, NULL, false },
	};
	static const char *const statuses[] = { "running", "compensating", "stuck",
		"finished" };
	const char *wanted = skald__flag_value(cli, "--status");
	enum skald__exit status;
	unsigned known = 0;

	while (wanted && known < 4 && strcmp(statuses[known], wanted) != 0)
		known++;
	if (known == 4)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--status", NULL,
			"--status: '%s' is none of running, compensating, stuck, "
			"finished",
			wanted);
	status = skald__where_flags(cli, where, flags);
	if (!status && !skald__flag_is_given(cli, "--all") &&
		!skald__flag_is_given(cli, "--status") &&
		!skald__flag_is_given(cli, "--key") &&
		!skald__flag_is_given(cli, "--correlation"))
		skald__where_add(where, "s.status <> 'finished'", SKALD_SLICE_NULL);
	return status;
}

enum skald__exit
skald__cmd_saga_ls(struct skald__cli *cli)
{
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	struct skald_buf statement;
	struct skald__where where;
	enum skald__exit status;
	int64_t limit = 50;
	unsigned count;

	skald__where_init(&where);
	skald_buf_init(&statement, 128 * 1024);
	status = skald__flag_int(cli, "--limit", 0, INT32_MAX, &limit);
	if (!status)
		status = where_sagas(cli, &where);
	if (!status)
		status = skald__open(cli, &sql);
	if (status)
		goto out;
	skald_buf_addf(&statement,
		LIST_COLUMNS
		" FROM skald.sagas AS s %s"
		" ORDER BY s.created_at DESC, s.id DESC LIMIT nullif(%lld, 0)",
		where.text.data ? where.text.data : "", (long long)limit);
	status = skald__query(cli, sql, statement.data, where.params, where.count, &rows);
	if (status)
		goto out;
	count = skald_rows_count(rows);
	if (count || cli->is_json)
		skald__rows_print(cli, list_columns,
			sizeof(list_columns) / sizeof(list_columns[0]), rows, 0);
	skald__rows_count_print(
		cli, "sagas", count, count ? skald_rows_int(rows, 0, 0, 0) : 0);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	skald_buf_done(&statement);
	skald__where_done(&where);
	return status;
}

/* The id of the first argument: a uuid, its beginning, or NAME/KEY (the newest run). */
static enum skald__exit
find_saga(struct skald__cli *cli, struct skald_sql *sql, char id[SKALD_UUID_TEXT_BYTES])
{
	const char *word = cli->args[0];
	const char *slash = strchr(word, '/');
	struct skald_param params[2];
	struct skald_rows *rows = NULL;
	enum skald__exit status;
	char name[80] = "";

	if (slash && !skald_slice_copy(skald_slice_make(word, (size_t)(slash - word)),
			     name, sizeof(name)))
		name[0] = '\0';
	params[0] = skald_param_text(slash ? name : word);
	params[1] = skald_param_text(slash ? slash + 1 : "");
	status = skald__query(cli, sql,
		slash ? "SELECT id::text FROM skald.sagas WHERE name = $1 AND key = $2"
			" ORDER BY run DESC LIMIT 1"
		      : "SELECT id::text FROM skald.sagas WHERE $2 = '' AND"
			" length($1) >= 4 AND id::text LIKE lower($1) || '%' LIMIT 2",
		params, 2, &rows);
	if (status)
		return status;
	if (skald_rows_count(rows) == 1) {
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 0), id, SKALD_UUID_TEXT_BYTES);
	} else if (skald_rows_count(rows) > 1) {
		status = skald__fail(cli, SKALD_EXIT_USAGE, "ambiguous", "ID",
			"give more of its digits", "%s: more than one saga", word);
	} else {
		status = skald__fail(cli, SKALD_EXIT_NO, "SK004", "ID",
			"skald saga ls --all", "%s: no such saga", word);
	}
	skald_rows_free(rows);
	return status;
}

/* --- show ------------------------------------------------------------------------------- */

/* clang-format off */
static const char show_statement[] =
	"SELECT s.id::text, s.name, s.version::text, s.key, s.run::text, s.status,"
	" s.outcome, s.undo, s.paused::text, s.overdue::text, s.signed::text,"
	" s.correlation_id, s.traceparent, s.reason::text, s.steps::text, "
	SKALD__UTC("s.created_at") ", " SKALD__UTC("s.updated_at") ", "
	SKALD__UTC("s.finished_at") ", " SKALD__UTC("s.deadline_at") ", "
	SKALD__UTC("s.due_at") ", s.waiting_for::text";
static const char show_words[] = /* for people, behind the columns of JSON */
	", (SELECT string_agg(concat_ws(' ', w ->> 'step', w ->> 'what', 'since ' ||"
	"  substr(w ->> 'since', 12, 8), 'until ' || substr(w ->> 'until', 12, 8)), '; ')"
	"  FROM jsonb_array_elements(s.waiting_for) AS w),"
	" concat_ws(': ', concat_ws(', ', s.reason ->> 'step', s.reason ->> 'code'),"
	"  nullif(s.reason ->> 'message', ''))";
/* clang-format on */

static const struct skald__column show_columns[] = {
	{ "id", NULL, SKALD_KIND_TEXT, 0 },
	{ "name", NULL, SKALD_KIND_TEXT, 0 },
	{ "version", NULL, SKALD_KIND_NUMBER, 0 },
	{ "key", NULL, SKALD_KIND_TEXT, 0 },
	{ "run", NULL, SKALD_KIND_NUMBER, 0 },
	{ "status", NULL, SKALD_KIND_TEXT, 0 },
	{ "outcome", NULL, SKALD_KIND_TEXT, 0 },
	{ "undo", NULL, SKALD_KIND_TEXT, 0 },
	{ "paused", NULL, SKALD_KIND_RAW, 0 },
	{ "overdue", NULL, SKALD_KIND_RAW, 0 },
	{ "signed", NULL, SKALD_KIND_RAW, 0 },
	{ "correlation_id", NULL, SKALD_KIND_TEXT, 0 },
	{ "traceparent", NULL, SKALD_KIND_TEXT, 0 },
	{ "reason", NULL, SKALD_KIND_RAW, 0 },
	{ "steps", NULL, SKALD_KIND_RAW, 0 },
	{ "created_at", NULL, SKALD_KIND_TIME, 0 },
	{ "updated_at", NULL, SKALD_KIND_TIME, 0 },
	{ "finished_at", NULL, SKALD_KIND_TIME, 0 },
	{ "deadline_at", NULL, SKALD_KIND_TIME, 0 },
	{ "due_at", NULL, SKALD_KIND_TIME, 0 },
	{ "waiting_for", NULL, SKALD_KIND_RAW, 0 },
	{ "input", NULL, SKALD_KIND_RAW, 0 },
	{ "data", NULL, SKALD_KIND_RAW, 0 },
	{ "output", NULL, SKALD_KIND_RAW, 0 },
};

static const struct skald__column step_columns[] = {
	{ "name", "STEP", SKALD_KIND_TEXT, 8 },
	{ "kind", "KIND", SKALD_KIND_TEXT, 8 },
	{ "state", "STATE", SKALD_KIND_TEXT, 0 },
	{ "attempts", "TRIED", SKALD_KIND_NUMBER, 0 },
	{ "compensation_attempts", "UNDO TRIED", SKALD_KIND_NUMBER, 0 },
	{ "started_at", "SINCE", SKALD_KIND_TIME, 0 },
	{ "error", "ERROR", SKALD_KIND_TEXT, 8 },
};

static void
print_field(const struct skald__cli *cli, const char *name, struct skald_slice value)
{
	struct skald_buf clean;

	if (!value.data || !value.bytes)
		return;
	skald_buf_init(&clean, 512 * 1024);
	skald__add_clean(&clean, value);
	printf("  %s%-13s%s %s\n", skald__paint(cli, SKALD_PAINT_FAINT), name,
		skald__unpaint(cli), clean.data ? clean.data : "");
	skald_buf_done(&clean);
}

static void
print_show(const struct skald__cli *cli, const struct skald_rows *rows)
{
	static const struct {
		const char *name;
		unsigned column;
	} fields[] = { { "outcome", 6 }, { "undo", 7 }, { "reason", 25 },
		{ "waiting for", 24 }, { "correlation", 11 }, { "started", 15 },
		{ "finished", 17 }, { "deadline", 18 }, { "input", 21 }, { "data", 22 },
		{ "output", 23 } };

	printf("saga %s  %s%s%s%s%s%s\n", skald_rows_get(rows, 0, 0).data,
		skald__paint(cli, SKALD_PAINT_STRONG), skald_rows_get(rows, 0, 5).data,
		skald__unpaint(cli), skald_rows_bool(rows, 0, 8) ? ", paused" : "",
		skald_rows_bool(rows, 0, 9) ? ", overdue" : "",
		skald_rows_bool(rows, 0, 10) ? ", signed" : "");
	printf("  %s%-13s%s %s version %s, key %s, run %s\n",
		skald__paint(cli, SKALD_PAINT_FAINT), "definition", skald__unpaint(cli),
		skald_rows_get(rows, 0, 1).data, skald_rows_get(rows, 0, 2).data,
		skald_rows_get(rows, 0, 3).data, skald_rows_get(rows, 0, 4).data);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		print_field(
			cli, fields[i].name, skald_rows_get(rows, 0, fields[i].column));
}

/* JSON's strings hold no raw line end, so one is between tokens. */
#define ONE_LINE(column) ", regexp_replace(" column ", '\\s*[\\n\\r]\\s*', ' ', 'g')"

/* The saga's row, with its payload where this role may read it. */
static enum skald__exit
read_show(struct skald__cli *cli, struct skald_sql *sql, const char *id,
	struct skald_rows **rows)
{
	static const char *const payload[] = { ONE_LINE("s.input") ONE_LINE("s.data")
						       ONE_LINE("s.output"),
		", NULL::text, NULL::text, NULL::text" };
	struct skald_err err = SKALD_ERR_INIT;
	const struct skald_param params[] = { skald_param_text(id) };
	enum skald_rc rc = SKALD_OK;
	char statement[4096];

	for (unsigned i = 0; i < 2; i++) {
		(void)snprintf(statement, sizeof(statement),
			"%s%s%s FROM skald.sagas AS s WHERE s.id = $1::uuid",
			show_statement, payload[i], show_words);
		rc = skald_conn_query(
			skald_sql_conn(sql), statement, params, 1, rows, &err);
		if (!rc || strcmp(err.code, "42501") != 0)
			break;
	}
	return rc ? skald__fail_err(cli, rc, &err, NULL) : SKALD_EXIT_DONE;
}

static enum skald__exit
print_steps(struct skald__cli *cli, struct skald_sql *sql, const char *id)
{
	const struct skald_param params[] = { skald_param_text(id) };
	struct skald_rows *rows = NULL;
	enum skald__exit status;

	status = skald__query(cli, sql,
		"SELECT x ->> 'name', x ->> 'kind', x ->> 'state', x ->> 'attempts',"
		" x ->> 'compensation_attempts', x ->> 'started_at', x ->> 'error'"
		" FROM skald.sagas AS s, jsonb_array_elements(s.steps) WITH ORDINALITY"
		" AS e(x, n) WHERE s.id = $1::uuid ORDER BY n",
		params, 1, &rows);
	if (!status) {
		printf("\n");
		skald__rows_print(cli, step_columns,
			sizeof(step_columns) / sizeof(step_columns[0]), rows, 2);
	}
	skald_rows_free(rows);
	return status;
}

enum skald__exit
skald__cmd_saga_show(struct skald__cli *cli)
{
	char id[SKALD_UUID_TEXT_BYTES] = "";
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	enum skald__exit status;

	status = skald__open(cli, &sql);
	if (!status)
		status = find_saga(cli, sql, id);
	if (!status)
		status = read_show(cli, sql, id, &rows);
	if (status)
		goto out;
	if (cli->is_json) {
		skald__rows_print(cli, show_columns,
			sizeof(show_columns) / sizeof(show_columns[0]), rows, 0);
		goto out;
	}
	print_show(cli, rows);
	status = print_steps(cli, sql, id);
	if (!status)
		printf("\n  What next\n    skald saga history %s\n    skald trace %s\n",
			id, skald_rows_get(rows, 0, 11).data);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}

/* --- history ---------------------------------------------------------------------------- */

static const struct skald__column event_columns[] = {
	{ "seq", "SEQ", SKALD_KIND_NUMBER, 0 },
	{ "at", "AGE", SKALD_KIND_TIME, 0 },
	{ "kind", "WHAT", SKALD_KIND_TEXT, 0 },
	{ "step", "STEP", SKALD_KIND_TEXT, 8 },
	{ "op", "OP", SKALD_KIND_TEXT, 0 },
	{ "attempt", "TRY", SKALD_KIND_NUMBER, 0 },
	{ "outcome", "OUTCOME", SKALD_KIND_TEXT, 8 },
	{ "message_id", NULL, SKALD_KIND_ID, 0 },
	{ "correlation_id", NULL, SKALD_KIND_TEXT, 0 },
	{ "traceparent", NULL, SKALD_KIND_TEXT, 0 },
};

enum skald__exit
skald__cmd_saga_history(struct skald__cli *cli)
{
	char id[SKALD_UUID_TEXT_BYTES] = "";
	const struct skald_param params[] = { skald_param_text(id) };
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	enum skald__exit status;

	status = skald__open(cli, &sql);
	if (!status)
		status = find_saga(cli, sql, id);
	if (!status)
		status = skald__query(cli, sql,
			"SELECT seq::text, " SKALD__UTC(
				"at") ", kind, step, op, attempt::text, outcome,"
				      " message_id, correlation_id, traceparent"
				      " FROM skald.saga_events WHERE saga_id = $1::uuid"
				      " ORDER BY saga_events.seq",
			params, 1, &rows);
	if (!status)
		skald__rows_print(cli, event_columns,
			sizeof(event_columns) / sizeof(event_columns[0]), rows, 0);
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}

/* --- start ------------------------------------------------------------------------------ */

static enum skald__exit
read_input_file(struct skald__cli *cli, const char *path, struct skald_buf *input)
{
	char part[4096];
	size_t n;
	FILE *file;

	file = fopen(path, "rb");
	if (!file)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--input", NULL,
			"--input: could not read %s", path);
	while ((n = fread(part, 1, sizeof(part), file)) > 0)
		skald_buf_add(input, part, n);
	(void)fclose(file);
	if (input->failed)
		return skald__fail(cli, SKALD_EXIT_USAGE, "SK007", "--input", NULL,
			"--input: must be at most 256 KiB");
	return SKALD_EXIT_DONE;
}

/* JSON itself, or @FILE. */
static enum skald__exit
read_input(struct skald__cli *cli, struct skald_buf *input)
{
	const char *text = skald__flag_value(cli, "--input");
	enum skald__exit status = SKALD_EXIT_DONE;
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_json json;

	if (text && text[0] == '@')
		status = read_input_file(cli, text + 1, input);
	else
		skald_buf_add_text(input, text ? text : "{}");
	if (!status && skald_json_parse(skald_buf_slice(input), INPUT_BYTES_MAX,
			       SKALD_JSON_DEPTH_MAX, &json, &err))
		status = skald__fail(cli, SKALD_EXIT_USAGE, "SK001", "--input", NULL,
			"--input: must be JSON: %s", err.text);
	return status;
}

struct ending {
	char status[32], outcome[32]; /* "": not known, none */
};

/* 0 completed, 1 finished otherwise, 3 stuck, 4 time is up. */
static enum skald__exit
await(struct skald__cli *cli, struct skald_sql *sql, const char *id, struct ending *how)
{
	const struct skald_param params[] = { skald_param_text(id),
		skald_param_text(cli->args[0]),
		skald_param_text(skald__flag_value(cli, "--key")) };
	int64_t timeout_ms = WAIT_DEFAULT_MS;
	enum skald__exit status = skald__flag_ms(cli, "--timeout", &timeout_ms);
	int64_t until_ms = skald_mono_ms() + timeout_ms;

	while (!status) {
		struct skald_rows *rows = NULL;

		status = skald__query(cli, sql,
			"SELECT status, coalesce(outcome, ''), status IN ('finished',"
			" 'stuck') FROM skald.sagas WHERE id = $1::uuid UNION ALL"
			" SELECT 'finished', outcome, true FROM skald.saga_past" /* swept */
			" WHERE name = $2 AND key = $3 AND id = $1::uuid",
			params, 3, &rows);
		if (status)
			break;
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 0), how->status, sizeof(how->status));
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 1), how->outcome, sizeof(how->outcome));
		if (skald_rows_bool(rows, 0, 2)) {
			bool is_stuck =
				skald_slice_is_text(skald_rows_get(rows, 0, 0), "stuck");
			bool is_done = skald_slice_is_text(
				skald_rows_get(rows, 0, 1), "completed");

			skald_rows_free(rows);
			return is_stuck  ? SKALD_EXIT_PART
			       : is_done ? SKALD_EXIT_DONE
					 : SKALD_EXIT_NO;
		}
		skald_rows_free(rows);
		if (skald_mono_ms() >= until_ms)
			return SKALD_EXIT_GUARD;
		(void)poll(NULL, 0, WAIT_LOOK_MS);
	}
	return status;
}

/* status and outcome are known with --wait only. */
static void
say_start(const struct skald__cli *cli, const char *id, const struct ending *how)
{
	struct skald_buf out;

	if (!cli->is_json) {
		printf("saga %s  %s%s%s\n", id, how->status[0] ? how->status : "started",
			how->outcome[0] ? ", " : "", how->outcome);
		return;
	}
	skald_buf_init(&out, 4096);
	skald_buf_add_text(&out, "{");
	skald_json_add_member(&out, "id", skald_slice_text(id));
	skald__json_add(&out, "status",
		how->status[0] ? skald_slice_text(how->status) : SKALD_SLICE_NULL);
	skald__json_add(&out, "outcome",
		how->outcome[0] ? skald_slice_text(how->outcome) : SKALD_SLICE_NULL);
	skald_buf_add_text(&out, "}\n");
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
}

enum skald__exit
skald__cmd_saga_start(struct skald__cli *cli)
{
	const char *again = skald__flag_value(cli, "--again");
	char id[SKALD_UUID_TEXT_BYTES] = "", number[24];
	struct ending how = { .status = "" };
	struct skald_param params[6];
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	struct skald_buf input;
	enum skald__exit status;
	int64_t version = 0;

	skald_buf_init(&input, INPUT_BYTES_MAX);
	status = skald__flag_int(cli, "--version", 1, INT32_MAX, &version);
	if (!status && !skald__flag_value(cli, "--key"))
		status = skald__fail(cli, SKALD_EXIT_USAGE, "usage", "--key", NULL,
			"saga start: needs --key KEY");
	if (!status)
		status = read_input(cli, &input);
	if (!status)
		status = skald__open(cli, &sql);
	if (status)
		goto out;
	params[0] = skald_param_text(cli->args[0]);
	params[1] = skald_param_text(skald__flag_value(cli, "--key"));
	params[2] = skald_param_text(input.data);
	params[3] = skald__flag_is_given(cli, "--version")
			    ? skald_param_int(version, number)
			    : SKALD_PARAM_NULL;
	params[4] = skald_param_text(again ? again : "never");
	params[5] = skald_param_text(skald__flag_value(cli, "--correlation"));
	status = skald__query(cli, sql,
		"SELECT skald.saga_start(name => $1, key => $2, input => $3::jsonb,"
		" version => $4::int, again => $5, correlation_id => $6)::text",
		params, 6, &rows);
	if (status)
		goto out;
	(void)skald_slice_copy(skald_rows_get(rows, 0, 0), id, sizeof(id));
	if (skald__flag_is_given(cli, "--wait"))
		status = await(cli, sql, id, &how);
	if (status != SKALD_EXIT_OUTAGE && status != SKALD_EXIT_USAGE)
		say_start(cli, id, &how);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	skald_buf_done(&input);
	return status;
}
