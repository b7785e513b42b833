"""Signals at a worker: handlers of the application's own, a quick stop while it is busy, reopened logs."""

import os
import signal
import time

from checks.loading import project
from checks.process import Calls, path, pids
from harness.registry import GOAL, GUNICORN, check, equal, rows, true
from harness.server import is_alive, until
from harness.wire import WireError, request

HANDLING = """
import os, signal, sys, time
from harness.app import Applications, note, plain, query

application = Applications()

def left(text):
    with open(os.path.join(os.environ["SUITE_NOTES"], "handlers"), "a") as notes:
        notes.write(f"{text} {os.getpid()}\\n")

def on_usr2(number, frame):
    left("usr2")

previous = signal.getsignal(signal.SIGTERM)

def on_term(number, frame):
    left("term")
    if callable(previous):
        previous(number, frame)

def leaves(number, frame):
    left("leaves")
    sys.exit(5)

signal.signal(signal.SIGUSR2, on_usr2)
if os.environ.get("SUITE_TERM") == "passes_on":
    signal.signal(signal.SIGTERM, on_term)
if os.environ.get("SUITE_TERM") == "exits":
    signal.signal(signal.SIGTERM, leaves)

@application.page
def pid(environ, start_response):
    return plain(start_response, str(os.getpid()))

@application.page
def sleeps(environ, start_response):
    note(environ, str(os.getpid()))
    time.sleep(15)
    return plain(start_response, "slept")

@application.page
def streams(environ, start_response):
    class Streamed:
        number = 0
        def __iter__(self):
            return self
        def __next__(self):
            self.number += 1
            if self.number == 2:
                note(environ, "begun")
            time.sleep(0.1)
            return b"piece"
        def close(self):
            note(environ, "closed")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Streamed()
"""


def handling(client, folder, **how):
    variables = {**path(), **how.pop("env", {})}
    return client.start("handling_project:application", directory=folder, env=variables, **how)


@check(GUNICORN)
def handler_of_the_application_runs_while_nobody_asks(client):
    with project(handling_project=HANDLING) as folder, handling(client, folder) as server:
        at = client.at(server)
        workers = pids(at, 2)
        for round in (1, 2):
            for worker in workers:
                os.kill(worker, signal.SIGUSR2)
            true(len(at.notes("handlers", 2 * round, within=2)) == 2 * round, f"handlers that ran: {at.notes('handlers')}")
        true(pids(at, 2) == workers, "the workers are not the same any more")


@rows(GUNICORN, [("that_passes_it_on", "passes_on", "term"), ("that_exits", "exits", "leaves")])
def handler_of_term(client, kind, word):
    with project(handling_project=HANDLING) as folder, handling(client, folder, env={"SUITE_TERM": kind}) as server:
        at = client.at(server)
        workers = pids(at, 2)
        began = time.monotonic()
        equal(server.stop(), 0, "exit code")
        true(time.monotonic() - began < 5, f"the stop took {time.monotonic() - began:.1f} s")
        equal(sorted(at.notes("handlers", 2)), sorted(f"{word} {pid}" for pid in workers), "handlers that ran")


@rows(GUNICORN, [("INT", signal.SIGINT), ("QUIT", signal.SIGQUIT)])
def busy_server_ends_at_once(client, number):
    with project(handling_project=HANDLING) as folder, handling(client, folder) as server:
        at, token = client.at(server), client.token()
        call = Calls(at, f"/sleeps?token={token}")
        busy = int(at.notes(token, 1)[0])
        began = time.monotonic()
        equal(server.stop(number), 0, "exit code")
        took = time.monotonic() - began
        true(took < 3, f"the stop took {took:.1f} s")
        true(until(lambda: not is_alive(busy), 1), "the busy worker lives on")
        true(call.answer() != b"slept", "the page was answered")


@rows(GUNICORN, [("INT", signal.SIGINT), ("QUIT", signal.SIGQUIT)])
def quick_stop_closes_the_response_in_hand(client, number):
    with project(handling_project=HANDLING) as folder, handling(client, folder) as server:
        at, token = client.at(server), client.token()
        with at.connect() as connection:
            connection.send(request("GET", f"/streams?token={token}"))
            equal(at.notes(token, 1), ["begun"], "notes")
            equal(server.stop(number), 0, "exit code")
        equal(at.notes(token, 2), ["begun", "closed"], "notes")


@check(GOAL, seconds=40)
def trace_of_a_stuck_worker_goes_to_the_reopened_log(client):
    with project(handling_project=HANDLING) as folder:
        log = os.path.join(folder, "error.log")
        with handling(client, folder, options=["--error-logfile", log, "--timeout", "2"]) as server:
            at, token = client.at(server), client.token()
            workers = pids(at, 2)
            os.rename(log, log + ".1")
            server.send_signal(signal.SIGUSR1)
            for worker in workers:
                true(until(lambda: has_open(worker, log), 5), "a worker did not open the log anew")
            Calls(at, f"/sleeps?token={token}")
            at.notes(token, 1)

            def is_told():
                try:
                    with open(log, encoding="utf-8") as file:
                        return "in sleeps" in file.read()
                except OSError:
                    return False

            true(until(is_told, 10), "the new file does not say where the worker stood")
            with open(log + ".1", encoding="utf-8") as file:
                true("in sleeps" not in file.read(), "the rotated file says it")


def has_open(pid, name):
    """Whether nothing of a process still leads to the file that was rotated away."""
    try:
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return name in targets and name + ".1" not in targets


@rows(GOAL, [("first", 0), ("second", 1)])
def import_error_of_a_later_worker_is_told_whole(client, which):
    """A worker that cannot be replaced, in a server that serves: its traceback is logged whichever it was."""
    with project(handling_project=HANDLING) as folder, handling(client, folder) as server:
        workers = sorted(pids(client.at(server), 2))
        with open(os.path.join(folder, "handling_project.py"), "w", encoding="utf-8") as file:
            file.write("def outer():\n    import absent_dependency\n\nouter()\n")
        os.kill(workers[which], signal.SIGKILL)
        true(server.log_has("in outer", 8), f"no traceback in the log:\n{server.log_tail()}")
