#!/usr/bin/env python3
"""skald.relays and `skald status` about both ways out of the outbox, by tables and slots."""

import kit
from kit import skald


class Relays(kit.Case):
    """What the relay records is written by hand; the slot is a real one."""

    def setUp(self):
        self.url = self.pg.create_database()
        self.check(skald("db", "migrate", url=self.url), 0)
        self.slot = "skald_" + self.sql("SELECT stream FROM skald.relay")[0][0]
        self.addCleanup(self.drop_slot)

    def drop_slot(self):
        self.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                 " WHERE slot_name = '%s'" % self.slot)

    def make_slot(self):
        self.sql("SELECT pg_create_logical_replication_slot('%s', 'pgoutput')" % self.slot)

    def view(self, *columns):
        row = self.sql("SELECT %s FROM skald.relays" % ", ".join(
            "coalesce(%s::text, '-')" % c for c in columns))[0]
        return row[0] if len(columns) == 1 else row

    def stream(self):
        """As the relay leaves it that streams and has acknowledged everything."""
        self.sql("UPDATE skald.relay SET mode = 'wal', heartbeat_at = clock_timestamp(),"
                 " acked_snapshot = pg_current_snapshot(), tick_snapshot = pg_current_snapshot(),"
                 " acked_lsn = pg_current_wal_lsn(), snapshot_lsn = pg_current_wal_lsn(),"
                 " owner = 'host:1:a', position = '6925aa00.0000000001b2c3d4.00000001'")

    def add(self, count=1, topic="t"):
        self.sql("SELECT skald.outbox_add('%s', 'k', 'x', '{}') FROM generate_series(1, %d)"
                 % (topic, count))

    def attention(self):
        answer = self.check(skald("status", "--json", url=self.url), 0).json()
        return answer["sources"][0]["relay"], answer["attention"]

    def test_columns_are_where_they_were(self):
        names = [r[0] for r in self.sql(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'skald.relays'::regclass"
            " AND attnum > 0 ORDER BY attnum")]
        self.assertEqual(names[:12], [
            "source", "mode", "stream", "term", "epoch", "position", "lag_rows", "lag_bytes",
            "lag_seconds", "parked_keys", "owner", "heartbeat_at"])
        self.assertEqual(names[12:], [
            "slot", "slot_status", "safe_wal_size", "wal_held_bytes", "spill_bytes",
            "parked_messages", "recovering", "slot_dropped", "slot_dropped_at", "epoch_wanted"])

    def test_poll(self):
        self.add(2)
        self.assertEqual(self.view("mode", "lag_rows", "lag_bytes", "slot", "slot_status",
                                   "recovering"), ["poll", "2", "-", "-", "-", "false"])
        text = self.check(skald("status", url=self.url), 0).out
        self.assertNotIn("SLOT", text)
        self.assert_narrow(text)

    def test_wal(self):
        self.make_slot()
        self.stream()
        self.assertEqual(self.view("lag_rows", "slot", "slot_status", "safe_wal_size"),
                         ["0", self.slot, "inactive", "-"])
        before = int(self.view("lag_bytes"))
        self.add(100)
        after = int(self.view("lag_bytes"))
        self.assertGreater(after - before, 100 * 50)
        self.assertEqual(self.view("lag_rows"), "100")
        self.assertGreaterEqual(int(self.view("wal_held_bytes")), after)
        text = self.check(skald("status", url=self.url), 0).out
        self.assertIn("SLOT", text)
        self.assertIn("inactive", text)
        self.assert_narrow(text)
        relay, attention = self.attention()
        self.assertEqual((relay["mode"], relay["slot_status"]), ("wal", "inactive"))
        self.assertIsInstance(relay["lag_bytes"], int)
        self.assertTrue([a for a in attention if "slot is inactive" in a])

    def test_missing(self):
        self.stream()
        self.assertEqual(self.view("slot", "slot_status", "wal_held_bytes"),
                         [self.slot, "missing", "-"])
        self.assertTrue([a for a in self.attention()[1] if "slot is missing" in a])

    def test_dropped_and_catching_up(self):
        self.sql("UPDATE skald.relay SET slot_dropped_at = now() - interval '3 min',"
                 " slot_dropped = 'it held 10 GiB of WAL', heartbeat_at = clock_timestamp(),"
                 " recover_from = '6925aa00.0000000001b2c3d4.00000000', epoch_wanted = true")
        self.assertEqual(self.view("recovering", "epoch_wanted"), ["true", "true"])
        relay, attention = self.attention()
        self.assertEqual((relay["recovering"], relay["slot_dropped"]),
                         (True, "it held 10 GiB of WAL"))
        for words in ("polls since 3m", "10 GiB", "catches up", "new epoch"):
            self.assertTrue([a for a in attention if words in a], words)
        self.assert_narrow(skald("status", url=self.url).out)
        # as it was asked for: told, but nothing to see to
        self.sql("UPDATE skald.relay SET slot_dropped = 'mode poll is configured',"
                 " recover_from = NULL, epoch_wanted = false")
        self.assertEqual(self.attention()[1], [])

    def test_markers_are_no_lag(self):
        self.add(2)
        self.sql("INSERT INTO skald.parked_key (kind, place, topic, key, head_message_id, waiting,"
                 " reason) VALUES ('relay', 'main', 't', 'k', 'x', 7, 'too large'),"
                 " ('consumer', 'g', 't', 'k', 'x', 5, 'other')")
        self.assertEqual(self.sql("SELECT skald.park_release('t', 'k')")[0][0], "t")
        self.assertEqual(self.view("lag_rows", "parked_keys", "parked_messages"),
                         ["2", "1", "7"])
        self.assertEqual(self.sql("SELECT count(*) FROM skald.outbox")[0][0], "3")
        attention = self.attention()[1]
        self.assertTrue([a for a in attention if "1 keys are parked, 7 messages" in a])

    def test_a_reader_sees_it_all(self):
        self.make_slot()
        self.stream()
        role = "seer_" + self.url.rsplit("_", 1)[1]
        self.sql("CREATE ROLE %s LOGIN IN ROLE skald_reader" % role)
        url = self.pg.url(self.url.rsplit("/", 1)[1], role)
        relay = self.check(skald("status", "--json", url=url), 0).json()["sources"][0]["relay"]
        self.assertEqual(relay["slot_status"], "inactive")
        self.assertGreaterEqual(relay["lag_bytes"], 0)
        self.assertEqual(relay["spill_bytes"], 0)

    def test_an_older_server_has_no_statistics_of_slots(self):
        """PostgreSQL 13: the view must not need pg_stat_replication_slots."""
        names = self.sql("SELECT DISTINCT c.relname FROM pg_depend d JOIN pg_rewrite w ON"
                         " w.oid = d.objid JOIN pg_class c ON c.oid = d.refobjid"
                         " WHERE w.ev_class = 'skald.relays'::regclass")
        self.assertNotIn(["pg_stat_replication_slots"], names)


