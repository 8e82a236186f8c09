"""One saga on the whole spine: success, a no at each step, a late answer, undo that fails,
a retriable step, starts, digits, correlation."""

import concurrent.futures
import json
import re
from collections import Counter

from skaldtest import PrivateKafka, check, connect, e2e, psql, run_tool, wait_until

from sagas import SERVICES, Shop, order_saga


@e2e("e2e.saga.completes", records=30, effects=90)
def completes(t):
    """Thirty orders: one reservation, one charge, one shipment each; output, history, events."""
    shop = Shop(t).all()
    shop.daemon()
    shop.deploy()
    shop.start(30)
    shop.wait_ended()
    shop.check({i: "completed" for i in shop.ids})
    first = shop.ids[0]
    kinds = [(e[1], e[2], e[5]) for e in shop.events(first)]
    assert kinds[0][0] == "started" and kinds[-1][0] == "finished", kinds
    assert [k for k in kinds if k[0] in ("command", "reply")] == [
        (kind, step, "success" if kind == "reply" else "")
        for step in ("reserve", "charge", "ship") for kind in ("command", "reply")], kinds
    output = json.loads(psql(shop.url, "SELECT output FROM skald.sagas WHERE id = '%s'"
                             % first)[0][0])
    assert set(output) == {"charge", "tracking"}, output
    told = [r for r in life_cycle(t, shop, 2 * 30)]
    for i in shop.ids:
        of_one = [r.header("ce_type") for r in told if r.key.decode() == i]
        assert of_one == ["skald.saga.started", "skald.saga.completed"], of_one


def life_cycle(t, shop, count):
    """Life-cycle events of this shop's sagas: the topic is everybody's."""
    def ours():
        found = [r for r in t.kafka.read_topic("skald.saga.events")
                 if r.key and r.key.decode() in shop.ids]
        return len({r.id for r in found}) >= count and found

    return check.first_appearances(wait_until(ours, 30, "%d life-cycle events" % count))


def failing(t, step):
    """Every order gets a business no at this step: what came before is undone."""
    definition = order_saga()
    charge, ship = definition["steps"][1:]
    if step == "ship":  # before a pivot it may say no for good
        charge.update(kind="compensatable", compensation={
            "topic": "payment.commands", "type": "payment.refund", "data": {}})
        ship.update(kind="compensatable", compensation=None)
    shop = Shop(t, definition)
    no = ["--refuse", "action:1000000"]
    service = {"reserve": "inventory", "charge": "payment", "ship": "shipping"}[step]
    shop.all(**{service: no})
    shop.daemon()
    shop.deploy()
    shop.start(10)
    sagas = shop.wait_ended()
    shop.check({i: "failed" for i in shop.ids})
    undo = "none" if step == "reserve" else "done"
    assert {tuple(r) for r in sagas.values()} == {
        ("finished", "failed", undo, "refused_on_request")}, sagas
    undone = [e[2] for e in shop.events(shop.ids[0]) if e[1] == "command"
              and e[3] == "compensation"]
    assert undone == {"reserve": [], "charge": ["reserve"],
                      "ship": ["charge", "reserve"]}[step], undone


for _step, _effects in (("reserve", 0), ("charge", 20), ("ship", 40)):
    e2e("e2e.saga.no_at_" + _step, records=10, effects=_effects)(
        lambda t, s=_step: failing(t, s))


@e2e("e2e.saga.late_reply", records=3, effects=12)
def late_reply(t):
    """The payment service stands still past the time-out. The charge is unknown, so it is
    undone like one that happened; and indeed it happens late, and its undo after it."""
    definition = order_saga()
    charge = definition["steps"][1]
    charge.update(kind="compensatable", on_unknown="compensate", timeout="2s", compensation={
        "topic": "payment.commands", "type": "payment.refund", "data": {}})
    definition["steps"][2]["kind"] = "pivot"
    shop = Shop(t, definition).all()
    shop.daemon()
    shop.deploy()
    shop.procs["payment"].freeze()
    shop.start(3)
    wait_until(lambda: all(shop.events(i, ("timeout",)) for i in shop.ids), 60,
               "the time-outs of charge")
    shop.procs["payment"].thaw()
    shop.wait_ended()
    shop.check({i: "failed" for i in shop.ids})
    effects = [e for e in shop.ledger() if e[1] == "charge"]
    assert sorted(effects) == sorted(
        (i, "charge", op) for i in shop.ids for op in ("action", "compensation")), effects


