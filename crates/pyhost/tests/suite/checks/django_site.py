"""The Django site through HTTP: forms, admin, uploads, streams, on SQLite, and on PostgreSQL where DATABASE_URL is set."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading

from checks.flask_site import Browser, multipart
from harness.registry import PEP, Skip, check, equal, folder, rows, true

SITE = "sites.django_site.wsgi:application"
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_data = []


def site(command):
    """Tables and an administrator for a new run; the server learns where they are."""
    if not command.venv:
        raise Skip("needs --venv: its Python makes the tables")
    if not _data:
        import atexit

        _data.append(tempfile.mkdtemp(prefix="suite-django-"))
        atexit.register(shutil.rmtree, _data[0], ignore_errors=True)
    env = {"SITE_DATA": _data[0]}
    made = subprocess.run(
        [os.path.join(command.venv, "bin", "python"), "-B", "-m", "sites.django_site.manage", "prepare"],
        cwd=folder(), env={**os.environ, **env}, capture_output=True, text=True, timeout=60,
    )
    if made.returncode:
        raise Skip(f"the tables could not be made: {made.stderr.strip().splitlines()[-1:]}")
    return {"env": env}


def posted(browser, target, values, page=None):
    """Sends the form of a page, with the token that stands in it."""
    found = TOKEN.search(browser.get(page or target).body.decode())
    true(found, f"no token in the form at {page or target}")
    return browser.form(target, {**values, "csrfmiddlewaretoken": found[1]})


def logged_in(client):
    browser = Browser(client)
    values = {"username": "admin", "password": "correct horse", "next": "/admin/"}
    reply = posted(browser, "/admin/login/?next=/admin/", values)
    equal((reply.status, reply.field("Location")), (302, "/admin/"), "status and Location of the login")
    return browser


@check(PEP)
def page_with_a_query_is_served(client):
    reply = client.get("/")
    equal(reply.status, 200, "status")
    true(b"<title>Board</title>" in reply.body, "the page")


@check(PEP)
def form_makes_a_row(client):
    browser = Browser(client)
    reply = posted(browser, "/", {"author": "Zoë", "text": "größer & <besser>"})
    equal(reply.status, 302, "status")
    equal(browser.get(reply.field("Location")).body.decode(), "Zoë: größer & <besser>", "the row")
    true("größer &amp; &lt;besser&gt;" in browser.get("/").body.decode(), "the row is not on the page")


@check(PEP)
def form_without_its_token_is_403(client):
    equal(Browser(client).form("/", {"author": "a", "text": "b"}).status, 403, "status")


@check(PEP)
def incomplete_form_is_shown_again(client):
    reply = posted(Browser(client), "/", {"author": "", "text": "b"})
    equal(reply.status, 200, "status")
    true(b"required" in reply.body, "no word of what is missing")


@check(PEP)
def admin_asks_for_a_login(client):
    reply = client.get("/admin/")
    equal((reply.status, reply.field("Location")), (302, "/admin/login/?next=/admin/"), "status and Location")
    bad = posted(Browser(client), "/admin/login/", {"username": "admin", "password": "wrong"})
    equal(bad.status, 200, "status of a wrong password")


@check(PEP)
def admin_adds_changes_and_deletes(client):
    browser = logged_in(client)
    true(b"Site administration" in browser.get("/admin/").body, "the admin's page")
    add = "/admin/board/message/add/"
    equal(posted(browser, add, {"author": "admin", "text": "by the admin"}).field("Location"), "/admin/board/message/", "Location")
    listed = browser.get("/admin/board/message/?q=by+the+admin").body.decode()
    number = re.search(r"/admin/board/message/(\d+)/change/", listed)[1]
    change = f"/admin/board/message/{number}/change/"
    equal(posted(browser, change, {"author": "admin", "text": "changed"}).status, 302, "status of the change")
    equal(browser.get(f"/messages/{number}/").body, b"admin: changed", "the row")
    gone = posted(browser, f"/admin/board/message/{number}/delete/", {"post": "yes"})
    equal(gone.status, 302, "status of the deletion")
    equal(browser.get(f"/messages/{number}/").status, 404, "status of the row that is gone")


@rows(PEP, [("in_memory", 1000, "InMemoryUploadedFile"), ("through_a_file", 4_000_000, "TemporaryUploadedFile")])
def upload_is_kept_and_comes_back(client, size, kind):
    browser, content = Browser(client), os.urandom(size)
    token = TOKEN.search(browser.get("/upload/").body.decode())[1]
    field, body = multipart({"csrfmiddlewaretoken": token}, {"file": ("bild.png", "image/png", content)})
    said = json.loads(browser.call("POST", "/upload/", [field], body).body)
    equal(said, {"size": size, "sha256": hashlib.sha256(content).hexdigest(), "kind": kind}, "what arrived")
    reply = browser.get("/file/")
    equal(hashlib.sha256(reply.body).digest(), hashlib.sha256(content).digest(), "digest of what came back")
    equal(reply.field("Content-Length"), str(size), "Content-Length")


@check(PEP)
def stream_reads_rows_to_its_end(client):
    """Several at once: no stream loses its database to another request's end."""
    for number in range(3):
        posted(Browser(client), "/", {"author": f"row {number}", "text": "x"})
    findings = []

    def one():
        try:
            reply = client.get("/export/")
            true(reply.status == 200 and reply.body.count(b"\n") >= 3, f"stream: {reply!r}")
            true(client.get("/").status == 200, "page beside the streams")
        except Exception as error:
            findings.append(str(error))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    equal(findings, [], "findings")


@check(PEP)
def writers_at_once_lose_nothing(client):
    def count():
        return client.get("/export/").body.count(b"\n")

    before, findings = count(), []

    def one(name):
        try:
            browser = Browser(client)
            for number in range(5):
                equal(posted(browser, "/", {"author": name, "text": str(number)}).status, 302, "status")
        except Exception as error:
            findings.append(str(error))

    threads = [threading.Thread(target=one, args=(f"writer {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    equal(findings, [], "findings")
    equal(count() - before, 20, "rows added")


@check(PEP)
def broken_page_is_500_and_logged(client):
    equal(client.get("/broken/").status, 500, "status")
    true(client.server.log_has("RuntimeError: broken on purpose"), "the error is not in the log")


@check(PEP)
def missing_slash_is_redirected(client):
    reply = client.get("/upload")
    equal((reply.status, reply.field("Location")), (301, "/upload/"), "status and Location")


@check(PEP)
def latin1_and_utf8_paths_are_404(client):
    for target in ("/%E2%82%AC/", "/%ff/", "/a%00b/"):
        equal(client.get(target).status, 404, f"status of {target}")


@check(PEP)
def session_lasts_over_connections_and_workers(client):
    browser = logged_in(client)
    for _ in range(20):
        equal(browser.get("/admin/").status, 200, "status")
