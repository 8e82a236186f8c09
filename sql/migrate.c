/*
 * migrate.c - install and upgrade the schema.
 *
 * Tables come in numbered files, each run once. Functions, views and rights
 * are re-applied when the text of their file changed, the publication is looked
 * after every time. All of it is one
 * transaction under an exclusive lock on skald.schema_version, so a second
 * migration waits and then finds nothing to do. What comes before that lock
 * can collide with a second migration, of this database (the schema) or of
 * another in the cluster (the roles): then the attempt is rolled back and
 * repeated.
 */
#include "sql/own.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define ATTEMPTS_MAX     40
#define ATTEMPT_PAUSE_MS 25
#define SCRIPT_BYTES_MAX (4 * 1024 * 1024)

/* Roles are the cluster's, not the database's: two databases may create them at once. */
static const char create_roles[] =
	"DO $$ DECLARE r text; BEGIN\n"
	"  FOREACH r IN ARRAY ARRAY['skald_owner', 'skald_app', 'skald_operator',"
	" 'skald_daemon', 'skald_reader'] LOOP\n"
	"    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = r) THEN\n"
	"      BEGIN EXECUTE format('CREATE ROLE %I NOLOGIN', r);\n"
	"      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;\n"
	"    END IF;\n"
	"  END LOOP;\n"
	"  IF NOT pg_catalog.pg_has_role('skald_owner', 'MEMBER') THEN\n"
	"    EXECUTE format('GRANT skald_owner TO %I', current_user);\n"
	"  END IF;\n"
	"END $$";

static const char roles_sql[] =
	"-- as a superuser, or a role with CREATEROLE that owns the schema:\n"
	"CREATE ROLE skald_app NOLOGIN;\n"
	"CREATE ROLE skald_operator NOLOGIN;\n"
	"CREATE ROLE skald_daemon NOLOGIN;\n"
	"CREATE ROLE skald_reader NOLOGIN;\n"
	"-- then, in each database, as the owner of schema skald:\n"
	"SELECT skald.apply_rights();\n";

const char *
skald_migrate_roles_sql(void)
{
	return roles_sql;
}

static int
version_wanted(void)
{
	int version = 0;

	while (skald__migrations[version].name)
		version++;
	return version;
}

/* --- small queries --------------------------------------------------------------------------- */

static enum skald_rc
ask_int(struct skald_sql *sql, const char *statement, int64_t *value,
	struct skald_err *err)
{
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald_sql_query(sql, statement, NULL, 0, false, &rows, err);
	if (rc)
		return rc;
	*value = skald_rows_count(rows) ? skald_rows_int(rows, 0, 0, 0) : 0;
	skald_rows_free(rows);
	return SKALD_OK;
}

static enum skald_rc
run_file(struct skald_sql *sql, const struct skald__sql_file *file, struct skald_err *err)
{
	struct skald_buf script;
	enum skald_rc rc;

	skald_buf_init(&script, SCRIPT_BYTES_MAX);
	for (const char *const *line = file->lines; *line; line++)
		skald_buf_add_text(&script, *line);
	if (script.failed)
		rc = skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	else
		rc = skald_sql_exec(sql, script.data, err);
	if (rc)
		rc = skald_fail_in(err, rc, "%s", file->name);
	skald_buf_done(&script);
	return rc;
}

/* --- one attempt ----------------------------------------------------------------------------- */

/*
 * Whose the objects are: of the schema's owner where it exists, else of
 * skald_owner, or without roles of whoever migrates.
 */
static enum skald_rc
become_owner(struct skald_sql *sql, bool no_roles, struct skald_err *err)
{
	enum skald_rc rc;

	rc = skald_sql_exec(sql,
		no_roles ? "CREATE SCHEMA IF NOT EXISTS skald"
			 : "CREATE SCHEMA IF NOT EXISTS skald AUTHORIZATION skald_owner",
		err);
	if (rc)
		return rc;
	rc = skald_sql_exec(sql,
		"DO $$ DECLARE o text; BEGIN"
		"  SELECT pg_catalog.pg_get_userbyid(nspowner) INTO o"
		"    FROM pg_catalog.pg_namespace WHERE nspname = 'skald';"
		"  IF o <> current_user THEN EXECUTE format('SET LOCAL ROLE %I', o); END "
		"IF;"
		"END $$",
		err);
	if (rc)
		return skald_fail_in(err, rc, "schema skald: must be yours to migrate");
	return SKALD_OK;
}

