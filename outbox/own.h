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
#include "outbox/relay_core.h"
#include "outbox/window_core.h"
#include "sql/sql.h"

/* --- rows of a tick (tick.c) ---------------------------------------------------------------- */

/* Columns of every statement that reads rows, in this order. */
enum skald__column {
	SKALD__COL_ID,
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
	SKALD__COL_IS_LAST, /* of a head only */
};

enum skald__asked {
	SKALD__ASKED_NOTHING,
	SKALD__ASKED_HEAD,
	SKALD__ASKED_MAP,
	SKALD__ASKED_CHUNK
};

/*
 * A window is read in chunks, bounded in rows and bytes. Its head comes with the
 * tick. If there is more, the map is asked for: where each further chunk ends and
 * between which transactions its rows lie, so that each is found by the index.
 */
struct skald__reader {
	struct skald_rows *rows; /* the chunk in hand */
	unsigned next; /* of rows, to be produced */
	int64_t last_id; /* read up to here */
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

/* --- publishing (publish.c, topics.c) ------------------------------------------------------- */

struct skald__topic {
	char *name;
	int32_t partition_count; /* as first seen: a key stays where it is */
};

struct skald__topics {
	struct skald__topic *items; /* sorted by name */
	unsigned count;
	unsigned room;
	unsigned last; /* hit */
};

#define SKALD__HEADERS_MAX (16 + SKALD_HEADERS_COUNT_MAX)

struct skald__publisher {
	struct skald_producer *producer; /* NULL: made when first needed */
	struct skald_cluster *cluster;
	struct skald__topics topics;
	struct skald_buf texts; /* own headers of one row, unescaped */
	struct skald_header headers[SKALD__HEADERS_MAX];
	bool is_refused; /* a record was; until the producer is made anew */
	struct skald_err refusal;
	int64_t stuck_tick; /* of the last trouble, */
	uint64_t stuck_ordinal; /* which is over when this row is acknowledged */
	int64_t probe_at_ms;
};

/* --- the relay ------------------------------------------------------------------------------ */

struct skald__relay_metrics {
	skald_metric *published, *ticks, *leader, *inflight, *rebuilds, *lag, *truncated,
		*fenced, *progress;
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
	struct skald__publisher publisher;
	struct skald__ring ring;

	struct skald__trouble pg;
	struct skald__trouble broker;
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

/* publish.c */
SKALD_MUSTUSE enum skald_rc skald__publish(
	struct skald_relay *r, uint64_t count, struct skald_err *err);
/* Hand out reports: acknowledged rows, a dead producer. */
void skald__publish_serve(struct skald_relay *r);
/* A new producer that goes on at the first row not acknowledged. */
SKALD_MUSTUSE enum skald_rc skald__publish_rebuild(
	struct skald_relay *r, struct skald_err *err);
void skald__publish_drop(struct skald_relay *r); /* producer and cluster; topics stay */
/* Trouble that is over when row `ordinal` of the open tick is acknowledged. */
void skald__publish_trouble(struct skald_relay *r, uint64_t ordinal,
	const struct skald_err *err, const char *what);
/* Nothing to send, but Kafka was away: is it back? */
void skald__publish_probe(struct skald_relay *r);

/* topics.c */
SKALD_MUSTUSE enum skald_rc skald__topics_get(struct skald_relay *r,
	struct skald_slice name, const struct skald__topic **topic,
	struct skald_err *err);
void skald__topics_done(struct skald__topics *topics);

/* ring.c: one step of retention */
SKALD_MUSTUSE enum skald_rc skald__ring_turn(
	struct skald_relay *r, struct skald_err *err);

#endif
