"""SIGKILL of the relay at every failpoint of the WAL way, on the way in and on the way out;
PostgreSQL crashed and restarted under both modes."""

from skaldtest import check, e2e, psql, wait_until
from skaldtest.librdkafka import newer_in

import kills
import writers
from appliers import applier
from kills import EVENTS, kill_relay
from relays import MODES, relay, settle, slot_state, wait_mode

for _name in kills.ENTER:
    e2e("e2e.crash.%s.1" % _name, records=EVENTS, effects=EVENTS)(
        lambda t, f=_name: kill_relay(t, f, 1, "wal"))
for _name, _passages in kills.STREAM.items():
    for _nth in _passages:
        e2e("e2e.crash.%s.%d" % (_name, _nth), records=EVENTS, effects=EVENTS)(
            lambda t, f=_name, n=_nth: kill_relay(t, f, n, "wal"))


for _mode, _name in (("poll", "relay_after_produce"), ("wal", "stream_after_produce")):
    e2e("e2e.crash.newer_librdkafka." + _mode, records=EVENTS, effects=EVENTS)(
        lambda t, m=_mode, f=_name: kill_relay(
            t, f, 1, m, env={"LD_LIBRARY_PATH": newer_in(t.dir)}))


def leave(t, failpoint, then):
    """The stream is left after a kill with records that nobody recorded; the relay dies on
    its way out, and a third goes on in mode `then`: what the topics hold is not sent again."""
    url, sink = t.database(), t.database()
    topic = t.topic("leave", partitions=3)
    applier(t, sink, topic)
    first = relay(t, url, "wal", failpoint="stream_after_ack:2")
    kills.load_until_dead(t, url, topic, first)
    assert psql(url, "SELECT mode FROM skald.relays") == [["wal"]]
    sent = t.kafka.count(topic)
    second = relay(t, url, "poll", failpoint=failpoint + ":1")
    second.wait_killed(30)
    assert psql(url, "SELECT mode FROM skald.relays") == [["poll"]]
    relay(t, url, then)
    writers.add(t, url, topic, 50, first=100001)
    records = settle(t, url, sink, topic, writers.committed(url), recovered=True)
    t.log("%d records were there before the stream was left" % sent)
    if failpoint in kills.RECOVER:  # the others have opened a tick, which is sent again whole
        assert check.repetitions(records) == 0, "what the topic held was sent again"
    wait_mode(url, then)
    if then == "poll":
        assert slot_state(url) is None, "a slot that nobody reads holds WAL back"


for _name, _then in (("recover_after_leave", "poll"), ("recover_after_leave", "wal"),
                     ("recover_after_scan", "poll"), ("recover_after_scan", "wal"),
                     ("relay_after_produce", "wal")):
    e2e("e2e.crash.leaving.%s.%s" % (_name, _then), records=EVENTS, effects=EVENTS)(
        lambda t, f=_name, m=_then: leave(t, f, m))


def truncate_check(t, mode):
    """Killed between the look and the truncation of a leaf: nothing unpublished is gone."""
    url = t.database()
    topic = t.topic("crash", partitions=2)
    settings = {"retention.outbox": "1s"}
    first = relay(t, url, mode, failpoint="relay_after_truncate_check:1", settings=settings)
    writers.add(t, url, topic, 100)
    t.kafka.wait_count(topic, 100)
    psql(url, "SELECT setval('skald.outbox_id', 1 << 20)")  # the next leaf: the first may go
    first.wait_killed(60)
    assert psql(url, "SELECT count(*) FROM skald.outbox_0") == [["100"]]
    writers.add(t, url, topic, 100, first=101)
    relay(t, url, mode, settings=settings)
    t.kafka.wait_count(topic, 200)
    wait_until(lambda: psql(url, "SELECT count(*) FROM skald.outbox_0") == [["0"]], 60,
               "the old leaf to be emptied")
    settle(t, url, None, topic, writers.committed(url))


for _mode in MODES:
    e2e("e2e.crash.relay_after_truncate_check." + _mode, records=200)(
        lambda t, m=_mode: truncate_check(t, m))


# --- PostgreSQL itself ----------------------------------------------------------------------


def restart_under_load(t, mode, how, relay_too):
    """PostgreSQL crashes or restarts twice under load, the relay too or not."""
    url, sink = t.database(), t.database()
    topic = t.topic("restart", partitions=3)
    applier(t, sink, topic)
    daemon = relay(t, url, mode)
    load = writers.Writers(t, url, topic, clients=8, rate=150)
    for _ in range(2):
        load.start()
        seen = t.kafka.count(topic)
        t.kafka.wait_count(topic, seen + 150)
        if relay_too:
            daemon.kill()
        t.pg.stop(how)
        load.proc.kill()
        t.pg.start()
        if relay_too:
            daemon.start()
        daemon.wait_ready(30)
    load.start()
    t.kafka.wait_count(topic, t.kafka.count(topic) + 150)
    load.stop()
    settle(t, url, sink, topic, load.committed())
    wait_mode(url, mode)
    assert daemon.alive


for _mode in MODES:
    for _how in ("immediate", "fast"):
        e2e("e2e.crash.postgres_%s.%s" % (_how, _mode), records=450, effects=450)(
            lambda t, m=_mode, h=_how: restart_under_load(t, m, h, False))
    e2e("e2e.crash.postgres_and_relay.%s" % _mode, records=450, effects=450)(
        lambda t, m=_mode: restart_under_load(t, m, "immediate", True))
