"""`python -m monoceros APP`: one worker, or the preloader of several. A master starts it under the worker contract; alone
it serves by itself."""

import faulthandler
import json
import os
import signal
import sys

from monoceros import _files, _load, _monoceros, _preload, _reload, _threads

USAGE = 2
# What the master said to this process; a program that the application starts must not take it as said to itself.
CONTRACT = (
    "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "MONOCEROS_SLOT", "MONOCEROS_GENERATION",
    "MONOCEROS_SETTINGS", "MONOCEROS_SCOREBOARD", "MONOCEROS_BLOCK", "MONOCEROS_LIFELINE",
    "MONOCEROS_PRELOADER",
)


def forget_signals():
    """In a process that the application forked: signals mean to it what they mean to any program."""
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def trace_to(log):
    """A silent worker is aborted: the log then shows the line at which every thread stands."""
    trace = open(log, "a", buffering=1) if log and log != "-" else sys.__stderr__
    if trace is not None:
        faulthandler.enable(trace, all_threads=True)


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python -m monoceros MODULE:CALLABLE", file=sys.stderr)
        return USAGE
    uri = sys.argv[1]
    started_as = os.getpid()
    notify_socket = os.environ.get("NOTIFY_SOCKET")

    def build(settings_json, errors):
        settings = json.loads(settings_json)
        for name in CONTRACT:
            os.environ.pop(name, None)
        trace_to(settings.get("errorlog"))
        os.register_at_fork(after_in_child=forget_signals)
        if settings.get("reload"):
            _reload.remember_loads()
        sys.argv[:] = [uri]
        _load.prepare(settings)
        return _load.load(uri)

    def begin(settings_json, slot):
        """In the worker, after the import."""
        settings = json.loads(settings_json)
        if os.getpid() != started_as:
            # Forked, perhaps long after the import: by now the log may be another file.
            trace_to(settings.get("errorlog"))
        # One looks for all: each change is told once.
        if settings.get("reload") and slot == 0 and notify_socket:
            _reload.watch(settings, notify_socket)

    code = _monoceros.run(
        build, _preload.settle, begin, _threads.start, _files.FileWrapper, _files.part_of, _load.text_of, _load.NoApplication
    )
    _threads.end(code)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    return code


if __name__ == "__main__":
    sys.exit(main())
