"""CPU time and memory of process trees, from the scheduler's own statistics."""

import os
import time

# A server has settled when it spent less than this share of one processor for this long; it is not waited for longer.
SETTLED_SHARE, SETTLED_S, SETTLE_MAX_S = 0.05, 0.3, 10


def tree(root):
    """The process `root` and all that descend from it."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command's name stands in parentheses and may hold anything.
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(name))
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += children.get(pid, [])
    return found


def seconds(pids):
    """CPU time so far: {(pid, thread): seconds}."""
    times = {}
    for pid in pids:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                    times[pid, thread] = int(file.read().split()[0]) / 1e9
            except (OSError, IndexError, ValueError):
                continue
    return times


def spent(before, after, pids=None):
    """CPU seconds between two readings, of `pids` alone if given. One that began in between counts whole; one that ended
    is lost."""
    return sum(time - before.get(key, 0) for key, time in after.items() if pids is None or key[0] in pids)


def settle(root):
    """Waits until a process tree has nothing to do any more, as after its start."""
    deadline = time.monotonic() + SETTLE_MAX_S
    while time.monotonic() < deadline:
        before = seconds(tree(root))
        time.sleep(SETTLED_S)
        if spent(before, seconds(tree(root))) < SETTLED_SHARE * SETTLED_S:
            return


def title(pid):
    """The command line, as the process shows it; empty if it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def pss_bytes(pids):
    """Memory of each process: of a page that several share, each has its part."""
    sizes = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                sizes.append(sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:")))
        except OSError:
            continue
    return sizes
