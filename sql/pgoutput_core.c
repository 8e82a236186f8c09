#include "sql/pgoutput_core.h"

#include <string.h>

#include "base/assert.h"

#define NO_COLUMN 255 /* of wanted_of: nobody asked for it */

static const char cut_off[] = "frame: ends too early";

/* --- reading: past the end everything is zero and `failed` stays set ---------------------- */

struct reader {
	const unsigned char *at;
	size_t left;
	bool failed;
};

static const unsigned char *
take(struct reader *r, size_t bytes)
{
	const unsigned char *p = r->at;

	if (r->failed || r->left < bytes) {
		r->failed = true;
		return NULL;
	}
	r->at += bytes;
	r->left -= bytes;
	return p;
}

static uint64_t
take_uint(struct reader *r, size_t bytes)
{
	const unsigned char *p = take(r, bytes);
	uint64_t n = 0;

	for (size_t i = 0; p && i < bytes; i++)
		n = n << 8 | p[i];
	return n;
}

static uint8_t
take_byte(struct reader *r)
{
	return (uint8_t)take_uint(r, 1);
}

static uint16_t
take_u16(struct reader *r)
{
	return (uint16_t)take_uint(r, 2);
}

static uint32_t
take_u32(struct reader *r)
{
	return (uint32_t)take_uint(r, 4);
}

static uint64_t
take_u64(struct reader *r)
{
	return take_uint(r, 8);
}

/* A text with its NUL; the slice is without. */
static struct skald_slice
take_text(struct reader *r)
{
	const void *nul = r->failed || !r->left ? NULL : memchr(r->at, 0, r->left);
	const unsigned char *start = r->at;

	if (!nul) {
		r->failed = true;
		return SKALD_SLICE_NULL;
	}
	(void)take(r, (size_t)((const unsigned char *)nul - start) + 1);
	return skald_slice_make(start, (size_t)((const unsigned char *)nul - start));
}

static struct skald_slice
take_counted(struct reader *r)
{
	uint32_t bytes = take_u32(r);
	const unsigned char *p = take(r, bytes);

	return p ? skald_slice_make(p, bytes) : SKALD_SLICE_NULL;
}

static struct reader
reader_of(struct skald_slice s)
{
	return (struct reader){ (const unsigned char *)s.data, s.data ? s.bytes : 0,
		false };
}

/* --- CopyData ------------------------------------------------------------------------------ */

const char *
skald__pgo_open(struct skald_slice copy, struct skald__pgo_copy *out)
{
	struct reader r = reader_of(copy);
	struct skald__pgo_copy c = { 0 };

	switch (take_byte(&r)) {
	case 'w':
		c.start = take_u64(&r);
		c.end = take_u64(&r);
		c.sent_us = (int64_t)take_u64(&r);
		c.payload = skald_slice_make(r.at, r.left);
		break;
	case 'k':
		c.is_keepalive = true;
		c.end = take_u64(&r);
		c.sent_us = (int64_t)take_u64(&r);
		c.wants_reply = take_byte(&r) != 0;
		if (!r.failed && r.left)
			return "keepalive: too long";
		break;
	default:
		return r.failed ? cut_off : "copy: neither data nor a keepalive";
	}
	if (r.failed)
		return cut_off;
	*out = c;
	return NULL;
}

/* --- relations and rows -------------------------------------------------------------------- */

void
skald__pgo_init(struct skald__pgo *p, unsigned version, const char *schema,
	const char *table, const char *const *wanted, unsigned wanted_count)
{
	SKALD_ASSERT(wanted_count <= SKALD__PGO_WANTED_MAX);
	memset(p, 0, sizeof(*p));
	p->version = version;
	p->schema = schema;
	p->table = table;
	p->wanted = wanted;
	p->wanted_count = wanted_count;
}

static uint8_t
find_wanted(const struct skald__pgo *p, struct skald_slice name)
{
	for (unsigned i = 0; i < p->wanted_count; i++)
		if (skald_slice_is_text(name, p->wanted[i]))
			return (uint8_t)i;
	return NO_COLUMN;
}

