"""The outbox itself: phantoms, the ring of leaves, sources, what a record carries."""

import os
import re
import signal
import time

from skaldtest import check, connect, e2e, psql, wait_until

import writers
from appliers import VERSION, applier, consumer_is_done, effects_of, wait_effects
from relays import MODES, relay, wait_acked

# The figure is five minutes; a run by hand sets it.
HOLD_S = float(os.environ.get("SKALD_HOLD_SECONDS", "45"))


@e2e("e2e.outbox.every_header", records=3)
def every_header(t):
    """One message from SQL carries every header of the protocol; a rolled-back one never
    appears; a tombstone has no value."""
    url = t.database()
    topic = t.topic("headers", partitions=2)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    full = psql(url, """
        BEGIN; SELECT skald.outbox_add(topic => '%s', key => 'gone', type => 't', data => '1');
        ROLLBACK;
        SELECT skald.outbox_add(topic => '%s', key => 'a-1', type => 'shop.order.placed',
            data => '{"n": 9007199254740993}', subject => 'order/1', source => '/shop',
            headers => '{"tenant": "blue"}', correlation_id => 'corr-1',
            causation_id => 'cause-1', traceparent => '%s',
            expires_at => '2030-01-02 03:04:05.678+00');
        SELECT skald.outbox_add(topic => '%s', key => 'a-2', type => 'shop.order.gone',
            data => NULL);
        SELECT skald.outbox_add_bytes(topic => '%s', key => NULL, type => 'raw',
            data => '\\x00ff', content_type => 'application/octet-stream');
        """ % (topic, topic, trace, topic, topic))
    t.skaldd(url)
    t.kafka.wait_count(topic, 3)
    ids = [row[0] for row in full]
    assert len(ids) == 4 and ids[0] not in ids[1:], ids
    by_id = {r.id: r for r in t.check_topic(topic, expected=ids[1:])}
    r = by_id[ids[1]]
    h = r.headers
    assert h["ce_specversion"] == "1.0" and h["ce_source"] == "/shop"
    assert h["ce_type"] == "shop.order.placed" and h["ce_subject"] == "order/1"
    assert h["content-type"] == "application/json" and h["tenant"] == "blue"
    assert h["ce_correlationid"] == "corr-1" and h["ce_causationid"] == "cause-1"
    assert h["traceparent"].split("-")[1] == trace.split("-")[1]
    assert h["traceparent"] != trace, "the message is a span of its own"
    assert h["ce_expirytime"].startswith("2030-01-02T03:04:05.678")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", h["ce_time"]), h["ce_time"]
    assert re.fullmatch("[0-9a-f]{16}", r.stream), r.stream
    assert re.fullmatch("[0-9a-f]{8}[.][0-9a-f]{16}[.][0-9a-f]{8}", r.position), r.position
    assert b"9007199254740993" in r.value and r.key == b"a-1"
    assert ids[1][14] == "7", "ce_id is a UUIDv7"
    names = [n for n, _ in r.header_list]
    assert len(names) == len(set(names)), "one value per name: %s" % names
    gone = by_id[ids[2]]
    assert gone.value is None and gone.headers["ce_correlationid"] == ids[2]
    raw = by_id[ids[3]]
    assert raw.value == b"\x00\xff" and raw.key is None
    assert raw.headers["content-type"] == "application/octet-stream"


def no_phantom(t, mode):
    """Writers with synchronous_commit = off and a crash of PostgreSQL right after their rows
    are visible: nothing is published that is gone afterwards. Control: a reader that trusts
    visibility sees such a row, and the checker names it."""
    url = t.database()
    topic = t.topic("phantom", partitions=2)
    t.pg.sql("ALTER SYSTEM SET wal_writer_delay = '10s'; SELECT pg_reload_conf()")
    phantoms = visible_then_gone(t, url, topic)
    relay(t, url, mode)
    for _ in range(5 if mode == "poll" else 3):
        load = async_writers(t, url, topic).start()
        t.kafka.wait_count(topic, t.kafka.count(topic) + 250)
        t.pg.stop("immediate")
        load.proc.kill()
        t.pg.start()
    ids = load.committed()
    t.kafka.wait_count(topic, len(ids))  # repetitions count too: so also
    wait_acked(url)
    t.log("%d events survived; the control saw %d that did not" % (len(ids), phantoms))
    t.check_topic(topic, expected=ids, version=VERSION)
    t.checked(effects=phantoms)


