"""What is no steady load: start-up, memory, reload, ten thousand idle connections, quick requests beside a stopped worker.

- A mode asks nothing of a server that cannot have it: it leaves that one out of its table.
- Processes of a server are its first one, its workers, and helpers that are neither: only workers are counted as such.
"""

import argparse
import contextlib
import os
import resource
import signal
import socket
import statistics
import sys
import time

from . import cpu, load, peers

STARTS = 5
RELOADS = 3
IDLE_CONNECTIONS = 10_000
REQUEST = b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Longest wait for anything here.
PATIENCE_S = 30
# Servers of a first process and workers: one of these can be stopped, HUP to the first replaces them.
WITH_WORKERS = (*peers.OURS, "python", "nginx")
TAIL_CONNECTIONS = 16
# What ours needs in order to hold so many for so long; others hold what they hold.
IDLE_OPTIONS = f" --worker-connections {IDLE_CONNECTIONS} --keep-alive 75"


def startup(name, database, flags, out):
    """Milliseconds from exec to the first answer."""
    times = []
    for _ in range(STARTS):
        peer = peers.spawn(name, database, flags, out)
        try:
            times.append(first_answer(peer) * 1e3)
        finally:
            peer.stop()
    return {"first_answer_ms": statistics.median(times)}


def first_answer(peer):
    while True:
        try:
            with socket.create_connection(("127.0.0.1", peer.port), timeout=5) as client:
                client.sendall(REQUEST)
                if client.recv(64).startswith(b"HTTP/1.1 200"):
                    return time.monotonic() - peer.since
        except OSError:
            pass
        if time.monotonic() - peer.since > PATIENCE_S:
            raise SystemExit(f"bench: {peer.name} does not answer")
        time.sleep(0.001)


def memory(name, database, flags, out):
    """PSS after a load, in MB: of all processes, of the first, of one worker on the average, and of helpers."""
    peer = peers.start(name, database, flags, out)
    try:
        for path in ("/plaintext", "/db", "/fortunes"):
            if peer.serves(path[1:]):
                load.run(peer.url(path), 64, 1, close=flags.close)
        serving = workers(peer)
        sizes = {pid: sum(cpu.pss_bytes([pid])) / 1e6 for pid in peer.pids()}
    finally:
        peer.stop()
    figures = {"total_mb": sum(sizes.values()), "first_mb": sizes.pop(peer.process.pid)}
    its_workers = [sizes.pop(pid) for pid in serving]
    if its_workers:
        figures.update(workers=len(its_workers), worker_mb=statistics.mean(its_workers), helpers_mb=float(sum(sizes.values())))
    return figures


def reload(name, database, flags, out):
    """Milliseconds until every worker is a new one and the old ones are gone, and the CPU that it took."""
    if name not in WITH_WORKERS:
        return {}
    peer = peers.start(name, database, flags, out)
    times, costs = [], []
    try:
        for _ in range(RELOADS):
            cpu.settle(peer.process.pid)
            old = workers(peer)
            before, began = cpu.seconds(peer.pids()), time.monotonic()
            seen = dict(before)
            peer.process.send_signal(signal.SIGHUP)
            while True:
                seen.update(cpu.seconds(peer.pids()))
                now = workers(peer)
                if not old & now and len(now) >= len(old):
                    break
                if time.monotonic() - began > PATIENCE_S:
                    raise SystemExit(f"bench: {name} does not reload")
                time.sleep(0.005)
            times.append((time.monotonic() - began) * 1e3)
            costs.append(cpu.spent(before, seen) * 1e3)
    finally:
        peer.stop()
    return {"reload_ms": statistics.median(times), "reload_cpu_ms": statistics.median(costs)}


def idle(name, database, flags, out):
    """Memory per idle connection that has had one answer, in bytes; how many there were, and how many still open at the end."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (IDLE_CONNECTIONS + 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    more = argparse.Namespace(**{**vars(flags), "options": flags.options + IDLE_OPTIONS, "close": False})
    peer = peers.start(name, database, more, out)
    try:
        cpu.settle(peer.process.pid)
        before = sum(cpu.pss_bytes(peer.pids()))
        with contextlib.ExitStack() as opened:
            clients = answered_clients(peer, opened)
            after = sum(cpu.pss_bytes(peer.pids()))
            quiet = cpu.seconds(peer.pids())
            time.sleep(1)
            idle_cpu = cpu.spent(quiet, cpu.seconds(peer.pids())) * 1e3
            still_open = sum(is_open(client) for client in clients)
    finally:
        peer.stop()
    figures = {"clients": len(clients), "still_open": still_open, "idle_cpu_ms_per_s": idle_cpu}
    if clients:
        figures["bytes_per_idle"] = (after - before) / len(clients)
    return figures


def answered_clients(peer, opened):
    """As many connections as there should be, each with one answer; fewer if the server takes no more."""
    clients = []
    while len(clients) < IDLE_CONNECTIONS:
        try:
            client = opened.enter_context(socket.create_connection(("127.0.0.1", peer.port), timeout=5))
            client.sendall(REQUEST)
            if not client.recv(1024).startswith(b"HTTP/1.1 200"):
                break
        except OSError:
            break
        clients.append(client)
    return clients


def is_open(client):
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def tail(name, database, flags, out):
    """Latency of quick requests, a connection each, while one worker is stopped."""
    if name not in WITH_WORKERS:
        return {}
    peer = peers.start(name, database, flags, out)
    try:
        cpu.settle(peer.process.pid)
        stopped = min(workers(peer))
        os.kill(stopped, signal.SIGSTOP)
        try:
            figures = load.run(peer.url("/plaintext"), TAIL_CONNECTIONS, flags.seconds, close=True)
        finally:
            os.kill(stopped, signal.SIGCONT)
    finally:
        peer.stop()
    return {key: figures[key] for key in ("p50_ms", "p99_ms", "rps", "failed")}


def workers(peer):
    """Its processes that serve: those with the right word in their title, or, of gunicorn's, all but the first."""
    others = set(peer.pids()) - {peer.process.pid}
    word = {"python": "", "nginx": "nginx: worker", "floor": "--worker"}.get(peer.name, "worker")
    return {pid for pid in others if word in cpu.title(pid)}


MODES = {"startup": startup, "memory": memory, "reload": reload, "idle": idle, "tail": tail}


def run(names, servers, database, flags, out):
    """{mode: {server: figures}}"""
    found = {}
    for mode in names:
        for name in servers:
            figures = MODES[mode](name, database, flags, out)
            found.setdefault(mode, {})[name] = figures
            print(f"  {mode} {name}: {', '.join(f'{key}={shown(value)}' for key, value in figures.items())}", file=sys.stderr)
    return found


def render(found):
    lines = []
    for mode, by_server in found.items():
        lines += [f"**{mode}**", ""]
        keys = list(dict.fromkeys(key for figures in by_server.values() for key in figures))
        lines += ["| | " + " | ".join(keys) + " |", "| --- |" + " --- |" * len(keys)]
        for name, figures in by_server.items():
            if figures:
                lines.append(f"| {name} | " + " | ".join(shown(figures.get(key, "–")) for key in keys) + " |")
        lines.append("")
    return "\n".join(lines)


def shown(value):
    """Counts whole, measures with a decimal."""
    return f"{value:.1f}" if isinstance(value, float) else str(value)
