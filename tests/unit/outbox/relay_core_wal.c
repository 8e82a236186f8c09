/*
 * unit.outbox.relay_core_wal - what the relay decides in mode wal, on the way there and
 * back, at the gate and when it sleeps: R8 to R11. Random walks: relay_walk.c.
 */
#include "outbox/relay_core.h"

#include "base/limits.h"
#include "tests/support/check.h"

static const struct skald__relay_conf conf = { .poll_min_ms = 2,
	.poll_max_ms = 100,
	.standby_ms = 250,
	.ring_ms = 10000,
	.mark_ms = 100,
	.progress_ms = 1000,
	.inflight_max = 40,
	.slice_rows = 16,
	.queue_rows = 64,
	.sleep_after_ms = 1000,
	.asleep_ms = 5000,
	.wants_wal = true,
	.has_gate = true };

typedef struct skald__relay_ev ev;

#define ON_(name, ...) .kind = SKALD__EV_##name, __VA_ARGS__
#define ON(...) \
	{ \
		ON_(__VA_ARGS__, .took_ms = 0) \
	}
#define EV(...) ((ev)ON(__VA_ARGS__))
#define NOW     1000

static void
see(struct skald__relay_core *c, ev e)
{
	skald__relay_see(c, &e, NOW);
}

static enum skald__relay_verb
next(const struct skald__relay_core *c)
{
	return skald__relay_next(c, NOW).verb;
}

/* --- where a row of the table begins ------------------------------------------------- */

enum from {
	IDLE, /* looked a moment ago: nothing there */
	IDLE_ASKED,
	IDLE_MADE,
	IDLE_COVERED,
	SENDING_COVERING, /* 10 rows, which the gate lets through */
	RECORDING_COVERING,
	RECORDING_MADE,
	IDLE_DOZING, /* and lazy: the next quiet turn sends it to sleep */
	IDLE_ASLEEP,
	SENDING_ASLEEP,
	SENDING_GATED, /* 10 rows here, none may go */
	OPENING,
	STREAMING, /* dry, nothing here */
	STREAMING_ROWS, /* 10 rows here, may go */
	STREAMING_SENT, /* in the middle of a transaction */
	STREAMING_DRAIN, /* likewise, and an epoch is due */
	STREAMING_FULL, /* too much WAL is held */
	REBUILDING_WAL,
	FROM_COUNT,
};

static void
turned(struct skald__relay_core *c, int64_t tick, uint64_t count)
{
	see(c, EV(TURNED, .tick = tick, .count = count, .is_end = true, .is_open = true,
		       .is_quiet = true));
}

static void
go_streaming(struct skald__relay_core *c, enum from from)
{
	if (from == STREAMING)
		return;
	see(c, EV(READ, .count = 10, .is_end = true));
	see(c, EV(GATED, .ordinal = 10, .at_ms = NOW));
	if (from == STREAMING_FULL)
		see(c, EV(RECORDED, .is_full = true));
	if (from == STREAMING_ROWS || from == STREAMING_FULL)
		return;
	see(c, EV(SENT, .count = 5));
	see(c, EV(READ, .is_end = true));
	if (from == STREAMING_DRAIN)
		see(c, EV(RECORDED, .epoch_due = true, .is_marked = true));
	if (from == REBUILDING_WAL)
		see(c, EV(DEAD, .at_ms = NOW));
}

static void
go_to_slot(struct skald__relay_core *c, enum from from)
{
	see(c, EV(SLOT_ASKED));
	if (from == IDLE_ASKED)
		return;
	if (from == RECORDING_MADE) {
		turned(c, 5, 0);
		see(c, EV(SLOT_MADE));
		return;
	}
	see(c, EV(SLOT_MADE));
	if (from == IDLE_COVERED)
		turned(c, 0, 0);
	if (from == RECORDING_COVERING)
		turned(c, 5, 0);
	if (from == SENDING_COVERING) {
		turned(c, 5, 10);
		see(c, EV(GATED, .ordinal = 10, .at_ms = NOW));
	}
}

static void
go_to_sleep(struct skald__relay_core *c, enum from from)
{
	c->slot_at_ms = NOW + 30000; /* mode wal is not possible for now */
	see(c, EV(DOZING, .is_open = true));
	c->poll_ms = conf.poll_max_ms;
	c->poll_at_ms = NOW;
	if (from == IDLE_DOZING)
		return;
	turned(c, 0, 0);
	if (from != SENDING_ASLEEP)
		return;
	turned(c, 5, 1);
	see(c, EV(GATED, .ordinal = 1, .at_ms = NOW));
	see(c, EV(SENT, .count = 1, .is_between = true));
}

