/*
 * own.h - what the files of the operator's tool share.
 *
 * A command is a row of a table (its flags too), its function returns the exit
 * status. Everything a program reads goes to stdout, everything that went
 * wrong to stderr, with a hint that can be pasted where there is one.
 */
#ifndef SKALD_CLI_OWN_H
#define SKALD_CLI_OWN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/config.h"
#include "base/err.h"
#include "base/slice.h"
#include "base/uuid.h"
#include "sql/sql.h"

enum skald__exit {
	SKALD_EXIT_DONE = 0,
	SKALD_EXIT_NO = 1, /* not found, nothing matched, unhealthy */
	SKALD_EXIT_USAGE = 2, /* usage or invalid input */
	SKALD_EXIT_PART = 3, /* done in part */
	SKALD_EXIT_GUARD = 4, /* stopped by a guard, not confirmed, time is up */
	SKALD_EXIT_STATE = 5, /* refused by the current state */
	SKALD_EXIT_OUTAGE = 6, /* database or broker unreachable */
};

#define SKALD__BYTES_MAX (64 * 1024 * 1024) /* of one line: a value in base64 and more */

/* --- args.c: the command line ----------------------------------------------------------- */

struct skald__flag {
	const char *name; /* "--group" */
	const char *value; /* what stands behind it, for help; NULL: a switch */
	const char *help;
};

struct skald__cli;

struct skald__command {
	const char *noun;
	const char *verb; /* NULL: the noun is the command */
	const char *args; /* "ID"; NULL: none */
	unsigned args_min, args_max;
	const char *summary; /* one line */
	const char *more; /* paragraphs of --help, or NULL */
	const struct skald__flag *const *flags; /* lists of them, NULL at the end */
	enum skald__exit (*run)(struct skald__cli *cli);
};

extern const struct skald__command skald__commands[]; /* main_skald.c */
extern const unsigned skald__command_count;

#define SKALD__ARGS_MAX 8
#define SKALD__SETS_MAX 256

struct skald__cli {
	const struct skald__command *command;
	const char *args[SKALD__ARGS_MAX];
	unsigned arg_count;
	struct {
		const char *name;
		const char *value;
	} given[64];
	unsigned given_count;
	struct skald_config_args config_args;
	const char *sets[SKALD__SETS_MAX];
	char *made_sets[2]; /* of --database and --brokers; freed at the end */
	struct skald_config *config;
	bool is_json;
	bool is_quiet;
	bool is_color;
	bool is_help;
	unsigned width; /* columns of the terminal, 80 elsewhere */
};

/* Fills cli; on a usage error says so and returns its exit status. argv is borrowed. */
enum skald__exit skald__args_parse(struct skald__cli *cli, int argc, char **argv);
void skald__args_done(struct skald__cli *cli);
const struct skald__flag *skald__global_flags(void); /* a NULL name at the end */
const char *skald__flag_value(
	const struct skald__cli *cli, const char *name); /* or NULL */
bool skald__flag_is_given(const struct skald__cli *cli, const char *name);
/* "--limit 20" within min..max; else an error that names flag and rule. */
enum skald__exit skald__flag_int(struct skald__cli *cli, const char *name, int64_t min,
	int64_t max, int64_t *value);
/* "--timeout 30s". */
enum skald__exit skald__flag_ms(struct skald__cli *cli, const char *name, int64_t *ms);
/* "--since 2h" or RFC 3339, as RFC 3339 text in dst; dst is "" when not given. */
enum skald__exit skald__flag_time(
	struct skald__cli *cli, const char *name, char *dst, size_t dst_bytes);

/* --- help.c --------------------------------------------------------------------------------- */

void skald__help(const struct skald__cli *cli, FILE *out); /* of the command, or of all */
void skald__help_noun(const char *noun, FILE *out);
/* Words of text at column `indent`, continued there, at most 80 columns. */
void skald__wrap(FILE *out, const char *text, unsigned column, unsigned indent);

/* --- fail.c: errors and exit statuses ----------------------------------------------------- */

/* Say it on stderr (--json: as an object) and return status. field and hint may be NULL. */
enum skald__exit skald__fail(const struct skald__cli *cli, enum skald__exit status,
	const char *code, const char *field, const char *hint, const char *fmt, ...)
	SKALD_PRINTF(6, 7);
/* The status and hint that belong to an err; hint NULL: the usual one of its kind. */
enum skald__exit skald__fail_err(const struct skald__cli *cli, enum skald_rc rc,
	const struct skald_err *err, const char *hint);
enum skald__exit skald__status_of(enum skald_rc rc, const struct skald_err *err);

/* --- out.c: text, tables, JSON -------------------------------------------------------------- */

