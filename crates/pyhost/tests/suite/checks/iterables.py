"""The iterable that an application returns: its items, their timing, and close()."""

import time

from harness.app import Applications, note, plain, query, wait_for
from harness.registry import GOAL, GUNICORN, PEP, check, equal, rows, true
from harness.wire import WireError, request

application = Applications()
PLAIN = [("Content-Type", "text/plain")]


class Body:
    """An iterable that notes when it is closed."""

    def __init__(self, environ, items, fails_at=None, close_fails=False, iter_fails=False):
        self.environ, self.items, self.fails_at = environ, items, fails_at
        self.close_fails, self.iter_fails = close_fails, iter_fails

    def __iter__(self):
        if self.iter_fails:
            raise RuntimeError("no iterator today")
        for number, item in enumerate(self.items):
            if number == self.fails_at:
                raise RuntimeError("no more items today")
            yield item
        note(self.environ, "exhausted")

    def close(self):
        note(self.environ, "closed")
        if self.close_fails:
            raise RuntimeError("close failed")


class Sized(Body):
    """The same with a length, as a list has it."""

    def __len__(self):
        return len(self.items)


SHAPES = {
    "list": lambda items: list(items),
    "tuple": lambda items: tuple(items),
    "iterator": lambda items: iter(list(items)),
    "generator": lambda items: (item for item in items),
    "map": lambda items: map(bytes, items),
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "old_sequence": lambda items: _Sequence(items),
}
BODIES = {
    "one": [b"all in one"],
    "many": [b"a", b"bc", b"def", b"ghij" * 100],
    "empty": [],
    "empty_items": [b"", b"x", b"", b"", b"y", b""],
    "only_empty_items": [b"", b""],
    "all_bytes": [bytes(range(256)), bytes(range(255, -1, -1))],
    "looks_like_chunks": [b"0\r\n\r\n", b"5\r\nhello\r\n"],
}


class _Sequence:
    """Iterated by __getitem__ alone."""

    def __init__(self, items):
        self.items = list(items)

    def __getitem__(self, index):
        return self.items[index]


@application.page
def shape(environ, start_response):
    items = BODIES[query(environ, "body")]
    if query(environ, "shape") == "dict_keys":
        items = list(dict.fromkeys(items))
    fields = PLAIN + ([("Content-Length", str(sum(map(len, items))))] if query(environ, "length") else [])
    start_response("200 OK", fields)
    return SHAPES[query(environ, "shape")](items)


@application.page
def closing(environ, start_response):
    how = query(environ, "how")
    if how != "unstarted":
        start_response("204 No Content" if how == "204" else "200 OK", [] if how == "204" else PLAIN)
    kind = Sized if how == "sized" else Body
    items = [] if how in ("204", "nothing") else [b"one", b"two", b"three"]
    fails_at = {"fails_first": 0, "fails_later": 2}.get(how)
    return kind(environ, items, fails_at, how == "close_fails", how == "iter_fails")


@application.page
def generator_closing(environ, start_response):
    start_response("200 OK", PLAIN)
    try:
        yield b"one"
        yield b"two"
    finally:
        note(environ, "closed")


@application.page
def endless(environ, start_response):
    """Large pieces for as long as anybody wants them: within bounds."""
    start_response("200 OK", PLAIN)
    number = 0
    try:
        for number in range(4000):
            yield b"x" * 65536
    finally:
        note(environ, f"closed after {'all' if number == 3999 else 'some'}")


@application.page
def slow_steps(environ, start_response):
    """A piece, then nothing until the check has seen it, three times."""
    start_response("200 OK", PLAIN)
    for word in ("one", "two", "three"):
        yield word.encode()
        note(environ, word if wait_for(environ, word) else f"{word} was late")


@application.page
def after_the_end(environ, start_response):
    """Its last piece is out before close() runs."""

    class Late(Body):
        def close(self):
            note(self.environ, "in time" if wait_for(self.environ) else "late")

    start_response("200 OK", PLAIN + [("Content-Length", "4")])
    return Late(environ, [b"last"])