@e2e("e2e.saga.undo_fails_three_times", records=5, effects=10)
def undo_fails_three_times(t):
    definition = order_saga()
    definition["steps"][0]["compensation_retry"] = {
        "attempts": 10, "backoff": "100ms", "max_backoff": "300ms"}
    shop = Shop(t, definition).all(inventory=["--refuse", "compensation:3"],
                                   payment=["--limit", "1"])
    shop.daemon()
    shop.deploy()
    shop.start(5)
    shop.wait_ended()
    shop.check({i: "failed" for i in shop.ids})
    for i in shop.ids:
        answers = [e[5] for e in shop.events(i, ("reply",)) if e[3] == "compensation"]
        assert answers == ["failure"] * 3 + ["success"], answers


@e2e("e2e.saga.undo_never_works", records=2, effects=2)
def undo_never_works(t):
    """The budget of the undo is spent: stuck, seen in the list and in status, never called
    rolled back; the other saga goes on."""
    definition = order_saga()
    definition["steps"][0]["compensation_retry"] = {
        "attempts": 3, "backoff": "100ms", "max_backoff": "200ms"}
    shop = Shop(t, definition).all(inventory=["--refuse", "compensation:1000000"],
                                   payment=["--limit", "100"])
    shop.daemon()
    shop.deploy()
    bad = shop.start(1, amount=5000)[0]
    good = shop.start(1)[0]
    shop.wait_status(bad, "stuck")
    shop.wait_ended(ids=[good])
    row = shop.sagas()[bad]
    assert row[0] == "stuck" and row[1:3] == ["failed", "stuck"], row
    listed = t.skald("saga", "ls", "--status", "stuck", "--json", url=shop.url).stdout
    assert bad in listed and good not in listed, listed
    assert "stuck" in t.skald("status", url=shop.url, check=False).stdout
    waited = t.skald("saga", "start", "order", "--key", "o-1", "--input", json.dumps(
        shop.input(1, amount=5000)), "--wait", "--timeout", "20s", url=shop.url, check=False)
    assert waited.returncode == 3, waited
    t.checked(records=2, effects=len(shop.ledger()))


@e2e("e2e.saga.retriable_fails_twice", records=4, effects=12)
def retriable_fails_twice(t):
    """After the pivot there is no way back: a no is asked again, under a new key."""
    definition = order_saga()
    definition["steps"][2]["retry"] = {"backoff": "100ms", "max_backoff": "300ms"}
    shop = Shop(t, definition).all(shipping=["--refuse", "action:2"])
    shop.daemon()
    shop.deploy()
    shop.start(4)
    shop.wait_ended()
    shop.check({i: "completed" for i in shop.ids})
    for i in shop.ids:
        replies = [e[5] for e in shop.events(i, ("reply",)) if e[2] == "ship"]
        assert replies == ["failure", "failure", "success"], replies
    keys = {r.header("idempotency-key") for r in t.kafka.read_topic(shop.topic("shipping"))}
    assert keys == {i + ":ship:action" + n for i in shop.ids for n in ("", ":2", ":3")}, keys


@e2e("e2e.saga.digits", records=1, effects=1)
def digits(t):
    """Numbers arrive as they were written."""
    definition = {"name": "digits", "version": 1, "steps": [
        {"name": "charge", "kind": "pivot", "action": {
            "topic": "payment.commands", "type": "payment.charge",
            "data": {"id": "$.input.id", "amount": "$.input.amount"}}}]}
    shop = Shop(t, definition)
    shop.service("payment")
    shop.daemon()
    shop.deploy()
    text = '{"id":9007199254740993,"amount":10.00}'
    with connect(shop.url) as conn:
        saga = conn.execute("SELECT skald.saga_start('digits', 'd-1', %s::jsonb)::text",
                            [text]).fetchone()[0]
    shop.ids.append(saga)
    shop.wait_ended()
    value = t.kafka.read_topic(shop.topic("payment"))[0].value.decode()
    assert "9007199254740993" in value and "10.00" in value, value
    assert psql(shop.urls["payment"], "SELECT amount FROM public.ledger") == [["10.00"]]
    shop.check({saga: "completed"})


