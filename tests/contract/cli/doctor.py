#!/usr/bin/env python3
"""`skald doctor`: what is wrong is named, and its fix, pasted, makes it right."""

import contextlib
import os
import signal
import subprocess
import unittest

import kit
from kit import skald
from skaldtest.pg import Cluster, psql

WAL = ("--set", "relay.mode=wal")


class Case(unittest.TestCase):
    """A migrated database of its own, and a login that is an operator, without REPLICATION."""

    SETTINGS = {}

    @classmethod
    def setUpClass(cls):
        cls.pg = Cluster(settings=cls.SETTINGS).create()
        cls.addClassCleanup(cls.pg.destroy)
        cls.pg.sql("CREATE ROLE \"Shop\" LOGIN")

    def setUp(self):
        self.admin = self.pg.create_database()
        self.name = self.admin.rsplit("/", 1)[1]
        self.assertEqual(skald("db", "migrate", url=self.admin).code, 0)
        self.sql("GRANT skald_operator, skald_daemon TO \"Shop\";"
                 "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text),"
                 " pg_logical_emit_message(boolean, text, bytea) FROM PUBLIC;"
                 "UPDATE skald.relay SET heartbeat_at = clock_timestamp()")
        self.url = self.pg.url(self.name, "Shop")
        self.stream = self.sql("SELECT stream FROM skald.relay")[0][0]

    def tearDown(self):
        self.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                 " WHERE NOT active")

    def sql(self, script):
        return psql(self.admin, script)

    def restart(self):
        self.pg.stop()
        self.pg.start()

    def look(self, *flags):
        """Every line that is not ok, but those about Kafka: (check, message, fix)."""
        answer = skald("doctor", "--json", *flags, url=self.url)
        self.assertIn(answer.code, (0, 1), answer.err)
        self.lines = answer.lines()
        self.assertEqual(answer.code, int(any(x["status"] == "fail" for x in self.lines)))
        return [x for x in self.lines if x["status"] != "ok"
                and x["check"] not in ("brokers", "librdkafka")]

    def found(self, check, flags=WAL):
        return [x for x in self.look(*flags) if x["check"] == check]

    def is_ok(self, check, flags=WAL):
        self.look(*flags)
        states = [x["status"] for x in self.lines if x["check"] == check]
        return bool(states) and set(states) == {"ok"}

    def paste(self, fix):
        """As a person would: SQL into psql as administrator, commands into a shell."""
        if fix.startswith("skald "):
            env = kit.clean_env({"SKALD_DATABASE_URL": self.url})
            env["PATH"] = os.path.dirname(kit.SKALD) + ":" + env["PATH"]
            subprocess.run(fix, shell=True, check=True, env=env, capture_output=True)
            return
        self.assertRegex(fix, r"(;|\*/)$")
        self.sql(fix)
        if "restart PostgreSQL" in fix:
            self.restart()

    def repair(self, check, words, flags=WAL):
        """Named, with a fix that makes it ok."""
        there = [x for x in self.found(check, flags) if words in x["message"]]
        self.assertEqual(len(there), 1, (check, words, self.lines))
        self.paste(there[0]["fix"])
        self.assertFalse([x for x in self.found(check, flags) if words in x["message"]],
                         there[0]["fix"])


