"""Brokers that die, Kafka that is away, topics that get more partitions."""

import threading
import time

from skaldtest import check, e2e, psql, wait_until

import kills
import writers
from appliers import applier, consumer_is_done, effect_order, effects_of, wait_effects
from relays import (MODES, VERSION, by_hand, mode_of, relay, settle, slot_state, wait_acked,
                    wait_mode)

# By hand: 12 kills, one every 10 s; Kafka away for 300 s at 2,000 transactions a second.
BROKER_KILLS = by_hand("BROKER_KILLS", 0)
BROKER_KILL_SECONDS = by_hand("BROKER_KILL_SECONDS", 6)
BROKER_RATE = by_hand("BROKER_RATE", 80)
OUTAGE_SECONDS = by_hand("OUTAGE_SECONDS", 0)
OUTAGE_RATE = by_hand("OUTAGE_RATE", 2000)


class Rates:
    """What the relay says it has published, looked at four times a second."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.samples = []  # (monotonic, published)
        self.phases = []  # (name, begin, end)
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self):
        while not self.ends.wait(0.25):
            try:
                n = self.daemon.metric("skald_relay_published_total")
            except OSError:
                continue
            if n is not None:
                self.samples.append((time.monotonic(), n))

    def phase(self, name, seconds):
        began = time.monotonic()
        time.sleep(seconds)
        self.phases.append((name, began, time.monotonic()))

    def done(self):
        self.ends.set()
        self.thread.join(5)

    def rate(self, began, ended):
        """Records a second, and the longest time without one."""
        inside = [s for s in self.samples if began <= s[0] <= ended]
        if len(inside) < 2:
            return 0.0, ended - began
        moved, gap = inside[0][0], 0.0
        for a, b in zip(inside, inside[1:]):
            if b[1] > a[1]:
                moved = b[0]
            gap = max(gap, b[0] - moved)
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0]), gap


def one_killed_at_a_time(t, mode, kill_count):
    """Three brokers, replication 3, two in sync: every few seconds one is killed and comes
    back while the writers go on. Nothing is lost, nothing inverted, one effect each."""
    k = t.private_kafka(3)
    url, sink = t.database(), t.database()
    topic = t.topic("three", partitions=6, replication=3,
                    config={"min.insync.replicas": "2"})
    applier(t, sink, topic)
    daemon = relay(t, url, mode)
    load = writers.Writers(t, url, topic, clients=8, rate=BROKER_RATE).start()
    t.kafka.wait_count(topic, 100)
    rates = Rates(daemon)
    rates.phase("before", 3)
    during = time.monotonic()
    for n in range(kill_count):
        broker = n % 3 + 1
        began = time.monotonic()
        k.kill(broker)
        rates.phase("broker %d dead" % broker, BROKER_KILL_SECONDS / 2)
        k.restart(broker)
        left = BROKER_KILL_SECONDS - (time.monotonic() - began)
        rates.phase("broker %d back" % broker, max(left, 0.5))
    ended = time.monotonic()
    rates.phase("after", 3)
    rates.done()
    load.stop()
    for name, a, b in rates.phases:
        t.log("%-15s %6.0f records/s, longest pause %.1f s" % ((name,) + rates.rate(a, b)))
    t.log("during all %d kills %.0f records/s; rebuilds %s" % (
        kill_count, rates.rate(during, ended)[0], daemon.metric("skald_relay_rebuilds_total")))
    settle(t, url, sink, topic, load.committed())
    assert daemon.alive and mode_of(url) == mode


for _mode in MODES:
    e2e("e2e.brokers.one_killed_at_a_time." + _mode, records=1000, effects=1000, kafka=False,
        timeout=300 + 25 * BROKER_KILLS)(
            lambda t, m=_mode: one_killed_at_a_time(t, m, BROKER_KILLS or 1))


# --- Kafka away, with a limit for what the slot may hold --------------------------------------

LIMIT_MB = 32 if OUTAGE_SECONDS else 8
WAL_MB = 64 if OUTAGE_SECONDS else 8  # max_wal_size of the outage's cluster


def ballast(url, mb):
    """WAL that is nobody's."""
    psql(url, "INSERT INTO public.ballast SELECT repeat(md5(random()::text), 60)"
              " FROM generate_series(1, %d)" % (mb * 500))


