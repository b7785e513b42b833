"""Quick pages beside slow ones, and memory over many requests."""

import os
import threading
import time

from harness.app import Applications, note, plain
from harness.registry import GOAL, GUNICORN, PEP, check, equal, true
from harness.wire import request

application = Applications()
REQUESTS_LONG = 100_000
# Growth allowed for all workers together after the first tenth of the requests, in KiB.
GROWTH_MAX = 3 * 1024


@application.page
def quick(environ, start_response):
    return plain(start_response, "quick")


@application.page
def blocked(environ, start_response):
    note(environ, "begun")
    time.sleep(3)
    return plain(start_response, "slow")


@application.page
def everything(environ, start_response):
    """A little of all: headers, query, body, a generator, an error stream."""
    body = environ["wsgi.input"].read()
    assert environ["HTTP_X_NUMBER"] in environ["QUERY_STRING"]
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Number", environ["HTTP_X_NUMBER"])])
    return (piece for piece in (b"<", body, b">"))


def times_beside_a_blocked_worker(client):
    token = client.token()
    slow = threading.Thread(target=lambda: client.get(f"/blocked?token={token}"), daemon=True)
    slow.start()
    equal(client.notes(token, 1), ["begun"], "notes")
    times, end = [], time.monotonic() + 2.5
    while time.monotonic() < end and len(times) < 200:
        began = time.monotonic()
        with client.connect() as connection:
            connection.send(request("GET", "/quick", [("Connection", "close")]))
            equal(connection.reply().body, b"quick", "answer")
        times.append(time.monotonic() - began)
        time.sleep(0.005)  # One at a time: the queue is not what is measured.
    slow.join(5)
    return sorted(times)


@check(GUNICORN)
def quick_pages_do_not_wait_behind_a_busy_worker(client):
    times = times_beside_a_blocked_worker(client)
    true(len(times) > 40 and times[-1] < 1, f"{len(times)} pages in 2.5 s, the slowest took {times[-1]:.2f} s")


@check(GOAL)
def quick_pages_are_quick_beside_a_busy_worker(client):
    times = times_beside_a_blocked_worker(client)
    late = times[int(len(times) * 0.99)]
    true(late < 0.05, f"p99 of {len(times)} pages is {late * 1000:.0f} ms, wanted under 50 ms")


@check(GUNICORN)
def eight_clients_share_two_workers(client):
    """Nobody is forgotten: all of 8 × 40 requests are answered."""
    failures = []

    def ask():
        for _ in range(40):
            try:
                with client.connect() as connection:
                    connection.send(request("GET", "/quick"))
                    equal(connection.reply().body, b"quick", "answer")
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    equal(failures, [], "failures")


def resident(client):
    total = 0
    for pid in client.server.descendants():
        try:
            with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
                total += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
        except OSError:
            pass
    return total


def ask_many(client, count):
    """Requests with a body and a generator's answer, on kept connections where the server keeps them."""
    connection = None
    for number in range(count):
        if connection is None:
            connection = client.connect()
        body = b"b" * (number % 50)
        connection.send(request("POST", f"/everything?{number}", [("X-Number", str(number))], body))
        reply = connection.reply()
        equal((reply.status, reply.body), (200, b"<" + body + b">"), "status and body")
        if not reply.keeps_alive() or number % 1000 == 999:
            connection.close()
            connection = None
    if connection:
        connection.close()


def memory_stays(client, count):
    ask_many(client, count // 10)
    before, workers = resident(client), sorted(client.server.descendants())
    ask_many(client, count)
    true(sorted(client.server.descendants()) == workers, "the workers are not the same any more")
    grown = resident(client) - before
    true(grown < GROWTH_MAX, f"grown by {grown} KiB over {count} requests, from {before} KiB")


@check(PEP, seconds=300)
def memory_does_not_grow_over_20000_requests(client):
    memory_stays(client, 20_000)


@check(PEP, seconds=600, is_long=True)
def memory_does_not_grow_over_100000_requests(client):
    memory_stays(client, REQUESTS_LONG)
