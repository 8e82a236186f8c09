/*
 * answer.c - routes and problems: what an answer says, before it is sent.
 */
#include "http/http.h"

#include <string.h>

#include "base/json.h"

static const char *
title_of(int status)
{
	switch (status) {
	case 400:
		return "Bad Request";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 413:
		return "Content Too Large";
	case 503:
		return "Service Unavailable";
	default:
		return "Internal Server Error";
	}
}

void
skald_http_problem(struct skald_http_answer *answer, int status, const char *detail)
{
	struct skald_buf *body = answer->body;

	skald_buf_clear(body);
	answer->status = status;
	answer->content_type = "application/problem+json";
	skald_buf_add_text(body, "{");
	skald_json_add_member(body, "type", SKALD_SLICE_LIT("about:blank"));
	skald_json_add_member(body, "title", skald_slice_text(title_of(status)));
	skald_json_add_member_int(body, "status", status);
	skald_json_add_member(body, "detail", skald_slice_text(detail));
	skald_buf_add_text(body, "}\n");
}

void
skald_http_dispatch(const struct skald_http_route *routes, unsigned count,
	const struct skald_http_request *request, struct skald_http_answer *answer,
	void *ctx)
{
	const char *allow = NULL;

	for (unsigned i = 0; i < count; i++) {
		if (strcmp(routes[i].path, request->path) != 0)
			continue;
		if (strcmp(routes[i].method, request->method) == 0) {
			routes[i].handle(request, answer, ctx);
			return;
		}
		allow = strcmp(routes[i].method, "GET") == 0 ? "GET, HEAD"
							     : routes[i].method;
	}
	if (!allow) {
		skald_http_problem(answer, 404, "there is nothing at this path");
		return;
	}
	skald_http_problem(answer, 405, "this path does not take this method");
	answer->allow = allow;
}
