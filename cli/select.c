/*
 * select.c - which rows, and which dead letters: the same flags for every verb.
 *
 * Only what a flag asks for goes into the statement: a reader without payload
 * rights may use every flag but those that look into the payload.
 */
#include "cli/own.h"

#include <string.h>

#include "base/clock.h"
#include "base/uuid.h"

#define WHERE_BYTES_MAX (64 * 1024)
#define VALUE_BYTES_MAX (1024 * 1024) /* of all ids on stdin */

const struct skald__flag skald__select_flags[] = {
	{ "--group", "GROUP", "of this consumer group" },
	{ "--topic", "TOPIC", "from this topic" },
	{ "--partition", "N", "from this partition" },
	{ "--offset", "A..B", "offsets from A to B; A.., ..B and A too" },
	{ "--key", "KEY", "with this key (needs the right to read payload)" },
	{ "--type", "TYPE", "with this ce_type (needs the right to read payload)" },
	{ "--class", "CLASS", "RETRY, FATAL, DECODE, SCHEMA or EXPIRED" },
	{ "--code", "CODE", "with this code" },
	{ "--fingerprint", "F", "the same trouble" },
	{ "--correlation", "ID", "of this correlation id" },
	{ "--since", "TIME", "not older: an age like 2h, or RFC 3339" },
	{ "--until", "TIME", "not younger" },
	{ "--all", NULL, "those that are closed as well" },
	{ "--ids", "-", "the ids on standard input, one a line" },
	{ NULL, NULL, NULL },
};

void
skald__where_init(struct skald__where *where)
{
	where->count = 0;
	skald_buf_init(&where->text, WHERE_BYTES_MAX);
	for (unsigned i = 0; i < SKALD__WHERE_PARAMS_MAX; i++)
		skald_buf_init(&where->values[i], VALUE_BYTES_MAX);
}

void
skald__where_done(struct skald__where *where)
{
	skald_buf_done(&where->text);
	for (unsigned i = 0; i < SKALD__WHERE_PARAMS_MAX; i++)
		skald_buf_done(&where->values[i]);
}

void
skald__where_add(
	struct skald__where *where, const char *condition, struct skald_slice value)
{
	const char *place = strstr(condition, "%s");
	unsigned n = where->count;

	skald_buf_add_text(&where->text, where->text.bytes ? " AND " : "WHERE ");
	if (!place) {
		skald_buf_add_text(&where->text, condition);
		return;
	}
	if (n == SKALD__WHERE_PARAMS_MAX) {
		where->text.failed = true;
		return;
	}
	skald_buf_add_slice(&where->values[n], value);
	where->params[n] =
		skald_param_text(where->values[n].data ? where->values[n].data : "");
	where->count++;
	skald_buf_add(&where->text, condition, (size_t)(place - condition));
	skald_buf_addf(&where->text, "$%u%s", n + 1, place + 2);
}

static enum skald__exit
add_time(struct skald__cli *cli, struct skald__where *where, const char *flag,
	const char *condition)
{
	char text[SKALD_TIME_TEXT_BYTES];
	enum skald__exit status = skald__flag_time(cli, flag, text, sizeof(text));

	if (!status && text[0])
		skald__where_add(where, condition, skald_slice_text(text));
	return status;
}

enum skald__exit
skald__where_flags(struct skald__cli *cli, struct skald__where *where,
	const struct skald__where_flag *flags)
{
	enum skald__exit status = SKALD_EXIT_DONE;

	for (const struct skald__where_flag *f = flags; !status && f->flag; f++) {
		const char *value = skald__flag_value(cli, f->flag);

		if (!value)
			continue;
		if (f->is_time)
			status = add_time(cli, where, f->flag, f->condition);
		else
			skald__where_add(where, f->condition, skald_slice_text(value));
	}
	return status;
}

static enum skald__exit
add_class(struct skald__cli *cli, struct skald__where *where)
{
	static const char *const classes[] = { "RETRY", "FATAL", "DECODE", "SCHEMA",
		"EXPIRED" };
	const char *value = skald__flag_value(cli, "--class");

	for (unsigned i = 0; value && i < sizeof(classes) / sizeof(classes[0]); i++)
		if (strcasecmp(value, classes[i]) == 0) {
			skald__where_add(
				where, "class = %s", skald_slice_text(classes[i]));
			return SKALD_EXIT_DONE;
		}
	if (!value)
		return SKALD_EXIT_DONE;
	return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--class", NULL,
		"--class: '%s' is none of RETRY, FATAL, DECODE, SCHEMA, EXPIRED", value);
}

