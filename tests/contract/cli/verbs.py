#!/usr/bin/env python3
"""Commands against a database: what they print, for people and for programs."""

import signal
import subprocess
import tempfile

import kit
from kit import skald


class Database(kit.Case):
    def test_migrate_status_and_a_second_source(self):
        first, second = self.pg.create_database(), self.pg.create_database()
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
            conf.write("[database]\nurl = %s\n[source.pay]\nurl = %s\n[source.gone]\nurl = %s\n"
                       % (first, second, kit.NOWHERE))
            conf.flush()
            flags = ("--config", conf.name)
            answer = self.check(skald("db", "status", "--json", *flags), 3)
            self.assertEqual([(x["source"], x["state"]) for x in answer.lines()],
                             [("main", "missing"), ("pay", "missing"),
                              ("gone", "unreachable")])
            answer = self.check(skald("db", "migrate", "--json", *flags), 3)
            self.assertEqual([(x["source"], x["version_before"]) for x in answer.lines()],
                             [("main", 0), ("pay", 0)])
            answer = self.check(skald("db", "migrate", "--source", "pay", *flags), 0)
            self.assertIn("nothing to do", answer.out)
            self.check(skald("db", "status", "--source", "pay", *flags), 0)
            answer = self.check(skald("status", "--json", *flags), 3)
            sources = {x["source"]: x for x in answer.json()["sources"]}
            self.assertEqual(sources["pay"]["relay"]["mode"], "poll")
            self.assertIsNone(sources["pay"]["error"])
            self.assertTrue(sources["gone"]["error"])
            self.check(skald("status", "--source", "pay", *flags), 0)

    def test_without_the_schema(self):
        bare = self.pg.create_database()
        answer = self.check(skald("--json", "dlq", "ls", url=bare), 5)
        self.assertEqual(answer.error()["hint"], "skald db migrate")
        self.check(skald("db", "status", url=bare), 1)
        answer = self.check(skald("doctor", "--json", url=bare), 1)
        schema = [x for x in answer.lines() if x["check"] == "schema"][0]
        self.assertEqual((schema["status"], schema["fix"]), ("fail", "skald db migrate"))

    def test_without_the_right_to_create_roles(self):
        self.sql("CREATE ROLE plain LOGIN")
        self.sql("CREATE DATABASE plain OWNER plain")
        self.check(skald("db", "migrate", "--no-roles", url=self.pg.url("plain", "plain")), 0)

    def test_a_database_that_is_not_there_is_6(self):
        answer = self.check(skald("--json", "status", url=self.pg.url("nosuch")), 6)
        self.assertEqual(answer.error()["code"], "3D000")

    def test_doctor_sees_what_is_wrong(self):
        url = self.pg.create_database()
        self.check(skald("db", "migrate", url=url), 0)
        checks = {x["check"]: x for x in skald("doctor", "--json", url=url).lines()}
        self.assertEqual(checks["server"]["status"], "ok")
        self.assertEqual(checks["outbox"]["status"], "ok")
        self.assertEqual(checks["relay"]["status"], "warn")  # none has ever run
        self.sql("ALTER SEQUENCE skald.outbox_id CACHE 20; DROP TABLE skald.outbox_5", url)
        checks = {x["check"]: x for x in skald("doctor", "--json", url=url).lines()}
        self.assertIn("7 of 8 leaves", checks["outbox"]["message"])
        self.sql(checks["outbox"]["fix"], url)
        self.sql("UPDATE skald.relay SET heartbeat_at = now() - interval '10 min'", url)
        answer = skald("doctor", "--json", url=url)
        checks = {x["check"]: x for x in answer.lines()}
        self.assertIn("caches 20", checks["sequence"]["message"])
        self.assertIn("CACHE 1", checks["sequence"]["fix"])
        self.assertEqual(checks["outbox"]["status"], "ok")
        self.assertEqual(self.sql("SELECT count(DISTINCT (relowner, reloptions)) FROM pg_class"
                                  " WHERE relname ~ '^outbox_[0-7]$'", url), [["1"]])
        self.assertEqual(self.sql("SELECT count(*) FROM pg_indexes WHERE indexname ~"
                                  " '^outbox_[0-7]_xid$' AND schemaname = 'skald'", url),
                         [["8"]])
        self.assertEqual(checks["relay"]["status"], "fail")
        self.assert_narrow(skald("doctor", url=url).out)


