/*
 * range.c - a range of the batch as one transaction: ids, handlers, dead
 * letters, watermarks, commit. Round trips: one to begin, the handlers' own, one
 * for everything after them; a range without handlers needs one in all.
 */
#include "consumers/own.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

enum fate { FATE_NOTHING, FATE_HANDLE, FATE_DEAD };

static enum fate
fate_of(const struct skald_consumer *c, unsigned i)
{
	const struct skald_delivery *d = &c->deliveries[i];

	if (d->is_known || (d->verdict != VERDICT_RUN && d->verdict != VERDICT_DEAD))
		return FATE_NOTHING;
	if (d->route && c->msgs[i].fate == RUN_DEAD_RETRY)
		return FATE_HANDLE; /* a command must be answered */
	return c->msgs[i].fate == RUN_HANDLE ? FATE_HANDLE : FATE_DEAD;
}

static unsigned
count_fate(const struct skald_consumer *c, unsigned lo, unsigned hi, enum fate fate)
{
	unsigned count = 0;

	for (unsigned i = lo; i < hi; i++)
		count += fate_of(c, i) == fate;
	return count;
}

/* --- ids ----------------------------------------------------------------------------------- */

/* Ids consumed before make duplicates, for this attempt; the others are ours with its commit. */
static enum skald_rc
take_ids(struct skald_consumer *c, unsigned lo, unsigned hi, struct skald_err *err)
{
	struct skald_buf *ids = &c->args[0], *id = &c->text;
	struct skald_param params[2];
	struct skald_rows *rows = NULL;
	unsigned taken = 0, *asked = c->scratch;
	enum skald_rc rc;

	skald_buf_clear(ids);
	skald_array_begin(ids);
	for (unsigned i = lo; i < hi; i++) {
		struct skald_delivery *d = &c->deliveries[i];

		d->is_known = false;
		if (!d->has_inbox || fate_of(c, i) == FATE_NOTHING)
			continue;
		skald_buf_clear(id);
		skald_buf_add_slice(id, d->envelope.source);
		skald_buf_add_text(id, " ");
		skald_buf_add_slice(id, d->envelope.id);
		skald_array_add_text(ids, skald_buf_slice(id));
		d->is_known = true; /* unless the answer names it */
		asked[taken++] = i;
	}
	skald_array_end(ids);
	if (taken == 0)
		return SKALD_OK;
	if (ids->failed)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	params[0] = skald_param_text(c->conf.group);
	params[1] = skald_param_text(ids->data);
	rc = skald_sql_query(c->sql, "SELECT skald.consumer_inbox($1, $2::text[])",
		params, 2, false, &rows, err);
	if (rc)
		return rc;
	for (unsigned k = 0; k < skald_rows_count(rows); k++) {
		int64_t ordinal = skald_rows_int(rows, k, 0, 0);

		if (ordinal >= 1 && ordinal <= (int64_t)taken)
			c->deliveries[asked[ordinal - 1]].is_known = false;
	}
	skald_rows_free(rows);
	return SKALD_OK;
}

/* --- handlers ------------------------------------------------------------------------------ */

enum run_fault
skald__fault_of(struct skald_consumer *c, enum skald_rc rc, const struct skald_err *err)
{
	if (rc == SKALD_RETRY && skald_err_is_conflict(err))
		return RUN_CONFLICT;
	if (!c->sql || !skald_sql_is_open(c->sql) ||
		(rc == SKALD_RETRY && skald_err_is_outage(err)))
		return RUN_OUTAGE;
	switch (rc) {
	case SKALD_FATAL:
		return RUN_FATAL;
	case SKALD_REJECT:
		return RUN_REJECTED;
	case SKALD_RETRY:
	case SKALD_OK:
		break;
	}
	return RUN_FAILED;
}

