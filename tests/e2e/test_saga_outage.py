"""Daemons that stand still or are away: others take over; an outage of Skald turns no answered
step into an unknown one."""

import time

from skaldtest import e2e, psql, wait_until
from skaldtest.wait import PATIENCE

from sagas import Shop


@e2e("e2e.saga.takeover", records=600, effects=1800, alone=True, timeout=240)
def takeover(t):
    """Three daemons at 50 starts a second, one stopped with SIGSTOP for 10 s: no double effect,
    and the largest gap between two finished sagas is at most 3 s."""
    shop = Shop(t).all()
    daemons = [shop.daemon(name="d%d" % n) for n in range(3)]
    shop.deploy()
    shop.start(20)
    shop.wait_ended()
    began = time.monotonic()
    frozen = thawed = False
    seconds = 20
    while time.monotonic() - began < seconds:
        now = time.monotonic() - began
        if not frozen and now > 4:
            daemons[0].freeze()
            frozen = True
        if not thawed and now > 14:
            daemons[0].thaw()
            thawed = True
        shop.start(max(0, min(50, int(now * 50) - len(shop.ids) + 20)))
        wait_until(lambda: len(shop.ids) < (time.monotonic() - began) * 50 + 10, 5,
                   "the next starts")
    assert thawed
    shop.wait_ended(90)
    shop.check({i: "completed" for i in shop.ids})
    gap = float(psql(
        shop.url, "SELECT max(extract(epoch FROM gap)) FROM (SELECT finished_at -"
                  " lag(finished_at) OVER (ORDER BY finished_at) AS gap FROM skald.sagas"
                  " OFFSET 21) AS g")[0][0])
    t.log("%d sagas, largest gap between two finished ones %.2f s" % (len(shop.ids), gap))
    assert gap <= 5 * PATIENCE, gap  # lease 2 s, looked at four times a second


def timeouts(shop):
    return [e for i in shop.ids for e in shop.events(i, ("timeout",))]


@e2e("e2e.saga.outage.replies_in_topic", records=20, effects=60)
def replies_in_topic(t):
    """All daemons away for three time-outs, the replies wait in Kafka: no step is unknown."""
    shop = Shop(t, timeout="2500ms").all()
    daemon = shop.daemon()
    shop.deploy()
    for p in shop.procs.values():
        p.freeze()
    shop.start(20)
    wait_until(lambda: t.kafka.count(shop.topic("inventory")) >= 20, 20, "the commands")
    daemon.kill()
    for p in shop.procs.values():
        p.thaw()
    wait_until(lambda: len(shop.ledger()) >= 20, 30, "the participants to answer")
    gone = time.monotonic()
    wait_until(lambda: time.monotonic() - gone > 7.5, 9, "three time-outs", every=0.2)
    daemon.start()
    daemon.wait_ready()
    shop.wait_ended(60)
    assert not timeouts(shop), timeouts(shop)
    shop.check({i: "completed" for i in shop.ids})


@e2e("e2e.saga.outage.replies_in_outbox", records=20, effects=60)
def replies_in_outbox(t):
    """The same with the replies still in a participant's outbox, relayed by that daemon."""
    shop = Shop(t, timeout="2500ms")
    shop.python()
    shop.service("payment")
    shop.service("shipping")
    daemon = shop.daemon(settings={"source.inventory.url": shop.urls["inventory"]})
    shop.deploy()
    shop.procs["inventory"].freeze()
    shop.start(20)
    wait_until(lambda: t.kafka.count(shop.topic("inventory")) >= 20, 20, "the commands")
    daemon.kill()
    shop.procs["inventory"].thaw()
    wait_until(lambda: len(shop.ledger()) >= 20, 30, "the participant to answer")
    gone = time.monotonic()
    wait_until(lambda: time.monotonic() - gone > 7.5, 9, "three time-outs", every=0.2)
    daemon.start()
    daemon.wait_ready()
    shop.wait_ended(60)
    assert not timeouts(shop), timeouts(shop)
    shop.check({i: "completed" for i in shop.ids})


@e2e("e2e.saga.outage.control_participant_stopped", records=10, effects=30)
def control_participant_stopped(t):
    """With the participants stopped instead, every saga times out once, within two time-outs;
    and ends well when they go on: the same key, so no effect twice."""
    timeout = 2.5 * PATIENCE
    shop = Shop(t, timeout="%dms" % (timeout * 1000)).all()
    shop.daemon()
    shop.deploy()
    for p in shop.procs.values():
        p.freeze()
    shop.start(10)
    wait_until(lambda: all(shop.events(i, ("timeout",)) for i in shop.ids), 4 * timeout,
               "every saga to time out")
    for p in shop.procs.values():
        p.thaw()
    shop.wait_ended(60)
    spent = psql(shop.url, """
        SELECT extract(epoch FROM e.at - s.created_at) FROM skald.sagas AS s
          JOIN skald.saga_events AS e ON e.saga_id = s.id AND e.kind = 'timeout' ORDER BY 1""")
    spent = [float(r[0]) for r in spent]
    t.log("timed out after %.2f to %.2f s, the time-out is %.1f s" % (
        spent[0], spent[-1], timeout))
    assert timeout <= spent[0] and spent[-1] <= 2 * timeout, spent
    assert [len(shop.events(i, ("timeout",))) for i in shop.ids] == [1] * 10, timeouts(shop)
    shop.check({i: "completed" for i in shop.ids})
