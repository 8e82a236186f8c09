"""Mode wal alone: positions, restarts of PostgreSQL, slots that are lost, held or advanced,
schema changes, large transactions, other databases."""

import os
import time

from skaldtest import check, e2e, psql, wait_until
from skaldtest.pg import pg_bin

import kills
import writers
from appliers import applier
from relays import (VERSION, by_hand, drop_slot, epoch, lag_rows, relay, settle, slot, slot_state,
                    wait_acked, wait_mode, wait_streaming)

LARGE_ROWS = by_hand("LARGE_ROWS", 300000)  # a million by hand
OTHER_SECONDS = by_hand("OTHER_SECONDS", 9)  # ten minutes by hand


# --- positions ------------------------------------------------------------------------------


@e2e("e2e.wal.one_transaction_many_rows", records=1003)
def one_transaction_many_rows(t):
    """COPY of 1,000 rows (which share one LSN), a logical message beside two rows, one row
    rolled back to a savepoint: positions are the commit's LSN and the ordinal, without gaps."""
    url = t.database()
    topic = t.topic("copy", partitions=1)
    relay(t, url, "wal")
    with t.connect(url, autocommit=False) as conn:
        with conn.cursor() as cur:
            with cur.copy("COPY skald.outbox (message_id, topic, key, type, source,"
                          " correlation_id, traceparent, data) FROM STDIN") as copy:
                for n in range(1000):
                    copy.write_row(("018f0000-0000-7000-8000-%012x" % n, topic, "k", "t", "/s",
                                    "c", "00-%032x-%016x-01" % (n + 1, n + 1),
                                    '{"version": %d}' % n))
        conn.commit()
        conn.execute("SELECT pg_logical_emit_message(true, 'ours', 'x')")
        add = ("SELECT skald.outbox_add(topic => %s, key => 'k', type => 't',"
               " data => jsonb_build_object('version', %s::int))")
        conn.execute(add, [topic, 1000])
        conn.execute("SAVEPOINT s")
        conn.execute(add, [topic, 1001])
        conn.execute("ROLLBACK TO SAVEPOINT s")
        conn.execute(add, [topic, 1002])
        conn.execute("SELECT pg_logical_emit_message(false, 'ours', 'not of a transaction')")
        conn.commit()
        conn.execute(add, [topic, 1003])
        conn.commit()
    t.kafka.wait_count(topic, 1003)
    records = t.check_topic(topic, version=VERSION)
    where = [r.position.split(".") for r in records]
    copied = where[:1000]
    assert len({(e, lsn) for e, lsn, _ in copied}) == 1, copied[:3]
    assert [int(o, 16) for _, _, o in copied] == list(range(1000))
    assert [VERSION(r) for r in records[1000:]] == [1000, 1002, 1003]
    assert [int(o, 16) for _, _, o in where[1000:]] == [0, 1, 0]
    lsns = [lsn for _, lsn, _ in where]
    assert lsns == sorted(lsns) and len(set(lsns)) == 3


@e2e("e2e.wal.schema_changes", records=300)
def schema_changes(t):
    """Columns added, renamed and dropped, a leaf emptied, a foreign table published, while
    the relay streams: columns go by name, everything else is no business of the relay's."""
    url = t.database()
    topic = t.topic("alter", partitions=1)
    relay(t, url, "wal")
    done = 0
    for change in ("ALTER TABLE skald.outbox ADD COLUMN extra text DEFAULT 'x'",
                   "ALTER TABLE skald.outbox RENAME COLUMN extra TO other",
                   "ALTER TABLE skald.outbox DROP COLUMN other",
                   "TRUNCATE skald.outbox_7",
                   "CREATE TABLE public.t (i int); ALTER PUBLICATION skald_outbox ADD TABLE"
                   " public.t; INSERT INTO public.t VALUES (1)"):
        writers.add(t, url, topic, 30, first=done + 1)
        psql(url, "BEGIN; %s; COMMIT;" % change)
        writers.add(t, url, topic, 30, first=done + 31)
        done += 60
    t.kafka.wait_count(topic, done)
    settle(t, url, None, topic, writers.committed(url))
    wait_streaming(url)


