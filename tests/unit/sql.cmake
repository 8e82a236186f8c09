skald_test(NAME unit.sql.param SOURCES unit/sql/param.c)
skald_test(NAME unit.sql.errors SOURCES unit/sql/errors.c)
