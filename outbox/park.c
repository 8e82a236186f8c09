/*
 * park.c - keys that wait: which they are (in memory), and their rows (in the database).
 *
 * Rows to be parked are collected and written at the end of each slice (a head before the
 * next row is produced, park_core.c K5) in one statement on the guard's session, fenced by
 * the term; only then do they count as acknowledged. A row
 * is written as it was read; only a big payload, which would take its time there and hold
 * up the others, is copied inside the database. In WAL mode it may not be visible yet.
 *
 * While no key waits all of this is one integer compared per row.
 */
#include "outbox/own.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

#define BATCH_BYTES (1024 * 1024) /* more is written before the next row is added */
#define BIG_BYTES   (64 * 1024) /* of a payload that is not sent */
#define KEPT_BYTES  (256 * 1024) /* buffers that grew further are given back */
#define UNSEEN_MAX  100 /* tries, with a pause between */
#define PAUSE_NS    (5 * 1000000L)
#define TURN_MS     1000
#define LOOK_MS     2000 /* for missing topics */
#define TELL_MS     10000

static const char sql_park[] =
	"SELECT skald.relay_park($1::bigint, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, "
	"$12,"
	" $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, "
	"$28)";
static const char sql_parked[] =
	"SELECT topic, key, parked_at, released_at, again_at, attempts, code"
	" FROM skald.relay_parked($1::bigint)";
static const char sql_turn[] = "SELECT topic, key, parked_at, attempts"
			       " FROM skald.relay_park_turn($1::bigint, $2)";

/* --- the set ------------------------------------------------------------------------------ */

static uint32_t
hash_of(struct skald_slice topic, struct skald_slice key)
{
	return skald_murmur2(topic) * 31 + skald_murmur2(key);
}

static bool
is_it(const struct skald__parked *k, uint32_t hash, struct skald_slice topic,
	struct skald_slice key)
{
	return k->hash == hash && k->topic_bytes == topic.bytes &&
	       k->key_bytes == key.bytes &&
	       memcmp(k->bytes, topic.data, topic.bytes) == 0 &&
	       memcmp(k->bytes + topic.bytes, key.data, key.bytes) == 0;
}

/* Where it is, or would stand; there is room. */
static unsigned
slot_of(const struct skald__park *p, uint32_t hash, struct skald_slice topic,
	struct skald_slice key)
{
	unsigned i = hash & (p->room - 1);

	while (p->slots[i] && !is_it(p->slots[i], hash, topic, key))
		i = (i + 1) & (p->room - 1);
	return i;
}

struct skald__parked *
skald__park_find(struct skald_relay *r, struct skald_slice topic, struct skald_slice key)
{
	struct skald__park *p = &r->park;

	if (!p->key_count || !topic.data || !key.data)
		return NULL;
	return p->slots[slot_of(p, hash_of(topic, key), topic, key)];
}

static enum skald_rc
need_room(struct skald__park *p, struct skald_err *err)
{
	unsigned room = p->room ? 2 * p->room : 64;
	struct skald__parked **slots;

	if (p->room && p->key_count < p->room / 2)
		return SKALD_OK;
	slots = calloc(room, sizeof(struct skald__parked *));
	if (!slots)
		return skald_fail(err, SKALD_RETRY, "pg", "", "out of memory");
	for (unsigned i = 0; i < p->room; i++) {
		unsigned to;

		if (!p->slots[i])
			continue;
		for (to = p->slots[i]->hash & (room - 1); slots[to];)
			to = (to + 1) & (room - 1);
		slots[to] = p->slots[i];
	}
	free(p->slots);
	p->slots = slots;
	p->room = room;
	return SKALD_OK;
}

static enum skald_rc
insert(struct skald_relay *r, struct skald_slice topic, struct skald_slice key,
	struct skald_position from, struct skald__parked **out, struct skald_err *err)
{
	struct skald__park *p = &r->park;
	struct skald__parked *k;
	enum skald_rc rc = need_room(p, err);
	unsigned slot;

	if (rc)
		return rc;
	k = calloc(1, sizeof(*k) + topic.bytes + key.bytes);
	if (!k)
		return skald_fail(err, SKALD_RETRY, "pg", "", "out of memory");
	k->hash = hash_of(topic, key);
	k->hold.from = from;
	k->attempts = 1;
	k->topic_bytes = topic.bytes;
	k->key_bytes = key.bytes;
	memcpy(k->bytes, topic.data, topic.bytes);
	memcpy(k->bytes + topic.bytes, key.data, key.bytes);
	slot = slot_of(p, k->hash, topic, key);
	SKALD_ASSERT(!p->slots[slot]);
	p->slots[slot] = k;
	p->key_count++;
	*out = k;
	return SKALD_OK;
}

