#!/usr/bin/env python3
"""A strict black-box suite for WSGI servers: PEP 3333, gunicorn's documented behaviour, and our own goals.

    python3 run.py --server 'gunicorn --workers {workers} --bind {bind} {options} {app}' [--level pep|gunicorn|goal] [-k NAME]

Each file of `checks/` holds small applications and the checks that talk to them over raw sockets. The command is started
once for each file, on a free port, with two workers; checks of processes start servers of their own. Python 3.10 or
later, standard library only; the Flask and Django sites are skipped unless the server's Python has them (`--venv DIR`
makes a virtual environment that has).
"""

import argparse
import importlib
import os
import pkgutil
import shlex
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import registry  # noqa: E402
from harness.client import Client  # noqa: E402
from harness.registry import CHECKS, LEVELS, Failure, Skip  # noqa: E402
from harness.server import Command, Server  # noqa: E402
from harness.wire import WireError, short  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", metavar="COMMAND", help="with {bind} and {app}; {options} {workers} {venv} if it takes them")
    parser.add_argument("--level", choices=LEVELS, default="gunicorn", help="this level and those below it (default: gunicorn)")
    parser.add_argument("--only-level", action="store_true", help="without the levels below")
    parser.add_argument("-k", metavar="NAME", action="append", default=[], help="only checks whose name holds NAME; may be repeated")
    parser.add_argument("--not-yet", metavar="NAME", action="append", default=[], help="skip this check, which the server cannot pass yet")
    parser.add_argument("--long", action="store_true", help="also the checks that take minutes")
    parser.add_argument("--venv", metavar="DIR", help="virtual environment for the server; made, with Flask and Django, if missing")
    parser.add_argument("--install", metavar="PACKAGE", action="append", default=[], help="also installed into a new --venv")
    parser.add_argument("--options", metavar="WORDS", default="", help="given to every server, before what a check asks for")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    parser.add_argument("-v", action="store_true", help="a line for each check")
    arguments = parser.parse_args()
    load()
    chosen = choose(arguments)
    if arguments.list:
        for check in chosen:
            print(f"{check.level:9} {check.name}")
        return 0
    if not arguments.server:
        parser.error("--server is needed")
    venv = prepare(arguments.venv, arguments.install) if arguments.venv else None
    command = Command(arguments.server, venv, shlex.split(arguments.options))
    if command.options and not command.takes_options():
        parser.error("--options needs {options} in --server")
    run = Run(command, arguments.v, arguments.not_yet)
    try:
        run.all(chosen)
    finally:
        run.close()
    run.report()
    return 1 if run.failed else 0


def load():
    import checks

    for module in pkgutil.iter_modules(checks.__path__):
        importlib.import_module(f"checks.{module.name}")


def choose(arguments):
    top = LEVELS.index(arguments.level)
    levels = LEVELS[top : top + 1] if arguments.only_level else LEVELS[: top + 1]
    return [
        check
        for check in CHECKS
        if check.level in levels
        and (arguments.long or not check.is_long)
        and (not arguments.k or any(part in check.name for part in arguments.k))
    ]


def prepare(path, packages):
    """Makes the virtual environment for the sites, once."""
    path = os.path.abspath(path)
    if not os.path.exists(os.path.join(path, "bin", "python")):
        wanted = os.path.join(registry.folder(), "sites", "requirements.txt")
        pip = [os.path.join(path, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([sys.executable, "-m", "venv", path], check=True)
            subprocess.run([*pip, "-r", wanted, *packages], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(path, ignore_errors=True)  # Half an environment would be taken for a whole one.
            raise SystemExit(f"the virtual environment {path} could not be made: {error}") from None
    return path


class Run:
    """Makes checks one after another; keeps the server of the file at hand."""

    def __init__(self, command, is_verbose, not_yet):
        self.command, self.is_verbose, self.not_yet = command, is_verbose, not_yet
        self.module, self.server, self.refusal = None, None, None
        self.passed, self.failed, self.skipped = [], [], []

    def all(self, checks):
        for check in checks:
            began = time.monotonic()
            outcome, why = self.one(check)
            if outcome is self.failed and self.server and not self.server.accepts():
                self.close()  # One failure is no reason to fail the rest of the file.
            outcome.append(check)
            took = time.monotonic() - began
            word = {id(self.passed): "ok", id(self.failed): "FAILED", id(self.skipped): "skipped"}[id(outcome)]
            if why or self.is_verbose:
                print(f"{word:7} {check.level:8} {check.name} ({took:.2f} s){': ' + why if why else ''}", flush=True)

    def one(self, check):
        if check.name in self.not_yet or check.name.split("[")[0] in self.not_yet:
            return self.skipped, "not yet"
        client = None
        signal.signal(signal.SIGALRM, self.too_late)
        signal.alarm(check.seconds)
        try:
            client = Client(self.serve(check.module), self.command)
            if setup := getattr(sys.modules[check.module], "setup", None):
                setup(client)
            check.function(client, *check.arguments)
            return self.passed, None
        except Skip as why:
            return self.skipped, str(why)
        except Exception as error:  # The suite goes on, whatever a check stumbled over.
            kind = "" if isinstance(error, (Failure, WireError)) else f"{type(error).__name__}: "
            return self.failed, f"{kind}{error}{self.context(client)}"
        finally:
            signal.alarm(0)

    @staticmethod
    def too_late(_number, _frame):
        raise Failure("the check takes too long")

    def context(self, client):
        lines = []
        if client and client.sent:
            lines.append(f"    > {short(client.sent)}")
        if client and client.received:
            lines.append(f"    < {client.received!r}")
        if self.server and self.server.process.poll() is not None:
            lines.append(f"    the server of this file has ended with {self.server.process.returncode}\n{self.server.log_tail()}")
        return "".join("\n" + line for line in lines)

    def serve(self, module):
        """The server of a file; none for a file without an application of its own."""
        if self.module == module and self.refusal:
            raise self.refusal
        if self.module == module and self.server and self.server.process.poll() is None:
            return self.server
        self.close()
        self.module, self.refusal = module, None
        loaded = sys.modules[module]
        if hasattr(loaded, "SITE") or hasattr(loaded, "application"):
            try:
                how = loaded.site(self.command) if hasattr(loaded, "site") else {}
                self.server = Server(self.command, getattr(loaded, "SITE", f"{module}:application"), **how)
            except (Failure, Skip) as why:
                self.refusal = why
                if "No module named 'flask'" in str(why) or "No module named 'django'" in str(why):
                    self.refusal = Skip("the server's Python does not have it (--venv makes one that has)")
                raise self.refusal from None
        return self.server

    def close(self):
        if self.server:
            self.server.close()
        self.server = None

    def report(self):
        for level in LEVELS:
            counts = [sum(check.level == level for check in some) for some in (self.passed, self.failed, self.skipped)]
            if any(counts):
                print("{:9} {} passed, {} failed, {} skipped".format(level + ":", *counts))
        print(f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped")


if __name__ == "__main__":
    sys.exit(main())
