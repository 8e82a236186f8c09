/*
 * snapshot.c - a pg_snapshot as text, "xmin:xmax:xip,xip,...", for asking which
 * transactions it sees: PostgreSQL's pg_visible_in_snapshot, on our side.
 */
#include "outbox/own.h"

#include <stdlib.h>
#include <string.h>

/* A number; moves on behind it. */
static bool
take_number(struct skald_slice *text, uint64_t *number)
{
	size_t i = 0;

	*number = 0;
	for (; i < text->bytes && text->data[i] >= '0' && text->data[i] <= '9'; i++) {
		uint64_t digit = (uint64_t)(text->data[i] - '0');

		if (i == 20 || *number > (UINT64_MAX - digit) / 10)
			return false;
		*number = *number * 10 + digit;
	}
	*text = skald_slice_make(text->data + i, text->bytes - i);
	return i > 0;
}

static bool
take_byte(struct skald_slice *text, char byte)
{
	if (text->bytes == 0 || text->data[0] != byte)
		return false;
	*text = skald_slice_make(text->data + 1, text->bytes - 1);
	return true;
}

static bool
take_bounds(struct skald_slice *text, struct skald__snapshot *s)
{
	return text->data && take_number(text, &s->xmin) && take_byte(text, ':') &&
	       take_number(text, &s->xmax) && take_byte(text, ':') && s->xmin <= s->xmax;
}

/* The next in progress: rising, within the bounds. */
static bool
take_xip(struct skald_slice *text, struct skald__snapshot *s)
{
	uint64_t xid;

	if (s->xip_count > 0 && !take_byte(text, ','))
		return false;
	if (!take_number(text, &xid) || xid < s->xmin || xid >= s->xmax ||
		(s->xip_count > 0 && s->xip[s->xip_count - 1] >= xid))
		return false;
	s->xip[s->xip_count++] = xid;
	return true;
}

static enum skald_rc
wrong(struct skald_err *err)
{
	return skald_fail(err, SKALD_RETRY, "skald", "", "a snapshot cannot be read");
}

enum skald_rc
skald__snapshot_parse(
	struct skald__snapshot *s, struct skald_slice text, struct skald_err *err)
{
	struct skald__snapshot found = { 0 };
	size_t commas = 1;

	if (!take_bounds(&text, &found))
		return wrong(err);
	for (size_t i = 0; i < text.bytes; i++)
		commas += text.data[i] == ',';
	found.xip = malloc(commas * sizeof(*found.xip));
	if (!found.xip)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	while (text.bytes > 0)
		if (!take_xip(&text, &found)) {
			free(found.xip);
			return wrong(err);
		}
	skald__snapshot_done(s);
	*s = found;
	return SKALD_OK;
}

static int
compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

bool
skald__snapshot_sees(const struct skald__snapshot *s, uint64_t xid)
{
	if (xid < s->xmin)
		return true;
	if (xid >= s->xmax)
		return false;
	return !bsearch(&xid, s->xip, s->xip_count, sizeof(*s->xip), compare);
}

void
skald__snapshot_done(struct skald__snapshot *s)
{
	free(s->xip);
	*s = (struct skald__snapshot){ 0 };
}

/* --- what it does not see ---------------------------------------------------------------------- */

void
skald__unseen_clear(struct skald__unseen *u)
{
	u->count = 0;
	u->lost_lsn = UINT64_MAX;
	u->lost_xid = 0;
}

void
skald__unseen_add(struct skald__unseen *u, uint64_t xid, uint64_t lsn)
{
	if (u->count > 0 && u->items[u->count - 1].xid == xid)
		return;
	if (u->count < SKALD__UNSEEN_MAX) {
		u->items[u->count].xid = xid;
		u->items[u->count++].lsn = lsn;
	} else {
		u->lost_lsn = lsn < u->lost_lsn ? lsn : u->lost_lsn;
		u->lost_xid = xid > u->lost_xid ? xid : u->lost_xid;
	}
}

void
skald__unseen_look(struct skald__unseen *u, const struct skald__snapshot *s)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < u->count; i++)
		if (!skald__snapshot_sees(s, u->items[i].xid))
			u->items[kept++] = u->items[i];
	u->count = kept;
	if (u->lost_xid < s->xmin) { /* all of them are seen */
		u->lost_lsn = UINT64_MAX;
		u->lost_xid = 0;
	}
}

uint64_t
skald__unseen_bound(const struct skald__unseen *u, uint64_t lsn)
{
	uint64_t bound = u->lost_lsn < lsn ? u->lost_lsn : lsn;

	for (unsigned i = 0; i < u->count; i++)
		if (u->items[i].lsn < bound)
			bound = u->items[i].lsn;
	return bound;
}
