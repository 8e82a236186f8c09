"""SIGKILL at every failpoint: nothing lost, no effect twice, repeats only with equal stream,
position, id and payload.

The list of failpoints comes from the program; one that no test here passes, or that is
never reached, fails.
"""


from skaldtest import check, e2e, psql, run_tool, wait_until
from skaldtest.proc import bin_path
from skaldtest.runner import REGISTRY

import kills
import writers
from appliers import (VERSION, applier, consumer_is_done, effect_order, effects_of,
                      wait_effects)
from kills import EVENTS, kill_relay
from relays import wait_acked
from sagas import ORCHESTRATOR, PARTICIPANT


@e2e("e2e.crash.every_failpoint_has_a_test", records=1, kafka=False)
def every_failpoint_has_a_test(t):
    listed = run_tool(bin_path("skaldd", True), "--list-failpoints").stdout.splitlines()
    names = {line.split("\t")[0] for line in listed}
    assert all("\t" in line for line in listed), listed
    tested = set(kills.ALL + ORCHESTRATOR + PARTICIPANT)
    assert names == tested, "without a test: %s; unknown: %s" % (
        sorted(names - tested), sorted(tested - names))
    unnamed = [n for n in kills.ALL if not any(n in test for test in REGISTRY)]
    assert not unnamed, "in the lists, but no test bears the name: %s" % unnamed
    t.checked(records=len(names))


def kill_runner(t, failpoint, nth):
    """The consumer dies at the n-th passage and is started again, until all is applied."""
    url, sink = t.database(), t.database()
    topic = t.topic("crash", partitions=3)
    t.skaldd(url)
    writers.add(t, url, topic, EVENTS)
    group = t.group()
    first = applier(t, sink, topic, "%s:%d" % (failpoint, nth), group)
    first.wait_killed(60)
    writers.add(t, url, topic, EVENTS, first=EVENTS + 1)
    applier(t, sink, topic, group=group)
    ids = writers.committed(url)
    wait_effects(sink, len(ids))
    wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
    t.check_effects(ids, effects_of(sink))
    check.require_none(check.effects_in_order(effect_order(sink)))
    t.checked(records=len(ids))


for _name in kills.RELAY:
    for _nth in (1, 3):
        e2e("e2e.crash.%s.%d" % (_name, _nth), records=EVENTS, effects=EVENTS)(
            lambda t, f=_name, n=_nth: kill_relay(t, f, n, "poll"))
@e2e("e2e.crash.tick_replay", records=3 * EVENTS)
def tick_replay(t):
    """A tick sent whole three times, by two relays that die before they record it and one
    that lives, while others write: the same records, byte by byte, under the same positions."""
    url = t.database()
    topic = t.topic("replay", partitions=3)
    load = writers.Writers(t, url, topic, clients=4, rate=50)
    writers.add(t, url, topic, EVENTS, first=1000001)
    load.start()
    for _ in range(2):
        t.skaldd(url, failpoint="relay_after_ack:1").wait_killed(60)
    t.skaldd(url)
    load.stop()
    ids = writers.committed(url)
    wait_acked(url)
    records = t.check_topic(topic, expected=ids)
    times = {}
    for r in records:
        times[r.id] = times.get(r.id, 0) + 1
    thrice = sum(n == 3 for n in times.values())
    t.log("%d events, %d of them three times, equal in position and bytes" % (len(ids), thrice))
    assert thrice >= EVENTS, "the tick was not sent again whole"


for _name in kills.RUNNER:
    for _nth in (1, 4):
        if (_name, _nth) == ("runner_before_offset", 4):
            continue  # offsets go to Kafka once a second: the first passage is enough
        e2e("e2e.crash.%s.%d" % (_name, _nth), records=EVENTS, effects=EVENTS)(
            lambda t, f=_name, n=_nth: kill_runner(t, f, n))


@e2e("e2e.crash.runner_after_dead_letter", records=100, effects=99)
def runner_after_dead_letter(t):
    """Killed between the dead letter and its commit: one dead letter, the others applied."""
    url, sink = t.database(), t.database()
    topic = t.topic("crash", partitions=1)
    t.skaldd(url)
    writers.add(t, url, topic, 49)
    writers.add(t, url, topic, 1, first=50, extra="'{\"poison\": true}'")
    writers.add(t, url, topic, 50, first=51)
    group = t.group()
    applier(t, sink, topic, "runner_after_dead_letter:1", group).wait_killed(60)
    assert psql(sink, "SELECT count(*) FROM skald.dead_letters")[0][0] == "0"
    applier(t, sink, topic, group=group)
    wait_effects(sink, 99)
    wait_until(lambda: consumer_is_done(sink), 30, "the consumer to reach the end")
    ids = writers.committed(url)
    poison = psql(url, "SELECT id FROM app.event WHERE version = 50")[0][0]
    t.check_effects([i for i in ids if i != poison], effects_of(sink))
    dead = psql(sink, "SELECT message_id, class FROM skald.dead_letters")
    assert dead == [[poison, "FATAL"]], dead
    t.checked(records=len(ids))


