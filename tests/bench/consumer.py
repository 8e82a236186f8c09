"""consumer: each message once in effect, against an inbox with a row per message."""

import subprocess
import time

from kit import BenchError, Meter, Usage, say, spawn
from report import Run, Verdict, where

PARTITIONS = 8
KEYS = 10000
BYTES = 300
BATCH = 500
BATCH_SET = 2000  # where a batch is one statement, more of it costs no round trips
HOT_SHARE = 5  # hot rows are slow: a fifth of the messages, from a topic of their own
COLUMNS = "partition, record_offset, key, body"

# effects as tables of services are; the inbox as it is usually made: who consumed what, by
# text ids, and when
SCHEMA = """
CREATE TABLE effects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(), partition int NOT NULL,
    record_offset bigint NOT NULL, key text NOT NULL, body text NOT NULL);
CREATE TABLE inbox (consumer_group text NOT NULL, message_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (consumer_group, message_id));
CREATE TABLE counter (id int PRIMARY KEY, n bigint NOT NULL);
"""
EMPTY = """
TRUNCATE effects, inbox, counter;
INSERT INTO counter SELECT i, 0 FROM generate_series(0, 9) i;
VACUUM counter;
CHECKPOINT;
"""

INBOX, SKALD = "skald-bench-inbox", "skald-bench-consumer"
# name, title, program, mode, batch
VARIANTS = (
    ("inbox", "row inbox, one INSERT each", INBOX, "insert", BATCH),
    ("skald", "skald, one INSERT each", SKALD, "insert", BATCH),
    ("copy", "COPY into effects and inbox", None, None, 0),
    ("set", "skald, batch handler, one set INSERT", SKALD, "set", BATCH_SET),
    ("set-500", "skald, the same by 500", SKALD, "set", BATCH),
    ("inbox-hot", "row inbox, UPDATE of 10 hot rows", INBOX, "hot", BATCH),
    ("skald-hot", "skald, UPDATE of 10 hot rows", SKALD, "hot", BATCH),
    ("set-hot", "skald, batch handler, 10 hot rows", SKALD, "set-hot", BATCH_SET),
    ("inbox-pipeline", "row inbox, both in libpq's pipeline", INBOX, "pipeline", BATCH),
    ("skald-pipeline", "skald, batch handler, pipelined INSERTs", SKALD, "pipeline", BATCH),
)


def consume(bench, usage, topics, variant, turn):
    """Messages a second, from the start of the process to the last commit."""
    name, _, program, mode, batch = variant
    topic, rows = topics["hot" if "hot" in mode else "all"]
    bench.pg.sql(EMPTY, "consumer")
    argv = [bench.program(program), bench.kafka.bootstrap, topic, f"bench-{name}-{turn}",
            bench.url("consumer"), rows, batch, mode]
    with Meter(**bench.pids()) as meter:
        got = bench.run_json(meter, "consumer", argv)
        meter.stop()
    table = "SELECT sum(n) FROM counter" if "hot" in mode else "SELECT count(*) FROM effects"
    effects = int(bench.pg.sql(table, "consumer")[0][0])
    if effects != rows:
        raise BenchError(f"{name}: {effects} effects of {rows} messages")
    usage.add(meter, rows)
    return rows / got["seconds"]