@application.page
def head_first(environ, start_response):
    """Empty items must not be taken for the end, nor send a head that can still change."""
    start_response("200 OK", PLAIN)
    yield b""
    note(environ, "second")
    yield b""
    yield b"body"


@application.page
def bad_item(environ, start_response):
    items = {"str": ["text"], "int": [7], "none": [None], "late_str": [b"good", "text"], "list": [[b"x"]]}[query(environ, "kind")]
    start_response("200 OK", PLAIN)
    return Body(environ, items)


@application.page
def bad_body(environ, start_response):
    start_response("200 OK", PLAIN)
    return {"none": None, "int": 7}[query(environ, "kind")]


@application.page
def single(environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"single item"]


@application.page
def large(environ, start_response):
    size = int(query(environ, "size"))
    start_response("200 OK", PLAIN)
    if query(environ, "shape") == "one":
        return [b"z" * size]
    return (b"%c" % (97 + at % 26) * 8192 for at in range(size // 8192))


@application.page
def quick(environ, start_response):
    return plain(start_response, "quick")


@rows(PEP, [(f"{kind}_{body}", kind, body) for kind in ("list", "generator") for body in BODIES]
      + [(kind, kind, "many") for kind in ("tuple", "iterator", "map", "dict_keys", "old_sequence")])
def body_arrives(client, kind, body):
    equal(client.get(f"/shape?shape={kind}&body={body}").body, b"".join(BODIES[body]), "body")


@rows(PEP, [(f"{kind}_{body}", kind, body) for kind in ("list", "generator") for body in ("one", "many", "empty_items")])
def body_with_a_length_arrives(client, kind, body):
    reply = client.get(f"/shape?shape={kind}&body={body}&length=1")
    equal((reply.framing, reply.body), ("length", b"".join(BODIES[body])), "framing and body")


@rows(PEP, [(how, how) for how in ("plain", "sized", "nothing", "204", "fails_first", "fails_later", "close_fails", "iter_fails", "unstarted")])
def close_is_called_once(client, how):
    token = client.token()
    try:
        client.get(f"/closing?how={how}&token={token}")
    except WireError:
        pass  # How the response looks is another check's matter.
    client.notes(token, 2 if how in ("plain", "sized", "nothing", "204") else 1)
    client.get("/quick")
    equal([word for word in client.notes(token) if word == "closed"], ["closed"], "notes of close()")


@check(PEP)
def close_is_called_for_head(client):
    token = client.token()
    client.call("HEAD", f"/closing?how=plain&token={token}")
    true("closed" in client.notes(token, 2), "close() was not called")


@check(PEP)
def close_comes_after_the_last_item(client):
    token = client.token()
    client.get(f"/closing?how=plain&token={token}")
    equal(client.notes(token, 2), ["exhausted", "closed"], "order of notes")


@check(PEP)
def generator_is_closed(client):
    token = client.token()
    client.get(f"/generator_closing?token={token}")
    equal(client.notes(token, 1), ["closed"], "notes")


@check(PEP)
def failing_close_does_not_spoil_the_response(client):
    reply = client.get(f"/closing?how=close_fails&token={client.token()}")
    equal((reply.status, reply.body), (200, b"onetwothree"), "status and body")


@check(PEP)
def last_item_is_sent_before_close(client):
    token = client.token()
    with client.connect() as connection:
        connection.send(request("GET", f"/after_the_end?token={token}"))
        equal(connection.reply().body, b"last", "body")
        client.say(token)
        equal(client.notes(token, 2), ["exhausted", "in time"], "notes")


@rows(PEP, [("reset", True), ("closed", False)])
def close_is_called_when_the_client_goes_away(client, is_reset):
    token = client.token()
    with client.connect() as connection:
        connection.send(request("GET", f"/endless?token={token}"))
        connection.exactly(300_000)
        if is_reset:
            connection.reset()
    equal(client.notes(token, 1, within=8), ["closed after some"], "notes of the generator")


@check(PEP)
def each_item_is_sent_at_once(client):
    token = client.token()
    with client.connect() as connection:
        connection.send(request("GET", f"/slow_steps?token={token}"))
        head = connection.head()
        for word in ("one", "two", "three"):
            got = connection.chunk() if head.field("Transfer-Encoding") else connection.exactly(len(word))
            equal(got, word.encode(), "the next piece, before the application went on")
            client.say(token, word)
        equal(client.notes(token, 3), ["one", "two", "three"], "notes")


@check(PEP)
def empty_items_do_not_end_the_body(client):
    token = client.token()
    equal(client.get(f"/head_first?token={token}").body, b"body", "body")


@rows(PEP, [(kind, kind) for kind in ("str", "int", "none", "list")])
def item_that_is_no_bytes_is_an_error(client, kind):
    try:
        reply = client.get(f"/bad_item?kind={kind}&token={client.token()}")
    except WireError:
        return
    true(reply.status == 500 or (reply.framing == "close" and not reply.body), f"taken as a body: {reply!r}")


@rows(GOAL, [(kind, kind) for kind in ("str", "int", "none", "list")])
def first_item_that_is_no_bytes_is_500(client, kind):
    equal(client.get(f"/bad_item?kind={kind}&token={client.token()}").status, 500, "status")


@check(PEP)
def later_item_that_is_no_bytes_cuts_the_response(client):
    token = client.token()
    try:
        reply = client.get(f"/bad_item?kind=late_str&token={token}")
    except WireError:
        reply = None
    true(reply is None or reply.status == 500 or reply.framing == "close", f"the cut response looks complete: {reply!r}")
    true("closed" in client.notes(token, 1), "close() was not called")


@rows(PEP, [(kind, kind) for kind in ("none", "int")])
def body_that_is_no_iterable_is_500(client, kind):
    equal(client.get(f"/bad_body?kind={kind}").status, 500, "status")


@check(GOAL)
def single_item_gets_its_content_length(client):
    reply = client.get("/single")
    equal((reply.framing, reply.field("Content-Length"), reply.body), ("length", "11", b"single item"), "framing, length, body")


@rows(PEP, [("one_item", "one"), ("generator", "many")])
def eight_megabytes_arrive(client, kind):
    body = client.get(f"/large?shape={kind}&size={8 << 20}").body
    equal(len(body), 8 << 20, "length of the body")
    if kind == "many":
        true(all(body[at * 8192] == 97 + at % 26 == body[at * 8192 + 8191] for at in range(1024)), "the pieces are out of order")


@rows(PEP, [("one_item", "one"), ("generator", "many")])
def slow_reader_gets_everything(client, kind):
    import time

    with client.connect(receive_buffer=16384) as connection:
        connection.send(request("GET", f"/large?shape={kind}&size={2 << 20}"))
        time.sleep(0.7)  # A reader who lets the socket's buffers fill: its slowness is the point.
        equal(len(connection.reply().body), 2 << 20, "length of the body")


@check(GUNICORN)
def unsized_body_of_http_1_1_is_chunked(client):
    equal(client.get("/generator_closing?token=" + client.token()).framing, "chunked", "framing")


@check(PEP)
def item_is_not_joined_with_the_next_response(client):
    with client.connect() as connection:
        connection.send(request("GET", "/shape?shape=generator&body=many"))
        client.kept_alive(connection, connection.reply())
        connection.send(request("GET", "/shape?shape=list&body=one"))
        equal(connection.reply().body, b"all in one", "second body")


@check(GOAL)
def clients_that_do_not_read_do_not_hold_the_workers(client):
    """Answers larger than the sockets' buffers, asked for and left lying; a quick page is answered beside them."""
    held = [client.connect(receive_buffer=4096) for _ in range(6)]
    try:
        for connection in held:
            connection.send(request("GET", "/large?shape=one&size=900000"))
        time.sleep(0.3)  # The answers must have met the full buffers first.
        equal(client.get("/quick", wait=4).body, b"quick", "answer")
    finally:
        for connection in held:
            connection.close()


@check(GUNICORN)
def kept_connections_do_not_hold_the_workers(client):
    held = [client.connect() for _ in range(20)]
    try:
        for connection in held:
            connection.send(request("GET", "/quick"))
            equal(connection.reply().body, b"quick", "answer on a connection that stays")
        equal(client.get("/quick", wait=3).body, b"quick", "answer on a new connection")
    finally:
        for connection in held:
            connection.close()
