/*
 * relay_health.c - what others see of a relay: metrics, readiness, log lines when
 * something changes.
 */
#include "outbox/own.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"

#define STALLED_MS       5000 /* leading without progress for so long is not ready */
#define BACKOFF_MS       100
#define BACKOFF_MAX_MS   5000
#define BACKOFF_FLOOR_MS 20

void
skald__relay_metrics_init(struct skald_relay *r, struct skald_metrics *metrics)
{
	struct skald__relay_metrics *m = &r->metrics;
	char labels[128];

	(void)snprintf(labels, sizeof(labels), "source=\"%.100s\"", r->source);
#define COUNTER(name, help) \
	skald_metrics_at(metrics, SKALD_METRIC_COUNTER, name, labels, help, 1)
#define GAUGE(name, help, scale) \
	skald_metrics_at(metrics, SKALD_METRIC_GAUGE, name, labels, help, scale)
	m->published = COUNTER(
		"skald_relay_published_total", "Outbox rows acknowledged by Kafka.");
	m->ticks = COUNTER("skald_relay_ticks_total", "Ticks opened.");
	m->rebuilds = COUNTER("skald_relay_rebuilds_total",
		"Producers replaced after an error that would have left a gap.");
	m->truncated =
		COUNTER("skald_relay_truncated_total", "Leaves of the outbox emptied.");
	m->parked_messages = COUNTER("skald_relay_parked_messages_total",
		"Outbox rows parked, since Kafka refuses the head of their key.");
	m->released = COUNTER("skald_relay_released_total",
		"Parked rows that were let out, those parked again included.");
	m->parked_keys = GAUGE("skald_relay_parked_keys", "Keys that wait.", 1);
	m->fenced = COUNTER("skald_relay_fenced_total", "Times another relay took over.");
	m->leader = GAUGE("skald_relay_leader", "1 while this relay leads.", 1);
	m->inflight =
		GAUGE("skald_relay_inflight", "Rows produced, not acknowledged.", 1);
	m->lag = GAUGE("skald_relay_lag_seconds",
		"Age of the oldest row when its tick was read; 0 when nothing waits.",
		1000);
	m->streaming =
		GAUGE("skald_relay_streaming", "1 in mode wal, 0 while it polls.", 1);
	m->wal_held = GAUGE("skald_relay_wal_held_bytes",
		"WAL that PostgreSQL keeps for the slot.", 1);
	m->wal_behind = GAUGE("skald_relay_wal_behind_bytes",
		"WAL behind the last acknowledged commit.", 1);
	m->safe_wal = GAUGE("skald_relay_safe_wal_bytes",
		"WAL that may be written until the slot is lost; -1: no limit.", 1);
	atomic_store(m->safe_wal, -1);
	m->spilled = GAUGE("skald_relay_spilled_bytes",
		"Written to disk by PostgreSQL for large transactions.", 1);
	m->left = COUNTER("skald_relay_left_wal_total",
		"Times mode wal was left: slot lost or shed, another timeline.");
	m->recovered = COUNTER("skald_relay_catchups_total",
		"Catch-ups: ticks of which a part may have been published.");
	m->skipped = COUNTER("skald_relay_catchup_skipped_total",
		"Rows of a catch-up that were found in their topic.");
	m->asleep = GAUGE("skald_relay_asleep", "1 while writers wake it by NOTIFY.", 1);
	m->woken = COUNTER("skald_relay_woken_total", "Times a writer woke it.");
	m->progress = GAUGE("skald_relay_last_progress_timestamp_seconds",
		"When the relay last got on (Unix time).", 1000);
#undef COUNTER
#undef GAUGE
}

void
skald__relay_note_progress(struct skald_relay *r)
{
	pthread_mutex_lock(&r->health_lock);
	r->health.progress_at_ms = skald_mono_ms();
	pthread_mutex_unlock(&r->health_lock);
	atomic_store(r->metrics.progress, skald_wall_us() / 1000);
}

