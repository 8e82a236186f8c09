/*
 * config.h - one INI file, the environment, --set; one table of options.
 *
 * flag beats environment beats file beats default. Every value remembers where
 * it came from. Keys of [kafka] and of any other pass-through section are kept
 * verbatim; [source.NAME] sections take every [relay] key and url.
 */
#ifndef SKALD_BASE_CONFIG_H
#define SKALD_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"

enum skald_option_type {
	SKALD_OPTION_TEXT,
	SKALD_OPTION_INT, /* range min..max */
	SKALD_OPTION_BOOL, /* true false on off yes no 1 0 */
	SKALD_OPTION_DURATION, /* 10s; range in ms */
	SKALD_OPTION_BYTES, /* 64KiB 16MiB or a plain number */
	SKALD_OPTION_CHOICE, /* choices "a|b|c" */
	SKALD_OPTION_LIST, /* comma separated, choices may restrict the items */
	SKALD_OPTION_SECRET, /* text, masked when printed */
};

struct skald_option {
	const char *section;
	const char *key;
	enum skald_option_type type;
	const char *fallback; /* printed as is; NULL: no default */
	int64_t min, max;
	const char *choices;
	const char *help; /* one line, for the sample and --help */
};

struct skald_config;

/* argv flags read here: --config F, --set section.key=value (both may use '='). */
struct skald_config_args {
	const char *file; /* NULL: $SKALD_CONFIG, ./skald.conf, /etc/skald/skald.conf */
	const char *const *sets; /* "section.key=value" */
	unsigned set_count;
};

/*
 * Load and check everything. REJECT names file, line, key, rule and the nearest
 * known key. An unknown SKALD_<SECTION>_<KEY> variable is a warning on the log.
 */
SKALD_MUSTUSE enum skald_rc skald_config_load(struct skald_config **out,
	const struct skald_config_args *args, struct skald_err *err);
void skald_config_destroy(struct skald_config *config);

/* Borrowed until destroy; NULL when unset and without default. Unknown key: assertion. */
const char *skald_config_text(
	const struct skald_config *config, const char *section, const char *key);
int64_t skald_config_int(
	const struct skald_config *config, const char *section, const char *key);
bool skald_config_bool(
	const struct skald_config *config, const char *section, const char *key);
int64_t skald_config_ms(
	const struct skald_config *config, const char *section, const char *key);
/* The key as [source.NAME] has it, else as [relay] has it. source: NAME, or "main". */
const char *skald_config_source_text(
	const struct skald_config *config, const char *source, const char *key);
int64_t skald_config_source_ms(
	const struct skald_config *config, const char *source, const char *key);
int64_t skald_config_source_bytes(
	const struct skald_config *config, const char *source, const char *key);

/*
 * Visit each key that is set in a section ("kafka"), or each section of a prefix
 * ("source."): then key is the NAME behind it and value the whole section.
 */
typedef void (*skald_config_visit_fn)(const char *key, const char *value, void *ctx);
void skald_config_each(const struct skald_config *config, const char *section,
	skald_config_visit_fn visit, void *ctx);
void skald_config_each_section(const struct skald_config *config, const char *prefix,
	skald_config_visit_fn visit, void *ctx);

void skald_config_print(
	const struct skald_config *config, FILE *out); /* --print-config */
void skald_config_sample(FILE *out); /* documented sample */

/* Nearest of words by edit distance, or NULL when none is near. For "did you mean". */
const char *skald_nearest(const char *word, const char *const *words, unsigned count);

#endif
