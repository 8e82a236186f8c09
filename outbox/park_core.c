/*
 * park_core.c - a row that Kafka will not have must not be overtaken by others of its
 * key, and must not hold up any other key: it is parked, and so is what follows.
 *
 *        from                 out (marker)            again
 *   ------[ wait .............. )======= flow =========[ wait ....
 *   before from: was published before the key was parked
 *
 * K1  Whether a row waits depends on its position and on what is in the database, never
 *     on when it is looked at: a relay that starts over parks and publishes the same rows
 *     at the same positions.
 * K2  from <= out < again.
 * K3  A row of a key that waits is never published, whatever it is itself.
 * K4  Only an answer parks: the broker's about this record alone, the cluster's about the
 *     topic, or a limit that was told. No answer means to wait.
 * K5  A head is in the database before any row behind it is produced. Else a relay that
 *     dies in between, and is not refused the next time, would publish it behind them, at a
 *     position that a consumer with a watermark takes for old. Of a topic that is refused
 *     nothing is produced: its heads may wait for each other.
 */
#include "outbox/park_core.h"

#include "base/assert.h"

#define BACKOFF_MS     5000
#define BACKOFF_MAX_MS 300000
#define FLOOR_MS       1000 /* jitter may say 0 */

/* Kafka's and librdkafka's numbers (broker/errors.c). */
#define UNKNOWN_TOPIC      3
#define NOT_AUTHORISED     29
#define LOCAL_NO_TOPIC     (-188)
#define LOCAL_NO_PARTITION (-190)

bool
skald__hold_covers(const struct skald__hold *h, struct skald_position at)
{
	if (skald_position_compare(at, h->from) < 0)
		return false;
	if (!h->has_out || skald_position_compare(at, h->out) <= 0)
		return true;
	return h->has_again && skald_position_compare(at, h->again) >= 0;
}

void
skald__hold_again(struct skald__hold *h, struct skald_position at)
{
	SKALD_ASSERT(h->has_out && skald_position_compare(at, h->out) > 0); /* K2 */
	if (h->has_again && skald_position_compare(h->again, at) <= 0)
		return;
	h->again = at;
	h->has_again = true;
}

bool
skald__park_is_of_topic(int refused)
{
	return refused == UNKNOWN_TOPIC || refused == LOCAL_NO_TOPIC ||
	       refused == LOCAL_NO_PARTITION;
}

bool
skald__park_is_of_rights(int refused)
{
	return refused == NOT_AUTHORISED;
}

enum skald__park_todo
skald__park_decide(const struct skald__park_case *c)
{
	if (c->is_waiting)
		return SKALD__PARK_BEHIND; /* K3 */
	if (c->is_topic_refused)
		return SKALD__PARK_HEAD;
	if (skald__park_is_of_topic(c->refused))
		return SKALD__PARK_LOOK;
	if (c->refused)
		return SKALD__PARK_HEAD;
	if (c->is_too_large)
		return c->is_limit_old ? SKALD__PARK_LIMIT : SKALD__PARK_HEAD;
	return SKALD__PARK_SEND;
}

bool
skald__park_is_urgent(const struct skald__park_case *c)
{
	return !c->is_topic_refused;
}

int64_t
skald__park_backoff_ms(unsigned attempts, uint64_t random)
{
	unsigned shift = attempts > 1 ? attempts - 1 : 0;
	int64_t most_ms = BACKOFF_MAX_MS;

	if (shift < 6 && BACKOFF_MS << shift < BACKOFF_MAX_MS)
		most_ms = BACKOFF_MS << shift;
	return FLOOR_MS + (int64_t)(random % (uint64_t)(most_ms - FLOOR_MS + 1));
}
