/*
 * cmd_dlq_show.c - one dead letter whole: what, where, why, and what next.
 */
#include "cli/own.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

#include "base/json.h"
#include "base/limits.h"

#define PREVIEW_BYTES 65536 /* of the value; more is for `dlq cat` */
#define PREVIEW_LINES 40
#define DUMP_BYTES    128
#define NAME_WIDTH    14
#define COMMAND_WIDTH 43

/* The columns that are no payload; then those that are, asked for apart. */
static const char facts_query[] = "SELECT id::text, " SKALD__UTC(
	"at") ", consumer_group, topic, partition::text,"
	      " record_offset::text, message_id, class, code, message, fingerprint,"
	      " attempts::text, state, correlation_id, replay_run::text"
	      " FROM skald.dead_letters WHERE id = $1::uuid";
enum fact {
	FACT_ID,
	FACT_AT,
	FACT_GROUP,
	FACT_TOPIC,
	FACT_PARTITION,
	FACT_OFFSET,
	FACT_MESSAGE_ID,
	FACT_CLASS,
	FACT_CODE,
	FACT_MESSAGE,
	FACT_FINGERPRINT,
	FACT_ATTEMPTS,
	FACT_STATE,
	FACT_CORRELATION,
	FACT_REPLAY_RUN,
	FACT_COUNT
};
static const struct skald__column fact_columns[FACT_COUNT] = {
	[FACT_ID] = { "id", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_AT] = { "at", NULL, SKALD_KIND_TIME, 0 },
	[FACT_GROUP] = { "consumer_group", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_TOPIC] = { "topic", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_PARTITION] = { "partition", NULL, SKALD_KIND_NUMBER, 0 },
	[FACT_OFFSET] = { "record_offset", NULL, SKALD_KIND_NUMBER, 0 },
	[FACT_MESSAGE_ID] = { "message_id", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_CLASS] = { "class", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_CODE] = { "code", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_MESSAGE] = { "message", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_FINGERPRINT] = { "fingerprint", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_ATTEMPTS] = { "attempts", NULL, SKALD_KIND_NUMBER, 0 },
	[FACT_STATE] = { "state", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_CORRELATION] = { "correlation_id", NULL, SKALD_KIND_TEXT, 0 },
	[FACT_REPLAY_RUN] = { "replay_run", NULL, SKALD_KIND_TEXT, 0 },
};

struct shown {
	struct skald_rows *facts;
	struct skald_rows *payload; /* NULL: withheld */
	struct skald_rows *headers;
	char withheld[256]; /* why */
};

/* --- values ------------------------------------------------------------------------------ */

static void
indent(struct skald_buf *out, unsigned depth)
{
	while (depth--)
		skald_buf_add_text(out, "  ");
}

/* The source's own slices, only the white space is ours: every digit stays. Bounded by the
   depth that skald_json_parse accepted. */
static void
add_pretty(struct skald_buf *out, struct skald_json value, unsigned depth)
{
	bool is_object = value.kind == SKALD_JSON_OBJECT;
	struct skald_json_iter it;
	struct skald_json item;
	struct skald_slice name;
	bool is_first = true;

	if (!is_object && value.kind != SKALD_JSON_ARRAY) {
		skald_buf_add_slice(out, value.text);
		return;
	}
	skald_buf_add_text(out, is_object ? "{" : "[");
	skald_json_iter_init(&it, value);
	while (skald_json_next(&it, &name, &item)) {
		skald_buf_add_text(out, is_first ? "\n" : ",\n");
		is_first = false;
		indent(out, depth + 1);
		if (is_object) {
			skald_buf_add_text(out, "\"");
			skald_buf_add_slice(out, name);
			skald_buf_add_text(out, "\": ");
		}
		add_pretty(out, item, depth + 1);
	}
	if (!is_first) {
		skald_buf_add_text(out, "\n");
		indent(out, depth);
	}
	skald_buf_add_text(out, is_object ? "}" : "]");
}

