/*
 * park_core.h - what to do with a row that may have to wait; see park_core.c.
 */
#ifndef SKALD_OUTBOX_PARK_CORE_H
#define SKALD_OUTBOX_PARK_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/position.h"

/* From where to where the rows of a key wait. */
struct skald__hold {
	struct skald_position from; /* the first that waits */
	struct skald_position out; /* the marker behind which they flow, */
	struct skald_position again; /* and the first that waits again */
	bool has_out;
	bool has_again;
};

bool skald__hold_covers(const struct skald__hold *h, struct skald_position at);
/* A row that flowed is parked: it and all behind it wait again. */
void skald__hold_again(struct skald__hold *h, struct skald_position at);

struct skald__park_case {
	bool is_waiting; /* its key waits at this place */
	bool is_topic_refused; /* missing and not to be made, or not ours to write to */
	bool is_too_large; /* for the topic, as it was last asked, or for the producer */
	bool is_limit_old; /* the topic may be asked again */
	int refused; /* by the broker, alone: the error's number; 0: was not */
};

enum skald__park_todo {
	SKALD__PARK_SEND,
	SKALD__PARK_BEHIND, /* park it behind what waits */
	SKALD__PARK_HEAD, /* park it, and its key with it */
	SKALD__PARK_LOOK, /* what is known of the topic is wrong: ask, then decide anew */
	SKALD__PARK_LIMIT, /* ask for its limit, then decide anew */
};

enum skald__park_todo skald__park_decide(const struct skald__park_case *c);

/* A head that was: it must be in the database before the next row is produced (K5). */
bool skald__park_is_urgent(const struct skald__park_case *c);

#define SKALD__PARK_TOO_LARGE 10 /* Kafka's number of it */

/* The errors that tell of the topic, not of the record. */
bool skald__park_is_of_topic(int refused);
/* Not ours to write to: holds for the whole topic. */
bool skald__park_is_of_rights(int refused);

/* When to try again by itself after so many refusals: full jitter, 5 s to 5 min. */
int64_t skald__park_backoff_ms(unsigned attempts, uint64_t random);

#endif
