/*
 * health.c - /livez /readyz /startupz /metrics.
 *
 * Alive is about us: every loop turns, also while it waits for somebody else,
 * so an outage never makes a supervisor kill what only waits. Ready is about
 * the work: both sides are there and messages move (or another daemon leads).
 */
#include "daemon/own.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"

static bool
is_turning(const struct skald__loop_state *state, int64_t now_ms)
{
	return state->has_begun &&
	       (state->is_waiting || now_ms - state->progress_at_ms < SKALD__STALL_MS);
}

/* The index-th loop: the sources, the orchestrator, who asks Kafka. false: there is none. */
static bool
loop_state(struct skald__daemon *daemon, unsigned index, struct skald__loop_state *state)
{
	if (index < daemon->source_count) {
		skald__source_state(daemon->sources[index], state);
		return true;
	}
	index -= daemon->source_count;
	if (daemon->orchestra && index-- == 0) {
		skald__orchestra_state(daemon, state);
		return true;
	}
	if (index > 0 || !daemon->kafka_watch)
		return false;
	skald__watch_state(daemon->kafka_watch, state);
	return true;
}

bool
skald__health_is_alive(struct skald__daemon *daemon)
{
	int64_t now_ms = skald_mono_ms();
	struct skald__loop_state state;

	for (unsigned i = 0; loop_state(daemon, i, &state); i++) {
		/* Before its first turn a loop has as long as a stall may take. */
		if (!state.has_begun && now_ms - daemon->started_at_ms < SKALD__STALL_MS)
			continue;
		if (!is_turning(&state, now_ms))
			return false;
	}
	return true;
}

bool
skald__health_is_ready(struct skald__daemon *daemon)
{
	int64_t now_ms = skald_mono_ms();
	struct skald__loop_state state;

	if (atomic_load(&daemon->is_draining))
		return false;
	for (unsigned i = 0; loop_state(daemon, i, &state); i++)
		if (!state.is_ready || !is_turning(&state, now_ms))
			return false;
	return true;
}

static bool
has_started(struct skald__daemon *daemon)
{
	struct skald__loop_state state;

	for (unsigned i = 0; loop_state(daemon, i, &state); i++)
		if (!state.has_begun)
			return false;
	return true;
}

/* --- what is said ---------------------------------------------------------------------------- */

static void
add_bool(struct skald_buf *body, const char *name, bool value)
{
	skald_json_add_name(body, name);
	skald_buf_add_text(body, value ? "true" : "false");
}

/* "trouble" is there only where something is wrong: its presence is the message. */
static void
add_state(struct skald_buf *body, const struct skald__loop_state *state, int64_t now_ms)
{
	bool is_turning_now = is_turning(state, now_ms);
	char stalled[96];
	const char *trouble = state->trouble;

	if (!trouble[0] && !state->has_begun)
		trouble = "starting";
	if (state->has_begun && !is_turning_now) {
		(void)snprintf(stalled, sizeof(stalled), "no progress for %lld s",
			(long long)((now_ms - state->progress_at_ms) / 1000));
		trouble = stalled;
	}
	if (!trouble[0] && !state->is_ready)
		trouble = "not connected to both sides yet";
	add_bool(body, "ready", state->is_ready && is_turning_now);
	if (state->has_begun)
		skald_json_add_member_int(
			body, "progress_age_ms", now_ms - state->progress_at_ms);
	if (trouble[0])
		skald_json_add_member(body, "trouble", skald_slice_text(trouble));
}

/* A gauge that the relay of the source keeps (outbox/relay_health.c): the same place. */
static int64_t
relay_gauge(struct skald__daemon *daemon, const char *source, const char *name)
{
	char labels[128];

	(void)snprintf(labels, sizeof(labels), "source=\"%.100s\"", source);
	return atomic_load(skald_metrics_at(
		daemon->metrics, SKALD_METRIC_GAUGE, name, labels, "", 1));
}

