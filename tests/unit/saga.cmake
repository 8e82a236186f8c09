skald_test(NAME unit.saga.walks TIMEOUT 180
	SOURCES unit/saga/walks.c unit/saga/world.c unit/saga/observer.c)
