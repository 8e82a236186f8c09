/*
 * doctor_position.c - doctor: does the end of the topics fit what the database knows?
 *
 * The last record of each partition that bears our stream is at most at the position
 * that the relay has recorded, or a moment ahead of it. One far beyond was written by
 * somebody who knows more: another relay on a copy of this database, or this is the
 * copy (restored from before). Then positions would be used twice, and consumers would
 * take new messages for repetitions.
 */
#include "cli/doctor_own.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/position.h"
#include "broker/broker.h"

#define PARTITIONS_MAX 512
#define READ_MS        3000
#define LOOK_MS        20
#define RECHECKS       4 /* the relay records its position once a second */
#define RECHECK_MS     700
#define TOPIC_FORBIDDEN \
	"29" /* Kafka's TOPIC_AUTHORIZATION_FAILED, as errors of broker/ bear it */

struct ends {
	struct skald_kafka_partition items[PARTITIONS_MAX];
	unsigned count;
	unsigned open_count; /* not heard of yet */
	bool is_forbidden; /* a topic may not be read */
	char last[SKALD_POSITION_TEXT_BYTES]; /* the highest of our stream; "": none */
	char where[320]; /* topic/partition@offset of it */
};

struct known { /* by the database */
	char stream[SKALD_STREAM_TEXT_BYTES];
	char position[SKALD_POSITION_TEXT_BYTES];
	int64_t epoch;
	int64_t waiting;
	bool is_alive;
};

static bool
read_known(struct skald_sql *sql, struct known *known)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	bool is_read;

	is_read = skald__doctor_ask(sql,
		"SELECT stream, coalesce(position, ''), epoch::text, lag_rows::text,"
		" (heartbeat_at > clock_timestamp() - interval '30 s')::text"
		" FROM skald.relays",
		&rows, &err);
	if (is_read) {
		(void)skald_slice_copy(
			skald_rows_get(rows, 0, 0), known->stream, sizeof(known->stream));
		(void)skald_slice_copy(skald_rows_get(rows, 0, 1), known->position,
			sizeof(known->position));
		known->epoch = skald_rows_int(rows, 0, 2, 0);
		known->waiting = skald_rows_int(rows, 0, 3, 0);
		known->is_alive = skald_slice_is_text(skald_rows_get(rows, 0, 4), "true");
	}
	skald_rows_free(rows);
	return is_read;
}

/* --- the topics' ends ---------------------------------------------------------------------- */

static void
on_stopped(const char *topic, int32_t partition, const struct skald_err *err, void *ctx)
{
	struct ends *ends = ctx; /* its last record is gone: nothing to learn there */

	(void)topic;
	(void)partition;
	ends->is_forbidden |= strcmp(err->code, TOPIC_FORBIDDEN) == 0;
	if (ends->open_count)
		ends->open_count--;
}

static struct skald_slice
header(const struct skald_kafka_record *record, const char *name)
{
	for (size_t i = 0; i < record->headers.count; i++)
		if (skald_slice_is_text(record->headers.items[i].name, name))
			return record->headers.items[i].value;
	return SKALD_SLICE_NULL;
}

static void
take(struct ends *ends, const struct skald_kafka_record *record, const char *stream)
{
	struct skald_slice sequence = header(record, "ce_sequence");
	struct skald_position position;
	char text[SKALD_POSITION_TEXT_BYTES];

	if (ends->open_count)
		ends->open_count--;
	if (!skald_slice_is_text(header(record, "ce_stream"), stream) ||
		!skald_position_parse(sequence, &position) ||
		!skald_slice_copy(sequence, text, sizeof(text)) ||
		strcmp(text, ends->last) <= 0)
		return;
	memcpy(ends->last, text, sizeof(text));
	(void)snprintf(ends->where, sizeof(ends->where), "%s/%d@%lld", record->topic,
		(int)record->partition, (long long)record->offset);
}

/* The partitions that hold anything, each from its last record on. */
static enum skald_rc
find_ends(struct skald_kafka_consumer *consumer, struct ends *ends, struct skald_err *err)
{
	enum skald_rc rc;
	unsigned kept = 0;

	rc = skald_kafka_consumer_ends(
		consumer, ends->items, ends->count, SKALD__DOCTOR_KAFKA_MS, err);
	for (unsigned i = 0; i < ends->count && !rc; i++)
		if (ends->items[i].offset > 0) {
			ends->items[kept] = ends->items[i];
			ends->items[kept].offset--;
			kept++;
		}
	ends->count = ends->open_count = kept;
	return rc || !kept
		       ? rc
		       : skald_kafka_consumer_assign(consumer, ends->items, kept, err);
}

static enum skald_rc
read_ends(const struct skald_kafka_props *props, struct ends *ends, const char *stream,
	struct skald_err *err)
{
	struct skald_kafka_consumer_conf conf = { .group = "skald-doctor",
		.client_id = "skald-doctor",
		.reads_all = true,
		.on_stopped = on_stopped,
		.ctx = ends };
	struct skald_kafka_consumer *consumer = NULL;
	int64_t until_ms = skald_mono_ms() + READ_MS;
	enum skald_rc rc;

