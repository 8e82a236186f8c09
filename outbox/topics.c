/*
 * topics.c - topics are made before the first record goes there; what is known of them is
 * asked rarely and remembered, that there is none included.
 *
 * A topic's partition count stays as first used, over restarts too, because a key must not
 * move to another partition while records of it may be in flight: it is in the database
 * before the first record is sent. That it has grown is taken up when nothing is
 * outstanding; that it has shrunk (made anew) at once, since nothing else would do.
 */
#include "outbox/own.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/limits.h"
#include "base/log.h"

#define ENSURE_MS       1000 /* the lease is renewed before and after */
#define LOOK_MS         200
#define LIMIT_MS        30000 /* a limit that is in the way is asked for so often */
#define BATCH_BYTES_MIN 1024
#define REGROW_MS       30000
#define REFUSED_MS      5000 /* doubling, */
#define FORGIVEN_MS     600000 /* from the beginning again after so long without */

static const char sql_use[] =
	"SELECT held, used FROM skald.relay_topic_use($1::bigint, $2, $3::int)";
static const char sql_topics[] =
	"SELECT topic, partitions FROM skald.relay_topics($1::bigint)";
static const char sql_grow[] = "SELECT skald.relay_topic_grow($1::bigint, $2, $3)";

/* --- the list ------------------------------------------------------------------------------ */

/* Where name is, or would stand. */
static unsigned
place_of(const struct skald__topics *t, struct skald_slice name, bool *found)
{
	unsigned low = 0, high = t->count;

	*found = false;
	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		const char *here = t->items[middle].name;
		int order = strncmp(here, name.data, name.bytes);

		if (order == 0 && here[name.bytes])
			order = 1;
		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static enum skald_rc
insert(struct skald__topics *t, unsigned place, struct skald_slice text,
	struct skald_err *err)
{
	char *name;

	if (t->count == t->room) {
		unsigned room = t->room ? 2 * t->room : 16;
		struct skald__topic *items = realloc(t->items, room * sizeof(*items));

		if (!items)
			return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		t->items = items;
		t->room = room;
	}
	name = strndup(text.data, text.bytes);
	if (!name)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	memmove(&t->items[place + 1], &t->items[place],
		(t->count - place) * sizeof(t->items[0]));
	t->items[place] = (struct skald__topic){ .name = name };
	t->count++;
	return SKALD_OK;
}

/* Known or not. */
static enum skald_rc
find(struct skald__topics *t, struct skald_slice name, struct skald__topic **out,
	struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;
	bool found;

	t->last = place_of(t, name, &found);
	if (!found)
		rc = insert(t, t->last, name, err);
	if (!rc)
		*out = &t->items[t->last];
	return rc;
}

static void
set_state(struct skald__topics *t, struct skald__topic *topic,
	enum skald__topic_state state, bool is_missing)
{
	t->missing_count -= topic->is_missing;
	t->missing_count += is_missing;
	topic->is_missing = is_missing;
	topic->state = state;
	if (state != SKALD__TOPIC_REFUSED) {
		free(topic->why);
		topic->why = NULL;
	}
}

void
skald__topics_done(struct skald__topics *topics)
{
	for (unsigned i = 0; i < topics->count; i++) {
		free(topics->items[i].name);
		free(topics->items[i].why);
	}
	free(topics->items);
	*topics = (struct skald__topics){ 0 };
}

/* --- asking -------------------------------------------------------------------------------- */

static enum skald_rc
need_cluster(struct skald_relay *r, struct skald_err *err)
{
	if (r->publisher.cluster)
		return SKALD_OK;
	return skald_cluster_open(&r->publisher.cluster, r->kafka, err);
}

void
skald__topics_meet(struct skald_relay *r)
{
	struct skald_err ignored = SKALD_ERR_INIT; /* asked again when it is needed */

	(void)!need_cluster(r, &ignored);
}

static enum skald_rc
lost(struct skald_relay *r, struct skald_err *err)
{
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_LOST });
	return skald_fail(err, SKALD_RETRY, "skald", "", "another relay leads");
}

/* Before its first record: where keys go is in the database. */
static enum skald_rc
use(struct skald_relay *r, struct skald__topic *topic, struct skald_err *err)
{
	char term[24], here[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_text(topic->name),
		skald_param_int(topic->partitions_here, here) };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald_sql_query(r->guard, sql_use, params, 3, true, &rows, err);
	if (rc)
		return rc;
	if (skald_rows_bool(rows, 0, 0))
		topic->partition_count = (int32_t)skald_rows_int(rows, 0, 1, 0);
	else
		rc = lost(r, err);
	skald_rows_free(rows);
	return rc;
}

