"""What applications do besides answering: threads, processes, event loops, objects with a life of their own."""

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

from harness.app import Applications, note, plain, query
from harness.registry import GOAL, GUNICORN, PEP, check, equal, rows, true
from harness.server import is_alive, until
from harness.wire import Connection, request

application = Applications()


class Mortal:
    """Says when it is freed."""

    def __init__(self, environ):
        self.environ = {"QUERY_STRING": environ["QUERY_STRING"]}

    def __del__(self):
        note(self.environ, "freed")


def product(a, b):
    return a * b


@application.page
def quick(environ, start_response):
    return plain(start_response, "quick")


@application.page
def thread(environ, start_response):
    """Leaves a thread that goes on while the worker is idle."""

    def beat():
        for number in range(20):
            time.sleep(0.02)
            note(environ, str(number))

    environ = dict(environ)
    threading.Thread(target=beat, daemon=True).start()
    return plain(start_response, "begun")


@application.page
def child(environ, start_response):
    done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, timeout=10)
    return plain(start_response, done.stdout.strip())


@application.page
def lasting_child(environ, start_response):
    """A program that outlives the worker: it must not hold the listener."""
    subprocess.Popen(["sleep", "20"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return plain(start_response, "begun")


@application.page
def child_connection(environ, start_response):
    """A program begun within a request does not keep the client waiting for the end of the connection."""
    subprocess.Popen(["sleep", "6"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start_response("200 OK", [])
    return iter([b"unsized"])


@application.page
def spawned(environ, start_response):
    with multiprocessing.get_context(query(environ, "how")).Pool(1) as pool:
        return plain(start_response, str(pool.apply_async(product, (6, 7)).get(15)))


def stay(begun):
    begun.set()
    time.sleep(30)


@application.page
def ended(environ, start_response):
    """A forked process that is asked to end: its exit code, or None if it stays."""
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=stay, args=(begun,))
    process.start()
    begun.wait(5)
    process.terminate()
    process.join(3)
    code = process.exitcode
    process.kill()
    return plain(start_response, str(code))


@application.page
def forks(environ, start_response):
    """Forks a process that comes back from the call, or from its response, in one of several ways."""
    how = query(environ, "how")
    child = os.fork() if how != "later" else None
    if child == 0:
        note(environ, f"child {os.getpid()}")
        if how == "exits":
            sys.exit(7)
        if how == "raises":
            raise ValueError("raised by the child")
        return plain(start_response, "of the child")
    if how == "later":
        return forks_later(environ, start_response)
    return plain(start_response, f"of the parent, child's code {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")


def forks_later(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    child = os.fork()
    if child == 0:
        note(environ, f"child {os.getpid()}")
        yield b"of the child"
        return
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    yield f"of the parent, child's code {code}".encode()


@application.page
def loop(environ, start_response):
    async def answer():
        await asyncio.sleep(0.01)
        return "awaited"

    return plain(start_response, asyncio.run(answer()))


@application.page
def mortal(environ, start_response):
    environ["suite.mortal"] = Mortal(environ)
    return plain(start_response, "held")


@application.page
def interpreter(environ, start_response):
    said = {"stdin": sys.stdin is None or sys.stdin.isatty(), "excepthook": sys.excepthook is sys.__excepthook__,
            "executable": subprocess.run([sys.executable, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True).stdout.strip() == sys.prefix}
    return plain(start_response, json.dumps(said))


@check(PEP)
def thread_of_the_application_goes_on_while_nobody_asks(client):
    token = client.token()
    equal(client.get(f"/thread?token={token}").body, b"begun", "answer")
    equal(len(client.notes(token, 20, within=6)), 20, "beats of the thread")


@check(PEP)
def program_can_be_run(client):
    equal(client.get("/child").body, b"42", "output of the program")


@check(PEP, seconds=40)
def process_can_be_spawned(client):
    equal(client.get("/spawned?how=spawn", wait=20).body, b"42", "result of the process")


@check(GOAL)
def forked_process_ends_at_term(client):
    """It must not inherit the worker's answer to TERM: a multiprocessing.Pool that is closed would never end."""
    equal(client.get("/ended", wait=12).body, b"-15", "exit code of the process")
    equal(client.get("/quick").body, b"quick", "answer afterwards")


@rows(GOAL, [("returns", "returns", 0), ("exits", "exits", 7), ("raises", "raises", 1), ("in_its_response", "later", 0)])
def forked_process_never_serves(client, how, code):
    """One that comes back from the application ends there: it is no second worker, and says nothing to the client."""
    token = client.token()
    reply = client.get(f"/forks?how={how}&token={token}", wait=12)
    equal(reply.body, f"of the parent, child's code {code}".encode(), "answer")
    child = int(client.notes(token, 1)[0].split()[1])
    true(until(lambda: not is_alive(child), 3), "the forked process lives on")
    for _ in range(6):
        equal(client.get("/quick").body, b"quick", "answer afterwards")
    if how == "raises":
        true(client.server.log_has("raised by the child"), "the error of the forked process is not in the log")


@check(PEP)
def event_loop_can_be_run(client):
    equal(client.get("/loop").body, b"awaited", "answer")


@check(PEP)
def what_a_request_held_is_freed_after_it(client):
    token = client.token()
    client.get(f"/mortal?token={token}")
    true(until(lambda: client.notes(token) == ["freed"], 3), "the environ lives on")


@check(PEP)
def response_ends_although_a_child_lives(client):
    with client.connect() as connection:
        connection.send(request("GET", "/child_connection", version="1.0"))
        began = time.monotonic()
        equal(connection.reply().body, b"unsized", "body")
        true(time.monotonic() - began < 4, "the connection ended only with the child")


@check(GUNICORN)
def child_does_not_hold_the_port(client):
    with client.start("checks.surroundings:application") as server:
        equal(client.at(server).get("/lasting_child").body, b"begun", "answer")
        server.stop()

        def is_free():
            try:
                Connection(server.address, wait=1).close()
            except ConnectionRefusedError:
                return True
            return False

        true(until(is_free, 3), "somebody still listens after the stop")


@check(GUNICORN)
def executable_is_the_interpreter(client):
    true(client.json("/interpreter")["executable"], "sys.executable is another interpreter than the application's")
