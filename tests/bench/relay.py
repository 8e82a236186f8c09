"""relay: a backlog into Kafka against COPY | kcat, and commit to acknowledgement."""

import subprocess
import time

from kit import BenchError, Meter, Usage, end, say, spawn
from report import Run, Verdict, where

PARTITIONS = 8
KEYS = 10000
BYTES = 300
RATE = 500

# `backlog` feeds kcat: the same keys and bytes as plain text, read as fast as COPY can
SCHEMA = f"""
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount int NOT NULL);
CREATE TABLE backlog (n int, key text NOT NULL, data text NOT NULL);
INSERT INTO backlog
SELECT n, 'key-' || lpad(((n::bigint * 7919) %% {KEYS})::text, 6, '0'),
       rpad('{{"n":' || n || ',"pad":"', {BYTES} - 2, 'x') || '"}}'
  FROM generate_series(1, %(rows)s) n;
ALTER TABLE backlog ADD PRIMARY KEY (n);
VACUUM ANALYZE backlog;
"""

# ten messages a transaction, as services write them, not one huge one
LOAD = """
SET synchronous_commit = off;
DO $$
BEGIN
    FOR i IN 0..%(rows)s / 10 - 1 LOOP
        PERFORM skald.outbox_add_bytes(topic => '%(topic)s', key => convert_to(key, 'UTF8'),
            type => 'bench.order.placed', data => convert_to(data, 'UTF8'),
            content_type => 'application/json')
           FROM backlog WHERE n BETWEEN i * 10 + 1 AND i * 10 + 10;
        COMMIT;
    END LOOP;
END $$;
CHECKPOINT;
"""


def skaldd(bench, database, port):
    from skaldtest import free_port
    with open(bench.dir / f"skaldd-{port}.log", "w", encoding="utf-8") as log:
        return spawn([bench.program("skaldd"), "--roles", "relay",
                      "--set", f"database.url={bench.url(database)}",
                      "--set", f"kafka.bootstrap.servers={bench.kafka.bootstrap}",
                      "--set", f"http.listen=127.0.0.1:{free_port()}",
                      "--set", "log.format=text"], stdout=log, stderr=log)


def log_tail(bench, port):
    return (bench.dir / f"skaldd-{port}.log").read_text()[-600:]


def wait_published(bench, conn, proc, turn, timeout_s=120):
    """Until the relay has recorded that the newest transaction is acknowledged."""
    last = conn.execute("SELECT max(xid)::text FROM skald.outbox").fetchone()[0]
    question = ("SELECT coalesce(bool_and(pg_visible_in_snapshot(%s::xid8, acked_snapshot)), "
                "false) FROM skald.relay")
    until = time.monotonic() + timeout_s
    while not conn.execute(question, [last], prepare=True).fetchone()[0]:
        if time.monotonic() > until or proc.poll() is not None:
            raise BenchError(f"the relay did not finish: {log_tail(bench, turn)}")
        time.sleep(0.005)


def counted(bench, topic):
    got = bench.kafka.count(topic)
    if got != bench.rows:
        raise BenchError(f"{topic} holds {got} records, not {bench.rows}")


def run_relay(bench, conn, turn, usage):
    """Rows a second, from the start of the process; (rate, headers of a record)"""
    topic = bench.topic("relay", PARTITIONS)
    bench.pg.sql("TRUNCATE skald.outbox", "relay")
    bench.pg.sql(LOAD % {"rows": bench.rows, "topic": topic}, "relay")
    with Meter(**bench.pids()) as meter:
        begin = time.monotonic()
        proc = meter.child("skaldd", skaldd(bench, "relay", turn))
        try:
            wait_published(bench, conn, proc, turn)
            took = time.monotonic() - begin
            meter.stop()
        finally:
            end(proc)
    counted(bench, topic)
    headers = first_headers(bench, topic)
    bench.kafka.delete_topic(topic)
    usage.add(meter, bench.rows)
    return bench.rows / took, headers


def first_headers(bench, topic):
    done = subprocess.run(["kcat", "-C", "-q", "-b", bench.kafka.bootstrap, "-t", topic, "-o",
                           "beginning", "-c", "1", "-J"], capture_output=True, check=True,
                          timeout=30)
    import json
    flat = json.loads(done.stdout.splitlines()[0])["headers"]
    return list(zip(flat[::2], flat[1::2]))


def run_kcat(bench, headers, usage):
    topic = bench.topic("kcat", PARTITIONS)
    kcat = ["kcat", "-P", "-b", bench.kafka.bootstrap, "-t", topic, "-K", "\t",
            "-X", "enable.idempotence=true", "-X", "acks=all", "-X", "linger.ms=5",
            "-X", "topic.partitioner=murmur2_random"]
    for name, value in headers:
        kcat += ["-H", f"{name}={value}"]
    psql = ["psql", "-X", "-q", "-d", bench.url("relay"), "-c",
            "COPY (SELECT key, data FROM backlog) TO STDOUT"]
    bench.pg.sql("CHECKPOINT", "relay")
    with Meter(**bench.pids()) as meter:
        begin = time.monotonic()
        source = meter.child("psql", spawn(psql, stdout=subprocess.PIPE))
        sink = meter.child("kcat", spawn(kcat, stdin=source.stdout,
                                         stderr=subprocess.DEVNULL))
        source.stdout.close()
        meter.reap(source)
        meter.reap(sink)
        took = time.monotonic() - begin
        meter.stop()
    counted(bench, topic)
    bench.kafka.delete_topic(topic)
    usage.add(meter, bench.rows)
    return bench.rows / took


