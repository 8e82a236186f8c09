/*
 * unit.consumers.runner_core - the table of states and events, the ways of one
 * message, and random walks in which a simulated world fails at random: C1 to C7.
 */
#include "consumers/runner_core.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rand.h"
#include "tests/support/check.h"

#define N 500

static const struct run_conf conf = { .attempts = 3,
	.backoff_ms = 10,
	.backoff_max_ms = 40,
	.conflict_ms = 5,
	.outage_ms = 100,
	.outage_max_ms = 5000 };
static struct run_msg msgs[N];

static struct run_core
loaded(unsigned count, struct run_do *todo)
{
	struct run_core c;

	memset(msgs, 0, sizeof(msgs));
	skald__run_init(&c, &conf);
	skald__run_load(&c, msgs);
	*todo = skald__run_step(
		&c, &(struct run_event){ .kind = RUN_EV_BATCH, .count = count }, 1000);
	return c;
}

static struct run_do
fail(struct run_core *c, enum run_fault fault, int culprit)
{
	return skald__run_step(c,
		&(struct run_event){
			.kind = RUN_EV_FAILED, .fault = fault, .culprit = culprit },
		1000);
}

static struct run_do
give(struct run_core *c, enum run_event_kind kind, int64_t now_ms)
{
	return skald__run_step(c, &(struct run_event){ .kind = kind }, now_ms);
}

/* --- the table ---------------------------------------------------------------------------------- */

/* A core in the state, with a batch of 4 in hand unless it is idle. */
static struct run_core
in_state(enum run_state state)
{
	struct run_do todo;
	struct run_core c = loaded(4, &todo);

	switch (state) {
	case RUN_IDLE:
		(void)give(&c, RUN_EV_DROP, 1000);
		break;
	case RUN_BUSY:
		break;
	case RUN_WAITING:
		(void)fail(&c, RUN_CONFLICT, -1);
		(void)fail(&c, RUN_CONFLICT, -1);
		c.until_ms = 1000;
		(void)fail(&c, RUN_CONFLICT, -1);
		c.until_ms = 1004;
		break;
	case RUN_AWAY:
		(void)fail(&c, RUN_OUTAGE, -1);
		c.until_ms = 1004;
		break;
	case RUN_ENDED:
		(void)fail(&c, RUN_FATAL, 0);
		break;
	}
	CU_ASSERT_EQUAL(c.state, state);
	return c;
}

