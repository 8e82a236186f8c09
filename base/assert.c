#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void
skald_assert_failed(const char *expr, const char *file, int line)
{
	/* stdio, not the log: the log may be what is broken. */
	fprintf(stderr, "assertion failed: %s (%s:%d)\n", expr, file, line);
	abort();
}
