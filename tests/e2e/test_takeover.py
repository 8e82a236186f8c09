"""A stopped leader, a slow handler, a database that goes away: somebody else goes on, or the
same one does by itself, and nothing happens twice."""

import time

from skaldtest import check, e2e, psql, wait_until
from skaldtest.wait import PATIENCE

import writers
from appliers import (VERSION, applier, consumer_is_done, effect_order, effects_of,
                      wait_effects)
from relays import MODES, relay, wait_acked


def term(url):
    return int(psql(url, "SELECT term FROM skald.lease WHERE kind = 'relay'")[0][0])


def leader(url):
    """Owner of the relay's lease."""
    rows = psql(url, "SELECT owner FROM skald.lease WHERE kind = 'relay'"
                     " AND until > clock_timestamp()")
    return rows[0][0] if rows else None


def relay_stopped(t, mode, stopped_s):
    """SIGSTOP of the leading relay for 10 s under load: the other publishes once the lease has
    ended (2 s, looked at four times a second), and after SIGCONT the first brings nothing new,
    only repetitions."""
    url = t.database()
    topic = t.topic("zombie", partitions=3)
    relays = [relay(t, url, mode, name="a"), relay(t, url, mode, name="b")]
    load = writers.Writers(t, url, topic, clients=4, rate=150).start()
    t.kafka.wait_count(topic, 300)
    owner, old_term = leader(url), term(url)
    first = next(r for r in relays if (":%d:" % r.pid) in owner)
    second = next(r for r in relays if r is not first)
    first.freeze()
    frozen = time.monotonic()
    wait_until(lambda: leader(url) not in (None, owner), 5, "another leader")
    before = t.kafka.count(topic)
    wait_until(lambda: t.kafka.count(topic) > before, 5, "the other to publish")
    gap = time.monotonic() - frozen
    t.log("the other published %.2f s after the stop" % gap)
    assert gap <= 5 * PATIENCE, gap
    wait_until(lambda: time.monotonic() - frozen > stopped_s, stopped_s + 1,
               "the time of the stop to be over", every=0.5)
    first.thaw()
    t.kafka.wait_count(topic, t.kafka.count(topic) + 600)
    load.stop()
    ids = load.committed()
    t.kafka.wait_count(topic, len(ids))
    wait_acked(url)
    assert term(url) > old_term, "the zombie leads again without a new term"
    second.term()
    assert first.alive
    wait_until(lambda: leader(url), 5, "the first one to lead again, with a term of its own")
    t.check_topic(topic, expected=ids, version=VERSION)


e2e("e2e.takeover.relay_stopped.poll", records=2000, alone=True)(
    lambda t: relay_stopped(t, "poll", 10))
e2e("e2e.takeover.relay_stopped.wal", records=1000, alone=True)(
    lambda t: relay_stopped(t, "wal", 4))


def relay_drains(t, mode):
    """SIGTERM: the leader finishes, gives the lease up and the next one leads at once."""
    url = t.database()
    topic = t.topic("drain", partitions=2)
    first = relay(t, url, mode, name="a")
    writers.add(t, url, topic, 500)
    second = relay(t, url, mode, name="b")
    owner = leader(url)
    assert first.term(15) == 0
    wait_until(lambda: leader(url) not in (None, owner), 2, "the second to lead at once")
    t.kafka.wait_count(topic, 500)
    assert second.alive
    records = t.check_topic(topic, expected=writers.committed(url), version=VERSION)
    assert len(records) == 500, "a drain repeats nothing"


for _mode in MODES:
    e2e("e2e.takeover.relay_drains." + _mode, records=500)(
        lambda t, m=_mode: relay_drains(t, m))


