/*
 * reload.c - SIGHUP: the log settings and the relays' modes change at once, everything
 * else is compared and named, so that nobody believes in a change that did not happen.
 */
#include "daemon/own.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

void
skald__log_configure(const struct skald_config *config)
{
	static const char *const levels[] = { "error", "warn", "info", "debug" };
	static const char *const formats[] = { "auto", "text", "json" };
	const char *level_text = skald_config_text(config, "log", "level");
	const char *format_text = skald_config_text(config, "log", "format");
	enum skald_log_level level = SKALD_LOG_INFO;
	enum skald_log_format format = SKALD_LOG_AUTO;

	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (level_text && strcmp(level_text, levels[i]) == 0)
			level = (enum skald_log_level)i;
	for (unsigned i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
		if (format_text && strcmp(format_text, formats[i]) == 0)
			format = (enum skald_log_format)i;
	skald_log_init("skaldd", level, format);
}

/* --- comparing ------------------------------------------------------------------------- */

/* The text of --print-config, without where each value comes from: a line may move. */
static char *
print_to_text(const struct skald_config *config)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		return NULL;
	skald_config_print(config, out);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

struct line {
	char section[80];
	struct skald_slice key;
	struct skald_slice value; /* without the provenance */
};

/* Next "key = value ; provenance" at *at; false at the end. */
static bool
next_line(const char **at, struct line *line)
{
	while (**at) {
		const char *start = *at;
		const char *end = strchr(start, '\n');
		size_t bytes = end ? (size_t)(end - start) : strlen(start);
		const char *equals = memchr(start, '=', bytes);
		const char *stop = start + bytes;

		*at = end ? end + 1 : start + bytes;
		if (start[0] == '[' && bytes > 2) {
			(void)skald_slice_copy(skald_slice_make(start + 1, bytes - 2),
				line->section, sizeof(line->section));
			continue;
		}
		if (!equals || start[0] == ';')
			continue;
		for (const char *p = equals; p + 2 < start + bytes; p++)
			if (memcmp(p, " ; ", 3) == 0)
				stop = p;
		line->key = skald_slice_make(start, (size_t)(equals - start));
		while (line->key.bytes && line->key.data[line->key.bytes - 1] == ' ')
			line->key.bytes--;
		line->value = skald_slice_make(equals, (size_t)(stop - equals));
		while (line->value.bytes &&
			line->value.data[line->value.bytes - 1] == ' ')
			line->value.bytes--;
		return true;
	}
	return false;
}

/* The same key with the same value? */
static bool
has_line(const char *text, const struct line *wanted)
{
	struct line line = { .section = "" };

	while (next_line(&text, &line))
		if (strcmp(line.section, wanted->section) == 0 &&
			skald_slice_is_equal(line.key, wanted->key))
			return skald_slice_is_equal(line.value, wanted->value);
	return false;
}

static bool
is_taken_over(const struct line *line)
{
	return strcmp(line->section, "log") == 0 ||
	       (skald_slice_is_text(line->key, "mode") &&
		       (strcmp(line->section, "relay") == 0 ||
			       strncmp(line->section, "source.", 7) == 0));
}

/* Each key of `text` that `other` has not, or has otherwise. */
static unsigned
name_changes(const char *text, const char *other)
{
	struct line line = { .section = "" };
	unsigned count = 0;

	while (next_line(&text, &line)) {
		if (is_taken_over(&line) || has_line(other, &line))
			continue;
		skald_log(SKALD_LOG_WARN,
			"changed, but only a restart takes it over key=%s.%.*s",
			line.section, (int)line.key.bytes, line.key.data);
		count++;
	}
	return count;
}

void
skald__reload(struct skald__daemon *daemon, const struct skald_config_args *args)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_config *fresh = NULL;
	char *before = NULL;
	char *after = NULL;

	if (skald_config_load(&fresh, args, &err)) {
		skald_log_err(SKALD_LOG_ERROR, &err,
			"could not reload: the configuration in force stays");
		return;
	}
	skald__log_configure(fresh);
	skald__sources_reload(daemon, fresh);
	before = print_to_text(daemon->config);
	after = print_to_text(fresh);
	/* What is new or other now; then what has gone (named by the text it had). */
	if (before && after && !name_changes(after, before) &&
		!name_changes(before, after))
		skald_log(SKALD_LOG_INFO, "reloaded: log and modes of relays");
	free(before);
	free(after);
	skald_config_destroy(fresh);
}
