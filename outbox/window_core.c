/*
 * window_core.c - the acknowledgements of a tick, which come in any order over
 * its partitions, made into one number: everything below `done` is acknowledged.
 *
 *      done            next
 *  ====|--A-AA---A-----|
 *      \ in flight or acknowledged ahead (A)
 *
 * W1  done <= next, and next - done <= SKALD_RELAY_INFLIGHT_ROWS.
 * W2  The ordinal `done` itself is not acknowledged, unless done == next.
 * W3  inflight_bytes is the sum over the ordinals in done..next without an A.
 * W4  resume <= done, and no row in resume..done has a mark.
 * W5  An ordinal acknowledged once stays so when the window is rewound: its row is not to
 *     be sent again, since it might be refused now although it is in the topic.
 */
#include "outbox/window_core.h"

#include <string.h>

#include "base/assert.h"

static unsigned
slot_of(uint64_t ordinal)
{
	return (unsigned)(ordinal & (SKALD__WINDOW_SLOTS - 1));
}

static bool
is_acked(const struct skald__window *w, unsigned slot)
{
	return (w->acked[slot / 64] >> (slot % 64)) & 1;
}

void
skald__window_reset(struct skald__window *w, uint64_t ordinal, int64_t mark)
{
	w->done = w->next = w->resume = ordinal;
	w->resume_mark = mark;
	w->inflight_bytes = 0;
	memset(w->acked, 0, sizeof(w->acked));
	w->known_done = w->known_next = 0;
}

static bool
has_bit(const uint64_t *bits, uint64_t ordinal)
{
	return (bits[slot_of(ordinal) / 64] >> (slot_of(ordinal) % 64)) & 1;
}

static bool
is_known(const struct skald__window *w, uint64_t ordinal)
{
	return ordinal < w->known_done ||
	       (ordinal < w->known_next && has_bit(w->known, ordinal));
}

bool
skald__window_is_known(const struct skald__window *w)
{
	return is_known(w, w->next);
}

void
skald__window_rewind(struct skald__window *w)
{
	for (uint64_t o = w->done; o < w->next; o++) {
		uint64_t bit = UINT64_C(1) << (o % 64);
		bool known = is_known(w, o) || has_bit(w->acked, o);

		if (known)
			w->known[slot_of(o) / 64] |= bit;
		else
			w->known[slot_of(o) / 64] &= ~bit;
	}
	w->known_next = w->next > w->known_next ? w->next : w->known_next;
	w->known_done = w->done > w->known_done ? w->done : w->known_done;
	w->done = w->next = w->resume;
	w->inflight_bytes = 0;
	memset(w->acked, 0, sizeof(w->acked));
}

bool
skald__window_is_full(const struct skald__window *w)
{
	return w->next - w->done >= SKALD_RELAY_INFLIGHT_ROWS ||
	       w->inflight_bytes >= SKALD_RELAY_INFLIGHT_BYTES;
}

bool
skald__window_is_at_mark(const struct skald__window *w)
{
	return w->marks[slot_of(w->next - 1)] != SKALD__NO_MARK;
}

void
skald__window_push(struct skald__window *w, int64_t mark, uint32_t bytes)
{
	unsigned slot = slot_of(w->next);

	SKALD_ASSERT(!skald__window_is_full(w)); /* W1 */
	w->marks[slot] = mark;
	w->bytes[slot] = bytes;
	w->inflight_bytes += bytes;
	w->next++;
}

bool
skald__window_ack(struct skald__window *w, uint64_t ordinal)
{
	unsigned slot = slot_of(ordinal);

	if (ordinal < w->done || ordinal >= w->next || is_acked(w, slot))
		return false;
	w->acked[slot / 64] |= UINT64_C(1) << (slot % 64);
	w->inflight_bytes -= w->bytes[slot];
	while (w->done < w->next && is_acked(w, slot = slot_of(w->done))) {
		w->acked[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
		w->done++;
		if (w->marks[slot] == SKALD__NO_MARK)
			continue;
		w->resume = w->done;
		w->resume_mark = w->marks[slot];
	}
	return true;
}