/* Lines of text, each clean, cut to the terminal, indented; at most so many. */
static void
print_lines(const struct skald__cli *cli, struct skald_slice text, unsigned lines_max)
{
	struct skald_buf clean;
	struct skald_buf line;
	size_t at = 0;

	skald_buf_init(&clean, PREVIEW_BYTES * 8);
	skald_buf_init(&line, PREVIEW_BYTES * 8);
	for (unsigned n = 0; at < text.bytes; n++) {
		const char *end = memchr(text.data + at, '\n', text.bytes - at);
		size_t bytes = end ? (size_t)(end - text.data) - at : text.bytes - at;

		if (n == lines_max) {
			printf("  ...\n");
			break;
		}
		skald_buf_clear(&clean);
		skald_buf_clear(&line);
		skald__add_clean(&clean, skald_slice_make(text.data + at, bytes));
		skald__add_cut(&line, skald_buf_slice(&clean), cli->width - 2);
		printf("  %s\n", line.data ? line.data : "");
		at += bytes + 1;
	}
	skald_buf_done(&line);
	skald_buf_done(&clean);
}

/* 0000  7b 22 73 6b 75 22 3a 22  61 22 7d                 |{"sku":"a"}| */
static void
print_dump(struct skald_slice bytes)
{
	const unsigned char *p = (const unsigned char *)bytes.data;
	size_t shown = bytes.bytes < DUMP_BYTES ? bytes.bytes : DUMP_BYTES;

	for (size_t at = 0; at < shown; at += 16) {
		printf("  %04zx  ", at);
		for (size_t i = 0; i < 16; i++) {
			if (at + i < shown)
				printf("%02x ", p[at + i]);
			else
				printf("   ");
			if (i == 7)
				printf(" ");
		}
		printf(" |");
		for (size_t i = 0; i < 16 && at + i < shown; i++)
			printf("%c", isprint(p[at + i]) ? p[at + i] : '.');
		printf("|\n");
	}
	if (shown < bytes.bytes)
		printf("  ...\n");
}

static void
print_title(const struct skald__cli *cli, const char *title, const char *more)
{
	printf("\n%s%s%s%s%s\n", skald__paint(cli, SKALD_PAINT_STRONG), title,
		skald__unpaint(cli), more[0] ? "  " : "", more);
}

static void
print_value(const struct skald__cli *cli, struct skald_slice value, int64_t bytes)
{
	struct skald_json root;
	struct skald_buf pretty;
	struct skald_err err;
	char more[64];
	bool is_json;

	if (!value.data) {
		print_title(cli, "Value", "null, a tombstone");
		return;
	}
	is_json = (int64_t)value.bytes == bytes &&
		  skald_json_parse(value, PREVIEW_BYTES, SKALD_JSON_DEPTH_MAX, &root,
			  &err) == SKALD_OK;
	(void)snprintf(more, sizeof(more), "%lld bytes%s", (long long)bytes,
		is_json ? ", JSON" : "");
	print_title(cli, "Value", more);
	if (!is_json) {
		print_dump(value);
		return;
	}
	skald_buf_init(&pretty, PREVIEW_BYTES * 64);
	add_pretty(&pretty, root, 0);
	print_lines(cli, skald_buf_slice(&pretty), PREVIEW_LINES);
	skald_buf_done(&pretty);
}

/* --- the parts ------------------------------------------------------------------------------- */

static void
print_pair(const struct skald__cli *cli, const char *name, struct skald_slice value,
	unsigned width)
{
	struct skald_buf clean;
	unsigned wide = skald__columns_of(skald_slice_text(name));

	skald_buf_init(&clean, 1024 * 1024);
	if (value.data)
		skald__add_clean(&clean, value);
	else
		skald_buf_add_text(&clean, "-");
	printf("  %s%s%s%*s", skald__paint(cli, SKALD_PAINT_FAINT), name,
		skald__unpaint(cli), wide < width ? (int)(width - wide) : 1, "");
	skald__wrap(stdout, clean.data ? clean.data : "", width + 2, width + 2);
	skald_buf_done(&clean);
}

static struct skald_slice
fact(const struct shown *shown, enum fact which)
{
	return skald_rows_get(shown->facts, 0, which);
}

