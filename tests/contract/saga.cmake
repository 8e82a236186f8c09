foreach(unit start retention)
	skald_test(NAME contract.saga.${unit} SOURCES contract/saga/${unit}.c support/pg.c)
endforeach()
skald_test(NAME contract.saga.orchestrator TIMEOUT 120
	SOURCES contract/saga/orchestrator.c contract/saga/kit.c support/pg.c)
skald_test(NAME contract.saga.trouble TIMEOUT 120
	SOURCES contract/saga/trouble.c contract/saga/kit.c support/pg.c)
