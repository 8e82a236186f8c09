/*
 * wal_slot.c - coming to mode wal and leaving it: the slot is made, entered, dropped.
 *
 * While a slot is made (it waits for every transaction of the cluster) polling goes on.
 * A slot found there while we poll is somebody's leaving: it holds WAL back for nothing,
 * and is dropped, never used again.
 */
#include "outbox/own.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

#define SLOT_RETRY_MS 5000
#define IMPOSSIBLE_MS 30000 /* what a person has to repair */
#define COME_BACK_MS  10000 /* after a slot was shed */
#define DROP_ATTEMPTS 20
#define DROP_PAUSE_MS 25

static const char sql_publication[] =
	"SELECT EXISTS (SELECT FROM pg_publication_tables"
	" WHERE pubname = 'skald_outbox' AND schemaname = 'skald'),"
	" current_setting('wal_level'), current_setting('server_version_num')::bigint";
static const char sql_no_wal[] = "SELECT skald.relay_no_wal($1::bigint, $2)";
static const char sql_enter[] =
	"SELECT held, my_epoch, acked FROM skald.relay_enter_wal($1::bigint, $2::bigint)";
static const char sql_slot[] =
	"SELECT active_pid, pg_terminate_backend(active_pid) FROM pg_replication_slots"
	" WHERE slot_name = $1";
static const char sql_drop[] =
	"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
	" WHERE slot_name = $1";

/* wal is wanted and cannot be: said once in the log, kept for status and doctor. */
static void
impossible(struct skald_relay *r, const char *why)
{
	char term[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_text(why) };
	struct skald_err ignored = SKALD_ERR_INIT;

	if (!r->wal.was_impossible)
		skald_log(SKALD_LOG_WARN,
			"relay polls, mode wal is not possible: %s source=%s", why,
			r->source);
	r->wal.was_impossible = true;
	/* for people only; a session that is lost is noticed by the next statement */
	(void)!skald_sql_query(r->guard, sql_no_wal, params, 2, false, NULL, &ignored);
	skald__wal_close(r);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_SLOT_FAILED,
				     .at_ms = skald_mono_ms() + IMPOSSIBLE_MS });
}

static void
failed(struct skald_relay *r, const struct skald_err *err)
{
	if (strcmp(err->code, "42501") == 0 || strcmp(err->code, "55000") == 0 ||
		strcmp(err->code, "53400") == 0 || strcmp(err->code, "0A000") == 0 ||
		strncmp(err->code, "28", 2) == 0) {
		impossible(r, err->text);
		return;
	}
	skald_log_err(SKALD_LOG_INFO, err,
		"could not make a slot, polling goes on source=%s", r->source);
	skald__wal_close(r);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_SLOT_FAILED,
				     .at_ms = skald_mono_ms() + SLOT_RETRY_MS });
}

/* What must be there before a slot is made. *why: "" or what is not. */
static enum skald_rc
look(struct skald_relay *r, char *why, size_t bytes, struct skald_err *err)
{
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald_sql_query(r->guard, sql_publication, NULL, 0, true, &rows, err);
	if (rc)
		return rc;
	why[0] = '\0';
	if (skald_rows_int(rows, 0, 2, 0) < 140000)
		(void)snprintf(why, bytes, "it needs PostgreSQL 14 or newer");
	else if (!skald_slice_is_text(skald_rows_get(rows, 0, 1), "logical"))
		(void)snprintf(why, bytes, "wal_level must be logical");
	else if (!skald_rows_bool(rows, 0, 0))
		(void)snprintf(why, bytes,
			"publication skald_outbox is missing: run skald db migrate as a "
			"role "
			"that may create it");
	skald_rows_free(rows);
	return SKALD_OK;
}

enum skald_rc
skald__wal_slot(struct skald_relay *r, struct skald_err *err)
{
	struct skald_err trouble = SKALD_ERR_INIT;
	char why[160];
	enum skald_rc rc = look(r, why, sizeof(why), err);

	if (rc)
		return rc;
	if (why[0]) {
		impossible(r, why);
		return SKALD_OK;
	}
	rc = skald__wal_drop_slot(r, err);
	if (rc)
		return rc;
	rc = skald__wal_open(r, &trouble);
	if (!rc)
		rc = skald_stream_ask_slot(r->wal.session, &trouble);
	if (rc)
		failed(r, &trouble);
	else
		skald__relay_tell(
			r, (struct skald__relay_ev){ .kind = SKALD__EV_SLOT_ASKED });
	return SKALD_OK;
}

