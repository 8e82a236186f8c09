/*
 * port.h - a TCP port of 127.0.0.1 that is free, and stays it: below the range from which
 * the kernel serves bind(0) and connect(), so that a server that is stopped and started
 * again finds its own.
 */
#ifndef SKALD_TESTS_SUPPORT_PORT_H
#define SKALD_TESTS_SUPPORT_PORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_FIRST 10000 /* kafka.sh has 20000 and above */
#define PORT_COUNT 10000

static inline int
free_port(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
		.sin_addr = { .s_addr = htonl(INADDR_LOOPBACK) } };

	for (int tries = 0; tries < 1000; tries++) {
		unsigned random = 0;
		int fd = socket(AF_INET, SOCK_STREAM, 0), failed;

		if (getrandom(&random, sizeof(random), 0) != sizeof(random))
			abort();
		a.sin_port = htons((uint16_t)(PORT_FIRST + random % PORT_COUNT));
		failed = fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a));
		if (fd >= 0)
			(void)close(fd);
		if (!failed)
			return ntohs(a.sin_port);
	}
	abort();
}

#endif
