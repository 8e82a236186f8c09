/* Texts are cut at a character, and trouble is told apart by code. */
#include "base/err.h"

#include "base/slice.h"
#include "tests/support/check.h"

static void
fills_every_field(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT(skald_fail(&err, SKALD_REJECT, "pg", "23505", "key: %d", 7) ==
		  SKALD_REJECT);
	CHECK_TEXT(err.origin, "pg");
	CHECK_TEXT(err.code, "23505");
	CHECK_TEXT(err.text, "key: 7");
	CU_ASSERT(skald_fail(NULL, SKALD_RETRY, "pg", "", "x") == SKALD_RETRY);
	CU_ASSERT(
		skald_fail(&err, SKALD_RETRY, NULL, "much too long", "x") == SKALD_RETRY);
	CHECK_TEXT(err.origin, "skald");
	CHECK_TEXT(err.code, "much to");
}

/* Characters of 1 to 4 bytes at every place around the cut. */
static void
cuts_at_a_character(void)
{
	static const char *const characters[] = { "a", "\xC3\xA9", "\xE2\x82\xAC",
		"\xF0\x9F\x98\x80" };
	struct skald_err err;

	for (unsigned c = 0; c < 4; c++)
		for (unsigned shift = 0; shift < 4; shift++) {
			size_t bytes = strlen(characters[c]);
			char text[512] = "xxx";

			for (size_t at = shift; at < 400; at += bytes)
				memcpy(text + at, characters[c], bytes + 1);
			(void)skald_fail(&err, SKALD_RETRY, "skald", "", "%s", text);
			CU_ASSERT(skald_slice_is_utf8(skald_slice_text(err.text)));
			CU_ASSERT(strlen(err.text) > sizeof(err.text) - 5);
			CU_ASSERT(strncmp(err.text, text, strlen(err.text)) == 0);
			(void)skald_fail_in(&err, SKALD_RETRY, "%s", "y\xC3\xA9");
			CU_ASSERT(skald_slice_is_utf8(skald_slice_text(err.text)));
			CU_ASSERT(strncmp(err.text, "y\xC3\xA9: ", 5) == 0);
		}
}

static void
puts_a_prefix_in_front(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	(void)skald_fail(&err, SKALD_RETRY, "pg", "08006", "gone");
	CU_ASSERT(skald_fail_in(&err, SKALD_FATAL, "source %s", "main") == SKALD_FATAL);
	CHECK_TEXT(err.text, "source main: gone");
	CHECK_TEXT(err.code, "08006");
	CU_ASSERT(skald_fail_in(NULL, SKALD_RETRY, "x") == SKALD_RETRY);
}

static void
tells_outages_and_conflicts(void)
{
	static const struct {
		const char *origin, *code;
		bool is_outage, is_conflict;
	} rows[] = {
		{ "pg", "", true, false },
		{ "pg", "08006", true, false },
		{ "pg", "53300", true, false },
		{ "pg", "57P01", true, false },
		{ "pg", "57P05", true, false },
		{ "pg", "58030", true, false },
		{ "pg", "57014", false, false },
		{ "pg", "XX000", false, false },
		{ "pg", "23505", false, false },
		{ "pg", "40001", false, true },
		{ "pg", "40P01", false, true },
		{ "pg", "55P03", false, true },
		{ "pg", "40002", false, false },
		{ "kafka", "-195", true, false },
		{ "kafka", "10", false, false },
		{ "kafka", "40001", true, false },
		{ "callee", "", true, false },
		{ "skald", "", false, false },
		{ "skald", "08006", false, false },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct skald_err err = SKALD_ERR_INIT;

		(void)skald_fail(
			&err, SKALD_RETRY, rows[i].origin, rows[i].code, "%s", "");
		CU_ASSERT(skald_err_is_outage(&err) == rows[i].is_outage);
		CU_ASSERT(skald_err_is_conflict(&err) == rows[i].is_conflict);
	}
	CU_ASSERT(!skald_err_is_outage(NULL));
	CU_ASSERT(!skald_err_is_conflict(NULL));
}

static void
names_every_rc(void)
{
	CHECK_TEXT(skald_rc_name(SKALD_OK), "ok");
	CHECK_TEXT(skald_rc_name(SKALD_RETRY), "retry");
	CHECK_TEXT(skald_rc_name(SKALD_REJECT), "reject");
	CHECK_TEXT(skald_rc_name(SKALD_FATAL), "fatal");
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(fills_every_field),
		CHECK(cuts_at_a_character),
		CHECK(puts_a_prefix_in_front),
		CHECK(tells_outages_and_conflicts),
		CHECK(names_every_rc),
	};

	return check_main("unit.base.err", cases, CHECK_COUNT(cases));
}
