skald_test(NAME torture.base.memory SOURCES torture/base/memory.c)
target_link_options(torture.base.memory PRIVATE
	-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup)
