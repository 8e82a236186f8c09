"""What the benches share: CPU and memory of processes, programs, PostgreSQL, Kafka."""

import contextlib
import ctypes
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")

# every side of every bench has the same: defaults, but for these
PG_SETTINGS = {
    "shared_buffers": "'256MB'",
    "max_wal_size": "'4GB'",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_level": "replica",
    "max_connections": "100",
    "log_min_messages": "warning",
}


class BenchError(Exception):
    """The bench could not be run: never a verdict about speed."""


def say(text):
    print(text, file=sys.stderr, flush=True)


median = statistics.median


# --- CPU and memory of processes ---------------------------------------------------------


def _stat(pid):
    """(parent, CPU seconds of the process and of the children it has reaped)"""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[1]), sum(int(x) for x in fields[11:15]) / TICK


def tree(pid):
    """{pid: CPU seconds} of a process and everything alive below it."""
    parents, cpu = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parents[int(name)], cpu[int(name)] = _stat(int(name))
    found, more = {pid}, {pid}
    while more:
        more = {p for p, parent in parents.items() if parent in more} - found
        found |= more
    return {p: cpu[p] for p in found if p in cpu}


def spent(pid):
    """CPU seconds of all of it so far. A child that is just being reaped is seen neither at
    its parent nor by itself: looked at twice."""
    first = sum(tree(pid).values())
    time.sleep(0.02)
    return max(first, sum(tree(pid).values()))


def memory_mb(pid, field):
    """VmHWM (peak resident), RssAnon and their like in MB; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) / 1024
    return 0.0


class Meter:
    """CPU seconds and memory of named process trees between start and stop.

    with Meter(postgres=pid) as m:
        child = m.child("kcat", Popen(...))   # born inside: all of it counts
        m.reap(child, timeout_s)
    m.cpu, m.rss
    """

    def __init__(self, **pids):
        self.pids = dict(pids)
        self.cpu, self.rss, self._names = {}, {}, {}
        self._before = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._before = {name: spent(pid) for name, pid in self.pids.items()}
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
        self._done.set()
        self._thread.join()

    def child(self, name, proc):
        self._before[name] = 0.0
        self._names[proc.pid] = name
        self.pids[name] = proc.pid
        return proc

    def reap(self, proc, timeout_s=900):
        """Wait for a child; its exact usage counts. Raises when it failed or did not end."""
        name, end = self._names[proc.pid], time.monotonic() + timeout_s
        while True:
            pid, status, usage = os.wait4(proc.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                proc.kill()
                proc.wait()
                raise BenchError(f"{name} did not end within {timeout_s} s")
            time.sleep(0.004)
        proc.returncode = os.waitstatus_to_exitcode(status)
        self.cpu[name] = usage.ru_utime + usage.ru_stime
        if proc.returncode:
            raise BenchError(f"{name} ended with {proc.returncode}")

    def stop(self):
        """The end of the measured time for what goes on living."""
        self._look()
        for name, pid in self.pids.items():
            if name not in self.cpu:
                self.cpu[name] = spent(pid) - self._before[name]

    def _look(self):
        for name, pid in list(self.pids.items()):
            # shared buffers are mapped by every backend: only private memory adds up
            now = (sum(memory_mb(p, "RssAnon") for p in tree(pid)) if name == "postgres"
                   else memory_mb(pid, "VmHWM"))
            self.rss[name] = max(self.rss.get(name, 0.0), now)

    def _watch(self):
        while not self._done.wait(0.1):
            self._look()


class Usage:
    """CPU and memory of several runs of the same thing."""

    def __init__(self):
        self.cpu, self.rss = {}, {}

    def add(self, meter, items):
        for name, seconds in meter.cpu.items():
            self.cpu.setdefault(name, []).append((seconds, items))
        for name, mb in meter.rss.items():
            self.rss.setdefault(name, []).append(mb)

    def us_per_item(self):
        return {n: median([s * 1e6 / i for s, i in v]) for n, v in self.cpu.items()}

    def cpu_s(self):
        return {n: median([s for s, _ in v]) for n, v in self.cpu.items()}

    def rss_mb(self):
        return {n: max(v) for n, v in self.rss.items()}


# --- programs ----------------------------------------------------------------------------


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def clean_env():
    """No configuration of ours or libpq's from outside."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("SKALD_", "PG"))}


def spawn(argv, **how):
    return subprocess.Popen([str(a) for a in argv], env=clean_env(),
                            preexec_fn=_die_with_parent, **how)


def end(proc, timeout_s=20):
    """Ask a program started here to stop; insist when it does not."""
    if proc.poll() is None:
        proc.terminate()
        try:
            proc.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()


