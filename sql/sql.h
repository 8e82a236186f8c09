/*
 * sql.h - PostgreSQL: sessions, statements, pipelines, migrations, leases.
 * The only folder that sees libpq. struct pg_conn is libpq's own tag of PGconn,
 * the one third-party type that crosses a door: an embedding service hands over
 * its own connection, because the point is *its* transaction.
 *
 * Objects belong to one thread. SQLSTATE -> skald_rc is one table (sql/errors.c):
 * outage classes, conflicts and everything transient are RETRY; data and
 * constraint errors (22, 23, SK001, SK003, SK004, SK006, SK007) REJECT; missing
 * schema or rights (42, 3F, 28, SK005) FATAL. err->code is the SQLSTATE.
 */
#ifndef SKALD_SQL_SQL_H
#define SKALD_SQL_SQL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "base/uuid.h"

struct pg_conn;
struct skald_sql; /* our own session: a connection, its prepared statements, its settings */
struct skald_rows; /* a result; cells are borrowed until skald_rows_free */

/* --- parameters ------------------------------------------------------------------------- */

struct skald_param {
	struct skald_slice
		value; /* NULL slice: SQL NULL. Text must end with a NUL byte. */
	bool is_binary; /* value is in PostgreSQL's binary format */
	unsigned type_oid; /* 0: the server infers */
};

/* clang-format off */
#define SKALD_PARAM_NULL ((struct skald_param){ { NULL, 0 }, false, 0 })
/* clang-format on */
struct skald_param skald_param_text(const char *text); /* NULL: SQL NULL */
struct skald_param skald_param_bytea(
	struct skald_slice bytes); /* binary bytea, no escaping */
/* dst holds the text of the number: at least 24 bytes, must outlive the call. */
struct skald_param skald_param_int(int64_t value, char dst[static 24]);

/* One-dimensional array literals in text format, for set-based statements (unnest($1::text[])). */
struct skald_buf;
void skald_array_begin(struct skald_buf *buf);
void skald_array_add_text(
	struct skald_buf *buf, struct skald_slice text); /* NULL slice: NULL */
void skald_array_add_bytea(struct skald_buf *buf, struct skald_slice bytes);
void skald_array_add_int(struct skald_buf *buf, int64_t value);
void skald_array_end(struct skald_buf *buf);

/*
 * The same in PostgreSQL's binary format: nothing is escaped here and nothing parsed
 * there. For big texts and many of them; the elements' type is one of the OIDs below.
 */
enum skald_oid {
	SKALD_OID_BYTEA = 17,
	SKALD_OID_INT8 = 20,
	SKALD_OID_INT4 = 23,
	SKALD_OID_TEXT = 25,
	SKALD_OID_TIMESTAMPTZ = 1184,
	SKALD_OID_UUID = 2950,
	SKALD_OID_JSONB = 3802,
};
void skald_array_binary_begin(struct skald_buf *buf, enum skald_oid element);
/* Of the element's own binary format: texts and bytes as they are. NULL slice: NULL */
void skald_array_binary_add(struct skald_buf *buf, struct skald_slice value);
void skald_array_binary_add_int(struct skald_buf *buf, int64_t value); /* INT4, INT8 */
/* Borrows buf, which must not have failed. */
struct skald_param skald_array_binary_end(struct skald_buf *buf);

/* --- sessions --------------------------------------------------------------------------- */

enum skald_sql_kind {
	SKALD_SQL_DAEMON, /* synchronous_commit on, idle_in_transaction 2 s, tcp_user_timeout */
	SKALD_SQL_SERVICE, /* a consumer's: handlers may be slow, lock_timeout 200 ms */
	SKALD_SQL_TOOL, /* the CLI's: statement_timeout 60 s */
};

struct skald_sql_conf {
	const char *url; /* libpq conninfo or URI; borrowed during open only */
	const char *application; /* application_name, e.g. "skaldd relay main" */
	enum skald_sql_kind kind;
	int64_t connect_timeout_ms;
};

/* Blocks at most connect_timeout_ms. RETRY: server away. FATAL: bad URL, no such role or database. */
SKALD_MUSTUSE enum skald_rc skald_sql_open(
	struct skald_sql **out, const struct skald_sql_conf *conf, struct skald_err *err);