def backlog(bench, report):
    conn = bench.connect("relay")
    ours, theirs = [], []
    our_usage, their_usage = Usage(), Usage()
    headers = []
    for turn in range(bench.rounds):
        rate, headers = run_relay(bench, conn, turn, our_usage)
        ours.append(rate)
        theirs.append(run_kcat(bench, headers, their_usage))
        say(f"bench: relay round {turn + 1}/{bench.rounds}: skaldd {ours[-1]:,.0f}/s, "
            f"COPY | kcat {theirs[-1]:,.0f}/s")
    size = sum(len(n) + len(v) for n, v in headers)
    report.head("relay", {"rows": f"{bench.rows:,}", "bytes": BYTES, "keys": f"{KEYS:,}",
                          "partitions": PARTITIONS, "rounds": bench.rounds,
                          "headers": f"{len(headers)} ({size} B) on both sides"})
    base = Run("relay", "kcat", "psql COPY | kcat -P, acks=all", "rows/s", theirs, their_usage)
    mine = Run("relay", "skaldd", "skaldd --roles relay, start to last ack", "rows/s", ours,
               our_usage)
    report.add(base, mine, Verdict("relay.backlog", "skaldd against COPY | kcat", mine, base,
                                   [x / y for x, y in zip(ours, theirs)], 0.5, why=where(mine)))


def latency(bench, report):
    """One program writes at a steady rate and sees the records: one clock."""
    found = {"outbox": [], "kcat5": [], "kcat0": []}
    usage = {name: Usage() for name in found}
    topic = bench.topic("latency", PARTITIONS)
    for turn in range(bench.rounds):
        with Meter(**bench.pids()) as meter:
            proc = meter.child("skaldd", skaldd(bench, "relay", f"latency-{turn}"))
            try:
                got = bench.run_json(meter, "writer", program(bench, "outbox", topic)
                                     + [bench.url("relay")])
                meter.stop()
            finally:
                end(proc)
        found["outbox"].append(got)
        usage["outbox"].add(meter, RATE * (1 + bench.seconds))
        for name, linger in (("kcat5", "5"), ("kcat0", "0")):
            with Meter(kafka=bench.kafka_pid()) as meter:
                found[name].append(bench.run_json(meter, "producer",
                                                  program(bench, "produce", topic) + [linger]))
            usage[name].add(meter, RATE * (1 + bench.seconds))
        say(f"bench: latency round {turn + 1}/{bench.rounds}: commit to seen p50 "
            f"{got['seen']['p50_ms']:.2f} ms, p99 {got['seen']['p99_ms']:.2f} ms")
    bench.kafka.delete_topic(topic)
    report_latency(report, found, usage)


def program(bench, mode, topic):
    return [bench.program("skald-bench-latency"), mode, bench.kafka.bootstrap, topic, RATE,
            bench.seconds]


def report_latency(report, found, usage):
    def series(name, end_at, what):
        return [x[end_at][what] for x in found[name]]

    def line(name, title, end_at, what, used=None):
        return Run("relay", f"latency.{name}.{end_at}.{what[:3]}", title, "ms",
                   series(name, end_at, what), used, "message")

    gap = max(series("kcat5", "seen_after_ack", "p50_ms")
              + series("kcat0", "seen_after_ack", "p50_ms"))
    report.note("relay", f"Commit to ack at {RATE} transactions/s: from COMMIT's return to the "
                "record at a waiting consumer, one process, one clock. librdkafka alone shows "
                f"how far that is from the ack itself: median {gap:+.2f} ms.")
    commit50 = line("outbox", "commit to seen, p50", "seen", "p50_ms", usage["outbox"])
    commit99 = line("outbox", "commit to seen, p99", "seen", "p99_ms")
    report.add(commit50, commit99)
    for name, linger in (("kcat5", 5), ("kcat0", 0)):
        report.add(line(name, f"kcat's ack (librdkafka, linger {linger}), p50", "acked",
                        "p50_ms", usage[name]),
                   line(name, f"kcat's ack (librdkafka, linger {linger}), p99", "acked",
                        "p99_ms"))
        for what, mine in (("p50_ms", commit50), ("p99_ms", commit99)):
            base = line(name, "", "acked", what)
            report.add(Verdict(f"relay.latency.{what[:3]}.linger{linger}",
                               f"{what[:3]}, against linger {linger}", mine, base,
                               [x / y for x, y in zip(mine.values, base.values)]))


def run(bench, report):
    bench.database("relay")
    bench.pg.sql(SCHEMA % {"rows": bench.rows}, "relay")
    backlog(bench, report)
    latency(bench, report)
