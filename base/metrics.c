#include "base/metrics.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/assert.h"

/* A name with its series; families and series stay in the order of their making. */
struct series {
	struct series *next;
	char *labels;
	int64_t scale;
	skald_metric value;
};

struct family {
	struct family *next;
	enum skald_metric_kind kind;
	char *name;
	char *help;
	struct series *series;
};

struct skald_metrics {
	pthread_mutex_t lock; /* the lists; values are atomic */
	struct family *families;
};

/* Where numbers go that nobody reads: no registry, or no memory. */
static skald_metric sink;

enum skald_rc
skald_metrics_create(struct skald_metrics **out, struct skald_err *err)
{
	struct skald_metrics *metrics = calloc(1, sizeof(*metrics));

	if (!metrics)
		return skald_fail(err, SKALD_FATAL, "skald", "", "out of memory");
	pthread_mutex_init(&metrics->lock, NULL);
	*out = metrics;
	return SKALD_OK;
}

static void
free_series(struct series *series)
{
	while (series) {
		struct series *next = series->next;

		free(series->labels);
		free(series);
		series = next;
	}
}

static void
free_family(struct family *family)
{
	if (!family)
		return;
	free_series(family->series);
	free(family->name);
	free(family->help);
	free(family);
}

void
skald_metrics_destroy(struct skald_metrics *metrics)
{
	struct family *family, *next;

	if (!metrics)
		return;
	for (family = metrics->families; family; family = next) {
		next = family->next;
		free_family(family);
	}
	pthread_mutex_destroy(&metrics->lock);
	free(metrics);
}

static struct family *
family_at(struct skald_metrics *metrics, enum skald_metric_kind kind, const char *name,
	const char *help)
{
	struct family **at = &metrics->families;
	struct family *family;

	for (; *at; at = &(*at)->next)
		if (strcmp((*at)->name, name) == 0) {
			SKALD_ASSERT((*at)->kind == kind);
			return *at;
		}
	family = calloc(1, sizeof(*family));
	if (!family)
		return NULL;
	family->kind = kind;
	family->name = strdup(name);
	family->help = strdup(help);
	if (!family->name || !family->help) {
		free_family(family);
		return NULL;
	}
	*at = family;
	return family;
}

static struct series *
series_at(struct family *family, const char *labels, int64_t scale)
{
	struct series **at = &family->series;
	struct series *series;

	for (; *at; at = &(*at)->next)
		if (strcmp((*at)->labels, labels) == 0)
			return *at;
	series = calloc(1, sizeof(*series));
	if (!series)
		return NULL;
	series->labels = strdup(labels);
	if (!series->labels) {
		free(series);
		return NULL;
	}
	series->scale = scale;
	*at = series;
	return series;
}

skald_metric *
skald_metrics_at(struct skald_metrics *metrics, enum skald_metric_kind kind,
	const char *name, const char *labels, const char *help, int64_t scale)
{
	struct family *family;
	struct series *series = NULL;

	SKALD_ASSERT(scale > 0);
	if (!metrics)
		return &sink;
	pthread_mutex_lock(&metrics->lock);
	family = family_at(metrics, kind, name, help);
	if (family)
		series = series_at(family, labels, scale);
	pthread_mutex_unlock(&metrics->lock);
	return series ? &series->value : &sink;
}

static void
add_escaped(struct skald_buf *out, const char *text, bool escape_quote)
{
	for (; *text; text++) {
		if (*text == '\n')
			skald_buf_add_text(out, "\\n");
		else if (*text == '\\' || (*text == '"' && escape_quote))
			skald_buf_addf(out, "\\%c", *text);
		else
			skald_buf_add(out, text, 1);
	}
}

void
skald_metrics_label(struct skald_buf *labels, const char *name, const char *value)
{
	skald_buf_addf(labels, "%s%s=\"", labels->bytes ? "," : "", name);
	add_escaped(labels, value, true);
	skald_buf_add_text(labels, "\"");
}

/* value / scale in decimal digits: no double, no locale. */
static void
add_scaled(struct skald_buf *out, int64_t value, int64_t scale)
{
	uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
	uint64_t divisor = scale > 0 ? (uint64_t)scale : 1;
	uint64_t rest = magnitude % divisor;

	skald_buf_addf(out, "%s%llu", value < 0 ? "-" : "",
		(unsigned long long)(magnitude / divisor));
	for (unsigned i = 0; rest && i < 9; i++) {
		rest *= 10;
		skald_buf_addf(out, "%s%u", i ? "" : ".", (unsigned)(rest / divisor));
		rest %= divisor;
	}
}

static void
print_family(const struct family *family, struct skald_buf *out)
{
	skald_buf_addf(out, "# HELP %s ", family->name);
	add_escaped(out, family->help, false);
	skald_buf_addf(out, "\n# TYPE %s %s\n", family->name,
		family->kind == SKALD_METRIC_COUNTER ? "counter" : "gauge");
	for (const struct series *s = family->series; s; s = s->next) {
		skald_buf_add_text(out, family->name);
		if (s->labels[0])
			skald_buf_addf(out, "{%s}", s->labels);
		skald_buf_add_text(out, " ");
		add_scaled(out, atomic_load(&s->value), s->scale);
		skald_buf_add_text(out, "\n");
	}
}

void
skald_metrics_print(struct skald_metrics *metrics, struct skald_buf *out)
{
	if (!metrics)
		return;
	pthread_mutex_lock(&metrics->lock);
	for (const struct family *f = metrics->families; f; f = f->next)
		print_family(f, out);
	pthread_mutex_unlock(&metrics->lock);
}