class Outbox(kit.Case):
    def add(self, topic="shop.orders", key="k", type_="shop.order.placed", more=""):
        return self.sql("SELECT skald.outbox_add(topic => '%s', key => '%s', type => '%s', "
                        "data => '{}'%s)" % (topic, key, type_, more))[0][0]

    def setUp(self):
        self.sql("TRUNCATE skald.outbox")

    def test_ls(self):
        ids = [self.add(key="order-%d" % n, type_="t%d" % (n % 3),
                        more=", correlation_id => 'c%d'" % n) for n in range(60)]
        answer = self.check(skald("outbox", "ls", url=self.url), 0)
        self.assertIn("50 of 60", answer.out)
        self.assert_narrow(answer.out)
        rows = self.check(skald("outbox", "ls", "--json", "--limit", "0", url=self.url),
                          0).lines()
        self.assertEqual([x["message_id"] for x in rows], ids[::-1])
        self.assertEqual(list(rows[0]), ["id", "at", "message_id", "state", "topic", "type",
                                         "key", "subject", "source", "correlation_id",
                                         "bytes"])
        self.assertEqual(rows[0]["key"], "order-59")
        self.assertEqual(rows[0]["state"], "waiting")
        for flags, count in ((["--type", "t1"], 20), (["--key", "order-7"], 1),
                             (["--correlation", "c9"], 1), (["--topic", "none"], 0),
                             (["--since", "1h"], 60), (["--until", "1h"], 0),
                             (["--waiting"], 60), (["--type", "t1", "--key", "order-1"], 1)):
            answer = self.check(skald("outbox", "ls", "--json", "--limit=0", *flags,
                                      url=self.url), 0)
            self.assertEqual(len(answer.lines()), count, flags)
        self.assertEqual(skald("outbox", "ls", "--topic", "none", url=self.url).out,
                         "no messages\n")

    def test_keys_that_are_no_text(self):
        self.sql("SELECT skald.outbox_add_bytes(topic => 'raw', key => '\\xff1b5b', "
                 "type => 't', data => '\\x00', content_type => 'application/x')")
        row = skald("outbox", "ls", "--json", "--topic", "raw", url=self.url).json()
        self.assertEqual(row["key_base64"], "/xtb")
        answer = skald("outbox", "ls", "--topic", "raw", url=self.url)
        self.assertIn("\\xff\\x1b[", answer.out)
        self.assert_narrow(answer.out)

    def test_a_reader_does_not_learn_about_data(self):
        self.sql("CREATE ROLE outsider LOGIN IN ROLE skald_reader")
        self.add(key="mine")
        row = self.check(skald("--json", "outbox", "ls", url=self.pg.url("orders", "outsider")),
                         0).json()
        self.assertEqual((row["key"], row["bytes"]), ("mine", None))

    def test_tail_follows_commits_not_ids(self):
        """A transaction that began first and commits last is seen, too."""
        late = subprocess.Popen(["psql", "-X", "-q", "-At", "-d", self.url], text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(late.kill)
        late.stdin.write("BEGIN; SELECT skald.outbox_add('tailed', 'late', 't', '{}');\n")
        late.stdin.flush()
        late.stdout.readline()
        tail = subprocess.Popen(
            [kit.SKALD, "--json", "outbox", "tail", "--follow", "--topic", "tailed"],
            env=kit.clean_env({"SKALD_DATABASE_URL": self.url}), stdout=subprocess.PIPE,
            text=True)
        self.addCleanup(tail.kill)
        self.add(topic="tailed", key="early")
        self.assertIn('"key":"early"', tail.stdout.readline())
        late.stdin.write("COMMIT;\n")
        late.stdin.flush()
        self.assertIn('"key":"late"', tail.stdout.readline())
        tail.send_signal(signal.SIGINT)
        self.assertEqual(tail.wait(10), 0)
        late.stdin.close()
        late.wait(10)
        tail.stdout.close()
        late.stdout.close()
        last = skald("outbox", "tail", "--topic", "tailed", "--lines", "1", url=self.url)
        self.assertIn("early", last.out)  # the higher id
        self.assert_narrow(last.out)


class Consumers(kit.Case):
    def setUp(self):
        self.sql("TRUNCATE skald.consumer_partition, skald.consumer_lane;"
                 "INSERT INTO skald.consumer_partition VALUES"
                 " ('shipping', 'shop.orders', 0, 100, 1, 1, NULL),"
                 " ('shipping', 'shop.orders', 1, 50, 1, 1, 'the topic was made again');"
                 "INSERT INTO skald.consumer_lane VALUES"
                 " ('shipping', 'shop.orders', 0, 0, 90, 1, 'a', 1),"
                 " ('shipping', 'shop.orders', 0, 1, 95, 1, 'a', 1),"
                 " ('shipping', 'shop.orders', 1, 0, 50, 1, 'b', 1)")

    def test_ls_sums_the_slowest_lanes(self):
        row = self.check(skald("consumer", "ls", "--json", url=self.url), 0).json()
        self.assertEqual(
            (row["consumer_group"], row["topic"], row["partitions"], row["lanes"], row["lag"],
             row["owners"], row["stopped"]), ("shipping", "shop.orders", 2, 3, 10, 2, 1))
        text = skald("consumer", "ls", url=self.url).out
        self.assertIn("the topic was made again", text)
        self.assert_narrow(text)
        self.assertEqual(skald("consumer", "ls", "--group", "x", url=self.url).out,
                         "no consumers\n")

    def test_the_doctor_can_be_followed(self):
        def stopped():
            return [x for x in skald("doctor", "--json", url=self.url).lines()
                    if x["check"] == "consumers"][0]

        found = stopped()
        self.assertEqual(found["status"], "fail")
        self.sql(found["fix"][found["fix"].index("SELECT"):])
        self.assertEqual(stopped()["status"], "ok")

    def test_lanes(self):
        rows = self.check(skald("consumer", "lanes", "--json", url=self.url), 0).lines()
        self.assertEqual([(x["partition"], x["lane"], x["lag"]) for x in rows],
                         [(0, 0, 10), (0, 1, 5), (1, 0, 0)])
        text = skald("consumer", "lanes", "--limit", "2", url=self.url).out
        self.assertIn("2 of 3", text)
        self.assert_narrow(text)

    def test_status_names_what_needs_somebody(self):
        answer = self.check(skald("status", "--json", url=self.url), 0).json()
        self.assertFalse(answer["ok"])
        self.assertTrue([x for x in answer["attention"] if "the topic was made again" in x])
        self.assertTrue([x for x in answer["attention"] if "skaldd" in x])
        self.assert_narrow(skald("status", url=self.url).out)

    def test_a_reader_sees_all_but_what_is_not_his(self):
        self.sql("CREATE ROLE peeker LOGIN IN ROLE skald_reader")
        url = self.pg.url("orders", "peeker")
        self.assertEqual(skald("consumer", "ls", "--json", url=url).json()["lag"], 10)
        self.check(skald("status", url=url), 0)

    def test_watch_goes_on_until_interrupted(self):
        watch = subprocess.Popen([kit.SKALD, "--json", "status", "--watch"],
                                 env=kit.clean_env({"SKALD_DATABASE_URL": self.url}),
                                 stdout=subprocess.PIPE, text=True)
        self.addCleanup(watch.kill)
        first, second = watch.stdout.readline(), watch.stdout.readline()
        self.assertIn('"at"', first)
        self.assertNotEqual(first, second)
        watch.send_signal(signal.SIGINT)
        self.assertEqual(watch.wait(10), 0)
        watch.stdout.close()


if __name__ == "__main__":
    kit.main()