@e2e("e2e.saga.twenty_callers", records=1, effects=3)
def twenty_callers(t):
    """Twenty callers start the same key at once: one saga. The matrix of `again`."""
    shop = Shop(t).all()
    shop.daemon()
    shop.deploy()
    shop.ids += shop.start(0)
    start = "SELECT skald.saga_start('order', %s, %s::jsonb, again => %s)::text"
    order = json.dumps(shop.input(1))

    def call(_n):
        with connect(shop.url) as conn:
            return conn.execute(start, ["k-1", order, "never"]).fetchone()[0]

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(call, range(20)))
    assert len(ids) == 1, ids
    shop.ids += list(ids)
    shop.wait_ended()
    shop.check({i: "completed" for i in ids})

    with connect(shop.url) as conn:
        def again(key, text, word):
            try:
                return conn.execute(start, [key, text, word]).fetchone()[0]
            except Exception as error:
                return error.sqlstate

        other = json.dumps(shop.input(2))
        same = ids.pop()
        assert again("k-1", order, "never") == same
        assert again("k-1", other, "never") == "SK003"
        assert again("k-1", order, "failed") == same  # it completed
        assert again("k-1", other, "failed") == "SK003"
        new = again("k-1", other, "finished")
        assert new not in (same, "SK003"), new
        assert psql(shop.url, "SELECT run FROM skald.sagas WHERE id = '%s'" % new) == [["2"]]
        shop.ids.append(new)
        with conn.transaction(force_rollback=True):
            gone = again("k-2", order, "never")
        assert psql(shop.url, "SELECT 1 FROM skald.sagas WHERE id = '%s'" % gone) == []
        t.skald("saga", "start", "order", "--key", "k-3", "--input",
                json.dumps(shop.input(3, sku="unicorn")), "--wait", url=shop.url, check=False)
        failed = psql(shop.url, "SELECT id, outcome FROM skald.sagas WHERE key = 'k-3'")[0]
        assert failed[1] == "failed", failed
        shop.ids.append(failed[0])
        anew = again("k-3", order, "failed")
        assert anew not in (failed[0], "SK003"), anew
        shop.ids.append(anew)
    shop.wait_ended()
    check.require_none(shop.findings())
    with connect(shop.url) as conn:
        assert again_closed(conn, "k-9") == "SK004"


def again_closed(conn, key):
    try:
        conn.execute("SELECT skald.saga_start('nothing', %s, '{}')", [key])
    except Exception as error:
        return error.sqlstate


@e2e("e2e.saga.by_topic", records=1, effects=3)
def by_topic(t):
    """Started by a message in skald.saga.commands, under a name of the test's own: the topic
    is everybody's, and a start of an unknown definition is a dead letter elsewhere."""
    definition = order_saga()
    definition["name"] = "order-" + t.tag.rsplit("-", 1)[1]
    shop = Shop(t, definition).all()
    shop.daemon()
    shop.deploy()
    psql(shop.urls["payment"], "SELECT skald.outbox_add(topic => 'skald.saga.commands',"
         " key => 'o-1', type => 'skald.saga.start', data => '%s', correlation_id => 'c-7')"
         % json.dumps({"name": definition["name"], "key": "o-1", "input": shop.input(1)}))
    rows = wait_until(lambda: psql(shop.url, "SELECT id, correlation_id FROM skald.sagas"), 60,
                      "the saga to be started")
    assert rows[0][1] == "c-7", rows
    shop.ids.append(rows[0][0])
    shop.wait_ended()
    check.require_none(shop.findings({rows[0][0]: "completed"}))
    t.checked(records=1, effects=len(shop.ledger()))


def log_lines(shop, daemon, word):
    """(program, message) of the lines that bear a correlation id, in time, of all programs."""
    found = []
    for proc in [daemon] + list(shop.procs.values()):
        for line in proc.log_text().splitlines():
            if line.endswith(" correlation=" + word):
                at, _level, program, text = re.match(r"(\S+) (\S+) +(\S+): (.*)", line).groups()
                found.append((at, program, text))
    return [r[1:] for r in sorted(found)]


