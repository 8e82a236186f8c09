/*
 * consumer.c - a member of a Kafka group whose offsets are the caller's.
 *
 * C1  Every assigned partition has a queue of its own, split off before the
 *     assignment, so that one partition's backlog or stop never holds another's.
 * C2  Nothing is stored or committed by librdkafka: it starts at the offset the
 *     caller gave, and an offset that does not exist stops the partition.
 * C3  All calls on the handle come from one thread: librdkafka 2.0.2 loses
 *     records when seek and reading run side by side.
 * C4  A stop is told once per assignment, inside serve.
 * C5  The descriptor is readable while a record or a group's event waits.
 */
#include "broker/consumer_own.h"

#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#define CLOSE_MS    5000 /* leaving takes a round trip or two, or hangs for ever */
#define DESTROY_MS  2000
#define SEEK_MS     2000
#define DEV_ASK_MS  1000
#define COMPLAIN_MS 10000 /* the same complaint of librdkafka at most so often */

/* --- descriptor (C5) ------------------------------------------------------------------------ */

static void
watch(struct skald_kafka_consumer *c, rd_kafka_queue_t *queue)
{
	static const uint64_t one = 1;

	rd_kafka_queue_io_event_enable(queue, c->fd, &one, sizeof(one));
}

/* librdkafka writes when a queue becomes filled; whoever reads less says so itself. */
void
skald__consumer_rearm(struct skald_kafka_consumer *c)
{
	bool waits = c->has_untold || rd_kafka_queue_length(c->queue) > 0;

	for (unsigned i = 0; i < c->part_count && !waits; i++)
		waits = !c->parts[i].is_stopped &&
			rd_kafka_queue_length(c->parts[i].queue) > 0;
	if (waits)
		skald__eventfd_raise(c->fd);
}

int
skald_kafka_consumer_fd(struct skald_kafka_consumer *consumer)
{
	return consumer->fd;
}

/* --- open ------------------------------------------------------------------------------------- */

/*
 * How long a fetch may wait at the broker. Kafka answers as soon as there is a
 * record; the dev broker sleeps through the whole time (limits.h has no say: it is
 * a property, fetch.wait.max.ms, that the user may set).
 */
static const char *
fetch_wait(const struct skald_kafka_props *props)
{
	char id[SKALD_CLUSTER_ID_BYTES];
	struct skald_cluster *cluster = NULL;
	struct skald_err ignored = SKALD_ERR_INIT;

	if (skald__kafka_props_dev(props) < 0 &&
		skald_cluster_open(&cluster, props, &ignored) == SKALD_OK &&
		skald_cluster_id(cluster, DEV_ASK_MS, id, &ignored) != SKALD_OK)
		skald_log_err(SKALD_LOG_DEBUG, &ignored,
			"could not ask whether this is a dev broker");
	skald_cluster_close(cluster);
	switch (skald__kafka_props_dev(props)) {
	case 0:
		return "100";
	case 1:
		return "5";
	default:
		return "20"; /* not known: between the two */
	}
}

static enum skald_rc
set_defaults(const struct skald_kafka_props *props, rd_kafka_conf_t *rkconf,
	struct skald_err *err)
{
	const struct skald__setting defaults[] = {
		{ "fetch.wait.max.ms", fetch_wait(props) },
		{ "fetch.error.backoff.ms", "100" },
		/* A second of a partition's peak: with less, librdkafka 2.0.2 sleeps a
		   second each time the queue is full. So is queued.min.messages left
		   alone. */
		{ "queued.max.messages.kbytes", "32768" },
		{ "topic.metadata.refresh.interval.ms", "10000" },
		{ "topic.metadata.propagation.max.ms", "5000" },
	};

	return skald__kafka_conf_set(props, rkconf, defaults,
		sizeof(defaults) / sizeof(defaults[0]), true, err);
}

static enum skald_rc
set_ours(const struct skald_kafka_props *props,
	const struct skald_kafka_consumer_conf *conf, rd_kafka_conf_t *rkconf,
	struct skald_err *err)
{
	const struct skald__setting ours[] = {
		{ "group.id", conf->group },
		{ "enable.auto.commit", "false" },
		{ "enable.auto.offset.store", "false" },
		{ "auto.offset.reset", "error" },
		{ "partition.assignment.strategy", "range" },
		{ "isolation.level",
			conf->reads_all ? "read_uncommitted" : "read_committed" },
		{ "enable.partition.eof", conf->reads_all ? "true" : "false" },
		{ "statistics.interval.ms", "1000" },
	};
	char ms[24], beat_ms[24];
	const struct skald__setting session[] = {
		{ "session.timeout.ms", ms },
		{ "heartbeat.interval.ms", beat_ms },
	};
	const struct skald__setting poll[] = { { "max.poll.interval.ms", ms } };
	enum skald_rc rc;

