/*
 * batch.c - one transaction: records in hand and sagas that are due.
 *
 *	1  BEGIN, what is served, lock, due, starts     one round trip
 *	2  definitions never seen, data of the sagas    rarely; one
 *	3  the core, for each event in order            nobody is asked
 *	4  the sets, dead letters, done                 one
 *	5  COMMIT                                       one
 *
 * B1  What is served is read before the sagas are locked: replies applied until then
 *     are in the rows that the lock returns.
 * B2  A record counts with the transaction that moves `done` past it, or not at all.
 */
#include "saga/own.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

#define HOLD_MS 200

/* clang-format off */
#define COLUMNS \
	" id, name, version, key, run, correlation_id, traceparent, causation_id, state, seq," \
	" created_at, updated_at, finished_at, published_at, reason_code, reason_message"
/* clang-format on */
enum {
	COL_ID,
	COL_NAME,
	COL_VERSION,
	COL_KEY,
	COL_RUN,
	COL_CORRELATION,
	COL_TRACEPARENT,
	COL_CAUSATION,
	COL_STATE,
	COL_SEQ,
	COL_CREATED,
	COL_UPDATED,
	COL_FINISHED,
	COL_PUBLISHED,
	COL_REASON_CODE,
	COL_REASON_TEXT,
};

/* --- the first round trip ------------------------------------------------------------------------ */

static void
choose(struct skald_orchestrator *o)
{
	o->lo = o->hi = o->msg_next;
	o->dead_count = 0;
	for (unsigned i = 0; i < o->part_count; i++)
		o->parts[i].next = o->parts[i].done;
	while (o->hi < o->msg_count && o->hi - o->lo < o->batch_max) {
		struct saga__msg *msg = &o->msgs[o->hi++];

		if (msg->is_poison)
			continue; /* its dead letter is all that is left */
		skald__saga_read(msg->record, msg->part, msg);
		if (msg->record->offset < msg->part->done)
			msg->kind = SAGA__MSG_PASS; /* applied already */
	}
}

static bool
is_live(const struct saga__msg *msg, enum saga__msg_kind kind)
{
	return msg->kind == kind && !msg->is_poison;
}

static bool
is_start(const struct saga__msg *msg)
{
	return is_live(msg, SAGA__MSG_START) && !msg->is_dead;
}

static enum skald_rc
send_starts(struct skald_orchestrator *o, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = o->lo; i < o->hi && !rc; i++) {
		struct saga__msg *msg = &o->msgs[i];

		if (!is_start(msg))
			continue;
		skald_buf_clear(&o->scratch);
		skald_buf_clear(&o->scratch2);
		skald_buf_add_slice(&o->scratch, msg->data);
		skald_headers_json(msg->record->headers, &o->scratch2);
		struct skald_param params[] = { skald_param_text(o->scratch.data),
			skald_param_text(o->scratch2.data) };

		rc = skald_pipe_send(o->sql,
			"SELECT id, code, message FROM skald.orchestrator_start($1,"
			" $2::jsonb)",
			params, 2, false, err);
	}
	return rc;
}

static enum skald_rc
send_reads(struct skald_orchestrator *o, struct skald_err *err)
{
	bool is_bisecting = o->batch_max < o->conf.batch_max && o->hi > o->lo;
	char max[24];
	enum skald_rc rc;

	skald__saga_set_begin(&o->done, 4);
	for (unsigned i = o->lo; i < o->hi; i++)
		if (is_live(&o->msgs[i], SAGA__MSG_REPLY) && o->msgs[i].has_saga)
			skald_array_add_text(&o->done.columns[0],
				skald_slice_text(o->msgs[i].saga_id));
	skald_array_end(&o->done.columns[0]);
	struct skald_param topic = skald_param_text(o->reply_topic);
	struct skald_param params[] = { skald_param_text(o->done.columns[0].data),
		skald_param_int(is_bisecting ? 0 : o->batch_max, max) };

	rc = skald_pipe_begin(o->sql, err);
	if (!rc)
		rc = skald_pipe_send(o->sql, "BEGIN ISOLATION LEVEL READ COMMITTED", NULL,
			0, false, err);
	if (!rc)
		rc = skald_pipe_send(o->sql,
			"SELECT clock_us, caught_up_us, gap_us FROM"
			" skald.orchestrator_served($1)",
			&topic, 1, false, err);
	if (!rc)
		rc = skald_pipe_send(o->sql,
			"SELECT" COLUMNS " FROM skald.orchestrator_lock($1::uuid[])",
			params, 1, true, err);
	if (!rc)
		rc = skald_pipe_send(o->sql,
			"SELECT" COLUMNS
			" FROM skald.orchestrator_due($1::uuid[], $2::int)",
			params, 2, true, err);
	if (!rc)
		rc = send_starts(o, err);
	if (!rc)
		rc = skald_pipe_sync(o->sql, err);
	return rc;
}

