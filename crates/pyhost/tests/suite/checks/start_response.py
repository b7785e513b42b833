"""start_response and write: what they accept, refuse and send."""

import re
import sys

from harness.app import Applications, note, plain, query, wait_for
from harness.registry import GOAL, GUNICORN, PEP, check, equal, one_of, rows, true
from harness.wire import WireError, request

application = Applications()
DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT\Z")
PLAIN = ("Content-Type", "text/plain")

# Header lists that a page may send, by name; not all are allowed.
HEADERS = {
    "value_crlf": [("X-A", "a\r\nX-Injected: 1")],
    "value_lf": [("X-A", "a\nX-Injected: 1")],
    "value_cr": [("X-A", "a\rX-Injected: 1")],
    "value_nul": [("X-A", "a\0b")],
    "value_control": [("X-A", "a\x01b")],
    "value_delete": [("X-A", "a\x7fb")],
    "value_beyond_latin1": [("X-A", "\u20ac")],
    "value_int": [("X-A", 7)],
    "value_bytes": [("X-A", b"a")],
    "value_none": [("X-A", None)],
    "name_crlf": [("X-A\r\nX-Injected", "1")],
    "name_space": [("X A", "1")],
    "name_colon": [("X-A:", "1")],
    "name_empty": [("", "1")],
    "name_bytes": [(b"X-A", "1")],
    "name_int": [(7, "1")],
    "name_beyond_ascii": [("X-\xe9", "1")],
    "length_word": [("Content-Length", "abc")],
    "length_negative": [("Content-Length", "-1")],
    "not_a_pair": [("X-A",)],
    "triple": [("X-A", "b", "c")],
    "none": None,
}
STATUSES = {
    "crlf": "200 OK\r\nX-Injected: 1",
    "lf": "200 OK\nX-Injected: 1",
    "int": 200,
    "bytes": b"200 OK",
    "none": None,
    "word": "OK",
    "empty": "",
    "beyond_latin1": "200 \u20ac",
    "short_code": "20 OK",
}


@application.page
def status(environ, start_response):
    return plain(start_response, b"body", bytes.fromhex(query(environ, "hex")).decode("latin-1"))


@application.page
def bad_headers(environ, start_response):
    start_response("200 OK", HEADERS[query(environ, "case")])
    return [b"never"]


@application.page
def bad_status(environ, start_response):
    start_response(STATUSES[query(environ, "case")], [PLAIN])
    return [b"never"]


@application.page
def bad_headers_caught(environ, start_response):
    """An application may catch the refusal and answer something else."""
    try:
        start_response("200 OK", [("X-A", "a\r\nb: c")])
    except Exception:
        start_response("503 Caught", [("Content-Length", "6")], sys.exc_info())
        return [b"caught"]
    return [b"never"]


@application.page
def fields(environ, start_response):
    start_response("200 OK", [
        PLAIN, ("Content-Length", "2"), ("X-Second", "2"), ("Set-Cookie", "a=1"), ("x-first", "1"), ("Set-Cookie", "b=2; Path=/"),
        ("X-Latin", "caf\xe9\xff"), ("X-Empty", ""), ("X-Tab", "a\tb"), ("X-Long", "v" * 5000),
    ])
    return [b"ok"]


@application.page
def many_fields(environ, start_response):
    return plain(start_response, "ok", fields=[(f"X-N-{n}", str(n)) for n in range(300)])


@application.page
def named(environ, start_response):
    return plain(start_response, "ok", fields=[(query(environ, "name"), query(environ, "value"))])


@application.page
def twice(environ, start_response):
    start_response("200 OK", [PLAIN])
    try:
        start_response("201 Created", [PLAIN])
    except Exception as error:
        note(environ, type(error).__name__)
        raise
    note(environ, "allowed")
    return [b"never"]


