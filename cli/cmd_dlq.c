/*
 * cmd_dlq.c - `skald dlq ls|cat|replay`, and finding a dead letter by the
 * beginning of its id. `show` has a file of its own.
 */
#include "cli/own.h"

#include <ctype.h>
#include <poll.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"

#define STATEMENT_MAX   (128 * 1024)
#define UUID_DIGITS     32
#define PREFIX_MIN      4
#define WAIT_DEFAULT_MS 30000
#define WAIT_LOOK_MS    100

const struct skald__flag skald__cat_flags[] = {
	{ "--value", NULL, "the value (what it prints without a flag, too)" },
	{ "--key", NULL, "the key" },
	{ "--headers", NULL, "the headers, as JSON" },
	{ NULL, NULL, NULL },
};
const struct skald__flag skald__replay_flags[] = {
	{ "--wait", NULL, "until it is applied or has failed again" },
	{ "--timeout", "TIME", "longest wait (30s)" },
	{ "--dry-run", NULL, "say what would be done" },
	{ NULL, NULL, NULL },
};

/* --- finding ---------------------------------------------------------------------------- */

/* "0c5f-3e" -> the lowest and the highest uuid that begin so. */
static bool
prefix_range(const char *text, char low[UUID_DIGITS + 1], char high[UUID_DIGITS + 1])
{
	size_t n = 0;

	for (; *text; text++) {
		if (*text == '-')
			continue;
		if (n == UUID_DIGITS || !isxdigit((unsigned char)*text))
			return false;
		low[n] = high[n] = (char)tolower((unsigned char)*text);
		n++;
	}
	if (n < PREFIX_MIN)
		return false;
	memset(low + n, '0', UUID_DIGITS - n);
	memset(high + n, 'f', UUID_DIGITS - n);
	low[UUID_DIGITS] = high[UUID_DIGITS] = '\0';
	return true;
}

enum skald__exit
skald__dead_letter_find(
	struct skald__cli *cli, struct skald_sql *sql, char id[SKALD_UUID_TEXT_BYTES])
{
	char low[UUID_DIGITS + 1];
	char high[UUID_DIGITS + 1];
	struct skald_param params[2];
	struct skald_rows *rows = NULL;
	enum skald__exit status;

	if (!prefix_range(cli->args[0], low, high))
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "ID",
			"skald dlq ls lists them",
			"ID: '%s' is neither a uuid nor the beginning of one (at least "
			"%d "
			"digits)",
			cli->args[0], PREFIX_MIN);
	params[0] = skald_param_text(low);
	params[1] = skald_param_text(high);
	status = skald__query(cli, sql,
		"SELECT id::text FROM skald.dead_letters"
		" WHERE id BETWEEN $1::uuid AND $2::uuid LIMIT 2",
		params, 2, &rows);
	if (status)
		return status;
	if (skald_rows_count(rows) == 0)
		status = skald__fail(cli, SKALD_EXIT_NO, "not_found", "ID",
			"skald dlq ls --all lists them",
			"no dead letter begins with '%s'", cli->args[0]);
	else if (skald_rows_count(rows) > 1)
		status = skald__fail(cli, SKALD_EXIT_USAGE, "ambiguous", "ID",
			"give more digits; with --json dlq ls shows the whole ids",
			"ID: more than one dead letter begins with '%s'", cli->args[0]);
	else
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 0), id, SKALD_UUID_TEXT_BYTES);
	skald_rows_free(rows);
	return status;
}

/* --- ls ------------------------------------------------------------------------------------- */

static const struct skald__column columns[] = {
	{ NULL, NULL, SKALD_KIND_TEXT, 0 }, /* how many there are */
	{ "id", "ID", SKALD_KIND_ID, 0 },
	{ "at", "AGE", SKALD_KIND_TIME, 0 },
	{ "state", "STATE", SKALD_KIND_TEXT, 0 },
	{ "consumer_group", "GROUP", SKALD_KIND_TEXT, 8 },
	{ NULL, "RECORD", SKALD_KIND_TEXT, 12 },
	{ "topic", NULL, SKALD_KIND_TEXT, 0 },
	{ "partition", NULL, SKALD_KIND_NUMBER, 0 },
	{ "record_offset", NULL, SKALD_KIND_NUMBER, 0 },
	{ "message_id", NULL, SKALD_KIND_TEXT, 0 },
	{ "class", NULL, SKALD_KIND_TEXT, 0 },
	{ "code", "CODE", SKALD_KIND_TEXT, 5 },
	{ "message", "MESSAGE", SKALD_KIND_TEXT, 12 },
	{ "fingerprint", NULL, SKALD_KIND_TEXT, 0 },
	{ "attempts", NULL, SKALD_KIND_NUMBER, 0 },
	{ "correlation_id", NULL, SKALD_KIND_TEXT, 0 },
	{ "replay_run", NULL, SKALD_KIND_TEXT, 0 },
};

