/*
 * props.c - the [kafka] section: checked as a whole before anything connects.
 *
 * A property goes to librdkafka as it stands, but for those that would break
 * what Skald promises: they are refused with the rule, unless the value is the
 * one Skald sets anyway.
 */
#include "broker/own.h"

#include <ctype.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <strings.h>

#include "base/config.h"

#define PROPS_MAX    256 /* librdkafka has about 190 properties */
#define SUSPECTS_MAX 64 /* producers of one process; one more forgets the first */

struct pair {
	char *name;
	char *value;
};

struct held_suspect {
	char client_id[128];
	struct skald__suspect suspect;
};

struct skald_kafka_props {
	struct pair pairs[PROPS_MAX];
	unsigned count;
	/* What clients learn on the way; the props themselves never change. */
	atomic_int is_dev; /* -1: not known */
	pthread_mutex_t lock;
	struct held_suspect suspects[SUSPECTS_MAX];
	unsigned suspect_count;
};

/* Properties that are not the user's to choose. */
struct guard {
	const char *name;
	const char *allowed; /* the only value allowed; NULL: none */
	const char *rule;
};

#define RULE_GAPLESS "the relay's producer is idempotent and gapless"
#define RULE_OFFSETS "offsets are kept in PostgreSQL with the effects"

static const struct guard guards[] = {
	{ "enable.idempotence", "true", RULE_GAPLESS },
	{ "enable.gapless.guarantee", "true", RULE_GAPLESS },
	{ "acks", "all", "a record is published when all in-sync replicas have it" },
	{ "request.required.acks", "all",
		"a record is published when all in-sync replicas have it" },
	{ "message.timeout.ms", "0", "a record that times out leaves a gap" },
	{ "delivery.timeout.ms", "0", "a record that times out leaves a gap" },
	{ "retries", NULL, "a record that is given up leaves a gap" },
	{ "message.send.max.retries", NULL, "a record that is given up leaves a gap" },
	{ "queuing.strategy", "fifo", "records of a key keep their order" },
	{ "transactional.id", NULL, RULE_GAPLESS },
	{ "delivery.report.only.error", "false",
		"the relay counts every acknowledgement" },
	{ "enable.auto.commit", "false", RULE_OFFSETS },
	{ "enable.auto.offset.store", "false", RULE_OFFSETS },
	{ "auto.commit.enable", "false", RULE_OFFSETS },
	{ "auto.offset.reset", "error", RULE_OFFSETS },
	{ "group.id", NULL, "the group is the service's name" },
	{ "group.instance.id", NULL,
		"one value for all consumers of a process fences them" },
	{ "partition.assignment.strategy", "range",
		"librdkafka 2.0.2 loses assignments of the cooperative one" },
	{ "group.protocol", "classic", "partitions are assigned by this client" },
	{ "isolation.level", "read_committed",
		"records of aborted transactions are no messages" },
	{ "allow.auto.create.topics", "false", "topics are made as [topics] says" },
	{ "enable.partition.eof", "false", "the runner asks the end itself" },
	{ "statistics.interval.ms", NULL, "Skald reads the statistics itself" },
	{ "test.mock.num.brokers", NULL, "the dev broker is a role: skaldd --dev" },
	{ "client.id", NULL, "each loop names its own client" },
};

/* --- known names ---------------------------------------------------------------------- */

struct names {
	char *text; /* what librdkafka prints about its properties */
	const char *items[PROPS_MAX * 2];
	unsigned count;
};

/* Properties of C callbacks cannot be set by text. */
static bool
is_settable(const char *name)
{
	const char *tail = strrchr(name, '_');

	return !(tail && strcmp(tail, "_cb") == 0) && strcmp(name, "opaque") != 0;
}

static void
names_init(struct names *names)
{
	size_t bytes = 0;
	FILE *mem;
	char *line, *next;

	memset(names, 0, sizeof(*names));
	mem = open_memstream(&names->text, &bytes);
	if (!mem)
		return;
	rd_kafka_conf_properties_show(mem);
	if (fclose(mem) || !names->text)
		return;
	/* A table: "name   | C/P | range | default | ..." a line. */
	for (line = names->text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (!islower((unsigned char)line[0]) || !strchr(line, '|'))
			continue;
		line[strcspn(line, " ")] = '\0';
		if (is_settable(line) && names->count < PROPS_MAX * 2)
			names->items[names->count++] = line;
	}
}

