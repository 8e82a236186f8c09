/* Clock and random numbers. */
#include "base/clock.h"
#include "base/rand.h"

#include <stdlib.h>
#include <time.h>

#include "tests/support/check.h"

#define SECOND 1000000LL

static void
formats_rfc3339(void)
{
	static const struct {
		int64_t us;
		const char *text;
	} rows[] = {
		{ 0, "1970-01-01T00:00:00.000000Z" },
		{ -1, "1969-12-31T23:59:59.999999Z" },
		{ 951782400 * SECOND, "2000-02-29T00:00:00.000000Z" },
		{ 951868799 * SECOND + 999999, "2000-02-29T23:59:59.999999Z" },
		{ 951868800 * SECOND, "2000-03-01T00:00:00.000000Z" },
		{ 4107542399 * SECOND, "2100-02-28T23:59:59.000000Z" },
		{ 4107542400 * SECOND, "2100-03-01T00:00:00.000000Z" },
		{ 253402300799 * SECOND, "9999-12-31T23:59:59.000000Z" },
	};
	char text[SKALD_TIME_TEXT_BYTES];
	int64_t back;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		skald_time_format(rows[i].us, text);
		CHECK_TEXT(text, rows[i].text);
		CU_ASSERT(skald_time_parse(skald_slice_text(text), &back));
		CU_ASSERT(back == rows[i].us);
	}
	skald_time_format(INT64_MAX, text); /* beyond four digits: the last day */
	CU_ASSERT(strncmp(text, "9999-12-31T", 11) == 0);
	skald_time_format(INT64_MIN, text);
	CU_ASSERT(strncmp(text, "0000-01-01T", 11) == 0);
}

/* Our calendar against the C library's. */
static void
agrees_with_gmtime(void)
{
	struct skald_rand r;

	skald_rand_seed(&r, 1);
	for (int i = 0; i < 20000; i++) {
		int64_t seconds =
			(int64_t)skald_rand_below(&r, 315569520000u) - 62167219200;
		time_t t = (time_t)seconds;
		char ours[SKALD_TIME_TEXT_BYTES], theirs[64];
		struct tm tm;

		gmtime_r(&t, &tm);
		snprintf(theirs, sizeof(theirs), "%04d-%02d-%02dT%02d:%02d:%02d.000000Z",
			tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
			tm.tm_min, tm.tm_sec);
		skald_time_format(seconds * SECOND, ours);
		if (strcmp(ours, theirs) != 0)
			CHECK_TEXT(ours, theirs);
	}
}

