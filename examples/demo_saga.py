"""demo_saga.py - the demo's second half: orders that take several services, or none at all.

Each order starts a saga in its own transaction: reserve, charge, ship. Some orders
are too dear for the payment service, so their reservation is undone. Payment, then
skaldd, are killed in the middle. At the end the services' own tables are compared.
"""

import collections
import os

COUNT = 222  # with those that roll back
RATE = 24
ROLLBACK = 0.1
LIMIT = 90  # what payment charges at most
STEPS = (("reserve", "inventory"), ("charge", "payment"), ("ship", "shipping"))
EFFECTS = {  # what is left of an order in a service's own tables
    "inventory": "SELECT order_id FROM reservation",
    "payment": "SELECT order_id FROM charge WHERE NOT is_refunded",
    "shipping": "SELECT order_id FROM shipment WHERE order_id LIKE 's-%'",
}


class SagaHalf:
    def __init__(self, demo):
        self.demo = demo
        self.screen = demo.screen
        self.urls = {"shipping": demo.shipping_url}
        self.dbs = {"shipping": demo.shipping}
        self.procs = {}

    def prepare(self):
        """Databases and services; they join their groups while the first half plays."""
        demo = self.demo
        for name in ("inventory", "payment"):
            self.urls[name] = demo.pg.create_database(name)
            demo.skald("db", "migrate", "--database", self.urls[name])
            self.dbs[name] = demo.session(self.urls[name])
            args = ("--limit", LIMIT) if name == "payment" else ()
            self.procs[name] = demo.add(demo.service(
                "skald-example-" + name, self.urls[name], *args))

    # -- watching ----------------------------------------------------------------------------

    def counts(self):
        names = ("placed", "running", "completed", "compensated", "stuck")
        return dict(zip(names, (int(x) for x in self.demo.orders.one(
            "SELECT (SELECT count(*) FROM orders WHERE order_id LIKE 's-%'),"
            " count(*) FILTER (WHERE status IN ('running', 'compensating')),"
            " count(*) FILTER (WHERE status = 'finished' AND outcome = 'completed'),"
            " count(*) FILTER (WHERE status = 'finished' AND outcome <> 'completed'),"
            " count(*) FILTER (WHERE status = 'stuck') FROM skald.sagas"))))

    def watch(self, until, what, **kwargs):
        return self.demo.watch(
            until, what, counts=self.counts,
            text="placed %(placed)3d  running %(running)3d  completed %(completed)3d"
                 "  compensated %(compensated)2d", **kwargs)

    # -- scenes ------------------------------------------------------------------------------

    def play(self):
        demo, screen = self.demo, self.screen
        screen.line()
        screen.line("Now orders that need three services: all of them, or none", "1")
        screen.line()
        screen.line("  $ skald saga deploy examples/order-saga.json", "1")
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "order-saga.json")
        done = demo.skald("saga", "deploy", path, "--database", demo.orders_url)
        for text in done.stdout.splitlines():
            screen.line("  " + text[:77])
        screen.line()
        self.procs["order"] = demo.add(demo.service(
            "skald-example-order", demo.orders_url, "--rate", RATE, "--count", COUNT,
            "--rollback", ROLLBACK, "--prefix", "s-", name="order-sagas"))
        screen.event("each order starts its saga in its own transaction; some roll back")
        self.watch(lambda c: c["completed"] > 10 and c["compensated"] > 0, "the first orders")
        screen.event("first orders completed; one was declined and is undone", "32")
        self.kill("payment", self.procs["payment"], 40)
        self.kill("skaldd, which drives the sagas", demo.relay, 90)
        demo.relay.wait_ready(20)
        self.watch(self.is_done, "every saga to end", timeout=60)
        screen.event("every saga has ended", "32")
        if demo.broken == "charge":
            self.dbs["payment"].rows(
                "INSERT INTO charge (saga_id, step, order_id, amount) SELECT saga_id, step,"
                " order_id, amount FROM charge WHERE NOT is_refunded LIMIT 1")
            screen.event("on request, a charge was falsified", "31")
        return self.reconcile()

    def is_done(self, c):
        number = int(self.demo.orders.one("SELECT last_value FROM order_number")[0])
        return (number >= self.demo.orders_before + COUNT
                and c["completed"] + c["compensated"] + c["stuck"] >= c["placed"])

    def kill(self, what, proc, placed):
        self.watch(lambda c: c["placed"] >= placed and c["running"] > 0, "more orders")
        proc.kill()
        self.screen.event("SIGKILL: " + what, "31")
        before = self.counts()["placed"]
        self.watch(lambda c: c["placed"] > before, "a moment", least=1.0)
        proc.start()
        self.screen.event("started again; orders were taken all the time", "32")

    # -- the end -----------------------------------------------------------------------------

    def reconcile(self):
        """A completed order has one of each, every other has nothing left."""
        wrong = []
        orders = self.demo.orders
        placed = {r[0] for r in orders.rows("SELECT order_id FROM orders"
                                            " WHERE order_id LIKE 's-%'")}
        ended = {r[0]: r[1:] for r in orders.rows(
            "SELECT key, status, coalesce(outcome, ''), id FROM skald.sagas")}
        for i in sorted(placed - set(ended)):
            wrong.append("LOST: order %s has no saga" % i)
        for i in sorted(set(ended) - placed):
            wrong.append("PHANTOM: saga of order %s, which was never placed" % i)
        for i, (status, _outcome, _id) in sorted(ended.items()):
            if status != "finished":
                wrong.append("LOST: the saga of order %s is %s" % (i, status))
        completed = {i for i, r in ended.items() if r[1] == "completed"}
        left = {}
        for step, name in STEPS:
            rows = collections.Counter(r[0] for r in self.dbs[name].rows(EFFECTS[name]))
            left[step] = rows
            for i in sorted(set(rows) | completed):
                if rows[i] > 1:
                    wrong.append("DOUBLED: order %s, %s: %d effects" % (i, step, rows[i]))
                elif i in completed and not rows[i]:
                    wrong.append("LOST: order %s is completed without %s" % (i, step))
                elif i not in completed and rows[i]:
                    wrong.append("ORPHANED: order %s is undone, but %s is left" % (i, step))
            twice = self.dbs[name].rows("SELECT order_id, op FROM ledger WHERE saga_id IS NOT"
                                        " NULL GROUP BY 1, 2, saga_id, step HAVING count(*) > 1")
            wrong += ["DOUBLED: order %s, %s of %s" % (r[0], r[1], step) for r in twice]
        self.trace(sorted(set(ended) - completed))
        self.table(placed, ended, completed, left)
        if len(completed) < 100 or len(ended) == len(completed):
            wrong.append("%d completed of %d: that proves little" % (
                len(completed), len(ended)))
        return wrong

    def trace(self, undone):
        """The whole way of one order that was undone, over all databases."""
        if not undone:
            return
        screen = self.screen
        screen.line()
        screen.line("  $ skald trace %s" % undone[0], "1")
        sources = [x for name, url in sorted(self.urls.items())
                   for x in ("--set", "source.%s.url=%s" % (name, url))]
        done = self.demo.skald("trace", undone[0], "--database", self.demo.orders_url,
                               "--no-color", *sources)
        for text in done.stdout.splitlines():
            screen.line(text[:80].rstrip())
        screen.line()

    def table(self, placed, ended, completed, left):
        screen = self.screen
        undone = self.dbs["inventory"].one(
            "SELECT count(*) FROM ledger WHERE op = 'compensation'")[0]
        screen.line("  reconciliation, order by order, from the tables of all four services",
                    "1")
        rows = [("orders placed, each with its saga", len(placed), ""),
                ("  completed", len(completed), ""),
                ("  declined by payment, so undone", len(ended) - len(completed),
                 "%s reservations released" % undone)]
        rows += [("%s: left by %s" % (name, step), sum(left[step].values()), "")
                 for step, name in STEPS]
        for text, number, note in rows:
            screen.line(("    %-42s %5d   %s" % (
                text, number, screen.paint(note, "2") if note else "")).rstrip())
        screen.line()
        screen.line("  next: examples/inventory.c, a participant; examples/order-saga.json;",
                    "2")
        screen.line("  docs/sagas.md, docs/protocol.md; skald --help, skald doctor", "2")
        screen.line()