class Everything(Case):
    """A server as PostgreSQL comes, and more."""

    SETTINGS = {"wal_level": "replica", "max_replication_slots": "2", "max_wal_senders": "4"}

    def test_everything_wrong_is_named_and_every_fix_works(self):
        self.sql("ALTER SEQUENCE skald.outbox_id CACHE 20;"
                 "DROP PUBLICATION IF EXISTS skald_outbox;"
                 "CREATE TABLE public.other (); CREATE PUBLICATION skald_outbox"
                 " FOR TABLE public.other WITH (publish = 'insert, update, truncate');"
                 "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, bytea)"
                 " TO PUBLIC;"
                 "SELECT pg_create_physical_replication_slot('a');"
                 "SELECT pg_create_physical_replication_slot('b')")
        for statement in ("fsync = off", "full_page_writes = off", "max_wal_senders = 0"):
            self.sql("ALTER SYSTEM SET " + statement)
        self.sql("INSERT INTO skald.outbox (message_id, topic, key, type, source, correlation_id,"
                 " traceparent) VALUES (gen_random_uuid(), 't', 'k', 'x', '/s', 'c', '');"
                 "INSERT INTO skald.parked_message (id, position, parked_key, message_id, at,"
                 " topic, key, type, source, correlation_id, traceparent) SELECT id, '1', key,"
                 " message_id, at, topic, key, type, source, correlation_id, traceparent"
                 " FROM skald.outbox;"
                 "INSERT INTO skald.parked_key (kind, place, topic, key, reason)"
                 " VALUES ('relay', 'main', 't', 'k', 'the topic takes 1 MB')")
        self.restart()
        wrong = [("sequence", "caches 20"), ("wal_level", "replica"),
                 ("replication", '"Shop" may not'), ("slots", "all 2 of max_replication_slots"),
                 ("senders", "all 0 of max_wal_senders"), ("wal kept", "unlimited"),
                 ("emit_message", "everybody may call"),
                 ("publication", "does not contain"), ("publication", "inserts only"),
                 ("publication", "partition root"), ("publication", "other tables"),
                 ("parked", "the topic takes 1 MB"), ("durability", "fsync is off")]
        there = self.look(*WAL)
        for check, words in wrong:
            self.assertEqual(len([x for x in there if x["check"] == check
                                  and words in x["message"]]), 1, (check, words, there))
            self.assertTrue(all(x["fix"] for x in there if x["check"] == check))
        text = skald("doctor", *WAL, url=self.url).out
        for line in text.splitlines():
            self.assertLessEqual(len(line), 80, line)
        for check, words in wrong:
            if words != "other tables":  # SET TABLE and ADD TABLE: in whichever order
                self.repair(check, words)
        self.repair("publication", "other tables")
        self.repair("durability", "full_page_writes")
        # what is left: nobody has made a slot yet, which the relay does by itself
        self.assertEqual([x["check"] for x in self.look(*WAL)], ["slot"])
        self.assertFalse(set(dict(wrong)) - {x["check"] for x in self.lines})
        self.assertEqual(self.sql("SELECT last_value IS NOT NULL FROM skald.outbox_id"), [["t"]])


class Server(Case):
    SETTINGS = {"wal_level": "replica"}

    def test_mode_poll_needs_nothing_of_it(self):
        checks = [x["check"] for x in self.look()]
        self.assertEqual(checks, [])
        self.assertNotIn("wal_level", [x["check"] for x in self.lines])

    def test_a_login_without_rights(self):
        self.sql('CREATE ROLE "No Body" LOGIN')
        self.url = self.pg.url(self.name, "No%20Body")
        self.repair("schema", "permission denied", ())
        there = self.look()
        self.assertEqual([(x["check"], x["fix"]) for x in there],
                         [("rights", 'GRANT skald_operator TO "No Body";')])
        self.paste(there[0]["fix"])
        self.assertEqual(self.look(), [])

    # -- the publication -------------------------------------------------------------------

    def test_publication(self):
        self.sql("DROP PUBLICATION IF EXISTS skald_outbox")
        self.repair("publication", "there is no publication")
        self.assertTrue(self.is_ok("publication"))
        self.sql("ALTER PUBLICATION skald_outbox SET (publish = 'delete')")
        self.repair("publication", "does not publish inserts")
        self.assertTrue(self.is_ok("publication"))
        if int(self.sql("SHOW server_version_num")[0][0]) >= 150000:
            self.sql("ALTER PUBLICATION skald_outbox SET TABLE skald.outbox (id, xid, topic)")
            self.repair("publication", "leaves out rows or columns")
            self.sql("ALTER PUBLICATION skald_outbox SET TABLE skald.outbox WHERE (id > 5)")
            self.repair("publication", "leaves out rows or columns")
            self.assertTrue(self.is_ok("publication"))

    def test_limits_that_contradict(self):
        self.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
        self.sql("SELECT pg_reload_conf()")
        flags = WAL + ("--set", "relay.slot_limit=2GiB")
        self.repair("wal kept", "below relay.slot_limit", flags)
        self.assertTrue(self.is_ok("wal kept", flags))

    # -- the gate ---------------------------------------------------------------------------

    def test_gate(self):
        gate = ("--set", "relay.gate=near,far")
        self.repair("gate", "may not see", gate)
        there = self.found("gate", gate)
        self.assertEqual([x["message"].split()[4] for x in there], ["application_name"] * 2)
        self.assertEqual([x["fix"] for x in there],
                         ["skaldd --set relay.gate=far", "skaldd --set relay.gate=near"])
        self.assertFalse(self.found("gate", ("--set", "relay.gate=")))

    def test_other_sources_have_their_own(self):
        pay = self.pg.create_database()
        self.assertEqual(skald("db", "migrate", url=pay).code, 0)
        flags = ("--set", "source.pay.url=" + pay, "--set", "source.pay.mode=wal",
                 "--set", "source.pay.gate=far")
        there = self.look(*flags)
        self.assertEqual([x["source"] for x in there if x["check"] == "wal_level"], ["pay"])
        gate = [x for x in there if x["check"] == "gate"]
        self.assertEqual([(x["source"], x["fix"]) for x in gate],
                         [("pay", "skaldd --set source.pay.gate=")])


