/*
 * dev_bind.c - bind(2) of a program that starts a dev broker.
 *
 * Linked into such programs only, never into libskald. While dev.c starts the
 * mock cluster (same thread, one call) the listener gets the wanted port, and no
 * Nagle's delay, which accepted connections inherit; every other call passes
 * through. A port that is taken is noted, and the socket gets any: the mock
 * crashes when its bind fails.
 */
#include "broker/own.h"

#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

typedef int (*bind_fn)(int fd, const struct sockaddr *address, socklen_t bytes);

/* Its symbol is bind; under that name glibc's header has it with another type. */
__attribute__((visibility("default"))) int skald__bind(
	int fd, const struct sockaddr *address, socklen_t bytes) __asm__("bind");

static bind_fn
real_bind(void)
{
	union { /* ISO C has no cast from dlsym's pointer to a function's */
		void *object;
		bind_fn function;
	} found = { .object = dlsym(RTLD_NEXT, "bind") };

	return found.function;
}

int
skald__bind(int fd, const struct sockaddr *address, socklen_t bytes)
{
	struct skald__bind_order *order = skald__bind_order();
	struct sockaddr_in wanted;
	const int on = 1;

	if (!order->is_wanted || !address || address->sa_family != AF_INET ||
		bytes != sizeof(wanted))
		return real_bind()(fd, address, bytes);
	order->was_seen = true;
	/* Nothing is lost but speed when this fails. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	memcpy(&wanted, address, sizeof(wanted));
	wanted.sin_port = htons((uint16_t)order->port);
	if (real_bind()(fd, (const struct sockaddr *)&wanted, sizeof(wanted)) == 0)
		return 0;
	order->error = errno;
	return real_bind()(fd, address, bytes);
}
