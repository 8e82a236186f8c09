"""Records that Kafka refuses, topics that are missing: their keys wait, in order, and nobody
else notices."""

import json
import os
import statistics
import struct
import time

from skaldtest import check, e2e, psql, wait_until
from skaldtest.librdkafka import newer_in, uses

import kills
import writers
from relays import MODES, VERSION, by_hand, relay, wait_acked, wait_mode

HEADERS = ("'c', '00-%s-%s-01'" % ("1" * 32, "2" * 16))


def insert_large(url, topic, key, version, mb):
    """A row as outbox_add would not take it; its id."""
    return psql(url, """
        INSERT INTO skald.outbox (message_id, topic, key, type, source, correlation_id,
            traceparent, data)
        SELECT gen_random_uuid(), '%s', '%s', 't', '/s', %s,
            convert_to('{"version": %d, "x": "' || repeat('x', %d) || '"}', 'UTF8')
        RETURNING message_id""" % (topic, key, HEADERS, version, mb * 1024 * 1024))[0][0]


def parked(url):
    """(topic, key) -> how many messages wait, from the copies themselves."""
    return {(a, b): int(n) for a, b, n in psql(url, """
        SELECT k.topic, convert_from(k.key, 'UTF8'), count(m.id) FROM skald.parked_key k
        LEFT JOIN skald.parked_message m ON m.topic = k.topic AND m.parked_key = k.key
        WHERE k.kind = 'relay' GROUP BY 1, 2""")}


def wait_parked(url, wanted, timeout=40):
    wait_until(lambda: parked(url) == wanted, timeout, "parked keys to be %r" % wanted)


def wait_none_parked(url, timeout=60):
    wait_until(lambda: not parked(url), timeout, "no key to be parked")


def release(url):
    """As the operator's verb does it, for every parked key."""
    psql(url, "SELECT skald.park_release(topic, key) FROM skald.parked_key WHERE kind = 'relay'")


def let_out(url, timeout=60):
    """Every key; asked again, since one that the relay is just trying takes no marker."""
    wait_until(lambda: (release(url), not parked(url))[1], timeout, "all keys to be let out",
               every=0.3)


def settings_for(**more):
    found = {"topics.create": "false"}
    found.update(more)
    return found


def keys_wait_and_go(t, mode, env=None):
    """A record of 30 MB, a topic that is missing for good, one that is made later: their keys
    wait with what follows; every other key flows within a second; afterwards they go in
    order, the head skipped or repaired."""
    url = t.database()
    limit_mb, large_mb = (20, 30) if mode == "poll" else (5, 12)
    topic = t.topic("ok", partitions=3, config={"max.message.bytes": str(limit_mb * 1024 * 1024)})
    late, never = t.topic_name("late"), t.topic_name("never")
    daemon = relay(t, url, mode, settings=settings_for(), env=env)
    large = insert_large(url, topic, "k3", 0, large_mb)
    stuck = writers.add(t, url, late, 30)
    for_ever = writers.add(t, url, never, 20)
    began = time.monotonic()
    ids = writers.add(t, url, topic, 100)
    t.kafka.wait_count(topic, 90, timeout=10)
    t.log("90 of other keys published after %.2f s" % (time.monotonic() - began))
    wanted = {(topic, "k3"): 11}
    wanted.update({(late, "k%d" % k): 3 for k in range(10)})
    wanted.update({(never, "k%d" % k): 2 for k in range(10)})
    wait_parked(url, wanted)
    began = time.monotonic()
    ids += writers.add(t, url, topic, 100, first=101)
    t.kafka.wait_count(topic, 180, timeout=2)
    t.log("with parked keys 90 more after %.2f s" % (time.monotonic() - began))
    assert daemon.alive and t.kafka.count(topic) == 180
    wait_until(lambda: parked(url)[(topic, "k3")] == 21, 10, "what follows of k3 to wait, too")
    parked_are_seen(t, url, daemon, topic, never)
    t.kafka.create_topic(late, 2)
    stuck += writers.add(t, url, late, 30, first=31)
    t.kafka.wait_count(late, 60, timeout=40)
    t.check_topic(late, expected=stuck, version=VERSION)
    act_on_head(t, url, topic, never, large, mode)
    t.kafka.wait_count(topic, 201 if mode == "wal" else 200, timeout=40)
    wait_none_parked(url)
    wait_acked(url)
    t.check_topic(topic, expected=ids + ([large] if mode == "wal" else []), version=VERSION)
    assert never not in t.kafka.topics()
    assert len(for_ever) == 20
    return daemon


