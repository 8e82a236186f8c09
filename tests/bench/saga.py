"""saga: three-step sagas end to end, with participants in C, and what they cost in CPU."""

import json
import pathlib
import subprocess
import time

from kit import BenchError, Meter, Usage, clean_env, end, say, spawn, tree
from report import Run, Verdict, where

PARTITIONS = 8
STEPS = ("reserve", "charge", "ship")
RATE = 50
WARM = 200
TRIPS, COMMITS = 6, 7  # of a saga: each of its messages, each of its transactions
TRANSITIONS = 1 + len(STEPS)
CPU_MS = 1.6  # a saga, all processes together
ENDED_S = 300

# ten starts a transaction, in the order service's own database
START = """
DO $$
BEGIN
    FOR i IN 0..%(count)s / 10 - 1 LOOP
        PERFORM skald.saga_start(name => 'bench', key => '%(tag)s-' || n,
            input => jsonb_build_object('order', n, 'amount', 10.00))
           FROM generate_series(i * 10 + 1, i * 10 + 10) AS n;
        COMMIT;
    END LOOP;
END $$;
"""
ENDED = "SELECT NOT EXISTS (SELECT FROM skald.saga WHERE status <> 'finished')"
SERVES = "SELECT EXISTS (SELECT FROM skald.installation)"
SERVED = """
SELECT extract(epoch FROM max(e.at) - min(e.at))::float8
  FROM skald.saga_event_entry e JOIN skald.saga s ON s.id = e.saga_id
 WHERE s.key LIKE %s || '-%%'
"""
FOUND = """
SELECT count(*), count(*) FILTER (WHERE outcome = 'completed'),
       extract(epoch FROM max(finished_at) - min(created_at))::float8,
       percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY
           extract(epoch FROM finished_at - created_at) * 1000)
  FROM skald.saga WHERE key LIKE %s || '-%%'
"""


def definition(topics):
    data = {"order": "$.input.order", "amount": "$.input.amount"}
    steps = []
    for name, kind, topic in zip(STEPS, ("compensatable", "pivot", "retriable"), topics):
        step = {"name": name, "kind": kind, "timeout": "60s",
                "action": {"topic": topic, "type": "bench.do", "data": data}}
        if kind == "compensatable":
            step["compensation"] = {"topic": topic, "type": "bench.undo", "data": data}
        steps.append(step)
    return {"name": "bench", "version": 1, "deadline": "1h", "steps": steps,
            "output": {"charge": "$.steps.charge.number", "tracking": "$.steps.ship.number"}}


def skald(bench, *args, database):
    done = subprocess.run([bench.program("skald"), *args, "--database", bench.url(database),
                           "--brokers", bench.kafka.bootstrap], env=clean_env(),
                          text=True, capture_output=True, check=False)
    if done.returncode:
        raise BenchError(f"skald {args[0]} {args[1]}: {done.stderr.strip()[-600:]}")


def sets(settings):
    return [x for k, v in settings.items() for x in ("--set", f"{k}={v}")]


def backends(pid):
    """{(pid, database or role): CPU seconds} of PostgreSQL's processes."""
    found = {}
    for child, cpu in tree(pid).items():
        try:
            title = pathlib.Path(f"/proc/{child}/cmdline").read_text(errors="replace")
        except OSError:
            continue
        words = title.replace("\0", " ").split()
        if len(words) > 1 and words[0] == "postgres:" and child != pid:
            name = words[2] if "[local]" in title else words[1]
            found[child, name] = cpu
    return found


