/* Lines as a reader of stderr sees them. */
#include "base/log.h"
#include "base/context.h"
#include "base/json.h"
#include "base/limits.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "tests/support/check.h"

static char captured[512 * 1024];
static int saved_stderr, pipe_ends[2];
static FILE *file;

static void
capture(void)
{
	fflush(stderr);
	saved_stderr = dup(STDERR_FILENO);
	file = tmpfile();
	dup2(fileno(file), STDERR_FILENO);
}

/* What was written since capture. */
static const char *
captured_text(void)
{
	size_t bytes;

	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	rewind(file);
	bytes = fread(captured, 1, sizeof(captured) - 1, file);
	captured[bytes] = '\0';
	fclose(file);
	return captured;
}

static struct skald_json
parse(const char *line)
{
	struct skald_json root = { 0 };
	struct skald_err err = SKALD_ERR_INIT;
	enum skald_rc rc =
		skald_json_parse(skald_slice_text(line), 1 << 20, 8, &root, &err);

	if (rc)
		printf("\n    %s in %s", err.text, line);
	CU_ASSERT(rc == SKALD_OK);
	return root;
}

static const char *
member(struct skald_json object, const char *name)
{
	static char text[4][1024];
	static unsigned turn;
	struct skald_json value;
	char *dst = text[turn++ % 4];

	if (!skald_json_member(object, name, &value))
		return "(absent)";
	if (!skald_json_text(value, dst, sizeof(text[0])))
		skald_slice_copy(value.text, dst, sizeof(text[0]));
	return dst;
}

static void
writes_json_with_members(void)
{
	struct skald_err err = { "pg", "40001", "could not serialize" };
	struct skald_json line;

	skald_log_init("skaldd", SKALD_LOG_INFO, SKALD_LOG_JSON);
	capture();
	skald_log_err(SKALD_LOG_WARN, &err,
		"could not mark rows: a=b is %s rows=12 code=40001 zip=007 text=\"a b\"",
		"\"quoted\"\n");
	line = parse(captured_text());
	CHECK_TEXT(member(line, "level"), "warn");
	CHECK_TEXT(member(line, "program"), "skaldd");
	CHECK_TEXT(member(line, "msg"), "could not mark rows: a=b is \"quoted\"\n");
	CHECK_TEXT(member(line, "rows"), "12");
	CHECK_TEXT(member(line, "code"), "40001");
	CHECK_TEXT(member(line, "zip"), "007");
	CHECK_TEXT(member(line, "text"), "a b");
	CHECK_TEXT(member(line, "error"), "could not serialize");
	CHECK_TEXT(member(line, "error_code"), "40001");
	CHECK_TEXT(member(line, "error_origin"), "pg");
	CHECK_TEXT(member(line, "correlation_id"), "(absent)");
	CU_ASSERT(strlen(member(line, "ts")) == 27);
}

static void
carries_the_correlation_id_of_its_context(void)
{
	struct skald_context ctx = { .correlation_id = "c-\"1\"\n" };
	struct skald_context *before;
	struct skald_json line;
	const char *text;

	skald_log_init("t", SKALD_LOG_INFO, SKALD_LOG_JSON);
	before = skald_context_enter(&ctx);
	capture();
	skald_log(SKALD_LOG_INFO, "shipped correlation_id=forged ts=1 n=1 n=2");
	line = parse(captured_text());
	CHECK_TEXT(member(line, "correlation_id"), "c-\"1\"\n");
	CHECK_TEXT(member(line, "n"), "1");
	skald_log_init("t", SKALD_LOG_INFO, SKALD_LOG_TEXT);
	capture();
	skald_log(SKALD_LOG_INFO, "shipped");
	text = captured_text();
	CU_ASSERT(strstr(text, "INFO  t: shipped correlation=c-\"1\"\\n\n") != NULL);
	skald_context_leave(before);
	capture();
	skald_log(SKALD_LOG_INFO, "shipped");
	CU_ASSERT(strstr(captured_text(), "correlation") == NULL);
}

