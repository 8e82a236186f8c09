/*
 * cmd_adopt.c - `skald db adopt`: a database that was copied, restored or moved to
 * another Kafka becomes an installation of its own (sql/functions/adopt.sql).
 */
#include "cli/own.h"

#include <string.h>

#include "base/json.h"
#include "broker/broker.h"

#define KAFKA_MS        10000
#define ARGS_BYTES_MAX  4096
#define NAME_BYTES_MAX  256
#define TOPIC_BYTES_MAX (NAME_BYTES_MAX + 16)

struct identity { /* what the configuration says that this installation is */
	char installation[NAME_BYTES_MAX];
	char reply_topic[TOPIC_BYTES_MAX];
	char cluster[SKALD_CLUSTER_ID_BYTES]; /* "": a dev broker's, not recorded */
};

static enum skald__exit
ask_cluster(struct skald__cli *cli, struct identity *who)
{
	struct skald_kafka_props *props = NULL;
	struct skald_cluster *cluster = NULL;
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;

	rc = skald_kafka_props_create(&props, cli->config, &err);
	if (!rc)
		rc = skald_cluster_open(&cluster, props, &err);
	if (!rc)
		rc = skald_cluster_id(cluster, KAFKA_MS, who->cluster, &err);
	if (!rc && skald_cluster_is_dev(who->cluster))
		who->cluster[0] = '\0';
	skald_cluster_close(cluster);
	skald_kafka_props_destroy(props);
	return rc ? skald__fail_err(cli, rc, &err,
			    "--brokers HOST:PORT, or kafka.bootstrap.servers: the "
			    "cluster's id is recorded")
		  : SKALD_EXIT_DONE;
}

/* As the daemon names itself (saga/orchestrator.c). */
static enum skald__exit
find_names(struct skald__cli *cli, struct skald_sql *sql, struct identity *who)
{
	const char *name = skald_config_text(cli->config, "daemon", "installation");
	const char *topic = skald_config_text(cli->config, "saga", "reply_topic");
	struct skald_rows *rows = NULL;
	enum skald__exit status;

	status = skald__query(cli, sql, "SELECT current_database()", NULL, 0, &rows);
	if (status)
		return status;
	(void)snprintf(who->installation, sizeof(who->installation), "%s",
		name && name[0] ? name : skald_rows_get(rows, 0, 0).data);
	skald_rows_free(rows);
	if (topic && topic[0])
		(void)snprintf(who->reply_topic, sizeof(who->reply_topic), "%s", topic);
	else
		(void)snprintf(who->reply_topic, sizeof(who->reply_topic),
			"skald.replies.%s", who->installation);
	return SKALD_EXIT_DONE;
}

/* clang-format off */
static const char statement[] =
	"SELECT a ->> 'ok', a::text, a #>> '{before,installation}', a #>> '{before,stream}',"
	" a #>> '{after,stream}', a #>> '{after,outstanding}', a #>> '{after,restored}'"
	" FROM skald.operator_act(action => 'db.adopt', target => $1, actor => $2,"
	" reason => $3, args => $4::jsonb) AS a";
/* clang-format on */

static enum skald__exit
act(struct skald__cli *cli, struct skald_sql *sql, const struct identity *who,
	struct skald_rows **rows)
{
	struct skald_param params[4];
	struct skald_buf args;
	enum skald__exit status;

	skald_buf_init(&args, ARGS_BYTES_MAX);
	skald_buf_add_text(&args, "{");
	skald__json_add(&args, "cluster",
		who->cluster[0] ? skald_slice_text(who->cluster) : SKALD_SLICE_NULL);
	skald_json_add_member(&args, "reply_topic", skald_slice_text(who->reply_topic));
	skald_buf_add_text(&args, "}");
	params[0] = skald_param_text(who->installation);
	params[1] = skald_param_text(skald__actor(cli));
	params[2] = skald_param_text(skald__flag_value(cli, "--reason"));
	params[3] = skald_param_text(args.data);
	status = skald__query(cli, sql, statement, params, 4, rows);
	skald_buf_done(&args);
	return status;
}

static void
say(const struct skald__cli *cli, const struct identity *who,
	const struct skald_rows *rows)
{
	struct skald_slice before = skald_rows_get(rows, 0, 2);

	if (cli->is_json) {
		printf("%s\n", skald_rows_get(rows, 0, 1).data);
		return;
	}
	printf("%sok%s  adopted\n", skald__paint(cli, SKALD_PAINT_GOOD),
		skald__unpaint(cli));
	if (before.data)
		printf("    installation  %s -> %s\n", before.data, who->installation);
	else
		printf("    installation  none yet: the first orchestrator records "
		       "itself\n");
	printf("    Kafka         %s\n",
		who->cluster[0] ? who->cluster : "a dev broker: not recorded");
	printf("    stream        %s -> %s\n", skald_rows_get(rows, 0, 3).data,
		skald_rows_get(rows, 0, 4).data);
	printf("    outstanding   %s messages, to be published%s\n",
		skald_rows_get(rows, 0, 5).data,
		skald_rows_bool(rows, 0, 6) ? "; restored from another cluster" : "");
}

enum skald__exit
skald__cmd_db_adopt(struct skald__cli *cli)
{
	const char *reason = skald__flag_value(cli, "--reason");
	struct identity who = { .cluster = "" };
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	enum skald__exit status;

	if (!reason || !reason[0])
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", "--reason", NULL,
			"db adopt: needs --reason TEXT, for the audit");
	status = skald__open(cli, &sql);
	if (!status)
		status = find_names(cli, sql, &who);
	if (!status)
		status = ask_cluster(cli, &who);
	if (!status)
		status = act(cli, sql, &who, &rows);
	if (!status)
		say(cli, &who, rows);
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}
