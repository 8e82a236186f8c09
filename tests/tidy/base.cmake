# The rules of the house that no compiler checks, and their negative controls.
find_package(Python3 3.9 REQUIRED COMPONENTS Interpreter)

add_test(NAME tidy.rules COMMAND ${Python3_EXECUTABLE}
	${CMAKE_CURRENT_SOURCE_DIR}/tidy/tidy.py --build ${CMAKE_BINARY_DIR})
add_test(NAME tidy.selftest COMMAND ${Python3_EXECUTABLE} -B
	${CMAKE_CURRENT_SOURCE_DIR}/tidy/selftest.py)
set_tests_properties(tidy.rules tidy.selftest PROPERTIES TIMEOUT 120 LABELS tidy)