static void
text_cannot_forge_a_line_or_colour_one(void)
{
	struct skald_err err = { "kafka", "", "bad\nERROR skald: forged" };
	const char *text;

	skald_log_init("t", SKALD_LOG_DEBUG, SKALD_LOG_TEXT);
	capture();
	skald_log_err(SKALD_LOG_ERROR, &err, "a\x1b[31mb\tc");
	text = captured_text();
	CU_ASSERT(strchr(text, '\n') == text + strlen(text) - 1);
	CU_ASSERT(strstr(text, "a\\x1b[31mb\\x09c: bad\\nERROR") != NULL);
	CU_ASSERT(strchr(text, '\033') == NULL); /* not a terminal: no colour */
}

static void
is_silent_below_its_level(void)
{
	skald_log_init("t", SKALD_LOG_WARN, SKALD_LOG_TEXT);
	capture();
	skald_log(SKALD_LOG_INFO, "no");
	skald_log(SKALD_LOG_DEBUG, "no");
	CHECK_TEXT(captured_text(), "");
	capture();
	skald_log(SKALD_LOG_ERROR, "yes");
	CU_ASSERT(strstr(captured_text(), "yes") != NULL);
}

static void
auto_is_json_where_nobody_looks(void)
{
	capture();
	skald_log_init("t", SKALD_LOG_INFO, SKALD_LOG_AUTO);
	skald_log(SKALD_LOG_INFO, "yes");
	CHECK_TEXT(member(parse(captured_text()), "msg"), "yes");
}

/* Whatever is escaped, a line stays one object within PIPE_BUF. */
static void
cuts_long_messages_and_stays_json(void)
{
	static const unsigned char fillers[] = { 'a', '"', 1, 0xFF };
	struct skald_context ctx = { 0 };
	struct skald_context *before;
	char message[8000];
	const char *text;

	memset(ctx.correlation_id, 1, sizeof(ctx.correlation_id) - 1);
	before = skald_context_enter(&ctx);
	for (unsigned i = 0; i < sizeof(fillers); i++) {
		struct skald_err err = SKALD_ERR_INIT;

		memset(err.text, fillers[i], sizeof(err.text) - 1);
		memset(message, fillers[i], sizeof(message) - 1);
		message[sizeof(message) - 1] = '\0';
		capture();
		skald_log_init("t", SKALD_LOG_INFO, SKALD_LOG_JSON);
		skald_log_err(SKALD_LOG_INFO, &err, "%s", message);
		text = captured_text();
		CU_ASSERT(strlen(text) > 100 && strlen(text) <= SKALD_LOG_LINE_BYTES_MAX);
		parse(text);
	}
	skald_context_leave(before);
}

static void *
write_many(void *ctx)
{
	(void)ctx;
	for (int i = 0; i < 250; i++)
		skald_log(SKALD_LOG_INFO, "a line of %s n=%d", "some length", i);
	return NULL;
}

static void *
read_all(void *ctx)
{
	size_t *bytes = ctx;
	ssize_t n;

	while ((n = read(pipe_ends[0], captured + *bytes,
			sizeof(captured) - 1 - *bytes)) > 0)
		*bytes += (size_t)n;
	return NULL;
}

static void
lines_of_threads_never_mix(void)
{
	pthread_t writers[4], reader;
	size_t bytes = 0;
	unsigned lines = 0;
	char *line, *rest = captured;

	skald_log_init("t", SKALD_LOG_INFO, SKALD_LOG_JSON);
	CU_ASSERT_FATAL(pipe2(pipe_ends, O_CLOEXEC) == 0);
	saved_stderr = dup(STDERR_FILENO);
	dup2(pipe_ends[1], STDERR_FILENO);
	close(pipe_ends[1]);
	pthread_create(&reader, NULL, read_all, &bytes);
	for (int i = 0; i < 4; i++)
		pthread_create(&writers[i], NULL, write_many, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(writers[i], NULL);
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	pthread_join(reader, NULL);
	close(pipe_ends[0]);
	captured[bytes] = '\0';
	while ((line = strsep(&rest, "\n")) != NULL && *line) {
		CHECK_TEXT(member(parse(line), "msg"), "a line of some length");
		lines++;
	}
	CU_ASSERT(lines == 1000);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(writes_json_with_members),
		CHECK(carries_the_correlation_id_of_its_context),
		CHECK(text_cannot_forge_a_line_or_colour_one),
		CHECK(is_silent_below_its_level),
		CHECK(auto_is_json_where_nobody_looks),
		CHECK(cuts_long_messages_and_stays_json),
		CHECK(lines_of_threads_never_mix),
	};

	return check_main("unit.base.log", cases, CHECK_COUNT(cases));
}
