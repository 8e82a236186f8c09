/*
 * stream.c - a session of logical replication: libpq's side. What the frames say is
 * told by pgoutput_core.c.
 *
 * T1  Only open and start wait, and only so long.
 * T2  A slow server cannot make us keep more than one unsent status.
 * T3  A slow caller makes libpq keep no more than one message beyond its read buffer.
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
#include "sql/pgoutput_core.h"

#define START_WAIT_MS      5000
#define SERVER_VERSION_MIN 140000 /* 'binary' */
#define COMMAND_BYTES      1024
#define STATUS_BYTES       34
/* A TLS record (16 KiB) may lie in the library, where poll() does not see it; libpq reads
   at least 8 KiB at a time. */
#define READS_PER_RECORD 3

_Static_assert(SKALD_STREAM_COLUMNS_MAX == SKALD__PGO_WANTED_MAX, "cells are copied");

enum stream_state {
	STREAM_IDLE, /* connected */
	STREAM_MAKING, /* asked for the slot, not answered */
	STREAM_ON,
	STREAM_BROKEN,
};

struct skald_stream {
	PGconn *conn;
	enum stream_state state;
	const char *slot;
	const char *publication;
	char *buffer; /* of the last message; PQfreemem */
	uint64_t flushed_lsn; /* to be told */
	bool is_status_due; /* the socket did not take it */
	struct skald__pgo pgo;
};

static enum skald_rc
broken(struct skald_stream *s, const PGresult *res, struct skald_err *err)
{
	s->state = STREAM_BROKEN;
	return skald__fail_result(s->conn, res, err);
}

/* Asked again after it failed: the caller's loop may be a step behind. */
static enum skald_rc
gone(struct skald_err *err)
{
	return skald_fail(err, SKALD_RETRY, "skald", "08006", "the stream has ended");
}

/* --- opening ------------------------------------------------------------------------------- */

/* What needs no quoting in a replication command, whose grammar is its own. */
static bool
is_plain_name(const char *name)
{
	size_t n = name ? strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") : 0;

	return n >= 1 && n <= 63 && !name[n];
}

static enum skald_rc
check_conf(const struct skald_stream_conf *conf, struct skald_err *err)
{
	if (!is_plain_name(conf->slot))
		return skald_fail(err, SKALD_FATAL, "skald", "42602",
			"slot: must be 1 to 63 of [a-z0-9_]");
	if (!is_plain_name(conf->publication))
		return skald_fail(err, SKALD_FATAL, "skald", "42602",
			"publication: must be 1 to 63 of [a-z0-9_]");
	if (conf->column_count > SKALD_STREAM_COLUMNS_MAX)
		return skald_fail(err, SKALD_FATAL, "skald", "54011",
			"columns: must be at most %d", SKALD_STREAM_COLUMNS_MAX);
	return SKALD_OK;
}

/* What follows 1 (PostgreSQL 10) adds is streaming and two phases, neither asked for. */
static unsigned
protocol_of(int server_version)
{
	return server_version >= 160000 ? 4 : server_version >= 150000 ? 3 : 2;
}

enum skald_rc
skald_stream_open(struct skald_stream **out, const struct skald_stream_conf *conf,
	struct skald_err *err)
{
	struct skald_sql_conf session = { conf->url, conf->application, SKALD_SQL_DAEMON,
		conf->connect_timeout_ms };
	struct skald_stream *s;
	enum skald_rc rc;

	rc = check_conf(conf, err);
	if (rc)
		return rc;
	s = calloc(1, sizeof(*s));
	if (!s)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	rc = skald__connect(&s->conn, &session, true, err);
	if (rc)
		goto out;
	if (PQsetnonblocking(s->conn, 1)) {
		rc = skald__fail_result(s->conn, NULL, err);
		goto out;
	}
	s->slot = conf->slot;
	s->publication = conf->publication;
	skald__pgo_init(&s->pgo, protocol_of(PQserverVersion(s->conn)), conf->schema,
		conf->table, conf->columns, conf->column_count);
	*out = s;
	s = NULL;
out:
	skald_stream_close(s);
	return rc;
}

void
skald_stream_close(struct skald_stream *s)
{
	if (!s)
		return;
	PQfreemem(s->buffer);
	PQfinish(s->conn); /* not blocking: its good-bye is sent or not */
	free(s);
}

int
skald_stream_fd(const struct skald_stream *s)
{
	return PQsocket(s->conn);
}

int
skald_stream_server_version(const struct skald_stream *s)
{
	return PQserverVersion(s->conn);
}

/* --- commands ------------------------------------------------------------------------------ */