static void
every_state_meets_every_event(void)
{
	static const struct {
		enum run_state state;
		enum run_event_kind kind;
		int64_t now_ms;
		enum run_do_kind todo;
		enum run_state after;
	} rows[] = {
		{ RUN_IDLE, RUN_EV_BATCH, 1000, RUN_DO_RUN, RUN_BUSY },
		{ RUN_IDLE, RUN_EV_COMMITTED, 1000, RUN_DO_NOTHING, RUN_IDLE },
		{ RUN_IDLE, RUN_EV_FAILED, 1000, RUN_DO_NOTHING, RUN_IDLE },
		{ RUN_IDLE, RUN_EV_TIME, 1000, RUN_DO_NOTHING, RUN_IDLE },
		{ RUN_IDLE, RUN_EV_BACK, 1000, RUN_DO_NOTHING, RUN_IDLE },
		{ RUN_IDLE, RUN_EV_GONE, 1000, RUN_DO_NOTHING, RUN_IDLE },
		{ RUN_IDLE, RUN_EV_DROP, 1000, RUN_DO_NOTHING, RUN_IDLE },
		{ RUN_BUSY, RUN_EV_BATCH, 1000, RUN_DO_NOTHING, RUN_BUSY },
		{ RUN_BUSY, RUN_EV_COMMITTED, 1000, RUN_DO_NEXT, RUN_IDLE },
		{ RUN_BUSY, RUN_EV_FAILED, 1000, RUN_DO_RUN, RUN_BUSY }, /* conflict */
		{ RUN_BUSY, RUN_EV_TIME, 1000, RUN_DO_NOTHING, RUN_BUSY },
		{ RUN_BUSY, RUN_EV_BACK, 1000, RUN_DO_NOTHING, RUN_BUSY },
		{ RUN_BUSY, RUN_EV_GONE, 1000, RUN_DO_NOTHING, RUN_BUSY },
		{ RUN_BUSY, RUN_EV_DROP, 1000, RUN_DO_NEXT, RUN_IDLE },
		{ RUN_WAITING, RUN_EV_BATCH, 1004, RUN_DO_NOTHING, RUN_WAITING },
		{ RUN_WAITING, RUN_EV_COMMITTED, 1004, RUN_DO_NOTHING, RUN_WAITING },
		{ RUN_WAITING, RUN_EV_FAILED, 1004, RUN_DO_NOTHING, RUN_WAITING },
		{ RUN_WAITING, RUN_EV_TIME, 1003, RUN_DO_WAIT, RUN_WAITING },
		{ RUN_WAITING, RUN_EV_TIME, 1004, RUN_DO_RUN, RUN_BUSY },
		{ RUN_WAITING, RUN_EV_BACK, 1004, RUN_DO_NOTHING, RUN_WAITING },
		{ RUN_WAITING, RUN_EV_GONE, 1004, RUN_DO_NOTHING, RUN_WAITING },
		{ RUN_WAITING, RUN_EV_DROP, 1004, RUN_DO_NEXT, RUN_IDLE },
		{ RUN_AWAY, RUN_EV_BATCH, 1004, RUN_DO_NOTHING, RUN_AWAY },
		{ RUN_AWAY, RUN_EV_COMMITTED, 1004, RUN_DO_NOTHING, RUN_AWAY },
		{ RUN_AWAY, RUN_EV_FAILED, 1004, RUN_DO_NOTHING, RUN_AWAY },
		{ RUN_AWAY, RUN_EV_TIME, 1003, RUN_DO_WAIT, RUN_AWAY },
		{ RUN_AWAY, RUN_EV_TIME, 1004, RUN_DO_PROBE, RUN_AWAY },
		{ RUN_AWAY, RUN_EV_BACK, 1004, RUN_DO_RUN, RUN_BUSY },
		{ RUN_AWAY, RUN_EV_GONE, 1004, RUN_DO_WAIT, RUN_AWAY },
		{ RUN_AWAY, RUN_EV_DROP, 1004, RUN_DO_NEXT, RUN_IDLE },
		{ RUN_ENDED, RUN_EV_BATCH, 1004, RUN_DO_NOTHING, RUN_ENDED },
		{ RUN_ENDED, RUN_EV_COMMITTED, 1004, RUN_DO_NOTHING, RUN_ENDED },
		{ RUN_ENDED, RUN_EV_FAILED, 1004, RUN_DO_NOTHING, RUN_ENDED },
		{ RUN_ENDED, RUN_EV_TIME, 1004, RUN_DO_NOTHING, RUN_ENDED },
		{ RUN_ENDED, RUN_EV_BACK, 1004, RUN_DO_NOTHING, RUN_ENDED },
		{ RUN_ENDED, RUN_EV_GONE, 1004, RUN_DO_NOTHING, RUN_ENDED },
		{ RUN_ENDED, RUN_EV_DROP, 1004, RUN_DO_NOTHING, RUN_ENDED },
	};

	for (size_t i = 0; i < CHECK_COUNT(rows); i++) {
		struct run_core c = in_state(rows[i].state);
		struct run_event ev = { .kind = rows[i].kind,
			.count = 4,
			.fault = RUN_CONFLICT,
			.culprit = -1 };
		struct run_do todo = skald__run_step(&c, &ev, rows[i].now_ms);

		if (todo.kind != rows[i].todo || c.state != rows[i].after)
			printf("\n    row %zu: do %d, state %d", i, (int)todo.kind,
				(int)c.state);
		CU_ASSERT_EQUAL(todo.kind, rows[i].todo);
		CU_ASSERT_EQUAL(c.state, rows[i].after);
	}
}

/* --- single ways ----------------------------------------------------------------------------------- */

