/*
 * store.c - what a batch writes, set by set: arrays that one statement unnests.
 */
#include "saga/own.h"

#include <stdatomic.h>

#define SET_BYTES_MAX (256 * 1024 * 1024)

void
skald__saga_set_begin(struct saga__set *set, unsigned columns)
{
	if (!set->column_count)
		for (unsigned i = 0; i < columns; i++)
			skald_buf_init(&set->columns[i], SET_BYTES_MAX);
	set->column_count = columns;
	set->row_count = 0;
	for (unsigned i = 0; i < columns; i++) {
		skald_buf_clear(&set->columns[i]);
		skald_array_begin(&set->columns[i]);
	}
}

void
skald__saga_set_done(struct saga__set *set)
{
	for (unsigned i = 0; i < set->column_count; i++)
		skald_buf_done(&set->columns[i]);
}

static void
text(struct saga__set *set, unsigned column, const char *value)
{
	skald_array_add_text(&set->columns[column],
		value && value[0] ? skald_slice_text(value) : SKALD_SLICE_NULL);
}

static void
slice(struct saga__set *set, unsigned column, struct skald_slice value)
{
	skald_array_add_text(&set->columns[column], value);
}

static void
number(struct saga__set *set, unsigned column, int64_t value)
{
	skald_array_add_int(&set->columns[column], value);
}

static void
flag(struct saga__set *set, unsigned column, bool value)
{
	skald_array_add_text(&set->columns[column],
		value ? SKALD_SLICE_LIT("t") : SKALD_SLICE_LIT("f"));
}

/* 0 or NEVER: NULL. */
static void
time_us(struct saga__set *set, unsigned column, int64_t at_us)
{
	if (at_us == 0 || at_us == SAGA__NEVER_US)
		skald_array_add_text(&set->columns[column], SKALD_SLICE_NULL);
	else
		skald_array_add_int(&set->columns[column], at_us);
}

static int64_t
due_us(const struct saga__inst *inst)
{
	int64_t due_ms = skald__saga_due_at_ms(&inst->v.core);
	int64_t us = due_ms == INT64_MAX ? SAGA__NEVER_US : due_ms * 1000;

	if (inst->v.core.status == SAGA_IS_FINISHED)
		return SAGA__NEVER_US;
	return us < inst->look_us || us == SAGA__NEVER_US ? us : inst->look_us;
}

void
skald__saga_save(struct skald_orchestrator *o, struct saga__inst *inst)
{
	const struct saga_core *c = &inst->v.core;
	struct saga__set *s = &o->save;

	text(s, 0, inst->id);
	text(s, 1, skald__saga_status_name((enum saga_status)c->status));
	text(s, 2, skald__saga_outcome_name((enum saga_outcome)c->outcome));
	text(s, 3, skald__saga_undo_name((enum saga_undo)c->undo));
	flag(s, 4, c->is_paused);
	flag(s, 5, c->is_overdue);
	flag(s, 6, c->is_signed);
	text(s, 7,
		c->reason && c->reason_step >= 0
			? skald_saga_def_step_name(inst->def, (unsigned)c->reason_step)
			: "");
	text(s, 8, inst->reason_code);
	text(s, 9, inst->reason_text);
	skald_buf_clear(&o->scratch);
	skald__saga_encode(&inst->v, &o->scratch);
	slice(s, 10, skald_buf_slice(&o->scratch));
	number(s, 11, c->row_count);
	time_us(s, 12, due_us(inst));
	time_us(s, 13, inst->deadline_us);
	time_us(s, 14, inst->finished_us);
	time_us(s, 15, inst->published_us);
	flag(s, 16, inst->is_sent);
	s->row_count++;
}

static bool
is_about_attempt(enum saga_row row)
{
	return row == SAGA_ROW_COMMAND || row == SAGA_ROW_REPLY ||
	       row == SAGA_ROW_TIMEOUT || row == SAGA_ROW_LATE || row == SAGA_ROW_STALE;
}

void
skald__saga_log(struct skald_orchestrator *o, const struct saga__inst *inst,
	const struct saga_do *d, struct skald_slice message_id, struct skald_slice detail,
	struct skald_slice traceparent)
{
	struct saga__set *s = &o->log;
	const char *outcome = skald__saga_reply_name(d->reply);

	if (!d->seq)
		return; /* the history is full */
	if (d->row == SAGA_ROW_FINISHED)
		outcome =
			skald__saga_outcome_name((enum saga_outcome)inst->v.core.outcome);
	text(s, 0, inst->id);
	number(s, 1, d->seq);
	text(s, 2, skald__saga_row_name(d->row));
	text(s, 3,
		d->step >= 0 ? skald_saga_def_step_name(inst->def, (unsigned)d->step)
			     : "");
	text(s, 4, is_about_attempt(d->row) ? skald__saga_op_name(d->op) : "");
	if (is_about_attempt(d->row))
		number(s, 5, d->attempt);
	else
		slice(s, 5, SKALD_SLICE_NULL);
	text(s, 6, outcome);
	slice(s, 7, detail);
	slice(s, 8, message_id);
	slice(s, 9, inst->correlation_id);
	slice(s, 10, traceparent);
	s->row_count++;
}

void
skald__saga_keep(struct skald_orchestrator *o, const struct saga__inst *inst,
	const char *name, struct skald_slice data)
{
	text(&o->keep, 0, inst->id);
	text(&o->keep, 1, name);
	slice(&o->keep, 2, data);
	o->keep.row_count++;
}

