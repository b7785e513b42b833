"""wsgi.input: every way to read it, every way in which a body may come."""

import hashlib
import json
import time

from harness.app import Applications, note, plain, query
from harness.registry import GOAL, GUNICORN, PEP, check, equal, one_of, rows, true
from harness.wire import WireError, chunked, request

application = Applications()
LINES = b"first\nsecond line\n\nfourth" + b"x" * 300 + b"\nlast without end"
CHUNKED = [("Transfer-Encoding", "chunked")]


def repeat(step):
    """What `step` gives until it gives nothing; bounded."""
    out = []
    for _ in range(100_000):
        piece = step()
        if not piece:
            break
        out.append(piece)
    return out


READS = {
    "read": lambda stream: [stream.read()],
    "read_minus_one": lambda stream: [stream.read(-1)],
    "read_none": lambda stream: [stream.read(None)],
    "read_5": lambda stream: repeat(lambda: stream.read(5)),
    "read_more": lambda stream: [stream.read(1 << 20)],
    "read_0_first": lambda stream: [stream.read(0), stream.read()],
    "readline": lambda stream: repeat(stream.readline),
    "readline_4": lambda stream: repeat(lambda: stream.readline(4)),
    "readline_minus_one": lambda stream: repeat(lambda: stream.readline(-1)),
    "readlines": lambda stream: stream.readlines(),
    "readlines_hint": lambda stream: stream.readlines(8),
    "iteration": lambda stream: list(stream),
    "next": lambda stream: repeat(lambda: next(iter(stream), b"")),
    "mixed": lambda stream: [stream.read(3), stream.readline(), stream.read(2), stream.readline(), *stream.readlines()],
    "at_end": lambda stream: [stream.read(), stream.read(), stream.read(5), stream.readline(), *stream.readlines(), *stream],
}


@application.page
def reads(environ, start_response):
    pieces = READS[query(environ, "how")](environ["wsgi.input"])
    assert all(type(piece) is bytes for piece in pieces), "not bytes"
    return plain(start_response, json.dumps([piece.decode("latin-1") for piece in pieces]))


@application.page
def readinto(environ, start_response):
    buffer, out = bytearray(7), []
    while count := environ["wsgi.input"].readinto(buffer):
        out.append(bytes(buffer[:count]))
    return plain(start_response, b"".join(out))


@application.page
def digest(environ, start_response):
    hashed, count = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(10_000):
        hashed.update(piece)
        count += len(piece)
    return plain(start_response, f"{count} {hashed.hexdigest()}")


@application.page
def lines(environ, start_response):
    return plain(start_response, json.dumps([len(line) for line in environ["wsgi.input"]]))


@application.page
def ignore(environ, start_response):
    return plain(start_response, "ignored")


@application.page
def part(environ, start_response):
    return plain(start_response, environ["wsgi.input"].read(4))


@application.page
def watched(environ, start_response):
    """Notes what the application saw of a body: nothing must be noted as whole that was not."""
    try:
        body = environ["wsgi.input"].read()
    except BaseException as error:
        note(environ, f"error {type(error).__name__}")
        raise
    note(environ, f"whole {len(body)}")
    return plain(start_response, b"got " + body[:50])


@application.page
def echo_late(environ, start_response):
    """Reads its body after the response has begun."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun,"
    yield environ["wsgi.input"].read()


@rows(PEP, [(how, how) for how in READS if how not in ("read_none", "read_minus_one", "next", "readline_minus_one", "mixed")]
      + [("mixed", "mixed")])
def body_is_read_by(client, how):
    pieces = json.loads(client.post(f"/reads?how={how}", LINES).body)
    whole = "".join(pieces).encode("latin-1")
    equal(whole, LINES[: len(whole)] if how == "readlines_hint" else LINES, "what was read")
    if how in ("readline", "readlines", "iteration"):
        equal([piece.encode("latin-1") for piece in pieces], LINES.splitlines(keepends=True), "lines")
    if how == "readline_4":
        true(all(len(piece) <= 4 and "\n" not in piece[:-1] for piece in pieces), f"lines of at most 4 bytes: {pieces[:6]}")
    if how == "readlines_hint":
        true(whole.startswith(b"first\nsecond line\n"), "at least as many lines as hinted")


@rows(GUNICORN, [(how, how) for how in ("read_minus_one", "read_none", "next", "readline_minus_one")])
def body_is_also_read_by(client, how):
    equal("".join(json.loads(client.post(f"/reads?how={how}", LINES).body)).encode("latin-1"), LINES, "what was read")


@check(GOAL)
def body_is_read_by_readinto(client):
    equal(client.post("/readinto", LINES).body, LINES, "what was read")


@rows(PEP, [(how, how) for how in ("read", "read_5", "readline", "readlines", "iteration", "mixed")])
def chunked_body_is_read_by(client, how):
    sent = chunked(LINES[:3], LINES[3:20], LINES[20:])
    pieces = json.loads(client.post(f"/reads?how={how}", sent, CHUNKED).body)
    equal("".join(pieces).encode("latin-1"), LINES, "what was read")
    if how in ("readline", "readlines", "iteration"):
        equal([piece.encode("latin-1") for piece in pieces], LINES.splitlines(keepends=True), "lines")


@rows(PEP, [(how, how) for how in ("read", "read_5", "readline", "readlines", "iteration", "at_end")])
def no_body_is_read_by(client, how):
    equal("".join(json.loads(client.get(f"/reads?how={how}").body)), "", "what was read")


@rows(PEP, [("length_0", [("Content-Length", "0")], b""), ("chunked", CHUNKED, b"0\r\n\r\n"), ("post_without_length", [], None)])
def empty_body_reads_as_empty(client, fields, body):
    equal(json.loads(client.call("POST", "/reads?how=read", fields, body).body), [""], "what was read")


@check(PEP)
def read_does_not_pass_the_end_of_the_body(client):
    """A pipelined request behind the body is not the body's."""
    data = request("POST", "/reads?how=read_more", body=b"mine") + request("GET", "/ignore", [("Connection", "close")])
    with client.connect() as connection:
        connection.send(data)
        equal(json.loads(connection.reply().body), ["mine"], "what was read")


