#!/usr/bin/env python3
"""demo.py - what ./dev demo shows: the way of one message, then of one saga.

Private PostgreSQL, the embedded dev broker, skaldd, an order and a shipping
service, each a process of its own. Orders are placed, some roll back; three bad
messages arrive; relay and consumer are killed with SIGKILL; a dead letter is
explained, its cause repaired, and replayed. At the end the tables of both
services and the topic are compared, message by message. demo_saga.py goes on from
there with orders that need three services.

Standard library only. Exit status: 0 when every order was applied exactly once, and
every saga ended with all of its effects or none.
"""

import argparse
import collections
import os
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "support"))
sys.path.insert(0, os.path.join(ROOT, "examples"))
sys.dont_write_bytecode = True

from demo_saga import SagaHalf  # noqa: E402
from skaldtest.pg import Cluster, PgError, free_port, private_dir  # noqa: E402
from skaldtest.proc import Proc, bin_path, clean_env, make_skaldd, set_args  # noqa: E402
from skaldtest.wait import TimedOut, wait_until  # noqa: E402

RATE = 70
COUNT = 1350
ROLLBACK = 0.1
PATIENCE = float(os.environ.get("SKALD_PATIENCE", "1"))


class Failed(Exception):
    pass


class Screen:
    """Lines with the time since the start; one status line below them on a terminal."""

    def __init__(self):
        self.began = time.monotonic()
        self.is_tty = sys.stdout.isatty()
        self.is_colour = self.is_tty and not os.environ.get("NO_COLOR")
        self.columns = 80
        self.drawn = False
        self.last_plain = 0.0

    def seconds(self):
        return time.monotonic() - self.began

    def paint(self, text, code):
        return "\033[%sm%s\033[0m" % (code, text) if self.is_colour else text

    def wipe(self):
        if self.drawn:
            sys.stdout.write("\r\033[K")
            self.drawn = False

    def line(self, text="", code=None):
        self.wipe()
        sys.stdout.write((self.paint(text, code) if code else text) + "\n")
        sys.stdout.flush()

    def event(self, text, code=None):
        """Something happened."""
        stamp = self.paint("%5.1f s" % self.seconds(), "2")
        self.line("%s  %s" % (stamp, self.paint(text, code) if code else text))

    def status(self, text):
        """How things stand: rewritten in place, or a line every three seconds."""
        if self.is_tty:
            self.columns = shutil.get_terminal_size().columns
            stamped = "%5.1f s  %s" % (self.seconds(), text)
            sys.stdout.write("\r\033[K" + self.paint(stamped[:self.columns - 1], "36"))
            sys.stdout.flush()
            self.drawn = True
        elif self.seconds() - self.last_plain >= 3:
            self.last_plain = self.seconds()
            self.line("%5.1f s    %s" % (self.seconds(), text))


