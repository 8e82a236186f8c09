#!/usr/bin/env python3
"""Sagas as people and scripts meet them: definitions, starts, lists, one saga, its trace."""

import json
import tempfile

import kit
from kit import skald

STEPS = [
    {"name": "reserve", "kind": "compensatable",
     "action": {"topic": "inventory.commands", "type": "inventory.reserve",
                "data": {"sku": "$.input.sku"}},
     "compensation": None},
    {"name": "charge", "kind": "pivot",
     "action": {"topic": "payment.commands", "type": "payment.charge", "data": {}}},
    {"name": "ship", "kind": "retriable",
     "action": {"topic": "shipping.commands", "type": "shipping.ship", "data": {}}},
]
# the vector as the orchestrator writes it: items; head; a group for each step that began
STUCK = ("succeeded:1:0:1:1:1795238000000000:1795238001000000:,"
         "stuck:5:0:1:1:1795238001000000::declined,;1 2 0 0 0 1 1 3 9 0"
         ";0 4 0 0 0 0 0 0 1 1 0 0 0 1 0 0;1 6 0 0 1 0 0 0 5 1 0 0 0 1 0 0|")
BACKOFF = (",,;1 0 0 0 0 0 -1 3 2 0;0 1 2 0 0 0 0 1795238009000 1 1 0 0 0 1 0 0|")


def definition(version=1, name="order", **more):
    return json.dumps(dict({"name": name, "version": version, "steps": STEPS}, **more))