	rc = skald__kafka_conf_set(
		props, rkconf, ours, sizeof(ours) / sizeof(ours[0]), false, err);
	if (!rc && conf->max_poll_interval_ms > 0) {
		snprintf(ms, sizeof(ms), "%lld", (long long)conf->max_poll_interval_ms);
		rc = skald__kafka_conf_set(props, rkconf, poll, 1, false, err);
	}
	if (!rc && conf->session_timeout_ms > 0) {
		int64_t beat = conf->session_timeout_ms / 4;

		snprintf(ms, sizeof(ms), "%lld", (long long)conf->session_timeout_ms);
		snprintf(beat_ms, sizeof(beat_ms), "%lld",
			(long long)(beat < 3000 ? beat : 3000));
		rc = skald__kafka_conf_set(props, rkconf, session, 2, false, err);
	}
	return rc;
}

static enum skald_rc
subscribe(struct skald_kafka_consumer *c, const struct skald_kafka_consumer_conf *conf,
	struct skald_err *err)
{
	rd_kafka_topic_partition_list_t *list =
		rd_kafka_topic_partition_list_new((int)conf->topic_count);
	rd_kafka_resp_err_t code;

	for (unsigned i = 0; i < conf->topic_count; i++)
		rd_kafka_topic_partition_list_add(
			list, conf->topics[i], RD_KAFKA_PARTITION_UA);
	code = rd_kafka_subscribe(c->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (code)
		return skald__kafka_fail(
			err, code, "could not subscribe as group %s", conf->group);
	return SKALD_OK;
}

enum skald_rc
skald_kafka_consumer_open(struct skald_kafka_consumer **out,
	const struct skald_kafka_props *props,
	const struct skald_kafka_consumer_conf *conf, struct skald_err *err)
{
	struct skald_kafka_consumer *c = calloc(1, sizeof(*c));
	struct rd_kafka_conf_s *rkconf = NULL;
	enum skald_rc rc;

	if (!c)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	c->conf = *conf;
	c->fd = skald__eventfd_open();
	if (c->fd < 0) {
		rc = skald_fail(err, SKALD_RETRY, "skald", "",
			"could not open a consumer: no descriptor");
		goto out;
	}
	rc = skald__kafka_conf(props, conf->client_id, &rkconf, err);
	if (!rc)
		rc = set_defaults(props, rkconf, err);
	if (!rc)
		rc = set_ours(props, conf, rkconf, err);
	if (rc)
		goto out;
	rd_kafka_conf_set_events(rkconf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR |
						 RD_KAFKA_EVENT_STATS |
						 RD_KAFKA_EVENT_OFFSET_COMMIT);
	rc = skald__kafka_new(&c->rk, SKALD__CLIENT_CONSUMER, &rkconf, err);
	if (rc)
		goto out;
	rd_kafka_poll_set_consumer(c->rk);
	c->queue = rd_kafka_queue_get_consumer(c->rk);
	watch(c, c->queue);
	if (conf->topic_count)
		rc = subscribe(c, conf, err);
	if (rc)
		goto out;
	*out = c;
	c = NULL;
out:
	if (rkconf)
		rd_kafka_conf_destroy(rkconf);
	skald_kafka_consumer_close(c);
	return rc;
}

/* --- assignment ------------------------------------------------------------------------------- */

static void
drop_queues(struct skald_kafka_consumer *c)
{
	for (unsigned i = 0; i < c->part_count; i++) {
		if (!c->parts[i].queue)
			continue;
		rd_kafka_queue_io_event_enable(c->parts[i].queue, -1, NULL, 0);
		rd_kafka_queue_destroy(c->parts[i].queue);
		c->parts[i].queue = NULL;
	}
}

static void
drop_parts(struct skald_kafka_consumer *c)
{
	drop_queues(c);
	for (unsigned i = 0; i < c->part_count; i++)
		free(c->parts[i].topic);
	free(c->parts);
	c->parts = NULL;
	c->part_count = 0;
	c->turn = 0;
	c->has_untold = false;
}

/* Tells the caller; what it makes of the offsets stays in the array. */
static struct skald_kafka_partition *
tell(struct skald_kafka_consumer *c, enum skald_group_event event,
	const rd_kafka_topic_partition_list_t *list)
{
	struct skald_kafka_partition *ps;

	ps = calloc(list->cnt ? (size_t)list->cnt : 1, sizeof(*ps));
	if (!ps)
		return NULL;
	for (int i = 0; i < list->cnt; i++)
		ps[i] = (struct skald_kafka_partition){ .topic = list->elems[i].topic,
			.partition = list->elems[i].partition,
			.offset = -1 };
	c->conf.on_group(event, ps, (unsigned)list->cnt, c->conf.ctx);
	return ps;
}

/* C1: before the assignment, or the first records go to the common queue. */
static bool
add_part(struct skald_kafka_consumer *c, const struct skald_kafka_partition *p)
{
	struct skald__part *part = &c->parts[c->part_count];

	part->topic = strdup(p->topic);
	part->partition = p->partition;
	part->met_end = -1;
	part->queue = rd_kafka_queue_get_partition(c->rk, p->topic, p->partition);
	if (!part->topic || !part->queue) {
		free(part->topic);
		if (part->queue)
			rd_kafka_queue_destroy(part->queue);
		memset(part, 0, sizeof(*part));
		return false;
	}
	rd_kafka_queue_forward(part->queue, NULL);
	watch(c, part->queue);
	c->part_count++;
	return true;
}

static void
set_assignment(struct skald_kafka_consumer *c, rd_kafka_topic_partition_list_t *list)
{
	rd_kafka_resp_err_t code = rd_kafka_assign(c->rk, list);
	struct skald_err err = SKALD_ERR_INIT;

	if (!code)
		return;
	skald__kafka_fail(&err, code, "assignment");
	skald_log_err(SKALD_LOG_WARN, &err, "could not take over partitions count=%d",
		list ? list->cnt : 0);
}

static void
on_assigned(struct skald_kafka_consumer *c, const rd_kafka_topic_partition_list_t *list)
{
	rd_kafka_topic_partition_list_t *mine;
	struct skald_kafka_partition *ps;

	drop_parts(c);
	ps = tell(c, SKALD_GROUP_ASSIGNED, list);
	c->parts = calloc(list->cnt ? (size_t)list->cnt : 1, sizeof(c->parts[0]));
	mine = rd_kafka_topic_partition_list_new(list->cnt);
	for (int i = 0; ps && c->parts && i < list->cnt; i++) {
		if (ps[i].offset < 0)
			continue;
		if (!add_part(c, &ps[i])) {
			skald_log(SKALD_LOG_WARN,
				"could not read a partition: no queue topic=%s "
				"partition=%d",
				ps[i].topic, (int)ps[i].partition);
			continue;
		}
		rd_kafka_topic_partition_list_add(mine, ps[i].topic, ps[i].partition)
			->offset = ps[i].offset;
	}
	/* Without memory for the answer: an empty one; the group goes on. */
	set_assignment(c, mine);
	rd_kafka_topic_partition_list_destroy(mine);
	free(ps);
	c->is_connected = true;
}

enum skald_rc
skald_kafka_consumer_assign(struct skald_kafka_consumer *c,
	const struct skald_kafka_partition *partitions, unsigned count,
	struct skald_err *err)
{
	rd_kafka_topic_partition_list_t *list;
	enum skald_rc rc = SKALD_OK;

