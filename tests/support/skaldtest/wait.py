"""Waiting for something to become true; the rig never sleeps and hopes."""

import os
import sys
import time

# A busy machine may be many times slower than a quiet one: SKALD_PATIENCE=3 triples every time-out.
PATIENCE = float(os.environ.get("SKALD_PATIENCE", "1"))


class TimedOut(AssertionError):
    """A wait ended without what was waited for."""


def wait_until(predicate, timeout, what, every=0.02):
    """Call predicate() until it returns something true, and return that.

    timeout   seconds, times SKALD_PATIENCE
    what      names in the failure what was waited for
    every     pause between two looks; it grows to ten times that
    An exception of type ConnectionError or OSError counts as "not yet".
    """
    end = time.monotonic() + timeout * PATIENCE
    pause = every
    last = None
    while True:
        try:
            last = predicate()
            if last:
                return last
        except (ConnectionError, OSError) as error:
            last = error
        now = time.monotonic()
        if now >= end:
            raise TimedOut(
                "waited %.1f s for %s; last seen: %r" % (timeout * PATIENCE, what, last)
            )
        time.sleep(min(pause, end - now))
        pause = min(pause * 1.5, every * 10)


def say(text):
    """One line of progress on stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
