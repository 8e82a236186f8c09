/*
 * doctor_own.h - what the files of `skald doctor` share: saying what was found.
 */
#ifndef SKALD_CLI_DOCTOR_OWN_H
#define SKALD_CLI_DOCTOR_OWN_H

#include "cli/own.h"

struct skald_cluster;

#define SKALD__DOCTOR_KAFKA_MS 4000 /* one question to the brokers */

enum skald__verdict { SKALD_VERDICT_OK, SKALD_VERDICT_WARN, SKALD_VERDICT_FAIL };

struct skald__doctor {
	struct skald__cli *cli;
	const char *source; /* that is looked at; NULL: none in particular */
	unsigned counts[3];
	char grant
		[200]; /* the fix when this session may not look: GRANT skald_reader ... */
};

/* One line. fix can be pasted, into psql or a shell; NULL: there is none. */
void skald__doctor_say(struct skald__doctor *doctor, enum skald__verdict verdict,
	const char *check, const char *fix, const char *fmt, ...) SKALD_PRINTF(5, 6);
/* One row of text; false when it could not be asked: *why says so, or is another's matter. */
bool skald__doctor_ask(struct skald_sql *sql, const char *statement,
	struct skald_rows **rows, struct skald_err *err);
/* " --source NAME", or "" for [database]: for commands in fixes. */
const char *skald__doctor_source_flag(
	const struct skald__doctor *doctor, char *dst, size_t dst_bytes);

/* doctor_outbox.c: ring, sequence, relay, backlog, parked keys, retention. */
void skald__doctor_outbox(struct skald__doctor *doctor, struct skald_sql *sql);
/* doctor_wal.c: what mode wal needs; slots that are left over in mode poll, too; the gate. */
void skald__doctor_wal(struct skald__doctor *doctor, struct skald_sql *sql);
/* doctor_topics.c: topics that are written to, their settings against what is written. */
void skald__doctor_topics(struct skald__doctor *doctor, struct skald_cluster *cluster,
	struct skald_sql *sql);
/* One topic: there, or made when needed, or missing. Answers its partitions, 0: none. */
int32_t skald__doctor_topic(
	struct skald__doctor *doctor, struct skald_cluster *cluster, const char *topic);
/* doctor_position.c: is what the topics hold of our stream what the database knows? */
void skald__doctor_position(struct skald__doctor *doctor, struct skald_cluster *cluster,
	struct skald_sql *sql);

#endif
