"""What the relay costs when little happens: to start, to be idle, to be woken."""

import re
import subprocess
import time

from kit import BenchError, Meter, Usage, median, say, spawn
from relay_kit import MODES, Relay, settle
from report import Run, Verdict

STARTS = 20
START_MS = 100
SETTLE_S = 8  # until an idle relay has become quiet
WATCH_S = 30
GUARD_LOSS = 5  # %


# --- from the start of the process to the first record --------------------------------------


def watcher(bench, topic):
    """A consumer that waits at the end of a topic of one partition."""
    from confluent_kafka import Consumer, TopicPartition
    consumer = Consumer({"bootstrap.servers": bench.kafka.bootstrap, "group.id": "bench-start",
                         "enable.auto.commit": False})
    end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)[1]
    consumer.assign([TopicPartition(topic, 0, end)])
    consumer.poll(0.5)
    return consumer


def seen(consumer, timeout_s=30):
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        msg = consumer.poll(1.0)
        if msg is not None and not msg.error():
            return time.monotonic()
    raise BenchError("no record was seen")


def kcat_start(bench, topic, consumer):
    begin = time.monotonic()
    proc = spawn(["kcat", "-P", "-b", bench.kafka.bootstrap, "-t", topic, "-X", "acks=all",
                  "-X", "enable.idempotence=true"], stdin=subprocess.PIPE,
                 stderr=subprocess.DEVNULL)
    proc.stdin.write(b"x\n")
    proc.stdin.close()
    took = seen(consumer) - begin
    proc.wait(timeout=20)
    return took * 1e3


def start(bench, report, modes):
    topic = bench.topic("start", 1)
    consumer = watcher(bench, topic)
    found = {name: [] for name in [*modes, "kcat"]}
    conns = {mode: bench.connect(MODES[mode]) for mode in modes}
    for mode in modes:
        settle(bench, mode, conns[mode])
    for _ in range(STARTS):
        for mode in modes:
            conns[mode].execute("SELECT skald.outbox_add(%s, 'k', 'bench.started', '{}')",
                                [topic])
            begin = time.monotonic()
            with Relay(bench, mode) as relay:
                found[mode].append((seen(consumer) - begin) * 1e3)
                relay.wait_published(1)
        found["kcat"].append(kcat_start(bench, topic, consumer))
    consumer.close()
    bench.kafka.delete_topic(topic)
    report.note("relay", f"From exec to the first record at a waiting consumer, {STARTS} times:")
    base = Run("relay", "start.kcat", "kcat -P, one line", "ms", found["kcat"])
    report.add(base)
    for mode in modes:
        mine = Run("relay", f"start.{mode}", f"skaldd, mode {mode}", "ms", found[mode])
        report.add(mine, Verdict(f"relay.start.{mode}", "start to first ack, median", mine, base,
                                 [median(found[mode])], START_MS, at_most=True, unit="ms"))


# --- idle -------------------------------------------------------------------------------------


def statements(bench, mark):
    """What the server logged since: {statement: how often}."""
    found = {}
    with open(bench.pg.log, encoding="utf-8", errors="replace") as log:
        log.seek(mark)
        for line in log:
            got = re.search(r"LOG: +(?:statement|execute [^:]*): (.*)", line)
            if got:
                what = re.sub(r"\s+", " ", got.group(1))[:60]
                found[what] = found.get(what, 0) + 1
    return found


