/*
 * own.h - what the files of broker/ share. librdkafka's structs appear by their
 * own tags only: its headers are included in .c files alone.
 */
#ifndef SKALD_BROKER_OWN_H
#define SKALD_BROKER_OWN_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/broker.h"

struct rd_kafka_s;
struct rd_kafka_conf_s;

/* --- errors.c ----------------------------------------------------------------------------- */

/* What to do about a librdkafka error code; the one table. */
enum skald_rc skald__kafka_rc(int code);
/* Fill err from a code: "what: librdkafka's text"; returns the table's rc. */
enum skald_rc skald__kafka_fail(struct skald_err *err, int code, const char *fmt, ...)
	SKALD_PRINTF(3, 4);
/* The same, but with an rc that the caller knows better. */
enum skald_rc skald__kafka_fail_as(struct skald_err *err, enum skald_rc rc, int code,
	const char *fmt, ...) SKALD_PRINTF(4, 5);

/* --- props.c ------------------------------------------------------------------------------ */

/* Everything the user set, on a fresh conf; the caller adds its own and owns it. */
SKALD_MUSTUSE enum skald_rc skald__kafka_conf(const struct skald_kafka_props *props,
	const char *client_id, struct rd_kafka_conf_s **out, struct skald_err *err);

struct skald__setting {
	const char *name;
	const char *value;
};
/* Set ours: a `default_only` list gives way to what the user set. */
SKALD_MUSTUSE enum skald_rc skald__kafka_conf_set(const struct skald_kafka_props *props,
	struct rd_kafka_conf_s *conf, const struct skald__setting *settings,
	unsigned count, bool default_only, struct skald_err *err);

/* Is the cluster behind these properties the dev broker? -1: not known yet. */
int skald__kafka_props_dev(const struct skald_kafka_props *props);
void skald__kafka_props_note_dev(const struct skald_kafka_props *props, bool is_dev);

/*
 * A batch that the broker refused as a whole: the next producer of the same
 * client id sends these records group by group, so that the guilty one is refused
 * alone in the end (producer.c P4).
 */
struct skald__suspect {
	char topic[250]; /* "": none */
	int32_t partition;
	unsigned count; /* of records to be sent so */
	unsigned batch_count; /* of those that were refused together */
};
void skald__kafka_props_suspect(const struct skald_kafka_props *props,
	const char *client_id, const struct skald__suspect *suspect);
struct skald__suspect skald__kafka_props_take_suspect(
	const struct skald_kafka_props *props, const char *client_id);

/* --- topics.c ----------------------------------------------------------------------------- */

struct rd_kafka_s *skald__cluster_handle(struct skald_cluster *cluster);

/* --- client.c ----------------------------------------------------------------------------- */

enum skald__client { SKALD__CLIENT_PRODUCER, SKALD__CLIENT_CONSUMER };

/* Takes *conf (NULL afterwards) whether it succeeds or not. */
SKALD_MUSTUSE enum skald_rc skald__kafka_new(struct rd_kafka_s **out,
	enum skald__client client, struct rd_kafka_conf_s **conf, struct skald_err *err);
/*
 * Destroy a handle within ms. librdkafka 2.0.2 can wait for ever (a vanished
 * broker during a group's rebalance, a record nobody freed): then the handle and
 * its threads are left behind, which is said in the log and costs memory until
 * the process ends. NULL is fine.
 */
void skald__kafka_destroy(struct rd_kafka_s *rk, int64_t ms);

/* An eventfd that librdkafka writes to; -1 on failure. */
int skald__eventfd_open(void);
void skald__eventfd_raise(int fd);
void skald__eventfd_drain(int fd);

/* --- dev.c, dev_bind.c -------------------------------------------------------------------- */

/*
 * The dev broker's stand-in for the admin call CreateTopics: a record here, key =
 * name, value = partitions in decimal, makes the topic. The mock cluster itself
 * only knows topics that come to be by use, and those have 4.
 */
#define SKALD__DEV_TOPICS "__skald_dev_topics"

/*
 * The order that dev_bind.c (linked by programs that start a dev broker) carries
 * out in the next bind(2) of this thread: this port, without Nagle's delay. Not
 * wanted: bind passes through.
 */
struct skald__bind_order {
	bool is_wanted;
	int port; /* 0: any */
	bool was_seen; /* the program has dev_bind.c */
	int error; /* errno of binding to port; the socket then got any port */
};
struct skald__bind_order *skald__bind_order(void);

#endif
