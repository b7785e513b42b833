"""Instructions that one request costs, counted by Valgrind: the same in every run, whatever else the machine does.

A worker runs alone under callgrind against a stand-in for PostgreSQL, and is loaded in lockstep: it is stopped, every
connection sends its request, it goes on, and every answer is awaited. So each turn of its loop finds the same work. Only
instructions of the program itself are counted, not those of the kernel. `scripts/instructions --help` lists the flags.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from . import postgres, stub
from .postgres import free_port

HEAD = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\n"
    "Accept: application/json,text/html;q=0.9,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n"
    "Connection: keep-alive\r\n\r\n"
)
TESTS = {
    # name: (path, requests per write, rounds)
    "json": ("/json", 1, 100),
    "plaintext": ("/plaintext", 16, 60),
    "db": ("/db", 1, 60),
    "queries": ("/queries?queries=20", 1, 25),
    "fortunes": ("/fortunes", 1, 40),
    "updates": ("/updates?queries=20", 1, 25),
}
# Each sends in every round.
CONNECTIONS = 16
WARM_UP_ROUNDS = 4
BUDGETS = pathlib.Path("scripts/measure/instructions.txt")
# Another compiler or allocator changes a little everywhere; a real regression is more.
TOLERANCE = 1.05


class Program:
    """A worker, or the floor's, under callgrind."""

    def __init__(self, kind, path, database, folder):
        self.port = free_port()
        self.folder = folder
        environment = dict(os.environ, MONOCEROS_BIND=f"127.0.0.1:{self.port}")
        command = [os.path.abspath(path)]
        if kind == "floor":
            command += ["--worker", "--bind", f"127.0.0.1:{self.port}", "--postgres", f"127.0.0.1:{database.port}"]
        else:
            environment["DATABASE_URL"] = f"postgresql://monoceros@127.0.0.1:{database.port}/hello_world"
        # No names in its arguments: a worker that writes its title overwrites them.
        callgrind = ["valgrind", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]
        self.log = folder / f"{kind}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([*callgrind, *command], env=environment, cwd=folder, stdout=log, stderr=log)

    def connect(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=60)
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"instructions: the worker does not answer: {self.log.read_text()[-2000:]}")
                time.sleep(0.1)

    def command(self, what):
        """Has callgrind do something, between two rounds."""
        vgdb = ["vgdb", f"--pid={self.process.pid}", what]
        subprocess.run(vgdb, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=True)

    def counted(self):
        """Instructions since the last call or `zero`, and the file that says where."""
        before = set(self.folder.glob("callgrind.out.*"))
        self.command("dump")
        (file,) = set(self.folder.glob("callgrind.out.*")) - before
        found = re.search(r"^(?:summary|totals): (\d+)", file.read_text(), re.M)
        return int(found.group(1)), file

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def load(program, clients, path, depth, rounds):
    batch = HEAD.format(path=path).encode() * depth
    for _ in range(rounds):
        program.process.send_signal(signal.SIGSTOP)
        for client in clients:
            client.sendall(batch)
        program.process.send_signal(signal.SIGCONT)
        for client in clients:
            receive(client, depth)


def receive(client, count):
    """Reads so many responses of status 200."""
    unread = b""
    while count:
        more = client.recv(1 << 16)
        if not more:
            raise SystemExit("instructions: the worker closed a connection")
        unread += more
        while count and (end := unread.find(b"\r\n\r\n")) >= 0:
            head = unread[:end].lower()
            if not head.startswith(b"http/1.1 200 "):
                raise SystemExit(f"instructions: {head!r}")
            whole = end + 4 + int(re.search(rb"content-length: (\d+)", head).group(1))
            if len(unread) < whole:
                break
            unread = unread[whole:]
            count -= 1


def measure(kind, path, tests, connections, keep):
    """{test: instructions per request}"""
    figures = {}
    database = stub.Stub(postgres.FORTUNES)
    with tempfile.TemporaryDirectory(prefix="monoceros-instructions-") as name:
        folder = pathlib.Path(name)
        program = Program(kind, path, database, folder)
        try:
            clients = [program.connect() for _ in range(connections)]
            for test in tests:
                target, depth, rounds = TESTS[test]
                load(program, clients, target, depth, WARM_UP_ROUNDS)
                program.command("zero")
                load(program, clients, target, depth, rounds)
                total, file = program.counted()
                figures[test] = total / (rounds * depth * connections)
                if keep:
                    shutil.copy(file, pathlib.Path(keep) / f"{kind}-{test}.callgrind")
        except BaseException:
            print(program.log.read_text(), file=sys.stderr)
            raise
        finally:
            program.stop()
    return figures


def main():
    parser = argparse.ArgumentParser(prog="scripts/instructions", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tests", default=",".join(TESTS), help="which, separated by commas (default: all)")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="that send in every round (default: %(default)s)")
    parser.add_argument("--floor", action="store_true", help="count the floor's too")
    parser.add_argument("--keep", metavar="FOLDER", help="keep callgrind's files there, for callgrind_annotate")
    parser.add_argument("--check", action="store_true", help=f"fail if a test costs more than {BUDGETS} allows")
    parser.add_argument("--record", action="store_true", help="write the figures there")
    parser.add_argument("--programs", default="target/release", help="folder of worker and floor (default: %(default)s)")
    flags = parser.parse_args()
    tests = flags.tests.split(",")
    if flags.keep:
        os.makedirs(flags.keep, exist_ok=True)
    kinds = ["worker", "floor"] if flags.floor else ["worker"]
    figures = {
        kind: measure(kind, f"{flags.programs}/{kind}", tests, flags.connections, flags.keep) for kind in kinds
    }
    budgets = dict(line.split() for line in BUDGETS.read_text().splitlines()) if BUDGETS.exists() else {}
    exceeded = []
    for test in tests:
        ours = figures["worker"][test]
        line = f"{test:10} {ours:10.0f}"
        if flags.floor:
            line += f"   floor {figures['floor'][test]:10.0f}   ratio {ours / figures['floor'][test]:.2f}"
        if test in budgets and not flags.record:
            line += f"   budget {int(budgets[test]):10}   {ours / int(budgets[test]) - 1:+.1%}"
            if ours > int(budgets[test]) * TOLERANCE:
                exceeded.append(test)
        print(line)
    if flags.record:
        BUDGETS.write_text("".join(f"{test} {figures['worker'][test]:.0f}\n" for test in tests))
    if flags.check and exceeded:
        sys.exit(
            f"instructions: {', '.join(exceeded)}: more than {TOLERANCE - 1:.0%} above {BUDGETS}. Find what has become dearer "
            "(--keep FOLDER, then callgrind_annotate), or record the new figures (--record) and say why in the commit."
        )


if __name__ == "__main__":
    main()