# --- restarts -------------------------------------------------------------------------------


class PlainReader:
    """The control: pg_recvlogical as others build their reader, its slot the only memory."""

    def __init__(self, t, url):
        self.t, self.url = t, url
        self.out = os.path.join(t.dir, "plain.out")
        self.starts = 0
        psql(url, "SELECT pg_create_logical_replication_slot('plain', 'test_decoding')")

    def read(self, ids):
        """Read and confirm until all ids have been seen."""
        self.starts += 1
        p = self.t.proc([os.path.join(pg_bin(), "pg_recvlogical"), "-d", self.url, "--slot",
                         "plain", "--start", "-f", self.out, "--status-interval=1",
                         "--fsync-interval=1", "--no-loop"], "plain")
        wait_until(lambda: set(ids) <= set(self.seen()), 30, "the plain reader to have all")
        here = psql(self.url, "SELECT pg_current_wal_lsn()")[0][0]
        wait_until(lambda: psql(self.url, "SELECT 1 FROM pg_replication_slots WHERE slot_name ="
                                " 'plain' AND confirmed_flush_lsn >= '%s'" % here), 20,
                   "the plain reader to confirm")
        p.term()

    def seen(self):
        if not os.path.exists(self.out):
            return []
        with open(self.out, errors="replace") as f:
            return [line.split("message_id[uuid]:'")[1][:36] for line in f
                    if "outbox_" in line and "message_id[uuid]:'" in line]


@e2e("e2e.wal.restart_repeats_nothing", records=400, effects=1)
def restart_repeats_nothing(t):
    """PostgreSQL forgets at a restart what was confirmed last; the relay's own record does
    not: PostgreSQL restarted, the relay restarted, both: not one record twice. Control: a
    reader that trusts its slot reads some twice."""
    url = t.database()
    topic = t.topic("once", partitions=2)
    daemon = relay(t, url, "wal")
    plain = PlainReader(t, url)

    def more(n):
        for i in range(10):
            writers.add(t, url, topic, 10, first=n * 100 + i * 10 + 1)
        t.kafka.wait_count(topic, (n + 1) * 100)
        wait_acked(url)
        plain.read(writers.committed(url))

    more(0)
    t.pg.restart("fast")
    more(1)
    daemon.kill()
    daemon.start()
    wait_streaming(url)
    more(2)
    daemon.kill()
    t.pg.restart("fast")
    daemon.start()
    wait_streaming(url)
    more(3)
    ids = writers.committed(url)
    records = settle(t, url, None, topic, ids)
    assert check.repetitions(records) == 0, "%d repetitions" % check.repetitions(records)
    found = check.effects(ids, plain.seen())
    check.require_kind(found, "doubled", "a reader that trusts its slot:")
    t.log("the control read %d twice" % check.kinds(found)["doubled"])
    t.checked(effects=check.kinds(found)["doubled"])


@e2e("e2e.wal.other_databases_only", records=1)
def other_databases_only(t):
    """Traffic in another database only: what the relay has confirmed stays within 5 s of the
    end of WAL. Control: a slot that nobody reads stays behind."""
    url, other = t.database(), t.database(migrate=False)
    topic = t.topic("other", partitions=1)
    relay(t, url, "wal")
    writers.add(t, url, topic, 1)
    t.kafka.wait_count(topic, 1)
    psql(url, "SELECT pg_create_logical_replication_slot('idle', 'test_decoding')")
    psql(other, "CREATE TABLE x (i int, t text)")
    began = time.monotonic()
    rounds = 0
    while time.monotonic() - began < OTHER_SECONDS:
        psql(other, "INSERT INTO x SELECT i, repeat('x', 500) FROM generate_series(1, 2000) i")
        here = psql(url, "SELECT pg_current_wal_lsn()")[0][0]

        def confirmed(name):
            return psql(url, "SELECT confirmed_flush_lsn >= '%s' FROM pg_replication_slots WHERE"
                             " slot_name = '%s'" % (here, name)) == [["t"]]

        wait_until(lambda: confirmed(slot(url)), 15, "the relay to confirm WAL of others")
        assert not confirmed("idle"), "the control keeps up: nothing was proved"
        rounds += 1
    t.log("%d rounds of 2,000 foreign rows, each confirmed" % rounds)
    t.check_topic(topic, expected=writers.committed(url))


