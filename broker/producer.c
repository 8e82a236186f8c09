/*
 * producer.c - idempotent and gapless: per partition the log is a prefix of what
 * was sent, in order.
 *
 * P1  Every record goes to an explicit partition, so that librdkafka never mixes
 *     placed and unplaced records of a topic.
 * P2  The first record that fails is the last that may be written: librdkafka's
 *     gapless mode sees to that for what a broker refuses; for the failures it
 *     does not count (an unknown topic), everything queued is purged here.
 * P3  A producer is dead only when every record that was sent has been reported,
 *     so nobody destroys it before hearing which record was refused. Until then
 *     send answers `full`.
 * P4  A record is reported as REJECT only when it was refused alone. librdkafka
 *     fails a batch as a whole: its records are reported as RETRY, and the next
 *     producer of this client id sends that partition's records in smaller groups,
 *     one after the other, in the end one at a time: a batch of 5,000 takes some
 *     70 round trips and then as many, not 5,000.
 *
 * Time-outs never fail a record (message.timeout.ms=0): an outage of any length
 * is waited out, and the queue's limits turn it into back-pressure.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"

/*
 * Records queued and in flight. With fewer the queue runs full before its batches are:
 * then all wait for linger.ms. A backlog of rows of 300 bytes over 8 partitions: 117,000/s
 * at 5,000, 160,000 at 10,000, 180,000 at 20,000, which takes 15 MB more. What is larger
 * than rows usually are is bounded in bytes.
 */
#define QUEUE_ROWS   12000
#define TOPIC_SLOTS  1024 /* power of two; half of it is used at most */
#define DYING_MS     500 /* what is in flight may still be acknowledged */
#define BUSY_ROWS    16 /* a level above it: more will come, and is worth waiting for */
#define LEVEL_MAX    64 /* forgotten in 16 ms */
#define LEAK_ROWS    4
#define REQUESTS_MAX 5 /* in flight of an idempotent producer, of about the same size */
#define SINGLE_MAX \
	128 /* suspects that are sent one at a time: a new producer costs more */

struct topic_slot {
	char *name;
	rd_kafka_topic_t *handle;
};

struct skald_producer {
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue; /* reports and errors */
	int fd;
	const struct skald_kafka_props *props;
	char *client_id;
	bool is_lingering; /* linger.ms is not 0 */
	bool is_group_full; /* P4: the record at hand is the last of its group */
	unsigned level; /* sent of late, leaking LEAK_ROWS a millisecond */
	int64_t level_at_ms;
	bool is_compressing;
	struct topic_slot topics[TOPIC_SLOTS];
	unsigned topic_count;
	uint64_t pending; /* sent, not reported */
	int64_t dying_at_ms; /* 0: alive; since when nothing more is taken */
	bool is_purged;
	struct skald_err why; /* of dying */
	bool has_complaint;
	struct skald_err complaint;
	struct skald__suspect suspect; /* P4: what this producer sends one by one */
	unsigned suspect_left;
	unsigned group_left; /* that may follow before the group is acknowledged */
	bool has_suspect; /* for the next one */
};

/* --- life --------------------------------------------------------------------------------- */

static enum skald_rc
make_conf(struct skald_producer *p, struct rd_kafka_conf_s **conf, struct skald_err *err)
{
	char bytes[16], rows[16], kbytes[16];
	/* In bytes twice what the relay keeps in flight: its own limit comes first. */
	const struct skald__setting defaults[] = {
		{ "linger.ms", "10" }, /* of a stream only, see push */
		{ "message.max.bytes", bytes },
		{ "queue.buffering.max.messages", rows },
		{ "queue.buffering.max.kbytes", kbytes },
		{ "topic.metadata.propagation.max.ms", "5000" },
	};
	static const struct skald__setting ours[] = {
		{ "enable.idempotence", "true" },
		{ "enable.gapless.guarantee", "true" },
		{ "acks", "all" },
		{ "message.timeout.ms", "0" },
	};
	enum skald_rc rc;

	snprintf(bytes, sizeof(bytes), "%d", SKALD_RECORD_BYTES_MAX);
	snprintf(rows, sizeof(rows), "%d", QUEUE_ROWS);
	snprintf(kbytes, sizeof(kbytes), "%d", 2 * SKALD_RELAY_INFLIGHT_BYTES / 1024);
	rc = skald__kafka_conf(p->props, p->client_id, conf, err);
	if (!rc)
		rc = skald__kafka_conf_set(p->props, *conf, defaults,
			sizeof(defaults) / sizeof(defaults[0]), true, err);
	if (!rc)
		rc = skald__kafka_conf_set(p->props, *conf, ours,
			sizeof(ours) / sizeof(ours[0]), false, err);
	return rc;
}

