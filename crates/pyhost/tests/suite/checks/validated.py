"""wsgiref.validate around an application that uses everything: the server must keep every rule that it looks for."""

import sys
from wsgiref.validate import validator

from harness.app import Applications, query
from harness.registry import PEP, check, equal, rows
from harness.wire import chunked, request

pages = Applications()


@pages.page
def reads(environ, start_response):
    stream = environ["wsgi.input"]
    got = [stream.read(3), stream.readline(), *stream.readlines(), stream.read(1)]
    environ["wsgi.errors"].write("validated\n")
    environ["wsgi.errors"].flush()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"|".join(got)]


@pages.page
def iterates(environ, start_response):
    lines = list(environ["wsgi.input"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (line for line in lines)


@pages.page
def writes(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written,")
    return [b"returned"]


@pages.page
def changes(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise ValueError("changed")
    except ValueError:
        start_response("500 Changed", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"changed"]


@pages.page
def nothing(environ, start_response):
    start_response(query(environ, "status", "204 No Content"), [])
    return []


@pages.page
def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5"), ("X-Query", query(environ, "q", "none"))])
    return [b"plain"]


application = validator(pages)


@rows(PEP, [
    ("reads", "POST", "/reads", b"one\ntwo\nthree", 200, b"one|\n|two\n|three|"),
    ("iterates", "POST", "/iterates", b"one\ntwo\nthree", 200, b"one\ntwo\nthree"),
    ("reads_nothing", "GET", "/reads", None, 200, b"||"),
    ("writes", "GET", "/writes", None, 200, b"written,returned"),
    ("changes", "GET", "/changes", None, 500, b"changed"),
    ("no_content", "GET", "/nothing", None, 204, b""),
    ("not_modified", "GET", "/nothing?status=304%20Not%20Modified", None, 304, b""),
    ("plain", "GET", "/plain?q=%20", None, 200, b"plain"),
    ("head", "HEAD", "/plain", None, 200, b""),
    ("other_method", "DELETE", "/plain", None, 200, b"plain"),
    ("latin1_path", "GET", "/plain/%ff%C3%A9", None, 200, b"plain"),
    ("empty_body", "POST", "/reads", b"", 200, b"||"),
])
def validator_is_content(client, method, target, body, status, want):
    reply = client.call(method, target, [("X-Latin", "caf\xe9"), ("Cookie", "a=b")], body)
    equal((reply.status, reply.body), (status, want), f"status and body\n{client.server.log_tail()}\n   ")


@check(PEP)
def validator_is_content_with_a_chunked_body(client):
    reply = client.post("/iterates", chunked(b"one\nt", b"wo\n"), [("Transfer-Encoding", "chunked")])
    equal((reply.status, reply.body), (200, b"one\ntwo\n"), "status and body")


@check(PEP)
def validator_is_content_with_http_1_0(client):
    reply = client.raw(request("POST", "/iterates", body=b"old\n", version="1.0", host=None))
    equal((reply.status, reply.body), (200, b"old\n"), "status and body")