for _mode in MODES:
    e2e("e2e.outbox.no_phantom." + _mode, records=700, effects=1, timeout=240)(
        lambda t, m=_mode: no_phantom(t, m))


def async_writers(t, url, topic, setup=False):
    return writers.Writers(t, url, topic, clients=4, setup=setup, rate=400,
                           settings={"synchronous_commit": "off"})


def visible_then_gone(t, url, topic):
    """The control: read what is visible, crash. The process that writes WAL in the background
    stands still meanwhile, and dies: which is the crash."""
    load = async_writers(t, url, topic, setup=True)
    writer_pid = int(t.pg.sql("SELECT pid FROM pg_stat_activity WHERE backend_type ="
                              " 'walwriter'")[0][0])
    with connect(url) as writer, connect(url) as reader:
        os.kill(writer_pid, signal.SIGSTOP)
        writer.execute("SET synchronous_commit = off")
        writer.execute("SELECT app.change(%s, 1)", [topic])
        seen = [str(r[0]) for r in reader.execute("SELECT message_id FROM skald.outbox")]
        os.kill(writer_pid, signal.SIGKILL)

        def crashed():
            try:
                reader.execute("SELECT 1")
            except Exception:  # of whatever kind: the session is gone
                return True

        wait_until(crashed, 20, "the crash")
    wait_until(lambda: psql(url, "SELECT 1"), 30, "PostgreSQL to be back")
    found = check.effects(load.committed(), seen)
    check.require_kind(found, "phantom", "a reader that trusts visibility:")
    return check.kinds(found)["phantom"]


@e2e("e2e.outbox.ring_without_daemon", records=60, kafka=True)
def ring_without_daemon(t):
    """20 million ids drawn with no daemon: the ring comes round twice and outbox_add works;
    a daemon then publishes everything."""
    url = t.database()
    topic = t.topic("ring", partitions=2)
    for n in range(20):
        writers.add(t, url, topic, 3, first=1 + 3 * n)
        psql(url, "SELECT count(nextval('skald.outbox_id')) FROM generate_series(1, 1000000)")
    assert int(psql(url, "SELECT last_value FROM skald.outbox_id")[0][0]) > 20000000
    t.skaldd(url)
    t.kafka.wait_count(topic, 60)
    t.check_topic(topic, expected=writers.committed(url), version=VERSION)


@e2e("e2e.outbox.leaf_held_open", records=200, timeout=HOLD_S + 180)
def leaf_held_open(t):
    """A transaction stays open on the oldest leaf while leaves are emptied: it delays nobody,
    its row is not lost, and the leaf is emptied afterwards."""
    url = t.database()
    topic = t.topic("held", partitions=2)
    writers.add(t, url, topic, 100)
    held = t.connect(url, autocommit=False)
    late = str(held.execute(
        "SELECT skald.outbox_add(topic => %s, key => 'k0', type => 't',"
        " data => '{\"version\": 1000000}')", [topic]).fetchone()[0])
    t.skaldd(url, settings={"retention.outbox": "1s"})
    t.kafka.wait_count(topic, 100)
    psql(url, "SELECT setval('skald.outbox_id', (1 << 20) - 3)")  # the ring goes on
    began = time.monotonic()
    slowest, n = 0.0, 100
    writer = t.connect(url)
    while time.monotonic() - began < HOLD_S or n < 200:
        n += 1
        start = time.monotonic()
        writer.execute(
            "INSERT INTO app.event SELECT skald.outbox_add(topic => %s, key => %s, type => 't',"
            " data => jsonb_build_object('version', %s::int)), %s, %s",
            [topic, "k%d" % (n % 10), n, n % 10, n])
        slowest = max(slowest, time.monotonic() - start)
        t.kafka.wait_count(topic, n, timeout=20)
    t.log("%d messages in %.0f s beside the open transaction; slowest outbox_add %.0f ms" % (
        n - 100, time.monotonic() - began, slowest * 1000))
    assert slowest < 2, "an open transaction delayed a writer by %.1f s" % slowest
    assert psql(url, "SELECT count(*) FROM skald.outbox_0")[0][0] != "0"
    held.commit()
    psql(url, "INSERT INTO app.event VALUES ('%s', 0, 1000000)" % late)
    t.kafka.wait_count(topic, n + 1)
    wait_until(lambda: psql(url, "SELECT count(*) FROM skald.outbox_0")[0][0] == "0", 60,
               "the oldest leaf to be emptied")
    t.check_topic(topic, expected=writers.committed(url), version=VERSION)


