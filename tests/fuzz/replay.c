/*
 * replay.c - runs a fuzz target over its corpus, and over each file some
 * thousand times with bytes changed at random (SKALD_SEED repeats a run).
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/rand.h"

enum { FILE_BYTES_MAX = 256 * 1024, CHANGED_RUNS = 500, CHANGES_MAX = 6 };

/* Bytes that mean something to somebody, besides any byte at all. */
static const char spice[] = "{}[]\",:\\u0dD=;#'\n 1-e.\xFF\xC3";

/* Changes, removes or doubles some bytes; returns the new length. */
static size_t
change(struct skald_rand *r, uint8_t *data, size_t bytes)
{
	for (uint64_t n = 1 + skald_rand_below(r, CHANGES_MAX); n && bytes; n--) {
		size_t at = skald_rand_below(r, bytes);
		size_t part = 1 + skald_rand_below(r, bytes - at);

		switch (skald_rand_below(r, 4)) {
		case 0:
			data[at] = (uint8_t)skald_rand_next(r);
			break;
		case 1:
			data[at] = (uint8_t)spice[skald_rand_below(r, sizeof(spice) - 1)];
			break;
		case 2:
			memmove(data + at, data + at + part, bytes - at - part);
			bytes -= part;
			break;
		default:
			if (bytes + part > FILE_BYTES_MAX)
				break;
			memmove(data + at + part, data + at, bytes - at);
			bytes += part;
		}
	}
	return bytes;
}

static int
replay_file(struct skald_rand *r, const char *path, uint8_t *original, uint8_t *work)
{
	FILE *file = fopen(path, "rb");
	size_t bytes;

	if (!file) {
		perror(path);
		return 1;
	}
	bytes = fread(original, 1, FILE_BYTES_MAX, file);
	fclose(file);
	LLVMFuzzerTestOneInput(original, bytes);
	for (int i = 0; i < CHANGED_RUNS; i++) {
		size_t changed;
		uint8_t *exact;

		memcpy(work, original, bytes);
		changed = change(r, work, bytes);
		exact = malloc(
			changed ? changed : 1); /* its end is seen by a sanitizer */
		memcpy(exact, work, changed);
		LLVMFuzzerTestOneInput(exact, changed);
		free(exact);
	}
	return 0;
}

int
main(void)
{
	const char *text = getenv("SKALD_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
	uint8_t *original = malloc(FILE_BYTES_MAX), *work = malloc(FILE_BYTES_MAX);
	DIR *folder = opendir(FUZZ_CORPUS);
	const struct dirent *entry;
	struct skald_rand r;
	unsigned files = 0;
	int failed = 0;

	printf("SKALD_SEED=%llu\n", (unsigned long long)seed);
	fflush(stdout); /* a crash must not take the seed with it */
	skald_rand_seed(&r, seed);
	LLVMFuzzerTestOneInput(NULL, 0);
	while (folder && (entry = readdir(folder)) != NULL) {
		char path[1024];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", FUZZ_CORPUS, entry->d_name);
		failed |= replay_file(&r, path, original, work);
		files++;
	}
	if (folder)
		closedir(folder);
	free(original);
	free(work);
	printf("%u files, each as it is and %d times changed\n", files, CHANGED_RUNS);
	return failed || files < 10;
}
