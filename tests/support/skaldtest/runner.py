"""The registry and the runner: @e2e("e2e.relay.name") makes a test; each runs in its own process.

    python -m skaldtest list                every name, one a line
    python -m skaldtest run NAME...         runs them; exit status 0 when all pass

A test gets one argument, a Test: databases, topics, processes, a seed, and the
counts it must report. Zero checked is not green: a test states its minimum.
"""

import importlib.util
import glob
import os
import random
import shutil
import signal
import sys
import time
import traceback

from . import check, proc
from .kafka import Kafka, PrivateKafka
from .pg import Cluster, connect, private_dir, psql
from .wait import say, wait_until

REGISTRY = {}
ROOT = proc.ROOT


class Spec:
    def __init__(self, name, function, records, effects, kafka, alone, timeout):
        self.name = name
        self.function = function
        self.records = records
        self.effects = effects
        self.kafka = kafka
        self.alone = alone
        self.timeout = timeout
        self.file = function.__code__.co_filename


def e2e(name, records=0, effects=0, kafka=True, alone=False, timeout=180):
    """Register a test.

    records, effects  the least number t.checked() must report by the end
    kafka             False: needs no broker
    alone             True: must not share the machine with another test (it measures time)
    timeout           seconds after which the runner kills it
    """
    assert name.startswith("e2e."), name
    assert records or effects, "%s: a test states a minimum of records or effects" % name

    def register(function):
        assert name not in REGISTRY, "two tests are named " + name
        REGISTRY[name] = Spec(name, function, records, effects, kafka, alone, timeout)
        return function

    return register


class Test:
    """What a test works with; everything it starts ends with it."""

    def __init__(self, spec, seed):
        self.spec = spec
        self.name = spec.name
        self.seed = seed
        self.rng = random.Random(seed)
        self.dir = private_dir("skald-t-")
        self.tag = "%s-%x" % (spec.name.split(".", 1)[1].replace("_", "-").replace(".", "-")[:60],
                              random.SystemRandom().getrandbits(24))
        self.records = 0
        self.effects = 0
        self.procs = []
        self.cleanups = []
        self.clusters = []
        self._pg = None
        self._kafka = None
        self._n = 0

    # -- surroundings ----------------------------------------------------------------------

    @property
    def pg(self):
        """This test's own PostgreSQL cluster, started at first use."""
        if self._pg is None:
            self._pg = Cluster(os.path.join(self.dir, "pg")).create()
        return self._pg

    @property
    def kafka(self):
        if self._kafka is None:
            self._kafka = Kafka()
        return self._kafka

    def cluster(self, segment_mb=None, **settings):
        """One more PostgreSQL cluster, with settings of its own."""
        cluster = Cluster(os.path.join(self.dir, "pg%d" % len(self.clusters)), settings,
                          segment_mb).create()
        self.clusters.append(cluster)
        return cluster

    def standby(self, primary, name, **settings):
        """A streaming standby of a cluster, attached."""
        standby = primary.standby(name, settings)
        self.clusters.append(standby)
        return standby

    def private_kafka(self, brokers=1, **how):
        """Brokers of this test's own, which it may kill; t.kafka is theirs from now on."""
        k = PrivateKafka(brokers, **how).__enter__()
        self.cleanups.append(k.__exit__)
        self._kafka = Kafka(k.bootstrap)
        self.log("brokers of its own: Apache Kafka %s, cluster id %s" % (
            os.environ.get("SKALD_TEST_KAFKA_VERSION", "(version not told)"),
            self._kafka.cluster_id()))
        return k

    def database(self, migrate=True, name=None, cluster=None):
        """URL of a new database, with Skald's schema unless migrate=False."""
        url = (cluster or self.pg).create_database(name)
        if migrate:
            self.skald("db", "migrate", "--database", url)
        return url

    def connect(self, url, **kwargs):
        """psycopg, autocommit; closed at the end."""
        conn = connect(url, **kwargs)
        self.cleanups.append(conn.close)
        return conn

    def topic(self, name="orders", partitions=4, **kwargs):
        """Create a topic of this test's own; returns its full name."""
        return self.kafka.create_topic(self.topic_name(name), partitions, **kwargs)

    def topic_name(self, name="orders"):
        """A topic name of this test's own, not created."""
        return "%s.%s" % (self.tag, name)

    def group(self, name="g"):
        return "%s.%s" % (self.tag, name)

    # -- programs --------------------------------------------------------------------------

    def skald(self, *args, url=None, check=True, env=None, timeout=120, stdin=None):
        """Run the operator's tool; brokers and url are given as flags when set."""
        argv = ["skald"] + list(args)
        if url:
            argv += ["--database", url]
        if self._kafka is not None:
            argv += ["--brokers", self._kafka.bootstrap]
        return proc.run_tool(*argv, env=env, check=check, timeout=timeout, stdin=stdin)

    def skaldd(self, url, name=None, roles="relay", settings=None, failpoint=None,
               failpoints=None, env=None, start=True, ready=True, bootstrap=None):
        """A skaldd; ready=True waits for /readyz.

        failpoint "relay_after_tick:2" uses the build with failpoints.
        """
        p = proc.make_skaldd(self._name(name or "skaldd"), url,
                             bootstrap or (self.kafka.bootstrap if self.spec.kafka or self._kafka
                                           else None),
                             self.dir, roles, settings, failpoint, failpoints, env)
        self.procs.append(p)
        if start:
            p.start()
            if ready and not failpoint:
                p.wait_ready()
        return p

    def service(self, program, url, name=None, settings=None, args=(), failpoint=None,
                failpoints=None, env=None, start=True, bootstrap=None):
        """An example service (skald-example-order ...), configured by --set like the daemon."""
        all_settings = {"database.url": url, "log.format": "text",
                        "kafka.bootstrap.servers": bootstrap or self.kafka.bootstrap}
        all_settings.update(settings or {})
        variables = dict(env or {})
        if failpoint:
            variables["SKALD_FAILPOINT"] = failpoint
        use = bool(failpoint) if failpoints is None else failpoints
        argv = [proc.bin_path(program, use)] + proc.set_args(all_settings) + [str(a) for a in args]
        return self.proc(argv, name or program, env=variables, start=start)

    def proc(self, argv, name, env=None, start=True, cwd=None):
        """Any other program."""
        p = proc.Proc(argv, self._name(name), self.dir, env=env, cwd=cwd)
        self.procs.append(p)
        if start:
            p.start()
        return p

    def python(self, script, *args, name="python", env=None, start=True):
        """A Python program with the rig's interpreter (psycopg, confluent-kafka)."""
        path = script if os.path.isabs(script) else os.path.join(ROOT, script)
        return self.proc([sys.executable, path] + [str(a) for a in args], name, env, start)

    # -- verdict ---------------------------------------------------------------------------

    def checked(self, records=0, effects=0):
        """Say how many records and effects were looked at; adds up."""
        self.records += records
        self.effects += effects

    def log(self, text):
        say("  " + text)

    def check_topic(self, topic, expected=None, **kwargs):
        """Read the topic, check it, fail on any finding, count; returns the records."""
        records = self.kafka.read_topic(topic)
        check.require_none(check.topic(records, expected, **kwargs), topic)
        self.checked(records=len(records))
        return records

    def check_effects(self, expected, happened):
        """Fail on any finding, count."""
        happened = list(happened)
        check.require_none(check.effects(expected, happened), "effects")
        self.checked(effects=len(happened))

    def column(self, url, sql):
        """First column of a query's rows, as text."""
        return [row[0] for row in psql(url, sql)]

    def finish(self):
        for p in reversed(self.procs):
            if p.alive:
                p.signal(signal.SIGCONT)
                p.signal(signal.SIGKILL)
                p.wait(10)
        for undo in reversed(self.cleanups):
            try:
                undo()
            except Exception:  # a connection that the test has broken
                pass
        for cluster in reversed(self.clusters):
            cluster.destroy()
        self.clusters = []
        if self._pg is not None:
            self._pg.destroy()
            self._pg = None

    def tails(self):
        return "".join(p.tail() for p in self.procs)

    def _name(self, name):
        self._n += 1
        return "%s-%d" % (name, self._n)