def small_limit(t, mode):
    """A topic that takes 20 kB at a time: its records are small, the batches of a backlog are
    not. One producer is given up for that, the next makes smaller ones; nobody waits."""
    url = t.database()
    topic = t.topic("small", partitions=2, config={"max.message.bytes": "20000"})
    ids = writers.add(t, url, topic, 20000)
    daemon = relay(t, url, mode)
    if mode == "wal":  # what is there before is polled
        ids += writers.add(t, url, topic, 20000, first=20001)
    t.kafka.wait_count(topic, len(ids), timeout=30)
    wait_acked(url)
    t.check_topic(topic, expected=ids, version=VERSION)
    rebuilds = daemon.metric("skald_relay_rebuilds_total")
    t.log("%d producers given up" % rebuilds)
    assert rebuilds <= 1, rebuilds
    assert psql(url, "SELECT count(*) FROM skald.parked_key") == [["0"]]


def not_authorised(t, mode):
    """A topic that the relay may not write to any more: its keys wait, all others flow; with
    the right they are let out, in order."""
    t.private_kafka(acls=True)
    url = t.database()
    topic, shut = t.topic("open", partitions=2), t.topic("shut", partitions=2)
    daemon = relay(t, url, mode)
    ids, kept = writers.add(t, url, topic, 50), writers.add(t, url, shut, 50)
    t.kafka.wait_count(shut, 50)
    t.kafka.forbid_writing(shut)
    kept += writers.add(t, url, shut, 50, first=51)
    wait_until(lambda: sum(parked(url).values()) == 50, 30, "all of the topic to wait")
    kept += writers.add(t, url, shut, 50, first=101)
    ids += writers.add(t, url, topic, 50, first=51)
    t.kafka.wait_count(topic, 100, timeout=5)
    wait_until(lambda: sum(parked(url).values()) == 100, 10, "what follows to wait too")
    reasons = psql(url, "SELECT DISTINCT reason FROM skald.parked")
    assert reasons and all("uthoriz" in r[0] for r in reasons), reasons
    assert t.kafka.count(shut) == 50
    status, body = daemon.http("/readyz")
    assert status == 200, body
    t.kafka.allow_writing(shut)
    let_out(url)
    wait_acked(url)
    t.check_topic(shut, expected=kept, version=VERSION)
    t.check_topic(topic, expected=ids, version=VERSION)


def newer_librdkafka(t, mode):
    """The same with the one that the Python client brings along."""
    folder = newer_in(t.dir)
    daemon = keys_wait_and_go(t, mode, env={"LD_LIBRARY_PATH": folder})
    assert uses(daemon.pid, folder)


def parked_are_seen(t, url, daemon, topic, never):
    """View, tool and metrics say what waits and why."""
    rows = psql(url, "SELECT topic, waiting, reason FROM skald.parked WHERE kind = 'relay'"
                     " AND convert_from(key, 'UTF8') = 'k3'")
    by_topic = {r[0]: r for r in rows}
    assert int(by_topic[topic][1]) == 21, rows
    assert by_topic[topic][2] and by_topic[never][2], rows
    assert psql(url, "SELECT parked_keys FROM skald.relays")[0][0] == "21"
    shown = t.skald("outbox", "parked", "--json", url=url).stdout
    rows = [json.loads(line) for line in shown.splitlines()]
    assert {r["topic"] for r in rows} >= {topic, never}, shown
    assert "xxxxxxxx" not in shown, "a payload is shown"


