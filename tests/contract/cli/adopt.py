#!/usr/bin/env python3
"""`skald db adopt`: a copy becomes an installation of its own, and loses no message."""

import subprocess

import kit
from kit import skald
from skaldtest.proc import bin_path, clean_env
from skaldtest.wait import wait_until


class Adopt(kit.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.broker = cls.run_daemon(["--roles", "dev-broker"])
        line = cls.broker.stdout.readline().decode()
        assert line.startswith("dev broker on "), line
        cls.brokers = line.split()[-1]

    @classmethod
    def run_daemon(cls, args, env=None):
        daemon = subprocess.Popen([bin_path("skaldd"), "--set", "http.listen="] + args,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  env=clean_env(env), cwd="/")

        def end():
            daemon.terminate()
            daemon.wait(30)
            daemon.stdout.close()
        cls.addClassCleanup(end)
        return daemon

    def setUp(self):
        self.url = self.pg.create_database()
        self.check(skald("db", "migrate", url=self.url), 0)

    def add(self, count, key="k"):
        self.sql("SELECT skald.outbox_add(topic => 't', key => '%s', type => 'x', data => '{}')"
                 " FROM generate_series(1, %d)" % (key, count))

    def adopt(self, code=0, *flags):
        return self.check(skald("db", "adopt", "--json", "--reason", "a copy", "--brokers",
                                self.brokers, *flags, url=self.url), code)

    def relay(self):
        return self.sql("SELECT stream, epoch, term, tick FROM skald.relay")[0]

    def acknowledge(self):
        """What a relay does that has published everything."""
        self.sql("UPDATE skald.relay SET acked_snapshot = pg_current_snapshot(),"
                 " tick_snapshot = pg_current_snapshot(), tick = tick + 1, done_id = -1,"
                 " heartbeat_at = clock_timestamp()")

    def waiting(self):
        return int(self.sql("SELECT lag_rows FROM skald.relays")[0][0])

    def recovered(self):
        return [row[0] for row in self.sql(
            "SELECT convert_from(key, 'UTF8') FROM skald.outbox"
            " WHERE headers ->> 'ce_recovered' = 'true' ORDER BY id")]

    def drain(self):
        """A real relay publishes what waits, and goes on with what comes."""
        self.run_daemon(["--roles", "relay"], {"SKALD_DATABASE_URL": self.url,
                                               "SKALD_KAFKA_BOOTSTRAP_SERVERS": self.brokers})
        wait_until(lambda: self.waiting() == 0, 20, "what was outstanding is published")
        self.add(1, "later")
        wait_until(lambda: self.waiting() == 0, 20, "what comes later is published")

    def test_another_stream_and_identity(self):
        self.sql("INSERT INTO skald.installation (installation, kafka_cluster_id, reply_topic)"
                 " VALUES ('orders', 'k1', 'skald.replies.orders')")
        self.sql("INSERT INTO skald.saga_partition (topic, partition, done) VALUES"
                 " ('skald.replies.orders', 0, 77), ('skald.saga.commands', 0, 5)")
        before = self.relay()
        answer = self.adopt(0, "--set", "daemon.installation=staging").json()
        stream, epoch, term, _ = self.relay()
        self.assertRegex(stream, "^[0-9a-f]{16}$")
        self.assertNotEqual(stream, before[0])
        self.assertGreater(int(epoch), int(before[1]))
        self.assertGreater(int(term), int(before[2]))  # a relay that slept leads no more
        self.assertEqual(answer["after"]["installation"], "staging")
        self.assertEqual(answer["after"]["stream"], stream)
        self.assertEqual(answer["before"]["installation"], "orders")
        self.assertEqual(self.sql("SELECT installation, coalesce(kafka_cluster_id, 'none'),"
                                  " reply_topic FROM skald.installation")[0],
                         ["staging", "none", "skald.replies.staging"])
        # offsets of another Kafka mean nothing
        self.assertEqual(self.sql("SELECT count(*) FROM skald.saga_partition")[0][0], "0")
        self.assertEqual(self.sql("SELECT count(*) FROM skald.saga_gap")[0][0], "1")
        audit = self.sql("SELECT reason, before ->> 'stream', after ->> 'stream' FROM"
                         " skald.audit WHERE action = 'db.adopt'")
        self.assertEqual(audit, [["a copy", before[0], stream]])
        self.assertEqual(self.sql("SELECT skald.orchestrator_identity('staging', 'k2',"
                                  " 'skald.replies.staging') IS NULL")[0][0], "t")

    def test_a_source_without_sagas_stays_without(self):
        self.adopt()
        self.assertEqual(self.sql("SELECT count(*) FROM skald.installation")[0][0], "0")

    def test_refused(self):
        self.check(skald("--json", "db", "adopt", "--brokers", self.brokers, url=self.url), 2)
        before = self.relay()
        answer = self.adopt(2, "--set", "daemon.installation=two words")
        self.assertEqual(answer.error()["code"], "SK001")
        self.sql("INSERT INTO skald.lease VALUES ('relay', 'outbox', 'me', 1,"
                 " clock_timestamp() + interval '1 h')")
        self.assertEqual(self.adopt(5).error()["code"], "SK006")
        self.sql("DELETE FROM skald.lease; INSERT INTO skald.saga_owner VALUES ('me',"
                 " clock_timestamp() + interval '1 h')")
        self.assertIn("stop skaldd", self.adopt(5).error()["message"])
        self.check(skald("db", "adopt", "--reason", "x", "--brokers", "127.0.0.1:1",
                         url=self.url), 6)
        self.check(skald("db", "adopt", "--reason", "x", url=kit.NOWHERE), 6)
        self.sql("CREATE ROLE outsider LOGIN IN ROLE skald_reader")
        name = self.url.rsplit("/", 1)[1]
        self.check(skald("db", "adopt", "--reason", "x", "--brokers", self.brokers,
                         url=self.pg.url(name, "outsider")), 5)
        self.assertEqual(self.relay(), before)
        self.assertEqual(self.sql("SELECT count(*) FROM skald.audit")[0][0], "0")

    def test_a_copy_within_the_cluster(self):
        self.add(5, "published")
        self.acknowledge()
        self.add(3, "outstanding")
        answer = self.adopt().json()["after"]
        self.assertEqual((answer["outstanding"], answer["restored"]), (3, False))
        self.assertEqual(self.recovered(), ["outstanding"] * 3)
        self.assertEqual(self.waiting(), 3)
        self.drain()

    def restore(self):
        """The rows and snapshots of a dump from a cluster whose ids are far ahead."""
        self.sql("UPDATE skald.outbox SET xid = (xid::text::bigint + 1000000)::text::xid8;"
                 "UPDATE skald.relay SET acked_snapshot = (SELECT format('%1$s:%1$s:',"
                 " pg_snapshot_xmax(acked_snapshot)::text::bigint + 1000000)::pg_snapshot),"
                 " tick_snapshot = (SELECT format('%1$s:%1$s:',"
                 " pg_snapshot_xmax(tick_snapshot)::text::bigint + 1000000)::pg_snapshot),"
                 " system_identifier = '1'")

    def test_a_dump_restored_into_another_cluster(self):
        self.add(5, "published")
        self.acknowledge()
        self.add(3, "outstanding")
        self.restore()
        self.add(2, "written-here")  # its ids look acknowledged
        self.assertIn("SK005", self.sql(
            "DO $$ BEGIN PERFORM skald.relay_lead(99, 'x', 'poll'); EXCEPTION WHEN OTHERS THEN"
            " PERFORM set_config('test.state', SQLSTATE, false); END $$;"
            "SELECT current_setting('test.state')")[-1][0])
        answer = self.adopt().json()["after"]
        self.assertEqual((answer["outstanding"], answer["restored"]), (5, True))
        self.assertEqual(self.recovered(), ["outstanding"] * 3 + ["written-here"] * 2)
        self.assertEqual(self.waiting(), 5)
        self.drain()
        self.assertEqual(self.sql("SELECT count(*) FROM skald.outbox WHERE"
                                  " xid >= pg_current_xact_id()")[0][0], "0")

    def test_restored_inside_a_tick(self):
        self.add(2, "published")
        self.acknowledge()
        self.add(4, "tick")
        self.sql("UPDATE skald.relay SET tick_snapshot = pg_current_snapshot(), tick = tick + 1,"
                 " done_ordinal = 2, heartbeat_at = clock_timestamp(),"
                 " done_id = (SELECT min(id) + 1 FROM skald.outbox WHERE key = 'tick')")
        self.restore()
        self.assertEqual(self.adopt().json()["after"]["outstanding"], 2)
        self.assertEqual(self.recovered(), ["tick"] * 2)
        self.drain()

    def test_commands_of_sagas_are_looked_for_anew(self):
        self.sql("INSERT INTO skald.saga (id, name, version, key, correlation_id, traceparent,"
                 " command_xid, command_at) VALUES (gen_random_uuid(), 'order', 1, 'k', 'c',"
                 " 't', '5000000', now() - interval '1 h')")
        self.restore()
        self.adopt()
        self.drain()
        self.assertEqual(self.sql(
            "SELECT count(*) FROM skald.saga s, skald.relay r WHERE"
            " pg_visible_in_snapshot(s.command_xid, r.acked_snapshot)")[0][0], "1")

    def test_words_for_people(self):
        answer = self.check(skald("db", "adopt", "--reason", "x", "--brokers", self.brokers,
                                  url=self.url), 0)
        self.assert_narrow(answer.out)
        self.assertIn("a dev broker: not recorded", answer.out)


if __name__ == "__main__":
    kit.main()