@application.page
def explicit_none(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")], None)
    return [b"ok"]


@application.page
def replaced(environ, start_response):
    start_response("200 OK", [PLAIN, ("X-Old", "1"), ("Content-Length", "100")])
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("503 Changed", [PLAIN, ("X-New", "1"), ("Content-Length", "3")], sys.exc_info())
    return [b"new"]


@application.page
def replaced_in_generator(environ, start_response):
    start_response("200 OK", [PLAIN, ("X-Old", "1")])
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("503 Changed", [PLAIN, ("X-New", "1")], sys.exc_info())
    yield b"new"


@application.page
def exc_info_first(environ, start_response):
    try:
        raise ValueError("at once")
    except ValueError:
        start_response("502 At Once", [("Content-Length", "3")], sys.exc_info())
    return [b"bad"]


@application.page
def after_head(environ, start_response):
    start_response("200 OK", [PLAIN])
    yield b"first"
    try:
        raise LookupError("too late")
    except LookupError as error:
        try:
            start_response("500 Late", [("X-Late", "1")], sys.exc_info())
        except LookupError as raised:
            note(environ, "same" if raised is error else "other")
            raise
        except BaseException as raised:
            note(environ, f"instead {type(raised).__name__}")
            raise
        note(environ, "allowed")
    yield b"second"


@application.page
def never(environ, start_response):
    return [b"no start_response"]


@application.page
def never_empty(environ, start_response):
    return []


@application.page
def in_generator(environ, start_response):
    start_response("202 From Generator", [PLAIN, ("X-Where", "generator")])
    yield b"one"
    yield b"two"


@application.page
def in_iterator(environ, start_response):
    class Lazy:
        left = [b"one", b"two"]

        def __iter__(self):
            self.left = iter(Lazy.left)
            self.is_started = False
            return self

        def __next__(self):
            if not self.is_started:
                start_response("202 From Iterator", [PLAIN])
                self.is_started = True
            return next(self.left)

    return Lazy()


@application.page
def writes(environ, start_response):
    write = start_response("200 OK", [PLAIN])
    said = [write(b"one,"), write(b""), write(b"two,")]
    note(environ, repr(said))
    return [b"three,", b"four"]


@application.page
def write_only(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "10")])
    write(b"01234")
    write(b"56789")
    return []


@application.page
def write_large(environ, start_response):
    write = start_response("200 OK", [PLAIN])
    for number in range(64):
        write(b"%c" % (65 + number % 26) * 65536)
    return []


@application.page
def write_step(environ, start_response):
    write = start_response("200 OK", [PLAIN])
    write(b"early")
    note(environ, "in time" if wait_for(environ) else "late")
    return [b"end"]


@application.page
def write_bad(environ, start_response):
    write = start_response("200 OK", [PLAIN])
    try:
        write("text")
    except Exception as error:
        note(environ, type(error).__name__)
        raise
    note(environ, "allowed")
    return []


@application.page
def write_beyond(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "5")])
    write(b"012")
    write(b"345")
    write(b"678")
    return [b"9"]


@application.page
def write_then_raise(environ, start_response):
    write = start_response("200 OK", [PLAIN])
    write(b"some")
    raise RuntimeError("after write")


@rows(PEP, [
    ("ok", "200 OK", "200", "OK"), ("custom", "299 Fancy Reason", "299", "Fancy Reason"), ("error", "503 Busy", "503", "Busy"),
    ("punctuation", "400 That's (not) it!", "400", "That's (not) it!"), ("custom_code", "599 Own", "599", "Own"),
])
def status_is_sent_as_given(client, line, code, reason):
    reply = client.get(f"/status?hex={line.encode('latin-1').hex()}")
    equal((str(reply.status), reply.reason, reply.body), (code, reason, b"body"), "status, reason, body")


def refused(client, target):
    """An error of the application before any head: 500, and nothing of what it asked for."""
    reply = client.get(target)
    equal(reply.status, 500, "status")
    true(b"never" not in reply.body, "the application's body was sent")
    true(not reply.all("X-Injected") and b"X-Injected" not in reply.body, "injected header")


