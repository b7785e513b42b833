"""The Flask site through HTTP: what a browser and its user would miss."""

import hashlib
import json
import os
import threading
from urllib.parse import quote, urlencode

from harness.registry import PEP, check, equal, folder, rows, true
from harness.wire import chunked, request

SITE = "sites.flask_site:app"
FORM = ("Content-Type", "application/x-www-form-urlencoded")


class Browser:
    """Keeps cookies, as little as these checks need."""

    def __init__(self, client):
        self.client, self.cookies = client, {}

    def call(self, method, target, fields=(), body=None):
        said = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        reply = self.client.call(method, target, [*fields, *([("Cookie", said)] if said else [])], body)
        for line in reply.all("Set-Cookie"):
            name, _, value = line.split(";")[0].partition("=")
            self.cookies[name] = value
        return reply

    def get(self, target, fields=()):
        return self.call("GET", target, fields)

    def form(self, target, values, fields=()):
        return self.call("POST", target, [FORM, *fields], urlencode(values).encode())


def multipart(values, files):
    """A form with files: its Content-Type and its bytes."""
    mark, out = "suite-boundary-7f3a", []
    for name, value in values.items():
        out.append(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
    for name, (filename, kind, content) in files.items():
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\nContent-Type: {kind}\r\n\r\n'
        out.append(head.encode() + content + b"\r\n")
    return ("Content-Type", f"multipart/form-data; boundary={mark}"), b"".join(out) + f"--{mark}--\r\n".encode()


@check(PEP)
def page_is_served(client):
    reply = client.get("/")
    equal(reply.status, 200, "status")
    true(b"<h1>Hello stranger</h1>" in reply.body, "the page")


@check(PEP)
def login_makes_a_session(client):
    browser = Browser(client)
    equal(browser.get("/me").status, 401, "status before the login")
    equal(browser.form("/login", {"name": "Zoë", "password": "wrong"}).status, 403, "status of a wrong password")
    reply = browser.form("/login", {"name": "Zoë", "password": "correct horse"})
    equal((reply.status, reply.field("Location")), (302, "/"), "status and Location")
    page = browser.get("/").body.decode()
    true("Hello Zoë" in page and "Welcome back" in page, page)
    true("Welcome back" not in browser.get("/").body.decode(), "the message is shown twice")
    equal(json.loads(browser.get("/me").body), {"user": "Zoë"}, "who is logged in")
    equal(browser.form("/logout", {}).status, 302, "status of the logout")
    equal(browser.get("/me").status, 401, "status after the logout")


@check(PEP)
def sessions_stay_apart(client):
    browsers = {name: Browser(client) for name in ("ann", "ben", "cem", "dee")}
    for name, browser in browsers.items():
        browser.form("/login", {"name": name, "password": "correct horse"})
    for _ in range(5):
        for name, browser in browsers.items():
            equal(json.loads(browser.get("/me").body), {"user": name}, "who is logged in")


@check(PEP)
def form_fields_arrive(client):
    body = urlencode([("a", "1"), ("a", "2"), ("text", "ä & ö = €\r\n"), ("empty", "")]).encode()
    reply = client.post("/form", body, [FORM])
    equal(json.loads(reply.body), {"a": ["1", "2"], "text": ["ä & ö = €\r\n"], "empty": [""]}, "fields")


@rows(PEP, [("length", False), ("chunked", True)])
def json_arrives(client, is_chunked):
    body = json.dumps({"list": list(range(2000)), "text": "ü"}).encode()
    fields = [("Content-Type", "application/json")]
    if is_chunked:
        reply = client.post("/json?q=%C3%A9&q=2", chunked(body[:1000], body[1000:]), [*fields, ("Transfer-Encoding", "chunked")])
    else:
        reply = client.post("/json?q=%C3%A9&q=2", body, fields)
    equal(json.loads(reply.body), {"got": {"list": list(range(2000)), "text": "ü"}, "args": {"q": ["é", "2"]}}, "document and query")


@rows(PEP, [("small", 10), ("large", 5_000_000)])
def upload_arrives(client, size):
    content = os.urandom(size)
    kind, body = multipart({"note": "größer"}, {"file": ("bild.png", "image/png", content)})
    said = json.loads(client.post("/upload", body, [kind]).body)
    want = {"name": "bild.png", "type": "image/png", "size": size, "sha256": hashlib.sha256(content).hexdigest(), "note": "größer"}
    equal(said, want, "what arrived")


@check(PEP)
def upload_that_is_too_large_is_413(client):
    kind, body = multipart({}, {"file": ("big", "a/b", b"x" * (9 << 20))})
    equal(client.post("/upload", body, [kind]).status, 413, "status")
    equal(client.get("/").status, 200, "status afterwards")


@check(PEP)
def stream_keeps_its_request(client):
    want = "".join(f"/stream/ann {number} for ann\n" for number in range(5)).encode()
    equal(client.get("/stream/ann").body, want, "body")


@check(PEP)
def streams_at_once_stay_apart(client):
    """Each sees its own request to its end, whatever else is asked meanwhile."""
    findings = []

    def one(name):
        want = "".join(f"/stream/{name} {number} for {name}\n" for number in range(5)).encode()
        try:
            equal(client.get(f"/stream/{name}").body, want, f"stream of {name}")
        except Exception as error:
            findings.append(str(error))

    threads = [threading.Thread(target=one, args=(f"n{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    equal(findings, [], "findings")


@check(PEP)
def download_arrives(client):
    reply = client.get("/download")
    equal((reply.status, reply.body), (200, b"0123456789" * 50_000), "status and body")
    true(quote("größe.bin") in (reply.field("Content-Disposition") or ""), f"Content-Disposition: {reply.field('Content-Disposition')}")


@check(PEP)
def part_of_a_download_arrives(client):
    with open(os.path.join(folder(), "sites/flask_site/__init__.py"), "rb") as file:
        content = file.read()
    reply = client.get("/this-file", [("Range", "bytes=100-299")])
    equal((reply.status, reply.body), (206, content[100:300]), "status and body")
    equal(reply.field("Content-Range"), f"bytes 100-299/{len(content)}", "Content-Range")
    equal(client.get("/this-file").body, content, "the whole file")


@check(PEP)
def unchanged_download_is_304(client):
    tag = client.get("/memory").field("ETag")
    reply = client.get("/memory", [("If-None-Match", tag)])
    equal((reply.status, reply.body), (304, b""), "status and body")


@check(PEP)
def broken_page_is_500_and_logged(client):
    reply = client.get("/broken")
    equal(reply.status, 500, "status")
    true(b"on purpose" not in reply.body, "the error was shown")
    true(client.server.log_has("RuntimeError: broken on purpose"), "the error is not in the log")


@check(PEP)
def own_error_page_is_served(client):
    reply = client.get("/absent")
    equal(reply.status, 404, "status")
    true(b"Nothing here" in reply.body, "the page")


@check(PEP)
def wrong_method_is_405(client):
    reply = client.call("DELETE", "/form")
    equal(reply.status, 405, "status")
    true("POST" in reply.field("Allow"), "Allow")


@check(PEP)
def addresses_are_right(client):
    host = f"127.0.0.1:{client.server.address[1]}"
    said = client.json("/where?a=%C3%A9", host=host)
    equal(said["url"], f"http://{host}/where?a=é", "url")
    equal((said["root"], said["path"], said["remote"], said["host"]), ("", "/where", "127.0.0.1", host), "root, path, remote, host")
    equal(said["outside"], f"http://{host}/me", "address for others")


@check(PEP)
def head_of_a_page_has_no_body(client):
    with client.connect() as connection:
        connection.send(request("HEAD", "/"))
        reply = connection.reply("HEAD")
        equal(reply.status, 200, "status")
        true(int(reply.field("Content-Length")) > 20, "Content-Length")
        true(connection.is_quiet(), "a body for HEAD")
