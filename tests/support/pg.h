/*
 * pg.h - a private PostgreSQL for the tests of one executable: started at the
 * first call, stopped and removed when the process ends, however it ends.
 *
 *	struct skald_sql *sql = pg_open("orders", SKALD_SQL_TOOL);   // creates and migrates
 *	pg_exec(sql, "INSERT ...");
 *	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.outbox"), 1);
 *	skald_sql_close(sql);
 *
 * What cannot be done here ends the process with a message: a test without its
 * database proves nothing.
 */
#ifndef SKALD_TESTS_SUPPORT_PG_H
#define SKALD_TESTS_SUPPORT_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "sql/sql.h"

#define PG_URL_BYTES 256

/* Conninfo of a database over the unix socket, as superuser postgres; starts the cluster. */
void pg_url(const char *database, char url[PG_URL_BYTES]);
/* The same as another role (the cluster trusts everybody). */
void pg_url_as(const char *database, const char *role, char url[PG_URL_BYTES]);
int pg_port(void); /* listens on 127.0.0.1 as well */

/* Create the database unless it is there; migrated: with Skald's schema. */
void pg_create(const char *database, bool migrated);
/* pg_create (migrated), then a session. */
struct skald_sql *pg_open(const char *database, enum skald_sql_kind kind);
/* A session on a database that exists. */
struct skald_sql *pg_session(
	const char *database, const char *role, enum skald_sql_kind kind);

/* Statements that must work: else the process ends with the server's message. */
void pg_exec(struct skald_sql *sql, const char *script);
int64_t pg_int(struct skald_sql *sql, const char *query); /* first cell; NULL: -1 */
/* First cell as text, "" for NULL or no row; good until the next call. */
const char *pg_text(struct skald_sql *sql, const char *query);

/* pg_ctl: mode "fast", "immediate" or "smart". */
void pg_stop(const char *mode);
void pg_start(void);
/* SIGKILL to one backend or, with 0, to the postmaster (then pg_start). */
void pg_kill(int backend_pid);

#endif
