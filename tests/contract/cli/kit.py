"""Runs `skald` against a private PostgreSQL: what the tests of its commands share."""

import json
import os
import subprocess
import sys
import unittest

from skaldtest.pg import Cluster, psql
from skaldtest.proc import bin_path, clean_env

SKALD = bin_path("skald")
NOWHERE = "postgresql://x@127.0.0.1:1/x?connect_timeout=2"


class Answer:
    def __init__(self, done):
        self.code = done.returncode
        self.raw = done.stdout
        self.out = done.stdout.decode(errors="replace")
        self.err = done.stderr.decode(errors="replace")

    def json(self):
        """The one object of stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out + self.err
        return json.loads(lines[0])

    def lines(self):
        """One object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def error(self):
        """The one error object of stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        value = json.loads(lines[0])
        assert list(value) == ["error"], value
        assert list(value["error"]) == ["code", "message", "field", "hint"], value
        return value["error"]


def skald(*args, url=None, env=None, stdin=b"", cwd="/"):
    """Without a terminal, without configuration of the surroundings, 80 columns."""
    more = {"SKALD_DATABASE_URL": url} if url else {}
    more.update(env or {})
    return Answer(subprocess.run([SKALD] + list(args), input=stdin, capture_output=True,
                                 env=clean_env(more), cwd=cwd, timeout=60))


class Case(unittest.TestCase):
    """A cluster for the class; url and sql() of a migrated database."""

    @classmethod
    def setUpClass(cls):
        cls.pg = Cluster().create()
        cls.addClassCleanup(cls.pg.destroy)
        cls.url = cls.pg.create_database("orders")
        done = skald("db", "migrate", url=cls.url)
        assert done.code == 0, done.err

    def sql(self, script, url=None):
        return psql(url or self.url, script)

    def check(self, answer, code):
        self.assertEqual(answer.code, code, answer.out + answer.err)
        return answer

    def assert_narrow(self, text):
        """80 columns, and no control characters but the line feed."""
        for line in text.splitlines():
            self.assertLessEqual(len(line), 80, line)
            self.assertTrue(line.isprintable(), repr(line))

    def add_letter(self, group="shipping", topic="shop.orders", partition=0, offset=0,
                   key="'k'", value="'{\"a\":1}'", headers="{}", cls="RETRY", code="E1",
                   message="it failed", url=None):
        return self.sql(
            "SELECT skald.dead_letter('%s', '%s', %d, %d, %s, %s, '%s', '%s', '%s', '%s')"
            % (group, topic, partition, offset, key, value, headers, cls, code, message),
            url)[0][0]


def main():
    if not os.access(SKALD, os.X_OK):
        sys.exit("no program at " + SKALD)
    unittest.main(verbosity=2, warnings="ignore")