/* What the leader of a source does. */
static void
add_relay(struct skald_buf *body, struct skald__daemon *daemon, const char *source,
	const char *attention)
{
	skald_json_add_member(body, "mode",
		skald_slice_text(relay_gauge(daemon, source, "skald_relay_streaming")
					 ? "wal"
					 : "poll"));
	skald_json_add_member_int(body, "parked_keys",
		relay_gauge(daemon, source, "skald_relay_parked_keys"));
	if (attention[0])
		skald_json_add_member(body, "attention", skald_slice_text(attention));
}

static void
add_source(struct skald_buf *body, struct skald__daemon *daemon,
	struct skald__source *source, int64_t now_ms)
{
	struct skald__loop_state state;

	skald__source_state(source, &state);
	skald_buf_add_text(body, "{");
	skald_json_add_member(
		body, "source", skald_slice_text(skald__source_name(source)));
	add_bool(body, "leader", state.is_leader);
	add_state(body, &state, now_ms);
	if (state.is_leader)
		add_relay(body, daemon, skald__source_name(source), state.attention);
	skald_buf_add_text(body, "}");
}

static void
add_kafka(struct skald_buf *body, struct skald__watch *kafka, int64_t now_ms)
{
	struct skald__loop_state state;

	skald__watch_state(kafka, &state);
	skald_json_add_name(body, "kafka");
	skald_buf_add_text(body, "{");
	add_state(body, &state, now_ms);
	skald_buf_add_text(body, "}");
}

static void
add_orchestrator(struct skald_buf *body, struct skald__daemon *daemon, int64_t now_ms)
{
	struct skald__loop_state state;

	skald__orchestra_state(daemon, &state);
	skald_json_add_name(body, "orchestrator");
	skald_buf_add_text(body, "{");
	add_state(body, &state, now_ms);
	skald_buf_add_text(body, "}");
}

static void
say(struct skald_http_answer *answer, struct skald__daemon *daemon, const char *name,
	bool is_yes)
{
	struct skald_buf *body = answer->body;
	int64_t now_ms = skald_mono_ms();

	answer->status = is_yes ? 200 : 503;
	skald_buf_add_text(body, "{");
	add_bool(body, name, is_yes);
	if (atomic_load(&daemon->is_draining))
		add_bool(body, "draining", true);
	skald_json_add_name(body, "relays");
	skald_buf_add_text(body, "[");
	for (unsigned i = 0; i < daemon->source_count; i++) {
		if (i)
			skald_buf_add_text(body, ",");
		add_source(body, daemon, daemon->sources[i], now_ms);
	}
	skald_buf_add_text(body, "]");
	if (daemon->orchestra)
		add_orchestrator(body, daemon, now_ms);
	if (daemon->kafka_watch)
		add_kafka(body, daemon->kafka_watch, now_ms);
	if (daemon->dev_broker)
		skald_json_add_member(body, "dev_broker",
			skald_slice_text(skald_dev_broker_address(daemon->dev_broker)));
	skald_buf_add_text(body, "}\n");
}

static void
answer_livez(const struct skald_http_request *request, struct skald_http_answer *answer,
	void *ctx)
{
	(void)request;
	say(answer, ctx, "alive", skald__health_is_alive(ctx));
}

static void
answer_readyz(const struct skald_http_request *request, struct skald_http_answer *answer,
	void *ctx)
{
	(void)request;
	say(answer, ctx, "ready", skald__health_is_ready(ctx));
}

static void
answer_startupz(const struct skald_http_request *request,
	struct skald_http_answer *answer, void *ctx)
{
	(void)request;
	say(answer, ctx, "started", has_started(ctx));
}

/* --- /metrics --------------------------------------------------------------------------------- */

static int64_t
resident_bytes(void)
{
	unsigned long long size_pages = 0;
	unsigned long long resident_pages = 0;
	FILE *statm = fopen("/proc/self/statm", "re");

	if (statm) {
		if (fscanf(statm, "%llu %llu", &size_pages, &resident_pages) != 2)
			resident_pages = 0;
		fclose(statm);
	}
	return (int64_t)resident_pages * sysconf(_SC_PAGESIZE);
}

