"""`python -m monoceros.hook FILE NAME`: calls a hook of the master's, as its command; see docs/hooks.md."""

import json
import os
import sys
import traceback

from monoceros import _config, _hooks, _load

USAGE = 2
FACTS = "MONOCEROS_HOOK_"


def arguments(name, server, worker, facts):
    """What gunicorn calls the hook with."""
    if name == "nworkers_changed":
        return server, int(facts["WORKERS"]), int(facts["WORKERS_BEFORE"])
    return (server, worker) if _config.HOOKS[name] == 2 else (server,)


def main():
    if len(sys.argv) != 3 or sys.argv[2] not in _config.HOOKS:
        print("usage: python -m monoceros.hook FILE|python:MODULE NAME", file=sys.stderr)
        return USAGE
    form, name = sys.argv[1:]
    sys.argv[:] = [form]
    facts = {key[len(FACTS):]: value for key, value in os.environ.items() if key.startswith(FACTS)}
    settings = json.loads(facts.get("SETTINGS") or "{}")
    try:
        _load.prepare(settings)
        names = _config.execute(form)
        log = _hooks.log(say)
        cfg = _hooks.Cfg(settings, names)
        server = _hooks.Server(int(facts["MASTER_PID"]), log, cfg)
        server.num_workers = int(facts.get("WORKERS", server.num_workers))
        worker = None
        if "SLOT" in facts:
            pid = facts.get("WORKER_PID")
            worker = _hooks.Worker(pid and int(pid), server.pid, int(facts["SLOT"]), int(facts["GENERATION"]), log, cfg)
        _config.hooks_of(names)[name](*arguments(name, server, worker, facts))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def say(level, text):
    """The master puts what is printed into the log, as its information."""
    print(text if level < _hooks.WARNING else f"{_hooks.level_name(level)}: {text}", flush=True)


if __name__ == "__main__":
    _load.leave(main())
