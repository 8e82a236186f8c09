"""Commit to acknowledgement at a steady rate."""

from kit import Meter, Usage, median, say
from relay_kit import MODES, PARTITIONS, Relay, settle
from report import Run, Verdict

RATE = 500

# kcat's linger is librdkafka's own
BASES = (("kcat", "5", "kcat's ack (librdkafka, linger 5)"),
         ("kcat0", "0", "librdkafka's ack without linger"))

# at most: ms above kcat's p50, times kcat's p99
TARGETS = {"poll": (6, None), "wal": (2, 3)}


def program(bench, mode, topic):
    return [bench.program("skald-bench-latency"), mode, bench.kafka.bootstrap, topic, RATE,
            bench.seconds]


def latency(bench, report, modes):
    """One program writes at a steady rate and sees the records: one clock."""
    found = {name: [] for name in [*modes, *(name for name, *_ in BASES)]}
    usage = {name: Usage() for name in found}
    topic = bench.topic("latency", PARTITIONS)
    for mode in modes:
        settle(bench, mode, bench.connect(MODES[mode]))
    for turn in range(bench.rounds):
        for mode in modes:
            with Meter(**bench.pids()) as meter, Relay(bench, mode) as relay:
                meter.child("skaldd", relay.proc)
                found[mode].append(bench.run_json(
                    meter, "writer", program(bench, "outbox", topic)
                    + [bench.url(MODES[mode])]))
                meter.stop()
            usage[mode].add(meter, RATE * (1 + bench.seconds))
        for name, linger, _ in BASES:
            with Meter(kafka=bench.kafka_pid()) as meter:
                found[name].append(bench.run_json(meter, "producer",
                                                  program(bench, "produce", topic) + [linger]))
            usage[name].add(meter, RATE * (1 + bench.seconds))
        say(f"bench: latency round {turn + 1}/{bench.rounds}: commit to seen p50, p99 ms: "
            + ", ".join(f"{mode} {found[mode][-1]['seen']['p50_ms']:.2f} "
                        f"{found[mode][-1]['seen']['p99_ms']:.2f}" for mode in modes))
    bench.kafka.delete_topic(topic)
    report_latency(report, modes, found, usage)


def line(found, usage, name, title, end_at, what):
    p = what[:3]
    return Run("relay", f"latency.{name}.{p}", f"{title}, {p}", "ms",
               [x[end_at][what] for x in found[name]],
               usage[name] if what == "p50_ms" else None, "message")


def report_latency(report, modes, found, usage):
    gap = max(x["seen_after_ack"]["p50_ms"] for name, *_ in BASES for x in found[name])
    report.note("relay", f"Commit to ack at {RATE} transactions/s: from COMMIT's return to the "
                "record at a waiting consumer, one process, one clock. librdkafka alone shows "
                f"how far that is from the ack itself: median {gap:+.2f} ms.")
    bases = {}
    for name, _, title in BASES:
        bases[name] = [line(found, usage, name, title, "acked", what)
                       for what in ("p50_ms", "p99_ms")]
        report.add(*bases[name])
    for mode in modes:
        p50, p99 = (line(found, usage, mode, f"mode {mode}: commit to seen", "seen", what)
                    for what in ("p50_ms", "p99_ms"))
        report.add(p50, p99)
        above, times = TARGETS[mode]
        for name, *_ in BASES:
            base50, base99 = bases[name]
            is_aim = name == "kcat"
            why = reason(p50, usage[mode])
            report.add(
                Verdict(f"relay.latency.{mode}.{name}.p50", f"p50 above {name}'s", p50, base50,
                        [x - y for x, y in zip(p50.values, base50.values)],
                        above if is_aim else None, at_most=True, unit="ms", why=why),
                Verdict(f"relay.latency.{mode}.{name}.p50x", f"p50 to {name}'s", p50, base50,
                        [x / y for x, y in zip(p50.values, base50.values)]),
                Verdict(f"relay.latency.{mode}.{name}.p99", f"p99 to {name}'s", p99, base99,
                        [x / y for x, y in zip(p99.values, base99.values)],
                        times if is_aim else None, at_most=True, why=why))


def reason(p50, usage):
    busy = ", ".join(f"{name} {us:.0f}" for name, us in usage.us_per_item().items())
    return (f"p50 from {min(p50.values):.2f} to {max(p50.values):.2f} ms, median "
            f"{median(p50.values):.2f}; CPU us a message: {busy}.")