static struct skald__relay_core
core_in(enum from from)
{
	struct skald__relay_core c;
	bool is_wal = from >= OPENING;

	skald__relay_init(&c, &conf);
	see(&c, EV(CONNECTED));
	see(&c, EV(LEASE, .term = 3, .at_ms = NOW));
	see(&c, EV(LED, .tick = 4, .is_wal = is_wal));
	if (from == OPENING)
		return c;
	if (is_wal) {
		see(&c, EV(STARTED));
		see(&c, EV(READ, .is_end = true));
		go_streaming(&c, from);
		return c;
	}
	turned(&c, 0, 0);
	if (from == SENDING_GATED)
		turned(&c, 5, 10);
	else if (from >= IDLE_DOZING)
		go_to_sleep(&c, from);
	else if (from != IDLE)
		go_to_slot(&c, from);
	return c;
}

/* --- every event of mode wal in every such state --------------------------------------- */

#define S(name) SKALD__RELAY_##name
#define L(name) SKALD__SLOT_##name
#define N(name) SKALD__NAP_##name
#define V(name) SKALD__DO_##name

static const struct row {
	int line;
	enum from from;
	ev event;
	enum skald__relay_state to;
	enum skald__slot slot;
	enum skald__nap nap;
	enum skald__relay_verb next; /* at the same moment */
} table[] = {
#define ROW(...) \
	{ \
		__LINE__, __VA_ARGS__ \
	}
	/* the slot: NONE */
	ROW(IDLE, ON(WOKEN), S(IDLE), L(NONE), N(AWAKE), V(SLOT)),
	ROW(IDLE, ON(SLOT_ASKED), S(IDLE), L(ASKED), N(AWAKE), V(WAIT)),
	ROW(IDLE, ON(SLOT_MADE), S(IDLE), L(NONE), N(AWAKE), V(SLOT)),
	ROW(IDLE, ON(SLOT_FAILED, .at_ms = NOW + 50), S(IDLE), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(IDLE, ON(ENTERED), S(IDLE), L(NONE), N(AWAKE), V(SLOT)),
	ROW(IDLE, ON(STARTED), S(IDLE), L(NONE), N(AWAKE), V(SLOT)),
	ROW(IDLE, ON(READ, .count = 3), S(IDLE), L(NONE), N(AWAKE), V(SLOT)),
	ROW(IDLE, ON(RECORDED, .is_full = true), S(IDLE), L(NONE), N(AWAKE), V(SLOT)),
	ROW(IDLE, ON(LEFT), S(IDLE), L(NONE), N(AWAKE), V(SLOT)),
	ROW(IDLE, ON(READABLE), S(IDLE), L(NONE), N(AWAKE), V(SLOT)),
	ROW(IDLE, ON(DOZING, .is_open = true), S(IDLE), L(NONE), N(DOZING), V(SLOT)),
	/* ASKED: polling goes on */
	ROW(IDLE_ASKED, ON(SLOT_MADE), S(IDLE), L(MADE), N(AWAKE), V(TURN)),
	ROW(IDLE_ASKED, ON(SLOT_FAILED, .at_ms = NOW + 50), S(IDLE), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(IDLE_ASKED, ON(WOKEN), S(IDLE), L(ASKED), N(AWAKE), V(TURN)),
	ROW(IDLE_ASKED, ON(TURNED, .is_open = true, .is_quiet = true), S(IDLE), L(ASKED),
		N(AWAKE), V(WAIT)),
	ROW(IDLE_ASKED,
		ON(TURNED, .tick = 5, .count = 1, .is_end = true, .is_open = true,
			.is_quiet = true),
		S(SENDING), L(ASKED), N(AWAKE), V(GATE)),
	ROW(IDLE_ASKED, ON(ENTERED), S(IDLE), L(ASKED), N(AWAKE), V(WAIT)),
	ROW(IDLE_ASKED, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(IDLE_ASKED, ON(FAILED, .at_ms = NOW), S(DOWN), L(NONE), N(AWAKE), V(ABANDON)),
	/* MADE: a snapshot that sees all who were under way when it was */
	ROW(IDLE_MADE, ON(TURNED, .is_open = true, .is_quiet = true), S(IDLE), L(COVERED),
		N(AWAKE), V(ENTER)),
	ROW(IDLE_MADE, ON(TURNED, .is_open = true), S(IDLE), L(MADE), N(AWAKE), V(WAIT)),
	ROW(IDLE_MADE,
		ON(TURNED, .tick = 5, .count = 1, .is_end = true, .is_open = true,
			.is_quiet = true),
		S(SENDING), L(COVERING), N(AWAKE), V(GATE)),
	ROW(IDLE_MADE, ON(TURNED, .tick = 5, .count = 1, .is_end = true, .is_open = true),
		S(SENDING), L(MADE), N(AWAKE), V(GATE)),
	ROW(IDLE_MADE, ON(ENTERED), S(IDLE), L(MADE), N(AWAKE), V(TURN)),
	ROW(IDLE_MADE, ON(SLOT_FAILED, .at_ms = NOW + 50), S(IDLE), L(NONE), N(AWAKE),
		V(TURN)),
	ROW(IDLE_MADE, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(RECORDING_MADE, ON(TURNED, .is_open = true, .is_quiet = true), S(IDLE),
		L(COVERED), N(AWAKE), V(ENTER)),
	ROW(RECORDING_MADE, ON(TURNED, .is_quiet = true), S(IDLE), L(MADE), N(AWAKE),
		V(WAIT)),
	ROW(RECORDING_MADE,
		ON(TURNED, .tick = 6, .count = 1, .is_end = true, .is_open = true,
			.is_quiet = true),
		S(SENDING), L(COVERING), N(AWAKE), V(GATE)),
	/* COVERING, COVERED */
	ROW(SENDING_COVERING, ON(SENT, .count = 10, .is_between = true), S(SENDING),
		L(COVERING), N(AWAKE), V(WAIT)),
	ROW(SENDING_COVERING, ON(DEAD, .at_ms = NOW), S(REBUILDING), L(COVERING),
		N(AWAKE), V(REBUILD)),
	ROW(SENDING_COVERING, ON(ENTERED), S(SENDING), L(COVERING), N(AWAKE), V(SEND)),
	ROW(SENDING_COVERING, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(RECORDING_COVERING, ON(TURNED), S(IDLE), L(COVERED), N(AWAKE), V(ENTER)),
	ROW(RECORDING_COVERING, ON(FAILED, .at_ms = NOW), S(DOWN), L(NONE), N(AWAKE),
		V(ABANDON)),
	ROW(IDLE_COVERED, ON(ENTERED), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(IDLE_COVERED, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(IDLE_COVERED, ON(WOKEN), S(IDLE), L(COVERED), N(AWAKE), V(ENTER)),
	ROW(IDLE_COVERED, ON(STOP, .at_ms = 2000), S(IDLE), L(COVERED), N(AWAKE),
		V(GIVE_UP)),
	ROW(IDLE_COVERED, ON(SLOT_FAILED, .at_ms = NOW + 50), S(IDLE), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(IDLE_COVERED, ON(WISH), S(IDLE), L(COVERED), N(AWAKE), V(ENTER)),
	ROW(IDLE_ASLEEP, ON(WISH, .is_open = true), S(IDLE), L(NONE), N(ASLEEP), V(SLOT)),
	/* sleep */
	ROW(IDLE_DOZING, ON(TURNED, .is_open = true, .is_quiet = true), S(IDLE), L(NONE),
		N(ASLEEP), V(WAIT)),
	ROW(IDLE_DOZING, ON(TURNED, .is_open = true), S(IDLE), L(NONE), N(DOZING),
		V(WAIT)),
	ROW(IDLE_DOZING, ON(WOKEN), S(IDLE), L(NONE), N(DOZING), V(TURN)),
	ROW(IDLE_DOZING, ON(DOZING), S(IDLE), L(NONE), N(AWAKE), V(TURN)),
	ROW(IDLE_DOZING, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(IDLE_DOZING,
		ON(TURNED, .tick = 5, .count = 1, .is_end = true, .is_open = true,
			.is_quiet = true),
		S(SENDING), L(NONE), N(DOZING), V(DOZE)),
	ROW(IDLE_ASLEEP, ON(WOKEN), S(IDLE), L(NONE), N(DOZING), V(TURN)),
	ROW(IDLE_ASLEEP, ON(RESTLESS, .is_open = true), S(IDLE), L(NONE), N(ASLEEP),
		V(DOZE)),
	ROW(IDLE_ASLEEP, ON(RENEWED, .at_ms = NOW), S(IDLE), L(NONE), N(ASLEEP), V(WAIT)),
	ROW(IDLE_ASLEEP, ON(DOZING), S(IDLE), L(NONE), N(AWAKE), V(WAIT)),
	ROW(IDLE_ASLEEP, ON(FAILED, .at_ms = NOW), S(DOWN), L(NONE), N(AWAKE),
		V(ABANDON)),
	ROW(SENDING_ASLEEP, ON(DOZING), S(SENDING), L(NONE), N(AWAKE), V(WAIT)),
	ROW(SENDING_ASLEEP, ON(ACKED, .ordinal = 1, .resume = 1), S(RECORDING), L(NONE),
		N(ASLEEP), V(DOZE)),
	/* the gate */
	ROW(SENDING_GATED, ON(GATED, .at_ms = NOW + 2), S(SENDING), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(SENDING_GATED, ON(GATED, .at_ms = NOW), S(SENDING), L(NONE), N(AWAKE),
		V(GATE)),
	ROW(SENDING_GATED, ON(GATED, .ordinal = 4, .at_ms = NOW + 2), S(SENDING), L(NONE),
		N(AWAKE), V(SEND)),
	ROW(SENDING_GATED, ON(STOP, .at_ms = 2000), S(SENDING), L(NONE), N(AWAKE),
		V(GATE)),
	ROW(SENDING_GATED, ON(GREW, .count = 2), S(SENDING), L(NONE), N(AWAKE), V(SEND)),
	/* OPENING */
	ROW(OPENING, ON(STARTED), S(STREAMING), L(NONE), N(AWAKE), V(READ)),
	ROW(OPENING, ON(WISH), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(STUCK, .at_ms = NOW + 50), S(OPENING), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(OPENING, ON(LEFT, .at_ms = NOW), S(ELECTED), L(NONE), N(AWAKE), V(LEAD)),
	ROW(OPENING, ON(READ, .count = 3), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(RECORDED, .is_full = true), S(OPENING), L(NONE), N(AWAKE),
		V(START)),
	ROW(OPENING, ON(DEAD, .at_ms = NOW), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(ACKED, .ordinal = 9, .resume = 9), S(OPENING), L(NONE), N(AWAKE),
		V(START)),
	ROW(OPENING, ON(ENTERED), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(TURNED, .tick = 9), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(ROWS, .count = 9), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(GREW, .count = 9), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(REBUILT), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(LED, .is_open = true), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(WOKEN), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(READABLE), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(MOVED), S(OPENING), L(NONE), N(AWAKE), V(START)),
	ROW(OPENING, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(OPENING, ON(FAILED, .at_ms = NOW), S(DOWN), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(OPENING, ON(STOP, .at_ms = 2000), S(OPENING), L(NONE), N(AWAKE), V(GIVE_UP)),
	ROW(OPENING, ON(GIVEN_UP), S(GONE), L(NONE), N(AWAKE), V(LEAVE)),
	/* STREAMING */
	ROW(STREAMING, ON(READABLE), S(STREAMING), L(NONE), N(AWAKE), V(READ)),
	ROW(STREAMING, ON(READ, .count = 3, .is_end = true), S(STREAMING), L(NONE),
		N(AWAKE), V(GATE)),
	ROW(STREAMING, ON(READ, .is_end = true), S(STREAMING), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(STREAMING, ON(WOKEN), S(STREAMING), L(NONE), N(AWAKE), V(WAIT)),
	ROW(STREAMING, ON(DEAD, .at_ms = NOW), S(REBUILDING), L(NONE), N(AWAKE),
		V(REBUILD)),
	ROW(STREAMING, ON(LEFT, .at_ms = NOW), S(ELECTED), L(NONE), N(AWAKE), V(LEAD)),
	ROW(STREAMING, ON(STARTED), S(STREAMING), L(NONE), N(AWAKE), V(WAIT)),
	ROW(STREAMING, ON(ENTERED), S(STREAMING), L(NONE), N(AWAKE), V(WAIT)),
	ROW(STREAMING, ON(TURNED, .tick = 9), S(STREAMING), L(NONE), N(AWAKE), V(WAIT)),
	ROW(STREAMING, ON(ROWS, .count = 9), S(STREAMING), L(NONE), N(AWAKE), V(WAIT)),
	ROW(STREAMING, ON(REBUILT), S(STREAMING), L(NONE), N(AWAKE), V(WAIT)),
	ROW(STREAMING, ON(LED, .is_open = true), S(STREAMING), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(STREAMING, ON(STOP, .at_ms = 2000), S(STREAMING), L(NONE), N(AWAKE),
		V(GIVE_UP)),
	ROW(STREAMING, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(STREAMING, ON(FAILED, .at_ms = NOW), S(DOWN), L(NONE), N(AWAKE), V(ABANDON)),
	ROW(STREAMING, ON(GIVEN_UP), S(GONE), L(NONE), N(AWAKE), V(LEAVE)),
	ROW(STREAMING, ON(RECORDED, .is_full = true), S(STREAMING), L(NONE), N(AWAKE),
		V(LEAVE_WAL)),
	ROW(STREAMING, ON(WISH), S(STREAMING), L(NONE), N(AWAKE), V(LEAVE_WAL)),
	ROW(STREAMING, ON(WISH, .is_open = true), S(STREAMING), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(STREAMING, ON(MOVED), S(STREAMING), L(NONE), N(AWAKE), V(WAIT)),
	ROW(STREAMING_ROWS, ON(READABLE), S(STREAMING), L(NONE), N(AWAKE), V(READ)),
	ROW(STREAMING_ROWS, ON(READ, .count = 64), S(STREAMING), L(NONE), N(AWAKE),
		V(SEND)),
	ROW(STREAMING_ROWS, ON(SENT, .count = 10, .is_between = true), S(STREAMING),
		L(NONE), N(AWAKE), V(READ)),
	ROW(STREAMING_ROWS, ON(SENT, .count = 3), S(STREAMING), L(NONE), N(AWAKE),
		V(READ)),
	ROW(STREAMING_ROWS, ON(READ, .is_end = true), S(STREAMING), L(NONE), N(AWAKE),
		V(SEND)),
	ROW(STREAMING_ROWS, ON(STUCK, .at_ms = NOW + 50), S(STREAMING), L(NONE), N(AWAKE),
		V(WAIT)),
	ROW(STREAMING_ROWS, ON(GREW, .count = 1), S(STREAMING), L(NONE), N(AWAKE),
		V(SEND)),
	ROW(STREAMING_ROWS, ON(STOP, .at_ms = 2000), S(STREAMING), L(NONE), N(AWAKE),
		V(GIVE_UP)),
	ROW(STREAMING_SENT, ON(ACKED, .ordinal = 5, .resume = 5), S(STREAMING), L(NONE),
		N(AWAKE), V(SEND)),
	ROW(STREAMING_SENT, ON(STOP, .at_ms = 2000), S(STREAMING), L(NONE), N(AWAKE),
		V(SEND)),
	ROW(STREAMING_SENT, ON(RECORDED, .epoch_due = true), S(STREAMING), L(NONE),
		N(AWAKE), V(SEND)),
	ROW(STREAMING_DRAIN, ON(SENT, .count = 1, .is_between = true), S(STREAMING),
		L(NONE), N(AWAKE), V(WAIT)),
	ROW(STREAMING_DRAIN, ON(SENT, .count = 1), S(STREAMING), L(NONE), N(AWAKE),
		V(SEND)),
	ROW(STREAMING_DRAIN, ON(RECORDED), S(STREAMING), L(NONE), N(AWAKE), V(SEND)),
	ROW(STREAMING_FULL, ON(LEFT, .at_ms = NOW), S(ELECTED), L(NONE), N(AWAKE),
		V(LEAD)),
	ROW(STREAMING_FULL, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
	/* a producer that died in mode wal: whether the slot still stands is asked first */
	ROW(REBUILDING_WAL, ON(REBUILT), S(ELECTED), L(NONE), N(AWAKE), V(LEAD)),
	ROW(REBUILDING_WAL, ON(READ, .count = 3), S(REBUILDING), L(NONE), N(AWAKE),
		V(REBUILD)),
	ROW(REBUILDING_WAL, ON(LEFT), S(REBUILDING), L(NONE), N(AWAKE), V(REBUILD)),
	ROW(REBUILDING_WAL, ON(STARTED), S(REBUILDING), L(NONE), N(AWAKE), V(REBUILD)),
	ROW(REBUILDING_WAL, ON(STUCK, .at_ms = NOW + 50), S(REBUILDING), L(NONE),
		N(AWAKE), V(WAIT)),
	ROW(REBUILDING_WAL, ON(STOP, .at_ms = 2000), S(REBUILDING), L(NONE), N(AWAKE),
		V(GIVE_UP)),
	ROW(REBUILDING_WAL, ON(LOST), S(STANDBY), L(NONE), N(AWAKE), V(ABANDON)),
};

static void
every_row_of_the_table(void)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct row *row = &table[i];
		struct skald__relay_core c = core_in(row->from);
		bool is_same;

		see(&c, row->event);
		is_same = c.state == row->to && c.slot == row->slot &&
			  c.nap == row->nap && next(&c) == row->next;
		if (!is_same)
			printf("\n    line %d: -> %s, slot %d, nap %d, verb %d",
				row->line, skald__relay_state_name(c.state), c.slot,
				c.nap, next(&c));
		CU_ASSERT(is_same);
	}
}

/* Whatever comes, in whatever state: no assertion of the core breaks, and what is asked twice
   is answered alike. ACKED and SENT are the shell's promises. */
static void
no_event_breaks_any_state(void)
{
	for (int from = 0; from < FROM_COUNT; from++)
		for (int kind = 0; kind <= SKALD__EV_GIVEN_UP; kind++)
			for (int flags = 0; flags < 8; flags++) {
				struct skald__relay_core c = core_in((enum from)from);
				ev e = { .kind = (enum skald__relay_event)kind,
					.at_ms = NOW + 1,
					.is_open = flags & 1,
					.is_quiet = flags & 1,
					.is_end = flags & 2,
					.is_wal = flags & 4,
					.is_full = flags & 4,
					.ordinal = c.sent,
					.resume = c.done };

				see(&c, e);
				CU_ASSERT_EQUAL(next(&c), next(&c));
			}
}

/* --- in more steps ------------------------------------------------------------------------ */

static void
abandons_when_its_lease_is_over(void)
{
	static const enum from leading[] = { OPENING, STREAMING, STREAMING_FULL,
		REBUILDING_WAL, IDLE_COVERED, IDLE_ASLEEP, SENDING_GATED };

	for (size_t i = 0; i < sizeof(leading) / sizeof(leading[0]); i++) {
		struct skald__relay_core c = core_in(leading[i]);

		CU_ASSERT_EQUAL(
			skald__relay_next(&c, NOW + SKALD_LEASE_RENEW_MS).verb, V(RENEW));
		CU_ASSERT_EQUAL(
			skald__relay_next(&c, NOW + SKALD_LEASE_MS).verb, V(ABANDON));
	}
}

/* R8: the turn that covers looks beyond what nobody may see yet, and the tick that covers is
   recorded before another is opened. */
static void
a_slot_is_covered_before_it_is_entered(void)
{
	struct skald__relay_core c = core_in(IDLE_MADE);

	CU_ASSERT(skald__relay_next(&c, NOW).advance);
	c = core_in(RECORDING_COVERING);
	CU_ASSERT_FALSE(skald__relay_next(&c, NOW).open_next);
	c = core_in(RECORDING_MADE);
	CU_ASSERT(skald__relay_next(&c, NOW).open_next);
}

/* R8: who was under way when the slot was made is waited for, without asking in a loop. */
static void
a_slot_waits_for_who_was_under_way(void)
{
	struct skald__relay_core c = core_in(IDLE_MADE);

	see(&c, EV(TURNED, .is_open = true));
	CU_ASSERT_EQUAL(next(&c), V(WAIT));
	CU_ASSERT(skald__relay_next(&c, NOW).at_ms <= NOW + conf.poll_max_ms);
	CU_ASSERT_EQUAL(skald__relay_next(&c, NOW + conf.poll_max_ms).verb, V(TURN));
	CU_ASSERT(skald__relay_next(&c, NOW + conf.poll_max_ms).advance);
	turned(&c, 0, 0);
	CU_ASSERT_EQUAL(next(&c), V(ENTER));
}

/* Wakes up before it enters: nobody listens in mode wal. */
static void
a_sleeper_wakes_up_before_it_enters(void)
{
	struct skald__relay_core c = core_in(IDLE_COVERED);

	see(&c, EV(DOZING, .is_open = true));
	CU_ASSERT_EQUAL(next(&c), V(DOZE));
	CU_ASSERT_FALSE(skald__relay_next(&c, NOW).is_open);
	see(&c, EV(DOZING));
	CU_ASSERT_EQUAL(next(&c), V(ENTER));
}

/* R11 */
static void
falls_asleep_after_a_while_and_looks_seldom(void)
{
	struct skald__relay_core c = core_in(IDLE);
	struct skald__relay_do todo;

	c.slot_at_ms = NOW + 30000;
	c.poll_at_ms = NOW + 2000;
	CU_ASSERT_EQUAL(skald__relay_next(&c, NOW + 499).verb, V(WAIT));
	c.lease_until_ms = c.renew_at_ms = NOW + 60000;
	CU_ASSERT_EQUAL(
		skald__relay_next(&c, NOW + conf.sleep_after_ms - 1).verb, V(WAIT));
	todo = skald__relay_next(&c, NOW + conf.sleep_after_ms);
	CU_ASSERT_EQUAL(todo.verb, V(DOZE));
	CU_ASSERT(todo.is_open);
	c = core_in(IDLE_ASLEEP);
	c.lease_until_ms = c.renew_at_ms = NOW + 60000;
	todo = skald__relay_next(&c, NOW);
	CU_ASSERT_EQUAL(todo.at_ms, NOW + conf.asleep_ms);
}

/* Work ends the sleep, before anything is waited for. */
static void
work_ends_the_sleep(void)
{
	struct skald__relay_core c = core_in(SENDING_ASLEEP);

	CU_ASSERT_EQUAL(next(&c), V(DOZE));
	CU_ASSERT_FALSE(skald__relay_next(&c, NOW).is_open);
}

/* R9: what was produced before the stream began anew may be in the topics under this epoch:
   first everything that was there then is acknowledged, which a mark says. */
static void
an_epoch_waits_for_what_may_be_there_already(void)
{
	struct skald__relay_core c = core_in(STREAMING);

	see(&c, EV(RECORDED, .epoch_due = true));
	CU_ASSERT_NOT_EQUAL(next(&c), V(RECORD));
	CU_ASSERT_FALSE(skald__relay_next(&c, NOW + conf.mark_ms).is_drained);
	see(&c, EV(RECORDED, .epoch_due = true, .is_marked = true));
	CU_ASSERT_EQUAL(next(&c), V(RECORD));
	CU_ASSERT(skald__relay_next(&c, NOW).is_drained);
	see(&c, EV(RECORDED));
	CU_ASSERT_EQUAL(next(&c), V(WAIT));
}

/* R9: the transaction that is half sent is finished, the next not begun. */
static void
an_epoch_waits_for_the_end_of_a_transaction(void)
{
	struct skald__relay_core c = core_in(STREAMING_SENT);

	see(&c, EV(RECORDED, .epoch_due = true, .is_marked = true));
	CU_ASSERT_EQUAL(next(&c), V(SEND));
	CU_ASSERT(skald__relay_next(&c, NOW).to_mark);
	see(&c, EV(SENT, .count = 2, .is_between = true));
	CU_ASSERT_EQUAL(next(&c), V(WAIT)); /* three more are here */
	see(&c, EV(ACKED, .ordinal = 6, .resume = 5));
	CU_ASSERT_EQUAL(next(&c), V(WAIT));
	see(&c, EV(ACKED, .ordinal = 7, .resume = 7));
	CU_ASSERT_EQUAL(next(&c), V(RECORD));
	CU_ASSERT(skald__relay_next(&c, NOW).is_drained);
	see(&c, EV(RECORDED, .ordinal = 7));
	CU_ASSERT_EQUAL(next(&c), V(READ));
	see(&c, EV(READ, .is_end = true));
	CU_ASSERT_EQUAL(next(&c), V(SEND));
	CU_ASSERT_FALSE(skald__relay_next(&c, NOW).to_mark);
}

/* A queue that is full by bytes, not by rows, is not read from in a loop. */
static void
a_full_queue_is_not_read_into(void)
{
	struct skald__relay_core c = core_in(STREAMING);

	see(&c, EV(READABLE));
	see(&c, EV(READ, .count = 3, .is_full = true));
	see(&c, EV(GATED, .at_ms = NOW + 2));
	CU_ASSERT_EQUAL(next(&c), V(WAIT));
	see(&c, EV(READABLE));
	CU_ASSERT_EQUAL(next(&c), V(WAIT));
	see(&c, EV(GATED, .ordinal = 3, .at_ms = NOW + 2));
	CU_ASSERT_EQUAL(next(&c), V(SEND));
	see(&c, EV(SENT, .count = 1, .is_full = true));
	CU_ASSERT_EQUAL(next(&c), V(READ)); /* there is room again */
}

/* The shell says ACKED in each loop: only one that gets on says that there is room again. */
static void
a_full_producer_is_not_asked_in_a_loop(void)
{
	struct skald__relay_core c = core_in(STREAMING_ROWS);

	see(&c, EV(SENT, .count = 3, .is_full = true));
	see(&c, EV(READ, .is_end = true));
	see(&c, EV(ACKED, .ordinal = 0, .resume = 0));
	CU_ASSERT_EQUAL(next(&c), V(WAIT));
	see(&c, EV(ACKED, .ordinal = 1, .resume = 0));
	CU_ASSERT_EQUAL(next(&c), V(SEND));
}

/* Under load there is no idle moment: the ring is looked after all the same. */
static void
load_does_not_keep_it_from_the_ring(void)
{
	struct skald__relay_core c = core_in(STREAMING_ROWS);

	c.ring_at_ms = NOW;
	CU_ASSERT_EQUAL(next(&c), V(RING));
	see(&c, EV(RUNG));
	CU_ASSERT_EQUAL(next(&c), V(SEND));
	c = core_in(RECORDING_MADE);
	c.ring_at_ms = NOW;
	CU_ASSERT_FALSE(skald__relay_next(&c, NOW).open_next);
	see(&c, EV(TURNED));
	CU_ASSERT_EQUAL(next(&c), V(RING));
	see(&c, EV(RUNG));
	CU_ASSERT_EQUAL(skald__relay_next(&c, NOW + conf.poll_min_ms).verb, V(TURN));
}

/* Three marks after the last acknowledgement: then every snapshot sees what was streamed. */
static void
marks_follow_what_was_acknowledged(void)
{
	struct skald__relay_core c = core_in(STREAMING_ROWS);
	unsigned marks = 0;

	see(&c, EV(SENT, .count = 10, .is_between = true));
	see(&c, EV(ACKED, .ordinal = 10, .resume = 10));
	for (int64_t now_ms = NOW; now_ms < NOW + 450; now_ms++) {
		ev e = EV(RECORDED, .ordinal = 10, .is_marked = true);

		if (skald__relay_next(&c, now_ms).verb != V(RECORD))
			continue;
		skald__relay_see(&c, &e, now_ms);
		marks++;
	}
	CU_ASSERT_EQUAL(marks, 3);
	CU_ASSERT_EQUAL(c.recorded, 10);
}

/* A commit that no snapshot saw for longer (it waited for a synchronous standby) is seen by a
   later mark, an epoch that is wanted and the WAL that is held are noticed: without traffic. */
static void
idle_it_records_now_and_then(void)
{
	struct skald__relay_core c = core_in(STREAMING);

	c.marks_left = 0;
	CU_ASSERT_EQUAL(skald__relay_next(&c, NOW + 400).verb, V(WAIT));
	see(&c, EV(RUNG));
	CU_ASSERT_EQUAL(skald__relay_next(&c, NOW + 400).verb, V(RECORD));
	see(&c, EV(RECORDED, .is_marked = true));
	CU_ASSERT_EQUAL(skald__relay_next(&c, NOW + 400).verb, V(WAIT));
}

/* Drains: the transaction that is begun is finished, waited for and written down. */
static void
a_stop_finishes_what_is_sent(void)
{
	struct skald__relay_core c = core_in(STREAMING_SENT);
	struct skald__relay_do todo;

	see(&c, EV(STOP, .at_ms = 5000));
	todo = skald__relay_next(&c, NOW);
	CU_ASSERT_EQUAL(todo.verb, V(SEND));
	CU_ASSERT(todo.to_mark);
	see(&c, EV(SENT, .count = 1, .is_between = true));
	CU_ASSERT_EQUAL(next(&c), V(WAIT));
	see(&c, EV(ACKED, .ordinal = 6, .resume = 6));
	CU_ASSERT_EQUAL(skald__relay_next(&c, NOW + conf.mark_ms).verb, V(RECORD));
	see(&c, EV(RECORDED, .ordinal = 6));
	CU_ASSERT_EQUAL(next(&c), V(GIVE_UP));
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(every_row_of_the_table),
		CHECK(no_event_breaks_any_state),
		CHECK(abandons_when_its_lease_is_over),
		CHECK(a_slot_is_covered_before_it_is_entered),
		CHECK(a_slot_waits_for_who_was_under_way),
		CHECK(a_sleeper_wakes_up_before_it_enters),
		CHECK(falls_asleep_after_a_while_and_looks_seldom),
		CHECK(work_ends_the_sleep),
		CHECK(an_epoch_waits_for_what_may_be_there_already),
		CHECK(an_epoch_waits_for_the_end_of_a_transaction),
		CHECK(a_full_queue_is_not_read_into),
		CHECK(a_full_producer_is_not_asked_in_a_loop),
		CHECK(load_does_not_keep_it_from_the_ring),
		CHECK(marks_follow_what_was_acknowledged),
		CHECK(idle_it_records_now_and_then),
		CHECK(a_stop_finishes_what_is_sent),
	};

	return check_main("unit.outbox.relay_core_wal", cases, CHECK_COUNT(cases));
}