# --- slots ----------------------------------------------------------------------------------


def after_the_loss(t, url, sink, topic, before, daemon):
    """It polled what the slot cannot give any more, under a new epoch, flagged, and streams
    again by itself."""
    wait_streaming(url, 60)
    writers.add(t, url, topic, 100, first=50001)
    ids = writers.committed(url)
    records = settle(t, url, sink, topic, ids, recovered=True)
    assert epoch(url) > before
    assert check.repetitions(records) == 0, "the topic's tail was not looked at"
    assert daemon.alive
    return records


@e2e("e2e.wal.slot_invalidated", records=700, effects=700)
def slot_invalidated(t):
    """max_slot_wal_keep_size takes the slot of a relay that was down: the table is caught up
    from, flagged ce_recovered, then it streams again; nothing is lost."""
    pg = t.cluster(segment_mb=1, max_slot_wal_keep_size="'2MB'", max_wal_size="'4MB'",
                   min_wal_size="'2MB'")
    url, sink = t.database(cluster=pg), t.database()
    topic = t.topic("invalid", partitions=2)
    applier(t, sink, topic)
    daemon = relay(t, url, "wal")
    writers.add(t, url, topic, 300)
    t.kafka.wait_count(topic, 300)
    wait_acked(url)
    before = epoch(url)
    daemon.kill()
    missed = writers.add(t, url, topic, 300, first=301)
    psql(url, "CREATE TABLE ballast (t text)")

    def invalidated():
        psql(url, "INSERT INTO ballast SELECT repeat(md5(random()::text), 60) FROM"
                  " generate_series(1, 3000); SELECT pg_switch_wal(); CHECKPOINT;")
        return slot_state(url)[1] == "lost"

    wait_until(invalidated, 60, "PostgreSQL to invalidate the slot")
    missed += writers.add(t, url, topic, 50, first=601)
    daemon.start()
    daemon.wait_ready(30)
    records = after_the_loss(t, url, sink, topic, before, daemon)
    flagged = {r.id for r in records if check.is_recovered(r)}
    assert set(missed) >= flagged and flagged, "%d flagged, of %d missed" % (
        len(flagged), len(missed))


def slot_dropped(t, under_load):
    """The slot dropped by hand, under a running relay or while it is down."""
    url, sink = t.database(), t.database()
    topic = t.topic("dropped", partitions=2)
    applier(t, sink, topic)
    daemon = relay(t, url, "wal")
    before = epoch(url)
    if under_load:
        load = writers.Writers(t, url, topic, clients=4, rate=150).start()
        for _ in range(2):
            t.kafka.wait_count(topic, t.kafka.count(topic) + 300)
            drop_slot(url)
            wait_until(lambda: epoch(url) > before, 30, "a new epoch")
            wait_streaming(url, 60)
        load.stop()
    else:
        writers.add(t, url, topic, 300)
        t.kafka.wait_count(topic, 300)
        daemon.kill()
        drop_slot(url)
        writers.add(t, url, topic, 300, first=301)
        daemon.start()
    after_the_loss(t, url, sink, topic, before, daemon)


e2e("e2e.wal.slot_dropped.under_load", records=600, effects=600)(
    lambda t: slot_dropped(t, True))
e2e("e2e.wal.slot_dropped.while_down", records=600, effects=600)(
    lambda t: slot_dropped(t, False))


