#!/usr/bin/env python3
"""The negative controls of tidy.py: for each rule a small tree that breaks it.

A rule without a tree that it flags, at the right file and line, fails; so does
one that flags the tree that keeps all of them.
"""

import os
import subprocess
import sys
import tempfile

import tidy

GOOD = {
    "base/err.h": "#ifndef A_H\n#define A_H\n#include <stdint.h>\n"
                  "enum skald_rc skald_fail(struct skald_err *err,\n\tconst char *fmt, ...);\n"
                  "static inline int\nsmall(void)\n{\n\treturn 0;\n}\n#endif\n",
    "base/err.c": '#include "base/err.h"\n\n#ifdef __linux__\n#endif\n'
                  "static int\nhelp(void)\n{\n\treturn 0;\n}\n\nint\nskald_fail(void)\n{\n"
                  "\treturn help();\n}\n",
    "base/config_file.c": '#include "base/err.h"\n#include <ini.h>\n',
    "sql/sql.h": "struct pg_conn;\nint skald_sql_open(struct pg_conn *conn);\n",
    "sql/own.h": "int skald__sql_text(const char *(*f)(int), int);\n",
    "sql/conn.c": '#include "sql/own.h"\n#include <libpq-fe.h>\n#include "base/err.h"\n',
    "outbox/relay_core.h": '#include "base/err.h"\nint skald__relay_step(int);\n',
    "outbox/relay_core.c": '#include "outbox/relay_core.h"\n#include <string.h>\n'
                           '#include "base/err.h"\n/* exit(1), atoi("x") and // nothing */\n'
                           'int\nskald__relay_step(int n)\n{\n'
                           '\treturn n + (int)strlen("strcpy(");\n}\n',
    "outbox/relay.c": '#include "sql/sql.h"\n#include "outbox/relay_core.h"\n',
    "daemon/main_skaldd.c": '#include "outbox/outbox.h"\n#include <stdlib.h>\n'
                            "int\nmain(void)\n{\n\texit(0);\n}\n",
    "examples/order.c": '#include "examples/shop.h"\n#include <skald/skald.h>\n'
                        "#include <libpq-fe.h>\nint main(void)\n{\n\texit(1);\n}\n",
    "tests/unit/x.c": "#include <CUnit/Basic.h>\n#ifdef X\n#endif\nint\nnamed(void)\n{\n"
                      "\t_exit(1);\n}\n",
    "docs/a.md": "TO" "DO(anna): the framework/work of /workshop, ~/root/x, $dir/work\n",
}

LONG_FUNCTION = "static int\nf(void)\n{\n" + "\ta();\n" * 69 + "}\n"

# rule, file, line, text: the file is added to GOOD (or replaces its namesake).
BAD = [
    ("imports", "base/a.c", 1, '#include "outbox/outbox.h"\n'),
    ("imports", "sql/a.c", 2, '#include "base/err.h"\n#include "broker/broker.h"\n'),
    ("imports", "outbox/a.c", 1, '#include "sql/own.h"\n'),
    ("imports", "outbox/a.c", 1, '#include "sql/conn.h"\n'),
    ("imports", "outbox/a.c", 1, '#include "base/config_own.h"\n'),
    ("imports", "outbox/a.c", 1, '#include "relay_core.h"\n'),
    ("imports", "outbox/a.c", 1, '#include "tests/support/pg.h"\n'),
    ("imports", "daemon/a.c", 1, '#include "cli/cli.h"\n'),
    ("imports", "examples/a.c", 1, '#include "sql/sql.h"\n'),
    ("third-party", "sql/a.c", 1, "#include <librdkafka/rdkafka.h>\n"),
    ("third-party", "broker/a.c", 1, "#include <libpq-fe.h>\n"),
    ("third-party", "sql/a.h", 1, "#include <libpq-fe.h>\n"),
    ("third-party", "base/a.c", 1, "#include <ini.h>\n"),
    ("third-party", "daemon/a.c", 1, "#include <microhttpd.h>\n"),
    ("third-party", "saga/a.c", 1, "#  include  <cjson/cJSON.h>\n"),
    ("third-party", "base/a.c", 1, "#include <zlib.h>\n"),
    ("banned-call", "base/a.c", 3, "static int\nf(char *a)\n{ strcpy(a, \"x\"); }\n"),
    ("banned-call", "tests/unit/a.c", 1, "int x = atoi (y);\n"),
    ("banned-call", "cli/a.c", 1, "struct tm *t = gmtime(&now);\n"),
    ("exit", "outbox/a.c", 3, "static void\nf(void)\n{ exit(1); }\n"),
    ("exit", "cli/a.c", 3, "static void\nf(void)\n{ _exit(1); }\n"),
    ("function-length", "base/a.c", 3, LONG_FUNCTION),
    ("function-length", "tests/unit/a.c", 3, LONG_FUNCTION),
    ("file-length", "base/a.h", 801, "\n" * 801),
    ("own-header", "base/err.c", 1, '#include "base/buf.h"\n#include "base/err.h"\n'),
    ("own-header", "base/err.c", 1, "/* nothing */\n"),
    ("ifdef", "sql/a.c", 1, "#ifdef X\n#endif\n"),
    ("ifdef", "sql/a.h", 3, "#ifndef A_H\n#define A_H\n#if X > 1\n#endif\n#endif\n"),
    ("ifdef", "daemon/a.c", 1, "#ifndef A\n#define A\n#endif\n"),
    ("prefix", "sql/a.c", 2, "int\nnamed(void)\n{\n}\n"),
    ("prefix", "sql/a.c", 2, "int\nmain(void)\n{\n}\n"),
    ("prefix", "sql/sql.h", 2, "struct x;\nint named(int a,\n\tint b);\n"),
    ("prefix", "sql/sql.h", 2, "MUST enum skald_rc\nnamed(int a);\n"),
    ("prefix", "sql/sql.h", 1, "int skald__sql_inner(int a);\n"),
    ("prefix", "base/err.h", 1, "int skald__inner(int a);\n"),
    ("core-imports", "outbox/a_core.c", 1, "#include <stdio.h>\n"),
    ("core-imports", "outbox/a_core.h", 1, '#include "outbox/relay_core.h"\n'),
    ("core-imports", "outbox/a_core.c", 1, '#include "sql/sql.h"\n'),
    ("open-task", "docs/b.md", 2, "\n* TO" "DO: write\n"),
    ("open-task", "base/a.c", 1, "/* FIX" "ME */\n"),
    ("machine-path", "docs/b.md", 1, "see /work/main\n"),
    ("machine-path", "dev", 1, 'cd "/root/x"\n'),
    ("machine-path", "dev", 1, "curl https://repo1.maven.org/maven2/x\n"),
]