/* A handler that said OK: is its transaction still there, and whole? */
static enum skald_rc
check_transaction(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_err probe = SKALD_ERR_INIT;

	if (skald_sql_is_in_transaction(skald_sql_conn(c->sql)))
		return SKALD_OK;
	if (skald_sql_exec(c->sql, "SELECT 1", &probe) == SKALD_OK)
		return skald_fail(err, SKALD_FATAL, "skald", "SK006",
			"the handler ended the transaction it was given");
	if (!skald_sql_is_open(c->sql)) {
		*err = probe;
		return SKALD_RETRY;
	}
	return skald_fail(err, SKALD_RETRY, "pg", "25P02",
		"the handler said OK, but a statement of it had failed");
}

enum skald_rc
skald__handler_call(
	struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	struct pg_conn *tx = skald_sql_conn(c->sql);
	enum skald_rc rc = SKALD_OK;

	d->emitted_count = 0;
	d->defer_ms = 0;
	skald__delivery_use(c, d);
	if (c->conf.sql_context && !d->route) /* a command's goes with its savepoint */
		rc = skald__delivery_use_sql(c, err);
	if (!rc && d->route)
		rc = skald__participant_call(c, d, err);
	else if (!rc && c->conf.handler)
		rc = c->conf.handler(d, tx, c->conf.ctx, err);
	else if (!rc)
		rc = c->conf.batch(&d, 1, tx, c->conf.ctx, err);
	if (!rc)
		rc = check_transaction(c, err);
	skald__delivery_use(c, NULL);
	c->has_emitted = c->has_emitted || d->emitted_count > 0 || c->conf.sql_context;
	return rc;
}

static enum skald_rc
call_each(struct skald_consumer *c, unsigned lo, unsigned hi, int *culprit,
	struct skald_err *err)
{
	enum skald_rc rc;

	for (unsigned i = lo; i < hi; i++) {
		struct skald_delivery *d = &c->deliveries[i];

		if (fate_of(c, i) != FATE_HANDLE)
			continue;
		d->attempt = c->msgs[i].attempts + 1u;
		d->gives_up = c->msgs[i].fate == RUN_DEAD_RETRY;
		rc = skald__handler_call(c, d, err);
		if (rc) {
			*culprit = (int)i;
			return rc;
		}
	}
	return SKALD_OK;
}

static enum skald_rc
call_batch(struct skald_consumer *c, unsigned lo, unsigned hi, struct skald_err *err)
{
	unsigned count = 0;
	enum skald_rc rc;

	for (unsigned i = lo; i < hi; i++) {
		struct skald_delivery *d = &c->deliveries[i];

		if (fate_of(c, i) != FATE_HANDLE)
			continue;
		d->attempt = c->msgs[i].attempts + 1u;
		d->emitted_count = 0;
		d->defer_ms = 0;
		c->picked[count++] = d;
	}
	rc = c->conf.batch(c->picked, count, skald_sql_conn(c->sql), c->conf.ctx, err);
	if (!rc)
		rc = check_transaction(c, err);
	skald__delivery_use(c, NULL);
	for (unsigned i = 0; i < count && !c->has_emitted; i++)
		c->has_emitted = c->picked[i]->emitted_count > 0;
	c->has_emitted = c->has_emitted || c->conf.sql_context;
	return rc;
}

/* --- the transaction ----------------------------------------------------------------------- */

static void
name_batch(struct skald_consumer *c)
{
	(void)snprintf(c->batch_token, sizeof(c->batch_token), "%s.%llu", c->token,
		(unsigned long long)++c->batch_number);
}

/* Queue BEGIN and the token by which consumer_advance knows this transaction again. */
enum skald_rc
skald__range_send_begin(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_param params[2];
	enum skald_rc rc;

	name_batch(c);
	params[0] = skald_param_text(c->batch_token);
	params[1] = skald_param_text(c->conf.name);
	rc = skald_pipe_send(c->sql, "BEGIN", NULL, 0, false, err);
	if (!rc)
		rc = skald_pipe_send(c->sql,
			"SELECT set_config('skald.batch', $1, true),"
			" set_config('skald.handler', $2, true)",
			params, 2, false, err);
	return rc;
}