class WalWatch:
    """The most that lay in pg_wal, looked at all the time."""

    def __init__(self, pg):
        self.pg = pg
        self.most_mb = 0.0
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self):
        while not self.ends.wait(0.2):
            self.most_mb = max(self.most_mb, self.pg.wal_bytes() / 2 ** 20)

    def done(self):
        self.ends.set()
        self.thread.join(5)
        return self.most_mb


def within_bound(most_mb, bound_mb):
    """The checker of pg_wal, for the test and its control."""
    if most_mb <= bound_mb:
        return []
    return [check.Finding("grown", "pg_wal", "%.0f MB, at most %d allowed" % (most_mb, bound_mb))]


def outage(t, limit):
    """Kafka away while WAL is written: returns (findings about pg_wal, url, sink, topic, ...)."""
    k = t.private_kafka()
    pg = t.cluster(segment_mb=1, max_wal_size="'%dMB'" % WAL_MB, min_wal_size="'4MB'",
                   checkpoint_timeout="'30s'")
    url, sink = t.database(cluster=pg), t.database()
    topic = t.topic("outage", partitions=3)
    applier(t, sink, topic)
    daemon = relay(t, url, "wal", settings={"relay.slot_limit": limit})
    psql(url, "CREATE TABLE public.ballast (t text)")
    load = writers.Writers(t, url, topic, clients=8, single=bool(OUTAGE_SECONDS),
                           rate=OUTAGE_RATE if OUTAGE_SECONDS else 60)
    load.start()
    t.kafka.wait_count(topic, 300)
    watch = WalWatch(pg)
    k.kill(1)
    down = time.monotonic()
    if OUTAGE_SECONDS:
        wait_until(lambda: time.monotonic() - down > OUTAGE_SECONDS, OUTAGE_SECONDS + 1,
                   "the outage to be over", every=1)
    else:
        for _ in range(20):
            ballast(url, 4)
            pg.sql("CHECKPOINT")
            time.sleep(0.3)  # as long as a limit may take to be noticed
    load.stop()
    t.log("%.0f events a second were committed meanwhile" % (
        load.committed_count() / (time.monotonic() - down)))
    pg.sql("CHECKPOINT")
    most = watch.done()
    # The limit, what a checkpoint cycle may add, and what is written before it is noticed.
    bound = LIMIT_MB + 2 * WAL_MB + (128 if OUTAGE_SECONDS else 24)
    t.log("limit %s: pg_wal held %.0f MB at most in %.0f s, bound %d MB" % (
        limit, most, time.monotonic() - down, bound))
    return within_bound(most, bound), k, url, sink, topic, load, daemon


@e2e("e2e.brokers.outage_with_slot_limit", records=300, effects=300, kafka=False,
     timeout=300 + 8 * OUTAGE_SECONDS)
