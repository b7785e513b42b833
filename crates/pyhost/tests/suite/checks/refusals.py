"""Requests that no application may see, and the limits that gunicorn documents."""

from harness.app import Applications, note, plain
from harness.registry import GOAL, GUNICORN, check, equal, one_of, rows, true
from harness.wire import WireError, request

application = Applications()
HOST = b"Host: suite\r\n"


@application.page
def seen(environ, start_response):
    note(environ, environ["REQUEST_METHOD"])
    return plain(start_response, environ["wsgi.input"].read() or b"seen")


def refused(client, data, wanted):
    token = client.token()
    data = data.replace(b"TOKEN", token.encode())
    try:
        status = client.raw(data, ends=True).status
    except WireError as error:
        if "connection ended within the response head: b''" not in str(error):
            raise
        status = "closed"
    one_of(status, wanted, "status")
    equal(client.notes(token), [], "requests that the application saw")


def get(target=b"/seen?token=TOKEN", version=b"HTTP/1.1", fields=HOST, method=b"GET", body=b""):
    return method + b" " + target + b" " + version + b"\r\n" + fields + b"\r\n" + body


def post(fields, body):
    return get(method=b"POST", fields=HOST + fields, body=body)


@rows(GUNICORN, [
    ("no_version", b"GET /seen?token=TOKEN\r\n" + HOST + b"\r\n", {400}),
    ("one_word", b"GARBAGE\r\n\r\n", {400}),
    ("lower_case_method", get(method=b"get"), {400}),
    ("method_with_a_hash", get(method=b"GE#T"), {400}),
    ("method_too_short", get(method=b"GE"), {400}),
    ("method_too_long", get(method=b"A" * 21), {400}),
    ("method_no_token", get(method=b"G(T"), {400}),
    ("empty_target", get(target=b""), {400}),
    ("raw_space_in_target", get(target=b"/seen /x?token=TOKEN"), {400}),
    ("control_in_target", get(target=b"/seen\x01?token=TOKEN"), {400}),
    ("byte_above_127_in_target", get(target=b"/seen\xff?token=TOKEN"), {400}),
    ("http_2", get(version=b"HTTP/2.0"), {400, 505}),
    ("http_0_9", get(version=b"HTTP/0.9"), {400, 505}),
    ("http_word", get(version=b"HTTPS/1.1"), {400, 505}),
    ("version_with_two_digits", get(version=b"HTTP/1.10"), {400, 505}),
    ("bare_line_feeds", get().replace(b"\r\n", b"\n"), {400, "closed"}),
    ("bare_line_feed_in_a_value", get(fields=HOST + b"X-A: a\nX-B: b\r\n"), {400}),
    ("bare_carriage_return_in_a_value", get(fields=HOST + b"X-A: a\rb\r\n"), {400}),
    ("nul_in_a_value", get(fields=HOST + b"X-A: a\0b\r\n"), {400}),
    ("no_colon", get(fields=HOST + b"X-A\r\n"), {400}),
    ("empty_name", get(fields=HOST + b": a\r\n"), {400}),
    ("space_before_the_colon", get(fields=HOST + b"X-A : a\r\n"), {400}),
    ("space_in_a_name", get(fields=HOST + b"X A: a\r\n"), {400}),
    ("folded_line", get(fields=HOST + b"X-A: a\r\n b\r\n"), {400}),
    ("two_hosts", get(fields=HOST + b"Host: other\r\n"), {400}),
    ("two_content_types", post(b"Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 0\r\n", b""), {400}),
    ("two_lengths", post(b"Content-Length: 4\r\nContent-Length: 5\r\n", b"wiki!"), {400}),
    ("length_list", post(b"Content-Length: 4, 4\r\n", b"wiki"), {400}),
    ("length_plus", post(b"Content-Length: +4\r\n", b"wiki"), {400}),
    ("length_minus", post(b"Content-Length: -4\r\n", b"wiki"), {400}),
    ("length_underscore", post(b"Content-Length: 0_4\r\n", b"wiki"), {400}),
    ("length_hex", post(b"Content-Length: 0x4\r\n", b"wiki"), {400}),
    ("length_empty", post(b"Content-Length: \r\n", b""), {400}),
    ("length_superscript", post(b"Content-Length: \xb2\r\n", b"wi"), {400}),
    ("length_and_chunked", post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"4\r\nwiki\r\n0\r\n\r\n"), {400}),
    ("chunked_twice", post(b"Transfer-Encoding: chunked, chunked\r\n", b"4\r\nwiki\r\n0\r\n\r\n"), {400}),
    ("chunked_in_two_fields", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"4\r\nwiki\r\n0\r\n\r\n"), {400}),
    ("chunked_not_last", post(b"Transfer-Encoding: chunked, gzip\r\n", b"4\r\nwiki\r\n0\r\n\r\n"), {400, 501}),
    ("chunked_in_http_1_0", get(method=b"POST", version=b"HTTP/1.0", fields=b"Transfer-Encoding: chunked\r\n", body=b"0\r\n\r\n"), {400}),
    ("unknown_coding", post(b"Transfer-Encoding: rot13\r\n", b""), {501, 400}),
    ("coding_with_a_control", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), {400, 501}),
])
def malformed_request_is_refused(client, data, wanted):
    refused(client, data, wanted)