static void
parses_offsets_and_fractions(void)
{
	static const struct {
		const char *text;
		bool ok;
		int64_t us;
	} rows[] = {
		{ "2026-11-20T12:34:56Z", true, 1795178096 * SECOND },
		{ "2026-11-20t12:34:56z", true, 1795178096 * SECOND },
		{ "2026-11-20 12:34:56Z", true, 1795178096 * SECOND },
		{ "2026-11-20T14:04:56+01:30", true, 1795178096 * SECOND },
		{ "2026-11-20T04:34:56-08:00", true, 1795178096 * SECOND },
		{ "2026-11-20T12:34:56.5Z", true, 1795178096 * SECOND + 500000 },
		{ "2026-11-20T12:34:56.1234569Z", true, 1795178096 * SECOND + 123456 },
		{ "2016-12-31T23:59:60Z", true, 1483228800 * SECOND },
		{ "2017-01-01T00:59:60+01:00", true, 1483228800 * SECOND },
		{ "2016-12-31T22:59:60Z", false, 0 },
		{ "2026-11-20T12:34:56", false, 0 },
		{ "2026-11-20T12:34Z", false, 0 },
		{ "2026-11-20", false, 0 },
		{ "2026-11-20T12:34:56.Z", false, 0 },
		{ "2026-13-20T12:34:56Z", false, 0 },
		{ "2026-00-20T12:34:56Z", false, 0 },
		{ "2025-02-29T12:34:56Z", false, 0 },
		{ "2100-02-29T12:34:56Z", false, 0 },
		{ "2026-04-31T12:34:56Z", false, 0 },
		{ "2026-11-20T24:00:00Z", false, 0 },
		{ "2026-11-20T12:60:00Z", false, 0 },
		{ "2026-11-20T12:34:56+24:00", false, 0 },
		{ "2026-11-20T12:34:56+0130", false, 0 },
		{ "2026-11-20T12:34:56Zx", false, 0 },
		{ "26-11-20T12:34:56Z", false, 0 },
		{ "", false, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t us = 42;
		bool ok = skald_time_parse(skald_slice_text(rows[i].text), &us);

		if (ok != rows[i].ok || us != (ok ? rows[i].us : 42))
			CU_FAIL(rows[i].text);
	}
}

static void
parses_durations(void)
{
	static const struct {
		const char *text;
		int64_t ms; /* -1: refused */
		const char *formatted;
	} rows[] = {
		{ "0", 0, "0" },
		{ "0s", 0, "0" },
		{ "150ms", 150, "150ms" },
		{ "10s", 10000, "10s" },
		{ "5m", 300000, "5m" },
		{ "2h", 7200000, "2h" },
		{ "7d", 604800000, "7d" },
		{ "1500ms", 1500, "1500ms" },
		{ "60s", 60000, "1m" },
		{ "48h", 172800000, "2d" },
		{ "10", -1, "" },
		{ "", -1, "" },
		{ "s", -1, "" },
		{ "-1s", -1, "" },
		{ "1.5s", -1, "" },
		{ "1 s", -1, "" },
		{ "1S", -1, "" },
		{ "1w", -1, "" },
		{ "1us", -1, "" },
		{ "99999999999999999999s", -1, "" },
		{ "9223372036854775807ms", INT64_MAX, "9223372036854775807ms" },
		{ "9223372036854775807s", -1, "" },
		{ "106751991168d", -1, "" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int64_t ms = -1;
		char text[32];

		if (!skald_duration_parse(skald_slice_text(rows[i].text), &ms))
			ms = -1;
		if (ms != rows[i].ms)
			CU_FAIL(rows[i].text);
		if (ms < 0)
			continue;
		skald_duration_format(ms, text, sizeof(text));
		CHECK_TEXT(text, rows[i].formatted);
	}
}

static void
clocks_run(void)
{
	int64_t before = skald_mono_us(), wall = skald_wall_us();

	CU_ASSERT(skald_mono_us() >= before);
	CU_ASSERT(skald_mono_ms() >= before / 1000);
	CU_ASSERT(wall > 1700000000 * SECOND); /* after 2023 */
}

static void
repeats_a_seed_but_not_a_generator(void)
{
	struct skald_rand a, b, c;

	skald_rand_seed(&a, 7);
	skald_rand_seed(&b, 7);
	CU_ASSERT(skald_rand_next(&a) == skald_rand_next(&b));
	setenv("SKALD_SEED", "7", 1);
	skald_rand_init(&a);
	skald_rand_init(&b);
	CU_ASSERT(skald_rand_next(&a) != skald_rand_next(&b));
	setenv("SKALD_SEED", "not a number", 1);
	skald_rand_init(&a);
	unsetenv("SKALD_SEED");
	skald_rand_init(&b);
	skald_rand_init(&c);
	CU_ASSERT(skald_rand_next(&b) != skald_rand_next(&c));
}

static void
draws_below_without_favour(void)
{
	struct skald_rand r;
	unsigned counts[7] = { 0 };

	skald_rand_seed(&r, 99);
	for (int i = 0; i < 70000; i++)
		counts[skald_rand_below(&r, 7)]++;
	for (int i = 0; i < 7; i++)
		CU_ASSERT(counts[i] > 9500 && counts[i] < 10500);
	CU_ASSERT(skald_rand_below(&r, 0) == 0);
	CU_ASSERT(skald_rand_below(&r, 1) == 0);
}

static void
backs_off_with_full_jitter(void)
{
	struct skald_rand r;

	skald_rand_seed(&r, 3);
	for (unsigned attempt = 0; attempt < 100; attempt++) {
		int64_t high = attempt < 5 ? 50 << attempt : 1000, seen_high = 0;

		if (high > 1000)
			high = 1000;
		for (int i = 0; i < 300; i++) {
			int64_t ms = skald_backoff_ms(&r, attempt, 50, 1000);

			CU_ASSERT(ms >= 0 && ms <= high);
			seen_high = ms > seen_high ? ms : seen_high;
		}
		CU_ASSERT(seen_high > high / 2);
	}
	CU_ASSERT(skald_backoff_ms(&r, 3, 0, 1000) == 0);
	CU_ASSERT(skald_backoff_ms(&r, 3, 10, 0) == 0);
	CU_ASSERT(skald_backoff_ms(&r, 4000000000u, INT64_MAX, INT64_MAX) >= 0);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(formats_rfc3339),
		CHECK(agrees_with_gmtime),
		CHECK(parses_offsets_and_fractions),
		CHECK(parses_durations),
		CHECK(clocks_run),
		CHECK(repeats_a_seed_but_not_a_generator),
		CHECK(draws_below_without_favour),
		CHECK(backs_off_with_full_jitter),
	};

	return check_main("unit.base.time", cases, CHECK_COUNT(cases));
}
