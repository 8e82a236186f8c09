/*
 * release.c - a key is let out: its marker has come, in the order of everything else,
 * and at its place stands what waits for it.
 *
 *   feed    a  b  M  c  d          M: row of the outbox without a topic
 *   out     a  b  M [p q r] c  d   positions: one each, M's own is never used
 *
 * The rows are read from the database in parts and published (or parked once more) like
 * any other. Nothing in here can be resumed: no row but the last has a mark, so progress
 * is recorded in front of M or behind r, and a relay that starts over lets out the same
 * rows at the same positions (sql/functions/park.sql).
 */
#include "outbox/own.h"

#include <stdlib.h>
#include <time.h>

#include "base/assert.h"
#include "base/failpoint.h"

#define BY_OPERATOR "/skald/operator" /* sql/functions/park.sql */
#define PART_ROWS   "1000"
#define PAUSE_NS    (5 * 1000000L)
#define TRIES_MAX   100
#define PART_BYTES  "4194304"

static const char sql_release[] = "SELECT held, row_count, is_seen FROM "
				  "skald.relay_release($1::bigint, $2, $3::bytea,"
				  " $4::bigint, $5, $6::bigint)";
static const char sql_released[] =
	"SELECT * FROM skald.relay_released($1, $2::bytea, $3, $4, " PART_ROWS
	", " PART_BYTES ")";

void
skald__release_drop(struct skald_relay *r)
{
	struct skald__release *x = &r->release;

	skald_rows_free(x->rows);
	free(x->topic);
	skald_buf_done(&x->key);
	*x = (struct skald__release){ 0 };
}

/* The marker takes an ordinal and needs nobody's acknowledgement. */
static void
pass(struct skald_relay *r, int64_t mark)
{
	uint64_t ordinal = r->window.next;

	skald__window_push(&r->window, mark, 0);
	(void)skald__window_ack(&r->window, ordinal);
}

/* *count: rows that wait; -1: the marker is an old one, -2: it is not visible yet. */
static enum skald_rc
ask_count(struct skald_relay *r, const struct skald__row *row, const char *topic,
	int64_t *count, struct skald_err *err)
{
	char term[24], marker[24], xid[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_text(topic), skald_param_bytea(row->cells[SKALD__COL_KEY]),
		skald_param_int(skald_cell_int(row->cells[SKALD__COL_ID], 0), marker),
		skald_param_text(r->release.marker),
		skald_param_int(skald_cell_int(row->cells[SKALD__COL_XID], 0), xid) };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	r->publisher.asked++;
	rc = skald_sql_query(r->guard, sql_release, params, 6, true, &rows, err);
	if (rc)
		return rc;
	*count = skald_rows_bool(rows, 0, 2) ? skald_rows_int(rows, 0, 1, -1) : -2;
	if (!skald_rows_bool(rows, 0, 0)) {
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_LOST });
		rc = skald_fail(err, SKALD_RETRY, "skald", "", "another relay leads");
	}
	skald_rows_free(rows);
	return rc;
}

/* The same once the marker is visible; with a waiting standby that may take a while. */
static enum skald_rc
wait_count(struct skald_relay *r, const struct skald__row *row, const char *topic,
	int64_t *count, struct skald_err *err)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	enum skald_rc rc = ask_count(r, row, topic, count, err);

	for (unsigned tries = 0; !rc && *count == -2 && tries < TRIES_MAX; tries++) {
		(void)nanosleep(&pause, NULL);
		rc = ask_count(r, row, topic, count, err);
	}
	if (!rc && *count == -2)
		rc = skald_fail(err, SKALD_RETRY, "skald", "",
			"a marker is not visible yet: its transaction waits for a "
			"standby");
	return rc;
}

enum skald_rc
skald__release_begin(
	struct skald_relay *r, const struct skald__row *row, struct skald_err *err)
{
	struct skald__release *x = &r->release;
	struct skald_slice key = row->cells[SKALD__COL_KEY];
	struct skald__parked *parked;
	int64_t count = -1, mark = row->mark;
	int64_t asked_at_us = 0; /* by a person */
	enum skald_rc rc;

