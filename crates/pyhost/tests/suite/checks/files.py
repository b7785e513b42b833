"""wsgi.file_wrapper: real files, what only looks like one, offsets, and close()."""

import hashlib
import io
import os
import tempfile

from harness.app import Applications, note, plain, query
from harness.registry import GOAL, GUNICORN, PEP, Skip, check, equal, rows, true
from harness.server import until
from harness.wire import WireError, request

application = Applications()
PLAIN = ("Content-Type", "application/octet-stream")
CONTENT = b"".join(b"%07d\n" % number for number in range(40_000))


class Watched:
    """A file that notes its close()."""

    def __init__(self, environ, file, with_fileno=True):
        self.environ, self.file = environ, file
        self.read = file.read
        if with_fileno:
            self.fileno, self.tell, self.seek = file.fileno, file.tell, file.seek

    def close(self):
        note(self.environ, "closed")
        self.file.close()


def temporary(content=CONTENT, offset=0):
    file = tempfile.TemporaryFile()
    file.write(content)
    file.seek(offset)
    return file


@application.page
def send(environ, start_response):
    offset = int(query(environ, "offset", "0"))
    fields = [PLAIN] + ([("Content-Length", query(environ, "says"))] if query(environ, "says") else [])
    kind = query(environ, "kind")
    if kind == "file":
        file = temporary(offset=offset)
    elif kind == "read_ahead":
        file = temporary()
        file.read(offset)  # The reader has buffered more than it has given out.
    elif kind == "empty":
        file = temporary(b"")
    elif kind == "bytesio":
        file = io.BytesIO(CONTENT)
        file.seek(offset)
    elif kind == "unbuffered":
        path = tempfile.mkstemp()[1]
        with open(path, "wb") as out:
            out.write(CONTENT)
        file = open(path, "rb", buffering=0)
        os.unlink(path)
        file.seek(offset)
    elif kind == "pipe":
        ends = os.pipe()
        os.write(ends[1], b"through a pipe")
        os.close(ends[1])
        file = os.fdopen(ends[0], "rb")
    start_response("200 OK", fields)
    if query(environ, "token"):
        file = Watched(environ, file, kind != "bytesio")
    if query(environ, "blksize"):
        return environ["wsgi.file_wrapper"](file, int(query(environ, "blksize")))
    return environ["wsgi.file_wrapper"](file)


@application.page
def iterated(environ, start_response):
    start_response("200 OK", [PLAIN])
    for piece in environ["wsgi.file_wrapper"](temporary(), 1000):
        yield piece.lower()


@application.page
def range_of(environ, start_response):
    """A part of a file, as a framework answers a Range request."""
    start_response("206 Partial Content", [PLAIN, ("Content-Length", "16"), ("Content-Range", f"bytes 80-95/{len(CONTENT)}")])
    return environ["wsgi.file_wrapper"](temporary(offset=80))


@application.page
def with_write(environ, start_response):
    start_response("200 OK", [PLAIN])(b"written,")
    return environ["wsgi.file_wrapper"](temporary(b"from the file"))


@application.page
def offers(environ, start_response):
    return plain(start_response, str("wsgi.file_wrapper" in environ))


@application.page
def quick(environ, start_response):
    return plain(start_response, "quick")


def setup(client):
    """PEP 3333 leaves the wrapper to the server: one that has none is not asked about it."""
    if client.get("/offers").body != b"True":
        raise Skip("the server offers no wsgi.file_wrapper")


@rows(PEP, [(kind, kind) for kind in ("file", "bytesio", "unbuffered")])
def whole_file_arrives(client, kind):
    body = client.get(f"/send?kind={kind}").body
    equal((len(body), hashlib.sha256(body).digest()), (len(CONTENT), hashlib.sha256(CONTENT).digest()), "length and digest")


@rows(PEP, [(kind, kind) for kind in ("file", "bytesio", "unbuffered")])
def file_is_sent_from_where_it_stands(client, kind):
    body = client.get(f"/send?kind={kind}&offset=1003").body
    true(body == CONTENT[1003:], f"{len(body)} bytes from {body[:24]!r}, wanted {len(CONTENT) - 1003} from {CONTENT[1003:1027]!r}")


@check(GOAL)
def file_is_sent_from_where_its_reader_stands(client):
    body = client.get("/send?kind=read_ahead&offset=1003").body
    true(body == CONTENT[1003:], f"{len(body)} bytes from {body[:24]!r}, wanted {len(CONTENT) - 1003} from {CONTENT[1003:1027]!r}")


@rows(PEP, [(kind, kind) for kind in ("file", "bytesio", "pipe")])
def wrapper_takes_a_block_size(client, kind):
    want = b"through a pipe" if kind == "pipe" else CONTENT
    true(client.get(f"/send?kind={kind}&blksize=4000").body == want, "the content differs")