static void
a_named_culprit_dies_with_its_prefix(void)
{
	struct run_do todo;
	struct run_core c = loaded(100, &todo);

	CU_ASSERT(todo.lo == 0 && todo.hi == 100);
	todo = fail(&c, RUN_REJECTED, 40);
	CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 0 && todo.hi == 41);
	CU_ASSERT_EQUAL(msgs[40].fate, RUN_DEAD_FATAL);
	todo = give(&c, RUN_EV_COMMITTED, 1000);
	CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 41 && todo.hi == 100);
	todo = give(&c, RUN_EV_COMMITTED, 1000);
	CU_ASSERT_EQUAL(todo.kind, RUN_DO_NEXT);
}

static void
own_failures_wait_and_die_after_attempts(void)
{
	struct run_do todo;
	struct run_core c = loaded(10, &todo);

	todo = fail(&c, RUN_FAILED, 4);
	CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 0 && todo.hi == 4);
	todo = give(&c, RUN_EV_COMMITTED, 1000);
	if (todo.kind == RUN_DO_WAIT)
		todo = give(&c, RUN_EV_TIME, todo.until_ms);
	CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 4 && todo.hi == 5);
	todo = skald__run_step(&c,
		&(struct run_event){ .kind = RUN_EV_FAILED,
			.fault = RUN_FAILED,
			.culprit = -1, /* alone: it is the culprit (C5) */
			.defer_ms = 77 },
		2000);
	CU_ASSERT(todo.kind == RUN_DO_WAIT && todo.until_ms == 2077);
	CU_ASSERT_EQUAL(msgs[4].attempts, 2);
	todo = give(&c, RUN_EV_TIME, 2077);
	CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 4 && todo.hi == 5);
	todo = fail(&c, RUN_FAILED, 4);
	CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 4 && todo.hi == 5);
	CU_ASSERT_EQUAL(msgs[4].fate, RUN_DEAD_RETRY);
	/* C7: the dead letter cannot be written: waits, however often */
	for (unsigned i = 0; i < 50; i++) {
		todo = fail(&c, RUN_REJECTED, 4);
		CU_ASSERT(todo.kind == RUN_DO_WAIT && c.state == RUN_AWAY);
		(void)give(&c, RUN_EV_TIME, todo.until_ms);
		todo = give(&c, RUN_EV_BACK, todo.until_ms);
		CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 4);
	}
	todo = give(&c, RUN_EV_COMMITTED, 9000);
	CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 5 && todo.hi == 10);
}

static void
conflicts_halve_and_recover(void)
{
	struct run_do todo;
	struct run_core c = loaded(64, &todo);

	todo = fail(&c, RUN_CONFLICT, 3);
	CU_ASSERT(todo.lo == 0 && todo.hi == 32);
	todo = fail(&c, RUN_CONFLICT, -1);
	CU_ASSERT(todo.lo == 0 && todo.hi == 16);
	todo = give(&c, RUN_EV_COMMITTED, 1000);
	CU_ASSERT(todo.lo == 16 && todo.hi == 48); /* 16 doubled */
	todo = give(&c, RUN_EV_COMMITTED, 1000);
	CU_ASSERT(todo.lo == 48 && todo.hi == 64);
	for (unsigned i = 0; i < 64; i++)
		CU_ASSERT_EQUAL(msgs[i].attempts, 0); /* C3 */
}

static void
outages_back_off_and_run_the_same(void)
{
	struct run_do todo;
	struct run_core c = loaded(8, &todo);
	int64_t now_ms = 0, longest_ms = 0;

	for (unsigned i = 0; i < 20; i++) {
		todo = i == 0 ? fail(&c, RUN_OUTAGE, 2)
			      : skald__run_step(&c,
					&(struct run_event){ .kind = RUN_EV_GONE,
						.rand = UINT64_MAX - i },
					now_ms);
		CU_ASSERT_EQUAL(todo.kind, RUN_DO_WAIT);
		if (i > 0 && todo.until_ms - now_ms > longest_ms)
			longest_ms = todo.until_ms - now_ms;
		now_ms = todo.until_ms;
		todo = give(&c, RUN_EV_TIME, now_ms);
		CU_ASSERT_EQUAL(todo.kind, RUN_DO_PROBE);
	}
	CU_ASSERT(longest_ms > 2500 && longest_ms <= conf.outage_max_ms);
	todo = give(&c, RUN_EV_BACK, now_ms);
	CU_ASSERT(todo.kind == RUN_DO_RUN && todo.lo == 0 && todo.hi == 8);
	CU_ASSERT_EQUAL(msgs[2].attempts, 0); /* C3 */
}

