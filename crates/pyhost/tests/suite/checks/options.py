"""gunicorn's options that change how an application is served: threads, preload, reload, its files and variables, its logs."""

import os
import re
import signal
import threading

from checks.loading import HELLO, project
from checks.process import LIVING, living, path
from harness.app import plain
from harness.registry import GOAL, GUNICORN, check, equal, rows, true
from harness.server import free_port, until
from harness.wire import Connection, WireError, request

MEETING = """
import threading
from harness.app import plain

barrier = threading.Barrier(4)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/meet":
        try:
            barrier.wait(5)
        except threading.BrokenBarrierError:
            return plain(start_response, "alone")
        return plain(start_response, "met")
    return plain(start_response, str(environ["wsgi.multithread"]))
"""
IMPORTED = """
import os
from harness.app import plain

with open(os.path.join(os.environ["SUITE_NOTES"], "imports"), "a") as notes:
    notes.write(str(os.getpid()) + "\\n")

def application(environ, start_response):
    return plain(start_response, str(os.getpid()))
"""
CONFIGURED = """
import os

workers = 1
raw_env = ["SUITE_SAYS=by the file"]
limit_request_fields = 4

def note(text):
    with open(os.path.join(os.environ["SUITE_NOTES"], "hooks"), "a") as notes:
        notes.write(text + "\\n")

def post_worker_init(worker):
    note(f"post_worker_init {worker.pid == os.getpid()}")

def pre_request(worker, req):
    note(f"pre_request {req.method} {req.path}")

def post_request(worker, req, environ, resp):
    note(f"post_request {resp.status_code if hasattr(resp, 'status_code') else resp.status}")

def worker_exit(server, worker):
    note("worker_exit")

def on_exit(server):
    note("on_exit")
"""


def shown(environ, start_response):
    start_response("200 OK", [("X-Shown", "first"), ("X-Shown", "second"), ("Content-Length", "5")])
    return [b"shown"]


def identified(environ, start_response):
    own = [("x-request-id", "the-application-s")] if environ["PATH_INFO"] == "/own" else []
    return plain(start_response, environ.get("HTTP_X_REQUEST_ID", "none"), fields=own)


def asked(at, targets):
    """Answers to requests made at once."""
    answers = [None] * len(targets)

    def one(number):
        try:
            answers[number] = at.get(targets[number]).body
        except Exception as error:
            answers[number] = repr(error)

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(len(targets))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    return answers


@check(GUNICORN)
def threads_of_one_worker_serve_at_once(client):
    with project(meeting_project=MEETING) as folder:
        with client.start("meeting_project", directory=folder, env=path(), workers=1, options=["--threads", "4"]) as server:
            at = client.at(server)
            equal(at.get("/").body, b"True", "wsgi.multithread")
            equal(asked(at, ["/meet"] * 4), [b"met"] * 4, "answers of four requests that wait for each other")


@check(GUNICORN)
def preload_imports_once(client):
    with project(imported_project=IMPORTED) as folder:
        with client.start("imported_project", directory=folder, env=path(), options=["--preload"]) as server:
            at = client.at(server)
            seen = {at.get("/").body for _ in range(60)}
            equal(len(at.notes("imports", 1)), 1, "number of imports")
            true(len(seen) == 2, f"{len(seen)} processes answered")


@check(GUNICORN)
def reload_option_watches_the_code(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=["--reload"]) as server:
        at = client.at(server)
        equal(at.get("/version").body, b"first", "version")
        name = os.path.join(folder, "living_project.py")
        with open(name, "w", encoding="utf-8") as file:
            file.write(LIVING.replace('"first"', '"second"'))
        os.utime(name, (2_000_000_000, 2_000_000_000))

        def is_new():
            try:
                return [at.get("/version").body for _ in range(6)] == [b"second"] * 6
            except (OSError, WireError):
                return False

        true(until(is_new, 12), "the old code still answers 12 s after the change")


@rows(GUNICORN, [("named", ["-c", "suite_conf.py"], "suite_conf"), ("found_in_its_folder", [], "gunicorn.conf")])
def configuration_file_is_read(client, options, name):
    with project(hello_project=HELLO, **{name: CONFIGURED}) as folder:
        with client.start("hello_project:named", directory=folder, options=options) as server:
            at = client.at(server)
            equal(at.get("/").body, b"by the file", "body")
            equal(at.get("/", [(f"X-{number}", "1") for number in range(6)]).status, 431, "status of seven fields")


