/*
 * broker.h - Kafka: gapless producer, group consumer, topics, dev broker.
 * The only folder that sees librdkafka. Objects belong to one thread.
 *
 * librdkafka errors -> skald_rc is one table (broker/errors.c): err->origin
 * "kafka", err->code the error's number.
 */
#ifndef SKALD_BROKER_BROKER_H
#define SKALD_BROKER_BROKER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/headers.h"
#include "base/slice.h"

struct skald_config;

/* --- properties ------------------------------------------------------------------------- */

/* The [kafka] section, checked against librdkafka; borrowed by what is created from it. */
struct skald_kafka_props;
SKALD_MUSTUSE enum skald_rc skald_kafka_props_create(struct skald_kafka_props **out,
	const struct skald_config *config, struct skald_err *err);
void skald_kafka_props_destroy(struct skald_kafka_props *props);

const char *skald_kafka_version(void); /* librdkafka's, at run time */

/* --- partitions -------------------------------------------------------------------------- */

/* Java's murmur2, positive, modulo count: where the default partitioner of Java clients puts a key. */
int32_t skald_partition_of(struct skald_slice key, int32_t partition_count);
uint32_t skald_murmur2(struct skald_slice key);

/* --- cluster and topics ------------------------------------------------------------------- */

struct skald_cluster; /* metadata and admin; wraps one client handle */

#define SKALD_CLUSTER_ID_BYTES 64

SKALD_MUSTUSE enum skald_rc skald_cluster_open(struct skald_cluster **out,
	const struct skald_kafka_props *props, struct skald_err *err);
void skald_cluster_close(struct skald_cluster *cluster);
/* Blocks at most timeout_ms. RETRY: no broker answers. */
SKALD_MUSTUSE enum skald_rc skald_cluster_id(struct skald_cluster *cluster,
	int64_t timeout_ms, char id[SKALD_CLUSTER_ID_BYTES], struct skald_err *err);
bool skald_cluster_is_dev(const char *cluster_id); /* mockCluster...: the dev broker */
/*
 * Partition count of a topic; *count = 0 when it does not exist (a result, not
 * an error). Never creates one.
 */
SKALD_MUSTUSE enum skald_rc skald_topic_partitions(struct skald_cluster *cluster,
	const char *topic, int64_t timeout_ms, int32_t *count, struct skald_err *err);
/*
 * The same of many, sorted by name, by one question: 0 also for those that this client
 * may not see.
 */
SKALD_MUSTUSE enum skald_rc skald_topics_partitions(struct skald_cluster *cluster,
	const char *const *topics, unsigned count, int64_t timeout_ms, int32_t *counts,
	struct skald_err *err);
/* How many copies its partitions have, at least; 0 when it does not exist. */
SKALD_MUSTUSE enum skald_rc skald_topic_replicas(struct skald_cluster *cluster,
	const char *topic, int64_t timeout_ms, int32_t *count, struct skald_err *err);

struct skald_topic_conf {
	int32_t partitions; /* 8 */
	int32_t replication; /* -1: the broker's default */
	bool create; /* false: a missing topic is REJECT, naming [topics] create */
};
/*
 * Create what is missing and wait until every partition has a leader. On the
 * dev broker (no admin calls) a metadata request creates it.
 * Created topics accept records of SKALD_RECORD_BYTES_MAX.
 */
SKALD_MUSTUSE enum skald_rc skald_topic_ensure(struct skald_cluster *cluster,
	const char *topic, const struct skald_topic_conf *conf, int64_t timeout_ms,
	int32_t *count, struct skald_err *err);
/* First and next offset of a partition, asked of its leader; open transactions are before next. */
SKALD_MUSTUSE enum skald_rc skald_topic_offsets(struct skald_cluster *cluster,
	const char *topic, int32_t partition, int64_t timeout_ms, int64_t *lo,
	int64_t *hi, struct skald_err *err);
/*
 * What a topic is set to, its broker's defaults included: each value as text, ""
 * when there is no such setting or nobody to ask (the dev broker). REJECT: this
 * client may not ask (it is a right of its own), or the topic's name is invalid.
 */
struct skald_topic_setting {
	const char *name; /* "min.insync.replicas" */
	char value[64];
};
SKALD_MUSTUSE enum skald_rc skald_topic_settings(struct skald_cluster *cluster,
	const char *topic, int64_t timeout_ms, struct skald_topic_setting *settings,
	unsigned count, bool *is_there, struct skald_err *err);
/*
 * The topic's max.message.bytes: a batch, frame and all, that the broker takes; one
 * record of n bytes (key, value, headers) makes one of n and about 100 more. 0 when
 * there is no such topic. Who may not ask, and the dev broker, get
 * SKALD_RECORD_BYTES_MAX: then the broker's refusal tells. RETRY: no answer.
 */
SKALD_MUSTUSE enum skald_rc skald_topic_max_bytes(struct skald_cluster *cluster,
	const char *topic, int64_t timeout_ms, int64_t *bytes, struct skald_err *err);
/* Brokers by "host:port", for doctor. */
SKALD_MUSTUSE enum skald_rc skald_cluster_brokers(struct skald_cluster *cluster,
	int64_t timeout_ms, unsigned *count, struct skald_err *err);

