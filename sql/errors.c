/*
 * errors.c - SQLSTATE -> skald_rc, in one table, and what of a server's message
 * may be shown. Values of rows are payload: they end up in dead letters and
 * logs that more people read than may read the rows, so DETAIL is shown for our
 * own codes and for conflicts only, and a quoted value of class 22 is cut off.
 */
#include "sql/own.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

#include "base/slice.h"

struct state_rule {
	const char *
		prefix; /* of the SQLSTATE; the longest match wins, so codes come first */
	enum skald_rc rc;
};

/* clang-format off */
static const struct state_rule rules[] = {
	{ "SK002", SKALD_REJECT }, /* no reply in the transaction: the handler forgot it */
	{ "SK005", SKALD_FATAL },  /* not in this database */
	{ "SK", SKALD_REJECT },
	{ "25001", SKALD_FATAL },  /* needs to be outside a transaction: our bug */
	{ "08", SKALD_RETRY },     /* connection */
	{ "25", SKALD_RETRY },     /* read-only after a failover, failed or timed-out transaction */
	{ "40", SKALD_RETRY },     /* serialization, deadlock */
	{ "53", SKALD_RETRY },     /* out of connections, memory, disk */
	{ "54", SKALD_REJECT },    /* too complex, too long */
	{ "55", SKALD_RETRY },     /* lock not available, object in use */
	{ "57", SKALD_RETRY },     /* shutting down, cancelled */
	{ "58", SKALD_RETRY },     /* I/O */
	{ "21", SKALD_REJECT },
	{ "22", SKALD_REJECT },    /* data */
	{ "23", SKALD_REJECT },    /* constraint */
	{ "44", SKALD_REJECT },
	{ "0A", SKALD_FATAL },     /* not supported by this server */
	{ "0L", SKALD_FATAL },
	{ "0P", SKALD_FATAL },
	{ "28", SKALD_FATAL },     /* who are you */
	{ "3D", SKALD_FATAL },     /* no such database */
	{ "3F", SKALD_FATAL },     /* no such schema */
	{ "42", SKALD_FATAL },     /* no such table, no right */
};
/* clang-format on */

enum skald_rc
skald__rc_of_state(const char *sqlstate)
{
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (strncmp(sqlstate, rules[i].prefix, strlen(rules[i].prefix)) == 0)
			return rules[i].rc;
	return SKALD_RETRY; /* whatever it is, it may be over next time */
}

static bool
is_class(const char *sqlstate, const char *class)
{
	return strncmp(sqlstate, class, 2) == 0;
}

/* One line, no white space at the ends, cut to fit. */
static void
flatten(const char *text, char *dst, size_t dst_bytes)
{
	size_t n = 0;

	for (; text && *text && n + 1 < dst_bytes; text++) {
		char c = (unsigned char)*text < ' ' ? ' ' : *text;

		if (c == ' ' && (n == 0 || dst[n - 1] == ' '))
			continue;
		dst[n++] = c;
	}
	while (n > 0 && dst[n - 1] == ' ')
		n--;
	dst[n] = '\0';
}

enum skald_rc
skald__fail_result(const PGconn *conn, const PGresult *res, struct skald_err *err)
{
	const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
	const char *primary =
		res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	const char *detail = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL) : NULL;
	char text[512], more[256];
	char *quoted;

	if (!state || !primary) {
		(void)snprintf(
			more, sizeof(more), "%s", conn ? PQerrorMessage(conn) : "");
		more[strcspn(more, "\n")] = '\0'; /* the rest is guesses and repetition */
		flatten(more, text, sizeof(text));
		return skald_fail(err, SKALD_RETRY, "pg", "08006", "%s",
			text[0] ? text : "the connection is gone");
	}
	flatten(primary, text, sizeof(text));
	if (is_class(state, "22") && (quoted = strstr(text, ": \"")))
		*quoted = '\0';
	more[0] = '\0';
	if (detail && (is_class(state, "SK") || is_class(state, "40")))
		flatten(detail, more, sizeof(more));
	if (more[0] && strcmp(more, text) != 0)
		return skald_fail(err, skald__rc_of_state(state), "pg", state, "%s: %s",
			text, more);
	return skald_fail(err, skald__rc_of_state(state), "pg", state, "%s", text);
}

/* No SQLSTATE: the words are libpq's, which knows the end before PQstatus() does. */
enum skald_rc
skald__fail_session(struct skald_sql *sql, const PGresult *res, struct skald_err *err)
{
	const char *severity =
		res ? PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED) : NULL;

	if (!severity || strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0)
		sql->is_dead = true;
	return skald__fail_result(sql->conn, res, err);
}

/*
 * A failed connection has no result to ask, only text; its verbosity was raised
 * before, so that the SQLSTATE stands in it: "FATAL:  3D000: database ...".
 */
static const char *
find_state(const char *text, char state[6])
{
	const char *found = NULL;

	for (const char *p = text; (p = strstr(p, ":  ")) != NULL; p += 3) {
		size_t n = strspn(p + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");

		if (n == 5 && p[8] == ':') {
			memcpy(state, p + 3, 5);
			state[5] = '\0';
			found = p + 10;
		}
	}
	return found;
}

enum skald_rc
skald__fail_connect(const PGconn *conn, struct skald_err *err)
{
	const char *message = conn ? PQerrorMessage(conn) : "out of memory";
	char state[6] = "08001";
	char text[512], first[512];
	const char *reason = find_state(message, state);
	char *end;

	(void)snprintf(first, sizeof(first), "%s", reason ? reason : message);
	end = reason ? strchr(first, '\n') : NULL; /* LOCATION follows */
	if (end)
		*end = '\0';
	flatten(first, text, sizeof(text));
	return skald_fail(err, skald__rc_of_state(state), "pg", state, "%s",
		text[0] ? text : "could not connect");
}