/* The answer, once it is there. */
static enum skald_rc
peek(struct skald_stream *s, bool *is_there, struct skald_err *err)
{
	if (PQflush(s->conn) < 0 || !PQconsumeInput(s->conn))
		return broken(s, NULL, err);
	*is_there = !PQisBusy(s->conn);
	return SKALD_OK;
}

/* The first result of a command; the caller's to clear. Blocks until until_ms. */
static enum skald_rc
command(struct skald_stream *s, const char *text, int64_t until_ms, PGresult **res,
	struct skald_err *err)
{
	bool is_there = false;
	enum skald_rc rc;

	if (!PQsendQuery(s->conn, text))
		return broken(s, NULL, err);
	for (;;) {
		struct pollfd pfd = { .fd = PQsocket(s->conn), .events = POLLIN };
		int64_t left_ms = until_ms - skald_mono_ms();

		rc = peek(s, &is_there, err);
		if (rc)
			return rc;
		if (is_there)
			break;
		if (left_ms <= 0) {
			s->state = STREAM_BROKEN;
			return skald_fail(err, SKALD_RETRY, "skald", "08006",
				"no answer within %d ms", START_WAIT_MS);
		}
		if (poll(&pfd, 1, (int)left_ms) < 0 && errno != EINTR)
			return skald_fail(err, SKALD_RETRY, "skald", "08006",
				"could not wait for an answer: %s", strerror(errno));
	}
	*res = PQgetResult(s->conn);
	return SKALD_OK;
}

/* The server ends each command with a result that is none. */
static void
drain(struct skald_stream *s)
{
	PGresult *res;

	while (!PQisBusy(s->conn) && (res = PQgetResult(s->conn)) != NULL)
		PQclear(res);
}

static bool
parse_lsn(const char *text, uint64_t *lsn)
{
	unsigned high, low;
	int end = 0;

	if (sscanf(text, "%8X/%8X%n", &high, &low, &end) != 2 || text[end])
		return false;
	*lsn = (uint64_t)high << 32 | low;
	return true;
}

enum skald_rc
skald_stream_ask_slot(struct skald_stream *s, struct skald_err *err)
{
	char text[COMMAND_BYTES];

	SKALD_ASSERT(s->state == STREAM_IDLE);
	/* of 15 the list in parentheses is the new form, this one works with all */
	(void)snprintf(text, sizeof(text),
		"CREATE_REPLICATION_SLOT \"%s\" LOGICAL pgoutput NOEXPORT_SNAPSHOT",
		s->slot);
	if (!PQsendQuery(s->conn, text) || PQflush(s->conn) < 0)
		return broken(s, NULL, err);
	s->state = STREAM_MAKING;
	return SKALD_OK;
}

enum skald_rc
skald_stream_take_slot(
	struct skald_stream *s, bool *is_made, uint64_t *lsn, struct skald_err *err)
{
	PGresult *res = NULL;
	bool is_there = false;
	enum skald_rc rc;

	if (s->state == STREAM_BROKEN)
		return gone(err);
	SKALD_ASSERT(s->state == STREAM_MAKING);
	rc = peek(s, &is_there, err);
	if (rc)
		return rc;
	if (!is_there) {
		*is_made = false;
		return SKALD_OK;
	}
	res = PQgetResult(s->conn);
	if (PQresultStatus(res) != PGRES_TUPLES_OK) {
		rc = broken(s, res, err);
	} else if (PQntuples(res) != 1 || PQnfields(res) < 2 ||
		   !parse_lsn(PQgetvalue(res, 0, 1), lsn)) {
		s->state = STREAM_BROKEN;
		rc = skald_fail(err, SKALD_RETRY, "skald", "08P01",
			"slot %s: made, but the answer cannot be read", s->slot);
	} else {
		*is_made = true;
		s->state = STREAM_IDLE;
	}
	PQclear(res);
	if (!rc)
		drain(s);
	return rc;
}

/* --- starting ------------------------------------------------------------------------------ */

/*
 * The server looks the publication up when it decodes the first change, which may be
 * days from now: ask before.
 */
