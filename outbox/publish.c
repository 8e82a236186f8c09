/*
 * publish.c - rows become records: a CloudEvent in Kafka's binary mode, in the
 * partition that the key's murmur2 (without a key, the ce_id's) says.
 */
#include "outbox/own.h"

#include <poll.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/json.h"
#include "base/log.h"
#include "base/uuid.h"

#define OWN_HEADERS_BYTES_MAX (256 * 1024) /* as jsonb prints them */
#define LOOK_AGAIN_MS         10
#define SETTLE_MS             400 /* well below the lease's renewal */
#define PROBE_MS              1000
#define PROBE_BLOCKS_MS       200
/* A stream that brought nothing for so long has ended for now. On a busy machine a server
   that decodes pauses for 1 to 3 ms all the time: with 1 here batches are of 55 records
   and a backlog goes at 97,000/s, with 4 they are of 210 and it goes at 140,000/s. */
#define PUSH_MS 4

/* --- one row ------------------------------------------------------------------------------ */

/* What a record's headers point to besides the row itself. */
struct scratch {
	char id[SKALD_UUID_TEXT_BYTES];
	char time[SKALD_TIME_TEXT_BYTES];
	char expiry[SKALD_TIME_TEXT_BYTES];
	char position[SKALD_POSITION_TEXT_BYTES];
};

struct builder {
	struct skald_header *items;
	size_t count;
};

static void
add(struct builder *b, struct skald_slice name, struct skald_slice value)
{
	if (value.data)
		b->items[b->count++] = (struct skald_header){ name, value };
}

#define ADD(b, name, value) add((b), SKALD_SLICE_LIT(name), (value))

/* Own headers: a jsonb object of texts (a version byte, then JSON). */
static enum skald_rc
add_own(struct skald_relay *r, struct builder *b, struct skald_slice jsonb,
	struct skald_err *err)
{
	struct skald_buf *texts = &r->publisher.texts;
	struct skald_slice name;
	struct skald_json root, value;
	struct skald_json_iter it;
	enum skald_rc rc;

	if (!jsonb.data || jsonb.bytes < 2)
		return SKALD_OK;
	rc = skald_json_parse(skald_slice_make(jsonb.data + 1, jsonb.bytes - 1),
		OWN_HEADERS_BYTES_MAX, SKALD_JSON_DEPTH_MAX, &root, err);
	if (rc)
		return skald_fail_in(err, rc, "headers");
	/* unescaped texts are no longer than the source: room once, then pointers stay */
	skald_buf_clear(texts);
	skald_buf_add(texts, root.text.data, root.text.bytes);
	if (texts->failed)
		return skald_fail(
			err, SKALD_RETRY, "skald", "", "headers: out of memory");
	skald_buf_clear(texts);
	skald_json_iter_init(&it, root);
	while (skald_json_next(&it, &name, &value)) {
		size_t begin = texts->bytes, middle;

		skald_json_unescape(name, texts);
		middle = texts->bytes;
		if (value.kind == SKALD_JSON_STRING)
			skald_json_unescape(skald_slice_make(value.text.data + 1,
						    value.text.bytes - 2),
				texts);
		else
			skald_buf_add_slice(texts, value.text);
		if (b->count == SKALD__HEADERS_MAX)
			return skald_fail(err, SKALD_REJECT, "skald", "SK007",
				"headers: must be at most %d", SKALD_HEADERS_COUNT_MAX);
		/* one value per name: the column has this one */
		if (!skald_slice_is_text(
			    skald_slice_make(texts->data + begin, middle - begin),
			    SKALD_H_TRACEPARENT))
			add(b, skald_slice_make(texts->data + begin, middle - begin),
				skald_slice_make(
					texts->data + middle, texts->bytes - middle));
	}
	return SKALD_OK;
}

