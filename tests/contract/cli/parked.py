#!/usr/bin/env python3
"""`skald outbox parked|retry|skip|new-epoch`, on tables filled by hand as the relay does."""

import json
import pty
import os
import subprocess
import uuid

import kit
from kit import skald


class Parked(kit.Case):
    def setUp(self):
        self.sql("TRUNCATE skald.outbox, skald.parked_key, skald.parked_message,"
                 " skald.audit_entry; UPDATE skald.relay SET epoch_wanted = false")

    def park(self, key, count, topic="shop.orders", code="10", hex_key=None, since="1 min"):
        """Rows of the outbox, parked in order; answers their ids, head first."""
        value = "decode('%s', 'hex')" % (hex_key or key.encode().hex())
        ids = []
        for n in range(count):
            message = str(uuid.uuid4())
            ids.append(message)
            self.sql(
                "WITH o AS (INSERT INTO skald.outbox (message_id, topic, key, type, source,"
                " correlation_id, traceparent, data) VALUES ('%s', '%s', %s, 't%d', '/shop',"
                " 'c', '', 'secret') RETURNING *)"
                "INSERT INTO skald.parked_message (id, position, parked_key, message_id, at,"
                " topic, key, type, source, correlation_id, traceparent, data)"
                " SELECT id, '00000001.0000000000000001.%08x', key, message_id, at, topic, key,"
                " type, source, correlation_id, traceparent, data FROM o"
                % (message, topic, value, n, n))
        self.sql("INSERT INTO skald.parked_key (kind, place, topic, key, head_message_id,"
                 " waiting, reason, code, since, next_at) VALUES ('relay', 'main', '%s', %s, '%s',"
                 " %d, 'record of 30 MB: the topic takes 1 MB', '%s', now() - interval '%s',"
                 " now() + interval '5 s')"
                 % (topic, value, ids[0], count, code, since))
        return ids

    def act(self, code, verb, *flags, **more):
        return self.check(skald("outbox", verb, "--json", *flags, url=self.url, **more), code)

    def releasing(self):
        return [row[0] for row in self.sql(
            "SELECT topic || '/' || encode(key, 'escape') FROM skald.parked_key"
            " WHERE releasing_id IS NOT NULL ORDER BY 1")]

    def markers(self):
        return [row[0] for row in self.sql(
            "SELECT subject || '/' || encode(key, 'escape') FROM skald.outbox"
            " WHERE topic = '' ORDER BY id")]

    def audit(self):
        return [[row[0], row[1], row[2], json.loads("|".join(row[3:]))] for row in self.sql(
            "SELECT action, target, coalesce(reason, '-'),"
            " jsonb_build_object('before', before, 'after', after, 'actor', actor)"
            " FROM skald.audit ORDER BY at")]

    # -- seeing ---------------------------------------------------------------------------

    def test_lists(self):
        self.assertEqual(skald("outbox", "parked", url=self.url).out, "no parked keys\n")
        first = self.park("order-1", 3)
        self.park("order-2", 1, topic="shop.payments", code="3", since="3 h")
        rows = self.act(0, "parked").lines()
        self.assertEqual(list(rows[0]), ["topic", "key", "state", "waiting", "since",
                                         "attempts", "code", "reason", "head_message_id",
                                         "next_at"])
        self.assertEqual([(r["topic"], r["key"], r["waiting"], r["state"]) for r in rows],
                         [("shop.payments", "order-2", 1, "parked"),
                          ("shop.orders", "order-1", 3, "parked")])
        self.assertEqual(rows[1]["head_message_id"], first[0])
        for flags, count in ((["--topic", "shop.orders"], 1), (["--key", "order-2"], 1),
                             (["--key", "\\x6f726465722d32"], 1), (["--code", "3"], 1),
                             (["--since", "1h"], 1), (["--until", "1h"], 1), (["--all"], 2),
                             (["--topic", "shop.orders", "--key", "order-2"], 0)):
            self.assertEqual(len(self.act(0, "parked", *flags).lines()), count, flags)
        self.assertEqual(len(self.act(0, "parked", "--ids", "-",
                                      stdin=first[0].encode()).lines()), 1)
        text = self.check(skald("outbox", "parked", "--limit", "1", url=self.url), 0).out
        self.assertIn("1 of 2", text)
        self.assert_narrow(text)

    def test_a_reader_sees_but_does_not_act(self):
        self.park("order-1", 1)
        self.sql("CREATE ROLE looker LOGIN IN ROLE skald_reader")
        url = self.pg.url("orders", "looker")
        self.assertEqual(skald("outbox", "parked", "--json", url=url).json()["key"], "order-1")
        row = self.check(skald("outbox", "ls", "--json", url=url), 0).json()
        self.assertEqual((row["state"], row["bytes"]), ("parked", None))
        answer = self.check(skald("outbox", "retry", "--json", "--key", "order-1", url=url), 5)
        self.assertEqual(answer.error()["code"], "42501")
        self.check(skald("outbox", "new-epoch", url=url), 5)
        self.assertEqual((self.markers(), self.audit()), ([], []))

    def test_ls_knows_them_and_hides_markers(self):
        self.park("order-1", 2)
        self.sql("SELECT skald.outbox_add('shop.orders', 'free', 't', '{}')")
        self.act(0, "retry", "--key", "order-1")
        self.assertEqual(self.markers(), ["shop.orders/order-1"])
        rows = skald("outbox", "ls", "--json", url=self.url).lines()
        self.assertEqual([(r["key"], r["state"]) for r in rows],
                         [("free", "waiting"), ("order-1", "parked"), ("order-1", "parked")])
        self.sql("UPDATE skald.relay SET acked_snapshot = pg_current_snapshot(),"
                 " tick_snapshot = pg_current_snapshot()")
        states = [r["state"] for r in skald("outbox", "ls", "--json", url=self.url).lines()]
        self.assertEqual(states, ["published", "parked", "parked"])
        self.assertEqual(len(skald("outbox", "ls", "--json", "--waiting",
                                   url=self.url).lines()), 2)
        tail = skald("outbox", "tail", "--json", url=self.url).lines()
        self.assertEqual(len(tail), 3)
        tail = skald("outbox", "tail", "--json", "--published", url=self.url).json()
        self.assertEqual(tail["key"], "free")

    def test_tail_follows_what_is_published(self):
        """Committed rows appear when the relay has them acknowledged, in whatever part."""
        tail = subprocess.Popen(
            [kit.SKALD, "--json", "outbox", "tail", "--follow", "--published", "--lines", "1"],
            env=kit.clean_env({"SKALD_DATABASE_URL": self.url}), stdout=subprocess.PIPE,
            text=True)
        self.addCleanup(tail.stdout.close)
        self.addCleanup(tail.kill)
        add = "SELECT skald.outbox_add('t', '%s', 'x', '{}')"
        seen = " = pg_current_snapshot()"
        self.sql(add % "before")
        self.sql("UPDATE skald.relay SET acked_snapshot%s, tick_snapshot%s, done_id = -1"
                 % (seen, seen))
        self.assertIn('"key":"before"', tail.stdout.readline())
        self.sql(add % "first")
        self.sql(add % "second")
        # inside a tick that sees both, the first is acknowledged; then the tick is
        self.sql("UPDATE skald.relay SET tick_snapshot%s, done_id = (SELECT min(id) FROM"
                 " skald.outbox WHERE key = 'first')" % seen)
        self.assertIn('"key":"first"', tail.stdout.readline())
        self.sql("UPDATE skald.relay SET acked_snapshot = tick_snapshot, done_id = -1")
        self.assertIn('"key":"second"', tail.stdout.readline())

    # -- retry ----------------------------------------------------------------------------

    def test_retry_lets_one_out(self):
        ids = self.park("order-1", 3)
        self.park("order-2", 1)
        row = self.act(0, "retry", "--topic", "shop.orders", "--key", "order-1").json()
        self.assertEqual(row, {"topic": "shop.orders", "target": "shop.orders/order-1",
                               "state": "releasing", "head_message_id": ids[0], "waiting": 3,
                               "skipped": None})
        self.assertEqual((self.releasing(), self.markers()),
                         (["shop.orders/order-1"], ["shop.orders/order-1"]))
        action, target, reason, detail = self.audit()[0]
        self.assertEqual((action, target, reason), ("outbox.retry", "shop.orders/order-1", "-"))
        self.assertEqual(detail["before"]["head"], ids[0])
        # once more: it is on its way, nothing new happens
        self.act(0, "retry", "--topic", "shop.orders", "--key", "order-1")
        self.assertEqual((len(self.markers()), len(self.audit())), (1, 1))
        state = [r["state"] for r in self.act(0, "parked", "--key", "order-1").lines()]
        self.assertEqual(state, ["releasing"])
        text = self.check(skald("outbox", "retry", "--key", "order-2", url=self.url), 0).out
        self.assertEqual(text, "releasing  shop.orders/order-2, 1 waiting\n")

    def test_what_must_be_written(self):
        self.park("order-1", 1)
        self.park("order-2", 1)
        answer = self.act(2, "retry")
        self.assertIn("--all", answer.error()["hint"])
        self.assertEqual(self.act(2, "retry", "--all").error()["field"], "--reason")
        self.assertEqual(self.act(2, "skip", "--key", "order-1").error()["field"], "--reason")
        self.act(2, "retry", "--key", "order-1", "--max", "0")
        self.act(2, "retry", "--ids", "x")
        self.act(2, "retry", "--ids", "-", stdin=b"no-uuid\n")
        self.act(2, "retry", "--kye", "x")
        self.assertEqual(self.act(1, "retry", "--key", "nobody").error()["code"], "not_found")
        answer = self.act(4, "retry", "--all", "--reason", "repaired")
        self.assertEqual(answer.error()["code"], "unconfirmed")
        self.assertIn("2 parked keys", answer.error()["message"])
        answer = self.act(4, "retry", "--all", "--reason", "repaired", "--yes", "--max", "1")
        self.assertEqual(answer.error()["code"], "too_many")
        rows = self.act(0, "retry", "--all", "--reason", "repaired", "--dry-run").lines()
        self.assertEqual([r["state"] for r in rows], ["retry", "retry"])
        self.assertEqual((self.markers(), self.audit()), ([], []))
        self.act(0, "retry", "--all", "--reason", "repaired", "--yes")
        self.assertEqual(self.releasing(), ["shop.orders/order-1", "shop.orders/order-2"])
        self.assertEqual([a[2] for a in self.audit()], ["repaired"] * 2)
        self.check(skald("outbox", "retry", "--key", "k", url=kit.NOWHERE), 6)

    def test_asks_on_a_terminal(self):
        self.park("order-1", 1)
        self.park("order-2", 1)
        for typed, code, count in ((b"n\n", 4, 0), (b"y\n", 0, 2)):
            master, slave = pty.openpty()
            done = subprocess.Popen(
                [kit.SKALD, "outbox", "retry", "--all", "--reason", "x"], stdin=slave,
                stderr=slave, stdout=subprocess.PIPE,
                env=kit.clean_env({"SKALD_DATABASE_URL": self.url}))
            os.write(master, typed)
            done.communicate(timeout=30)
            os.close(slave)
            os.close(master)
            self.assertEqual((done.returncode, len(self.releasing())), (code, count))

    def test_acts_only_on_what_was_seen(self):
        """Between look and act one key is refused again: a conflict, counted."""
        self.park("order-1", 1)
        self.park("order-2", 1)
        self.sql("CREATE FUNCTION public.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                 " UPDATE skald.parked_key SET attempts = attempts + 1 WHERE key = 'order-2';"
                 " RETURN NULL; END $$;"
                 "CREATE TRIGGER meddle AFTER INSERT ON skald.audit_entry"
                 " FOR EACH ROW EXECUTE FUNCTION public.meddle()")
        try:
            answer = self.act(3, "retry", "--all", "--reason", "x", "--yes")
        finally:
            self.sql("DROP TRIGGER meddle ON skald.audit_entry; DROP FUNCTION public.meddle()")
        self.assertEqual([r["target"] for r in answer.lines()], ["shop.orders/order-1"])
        self.assertEqual(answer.error()["code"], "SK006")
        self.assertEqual(self.releasing(), ["shop.orders/order-1"])

    def test_keys_that_are_no_text(self):
        for hex_key, target in (("ff00", "\\xff00"), ("", ""), ("5c783031", "\\x5c783031"),
                                ("612f62", "a/b"), ("c3a4", "\u00e4")):
            self.park("", 1, hex_key=hex_key, topic="raw")
            row = self.act(0, "retry", "--topic", "raw").json()
            self.assertEqual(row["target"], "raw/" + target)
            self.assertEqual(self.sql("SELECT encode(key, 'hex') FROM skald.outbox"
                                      " WHERE topic = ''"), [[hex_key]] if hex_key else [])
            self.assertEqual(len(self.sql("SELECT 1 FROM skald.outbox WHERE topic = ''"
                                          " AND octet_length(key) = %d" % (len(hex_key) / 2))), 1)
            self.setUp()

    # -- skip -----------------------------------------------------------------------------

    def test_skip_drops_the_head(self):
        ids = self.park("order-1", 3)
        row = self.act(0, "skip", "--key", "order-1", "--reason", "nobody wants it").json()
        self.assertEqual((row["state"], row["skipped"], row["waiting"]),
                         ("releasing", ids[0], 2))
        left = self.sql("SELECT message_id FROM skald.parked_message ORDER BY position")
        self.assertEqual([r[0] for r in left], ids[1:])
        self.assertEqual(self.sql("SELECT waiting, head_message_id FROM skald.parked_key"),
                         [["2", ids[1]]])
        self.assertEqual(self.markers(), ["shop.orders/order-1"])
        action, target, reason, detail = self.audit()[0]
        self.assertEqual((action, target, reason),
                         ("outbox.skip", "shop.orders/order-1", "nobody wants it"))
        head = detail["before"]["head"]
        self.assertEqual((head["message_id"], head["topic"], head["type"]),
                         (ids[0], "shop.orders", "t0"))
        self.assertNotIn("secret", json.dumps(detail))
        self.assertNotIn(b"secret".hex(), json.dumps(detail))
        # while it is being let out its head is not ours to take
        answer = self.act(5, "skip", "--key", "order-1", "--reason", "x")
        self.assertEqual(answer.error()["code"], "SK006")
        self.assertEqual(len(self.sql("SELECT 1 FROM skald.parked_message")), 2)

    def test_skip_the_only_one(self):
        """The marker goes out all the same: it is what frees the key, in its place."""
        self.park("order-1", 1)
        self.act(0, "skip", "--key", "order-1", "--reason", "x", "--actor", "ada")
        self.assertEqual(self.sql("SELECT waiting, head_message_id IS NULL FROM"
                                  " skald.parked_key"), [["0", "t"]])
        self.assertEqual(self.markers(), ["shop.orders/order-1"])
        self.assertEqual(self.audit()[0][3]["actor"], "ada")

    # -- operator_act itself ----------------------------------------------------------------

    def test_refusals_of_the_database(self):
        self.park("order-1", 1)
        for call, code in (("'outbox.retry', 'shop.orders'", "SK001"),
                           ("'outbox.retry', 'shop.orders/none'", "SK004"),
                           ("'outbox.skip', 'shop.orders/order-1'", "SK001"),
                           ("'outbox.new-epoch', 'other'", "SK004"),
                           ("'outbox.none', 'x'", "SK001")):
            state = self.sql("DO $$ BEGIN PERFORM skald.operator_act(%s); EXCEPTION WHEN OTHERS"
                             " THEN PERFORM set_config('test.state', SQLSTATE, false); END $$;"
                             "SELECT current_setting('test.state')" % call)[-1][0]
            self.assertEqual(state, code, call)

    # -- new-epoch --------------------------------------------------------------------------

    def wanted(self):
        return self.sql("SELECT epoch_wanted FROM skald.relays")[0][0]

    def test_new_epoch(self):
        epoch, stream = self.sql("SELECT epoch, stream FROM skald.relay")[0]
        answer = self.act(0, "new-epoch", "--dry-run").json()
        self.assertEqual((answer["epoch"], self.wanted()), (int(epoch), "f"))
        answer = self.act(0, "new-epoch", "--reason", "moved storage").json()
        self.assertEqual((answer["ok"], answer["state"], answer["stream"]),
                         (True, "wanted", stream))
        self.assertEqual(self.wanted(), "t")
        action, target, reason, detail = self.audit()[0]
        self.assertEqual((action, target, reason), ("outbox.new-epoch", "main", "moved storage"))
        self.assertEqual(detail["before"]["epoch"], int(epoch))
        answer = self.check(skald("outbox", "new-epoch", url=self.url), 0)
        self.assert_narrow(answer.out)
        self.check(skald("outbox", "new-epoch", url=kit.NOWHERE), 6)


if __name__ == "__main__":
    kit.main()
