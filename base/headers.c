#include "base/headers.h"

struct skald_slice
skald_headers_get(struct skald_headers headers, const char *name)
{
	for (size_t i = headers.count; i > 0; i--)
		if (skald_slice_is_text(headers.items[i - 1].name, name))
			return headers.items[i - 1].value;
	return SKALD_SLICE_NULL;
}

size_t
skald_headers_count(struct skald_headers headers, const char *name)
{
	size_t count = 0;

	for (size_t i = 0; i < headers.count; i++)
		count += skald_slice_is_text(headers.items[i].name, name);
	return count;
}

bool
skald_header_is_reserved(struct skald_slice name)
{
	static const char *const prefixes[] = { "ce_", "x-dlq-", "x-replay-" };

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t bytes = strlen(prefixes[i]);

		if (name.bytes >= bytes && memcmp(name.data, prefixes[i], bytes) == 0)
			return true;
	}
	return skald_slice_is_text(name, SKALD_H_CONTENT_TYPE);
}
