# What `cmake --install` leaves, seen from outside the tree.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME contract.install COMMAND ${Python3_EXECUTABLE}
	${CMAKE_CURRENT_SOURCE_DIR}/contract/install/install.py ${CMAKE_BINARY_DIR})
set_tests_properties(contract.install PROPERTIES TIMEOUT 120 LABELS contract
	ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