@e2e("e2e.saga.trace", records=2, effects=6)
def trace(t):
    """One correlation id, given at the start, is in every hop, in order: outboxes, records,
    ledgers, history, log lines, `skald trace`; and in none of another saga's."""
    debug = {"log.level": "debug"}
    shop = Shop(t)
    for name in SERVICES:
        shop.service(name, more=debug)
    daemon = shop.daemon(settings=debug)
    shop.deploy()
    with connect(shop.url) as conn:
        shop.ids += [conn.execute(
            "SELECT skald.saga_start('order', %s, %s::jsonb, correlation_id => %s)::text",
            ["o-%d" % n, json.dumps(shop.input(n)), word]).fetchone()[0]
            for n, word in enumerate(("trace-me", "not-me"))]
    saga = shop.ids[0]
    shop.wait_ended()
    hops = [(step, SERVICES[step]) for step in SERVICES]
    for name, step in hops:
        for topic in (shop.topic(name), "skald.replies." + shop.installation):
            records = [r for r in t.kafka.read_topic(topic) if r.key.decode() == saga]
            assert records, topic
            assert {r.header("ce_correlationid") for r in records} == {"trace-me"}, topic
        for rows in ("public.ledger WHERE true", "skald.outbox WHERE type LIKE '%.reply'"):
            assert psql(shop.urls[name], "SELECT correlation_id FROM " + rows + " ORDER BY 1"
                        ) == [["not-me"], ["trace-me"]], (name, rows)
    assert psql(shop.url, "SELECT DISTINCT saga_id FROM skald.saga_events WHERE correlation_id"
                " = 'trace-me'") == [[saga]]
    assert psql(shop.url, "SELECT count(*) FROM skald.saga_events WHERE correlation_id ="
                " 'trace-me' OR saga_id = '%s'" % saga) == [["8"]]

    said = log_lines(shop, daemon, "trace-me")
    assert all("saga=" + saga in text for _program, text in said), said
    wanted = [("skaldd", "saga started")]
    for name, step in hops:
        wanted += [("skaldd", "saga command", step), (name, "command answered", step),
                   ("skaldd", "saga reply", step)]
    wanted += [("skaldd", "saga finished")]
    got = [(program, text.split(" saga=")[0]) + tuple(re.findall(r"step=(\S+)", text))
           for program, text in said]
    assert got == wanted, "\n".join(map(str, got))
    assert len(log_lines(shop, daemon, "not-me")) == len(wanted)

    sources = [x for name, url in shop.urls.items()
               for x in ("--set", "source.%s.url=%s" % (name, url))]
    shown = t.skald("trace", "trace-me", "--json", *sources, url=shop.url).stdout
    last = -1
    for word in ("inventory.reserve", "inventory.reserve.reply", "payment.charge",
                 "payment.charge.reply", "shipping.ship", "shipping.ship.reply",
                 "skald.saga.completed"):
        place = shown.find('%s"' % word)
        assert place > last, "%s out of order in:\n%s" % (word, shown)
        last = place
    assert shop.ids[1] not in shown, shown
    shop.check({i: "completed" for i in shop.ids})


