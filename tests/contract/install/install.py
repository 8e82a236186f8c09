#!/usr/bin/env python3
"""`cmake --install` into an empty place: complete, and usable from outside the tree."""

import os
import re
import subprocess
import sys
import tempfile
import unittest

BUILD = sys.argv.pop(1)
EXPECTED = """bin/skald bin/skaldd lib/libskald.a lib/libskald.so lib/pkgconfig/skald.pc
lib/systemd/system/skaldd.service share/man/man1/skald.1 share/man/man5/skald.conf.5
share/man/man8/skaldd.8 include/skald/skald.h include/skald/outbox.h include/skald/consumers.h
include/skald/sql.h include/skald/base/err.h share/skald/sql/migrations/0001.sql""".split()


def run(*argv, **more):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, **more)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        place = tempfile.TemporaryDirectory(prefix="skald-install-")
        cls.addClassCleanup(place.cleanup)
        cls.prefix = place.name
        done = run("cmake", "--install", BUILD, "--prefix", cls.prefix)
        assert done.returncode == 0, done.stderr

    def path(self, name):
        """lib may be lib/TRIPLET."""
        for base in ("", "lib/x86_64-linux-gnu/", "lib64/"):
            tried = os.path.join(self.prefix, base + name[4:] if base else name)
            if os.path.exists(tried):
                return tried
        return os.path.join(self.prefix, name)

    def test_everything_is_there(self):
        for name in EXPECTED:
            self.assertTrue(os.path.exists(self.path(name)), name)

    def test_each_header_stands_alone(self):
        """Compiled with the place of installation as the only way to our headers."""
        found = 0
        for folder, _, names in os.walk(os.path.join(self.prefix, "include")):
            for name in names:
                header = os.path.relpath(os.path.join(folder, name),
                                         os.path.join(self.prefix, "include"))
                done = run("cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                           "-I", os.path.join(self.prefix, "include"), "-x", "c", "-",
                           input="#include <%s>\nint main(void) { return 0; }\n" % header,
                           cwd="/")
                self.assertEqual(done.returncode, 0, done.stderr)
                found += 1
        self.assertGreater(found, 15)

    def test_the_library_exports_skald_and_nothing_else(self):
        done = run("nm", "-D", "--defined-only", self.path("lib/libskald.so"))
        names = [line.split()[-1] for line in done.stdout.splitlines()]
        self.assertIn("skald_outbox_add", names)
        for name in names:
            self.assertRegex(name, r"^skald_[a-z0-9]")

    def test_the_unit_names_the_program(self):
        with open(self.path("lib/systemd/system/skaldd.service")) as f:
            unit = f.read()
        self.assertRegex(unit, r"(?m)^Type=notify$")
        self.assertRegex(unit, r"(?m)^ExecStart=/\S*/skaldd ")
        self.assertIsNone(re.search("@", unit))


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
