#include "base/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/limits.h"

enum skald_rc
skald_wake_open(struct skald_wake *wake, struct skald_err *err)
{
	int fds[2];

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC))
		return skald_fail(err, SKALD_FATAL, "skald", "",
			"could not open a pipe: %s", strerror(errno));
	wake->read_fd = fds[0];
	wake->write_fd = fds[1];
	atomic_init(&wake->stop, false);
	return SKALD_OK;
}

void
skald_wake_close(struct skald_wake *wake)
{
	if (wake->read_fd >= 0)
		close(wake->read_fd);
	if (wake->write_fd >= 0)
		close(wake->write_fd);
	wake->read_fd = -1;
	wake->write_fd = -1;
}

void
skald_wake_up(struct skald_wake *wake)
{
	int saved = errno; /* a signal handler must not change it */

	/* A full pipe wakes as well as one byte more. */
	while (write(wake->write_fd, "", 1) < 0 && errno == EINTR)
		;
	errno = saved;
}

void
skald_wake_stop(struct skald_wake *wake)
{
	atomic_store(&wake->stop, true);
	skald_wake_up(wake);
}

int
skald_wake_wait(
	struct skald_wake *wake, struct pollfd *fds, unsigned count, int timeout_ms)
{
	struct pollfd all[SKALD_WAKE_FDS_MAX + 1];
	char bin[64];
	int ready;

	SKALD_ASSERT(count <= SKALD_WAKE_FDS_MAX);
	all[0] = (struct pollfd){ .fd = wake->read_fd, .events = POLLIN };
	if (count)
		memcpy(all + 1, fds, count * sizeof(*fds));
	ready = poll(all, count + 1, timeout_ms);
	if (ready > 0 && all[0].revents) {
		ready--;
		while (read(wake->read_fd, bin, sizeof(bin)) == (ssize_t)sizeof(bin))
			;
	}
	for (unsigned i = 0; i < count; i++)
		fds[i].revents = ready > 0 ? all[i + 1].revents : 0;
	return ready > 0 ? ready : 0;
}
