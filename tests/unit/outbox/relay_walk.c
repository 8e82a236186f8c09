/*
 * unit.outbox.relay_walk - random walks of the core through relay_world.c: R1 to R11, no
 * row lost, none at two positions; and when the world becomes calm everything is
 * published and recorded, in mode wal. Twins that break one rule each must be found by
 * the same walks.
 */
#include "tests/unit/outbox/relay_world.h"

#include <stdlib.h>

#include "tests/support/check.h"

static uint64_t
the_seed(void)
{
	struct skald_rand r;
	const char *text = getenv("SKALD_SEED");

	if (text)
		return strtoull(text, NULL, 10);
	skald_rand_init(&r);
	return skald_rand_next(&r);
}

static void
invariants_hold_on_random_walks(void)
{
	static const struct twin self = { "itself", skald__relay_next, false, 0 };
	uint64_t seed = the_seed(), sums[7] = { 0 };

	printf(" SKALD_SEED=%llu ", (unsigned long long)seed);
	for (unsigned i = 0; i < 60; i++) {
		struct world *w = world_walk(&self, seed + i);

		for (unsigned rule = 0; rule < RULES; rule++)
			if (w->broken[rule])
				printf("\n    walk %u breaks rule %u %u times, in %s", i,
					rule, w->broken[rule],
					skald__relay_state_name(w->core.state));
		CU_ASSERT_FALSE(world_is_broken(w));
		sums[0] += w->published;
		sums[1] += w->streamed;
		sums[2] += w->entered;
		sums[3] += w->left;
		sums[4] += w->epochs;
		sums[5] += w->slept;
		sums[6] += w->catchups;
		free(w);
	}
	/* walks that went nowhere prove nothing */
	printf("(published %llu, streamed %llu, entered %llu, left %llu, epochs %llu, "
	       "slept %llu, catch-ups %llu) ",
		(unsigned long long)sums[0], (unsigned long long)sums[1],
		(unsigned long long)sums[2], (unsigned long long)sums[3],
		(unsigned long long)sums[4], (unsigned long long)sums[5],
		(unsigned long long)sums[6]);
	CU_ASSERT(sums[0] > 50000 && sums[1] > 20000 && sums[2] > 100 && sums[3] > 50);
	CU_ASSERT(sums[4] > 100 && sums[5] > 20 && sums[6] > 20);
}

/* --- broken twins ----------------------------------------------------------------------- */

/* Enters as soon as the slot is made. */
static struct skald__relay_do
twin_enters_too_soon(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_core copy = *c;

	if (c->state == SKALD__RELAY_IDLE && c->slot == SKALD__SLOT_MADE)
		copy.slot = SKALD__SLOT_COVERED;
	return skald__relay_next(&copy, now_ms);
}

/* Begins another epoch in the middle of a transaction. */
static struct skald__relay_do
twin_splits(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_core copy = *c;

	if (c->drain_due && c->is_caught_up) {
		copy.is_between = true;
		copy.resume = copy.done;
	}
	return skald__relay_next(&copy, now_ms);
}

/* Begins another epoch although what it sends may be there under the old one. */
static struct skald__relay_do
twin_forgets_the_past(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_core copy = *c;

	copy.is_caught_up = true;
	return skald__relay_next(&copy, now_ms);
}

static struct skald__relay_do
twin_climbs_over_the_gate(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_core copy = *c;

	copy.conf.has_gate = false;
	return skald__relay_next(&copy, now_ms);
}

/* Waits for its acknowledgements, but not for the tick's end. */
static struct skald__relay_do
twin_records_too_soon(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_core copy = *c;

	if (c->state == SKALD__RELAY_SENDING && c->is_end_known && c->sent == c->here)
		copy.state = SKALD__RELAY_RECORDING;
	return skald__relay_next(&copy, now_ms);
}

static struct skald__relay_do
twin_trusts_its_lease(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_core copy = *c;

	copy.lease_until_ms = copy.renew_at_ms = INT64_MAX;
	return skald__relay_next(&copy, now_ms);
}

/* Never looks after the ring under load, nor ever else. */
static struct skald__relay_do
twin_forgets_the_ring(const struct skald__relay_core *c, int64_t now_ms)
{
	struct skald__relay_core copy = *c;

	copy.ring_at_ms = INT64_MAX;
	return skald__relay_next(&copy, now_ms);
}

static void
the_walks_find_broken_twins(void)
{
	static const struct twin twins[] = {
		{ "records too soon", twin_records_too_soon, false, 2 },
		{ "trusts its lease", twin_trusts_its_lease, false, 4 },
		{ "enters too soon", twin_enters_too_soon, false, 8 },
		{ "waits for nobody before it enters", skald__relay_next, true, 8 },
		{ "splits a transaction", twin_splits, false, 9 },
		{ "forgets the past", twin_forgets_the_past, false, MOVED },
		{ "climbs over the gate", twin_climbs_over_the_gate, false, 10 },
		{ "waits for nobody before it sleeps", skald__relay_next, true, 11 },
		{ "forgets the ring", twin_forgets_the_ring, false, NOT_RUNG },
	};
	uint64_t seed = the_seed();

	for (size_t i = 0; i < CHECK_COUNT(twins); i++) {
		unsigned found = 0;

		for (unsigned n = 0; n < 400 && !found; n++) {
			struct world *w = world_walk(&twins[i], seed + n);

			found = w->broken[twins[i].rule];
			free(w);
		}
		if (!found)
			printf("\n    not found: %s, SKALD_SEED=%llu", twins[i].name,
				(unsigned long long)seed);
		CU_ASSERT(found > 0);
	}
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(invariants_hold_on_random_walks),
		CHECK(the_walks_find_broken_twins),
	};

	return check_main("unit.outbox.relay_walk", cases, CHECK_COUNT(cases));
}