@rows(PEP, [(case, case) for case in ("value_crlf", "value_lf", "value_cr", "name_crlf", "value_beyond_latin1", "value_int",
                                      "name_space", "name_colon", "name_empty", "name_int", "none")])
def header_is_an_error(client, case):
    refused(client, f"/bad_headers?case={case}")


@rows(GUNICORN, [(case, case) for case in ("value_nul", "name_bytes", "value_bytes", "value_none", "name_beyond_ascii", "not_a_pair", "triple",
                                           "value_control", "value_delete", "length_word")])
def odd_header_is_an_error(client, case):
    refused(client, f"/bad_headers?case={case}")


@check(GOAL)
def negative_length_is_an_error(client):
    refused(client, "/bad_headers?case=length_negative")


@rows(PEP, [(case, case) for case in ("crlf", "lf", "int", "bytes", "none")])
def status_is_an_error(client, case):
    refused(client, f"/bad_status?case={case}")


@rows(GUNICORN, [(case, case) for case in ("word", "empty", "beyond_latin1", "short_code")])
def odd_status_is_an_error(client, case):
    refused(client, f"/bad_status?case={case}")


@check(PEP)
def refused_header_can_be_caught(client):
    reply = client.get("/bad_headers_caught")
    equal((reply.status, reply.body), (503, b"caught"), "status and body")


@check(GUNICORN)
def headers_are_sent_in_order_with_their_case(client):
    reply = client.get("/fields")
    ours = [name for name, _ in reply.fields if name.lower() in ("x-second", "set-cookie", "x-first", "x-empty", "x-tab")]
    equal(ours, ["X-Second", "Set-Cookie", "x-first", "Set-Cookie", "X-Empty", "X-Tab"], "names of headers")


@check(PEP)
def repeated_headers_are_sent_apart(client):
    equal(client.get("/fields").all("Set-Cookie"), ["a=1", "b=2; Path=/"], "Set-Cookie")


@rows(PEP, [("X-Latin", "X-Latin", "caf\xe9\xff"), ("X-Empty", "X-Empty", ""), ("X-Tab", "X-Tab", "a\tb"), ("X-Long", "X-Long", "v" * 5000)])
def header_value_is_sent_as_given(client, name, want):
    equal(client.get("/fields").field(name), want, name)


@check(PEP)
def three_hundred_headers_are_sent(client):
    reply = client.get("/many_fields")
    equal([reply.field(f"X-N-{n}") for n in range(300)], [str(n) for n in range(300)], "headers")


@check(PEP)
def second_call_without_exc_info_is_an_error(client):
    token = client.token()
    reply = client.get(f"/twice?token={token}")
    equal(reply.status, 500, "status")
    true(client.notes(token, 1)[:1] != ["allowed"], "the second call was allowed")


@check(PEP)
def exc_info_may_be_none(client):
    equal(client.get("/explicit_none").body, b"ok", "body")


@rows(PEP, [("list", "/replaced"), ("generator", "/replaced_in_generator"), ])
def exc_info_before_the_head_replaces_the_status(client, target):
    reply = client.raw(request("GET", target)) if target != "/replaced" else None
    if reply is None:
        # The length that was first announced must be gone too; a server that keeps it says so by a short body.
        with client.connect() as connection:
            connection.send(request("GET", target))
            reply = connection.head()
    equal((reply.status, reply.reason), (503, "Changed"), "status")


@rows(GOAL, [("list", "/replaced"), ("generator", "/replaced_in_generator")])
def exc_info_before_the_head_replaces_the_headers(client, target):
    reply = client.get(target)
    equal((reply.all("X-Old"), reply.all("X-New"), reply.body), ([], ["1"], b"new"), "X-Old, X-New, body")


@check(PEP)
def exc_info_in_the_first_call_is_allowed(client):
    reply = client.get("/exc_info_first")
    equal((reply.status, reply.body), (502, b"bad"), "status and body")