def act_on_head(t, url, topic, never, large, mode):
    """Poll: the head is skipped, its key goes on without it. Wal: the topic takes it now."""
    before = psql(url, "SELECT attempts FROM skald.parked_key WHERE topic = '%s'" % topic)

    def audited():  # while the relay tries by itself there is nothing to ask for
        t.skald("outbox", "retry", "--topic", topic, "--key", "k3", "--yes", url=url, check=False)
        return psql(url, "SELECT 1 FROM skald.audit WHERE action = 'outbox.retry'")

    wait_until(audited, 20, "a retry to be asked for", every=0.3)
    wait_until(lambda: psql(url, "SELECT attempts FROM skald.parked_key WHERE topic = '%s'"
                            % topic) > before, 20, "the retry to be refused again")
    assert parked(url)[(topic, "k3")] == 21
    if mode == "poll":
        act = ("skip", "--reason", "too large")
    else:
        t.kafka.configure_topic(topic, max_message_bytes=19 * 1024 * 1024)
        act = ("retry",)

    def taken():  # 5 while the relay tries by itself; 1 when it has succeeded by itself; a
        # retry is 0, too, while one is on its way that met the old limit
        status = t.skald("outbox", act[0], "--topic", topic, "--key", "k3", *act[1:], "--yes",
                         url=url, check=False).returncode
        return status in (0, 1) and (mode == "poll" or (topic, "k3") not in parked(url))

    wait_until(taken, 20, "the " + act[0] + " to be taken", every=0.3)
    last = []

    def all_given_up():
        done = t.skald("outbox", "skip", "--topic", never, "--reason", "gone", "--yes", url=url,
                       check=False)
        last[:] = [done.returncode, done.stdout, done.stderr] + psql(
            url, "SELECT convert_from(key, 'UTF8'), waiting, attempts, next_at, releasing_id,"
                 " code FROM skald.parked_key WHERE topic = '%s'" % never)
        return not any(place[0] == never for place in parked(url))

    try:
        wait_until(all_given_up, 60, "the keys of the missing topic to be given up", every=0.3)
    finally:
        t.log("last: %r" % last[:6])
    audit = {r[0] for r in psql(url, "SELECT action FROM skald.audit")}
    assert {"outbox.retry", "outbox.skip"} <= audit, audit


for _mode in MODES:
    e2e("e2e.parked.keys_wait_and_go." + _mode, records=260, timeout=300)(
        lambda t, m=_mode: keys_wait_and_go(t, m))
    e2e("e2e.parked.not_authorised." + _mode, records=250)(
        lambda t, m=_mode: not_authorised(t, m))
    e2e("e2e.parked.small_limit." + _mode, records=20000)(lambda t, m=_mode: small_limit(t, m))
    e2e("e2e.parked.newer_librdkafka." + _mode, records=260, timeout=300)(
        lambda t, m=_mode: newer_librdkafka(t, m))


@e2e("e2e.parked.control_goes_on_without_head", records=100)
def control_goes_on_without_head(t):
    """A relay that leaves a refused record out, goes on with its key and brings it later: the
    checker says that the key is inverted; one that never brings it: lost."""
    topic = t.topic("skips", partitions=1, config={"max.message.bytes": "15000"})
    ids = ["018f0000-0000-7000-8000-%012x" % n for n in range(100)]

    def record(n):
        return (b"k", b'{"version": %d, "x": "%s"}' % (n, b"x" * (20000 if n == 40 else 10)),
                [("ce_id", ids[n].encode())])

    t.kafka.produce(topic, [record(n) for n in range(40)])
    try:
        t.kafka.produce(topic, [record(40)])
        raise AssertionError("the topic takes what is too large")
    except RuntimeError:
        t.kafka.produce(topic, [record(n) for n in range(41, 100)])
    records = t.kafka.read_topic(topic)
    check.require_kind(check.topic(records, ids, version=VERSION, positions=False), "lost")
    t.kafka.configure_topic(topic, max_message_bytes=50000)
    t.kafka.produce(topic, [record(40)])
    records = t.kafka.read_topic(topic)
    check.require_kind(check.topic(records, ids, version=VERSION, positions=False), "inverted")
    t.checked(records=len(records))


# --- killed while parking and releasing -------------------------------------------------------


