/*
 * unit.broker.props - the [kafka] section is checked as a whole before anything
 * connects, and what would break the guarantees is refused with the rule.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>

#include "base/config.h"
#include "tests/support/check.h"

static enum skald_rc
check(const char *set, struct skald_err *err, struct skald_kafka_props **props)
{
	const char *sets[] = { "kafka.bootstrap.servers=localhost:9092", set };
	struct skald_config_args args = {
		.file = "/dev/null", .sets = sets, .set_count = set ? 2 : 1
	};
	struct skald_config *config = NULL;
	enum skald_rc rc;

	rc = skald_config_load(&config, &args, err);
	if (!rc)
		rc = skald_kafka_props_create(props, config, err);
	skald_config_destroy(config);
	return rc;
}

static void
expect_refused(const char *set, const char *first, const char *second)
{
	struct skald_kafka_props *props = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = check(set, &err, &props);

	CU_ASSERT_EQUAL(rc, SKALD_REJECT);
	CU_ASSERT_PTR_NULL(props);
	if (!strstr(err.text, first) || !strstr(err.text, second))
		printf("\n    %s: %s", set, err.text);
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, first));
	CU_ASSERT_PTR_NOT_NULL(strstr(err.text, second));
	skald_kafka_props_destroy(props);
}

static void
expect_taken(const char *set)
{
	struct skald_kafka_props *props = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = check(set, &err, &props);

	if (rc)
		printf("\n    %s: %s", set ? set : "", err.text);
	CU_ASSERT_EQUAL(rc, SKALD_OK);
	skald_kafka_props_destroy(props);
}

static void
takes_any_property(void)
{
	expect_taken(NULL);
	expect_taken("kafka.linger.ms=5");
	expect_taken("kafka.compression.type=lz4");
	expect_taken("kafka.sasl.username=orders");
	expect_taken("kafka.max.in.flight=5");
}

static void
names_the_nearest(void)
{
	expect_refused("kafka.linger.m=5", "kafka.linger.m:", "did you mean linger.ms?");
	expect_refused("kafka.compresion.type=lz4", "no such property",
		"did you mean compression.type?");
	expect_refused("kafka.rebalance_cb=1", "kafka.rebalance_cb:", "no such property");
}

static void
names_the_wrong_value(void)
{
	expect_refused("kafka.linger.ms=soon", "kafka.linger.ms:", "nvalid");
	expect_refused("kafka.compression.type=rar", "kafka.compression.type:", "nvalid");
}

static void
refuses_what_breaks_guarantees(void)
{
	expect_refused("kafka.enable.idempotence=false",
		"kafka.enable.idempotence:", "only true is allowed");
	expect_refused("kafka.acks=1", "kafka.acks:", "only all is allowed");
	expect_refused("kafka.request.required.acks=1", "required.acks:", "only all");
	expect_refused(
		"kafka.message.timeout.ms=5000", "kafka.message.timeout.ms:", "gap");
	expect_refused(
		"kafka.delivery.timeout.ms=5000", "kafka.delivery.timeout.ms:", "gap");
	expect_refused("kafka.retries=3", "kafka.retries:", "gap");
	expect_refused("kafka.max.in.flight=6", "kafka.max.in.flight:", "at most 5");
	expect_refused("kafka.enable.auto.commit=true",
		"kafka.enable.auto.commit:", "PostgreSQL");
	expect_refused(
		"kafka.enable.auto.offset.store=true", "offset.store:", "PostgreSQL");
	expect_refused("kafka.auto.offset.reset=earliest", "auto.offset.reset:", "error");
	expect_refused("kafka.group.id=mine", "kafka.group.id:", "not to be set");
	expect_refused("kafka.partition.assignment.strategy=cooperative-sticky",
		"strategy:", "only range");
	expect_refused("kafka.isolation.level=read_uncommitted",
		"isolation.level:", "read_committed");
}

static void
takes_the_same_value(void)
{
	expect_taken("kafka.enable.idempotence=true");
	expect_taken("kafka.acks=-1");
	expect_taken("kafka.acks=all");
	expect_taken("kafka.message.timeout.ms=0");
	expect_taken("kafka.enable.auto.commit=false");
	expect_taken("kafka.isolation.level=read_committed");
}

/* What one producer learned is for the next of the same name, once. */
static void
hands_on_suspects(void)
{
	struct skald_kafka_props *props = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	struct skald__suspect s = { .topic = "orders", .partition = 3, .count = 7 };

	CU_ASSERT_EQUAL_FATAL(check(NULL, &err, &props), SKALD_OK);
	CU_ASSERT_EQUAL(skald__kafka_props_take_suspect(props, "a").count, 0);
	skald__kafka_props_suspect(props, "a", &s);
	CU_ASSERT_EQUAL(skald__kafka_props_take_suspect(props, "b").count, 0);
	s = skald__kafka_props_take_suspect(props, "a");
	CHECK_TEXT(s.topic, "orders");
	CU_ASSERT_EQUAL(s.partition, 3);
	CU_ASSERT_EQUAL(s.count, 7);
	CU_ASSERT_EQUAL(skald__kafka_props_take_suspect(props, "a").count, 0);
	skald_kafka_props_destroy(props);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(takes_any_property),
		CHECK(names_the_nearest),
		CHECK(names_the_wrong_value),
		CHECK(refuses_what_breaks_guarantees),
		CHECK(takes_the_same_value),
		CHECK(hands_on_suspects),
	};

	return check_main("unit.broker.props", cases, CHECK_COUNT(cases));
}
