/*
 * participant.c - commands of sagas inside the runner: the barrier decides which run,
 * each in a savepoint of the batch's transaction; what they answer is written with the
 * watermarks.
 *
 *   BEGIN, take all (one round trip) -> handler, handler, ... -> answer all, COMMIT (one)
 *
 * P1  A command is deduped by the barrier alone, never by its ce_id.
 * P2  A handler that said yes or no has its answer in the same commit as its work.
 * P3  A no leaves nothing of its own work behind.
 * P4  Two commands of one step never wait for each other in one take: the later one is
 *     taken when its turn comes, after the earlier one's answer is written.
 */
#include "consumers/own.h"

#include <stdlib.h>

#include "base/failpoint.h"
#include "base/log.h"

#define ANSWERS_BYTES_MAX (4 * 1024 * 1024) /* owed before they are written meanwhile */

enum ask_column { ASK_KEY, ASK_PLAIN, ASK_HEADERS, ASK_ID, ASK_EXPIRES, ASK_COLUMNS };
enum answer_column {
	ANSWER_KEY,
	ANSWER_QUERY,
	ANSWER_OUTCOME,
	ANSWER_DATA,
	ANSWER_ID,
	ANSWER_TOPIC,
	ANSWER_TYPE,
	ANSWER_HEADERS,
	ANSWER_CORRELATION,
	ANSWER_CAUSATION,
	ANSWER_TRACEPARENT,
	ANSWER_COLUMNS
};

struct skald__participant {
	char *name;
	char *reply_suffix; /* name + ":reply": what ids of answers are derived from */
	skald__find_command_fn find;
	void *ctx;
	struct skald_delivery **asked; /* conf.batch_max; in the order of the arrays */
	unsigned asked_count;
	struct skald_buf ask[ASK_COLUMNS];
	struct skald_buf answer[ANSWER_COLUMNS];
	unsigned answer_count;
	struct skald_buf text;
	struct skald_reply reply;
	bool has_savepoint; /* in this transaction */
	bool is_fresh; /* and nothing was done since */
};

static const char take_statement[] =
	"SELECT v FROM skald.participant_take($1, $2::text[], $3::boolean[], $4::text[],"
	" $5::uuid[], $6::bigint[]) AS v";
static const char answer_statement[] =
	"SELECT skald.participant_answer($1, $2::text[], $3::boolean[], $4::text[],"
	" $5::text[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::text[],"
	" $11::text[], $12::text[])";

/* --- create, free ------------------------------------------------------------------------------ */

void
skald__participant_free(struct skald_consumer *c)
{
	struct skald__participant *p = c->participant;

	if (!p)
		return;
	for (unsigned i = 0; i < ASK_COLUMNS; i++)
		skald_buf_done(&p->ask[i]);
	for (unsigned i = 0; i < ANSWER_COLUMNS; i++)
		skald_buf_done(&p->answer[i]);
	skald_buf_done(&p->text);
	skald__reply_done(&p->reply);
	free(p->asked);
	free(p->name);
	free(p->reply_suffix);
	free(p);
	c->participant = NULL;
}

enum skald_rc
skald__consumer_commands(struct skald_consumer *c, const char *participant,
	skald__find_command_fn find, void *ctx, struct skald_err *err)
{
	struct skald__participant *p;

	if (!c->conf.handler)
		return skald_fail(err, SKALD_FATAL, "skald", "SK001",
			"handler: a batch handler cannot serve commands");
	if (!participant || !*participant || strlen(participant) > 255)
		return skald_fail(err, SKALD_FATAL, "skald", "SK001",
			"participant: must be 1 to 255 bytes");
	p = calloc(1, sizeof(*p));
	if (!p)
		return skald_fail(err, SKALD_FATAL, "skald", "", "out of memory");
	for (unsigned i = 0; i < ASK_COLUMNS; i++)
		skald_buf_init(&p->ask[i], SKALD__ARGS_BYTES_MAX);
	for (unsigned i = 0; i < ANSWER_COLUMNS; i++)
		skald_buf_init(&p->answer[i], SKALD__ARGS_BYTES_MAX);
	skald_buf_init(&p->text, SKALD__ARGS_BYTES_MAX);
	skald__reply_init(&p->reply);
	skald_buf_addf(&p->text, "%s:reply", participant);
	p->name = strdup(participant);
	p->reply_suffix = p->text.failed ? NULL : strdup(p->text.data);
	p->asked = calloc(c->conf.batch_max, sizeof(struct skald_delivery *));
	p->find = find;
	p->ctx = ctx;
	skald__participant_free(c);
	c->participant = p;
	if (!p->name || !p->reply_suffix || !p->asked)
		return skald_fail(err, SKALD_FATAL, "skald", "", "out of memory");
	return SKALD_OK;
}