/* Somebody's open transaction starts the same saga: its partition waits, the others go on. */
static void
hold(struct skald_orchestrator *o, struct saga__msg *msg)
{
	msg->part->hold_until_ms = skald_mono_ms() + HOLD_MS;
	o->wants_assign = true;
}

static enum skald_rc
take_starts(struct skald_orchestrator *o, bool *held, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = o->lo; i < o->hi && !rc; i++) {
		struct saga__msg *msg = &o->msgs[i];
		struct skald_rows *rows = NULL;
		struct skald_slice code, message;

		if (!is_start(msg))
			continue;
		rc = skald_pipe_take(o->sql, &rows, err);
		if (rc)
			break;
		code = skald_rows_get(rows, 0, 1);
		message = skald_rows_get(rows, 0, 2);
		if (skald_slice_is_text(code, "55P03")) {
			hold(o, msg);
			*held = true;
		} else if (code.data) {
			skald__saga_kill(msg, code.data, "%.200s", message.data);
		}
		skald_rows_free(rows);
	}
	return rc;
}

static enum skald_rc
read_all(struct skald_orchestrator *o, bool *held, struct skald_err *err)
{
	struct skald_err later = SKALD_ERR_INIT;
	struct skald_rows *served = NULL;
	enum skald_rc rc, end;

	rc = send_reads(o, err);
	if (!rc)
		rc = skald_pipe_take(o->sql, NULL, err);
	if (!rc)
		rc = skald_pipe_take(o->sql, &served, err);
	if (!rc)
		rc = skald_pipe_take(o->sql, &o->rows[0], err);
	if (!rc)
		rc = skald_pipe_take(o->sql, &o->rows[1], err);
	if (!rc)
		rc = take_starts(o, held, err);
	end = skald_pipe_end(o->sql, &later);
	if (!rc && end) {
		*err = later;
		rc = end;
	}
	if (!rc) {
		o->clock_us = skald_rows_int(served, 0, 0, 0);
		o->caught_us = skald_rows_int(served, 0, 1, 0);
		o->gap_us = skald_rows_int(served, 0, 2, 0);
	}
	skald_rows_free(served);
	return rc;
}

/* --- sagas of the batch ---------------------------------------------------------------------------- */

static int64_t
time_of(const struct skald_rows *rows, unsigned row, unsigned column)
{
	int64_t us = 0;

	return skald_rows_time_us(rows, row, column, &us) ? us : 0;
}

static void
read_inst(
	const struct skald_rows *rows, unsigned row, bool is_due, struct saga__inst *inst)
{
	struct skald_uuid id;

	inst->is_due = is_due;
	inst->is_dirty = inst->is_sent = false;
	inst->look_us = SAGA__NEVER_US;
	inst->input = SKALD_SLICE_NULL;
	inst->kept_bytes = 0;
	if (skald_rows_uuid(rows, row, COL_ID, &id))
		skald_uuid_format(id, inst->id);
	inst->name = skald_rows_get(rows, row, COL_NAME);
	inst->version = (int)skald_rows_int(rows, row, COL_VERSION, 0);
	inst->key = skald_rows_get(rows, row, COL_KEY);
	inst->run = (uint32_t)skald_rows_int(rows, row, COL_RUN, 1);
	inst->correlation_id = skald_rows_get(rows, row, COL_CORRELATION);
	inst->traceparent = skald_rows_get(rows, row, COL_TRACEPARENT);
	inst->causation_id = skald_rows_get(rows, row, COL_CAUSATION);
	inst->created_us = time_of(rows, row, COL_CREATED);
	inst->updated_us = time_of(rows, row, COL_UPDATED);
	inst->finished_us = time_of(rows, row, COL_FINISHED);
	inst->published_us = time_of(rows, row, COL_PUBLISHED);
	(void)skald_slice_copy(skald_rows_get(rows, row, COL_REASON_CODE),
		inst->reason_code, sizeof(inst->reason_code));
	(void)skald_slice_copy(skald_rows_get(rows, row, COL_REASON_TEXT),
		inst->reason_text, sizeof(inst->reason_text));
}

/* Its definition and its state; def NULL: neither can be used, it is left alone. */
static enum skald_rc
open_inst(struct skald_orchestrator *o, const struct skald_rows *rows, unsigned row,
	struct saga__inst *inst, struct skald_err *err)
{
	struct skald_err why = SKALD_ERR_INIT;
	uint32_t seq = (uint32_t)skald_rows_int(rows, row, COL_SEQ, 0);
	bool known = false;
	enum skald_rc rc = SKALD_OK;

