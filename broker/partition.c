/*
 * partition.c - Java's default partitioner.
 *
 * Computed here, not by librdkafka, so that a re-send lands where the first went
 * whatever client and setting sends it, and so that Java, Python and C producers
 * of the same topic agree on a key's partition.
 */
#include "broker/broker.h"

#include "base/assert.h"

uint32_t
skald_murmur2(struct skald_slice key)
{
	const uint32_t m = 0x5bd1e995;
	const unsigned char *p = (const unsigned char *)key.data;
	size_t left = key.bytes;
	uint32_t h = 0x9747b28cU ^ (uint32_t)key.bytes;

	for (; left >= 4; p += 4, left -= 4) {
		uint32_t k = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
			     (uint32_t)p[3] << 24;

		k *= m;
		k ^= k >> 24;
		k *= m;
		h *= m;
		h ^= k;
	}
	if (left >= 3)
		h ^= (uint32_t)p[2] << 16;
	if (left >= 2)
		h ^= (uint32_t)p[1] << 8;
	if (left >= 1) {
		h ^= p[0];
		h *= m;
	}
	h ^= h >> 13;
	h *= m;
	h ^= h >> 15;
	return h;
}

int32_t
skald_partition_of(struct skald_slice key, int32_t partition_count)
{
	SKALD_ASSERT(partition_count > 0);
	return (int32_t)(skald_murmur2(key) & 0x7fffffffU) % partition_count;
}