@check(PEP)
def body_of_all_bytes_arrives(client):
    body = bytes(range(256)) * 40
    equal(client.post("/digest", body).body.decode(), f"{len(body)} {hashlib.sha256(body).hexdigest()}", "length and digest")


@rows(PEP, [("length", False), ("chunked", True)])
def ten_megabytes_arrive(client, is_chunked):
    body = b"".join(b"%08d" % number for number in range(1_310_720))
    if is_chunked:
        sent, fields = chunked(*(body[at : at + 50_000] for at in range(0, len(body), 50_000))), CHUNKED
    else:
        sent, fields = body, []
    reply = client.post("/digest", sent, fields)
    equal(reply.body.decode(), f"{len(body)} {hashlib.sha256(body).hexdigest()}", "length and digest")


@check(PEP)
def lines_of_a_large_body_are_whole(client):
    wanted = [1, 70_000, 1, 3, 200_001, 5]
    body = b"".join(b"y" * (size - 1) + b"\n" for size in wanted)
    equal(json.loads(client.post("/lines", body).body), wanted, "lengths of lines")


@check(PEP)
def lines_of_a_three_megabyte_body_are_whole(client):
    wanted = [500_000 + n for n in range(6)]
    body = b"".join(b"y" * (size - 1) + b"\n" for size in wanted)
    equal(json.loads(client.post("/lines", body).body), wanted, "lengths of lines")


def slowly(client, pieces, pause=0.02):
    with client.connect() as connection:
        for piece in pieces:
            connection.send(piece)
            time.sleep(pause)  # Each piece in a packet of its own.
        return connection.reply()


@check(PEP)
def body_may_come_in_small_pieces(client):
    data = request("POST", "/watched?token=" + client.token(), body=b"piece by piece")
    equal(slowly(client, [data[at : at + 9] for at in range(0, len(data), 9)]).body, b"got piece by piece", "answer")


@check(PEP)
def chunked_body_may_come_in_small_pieces(client):
    data = request("POST", "/watched?token=" + client.token(), CHUNKED, chunked(b"piece", b" by ", b"piece"))
    cut = data.index(b"\r\n\r\n") + 4
    equal(slowly(client, [data[:cut], *(data[at : at + 1] for at in range(cut, len(data)))], 0.01).body, b"got piece by piece", "answer")


