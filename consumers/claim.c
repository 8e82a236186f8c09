/*
 * claim.c - partitions: taken over with a new term, read from where their lanes
 * are, stopped loudly when the log is not the one that was read.
 *
 * Kafka's group says who should read; the term in consumer_lane says who may
 * write. A former owner that is caught in a transaction (stopped, cut off) is
 * ended: Kafka has already given it up, and its locks would hold up the new one.
 */
#include "consumers/own.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

#define RETRY_MS    300
#define CONNECT_MS  100
#define CONNECT_MAX 5000
#define CLAIMS_MAX  4
#define CLAIMS_TOLD 4 /* a second of trying is not worth a word */

/* A session of a former owner that is in a transaction holds what the new owner needs. */
static void
end_former_owners(struct skald_consumer *c, const struct skald__part *part)
{
	static const char statement[] =
		"SELECT pg_terminate_backend(a.pid)"
		" FROM skald.consumer_owners($1, ARRAY[$2::text], ARRAY[$3::int]) o"
		" JOIN pg_stat_activity a ON a.pid = o.backend_pid"
		" WHERE a.pid <> pg_backend_pid() AND a.datname = current_database()"
		" AND a.xact_start IS NOT NULL"
		" AND a.application_name = 'skald consumer ' || "
		"substring(o.owner from '[^:]*$')";
	struct skald_param params[3];
	struct skald_rows *rows = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	char partition[24];

	params[0] = skald_param_text(c->conf.group);
	params[1] = skald_param_text(part->topic);
	params[2] = skald_param_int(part->partition, partition);
	if (skald_sql_query(c->sql, statement, params, 3, false, &rows, &err)) {
		skald_log_err(SKALD_LOG_WARN, &err,
			"could not end the session of the former owner");
		return;
	}
	if (skald_rows_count(rows) > 0)
		skald_log(SKALD_LOG_WARN,
			"ended a session that a former owner left in a transaction: "
			"group=%s topic=%s partition=%d",
			c->conf.group, part->topic, (int)part->partition);
	skald_rows_free(rows);
}

static enum skald_rc
load_positions(struct skald_consumer *c, struct skald__part *part, struct skald_err *err)
{
	struct skald_param params[3];
	struct skald_rows *rows = NULL;
	char partition[24];
	enum skald_rc rc;

	params[0] = skald_param_text(c->conf.group);
	params[1] = skald_param_text(part->topic);
	params[2] = skald_param_int(part->partition, partition);
	rc = skald_sql_query(c->sql,
		"SELECT lane, stream, position FROM skald.consumer_positions($1, $2, "
		"$3::int)",
		params, 3, false, &rows, err);
	if (rc)
		return rc;
	for (unsigned i = 0; i < skald_rows_count(rows) && !rc; i++) {
		int64_t lane = skald_rows_int(rows, i, 0, -1);
		struct skald_slice stream = skald_rows_get(rows, i, 1);
		struct skald_position position;
		char text[SKALD_STREAM_TEXT_BYTES];

		if (lane < 0 || lane >= part->lanes.lane_count ||
			!skald_slice_copy(stream, text, sizeof(text)) ||
			!skald_position_parse(skald_rows_get(rows, i, 2), &position))
			continue; /* not ours: another version's, or written by hand */
		while (!rc && !skald__lane_set_position(&part->lanes, (unsigned)lane,
				      strtoull(text, NULL, 16), position))
			rc = skald__part_grow(part, err);
	}
	skald_rows_free(rows);
	return rc;
}

/* Terms up, watermarks as the database has them. *fell: it knows less than we did. */
static enum skald_rc
claim_rows(struct skald_consumer *c, struct skald__part *part, int64_t begin, bool *fell,
	struct skald_err *err)
{
	static const char statement[] =
		"SELECT lane, done, term, seen_offset, seen_digest, stopped IS NOT NULL"
		" FROM skald.consumer_claim($1, $2, $3::int, $4::int, $5, $6::bigint)";
	struct lane_core before = part->lanes;
	struct skald_param params[6];
	struct skald_rows *rows = NULL;
	char partition[24], lanes[24], offset[24];
	enum skald_rc rc = SKALD_RETRY;
	unsigned count;

