"""The server under test: started from its command line, watched through /proc, stopped by its process id.

The command line holds `{bind}` and `{app}`; it may hold `{options}` (gunicorn's options, for checks that need some: they
are skipped without it), `{workers}` (2 unless a check needs another number) and `{venv}`.
"""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from harness.registry import Failure, Skip, folder

# Longest time a server may take from its start to its first answer, in seconds.
BOOT_MAX = 20.0
# Longest time a server may take to stop when asked to, in seconds.
STOP_MAX = 10.0
LOG_LINES_SHOWN = 25


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Command:
    """How servers are started: the template, and what all of them share."""

    def __init__(self, template, venv=None, options=()):
        self.template, self.venv, self.options = template, venv, list(options)
        if "{bind}" not in template or "{app}" not in template:
            raise SystemExit("--server needs {bind} and {app}")

    def takes_options(self):
        return "{options}" in self.template

    def arguments(self, bind, app, options, workers):
        known = {"bind": bind, "app": app, "workers": str(workers), "venv": self.venv or ""}
        out = []
        for word in shlex.split(self.template):
            if word == "{options}":
                out.extend([*self.options, *options])
                continue
            for name, value in known.items():
                word = word.replace("{" + name + "}", value)
            out.append(word)
        return out


class Server:
    """One running server. Use it as a context manager: it is gone afterwards, whatever happened."""

    def __init__(self, command, app, options=(), workers=2, env=None, directory=None, unix=False, waits=True):
        if options and not command.takes_options():
            raise Skip("the command line takes no gunicorn options")
        if workers != 2 and "{workers}" not in command.template:
            raise Skip("the command line takes no {workers}")
        self.app = app
        self.scratch = tempfile.mkdtemp(prefix="suite-")
        self.notes_folder = os.path.join(self.scratch, "notes")
        os.mkdir(self.notes_folder)
        self.log_path = os.path.join(self.scratch, "log")
        if unix:
            self.address = os.path.join(self.scratch, "socket")
            bind = f"unix:{self.address}"
        else:
            self.address = ("127.0.0.1", free_port())
            bind = f"127.0.0.1:{self.address[1]}"
        variables = {name: value for name, value in os.environ.items() if name not in ("PORT", "WEB_CONCURRENCY", "SCRIPT_NAME")}
        variables.update(SUITE_NOTES=self.notes_folder, PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1")
        if command.venv:
            variables["VIRTUAL_ENV"] = command.venv
            variables["PATH"] = os.path.join(command.venv, "bin") + os.pathsep + variables.get("PATH", "")
        variables.update(env or {})
        self.arguments = command.arguments(bind, app, options, workers)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.arguments, cwd=directory or folder(), env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )
        if waits:
            try:
                self._wait_until_it_answers()
            except BaseException:
                self.close()
                raise

    def _wait_until_it_answers(self):
        end = time.monotonic() + BOOT_MAX
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(f"the server ended with {self.process.returncode} at its start\n{self.log_tail()}")
            try:
                with socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET) as probe:
                    probe.settimeout(BOOT_MAX)
                    probe.connect(self.address)
                    probe.sendall(b"GET /ready HTTP/1.1\r\nHost: suite\r\nConnection: close\r\n\r\n")
                    if probe.recv(1):
                        return
            except OSError:
                pass
            time.sleep(0.02)
        raise Failure(f"the server does not answer within {BOOT_MAX:g} s\n{self.log_tail()}")

    def accepts(self):
        """Whether somebody listens."""
        try:
            with socket.socket(socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET) as probe:
                probe.settimeout(1)
                probe.connect(self.address)
            return True
        except OSError:
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def log_tail(self):
        return "\n".join("    | " + line for line in self.log().splitlines()[-LOG_LINES_SHOWN:])

    def log_has(self, text, within=5.0):
        """Whether the log comes to hold `text`."""
        return until(lambda: text in self.log(), within)

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self, within=STOP_MAX):
        """The exit code; a failure if it runs on."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise Failure(f"the server still runs after {within:g} s\n{self.log_tail()}") from None

    def stop(self, number=signal.SIGTERM, within=STOP_MAX):
        self.send_signal(number)
        return self.wait(within)

    def descendants(self):
        """Process ids of all children, and theirs."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                        parent = int(stat.read().rpartition(")")[2].split()[1])
                except (OSError, IndexError, ValueError):
                    continue
                children.setdefault(parent, []).append(int(entry))
        found, todo = [], [self.process.pid]
        while todo:
            for child in children.get(todo.pop(), ()):
                found.append(child)
                todo.append(child)
        return found

    def close(self):
        """Ends what is left of it: TERM, then KILL to the process group that was started here."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def until(condition, within):
    """Waits for a condition; whether it came true in time."""
    end = time.monotonic() + within
    while True:
        if condition():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)


def is_alive(pid):
    """Whether a process runs: a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
