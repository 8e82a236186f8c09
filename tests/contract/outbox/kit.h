/*
 * kit.h - what the outbox tests share: a dev broker, relays on threads, and a
 * reader that sees everything a topic holds.
 *
 * What cannot be done here ends the process with a message.
 */
#ifndef SKALD_TESTS_CONTRACT_OUTBOX_KIT_H
#define SKALD_TESTS_CONTRACT_OUTBOX_KIT_H

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/metrics.h"
#include "broker/broker.h"
#include "outbox/outbox.h"
#include "tests/support/pg.h"

#define KIT_HEADERS_MAX 24

struct kit_record {
	int32_t partition;
	int64_t offset;
	int64_t timestamp_ms;
	char *key; /* NULL: none; else terminated */
	char *value; /* NULL: tombstone; else terminated */
	size_t value_bytes;
	unsigned header_count;
	char *names[KIT_HEADERS_MAX];
	char *values[KIT_HEADERS_MAX];
};

struct kit_records {
	struct kit_record *items;
	unsigned count, room;
};

#define KIT_PARTITIONS 16 /* of 5 MiB each: what the mock keeps */

/* One broker (librdkafka's mock) and its properties per process. */
const struct skald_kafka_props *kit_kafka(void);
/* The next produce requests are answered with this error of the protocol; 0: as always. */
void kit_refuse_produce(int error, unsigned count);
void kit_refuse_nothing(void); /* forget those that are left */
/* After so many answers nobody gets a record, until it is let go; what is there is told. */
void kit_withhold_after(unsigned answers);
void kit_let_go(void);
void kit_broker_set_up(bool is_up); /* down: nobody answers */
void kit_make_topic(const char *name);
void kit_servers(char *dst, size_t bytes); /* for bootstrap.servers */
const struct skald_topic_conf *kit_topics(void);

extern const char *kit_role; /* as whom relays connect: postgres */
/* The producers of relays that are started from now on. */
extern enum kit_producer {
	KIT_AS_SET,
	/* one request a broker: the mock does not check sequence numbers and stores what was
	   under way behind a refused batch, which Kafka refuses */
	KIT_ONE_IN_FLIGHT,
	KIT_SHORT_QUEUE, /* a window is not under way as a whole */
} kit_producer;
#define KIT_PRODUCERS 3

/* How relays are started besides: mode poll, no limit, no gate. */
struct kit_ways {
	bool wants_wal;
	int64_t slot_limit_bytes;
	const char *gate;
	int64_t drain_ms; /* 0: as long as it takes; 1: a stop cuts it off */
};
extern struct kit_ways kit_ways;

/* A relay on a thread of its own; the tests name topic and database alike. */
struct kit_relay {
	struct skald_relay *relay;
	struct skald_metrics *metrics;
	pthread_t thread;
	int64_t drain_ms;
	enum skald_rc rc;
	struct skald_err err;
};
void kit_relay_start(struct kit_relay *r, const char *database, int64_t retention_ms);
/* In mode wal from the start: waits until it streams. */
bool kit_relay_start_wal(struct kit_relay *r, const char *database, int64_t retention_ms);
void kit_relay_start_with(struct kit_relay *r, const char *database, int64_t retention_ms,
	const struct skald_topic_conf *topics);
void kit_relay_stop(struct kit_relay *r); /* drains, joins, destroys */
int64_t kit_metric(struct kit_relay *r, const char *name);
bool kit_wait_metric(struct kit_relay *r, const char *name, int64_t at_least);

/* Wait until a query answers `want`; false after half a minute. */
bool kit_wait(struct skald_sql *sql, const char *query, int64_t want);
/* Wait until the relay has acknowledged and recorded everything that is committed now. */
bool kit_wait_relayed(struct skald_sql *sql);

/* A thread that adds numbered rows in transactions of 1 to 5 until it is told to stop. */
struct kit_load {
	pthread_t thread;
	const char *database;
	_Atomic bool is_over;
	int from, added;
};
void kit_load_start(struct kit_load *load, const char *database, int from);
void kit_load_stop(struct kit_load *load);

void kit_add(struct skald_sql *sql, const char *topic, const char *key, int data);
/* Adds rows `from` to `to`; keys 'k0' to 'k49', data is the row's number. */
void kit_add_numbered(struct skald_sql *sql, const char *topic, int from, int to);

/* Every slot of this database, also one whose walsender is on its way out: a cluster has
   few, and a database cannot be dropped with one. */
void kit_drop_slots(struct skald_sql *sql);
/* The end of a test whose relay may have streamed. */
void kit_end(struct skald_sql *sql);

/* All records of a topic up to its ends now, by partition and offset. */
struct kit_records kit_read(const char *topic);
void kit_free(struct kit_records *records);
const char *kit_header(
	const struct kit_record *record, const char *name); /* NULL: none */
unsigned kit_header_count(const struct kit_record *record, const char *name);

/* Positions: first appearances rise, repetitions are equal. */
struct kit_findings {
	unsigned messages; /* distinct ids */
	unsigned repeats;
	unsigned recovered; /* flagged: of a catch-up */
	unsigned moved; /* one id at two positions, or two ids at one */
	unsigned fallen; /* a first appearance below an earlier one of its partition */
	unsigned
		inverted; /* per key, a first appearance of a number below an earlier one */
};
struct kit_findings kit_inspect(const struct kit_records *all);
/* Inspects all that a topic holds: so many messages, repeated at most so often, nothing moved,
   fallen or inverted. */
struct kit_findings kit_check(const char *topic, unsigned messages, unsigned repeats_max);
#define KIT_ANY UINT_MAX

#endif
