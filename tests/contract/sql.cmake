foreach(unit session pipeline migrate outbox_add lease)
	skald_test(NAME contract.sql.${unit} TIMEOUT 120
		SOURCES contract/sql/${unit}.c support/pg.c)
endforeach()
foreach(unit barrier barrier_use barrier_sweep)
	skald_test(NAME contract.sql.${unit} TIMEOUT 120
		SOURCES contract/sql/${unit}.c contract/sql/barrier_kit.c support/pg.c)
endforeach()
