/*
 * fail.c - errors for people and programs, and the one table from what went
 * wrong to the exit status.
 */
#include "cli/own.h"

#include <stdarg.h>
#include <string.h>

#include "base/json.h"

struct fault_rule {
	const char *prefix; /* of the SQLSTATE; the first match wins */
	enum skald__exit status;
	const char *hint;
};

static const char no_server[] = "is the server up, and --database or database.url right?";

/* clang-format off */
static const struct fault_rule rules[] = {
	{ "SK001", SKALD_EXIT_USAGE, NULL },
	{ "SK007", SKALD_EXIT_USAGE, NULL },
	{ "SK004", SKALD_EXIT_NO, NULL },
	{ "SK", SKALD_EXIT_STATE, NULL },
	{ "08", SKALD_EXIT_OUTAGE, no_server },
	{ "53", SKALD_EXIT_OUTAGE, NULL },
	{ "57", SKALD_EXIT_OUTAGE, NULL },
	{ "58", SKALD_EXIT_OUTAGE, NULL },
	{ "28", SKALD_EXIT_OUTAGE, no_server },
	{ "3D", SKALD_EXIT_OUTAGE, no_server },
	{ "3F000", SKALD_EXIT_STATE, "skald db migrate" },
	{ "42P01", SKALD_EXIT_STATE, "skald db migrate" },
	{ "42883", SKALD_EXIT_STATE, "skald db migrate" },
	{ "42703", SKALD_EXIT_STATE, "skald db migrate" },
	{ "42501", SKALD_EXIT_STATE,
		"GRANT skald_operator TO you; skald doctor says what you have" },
	{ "22", SKALD_EXIT_USAGE, NULL },
	{ "23", SKALD_EXIT_USAGE, NULL },
	{ "40", SKALD_EXIT_OUTAGE, "met another transaction: try again" },
	{ "55", SKALD_EXIT_OUTAGE, "met another transaction: try again" },
};
/* clang-format on */

static const struct fault_rule *
find_rule(const struct skald_err *err)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (strncmp(err->code, rules[i].prefix, strlen(rules[i].prefix)) == 0)
			return &rules[i];
	return NULL;
}

static bool
is_invalid(enum skald_rc rc, const struct skald_err *err)
{
	/* a URL that cannot be read: nobody was asked */
	return strcmp(err->origin, "config") == 0 || strcmp(err->origin, "usage") == 0 ||
	       (rc == SKALD_FATAL && strncmp(err->code, "08", 2) == 0);
}

enum skald__exit
skald__status_of(enum skald_rc rc, const struct skald_err *err)
{
	const struct fault_rule *rule;

	if (is_invalid(rc, err))
		return SKALD_EXIT_USAGE;
	if (strcmp(err->origin, "kafka") == 0)
		return SKALD_EXIT_OUTAGE;
	rule = find_rule(err);
	return rule ? rule->status : SKALD_EXIT_NO;
}

static void
say_json(const char *code, const char *field, const char *hint, const char *message)
{
	struct skald_buf out;

	skald_buf_init(&out, 65536);
	skald_buf_add_text(&out, "{\"error\":{");
	skald_json_add_member(&out, "code", skald_slice_text(code));
	skald_json_add_member(&out, "message", skald_slice_text(message));
	skald__json_add(&out, "field", skald_slice_text(field));
	skald__json_add(&out, "hint", skald_slice_text(hint));
	skald_buf_add_text(&out, "}}\n");
	(void)fwrite(out.data ? out.data : "", 1, out.bytes, stderr);
	skald_buf_done(&out);
}

static void
say(const struct skald__cli *cli, const char *code, const char *field, const char *hint,
	const char *message)
{
	struct skald_buf clean;

	fflush(stdout);
	if (cli->is_json) {
		say_json(code, field, hint, message);
		return;
	}
	skald_buf_init(&clean, 65536);
	skald__add_clean(&clean, skald_slice_text(message));
	fprintf(stderr, "skald: %s\n", clean.data ? clean.data : "");
	if (hint)
		fprintf(stderr, "  hint: %s\n", hint);
	skald_buf_done(&clean);
}

enum skald__exit
skald__fail(const struct skald__cli *cli, enum skald__exit status, const char *code,
	const char *field, const char *hint, const char *fmt, ...)
{
	char message[1024];
	va_list args;

	va_start(args, fmt);
	if (vsnprintf(message, sizeof(message), fmt, args) < 0)
		message[0] = '\0';
	va_end(args);
	say(cli, code, field, hint, message);
	return status;
}

/* Errors read "field: rule": the field, if it looks like one. */
static const char *
field_of(const struct skald_err *err, char *dst, size_t dst_bytes)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyz_.0123456789-";
	size_t n = strspn(err->text, allowed);

	if (n && strncmp(err->text + n, ": ", 2) == 0 &&
		skald_slice_copy(skald_slice_make(err->text, n), dst, dst_bytes))
		return dst;
	return NULL;
}

enum skald__exit
skald__fail_err(const struct skald__cli *cli, enum skald_rc rc,
	const struct skald_err *err, const char *hint)
{
	const struct fault_rule *rule = find_rule(err);
	bool is_usage = is_invalid(rc, err);
	const char *code = err->code[0] ? err->code : err->origin;
	char field[64];

	if (!hint && rule && !is_usage)
		hint = rule->hint;
	say(cli, code, field_of(err, field, sizeof(field)), hint, err->text);
	return skald__status_of(rc, err);
}
