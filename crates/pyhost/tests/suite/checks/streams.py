"""Responses that take their time: longer than `timeout`, to clients that read slowly, with a slow end."""

import os
import time

from harness.app import Applications, note, plain, query
from harness.registry import GOAL, GUNICORN, check, equal, true
from harness.wire import request

application = Applications()
PLAIN = ("Content-Type", "text/plain")
MIB = b"m" * (1 << 20)
# Bytes that a slow client reads at a time, and the pause after them in seconds: it takes longer than `timeout`, here 2 s.
SLOW_BYTES, SLOW_PAUSE = 1 << 20, 0.25


@application.page
def paced(environ, start_response):
    """A piece every third of a second, for four seconds."""
    start_response("200 OK", [PLAIN])
    for number in range(12):
        time.sleep(0.33)
        note(environ, str(number))
        yield b"%d," % number


@application.page
def writes(environ, start_response):
    """As much as is asked for, through `write()`."""
    write = start_response("200 OK", [PLAIN])
    for _ in range(int(query(environ, "mib"))):
        write(MIB)
    note(environ, "written")
    return []


@application.page
def slow_end(environ, start_response):
    class Slow:
        def __iter__(self):
            yield b"first,"
            yield b"last"

        def close(self):
            time.sleep(2)
            note(environ, "closed")

    start_response("200 OK", [PLAIN])
    return Slow()


@application.page
def quick(environ, start_response):
    return plain(start_response, str(os.getpid()))


@check(GOAL, seconds=40)
def stream_may_last_longer_than_timeout(client):
    """Others are served meanwhile, and the worker is told to end only afterwards: it keeps its heartbeat."""
    with client.start("checks.streams:application", options=["--timeout", "2"]) as server:
        at, token = client.at(server), client.token()
        with at.connect(wait=10) as connection:
            connection.send(request("GET", f"/paced?token={token}"))
            at.notes(token, 1)
            while len(at.notes(token)) < 10:
                began = time.monotonic()
                equal(at.get("/quick").status, 200, "status of another request")
                true(time.monotonic() - began < 1, "another request waited for the stream")
                time.sleep(0.1)
            equal(connection.reply().body, b"0,1,2,3,4,5,6,7,8,9,10,11,", "body")
        true("ABRT" not in server.log() and "silent" not in server.log(), f"a worker was taken for stuck:\n{server.log_tail()}")


@check(GOAL, seconds=40)
def slow_client_of_write_is_no_silence(client):
    with client.start("checks.streams:application", workers=1, options=["--timeout", "2"]) as server:
        at, token, got = client.at(server), client.token(), 0
        with at.connect(receive_buffer=64 * 1024) as connection:
            connection.send(request("GET", f"/writes?mib=16&token={token}", version="1.0"))
            connection.head()
            while True:
                taken = len(connection.buffer)
                connection.buffer = b""
                while taken < SLOW_BYTES and connection._more("the body"):
                    taken += len(connection.buffer)
                    connection.buffer = b""
                got += taken
                if connection.is_ended:
                    break
                time.sleep(SLOW_PAUSE)
        equal(got, 16 * len(MIB), "bytes that arrived")
        equal(at.notes(token, 1), ["written"], "notes")


@check(GUNICORN)
def chunked_response_ends_before_close_does(client):
    token = client.token()
    with client.connect() as connection:
        began = time.monotonic()
        connection.send(request("GET", f"/slow_end?token={token}"))
        equal(connection.reply().body, b"first,last", "body")
        took = time.monotonic() - began
        true(took < 1.5, f"the response ended after {took:.1f} s, with a close() of 2 s")
    equal(client.notes(token, 1), ["closed"], "notes of close()")