def kill_parking(t, failpoint, nth, mode):
    """The relay dies while keys are parked or let out; another goes on; in the end everything
    is in the topics, in order."""
    url = t.database()
    topic, late = t.topic("ok", partitions=3), t.topic_name("late")
    armed = "%s:%d" % (failpoint, nth)
    is_parking = failpoint in kills.PARK
    daemon = relay(t, url, mode, failpoint=armed if is_parking else None,
                   settings=settings_for())
    wait_mode(url, mode)
    stuck, flows, done = [], [], 0
    for _ in range(4):
        stuck += writers.add(t, url, late, 50, first=done + 1)
        flows += writers.add(t, url, topic, 50, first=done + 1)
        done += 50
    if is_parking:
        daemon.wait_killed(30)
        daemon = relay(t, url, mode, settings=settings_for())
    wait_parked(url, {(late, "k%d" % k): 20 for k in range(10)})
    t.kafka.wait_count(topic, 200)
    if not is_parking:
        daemon.kill()
    t.kafka.create_topic(late, 2)
    if not is_parking:
        daemon = relay(t, url, mode, failpoint=armed, settings=settings_for())
        release(url)
        stuck += writers.add(t, url, late, 50, first=done + 1)
        daemon.wait_killed(60)
        assert parked(url), "nothing is parked: it died too late"
        daemon = relay(t, url, mode, settings=settings_for())
    stuck += writers.add(t, url, late, 50, first=done + 51)
    let_out(url)
    t.kafka.wait_count(late, len(stuck))
    wait_none_parked(url)
    wait_acked(url)
    assert psql(url, "SELECT count(*) FROM skald.parked_message") == [["0"]]
    records = t.check_topic(late, expected=stuck, version=VERSION)
    t.check_topic(topic, expected=flows, version=VERSION)
    t.log("%d were parked, %d repetitions" % (len(stuck), check.repetitions(records)))


for _name in kills.PARK + kills.RELEASE:
    for _mode in MODES:
        _nth = 3 if _name == "release_after_produce" else 1
        e2e("e2e.crash.%s.%d.%s" % (_name, _nth, _mode), records=400, timeout=240)(
            lambda t, f=_name, n=_nth, m=_mode: kill_parking(t, f, n, m))


def kill_rebuild(t, failpoint, mode):
    """The topic's limit shrinks under a relay that knows the old one: Kafka refuses, the
    producer is rebuilt, and the relay dies there; the record is found and parked, its key
    goes on without it (poll) or once the limit is back (wal). Nothing overtakes."""
    url = t.database()
    topic = t.topic("rebuilt", partitions=1)
    daemon = relay(t, url, mode, failpoint=failpoint + ":1", settings=settings_for())
    wait_mode(url, mode)
    ids = writers.add(t, url, topic, 50)
    t.kafka.wait_count(topic, 50)
    t.kafka.configure_topic(topic, max_message_bytes=20000)
    ids += writers.add(t, url, topic, 20, first=51)
    large = writers.add(t, url, topic, 1, first=71,
                        extra="jsonb_build_object('x', repeat(md5(random()::text), 2000))")
    ids += writers.add(t, url, topic, 40, first=72)
    daemon.wait_killed(60)
    daemon = relay(t, url, mode, settings=settings_for())
    wait_parked(url, {(topic, "k1"): 5})
    t.kafka.wait_count(topic, 106, timeout=20)
    if mode == "poll":
        wait_until(lambda: t.skald(
            "outbox", "skip", "--topic", topic, "--reason", "too large", "--yes", url=url,
            check=False).returncode == 0, 20, "the skip to be taken", every=0.3)
    else:
        t.kafka.configure_topic(topic, max_message_bytes=200000)
        ids += large
    let_out(url)
    ids += writers.add(t, url, topic, 20, first=112)
    t.kafka.wait_count(topic, len(ids))
    wait_acked(url)
    records = t.check_topic(topic, expected=ids, version=VERSION)
    t.log("%d events, %d repetitions" % (len(ids), check.repetitions(records)))