static struct skald_slice
time_text(const struct skald__row *row, enum skald__column column,
	char dst[SKALD_TIME_TEXT_BYTES], int64_t *wall_us)
{
	if (!skald_cell_time_us(row->cells[column], wall_us))
		return SKALD_SLICE_NULL;
	skald_time_format(*wall_us, dst);
	return skald_slice_make(dst, SKALD_TIME_TEXT_BYTES - 1);
}

static enum skald_rc
build_headers(struct skald_relay *r, const struct skald__row *row, struct scratch *s,
	struct skald_record *out, struct skald_err *err)
{
	struct builder b = { r->publisher.headers, 0 };
	struct skald_slice at, expiry;
	int64_t at_us = 0, expiry_us;
	enum skald_rc rc;

	at = time_text(row, SKALD__COL_AT, s->time, &at_us);
	expiry = time_text(row, SKALD__COL_EXPIRES, s->expiry, &expiry_us);
	skald_position_format(row->position, s->position);
	ADD(&b, SKALD_H_SPECVERSION, SKALD_SLICE_LIT("1.0"));
	ADD(&b, SKALD_H_ID, skald_slice_make(s->id, SKALD_UUID_TEXT_BYTES - 1));
	ADD(&b, SKALD_H_SOURCE, row->cells[SKALD__COL_SOURCE]);
	ADD(&b, SKALD_H_TYPE, row->cells[SKALD__COL_TYPE]);
	ADD(&b, SKALD_H_TIME, at);
	ADD(&b, SKALD_H_SUBJECT, row->cells[SKALD__COL_SUBJECT]);
	ADD(&b, SKALD_H_CONTENT_TYPE, row->cells[SKALD__COL_CONTENT_TYPE]);
	ADD(&b, SKALD_H_CORRELATION, row->cells[SKALD__COL_CORRELATION]);
	ADD(&b, SKALD_H_CAUSATION, row->cells[SKALD__COL_CAUSATION]);
	ADD(&b, SKALD_H_TRACEPARENT, row->cells[SKALD__COL_TRACEPARENT]);
	ADD(&b, SKALD_H_EXPIRY, expiry);
	ADD(&b, SKALD_H_STREAM,
		skald_slice_make(r->tick.stream, SKALD_STREAM_TEXT_BYTES - 1));
	ADD(&b, SKALD_H_SEQUENCE,
		skald_slice_make(s->position, SKALD_POSITION_TEXT_BYTES - 1));
	if (row->is_recovered)
		ADD(&b, SKALD_H_RECOVERED, SKALD_SLICE_LIT("true"));
	rc = add_own(r, &b, row->cells[SKALD__COL_HEADERS], err);
	out->headers = (struct skald_headers){ b.items, b.count };
	out->timestamp_ms = at_us / 1000;
	return rc;
}

/* The record of one row; what it borrows is in row, in s and in r, until the next call. */
static enum skald_rc
build_record(struct skald_relay *r, const struct skald__row *row,
	const struct skald__topic *topic, struct scratch *s, struct skald_record *out,
	struct skald_err *err)
{
	struct skald_uuid id;

	if (!skald_cell_uuid(row->cells[SKALD__COL_MESSAGE_ID], &id))
		return skald_fail(err, SKALD_REJECT, "skald", "SK001",
			"message_id: must be a uuid");
	skald_uuid_format(id, s->id);
	out->topic = topic->name;
	out->key = row->cells[SKALD__COL_KEY];
	out->value = row->cells[SKALD__COL_DATA];
	out->partition = skald_partition_of(
		out->key.data ? out->key
			      : skald_slice_make(s->id, SKALD_UUID_TEXT_BYTES - 1),
		topic->partition_count);
	out->tag = r->window.next;
	return build_headers(r, row, s, out, err);
}

static uint32_t
bytes_of(const struct skald_record *record)
{
	size_t bytes = record->key.bytes + record->value.bytes;

	for (size_t i = 0; i < record->headers.count; i++)
		bytes += record->headers.items[i].name.bytes +
			 record->headers.items[i].value.bytes;
	return (uint32_t)bytes;
}

/* --- sending ------------------------------------------------------------------------------ */