@check(PEP)
def exc_info_after_the_head_is_raised_again(client):
    token = client.token()
    with client.connect() as connection:
        connection.send(request("GET", f"/after_head?token={token}"))
        try:
            reply = connection.reply()
        except WireError:
            reply = None
    equal(client.notes(token, 1), ["same"], "what start_response raised")
    true(reply is None or not reply.body.startswith(b"first"), f"the cut response looks complete: {reply!r}")


@rows(GOAL, [("with_a_body", "/never"), ("with_an_empty_body", "/never_empty")])
def start_response_never_called_is_500(client, target):
    reply = client.get(target)
    equal(reply.status, 500, "status")
    true(b"no start_response" not in reply.body, "the application's body was sent")


@rows(PEP, [("generator", "/in_generator", 202, "From Generator"), ("iterator", "/in_iterator", 202, "From Iterator")])
def start_response_may_come_with_the_first_item(client, target, code, reason):
    reply = client.get(target)
    equal((reply.status, reply.reason, reply.body), (code, reason, b"onetwo"), "status, reason, body")


@check(PEP)
def write_comes_before_the_iterable(client):
    token = client.token()
    equal(client.get(f"/writes?token={token}").body, b"one,two,three,four", "body")


@check(PEP)
def write_alone_is_a_body(client):
    equal(client.get("/write_only").body, b"0123456789", "body")


@check(PEP)
def write_sends_four_megabytes(client):
    body = client.get("/write_large").body
    equal((len(body), body[::65536]), (64 * 65536, bytes(65 + n % 26 for n in range(64))), "length, and a byte of each piece")


@check(PEP)
def write_sends_at_once(client):
    token = client.token()
    with client.connect() as connection:
        connection.send(request("GET", f"/write_step?token={token}"))
        head = connection.head()
        got = connection.chunk() if head.field("Transfer-Encoding") else connection.exactly(5)
        equal(got, b"early", "what came before the application went on")
        client.say(token)
        equal(client.notes(token, 1), ["in time"], "note")


@check(PEP)
def write_of_text_is_an_error(client):
    token = client.token()
    try:
        client.get(f"/write_bad?token={token}")
    except WireError:
        pass
    true(client.notes(token, 1) not in ([], ["allowed"]), "write() took a str")


@check(PEP)
def write_stops_at_content_length(client):
    with client.connect() as connection:
        connection.send(request("GET", "/write_beyond"))
        reply = connection.reply()
        equal(reply.body, b"01234", "body")
        true(connection.is_quiet(), f"bytes beyond Content-Length: {connection.buffer!r}")


@check(PEP)
def write_sends_no_body_for_head(client):
    with client.connect() as connection:
        connection.send(request("HEAD", "/write_only"))
        reply = connection.reply("HEAD")
        equal(reply.status, 200, "status")
        true(connection.is_quiet(), f"a body for HEAD: {connection.buffer!r}")


@check(PEP)
def error_after_write_cuts_the_response(client):
    with client.connect() as connection:
        connection.send(request("GET", "/write_then_raise"))
        try:
            reply = connection.reply()
        except WireError:
            return
        true(reply.framing == "close", f"the cut response looks complete: {reply!r}")


@rows(GUNICORN, [(name, name) for name in ("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailers",
                                           "Transfer-Encoding", "Upgrade")])
def hop_by_hop_header_is_dropped_or_refused(client, name):
    reply = client.get(f"/named?name={name}&value=suite-value")
    one_of(reply.status, {200, 500}, "status")
    true("suite-value" not in reply.all(name), f"{name} of the application was sent")


@rows(GUNICORN, [("Server", "Server"), ("Date", "Date")])
def header_of_the_server_stands_once(client, name):
    equal(len(client.get(f"/named?name={name}&value=Fri,%2001%20Jan%202021%2000:00:00%20GMT").all(name)), 1, f"number of {name} headers")


@check(GUNICORN)
def date_is_sent_in_its_format(client):
    date = client.get("/fields").field("Date")
    true(date and DATE.match(date), f"Date: {date!r}")


@check(GUNICORN)
def server_is_named(client):
    true(client.get("/fields").field("Server"), "no Server header")