#define VALUE_BYTES 32

/* "": it has none, or a longer one. */
static const char *
value_of(const rd_kafka_conf_t *conf, const char *name, char value[static VALUE_BYTES])
{
	size_t bytes = VALUE_BYTES;

	if (rd_kafka_conf_get(conf, name, value, &bytes) != RD_KAFKA_CONF_OK)
		value[0] = '\0';
	return value;
}

static enum skald_rc
limit_batches(struct skald_producer *p, rd_kafka_conf_t *conf, int64_t bytes_max,
	struct skald_err *err)
{
	char value[VALUE_BYTES];
	struct skald__setting setting = { "batch.size", value };

	if (strtoll(value_of(conf, setting.name, value), NULL, 10) <= bytes_max)
		return SKALD_OK;
	snprintf(value, sizeof(value), "%lld", (long long)bytes_max);
	return skald__kafka_conf_set(p->props, conf, &setting, 1, false, err);
}

static bool
has_linger(const rd_kafka_conf_t *conf)
{
	char value[VALUE_BYTES];

	return strtod(value_of(conf, "linger.ms", value), NULL) > 0;
}

static bool
has_compression(const rd_kafka_conf_t *conf)
{
	char value[VALUE_BYTES];

	value_of(conf, "compression.codec", value);
	return value[0] && strcmp(value, "none") != 0;
}

enum skald_rc
skald_producer_create(struct skald_producer **out, const struct skald_kafka_props *props,
	const char *client_id, struct skald_err *err)
{
	return skald_producer_create_within(out, props, client_id, INT32_MAX, err);
}

enum skald_rc
skald_producer_create_within(struct skald_producer **out,
	const struct skald_kafka_props *props, const char *client_id,
	int64_t batch_bytes_max, struct skald_err *err)
{
	static const uint64_t one = 1;
	struct skald_producer *p = calloc(1, sizeof(*p));
	struct rd_kafka_conf_s *conf = NULL;
	enum skald_rc rc;

	if (!p)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	p->props = props;
	p->fd = skald__eventfd_open();
	p->client_id = strdup(client_id);
	if (p->fd < 0 || !p->client_id) {
		rc = skald_fail(err, SKALD_RETRY, "skald", "",
			"could not create a producer: out of memory or descriptors");
		goto out;
	}
	rc = make_conf(p, &conf, err);
	if (!rc)
		rc = limit_batches(p, conf, batch_bytes_max, err);
	if (rc)
		goto out;
	p->is_lingering = has_linger(conf);
	p->is_compressing = has_compression(conf);
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
	rc = skald__kafka_new(&p->rk, SKALD__CLIENT_PRODUCER, &conf, err);
	if (rc)
		goto out;
	p->queue = rd_kafka_queue_get_main(p->rk);
	rd_kafka_queue_io_event_enable(p->queue, p->fd, &one, sizeof(one));
	p->suspect = skald__kafka_props_take_suspect(props, p->client_id);
	p->suspect_left = p->suspect.count;
	*out = p;
	p = NULL;
out:
	if (conf)
		rd_kafka_conf_destroy(conf);
	skald_producer_destroy(p);
	return rc;
}

