#include "base/slice.h"

#include <limits.h>
#include <stdint.h>

#include "base/own.h"

bool
skald_slice_int64(struct skald_slice s, long long *value)
{
	bool negative = s.bytes > 0 && s.data[0] == '-';
	size_t i = negative ? 1 : 0;
	long long n = 0; /* kept negative: LLONG_MIN has no positive twin */

	if (i == s.bytes)
		return false;
	for (; i < s.bytes; i++) {
		int digit = s.data[i] - '0';

		if (digit < 0 || digit > 9)
			return false;
		if (n < (LLONG_MIN + digit) / 10)
			return false;
		n = n * 10 - digit;
	}
	if (!negative && n == LLONG_MIN)
		return false;
	*value = negative ? n : -n;
	return true;
}

size_t
skald__utf8_bytes(const unsigned char *p, size_t left)
{
	unsigned char low = 0x80, high = 0xBF;
	size_t bytes;

	if (p[0] < 0x80)
		return p[0] ? 1 : 0;
	if (p[0] < 0xC2 || p[0] > 0xF4)
		return 0;
	bytes = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
	if (p[0] == 0xE0)
		low = 0xA0;
	else if (p[0] == 0xED)
		high = 0x9F;
	else if (p[0] == 0xF0)
		low = 0x90;
	else if (p[0] == 0xF4)
		high = 0x8F;
	if (bytes > left || p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < bytes; i++)
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	return bytes;
}

/* Eight bytes of ASCII, none of them NUL: what nearly every text consists of. */
static bool
is_ascii8(const unsigned char *p)
{
	const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
	uint64_t word;

	memcpy(&word, p, sizeof(word));
	/* without high bits, word - ones borrows into a high bit where a byte is 0 */
	return !((word | (word - ones)) & highs);
}

bool
skald_slice_is_utf8(struct skald_slice s)
{
	const unsigned char *p = (const unsigned char *)s.data;
	size_t i = 0, bytes;

	while (i < s.bytes) {
		if (s.bytes - i >= 8 && is_ascii8(p + i))
			bytes = 8;
		else
			bytes = skald__utf8_bytes(p + i, s.bytes - i);
		if (!bytes)
			return false;
		i += bytes;
	}
	return true;
}

bool
skald_slice_copy(struct skald_slice s, char *dst, size_t dst_bytes)
{
	size_t bytes = s.bytes;

	if (!dst_bytes)
		return false;
	if (bytes > dst_bytes - 1)
		bytes = dst_bytes - 1;
	if (bytes)
		memcpy(dst, s.data, bytes);
	dst[bytes] = '\0';
	return bytes == s.bytes;
}

int
skald_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}