@check(GUNICORN)
def hooks_are_called(client):
    with project(hello_project=HELLO, suite_conf=CONFIGURED) as folder:
        with client.start("hello_project", directory=folder, options=["-c", "suite_conf.py"]) as server:
            at = client.at(server)
            at.get("/hooked")
            true(until(lambda: "pre_request GET /hooked" in at.notes("hooks"), 5), f"hooks called: {at.notes('hooks')}")
            equal(server.stop(), 0, "exit code")
            said = at.notes("hooks")
            for word in ("post_worker_init True", "pre_request GET /hooked", "worker_exit", "on_exit"):
                true(word in said, f"{word!r} was not called: {said}")
            true(any(word.startswith("post_request 200") for word in said), f"post_request was not called: {said}")


@check(GUNICORN)
def broken_configuration_file_ends_the_start(client):
    with project(hello_project=HELLO, suite_conf="workers = 1 / 0\n") as folder:
        with client.start("hello_project", directory=folder, options=["-c", "suite_conf.py"], waits=False) as server:
            true(server.wait(10) != 0, "the exit code is 0")
            true("ZeroDivisionError" in server.log(), f"the error is not in the log:\n{server.log_tail()}")


@check(GUNICORN)
def gunicorn_cmd_args_are_honoured(client):
    with project(hello_project=HELLO) as folder:
        env = {"GUNICORN_CMD_ARGS": "--env 'SUITE_SAYS=by the arguments'"}
        with client.start("hello_project:named", directory=folder, env=env) as server:
            equal(client.at(server).get("/").body, b"by the arguments", "body")


@rows(GUNICORN, [("good", HELLO, True), ("broken", "import absent_dependency\n", False)])
def check_config_loads_the_application(client, text, is_good):
    with project(hello_project=text) as folder:
        with client.start("hello_project", directory=folder, options=["--check-config"], waits=False) as server:
            equal(server.wait(15) == 0, is_good, f"whether the exit code is 0, with this log:\n{server.log_tail()}\n   ")


@check(GUNICORN)
def access_log_has_a_line_for_each_request(client):
    with project(hello_project=HELLO) as folder:
        with client.start("hello_project", directory=folder, options=["--access-logfile", "-"]) as server:
            client.at(server).get("/logged?a=1", [("User-Agent", "suite/1"), ("Referer", "http://r/")])
            wanted = '"GET /logged?a=1 HTTP/1.1" 200 7 "http://r/" "suite/1"'
            true(server.log_has(wanted), f"no line with {wanted}:\n{server.log_tail()}")
            true(server.log_has("127.0.0.1 - - ["), "the line does not begin as a common log line")


@check(GOAL)
def admin_listener_comes_with_the_package(client):
    port = free_port()
    with client.start("checks.options:shown", options=["--admin-bind", f"127.0.0.1:{port}"]) as server:
        client.at(server).get("/")

        def is_alive():
            try:
                with Connection(("127.0.0.1", port), wait=2) as connection:
                    connection.send(request("GET", "/livez"))
                    return connection.reply().status == 200
            except OSError:
                return False

        true(until(is_alive, 5), f"no admin listener:\n{server.log_tail()}")


@check(GUNICORN)
def access_log_shows_fields_of_the_response(client):
    options = ["--access-logfile", "-", "--access-logformat", "shown %(r)s %({x-shown}o)s %({content-length}o)s"]
    with client.start("checks.options:shown", options=options) as server:
        client.at(server).get("/fields")
        true(server.log_has("shown GET /fields HTTP/1.1 second 5"), f"not in the log:\n{server.log_tail()}")


@rows(GOAL, [
    ("made_here", "/", [], None),
    ("of_the_client", "/", [("X-Request-ID", "mine-1")], "mine-1"),
    ("of_the_application", "/own", [], "the-application-s"),
])
def request_has_one_id(client, target, fields, want):
    with client.start("checks.options:identified", options=["--request-id"]) as server:
        reply = client.at(server).get(target, fields)
        said = reply.all("X-Request-ID")
        equal(len(said), 1, "number of X-Request-ID in the response")
        if want:
            equal(said[0], want, "X-Request-ID")
        if target == "/":
            equal(reply.body.decode(), said[0], "HTTP_X_REQUEST_ID in the environ")
            true(len(said[0]) > 4, f"the id is {said[0]!r}")