void
skald__wal_slot_serve(struct skald_relay *r)
{
	struct skald_err err = SKALD_ERR_INIT;
	bool is_made = false;

	if (r->core.slot != SKALD__SLOT_ASKED)
		return;
	if (skald_stream_take_slot(r->wal.session, &is_made, &r->wal.slot_lsn, &err)) {
		failed(r, &err);
		return;
	}
	if (!is_made)
		return;
	SKALD_FAILPOINT(stream_after_slot);
	skald__wal_close(
		r); /* the slot stays; an idle session would only be in the way */
	if (skald__next_xid(r, r->wal.slot_xid, &err)) {
		failed(r, &err);
		return;
	}
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_SLOT_MADE });
}

enum skald_rc
skald__wal_enter(struct skald_relay *r, struct skald_err *err)
{
	char term[24], lsn[24];
	struct skald_param params[] = { skald_param_int(r->lease.term, term),
		skald_param_int((int64_t)r->wal.slot_lsn, lsn) };
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald_sql_query(r->guard, sql_enter, params, 2, true, &rows, err);
	if (rc)
		return rc;
	SKALD_FAILPOINT(stream_after_enter);
	if (!skald_rows_bool(rows, 0, 0)) {
		skald_rows_free(rows);
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_LOST });
		return SKALD_OK;
	}
	r->tick.epoch = (uint32_t)skald_rows_int(rows, 0, 1, 0);
	rc = skald__snapshot_parse(&r->wal.acked, skald_rows_get(rows, 0, 2), err);
	skald_rows_free(rows);
	if (rc)
		return rc;
	r->wal.flushed = r->wal.slot_lsn;
	r->wal.was_impossible = false;
	skald__tick_drop(r);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_ENTERED });
	return SKALD_OK;
}

/* What was produced may still arrive, so what is sent again is a catch-up (recover.c). */
void
skald__wal_leave(struct skald_relay *r)
{
	if (r->core.must_leave) {
		skald_log(SKALD_LOG_WARN, "relay leaves mode wal and polls: %s source=%s",
			r->wal.leave_reason, r->source);
		atomic_fetch_add(r->metrics.left, 1);
	} else {
		skald_log(SKALD_LOG_INFO,
			"relay leaves mode wal: it is not wanted any more source=%s",
			r->source);
	}
	skald__wal_close(r);
	skald__publish_settle(r);
	skald__publish_drop(r);
	r->wal.drop_due = true;
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_LEFT,
				     .at_ms = skald_mono_ms() + COME_BACK_MS });
}

/* Slots are the cluster's: the stream tells this database's from others'. */
void
skald__wal_name_slot(struct skald_relay *r)
{
	(void)snprintf(r->wal.slot, sizeof(r->wal.slot), "skald_%s", r->tick.stream);
}

static enum skald_rc
drop_slot(struct skald_relay *r, int attempts, struct skald_err *err)
{
	const struct timespec pause = { .tv_nsec = DROP_PAUSE_MS * 1000000L };
	struct skald_param name;
	enum skald_rc rc = SKALD_OK;
	bool is_there = true;

	skald__wal_name_slot(r);
	name = skald_param_text(r->wal.slot);
	for (int attempt = 0; attempt < attempts && is_there; attempt++) {
		struct skald_rows *rows = NULL;
		bool is_active;

		rc = skald_sql_query(r->guard, sql_slot, &name, 1, false, &rows, err);
		if (rc)
			break;
		is_there = skald_rows_count(rows) > 0;
		is_active = is_there && skald_rows_get(rows, 0, 0).data;
		skald_rows_free(rows);
		if (is_active) {
			nanosleep(&pause, NULL);
		} else if (is_there) {
			rc = skald_sql_query(
				r->guard, sql_drop, &name, 1, false, NULL, err);
			is_there = rc != SKALD_OK;
		}
		if (rc && strcmp(err->code, "55006") != 0)
			break;
		rc = SKALD_OK;
	}
	r->wal.drop_due = is_there;
	if (rc && skald_sql_is_open(r->guard) && !skald_err_is_conflict(err)) {
		/* not ours to drop: doctor says what holds WAL back */
		r->wal.drop_due = false;
		skald_log_err(SKALD_LOG_WARN, err, "could not drop slot %s source=%s",
			r->wal.slot, r->source);
		return SKALD_OK;
	}
	return rc;
}

/* The walsender that has it may need a moment to see that we are gone. */
enum skald_rc
skald__wal_drop_slot(struct skald_relay *r, struct skald_err *err)
{
	return drop_slot(r, DROP_ATTEMPTS, err);
}

/* A longer moment: it decodes a large transaction, or its disk hangs. */
enum skald_rc
skald__wal_drop_due(struct skald_relay *r, struct skald_err *err)
{
	if (!r->wal.drop_due || r->core.is_wal || r->core.slot != SKALD__SLOT_NONE)
		return SKALD_OK;
	return drop_slot(r, 1, err);
}