def outage_with_slot_limit(t):
    """Kafka away and [relay] slot_limit: the slot is shed before pg_wal outgrows its bound;
    when Kafka is back everything arrives, once, and the relay streams again by itself."""
    found, k, url, sink, topic, load, daemon = outage(t, "%dMiB" % LIMIT_MB)
    check.require_none(found, "pg_wal")
    wait_until(lambda: slot_state(url) is None and mode_of(url) == "poll", 20,
               "the slot to be shed")
    k.restart(1)
    ids = load.committed()
    t.kafka.wait_count(topic, len(ids), timeout=60 + len(ids) / 3000)
    wait_acked(url, 60 + len(ids) // 3000)
    records = t.check_topic(topic, expected=ids, version=VERSION, recovered=True)
    t.log("%d events arrived, %d repetitions, %d recovered" % (
        len(ids), check.repetitions(records), sum(check.is_recovered(r) for r in records)))
    wait_effects(sink, len(ids), 60 + len(ids) // 500)
    wait_until(lambda: consumer_is_done(sink), 60, "the consumer to reach the end")
    t.check_effects(ids, effects_of(sink))
    check.require_none(check.effects_in_order(effect_order(sink)))
    wait_mode(url, "wal", 60)
    assert daemon.alive


@e2e("e2e.brokers.control_without_slot_limit", records=1, kafka=False,
     timeout=300 + 2 * OUTAGE_SECONDS)
def control_without_slot_limit(t):
    """The same without a limit: the checker says that pg_wal outgrew the bound."""
    check.require_kind(outage(t, "0")[0], "grown")
    t.checked(records=1)


# --- more partitions --------------------------------------------------------------------------


def grown(t, mode, failpoint):
    """6 partitions become 12 under load, and the relay dies on its way to use them: nothing
    is lost for a consumer that trusts positions."""
    url, sink = t.database(), t.database()
    topic = t.topic("grown", partitions=6)
    applier(t, sink, topic)
    kafka = {"kafka.topic.metadata.refresh.interval.ms": "1000"}
    first = relay(t, url, mode, settings=kafka, failpoint=failpoint + ":1")
    wait_mode(url, mode)
    load = writers.Writers(t, url, topic, clients=8, rate=60).start()
    t.kafka.wait_count(topic, 300)
    t.kafka.grow_topic(topic, 12)
    first.wait_killed(90)
    relay(t, url, mode, settings=kafka)
    wait_until(lambda: sum(hi for p, (_, hi) in t.kafka.ends(topic).items() if p >= 6) > 50, 90,
               "records in the new partitions")
    load.stop()
    ids = load.committed()
    t.kafka.wait_count(topic, len(ids))
    wait_acked(url)
    # A key moves once: offsets of two partitions compare nothing, positions do.
    records = t.check_topic(topic, expected=ids)
    check.require_none(check.in_position_order(records, VERSION), "order by position")
    moves = moved_back(records)
    assert not moves, moves[:3]
    t.log("%d events, %d repetitions, %d in the new partitions" % (
        len(ids), check.repetitions(records), sum(r.partition >= 6 for r in records)))
    wait_effects(sink, len(ids), 90)
    wait_until(lambda: consumer_is_done(sink), 60, "the consumer to reach the end")
    t.check_effects(ids, effects_of(sink))
    return topic


def moved_back(records):
    """Keys that lie in more than two partitions, or went back to the first."""
    bad, places = [], {}
    for r in sorted(check.first_appearances(records), key=lambda r: r.position):
        way = places.setdefault(r.key, [])
        if not way or way[-1] != r.partition:
            way.append(r.partition)
            if len(way) > 2:
                bad.append((r.key, way))
    return bad


for _name in kills.GROW:
    for _mode in MODES:
        e2e("e2e.crash.%s.%s" % (_name, _mode), records=400, effects=400, timeout=300)(
            lambda t, f=_name, m=_mode: grown(t, m, f))


@e2e("e2e.brokers.control_count_taken_at_once", records=60, effects=1)
def control_count_taken_at_once(t):
    """A relay that uses the new count while records of the old one are outstanding: what it
    sends again goes to another partition, under a position below that partition's watermark,
    and the consumer that trusts positions drops it. The checker names the loss."""
    sink = t.database()
    topic = t.topic("at-once", partitions=1)
    applier(t, sink, topic)
    stream = "00000000deadbeef"

    def row(n, partition):
        ident = "018f0000-0000-7000-8000-%012x" % n
        return (b"k%d" % (n % 5), b'{"version": %d}' % n, [
            ("ce_specversion", b"1.0"), ("ce_id", ident.encode()), ("ce_source", b"/x"),
            ("ce_type", b"t"), ("content-type", b"application/json"),
            ("ce_stream", stream.encode()),
            ("ce_sequence", b"00000001.%016x.%08x" % (1, n))], partition)

    ids = ["018f0000-0000-7000-8000-%012x" % n for n in range(60)]
    t.kafka.produce(topic, [row(n, 0) for n in range(20)])
    t.kafka.grow_topic(topic, 2)
    # 20 to 39 were sent under the old count and lost with a leader; 40 to 59 under the new one
    t.kafka.produce(topic, [row(n, 1) for n in range(40, 60)])
    t.kafka.produce(topic, [row(n, 1) for n in range(20, 40)])
    wait_effects(sink, 40)
    wait_until(lambda: consumer_is_done(sink), 60, "the consumer to reach the end")
    found = check.effects(ids, effects_of(sink))
    check.require_kind(found, "lost")
    records = t.kafka.read_topic(topic)
    check.require_kind(check.topic(records, ids), "unordered")
    t.checked(records=len(records), effects=check.kinds(found)["lost"])
