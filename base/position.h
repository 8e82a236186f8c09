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
int skald_position_compare(
	struct skald_position a, struct skald_position b); /* <0, 0, >0 */
bool skald_stream_is_valid(struct skald_slice text);

#endif
