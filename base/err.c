#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *
skald_rc_name(enum skald_rc rc)
{
	switch (rc) {
	case SKALD_OK:
		return "ok";
	case SKALD_RETRY:
		return "retry";
	case SKALD_REJECT:
		return "reject";
	case SKALD_FATAL:
		return "fatal";
	}
	return "unknown";
}

/* text was cut after bytes: take off a character that lost its end. */
static void
trim_partial_character(char *text, size_t bytes)
{
	size_t i = bytes;
	unsigned back = 0;
	unsigned char lead;
	size_t need;

	while (i > 0 && back < 3 && ((unsigned char)text[i - 1] & 0xC0) == 0x80) {
		i--;
		back++;
	}
	if (i == 0)
		return;
	lead = (unsigned char)text[i - 1];
	need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
	if (need > bytes - i + 1)
		text[i - 1] = '\0';
}

enum skald_rc
skald_fail(struct skald_err *err, enum skald_rc rc, const char *origin, const char *code,
	const char *fmt, ...)
{
	va_list args;
	int n;

	if (!err)
		return rc;
	err->origin = origin ? origin : "skald";
	snprintf(err->code, sizeof(err->code), "%s", code ? code : "");
	va_start(args, fmt);
	n = vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	if (n < 0)
		err->text[0] = '\0';
	else if ((size_t)n >= sizeof(err->text))
		trim_partial_character(err->text, sizeof(err->text) - 1);
	return rc;
}

enum skald_rc
skald_fail_in(struct skald_err *err, enum skald_rc rc, const char *fmt, ...)
{
	char text[2 * sizeof(err->text) + 2];
	va_list args;
	size_t used;
	int n;

	if (!err)
		return rc;
	va_start(args, fmt);
	n = vsnprintf(text, sizeof(err->text), fmt, args);
	va_end(args);
	if (n < 0)
		return rc;
	used = strlen(text);
	if ((size_t)n > used)
		trim_partial_character(text, used);
	used = strlen(text);
	n = snprintf(text + used, sizeof(text) - used, ": %s", err->text);
	if (n < 0)
		return rc;
	used += (size_t)n;
	memcpy(err->text, text, sizeof(err->text) - 1);
	err->text[sizeof(err->text) - 1] = '\0';
	if (used >= sizeof(err->text))
		trim_partial_character(err->text, sizeof(err->text) - 1);
	return rc;
}

static bool
is_one_of(const char *code, const char *const *codes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(code, codes[i]) == 0)
			return true;
	return false;
}

bool
skald_err_is_outage(const struct skald_err *err)
{
	/* What Kafka says of the record itself: invalid, too large (alone, as a batch). */
	static const char *const of_the_record[] = { "2", "10", "18", "87" };
	static const char *const classes[] = { "08", "53", "58", "57P0" };

	if (!err || !err->origin)
		return false;
	if (strcmp(err->origin, "callee") == 0)
		return true;
	if (strcmp(err->origin, "kafka") == 0)
		return !is_one_of(err->code, of_the_record,
			sizeof(of_the_record) / sizeof(of_the_record[0]));
	if (strcmp(err->origin, "pg") != 0)
		return false;
	if (!err->code[0]) /* libpq has no SQLSTATE for a connection that broke */
		return true;
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (strncmp(err->code, classes[i], strlen(classes[i])) == 0)
			return true;
	return false;
}

bool
skald_err_is_conflict(const struct skald_err *err)
{
	static const char *const codes[] = { "40001", "40P01", "55P03" };

	return err && err->origin && strcmp(err->origin, "pg") == 0 &&
	       is_one_of(err->code, codes, sizeof(codes) / sizeof(codes[0]));
}
