/*
 * own.h - what the files of http/ share.
 */
#ifndef SKALD_HTTP_OWN_H
#define SKALD_HTTP_OWN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

/* false: not "host:port" with a number or localhost. */
bool skald__http_address(
	const char *listen, struct sockaddr_storage *addr, socklen_t *bytes);

#endif
