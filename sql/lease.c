/*
 * lease.c - who leads, by the database's clock. A row stays when its lease is
 * dropped, so that the term never falls.
 */
#include "sql/sql.h"

#include "base/limits.h"

#define TEXT_OF_(x) #x
#define TEXT_OF(x)  TEXT_OF_(x)
#define LEASE_SQL   "interval '" TEXT_OF(SKALD_LEASE_MS) " ms'"

static void
fill(struct skald_param params[4], const struct skald_lease *lease, char term[static 24])
{
	params[0] = skald_param_text(lease->kind);
	params[1] = skald_param_text(lease->name);
	params[2] = skald_param_text(lease->owner);
	params[3] = skald_param_int(lease->term, term);
}

/* Taken again by the owner it still has, the term stays: nobody else led between. */
enum skald_rc
skald_lease_take(struct skald_sql *sql, struct skald_lease *lease, struct skald_err *err)
{
	struct skald_param params[4];
	struct skald_rows *rows = NULL;
	char term[24];
	enum skald_rc rc;

	fill(params, lease, term);
	rc = skald_sql_query(sql,
		"INSERT INTO skald.lease AS l (kind, name, owner, term, until) "
		"VALUES ($1, $2, $3, 1, clock_timestamp() + " LEASE_SQL ") "
		"ON CONFLICT (kind, name) DO UPDATE SET owner = excluded.owner, "
		"until = clock_timestamp() + " LEASE_SQL ", "
		"term = l.term + (l.owner <> excluded.owner)::int "
		"WHERE l.owner = excluded.owner OR l.until < clock_timestamp() "
		"RETURNING term",
		params, 3, true, &rows, err);
	if (rc)
		return rc;
	lease->term = skald_rows_count(rows) ? skald_rows_int(rows, 0, 0, 0) : 0;
	skald_rows_free(rows);
	return SKALD_OK;
}

enum skald_rc
skald_lease_renew(struct skald_sql *sql, struct skald_lease *lease, bool *held,
	struct skald_err *err)
{
	struct skald_param params[4];
	struct skald_rows *rows = NULL;
	char term[24];
	enum skald_rc rc;

	fill(params, lease, term);
	rc = skald_sql_query(sql,
		"UPDATE skald.lease SET until = clock_timestamp() + " LEASE_SQL
		" WHERE kind = $1 AND name = $2 AND owner = $3 AND term = $4",
		params, 4, true, &rows, err);
	if (rc)
		return rc;
	*held = skald_rows_affected(rows) == 1;
	if (!*held)
		lease->term = 0;
	skald_rows_free(rows);
	return SKALD_OK;
}

enum skald_rc
skald_lease_drop(struct skald_sql *sql, struct skald_lease *lease, struct skald_err *err)
{
	struct skald_param params[4];
	char term[24];
	enum skald_rc rc;

	if (!lease->term)
		return SKALD_OK;
	fill(params, lease, term);
	rc = skald_sql_query(sql,
		"UPDATE skald.lease SET until = '-infinity' "
		"WHERE kind = $1 AND name = $2 AND owner = $3 AND term = $4",
		params, 4, true, NULL, err);
	if (!rc)
		lease->term = 0;
	return rc;
}
