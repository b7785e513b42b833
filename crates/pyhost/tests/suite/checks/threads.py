"""Several threads in one worker: who runs where, who waits for whom, and how each comes to its end."""

import hashlib
import signal
import tempfile
import threading
import time

from checks.loading import project
from checks.process import LIVING, Calls, living
from harness.app import Applications, note, plain, query, wait_for
from harness.registry import GOAL, GUNICORN, PEP, check, equal, rows, true
from harness.server import is_alive, until
from harness.wire import WireError, request

application = Applications()
PLAIN = [("Content-Type", "text/plain")]
THREADS = 4
PIECE = bytes(range(256)) * 256
# Pieces of a response that fits into no socket's buffers.
PIECES_MANY = 192

_local = threading.local()
_lock = threading.Lock()
_inside = [0, 0]


def site(command):
    return {"options": ["--threads", str(THREADS)], "workers": 1}


@application.page
def quick(environ, start_response):
    return plain(start_response, "quick")


@application.page
def thread(environ, start_response):
    me = threading.current_thread()
    _local.count = getattr(_local, "count", 0) + 1
    kind = "main" if me is threading.main_thread() else type(me).__name__
    return plain(start_response, f"{kind} {me.ident} {_local.count} {environ['wsgi.multithread']}")


@application.page
def number(environ, start_response):
    """Notes how many are in here at once."""
    with _lock:
        _inside[0] += 1
        _inside[1] = max(_inside)
    time.sleep(0.01)
    body = environ["wsgi.input"].read().decode()
    with _lock:
        _inside[0] -= 1
    return plain(start_response, f"{query(environ, 'n')} {body} {environ['REMOTE_PORT']}")


@application.page
def most(environ, start_response):
    return plain(start_response, str(_inside[1]))


@application.page
def waits(environ, start_response):
    note(environ, "begun")
    return plain(start_response, "waited" if wait_for(environ) else "not called")


class Noted:
    """Pieces that note when they are closed, and whether they came to their end."""

    def __init__(self, environ, count, waits=False):
        self.environ, self.count, self.waits = environ, count, waits

    def __iter__(self):
        for at in range(self.count):
            if self.waits and at == 1:
                note(self.environ, "begun")
                wait_for(self.environ)
            yield PIECE
        note(self.environ, "exhausted")

    def close(self):
        note(self.environ, "closed")


@application.page
def pieces(environ, start_response):
    start_response("200 OK", PLAIN)
    return Noted(environ, int(query(environ, "count")), bool(query(environ, "waits")))


@application.page
def writes(environ, start_response):
    write = start_response("200 OK", PLAIN)
    try:
        for _ in range(int(query(environ, "count"))):
            write(PIECE)
    except OSError as error:
        note(environ, "no reader")
        raise error
    note(environ, "all written")
    return [b"end"]


@application.page
def file(environ, start_response):
    """A file of its own, sent by the wrapper."""
    body = tempfile.TemporaryFile()
    body.write(query(environ, "n").encode() * 100_000)
    body.seek(0)
    start_response("200 OK", PLAIN)
    return environ["wsgi.file_wrapper"](body)