@rows(GUNICORN, [
    ("line_of_5000", get(target=b"/seen?token=TOKEN&q=" + b"q" * 5000), {414, 400}),
    ("101_fields", get(fields=HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(100))), {431}),
    ("field_of_9000", get(fields=HOST + b"X-A: " + b"v" * 9000 + b"\r\n"), {431}),
])
def request_over_a_limit_is_refused(client, data, wanted):
    refused(client, data, wanted)


@check(GUNICORN)
def request_at_the_limits_is_served(client):
    # A field counts with its line end.
    head = b"GET /seen?token=TOKEN&q= HTTP/1.1"
    token = client.token().encode()
    line = head.replace(b"TOKEN", token)
    line = line.replace(b"&q=", b"&q=" + b"q" * (4094 - len(line)))
    fields = HOST + b"X-Long: " + b"v" * (8190 - 2 - 8) + b"\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(98))
    equal(client.raw(line + b"\r\n" + fields + b"\r\n").status, 200, "status")


@check(GUNICORN)
def limit_can_be_lowered(client):
    with client.start("checks.refusals:application", options=["--limit-request-fields", "5", "--limit-request-line", "200"]) as server:
        at = client.at(server)
        equal(at.get("/seen?token=x", [(f"X-{n}", "1") for n in range(4)]).status, 200, "status of five fields")
        equal(at.get("/seen?token=x", [(f"X-{n}", "1") for n in range(5)]).status, 431, "status of six fields")
        one_of(at.get("/seen?token=" + "x" * 250).status, {414, 400}, "status of a long request line")


@check(GUNICORN)
def empty_line_before_a_request_is_skipped(client):
    equal(client.raw(b"\r\n" + request("GET", "/seen?token=" + client.token())).status, 200, "status")


@check(GUNICORN)
def underscore_header_is_refused_where_asked_for(client):
    with client.start("checks.refusals:application", options=["--header-map", "refuse"]) as server:
        equal(client.at(server).get("/seen?token=x", [("X_A", "1")]).status, 400, "status")


@check(GUNICORN)
def refusal_is_a_whole_response_that_closes(client):
    with client.connect() as connection:
        connection.send(b"BAD\r\n\r\n" + request("GET", "/seen?token=x"))
        reply = connection.reply()
        equal((reply.status, reply.framing), (400, "length"), "status and framing")
        true(not reply.keeps_alive(), "it does not say Connection: close")
        equal(connection.rest(), b"", "after the refusal")


@check(GUNICORN)
def refusal_does_not_reflect_markup(client):
    reply = client.raw(b"GET /<script>alert(1)</script> HTTP/1.1\r\nHost: suite\r\nX<b>: 1\r\n\r\n")
    equal(reply.status, 400, "status")
    true(b"<script>" not in reply.body and b"X<b>" not in reply.body, f"markup of the request in the answer: {reply.body!r}")


@check(GUNICORN)
def server_serves_on_after_refusals(client):
    for data in (b"\0\0\0\0\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        try:
            client.raw(data, ends=True)
        except WireError:
            pass
    equal(client.get("/seen?token=" + client.token()).body, b"seen", "answer")


@check(GUNICORN)
def client_that_says_nothing_harms_nobody(client):
    for _ in range(20):
        with client.connect():
            pass
        with client.connect() as connection:
            connection.send(b"GET /seen HT")
            connection.reset()
    equal(client.get("/seen?token=" + client.token()).body, b"seen", "answer")


@check(GOAL)
def http_1_1_without_host_is_400(client):
    refused(client, get(fields=b""), {400})


@check(GOAL)
def silent_clients_do_not_hold_the_workers(client):
    """More connections than workers say nothing; a quick page is answered beside them."""
    held = [client.connect() for _ in range(8)]
    try:
        for connection in held[:4]:
            connection.send(b"GET /seen HTTP/1.1\r\nHo")
        equal(client.get("/seen?token=" + client.token(), wait=3).body, b"seen", "answer")
    finally:
        for connection in held:
            connection.close()
