/*
 * server.c - one thread of libmicrohttpd that polls all connections.
 *
 * The listening socket is ours: so the reason of a failed bind and the port
 * that was drawn are known exactly. Answers are small and complete; a
 * connection that is slow, idle or one too many is the one that loses.
 */
#include "http/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "http/own.h"

#define BODY_BYTES_MAX   (1024 * 1024) /* of a request: an order, not an upload */
#define ANSWER_BYTES_MAX (4 * 1024 * 1024) /* /metrics of very many sources */
#define CONNECTIONS_MAX  64 /* probes, scrapers and a person; not a web site */
#define IDLE_SECONDS_MAX 15 /* a probe's keep-alive; holds no slot for ever */

struct skald_http {
	struct MHD_Daemon *daemon;
	skald_http_fn handle;
	void *ctx;
	int port;
};

struct call { /* one request while its body arrives */
	struct skald_buf body;
	bool is_too_large;
};

static enum MHD_Result
send_answer(struct MHD_Connection *conn, const struct skald_http_answer *answer)
{
	struct MHD_Response *response = NULL;
	enum MHD_Result result = MHD_NO;

	response = MHD_create_response_from_buffer(
		answer->body->bytes, answer->body->data, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO;
	if (MHD_add_response_header(
		    response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->content_type) &&
		MHD_add_response_header(
			response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") &&
		(!answer->allow || MHD_add_response_header(response,
					   MHD_HTTP_HEADER_ALLOW, answer->allow)))
		result = MHD_queue_response(conn, (unsigned)answer->status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result
answer_call(const struct skald_http *http, struct MHD_Connection *conn, const char *url,
	const char *method, const struct call *call)
{
	struct skald_buf body;
	struct skald_http_answer answer = { 200, "application/json", NULL, &body };
	struct skald_http_request request = { method, url, skald_buf_slice(&call->body) };
	enum MHD_Result result;

	skald_buf_init(&body, ANSWER_BYTES_MAX);
	if (strcmp(method, "HEAD") == 0)
		request.method = "GET";
	if (call->is_too_large || call->body.failed)
		skald_http_problem(&answer, 413, "a body holds at most 1 MiB");
	else
		http->handle(&request, &answer, http->ctx);
	if (body.failed)
		skald_http_problem(&answer, 500, "the answer is too large");
	result = send_answer(conn, &answer);
	skald_buf_done(&body);
	return result;
}

/* libmicrohttpd calls it when the headers are there, per piece of body, and at the end. */
static enum MHD_Result
on_request(void *ctx, struct MHD_Connection *conn, const char *url, const char *method,
	const char *version, const char *data, size_t *bytes, void **state)
{
	struct call *call = *state;

	(void)version;
	if (!call) {
		call = calloc(1, sizeof(*call));
		if (!call)
			return MHD_NO;
		skald_buf_init(&call->body, BODY_BYTES_MAX);
		*state = call;
		return MHD_YES;
	}
	if (*bytes > 0) {
		if (call->body.bytes + *bytes > BODY_BYTES_MAX)
			call->is_too_large = true;
		else
			skald_buf_add(&call->body, data, *bytes);
		*bytes = 0;
		return MHD_YES;
	}
	return answer_call(ctx, conn, url, method, call);
}

static void
on_completed(void *ctx, struct MHD_Connection *conn, void **state,
	enum MHD_RequestTerminationCode code)
{
	struct call *call = *state;

	(void)ctx;
	(void)conn;
	(void)code;
	if (call) {
		skald_buf_done(&call->body);
		free(call);
	}
	*state = NULL;
}

/* Broken clients are not our trouble: debug only. */
__attribute__((format(printf, 2, 0))) static void
on_complaint(void *ctx, const char *fmt, va_list args)
{
	char text[200];
	int n = vsnprintf(text, sizeof(text), fmt, args);

	(void)ctx;
	while (n > 0 && (size_t)n < sizeof(text) && text[n - 1] == '\n')
		text[--n] = '\0';
	skald_log(SKALD_LOG_DEBUG, "http: %s", text);
}

static enum skald_rc
listen_on(const char *listen_text, int *out, int *port, struct skald_err *err)
{
	struct sockaddr_storage addr;
	socklen_t bytes = 0;
	enum skald_rc rc;
	int yes = 1;
	int fd;

	if (!skald__http_address(listen_text, &addr, &bytes))
		return skald_fail(err, SKALD_REJECT, "config", "",
			"http.listen: '%s' is not an address and a port like "
			"127.0.0.1:8085 or [::1]:8085",
			listen_text ? listen_text : "");
	fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return skald_fail(err, SKALD_RETRY, "skald", "",
			"http.listen: no socket: %s", strerror(errno));
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(fd, (struct sockaddr *)&addr, bytes) || listen(fd, CONNECTIONS_MAX) ||
		getsockname(fd, (struct sockaddr *)&addr, &bytes)) {
		rc = errno == EADDRNOTAVAIL || errno == EACCES ? SKALD_REJECT
							       : SKALD_RETRY;
		rc = skald_fail(err, rc, rc == SKALD_REJECT ? "config" : "skald", "",
			"http.listen: could not listen on %s: %s", listen_text,
			strerror(errno));
		close(fd);
		return rc;
	}
	*port = ntohs(addr.ss_family == AF_INET
			      ? ((struct sockaddr_in *)&addr)->sin_port
			      : ((struct sockaddr_in6 *)&addr)->sin6_port);
	*out = fd;
	return SKALD_OK;
}

enum skald_rc
skald_http_start(struct skald_http **out, const char *listen, skald_http_fn handle,
	void *ctx, struct skald_err *err)
{
	struct skald_http *http = NULL;
	enum skald_rc rc;
	int fd = -1;

	http = calloc(1, sizeof(*http));
	if (!http)
		return skald_fail(err, SKALD_RETRY, "skald", "", "http: out of memory");
	http->handle = handle;
	http->ctx = ctx;
	rc = listen_on(listen, &fd, &http->port, err);
	if (rc)
		goto out;
	http->daemon = MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD | MHD_USE_ERROR_LOG,
		0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_complaint,
		NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
		MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)IDLE_SECONDS_MAX, MHD_OPTION_END);
	if (!http->daemon) {
		rc = skald_fail(err, SKALD_RETRY, "skald", "",
			"http: could not start its thread");
		goto out;
	}
	fd = -1; /* the daemon closes it */
	*out = http;
	http = NULL;
out:
	if (fd >= 0)
		close(fd);
	free(http);
	return rc;
}

void
skald_http_stop(struct skald_http *http)
{
	if (!http)
		return;
	MHD_stop_daemon(http->daemon);
	free(http);
}

int
skald_http_port(const struct skald_http *http)
{
	return http->port;
}