class Slots(Case):
    SETTINGS = {"wal_level": "logical"}

    def make_slot(self, name=None, plugin="pgoutput"):
        self.sql("SELECT pg_create_logical_replication_slot('%s', '%s')"
                 % (name or "skald_" + self.stream, plugin))

    def test_publication_younger_than_the_slot(self):
        self.sql("DROP PUBLICATION IF EXISTS skald_outbox")
        self.make_slot()
        self.repair("publication", "there is no publication")
        self.repair("slot", "older than the publication")
        self.assertIn("none yet", self.found("slot")[0]["message"])
        self.make_slot()  # as the relay does: after it
        there = self.found("slot")
        self.assertNotIn("older than", there[0]["message"])

    def test_table_added_after_the_slot(self):
        """Inserts before that would be left out without a word."""
        self.sql("DROP PUBLICATION IF EXISTS skald_outbox;"
                 "CREATE PUBLICATION skald_outbox WITH (publish = 'insert',"
                 " publish_via_partition_root = true)")
        self.make_slot()
        self.repair("publication", "does not contain")
        self.repair("slot", "older than the publication")

    def test_slot_of_another_kind(self):
        self.make_slot(plugin="test_decoding")
        self.repair("slot", "not of pgoutput")

    def test_slot_that_nobody_reads(self):
        self.make_slot()
        self.repair("slot", "nobody streams any more", ())
        self.make_slot()
        there = self.found("slot")
        self.assertIn("nobody reads", there[0]["message"])
        self.assertEqual(there[0]["fix"], "skald status --watch")
        self.sql("UPDATE skald.relay SET heartbeat_at = now() - interval '1 h'")
        self.assertEqual(self.found("slot")[0]["fix"], "systemctl start skaldd")
        self.sql("SELECT pg_drop_replication_slot('skald_%s')" % self.stream)
        self.make_slot("skald_0123456789abcdef")
        self.repair("slot", "has no more", ())

    def test_slot_that_is_read(self):
        self.make_slot()
        with subprocess.Popen(
                ["pg_recvlogical", "-d", self.admin, "-S", "skald_" + self.stream, "--start",
                 "-f", "/dev/null", "-o", "proto_version=1",
                 "-o", "publication_names=skald_outbox"],
                env=dict(os.environ, PATH=self.pg.bin + ":" + os.environ["PATH"])) as reader:
            try:
                self.pg_wait("SELECT active FROM pg_replication_slots", "t")
                self.sql("UPDATE skald.relay SET mode = 'wal', acked_lsn = pg_current_wal_lsn()")
                self.assertTrue(self.is_ok("slot"), self.lines)
                self.sql("SELECT pg_logical_emit_message(false, 'x', repeat('x', 3000000))")
                self.sql("SELECT pg_switch_wal()")
                near = WAL + ("--set", "relay.slot_limit=1MiB")
                self.assertIn("near relay.slot_limit", self.found("slot", near)[0]["message"])
            finally:
                reader.kill()

    def pg_wait(self, query, value):
        from skaldtest.wait import wait_until
        wait_until(lambda: self.sql(query) == [[value]], 20, query)

    def test_slot_gone_or_given_up(self):
        self.sql("UPDATE skald.relay SET mode = 'wal', acked_lsn = pg_current_wal_lsn()")
        there = self.found("slot", ())[0]
        self.assertEqual(there["status"], "fail")
        self.assertIn("is gone", there["message"])
        self.sql("UPDATE skald.relay SET mode = 'poll', slot_dropped = 'it held 10 GiB',"
                 " slot_dropped_at = now()")
        there = self.found("slot")[0]
        self.assertEqual((there["status"], "it held 10 GiB" in there["message"]), ("warn", True))

    @contextlib.contextmanager
    def no_checkpoint(self):
        """So much WAL asks for one by itself."""
        pid = int(self.sql("SELECT pid FROM pg_stat_activity"
                           " WHERE backend_type = 'checkpointer'")[0][0])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def test_lost_slot(self):
        self.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
        self.sql("ALTER SYSTEM SET max_wal_size = '64MB'")
        self.sql("SELECT pg_reload_conf()")
        self.make_slot()
        self.addCleanup(self.sql, "ALTER SYSTEM RESET max_slot_wal_keep_size")
        with self.no_checkpoint():
            for _ in range(5):
                self.sql("SELECT pg_switch_wal(); SELECT txid_current()")
            self.repair("slot", "the next checkpoint breaks it")
        self.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'")
        self.sql("SELECT pg_reload_conf()")
        for _ in range(6):
            self.sql("SELECT pg_switch_wal(); SELECT txid_current(); CHECKPOINT")
        self.repair("slot", "is lost")

if __name__ == "__main__":
    kit.main()
