#include "base/config_own.h"

#include <ctype.h>
#include <stdio.h>

#include "base/log.h"

enum { NAME_BYTES_MAX = 128 };

static const char prefix[] = "SKALD_";

/* "topics", "create" -> "TOPICS_CREATE" */
static void
variable_of(const char *section, const char *key, char dst[NAME_BYTES_MAX])
{
	char *p = dst;

	snprintf(dst, NAME_BYTES_MAX, "%s_%s", section, key);
	for (; *p; p++)
		*p = isalnum((unsigned char)*p) ? (char)toupper((unsigned char)*p) : '_';
}

/* Does name begin with the section's name in capitals and "_"? Returns its rest. */
static const char *
rest_after(const char *name, const char *section)
{
	char start[NAME_BYTES_MAX];

	variable_of(section, "", start);
	/* "source." gives "SOURCE__": its dot and the underscore are one. */
	if (section[strlen(section) - 1] == '.')
		start[strlen(start) - 1] = '\0';
	return strncmp(name, start, strlen(start)) == 0 ? name + strlen(start) : NULL;
}

static bool
ends_with(const char *text, const char *end)
{
	size_t bytes = strlen(text), end_bytes = strlen(end);

	return bytes >= end_bytes && strcmp(text + bytes - end_bytes, end) == 0;
}

/* What Kubernetes and Docker inject for a service called skald-SECTION or skald-source-x. */
static bool
is_of_a_service(const char *rest)
{
	return ends_with(rest, "SERVICE_HOST") || strstr(rest, "SERVICE_PORT") ||
	       strcmp(rest, "PORT") == 0 || ends_with(rest, "_PORT") ||
	       strncmp(rest, "PORT_", 5) == 0 || strstr(rest, "_PORT_");
}

struct target {
	char section[NAME_BYTES_MAX];
	char key[NAME_BYTES_MAX];
};

/* KAFKA_: every "_" is a "."; librdkafka's properties have no other separator. */
static bool
find_kafka(const char *name, struct target *t)
{
	const char *rest = rest_after(name, "kafka");
	char *p;

	if (!rest || !rest[0] || strlen(rest) >= sizeof(t->key) || is_of_a_service(rest))
		return false;
	snprintf(t->section, sizeof(t->section), "kafka");
	snprintf(t->key, sizeof(t->key), "%s", rest);
	for (p = t->key; *p; p++)
		*p = *p == '_' ? '.' : (char)tolower((unsigned char)*p);
	return true;
}

/* SOURCE_PAYMENT_POLL_MIN: the longest known key at the end; the source is what remains. */
static bool
find_source(const struct skald_config *config, const char *name, struct target *t)
{
	const char *rest = rest_after(name, SKALD__SOURCE_PREFIX);
	char end[NAME_BYTES_MAX], variable[NAME_BYTES_MAX];
	size_t bytes;
	char *p;

	for (unsigned i = 0; rest && i < skald__option_count; i++) {
		const struct skald_option *option = &skald__options[i];

		if (!skald__option_find(SKALD__SOURCE_PREFIX, option->key) ||
			(strcmp(option->section, SKALD__SOURCE_PREFIX) != 0 &&
				strcmp(option->section, "relay") != 0))
			continue;
		variable_of("", option->key, end);
		if (!ends_with(rest, end) || strlen(rest) == strlen(end))
			continue;
		bytes = strlen(rest) - strlen(end);
		snprintf(t->key, sizeof(t->key), "%s", option->key);
		snprintf(t->section, sizeof(t->section), "%s%.*s", SKALD__SOURCE_PREFIX,
			(int)(bytes < 64 ? bytes : 64), rest);
		for (p = t->section; *p; p++)
			*p = *p == '_' ? '-' : (char)tolower((unsigned char)*p);
		/* A source of the file may be spelled with "_" or "." where the variable has "_". */
		for (unsigned v = 0; v < config->count; v++) {
			const char *known = config->values[v].section;

			variable_of(known, option->key, variable);
			if (skald__is_source(known) && strcmp(variable, name) == 0)
				snprintf(t->section, sizeof(t->section), "%s", known);
		}
		return true;
	}
	return false;
}

/* name is without SKALD_. */
static bool
find_target(const struct skald_config *config, const char *name, struct target *t)
{
	char variable[NAME_BYTES_MAX];

	for (unsigned i = 0; i < skald__option_count; i++) {
		const struct skald_option *option = &skald__options[i];

		variable_of(option->section, option->key, variable);
		if (strcmp(variable, name) == 0 && !skald__is_source(option->section)) {
			snprintf(t->section, sizeof(t->section), "%s", option->section);
			snprintf(t->key, sizeof(t->key), "%s", option->key);
			return true;
		}
	}
	return find_kafka(name, t) || find_source(config, name, t);
}

static bool
has_known_section(const char *name)
{
	for (unsigned i = 0; i < skald__section_count; i++)
		if (rest_after(name, skald__sections[i].name))
			return true;
	return false;
}

/* Something of ours mistyped, or Kubernetes: not worth a refused start, but worth a word. */
static void
warn(const char *name)
{
	char known[64][NAME_BYTES_MAX];
	const char *list[64];
	unsigned count = 0;
	const char *nearest;

	for (unsigned i = 0; i < skald__option_count && count < 64; i++, count++) {
		variable_of(
			skald__options[i].section, skald__options[i].key, known[count]);
		list[count] = known[count];
	}
	nearest = skald_nearest(name, list, count);
	if (nearest)
		skald_log(SKALD_LOG_WARN,
			"environment variable %s%s means nothing; did you mean %s%s?",
			prefix, name, prefix, nearest);
	else
		skald_log(SKALD_LOG_WARN, "environment variable %s%s means nothing",
			prefix, name);
}

static enum skald_rc
read_variable(struct skald_config *config, const char *variable, struct skald_err *err)
{
	char where[NAME_BYTES_MAX];
	const char *equals = strchr(variable, '=');
	const char *name = where + strlen(prefix);
	struct target t;

	if (!equals || strncmp(variable, prefix, strlen(prefix)) != 0 ||
		!skald_slice_copy(skald_slice_make(variable, (size_t)(equals - variable)),
			where, sizeof(where)))
		return SKALD_OK;
	if (find_target(config, name, &t))
		return skald__config_set(config, t.section, t.key, equals + 1,
			SKALD__FROM_ENVIRONMENT, where, err);
	if (has_known_section(name))
		warn(name);
	return SKALD_OK;
}

enum skald_rc
skald__config_read_environment(
	struct skald_config *config, char *const *variables, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (; !rc && *variables; variables++)
		rc = read_variable(config, *variables, err);
	return rc;
}