void skald_sql_close(struct skald_sql *sql); /* NULL is fine */
struct pg_conn *skald_sql_conn(struct skald_sql *sql); /* borrowed */
int skald_sql_fd(struct skald_sql *sql);
bool skald_sql_is_open(
	const struct skald_sql *sql); /* false once the connection is known dead */
int skald_sql_backend_pid(const struct skald_sql *sql);
bool skald_sql_is_in_transaction(struct pg_conn *conn); /* open and not failed */

/*
 * Run one statement, prepared on second use by its text's address (give literals).
 * rows may be NULL. binary_results: cells come in binary format.
 * Blocks one round trip. After an error inside a transaction the caller rolls back.
 */
SKALD_MUSTUSE enum skald_rc skald_sql_query(struct skald_sql *sql, const char *statement,
	const struct skald_param *params, unsigned count, bool binary_results,
	struct skald_rows **rows, struct skald_err *err);

/* One or more statements without parameters: BEGIN, COMMIT, a script. */
SKALD_MUSTUSE enum skald_rc skald_sql_exec(
	struct skald_sql *sql, const char *script, struct skald_err *err);
/* How many notifications (LISTEN) have come since the last call; never blocks. */
unsigned skald_sql_heard(struct skald_sql *sql);
/* ROLLBACK if a transaction is open; a dead connection is left to the caller's reopen. */
void skald_sql_rollback(struct skald_sql *sql);

/* The same on a connection that is not ours (no statement cache). */
SKALD_MUSTUSE enum skald_rc skald_conn_query(struct pg_conn *conn, const char *statement,
	const struct skald_param *params, unsigned count, struct skald_rows **rows,
	struct skald_err *err);

/* Is that connection in libpq's pipeline mode? Then queue behind what its owner sent; the
   result is the owner's to read. */
bool skald_conn_is_pipeline(struct pg_conn *conn);
SKALD_MUSTUSE enum skald_rc skald_conn_send(struct pg_conn *conn, const char *statement,
	const struct skald_param *params, unsigned count, struct skald_err *err);

/*
 * Pipeline: queue statements, then take their results in order, in one round
 * trip. begin..end brackets; between them only send, sync and take.
 *   send   queues a statement (prepared on first use)
 *   sync   flushes and marks a transaction boundary for implicit transactions
 *   take   next result; after a failed statement the rest up to the sync is
 *          skipped and each take returns the first failure's rc and err
 */
