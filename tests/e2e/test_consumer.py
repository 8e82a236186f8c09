"""Consumers: poison and replay, recreated topics, bad input from Kafka, one correlation id."""

import json
import subprocess

from skaldtest import e2e, psql, wait_until
from skaldtest.proc import bin_path, clean_env

import writers
from appliers import applier, consumer_is_done, effects_of, wait_effects


def event_headers(ident, type_="test.changed", **more):
    """Headers of a valid CloudEvent from outside Skald: no position."""
    headers = {"ce_specversion": "1.0", "ce_id": ident, "ce_source": "/outside",
               "ce_type": type_, "content-type": "application/json"}
    headers.update(more)
    return [(n.replace("__", "-"), v.encode() if isinstance(v, str) else v)
            for n, v in headers.items()]


@e2e("e2e.consumer.poison_and_replay", records=500, effects=500)
def poison_and_replay(t):
    """500 messages with 7 poison at random places: 7 dead letters, 493 effects. Each replayed
    twice from two terminals at once: one effect each, the loser told so with status 5."""
    url, sink = t.database(), t.database()
    topic = t.topic("poison", partitions=2)
    bad = sorted(t.rng.sample(range(1, 501), 7))
    t.log("poison at %s" % bad)
    writers.add(t, url, topic, 500, extra="jsonb_build_object('poison', i IN (%s))"
                % ", ".join(map(str, bad)))
    t.skaldd(url)
    t.kafka.wait_count(topic, 500)
    consumer = applier(t, sink, topic, settings={"service.batch": "500"})
    wait_effects(sink, 493)
    wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
    ids = {int(v): i for i, v in psql(url, "SELECT id, version FROM app.event")}
    good = [i for v, i in ids.items() if v not in bad]
    t.check_effects(good, effects_of(sink))
    wait_until(lambda: len(psql(sink, "SELECT 1 FROM skald.dead_letters")) >= 7, 30,
               "the dead letters")
    dead = psql(sink, "SELECT message_id, id FROM skald.dead_letters WHERE state = 'dead'")
    assert sorted(m for m, _ in dead) == sorted(ids[v] for v in bad), dead
    psql(sink, "INSERT INTO public.cured DEFAULT VALUES")
    consumer.freeze()  # so that both terminals meet the same state
    outcomes = []
    for _, ident in dead:
        outcomes += [sorted(replay_twice(sink, ident))]
    consumer.thaw()
    assert outcomes == [[0, 5]] * 7, outcomes
    wait_until(lambda: psql(sink, "SELECT count(*) FROM skald.dead_letters WHERE state ="
                                  " 'resolved'")[0][0] == "7", 30, "7 replays to be resolved")
    t.check_effects(list(ids.values()), effects_of(sink))
    again = t.skald("dlq", "replay", dead[0][1], "--yes", url=sink, check=False)
    assert again.returncode == 5, again
    t.checked(records=500)
    audit = psql(sink, "SELECT count(*) FROM skald.audit WHERE action = 'dlq.replay'")[0][0]
    assert int(audit) >= 7, audit


def replay_twice(url, ident):
    """Two `skald dlq replay` at the same time; their exit statuses."""
    both = [subprocess.Popen([bin_path("skald"), "dlq", "replay", ident, "--yes", "--database",
                              url], env=clean_env(), stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, text=True) for _ in range(2)]
    codes = []
    for p in both:
        _, text = p.communicate(timeout=60)
        if p.returncode:
            assert "requested" in text or "claimed" in text, text
        codes.append(p.returncode)
    return codes


@e2e("e2e.consumer.dead_letter_mirror", records=1)
def dead_letter_mirror(t):
    """A dead letter is mirrored to dlq.<group>.<topic> with the raw bytes and x-dlq-* headers."""
    sink = t.database()
    topic, group = t.topic("mirror", partitions=1), t.group()
    ident = "018f0000-0000-7000-8000-%012x" % t.rng.getrandbits(48)
    value = b'{"poison": true, "n": 9007199254740993}'
    t.kafka.produce(topic, [(b"k-1", value, event_headers(ident, tenant="blue"))])
    applier(t, sink, topic, group=group)
    mirror = "dlq.%s.%s" % (group, topic)
    t.kafka.wait_topic(mirror, 8, timeout=30)
    t.kafka.wait_count(mirror, 1)
    r = t.kafka.read_topic(mirror)[0]
    assert r.value == value and r.key == b"k-1", r
    h = r.headers
    assert h["ce_id"] == ident and h["tenant"] == "blue", h
    assert h["x-dlq-original-topic"] == topic and h["x-dlq-original-offset"] == "0", h
    assert h["x-dlq-group"] == group and h["x-dlq-class"] == "FATAL", h
    assert "x-dlq-message" in h and "9007199254740993" not in h["x-dlq-message"], h
    names = [n for n, _ in r.header_list]
    assert len(names) == len(set(names)), names
    t.checked(records=1)