static bool
is_connected(const struct skald_relay *r)
{
	return r->core.state != SKALD__RELAY_DOWN && r->core.state != SKALD__RELAY_GONE;
}

void
skald__relay_note_state(struct skald_relay *r)
{
	bool is_leader = skald__relay_is_leader(&r->core);
	const struct skald__trouble *t = r->pg.is_there       ? &r->pg
					 : r->broker.is_there ? &r->broker
							      : &r->standby;

	atomic_store(r->metrics.leader, is_leader);
	atomic_store(r->metrics.streaming, r->core.state == SKALD__RELAY_STREAMING);
	if (!is_leader) {
		atomic_store(r->metrics.inflight, 0);
		atomic_store(r->metrics.parked_keys, 0);
	}
	pthread_mutex_lock(&r->health_lock);
	r->health.is_leader = is_leader;
	r->health.is_ready = is_connected(r) && !t->is_there;
	if (t->is_there)
		(void)skald_slice_copy(skald_slice_text(t->err.text), r->health.trouble,
			sizeof(r->health.trouble));
	else
		r->health.trouble[0] = '\0';
	pthread_mutex_unlock(&r->health_lock);
}

/* Parked keys make nobody unready: all others flow. But whoever asks wants to know. */
void
skald__relay_note_parked(struct skald_relay *r)
{
	const char *missing = skald__topics_missing(&r->publisher.topics);
	unsigned count = r->park.key_count;

	atomic_store(r->metrics.parked_keys, (int64_t)count);
	pthread_mutex_lock(&r->health_lock);
	r->health.attention[0] = '\0';
	if (count)
		(void)snprintf(r->health.attention, sizeof(r->health.attention),
			"%u %s parked%s%s%s: skald outbox parked tells why", count,
			count == 1 ? "key is" : "keys are", missing ? ", topic " : "",
			missing ? missing : "", missing ? " does not exist" : "");
	pthread_mutex_unlock(&r->health_lock);
}

void
skald_relay_health(struct skald_relay *relay, struct skald_relay_health *out)
{
	pthread_mutex_lock(&relay->health_lock);
	*out = relay->health;
	pthread_mutex_unlock(&relay->health_lock);
	if (out->is_ready && skald_mono_ms() - out->progress_at_ms > STALLED_MS) {
		out->is_ready = false;
		(void)snprintf(out->trouble, sizeof(out->trouble),
			"no progress for %lld s",
			(long long)(skald_mono_ms() - out->progress_at_ms) / 1000);
	}
}

/* Once per change: another origin or code is a change, another wording is not. */
void
skald__relay_trouble(struct skald_relay *r, struct skald__trouble *t,
	const struct skald_err *err, const char *what)
{
	bool is_news = !t->is_there || strcmp(t->err.code, err->code) != 0 ||
		       strcmp(t->err.origin, err->origin) != 0;

	t->is_there = true;
	t->count++;
	t->err = *err;
	if (is_news)
		skald_log_err(SKALD_LOG_WARN, err, "relay waits: %s source=%s", what,
			r->source);
	skald__relay_note_state(r);
}

void
skald__relay_trouble_over(struct skald_relay *r, struct skald__trouble *t)
{
	t->count = 0;
	if (!t->is_there)
		return;
	t->is_there = false;
	skald_log(SKALD_LOG_INFO, "relay goes on source=%s", r->source);
	skald__relay_note_state(r);
}

int64_t
skald__relay_backoff(struct skald_relay *r, const struct skald__trouble *t)
{
	unsigned attempt = t->count > 0 ? t->count - 1 : 0;

	return skald_mono_ms() + BACKOFF_FLOOR_MS +
	       skald_backoff_ms(
		       &r->rand, attempt < 16 ? attempt : 16, BACKOFF_MS, BACKOFF_MAX_MS);
}