@e2e("e2e.wal.slot_advanced_by_hand", records=600, effects=600)
def slot_advanced_by_hand(t):
    """Somebody moved the slot beyond what was published (pg_replication_slot_advance): the
    server would start there without a word. It is noticed, and nothing is lost."""
    url, sink = t.database(), t.database()
    topic = t.topic("advanced", partitions=2)
    applier(t, sink, topic)
    daemon = relay(t, url, "wal")
    writers.add(t, url, topic, 300)
    t.kafka.wait_count(topic, 300)
    wait_acked(url)
    before = epoch(url)
    daemon.kill()
    writers.add(t, url, topic, 300, first=301)
    wait_until(lambda: slot_state(url)[0] == "f", 20, "the slot to be free")
    psql(url, "SELECT pg_replication_slot_advance('%s', pg_current_wal_lsn())" % slot(url))
    daemon.start()
    daemon.wait_ready(30)
    after_the_loss(t, url, sink, topic, before, daemon)


class Stranger:
    """Somebody who writes to the same topic in transactions."""

    def __init__(self, t, topic):
        from confluent_kafka import Producer

        self.kafka, self.topic = t.kafka, topic
        self.producer = Producer({"bootstrap.servers": t.kafka.bootstrap, "log_level": 2,
                                  "transactional.id": topic})
        self.producer.init_transactions(30)

    def begin(self):
        """One that has written to every partition, and is open."""
        self.producer.begin_transaction()
        for partition in self.kafka.partitions(self.topic):
            self.producer.produce(self.topic, key="x", value="{}", partition=partition)
        assert self.producer.flush(30) == 0

    def commit(self):
        self.producer.commit_transaction(30)


def beside_transactions(t, is_open):
    """What was published and not recorded is found behind somebody's open transaction, which
    readers of committed records do not see beyond; and in front of the marker that ends one,
    which is no record and is waited for by nobody."""
    url = t.database()
    topic = t.topic("beside", partitions=3)
    stranger = Stranger(t, topic)
    first = relay(t, url, "wal", failpoint="stream_after_ack:2")
    stranger.begin()
    # the topic's count ends before an open transaction
    kills.load_until_dead(t, url, topic, first, is_out=lambda: lag_rows(url) == 0)
    if not is_open:
        stranger.commit()
    began = time.monotonic()
    second = relay(t, url, "poll")
    wait_acked(url)
    t.log("caught up %.1f s after its start" % (time.monotonic() - began))
    if is_open:
        stranger.commit()
    found = second.metric("skald_relay_catchup_skipped_total")
    records = [r for r in t.kafka.read_topic(topic) if r.stream]
    check.require_none(check.topic(records, writers.committed(url), version=VERSION,
                                   recovered=True))
    assert check.repetitions(records) == 0, "what the topic held was sent again"
    assert found > 0, "everything was recorded: nothing was proved"
    t.log("%d events, %d of them found in the topic" % (len(records), found))
    t.checked(records=len(records))


e2e("e2e.wal.beside_transactions.open", records=300)(lambda t: beside_transactions(t, True))
e2e("e2e.wal.beside_transactions.ended", records=300)(lambda t: beside_transactions(t, False))


class Holder:
    """Somebody who reads the relay's slot, and stands still, so that he confirms nothing."""

    def __init__(self, t, url):
        wait_until(lambda: slot_state(url)[0] == "f", 20, "the slot to be free")
        self.proc = t.proc([
            os.path.join(pg_bin(), "pg_recvlogical"), "-d", url, "--slot", slot(url), "--start",
            "-f", os.devnull, "--no-loop", "--status-interval=0", "-o", "proto_version=1",
            "-o", "publication_names=skald_outbox"], "holder")
        wait_until(lambda: slot_state(url)[0] == "t", 20, "the other to read the slot")
        self.proc.freeze()


