/*
 * torture.h - the n-th allocation of a call fails, n = 1, 2, 3...
 *
 * For tests linked with --wrap for malloc, calloc, realloc and strdup
 * (skald_torture in tests/torture). Included once a program.
 */
#ifndef SKALD_TESTS_SUPPORT_TORTURE_H
#define SKALD_TESTS_SUPPORT_TORTURE_H

#include <stdbool.h>
#include <stdlib.h>

#include "tests/support/check.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
char *__wrap_strdup(const char *text);

static long allocations_left = -1; /* -1: no limit */
static bool has_failed;

static bool
fails(void)
{
	if (allocations_left < 0 || allocations_left-- > 0)
		return false;
	allocations_left = -1; /* one failure at a time */
	has_failed = true;
	return true;
}

void *
__wrap_malloc(size_t bytes)
{
	return fails() ? NULL : __real_malloc(bytes);
}

void *
__wrap_calloc(size_t count, size_t bytes)
{
	return fails() ? NULL : __real_calloc(count, bytes);
}

void *
__wrap_realloc(void *old, size_t bytes)
{
	return fails() ? NULL : __real_realloc(old, bytes);
}

char *
__wrap_strdup(const char *text)
{
	return fails() ? NULL : __real_strdup(text);
}

/* Runs act with its n-th allocation failing, until none is left to fail. */
static void
torture(bool (*act)(void), unsigned allocations_min)
{
	unsigned n = 0;

	do {
		has_failed = false;
		allocations_left = n++;
		CU_ASSERT(act());
		allocations_left = -1;
	} while (has_failed && n < 10000);
	CU_ASSERT(n > allocations_min && n < 10000);
	has_failed = false;
	CU_ASSERT(act());
}

#endif
