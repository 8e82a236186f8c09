#!/usr/bin/env python3
"""Checks the rules of the house that neither the compiler nor clang-format sees.

    tests/tidy/tidy.py [--root DIR] [--build DIR]

Looks at every file that git tracks or would track (without git: at every file).
With --build also at the objects: what they export, and what the pure cores call.
Prints file:line: rule: what, and exits 1 if there is anything to print.
"""

import argparse
import os
import re
import subprocess
import sys

# base < broker | sql | schemas | http < outbox < consumers < saga < daemon | cli
RANKS = {"base": 0, "broker": 1, "sql": 1, "schemas": 1, "http": 1, "outbox": 2,
         "consumers": 3, "saga": 4, "daemon": 5, "cli": 5}

# Headers of others: where they may be included, always in .c files only.
THIRD_PARTY = [
    (r"librdkafka/", lambda path: path.startswith("broker/")),
    (r"(libpq-fe|libpq-events|postgres_ext|pg_config)\.h$|libpq/|postgresql/",
     lambda path: path.startswith(("sql/", "examples/"))),  # examples use their own PGconn
    (r"avro\.h$|avro/|cJSON\.h$|cjson/", lambda path: path.startswith("schemas/")),
    (r"microhttpd\.h$|curl/", lambda path: path.startswith("http/")),
    (r"ini\.h$", lambda path: path == "base/config_file.c"),
]
SYSTEM = re.compile(
    r"(assert|complex|ctype|errno|fenv|float|inttypes|iso646|limits|locale|math|setjmp|"
    r"signal|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|"
    r"string|strings|tgmath|threads|time|uchar|wchar|wctype|dirent|dlfcn|endian|fcntl|"
    r"getopt|glob|grp|ifaddrs|libgen|malloc|netdb|poll|pthread|pwd|sched|semaphore|spawn|"
    r"syslog|termios|unistd|(sys|netinet|arpa|linux|net)/\w+)\.h$")
CORE_SYSTEM = re.compile(r"(stdint|stdbool|stddef|string|limits|inttypes)\.h$")

BANNED = re.compile(r"\b(strcpy|strcat|strncpy|sprintf|vsprintf|strtok|atoi|gmtime|localtime)"
                    r"\s*\(")
EXIT = re.compile(r"\b(_?exit|_Exit|quick_exit)\s*\(")
OPEN_TASK = re.compile(r"\b(TO" r"DO|FIX" r"ME)\b(?!\([a-z][\w.-]*\))")
MACHINE = re.compile(r"(?<![\w.$}/~-])/(work|tmp/setup|root)(?=[/\s\"'`),;:]|$)")
HOSTS = re.compile(r"\b(pypi\.org|files\.pythonhosted\.org|repo1?\.maven\.(org|apache\.org)|"
                   r"repo\.maven\.apache\.org|registry\.npmjs\.org|static\.crates\.io|"
                   r"proxy\.golang\.org|(deb|security)\.debian\.org|"
                   r"[\w.-]*(artifactory|nexus|jfrog)[\w-]*\.[\w.]+)\b")

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800
RULES = ("imports", "third-party", "banned-call", "exit", "function-length", "file-length",
         "own-header", "ifdef", "prefix", "core-imports", "core-symbols", "exports",
         "open-task", "machine-path")


def blank(text, strings):
    """C text with comments (and strings) turned into blanks, lines kept."""
    token = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)

    def empty(match):
        found = match.group(0)
        if found[0] in "\"'" and not strings:
            return found
        return re.sub(r"[^\n]", " ", found)
    return token.sub(empty, text)


