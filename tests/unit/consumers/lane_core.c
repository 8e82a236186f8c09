/*
 * unit.consumers.lane_core - L1 to L5 by hand, then a random walk of records,
 * repeats, drops and claims against a model that remembers every record; and
 * broken twins of the core, which the same walk must find.
 */
#include "consumers/lane_core.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rand.h"
#include "tests/support/check.h"

#define MARKS 64

static struct lane_mark marks[MARKS];

static struct lane_core
fresh(unsigned lanes)
{
	struct lane_core c;

	skald__lane_init(&c, lanes);
	skald__lane_grow(&c, marks, MARKS);
	return c;
}

static struct lane_record
record(unsigned lane, int64_t offset, uint64_t stream, uint64_t point)
{
	return (struct lane_record){ .lane = lane,
		.offset = offset,
		.has_position = point > 0,
		.stream = stream,
		.position = { .epoch = 1, .point = point } };
}

static void
offsets_below_done_are_passed(void)
{
	struct lane_core c = fresh(2);
	struct lane_record r = record(0, 5, 1, 10);

	skald__lane_set(&c, 0, 6);
	skald__lane_set(&c, 1, 3);
	CU_ASSERT_EQUAL(skald__lane_start(&c), 3);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &r), LANE_PASSED);
	r.lane = 1; /* the other lane is not that far */
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &r), LANE_NEW);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &r), LANE_PASSED); /* L3 */
}

static void
positions_are_per_lane_and_stream(void)
{
	struct lane_core c = fresh(2);
	struct lane_record a = record(0, 0, 1, 10), b = record(0, 1, 1, 10);
	struct lane_record other = record(0, 2, 2, 5), lane = record(1, 3, 1, 4);

	CU_ASSERT_EQUAL(skald__lane_offer(&c, &a), LANE_NEW);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &b), LANE_REPEATED);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &other), LANE_NEW);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &lane), LANE_NEW);
}

static void
a_dropped_batch_leaves_no_trace(void)
{
	struct lane_core c = fresh(1);
	struct lane_record a = record(0, 0, 1, 10), b = record(0, 1, 1, 11);

	CU_ASSERT_EQUAL(skald__lane_offer(&c, &a), LANE_NEW);
	skald__lane_commit(&c, &a);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &b), LANE_NEW);
	skald__lane_forget(&c);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &a), LANE_PASSED);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &b), LANE_NEW); /* L4 */
	CU_ASSERT_EQUAL(skald__lane_start(&c), 1);
}

/* The lowest position there is must be new after a drop, not at or below "nothing". */
static void
the_first_position_is_new_again(void)
{
	struct lane_core c = fresh(1);
	struct lane_record a = { .has_position = true, .stream = 7 };

	CU_ASSERT_EQUAL(skald__lane_offer(&c, &a), LANE_NEW);
	skald__lane_forget(&c);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &a), LANE_NEW);
	skald__lane_commit(&c, &a);
	a.offset = 1;
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &a), LANE_REPEATED);
}

static void
a_full_table_is_told_and_grows(void)
{
	static struct lane_mark small[8], large[16];
	struct lane_core c;
	struct lane_record r = record(0, 0, 0, 1);
	enum lane_verdict verdict = LANE_NEW;
	unsigned taken = 0;

	skald__lane_init(&c, 1);
	CU_ASSERT_EQUAL(skald__lane_offer(&c, &r), LANE_FULL);
	skald__lane_grow(&c, small, 8);
	for (r.stream = 0; r.stream < 20 && verdict == LANE_NEW; r.stream++, r.offset++) {
		verdict = skald__lane_offer(&c, &r);
		taken += verdict == LANE_NEW;
	}
	CU_ASSERT_EQUAL(taken, 6);
	skald__lane_grow(&c, large, 16);
	for (uint64_t stream = 0; stream < taken; stream++) {
		r = record(0, 100 + (int64_t)stream, stream, 1);
		CU_ASSERT_EQUAL(skald__lane_offer(&c, &r), LANE_REPEATED);
	}
}