/* What stands behind it and would not be found any more moves up. */
static void
erase(struct skald__park *p, unsigned slot)
{
	unsigned hole = slot, i = slot;

	free(p->slots[slot]);
	p->slots[slot] = NULL;
	p->key_count--;
	for (;;) {
		unsigned home;

		i = (i + 1) & (p->room - 1);
		if (!p->slots[i])
			return;
		home = p->slots[i]->hash & (p->room - 1);
		if (((i - home) & (p->room - 1)) < ((i - hole) & (p->room - 1)))
			continue;
		p->slots[hole] = p->slots[i];
		p->slots[i] = NULL;
		hole = i;
	}
}

static void
note_count(struct skald_relay *r)
{
	skald__relay_note_parked(r);
	/* releases are due by the clock: nobody would wake us */
	if (r->core.is_restless != (r->park.key_count > 0))
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_RESTLESS,
					     .is_open = r->park.key_count > 0 });
}

static void
clear_set(struct skald__park *p)
{
	for (unsigned i = 0; i < p->room; i++)
		free(p->slots[i]);
	free(p->slots);
	p->slots = NULL;
	p->room = p->key_count = 0;
}

void
skald__park_drop(struct skald_relay *r)
{
	struct skald__park *p = &r->park;

	for (unsigned i = 0; i < SKALD__PARK_COLUMNS; i++)
		skald_buf_clear(&p->columns[i]);
	p->row_count = 0;
	p->row_bytes = 0;
	p->is_urgent = false;
	skald__release_drop(r);
}

void
skald__park_done(struct skald_relay *r)
{
	skald__park_drop(r);
	clear_set(&r->park);
	for (unsigned i = 0; i < SKALD__PARK_COLUMNS; i++)
		skald_buf_done(&r->park.columns[i]);
}

/* --- loading ------------------------------------------------------------------------------ */

/* An unknown place is the beginning: everything of the key waits. */
static struct skald_position
position_at(const struct skald_rows *rows, unsigned row, unsigned column, bool *is_there)
{
	struct skald_position at = { 0 };

	*is_there = skald_position_parse(skald_rows_get(rows, row, column), &at);
	return at;
}

static enum skald_rc
load_keys(struct skald_relay *r, const struct skald_rows *rows, struct skald_err *err)
{
	for (unsigned i = 0; i < skald_rows_count(rows); i++) {
		struct skald_slice topic = skald_rows_get(rows, i, 0);
		struct skald__parked *k = NULL;
		enum skald_rc rc;
		bool ignored;

		rc = insert(r, topic, skald_rows_get(rows, i, 1),
			position_at(rows, i, 2, &ignored), &k, err);
		if (rc)
			return rc;
		k->hold.out = position_at(rows, i, 3, &k->hold.has_out);
		k->hold.again = position_at(rows, i, 4, &k->hold.has_again);
		k->attempts = (unsigned)skald_rows_int(rows, i, 5, 1);
		if (skald_slice_is_text(skald_rows_get(rows, i, 6), "3"))
			skald__topics_miss(r, topic);
	}
	/* Where a key is being let out the topic was there: what is in it already must not
	   be parked once more. */
	for (unsigned i = 0; i < skald_rows_count(rows); i++)
		if (skald_rows_get(rows, i, 3).data)
			skald__topics_forget(r, skald_rows_get(rows, i, 0));
	return SKALD_OK;
}

enum skald_rc
skald__park_load(struct skald_relay *r, struct skald_err *err)
{
	char term[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term) };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	skald__park_drop(r);
	clear_set(&r->park);
	rc = skald__topics_load(r, err);
	if (!rc)
		rc = skald__tick_query(r, sql_parked, params, 1, &rows, err);
	if (!rc)
		rc = load_keys(r, rows, err);
	skald_rows_free(rows);
	note_count(r);
	return rc;
}

/* --- refusals ------------------------------------------------------------------------------ */

void
skald__park_note_refusal(
	struct skald_relay *r, uint64_t ordinal, const struct skald_err *why)
{
	struct skald__park *p = &r->park;

	if (p->refusal_count < SKALD__REFUSALS_MAX)
		p->refusals[p->refusal_count++] =
			(struct skald__refusal){ skald__feed_place(r, ordinal), *why };
}

