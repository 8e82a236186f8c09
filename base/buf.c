#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST_ROOM_BYTES = 64 };

void
skald_buf_init(struct skald_buf *buf, size_t max_bytes)
{
	/* One byte is the NUL's. */
	*buf = (struct skald_buf){ .max_bytes = max_bytes < SIZE_MAX ? max_bytes
								     : SIZE_MAX - 1 };
}

void
skald_buf_done(struct skald_buf *buf)
{
	free(buf->data);
	*buf = (struct skald_buf){ .max_bytes = buf->max_bytes };
}

void
skald_buf_clear(struct skald_buf *buf)
{
	buf->bytes = 0;
	buf->failed = false;
	if (buf->data)
		buf->data[0] = '\0';
}

/* Room for more bytes and the NUL; once failed, always failed: no holes in the text. */
static bool
reserve(struct skald_buf *buf, size_t more)
{
	size_t need, room;
	char *data;

	if (buf->failed)
		return false;
	if (more > buf->max_bytes - buf->bytes) {
		buf->failed = true;
		return false;
	}
	need = buf->bytes + more + 1;
	if (need <= buf->room_bytes)
		return true;
	room = buf->room_bytes ? buf->room_bytes : FIRST_ROOM_BYTES;
	while (room < need)
		room = room > SIZE_MAX / 2 ? need : room * 2;
	if (room > buf->max_bytes + 1)
		room = buf->max_bytes + 1;
	data = realloc(buf->data, room);
	if (!data) {
		buf->failed = true;
		return false;
	}
	buf->data = data;
	buf->room_bytes = room;
	return true;
}

void
skald_buf_add(struct skald_buf *buf, const void *data, size_t bytes)
{
	if (!reserve(buf, bytes))
		return;
	if (bytes)
		memcpy(buf->data + buf->bytes, data, bytes);
	buf->bytes += bytes;
	buf->data[buf->bytes] = '\0';
}

void
skald_buf_add_slice(struct skald_buf *buf, struct skald_slice s)
{
	skald_buf_add(buf, s.data, s.bytes);
}

void
skald_buf_add_text(struct skald_buf *buf, const char *text)
{
	skald_buf_add(buf, text, strlen(text));
}

void
skald_buf_addf(struct skald_buf *buf, const char *fmt, ...)
{
	va_list args, again;
	int n;

	va_start(args, fmt);
	va_copy(again, args);
	n = vsnprintf(NULL, 0, fmt, args);
	if (n < 0)
		buf->failed = true;
	else if (reserve(buf, (size_t)n)) {
		vsnprintf(buf->data + buf->bytes, (size_t)n + 1, fmt, again);
		buf->bytes += (size_t)n;
	}
	va_end(again);
	va_end(args);
}
