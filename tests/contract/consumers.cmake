# contract.consumers.kafka wants Apache Kafka's address in SKALD_TEST_KAFKA and fails without.
set(consumers_kit contract/consumers/kit.c support/pg.c)

foreach(unit batch trouble owner replay participant)
	skald_test(NAME contract.consumers.${unit} TIMEOUT 240
		SOURCES contract/consumers/${unit}.c ${consumers_kit})
endforeach()
skald_test(NAME contract.consumers.sql SOURCES contract/consumers/sql.c support/pg.c)
skald_test(NAME contract.consumers.kafka LABELS kafka TIMEOUT 240
	SOURCES contract/consumers/kafka.c ${consumers_kit})