	inst->def = skald__saga_def_find(o, inst->name, inst->version, &known);
	if (!known) {
		rc = skald__saga_def_load(o, inst->name, inst->version, err);
		inst->def = skald__saga_def_find(o, inst->name, inst->version, &known);
	}
	if (rc || !inst->def)
		return rc;
	memset(inst->steps, 0,
		skald_saga_def_step_count(inst->def) * sizeof(inst->steps[0]));
	memset(inst->is_kept, 0, skald_saga_def_step_count(inst->def));
	if (skald__saga_decode(skald_rows_get(rows, row, COL_STATE),
		    skald__saga_def_plan(inst->def), &inst->v, &why)) {
		skald_log_err(
			SKALD_LOG_ERROR, &why, "a saga cannot be read saga=%s", inst->id);
		inst->def = NULL;
	} else if (seq == 0 && inst->causation_id.data) {
		(void)skald_slice_copy(
			inst->causation_id, inst->v.cause, sizeof(inst->v.cause));
	}
	return SKALD_OK;
}

static enum skald_rc
open_all(struct skald_orchestrator *o, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	o->inst_count = 0;
	for (unsigned set = 0; set < 2; set++)
		for (unsigned i = 0; i < skald_rows_count(o->rows[set]) && !rc; i++) {
			struct saga__inst *inst = &o->insts[o->inst_count++];

			read_inst(o->rows[set], i, set == 1, inst);
			rc = open_inst(o, o->rows[set], i, inst, err);
			o->order[o->inst_count - 1] = inst;
		}
	return rc;
}

static int
compare_insts(const void *left, const void *right)
{
	const struct saga__inst *const *a = left, *const *b = right;

	return strcmp((*a)->id, (*b)->id);
}

static int
compare_id(const void *id, const void *inst)
{
	const struct saga__inst *const *i = inst;

	return strcmp(id, (*i)->id);
}

static struct saga__inst *
find(struct skald_orchestrator *o, const char *id)
{
	struct saga__inst **found = bsearch(
		id, o->order, o->inst_count, sizeof(struct saga__inst *), compare_id);

	return found ? *found : NULL;
}

/* --- their data ------------------------------------------------------------------------------------ */

static void
want(struct saga__set *s, const struct saga__inst *inst, struct skald_slice name,
	bool is_wanted)
{
	skald_array_add_text(&s->columns[0], skald_slice_text(inst->id));
	skald_array_add_text(&s->columns[1], name);
	skald_array_add_text(
		&s->columns[2], is_wanted ? SKALD_SLICE_LIT("t") : SKALD_SLICE_LIT("f"));
	s->row_count++;
}

/* The input and what steps answered: the size of each, and the text of what a command may
   refer to. */
static void
want_data(struct skald_orchestrator *o, const struct saga__inst *inst)
{
	struct saga__set *s = &o->done;

	if (!inst->def || inst->v.core.status == SAGA_IS_FINISHED)
		return;
	want(s, inst, SKALD_SLICE_LIT("$input"),
		skald__saga_def_refers_to_input(inst->def));
	for (unsigned i = 0; i < inst->v.core.step_count; i++)
		if (inst->v.core.steps[i].action.attempts > 0)
			want(s, inst,
				skald_slice_text(skald_saga_def_step_name(inst->def, i)),
				skald__saga_def_refers(inst->def, i));
}

static void
give_data(struct skald_orchestrator *o, unsigned row)
{
	char id[SKALD_UUID_TEXT_BYTES];
	struct skald_slice name = skald_rows_get(o->rows[2], row, 1);
	struct skald_slice data = skald_rows_get(o->rows[2], row, 2);
	struct saga__inst *inst;
	int step;

	(void)skald_slice_copy(skald_rows_get(o->rows[2], row, 0), id, sizeof(id));
	inst = find(o, id);
	if (!inst || !inst->def)
		return;
	inst->kept_bytes += (size_t)skald_rows_int(o->rows[2], row, 3, 0);
	step = skald_saga_def_step(inst->def, name);
	if (step < 0) {
		inst->input = data;
		return;
	}
	inst->steps[step] = data;
	inst->is_kept[step] = true;
}

