/*
 * consumer_own.h - what the consumer's files share: consumer.c is the member of
 * the group, reading.c takes records and moves in partitions, records.c is a batch.
 */
#ifndef SKALD_BROKER_CONSUMER_OWN_H
#define SKALD_BROKER_CONSUMER_OWN_H

#include "broker/own.h"

struct rd_kafka_message_s;
struct rd_kafka_queue_s;

struct skald__part {
	char *topic;
	int32_t partition;
	struct rd_kafka_queue_s *queue;
	int64_t met_end; /* -1: not yet */
	bool is_stopped;
	bool is_told; /* C4 */
	struct skald_err why;
};

struct skald_kafka_consumer {
	struct rd_kafka_s *rk;
	struct rd_kafka_queue_s *queue; /* group events, errors, statistics */
	int fd;
	struct skald_kafka_consumer_conf conf; /* its pointers are not used after open */
	struct skald__part *parts;
	unsigned part_count;
	unsigned turn; /* who is read first */
	bool is_connected;
	bool has_untold; /* a stop waits for serve */
	int complaint_code;
	int64_t complaint_at_ms;
};

/* Make the descriptor readable if something waits (C5). */
void skald__consumer_rearm(struct skald_kafka_consumer *c);
/* Say on the log what librdkafka says: once, when it changes, or after a while. */
void skald__consumer_complain(struct skald_kafka_consumer *c, int code, const char *text);

/* --- records.c ---------------------------------------------------------------------------- */

/* A batch with room for so many records; NULL without memory. */
struct skald_kafka_records *skald__records_create(unsigned room);
/* Where the next messages go; only those kept are the batch's. */
struct rd_kafka_message_s **skald__records_tail(
	struct skald_kafka_records *records, unsigned *room);
/* The first count messages at the tail are the batch's from now on. */
void skald__records_keep(struct skald_kafka_records *records, unsigned count);
/* Fill in records and headers of all that was kept; false without memory. */
SKALD_MUSTUSE bool skald__records_finish(struct skald_kafka_records *records);

#endif