@e2e("e2e.saga.garbage_replies", records=8, effects=24)
def garbage_replies(t):
    """Garbage, missing and contradictory echoes, 10 MB are dead letters; other sagas flow."""
    shop = Shop(t).all()
    topic = t.kafka.create_topic("skald.replies." + shop.installation, 8)
    shop.daemon()
    shop.deploy()
    shop.start(4)
    shop.wait_ended()
    good = next(r for r in t.kafka.read_topic(topic) if r.key.decode() == shop.ids[0])

    def forged(**change):
        headers = dict(good.headers, ce_id="forged-%d" % forged.n)
        forged.n += 1
        for name in ("ce_stream", "ce_sequence"):
            headers.pop(name, None)
        for name, value in change.items():
            name = name.replace("idempotency_key", "idempotency-key")
            headers[name] = value
        return (good.key, good.value, [(k, v.encode()) for k, v in headers.items()
                                       if v is not None])

    forged.n = 0
    unknown = "00000000-0000-7000-8000-000000000001"
    wrong = [
        (b"k", b"\x00\xff garbage", []),
        forged(ce_sagaid=None),
        forged(ce_sagaattempt="x"),
        forged(ce_sagaop="undo"),
        forged(ce_sagaoutcome="perhaps"),
        forged(ce_sagastep="nowhere"),
        forged(idempotency_key="o:p:q"),
        forged(ce_sagaid=unknown, idempotency_key=unknown + ":reserve:action"),
        (good.key, b"[" * 100000, forged()[2]),
        (good.key, b'{"x":"%s"}' % (b"x" * 10 * 1024 * 1024), forged()[2]),
    ]
    t.kafka.produce(topic, wrong)
    t.kafka.produce(topic, [forged()])  # decodes, but fits nothing outstanding
    shop.start(4)
    shop.wait_ended()
    wait_until(lambda: len(shop.dead()) >= len(wrong), 30, "every wrong reply to be dead")
    wait_until(lambda: shop.events(shop.ids[0], ("stale",)), 30, "the stale reply")
    assert {r[0] for r in shop.dead()} == {"skald." + shop.installation}, shop.dead()
    assert "saga_unknown" in {r[2] for r in shop.dead()}, shop.dead()
    shop.check({i: "completed" for i in shop.ids}, dead=len(wrong))


@e2e("e2e.saga.copy_is_refused", records=1, effects=3)
def copy_is_refused(t):
    """A database under another installation's name is refused with the way out; two
    installations on one Kafka do not see each other's replies."""
    shop = Shop(t).all()
    first = shop.daemon()
    shop.deploy()
    shop.start(1)
    shop.wait_ended()
    other = t.skaldd(shop.url, name="other", roles="relay,orchestrator", ready=False,
                     settings={"daemon.installation": "somebody-else"})
    assert other.wait(30) not in (0, -9), other.returncode
    said = other.log_text()
    assert "skald db adopt" in said and "somebody-else" in said, said
    assert first.alive
    second = Shop(t, installation=t.tag + "-b")
    second.daemon(name="second")
    second.deploy()
    assert "skald.replies." + second.installation in t.kafka.topics()
    shop.start(1)
    shop.wait_ended()
    check.require_none(shop.findings())
    assert second.sagas() == {} and second.dead() == [], second.dead()
    t.checked(records=1, effects=len(shop.ledger()))


@e2e("e2e.saga.other_cluster_is_refused", records=1, timeout=120)
def other_cluster_is_refused(t):
    """The same database on another Kafka is a copy, too; `db adopt` is the way out."""
    shop = Shop(t)
    first = shop.daemon()
    wait_until(lambda: psql(shop.url, "SELECT 1 FROM skald.installation"), 30, "the identity")
    first.term()
    with PrivateKafka() as kafka:
        again = shop.daemon(name="elsewhere", bootstrap=kafka.bootstrap, ready=False)
        assert again.wait(60) not in (0, -9), again.returncode
        said = again.log_text()
        assert "skald db adopt" in said and "cluster" in said, said
        run_tool("skald", "db", "adopt", "--reason", "restored into another cluster", "--yes",
                 "--set", "daemon.installation=" + shop.installation,
                 "--brokers", kafka.bootstrap, "--database", shop.url)
        adopted = shop.daemon(name="adopted", bootstrap=kafka.bootstrap)
        assert adopted.alive
    t.checked(records=1)


