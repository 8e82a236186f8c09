/* Wake pipe, metrics, failpoints: what loops and their tests use. */
#include "base/failpoint.h"
#include "base/metrics.h"
#include "base/wake.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "tests/support/check.h"

static void *
stop_it(void *wake)
{
	skald_wake_stop(wake);
	return NULL;
}

static void
wakes_from_another_thread(void)
{
	struct skald_wake wake;
	pthread_t thread;

	CU_ASSERT_FATAL(skald_wake_open(&wake, NULL) == SKALD_OK);
	CU_ASSERT(skald_wake_wait(&wake, NULL, 0, 0) == 0);
	CU_ASSERT(!atomic_load(&wake.stop));
	pthread_create(&thread, NULL, stop_it, &wake);
	CU_ASSERT(skald_wake_wait(&wake, NULL, 0, 30000) == 0);
	CU_ASSERT(atomic_load(&wake.stop));
	pthread_join(thread, NULL);
	skald_wake_close(&wake);
	skald_wake_close(&wake); /* twice is fine */
}

/* More wakes than a pipe holds: none blocks, and one wait empties it. */
static void
never_blocks_a_waker(void)
{
	struct skald_wake wake;
	int64_t began;

	CU_ASSERT_FATAL(skald_wake_open(&wake, NULL) == SKALD_OK);
	for (int i = 0; i < 100000; i++)
		skald_wake_up(&wake);
	began = skald_mono_ms();
	CU_ASSERT(skald_wake_wait(&wake, NULL, 0, 30000) == 0);
	CU_ASSERT(skald_mono_ms() - began < 10000);
	began = skald_mono_ms();
	CU_ASSERT(skald_wake_wait(&wake, NULL, 0, 50) == 0);
	CU_ASSERT(skald_mono_ms() - began >= 45);
	skald_wake_close(&wake);
}

static void
tells_which_descriptor_is_ready(void)
{
	struct pollfd fds[SKALD_WAKE_FDS_MAX];
	struct skald_wake wake;
	int quiet[2], loud[2];

	CU_ASSERT_FATAL(skald_wake_open(&wake, NULL) == SKALD_OK);
	CU_ASSERT_FATAL(pipe(quiet) == 0 && pipe(loud) == 0);
	for (int i = 0; i < SKALD_WAKE_FDS_MAX; i++)
		fds[i] =
			(struct pollfd){ .fd = quiet[0], .events = POLLIN, .revents = 7 };
	fds[5].fd = loud[0];
	CU_ASSERT(write(loud[1], "x", 1) == 1);
	CU_ASSERT(skald_wake_wait(&wake, fds, SKALD_WAKE_FDS_MAX, 30000) == 1);
	CU_ASSERT(fds[5].revents == POLLIN && fds[4].revents == 0);
	skald_wake_up(&wake);
	CU_ASSERT(skald_wake_wait(&wake, fds, SKALD_WAKE_FDS_MAX, 30000) == 1);
	fds[5].fd = quiet[0];
	CU_ASSERT(skald_wake_wait(&wake, fds, SKALD_WAKE_FDS_MAX, 0) == 0);
	CU_ASSERT(fds[5].revents == 0);
	skald_wake_close(&wake);
	close(quiet[0]);
	close(quiet[1]);
	close(loud[0]);
	close(loud[1]);
}

static void
prints_each_name_once(void)
{
	struct skald_metrics *metrics = NULL;
	struct skald_buf out, labels;
	skald_metric *rows, *lag;

	CU_ASSERT_FATAL(skald_metrics_create(&metrics, NULL) == SKALD_OK);
	skald_buf_init(&out, 65536);
	skald_buf_init(&labels, 1024);
	rows = skald_metrics_at(metrics, SKALD_METRIC_COUNTER, "skald_rows_total",
		"source=\"main\"", "Rows\nand \\ more.", 1);
	lag = skald_metrics_at(
		metrics, SKALD_METRIC_GAUGE, "skald_lag_seconds", "", "Lag.", 1000);
	skald_metrics_label(&labels, "source", "a\"b\\c\nd");
	skald_metrics_label(&labels, "mode", "poll");
	atomic_store(skald_metrics_at(metrics, SKALD_METRIC_COUNTER, "skald_rows_total",
			     labels.data, "ignored", 1),
		5);
	CU_ASSERT(rows == skald_metrics_at(metrics, SKALD_METRIC_COUNTER,
				  "skald_rows_total", "source=\"main\"", "", 1));
	atomic_fetch_add(rows, 9007199254740993);
	atomic_store(lag, -1250);
	skald_metrics_print(metrics, &out);
	CHECK_TEXT(out.data,
		"# HELP skald_rows_total Rows\\nand \\\\ more.\n"
		"# TYPE skald_rows_total counter\n"
		"skald_rows_total{source=\"main\"} 9007199254740993\n"
		"skald_rows_total{source=\"a\\\"b\\\\c\\nd\",mode=\"poll\"} 5\n"
		"# HELP skald_lag_seconds Lag.\n"
		"# TYPE skald_lag_seconds gauge\n"
		"skald_lag_seconds -1.25\n");
	skald_buf_done(&labels);
	skald_buf_done(&out);
	skald_metrics_destroy(metrics);
	skald_metrics_destroy(NULL);
}

static void
gives_a_place_without_a_registry(void)
{
	skald_metric *sink = skald_metrics_at(NULL, SKALD_METRIC_GAUGE, "x", "", "x", 1);

	CU_ASSERT(sink != NULL);
	atomic_store(sink, 1);
}

/* The signal that ends a child which passes relay_after_read so often; 0: it went through. */
static int
passes(const char *setting, int times)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		setenv("SKALD_FAILPOINT", setting, 1);
		if (!freopen("/dev/null", "w", stderr))
			_exit(3);
		for (int i = 0; i < times; i++) {
			skald_failpoint_pass(SKALD_FP_relay_after_ack);
			skald_failpoint_pass(SKALD_FP_relay_after_read);
		}
		_exit(0);
	}
	waitpid(child, &status, 0);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void
kills_at_the_nth_passage(void)
{
	CU_ASSERT(passes("relay_after_read:3", 2) == 0);
	CU_ASSERT(passes("relay_after_read:3", 3) == SIGKILL);
	CU_ASSERT(passes("relay_after_read", 1) == SIGKILL);
	CU_ASSERT(passes("runner_after_begin:1", 5) == 0);
	CU_ASSERT(passes("", 5) == 0);
	CU_ASSERT(passes("relay_after_rea:1", 1) == SIGABRT);
	CU_ASSERT(passes("relay_after_read:0", 1) == SIGABRT);
}

static void
lists_every_failpoint(void)
{
	char *text = NULL;
	size_t bytes = 0;
	FILE *out = open_memstream(&text, &bytes);
	unsigned lines = 0;

	skald_failpoint_list(out);
	fclose(out);
	CU_ASSERT(strstr(text, "relay_after_read\trelay: ") != NULL);
	for (size_t i = 0; i < bytes; i++)
		lines += text[i] == '\n';
	CU_ASSERT(lines == SKALD_FP_COUNT);
	free(text);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(wakes_from_another_thread),
		CHECK(never_blocks_a_waker),
		CHECK(tells_which_descriptor_is_ready),
		CHECK(prints_each_name_once),
		CHECK(gives_a_place_without_a_registry),
		CHECK(kills_at_the_nth_passage),
		CHECK(lists_every_failpoint),
	};

	return check_main("unit.base.loop", cases, CHECK_COUNT(cases));
}
