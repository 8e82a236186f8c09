/*
 * config.c - the values: stored in the order of their precedence, each with the
 * place it came from, looked up by section and key.
 */
#include "base/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/config_own.h"

enum { NAME_BYTES_MAX = 256, KNOWN_MAX = 64 };

/* --- storing ------------------------------------------------------------------------------- */

const struct skald__value *
skald__config_find(
	const struct skald_config *config, const char *section, const char *key)
{
	for (unsigned i = 0; i < config->count; i++)
		if (strcmp(config->values[i].section, section) == 0 &&
			strcmp(config->values[i].key, key) == 0)
			return &config->values[i];
	return NULL;
}

static void
free_value(struct skald__value *value)
{
	free(value->section);
	free(value->key);
	free(value->text);
	free(value->where);
}

/* The value's place: the one it replaces, or a new one at the end. */
static struct skald__value *
place_for(struct skald_config *config, const struct skald__value *old)
{
	struct skald__value *values;
	unsigned room;

	if (old) {
		struct skald__value *place = &config->values[old - config->values];

		free_value(place);
		return place;
	}
	if (config->count == config->room) {
		room = config->room ? config->room * 2 : KNOWN_MAX;
		values = realloc(config->values, room * sizeof(*values));
		if (!values)
			return NULL;
		config->values = values;
		config->room = room;
	}
	return &config->values[config->count++];
}

static enum skald_rc
refuse_unknown(
	const char *section, const char *key, const char *where, struct skald_err *err)
{
	const char *words[KNOWN_MAX], *elsewhere = NULL, *nearest;
	const char *like = skald__is_source(section) ? "relay" : section;
	unsigned count = 0;

	if (skald__is_source(section))
		words[count++] = "url";
	for (unsigned i = 0; i < skald__option_count; i++) {
		if (strcmp(skald__options[i].section, like) == 0 && count < KNOWN_MAX)
			words[count++] = skald__options[i].key;
		else if (strcmp(skald__options[i].key, key) == 0 &&
			 !skald__is_source(skald__options[i].section))
			elsewhere = skald__options[i].section;
	}
	nearest = skald_nearest(key, words, count);
	if (nearest)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"%s: %s.%s: no such key; did you mean %s?", where, section, key,
			nearest);
	if (elsewhere)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"%s: %s.%s: no such key; it belongs into [%s]", where, section,
			key, elsewhere);
	return skald_fail(err, SKALD_REJECT, "config", "", "%s: %s.%s: no such key",
		where, section, key);
}

static bool
is_source_name(const char *name)
{
	size_t bytes = strlen(name);

	return bytes >= 1 && bytes <= 40 && name[0] != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == bytes &&
	       strcmp(name, "main") != 0;
}

enum skald_rc
skald__config_check_section(const char *section, const char *where, struct skald_err *err)
{
	const char *words[KNOWN_MAX], *nearest;
	unsigned count = 0;

	if (skald__is_source(section)) {
		if (is_source_name(section + strlen(SKALD__SOURCE_PREFIX)))
			return SKALD_OK;
		return skald_fail(err, SKALD_REJECT, "config", "",
			"%s: [%s]: a source's name has 1 to 40 of a-z 0-9 _ - and is not "
			"main, which is [database]",
			where, section);
	}
	for (unsigned i = 0; i < skald__section_count; i++) {
		if (strcmp(skald__sections[i].name, section) == 0)
			return SKALD_OK;
		if (count < KNOWN_MAX)
			words[count++] = skald__sections[i].name;
	}
	nearest = skald_nearest(section, words, count);
	return skald_fail(err, SKALD_REJECT, "config", "",
		"%s: [%s]: no such section%s%s%s", where, section,
		nearest ? "; did you mean [" : "", nearest ? nearest : "",
		nearest ? "]?" : "");
}

enum skald_rc
skald__config_set(struct skald_config *config, const char *section, const char *key,
	const char *text, enum skald__config_rank rank, const char *where,
	struct skald_err *err)
{
	const struct skald_option *option = skald__option_find(section, key);
	const struct skald__value *old = skald__config_find(config, section, key);
	struct skald__value made = { .rank = rank, .option = option };
	char name[NAME_BYTES_MAX];
	struct skald__value *place;
	enum skald_rc rc;

