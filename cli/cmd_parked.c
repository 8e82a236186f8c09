/*
 * cmd_parked.c - `skald outbox parked|retry|skip|new-epoch`: keys whose head could
 * not be published, and what a person does about them.
 *
 * A selection is frozen first: each key is acted on only if its head and the number
 * of refusals are still those that were seen (sql/functions/operator_outbox.sql).
 */
#include "cli/own.h"

#include <string.h>

#include "base/json.h"

#define STATEMENT_MAX (96 * 1024)
#define TARGET_MAX    (128 * 1024) /* a topic and a key of 32 KiB in hexadecimal digits */
#define LIMIT_DEFAULT 50

const struct skald__flag skald__parked_flags[] = {
	{ "--topic", "TOPIC", "of this topic" },
	{ "--key", "KEY", "this key; \\x and hexadecimal digits when it is no text" },
	{ "--code", "CODE", "whose head was refused with this code" },
	{ "--since", "TIME", "parked not longer: an age like 2h, or RFC 3339" },
	{ "--until", "TIME", "parked not shorter" },
	{ "--all", NULL, "every parked key (an act needs --reason then)" },
	{ "--ids", "-", "message ids of heads on standard input, one a line" },
	{ NULL, NULL, NULL },
};
const struct skald__flag skald__epoch_flags[] = {
	{ "--dry-run", NULL, "say what would be done" },
	{ NULL, NULL, NULL },
};

static const struct skald__column columns[] = {
	{ NULL, NULL, SKALD_KIND_TEXT, 0 }, /* how many there are */
	{ "topic", "TOPIC", SKALD_KIND_TEXT, 12 },
	{ "key", "KEY", SKALD_KIND_HEX, 8 },
	{ "state", "STATE", SKALD_KIND_TEXT, 0 },
	{ "waiting", "WAITING", SKALD_KIND_NUMBER, 0 },
	{ "since", "SINCE", SKALD_KIND_TIME, 0 },
	{ "attempts", "TRIES", SKALD_KIND_NUMBER, 0 },
	{ "code", "CODE", SKALD_KIND_TEXT, 4 },
	{ "reason", "REASON", SKALD_KIND_TEXT, 12 },
	{ "head_message_id", NULL, SKALD_KIND_TEXT, 0 },
	{ "next_at", NULL, SKALD_KIND_TIME, 0 },
};
enum {
	COLUMN_TOPIC = 1,
	COLUMN_KEY = 2,
	COLUMN_WAITING = 4,
	COLUMN_TRIES = 6,
	COLUMN_HEAD = 9
};
#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

/* --- which -------------------------------------------------------------------------------- */

static bool
is_hex_form(const char *text)
{
	size_t digits;

	if (strncmp(text, "\\x", 2) != 0)
		return false;
	digits = strspn(text + 2, "0123456789abcdefABCDEF");
	return !text[2 + digits] && digits % 2 == 0;
}

/* topic/key as operator_act takes it: a key that is no text in hexadecimal digits. */
static void
add_target(struct skald_buf *target, struct skald_slice topic, struct skald_slice hex)
{
	struct skald_buf key;
	struct skald_slice text;

	skald_buf_init(&key, TARGET_MAX);
	skald__add_unhex(&key, hex);
	text = skald_buf_slice(&key);
	skald_buf_add_slice(target, topic);
	skald_buf_add_text(target, "/");
	if (text.bytes &&
		(!skald_slice_is_utf8(text) || memchr(text.data, 0, text.bytes) ||
			strncmp(text.data, "\\x", 2) == 0)) {
		skald_buf_add_text(target, "\\x");
		skald_buf_add_slice(target, hex);
	} else {
		skald_buf_add_slice(target, text);
	}
	skald_buf_done(&key);
}

static enum skald__exit
where_parked(struct skald__cli *cli, struct skald__where *where)
{
	static const struct skald__where_flag flags[] = {
		{ "--topic", "topic = %s", false },
		{ "--code", "code = %s", false },
		{ "--since", "since >= %s::timestamptz", true },
		{ "--until", "since <= %s::timestamptz", true },
		{ NULL, NULL, false },
	};
	const char *key = skald__flag_value(cli, "--key");
	enum skald__exit status;

	skald__where_add(where, "kind = 'relay'", SKALD_SLICE_NULL);
	if (key && is_hex_form(key))
		skald__where_add(
			where, "key = decode(%s, 'hex')", skald_slice_text(key + 2));
	else if (key)
		skald__where_add(
			where, "key = convert_to(%s, 'UTF8')", skald_slice_text(key));
	status = skald__where_flags(cli, where, flags);
	if (!status)
		status = skald__where_ids(
			cli, where, "head_message_id = ANY (%s::text[])");
	if (!status && where->text.failed)
		status = skald__fail(cli, SKALD_EXIT_USAGE, "invalid", NULL, NULL,
			"the selection is too long");
	return status;
}

