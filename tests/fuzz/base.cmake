# skald_fuzz(json): fuzz/json.c replays fuzz/corpus/json in every build as the
# test fuzz.json; with -DSKALD_FUZZ=ON and clang also the program fuzz-json:
#   build/fuzz/fuzz-json -max_total_time=60 NEW_CORPUS tests/fuzz/corpus/json
option(SKALD_FUZZ "Build the libFuzzer programs (clang)" OFF)
if(SKALD_FUZZ) # the whole library, instrumented
	target_compile_options(skald_flags INTERFACE
		-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
	target_link_options(skald_flags INTERFACE -fsanitize=address,undefined)
endif()

function(skald_fuzz target)
	skald_test(NAME fuzz.${target} SOURCES fuzz/${target}.c fuzz/replay.c TIMEOUT 120)
	target_compile_definitions(fuzz.${target} PRIVATE
		FUZZ_CORPUS="${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${target}")
	if(SKALD_FUZZ)
		add_executable(fuzz-${target} fuzz/${target}.c)
		target_link_libraries(fuzz-${target} PRIVATE skald_static)
		target_link_options(fuzz-${target} PRIVATE -fsanitize=fuzzer)
		set_target_properties(fuzz-${target} PROPERTIES
			RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
	endif()
endfunction()

skald_fuzz(json)
skald_fuzz(config)
