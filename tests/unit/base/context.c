/* What a hop hands on: dialects of correlation, W3C trace context, derived ids. */
#include "base/context.h"

#include <pthread.h>

#include "tests/support/check.h"

#define H(name, value) \
	{ \
		SKALD_SLICE_LIT(name), SKALD_SLICE_LIT(value) \
	}
#define PARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#define ID     "0192e4a0-7b1c-7000-8000-0000000000aa"

static struct skald_context
read(const struct skald_header *items, size_t count)
{
	struct skald_context ctx;

	skald_context_read(&ctx, (struct skald_headers){ items, count });
	return ctx;
}

static void
reads_a_whole_message(void)
{
	const struct skald_header items[] = { H("ce_id", ID),
		H("ce_correlationid", "c-1"), H("traceparent", PARENT),
		H("tracestate", "a=b"), H("baggage", "k=v") };
	struct skald_context ctx = read(items, 5);

	CHECK_TEXT(ctx.correlation_id, "c-1");
	CHECK_TEXT(ctx.causation_id, ID);
	CHECK_TEXT(ctx.traceparent, PARENT);
	CHECK_TEXT(ctx.tracestate, "a=b");
	CU_ASSERT(skald_slice_is_text(ctx.baggage, "k=v"));
	CU_ASSERT(ctx.has_message_id && ctx.emitted_count == 0);
}

/* Each dialect beats all behind it. */
static void
reads_correlation_in_the_published_order(void)
{
	const struct skald_header items[] = { H("ce_correlationid", "1"),
		H("X-Correlation-ID", "2"), H("correlation-id", "3"),
		H("correlation_id", "4"), H("correlationId", "5"),
		H("CorrelationId", "6"), H("NServiceBus.CorrelationId", "7"),
		H("kafka_correlationId", "8"), H("ce_id", "9") };
	char expected[2] = "1";

	for (size_t i = 0; i < 9; i++, expected[0]++) {
		struct skald_context ctx = read(items + i, 9 - i);

		CHECK_TEXT(ctx.correlation_id, expected);
	}
}

static void
keeps_an_id_whole_or_not_at_all(void)
{
	char text[300];
	struct skald_header items[] = {
		{ SKALD_SLICE_LIT("ce_correlationid"), { text, 256 } },
		H("x-correlation-id", ""),
		{ SKALD_SLICE_LIT("correlation-id"), SKALD_SLICE_LIT("\xFF") },
		{ SKALD_SLICE_LIT("correlation_id"), SKALD_SLICE_NULL }, H("ce_id", "m")
	};
	struct skald_context ctx;

	memset(text, 'x', sizeof(text));
	ctx = read(items, 5);
	CHECK_TEXT(ctx.correlation_id, "m");
	items[0].value.bytes = 255;
	ctx = read(items, 5);
	CU_ASSERT(strlen(ctx.correlation_id) == 255);
	ctx = read(items, 0);
	CHECK_TEXT(ctx.correlation_id, "");
	CHECK_TEXT(ctx.causation_id, "");
}

static void
checks_traceparent_strictly(void)
{
	static const char *const bad[] = { "",
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
		"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01" };

	CU_ASSERT(skald_trace_is_valid(SKALD_SLICE_LIT(PARENT)));
	CU_ASSERT(!skald_trace_is_valid(SKALD_SLICE_NULL));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct skald_header items[] = { { SKALD_SLICE_LIT("traceparent"),
							      skald_slice_text(bad[i]) },
			H("tracestate", "a=b") };
		struct skald_context ctx = read(items, 2);

		CU_ASSERT(!skald_trace_is_valid(skald_slice_text(bad[i])));
		CHECK_TEXT(ctx.traceparent, "");
		CHECK_TEXT(ctx.tracestate, ""); /* means nothing without its parent */
	}
}

static void
continues_a_trace_or_begins_one(void)
{
	char child[SKALD_TRACEPARENT_BYTES] = PARENT;

	skald_trace_child(skald_slice_text(child), 1, 2, 0xABC, child);
	CHECK_TEXT(child, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01");
	skald_trace_child(SKALD_SLICE_LIT("junk"), 1, 2, 3, child);
	CHECK_TEXT(child, "00-00000000000000010000000000000002-0000000000000003-01");
	skald_trace_child(SKALD_SLICE_NULL, 0, 0, 0, child);
	CU_ASSERT(skald_trace_is_valid(skald_slice_text(child)));
}

static void
derives_the_same_ids_again(void)
{
	const struct skald_header items[] = { H("ce_id", ID) };
	const struct skald_header text_id[] = { H("ce_id", "not-a-uuid") };
	struct skald_context first = read(items, 1), again = read(items, 1);
	struct skald_context other = read(text_id, 1);
	struct skald_uuid a, b, expected;

	first.handler = again.handler = other.handler = "shipping";
	a = skald_context_next_id(&first);
	expected = skald_uuid_v5(first.message_id, SKALD_SLICE_LIT("shipping:0"));
	CU_ASSERT(memcmp(&a, &expected, sizeof(a)) == 0);
	b = skald_context_next_id(&again);
	CU_ASSERT(memcmp(&a, &b, sizeof(a)) == 0);
	b = skald_context_next_id(&again);
	CU_ASSERT(memcmp(&a, &b, sizeof(a)) != 0);
	CU_ASSERT(again.emitted_count == 2);
	CU_ASSERT(!other.has_message_id);
	b = skald_context_next_id(&other);
	CU_ASSERT(memcmp(&a, &b, sizeof(a)) != 0);
}

static void *
look_from_another_thread(void *ctx)
{
	*(struct skald_context **)ctx = skald_context_current();
	return NULL;
}

static void
belongs_to_its_thread_and_nests(void)
{
	struct skald_context outer = { .handler = "outer" },
			     inner = { .handler = "inner" };
	struct skald_context *before, *previous, *elsewhere = &outer;
	pthread_t thread;

	CU_ASSERT(skald_context_current() == NULL);
	before = skald_context_enter(&outer);
	previous = skald_context_enter(&inner);
	CU_ASSERT(skald_context_current() == &inner);
	CU_ASSERT(
		pthread_create(&thread, NULL, look_from_another_thread, &elsewhere) == 0);
	pthread_join(thread, NULL);
	CU_ASSERT(elsewhere == NULL);
	skald_context_leave(previous);
	CU_ASSERT(skald_context_current() == &outer);
	skald_context_leave(before);
	CU_ASSERT(skald_context_current() == NULL);
}

static void
drops_baggage_beyond_the_limit(void)
{
	static char text[SKALD_BAGGAGE_BYTES + 1];
	struct skald_header items[] = { { SKALD_SLICE_LIT("baggage"), { text, 8193 } } };
	struct skald_context ctx;

	memset(text, 'x', sizeof(text) - 1);
	ctx = read(items, 1);
	CU_ASSERT(!ctx.baggage.data);
	items[0].value.bytes = 8192;
	ctx = read(items, 1);
	CU_ASSERT(ctx.baggage.bytes == 8192);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(reads_a_whole_message),
		CHECK(reads_correlation_in_the_published_order),
		CHECK(keeps_an_id_whole_or_not_at_all),
		CHECK(checks_traceparent_strictly),
		CHECK(continues_a_trace_or_begins_one),
		CHECK(derives_the_same_ids_again),
		CHECK(belongs_to_its_thread_and_nests),
		CHECK(drops_baggage_beyond_the_limit),
	};

	return check_main("unit.base.context", cases, CHECK_COUNT(cases));
}
