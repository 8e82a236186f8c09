#include "base/uuid.h"

#include "base/digest.h"

static void
stamp(struct skald_uuid *id, unsigned version)
{
	id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0F) | version << 4);
	id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3F) | 0x80);
}

struct skald_uuid
skald_uuid_v7(int64_t wall_ms, uint64_t rand_a, uint64_t rand_b)
{
	struct skald_uuid id;

	for (unsigned i = 0; i < 6; i++)
		id.bytes[i] = (uint8_t)((uint64_t)wall_ms >> (40 - 8 * i));
	for (unsigned i = 0; i < 2; i++)
		id.bytes[6 + i] = (uint8_t)(rand_a >> (8 - 8 * i));
	for (unsigned i = 0; i < 8; i++)
		id.bytes[8 + i] = (uint8_t)(rand_b >> (56 - 8 * i));
	stamp(&id, 7);
	return id;
}

struct skald_uuid
skald_uuid_v5(struct skald_uuid space, struct skald_slice name)
{
	uint8_t digest[SKALD_SHA1_BYTES];
	struct skald_sha1 sha;
	struct skald_uuid id;

	skald_sha1_init(&sha);
	skald_sha1_add(&sha, space.bytes, sizeof(space.bytes));
	skald_sha1_add(&sha, name.data, name.bytes);
	skald_sha1_end(&sha, digest);
	memcpy(id.bytes, digest, sizeof(id.bytes));
	stamp(&id, 5);
	return id;
}

static bool
is_dash_at(size_t i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

bool
skald_uuid_parse(struct skald_slice text, struct skald_uuid *out)
{
	struct skald_uuid id;
	unsigned byte = 0;

	if (text.bytes != SKALD_UUID_TEXT_BYTES - 1)
		return false;
	for (size_t i = 0; i < text.bytes;) {
		int high, low;

		if (is_dash_at(i)) {
			if (text.data[i++] != '-')
				return false;
			continue;
		}
		high = skald_hex_digit(text.data[i]);
		low = skald_hex_digit(text.data[i + 1]);
		if (high < 0 || low < 0)
			return false;
		id.bytes[byte++] = (uint8_t)(high << 4 | low);
		i += 2;
	}
	*out = id;
	return true;
}

void
skald_uuid_format(struct skald_uuid id, char dst[SKALD_UUID_TEXT_BYTES])
{
	static const char hex[] = "0123456789abcdef";
	size_t at = 0;

	for (unsigned i = 0; i < sizeof(id.bytes); i++) {
		if (is_dash_at(at))
			dst[at++] = '-';
		dst[at++] = hex[id.bytes[i] >> 4];
		dst[at++] = hex[id.bytes[i] & 15];
	}
	dst[at] = '\0';
}
