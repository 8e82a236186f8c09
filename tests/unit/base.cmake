foreach(unit err bytes time uuid context log loop json config)
	skald_test(NAME unit.base.${unit} SOURCES unit/base/${unit}.c)
endforeach()
