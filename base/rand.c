#include "base/rand.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"

static uint64_t
splitmix(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

void
skald_rand_seed(struct skald_rand *r, uint64_t seed)
{
	for (unsigned i = 0; i < 4; i++)
		r->s[i] = splitmix(&seed);
}

void
skald_rand_init(struct skald_rand *r)
{
	/*
	 * One seed, but each generator of the process its own sequence: two
	 * loops that draw the same ids would be a bug that only seeds show.
	 */
	static atomic_uint made;
	const char *text = getenv("SKALD_SEED");
	uint64_t seed;

	if (text && text[0]) {
		char *end;

		seed = strtoull(text, &end, 0);
		if (*end)
			seed = skald_hash64(skald_slice_text(text));
		seed += (uint64_t)atomic_fetch_add(&made, 1) << 32;
		skald_rand_seed(r, seed);
		return;
	}
	if (getrandom(r->s, sizeof(r->s), 0) == (ssize_t)sizeof(r->s))
		return;
	skald_rand_seed(r, (uint64_t)skald_wall_us() ^ (uint64_t)getpid() << 40 ^
				   (uint64_t)(uintptr_t)r);
}

static uint64_t
rotate(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

uint64_t
skald_rand_next(struct skald_rand *r)
{
	uint64_t result = rotate(r->s[1] * 5, 7) * 9;
	uint64_t t = r->s[1] << 17;

	r->s[2] ^= r->s[0];
	r->s[3] ^= r->s[1];
	r->s[1] ^= r->s[2];
	r->s[0] ^= r->s[3];
	r->s[2] ^= t;
	r->s[3] = rotate(r->s[3], 45);
	return result;
}

uint64_t
skald_rand_below(struct skald_rand *r, uint64_t limit)
{
	uint64_t value, reject_below;

	if (!limit)
		return 0;
	reject_below = (UINT64_MAX - limit + 1) % limit; /* 2^64 mod limit: no bias */
	do
		value = skald_rand_next(r);
	while (value < reject_below);
	return value % limit;
}

int64_t
skald_backoff_ms(struct skald_rand *r, unsigned attempt, int64_t base_ms, int64_t max_ms)
{
	int64_t high = base_ms;

	if (base_ms <= 0 || max_ms <= 0)
		return 0;
	while (attempt-- > 0 && high < max_ms)
		high = high > max_ms / 2 ? max_ms : high * 2;
	if (high > max_ms)
		high = max_ms;
	return (int64_t)skald_rand_below(r, (uint64_t)high + 1);
}
