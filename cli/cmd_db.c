/*
 * cmd_db.c - `skald db migrate|status|grants`.
 */
#include "cli/own.h"

#include <string.h>

#include "base/json.h"

const struct skald__flag skald__migrate_flags[] = {
	{ "--no-roles", NULL,
		"do not create roles; prints the statements for someone who may" },
	{ NULL, NULL, NULL },
};
const struct skald__flag skald__grants_flags[] = {
	{ "--as", "WHAT",
		"app (writes and consumes messages; the default), operator, daemon or "
		"reader" },
	{ NULL, NULL, NULL },
};

/* Several places, several ends: one bad of some is "in part". */
static enum skald__exit
sum_up(enum skald__exit worst, unsigned good_count)
{
	if (!worst)
		return SKALD_EXIT_DONE;
	return good_count ? SKALD_EXIT_PART : worst;
}

/* --- migrate -------------------------------------------------------------------------------- */

static void
report_json(const struct skald__place *place, const struct skald_migrate_report *report)
{
	struct skald_buf out;

	skald_buf_init(&out, 65536);
	skald_buf_add_text(&out, "{");
	skald_json_add_member(&out, "source", skald_slice_text(place->name));
	skald_json_add_member_int(&out, "version_before", report->version_before);
	skald_json_add_member_int(&out, "version_after", report->version_after);
	skald_json_add_member_int(&out, "functions_replaced", report->functions_replaced);
	skald__json_add_raw(&out, "roles_missing",
		skald_slice_text(report->roles_missing ? "true" : "false"));
	skald_buf_add_text(&out, "}\n");
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
}

static void
report_text(const struct skald__cli *cli, const struct skald__place *place,
	const struct skald_migrate_report *report)
{
	printf("%sok%s  %-16s ", skald__paint(cli, SKALD_PAINT_GOOD), skald__unpaint(cli),
		place->name);
	if (report->version_before == 0)
		printf("schema %d installed\n", report->version_after);
	else if (report->version_before != report->version_after)
		printf("schema %d -> %d\n", report->version_before,
			report->version_after);
	else if (report->functions_replaced)
		printf("schema %d, functions renewed\n", report->version_after);
	else
		printf("schema %d, nothing to do\n", report->version_after);
	if (report->roles_missing)
		printf("\nRoles are missing. Someone who may create them runs:\n\n%s\n",
			skald_migrate_roles_sql());
}

static enum skald__exit
migrate_place(struct skald__cli *cli, const struct skald__place *place)
{
	struct skald_migrate_report report = { .version_before = 0 };
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_sql *sql = NULL;
	enum skald_rc rc;

	rc = skald__place_try(cli, place, &sql, &err);
	if (!rc)
		rc = skald_migrate(
			sql, skald__flag_is_given(cli, "--no-roles"), &report, &err);
	skald_sql_close(sql);
	if (rc) {
		skald_fail_in(&err, rc, "source %s", place->name);
		return skald__fail_err(cli, rc, &err,
			strstr(err.text, "--no-roles") ? "skald db migrate --no-roles"
						       : NULL);
	}
	if (cli->is_json)
		report_json(place, &report);
	else
		report_text(cli, place, &report);
	return SKALD_EXIT_DONE;
}

enum skald__exit
skald__cmd_db_migrate(struct skald__cli *cli)
{
	struct skald__places places;
	enum skald__exit status = skald__places_find(cli, true, &places);
	enum skald__exit worst = SKALD_EXIT_DONE;
	unsigned good_count = 0;

	if (status)
		return status;
	for (unsigned i = 0; i < places.count; i++) {
		status = migrate_place(cli, &places.items[i]);
		if (status)
			worst = status;
		else
			good_count++;
	}
	return sum_up(worst, good_count);
}

/* --- status ---------------------------------------------------------------------------------- */

static void
say_status(const struct skald__cli *cli, const struct skald__place *place, int have,
	int want, const char *trouble)
{
	const char *state = trouble       ? "unreachable"
			    : have == 0   ? "missing"
			    : have < want ? "outdated"
			    : have > want ? "newer"
					  : "current";
	enum skald__paint paint = trouble || have == 0 ? SKALD_PAINT_BAD
				  : have < want        ? SKALD_PAINT_WARN
						       : SKALD_PAINT_GOOD;
	struct skald_buf out;

	skald_buf_init(&out, 65536);
	if (!cli->is_json) {
		skald_buf_addf(&out, "%-16s %s%-11s%s ", place->name,
			skald__paint(cli, paint), state, skald__unpaint(cli));
		if (trouble)
			skald__add_cut(&out, skald_slice_text(trouble), cli->width - 29);
		else if (have)
			skald_buf_addf(&out, "schema %d", have);
		if (!trouble && have < want)
			skald_buf_addf(&out, "%sthis program has %d: skald db migrate",
				have ? ", " : "", want);
		skald_buf_add_text(&out, "\n");
	} else {
		skald_buf_add_text(&out, "{");
		skald_json_add_member(&out, "source", skald_slice_text(place->name));
		skald_json_add_member(&out, "state", skald_slice_text(state));
		skald_buf_addf(
			&out, trouble ? ",\"version\":null" : ",\"version\":%d", have);
		if (trouble)
			skald_buf_add_text(&out, ",\"wanted\":null");
		else
			skald_json_add_member_int(&out, "wanted", want);
		skald__json_add(&out, "error", skald_slice_text(trouble));
		skald_buf_add_text(&out, "}\n");
	}
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
}

