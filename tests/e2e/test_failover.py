"""A streaming standby is promoted while the relay runs: what was published and is lost, what
is new and must not be swallowed, and the gate that lets nothing out too early."""

import time

from skaldtest import check, e2e, either_url, psql, wait_until

import writers
from appliers import applier, consumer_is_done, effects_of, wait_effects
from relays import MODES, VERSION, epoch, relay, wait_acked, wait_mode

HOLD_S = 1.5  # how long the gate is watched; without it everything is out in a tenth of that


class Pair:
    """A primary, its standby "north", a database on both, and a relay that finds either."""

    def __init__(self, t, mode, gate=None, failpoint=None):
        self.t, self.mode = t, mode
        self.a = t.cluster()
        self.b = t.standby(self.a, "north")
        self.url_a = t.database(cluster=self.a)
        name = self.url_a.rsplit("/", 1)[1]
        self.url_b = self.b.url(name)
        self.url = either_url(name, self.a, self.b)
        self.topic = t.topic("failover", partitions=2)
        self.settings = {"relay.gate": gate} if gate else {}
        self.daemon = relay(t, self.url, mode, wait=False, settings=self.settings,
                            failpoint=failpoint)
        wait_mode(self.url_a, mode)
        self.done = 0

    def add(self, url, transactions, rows):
        """Events in transactions of their own, so that ticks and LSNs move on; their ids."""
        ids = []
        for _ in range(transactions):
            ids += writers.add(self.t, url, self.topic, rows, first=self.done + 1)
            self.done += rows
        return ids

    def published(self):
        return self.t.kafka.count(self.topic)

    def stays(self, count):
        """The topic holds that many, and goes on holding that many."""
        end = time.monotonic() + HOLD_S
        while time.monotonic() < end:
            assert self.published() == count, "published: %d, not %d" % (self.published(), count)
            time.sleep(0.1)

    def fail_over(self):
        self.a.stop("immediate")
        self.b.promote()


def without_epoch(records):
    """The control's consumer: a watermark that compares positions without their epoch."""
    applied, mark = [], {}
    for r in records:  # in partition and offset order
        place = (r.stream, r.partition)
        rest = r.position.split(".", 1)[1]
        if rest > mark.get(place, ""):
            mark[place] = rest
            applied.append(r.id)
    return applied


def promoted(t, mode):
    """Without a gate: what the survivor lost may have been published, but nothing that it has
    is lost or swallowed. Control: a consumer that compares without the epoch swallows."""
    p = Pair(t, mode)
    sink = t.database()
    applier(t, sink, p.topic)
    p.add(p.url_a, 4, 50)
    t.kafka.wait_count(p.topic, 200)
    wait_acked(p.url_a)
    p.b.wait_attached()
    before = epoch(p.url_a)
    p.b.detach()
    lost = []
    for n in range(10):
        lost += p.add(p.url_a, 1, 10)
        t.kafka.wait_count(p.topic, 210 + 10 * n)
    p.fail_over()
    new = p.add(p.url_b, 1, 50)
    ids = writers.committed(p.url_b)
    assert set(new) < set(ids) and not set(lost) & set(ids), "nothing was lost: no failover"
    t.kafka.wait_count(p.topic, 350)
    wait_acked(p.url_b)
    p.daemon.wait_ready(30)
    assert epoch(p.url_b) > before
    records = t.kafka.read_topic(p.topic)
    found = check.topic(records, ids, version=VERSION, recovered=True)
    assert check.kinds(found) == {"phantom": len(lost)}, check.explain(found)
    t.log("%d events survive, %d were published and are lost, %d repetitions, %d recovered" % (
        len(ids), len(lost), check.repetitions(records),
        sum(check.is_recovered(r) for r in records)))
    wait_effects(sink, len(ids) + len(lost))
    wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
    t.check_effects(ids + lost, effects_of(sink))
    found = check.effects(ids, without_epoch(records))
    check.require_kind(found, "lost", "a consumer that compares without the epoch:")
    t.checked(records=len(records))
    wait_mode(p.url_b, mode, 60)


def gated(t, mode):
    """With the gate nothing is published that the standby has not flushed: neither while it
    is connected and stopped, nor while it is away; so the failover finds nothing lost in the
    topic. Its successor's standby of the same name opens the gate again."""
    p = Pair(t, mode, gate="north")
    p.add(p.url_a, 2, 50)
    t.kafka.wait_count(p.topic, 100)
    p.b.freeze()
    p.add(p.url_a, 1, 50)
    p.stays(100)
    p.b.thaw()
    t.kafka.wait_count(p.topic, 150)
    wait_acked(p.url_a)
    p.b.detach()
    lost = p.add(p.url_a, 5, 10)
    p.stays(150)
    p.fail_over()
    p.add(p.url_b, 1, 50)
    ids = writers.committed(p.url_b)
    assert len(ids) == 200 and not set(lost) & set(ids), "nothing was lost: no failover"
    t.standby(p.b, "north")
    t.kafka.wait_count(p.topic, 200)
    wait_acked(p.url_b)
    records = t.check_topic(p.topic, expected=ids, version=VERSION, recovered=True)
    t.log("%d events survive and are published, %d are lost and were not" % (
        len(records), len(lost)))
    p.daemon.wait_ready(30)


def unrecorded(t, mode):
    """The primary and the relay die when rows are in the topic and nobody has recorded it;
    the standby has the rows. They may be repeated, as what they are or flagged, and have one
    effect."""
    p = Pair(t, mode, failpoint="relay_after_ack:4" if mode == "poll" else "stream_after_ack:4")
    sink = t.database()
    applier(t, sink, p.topic)
    while p.daemon.alive and p.done < 2000:
        p.add(p.url_a, 1, 50)
        wait_until(lambda: not p.daemon.alive or p.published() >= p.done, 30,
                   "the relay to publish or to die")
    p.daemon.wait_killed(1)
    p.b.wait_attached()
    p.fail_over()
    relay(t, p.url, mode, wait=False)
    p.add(p.url_b, 1, 50)
    ids = writers.committed(p.url_b)
    t.kafka.wait_count(p.topic, len(ids))
    wait_acked(p.url_b)
    records = t.check_topic(p.topic, expected=ids, version=VERSION, recovered=True)
    t.log("%d events, %d repetitions, %d recovered" % (
        len(ids), check.repetitions(records), sum(check.is_recovered(r) for r in records)))
    wait_effects(sink, len(ids))
    wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
    t.check_effects(ids, effects_of(sink))


for _mode in MODES:
    e2e("e2e.failover.promoted." + _mode, records=350, effects=350)(
        lambda t, m=_mode: promoted(t, m))
    e2e("e2e.failover.gated." + _mode, records=200)(lambda t, m=_mode: gated(t, m))
    e2e("e2e.failover.unrecorded." + _mode, records=200, effects=200)(
        lambda t, m=_mode: unrecorded(t, m))