/* --- the walk ------------------------------------------------------------------------------------------ */

/* What each message is, unknown to the core. */
struct world {
	bool is_poison[N];
	bool is_failing[N]; /* own failure each time */
	unsigned applied[N], dead[N];
	unsigned failing_runs; /* own failures only */
	bool names_culprits;
	unsigned trouble; /* percent of conflicts, outages, fences */
	bool counts_trouble; /* the broken twin: an outage is the message's failure */
	bool skips_right; /* the broken twin: believes the right half is settled too */
};

static struct run_event
run_range(struct world *w, struct skald_rand *rand, struct run_do todo)
{
	struct run_event ev = {
		.kind = RUN_EV_COMMITTED, .culprit = -1, .rand = skald_rand_next(rand)
	};
	unsigned dice = (unsigned)skald_rand_below(rand, 100);

	if (dice < w->trouble) {
		ev.kind = RUN_EV_FAILED;
		ev.fault = dice % 3 == 0   ? RUN_CONFLICT
			   : dice % 3 == 1 ? RUN_OUTAGE
					   : RUN_FENCED;
		if (w->counts_trouble)
			ev.fault = RUN_FAILED;
		ev.culprit = skald_rand_below(rand, 2) ? (int)todo.lo : -1;
		return ev;
	}
	for (unsigned i = todo.lo; i < todo.hi; i++) {
		if (msgs[i].fate != RUN_HANDLE || !(w->is_poison[i] || w->is_failing[i]))
			continue;
		ev.kind = RUN_EV_FAILED;
		ev.fault = w->is_poison[i] ? RUN_REJECTED : RUN_FAILED;
		ev.culprit = w->names_culprits ? (int)i : -1;
		w->failing_runs++;
		return ev;
	}
	for (unsigned i = todo.lo; i < todo.hi; i++)
		if (msgs[i].fate == RUN_HANDLE)
			w->applied[i]++;
		else
			w->dead[i]++;
	return ev;
}

/* Runs a batch to its end; false: it did not end. */
static bool
walk(struct world *w, struct skald_rand *rand, unsigned count)
{
	struct run_do todo;
	struct run_core c = loaded(count, &todo);
	int64_t now_ms = 1000;
	unsigned lo_before = 0;

	for (unsigned steps = 0; steps < 100000; steps++) {
		if (c.state != RUN_IDLE) {
			CU_ASSERT(c.lo >= lo_before); /* C1 */
			CU_ASSERT(c.lo < c.hi && c.hi <= c.count); /* C2 */
			lo_before = c.lo;
		}
		switch (todo.kind) {
		case RUN_DO_RUN: {
			struct run_event ev = run_range(w, rand, todo);

			todo = skald__run_step(&c, &ev, now_ms);
			if (w->skips_right && ev.kind == RUN_EV_FAILED &&
				ev.fault == RUN_REJECTED && c.state == RUN_BUSY &&
				c.suspect)
				c.count = c.suspect = c.hi;
			break;
		}
		case RUN_DO_WAIT:
			now_ms = todo.until_ms;
			todo = give(&c, RUN_EV_TIME, now_ms);
			break;
		case RUN_DO_PROBE:
			todo = give(&c,
				skald_rand_below(rand, 2) ? RUN_EV_BACK : RUN_EV_GONE,
				now_ms);
			break;
		case RUN_DO_NEXT:
			return true;
		case RUN_DO_NOTHING:
		case RUN_DO_STOP:
			return false;
		}
	}
	return false;
}

static void
prepare(struct world *w, struct skald_rand *rand, unsigned count, unsigned poison,
	unsigned failing)
{
	memset(w, 0, sizeof(*w));
	while (poison > 0) {
		unsigned i = (unsigned)skald_rand_below(rand, count);

		poison -= !w->is_poison[i];
		w->is_poison[i] = true;
	}
	while (failing > 0) {
		unsigned i = (unsigned)skald_rand_below(rand, count);

		failing -= !w->is_poison[i] && !w->is_failing[i];
		w->is_failing[i] = !w->is_poison[i];
	}
}

