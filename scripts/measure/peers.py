"""The servers to measure. A further one is a function that returns its command line, and an entry in ALL."""

import http.client
import os
import shlex
import signal
import subprocess
import time

from . import cpu, others
from .postgres import free_port


def monoceros(port, database, flags):
    options = ["--workers", str(flags.workers), "--bind", f"127.0.0.1:{port}", "--database", database.url()]
    return [flags.master, *options, *shlex.split(flags.options)]


def floor(port, database, flags):
    options = ["--workers", str(flags.workers), "--bind", f"127.0.0.1:{port}", "--postgres", database.address()]
    return [flags.floor, *options, *(["--close"] if flags.close else [])]


OTHERS = others.found()
ALL = {"monoceros": monoceros, "floor": floor, **{name: others.command(found[1]) for name, found in OTHERS.items()}}
DEFAULT = ["floor", "monoceros"]


class Peer:
    def __init__(self, name, port, process, since):
        self.name, self.port, self.process = name, port, process
        # When it was begun, by the monotonic clock.
        self.since = since
        # None: all of them.
        self.tests = OTHERS[name][0] if name in OTHERS else None

    def serves(self, test):
        return self.tests is None or test in self.tests

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path):
        """One request on a connection of its own: (status, headers, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def pids(self):
        return cpu.tree(self.process.pid)

    def lives(self):
        return self.process.poll() is None

    def stop(self):
        if self.lives():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                # Its own session: nothing else is in that process group.
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def spawn(name, database, flags, out):
    """Starts a server; it may not answer yet."""
    port = free_port()
    with open(out / f"{name}.log", "wb") as log:
        command = ALL[name](port, database, flags)
        since = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    return Peer(name, port, process, since)


def start(name, database, flags, out):
    """Starts a server and waits until it answers, from the database if it knows one."""
    peer = spawn(name, database, flags, out)
    deadline = time.monotonic() + 30
    while True:
        try:
            if peer.get("/db" if peer.serves("db") else "/plaintext")[0] == 200:
                return peer
        except OSError:
            pass
        if not peer.lives() or time.monotonic() > deadline:
            peer.stop()
            raise SystemExit(f"bench: {name} does not answer; see {out}/{name}.log")
        time.sleep(0.05)
