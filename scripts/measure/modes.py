"""What is no steady load: start-up, reload, ten thousand idle connections, quick requests beside a stopped worker."""

import os
import resource
import signal
import socket
import statistics
import time

from . import cpu, load, peers

STARTS = 5
RELOADS = 3
IDLE_CONNECTIONS = 10_000
REQUEST = b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Longest wait for anything here.
PATIENCE_S = 30
# Servers whose workers are processes, so that one can be stopped, and those that reload on HUP.
WITH_PROCESSES = ("monoceros", "python", "nginx")
WITH_RELOAD = ("monoceros", "python", "nginx")
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


def reload(name, database, flags, out):
    """Milliseconds until every worker is a new one and the old ones are gone, and the CPU that it took."""
    if name not in WITH_RELOAD:
        return {}
    peer = peers.start(name, database, flags, out)
    times, costs = [], []
    try:
        for _ in range(RELOADS):
            old = set(peer.pids()) - {peer.process.pid}
            before, began = cpu.seconds(peer.pids()), time.monotonic()
            seen = dict(before)
            peer.process.send_signal(signal.SIGHUP)
            while True:
                pids = set(peer.pids()) - {peer.process.pid}
                seen.update(cpu.seconds([peer.process.pid, *pids]))
                if not old & pids and len(pids) >= len(old):
                    break
                if time.monotonic() - began > PATIENCE_S:
                    raise SystemExit(f"bench: {name} does not reload")
                time.sleep(0.005)
            times.append((time.monotonic() - began) * 1e3)
            costs.append(cpu.spent(before, seen) * 1e3)
            time.sleep(0.5)
    finally:
        peer.stop()
    return {"reload_ms": statistics.median(times), "reload_cpu_ms": statistics.median(costs)}


def idle(name, database, flags, out):
    """Memory per idle connection that has had one answer, in bytes; and how many were still open at the end."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (IDLE_CONNECTIONS + 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    flags.options += IDLE_OPTIONS
    peer = peers.start(name, database, flags, out)
    flags.options = flags.options.removesuffix(IDLE_OPTIONS)
    clients = []
    try:
        before = cpu.pss_bytes(peer.pids())
        for _ in range(IDLE_CONNECTIONS):
            client = socket.create_connection(("127.0.0.1", peer.port), timeout=10)
            client.sendall(REQUEST)
            client.recv(1024)
            clients.append(client)
        after = cpu.pss_bytes(peer.pids())
        quiet = cpu.seconds(peer.pids())
        time.sleep(1)
        idle_cpu = cpu.spent(quiet, cpu.seconds(peer.pids())) * 1e3
        still_open = sum(is_open(client) for client in clients)
    finally:
        for client in clients:
            client.close()
        peer.stop()
    return {"bytes_per_idle": (after - before) / IDLE_CONNECTIONS, "idle_cpu_ms_per_s": idle_cpu, "open": still_open}


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
    if name not in WITH_PROCESSES:
        return {}
    peer = peers.start(name, database, flags, out)
    try:
        workers = [pid for pid in peer.pids() if pid != peer.process.pid and is_worker(name, pid)]
        os.kill(workers[0], signal.SIGSTOP)
        figures = load.run(peer.url("/plaintext"), 16, flags.seconds, close=True)
        os.kill(workers[0], signal.SIGCONT)
    finally:
        peer.stop()
    return {key: figures[key] for key in ("p50_ms", "p99_ms", "rps", "failed")}


def is_worker(name, pid):
    """Whether the process is one of those that serve."""
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        title = file.read()
    return b"worker" in title if name in ("monoceros", "nginx") else True


MODES = {"startup": startup, "reload": reload, "idle": idle, "tail": tail}


def run(names, servers, database, flags, out):
    """{mode: {server: figures}}"""
    return {mode: {name: MODES[mode](name, database, flags, out) for name in servers} for mode in names}


def render(found):
    lines = []
    for mode, by_server in found.items():
        lines += [f"**{mode}**", ""]
        keys = list(dict.fromkeys(key for figures in by_server.values() for key in figures))
        lines += ["| | " + " | ".join(keys) + " |", "| --- |" + " --- |" * len(keys)]
        for name, figures in by_server.items():
            if figures:
                lines.append(f"| {name} | " + " | ".join(f"{figures.get(key, 0):.1f}" for key in keys) + " |")
        lines.append("")
    return "\n".join(lines)