/* The lock that lets one migration of this database in at a time. */
static enum skald_rc
enter(struct skald_sql *sql, bool no_roles, struct skald_err *err)
{
	enum skald_rc rc;

	rc = skald_sql_exec(sql,
		"BEGIN; SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = "
		"'30min';"
		"SET LOCAL idle_in_transaction_session_timeout = '1min';"
		"SET LOCAL client_min_messages = warning",
		err);
	if (rc)
		return rc;
	rc = become_owner(sql, no_roles, err);
	if (rc)
		return rc;
	return skald_sql_exec(sql,
		"CREATE TABLE IF NOT EXISTS skald.schema_version ("
		"  version int PRIMARY KEY,"
		"  at timestamptz NOT NULL DEFAULT clock_timestamp(),"
		"  by text NOT NULL DEFAULT session_user);"
		"CREATE TABLE IF NOT EXISTS skald.function_file ("
		"  name text PRIMARY KEY,"
		"  hash text NOT NULL);"
		"LOCK TABLE skald.schema_version IN ACCESS EXCLUSIVE MODE",
		err);
}

static enum skald_rc
apply_migrations(
	struct skald_sql *sql, struct skald_migrate_report *report, struct skald_err *err)
{
	struct skald_param param;
	char number[24];
	int64_t have = 0;
	enum skald_rc rc;
	int want = version_wanted();

	rc = ask_int(sql, "SELECT coalesce(max(version), 0) FROM skald.schema_version",
		&have, err);
	if (rc)
		return rc;
	report->version_before = report->version_after = (int)have;
	for (int v = (int)have + 1; v <= want; v++) {
		rc = run_file(sql, &skald__migrations[v - 1], err);
		if (rc)
			return rc;
		param = skald_param_int(v, number);
		rc = skald_sql_query(sql,
			"INSERT INTO skald.schema_version (version) VALUES ($1)", &param,
			1, false, NULL, err);
		if (rc)
			return rc;
		report->version_after = v;
	}
	return SKALD_OK;
}

/* Functions of a newer schema are not ours to put back. */
static enum skald_rc
apply_functions(
	struct skald_sql *sql, struct skald_migrate_report *report, struct skald_err *err)
{
	enum skald_rc rc;

	if (report->version_after > version_wanted())
		return SKALD_OK;
	for (const struct skald__sql_file *file = skald__functions; file->name; file++) {
		struct skald_param params[2] = { skald_param_text(file->name),
			skald_param_text(file->hash) };
		bool is_rights = strcmp(file->name, "rights.sql") == 0;
		struct skald_rows *rows = NULL;
		bool is_new;

		rc = skald_sql_query(sql,
			"INSERT INTO skald.function_file AS f (name, hash) VALUES ($1, "
			"$2) "
			"ON CONFLICT (name) DO UPDATE SET hash = excluded.hash "
			"WHERE f.hash <> excluded.hash",
			params, 2, false, &rows, err);
		if (rc)
			return rc;
		is_new = skald_rows_affected(rows) > 0;
		skald_rows_free(rows);
		/* a new function is everybody's until the rights are applied again */
		if (!is_new && !(is_rights && report->functions_replaced > 0))
			continue;
		rc = run_file(sql, file, err);
		if (rc)
			return rc;
		report->functions_replaced++;
	}
	return SKALD_OK;
}

/*
 * The schema's owner seldom has CREATE on the database; whoever connected may. Back to
 * the session's own role, of which the schema's is one.
 */
static enum skald_rc
apply_publication(struct skald_sql *sql, const struct skald_migrate_report *report,
	struct skald_err *err)
{
	enum skald_rc rc;

