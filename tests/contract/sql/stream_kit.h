/*
 * stream_kit.h - what the tests of logical replication share: one database with Skald's
 * schema, a stream of its outbox, the next item within a time limit.
 */
#ifndef SKALD_TESTS_CONTRACT_SQL_STREAM_KIT_H
#define SKALD_TESTS_CONTRACT_SQL_STREAM_KIT_H

#include "sql/sql.h"
#include "tests/support/pg.h"

#define KIT_DATABASE "stream"
#define KIT_COLUMNS \
	"id, message_id, at, topic, key, type, headers, data, xid, expires_at, " \
	"not_there"

enum {
	KIT_ID,
	KIT_MESSAGE_ID,
	KIT_AT,
	KIT_TOPIC,
	KIT_KEY,
	KIT_TYPE,
	KIT_HEADERS,
	KIT_DATA,
	KIT_XID,
	KIT_EXPIRES_AT,
	KIT_NOT_THERE,
	KIT_COLUMN_COUNT
};

/* Connected only; more: conninfo options to add, or NULL. */
struct skald_stream *kit_open(const char *slot, const char *more);
/* The slot made, waiting for it; returns where it begins. */
uint64_t kit_make_slot(const char *slot);
/* Connected and streaming; the slot is there. */
struct skald_stream *kit_start(const char *slot, uint64_t lsn, const char *more);
/* Once the walsender has noticed the end of its client. */
void kit_drop_slot(const char *slot);
void kit_wait_inactive(const char *slot);

/*
 * The next item, over keepalives (answered with confirmed_lsn); NOTHING: none within
 * ms. A failure ends the process.
 */
enum skald_stream_kind kit_next(struct skald_stream *s, uint64_t confirmed_lsn,
	int64_t ms, struct skald_stream_item *item);
/*
 * One transaction: the topics of its rows as "a,b:ordinal,..." in text, the item of its
 * COMMIT in *commit. Returns the number of rows, -1: no transaction within ms.
 */
int kit_transaction(struct skald_stream *s, int64_t ms, char *text, size_t text_bytes,
	struct skald_stream_item *commit);

#endif
