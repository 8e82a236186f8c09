skald_test(NAME unit.saga.def SOURCES unit/saga/def.c)
target_compile_definitions(unit.saga.def PRIVATE
	SAGA_FILES="${CMAKE_CURRENT_SOURCE_DIR}/unit/saga")
skald_test(NAME unit.saga.builder SOURCES unit/saga/builder.c)
target_compile_definitions(unit.saga.builder PRIVATE
	SAGA_FILES="${CMAKE_CURRENT_SOURCE_DIR}/unit/saga"
	SAGA_EXAMPLES="${CMAKE_SOURCE_DIR}/examples")
skald_test(NAME unit.saga.path SOURCES unit/saga/path.c)
foreach(unit core_table core_rules state)
	skald_test(NAME unit.saga.${unit} SOURCES unit/saga/${unit}.c unit/saga/kit.c)
endforeach()
# A million walks; with the address sanitizer fewer.
skald_test(NAME unit.saga.walks TIMEOUT 180
	SOURCES unit/saga/walks.c unit/saga/world.c unit/saga/observer.c)
skald_test(NAME unit.saga.vector SOURCES unit/saga/vector.c)
