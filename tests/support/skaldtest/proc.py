"""Programs under test: start, log, signals, readiness. Standard library only."""

import ctypes
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request

from .pg import free_port
from .wait import wait_until

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))


def bin_path(program, failpoints=False):
    """build/bin/PROGRAM, or the build with failpoints; SKALD_BIN overrides the first."""
    if failpoints:
        base = os.environ.get("SKALD_BIN_FAILPOINTS", os.path.join(ROOT, "build-failpoints/bin"))
    else:
        base = os.environ.get("SKALD_BIN", os.path.join(ROOT, "build/bin"))
    return os.path.join(base, program)


def clean_env(extra=None):
    """The environment without any SKALD_ configuration and PG* variables, plus extra."""
    keep = {k: v for k, v in os.environ.items()
            if not k.startswith("SKALD_") and not k.startswith("PG")}
    keep.update(extra or {})
    return keep


def _die_with_parent():
    # PR_SET_PDEATHSIG: whatever kills the test kills what it started
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


class Proc:
    """A running program with its log (stderr) and output (stdout) in files.

    p = Proc([...], name="relay").start()
    p.wait_log("leads"); p.kill(); p.wait(); p.start()     # again, the log goes on
    """

    def __init__(self, argv, name, log_dir, env=None, cwd=None, http_port=None):
        self.argv = list(argv)
        self.name = name
        self.env = dict(env or {})
        self.cwd = cwd
        self.http_port = http_port
        self.log_path = os.path.join(log_dir, name + ".log")
        self.out_path = os.path.join(log_dir, name + ".out")
        self.popen = None
        self.starts = 0

    # -- life ------------------------------------------------------------------------------

    def start(self, env=None):
        """env: more variables, for this start only (a failpoint, say)."""
        assert not self.alive, "%s runs already" % self.name
        with open(self.log_path, "ab") as log, open(self.out_path, "ab") as out:
            variables = clean_env(self.env)
            variables.update(env or {})
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                env=variables, cwd=self.cwd, preexec_fn=_die_with_parent)
        self.starts += 1
        return self

    @property
    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    @property
    def pid(self):
        return self.popen.pid

    @property
    def returncode(self):
        """None while it runs; -9 after a SIGKILL."""
        return self.popen.poll() if self.popen else None

    def signal(self, number):
        if self.alive:
            self.popen.send_signal(number)

    def kill(self):
        """SIGKILL, and wait for the end."""
        self.signal(signal.SIGKILL)
        return self.wait(10)

    def freeze(self):
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def thaw(self):
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def term(self, timeout=30):
        """SIGTERM, and wait for the drain; returns the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout=30):
        """Wait for the end; returns the exit status."""
        if self.popen is None:
            return None
        wait_until(lambda: self.popen.poll() is not None, timeout, "%s to end" % self.name)
        return self.popen.returncode

    def wait_killed(self, timeout=60):
        """Wait until it died of SIGKILL (its failpoint); another end is a failure."""
        code = self.wait(timeout)
        assert code == -signal.SIGKILL, "%s ended with %s instead of SIGKILL:\n%s" % (
            self.name, code, self.tail())

    def rss_peak_mb(self):
        """The most memory it ever had resident, in MiB; 0 when it has ended."""
        try:
            with open("/proc/%d/status" % self.pid) as f:
                return next(int(x.split()[1]) / 1024 for x in f if x.startswith("VmHWM"))
        except (OSError, StopIteration):
            return 0

    # -- what it says ----------------------------------------------------------------------

    def log_text(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def out_text(self):
        with open(self.out_path, errors="replace") as f:
            return f.read()

    def out_json(self):
        """The JSON lines on stdout; a last line cut by a kill is left out."""
        found = []
        for line in self.out_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def tail(self, lines=15):
        try:
            return "".join("    %s| %s\n" % (self.name, x)
                           for x in self.log_text().splitlines()[-lines:])
        except OSError:
            return ""

    def wait_log(self, pattern, timeout=30, count=1):
        """Wait until count lines of the log match the regular expression; returns the last."""
        rule = re.compile(pattern)

        def found():
            if self.popen.poll() is not None and not _matches():
                raise AssertionError("%s ended (%s) before its log said %r:\n%s" % (
                    self.name, self.popen.returncode, pattern, self.tail()))
            hits = _matches()
            return hits[-1] if len(hits) >= count else None

        def _matches():
            return [x for x in self.log_text().splitlines() if rule.search(x)]

        return wait_until(found, timeout, "%s to log %r" % (self.name, pattern))

    # -- HTTP ------------------------------------------------------------------------------

    def http(self, path, timeout=2):
        """GET; returns (status, text)."""
        url = "http://127.0.0.1:%d%s" % (self.http_port, path)
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_ready(self):
        return self.http("/readyz")[0] == 200

    def wait_ready(self, timeout=30):
        def ready():
            assert self.alive, "%s ended (%s) before it was ready:\n%s" % (
                self.name, self.returncode, self.tail())
            return self.is_ready()

        wait_until(ready, timeout, "%s to be ready" % self.name)
        return self

    def metric(self, name, **labels):
        """Value of a metric, summed over the label sets that contain labels; None if absent."""
        total = None
        for line in self.http("/metrics")[1].splitlines():
            m = re.match(r"^(\w+)(?:\{(.*)\})? ([-+.0-9eEinfNa]+)$", line)
            if not m or m.group(1) != name:
                continue
            have = dict(re.findall(r'(\w+)="([^"]*)"', m.group(2) or ""))
            if all(have.get(k) == v for k, v in labels.items()):
                total = (total or 0) + float(m.group(3))
        return total


def set_args(settings):
    """{"relay.mode": "poll"} -> --set relay.mode=poll"""
    return [x for k, v in settings.items() for x in ("--set", "%s=%s" % (k, v))]


def make_skaldd(name, url, bootstrap, log_dir, roles="relay", settings=None,
                failpoint=None, failpoints=None, env=None):
    """A skaldd that is not started yet. url None: no database (dev broker)."""
    port = free_port()
    all_settings = {"http.listen": "127.0.0.1:%d" % port, "log.format": "text",
                    "daemon.shutdown_timeout": "10s"}
    if url:
        all_settings["database.url"] = url
    if bootstrap:
        all_settings["kafka.bootstrap.servers"] = bootstrap
    all_settings.update(settings or {})
    use_failpoints = bool(failpoint) if failpoints is None else failpoints
    argv = [bin_path("skaldd", use_failpoints), "--roles", roles] + set_args(all_settings)
    variables = dict(env or {})
    if failpoint:
        variables["SKALD_FAILPOINT"] = failpoint
    return Proc(argv, name, log_dir, env=variables, http_port=port)


def run_tool(*argv, env=None, timeout=120, check=True, stdin=None):
    """Run `skald ...` (or any program with its full path) to its end.

    Returns the CompletedProcess; check=True fails on another status than 0.
    """
    command = list(argv)
    if not os.path.isabs(command[0]):
        command[0] = bin_path(command[0])
    done = subprocess.run(command, env=clean_env(env), capture_output=True, text=True,
                          timeout=timeout, input=stdin)
    if check and done.returncode:
        raise AssertionError("%s: status %d\n%s%s" % (
            " ".join(command), done.returncode, done.stdout, done.stderr))
    return done
