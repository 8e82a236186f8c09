"""Nothing lost, nothing inverted: 64 writers, and three readers that get it wrong.

The controls go through the same checker, which must name their fault.
"""

import json

import time

from skaldtest import Record, check, e2e, psql, wait_until

import writers
from relays import MODES, VERSION, by_hand, relay, settle, wait_acked, wait_mode

# The whole claim is a million events: by hand, with 6000 transactions each.
KILLED_TRANSACTIONS = by_hand("ORDER_TRANSACTIONS", 120)


@e2e("e2e.relay.order_under_load", records=100000, timeout=400)
def order_under_load(t):
    """64 writers, savepoints, rollbacks, one transaction open throughout: per key the
    topic's first appearances are in version order, nothing is missing."""
    url = t.database()
    topic = t.topic("load", partitions=6)
    load = writers.Writers(t, url, topic, clients=64, transactions=600)
    psql(url, "CREATE TABLE app.unrelated (i int)")
    held = t.connect(url, autocommit=False)
    held.execute("INSERT INTO app.unrelated VALUES (1)")  # has an xid, stays open
    with t.connect(url) as other:
        other.execute("SELECT 1")
    relay = t.skaldd(url)
    load.start()
    load.wait(300)
    ids = load.committed()
    t.log("%d events committed, a transaction is still open" % len(ids))
    t.kafka.wait_count(topic, len(ids), timeout=120)
    held.rollback()
    assert relay.term() == 0
    t.check_topic(topic, expected=ids, version=VERSION)


def order_with_kills(t, mode):
    """64 writers while the relay is killed at random moments and another takes over: nothing
    is missing, per key versions rise by one."""
    url = t.database()
    topic = t.topic("killed", partitions=6)
    load = writers.Writers(t, url, topic, clients=64, transactions=KILLED_TRANSACTIONS)
    relays = [relay(t, url, mode, name=name, wait=False) for name in "ab"]
    wait_mode(url, mode)
    load.start()
    kills = 0
    while load.proc.alive or kills < 3:
        time.sleep(t.rng.uniform(0.3, 2.5))  # a random moment, not a wait
        owner = psql(url, "SELECT coalesce(owner, '') FROM skald.relays")[0][0]
        victim = next((r for r in relays if ":%d:" % r.pid in owner), t.rng.choice(relays))
        victim.kill()
        kills += 1
        victim.start()
        if not load.proc.alive and kills >= 3:
            break
    load.wait(60)
    ids = load.committed()
    wait_acked(url, 120)
    records = settle(t, url, None, topic, ids)
    t.log("%d kills" % kills)
    check.require_none(without_gaps(records), "versions of a key")


def without_gaps(records):
    """Per key the versions are 1, 2, 3 ...: nothing in between is missing."""
    found, last = [], {}
    for r in check.first_appearances(records):
        v = VERSION(r)
        if v != last.get(r.key, 0) + 1:
            found.append(check.Finding("lost", repr(r.key), "version %d after %d" % (
                v, last.get(r.key, 0))))
        last[r.key] = v
    return found


for _mode in MODES:
    e2e("e2e.relay.order_with_kills." + _mode, records=15000, timeout=240 + KILLED_TRANSACTIONS)(
        lambda t, m=_mode: order_with_kills(t, m))


def record(n, row):
    """A row that a reader of the table would publish, as the checker sees records."""
    ident, key, value = row
    return Record("control", 0, n, 0, str(key).encode(), json.dumps(value).encode(),
                  [("ce_id", str(ident).encode())])


def rows(conn, where, order):
    return conn.execute("SELECT message_id, convert_from(key, 'UTF8'),"
                        " convert_from(data, 'UTF8')::jsonb, id, xid::text FROM skald.outbox"
                        " WHERE %s ORDER BY %s" % (where, order)).fetchall()


@e2e("e2e.relay.control_id_reader", records=2, kafka=False)
def control_id_reader(t):
    """A reader with `id > last` loses the row of a transaction that commits late."""
    url = t.database()
    psql(url, writers.TABLES % 9)
    slow, fast, reader = t.connect(url, autocommit=False), t.connect(url), t.connect(url)
    slow.execute("SELECT app.change('x', 1)")
    fast.execute("SELECT app.change('x', 2)")
    seen, last = [], -1
    for commit_first in (False, True):
        if commit_first:
            slow.commit()
        for row in rows(reader, "id > %d" % last, "id"):
            seen.append(record(len(seen), row[:3]))
            last = row[3]
    found = check.topic(seen, writers.committed(url), version=VERSION, positions=False)
    check.require_kind(found, "lost")
    t.checked(records=len(writers.committed(url)))