class Tidy:
    def __init__(self, root):
        self.root = root
        self.complaints = []
        self.files = self.list_files()

    def say(self, path, line, rule, what):
        assert rule in RULES
        self.complaints.append((path, line, rule, what))

    def list_files(self):
        got = subprocess.run(
            ["git", "-C", self.root, "ls-files", "-z", "--cached", "--others",
             "--exclude-standard"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if got.returncode == 0:
            names = [name for name in got.stdout.decode().split("\0") if name]
        else:
            names = []
            for folder, folders, files in os.walk(self.root):
                folders[:] = [f for f in folders if not f.startswith((".", "build"))]
                names += [os.path.relpath(os.path.join(folder, f), self.root) for f in files]
        return sorted(n for n in set(names) if os.path.isfile(os.path.join(self.root, n)))

    def read(self, path):
        with open(os.path.join(self.root, path), "rb") as file:
            data = file.read()
        return None if b"\0" in data else data.decode("utf-8", "replace")

    def check(self):
        for path in self.files:
            text = self.read(path)
            if text is None:
                continue
            if not path.startswith("tests/tidy/"):
                self.check_words(path, text)
            if path.endswith((".c", ".h")):
                self.check_c(path, text)

    # Any text file.
    def check_words(self, path, text):
        for number, line in enumerate(text.split("\n"), 1):
            if OPEN_TASK.search(line):
                self.say(path, number, "open-task", "an open task without an owner")
            found = MACHINE.search(line)
            if found and not line.startswith("#!"):
                self.say(path, number, "machine-path", f"a path of one machine: {found.group(0)}")
            found = HOSTS.search(line)
            if found:
                self.say(path, number, "machine-path", f"a registry's host: {found.group(0)}")

    def check_c(self, path, text):
        folder = path.split("/")[0]
        without_comments = blank(text, strings=False).split("\n")
        code = blank(text, strings=True).split("\n")
        count = text.count("\n")
        if count > FILE_LINES_MAX:
            self.say(path, FILE_LINES_MAX + 1, "file-length",
                     f"{count} lines, at most {FILE_LINES_MAX}")
        self.check_functions(path, code)
        for number, line in enumerate(code, 1):
            found = BANNED.search(line)
            if found:
                self.say(path, number, "banned-call", found.group(1))
        if folder in RANKS or folder == "examples":
            self.check_includes(path, folder, without_comments)
            self.check_ifdef(path, folder, code)
        if folder in RANKS:
            self.check_prefix(path, code)
            if not os.path.basename(path).startswith("main_"):
                for number, line in enumerate(code, 1):
                    found = EXIT.search(line)
                    if found:
                        self.say(path, number, "exit", f"{found.group(1)} outside a main")

    # A function's brace stands alone in the first column; a struct's does not.
    def check_functions(self, path, code):
        start = 0
        for number, line in enumerate(code, 1):
            if line.rstrip() == "{":
                start = number
            elif line.startswith("}") and start:
                if number - start + 1 > FUNCTION_LINES_MAX:
                    self.say(path, start, "function-length",
                             f"{number - start + 1} lines, at most {FUNCTION_LINES_MAX}")
                start = 0

    def check_includes(self, path, folder, lines):
        stem = path[:-2]
        is_core = stem.endswith("_core")
        includes = []
        for number, line in enumerate(lines, 1):
            found = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if found:
                includes.append((number, found.group(1) == "<", found.group(2)))
        if path.endswith(".c") and stem + ".h" in self.files:
            if not includes or includes[0][2] != stem + ".h":
                self.say(path, includes[0][0] if includes else 1, "own-header",
                         f"the first include must be {stem}.h")
        for number, is_angle, name in includes:
            if is_angle:
                self.check_angle(path, number, name)
            else:
                self.check_quoted(path, folder, number, name)
            # relay_next_core.c is a part of the machine of relay_core.h
            own = name == stem + ".h" or (name.endswith("_core.h") and
                                          stem.startswith(name[:-len("core.h")]))
            if is_core and not (CORE_SYSTEM.match(name) if is_angle else
                                own or name.startswith("base/")):
                self.say(path, number, "core-imports",
                         f"a core includes base and its own header, not {name}")

    def check_angle(self, path, number, name):
        if SYSTEM.match(name) or (path.startswith("examples/") and name == "skald/skald.h"):
            return
        for pattern, is_allowed in THIRD_PARTY:
            if not re.match(pattern, name):
                continue
            if not is_allowed(path):
                self.say(path, number, "third-party", f"{name} does not belong here")
            elif path.endswith(".h"):
                self.say(path, number, "third-party", f"{name}: in .c files only")
            return
        self.say(path, number, "third-party", f"{name}: a library no folder stands for")

    def check_quoted(self, path, folder, number, name):
        other, _, rest = name.partition("/")
        if not rest:
            self.say(path, number, "imports", f"{name}: write the path from the root")
        elif other == folder:
            return
        elif folder == "examples":
            self.say(path, number, "imports", f"{name}: an example sees <skald/skald.h> only")
        elif other not in RANKS:
            self.say(path, number, "imports", f"{name}: no folder of the library")
        elif RANKS[other] >= RANKS[folder]:
            self.say(path, number, "imports", f"{name}: points right or sideways")
        elif rest.endswith("own.h"):
            self.say(path, number, "imports", f"{name}: belongs to its folder alone")
        elif other != "base" and rest != other + ".h":
            self.say(path, number, "imports", f"{name}: the door is {other}/{other}.h")

    def check_ifdef(self, path, folder, code):
        if folder == "base":
            return
        for number, line in enumerate(code, 1):
            found = re.match(r"\s*#\s*(if|ifdef|ifndef|elif)\b\s*(.*)", line)
            if not found:
                continue
            following = code[number] if number < len(code) else ""
            is_guard = (found.group(1) == "ifndef" and path.endswith(".h") and
                        re.match(r"\s*#\s*define\s+" + re.escape(found.group(2).strip()) + r"\s*$",
                                 following))
            if not is_guard and "__cplusplus" not in line:
                self.say(path, number, "ifdef", "conditional code belongs into base")

    # Definitions have their name in the first column and the type on the line before;
    # headers declare in one piece.
    def check_prefix(self, path, code):
        for number, line in enumerate(code, 1):
            found = re.match(r"([A-Za-z_]\w*)\(", line)
            if not found or number < 2:
                continue
            kind = code[number - 2]
            if not re.match(r"[A-Za-z_]", kind) or re.search(r"\bstatic\b", kind):
                continue
            self.check_name(path, number, found.group(1))
        if not path.endswith(".h"):
            return
        text = re.sub(r"(?m)^\s*#.*(?:\\\n.*)*", lambda m: re.sub(r"[^\n]", " ", m.group(0)),
                      "\n".join(code))
        for found in re.finditer(r"(?m)^(?!typedef|static|struct \w+ \{|enum|union|extern \")"
                                 r"[A-Za-z_][\w \t\n*]*?\b(\w+)\([^;{}]*\)[^;{}]*;", text):
            self.check_name(path, text.count("\n", 0, found.start(1)) + 1, found.group(1))

    def check_name(self, path, number, name):
        base = os.path.basename(path)
        if name == "main" and base.startswith("main_"):
            return
        if not name.startswith("skald_"):
            self.say(path, number, "prefix", f"{name}: neither static nor skald_")
        folder = path.split("/")[0]
        is_door = path.endswith(".h") and (
            base == folder + ".h" or
            (folder == "base" and not base.endswith("own.h")))
        if is_door and name.startswith("skald__"):
            self.say(path, number, "prefix", f"{name}: skald__ stays inside its folder")

    # --- objects ---------------------------------------------------------------------------

    def check_objects(self, build):
        objects = self.find_objects(build)
        cores = [p for p in self.files if p.endswith("_core.c") and p.split("/")[0] in RANKS]
        for path in cores:
            if path not in objects:
                self.say(path, 1, "core-symbols", f"no object of it in {os.path.basename(build)}")
        symbols = {path: read_symbols(name) for path, name in objects.items()}
        defined_in = {name: path for path, (defined, _) in symbols.items() for name in defined}
        for path in cores:
            if path in symbols:
                for name in sorted(impure(path, symbols, defined_in)):
                    self.say(path, 1, "core-symbols", f"calls {name}: not mem*, str* or the assert")
        for path, (defined, _) in sorted(symbols.items()):
            for name in sorted(defined):
                if not name.startswith("skald_") and not IGNORED.match(name):
                    self.say(path, 1, "exports", f"{name}: neither static nor skald_")
        if not objects:
            self.say("CMakeLists.txt", 1, "exports", f"no objects of the library in {build}")

    # The library's objects by source: .../skald_objects.dir/outbox/relay_core.c.o or
    # outbox/CMakeFiles/skald_objects.dir/relay_core.c.o
    def find_objects(self, build):
        found = {}
        for folder, _, files in os.walk(build):
            if "skald_objects.dir" not in folder:
                continue
            inside = os.path.relpath(folder, build)
            outer, _, inner = inside.partition("CMakeFiles/skald_objects.dir")
            for name in files:
                if not name.endswith(".c.o"):
                    continue
                path = os.path.normpath(os.path.join(outer, inner.strip("/"), name[:-2]))
                if path in self.files:
                    found[path] = os.path.join(folder, name)
        return found


# What compilers and sanitizers add by themselves.
IGNORED = re.compile(r"_GLOBAL_OFFSET_TABLE_$|__(a|t|ub|l|m)san_|__sanitizer_|__stack_chk_|__gcov|"
                     r"__llvm_|__odr_asan|__start_|__stop_|__tls_get_addr$|_ITM_|__gmon|__cxa_|"
                     r"asan\.|tsan\.|__sanitizer|__dso_handle$|__sancov")
PURE = re.compile(r"(__)?(mem|str)\w+$|skald_assert_failed$|__builtin_")


def read_symbols(name):
    """(defined, undefined) global symbols of an object."""
    defined, undefined = set(), set()
    out = subprocess.check_output(["nm", "-g", "-P", name], text=True)
    for line in out.splitlines():
        symbol, kind = line.split()[:2]
        (undefined if kind in "Uwv" else defined).add(symbol)
    return defined, undefined


def impure(path, symbols, defined_in, seen=None):
    """What an object calls besides mem*, str*, the assert and objects that call no more."""
    seen = {path} if seen is None else seen
    bad = set()
    for name in symbols[path][1]:
        other = defined_in.get(name)
        if PURE.match(name) or IGNORED.match(name) or other in seen:
            continue
        if other is None:
            bad.add(name)
            continue
        seen.add(other)
        if impure(other, symbols, defined_in, seen):
            bad.add(name)
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--root", default=os.path.normpath(os.path.join(here, "..", "..")))
    parser.add_argument("--build")
    args = parser.parse_args()
    tidy = Tidy(args.root)
    tidy.check()
    if args.build:
        tidy.check_objects(args.build)
    for path, line, rule, what in sorted(tidy.complaints):
        print(f"{path}:{line}: {rule}: {what}")
    sources = sum(1 for path in tidy.files if path.endswith((".c", ".h")))
    print(f"{len(tidy.files)} files, {sources} of C, {len(tidy.complaints)} complaints")
    return 1 if tidy.complaints or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
