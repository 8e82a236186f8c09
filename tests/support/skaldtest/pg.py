"""A private PostgreSQL: initdb, start, stop, crash, databases. Standard library only.

initdb refuses root, so root goes through `runuser -u postgres`; an ordinary
user starts the server himself. The data directory must be searchable by that
user, so it lies in a directory of its own under /tmp, never in the work tree.

A run of many tests gives, in the environment, SKALD_TEST_PG_DIR for the data (in memory
where there is room: tests kill processes, never the machine) and SKALD_TEST_PG_TEMPLATE,
what initdb made once, to copy.
"""

import errno
import glob
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile

from .wait import OutsideTrouble, wait_until

SERVER_USER = "postgres"


class PgError(OutsideTrouble):
    pass


def free_port():
    """A TCP port of 127.0.0.1 that is free, and stays it: below the range from which the
    kernel serves bind(0) and connect() (kafka.sh has 20000 and above)."""
    while True:
        port = 10000 + secrets.randbelow(10000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise


def pg_bin():
    """Where initdb and pg_ctl are: the newest installed, 13 or later."""
    if os.environ.get("SKALD_PG_BIN"):
        return os.environ["SKALD_PG_BIN"]
    found = []
    for path in glob.glob("/usr/lib/postgresql/*/bin/initdb"):
        try:
            found.append((float(path.split("/")[4]), os.path.dirname(path)))
        except ValueError:
            continue
    if found:
        return max(found)[1]
    on_path = shutil.which("initdb")
    if on_path:
        return os.path.dirname(os.path.realpath(on_path))
    raise PgError("no initdb found: install the package postgresql, or set SKALD_PG_BIN")


def _give_to_server(path):
    if os.geteuid() == 0:
        user = pwd.getpwnam(SERVER_USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def private_dir(prefix="skald-"):
    """A new directory that the server's user can search; short, for the socket's path."""
    base = os.environ.get("SKALD_TEST_DIR") or "/tmp"
    path = tempfile.mkdtemp(prefix=prefix, dir=base)
    os.chmod(path, 0o711)
    return path


def template(directory):
    """What initdb makes, for Cluster to copy."""
    made = Cluster(directory)
    made.make_dir()
    made.initdb()
    return made.data


class Cluster:
    """One PostgreSQL cluster.

    with Cluster() as pg:
        url = pg.create_database()          # a fresh database's URL
        pg.stop("immediate"); pg.start()    # a crash and the recovery after it
    """

    def __init__(self, directory=None, settings=None, segment_mb=None):
        """segment_mb: size of a WAL file, 16 without it; small ones make small bounds."""
        self.segment_mb = segment_mb
        self.owns_dir = directory is None
        self.dir = directory or private_dir("skald-pg-")
        self.home = None  # of the data, when it is not here
        self.data = os.path.join(self.dir, "data")
        self.log = os.path.join(self.dir, "postgresql.log")
        self.socket_dir = self.dir
        self.bin = pg_bin()
        self.port = None
        self.settings = {
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_permissions": "0777",
            "max_connections": "200",
            "wal_level": "logical",
            "max_wal_size": "'2GB'",
            "shared_buffers": "'256MB'",
            "log_min_messages": "warning",
            "timezone": "'UTC'",
        }
        self.settings.update(settings or {})
        self._n = 0

    # -- life ------------------------------------------------------------------------------

    def __enter__(self):
        return self.create()

    def __exit__(self, *_):
        self.destroy()

    def create(self):
        """initdb, or its copy, and start; about a second."""
        self.make_dir()
        given = os.environ.get("SKALD_TEST_PG_TEMPLATE")
        if given and not self.segment_mb:
            self._run_plain("cp", "-a", given, self.data)
        else:
            self.initdb()
        for attempt in range(5):  # another may take the port between asking and binding
            self.port = free_port()
            self._write_settings()
            try:
                self.start()
                return self
            except PgError:
                if attempt == 4:
                    raise
        return self

    def make_dir(self):
        """Ours, and the data's if that has its place elsewhere."""
        os.makedirs(self.dir, exist_ok=True)
        _give_to_server(self.dir)
        base = os.environ.get("SKALD_TEST_PG_DIR")
        if base:
            self.home = tempfile.mkdtemp(prefix="skald-pg-", dir=base)
            os.chmod(self.home, 0o711)
            _give_to_server(self.home)
            self.data = os.path.join(self.home, "data")

    def initdb(self):
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres",
                  "--no-locale", "-E", "UTF8", "-N",
                  *(["--wal-segsize=%d" % self.segment_mb] if self.segment_mb else []))

    def reload(self, **settings):
        """ALTER SYSTEM and reload; None resets one. Not for those that need a restart."""
        for name, value in settings.items():
            self.sql("ALTER SYSTEM " + ("RESET %s" % name if value is None
                                        else "SET %s = '%s'" % (name, value)))
        self.sql("SELECT pg_reload_conf()")

    def start(self):
        self._run("pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "60", "start",
                  tail=self.log)

    def stop(self, mode="fast"):
        """mode: 'smart', 'fast', or 'immediate', which is a crash."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "-m", mode, "stop")

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def is_running(self):
        return self.pid() is not None

    def configure(self):
        """Settings changed: in force after the next start."""
        self._write_settings()

    def log_bytes(self):
        """How long the server's log is by now."""
        return os.path.getsize(self.log)

    def pid(self):
        """Of the postmaster, or None."""
        try:
            with open(os.path.join(self.data, "postmaster.pid")) as f:
                pid = int(f.readline())
            os.kill(pid, 0)
            return pid
        except PermissionError:
            return pid
        except (OSError, ValueError):
            return None

    def destroy(self):
        """Stop at once and remove everything."""
        try:
            if self.is_running():
                self.stop("immediate")
        except PgError:
            pid = self.pid()
            if pid and os.geteuid() == 0:
                os.kill(pid, signal.SIGKILL)
        if self.home:
            shutil.rmtree(self.home, ignore_errors=True)
        if self.owns_dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    # -- databases -------------------------------------------------------------------------

    def url(self, database="postgres", user="postgres"):
        """By TCP: works for every client, in every language, for every user."""
        return "postgresql://%s@127.0.0.1:%d/%s" % (user, self.port, database)

    def socket_url(self, database="postgres", user="postgres"):
        """By unix socket: faster, and what pgbench and psql on the same machine use."""
        return "postgresql://%s@/%s?host=%s&port=%d" % (
            user, database, self.socket_dir, self.port)

    def create_database(self, name=None):
        """Returns the URL of a new, empty database."""
        self._n += 1
        name = name or "t%d_%s" % (self._n, secrets.token_hex(3))
        self.sql('CREATE DATABASE "%s"' % name)
        return self.url(name)

    def wal_bytes(self):
        """What lies in pg_wal now."""
        return int(self.sql("SELECT sum(size) FROM pg_ls_waldir()")[0][0])

    def standby(self, name, settings=None):
        """A streaming standby of this cluster, started; its application_name is `name`."""
        return Standby(self, name, settings).create()

    def sql(self, script, database="postgres"):
        """Run a script through psql; rows as text, columns split by '|', one list item a row."""
        return psql(self.url(database), script)

    # -- inside ----------------------------------------------------------------------------

    def _write_settings(self):
        lines = ["port = %d" % self.port, "unix_socket_directories = '%s'" % self.socket_dir]
        lines += ["%s = %s" % item for item in self.settings.items()]
        script = "cat > '%s/postgresql.auto.conf'" % self.data
        self._as_server(["sh", "-c", script], stdin="\n".join(lines) + "\n")

    def _as_server(self, argv, stdin=None):
        if os.geteuid() == 0:
            argv = ["runuser", "-u", SERVER_USER, "--"] + argv
        # The server must not hold our pipes open, or whoever reads us waits for its end.
        out = tempfile.TemporaryFile()
        done = subprocess.run(argv, input=stdin, stdout=out, stderr=subprocess.STDOUT,
                              text=True, cwd="/")
        out.seek(0)
        text = out.read().decode(errors="replace")
        return done.returncode, text

    def _run(self, program, *args, tail=None):
        self._run_plain(os.path.join(self.bin, program), *args, tail=tail)

    def _run_plain(self, *argv, tail=None):
        code, text = self._as_server(list(argv))
        if code:
            if tail and os.path.exists(tail):
                with open(tail, errors="replace") as f:
                    text += "".join(f.readlines()[-15:])
            raise PgError("%s failed (%d): %s" % (
                os.path.basename(argv[0]), code, text.strip()))


class Standby(Cluster):
    """A hot standby by streaming replication, without a slot: asynchronous, and it may lag.

    standby = pg.standby("north")
    standby.detach()            # it gets nothing any more and is gone from pg_stat_replication
    standby.freeze()            # it is connected, and does not flush what comes
    pg.stop("immediate"); standby.promote()
    """

    def __init__(self, primary, name, settings=None):
        more = dict(primary.settings)
        more.update(settings or {})
        super().__init__(os.path.join(primary.dir, name), more)
        self.primary = primary
        self.name = name
        self.frozen = None

    def create(self):
        self.make_dir()
        self._run("pg_basebackup", "-D", self.data, "-X", "stream", "-c", "fast",
                  "-d", self.primary.url(), "--no-sync")
        self._as_server(["touch", os.path.join(self.data, "standby.signal")])
        self.port = free_port()
        self._write_settings()
        self._as_server(["sh", "-c", "cat >> '%s/postgresql.auto.conf'" % self.data],
                        stdin="primary_conninfo = '%s'\n" % self._source())
        self.start()
        self.wait_attached()
        return self

    def _source(self):
        return "host=127.0.0.1 port=%d user=postgres application_name=%s" % (
            self.primary.port, self.name)

    def wait_attached(self, timeout=30):
        """Until it has flushed what the primary had written when asked."""
        end = self.primary.sql("SELECT pg_current_wal_lsn()")[0][0]
        wait_until(lambda: self.primary.sql(
            "SELECT 1 FROM pg_stat_replication WHERE application_name = '%s'"
            " AND flush_lsn >= '%s'" % (self.name, end)), timeout,
            "standby %s to have everything up to %s" % (self.name, end))

    def receiver_pid(self):
        found = self.sql("SELECT pid FROM pg_stat_wal_receiver")
        return int(found[0][0]) if found else None

    def detach(self):
        """Nothing more comes, not even what lies in the sockets; gone from the primary's view."""
        self.reload(primary_conninfo="")
        wait_until(lambda: self.receiver_pid() is None, 20, "the standby's receiver to end")

    def attach(self):
        self.reload(primary_conninfo=self._source())
        self.wait_attached()

    def freeze(self):
        """SIGSTOP of the receiver: connected, but flushes nothing."""
        self.frozen = self.receiver_pid()
        os.kill(self.frozen, signal.SIGSTOP)

    def thaw(self):
        if self.frozen:
            os.kill(self.frozen, signal.SIGCONT)
        self.frozen = None

    def promote(self):
        """Make it a primary on a new timeline."""
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "60", "promote")


def either_url(database, *clusters):
    """One URL that leads to whichever of the clusters takes writes now."""
    return "postgresql://postgres@%s/%s?target_session_attrs=read-write&connect_timeout=3" % (
        ",".join("127.0.0.1:%d" % c.port for c in clusters), database)


def psql(url, script, check=True):
    """Run a script in one session with psql; returns its rows as lists of text."""
    # Not the one on the path: Debian's is a script that takes 60 ms to find this one.
    done = subprocess.run(
        [os.path.join(pg_bin(), "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"],
        input=script, capture_output=True, text=True)
    if check and done.returncode:
        raise PgError("psql: " + done.stderr.strip())
    return [line.split("|") for line in done.stdout.splitlines() if line]


def connect(url, **kwargs):
    """A psycopg connection in autocommit mode; use conn.transaction() for transactions."""
    import psycopg

    kwargs.setdefault("autocommit", True)
    return psycopg.connect(url, **kwargs)


def connect_when_up(url, timeout=30, **kwargs):
    """Connect, waiting for a server that is starting."""
    import psycopg

    def try_it():
        try:
            return connect(url, **kwargs)
        except psycopg.OperationalError:
            return None

    return wait_until(try_it, timeout, "PostgreSQL to accept connections")