@e2e("e2e.outbox.two_databases_one_source", records=600, effects=600)
def two_databases_one_source(t):
    """Two databases with the same ce_source publish into one topic through one daemon: no
    consumer drops anything."""
    first, second, sink = t.database(), t.database(), t.database()
    topic = t.topic("shared", partitions=2)
    for url in (first, second):
        psql(url, "ALTER DATABASE \"%s\" SET skald.source = '/same'" % url.rsplit("/", 1)[1])
    t.skaldd(first, settings={"source.second.url": second})
    applier(t, sink, topic)
    for n in range(3):
        writers.add(t, first, topic, 100, first=1 + 100 * n)
        writers.add(t, second, topic, 100, first=1 + 100 * n)
    ids = writers.committed(first) + writers.committed(second)
    wait_effects(sink, len(ids))
    wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
    records = t.check_topic(topic, expected=ids)
    assert {r.headers["ce_source"] for r in records} == {"/same"}
    assert len({r.stream for r in records}) == 2
    t.check_effects(ids, effects_of(sink))


@e2e("e2e.outbox.one_source_down", records=100)
def one_source_down(t):
    """One source is not there: the others publish, /readyz names it."""
    url = t.database()
    topic = t.topic("alone", partitions=1)
    daemon = t.skaldd(url, ready=False, settings={
        "source.gone.url": "postgresql://postgres@127.0.0.1:1/gone"})
    writers.add(t, url, topic, 100)
    t.kafka.wait_count(topic, 100)
    status, text = daemon.http("/readyz")
    assert status == 503 and "gone" in text, (status, text)
    t.check_topic(topic, expected=writers.committed(url), version=VERSION)


@e2e("e2e.outbox.sweep", records=2, kafka=True)
def sweep(t):
    """What is kept for a while only goes when its time is over; an open dead letter stays."""
    url = t.database()
    psql(url, """
        INSERT INTO skald.inbox VALUES ('g', 'old', now() - interval '15 days'),
            ('g', 'new', now() - interval '13 days');
        INSERT INTO skald.audit_entry (at, actor, action, target) VALUES
            (now() - interval '401 days', 'a', 'old', 't'), (now(), 'a', 'new', 't');
        INSERT INTO skald.dead_letter_entry (id, at, changed_at, consumer_group, topic,
            partition, record_offset, digest, class, message, fingerprint, state)
        SELECT gen_random_uuid(), now() - i.age, now() - i.age, 'g', 't', 0, i.n, '\\x', 'FATAL',
            'm', 'f', i.state
        FROM (VALUES (1, interval '91 days', 'dead'), (2, interval '91 days', 'resolved'),
                     (3, interval '89 days', 'archived')) AS i(n, age, state);""")
    t.skaldd(url)
    wait_until(lambda: psql(url, "SELECT count(*) FROM skald.inbox") == [["1"]]
               and psql(url, "SELECT count(*) FROM skald.audit_entry") == [["1"]], 30, "a sweep")
    assert psql(url, "SELECT message_id FROM skald.inbox") == [["new"]]
    assert psql(url, "SELECT action FROM skald.audit_entry") == [["new"]]
    left = psql(url, "SELECT record_offset FROM skald.dead_letter_entry ORDER BY 1")
    assert left == [["1"], ["3"]], left
    t.checked(records=len(left))