for _mode in MODES:
    for _name in kills.REBUILD:
        e2e("e2e.crash.%s.%s" % (_name, _mode), records=130, timeout=240)(
            lambda t, f=_name, m=_mode: kill_rebuild(t, f, m))


# --- what it costs the others -----------------------------------------------------------------

ROUNDS = by_hand("PARKED_ROUNDS", 3)
ROUND_EVENTS = 250
A_FIFTIETH = 0.02  # of a statement per message: in mode wal all there are are the clock's


def batches(directory, topic):
    """Record batches in a topic's only partition, by the broker's own file: one partition, so
    each batch came with a produce request of its own."""
    count = 0
    place = os.path.join(directory, topic + "-0")
    for name in sorted(os.listdir(place)):
        if not name.endswith(".log"):
            continue
        with open(os.path.join(place, name), "rb") as f:
            data = f.read()
        at = 0
        while at + 12 <= len(data):
            size = struct.unpack(">i", data[at + 8:at + 12])[0]
            if size <= 0:
                break
            count += 1
            at += 12 + size
    return count


def statements(pg, url):
    """What PostgreSQL counted of the relay's sessions in this database: all statements, those
    of looks for work (a look is two), those that look after parked keys. What the clock alone
    asks for (the lease, the ring every 10 s) is no message's and falls into the one side's
    round or the other's; this test's own name app.event or beside."""
    return tuple(int(x) for x in pg.sql("""
        SELECT coalesce(sum(calls), 0),
            coalesce(sum(calls) FILTER (WHERE query LIKE '%%relay_turn%%'
                OR query LIKE 'SELECT id, xid, message_id%%'), 0),
            coalesce(sum(calls) FILTER (WHERE query LIKE '%%relay_park_turn%%'), 0)
        FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
        WHERE d.datname = '%s' AND query NOT LIKE '%%app.event%%'
            AND query NOT LIKE '%%beside%%'
            AND query !~ 'skald[.](lease|relay_(tidy|sweep|ring_))'""" % url.rsplit("/", 1)[1])[0])


class Side:
    """One database with its relay and topic; with keys parked, or without."""

    def __init__(self, t, pg, mode, name, with_parked):
        self.t, self.pg = t, pg
        self.url = t.database(cluster=pg)
        self.topic = t.topic(name, partitions=1,
                             config={"message.timestamp.type": "LogAppendTime",
                                     "max.message.bytes": "1000000"})
        # an even pace of looks: else the pauses between them are what is measured
        self.daemon = relay(t, self.url, mode, name=name, settings=settings_for(**{
            "relay.poll_min": "10ms", "relay.poll_max": "10ms"}))
        psql(self.url, "CREATE SCHEMA app; CREATE TABLE app.event (id uuid, k int, version int)")
        if with_parked:
            insert_large(self.url, self.topic, "large", 0, 30)
            for missing in ("gone", "later"):
                psql(self.url, "SELECT skald.outbox_add(topic => '%s', key => 'beside', type =>"
                               " 't', data => to_jsonb(i)) FROM generate_series(1, 5) i"
                     % t.topic_name(missing))
            wait_until(lambda: len(parked(self.url)) == 3, 40, "three keys to be parked")
            # Tries of the heads are not the others' cost: none falls into the measurement.
            self.daemon.kill()
            psql(self.url, "UPDATE skald.parked_key SET next_at = now() + interval '1 hour'")
            self.daemon.start()
            wait_mode(self.url, mode)
        self.daemon.wait_ready()
        self.conn = t.connect(self.url)
        self.n = 0
        self.figures = {"statements": [], "requests": []}
        self.delays = []

    def add(self):
        self.n += 1
        self.conn.execute(
            "INSERT INTO app.event SELECT skald.outbox_add(topic => %s, key => %s, type => 't',"
            " data => jsonb_build_object('version', %s::int)), %s, %s",
            [self.topic, "k%d" % (self.n % 50), self.n, self.n % 50, self.n])

    def look(self, directory):
        calls, looks, park_turns = statements(self.pg, self.url)
        ticks = int(self.daemon.metric("skald_relay_ticks_total") or 0)
        # A look that found nothing is no message's: how many there are is the machine's pace;
        # nor is the one look a second at what is parked, which is limited by itself.
        idle = max(0, looks - 2 * ticks)
        return (calls - idle - park_turns, batches(directory, self.topic), self.n, park_turns,
                time.monotonic())

    def note(self, before, after, delays):
        count = after[2] - before[2]
        assert after[3] - before[3] <= (after[4] - before[4]) * 1.1 + 1, "looks at parked keys"
        self.figures["statements"].append((after[0] - before[0]) / count)
        self.figures["requests"].append((after[1] - before[1]) / count)
        self.delays += delays


