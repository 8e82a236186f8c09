/*
 * own.h - what the files of outbox/ share: the relay's parts.
 *
 * Two sessions: `work` reads windows, however long that takes; `guard` renews the
 * lease and writes progress meanwhile.
 */
#ifndef SKALD_OUTBOX_OWN_H
#define SKALD_OUTBOX_OWN_H

#include <pthread.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/position.h"
#include "base/rand.h"
#include "base/wake.h"
#include "broker/broker.h"
#include "outbox/outbox.h"
#include "outbox/park_core.h"
#include "outbox/relay_core.h"
#include "outbox/window_core.h"
#include "sql/sql.h"

/* --- rows (feed.c) -------------------------------------------------------------------------- */

/* Columns of everything that brings rows, in this order. */
enum skald__column {
	SKALD__COL_ID,
	SKALD__COL_XID,
	SKALD__COL_MESSAGE_ID,
	SKALD__COL_AT,
	SKALD__COL_TOPIC,
	SKALD__COL_KEY,
	SKALD__COL_TYPE,
	SKALD__COL_SOURCE,
	SKALD__COL_SUBJECT,
	SKALD__COL_CONTENT_TYPE,
	SKALD__COL_DATA,
	SKALD__COL_HEADERS,
	SKALD__COL_CORRELATION,
	SKALD__COL_CAUSATION,
	SKALD__COL_TRACEPARENT,
	SKALD__COL_EXPIRES,
	SKALD__COLUMN_COUNT,
	SKALD__COL_IS_WHOLE = SKALD__COLUMN_COUNT, /* of a head only */
};

/* One row on its way out, borrowed until it is popped: cells in PostgreSQL's binary formats. */
struct skald__row {
	struct skald_slice cells[SKALD__COLUMN_COUNT];
	struct skald_position position;
	int64_t mark; /* for the window */
	bool is_recovered; /* of a catch-up: it may have been published before */
};

/* --- rows of a tick (tick.c) ---------------------------------------------------------------- */

enum skald__asked {
	SKALD__ASKED_NOTHING,
	SKALD__ASKED_HEAD,
	SKALD__ASKED_MAP,
	SKALD__ASKED_FINE_MAP,
	SKALD__ASKED_CHUNK
};

/*
 * A window is read in chunks, bounded in rows and bytes. One that fits into one chunk
 * comes with the tick. Of a larger one the map is asked for: where each chunk ends and
 * between which transactions its rows lie, so that each is found by the index.
 */
struct skald__place {
	int64_t id;
	unsigned row;
};

struct skald__reader {
	struct skald_rows *rows; /* the chunk in hand */
	struct skald__place *order; /* its rows by id */
	unsigned order_room;
	unsigned next; /* of order, to be produced */
	int64_t last_id; /* read up to here */
	bool is_large; /* the map has to be asked for */
	struct skald_rows *map; /* NULL: not asked for yet */
	unsigned map_next;
	enum skald__asked asked;
};

struct skald__tick {
	char stream[SKALD_STREAM_TEXT_BYTES];
	uint32_t epoch;
	int64_t number;
	struct skald__reader reader;
};

/* --- mode wal (wal.c, wal_slot.c, snapshot.c) ------------------------------------------------ */

/* A pg_snapshot, for looking rows up in it. */
struct skald__snapshot {
	uint64_t xmin, xmax;
	uint64_t *xip; /* in progress, rising */
	unsigned xip_count;
};

SKALD_MUSTUSE enum skald_rc skald__snapshot_parse(
	struct skald__snapshot *s, struct skald_slice text, struct skald_err *err);
bool skald__snapshot_sees(const struct skald__snapshot *s, uint64_t xid);
void skald__snapshot_done(struct skald__snapshot *s);

/*
 * Transactions that were streamed and that a snapshot does not see: a commit is in WAL, and
 * comes out of the slot, before everybody's snapshot sees it.
 */
#define SKALD__UNSEEN_MAX 1024
struct skald__unseen {
	struct {
		uint64_t xid, lsn; /* of the commit */
	} items[SKALD__UNSEEN_MAX];
	unsigned count;
	uint64_t lost_lsn; /* lowest of those that found no room; UINT64_MAX: none */
	uint64_t lost_xid; /* their highest */
};
void skald__unseen_clear(struct skald__unseen *u);
void skald__unseen_add(struct skald__unseen *u, uint64_t xid, uint64_t lsn);
/* Another snapshot: those that it sees go. */
void skald__unseen_look(struct skald__unseen *u, const struct skald__snapshot *s);
/* What the snapshot sees for sure: every commit below; at most lsn. */
uint64_t skald__unseen_bound(const struct skald__unseen *u, uint64_t lsn);

