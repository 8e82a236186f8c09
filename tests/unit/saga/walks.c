/*
 * walks.c - random walks of the saga core through the world of world.h, and three
 * broken twins that the same observer must catch, each by its own invariant.
 *
 *	unit.saga.walks [WALKS]     SKALD_SEED repeats a run
 */
#include <stdlib.h>
#include <time.h>

#include "tests/support/check.h"
#include "tests/unit/saga/world.h"

#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
enum { WALKS = 200000 };
#else
enum { WALKS = 1000000 };
#endif
enum { TWIN_WALKS = 3000 };

static uint64_t seed;
static long walks = WALKS;
static struct world world; /* large */

static void
true_next(const struct saga_plan *plan, struct saga_core *c, const struct saga_event *ev,
	int64_t now_ms, struct saga_dos *todo)
{
	skald__saga_next(plan, c, ev, NULL, now_ms, todo);
}

/* Any reply is taken for the answer to whatever is out. */
static void
unfenced_next(const struct saga_plan *plan, struct saga_core *c,
	const struct saga_event *ev, int64_t now_ms, struct saga_dos *todo)
{
	struct saga_event taken = *ev;

	for (unsigned i = 0; ev->kind == SAGA_EV_REPLY && i < c->step_count; i++) {
		const struct saga_step *s = &c->steps[i];
		const struct saga_tries *tries;

		if (s->wait != SAGA_WAIT_REPLY)
			continue;
		taken.step = i;
		taken.op = (enum saga_op)s->wait_op;
		tries = taken.op == SAGA_OP_ACTION ? &s->action : &s->undo;
		taken.attempt = tries->attempts;
		taken.round = tries->round;
	}
	skald__saga_next(plan, c, &taken, NULL, now_ms, todo);
}

/* Undoes in the order in which it did. */
static void
unordered_next(const struct saga_plan *plan, struct saga_core *c,
	const struct saga_event *ev, int64_t now_ms, struct saga_dos *todo)
{
	static struct saga_plan turned;

	turned = *plan;
	for (unsigned i = 0; i < plan->step_count; i++) {
		memset(&turned.steps[i].behind, 0, sizeof(turned.steps[i].behind));
		for (unsigned j = 0; j < i; j++)
			saga_set_add(&turned.steps[i].behind, j);
	}
	skald__saga_next(&turned, c, ev, NULL, now_ms, todo);
}

/* Takes a new key after a time-out or an unknown. */
static void
rekeying_next(const struct saga_plan *plan, struct saga_core *c,
	const struct saga_event *ev, int64_t now_ms, struct saga_dos *todo)
{
	skald__saga_next(plan, c, ev, NULL, now_ms, todo);
	for (unsigned i = 0; i < c->step_count; i++) {
		struct saga_step *s = &c->steps[i];

		if (s->state != SAGA_STEP_UNKNOWN || s->wait != SAGA_WAIT_BACKOFF ||
			s->action.round_base == s->action.attempts)
			continue;
		s->action.round++;
		s->action.round_base = s->action.attempts;
	}
}

static void
report(const char *who)
{
	printf("\n    %s: %llu walks, %llu events: %llu completed, %llu failed, "
	       "%llu cancelled, %llu expired, %llu stuck; %llu effects undone, %llu "
	       "late, "
	       "%llu stale\n    broken:",
		who, (unsigned long long)world.walks, (unsigned long long)world.events,
		(unsigned long long)world.finished[SAGA_OUTCOME_COMPLETED],
		(unsigned long long)world.finished[SAGA_OUTCOME_FAILED],
		(unsigned long long)world.finished[SAGA_OUTCOME_CANCELLED],
		(unsigned long long)world.finished[SAGA_OUTCOME_EXPIRED],
		(unsigned long long)world.stuck, (unsigned long long)world.undone,
		(unsigned long long)world.late, (unsigned long long)world.stale);
	for (unsigned i = 1; i < WORLD_RULES; i++)
		printf(" I%u=%llu", i, (unsigned long long)world.broken[i]);
	printf(" endless=%llu ", (unsigned long long)world.endless);
}

static void
walk(const char *who, world_next_fn next, long count)
{
	world_begin(&world, seed);
	world.next = next;
	for (long i = 0; i < count; i++)
		(void)!world_walk(&world);
	report(who);
}

static void
the_core_keeps_every_invariant(void)
{
	walk("core", true_next, walks);
	for (unsigned i = 1; i < WORLD_RULES; i++)
		CU_ASSERT_EQUAL(world.broken[i], 0);
	CU_ASSERT_EQUAL(world.endless, 0);
	/* Each way out was walked often enough to mean something. */
	for (unsigned i = SAGA_OUTCOME_COMPLETED; i <= SAGA_OUTCOME_EXPIRED; i++)
		CU_ASSERT(world.finished[i] > (uint64_t)walks / 200);
	CU_ASSERT(world.stuck > (uint64_t)walks / 100);
	CU_ASSERT(world.undone > (uint64_t)walks / 10);
	CU_ASSERT(world.late > (uint64_t)walks / 20);
}

static void
a_twin_without_fencing_is_caught_by_I6(void)
{
	walk("no fencing", unfenced_next, TWIN_WALKS);
	CU_ASSERT(world.broken[6] > 0);
	CU_ASSERT_EQUAL(world.broken[2], 0);
}

static void
a_twin_that_undoes_out_of_order_is_caught_by_I2(void)
{
	walk("undo out of order", unordered_next, TWIN_WALKS);
	CU_ASSERT(world.broken[2] > 0);
	CU_ASSERT_EQUAL(world.broken[6], 0);
	CU_ASSERT_EQUAL(world.broken[3], 0);
}

static void
a_twin_with_a_new_key_after_unknown_is_caught_by_I3(void)
{
	walk("new key after unknown", rekeying_next, TWIN_WALKS);
	CU_ASSERT(world.broken[3] > 0);
	CU_ASSERT(world.broken[11] > 0); /* and the ledger names the doubled effects */
	CU_ASSERT_EQUAL(world.broken[2], 0);
}

int
main(int argc, char **argv)
{
	static const struct check_case cases[] = {
		CHECK(the_core_keeps_every_invariant),
		CHECK(a_twin_without_fencing_is_caught_by_I6),
		CHECK(a_twin_that_undoes_out_of_order_is_caught_by_I2),
		CHECK(a_twin_with_a_new_key_after_unknown_is_caught_by_I3),
	};
	const char *text = getenv("SKALD_SEED");

	seed = text && *text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	if (argc > 1)
		walks = strtol(argv[1], NULL, 10);
	printf("SKALD_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout);
	return check_main("unit.saga.walks", cases, CHECK_COUNT(cases));
}
