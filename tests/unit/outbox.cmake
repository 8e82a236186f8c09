foreach(unit park_core relay_core relay_core_wal snapshot window_core)
	skald_test(NAME unit.outbox.${unit} SOURCES unit/outbox/${unit}.c)
endforeach()
skald_test(NAME unit.outbox.relay_walk
	SOURCES unit/outbox/relay_walk.c unit/outbox/relay_world.c)