enum skald_rc
skald__participant_find(
	struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	enum skald_rc rc;

	d->route = NULL;
	d->is_told = d->gives_up = false;
	if (!p)
		return SKALD_OK;
	d->route = p->find(d->envelope.type, p->ctx);
	if (!d->route)
		return SKALD_OK;
	d->command.participant = p->name;
	rc = skald__command_read(d, err);
	if (rc)
		d->route = NULL; /* never to be answered: whom to? */
	return rc;
}

/* --- taking -------------------------------------------------------------------------------------- */

static void
clear_columns(struct skald_buf *columns, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		skald_buf_clear(&columns[i]);
		skald_array_begin(&columns[i]);
	}
}

/* Close the arrays and make them parameters from params[1] on; false: out of memory. */
static bool
bind_columns(struct skald_buf *columns, unsigned count, struct skald_param *params)
{
	bool is_whole = true;

	for (unsigned i = 0; i < count; i++) {
		skald_array_end(&columns[i]);
		is_whole = is_whole && !columns[i].failed;
		params[i + 1] = skald_param_text(columns[i].data);
	}
	return is_whole;
}

static enum skald_rc
no_memory(struct skald_err *err)
{
	return skald_fail(err, SKALD_RETRY, "skald", "53200", "commands: out of memory");
}

void
skald__participant_reset(struct skald_consumer *c)
{
	struct skald__participant *p = c->participant;

	if (!p)
		return;
	clear_columns(p->ask, ASK_COLUMNS);
	clear_columns(p->answer, ANSWER_COLUMNS);
	p->asked_count = p->answer_count = 0;
	p->has_savepoint = p->is_fresh = false;
}

/* UUIDv5(ce_id, name + ":reply"), as skald.barrier_reply_id has it. */
static void
reply_id(const struct skald__participant *p, const struct skald_delivery *d,
	char text[SKALD_UUID_TEXT_BYTES])
{
	static const struct skald_uuid nil;
	struct skald_uuid space;

	if (!skald_uuid_parse(d->envelope.id, &space))
		space = skald_uuid_v5(nil, d->envelope.id);
	skald_uuid_format(skald_uuid_v5(space, skald_slice_text(p->reply_suffix)), text);
}

static void
add_ask(struct skald__participant *p, struct skald_delivery *d)
{
	char id[SKALD_UUID_TEXT_BYTES];

	reply_id(p, d, id);
	skald_buf_clear(&p->text);
	skald_headers_json(d->record.headers, &p->text);
	if (p->text.failed)
		p->ask[ASK_HEADERS].failed = true;
	skald_array_add_text(&p->ask[ASK_KEY], d->command.key);
	skald_array_add_text(
		&p->ask[ASK_PLAIN], skald_slice_text(d->command.is_plain ? "t" : "f"));
	skald_array_add_text(&p->ask[ASK_HEADERS], skald_buf_slice(&p->text));
	skald_array_add_text(&p->ask[ASK_ID], skald_slice_text(id));
	if (d->envelope.expires_at_us)
		skald_array_add_int(&p->ask[ASK_EXPIRES], d->envelope.expires_at_us);
	else
		skald_array_add_text(&p->ask[ASK_EXPIRES], SKALD_SLICE_NULL);
	p->asked[p->asked_count++] = d;
}

void
skald__participant_ask(struct skald_consumer *c, struct skald_delivery *d)
{
	struct skald__participant *p = c->participant;

	d->is_told = false;
	for (unsigned i = 0; i < p->asked_count; i++)
		if (p->asked[i]->command.step_hash == d->command.step_hash)
			return; /* P4 */
	add_ask(p, d);
}