enum skald_rc
skald__range_begin(struct skald_consumer *c, struct skald_err *err)
{
	struct skald_err ignored = SKALD_ERR_INIT;
	unsigned taken = 0;
	enum skald_rc rc, end_rc;

	rc = skald_pipe_begin(c->sql, err);
	if (rc)
		return rc;
	rc = skald__range_send_begin(c, err);
	if (!rc)
		rc = skald__participant_send_take(c, &taken, err);
	if (!rc)
		rc = skald_pipe_sync(c->sql, err);
	for (unsigned i = 0; i < 2 && !rc; i++)
		rc = skald_pipe_take(c->sql, NULL, err);
	if (!rc && taken)
		rc = skald__participant_take_results(c, err);
	end_rc = skald_pipe_end(c->sql, rc ? &ignored : err);
	return rc ? rc : end_rc;
}

/* What of the last pipeline failed: whose fault it is depends on it. */
struct finish {
	enum skald_rc rc;
	int culprit; /* a dead letter that could not be written */
	bool is_advance;
};

static enum skald_rc
send_dead(struct skald_consumer *c, unsigned lo, unsigned hi, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = lo; i < hi && !rc; i++)
		if (fate_of(c, i) == FATE_DEAD) {
			c->deliveries[i].attempt =
				c->msgs[i].attempts ? c->msgs[i].attempts : 1;
			rc = skald__dead_send(c, &c->deliveries[i], err);
			SKALD_FAILPOINT(runner_after_dead_letter);
		}
	return rc;
}

static struct finish
take_results(struct skald_consumer *c, unsigned lo, unsigned hi, bool has_begin,
	struct skald_err *err)
{
	struct finish f = { .culprit = -1 };
	unsigned before = (has_begin ? 2u : 0u) + (skald__participant_owes(c) ? 1u : 0u);

	for (unsigned i = 0; i < before && !f.rc; i++)
		f.rc = skald_pipe_take(c->sql, NULL, err);
	for (unsigned i = lo; i < hi && !f.rc; i++) {
		if (fate_of(c, i) != FATE_DEAD)
			continue;
		f.rc = skald_pipe_take(c->sql, NULL, err);
		f.culprit = f.rc ? (int)i : -1;
	}
	if (f.rc)
		return f;
	f.rc = skald_pipe_take(c->sql, NULL, err);
	f.is_advance = f.rc != SKALD_OK;
	if (!f.rc)
		f.rc = skald_pipe_take(c->sql, NULL, err);
	return f;
}

/* Dead letters, watermarks, COMMIT. */
static struct finish
finish(struct skald_consumer *c, unsigned lo, unsigned hi, bool has_begin,
	struct skald_err *err)
{
	struct skald_err ignored = SKALD_ERR_INIT;
	struct finish f = { .culprit = -1 };
	enum skald_rc end_rc;

	f.rc = skald_pipe_begin(c->sql, err);
	if (f.rc)
		return f;
	if (has_begin)
		f.rc = skald__range_send_begin(c, err);
	if (!f.rc && skald__participant_owes(c)) {
		f.rc = skald__participant_send_answers(c, err);
		SKALD_FAILPOINT(participant_after_reply);
	}
	if (!f.rc)
		f.rc = send_dead(c, lo, hi, err);
	if (!f.rc)
		f.rc = skald__marks_send(c, lo, hi, err);
	SKALD_FAILPOINT(runner_before_commit);
	if (skald__participant_owes(c))
		SKALD_FAILPOINT(participant_before_commit);
	if (!f.rc)
		f.rc = skald_pipe_send(c->sql, "COMMIT", NULL, 0, false, err);
	if (!f.rc)
		f.rc = skald_pipe_sync(c->sql, err);
	if (!f.rc)
		f = take_results(c, lo, hi, has_begin, err);
	end_rc = skald_pipe_end(c->sql, f.rc ? &ignored : err);
	if (!f.rc)
		f.rc = end_rc;
	return f;
}

