/*
 * topics.c - topics are made before the first record goes there, and their
 * partition count is kept as first seen: a key must not move to another partition
 * while records of it may still be in flight.
 */
#include "outbox/own.h"

#include <stdlib.h>

#define ENSURE_MS 1000 /* the lease is renewed before and after */

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
insert(struct skald__topics *t, unsigned place, char *name, int32_t count,
	struct skald_err *err)
{
	if (t->count == t->room) {
		unsigned room = t->room ? 2 * t->room : 16;
		struct skald__topic *items = realloc(t->items, room * sizeof(*items));

		if (!items)
			return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		t->items = items;
		t->room = room;
	}
	memmove(&t->items[place + 1], &t->items[place],
		(t->count - place) * sizeof(t->items[0]));
	t->items[place] = (struct skald__topic){ name, count };
	t->count++;
	return SKALD_OK;
}

static enum skald_rc
ensure(struct skald_relay *r, const char *name, int32_t *count, struct skald_err *err)
{
	struct skald__publisher *p = &r->publisher;
	enum skald_rc rc;

	if (!p->cluster) {
		rc = skald_cluster_open(&p->cluster, r->kafka, err);
		if (rc)
			return rc;
	}
	rc = skald_topic_ensure(p->cluster, name, r->topics_conf, ENSURE_MS, count, err);
	if (!rc && *count <= 0)
		rc = skald_fail(err, SKALD_RETRY, "kafka", "3",
			"topic %s has no partition", name);
	return rc;
}

enum skald_rc
skald__topics_get(struct skald_relay *r, struct skald_slice name,
	const struct skald__topic **topic, struct skald_err *err)
{
	struct skald__topics *t = &r->publisher.topics;
	char *copy = NULL;
	int32_t count = 0;
	enum skald_rc rc;
	bool found;

	if (t->last < t->count && strlen(t->items[t->last].name) == name.bytes &&
		memcmp(t->items[t->last].name, name.data, name.bytes) == 0) {
		*topic = &t->items[t->last];
		return SKALD_OK;
	}
	t->last = place_of(t, name, &found);
	if (!found) {
		copy = strndup(name.data, name.bytes);
		if (!copy)
			return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		rc = ensure(r, copy, &count, err);
		if (!rc)
			rc = insert(t, t->last, copy, count, err);
		if (rc) {
			free(copy);
			return rc;
		}
	}
	*topic = &t->items[t->last];
	return SKALD_OK;
}

void
skald__topics_done(struct skald__topics *topics)
{
	for (unsigned i = 0; i < topics->count; i++)
		free(topics->items[i].name);
	free(topics->items);
	*topics = (struct skald__topics){ 0 };
}