@rows(PEP, [
    ("one", b"4\r\nwiki\r\n0\r\n\r\n", b"wiki"),
    ("many", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
    ("upper_case_size", b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    ("lower_case_size", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    ("leading_zeros", b"0004\r\nwiki\r\n000\r\n\r\n", b"wiki"),
    ("extension", b"4;name=value\r\nwiki\r\n0\r\n\r\n", b"wiki"),
    ("trailers", b"4\r\nwiki\r\n0\r\nX-Trailer: 1\r\n\r\n", b"wiki"),
    ("data_like_chunks", b"7\r\n0\r\n\r\nab\r\n0\r\n\r\n", b"0\r\n\r\nab"),
])
def chunked_body_is_decoded(client, body, want):
    equal(client.post("/watched?token=" + client.token(), body, CHUNKED).body, b"got " + want, "answer")


@rows(PEP, [
    ("no_hex", b"zz\r\nwiki\r\n0\r\n\r\n"),
    ("negative", b"-4\r\nwiki\r\n0\r\n\r\n"),
    ("plus", b"+4\r\nwiki\r\n0\r\n\r\n"),
    ("prefix_0x", b"0x4\r\nwiki\r\n0\r\n\r\n"),
    ("underscore", b"0_4\r\nwiki\r\n0\r\n\r\n"),
    ("empty_size", b"\r\nwiki\r\n0\r\n\r\n"),
    ("data_longer_than_size", b"3\r\nwiki\r\n0\r\n\r\n"),
    ("data_shorter_than_size", b"6\r\nwiki\r\n0\r\n\r\n"),
    ("huge_size", b"fffffffffffffffffff\r\nwiki\r\n0\r\n\r\n"),
    ("cut_in_data", b"6\r\nwi"),
    ("cut_in_size", b"4\r\nwiki\r\n1"),
    ("cut_before_the_last_chunk", b"4\r\nwiki\r\n"),
    ("cut_in_the_last_chunk", b"4\r\nwiki\r\n0\r\n"),
    ("nothing", b""),
])
def broken_chunked_body_is_no_body(client, body):
    token = client.token()
    try:
        data = request("POST", f"/watched?token={token}", CHUNKED, body)
        reply = client.raw(data, ends=True)
        one_of(reply.status, {400, 408, 413, 500}, "status")
    except WireError:
        pass  # Closed without an answer.
    true(not any(word.startswith("whole") for word in client.notes(token)), "the application read it as a whole body")


@rows(GUNICORN, [
    ("no_hex", b"zz\r\nwiki\r\n0\r\n\r\n"), ("negative", b"-4\r\nwiki\r\n0\r\n\r\n"),
    ("data_longer_than_size", b"3\r\nwiki\r\n0\r\n\r\n"), ("forbidden_trailer", b"4\r\nwiki\r\n0\r\nContent-Length: 3\r\n\r\n"),
])
def malformed_chunked_body_is_400(client, body):
    reply = client.raw(request("POST", f"/watched?token={client.token()}", CHUNKED, body), ends=True)
    equal(reply.status, 400, "status")


@rows(GOAL, [("sized", [("Content-Length", "100")], b"only this"), ("without_any", [("Content-Length", "1")], b"")])
def cut_body_never_reaches_the_application(client, fields, body):
    token = client.token()
    try:
        one_of(client.raw(request("POST", f"/watched?token={token}", fields, body), ends=True).status, {400, 408}, "status")
    except WireError:
        pass
    true(not any(word.startswith("whole") for word in client.notes(token)), "the application read it as a whole body")


@check(PEP)
def continue_is_said_before_the_body_comes(client):
    with client.connect() as connection:
        fields = [("Expect", "100-continue"), ("Content-Length", "5")]
        connection.send(request("POST", "/watched?token=" + client.token(), fields))
        equal(connection.head().status, 100, "status of the interim response")
        connection.send(b"after")
        equal(connection.reply().body, b"got after", "answer")


@check(PEP)
def continue_is_said_before_a_chunked_body_comes(client):
    with client.connect() as connection:
        connection.send(request("POST", "/watched?token=" + client.token(), [("Expect", "100-Continue"), *CHUNKED]))
        equal(connection.head().status, 100, "status of the interim response")
        connection.send(chunked(b"after"))
        equal(connection.reply().body, b"got after", "answer")


@check(GUNICORN)
def continue_is_not_said_to_http_1_0(client):
    data = request("POST", "/watched?token=" + client.token(), [("Expect", "100-continue")], b"hello", version="1.0")
    reply = client.raw(data)
    equal((reply.status, reply.interim), (200, []), "status and interim responses")


@check(GUNICORN)
def unknown_expectation_is_417(client):
    equal(client.get("/ignore", [("Expect", "the-best")]).status, 417, "status")


@rows(PEP, [("nothing", "/ignore", b"ignored"), ("a_part", "/part", b"unre")])
def unread_body_is_not_the_next_request(client, target, want):
    body = b"unread GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    with client.connect() as connection:
        connection.send(request("POST", target, body=body))
        reply = connection.reply()
        equal(reply.body, want, "first answer")
        client.kept_alive(connection, reply)
        connection.send(request("POST", "/watched?token=" + client.token(), body=b"second"))
        equal(connection.reply().body, b"got second", "second answer")
        true(connection.is_quiet(), f"a third answer: {connection.buffer[:100]!r}")


@check(PEP)
def unread_chunked_body_is_not_the_next_request(client):
    with client.connect() as connection:
        connection.send(request("POST", "/ignore", CHUNKED, chunked(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")))
        reply = connection.reply()
        equal(reply.body, b"ignored", "first answer")
        client.kept_alive(connection, reply)
        connection.send(request("POST", "/watched?token=" + client.token(), body=b"second"))
        equal(connection.reply().body, b"got second", "second answer")


@check(PEP)
def answer_to_an_unread_megabyte_arrives(client):
    equal(client.post("/ignore", b"u" * (1 << 20)).body, b"ignored", "answer")


@check(GUNICORN)
def body_may_be_read_while_the_response_is_sent(client):
    equal(client.post("/echo_late", b"late body").body, b"begun,late body", "answer")


@check(GOAL)
def slow_uploads_do_not_hold_the_workers(client):
    """As many half-sent bodies as it takes to fill two workers; a quick page is answered beside them."""
    held = [client.connect() for _ in range(8)]
    try:
        for connection in held:
            connection.send(request("POST", "/part", [("Content-Length", "100000")], b"begin"))
        time.sleep(0.3)  # The workers must have met the slow clients first.
        began = time.monotonic()
        equal(client.get("/ignore", wait=5).body, b"ignored", "answer")
        true(time.monotonic() - began < 1, "the answer took longer than a second")
    finally:
        for connection in held:
            connection.close()