class Shop:
    """A database with the orchestrator, three participants with databases of their own."""

    def __init__(self, bench, tag, mode, **settings):
        self.bench, self.tag, self.mode, self.settings = bench, tag, mode, settings
        self.names = [] if mode == "stub" else [f"{tag}_{step}" for step in STEPS]
        self.procs = {}
        self.turns = 0
        for name in [tag, *self.names]:
            bench.database(name)
        self.topics = [bench.topic(f"{tag}.{step}", PARTITIONS) for step in STEPS]
        path = bench.dir / f"{tag}.json"
        path.write_text(json.dumps(definition(self.topics)))
        skald(bench, "saga", "deploy", path, database=tag)
        self.conn = bench.connect(tag)
        # looking whether all ended must cost nothing: planned while the table is empty
        self.conn.execute("SET enable_seqscan = off")

    def program(self, name, argv, database, **settings):
        from skaldtest import free_port
        settings = {"database.url": self.bench.url(database), "log.format": "text",
                    "kafka.bootstrap.servers": self.bench.kafka.bootstrap,
                    "topics.partitions": PARTITIONS, **settings}
        if name == "skaldd":
            settings["http.listen"] = f"127.0.0.1:{free_port()}"
            settings["daemon.installation"] = self.topics[0]
        with open(self.bench.dir / f"{self.tag}-{name}.log", "w", encoding="utf-8") as log:
            self.procs[name] = spawn([*argv, *sets(settings)], stdout=log, stderr=log)

    def __enter__(self):
        if self.mode == "stub":
            with open(self.bench.dir / f"{self.tag}-stub.log", "w", encoding="utf-8") as log:
                self.procs["stub"] = spawn([self.bench.program("skald-bench-saga-stub"),
                                            self.bench.kafka.bootstrap, *self.topics],
                                           stdout=log, stderr=log)
        for step, database, topic in zip(STEPS, self.names, self.topics):
            self.program(step, [self.bench.program("skald-bench-saga-service"), database,
                                "--topic", topic, "--mode", self.mode], database,
                         **{"service.group": topic})
        self.daemon()
        self.wait(SERVES)
        self.bulk(WARM)
        return self

    def __exit__(self, *_):
        for proc in reversed(self.procs.values()):
            end(proc)
        for topic in self.topics:
            self.bench.kafka.delete_topic(topic)

    def daemon(self):
        self.program("skaldd", [self.bench.program("skaldd"), "--roles",
                                "relay,orchestrator"], self.tag, **self.settings)

    def pids(self):
        return {**self.bench.pids(), **{n: p.pid for n, p in self.procs.items()}}

    def wait(self, question):
        until = time.monotonic() + ENDED_S
        while not self.conn.execute(question, prepare=True).fetchone()[0]:
            for name, proc in self.procs.items():
                if proc.poll() is not None or time.monotonic() > until:
                    log = (self.bench.dir / f"{self.tag}-{name}.log").read_text()
                    raise BenchError(f"the sagas did not end: {name}: {log[-700:]}")
            time.sleep(0.1)

    def found(self, tag, count):
        total, completed, seconds, (p50, p99) = self.conn.execute(FOUND, [tag]).fetchone()
        if (total, completed) != (count, count):
            raise BenchError(f"{completed} of {total} sagas completed, not {count}")
        return seconds, p50, p99

    def check_effects(self):
        """Each participant did each saga's step once."""
        sagas = self.conn.execute("SELECT count(*) FROM skald.saga").fetchone()[0]
        table = "sum(n) FROM counter" if self.mode == "hot" else "count(*) FROM effects"
        for name in self.names:
            effects = int(self.bench.pg.sql(f"SELECT {table}", name)[0][0])
            if effects != sagas:
                raise BenchError(f"{name}: {effects} effects of {sagas} sagas")

    def next_tag(self):
        self.turns += 1
        return f"t{self.turns}"

    def bulk(self, count):
        """Seconds from the first start to the last end."""
        tag = self.next_tag()
        self.bench.pg.sql(START % {"count": count, "tag": tag}, self.tag)
        self.wait(ENDED)
        return self.found(tag, count)[0]

    def backlog(self, count):
        """Sagas that wait when the daemon comes: seconds from its first to its last row."""
        tag = self.next_tag()
        end(self.procs["skaldd"])
        self.bench.pg.sql(START % {"count": count, "tag": tag}, self.tag)
        self.bench.pg.sql("CHECKPOINT", self.tag)
        pids = {**self.bench.pids(), "stub": self.procs["stub"].pid}
        with Meter(**pids) as meter:
            self.daemon()
            meter.child("skaldd", self.procs["skaldd"])
            self.wait(ENDED)
            meter.stop()
        self.found(tag, count)
        return self.conn.execute(SERVED, [tag]).fetchone()[0], meter

    def paced(self, seconds):
        """p50 and p99 in ms, from a start to its end."""
        tag, count = self.next_tag(), RATE * seconds
        begin = time.monotonic()
        for n in range(count):
            time.sleep(max(0, begin + n / RATE - time.monotonic()))
            self.conn.execute(
                "SELECT skald.saga_start(name => 'bench', key => %s, input =>"
                " jsonb_build_object('order', %s::int, 'amount', 10.00))",
                [f"{tag}-{n}", n], prepare=True)
        self.wait(ENDED)
        return self.found(tag, count)[1:]