	rc = skald__config_check_section(section, where, err);
	if (rc)
		return rc;
	if (!option || !key[0])
		return refuse_unknown(section, key, where, err);
	if (old && rank == SKALD__FROM_FILE && old->rank == rank)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"%s: %s.%s: given twice, first in %s", where, section, key,
			old->where);
	made.section = strdup(section);
	made.key = strdup(key);
	made.text = strdup(text);
	made.where = strdup(where);
	rc = SKALD_FATAL;
	if (!made.section || !made.key || !made.text || !made.where)
		goto no_memory;
	snprintf(name, sizeof(name), "%s.%s", section, key);
	rc = skald__value_check(option, where, name, made.text, &made.number, err);
	if (rc)
		goto out;
	rc = SKALD_FATAL;
	place = place_for(config, old);
	if (!place)
		goto no_memory;
	*place = made;
	return SKALD_OK;
no_memory:
	skald_fail(err, rc, "config", "", "out of memory");
out:
	free_value(&made);
	return rc;
}

/* source: "payment" or "source.payment"; any other name has what [relay] has. */
static const struct skald__value *
source_value(const struct skald_config *config, const char *source, const char *key)
{
	const struct skald__value *value;
	char section[NAME_BYTES_MAX];

	SKALD_ASSERT(skald__option_find(SKALD__SOURCE_PREFIX, key));
	snprintf(section, sizeof(section), "%s%s",
		skald__is_source(source) ? "" : SKALD__SOURCE_PREFIX, source);
	value = skald__config_find(config, section, key);
	return value ? value : skald__config_find(config, "relay", key);
}

/* --- loading ------------------------------------------------------------------------------- */

enum skald_rc
skald__config_create(struct skald_config **out, struct skald_err *err)
{
	struct skald_config *config = calloc(1, sizeof(*config));
	enum skald_rc rc = SKALD_OK;

	if (!config)
		return skald_fail(err, SKALD_FATAL, "config", "", "out of memory");
	for (unsigned i = 0; !rc && i < skald__option_count; i++) {
		const struct skald_option *option = &skald__options[i];

		if (option->fallback)
			rc = skald__config_set(config, option->section, option->key,
				option->fallback, SKALD__FROM_DEFAULT, "default", err);
	}
	if (rc)
		skald_config_destroy(config);
	else
		*out = config;
	return rc;
}

static enum skald_rc
read_files(struct skald_config *config, const char *file, struct skald_err *err)
{
	const char *from_environment = getenv("SKALD_CONFIG");
	bool found;
	enum skald_rc rc;

	if (!file && from_environment && from_environment[0])
		file = from_environment;
	if (file)
		return skald__config_read_file(config, file, true, &found, err);
	rc = skald__config_read_file(config, "skald.conf", false, &found, err);
	if (!rc && !found)
		rc = skald__config_read_file(
			config, "/etc/skald/skald.conf", false, &found, err);
	return rc;
}

/* "section.key=value"; the key of a source is behind the last dot, else behind the first. */
static enum skald_rc
read_set(struct skald_config *config, const char *set, struct skald_err *err)
{
	char section[NAME_BYTES_MAX];
	const char *equals = strchr(set, '=');
	char *dot;

	if (!equals || !skald_slice_copy(skald_slice_make(set, (size_t)(equals - set)),
			       section, sizeof(section)))
		return skald_fail(err, SKALD_REJECT, "config", "",
			"--set %.60s: must be section.key=value", equals ? "..." : set);
	dot = skald__is_source(section) ? strrchr(section, '.') : strchr(section, '.');
	if (!dot)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"--set %.60s=...: must be section.key=value", section);
	*dot = '\0';
	return skald__config_set(
		config, section, dot + 1, equals + 1, SKALD__FROM_FLAG, "--set", err);
}

/* A rule over two keys, for [relay] ("main") and each source. */
static enum skald_rc
check_polls(const struct skald_config *config, const char *source, struct skald_err *err)
{
	const struct skald__value *least = source_value(config, source, "poll_min");
	const struct skald__value *most = source_value(config, source, "poll_max");

	if (least->number <= most->number)
		return SKALD_OK;
	return skald_fail(err, SKALD_REJECT, "config", "",
		"%s: %s.poll_min: must not be above poll_max, %s (%lldms > %lldms)",
		least->where, least->section, most->where, (long long)least->number,
		(long long)most->number);
}

