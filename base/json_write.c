/* json_write.c - the writing half of json.h. */
#include "base/json.h"

#include "base/own.h"

static void
add_escape(struct skald_buf *out, unsigned char c)
{
	static const char short_of[32] = {
		['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'
	};

	if (c < 0x20 && !short_of[c])
		skald_buf_addf(out, "\\u%04x", c);
	else
		skald_buf_addf(out, "\\%c", c < 0x20 ? short_of[c] : c);
}

void
skald_json_add_string(struct skald_buf *out, struct skald_slice text)
{
	const unsigned char *p = (const unsigned char *)text.data;
	size_t done = 0; /* what is before it is written */
	size_t i = 0;

	skald_buf_add(out, "\"", 1);
	while (i < text.bytes) {
		size_t bytes = skald__utf8_bytes(p + i, text.bytes - i);

		if (bytes && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\') {
			i += bytes;
			continue;
		}
		if (i > done)
			skald_buf_add(out, p + done, i - done);
		if (bytes)
			add_escape(out, p[i]);
		else
			skald_buf_add_text(out, "\xEF\xBF\xBD");
		done = ++i;
	}
	if (i > done)
		skald_buf_add(out, p + done, i - done);
	skald_buf_add(out, "\"", 1);
}

void
skald_json_add_name(struct skald_buf *out, const char *name)
{
	if (out->bytes && out->data[out->bytes - 1] != '{')
		skald_buf_add(out, ",", 1);
	skald_json_add_string(out, skald_slice_text(name));
	skald_buf_add(out, ":", 1);
}

void
skald_json_add_member(struct skald_buf *out, const char *name, struct skald_slice text)
{
	skald_json_add_name(out, name);
	if (text.data)
		skald_json_add_string(out, text);
	else
		skald_buf_add_text(out, "null");
}

void
skald_json_add_member_int(struct skald_buf *out, const char *name, int64_t value)
{
	skald_json_add_name(out, name);
	skald_buf_addf(out, "%lld", (long long)value);
}