static enum skald_rc
unknown_property(const char *name, struct skald_err *err)
{
	struct names names;
	const char *near;
	enum skald_rc rc;

	names_init(&names);
	near = skald_nearest(name, names.items, names.count);
	rc = skald_fail(err, SKALD_REJECT, "config", "",
		"kafka.%s: librdkafka %s has no such property%s%s%s", name,
		rd_kafka_version_str(), near ? "; did you mean " : "", near ? near : "",
		near ? "?" : "");
	free(names.text);
	return rc;
}

/* --- checking --------------------------------------------------------------------------- */

static bool
is_same_value(const char *value, const char *allowed)
{
	if (strcasecmp(value, allowed) == 0)
		return true;
	if (strcmp(allowed, "true") == 0)
		return strcasecmp(value, "t") == 0 || strcmp(value, "1") == 0;
	if (strcmp(allowed, "false") == 0)
		return strcasecmp(value, "f") == 0 || strcmp(value, "0") == 0;
	if (strcmp(allowed, "all") == 0)
		return strcmp(value, "-1") == 0;
	return false;
}

static enum skald_rc
check_guards(const char *name, const char *value, struct skald_err *err)
{
	for (size_t i = 0; i < sizeof(guards) / sizeof(guards[0]); i++) {
		const struct guard *g = &guards[i];

		if (strcmp(name, g->name) != 0)
			continue;
		if (!g->allowed)
			return skald_fail(err, SKALD_REJECT, "config", "",
				"kafka.%s: not to be set: %s", name, g->rule);
		if (!is_same_value(value, g->allowed))
			return skald_fail(err, SKALD_REJECT, "config", "",
				"kafka.%s: only %s is allowed: %s", name, g->allowed,
				g->rule);
	}
	return SKALD_OK;
}

static enum skald_rc
check_pair(rd_kafka_conf_t *scratch, const char *name, const char *value,
	struct skald_err *err)
{
	char text[200];
	enum skald_rc rc;

	if (!is_settable(name))
		return unknown_property(name, err);
	switch (rd_kafka_conf_set(scratch, name, value, text, sizeof(text))) {
	case RD_KAFKA_CONF_UNKNOWN:
		return unknown_property(name, err);
	case RD_KAFKA_CONF_INVALID:
		return skald_fail(
			err, SKALD_REJECT, "config", "", "kafka.%s: %s", name, text);
	case RD_KAFKA_CONF_OK:
		break;
	}
	rc = check_guards(name, value, err);
	if (rc)
		return rc;
	/* More than five requests at a time cannot be kept in order. */
	if ((strcmp(name, "max.in.flight") == 0 ||
		    strcmp(name, "max.in.flight.requests.per.connection") == 0) &&
		strtol(value, NULL, 10) > 5)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"kafka.%s: at most 5: %s", name, RULE_GAPLESS);
	return SKALD_OK;
}

struct visit {
	struct skald_kafka_props *props;
	rd_kafka_conf_t *scratch;
	struct skald_err *err;
	enum skald_rc rc; /* of the first fault */
};

static void
visit_pair(const char *key, const char *value, void *ctx)
{
	struct visit *v = ctx;
	struct pair *pair;

	if (v->rc)
		return;
	v->rc = check_pair(v->scratch, key, value, v->err);
	if (v->rc)
		return;
	if (v->props->count == PROPS_MAX) {
		v->rc = skald_fail(v->err, SKALD_REJECT, "config", "",
			"kafka: more than %d properties", PROPS_MAX);
		return;
	}
	pair = &v->props->pairs[v->props->count];
	pair->name = strdup(key);
	pair->value = strdup(value);
	v->props->count++;
	if (!pair->name || !pair->value)
		v->rc = skald_fail(v->err, SKALD_RETRY, "skald", "", "out of memory");
}

static const char *
value_of(const struct skald_kafka_props *props, const char *name)
{
	for (unsigned i = 0; i < props->count; i++)
		if (strcmp(props->pairs[i].name, name) == 0)
			return props->pairs[i].value;
	return NULL;
}

enum skald_rc
skald_kafka_props_create(struct skald_kafka_props **out,
	const struct skald_config *config, struct skald_err *err)
{
	struct visit v = { .err = err };
	const char *servers;

	v.props = calloc(1, sizeof(*v.props));
	v.scratch = rd_kafka_conf_new();
	if (!v.props) {
		v.rc = skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
		goto out;
	}
	atomic_init(&v.props->is_dev, -1);
	pthread_mutex_init(&v.props->lock, NULL);
	skald_config_each(config, "kafka", visit_pair, &v);
	if (v.rc)
		goto out;
	servers = value_of(v.props, "bootstrap.servers");
	if (!servers)
		servers = value_of(v.props, "metadata.broker.list");
	if (!servers || !*servers)
		v.rc = skald_fail(err, SKALD_REJECT, "config", "",
			"kafka.bootstrap.servers: is not set, such as localhost:9092");
out:
	rd_kafka_conf_destroy(v.scratch);
	if (v.rc) {
		skald_kafka_props_destroy(v.props);
		return v.rc;
	}
	*out = v.props;
	return SKALD_OK;
}