	params[0] = skald_param_text(c->conf.group);
	params[1] = skald_param_text(part->topic);
	params[2] = skald_param_int(part->partition, partition);
	params[3] = skald_param_int(c->conf.lanes, lanes);
	params[4] = skald_param_text(c->owner);
	params[5] = skald_param_int(begin, offset);
	for (unsigned i = 0; i < CLAIMS_MAX; i++) {
		end_former_owners(c, part);
		rc = skald_sql_query(c->sql, statement, params, 6, false, &rows, err);
		if (rc != SKALD_RETRY || !skald_err_is_conflict(err))
			break;
	}
	if (rc)
		return rc;
	count = skald_rows_count(rows);
	if (count < 1 || count > LANES_MAX) {
		skald_rows_free(rows);
		return skald_fail(err, SKALD_FATAL, "skald", "",
			"consumer_lane: %u lanes of %s/%d", count, part->topic,
			(int)part->partition);
	}
	if (count != c->conf.lanes && !c->is_lanes_told) {
		c->is_lanes_told = true;
		skald_log(SKALD_LOG_WARN,
			"lanes: %u were fixed at the first use of group %s, not %u",
			count, c->conf.group, c->conf.lanes);
	}
	free(part->lanes.marks);
	skald__lane_init(&part->lanes, count);
	*fell = false;
	for (unsigned i = 0; i < count; i++) {
		int64_t done = skald_rows_int(rows, i, 1, 0);

		skald__lane_set(&part->lanes, i, done);
		*fell = *fell || (before.lane_count == count && done < before.applied[i]);
	}
	part->term = skald_rows_int(rows, 0, 2, 0);
	part->seen_offset = skald_rows_int(rows, 0, 3, -1);
	part->seen_digest = skald_rows_int(rows, 0, 4, 0);
	part->clears_stop = skald_rows_bool(rows, 0, 5);
	part->is_seen_dirty = false;
	skald_rows_free(rows);
	return load_positions(c, part, err);
}

/* Where to read from; stops the partition when the log is not the one that was read. */
static enum skald_rc
place(struct skald_consumer *c, struct skald__part *part, int64_t lo, int64_t hi,
	struct skald_err *err)
{
	int64_t start = skald__lane_start(&part->lanes);
	char why[200];

	part->check_offset = -1;
	part->ticked = -1;
	part->state = PART_ACTIVE;
	if (start < lo || start > hi) {
		if (c->is_dev)
			return skald__part_restart(c, part, lo, err);
		(void)snprintf(why, sizeof(why),
			start > hi ? "the topic was recreated: %lld is done, its log "
				     "ends at %lld"
				   : "records expired unread: %lld is next, the log "
				     "begins at %lld",
			(long long)start, (long long)(start > hi ? hi : lo));
		skald__part_stop(c, part, why);
		return SKALD_OK;
	}
	part->next = start;
	if (part->seen_offset >= lo && part->seen_offset < start) {
		part->next = part->seen_offset;
		part->check_offset = part->seen_offset;
		part->check_digest = part->seen_digest;
	} else if (part->clears_stop) {
		skald__part_unstop(c, part);
	}
	skald__part_count(c);
	return SKALD_OK;
}

static enum skald_rc
claim(struct skald_consumer *c, struct skald__part *part, struct skald_err *err)
{
	int64_t lo = 0, hi = 0;
	bool fell;
	enum skald_rc rc;

	rc = skald_kafka_consumer_offsets(
		c->kafka, part->topic, part->partition, SKALD__OFFSETS_MS, &lo, &hi, err);
	if (!rc && part->next < 0)
		part->next = lo; /* a guess to read from until it is claimed */
	if (!rc && (!c->sql || !skald_sql_is_open(c->sql)))
		rc = skald_fail(err, SKALD_RETRY, "pg", "08003", "not connected");
	if (!rc)
		rc = claim_rows(c, part, lo, &fell, err);
	if (!rc)
		rc = place(c, part, lo, hi, err);
	if (rc) {
		part->state = PART_PENDING;
		part->claim_at_ms = skald_mono_ms() + RETRY_MS;
		part->claim_tries++;
		return rc;
	}
	part->claim_tries = 0;
	if (part->state == PART_ACTIVE)
		skald_log(SKALD_LOG_INFO,
			"partition claimed group=%s topic=%s partition=%d term=%lld "
			"offset=%lld",
			c->conf.group, part->topic, (int)part->partition,
			(long long)part->term, (long long)part->next);
	return SKALD_OK;
}

static void
note_failure(struct skald_consumer *c, const struct skald__part *part, enum skald_rc rc,
	const struct skald_err *err)
{
	if (!c->sql)
		return; /* whoever connects says why not */
	if (rc == SKALD_RETRY && part->claim_tries < CLAIMS_TOLD)
		return;
	if (rc == SKALD_FATAL)
		skald__consumer_fatal(c, rc, err);
	else
		skald__consumer_trouble(c, err);
}

static void
on_assigned(struct skald_consumer *c, struct skald_kafka_partition *p, unsigned count)
{
	int64_t until_ms = skald_mono_ms() + SKALD__CLAIM_MS;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;

	for (unsigned i = 0; i < count; i++) {
		struct skald__part *part = skald__part_add(c, p[i].topic, p[i].partition);

		p[i].offset = -1;
		if (!part) {
			(void)skald_fail(
				&err, SKALD_RETRY, "skald", "53200", "out of memory");
			c->wants_reopen = true;
			continue;
		}
		part->state = PART_PENDING;
		part->claim_at_ms = 0;
		/* What takes too long waits in the loop: the group wants an answer. */
		if (skald_mono_ms() < until_ms && (rc = claim(c, part, &err)) != SKALD_OK)
			note_failure(c, part, rc, &err);
		/* A pending one is read from its begin for now and sought when claimed. */
		if (part->state == PART_ACTIVE)
			p[i].offset = part->next;
		else if (part->state == PART_PENDING)
			p[i].offset = part->next >= 0 ? part->next : 0;
	}
	skald__part_count(c);
}

