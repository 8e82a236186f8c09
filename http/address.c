/*
 * address.c - "host:port" to a socket address: numbers and localhost only, so
 * that starting never waits for a name server.
 */
#include "http/own.h"

#include <arpa/inet.h>
#include <string.h>

#include "http/http.h"

static bool
parse_port(struct skald_slice text, uint16_t *port)
{
	long long value;

	if (!skald_slice_int64(text, &value) || value < 0 || value > 65535)
		return false;
	*port = (uint16_t)value;
	return true;
}

bool
skald__http_address(const char *listen, struct sockaddr_storage *addr, socklen_t *bytes)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)addr;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)addr;
	const char *colon = listen ? strrchr(listen, ':') : NULL;
	char host[INET6_ADDRSTRLEN + 2];
	uint16_t port;
	size_t n;

	memset(addr, 0, sizeof(*addr));
	if (!colon || !parse_port(skald_slice_text(colon + 1), &port))
		return false;
	if (!skald_slice_copy(skald_slice_make(listen, (size_t)(colon - listen)), host,
		    sizeof(host)))
		return false;
	n = strlen(host);
	if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*bytes = sizeof(*v6);
		return inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1;
	}
	v4->sin_family = AF_INET;
	v4->sin_port = htons(port);
	*bytes = sizeof(*v4);
	return inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host,
		       &v4->sin_addr) == 1;
}

bool
skald_http_is_loopback(const char *listen)
{
	struct sockaddr_storage addr;
	socklen_t bytes;

	if (!skald__http_address(listen, &addr, &bytes))
		return false;
	if (addr.ss_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr;

		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	}
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)&addr)->sin6_addr);
}
