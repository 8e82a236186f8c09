/*
 * tick.c - once a second: idle lanes follow, the newest applied record and the
 * log's end are noted, Kafka gets the offsets as a hint. And who fenced us.
 */
#include "consumers/own.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

enum { T_TOPIC, T_PARTITION, T_TERM, T_FRONTIER, T_SEEN, T_DIGEST, T_END, T_COUNT };

static void
begin_arrays(struct skald_consumer *c, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		skald_buf_clear(&c->args[i]);
		skald_array_begin(&c->args[i]);
	}
}

static enum skald_rc
end_arrays(struct skald_consumer *c, unsigned count, struct skald_param *params,
	struct skald_err *err)
{
	for (unsigned i = 0; i < count; i++) {
		skald_array_end(&c->args[i]);
		if (c->args[i].failed)
			return skald_fail(
				err, SKALD_RETRY, "skald", "53200", "out of memory");
		params[i] = skald_param_text(c->args[i].data);
	}
	return SKALD_OK;
}

/*
 * The other owner is right as a rule, and the group will say so. When it does not
 * within a session's time, it was a zombie that claimed late: claim again.
 */
static void
lose_to_other(struct skald_consumer *c, struct skald__part *part)
{
	skald_log(SKALD_LOG_WARN,
		"another owner took the lanes group=%s topic=%s partition=%d",
		c->conf.group, part->topic, (int)part->partition);
	skald__part_lose(c, part, skald_mono_ms() + c->conf.session_timeout_ms);
}

/* What is in hand is not done: then only the log's end is told. */
static bool
is_settled(const struct skald_consumer *c, const struct skald__part *part)
{
	return c->core.state == RUN_IDLE && part->check_offset < 0;
}

static bool
is_changed(const struct skald_consumer *c, const struct skald__part *part, int64_t end)
{
	return end != part->end ||
	       (is_settled(c, part) &&
		       (part->is_seen_dirty || part->next != part->ticked));
}

static void
add_known(struct skald_buf *array, bool is_known, int64_t value)
{
	if (is_known)
		skald_array_add_int(array, value);
	else
		skald_array_add_text(array, SKALD_SLICE_NULL);
}

static void
add_part(struct skald_consumer *c, const struct skald__part *part)
{
	bool has_seen = is_settled(c, part) && part->is_seen_dirty;

	skald_array_add_text(&c->args[T_TOPIC], skald_slice_text(part->topic));
	skald_array_add_int(&c->args[T_PARTITION], part->partition);
	skald_array_add_int(&c->args[T_TERM], part->term);
	add_known(&c->args[T_FRONTIER], is_settled(c, part), part->next);
	add_known(&c->args[T_SEEN], has_seen, part->seen_offset);
	add_known(&c->args[T_DIGEST], has_seen, part->seen_digest);
	add_known(&c->args[T_END], part->end >= 0, part->end);
}

/* The asynchronous hint for lag tools; the truth is in consumer_lane. */
static void
hint(struct skald_consumer *c)
{
	struct skald_kafka_partition list[64];
	unsigned count = 0;

	SKALD_FAILPOINT(runner_before_offset);
	for (unsigned i = 0; i < c->part_count; i++) {
		struct skald__part *part = c->parts[i];

		if (!part->is_ticking || part->state != PART_ACTIVE ||
			!is_settled(c, part) || part->next <= part->hinted)
			continue;
		part->hinted = part->next;
		list[count++] = (struct skald_kafka_partition){ part->topic,
			part->partition, part->next };
		if (count == sizeof(list) / sizeof(list[0])) {
			skald_kafka_consumer_commit(c->kafka, list, count);
			count = 0;
		}
	}
	if (count > 0)
		skald_kafka_consumer_commit(c->kafka, list, count);
}

static void
ticked(struct skald_consumer *c, const struct skald_rows *fenced)
{
	unsigned ordinal = 0;

	for (unsigned i = 0; i < c->part_count; i++) {
		struct skald__part *part = c->parts[i];
		bool is_fenced = false;

		if (!part->is_ticking)
			continue;
		ordinal++;
		for (unsigned k = 0; k < skald_rows_count(fenced); k++)
			is_fenced =
				is_fenced || skald_rows_int(fenced, k, 0, 0) == ordinal;
		if (is_fenced) {
			atomic_fetch_add(c->count.fenced, 1);
			lose_to_other(c, part);
			continue;
		}
		if (!is_settled(c, part))
			continue;
		skald__lane_bump(&part->lanes, part->next);
		part->ticked = part->next;
		part->is_seen_dirty = false;
	}
	hint(c);
}

