/*
 * position.h - where a record stands in its history: EEEEEEEE.PPPPPPPPPPPPPPPP.OOOOOOOO
 * (epoch, tick or LSN, ordinal), lower-case hex, so that text order is the order.
 */
#ifndef SKALD_BASE_POSITION_H
#define SKALD_BASE_POSITION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define SKALD_POSITION_TEXT_BYTES 35 /* 34 and a NUL */
#define SKALD_STREAM_TEXT_BYTES   17 /* 16 hex digits and a NUL */

struct skald_position {
	uint32_t epoch;
	uint64_t point;
	uint32_t ordinal;
};

void skald_position_format(struct skald_position p, char dst[SKALD_POSITION_TEXT_BYTES]);
bool skald_position_parse(struct skald_slice text, struct skald_position *out);

/* <0, 0, >0. Inline: pure cores compare too. */
static inline int
skald_position_compare(struct skald_position a, struct skald_position b)
{
	if (a.epoch != b.epoch)
		return a.epoch < b.epoch ? -1 : 1;
	if (a.point != b.point)
		return a.point < b.point ? -1 : 1;
	if (a.ordinal != b.ordinal)
		return a.ordinal < b.ordinal ? -1 : 1;
	return 0;
}
bool skald_stream_is_valid(struct skald_slice text);

#endif
