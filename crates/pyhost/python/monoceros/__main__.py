"""`python -m monoceros APP`: one worker, or the preloader of several. A master starts it under the worker contract; alone
it serves by itself."""

import faulthandler
import json
import os
import sys

from monoceros import _files, _load, _monoceros, _preload, _reload, _signals, _threads

USAGE, BOOT_FAILED, NO_APPLICATION = 2, 3, 4
# What the master said to this process; a program that the application starts must not take it as said to itself.
CONTRACT = (
    "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "MONOCEROS_SLOT", "MONOCEROS_GENERATION",
    "MONOCEROS_SETTINGS", "MONOCEROS_SCOREBOARD", "MONOCEROS_BLOCK", "MONOCEROS_LIFELINE",
    "MONOCEROS_PRELOADER",
)


def forked():
    """In a process that the application forked: it is no worker."""
    _monoceros.is_forked()
    _signals.forget()


def trace_to(log):
    """A silent worker is aborted: the log then shows the line at which every thread stands. Returns where it is written."""
    is_file = log and log != "-"
    trace = open(_monoceros.open_trace(log), "a", buffering=1, closefd=False) if is_file else sys.__stderr__
    if trace is not None:
        faulthandler.enable(trace, all_threads=True)
    return trace


def arguments(words):
    """APP, the configuration file with hooks for workers, and whether APP is only to be tried; None: they are wrong."""
    config, is_check = None, False
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--check":
            is_check = True
        elif word == "--config" and words:
            config = words.pop(0)
        else:
            return None
    return (words[0], config, is_check) if len(words) == 1 else None


def check(uri):
    """Loads the application as a worker would, and ends; the settings are where a worker has them."""
    try:
        with open(f"/proc/self/fd/{int(os.environ['MONOCEROS_SETTINGS'])}", encoding="utf-8") as file:
            settings = json.load(file)
        for name in CONTRACT:
            os.environ.pop(name, None)
        sys.argv[:] = [uri]
        _load.prepare(settings)
        _load.load(uri)
        code = 0
    except (Exception, SystemExit) as error:
        print(_load.text_of(error), file=sys.stderr)
        code = NO_APPLICATION if isinstance(error, _load.NoApplication) else BOOT_FAILED
    _load.leave(code)


def main():
    said = arguments(sys.argv[1:])
    if said is None:
        print("usage: python -m monoceros [--check] [--config FILE] MODULE:CALLABLE", file=sys.stderr)
        return USAGE
    uri, config, is_check = said
    if is_check:
        check(uri)
    started_as = os.getpid()
    is_preloader = "MONOCEROS_PRELOADER" in os.environ
    notify_socket = os.environ.get("NOTIFY_SOCKET")
    hooks = None
    if config:
        from monoceros import _hooks

        hooks = _hooks.WorkerHooks(config)

    def build(settings_json, slot, generation, errors):
        settings = json.loads(settings_json)
        for name in CONTRACT:
            os.environ.pop(name, None)
        trace = trace_to(settings.get("errorlog"))
        os.register_at_fork(after_in_child=forked)
        if settings.get("reload"):
            _reload.remember_loads()
        sys.argv[:] = [uri]
        _load.prepare(settings)
        if hooks and not is_preloader:
            hooks.begin(settings, slot, generation, errors.log, trace)
        return _load.load(uri)

    def begin(settings_json, slot, generation, errors):
        """In the worker, after the import."""
        settings = json.loads(settings_json)
        if os.getpid() != started_as:
            # Forked, perhaps long after the import: by now the log may be another file.
            trace = trace_to(settings.get("errorlog"))
            if hooks:
                hooks.begin(settings, slot, generation, errors.log, trace)
        # One looks for all: each change is told once.
        if settings.get("reload") and slot == 0 and notify_socket:
            _reload.watch(settings, notify_socket)
        if hooks:
            hooks.loaded()

    _signals.install()
    code = _monoceros.run(
        build, _preload.settle, begin, _threads.start, _files.FileWrapper, _files.part_of, _load.text_of, _load.NoApplication,
        hooks,
    )
    if hooks:
        hooks.end()
    _threads.end(code)
    _load.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
