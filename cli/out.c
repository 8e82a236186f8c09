/*
 * out.c - colours, clean text, JSON members.
 */
#include "cli/own.h"

#include <string.h>

#include "base/clock.h"
#include "base/headers_form.h"
#include "base/json.h"

const char *
skald__paint(const struct skald__cli *cli, enum skald__paint paint)
{
	static const char *const codes[] = {
		[SKALD_PAINT_GOOD] = "\033[32m",
		[SKALD_PAINT_WARN] = "\033[33m",
		[SKALD_PAINT_BAD] = "\033[31m",
		[SKALD_PAINT_FAINT] = "\033[2m",
		[SKALD_PAINT_STRONG] = "\033[1m",
	};

	return cli->is_color ? codes[paint] : "";
}

const char *
skald__unpaint(const struct skald__cli *cli)
{
	return cli->is_color ? "\033[0m" : "";
}

void
skald__put(struct skald_slice text)
{
	if (text.bytes)
		(void)fwrite(text.data, 1, text.bytes, stdout);
}

/* --- text of others ------------------------------------------------------------------------ */

/* Bytes and code point of the character at p; 0 when it is none. */
static size_t
decode(const unsigned char *p, size_t left, uint32_t *point)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : 4;

	if (n > left || !skald_slice_is_utf8(skald_slice_make((const char *)p, n)))
		return 0;
	*point = n == 1 ? p[0] : p[0] & (0x7FU >> n);
	for (size_t i = 1; i < n; i++)
		*point = *point << 6 | (p[i] & 0x3F);
	return n;
}

/* Controls, C1 controls, and what turns the direction of writing around. */
static bool
is_steering(uint32_t point)
{
	return point < 0x20 || (point >= 0x7F && point < 0xA0) ||
	       (point >= 0x200B && point <= 0x200F) ||
	       (point >= 0x2028 && point <= 0x202E) ||
	       (point >= 0x2066 && point <= 0x2069) || point == 0xFEFF;
}

void
skald__add_clean(struct skald_buf *buf, struct skald_slice text)
{
	const unsigned char *p = (const unsigned char *)text.data;

	for (size_t at = 0; at < text.bytes;) {
		uint32_t point = 0;
		size_t n = decode(p + at, text.bytes - at, &point);

		if (!n || (n == 1 && p[at] == 0)) {
			skald_buf_addf(buf, "\\x%02x", p[at]);
			n = 1;
		} else if (point == '\n') {
			skald_buf_add_text(buf, "\\n");
		} else if (is_steering(point)) {
			skald_buf_addf(buf, n == 1 ? "\\x%02x" : "\\u%04x", point);
		} else {
			skald_buf_add(buf, p + at, n);
		}
		at += n;
	}
}

/* East Asian wide characters and emoji take two columns. */
static unsigned
columns_of_point(uint32_t point)
{
	if (point >= 0x300 && point <= 0x36F)
		return 0; /* combining */
	if ((point >= 0x1100 && point <= 0x115F) ||
		(point >= 0x2E80 && point <= 0xA4CF) ||
		(point >= 0xAC00 && point <= 0xD7A3) ||
		(point >= 0xF900 && point <= 0xFAFF) ||
		(point >= 0xFE30 && point <= 0xFE6F) ||
		(point >= 0xFF00 && point <= 0xFF60) ||
		(point >= 0x1F300 && point <= 0x1FAFF) ||
		(point >= 0x20000 && point <= 0x3FFFD))
		return 2;
	return 1;
}

unsigned
skald__columns_of(struct skald_slice text)
{
	const unsigned char *p = (const unsigned char *)text.data;
	unsigned columns = 0;

	for (size_t at = 0; at < text.bytes;) {
		uint32_t point = 0;
		size_t n = decode(p + at, text.bytes - at, &point);

		columns += n ? columns_of_point(point) : 1;
		at += n ? n : 1;
	}
	return columns;
}

void
skald__add_cut(struct skald_buf *buf, struct skald_slice clean, unsigned columns)
{
	const unsigned char *p = (const unsigned char *)clean.data;
	unsigned used = 0;

	if (skald__columns_of(clean) <= columns) {
		skald_buf_add_slice(buf, clean);
		return;
	}
	for (size_t at = 0; at < clean.bytes;) {
		uint32_t point = 0;
		size_t n = decode(p + at, clean.bytes - at, &point);
		unsigned wide = n ? columns_of_point(point) : 1;

		if (used + wide + 1 > columns)
			break;
		skald_buf_add(buf, p + at, n ? n : 1);
		used += wide;
		at += n ? n : 1;
	}
	skald_buf_add_text(buf, "…");
	for (used++; used < columns; used++) /* a wide one did not fit */
		skald_buf_add_text(buf, " ");
}

void
skald__age(struct skald_slice time, char *dst, size_t dst_bytes)
{
	int64_t at_us;
	long long s;

	if (!time.data || !skald_time_parse(time, &at_us)) {
		(void)snprintf(dst, dst_bytes, "-");
		return;
	}
	s = (skald_wall_us() - at_us) / 1000000;
	if (s < 0)
		s = 0; /* their clock is ahead of ours */
	if (s < 120)
		(void)snprintf(dst, dst_bytes, "%llds", s);
	else if (s < 7200)
		(void)snprintf(dst, dst_bytes, "%lldm", s / 60);
	else if (s < 2 * 86400)
		(void)snprintf(dst, dst_bytes, "%lldh", s / 3600);
	else
		(void)snprintf(dst, dst_bytes, "%lldd", s / 86400);
}

void
skald__size(int64_t bytes, char *dst, size_t dst_bytes)
{
	static const char units[] = "BKMGTP";
	int64_t tenths = bytes > INT64_MAX / 10 ? INT64_MAX : bytes * 10;
	unsigned unit = 0;

	while (tenths >= 10240 && units[unit + 1]) {
		tenths /= 1024;
		unit++;
	}
	if (unit && tenths < 100)
		(void)snprintf(dst, dst_bytes, "%d.%d%c", (int)(tenths / 10),
			(int)(tenths % 10), units[unit]);
	else
		(void)snprintf(
			dst, dst_bytes, "%lld%c", (long long)(tenths / 10), units[unit]);
}

/* --- JSON -------------------------------------------------------------------------------------- */

static unsigned
digit_of(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10);
}

void
skald__add_unhex(struct skald_buf *buf, struct skald_slice hex)
{
	for (size_t i = 0; i + 1 < hex.bytes; i += 2) {
		char byte =
			(char)(digit_of(hex.data[i]) << 4 | digit_of(hex.data[i + 1]));

		skald_buf_add(buf, &byte, 1);
	}
}

void
skald__json_add(struct skald_buf *buf, const char *name, struct skald_slice text)
{
	char base64_name[64];

	if (!text.data) {
		skald_json_add_name(buf, name);
		skald_buf_add_text(buf, "null");
		return;
	}
	if (skald_slice_is_utf8(text)) {
		skald_json_add_member(buf, name, text);
		return;
	}
	(void)snprintf(base64_name, sizeof(base64_name), "%s_base64", name);
	skald_json_add_name(buf, base64_name);
	skald_buf_add_text(buf, "\"");
	skald_base64_add(buf, text);
	skald_buf_add_text(buf, "\"");
}

void
skald__json_add_raw(struct skald_buf *buf, const char *name, struct skald_slice raw)
{
	skald_json_add_name(buf, name);
	if (raw.data)
		skald_buf_add_slice(buf, raw);
	else
		skald_buf_add_text(buf, "null");
}
