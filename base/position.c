#include "base/position.h"

static const char hex[] = "0123456789abcdef";

static char *
put_hex(char *dst, uint64_t value, unsigned digits)
{
	for (unsigned i = 0; i < digits; i++)
		dst[i] = hex[(value >> (4 * (digits - 1 - i))) & 15];
	return dst + digits;
}

static bool
get_hex(const char *src, unsigned digits, uint64_t *value)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < digits; i++) {
		char c = src[i];

		if (c >= '0' && c <= '9')
			n = n << 4 | (unsigned)(c - '0');
		else if (c >= 'a' && c <= 'f')
			n = n << 4 | (unsigned)(c - 'a' + 10);
		else
			return false;
	}
	*value = n;
	return true;
}

void
skald_position_format(struct skald_position p, char dst[SKALD_POSITION_TEXT_BYTES])
{
	dst = put_hex(dst, p.epoch, 8);
	*dst++ = '.';
	dst = put_hex(dst, p.point, 16);
	*dst++ = '.';
	dst = put_hex(dst, p.ordinal, 8);
	*dst = '\0';
}

bool
skald_position_parse(struct skald_slice text, struct skald_position *out)
{
	uint64_t epoch, point, ordinal;

	if (text.bytes != SKALD_POSITION_TEXT_BYTES - 1 || text.data[8] != '.' ||
		text.data[25] != '.' || !get_hex(text.data, 8, &epoch) ||
		!get_hex(text.data + 9, 16, &point) ||
		!get_hex(text.data + 26, 8, &ordinal))
		return false;
	out->epoch = (uint32_t)epoch;
	out->point = point;
	out->ordinal = (uint32_t)ordinal;
	return true;
}

bool
skald_stream_is_valid(struct skald_slice text)
{
	uint64_t ignored;

	return text.bytes == SKALD_STREAM_TEXT_BYTES - 1 &&
	       get_hex(text.data, 16, &ignored);
}
