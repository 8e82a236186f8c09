/*
 * The decoder over frames that a server has sent (frames/, caught by
 * tests/support/frames.sh), whole and cut at every byte.
 */
#include "sql/pgoutput_core.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/support/check.h"

enum { FRAMES_MAX = 64 };

static const char *const wanted[] = { "id", "u", "j", "t", "b", "at", "ok", "n", "big",
	"plain", "more", "c0", "c99" };

enum { ID, U, J, T, B, AT, OK, N, BIG, PLAIN, MORE, C0, C99, WANTED_COUNT };

static struct {
	struct skald_slice frames[FRAMES_MAX];
	unsigned count;
	unsigned version;
} file;

static const char *const names[] = { "altered", "insert-binary", "insert-text",
	"made-stream-4", "message", "origin", "stream-2", "stream-3", "type", "update",
	"update-text", "wide" };

/* --- frames ------------------------------------------------------------------------------- */

static struct skald_slice
unhex(const char *line, size_t digits)
{
	char *bytes = malloc(digits / 2 + 1);

	if (!bytes)
		abort();
	for (size_t i = 0; i < digits / 2; i++)
		bytes[i] = (char)(skald_hex_digit(line[2 * i]) << 4 |
				  skald_hex_digit(line[2 * i + 1]));
	return skald_slice_make(bytes, digits / 2);
}

static void
drop(void)
{
	for (unsigned i = 0; i < file.count; i++)
		free((void *)(uintptr_t)file.frames[i].data);
	file.count = 0;
}

static void
load(const char *name)
{
	static char line[65536];
	char path[512];
	FILE *f;

	drop();
	(void)snprintf(path, sizeof(path), "%s/%s.hex", FRAMES, name);
	f = fopen(path, "r");
	if (!f) {
		perror(path);
		abort();
	}
	while (fgets(line, sizeof(line), f) && file.count < FRAMES_MAX) {
		const char *version = strstr(line, "'proto_version', '");

		if (line[0] != '#')
			file.frames[file.count++] = unhex(line, strcspn(line, "\n"));
		else if (version)
			file.version = (unsigned)(version[18] - '0');
	}
	(void)fclose(f);
}

static void
begin(struct skald__pgo *p, const char *table)
{
	skald__pgo_init(p, file.version, "shop", table, wanted, WANTED_COUNT);
}

/* The next frame of that type, all before it decoded. */
static bool
seek(struct skald__pgo *p, unsigned *at, char type, struct skald__pgo_frame *frame)
{
	while (*at < file.count) {
		const char *wrong = skald__pgo_decode(p, file.frames[(*at)++], frame);

		if (wrong)
			printf("\n    frame %u: %s", *at - 1, wrong);
		if (wrong || frame->type == type)
			return !wrong;
	}
	return false;
}

/* --- what they say ------------------------------------------------------------------------ */

static void
check_insert(const char *name, enum skald__pgo_cell kind, const char *const *cells,
	const size_t *bytes)
{
	struct skald__pgo_frame f;
	struct skald__pgo p;
	unsigned at = 0;
	uint64_t commit_lsn;

	load(name);
	begin(&p, "orders");
	CU_ASSERT_TRUE(seek(&p, &at, 'B', &f));
	CU_ASSERT(f.xid > 0 && f.lsn > 0 && f.time_us > 0);
	commit_lsn = f.lsn;
	CU_ASSERT_TRUE(seek(&p, &at, 'R', &f));
	CU_ASSERT_TRUE(f.is_ours && skald_slice_is_text(f.name, "orders"));
	CU_ASSERT_EQUAL(f.count, 10);
	CU_ASSERT_TRUE(seek(&p, &at, 'I', &f));
	CU_ASSERT_EQUAL(f.ordinal, 0);
	for (unsigned i = ID; i <= PLAIN; i++) {
		CU_ASSERT_EQUAL(f.kinds[i], i == PLAIN ? f.kinds[i] : kind);
		CU_ASSERT_TRUE(skald_slice_is_equal(
			f.cells[i], skald_slice_make(cells[i], bytes[i])));
	}
	CU_ASSERT_EQUAL(f.kinds[MORE], SKALD__CELL_ABSENT);
	CU_ASSERT_TRUE(seek(&p, &at, 'I', &f));
	CU_ASSERT_EQUAL(f.ordinal, 1);
	CU_ASSERT_EQUAL(f.kinds[J], SKALD__CELL_NULL);
	CU_ASSERT_PTR_NULL(f.cells[J].data);
	CU_ASSERT_EQUAL(f.kinds[T], kind);
	CU_ASSERT_PTR_NOT_NULL(f.cells[T].data); /* empty is not NULL */
	CU_ASSERT_EQUAL(f.cells[T].bytes, 0);
	CU_ASSERT_TRUE(seek(&p, &at, 'C', &f));
	CU_ASSERT_EQUAL(f.lsn, commit_lsn);
	CU_ASSERT(f.end_lsn > f.lsn);
}