@e2e("e2e.relay.control_xmin_horizon_reader", records=2, kafka=False)
def control_xmin_horizon_reader(t):
    """A reader by (xid, id) below the xmin horizon inverts: the first change of a key comes
    from a younger transaction than the second."""
    url = t.database()
    psql(url, writers.TABLES % 9)
    old, young, reader = t.connect(url, autocommit=False), t.connect(url), t.connect(url)
    old.execute("SELECT pg_current_xact_id()")
    young.execute("SELECT app.change('x', 1)")
    old.execute("SELECT app.change('x', 1)")
    old.commit()
    seen = [record(n, row[:3]) for n, row in enumerate(rows(
        reader, "xid < pg_snapshot_xmin(pg_current_snapshot())", "xid, id"))]
    found = check.topic(seen, writers.committed(url), version=VERSION, positions=False)
    check.require_kind(found, "inverted")
    t.checked(records=len(seen))


def inversion_schedule(t, mode):
    """The schedule of the control above, through the relay: in order, in both takings."""
    url = t.database()
    topic = t.topic("inversion", partitions=1)
    psql(url, writers.TABLES % 9)
    if mode == "wal":  # of a relay that streams already: else it polls what was there before
        relay(t, url, mode)
    old, young = t.connect(url, autocommit=False), t.connect(url)
    old.execute("SELECT pg_current_xact_id()")
    young.execute("SELECT app.change('%s', 1)" % topic)
    old.execute("SELECT app.change('%s', 1)" % topic)
    old.commit()
    if mode == "poll":
        relay(t, url, mode)
    t.kafka.wait_count(topic, 2)
    t.check_topic(topic, expected=writers.committed(url), version=VERSION)


@e2e("e2e.relay.control_add_before_lock", records=2)
def control_add_before_lock(t):
    """outbox_add before the statement that locks: published against the order of the locks,
    as the documentation warns."""
    url = t.database()
    topic = t.topic("early", partitions=1)
    psql(url, writers.TABLES % 9)
    add = ("SELECT skald.outbox_add(topic => '%s', key => 'k1', type => 't',"
           " data => '{\"k\": 1}')" % topic)
    change = "UPDATE app.counter SET version = version + 1 WHERE k = 1 RETURNING version"
    one, two = t.connect(url, autocommit=False), t.connect(url, autocommit=False)
    version = {}
    first = str(one.execute(add).fetchone()[0])
    second = str(two.execute(add).fetchone()[0])
    version[second] = two.execute(change).fetchone()[0]
    two.commit()
    version[first] = one.execute(change).fetchone()[0]
    one.commit()
    t.skaldd(url)
    t.kafka.wait_count(topic, 2)
    records = t.kafka.read_topic(topic)
    found = check.topic(records, list(version), version=lambda r: version[r.id])
    check.require_kind(found, "inverted")
    t.checked(records=len(records))


def open_transaction_stalls_nothing(t, mode):
    """Open transactions, in this database with events of their own and in another one, delay
    nobody else's events; their own follow when they commit."""
    url, other = t.database(), t.database(migrate=False)
    topic = t.topic("open", partitions=2)
    psql(other, "CREATE TABLE x (i int)")
    mine, foreign = t.connect(url, autocommit=False), t.connect(other, autocommit=False)
    foreign.execute("INSERT INTO x VALUES (1)")
    mine.execute("SELECT skald.outbox_add(topic => %s, key => 'late', type => 't', data => '1')",
                 [topic])
    relay(t, url, mode, wait=False)  # a slot is made only when all that were open have ended
    writers.add(t, url, topic, 300)
    t.kafka.wait_count(topic, 300)
    wait_until(lambda: psql(url, "SELECT lag_rows FROM skald.relays")[0][0] == "0", 20,
               "no visible row to wait")
    assert t.kafka.count(topic) == 300
    mine.commit()
    t.kafka.wait_count(topic, 301)
    foreign.rollback()
    wait_mode(url, mode)
    open_again(t, url, topic, other)
    records = t.check_topic(topic)
    assert sum(r.key == b"late" for r in records) == 2


def open_again(t, url, topic, other):
    """The same with a relay that has arrived in its mode."""
    mine, foreign = t.connect(url, autocommit=False), t.connect(other, autocommit=False)
    foreign.execute("INSERT INTO x VALUES (1)")
    mine.execute("SELECT skald.outbox_add(topic => %s, key => 'late', type => 't', data => '2')",
                 [topic])
    writers.add(t, url, topic, 100, first=301)
    t.kafka.wait_count(topic, 401)
    mine.commit()
    t.kafka.wait_count(topic, 402)


for _mode in MODES:
    e2e("e2e.relay.inversion_schedule." + _mode, records=2)(
        lambda t, m=_mode: inversion_schedule(t, m))
    e2e("e2e.relay.open_transaction_stalls_nothing." + _mode, records=400)(
        lambda t, m=_mode: open_transaction_stalls_nothing(t, m))
