foreach(unit runner_core lane_core envelope)
	skald_test(NAME unit.consumers.${unit} SOURCES unit/consumers/${unit}.c)
endforeach()
