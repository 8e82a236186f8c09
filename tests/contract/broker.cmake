# contract.broker.kafka wants Apache Kafka's address in SKALD_TEST_KAFKA and fails without.
set(broker_kit contract/broker/kit.c)

skald_test(NAME contract.broker.producer TIMEOUT 120
	SOURCES contract/broker/producer.c contract/broker/refusal.c ${broker_kit})
skald_test(NAME contract.broker.consumer TIMEOUT 180
	SOURCES contract/broker/consumer.c ${broker_kit})
skald_test(NAME contract.broker.dev SOURCES contract/broker/dev.c ${broker_kit})
target_link_libraries(contract.broker.dev PRIVATE skald_dev_bind)
skald_test(NAME contract.broker.kafka LABELS kafka TIMEOUT 120
	SOURCES contract/broker/kafka.c ${broker_kit})
