"""How responses end: Content-Length, chunks, HEAD and codes without a body, HTTP/1.0, connections kept and pipelined."""

from harness.app import Applications, note, plain, query
from harness.registry import GOAL, GUNICORN, PEP, check, equal, one_of, rows, true
from harness.wire import WireError, request

application = Applications()
PLAIN = ("Content-Type", "text/plain")


@application.page
def length(environ, start_response):
    """Announces `says` bytes, sends the pieces of `sends`."""
    start_response("200 OK", [PLAIN, ("Content-Length", query(environ, "says"))])
    pieces = [piece.encode() for piece in query(environ, "sends").split(",")]
    if query(environ, "lazily"):
        return lazily(environ, pieces)
    return pieces


def lazily(environ, pieces):
    try:
        yield from pieces
    finally:
        if query(environ, "token"):
            note(environ, "closed")


@application.page
def unsized(environ, start_response):
    start_response("200 OK", [PLAIN])
    yield b"piece one,"
    yield b"piece two"


@application.page
def code(environ, start_response):
    """A response with any status; `body` if it is to send one although it may have none."""
    fields = [("X-Kept", "1")]
    body = query(environ, "body").encode()
    if query(environ, "says"):
        fields.append(("Content-Length", query(environ, "says")))
    start_response(f"{query(environ, 'code')} Reason", fields)
    return [body] if body else []


@application.page
def echo(environ, start_response):
    return plain(start_response, environ["wsgi.input"].read() or query(environ, "say"))


@application.page
def hints(environ, start_response):
    environ["wsgi.early_hints"]([("Link", "</style.css>; rel=preload")])
    return plain(start_response, "final")


@application.page
def bad_hints(environ, start_response):
    try:
        environ["wsgi.early_hints"]([("Link", "a\r\nX-Injected: 1")])
    except Exception as error:
        return plain(start_response, f"refused {type(error).__name__}")
    return plain(start_response, "allowed")


@rows(PEP, [
    ("one_piece", "5", "0123456789"), ("within_a_piece", "5", "012,345,678"), ("between_pieces", "6", "012,345,678"),
    ("to_nothing", "0", "012"), ("first_pieces", "4", "0,1,2,3,4,5"),
])
def body_stops_at_content_length(client, says, sends):
    for lazy in ("", "&lazily=1"):
        with client.connect() as connection:
            connection.send(request("GET", f"/length?says={says}&sends={sends}{lazy}"))
            equal(connection.reply().body, b"0123456789"[: int(says)], "body")
            true(connection.is_quiet(), f"bytes beyond Content-Length: {connection.buffer!r}")


@rows(PEP, [("list", ""), ("generator", "&lazily=1")])
def connection_is_good_after_a_body_that_was_too_long(client, lazy):
    with client.connect() as connection:
        connection.send(request("GET", f"/length?says=5&sends=012,345,678{lazy}"))
        reply = connection.reply()
        equal(reply.body, b"01234", "body")
        try:
            connection.send(request("GET", "/echo?say=next"))
            equal(connection.reply().body, b"next", "next body")
        except WireError:
            true(connection.is_ended and not connection.buffer, f"neither a good response nor the end: {connection.buffer!r}")


@rows(PEP, [("list", ""), ("generator", "&lazily=1"), ("nothing", "&nothing=1")])
def short_body_ends_the_connection(client, lazy):
    with client.connect(wait=5) as connection:
        sends = "" if "nothing" in lazy else "012,34"
        connection.send(request("GET", f"/length?says=10&sends={sends}{lazy}") + request("GET", "/echo?say=next"))
        head = connection.head()
        if head.status == 500:
            return
        equal(head.field("Content-Length"), "10", "Content-Length")
        equal(connection.rest(), sends.replace(",", "").encode(), "what came before the end of the connection")


@check(PEP)
def generator_is_closed_at_content_length(client):
    token = client.token()
    client.get(f"/length?says=4&sends=01,23,45,67&lazily=1&token={token}")
    equal(client.notes(token, 1), ["closed"], "notes")