enum skald__exit
skald__cmd_dlq_ls(struct skald__cli *cli)
{
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	struct skald_buf statement;
	struct skald__where where;
	enum skald__exit status;
	int64_t limit = 50;
	unsigned count;

	skald__where_init(&where);
	skald_buf_init(&statement, STATEMENT_MAX);
	status = skald__flag_int(cli, "--limit", 0, INT32_MAX, &limit);
	if (!status)
		status = skald__where_dead_letters(cli, &where, true);
	if (!status)
		status = skald__open(cli, &sql);
	if (status)
		goto out;
	skald_buf_addf(&statement,
		"SELECT count(*) OVER ()::text, id::text, " SKALD__UTC(
			"at") ","
			      " state, consumer_group, topic || '/' || partition || '@' "
			      "|| record_offset,"
			      " topic, partition::text, record_offset::text, message_id, "
			      "class,"
			      " CASE code WHEN '' THEN class ELSE code END, message, "
			      "fingerprint,"
			      " attempts::text, correlation_id, replay_run::text"
			      " FROM skald.dead_letters %s ORDER BY dead_letters.at DESC,"
			      " dead_letters.id LIMIT nullif(%lld, 0)",
		where.text.data ? where.text.data : "", (long long)limit);
	status = skald__query(cli, sql, statement.data, where.params, where.count, &rows);
	if (status)
		goto out;
	count = skald_rows_count(rows);
	if (count || cli->is_json)
		skald__rows_print(
			cli, columns, sizeof(columns) / sizeof(columns[0]), rows, 0);
	skald__rows_count_print(cli,
		skald__flag_is_given(cli, "--all") ? "dead letters" : "open dead letters",
		count, count ? skald_rows_int(rows, 0, 0, 0) : 0);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	skald_buf_done(&statement);
	skald__where_done(&where);
	return status;
}

/* --- cat ------------------------------------------------------------------------------------ */

/* Which of the three; more than one at once could not be told apart in the output. */
static enum skald__exit
choose_part(struct skald__cli *cli, const char **part)
{
	bool is_key = skald__flag_is_given(cli, "--key");
	bool is_headers = skald__flag_is_given(cli, "--headers");

	if (is_key + is_headers + skald__flag_is_given(cli, "--value") > 1)
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", "--value", NULL,
			"--value, --key and --headers: one of them");
	*part = is_key ? "key" : is_headers ? "headers" : "value";
	return SKALD_EXIT_DONE;
}

enum skald__exit
skald__cmd_dlq_cat(struct skald__cli *cli)
{
	struct skald_err err = SKALD_ERR_INIT;
	char id[SKALD_UUID_TEXT_BYTES];
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	const char *part = NULL;
	enum skald__exit status;
	struct skald_param param;
	struct skald_slice bytes;
	unsigned column;
	enum skald_rc rc;

	status = choose_part(cli, &part);
	if (!status)
		status = skald__open(cli, &sql);
	if (!status)
		status = skald__dead_letter_find(cli, sql, id);
	if (status)
		goto out;
	param = skald_param_text(id);
	rc = skald_sql_query(sql,
		"SELECT key, value, convert_to(headers::text, 'UTF8')"
		" FROM skald.dead_letters WHERE id = $1::text::uuid",
		&param, 1, true, &rows, &err);
	if (rc) {
		status = skald__fail_err(cli, rc, &err, NULL);
		goto out;
	}
	column = strcmp(part, "key") == 0 ? 0 : strcmp(part, "value") == 0 ? 1 : 2;
	bytes = skald_rows_count(rows) ? skald_rows_get(rows, 0, column)
				       : SKALD_SLICE_NULL;
	if (!bytes.data) {
		status = skald__fail(cli, SKALD_EXIT_NO, "not_found", part, NULL,
			"the record's %s is null", part);
		goto out;
	}
	skald__put(bytes);
	if (column == 2)
		skald__put(SKALD_SLICE_LIT("\n"));
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}

/* --- replay ------------------------------------------------------------------------------------ */

struct letter { /* what a replay tells about */
	char id[SKALD_UUID_TEXT_BYTES];
	char state[16];
	char group[256];
	char message[1025];
};

static enum skald__exit
read_letter(struct skald__cli *cli, struct skald_sql *sql, struct letter *letter)
{
	struct skald_param param = skald_param_text(letter->id);
	struct skald_rows *rows = NULL;
	enum skald__exit status;

	status = skald__query(cli, sql,
		"SELECT state, consumer_group, message FROM skald.dead_letters"
		" WHERE id = $1::uuid",
		&param, 1, &rows);
	if (status)
		return status;
	if (!skald_rows_count(rows)) {
		status = skald__fail(cli, SKALD_EXIT_NO, "not_found", "ID", NULL,
			"dead letter %s has gone", letter->id);
	} else {
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 0), letter->state, sizeof(letter->state));
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 1), letter->group, sizeof(letter->group));
		(void)skald_slice_copy(skald_rows_get(rows, 0, 2), letter->message,
			sizeof(letter->message));
	}
	skald_rows_free(rows);
	return status;
}

static enum skald__exit
say_letter(const struct skald__cli *cli, const struct letter *letter, const char *text,
	enum skald__paint paint)
{
	struct skald_buf out;