static enum skald_rc
check_publication(struct skald_stream *s, int64_t until_ms, struct skald_err *err)
{
	char text[COMMAND_BYTES], *schema = NULL, *table = NULL;
	PGresult *res = NULL;
	enum skald_rc rc;

	schema = PQescapeLiteral(s->conn, s->pgo.schema, strlen(s->pgo.schema));
	table = PQescapeLiteral(s->conn, s->pgo.table, strlen(s->pgo.table));
	if (!schema || !table) {
		rc = broken(s, NULL, err);
		goto out;
	}
	(void)snprintf(text, sizeof(text),
		"SELECT count(*), count(t.tablename) FROM pg_catalog.pg_publication AS p"
		" LEFT JOIN pg_catalog.pg_publication_tables AS t ON t.pubname = "
		"p.pubname"
		" AND t.schemaname = %s AND t.tablename = %s WHERE p.pubname = '%s'",
		schema, table, s->publication);
	rc = command(s, text, until_ms, &res, err);
	if (rc)
		goto out;
	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		rc = broken(s, res, err);
	else if (strcmp(PQgetvalue(res, 0, 0), "0") == 0)
		rc = skald_fail(err, SKALD_FATAL, "skald", "3F000",
			"publication %s: missing in this database; run skald db migrate",
			s->publication);
	else if (strcmp(PQgetvalue(res, 0, 1), "0") == 0)
		rc = skald_fail(err, SKALD_FATAL, "skald", "3F000",
			"publication %s: must have table %s.%s, as root of its "
			"partitions; "
			"run skald db migrate",
			s->publication, s->pgo.schema, s->pgo.table);
	if (!rc)
		drain(s);
out:
	PQclear(res);
	PQfreemem(schema);
	PQfreemem(table);
	return rc;
}

enum skald_rc
skald_stream_start(struct skald_stream *s, uint64_t lsn, struct skald_err *err)
{
	int64_t until_ms = skald_mono_ms() + START_WAIT_MS;
	char text[COMMAND_BYTES];
	PGresult *res = NULL;
	enum skald_rc rc;

	SKALD_ASSERT(s->state == STREAM_IDLE);
	if (PQserverVersion(s->conn) < SERVER_VERSION_MIN)
		return skald_fail(err, SKALD_FATAL, "skald", "0A000",
			"PostgreSQL %d: too old to stream from, must be 14 or newer",
			PQserverVersion(s->conn) / 10000);
	rc = check_publication(s, until_ms, err);
	if (rc)
		goto out;
	(void)snprintf(text, sizeof(text),
		"START_REPLICATION SLOT \"%s\" LOGICAL %X/%X (proto_version '%u',"
		" publication_names '%s', binary 'true')",
		s->slot, (unsigned)(lsn >> 32), (unsigned)lsn, s->pgo.version,
		s->publication);
	rc = command(s, text, until_ms, &res, err);
	if (rc)
		goto out;
	if (PQresultStatus(res) != PGRES_COPY_BOTH) {
		rc = broken(s, res, err);
		goto out;
	}
	s->state = STREAM_ON;
out:
	PQclear(res);
	if (rc)
		s->state = STREAM_BROKEN;
	return rc;
}

/* --- status -------------------------------------------------------------------------------- */

static void
put_u64(char *dst, uint64_t value)
{
	for (int i = 7; i >= 0; i--, value >>= 8)
		dst[i] = (char)(value & 0xFF);
}

/* Out with what is queued, then the newest status: T2. */
static enum skald_rc
send_status(struct skald_stream *s, struct skald_err *err)
{
	char frame[STATUS_BYTES] = { 'r' }; /* its last byte: no reply wanted */
	int64_t wall_us = skald_wall_us(), epoch_us = 0;
	int unsent = PQflush(s->conn), taken;

	if (unsent < 0)
		return broken(s, NULL, err);
	if (unsent > 0 || !s->is_status_due)
		return SKALD_OK;
	(void)skald__time_us(0, &epoch_us);
	put_u64(frame + 1, s->flushed_lsn); /* written */
	put_u64(frame + 9, s->flushed_lsn); /* flushed: the one that counts */
	put_u64(frame + 17, s->flushed_lsn); /* applied */
	put_u64(frame + 25, (uint64_t)(wall_us - epoch_us));
	taken = PQputCopyData(s->conn, frame, sizeof(frame));
	if (taken < 0)
		return broken(s, NULL, err);
	s->is_status_due = taken == 0;
	if (PQflush(s->conn) < 0)
		return broken(s, NULL, err);
	return SKALD_OK;
}

enum skald_rc
skald_stream_status(struct skald_stream *s, uint64_t flushed_lsn, struct skald_err *err)
{
	if (s->state == STREAM_BROKEN)
		return gone(err);
	SKALD_ASSERT(s->state == STREAM_ON);
	s->flushed_lsn = flushed_lsn;
	s->is_status_due = true;
	return send_status(s, err);
}

/* --- items --------------------------------------------------------------------------------- */

static enum skald_rc
wrong_frame(struct skald_stream *s, const char *what, struct skald_err *err)
{
	s->state = STREAM_BROKEN;
	return skald_fail(err, SKALD_RETRY, "skald", "08P01", "%s", what);
}

