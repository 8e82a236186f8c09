#!/usr/bin/env python3
"""bench.py [writer|relay|consumer|saga ...] [--json]: ratios against baselines of the same run.

Exit status: 0 every target met, 1 one was missed, 2 the bench could not be run.
"""

import argparse
import os
import pathlib
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = ("writer", "relay", "consumer", "saga")


def arguments():
    p = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    p.add_argument("names", nargs="*", metavar="writer|relay|consumer|saga")
    p.add_argument("--json", action="store_true", help="one JSON object a line")
    p.add_argument("--build", default=str(ROOT / "build"), help="release build to measure")
    p.add_argument("--rounds", type=int, help="interleaved repetitions (5; relay 3)")
    p.add_argument("--rows", type=int, default=300000, help="rows and messages (300000)")
    p.add_argument("--sagas", type=int, default=20000, help="sagas (20000)")
    p.add_argument("--seconds", type=int, default=6,
                   help="of each pgbench and latency run (6)")
    p.add_argument("--parts", default="", metavar="LIST", help="of relay: backlog, latency, "
                   "start, idle, notify, large; comma separated (all but large)")
    p.add_argument("--large", action="store_true",
                   help="relay: one transaction of a million rows too")
    args = p.parse_args()
    for name in args.names:
        if name not in NAMES:
            p.error(f"no bench {name}: there are {', '.join(NAMES)}")
    if args.rounds is None:
        args.rounds = 0
    elif args.rounds < 1:
        p.error("--rounds is at least 1")
    if args.rows < 10000 or args.seconds < 1 or args.sagas < 1000:
        p.error("--seconds is at least 1, --rows at least 10000, --sagas 1000")
    return args


def in_venv():
    """psycopg and confluent-kafka live in the project's own environment."""
    try:
        import confluent_kafka  # noqa: F401
        import psycopg  # noqa: F401
    except ImportError:
        python = ROOT / ".deps" / "venv" / "bin" / "python3"
        if not python.exists() or pathlib.Path(sys.prefix) == python.parents[1]:
            sys.exit("bench: psycopg and confluent-kafka are missing: run ./dev bench")
        os.execv(python, [str(python), *sys.argv])


def main():
    args = arguments()
    in_venv()
    sys.path[:0] = [str(HERE), str(ROOT / "tests" / "support")]
    from kit import Bench, BenchError, say
    from report import Report

    # what was started is ended, however this is
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(2))
    begin = time.monotonic()
    report = Report(args.json, sys.stdout)
    report.head("machine", {"cores": os.cpu_count(), "load": f"{os.getloadavg()[0]:.1f}"})
    try:
        with Bench(args.build, args.rounds, args.rows, args.seconds) as bench:
            bench.sagas = args.sagas // 10 * 10
            bench.parts = [part for part in args.parts.split(",") if part]
            bench.large = args.large
            bench.build_programs()
            for name in args.names or NAMES:
                bench.rounds = args.rounds or (3 if name == "relay" else 5)
                __import__(name).run(bench, report)
    except BenchError as why:
        say(f"bench: could not be run: {why}")
        return 2
    return 0 if report.close(time.monotonic() - begin) else 1


if __name__ == "__main__":
    sys.exit(main())
