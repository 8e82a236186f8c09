/*
 * rand.h - random numbers by an explicit generator. Seeded from SKALD_SEED if
 * set, else from the kernel; for jitter, ids of traces and tests, not secrets.
 */
#ifndef SKALD_BASE_RAND_H
#define SKALD_BASE_RAND_H

#include <stdint.h>

struct skald_rand {
	uint64_t s[4]; /* xoshiro256** by Blackman and Vigna */
};

void skald_rand_init(struct skald_rand *r);
void skald_rand_seed(struct skald_rand *r, uint64_t seed);
uint64_t skald_rand_next(struct skald_rand *r);
uint64_t skald_rand_below(struct skald_rand *r, uint64_t limit); /* limit 0: returns 0 */

/* Full jitter: uniform in [0, min(max, base * 2^attempt)], attempt from 0. */
int64_t skald_backoff_ms(
	struct skald_rand *r, unsigned attempt, int64_t base_ms, int64_t max_ms);

#endif
