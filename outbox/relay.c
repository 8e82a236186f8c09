/*
 * relay.c - the loop: asks relay_core what to do, does it, tells it what happened.
 *
 * One thread. What may take long (a window of millions of rows) is asked for and
 * awaited, with the lease renewed and reports served meanwhile; everything else is a
 * short statement or does not block.
 */
#include "outbox/own.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"

#define CONNECT_MS  3000
#define STANDBY_MS  250 /* with the lease's 2 s: another leads within 2.3 s */
#define RING_MS     10000 /* at most: a tenth of the retention if that is less */
#define RING_MIN_MS 200
#define MARK_MS     100
#define PROGRESS_MS 1000
#define SLICE_ROWS  128
#define BREATH_US   200
#define TIRED_MS    1000 /* idle for so long: writers wake us */
#define ASLEEP_MS   5000

/* --- telling the core ---------------------------------------------------------------------- */

void
skald__relay_tell(struct skald_relay *r, struct skald__relay_ev ev)
{
	bool was_leader = skald__relay_is_leader(&r->core);
	bool is_leader;

	skald__relay_see(&r->core, &ev, skald_mono_ms());
	is_leader = skald__relay_is_leader(&r->core);
	if (ev.kind == SKALD__EV_LOST && was_leader)
		atomic_fetch_add(r->metrics.fenced, 1);
	if (was_leader == is_leader)
		return;
	if (is_leader)
		skald_log(SKALD_LOG_INFO, "relay leads source=%s term=%lld", r->source,
			(long long)r->core.term);
	else
		skald_log(SKALD_LOG_INFO, "relay no longer leads source=%s", r->source);
	skald__relay_note_state(r);
}

static void
note_stop(struct skald_relay *r)
{
	if (atomic_load(&r->wake.stop) && !r->core.is_stopping)
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_STOP,
					     .at_ms = skald_mono_ms() + r->drain_ms });
}

static void
note_wish(struct skald_relay *r)
{
	bool wants_wal = atomic_load(&r->wants_wal);

	if (wants_wal != r->core.conf.wants_wal)
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_WISH,
					     .is_open = wants_wal });
}

/* --- sessions ------------------------------------------------------------------------------- */

static void
close_sessions(struct skald_relay *r)
{
	skald__tick_drop(r);
	skald__wal_close(r);
	r->wal.leave_reason[0] = '\0'; /* whoever leads next looks anew */
	r->asleep_xid[0] = '\0';
	skald_sql_close(r->work);
	skald_sql_close(r->guard);
	r->work = r->guard = NULL;
}

/* Every failed statement ends here: start over from a new connection. */
static void
fail_sql(struct skald_relay *r, const struct skald_err *err)
{
	int64_t at_ms = skald_mono_ms();

	if (skald__relay_is_leader(&r->core) || r->core.state != SKALD__RELAY_STANDBY ||
		strcmp(err->origin, "skald") != 0) {
		skald__relay_trouble(r, &r->pg, err, "PostgreSQL");
		at_ms = skald__relay_backoff(r, &r->pg);
	}
	close_sessions(r);
	skald__relay_tell(
		r, (struct skald__relay_ev){ .kind = SKALD__EV_FAILED, .at_ms = at_ms });
	skald__relay_note_state(r);
}

static enum skald_rc
connect(struct skald_relay *r, struct skald_err *err)
{
	char name[160];
	struct skald_sql_conf conf = { .url = r->url,
		.application = name,
		.kind = SKALD_SQL_DAEMON,
		.connect_timeout_ms = CONNECT_MS };
	enum skald_rc rc;

	(void)snprintf(name, sizeof(name), "skald relay %s", r->source);
	rc = skald_sql_open(&r->work, &conf, err);
	if (rc)
		return rc == SKALD_FATAL && !r->was_connected ? SKALD_FATAL : SKALD_RETRY;
	rc = skald__tick_session(r->work, err);
	if (!rc)
		rc = skald_sql_open(&r->guard, &conf, err);
	if (!rc)
		rc = skald_migrate_check(r->guard, err);
	if (!rc) /* a lease that takes longer to renew is lost anyway */
		rc = skald_sql_exec(r->guard, "SET statement_timeout = '1500ms'", err);
	if (rc)
		return SKALD_RETRY; /* a schema may still come */
	r->was_connected = true;
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_CONNECTED });
	return SKALD_OK;
}

