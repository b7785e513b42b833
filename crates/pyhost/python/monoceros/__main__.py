"""`python -m monoceros APP`: one worker. A master starts it under the worker contract; alone it serves by itself."""

import faulthandler
import json
import os
import sys

from monoceros import _files, _load, _monoceros, _signals, _threads

USAGE = 2
# What the master said to this process; a program that the application starts must not take it as said to itself.
CONTRACT = (
    "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "MONOCEROS_SLOT", "MONOCEROS_GENERATION",
    "MONOCEROS_SETTINGS", "MONOCEROS_SCOREBOARD", "MONOCEROS_BLOCK", "MONOCEROS_LIFELINE",
)


def forked():
    """In a process that the application forked: it is no worker."""
    _monoceros.is_forked()
    _signals.forget()


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python -m monoceros MODULE:CALLABLE", file=sys.stderr)
        return USAGE
    uri = sys.argv[1]

    def build(settings_json, errors):
        settings = json.loads(settings_json)
        for name in CONTRACT:
            os.environ.pop(name, None)
        # A silent worker is aborted: the log then shows the line at which every thread stands.
        trace = sys.__stderr__
        log = settings.get("errorlog")
        if log and log != "-":
            trace = open(_monoceros.open_trace(log), "a", buffering=1, closefd=False)
        if trace is not None:
            faulthandler.enable(trace, all_threads=True)
        os.register_at_fork(after_in_child=forked)
        sys.argv[:] = [uri]
        _load.prepare(settings)
        return _load.load(uri)

    _signals.install()
    code = _monoceros.run(build, _files.FileWrapper, _files.part_of, _load.text_of, _load.NoApplication, _threads.start)
    _threads.end(code)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    return code


if __name__ == "__main__":
    sys.exit(main())
