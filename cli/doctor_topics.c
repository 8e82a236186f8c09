/*
 * doctor_topics.c - doctor: the topics that are written to, and what they are set to
 * against what is written: too small for the largest row, able to lose what they have
 * acknowledged, another number of partitions than the relay goes by.
 */
#include "cli/doctor_own.h"

#include <string.h>

#include "broker/broker.h"

#define FRAME_BYTES 512 /* of a batch of one record, with the headers the relay adds */
#define FIX_BYTES   512

struct topics { /* of one database */
	struct skald__doctor *doctor;
	struct skald_cluster *cluster;
	struct skald_sql *sql;
	unsigned there_count;
	unsigned fault_count;
	bool is_deaf; /* may not ask what topics are set to: said once */
};

int32_t
skald__doctor_topic(
	struct skald__doctor *doctor, struct skald_cluster *cluster, const char *topic)
{
	bool may_create = skald_config_bool(doctor->cli->config, "topics", "create");
	const char *brokers =
		skald_config_text(doctor->cli->config, "kafka", "bootstrap.servers");
	struct skald_err err = SKALD_ERR_INIT;
	char fix[FIX_BYTES];
	int32_t count = 0;

	(void)snprintf(fix, sizeof(fix),
		"kafka-topics.sh --bootstrap-server %.200s --create --topic %s "
		"--partitions "
		"%lld",
		brokers ? brokers : "localhost:9092", topic,
		(long long)skald_config_int(doctor->cli->config, "topics", "partitions"));
	if (skald_topic_partitions(cluster, topic, SKALD__DOCTOR_KAFKA_MS, &count, &err))
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "topics", NULL, "%s: %s",
			topic, err.text);
	else if (!count && may_create)
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "topics", NULL,
			"%s is missing: the relay creates it", topic);
	else if (!count)
		skald__doctor_say(doctor, SKALD_VERDICT_FAIL, "topics", fix,
			"%s is missing, and topics.create is false: its keys are parked",
			topic);
	return count;
}

/* The command that sets one of a topic's settings. */
static const char *
command(const struct topics *topics, const char *topic, const char *setting,
	char fix[FIX_BYTES])
{
	const char *brokers = skald_config_text(
		topics->doctor->cli->config, "kafka", "bootstrap.servers");

	(void)snprintf(fix, FIX_BYTES,
		"kafka-configs.sh --bootstrap-server %.200s --alter --entity-type topics "
		"--entity-name %s --add-config %s",
		brokers ? brokers : "localhost:9092", topic, setting);
	return fix;
}

static void
judge_size(struct topics *topics, const char *topic, const char *value, int64_t largest)
{
	char fix[FIX_BYTES];
	char setting[64];
	char have[24];
	char want[24];
	long long max = 0;

	if (!skald_slice_int64(skald_slice_text(value), &max) ||
		largest + FRAME_BYTES <= max)
		return;
	skald__size(max, have, sizeof(have));
	skald__size(largest, want, sizeof(want));
	(void)snprintf(setting, sizeof(setting), "max.message.bytes=%lld",
		(long long)(largest + largest / 4 + 65536));
	topics->fault_count++;
	skald__doctor_say(topics->doctor, SKALD_VERDICT_FAIL, "topics",
		command(topics, topic, setting, fix),
		"%s takes %s at most, the largest row for it has %s: its key is parked",
		topic, have, want);
}

static void
judge_safety(
	struct topics *topics, const char *topic, const char *insync, const char *unclean)
{
	struct skald_err err = SKALD_ERR_INIT;
	char fix[FIX_BYTES];
	int32_t copies = 0;

	if (strcmp(unclean, "true") == 0) {
		topics->fault_count++;
		skald__doctor_say(topics->doctor, SKALD_VERDICT_WARN, "topics",
			command(topics, topic, "unclean.leader.election.enable=false",
				fix),
			"%s may elect a leader that lacks what was acknowledged", topic);
	}
	/* with two copies, two in sync would stop everything when one broker is away */
	if (strcmp(insync, "1") == 0 &&
		!skald_topic_replicas(
			topics->cluster, topic, SKALD__DOCTOR_KAFKA_MS, &copies, &err) &&
		copies >= 3) {
		topics->fault_count++;
		skald__doctor_say(topics->doctor, SKALD_VERDICT_WARN, "topics",
			command(topics, topic, "min.insync.replicas=2", fix),
			"%s has %d copies, but acknowledges with one", topic,
			(int)copies);
	}
}