static void
count_event(struct skald_consumer *c, enum run_fault fault)
{
	switch (fault) {
	case RUN_CONFLICT:
		atomic_fetch_add(c->count.conflicts, 1);
		break;
	case RUN_OUTAGE:
		atomic_fetch_add(c->count.outages, 1);
		break;
	case RUN_FENCED:
		atomic_fetch_add(c->count.fenced, 1);
		break;
	case RUN_FAILED:
	case RUN_REJECTED:
		atomic_fetch_add(c->count.retries, 1);
		break;
	case RUN_FATAL:
		break;
	}
}

static struct run_event
failed(struct skald_consumer *c, unsigned lo, unsigned hi, enum run_fault fault,
	int culprit, const struct skald_err *err)
{
	struct run_event ev = { .kind = RUN_EV_FAILED,
		.fault = fault,
		.culprit = culprit,
		.rand = skald_rand_next(&c->rand) };
	struct skald_delivery *d;

	count_event(c, fault);
	if (fault == RUN_OUTAGE)
		skald__consumer_trouble(c, err);
	if (culprit < 0 && hi - lo == 1)
		culprit = (int)lo;
	if (culprit < 0 || (fault != RUN_FAILED && fault != RUN_REJECTED))
		return ev;
	d = &c->deliveries[culprit];
	ev.defer_ms = d->defer_ms;
	if (fate_of(c, (unsigned)culprit) == FATE_DEAD) {
		skald__consumer_trouble(c, err); /* it cannot be written: C7 */
		return ev;
	}
	skald__dead_note(d, fault == RUN_REJECTED ? "FATAL" : "RETRY", err);
	if (fault == RUN_FAILED && c->msgs[culprit].attempts == 0) {
		skald__delivery_use(c, d);
		skald_log_err(SKALD_LOG_WARN, err,
			"handler failed, trying again topic=%s partition=%d offset=%lld",
			d->record.topic, (int)d->record.partition,
			(long long)d->record.offset);
		skald__delivery_use(c, NULL);
	}
	return ev;
}

/* Deadlines are looked at before each attempt. */
static void
expire(struct skald_consumer *c, unsigned lo, unsigned hi)
{
	int64_t now_us = skald_wall_us();
	struct skald_err err = SKALD_ERR_INIT;

	for (unsigned i = lo; i < hi; i++) {
		struct skald_delivery *d = &c->deliveries[i];

		/* a command's deadline is the barrier's: it must be answered */
		if (!d->envelope.expires_at_us || d->envelope.expires_at_us >= now_us ||
			d->route || fate_of(c, i) != FATE_HANDLE)
			continue;
		(void)skald_fail(&err, SKALD_REJECT, "message", "expired",
			"ce_expirytime: is over");
		skald__dead_note(d, "EXPIRED", &err);
		c->msgs[i].fate = RUN_DEAD_FATAL;
	}
}

static void
log_dead(struct skald_consumer *c, struct skald_delivery *d)
{
	skald__delivery_use(c, d);
	skald_log_err(SKALD_LOG_WARN, &d->why,
		"dead letter class=%s topic=%s partition=%d offset=%lld attempts=%u",
		d->class, d->record.topic, (int)d->record.partition,
		(long long)d->record.offset, d->attempt);
	skald__delivery_use(c, NULL);
}

static void
log_given_up(struct skald_consumer *c, struct skald_delivery *d)
{
	skald__delivery_use(c, d);
	skald_log_err(SKALD_LOG_WARN, &d->why,
		"command answered retryable: topic=%s partition=%d offset=%lld "
		"attempts=%u",
		d->record.topic, (int)d->record.partition, (long long)d->record.offset,
		d->attempt - 1);
	skald__delivery_use(c, NULL);
}

