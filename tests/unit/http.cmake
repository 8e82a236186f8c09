skald_test(NAME unit.http.answer SOURCES unit/http/answer.c)
skald_test(NAME unit.http.server SOURCES unit/http/server.c)