SKALD_MUSTUSE enum skald_rc skald_pipe_begin(
	struct skald_sql *sql, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald_pipe_send(struct skald_sql *sql, const char *statement,
	const struct skald_param *params, unsigned count, bool binary_results,
	struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald_pipe_sync(struct skald_sql *sql, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald_pipe_take(
	struct skald_sql *sql, struct skald_rows **rows, struct skald_err *err);
/* Reads whatever is left and leaves pipeline mode; answers with the first failure among it. */
SKALD_MUSTUSE enum skald_rc skald_pipe_end(struct skald_sql *sql, struct skald_err *err);

/* --- results ---------------------------------------------------------------------------- */

unsigned skald_rows_count(const struct skald_rows *rows);
unsigned skald_rows_columns(const struct skald_rows *rows);
const char *skald_rows_name(const struct skald_rows *rows, unsigned column);
int64_t skald_rows_affected(
	const struct skald_rows *rows); /* of INSERT, UPDATE, DELETE, else 0 */
struct skald_slice skald_rows_get(
	const struct skald_rows *rows, unsigned row, unsigned column);
/* Text or binary int2/int4/int8 cells; NULL gives fallback. */
int64_t skald_rows_int(
	const struct skald_rows *rows, unsigned row, unsigned column, int64_t fallback);
bool skald_rows_bool(const struct skald_rows *rows, unsigned row, unsigned column);
/* Append a bytea cell's bytes to dst, from either format; false: NULL, not bytea, dst's limit. */
bool skald_rows_bytea(const struct skald_rows *rows, unsigned row, unsigned column,
	struct skald_buf *dst);
/* Text or binary format. */
bool skald_rows_uuid(const struct skald_rows *rows, unsigned row, unsigned column,
	struct skald_uuid *out);
bool skald_rows_time_us(const struct skald_rows *rows, unsigned row, unsigned column,
	int64_t *wall_us); /* binary timestamptz -> us since 1970 */
void skald_rows_free(struct skald_rows *rows);

/* Single cells in binary format, of rows or of a stream; a NULL slice is SQL NULL. */
int64_t skald_cell_int(struct skald_slice cell, int64_t fallback); /* int2, int4, int8 */
bool skald_cell_bool(struct skald_slice cell); /* false for NULL */
bool skald_cell_uuid(struct skald_slice cell, struct skald_uuid *out); /* false: NULL */
bool skald_cell_time_us(struct skald_slice cell,
	int64_t *wall_us); /* timestamptz -> us since 1970; false: NULL, infinite */
bool skald_cell_jsonb(struct skald_slice cell,
	struct skald_slice
		*text); /* the text inside, borrowed from the cell; false: NULL */

/* --- logical replication ------------------------------------------------------------------ */

/*
 * One session of a walsender: makes its slot, then streams what committed transactions
 * inserted into one table, in the order of their commits. PostgreSQL 14 or newer.
 *
 * Nothing blocks but open and start. After any failure the session is of no more use:
 * close it. What the server refuses keeps its SQLSTATE in err->code:
 *   42704  FATAL   start: no such slot; next: the slot is older than the publication,
 *                  and of no use (another, made now, would be)
 *   3F000  FATAL   start: no such publication, or the table is not in it
 *   55006  RETRY   start: another session has the slot (or has not noticed its end yet)
 *   55000  RETRY   start: the slot is invalidated; ask_slot: wal_level is not logical
 *   42710  FATAL   ask_slot: there is a slot of that name
 *   53400  RETRY   ask_slot: the server has no slot left (max_replication_slots)
 *   42501  FATAL   open: the role may not replicate
 *   0A000  FATAL   start: PostgreSQL is too old; next: a column has no binary format
 *   08P01  RETRY   next: a frame that cannot be read
 */
struct skald_stream;

#define SKALD_STREAM_COLUMNS_MAX 32

/* All borrowed; what is below the line must outlive the session. */
struct skald_stream_conf {
	const char *url; /* as of struct skald_sql_conf */
	const char *application;
	int64_t connect_timeout_ms;
	/* --- */
	const char *slot; /* 1 to 63 of [a-z0-9_] */
	const char *publication; /* likewise */
	const char *schema, *table; /* the root, if it is partitioned */
	const char *const *columns; /* by name; those that are not there come as NULL */
	unsigned column_count; /* at most SKALD_STREAM_COLUMNS_MAX */
};

enum skald_stream_kind {
	SKALD_STREAM_NOTHING, /* all that has arrived is read: poll the fd */
	SKALD_STREAM_BEGIN,
	SKALD_STREAM_ROW,
	SKALD_STREAM_COMMIT,
	SKALD_STREAM_KEEPALIVE,
};

struct skald_stream_item {
	enum skald_stream_kind kind;
	/*
	 * BEGIN: of the commit record, known before the first row. COMMIT: end_lsn, what may
	 * be confirmed. KEEPALIVE: end of the WAL sent; whatever committed below was handed
	 * out before, so it may be confirmed when nothing is in flight. ROW: as its BEGIN
	 */
	uint64_t lsn;
	int64_t commit_us; /* BEGIN, COMMIT: us since 1970 */
	uint32_t xid; /* BEGIN */
	bool wants_reply; /* KEEPALIVE: send a status soon, or be disconnected */
	/* ROW: from 0 in its transaction, counts all that is published, of other tables too */
	uint64_t ordinal;
	/* ROW: in the order of conf.columns, in binary format. NULL slice: NULL, no such column */
	struct skald_slice cells[SKALD_STREAM_COLUMNS_MAX];
	size_t bytes; /* ROW: of the whole message */
};

/*
 * Connects as a walsender (replication=database, added to whatever the URL says); runs
 * nothing else. Blocks at most connect_timeout_ms. FATAL: bad URL, bad names, no right.
 */
SKALD_MUSTUSE enum skald_rc skald_stream_open(struct skald_stream **out,
	const struct skald_stream_conf *conf, struct skald_err *err);
void skald_stream_close(struct skald_stream *s); /* NULL is fine; does not wait */
int skald_stream_fd(const struct skald_stream *s); /* poll it for POLLIN */
int skald_stream_server_version(const struct skald_stream *s); /* 150004 */

/*
 * Make the slot. The server answers when every transaction running now has ended, in
 * any database of the cluster: ask, then take when the fd is readable (or later).
 * is_made: lsn is where it begins. To give up, close the session; nothing is left.
 */
SKALD_MUSTUSE enum skald_rc skald_stream_ask_slot(
	struct skald_stream *s, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald_stream_take_slot(
	struct skald_stream *s, bool *is_made, uint64_t *lsn, struct skald_err *err);

/*
 * Stream what committed at or after lsn; transactions with end_lsn <= lsn are left out,
 * and those that the slot has confirmed in any case. Not while ask_slot is unanswered.
 * Blocks at most 5 s.
 */
SKALD_MUSTUSE enum skald_rc skald_stream_start(
	struct skald_stream *s, uint64_t lsn, struct skald_err *err);

/* Never blocks. Cells are borrowed until the next call, or for longer, see keep. */
SKALD_MUSTUSE enum skald_rc skald_stream_next(
	struct skald_stream *s, struct skald_stream_item *item, struct skald_err *err);
/* The buffer of the last ROW, now the caller's: its cells stay until that is freed. */
void *skald_stream_keep(struct skald_stream *s);
void skald_stream_free(void *kept); /* NULL is fine */

/*
 * Tell the server that everything below flushed_lsn is done with: 0 or a COMMIT's lsn,
 * or a KEEPALIVE's. Never blocks; what the socket does not take now goes out with a later
 * next or status, and of several only the newest. Due when wants_reply, and at least
 * every third of wal_sender_timeout; also while nothing is read.
 *
 * A server that is told to stop ("fast") waits until all it has sent is confirmed, for
 * ever if need be, and asks again as soon as it is answered: answer at most some ten
 * times a second, and close the session when what is in flight cannot be finished.
 */
SKALD_MUSTUSE enum skald_rc skald_stream_status(
	struct skald_stream *s, uint64_t flushed_lsn, struct skald_err *err);

/* --- schema ------------------------------------------------------------------------------ */

struct skald_migrate_report {
	int version_before; /* 0: nothing there */
	int version_after;
	unsigned functions_replaced;
	bool roles_missing; /* --no-roles: statements for a superuser are in roles_sql */
};

/* Install or upgrade; transactional, forward only, safe to run twice and from two places at once. */
SKALD_MUSTUSE enum skald_rc skald_migrate(struct skald_sql *sql, bool no_roles,
	struct skald_migrate_report *report, struct skald_err *err);
/* What a person must run when --no-roles was given (static text). */
const char *skald_migrate_roles_sql(void);
/* Version of the schema in the database (0: none) and the one this program brings. */
SKALD_MUSTUSE enum skald_rc skald_migrate_version(
	struct skald_sql *sql, int *have, int *want, struct skald_err *err);
/* FATAL with the fix when the schema is missing or older than this program needs. */
SKALD_MUSTUSE enum skald_rc skald_migrate_check(
	struct skald_sql *sql, struct skald_err *err);

/* --- leases ------------------------------------------------------------------------------ */

/*
 * Who leads: skald.lease(kind, name, owner, term, until), database clock.
 * take: not taken is a result (*term = 0), not an error. The term rises with
 * every change of owner. Every transaction of the leader checks its term with
 * its own UPDATE; renew returns *held = false when another took it.
 */
struct skald_lease {
	const char *kind; /* "relay" */
	const char *name; /* "outbox" */
	const char *owner; /* host:pid:random, unique per loop */
	int64_t term; /* 0: not held */
};
SKALD_MUSTUSE enum skald_rc skald_lease_take(
	struct skald_sql *sql, struct skald_lease *lease, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald_lease_renew(struct skald_sql *sql,
	struct skald_lease *lease, bool *held, struct skald_err *err);
/* Gives it up at once, so that another need not wait for its end. */
SKALD_MUSTUSE enum skald_rc skald_lease_drop(
	struct skald_sql *sql, struct skald_lease *lease, struct skald_err *err);

#endif
