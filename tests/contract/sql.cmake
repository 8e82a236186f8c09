foreach(unit session pipeline migrate outbox_add outbox_wake lease)
	skald_test(NAME contract.sql.${unit} TIMEOUT 120
		SOURCES contract/sql/${unit}.c support/pg.c)
endforeach()
foreach(unit barrier barrier_use barrier_sweep)
	skald_test(NAME contract.sql.${unit} TIMEOUT 120
		SOURCES contract/sql/${unit}.c contract/sql/barrier_kit.c support/pg.c)
endforeach()
foreach(unit stream stream_faults)
	skald_test(NAME contract.sql.${unit} TIMEOUT 120
		SOURCES contract/sql/${unit}.c contract/sql/stream_kit.c support/pg.c)
endforeach()
