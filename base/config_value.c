#include "base/config_own.h"

#include <ctype.h>
#include <strings.h>

#include "base/clock.h"

enum { SHOWN_BYTES_MAX = 60, WORD_BYTES_MAX = 63, CHOICES_MAX = 16 };

/* --- nearest words ------------------------------------------------------------------------ */

/* Edits (insert, delete, replace, swap of neighbours) between two short words. */
static unsigned
distance(const char *a, const char *b)
{
	unsigned rows[3][WORD_BYTES_MAX + 1];
	size_t a_bytes = strlen(a), b_bytes = strlen(b);

	for (size_t j = 0; j <= b_bytes; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_bytes; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i - 1) % 3];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_bytes; j++) {
			unsigned char x = (unsigned char)a[i - 1];
			unsigned char y = (unsigned char)b[j - 1];
			unsigned best = above[j - 1] + (tolower(x) != tolower(y));

			if (above[j] + 1 < best)
				best = above[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
				a[i - 2] == b[j - 1] &&
				rows[(i - 2) % 3][j - 2] + 1 < best)
				best = rows[(i - 2) % 3][j - 2] + 1;
			row[j] = best;
		}
	}
	return rows[a_bytes % 3][b_bytes];
}

const char *
skald_nearest(const char *word, const char *const *words, unsigned count)
{
	const char *nearest = NULL;
	size_t bytes = strlen(word);
	unsigned least = (unsigned)(bytes + 2) / 3; /* further off is no help */

	if (bytes > WORD_BYTES_MAX)
		return NULL;
	for (unsigned i = 0; i < count; i++) {
		unsigned edits;

		if (strlen(words[i]) > WORD_BYTES_MAX)
			continue;
		edits = distance(word, words[i]);
		if (edits < least || (edits == least && !nearest)) {
			least = edits;
			nearest = words[i];
		}
	}
	return nearest;
}

/* --- choices ------------------------------------------------------------------------------- */

static bool
is_choice(const char *choices, struct skald_slice item)
{
	const char *p = choices;

	while (p) {
		const char *bar = strchr(p, '|');
		size_t bytes = bar ? (size_t)(bar - p) : strlen(p);

		if (skald_slice_is_equal(item, skald_slice_make(p, bytes)))
			return true;
		p = bar ? bar + 1 : NULL;
	}
	return false;
}

/* "a, b or c" */
static void
describe_choices(const char *choices, struct skald_buf *out)
{
	const char *p = choices;

	while (p) {
		const char *bar = strchr(p, '|');

		if (p != choices)
			skald_buf_add_text(out, bar ? ", " : " or ");
		skald_buf_add(out, p, bar ? (size_t)(bar - p) : strlen(p));
		p = bar ? bar + 1 : NULL;
	}
}

/* "; did you mean x?" */
static void
suggest(const char *choices, const char *text, struct skald_buf *out)
{
	char words[CHOICES_MAX][WORD_BYTES_MAX + 1];
	const char *list[CHOICES_MAX];
	const char *p = choices, *nearest;
	unsigned count = 0;

	while (p && count < CHOICES_MAX) {
		const char *bar = strchr(p, '|');
		size_t bytes = bar ? (size_t)(bar - p) : strlen(p);

		if (skald_slice_copy(skald_slice_make(p, bytes), words[count],
			    sizeof(words[count]))) {
			list[count] = words[count];
			count++;
		}
		p = bar ? bar + 1 : NULL;
	}
	nearest = skald_nearest(text, list, count);
	if (nearest)
		skald_buf_addf(out, "; did you mean %s?", nearest);
}

/* --- one type after the other -------------------------------------------------------------- */

static bool
parse_bool(const char *text, int64_t *number)
{
	static const char *const words[] = { "false", "true", "off", "on", "no", "yes",
		"0", "1" };

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcasecmp(text, words[i]) == 0) {
			*number = i & 1;
			return true;
		}
	return false;
}

static bool
parse_bytes(const char *text, int64_t *number)
{
	static const struct {
		const char *unit;
		int64_t bytes;
	} units[] = { { "", 1 }, { "B", 1 }, { "KiB", 1024 }, { "MiB", 1024 * 1024 },
		{ "GiB", 1024 * 1024 * 1024 } };
	size_t digits = strspn(text, "0123456789");
	long long n;

	if (!skald_slice_int64(skald_slice_make(text, digits), &n))
		return false;
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(text + digits, units[i].unit) != 0)
			continue;
		if (n > INT64_MAX / units[i].bytes)
			return false;
		*number = n * units[i].bytes;
		return true;
	}
	return false;
}