class Bench:
    """The machine of one run: programs, a private PostgreSQL, Apache Kafka, a work folder."""

    def __init__(self, build, rounds, rows, seconds):
        self.parts, self.large = (), False
        self.build = pathlib.Path(build).resolve()
        self.rounds, self.rows, self.seconds = rounds, rows, seconds
        self.stack = contextlib.ExitStack()
        self.dir = None
        self._pg = self._kafka = None
        self.topic_count = 0

    def __enter__(self):
        self.dir = pathlib.Path(self.stack.enter_context(
            tempfile.TemporaryDirectory(prefix="skald-bench-")))
        self.dir.chmod(0o755)
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    def build_programs(self):
        """Ours, against the release build: seconds the first time, nothing after."""
        for argv in (["cmake", "-S", ROOT / "tests" / "bench", "-B", self.build / "bench",
                      f"-DSKALD_BUILD={self.build}"],
                     ["cmake", "--build", self.build / "bench"]):
            done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode:
                raise BenchError(f"could not build the programs: {done.stdout[-1500:]}")

    def program(self, name):
        for folder in ("bin", "bench/bench"):
            path = self.build / folder / name
            if path.exists():
                return path
        raise BenchError(f"{name} is not in {self.build}: ./dev bench builds it")

    def run_json(self, meter, name, argv, timeout_s=900):
        """A program that prints one JSON object; errors go to a file that is quoted."""
        with open(self.dir / f"{name}.err", "w+", encoding="utf-8") as err:
            proc = meter.child(name, spawn(argv, stdout=subprocess.PIPE, stderr=err, text=True))
            out = proc.stdout.read()
            try:
                meter.reap(proc, timeout_s)
                return json.loads(out)
            except (BenchError, ValueError) as why:
                err.seek(0)
                raise BenchError(f"{why}: {err.read().strip()[-700:]} {out[-200:]}") from why

    @property
    def pg(self):
        """A private cluster, started at first use."""
        if not self._pg:
            from skaldtest import Cluster
            say("bench: starting PostgreSQL")
            self._pg = self.stack.enter_context(Cluster(settings=PG_SETTINGS))
        return self._pg

    def pg_setting(self, name, value):
        """Takes a restart; for all that comes after."""
        if self.pg.settings.get(name) != value:
            self.pg.settings[name] = value
            self.pg.configure()
            self.pg.stop()
            self.pg.start()

    def database(self, name, skald=True):
        self.pg.create_database(name)
        if skald:
            done = subprocess.run([self.program("skald"), "db", "migrate", "--quiet",
                                   "--database", self.url(name)], env=clean_env(),
                                  text=True, capture_output=True, check=False)
            if done.returncode:
                raise BenchError(f"skald db migrate: {done.stderr.strip()[-600:]}")
        return name

    def url(self, database):
        return self.pg.socket_url(database)

    def connect(self, database):
        from skaldtest import connect
        return self.stack.enter_context(connect(self.url(database)))

    @property
    def kafka(self):
        """Apache Kafka, one node, started at first use."""
        if not self._kafka:
            from skaldtest import Kafka, PrivateKafka
            bootstrap = os.environ.get("SKALD_TEST_KAFKA")
            if not bootstrap:
                say("bench: starting Apache Kafka")
                bootstrap = self.stack.enter_context(PrivateKafka(1)).bootstrap
            self._kafka = Kafka(bootstrap)
            if self._kafka.cluster_id().startswith("mockCluster"):
                raise BenchError("the broker is a mock cluster: figures would mean nothing")
        return self._kafka

    def kafka_pid(self):
        """The process that listens on the bootstrap port."""
        port = int(self.kafka.bootstrap.split(",")[0].rsplit(":", 1)[1])
        inodes = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with open(table, encoding="ascii") as f:
                for line in list(f)[1:]:
                    col = line.split()
                    if col[3] == "0A" and int(col[1].rsplit(":", 1)[1], 16) == port:
                        inodes.add(f"socket:[{col[9]}]")
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    for fd in os.listdir(f"/proc/{name}/fd"):
                        with contextlib.suppress(OSError):
                            if os.readlink(f"/proc/{name}/fd/{fd}") in inodes:
                                return int(name)
        raise BenchError(f"nobody listens on port {port}")

    def topic(self, what, partitions=8, **config):
        """A topic of its own; delete it with kafka.delete_topic when done."""
        self.topic_count += 1
        name = f"bench.{what}.{os.getpid()}.{self.topic_count}"
        return self.kafka.create_topic(name, partitions, config=config or None)

    def pids(self, kafka=True):
        found = {"postgres": self.pg.pid()}
        if kafka:
            found["kafka"] = self.kafka_pid()
        return found
