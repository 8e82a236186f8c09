#include "base/failpoint.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	const char *meaning;
} points[SKALD_FP_COUNT] = {
#define SKALD_FAILPOINT_ROW(name, meaning) { #name, meaning },
	SKALD_FAILPOINTS_EACH(SKALD_FAILPOINT_ROW)
#undef SKALD_FAILPOINT_ROW
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int armed = -1;
static atomic_long passages_left;

/* SKALD_FAILPOINT=name:n; a name nobody knows would be a test that tests nothing. */
static void
read_environment(void)
{
	const char *text = getenv("SKALD_FAILPOINT");
	const char *colon;
	size_t bytes;
	long n = 1;

	if (!text || !text[0])
		return;
	colon = strchr(text, ':');
	bytes = colon ? (size_t)(colon - text) : strlen(text);
	if (colon)
		n = strtol(colon + 1, NULL, 10);
	for (int i = 0; i < SKALD_FP_COUNT; i++)
		if (strlen(points[i].name) == bytes &&
			memcmp(points[i].name, text, bytes) == 0)
			armed = i;
	if (armed < 0 || n < 1) {
		fprintf(stderr,
			"SKALD_FAILPOINT=%s: must be name:n, n from 1, with a name "
			"that --list-failpoints prints\n",
			text);
		abort();
	}
	atomic_store(&passages_left, n);
}

void
skald_failpoint_pass(enum skald_failpoint fp)
{
	pthread_once(&once, read_environment);
	if ((int)fp != armed || atomic_fetch_sub(&passages_left, 1) != 1)
		return;
	kill(getpid(), SIGKILL);
	for (;;) /* not one step further, on whatever thread the signal arrives */
		pause();
}

void
skald_failpoint_list(FILE *out)
{
	for (int i = 0; i < SKALD_FP_COUNT; i++)
		fprintf(out, "%s\t%s\n", points[i].name, points[i].meaning);
}