/* limit 0: all. */
static enum skald__exit
find(struct skald__cli *cli, struct skald_sql *sql, const struct skald__where *where,
	int64_t limit, struct skald_rows **rows)
{
	struct skald_buf statement;
	enum skald__exit status;

	skald_buf_init(&statement, STATEMENT_MAX);
	skald_buf_addf(&statement,
		"SELECT count(*) OVER ()::text, topic, encode(key, 'hex'),"
		" CASE WHEN releasing THEN 'releasing' ELSE 'parked' END, waiting::text,"
		" " SKALD__UTC("since") ", attempts::text, code, reason, head_message_id,"
					" " SKALD__UTC(
						"next_at") " FROM skald.parked %s"
							   " ORDER BY parked.since, "
							   "parked.topic, parked.key "
							   "LIMIT nullif(%lld, 0)",
		where->text.data ? where->text.data : "", (long long)limit);
	status =
		skald__query(cli, sql, statement.data, where->params, where->count, rows);
	skald_buf_done(&statement);
	return status;
}

enum skald__exit
skald__cmd_outbox_parked(struct skald__cli *cli)
{
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	struct skald__where where;
	enum skald__exit status;
	int64_t limit = LIMIT_DEFAULT;
	unsigned count;

	skald__where_init(&where);
	status = skald__flag_int(cli, "--limit", 0, INT32_MAX, &limit);
	if (!status)
		status = where_parked(cli, &where);
	if (!status)
		status = skald__open(cli, &sql);
	if (!status)
		status = find(cli, sql, &where, limit, &rows);
	if (status)
		goto out;
	count = skald_rows_count(rows);
	if (count || cli->is_json)
		skald__rows_print(cli, columns, COLUMN_COUNT, rows, 0);
	skald__rows_count_print(
		cli, "parked keys", count, count ? skald_rows_int(rows, 0, 0, 0) : 0);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	skald__where_done(&where);
	return status;
}

/* --- acting on them ---------------------------------------------------------------------------- */

struct act {
	const char *action; /* of operator_act */
	const char *doing; /* "retry" */
	const char *done; /* "released" */
	bool needs_reason;
};

static void
say_key(const struct skald__cli *cli, const char *state, enum skald__paint paint,
	struct skald_slice target, const struct skald_rows *rows, unsigned row,
	struct skald_slice waiting, struct skald_slice skipped)
{
	struct skald_buf out;

	skald_buf_init(&out, TARGET_MAX * 2);
	if (cli->is_json) {
		skald_buf_add_text(&out, "{");
		skald_json_add_member(
			&out, "topic", skald_rows_get(rows, row, COLUMN_TOPIC));
		skald_json_add_member(&out, "target", target);
		skald_json_add_member(&out, "state", skald_slice_text(state));
		skald__json_add(
			&out, "head_message_id", skald_rows_get(rows, row, COLUMN_HEAD));
		skald__json_add_raw(&out, "waiting", waiting);
		skald__json_add(&out, "skipped", skipped);
		skald_buf_add_text(&out, "}\n");
	} else {
		skald_buf_addf(&out, "%s%s%s  ", skald__paint(cli, paint), state,
			skald__unpaint(cli));
		skald__add_clean(&out, target);
		skald_buf_addf(&out, ", %s waiting", waiting.data ? waiting.data : "0");
		if (skipped.data)
			skald_buf_addf(&out, ", without %.36s", skipped.data);
		skald_buf_add_text(&out, "\n");
	}
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
}

static enum skald__exit
act_on(struct skald__cli *cli, struct skald_sql *sql, const struct act *act,
	const struct skald_rows *rows, unsigned row, struct skald_slice target)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *answer = NULL;
	struct skald_param params[5];
	struct skald_buf args;
	enum skald_rc rc;

	skald_buf_init(&args, 4096);
	skald_buf_add_text(&args, "{");
	skald__json_add(&args, "head", skald_rows_get(rows, row, COLUMN_HEAD));
	skald__json_add_raw(&args, "attempts", skald_rows_get(rows, row, COLUMN_TRIES));
	skald_buf_add_text(&args, "}");
	params[0] = skald_param_text(act->action);
	params[1] = skald_param_text(target.data);
	params[2] = skald_param_text(skald__actor(cli));
	params[3] = skald_param_text(skald__flag_value(cli, "--reason"));
	params[4] = skald_param_text(args.data);
	rc = skald_conn_query(skald_sql_conn(sql),
		"SELECT a ->> 'state', a ->> 'waiting', a ->> 'skipped' FROM"
		" skald.operator_act(action => $1,"
		" target => $2, actor => $3, reason => $4, args => $5::jsonb) AS a",
		params, 5, &answer, &err);
	if (!rc)
		say_key(cli, skald_rows_get(answer, 0, 0).data, SKALD_PAINT_GOOD, target,
			rows, row, skald_rows_get(answer, 0, 1),
			skald_rows_get(answer, 0, 2));
	skald_rows_free(answer);
	skald_buf_done(&args);
	return rc ? skald__fail_err(cli, rc, &err,
			    strcmp(err.code, "SK006") == 0 ? "skald outbox parked" : NULL)
		  : SKALD_EXIT_DONE;
}

