"""The saga tests' shop: an orchestrator, participants with databases and topics of the test's
own, and the checker that compares the sagas with what the participants' ledgers say."""

import copy
import json
import os
from collections import Counter

from skaldtest import check, psql, wait_until
from skaldtest.check import Finding
from skaldtest.proc import ROOT

TABLES_ARE_THERE = "SELECT 1 WHERE to_regclass('public.ledger') IS NOT NULL"
SERVICES = {"inventory": "reserve", "payment": "charge", "shipping": "ship"}
# the failpoints on a saga's way; test_saga_crash.py kills at each
ORCHESTRATOR = ["orchestrator_after_lock", "orchestrator_after_core",
                "orchestrator_before_commit", "orchestrator_after_commit",
                "orchestrator_before_offset", "orchestrator_after_timer_claim"]
PARTICIPANT = ["participant_after_participate", "participant_after_work",
               "participant_after_reply", "participant_before_commit",
               "participant_before_offset"]


def order_saga():
    """examples/order-saga.json"""
    with open(os.path.join(ROOT, "examples", "order-saga.json")) as f:
        return json.load(f)


class Shop:
    """shop = Shop(t); shop.all(); shop.start(10); shop.wait_ended(); shop.check()"""

    def __init__(self, t, definition=None, timeout=None, installation=None):
        self.t = t
        self.definition = copy.deepcopy(definition or order_saga())
        self.installation = installation or t.tag
        self.partitions = 4
        for step in self.definition["steps"]:
            for part in ("action", "compensation"):
                if step.get(part):
                    step[part]["topic"] = self.topic(step[part]["topic"].split(".")[0])
            if timeout:
                step["timeout"] = timeout
        self.url = t.database()
        self.urls = {}
        self.procs = {}
        self.groups = {}
        self.ids = []

    def topic(self, service):
        return self.t.topic_name(service + ".commands")

    def step(self, name):
        return next(s for s in self.definition["steps"] if s["name"] == name)

    # -- programs ----------------------------------------------------------------------------

    def settings(self, more=None):
        settings = {"daemon.installation": self.installation, "topics.partitions": "4"}
        settings.update(more or {})
        return settings

    def daemon(self, name=None, settings=None, **kwargs):
        return self.t.skaldd(self.url, name=name, roles="relay,orchestrator",
                             settings=self.settings(settings), **kwargs)

    def service(self, name, *args, failpoint=None, failpoints=None, more=None):
        """A participant in C; the same database and group when it is started again."""
        if name not in self.urls:
            self.urls[name] = self.t.database(name="%s_%d" % (name, len(self.urls)))
            self.t.kafka.create_topic(self.topic(name), self.partitions)
        settings = {"service.group": self.t.group(name), "service.topics": self.topic(name),
                    "service.session_timeout": "6s", "topics.partitions": "4"}
        settings.update(more or {})
        p = self.t.service("skald-example-" + name, self.urls[name], name, settings=settings,
                           args=args, failpoint=failpoint, failpoints=failpoints)
        self.procs[name] = p
        wait_until(lambda: psql(self.urls[name], TABLES_ARE_THERE),
                   30, "%s to have its tables" % name)
        return p

    def python(self, *args, url=None):
        """inventory.py; its database's outbox is relayed by whoever the test says."""
        self.urls.setdefault("inventory", url or self.t.database(name="inventory_py"))
        if self.topic("inventory") not in self.t.kafka.topics():
            self.t.kafka.create_topic(self.topic("inventory"), self.partitions)
        p = self.t.python("examples/inventory.py", "--database", self.urls["inventory"],
                          "--brokers", self.t.kafka.bootstrap, "--topic",
                          self.topic("inventory"), "--group", self.t.group("inventory"), *args,
                          name="inventory-py")
        self.procs["inventory"] = p
        wait_until(lambda: psql(self.urls["inventory"], TABLES_ARE_THERE), 30,
                   "inventory.py to have its tables")
        return p

    def all(self, **args):
        """All three participants; args: service -> list of arguments."""
        for name in SERVICES:
            self.service(name, *args.get(name, ()))
        return self

    def deploy(self):
        path = os.path.join(self.t.dir, "saga.json")
        with open(path, "w") as f:
            json.dump(self.definition, f)
        self.t.skald("saga", "deploy", path, url=self.url)
        return self

    # -- sagas -------------------------------------------------------------------------------

    def input(self, n, **more):
        order = {"order_id": "o-%d" % n, "sku": "lamp", "quantity": 1, "amount": 10 + n % 50}
        order.update(more)
        return order

    def start(self, count=1, **more):
        """count sagas, each in a transaction of its own; returns their ids."""
        wait_until(lambda: psql(self.url, "SELECT 1 FROM skald.installation"), 30,
                   "the orchestrator to serve the database")
        ids = []
        with self.t.connect(self.url) as conn:
            for _ in range(count):
                n = len(self.ids) + 1
                row = conn.execute(
                    "SELECT skald.saga_start(name => %s, key => %s, input => %s::jsonb)::text",
                    [self.definition["name"], "o-%d" % n, json.dumps(self.input(n, **more))])
                ids.append(row.fetchone()[0])
                self.ids.append(ids[-1])
        return ids

    def sagas(self):
        return {r[0]: r[1:] for r in psql(
            self.url, "SELECT id, status, outcome, undo, coalesce(reason ->> 'code', '')"
                      " FROM skald.sagas")}

    def statuses(self):
        return Counter(r[0] for r in self.sagas().values())

    def wait_ended(self, timeout=60, ids=None):
        ids = ids or self.ids

        def ended():
            sagas = self.sagas()
            return len([i for i in ids if i in sagas and sagas[i][0] == "finished"]) >= len(ids)

        try:
            wait_until(ended, timeout, "%d sagas to end" % len(ids), every=0.1)
        except AssertionError:
            self.t.log("sagas: %s" % self.statuses())
            for i in [i for i, r in self.sagas().items() if r[0] != "finished"][:3]:
                self.t.log("\n".join("%s %s" % (i[-6:], r) for r in self.events(i)))
            raise
        return self.sagas()

    def wait_status(self, saga, status, timeout=30):
        wait_until(lambda: self.sagas()[saga][0] == status, timeout, "a saga to be " + status)

    def events(self, saga, kinds=None):
        """(seq, kind, step, op, attempt, outcome, detail) in order."""
        rows = psql(self.url, "SELECT seq, kind, step, op, attempt, outcome, detail"
                              " FROM skald.saga_events WHERE saga_id = '%s' ORDER BY seq" % saga)
        return [r for r in rows if kinds is None or r[1] in kinds]

    def ledger(self):
        """(saga, step, op) of every effect of all participants."""
        found = []
        for url in self.urls.values():
            found += [tuple(r) for r in psql(
                url, "SELECT saga_id, step, op FROM public.ledger WHERE saga_id IS NOT NULL"
                     " ORDER BY id")]
        return found

    def dead(self):
        return [r for url in [self.url] + list(self.urls.values()) for r in psql(
            url, "SELECT consumer_group, class, code, message FROM skald.dead_letters"
                 # the start of another test's saga: that topic is everybody's
                 " WHERE NOT (topic = 'skald.saga.commands' AND code = 'SK004')")]

    # -- the verdict -------------------------------------------------------------------------

    def findings(self, outcomes=None):
        """lost     a saga that does not end, or a completed one's step without its effect
        doubled     an effect that happened twice
        orphaned    an effect of a saga that is not completed, not undone
        phantom     an effect of no saga, or an undo without the effect
        changed     history with a gap, or another outcome than told"""
        found = []
        sagas = self.sagas()
        count = Counter(self.ledger())
        names = [s["name"] for s in self.definition["steps"]]
        for i in sorted(set(self.ids) - set(sagas)):
            found.append(Finding("lost", i, "started, but not there"))
        for (saga, step, op), n in sorted(count.items()):
            if saga not in sagas:
                found.append(Finding("phantom", saga, "%s of no saga" % step))
            if n > 1:
                found.append(Finding("doubled", saga, "%s of %s, %d times" % (op, step, n)))
        for i, (status, outcome, undo, code) in sorted(sagas.items()):
            if status != "finished":
                found.append(Finding("lost", i, "does not end: " + status))
                continue
            for step in names:
                done = count[i, step, "action"]
                undone = count[i, step, "compensation"]
                if outcome == "completed" and (done, undone) == (0, 0):
                    found.append(Finding("lost", i, "completed without " + step))
                elif done - undone > (outcome == "completed"):
                    found.append(Finding("orphaned", i, "%s: done %d, undone %d" % (
                        step, done, undone)))
                elif done < undone or (outcome == "completed" and undone):
                    found.append(Finding("phantom", i, "%s undone, %d done" % (step, done)))
            if outcomes and outcomes.get(i, outcome) != outcome:
                found.append(Finding("changed", i, "%s (%s) instead of %s" % (
                    outcome, code, outcomes[i])))
        gaps = psql(self.url, "SELECT saga_id, count(*), max(seq) FROM skald.saga_events"
                              " GROUP BY 1 HAVING count(*) <> max(seq) OR min(seq) <> 1")
        found += [Finding("changed", r[0], "history: %s entries, newest %s" % tuple(r[1:]))
                  for r in gaps]
        return found

    def check(self, outcomes=None, dead=0):
        check.require_none(self.findings(outcomes), "sagas")
        letters = self.dead()
        assert len(letters) == dead, letters
        self.t.checked(records=len(self.ids), effects=len(self.ledger()))