enum skald__paint {
	SKALD_PAINT_GOOD,
	SKALD_PAINT_WARN,
	SKALD_PAINT_BAD,
	SKALD_PAINT_FAINT,
	SKALD_PAINT_STRONG,
};
/* Escape sequences, or "" without colour. */
const char *skald__paint(const struct skald__cli *cli, enum skald__paint paint);
const char *skald__unpaint(const struct skald__cli *cli);

/* Outside text for a terminal: one line, control characters shown as \n or \x1b. */
void skald__add_clean(struct skald_buf *buf, struct skald_slice text);
unsigned skald__columns_of(struct skald_slice text); /* on the terminal */
/* Cut to so many columns, the last one "..." as one character when it was cut. */
void skald__add_cut(struct skald_buf *buf, struct skald_slice clean, unsigned columns);
/* "3s" "12m" "5h" "2d" since an RFC 3339 instant; "-" for none. */
void skald__age(struct skald_slice time, char *dst, size_t dst_bytes);
/* "812B" "1.5K" "64M" "2.1G": four digits at most. */
void skald__size(int64_t bytes, char *dst, size_t dst_bytes);
/* encode(bytes, 'hex') back to bytes. */
void skald__add_unhex(struct skald_buf *buf, struct skald_slice hex);
/* "name": text, or null for a NULL slice; as base64 under name_base64 if it is no UTF-8. */
void skald__json_add(struct skald_buf *buf, const char *name, struct skald_slice text);
/* JSON, numbers, true and false: as they are; null for a NULL slice. */
void skald__json_add_raw(struct skald_buf *buf, const char *name, struct skald_slice raw);
/* fwrite, and failure at the end of main. */
void skald__put(struct skald_slice text);

/* --- table.c: rows of a query ------------------------------------------------------------ */

enum skald__kind {
	SKALD_KIND_TEXT,
	SKALD_KIND_NUMBER,
	SKALD_KIND_BYTES, /* a number; a table shows 1.5M */
	SKALD_KIND_RAW, /* true, false, JSON */
	SKALD_KIND_TIME, /* RFC 3339; a table shows the age */
	SKALD_KIND_POSITION, /* ce_sequence; a table shows it without leading zeros */
	SKALD_KIND_ID, /* uuid; a table shows the first 8 digits */
	SKALD_KIND_HEX, /* encode(bytes, 'hex'); shown as the text it may be */
};

struct skald__column { /* in the order of the query's columns */
	const char *name; /* in JSON */
	const char *title; /* of the table; NULL: JSON only */
	enum skald__kind kind;
	unsigned columns_min; /* may be cut down to so many; 0: never cut */
};

/* One object per line, or a table that fits the terminal, indented by so many. */
void skald__rows_print(const struct skald__cli *cli, const struct skald__column *columns,
	unsigned column_count, const struct skald_rows *rows, unsigned indent);
/* One cell of a table, clean; replaces what cell held. */
void skald__cell(const struct skald__column *column, struct skald_slice value,
	struct skald_buf *cell);
void skald__row_json(const struct skald__column *columns, unsigned column_count,
	const struct skald_rows *rows, unsigned row, struct skald_buf *out);
/* "50 of 1204" below a list; nothing with --json. */
void skald__rows_count_print(
	const struct skald__cli *cli, const char *what, unsigned shown, int64_t total);

/* --- place.c: the databases of the configuration -------------------------------------------- */

struct skald__place {
	char name[64]; /* "main" or of [source.NAME] */
	const char *url; /* borrowed from the configuration */
};
#define SKALD__PLACES_MAX 64
struct skald__places {
	struct skald__place items[SKALD__PLACES_MAX];
	unsigned count;
};
/* --source NAME: that one; else all (is_all) or [database]. */
enum skald__exit skald__places_find(
	struct skald__cli *cli, bool is_all, struct skald__places *places);
/* A session on one; says what went wrong. */
enum skald__exit skald__place_open(const struct skald__cli *cli,
	const struct skald__place *place, struct skald_sql **sql);
/* The same without a word, for those who put the trouble in their own answer. */
enum skald_rc skald__place_try(const struct skald__cli *cli,
	const struct skald__place *place, struct skald_sql **sql, struct skald_err *err);
/* One place, one session: what most commands begin with. */
enum skald__exit skald__open(struct skald__cli *cli, struct skald_sql **sql);
/* Run a statement on it; on failure says so and returns the status. */
enum skald__exit skald__query(const struct skald__cli *cli, struct skald_sql *sql,
	const char *statement, const struct skald_param *params, unsigned count,
	struct skald_rows **rows);
/* Who acts, for the audit: --actor, else the user of the operating system. */
const char *skald__actor(const struct skald__cli *cli);

/* An instant as RFC 3339 in UTC, for a list of columns. */
#define SKALD__UTC(column) \
	"to_char(" column " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"

/* --- select.c: which dead letters ----------------------------------------------------------- */