static enum skald_rc
ask_limit(struct skald_relay *r, struct skald__topic *topic, struct skald_err *err)
{
	int64_t bytes = 0;
	enum skald_rc rc;

	rc = skald_topic_max_bytes(
		r->publisher.cluster, topic->name, ENSURE_MS, &bytes, err);
	if (rc)
		return rc;
	r->publisher.asked++;
	topic->max_bytes = bytes ? bytes : SKALD_RECORD_BYTES_MAX;
	topic->limit_at_ms = skald_mono_ms();
	return SKALD_OK;
}

static enum skald_rc
refuse(struct skald_relay *r, struct skald__topic *topic, const struct skald_err *why,
	struct skald_err *err)
{
	int64_t now_ms = skald_mono_ms();
	unsigned shift;

	if (now_ms - topic->retry_at_ms > FORGIVEN_MS)
		topic->refused_count = 0;
	shift = topic->refused_count < 6 ? topic->refused_count : 6;
	if (!topic->why)
		topic->why = malloc(sizeof(*topic->why));
	if (!topic->why)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	*topic->why = *why;
	set_state(&r->publisher.topics, topic, SKALD__TOPIC_REFUSED,
		strcmp(why->code, "3") == 0);
	topic->refused_count++;
	topic->refused_at_us = skald_wall_us();
	topic->retry_at_ms = now_ms + (REFUSED_MS << shift);
	return SKALD_OK;
}

/* A topic that is not known to be there: make it, or learn that it will not be. */
static enum skald_rc
ask(struct skald_relay *r, struct skald__topic *topic, struct skald_err *err)
{
	struct skald_err why = SKALD_ERR_INIT;
	int32_t here = 0;
	enum skald_rc rc = need_cluster(r, err);

	if (rc)
		return rc;
	r->publisher.asked++;
	rc = skald_topic_ensure(r->publisher.cluster, topic->name, r->topics_conf,
		ENSURE_MS, &here, &why);
	if (rc == SKALD_REJECT)
		return refuse(r, topic, &why, err);
	if (rc) {
		*err = why;
		return rc;
	}
	if (here <= 0)
		return skald_fail(err, SKALD_RETRY, "kafka", "3",
			"topic %s has no partition", topic->name);
	topic->partitions_here = here;
	rc = ask_limit(r, topic, err);
	if (!rc && (topic->partition_count == 0 || here < topic->partition_count))
		rc = use(r, topic, err);
	if (rc)
		return rc;
	r->publisher.topics.is_grown |= here > topic->partition_count;
	set_state(&r->publisher.topics, topic, SKALD__TOPIC_THERE, false);
	return SKALD_OK;
}

enum skald_rc
skald__topics_get(struct skald_relay *r, struct skald_slice name,
	const struct skald__topic **out, struct skald_err *err)
{
	struct skald__topics *t = &r->publisher.topics;
	struct skald__topic *topic = NULL;
	enum skald_rc rc;

	if (t->last < t->count && t->items[t->last].state == SKALD__TOPIC_THERE &&
		strlen(t->items[t->last].name) == name.bytes &&
		memcmp(t->items[t->last].name, name.data, name.bytes) == 0) {
		*out = &t->items[t->last];
		return SKALD_OK;
	}
	rc = find(t, name, &topic, err);
	if (rc)
		return rc;
	if (topic->state == SKALD__TOPIC_NEW ||
		(topic->state == SKALD__TOPIC_REFUSED && !topic->is_missing &&
			skald_mono_ms() >= topic->retry_at_ms))
		rc = ask(r, topic, err);
	if (!rc)
		*out = topic;
	return rc;
}

void
skald__topics_forget(struct skald_relay *r, struct skald_slice name)
{
	struct skald__topics *t = &r->publisher.topics;
	bool found;
	unsigned place = place_of(t, name, &found);

	if (found)
		set_state(t, &t->items[place], SKALD__TOPIC_NEW, false);
}

void
skald__topics_refuse(
	struct skald_relay *r, struct skald_slice name, const struct skald_err *why)
{
	struct skald__topics *t = &r->publisher.topics;
	struct skald_err ignored = SKALD_ERR_INIT;
	bool found;
	unsigned place = place_of(t, name, &found);

	/* Without memory for it the next record is refused like this one. */
	if (found && refuse(r, &t->items[place], why, &ignored))
		set_state(t, &t->items[place], SKALD__TOPIC_NEW, false);
}

/* Of many keys that are let out at once only the first asks: a refusal may cost a producer. */
void
skald__topics_doubt(struct skald_relay *r, struct skald_slice name, int64_t asked_at_us)
{
	struct skald__topics *t = &r->publisher.topics;
	bool found;
	unsigned place = place_of(t, name, &found);

	if (found && t->items[place].refused_at_us < asked_at_us)
		t->items[place].retry_at_ms = skald_mono_ms();
}