def kill_replay(t, failpoint):
    """A replay whose runner dies has one effect after the next start, and is resolved."""
    url, sink = t.database(), t.database()
    topic = t.topic("crash", partitions=1)
    t.skaldd(url)
    writers.add(t, url, topic, 10)
    writers.add(t, url, topic, 1, first=11, extra="'{\"poison\": true}'")
    group = t.group()
    first = applier(t, sink, topic, failpoint + ":1", group)
    wait_until(lambda: psql(sink, "SELECT id FROM skald.dead_letters"), 30, "a dead letter")
    dead = psql(sink, "SELECT id FROM skald.dead_letters")[0][0]
    psql(sink, "INSERT INTO public.cured DEFAULT VALUES")
    t.skald("dlq", "replay", dead, "--yes", "--reason", "cured", url=sink)
    first.wait_killed(30)
    applier(t, sink, topic, group=group)
    wait_until(lambda: psql(sink, "SELECT 1 FROM skald.dead_letters WHERE state = 'resolved'"),
               30, "the replay to be resolved")
    t.check_effects(writers.committed(url), effects_of(sink))
    t.checked(records=11)


for _name in ("replay_after_claim", "replay_before_commit"):
    e2e("e2e.crash." + _name, records=11, effects=11)(lambda t, f=_name: kill_replay(t, f))


@e2e("e2e.crash.control_without_position", records=EVENTS, effects=EVENTS)
def control_without_position(t):
    """A consumer that keeps only the offset does the relay's repetitions twice: the checker
    names a doubled effect."""
    url, sink = t.database(), t.database()
    topic = t.topic("crash", partitions=1)
    first = t.skaldd(url, failpoint="relay_after_ack:1")
    writers.add(t, url, topic, EVENTS)
    first.wait_killed(30)
    t.skaldd(url)
    wait_until(lambda: psql(url, "SELECT lag_rows FROM skald.relays")[0][0] == "0", 30,
               "everything to be acknowledged")
    records = t.kafka.read_topic(topic)
    assert len(records) > EVENTS, "the relay repeated nothing: no control"
    happened = []
    with t.connect(sink) as conn:
        for r in records:
            if conn.execute("SELECT skald.consume_offset(%s, %s, %s, %s)",
                            ["control", r.topic, r.partition, r.offset]).fetchone()[0]:
                happened.append(r.id)
    check.require_kind(check.effects(writers.committed(url), happened), "doubled")
    t.checked(records=len(records), effects=len(happened))


@e2e("e2e.crash.python_consumer", records=EVENTS, effects=EVENTS)
def python_consumer(t):
    """The consumer in Python, killed twice under load, with a relay that repeats."""
    url, sink = t.database(), t.database()
    topic = t.topic("shop", partitions=2)
    order = ("jsonb_build_object('order_id', 'o-' || i, 'sku', 'lamp', 'quantity', 1,"
             " 'amount', 9.90)")
    relay = t.skaldd(url, failpoint="relay_after_ack:2")
    consumer = t.python("examples/shipping.py", "--database", sink, "--brokers",
                        t.kafka.bootstrap, "--topic", topic, "--group", t.group("shipping"),
                        "--emit", "", name="shipping")
    half = EVENTS // 2
    writers.add(t, url, topic, half, type_="shop.order.placed", extra=order)
    for target in (20, half // 2):
        wait_until(lambda: ledger_count(sink) >= target, 60, "%d effects" % target)
        consumer.kill()
        consumer.start()
    writers.add(t, url, topic, half, first=half + 1, type_="shop.order.placed", extra=order)
    relay.wait_killed(60)
    t.skaldd(url)
    ids = writers.committed(url)
    wait_until(lambda: ledger_count(sink) >= len(ids), 90, "every order to be shipped")
    records = t.check_topic(topic, expected=ids, version=VERSION)
    assert len(records) > len(ids), "the relay repeated nothing: the test is too easy"
    t.check_effects(ids, [r[0] for r in psql(sink, "SELECT message_id FROM public.ledger")])


def ledger_count(url):
    try:
        return int(psql(url, "SELECT count(*) FROM public.ledger")[0][0])
    except Exception:  # the consumer has not made its table yet
        return 0


