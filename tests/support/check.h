/*
 * check.h - CUnit with an honest exit status: CU_basic_run_tests() returns
 * success when tests fail, so main asks for the failures itself.
 *
 *	static void refuses_depth(void) { CU_ASSERT(...); }
 *	int main(void)
 *	{
 *		static const struct check_case cases[] = { CHECK(refuses_depth) };
 *		return check_main("unit.base.json", cases, CHECK_COUNT(cases));
 *	}
 *
 * SKALD_CASE=refuses_depth in the environment runs that one alone.
 */
#ifndef SKALD_TESTS_SUPPORT_CHECK_H
#define SKALD_TESTS_SUPPORT_CHECK_H

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long to wait for something that took `ms` at worst: SKALD_PATIENCE=3 triples it. */
static inline long
check_patience_ms(long ms)
{
	const char *given = getenv("SKALD_PATIENCE");
	double factor = given ? strtod(given, NULL) : 1;

	return (long)((double)ms * (factor > 0 ? factor : 1));
}

struct check_case {
	const char *name;
	void (*run)(void);
};

#define CHECK(function) \
	{ \
#function, function \
	}
#define CHECK_COUNT(cases) (sizeof(cases) / sizeof((cases)[0]))

/* Two texts are equal; prints both when not. */
#define CHECK_TEXT(actual, expected) \
	do { \
		const char *a_ = (actual), *e_ = (expected); \
		int same_ = a_ && e_ && strcmp(a_, e_) == 0; \
		if (!same_) \
			printf("\n    got      %s\n    expected %s", a_ ? a_ : "(null)", \
				e_ ? e_ : "(null)"); \
		CU_ASSERT(same_); \
	} while (0)

static inline int
check_main(const char *name, const struct check_case *cases, size_t count)
{
	const char *only = getenv("SKALD_CASE");
	size_t added = 0;
	CU_pSuite suite;

	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	suite = CU_add_suite(name, NULL, NULL);
	for (size_t i = 0; suite && i < count; i++) {
		if (only && strcmp(only, cases[i].name) != 0)
			continue;
		if (!CU_add_test(suite, cases[i].name, cases[i].run))
			suite = NULL;
		added++;
	}
	if (!suite || !added)
		return 1;
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	return CU_get_number_of_failures() || CU_get_number_of_tests_run() != added;
}

#endif
