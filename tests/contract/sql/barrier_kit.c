#include "tests/contract/sql/barrier_kit.h"

#include <stdarg.h>
#include <stdlib.h>

struct skald_sql *sql; /* as a member of skald_app only */
struct skald_sql *owner; /* looks at the rows */
char saga[64]; /* of the case in hand */
char last_id[64]; /* ce_id of the newest command */

/* --- what a test says --------------------------------------------------------------------------- */

void
new_saga(void)
{
	(void)snprintf(
		saga, sizeof(saga), "%s", pg_text(owner, "SELECT skald.uuid7()::text"));
}

const char *
headers(const char *op, int attempt, const char *round)
{
	static char texts[8][TEXT_BYTES];
	static unsigned next;
	char *text = texts[next++ % 8];

	(void)snprintf(last_id, sizeof(last_id), "%s",
		pg_text(owner, "SELECT skald.uuid7()::text"));
	(void)snprintf(text, TEXT_BYTES,
		"'{\"ce_id\":\"%s\",\"ce_type\":\"inventory.%s\",\"ce_sagaid\":\"%s\","
		"\"ce_saganame\":\"order\",\"ce_sagastep\":\"reserve\","
		"\"ce_sagaop\":\"%s\",\"ce_sagaattempt\":\"%d\","
		"\"ce_replyto\":\"skald.replies.shop\",\"ce_correlationid\":\"corr\","
		"\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
		"01\",\"idempotency-key\":\"%s:reserve:%s%s\"}'::jsonb",
		last_id, op, saga, op, attempt, saga,
		strcmp(op, "query") == 0 ? "action" : op, round);
	return text;
}

const char *
ask(struct skald_sql *who, const char *fmt, ...)
{
	static char texts[8][TEXT_BYTES];
	static unsigned next;
	char *text = texts[next++ % 8], statement[2 * TEXT_BYTES];
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(statement, sizeof(statement), fmt, args);
	va_end(args);
	if (skald_conn_query(skald_sql_conn(who), statement, NULL, 0, &rows, &err))
		(void)snprintf(text, TEXT_BYTES, "%s", err.code);
	else if (skald_rows_count(rows) == 0)
		text[0] = '\0';
	else
		(void)skald_slice_copy(skald_rows_get(rows, 0, 0), text, TEXT_BYTES);
	skald_rows_free(rows);
	return text;
}

const char *
participate(const char *h)
{
	return ask(
		sql, "SELECT skald.participate(headers => %s, participant => 'inv')", h);
}

const char *
reply(const char *h, const char *outcome, const char *data)
{
	return ask(sql,
		"SELECT skald.reply(headers => %s, participant => 'inv',"
		" outcome => '%s', data => '%s')",
		h, outcome, data);
}

static const char *
data_of(const char *outcome)
{
	return strcmp(outcome, "success") == 0 ? "{\"r\":10.00}" : NO;
}

void
begin(void)
{
	pg_exec(sql, "BEGIN");
}

void
commit(void)
{
	pg_exec(sql, "COMMIT");
}

void
rollback(void)
{
	pg_exec(sql, "ROLLBACK");
}

const char *
handle(const char *op, const char *round, const char *outcome)
{
	const char *h = headers(op, 1, round), *verdict;

	begin();
	verdict = participate(h);
	if (strcmp(verdict, "run") == 0 || strcmp(verdict, "query") == 0)
		CU_ASSERT_EQUAL(strlen(reply(h, outcome, data_of(outcome))), 36);
	commit();
	return verdict;
}

const char *
answer(void)
{
	return ask(owner,
		"SELECT concat_ws(' ', headers ->> 'ce_sagaoutcome',"
		" headers ->> 'ce_sagabarrier', headers ->> 'ce_sagaattempt',"
		" headers ->> 'ce_sagaop', convert_from(data, 'UTF8'))"
		" FROM skald.outbox WHERE headers ->> 'ce_sagaid' = '%s'"
		" ORDER BY id DESC LIMIT 1",
		saga);
}

int64_t
answers(void)
{
	return strtoll(ask(owner,
			       "SELECT count(*) FROM skald.outbox WHERE headers ->> "
			       "'ce_sagaid' = '%s'",
			       saga),
		NULL, 10);
}

void
bring(const char *state)
{
	if (strcmp(state, "no row") == 0)
		return;
	if (strcmp(state, "taken") == 0 || strcmp(state, "pending") == 0) {
		const char *h = headers("action", 1, "");

		begin();
		CHECK_TEXT(participate(h), "run");
		if (strcmp(state, "taken") == 0)
			return;
		CHECK_TEXT(ask(sql,
				   "SELECT skald.reply_later(headers => %s, participant "
				   "=> 'inv')",
				   h),
			"");
		commit();
		return;
	}
	CHECK_TEXT(handle("action", "", state), "run");
}

int
kit_main(const char *name, const struct check_case *cases, size_t count)
{
	int status;

	owner = pg_open("barrier", SKALD_SQL_TOOL);
	pg_exec(owner, "CREATE ROLE shop LOGIN IN ROLE skald_app");
	sql = pg_session("barrier", "shop", SKALD_SQL_SERVICE);
	status = check_main(name, cases, count);
	skald_sql_close(sql);
	skald_sql_close(owner);
	return status;
}