	drop_parts(c);
	set_assignment(c, NULL);
	c->parts = calloc(count ? count : 1, sizeof(c->parts[0]));
	if (!c->parts)
		return skald_fail(err, SKALD_RETRY, "skald", "", "out of memory");
	list = rd_kafka_topic_partition_list_new((int)count);
	for (unsigned i = 0; i < count && !rc; i++) {
		if (!add_part(c, &partitions[i]))
			rc = skald_fail(err, SKALD_RETRY, "skald", "",
				"could not read %s/%d: no queue", partitions[i].topic,
				(int)partitions[i].partition);
		rd_kafka_topic_partition_list_add(
			list, partitions[i].topic, partitions[i].partition)
			->offset = partitions[i].offset;
	}
	if (!rc) {
		set_assignment(c, list);
		c->is_connected = true; /* the statistics say otherwise within a second */
	}
	rd_kafka_topic_partition_list_destroy(list);
	return rc;
}

static void
on_revoked(struct skald_kafka_consumer *c, const rd_kafka_topic_partition_list_t *list)
{
	bool is_lost = rd_kafka_assignment_lost(c->rk);

	free(tell(c, is_lost ? SKALD_GROUP_LOST : SKALD_GROUP_REVOKED, list));
	drop_parts(c);
	set_assignment(c, NULL);
}

static void
on_rebalance(struct skald_kafka_consumer *c, rd_kafka_event_t *event)
{
	const rd_kafka_topic_partition_list_t *list =
		rd_kafka_event_topic_partition_list(event);

	if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
		on_assigned(c, list);
	else
		on_revoked(c, list);
}

/* --- serving ------------------------------------------------------------------------------------ */

/* Once, and again when it changes or after a while: librdkafka repeats itself. */
void
skald__consumer_complain(struct skald_kafka_consumer *c, int code, const char *text)
{
	int64_t now_ms = skald_mono_ms();
	struct skald_err err = SKALD_ERR_INIT;

	if (code == c->complaint_code && now_ms - c->complaint_at_ms < COMPLAIN_MS)
		return;
	c->complaint_code = code;
	c->complaint_at_ms = now_ms;
	skald__kafka_fail(&err, code, "%s", text ? text : "");
	skald_log_err(
		code == RD_KAFKA_RESP_ERR__TRANSPORT ? SKALD_LOG_DEBUG : SKALD_LOG_WARN,
		&err, "consumer is in trouble client=%s", rd_kafka_name(c->rk));
}

static void
on_error(struct skald_kafka_consumer *c, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t code = rd_kafka_event_error(event);

	if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		c->is_connected = false;
	skald__consumer_complain(c, code, rd_kafka_event_error_string(event));
}

/* The statistics name each broker's state; the group's is in lower case. */
static void
on_stats(struct skald_kafka_consumer *c, rd_kafka_event_t *event)
{
	const char *json = rd_kafka_event_stats(event);

	if (json)
		c->is_connected = strstr(json, "\"state\":\"UP\"") != NULL;
}

static void
on_commit(rd_kafka_event_t *event)
{
	struct skald_err err = SKALD_ERR_INIT;
	rd_kafka_resp_err_t code = rd_kafka_event_error(event);

	if (!code || code == RD_KAFKA_RESP_ERR__NO_OFFSET)
		return;
	skald__kafka_fail(&err, code, "commit");
	skald_log_err(SKALD_LOG_DEBUG, &err, "could not leave the offsets as a hint");
}

static void
tell_stops(struct skald_kafka_consumer *c)
{
	c->has_untold = false;
	for (unsigned i = 0; i < c->part_count; i++) {
		struct skald__part *p = &c->parts[i];

		if (!p->is_stopped || p->is_told)
			continue;
		p->is_told = true;
		c->conf.on_stopped(p->topic, p->partition, &p->why, c->conf.ctx);
	}
}

void
skald_kafka_consumer_serve(struct skald_kafka_consumer *c)
{
	rd_kafka_event_t *event;

	skald__eventfd_drain(c->fd);
	while ((event = rd_kafka_queue_poll(c->queue, 0))) {
		switch (rd_kafka_event_type(event)) {
		case RD_KAFKA_EVENT_REBALANCE:
			on_rebalance(c, event);
			break;
		case RD_KAFKA_EVENT_ERROR:
			on_error(c, event);
			break;
		case RD_KAFKA_EVENT_STATS:
			on_stats(c, event);
			break;
		case RD_KAFKA_EVENT_OFFSET_COMMIT:
			on_commit(event);
			break;
		default:
			break;
		}
		rd_kafka_event_destroy(event);
	}
	if (c->has_untold)
		tell_stops(c);
	skald__consumer_rearm(c);
}

bool
skald_kafka_consumer_is_connected(const struct skald_kafka_consumer *consumer)
{
	return consumer->is_connected;
}

/* --- close ---------------------------------------------------------------------------------------- */

/* The last group event, if librdkafka brings none: what was assigned is gone. */
static void
tell_lost(struct skald_kafka_consumer *c)
{
	rd_kafka_topic_partition_list_t *list;

	if (c->part_count == 0 || !c->conf.on_group)
		return; /* without a group nobody is told */
	list = rd_kafka_topic_partition_list_new((int)c->part_count);
	for (unsigned i = 0; i < c->part_count; i++)
		rd_kafka_topic_partition_list_add(
			list, c->parts[i].topic, c->parts[i].partition);
	free(tell(c, SKALD_GROUP_LOST, list));
	rd_kafka_topic_partition_list_destroy(list);
}

/* Leave the group, serving what comes, for at most CLOSE_MS. */
static void
leave(struct skald_kafka_consumer *c)
{
	rd_kafka_queue_t *last = rd_kafka_queue_new(c->rk);
	rd_kafka_error_t *error = rd_kafka_consumer_close_queue(c->rk, last);
	int64_t until_ms = skald_mono_ms() + CLOSE_MS;

	while (!error && !rd_kafka_consumer_closed(c->rk) && skald_mono_ms() < until_ms) {
		rd_kafka_event_t *event = rd_kafka_queue_poll(last, 50);

		if (event && rd_kafka_event_type(event) == RD_KAFKA_EVENT_REBALANCE)
			on_rebalance(c, event);
		rd_kafka_event_destroy(event);
	}
	rd_kafka_error_destroy(error);
	rd_kafka_queue_destroy(last);
}

void
skald_kafka_consumer_close(struct skald_kafka_consumer *c)
{
	if (!c)
		return;
	if (c->rk) {
		drop_queues(c); /* references to them block librdkafka's close */
		if (c->queue) {
			rd_kafka_queue_io_event_enable(c->queue, -1, NULL, 0);
			rd_kafka_queue_destroy(c->queue);
			leave(c);
		}
		tell_lost(c);
	}
	drop_parts(c);
	skald__kafka_destroy(c->rk, DESTROY_MS);
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}
