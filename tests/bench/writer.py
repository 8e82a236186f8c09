"""writer: what outbox_add adds to a business transaction."""

import re
import subprocess

from kit import BenchError, Meter, Usage, median, say, spawn
from report import Run, Verdict

CLIENTS = 32
ACCOUNTS = 20000

SCHEMA = f"""
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO account SELECT i, 0 FROM generate_series(1, {ACCOUNTS}) i;
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int NOT NULL,
    amount int NOT NULL, state text NOT NULL DEFAULT 'placed',
    at timestamptz NOT NULL DEFAULT now());
CREATE TABLE product (id int PRIMARY KEY, price int NOT NULL, stock bigint NOT NULL);
INSERT INTO product SELECT i, i, 1000000000 FROM generate_series(1, {ACCOUNTS}) i;
CREATE TABLE order_line (order_id bigint NOT NULL, line int NOT NULL, product int NOT NULL,
    amount int NOT NULL, PRIMARY KEY (order_id, line));
-- the bare table: the outbox's columns, defaults and index, and nothing else
CREATE SEQUENCE bare_id CACHE 1;
CREATE TABLE bare (LIKE skald.outbox INCLUDING DEFAULTS);
ALTER TABLE bare ALTER id SET DEFAULT nextval('bare_id');
CREATE INDEX bare_xid ON bare (xid, id);
"""

EMPTY = """TRUNCATE orders, order_line, bare, skald.outbox;
VACUUM account; VACUUM product; CHECKPOINT"""

BUSINESS = f"""\\set account random(1, {ACCOUNTS})
\\set amount random(1, 100000)
BEGIN;
UPDATE account SET balance = balance + :amount WHERE id = :account;
INSERT INTO orders (account, amount) VALUES (:account, :amount);
"""

# what placing an order takes more often than not
LARGER = f"""\\set account random(1, {ACCOUNTS})
\\set product random(1, {ACCOUNTS})
\\set amount random(1, 100000)
BEGIN;
SELECT price FROM product WHERE id = :product;
UPDATE product SET stock = stock - 1 WHERE id = :product;
UPDATE account SET balance = balance + :amount WHERE id = :account;
INSERT INTO orders (account, amount) VALUES (:account, :amount);
INSERT INTO order_line VALUES (currval('orders_id_seq'), 1, :product, :amount);
"""

# about 300 bytes of jsonb, some of them new in each row; both inserts take the same
DATA = ("""'{"amount": ' || :amount::text || ', "lines": [{"sku": "sku-0000017", "quantity": """
        """2}, {"sku": "sku-0000423", "quantity": 1}, {"sku": "sku-0000099", "quantity": 7}], """
        """"customer": "customer-000417", "currency": "EUR", "note": "leave it with the """
        """neighbour on the second floor, please ring twice", "account": ' """
        """|| :account::text || '}'""")

BARE = f"""INSERT INTO bare (message_id, topic, key, type, source, content_type, data,
    correlation_id, traceparent)
VALUES (gen_random_uuid(), 'bench.orders', convert_to(:account::text, 'UTF8'),
    'bench.order.placed', '/bench', 'application/json',
    convert_to((({DATA})::jsonb)::text, 'UTF8'),
    '3fa85f64-5717-4562-b3fc-2c963f66afa6',
    '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01');
"""

ADD = f"""SELECT skald.outbox_add(topic => 'bench.orders', key => :account::text,
    type => 'bench.order.placed', data => ({DATA})::jsonb);
"""

VARIANTS = (
    ("business", "a  UPDATE account, INSERT order", BUSINESS, ""),
    ("insert", "b  a + INSERT of the same row, bare", BUSINESS, BARE),
    ("outbox_add", "c  a + SELECT skald.outbox_add(...)", BUSINESS, ADD),
    ("larger", "d  SELECT, two UPDATEs, two INSERTs", LARGER, ""),
    ("larger_add", "e  d + SELECT skald.outbox_add(...)", LARGER, ADD),
)


