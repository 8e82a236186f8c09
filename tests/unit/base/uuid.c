/* Test vectors of RFC 9562 (UUIDs), RFC 3174 (SHA-1), and the hash that must never change. */
#include "base/uuid.h"
#include "base/digest.h"

#include "tests/support/check.h"

static struct skald_uuid
uuid(const char *text)
{
	struct skald_uuid id = { { 0 } };

	CU_ASSERT(skald_uuid_parse(skald_slice_text(text), &id));
	return id;
}

static void
sha1_of(const char *text, unsigned times, size_t step, char hex[41])
{
	uint8_t digest[SKALD_SHA1_BYTES];
	struct skald_sha1 sha;

	skald_sha1_init(&sha);
	for (unsigned i = 0; i < times; i++)
		for (size_t at = 0; at < strlen(text); at += step) {
			size_t left = strlen(text) - at;

			skald_sha1_add(&sha, text + at, left < step ? left : step);
		}
	skald_sha1_end(&sha, digest);
	for (int i = 0; i < SKALD_SHA1_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

static void
sha1_meets_rfc_3174(void)
{
	static const struct {
		const char *text;
		unsigned times;
		const char *digest;
	} rows[] = {
		{ "abc", 1, "a9993e364706816aba3e25717850c26c9cd0d89d" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
			"84983e441c3bd26ebaae4aa1f95129e5e54670f1" },
		{ "a", 1000000, "34aa973cd4c4daa4f61eeb2bdbad27316534016f" },
		{ "0123456701234567012345670123456701234567012345670123456701234567", 10,
			"dea356a2cddd90c7a7ecedc5ebb563934f460452" },
		{ "", 1, "da39a3ee5e6b4b0d3255bfef95601890afd80709" },
	};
	char hex[41];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (size_t step = 1; step<100; step += rows[i].times> 10 ? 99 : 13) {
			sha1_of(rows[i].text, rows[i].times, step, hex);
			CHECK_TEXT(hex, rows[i].digest);
		}
}

static void
uuid_v5_meets_rfc_9562(void)
{
	char text[SKALD_UUID_TEXT_BYTES];

	skald_uuid_format(skald_uuid_v5(uuid("6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
				  SKALD_SLICE_LIT("www.example.com")),
		text);
	CHECK_TEXT(text, "2ed6657d-e927-568b-95e1-2665a8aea6a2");
}

static void
uuid_v7_meets_rfc_9562(void)
{
	char text[SKALD_UUID_TEXT_BYTES];

	skald_uuid_format(
		skald_uuid_v7(0x017F22E279B0, 0xCC3, 0x18C4DC0C0C07398Fu), text);
	CHECK_TEXT(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
	skald_uuid_format(skald_uuid_v7(0, UINT64_MAX, UINT64_MAX), text);
	CHECK_TEXT(text, "00000000-0000-7fff-bfff-ffffffffffff");
}

static void
reads_the_canonical_form_only(void)
{
	static const char *const bad[] = { "", "2ed6657de927568b95e12665a8aea6a2",
		"{2ed6657d-e927-568b-95e1-2665a8aea6a2}",
		"2ed6657d-e927-568b-95e1-2665a8aea6a",
		"2ed6657d-e927-568b-95e1-2665a8aea6ag",
		"2ed6657de-927-568b-95e1-2665a8aea6a2",
		"2ed6657d e927-568b-95e1-2665a8aea6a2",
		"2ed6657d-e927-568b-95e1-2665a8aea6a2 " };
	struct skald_uuid id = { { 7 } };
	char text[SKALD_UUID_TEXT_BYTES];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CU_ASSERT(!skald_uuid_parse(skald_slice_text(bad[i]), &id));
		CU_ASSERT(id.bytes[0] == 7); /* written on success only */
	}
	skald_uuid_format(uuid("2ED6657D-e927-568B-95e1-2665a8aea6a2"), text);
	CHECK_TEXT(text, "2ed6657d-e927-568b-95e1-2665a8aea6a2");
}

/* Lanes are kept in databases: another hash would send keys to other lanes. */
static void
hash_never_changes(void)
{
	CU_ASSERT(skald_hash64(SKALD_SLICE_LIT("")) == 0xEFD01F60BA992926u);
	CU_ASSERT(skald_hash64(SKALD_SLICE_LIT("a")) == 0x82A2A958A9BECE5Bu);
	CU_ASSERT(skald_hash64(SKALD_SLICE_LIT("order-1")) == 0x491B422E3AF0D9A5u);
	CU_ASSERT(skald_hash64(SKALD_SLICE_NULL) == skald_hash64(SKALD_SLICE_LIT("")));
}

static void
hash_spreads_keys_over_few_lanes(void)
{
	unsigned counts[4] = { 0 };

	for (int i = 0; i < 40000; i++) {
		char key[32];

		snprintf(key, sizeof(key), "customer-%d", i);
		counts[skald_hash64(skald_slice_text(key)) % 4]++;
	}
	for (int i = 0; i < 4; i++)
		CU_ASSERT(counts[i] > 9500 && counts[i] < 10500);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(sha1_meets_rfc_3174),
		CHECK(uuid_v5_meets_rfc_9562),
		CHECK(uuid_v7_meets_rfc_9562),
		CHECK(reads_the_canonical_form_only),
		CHECK(hash_never_changes),
		CHECK(hash_spreads_keys_over_few_lanes),
	};

	return check_main("unit.base.uuid", cases, CHECK_COUNT(cases));
}