def load(directory=None):
    """Import every tests/e2e/test_*.py once; their decorators fill the registry."""
    directory = directory or os.environ.get("SKALD_E2E_DIR", os.path.join(ROOT, "tests", "e2e"))
    sys.path.insert(0, directory)
    for path in sorted(glob.glob(os.path.join(directory, "test_*.py"))):
        name = os.path.splitext(os.path.basename(path))[0]
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return REGISTRY


def _stop(number, _frame):
    raise SystemExit(128 + number)


def run_one(spec):
    """Run one test in this process; True when it passed."""
    seed = int(os.environ.get("SKALD_SEED", "0")) or random.SystemRandom().getrandbits(31)
    os.environ["SKALD_SEED"] = str(seed)
    say("%s: seed %d" % (spec.name, seed))
    started = time.monotonic()
    t = Test(spec, seed)
    ok = False
    try:
        if spec.kafka:
            cluster = t.kafka.cluster_id()
            say("  broker: Apache Kafka %s, cluster id %s, at %s" % (
                os.environ.get("SKALD_TEST_KAFKA_VERSION", "(version not told)"), cluster,
                t.kafka.bootstrap))
            assert not str(cluster).startswith("mockCluster"), \
                "this is librdkafka's mock cluster (%s), not Apache Kafka" % cluster
        spec.function(t)
        assert t.records >= spec.records, "%d records checked, at least %d wanted" % (
            t.records, spec.records)
        assert t.effects >= spec.effects, "%d effects checked, at least %d wanted" % (
            t.effects, spec.effects)
        ok = True
    except (Exception, SystemExit):  # SystemExit: told to end, its time is up
        traceback.print_exc(file=sys.stdout)
        sys.stdout.write(t.tails())
        say("  logs are kept in " + t.dir)
    finally:
        t.finish()
        if ok:
            shutil.rmtree(t.dir, ignore_errors=True)
    say("%s: %s, %d records and %d effects checked, %.1f s, seed %d" % (
        spec.name, "passed" if ok else "FAILED", t.records, t.effects,
        time.monotonic() - started, seed))
    return ok


def main(argv):
    signal.signal(signal.SIGTERM, _stop)
    if not argv or argv[0] not in ("list", "run"):
        say("usage: python -m skaldtest list | run NAME...")
        return 2
    registry = load()
    if argv[0] == "list":
        for spec in registry.values():
            say("%s\t%d\t%s\t%s" % (spec.name, spec.timeout,
                                    "kafka" if spec.kafka else "-",
                                    "alone" if spec.alone else "-"))
        return 0
    names = [n for a in argv[1:] for n in registry if n == a or n.startswith(a + ".")]
    if not names:
        say("no such test: %s" % " ".join(argv[1:]))
        return 2
    failed = 0
    for name in names:
        failed += not run_one(registry[name])
    return 1 if failed else 0
