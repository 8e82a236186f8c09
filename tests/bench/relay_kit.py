"""What the parts of the relay's bench share: a relay in a mode, its databases, its load."""

import contextlib
import http.client
import subprocess
import time

from kit import BenchError, Meter, clean_env, end, spawn
from skaldtest import free_port

PARTITIONS = 8
KEYS = 10000
BYTES = 300
RSS_MB = 64

MODES = {"poll": "relay", "wal": "relay_wal"}  # each has a database of its own

# `backlog` feeds kcat: the same keys and bytes as plain text, read as fast as COPY can
SCHEMA = f"""
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount int NOT NULL);
CREATE TABLE backlog (n int, key text NOT NULL, data text NOT NULL);
INSERT INTO backlog
SELECT n, 'key-' || lpad(((n::bigint * 7919) %% {KEYS})::text, 6, '0'),
       rpad('{{"n":' || n || ',"pad":"', {BYTES} - 2, 'x') || '"}}'
  FROM generate_series(1, %(rows)s) n;
ALTER TABLE backlog ADD PRIMARY KEY (n);
VACUUM ANALYZE backlog;
"""

ADD = """PERFORM skald.outbox_add_bytes(topic => '%(topic)s', key => convert_to(key, 'UTF8'),
            type => 'bench.order.placed', data => convert_to(data, 'UTF8'),
            content_type => 'application/json')"""

# as services write them: so and so many events a transaction
LOAD = """
SET synchronous_commit = off;
DO $$
BEGIN
    FOR i IN 0..%(rows)s / %(events)s - 1 LOOP
        """ + ADD + """
           FROM backlog WHERE n BETWEEN i * %(events)s + 1 AND (i + 1) * %(events)s;
        COMMIT;
    END LOOP;
END $$;
CHECKPOINT;
"""

LOAD_ONE_TRANSACTION = "DO $$ BEGIN " + ADD + """
    FROM (SELECT b.key, b.data FROM backlog b, generate_series(0, (%(rows)s - 1) /
             (SELECT count(*) FROM backlog)) LIMIT %(rows)s) AS b; END $$;
CHECKPOINT;
"""


class Relay:
    """skaldd --roles relay on a mode's database; ended on leaving the context. It is given a
    URL, as if the database were on another machine, or a socket of this one. A unix socket
    takes no more than some 200 messages of a stream: the server and the relay take turns."""

    count = 0

    def __init__(self, bench, mode, by_socket=False):
        self.bench, self.mode = bench, mode
        self.url = bench.url(MODES[mode]) if by_socket else bench.pg.url(MODES[mode])
        Relay.count += 1
        self.log = bench.dir / f"skaldd-{Relay.count}.log"
        self.port = free_port()
        self.proc = self.http = None

    def __enter__(self):
        with open(self.log, "w", encoding="utf-8") as log:
            self.proc = spawn([self.bench.program("skaldd"), "--roles", "relay",
                               "--set", f"database.url={self.url}",
                               "--set", f"kafka.bootstrap.servers={self.bench.kafka.bootstrap}",
                               "--set", f"http.listen=127.0.0.1:{self.port}",
                               "--set", "log.format=text",
                               *(["--set", "relay.mode=wal"] if self.mode == "wal" else [])],
                              stdout=log, stderr=log)
        return self

    def __exit__(self, *_):
        end(self.proc)

    def metric(self, name):
        """The value, None while it does not answer yet."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            if not self.http:
                self.http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            self.http.request("GET", "/metrics")
            for line in self.http.getresponse().read().decode().splitlines():
                if line.startswith(name):
                    return float(line.rsplit(" ", 1)[1])
            return 0.0
        self.http = None
        return None

    def wait(self, what, is_so, timeout_s=300, step_s=0.02):
        until = time.monotonic() + timeout_s
        while not is_so():
            if self.proc.poll() is not None or time.monotonic() > until:
                raise BenchError(f"{what}: {self.log.read_text()[-800:]}")
            time.sleep(step_s)

    def wait_published(self, count):
        """Until so many rows are acknowledged since this process began."""
        name = "skald_relay_published_total"
        self.wait(f"{count} rows were not published",
                  lambda: (self.metric(name) or 0) >= count)


def supports(bench, mode):
    done = subprocess.run([str(bench.program("skaldd")), "--print-config", "--set",
                           f"relay.mode={mode}"], env=clean_env(), capture_output=True,
                          check=False)
    return mode == "poll" or done.returncode == 0


def prepare(bench):
    """Databases for every mode that this build knows; the modes."""
    modes = [mode for mode in MODES if supports(bench, mode)]
    if "wal" in modes:
        bench.pg_setting("wal_level", "logical")
    for mode in modes:
        bench.database(MODES[mode])
        bench.pg.sql(SCHEMA % {"rows": bench.rows}, MODES[mode])
    return modes


def settle(bench, mode, conn):
    """The relay does what is wanted and has nothing left; in mode wal its slot is there
    before anything is written."""
    topic = bench.settled_topic = getattr(bench, "settled_topic", None) or bench.topic("settle", 1)
    with Relay(bench, mode) as relay:
        relay.wait(f"the relay did not come to mode {mode}", lambda: conn.execute(
            "SELECT mode FROM skald.relay").fetchone()[0] == mode, step_s=0.1)
        conn.execute("SELECT skald.outbox_add(%s, 'k', 'bench.settled', '{}')", [topic])
        relay.wait_published(1)


def empty(bench, mode):
    bench.pg.sql("TRUNCATE skald.outbox", MODES[mode])


def load(bench, mode, topic, events, rows=None):
    """events: a transaction; None: one transaction of all"""
    text = LOAD_ONE_TRANSACTION if events is None else LOAD
    bench.pg.sql(text % {"rows": rows or bench.rows, "topic": topic, "events": events},
                 MODES[mode])


def counted(bench, topic, rows=None):
    got = bench.kafka.count(topic)
    if got != (rows or bench.rows):
        raise BenchError(f"{topic} holds {got} records, not {rows or bench.rows}")


def drain(bench, mode, usage, rows=None, topic=None, by_socket=False):
    """What waits goes out: seconds from the start of the process to the last ack."""
    with Meter(**bench.pids()) as meter:
        begin = time.monotonic()
        with Relay(bench, mode, by_socket) as relay:
            meter.child("skaldd", relay.proc)
            relay.wait_published(rows or bench.rows)
            took = time.monotonic() - begin
            meter.stop()
    if topic:
        counted(bench, topic, rows)
    usage.add(meter, rows or bench.rows)
    return took