@rows(PEP, [("list", "/length?says=4&sends=abcd"), ("generator", "/unsized"), ("length", "/length?says=4&sends=ab,cd&lazily=1")])
def head_has_no_body(client, target):
    with client.connect() as connection:
        connection.send(request("HEAD", target))
        equal(connection.reply("HEAD").status, 200, "status")
        true(connection.is_quiet(), f"a body for HEAD: {connection.buffer!r}")


@check(PEP)
def head_keeps_the_content_length(client):
    equal(client.call("HEAD", "/length?says=1234&sends=").field("Content-Length"), "1234", "Content-Length")


@check(PEP)
def get_follows_head_on_its_connection(client):
    with client.connect() as connection:
        connection.send(request("HEAD", "/unsized"))
        client.kept_alive(connection, connection.reply("HEAD"))
        connection.send(request("GET", "/unsized"))
        equal(connection.reply().body, b"piece one,piece two", "body of the GET")


@rows(PEP, [("204", 204), ("304", 304)])
def code_has_no_body(client, status):
    with client.connect() as connection:
        connection.send(request("GET", f"/code?code={status}"))
        reply = connection.reply()
        equal((reply.status, reply.field("X-Kept")), (status, "1"), "status and X-Kept")
        true(connection.is_quiet(), f"a body for {status}: {connection.buffer!r}")
        true(not reply.all("Transfer-Encoding"), "Transfer-Encoding on a response without a body")


@rows(PEP, [("204", 204), ("304", 304)])
def body_of_a_code_without_one_is_dropped(client, status):
    with client.connect() as connection:
        connection.send(request("GET", f"/code?code={status}&body=stray"))
        equal(connection.reply().status, status, "status")
        true(connection.is_quiet(), f"a body for {status}: {connection.buffer!r}")


@check(GUNICORN)
def code_204_has_no_content_length(client):
    equal(client.get("/code?code=204&says=0").field("Content-Length"), None, "Content-Length")


@check(PEP)
def code_304_may_say_the_length(client):
    with client.connect() as connection:
        connection.send(request("GET", "/code?code=304&says=77"))
        one_of(connection.reply().field("Content-Length"), {"77", None}, "Content-Length")
        true(connection.is_quiet(), "a body for 304")


@rows(PEP, [("404", 404), ("500", 500), ("302", 302), ("201", 201), ("418", 418)])
def empty_response_ends(client, status):
    equal(client.get(f"/code?code={status}&says=0").body, b"", "body")
    reply = client.get(f"/code?code={status}")
    equal((reply.status, reply.body), (status, b""), "status and body")


@check(PEP)
def http_1_0_gets_no_chunks(client):
    reply = client.get("/unsized", version="1.0")
    equal((reply.all("Transfer-Encoding"), reply.body), ([], b"piece one,piece two"), "Transfer-Encoding and body")


@check(PEP)
def http_1_0_is_closed(client):
    with client.connect() as connection:
        connection.send(request("GET", "/echo?say=old", version="1.0"))
        reply = connection.reply()
        equal(reply.body, b"old", "body")
        equal(connection.rest(), b"", "after the body")


@check(PEP)
def http_1_0_needs_no_host(client):
    equal(client.get("/echo?say=old", version="1.0", host=None).body, b"old", "body")


@check(PEP)
def http_1_0_keep_alive_is_said_or_closed(client):
    with client.connect() as connection:
        connection.send(request("GET", "/echo?say=one", [("Connection", "keep-alive")], version="1.0"))
        reply = connection.reply()
        if "keep-alive" in ",".join(reply.all("Connection")).lower():
            connection.send(request("GET", "/echo?say=two", [("Connection", "keep-alive")], version="1.0"))
            equal(connection.reply().body, b"two", "second body")
        else:
            equal(connection.rest(), b"", "after the body")


@check(PEP)
def http_1_0_unsized_body_ends_with_the_connection_though_kept_alive(client):
    reply = client.get("/unsized", [("Connection", "keep-alive")], version="1.0")
    equal((reply.framing, reply.body), ("close", b"piece one,piece two"), "framing and body")


