#include "tests/unit/outbox/relay_world.h"

#include <stdlib.h>

#include "base/limits.h"

#define STEPS     14000
#define CALM_FROM 9000

typedef struct skald__relay_ev ev;

static const struct skald__relay_conf conf = { .poll_min_ms = 2,
	.poll_max_ms = 50,
	.standby_ms = 50,
	.ring_ms = 1000,
	.mark_ms = 20,
	.progress_ms = 100,
	.inflight_max = 40,
	.slice_rows = 16,
	.queue_rows = 64,
	.sleep_after_ms = 100,
	.asleep_ms = 700,
	.wants_wal = true,
	.has_gate = true };

static bool
one_in(struct world *w, uint64_t n)
{
	return skald_rand_below(&w->rand, n) == 0;
}

static void
tell(struct world *w, ev e)
{
	if (e.kind == SKALD__EV_TURNED)
		e.is_quiet = e.is_quiet || w->says_quiet;
	skald__relay_see(&w->core, &e, w->now_ms);
}

#define TELL_(w, name, ...) \
	tell((w), (ev){ .kind = SKALD__EV_##name, __VA_ARGS__.took_ms = 0 })
#define SAY(w, name)       TELL_(w, name, )
#define TELL(w, name, ...) TELL_(w, name, __VA_ARGS__, )

static bool
is_mine(struct world *w)
{
	if (w->core.term != w->db_term)
		SAY(w, LOST);
	return w->core.term == w->db_term;
}

static bool
is_same(struct position a, struct position b)
{
	return a.epoch == b.epoch && a.major == b.major && a.ordinal == b.ordinal;
}

/* --- transactions --------------------------------------------------------------------- */

static struct snapshot
look(const struct world *w)
{
	struct snapshot s = { .xmax = w->tx_count };

	for (unsigned i = 0; i < w->tx_count; i++)
		s.sees[i] = w->txs[i].is_visible;
	return s;
}

static bool
all_ended_below(const struct world *w, unsigned xid)
{
	for (unsigned i = w->first_open; i < xid; i++)
		if (!w->txs[i].is_visible)
			return false;
	return true;
}

static void
write_rows(struct world *w)
{
	if (w->tx_count < TX_MAX && !w->is_calm && one_in(w, 9)) {
		struct tx *t = &w->txs[w->tx_count++];

		t->rows = 1 + (unsigned)skald_rand_below(&w->rand, ROWS_MAX);
		t->saw_flag = w->flag;
	}
	for (unsigned i = w->first_open; i < w->tx_count; i++) {
		struct tx *t = &w->txs[i];

		if (!t->lsn && one_in(w, w->is_calm ? 2 : 12))
			t->lsn = ++w->lsn;
		/* flushed and, with synchronous replication, waited for */
		else if (t->lsn && !t->is_visible && one_in(w, i % 10 ? 2 : 40)) {
			t->is_visible = true;
			w->is_notified = w->is_notified || t->saw_flag;
		}
		if (i == w->first_open && t->is_visible)
			w->first_open++;
	}
}

/* --- the topic ------------------------------------------------------------------------ */

static void
append(struct world *w, const struct item *item)
{
	struct tx *t = &w->txs[item->tx];

	if (t->is_there[item->row])
		w->broken[MOVED] += !is_same(t->at[item->row], item->at);
	t->is_there[item->row] = true;
	t->at[item->row] = item->at;
	w->published++;
}

static void
drop_producer(struct world *w)
{
	bool is_gap = false;

	for (uint64_t i = w->window_done; i < w->produced; i++) {
		is_gap = is_gap || one_in(w, 8);
		if (!is_gap && !w->items[i].is_acked)
			append(w, &w->items[i]);
	}
	w->has_producer = false;
}

static void
begin_items(struct world *w, uint64_t ordinal)
{
	w->produced = w->window_done = w->resume = ordinal;
	if (w->core.is_wal)
		w->item_count = 0;
}

static bool
ends_transaction(const struct world *w, uint64_t i)
{
	const struct item *item = &w->items[i];

	return !w->is_wal || item->row + 1 == w->txs[item->tx].rows;
}

static void
report(struct world *w)
{
	while (w->has_producer && w->window_done < w->produced && !one_in(w, 6)) {
		struct item *item = &w->items[w->window_done];

		if (item->is_sent && !item->is_acked)
			append(w, item);
		item->is_acked = true;
		w->window_done++;
		if (ends_transaction(w, w->window_done - 1))
			w->resume = w->window_done;
	}
	if (w->has_producer)
		TELL(w, ACKED, .ordinal = w->window_done, .resume = w->resume);
	/* a keepalive says how far the server is */
	if (w->core.state == SKALD__RELAY_STREAMING && w->window_done == w->item_count)
		w->flushed = w->stream_lsn;
}

/* --- poll -------------------------------------------------------------------------------- */

static void
open_tick(struct world *w, const struct snapshot *seen)
{
	w->seen = *seen;
	w->is_open = true;
	w->tick++;
	w->done = 0;
	w->item_count = 0;
	for (unsigned i = 0; i < seen->xmax; i++)
		for (unsigned n = 0; n < w->txs[i].rows; n++)
			if (seen->sees[i] && !w->acked.sees[i]) {
				w->items[w->item_count] = (struct item){ i, n,
					{ w->epoch, (uint64_t)w->tick, w->item_count },
					false, false };
				w->item_count++;
			}
}

static bool
is_work(const struct world *w, const struct snapshot *seen)
{
	for (unsigned i = 0; i < seen->xmax; i++)
		if (seen->sees[i] && !w->acked.sees[i])
			return true;
	return false;
}

static void
take_epoch(struct world *w)
{
	if (!w->epoch_wanted)
		return;
	w->epoch++;
	w->epochs++;
	w->epoch_wanted = false;
}

static void
do_turn(struct world *w, const struct skald__relay_do *todo)
{
	unsigned xid = w->core.slot == SKALD__SLOT_MADE ? w->slot_xid : w->asleep_xid;
	ev e = { .kind = SKALD__EV_TURNED,
		.is_marked = todo->mark,
		.is_open = todo->open_next,
		.is_quiet = all_ended_below(w, xid) };
	struct snapshot seen = look(w);

	if (!is_mine(w))
		return;
	if (todo->done_tick) {
		for (uint64_t i = 0; i < w->item_count; i++)
			w->broken[2] += !w->txs[w->items[i].tx].is_there[w->items[i].row];
		w->broken[3] += !w->is_open || todo->done_tick != w->tick;
		w->is_open = w->recovers = false;
		w->acked = w->seen;
	}
	w->broken[3] += todo->open_next && w->is_open;
	if (todo->open_next)
		take_epoch(w);
	if (todo->open_next && is_work(w, &seen)) {
		w->catchups += w->recovers;
		open_tick(w, &seen);
		begin_items(w, 0);
		e.tick = w->tick;
		e.count = w->item_count < 50 ? w->item_count : 50;
		e.is_end = e.count == w->item_count;
	} else if (todo->open_next) {
		w->recovers = false;
		if (todo->advance)
			w->acked = seen;
	}
	tell(w, e);
}

/* Known limit: a commit that was streamed and is still not visible when the tick after mode wal
   is opened (it waits for a synchronous standby) comes again later. Not in this world. */
static void
show_what_is_published(struct world *w)
{
	for (unsigned i = w->first_open; i < w->tx_count; i++)
		w->txs[i].is_visible = w->txs[i].is_visible || w->txs[i].is_there[0];
}

static void
do_lead(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	if (!is_mine(w))
		return;
	if (w->is_wal && (w->must_poll || !w->has_slot)) {
		w->is_wal = w->is_open = false;
		show_what_is_published(w);
		w->recovers = true;
		w->epoch++;
		w->epoch_wanted = false;
	}
	if (!w->is_wal && !w->is_open)
		take_epoch(w);
	if (!w->is_wal)
		w->has_slot = false;
	w->must_poll = w->flag = w->is_slot_asked = false;
	w->asleep_xid = 0;
	SAY(w, DOZING);
	w->flushed = w->acked_lsn;
	w->skip = w->acked;
	TELL(w, LED, .tick = w->tick, .is_wal = w->is_wal, .is_open = w->is_open,
		.ordinal = w->is_open ? w->done : 0,
		.epoch_due = w->is_open && w->epoch_wanted);
	begin_items(w, w->core.done);
}

static void
do_take(struct world *w, const struct skald__relay_do *todo)
{
	uint64_t left = w->item_count - w->core.here, count = left < 50 ? left : 50;

	(void)todo;
	TELL(w, ROWS, .count = count, .is_end = count == left);
}

/* --- wal --------------------------------------------------------------------------------- */

static void
make_slot(struct world *w)
{
	if (!w->is_slot_asked || w->core.slot != SKALD__SLOT_ASKED)
		return;
	/* a transaction whose commit is in WAL is not waited for */
	for (unsigned i = w->first_open; i < w->slot_waits_for; i++)
		if (!w->txs[i].lsn)
			return;
	w->has_slot = true;
	w->is_slot_asked = false;
	w->slot_lsn = w->lsn;
	w->slot_xid = w->tx_count;
	SAY(w, SLOT_MADE);
}

static void
do_slot(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	w->has_slot = false;
	if (!w->is_calm && one_in(w, 4)) {
		TELL(w, SLOT_FAILED, .at_ms = w->now_ms + 300);
		return;
	}
	w->is_slot_asked = true;
	w->slot_waits_for = w->tx_count;
	SAY(w, SLOT_ASKED);
}

static void
do_enter(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	if (!is_mine(w))
		return;
	w->broken[3] += w->is_open;
	for (unsigned i = 0; i < w->tx_count; i++) /* the slot will not bring it */
		w->broken[8] += w->txs[i].lsn && w->txs[i].lsn <= w->slot_lsn &&
				!w->acked.sees[i];
	w->is_wal = true;
	w->epoch++;
	w->epoch_wanted = false;
	w->acked_lsn = w->flushed = w->slot_lsn;
	w->skip = w->acked;
	w->entered++;
	SAY(w, ENTERED);
}

static void
do_start(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	if (!w->has_slot || (!w->is_calm && one_in(w, 10))) {
		w->must_poll = true;
		w->left++;
		TELL(w, LEFT, .at_ms = w->now_ms + 200);
		return;
	}
	if (!w->is_calm && one_in(w, 3)) {
		TELL(w, STUCK, .at_ms = w->now_ms + 20);
		return;
	}
	w->stream_lsn = w->flushed;
	w->next_lsn = 0;
	w->silent_until_ms = w->now_ms + (one_in(w, 2) ? 3 * conf.mark_ms : 0);
	w->core.is_wal = true;
	begin_items(w, 0);
	SAY(w, STARTED);
}

static unsigned
who_committed_at(const struct world *w, uint64_t lsn)
{
	unsigned i = 0;

	while (w->txs[i].lsn != lsn)
		i++;
	return i;
}

/* A transaction at a time; the core sees no difference. */
static void
do_read(struct world *w, const struct skald__relay_do *todo)
{
	uint64_t before = w->item_count;

	if (w->now_ms < w->silent_until_ms) {
		TELL(w, READ, .is_end = true);
		return;
	}

	while (w->stream_lsn < w->lsn && w->item_count - before < todo->count &&
		w->item_count < ITEMS_MAX - ROWS_MAX && !one_in(w, 20)) {
		unsigned i = who_committed_at(w, ++w->stream_lsn);

		for (unsigned n = 0; n < w->txs[i].rows && !w->skip.sees[i]; n++)
			w->items[w->item_count++] = (struct item){ i, n,
				{ w->epoch, w->stream_lsn, n }, false, false };
	}
	TELL(w, READ, .count = w->item_count - before, .is_end = w->stream_lsn == w->lsn);
}

static void
do_record(struct world *w, const struct skald__relay_do *todo)
{
	ev e = { .kind = SKALD__EV_RECORDED, .ordinal = w->resume };

	if (!is_mine(w))
		return;
	if (w->resume > 0 && w->txs[w->items[w->resume - 1].tx].lsn > w->flushed)
		w->flushed = w->txs[w->items[w->resume - 1].tx].lsn;
	w->acked_lsn = w->flushed;
	if (w->next_lsn && w->next_lsn - 1 <= w->flushed) {
		w->acked = w->next_snapshot;
		e.is_marked = true;
	}
	if (todo->is_drained)
		take_epoch(w);
	e.epoch_due = w->epoch_wanted;
	w->next_snapshot = look(w);
	w->next_lsn = w->lsn + 1;
	e.is_full = !w->is_calm && one_in(w, 80);
	w->must_poll = w->must_poll || e.is_full;
	tell(w, e);
}

/* --- sending ------------------------------------------------------------------------------ */

static void
send_one(struct world *w, struct item *item)
{
	struct tx *t = &w->txs[item->tx];

	w->broken[1] += !w->is_open && !w->is_wal && w->core.term == w->db_term;
	w->broken[4] += w->now_ms >= w->core.lease_until_ms;
	w->broken[10] += t->lsn > w->standby_lsn;
	if (w->core.is_wal &&
		w->core.term == w->db_term) { /* what is not sent has no epoch */
		item->at.epoch = w->epoch;
		w->broken[9] += item->row > 0 && t->at[item->row - 1].epoch &&
				t->at[0].major == item->at.major &&
				t->at[item->row - 1].epoch != w->epoch;
		w->streamed++;
	}
	/* a catch-up leaves out what it finds */
	item->is_acked = w->recovers && t->is_there[item->row];
	item->is_sent = !item->is_acked;
}

static void
do_send(struct world *w, const struct skald__relay_do *todo)
{
	uint64_t count = skald_rand_below(&w->rand, todo->count + 1), n = 0;
	bool is_between = false;

	w->has_producer = true;
	w->broken[6] += w->core.sent != w->produced;
	for (; n < count && !(todo->to_mark && is_between); n++) {
		w->broken[6] += w->produced >= w->item_count;
		send_one(w, &w->items[w->produced++]);
		is_between = ends_transaction(w, w->produced - 1);
	}
	w->broken[5] += w->produced - w->window_done > conf.inflight_max;
	TELL(w, SENT, .count = n, .is_full = one_in(w, 10), .is_between = is_between);
	if (!w->is_calm && one_in(w, 40))
		TELL(w, STUCK, .at_ms = w->now_ms + 20);
}

static void
do_gate(struct world *w, const struct skald__relay_do *todo)
{
	uint64_t i = w->core.gated;

	(void)todo;
	while (i < w->core.here && w->txs[w->items[i].tx].lsn <= w->standby_lsn)
		i++;
	TELL(w, GATED, .ordinal = i, .at_ms = w->now_ms + 2);
}

/* --- waiting --------------------------------------------------------------------------- */

/* R11, and that every wait has an end. */
static void
do_wait(struct world *w, const struct skald__relay_do *todo)
{
	int64_t wait_ms = todo->at_ms - w->now_ms;

	w->broken[WAITS] += wait_ms < 0;
	if (w->core.state == SKALD__RELAY_IDLE && w->core.poll_at_ms - w->now_ms > 400) {
		w->slept++;
		w->broken[11] += !w->flag;
		w->broken[11] += w->core.poll_at_ms - w->now_ms > conf.asleep_ms;
		for (unsigned i = w->first_open; i < w->tx_count; i++)
			w->broken[11] += !w->txs[i].is_visible && !w->txs[i].saw_flag;
	}
	if (w->core.state == SKALD__RELAY_IDLE && w->is_notified &&
		w->core.nap != SKALD__NAP_AWAKE) {
		w->is_notified = false;
		SAY(w, WOKEN);
		return;
	}
	if (w->core.state == SKALD__RELAY_STREAMING && w->core.is_dry &&
		w->stream_lsn < w->lsn && w->now_ms >= w->silent_until_ms)
		SAY(w, READABLE);
	if (wait_ms > 0) /* something may happen before */
		w->now_ms += w->is_calm || one_in(w, 2)
				     ? (wait_ms < 20 ? wait_ms : 20)
				     : (int64_t)skald_rand_below(
					       &w->rand, (uint64_t)wait_ms + 1);
}

static void
stand_in(struct world *w) /* another leads for a while, and does nothing */
{
	if (w->now_ms < w->lease_until_ms || !one_in(w, 2))
		return;
	w->db_term++;
	w->lease_until_ms = w->now_ms + 100;
}

/* Between two commands. */
static void
live(struct world *w)
{
	write_rows(w);
	if (w->standby_lsn < w->lsn && !one_in(w, 4))
		w->standby_lsn++;
	make_slot(w);
	report(w);
	if (w->is_calm)
		return;
	w->now_ms += (int64_t)(one_in(w, 800) ? skald_rand_below(&w->rand, 4000)
					      : skald_rand_below(&w->rand, 3));
	stand_in(w);
	if (one_in(w, 400))
		w->epoch_wanted = true;
	if (one_in(w, 900))
		w->has_slot = false; /* by hand */
	if (one_in(w, 300))
		TELL(w, DEAD, .at_ms = w->now_ms + 5);
	if (one_in(w, 900)) {
		w->asleep_xid = 0;
		w->is_slot_asked = false;
		TELL(w, FAILED, .at_ms = w->now_ms + 30);
	}
}

static void
do_renew(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	if (!is_mine(w))
		return;
	w->lease_until_ms = w->now_ms + SKALD_LEASE_MS;
	TELL(w, RENEWED, .at_ms = w->now_ms);
}

static void
do_take_lease(struct world *w, const struct skald__relay_do *todo)
{
	ev e = { .kind = SKALD__EV_LEASE, .at_ms = w->now_ms };

	(void)todo;
	if (w->now_ms >= w->lease_until_ms) {
		e.term = ++w->db_term;
		w->lease_until_ms = w->now_ms + SKALD_LEASE_MS;
	}
	tell(w, e);
}

static void
do_doze(struct world *w, const struct skald__relay_do *todo)
{
	w->flag = todo->is_open;
	w->asleep_xid = todo->is_open ? w->tx_count : 0;
	w->is_notified = false;
	TELL(w, DOZING, .is_open = todo->is_open);
}

static void
do_rebuild(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	drop_producer(w);
	w->rebuilds++;
	begin_items(w, w->core.is_wal ? 0 : w->resume);
	TELL(w, REBUILT, .ordinal = w->resume);
}

static void
do_connect(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	SAY(w, CONNECTED);
}

static void
do_ask(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	SAY(w, ASKED);
}

static void
do_progress(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	w->broken[7] += w->resume < w->done;
	if (!is_mine(w))
		return;
	w->done = w->resume;
	TELL(w, PROGRESSED, .ordinal = w->done);
}

static void
do_ring(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	w->rung_at_ms = w->now_ms;
	SAY(w, RUNG);
}

static void
do_abandon(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	drop_producer(w);
	SAY(w, ABANDONED);
}

static void
do_leave_wal(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	drop_producer(w);
	w->left++;
	w->must_poll = true;
	TELL(w, LEFT, .at_ms = w->now_ms + 200);
}

/* Nobody stops these walks. */
static void
do_nothing(struct world *w, const struct skald__relay_do *todo)
{
	(void)todo;
	w->broken[WAITS]++;
}

static void
act(struct world *w, const struct skald__relay_do *todo)
{
	static void (*const acts[])(struct world *, const struct skald__relay_do *) = {
		[SKALD__DO_CONNECT] = do_connect,
		[SKALD__DO_TAKE_LEASE] = do_take_lease,
		[SKALD__DO_RENEW] = do_renew,
		[SKALD__DO_LEAD] = do_lead,
		[SKALD__DO_TURN] = do_turn,
		[SKALD__DO_ASK] = do_ask,
		[SKALD__DO_TAKE] = do_take,
		[SKALD__DO_SEND] = do_send,
		[SKALD__DO_PROGRESS] = do_progress,
		[SKALD__DO_RING] = do_ring,
		[SKALD__DO_DOZE] = do_doze,
		[SKALD__DO_GATE] = do_gate,
		[SKALD__DO_SLOT] = do_slot,
		[SKALD__DO_ENTER] = do_enter,
		[SKALD__DO_START] = do_start,
		[SKALD__DO_READ] = do_read,
		[SKALD__DO_RECORD] = do_record,
		[SKALD__DO_LEAVE_WAL] = do_leave_wal,
		[SKALD__DO_REBUILD] = do_rebuild,
		[SKALD__DO_ABANDON] = do_abandon,
		[SKALD__DO_GIVE_UP] = do_nothing,
		[SKALD__DO_WAIT] = do_wait,
		[SKALD__DO_LEAVE] = do_nothing,
	};

	w->broken[4] += w->has_producer && !skald__relay_is_leader(&w->core) &&
			todo->verb != SKALD__DO_ABANDON;
	acts[todo->verb](w, todo);
}

/* --- one walk ------------------------------------------------------------------------- */

bool
world_is_broken(const struct world *w)
{
	for (unsigned rule = 0; rule < RULES; rule++)
		if (w->broken[rule])
			return true;
	return false;
}

/* The world has been calm for long enough. */
static void
judge(struct world *w)
{
	if (world_is_broken(w))
		return;
	for (unsigned i = 0; i < w->tx_count; i++) {
		for (unsigned n = 0; n < w->txs[i].rows; n++)
			w->broken[LOST] += !w->txs[i].is_there[n];
		w->broken[UNRECORDED] += !w->acked.sees[i];
	}
	w->broken[STUCK_IN_POLL] += w->core.state != SKALD__RELAY_STREAMING;
	w->broken[NOT_RUNG] += w->now_ms - w->rung_at_ms > 2 * conf.ring_ms;
}

struct world *
world_walk(const struct twin *twin, uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	skald__relay_init(&w->core, &conf);
	skald_rand_seed(&w->rand, seed);
	w->now_ms = 100000;
	w->epoch = 1;
	w->says_quiet = twin->says_quiet;
	for (unsigned i = 0; i < STEPS && !world_is_broken(w); i++) {
		struct skald__relay_do todo;

		w->is_calm = i >= CALM_FROM;
		live(w);
		todo = twin->next(&w->core, w->now_ms);
		act(w, &todo);
	}
	judge(w);
	return w;
}