void
skald__tick(struct skald_consumer *c)
{
	static const char statement[] =
		"SELECT skald.consumer_tick($1, $2::text[], $3::int[], $4::bigint[],"
		" $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])";
	struct skald_param params[1 + T_COUNT];
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	unsigned count = 0;
	int64_t lag = 0;
	enum skald_rc rc;

	if (!c->sql)
		return;
	begin_arrays(c, T_COUNT);
	for (unsigned i = 0; i < c->part_count; i++) {
		struct skald__part *part = c->parts[i];
		int64_t end, start = skald__lane_start(&part->lanes);

		part->is_ticking = false;
		if (part->state != PART_ACTIVE)
			continue;
		end = skald_kafka_consumer_end(c->kafka, part->topic, part->partition);
		part->is_ticking = is_changed(c, part, end);
		part->end = end;
		start = is_settled(c, part) ? part->next : start;
		lag += end > start ? end - start : 0;
		if (!part->is_ticking)
			continue;
		add_part(c, part);
		count++;
	}
	atomic_store(c->count.lag, lag);
	if (count == 0)
		return;
	params[0] = skald_param_text(c->conf.group);
	rc = end_arrays(c, T_COUNT, params + 1, &err);
	if (!rc)
		rc = skald_sql_query(
			c->sql, statement, params, 1 + T_COUNT, false, &rows, &err);
	if (rc) {
		skald__consumer_trouble(c, &err);
		return;
	}
	ticked(c, rows);
	skald_rows_free(rows);
}

/* The rows of consumer_owners for partitions of one state, in their order. */
static enum skald_rc
ask_owners(struct skald_consumer *c, enum skald__part_state state,
	struct skald_rows **rows, struct skald_err *err)
{
	struct skald_param params[3];
	enum skald_rc rc;

	begin_arrays(c, 2);
	for (unsigned i = 0; i < c->part_count; i++) {
		if (c->parts[i]->state != state)
			continue;
		skald_array_add_text(&c->args[0], skald_slice_text(c->parts[i]->topic));
		skald_array_add_int(&c->args[1], c->parts[i]->partition);
	}
	params[0] = skald_param_text(c->conf.group);
	rc = end_arrays(c, 2, params + 1, err);
	if (rc)
		return rc;
	return skald_sql_query(c->sql,
		"SELECT term, stopped IS NOT NULL"
		" FROM skald.consumer_owners($1, $2::text[], $3::int[])",
		params, 3, false, rows, err);
}

enum skald_rc
skald__tick_fenced(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_rows *rows = NULL;
	unsigned row = 0, lost = 0;
	enum skald_rc rc = ask_owners(c, PART_ACTIVE, &rows, err);

	if (rc)
		return rc;
	for (unsigned i = 0; i < c->part_count; i++) {
		struct skald__part *part = c->parts[i];

		if (part->state != PART_ACTIVE)
			continue;
		if (row < skald_rows_count(rows) &&
			skald_rows_int(rows, row++, 0, -1) != part->term) {
			lose_to_other(c, part);
			lost++;
		}
	}
	skald_rows_free(rows);
	/* Our terms, but other watermarks than ours: somebody wrote them. Look again. */
	for (unsigned i = 0; i < c->part_count && lost == 0; i++)
		if (c->parts[i]->state == PART_ACTIVE)
			skald__part_lose(c, c->parts[i], 0);
	return SKALD_OK;
}

void
skald__tick_stopped(struct skald_consumer *c)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	bool has_stopped = false;
	unsigned row = 0;

	for (unsigned i = 0; i < c->part_count; i++)
		has_stopped = has_stopped || c->parts[i]->state == PART_STOPPED;
	if (!has_stopped || !c->sql)
		return;
	if (ask_owners(c, PART_STOPPED, &rows, &err)) {
		skald__consumer_trouble(c, &err);
		return;
	}
	for (unsigned i = 0; i < c->part_count; i++) {
		if (c->parts[i]->state != PART_STOPPED)
			continue;
		if (row < skald_rows_count(rows) && !skald_rows_bool(rows, row, 1))
			c->wants_reopen = true;
		row++;
	}
	skald_rows_free(rows);
}