static void
bump_moves_idle_lanes(void)
{
	struct lane_core c = fresh(3);

	skald__lane_set(&c, 1, 50);
	skald__lane_bump(&c, 40);
	CU_ASSERT_EQUAL(c.applied[0], 40);
	CU_ASSERT_EQUAL(c.applied[1], 50); /* L1 */
	CU_ASSERT_EQUAL(skald__lane_start(&c), 40);
}

/* --- the walk --------------------------------------------------------------------------------- */

#define LOG   400
#define LANES 4

/* What is broken: the twin that has it must be caught. */
enum twin {
	TWIN_NONE,
	TWIN_NO_POSITION, /* forgets the position watermark */
	TWIN_NO_OFFSET, /* reads again from the start without looking at done */
	TWIN_BUMP_IN_HAND, /* bumps over a batch in hand */
	TWIN_NO_FORGET, /* keeps what a dropped batch had seen */
};

struct world {
	struct lane_record log[LOG]; /* as in Kafka, with repeats */
	int message[LOG]; /* which message a record is */
	unsigned effects[LOG]; /* per message */
	unsigned lost_claims;
	int64_t db_done[LANES];
	struct lane_record db_mark[LANES]; /* highest position; offset -1: none */
};

static void
write_log(struct world *w, struct skald_rand *rand)
{
	unsigned messages = 0;

	for (unsigned i = 0; i < LOG; i++) {
		bool is_repeat = messages > 0 && skald_rand_below(rand, 4) == 0;
		unsigned m = is_repeat ? (unsigned)skald_rand_below(rand, messages)
				       : messages++;

		/* every seventh has no position, and is never published again */
		if (is_repeat && m % 7 == 0)
			m = messages++;
		w->message[i] = (int)m;
		w->log[i] = record(m * 2654435761u % LANES, i, 9, m % 7 ? m + 1 : 0);
	}
	for (unsigned lane = 0; lane < LANES; lane++)
		w->db_mark[lane].offset = -1;
}

static void
load(struct world *w, struct lane_core *c, enum twin twin)
{
	memset(marks, 0, sizeof(marks));
	*c = fresh(LANES);
	for (unsigned lane = 0; lane < LANES; lane++) {
		skald__lane_set(c, lane, twin == TWIN_NO_OFFSET ? 0 : w->db_done[lane]);
		if (w->db_mark[lane].offset >= 0 && twin != TWIN_NO_POSITION)
			CU_ASSERT(skald__lane_set_position(
				c, lane, 9, w->db_mark[lane].position));
	}
}

/* The transaction of records [from, to): effects of the new ones, watermarks of all. */
static void
commit(struct world *w, struct lane_core *c, unsigned from, unsigned to,
	const enum lane_verdict *verdicts)
{
	for (unsigned i = from; i < to; i++) {
		const struct lane_record *r = &w->log[i];

		if (verdicts[i] == LANE_NEW)
			w->effects[w->message[i]]++;
		if (verdicts[i] == LANE_PASSED)
			continue;
		skald__lane_commit(c, r);
		w->db_done[r->lane] = r->offset + 1;
		if (r->has_position &&
			(w->db_mark[r->lane].offset < 0 ||
				w->db_mark[r->lane].position.point < r->position.point))
			w->db_mark[r->lane] = *r;
	}
}