/* A..B, A.., ..B, A */
static enum skald__exit
add_offsets(struct skald__cli *cli, struct skald__where *where)
{
	const char *text = skald__flag_value(cli, "--offset");
	const char *dots = text ? strstr(text, "..") : NULL;
	struct skald_slice from = SKALD_SLICE_NULL;
	struct skald_slice to = SKALD_SLICE_NULL;
	long long low = 0;
	long long high = INT64_MAX;

	if (!text)
		return SKALD_EXIT_DONE;
	from = dots ? skald_slice_make(text, (size_t)(dots - text))
		    : skald_slice_text(text);
	to = dots ? skald_slice_text(dots + 2) : from;
	if ((from.bytes && !skald_slice_int64(from, &low)) ||
		(to.bytes && !skald_slice_int64(to, &high)) ||
		(!from.bytes && !to.bytes) || low < 0 || high < low)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--offset", NULL,
			"--offset: '%s' is no range like 10..20, 10.., ..20 or 10", text);
	if (from.bytes)
		skald__where_add(where, "record_offset >= %s::bigint", from);
	if (to.bytes)
		skald__where_add(where, "record_offset <= %s::bigint", to);
	return SKALD_EXIT_DONE;
}

/* Ids from standard input: all of them must be uuids, or nothing is done. */
enum skald__exit
skald__where_ids(
	struct skald__cli *cli, struct skald__where *where, const char *condition)
{
	const char *value = skald__flag_value(cli, "--ids");
	struct skald_buf array;
	enum skald__exit status = SKALD_EXIT_DONE;
	char line[256];

	if (!value)
		return SKALD_EXIT_DONE;
	if (strcmp(value, "-") != 0)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--ids", NULL,
			"--ids: takes - only, for standard input");
	skald_buf_init(&array, VALUE_BYTES_MAX);
	skald_array_begin(&array);
	while (!status && fgets(line, sizeof(line), stdin)) {
		struct skald_slice id = skald_slice_make(line, strcspn(line, " \t\r\n"));
		struct skald_uuid uuid;

		if (!id.bytes)
			continue;
		if (!skald_uuid_parse(id, &uuid))
			status = skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--ids",
				NULL, "--ids: '%.*s' is no id (a uuid)", (int)id.bytes,
				id.data);
		skald_array_add_text(&array, id);
	}
	skald_array_end(&array);
	if (!status && array.failed)
		status = skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--ids", NULL,
			"--ids: at most 1 MiB of them");
	if (!status)
		skald__where_add(where, condition, skald_buf_slice(&array));
	skald_buf_done(&array);
	return status;
}

enum skald__exit
skald__where_dead_letters(
	struct skald__cli *cli, struct skald__where *where, bool is_open)
{
	static const struct skald__where_flag flags[] = {
		{ "--group", "consumer_group = %s", false },
		{ "--topic", "topic = %s", false },
		{ "--partition", "partition = %s::int", false },
		{ "--key", "key = convert_to(%s, 'UTF8')", false },
		{ "--type", "headers ->> 'ce_type' = %s", false },
		{ "--code", "code = %s", false },
		{ "--fingerprint", "fingerprint = %s", false },
		{ "--correlation", "correlation_id = %s", false },
		{ "--since", "at >= %s::timestamptz", true },
		{ "--until", "at <= %s::timestamptz", true },
		{ NULL, NULL, false },
	};
	enum skald__exit status;
	int64_t partition;

	status = skald__where_flags(cli, where, flags);
	if (!status)
		status = add_class(cli, where);
	if (!status)
		status = skald__flag_int(cli, "--partition", 0, INT32_MAX, &partition);
	if (!status)
		status = add_offsets(cli, where);
	if (!status)
		status = skald__where_ids(cli, where, "id = ANY (%s::uuid[])");
	if (!status && is_open && !skald__flag_is_given(cli, "--all"))
		skald__where_add(where, "state IN ('dead', 'requested', 'claimed')",
			SKALD_SLICE_NULL);
	if (!status && where->text.failed)
		status = skald__fail(cli, SKALD_EXIT_USAGE, "invalid", NULL, NULL,
			"the selection is too long");
	return status;
}
