"""Errors of the application, before and after its response has begun, and wsgi.errors."""

import sys

from harness.app import Applications, note, plain, query
from harness.registry import GOAL, GUNICORN, PEP, check, equal, rows, true
from harness.server import until
from harness.wire import WireError, request

application = Applications()
PLAIN = ("Content-Type", "text/plain")


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("not even this")

    __repr__ = __str__


ERRORS = {
    "value": ValueError("a secret detail"),
    "stop_iteration": StopIteration(),
    "recursion": RecursionError(),
    "memory": MemoryError(),
    "unicode": ValueError("\u20ac and \ud800"),
    "os": ConnectionError("of its own"),
    "broken_pipe": BrokenPipeError(32, "of its own"),
    "unprintable": Unprintable(),
    "base": type("Own", (BaseException,), {})("of no Exception"),
    "assertion": AssertionError(),
}


@application.page
def at_once(environ, start_response):
    raise ERRORS[query(environ, "kind")]


@application.page
def after_start(environ, start_response):
    start_response("200 OK", [PLAIN, ("X-Secret", "1")])
    raise ERRORS["value"]


@application.page
def first_item(environ, start_response):
    start_response("200 OK", [PLAIN])
    raise ERRORS["value"]
    yield b"never"


@application.page
def later_item(environ, start_response):
    start_response("200 OK", [PLAIN] + ([("Content-Length", "30")] if query(environ, "length") else []))
    yield b"ten bytes."
    raise ERRORS["value"]


@application.page
def log(environ, start_response):
    errors = environ["wsgi.errors"]
    word = query(environ, "word")
    errors.write(f"write {word}\n")
    errors.writelines([f"writelines {word}", " joined\n"])
    errors.write(f"unicode {word} \u20ac\n")
    print(f"print {word}", file=errors)
    errors.flush()
    print(f"stderr {word}", file=sys.stderr, flush=True)
    return plain(start_response, "logged")


@application.page
def log_within(environ, start_response):
    """Lines that are made while they are written, by something that writes itself."""
    errors = environ["wsgi.errors"]

    def lines():
        errors.write(f"inner {query(environ, 'word')}\n")
        yield f"outer {query(environ, 'word')}\n"

    errors.writelines(lines())
    return plain(start_response, "logged")


@application.page
def swallow(environ, start_response):
    """Reads beyond its body and writes when nobody listens: nothing of it is an error."""
    environ["wsgi.input"].read()
    environ["wsgi.input"].read()
    return plain(start_response, "fine")


@application.page
def exit(environ, start_response):
    note(environ, "exits")
    sys.exit(7)


@rows(PEP, [(kind, kind) for kind in ("value", "recursion", "memory", "unicode", "assertion")])
def error_is_500(client, kind):
    reply = client.get(f"/at_once?kind={kind}")
    equal(reply.status, 500, "status")
    true(b"secret" not in reply.body and b"Traceback" not in reply.body, f"the error was shown to the client: {reply.body!r}")


@rows(GOAL, [(kind, kind) for kind in ("stop_iteration", "os", "broken_pipe", "unprintable", "base")])
def odd_error_is_500(client, kind):
    equal(client.get(f"/at_once?kind={kind}").status, 500, "status")
    equal(client.get("/swallow").body, b"fine", "answer afterwards")


@check(GOAL)
def broken_pipe_of_the_application_is_logged(client):
    """It means that a client is gone only where that client is the server's."""
    before = client.server.log().count("BrokenPipeError")
    client.get("/at_once?kind=broken_pipe")
    true(until(lambda: client.server.log().count("BrokenPipeError") > before, 5), "the error is not in the log")


@check(PEP)
def error_stream_takes_lines_that_write_themselves(client):
    word = client.token()
    equal(client.get(f"/log_within?word={word}").body, b"logged", "answer")
    for text in (f"inner {word}", f"outer {word}"):
        true(client.server.log_has(text), f"{text!r} is not in the log")


@rows(PEP, [("after_start_response", "/after_start"), ("at_the_first_item", "/first_item")])
def error_before_the_head_is_sent_is_500(client, target):
    reply = client.get(target)
    equal((reply.status, reply.all("X-Secret")), (500, []), "status and the application's header")
    true(b"never" not in reply.body, "the application's body was sent")


@check(PEP)
def error_in_a_chunked_body_leaves_it_without_end(client):
    with client.connect() as connection:
        connection.send(request("GET", "/later_item"))
        head = connection.head()
        equal(head.status, 200, "status")
        rest = connection.rest()
        true(b"ten bytes." in rest, f"what was sent before the error is missing: {rest!r}")
        if head.field("Transfer-Encoding"):
            true(not rest.endswith(b"0\r\n\r\n"), f"the cut response looks complete: {rest!r}")
        true(b"500" not in rest and b"HTTP/" not in rest, f"a second response: {rest!r}")


@check(PEP)
def error_in_a_sized_body_ends_the_connection(client):
    with client.connect() as connection:
        connection.send(request("GET", "/later_item?length=1"))
        equal(connection.head().status, 200, "status")
        equal(connection.rest(), b"ten bytes.", "body up to the error")


@check(PEP)
def server_serves_on_after_errors(client):
    for _ in range(10):
        client.get("/at_once?kind=value")
        try:
            client.get("/later_item")
        except WireError:
            pass
    equal(client.get("/swallow").body, b"fine", "answer")


@rows(PEP, [("before_the_head", "/at_once?kind=value"), ("after_the_head", "/later_item")])
def traceback_is_logged(client, target):
    before = client.server.log().count("ValueError: a secret detail")
    try:
        client.get(target)
    except WireError:
        pass
    true(client.server.log_has("Traceback (most recent call last)"), "no traceback in the log")
    true(until(lambda: client.server.log().count("ValueError: a secret detail") > before, 5), "the error is not in the log")
    true("checks/errors.py" in client.server.log(), "the traceback does not name the application's file")


@rows(PEP, [(word, text) for word, text in (("write", "write {}"), ("writelines", "writelines {} joined"), ("print", "print {}"))])
def wsgi_errors_reaches_the_log(client, text):
    word = client.token()
    client.get(f"/log?word={word}-end")
    true(client.server.log_has(text.format(f"{word}-end")), f"not in the log:\n{client.server.log_tail()}")


@check(PEP)
def wsgi_errors_takes_any_text(client):
    word = client.token()
    equal(client.get(f"/log?word={word}-any").body, b"logged", "answer")
    true(client.server.log_has(f"unicode {word}-any"), "not in the log")


@check(GUNICORN)
def stderr_reaches_the_log(client):
    word = client.token()
    client.get(f"/log?word={word}-raw")
    true(client.server.log_has(f"stderr {word}-raw"), "not in the log")


@check(PEP)
def reading_past_the_end_is_no_error(client):
    equal(client.post("/swallow", b"body").body, b"fine", "answer")


@check(GUNICORN)
def application_that_exits_leaves_the_server_up(client):
    token = client.token()
    try:
        client.get(f"/exit?token={token}")
    except (WireError, OSError):
        pass
    equal(client.notes(token, 1), ["exits"], "notes")
    for _ in range(6):
        equal(client.get("/swallow").body, b"fine", "answer afterwards")
