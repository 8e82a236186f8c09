/*
 * limits.h - every limit of the library, each with its reason.
 */
#ifndef SKALD_BASE_LIMITS_H
#define SKALD_BASE_LIMITS_H

/* What a message may hold (docs/protocol.md; the SQL functions enforce the same). */
#define SKALD_DATA_BYTES_MAX \
	(16 * 1024 * 1024) /* outbox data: a record Kafka still likes */
#define SKALD_KEY_BYTES_MAX     (32 * 1024)
#define SKALD_TOPIC_BYTES_MAX   249 /* Kafka's own limit */
#define SKALD_TYPE_BYTES_MAX    255
#define SKALD_SUBJECT_BYTES_MAX 255
#define SKALD_SOURCE_BYTES_MAX  255
#define SKALD_ID_TEXT_BYTES_MAX 255 /* correlation and causation ids */
#define SKALD_HEADERS_BYTES_MAX 8192 /* header values together */
#define SKALD_HEADERS_COUNT_MAX 100
#define SKALD_RECORD_BYTES_MAX \
	(SKALD_DATA_BYTES_MAX + 128 * 1024) /* data, key, headers */

/* JSON: deep enough for people, shallow enough for the stack. */
#define SKALD_JSON_DEPTH_MAX 64

/* Relay. */
#define SKALD_RELAY_CHUNK_ROWS     10000 /* rows fetched at once */
#define SKALD_RELAY_INFLIGHT_ROWS  50000 /* produced, not acknowledged: bounds memory */
#define SKALD_RELAY_INFLIGHT_BYTES (32 * 1024 * 1024)
#define SKALD_OUTBOX_LEAVES        8
#define SKALD_OUTBOX_LEAF_SHIFT    20 /* a leaf holds 2^20 ids, then the next begins */

/* A loop sleeps on a session, a producer, a consumer and the like: 63 is ample. */
#define SKALD_WAKE_FDS_MAX 63

/* A log line, end included: PIPE_BUF, so that one write(2) is never interleaved. */
#define SKALD_LOG_LINE_BYTES_MAX 4096

/* Leases (database clock). */
#define SKALD_LEASE_MS       2000
#define SKALD_LEASE_RENEW_MS 500

/* Consumer. */
#define SKALD_LOCK_TIMEOUT_MS 200

#endif