def pgbench(bench, meter, script, seconds):
    argv = [f"{bench.pg.bin}/pgbench", "-n", "-M", "prepared", "-c", CLIENTS, "-j", "2",
            "-T", seconds, "-f", script, bench.url("writer")]
    proc = meter.child("pgbench", spawn(argv, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True))
    out = proc.stdout.read()
    try:
        meter.reap(proc)
    except BenchError as why:
        raise BenchError(f"{why}: {out[-400:]}") from why
    done = int(re.search(r"transactions actually processed: (\d+)", out).group(1))
    failed = re.search(r"failed transactions: (\d+)", out)
    if failed and int(failed.group(1)):
        raise BenchError(f"pgbench: {failed.group(1)} transactions failed")
    return done, float(re.search(r"tps = ([0-9.]+)", out).group(1))


def run(bench, report):
    bench.database("writer")
    bench.pg.sql(SCHEMA, "writer")
    scripts = {}
    for name, _, business, extra in VARIANTS:
        scripts[name] = bench.dir / f"{name}.pgbench"
        scripts[name].write_text(business + extra + "COMMIT;\n")
    tps = {name: [] for name, *_ in VARIANTS}
    usage = {name: Usage() for name, *_ in VARIANTS}
    for turn in range(-1, bench.rounds):  # the first only warms up
        bench.pg.sql(EMPTY, "writer")
        for name in scripts:
            with Meter(**bench.pids(kafka=False)) as meter:
                seconds = bench.seconds if turn >= 0 else 2
                done, rate = pgbench(bench, meter, scripts[name], seconds)
            if turn < 0:
                continue
            say(f"bench: writer round {turn + 1}/{bench.rounds} {name}: {rate:,.0f}/s")
            tps[name].append(rate)
            usage[name].add(meter, done)
        if int(bench.pg.sql("SELECT count(*) FROM skald.outbox", "writer")[0][0]) == 0:
            raise BenchError("outbox_add wrote nothing")
    report.head("writer", {"clients": CLIENTS, "rounds": bench.rounds,
                           "seconds each": bench.seconds, "accounts": f"{ACCOUNTS:,}",
                           "pgbench -M": "prepared, a b c d e in turn"})
    runs = {n: Run("writer", n, title, "tx/s", tps[n], usage[n], "transaction")
            for n, title, *_ in VARIANTS}
    report.add(*runs.values())
    a, b, c, d, e = tps.values()
    why = where(runs)
    report.add(
        Verdict("writer.overhead", "c: throughput lost against a", runs["outbox_add"],
                runs["business"], losses(a, c), 30, at_most=True, unit="%",
                why=why),
        Verdict("writer.insert", "b: throughput lost against a", runs["insert"],
                runs["business"], losses(a, b), unit="%"),
        # of medians: what one noisy round lost may be near nothing
        Verdict("writer.against_insert", "loss of c to loss of b", runs["outbox_add"],
                runs["insert"], [lost(median(a), median(c)) / max(lost(median(a), median(b)), 0.1)],
                2, at_most=True, why=why),
        Verdict("writer.larger", "e: throughput lost against d", runs["larger_add"],
                runs["larger"], losses(d, e), unit="%"))


def where(runs):
    cpu = {n: r.usage.us_per_item()["postgres"] for n, r in runs.items()}
    return (f"A transaction costs PostgreSQL {cpu['business']:.0f} us of CPU, the bare INSERT "
            f"{cpu['insert'] - cpu['business']:.0f} more, outbox_add "
            f"{cpu['outbox_add'] - cpu['business']:.0f}: what is between the two is PL/pgSQL, "
            "which sets up each expression anew in every transaction, the checks of rights and "
            "of the arguments, and the id and trace that are made up.")


def lost(base, other):
    return 100 * (1 - other / base)


def losses(base, other):
    return [lost(x, y) for x, y in zip(base, other)]