static void
walk(struct world *w, struct skald_rand *rand, enum twin twin)
{
	enum lane_verdict verdicts[LOG];
	struct lane_core c;
	unsigned next, to;

	load(w, &c, twin);
	for (next = (unsigned)skald__lane_start(&c); next < LOG;) {
		unsigned dice = (unsigned)skald_rand_below(rand, 12);

		if (dice == 0) { /* crash: another claims */
			load(w, &c, twin);
			next = (unsigned)skald__lane_start(&c);
			continue;
		}
		to = next + 1 + (unsigned)skald_rand_below(rand, 20);
		to = to > LOG ? LOG : to;
		for (unsigned i = next; i < to; i++) {
			verdicts[i] = skald__lane_offer(&c, &w->log[i]);
			if (twin == TWIN_NO_POSITION && verdicts[i] == LANE_REPEATED)
				verdicts[i] = LANE_NEW;
		}
		if (twin == TWIN_BUMP_IN_HAND && dice == 1) {
			skald__lane_bump(&c, to);
			for (unsigned lane = 0; lane < LANES; lane++)
				w->db_done[lane] = to;
		}
		if (dice < 4) { /* dropped, and read again */
			if (twin != TWIN_NO_FORGET)
				skald__lane_forget(&c);
			for (unsigned lane = 0; lane < LANES; lane++)
				CU_ASSERT(twin != TWIN_NONE ||
					  c.seen[lane] == c.applied[lane]);
			if (twin == TWIN_BUMP_IN_HAND)
				next = (unsigned)skald__lane_start(&c);
			continue;
		}
		commit(w, &c, next, to, verdicts);
		next = to;
		if (dice > 8) {
			skald__lane_bump(&c, next);
			for (unsigned lane = 0; lane < LANES; lane++)
				if (w->db_done[lane] < next)
					w->db_done[lane] = next;
		}
	}
}

/* The first message without exactly one effect; -1: all have one. */
static int
first_wrong(const struct world *w)
{
	int last = 0;

	for (unsigned i = 0; i < LOG; i++)
		last = w->message[i] > last ? w->message[i] : last;
	for (int m = 0; m <= last; m++)
		if (w->effects[m] != 1)
			return m;
	return -1;
}

static uint64_t
walk_seed(void)
{
	const char *text = getenv("SKALD_SEED");

	return text ? strtoull(text, NULL, 0) : (uint64_t)skald_wall_us();
}

static void
walks_give_one_effect_each(void)
{
	uint64_t seed = walk_seed();
	static struct world w;

	printf(" SKALD_SEED=%llu ", (unsigned long long)seed);
	for (unsigned i = 0; i < 2000; i++) {
		struct skald_rand rand;

		skald_rand_seed(&rand, seed + i);
		memset(&w, 0, sizeof(w));
		write_log(&w, &rand);
		walk(&w, &rand, TWIN_NONE);
		if (first_wrong(&w) >= 0)
			printf("\n    seed %llu: message %d has %u effects",
				(unsigned long long)(seed + i), first_wrong(&w),
				w.effects[first_wrong(&w)]);
		CU_ASSERT_EQUAL(first_wrong(&w), -1);
	}
}

static void
broken_twins_are_caught(void)
{
	uint64_t seed = walk_seed();
	static struct world w;

	for (enum twin twin = TWIN_NO_POSITION; twin <= TWIN_NO_FORGET; twin++) {
		unsigned caught = 0;

		for (unsigned i = 0; i < 200; i++) {
			struct skald_rand rand;

			skald_rand_seed(&rand, seed + i);
			memset(&w, 0, sizeof(w));
			write_log(&w, &rand);
			walk(&w, &rand, twin);
			caught += first_wrong(&w) >= 0;
		}
		printf(" twin %d: %u of 200;", (int)twin, caught);
		CU_ASSERT(caught > 0);
	}
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(offsets_below_done_are_passed),
		CHECK(positions_are_per_lane_and_stream),
		CHECK(a_dropped_batch_leaves_no_trace),
		CHECK(the_first_position_is_new_again),
		CHECK(a_full_table_is_told_and_grows),
		CHECK(bump_moves_idle_lanes),
		CHECK(walks_give_one_effect_each),
		CHECK(broken_twins_are_caught),
	};

	return check_main("unit.consumers.lane_core", cases, CHECK_COUNT(cases));
}