	skald_buf_init(&out, 65536);
	if (cli->is_json) {
		skald_buf_add_text(&out, "{");
		skald_json_add_member(&out, "id", skald_slice_text(letter->id));
		skald_json_add_member(&out, "state", skald_slice_text(letter->state));
		skald_json_add_member(
			&out, "consumer_group", skald_slice_text(letter->group));
		if (strcmp(letter->state, "dead") == 0)
			skald_json_add_member(
				&out, "message", skald_slice_text(letter->message));
		skald_buf_add_text(&out, "}\n");
	} else {
		skald_buf_addf(&out, "%s%s%s  %.8s  ", skald__paint(cli, paint),
			letter->state, skald__unpaint(cli), letter->id);
		skald__add_clean(&out, skald_slice_text(text));
		skald_buf_add_text(&out, "\n");
	}
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
	return SKALD_EXIT_DONE;
}

/* Ask once; the database refuses whoever comes second. */
static enum skald__exit
request(struct skald__cli *cli, struct skald_sql *sql, struct letter *letter)
{
	struct skald_param params[3] = { skald_param_text(letter->id),
		skald_param_text(skald__actor(cli)),
		skald_param_text(skald__flag_value(cli, "--reason")) };
	struct skald_rows *rows = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	char hint[96];
	enum skald_rc rc;

	(void)snprintf(hint, sizeof(hint), "skald dlq show %.8s", letter->id);
	rc = skald_conn_query(skald_sql_conn(sql),
		"SELECT skald.operator_act(action => 'dlq.replay', target => $1,"
		" actor => $2, reason => $3, args => '{}')",
		params, 3, &rows, &err);
	if (rc)
		return skald__fail_err(
			cli, rc, &err, strcmp(err.code, "SK006") == 0 ? hint : NULL);
	skald_rows_free(rows);
	(void)snprintf(letter->state, sizeof(letter->state), "requested");
	return SKALD_EXIT_DONE;
}

static bool
is_under_way(const struct letter *letter)
{
	return strcmp(letter->state, "requested") == 0 ||
	       strcmp(letter->state, "claimed") == 0;
}

static enum skald__exit
await(struct skald__cli *cli, struct skald_sql *sql, struct letter *letter)
{
	int64_t timeout_ms = WAIT_DEFAULT_MS;
	enum skald__exit status = skald__flag_ms(cli, "--timeout", &timeout_ms);
	int64_t until_ms = skald_mono_ms() + timeout_ms;
	char text[1200];

	while (!status && is_under_way(letter)) {
		if (skald_mono_ms() >= until_ms)
			return skald__fail(cli, SKALD_EXIT_GUARD, "timeout", "--timeout",
				"is the consumer of this group running? skald status",
				"%.8s is still %s: it stays asked for", letter->id,
				letter->state);
		(void)poll(NULL, 0, WAIT_LOOK_MS);
		status = read_letter(cli, sql, letter);
	}
	if (status)
		return status;
	if (strcmp(letter->state, "resolved") == 0)
		return say_letter(
			cli, letter, "applied, once in effect", SKALD_PAINT_GOOD);
	(void)snprintf(text, sizeof(text), "failed again: %s", letter->message);
	(void)say_letter(cli, letter,
		strcmp(letter->state, "dead") == 0 ? text : "not applied",
		SKALD_PAINT_BAD);
	return SKALD_EXIT_NO;
}

static enum skald__exit
rehearse(struct skald__cli *cli, struct skald_sql *sql, struct letter *letter)
{
	enum skald__exit status = read_letter(cli, sql, letter);
	char text[320];

	if (status)
		return status;
	if (strcmp(letter->state, "dead") != 0)
		return skald__fail(cli, SKALD_EXIT_STATE, "SK006", "state", NULL,
			"dead letter %s is %s, not dead", letter->id, letter->state);
	(void)snprintf(
		text, sizeof(text), "would be given to %s once more", letter->group);
	return say_letter(cli, letter, text, SKALD_PAINT_FAINT);
}

enum skald__exit
skald__cmd_dlq_replay(struct skald__cli *cli)
{
	struct letter letter = { .id = "" };
	struct skald_sql *sql = NULL;
	enum skald__exit status;
	int64_t checked_ms = 0;
	char text[320];

	status = skald__flag_ms(
		cli, "--timeout", &checked_ms); /* before anything is done */
	if (!status)
		status = skald__open(cli, &sql);
	if (!status)
		status = skald__dead_letter_find(cli, sql, letter.id);
	if (status)
		goto out;
	if (skald__flag_is_given(cli, "--dry-run")) {
		status = rehearse(cli, sql, &letter);
		goto out;
	}
	status = request(cli, sql, &letter);
	if (status)
		goto out;
	if (skald__flag_is_given(cli, "--wait")) {
		status = await(cli, sql, &letter);
		goto out;
	}
	status = read_letter(cli, sql, &letter);
	if (status)
		goto out;
	(void)snprintf(text, sizeof(text),
		"%s takes it in its own lane; skald dlq show %.8s", letter.group,
		letter.id);
	status = say_letter(cli, &letter, text, SKALD_PAINT_WARN);
out:
	skald_sql_close(sql);
	return status;
}
