"""The load client: wrk, and what it says."""

import os
import pathlib
import re
import subprocess
import time

from . import cpu

PIPELINE = pathlib.Path(__file__).with_name("pipeline.lua")
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


def run(url, connections, seconds, depth=1, close=False):
    """Loads `url`; returns requests, rps, p50_ms, p99_ms and failed."""
    threads = min(connections, os.cpu_count())
    command = ["wrk", "--latency", "-d", str(seconds), "-c", str(connections), "-t", str(threads), "--timeout", "8"]
    command += ["-H", "Host: localhost", "-H", "Accept: application/json,text/html;q=0.9,application/xhtml+xml;q=0.9,*/*;q=0.8"]
    command += ["-H", "Connection: close" if close else "Connection: keep-alive"]
    if depth > 1 and not close:
        command += ["-s", str(PIPELINE), url, "--", str(depth)]
    else:
        command += [url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)}: {done.stderr or done.stdout}")
    return read(done.stdout, 1 if close else depth)


def measured(peer, path, connections, seconds, depth=1, close=False, settle_s=0):
    """The same for a server that runs, with `server_us`: its CPU per request, up to `settle_s` after the load."""
    before = cpu.seconds(peer.pids())
    figures = run(peer.url(path), connections, seconds, depth, close)
    time.sleep(settle_s)
    figures["server_us"] = cpu.spent(before, cpu.seconds(peer.pids())) * 1e6 / max(figures["requests"], 1)
    return figures


def read(text, depth=1):
    """Reads wrk's report. There are no latencies when requests are pipelined: wrk takes those of whole batches, and then
    corrects them as if each batch should have come as quickly as one request (`stats_correct`)."""
    requests, length = re.search(r"(\d+) requests in ([\d.]+)s,", text).groups()
    failed = sum(int(number) for number in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if errors:
        failed += sum(int(number) for number in errors.groups())
    return {
        "requests": int(requests),
        "rps": int(requests) / float(length),
        "p50_ms": percentile(text, 50) if depth == 1 else None,
        "p99_ms": percentile(text, 99) if depth == 1 else None,
        "failed": failed,
    }


def percentile(text, which):
    number, unit = re.search(rf"^\s*{which}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.M).groups()
    return float(number) * UNITS[unit]
