/*
 * http.h - a small HTTP server; the only folder that sees libmicrohttpd.
 */
#ifndef SKALD_HTTP_HTTP_H
#define SKALD_HTTP_HTTP_H

#include "base/buf.h"
#include "base/err.h"

struct skald_http;

struct skald_http_request {
	const char *method;
	const char *path; /* without the query */
	struct skald_slice body; /* bounded by the server: 1 MiB */
};
struct skald_http_answer {
	int status;
	const char *content_type; /* static text */
	struct skald_buf *body;
};
/* Called on the server's thread; must not block. */
typedef void (*skald_http_fn)(const struct skald_http_request *request,
	struct skald_http_answer *answer, void *ctx);

/* listen "127.0.0.1:8085" or "[::1]:8085"; port 0: any. REJECT: not an address. RETRY: in use. */
SKALD_MUSTUSE enum skald_rc skald_http_start(struct skald_http **out, const char *listen,
	skald_http_fn handle, void *ctx, struct skald_err *err);
void skald_http_stop(struct skald_http *http);
int skald_http_port(const struct skald_http *http);

#endif
