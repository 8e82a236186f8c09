skald_test(NAME unit.sql.param SOURCES unit/sql/param.c)
skald_test(NAME unit.sql.errors SOURCES unit/sql/errors.c)
skald_test(NAME unit.sql.pgoutput SOURCES unit/sql/pgoutput.c)
target_compile_definitions(unit.sql.pgoutput PRIVATE
	FRAMES="${CMAKE_CURRENT_SOURCE_DIR}/unit/sql/frames")