class Safe(kit.Case):
    """A bound on what slots may hold: the slot tells how far it is, and is lost beyond."""

    def test_lost(self):
        self.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB';")
        self.sql("ALTER SYSTEM SET max_wal_size = '64MB';")
        self.sql("SELECT pg_reload_conf()")
        slot = "skald_" + self.sql("SELECT stream FROM skald.relay")[0][0]
        self.sql("SELECT pg_create_logical_replication_slot('%s', 'pgoutput')" % slot)
        self.sql("UPDATE skald.relay SET mode = 'wal', heartbeat_at = clock_timestamp(),"
                 " acked_lsn = pg_current_wal_lsn()")
        relay = skald("status", "--json", url=self.url).json()["sources"][0]["relay"]
        self.assertGreater(relay["safe_wal_size"], 16 << 20)
        attention = skald("status", "--json", url=self.url).json()["attention"]
        self.assertTrue([a for a in attention if "is lost after" in a], attention)
        for _ in range(6):
            self.sql("SELECT pg_switch_wal(); SELECT txid_current(); CHECKPOINT")
        relay = skald("status", "--json", url=self.url).json()["sources"][0]["relay"]
        self.assertEqual((relay["slot_status"], relay["safe_wal_size"]), ("lost", None))
        self.assert_narrow(skald("status", url=self.url).out)


if __name__ == "__main__":
    kit.main()