	SKALD_ASSERT(!x->left);
	skald__release_drop(r);
	if (skald_slice_is_text(row->cells[SKALD__COL_SOURCE], BY_OPERATOR))
		(void)skald_cell_time_us(row->cells[SKALD__COL_AT], &asked_at_us);
	rc = skald__park_flush(
		r, err); /* what stands before the marker is in the database */
	parked = skald__park_find(r, row->cells[SKALD__COL_SUBJECT], key);
	if (rc || !parked) /* none waits: an old one that came once more */
		goto out;
	skald_position_format(row->position, x->marker);
	x->topic = strndup(row->cells[SKALD__COL_SUBJECT].data,
		row->cells[SKALD__COL_SUBJECT].bytes);
	skald_buf_init(&x->key, SKALD_KEY_BYTES_MAX + 1);
	skald_buf_add_slice(&x->key, key);
	if (!x->topic || x->key.failed) {
		rc = skald_fail(err, SKALD_RETRY, "pg", "", "out of memory");
		goto out;
	}
	rc = wait_count(r, row, x->topic, &count, err);
	if (rc || count < 0)
		goto out;
	parked->hold.out = row->position;
	parked->hold.has_out = true;
	SKALD_FAILPOINT(release_after_load);
out:
	if (rc)
		return rc;
	skald__feed_pop(r);
	if (count <= 0) {
		pass(r, mark);
		return SKALD_OK;
	}
	skald__topics_doubt(r, skald_slice_text(x->topic), asked_at_us);
	/* whoever asks for a key may have raised the limit just now */
	skald__topics_doubt_limit(r, skald_slice_text(x->topic));
	pass(r, SKALD__NO_MARK);
	x->mark = mark;
	x->left = (uint64_t)count;
	skald__relay_tell(r, (struct skald__relay_ev){
				     .kind = SKALD__EV_GREW, .count = (uint64_t)count });
	return SKALD_OK;
}

enum skald_rc
skald__release_fill(struct skald_relay *r, struct skald_err *err)
{
	struct skald__release *x = &r->release;
	struct skald_param params[] = { skald_param_text(x->topic),
		skald_param_bytea(skald_buf_slice(&x->key)), skald_param_text(x->marker),
		skald_param_text(x->after) };
	struct skald_rows *rows = NULL;
	struct skald_slice place;
	enum skald_rc rc;

	if (!x->left || (x->rows && x->next < skald_rows_count(x->rows)))
		return SKALD_OK;
	r->publisher.asked++;
	/* a lease is short, a payload may be long */
	rc = skald_sql_exec(r->guard, "SET statement_timeout = '60s'", err);
	if (!rc)
		rc = skald_sql_query(r->guard, sql_released, params, 4, true, &rows, err);
	if (!rc)
		rc = skald_sql_exec(r->guard, "SET statement_timeout = '1500ms'", err);
	if (rc) {
		skald_rows_free(rows);
		return rc;
	}
	skald_rows_free(x->rows);
	x->rows = rows;
	x->next = 0;
	if (!skald_rows_count(rows) || skald_rows_count(rows) > x->left)
		return skald_fail(err, SKALD_RETRY, "pg", "",
			"parked rows of topic %s are not those that were let out",
			x->topic);
	place = skald_rows_get(rows, skald_rows_count(rows) - 1, SKALD__COLUMN_COUNT);
	(void)skald_slice_copy(place, x->after, sizeof(x->after));
	return SKALD_OK;
}

void
skald__release_peek(const struct skald_relay *r, struct skald__row *row)
{
	const struct skald__release *x = &r->release;

	SKALD_ASSERT(x->rows && x->next < skald_rows_count(x->rows));
	for (unsigned c = 0; c < SKALD__COLUMN_COUNT; c++)
		row->cells[c] = skald_rows_get(x->rows, x->next, c);
	row->mark = x->left == 1 ? x->mark : SKALD__NO_MARK;
}

void
skald__release_pop(struct skald_relay *r)
{
	struct skald__release *x = &r->release;

	x->next++;
	x->left--;
	atomic_fetch_add(r->metrics.released, 1);
	if (x->left)
		return;
	SKALD_FAILPOINT(release_after_produce);
	skald__release_drop(r);
}