/* Committed: what the database knows, memory knows. */
static struct run_event
committed(struct skald_consumer *c, unsigned lo, unsigned hi)
{
	unsigned dead = 0, applied = 0;

	for (unsigned i = lo; i < hi; i++) {
		struct skald_delivery *d = &c->deliveries[i];

		if (d->verdict == VERDICT_GONE)
			continue;
		if (!d->is_passed)
			skald__lane_commit(&d->part->lanes, &d->lane);
		if (fate_of(c, i) == FATE_HANDLE) {
			applied++;
			if (d->gives_up)
				log_given_up(c, d);
		} else if (fate_of(c, i) == FATE_DEAD) {
			dead++;
			log_dead(c, d);
		} else {
			atomic_fetch_add(d->verdict == VERDICT_SKIP ? c->count.skipped
								    : c->count.duplicate,
				1);
		}
	}
	atomic_fetch_add(c->count.applied, applied);
	atomic_fetch_add(c->count.dead, dead);
	atomic_fetch_add(c->count.batches, 1);
	if (c->conf.relay_wake && (dead > 0 || c->has_emitted))
		skald_wake_up(c->conf.relay_wake);
	skald__consumer_trouble(c, NULL);
	return (struct run_event){ .kind = RUN_EV_COMMITTED };
}

/* The handlers' half; culprit -1: not known, or none. */
static enum skald_rc
begin_and_handle(struct skald_consumer *c, unsigned lo, unsigned hi, int *culprit,
	struct skald_err *err)
{
	enum skald_rc rc = skald__range_begin(c, err);

	if (rc)
		return rc;
	SKALD_FAILPOINT(runner_after_begin);
	rc = take_ids(c, lo, hi, err);
	if (rc)
		return rc;
	if (count_fate(c, lo, hi, FATE_HANDLE) > 0)
		rc = c->conf.handler ? call_each(c, lo, hi, culprit, err)
				     : call_batch(c, lo, hi, err);
	if (!rc)
		SKALD_FAILPOINT(runner_after_handler);
	return rc;
}

struct run_event
skald__range_run(struct skald_consumer *c, unsigned lo, unsigned hi)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct finish f = { .culprit = -1 };
	bool has_handlers;
	enum skald_rc rc;

	c->has_emitted = false;
	for (unsigned i = lo; i < hi; i++)
		c->deliveries[i].is_known = c->deliveries[i].gives_up = false;
	expire(c, lo, hi);
	skald__participant_reset(c);
	for (unsigned i = lo; i < hi; i++)
		if (c->deliveries[i].route && fate_of(c, i) == FATE_HANDLE)
			skald__participant_ask(c, &c->deliveries[i]);
	has_handlers = count_fate(c, lo, hi, FATE_NOTHING) < hi - lo;
	if (!has_handlers && !skald__marks_are_any(c, lo, hi))
		return committed(c, lo, hi); /* nothing to write */
	if (has_handlers) {
		rc = begin_and_handle(c, lo, hi, &f.culprit, &err);
		if (rc)
			goto out;
	}
	f = finish(c, lo, hi, !has_handlers, &err);
	rc = f.rc;
	if (!rc) {
		SKALD_FAILPOINT(runner_after_commit);
		if (skald__participant_owes(c))
			SKALD_FAILPOINT(participant_before_offset);
		return committed(c, lo, hi);
	}
out:
	skald_sql_rollback(c->sql);
	if (f.is_advance && strcmp(err.code, "SK006") == 0 &&
		strncmp(err.text, "fenced", 6) == 0) {
		rc = skald__tick_fenced(c, &err);
		return failed(c, lo, hi, rc ? skald__fault_of(c, rc, &err) : RUN_FENCED,
			-1, &err);
	}
	if (rc == SKALD_FATAL || (f.is_advance && strcmp(err.code, "SK006") == 0))
		skald__consumer_fatal(c, SKALD_FATAL, &err);
	return failed(c, lo, hi, c->fatal ? RUN_FATAL : skald__fault_of(c, rc, &err),
		f.culprit, &err);
}
