/*
 * unit.outbox.snapshot - a pg_snapshot as text: what it sees, against a model that asks
 * every transaction in turn; what is no snapshot is refused and changes nothing.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/rand.h"
#include "outbox/own.h"
#include "tests/support/check.h"

static bool
parses(struct skald__snapshot *s, const char *text)
{
	struct skald_err err = SKALD_ERR_INIT;

	return skald__snapshot_parse(s, skald_slice_text(text), &err) == SKALD_OK;
}

static void
sees_what_postgresql_sees(void)
{
	struct skald__snapshot s = { 0 };

	CU_ASSERT(parses(&s, "10:20:10,14,15"));
	CU_ASSERT(skald__snapshot_sees(&s, 9));
	CU_ASSERT_FALSE(skald__snapshot_sees(&s, 10));
	CU_ASSERT(skald__snapshot_sees(&s, 11));
	CU_ASSERT_FALSE(skald__snapshot_sees(&s, 14));
	CU_ASSERT_FALSE(skald__snapshot_sees(&s, 15));
	CU_ASSERT(skald__snapshot_sees(&s, 19));
	CU_ASSERT_FALSE(skald__snapshot_sees(&s, 20));
	CU_ASSERT_FALSE(skald__snapshot_sees(&s, UINT64_MAX));
	CU_ASSERT(parses(&s, "7:7:"));
	CU_ASSERT(skald__snapshot_sees(&s, 6));
	CU_ASSERT_FALSE(skald__snapshot_sees(&s, 7));
	CU_ASSERT(parses(&s, "1:18446744073709551615:18446744073709551614"));
	CU_ASSERT_FALSE(skald__snapshot_sees(&s, UINT64_MAX - 1));
	CU_ASSERT(skald__snapshot_sees(&s, UINT64_MAX - 2));
	skald__snapshot_done(&s);
}

static void
refuses_what_is_no_snapshot(void)
{
	static const char *const wrong[] = { "", ":", "::", "1", "1:", "1:2",
		"a:2:", "1:b:", "1:2:c", "1:5:2,", "1:5:,2", "1:5:2,,3", "1:5:3,2",
		"1:5:2,2", "1:5:2 3", "1:5:2:3", " 1:5:", "-1:5:", "1:5:2\n", "1:5:+2",
		/* not within the bounds */
		"5:4:", "3:5:2", "3:5:5", "3:5:9",
		/* numbers that overflow */
		"18446744073709551616:18446744073709551617:", "1:18446744073709551616:",
		"1:99999999999999999999:", "1:100000000000000000000000:",
		"1:18446744073709551615:2,18446744073709551618",
		"000000000000000000000000001:2:" };
	struct skald__snapshot s = { 0 };

	CU_ASSERT(parses(&s, "10:20:15"));
	for (size_t i = 0; i < CHECK_COUNT(wrong); i++) {
		bool is_taken = parses(&s, wrong[i]);

		if (is_taken)
			printf("\n    taken: '%s'", wrong[i]);
		CU_ASSERT_FALSE(is_taken);
	}
	CU_ASSERT_FALSE(parses(&s, NULL));
	/* what was there before still is */
	CU_ASSERT_EQUAL(s.xmin, 10);
	CU_ASSERT_FALSE(skald__snapshot_sees(&s, 15));
	CU_ASSERT(skald__snapshot_sees(&s, 16));
	skald__snapshot_done(&s);
	skald__snapshot_done(&s); /* twice is fine */
}

/* --- random ------------------------------------------------------------------------------ */

#define SPAN 200

struct model {
	uint64_t xmin, xmax;
	bool is_running[SPAN];
	char text[SPAN * 22];
};

static void
make(struct model *m, struct skald_rand *rand)
{
	uint64_t base = skald_rand_next(rand) >> skald_rand_below(rand, 63);
	int used;

	if (base > UINT64_MAX - 2 * SPAN)
		base = UINT64_MAX - 2 * SPAN;
	memset(m, 0, sizeof(*m));
	m->xmin = base + 1;
	m->xmax = m->xmin + skald_rand_below(rand, SPAN);
	used = snprintf(
		m->text, sizeof(m->text), "%" PRIu64 ":%" PRIu64 ":", m->xmin, m->xmax);
	for (uint64_t i = 0; i < m->xmax - m->xmin; i++) {
		m->is_running[i] = skald_rand_below(rand, 3) == 0;
		if (m->is_running[i])
			used += snprintf(m->text + used, sizeof(m->text) - (size_t)used,
				"%s%" PRIu64, m->text[used - 1] == ':' ? "" : ",",
				m->xmin + i);
	}
}

static bool
model_sees(const struct model *m, uint64_t xid)
{
	return xid < m->xmin || (xid < m->xmax && !m->is_running[xid - m->xmin]);
}

static void
agrees_with_a_model(void)
{
	struct skald__snapshot s = { 0 };
	struct skald_rand rand;
	struct model m;

	skald_rand_init(&rand);
	for (int round = 0; round < 2000; round++) {
		unsigned wrong = 0;

		make(&m, &rand);
		CU_ASSERT(parses(&s, m.text));
		for (uint64_t xid = m.xmin - 1; xid <= m.xmax + 2; xid++)
			wrong += skald__snapshot_sees(&s, xid) != model_sees(&m, xid);
		if (wrong)
			printf("\n    %s: %u wrong", m.text, wrong);
		CU_ASSERT_EQUAL(wrong, 0);
	}
	skald__snapshot_done(&s);
}

