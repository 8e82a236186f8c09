/*
 * unit.broker.errors - what a librdkafka error means for the caller.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>

#include "tests/support/check.h"

static void
tells_what_to_do(void)
{
	static const struct {
		int code;
		enum skald_rc rc;
	} rows[] = {
		{ RD_KAFKA_RESP_ERR_NO_ERROR, SKALD_OK },
		/* the record or the topic is wrong */
		{ RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, SKALD_REJECT },
		{ RD_KAFKA_RESP_ERR_INVALID_RECORD, SKALD_REJECT },
		{ RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, SKALD_REJECT },
		{ RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, SKALD_REJECT },
		{ RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, SKALD_REJECT },
		{ RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, SKALD_REJECT },
		/* the way is wrong, and may be right later */
		{ RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, SKALD_RETRY },
		{ RD_KAFKA_RESP_ERR__TRANSPORT, SKALD_RETRY },
		{ RD_KAFKA_RESP_ERR__AUTHENTICATION, SKALD_RETRY },
		{ RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, SKALD_RETRY },
		{ RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, SKALD_RETRY },
		{ RD_KAFKA_RESP_ERR__GAPLESS_GUARANTEE, SKALD_RETRY },
		{ RD_KAFKA_RESP_ERR__PURGE_QUEUE, SKALD_RETRY },
		{ 9999, SKALD_RETRY },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		CU_ASSERT_EQUAL(skald__kafka_rc(rows[i].code), rows[i].rc);
}

static void
fills_the_error(void)
{
	struct skald_err err = SKALD_ERR_INIT;

	CU_ASSERT_EQUAL(skald__kafka_fail(&err, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
				"record for %s", "orders"),
		SKALD_REJECT);
	CHECK_TEXT(err.origin, "kafka");
	CHECK_TEXT(err.code, "10");
	CU_ASSERT(strstr(err.text, "record for orders: ") == err.text);
	CU_ASSERT_EQUAL(skald__kafka_fail_as(&err, SKALD_RETRY,
				RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, "a"),
		SKALD_RETRY);
	CHECK_TEXT(err.code, "17");
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(tells_what_to_do),
		CHECK(fills_the_error),
	};

	return check_main("unit.broker.errors", cases, CHECK_COUNT(cases));
}
