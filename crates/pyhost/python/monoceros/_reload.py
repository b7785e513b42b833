"""Watches the application's code for `--reload`, and tells the master of a change.

- Looked at are the files of all loaded modules, those that lie beside modules of the application itself (one that the new
  code needs may not be loaded here), and `reload_extra_files`.
- A module's file counts as changed against the state in which it was loaded, so no change is missed while workers boot.
"""

import glob
import os
import socket
import sys
import sysconfig
import threading
import time
from importlib.machinery import SourceFileLoader

# Seconds between two looks.
LOOK_EVERY = 1.0
# Most files of the application's folders, and of all patterns, that are looked at.
FILES_MAX = 10_000

# Modification times of modules' files when they were loaded.
_loaded = {}


def remember_loads():
    """From now on the state of each module's file is known as it was when the module was loaded."""
    path_stats = SourceFileLoader.path_stats

    def remembering(self, path):
        stats = path_stats(self, path)
        _loaded[path] = stats["mtime"]
        return stats

    SourceFileLoader.path_stats = remembering


def watch(settings, notify_socket):
    """Begins to watch, in a thread of its own."""
    watcher = Watcher(settings.get("reload_extra_files") or [])

    def look():
        while True:
            time.sleep(LOOK_EVERY)
            path = watcher.changed()
            if path is not None:
                _tell(notify_socket, path)

    threading.Thread(target=look, name="monoceros-reload", daemon=True).start()


def _tell(notify_socket, path):
    address = "\0" + notify_socket[1:] if notify_socket.startswith("@") else notify_socket
    message = "RELOAD=1\nSTATUS={} modified".format(" ".join(path.splitlines())).encode("utf-8", "replace")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(message, address)
    except OSError:
        pass  # The master is gone, and this worker goes too.


class Watcher:
    """What is looked at, and how it was when it was last looked at."""

    def __init__(self, patterns):
        self.patterns = patterns
        self.seen = {}
        # Modules of the library and of installed packages are watched themselves, their neighbours are not.
        self.installed = tuple({
            os.path.join(path, "") for name in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(name))
        })
        self.seen = {path: _loaded.get(path, modified) for path, modified in self._look().items()}

    def changed(self):
        """A file that is not as it was, or has appeared; all changes of one moment count as one."""
        found = None
        for path, modified in self._look().items():
            if modified is None:
                continue  # Gone, perhaps only while an editor writes it anew.
            if self.seen.get(path) != modified:
                found = path
            self.seen[path] = modified
        return found

    def _look(self):
        """Modification times of everything that is looked at."""
        now = {path: _modified(path) for path in self._modules()}
        # A module that was loaded since is no change.
        for path, modified in now.items():
            self.seen.setdefault(path, _loaded.get(path, modified))
        for path in [*self._neighbours(now), *self._extra()]:
            now.setdefault(path, _modified(path))
        return now

    def _modules(self):
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if isinstance(path, str) and path.endswith((".py", ".pyc")):
                yield path[:-1] if path.endswith(".pyc") else path

    def _neighbours(self, modules):
        folders = {os.path.dirname(path) for path in modules if not path.startswith(self.installed)}
        count = 0
        for folder in sorted(folders):
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.endswith(".py") and entry.name[:-3].isidentifier():
                            count += 1
                            if count > FILES_MAX:
                                return
                            yield entry.path
            except OSError:
                pass

    def _extra(self):
        count = 0
        for pattern in self.patterns:
            for path in glob.iglob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern]:
                count += 1
                if count > FILES_MAX:
                    return
                yield os.path.abspath(path)


def _modified(path):
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None