/* Something was done: whatever was wrong with PostgreSQL is over. */
static void
got_on(struct skald_relay *r)
{
	skald__relay_trouble_over(r, &r->pg);
	skald__relay_note_progress(r);
	skald__relay_note_state(r);
}

/* --- the lease ------------------------------------------------------------------------------ */

static enum skald_rc
take_lease(struct skald_relay *r, struct skald_err *err)
{
	struct skald__relay_ev ev = { .kind = SKALD__EV_LEASE, .at_ms = skald_mono_ms() };
	enum skald_rc rc = skald_lease_take(r->guard, &r->lease, err);

	if (rc)
		return rc;
	ev.term = r->lease.term;
	skald__relay_tell(r, ev);
	if (!ev.term)
		got_on(r);
	return SKALD_OK;
}

static enum skald_rc
renew_lease(struct skald_relay *r, struct skald_err *err)
{
	struct skald__relay_ev ev = { .kind = SKALD__EV_RENEWED,
		.at_ms = skald_mono_ms() };
	bool held = false;
	enum skald_rc rc = skald_lease_renew(r->guard, &r->lease, &held, err);

	if (rc)
		return rc;
	if (!held)
		ev.kind = SKALD__EV_LOST;
	skald__relay_tell(r, ev);
	return SKALD_OK;
}

enum skald_rc
skald__relay_await(struct skald_relay *r, struct skald_err *err)
{
	for (;;) {
		struct pollfd fds[2] = { { .fd = skald_sql_fd(r->work),
						 .events = POLLIN },
			{ .fd = -1, .events = POLLIN } };
		int64_t now_ms = skald_mono_ms();
		enum skald_rc rc;

		if (r->publisher.producer)
			fds[1].fd = skald_producer_fd(r->publisher.producer);
		if (poll(fds, 2, SKALD_LEASE_RENEW_MS / 5) > 0 && fds[0].revents)
			return SKALD_OK;
		skald__publish_serve(r);
		note_stop(r);
		if (!skald__relay_is_leader(&r->core) || now_ms >= r->core.lease_until_ms)
			return skald_fail(err, SKALD_RETRY, "skald", "",
				"the lease was lost while waiting for PostgreSQL");
		if (r->core.is_stopping && now_ms >= r->core.stop_at_ms)
			return skald_fail(err, SKALD_RETRY, "skald", "",
				"the time to stop ran out while waiting for PostgreSQL");
		if (now_ms < r->core.renew_at_ms)
			continue;
		rc = renew_lease(r, err);
		if (rc)
			return rc;
	}
}

/* --- doing ---------------------------------------------------------------------------------- */

static enum skald_rc
turn(struct skald_relay *r, const struct skald__relay_do *todo, struct skald_err *err)
{
	int64_t tick = r->tick.number, at_us = 0, now_us = skald_wall_us();
	const struct skald_rows *rows;
	enum skald_rc rc;

	if (todo->done_tick) {
		SKALD_FAILPOINT(relay_after_ack);
		if (todo->mark)
			SKALD_FAILPOINT(relay_before_mark);
	}
	rc = skald__tick_turn(r, todo, err);
	if (rc)
		return rc;
	got_on(r);
	rows = r->tick.reader.rows;
	if (r->tick.number != tick)
		atomic_fetch_add(r->metrics.ticks, 1);
	if (!rows || !skald_rows_count(rows) ||
		!skald_rows_time_us(
			rows, r->tick.reader.order[0].row, SKALD__COL_AT, &at_us))
		at_us = now_us;
	atomic_store(r->metrics.lag, (now_us - at_us) / 1000);
	/* nothing is outstanding here: the tick that came with the turn is not begun */
	if (skald__relay_is_leader(&r->core))
		rc = skald__topics_regrow(r, err);
	if (!rc && skald__relay_is_leader(&r->core))
		rc = skald__park_turn(r, err);
	return rc;
}