@application.page
def fails(environ, start_response):
    if query(environ, "after"):
        start_response("200 OK", PLAIN)
        return (b"piece" * (6 // (3 - at)) for at in range(5))
    raise ValueError(f"failed in a thread {query(environ, 'n')}")


@application.page
def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    return plain(start_response, "hinted")


def at_once(count, act):
    """Runs `act` with each number in a thread of its own; what failed."""
    failures = []

    def one(number):
        try:
            act(number)
        except Exception as error:
            failures.append(f"{number}: {error!r}")

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        true(not thread.is_alive(), "a client is not through after 20 s")
    return failures


def digest(count):
    return hashlib.sha256(PIECE * count).hexdigest()


@check(GUNICORN)
def requests_run_on_real_threads(client):
    """Threads that Python knows, none of them the main one; what is kept per thread stays."""
    seen = {}
    for _ in range(20):
        kind, ident, count, multi = client.get("/thread").body.decode().split()
        equal((kind, multi), ("Thread", "True"), "kind of thread and wsgi.multithread")
        equal(int(count), seen.get(ident, 0) + 1, "requests on this thread, kept in a thread-local")
        seen[ident] = int(count)
    true(len(seen) <= THREADS, f"{len(seen)} threads")


@check(GUNICORN)
def hundred_requests_at_once_are_answered_right(client):
    def ask(number):
        with client.connect(wait=15) as connection:
            for turn in range(2):
                body = f"{number}-{turn}-" * number
                connection.send(request("POST", f"/number?n={number}", body=body.encode()))
                reply = connection.reply()
                equal(reply.body.decode(), f"{number} {body} {connection.port}", "answer")
                if not reply.keeps_alive():
                    return

    equal(at_once(100, ask), [], "failures among 100 clients")
    most = int(client.get("/most").body)
    true(1 < most <= THREADS, f"{most} requests were in the application at once, with {THREADS} threads")


@check(GUNICORN)
def streams_of_several_threads_do_not_mix(client):
    def ask(number):
        reply = client.get(f"/pieces?count={number % 7 + 1}&token={client.token()}", wait=15)
        equal(hashlib.sha256(reply.body).hexdigest(), digest(number % 7 + 1), "digest of the body")

    equal(at_once(24, ask), [], "failures among 24 streams")


@check(GUNICORN)
def pipelined_requests_are_answered_in_their_order(client):
    with client.connect() as connection:
        connection.send(b"".join(request("POST", f"/number?n={number}", body=b"x") for number in range(8)))
        for number in range(8):
            reply = connection.reply()
            equal(reply.body.split()[0], str(number).encode(), "answer")
            client.kept_alive(connection, reply)


@check(GUNICORN)
def files_and_hints_come_from_threads(client):
    def ask(number):
        equal(client.get(f"/file?n={number % 10}").body, str(number % 10).encode() * 100_000, "file")

    equal(at_once(12, ask), [], "failures among 12 files")
    reply = client.get("/hints")
    equal([interim.status for interim in reply.interim], [103], "interim responses")


@check(GUNICORN)
def error_in_a_thread_is_500_and_logged(client):
    for number in range(2 * THREADS):
        equal(client.get(f"/fails?n={number}").status, 500, "status")
        true(client.server.log_has(f"failed in a thread {number}"), "the error is not in the log")
    equal(client.get("/quick").body, b"quick", "answer afterwards")


@check(PEP)
def error_in_the_middle_cuts_the_connection(client):
    for _ in range(2 * THREADS):
        try:
            reply = client.get("/fails?after=1")
        except WireError:
            continue
        true(False, f"a whole response came of it: {reply!r}")
    equal(client.get("/quick").body, b"quick", "answer afterwards")


@check(GUNICORN)
def clients_that_do_not_read_hold_one_thread_each(client):
    """Responses longer than what may wait for their client: others are served, and the rest is there when it is read."""
    count, held = THREADS - 1, []
    for _ in range(count):
        token = client.token()
        connection = client.connect(wait=15, receive_buffer=4096)
        connection.send(request("GET", f"/pieces?count={PIECES_MANY}&token={token}"))
        held.append((connection, token))
    began = time.monotonic()
    for _ in range(20):
        equal(client.get("/quick", wait=3).body, b"quick", "answer beside clients that do not read")
    true(time.monotonic() - began < 5, "the others were slow")
    for connection, token in held:
        equal(client.notes(token), [], "notes of a response that nobody reads")
        equal(hashlib.sha256(connection.reply().body).hexdigest(), digest(PIECES_MANY), "digest of the body")
        connection.close()
        equal(client.notes(token, 2), ["exhausted", "closed"], "notes")


@check(GOAL)
def clients_that_read_slowly_hold_no_thread(client):
    """Responses of half a mebibyte leave their thread at once."""
    held = []
    for _ in range(3 * THREADS):
        token = client.token()
        connection = client.connect(receive_buffer=4096)
        connection.send(request("GET", f"/pieces?count=8&token={token}"))
        equal(client.notes(token, 2), ["exhausted", "closed"], "notes")
        held.append(connection)
    equal(client.get("/quick", wait=3).body, b"quick", "answer beside them")
    for connection in held:
        equal(hashlib.sha256(connection.reply().body).hexdigest(), digest(8), "digest of the body")
        connection.close()


@rows(PEP, [("while_it_waits_for_room", f"/pieces?count={PIECES_MANY}"), ("while_it_works", "/pieces?count=200&waits=1")])
def close_is_called_when_the_client_is_gone(client, target):
    for _ in range(THREADS + 1):
        token = client.token()
        connection = client.connect(receive_buffer=4096)
        connection.send(request("GET", f"{target}&token={token}"))
        connection.head()
        if "waits" in target:
            equal(client.notes(token, 1), ["begun"], "notes")
        connection.reset()
        client.say(token)
        true(until(lambda: client.notes(token)[-1:] == ["closed"], 8), f"close() was not called: {client.notes(token)}")
        true("exhausted" not in client.notes(token), "it was iterated to its end for nobody")
    equal(client.get("/quick").body, b"quick", "answer afterwards")


@check(PEP)
def write_waits_for_its_client_and_fails_without(client):
    for _ in range(THREADS + 1):
        token = client.token()
        with client.connect(wait=15, receive_buffer=4096) as connection:
            connection.send(request("GET", f"/writes?count=100&token={token}"))
            equal(hashlib.sha256(connection.reply().body[:-3]).hexdigest(), digest(100), "digest of the body")
        token = client.token()
        connection = client.connect(receive_buffer=4096)
        connection.send(request("GET", f"/writes?count={PIECES_MANY}&token={token}"))
        connection.head()
        connection.reset()
        equal(client.notes(token, 1, within=8), ["no reader"], "notes")


@check(GUNICORN)
def those_who_wait_for_a_thread_get_one(client):
    """More kept connections than threads, all threads busy: nobody is forgotten."""
    kept = []
    for _ in range(THREADS + 2):
        connection = client.connect(wait=15)
        connection.send(request("GET", "/quick"))
        client.kept_alive(connection, connection.reply())
        kept.append(connection)
    tokens = [client.token() for _ in range(THREADS)]
    for connection, token in zip(kept, tokens):
        connection.send(request("GET", f"/waits?token={token}"))
    for token in tokens:
        equal(client.notes(token, 1), ["begun"], "notes")
    for connection in kept[THREADS:]:
        connection.send(request("GET", "/quick"))
    time.sleep(0.3)  # They must have arrived, and found no thread.
    for token in tokens:
        client.say(token)
    for connection, want in zip(kept, [b"waited"] * THREADS + [b"quick"] * 2):
        equal(connection.reply().body, want, "answer")
        connection.close()


CLOSES_LATE = LIVING + """
class Late:
    def __init__(self, environ):
        self.environ = environ

    def __iter__(self):
        return iter([b"late"])

    def close(self):
        note(self.environ, "closing")
        wait_for(self.environ)
        note(self.environ, "closed")

@application.page
def late(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return Late(environ)
"""


def threaded(client, folder, *options, **how):
    return living(client, folder, options=["--threads", str(THREADS), *options], workers=1, is_settled=False, **how)


@check(GUNICORN)
def term_lets_requests_in_all_threads_end(client):
    with project(living_project=CLOSES_LATE) as folder, threaded(client, folder) as server:
        at = client.at(server)
        tokens = [client.token() for _ in range(THREADS)]
        calls = [Calls(at, f"/{page}?token={token}") for page, token in zip(["waits", "waits", "stream", "late"], tokens)]
        for token in tokens:
            equal(len(at.notes(token, 1)), 1, "number of notes")
        server.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # The stop must have begun, and must not have cut the requests.
        equal(server.process.poll(), None, "exit code while requests are in progress")
        for token in tokens:
            at.say(token)
        equal([call.answer() for call in calls], [b"waited", b"waited", b"begun,ended", b"late"], "answers")
        equal(server.wait(), 0, "exit code")
        equal(at.notes(tokens[3]), ["closing", "closed"], "notes of a close() that takes its time")
        true("Traceback" not in server.log(), f"a traceback in the log:\n{server.log_tail()}")


@rows(
    GUNICORN,
    [
        ("TERM_sleeping", signal.SIGTERM, "stand_still"),
        ("TERM_computing", signal.SIGTERM, "burn"),
        ("INT_sleeping", signal.SIGINT, "stand_still"),
        ("INT_computing", signal.SIGINT, "burn"),
    ],
)
def stuck_thread_does_not_hold_up_the_stop(client, number, page):
    with project(living_project=LIVING) as folder, threaded(client, folder, "--graceful-timeout", "1") as server:
        at, token = client.at(server), client.token()
        Calls(at, f"/{page}?token={token}")
        worker = int(at.notes(token, 1)[0])
        began = time.monotonic()
        equal(server.stop(number), 0, "exit code")
        true(time.monotonic() - began < 6, f"the stop took {time.monotonic() - began:.1f} s")
        true(until(lambda: not is_alive(worker), 2), "the worker outlives its master")
        for word in ("Fatal Python error", "panicked", "rethrown", "core dumped"):
            true(word not in server.log(), f"{word!r} in the log:\n{server.log_tail()}")


@check(GUNICORN, seconds=40)
def long_stream_of_a_thread_is_not_ended(client):
    """It lasts longer than the time limit, and moves all the time."""
    slow = LIVING + """
@application.page
def slow(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    for at in range(12):
        yield str(at).encode()
        time.sleep(0.5)
"""
    with project(living_project=slow) as folder, threaded(client, folder, "--timeout", "2") as server:
        at = client.at(server)
        before = at.get("/pid").body
        equal(at.get("/slow", wait=15).body, "".join(map(str, range(12))).encode(), "body")
        equal(at.get("/pid").body, before, "process afterwards")


@check(GOAL, seconds=40)
def request_beyond_its_time_leaves_its_thread(client):
    """Code that computes for ever is ended by an exception: its client has an answer, and nobody else is disturbed."""
    with project(living_project=LIVING) as folder, threaded(client, folder, "--timeout", "2") as server:
        at = client.at(server)
        before = at.get("/pid").body
        for _ in range(2):
            tokens = [client.token() for _ in range(THREADS)]
            calls = [Calls(at, f"/burn?token={token}") for token in tokens]
            for call in calls:
                call.join(12)
                equal(getattr(call.reply, "status", call.reply), 504, "answer to what takes too long")
            for token in tokens:
                equal(at.notes(token), [before.decode()], "process of the request")
            at.get("/pid", wait=3)
        equal(at.get("/pid", wait=3).body, before, "process afterwards")
        true(server.log_has("in burn"), f"the log does not show where it was:\n{server.log_tail()}")
        true("WORKER TIMEOUT" not in server.log(), "the worker was ended")


@check(GOAL, seconds=40)
def thread_that_hangs_costs_the_worker_in_time(client):
    """The log names the request, and shows the line at which it stands; a new worker answers."""
    with project(living_project=LIVING) as folder, threaded(client, folder, "--timeout", "2") as server:
        at, token, is_over = client.at(server), client.token(), threading.Event()
        call = Calls(at, f"/stand_still?token={token}")
        stuck, began = int(at.notes(token, 1)[0]), time.monotonic()

        def others():
            """Those beside it are answered, and do not hide it."""
            while not is_over.wait(0.02):
                try:
                    at.get("/version")
                except (OSError, WireError):
                    pass

        threading.Thread(target=others, daemon=True).start()
        true(until(lambda: not is_alive(stuck), 10), "the stuck worker still lives after 10 s, with a timeout of 2 s")
        took = time.monotonic() - began
        is_over.set()
        true(took < 2 + 2.5, f"it took {took:.1f} s, with a timeout of 2 s")
        call.join(5)
        equal(getattr(call.reply, "status", call.reply), 504, "answer of the stuck request")
        critical = [line for line in server.log().splitlines() if "WORKER TIMEOUT" in line]
        true(critical and "path=/stand_still" in critical[0], f"the request is not named:\n{server.log_tail()}")
        true(server.log_has("in stand_still"), f"the stuck function is not in the log:\n{server.log_tail()}")
        true(until(lambda: at.get("/version").body == b"first", 5), "nobody answers afterwards")


@check(GOAL)
def busy_worker_leaves_new_connections_to_others(client):
    """Two workers of two threads each: with two requests at work in one, whoever comes is answered by the other."""
    with project(living_project=LIVING) as folder, living(client, folder, options=["--threads", "2"]) as server:
        at, tokens = client.at(server), []
        for _ in range(3):
            tokens.append(client.token())
            Calls(at, f"/waits?token={tokens[-1]}")
            equal(at.notes(tokens[-1], 1), ["begun"], "notes")
        began = time.monotonic()
        for _ in range(20):
            equal(at.get("/version", [("Connection", "close")], wait=3).body, b"first", "answer")
        true(time.monotonic() - began < 3, f"20 requests took {time.monotonic() - began:.1f} s")
        for token in tokens:
            at.say(token)