@rows(PEP, [("close", "close"), ("case", "Close"), ("upper", "CLOSE")])
def connection_close_is_honoured(client, said):
    with client.connect() as connection:
        connection.send(request("GET", "/echo?say=bye", [("Connection", said)]))
        reply = connection.reply()
        equal(reply.body, b"bye", "body")
        equal(connection.rest(), b"", "after the body")
        true(not reply.keeps_alive(), "the response does not say Connection: close")


@check(GOAL)
def connection_close_in_a_list_is_honoured(client):
    with client.connect(wait=3) as connection:
        connection.send(request("GET", "/echo?say=bye", [("Connection", "te, close")]))
        equal(connection.reply().body, b"bye", "body")
        equal(connection.rest(), b"", "after the body")


@check(PEP)
def fifty_requests_on_one_connection(client):
    with client.connect() as connection:
        for number in range(50):
            body = b"%d" % number * number
            connection.send(request("POST", "/echo", body=body) if number % 2 else request("GET", f"/echo?say={number}"))
            reply = connection.reply()
            equal(reply.body, body if number % 2 else b"%d" % number, f"body {number}")
            client.kept_alive(connection, reply)


@check(PEP)
def kinds_of_responses_follow_each_other(client):
    with client.connect() as connection:
        for target, want in [("/unsized", b"piece one,piece two"), ("/code?code=204", b""), ("/echo?say=a", b"a"), ("/code?code=304", b""),
                             ("/unsized", b"piece one,piece two"), ("/code?code=404", b""), ("/echo?say=z", b"z")]:
            connection.send(request("GET", target))
            reply = connection.reply()
            equal(reply.body, want, f"body of {target}")
            client.kept_alive(connection, reply)


@check(PEP)
def pipelined_requests_are_answered_in_order(client):
    with client.connect() as connection:
        connection.send(b"".join(request("GET", f"/echo?say=n{number}") for number in range(20)))
        for number in range(20):
            reply = connection.reply()
            equal(reply.body, b"n%d" % number, f"body {number}")
            if number < 19:
                client.kept_alive(connection, reply)


@check(PEP)
def pipelined_bodies_stay_apart(client):
    chunky = request("POST", "/echo", [("Transfer-Encoding", "chunked")], b"2\r\nch\r\n3\r\nunk\r\n0\r\n\r\n")
    with client.connect() as connection:
        connection.send(request("POST", "/echo", body=b"first") + chunky + request("GET", "/unsized") + request("POST", "/echo", body=b"last"))
        for want in (b"first", b"chunk", b"piece one,piece two", b"last"):
            reply = connection.reply()
            equal(reply.body, want, "body")
            if want != b"last":
                client.kept_alive(connection, reply)


@check(PEP)
def request_cut_anywhere_is_one_request(client):
    """The bytes of two requests, sent one at a time: nothing depends on what a packet holds."""
    data = request("POST", "/echo", body=b"b") + request("GET", "/echo?say=c", [("Connection", "close")])
    with client.connect() as connection:
        for at in range(len(data)):
            connection.send(data[at : at + 1])
        reply = connection.reply()
        equal(reply.body, b"b", "first body")
        client.kept_alive(connection, reply)
        equal(connection.reply().body, b"c", "second body")


@check(GUNICORN)
def early_hints_come_before_the_response(client):
    reply = client.get("/hints")
    equal([one.status for one in reply.interim], [103], "interim responses")
    equal((reply.interim[0].field("Link"), reply.body), ("</style.css>; rel=preload", b"final"), "Link and body")


@check(GUNICORN)
def early_hints_are_not_sent_to_http_1_0(client):
    reply = client.get("/hints", version="1.0")
    equal((reply.interim, reply.body), ([], b"final"), "interim responses and body")


@check(GOAL)
def early_hints_refuse_injection(client):
    reply = client.get("/bad_hints")
    true(not any(one.all("X-Injected") for one in reply.interim), "injected header")
    one_of(reply.body[:7], {b"refused", b"<html>\n"}, "answer")