static enum skald_rc
tell(struct skald__participant *p, const struct skald_rows *rows, struct skald_err *err)
{
	if (skald_rows_count(rows) != p->asked_count)
		return skald_fail(err, SKALD_FATAL, "skald", "",
			"participant_take: %u verdicts for %u commands",
			skald_rows_count(rows), p->asked_count);
	for (unsigned i = 0; i < p->asked_count; i++) {
		if (!skald__verdict_read(skald_rows_get(rows, i, 0), &p->asked[i]->told))
			return skald_fail(err, SKALD_FATAL, "skald", "",
				"participant_take: a verdict this version does not know");
		p->asked[i]->is_told = true;
	}
	return SKALD_OK;
}

enum skald_rc
skald__participant_send_take(
	struct skald_consumer *c, unsigned *results, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	struct skald_param params[ASK_COLUMNS + 1];
	enum skald_rc rc;

	*results = 0;
	if (!p || p->asked_count == 0)
		return SKALD_OK;
	params[0] = skald_param_text(p->name);
	if (!bind_columns(p->ask, ASK_COLUMNS, params))
		return no_memory(err);
	rc = skald_pipe_send(c->sql, take_statement, params, ASK_COLUMNS + 1, false, err);
	*results = 1;
	if (!rc && !c->conf.sql_context) { /* else it goes with the context */
		rc = skald_pipe_send(
			c->sql, "SAVEPOINT skald_command", NULL, 0, false, err);
		*results = 2;
	}
	return rc;
}

enum skald_rc
skald__participant_take_results(struct skald_consumer *c, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	struct skald_rows *rows = NULL;
	enum skald_rc rc = skald_pipe_take(c->sql, &rows, err);

	if (!rc)
		rc = tell(p, rows, err);
	skald_rows_free(rows);
	if (rc || c->conf.sql_context)
		return rc;
	rc = skald_pipe_take(c->sql, NULL, err);
	p->has_savepoint = p->is_fresh = !rc;
	return rc;
}

/* One whose turn has come; what is owed is written first. */
static enum skald_rc
take_alone(struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	struct skald_param params[ASK_COLUMNS + 1];
	struct skald_rows *rows = NULL;
	enum skald_rc rc = skald__participant_flush(c, err);

	if (rc)
		return rc;
	p->is_fresh = false;
	p->asked_count = 0;
	clear_columns(p->ask, ASK_COLUMNS);
	add_ask(p, d);
	params[0] = skald_param_text(p->name);
	if (!bind_columns(p->ask, ASK_COLUMNS, params))
		return no_memory(err);
	rc = skald_sql_query(
		c->sql, take_statement, params, ASK_COLUMNS + 1, false, &rows, err);
	if (!rc)
		rc = tell(p, rows, err);
	skald_rows_free(rows);
	return rc;
}

/* --- answering ------------------------------------------------------------------------------------- */

static void
answer_headers(struct skald_consumer *c, const struct skald_delivery *d,
	struct skald_slice outcome, struct skald_buf *out)
{
	const struct skald_command *cmd = &d->command;

	skald_buf_clear(out);
	skald_buf_add_text(out, "{");
	skald_json_add_member(out, "ce_sagaid", cmd->saga_id);
	skald_json_add_member(out, "ce_saganame", cmd->saga_name);
	skald_json_add_member(out, "ce_sagastep", cmd->step);
	skald_json_add_member(out, "ce_sagaop", skald_slice_text(skald_op_name(cmd->op)));
	skald_json_add_member(out, "ce_sagaattempt", cmd->attempt_text);
	skald_json_add_member(out, "idempotency-key", cmd->key);
	skald_json_add_member(out, "ce_sagaoutcome", outcome);
	if (c->context.tracestate[0])
		skald_json_add_member(
			out, SKALD_H_TRACESTATE, skald_slice_text(c->context.tracestate));
	if (c->context.baggage.data && c->context.baggage.bytes &&
		c->context.baggage.bytes <= 4096)
		skald_json_add_member(out, SKALD_H_BAGGAGE, c->context.baggage);
	skald_buf_add_text(out, "}");
}