static enum skald_rc
check_together(const struct skald_config *config, struct skald_err *err)
{
	enum skald_rc rc = check_polls(config, "main", err);
	const struct skald__value *value =
		skald__config_find(config, "topics", "replication");

	if (!rc && value->number == 0)
		rc = skald_fail(err, SKALD_REJECT, "config", "",
			"%s: topics.replication: must be -1 or at least 1", value->where);
	for (unsigned i = 0; !rc && i < config->count; i++) {
		value = &config->values[i];
		if (!skald__is_source(value->section))
			continue;
		if (!skald_config_text(config, value->section, "url"))
			rc = skald_fail(err, SKALD_REJECT, "config", "",
				"%s: %s.url: must be set", value->where, value->section);
		else
			rc = check_polls(config,
				value->section + strlen(SKALD__SOURCE_PREFIX), err);
	}
	return rc;
}

enum skald_rc
skald_config_load(struct skald_config **out, const struct skald_config_args *args,
	struct skald_err *err)
{
	struct skald_config *config = NULL;
	enum skald_rc rc;

	rc = skald__config_create(&config, err);
	if (!rc)
		rc = read_files(config, args ? args->file : NULL, err);
	if (!rc)
		rc = skald__config_read_environment(config, environ, err);
	for (unsigned i = 0; !rc && args && i < args->set_count; i++)
		rc = read_set(config, args->sets[i], err);
	if (!rc)
		rc = check_together(config, err);
	if (rc)
		skald_config_destroy(config);
	else
		*out = config;
	return rc;
}

void
skald_config_destroy(struct skald_config *config)
{
	if (!config)
		return;
	for (unsigned i = 0; i < config->count; i++)
		free_value(&config->values[i]);
	free(config->values);
	free(config);
}

/* --- asking -------------------------------------------------------------------------------- */

static const struct skald__value *
value_of(const struct skald_config *config, const char *section, const char *key)
{
	SKALD_ASSERT(skald__option_find(section, key));
	return skald__config_find(config, section, key);
}

/* An empty value of an option without default is the same as none: "token_file =". */
static const char *
text_of(const struct skald__value *value)
{
	if (!value || (!value->text[0] && !value->option->fallback))
		return NULL;
	return value->text;
}

const char *
skald_config_text(const struct skald_config *config, const char *section, const char *key)
{
	return text_of(value_of(config, section, key));
}

int64_t
skald_config_int(const struct skald_config *config, const char *section, const char *key)
{
	const struct skald__value *value = value_of(config, section, key);

	return value ? value->number : 0;
}

bool
skald_config_bool(const struct skald_config *config, const char *section, const char *key)
{
	return skald_config_int(config, section, key) != 0;
}

int64_t
skald_config_ms(const struct skald_config *config, const char *section, const char *key)
{
	return skald_config_int(config, section, key);
}

const char *
skald_config_source_text(
	const struct skald_config *config, const char *source, const char *key)
{
	return text_of(source_value(config, source, key));
}

int64_t
skald_config_source_ms(
	const struct skald_config *config, const char *source, const char *key)
{
	const struct skald__value *value = source_value(config, source, key);

	return value ? value->number : 0;
}

int64_t
skald_config_source_bytes(
	const struct skald_config *config, const char *source, const char *key)
{
	return skald_config_source_ms(config, source, key);
}

void
skald_config_each(const struct skald_config *config, const char *section,
	skald_config_visit_fn visit, void *ctx)
{
	for (unsigned i = 0; i < config->count; i++)
		if (strcmp(config->values[i].section, section) == 0 &&
			text_of(&config->values[i]))
			visit(config->values[i].key, config->values[i].text, ctx);
}

void
skald_config_each_section(const struct skald_config *config, const char *prefix,
	skald_config_visit_fn visit, void *ctx)
{
	for (unsigned i = 0; i < config->count; i++) {
		const char *section = config->values[i].section;
		unsigned first = 0;

		while (strcmp(config->values[first].section, section) != 0)
			first++;
		if (first == i && strncmp(section, prefix, strlen(prefix)) == 0)
			visit(section + strlen(prefix), section, ctx);
	}
}
