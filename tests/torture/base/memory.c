/*
 * The n-th allocation fails, n = 1, 2, 3...: every call says so by its rc, leaks
 * nothing (a sanitizer looks), and the same call with memory works again.
 * Linked with --wrap for malloc, calloc, realloc and strdup.
 */
#include "base/config.h"
#include "base/json.h"
#include "base/metrics.h"

#include <stdlib.h>
#include <unistd.h>

#include "tests/support/torture.h"

static bool
load_config(void)
{
	static const char *const sets[] = { "kafka.a=1", "kafka.b=2", "log.level=warn" };
	struct skald_config_args args = { "torture.conf", sets, 3 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_config *config = NULL;
	enum skald_rc rc = skald_config_load(&config, &args, &err);

	skald_config_destroy(config);
	if (has_failed)
		return rc == SKALD_FATAL && !config && strstr(err.text, "out of memory");
	return rc == SKALD_OK && config;
}

static void
config_survives(void)
{
	FILE *out = fopen("torture.conf", "w");

	fputs("[database]\nurl = \"host=h\"\n[kafka]\n", out);
	for (int i = 0; i < 100; i++)
		fprintf(out, "property.%d = value of %d ; c\n", i, i);
	fclose(out);
	torture(load_config, 100);
	remove("torture.conf");
}

/* The text of a refusal needs memory too: without it the refusal stands. */
static bool
refuse_config(void)
{
	static const char *const sets[] = { "log.level=warm" };
	struct skald_config_args args = { "/dev/null", sets, 1 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_config *config = NULL;
	enum skald_rc rc = skald_config_load(&config, &args, &err);

	return !config && (rc == SKALD_REJECT || (has_failed && rc == SKALD_FATAL));
}

static void
config_refusal_survives(void)
{
	torture(refuse_config, 20);
}

static bool
parse_json(void)
{
	struct skald_buf text;
	struct skald_json root;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = SKALD_OK;
	bool is_whole;

	skald_buf_init(&text, 1 << 20);
	skald_buf_add_text(&text, "{");
	for (int i = 0; i < 500; i++) {
		char name[16];

		snprintf(name, sizeof(name), "m%d", i);
		skald_json_add_member_int(&text, name, i);
	}
	skald_buf_add_text(&text, "}");
	is_whole = !text.failed;
	if (is_whole)
		rc = skald_json_parse(skald_buf_slice(&text), 1 << 20, 4, &root, &err);
	skald_buf_done(&text);
	if (has_failed)
		return !is_whole || rc == SKALD_RETRY;
	return is_whole && rc == SKALD_OK;
}

static void
json_and_buffers_survive(void)
{
	torture(parse_json, 8);
}

static bool
count_metrics(void)
{
	struct skald_metrics *metrics = NULL;
	enum skald_rc rc = skald_metrics_create(&metrics, NULL);
	bool ok = true;

	if (rc)
		return has_failed && !metrics;
	for (int i = 0; ok && i < 4; i++) {
		skald_metric *m = skald_metrics_at(metrics, SKALD_METRIC_COUNTER,
			i < 2 ? "a_total" : "b_total", i & 1 ? "x=\"1\"" : "", "Help.",
			1);

		ok = m != NULL;
		if (ok)
			atomic_fetch_add(m, 1);
	}
	skald_metrics_destroy(metrics);
	return ok;
}

static void
metrics_survive(void)
{
	torture(count_metrics, 8);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(config_survives),
		CHECK(config_refusal_survives),
		CHECK(json_and_buffers_survive),
		CHECK(metrics_survive),
	};
	char folder[] = "/tmp/skald-torture-XXXXXX";
	int failed;

	if (!mkdtemp(folder) || chdir(folder))
		return 1;
	failed = check_main("torture.base.memory", cases, CHECK_COUNT(cases));
	rmdir(folder);
	return failed;
}