static void
print_facts(const struct skald__cli *cli, const struct shown *shown)
{
	static const struct {
		const char *name;
		enum fact which;
	} plain[] = {
		{ "attempts", FACT_ATTEMPTS },
		{ "correlation", FACT_CORRELATION },
		{ "message id", FACT_MESSAGE_ID },
		{ "fingerprint", FACT_FINGERPRINT },
	};
	struct skald_slice state = fact(shown, FACT_STATE);
	struct skald_slice code = fact(shown, FACT_CODE);
	struct skald_slice at = fact(shown, FACT_AT);
	char line[600];
	char age[24];

	printf("%sdead letter %s%s  %s%.*s%s\n", skald__paint(cli, SKALD_PAINT_STRONG),
		fact(shown, FACT_ID).data, skald__unpaint(cli),
		skald__paint(cli, skald_slice_is_text(state, "dead") ? SKALD_PAINT_BAD
								     : SKALD_PAINT_GOOD),
		(int)state.bytes, state.data, skald__unpaint(cli));
	skald__age(at, age, sizeof(age));
	(void)snprintf(line, sizeof(line), "%.19sZ, %s ago", at.data, age);
	print_pair(cli, "when", skald_slice_text(line), NAME_WIDTH);
	print_pair(cli, "group", fact(shown, FACT_GROUP), NAME_WIDTH);
	(void)snprintf(line, sizeof(line), "%s partition %s offset %s",
		fact(shown, FACT_TOPIC).data, fact(shown, FACT_PARTITION).data,
		fact(shown, FACT_OFFSET).data);
	print_pair(cli, "record", skald_slice_text(line), NAME_WIDTH);
	(void)snprintf(line, sizeof(line), "%s%s%s", fact(shown, FACT_CLASS).data,
		code.bytes ? ", code " : "", code.bytes ? code.data : "");
	print_pair(cli, "class", skald_slice_text(line), NAME_WIDTH);
	print_pair(cli, "message", fact(shown, FACT_MESSAGE), NAME_WIDTH);
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		print_pair(cli, plain[i].name, fact(shown, plain[i].which), NAME_WIDTH);
	if (fact(shown, FACT_REPLAY_RUN).data)
		print_pair(cli, "replay run", fact(shown, FACT_REPLAY_RUN), NAME_WIDTH);
}

static void
print_headers(const struct skald__cli *cli, const struct shown *shown)
{
	unsigned width = NAME_WIDTH;

	print_title(cli, "Headers", "");
	for (unsigned r = 0; r < skald_rows_count(shown->headers); r++) {
		unsigned wide = skald__columns_of(skald_rows_get(shown->headers, r, 0));

		if (wide + 2 > width && wide < 30)
			width = wide + 2;
	}
	for (unsigned r = 0; r < skald_rows_count(shown->headers); r++) {
		struct skald_buf name;

		skald_buf_init(&name, 1024 * 1024);
		skald__add_clean(&name, skald_rows_get(shown->headers, r, 0));
		print_pair(cli, name.data ? name.data : "",
			skald_rows_get(shown->headers, r, 1), width);
		skald_buf_done(&name);
	}
	if (!skald_rows_count(shown->headers))
		printf("  none\n");
}

static void
print_payload(const struct skald__cli *cli, const struct shown *shown)
{
	struct skald_slice key;

	if (!shown->payload) {
		print_title(cli, "Headers, key and value", "");
		printf("  withheld from this role: %s\n"
		       "  GRANT skald_operator to it to see them\n",
			shown->withheld);
		return;
	}
	print_headers(cli, shown);
	key = skald_rows_get(shown->payload, 0, 0);
	if (!key.data) {
		print_title(cli, "Key", "null");
	} else if (skald_slice_is_utf8(key)) {
		print_title(cli, "Key", "");
		print_lines(cli, key, 4);
	} else {
		char more[48];

		(void)snprintf(more, sizeof(more), "%zu bytes", key.bytes);
		print_title(cli, "Key", more);
		print_dump(key);
	}
	print_value(cli, skald_rows_get(shown->payload, 0, 1),
		skald_rows_int(shown->payload, 0, 2, 0));
}

/* The command to paste, and beside it, or below when it is long, what it is for. */
static void print_command(const char *purpose, const char *fmt, ...) SKALD_PRINTF(2, 3);

static void
print_command(const char *purpose, const char *fmt, ...)
{
	char command[512];
	va_list args;

	va_start(args, fmt);
	if (vsnprintf(command, sizeof(command), fmt, args) < 0)
		command[0] = '\0';
	va_end(args);
	if (strlen(command) > COMMAND_WIDTH)
		printf("  %s\n%*s%s\n", command, COMMAND_WIDTH + 4, "", purpose);
	else
		printf("  %-*s  %s\n", COMMAND_WIDTH, command, purpose);
}

