"""What a check gets: requests to the server of its own file, notes, and servers of its own."""

import itertools
import json
import os

from harness.registry import Skip, true
from harness.server import Server, until
from harness.wire import WAIT, Connection, request

_numbers = itertools.count(1)


class Client:
    def __init__(self, server, command):
        self.server, self.command = server, command
        # What went over the wire last, for the message of a failure.
        self.sent, self.received = b"", None

    def start(self, app, **how):
        """A server of this check's own; a context manager."""
        return Server(self.command, app, **how)

    def at(self, server):
        """The same client at another server."""
        return Client(server, self.command)

    def connect(self, wait=WAIT, **how):
        return Connection(self.server.address, wait=wait, **how)

    def raw(self, data, method="GET", wait=WAIT, ends=False):
        """Sends literal bytes on a new connection and reads one reply; nothing may follow it."""
        self.sent, self.received = data, None
        with self.connect(wait) as connection:
            connection.send(data)
            if ends:
                connection.end_sending()
            reply = self.received = connection.reply(method)
            if not reply.keeps_alive():
                rest = connection.rest()
                true(not rest, f"bytes after the end of the response: {rest[:200]!r}")
            else:
                true(not connection.buffer, f"bytes after the end of the response: {connection.buffer[:200]!r}")
            return reply

    def call(self, method, target, fields=(), body=None, wait=WAIT, **how):
        return self.raw(request(method, target, fields, body, **how), method, wait)

    def get(self, target, fields=(), **how):
        return self.call("GET", target, fields, **how)

    def post(self, target, body, fields=(), **how):
        return self.call("POST", target, fields, body, **how)

    def json(self, *arguments, **how):
        """The JSON document in the answer to a GET."""
        reply = self.get(*arguments, **how)
        true(reply.status == 200, f"status {reply.status}: {reply!r}")
        return json.loads(reply.body)

    def token(self):
        return f"t{next(_numbers)}"

    def say(self, token, word="go"):
        """Lets a page that waits for `word` go on."""
        with open(os.path.join(self.server.notes_folder, f"{token}.{word}"), "w", encoding="utf-8"):
            pass

    def notes(self, token, count=0, within=5.0):
        """The notes left for a token, once there are `count` of them, or time is up."""
        path = os.path.join(self.server.notes_folder, token)

        def read():
            try:
                with open(path, encoding="utf-8") as notes:
                    return notes.read().splitlines()
            except FileNotFoundError:
                return []

        until(lambda: len(read()) >= count, within)
        return read()

    def kept_alive(self, connection, reply):
        """Goes on only if the server keeps this connection: not all do, and none must."""
        if not reply.keeps_alive():
            raise Skip("this server does not keep connections alive")
        return connection
