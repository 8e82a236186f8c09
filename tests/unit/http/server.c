/* The server over a real socket: what goes in, what comes out, what is refused. */
#include "http/http.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/check.h"

static atomic_int handled_count;

/* Echoes method, path and size of the body, so that a test sees what the handler saw. */
static void
echo(const struct skald_http_request *request, struct skald_http_answer *answer,
	void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&handled_count, 1);
	answer->content_type = "text/plain";
	skald_buf_addf(answer->body, "%s %s %zu", request->method, request->path,
		request->body.bytes);
}

static int
dial(int port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Sends head and body, reads until the server closes. */
static void
exchange(int port, const char *head, size_t body_bytes, char *reply, size_t reply_bytes)
{
	size_t got = 0;
	ssize_t n;
	int fd = dial(port);
	char *body = calloc(1, body_bytes + 1);

	CU_ASSERT_FATAL(fd >= 0 && body);
	memset(body, 'x', body_bytes);
	CU_ASSERT(write(fd, head, strlen(head)) == (ssize_t)strlen(head));
	for (size_t at = 0; at < body_bytes; at += (size_t)n) {
		n = write(fd, body + at, body_bytes - at);
		if (n <= 0)
			break;
	}
	while (got + 1 < reply_bytes &&
		(n = read(fd, reply + got, reply_bytes - got - 1)) > 0)
		got += (size_t)n;
	reply[got] = '\0';
	free(body);
	close(fd);
}

static void
answers_and_bounds(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_http *http = NULL;
	char reply[8192];
	int port;

	CU_ASSERT_FATAL(
		skald_http_start(&http, "127.0.0.1:0", echo, NULL, &err) == SKALD_OK);
	port = skald_http_port(http);
	CU_ASSERT(port > 0);

	exchange(port, "GET /a?b=c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 0,
		reply, sizeof(reply));
	CU_ASSERT(strncmp(reply, "HTTP/1.1 200 ", 13) == 0);
	CU_ASSERT(strstr(reply, "Content-Type: text/plain") != NULL);
	CU_ASSERT(strstr(reply, "\r\n\r\nGET /a 0") != NULL);

	exchange(port, "HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 0,
		reply, sizeof(reply));
	CU_ASSERT(strncmp(reply, "HTTP/1.1 200 ", 13) == 0);
	CU_ASSERT(strstr(reply, "Content-Length: 8") != NULL);
	CU_ASSERT(strstr(reply, "GET /a") == NULL);

	exchange(port,
		"POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
		"Content-Length: 1048576\r\n\r\n",
		1048576, reply, sizeof(reply));
	CU_ASSERT(strstr(reply, "\r\n\r\nPOST /a 1048576") != NULL);

	atomic_store(&handled_count, 0);
	exchange(port,
		"POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
		"Content-Length: 1048577\r\n\r\n",
		1048577, reply, sizeof(reply));
	CU_ASSERT(strncmp(reply, "HTTP/1.1 413 ", 13) == 0);
	CU_ASSERT(strstr(reply, "application/problem+json") != NULL);
	CU_ASSERT(atomic_load(&handled_count) == 0);

	/* Garbage costs its own connection only. */
	exchange(port, "\001\002\003 garbage\r\n\r\n", 0, reply, sizeof(reply));
	exchange(port, "GET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", 0,
		reply, sizeof(reply));
	CU_ASSERT(strstr(reply, "\r\n\r\nGET /b 0") != NULL);
	skald_http_stop(http);
	CU_ASSERT(dial(port) < 0);
}

static void
says_why_it_cannot_listen(void)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_http *first = NULL;
	struct skald_http *second = NULL;
	char listen[32];

	CU_ASSERT(
		skald_http_start(&second, "nonsense", echo, NULL, &err) == SKALD_REJECT);
	CU_ASSERT(strstr(err.text, "http.listen: 'nonsense'") != NULL);
	CU_ASSERT(skald_http_start(&second, "203.0.113.1:0", echo, NULL, &err) ==
		  SKALD_REJECT);
	CU_ASSERT_FATAL(
		skald_http_start(&first, "127.0.0.1:0", echo, NULL, &err) == SKALD_OK);
	snprintf(listen, sizeof(listen), "127.0.0.1:%d", skald_http_port(first));
	CU_ASSERT(skald_http_start(&second, listen, echo, NULL, &err) == SKALD_RETRY);
	CU_ASSERT(strstr(err.text, listen) != NULL);
	CU_ASSERT(second == NULL);
	skald_http_stop(first);
	skald_http_stop(NULL);
}

int
main(void)
{
	static const struct check_case cases[] = {
		CHECK(answers_and_bounds),
		CHECK(says_why_it_cannot_listen),
	};

	return check_main("unit.http.server", cases, CHECK_COUNT(cases));
}
