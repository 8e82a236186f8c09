/*
 * place.c - the databases of the configuration, and a session on one.
 */
#include "cli/own.h"

#include <pwd.h>
#include <string.h>
#include <unistd.h>

static void
add_place(struct skald__places *places, const char *name, const char *url)
{
	struct skald__place *place;

	if (places->count == SKALD__PLACES_MAX)
		return;
	place = &places->items[places->count++];
	(void)snprintf(place->name, sizeof(place->name), "%s", name);
	place->url = url ? url : ""; /* empty: PG* variables and libpq's defaults */
}

struct search {
	const struct skald_config *config;
	struct skald__places *places;
	const char *wanted; /* NULL: all */
};

static void
take_source(const char *name, const char *section, void *ctx)
{
	struct search *search = ctx;

	(void)section;
	if (!search->wanted || strcmp(search->wanted, name) == 0)
		add_place(search->places, name,
			skald_config_source_text(search->config, name, "url"));
}

enum skald__exit
skald__places_find(struct skald__cli *cli, bool is_all, struct skald__places *places)
{
	struct search search = { cli->config, places,
		skald__flag_value(cli, "--source") };

	places->count = 0;
	if (!search.wanted || strcmp(search.wanted, "main") == 0)
		add_place(places, "main",
			skald_config_text(cli->config, "database", "url"));
	if (search.wanted || is_all)
		skald_config_each_section(cli->config, "source.", take_source, &search);
	if (!places->count)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--source",
			"skald config show lists them",
			"--source: there is no [source.%s] in the configuration",
			search.wanted);
	return SKALD_EXIT_DONE;
}

enum skald_rc
skald__place_try(const struct skald__cli *cli, const struct skald__place *place,
	struct skald_sql **sql, struct skald_err *err)
{
	struct skald_sql_conf conf = {
		.url = place->url,
		.application = "skald",
		.kind = SKALD_SQL_TOOL,
		.connect_timeout_ms =
			skald_config_ms(cli->config, "database", "connect_timeout"),
	};

	return skald_sql_open(sql, &conf, err);
}

enum skald__exit
skald__place_open(const struct skald__cli *cli, const struct skald__place *place,
	struct skald_sql **sql)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc = skald__place_try(cli, place, sql, &err);

	return rc ? skald__fail_err(cli, rc, &err, NULL) : SKALD_EXIT_DONE;
}

enum skald__exit
skald__open(struct skald__cli *cli, struct skald_sql **sql)
{
	struct skald__places places;
	enum skald__exit status = skald__places_find(cli, false, &places);

	return status ? status : skald__place_open(cli, &places.items[0], sql);
}

enum skald__exit
skald__query(const struct skald__cli *cli, struct skald_sql *sql, const char *statement,
	const struct skald_param *params, unsigned count, struct skald_rows **rows)
{
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc;

	rc = skald_conn_query(skald_sql_conn(sql), statement, params, count, rows, &err);
	return rc ? skald__fail_err(cli, rc, &err, NULL) : SKALD_EXIT_DONE;
}

const char *
skald__actor(const struct skald__cli *cli)
{
	const char *given = skald__flag_value(cli, "--actor");
	const struct passwd *user;

	if (given && given[0])
		return given;
	user = getpwuid(geteuid());
	return user && user->pw_name ? user->pw_name : "unknown";
}
