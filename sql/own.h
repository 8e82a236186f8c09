/*
 * own.h - what the files of sql/ share.
 */
#ifndef SKALD_SQL_OWN_H
#define SKALD_SQL_OWN_H

#include "sql/sql.h"

struct pg_result; /* libpq's own tag of PGresult */

#define SKALD__PARAMS_MAX     64 /* of one statement; ours have at most 20 */
#define SKALD__STATEMENTS_MAX 256 /* prepared per session; more run unprepared */
#define SKALD__SLOTS          512 /* hash slots: a power of two, twice the above */
#define SKALD__NAME_BYTES     16

/* A statement prepared under the name "s<number>", found by the address of its text. */
struct skald__statement {
	const char *address; /* NULL: the slot is free */
	char *text; /* own copy: tells when an address is used for another text */
	unsigned number;
	bool is_prepared;
	bool was_used; /* once, as it stands: most of a start's statements never come again */
};

/* What a pipeline still owes us, in order. */
enum skald__op_kind { SKALD__OP_PREPARE, SKALD__OP_QUERY, SKALD__OP_SYNC };

struct skald__op {
	enum skald__op_kind kind;
	struct skald__statement *statement; /* may be NULL: unprepared, or a sync */
};

struct skald_sql {
	struct pg_conn *conn;
	bool is_dead; /* the server said good-bye; libpq may not have seen the end yet */
	struct skald__statement slots[SKALD__SLOTS];
	unsigned statement_count;
	unsigned next_number;
	/* pipeline */
	struct skald__op *ops; /* ring of op_room, a power of two */
	size_t op_head;
	size_t op_count;
	size_t op_room;
	size_t unflushed_count; /* ops after the last sync or flush request */
	bool is_unsynced; /* ops after the last sync */
	enum skald_rc failed; /* of the current segment, until its sync */
	struct skald_err failure;
};

/* A statement's parameters as libpq wants them. */
struct skald__params {
	unsigned types[SKALD__PARAMS_MAX];
	const char *values[SKALD__PARAMS_MAX];
	int lengths[SKALD__PARAMS_MAX];
	int formats[SKALD__PARAMS_MAX];
};

void skald__params_fill(
	struct skald__params *dst, const struct skald_param *params, unsigned count);

/* Find or add; NULL when the cache is full or memory is short: run it unprepared. */
struct skald__statement *skald__statement_get(struct skald_sql *sql, const char *text);
/* It is to be prepared (again) under a new name. */
void skald__statement_forget(struct skald_sql *sql, struct skald__statement *st);
void skald__statement_name(
	const struct skald__statement *st, char dst[SKALD__NAME_BYTES]);
/* The server no longer has it, or its result changed shape: prepare it again. */
bool skald__statement_is_stale(const struct pg_result *res);

/* res moves into *rows; on failure it is cleared. rows may be NULL. */
enum skald_rc skald__rows_take(
	struct pg_result **res, struct skald_rows **rows, struct skald_err *err);

/*
 * A connection within conf's time limit; blocking, notices dropped. is_replication: a
 * walsender of that database.
 */
enum skald_rc skald__connect(struct pg_conn **out, const struct skald_sql_conf *conf,
	bool is_replication, struct skald_err *err);

/* us since 2000 -> us since 1970; false: infinite. */
bool skald__time_us(int64_t since_2000, int64_t *wall_us);

/* SQLSTATE -> what to do. */
enum skald_rc skald__rc_of_state(const char *sqlstate);
/* Fill err from a failed result (NULL: from the connection). */
enum skald_rc skald__fail_result(
	const struct pg_conn *conn, const struct pg_result *res, struct skald_err *err);
/* The same for a session, which learns that it is dead from the server's last words. */
enum skald_rc skald__fail_session(
	struct skald_sql *sql, const struct pg_result *res, struct skald_err *err);
/* Fill err after a connection attempt failed. */
enum skald_rc skald__fail_connect(const struct pg_conn *conn, struct skald_err *err);

/* SQL of this program, generated from sql/migrations and sql/functions. */
struct skald__sql_file {
	const char *name; /* "0001.sql", "outbox.sql" */
	const char *hash; /* SHA-256 of the text */
	const char *const *lines; /* NULL at the end */
};
extern const struct skald__sql_file skald__migrations[]; /* .name NULL at the end */
extern const struct skald__sql_file skald__functions[];
extern const struct skald__sql_file skald__publication[]; /* one */

#endif
