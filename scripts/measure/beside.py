"""What goes on beside a load: the scraping of metrics, and one look at how the connections are spread over processes."""

import contextlib
import http.client
import os
import threading

SCRAPE_EVERY_S = 1
# Longest wait for one answer, and for a thread to end.
PATIENCE_S = 10
ESTABLISHED = "01"


@contextlib.contextmanager
def scraping(peer):
    """Reads the peer's metrics once a second, as Prometheus would more rarely; does nothing if it has none.

    Ends the run when an answer is missing: what was not asked for costs nothing.
    """
    if peer.admin_port is None:
        yield
        return
    over, wrong = threading.Event(), []

    def scrape():
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", peer.admin_port, timeout=PATIENCE_S)
                connection.request("GET", "/metrics")
                response = connection.getresponse()
                if response.status != 200 or b"http_server_request_duration_seconds" not in response.read():
                    wrong.append(f"status {response.status}")
                connection.close()
            except (OSError, http.client.HTTPException) as error:
                wrong.append(repr(error))
            if over.wait(SCRAPE_EVERY_S):
                return

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE_S)
    if wrong:
        raise SystemExit(f"bench: {peer.name}: /metrics: {wrong[0]}")


@contextlib.contextmanager
def spread(peer, after_s):
    """Gives a list that holds, at the end, the connections of each process as they were `after_s` seconds into the load."""
    found = []
    look = threading.Timer(after_s, lambda: found.extend(connections(peer.pids(), peer.port)))
    look.start()
    try:
        yield found
    finally:
        look.cancel()
        look.join(PATIENCE_S)


def connections(pids, port):
    """How many client connections each process holds, the most first; processes without any are left out."""
    ours = set()
    # A server that listens on both versions of IP has its clients in the second table.
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table) as file:
            ours |= established(file.read(), port)
    held = (sum(inode in ours for inode in sockets(pid)) for pid in pids)
    return sorted((count for count in held if count), reverse=True)


def established(table, port):
    """Inodes of the connections that the kernel's table shows at the local port."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == ESTABLISHED}


def sockets(pid):
    """Inodes of the sockets that the process has open."""
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    yield target[8:-1]
    except OSError:
        return
