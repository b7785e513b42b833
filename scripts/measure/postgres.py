"""A private PostgreSQL with TechEmpower's settings and tables, removed at the end."""

import glob
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from . import cpu

NAME = "hello_world"
USER = "monoceros"
# TechEmpower's, less what only a machine of that size can give.
SETTINGS = {
    "max_connections": "500",
    "shared_buffers": "256MB",
    "work_mem": "64MB",
    "maintenance_work_mem": "512MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "synchronous_commit": "off",
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "2",
    "ssl": "off",
    "autovacuum": "off",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "all",
    # The statements and, by the virtual transaction they were in, the Syncs: each ends a transaction. PostgreSQL's own
    # count of transactions (pg_stat_database) lags up to ten seconds behind.
    "log_statement": "all",
    "log_line_prefix": "of=%a in=%v ",
}
EXECUTED = re.compile(r"^of=(.*) in=(\S+) LOG:  (?:execute|statement)\b[^:]*: *(\w+)", re.M)
# Processes that write behind the backends: what updates cost there depends on how long ago they last did.
WRITERS = ("walwriter", "checkpointer", "background writer")
FORTUNES = """fortune: No such file or directory
A computer scientist is someone who fixes things that aren't broken.
After enough decimal places, nobody gives a damn.
A bad random number generator: 1, 1, 1, 1, 1, 4.33e+67, 1, 1, 1
A computer program does what you tell it to do, not what you want it to do.
Emacs is a nice operating system, but I prefer UNIX. — Tom Christaensen
Any program that runs right is obsolete.
A list is only as strong as its weakest link. — Donald Knuth
Feature: A bug with seniority.
Computers make very fast, very accurate mistakes.
<script>alert("This should not be displayed in a browser alert box.");</script>
フレームワークのベンチマーク""".split("\n")
TABLES = """
CREATE EXTENSION pg_stat_statements;
CREATE TABLE world (id integer NOT NULL, randomnumber integer NOT NULL DEFAULT 0, PRIMARY KEY (id)) WITH (fillfactor = 50);
INSERT INTO world SELECT x, least(floor(random() * 10000 + 1), 10000) FROM generate_series(1, 10000) x;
CREATE TABLE fortune (id integer NOT NULL, message varchar(2048) NOT NULL, PRIMARY KEY (id));
"""


class Cluster:
    """Runs between `with` and its end. `transport`: what servers reach it by, `tcp` or `unix`."""

    def __init__(self, transport):
        self.transport = transport
        self.bin = programs()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="monoceros-bench-", dir="/tmp"))
        self.port = free_port()
        self.process = None
        # Bytes of the log that were there at the last reset.
        self.logged = 0
        self.account = {}
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam("postgres")
            except KeyError:
                user = pwd.getpwnam("nobody")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        data, log = self.folder / "data", open(self.folder / "log", "wb")
        initdb = [f"{self.bin}/initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        self.call(initdb, log)
        with open(data / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
        command = [f"{self.bin}/postgres", "-D", data, "-k", self.folder, "-p", str(self.port), "-h", "127.0.0.1"]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True, **self.account)
        deadline = time.monotonic() + 30
        while True:
            status = data / "postmaster.pid"
            if status.exists() and "\nready" in status.read_text():
                break
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"bench: PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)
        self.query(f"CREATE DATABASE {NAME}", "postgres")
        rows = ", ".join("(%d, '%s')" % (n, text.replace("'", "''")) for n, text in enumerate(FORTUNES, 1))
        self.query(f"{TABLES} INSERT INTO fortune VALUES {rows}; VACUUM")
        self.query("VACUUM ANALYZE")

    def call(self, command, log):
        subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", timeout=120, check=True, **self.account)

    def query(self, sql, database=NAME):
        """Runs statements outside any transaction; returns psql's unaligned text."""
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", str(self.port), "-U", USER, "-d", database]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise SystemExit(f"bench: {done.stderr}")
        return done.stdout.strip()

    def quiet(self):
        """Counts and logs no statements from now on: that costs PostgreSQL CPU."""
        self.query("ALTER SYSTEM SET pg_stat_statements.track = 'none'")
        self.query("ALTER SYSTEM SET log_statement = 'none'")
        self.query("SELECT pg_reload_conf()")

    def statements(self):
        """Statements and rows since the last reset, by table: {'world': (calls, rows), ...}."""
        found = {}
        for name in ("world", "fortune"):
            text = self.query(
                "SELECT coalesce(sum(calls) FILTER (WHERE query ~* '^\\s*select'), 0),"
                " coalesce(sum(rows) FILTER (WHERE query ~* '^\\s*select'), 0),"
                " coalesce(sum(calls) FILTER (WHERE query ~* '^\\s*update'), 0),"
                " coalesce(sum(rows) FILTER (WHERE query ~* '^\\s*update'), 0)"
                f" FROM pg_stat_statements WHERE query ~* '\\m{name}\\M'"
            )
            found[name] = [int(number) for number in text.split("|")]
        return found

    def syncs(self):
        """Transactions of servers in which something was read, since the last reset: as many as Syncs, if none held two reads."""
        return syncs((self.folder / "log").read_bytes()[self.logged :].decode(errors="replace"))

    def reset(self):
        self.query("SELECT pg_stat_statements_reset()")
        self.logged = (self.folder / "log").stat().st_size

    def url(self):
        if self.transport == "unix":
            return f"postgresql://{USER}@/{NAME}?host={self.folder}&port={self.port}"
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{NAME}"

    def address(self):
        """The socket's path, or host and port."""
        return f"{self.folder}/.s.PGSQL.{self.port}" if self.transport == "unix" else f"127.0.0.1:{self.port}"

    def pids(self):
        return cpu.tree(self.process.pid)

    def writers(self):
        """Those of its processes that write behind the backends."""
        return {pid for pid in self.pids() if cpu.title(pid).endswith(WRITERS)}

    def __exit__(self, *_):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def syncs(log):
    """Distinct transactions in which servers executed a SELECT; those of `psql` are ours."""
    executed = EXECUTED.findall(log)
    return len({transaction for client, transaction, verb in executed if verb.lower() == "select" and client != "psql"})


def programs():
    """The folder of initdb and postgres: on PATH, else the newest of Debian's."""
    found = shutil.which("initdb")
    if found and shutil.which("postgres"):
        return os.path.dirname(found)
    folders = [path for path in glob.glob("/usr/lib/postgresql/*/bin") if os.path.exists(f"{path}/initdb")]
    if not folders:
        raise SystemExit("bench: PostgreSQL is not installed: apt-get install postgresql")
    return max(folders, key=lambda path: int(path.split("/")[-2]))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
