#include "sql/own.h"
#include "tests/support/check.h"

static void
every_state_has_its_class(void)
{
	static const struct {
		const char *state;
		enum skald_rc rc;
	} rows[] = {
		{ "08006", SKALD_RETRY },
		{ "08001", SKALD_RETRY },
		{ "40001", SKALD_RETRY },
		{ "40P01", SKALD_RETRY },
		{ "55P03", SKALD_RETRY },
		{ "53300", SKALD_RETRY },
		{ "53100", SKALD_RETRY },
		{ "57P01", SKALD_RETRY },
		{ "57P03", SKALD_RETRY },
		{ "57014", SKALD_RETRY },
		{ "58030", SKALD_RETRY },
		{ "25006", SKALD_RETRY },
		{ "25P02", SKALD_RETRY },
		{ "25P03", SKALD_RETRY },
		{ "P0001", SKALD_RETRY },
		{ "XX000", SKALD_RETRY },
		{ "22P02", SKALD_REJECT },
		{ "22001", SKALD_REJECT },
		{ "23505", SKALD_REJECT },
		{ "23514", SKALD_REJECT },
		{ "21000", SKALD_REJECT },
		{ "54000", SKALD_REJECT },
		{ "SK001", SKALD_REJECT },
		{ "SK002", SKALD_REJECT },
		{ "SK003", SKALD_REJECT },
		{ "SK004", SKALD_REJECT },
		{ "SK006", SKALD_REJECT },
		{ "SK007", SKALD_REJECT },
		{ "SK005", SKALD_FATAL },
		{ "42P01", SKALD_FATAL },
		{ "42501", SKALD_FATAL },
		{ "3F000", SKALD_FATAL },
		{ "3D000", SKALD_FATAL },
		{ "28P01", SKALD_FATAL },
		{ "28000", SKALD_FATAL },
		{ "0A000", SKALD_FATAL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		enum skald_rc rc = skald__rc_of_state(rows[i].state);

		if (rc != rows[i].rc)
			printf("\n    %s got %s", rows[i].state, skald_rc_name(rc));
		CU_ASSERT_EQUAL(rc, rows[i].rc);
	}
}

static void
without_a_result_it_is_the_connection(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(skald__fail_result(NULL, NULL, &err), SKALD_RETRY);
	CHECK_TEXT(err.code, "08006");
	CHECK_TEXT(err.origin, "pg");
	CU_ASSERT(skald_err_is_outage(&err));
	CU_ASSERT(err.text[0] != '\0');
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(every_state_has_its_class),
		CHECK(without_a_result_it_is_the_connection) };

	return check_main("unit.sql.errors", cases, CHECK_COUNT(cases));
}