@e2e("e2e.consumer.own_trouble_is_retried", records=3, effects=3)
def own_trouble_is_retried(t):
    """RETRY from the handler: tried again in place, then applied; past the attempts a dead
    letter of class RETRY; the others are not touched."""
    sink = t.database()
    topic = t.topic("flaky", partitions=1)
    t.kafka.produce(topic, [
        (b"k", b'{"flaky": 2}', event_headers("f-1")), (b"k", b"{}", event_headers("f-2")),
        (b"k", b'{"flaky": 1000}', event_headers("f-3")), (b"k", b"{}", event_headers("f-4"))])
    applier(t, sink, topic)
    wait_effects(sink, 3, 60)
    wait_until(lambda: psql(sink, "SELECT 1 FROM skald.dead_letters"), 30, "the dead letter")
    t.check_effects(["f-1", "f-2", "f-4"], effects_of(sink))
    dead = psql(sink, "SELECT message_id, class, attempts FROM skald.dead_letters")
    assert dead[0][:2] == ["f-3", "RETRY"] and int(dead[0][2]) >= 5, dead
    t.checked(records=4)


@e2e("e2e.consumer.topic_recreated", records=60, effects=50)
def topic_recreated(t):
    """A topic deleted and made again is reported, not skipped: with fewer records than were
    done, and with more."""
    for more in (False, True):
        sink = t.database()
        topic = t.topic("again%d" % more, partitions=1)
        group = t.group("again%d" % more)
        t.kafka.produce(topic, [(b"k", b"{}", event_headers("old-%d" % n)) for n in range(50)])
        consumer = applier(t, sink, topic, group=group)
        wait_effects(sink, 50)
        wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
        assert consumer.term(30) == 0
        t.kafka.recreate_topic(topic, partitions=1)
        count = 80 if more else 10
        t.kafka.produce(topic, [(b"k", b"{}", event_headers("new-%d" % n))
                                for n in range(count)])
        consumer.start()
        consumer.wait_log("partition stopped: ", 30)
        wait_until(lambda: psql(sink, "SELECT stopped FROM skald.consumer_partition"
                                      " WHERE stopped IS NOT NULL"), 20, "the stop in the table")
        t.check_effects(["old-%d" % n for n in range(50)], effects_of(sink))
        t.checked(records=50 + count)
        consumer.kill()


@e2e("e2e.consumer.topic_recreated_while_running", records=30, effects=20)
def topic_recreated_while_running(t):
    """The same under a running consumer: it stops that partition and says so."""
    sink = t.database()
    topic = t.topic("live", partitions=1)
    t.kafka.produce(topic, [(b"k", b"{}", event_headers("old-%d" % n)) for n in range(20)])
    consumer = applier(t, sink, topic)
    wait_effects(sink, 20)
    t.kafka.recreate_topic(topic, partitions=1)
    t.kafka.produce(topic, [(b"k", b"{}", event_headers("new-%d" % n)) for n in range(10)])
    consumer.wait_log("partition stopped: ", 60)
    t.check_effects(["old-%d" % n for n in range(20)], effects_of(sink))
    assert consumer.alive
    t.checked(records=30)


@e2e("e2e.consumer.bad_input", records=14, effects=6)
def bad_input(t):
    """Garbage, missing and contradictory headers, 10 MB, null key, null value: a dead letter
    with the raw bytes, or handled; the messages behind flow."""
    sink = t.database()
    topic, group = t.topic("bad", partitions=1), t.group()
    big = b'{"version": 7, "x": "' + b"a" * (10 * 1024 * 1024) + b'"}'
    def without(name):
        return [h for h in event_headers("no-" + name) if h[0] != name]
    garbage = bytes(t.rng.randrange(256) for _ in range(500))
    bad = {
        "garbage": (garbage, garbage, []),
        "no headers": (b"k", b"{}", []),
        "no ce_id": (b"k", b"{}", without("ce_id")),
        "no ce_type": (b"k", b"{}", without("ce_type")),
        "two ids": (b"k", b"{}", event_headers("a") + [("ce_id", b"b")]),
        "half a position": (b"k", b"{}", event_headers("c", ce_stream="0123456789abcdef")),
        "bad position": (b"k", b"{}", event_headers(
            "d", ce_stream="0123456789abcdef", ce_sequence="12")),
        "not text": (b"k", b"{}", event_headers("e") + [("ce_subject", b"\xff\xfe\x00")]),
    }
    good = [(b"k", b"{}", event_headers("g-1")), (None, b"{}", event_headers("g-null-key")),
            (b"k", None, event_headers("g-tombstone")), (b"k", big, event_headers("g-big")),
            (b"k", b"\x00\xff not json", event_headers("g-bytes")),
            (b"k", b"{}", event_headers("g-last"))]
    t.kafka.produce(topic, good[:1] + list(bad.values()) + good[1:])
    consumer = applier(t, sink, topic, group=group)
    wait_effects(sink, len(good), 60)
    wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
    t.check_effects([h[1].decode() for _, _, hs in good for h in hs if h[0] == "ce_id"],
                    effects_of(sink))
    with t.connect(sink) as conn:
        dead = conn.execute("SELECT record_offset, key, value, class, message FROM"
                            " skald.dead_letters ORDER BY record_offset").fetchall()
    assert [d[0] for d in dead] == list(range(1, 1 + len(bad))), dead
    for (what, (key, value, _)), d in zip(bad.items(), dead):
        assert (d[1], d[2]) == (key, value), "%s: raw bytes differ" % what
        assert d[3] == "DECODE" and d[4], (what, d)
        t.log("%-16s %s" % (what, d[4]))
    assert consumer.alive
    t.checked(records=len(bad) + len(good))


