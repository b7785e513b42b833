"""CPU time and memory of process trees, from the scheduler's own statistics."""

import os


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


def spent(before, after):
    """CPU seconds between two readings. One that began in between counts whole; one that ended is lost."""
    return sum(time - before.get(key, 0) for key, time in after.items())


def pss_bytes(pids):
    """Memory of the processes, pages that they share counted once."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        except OSError:
            continue
    return total