static int64_t
cpu_ms(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage))
		return 0;
	return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (int64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* What belongs to the process, set at each scrape; the loops keep their own up to date. */
static void
refresh(struct skald__daemon *daemon)
{
	struct skald_metrics *metrics = daemon->metrics;

	atomic_store(skald_metrics_at(metrics, SKALD_METRIC_GAUGE, "skald_build_info",
			     "version=\"" SKALD_VERSION "\"", "Constant 1.", 1),
		1);
	atomic_store(skald_metrics_at(metrics, SKALD_METRIC_GAUGE, "skald_ready", "",
			     "1 when /readyz says yes.", 1),
		skald__health_is_ready(daemon));
	atomic_store(skald_metrics_at(metrics, SKALD_METRIC_GAUGE, "skald_uptime_seconds",
			     "", "Since the daemon began.", 1000),
		skald_mono_ms() - daemon->started_at_ms);
	atomic_store(skald_metrics_at(metrics, SKALD_METRIC_GAUGE,
			     "process_resident_memory_bytes", "",
			     "Resident memory of the process.", 1),
		resident_bytes());
	atomic_store(skald_metrics_at(metrics, SKALD_METRIC_COUNTER,
			     "process_cpu_seconds_total", "",
			     "Processor time of the process, user and system.", 1000),
		cpu_ms());
}

static void
answer_metrics(const struct skald_http_request *request, struct skald_http_answer *answer,
	void *ctx)
{
	struct skald__daemon *daemon = ctx;

	(void)request;
	refresh(daemon);
	answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
	skald_metrics_print(daemon->metrics, answer->body);
}

/* --- the server --------------------------------------------------------------------------------- */

static void
answer_request(const struct skald_http_request *request, struct skald_http_answer *answer,
	void *ctx)
{
	static const struct skald_http_route routes[] = {
		{ "GET", "/livez", answer_livez },
		{ "GET", "/readyz", answer_readyz },
		{ "GET", "/startupz", answer_startupz },
		{ "GET", "/metrics", answer_metrics },
	};

	skald_http_dispatch(
		routes, sizeof(routes) / sizeof(routes[0]), request, answer, ctx);
}

/* Lines "name token"; they open the way off the loopback and will name the actors of /v1. */
static enum skald_rc
check_token_file(const char *path, struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;
	unsigned line_number = 0;
	unsigned token_count = 0;
	char line[512];
	FILE *file = fopen(path, "re");

	if (!file)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"http.token_file: could not open %s", path);
	while (!rc && fgets(line, sizeof(line), file)) {
		char name[256];
		char token[256];
		char rest[2];
		int fields;

		line_number++;
		fields = sscanf(line, " %255s %255s %1s", name, token, rest);
		if (fields <= 0 || name[0] == '#')
			continue;
		if (fields != 2)
			rc = skald_fail(err, SKALD_REJECT, "config", "",
				"http.token_file: %s line %u is not \"name token\"", path,
				line_number);
		token_count++;
	}
	fclose(file);
	if (!rc && !token_count)
		rc = skald_fail(err, SKALD_REJECT, "config", "",
			"http.token_file: %s holds no line \"name token\"", path);
	return rc;
}

enum skald_rc
skald__health_start(struct skald__daemon *daemon, struct skald_err *err)
{
	const char *listen = skald_config_text(daemon->config, "http", "listen");
	const char *token_file = skald_config_text(daemon->config, "http", "token_file");
	enum skald_rc rc;

	if (!listen || !listen[0])
		return SKALD_OK; /* switched off */
	if (token_file && token_file[0]) {
		rc = check_token_file(token_file, err);
		if (rc)
			return rc;
	}
	if (!skald_http_is_loopback(listen) && !(token_file && token_file[0]))
		return skald_fail(err, SKALD_REJECT, "config", "",
			"http.listen: '%s' is no loopback address like 127.0.0.1:8085; "
			"any other needs http.token_file",
			listen);
	return skald_http_start(&daemon->http, listen, answer_request, daemon, err);
}