#define FRAME_BYTES 100 /* what a batch of one adds to its record, about */
#define TRIES_MAX   3 /* what was learned of a topic in between changed nothing */

static enum skald_rc
need_producer(struct skald_relay *r, struct skald_err *err)
{
	struct skald__publisher *p = &r->publisher;
	enum skald_rc rc;

	if (p->producer)
		return SKALD_OK;
	if (!p->texts.max_bytes)
		skald_buf_init(&p->texts, OWN_HEADERS_BYTES_MAX);
	p->is_refused = false;
	p->push_at_ms = 0;
	if (p->is_too_long)
		skald__topics_ask_limits(r);
	p->is_too_long = false;
	rc = skald_producer_create_within(&p->producer, r->kafka, r->client_id,
		skald__topics_batch_bytes(&p->topics), err);
	if (!rc)
		p->is_compressing = skald_producer_is_compressing(p->producer);
	return rc;
}

/* A catch-up leaves out what is published already. */
static bool
is_there(struct skald_relay *r, const struct skald__row *row)
{
	struct skald_uuid id;

	if (!row->is_recovered ||
		!skald_cell_uuid(row->cells[SKALD__COL_MESSAGE_ID], &id) ||
		!skald__recover_has(r, &id))
		return false;
	skald__window_push(&r->window, row->mark, 0);
	(void)skald__window_ack(&r->window, r->window.next - 1);
	atomic_fetch_add(r->metrics.skipped, 1);
	return true;
}

static int
number_of(const struct skald_err *err)
{
	int number = (int)strtol(err->code, NULL, 10);

	return number ? number : -1;
}

/* The size that matters, as far as it is known before sending. */
static bool
is_too_large(
	const struct skald_relay *r, const struct skald__topic *topic, uint32_t bytes)
{
	return !r->publisher.is_compressing &&
	       (int64_t)bytes + FRAME_BYTES > topic->max_bytes;
}

static struct skald_err
too_large(const struct skald__topic *topic, uint32_t bytes)
{
	struct skald_err why = SKALD_ERR_INIT;

	(void)skald_fail(&why, SKALD_REJECT, "kafka", "10",
		"a record of %lu bytes for %s: max.message.bytes is %lld",
		(unsigned long)bytes, topic->name, (long long)topic->max_bytes);
	return why;
}

/*
 * One try: built, judged, produced. *todo says what is left to do: nothing (SEND) when it
 * was produced or *is_full, else *why says what is wrong with it. What the broker said the
 * last time comes in by *why when c->refused is not 0; the rest of *c is found out.
 */
static enum skald_rc
try_row(struct skald_relay *r, const struct skald__row *row, struct skald__park_case *c,
	enum skald__park_todo *todo, bool *is_full, struct skald_err *why,
	struct skald_err *err)
{
	const struct skald__topic *topic = NULL;
	struct skald_record record = { .topic = NULL };
	struct scratch scratch;
	uint32_t bytes = 0;
	enum skald_rc rc;

	*c = (struct skald__park_case){ .refused = c->refused };
	rc = skald__topics_get(r, row->cells[SKALD__COL_TOPIC], &topic, err);
	if (rc)
		return rc;
	c->is_topic_refused = topic->state == SKALD__TOPIC_REFUSED;
	if (!c->is_topic_refused && !c->refused) {
		rc = build_record(r, row, topic, &scratch, &record, why);
		bytes = bytes_of(&record);
		if (rc == SKALD_REJECT) /* no broker will have it */
			c->refused = -1;
		else if (rc)
			goto out;
		c->is_too_large = is_too_large(r, topic, bytes);
		c->is_limit_old = c->is_too_large && skald__topics_is_limit_old(topic);
	}
	*todo = skald__park_decide(c);
	if (*todo == SKALD__PARK_SEND) {
		if (r->park.is_urgent) { /* K5 */
			rc = skald__park_flush(r, why);
			if (rc)
				goto out;
		}
		rc = skald_producer_send(r->publisher.producer, &record, is_full, why);
		if (rc == SKALD_REJECT) {
			c->refused = number_of(why);
			*todo = skald__park_decide(c);
			return SKALD_OK;
		}
		if (!rc && !*is_full)
			skald__window_push(&r->window, row->mark, bytes);
		goto out;
	}
	if (c->is_topic_refused)
		*why = *topic->why;
	else if (c->is_too_large && !c->refused)
		*why = too_large(topic, bytes);
	rc = SKALD_OK;
out:
	if (rc)
		*err = *why;
	return rc;
}

