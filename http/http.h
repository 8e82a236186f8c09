/*
 * http.h - a small HTTP server; the only folder that sees libmicrohttpd.
 */
#ifndef SKALD_HTTP_HTTP_H
#define SKALD_HTTP_HTTP_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

struct skald_http;

struct skald_http_request {
	const char *method; /* HEAD arrives as GET; the server drops the body */
	const char *path; /* without the query */
	struct skald_slice body; /* bounded by the server: 1 MiB */
};
struct skald_http_answer {
	int status;
	const char *content_type; /* static text */
	const char *allow; /* static text for 405, else NULL */
	struct skald_buf *body;
};
/* Called on the server's thread; must not block. */
typedef void (*skald_http_fn)(const struct skald_http_request *request,
	struct skald_http_answer *answer, void *ctx);

/*
 * listen "127.0.0.1:8085", "[::1]:8085" or "localhost:8085"; port 0: any.
 * ctx is borrowed until stop. REJECT: not an address, or not one of this host.
 * RETRY: in use.
 */
SKALD_MUSTUSE enum skald_rc skald_http_start(struct skald_http **out, const char *listen,
	skald_http_fn handle, void *ctx, struct skald_err *err);
/* Ends the thread; no handler runs after it. NULL is fine. */
void skald_http_stop(struct skald_http *http);
int skald_http_port(const struct skald_http *http);

/* Whether only this host can reach the address; false when it is none. */
bool skald_http_is_loopback(const char *listen);

/* --- answers ------------------------------------------------------------------------------ */

struct skald_http_route {
	const char *method; /* "GET" */
	const char *path; /* exact */
	skald_http_fn handle;
};
/* Hand the request to its route; 404 for an unknown path, 405 with Allow for a wrong method. */
void skald_http_dispatch(const struct skald_http_route *routes, unsigned count,
	const struct skald_http_request *request, struct skald_http_answer *answer,
	void *ctx);
/* application/problem+json (RFC 9457) in place of what the body holds. */
void skald_http_problem(struct skald_http_answer *answer, int status, const char *detail);

#endif
