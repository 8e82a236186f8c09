/* Routes, problems and addresses, without a socket. */
#include "http/http.h"

#include "tests/support/check.h"

static void
say_hello(const struct skald_http_request *request, struct skald_http_answer *answer,
	void *ctx)
{
	(void)request;
	answer->content_type = "text/plain";
	skald_buf_add_text(answer->body, ctx);
}

static const struct skald_http_route routes[] = {
	{ "GET", "/hello", say_hello },
	{ "POST", "/act", say_hello },
};

static struct skald_http_answer
ask(const char *method, const char *path, struct skald_buf *body)
{
	struct skald_http_request request = { method, path, SKALD_SLICE_NULL };
	struct skald_http_answer answer = { 200, "application/json", NULL, body };

	skald_buf_clear(body);
	skald_http_dispatch(routes, 2, &request, &answer, "hi");
	return answer;
}

static void
each_request_finds_its_route(void)
{
	struct skald_http_answer answer;
	struct skald_buf body;

	skald_buf_init(&body, 4096);
	answer = ask("GET", "/hello", &body);
	CU_ASSERT(answer.status == 200);
	CHECK_TEXT(answer.content_type, "text/plain");
	CHECK_TEXT(body.data, "hi");
	CHECK_TEXT(answer.allow ? answer.allow : "none", "none");

	answer = ask("GET", "/nothing", &body);
	CU_ASSERT(answer.status == 404);
	CHECK_TEXT(answer.content_type, "application/problem+json");
	CHECK_TEXT(body.data, "{\"type\":\"about:blank\",\"title\":\"Not Found\","
			      "\"status\":404,"
			      "\"detail\":\"there is nothing at this path\"}\n");

	answer = ask("DELETE", "/hello", &body);
	CU_ASSERT(answer.status == 405);
	CHECK_TEXT(answer.allow, "GET, HEAD");
	answer = ask("GET", "/act", &body);
	CU_ASSERT(answer.status == 405);
	CHECK_TEXT(answer.allow, "POST");
	skald_buf_done(&body);
}

static void
a_problem_replaces_what_was_said(void)
{
	struct skald_buf body;
	struct skald_http_answer answer = { 200, "text/plain", NULL, &body };

	skald_buf_init(&body, 4096);
	skald_buf_add_text(&body, "half an answer");
	skald_http_problem(&answer, 503, "a \"quoted\" reason");
	CHECK_TEXT(body.data,
		"{\"type\":\"about:blank\",\"title\":\"Service Unavailable\","
		"\"status\":503,\"detail\":\"a \\\"quoted\\\" reason\"}\n");
	skald_buf_done(&body);
}

static void
loopback_is_told_from_the_network(void)
{
	static const struct {
		const char *listen;
		bool is_loopback;
	} rows[] = {
		{ "127.0.0.1:8085", true },
		{ "127.9.9.9:1", true },
		{ "localhost:0", true },
		{ "[::1]:8085", true },
		{ "0.0.0.0:8085", false },
		{ "[::]:8085", false },
		{ "10.0.0.1:80", false },
		{ "[fe80::1]:80", false },
		/* not addresses at all */
		{ "", false },
		{ "127.0.0.1", false },
		{ "127.0.0.1:", false },
		{ "127.0.0.1:65536", false },
		{ "127.0.0.1:-1", false },
		{ "127.0.0.1:80x", false },
		{ "::1:80", false },
		{ "[::1:80", false },
		{ "localhost.example.com:80", false },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (skald_http_is_loopback(rows[i].listen) != rows[i].is_loopback) {
			printf("\n    wrong for '%s'", rows[i].listen);
			CU_ASSERT(0);
		}
	CU_ASSERT(!skald_http_is_loopback(NULL));
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(each_request_finds_its_route),
		CHECK(a_problem_replaces_what_was_said),
		CHECK(loopback_is_told_from_the_network),
	};

	return check_main("unit.http.answer", cases, CHECK_COUNT(cases));
}
