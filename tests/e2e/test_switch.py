"""From one mode to the other and back, under load."""

import os
import signal

from skaldtest import check, e2e, psql, wait_until

import writers
from appliers import applier
from relays import epoch, relay, settle, slot_state, wait_mode, wait_streaming

BACK_AND_FORTH = ("poll", "wal", "poll", "wal")


def wait_for(url, mode):
    """Until the relay is in this mode, with a slot that is read or none."""
    wait_mode(url, mode)
    if mode == "wal":
        wait_streaming(url)
    else:
        wait_until(lambda: slot_state(url) is None, 20, "the slot to be gone")


def config_path(t):
    return os.path.join(t.dir, "skaldd.conf")


def configure(t, mode):
    with open(config_path(t), "w", encoding="utf-8") as f:
        f.write("[relay]\nmode = %s\n" % mode)


@e2e("e2e.switch.under_load", records=1500, effects=1500, timeout=240)
def under_load(t):
    """poll, wal, poll, wal by restarts under load, the last leader killed instead of drained:
    nothing lost, nothing inverted, one effect each; every change begins an epoch, and a slot
    is there only in mode wal."""
    url, sink = t.database(), t.database()
    topic = t.topic("switch", partitions=3)
    applier(t, sink, topic)
    load = writers.Writers(t, url, topic, clients=8, rate=150).start()
    epochs, daemon = [], None
    for n, mode in enumerate(BACK_AND_FORTH):
        if daemon and n == len(BACK_AND_FORTH) - 1:
            daemon.kill()
        elif daemon:
            assert daemon.term(15) == 0
        daemon = relay(t, url, mode)
        wait_for(url, mode)
        t.kafka.wait_count(topic, t.kafka.count(topic) + 300)
        epochs.append(epoch(url))
    load.stop()
    ids = load.committed()
    records = settle(t, url, sink, topic, ids, recovered=True)
    assert epochs == sorted(set(epochs)), epochs
    used = [int(r.position.split(".")[0], 16) for r in records]
    assert len(set(used)) >= len(BACK_AND_FORTH), "epochs used: %s" % sorted(set(used))
    t.log("epochs %s, %d records in the last" % (epochs, used.count(epochs[-1])))


@e2e("e2e.switch.by_reload", records=900, effects=900)
def by_reload(t):
    """The same by SIGHUP: one process, told poll, wal, poll, wal, poll while others write."""
    url, sink = t.database(), t.database()
    topic = t.topic("reload", partitions=3)
    applier(t, sink, topic)
    configure(t, "poll")
    daemon = t.skaldd(url, env={"SKALD_CONFIG": config_path(t)})
    load = writers.Writers(t, url, topic, clients=4, rate=100).start()
    for mode in (*BACK_AND_FORTH[1:], "poll"):
        t.kafka.wait_count(topic, t.kafka.count(topic) + 200)
        configure(t, mode)
        daemon.signal(signal.SIGHUP)
        wait_for(url, mode)
    t.kafka.wait_count(topic, t.kafka.count(topic) + 100)
    load.stop()
    settle(t, url, sink, topic, load.committed(), recovered=True)
    assert "restart" not in daemon.log_text()
    assert daemon.alive


@e2e("e2e.switch.two_minds", records=600, effects=600)
def two_minds(t):
    """Two daemons configured with different modes: whoever leads has it his way, and a change
    of the leader loses and repeats nothing."""
    url, sink = t.database(), t.database()
    topic = t.topic("minds", partitions=3)
    applier(t, sink, topic)
    one = relay(t, url, "wal", name="wal")
    two = relay(t, url, "poll", wait=False, name="poll")
    writers.add(t, url, topic, 200)
    t.kafka.wait_count(topic, 200)
    one.kill()
    writers.add(t, url, topic, 200, first=201)
    wait_mode(url, "poll")
    t.kafka.wait_count(topic, 400)
    one.start()
    two.kill()
    writers.add(t, url, topic, 200, first=401)
    wait_mode(url, "wal")
    settle(t, url, sink, topic, writers.committed(url), recovered=True)


@e2e("e2e.switch.not_possible", records=200)
def not_possible(t):
    """wal is wanted and cannot be (wal_level replica): the relay polls and says why; when
    wal_level was changed it streams."""
    pg = t.cluster(wal_level="replica")
    url = t.database(cluster=pg)
    topic = t.topic("possible", partitions=1)
    daemon = relay(t, url, "wal", wait=False)
    writers.add(t, url, topic, 100)
    t.kafka.wait_count(topic, 100)
    daemon.wait_log("wal_level", 20)
    daemon.wait_ready(10)
    assert psql(url, "SELECT mode FROM skald.relays") == [["poll"]]
    pg.sql("ALTER SYSTEM SET wal_level = 'logical'")
    assert daemon.term(15) == 0  # else it looks again after half a minute
    pg.restart("fast")
    daemon.start()
    wait_streaming(url, 30)
    writers.add(t, url, topic, 100, first=101)
    records = settle(t, url, None, topic, writers.committed(url))
    assert check.repetitions(records) == 0


@e2e("e2e.switch.walsender_hangs", records=200)
def walsender_hangs(t):
    """poll is wanted while the walsender does not move (a disk that hangs, a large transaction
    it decodes): the slot cannot be dropped then, and goes by itself once it can."""
    url = t.database()
    topic = t.topic("hangs", partitions=1)
    configure(t, "wal")
    daemon = t.skaldd(url, env={"SKALD_CONFIG": config_path(t)})
    wait_streaming(url)
    writers.add(t, url, topic, 100)
    t.kafka.wait_count(topic, 100)
    walsender = int(psql(url, "SELECT active_pid FROM pg_replication_slots WHERE database ="
                              " current_database()")[0][0])
    os.kill(walsender, signal.SIGSTOP)
    try:
        configure(t, "poll")
        daemon.signal(signal.SIGHUP)
        wait_mode(url, "poll")
        writers.add(t, url, topic, 100, first=101)
        t.kafka.wait_count(topic, 200)
        assert slot_state(url), "it was dropped under its walsender: nothing was proved"
    finally:
        os.kill(walsender, signal.SIGCONT)
    wait_until(lambda: slot_state(url) is None, 30, "the slot to be gone")
    settle(t, url, None, topic, writers.committed(url), recovered=True)
    assert daemon.alive
