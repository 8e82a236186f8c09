"""relay: a backlog into Kafka against COPY | kcat; commit to acknowledgement; what it costs
to start, to be idle, and to write while the relay sleeps."""

import json
import subprocess
import time

import relay_idle
import relay_latency
from kit import BenchError, Meter, Usage, say, spawn
from relay_kit import (BYTES, KEYS, MODES, PARTITIONS, RSS_MB, counted, drain, empty, load,
                       prepare, settle)
from report import Run, Verdict, where

CPU_US = 6
LARGE_ROWS = 1000000

# name, mode, events a transaction, by unix socket (else TCP), title, at least so much of the
# pipe (whose COPY goes by socket: the faster way for it), or rows a second
CASES = (
    ("poll", "poll", 10, False, "mode poll", 0.6, None),
    ("wal100", "wal", 100, False, "mode wal, 100 events a transaction", 0.5, None),
    ("wal100.socket", "wal", 100, True, "likewise, by unix socket", 0.5, None),
    ("wal1", "wal", 1, False, "mode wal, 1 event a transaction", 0.2, 60000),
    ("wal1.socket", "wal", 1, True, "likewise, by unix socket", 0.2, 60000),
)


def first_headers(bench, topic):
    done = subprocess.run(["kcat", "-C", "-q", "-b", bench.kafka.bootstrap, "-t", topic, "-o",
                           "beginning", "-c", "1", "-J"], capture_output=True, check=True,
                          timeout=30)
    flat = json.loads(done.stdout.splitlines()[0])["headers"]
    return list(zip(flat[::2], flat[1::2]))


def run_relay(bench, conn, mode, events, by_socket, usage):
    """(rows a second from the start of the process, headers of a record)"""
    topic = bench.topic("relay", PARTITIONS)
    empty(bench, mode)
    if mode == "wal":
        settle(bench, mode, conn)
    load(bench, mode, topic, events)
    took = drain(bench, mode, usage, topic=topic, by_socket=by_socket)
    headers = first_headers(bench, topic)
    bench.kafka.delete_topic(topic)
    return bench.rows / took, headers


def run_kcat(bench, headers, usage):
    topic = bench.topic("kcat", PARTITIONS)
    kcat = ["kcat", "-P", "-b", bench.kafka.bootstrap, "-t", topic, "-K", "\t",
            "-X", "enable.idempotence=true", "-X", "acks=all", "-X", "linger.ms=5",
            "-X", "topic.partitioner=murmur2_random"]
    for name, value in headers:
        kcat += ["-H", f"{name}={value}"]
    psql = ["psql", "-X", "-q", "-d", bench.url(MODES["poll"]), "-c",
            "COPY (SELECT key, data FROM backlog) TO STDOUT"]
    bench.pg.sql("CHECKPOINT", MODES["poll"])
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


def backlog(bench, report, modes):
    conns = {mode: bench.connect(MODES[mode]) for mode in modes}
    cases = [case for case in CASES if case[1] in modes]
    rates = {name: [] for name, *_ in cases}
    usage = {name: Usage() for name in [*rates, "kcat"]}
    rates["kcat"] = []
    headers = []
    run_kcat(bench, headers, Usage())  # warms the broker up
    for turn in range(bench.rounds):
        for name, mode, events, by_socket, *_ in cases:
            rate, headers = run_relay(bench, conns[mode], mode, events, by_socket,
                                      usage[name])
            rates[name].append(rate)
            if name == "poll":  # beside what it is compared with, in the same minute
                rates["kcat"].append(run_kcat(bench, headers, usage["kcat"]))
        say(f"bench: relay round {turn + 1}/{bench.rounds}: "
            + ", ".join(f"{name} {rate[-1]:,.0f}/s" for name, rate in rates.items()))
    report_backlog(bench, report, cases, rates, usage, headers)


def report_backlog(bench, report, cases, rates, usage, headers):
    size = sum(len(n) + len(v) for n, v in headers)
    report.head("relay", {"rows": f"{bench.rows:,}", "bytes": BYTES, "keys": f"{KEYS:,}",
                          "partitions": PARTITIONS, "rounds": bench.rounds,
                          "headers": f"{len(headers)} ({size} B) on both sides"})
    base = Run("relay", "kcat", "psql COPY | kcat -P, acks=all", "rows/s", rates["kcat"],
               usage["kcat"])
    report.add(base)
    for name, *_, title, target, also in cases:
        mine = Run("relay", name, f"{title}: start to last ack", "rows/s", rates[name],
                   usage[name])
        us = [seconds * 1e6 / rows for seconds, rows in usage[name].cpu["skaldd"]]
        rss = usage[name].rss["skaldd"]
        report.add(
            mine,
            Verdict(f"relay.backlog.{name}", f"{name} against COPY | kcat", mine, base,
                    [x / y for x, y in zip(rates[name], rates["kcat"])], target,
                    why=where(mine), or_else=also),
            Verdict(f"relay.cpu.{name}", "CPU of the relay, a message", mine, base, us,
                    CPU_US, at_most=True, unit="us"),
            Verdict(f"relay.rss.{name}", "memory of the relay, peak", mine, base, [max(rss)],
                    RSS_MB, at_most=True, unit="MB"))


def large(bench, report, modes):
    """One transaction of a million rows."""
    for mode in modes:
        topic, usage = bench.topic("large", PARTITIONS), Usage()
        conn = bench.connect(MODES[mode])
        empty(bench, mode)
        if mode == "wal":
            settle(bench, mode, conn)
        say(f"bench: relay: one transaction of {LARGE_ROWS:,} rows, mode {mode}")
        load(bench, mode, topic, None, LARGE_ROWS)
        took = drain(bench, mode, usage, LARGE_ROWS, topic)
        bench.kafka.delete_topic(topic)
        mine = Run("relay", f"large.{mode}", f"one transaction of {LARGE_ROWS:,}, mode {mode}",
                   "rows/s", [LARGE_ROWS / took], usage)
        report.add(mine, Verdict(f"relay.rss.large.{mode}", "memory of the relay, peak", mine,
                                 mine, [max(usage.rss["skaldd"])], RSS_MB, at_most=True,
                                 unit="MB"))
        empty(bench, mode)


PARTS = {"backlog": backlog, "latency": relay_latency.latency, "start": relay_idle.start,
         "idle": relay_idle.idle, "notify": relay_idle.notify}


def run(bench, report):
    wrong = set(bench.parts) - {*PARTS, "large"}
    if wrong:
        raise BenchError(f"relay has no part {', '.join(sorted(wrong))}")
    modes = prepare(bench)
    if "wal" not in modes:
        report.note("relay", "This build has no mode wal.")
    for name, part in PARTS.items():
        if not bench.parts or name in bench.parts:
            part(bench, report, modes)
    if bench.large or "large" in bench.parts:
        large(bench, report, modes)
