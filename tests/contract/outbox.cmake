skald_test(NAME contract.outbox.add SOURCES contract/outbox/add.c support/pg.c)
foreach(unit relay order large ring park faults wal wal_ways doze)
	skald_test(NAME contract.outbox.${unit} TIMEOUT 120
		SOURCES contract/outbox/${unit}.c contract/outbox/kit.c support/pg.c)
endforeach()