class Sagas(kit.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        kit.psql(cls.url, "INSERT INTO skald.installation (installation, kafka_cluster_id,"
                 " reply_topic) VALUES ('orders', 'k1', 'skald.replies.orders')")

    def setUp(self):
        self.sql("TRUNCATE skald.saga, skald.saga_data, skald.saga_event_entry,"
                 " skald.saga_definition")

    def run_(self, code, *args, stdin=b""):
        return self.check(skald(*args, url=self.url, stdin=stdin), code)

    def deploy(self, text=None, code=0, *flags):
        return self.run_(code, "saga", "deploy", "-", "--json", *flags,
                         stdin=(text or definition()).encode())

    def start(self, key="k1", code=0, *flags):
        return self.run_(code, "saga", "start", "order", "--key", key, "--input",
                         '{"sku":"a"}', "--json", *flags)

    # -- definitions ---------------------------------------------------------------------

    def test_every_fault_of_a_definition_is_told(self):
        wrong = json.loads(definition())
        wrong["steps"][0]["action"]["topic"] = "not a topic!"
        del wrong["steps"][1]["action"]["type"]
        wrong["verison"] = 2
        for verb in ("validate", "deploy"):
            answer = self.run_(2, "saga", verb, "-", "--json",
                               stdin=json.dumps(wrong).encode())
            faults = answer.lines()
            self.assertGreaterEqual(len(faults), 3, answer.out)
            for fault in faults:
                self.assertEqual(list(fault), ["pointer", "rule", "hint"])
            pointers = [fault["pointer"] for fault in faults]
            for pointer in ("/steps/0/action/topic", "/steps/1/action/type", "/verison"):
                self.assertIn(pointer, pointers)
            answer = self.run_(2, "saga", verb, "-", stdin=json.dumps(wrong).encode())
            self.assertIn("%d faults" % len(faults), answer.out)
        self.assertEqual(self.sql("SELECT count(*) FROM skald.saga_definition")[0][0], "0")

    def test_validate(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            file.write(definition(3))
            file.flush()
            self.assertIn("version 3, 3 steps", self.run_(0, "saga", "validate", file.name).out)
        self.assertEqual(self.run_(0, "saga", "validate", "-", "--json",
                                   stdin=definition().encode()).out, "")
        self.run_(2, "saga", "validate", "/no/such/file")
        self.assertEqual(self.run_(2, "saga", "validate", "-", "--json", stdin=b"{")
                         .json()["pointer"], "")

    def test_versions(self):
        self.assertEqual(self.deploy().json()["state"], "deployed")
        self.assertEqual(self.deploy(json.dumps(json.loads(definition()), indent=2))
                         .json()["state"], "unchanged")  # layout does not matter
        refused = self.deploy(definition(1, deadline="1h"), 5)
        self.assertEqual(refused.error()["code"], "SK003")
        self.deploy(definition(2, deadline="1h"), 0, "--no-use")
        rows = self.run_(0, "saga", "defs", "--json").lines()
        self.assertEqual([(x["version"], x["current"]) for x in rows], [(2, False), (1, True)])
        self.assertEqual(list(rows[0]), ["name", "version", "current", "retired", "open", "hash"])
        self.assertEqual(self.run_(0, "saga", "use", "order", "2", "--json").json()["before"], 1)
        self.start()
        self.assertEqual(self.run_(0, "saga", "defs", "--json").lines()[0]["open"], 1)
        self.run_(1, "saga", "use", "order", "9")
        self.run_(2, "saga", "use", "order", "two")
        self.run_(0, "saga", "retire", "order", "1", "--reason", "old")
        self.start("k2", 5, "--version", "1")
        self.start("k2", 0)
        self.run_(0, "saga", "retire", "order")
        self.start("k3", 5)
        self.run_(5, "saga", "use", "order", "1")
        self.run_(1, "saga", "retire", "nothing")
        actions = [row[0] for row in self.sql(
            "SELECT action FROM skald.audit WHERE target = 'order' ORDER BY at")]
        for action in ("saga.deploy", "saga.use", "saga.retire"):
            self.assertIn(action, actions)
        self.assert_narrow(self.run_(0, "saga", "defs").out)

    # -- starts ----------------------------------------------------------------------------

    def test_start(self):
        self.deploy()
        first = self.start().json()
        self.assertEqual(list(first), ["id", "status", "outcome"])
        self.assertEqual(self.start().json()["id"], first["id"])
        answer = self.run_(5, "--json", "saga", "start", "order", "--key", "k1", "--input",
                           '{"sku":"b"}')
        self.assertEqual(answer.error()["code"], "SK003")
        for code, args in ((2, ["order"]), (2, ["order", "--key", "k", "--input", "{"]),
                           (2, ["order", "--key", "k", "--input", "[]"]),
                           (2, ["order", "--key", "k", "--input", "@/no/such"]),
                           (2, ["order", "--key", "k", "--again", "maybe"]),
                           (2, ["order", "--key", ""]), (1, ["nothing", "--key", "k"]),
                           (1, ["order", "--key", "k", "--version", "7"]),
                           (2, ["order", "--key", "k", "--wait", "--timeout", "soon"])):
            self.run_(code, "saga", "start", *args)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write('{"id":9007199254740993,"amount":10.00}')
            file.flush()
            made = self.run_(0, "saga", "start", "order", "--key", "exact", "--input",
                             "@" + file.name, "--correlation", "corr-9", "--json").json()
        shown = self.run_(0, "saga", "show", "order/exact", "--json")
        self.assertIn("9007199254740993", shown.out)
        self.assertIn("10.00", shown.out)
        self.assertEqual(shown.json()["correlation_id"], "corr-9")
        self.assertEqual(shown.json()["id"], made["id"])

    def test_where_no_orchestrator_serves(self):
        url = self.pg.create_database()
        self.check(skald("db", "migrate", url=url), 0)
        answer = self.check(skald("--json", "saga", "start", "order", "--key", "k", url=url), 5)
        self.assertEqual(answer.error()["code"], "SK005")

    def test_start_again_and_wait(self):
        self.deploy()
        for code, status, outcome in ((4, "running", None), (3, "stuck", None),
                                      (0, "finished", "completed"), (1, "finished", "failed")):
            self.sql("TRUNCATE skald.saga, skald.saga_data")
            made = self.start().json()["id"]
            self.sql("UPDATE skald.saga SET status = '%s', outcome = %s" %
                     (status, "'%s'" % outcome if outcome else "NULL"))
            answer = self.start("k1", code, "--wait", "--timeout", "200ms").json()
            self.assertEqual(answer, {"id": made, "status": status, "outcome": outcome})
        self.assertEqual(self.start().json()["id"], made)
        second = self.start("k1", 0, "--again", "failed").json()["id"]
        self.assertNotEqual(second, made)
        self.assertEqual(self.run_(0, "saga", "show", "order/k1", "--json").json()["run"], 2)
        self.assertEqual(self.start("k1", 0, "--again", "finished").json()["id"], second)

    # -- looking ---------------------------------------------------------------------------

    def make(self):
        """k1 runs and is in a backoff, k2 is stuck, k3 is done, k4 has not begun."""
        self.deploy()
        ids = {key: self.start(key, 0, "--correlation", "c-" + key).json()["id"]
               for key in ("k1", "k2", "k3", "k4")}
        self.sql("UPDATE skald.saga SET state = '%s', due_at = now() + interval '1 min'"
                 " WHERE key = 'k1'" % BACKOFF)
        self.sql("UPDATE skald.saga SET status = 'stuck', state = '%s', due_at = NULL,"
                 " reason_step = 'charge', reason_code = 'declined', reason_message = 'no'"
                 " WHERE key = 'k2'" % STUCK)
        self.sql("UPDATE skald.saga SET status = 'finished', outcome = 'completed',"
                 " finished_at = now(), due_at = NULL WHERE key = 'k3'")
        self.sql("INSERT INTO skald.saga_event_entry (saga_id, seq, kind, step, op, attempt,"
                 " correlation_id) SELECT id, n, CASE n WHEN 1 THEN 'started' ELSE 'command' END,"
                 " CASE WHEN n > 1 THEN 'reserve' END, CASE WHEN n > 1 THEN 'action' END,"
                 " nullif(n - 1, 0), correlation_id FROM skald.saga, generate_series(1, 3) AS n")
        return ids

    def test_ls(self):
        ids = self.make()
        rows = self.run_(0, "saga", "ls", "--json").lines()
        self.assertEqual([x["key"] for x in rows], ["k4", "k2", "k1"])
        self.assertEqual(list(rows[0]), ["id", "created_at", "status", "outcome", "undo", "name",
                                         "version", "key", "run", "at", "reason",
                                         "correlation_id", "finished_at"])
        self.assertEqual(rows[1]["reason"], "declined")
        self.assertEqual(rows[1]["at"], "charge stuck")
        for flags, keys in ((["--all"], ["k4", "k3", "k2", "k1"]), (["--status", "stuck"], ["k2"]),
                            (["--status", "finished"], ["k3"]), (["--key", "k3"], ["k3"]),
                            (["--step", "charge"], ["k2"]), (["--name", "other"], []),
                            (["--correlation", "c-k1"], ["k1"]), (["--run", "1", "--limit", "1"],
                             ["k4"]), (["--version", "2"], []), (["--since", "1h"],
                             ["k4", "k2", "k1"]), (["--until", "1h"], [])):
            got = self.run_(0, "saga", "ls", "--json", *flags).lines()
            self.assertEqual([x["key"] for x in got], keys, flags)
        answer = self.run_(0, "saga", "ls", "--limit", "2")
        self.assertIn("2 of 3", answer.out)
        self.assert_narrow(answer.out)
        self.assertEqual(self.run_(0, "saga", "ls", "--name", "other").out, "no sagas\n")
        self.run_(2, "saga", "ls", "--status", "odd")
        self.assertEqual(rows[2]["id"], ids["k1"])

    def test_show(self):
        ids = self.make()
        saga = self.run_(0, "saga", "show", ids["k2"], "--json").json()
        for member in ("id name version key run correlation_id traceparent status outcome undo"
                       " paused overdue signed reason waiting_for input data output created_at"
                       " updated_at finished_at deadline_at steps").split():
            self.assertIn(member, saga)
        self.assertEqual(saga["reason"], {"step": "charge", "code": "declined", "message": "no"})
        self.assertEqual([(x["name"], x["kind"], x["state"], x["attempts"]) for x in
                          saga["steps"]], [("reserve", "compensatable", "succeeded", 1),
                                           ("charge", "pivot", "stuck", 5),
                                           ("ship", "retriable", "pending", 0)])
        self.assertEqual([(x["step"], x["what"]) for x in saga["waiting_for"]],
                         [("charge", "operator")])
        self.assertEqual(saga["input"], {"sku": "a"})
        self.sql("INSERT INTO skald.saga_data SELECT id, '$output', E'{\\n  \"a\": \"b  c\"\\n}'"
                 " FROM skald.saga WHERE key = 'k2'")
        saga = self.run_(0, "saga", "show", ids["k2"], "--json").json()  # one line
        self.assertEqual(saga["output"], {"a": "b  c"})
        waiting = self.run_(0, "saga", "show", "order/k1", "--json").json()["waiting_for"]
        self.assertEqual([(x["step"], x["what"], x["until"]) for x in waiting],
                         [("reserve", "backoff", "2026-11-21T05:13:29.000000Z")])
        waiting = self.run_(0, "saga", "show", "order/k4", "--json").json()["waiting_for"]
        self.assertEqual([(x["step"], x["what"]) for x in waiting], [(None, "daemon")])
        self.assertEqual(self.run_(0, "saga", "show", "order/k3", "--json").json()["waiting_for"],
                         [])
        answer = self.run_(0, "saga", "show", "order/k2")
        self.assertIn("charge, declined: no", answer.out)
        self.assertIn("skald saga history " + ids["k2"], answer.out)
        self.assert_narrow(answer.out)
        self.run_(1, "saga", "show", "order/none")
        self.run_(1, "saga", "show", "00000000-0000-0000-0000-000000000000")
        self.run_(2, "saga", "show", ids["k1"][:8])  # many begin in the same minute

    def test_a_reader_sees_no_payload(self):
        self.make()
        self.sql("CREATE ROLE onlooker LOGIN IN ROLE skald_reader")
        url = self.pg.url("orders", "onlooker")
        saga = self.check(skald("saga", "show", "order/k1", "--json", url=url), 0).json()
        self.assertIsNone(saga["input"])
        self.assertEqual(saga["waiting_for"][0]["what"], "backoff")
        for args in (["saga", "ls"], ["saga", "history", "order/k1"], ["trace", "c-k1"],
                     ["saga", "defs"], ["status"]):
            self.check(skald(*args, url=url), 0)
        self.check(skald("saga", "retire", "order", url=url), 5)

    def test_history_and_trace(self):
        ids = self.make()
        rows = self.run_(0, "saga", "history", "order/k1", "--json").lines()
        self.assertEqual([(x["seq"], x["kind"], x["step"]) for x in rows],
                         [(1, "started", None), (2, "command", "reserve"),
                          (3, "command", "reserve")])
        self.assert_narrow(self.run_(0, "saga", "history", ids["k1"]).out)
        self.run_(1, "saga", "history", "order/none")
        self.sql("SELECT skald.outbox_add(topic => 'a.very.long.topic.of.inventory.commands.x',"
                 " key => 'k', type => 'a.very.long.type.of.inventory.commands.reserve.it',"
                 " data => '{}', correlation_id => 'c-k1')")
        self.add_letter(headers='{"ce_correlationid": "c-k1", "ce_id": "m1"}')
        rows = self.run_(0, "trace", "c-k1", "--json").lines()
        self.assertEqual([list(x) for x in rows][0], ["at", "source", "what", "place", "detail",
                                                      "id"])
        what = [x["what"] for x in rows]
        self.assertEqual(what[:4], ["saga started", "saga command", "saga command", "message"])
        self.assertIn("dead letter", what)
        self.assertEqual([x["at"] for x in rows], sorted(x["at"] for x in rows))
        self.assert_narrow(self.run_(0, "trace", "c-k1").out)
        self.run_(1, "trace", "nothing-bears-this")

    def test_status_and_doctor(self):
        self.make()
        self.sql("UPDATE skald.saga SET due_at = now() - interval '1 min' WHERE key = 'k4'")
        answer = self.run_(0, "status", "--json").json()
        sagas = answer["sources"][0]["sagas"][0]
        self.assertEqual([sagas[x] for x in ("name", "running", "compensating", "stuck", "due")],
                         ["order", 2, 0, 1, 1])
        said = "\n".join(answer["attention"])
        self.assertIn("stuck at charge, declined: skald saga show order/k2", said)
        self.assertIn("1 sagas are due, nobody drives them", said)
        self.assert_narrow(self.run_(0, "status").out)
        checks = {x["check"]: x for x in skald("doctor", "--json", url=self.url).lines()}
        self.assertIn("orders on cluster k1", checks["installation"]["message"])
        self.assertEqual(checks["orchestrator"]["status"], "fail")
        self.assertEqual(checks["definitions"]["status"], "ok")
        self.assertEqual((checks["sagas"]["status"], checks["sagas"]["fix"]),
                         ("warn", "skald saga ls --status stuck"))
        other = skald("doctor", "--json", "--set", "daemon.installation=copy", url=self.url)
        checks = {x["check"]: x for x in other.lines()}
        self.assertEqual(checks["installation"]["status"], "fail")
        self.assertIn("db adopt", checks["installation"]["fix"])


if __name__ == "__main__":
    kit.main()