/* Where the newest row of the window stands, to be written down once it is acknowledged. */
static void
note_place(struct skald_relay *r, const struct skald__row *row)
{
	if (r->core.is_wal)
		r->wal.places[(r->window.next - 1) & (SKALD__WINDOW_SLOTS - 1)] =
			row->position;
}

/* The broker's word about one record may hold for all of the topic's. */
static void
learn(struct skald_relay *r, const struct skald__row *row, const struct skald_err *why)
{
	struct skald_err ignored = SKALD_ERR_INIT; /* then the next one is refused, too */
	struct skald_slice topic = row->cells[SKALD__COL_TOPIC];

	if (strcmp(why->origin, "kafka") != 0)
		return;
	if (skald__park_is_of_rights(number_of(why)))
		skald__topics_refuse(r, topic, why);
	else if (number_of(why) == SKALD__PARK_TOO_LARGE)
		(void)!skald__topics_ask_limit(r, topic, &ignored);
}

/* A row that is not simply produced: decided until nothing new is to be learned. */
static enum skald_rc
step_slowly(struct skald_relay *r, const struct skald__row *row, int refused,
	struct skald_err *why, bool *is_full, struct skald_err *err)
{
	struct skald__park_case c = { .refused = refused };
	enum skald__park_todo todo = SKALD__PARK_LOOK;
	enum skald_rc rc = SKALD_OK;

	for (int tries = 0; tries < TRIES_MAX && !rc; tries++) {
		int said = c.refused;

		rc = try_row(r, row, &c, &todo, is_full, why, err);
		if (rc)
			break;
		switch (todo) {
		case SKALD__PARK_SEND:
			if (!*is_full)
				skald__feed_pop(r);
			return SKALD_OK;
		case SKALD__PARK_BEHIND:
		case SKALD__PARK_HEAD:
			if (said)
				learn(r, row, why);
			rc = skald__park_row(r, row, why, err);
			r->park.is_urgent |= skald__park_is_urgent(&c);
			return rc;
		case SKALD__PARK_LOOK:
			c.refused = 0;
			skald__topics_forget(r, row->cells[SKALD__COL_TOPIC]);
			break;
		case SKALD__PARK_LIMIT:
			rc = skald__topics_ask_limit(
				r, row->cells[SKALD__COL_TOPIC], err);
			break;
		}
	}
	if (!rc) {
		*err = *why;
		rc = SKALD_RETRY;
	}
	return rc;
}

/* Acknowledged before the producer died: neither sent nor judged again (W5). */
static void
skip(struct skald_relay *r, const struct skald__row *row)
{
	uint64_t ordinal = r->window.next;

	skald__window_push(&r->window, row->mark, 0);
	(void)skald__window_ack(&r->window, ordinal);
	skald__feed_pop(r);
}

/* The next row: produced, parked or a marker, and popped, unless *is_full. */
static enum skald_rc
step(struct skald_relay *r, const struct skald__row *row, bool *is_full,
	struct skald_err *err)
{
	struct skald_err why = SKALD_ERR_INIT;
	int refused = 0;

	if (!row->cells[SKALD__COL_TOPIC].bytes)
		return skald__release_begin(r, row, err);
	if (r->window.next < r->window.known_next && skald__window_is_known(&r->window)) {
		skip(r, row);
		return SKALD_OK;
	}
	if (r->park.refusal_count && skald__park_take_refusal(r, row, &why))
		refused = number_of(&why);
	if (r->park.key_count && skald__park_covers(r, row))
		return skald__park_row(r, row, NULL, err);
	return step_slowly(r, row, refused, &why, is_full, err);
}

