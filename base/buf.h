/*
 * buf.h - a growing byte buffer with a limit.
 *
 * Appending past the limit or without memory sets `failed` and drops the
 * bytes, so a caller appends without checks and looks once at the end.
 */
#ifndef SKALD_BASE_BUF_H
#define SKALD_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/rc.h"
#include "base/slice.h"

struct skald_buf {
	char *data; /* always terminated by a NUL that is not counted, once non-NULL */
	size_t bytes;
	size_t room_bytes; /* allocated */
	size_t max_bytes;
	bool failed;
};

void skald_buf_init(struct skald_buf *buf, size_t max_bytes);
void skald_buf_done(struct skald_buf *buf);
void skald_buf_clear(struct skald_buf *buf); /* keeps the memory, forgets `failed` */

void skald_buf_add(struct skald_buf *buf, const void *data, size_t bytes);
void skald_buf_add_slice(struct skald_buf *buf, struct skald_slice s);
void skald_buf_add_text(struct skald_buf *buf, const char *text);
void skald_buf_addf(struct skald_buf *buf, const char *fmt, ...) SKALD_PRINTF(2, 3);

static inline struct skald_slice
skald_buf_slice(const struct skald_buf *buf)
{
	return skald_slice_make(buf->data ? buf->data : "", buf->bytes);
}

#endif
