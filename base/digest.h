/*
 * digest.h - SHA-1 for derived ids, and a 64-bit hash for spreading keys.
 * Neither is for secrets.
 */
#ifndef SKALD_BASE_DIGEST_H
#define SKALD_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

#define SKALD_SHA1_BYTES 20

struct skald_sha1 {
	uint32_t state[5];
	uint64_t bytes;
	uint8_t block[64];
};

void skald_sha1_init(struct skald_sha1 *sha);
void skald_sha1_add(struct skald_sha1 *sha, const void *data, size_t bytes);
void skald_sha1_end(struct skald_sha1 *sha, uint8_t digest[SKALD_SHA1_BYTES]);

/*
 * FNV-1a over the bytes, then the finalizer of murmur3 so that the low bits are
 * good for a modulo. The same in every release: lanes are kept in databases.
 */
uint64_t skald_hash64(struct skald_slice s);

#endif
