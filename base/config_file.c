/*
 * config_file.c - INI text by libinih, the only file that sees it.
 *
 * libinih cuts lines at 200 bytes, knows no quotes and takes an indented line
 * for the rest of the one before. So the reader handed to it does the values:
 * it takes comments and quotes off a line, keeps the value, and gives libinih
 * the line with "1" in its place. Sections, keys and syntax stay libinih's.
 */
#include "base/config_own.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>

/* libinih's own limit of a section is 49 bytes, of a line 197. */
enum {
	FILE_BYTES_MAX = 1024 * 1024,
	LINE_BYTES_MAX = 64 * 1024,
	SECTION_BYTES_MAX = 49,
	KEY_BYTES_MAX = 127
};

struct reader {
	struct skald_config *config;
	const char *file;
	struct skald_slice rest;
	unsigned line;
	struct skald_buf where; /* "FILE:LINE" */
	struct skald_buf value; /* of the line libinih has now */
	struct skald_err *err;
	enum skald_rc rc;
};

static void
refuse(struct reader *r, const char *rule)
{
	if (!r->rc)
		r->rc = skald_fail(r->err, SKALD_REJECT, "config", "", "%s: %s",
			r->where.data, rule);
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static struct skald_slice
trim(struct skald_slice s)
{
	while (s.bytes && is_blank(s.data[0])) {
		s.data++;
		s.bytes--;
	}
	while (s.bytes && is_blank(s.data[s.bytes - 1]))
		s.bytes--;
	return s;
}

/* A comment begins after white space, or where a line begins. */
static struct skald_slice
without_comment(struct skald_slice s)
{
	for (size_t i = 1; i < s.bytes; i++)
		if ((s.data[i] == ';' || s.data[i] == '#') && is_blank(s.data[i - 1])) {
			s.bytes = i;
			break;
		}
	return s;
}

/* s begins with a quote. In double quotes \" \\ and \n are escapes, in single ones nothing. */
static void
take_quoted(struct reader *r, struct skald_slice s)
{
	char quote = s.data[0];
	size_t i = 1;

	for (; i < s.bytes && s.data[i] != quote; i++) {
		char c = s.data[i];

		if (c == '\\' && quote == '"' && i + 1 < s.bytes) {
			c = s.data[++i];
			if (c != '"' && c != '\\' && c != 'n') {
				refuse(r, "in double quotes only \\\" \\\\ and \\n may "
					  "follow a backslash");
				return;
			}
			c = c == 'n' ? '\n' : c;
		}
		skald_buf_add(&r->value, &c, 1);
	}
	if (i == s.bytes) {
		refuse(r, "the quoted value is not closed");
		return;
	}
	s = trim(without_comment(skald_slice_make(s.data + i, s.bytes - i)));
	if (s.bytes > 1)
		refuse(r, "text after the closing quote");
}

/* The line libinih gets for "key = value"; keeps the value. */
static void
rewrite_pair(
	struct reader *r, struct skald_slice line, size_t equals, char *dst, size_t room)
{
	struct skald_slice key = trim(skald_slice_make(line.data, equals));
	struct skald_slice rest =
		skald_slice_make(line.data + equals + 1, line.bytes - equals - 1);
	struct skald_slice value = trim(rest);

	if (!key.bytes || key.bytes > KEY_BYTES_MAX) {
		refuse(r, "a key has 1 to 127 bytes");
		return;
	}
	if (value.bytes && (value.data[0] == '"' || value.data[0] == '\''))
		take_quoted(r, value);
	else
		skald_buf_add_slice(&r->value, trim(without_comment(rest)));
	snprintf(dst, room, "%.*s=1\n", (int)key.bytes, key.data);
}

static void
rewrite_line(struct reader *r, struct skald_slice line, char *dst, size_t room)
{
	char section[SECTION_BYTES_MAX + 1];
	size_t equals = 0;

	snprintf(dst, room, "\n");
	line = trim(line);
	if (!line.bytes || line.data[0] == ';' || line.data[0] == '#')
		return;
	if (memchr(line.data, '\0', line.bytes)) {
		refuse(r, "a NUL byte");
		return;
	}
	while (equals < line.bytes && line.data[equals] != '=' &&
		line.data[equals] != ':')
		equals++;
	if (line.data[0] != '[' && equals < line.bytes) {
		rewrite_pair(r, line, equals, dst, room);
		return;
	}
	line = trim(without_comment(line));
	if (line.data[0] != '[' || line.data[line.bytes - 1] != ']' ||
		line.bytes > SECTION_BYTES_MAX + 2) {
		refuse(r, "must be [section] (at most 49 bytes) or key = value");
		return;
	}
	skald_slice_copy(skald_slice_make(line.data + 1, line.bytes - 2), section,
		sizeof(section));
	if (!r->rc)
		r->rc = skald__config_check_section(section, r->where.data, r->err);
	snprintf(dst, room, "[%s]\n", section);
}

/* fgets-like, for libinih: the next line, rewritten. */
static char *
read_line(char *dst, int room, void *stream)
{
	struct reader *r = stream;
	const char *newline;
	struct skald_slice line = r->rest;

	if (!r->rest.bytes || r->rc)
		return NULL;
	newline = memchr(line.data, '\n', line.bytes);
	if (newline)
		line.bytes = (size_t)(newline - line.data);
	r->rest.data += line.bytes + (newline ? 1 : 0);
	r->rest.bytes -= line.bytes + (newline ? 1 : 0);
	r->line++;
	skald_buf_clear(&r->value);
	skald_buf_clear(&r->where);
	skald_buf_addf(&r->where, "%s:%u", r->file, r->line);
	if (r->where.failed) {
		r->rc = skald_fail(r->err, SKALD_FATAL, "config", "", "out of memory");
		return NULL;
	}
	if (line.bytes > LINE_BYTES_MAX)
		refuse(r, "a line has at most 64 KiB");
	else
		rewrite_line(r, line, dst, (size_t)room);
	return r->rc ? NULL : dst;
}

static int
take_pair(void *user, const char *section, const char *key, const char *value)
{
	struct reader *r = user;

	(void)value;
	if (r->value.failed && !r->rc)
		r->rc = skald_fail(r->err, SKALD_FATAL, "config", "", "out of memory");
	if (!r->rc && !section[0])
		refuse(r, "a [section] must come first");
	if (!r->rc)
		r->rc = skald__config_set(r->config, section, key,
			r->value.data ? r->value.data : "", SKALD__FROM_FILE,
			r->where.data, r->err);
	return !r->rc;
}

enum skald_rc
skald__config_read_text(struct skald_config *config, const char *file,
	struct skald_slice text, struct skald_err *err)
{
	struct reader r = { .config = config, .file = file, .rest = text, .err = err };
	int bad_line;

	if (text.bytes >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0)
		r.rest = skald_slice_make(text.data + 3, text.bytes - 3);
	skald_buf_init(&r.where, 8192);
	skald_buf_init(&r.value, LINE_BYTES_MAX);
	bad_line = ini_parse_stream(read_line, &r, take_pair, &r);
	if (!r.rc && bad_line)
		r.rc = skald_fail(err, SKALD_REJECT, "config", "",
			"%s:%d: must be [section] or key = value", file, bad_line);
	skald_buf_done(&r.value);
	skald_buf_done(&r.where);
	return r.rc;
}

enum skald_rc
skald__config_read_file(struct skald_config *config, const char *file, bool must_exist,
	bool *found, struct skald_err *err)
{
	FILE *stream = fopen(file, "re");
	struct skald_buf text;
	bool is_large = false;
	char part[4096];
	enum skald_rc rc;
	size_t bytes;

	*found = stream != NULL;
	if (!stream && !must_exist && (errno == ENOENT || errno == ENOTDIR))
		return SKALD_OK;
	if (!stream)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"could not open %s: %s", file, strerror(errno));
	skald_buf_init(&text, FILE_BYTES_MAX);
	while (!text.failed && (bytes = fread(part, 1, sizeof(part), stream)) > 0) {
		is_large = bytes > FILE_BYTES_MAX - text.bytes;
		skald_buf_add(&text, part, bytes);
	}
	if (ferror(stream))
		rc = skald_fail(err, SKALD_REJECT, "config", "", "could not read %s: %s",
			file, strerror(errno));
	else if (text.failed && !is_large)
		rc = skald_fail(err, SKALD_FATAL, "config", "", "out of memory");
	else if (is_large)
		rc = skald_fail(err, SKALD_REJECT, "config", "",
			"%s: larger than 1 MiB: not a configuration file", file);
	else
		rc = skald__config_read_text(config, file, skald_buf_slice(&text), err);
	skald_buf_done(&text);
	fclose(stream);
	return rc;
}