@e2e("e2e.consumer.correlation", records=2, effects=2)
def correlation(t):
    """One correlation id from SQL to the effect: header, log lines of both services, dead
    letter, `skald dlq show`; what a handler emits inherits it, with the cause."""
    url, sink = t.database(), t.database()
    topic, out = t.topic("corr", partitions=1), t.topic("corr-out", partitions=1)
    corr = "corr-%x" % t.rng.getrandbits(64)
    t.skaldd(url)
    consumer = applier(t, sink, topic, args=["--emit", out], settings={"log.level": "debug"})
    ids = [r[0] for r in psql(url, """
        SELECT skald.outbox_add(topic => '%s', key => 'k', type => 't', data => '{}',
            correlation_id => '%s');
        SELECT skald.outbox_add(topic => '%s', key => 'k', type => 't',
            data => '{"poison": true}', correlation_id => '%s')""" % (topic, corr, topic, corr))]
    wait_effects(sink, 1)
    wait_until(lambda: psql(sink, "SELECT 1 FROM skald.dead_letters"), 30, "the dead letter")
    assert {r.header("ce_correlationid") for r in t.kafka.read_topic(topic)} == {corr}
    assert psql(sink, "SELECT DISTINCT correlation_id FROM public.effect") == [[corr]]
    t.kafka.wait_count(out, 1)
    emitted = t.kafka.read_topic(out)[0]
    assert emitted.header("ce_correlationid") == corr
    assert emitted.header("ce_causationid") == ids[0]
    first = [r for r in t.kafka.read_topic(topic) if r.id == ids[0]][0]
    assert (emitted.header("traceparent").split("-")[1]
            == first.header("traceparent").split("-")[1]), "one trace"
    consumer.wait_log("dead letter.*" + corr)  # said after the commit
    lines = [x for x in consumer.log_text().splitlines() if corr in x]
    assert any("applied message" in x for x in lines), consumer.tail()
    assert any("dead" in x for x in lines), "no log line of the dead letter has the id"
    dead = psql(sink, "SELECT id, correlation_id FROM skald.dead_letters")[0]
    assert dead[1] == corr
    shown = t.skald("dlq", "show", dead[0], url=sink)
    assert corr in shown.stdout, shown.stdout
    listed = json.loads(t.skald("dlq", "ls", "--json", "--correlation", corr, url=sink).stdout)
    assert listed["id"] == dead[0]
    t.check_effects([ids[0]], effects_of(sink))
    t.checked(records=2, effects=1)


@e2e("e2e.consumer.same_ids_after_a_retry", records=50, effects=50)
def same_ids_after_a_retry(t):
    """What a handler emits has derived ids: a consumer killed before its commit emits the same
    ids again, and no other."""
    url, sink = t.database(), t.database()
    topic, out = t.topic("derived", partitions=1), t.topic("derived-out", partitions=1)
    group = t.group()
    writers.add(t, url, topic, 50)
    t.skaldd(url)
    killed = applier(t, sink, topic, "runner_before_commit:1", group, ["--emit", out])
    killed.wait_killed(60)
    applier(t, sink, topic, group=group, args=["--emit", out])
    wait_effects(sink, 50)
    t.kafka.wait_count(out, 50)
    records = t.check_topic(out)
    assert len({r.id for r in records}) == 50
    assert all(r.id[14] == "5" for r in records), "ids of emitted messages are UUIDv5"
    assert {r.header("ce_causationid") for r in records} == set(writers.committed(url))
    t.check_effects(writers.committed(url), effects_of(sink))
