/*
 * metrics.h - numbers a loop writes and /metrics reads (Prometheus text 0.0.4).
 *
 * A registry belongs to main; registering is done before threads start or
 * under its lock, updating is one atomic store from any thread.
 */
#ifndef SKALD_BASE_METRICS_H
#define SKALD_BASE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum skald_metric_kind { SKALD_METRIC_COUNTER, SKALD_METRIC_GAUGE };

typedef _Atomic int64_t
	skald_metric; /* the one typedef of a value: C has no _Atomic tag */

struct skald_metrics;

SKALD_MUSTUSE enum skald_rc skald_metrics_create(
	struct skald_metrics **out, struct skald_err *err);
void skald_metrics_destroy(struct skald_metrics *metrics);

/*
 * Returns the number's place, the same for the same name and labels. labels is
 * "" or `source="main",mode="poll"`. Names end in _total for counters; scale
 * divides when printed (1000 for values kept in milliseconds and named _seconds).
 * NULL registry: returns a private sink, so that a loop need not ask.
 */
skald_metric *skald_metrics_at(struct skald_metrics *metrics, enum skald_metric_kind kind,
	const char *name, const char *labels, const char *help, int64_t scale);
/* Append name="value" to a list of labels, the value escaped. */
void skald_metrics_label(struct skald_buf *labels, const char *name, const char *value);
void skald_metrics_print(struct skald_metrics *metrics, struct skald_buf *out);

#endif