static void
forget_topics(struct skald_producer *p)
{
	for (unsigned i = 0; i < TOPIC_SLOTS; i++) {
		if (p->topics[i].handle)
			rd_kafka_topic_destroy(p->topics[i].handle);
		free(p->topics[i].name);
		p->topics[i] = (struct topic_slot){ NULL, NULL };
	}
	p->topic_count = 0;
}

static void
purge(struct skald_producer *p)
{
	rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
				      RD_KAFKA_PURGE_F_NON_BLOCKING);
}

void
skald_producer_destroy(struct skald_producer *p)
{
	if (!p)
		return;
	forget_topics(p);
	if (p->rk)
		purge(p);
	if (p->queue) {
		/* The fd goes away before the last events come. */
		rd_kafka_queue_io_event_enable(p->queue, -1, NULL, 0);
		rd_kafka_queue_destroy(p->queue);
	}
	skald__kafka_destroy(p->rk, 1000);
	if (p->fd >= 0)
		close(p->fd);
	free(p->client_id);
	free(p);
}

int
skald_producer_fd(struct skald_producer *producer)
{
	return producer->fd;
}

/* --- dying ---------------------------------------------------------------------------------- */

static void
die(struct skald_producer *p, const struct skald_err *why)
{
	if (p->dying_at_ms)
		return; /* the first reason is the reason */
	p->why = *why;
	p->dying_at_ms = skald_mono_ms();
	skald_log_err(
		SKALD_LOG_DEBUG, &p->why, "producer is given up client=%s", p->client_id);
}

static void
die_of_fatal(struct skald_producer *p)
{
	struct skald_err why = SKALD_ERR_INIT;
	char text[200] = "", number[8];
	int code = rd_kafka_fatal_error(p->rk, text, sizeof(text));

	snprintf(number, sizeof(number), "%d", code);
	skald_fail(&why, SKALD_RETRY, "kafka", number,
		"the producer cannot go on without a gap: %s", text);
	die(p, &why);
}

bool
skald_producer_is_dead(const struct skald_producer *producer, struct skald_err *why)
{
	if (!producer->dying_at_ms || producer->pending > 0) /* P3 */
		return false;
	if (why)
		*why = producer->why;
	return true;
}

/* --- sending -------------------------------------------------------------------------------- */

static rd_kafka_topic_t *
topic_handle(struct skald_producer *p, const char *name)
{
	unsigned i = skald_murmur2(skald_slice_text(name)) & (TOPIC_SLOTS - 1);

	for (; p->topics[i].name; i = (i + 1) & (TOPIC_SLOTS - 1))
		if (strcmp(p->topics[i].name, name) == 0)
			return p->topics[i].handle;
	if (p->topic_count >= TOPIC_SLOTS / 2) {
		forget_topics(p); /* librdkafka keeps those that have records */
		i = skald_murmur2(skald_slice_text(name)) & (TOPIC_SLOTS - 1);
	}
	p->topics[i].name = strdup(name);
	if (!p->topics[i].name)
		return NULL;
	p->topics[i].handle = rd_kafka_topic_new(p->rk, name, NULL);
	if (!p->topics[i].handle) {
		free(p->topics[i].name);
		p->topics[i].name = NULL;
		return NULL;
	}
	p->topic_count++;
	return p->topics[i].handle;
}

static rd_kafka_headers_t *
copy_headers(struct skald_headers from)
{
	rd_kafka_headers_t *to = rd_kafka_headers_new(from.count);

	for (size_t i = 0; i < from.count; i++) {
		const struct skald_header *h = &from.items[i];

		if (rd_kafka_header_add(to, h->name.data, (ssize_t)h->name.bytes,
			    h->value.data, (ssize_t)h->value.bytes)) {
			rd_kafka_headers_destroy(to);
			return NULL;
		}
	}
	return to;
}

/* About the root: so many groups of so many. */
static unsigned
group_of(unsigned suspects)
{
	unsigned count = 1;

	while (suspects > SINGLE_MAX && count * count < suspects)
		count++;
	return count;
}

