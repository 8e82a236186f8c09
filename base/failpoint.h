/*
 * failpoint.h - named places where a test kills the process.
 *
 * Compiled in with -DSKALD_FAILPOINTS=ON only; else nothing remains of them.
 * SKALD_FAILPOINT=name:n in the environment: SIGKILL at the n-th passage.
 * Every name stands in the X-macro list below, with its meaning, so that
 * --list-failpoints prints them all.
 */
#ifndef SKALD_BASE_FAILPOINT_H
#define SKALD_BASE_FAILPOINT_H

#include <stdio.h>

#define SKALD_FAILPOINTS_EACH(X) \
	X(relay_after_tick, "relay: the tick is committed, nothing of it is published") \
	X(relay_after_read, "relay: the rows of a tick are read, none is produced") \
	X(relay_after_produce, "relay: rows are produced, not all acknowledged") \
	X(relay_after_ack, "relay: all rows of a tick acknowledged, not yet recorded") \
	X(relay_before_mark, \
		"relay: before the acknowledged tick and its mark are recorded") \
	X(relay_after_truncate_check, \
		"relay: a leaf is locked and checked, not truncated") \
	X(stream_after_slot, "relay: a slot is made, mode poll still recorded") \
	X(stream_after_enter, "relay: mode wal is recorded, nothing is streamed") \
	X(stream_after_read, "relay: rows came out of the slot, none is produced") \
	X(stream_mid_transaction, "relay: between two rows of a streamed transaction") \
	X(stream_after_produce, \
		"relay: streamed rows are produced, not all acknowledged") \
	X(stream_after_ack, "relay: streamed rows are acknowledged, not recorded") \
	X(stream_after_record, "relay: recorded, the slot is not told yet") \
	X(stream_after_status, "relay: the slot is told how far we are") \
	X(recover_after_leave, "relay: mode poll is recorded, the topics not looked at") \
	X(recover_after_scan, \
		"relay: it is known what the topics hold, nothing is sent") \
	X(park_after_insert, "relay: rows are parked, not counted as acknowledged") \
	X(release_after_load, "relay: a key is let out, nothing of it is produced") \
	X(release_after_produce, "relay: the last row that was let out is produced") \
	X(rebuild_after_destroy, "relay: the dead producer is gone, none follows") \
	X(topics_after_grow, \
		"relay: a topic's new partition count is recorded, not used") \
	X(runner_after_begin, \
		"consumer: the batch transaction is open, no handler has run") \
	X(runner_after_handler, \
		"consumer: the handlers have run, watermarks not written") \
	X(runner_before_commit, "consumer: everything is written, not committed") \
	X(runner_after_commit, "consumer: committed, memory not updated") \
	X(runner_before_offset, "consumer: before the offsets go to Kafka") \
	X(runner_after_dead_letter, "consumer: a dead letter is written, not committed") \
	X(replay_after_claim, \
		"replay: a dead letter is claimed, its handler has not run") \
	X(replay_before_commit, \
		"replay: the handler has run and it is resolved, not committed") \
	X(orchestrator_after_lock, \
		"orchestrator: the touched sagas are locked, the core has not run") \
	X(orchestrator_after_core, "orchestrator: decided, nothing is written") \
	X(orchestrator_before_commit, \
		"orchestrator: everything is written, not committed") \
	X(orchestrator_after_commit, "orchestrator: committed, memory not updated") \
	X(orchestrator_before_offset, "orchestrator: before the offsets go to Kafka") \
	X(orchestrator_after_timer_claim, \
		"orchestrator: due sagas are claimed, nothing is decided") \
	X(participant_after_participate, \
		"participant: the barrier said run, the handler has not run") \
	X(participant_after_work, "participant: the handler has run, no reply yet") \
	X(participant_after_reply, "participant: the reply is written, not committed") \
	X(participant_before_commit, "participant: before the commit of work and reply") \
	X(participant_before_offset, \
		"participant: committed, before the offsets go to Kafka")

enum skald_failpoint {
#define SKALD_FAILPOINT_ENUM(name, meaning) SKALD_FP_##name,
	SKALD_FAILPOINTS_EACH(SKALD_FAILPOINT_ENUM)
#undef SKALD_FAILPOINT_ENUM
		SKALD_FP_COUNT
};

#ifdef SKALD_WITH_FAILPOINTS
#define SKALD_FAILPOINT(name) skald_failpoint_pass(SKALD_FP_##name)
#else
#define SKALD_FAILPOINT(name) ((void)0)
#endif

void skald_failpoint_pass(enum skald_failpoint fp);
void skald_failpoint_list(FILE *out); /* name, tab, meaning */

#endif
