foreach(unit session pipeline migrate outbox_add lease barrier)
	skald_test(NAME contract.sql.${unit} TIMEOUT 120
		SOURCES contract/sql/${unit}.c support/pg.c)
endforeach()