/*
 * One table is ours at a time: a table renamed away says so with its next Relation, one
 * made anew under the name has another oid.
 */
static const char *
decode_relation(struct skald__pgo *p, struct reader *r, struct skald__pgo_frame *f)
{
	struct skald_slice schema;

	f->oid = take_u32(r);
	schema = take_text(r);
	f->name = take_text(r);
	(void)take_byte(r); /* replica identity */
	f->count = take_u16(r);
	if (r->failed)
		return cut_off;
	if (f->count > SKALD__PGO_COLUMNS_MAX)
		return "relation: too many columns";
	f->is_ours = skald_slice_is_text(schema, p->schema) &&
		     skald_slice_is_text(f->name, p->table);
	if (!f->is_ours && p->has_table && p->oid == f->oid)
		p->has_table = false;
	if (f->is_ours)
		p->has_table = false; /* until it is read to its end */
	for (uint32_t i = 0; i < f->count && !r->failed; i++) {
		struct skald_slice name;

		(void)take_byte(r); /* flags */
		name = take_text(r);
		(void)take_uint(r, 8); /* type and its modifier */
		if (f->is_ours)
			p->wanted_of[i] = find_wanted(p, name);
	}
	if (f->is_ours && !r->failed) {
		p->has_table = true;
		p->oid = f->oid;
		p->column_count = f->count;
	}
	return NULL;
}

/* One row; its cells are told if the row is ours. */
static const char *
decode_row(const struct skald__pgo *p, struct reader *r, struct skald__pgo_frame *f,
	bool is_told)
{
	uint32_t count = take_u16(r);

	if (r->failed)
		return cut_off;
	if (count > SKALD__PGO_COLUMNS_MAX)
		return "row: too many columns";
	if (f->is_ours && count != p->column_count)
		return "row: not as many columns as its relation";
	f->count = count;
	for (uint32_t i = 0; i < count; i++) {
		uint8_t kind = take_byte(r), wanted;
		struct skald_slice cell = SKALD_SLICE_NULL;

		if (kind == SKALD__CELL_TEXT || kind == SKALD__CELL_BINARY)
			cell = take_counted(r);
		else if (kind != SKALD__CELL_NULL && kind != SKALD__CELL_UNCHANGED)
			return r->failed ? cut_off : "row: a cell of an unknown kind";
		if (r->failed)
			return cut_off;
		wanted = f->is_ours && is_told ? p->wanted_of[i] : NO_COLUMN;
		if (wanted != NO_COLUMN) {
			f->cells[wanted] = cell;
			f->kinds[wanted] = (enum skald__pgo_cell)kind;
		}
	}
	return NULL;
}

/* Inserts have N; updates K or O before it, if the old row is known; deletes K or O. */
static const char *
decode_change(struct skald__pgo *p, struct reader *r, struct skald__pgo_frame *f)
{
	const char *wrong;
	uint8_t part;

	f->oid = take_u32(r);
	f->is_ours = p->has_table && f->oid == p->oid;
	part = take_byte(r);
	if (r->failed)
		return cut_off;
	if (f->type == 'U' && (part == 'K' || part == 'O')) {
		wrong = decode_row(p, r, f, false);
		if (wrong)
			return wrong;
		part = take_byte(r);
	}
	if (r->failed)
		return cut_off;
	if (f->type == 'D' ? part != 'K' && part != 'O' : part != 'N')
		return "change: not the row it should have";
	return decode_row(p, r, f, true);
}

static const char *
decode_truncate(struct reader *r, struct skald__pgo_frame *f)
{
	f->count = take_u32(r);
	(void)take_byte(r); /* cascade, restart identity */
	if (r->failed || f->count > r->left / 4)
		return cut_off;
	(void)take(r, (size_t)f->count * 4);
	return NULL;
}

static void
decode_message(struct reader *r, struct skald__pgo_frame *f)
{
	f->is_transactional = take_byte(r) & 1;
	f->lsn = take_u64(r);
	f->name = take_text(r);
	f->content = take_counted(r);
}

/* --- transactions -------------------------------------------------------------------------- */

