# `skaldd` as a process: its command line, its outages, its end.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
foreach(unit flags life)
	add_test(NAME contract.daemon.${unit} COMMAND ${Python3_EXECUTABLE}
		${CMAKE_CURRENT_SOURCE_DIR}/contract/daemon/${unit}.py)
	set_tests_properties(contract.daemon.${unit} PROPERTIES TIMEOUT 240 LABELS contract
		ENVIRONMENT "SKALD_BIN=${CMAKE_BINARY_DIR}/bin;PYTHONPATH=${CMAKE_SOURCE_DIR}/tests/support;PYTHONDONTWRITEBYTECODE=1")
endforeach()
