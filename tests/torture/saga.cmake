skald_test(NAME torture.saga.definition SOURCES torture/saga/definition.c)
target_link_options(torture.saga.definition PRIVATE
	-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup)
