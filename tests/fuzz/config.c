/*
 * Configuration files of any bytes: refused with file and line, or read, and
 * then what is printed can be read again.
 */
#include "base/config_own.h"

#include <stdlib.h>

#include "base/assert.h"
#include "tests/fuzz/fuzz.h"

static enum skald_rc
read_text(struct skald_config **config, struct skald_slice text, struct skald_err *err)
{
	enum skald_rc rc = skald__config_create(config, err);

	SKALD_ASSERT(rc == SKALD_OK);
	return skald__config_read_text(*config, "fuzz.conf", text, err);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct skald_config *config = NULL, *again = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	char *printed = NULL;
	size_t printed_bytes;
	FILE *out;
	enum skald_rc rc;

	if (bytes > 64 * 1024)
		return 0;
	rc = read_text(
		&config, skald_slice_make(data ? (const void *)data : "", bytes), &err);
	SKALD_ASSERT(rc == SKALD_OK || rc == SKALD_REJECT);
	if (rc)
		SKALD_ASSERT(strncmp(err.text, "fuzz.conf:", 10) == 0);
	if (!rc) {
		out = open_memstream(&printed, &printed_bytes);
		skald_config_print(config, out);
		fclose(out);
		rc = read_text(&again, skald_slice_make(printed, printed_bytes), &err);
		if (rc)
			fprintf(stderr, "%s\n%s", err.text, printed);
		SKALD_ASSERT(rc == SKALD_OK);
	}
	free(printed);
	skald_config_destroy(config);
	skald_config_destroy(again);
	return 0;
}