/* --- limits -------------------------------------------------------------------------------- */

void
skald__topics_doubt_limit(struct skald_relay *r, struct skald_slice name)
{
	struct skald__topics *t = &r->publisher.topics;
	bool found;
	unsigned place = place_of(t, name, &found);

	if (found)
		t->items[place].limit_at_ms = skald_mono_ms() - LIMIT_MS;
}

bool
skald__topics_is_limit_old(const struct skald__topic *topic)
{
	return skald_mono_ms() - topic->limit_at_ms >= LIMIT_MS;
}

enum skald_rc
skald__topics_ask_limit(
	struct skald_relay *r, struct skald_slice name, struct skald_err *err)
{
	struct skald__topics *t = &r->publisher.topics;
	bool found;
	unsigned place = place_of(t, name, &found);
	enum skald_rc rc = need_cluster(r, err);

	return rc || !found ? rc : ask_limit(r, &t->items[place], err);
}

void
skald__topics_ask_limits(struct skald_relay *r)
{
	struct skald__topics *t = &r->publisher.topics;
	struct skald_err ignored = SKALD_ERR_INIT;

	if (need_cluster(r, &ignored))
		return;
	for (unsigned i = 0; i < t->count; i++)
		if (t->items[i].state == SKALD__TOPIC_THERE &&
			ask_limit(r, &t->items[i], &ignored))
			return; /* Kafka is away: what is known has to do */
}

int64_t
skald__topics_batch_bytes(const struct skald__topics *topics)
{
	int64_t least = INT32_MAX;

	for (unsigned i = 0; i < topics->count; i++)
		if (topics->items[i].state == SKALD__TOPIC_THERE &&
			topics->items[i].max_bytes < least)
			least = topics->items[i].max_bytes;
	return least > BATCH_BYTES_MIN ? least : BATCH_BYTES_MIN;
}

/* --- missing ones --------------------------------------------------------------------------- */

void
skald__topics_miss(struct skald_relay *r, struct skald_slice name)
{
	struct skald__topics *t = &r->publisher.topics;
	struct skald_err why = SKALD_ERR_INIT;
	struct skald__topic *topic = NULL;

	(void)skald_fail(&why, SKALD_REJECT, "kafka", "3", "topic %.*s: does not exist",
		(int)name.bytes, name.data);
	/* Without memory for it its next row asks. */
	if (find(t, name, &topic, &why) == SKALD_OK)
		skald__topics_refuse(r, name, &why);
}

const char *
skald__topics_missing(const struct skald__topics *topics)
{
	if (topics->missing_count == 0)
		return NULL;
	for (unsigned i = 0; i < topics->count; i++)
		if (topics->items[i].is_missing)
			return topics->items[i].name;
	return NULL;
}

void
skald__topics_find(struct skald_relay *r, struct skald_buf *found)
{
	struct skald__topics *t = &r->publisher.topics;
	struct skald_err ignored = SKALD_ERR_INIT;
	const char **names = calloc(t->missing_count, sizeof(*names));
	int32_t *counts = calloc(t->missing_count, sizeof(*counts));
	unsigned count = 0;

	if (!names || !counts || need_cluster(r, &ignored))
		goto out;
	for (unsigned i = 0; i < t->count; i++)
		if (t->items[i].is_missing)
			names[count++] = t->items[i].name;
	if (r->topics_conf->create) /* now it may be made: its next row does */
		for (unsigned i = 0; i < count; i++)
			counts[i] = 1;
	else if (skald_topics_partitions(
			 r->publisher.cluster, names, count, LOOK_MS, counts, &ignored))
		goto out; /* another time */
	for (unsigned i = 0; i < count; i++) {
		if (counts[i] <= 0)
			continue;
		skald_array_binary_add(found, skald_slice_text(names[i]));
		skald__topics_forget(r, skald_slice_text(names[i]));
	}
out:
	free(names);
	free(counts);
}

/* --- partition counts ----------------------------------------------------------------------- */

enum skald_rc
skald__topics_load(struct skald_relay *r, struct skald_err *err)
{
	struct skald__topics *t = &r->publisher.topics;
	char term[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term) };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald__tick_query(r, sql_topics, params, 1, &rows, err);
	/* another relay may have led meanwhile */
	for (unsigned i = 0; !rc && i < t->count; i++) {
		set_state(t, &t->items[i], SKALD__TOPIC_NEW, false);
		t->items[i].partition_count = 0;
	}
	for (unsigned i = 0; !rc && i < skald_rows_count(rows); i++) {
		struct skald__topic *topic = NULL;

		rc = find(t, skald_rows_get(rows, i, 0), &topic, err);
		if (!rc)
			topic->partition_count = (int32_t)skald_rows_int(rows, i, 1, 0);
	}
	skald_rows_free(rows);
	return rc;
}

