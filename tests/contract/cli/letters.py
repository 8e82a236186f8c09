#!/usr/bin/env python3
"""Dead letters: listed, shown, taken out byte by byte, given back once."""

import threading
import time

import kit
from kit import skald

HEADERS = ('{"ce_id": "m-1", "ce_type": "shop.order.placed", "ce_correlationid": "corr-1",'
           ' "raw": {"base64": "AAE="}}')


class Letters(kit.Case):
    def setUp(self):
        self.sql("TRUNCATE skald.dead_letter_entry, skald.audit_entry")

    # -- ls --------------------------------------------------------------------------------

    def test_an_empty_list_is_0(self):
        answer = self.check(skald("dlq", "ls", url=self.url), 0)
        self.assertEqual(answer.out, "no open dead letters\n")
        self.assertEqual(self.check(skald("--json", "dlq", "ls", url=self.url), 0).out, "")

    def test_selections(self):
        a = self.add_letter(offset=1, headers=HEADERS, key="'k-1'")
        b = self.add_letter(group="billing", topic="shop.payments", partition=2, offset=10,
                            cls="DECODE", code="X")
        c = self.add_letter(offset=20, cls="FATAL", message="no stock left of 17")
        d = self.add_letter(offset=30, message="closed")
        self.sql("UPDATE skald.dead_letter_entry SET state = 'resolved' WHERE id = '%s'" % d)
        self.sql("UPDATE skald.dead_letter_entry SET at = at - interval '3 days'"
                 " WHERE id = '%s'" % c)
        fingerprint = self.sql("SELECT fingerprint FROM skald.dead_letters WHERE id = '%s'"
                               % c)[0][0]
        for flags, ids in (
                ([], {a, b, c}), (["--all"], {a, b, c, d}), (["--group", "billing"], {b}),
                (["--topic", "shop.orders"], {a, c}), (["--partition", "2"], {b}),
                (["--offset", "10..20"], {b, c}), (["--offset", "..9"], {a}),
                (["--offset", "15.."], {c}), (["--offset", "20"], {c}),
                (["--key", "k-1"], {a}), (["--type", "shop.order.placed"], {a}),
                (["--class", "decode"], {b}), (["--code", "X"], {b}),
                (["--fingerprint", fingerprint], {c}), (["--correlation", "corr-1"], {a}),
                (["--since", "1d"], {a, b}), (["--until", "1d"], {c}),
                (["--since", "2020-01-01T00:00:00+02:00"], {a, b, c}),
                (["--group", "billing", "--topic", "shop.orders"], set())):
            answer = self.check(skald("--json", "dlq", "ls", *flags, url=self.url), 0)
            self.assertEqual({x["id"] for x in answer.lines()}, ids, flags)
        answer = skald("--json", "dlq", "ls", "--ids", "-", url=self.url,
                       stdin=("%s\n\n%s\n" % (a, c)).encode())
        self.assertEqual({x["id"] for x in answer.lines()}, {a, c})
        answer = skald("dlq", "ls", "--ids", "-", url=self.url, stdin=b"%s\nnonsense\n")
        self.check(answer, 2)

    def test_a_long_list(self):
        self.sql("SELECT skald.dead_letter('g', 't', 0, n, NULL, NULL, '{}', 'RETRY', 'E',"
                 " repeat('long ', 50)) FROM generate_series(1, 120) AS n")
        answer = self.check(skald("dlq", "ls", url=self.url), 0)
        self.assertIn("50 of 120", answer.out)
        self.assertEqual(len(answer.out.splitlines()), 52)
        self.assert_narrow(answer.out)
        self.assertEqual(
            len(skald("--json", "dlq", "ls", "--limit", "0", url=self.url).lines()), 120)

    def test_text_of_strangers_does_not_steer_the_terminal(self):
        bad = "\\033[31mred\\r\\nnext \u202e turned"
        self.sql("SELECT skald.dead_letter('g', 't', 0, 1, E'k\\033]0;title', NULL, '{}',"
                 " 'RETRY', 'E', E'%s')" % bad)
        for verb in (["ls"], ["show", skald("--json", "dlq", "ls", url=self.url).json()["id"]]):
            answer = self.check(skald("dlq", *verb, url=self.url), 0)
            self.assert_narrow(answer.out)
            self.assertNotIn("\u202e", answer.out)

    # -- show, cat -----------------------------------------------------------------------------

    def test_show(self):
        value = '{"order": 9007199254740993, "price": 10.00, "lines": [], "to": {"n": null}}'
        one = self.add_letter(offset=7, headers=HEADERS, key="'order-7'", value="'%s'" % value)
        answer = self.check(skald("dlq", "show", one[:8], url=self.url), 0)
        for text in (one, "shipping", "partition 0 offset 7", "it failed", "corr-1",
                     "order-7", "9007199254740993", "10.00", "base64:AAE=", "What next",
                     "skald dlq replay " + one[:8]):
            self.assertIn(text, answer.out)
        self.assert_narrow(answer.out)
        row = self.check(skald("--json", "dlq", "show", one.upper(), url=self.url), 0).json()
        self.assertEqual(row["value"], value)
        self.assertEqual(row["headers"]["ce_correlationid"], "corr-1")
        self.assertEqual((row["record_offset"], row["attempts"], row["state"]), (7, 1, "dead"))

    def test_show_of_bytes_and_nothing(self):
        one = self.add_letter(offset=1, key="NULL", value="'\\x00ff414243'")
        text = skald("dlq", "show", one, url=self.url).out
        self.assertIn("00 ff 41 42 43", text)
        self.assertIn("|..ABC|", text)
        row = skald("--json", "dlq", "show", one, url=self.url).json()
        self.assertEqual((row["key"], row["value_base64"]), (None, "AP9BQkM="))
        two = self.add_letter(offset=2, value="NULL")
        self.assertIn("tombstone", skald("dlq", "show", two, url=self.url).out)

    def test_a_large_value_is_previewed(self):
        self.sql("SELECT skald.dead_letter('g', 't', 0, 1, NULL, convert_to('[' ||"
                 " repeat('1,', 5000000) || '1]', 'UTF8'), '{}', 'RETRY', 'E', 'big')")
        one = skald("--json", "dlq", "ls", url=self.url).json()["id"]
        answer = self.check(skald("dlq", "show", one, url=self.url), 0)
        self.assertLess(len(answer.out), 5000)
        self.assertIn("10000003 bytes", answer.out)
        self.assertEqual(len(skald("dlq", "cat", one, url=self.url).raw), 10000003)

    def test_cat_is_exact(self):
        one = self.add_letter(key="'\\x6b00ff'", value="'\\x0a000d0aff'", headers=HEADERS)
        self.assertEqual(skald("dlq", "cat", one, url=self.url).raw, b"\n\0\r\n\xff")
        self.assertEqual(skald("dlq", "cat", one, "--value", url=self.url).raw,
                         b"\n\0\r\n\xff")
        self.assertEqual(skald("dlq", "cat", one, "--key", url=self.url).raw, b"k\0\xff")
        self.assertEqual(skald("dlq", "cat", one, "--headers", url=self.url).json()["ce_id"],
                         "m-1")
        none = self.add_letter(offset=9, key="NULL", value="NULL")
        self.check(skald("dlq", "cat", none, "--key", url=self.url), 1)

    def test_ids(self):
        one = self.add_letter()
        self.check(skald("dlq", "show", "ffffffff", url=self.url), 1)
        self.check(skald("dlq", "show", "not-an-id", url=self.url), 2)
        self.check(skald("dlq", "show", one[:3], url=self.url), 2)  # too short to mean one
        self.check(skald("dlq", "show", one + "0", url=self.url), 2)
        self.sql("INSERT INTO skald.dead_letter_entry SELECT (jsonb_populate_record(d,"
                 " jsonb_build_object('id', left(d.id::text, 35) ||"
                 " CASE right(d.id::text, 1) WHEN '0' THEN '1' ELSE '0' END,"
                 " 'record_offset', 99))).* FROM skald.dead_letter_entry AS d")
        answer = self.check(skald("--json", "dlq", "show", one[:8], url=self.url), 2)
        self.assertEqual(answer.error()["code"], "ambiguous")
        self.check(skald("dlq", "show", one, url=self.url), 0)

    def test_payload_is_for_operators(self):
        self.sql("DO $$ BEGIN CREATE ROLE reader LOGIN IN ROLE skald_reader;"
                 " CREATE ROLE operator LOGIN IN ROLE skald_operator; END $$")
        one = self.add_letter(value="'secret'", headers=HEADERS)
        reader, operator = (self.pg.url("orders", x) for x in ("reader", "operator"))
        answer = self.check(skald("dlq", "show", one, url=reader), 0)
        self.assertIn("withheld", answer.out)
        self.assertNotIn("shop.order.placed", answer.out)
        row = skald("--json", "dlq", "show", one, url=reader).json()
        self.assertTrue(row["payload_withheld"])
        self.assertNotIn("value", row)
        self.check(skald("dlq", "ls", "--group", "shipping", url=reader), 0)
        for args in (["cat", one], ["ls", "--key", "k"], ["replay", one]):
            answer = self.check(skald("--json", "dlq", *args, url=reader), 5)
            self.assertEqual(answer.error()["code"], "42501")
            self.assertIn("skald_operator", answer.error()["hint"])
        self.assertEqual(skald("dlq", "cat", one, url=operator).out, "secret")
        self.check(skald("dlq", "replay", one, url=operator), 0)

    # -- replay ------------------------------------------------------------------------------------

    def test_replay_asks_once_and_is_audited(self):
        one = self.add_letter()
        self.check(skald("dlq", "replay", one, "--dry-run", url=self.url), 0)
        self.assertEqual(self.sql("SELECT state FROM skald.dead_letters"), [["dead"]])
        answer = self.check(skald("--json", "dlq", "replay", one[:8], "--reason",
                                  "stock corrected", "--actor", "ada", url=self.url), 0)
        self.assertEqual(answer.json(), {"id": one, "state": "requested",
                                         "consumer_group": "shipping"})
        self.assertEqual(
            self.sql("SELECT actor, action, target, reason FROM skald.audit"),
            [["ada", "dlq.replay", one, "stock corrected"]])
        answer = self.check(skald("--json", "dlq", "replay", one, url=self.url), 5)
        self.assertEqual(answer.error()["code"], "SK006")
        self.check(skald("dlq", "replay", one, "--dry-run", url=self.url), 5)
        self.check(skald("dlq", "replay", "ffffffff", url=self.url), 1)
        self.assertEqual(len(self.sql("SELECT 1 FROM skald.audit")), 1)

    def test_two_terminals_at_once(self):
        one = self.add_letter()
        codes = []
        threads = [threading.Thread(target=lambda: codes.append(
            skald("dlq", "replay", one, url=self.url).code)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(codes), [0, 5, 5, 5])

    def ends_as(self, one, state):
        """What a consumer would do, a moment after the request."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.sql("UPDATE skald.dead_letter_entry SET state = '%s', message = 'again'"
                        " WHERE id = '%s' AND state = 'requested' RETURNING 1"
                        % (state, one)):
                return
            time.sleep(0.02)

    def test_wait(self):
        for offset, (state, code) in enumerate((("resolved", 0), ("dead", 1), ("expired", 1))):
            one = self.add_letter(offset=offset)
            consumer = threading.Thread(target=self.ends_as, args=(one, state))
            consumer.start()
            answer = skald("--json", "dlq", "replay", one, "--wait", url=self.url)
            consumer.join()
            self.check(answer, code)
            self.assertEqual(answer.json()["state"], state)
        one = self.add_letter(offset=9)
        answer = skald("--json", "dlq", "replay", one, "--wait", "--timeout", "300ms",
                       url=self.url)
        self.check(answer, 4)
        self.assertEqual(answer.error()["code"], "timeout")


if __name__ == "__main__":
    kit.main()
