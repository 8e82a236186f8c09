/*
 * conn.c - sessions: connect within a time limit, settings of each kind.
 */
#include "sql/own.h"

#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"

#define CONNECT_TIMEOUT_MS 5000

/*
 * One round trip after the connect. idle_in_transaction: a stopped daemon must
 * lose its locks before its lease could do harm; a service's handlers may be slow.
 */
static const char daemon_settings[] = "SET synchronous_commit = on;"
				      "SET jit = off;" /* it may take 25 ms for a row */
				      "SET idle_in_transaction_session_timeout = '2s';"
				      "SET lock_timeout = '2s';"
				      "SET statement_timeout = '30s'";
static const char service_settings[] = "SET lock_timeout = '200ms';"
				       "SET idle_in_transaction_session_timeout = '5min'";
static const char *const settings[] = {
	[SKALD_SQL_DAEMON] = daemon_settings,
	[SKALD_SQL_SERVICE] = service_settings,
	[SKALD_SQL_TOOL] = "SET statement_timeout = '60s'",
};

static void
drop_notice(void *ctx, const PGresult *res)
{
	(void)ctx;
	(void)res;
}

/* Keys before dbname are defaults that the URL may override, keys after it are ours. */
static PGconn *
start(const struct skald_sql_conf *conf, bool is_replication)
{
	const char *const keys[] = { "connect_timeout", "keepalives", "keepalives_idle",
		"keepalives_interval", "keepalives_count", "tcp_user_timeout", "dbname",
		"fallback_application_name", "client_encoding",
		is_replication ? "replication" : NULL, NULL };
	bool is_quick = conf->kind == SKALD_SQL_DAEMON;
	const char *values[] = { "0", "1", is_quick ? "5" : "30", is_quick ? "2" : "10",
		"3", is_quick ? "10000" : "60000", conf->url,
		conf->application ? conf->application : "skald", "UTF8", "database",
		NULL };

	return PQconnectStartParams(keys, values, 1);
}

/* A URL that libpq cannot read is a fault of the configuration, not of the network. */
static enum skald_rc
check_url(const char *url, struct skald_err *err)
{
	PQconninfoOption *options;
	char *message = NULL;
	enum skald_rc rc = SKALD_OK;

	if (!url)
		return skald_fail(err, SKALD_FATAL, "skald", "", "url: must be given");
	if (!strchr(url, '=') && !strstr(url, "://"))
		return SKALD_OK; /* a database's name */
	options = PQconninfoParse(url, &message);
	if (options) {
		PQconninfoFree(options);
		return SKALD_OK;
	}
	/* other messages may quote the URL, and with it a password */
	if (message &&
		(strncmp(message, "invalid connection option", 25) == 0 ||
			strncmp(message, "invalid URI query parameter", 27) == 0)) {
		message[strcspn(message, "\n")] = '\0';
		rc = skald_fail(err, SKALD_FATAL, "pg", "08001", "url: %s", message);
	} else {
		rc = skald_fail(err, SKALD_FATAL, "pg", "08001",
			"url: must be a libpq conninfo string or URI");
	}
	PQfreemem(message);
	return rc;
}

/* Drive the connection until it stands, fails, or the time is up. */
static enum skald_rc
finish(PGconn *conn, int64_t timeout_ms, struct skald_err *err)
{
	int64_t until_ms = skald_mono_ms() + timeout_ms;
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	if (PQstatus(conn) == CONNECTION_BAD)
		return skald__fail_connect(conn, err);
	while (status != PGRES_POLLING_OK) {
		struct pollfd pfd = { .fd = PQsocket(conn),
			.events = status == PGRES_POLLING_READING ? POLLIN : POLLOUT };
		int64_t left_ms = until_ms - skald_mono_ms();
		int n = left_ms > 0 ? poll(&pfd, 1, (int)left_ms) : 0;

		if (n < 0 && errno != EINTR)
			return skald_fail(err, SKALD_RETRY, "pg", "08001",
				"could not wait for the connection: %s", strerror(errno));
		if (n == 0)
			return skald_fail(err, SKALD_RETRY, "pg", "08001",
				"no connection within %lld ms", (long long)timeout_ms);
		if (n > 0)
			status = PQconnectPoll(conn);
		if (status == PGRES_POLLING_FAILED)
			return skald__fail_connect(conn, err);
	}
	return SKALD_OK;
}

enum skald_rc
skald__connect(PGconn **out, const struct skald_sql_conf *conf, bool is_replication,
	struct skald_err *err)
{
	PGconn *conn;
	enum skald_rc rc;

	rc = check_url(conf->url, err);
	if (rc)
		return rc;
	conn = start(conf, is_replication);
	if (!conn)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	PQsetNoticeReceiver(conn, drop_notice, NULL);
	/* puts the SQLSTATE into the text of a failed attempt, see skald__fail_connect */
	(void)PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
	rc = finish(conn,
		conf->connect_timeout_ms > 0 ? conf->connect_timeout_ms
					     : CONNECT_TIMEOUT_MS,
		err);
	if (rc)
		goto out;
	(void)PQsetErrorVerbosity(conn, PQERRORS_DEFAULT);
	if (PQsetnonblocking(conn, 0)) {
		rc = skald__fail_result(conn, NULL, err);
		goto out;
	}
	*out = conn;
	conn = NULL;
out:
	PQfinish(conn);
	return rc;
}

enum skald_rc
skald_sql_open(
	struct skald_sql **out, const struct skald_sql_conf *conf, struct skald_err *err)
{
	struct skald_sql *sql;
	enum skald_rc rc;

	sql = calloc(1, sizeof(*sql));
	if (!sql)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	rc = skald__connect(&sql->conn, conf, false, err);
	if (rc)
		goto out;
	rc = skald_sql_exec(sql, settings[conf->kind], err);
	if (rc)
		goto out;
	*out = sql;
	sql = NULL;
out:
	skald_sql_close(sql);
	return rc;
}

void
skald_sql_close(struct skald_sql *sql)
{
	if (!sql)
		return;
	PQfinish(sql->conn);
	for (size_t i = 0; i < SKALD__SLOTS; i++)
		free(sql->slots[i].text);
	free(sql->ops);
	free(sql);
}

struct pg_conn *
skald_sql_conn(struct skald_sql *sql)
{
	return sql->conn;
}

int
skald_sql_fd(struct skald_sql *sql)
{
	return PQsocket(sql->conn);
}

bool
skald_sql_is_open(const struct skald_sql *sql)
{
	return !sql->is_dead && PQstatus(sql->conn) == CONNECTION_OK;
}

int
skald_sql_backend_pid(const struct skald_sql *sql)
{
	return PQbackendPID(sql->conn);
}

bool
skald_sql_is_in_transaction(struct pg_conn *conn)
{
	return PQtransactionStatus(conn) == PQTRANS_INTRANS;
}

unsigned
skald_sql_heard(struct skald_sql *sql)
{
	PGnotify *notify;
	unsigned count = 0;

	if (!PQconsumeInput(sql->conn))
		return 0; /* the next statement says what is wrong */
	while ((notify = PQnotifies(sql->conn))) {
		PQfreemem(notify);
		count++;
	}
	return count;
}
