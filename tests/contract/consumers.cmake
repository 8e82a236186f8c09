set(consumers_kit contract/consumers/kit.c support/pg.c)

foreach(unit batch)
	skald_test(NAME contract.consumers.${unit} TIMEOUT 240
		SOURCES contract/consumers/${unit}.c ${consumers_kit})
endforeach()
