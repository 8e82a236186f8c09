"""Writers of versioned events: the load of the relay's tests.

app.counter holds a version per key; every event carries the version that its
transaction gave the key under the row's lock, and leaves (id, key, version) in
app.event, in the same transaction. So app.event says afterwards what was
committed, and the versions say in which order.
"""

import os
import subprocess
import threading

from skaldtest import proc, psql, say, wait_until
from skaldtest.wait import PATIENCE

TABLES = """
CREATE SCHEMA app;
CREATE TABLE app.counter (k int PRIMARY KEY, version bigint NOT NULL);
CREATE TABLE app.event (id uuid NOT NULL, k int NOT NULL, version bigint NOT NULL);
INSERT INTO app.counter SELECT k, 0 FROM generate_series(1, %d) k;
CREATE FUNCTION app.change(topic text, key int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v bigint;
    m uuid;
BEGIN
    UPDATE app.counter SET version = version + 1 WHERE k = key RETURNING version INTO v;
    m := skald.outbox_add(topic => topic, key => 'k' || key, type => 'test.changed',
                          data => jsonb_build_object('k', key, 'version', v));
    INSERT INTO app.event VALUES (m, key, v);
END $$;
"""

# Three keys in rising order (no deadlocks), a savepoint that is rolled back in a third
# of the transactions, a rollback of the whole in a tenth.
SCRIPT = r"""
\set a random(1, :third)
\set b :third + random(1, :third)
\set c 2 * :third + random(1, :third)
\set dice random(1, 30)
BEGIN;
SELECT app.change(:topic, :a);
\if :{sp}
SAVEPOINT s;
SELECT app.change(:topic, :b);
ROLLBACK TO SAVEPOINT s;
\endif
SELECT app.change(:topic, :b);
SELECT app.change(:topic, :c);
\if :{rb}
ROLLBACK;
\else
COMMIT;
\endif
"""
SCRIPT = SCRIPT.replace(r"\if :{sp}", "\\set sp :dice % 3 = 0\n\\if :sp")
SCRIPT = SCRIPT.replace(r"\if :{rb}", "\\set rb :dice <= 3\n\\if :rb")


SINGLE = "\\set a random(1, 3 * :third)\nSELECT app.change(:topic, :a);\n"


class Writers:
    """pgbench with the script above: clients connections, transactions each or seconds.

    single: one event a transaction, nothing else.
    """

    def __init__(self, t, url, topic, clients=64, transactions=None, rate=None, keys=999,
                 setup=True, settings=None, single=False):
        self.t = t
        self.url = url
        self.topic = topic
        if setup:
            psql(url, TABLES % keys)
        script = os.path.join(t.dir, "writers-%s.sql" % topic[-20:])
        with open(script, "w") as f:
            f.write(SINGLE if single else SCRIPT)
        os.chmod(script, 0o644)
        argv = ["pgbench", "-n", "-c", str(clients), "-j", "2", "-f", script,
                "-D", "topic='%s'" % topic, "-D", "third=%d" % (keys // 3),
                "--random-seed=%d" % t.seed]
        argv += ["-t", str(transactions)] if transactions else ["-T", "3600"]
        argv += ["-R", str(rate)] if rate else []
        bench = os.path.join(os.path.dirname(_pg_bin()), "bin", "pgbench")
        if os.path.exists(bench):
            argv[0] = bench
        env = {}
        if settings:
            env["PGOPTIONS"] = " ".join("-c %s=%s" % s for s in settings.items())
        self.proc = t.proc(argv + [url], "writers", start=False)
        self.env = env

    def start(self):
        self.proc.start(env=self.env)
        return self

    def wait(self, timeout=240):
        code = self.proc.wait(timeout)
        assert code == 0, "pgbench ended with %s:\n%s" % (code, self.proc.tail())

    def stop(self):
        """End the load; open transactions roll back."""
        self.proc.kill()
        wait_until(lambda: not psql(self.url, "SELECT 1 FROM pg_stat_activity WHERE"
                                    " application_name = 'pgbench'"), 20,
                   "the writers' sessions to end")

    def committed(self):
        """Ids of every committed event."""
        return [row[0] for row in psql(self.url, "SELECT id FROM app.event")]

    def committed_count(self):
        return int(psql(self.url, "SELECT count(*) FROM app.event")[0][0])


def _pg_bin():
    from skaldtest.pg import pg_bin

    return pg_bin()


def add(t, url, topic, count, key="k%d", first=1, type_="test.changed", extra=None):
    """One transaction with count events in the version order of their key 'k<i % 10>'; their
    ids."""
    extra = extra or "'{}'::jsonb"
    rows = psql(url, """
        CREATE SCHEMA IF NOT EXISTS app;
        CREATE TABLE IF NOT EXISTS app.event (id uuid NOT NULL, k int NOT NULL, version bigint);
        INSERT INTO app.event
        SELECT skald.outbox_add(topic => '%s', key => 'k' || i %% 10, type => '%s',
                 data => jsonb_build_object('k', i %% 10, 'version', i) || %s), i %% 10, i
        FROM generate_series(%d, %d) i RETURNING id;""" % (
            topic, type_, extra, first, first + count - 1))
    return [row[0] for row in rows]


def committed(url):
    return [row[0] for row in psql(url, "SELECT id FROM app.event")]


def orders_placed(url, count):
    """A predicate: the example's order service has placed so many. Its numbers are drawn before
    the order is committed, so it is true one look after the last was drawn."""
    drawn = [False]

    def look():
        was_drawn = drawn[0]
        drawn[0] = int(psql(url, "SELECT last_value FROM public.order_number")[0][0]) >= count
        return was_drawn

    return look
