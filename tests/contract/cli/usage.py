#!/usr/bin/env python3
"""Words and flags: what is refused, with which status, and what is suggested instead."""

import os
import re
import subprocess
import tempfile
import unittest

import kit
from kit import skald

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))


class Usage(unittest.TestCase):
    def refuse(self, args, *texts):
        answer = skald(*args)
        self.assertEqual(answer.code, 2, answer.out + answer.err)
        self.assertEqual(answer.out, "")
        for text in texts:
            self.assertIn(text, answer.err)

    def test_unknown_words_get_the_nearest(self):
        self.refuse(["dlq", "lss"], "dlq lss: no such command", "did you mean `skald dlq ls`?")
        self.refuse(["dql", "ls"], "did you mean `skald dlq`?")
        self.refuse(["statsu"], "did you mean `skald status`?")
        self.refuse(["frobnicate"], "status, doctor, db, outbox, consumer, dlq")
        self.refuse(["db", "frobnicate"], "migrate, status, grants")

    def test_unknown_flags_get_the_nearest(self):
        self.refuse(["dlq", "ls", "--grup", "x"], "--grup: no such flag", "--group?")
        self.refuse(["status", "--wacth"], "did you mean --watch?")
        self.refuse(["--jsno", "status"], "did you mean --json?")
        self.refuse(["status", "--group", "x"], "--group: no such flag")
        self.refuse(["status", "--json=1"], "--json: takes no value")
        self.refuse(["dlq", "ls", "--topic"], "--topic: needs a value")

    def test_arguments_are_counted(self):
        self.refuse(["dlq", "show"], "dlq show: needs ID")
        self.refuse(["dlq", "show", "a", "b"], "'b' is one argument too many")
        self.refuse(["status", "x"], "'x' is one argument too many")
        self.refuse(["dlq"], "usage: skald dlq VERB")
        self.refuse([], "usage: skald COMMAND")

    def test_later_verbs_do_not_exist_yet(self):
        for args in (["saga", "cancel"], ["saga", "explain"], ["schema", "ls"], ["dlq", "edit"],
                     ["consumer", "pause"]):
            self.refuse(args, "no such command")

    def test_values_of_flags_are_checked_before_anything_is_asked(self):
        for args, text in (
                (["dlq", "ls", "--class", "odd"], "--class: 'odd' is none of RETRY"),
                (["dlq", "ls", "--offset", "9..3"], "--offset: '9..3'"),
                (["dlq", "ls", "--offset", ".."], "--offset: '..'"),
                (["dlq", "ls", "--partition", "-1"], "--partition: '-1'"),
                (["dlq", "ls", "--limit", "many"], "--limit: 'many'"),
                (["dlq", "ls", "--since", "yesterday"], "--since: 'yesterday'"),
                (["dlq", "ls", "--ids", "x"], "--ids: takes -"),
                (["dlq", "replay", "abcd", "--timeout", "soon"], "--timeout: 'soon'"),
                (["dlq", "cat", "abcd", "--key", "--value"], "one of them"),
                (["db", "grants", "--as", "king"], "--as: 'king'"),
                (["status", "--source", "nope"], "no [source.nope]"),
                (["status", "--set", "daemon.rolls=relay"], "roles"),
                (["status", "--set", "relay.poll_max=100parsec"], "relay.poll_max")):
            self.refuse(args, text)

    def test_errors_as_json(self):
        for args in (["dlq", "lss"], ["dlq", "ls", "--grup", "x"], ["dlq"], ["dlq", "show"],
                     ["dlq", "ls", "--class", "odd"], ["status", "--set", "a.b=c"]):
            answer = skald("--json", *args)
            self.assertEqual(answer.code, 2)
            self.assertEqual(answer.out, "")
            self.assertTrue(answer.error()["message"])
        error = skald("--json", "dlq", "ls", "--grup", "x").error()
        self.assertEqual(error["code"], "usage")
        self.assertEqual(error["field"], "--grup")
        self.assertEqual(error["hint"], "did you mean --group?")

    def test_help_everywhere_in_80_columns(self):
        whole = skald("--help")
        commands = [["--help"], ["dlq", "--help"]]
        for noun, verb in (("status", ""), ("doctor", ""), ("db", "migrate"), ("db", "status"),
                           ("db", "grants"), ("db", "adopt"), ("saga", "validate"),
                           ("saga", "deploy"), ("saga", "defs"), ("saga", "use"),
                           ("saga", "retire"), ("saga", "start"), ("saga", "ls"),
                           ("saga", "show"), ("saga", "history"), ("trace", ""),
                           ("outbox", "ls"), ("outbox", "tail"),
                           ("consumer", "ls"), ("consumer", "lanes"), ("dlq", "ls"),
                           ("dlq", "show"), ("dlq", "cat"), ("dlq", "replay"),
                           ("config", "sample"), ("config", "show"), ("version", "")):
            self.assertIn((noun + " " + verb).strip(), whole.out)
            commands.append([noun] + ([verb] if verb else []) + ["--help"])
        for args in commands:
            answer = skald(*args)
            self.assertEqual(answer.code, 0, answer.err)
            self.assertIn("usage: skald", answer.out)
            for line in answer.out.splitlines():
                self.assertLessEqual(len(line), 80, line)

    def test_flags_stand_anywhere(self):
        for args in (["--limit", "5", "dlq", "ls"], ["dlq", "--limit=5", "ls"]):
            answer = skald("--database", kit.NOWHERE, *args)
            self.assertEqual(answer.code, 6, answer.err)

    def test_nobody_there_is_6(self):
        for args in (["status"], ["db", "migrate"], ["db", "status"], ["outbox", "ls"],
                     ["consumer", "ls"], ["dlq", "ls"], ["dlq", "show", "abcd"],
                     ["dlq", "replay", "abcd"], ["saga", "ls"], ["saga", "show", "order/k"],
                     ["saga", "defs"], ["saga", "start", "order", "--key", "k"],
                     ["trace", "x"]):
            answer = skald("--json", *args, url=kit.NOWHERE)
            self.assertEqual(answer.code, 6, args)
            if args != ["db", "status"]:
                self.assertTrue(answer.error()["code"].startswith("08"), answer.err)
        self.assertEqual(skald("status", url="postgresql://x@[broken").code, 2)

    def test_a_doctor_without_anything_says_fail(self):
        answer = skald("doctor", "--json", url=kit.NOWHERE)
        self.assertEqual(answer.code, 1)
        checks = {line["check"]: line for line in answer.lines()}
        self.assertEqual(checks["database"]["status"], "fail")
        self.assertEqual(checks["brokers"]["status"], "fail")
        for line in answer.lines():
            self.assertEqual(list(line), ["check", "source", "status", "message", "fix"])
            if line["status"] == "fail":
                self.assertTrue(line["fix"], line)

    def test_version_without_a_database(self):
        answer = skald("version", "--json", url=kit.NOWHERE).json()
        self.assertEqual(list(answer), ["skald", "libpq", "librdkafka", "schema"])
        self.assertIsNone(answer["schema"])
        self.assertRegex(answer["librdkafka"], r"^\d+\.\d+\.\d+")

    def test_config(self):
        with tempfile.TemporaryDirectory() as place:
            path = os.path.join(place, "skald.conf")
            with open(path, "w") as f:
                f.write("[log]\nlevel = warn\n")
            shown = skald("config", "show", cwd=place,
                          env={"SKALD_LOG_FORMAT": "json"}).out
            self.assertRegex(shown, r"level = warn +; (\./)?skald.conf:2")
            self.assertRegex(shown, r"format = json +; SKALD_LOG_FORMAT")
            sample = skald("config", "sample")
            self.assertEqual(sample.code, 0)
            with open(path, "w") as f:
                f.write(sample.out)
            self.assertEqual(skald("config", "show", cwd=place).code, 0)
            with open(path, "w") as f:
                f.write("[log]\nlevle = warn\n")
            answer = skald("--json", "config", "show", cwd=place)
            self.assertEqual(answer.code, 2)
            self.assertIn("skald.conf:2", answer.error()["message"])
            # the way out must not be shut by what it repairs
            self.assertEqual(skald("config", "sample", cwd=place).code, 0)

    def test_the_manual_knows_every_key(self):
        with open(os.path.join(ROOT, "docs/man/skald.conf.5")) as f:
            manual = f.read()
        keys = 0
        for line in skald("config", "sample").out.splitlines():
            found = re.match(r"^;?\[([a-z_]+)|^;?([a-z_.]+) =", line)
            if found:
                keys += 1
                self.assertRegex(manual, r"(?m)[\[. ]%s\b" % re.escape(found[1] or found[2]))
        self.assertGreater(keys, 30)

    def test_the_manual_knows_every_command(self):
        with open(os.path.join(ROOT, "docs/man/skald.1")) as f:
            manual = f.read().replace("\\-", "-").replace('"', "")
        commands = skald("--help").out.split("Commands\n")[1].split("\n\n")[0]
        for line in commands.splitlines():
            words = re.match(r"^  ([a-z]+(?: [a-z]+)?)(?: [\[A-Z].*)?(?:  |$)", line)
            if words:
                self.assertIn(words[1], manual)

    def test_quiet_leaves_errors_only(self):
        answer = skald("--quiet", "config", "sample")
        self.assertEqual((answer.code, answer.out), (0, ""))
        answer = skald("--quiet", "dlq", "ls", url=kit.NOWHERE)
        self.assertEqual(answer.code, 6)
        self.assertTrue(answer.err)

    def test_a_full_disk_is_no_success(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([kit.SKALD, "config", "sample"], stdout=full,
                                  stderr=subprocess.PIPE, env=kit.clean_env(), timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"could not write", done.stderr)

    def test_grants_quote_the_role(self):
        answer = skald("db", "grants", 'my"role', "--json").json()
        self.assertEqual(answer["statement"], 'GRANT skald_app TO "my""role";')
        self.assertIn("skald_operator TO", skald("db", "grants", "--as", "operator").out)


if __name__ == "__main__":
    kit.main()