#define SKALD__QUEUE_ROWS 2048 /* a power of two: read from the stream, not produced */

struct skald__queued {
	struct skald_slice cells[SKALD__COLUMN_COUNT];
	uint64_t lsn;
	uint32_t ordinal;
	int64_t mark;
	void *buffer; /* holds the cells */
	size_t bytes;
};

/*
 * The stream of a slot. A row waits until the next item is here, because only then it
 * is known whether it ends its transaction: behind that row sending can be resumed.
 */
struct skald__wal {
	struct skald_stream *session; /* NULL: none */
	bool is_started;
	int64_t started_at_ms;
	char slot[64];
	uint64_t slot_lsn; /* where a slot that was made begins */
	char slot_xid[24]; /* whoever was under way when it was has an id below */
	struct skald__queued *queue; /* SKALD__QUEUE_ROWS of them */
	unsigned head, count;
	size_t queue_bytes;
	struct skald__queued last;
	bool has_last;
	bool is_in_transaction;
	uint64_t lsn; /* of the transaction's commit record */
	int64_t commit_us;
	/* of each row in the window: its position, to be written down */
	struct skald_position places[SKALD__WINDOW_SLOTS];
	struct skald_position place; /* of the last row that went into the window */
	uint64_t followed; /* the window's resume when last looked at, */
	struct skald_position resume_place; /* and where the row before it stands */
	uint32_t extra; /* ordinals that releases took in its transaction */
	struct skald__snapshot acked; /* rows that it sees were published before */
	uint64_t flushed; /* everything that committed below is acknowledged, */
	uint64_t recorded; /* and written down, */
	int64_t recorded_at_ms;
	uint64_t told; /* and the server told */
	int64_t told_at_ms;
	bool is_reply_due;
	struct skald_buf next_snapshot; /* a mark once `flushed` has reached next_lsn */
	struct skald__snapshot next; /* the same, parsed */
	uint64_t next_lsn;
	struct skald__unseen unseen; /* of next */
	int64_t busy_since_ms; /* another session has the slot; 0: none has */
	char leave_reason[120]; /* "": none; else poll from the next LEAD on */
	bool drop_due; /* a slot of no use is still there */
	bool was_impossible; /* logged once */
};