def measured(bench, shop, count, usage, split):
    bench.pg.sql("CHECKPOINT", shop.tag)
    before = backends(bench.pg.pid())
    with Meter(**shop.pids()) as meter:
        took = shop.bulk(count)
        meter.stop()
        after = backends(bench.pg.pid())
    shop.check_effects()
    usage.add(meter, count)
    for who, cpu in after.items():
        split.setdefault(who[1], 0.0)
        split[who[1]] += (cpu - before.get(who, 0.0)) * 1e6 / count
    return count / took, sum(meter.cpu.values()) * 1000 / count


def bare(bench, shop):
    """p50 and p99 in ms of one after another: 6 times produce to consume, 7 commits."""
    topic = bench.topic("bare", PARTITIONS)
    with Meter() as meter:
        got = bench.run_json(meter, "latency", [
            bench.program("skald-bench-latency"), "produce", bench.kafka.bootstrap, topic,
            RATE, bench.seconds, "0"])
    bench.kafka.delete_topic(topic)
    shop.conn.execute("CREATE TABLE IF NOT EXISTS bare (id bigint)")
    commits, begin = [], time.monotonic()
    for n in range(RATE * bench.seconds):
        time.sleep(max(0, begin + n / RATE - time.monotonic()))
        at = time.monotonic()
        shop.conn.execute("INSERT INTO bare VALUES (1)", prepare=True)
        commits.append((time.monotonic() - at) * 1000)
    commits.sort()
    return [TRIPS * got["seen"][what] + COMMITS * commits[int(len(commits) * share)]
            for what, share in (("p50_ms", 0.5), ("p99_ms", 0.99))]


FLOOR_SET = 500
EFFECTS = """
CREATE TABLE effects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(), saga_id uuid NOT NULL,
    order_id bigint NOT NULL, amount numeric NOT NULL)"""