static void
print_next(const struct skald__cli *cli, const struct shown *shown)
{
	struct skald_slice state = fact(shown, FACT_STATE);
	const char *id = fact(shown, FACT_ID).data;

	print_title(cli, "What next", "");
	if (skald_slice_is_text(state, "dead"))
		print_command("once more, to this group only",
			"skald dlq replay %.8s --wait", id);
	if (skald_slice_is_text(state, "requested") ||
		skald_slice_is_text(state, "claimed"))
		print_command("is the group's consumer running?", "skald status");
	print_command("its raw bytes", "skald dlq cat %.8s > value.bin", id);
	print_command("the same trouble", "skald dlq ls --fingerprint %s",
		fact(shown, FACT_FINGERPRINT).data);
	if (fact(shown, FACT_CORRELATION).data) {
		struct skald_buf clean;

		skald_buf_init(&clean, 65536);
		skald__add_clean(&clean, fact(shown, FACT_CORRELATION));
		print_command("its messages in this outbox",
			"skald outbox ls --correlation %s", clean.data ? clean.data : "");
		skald_buf_done(&clean);
	}
}

/* --- the command --------------------------------------------------------------------------------- */

static enum skald__exit
read_all(struct skald__cli *cli, struct skald_sql *sql, const char *id,
	struct shown *shown)
{
	struct skald_param param = skald_param_text(id);
	struct skald_err err = SKALD_ERR_INIT;
	enum skald__exit status;
	enum skald_rc rc;

	status = skald__query(cli, sql, facts_query, &param, 1, &shown->facts);
	if (status)
		return status;
	if (!skald_rows_count(shown->facts))
		return skald__fail(cli, SKALD_EXIT_NO, "not_found", "ID", NULL,
			"dead letter %s has gone", id);
	rc = skald_sql_query(sql,
		"SELECT key, CASE WHEN $2 THEN value ELSE substring(value FOR 65536) END,"
		" octet_length(value)::bigint, convert_to(headers::text, 'UTF8')"
		" FROM skald.dead_letters WHERE id = $1::text::uuid",
		(struct skald_param[]){
			param, skald_param_text(cli->is_json ? "t" : "f") },
		2, true, &shown->payload, &err);
	if (!rc)
		rc = skald_sql_query(sql,
			"SELECT h.key, CASE jsonb_typeof(h.value) WHEN 'object' THEN"
			" 'base64:' || (h.value ->> 'base64') ELSE h.value #>> '{}' END"
			" FROM skald.dead_letters AS d, jsonb_each(d.headers) AS h"
			" WHERE d.id = $1::text::uuid ORDER BY h.key COLLATE \"C\"",
			&param, 1, false, &shown->headers, &err);
	if (rc && strcmp(err.code, "42501") == 0) {
		(void)snprintf(shown->withheld, sizeof(shown->withheld), "%s", err.text);
		return SKALD_EXIT_DONE;
	}
	return rc ? skald__fail_err(cli, rc, &err, NULL) : SKALD_EXIT_DONE;
}

static void
print_json(const struct shown *shown)
{
	struct skald_buf out;

	skald_buf_init(&out, SKALD__BYTES_MAX);
	skald__row_json(fact_columns, FACT_COUNT, shown->facts, 0, &out);
	if (out.bytes)
		out.bytes--; /* the closing brace: more follows */
	if (shown->payload) {
		skald__json_add(&out, "key", skald_rows_get(shown->payload, 0, 0));
		skald__json_add(&out, "value", skald_rows_get(shown->payload, 0, 1));
		skald__json_add_raw(
			&out, "headers", skald_rows_get(shown->payload, 0, 3));
	}
	skald__json_add_raw(&out, "payload_withheld",
		skald_slice_text(shown->payload ? "false" : "true"));
	skald_buf_add_text(&out, "}\n");
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
}

enum skald__exit
skald__cmd_dlq_show(struct skald__cli *cli)
{
	struct shown shown = { .facts = NULL };
	char id[SKALD_UUID_TEXT_BYTES];
	struct skald_sql *sql = NULL;
	enum skald__exit status;

	status = skald__open(cli, &sql);
	if (!status)
		status = skald__dead_letter_find(cli, sql, id);
	if (!status)
		status = read_all(cli, sql, id, &shown);
	if (!status && cli->is_json) {
		print_json(&shown);
	} else if (!status) {
		print_facts(cli, &shown);
		print_payload(cli, &shown);
		print_next(cli, &shown);
	}
	skald_rows_free(shown.headers);
	skald_rows_free(shown.payload);
	skald_rows_free(shown.facts);
	skald_sql_close(sql);
	return status;
}