/* What p->reply says, to be written later. */
static enum skald_rc
owe(struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	const struct skald_command *cmd = &d->command;
	struct skald_slice outcome =
		skald_slice_text(skald__outcome_name(p->reply.outcome));
	char id[SKALD_UUID_TEXT_BYTES], trace[SKALD_TRACEPARENT_BYTES];

	reply_id(p, d, id);
	skald_trace_child(skald_slice_text(c->context.traceparent),
		skald_rand_next(&c->rand), skald_rand_next(&c->rand),
		skald_rand_next(&c->rand), trace);
	skald_array_add_text(&p->answer[ANSWER_KEY], cmd->key);
	skald_array_add_text(&p->answer[ANSWER_QUERY],
		skald_slice_text(cmd->op == SKALD_OP_QUERY ? "t" : "f"));
	skald_array_add_text(&p->answer[ANSWER_OUTCOME], outcome);
	skald_array_add_text(&p->answer[ANSWER_DATA], skald_buf_slice(&p->reply.data));
	skald_array_add_text(&p->answer[ANSWER_ID], skald_slice_text(id));
	skald_array_add_text(&p->answer[ANSWER_TOPIC], cmd->reply_to);
	skald_buf_clear(&p->text);
	skald_buf_add_slice(&p->text, d->envelope.type);
	skald_buf_add_text(&p->text, ".reply");
	skald_array_add_text(&p->answer[ANSWER_TYPE], skald_buf_slice(&p->text));
	answer_headers(c, d, outcome, &p->text);
	skald_array_add_text(&p->answer[ANSWER_HEADERS], skald_buf_slice(&p->text));
	skald_array_add_text(&p->answer[ANSWER_CORRELATION],
		skald_slice_text(c->context.correlation_id));
	skald_array_add_text(&p->answer[ANSWER_CAUSATION], d->envelope.id);
	skald_array_add_text(&p->answer[ANSWER_TRACEPARENT], skald_slice_text(trace));
	p->answer_count++;
	if (p->text.failed)
		return no_memory(err);
	if (p->answer[ANSWER_DATA].bytes > ANSWERS_BYTES_MAX)
		return skald__participant_flush(c, err);
	return SKALD_OK;
}

bool
skald__participant_owes(const struct skald_consumer *c)
{
	return c->participant && c->participant->answer_count > 0;
}

enum skald_rc
skald__participant_send_answers(struct skald_consumer *c, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	struct skald_param params[ANSWER_COLUMNS + 1];

	params[0] = skald_param_text(p->name);
	if (!bind_columns(p->answer, ANSWER_COLUMNS, params))
		return no_memory(err);
	return skald_pipe_send(
		c->sql, answer_statement, params, ANSWER_COLUMNS + 1, false, err);
}

enum skald_rc
skald__participant_flush(struct skald_consumer *c, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	struct skald_param params[ANSWER_COLUMNS + 1];
	enum skald_rc rc;

	if (!skald__participant_owes(c))
		return SKALD_OK;
	params[0] = skald_param_text(p->name);
	if (!bind_columns(p->answer, ANSWER_COLUMNS, params))
		return no_memory(err);
	rc = skald_sql_query(
		c->sql, answer_statement, params, ANSWER_COLUMNS + 1, false, NULL, err);
	clear_columns(p->answer, ANSWER_COLUMNS);
	p->answer_count = 0;
	return rc;
}

/* Answered some day by skald_reply_by_key: the barrier keeps what it must echo then. */
static enum skald_rc
defer_answer(struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	struct skald_param params[2];

	skald_buf_clear(&p->text);
	skald_headers_json(d->record.headers, &p->text);
	if (p->text.failed)
		return no_memory(err);
	params[0] = skald_param_text(p->text.data);
	params[1] = skald_param_text(p->name);
	return skald_sql_query(c->sql,
		"SELECT skald.reply_later(headers => $1::jsonb, participant => $2)",
		params, 2, false, NULL, err);
}

/* --- running ---------------------------------------------------------------------------------------- */

/* The command's context and a savepoint of its own, in one round trip; in this order, so that
   settings are not kept per savepoint. */
static enum skald_rc
send_work(struct skald_consumer *c, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	if (c->participant->has_savepoint)
		rc = skald_pipe_send(
			c->sql, "RELEASE SAVEPOINT skald_command", NULL, 0, false, err);
	if (!rc && c->conf.sql_context)
		rc = skald__delivery_send_context(c, err);
	if (!rc)
		rc = skald_pipe_send(
			c->sql, "SAVEPOINT skald_command", NULL, 0, false, err);
	return rc;
}