/* The counts that Kafka has now, of topics in use. */
static enum skald_rc
look(struct skald_relay *r, struct skald_err *err)
{
	struct skald__topics *t = &r->publisher.topics;
	const char **names = calloc(t->count, sizeof(*names));
	int32_t *counts = calloc(t->count, sizeof(*counts));
	unsigned count = 0;
	enum skald_rc rc;

	if (!names || !counts) {
		rc = skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		goto out;
	}
	for (unsigned i = 0; i < t->count; i++)
		if (t->items[i].state == SKALD__TOPIC_THERE)
			names[count++] = t->items[i].name;
	rc = need_cluster(r, err);
	if (!rc && count)
		rc = skald_topics_partitions(
			r->publisher.cluster, names, count, LOOK_MS, counts, err);
	for (unsigned i = 0, n = 0; !rc && i < t->count; i++) {
		if (t->items[i].state != SKALD__TOPIC_THERE)
			continue;
		if (counts[n] <= 0)
			set_state(t, &t->items[i], SKALD__TOPIC_NEW, false);
		else
			t->items[i].partitions_here = counts[n];
		t->is_grown |= counts[n++] > t->items[i].partition_count;
	}
out:
	free(names);
	free(counts);
	return rc;
}

/* It knows the old counts, and nothing of it is under way. */
static void
renew_producer(struct skald_relay *r)
{
	skald_producer_destroy(r->publisher.producer);
	r->publisher.producer = NULL;
}

static bool
has_grown(const struct skald__topic *topic)
{
	return topic->state == SKALD__TOPIC_THERE &&
	       topic->partitions_here > topic->partition_count;
}

static enum skald_rc
grow(struct skald_relay *r, struct skald_err *err)
{
	struct skald__topics *t = &r->publisher.topics;
	struct skald_rows *rows = NULL;
	struct skald_buf names, counts;
	char term[24];
	enum skald_rc rc;

	skald_buf_init(&names, 16 << 20);
	skald_buf_init(&counts, 16 << 20);
	skald_array_binary_begin(&names, SKALD_OID_TEXT);
	skald_array_binary_begin(&counts, SKALD_OID_INT4);
	for (unsigned i = 0; i < t->count; i++) {
		if (!has_grown(&t->items[i]))
			continue;
		skald_array_binary_add(&names, skald_slice_text(t->items[i].name));
		skald_array_binary_add_int(&counts, t->items[i].partitions_here);
	}
	if (names.failed || counts.failed) {
		rc = skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	} else {
		struct skald_param params[] = { skald_param_int(r->lease.term, term),
			skald_array_binary_end(&names), skald_array_binary_end(&counts) };

		rc = skald_sql_query(r->guard, sql_grow, params, 3, true, &rows, err);
	}
	if (!rc && !skald_rows_bool(rows, 0, 0))
		rc = lost(r, err);
	skald_rows_free(rows);
	skald_buf_done(&names);
	skald_buf_done(&counts);
	return rc;
}

bool
skald__topics_have_grown(struct skald_relay *r)
{
	struct skald__topics *t = &r->publisher.topics;
	struct skald_err ignored = SKALD_ERR_INIT;
	int64_t now_ms = skald_mono_ms();
	bool is_first = t->regrow_at_ms == 0; /* all were asked just now */

	if (t->is_grown || now_ms < t->regrow_at_ms)
		return t->is_grown;
	t->regrow_at_ms = now_ms + REGROW_MS;
	if (!is_first && !r->broker.is_there)
		(void)!look(r, &ignored); /* no answer: another time */
	return t->is_grown;
}

enum skald_rc
skald__topics_regrow(struct skald_relay *r, struct skald_err *err)
{
	struct skald__topics *t = &r->publisher.topics;
	enum skald_rc rc;

	if (!skald__topics_have_grown(r))
		return SKALD_OK;
	t->is_grown = false;
	rc = grow(r, err);
	if (rc)
		return rc;
	SKALD_FAILPOINT(topics_after_grow);
	for (unsigned i = 0; i < t->count; i++) {
		struct skald__topic *topic = &t->items[i];

		if (!has_grown(topic))
			continue;
		skald_log(SKALD_LOG_INFO,
			"partitions of a topic grew topic=%s from=%d to=%d source=%s",
			topic->name, (int)topic->partition_count,
			(int)topic->partitions_here, r->source);
		topic->partition_count = topic->partitions_here;
	}
	renew_producer(r);
	return SKALD_OK;
}