def idle(bench, report, modes):
    for mode in modes:
        settle(bench, mode, bench.connect(MODES[mode]))
        # sessions that begin from here on are written down
        bench.pg.sql(f"ALTER DATABASE {MODES[mode]} SET log_statement = 'all'", MODES[mode])
        usage = Usage()
        with Relay(bench, mode) as relay:
            say(f"bench: relay: idle for {SETTLE_S + WATCH_S} s, mode {mode}")
            time.sleep(SETTLE_S)
            mark = bench.pg.log_bytes()
            with Meter(skaldd=relay.proc.pid, postgres=bench.pg.pid()) as meter:
                time.sleep(WATCH_S)
                meter.stop()
            found = statements(bench, mark)
        bench.pg.sql(f"ALTER DATABASE {MODES[mode]} RESET log_statement", MODES[mode])
        usage.add(meter, WATCH_S * 1e6)
        most = sorted(found.items(), key=lambda x: -x[1])[:4]
        per_minute = Run("relay", f"idle.{mode}.statements", f"idle, mode {mode}: statements",
                         "a min", [sum(found.values()) * 60 / WATCH_S])
        cpu = Run("relay", f"idle.{mode}.cpu", f"idle, mode {mode}: CPU of the relay", "% core",
                  [100 * meter.cpu["skaldd"] / WATCH_S])
        report.add(per_minute, cpu)
        report.note("relay", "; ".join(f"{n * 60 / WATCH_S:.0f}x {what}" for what, n in most)
                    or "No statement at all.")


# --- what a writer pays for waking ---------------------------------------------------------------


def strip(definition):
    """skald.outbox_add without the question whether the relay sleeps."""
    text, n = re.subn(r"\n *IF pg_sequence_last_value\('skald\.relay_sleep'\).*?END IF;", "",
                      definition, flags=re.S)
    return text.replace("skald.outbox_add(", "skald.outbox_add_never(", 1) if n else None


GUARDS = (("never", "outbox_add without the question"), ("awake", "outbox_add, relay awake"),
          ("asleep", "outbox_add, flag up: NOTIFY each"))


def notify(bench, report, _modes):
    """Throughput of 32 writers; the flag is moved by hand, nobody publishes meanwhile."""
    import writer
    bench.database("writer")
    bench.pg.sql(writer.SCHEMA, "writer")
    conn = bench.connect("writer")
    never = strip(conn.execute("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = "
                               "'outbox_add' AND pronamespace = 'skald'::regnamespace"
                               ).fetchone()[0])
    if not never:
        report.note("relay", "This build's writers never wake the relay.")
        return
    conn.execute(never)
    listener = bench.connect("writer")
    listener.execute("LISTEN skald_outbox")
    tps, usage = {name: [] for name, _ in GUARDS}, {name: Usage() for name, _ in GUARDS}
    for turn in range(-1, bench.rounds):
        bench.pg.sql(writer.EMPTY, "writer")
        for name, _ in GUARDS if turn % 2 else GUARDS[::-1]:
            script = bench.dir / f"guard-{name}.pgbench"
            add = writer.ADD.replace("outbox_add(", "outbox_add_never(") \
                if name == "never" else writer.ADD
            script.write_text(writer.BUSINESS + add + "COMMIT;\n")
            conn.execute("SELECT setval('skald.relay_sleep', 0, %s)", [name == "asleep"])
            with Meter(**bench.pids(kafka=False)) as meter:
                done, rate = writer.pgbench(bench, meter, script,
                                            bench.seconds if turn >= 0 else 2)
            if turn >= 0:
                tps[name].append(rate)
                usage[name].add(meter, done)
        if turn >= 0:
            say(f"bench: notify round {turn + 1}/{bench.rounds}: "
                + ", ".join(f"{name} {rate[-1]:,.0f}/s" for name, rate in tps.items()))
    conn.execute("SELECT setval('skald.relay_sleep', 0, false)")
    report.note("relay", f"Waking: {writer.CLIENTS} writers, UPDATE, INSERT and outbox_add in "
                "one transaction:")
    runs = {name: Run("relay", f"notify.{name}", title, "tx/s", tps[name], usage[name],
                      "transaction") for name, title in GUARDS}
    report.add(*runs.values())
    for name, target in (("awake", GUARD_LOSS), ("asleep", None)):
        report.add(Verdict(f"relay.notify.{name}", f"{name}: throughput lost", runs[name],
                           runs["never"], writer.losses(tps["never"], tps[name]), target,
                           at_most=True, unit="%"))