@check(PEP)
def pipe_arrives(client):
    equal(client.get("/send?kind=pipe").body, b"through a pipe", "body")


@check(GOAL)
def empty_file_arrives(client):
    reply = client.get("/send?kind=empty")
    equal((reply.status, reply.body), (200, b""), "status and body")


@rows(PEP, [(kind, kind) for kind in ("file", "bytesio")])
def file_stops_at_content_length(client, kind):
    with client.connect() as connection:
        connection.send(request("GET", f"/send?kind={kind}&says=20&offset=8"))
        equal(connection.reply().body, CONTENT[8:28], "body")
        true(connection.is_quiet(), f"bytes beyond Content-Length: {connection.buffer[:50]!r}")


@rows(PEP, [(kind, kind) for kind in ("file", "bytesio")])
def file_shorter_than_content_length_ends_the_connection(client, kind):
    with client.connect(wait=5) as connection:
        connection.send(request("GET", f"/send?kind={kind}&says={len(CONTENT) + 10}"))
        equal(connection.head().status, 200, "status")
        true(connection.rest() == CONTENT, "not the file up to its end")


@rows(PEP, [(kind, kind) for kind in ("file", "bytesio", "pipe")])
def file_is_closed_once(client, kind):
    token = client.token()
    client.get(f"/send?kind={kind}&token={token}")
    client.notes(token, 1)
    client.get("/quick")
    equal(client.notes(token), ["closed"], "notes of close()")


@check(PEP)
def file_is_closed_for_head(client):
    token = client.token()
    with client.connect() as connection:
        connection.send(request("HEAD", f"/send?kind=file&token={token}"))
        equal(connection.reply("HEAD").status, 200, "status")
        true(connection.is_quiet(), "a body for HEAD")
    equal(client.notes(token, 1), ["closed"], "notes of close()")


@check(PEP)
def file_is_closed_when_the_client_goes_away(client):
    token = client.token()
    with client.connect(receive_buffer=4096) as connection:
        connection.send(request("GET", f"/send?kind=file&token={token}"))
        connection.exactly(100)
        connection.reset()
    equal(client.notes(token, 1, within=8), ["closed"], "notes of close()")


@check(PEP)
def wrapper_can_be_iterated_by_the_application(client):
    true(client.get("/iterated").body == CONTENT, "the content differs")


@check(PEP)
def part_of_a_file_is_sent(client):
    reply = client.get("/range_of")
    equal((reply.status, reply.body), (206, CONTENT[80:96]), "status and body")


@check(PEP)
def file_follows_write(client):
    equal(client.get("/with_write").body, b"written,from the file", "body")


@check(PEP)
def request_after_a_file_on_its_connection(client):
    with client.connect() as connection:
        for target, want in (("/send?kind=file&says=40", CONTENT[:40]), ("/quick", b"quick"), ("/send?kind=file", CONTENT), ("/quick", b"quick")):
            connection.send(request("GET", target))
            reply = connection.reply()
            true(reply.body == want, f"body of {target}: {reply!r}")
            client.kept_alive(connection, reply)


@check(GUNICORN)
def http_1_0_gets_a_file(client):
    true(client.get("/send?kind=file", version="1.0").body == CONTENT, "the content differs")


@check(PEP)
def sixteen_clients_leave_their_files_half_read(client):
    """They all go away; the server serves on and has no error but theirs."""
    for _ in range(16):
        with client.connect(receive_buffer=4096) as connection:
            connection.send(request("GET", f"/send?kind=file&token={client.token()}"))
            try:
                connection.exactly(10)
            except WireError:
                pass
            connection.reset()
    equal(client.get("/quick").body, b"quick", "answer afterwards")


def descriptors(client):
    """Open descriptors of all workers."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in client.server.descendants())


@rows(PEP, [("file", "file", ""), ("after_write", "file", "write"), ("pipe", "pipe", "")])
def descriptors_are_not_left_open(client, kind, way):
    target = "/with_write" if way else f"/send?kind={kind}"
    client.get(target)
    before = descriptors(client)
    for _ in range(40):
        client.get(target)
    true(until(lambda: descriptors(client) < before + 20, 5), f"{descriptors(client)} descriptors after 40 files, {before} before")


@check(GOAL)
def file_is_sent_by_the_kernel(client):
    """A few calls for a file, not one for each block: the kernel's own accounts tell."""

    def reads():
        total = 0
        for pid in client.server.descendants():
            with open(f"/proc/{pid}/io", encoding="ascii") as accounts:
                total += int(accounts.read().split()[5])
        return total

    client.get("/send?kind=file&blksize=1000")
    before = reads()
    for _ in range(10):
        client.get("/send?kind=file&blksize=1000")
    true(reads() - before < 1000, f"{reads() - before} reads for 10 files of {len(CONTENT)} bytes")