static void
d1_binary_cells(void)
{
	static const char *const cells[] = { "\0\0\0\0\0\0\0\1",
		"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff",
		"\1{\"a\": 1}", "text", "\x00\xff", "\x00\x03\x03\xb3\x3d\x82\x7e\x40",
		"\1", "\xff\xff\xff\xf9", "big", "{}" };
	static const size_t bytes[] = { 8, 16, 9, 4, 2, 8, 1, 4, 3, 2 };

	check_insert("insert-binary", SKALD__CELL_BINARY, cells, bytes);
}

static void
d1_text_cells(void)
{
	static const char *const cells[] = { "1", "00112233-4455-6677-8899-aabbccddeeff",
		"{\"a\": 1}", "text", "\\x00ff", "2026-11-20 12:34:56.123456+00", "t",
		"-7", "big", "{}" };
	size_t bytes[10];

	for (int i = 0; i < 10; i++)
		bytes[i] = strlen(cells[i]);
	check_insert("insert-text", SKALD__CELL_TEXT, cells, bytes);
}

static void
d1_out_of_line_and_unchanged_is_no_null(void)
{
	static const char *const files[] = { "update", "update-text" };
	struct skald__pgo_frame f;
	struct skald__pgo p;

	for (int i = 0; i < 2; i++) {
		unsigned at = 0;

		load(files[i]);
		begin(&p, "orders");
		CU_ASSERT_TRUE(seek(&p, &at, 'I', &f));
		CU_ASSERT_EQUAL(f.cells[BIG].bytes, 3000);
		CU_ASSERT_TRUE(seek(&p, &at, 'U', &f));
		CU_ASSERT_TRUE(skald_slice_is_text(f.cells[T], "b"));
		CU_ASSERT_EQUAL(f.kinds[BIG], SKALD__CELL_UNCHANGED);
		CU_ASSERT_PTR_NULL(f.cells[BIG].data);
		CU_ASSERT_EQUAL(f.kinds[U], SKALD__CELL_NULL);
	}
	load("update"); /* the second one has the old key before the new row */
	unsigned at = 0;

	begin(&p, "orders");
	CU_ASSERT_TRUE(seek(&p, &at, 'U', &f));
	CU_ASSERT_TRUE(seek(&p, &at, 'U', &f));
	CU_ASSERT_TRUE(
		skald_slice_is_equal(f.cells[ID], SKALD_SLICE_LIT("\0\0\0\0\0\0\0\4")));
	CU_ASSERT_TRUE(seek(&p, &at, 'D', &f));
	CU_ASSERT_EQUAL(f.ordinal, 3);
	CU_ASSERT_TRUE(seek(&p, &at, 'C', &f));
}