static void
check_settings(struct topics *topics, const char *topic, int64_t largest)
{
	struct skald_topic_setting settings[] = { { .name = "max.message.bytes" },
		{ .name = "min.insync.replicas" },
		{ .name = "unclean.leader.election.enable" } };
	struct skald_err err = SKALD_ERR_INIT;
	bool is_there = false;
	enum skald_rc rc;

	if (topics->is_deaf)
		return;
	rc = skald_topic_settings(topics->cluster, topic, SKALD__DOCTOR_KAFKA_MS,
		settings, 3, &is_there, &err);
	if (rc) {
		topics->is_deaf = true;
		skald__doctor_say(topics->doctor, SKALD_VERDICT_WARN, "topics",
			rc == SKALD_REJECT ? "allow this client DescribeConfigs on topics"
					   : NULL,
			"what topics are set to is not known: %s", err.text);
	} else if (is_there && settings[0].value[0]) { /* none: the dev broker */
		judge_size(topics, topic, settings[0].value, largest);
		judge_safety(topics, topic, settings[1].value, settings[2].value);
	}
}

/* The relay keeps to the count it first used until nothing is outstanding. */
static void
judge_partitions(struct topics *topics, const char *topic, int64_t used, int32_t count)
{
	if (!used || used == count)
		return;
	topics->fault_count++;
	skald__doctor_say(topics->doctor, SKALD_VERDICT_WARN, "partitions",
		"skald status --watch",
		used < count
			? "%s has %d partitions, the relay still goes by %lld: it takes "
			  "the others up once nothing is outstanding"
			: "%s has %d partitions, the relay went by %lld: it was made "
			  "anew with fewer",
		topic, (int)count, (long long)used);
}

/* clang-format off */
#define TOPICS_OF(bytes) \
	"SELECT topic, max(bytes)::text, max(partitions)::text FROM (" \
	"SELECT topic, " bytes " AS bytes, 0 AS partitions" \
	" FROM (SELECT * FROM skald.outbox ORDER BY id DESC LIMIT 10000) AS newest" \
	" WHERE topic <> '' UNION ALL SELECT topic, 0, partitions FROM skald.relay_topic" \
	") AS t GROUP BY topic ORDER BY topic LIMIT 200"
static const char topics_statement[] = TOPICS_OF(
	"coalesce(octet_length(data), 0) + coalesce(octet_length(key), 0)"
	" + coalesce(octet_length(headers::text), 0)");
/* a reader may not even ask how long the data is */
static const char topics_without_bytes[] =
	"SELECT topic, '0', max(partitions)::text FROM ("
	"SELECT topic, 0 AS partitions FROM (SELECT topic FROM skald.outbox ORDER BY id DESC"
	" LIMIT 10000) AS newest WHERE topic <> ''"
	" UNION ALL SELECT topic, partitions FROM skald.relay_topic"
	") AS t GROUP BY topic ORDER BY topic LIMIT 200";
/* clang-format on */

static enum skald_rc
read_topics(struct skald_sql *sql, struct skald_rows **rows, struct skald_err *err)
{
	enum skald_rc rc;

	rc = skald_conn_query(skald_sql_conn(sql), topics_statement, NULL, 0, rows, err);
	if (rc && strcmp(err->code, "42501") == 0)
		rc = skald_conn_query(
			skald_sql_conn(sql), topics_without_bytes, NULL, 0, rows, err);
	return rc;
}

void
skald__doctor_topics(struct skald__doctor *doctor, struct skald_cluster *cluster,
	struct skald_sql *sql)
{
	struct topics topics = { .doctor = doctor, .cluster = cluster, .sql = sql };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;

	if (read_topics(sql, &rows, &err)) {
		skald__doctor_say(doctor, SKALD_VERDICT_WARN, "topics", doctor->grant,
			"not looked at: %s", err.text);
		return;
	}
	for (unsigned r = 0; r < skald_rows_count(rows); r++) {
		const char *topic = skald_rows_get(rows, r, 0).data;
		int32_t count = skald__doctor_topic(doctor, cluster, topic);

		if (!count)
			continue;
		topics.there_count++;
		check_settings(&topics, topic, skald_rows_int(rows, r, 1, 0));
		judge_partitions(&topics, topic, skald_rows_int(rows, r, 2, 0), count);
	}
	if (topics.there_count || !skald_rows_count(rows))
		skald__doctor_say(doctor, SKALD_VERDICT_OK, "topics", NULL,
			"%u of the %u that the outbox writes to are there",
			topics.there_count, skald_rows_count(rows));
	skald_rows_free(rows);
}