/* The rows asked for belong to the producer that died: read again from where it got to. */
static enum skald_rc
rebuild(struct skald_relay *r, struct skald_err *err)
{
	struct skald_err ignored = SKALD_ERR_INIT;
	enum skald_rc rc;

	if (r->tick.reader.asked) {
		rc = skald__relay_await(r, err);
		if (!rc)
			rc = skald_pipe_end(r->work, err);
		if (rc) {
			fail_sql(r, err);
			return SKALD_OK;
		}
	}
	skald__tick_drop(r);
	if (r->core.is_wal) /* else a slot may be being made */
		skald__wal_close(r);
	if (r->core.is_wal && r->window.resume > r->core.recorded &&
		skald__wal_record(r, false, err)) {
		fail_sql(r, err);
		return SKALD_OK;
	}
	if (r->core.state !=
		SKALD__RELAY_REBUILDING) /* it was not ours to record any more */
		return SKALD_OK;
	rc = skald__publish_rebuild(r, &ignored);
	if (rc)
		*err = ignored;
	return rc;
}

static void
stuck(struct skald_relay *r, const struct skald_err *err, const char *what)
{
	skald__publish_trouble(r, r->window.next, err, what);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_STUCK,
				     .at_ms = skald__relay_backoff(r, &r->broker) });
}

static void
abandon(struct skald_relay *r)
{
	skald__publish_drop(r);
	skald__relay_trouble_over(r, &r->broker);
	skald__relay_trouble_over(r, &r->standby);
	skald__wal_close(r);
	skald__recover_done(r);
	if (r->tick.reader.asked) /* its answer is of no use, and in the way */
		close_sessions(r);
	skald__tick_drop(r);
	r->ring.is_ready = false;
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_ABANDONED });
	if (!r->work && r->core.state == SKALD__RELAY_STANDBY)
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_FAILED,
					     .at_ms = skald_mono_ms() });
}

static void
give_up(struct skald_relay *r)
{
	bool is_leader = skald__relay_is_leader(&r->core);
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = SKALD_OK;

	skald__publish_drop(r);
	if (r->guard && is_leader && r->core.state == SKALD__RELAY_STREAMING)
		rc = skald__wal_record(r, false, &err);
	else if (r->guard && is_leader && r->core.resume > r->core.recorded)
		rc = skald__tick_progress(r, &err);
	if (!rc && r->guard && skald__relay_is_leader(&r->core))
		rc = skald_lease_drop(r->guard, &r->lease, &err);
	if (rc)
		skald_log_err(SKALD_LOG_INFO, &err,
			"could not hand the lease back, it runs out by itself source=%s",
			r->source);
	close_sessions(r);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_GIVEN_UP });
}

/* Has a writer called? */
static bool
hear(struct skald_relay *r)
{
	if (skald_sql_heard(r->work) == 0)
		return false;
	atomic_fetch_add(r->metrics.woken, 1);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_WOKEN });
	return true;
}

/*
 * A busy stream that is dry for the moment: the server sends every message by itself and,
 * if we sleep on the socket, wakes us for each, which costs both more than the message.
 * So do not look for a little while, less than it takes to fill the socket.
 */
static bool
breathe(struct skald_relay *r)
{
	const struct timespec little = { .tv_nsec = BREATH_US * 1000L };

	if (!r->publisher.breath_due || !r->wal.is_started || !r->core.is_dry)
		return false;
	r->publisher.breath_due = false;
	(void)nanosleep(&little, NULL);
	skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_READABLE });
	return true;
}

/*
 * Commits of others wake an idle relay, through the wake pipe of the process or, asleep,
 * by NOTIFY; while rows are under way only reports matter, and what the stream brings.
 */