static void
d1_a_hundred_columns(void)
{
	struct skald__pgo_frame f;
	struct skald__pgo p;
	unsigned at = 0;

	load("wide");
	begin(&p, "wide");
	CU_ASSERT_TRUE(seek(&p, &at, 'I', &f));
	CU_ASSERT_EQUAL(f.count, 100);
	CU_ASSERT_EQUAL(f.kinds[C0], SKALD__CELL_NULL);
	CU_ASSERT_TRUE(skald_slice_is_equal(f.cells[C99], SKALD_SLICE_LIT("\0\0\0\x63")));
	CU_ASSERT_TRUE(seek(&p, &at, 'C', &f));
	at = 0;
	begin(&p, "orders"); /* somebody else's: counted only */
	CU_ASSERT_TRUE(seek(&p, &at, 'I', &f));
	CU_ASSERT_FALSE(f.is_ours);
	CU_ASSERT_PTR_NULL(f.cells[C99].data);
	CU_ASSERT_EQUAL(p.ordinal, 1);
}

static void
d5_columns_are_found_by_name_in_the_newest_relation(void)
{
	static const struct {
		const char *t, *more;
		bool has_u, is_ours;
	} rows[] = { { "before", NULL, true, true }, { "added", "more", true, true },
		{ "dropped", "more", false, true }, { NULL, NULL, false, true },
		{ NULL, NULL, false, false } };
	struct skald__pgo_frame f;
	struct skald__pgo p;
	unsigned at = 0;

	load("altered");
	begin(&p, "orders");
	for (unsigned i = 0; i < 5; i++) {
		CU_ASSERT_TRUE(seek(&p, &at, 'I', &f));
		CU_ASSERT_EQUAL(f.ordinal, i);
		CU_ASSERT_EQUAL(f.is_ours, rows[i].is_ours);
		CU_ASSERT_TRUE(
			skald_slice_is_equal(f.cells[T], skald_slice_text(rows[i].t)));
		CU_ASSERT_TRUE(skald_slice_is_equal(
			f.cells[MORE], skald_slice_text(rows[i].more)));
		CU_ASSERT_EQUAL(f.kinds[U] != SKALD__CELL_ABSENT, rows[i].has_u);
	}
	CU_ASSERT_TRUE(seek(&p, &at, 'C', &f));
}

static void
messages_types_origins_and_truncates(void)
{
	struct skald__pgo_frame f;
	struct skald__pgo p;
	unsigned at = 0;

	load("message");
	begin(&p, "orders");
	CU_ASSERT_TRUE(seek(&p, &at, 'M', &f)); /* waits for no transaction */
	CU_ASSERT_FALSE(f.is_transactional);
	CU_ASSERT_EQUAL(f.content.bytes, 0);
	CU_ASSERT_TRUE(seek(&p, &at, 'M', &f));
	CU_ASSERT_TRUE(f.is_transactional && f.lsn > 0);
	CU_ASSERT_TRUE(skald_slice_is_text(f.name, "prefix"));
	CU_ASSERT_TRUE(skald_slice_is_text(f.content, "content"));
	CU_ASSERT_TRUE(seek(&p, &at, 'I', &f));
	CU_ASSERT_EQUAL(f.ordinal, 0);

	load("type");
	at = 0;
	begin(&p, "orders");
	CU_ASSERT_TRUE(seek(&p, &at, 'Y', &f));
	CU_ASSERT_TRUE(skald_slice_is_text(f.name, "colour"));
	CU_ASSERT_TRUE(seek(&p, &at, 'C', &f));

	load("origin");
	at = 0;
	begin(&p, "orders");
	CU_ASSERT_TRUE(seek(&p, &at, 'O', &f));
	CU_ASSERT_TRUE(skald_slice_is_text(f.name, "elsewhere"));
	CU_ASSERT_EQUAL(f.lsn, 0x1234);
	CU_ASSERT_TRUE(seek(&p, &at, 'I', &f) && f.is_ours);

	load("insert-binary");
	at = 0;
	begin(&p, "orders");
	CU_ASSERT_TRUE(seek(&p, &at, 'T', &f));
	CU_ASSERT_EQUAL(f.count, 2);
	CU_ASSERT_EQUAL(f.ordinal, 0);
}