class Session:
    """One psql that stays: a query costs a round trip, not a process."""

    END = "-- end of answer --"

    def __init__(self, url):
        self.popen = subprocess.Popen(
            ["psql", "-X", "-q", "-A", "-t", "-d", url], text=True, env=clean_env(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def rows(self, sql):
        self.popen.stdin.write("%s;\n\\echo '%s'\n" % (sql, self.END))
        self.popen.stdin.flush()
        rows = []
        for line in self.popen.stdout:
            line = line.rstrip("\n")
            if line == self.END:
                return rows
            rows.append(line.split("|"))
        raise Failed("psql ended")

    def one(self, sql):
        return self.rows(sql)[0]

    def close(self):
        self.popen.stdin.close()
        self.popen.wait(5)


class Demo:
    def __init__(self, broken):
        self.broken = broken
        self.screen = Screen()
        self.dir = private_dir("skald-demo-")
        self.pg = None
        self.procs = []
        self.sessions = []

    # -- the cast ----------------------------------------------------------------------------

    def add(self, proc):
        self.procs.append(proc)
        return proc.start()

    def start(self):
        screen = self.screen
        self.pg = Cluster(os.path.join(self.dir, "pg")).create()
        self.orders_url = self.pg.create_database("orders")
        self.shipping_url = self.pg.create_database("shipping")
        version = self.pg.sql("SHOW server_version")[0][0].split()[0]
        screen.event("PostgreSQL %s, private; databases orders and shipping" % version)
        for url in (self.orders_url, self.shipping_url):
            self.skald("db", "migrate", "--database", url)
        self.orders = self.session(self.orders_url)
        self.shipping = self.session(self.shipping_url)

        port = free_port()
        self.brokers = "127.0.0.1:%d" % port
        self.broker = self.add(make_skaldd(
            "dev-broker", None, None, self.dir, roles="dev-broker",
            settings={"dev_broker.listen": self.brokers, "dev_broker.partitions": "4"}))
        self.broker.wait_ready(20)
        screen.event("dev broker at %s (in memory, for trying things out)" % self.brokers)

        self.relay = self.add(make_skaldd("skaldd", self.orders_url, self.brokers, self.dir,
                                          roles="relay,orchestrator", settings={"topics.partitions": "4"}))
        self.relay.wait_ready(20)
        screen.event("skaldd relays the outbox of orders")

        self.sagas = SagaHalf(self)
        self.sagas.prepare()
        self.shipper = self.add(self.service("skald-example-shipping", self.shipping_url))
        self.seller = self.add(self.service(
            "skald-example-order", self.orders_url, "--rate", RATE, "--count", COUNT,
            "--rollback", ROLLBACK, "--saga", ""))
        wait_until(lambda: self.orders.one("SELECT to_regclass('orders')")[0]
                   and self.shipping.one("SELECT to_regclass('ledger')")[0],
                   20, "the tables of the services")
        screen.event("order and shipping service started; %d orders a second, %d %% roll back"
                     % (RATE, ROLLBACK * 100))

    def session(self, url):
        self.sessions.append(Session(url))
        return self.sessions[-1]

    def service(self, program, url, *args, name=None):
        settings = {"database.url": url, "kafka.bootstrap.servers": self.brokers,
                    "log.format": "text", "topics.partitions": "4",
                    "service.session_timeout": "4s"}
        argv = [bin_path(program)] + set_args(settings) + [str(a) for a in args]
        return Proc(argv, name or program, self.dir)

    def skald(self, *args, check=True):
        done = subprocess.run([bin_path("skald")] + list(args), env=clean_env(), text=True,
                              capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise Failed("skald %s: status %d\n%s%s" % (
                " ".join(args), done.returncode, done.stdout, done.stderr))
        return done

    # -- watching ----------------------------------------------------------------------------

    def counts(self):
        placed, rolled_back, written, lag = (int(x) for x in self.orders.one(
            "SELECT (SELECT count(*) FROM orders),"
            " (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM order_number)"
            "   - (SELECT count(*) FROM orders),"
            " (SELECT count(*) FROM skald.outbox WHERE topic = 'shop.orders'),"
            " (SELECT lag_rows FROM skald.relays)"))
        applied, dead = (int(x) for x in self.shipping.one(
            "SELECT (SELECT count(*) FROM ledger),"
            " (SELECT count(*) FROM skald.dead_letters WHERE state = 'dead')"))
        return {"placed": placed, "rolled_back": max(rolled_back, 0),
                "published": max(written - lag, 0), "applied": applied, "dead": dead}

    PROGRESS = ("placed %(placed)4d  rolled back %(rolled_back)3d  published %(published)4d"
                "  applied %(applied)4d  dead %(dead)d")

    def watch(self, until, what, timeout=30, least=0.0, counts=None, text=None):
        """Show the counts until they satisfy; least: go on for so many seconds anyhow."""
        began = time.monotonic()
        while True:
            c = (counts or self.counts)()
            self.screen.status((text or self.PROGRESS) % c)
            spent = time.monotonic() - began
            if spent >= least and until(c):
                return c
            if spent > timeout * PATIENCE:
                raise Failed("waited %.0f s for %s; %s\n%s" % (spent, what, c, self.tails()))
            time.sleep(0.1)

    def tails(self):
        return "".join(p.tail(6) for p in self.procs)

    # -- scenes ------------------------------------------------------------------------------

    def bad_messages(self):
        ce = ["ce_specversion=1.0", "ce_source=/kcat", "ce_type=shop.order.placed"]
        self.kcat(b"\xde\xad\xbe\xef\x00 not an order", "bad-1",
                  ce + ["ce_id=00000000-0000-7000-8000-00000000bad1"])
        self.screen.event("bad message 1: garbage bytes", "33")
        self.kcat(b'{"order_id":"bad-2","sku":"lamp","quantity":1,"amount":10.00}', "bad-2", [])
        self.screen.event("bad message 2: no headers, so nobody knows what it is", "33")
        self.kcat(b'{"order_id":"carpet-1","sku":"flying-carpet","quantity":1,"amount":99.00}',
                  "carpet-1", ce + ["ce_id=00000000-0000-7000-8000-00000000ca12",
                                    "ce_correlationid=carpet-1"])
        self.screen.event("bad message 3: an article the catalogue does not know", "33")

    def kcat(self, value, key, headers):
        argv = ["kcat", "-P", "-b", self.brokers, "-t", "shop.orders", "-k", key]
        for header in headers:
            argv += ["-H", header]
        path = os.path.join(self.dir, "value")
        with open(path, "wb") as f:
            f.write(value)
        done = subprocess.run(argv + [path], capture_output=True, timeout=20)
        if done.returncode:
            raise Failed("kcat: " + done.stderr.decode(errors="replace"))

    def kill_relay(self):
        owner = self.orders.one("SELECT owner FROM skald.relays")[0]
        at = self.counts()["published"]
        self.relay.kill()
        self.screen.event("SIGKILL: skaldd, the leading relay", "31")
        began = time.monotonic()
        self.watch(lambda c: c["published"] > at + 5 and self.orders.one(
            "SELECT owner FROM skald.relays")[0] != owner, "another relay to take over")
        self.screen.event("the order service's own relay took over in %.1f s"
                          % (time.monotonic() - began), "32")
        self.relay.start()
        self.relay.wait_ready(20)
        self.screen.event("skaldd is back, as the one in reserve", "32")

    def kill_consumer(self):
        at = self.counts()["applied"]
        self.shipper.kill()
        self.screen.event("SIGKILL: the shipping service, in the middle of its work", "31")
        self.watch(lambda c: True, "a moment", least=0.8)
        self.shipper.start()
        self.screen.event("shipping started again; Kafka first has to miss the dead one")
        self.watch(lambda c: c["applied"] > at, "shipping to go on")
        self.screen.event("shipping goes on where its watermark says", "32")

    def repair(self):
        screen = self.screen
        letter = self.shipping.one("SELECT id FROM skald.dead_letters"
                                   " WHERE convert_from(key, 'UTF8') = 'carpet-1'")[0]
        screen.event("three dead letters wait; one of them:")
        screen.line()
        screen.line("  $ skald dlq show %s" % letter, "1")
        shown = self.skald("dlq", "show", letter, "--database", self.shipping_url,
                           "--no-color").stdout
        for text in shown.splitlines():
            text = text if len(text) <= 77 else text[:74] + "..."
            screen.line(("  " + text).rstrip())
        screen.line()
        screen.line("  $ psql shipping -c \"INSERT INTO catalogue VALUES ('flying-carpet')\"",
                    "1")
        self.shipping.rows("INSERT INTO catalogue VALUES ('flying-carpet')")
        screen.line("  $ skald dlq replay %s --wait" % letter, "1")
        done = self.skald("dlq", "replay", letter, "--wait", "--database", self.shipping_url,
                          "--reason", "article added to the catalogue", "--yes", check=False)
        for text in (done.stdout + done.stderr).splitlines():
            screen.line("  " + text[:77])
        screen.line()
        if done.returncode:
            raise Failed("skald dlq replay: status %d" % done.returncode)

    # -- the end -----------------------------------------------------------------------------

    def falsify(self):
        """Break a check on purpose: the verdict must notice."""
        if self.broken == "lose":
            self.shipping.rows("DELETE FROM ledger WHERE id = (SELECT max(id) - 10 FROM ledger)")
        elif self.broken == "double":
            self.shipping.rows(
                "INSERT INTO ledger (step, op, order_id, amount, message_id, correlation_id)"
                " SELECT step, op, order_id, amount, message_id, correlation_id FROM ledger"
                " WHERE id = (SELECT max(id) - 10 FROM ledger)")
        if self.broken:
            self.screen.event("on request, a row of shipping's ledger was falsified: %s"
                              % self.broken, "31")

    def topic_records(self):
        """Everything in shop.orders that is a placed order: (ce_id, stream, position, order)."""
        done = subprocess.run(
            ["kcat", "-C", "-b", self.brokers, "-t", "shop.orders", "-o", "beginning", "-e",
             "-q", "-f", "%k\t%h\n"], capture_output=True, timeout=60)
        if done.returncode:
            raise Failed("kcat: " + done.stderr.decode(errors="replace"))
        records = []
        for line in done.stdout.decode(errors="replace").splitlines():
            key, _, text = line.partition("\t")
            headers = dict(h.split("=", 1) for h in text.split(",") if "=" in h)
            if "ce_stream" in headers:
                records.append((headers["ce_id"], headers["ce_stream"],
                                headers["ce_sequence"], key))
        return records

    def reconcile(self):
        """Compare by message, not by count. Returns what is wrong, as sentences."""
        wrong = []
        placed = dict(self.orders.rows("SELECT message_id, order_id FROM ledger"))
        kept = [r[0] for r in self.orders.rows("SELECT order_id FROM orders")]
        if sorted(kept) != sorted(placed.values()):
            wrong.append("orders and the order service's ledger differ")
        records = self.topic_records()
        published = collections.Counter(r[0] for r in records)
        repeats = sum(published.values()) - len(published)
        for i in sorted(set(placed) - set(published)):
            wrong.append("LOST: order %s was placed, never published" % placed[i])
        for i in sorted(set(published) - set(placed)):
            wrong.append("PHANTOM: message %s was published, never committed" % i)
        if len(set(records)) != len(published):
            wrong.append("CHANGED: a repetition differs from the first")
        applied = collections.Counter(
            r[0] for r in self.shipping.rows("SELECT message_id FROM ledger"))
        carpet = "00000000-0000-7000-8000-00000000ca12"
        expected = dict(placed)
        expected[carpet] = "carpet-1"
        for i in sorted(set(expected) - set(applied)):
            wrong.append("LOST: order %s has no effect in shipping" % expected[i])
        for i in sorted(set(applied) - set(expected)):
            wrong.append("PHANTOM: shipping applied %s, which nobody placed" % i)
        for i, n in sorted(applied.items()):
            if n > 1:
                wrong.append("DOUBLED: order %s has %d effects" % (expected.get(i, i), n))
        odd = self.shipping.one("SELECT count(*) FROM ledger WHERE correlation_id <> order_id")
        if odd != ["0"]:
            wrong.append("%s effects lost their correlation id" % odd[0])
        dead = self.shipping.rows("SELECT state, count(*) FROM skald.dead_letters"
                                  " GROUP BY state ORDER BY state")
        if dead != [["dead", "2"], ["resolved", "1"]]:
            wrong.append("dead letters: %s instead of two dead and one resolved" % dead)
        self.table(placed, published, repeats, applied, dead)
        if len(placed) < COUNT * (1 - ROLLBACK) * 0.8:
            wrong.append("only %d orders were placed: that proves little" % len(placed))
        return wrong

    def table(self, placed, published, repeats, applied, dead):
        screen = self.screen
        c = self.counts()
        rows = [
            ("placed by the order service, committed", len(placed), ""),
            ("  rolled back, so never published", c["rolled_back"], ""),
            ("published to shop.orders", len(published),
             "+ %d identical repetitions" % repeats if repeats else "no repetition"),
            ("applied by the shipping service", sum(applied.values()), "%d of them by replay"
             % sum(int(n) for s, n in dead if s == "resolved")),
            ("dead letters that wait for a person",
             sum(int(n) for s, n in dead if s == "dead"), "garbage; no headers"),
        ]
        screen.line("  reconciliation, message by message, from the tables of both services",
                    "1")
        for text, number, note in rows:
            screen.line(("    %-42s %5d   %s" % (
                text, number, screen.paint(note, "2") if note else "")).rstrip())
        screen.line()

    def play(self):
        screen = self.screen
        screen.line("Skald: from a business transaction through Kafka to one effect, once", "1")
        screen.line()
        self.start()
        self.watch(lambda c: c["applied"] > 0, "the first effect")
        screen.event("the first orders are applied", "32")
        self.watch(lambda c: True, "a moment", least=0.7)
        self.bad_messages()
        self.watch(lambda c: c["dead"] == 3, "three dead letters")
        screen.event("all three are dead letters; everything else flows", "32")
        self.kill_relay()
        self.kill_consumer()
        self.watch(lambda c: c["placed"] + c["rolled_back"] >= COUNT
                   and c["published"] == c["placed"] and c["applied"] >= c["placed"],
                   "everything to be applied", timeout=60)
        screen.event("every order is placed, published and applied", "32")
        self.repair()
        self.falsify()
        wrong = self.reconcile()
        self.orders_before = int(self.orders.one("SELECT last_value FROM order_number")[0])
        wrong = wrong or self.sagas.play()
        for text in wrong[:5]:
            screen.line("  " + text, "31")
        if len(wrong) > 5:
            screen.line("  ... and %d more" % (len(wrong) - 5), "31")
        return wrong

    def end(self):
        """Nothing is left running, whatever happened."""
        self.screen.wipe()
        for session in self.sessions:
            try:
                session.close()
            except (OSError, ValueError, subprocess.SubprocessError):
                session.popen.kill()
        # programs first, the broker last: they drain into it
        for group in (self.procs[1:], self.procs[:1]):
            for proc in group:
                proc.signal(signal.SIGTERM)
            for proc in group:
                try:
                    proc.wait(8)
                except TimedOut:
                    proc.kill()
        if self.pg:
            self.pg.destroy()
        shutil.rmtree(self.dir, ignore_errors=True)


def stop(number, _frame):
    raise SystemExit(128 + number)


def main():
    parser = argparse.ArgumentParser(prog="./dev demo")
    parser.add_argument("--break", dest="broken", choices=("lose", "double", "charge"),
                        default=os.environ.get("SKALD_DEMO_BREAK") or None,
                        help="falsify a ledger, to see the verdict notice")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    demo = Demo(args.broken)
    screen = demo.screen
    status = 1
    verdict = "FAILED: stopped before the end"
    try:
        wrong = demo.play()
        if wrong:
            verdict = "FAILED: the reconciliation found %d fault%s" % (
                len(wrong), "s" if len(wrong) > 1 else "")
        else:
            status = 0
            verdict = "ok: nothing lost, nothing doubled; all of an order or none"
    except (Failed, PgError, TimedOut, AssertionError) as error:
        screen.line(str(error))
        verdict = "FAILED: the demo could not go on"
    except KeyboardInterrupt:
        status = 130
    finally:
        demo.end()
        screen.line("%s (%.0f s)" % (verdict, screen.seconds()), "1;32" if status == 0 else "1;31")
    return status


if __name__ == "__main__":
    sys.exit(main())