static enum skald_rc
load_data(struct skald_orchestrator *o, struct skald_err *err)
{
	struct skald_param params[3];
	enum skald_rc rc;

	skald__saga_set_begin(&o->done, 4);
	for (unsigned i = 0; i < o->inst_count; i++)
		want_data(o, &o->insts[i]);
	if (o->done.row_count == 0)
		return SKALD_OK;
	for (unsigned i = 0; i < 3; i++) {
		skald_array_end(&o->done.columns[i]);
		params[i] = skald_param_text(o->done.columns[i].data);
	}
	rc = skald_sql_query(o->sql,
		"SELECT saga_id, name, data, bytes FROM"
		" skald.orchestrator_look($1::uuid[], $2::text[], $3::boolean[])",
		params, 3, false, &o->rows[2], err);
	for (unsigned i = 0; !rc && i < skald_rows_count(o->rows[2]); i++)
		give_data(o, i);
	return rc;
}

/* --- running the core --------------------------------------------------------------------------------- */

static enum skald_rc
begin_saga(struct skald_orchestrator *o, struct saga__inst *inst, struct skald_err *err)
{
	struct saga_event ev = { .kind = SAGA_EV_START,
		.at_ms = inst->created_us / 1000 };

	return inst->v.core.row_count ? SKALD_OK
				      : skald__saga_act(o, inst, &ev, NULL, err);
}

/* All data of a saga together has a limit. */
static bool
is_too_much(const struct saga__inst *inst, const struct saga__msg *msg, unsigned step)
{
	if (msg->is_dead || msg->op != SAGA_OP_ACTION || inst->is_kept[step])
		return false;
	return inst->kept_bytes + msg->data.bytes > SKALD_SAGA_DATA_BYTES_MAX;
}

static enum skald_rc
run_reply(struct skald_orchestrator *o, struct saga__msg *msg, struct skald_err *err)
{
	struct saga_event ev = { .kind = SAGA_EV_REPLY,
		.op = msg->op,
		.attempt = msg->attempt,
		.round = msg->round,
		.reply = msg->reply,
		.barrier = msg->barrier };
	struct saga__inst *inst = msg->has_saga ? find(o, msg->saga_id) : NULL;
	enum skald_rc rc;
	int step;

	if (msg->has_saga && !inst)
		skald__saga_kill(msg, "saga_unknown",
			"ce_sagaid: this installation has no saga %s", msg->saga_id);
	if (!inst || !msg->has_attempt)
		return SKALD_OK;
	if (!inst->def) {
		skald__saga_kill(msg, "unreadable", "the saga's state is not readable");
		return SKALD_OK;
	}
	step = skald_saga_def_step(inst->def, msg->step_name);
	if (!skald_slice_is_equal(msg->saga_name, inst->name))
		skald__saga_kill(msg, "contradictory_echo",
			"ce_saganame: saga %s is another", msg->saga_id);
	else if (step < 0)
		skald__saga_kill(msg, "contradictory_echo",
			"ce_sagastep: the saga has no such step");
	if (step < 0 || !skald_slice_is_equal(msg->saga_name, inst->name))
		return SKALD_OK;
	ev.step = (unsigned)step;
	if (is_too_much(inst, msg, ev.step))
		skald__saga_kill(msg, "too_large",
			"value: a saga's data together must be at most 1 MiB");
	if (msg->is_dead)
		ev.kind = SAGA_EV_DEAD_LETTER;
	rc = begin_saga(o, inst, err);
	return rc ? rc : skald__saga_act(o, inst, &ev, msg, err);
}

static enum skald_rc
run_all(struct skald_orchestrator *o, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = o->lo; i < o->hi && !rc; i++) {
		struct saga__msg *msg = &o->msgs[i];

		if (is_live(msg, SAGA__MSG_REPLY))
			rc = run_reply(o, msg, err);
		if (msg->kind != SAGA__MSG_PASS || msg->record->offset >= msg->part->done)
			msg->part->next = msg->record->offset + 1;
	}
	for (unsigned i = 0; i < o->inst_count && !rc; i++) {
		struct saga__inst *inst = &o->insts[i];

		if (!inst->is_due || !inst->def)
			continue;
		rc = begin_saga(o, inst, err);
		if (!rc)
			rc = skald__saga_act_due(o, inst, err);
	}
	for (unsigned i = 0; i < o->inst_count && !rc; i++)
		if (o->insts[i].is_dirty && o->insts[i].def)
			skald__saga_save(o, &o->insts[i]);
	return rc;
}

/* A saga that cannot be read is looked at once a minute, and named each time. */
static enum skald_rc
postpone(struct skald_orchestrator *o, const char *id, struct skald_err *err)
{
	struct skald_param param = skald_param_text(id);

	return skald_sql_query(o->sql, "SELECT skald.orchestrator_postpone($1::uuid)",
		&param, 1, false, NULL, err);
}

