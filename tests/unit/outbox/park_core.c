#include "outbox/park_core.h"

#include "base/rand.h"
#include "tests/support/check.h"

static struct skald_position
at(uint64_t point, uint32_t ordinal)
{
	return (struct skald_position){ 7, point, ordinal };
}

static void
waits_from_its_head_to_its_marker_and_from_again_on(void)
{
	struct skald__hold h = { .from = at(5, 3) };

	CU_ASSERT_FALSE(skald__hold_covers(&h, at(5, 2))); /* was published before */
	CU_ASSERT(skald__hold_covers(&h, at(5, 3)));
	CU_ASSERT(skald__hold_covers(&h, at(99, 0)));
	h.out = at(8, 10);
	h.has_out = true;
	CU_ASSERT_FALSE(skald__hold_covers(&h, at(5, 2)));
	CU_ASSERT(skald__hold_covers(&h, at(8, 9)));
	CU_ASSERT(skald__hold_covers(&h, at(8, 10)));
	CU_ASSERT_FALSE(skald__hold_covers(&h, at(8, 11)));
	CU_ASSERT_FALSE(skald__hold_covers(&h, at(9, 0)));
	skald__hold_again(&h, at(8, 12));
	CU_ASSERT_FALSE(skald__hold_covers(&h, at(8, 11)));
	CU_ASSERT(skald__hold_covers(&h, at(8, 12)));
	CU_ASSERT(skald__hold_covers(&h, at(10, 0)));
}

static void
the_first_that_waits_again_decides(void)
{
	struct skald__hold h = { .from = at(1, 0), .out = at(2, 0), .has_out = true };

	skald__hold_again(&h, at(2, 5));
	skald__hold_again(&h, at(2, 9));
	CU_ASSERT_EQUAL(h.again.ordinal, 5);
	skald__hold_again(&h, at(2, 3));
	CU_ASSERT_EQUAL(h.again.ordinal, 3);
}

/* K1, K2: by any way through a history every row has one answer. */
static void
a_row_has_the_same_answer_whenever_it_comes(void)
{
	struct skald_rand rand;

	skald_rand_init(&rand);
	for (int round = 0; round < 1000; round++) {
		struct skald__hold h = { .from = at(1,
						 (uint32_t)skald_rand_below(&rand, 20)) };
		bool before[40];

		h.out = at(1, h.from.ordinal + 1 + (uint32_t)skald_rand_below(&rand, 9));
		for (uint32_t o = 0; o < 40; o++)
			before[o] = skald__hold_covers(&h, at(1, o));
		h.has_out = true;
		/* up to the marker nothing changes when it has come */
		for (uint32_t o = 0; o <= h.out.ordinal; o++)
			CU_ASSERT_EQUAL(skald__hold_covers(&h, at(1, o)), before[o]);
		skald__hold_again(&h, at(1, h.out.ordinal + 3));
		for (uint32_t o = 0; o < h.out.ordinal + 3; o++)
			CU_ASSERT_EQUAL(skald__hold_covers(&h, at(1, o)),
				o >= h.from.ordinal && o <= h.out.ordinal);
	}
}

static void
decides_by_what_is_known(void)
{
	static const struct {
		struct skald__park_case c;
		enum skald__park_todo todo;
	} rows[] = {
		{ { 0 }, SKALD__PARK_SEND },
		/* K3: whatever else it is */
		{ { .is_waiting = true }, SKALD__PARK_BEHIND },
		{ { .is_waiting = true, .is_topic_refused = true, .refused = 10 },
			SKALD__PARK_BEHIND },
		{ { .is_topic_refused = true }, SKALD__PARK_HEAD },
		{ { .is_topic_refused = true, .refused = 3 }, SKALD__PARK_HEAD },
		{ { .refused = 10 }, SKALD__PARK_HEAD },
		{ { .refused = 29 }, SKALD__PARK_HEAD },
		{ { .refused = 87 }, SKALD__PARK_HEAD },
		{ { .refused = -1 }, SKALD__PARK_HEAD },
		/* the topic is not what it was thought to be */
		{ { .refused = 3 }, SKALD__PARK_LOOK },
		{ { .refused = -188 }, SKALD__PARK_LOOK },
		{ { .refused = -190 }, SKALD__PARK_LOOK },
		{ { .is_too_large = true }, SKALD__PARK_HEAD },
		{ { .is_too_large = true, .is_limit_old = true }, SKALD__PARK_LIMIT },
		{ { .is_limit_old = true }, SKALD__PARK_SEND },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CU_ASSERT_EQUAL(skald__park_decide(&rows[i].c), rows[i].todo);
}

static void
backs_off_from_5_s_to_5_min_with_full_jitter(void)
{
	static const int64_t most_ms[] = { 5000, 5000, 10000, 20000, 40000, 80000, 160000,
		300000, 300000, 300000 };
	struct skald_rand rand;

	skald_rand_init(&rand);
	for (unsigned attempts = 0; attempts < 10; attempts++) {
		int64_t low = INT64_MAX, high = 0;

		for (int i = 0; i < 2000; i++) {
			int64_t ms =
				skald__park_backoff_ms(attempts, skald_rand_next(&rand));

			low = ms < low ? ms : low;
			high = ms > high ? ms : high;
		}
		CU_ASSERT(low >= 1000 && low < 1000 + most_ms[attempts] / 20);
		CU_ASSERT(high <= most_ms[attempts] && high > most_ms[attempts] * 9 / 10);
	}
	CU_ASSERT(skald__park_backoff_ms(UINT32_MAX, UINT64_MAX) <= 300000);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(waits_from_its_head_to_its_marker_and_from_again_on),
		CHECK(the_first_that_waits_again_decides),
		CHECK(a_row_has_the_same_answer_whenever_it_comes),
		CHECK(decides_by_what_is_known),
		CHECK(backs_off_from_5_s_to_5_min_with_full_jitter),
	};

	return check_main("unit.outbox.park_core", cases, CHECK_COUNT(cases));
}
