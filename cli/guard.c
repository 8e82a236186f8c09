/*
 * guard.c - what stands between a selection and an act on it: flags that must be
 * written out, an upper bound, and a question.
 */
#include "cli/own.h"

#include <string.h>
#include <unistd.h>

#define MAX_DEFAULT 1000

const struct skald__flag skald__guard_flags[] = {
	{ "--dry-run", NULL, "say what would be done" },
	{ "--max", "N", "refuse to act on more (1000)" },
	{ NULL, NULL, NULL },
};

enum skald__exit
skald__guard_selection(struct skald__cli *cli, const struct skald__flag *selection,
	const char *doing, bool needs_reason, int64_t *max)
{
	const char *reason = skald__flag_value(cli, "--reason");
	bool is_all = skald__flag_is_given(cli, "--all");
	bool is_selected = false;

	for (; selection->name; selection++)
		is_selected |= skald__flag_is_given(cli, selection->name);
	if (!is_selected)
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", NULL,
			"--all must be written, if all are meant",
			"%s: which? A selection is needed", doing);
	if ((needs_reason || is_all) && !(reason && reason[0]))
		return skald__fail(cli, SKALD_EXIT_USAGE, "usage", "--reason", NULL,
			"%s%s: needs --reason TEXT, for the audit", doing,
			is_all ? " --all" : "");
	*max = MAX_DEFAULT;
	return skald__flag_int(cli, "--max", 1, INT32_MAX, max);
}

/* "y" or "yes" on the terminal. */
static bool
ask(const char *doing, const char *what, int64_t count)
{
	char line[16];

	fflush(stdout);
	fprintf(stderr, "%s %lld %s? [y/N] ", doing, (long long)count, what);
	fflush(stderr);
	if (!fgets(line, sizeof(line), stdin))
		return false;
	return strcasecmp(line, "y\n") == 0 || strcasecmp(line, "yes\n") == 0;
}

enum skald__exit
skald__guard_count(const struct skald__cli *cli, const char *doing, const char *what,
	int64_t count, int64_t max)
{
	char hint[64];

	if (count > max) {
		(void)snprintf(hint, sizeof(hint), "--max %lld", (long long)count);
		return skald__fail(cli, SKALD_EXIT_GUARD, "too_many", "--max", hint,
			"%s: %lld %s are more than --max %lld", doing, (long long)count,
			what, (long long)max);
	}
	if (count <= 1 || skald__flag_is_given(cli, "--yes") ||
		skald__flag_is_given(cli, "--dry-run"))
		return SKALD_EXIT_DONE;
	if (!cli->is_json && isatty(STDIN_FILENO) && isatty(STDERR_FILENO) &&
		ask(doing, what, count))
		return SKALD_EXIT_DONE;
	return skald__fail(cli, SKALD_EXIT_GUARD, "unconfirmed", "--yes",
		"--dry-run lists them, --yes does it", "%s: %lld %s: not confirmed",
		doing, (long long)count, what);
}
