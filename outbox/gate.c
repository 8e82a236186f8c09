/*
 * gate.c - what only one server has can be undone by a failover: with a gate a row is
 * produced only once the named standbys have its commit on disk.
 *
 *   ask      the end of this server's flushed WAL, and how far the standbys are
 *   pass     rows that were here when a position was asked for may go once all standbys
 *            have that position: their commits lie below it
 */
#include "outbox/own.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define ASK_MS  2
#define WAIT_MS 1000 /* a standby that is behind for so long is trouble */

/* clang-format off */
static const char sql_gate[] =
	"SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint,"
	" string_agg(n.name, ', ') FILTER (WHERE n.flushed IS NULL),"
	" (min(n.flushed) - '0/0'::pg_lsn)::bigint"
	" FROM (SELECT w.name, (SELECT max(s.flush_lsn) FROM pg_stat_replication s"
	"   WHERE s.application_name = w.name) AS flushed"
	"   FROM (SELECT trim(x) FROM unnest(string_to_array($1, ',')) x) AS w (name)) AS n";
/* clang-format on */

/* The gate stays shut: named once it has been for a while. */
static void
note_wait(struct skald_relay *r, const char *missing)
{
	struct skald_err err = SKALD_ERR_INIT;

	if (r->gate.shut_at_ms == 0)
		r->gate.shut_at_ms = skald_mono_ms();
	if (skald_mono_ms() - r->gate.shut_at_ms < WAIT_MS)
		return;
	skald_fail(&err, SKALD_RETRY, "skald", "", "the gate is shut: %s%s",
		missing[0] ? "not connected: " : "standbys are behind", missing);
	skald__relay_trouble(r, &r->standby, &err, "standbys");
}

enum skald_rc
skald__gate_ask(struct skald_relay *r, struct skald_err *err)
{
	struct skald__relay_ev ev = { .kind = SKALD__EV_GATED,
		.at_ms = skald_mono_ms() + ASK_MS };
	struct skald_param names = skald_param_text(r->gate.names);
	struct skald__gate *g = &r->gate;
	struct skald_rows *rows = NULL;
	char missing[96] = "";
	int64_t here, there;
	enum skald_rc rc;

	rc = skald_sql_query(r->guard, sql_gate, &names, 1, true, &rows, err);
	if (rc)
		return rc;
	here = skald_rows_int(rows, 0, 0, 0);
	if (skald_rows_get(rows, 0, 1).data)
		(void)snprintf(
			missing, sizeof(missing), "%s", skald_rows_get(rows, 0, 1).data);
	there = missing[0] ? 0 : skald_rows_int(rows, 0, 2, 0);
	skald_rows_free(rows);
	if (there >= here) { /* nothing of what is here is above that */
		ev.ordinal = r->core.here;
		g->asked_ordinal = 0;
	} else if (g->asked_ordinal > r->core.gated && (uint64_t)there >= g->asked_lsn) {
		ev.ordinal = g->asked_ordinal;
		g->asked_ordinal = 0;
	}
	if (ev.ordinal > r->core.gated) {
		g->shut_at_ms = 0;
		skald__relay_trouble_over(r, &r->standby);
	} else {
		note_wait(r, missing);
	}
	if (g->asked_ordinal <= r->core.gated && ev.ordinal < r->core.here) {
		g->asked_lsn = (uint64_t)here;
		g->asked_ordinal = r->core.here;
	}
	skald__relay_tell(r, ev);
	return SKALD_OK;
}

/* Ordinals begin anew: what was asked says nothing about them. */
void
skald__gate_reset(struct skald_relay *r)
{
	r->gate.asked_ordinal = 0;
	r->gate.shut_at_ms = 0;
}
