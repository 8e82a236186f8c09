skald_test(NAME contract.outbox.add SOURCES contract/outbox/add.c support/pg.c)
foreach(unit relay order large ring topics faults)
	skald_test(NAME contract.outbox.${unit} TIMEOUT 120
		SOURCES contract/outbox/${unit}.c contract/outbox/kit.c support/pg.c)
endforeach()
foreach(unit park wal wal_ways doze recover)
	skald_test(NAME contract.outbox.${unit} TIMEOUT 300
		SOURCES contract/outbox/${unit}.c contract/outbox/kit.c support/pg.c)
endforeach()
