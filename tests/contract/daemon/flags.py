#!/usr/bin/env python3
"""skaldd's command line and configuration: what is printed, what is refused and how."""

import os
import socket
import subprocess
import tempfile
import unittest

from skaldtest.proc import bin_path, clean_env

SKALDD = bin_path("skaldd")


def skaldd(*args, env=None, cwd="/"):
    return subprocess.run([SKALDD] + list(args), capture_output=True, text=True, timeout=30,
                          env=clean_env(env), cwd=cwd)


class Flags(unittest.TestCase):
    def refuse(self, args, text, code=2):
        done = skaldd("--set", "http.listen=127.0.0.1:0", *args)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(text, done.stderr)

    def test_what_is_printed(self):
        help_text = skaldd("--help")
        self.assertEqual(help_text.returncode, 0)
        for line in help_text.stdout.splitlines():
            self.assertLessEqual(len(line), 80)
        self.assertRegex(skaldd("--version").stdout, r"^skaldd \d+\.\d+\.\d+\n$")
        names = {}
        for line in skaldd("--list-failpoints").stdout.splitlines():
            name, meaning = line.split("\t")
            names[name] = meaning
        for name in ("after_tick", "after_read", "after_produce", "after_ack", "before_mark",
                     "after_truncate_check"):
            self.assertTrue(names["relay_" + name])
        for name in ("after_begin", "after_handler", "before_commit", "after_commit",
                     "before_offset", "after_dead_letter"):
            self.assertTrue(names["runner_" + name])

    def test_configuration_with_where_it_comes_from(self):
        with tempfile.TemporaryDirectory() as place:
            with open(os.path.join(place, "skald.conf"), "w") as f:
                f.write("# ours\n[relay]\npoll_max = 50ms\n[log]\nlevel = warn\n"
                        "[kafka]\nsasl.password = hunter2\n")
            done = skaldd("--print-config", "--set", "log.level=debug", cwd=place,
                          env={"SKALD_TOPICS_PARTITIONS": "3"})
        self.assertEqual(done.returncode, 0, done.stderr)
        for rule in (r"poll_max = 50ms +; (\./)?skald.conf:3", r"level = debug +; --set",
                     r"partitions = 3 +; SKALD_TOPICS_PARTITIONS",
                     r"poll_min = 2ms +; default"):
            self.assertRegex(done.stdout, rule)
        self.assertNotIn("hunter2", done.stdout)

    def test_wrong_words(self):
        self.refuse(["--rolls", "relay"], "did you mean --roles?")
        self.refuse(["--dve"], "did you mean --dev?")
        self.refuse(["--dev=yes"], "--dev=yes")
        self.refuse(["relay"], "takes flags only")
        self.refuse(["--roles"], "--roles: needs a value")

    def test_roles(self):
        self.refuse(["--roles", "operator"], "roles are relay, orchestrator and dev-broker")
        self.refuse(["--roles", "relay,brewer"], "no role 'brewer'")
        self.refuse(["--roles", ","], "--roles")
        self.refuse(["--set", "daemon.roles=operator"], "dev-broker")

    def test_configuration_that_cannot_work_ends_the_start(self):
        kafka = ["--set", "kafka.bootstrap.servers=127.0.0.1:1"]
        self.refuse(["--set", "relay.pol_max=1s"], "poll_max")
        self.refuse(["--set", "relay.poll_max=1parsec"], "relay.poll_max")
        self.refuse(["--set", "kafka.no.such.thing=1"], "no.such.thing")
        self.refuse([], "bootstrap.servers")
        self.refuse(kafka + ["--set", "relay.poll_min=2s", "--set", "relay.poll_max=1s"],
                    "poll_min")
        self.refuse(kafka + ["--set", "source.pay.poll_max=1s"], "source.pay.url")
        self.refuse(kafka + ["--set", "source.main.url=postgresql:///x"], "[source.main]")
        for url in ("postgresql://x@[oops", "host=x nonsense=y"):
            wrong = kafka + ["--set", "database.url=" + url, "--roles"]
            self.refuse(wrong + ["relay"], "source main")
            self.refuse(wrong + ["orchestrator"], '"could not start","error":"url: ')
        self.refuse(["--roles", "dev-broker", "--set", "dev_broker.listen=10.0.0.1:0"],
                    "dev_broker.listen")
        self.refuse(["--config", "/nonexistent/skald.conf"], "/nonexistent/skald.conf")

    def test_listening(self):
        kafka = ["--set", "kafka.bootstrap.servers=127.0.0.1:1"]
        self.refuse(kafka + ["--set", "http.listen=0.0.0.0:0"], "http.token_file")
        self.refuse(kafka + ["--set", "http.listen=nonsense"], "http.listen: 'nonsense'")
        self.refuse(kafka + ["--set", "http.listen=0.0.0.0:0", "--set",
                             "http.token_file=/nonexistent"], "http.token_file")
        with tempfile.NamedTemporaryFile("w") as tokens:
            tokens.write("ada\n")
            tokens.flush()
            self.refuse(kafka + ["--set", "http.token_file=" + tokens.name], "line 1")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            listen = "127.0.0.1:%d" % taken.getsockname()[1]
            self.refuse(kafka + ["--set", "http.listen=" + listen], listen, code=1)


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