static void
d2_streamed_blocks_have_a_transaction_of_their_own(void)
{
	static const char *const files[] = { "stream-2", "stream-3" };
	struct skald__pgo_frame f;
	struct skald__pgo p;
	uint32_t xid;

	for (int i = 0; i < 2; i++) {
		unsigned at = 0;

		load(files[i]);
		begin(&p, "orders");
		CU_ASSERT_TRUE(seek(&p, &at, 'S', &f) && f.is_first);
		xid = f.xid;
		CU_ASSERT_TRUE(seek(&p, &at, 'R', &f) && f.xid == xid && f.is_ours);
		CU_ASSERT_TRUE(seek(&p, &at, 'Y', &f) && f.xid == xid);
		CU_ASSERT_TRUE(skald_slice_is_text(f.name, "colour"));
		at = 0;
		begin(&p, "orders");
		CU_ASSERT_TRUE(seek(&p, &at, 'I', &f) && f.xid == xid);
		CU_ASSERT_TRUE(skald_slice_is_text(f.cells[T], "streamed"));
		CU_ASSERT_TRUE(seek(&p, &at, 'M', &f) && f.xid == xid);
		CU_ASSERT_TRUE(skald_slice_is_text(f.content, "content"));
		CU_ASSERT_TRUE(seek(&p, &at, 'I', &f) && f.xid != xid);
		CU_ASSERT_TRUE(skald_slice_is_text(f.cells[T], "undone"));
		CU_ASSERT_TRUE(seek(&p, &at, 'A', &f) && f.xid == xid);
		CU_ASSERT_NOT_EQUAL(f.subxid, xid);
		/* after ROLLBACK TO the savepoint is a new subtransaction */
		CU_ASSERT_TRUE(seek(&p, &at, 'U', &f) && f.xid > xid);
		CU_ASSERT_TRUE(skald_slice_is_text(f.cells[T], "again"));
		CU_ASSERT_TRUE(seek(&p, &at, 'T', &f) && f.count == 1);
		CU_ASSERT_TRUE(seek(&p, &at, 'c', &f) && f.xid == xid);
		CU_ASSERT(f.end_lsn > f.lsn && f.lsn > 0);
		CU_ASSERT_EQUAL(at, file.count);
	}
	unsigned at = 0;

	load("made-stream-4");
	begin(&p, "orders");
	CU_ASSERT_TRUE(seek(&p, &at, 'I', &f) && f.is_ours && f.xid == 42);
	CU_ASSERT_EQUAL(f.kinds[T], SKALD__CELL_TEXT);
	CU_ASSERT_TRUE(seek(&p, &at, 'I', &f) && f.is_ours && f.xid == 43);
	CU_ASSERT_TRUE(seek(&p, &at, 'A', &f) && f.subxid == 43 && f.lsn == 0x1900000);
	CU_ASSERT_TRUE(seek(&p, &at, 'c', &f) && f.end_lsn == 0x2000030);
}

/* --- what cannot be ------------------------------------------------------------------------ */

/* In memory of its own size, so that a sanitizer sees a byte too many. */
static const char *
decode_copy(const struct skald__pgo *before, struct skald_slice frame, size_t bytes,
	const char *more)
{
	struct skald__pgo p = *before;
	struct skald__pgo_frame f;
	size_t more_bytes = more ? strlen(more) : 0;
	char *copy = malloc(bytes + more_bytes + 1);
	char *exact =
		copy ? realloc(copy, bytes + more_bytes ? bytes + more_bytes : 1) : NULL;
	const char *wrong;

	if (!exact)
		abort();
	memcpy(exact, frame.data, bytes);
	if (more)
		memcpy(exact + bytes, more, more_bytes);
	wrong = skald__pgo_decode(&p, skald_slice_make(exact, bytes + more_bytes), &f);
	free(exact);
	return wrong;
}

