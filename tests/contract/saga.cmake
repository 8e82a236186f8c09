skald_test(NAME contract.saga.start SOURCES contract/saga/start.c support/pg.c)
skald_test(NAME contract.saga.orchestrator TIMEOUT 120
	SOURCES contract/saga/orchestrator.c contract/saga/kit.c support/pg.c)
skald_test(NAME contract.saga.trouble TIMEOUT 120
	SOURCES contract/saga/trouble.c contract/saga/kit.c support/pg.c)
