/*
 * doze.c - an idle relay in mode poll lets writers wake it, and hardly looks any more.
 *
 * A flag (a sequence: what is written there is seen at once) tells writers to NOTIFY;
 * while the relay is awake they do not, because every NOTIFY serialises commits. A
 * writer looks at the flag after its transaction has its id. So whoever has an id above
 * one that was drawn when the flag was up has seen it, and once all others have ended
 * (R11 in relay_core.c) nobody can commit without either being seen or waking us. A
 * snapshot's xmax would not do: ids above it may be in use, by who has not ended.
 */
#include "outbox/own.h"

#include "base/log.h"

static const char sql_xid[] = "SELECT pg_current_xact_id()::text";
static const char sql_doze[] = "SELECT skald.relay_doze($1::bigint, $2::boolean)";

enum skald_rc
skald__next_xid(struct skald_relay *r, char dst[24], struct skald_err *err)
{
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald_sql_query(r->guard, sql_xid, NULL, 0, false, &rows, err);
	if (!rc && !skald_slice_copy(skald_rows_get(rows, 0, 0), dst, 24))
		rc = skald_fail(
			err, SKALD_RETRY, "skald", "", "a transaction id cannot be read");
	skald_rows_free(rows);
	return rc;
}

enum skald_rc
skald__doze(struct skald_relay *r, bool is_asleep, struct skald_err *err)
{
	char term[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_text(is_asleep ? "t" : "f") };
	enum skald_rc rc = SKALD_OK;

	/* the work session hears; heard before the flag is up, or a wake-up could be missed */
	if (is_asleep)
		rc = skald_sql_exec(r->work, "LISTEN skald_outbox", err);
	if (!rc)
		rc = skald_sql_query(r->guard, sql_doze, params, 2, false, NULL, err);
	r->asleep_xid[0] = '\0';
	if (!rc && is_asleep) /* a transaction of its own: after the flag */
		rc = skald__next_xid(r, r->asleep_xid, err);
	if (rc)
		return rc;
	atomic_store(r->metrics.asleep, is_asleep);
	skald__relay_tell(r, (struct skald__relay_ev){
				     .kind = SKALD__EV_DOZING, .is_open = is_asleep });
	return SKALD_OK;
}
