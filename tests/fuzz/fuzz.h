/*
 * fuzz.h - the entry point of every fuzz target. clang's libFuzzer calls it
 * (-DSKALD_FUZZ=ON), or replay.c with the committed corpus (every build).
 */
#ifndef SKALD_TESTS_FUZZ_FUZZ_H
#define SKALD_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#endif
