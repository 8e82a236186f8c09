/*
 * cmd_consumer.c - `skald consumer ls|lanes`.
 */
#include "cli/own.h"

#include <string.h>

const struct skald__flag skald__consumer_flags[] = {
	{ "--group", "GROUP", "of this consumer group" },
	{ "--topic", "TOPIC", "of this topic" },
	{ NULL, NULL, NULL },
};

/*
 * The lag of a partition is that of its slowest lane; of a topic, the sum.
 * stopped: NULL where this role may not look, a number else.
 */
#define BY_TOPIC(stopped, join) \
	"SELECT p.consumer_group, p.topic, count(*)::text, sum(p.lanes)::text," \
	" sum(p.lag)::text, count(DISTINCT p.owner)::text, " stopped \
	" FROM (SELECT c.consumer_group, c.topic, c.partition, count(c.lane) AS lanes," \
	" max(c.lag) AS lag, max(c.owner) AS owner FROM skald.consumers AS c" \
	" WHERE ($1 = '' OR c.consumer_group = $1) AND ($2 = '' OR c.topic = $2)" \
	" GROUP BY 1, 2, 3) AS p " join " GROUP BY 1, 2 ORDER BY 1, 2"

static const char by_topic[] =
	BY_TOPIC("count(s.stopped)::text, min(s.stopped),"
		 " string_agg(p.partition::text, ',' ORDER BY p.partition)"
		 " FILTER (WHERE s.stopped IS NOT NULL)",
		"LEFT JOIN skald.consumer_partition AS s"
		" USING (consumer_group, topic, partition)");
static const char by_topic_without_stopped[] =
	BY_TOPIC("NULL::text, NULL::text, NULL::text", "");

static const struct skald__column group_columns[] = {
	{ "consumer_group", "GROUP", SKALD_KIND_TEXT, 12 },
	{ "topic", "TOPIC", SKALD_KIND_TEXT, 12 },
	{ "partitions", "PARTITIONS", SKALD_KIND_NUMBER, 0 },
	{ "lanes", "LANES", SKALD_KIND_NUMBER, 0 },
	{ "lag", "LAG", SKALD_KIND_NUMBER, 0 },
	{ "owners", "OWNERS", SKALD_KIND_NUMBER, 0 },
	{ "stopped", "STOPPED", SKALD_KIND_NUMBER, 0 },
	{ "stopped_reason", NULL, SKALD_KIND_TEXT, 0 },
	{ "stopped_partitions", NULL, SKALD_KIND_TEXT, 0 },
};

static const struct skald__column lane_columns[] = {
	{ NULL, NULL, SKALD_KIND_TEXT, 0 }, /* how many there are */
	{ "consumer_group", "GROUP", SKALD_KIND_TEXT, 10 },
	{ "topic", "TOPIC", SKALD_KIND_TEXT, 10 },
	{ "partition", "PART", SKALD_KIND_NUMBER, 0 },
	{ "lane", "LANE", SKALD_KIND_NUMBER, 0 },
	{ "position", "POSITION", SKALD_KIND_POSITION, 12 },
	{ "lag", "LAG", SKALD_KIND_NUMBER, 0 },
	{ "term", "TERM", SKALD_KIND_NUMBER, 0 },
	{ "owner", "OWNER", SKALD_KIND_TEXT, 10 },
};

static void
fill_params(const struct skald__cli *cli, struct skald_param params[2])
{
	const char *group = skald__flag_value(cli, "--group");
	const char *topic = skald__flag_value(cli, "--topic");

	params[0] = skald_param_text(group ? group : "");
	params[1] = skald_param_text(topic ? topic : "");
}

enum skald_rc
skald__consumers_by_topic(struct skald_sql *sql, const struct skald_param *params,
	struct skald_rows **rows, struct skald_err *err)
{
	enum skald_rc rc;

	rc = skald_conn_query(skald_sql_conn(sql), by_topic, params, 2, rows, err);
	if (rc && strcmp(err->code, "42501") == 0)
		rc = skald_conn_query(skald_sql_conn(sql), by_topic_without_stopped,
			params, 2, rows, err);
	return rc;
}

enum skald__exit
skald__cmd_consumer_ls(struct skald__cli *cli)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	struct skald_param params[2];
	enum skald__exit status;
	enum skald_rc rc;

	status = skald__open(cli, &sql);
	if (status)
		return status;
	fill_params(cli, params);
	rc = skald__consumers_by_topic(sql, params, &rows, &err);
	if (rc) {
		status = skald__fail_err(cli, rc, &err, NULL);
		goto out;
	}
	if (!skald_rows_count(rows) && !cli->is_json)
		printf("no consumers\n");
	else
		skald__rows_print(cli, group_columns,
			sizeof(group_columns) / sizeof(group_columns[0]), rows, 0);
	for (unsigned r = 0; r < skald_rows_count(rows) && !cli->is_json; r++)
		if (skald_rows_int(rows, r, 6, 0) > 0) {
			printf("%sstopped%s: %s partition %s: %s\n",
				skald__paint(cli, SKALD_PAINT_BAD), skald__unpaint(cli),
				skald_rows_get(rows, r, 1).data,
				skald_rows_get(rows, r, 8).data,
				skald_rows_get(rows, r, 7).data);
		}
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}

enum skald__exit
skald__cmd_consumer_lanes(struct skald__cli *cli)
{
	struct skald_rows *rows = NULL;
	struct skald_sql *sql = NULL;
	struct skald_param params[3];
	enum skald__exit status;
	int64_t limit = 50;
	char number[24];
	unsigned count;

	status = skald__flag_int(cli, "--limit", 0, INT32_MAX, &limit);
	if (!status)
		status = skald__open(cli, &sql);
	if (status)
		return status;
	fill_params(cli, params);
	params[2] = skald_param_int(limit, number);
	status = skald__query(cli, sql,
		"SELECT count(*) OVER ()::text, consumer_group, topic, partition::text,"
		" lane::text, position, lag::text, term::text, owner"
		" FROM skald.consumers WHERE ($1 = '' OR consumer_group = $1)"
		" AND ($2 = '' OR topic = $2)"
		" ORDER BY consumer_group, topic, consumers.partition, consumers.lane"
		" LIMIT nullif($3::bigint, 0)",
		params, 3, &rows);
	if (status)
		goto out;
	count = skald_rows_count(rows);
	if (count || cli->is_json)
		skald__rows_print(cli, lane_columns,
			sizeof(lane_columns) / sizeof(lane_columns[0]), rows, 0);
	skald__rows_count_print(
		cli, "lanes", count, count ? skald_rows_int(rows, 0, 0, 0) : 0);
out:
	skald_rows_free(rows);
	skald_sql_close(sql);
	return status;
}