def delays_ms(records):
    """From the row's insertion (ce_time) to the broker's own time stamp."""
    from datetime import datetime

    return [r.timestamp_ms - datetime.fromisoformat(
        r.header("ce_time").replace("Z", "+00:00")).timestamp() * 1000 for r in records]


def round_trip(sides, reader, order):
    """One event on each side, the next when both have arrived: so each has a tick (or a
    commit) and a request of its own, whatever else the machine does."""
    for s in order:
        s.add()
    missing = {s.topic for s in sides}
    end = time.monotonic() + 20
    while missing:
        assert time.monotonic() < end, "an event did not arrive within 20 s"
        m = reader.poll(0.5)
        if m is not None and not m.error():
            missing.discard(m.topic())


def cost_for_others(t, mode):
    """Statements and produce requests per message of the other keys, with three keys parked
    and without, within 2 % (of rounds the medians), p99 within 2x (over all rounds): the same
    load on both at the same time."""
    from confluent_kafka import TopicPartition

    k = t.private_kafka()
    pg = t.cluster(shared_preload_libraries="'pg_stat_statements'")
    pg.sql("CREATE EXTENSION pg_stat_statements")
    sides = [Side(t, pg, mode, "plain", False), Side(t, pg, mode, "beside", True)]
    reader = t.kafka._reader()
    t.cleanups.append(reader.close)
    reader.assign([TopicPartition(s.topic, 0, 0) for s in sides])
    for round_number in range(ROUNDS + 1):
        before = [s.look(k.data_dir()) for s in sides]
        for n in range(ROUND_EVENTS):
            round_trip(sides, reader, sides if n % 2 else sides[::-1])
        for s, b in zip(sides, before):
            if round_number:  # the first one warms up
                last = t.kafka.read_topic(s.topic)[-ROUND_EVENTS:]
                s.note(b, s.look(k.data_dir()), delays_ms(last))
    assert len(parked(sides[1].url)) == 3 and not parked(sides[0].url)
    for what in ("statements", "requests"):
        compare(t, mode, sides, what, 1.02)
    compare_p99(t, mode, sides, 2.0)
    for s in sides:
        t.check_topic(s.topic, expected=writers.committed(s.url), version=VERSION)


def compare(t, mode, sides, what, limit):
    pairs = list(zip(sides[0].figures[what], sides[1].figures[what]))
    a, b = (statistics.median(x) for x in zip(*pairs))
    ratio = statistics.median(y / x for x, y in pairs)
    t.log("%s: %s without %.4f, with parked keys %.4f; median ratio of %d rounds of %d events"
          " %.3f (limit %.2f), of each %s" % (
              mode, what, a, b, ROUNDS, ROUND_EVENTS, ratio, limit,
              " ".join("%.3f" % (y / x) for x, y in pairs)))
    assert 1 / limit <= ratio <= limit or abs(b - a) < A_FIFTIETH, (what, a, b)


def compare_p99(t, mode, sides, limit):
    a, b = (sorted(s.delays)[int(len(s.delays) * 0.99)] for s in sides)
    t.log("%s: p99 without %.1f ms, with parked keys %.1f ms, of %d each (limit %.1fx)" % (
        mode, a, b, len(sides[0].delays), limit))
    assert b <= a * limit, (a, b)


for _mode in MODES:
    e2e("e2e.parked.cost_for_others." + _mode, records=2 * ROUNDS * ROUND_EVENTS, kafka=False,
        timeout=300, alone=True)(lambda t, m=_mode: cost_for_others(t, m))
