/*
 * records.c - a batch of librdkafka's messages as plain records.
 *
 * Nothing is copied: a record's slices and its headers' point into the messages,
 * which the batch holds until it is freed. A message that nobody frees would make
 * the end of its client hang, so the batch owns every one from the first moment.
 */
#include "broker/consumer_own.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>

struct skald_kafka_records {
	rd_kafka_message_t **messages;
	struct skald_kafka_record *items;
	struct skald_header *headers; /* of all records, one after the other */
	unsigned count, room;
};

struct skald_kafka_records *
skald__records_create(unsigned room)
{
	struct skald_kafka_records *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->room = room;
	r->messages = calloc(room ? room : 1, sizeof(struct rd_kafka_message_s *));
	r->items = calloc(room ? room : 1, sizeof(r->items[0]));
	if (!r->messages || !r->items) {
		skald_kafka_records_free(r);
		return NULL;
	}
	return r;
}

struct rd_kafka_message_s **
skald__records_tail(struct skald_kafka_records *records, unsigned *room)
{
	*room = records->room - records->count;
	return records->messages + records->count;
}

void
skald__records_keep(struct skald_kafka_records *records, unsigned count)
{
	records->count += count;
}

/* Counts a message's headers, which also parses them. Broken ones are none. */
static size_t
count_headers(rd_kafka_message_t *m)
{
	rd_kafka_headers_t *list = NULL;

	return rd_kafka_message_headers(m, &list) ? 0 : rd_kafka_header_cnt(list);
}

static size_t
read_headers(rd_kafka_message_t *m, struct skald_header *to)
{
	rd_kafka_headers_t *list = NULL;
	const char *name;
	const void *value;
	size_t count = 0, bytes;

	if (rd_kafka_message_headers(m, &list))
		return 0;
	while (!rd_kafka_header_get_all(list, count, &name, &value, &bytes)) {
		to[count].name = skald_slice_text(name);
		to[count].value = skald_slice_make(value, value ? bytes : 0);
		count++;
	}
	return count;
}

static void
read_record(rd_kafka_message_t *m, struct skald_kafka_record *r)
{
	rd_kafka_timestamp_type_t type;

	r->topic = rd_kafka_topic_name(m->rkt); /* the message holds it */
	r->partition = m->partition;
	r->offset = m->offset;
	r->timestamp_ms = rd_kafka_message_timestamp(m, &type);
	if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
		r->timestamp_ms = -1;
	r->key = skald_slice_make(m->key, m->key ? m->key_len : 0);
	r->value = skald_slice_make(m->payload, m->payload ? m->len : 0);
}

bool
skald__records_finish(struct skald_kafka_records *records)
{
	size_t total = 0, at = 0;

	for (unsigned i = 0; i < records->count; i++)
		total += count_headers(records->messages[i]);
	records->headers = calloc(total ? total : 1, sizeof(records->headers[0]));
	if (!records->headers)
		return false;
	for (unsigned i = 0; i < records->count; i++) {
		struct skald_kafka_record *r = &records->items[i];

		read_record(records->messages[i], r);
		r->headers.items = records->headers + at;
		r->headers.count =
			read_headers(records->messages[i], records->headers + at);
		at += r->headers.count;
	}
	return true;
}

unsigned
skald_kafka_records_count(const struct skald_kafka_records *records)
{
	return records->count;
}

const struct skald_kafka_record *
skald_kafka_records_at(const struct skald_kafka_records *records, unsigned index)
{
	return &records->items[index];
}

void
skald_kafka_records_free(struct skald_kafka_records *records)
{
	if (!records)
		return;
	for (unsigned i = 0; i < records->count; i++)
		rd_kafka_message_destroy(records->messages[i]);
	free(records->messages);
	free(records->items);
	free(records->headers);
	free(records);
}