	if (report->version_after > version_wanted())
		return SKALD_OK;
	rc = skald_sql_exec(sql, "SET LOCAL ROLE NONE", err);
	if (rc)
		return rc;
	return run_file(sql, &skald__publication[0], err);
}

static enum skald_rc
attempt(struct skald_sql *sql, bool no_roles, struct skald_migrate_report *report,
	struct skald_err *err)
{
	int64_t missing = 0;
	enum skald_rc rc;

	*report = (struct skald_migrate_report){ 0 };
	if (!no_roles) {
		rc = skald_sql_exec(sql, create_roles, err);
		if (rc == SKALD_FATAL)
			return skald_fail_in(
				err, rc, "could not create the roles (try --no-roles)");
		if (rc)
			return rc;
	}
	rc = enter(sql, no_roles, err);
	if (rc)
		return rc;
	rc = apply_migrations(sql, report, err);
	if (rc)
		return rc;
	rc = apply_functions(sql, report, err);
	if (rc)
		return rc;
	if (no_roles && report->functions_replaced == 0 && report->version_before > 0) {
		/* roles may have been made since */
		rc = skald_sql_exec(sql, "SELECT skald.apply_rights()", err);
		if (rc)
			return rc;
	}
	rc = ask_int(sql,
		"SELECT 4 - count(*) FROM pg_catalog.pg_roles WHERE rolname IN"
		" ('skald_app', 'skald_operator', 'skald_daemon', 'skald_reader')",
		&missing, err);
	if (rc)
		return rc;
	report->roles_missing = missing > 0;
	rc = apply_publication(sql, report, err);
	if (rc)
		return rc;
	return skald_sql_exec(sql, "COMMIT", err);
}

/* Another migration was faster: it made the same schema, table or role, or changed its row. */
static bool
has_collided(const struct skald_err *err)
{
	static const char *const states[] = { "23505", "42710", "42P06", "42P07", "40001",
		"40P01", "55P03", "XX000", "55006" };

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		if (strcmp(err->code, states[i]) == 0)
			return true;
	return false;
}

enum skald_rc
skald_migrate(struct skald_sql *sql, bool no_roles, struct skald_migrate_report *report,
	struct skald_err *err)
{
	struct skald_migrate_report done = { 0 };
	struct skald_err local = SKALD_ERR_INIT;
	enum skald_rc rc = SKALD_OK;

	for (int n = 0; n < ATTEMPTS_MAX; n++) {
		rc = attempt(sql, no_roles, &done, &local);
		if (!rc)
			break;
		skald_sql_rollback(sql);
		if (!has_collided(&local))
			break;
		(void)poll(NULL, 0, ATTEMPT_PAUSE_MS);
	}
	if (rc && err)
		*err = local;
	if (!rc && report)
		*report = done;
	return rc;
}

/* --- which version ---------------------------------------------------------------------------- */

enum skald_rc
skald_migrate_version(struct skald_sql *sql, int *have, int *want, struct skald_err *err)
{
	int64_t exists = 0, version = 0;
	enum skald_rc rc;

	rc = ask_int(sql,
		"SELECT (pg_catalog.to_regclass('skald.schema_version') IS NOT "
		"NULL)::int",
		&exists, err);
	if (rc)
		return rc;
	if (exists) {
		rc = ask_int(sql,
			"SELECT coalesce(max(version), 0) FROM skald.schema_version",
			&version, err);
		if (rc)
			return rc;
	}
	*have = (int)version;
	*want = version_wanted();
	return SKALD_OK;
}

enum skald_rc
skald_migrate_check(struct skald_sql *sql, struct skald_err *err)
{
	int have = 0, want = 0;
	enum skald_rc rc;

	rc = skald_migrate_version(sql, &have, &want, err);
	if (rc)
		return rc;
	if (have == 0)
		return skald_fail(err, SKALD_FATAL, "skald", "3F000",
			"schema skald: missing in this database; run skald db migrate");
	if (have < want)
		return skald_fail(err, SKALD_FATAL, "skald", "3F000",
			"schema skald: version %d, but this program needs %d; run skald "
			"db migrate",
			have, want);
	return SKALD_OK;
}
