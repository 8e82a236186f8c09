#include "base/digest.h"

static uint32_t
rotate(uint32_t x, unsigned n)
{
	return x << n | x >> (32 - n);
}

static void
take_block(uint32_t state[5], const uint8_t block[64])
{
	uint32_t w[80];
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];

	for (unsigned i = 0; i < 16; i++)
		w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
		       (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
	for (unsigned i = 16; i < 80; i++)
		w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	for (unsigned i = 0; i < 80; i++) {
		uint32_t f, k, t;

		if (i < 20) {
			f = (b & c) | (~b & d);
			k = 0x5A827999;
		} else if (i < 40) {
			f = b ^ c ^ d;
			k = 0x6ED9EBA1;
		} else if (i < 60) {
			f = (b & c) | (b & d) | (c & d);
			k = 0x8F1BBCDC;
		} else {
			f = b ^ c ^ d;
			k = 0xCA62C1D6;
		}
		t = rotate(a, 5) + f + e + k + w[i];
		e = d;
		d = c;
		c = rotate(b, 30);
		b = a;
		a = t;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
}

void
skald_sha1_init(struct skald_sha1 *sha)
{
	*sha = (struct skald_sha1){
		.state = { 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0 },
	};
}

void
skald_sha1_add(struct skald_sha1 *sha, const void *data, size_t bytes)
{
	const uint8_t *p = data;

	while (bytes) {
		size_t used = sha->bytes % 64;
		size_t part = 64 - used < bytes ? 64 - used : bytes;

		memcpy(sha->block + used, p, part);
		sha->bytes += part;
		p += part;
		bytes -= part;
		if (used + part == 64)
			take_block(sha->state, sha->block);
	}
}

void
skald_sha1_end(struct skald_sha1 *sha, uint8_t digest[SKALD_SHA1_BYTES])
{
	static const uint8_t padding[64] = { 0x80 };
	uint64_t bits = sha->bytes * 8;
	uint8_t length[8];

	for (unsigned i = 0; i < 8; i++)
		length[i] = (uint8_t)(bits >> (56 - 8 * i));
	skald_sha1_add(sha, padding, 1 + (119 - sha->bytes % 64) % 64);
	skald_sha1_add(sha, length, sizeof(length));
	for (unsigned i = 0; i < SKALD_SHA1_BYTES; i++)
		digest[i] = (uint8_t)(sha->state[i / 4] >> (24 - 8 * (i % 4)));
}

uint64_t
skald_hash64(struct skald_slice s)
{
	uint64_t h = 0xCBF29CE484222325u;

	for (size_t i = 0; i < s.bytes; i++) {
		h ^= (uint8_t)s.data[i];
		h *= 0x100000001B3u;
	}
	h ^= h >> 33;
	h *= 0xFF51AFD7ED558CCDu;
	h ^= h >> 33;
	h *= 0xC4CEB9FE1A85EC53u;
	h ^= h >> 33;
	return h;
}