void
skald__saga_put(struct skald_orchestrator *o, const struct saga__out *out)
{
	struct saga__set *s = &o->put;

	text(s, 0, out->id);
	text(s, 1, out->topic);
	slice(s, 2, out->key);
	text(s, 3, out->type);
	slice(s, 4, out->data);
	slice(s, 5, out->headers);
	slice(s, 6, out->correlation_id);
	slice(s, 7, out->causation_id);
	text(s, 8, out->traceparent);
	time_us(s, 9, out->expires_us);
	s->row_count++;
	o->has_emitted = true;
}

/* --- sending ------------------------------------------------------------------------------------ */

/* `first` parameters, then the set's columns. */
static enum skald_rc
send_set(struct skald_orchestrator *o, struct saga__set *set, const char *sql,
	const struct skald_param *first, unsigned first_count, struct skald_err *err)
{
	struct skald_param params[SAGA__SETS + 1];

	if (set->row_count == 0)
		return SKALD_OK;
	for (unsigned i = 0; i < first_count; i++)
		params[i] = first[i];
	for (unsigned i = 0; i < set->column_count; i++) {
		skald_array_end(&set->columns[i]);
		if (set->columns[i].failed)
			return skald_fail(err, SKALD_REJECT, "skald", "53200",
				"the batch is too large to write");
		params[first_count + i] = skald_param_text(set->columns[i].data);
	}
	return skald_pipe_send(
		o->sql, sql, params, first_count + set->column_count, false, err);
}

static enum skald_rc
send_dead(
	struct skald_orchestrator *o, const struct saga__msg *msg, struct skald_err *err)
{
	const struct skald_kafka_record *r = msg->record;
	char partition[24], offset[24];

	skald_buf_clear(&o->scratch);
	skald_headers_json(r->headers, &o->scratch);
	if (o->scratch.failed)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	struct skald_param params[] = { skald_param_text(o->group),
		skald_param_text(r->topic), skald_param_int(r->partition, partition),
		skald_param_int(r->offset, offset), skald_param_bytea(r->key),
		skald_param_bytea(r->value), skald_param_text(o->scratch.data),
		skald_param_text(msg->code), skald_param_text(msg->why.text) };

	atomic_fetch_add(o->count.dead, 1);
	return skald_pipe_send(o->sql,
		"SELECT skald.dead_letter(consumer_group => $1, topic => $2,"
		" partition => $3::int, record_offset => $4::bigint, key => $5, value => "
		"$6,"
		" headers => $7::jsonb, class => 'DECODE', code => $8, message => $9)",
		params, 9, false, err);
}

static enum skald_rc
send_done(struct skald_orchestrator *o, struct skald_err *err)
{
	struct skald_param owner = skald_param_text(o->owner);

	skald__saga_set_begin(&o->done, 4);
	for (unsigned i = 0; i < o->part_count; i++) {
		const struct saga__part *p = &o->parts[i];

		if (p->next == p->done)
			continue;
		text(&o->done, 0, p->topic);
		number(&o->done, 1, p->partition);
		number(&o->done, 2, p->term);
		number(&o->done, 3, p->next);
		o->done.row_count++;
	}
	return send_set(o, &o->done,
		"SELECT skald.orchestrator_done($1, $2::text[], $3::int[], $4::bigint[],"
		" $5::bigint[])",
		&owner, 1, err);
}

static enum skald_rc
send_all(struct skald_orchestrator *o, struct skald_err *err)
{
	char now_us[24];
	struct skald_param now = skald_param_int(o->clock_us, now_us);
	struct skald_param source = skald_param_text(o->source);
	enum skald_rc rc;

	rc = send_set(o, &o->save,
		"SELECT skald.orchestrator_save($1::bigint, $2::uuid[], $3::text[],"
		" $4::text[], $5::text[], $6::boolean[], $7::boolean[], $8::boolean[],"
		" $9::text[], $10::text[], $11::text[], $12::text[], $13::int[],"
		" $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[],"
		" $18::boolean[])",
		&now, 1, err);
	if (!rc)
		rc = send_set(o, &o->log,
			"SELECT skald.orchestrator_log($1::bigint, $2::uuid[], $3::int[],"
			" $4::text[], $5::text[], $6::text[], $7::int[], $8::text[],"
			" $9::text[], $10::text[], $11::text[], $12::text[])",
			&now, 1, err);
	if (!rc)
		rc = send_set(o, &o->keep,
			"SELECT skald.orchestrator_keep($1::uuid[], $2::text[], "
			"$3::text[])",
			NULL, 0, err);
	if (!rc)
		rc = send_set(o, &o->put,
			"SELECT skald.orchestrator_send($1, $2::uuid[], $3::text[],"
			" $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],"
			" $9::text[], $10::text[], $11::bigint[])",
			&source, 1, err);
	for (unsigned i = o->lo; i < o->hi && !rc; i++)
		if (o->msgs[i].replay) {
			rc = skald__saga_replay_end(o, &o->msgs[i], err);
		} else if (o->msgs[i].is_dead) {
			rc = send_dead(o, &o->msgs[i], err);
			o->has_emitted = true;
		}
	return rc ? rc : send_done(o, err);
}

enum skald_rc
skald__saga_write(struct skald_orchestrator *o, struct skald_err *err)
{
	struct skald_err later = SKALD_ERR_INIT;
	enum skald_rc rc, end;

	rc = skald_pipe_begin(o->sql, err);
	if (rc)
		return rc;
	rc = send_all(o, err);
	if (!rc)
		rc = skald_pipe_sync(o->sql, err);
	end = skald_pipe_end(o->sql, rc ? &later : err); /* reads every result */
	return rc ? rc : end;
}