#define SKALD__WHERE_PARAMS_MAX 20

struct skald__where { /* "WHERE ..." and its parameters; see skald__where_done */
	struct skald_buf text;
	struct skald_buf values[SKALD__WHERE_PARAMS_MAX];
	struct skald_param params[SKALD__WHERE_PARAMS_MAX];
	unsigned count;
};
extern const struct skald__flag skald__select_flags[];
void skald__where_init(struct skald__where *where);
void skald__where_done(struct skald__where *where);
/* condition with %s where the parameter stands: "topic = %s". */
void skald__where_add(
	struct skald__where *where, const char *condition, struct skald_slice value);
/* The flags that are given, each its condition; NULL ends them. */
struct skald__where_flag {
	const char *flag, *condition;
	bool is_time; /* an age or an instant */
};
enum skald__exit skald__where_flags(struct skald__cli *cli, struct skald__where *where,
	const struct skald__where_flag *flags);
/* The ids on standard input; condition as above ("id = ANY (%s::uuid[])"). */
enum skald__exit skald__where_ids(
	struct skald__cli *cli, struct skald__where *where, const char *condition);
/* The selection of the flags given; is_open: only open ones unless --all. */
enum skald__exit skald__where_dead_letters(
	struct skald__cli *cli, struct skald__where *where, bool is_open);

/* --- guard.c: before an act on a selection -------------------------------------------------- */

extern const struct skald__flag skald__guard_flags[]; /* --dry-run --max */
/* One of the selection's flags is needed, and a reason for --all or when asked for. */
enum skald__exit skald__guard_selection(struct skald__cli *cli,
	const struct skald__flag *selection, const char *doing, bool needs_reason,
	int64_t *max);
/* Not more than max, and confirmed when it is more than one. */
enum skald__exit skald__guard_count(const struct skald__cli *cli, const char *doing,
	const char *what, int64_t count, int64_t max);

/* cmd_dlq.c: the dead letter whose id, or its beginning, is the first argument. */
enum skald__exit skald__dead_letter_find(
	struct skald__cli *cli, struct skald_sql *sql, char id[SKALD_UUID_TEXT_BYTES]);
/* cmd_consumer.c: groups and topics with lag; stopped where this role may see it. */
enum skald_rc skald__consumers_by_topic(struct skald_sql *sql,
	const struct skald_param *params, struct skald_rows **rows,
	struct skald_err *err);

/* --- commands ---------------------------------------------------------------------------------- */

extern const struct skald__flag skald__limit_flags[], skald__status_flags[],
	skald__migrate_flags[], skald__grants_flags[], skald__outbox_flags[],
	skald__tail_flags[], skald__consumer_flags[], skald__cat_flags[],
	skald__replay_flags[], skald__saga_select_flags[], skald__saga_start_flags[],
	skald__saga_deploy_flags[], skald__parked_flags[], skald__epoch_flags[];

enum skald__exit skald__cmd_status(struct skald__cli *cli);
enum skald__exit skald__cmd_doctor(struct skald__cli *cli);
enum skald__exit skald__cmd_db_migrate(struct skald__cli *cli);
enum skald__exit skald__cmd_db_status(struct skald__cli *cli);
enum skald__exit skald__cmd_db_grants(struct skald__cli *cli);
enum skald__exit skald__cmd_db_adopt(struct skald__cli *cli);
enum skald__exit skald__cmd_outbox_ls(struct skald__cli *cli);
enum skald__exit skald__cmd_outbox_tail(struct skald__cli *cli);
enum skald__exit skald__cmd_outbox_parked(struct skald__cli *cli);
enum skald__exit skald__cmd_outbox_retry(struct skald__cli *cli);
enum skald__exit skald__cmd_outbox_skip(struct skald__cli *cli);
enum skald__exit skald__cmd_outbox_new_epoch(struct skald__cli *cli);
enum skald__exit skald__cmd_consumer_ls(struct skald__cli *cli);
enum skald__exit skald__cmd_consumer_lanes(struct skald__cli *cli);
enum skald__exit skald__cmd_dlq_ls(struct skald__cli *cli);
enum skald__exit skald__cmd_dlq_show(struct skald__cli *cli);
enum skald__exit skald__cmd_dlq_cat(struct skald__cli *cli);
enum skald__exit skald__cmd_dlq_replay(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_validate(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_deploy(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_defs(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_use(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_retire(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_start(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_ls(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_show(struct skald__cli *cli);
enum skald__exit skald__cmd_saga_history(struct skald__cli *cli);
enum skald__exit skald__cmd_trace(struct skald__cli *cli);
enum skald__exit skald__cmd_config_sample(struct skald__cli *cli);
enum skald__exit skald__cmd_config_show(struct skald__cli *cli);
enum skald__exit skald__cmd_version(struct skald__cli *cli);

#endif
