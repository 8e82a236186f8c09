/*
 * uuid.h - RFC 9562: version 7 (time-ordered) and version 5 (derived).
 */
#ifndef SKALD_BASE_UUID_H
#define SKALD_BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define SKALD_UUID_TEXT_BYTES 37 /* 36 and a NUL */

struct skald_uuid {
	uint8_t bytes[16];
};

struct skald_uuid skald_uuid_v7(int64_t wall_ms, uint64_t rand_a, uint64_t rand_b);
struct skald_uuid skald_uuid_v5(struct skald_uuid space, struct skald_slice name);
bool skald_uuid_parse(
	struct skald_slice text, struct skald_uuid *out); /* canonical form only */
void skald_uuid_format(struct skald_uuid id, char dst[SKALD_UUID_TEXT_BYTES]);

#endif
