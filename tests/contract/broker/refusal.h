/*
 * refusal.h - the tests of contract.broker.producer in which the broker refuses.
 */
#ifndef SKALD_TESTS_CONTRACT_BROKER_REFUSAL_H
#define SKALD_TESTS_CONTRACT_BROKER_REFUSAL_H

#include "tests/contract/broker/kit.h"

extern struct kit_mock *refusal_mock;

void refusal_leaves_no_gap(void);
void refusal_without_gapless_leaves_one(void);
void refusal_finds_the_guilty(void);
void lost_order_kills_the_producer(void);

#endif
