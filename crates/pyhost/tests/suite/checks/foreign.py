"""Programs behind `-- COMMAND`: asyncio servers of other makers, reloaded under load. Only for a server that hosts them."""

import os
import signal
import subprocess
import time

from checks.process import Load
from harness.registry import GOAL, Skip, check, equal, folder, rows, true
from harness.server import Command, Server, until

EXAMPLE = os.path.join(folder(), *[os.pardir] * 4, "docs", "examples", "aiohttp_app.py")


async def asgi(scope, receive, send):
    """What uvicorn serves."""
    if scope["type"] == "http":
        body = str(os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def hosting(client, command, needs):
    """A server of two such programs; skipped where it hosts none, or a package is not there."""
    template, _, app = client.command.template.rpartition(" ")
    if "/master " not in template or app != "{app}":
        raise Skip("the server hosts no foreign programs")
    if not client.command.venv:
        raise Skip("needs --venv, with " + ", ".join(needs))
    python = os.path.join(client.command.venv, "bin", "python")
    if subprocess.run([python, "-c", "import " + ", ".join(needs)], capture_output=True).returncode:
        raise Skip("not installed: " + ", ".join(needs))
    # `{app}` has to stand somewhere: it is the program's last word.
    return Server(Command(f"{template} -- {python} {command} {{app}}", client.command.venv), "checks.foreign:asgi")


@rows(GOAL, [("kept_connections", True), ("new_connections", False)], seconds=60)
def aiohttp_is_reloaded_without_a_loss(client, keeps):
    with hosting(client, EXAMPLE, ["aiohttp", "uvloop", "asyncpg"]) as server:
        true(until(lambda: server.log().count("Worker ready") == 2, 20), f"the workers are not ready:\n{server.log_tail()}")
        with Load(client.at(server), "/plaintext", keeps) as load:
            for number in (2, 3):
                server.send_signal(signal.SIGHUP)
                ready = 2 * number
                true(until(lambda: ready <= server.log().count("Worker ready"), 15), f"no reload:\n{server.log_tail()}")
                time.sleep(1)  # The old workers drain, under load.
        load.judge(b"Hello, World!", 200)
        equal(server.stop(), 0, "exit code")


@check(GOAL, seconds=60)
def uvicorn_serves_the_listener_that_it_is_given(client):
    with hosting(client, "-m uvicorn --log-level warning --fd 3", ["uvicorn"]) as server:
        at = client.at(server)
        answering = lambda: {at.get("/", [("Connection", "close")]).body for _ in range(8)}
        old = answering()
        true(old and all(pid.isdigit() for pid in old), f"answers {old}")
        server.send_signal(signal.SIGHUP)

        def are_new():
            try:
                return not answering() & old
            except OSError:
                return False  # uvicorn cuts what it has accepted and not read: docs/foreign-programs.md.

        true(until(are_new, 20), f"the old programs still answer:\n{server.log_tail()}")
        equal(server.stop(), 0, "exit code")