static enum skald_rc
postpone_all(struct skald_orchestrator *o, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = 0; i < o->inst_count && !rc; i++)
		if (o->insts[i].is_due && !o->insts[i].def) {
			rc = postpone(o, o->insts[i].id, err);
			skald_log(SKALD_LOG_ERROR,
				"a saga waits: its definition or state is not readable "
				"saga=%s",
				o->insts[i].id);
		}
	return rc;
}

/* --- the transaction ------------------------------------------------------------------------------------ */

static void
drop_rows(struct skald_orchestrator *o)
{
	for (unsigned i = 0; i < 4; i++) {
		skald_rows_free(o->rows[i]);
		o->rows[i] = NULL;
	}
}

static enum skald_rc
transact(struct skald_orchestrator *o, bool *worked, struct skald_err *err)
{
	bool held = false;
	enum skald_rc rc;

	rc = read_all(o, &held, err);
	if (rc)
		return rc;
	if (held) {
		skald_sql_rollback(o->sql);
		return SKALD_OK;
	}
	*worked = o->hi > o->lo || skald_rows_count(o->rows[1]) > 0;
	if (!*worked) {
		skald_sql_rollback(o->sql);
		return SKALD_OK;
	}
	SKALD_FAILPOINT(orchestrator_after_lock);
	if (skald_rows_count(o->rows[1]) > 0)
		SKALD_FAILPOINT(orchestrator_after_timer_claim);
	rc = open_all(o, err);
	if (rc)
		return rc;
	qsort(o->order, o->inst_count, sizeof(struct saga__inst *), compare_insts);
	rc = load_data(o, err);
	if (!rc)
		rc = run_all(o, err);
	if (rc)
		return rc;
	SKALD_FAILPOINT(orchestrator_after_core);
	rc = postpone_all(o, err);
	if (!rc)
		rc = skald__saga_write(o, err);
	if (rc)
		return rc;
	SKALD_FAILPOINT(orchestrator_before_commit);
	rc = skald_sql_exec(o->sql, "COMMIT", err);
	if (rc)
		return rc;
	SKALD_FAILPOINT(orchestrator_after_commit);
	for (unsigned i = 0; i < o->part_count; i++)
		o->parts[i].done = o->parts[i].next;
	o->msg_next = o->hi;
	atomic_fetch_add(o->count.batches, 1);
	return SKALD_OK;
}

/* Halve until the culprit is alone: a record becomes a dead letter, a saga waits. */
static void
bisect(struct skald_orchestrator *o, const struct skald_err *err)
{
	struct skald_err why = SKALD_ERR_INIT;

	if (o->batch_max > 1) {
		o->batch_max /= 2;
		return;
	}
	if (o->hi > o->lo) {
		struct saga__msg *msg = &o->msgs[o->lo];

		skald_log_err(SKALD_LOG_ERROR, err,
			"a record breaks its batch: it becomes a dead letter topic=%s"
			" partition=%d offset=%lld",
			msg->record->topic, (int)msg->record->partition,
			(long long)msg->record->offset);
		skald__saga_kill(msg, "poison", "%s", err->text);
		msg->is_dead = msg->is_poison = true;
	} else if (o->inst_count == 1) {
		skald_log_err(SKALD_LOG_ERROR, err,
			"a saga breaks its batch: it waits"
			" a minute saga=%s",
			o->insts[0].id);
		if (postpone(o, o->insts[0].id, &why))
			skald_log_err(SKALD_LOG_WARN, &why, "it could not be postponed");
	}
}

enum skald_rc
skald__saga_batch(struct skald_orchestrator *o, bool *worked, struct skald_err *err)
{
	enum skald_rc rc;

	*worked = false;
	o->has_emitted = false;
	o->inst_count = 0;
	choose(o);
	skald__saga_set_begin(&o->save, 17);
	skald__saga_set_begin(&o->log, 11);
	skald__saga_set_begin(&o->keep, 3);
	skald__saga_set_begin(&o->put, 10);
	rc = transact(o, worked, err);
	drop_rows(o);
	if (!rc) {
		if (o->batch_max < o->conf.batch_max && *worked)
			o->batch_max *= 2;
		if (o->batch_max > o->conf.batch_max)
			o->batch_max = o->conf.batch_max;
		if (o->has_emitted && o->conf.emitted)
			o->conf.emitted(o->conf.ctx);
		return SKALD_OK;
	}
	skald_sql_rollback(o->sql);
	if (rc == SKALD_REJECT) {
		bisect(o, err);
		*worked = true;
		return SKALD_OK;
	}
	return rc;
}
