/*
 * cmd_config.c - `skald config sample|show`, `skald version`.
 */
#include "cli/own.h"

#include "base/json.h"
#include "broker/broker.h"

enum skald__exit
skald__cmd_config_sample(struct skald__cli *cli)
{
	(void)cli;
	skald_config_sample(stdout);
	return SKALD_EXIT_DONE;
}

enum skald__exit
skald__cmd_config_show(struct skald__cli *cli)
{
	skald_config_print(cli->config, stdout);
	return SKALD_EXIT_DONE;
}

/* What the database has; false when it cannot be asked, then why. */
static bool
ask_schema(struct skald__cli *cli, int *have, int *want, struct skald_err *err)
{
	struct skald__places places;
	struct skald_sql *sql = NULL;
	enum skald_rc rc;

	*have = *want = 0;
	if (skald__places_find(cli, false, &places))
		return false;
	rc = skald__place_try(cli, &places.items[0], &sql, err);
	if (!rc)
		rc = skald_migrate_version(sql, have, want, err);
	skald_sql_close(sql);
	return rc == SKALD_OK;
}

/* The version is asked for when something is wrong, so it answers without a database too. */
enum skald__exit
skald__cmd_version(struct skald__cli *cli)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_buf out;
	int have;
	int want;
	bool is_known = ask_schema(cli, &have, &want, &err);

	skald_buf_init(&out, 65536);
	if (cli->is_json) {
		skald_buf_add_text(&out, "{");
		skald_json_add_member(&out, "skald", skald_slice_text(SKALD_VERSION));
		skald_json_add_member(
			&out, "libpq", skald_slice_text(SKALD_LIBPQ_VERSION));
		skald_json_add_member(
			&out, "librdkafka", skald_slice_text(skald_kafka_version()));
		skald_json_add_name(&out, "schema");
		if (is_known)
			skald_buf_addf(&out, "%d", have);
		else
			skald_buf_add_text(&out, "null");
		skald_buf_add_text(&out, "}\n");
	} else {
		skald_buf_addf(&out, "skald       %s\n", SKALD_VERSION);
		skald_buf_addf(&out, "libpq       %s\n", SKALD_LIBPQ_VERSION);
		skald_buf_addf(&out, "librdkafka  %s\n", skald_kafka_version());
		if (!is_known)
			skald_buf_add_text(&out, "schema      unknown: no database\n");
		else if (have == 0)
			skald_buf_add_text(&out, "schema      none: skald db migrate\n");
		else
			skald_buf_addf(&out, "schema      %d%s\n", have,
				have < want ? " (older than this program)" : "");
	}
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
	return SKALD_EXIT_DONE;
}