/* All of them, as far as they are unchanged: 0, in part 3, none: why not the first. */
static enum skald__exit
act_on_all(struct skald__cli *cli, struct skald_sql *sql, const struct act *act,
	const struct skald_rows *rows)
{
	enum skald__exit first = SKALD_EXIT_DONE;
	unsigned count = skald_rows_count(rows);
	bool is_dry = skald__flag_is_given(cli, "--dry-run");
	unsigned done_count = 0;

	for (unsigned r = 0; r < count; r++) {
		enum skald__exit status = SKALD_EXIT_DONE;
		struct skald_buf target;

		skald_buf_init(&target, TARGET_MAX);
		add_target(&target, skald_rows_get(rows, r, COLUMN_TOPIC),
			skald_rows_get(rows, r, COLUMN_KEY));
		if (is_dry)
			say_key(cli, act->doing, SKALD_PAINT_FAINT,
				skald_buf_slice(&target), rows, r,
				skald_rows_get(rows, r, COLUMN_WAITING),
				SKALD_SLICE_NULL);
		else
			status = act_on(cli, sql, act, rows, r, skald_buf_slice(&target));
		skald_buf_done(&target);
		done_count += status == SKALD_EXIT_DONE;
		first = first ? first : status;
		if (status == SKALD_EXIT_OUTAGE)
			break;
	}
	if (!cli->is_json && count > 1)
		printf("%s%u of %u %s%s\n", skald__paint(cli, SKALD_PAINT_FAINT),
			done_count, count,
			is_dry ? "would be, nothing was done" : act->done,
			skald__unpaint(cli));
	if (!first)
		return SKALD_EXIT_DONE;
	return done_count ? SKALD_EXIT_PART : first;
}

static enum skald__exit
run(struct skald__cli *cli, const struct act *act)
{
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	struct skald__where where;
	enum skald__exit status;
	int64_t max;

	skald__where_init(&where);
	status = skald__guard_selection(
		cli, skald__parked_flags, act->doing, act->needs_reason, &max);
	if (!status)
		status = where_parked(cli, &where);
	if (!status)
		status = skald__open(cli, &sql);
	if (!status)
		status = find(cli, sql, &where, max + 1, &rows);
	if (status)
		goto out;
	if (!skald_rows_count(rows))
		status = skald__fail(cli, SKALD_EXIT_NO, "not_found", NULL,
			"skald outbox parked lists them", "no parked key matches");
	if (!status)
		status = skald__guard_count(cli, act->doing, "parked keys",
			skald_rows_int(rows, 0, 0, 0), max);
	if (!status)
		status = act_on_all(cli, sql, act, rows);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	skald__where_done(&where);
	return status;
}

enum skald__exit
skald__cmd_outbox_retry(struct skald__cli *cli)
{
	static const struct act retry = { "outbox.retry", "retry", "let out", false };

	return run(cli, &retry);
}

enum skald__exit
skald__cmd_outbox_skip(struct skald__cli *cli)
{
	static const struct act skip = { "outbox.skip", "skip", "without their head",
		true };

	return run(cli, &skip);
}

/* --- a new epoch ---------------------------------------------------------------------------------- */

enum skald__exit
skald__cmd_outbox_new_epoch(struct skald__cli *cli)
{
	bool is_dry = skald__flag_is_given(cli, "--dry-run");
	struct skald_param params[2] = { skald_param_text(skald__actor(cli)),
		skald_param_text(skald__flag_value(cli, "--reason")) };
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	enum skald__exit status;

	status = skald__open(cli, &sql);
	if (!status && is_dry)
		status = skald__query(cli, sql,
			"SELECT jsonb_build_object('ok', true, 'target', 'main', "
			"'stream',"
			" stream, 'epoch', epoch, 'state', 'not asked for')::text,"
			" stream, epoch::text FROM skald.relays",
			NULL, 0, &rows);
	else if (!status)
		status = skald__query(cli, sql,
			"SELECT a::text, a ->> 'stream', a ->> 'epoch' FROM"
			" skald.operator_act(action => 'outbox.new-epoch',"
			" target => 'main', actor => $1, reason => $2) AS a",
			params, 2, &rows);
	if (status)
		goto out;
	if (!skald_rows_count(rows))
		status = skald__fail(cli, SKALD_EXIT_STATE, "SK005", NULL,
			"skald db migrate", "the outbox has no history yet");
	else if (cli->is_json)
		printf("%s\n", skald_rows_get(rows, 0, 0).data);
	else
		printf("%s%s%s  stream %s: the epoch after %s begins once what is\n"
		       "    outstanding is published\n",
			skald__paint(cli, is_dry ? SKALD_PAINT_FAINT : SKALD_PAINT_GOOD),
			is_dry ? "not done" : "wanted", skald__unpaint(cli),
			skald_rows_get(rows, 0, 1).data, skald_rows_get(rows, 0, 2).data);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}
