# `skald` as its users run it: a program, a private PostgreSQL, exit status and output.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
foreach(unit usage verbs letters sagas adopt parked relays doctor)
	add_test(NAME contract.cli.${unit} COMMAND ${Python3_EXECUTABLE}
		${CMAKE_CURRENT_SOURCE_DIR}/contract/cli/${unit}.py)
	set_tests_properties(contract.cli.${unit} PROPERTIES TIMEOUT 180 LABELS contract
		ENVIRONMENT "SKALD_BIN=${CMAKE_BINARY_DIR}/bin;PYTHONPATH=${CMAKE_SOURCE_DIR}/tests/support;PYTHONDONTWRITEBYTECODE=1")
endforeach()
# starts a server for each of its tests
set_tests_properties(contract.cli.doctor PROPERTIES TIMEOUT 400)