void
skald__claim_on_group(enum skald_group_event event,
	struct skald_kafka_partition *partitions, unsigned count, void *ctx)
{
	struct skald_consumer *c = ctx;

	switch (event) {
	case SKALD_GROUP_ASSIGNED:
		skald_log(SKALD_LOG_INFO, "assigned group=%s partitions=%u",
			c->conf.group, count);
		on_assigned(c, partitions, count);
		return;
	case SKALD_GROUP_REVOKED:
	case SKALD_GROUP_LOST:
		skald_log(SKALD_LOG_INFO, "%s group=%s partitions=%u",
			event == SKALD_GROUP_LOST ? "lost" : "revoked", c->conf.group,
			count);
		if (event == SKALD_GROUP_REVOKED && c->core.state == RUN_IDLE)
			skald__tick(c); /* the next owner starts where we are */
		skald__consumer_drop(c);
		for (unsigned i = 0; i < count; i++)
			skald__part_remove(
				c, partitions[i].topic, partitions[i].partition);
		skald__part_count(c);
		return;
	}
}

void
skald__claim_on_stopped(
	const char *topic, int32_t partition, const struct skald_err *err, void *ctx)
{
	struct skald_consumer *c = ctx;
	struct skald__part *part = skald__part_find(c, topic, partition);

	if (!part || part->state == PART_STOPPED)
		return;
	if (part->state == PART_PENDING) {
		c->wants_reopen = true; /* it was read from a guess */
		return;
	}
	if (c->is_dev) {
		skald_log_err(SKALD_LOG_WARN, err,
			"the dev broker dropped records topic=%s partition=%d", topic,
			(int)partition);
		skald__part_lose(c, part, INT64_MAX); /* until the group is joined anew */
		c->wants_reopen = true;
		return;
	}
	skald__part_stop(c, part, err->text);
}

static void
seek(struct skald_consumer *c, struct skald__part *part)
{
	struct skald_err err = SKALD_ERR_INIT;

	if (skald_kafka_consumer_seek(
		    c->kafka, part->topic, part->partition, part->next, &err)) {
		part->state = PART_PENDING;
		part->claim_at_ms = skald_mono_ms() + RETRY_MS;
		skald__consumer_trouble(c, &err);
	}
}

void
skald__claim_pending(struct skald_consumer *c, int64_t now_ms)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;

	for (unsigned i = 0; i < c->part_count; i++) {
		struct skald__part *part = c->parts[i];

		if (part->state != PART_PENDING || part->claim_at_ms > now_ms)
			continue;
		rc = claim(c, part, &err);
		if (rc) {
			note_failure(c, part, rc, &err);
			if (!c->sql || !skald_sql_is_open(c->sql))
				return;
		} else if (part->state == PART_ACTIVE) {
			seek(c, part);
		}
	}
}

/* After a new session: the same partitions, a new term, and what was committed unknown to us. */
static enum skald_rc
reclaim(struct skald_consumer *c, struct skald__part *part, struct skald_err *err)
{
	bool fell = false;
	enum skald_rc rc = claim_rows(c, part, part->next, &fell, err);

	if (rc == SKALD_RETRY && skald_err_is_conflict(err)) {
		part->state = PART_PENDING;
		part->claim_at_ms = skald_mono_ms() + RETRY_MS;
		return SKALD_OK;
	}
	if (rc || !fell)
		return rc;
	/* The server lost commits that it had acknowledged (synchronous_commit off). */
	skald_log(SKALD_LOG_WARN,
		"the database lost commits: read again group=%s topic=%s partition=%d "
		"offset=%lld",
		c->conf.group, part->topic, (int)part->partition,
		(long long)skald__lane_start(&part->lanes));
	skald__part_lose(c, part, 0);
	part->state = PART_ACTIVE;
	part->next = skald__lane_start(&part->lanes);
	part->ticked = -1;
	seek(c, part);
	return SKALD_OK;
}

enum skald_rc
skald__claim_connect(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_sql_conf conf = {
		.url = c->conf.url, .kind = SKALD_SQL_SERVICE, .connect_timeout_ms = 3000
	};
	char application[40];
	enum skald_rc rc;

	skald_sql_close(c->sql);
	c->sql = NULL;
	(void)snprintf(application, sizeof(application), "skald consumer %s", c->token);
	conf.application = application;
	rc = skald_sql_open(&c->sql, &conf, err);
	if (!rc)
		rc = skald_migrate_check(c->sql, err);
	for (unsigned i = 0; i < c->part_count && !rc; i++)
		if (c->parts[i]->state == PART_ACTIVE)
			rc = reclaim(c, c->parts[i], err);
	if (!rc) {
		if (c->delivery_count > 0)
			skald__batch_decide(c, c->core.lo);
		c->connect_tries = 0;
		return SKALD_OK;
	}
	skald_sql_close(c->sql);
	c->sql = NULL;
	c->connect_tries++;
	c->connect_at_ms = skald_mono_ms() + skald_backoff_ms(&c->rand, c->connect_tries,
						     CONNECT_MS, CONNECT_MAX);
	return rc;
}
