"""Processes: reload, drain, stop, replacement of stuck and killed workers, recycling, clean ends."""

import contextlib
import os
import signal
import threading
import time

from checks.loading import project
from harness.registry import GOAL, GUNICORN, check, equal, folder as suite_folder, rows, true
from harness.server import is_alive, until
from harness.wire import WireError, request

LIVING = """
import atexit, os, time
from harness.app import Applications, note, plain, query, wait_for

VERSION = "first"
application = Applications()

@application.page
def version(environ, start_response):
    return plain(start_response, VERSION)

@application.page
def pid(environ, start_response):
    return plain(start_response, str(os.getpid()))

@application.page
def waits(environ, start_response):
    note(environ, "begun")
    return plain(start_response, "waited" if wait_for(environ) else "not called")

@application.page
def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun,"
    note(environ, "begun")
    wait_for(environ)
    yield b"ended"

@application.page
def stand_still(environ, start_response):
    note(environ, str(os.getpid()))
    time.sleep(60)
    return plain(start_response, "moved")

@application.page
def burn(environ, start_response):
    note(environ, str(os.getpid()))
    end = time.monotonic() + 60
    while time.monotonic() < end:
        pass
    return plain(start_response, "moved")

@atexit.register
def leaving():
    with open(os.path.join(os.environ["SUITE_NOTES"], "atexit"), "a") as notes:
        notes.write(str(os.getpid()) + "\\n")
"""


def path():
    """For projects outside of the suite's folder."""
    return {"PYTHONPATH": suite_folder()}


@contextlib.contextmanager
def living(client, directory, is_settled=True, **how):
    """A server of the living project: both workers have answered, so none is still on its way up, unless asked otherwise."""
    with client.start("living_project:application", directory=directory, env=path(), **how) as server:
        if is_settled:
            true(len(pids(client.at(server), 2)) == 2, "the second worker does not answer")
        yield server


def pids(at, want, within=10):
    """The process ids that answer, once there are `want` of them, or time is up."""
    seen, end = set(), time.monotonic() + within
    while len(seen) < want and time.monotonic() < end:
        seen.add(int(at.get("/pid").body))
    return seen


class Calls(threading.Thread):
    """One request in a thread of its own; `reply` is what came, or the error."""

    def __init__(self, client, target):
        super().__init__(daemon=True)
        self.client, self.target, self.reply = client, target, None
        self.start()

    def run(self):
        try:
            with self.client.connect(wait=15) as connection:
                connection.send(request("GET", self.target))
                self.reply = connection.reply()
        except Exception as error:
            self.reply = error

    def answer(self, within=12):
        self.join(within)
        return getattr(self.reply, "body", self.reply)


@check(GUNICORN)
def hangup_brings_new_code(client):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        at = client.at(server)
        equal(at.get("/version").body, b"first", "version")
        with open(os.path.join(folder, "living_project.py"), "w", encoding="utf-8") as file:
            file.write(LIVING.replace('"first"', '"second"'))
        old = pids(at, 2)
        server.send_signal(signal.SIGHUP)
        true(until(lambda: not any(map(is_alive, old)), 10), "an old worker still lives 10 s after HUP")

        def is_new():
            try:
                return at.get("/version").body == b"second"
            except (OSError, WireError):
                return False  # How a reload looks from outside is another check's matter.

        true(until(is_new, 10), "the new code does not answer 10 s after HUP")
        equal([at.get("/version").body for _ in range(20)], [b"second"] * 20, "versions afterwards")
        equal(server.stop(), 0, "exit code")


@check(GUNICORN)
def hangup_lets_requests_in_progress_end(client):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        at = client.at(server)
        token = client.token()
        call = Calls(at, f"/waits?token={token}")
        equal(at.notes(token, 1), ["begun"], "notes")
        server.send_signal(signal.SIGHUP)
        true(until(lambda: "Hang" in server.log() or "HUP" in server.log().upper(), 5), "nothing in the log of the HUP")
        at.say(token)
        equal(call.answer(), b"waited", "answer of the request in progress")