static void
wait(struct skald_relay *r, int64_t at_ms)
{
	struct pollfd fds[3] = { { .fd = -1, .events = POLLIN },
		{ .fd = -1, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
	int64_t push_at_ms = r->publisher.push_at_ms;
	bool is_idle = r->core.state == SKALD__RELAY_IDLE;
	int64_t left_ms;

	if (push_at_ms && push_at_ms < at_ms && skald__feed_is_empty(r))
		at_ms = push_at_ms;
	left_ms = at_ms - skald_mono_ms();
	if (breathe(r))
		return;
	if (r->publisher.producer)
		fds[0].fd = skald_producer_fd(r->publisher.producer);
	if (r->wal.session && (!r->wal.is_started || r->core.is_dry))
		fds[1].fd = skald_stream_fd(r->wal.session);
	if (is_idle && r->core.nap != SKALD__NAP_AWAKE) {
		if (hear(r)) /* it came along with an answer: the socket is silent */
			return;
		fds[2].fd = skald_sql_fd(r->work);
	}
	left_ms = left_ms < 0 ? 0 : left_ms > 60000 ? 60000 : left_ms;
	if (r->core.state == SKALD__RELAY_SENDING) {
		(void)poll(fds, 1, (int)left_ms);
		return;
	}
	if (is_idle || r->core.state == SKALD__RELAY_STREAMING)
		skald__publish_probe(r);
	(void)skald_wake_wait(&r->wake, fds, 3, (int)left_ms);
	if (r->wal.is_started) {
		if (fds[1].revents)
			skald__relay_tell(r,
				(struct skald__relay_ev){ .kind = SKALD__EV_READABLE });
		return;
	}
	if (is_idle && fds[2].revents && hear(r))
		return;
	if (is_idle && skald_mono_ms() < at_ms && !(r->wal.session && fds[1].revents))
		skald__relay_tell(r, (struct skald__relay_ev){ .kind = SKALD__EV_WOKEN });
}

/* Mode wal, the way there and back, gate and sleep. */
static enum skald_rc
act_on_stream(
	struct skald_relay *r, const struct skald__relay_do *todo, struct skald_err *err)
{
	enum skald_rc rc;

	if (todo->verb == SKALD__DO_READ) {
		rc = skald__wal_read(r, todo->count, err);
		if (rc)
			skald__wal_lost(r, err);
		else
			skald__relay_note_progress(r);
		return SKALD_OK;
	}
	rc = todo->verb == SKALD__DO_DOZE    ? skald__doze(r, todo->is_open, err)
	     : todo->verb == SKALD__DO_GATE  ? skald__gate_ask(r, err)
	     : todo->verb == SKALD__DO_SLOT  ? skald__wal_slot(r, err)
	     : todo->verb == SKALD__DO_ENTER ? skald__wal_enter(r, err)
	     : todo->verb == SKALD__DO_START
		     ? skald__wal_start(r, err)
		     : skald__wal_record(r, todo->is_drained, err);
	if (!rc && (todo->verb == SKALD__DO_RECORD ||
			   r->core.state == SKALD__RELAY_STREAMING))
		got_on(r);
	return rc;
}

static enum skald_rc
act_on_sql(
	struct skald_relay *r, const struct skald__relay_do *todo, struct skald_err *err)
{
	switch (todo->verb) {
	case SKALD__DO_CONNECT:
		return connect(r, err);
	case SKALD__DO_TAKE_LEASE:
		return take_lease(r, err);
	case SKALD__DO_RENEW:
		return renew_lease(r, err);
	case SKALD__DO_LEAD:
		skald__topics_meet(r);
		return skald__tick_lead(r, err);
	case SKALD__DO_TURN:
		return turn(r, todo, err);
	case SKALD__DO_ASK:
		return skald__tick_ask(r, err);
	case SKALD__DO_TAKE:
		return skald__tick_take(r, err);
	case SKALD__DO_PROGRESS:
		return skald__tick_progress(r, err);
	case SKALD__DO_RING:
		return skald__ring_turn(r, err);
	case SKALD__DO_DOZE:
	case SKALD__DO_GATE:
	case SKALD__DO_SLOT:
	case SKALD__DO_ENTER:
	case SKALD__DO_START:
	case SKALD__DO_READ:
	case SKALD__DO_RECORD:
		return act_on_stream(r, todo, err);
	case SKALD__DO_SEND:
	case SKALD__DO_LEAVE_WAL:
	case SKALD__DO_REBUILD:
	case SKALD__DO_ABANDON:
	case SKALD__DO_GIVE_UP:
	case SKALD__DO_WAIT:
	case SKALD__DO_LEAVE:
		break;
	}
	return SKALD_OK;
}

/* FATAL only from the first connect: the configuration is wrong. */
static enum skald_rc
act(struct skald_relay *r, const struct skald__relay_do *todo, struct skald_err *err)
{
	enum skald_rc rc;

	switch (todo->verb) {
	case SKALD__DO_CONNECT:
	case SKALD__DO_TAKE_LEASE:
	case SKALD__DO_RENEW:
	case SKALD__DO_LEAD:
	case SKALD__DO_TURN:
	case SKALD__DO_ASK:
	case SKALD__DO_TAKE:
	case SKALD__DO_PROGRESS:
	case SKALD__DO_RING:
	case SKALD__DO_DOZE:
	case SKALD__DO_GATE:
	case SKALD__DO_SLOT:
	case SKALD__DO_ENTER:
	case SKALD__DO_START:
	case SKALD__DO_READ:
	case SKALD__DO_RECORD:
		rc = act_on_sql(r, todo, err);
		if (rc && todo->verb == SKALD__DO_CONNECT && rc == SKALD_FATAL)
			return rc;
		if (rc)
			fail_sql(r, err);
		break;
	case SKALD__DO_SEND:
		if (!skald__publish(r, todo->count, todo->to_mark, err))
			break;
		if (strcmp(err->origin, "pg") == 0 || !skald__relay_is_leader(&r->core))
			fail_sql(r, err); /* it parks rows, too */
		else
			stuck(r, err, "could not produce");
		break;
	case SKALD__DO_LEAVE_WAL:
		skald__wal_leave(r);
		break;
	case SKALD__DO_REBUILD:
		if (rebuild(r, err))
			stuck(r, err, "could not make a producer");
		break;
	case SKALD__DO_ABANDON:
		abandon(r);
		break;
	case SKALD__DO_GIVE_UP:
		give_up(r);
		break;
	case SKALD__DO_WAIT:
		wait(r, todo->at_ms);
		break;
	case SKALD__DO_LEAVE:
		break;
	}
	return SKALD_OK;
}

enum skald_rc
skald_relay_run(struct skald_relay *relay, int64_t drain_ms, struct skald_err *err)
{
	struct skald__relay_do todo;
	enum skald_rc rc;

	relay->drain_ms = drain_ms;
	do {
		note_stop(relay);
		note_wish(relay);
		skald__publish_serve(relay);
		skald__wal_serve(relay);
		atomic_store(relay->metrics.inflight,
			(int64_t)(relay->window.next - relay->window.done));
		todo = skald__relay_next(&relay->core, skald_mono_ms());
		rc = act(relay, &todo, err);
	} while (!rc && todo.verb != SKALD__DO_LEAVE);
	return rc;
}

/* --- life ----------------------------------------------------------------------------------- */

static int64_t
ring_ms(int64_t retention_ms)
{
	int64_t ms = retention_ms / 10;

	if (ms <= 0 || ms > RING_MS)
		return RING_MS;
	return ms < RING_MIN_MS ? RING_MIN_MS : ms;
}

static void
name_owner(struct skald_relay *r)
{
	char host[64] = "";

	(void)gethostname(host, sizeof(host) - 1);
	(void)snprintf(r->owner, sizeof(r->owner), "%s:%ld:%016llx", host, (long)getpid(),
		(unsigned long long)skald_rand_next(&r->rand));
	(void)snprintf(
		r->client_id, sizeof(r->client_id), "skald-relay-%.100s", r->source);
}

enum skald_rc
skald_relay_create(struct skald_relay **out, const struct skald_relay_conf *conf,
	struct skald_err *err)
{
	struct skald_relay *r;
	enum skald_rc rc;

	if (conf->struct_bytes < sizeof(*conf) || !conf->url || !conf->kafka ||
		!conf->topics || conf->poll_min_ms < 1 ||
		conf->poll_max_ms < conf->poll_min_ms)
		return skald_fail(err, SKALD_FATAL, "skald", "SK001",
			"relay: must begin as SKALD_RELAY_INIT, needs url, kafka, "
			"topics and 1 <= poll_min <= poll_max");
	r = calloc(1, sizeof(*r));
	if (!r)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	r->wake.read_fd = r->wake.write_fd = -1;
	(void)pthread_mutex_init(&r->health_lock, NULL);
	r->source = strdup(conf->source ? conf->source : "main");
	r->url = strdup(conf->url);
	if (conf->gate && conf->gate[0])
		r->gate.names = strdup(conf->gate);
	if (!r->source || !r->url || (!r->gate.names && conf->gate && conf->gate[0])) {
		rc = skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		goto out;
	}
	r->kafka = conf->kafka;
	r->topics_conf = conf->topics;
	r->retention_ms = conf->retention_ms;
	r->slot_limit_bytes = conf->slot_limit_bytes;
	r->consumed_ms = conf->consumed_ms;
	r->dead_letters_ms = conf->dead_letters_ms;
	r->audit_ms = conf->audit_ms;
	r->barrier_ms = conf->barrier_ms;
	skald_rand_init(&r->rand);
	name_owner(r);
	r->lease = (struct skald_lease){
		.kind = "relay", .name = "outbox", .owner = r->owner
	};
	skald__relay_init(&r->core,
		&(struct skald__relay_conf){ .poll_min_ms = conf->poll_min_ms,
			.poll_max_ms = conf->poll_max_ms,
			.standby_ms = STANDBY_MS,
			.ring_ms = ring_ms(conf->retention_ms),
			.mark_ms = MARK_MS,
			.progress_ms = PROGRESS_MS,
			.inflight_max = SKALD_RELAY_INFLIGHT_ROWS,
			.slice_rows = SLICE_ROWS,
			.queue_rows = SKALD__QUEUE_ROWS / 2,
			.sleep_after_ms = conf->poll_max_ms < TIRED_MS ? TIRED_MS : 0,
			.asleep_ms = ASLEEP_MS,
			.wants_wal = conf->wants_wal,
			.has_gate = r->gate.names != NULL });
	atomic_init(&r->wants_wal, conf->wants_wal);
	skald__relay_metrics_init(r, conf->metrics);
	rc = skald_wake_open(&r->wake, err);
	if (rc)
		goto out;
	*out = r;
	r = NULL;
out:
	skald_relay_destroy(r);
	return rc;
}

void
skald_relay_destroy(struct skald_relay *relay)
{
	if (!relay)
		return;
	skald__publish_drop(relay);
	skald__recover_done(relay);
	close_sessions(relay);
	skald__wal_done(relay);
	free(relay->gate.names);
	skald__park_done(relay);
	skald__topics_done(&relay->publisher.topics);
	skald_buf_done(&relay->publisher.texts);
	skald_wake_close(&relay->wake);
	(void)pthread_mutex_destroy(&relay->health_lock);
	free(relay->source);
	free(relay->url);
	free(relay);
}

void
skald_relay_wish(struct skald_relay *relay, bool wants_wal)
{
	atomic_store(&relay->wants_wal, wants_wal);
	skald_wake_up(&relay->wake);
}

struct skald_wake *
skald_relay_wake(struct skald_relay *relay)
{
	return &relay->wake;
}