static void
d1_every_cut_of_every_frame_is_refused(void)
{
	static const char *const tables[] = { "orders", "lines", "wide" };
	unsigned cuts = 0, taken = 0, refused_whole = 0, taken_longer = 0;
	struct skald__pgo p;
	struct skald__pgo_frame f;

	for (unsigned n = 0; n < CHECK_COUNT(names); n++) {
		load(names[n]);
		CU_ASSERT(file.count >= 4);
		for (int t = 0; t < 3; t++) {
			begin(&p, tables[t]);
			for (unsigned i = 0; i < file.count; i++) {
				struct skald_slice frame = file.frames[i];

				for (size_t bytes = 0; bytes < frame.bytes; bytes++) {
					cuts++;
					taken += !decode_copy(&p, frame, bytes, NULL);
				}
				taken_longer += !decode_copy(&p, frame, frame.bytes, "x");
				refused_whole += skald__pgo_decode(&p, frame, &f) != NULL;
			}
		}
	}
	CU_ASSERT(cuts > 10000);
	CU_ASSERT_EQUAL(taken, 0);
	CU_ASSERT_EQUAL(taken_longer, 0);
	CU_ASSERT_EQUAL(refused_whole, 0);
	drop();
}

struct bad_frame {
	const char *bytes;
	size_t length;
	const char *wrong;
};

/* clang-format off */
#define BAD(literal, wrong) { (literal), sizeof(literal) - 1, (wrong) }
/* clang-format on */

static void
d1_lengths_that_claim_too_much_are_refused(void)
{
	static const struct bad_frame bad[] = {
		BAD("I\0\0\0\1N\0\1b\xff\xff\xff\xffx", "frame: ends too early"),
		BAD("I\0\0\0\1N\0\1t\x7f\xff\xff\xffx", "frame: ends too early"),
		BAD("I\0\0\0\1N\0\1t\0\0\0\2x", "frame: ends too early"),
		BAD("I\0\0\0\1N\xff\xffn", "row: too many columns"),
		BAD("I\0\0\0\1N\0\2n", "frame: ends too early"),
		BAD("I\0\0\0\1N\0\1z", "row: a cell of an unknown kind"),
		BAD("I\0\0\0\1K\0\1n", "change: not the row it should have"),
		BAD("D\0\0\0\1N\0\1n", "change: not the row it should have"),
		BAD("U\0\0\0\1K\0\1nK\0\1n", "change: not the row it should have"),
		BAD("R\0\0\0\1s\0t\0d\xff\xff", "relation: too many columns"),
		BAD("R\0\0\0\1s\0t", "frame: ends too early"),
		BAD("R\0\0\0\1s\0t\0d\0\1\1name", "frame: ends too early"),
		BAD("T\xff\xff\xff\xff\0\0\0\0\1", "frame: ends too early"),
		BAD("T\x40\0\0\0\0", "frame: ends too early"),
		BAD("M\1\0\0\0\0\0\0\0\0p\0\xff\xff\xff\xffx", "frame: ends too early"),
		BAD("O\0\0\0\0\0\0\0\0name", "frame: ends too early"),
		BAD("B\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\1",
			"begin: inside a transaction"),
		BAD("C\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0\0",
			"commit: not the one that was announced"),
		BAD("C\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
			"commit: ends before it begins"),
		BAD("S\0\0\0\1\1", "stream: inside another transaction"),
		BAD("E", "stream: ends what never began"),
		BAD("Z", "frame: of an unknown type"),
		BAD("\0", "frame: of an unknown type"),
		BAD("", "frame: ends too early"),
	};
	struct skald_slice first =
		SKALD_SLICE_LIT("B\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\1");
	struct skald__pgo_frame f;
	struct skald__pgo p, outside;

	skald__pgo_init(&p, 1, "s", "t", wanted, WANTED_COUNT);
	outside = p;
	CU_ASSERT_PTR_NULL(skald__pgo_decode(&p, first, &f));
	for (size_t i = 0; i < CHECK_COUNT(bad); i++)
		CHECK_TEXT(decode_copy(&p, skald_slice_make(bad[i].bytes, bad[i].length),
				   bad[i].length, NULL),
			bad[i].wrong);
	CHECK_TEXT(decode_copy(&outside, SKALD_SLICE_LIT("I\0\0\0\1N\0\1n"), 9, NULL),
		"change: outside a transaction");
}

