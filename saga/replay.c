/*
 * replay.c - dead letters that an operator wants again: each becomes the only message
 * of a batch, which ends it with what it does.
 */
#include "saga/own.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

void
skald__saga_replay_drop(struct skald_orchestrator *o)
{
	skald_rows_free(o->replay.rows);
	free(o->replay.headers);
	memset(&o->replay, 0, sizeof(o->replay));
}

/* Into the hand, if there is one. */
enum skald_rc
skald__saga_replay_claim(struct skald_orchestrator *o, struct skald_err *err)
{
	struct skald_param group = skald_param_text(o->group);
	struct saga__replay *r = &o->replay;
	enum skald_rc rc;
	size_t count;

	skald__saga_replay_drop(o);
	rc = skald_sql_query(o->sql,
		"SELECT id::text, version, topic, partition, record_offset, key, value,"
		" headers_raw FROM skald.orchestrator_replay($1)",
		&group, 1, true, &r->rows, err);
	if (rc || skald_rows_count(r->rows) == 0)
		return rc;
	(void)skald_slice_copy(skald_rows_get(r->rows, 0, 0), r->id, sizeof(r->id));
	(void)skald_slice_copy(skald_rows_get(r->rows, 0, 2), r->topic, sizeof(r->topic));
	r->version = skald_rows_int(r->rows, 0, 1, 0);
	r->record = (struct skald_kafka_record){ .topic = r->topic,
		.partition = (int32_t)skald_rows_int(r->rows, 0, 3, 0),
		.offset = skald_rows_int(r->rows, 0, 4, 0),
		.key = skald_rows_get(r->rows, 0, 5),
		.value = skald_rows_get(r->rows, 0, 6) };
	rc = skald_headers_unpack(
		skald_rows_get(r->rows, 0, 7), &r->headers, &count, err);
	if (rc)
		return skald_fail_in(err, SKALD_RETRY, "dead letter %s", r->id);
	r->record.headers = (struct skald_headers){ r->headers, count };
	r->part = (struct saga__part){ .topic = r->topic,
		.is_reply = strcmp(r->topic, o->reply_topic) == 0,
		.partition = r->record.partition,
		.done = -1 };
	o->msgs[0] =
		(struct saga__msg){ .record = &r->record, .part = &r->part, .replay = r };
	o->msg_count = 1;
	o->msg_next = 0;
	return SKALD_OK;
}

/* In the batch's transaction: it is resolved, or still dead for another reason. */
enum skald_rc
skald__saga_replay_end(
	struct skald_orchestrator *o, const struct saga__msg *msg, struct skald_err *err)
{
	char version[24];
	struct skald_param params[] = { skald_param_text(msg->replay->id),
		skald_param_int(msg->replay->version, version),
		skald_param_text(msg->is_dead ? "dead" : "resolved"),
		skald_param_text(msg->is_dead ? "DECODE" : NULL),
		skald_param_text(msg->is_dead ? msg->code : NULL),
		skald_param_text(msg->is_dead ? msg->why.text : NULL) };

	skald_log(SKALD_LOG_INFO, "replay: %s id=%s",
		msg->is_dead ? "still dead" : "resolved", msg->replay->id);
	return skald_pipe_send(o->sql,
		"SELECT skald.consumer_replay_end($1::uuid, $2::int, $3, $4, $5, $6)",
		params, 6, false, err);
}
