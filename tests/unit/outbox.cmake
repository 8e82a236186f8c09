foreach(unit park_core relay_core window_core)
	skald_test(NAME unit.outbox.${unit} SOURCES unit/outbox/${unit}.c)
endforeach()