# rule, file, complaint, text: compiled; the rest of the library is GOOD.
BAD_OBJECTS = [
    ("core-symbols", "outbox/relay_core.c", "malloc",
     "#include <stdlib.h>\nvoid *\nskald__relay_step(void)\n{\n\treturn malloc(7);\n}\n"),
    ("core-symbols", "outbox/relay_core.c", "skald_impure",
     "int skald_impure(void);\nint\nskald__relay_step(void)\n{\n\treturn skald_impure();\n}\n"),
    ("core-symbols", "outbox/other_core.c", "no object", None),
    ("exports", "sql/conn.c", "named", "int named;\n"),
]
GOOD_OBJECTS = {
    "base/time.c": "#include <time.h>\nlong skald_impure(void);\n"
                   "long\nskald_impure(void)\n{\n\treturn time(0);\n}\n",
    "base/pure.c": "#include <string.h>\nint skald_pure(char *);\nint\nskald_pure(char *p)\n{\n"
                   "\tmemset(p, 1, 99);\n\treturn (int)strlen(p);\n}\n",
    "outbox/relay_core.c": "int skald_pure(char *);\nvoid skald_assert_failed(void);\n"
                           "int skald__relay_step(char *p);\nint\nskald__relay_step(char *p)\n"
                           "{\n\tif (*p)\n\t\tskald_assert_failed();\n\treturn skald_pure(p);\n}\n",
}

failures = 0
checks = 0


def expect(ok, what):
    global failures, checks
    checks += 1
    if not ok:
        failures += 1
        print("FAILED:", what)


def write(root, files):
    for path, text in files.items():
        name = os.path.join(root, path)
        os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)


def run(files):
    with tempfile.TemporaryDirectory() as root:
        write(root, files)
        checked = tidy.Tidy(root)
        checked.check()
        return checked.complaints


def run_objects(files):
    with tempfile.TemporaryDirectory() as root:
        write(root, {path: text or "" for path, text in files.items()})
        for path, text in files.items():
            folder, name = os.path.split(path)
            out = os.path.join(root, "build", folder, "CMakeFiles/skald_objects.dir")
            os.makedirs(out, exist_ok=True)
            if text is not None:
                subprocess.check_call(["cc", "-c", os.path.join(root, path), "-o",
                                       os.path.join(out, name + ".o")])
        checked = tidy.Tidy(root)
        checked.check_objects(os.path.join(root, "build"))
        return checked.complaints


def main():
    complaints = run(GOOD)
    expect(not complaints, f"the good tree: {complaints}")
    for rule, path, line, text in BAD:
        complaints = [c[:3] for c in run({**GOOD, path: text})]
        expect((path, line, rule) in complaints,
               f"{rule} in {path}:{line} is not flagged, but {complaints}: {text[:60]!r}")
    complaints = run_objects(GOOD_OBJECTS)
    expect(not complaints, f"the good objects: {complaints}")
    for rule, path, what, text in BAD_OBJECTS:
        complaints = run_objects({**GOOD_OBJECTS, path: text})
        expect(any(c[0] == path and c[2] == rule and what in c[3] for c in complaints),
               f"{rule} in {path} ({what}) is not flagged, but {complaints}")
    tested = {row[0] for row in BAD} | {row[0] for row in BAD_OBJECTS}
    expect(tested == set(tidy.RULES), f"rules without a control: {set(tidy.RULES) - tested}")
    print(f"{checks} checks, {failures} failed")
    return 1 if failures or checks < len(BAD) else 0


if __name__ == "__main__":
    sys.exit(main())
