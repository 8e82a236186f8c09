/* A saga's row: what views read of it, and that it comes back whole. */
#include "saga/own.h"

#include "tests/support/check.h"

static struct saga_plan plan = { .step_count = 3, .pivot = 1 };
static struct saga__vector v, back;
static struct skald_buf text;

static void
prepare(void)
{
	skald__saga_plan_sequence(&plan);
	memset(&v, 0, sizeof(v));
	memset(&back, 0xee, sizeof(back));
	skald__saga_init(&v.core, &plan);
	v.core.row_count = 7;
	v.core.steps[0] = (struct saga_step){ .state = SAGA_STEP_UNDOING,
		.wait = SAGA_WAIT_REPLY,
		.wait_op = SAGA_OP_UNDO,
		.fault = SAGA_FAULT_REPLY,
		.due_at_ms = 1700000000123,
		.action = { 3, 2, 1, 0 },
		.undo = { 1, 1, 0, 0 } };
	v.memos[0] =
		(struct saga__memo){ 1700000000000001, 1700000000000002, "sold-out" };
	(void)snprintf(v.cause, sizeof(v.cause), "a;b|c,d:e");
	skald_buf_clear(&text);
	skald__saga_encode(&v, &text);
}

static enum skald_rc
decode(const char *vector)
{
	struct skald_err err = SKALD_ERR_INIT;

	return skald__saga_decode(skald_slice_text(vector), &plan, &back, &err);
}

static void
views_read_items(void)
{
	static const char items[] =
		"undoing:3:1:2:1:1700000000000001:1700000000000002:sold-out,,;";

	prepare();
	CU_ASSERT_EQUAL(strncmp(text.data, items, strlen(items)), 0);
}

static void
it_comes_back(void)
{
	prepare();
	CU_ASSERT_EQUAL(decode(text.data), SKALD_OK);
	CU_ASSERT_EQUAL(memcmp(&back.core, &v.core, sizeof(v.core)), 0);
	CU_ASSERT_EQUAL(back.memos[0].started_us, v.memos[0].started_us);
	CU_ASSERT_EQUAL(back.memos[0].finished_us, v.memos[0].finished_us);
	CHECK_TEXT(back.memos[0].error, "sold-out");
	CU_ASSERT_EQUAL(back.memos[1].started_us, 0);
	CHECK_TEXT(back.cause, "a;b|c,d:e");
}

static void
nothing_is_a_new_saga(void)
{
	prepare();
	CU_ASSERT_EQUAL(decode(""), SKALD_OK);
	CU_ASSERT_EQUAL(back.core.row_count, 0);
	CU_ASSERT_EQUAL(back.core.step_count, 3);
	CHECK_TEXT(back.cause, "");
}

/* Every prefix, and other damage, is refused or read as what it says: never a crash. */
static void
damage_is_refused(void)
{
	char broken[512];

	prepare();
	for (size_t n = 1; n < text.bytes; n++) {
		(void)snprintf(broken, sizeof(broken), "%.*s", (int)n, text.data);
		CU_ASSERT_EQUAL(
			decode(broken), strchr(broken, '|') ? SKALD_OK : SKALD_REJECT);
	}
	CU_ASSERT_EQUAL(decode("nonsense"), SKALD_REJECT);
	CU_ASSERT_EQUAL(decode(",,,;1 0 0 0 0 0 -1 3 0 0|"), SKALD_REJECT);
	CU_ASSERT_EQUAL(decode(",,;1 0 0 0 0 0 -1 3 0 0|"), SKALD_OK);
	CU_ASSERT_EQUAL(decode("sent:1:0:1:1:x::,,;1 0 0 0 0 0 -1 3 0 0|"), SKALD_REJECT);
}

int
main(void)
{
	static const struct check_case cases[] = { CHECK(views_read_items),
		CHECK(it_comes_back), CHECK(nothing_is_a_new_saga),
		CHECK(damage_is_refused) };
	int status;

	skald_buf_init(&text, 1 << 20);
	status = check_main("unit.saga.vector", cases, CHECK_COUNT(cases));
	skald_buf_done(&text);
	return status;
}