def floor(bench, turn, usage):
    """Sagas a second of the same rows and records without logic; CPU ms a saga."""
    count = max(bench.sagas // FLOOR_SET, 1) * FLOOR_SET
    names = [bench.database(f"floor_{turn}_{i}") for i in range(1 + len(STEPS))]
    for name in names[1:]:
        bench.pg.sql(EFFECTS, name)
    topic = bench.topic("floor", PARTITIONS)
    bench.pg.sql("CHECKPOINT", names[0])
    with Meter(**bench.pids()) as meter:
        got = bench.run_json(meter, "floor", [bench.program("skald-bench-saga-floor"),
                                              bench.kafka.bootstrap, topic, count,
                                              *map(bench.url, names)])
        meter.stop()
    bench.kafka.delete_topic(topic)
    usage.add(meter, count)
    return count / got["seconds"], sum(meter.cpu.values()) * 1000 / count


def end_to_end(bench, report, tag, mode, title):
    count = bench.sagas
    rates, costs, usage, split = [], [], Usage(), {}
    floors, floor_costs, floor_usage = [], [], Usage()
    with Shop(bench, tag, mode) as shop:
        for turn in range(bench.rounds):
            rate, cost = measured(bench, shop, count, usage, split)
            rates.append(rate)
            costs.append(cost)
            if mode == "insert":
                rate, cost = floor(bench, turn, floor_usage)
                floors.append(rate)
                floor_costs.append(cost)
            say(f"bench: saga {mode} round {turn + 1}/{bench.rounds}: "
                f"{rates[-1]:,.0f} sagas/s, "
                f"{costs[-1]:.2f} ms of CPU a saga")
        paced, bares = [], []
        for _ in range(bench.rounds if mode == "insert" else 0):
            paced.append(shop.paced(bench.seconds))
            bares.append(bare(bench, shop))
    run = Run("saga", tag, title, "saga/s", rates, usage, "saga")
    report.add(run)
    parts = sorted(split.items(), key=lambda x: -x[1])
    report.note("saga", "PostgreSQL's share by process, CPU us a saga (the rest is sessions "
                "that ended, as the starter's): "
                + ", ".join(f"{n} {v / bench.rounds:.0f}" for n, v in parts if v >= 1))
    cost = Run("saga", tag + ".cpu", "CPU of all processes a saga", "ms", costs)
    goal = Run("saga", tag + ".cpu.goal", "the target", "ms", [CPU_MS])
    report.add(cost)
    report.add(Verdict(f"saga.{tag}.cpu", "CPU a saga, to the 1.6 ms", cost, goal,
                       [c / CPU_MS for c in costs], 1 if mode == "insert" else None,
                       at_most=True, why=where(run)))
    if floors:
        tell_floor(report, run, cost, floors, floor_costs, floor_usage)
    for what, values, others in zip(("p50", "p99"), zip(*paced), zip(*bares)):
        mine = Run("saga", f"{tag}.{what}", f"start to end at {RATE}/s, {what}", "ms", values)
        base = Run("saga", f"bare.{what}", f"{TRIPS} bare round trips, {COMMITS} commits, "
                   f"{what}", "ms", others)
        report.add(mine, base,
                   Verdict(f"saga.{what}", f"{what}, to the bare trips and commits", mine,
                           base, [x / y for x, y in zip(values, others)], at_most=True))
    return run


def tell_floor(report, run, cost, floors, costs, usage):
    """The same rows and records by one program that decides nothing."""
    base = Run("saga", "floor", f"floor: the same rows and records, by {FLOOR_SET}", "saga/s",
               floors, usage, "saga")
    cpu = Run("saga", "floor.cpu", "CPU of the floor a saga", "ms", costs)
    report.add(base, cpu)
    report.add(Verdict("saga.floor", "sagas a second, to the floor", run, base,
                       [x / y for x, y in zip(run.values, floors)]),
               Verdict("saga.floor.cpu", "CPU a saga, to the floor", cost, cpu,
                       [x / y for x, y in zip(cost.values, costs)], at_most=True))


def alone(bench, report):
    """The orchestrator with participants at the wire: batches against one by one."""
    runs = {}
    batches = {"batch": 500, "single": 1}
    rates, usage = {n: [] for n in batches}, {n: Usage() for n in batches}
    for turn in range(bench.rounds):
        for name, size in batches.items():
            # one by one is slow: a twentieth of the sagas
            count = bench.sagas if name == "batch" else bench.sagas // 20
            with Shop(bench, f"alone_{name}_{turn}", "stub", **{"saga.batch": size}) as shop:
                seconds, meter = shop.backlog(count)
            usage[name].add(meter, count)
            rates[name].append(count * TRANSITIONS / seconds)
            say(f"bench: saga alone, batches of {size}, round {turn + 1}/{bench.rounds}: "
                f"{rates[name][-1]:,.0f} transitions/s")
    report.note("saga", "The orchestrator alone: participants that answer at the wire, without "
                f"a database; a saga is {TRANSITIONS} transitions, a start and three "
                "replies. All sagas wait when the daemon comes.")
    for name, title in (("batch", "orchestrator alone, hundreds a transaction"),
                        ("single", "one transition a transaction, pipelined")):
        runs[name] = Run("saga", name, title, "tr/s", rates[name], usage[name], "saga")
        report.add(runs[name])
    report.add(Verdict("saga.alone", "batches, to one by one", runs["batch"], runs["single"],
                       [x / y for x, y in zip(rates["batch"], rates["single"])], 5,
                       why=where(runs["batch"])))


def run(bench, report):
    report.head("saga", {"sagas": f"{bench.sagas:,}", "steps": len(STEPS),
                         "partitions": PARTITIONS, "rounds": bench.rounds})
    report.note("saga", "From the first start (ten a transaction, while the orchestrator "
                "runs) to the last end. One skaldd with relay and orchestrator, three "
                "participants in C, each with a database, one statement a command.")
    end_to_end(bench, report, "sagas", "insert", "end to end, three INSERTs a saga")
    end_to_end(bench, report, "hot", "hot", "end to end, 10 hot rows a participant")
    alone(bench, report)
