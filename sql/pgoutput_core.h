/*
 * pgoutput_core.h - what the frames of logical replication say (pgoutput, protocols
 * 1 to 4). No memory of its own: cells point into the frame that was given.
 *
 * F1  No byte beyond the frame is read, whatever its lengths claim.
 * F2  A frame is taken whole or refused: nothing may be left over at its end.
 * F3  Columns are found by name in the newest Relation of their oid.
 * F4  A commit ends the transaction whose begin announced it; changes are inside one.
 * F5  ordinal counts every change that was published, of whatever relation, so what is
 *     asked for cannot renumber them.
 */
#ifndef SKALD_SQL_PGOUTPUT_CORE_H
#define SKALD_SQL_PGOUTPUT_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define SKALD__PGO_WANTED_MAX  32
#define SKALD__PGO_COLUMNS_MAX 1664 /* PostgreSQL's MaxTupleAttributeNumber */

/* What CopyData carries. */
struct skald__pgo_copy {
	bool is_keepalive;
	uint64_t start; /* of what the payload tells; 0 of a Relation */
	uint64_t end; /* of the WAL sent so far */
	int64_t sent_us; /* since 2000 */
	bool wants_reply; /* keepalive */
	struct skald_slice payload; /* else */
};

/* NULL, or what is wrong (static text). */
const char *skald__pgo_open(struct skald_slice copy, struct skald__pgo_copy *out);

enum skald__pgo_cell {
	SKALD__CELL_ABSENT, /* no such column */
	SKALD__CELL_NULL = 'n',
	SKALD__CELL_UNCHANGED = 'u', /* out of line and not told again */
	SKALD__CELL_TEXT = 't',
	SKALD__CELL_BINARY = 'b',
};

struct skald__pgo_frame {
	char type; /* B C R I U D T O Y M S E c A */
	uint32_t xid; /* B S c A, and of what is inside a streamed block */
	uint32_t subxid; /* A */
	uint64_t lsn; /* B and C: of the commit record; c too; O and M: theirs */
	uint64_t end_lsn; /* C c: what to confirm */
	int64_t time_us; /* B C c: since 2000 */
	uint32_t oid; /* R I U D Y */
	uint32_t count; /* T: relations; R I U D: columns */
	uint64_t ordinal; /* I U D T: within the transaction */
	bool is_first; /* S: the first block of its transaction */
	bool is_transactional; /* M */
	bool is_ours; /* R I U D: of the table that was asked for */
	struct skald_slice name; /* O: origin; M: prefix; R: table; Y: type */
	struct skald_slice content; /* M */
	/* I U: the new row, D: the old one; if it is ours, in the order of the names asked for */
	struct skald_slice cells[SKALD__PGO_WANTED_MAX]; /* NULL unless text or binary */
	enum skald__pgo_cell kinds[SKALD__PGO_WANTED_MAX];
};

struct skald__pgo {
	/* asked for; borrowed, must outlive this */
	const char *schema;
	const char *table;
	const char *const *wanted;
	unsigned wanted_count;
	unsigned version; /* 4 means streaming 'parallel' where anything is streamed */
	/* learned */
	bool has_table;
	uint32_t oid;
	uint32_t column_count;
	uint8_t wanted_of[SKALD__PGO_COLUMNS_MAX]; /* column -> wanted; or NO_COLUMN */
	/* where we are */
	bool is_in_transaction; /* between B and C */
	bool is_in_stream; /* between S and E */
	uint32_t stream_xid;
	uint64_t commit_lsn; /* announced by B */
	uint64_t ordinal; /* of the next change */
};

void skald__pgo_init(struct skald__pgo *p, unsigned version, const char *schema,
	const char *table, const char *const *wanted, unsigned wanted_count);
/* NULL, or what is wrong (static text); then the stream is of no more use. */
const char *skald__pgo_decode(
	struct skald__pgo *p, struct skald_slice payload, struct skald__pgo_frame *out);

#endif