/* Takes the blanks around commas away; false at an empty or unknown item, which *bad views. */
static bool
parse_list(const struct skald_option *option, char *text, struct skald_slice *bad)
{
	char *out = text;
	const char *p = text;

	if (!text[strspn(text, " \t")]) {
		text[0] = '\0';
		return true;
	}
	for (;;) {
		size_t bytes = strcspn(p, ",");
		const char *next = p[bytes] ? p + bytes + 1 : NULL;
		struct skald_slice item;

		while (bytes && isspace((unsigned char)*p)) {
			p++;
			bytes--;
		}
		while (bytes && isspace((unsigned char)p[bytes - 1]))
			bytes--;
		item = skald_slice_make(p, bytes);
		if (!bytes || (option->choices && !is_choice(option->choices, item))) {
			*bad = item;
			return false;
		}
		memmove(out, p, bytes);
		out += bytes;
		if (!next)
			break;
		*out++ = ',';
		p = next;
	}
	*out = '\0';
	return true;
}

/* In the largest unit that leaves no rest: "16MiB", "0". */
static void
add_bytes(int64_t bytes, struct skald_buf *out)
{
	static const char *const units[] = { "", "KiB", "MiB", "GiB" };
	unsigned unit = 0;

	while (bytes && bytes % 1024 == 0 && unit < 3) {
		bytes /= 1024;
		unit++;
	}
	skald_buf_addf(out, "%lld%s", (long long)bytes, units[unit]);
}

static void
describe_ms(int64_t min, int64_t max, struct skald_buf *out)
{
	char low[32], high[32];

	skald_duration_format(min, low, sizeof(low));
	skald_duration_format(max, high, sizeof(high));
	skald_buf_addf(out, "a duration from %s to %s", low, high);
}

void
skald__value_describe(const struct skald_option *option, struct skald_buf *out)
{
	switch (option->type) {
	case SKALD_OPTION_INT:
		skald_buf_addf(out, "a whole number from %lld to %lld",
			(long long)option->min, (long long)option->max);
		break;
	case SKALD_OPTION_BOOL:
		skald_buf_add_text(out, "true or false");
		break;
	case SKALD_OPTION_DURATION:
		describe_ms(option->min, option->max, out);
		break;
	case SKALD_OPTION_BYTES:
		skald_buf_add_text(out, "bytes from ");
		add_bytes(option->min, out);
		skald_buf_add_text(out, " to ");
		add_bytes(option->max, out);
		skald_buf_add_text(out, ", such as 64MiB or 10GiB");
		break;
	case SKALD_OPTION_CHOICE:
		describe_choices(option->choices, out);
		break;
	case SKALD_OPTION_LIST:
		skald_buf_add_text(out, "a comma separated list");
		if (option->choices) {
			skald_buf_add_text(out, " of ");
			describe_choices(option->choices, out);
		}
		break;
	case SKALD_OPTION_TEXT:
	case SKALD_OPTION_SECRET:
		skald_buf_add_text(out, "text");
		break;
	}
}

static bool
check(const struct skald_option *option, char *text, int64_t *number,
	struct skald_slice *bad)
{
	struct skald_slice s = skald_slice_text(text);
	long long n = 0;

	switch (option->type) {
	case SKALD_OPTION_INT:
		if (!skald_slice_int64(s, &n))
			return false;
		*number = n;
		return *number >= option->min && *number <= option->max;
	case SKALD_OPTION_BOOL:
		return parse_bool(text, number);
	case SKALD_OPTION_DURATION:
		return skald_duration_parse(s, number) && *number >= option->min &&
		       *number <= option->max;
	case SKALD_OPTION_BYTES:
		return parse_bytes(text, number) && *number >= option->min &&
		       *number <= option->max;
	case SKALD_OPTION_CHOICE:
		return is_choice(option->choices, s);
	case SKALD_OPTION_LIST:
		return parse_list(option, text, bad);
	case SKALD_OPTION_TEXT:
	case SKALD_OPTION_SECRET:
		break;
	}
	return true;
}

enum skald_rc
skald__value_check(const struct skald_option *option, const char *where, const char *name,
	char *text, int64_t *number, struct skald_err *err)
{
	struct skald_slice bad = skald_slice_text(text);
	char item[SHOWN_BYTES_MAX + 1];
	struct skald_buf rule;

	*number = 0;
	if (check(option, text, number, &bad))
		return SKALD_OK;
	skald_slice_copy(bad, item, sizeof(item));
	skald_buf_init(&rule, 512);
	skald__value_describe(option, &rule);
	skald_buf_addf(&rule, ", not '%s'", item);
	if (option->choices)
		suggest(option->choices, item, &rule);
	else if (option->type == SKALD_OPTION_DURATION)
		skald_buf_add_text(&rule, "; units are ms s m h d");
	skald_fail(err, SKALD_REJECT, "config", "", "%s: %s: must be %s", where, name,
		rule.data ? rule.data : "something else");
	skald_buf_done(&rule);
	return SKALD_REJECT;
}