/* wal.c: while streaming */
SKALD_MUSTUSE enum skald_rc skald__wal_start(
	struct skald_relay *r, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__wal_read(
	struct skald_relay *r, uint64_t count, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__wal_record(
	struct skald_relay *r, bool is_drained, struct skald_err *err);
void skald__wal_peek(struct skald_relay *r, struct skald__row *row);
void skald__wal_pop(struct skald_relay *r);
struct skald_position skald__wal_place_of_released(const struct skald_relay *r);
void skald__wal_pop_released(struct skald_relay *r);
SKALD_MUSTUSE enum skald_rc skald__wal_open(struct skald_relay *r, struct skald_err *err);
void skald__wal_close(struct skald_relay *r);
void skald__wal_done(struct skald_relay *r);
/* Has a slot been made meanwhile? Is the server to be told something? */
void skald__wal_serve(struct skald_relay *r);
/* The stream broke: everything from what is acknowledged comes again. */
void skald__wal_lost(struct skald_relay *r, const struct skald_err *err);
bool skald__wal_is_quiet(
	const struct skald_relay *r); /* nothing read or produced is under way */

/* wal_slot.c: coming and going */
SKALD_MUSTUSE enum skald_rc skald__wal_slot(struct skald_relay *r, struct skald_err *err);
void skald__wal_slot_serve(struct skald_relay *r);
SKALD_MUSTUSE enum skald_rc skald__wal_enter(
	struct skald_relay *r, struct skald_err *err);
void skald__wal_leave(struct skald_relay *r);
void skald__wal_name_slot(struct skald_relay *r);
/* Once more, if it was not possible when the relay began to poll. */
SKALD_MUSTUSE enum skald_rc skald__wal_drop_due(
	struct skald_relay *r, struct skald_err *err);
/* A slot that nobody streams from any more holds WAL back: away with it. */
SKALD_MUSTUSE enum skald_rc skald__wal_drop_slot(
	struct skald_relay *r, struct skald_err *err);

/* --- catching up (recover.c) ----------------------------------------------------------------- */

/*
 * After a slot was lost or another server took over: rows of the next tick may be in
 * their topics already, under positions above `from`.
 */
struct skald__recover {
	struct skald_position from;
	bool is_tick; /* the open tick is the catch-up */
	bool is_scanned;
	struct skald_rows *topics; /* of the tick */
	struct skald_kafka_consumer *reader;
	struct skald_uuid *found; /* sorted once scanned */
	size_t found_count, found_room;
	unsigned next_topic;
	int32_t partition, partition_count;
	int64_t begin, end; /* of the chunk being read */
	int64_t first_end; /* where the partition ended when it was begun */
	int64_t at; /* next offset of the chunk */
	int64_t idle_since_ms;
	int64_t begin_at_ms; /* once Kafka answers, what is on its way gets so much time */
	bool is_chunk_open, is_deep_enough;
	bool is_stopped; /* the partition cannot be read: */
	struct skald_err why;
};

/* recover_from of skald.relay, NULL slice: no catch-up. Asks for the tick's topics. */
SKALD_MUSTUSE enum skald_rc skald__recover_begin(
	struct skald_relay *r, struct skald_slice from, struct skald_err *err);
/* One step of reading the topics' tails; *is_ready once it is known what is there. */
SKALD_MUSTUSE enum skald_rc skald__recover_step(
	struct skald_relay *r, bool *is_ready, struct skald_err *err);
/* This row is in its topic. */
bool skald__recover_has(const struct skald_relay *r, const struct skald_uuid *id);
void skald__recover_done(struct skald_relay *r);

/* --- gate and sleep (gate.c, doze.c) --------------------------------------------------------- */

struct skald__gate {
	char *names; /* comma separated; NULL: no gate */
	uint64_t asked_lsn; /* once every standby has this, */
	uint64_t asked_ordinal; /* these rows may go */
	int64_t shut_at_ms; /* 0: it is not */
};

void skald__gate_reset(struct skald_relay *r);

SKALD_MUSTUSE enum skald_rc skald__gate_ask(struct skald_relay *r, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__doze(
	struct skald_relay *r, bool is_asleep, struct skald_err *err);
/* Whoever has a transaction id by now has one below this. */
SKALD_MUSTUSE enum skald_rc skald__next_xid(
	struct skald_relay *r, char dst[24], struct skald_err *err);

/* --- publishing (publish.c, topics.c) ------------------------------------------------------- */

enum skald__topic_state {
	SKALD__TOPIC_NEW, /* has to be asked for */
	SKALD__TOPIC_THERE,
	SKALD__TOPIC_REFUSED, /* missing and not to be made, or not ours to write to */
};

struct skald__topic {
	char *name;
	enum skald__topic_state state;
	int32_t partition_count; /* as first used: a key stays where it is; 0: never was */
	int32_t partitions_here; /* as last asked */
	int64_t max_bytes; /* of a record */
	int64_t limit_at_ms; /* when that was asked */
	bool is_missing; /* REFUSED: looked for now and then, not for every row */
	int64_t refused_at_us; /* REFUSED: when; wall clock */
	int64_t retry_at_ms; /* and taken for granted until then */
	unsigned refused_count; /* in a row */
	struct skald_err *why; /* REFUSED */
};

struct skald__topics {
	struct skald__topic *items; /* sorted by name */
	unsigned count;
	unsigned room;
	unsigned last; /* hit */
	unsigned missing_count;
	bool is_grown; /* one has more partitions than are used */
	int64_t regrow_at_ms;
};

#define SKALD__HEADERS_MAX (16 + SKALD_HEADERS_COUNT_MAX)

struct skald__publisher {
	struct skald_producer *producer; /* NULL: made when first needed */
	struct skald_cluster *cluster;
	struct skald__topics topics;
	unsigned
		asked; /* of Kafka and the database so far: each may have taken a while */
	struct skald_buf texts; /* own headers of one row, unescaped */
	struct skald_header headers[SKALD__HEADERS_MAX];
	bool is_too_long; /* a batch was too large for its topic: limits are to be asked for */
	bool is_compressing; /* then only the broker knows what a record's size is */
	uint64_t acked_count; /* by Kafka, since this was last added to the metric */
	bool is_refused; /* a record was; until the producer is made anew */
	struct skald_err refusal;
	int64_t stuck_tick; /* of the last trouble, */
	uint64_t stuck_ordinal; /* which is over when this row is acknowledged */
	int64_t probe_at_ms;
	int64_t push_at_ms; /* what lingers, unless more is sent; 0: nothing does */
	bool breath_due; /* so much was sent of late that more is on its way */
};

/* --- keys that wait (park.c, release.c) ------------------------------------------------------- */

struct skald__parked {
	struct skald__hold hold;
	uint32_t hash;
	unsigned attempts;
	size_t topic_bytes, key_bytes;
	char bytes[]; /* topic, key */
};

/* Arrays of relay_park's arguments, in its order. */
enum skald__park_column {
	SKALD__PARK_HEADS, /* topic, key, message, position, reason, code, next_ms */
	SKALD__PARK_ROWS =
		SKALD__PARK_HEADS + 7, /* position, parked key, the outbox's, xid */
	SKALD__PARK_AGAIN = SKALD__PARK_ROWS + 18, /* id, position */
	SKALD__PARK_COLUMNS = SKALD__PARK_AGAIN + 2,
};

#define SKALD__PARK_ROWS_MAX 256
#define SKALD__REFUSALS_MAX  64 /* more are refused once more */

struct skald__refusal {
	struct skald_position at;
	struct skald_err err;
};

struct skald__park {
	struct skald__parked **slots; /* by hash of topic and key */
	unsigned room; /* a power of two, or 0 */
	unsigned key_count;
	/* rows on their way into the database; acknowledged when they are there */
	struct skald_buf columns[SKALD__PARK_COLUMNS];
	uint64_t ordinals[SKALD__PARK_ROWS_MAX];
	unsigned row_count;
	size_t row_bytes;
	bool is_urgent; /* before the next row is produced */
	struct skald__refusal refusals[SKALD__REFUSALS_MAX];
	unsigned refusal_count;
	int64_t turn_at_ms;
	int64_t look_at_ms; /* for missing topics */
	int64_t told_at_ms; /* the log */
};

/* The rows that a marker lets out, in front of what the feed brings. */
struct skald__release {
	uint64_t left; /* 0: none is under way */
	struct skald_rows *rows; /* some of them */
	unsigned next;
	int64_t mark; /* the marker's: of the last row only */
	char *topic;
	struct skald_buf key;
	char marker[SKALD_POSITION_TEXT_BYTES];
	char after[SKALD_POSITION_TEXT_BYTES];
};

/* --- the relay ------------------------------------------------------------------------------ */

struct skald__relay_metrics {
	skald_metric *published, *ticks, *leader, *inflight, *rebuilds, *lag, *truncated,
		*fenced, *progress, *streaming, *wal_held, *wal_behind, *safe_wal,
		*spilled, *left, *recovered, *skipped, *asleep, *woken;
	skald_metric *parked_keys, *parked_messages, *released;
};

/* One outside world: its trouble is logged once per change. */
struct skald__trouble {
	bool is_there;
	unsigned count; /* tries in a row that failed: backoff */
	struct skald_err err;
};

struct skald__ring {
	bool is_ready; /* leaf may be emptied as far as can be seen */
	int64_t leaf; /* -1: none */
	char since[24]; /* xid8 as text: younger rows may have come since */
	int64_t busy; /* a bit per leaf whose lock did not come */
};

struct skald_relay {
	atomic_bool wants_wal; /* set by anybody; the core hears of it */
	char *source;
	char *url;
	const struct skald_kafka_props *kafka;
	const struct skald_topic_conf *topics_conf;
	int64_t retention_ms;
	int64_t consumed_ms, dead_letters_ms, audit_ms, barrier_ms;
	char owner[128];
	char client_id[160];
	struct skald_wake wake;
	int64_t drain_ms;
	struct skald_rand rand;

	struct skald_sql *work;
	struct skald_sql *guard;
	struct skald_lease lease;
	bool was_connected;

	struct skald__relay_core core;
	struct skald__window window;
	struct skald__tick tick;
	struct skald__wal wal;
	struct skald__recover recover;
	struct skald__gate gate;
	char asleep_xid
		[24]; /* who began before may not know that we sleep; "": we do not */
	int64_t slot_limit_bytes;
	struct skald__publisher publisher;
	struct skald__ring ring;
	struct skald__park park;
	struct skald__release release;

	struct skald__trouble pg;
	struct skald__trouble broker;
	struct skald__trouble standby; /* a gate that does not open */
	struct skald__relay_metrics metrics;
	pthread_mutex_t health_lock; /* guards health */
	struct skald_relay_health health;
};

/* relay.c */
void skald__relay_tell(struct skald_relay *r, struct skald__relay_ev ev);
/* Wait for the answer of the work session; renews the lease and serves reports meanwhile. */
SKALD_MUSTUSE enum skald_rc skald__relay_await(
	struct skald_relay *r, struct skald_err *err);

/* relay_health.c */
void skald__relay_metrics_init(struct skald_relay *r, struct skald_metrics *metrics);
void skald__relay_note_progress(struct skald_relay *r);
void skald__relay_note_state(struct skald_relay *r);
void skald__relay_note_parked(struct skald_relay *r); /* keys came or went */
void skald__relay_trouble(struct skald_relay *r, struct skald__trouble *t,
	const struct skald_err *err, const char *what);
void skald__relay_trouble_over(struct skald_relay *r, struct skald__trouble *t);
/* How long to wait after this trouble. */
int64_t skald__relay_backoff(struct skald_relay *r, const struct skald__trouble *t);

/* tick.c: results arrive as events; a foreign term is SKALD__EV_LOST */
SKALD_MUSTUSE enum skald_rc skald__tick_lead(
	struct skald_relay *r, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__tick_turn(
	struct skald_relay *r, const struct skald__relay_do *todo, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__tick_ask(struct skald_relay *r, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__tick_take(
	struct skald_relay *r, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__tick_progress(
	struct skald_relay *r, struct skald_err *err);
void skald__tick_drop(struct skald_relay *r); /* forget rows and map */
/* One statement on the work session, however long it takes. */
SKALD_MUSTUSE enum skald_rc skald__tick_query(struct skald_relay *r, const char *sql,
	const struct skald_param *params, unsigned count, struct skald_rows **rows,
	struct skald_err *err);
SKALD_MUSTUSE enum skald_rc skald__tick_session(
	struct skald_sql *sql, struct skald_err *err);

/* feed.c: the next row, in the order of what brings them; there must be one */
void skald__feed_peek(struct skald_relay *r, struct skald__row *row);
void skald__feed_pop(struct skald_relay *r);
/* Where a row of the window stands. */
struct skald_position skald__feed_place(const struct skald_relay *r, uint64_t ordinal);
bool skald__feed_is_empty(const struct skald_relay *r); /* of rows that are here */
int64_t skald__row_int(const struct skald__row *row, enum skald__column column);
bool skald__row_uuid(
	const struct skald__row *row, enum skald__column column, struct skald_uuid *out);
bool skald__row_time_us(
	const struct skald__row *row, enum skald__column column, int64_t *wall_us);

/* publish.c */
SKALD_MUSTUSE enum skald_rc skald__publish(
	struct skald_relay *r, uint64_t count, bool to_mark, struct skald_err *err);
/* Hand out reports: acknowledged rows, a dead producer. */
void skald__publish_serve(struct skald_relay *r);
/* A new producer that goes on at the first row not acknowledged. */
SKALD_MUSTUSE enum skald_rc skald__publish_rebuild(
	struct skald_relay *r, struct skald_err *err);
/* Wait a little for what is in flight, so that nothing of it comes later unexpected. */
void skald__publish_settle(struct skald_relay *r);
void skald__publish_drop(struct skald_relay *r); /* producer and cluster; topics stay */
/* Trouble that is over when row `ordinal` of the open tick is acknowledged. */
void skald__publish_trouble(struct skald_relay *r, uint64_t ordinal,
	const struct skald_err *err, const char *what);
/* Nothing to send, but Kafka was away: is it back? */
void skald__publish_probe(struct skald_relay *r);

/* topics.c: *topic, known, is good until the next call; RETRY: nobody answers */
SKALD_MUSTUSE enum skald_rc skald__topics_get(struct skald_relay *r,
	struct skald_slice name, const struct skald__topic **topic,
	struct skald_err *err);
/* What is known of it is wrong: the next get asks. */
void skald__topics_forget(struct skald_relay *r, struct skald_slice name);
/* Refused although it is there: taken for granted for a while. */
void skald__topics_refuse(
	struct skald_relay *r, struct skald_slice name, const struct skald_err *why);
/* Ask for its largest record again, unless that was lately. */
/* Somebody thinks that it is another one now: the next row that is too large asks. */
void skald__topics_doubt_limit(struct skald_relay *r, struct skald_slice name);
bool skald__topics_is_limit_old(const struct skald__topic *topic);
SKALD_MUSTUSE enum skald_rc skald__topics_ask_limit(
	struct skald_relay *r, struct skald_slice name, struct skald_err *err);
/* The counts that were used, when leadership begins. */
SKALD_MUSTUSE enum skald_rc skald__topics_load(
	struct skald_relay *r, struct skald_err *err);
/* Nothing is outstanding and everything recorded: take up what has grown. */
/* Looks now and then. Growth waits until nothing is outstanding: then regrow. */
bool skald__topics_have_grown(struct skald_relay *r);
SKALD_MUSTUSE enum skald_rc skald__topics_regrow(
	struct skald_relay *r, struct skald_err *err);
/* Missing ones that are there now, as an array for SQL. One question to Kafka. */
void skald__topics_find(struct skald_relay *r, struct skald_buf *found);
/* Of all topics in use, anew. */
void skald__topics_ask_limits(struct skald_relay *r);
/* What a batch may have at most for every topic in use. */
int64_t skald__topics_batch_bytes(const struct skald__topics *topics);
/* One of the missing topics; NULL: there is none. */
const char *skald__topics_missing(const struct skald__topics *topics);
/* Somebody said then that what was refused is repaired: the next row asks, unless it was
   refused after that. */
void skald__topics_doubt(
	struct skald_relay *r, struct skald_slice name, int64_t asked_at_us);
void skald__topics_miss(struct skald_relay *r, struct skald_slice name); /* at load */
/* Kafka will be asked about topics: connects while PostgreSQL is asked for rows. */
void skald__topics_meet(struct skald_relay *r);
void skald__topics_done(struct skald__topics *topics);

/* park.c */
/* The keys that wait, when leadership or an epoch begins. */
SKALD_MUSTUSE enum skald_rc skald__park_load(
	struct skald_relay *r, struct skald_err *err);
bool skald__park_covers(struct skald_relay *r, const struct skald__row *row);
/* Why the row that is next was refused; false: it was not. */
bool skald__park_take_refusal(
	struct skald_relay *r, const struct skald__row *row, struct skald_err *why);
void skald__park_note_refusal(
	struct skald_relay *r, uint64_t ordinal, const struct skald_err *why);
/* Park the row, and pop it; why: it is the head (again) of its key. NULL: it is behind one. */
SKALD_MUSTUSE enum skald_rc skald__park_row(struct skald_relay *r,
	const struct skald__row *row, const struct skald_err *why, struct skald_err *err);
/* What was parked since is there for good, and acknowledged. */
SKALD_MUSTUSE enum skald_rc skald__park_flush(
	struct skald_relay *r, struct skald_err *err);
struct skald__parked *skald__park_find(
	struct skald_relay *r, struct skald_slice topic, struct skald_slice key);
/* Once a second, while a key waits: clean up, let out what is due. On the work session. */
SKALD_MUSTUSE enum skald_rc skald__park_turn(
	struct skald_relay *r, struct skald_err *err);
void skald__park_drop(struct skald_relay *r); /* what is not in the database yet */
void skald__park_done(struct skald_relay *r);

/* release.c */
/* A marker: whoever waits for it comes next, in front of the feed. Pops it. */
SKALD_MUSTUSE enum skald_rc skald__release_begin(
	struct skald_relay *r, const struct skald__row *row, struct skald_err *err);
/* The next row that was let out is here. */
SKALD_MUSTUSE enum skald_rc skald__release_fill(
	struct skald_relay *r, struct skald_err *err);
void skald__release_peek(const struct skald_relay *r, struct skald__row *row);
void skald__release_pop(struct skald_relay *r);
void skald__release_drop(struct skald_relay *r);

/* ring.c: one step of retention */
SKALD_MUSTUSE enum skald_rc skald__ring_turn(
	struct skald_relay *r, struct skald_err *err);

#endif
