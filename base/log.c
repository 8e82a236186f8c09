#include "base/log.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/context.h"
#include "base/json.h"
#include "base/limits.h"

enum { MESSAGE_BYTES = 2048, PAIRS_MAX = 16 };

/* Written once by skald_log_init, before threads start. */
static struct {
	const char *program;
	enum skald_log_level level;
	bool is_json;
	bool is_terminal;
	bool is_coloured;
} sink = { "skald", SKALD_LOG_INFO, false, false, false };

struct pair {
	struct skald_slice name;
	struct skald_slice value;
};

void
skald_log_init(
	const char *program, enum skald_log_level level, enum skald_log_format format)
{
	const char *no_color = getenv("NO_COLOR");

	sink.program = program;
	sink.level = level;
	sink.is_terminal = isatty(STDERR_FILENO) == 1;
	sink.is_coloured = sink.is_terminal && !(no_color && no_color[0]);
	sink.is_json = format == SKALD_LOG_JSON ||
		       (format == SKALD_LOG_AUTO && !sink.is_terminal);
}

/* One write, so that lines of threads and processes never mix. */
static void
write_line(const char *line, size_t bytes)
{
	int saved = errno;

	while (write(STDERR_FILENO, line, bytes) < 0 && errno == EINTR)
		;
	errno = saved;
}

/* --- "... name=value name=\"a value\"" ------------------------------------------------- */

static const char *
end_of_name(const char *p, const char *end)
{
	const char *start = p;

	while (p < end &&
		(islower((unsigned char)*p) || *p == '_' ||
			(p > start && (isdigit((unsigned char)*p) || *p == '.'))))
		p++;
	return p;
}

/* One pair at p; returns its end, or NULL. */
static const char *
parse_pair(const char *p, const char *end, struct pair *pair)
{
	const char *name_end = end_of_name(p, end);
	const char *value;

	if (name_end == p || name_end == end || *name_end != '=')
		return NULL;
	pair->name = skald_slice_make(p, (size_t)(name_end - p));
	value = p = name_end + 1;
	if (p < end && *p == '"') {
		p = memchr(p + 1, '"', (size_t)(end - p - 1));
		if (!p)
			return NULL;
		pair->value = skald_slice_make(value + 1, (size_t)(p - value - 1));
		return p + 1;
	}
	while (p < end && *p != ' ')
		p++;
	pair->value = skald_slice_make(value, (size_t)(p - value));
	return p;
}

/* All of p..end is pairs: how many; else 0. */
static unsigned
parse_pairs(const char *p, const char *end, struct pair pairs[PAIRS_MAX])
{
	unsigned count = 0;

	while (p < end) {
		if (count == PAIRS_MAX)
			return 0;
		p = parse_pair(p, end, &pairs[count]);
		if (!p || (p < end && *p != ' '))
			return 0;
		count++;
		while (p < end && *p == ' ')
			p++;
	}
	return count;
}

/* The pairs a message ends with; takes them off the message. */
static unsigned
split_pairs(struct skald_slice *message, struct pair pairs[PAIRS_MAX])
{
	const char *start = message->data;
	const char *end = start + message->bytes;

	for (const char *p = start; p < end; p++) {
		unsigned count;

		if (p > start && p[-1] != ' ')
			continue;
		count = parse_pairs(p, end, pairs);
		if (!count)
			continue;
		while (p > start && p[-1] == ' ')
			p--;
		message->bytes = (size_t)(p - start);
		return count;
	}
	return 0;
}

/* --- json ------------------------------------------------------------------------------- */

static const char *const level_names[] = { "error", "warn", "info", "debug" };

