/*
 * bench.h - the little that the bench programs share. They are measured beside
 * libskald or instead of it, so all but one know nothing of it.
 */
#ifndef SKALD_TESTS_BENCH_BENCH_H
#define SKALD_TESTS_BENCH_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline int64_t
bench_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What cannot go on ends the program: a bench has nobody to return an error to. */
#define BENCH_DIE(...) \
	do { \
		fprintf(stderr, __VA_ARGS__); \
		fputc('\n', stderr); \
		exit(2); \
	} while (0)

static inline long
bench_number(const char *text, long min, long max, const char *what)
{
	char *end = NULL;
	long value = strtol(text, &end, 10);

	if (end == text || *end || value < min || value > max)
		BENCH_DIE("%s: must be %ld to %ld, is '%s'", what, min, max, text);
	return value;
}

#endif
