/* config_print.c - --print-config and the sample; secrets stay out of both. */
#include "base/config_own.h"

#include <stdlib.h>
#include <strings.h>

static const char mask[] = "***";

/* --- masking ------------------------------------------------------------------------------- */

static bool
contains(const char *text, const char *word)
{
	return strcasestr(text, word) != NULL;
}

/* Kafka properties are not ours, so their names decide. */
static bool
is_secret(const struct skald__value *value)
{
	static const char *const words[] = { "password", "secret", "token", "ssl.key.pem",
		"oauthbearer.config", "jaas" };

	if (value->option->type == SKALD_OPTION_SECRET)
		return true;
	if (strcmp(value->section, "kafka") != 0)
		return false;
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (contains(value->key, words[i]))
			return true;
	return false;
}

/* The end of a conninfo value (quoted or not) or of a URI parameter's. */
static const char *
end_of_value(const char *p)
{
	char quote = 0;

	if (*p == '\'' || *p == '"')
		quote = *p++;
	for (; *p; p++) {
		if (*p == '\\' && p[1])
			p++;
		else if (quote ? *p == quote : strchr(" \t\n&", *p) != NULL)
			break;
	}
	return quote && *p ? p + 1 : p;
}

/* "password=..." of a conninfo or a URI's parameters; sslpassword ends alike. */
static void
add_without_passwords(struct skald_buf *out, const char *p)
{
	const char *word;

	while ((word = strcasestr(p, "password")) != NULL) {
		const char *value = word + strlen("password");

		value += strspn(value, " \t");
		if (*value == '=') {
			value++;
			value += strspn(value, " \t");
			skald_buf_add(out, p, (size_t)(value - p));
			skald_buf_add_text(out, mask);
			p = end_of_value(value);
		} else {
			skald_buf_add(out, p, (size_t)(value - p));
			p = value;
		}
	}
	skald_buf_add_text(out, p);
}

/* user:password@ of a URI: from the first colon to the last @, rather too much than too little. */
static void
add_url(struct skald_buf *out, const char *url)
{
	const char *user = strstr(url, "://");
	const char *at = strrchr(url, '@');
	const char *colon;

	if (user && at && at > user) {
		user += 3;
		colon = memchr(user, ':', (size_t)(at - user));
		if (colon) {
			skald_buf_add(out, url, (size_t)(colon + 1 - url));
			skald_buf_add_text(out, mask);
			url = at;
		}
	}
	add_without_passwords(out, url);
}

static bool
needs_quotes(const char *text)
{
	size_t bytes = strlen(text);

	if (!bytes)
		return false;
	if (strchr("\"' \t", text[0]) || strchr(" \t", text[bytes - 1]))
		return true;
	for (size_t i = 0; i < bytes; i++)
		if (text[i] == '\n' || text[i] == '\r' || text[i] == ';' ||
			text[i] == '#')
			return true;
	return false;
}

static void
add_quoted(struct skald_buf *out, const char *text)
{
	if (!needs_quotes(text)) {
		skald_buf_add_text(out, text);
		return;
	}
	skald_buf_add_text(out, "\"");
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			skald_buf_addf(out, "\\%c", *text);
		else if (*text == '\n')
			skald_buf_add_text(out, "\\n");
		else
			skald_buf_add(out, text, 1);
	}
	skald_buf_add_text(out, "\"");
}

/* --- the effective configuration ------------------------------------------------------------ */

static void
print_value(const struct skald__value *value, FILE *out)
{
	struct skald_buf shown, line;

	skald_buf_init(&shown, 1024 * 1024);
	skald_buf_init(&line, 1024 * 1024);
	if (is_secret(value) && value->text[0])
		skald_buf_add_text(&shown, mask);
	else if (strcmp(value->key, "url") == 0)
		add_url(&shown, value->text);
	else
		skald_buf_add_text(&shown, value->text);
	add_quoted(&line, shown.data ? shown.data : "");
	fprintf(out, "%s = %s%s; %s\n", value->key, line.data ? line.data : "",
		line.bytes ? " " : "", value->where);
	skald_buf_done(&line);
	skald_buf_done(&shown);
}

static void
print_section(const struct skald_config *config, const char *section, FILE *out)
{
	const struct skald__value *value;

	fprintf(out, "[%s]\n", section);
	for (unsigned i = 0; i < skald__option_count; i++) {
		const struct skald_option *option = &skald__options[i];

		if (strcmp(option->section, section) != 0)
			continue;
		value = skald__config_find(config, section, option->key);
		if (value)
			print_value(value, out);
		else
			fprintf(out, "%s = ; default\n", option->key);
	}
	for (unsigned i = 0; i < config->count; i++) {
		value = &config->values[i];
		if (strcmp(value->section, section) == 0 &&
			(skald__is_source(section) ||
				strcmp(value->option->key, value->key) != 0))
			print_value(value, out);
	}
	fprintf(out, "\n");
}

struct printing {
	const struct skald_config *config;
	FILE *out;
};

static void
print_source(const char *name, const char *section, void *ctx)
{
	struct printing *p = ctx;

	(void)name;
	print_section(p->config, section, p->out);
}

void
skald_config_print(const struct skald_config *config, FILE *out)
{
	struct printing p = { config, out };

	for (unsigned i = 0; i < skald__section_count; i++) {
		if (skald__is_source(skald__sections[i].name))
			skald_config_each_section(
				config, SKALD__SOURCE_PREFIX, print_source, &p);
		else
			print_section(config, skald__sections[i].name, out);
	}
}

/* --- the sample ------------------------------------------------------------------------------ */

static void
print_option(const struct skald_option *option, FILE *out)
{
	struct skald_buf rule;

	skald_buf_init(&rule, 4096);
	if (option->type != SKALD_OPTION_TEXT && option->type != SKALD_OPTION_SECRET) {
		skald_buf_add_text(&rule, " (");
		skald__value_describe(option, &rule);
		skald_buf_add_text(&rule, ")");
	}
	fprintf(out, "; %s%s\n;%s =%s%s\n", option->help, rule.data ? rule.data : "",
		option->key, option->fallback && option->fallback[0] ? " " : "",
		option->fallback ? option->fallback : "");
	skald_buf_done(&rule);
}

void
skald_config_sample(FILE *out)
{
	fprintf(out,
		"; skald.conf - every key with its default, commented out.\n"
		";\n"
		"; --set section.key=value beats the environment variable\n"
		"; SKALD_<SECTION>_<KEY> (upper case, . and - become _), which beats "
		"this\n"
		"; file. A comment begins with ; or # where a line begins or after "
		"white\n"
		"; space. A value may be quoted: '...' verbatim, or \"...\" with \\\" "
		"\\\\ \\n.\n"
		"; Durations: 150ms 10s 5m 2h 7d. skaldd --print-config shows what is\n"
		"; effective, and where each value comes from.\n");
	for (unsigned i = 0; i < skald__section_count; i++) {
		const struct skald__section *section = &skald__sections[i];
		bool is_source = skald__is_source(section->name);

		fprintf(out, "\n; %s\n%s%s]\n", section->help, is_source ? ";[" : "[",
			is_source ? "source.payment" : section->name);
		for (unsigned j = 0; j < skald__option_count; j++)
			if (strcmp(skald__options[j].section, section->name) == 0)
				print_option(&skald__options[j], out);
	}
}