static enum skald_rc
begin_work(struct skald_consumer *c, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	struct skald_err ignored = SKALD_ERR_INIT;
	enum skald_rc rc, end;

	if (p->is_fresh) { /* the first one's came with the take */
		p->is_fresh = false;
		return SKALD_OK;
	}
	rc = skald_pipe_begin(c->sql, err);
	if (rc)
		return rc;
	rc = send_work(c, err);
	end = skald_pipe_end(c->sql, rc ? &ignored : err);
	p->has_savepoint = !rc && !end;
	p->is_fresh = false;
	return rc ? rc : end;
}

static enum skald_rc
undo_work(struct skald_consumer *c, struct skald_err *err)
{
	enum skald_rc rc =
		skald_sql_exec(c->sql, "ROLLBACK TO SAVEPOINT skald_command", err);

	if (rc && strncmp(err->code, "25", 2) == 0)
		return skald_fail(err, SKALD_FATAL, "skald", "SK006",
			"the handler ended the transaction it was given");
	if (rc && strcmp(err->code, "3B001") == 0)
		return skald_fail(err, SKALD_FATAL, "skald", "SK006",
			"the handler ended the savepoint it was given");
	return rc;
}

/* What the handler said, as an answer in p->reply. */
static enum skald_rc
call_handler(struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	enum skald_rc rc;

	skald__reply_clear(&p->reply);
	rc = d->route->handler(
		&d->command, skald_sql_conn(c->sql), &p->reply, d->route->ctx, err);
	SKALD_FAILPOINT(participant_after_work);
	if (p->reply.fault && rc) {
		*err = p->reply.err;
		return p->reply.fault;
	}
	if (rc == SKALD_REJECT) {
		skald__reply_set_error(&p->reply, SKALD_OUTCOME_FAILURE, "rejected", err);
		return SKALD_OK;
	}
	if (!rc && !p->reply.is_set)
		return skald_fail(err, SKALD_FATAL, "skald", "SK002",
			"the handler of %.*s said OK, but set no reply",
			(int)(d->envelope.type.bytes < 100 ? d->envelope.type.bytes
							   : 100),
			d->envelope.type.data);
	return rc;
}

/* In the context of the command; a batch that is rolled back says it again. */
static void
tell_command(const struct skald_delivery *d, const char *what, const char *outcome)
{
	const struct skald_command *cmd = &d->command;

	skald_log(SKALD_LOG_DEBUG,
		"command %s saga=%.*s step=%.*s op=%s attempt=%u outcome=%s", what,
		(int)cmd->saga_id.bytes, cmd->saga_id.data, (int)cmd->step.bytes,
		cmd->step.data, skald_op_name(cmd->op), cmd->attempt, outcome);
}

static enum skald_rc
work(struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	struct skald__participant *p = c->participant;
	enum skald_rc rc;

	if (d->gives_up) {
		skald__reply_set_error(
			&p->reply, SKALD_OUTCOME_RETRYABLE, "retry", &d->why);
		tell_command(d, "answered", "retryable");
		return owe(c, d, err);
	}
	rc = begin_work(c, err);
	if (!rc)
		rc = call_handler(c, d, err);
	if (rc)
		return rc;
	tell_command(d, p->reply.is_later ? "to be answered later" : "answered",
		p->reply.is_later ? "" : skald__outcome_name(p->reply.outcome));
	if (p->reply.is_later)
		return defer_answer(c, d, err);
	if (p->reply.outcome == SKALD_OUTCOME_FAILURE ||
		p->reply.outcome == SKALD_OUTCOME_RETRYABLE)
		rc = undo_work(c, err);
	if (!rc)
		rc = owe(c, d, err);
	return rc;
}

enum skald_rc
skald__participant_call(
	struct skald_consumer *c, struct skald_delivery *d, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	if (!d->is_told)
		rc = take_alone(c, d, err);
	d->is_told = false; /* of this transaction only */
	if (rc)
		return rc;
	c->has_emitted = true;
	switch (d->told) {
	case SKALD_VERDICT_RUN:
	case SKALD_VERDICT_QUERY:
		SKALD_FAILPOINT(participant_after_participate);
		return work(c, d, err);
	case SKALD_VERDICT_PENDING:
	case SKALD_VERDICT_DUPLICATE:
	case SKALD_VERDICT_EMPTY:
	case SKALD_VERDICT_REFUSED:
		tell_command(d, "not run", skald__verdict_name(d->told));
		break;
	}
	return SKALD_OK;
}