class Load:
    """Four clients that ask all the time, on kept connections or new ones; `judge` says what came of it."""

    def __init__(self, client, target, keeps=False):
        self.client, self.target, self.keeps = client, target, keeps
        self.failures, self.bodies, self.count, self.is_over = [], set(), 0, threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(4)]

    def run(self):
        connection = None
        while not self.is_over.is_set():
            try:
                connection = connection or self.client.connect(wait=8)
                connection.send(request("GET", self.target, [] if self.keeps else [("Connection", "close")]))
                reply = connection.reply()
                self.bodies.add(reply.body)
                if not reply.keeps_alive():
                    connection.close()
                    connection = None
            except (OSError, WireError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection = None
            self.count += 1  # Nearly right is right enough.
            time.sleep(0.002)  # A steady load, not all that this machine can do.

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join(9)

    def judge(self, body, count):
        true(self.count > count, f"only {self.count} requests were made")
        equal(self.failures[:3], [], f"failures among {self.count} requests ({len(self.failures)} in all)")
        equal(self.bodies, {body}, "bodies")


@rows(GOAL, [("one_second", 1, 3.5), ("five_seconds", 5, 9)], seconds=90)
def reload_loses_no_request(client, import_seconds, wait):
    """A module that takes its time to import, new connections all the time, two reloads."""
    with project(living_project=LIVING + f"\ntime.sleep({import_seconds})\n") as folder, living(client, folder) as server:
        with Load(client.at(server), "/version") as load:
            for _ in range(2):
                server.send_signal(signal.SIGHUP)
                time.sleep(wait)  # Import and drain; the load goes on meanwhile.
        load.judge(b"first", 200)


@rows(GUNICORN, [("answer", "/waits", b"waited"), ("stream", "/stream", b"begun,ended")])
def term_lets_requests_in_progress_end(client, target, want):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        at, token = client.at(server), client.token()
        call = Calls(at, f"{target}?token={token}")
        equal(at.notes(token, 1), ["begun"], "notes")
        server.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # The stop must have begun, and must not have cut the request.
        equal(server.process.poll(), None, "exit code while a request is in progress")
        at.say(token)
        equal(call.answer(), want, "answer of the request in progress")
        equal(server.wait(), 0, "exit code")


@check(GUNICORN)
def term_refuses_new_connections(client):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        at, token = client.at(server), client.token()
        call = Calls(at, f"/waits?token={token}")
        at.notes(token, 1)
        server.send_signal(signal.SIGTERM)

        def is_refused():
            try:
                with at.connect(wait=0.3) as connection:
                    connection.send(request("GET", "/version"))
                    connection.reply()
                return False
            except (OSError, WireError):
                return True

        true(until(is_refused, 5), "new connections are still served 5 s after TERM")
        at.say(token)
        equal(call.answer(), b"waited", "answer of the request in progress")
        server.wait()


@rows(GUNICORN, [("TERM", signal.SIGTERM), ("INT", signal.SIGINT), ("QUIT", signal.SIGQUIT)])
def idle_server_ends_at_once(client, number):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        workers = server.descendants()
        client.at(server).get("/version")
        began = time.monotonic()
        equal(server.stop(number), 0, "exit code")
        true(time.monotonic() - began < 3, f"the stop took {time.monotonic() - began:.1f} s")
        true(until(lambda: not any(map(is_alive, workers)), 2), "a worker outlives its master")
        true("Traceback" not in server.log(), f"a traceback in the log:\n{server.log_tail()}")


@check(GUNICORN)
def idle_kept_connections_do_not_hold_up_the_stop(client):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        at = client.at(server)
        held = []
        for _ in range(6):
            connection = at.connect()
            connection.send(request("GET", "/version"))
            connection.reply()
            held.append(connection)
        began = time.monotonic()
        equal(server.stop(), 0, "exit code")
        true(time.monotonic() - began < 5, f"the stop took {time.monotonic() - began:.1f} s")
        for connection in held:
            connection.close()


@check(GUNICORN)
def interpreter_ends_properly(client):
    """What the application registered with atexit runs in every worker."""
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        at = client.at(server)
        workers = pids(at, 2)
        equal(server.stop(), 0, "exit code")
        left = {int(pid) for pid in at.notes("atexit", 1)}
        true(workers <= left, f"workers {workers}, atexit ran in {left}")


@rows(GUNICORN, [("sleeping", "stand_still"), ("computing", "burn")], seconds=40)
def stuck_worker_is_replaced_with_its_traceback(client, page):
    with project(living_project=LIVING) as folder, living(client, folder, options=["--timeout", "2"]) as server:
        at, token = client.at(server), client.token()
        call = Calls(at, f"/{page}?token={token}")
        stuck = int(at.notes(token, 1)[0])
        true(until(lambda: not is_alive(stuck), 10), "the stuck worker still lives after 10 s, with a timeout of 2 s")
        true(server.log_has(page), f"the stuck function is not in the log:\n{server.log_tail()}")
        true("living_project.py" in server.log(), "the log does not name the file")
        true(until(lambda: len(pids(at, 2, 1)) == 2, 8), "no second worker afterwards")
        true(not isinstance(call.answer(), bytes) or call.answer() != b"moved", "the stuck page was answered")


@check(GUNICORN, seconds=40)
def worker_stuck_in_its_first_request_is_replaced(client):
    """Asked while the other worker is still on its way up: whoever takes it, it is not left alone."""
    with project(living_project=LIVING) as folder:
        with living(client, folder, is_settled=False, options=["--timeout", "2"]) as server:
            at, calls, stuck = client.at(server), [], []
            for _ in range(2):
                token = client.token()
                calls.append(Calls(at, f"/stand_still?token={token}"))
                taken = at.notes(token, 1, within=10)
                true(taken, "nobody took the request within 10 s")
                stuck.append(int(taken[0]))
            true(until(lambda: not any(map(is_alive, stuck)), 10), "a stuck worker still lives after 10 s, with a timeout of 2 s")
            true(all(not isinstance(call.answer(), bytes) or call.answer() != b"moved" for call in calls), "the stuck page was answered")


@check(GUNICORN)
def others_serve_while_one_is_stuck(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=["--timeout", "3"]) as server:
        at, token = client.at(server), client.token()
        Calls(at, f"/stand_still?token={token}")
        at.notes(token, 1)
        for _ in range(30):
            equal(at.get("/version", wait=2).body, b"first", "answer beside the stuck worker")


@check(GUNICORN)
def killed_worker_is_replaced(client):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        at = client.at(server)
        before = pids(at, 2)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        true(until(lambda: len(pids(at, 3, 1) - {victim}) == 2, 10), "no replacement within 10 s")
        equal(server.stop(), 0, "exit code")


@check(GUNICORN)
def worker_is_recycled_after_max_requests(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=["--max-requests", "10"]) as server:
        at, seen = client.at(server), set()

        def ask():
            try:
                seen.add(int(at.get("/pid").body))
            except (OSError, WireError):
                pass  # gunicorn has nobody listening for moments.
            return len(seen) >= 4

        true(until(ask, 12), f"only {len(seen)} processes answered with max_requests 10")


@check(GUNICORN)
def ttin_adds_a_worker(client):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        before = len(server.descendants())
        server.send_signal(signal.SIGTTIN)
        true(until(lambda: len(server.descendants()) == before + 1, 5), "no third worker")
        server.send_signal(signal.SIGTTOU)
        true(until(lambda: len(server.descendants()) == before, 8), "the third worker stays")


@check(GUNICORN)
def workers_go_when_their_master_is_killed(client):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        true(until(lambda: len(server.descendants()) >= 2, 5), f"workers {server.descendants()}")
        workers = server.descendants()
        server.send_signal(signal.SIGKILL)
        server.wait()
        true(until(lambda: not any(map(is_alive, workers)), 25), "a worker outlives its killed master by 25 s")


@check(GOAL)
def broken_code_does_not_end_the_service(client):
    with project(living_project=LIVING) as folder, living(client, folder) as server:
        at = client.at(server)
        with open(os.path.join(folder, "living_project.py"), "w", encoding="utf-8") as file:
            file.write("import absent_dependency\n")
        server.send_signal(signal.SIGHUP)
        true(server.log_has("absent_dependency", 8), "the error of the new code is not in the log")
        end = time.monotonic() + 2
        while time.monotonic() < end:
            equal(at.get("/version").body, b"first", "answer of the old code")
        equal(server.process.poll(), None, "exit code")
