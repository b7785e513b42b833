"""The servers to measure. A further one is a function that returns its command line, and an entry in ALL."""

import http.client
import os
import shlex
import signal
import socket
import subprocess
import time

from . import cpu, others
from .postgres import free_port

# Longest wait for a server's first answer, for its end, and for that of a connection, in seconds.
BOOT_MAX_S = 30
STOP_MAX_S = 40
CLOSE_MAX_S = 2


def monoceros(peer, database, flags):
    options = ["--workers", str(flags.workers), "--bind", peer.address(), "--database", database.url()]
    return [flags.master, *options, *shlex.split(flags.options)]


def with_log(peer, database, flags):
    peer.access_log = peer.out / f"{peer.name}.access"
    return [*monoceros(peer, database, flags), "--access-logfile", str(peer.access_log.resolve())]


def with_json_log(peer, database, flags):
    return [*with_log(peer, database, flags), "--access-logformat", "json"]


def with_metrics(peer, database, flags):
    peer.admin_port = free_port()
    return [*monoceros(peer, database, flags), "--admin-bind", f"127.0.0.1:{peer.admin_port}"]


def floor(peer, database, flags):
    options = ["--workers", str(flags.workers), "--bind", peer.address(), "--postgres", database.address()]
    return [flags.floor, *options, *(["--close"] if flags.close else [])]


OURS = {
    "monoceros": monoceros,
    "monoceros+log": with_log,
    "monoceros+json-log": with_json_log,
    "monoceros+metrics": with_metrics,
}
OTHERS = others.found()
ALL = {"floor": floor, **OURS, **{name: others.command(found[1]) for name, found in OTHERS.items()}}
DEFAULT = ["floor", "monoceros"]
# What --peers has a word for: whatever is built, and what observing ours costs.
GROUPS = {"all": [*DEFAULT, *OTHERS], "ours": list(OURS)}


def is_rival(name):
    """Whether it is another's server: neither ours, in whatever form, nor the floor."""
    return name not in OURS and name != "floor"


class Peer:
    """A server in a session of its own. `tests`: those it serves; None: all of them."""

    def __init__(self, name, out, tests=None):
        self.name, self.out, self.tests = name, out, tests
        self.port = free_port()
        self.process = None
        # When it was begun, by the monotonic clock.
        self.since = None
        # What some of ours have.
        self.access_log = self.admin_port = None

    def launch(self, command, **process):
        with open(self.log(), "wb") as log:
            self.since = time.monotonic()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **process)

    def serves(self, test):
        return self.tests is None or test in self.tests

    def log(self):
        return self.out / f"{self.name}.log"

    def address(self):
        return f"127.0.0.1:{self.port}"

    def url(self, path):
        return f"http://{self.address()}{path}"

    def get(self, path):
        """One request on a connection of its own: (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def closes(self, path):
        """Whether it closes a connection, after the answer, whose client asks for that."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=CLOSE_MAX_S) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            try:
                while client.recv(1 << 16):
                    pass
            except TimeoutError:
                return False
            except ConnectionResetError:
                pass
        return True

    def answers(self, path):
        """Waits for the first answer of status 200; whether there was one."""
        while self.lives() and time.monotonic() - self.since < BOOT_MAX_S:
            try:
                if self.get(path)[0] == 200:
                    return True
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        return False

    def pids(self):
        return cpu.tree(self.process.pid)

    def lives(self):
        return self.process.poll() is None

    def stop(self):
        if self.lives():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                # Its own session: nothing else is in that process group.
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.access_log:
            self.access_log.unlink(missing_ok=True)

    def logged(self):
        """Lines in the access log since the last call, which empties it; None: it keeps none."""
        if self.access_log is None:
            return None
        with open(self.access_log, "rb") as file:
            lines = sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
        os.truncate(self.access_log, 0)
        return lines


def spawn(name, database, flags, out):
    """Starts a server; it may not answer yet."""
    peer = Peer(name, out, OTHERS[name][0] if name in OTHERS else None)
    peer.launch(ALL[name](peer, database, flags))
    return peer


def start(name, database, flags, out):
    """Starts a server and waits until it answers, from the database if it knows one."""
    peer = spawn(name, database, flags, out)
    if not peer.answers("/db" if peer.serves("db") else "/plaintext"):
        peer.stop()
        raise SystemExit(f"bench: {name} does not answer; see {peer.log()}")
    return peer
