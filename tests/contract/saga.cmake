skald_test(NAME contract.saga.start SOURCES contract/saga/start.c support/pg.c)