/* The copy has ended: of itself when the server shuts down, else with an error. */
static enum skald_rc
ended(struct skald_stream *s, struct skald_err *err)
{
	PGresult *res = PQisBusy(s->conn) ? NULL : PQgetResult(s->conn);
	const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
	bool is_too_old = state && strcmp(state, "42704") == 0;
	enum skald_rc rc;

	if (res && !state) {
		s->state = STREAM_BROKEN;
		rc = skald_fail(
			err, SKALD_RETRY, "pg", "57P01", "the server ended the stream");
	} else {
		rc = broken(s, res, err);
	}
	PQclear(res);
	/* the slot was there at the start; what it decodes has the catalog of then */
	if (is_too_old)
		rc = skald_fail_in(err, rc, "slot %s: older than publication %s", s->slot,
			s->publication);
	return rc;
}

/* One message into s->buffer; bytes 0: there is none yet. */
static enum skald_rc
receive(struct skald_stream *s, size_t *bytes, struct skald_err *err)
{
	int tries = PQsslInUse(s->conn) ? READS_PER_RECORD : 1;
	int n;

	PQfreemem(s->buffer);
	s->buffer = NULL;
	for (;;) {
		n = PQgetCopyData(s->conn, &s->buffer, 1);
		if (n != 0 || tries-- == 0)
			break;
		if (!PQconsumeInput(s->conn))
			return broken(s, NULL, err);
	}
	if (n == -1)
		return ended(s, err);
	if (n < 0)
		return broken(s, NULL, err);
	*bytes = (size_t)n;
	return SKALD_OK;
}

static enum skald_rc
take_row(struct skald_stream *s, const struct skald__pgo_frame *frame, size_t bytes,
	struct skald_stream_item *item, struct skald_err *err)
{
	for (unsigned i = 0; i < s->pgo.wanted_count; i++) {
		if (frame->kinds[i] == SKALD__CELL_UNCHANGED)
			return wrong_frame(s, "row: a cell of a new row is missing", err);
		if (frame->kinds[i] == SKALD__CELL_TEXT) {
			s->state = STREAM_BROKEN;
			return skald_fail(err, SKALD_FATAL, "skald", "0A000",
				"column %s: its type has no binary format",
				s->pgo.wanted[i]);
		}
	}
	item->kind = SKALD_STREAM_ROW;
	item->lsn = s->pgo.commit_lsn;
	item->ordinal = frame->ordinal;
	item->bytes = bytes;
	memcpy(item->cells, frame->cells, sizeof(item->cells));
	return SKALD_OK;
}

/* What is not for the caller leaves item->kind at NOTHING. */
static enum skald_rc
take_frame(struct skald_stream *s, struct skald_slice payload,
	struct skald_stream_item *item, struct skald_err *err)
{
	struct skald__pgo_frame frame;
	const char *wrong = skald__pgo_decode(&s->pgo, payload, &frame);

	if (wrong)
		return wrong_frame(s, wrong, err);
	switch (frame.type) {
	case 'B':
		item->kind = SKALD_STREAM_BEGIN;
		item->lsn = frame.lsn;
		item->xid = frame.xid;
		(void)skald__time_us(frame.time_us, &item->commit_us);
		break;
	case 'C':
		item->kind = SKALD_STREAM_COMMIT;
		item->lsn = frame.end_lsn;
		(void)skald__time_us(frame.time_us, &item->commit_us);
		break;
	case 'I':
		if (frame.is_ours)
			return take_row(s, &frame, payload.bytes, item, err);
		break;
	case 'S':
	case 'E':
	case 'c':
	case 'A':
		return wrong_frame(s, "frame: of a stream that nobody asked for", err);
	default:
		break; /* counted where it counts */
	}
	return SKALD_OK;
}

enum skald_rc
skald_stream_next(
	struct skald_stream *s, struct skald_stream_item *item, struct skald_err *err)
{
	struct skald__pgo_copy copy;
	const char *wrong;
	size_t bytes = 0;
	enum skald_rc rc;

	memset(item, 0, sizeof(*item));
	if (s->state == STREAM_BROKEN)
		return gone(err);
	SKALD_ASSERT(s->state == STREAM_ON);
	rc = send_status(s, err);
	if (rc)
		return rc;
	while (item->kind == SKALD_STREAM_NOTHING) {
		rc = receive(s, &bytes, err);
		if (rc || !bytes)
			return rc;
		wrong = skald__pgo_open(skald_slice_make(s->buffer, bytes), &copy);
		if (wrong)
			return wrong_frame(s, wrong, err);
		if (copy.is_keepalive) {
			item->kind = SKALD_STREAM_KEEPALIVE;
			item->lsn = copy.end;
			item->wants_reply = copy.wants_reply;
			return SKALD_OK;
		}
		rc = take_frame(s, copy.payload, item, err);
		if (rc)
			return rc;
	}
	return SKALD_OK;
}

void *
skald_stream_keep(struct skald_stream *s)
{
	char *kept = s->buffer;

	s->buffer = NULL;
	return kept;
}

void
skald_stream_free(void *kept)
{
	PQfreemem(kept);
}