static const char *
decode_begin(struct skald__pgo *p, struct reader *r, struct skald__pgo_frame *f)
{
	f->lsn = take_u64(r);
	f->time_us = (int64_t)take_u64(r);
	f->xid = take_u32(r);
	if (r->failed)
		return cut_off;
	if (p->is_in_transaction || p->is_in_stream)
		return "begin: inside a transaction";
	p->is_in_transaction = true;
	p->commit_lsn = f->lsn;
	p->ordinal = 0;
	return NULL;
}

static const char *
decode_commit(struct skald__pgo *p, struct reader *r, struct skald__pgo_frame *f)
{
	if (f->type == 'c')
		f->xid = take_u32(r);
	(void)take_byte(r); /* flags: none yet */
	f->lsn = take_u64(r);
	f->end_lsn = take_u64(r);
	f->time_us = (int64_t)take_u64(r);
	if (r->failed)
		return cut_off;
	if (p->is_in_stream || p->is_in_transaction != (f->type == 'C'))
		return "commit: outside its transaction";
	if (f->type == 'C' && f->lsn != p->commit_lsn)
		return "commit: not the one that was announced";
	if (f->end_lsn < f->lsn)
		return "commit: ends before it begins";
	p->is_in_transaction = false;
	return NULL;
}

/* S and E bracket changes of a transaction that has not committed; c or A decides about it. */
static const char *
decode_stream(struct skald__pgo *p, struct reader *r, struct skald__pgo_frame *f)
{
	if (f->type == 'E') {
		if (!p->is_in_stream)
			return "stream: ends what never began";
		p->is_in_stream = false;
		return NULL;
	}
	f->xid = take_u32(r);
	if (f->type == 'S') {
		f->is_first = take_byte(r) != 0;
	} else {
		f->subxid = take_u32(r);
		if (p->version >= 4) {
			f->lsn = take_u64(r);
			f->time_us = (int64_t)take_u64(r);
		}
	}
	if (r->failed)
		return cut_off;
	if (p->is_in_transaction || p->is_in_stream)
		return "stream: inside another transaction";
	if (f->type == 'S') {
		p->is_in_stream = true;
		p->stream_xid = f->xid;
		p->ordinal =
			0; /* of the block only: blocks of many transactions alternate */
	}
	return NULL;
}

static const char *
decode_body(struct skald__pgo *p, struct reader *r, struct skald__pgo_frame *f)
{
	switch (f->type) {
	case 'B':
		return decode_begin(p, r, f);
	case 'C':
	case 'c':
		return decode_commit(p, r, f);
	case 'S':
	case 'E':
	case 'A':
		return decode_stream(p, r, f);
	case 'R':
		return decode_relation(p, r, f);
	case 'I':
	case 'U':
	case 'D':
		return decode_change(p, r, f);
	case 'T':
		return decode_truncate(r, f);
	case 'M':
		decode_message(r, f);
		return NULL;
	case 'O':
		f->lsn = take_u64(r);
		f->name = take_text(r);
		return NULL;
	case 'Y':
		f->oid = take_u32(r);
		(void)take_text(r); /* schema */
		f->name = take_text(r);
		return NULL;
	}
	return "frame: of an unknown type";
}

const char *
skald__pgo_decode(
	struct skald__pgo *p, struct skald_slice payload, struct skald__pgo_frame *out)
{
	struct reader r = reader_of(payload);
	struct skald__pgo_frame *f = out;
	const char *wrong;

	memset(f, 0, sizeof(*f));
	f->type = (char)take_byte(&r);
	if (r.failed)
		return cut_off;
	if (p->is_in_stream && memchr("RIUDTMY", f->type, 7))
		f->xid = take_u32(
			&r); /* the one that walks a naive decoder off its frame */
	if (memchr("IUDT", f->type, 4)) {
		if (!p->is_in_transaction && !p->is_in_stream)
			return "change: outside a transaction";
		f->ordinal = p->ordinal++;
	}
	wrong = decode_body(p, &r, f);
	if (wrong)
		return wrong;
	if (r.failed)
		return cut_off;
	if (r.left)
		return "frame: longer than what it says";
	return NULL;
}
