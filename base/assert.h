/*
 * assert.h - for our own bugs only; stays on in release.
 */
#ifndef SKALD_BASE_ASSERT_H
#define SKALD_BASE_ASSERT_H

_Noreturn void skald_assert_failed(const char *expr, const char *file, int line);

#define SKALD_ASSERT(expr) \
	((expr) ? (void)0 : skald_assert_failed(#expr, __FILE__, __LINE__))

#endif