/* Group by group while a refused batch is looked for its guilty record (P4). */
static bool
has_to_wait(struct skald_producer *p, const struct skald_record *r)
{
	if (p->dying_at_ms)
		return true;
	if (p->suspect_left == 0 || r->partition != p->suspect.partition ||
		strcmp(r->topic, p->suspect.topic) != 0)
		return false;
	if (p->group_left == 0) {
		if (p->pending > 0)
			return true;
		p->group_left = group_of(p->suspect.batch_count);
	}
	p->group_left--;
	p->suspect_left--;
	p->is_group_full = p->group_left == 0 || p->suspect_left == 0;
	return false;
}

/* Lingering ends for as long as flush() runs, and broker threads need a moment to look. */
static void
send_now(struct skald_producer *p)
{
	if (p->is_lingering)
		rd_kafka_flush(p->rk, 1);
}

/* It is in librdkafka's hands. */
static void
note_sent(struct skald_producer *p)
{
	p->pending++;
	if (p->level < LEVEL_MAX)
		p->level++;
	if (p->is_group_full) /* the next one waits for their reports */
		send_now(p);
	p->is_group_full = false;
}

enum skald_rc
skald_producer_send(struct skald_producer *p, const struct skald_record *r, bool *full,
	struct skald_err *err)
{
	rd_kafka_headers_t *headers = NULL;
	rd_kafka_topic_t *topic;
	rd_kafka_resp_err_t code;

	*full = false;
	if (skald_producer_is_dead(p, err))
		return SKALD_RETRY;
	if (has_to_wait(p, r)) {
		*full = true;
		return SKALD_OK;
	}
	topic = topic_handle(p, r->topic);
	if (!topic)
		return skald__kafka_fail(
			err, rd_kafka_last_error(), "could not send to %s", r->topic);
	if (r->headers.count > 0) {
		headers = copy_headers(r->headers);
		if (!headers)
			return skald_fail(
				err, SKALD_RETRY, "skald", "", "headers: out of memory");
	}
	/*
	 * librdkafka copies key and value; it takes the headers on success only.
	 * Plain variable arguments: each type as the comment of rd_kafka_vtype_t
	 * has it. Headers last: without any the list ends before them.
	 */
	code = rd_kafka_producev(p->rk, RD_KAFKA_VTYPE_RKT, topic,
		RD_KAFKA_VTYPE_PARTITION, r->partition, RD_KAFKA_VTYPE_MSGFLAGS,
		(int)RD_KAFKA_MSG_F_COPY, RD_KAFKA_VTYPE_KEY, r->key.data, r->key.bytes,
		RD_KAFKA_VTYPE_VALUE, r->value.data, r->value.bytes,
		RD_KAFKA_VTYPE_TIMESTAMP, r->timestamp_ms, RD_KAFKA_VTYPE_OPAQUE,
		(void *)(uintptr_t)r->tag,
		headers ? RD_KAFKA_VTYPE_HEADERS : RD_KAFKA_VTYPE_END, headers,
		RD_KAFKA_VTYPE_END);
	if (!code) {
		note_sent(p);
		return SKALD_OK;
	}
	if (headers)
		rd_kafka_headers_destroy(headers);
	if (code == RD_KAFKA_RESP_ERR__FATAL)
		die_of_fatal(p);
	if (code == RD_KAFKA_RESP_ERR__FATAL || code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
		*full = true;
		return SKALD_OK;
	}
	return skald__kafka_fail(
		err, code, "could not send to %s/%d", r->topic, (int)r->partition);
}

bool
skald_producer_is_compressing(const struct skald_producer *producer)
{
	return producer->is_compressing;
}

/*
 * One record of a quiet time leaves at once. In a stream of them each would be a request
 * of its own: 35 us of a broker's CPU for a message instead of 3. There they linger, and
 * leave together.
 */
bool
skald_producer_push(struct skald_producer *p, bool is_quiet)
{
	int64_t now_ms = skald_mono_ms(), leaked = (now_ms - p->level_at_ms) * LEAK_ROWS;

	p->level = leaked < (int64_t)p->level ? p->level - (unsigned)leaked : 0;
	p->level_at_ms = now_ms;
	if (!p->is_lingering || p->pending == 0 || p->dying_at_ms)
		return true;
	if (!is_quiet && p->level > BUSY_ROWS)
		return false;
	send_now(p);
	return true;
}

