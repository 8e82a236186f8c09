/*
 * Kafka in every kind of short trouble: connections that drop with a request under way,
 * leaders that move, replicas that lag, order that is lost, a broker that is gone for a
 * while. A relay takes it all for weather: nothing is lost, moved or inverted, nothing is
 * parked, and a producer is replaced only where librdkafka gave up.
 */
#include <stdlib.h>
#include <unistd.h>

#include "base/rand.h"
#include "tests/contract/outbox/kit.h"
#include "tests/support/check.h"

/* Errors of the protocol as the broker would give them; -195: it drops the connection. */
enum { DROPPED = -195, NO_LEADER = 5, NOT_LEADER = 6, TIMED_OUT = 7, FEW_REPLICAS = 19 };
enum { OUT_OF_ORDER = 45 };

#define ROUNDS     12
#define ROUND_ROWS 40

/* One fault in the way of every round; returns the relay's rebuilds. */
static int64_t
run_through(const char *name, const int *faults, unsigned fault_count, unsigned *fatal)
{
	struct skald_sql *sql = pg_open(name, SKALD_SQL_TOOL);
	struct skald_rand rand;
	struct kit_relay r;
	int64_t rebuilds;

	skald_rand_init(&rand); /* SKALD_SEED repeats it */
	*fatal = 0;
	kit_producer = KIT_ONE_IN_FLIGHT;
	kit_relay_start(&r, name, 0);
	kit_producer = KIT_AS_SET;
	for (int round = 0; round < ROUNDS; round++) {
		/* each test is about its first, which comes at least once */
		int fault = faults[round ? skald_rand_below(&rand, fault_count) : 0];

		if (fault) {
			kit_refuse_produce(fault, 1);
			*fatal += fault == OUT_OF_ORDER;
		} else {
			kit_broker_set_up(false);
		}
		kit_add_numbered(
			sql, name, round * ROUND_ROWS + 1, (round + 1) * ROUND_ROWS);
		if (!fault) {
			(void)usleep(20000 + (unsigned)skald_rand_below(&rand, 200000));
			kit_broker_set_up(true);
		}
		CU_ASSERT(kit_wait_relayed(sql));
	}
	rebuilds = kit_metric(&r, "skald_relay_rebuilds_total");
	CU_ASSERT_EQUAL(pg_int(sql, "SELECT count(*) FROM skald.parked_message"), 0);
	kit_relay_stop(&r);
	skald_sql_close(sql);
	return rebuilds;
}

static void
d20_connections_drop_at_every_request(void)
{
	static const int faults[] = { DROPPED };
	unsigned fatal;

	CU_ASSERT_EQUAL(run_through("drops", faults, 1, &fatal), 0);
	kit_check("drops", ROUNDS * ROUND_ROWS, KIT_ANY);
}

static void
d20_leaders_move_and_replicas_lag(void)
{
	static const int faults[] = { NO_LEADER, NOT_LEADER, TIMED_OUT, FEW_REPLICAS };
	unsigned fatal;

	CU_ASSERT_EQUAL(run_through("moves", faults, 4, &fatal), 0);
	kit_check("moves", ROUNDS * ROUND_ROWS, KIT_ANY);
}

static void
d20_lost_order_costs_one_producer_each(void)
{
	static const int faults[] = { OUT_OF_ORDER, DROPPED, NOT_LEADER };
	unsigned fatal;
	int64_t rebuilds = run_through("order", faults, 3, &fatal);

	printf("(%u fatal) ", fatal);
	CU_ASSERT(fatal > 0);
	CU_ASSERT_EQUAL(rebuilds, fatal);
	kit_check("order", ROUNDS * ROUND_ROWS, KIT_ANY);
}

/* An outage of minutes is this, for longer: no time-out of a message ends it. */
static void
d20_the_broker_is_gone_again_and_again(void)
{
	static const int faults[] = { 0, 0, DROPPED };
	unsigned fatal;

	CU_ASSERT_EQUAL(run_through("gone", faults, 3, &fatal), 0);
	kit_check("gone", ROUNDS * ROUND_ROWS, KIT_ANY);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(d20_connections_drop_at_every_request),
		CHECK(d20_leaders_move_and_replicas_lag),
		CHECK(d20_lost_order_costs_one_producer_each),
		CHECK(d20_the_broker_is_gone_again_and_again),
	};

	return check_main("contract.outbox.faults", cases, CHECK_COUNT(cases));
}
