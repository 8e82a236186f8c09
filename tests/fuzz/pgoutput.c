/*
 * Frames of logical replication, of any bytes. Cells must lie inside their frame, what
 * cannot be is refused with a reason, and a frame means the same wherever it lies.
 *
 * The input is a byte, the version of the protocol, then frames, each behind two bytes of
 * its length; tests/support/frames.sh writes such files.
 */
#include "sql/pgoutput_core.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "tests/fuzz/fuzz.h"

static const char *const wanted[] = { "id", "u", "j", "t", "b", "at", "ok", "n", "big",
	"plain", "more", "c0", "c99" };

enum { WANTED_COUNT = sizeof(wanted) / sizeof(wanted[0]) };

static void
check_inside(struct skald_slice part, struct skald_slice whole)
{
	if (!part.data)
		return;
	SKALD_ASSERT(part.data >= whole.data);
	SKALD_ASSERT(part.bytes <= whole.bytes);
	SKALD_ASSERT(part.data + part.bytes <= whole.data + whole.bytes);
}

static void
check_frame(const struct skald__pgo_frame *frame, struct skald_slice whole)
{
	check_inside(frame->name, whole);
	check_inside(frame->content, whole);
	for (unsigned i = 0; i < SKALD__PGO_WANTED_MAX; i++) {
		bool has_bytes = frame->kinds[i] == SKALD__CELL_TEXT ||
				 frame->kinds[i] == SKALD__CELL_BINARY;

		SKALD_ASSERT(has_bytes == (frame->cells[i].data != NULL));
		SKALD_ASSERT(frame->kinds[i] == SKALD__CELL_ABSENT ||
			     (frame->is_ours && i < WANTED_COUNT));
		check_inside(frame->cells[i], whole);
	}
}

/* Alone in memory, so that a sanitizer sees a byte too many. */
static const char *
decode(struct skald__pgo *p, const uint8_t *data, size_t bytes)
{
	struct skald__pgo again = *p;
	struct skald__pgo_frame frame, second;
	const char *wrong, *wrong_again;
	char *copy = malloc(bytes ? bytes : 1);

	SKALD_ASSERT(copy);
	if (bytes)
		memcpy(copy, data, bytes);
	wrong = skald__pgo_decode(p, skald_slice_make(copy, bytes), &frame);
	wrong_again = skald__pgo_decode(&again, skald_slice_make(data, bytes), &second);
	SKALD_ASSERT(wrong == wrong_again);
	if (!wrong) {
		check_frame(&frame, skald_slice_make(copy, bytes));
		SKALD_ASSERT(frame.ordinal == second.ordinal);
		SKALD_ASSERT(frame.is_ours == second.is_ours);
		SKALD_ASSERT(memcmp(frame.kinds, second.kinds, sizeof(frame.kinds)) == 0);
		SKALD_ASSERT(!p->is_in_transaction || !p->is_in_stream);
		SKALD_ASSERT(p->column_count <= SKALD__PGO_COLUMNS_MAX);
	} else {
		SKALD_ASSERT(wrong[0]);
	}
	free(copy);
	return wrong;
}

static void
decode_all(const char *table, const uint8_t *data, size_t bytes)
{
	static struct skald__pgo p;
	size_t at = 1;

	skald__pgo_init(&p, data[0] % 5, "shop", table, wanted, WANTED_COUNT);
	while (bytes - at >= 2) {
		size_t length = (size_t)data[at] << 8 | data[at + 1];

		at += 2;
		if (length > bytes - at)
			length = bytes - at;
		if (decode(&p, data + at, length))
			break;
		at += length;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct skald_slice copied =
		skald_slice_make(data ? (const void *)data : "", bytes);
	struct skald__pgo_copy copy;

	if (!skald__pgo_open(copied, &copy))
		SKALD_ASSERT(copy.is_keepalive || copy.payload.bytes == bytes - 25);
	if (bytes) {
		decode_all("orders", data, bytes);
		decode_all("wide", data, bytes);
	}
	return 0;
}
