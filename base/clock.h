/*
 * clock.h - monotonic for durations, wall for stamps; RFC 3339 in UTC.
 */
#ifndef SKALD_BASE_CLOCK_H
#define SKALD_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define SKALD_TIME_TEXT_BYTES 28 /* 2026-11-20T12:34:56.123456Z and a NUL */

int64_t skald_mono_ms(void);
int64_t skald_mono_us(void);
int64_t skald_wall_us(void); /* since 1970 */

void skald_time_format(int64_t wall_us, char dst[SKALD_TIME_TEXT_BYTES]);
/* Any RFC 3339 offset and fraction; digits beyond microseconds are cut. */
bool skald_time_parse(struct skald_slice text, int64_t *wall_us);

/* "150ms" "10s" "5m" "2h" "7d", or "0"; whole numbers only. */
bool skald_duration_parse(struct skald_slice text, int64_t *ms);
void skald_duration_format(
	int64_t ms, char *dst, unsigned long dst_bytes); /* largest exact unit */

#endif
