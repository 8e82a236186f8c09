/* The state vector survives its text, and no other text is taken for one. */
#include "saga/state.h"

#include <stdlib.h>
#include <time.h>

#include "base/rand.h"
#include "tests/support/check.h"
#include "tests/unit/saga/kit.h"

static bool
is_same(const struct saga_core *a, const struct saga_core *b)
{
	struct skald_buf left, right;
	bool same;

	skald_buf_init(&left, 1 << 20);
	skald_buf_init(&right, 1 << 20);
	skald__saga_state_write(a, &left);
	skald__saga_state_write(b, &right);
	same = skald_slice_is_equal(skald_buf_slice(&left), skald_buf_slice(&right));
	skald_buf_done(&left);
	skald_buf_done(&right);
	return same && a->row_count == b->row_count &&
	       memcmp(&a->steps[0].action, &b->steps[0].action,
		       sizeof(a->steps[0].action)) == 0;
}

/* Every position, and then every event on the original and on the copy. */
static void
a_copy_behaves_like_the_original(void)
{
	static struct saga_core copy, after;

	for (int position = 0; position < POSITIONS; position++)
		for (int event = 0; event < EVENTS; event++) {
			struct skald_buf text;
			char original[512];

			skald_buf_init(&text, 1 << 20);
			go_to((enum position)position);
			skald__saga_state_write(&core, &text);
			CU_ASSERT_EQUAL(skald__saga_state_read(&copy, &plan,
						skald_buf_slice(&text), NULL),
				SKALD_OK);
			give((enum position)position, (enum event)event);
			snprintf(original, sizeof(original), "%s", look());
			after = core;
			go_to((enum position)position); /* the clock too */
			core = copy;
			give((enum position)position, (enum event)event);
			CU_ASSERT_STRING_EQUAL(look(), original);
			CU_ASSERT(is_same(&core, &after));
			skald_buf_done(&text);
		}
}

static void
it_is_small(void)
{
	struct skald_buf text;

	skald_buf_init(&text, 1 << 20);
	go_to(R_SENT);
	skald__saga_state_write(&core, &text);
	CHECK_TEXT(text.data, "1 0 0 0 0 0 -1 3 6 101000"
			      ";0 4 0 0 0 0 0 1100 1 1 0 0 0 1 0 0"
			      ";1 4 0 0 0 0 0 1100 1 1 0 0 0 1 0 0"
			      ";2 2 1 0 0 0 0 1100 1 1 0 0 0 1 0 0");
	skald_buf_done(&text);
}

static void
what_is_no_state_is_refused(void)
{
	static const char *const texts[] = { "", "1", "x",
		"2 0 0 0 0 0 -1 3 6 101000", /* a later format */
		"1 0 0 0 0 0 -1 4 6 101000", /* another plan */
		"1 4 0 0 0 0 -1 3 6 101000", "1 0 5 0 0 0 -1 3 6 101000",
		"1 0 0 0 0 0 3 3 6 101000", "1 0 0 0 0 0 -1 3 10001 101000",
		"1 0 0 0 0 0 -1 3 6 -1", "1 0 0 0 0 0 -1 3 6 101000 ",
		"1 0 0 0 0 0 -1 3 6 101000;", "1  0 0 0 0 0 -1 3 6 101000",
		"1 0 0 0 0 0 -1 3 6 9999999999999999999",
		"1 0 0 0 0 0 -1 3 6 101000;3 4 0 0 0 0 0 1100 1 1 0 0 0 1 0 0",
		"1 0 0 0 0 0 -1 3 6 101000;0 12 0 0 0 0 0 1100 1 1 0 0 0 1 0 0",
		"1 0 0 0 0 0 -1 3 6 101000;0 4 0 0 0 0 0 1100 1 0 0 0 0 1 0 0",
		"1 0 0 0 0 0 -1 3 6 101000;0 4 0 0 0 0 0 1100 1 1 2 0 0 1 0 0",
		("1 0 0 0 0 0 -1 3 6 101000;1 4 0 0 0 0 0 0 1 1 0 0 0 1 0 0"
		 ";0 4 0 0 0 0 0 0 1 1 0 0 0 1 0 0") };

	make_plan();
	for (size_t i = 0; i < CHECK_COUNT(texts); i++) {
		struct skald_err err = SKALD_ERR_INIT;

		CU_ASSERT_EQUAL(skald__saga_state_read(
					&core, &plan, skald_slice_text(texts[i]), &err),
			SKALD_REJECT);
		CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "saga state"));
	}
}

/* Bytes changed at random: refused, or a state that is written as it was read. */
static void
changed_bytes_do_no_harm(void)
{
	const char *env = getenv("SKALD_SEED");
	uint64_t seed = env && *env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);
	static struct saga_core read;
	struct skald_rand rand;
	unsigned taken = 0;

	printf("SKALD_SEED=%llu ", (unsigned long long)seed);
	skald_rand_seed(&rand, seed);
	for (int i = 0; i < 50000; i++) {
		struct skald_buf text, again;

		go_to((enum position)(1 + skald_rand_below(&rand, POSITIONS - 1)));
		skald_buf_init(&text, 1 << 20);
		skald_buf_init(&again, 1 << 20);
		skald__saga_state_write(&core, &text);
		text.data[skald_rand_below(&rand, text.bytes)] =
			"0123456789 ;-x"[skald_rand_below(&rand, 14)];
		if (skald__saga_state_read(&read, &plan, skald_buf_slice(&text), NULL) ==
			SKALD_OK) {
			skald__saga_state_write(&read, &again);
			CU_ASSERT(again.bytes > 0);
			taken++;
		}
		skald_buf_done(&text);
		skald_buf_done(&again);
	}
	CU_ASSERT(taken > 1000 && taken < 49000);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(a_copy_behaves_like_the_original),
		CHECK(it_is_small),
		CHECK(what_is_no_state_is_refused),
		CHECK(changed_bytes_do_no_harm),
	};

	return check_main("unit.saga.state", cases, CHECK_COUNT(cases));
}