static bool
is_taken(const struct pair *pairs, unsigned index)
{
	static const char *const reserved[] = { "ts", "level", "program", "msg",
		"correlation_id", "error", "error_code", "error_origin" };

	for (unsigned i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
		if (skald_slice_is_text(pairs[index].name, reserved[i]))
			return true;
	for (unsigned i = 0; i < index; i++)
		if (skald_slice_is_equal(pairs[i].name, pairs[index].name))
			return true;
	return false;
}

/* Names whose values look like numbers by chance stay text, so that their type is one. */
static bool
is_number(const struct pair *pair)
{
	struct skald_slice n = pair->name;
	long long value;

	if (skald_slice_is_text(n, "code") || skald_slice_is_text(n, "key") ||
		skald_slice_is_text(n, "group") ||
		(n.bytes >= 2 && memcmp(n.data + n.bytes - 2, "id", 2) == 0))
		return false;
	if (pair->value.bytes > 1 && pair->value.data[0] == '0')
		return false;
	return skald_slice_int64(pair->value, &value);
}

static void
add_pair(struct skald_buf *line, const struct pair *pairs, unsigned index)
{
	char name[128];

	if (is_taken(pairs, index))
		return;
	skald_slice_copy(pairs[index].name, name, sizeof(name));
	if (!is_number(&pairs[index])) {
		skald_json_add_member(line, name, pairs[index].value);
		return;
	}
	skald_json_add_name(line, name);
	skald_buf_add_slice(line, pairs[index].value);
}

static void
add_json(struct skald_buf *line, enum skald_log_level level, const struct skald_err *err,
	const struct skald_context *context, struct skald_slice message)
{
	char ts[SKALD_TIME_TEXT_BYTES];
	struct pair pairs[PAIRS_MAX];
	unsigned count = split_pairs(&message, pairs);

	skald_time_format(skald_wall_us(), ts);
	skald_buf_add_text(line, "{");
	skald_json_add_member(line, "ts", skald_slice_text(ts));
	skald_json_add_member(line, "level", skald_slice_text(level_names[level]));
	skald_json_add_member(line, "program", skald_slice_text(sink.program));
	skald_json_add_member(line, "msg", message);
	if (context && context->correlation_id[0])
		skald_json_add_member(line, "correlation_id",
			skald_slice_text(context->correlation_id));
	for (unsigned i = 0; i < count; i++)
		add_pair(line, pairs, i);
	if (err) {
		skald_json_add_member(line, "error", skald_slice_text(err->text));
		skald_json_add_member(line, "error_code", skald_slice_text(err->code));
		skald_json_add_member(
			line, "error_origin", skald_slice_text(err->origin));
	}
	skald_buf_add_text(line, "}\n");
}

/* --- text ------------------------------------------------------------------------------- */

/* Outside text must neither begin a line of its own nor steer the terminal. */
static void
add_plain(struct skald_buf *line, struct skald_slice text)
{
	for (size_t i = 0; i < text.bytes; i++) {
		unsigned char c = (unsigned char)text.data[i];

		if (c == '\n')
			skald_buf_add_text(line, "\\n");
		else if (c < 0x20 || c == 0x7F)
			skald_buf_addf(line, "\\x%02x", c);
		else
			skald_buf_add(line, &c, 1);
	}
}

static void
add_text(struct skald_buf *line, enum skald_log_level level, const struct skald_err *err,
	const struct skald_context *context, struct skald_slice message)
{
	static const char *const colours[] = { "\033[31m", "\033[33m", "\033[32m",
		"\033[2m" };
	static const char *const names[] = { "ERROR", "WARN ", "INFO ", "DEBUG" };
	char ts[SKALD_TIME_TEXT_BYTES];

	skald_time_format(skald_wall_us(), ts);
	if (sink.is_terminal) /* hh:mm:ss.mmm: people have 80 columns */
		skald_buf_addf(line, "%.12s ", ts + 11);
	else
		skald_buf_addf(line, "%s ", ts);
	skald_buf_addf(line, "%s%s%s %s: ", sink.is_coloured ? colours[level] : "",
		names[level], sink.is_coloured ? "\033[0m" : "", sink.program);
	add_plain(line, message);
	if (err) {
		skald_buf_add_text(line, ": ");
		add_plain(line, skald_slice_text(err->text));
		skald_buf_addf(line, " origin=%s", err->origin);
		if (err->code[0])
			skald_buf_addf(line, " code=%s", err->code);
	}
	if (context && context->correlation_id[0]) {
		skald_buf_add_text(line, " correlation=");
		add_plain(line, skald_slice_text(context->correlation_id));
	}
	skald_buf_add_text(line, "\n");
}

/* ---------------------------------------------------------------------------------------- */

static void
log_message(enum skald_log_level level, const struct skald_err *err, const char *message)
{
	const struct skald_context *context = skald_context_current();
	char room[SKALD_LOG_LINE_BYTES_MAX + 1];
	/* A buffer that never allocates: a log line must work without memory. */
	struct skald_buf line = {
		.data = room, .room_bytes = sizeof(room), .max_bytes = sizeof(room) - 1
	};
	size_t bytes = strlen(message);

	/* Escaping may blow a message up: too long a line is made again, from less. */
	for (;; bytes /= 2) {
		struct skald_slice part = skald_slice_make(message, bytes);

		skald_buf_clear(&line);
		if (sink.is_json)
			add_json(&line, level, err, context, part);
		else
			add_text(&line, level, err, context, part);
		if (!line.failed || !bytes)
			break;
	}
	if (!line.failed)
		write_line(line.data, line.bytes);
}

bool
skald_log_is_on(enum skald_log_level level)
{
	return level <= sink.level;
}

void
skald_log(enum skald_log_level level, const char *fmt, ...)
{
	char message[MESSAGE_BYTES];
	va_list args;

	if (level > sink.level)
		return;
	va_start(args, fmt);
	if (vsnprintf(message, sizeof(message), fmt, args) < 0)
		message[0] = '\0';
	va_end(args);
	log_message(level, NULL, message);
}

void
skald_log_err(
	enum skald_log_level level, const struct skald_err *err, const char *fmt, ...)
{
	char message[MESSAGE_BYTES];
	va_list args;

	if (level > sink.level)
		return;
	va_start(args, fmt);
	if (vsnprintf(message, sizeof(message), fmt, args) < 0)
		message[0] = '\0';
	va_end(args);
	log_message(level, err, message);
}
