#include "outbox/window_core.h"

#include <stdlib.h>

#include "base/rand.h"
#include "tests/support/check.h"

static struct skald__window *
make(uint64_t ordinal, int64_t id)
{
	struct skald__window *w = malloc(sizeof(*w));

	if (!w)
		abort();
	skald__window_reset(w, ordinal, id);
	return w;
}

static void
acknowledgements_in_any_order_make_one_number(void)
{
	struct skald__window *w = make(0, -1);

	for (int64_t id = 100; id < 105; id++)
		skald__window_push(w, id, 10);
	CU_ASSERT_EQUAL(w->inflight_bytes, 50);
	CU_ASSERT(skald__window_ack(w, 2));
	CU_ASSERT(skald__window_ack(w, 1));
	CU_ASSERT_EQUAL(w->done, 0);
	CU_ASSERT_EQUAL(w->resume_mark, -1);
	CU_ASSERT(skald__window_ack(w, 0));
	CU_ASSERT_EQUAL(w->done, 3);
	CU_ASSERT_EQUAL(w->resume_mark, 102);
	CU_ASSERT_EQUAL(w->inflight_bytes, 20);
	free(w);
}

/* W5 */
static void
what_was_acknowledged_is_known_after_a_rewind(void)
{
	static const bool once[] = { true, true, false, true, false };
	static const bool twice[] = { true, true, true, true, false, false };
	struct skald__window *w = make(0, -1);

	skald__window_push(w, SKALD__NO_MARK, 1);
	for (int64_t id = 101; id < 105; id++)
		skald__window_push(w, SKALD__NO_MARK, 1);
	CU_ASSERT(skald__window_ack(w, 0));
	CU_ASSERT(skald__window_ack(w, 1));
	CU_ASSERT(skald__window_ack(w, 3));
	skald__window_rewind(w);
	CU_ASSERT_EQUAL(w->next, 0);
	CU_ASSERT_EQUAL(w->inflight_bytes, 0);
	for (uint64_t o = 0; o < 3; o++) {
		CU_ASSERT_EQUAL(skald__window_is_known(w), once[o]);
		skald__window_push(w, SKALD__NO_MARK, 1);
		if (once[o])
			CU_ASSERT(skald__window_ack(w, o));
	}
	CU_ASSERT(skald__window_ack(w, 2));
	skald__window_rewind(w); /* ordinal 3 was not reached, and is still known */
	for (uint64_t o = 0; o < 6; o++) {
		CU_ASSERT_EQUAL(skald__window_is_known(w), twice[o]);
		skald__window_push(w, SKALD__NO_MARK, 1);
	}
	skald__window_reset(w, 0, -1);
	CU_ASSERT_FALSE(skald__window_is_known(w));
	free(w);
}

/* W4 */
static void
nothing_is_resumed_behind_a_row_without_a_mark(void)
{
	struct skald__window *w = make(0, -1);

	skald__window_push(w, 100, 1);
	skald__window_push(w, SKALD__NO_MARK, 1);
	skald__window_push(w, SKALD__NO_MARK, 1);
	skald__window_push(w, 103, 1);
	CU_ASSERT(skald__window_ack(w, 0));
	CU_ASSERT(skald__window_ack(w, 1));
	CU_ASSERT(skald__window_ack(w, 2));
	CU_ASSERT_EQUAL(w->done, 3);
	CU_ASSERT_EQUAL(w->resume, 1);
	CU_ASSERT_EQUAL(w->resume_mark, 100);
	CU_ASSERT(skald__window_ack(w, 3));
	CU_ASSERT_EQUAL(w->resume, 4);
	CU_ASSERT_EQUAL(w->resume_mark, 103);
	free(w);
}

static void
what_is_not_in_flight_cannot_be_acknowledged(void)
{
	struct skald__window *w = make(7, 70);

	CU_ASSERT(!skald__window_ack(w, 7)); /* not produced */
	CU_ASSERT(!skald__window_ack(w, 6)); /* done before */
	skald__window_push(w, 71, 1);
	skald__window_push(w, 72, 1);
	CU_ASSERT(skald__window_ack(w, 8));
	CU_ASSERT(!skald__window_ack(w, 8)); /* twice */
	CU_ASSERT(skald__window_ack(w, 7));
	CU_ASSERT(!skald__window_ack(w, 7));
	CU_ASSERT_EQUAL(w->done, 9);
	CU_ASSERT_EQUAL(w->resume_mark, 72);
	free(w);
}

static void
is_full_by_rows_and_by_bytes(void)
{
	struct skald__window *w = make(0, -1);

	for (int i = 0; i < SKALD_RELAY_INFLIGHT_ROWS; i++) {
		CU_ASSERT_FALSE(skald__window_is_full(w));
		skald__window_push(w, i, 1);
	}
	CU_ASSERT(skald__window_is_full(w));
	CU_ASSERT(skald__window_ack(w, 1));
	CU_ASSERT(skald__window_is_full(w)); /* the bits behind `done` are still taken */
	CU_ASSERT(skald__window_ack(w, 0));
	CU_ASSERT_FALSE(skald__window_is_full(w));
	skald__window_reset(w, 0, -1);
	skald__window_push(w, 1, SKALD_RELAY_INFLIGHT_BYTES);
	CU_ASSERT(skald__window_is_full(w));
	free(w);
}

/* Against a list of flags; ordinals go round the ring several times. */
static void
agrees_with_a_list_of_flags(void)
{
	enum { ROWS = 5 * SKALD__WINDOW_SLOTS };
	struct skald__window *w = make(0, -1);
	bool *acked = calloc(ROWS, sizeof(*acked));
	struct skald_rand r;
	uint64_t done = 0, next = 0, bytes = 0;
	unsigned wrong = 0;

	if (!acked)
		abort();
	skald_rand_init(&r);
	while (done < ROWS) {
		uint64_t burst = skald_rand_below(&r, 2000);

		for (; burst && next < ROWS && !skald__window_is_full(w); burst--) {
			skald__window_push(w, (int64_t)next * 3, (uint32_t)(next % 7));
			bytes += next++ % 7;
		}
		for (burst = skald_rand_below(&r, 2000); burst && done < next; burst--) {
			uint64_t at =
				done + skald_rand_below(
					       &r, next - done < 500 ? next - done : 500);
			bool is_new = !acked[at];

			wrong += skald__window_ack(w, at) != is_new;
			bytes -= is_new ? at % 7 : 0;
			acked[at] = true;
			while (done < next && acked[done])
				done++;
		}
		wrong += w->done != done || w->next != next ||
			 w->inflight_bytes != bytes ||
			 w->resume_mark != (done ? (int64_t)(done - 1) * 3 : -1);
	}
	CU_ASSERT_EQUAL(wrong, 0);
	free(acked);
	free(w);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(acknowledgements_in_any_order_make_one_number),
		CHECK(nothing_is_resumed_behind_a_row_without_a_mark),
		CHECK(what_was_acknowledged_is_known_after_a_rewind),
		CHECK(what_is_not_in_flight_cannot_be_acknowledged),
		CHECK(is_full_by_rows_and_by_bytes),
		CHECK(agrees_with_a_list_of_flags),
	};

	return check_main("unit.outbox.window_core", cases, CHECK_COUNT(cases));
}