static void
a_row_has_the_columns_of_its_relation(void)
{
	struct skald_slice first =
		SKALD_SLICE_LIT("B\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\1");
	struct skald_slice relation =
		SKALD_SLICE_LIT("R\0\0\0\1s\0t\0d\0\1\1id\0\0\0\0\x14\xff\xff\xff\xff");
	struct skald_slice row = SKALD_SLICE_LIT("I\0\0\0\1N\0\2nn");
	struct skald__pgo_frame f;
	struct skald__pgo p;

	skald__pgo_init(&p, 1, "s", "t", wanted, WANTED_COUNT);
	CU_ASSERT_PTR_NULL(skald__pgo_decode(&p, first, &f));
	CU_ASSERT_PTR_NULL(skald__pgo_decode(&p, row, &f)); /* of whatever table */
	CU_ASSERT_PTR_NULL(skald__pgo_decode(&p, relation, &f));
	CHECK_TEXT(skald__pgo_decode(&p, row, &f),
		"row: not as many columns as its relation");
}

static void
d1_data_and_keepalives(void)
{
	static const char data[] = "w\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\3xyz";
	static const char alive[] = "k\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0\6\1";
	struct skald__pgo_copy c;

	CU_ASSERT_PTR_NULL(skald__pgo_open(skald_slice_make(data, sizeof(data) - 1), &c));
	CU_ASSERT(!c.is_keepalive && c.start == 1 && c.end == 2 && c.sent_us == 3);
	CU_ASSERT_TRUE(skald_slice_is_text(c.payload, "xyz"));
	CU_ASSERT_PTR_NULL(
		skald__pgo_open(skald_slice_make(alive, sizeof(alive) - 1), &c));
	CU_ASSERT(c.is_keepalive && c.end == 5 && c.sent_us == 6 && c.wants_reply);
	for (size_t bytes = 0; bytes < 25; bytes++)
		CU_ASSERT_PTR_NOT_NULL(
			skald__pgo_open(skald_slice_make(data, bytes), &c));
	for (size_t bytes = 0; bytes < sizeof(alive) - 1; bytes++)
		CU_ASSERT_PTR_NOT_NULL(
			skald__pgo_open(skald_slice_make(alive, bytes), &c));
	CU_ASSERT_PTR_NOT_NULL(
		skald__pgo_open(skald_slice_make(alive, sizeof(alive)), &c));
	CU_ASSERT_PTR_NOT_NULL(skald__pgo_open(SKALD_SLICE_LIT("rxyz"), &c));
	CU_ASSERT_PTR_NOT_NULL(skald__pgo_open(SKALD_SLICE_NULL, &c));
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(d1_data_and_keepalives),
		CHECK(d1_binary_cells),
		CHECK(d1_text_cells),
		CHECK(d1_out_of_line_and_unchanged_is_no_null),
		CHECK(d1_a_hundred_columns),
		CHECK(d5_columns_are_found_by_name_in_the_newest_relation),
		CHECK(messages_types_origins_and_truncates),
		CHECK(d2_streamed_blocks_have_a_transaction_of_their_own),
		CHECK(d1_every_cut_of_every_frame_is_refused),
		CHECK(d1_lengths_that_claim_too_much_are_refused),
		CHECK(a_row_has_the_columns_of_its_relation),
	};

	return check_main("unit.sql.pgoutput", cases, CHECK_COUNT(cases));
}
