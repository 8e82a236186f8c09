/*
 * config_own.h - what the config_*.c files share.
 */
#ifndef SKALD_BASE_CONFIG_OWN_H
#define SKALD_BASE_CONFIG_OWN_H

#include "base/config.h"

#define SKALD__SOURCE_PREFIX "source."

/* Who beats whom: the higher one. */
enum skald__config_rank {
	SKALD__FROM_DEFAULT,
	SKALD__FROM_FILE,
	SKALD__FROM_ENVIRONMENT,
	SKALD__FROM_FLAG,
};

struct skald__value {
	char *section;
	char *key;
	char *text;
	char *where; /* "skald.conf:12", "SKALD_LOG_LEVEL", "--set" */
	int64_t number; /* of numbers, durations (ms), bytes and booleans */
	enum skald__config_rank rank;
	const struct skald_option *option;
};

struct skald_config {
	struct skald__value *values;
	unsigned count, room;
};

/* --- config_table.c: every option there is ------------------------------------------------ */

extern const struct skald_option skald__options[];
extern const unsigned skald__option_count;

struct skald__section {
	const char *name; /* "source." stands for all of them */
	const char *help;
};
extern const struct skald__section skald__sections[];
extern const unsigned skald__section_count;

bool skald__is_source(const char *section);
/* The option behind a section and key; NULL if there is none. */
const struct skald_option *skald__option_find(const char *section, const char *key);

/* --- config_value.c: one value against its option ----------------------------------------- */

/* text may be rewritten (lists lose their blanks). where and name begin the error. */
enum skald_rc skald__value_check(const struct skald_option *option, const char *where,
	const char *name, char *text, int64_t *number, struct skald_err *err);
/* "1ms to 10s", "a, b or c": what the option takes. */
void skald__value_describe(const struct skald_option *option, struct skald_buf *out);

/* --- config.c ------------------------------------------------------------------------------ */

enum skald_rc skald__config_set(struct skald_config *config, const char *section,
	const char *key, const char *text, enum skald__config_rank rank,
	const char *where, struct skald_err *err);
/* The section itself, for those without a key. */
enum skald_rc skald__config_check_section(
	const char *section, const char *where, struct skald_err *err);
const struct skald__value *skald__config_find(
	const struct skald_config *config, const char *section, const char *key);
enum skald_rc skald__config_create(struct skald_config **out, struct skald_err *err);

/* --- config_file.c, config_env.c ------------------------------------------------------------ */

/* INI text, line by line; file names it in errors and provenance. */
enum skald_rc skald__config_read_text(struct skald_config *config, const char *file,
	struct skald_slice text, struct skald_err *err);
/* must_exist: a missing file is an error; else *found tells. */
enum skald_rc skald__config_read_file(struct skald_config *config, const char *file,
	bool must_exist, bool *found, struct skald_err *err);
/* "NAME=value" pairs as environ has them, ended by NULL. */
enum skald_rc skald__config_read_environment(
	struct skald_config *config, char *const *variables, struct skald_err *err);

#endif