@e2e("e2e.saga.garbage_commands", records=4, effects=12)
def garbage_commands(t):
    """What is no command is a dead letter of the participant; commands after it are served."""
    shop = Shop(t).all()
    shop.daemon()
    shop.deploy()
    shop.start(2)
    shop.wait_ended()
    topic = shop.topic("inventory")
    good = t.kafka.read_topic(topic)[0]

    def forged(n, **change):
        headers = {k: v for k, v in good.headers.items()
                   if k not in ("ce_stream", "ce_sequence")}
        headers.update({"ce_id": "forged-%d" % n})
        headers.update({k.replace("idempotency_key", "idempotency-key"): v
                        for k, v in change.items()})
        return (good.key, good.value, [(k, v.encode()) for k, v in headers.items()
                                       if v is not None])

    wrong = [
        (b"k", b"\x00\xff garbage", []),
        forged(1, ce_sagaid=None),
        forged(2, ce_sagaop="undo"),
        forged(3, ce_sagaattempt="0"),
        forged(4, idempotency_key="a:b:c"),
        forged(5, ce_replyto="shop.orders"),
        (good.key, b"[" * 100000, forged(6)[2]),
    ]
    t.kafka.produce(topic, wrong)
    # the same command under another ce_id is an attempt: the kept answer, no second effect
    t.kafka.produce(topic, [forged(7)])
    shop.start(2)
    shop.wait_ended()
    wait_until(lambda: len(shop.dead()) >= len(wrong), 30, "every wrong command to be dead")
    wait_until(lambda: shop.events(good.key.decode(), ("stale",)), 30, "the repeated answer")
    assert {r[0] for r in shop.dead()} == {t.group("inventory")}, shop.dead()
    shop.check({i: "completed" for i in shop.ids}, dead=len(wrong))


@e2e("e2e.saga.retention", records=31, effects=93)
def retention(t):
    """Finished sagas go with all they left, one that is open stays; their keys answer as
    before, and what comes late for one is a dead letter. A participant's own relay sweeps its
    barrier."""
    shop = Shop(t).all()
    psql(shop.urls["payment"], "INSERT INTO skald.barrier (participant, idempotency_key, state,"
         " outcome, at) VALUES ('payment', '018f0000-0000-7000-8000-000000000001:charge:action',"
         " 'answered', 'success', '2024-04-21')")
    shop.daemon(settings={"retention.sagas": "1s"})
    shop.deploy()
    shop.start(30)
    first = shop.ids[0]
    left = """SELECT (SELECT count(*) FROM skald.%s), (SELECT count(*) FROM skald.saga_past)"""
    for table in ("saga", "saga_data", "saga_event_entry"):
        wait_until(lambda n=table: psql(shop.url, left % n) == [["0", "30"]], 40,
                   "%s to be swept" % table, every=0.2)
    shop.procs["shipping"].freeze()
    again = ["saga", "start", "order", "--key", "o-1", "--json", "--input"]
    same, other = json.dumps(shop.input(1)), json.dumps(shop.input(2))
    assert json.loads(t.skald(*again, same, "--wait", url=shop.url).stdout) == {
        "id": first, "status": "finished", "outcome": "completed"}
    assert t.skald(*again, other, url=shop.url, check=False).returncode == 5
    shop.ids.append(json.loads(
        t.skald(*again, other, "--again", "finished", url=shop.url).stdout)["id"])
    assert psql(shop.url, "SELECT id, run FROM skald.sagas") == [[shop.ids[-1], "2"]]
    topic = "skald.replies." + shop.installation
    late = next(r for r in t.kafka.read_topic(topic) if r.key.decode() == first)
    t.kafka.produce(topic, [(late.key, late.value, [
        (k, v.encode()) for k, v in dict(late.headers, ce_id="late").items()
        if k not in ("ce_stream", "ce_sequence")])])
    wait_until(shop.dead, 30, "the late reply to be dead")
    assert [r[2] for r in shop.dead()] == ["saga_unknown"], shop.dead()
    assert shop.sagas()[shop.ids[-1]][0] == "running"
    shop.procs["shipping"].thaw()
    wait_until(lambda: psql(shop.url, left % "saga") == [["0", "31"]], 60, "run 2 to be swept")
    assert sorted(shop.ids) == sorted(
        r[0] for r in psql(shop.url, "SELECT id FROM skald.saga_past"))
    wait_until(lambda: psql(shop.urls["payment"], "SELECT count(*), min(idempotency_key) >"
                            " '018f0000-0001' FROM skald.barrier") == [["31", "t"]], 30,
               "the old row of the barrier to be swept, and no other")
    assert Counter(shop.ledger()) == Counter(
        (i, step, "action") for i in shop.ids for step in SERVICES.values()), shop.ledger()
    t.checked(records=len(shop.ids), effects=len(shop.ledger()))