	rc = skald_kafka_consumer_open(&consumer, props, &conf, err);
	if (!rc)
		rc = find_ends(consumer, ends, err);
	while (!rc && ends->open_count && skald_mono_ms() < until_ms) {
		struct skald_kafka_records *records = NULL;

		skald_kafka_consumer_serve(consumer);
		rc = skald_kafka_records_take(consumer, PARTITIONS_MAX, &records, err);
		for (unsigned i = 0; !rc && i < skald_kafka_records_count(records); i++)
			take(ends, skald_kafka_records_at(records, i), stream);
		if (!rc && skald_kafka_records_count(records) == 0)
			(void)poll(NULL, 0, LOOK_MS);
		skald_kafka_records_free(records);
	}
	if (consumer)
		skald_kafka_consumer_close(consumer);
	return rc;
}

/* Names stay in rows. */
static void
add_partitions(
	struct ends *ends, struct skald_cluster *cluster, const struct skald_rows *rows)
{
	struct skald_err err = SKALD_ERR_INIT;

	for (unsigned r = 0; r < skald_rows_count(rows); r++) {
		const char *topic = skald_rows_get(rows, r, 0).data;
		int32_t count = 0;

		if (skald_topic_partitions(
			    cluster, topic, SKALD__DOCTOR_KAFKA_MS, &count, &err))
			continue; /* told by the check of the topics */
		for (int32_t p = 0; p < count && ends->count < PARTITIONS_MAX; p++) {
			ends->items[ends->count].topic = topic;
			ends->items[ends->count].partition = p;
			ends->count++;
		}
	}
}

/* --- judging ----------------------------------------------------------------------------------- */

static bool
is_beyond(const struct ends *ends, const struct known *known)
{
	return ends->last[0] && strcmp(ends->last, known->position) > 0;
}

static bool
is_of_later_epoch(const struct ends *ends, const struct known *known)
{
	struct skald_position position;

	return skald_position_parse(skald_slice_text(ends->last), &position) &&
	       (int64_t)position.epoch > known->epoch;
}

static void
judge(struct skald__doctor *doctor, const struct ends *ends, const struct known *known)
{
	char flag[80];
	char fix[160];

	(void)snprintf(fix, sizeof(fix), "skald db adopt --reason restored%s",
		skald__doctor_source_flag(doctor, flag, sizeof(flag)));
	if (!ends->last[0] && ends->is_forbidden)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "position",
			"allow this client Read on the topics",
			"the topics' ends are not known: this client may not read them");
	else if (!ends->last[0])
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "position", NULL,
			"no topic ends with a record of this stream");
	else if (!is_beyond(ends, known))
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "position", NULL,
			"the topics end where the database says");
	else if (is_of_later_epoch(ends, known))
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "position", fix,
			"%s is of a later epoch than this database knows: another relay "
			"writes this stream, or this is a restored copy. If this one "
			"shall go on, stop skaldd, then:",
			ends->where);
	else if (!known->is_alive)
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "position",
			"systemctl start skaldd",
			"%s is beyond what is recorded: the relay did not come to record "
			"it, or this is a restored copy; look again when it runs",
			ends->where);
	else if (known->waiting)
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "position", NULL,
			"%s is being recorded", ends->where);
	else
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "position", fix,
			"%s is beyond all that is recorded: another relay writes this "
			"stream, or this is a restored copy. If this one shall go on, "
			"stop skaldd, then:",
			ends->where);
}

void
skald__doctor_position(struct skald__doctor *doctor, struct skald_cluster *cluster,
	struct skald_sql *sql)
{
	struct ends *ends = calloc(1, sizeof(*ends));
	struct skald_kafka_props *props = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	struct known known = { .stream = "" };
	enum skald_rc rc;

	if (!ends || !read_known(sql, &known))
		goto out; /* said before why not */
	rc = skald_conn_query(skald_sql_conn(sql),
		"SELECT topic FROM (SELECT topic FROM skald.outbox ORDER BY id DESC"
		" LIMIT 10000) AS newest WHERE topic <> '' UNION SELECT topic"
		" FROM skald.relay_topic LIMIT 32",
		NULL, 0, &rows, &err);
	if (!rc)
		rc = skald_kafka_props_create(&props, doctor->cli->config, &err);
	if (!rc) {
		add_partitions(ends, cluster, rows);
		if (ends->count)
			rc = read_ends(props, ends, known.stream, &err);
	}
	if (rc) {
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "position", NULL,
			"the topics' ends are not known: %s", err.text);
		goto out;
	}
	/* the relay may be about to record it */
	for (unsigned i = 0; i < RECHECKS && known.is_alive && is_beyond(ends, &known) &&
			     !is_of_later_epoch(ends, &known);
		i++) {
		(void)poll(NULL, 0, RECHECK_MS);
		(void)read_known(sql, &known);
	}
	judge(doctor, ends, &known);
out:
	skald_kafka_props_destroy(props);
	skald_rows_free(rows);
	free(ends);
}