/* --- producer ----------------------------------------------------------------------------- */

/*
 * Idempotent and gapless: per partition the log is a prefix of what was sent,
 * in order. When a record fails (a gap would follow) the producer is dead:
 * destroy it, create a new one of the same client id, send again from the last
 * record of which everything before is acknowledged. A record is reported as
 * REJECT only when the broker refused it alone: of a refused batch all are RETRY,
 * and the next producer of that client id sends them one by one (producer.c).
 */
struct skald_producer;

struct skald_record {
	const char *topic; /* terminated */
	int32_t partition; /* always explicit */
	struct skald_slice key; /* NULL slice: no key */
	struct skald_slice value; /* NULL slice: tombstone */
	struct skald_headers headers;
	int64_t timestamp_ms; /* 0: now */
	uint64_t tag; /* handed back by the delivery report */
};

/* One report: rc OK = acknowledged by all in-sync replicas. */
typedef void (*skald_report_fn)(
	uint64_t tag, enum skald_rc rc, const struct skald_err *err, void *ctx);

SKALD_MUSTUSE enum skald_rc skald_producer_create(struct skald_producer **out,
	const struct skald_kafka_props *props, const char *client_id,
	struct skald_err *err);
/* The same with batches of at most so many bytes: a broker measures a topic's limit
   against the batch. */
SKALD_MUSTUSE enum skald_rc skald_producer_create_within(struct skald_producer **out,
	const struct skald_kafka_props *props, const char *client_id,
	int64_t batch_bytes_max, struct skald_err *err);
/* Drops what is queued and in flight (no reports); at most a second. NULL is fine. */
void skald_producer_destroy(struct skald_producer *producer);

/*
 * Queue one record; everything is copied. *full = true: nothing was queued,
 * serve reports first (back-pressure, not an error). REJECT: too large for
 * message.max.bytes, unknown partition. RETRY: fatal state, see skald_producer_is_dead.
 */
SKALD_MUSTUSE enum skald_rc skald_producer_send(struct skald_producer *producer,
	const struct skald_record *record, bool *full, struct skald_err *err);
/* Hand out the reports that are there; never blocks. Returns how many. */
unsigned skald_producer_serve(
	struct skald_producer *producer, skald_report_fn report, void *ctx);
/* Readable when reports wait: for poll(2). */
int skald_producer_fd(struct skald_producer *producer);
/* True once every record sent has its report; until then a dying one is `full`. */
bool skald_producer_is_dead(const struct skald_producer *producer, struct skald_err *why);
/* Records are compressed: what a broker measures is less than what was sent. */
bool skald_producer_is_compressing(const struct skald_producer *producer);
/* An answer about the record, the topic or the rights on it, not trouble on the way. */
bool skald_kafka_is_refusal(const struct skald_err *err);
/*
 * Nothing more is to be sent just now: what lingers (linger.ms, 10) goes out; blocks 1 ms.
 * False: so much was sent of late that more is to be expected, and waiting makes larger
 * batches. Call again, with is_quiet, when nothing has come for a millisecond; or never.
 */
bool skald_producer_push(struct skald_producer *producer, bool is_quiet);
/* The last broker-side complaint (all brokers down, ...) since the last call; false if none. */
bool skald_producer_complaint(struct skald_producer *producer, struct skald_err *err);

/* --- consumer ----------------------------------------------------------------------------- */

struct skald_kafka_consumer;

/* A record; borrowed until skald_kafka_records_free of its batch. */
struct skald_kafka_record {
	const char *topic;
	int32_t partition;
	int64_t offset;
	int64_t timestamp_ms; /* -1: none */
	struct skald_slice key;
	struct skald_slice value;
	struct skald_headers headers;
};

enum skald_group_event {
	SKALD_GROUP_ASSIGNED, /* answer by filling in each partition's offset */
	SKALD_GROUP_REVOKED, /* finish nothing more of them; the library unassigns on return */
	SKALD_GROUP_LOST, /* like revoked, but another may already own them */
};

struct skald_kafka_partition {
	const char *topic; /* borrowed during the call */
	int32_t partition;
	int64_t offset; /* in: where to start */
};

struct skald_kafka_consumer_conf {
	const char *group;
	const char *client_id;
	const char *const *topics;
	unsigned topic_count;
	int64_t session_timeout_ms; /* 0: librdkafka's default */
	int64_t max_poll_interval_ms;
	/* Without a group: also what transactions wrote that are open, or were aborted; and
	   skald_kafka_consumer_met_end knows the ends. Else only what is committed. */
	bool reads_all;
	/* Called on this consumer's thread, inside skald_kafka_consumer_serve or _close. On
	   ASSIGNED fill offset of every partition before return; offset -1 leaves that
	   partition unread until the next assignment (the group is told nothing). A topic
	   that is deleted is REVOKED, and ASSIGNED again when it is back. */
	void (*on_group)(enum skald_group_event event,
		struct skald_kafka_partition *partitions, unsigned count, void *ctx);
	/* A partition cannot go on: offset out of range, topic gone, not authorised, a
	   record that cannot be decoded. Once an assignment, inside serve. */
	void (*on_stopped)(const char *topic, int32_t partition,
		const struct skald_err *err, void *ctx);
	void *ctx;
};

