/*
 * wake.h - a pipe that ends a poll(2) early, and the stop flag beside it: all
 * that two loops share.
 */
#ifndef SKALD_BASE_WAKE_H
#define SKALD_BASE_WAKE_H

#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/err.h"

struct skald_wake {
	int read_fd;
	int write_fd;
	atomic_bool stop; /* drain: take nothing new, finish, leave */
};

SKALD_MUSTUSE enum skald_rc skald_wake_open(
	struct skald_wake *wake, struct skald_err *err);
void skald_wake_close(struct skald_wake *wake);
void skald_wake_up(struct skald_wake *wake); /* any thread, any signal handler */
void skald_wake_stop(struct skald_wake *wake); /* sets stop, then wakes */

/*
 * Sleep until the pipe, one of fds, or the time-out (ms, -1 for ever); empties
 * the pipe. Returns how many of fds are ready (revents set).
 */
int skald_wake_wait(
	struct skald_wake *wake, struct pollfd *fds, unsigned count, int timeout_ms);

#endif