/* --- reports ---------------------------------------------------------------------------------- */

/* A failed record: what it means for it and for the producer (P2, P4). */
static enum skald_rc
judge(struct skald_producer *p, const rd_kafka_message_t *m, size_t batch_count,
	struct skald_err *err)
{
	const char *topic = rd_kafka_topic_name(m->rkt);
	enum skald_rc rc;

	rc = skald__kafka_fail(err, m->err, "record for %s/%d", topic, (int)m->partition);
	if (rc == SKALD_REJECT && batch_count > 1) {
		/* before it in its partition can be what was under way with it */
		uint64_t before = REQUESTS_MAX * batch_count;
		struct skald__suspect s = { .partition = m->partition,
			.count = (unsigned)(batch_count +
					    (p->pending < before ? p->pending : before)),
			.batch_count = (unsigned)batch_count };

		snprintf(s.topic, sizeof(s.topic), "%s", topic);
		/* Not reached last time: look further. */
		if (s.count < 2 * p->suspect.count && p->suspect_left == 0)
			s.count = 2 * p->suspect.count;
		if (!p->has_suspect)
			skald__kafka_props_suspect(p->props, p->client_id, &s);
		p->has_suspect = true;
		rc = skald_fail_in(
			err, SKALD_RETRY, "one of %zu records was refused", batch_count);
	}
	if (!p->dying_at_ms) {
		die(p, err);
		if (!rd_kafka_fatal_error(p->rk, NULL, 0)) {
			purge(p);
			p->is_purged = true;
		}
	}
	return rc;
}

static unsigned
hand_out(struct skald_producer *p, rd_kafka_event_t *event, skald_report_fn report,
	void *ctx)
{
	const size_t batch_count = rd_kafka_event_message_count(event);
	const rd_kafka_message_t *m;
	unsigned count = 0;

	while ((m = rd_kafka_event_message_next(event))) {
		struct skald_err err = SKALD_ERR_INIT;
		enum skald_rc rc = SKALD_OK;

		p->pending--;
		if (m->err)
			rc = judge(p, m, batch_count, &err);
		report((uint64_t)(uintptr_t)m->_private, rc, rc ? &err : NULL, ctx);
		count++;
	}
	return count;
}

static void
note_error(struct skald_producer *p, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(event);

	if (code == RD_KAFKA_RESP_ERR__FATAL) {
		die_of_fatal(p);
		return;
	}
	/* One broker of several: its partitions move, nothing is wrong yet. */
	if (code == RD_KAFKA_RESP_ERR__TRANSPORT)
		return;
	skald__kafka_fail(&p->complaint, code, "%s", rd_kafka_event_error_string(event));
	p->has_complaint = true;
}

unsigned
skald_producer_serve(struct skald_producer *p, skald_report_fn report, void *ctx)
{
	rd_kafka_event_t *event;
	unsigned count = 0;

	skald__eventfd_drain(p->fd);
	while ((event = rd_kafka_queue_poll(p->queue, 0))) {
		switch (rd_kafka_event_type(event)) {
		case RD_KAFKA_EVENT_DR:
			count += hand_out(p, event, report, ctx);
			break;
		case RD_KAFKA_EVENT_ERROR:
			note_error(p, event);
			break;
		default:
			break;
		}
		rd_kafka_event_destroy(event);
	}
	/* A broker that went away would keep what is in flight for a minute. */
	if (p->dying_at_ms && p->pending > 0 && !p->is_purged &&
		skald_mono_ms() - p->dying_at_ms > DYING_MS) {
		purge(p);
		p->is_purged = true;
	}
	return count;
}

bool
skald_producer_complaint(struct skald_producer *p, struct skald_err *err)
{
	if (!p->has_complaint)
		return false;
	p->has_complaint = false;
	*err = p->complaint;
	return true;
}
