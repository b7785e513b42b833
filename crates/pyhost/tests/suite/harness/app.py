"""The server's side of a check file: its small applications, and notes that reach the checks around the server.

- `application = Applications()` is what the server imports; `@application.page` adds a page under its function's name.
- A note is a line in a file of the folder that `SUITE_NOTES` names: it arrives whichever worker wrote it.
- `wait_for` lets a page go on only after the check has said so: no page sleeps in the hope that it is long enough.
"""

import os
import time
from urllib.parse import parse_qs

# Longest time that a page waits for its check, in seconds.
WAIT_MAX = 8.0


class Applications:
    """One WSGI application that calls the page named by the first part of the path."""

    def __init__(self):
        self.pages = {}

    def page(self, function):
        self.pages[function.__name__] = function
        return function

    def __call__(self, environ, start_response):
        name = environ["PATH_INFO"].lstrip("/").partition("/")[0]
        page = self.pages.get(name)
        if page is None:
            start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "7")])
            return [b"no page"]
        return page(environ, start_response)


def query(environ, name, default=""):
    """One parameter of the query string."""
    return parse_qs(environ["QUERY_STRING"], keep_blank_values=True).get(name, [default])[0]


def note(environ, text):
    """Leaves `text` for the check that gave this request its token."""
    token = query(environ, "token")
    with open(os.path.join(os.environ["SUITE_NOTES"], token), "a", encoding="utf-8") as notes:
        notes.write(text + "\n")


def wait_for(environ, word="go"):
    """Waits until the check says `word`; False if it does not."""
    path = os.path.join(os.environ["SUITE_NOTES"], f"{query(environ, 'token')}.{word}")
    end = time.monotonic() + WAIT_MAX
    while time.monotonic() < end:
        if os.path.exists(path):
            return True
        time.sleep(0.01)
    return False


def plain(start_response, body, status="200 OK", fields=()):
    """A complete short response."""
    if isinstance(body, str):
        body = body.encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *fields])
    return [body]
