"""The relay killed at a failpoint, and all failpoints by name.

Every name that `skaldd --list-failpoints` prints stands in one of these lists, and every
name of a list is killed at by a test.
"""

import time

from skaldtest import psql, wait_until
from skaldtest.wait import PATIENCE

import writers
from appliers import applier
from relays import relay, settle

EVENTS = 600

RELAY = ["relay_after_tick", "relay_after_read", "relay_after_produce", "relay_after_ack",
         "relay_before_mark"]
RUNNER = ["runner_after_begin", "runner_after_handler", "runner_before_commit",
          "runner_after_commit", "runner_before_offset"]
OTHERS = ["relay_after_truncate_check", "runner_after_dead_letter", "replay_after_claim",
          "replay_before_commit"]
# Once in a relay's life, on its way into mode wal.
ENTER = ["stream_after_slot", "stream_after_enter"]
STREAM = {"stream_after_read": (2,), "stream_after_produce": (1, 3),  # name: passages
          "stream_after_ack": (1, 3), "stream_after_record": (3,), "stream_after_status": (3,),
          "stream_mid_transaction": (1, 300)}
RECOVER = ["recover_after_leave", "recover_after_scan"]
PARK = ["park_after_insert"]
RELEASE = ["release_after_load", "release_after_produce"]
REBUILD = ["rebuild_after_destroy"]
GROW = ["topics_after_grow"]
ALL = (RELAY + RUNNER + OTHERS + ENTER + list(STREAM) + RECOVER + PARK + RELEASE + REBUILD + GROW)


def load_until_dead(t, url, topic, first, seconds=60, is_out=None):
    """Rounds of one transaction each, the next when the last is published (as the topic's
    count says, or is_out), until the relay dies; one more with nobody there. Returns nothing:
    writers.committed knows."""
    end = time.monotonic() + seconds * PATIENCE
    done = 0
    while first.alive and time.monotonic() < end:
        writers.add(t, url, topic, EVENTS, first=done + 1)
        done += EVENTS
        wait_until(lambda: not first.alive or (
            is_out() if is_out else t.kafka.count(topic) >= done), 30,
                   "the relay to publish or to die")
    first.wait_killed(1)
    writers.add(t, url, topic, EVENTS, first=done + 1)


def kill_relay(t, failpoint, nth, mode, env=None):
    """The relay dies at the n-th passage under load; another goes on."""
    url, sink = t.database(), t.database()
    topic = t.topic("crash", partitions=3)
    applier(t, sink, topic)
    first = relay(t, url, mode, failpoint="%s:%d" % (failpoint, nth), env=env)
    load_until_dead(t, url, topic, first)
    relay(t, url, mode, env=env)
    settle(t, url, sink, topic, writers.committed(url))
