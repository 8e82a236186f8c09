/*
 * replay.c - dead letters that an operator wants again, run by the owner of their
 * partition, between two batches: that is the message's own lane, so nothing of
 * its key runs beside it. Effects and `resolved` commit together; the version
 * shuts out whoever claimed it before.
 */
#include "consumers/own.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/limits.h"
#include "base/log.h"

struct replay {
	char id[SKALD_UUID_TEXT_BYTES];
	int64_t version;
	char topic[SKALD_TOPIC_BYTES_MAX + 1];
	struct skald_rows *rows;
	struct skald_header *headers;
	struct skald_delivery d;
};

static void
replay_done(struct replay *r)
{
	skald_rows_free(r->rows);
	free(r->headers);
}

/* The oldest one asked for, now claimed by us; *found = false: none. */
static enum skald_rc
claim(struct skald_consumer *c, struct replay *r, bool *found, struct skald_err *err)
{
	static const char statement[] =
		"SELECT id::text, version, topic, partition, record_offset, record_ms,"
		" key, value, headers_raw, attempts"
		" FROM skald.consumer_replay_claim($1, $2::text[], $3::int[], "
		"$4::bigint[])";
	struct skald_param params[4];
	unsigned count = 0;
	enum skald_rc rc;

	for (unsigned i = 0; i < 3; i++) {
		skald_buf_clear(&c->args[i]);
		skald_array_begin(&c->args[i]);
	}
	for (unsigned i = 0; i < c->part_count; i++) {
		const struct skald__part *part = c->parts[i];

		if (part->state != PART_ACTIVE)
			continue;
		skald_array_add_text(&c->args[0], skald_slice_text(part->topic));
		skald_array_add_int(&c->args[1], part->partition);
		skald_array_add_int(&c->args[2], part->term);
		count++;
	}
	*found = false;
	if (count == 0)
		return SKALD_OK;
	params[0] = skald_param_text(c->conf.group);
	for (unsigned i = 0; i < 3; i++) {
		skald_array_end(&c->args[i]);
		if (c->args[i].failed)
			return skald_fail(
				err, SKALD_RETRY, "skald", "53200", "out of memory");
		params[i + 1] = skald_param_text(c->args[i].data);
	}
	rc = skald_sql_query(c->sql, statement, params, 4, true, &r->rows, err);
	if (!rc)
		*found = skald_rows_count(r->rows) > 0;
	return rc;
}

/* The record as it came, from the claimed row. */
static enum skald_rc
load(struct skald_consumer *c, struct replay *r, struct skald_err *err)
{
	struct skald_kafka_record *record = &r->d.record;
	enum skald_rc rc;
	size_t count;

	if (!skald_slice_copy(skald_rows_get(r->rows, 0, 0), r->id, sizeof(r->id)) ||
		!skald_slice_copy(
			skald_rows_get(r->rows, 0, 2), r->topic, sizeof(r->topic)))
		return skald_fail(err, SKALD_REJECT, "message", "invalid",
			"dead letter: its id or topic is too long");
	r->version = skald_rows_int(r->rows, 0, 1, 0);
	r->d.consumer = c;
	r->d.is_replay = true;
	r->d.attempt = (unsigned)skald_rows_int(r->rows, 0, 9, 0) + 1;
	record->topic = r->topic;
	record->partition = (int32_t)skald_rows_int(r->rows, 0, 3, 0);
	record->offset = skald_rows_int(r->rows, 0, 4, 0);
	record->timestamp_ms = skald_rows_int(r->rows, 0, 5, -1);
	record->key = skald_rows_get(r->rows, 0, 6);
	record->value = skald_rows_get(r->rows, 0, 7);
	rc = skald_headers_unpack(
		skald_rows_get(r->rows, 0, 8), &r->headers, &count, err);
	if (rc)
		return rc;
	record->headers = (struct skald_headers){ r->headers, count };
	return SKALD_OK;
}

static enum skald_rc
send_end(struct skald_consumer *c, const struct replay *r, const char *state,
	const char *class, const struct skald_err *why, struct skald_err *err)
{
	char version[24];
	struct skald_param params[6];

	params[0] = skald_param_text(r->id);
	params[1] = skald_param_int(r->version, version);
	params[2] = skald_param_text(state);
	params[3] = skald_param_text(class);
	params[4] = skald_param_text(why ? why->code : NULL);
	params[5] = skald_param_text(why ? why->text : NULL);
	return skald_sql_query(c->sql,
		"SELECT skald.consumer_replay_end($1::uuid, $2::int, $3, $4, $5, $6)",
		params, 6, false, NULL, err);
}