bool
skald__park_take_refusal(
	struct skald_relay *r, const struct skald__row *row, struct skald_err *why)
{
	struct skald__park *p = &r->park;

	for (unsigned i = 0; i < p->refusal_count; i++) {
		if (skald_position_compare(p->refusals[i].at, row->position) != 0)
			continue;
		*why = p->refusals[i].err;
		p->refusals[i] = p->refusals[--p->refusal_count];
		return true;
	}
	return false;
}

/* --- one row ------------------------------------------------------------------------------- */

/* What its key is parked under: without a key, its own id. */
static struct skald_slice
key_of(const struct skald__row *row, char id[static SKALD_UUID_TEXT_BYTES])
{
	struct skald_uuid uuid = { { 0 } };

	if (!skald_cell_uuid(row->cells[SKALD__COL_MESSAGE_ID], &uuid))
		memset(uuid.bytes, 0, sizeof(uuid.bytes));
	skald_uuid_format(uuid, id);
	if (row->cells[SKALD__COL_KEY].data)
		return row->cells[SKALD__COL_KEY];
	return skald_slice_make(id, SKALD_UUID_TEXT_BYTES - 1);
}

bool
skald__park_covers(struct skald_relay *r, const struct skald__row *row)
{
	char id[SKALD_UUID_TEXT_BYTES];
	const struct skald__parked *k =
		skald__park_find(r, row->cells[SKALD__COL_TOPIC], key_of(row, id));

	return k && skald__hold_covers(&k->hold, row->position);
}

static void
begin_batch(struct skald__park *p)
{
	static const enum skald_oid oids[SKALD__PARK_COLUMNS] = { SKALD_OID_TEXT,
		SKALD_OID_BYTEA, SKALD_OID_TEXT, SKALD_OID_TEXT, SKALD_OID_TEXT,
		SKALD_OID_TEXT, SKALD_OID_INT8, /* rows */ SKALD_OID_TEXT,
		SKALD_OID_BYTEA, SKALD_OID_INT8, SKALD_OID_UUID, SKALD_OID_TIMESTAMPTZ,
		SKALD_OID_TEXT, SKALD_OID_BYTEA, SKALD_OID_TEXT, SKALD_OID_TEXT,
		SKALD_OID_TEXT, SKALD_OID_TEXT, SKALD_OID_BYTEA, SKALD_OID_JSONB,
		SKALD_OID_TEXT, SKALD_OID_TEXT, SKALD_OID_TEXT, SKALD_OID_TIMESTAMPTZ,
		SKALD_OID_INT8, /* again */ SKALD_OID_INT8, SKALD_OID_TEXT };

	for (unsigned i = 0; i < SKALD__PARK_COLUMNS; i++) {
		if (!p->columns[i].max_bytes)
			skald_buf_init(&p->columns[i], SIZE_MAX / 4);
		skald_array_binary_begin(&p->columns[i], oids[i]);
	}
}

static struct skald_slice
position_text(struct skald_position at, char dst[static SKALD_POSITION_TEXT_BYTES])
{
	skald_position_format(at, dst);
	return skald_slice_make(dst, SKALD_POSITION_TEXT_BYTES - 1);
}

static void
add_head(struct skald_relay *r, const struct skald__row *row, struct skald_slice key,
	const char *id, unsigned attempts, const struct skald_err *why)
{
	struct skald_buf *to = &r->park.columns[SKALD__PARK_HEADS];
	char position[SKALD_POSITION_TEXT_BYTES];

	skald_array_binary_add(&to[0], row->cells[SKALD__COL_TOPIC]);
	skald_array_binary_add(&to[1], key);
	skald_array_binary_add(&to[2], skald_slice_text(id));
	skald_array_binary_add(&to[3], position_text(row->position, position));
	skald_array_binary_add(&to[4], skald_slice_text(why->text));
	skald_array_binary_add(&to[5], skald_slice_text(why->code));
	if (strcmp(why->code, "3") == 0) /* no topic: tried once it is there */
		skald_array_binary_add(&to[6], SKALD_SLICE_NULL);
	else
		skald_array_binary_add_int(&to[6],
			skald__park_backoff_ms(attempts, skald_rand_next(&r->rand)));
	if (skald_mono_ms() < r->park.told_at_ms)
		return;
	r->park.told_at_ms = skald_mono_ms() + TELL_MS;
	skald_log_err(SKALD_LOG_WARN, why,
		"parked a message, and what follows of its key source=%s message=%s",
		r->source, id);
}