@e2e("e2e.takeover.consumer_stopped", records=400, effects=400, alone=True)
def consumer_stopped(t):
    """SIGSTOP of a consumer for 10 s under load: the other applies its partitions within the
    session time-out, a heartbeat and a rejoining; no effect twice after SIGCONT."""
    session_s = 6
    url, sink = t.database(), t.database()
    topic = t.topic("zombie", partitions=4)
    t.skaldd(url)
    group = t.group()
    args = ["--slow", "2"]
    one = applier(t, sink, topic, group=group, args=args)
    two = applier(t, sink, topic, group=group, args=args)
    load = writers.Writers(t, url, topic, clients=2, rate=20).start()

    def both_work():
        return len(psql(sink, "SELECT pid FROM public.effect WHERE at > clock_timestamp()"
                              " - interval '2 s' GROUP BY pid")) == 2

    wait_until(both_work, 60, "both consumers to have partitions")
    one.freeze()
    frozen = time.monotonic()
    stopped_keys = psql(sink, "SELECT count(*) FROM public.effect")[0][0]

    def all_partitions_move():
        return len(psql(sink, "SELECT DISTINCT partition FROM skald.consumers WHERE owner LIKE"
                              " '%%:%d:%%'" % two.pid)) == 4

    wait_until(all_partitions_move, session_s + 6, "the other to own every partition")
    before = int(psql(sink, "SELECT count(*) FROM public.effect")[0][0])
    wait_until(lambda: int(psql(sink, "SELECT count(*) FROM public.effect")[0][0]) > before, 3,
               "the other to apply")
    gap = time.monotonic() - frozen
    t.log("taken over %.2f s after the stop (%s effects then)" % (gap, stopped_keys))
    assert gap <= (session_s + 6) * PATIENCE, gap
    wait_until(lambda: time.monotonic() - frozen > 10, 11, "ten seconds to be over", every=0.5)
    one.thaw()
    wait_until(both_work, 60, "both to work again")
    load.stop()
    ids = load.committed()
    wait_effects(sink, len(ids), 120)
    wait_until(lambda: consumer_is_done(sink), 30, "the consumers to reach the end")
    t.check_effects(ids, effects_of(sink))
    check.require_none(check.effects_in_order(effect_order(sink)))
    t.checked(records=len(ids))


@e2e("e2e.takeover.slow_handler", records=200, effects=1)
def slow_handler(t):
    """A handler that sleeps 10 s: the relay of the same service goes on publishing, and no
    lease is lost."""
    url = t.database()
    topic, out = t.topic("slow", partitions=1), t.topic("out", partitions=1)
    t.kafka.produce(topic, [(b"k", b"{}", [
        ("ce_specversion", b"1.0"), ("ce_id", b"slow-1"), ("ce_source", b"/test"),
        ("ce_type", b"test.slow")])])
    service = applier(t, url, topic, args=["--slow", "10000"])
    wait_until(lambda: leader(url), 20, "the service's relay to lead")
    wait_until(lambda: psql(url, "SELECT 1 FROM pg_stat_activity WHERE state ="
                                 " 'idle in transaction'"), 30, "the handler to sleep")
    term = psql(url, "SELECT term FROM skald.lease WHERE kind = 'relay'")
    for n in range(4):
        writers.add(t, url, out, 50, first=1 + 50 * n)
        t.kafka.wait_count(out, 50 * (n + 1), timeout=2)
    assert not effects_of(url), "the handler has ended: the test proved nothing"
    assert psql(url, "SELECT term FROM skald.lease WHERE kind = 'relay'") == term
    wait_effects(url, 1, 30)
    assert service.alive
    t.check_topic(out, expected=writers.committed(url), version=VERSION)
    t.check_effects(["slow-1"], effects_of(url))


@e2e("e2e.takeover.postgres_down", records=600, effects=600, timeout=240)
def postgres_down(t):
    """PostgreSQL away for 30 s in the middle: no dead letter, everything catches up by itself."""
    url, sink = t.database(), t.database()
    topic = t.topic("outage", partitions=2)
    relay = t.skaldd(url)
    consumer = applier(t, sink, topic, args=["--slow", "5"])
    writers.add(t, url, topic, 400)
    wait_effects(sink, 50)
    t.pg.stop("fast")
    down = time.monotonic()
    wait_until(lambda: not relay.is_ready(), 10, "the relay to say that it is not ready")
    wait_until(lambda: time.monotonic() - down > 30, 31, "thirty seconds to be over", every=1)
    t.pg.start()
    relay.wait_ready(20)
    writers.add(t, url, topic, 200, first=401)
    ids = writers.committed(url)
    wait_effects(sink, len(ids), 60)
    wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
    assert relay.alive and consumer.alive and relay.starts == consumer.starts == 1
    assert psql(sink, "SELECT count(*) FROM skald.dead_letters")[0][0] == "0"
    t.check_topic(topic, expected=ids, version=VERSION)
    t.check_effects(ids, effects_of(sink))