def slot_held(t, may_end_it):
    """The slot is read by somebody else. A relay that may end that session takes it back; one
    that may not waits, says so, and goes on by itself when the other is gone."""
    url = t.database()
    topic = t.topic("held", partitions=1)
    own = url
    if not may_end_it:
        psql(url, "CREATE ROLE carrier LOGIN REPLICATION IN ROLE skald_daemon")
        own = url.replace("postgres@", "carrier@")
    daemon = relay(t, own, "wal", wait=False)
    wait_mode(url, "wal")
    writers.add(t, url, topic, 100)
    t.kafka.wait_count(topic, 100)
    wait_acked(url)
    before = epoch(url)
    daemon.kill()
    holder = Holder(t, url)
    writers.add(t, url, topic, 100, first=101)
    daemon.start()
    if not may_end_it:
        wait_until(lambda: "slot" in daemon.http("/readyz")[1], 20, "/readyz to name the slot")
        assert daemon.http("/readyz")[0] == 503
        assert t.kafka.count(topic) == 100, "two read one slot?"
        holder.proc.kill()
    t.kafka.wait_count(topic, 200)
    writers.add(t, url, topic, 100, first=201)
    records = settle(t, url, None, topic, writers.committed(url))
    assert len(records) == 300 and epoch(url) == before, "a slot in use is not a slot lost"
    daemon.wait_ready(10)


e2e("e2e.wal.slot_held.taken_back", records=300)(lambda t: slot_held(t, True))
e2e("e2e.wal.slot_held.waited_for", records=300)(lambda t: slot_held(t, False))


# --- large transactions -----------------------------------------------------------------------

LARGE = """
INSERT INTO skald.outbox (message_id, topic, key, type, source, correlation_id, traceparent, data)
SELECT ('018f0000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, '%s',
    convert_to('k' || i %% 1000, 'UTF8'), 't', '/s', 'c',
    '00-' || lpad(to_hex(i), 32, '0') || '-' || lpad(to_hex(i), 16, '0') || '-01',
    convert_to('{"version": ' || i || ', "x": "' || repeat('x', 100) || '"}', 'UTF8')
FROM generate_series(1, %d) i
"""


def large_transaction(t, mode, rows, kill):
    """One transaction of many rows: memory stays under 64 MB, also when the relay is killed
    in the middle of it and another begins anew."""
    url = t.database()
    topic = t.topic("large", partitions=4)
    daemon = relay(t, url, mode, failpoint="stream_mid_transaction:%d" % (rows // 4)
                   if kill else None)
    wait_mode(url, mode)
    began = time.monotonic()
    psql(url, LARGE % (topic, rows))
    t.log("inserted in %.1f s" % (time.monotonic() - began))
    peak = 0.0
    while kill and daemon.alive:
        peak = max(peak, daemon.rss_peak_mb())
        time.sleep(0.02)
    if kill:
        daemon.wait_killed(1)
        t.log("killed with %d records in the topic" % t.kafka.count(topic))
        daemon = relay(t, url, mode)
    began = time.monotonic()
    t.kafka.wait_count(topic, rows, timeout=60 + rows / 3000)
    wait_acked(url)
    peak = max(peak, daemon.rss_peak_mb())
    took = time.monotonic() - began
    records = t.check_topic(topic, expected=["018f0000-0000-7000-8000-%012x" % i
                                             for i in range(1, rows + 1)], version=VERSION)
    t.log("%s: %d rows in one transaction, %d records, peak RSS %.1f MB, %.1f s" % (
        mode, rows, len(records), peak, took))
    assert peak <= 64, "%.1f MB" % peak


e2e("e2e.wal.large_transaction", records=LARGE_ROWS, timeout=240 + LARGE_ROWS // 1000)(
    lambda t: large_transaction(t, "wal", LARGE_ROWS, True))
e2e("e2e.relay.large_transaction.poll", records=LARGE_ROWS // 3, timeout=240 + LARGE_ROWS // 1000)(
    lambda t: large_transaction(t, "poll", LARGE_ROWS // 3, False))