/* Each message settled exactly once, the bad ones dead, the good ones applied. */
static bool
is_right(const struct world *w, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		bool is_bad = w->is_poison[i] || w->is_failing[i];

		if (w->applied[i] != !is_bad || w->dead[i] != is_bad)
			return false;
	}
	return true;
}

static uint64_t
walk_seed(void)
{
	const char *text = getenv("SKALD_SEED");

	return text ? strtoull(text, NULL, 0) : (uint64_t)skald_wall_us();
}

static void
walks_settle_each_message_once(void)
{
	uint64_t seed = walk_seed();
	static struct world w;

	printf(" SKALD_SEED=%llu ", (unsigned long long)seed);
	for (unsigned i = 0; i < 3000; i++) {
		struct skald_rand rand;
		unsigned count;

		skald_rand_seed(&rand, seed + i);
		count = 1 + (unsigned)skald_rand_below(&rand, N);
		prepare(&w, &rand, count,
			(unsigned)skald_rand_below(&rand, count / 4 + 1),
			(unsigned)skald_rand_below(&rand, count / 4 + 1));
		w.trouble = (unsigned)skald_rand_below(&rand, 60);
		w.names_culprits = i % 2;
		CU_ASSERT(walk(&w, &rand, count));
		CU_ASSERT(is_right(&w, count));
		for (unsigned k = 0; k < count; k++)
			CU_ASSERT(msgs[k].attempts ==
				  (w.is_failing[k] ? conf.attempts : 0)); /* C3, C4 */
	}
}

static unsigned
log2_up(unsigned n)
{
	unsigned bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

static void
k_poison_cost_k_log_n(void)
{
	uint64_t seed = walk_seed();
	static struct world w;
	unsigned worst = 0;

	for (unsigned i = 0; i < 3000; i++) {
		struct skald_rand rand;
		unsigned count, k;

		skald_rand_seed(&rand, seed + i);
		count = 2 + (unsigned)skald_rand_below(&rand, N - 1);
		k = (unsigned)skald_rand_below(&rand, 12 < count ? 12 : count);
		prepare(&w, &rand, count, k, 0);
		w.names_culprits = i % 2;
		CU_ASSERT(walk(&w, &rand, count));
		CU_ASSERT(w.failing_runs <= k * log2_up(count) + k); /* C6 */
		if (k == 7 && w.failing_runs > worst)
			worst = w.failing_runs;
	}
	printf(" worst of 7: %u ", worst);
}

/* The checker must name what is broken: C3 and C1's "settled" violated on purpose. */
static void
broken_twins_are_caught(void)
{
	uint64_t seed = walk_seed();
	static struct world w;
	unsigned caught[2] = { 0, 0 };

	for (unsigned i = 0; i < 400; i++) {
		struct skald_rand rand;

		skald_rand_seed(&rand, seed + i);
		prepare(&w, &rand, 100, 3, 0);
		w.names_culprits = i % 2;
		w.trouble = i % 2 ? 50 : 0;
		w.counts_trouble = i % 2;
		w.skips_right = !(i % 2);
		caught[i % 2] += !walk(&w, &rand, 100) || !is_right(&w, 100);
	}
	printf(" counted outages: %u of 200; skipped halves: %u of 200 ", caught[1],
		caught[0]);
	CU_ASSERT(caught[0] > 0);
	CU_ASSERT(caught[1] > 0);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(every_state_meets_every_event),
		CHECK(a_named_culprit_dies_with_its_prefix),
		CHECK(own_failures_wait_and_die_after_attempts),
		CHECK(conflicts_halve_and_recover),
		CHECK(outages_back_off_and_run_the_same),
		CHECK(walks_settle_each_message_once),
		CHECK(k_poison_cost_k_log_n),
		CHECK(broken_twins_are_caught),
	};

	return check_main("unit.consumers.runner_core", cases, CHECK_COUNT(cases));
}
