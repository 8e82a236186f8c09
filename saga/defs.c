/*
 * defs.c - definitions in use: read once from the database, kept for good, because a
 * deployed version never changes; and a directory of them deployed at start.
 */
#include "saga/own.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"

#define DEPLOY_MAX 1000

const struct skald_saga_def *
skald__saga_def_find(
	struct skald_orchestrator *o, struct skald_slice name, int version, bool *known)
{
	for (unsigned i = 0; i < o->def_count; i++)
		if (o->defs[i].version == version &&
			skald_slice_is_text(name, o->defs[i].name)) {
			*known = true;
			return o->defs[i].def;
		}
	*known = false;
	return NULL;
}

enum skald_rc
skald__saga_def_load(struct skald_orchestrator *o, struct skald_slice name, int version,
	struct skald_err *err)
{
	char number[24];
	struct skald_param params[] = { { name, false, 0 },
		skald_param_int(version, number) };
	struct saga__def *grown, *made;
	struct skald_rows *rows = NULL;
	struct skald_err why = SKALD_ERR_INIT;
	struct skald_slice body = SKALD_SLICE_NULL;
	enum skald_rc rc;

	grown = realloc(o->defs, (o->def_count + 1) * sizeof(*grown));
	if (!grown)
		return skald_fail(err, SKALD_RETRY, "skald", "53200", "out of memory");
	o->defs = grown;
	rc = skald_sql_query(o->sql, "SELECT skald.orchestrator_definition($1, $2::int)",
		params, 2, false, &rows, err);
	if (rc)
		return rc;
	made = &o->defs[o->def_count];
	*made = (struct saga__def){ .version = version };
	(void)skald_slice_copy(name, made->name, sizeof(made->name));
	if (skald_rows_count(rows))
		body = skald_rows_get(rows, 0, 0);
	rc = skald_saga_def_create(&made->def, body, NULL, NULL, &why);
	skald_rows_free(rows);
	if (rc == SKALD_RETRY) {
		*err = why;
		return rc;
	}
	if (rc)
		skald_log_err(SKALD_LOG_ERROR, &why,
			"a definition is not usable: its sagas wait name=%s version=%d",
			made->name, version);
	o->def_count++;
	return SKALD_OK;
}

/* --- deploying a directory ------------------------------------------------------------------- */

static enum skald_rc
read_file(const char *path, struct skald_buf *text, struct skald_err *err)
{
	FILE *file = fopen(path, "re");
	char chunk[8192];
	size_t n;

	if (!file)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"saga.definitions: could not open %s", path);
	skald_buf_clear(text);
	while ((n = fread(chunk, 1, sizeof(chunk), file)) > 0)
		skald_buf_add(text, chunk, n);
	fclose(file);
	return SKALD_OK; /* too long a text is the validator's to refuse */
}

static const char *const kinds[] = { "compensatable", "pivot", "retriable" };

static void
add_args(const struct skald_saga_def *def, struct skald_buf *out)
{
	const struct saga_plan *plan = skald__saga_def_plan(def);

	skald_buf_add_text(out, "{");
	skald_json_add_member_int(out, "version", skald_saga_def_version(def));
	skald_json_add_member(out, "hash", skald_slice_text(skald_saga_def_hash(def)));
	skald_json_add_member(out, "body", skald_saga_def_text(def));
	skald_json_add_name(out, "steps");
	for (unsigned i = 0; i < plan->step_count; i++) {
		skald_buf_add_text(out, i ? "," : "[");
		skald_json_add_string(
			out, skald_slice_text(skald_saga_def_step_name(def, i)));
	}
	skald_buf_add_text(out, "]");
	skald_json_add_name(out, "kinds");
	for (unsigned i = 0; i < plan->step_count; i++)
		skald_buf_addf(
			out, "%s\"%s\"", i ? "," : "[", kinds[plan->steps[i].kind]);
	skald_buf_add_text(out, "]}");
}

static enum skald_rc
deploy(struct skald_sql *sql, const char *path, struct skald_buf *text,
	struct skald_err *err)
{
	struct skald_saga_def *def = NULL;
	struct skald_buf args;
	enum skald_rc rc = read_file(path, text, err);

	skald_buf_init(&args, 4 * (size_t)SKALD_SAGA_DEF_BYTES_MAX);
	if (!rc)
		rc = skald_saga_def_create(&def, skald_buf_slice(text), NULL, NULL, err);
	if (rc)
		goto out;
	add_args(def, &args);
	struct skald_param params[] = { skald_param_text(skald_saga_def_name(def)),
		skald_param_text(args.data) };

	rc = skald_sql_query(sql, "SELECT skald.orchestrator_deploy($1, $2::jsonb)",
		params, 2, false, NULL, err);
out:
	skald_saga_def_destroy(def);
	skald_buf_done(&args);
	return rc ? skald_fail_in(err, rc, "saga.definitions: %s", path) : rc;
}

static int
is_definition(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return entry->d_name[0] != '.' && dot && strcmp(dot, ".json") == 0;
}

enum skald_rc
skald__saga_deploy_all(
	struct skald_sql *sql, const char *directory, struct skald_err *err)
{
	struct dirent **names = NULL;
	struct skald_buf text;
	enum skald_rc rc = SKALD_OK;
	int count = scandir(directory, &names, is_definition, alphasort);
	char path[1024];

	if (count < 0)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"saga.definitions: could not read the directory %s", directory);
	skald_buf_init(&text, SKALD_SAGA_DEF_BYTES_MAX + 1);
	for (int i = 0; i < count; i++) {
		if (!rc) {
			(void)snprintf(
				path, sizeof(path), "%s/%s", directory, names[i]->d_name);
			rc = deploy(sql, path, &text, err);
		}
		free(names[i]);
	}
	free(names);
	skald_buf_done(&text);
	return rc;
}
