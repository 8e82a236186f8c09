foreach(unit partition props errors)
	skald_test(NAME unit.broker.${unit} SOURCES unit/broker/${unit}.c)
endforeach()