def fill(bench):
    topics = {}
    for what, rows in (("all", bench.rows), ("hot", bench.rows // HOT_SHARE)):
        topics[what] = bench.topic("consumer", PARTITIONS), rows
        with Meter() as meter:
            bench.run_json(meter, "fill", [bench.program("skald-bench-fill"),
                                           bench.kafka.bootstrap, topics[what][0], rows, KEYS,
                                           BYTES])
    # the first group on a broker waits for its coordinator: nobody's time
    consume(bench, Usage(), topics, ("warm", "", INBOX, "hot", BATCH), 0)
    return topics


def export(bench):
    """The rows of `effects` and the ids of their messages as files for COPY, once."""
    # as fill.c makes them, in the order in which the consumer met them
    ids = """SELECT 'bench', format('0192d3a4-%s-7%s-8000-%s', lpad(to_hex(n >> 12), 4, '0'),
                 lpad(to_hex(n & 4095), 3, '0'), lpad(to_hex(n), 12, '0'))
               FROM (SELECT (body::json ->> 'n')::int AS n FROM effects) AS e"""
    files = []
    for name, query in (("effects", f"SELECT {COLUMNS} FROM effects"), ("inbox", ids)):
        files.append(bench.dir / f"{name}.copy")
        with open(files[-1], "wb") as out:
            subprocess.run(["psql", "-X", "-q", "-d", bench.url("consumer"), "-c",
                            f"COPY ({query}) TO STDOUT"], stdout=out, check=True)
    return files


def copy(bench, usage, files):
    bench.pg.sql(EMPTY, "consumer")
    psql = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", bench.url("consumer"),
            "-c", "BEGIN", "-c", f"\\copy effects ({COLUMNS}) FROM '{files[0]}'",
            "-c", f"\\copy inbox (consumer_group, message_id) FROM '{files[1]}'",
            "-c", "COMMIT"]
    with Meter(**bench.pids(kafka=False)) as meter:
        begin = time.monotonic()
        meter.reap(meter.child("psql", spawn(psql)))
        took = time.monotonic() - begin
        meter.stop()
    if int(bench.pg.sql("SELECT count(*) FROM inbox", "consumer")[0][0]) != bench.rows:
        raise BenchError("COPY did not bring every row")
    usage.add(meter, bench.rows)
    return bench.rows / took


def run(bench, report):
    bench.database("consumer")
    bench.pg.sql(SCHEMA, "consumer")
    topics = fill(bench)
    rates = {v[0]: [] for v in VARIANTS}
    usage = {v[0]: Usage() for v in VARIANTS}
    files = None
    for turn in range(bench.rounds):
        for variant in VARIANTS:
            name = variant[0]
            if variant[2]:
                rate = consume(bench, usage[name], topics, variant, turn)
                files = files or export(bench)  # of what the first variant inserted
            else:
                rate = copy(bench, usage[name], files)
            rates[name].append(rate)
            say(f"bench: consumer round {turn + 1}/{bench.rounds} {name}: {rate:,.0f}/s")
    for topic, _ in topics.values():
        bench.kafka.delete_topic(topic)
    tell(bench, report, rates, usage)


def tell(bench, report, rates, usage):
    report.head("consumer", {"messages": f"{bench.rows:,}", "bytes": BYTES,
                             "keys": f"{KEYS:,}", "partitions": PARTITIONS,
                             "batch": f"{BATCH}, of set statements {BATCH_SET}",
                             "hot rows by": f"{bench.rows // HOT_SHARE:,}",
                             "rounds": bench.rounds})
    report.note("consumer", "From the start of the process (it joins its group) to the last "
                "commit. C handlers, sql_context off; every statement prepared once.")
    runs = {n: Run("consumer", n, title, "msg/s", rates[n], usage[n], "message")
            for n, title, *_ in VARIANTS}
    report.add(*runs.values())

    def verdict(name, title, mine, base, target=None):
        return Verdict(f"consumer.{name}", title, runs[mine], runs[base],
                       [x / y for x, y in zip(rates[mine], rates[base])], target,
                       why=where(runs[mine]))

    report.add(verdict("insert", "one INSERT each, to the row inbox", "skald", "inbox", 2),
               verdict("set", "set-based batch, to COPY", "set", "copy", 0.6),
               verdict("set_500", "set-based batch of 500, to COPY", "set-500", "copy"),
               verdict("hot", "10 hot rows, to the row inbox", "skald-hot", "inbox-hot"),
               verdict("set_hot", "10 hot rows set-based, to the inbox", "set-hot",
                       "inbox-hot"),
               verdict("pipeline", "pipelined, to the inbox pipelined", "skald-pipeline",
                       "inbox-pipeline"))