static void
add_row(struct skald__park *p, const struct skald__row *row, struct skald_slice key)
{
	static const enum skald__column order[] = { SKALD__COL_ID, SKALD__COL_MESSAGE_ID,
		SKALD__COL_AT, SKALD__COL_TOPIC, SKALD__COL_KEY, SKALD__COL_TYPE,
		SKALD__COL_SOURCE, SKALD__COL_SUBJECT, SKALD__COL_CONTENT_TYPE,
		SKALD__COL_DATA, SKALD__COL_HEADERS, SKALD__COL_CORRELATION,
		SKALD__COL_CAUSATION, SKALD__COL_TRACEPARENT, SKALD__COL_EXPIRES };
	const unsigned count = sizeof(order) / sizeof(order[0]);
	struct skald_buf *to = &p->columns[SKALD__PARK_ROWS];
	bool is_big = row->cells[SKALD__COL_DATA].bytes > BIG_BYTES;
	char position[SKALD_POSITION_TEXT_BYTES];

	skald_array_binary_add(&to[0], position_text(row->position, position));
	skald_array_binary_add(&to[1], key);
	for (unsigned i = 0; i < count; i++) {
		struct skald_slice cell = row->cells[order[i]];

		p->row_bytes += cell.bytes;
		if (is_big && order[i] == SKALD__COL_DATA)
			cell = SKALD_SLICE_NULL;
		skald_array_binary_add(&to[2 + i], cell);
	}
	skald_array_binary_add(
		&to[2 + count], is_big ? row->cells[SKALD__COL_XID] : SKALD_SLICE_NULL);
}

static void
add_again(struct skald__park *p, const struct skald__row *row)
{
	struct skald_buf *to = &p->columns[SKALD__PARK_AGAIN];
	char position[SKALD_POSITION_TEXT_BYTES];

	skald_array_binary_add_int(&to[0], skald_cell_int(row->cells[SKALD__COL_ID], 0));
	skald_array_binary_add(&to[1], position_text(row->position, position));
}

/* The head of a key begins to wait, or does again. */
static enum skald_rc
hold(struct skald_relay *r, const struct skald__row *row, struct skald_slice key,
	unsigned *attempts, struct skald_err *err)
{
	struct skald_slice topic = row->cells[SKALD__COL_TOPIC];
	struct skald__parked *k = skald__park_find(r, topic, key);
	enum skald_rc rc = SKALD_OK;

	if (!k)
		rc = insert(r, topic, key, row->position, &k, err);
	else if (skald_position_compare(row->position, k->hold.from) < 0)
		k->hold.from = row->position; /* what was published is refused now */
	else {
		skald__hold_again(&k->hold, row->position);
		k->attempts++;
	}
	if (!rc)
		*attempts = k->attempts;
	note_count(r);
	return rc;
}

enum skald_rc
skald__park_row(struct skald_relay *r, const struct skald__row *row,
	const struct skald_err *why, struct skald_err *err)
{
	struct skald__park *p = &r->park;
	char id[SKALD_UUID_TEXT_BYTES];
	struct skald_slice key = key_of(row, id);
	unsigned attempts = 1;
	enum skald_rc rc = SKALD_OK;

	if (p->row_count == SKALD__PARK_ROWS_MAX || p->row_bytes > BATCH_BYTES)
		rc = skald__park_flush(r, err);
	if (!rc && why)
		rc = hold(r, row, key, &attempts, err);
	if (rc)
		return rc;
	if (!p->row_count)
		begin_batch(p);
	if (why)
		add_head(r, row, key, id, attempts, why);
	if (r->release.left)
		add_again(p, row);
	else
		add_row(p, row, key);
	p->ordinals[p->row_count++] = r->window.next;
	skald__window_push(&r->window, row->mark, 0);
	skald__feed_pop(r);
	return SKALD_OK;
}

/* --- writing ------------------------------------------------------------------------------ */

/* A lease is short, a payload may be long. */
static enum skald_rc
run_park(struct skald_relay *r, const struct skald_param *params, unsigned count,
	struct skald_rows **rows, struct skald_err *err)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	bool is_big = r->park.row_bytes > BATCH_BYTES;
	enum skald_rc rc = SKALD_OK;

	if (is_big)
		rc = skald_sql_exec(r->guard, "SET statement_timeout = '60s'", err);
	for (unsigned tries = 0; !rc && tries < UNSEEN_MAX; tries++) {
		if (tries)
			(void)nanosleep(&pause, NULL);
		skald_rows_free(*rows);
		*rows = NULL;
		rc = skald_sql_query(r->guard, sql_park, params, count, true, rows, err);
		if (rc || skald_rows_get(*rows, 0, 0).data)
			break;
	}
	if (!rc && !skald_rows_get(*rows, 0, 0).data)
		rc = skald_fail(err, SKALD_RETRY, "pg", "",
			"a message that is to be parked is not visible yet");
	if (!rc && is_big)
		rc = skald_sql_exec(r->guard, "SET statement_timeout = '1500ms'", err);
	return rc;
}

