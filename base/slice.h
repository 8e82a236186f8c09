/*
 * slice.h - a borrowed view of bytes. Whoever hands one out says what ends it.
 */
#ifndef SKALD_BASE_SLICE_H
#define SKALD_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct skald_slice {
	const char *data; /* NULL: absent (SQL NULL, Kafka null), not the same as empty */
	size_t bytes;
};

/* clang-format off */
#define SKALD_SLICE_NULL ((struct skald_slice){ NULL, 0 })
#define SKALD_SLICE_LIT(literal) ((struct skald_slice){ (literal), sizeof(literal) - 1 })
/* clang-format on */

static inline struct skald_slice
skald_slice_make(const void *data, size_t bytes)
{
	return (struct skald_slice){ (const char *)data, bytes };
}

static inline struct skald_slice
skald_slice_text(const char *text)
{
	return text ? skald_slice_make(text, strlen(text)) : SKALD_SLICE_NULL;
}

static inline bool
skald_slice_is_equal(struct skald_slice a, struct skald_slice b)
{
	return a.bytes == b.bytes &&
	       (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
}

static inline bool
skald_slice_is_text(struct skald_slice a, const char *text)
{
	return a.data && skald_slice_is_equal(a, skald_slice_text(text));
}

/* Whole slice is a decimal int64, no white space, no plus sign. */
bool skald_slice_int64(struct skald_slice s, long long *value);

/* 0 to 15, either case; -1: no hex digit. */
int skald_hex_digit(char c);

/* Well-formed UTF-8 without NUL (RFC 3629: no surrogates, no overlong forms). */
bool skald_slice_is_utf8(struct skald_slice s);

/* Copy at most bytes-1 and terminate; returns false when it did not fit. */
bool skald_slice_copy(struct skald_slice s, char *dst, size_t dst_bytes);

#endif