/* There is nothing more to send just now. */
static void
push(struct skald_relay *r, bool is_quiet)
{
	r->publisher.push_at_ms = 0;
	r->publisher.breath_due = !skald_producer_push(r->publisher.producer, is_quiet);
	if (r->publisher.breath_due)
		r->publisher.push_at_ms = skald_mono_ms() + PUSH_MS;
}

enum skald_rc
skald__publish(struct skald_relay *r, uint64_t count, bool to_mark, struct skald_err *err)
{
	struct skald__relay_ev ev = { .kind = SKALD__EV_SENT };
	unsigned asked = r->publisher.asked;
	struct skald_err flush_err = SKALD_ERR_INIT;
	struct skald__row row;
	bool is_ready = true;
	enum skald_rc rc, flush_rc;

	rc = need_producer(r, err);
	if (!rc)
		rc = skald__recover_step(r, &is_ready, err);
	if (!rc && !is_ready)
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_STUCK,
					     .at_ms = skald_mono_ms() + LOOK_AGAIN_MS });
	if (rc || !is_ready)
		return rc;
	/* what was asked took a while: look after the lease first */
	while (!rc && ev.count < count && r->publisher.asked == asked) {
		ev.is_full = skald__window_is_full(&r->window);
		if (ev.is_full)
			break;
		if (r->release.left)
			rc = skald__release_fill(r, err);
		if (rc)
			break;
		skald__feed_peek(r, &row);
		if (is_there(r, &row))
			skald__feed_pop(r);
		else
			rc = step(r, &row, &ev.is_full, err);
		if (rc || ev.is_full)
			break;
		note_place(r, &row);
		ev.count++;
		ev.is_between = skald__window_is_at_mark(&r->window);
		if (to_mark && ev.is_between)
			break;
	}
	flush_rc = skald__park_flush(r, &flush_err);
	if (ev.count && skald__feed_is_empty(r)) {
		push(r, false);
		if (r->core.is_wal)
			SKALD_FAILPOINT(stream_after_produce);
		else
			SKALD_FAILPOINT(relay_after_produce);
	}
	skald__relay_tell(r, ev);
	if (!flush_rc)
		return rc;
	*err = flush_err;
	return flush_rc;
}

/* --- reports ------------------------------------------------------------------------------ */

static void
on_report(uint64_t tag, enum skald_rc rc, const struct skald_err *err, void *ctx)
{
	struct skald_relay *r = ctx;

	if (rc == SKALD_OK) {
		r->publisher.acked_count += skald__window_ack(&r->window, tag);
		return;
	}
	if (rc == SKALD_REJECT)
		skald__park_note_refusal(r, tag, err);
	if (!r->publisher.is_refused || rc == SKALD_REJECT) {
		/* the producer is dying; this says why */
		r->publisher.is_refused = true;
		r->publisher.refusal = *err;
	}
}

void
skald__publish_trouble(struct skald_relay *r, uint64_t ordinal,
	const struct skald_err *err, const char *what)
{
	r->publisher.stuck_tick = r->tick.number;
	r->publisher.stuck_ordinal = ordinal;
	skald__relay_trouble(r, &r->broker, err, what);
}

static bool
is_past_trouble(const struct skald_relay *r)
{
	return r->publisher.stuck_tick != r->tick.number ||
	       r->window.done > r->publisher.stuck_ordinal;
}

void
skald__publish_probe(struct skald_relay *r)
{
	struct skald__publisher *p = &r->publisher;
	struct skald_err ignored = SKALD_ERR_INIT;
	unsigned count;

	if (!r->broker.is_there || !p->cluster || skald_mono_ms() < p->probe_at_ms)
		return;
	p->probe_at_ms = skald_mono_ms() + PROBE_MS;
	if (skald_cluster_brokers(p->cluster, PROBE_BLOCKS_MS, &count, &ignored) ==
		SKALD_OK)
		skald__relay_trouble_over(r, &r->broker);
}