/* Handler and `resolved` in one transaction. */
static enum skald_rc
apply(struct skald_consumer *c, struct replay *r, struct skald_err *err)
{
	enum skald_rc rc;

	skald__participant_reset(c);
	rc = skald__range_begin(c, err);
	if (!rc)
		rc = skald__handler_call(c, &r->d, err);
	if (!rc)
		rc = skald__participant_flush(c, err);
	if (!rc)
		rc = send_end(c, r, "resolved", NULL, NULL, err);
	if (!rc) {
		SKALD_FAILPOINT(replay_before_commit);
		rc = skald_sql_exec(c->sql, "COMMIT", err);
	}
	if (rc)
		skald_sql_rollback(c->sql);
	return rc;
}

/* Not applied: back to the queue of the dead, or over. */
static void
give_back(struct skald_consumer *c, struct replay *r, const char *state,
	const char *class, const struct skald_err *why)
{
	struct skald_err err = SKALD_ERR_INIT;

	skald__dead_note(&r->d, class, why);
	if (send_end(c, r, state, class, &r->d.why, &err))
		skald_log_err(SKALD_LOG_WARN, &err,
			"could not note the outcome of a replay id=%s", r->id);
}

static void
log_outcome(struct skald_consumer *c, struct replay *r, const char *outcome,
	const struct skald_err *why)
{
	skald__delivery_use(c, &r->d);
	if (why)
		skald_log_err(SKALD_LOG_WARN, why, "replay: %s id=%s", outcome, r->id);
	else
		skald_log(SKALD_LOG_INFO, "replay: %s id=%s", outcome, r->id);
	skald__delivery_use(c, NULL);
}

static void
run(struct skald_consumer *c, struct replay *r)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = skald__envelope_read(&r->d.record, &r->d.envelope, &err);

	if (!rc)
		rc = skald__participant_find(c, &r->d, &err);
	if (rc) {
		give_back(c, r, "dead", "DECODE", &err);
		log_outcome(c, r, "still dead", &err);
		return;
	}
	if (r->d.envelope.expires_at_us && !r->d.route &&
		r->d.envelope.expires_at_us < skald_wall_us()) {
		(void)skald_fail(&err, SKALD_REJECT, "message", "expired",
			"ce_expirytime: is over");
		give_back(c, r, "expired", NULL, &err);
		log_outcome(c, r, "expired", &err);
		return;
	}
	if (c->wants && !c->wants(r->d.envelope.type, c->wants_ctx)) {
		(void)skald_fail(&err, SKALD_REJECT, "message", "type",
			"ce_type: nothing here handles it any more");
		give_back(c, r, "dead", "FATAL", &err);
		log_outcome(c, r, "still dead", &err);
		return;
	}
	rc = apply(c, r, &err);
	if (!rc) {
		atomic_fetch_add(c->count.replayed, 1);
		log_outcome(c, r, "resolved", NULL);
		if (c->conf.relay_wake)
			skald_wake_up(c->conf.relay_wake);
		return;
	}
	switch (skald__fault_of(c, rc, &err)) {
	case RUN_CONFLICT:
	case RUN_OUTAGE:
		skald__consumer_trouble(c, &err); /* stays claimed: we claim it again */
		return;
	case RUN_FATAL:
		give_back(c, r, "dead", "FATAL", &err);
		log_outcome(c, r, "the handler wants to stop", &err);
		skald__consumer_fatal(c, rc, &err);
		return;
	case RUN_FENCED:
	case RUN_FAILED:
	case RUN_REJECTED:
		give_back(c, r, "dead", rc == SKALD_REJECT ? "FATAL" : "RETRY", &err);
		log_outcome(c, r, "still dead", &err);
		return;
	}
}

bool
skald__replay_turn(struct skald_consumer *c)
{
	struct replay r = { .rows = NULL };
	struct skald_err err = SKALD_ERR_INIT;
	bool found = false;
	enum skald_rc rc;

	if (!c->sql || c->core.state != RUN_IDLE)
		return false;
	rc = claim(c, &r, &found, &err);
	if (rc || !found)
		goto out;
	SKALD_FAILPOINT(replay_after_claim);
	rc = load(c, &r, &err);
	if (rc == SKALD_REJECT) {
		give_back(c, &r, "dead", "DECODE", &err);
		rc = SKALD_OK;
	} else if (!rc) {
		run(c, &r);
	}
out:
	if (rc)
		skald__consumer_trouble(c, &err);
	replay_done(&r);
	return found && !rc;
}