BIG = """
from harness.app import plain

PIECE = b"x" * 100_000

def application(environ, start_response):
    if environ["PATH_INFO"] != "/big":
        return plain(start_response, "small")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (PIECE for _ in range(1000))
"""


@check(GOAL)
def access_log_knows_what_of_a_lost_response_was_sent(client):
    with project(big_project=BIG) as folder:
        options = ["--access-logfile", "-", "--access-logformat", "%(U)s %(s)s %(b)s."]
        with client.start("big_project", directory=folder, env=path(), options=options, workers=1) as server:
            with client.at(server).connect() as connection:
                connection.send(request("GET", "/big"))
                connection.exactly(200_000)
                connection.reset()
            true(until(lambda: "/big 200 " in server.log(), 5), f"no line with the status that was sent:\n{server.log_tail()}")
            sent = int(re.search(r"/big 200 ([0-9]+)\.", server.log())[1])
            true(100_000 <= sent < 100_000_000, f"{sent} bytes of the body are said to be sent")


@check(GOAL, seconds=40)
def waiting_for_a_busy_worker_has_an_end(client):
    """A client that does not take its answer keeps a worker's application busy: who waits behind it is told."""
    with project(big_project=BIG) as folder:
        options = ["--request-timeout", "1", "--write-timeout", "20"]
        with client.start("big_project", directory=folder, env=path(), options=options, workers=1) as server:
            at = client.at(server)
            with at.connect(receive_buffer=4096) as waiting, at.connect(receive_buffer=4096) as greedy:
                # Both are accepted while the application is free.
                waiting.send(request("GET", "/"))
                equal(waiting.reply().body, b"small", "body")
                greedy.send(request("GET", "/big"))
                greedy.exactly(1000)
                waiting.send(request("GET", "/"))
                reply = waiting.reply()
                equal(reply.status, 503, "status")
                equal(reply.field("Retry-After"), "1", "Retry-After")
                true(server.log_has("[WARNING] Request timed out: GET /"), f"the log does not say so:\n{server.log_tail()}")
            equal(at.get("/").body, b"small", "body once the other is gone")


@check(GUNICORN)
def error_log_is_opened_anew_on_usr1(client):
    with project() as folder:
        log = os.path.join(folder, "error.log")
        with client.start("checks.errors:application", options=["--error-logfile", log]) as server:
            at = client.at(server)
            os.rename(log, log + ".1")
            server.send_signal(signal.SIGUSR1)
            true(until(lambda: os.path.exists(log), 5), "the log was not opened anew")

            def arrives():
                word = client.token()
                at.get(f"/log?word={word}-anew")
                with open(log, encoding="utf-8") as file:
                    return f"write {word}-anew" in file.read()

            true(until(arrives, 5), "wsgi.errors does not write to the new file")


@check(GOAL)
def recycling_loses_no_request(client):
    with project(living_project=LIVING) as folder, living(client, folder, options=["--max-requests", "10"]) as server:
        at, failures = client.at(server), []
        for _ in range(200):
            try:
                equal(at.get("/version", [("Connection", "close")]).body, b"first", "version")
            except Exception as error:
                failures.append(repr(error))
        equal(failures[:3], [], f"failures among 200 requests ({len(failures)} in all)")


@check(GOAL, seconds=40)
def stuck_thread_is_replaced(client):
    """A worker with threads of which one hangs: nobody waits for ever, and the log shows where it hung."""
    with project(living_project=LIVING) as folder:
        with living(client, folder, options=["--threads", "2", "--timeout", "2"]) as server:
            at, token = client.at(server), client.token()
            with at.connect() as connection:
                connection.send(request("GET", f"/stand_still?token={token}"))
                at.notes(token, 1)
                true(server.log_has("stand_still", 15), "the hung function is not in the log after 15 s, with a timeout of 2 s")
                equal(at.get("/version").body, b"first", "answer of others")
