/*
 * unit.broker.partition - a key's partition is the one Java's clients choose.
 * The hashes are those of Kafka's own test, UtilsTest.testMurmur2.
 */
#include "broker/broker.h"

#include "tests/support/check.h"

static void
hashes_as_java(void)
{
	static const struct {
		const char *key;
		int32_t hash;
	} rows[] = {
		{ "21", -973932308 },
		{ "foobar", -790332482 },
		{ "a-little-bit-long-string", -985981536 },
		{ "a-little-bit-longer-string", -1486304829 },
		{ "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971 },
		{ "abc", 479470107 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CU_ASSERT_EQUAL((int32_t)skald_murmur2(skald_slice_text(rows[i].key)),
			rows[i].hash);
}

static void
places_as_java(void)
{
	/* toPositive(hash) % count, the sign bit cut off, not negated */
	CU_ASSERT_EQUAL(skald_partition_of(SKALD_SLICE_LIT("21"), 8),
		(-973932308 & 0x7fffffff) % 8);
	CU_ASSERT_EQUAL(skald_partition_of(SKALD_SLICE_LIT("abc"), 1000), 107);
	CU_ASSERT_EQUAL(skald_partition_of(SKALD_SLICE_LIT("foobar"), 1), 0);
}

static void
stays_in_range(void)
{
	char key[40];
	unsigned used[7] = { 0 };

	for (int i = 0; i < 7000; i++) {
		int bytes = snprintf(key, sizeof(key), "order-%d", i);
		int32_t p = skald_partition_of(skald_slice_make(key, (size_t)bytes), 7);

		CU_ASSERT(p >= 0 && p < 7);
		if (p >= 0 && p < 7)
			used[p]++;
	}
	for (int p = 0; p < 7; p++)
		CU_ASSERT(used[p] > 800 && used[p] < 1200);
}

static void
takes_any_bytes(void)
{
	static const char zeros[3] = { 0, 0, 0 };
	static const char high[4] = { (char)0xff, (char)0xfe, (char)0x80, (char)0x81 };

	/* empty and absent keys hash alike; length counts, so does each byte's sign */
	CU_ASSERT_EQUAL(skald_murmur2(SKALD_SLICE_LIT("")), 275646681);
	CU_ASSERT_EQUAL(skald_murmur2(SKALD_SLICE_NULL), 275646681);
	CU_ASSERT_NOT_EQUAL(skald_murmur2(skald_slice_make(zeros, 3)),
		skald_murmur2(skald_slice_make(zeros, 2)));
	CU_ASSERT_NOT_EQUAL(skald_murmur2(skald_slice_make(high, 4)),
		skald_murmur2(skald_slice_make(high, 3)));
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(hashes_as_java),
		CHECK(places_as_java),
		CHECK(stays_in_range),
		CHECK(takes_any_bytes),
	};

	return check_main("unit.broker.partition", cases, CHECK_COUNT(cases));
}