/*
 * The producer is dead. A refusal is nobody's trouble: the guilty record is known, or
 * looked for by the next producer, which everybody else waits for.
 */
static void
bury(struct skald_relay *r, const struct skald_err *why)
{
	struct skald__relay_ev ev = { .kind = SKALD__EV_DEAD, .at_ms = skald_mono_ms() };

	r->publisher.is_too_long |= number_of(why) == SKALD__PARK_TOO_LARGE;
	if (skald_kafka_is_refusal(why) && !skald__park_is_of_topic(number_of(why))) {
		skald_log_err(SKALD_LOG_INFO, why,
			"Kafka refused a record, its producer is replaced source=%s",
			r->source);
	} else {
		skald__publish_trouble(r, r->window.done, why,
			"the producer cannot go on without a gap");
		ev.at_ms = skald__relay_backoff(r, &r->broker);
	}
	skald__relay_tell(r, ev);
}

void
skald__publish_serve(struct skald_relay *r)
{
	struct skald__publisher *p = &r->publisher;
	uint64_t done = r->window.done;
	struct skald_err err = SKALD_ERR_INIT;

	if (!p->producer)
		return;
	if (p->push_at_ms && skald_mono_ms() >= p->push_at_ms && skald__feed_is_empty(r))
		push(r, true);
	(void)skald_producer_serve(p->producer, on_report, r);
	if (skald_producer_complaint(p->producer, &err))
		skald__publish_trouble(r, r->window.done, &err, "Kafka");
	atomic_fetch_add(r->metrics.published, (int64_t)p->acked_count);
	p->acked_count = 0;
	if (r->window.done > done) {
		skald__relay_note_progress(r);
		if (is_past_trouble(r))
			skald__relay_trouble_over(r, &r->broker);
	}
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_ACKED,
				     .ordinal = r->window.done,
				     .resume = r->window.resume });
	if ((r->core.state == SKALD__RELAY_SENDING ||
		    r->core.state == SKALD__RELAY_STREAMING) &&
		skald_producer_is_dead(p->producer, &err))
		bury(r, p->is_refused ? &p->refusal : &err);
}

void
skald__publish_settle(struct skald_relay *r)
{
	int64_t until_ms = skald_mono_ms() + SETTLE_MS;

	while (r->publisher.producer && r->window.done < r->window.next &&
		skald_mono_ms() < until_ms) {
		struct pollfd fd = { .fd = skald_producer_fd(r->publisher.producer),
			.events = POLLIN };

		(void)poll(&fd, 1, SETTLE_MS / 10);
		skald__publish_serve(r);
	}
}

enum skald_rc
skald__publish_rebuild(struct skald_relay *r, struct skald_err *err)
{
	enum skald_rc rc;

	skald__park_drop(r); /* its rows come again */
	skald_producer_destroy(r->publisher.producer);
	r->publisher.producer = NULL;
	SKALD_FAILPOINT(rebuild_after_destroy);
	rc = need_producer(r, err);
	if (rc)
		return rc;
	atomic_fetch_add(r->metrics.rebuilds, 1);
	if (r->core.is_wal) { /* the stream begins anew */
		skald__window_reset(&r->window, 0, (int64_t)r->wal.flushed);
		r->publisher.stuck_ordinal = 0;
	} else {
		skald__window_rewind(&r->window);
	}
	skald__gate_reset(r);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_REBUILT,
				     .ordinal = r->window.resume });
	return SKALD_OK;
}

void
skald__publish_drop(struct skald_relay *r)
{
	skald__park_drop(r);
	r->park.refusal_count = 0;
	skald_producer_destroy(r->publisher.producer);
	skald_cluster_close(r->publisher.cluster);
	r->publisher.producer = NULL;
	r->publisher.push_at_ms = 0;
	r->publisher.cluster = NULL;
}
