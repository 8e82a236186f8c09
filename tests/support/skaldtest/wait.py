"""Waiting for something to become true; the rig never sleeps and hopes."""

import os
import sys
import time

# A busy machine may be many times slower than a quiet one: SKALD_PATIENCE=3 triples every time-out.
PATIENCE = float(os.environ.get("SKALD_PATIENCE", "1"))


class TimedOut(AssertionError):
    """A wait ended without what was waited for."""


class OutsideTrouble(RuntimeError):
    """PostgreSQL or Kafka refused: inside a wait it counts as "not yet"."""


def is_not_yet(error):
    return (isinstance(error, (OSError, OutsideTrouble))
            or type(error).__name__ == "KafkaException")  # not imported here: standard library


def wait_until(predicate, timeout, what, every=0.02):
    """Call predicate() until it returns something true, and return that.

    timeout   seconds, times SKALD_PATIENCE
    what      names in the failure what was waited for
    every     pause between two looks; it grows to ten times that
    A refusal by PostgreSQL, Kafka or the system (no such table yet, a leader being elected)
    counts as "not yet"; the last one is named when the time is up.
    """
    end = time.monotonic() + timeout * PATIENCE
    pause = every
    last = None
    while True:
        try:
            last = predicate()
            if last:
                return last
        except Exception as error:
            if not is_not_yet(error):
                raise
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