void
skald_kafka_props_destroy(struct skald_kafka_props *props)
{
	if (!props)
		return;
	for (unsigned i = 0; i < props->count; i++) {
		free(props->pairs[i].name);
		free(props->pairs[i].value);
	}
	pthread_mutex_destroy(&props->lock);
	free(props);
}

/* --- use -------------------------------------------------------------------------------- */

static enum skald_rc
set_one(rd_kafka_conf_t *conf, const char *name, const char *value, struct skald_err *err)
{
	char text[200];

	if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) == RD_KAFKA_CONF_OK)
		return SKALD_OK;
	return skald_fail(err, SKALD_REJECT, "kafka", "", "kafka.%s: %s", name, text);
}

enum skald_rc
skald__kafka_conf(const struct skald_kafka_props *props, const char *client_id,
	struct rd_kafka_conf_s **out, struct skald_err *err)
{
	/* A broker that was away is found again within about a second. */
	static const struct skald__setting common[] = {
		{ "reconnect.backoff.ms", "50" },
		{ "reconnect.backoff.max.ms", "1000" },
		{ "socket.keepalive.enable", "true" },
		{ "socket.nagle.disable", "true" },
		{ "log.connection.close", "false" },
		/* Also for producers, although librdkafka calls it a consumer's. */
		{ "allow.auto.create.topics", "false" },
	};
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = 0; !rc && i < props->count; i++)
		rc = set_one(conf, props->pairs[i].name, props->pairs[i].value, err);
	if (!rc)
		rc = skald__kafka_conf_set(props, conf, common,
			sizeof(common) / sizeof(common[0]), true, err);
	if (!rc && client_id)
		rc = set_one(conf, "client.id", client_id, err);
	if (rc) {
		rd_kafka_conf_destroy(conf);
		return rc;
	}
	*out = conf;
	return SKALD_OK;
}

enum skald_rc
skald__kafka_conf_set(const struct skald_kafka_props *props, struct rd_kafka_conf_s *conf,
	const struct skald__setting *settings, unsigned count, bool default_only,
	struct skald_err *err)
{
	enum skald_rc rc = SKALD_OK;

	for (unsigned i = 0; !rc && i < count; i++)
		if (!default_only || !value_of(props, settings[i].name))
			rc = set_one(conf, settings[i].name, settings[i].value, err);
	return rc;
}

/*
 * The notes below are caches for the clients of one props, not part of what the
 * section says; a const props may therefore take them.
 */
static struct skald_kafka_props *
notes_of(const struct skald_kafka_props *props)
{
	union {
		const struct skald_kafka_props *in;
		struct skald_kafka_props *out;
	} u = { .in = props };

	return u.out;
}

int
skald__kafka_props_dev(const struct skald_kafka_props *props)
{
	return atomic_load(&notes_of(props)->is_dev);
}

void
skald__kafka_props_note_dev(const struct skald_kafka_props *props, bool is_dev)
{
	atomic_store(&notes_of(props)->is_dev, is_dev ? 1 : 0);
}

void
skald__kafka_props_suspect(const struct skald_kafka_props *props, const char *client_id,
	const struct skald__suspect *suspect)
{
	struct skald_kafka_props *p = notes_of(props);
	struct held_suspect *held = NULL;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->suspect_count && !held; i++)
		if (strcmp(p->suspects[i].client_id, client_id) == 0)
			held = &p->suspects[i];
	if (!held)
		held = &p->suspects[p->suspect_count < SUSPECTS_MAX ? p->suspect_count++
								    : 0];
	snprintf(held->client_id, sizeof(held->client_id), "%s", client_id);
	held->suspect = *suspect;
	pthread_mutex_unlock(&p->lock);
}

struct skald__suspect
skald__kafka_props_take_suspect(
	const struct skald_kafka_props *props, const char *client_id)
{
	struct skald_kafka_props *p = notes_of(props);
	struct skald__suspect found = { .count = 0 };

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < p->suspect_count; i++)
		if (strcmp(p->suspects[i].client_id, client_id) == 0) {
			found = p->suspects[i].suspect;
			p->suspects[i].suspect.count = 0; /* taken once */
		}
	pthread_mutex_unlock(&p->lock);
	return found;
}