static void
acknowledge(struct skald_relay *r)
{
	struct skald__park *p = &r->park;

	atomic_fetch_add(r->metrics.parked_messages, (int64_t)p->row_count);
	for (unsigned i = 0; i < p->row_count; i++)
		(void)skald__window_ack(&r->window, p->ordinals[i]);
	for (unsigned i = 0; i < SKALD__PARK_COLUMNS; i++) {
		if (p->columns[i].room_bytes > KEPT_BYTES)
			skald_buf_done(&p->columns[i]);
		skald_buf_clear(&p->columns[i]);
	}
	p->row_count = 0;
	p->row_bytes = 0;
	p->is_urgent = false;
}

enum skald_rc
skald__park_flush(struct skald_relay *r, struct skald_err *err)
{
	struct skald__park *p = &r->park;
	struct skald_param params[1 + SKALD__PARK_COLUMNS];
	struct skald_rows *rows = NULL;
	char term[24];
	enum skald_rc rc;

	if (!p->row_count)
		return SKALD_OK;
	r->publisher.asked++;
	params[0] = skald_param_int(r->lease.term, term);
	for (unsigned i = 0; i < SKALD__PARK_COLUMNS; i++) {
		if (p->columns[i].failed)
			return skald_fail(err, SKALD_RETRY, "pg", "", "out of memory");
		params[1 + i] = skald_array_binary_end(&p->columns[i]);
	}
	rc = run_park(r, params, 1 + SKALD__PARK_COLUMNS, &rows, err);
	if (!rc && !skald_rows_bool(rows, 0, 0)) {
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_LOST });
		rc = skald_fail(err, SKALD_RETRY, "skald", "", "another relay leads");
	}
	skald_rows_free(rows);
	if (rc)
		return rc;
	SKALD_FAILPOINT(park_after_insert);
	acknowledge(r);
	return SKALD_OK;
}

/* --- turns --------------------------------------------------------------------------------- */

/* Keys whose release is recorded. */
static void
take_cleaned(struct skald_relay *r, const struct skald_rows *rows)
{
	struct skald__park *p = &r->park;

	for (unsigned i = 0; i < skald_rows_count(rows); i++) {
		struct skald_slice topic = skald_rows_get(rows, i, 0);
		struct skald_slice key = skald_rows_get(rows, i, 1);
		uint32_t hash = hash_of(topic, key);
		struct skald__parked *k;
		unsigned slot;
		bool is_left;

		if (!p->key_count)
			break;
		slot = slot_of(p, hash, topic, key);
		k = p->slots[slot];
		if (!k)
			continue;
		k->hold.from = position_at(rows, i, 2, &is_left);
		k->hold.has_out = k->hold.has_again = false;
		k->attempts = (unsigned)skald_rows_int(rows, i, 3, 1);
		if (!is_left)
			erase(p, slot);
	}
	note_count(r);
}

enum skald_rc
skald__park_turn(struct skald_relay *r, struct skald_err *err)
{
	struct skald__park *p = &r->park;
	int64_t now_ms = skald_mono_ms();
	struct skald_rows *rows = NULL;
	struct skald_buf found;
	char term[24];
	enum skald_rc rc;

	if (!p->key_count || now_ms < p->turn_at_ms || r->tick.reader.asked)
		return SKALD_OK;
	p->turn_at_ms = now_ms + TURN_MS;
	skald_buf_init(&found, 16 << 20);
	skald_array_binary_begin(&found, SKALD_OID_TEXT);
	if (r->publisher.topics.missing_count && now_ms >= p->look_at_ms) {
		p->look_at_ms = now_ms + LOOK_MS;
		skald__topics_find(r, &found);
	}
	if (found.failed) {
		rc = skald_fail(err, SKALD_RETRY, "pg", "", "out of memory");
	} else {
		struct skald_param params[] = { skald_param_int(r->lease.term, term),
			skald_array_binary_end(&found) };

		rc = skald__tick_query(r, sql_turn, params, 2, &rows, err);
	}
	if (!rc)
		take_cleaned(r, rows);
	skald_rows_free(rows);
	skald_buf_done(&found);
	return rc;
}
