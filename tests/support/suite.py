#!/usr/bin/env python3
"""Runs the tests of `./dev test`: ctest's programs and the end-to-end tests.

A line per test with its seconds; at the end the failures, each with the command
that runs it alone and the tail of its log; then `N passed, N failed, N skipped`.
"""

import argparse
import concurrent.futures
import copy
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from skaldtest.librdkafka import newer_in
from skaldtest.pg import template

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
SUPPORT = os.path.join(ROOT, "tests", "support")
RAM_BYTES = 8 << 30
WITH_NEWER = ("contract.broker.producer", "contract.outbox.faults")
TOGETHER = 3
TOGETHER_MAX = 6
KINDS = ("unit", "tidy", "contract", "torture", "fuzz", "e2e")


class Job:
    def __init__(self, name, argv, env=None, cwd=ROOT, timeout=60, skip_code=None,
                 kafka=False, alone=False):
        self.name = name
        self.argv = argv
        self.env = env or {}
        self.cwd = cwd
        self.timeout = timeout * float(os.environ.get("SKALD_PATIENCE", "1"))
        self.skip_code = skip_code
        self.kafka = kafka
        self.alone = alone
        self.state = None
        self.seconds = 0.0
        self.log = None


class Suite:
    def __init__(self, began):
        self.began = time.monotonic() - began
        self.lock = threading.Lock()
        self.running = {}
        self.dir = tempfile.mkdtemp(prefix="skald-test-", dir="/tmp")
        os.chmod(self.dir, 0o711)
        self.logs = os.path.join(ROOT, ".run", "test")
        shutil.rmtree(self.logs, ignore_errors=True)
        os.makedirs(self.logs)
        self.env = dict(os.environ)
        self.env.update({
            "PYTHONPATH": SUPPORT, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1",
            "SKALD_TEST_DIR": self.dir, "SKALD_TEST_KAFKA_JARS": os.path.join(ROOT, ".deps/kafka"),
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "detect_leaks=1"),
            "UBSAN_OPTIONS": os.environ.get("UBSAN_OPTIONS",
                                            "print_stacktrace=1:halt_on_error=1")})
        self.kafka_dir = None
        self.ram = self.dir
        if is_roomy("/dev/shm"):
            self.ram = tempfile.mkdtemp(prefix="skald-test-", dir="/dev/shm")
            os.chmod(self.ram, 0o711)
        self.env["SKALD_TEST_PG_DIR"] = self.ram

    def make_template(self):
        """What initdb makes, once; the tests copy it."""
        self.env["SKALD_TEST_PG_TEMPLATE"] = template(os.path.join(self.ram, "template"))

    def say(self, text):
        with self.lock:
            print("[%4d s] %s" % (time.monotonic() - self.began, text), flush=True)

    # -- what there is -----------------------------------------------------------------------

    def ctests(self, build):
        """The tests that CMake knows, from its own list."""
        if not os.path.exists(os.path.join(build, "CTestTestfile.cmake")):
            return []
        listed = json.loads(subprocess.check_output(
            ["ctest", "--test-dir", build, "--show-only=json-v1"], text=True))
        jobs = []
        for test in listed["tests"]:
            if not test.get("command"):
                continue
            props = {p["name"]: p["value"] for p in test.get("properties", [])}
            env = dict(e.split("=", 1) for e in props.get("ENVIRONMENT", []))
            labels = props.get("LABELS", [])
            jobs.append(Job(
                test["name"], test["command"], env, props.get("WORKING_DIRECTORY", build),
                props.get("TIMEOUT", 60), props.get("SKIP_RETURN_CODE"),
                kafka="kafka" in labels, alone=bool(props.get("RUN_SERIAL"))))
        return jobs

    def newer(self, jobs):
        """Some once more with the newer librdkafka; a program that does not load it fails."""
        folder = newer_in(self.dir)
        found = []
        for job in jobs:
            if job.name not in WITH_NEWER:
                continue
            one = copy.copy(job)
            one.name += ".librdkafka"
            one.env = {**job.env, "LD_LIBRARY_PATH": folder}
            one.argv = ["sh", "-c", 'ldd "$0" | grep -q "$LD_LIBRARY_PATH/" && exec "$0"',
                        *job.argv]
            found.append(one)
        return found

    def e2e(self):
        listed = subprocess.run([sys.executable, "-m", "skaldtest", "list"], env=self.env,
                                cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if listed.returncode:
            return [Job("e2e", [sys.executable, "-m", "skaldtest", "list"])]
        jobs = []
        for line in listed.stdout.splitlines():
            name, timeout, kafka, alone = line.split("\t")
            jobs.append(Job(name, [sys.executable, "-m", "skaldtest", "run", name],
                            timeout=float(timeout), kafka=kafka == "kafka",
                            alone=alone == "alone"))
        return jobs

    # -- the broker --------------------------------------------------------------------------

    def start_kafka(self):
        script = os.path.join(SUPPORT, "kafka.sh")
        jars = self.env["SKALD_TEST_KAFKA_JARS"]
        self.kafka_dir = os.path.join(self.dir, "kafka")
        self.say("Apache Kafka starts ...")
        started = subprocess.run(
            [script, "start", jars, self.kafka_dir, "--while", str(os.getpid())], text=True,
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        if started.returncode:
            self.say("Apache Kafka does not start")
            return False
        bootstrap = started.stdout.strip().splitlines()[-1]
        version = subprocess.run([script, "version", jars], text=True,
                                 stdout=subprocess.PIPE).stdout.strip()
        self.env["SKALD_TEST_KAFKA"] = bootstrap
        self.env["SKALD_TEST_KAFKA_VERSION"] = version
        self.say("Apache Kafka %s at %s" % (version, bootstrap))
        return True

    def clean_up(self):
        for job, popen in list(self.running.items()):
            _end_group(popen)
        if self.kafka_dir:
            subprocess.run([os.path.join(SUPPORT, "kafka.sh"), "stop", self.kafka_dir],
                           stdout=subprocess.DEVNULL)
        self.stop_servers()
        if self.ram != self.dir:
            shutil.rmtree(self.ram, ignore_errors=True)
        failed_dirs = [d for d in os.listdir(self.dir) if d.startswith("skald-t-")]
        if not failed_dirs:
            shutil.rmtree(self.dir, ignore_errors=True)
        return failed_dirs

    def stop_servers(self):
        """PostgreSQL servers that a killed test left behind."""
        for path in glob.glob(self.ram + "/**/postmaster.pid", recursive=True):
            try:
                with open(path) as f:
                    os.kill(int(f.readline()), signal.SIGQUIT)
            except (OSError, ValueError):
                pass

    # -- running -----------------------------------------------------------------------------

    def run(self, job):
        job.log = os.path.join(self.logs, job.name + ".log")
        env = dict(self.env)
        env.update(job.env)
        began = time.monotonic()
        timed_out = False
        with open(job.log, "wb") as log:
            try:
                popen = subprocess.Popen(job.argv, stdin=subprocess.DEVNULL, stdout=log,
                                         stderr=subprocess.STDOUT, env=env, cwd=job.cwd,
                                         start_new_session=True)
            except OSError as error:
                log.write(("cannot start: %s\n" % error).encode())
                job.state = "failed"
                self.report(job)
                return
            self.running[job] = popen
            try:
                code = popen.wait(job.timeout)
            except subprocess.TimeoutExpired:
                timed_out = True
                popen.terminate()
                try:
                    popen.wait(15)
                except subprocess.TimeoutExpired:
                    pass
                code = -1
            _end_group(popen)
            self.running.pop(job, None)
            if timed_out:
                log.write(("\nkilled after %d s: its time is up\n" % job.timeout).encode())
        job.seconds = time.monotonic() - began
        if code == 0:
            job.state = "passed"
        elif job.skip_code is not None and code == job.skip_code:
            job.state = "skipped"
        else:
            job.state = "failed"
        self.report(job)

    def await_room(self, begun):
        """Most tests wait, most of the time; some are all work. So three run at once, and
        more while a third of the machine is idle."""
        while True:
            began = cpu_ticks()
            running = sum(not f.done() for f in begun)
            if running < TOGETHER:
                return
            time.sleep(1)
            idle, total = (x - y for x, y in zip(cpu_ticks(), began))
            if running < TOGETHER_MAX and idle * 3 > total:
                return

    def report(self, job):
        note = ""
        if job.name.startswith("e2e.") and job.state == "passed":
            lines = [x for x in _tail(job.log, 3) if x.startswith(job.name + ": passed")]
            if lines:
                note = "  (%s)" % lines[-1].split(": passed, ")[1].split(" checked")[0]
        word = {"passed": "ok    ", "failed": "FAILED", "skipped": "skip  "}[job.state]
        self.say("%s %6.1f s  %s%s" % (word, job.seconds, job.name, note))

    def run_all(self, jobs):
        with concurrent.futures.ThreadPoolExecutor(TOGETHER_MAX) as pool:
            begun = []
            for job in [j for j in jobs if not j.alone]:
                self.await_room(begun)
                begun.append(pool.submit(self.run, job))
            for future in begun:
                future.result()
        for job in jobs:
            if job.alone:
                self.run(job)


def cpu_ticks():
    """Idle ones and all, since the machine began."""
    with open("/proc/stat") as f:
        ticks = [int(x) for x in f.readline().split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def is_roomy(path):
    """In memory, and with space for what a few PostgreSQL clusters write."""
    try:
        fs = os.statvfs(path)
    except OSError:
        return False
    return os.access(path, os.W_OK) and fs.f_bavail * fs.f_frsize > RAM_BYTES


def _end_group(popen):
    try:
        os.killpg(popen.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _tail(path, lines):
    with open(path, errors="replace") as f:
        return [x.rstrip("\n") for x in f.readlines()[-lines:]]


def _stop(number, _frame):
    raise SystemExit(128 + number)


def choose(jobs, names):
    """The jobs that the names mean, and the names that mean none."""
    if not names:
        return jobs, []
    wanted, unknown = set(), []
    for n in names:
        found = {j.name for j in jobs if j.name == n or j.name.startswith(n + ".")}
        # a part of a name will do when nothing else fits
        found = found or {j.name for j in jobs if n in j.name}
        wanted |= found
        unknown += [] if found else [n]
    picked = [j for j in jobs if j.name in wanted]
    return picked, unknown


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--began", type=float, default=0)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    suite = Suite(args.began)
    wants = [k for k in KINDS if not args.names
             or any(n == k or n.startswith(k + ".") for n in args.names)] or list(KINDS)
    jobs = []
    if set(wants) - {"e2e"}:
        jobs += suite.ctests(os.path.join(ROOT, "build-asan"))
    if "contract" in wants:
        jobs += suite.newer(jobs)
    if "e2e" in wants:
        jobs += suite.e2e()
    jobs.sort(key=lambda j: KINDS.index(j.name.split(".")[0])
              if j.name.split(".")[0] in KINDS else len(KINDS))
    jobs, unknown = choose(jobs, args.names)
    for name in unknown:
        suite.say("no test is named %s" % name)
    try:
        if any(j.kafka for j in jobs) and not suite.start_kafka():
            for job in [j for j in jobs if j.kafka]:
                job.state, job.log = "failed", None
        if any(j.name.startswith(("contract.", "e2e.")) for j in jobs):
            suite.make_template()
        suite.run_all([j for j in jobs if not j.state])
    finally:
        kept = suite.clean_up()
    return verdict(suite, jobs, unknown, kept)


def verdict(suite, jobs, unknown, kept):
    count = {s: sum(j.state == s for j in jobs) for s in ("passed", "failed", "skipped")}
    for job in [j for j in jobs if j.state == "failed"]:
        print("\n--- %s failed; alone: ./dev test %s" % (job.name, job.name))
        if job.log:
            print("    log: %s" % os.path.relpath(job.log, ROOT))
            print("\n".join("    " + x for x in _tail(job.log, 40)))
        else:
            print("    not run: Apache Kafka did not start")
    if kept:
        print("\nfiles of the failed tests: %s" % suite.dir)
    slow = sorted(jobs, key=lambda j: -j.seconds)[:3]
    if len(jobs) > 3:
        suite.say("slowest: " + ", ".join("%s %.0f s" % (j.name, j.seconds) for j in slow))
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % count, flush=True)
    if unknown or not jobs:
        return 1
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