static enum skald__exit
status_place(struct skald__cli *cli, const struct skald__place *place)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_sql *sql = NULL;
	enum skald_rc rc;
	int have = 0;
	int want = 0;

	rc = skald__place_try(cli, place, &sql, &err);
	if (!rc)
		rc = skald_migrate_version(sql, &have, &want, &err);
	skald_sql_close(sql);
	say_status(cli, place, have, want, rc ? err.text : NULL);
	if (rc)
		return skald__status_of(rc, &err);
	return have < want ? SKALD_EXIT_NO : SKALD_EXIT_DONE;
}

enum skald__exit
skald__cmd_db_status(struct skald__cli *cli)
{
	struct skald__places places;
	enum skald__exit status = skald__places_find(cli, true, &places);
	enum skald__exit worst = SKALD_EXIT_DONE;
	unsigned reached_count = 0;

	if (status)
		return status;
	for (unsigned i = 0; i < places.count; i++) {
		status = status_place(cli, &places.items[i]);
		if (status == SKALD_EXIT_DONE || status == SKALD_EXIT_NO)
			reached_count++;
		if (status > worst)
			worst = status;
	}
	return worst > SKALD_EXIT_NO ? sum_up(worst, reached_count) : worst;
}

/* --- grants ------------------------------------------------------------------------------------ */

struct right {
	const char *name;
	const char *role;
	const char *what;
};

static const struct right rights[] = {
	{ "app", "skald_app",
		"outbox_add, saga_start, participate, reply, consume_once, "
		"consume_offset, dead_letter" },
	{ "operator", "skald_operator", "every view with payload, and operator_act" },
	{ "daemon", "skald_daemon", "what skaldd does" },
	{ "reader", "skald_reader", "every view, without payload" },
};
#define RIGHT_COUNT (sizeof(rights) / sizeof(rights[0]))

static const struct right *
find_right(const char *name)
{
	for (size_t i = 0; i < RIGHT_COUNT; i++)
		if (strcmp(rights[i].name, name) == 0)
			return &rights[i];
	return NULL;
}

/* A name in double quotes, as SQL has it. */
static void
add_quoted(struct skald_buf *out, const char *name)
{
	skald_buf_add_text(out, "\"");
	for (; *name; name++)
		skald_buf_add_text(out, *name == '"' ? "\"\"" : (char[]){ *name, '\0' });
	skald_buf_add_text(out, "\"");
}

enum skald__exit
skald__cmd_db_grants(struct skald__cli *cli)
{
	const char *wanted = skald__flag_value(cli, "--as");
	const char *role = cli->arg_count ? cli->args[0] : "my_service";
	const struct right *right = find_right(wanted ? wanted : "app");
	struct skald_buf grant;
	struct skald_buf out;

	if (!right)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "--as", NULL,
			"--as: '%s' is none of app, operator, daemon, reader", wanted);
	if (!role[0] || strlen(role) > 63)
		return skald__fail(cli, SKALD_EXIT_USAGE, "invalid", "ROLE", NULL,
			"ROLE: a name has 1 to 63 bytes");
	skald_buf_init(&grant, 4096);
	skald_buf_init(&out, 65536);
	skald_buf_addf(&grant, "GRANT %s TO ", right->role);
	add_quoted(&grant, role);
	skald_buf_add_text(&grant, ";");
	if (cli->is_json) {
		skald_buf_add_text(&out, "{");
		skald_json_add_member(&out, "statement", skald_buf_slice(&grant));
		skald_json_add_member(&out, "allows", skald_slice_text(right->what));
		skald_buf_add_text(&out, "}\n");
	} else {
		skald_buf_addf(&out, "-- %s\n%s\n", right->what, grant.data);
		skald_buf_add_text(&out,
			"-- A member has these rights in every database of the cluster "
			"it can connect\n"
			"-- to. Where it has no business: REVOKE CONNECT ON DATABASE "
			"... FROM PUBLIC;\n");
	}
	skald__put(skald_buf_slice(&out));
	skald_buf_done(&out);
	skald_buf_done(&grant);
	return SKALD_EXIT_DONE;
}
