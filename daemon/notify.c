/*
 * notify.c - sd_notify(3) by hand: a datagram to $NOTIFY_SOCKET. The protocol
 * is stable and four lines long; libsystemd would be our largest dependency.
 */
#include "daemon/own.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* $WATCHDOG_USEC counts only for the process named by $WATCHDOG_PID. */
static int64_t
watchdog_from_environment(void)
{
	const char *usec_text = getenv("WATCHDOG_USEC");
	const char *pid_text = getenv("WATCHDOG_PID");
	long long usec;
	long long pid;

	if (!usec_text || !skald_slice_int64(skald_slice_text(usec_text), &usec) ||
		usec <= 0)
		return 0;
	if (pid_text &&
		(!skald_slice_int64(skald_slice_text(pid_text), &pid) || pid != getpid()))
		return 0;
	return usec / 2000 > 0 ? usec / 2000 : 1; /* half of it, as systemd advises */
}

void
skald__notify_open(struct skald__notify *notify)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t bytes = path ? strlen(path) : 0;

	*notify = (struct skald__notify){ .fd = -1 };
	if (bytes < 2 || bytes >= sizeof(notify->addr.sun_path) ||
		(path[0] != '/' && path[0] != '@'))
		return;
	notify->addr.sun_family = AF_UNIX;
	memcpy(notify->addr.sun_path, path, bytes);
	if (path[0] == '@')
		notify->addr.sun_path[0] = '\0'; /* the abstract name space */
	notify->addr_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes);
	notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify->fd >= 0)
		notify->watchdog_ms = watchdog_from_environment();
}

void
skald__notify_close(struct skald__notify *notify)
{
	if (notify->fd >= 0)
		close(notify->fd);
	notify->fd = -1;
}

void
skald__notify_send(const struct skald__notify *notify, const char *text)
{
	ssize_t sent;

	if (notify->fd < 0)
		return;
	/* Lost is lost: systemd restarts us if it hears nothing, which is what it is for.
	   And whoever does not read what it asked for must not hold us up. */
	sent = sendto(notify->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
		(const struct sockaddr *)&notify->addr, notify->addr_bytes);
	(void)sent;
}