/* Eager assignor (range): librdkafka 2.0.2's cooperative one loses assignments. */
SKALD_MUSTUSE enum skald_rc skald_kafka_consumer_open(struct skald_kafka_consumer **out,
	const struct skald_kafka_props *props,
	const struct skald_kafka_consumer_conf *conf, struct skald_err *err);
/*
 * Without a group: opened with topic_count 0 (group then only names where hints go), it
 * reads exactly these partitions from their offsets, until told anew. on_group is not called.
 */
SKALD_MUSTUSE enum skald_rc skald_kafka_consumer_assign(
	struct skald_kafka_consumer *consumer,
	const struct skald_kafka_partition *partitions, unsigned count,
	struct skald_err *err);
/* The end each partition has now, into its offset: one question for all. */
SKALD_MUSTUSE enum skald_rc skald_kafka_consumer_ends(
	struct skald_kafka_consumer *consumer, struct skald_kafka_partition *partitions,
	unsigned count, int64_t timeout_ms, struct skald_err *err);
/* Leaves the group; bounded (the mock and a vanished broker can hang librdkafka's own close). */
void skald_kafka_consumer_close(struct skald_kafka_consumer *consumer);
/* Rebalances and errors; never blocks. Must be called at least every few hundred ms. */
void skald_kafka_consumer_serve(struct skald_kafka_consumer *consumer);
/*
 * Readable as long as records or group events wait, so leave it out of poll(2)
 * while nothing is to be taken.
 */
int skald_kafka_consumer_fd(struct skald_kafka_consumer *consumer);

/*
 * Up to max records of the assigned partitions, in offset order per partition,
 * fair between partitions; does not block. Not calling it is the back-pressure.
 */
struct skald_kafka_records;
SKALD_MUSTUSE enum skald_rc skald_kafka_records_take(
	struct skald_kafka_consumer *consumer, unsigned max,
	struct skald_kafka_records **out, struct skald_err *err);
unsigned skald_kafka_records_count(const struct skald_kafka_records *records);
const struct skald_kafka_record *skald_kafka_records_at(
	const struct skald_kafka_records *records, unsigned index);
void skald_kafka_records_free(struct skald_kafka_records *records);

/* Throw away what is prefetched of a partition and go on at offset (same thread). */
SKALD_MUSTUSE enum skald_rc skald_kafka_consumer_seek(
	struct skald_kafka_consumer *consumer, const char *topic, int32_t partition,
	int64_t offset, struct skald_err *err);
/*
 * The end of a partition, when everything before it was taken last; -1: not met since the
 * assignment. A transaction ends in a marker, which has an offset and is no record: so the
 * offset of a record does not tell that it is the last. With reads_all only.
 */
int64_t skald_kafka_consumer_met_end(const struct skald_kafka_consumer *consumer,
	const char *topic, int32_t partition);
/* Stop reading a partition for good (until the next assignment). */
void skald_kafka_consumer_stop(
	struct skald_kafka_consumer *consumer, const char *topic, int32_t partition);
/* The hint for lag tools; asynchronous, errors are only logged. offset = next to read. */
void skald_kafka_consumer_commit(struct skald_kafka_consumer *consumer,
	const struct skald_kafka_partition *partitions, unsigned count);
/* Known end of a partition as of the last fetch; -1 if not known. Does not block. */
int64_t skald_kafka_consumer_end(
	struct skald_kafka_consumer *consumer, const char *topic, int32_t partition);
/* First and next offset asked of the leader; blocks at most timeout_ms. */
SKALD_MUSTUSE enum skald_rc skald_kafka_consumer_offsets(
	struct skald_kafka_consumer *consumer, const char *topic, int32_t partition,
	int64_t timeout_ms, int64_t *lo, int64_t *hi, struct skald_err *err);
/* Any broker connection up? For readiness. */
bool skald_kafka_consumer_is_connected(const struct skald_kafka_consumer *consumer);

/* --- dev broker --------------------------------------------------------------------------- */

/*
 * librdkafka's mock cluster as a broker for development: one node on loopback.
 * In memory only, at most 5 MiB a partition (older records are dropped), no
 * admin calls, no transactions. Says so in `skald_dev_broker_warning`.
 */
struct skald_dev_broker;
/*
 * port 0: any free one; another needs a program that links skald_dev_bind (as
 * skaldd does), which also takes Nagle's delay off. Topics that Skald asks for
 * (skald_topic_ensure) have as many partitions as asked, or else partitions;
 * those that other programs create by use have librdkafka's 4.
 */
SKALD_MUSTUSE enum skald_rc skald_dev_broker_start(struct skald_dev_broker **out,
	int port, int32_t partitions, struct skald_err *err);
void skald_dev_broker_stop(struct skald_dev_broker *broker);
const char *skald_dev_broker_address(
	const struct skald_dev_broker *broker); /* host:port */
const char *skald_dev_broker_warning(void);

#endif