/* The text that a snapshot stands for: whatever is taken must be this one. */
static void
print(const struct skald__snapshot *s, char *dst, size_t bytes)
{
	size_t used = (size_t)snprintf(
		dst, bytes, "%" PRIu64 ":%" PRIu64 ":", s->xmin, s->xmax);

	for (unsigned i = 0; i < s->xip_count; i++)
		used += (size_t)snprintf(
			dst + used, bytes - used, "%s%" PRIu64, i ? "," : "", s->xip[i]);
}

/* One byte changed, dropped or added: refused, or read as exactly what is written there. */
static void
damaged_text_is_refused_or_read_as_it_stands(void)
{
	static const char bytes[] = "0123456789:,- \t\nx";
	struct skald__snapshot s = { 0 };
	struct skald_rand rand;
	unsigned taken = 0, refused = 0;
	char text[SPAN * 22 + 2], again[SPAN * 24];
	struct model m;

	skald_rand_init(&rand);
	for (int round = 0; round < 20000; round++) {
		size_t at, length;

		make(&m, &rand);
		length = strlen(m.text);
		at = skald_rand_below(&rand, length);
		memcpy(text, m.text, length + 1);
		if (round % 3 == 0)
			memmove(text + at, text + at + 1, length - at);
		else if (round % 3 == 1)
			memmove(text + at + 1, text + at, length - at + 1);
		if (round % 3)
			text[at] = bytes[skald_rand_below(&rand, sizeof(bytes) - 1)];
		if (!parses(&s, text)) {
			refused++;
			continue;
		}
		taken++;
		print(&s, again, sizeof(again));
		/* a leading zero is no other number */
		if (strcmp(text, again) != 0 && !strstr(text, "0"))
			printf("\n    '%s' read as '%s'", text, again);
		CU_ASSERT(strcmp(text, again) == 0 || strstr(text, "0"));
	}
	CU_ASSERT(taken > 100 && refused > 100);
	skald__snapshot_done(&s);
}

/* --- what a snapshot does not see --------------------------------------------------------- */

#define STREAMED_MAX 20000

/* Every commit that was streamed and is not seen lies at or above the bound; and it is no lower
   than need be while there is room. */
static void
bounds_what_is_not_seen(void)
{
	static struct skald__unseen u;
	static uint64_t lsns[STREAMED_MAX];
	struct skald_rand rand;

	skald_rand_init(&rand);
	for (int round = 0; round < 50; round++) {
		struct skald__snapshot s = { 0 };
		uint64_t xid = 1, low = 1, lowest;

		skald__unseen_clear(&u);
		memset(lsns, 0, sizeof(lsns));
		for (int turn = 0; turn < 20 && xid < STREAMED_MAX - 200; turn++) {
			for (uint64_t n = skald_rand_below(&rand, 120); n > 0; n--) {
				lsns[xid] = 1000 + 10 * xid;
				skald__unseen_add(&u, xid, lsns[xid]);
				skald__unseen_add(&u, xid, lsns[xid]); /* another row */
				xid++;
			}
			low += skald_rand_below(&rand, xid - low + 1);
			s.xmin = s.xmax = low; /* who is below has ended */
			skald__unseen_look(&u, &s);
			lowest = 1000 + 10 * low;
			CU_ASSERT_EQUAL(skald__unseen_bound(&u, 1), 1);
			CU_ASSERT_EQUAL(skald__unseen_bound(&u, UINT64_MAX),
				low < xid ? lowest : UINT64_MAX);
		}
	}
}

/* More than there is room for: the bound is low, but not for ever. */
static void
a_burst_does_not_hold_the_bound_for_ever(void)
{
	static struct skald__unseen u;
	struct skald__snapshot s = { .xmin = 1, .xmax = 1 };

	skald__unseen_clear(&u);
	for (uint64_t xid = 1; xid <= 3 * SKALD__UNSEEN_MAX; xid++)
		skald__unseen_add(&u, xid, 100 + xid);
	skald__unseen_look(&u, &s);
	CU_ASSERT_EQUAL(skald__unseen_bound(&u, UINT64_MAX), 101);
	s.xmin = s.xmax =
		2 * SKALD__UNSEEN_MAX; /* some that found no room are not seen */
	skald__unseen_look(&u, &s);
	CU_ASSERT(skald__unseen_bound(&u, UINT64_MAX) <= 100 + 2 * SKALD__UNSEEN_MAX);
	s.xmin = s.xmax = 3 * SKALD__UNSEEN_MAX + 1;
	skald__unseen_look(&u, &s);
	CU_ASSERT_EQUAL(skald__unseen_bound(&u, UINT64_MAX), UINT64_MAX);
	skald__unseen_add(&u, 4 * SKALD__UNSEEN_MAX, 9000);
	CU_ASSERT_EQUAL(skald__unseen_bound(&u, UINT64_MAX), 9000);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(sees_what_postgresql_sees),
		CHECK(refuses_what_is_no_snapshot),
		CHECK(agrees_with_a_model),
		CHECK(damaged_text_is_refused_or_read_as_it_stands),
		CHECK(bounds_what_is_not_seen),
		CHECK(a_burst_does_not_hold_the_bound_for_ever),
	};

	return check_main("unit.outbox.snapshot", cases, CHECK_COUNT(cases));
}
