"""An aiohttp application on uvloop with asyncpg, pre-forked: `master --workers 2 -- python aiohttp_app.py`.

It is an ordinary program. What makes it a worker is in `main`: it serves the listener on descriptor 3, says READY=1,
and on TERM answers what it has, each time with `Connection: close`, before it leaves. It needs nothing of ours.

    pip install aiohttp uvloop asyncpg
"""

import asyncio
import os
import random
import signal
import socket

import asyncpg
import uvloop
from aiohttp import web

FIRST_LISTENER = 3
# A keep-alive client that stays silent is not waited for any longer.
DRAIN_SECONDS = 10.0


class Draining:
    """Says close to each client once the worker is to go: a connection that is just cut can cost a request."""

    def __init__(self):
        self.begun = False

    def middleware(self):
        @web.middleware
        async def say_close(request, handler):
            response = await handler(request)
            if self.begun:
                response.force_close()
            return response

        return say_close


async def plaintext(request):
    return web.Response(body=b"Hello, World!", content_type="text/plain")


async def json(request):
    return web.json_response({"message": "Hello, World!"})


async def db(request):
    async with request.app["pool"].acquire() as connection:
        return web.json_response(await one(connection))


async def queries(request):
    number = request.match_info["number"]
    count = min(max(int(number) if number.isdigit() else 1, 1), 500)
    async with request.app["pool"].acquire() as connection:
        return web.json_response([await one(connection) for _ in range(count)])


async def one(connection):
    row = random.randint(1, 10_000)
    value = await connection.fetchval("SELECT randomnumber FROM world WHERE id = $1", row)
    return {"id": row, "randomNumber": value}


async def pool(app):
    # Connections are made when they are needed: a database that is away does not keep the worker from serving.
    url = os.environ.get("DATABASE_URL")
    app["pool"] = asyncpg.create_pool(url, min_size=0, max_size=4) if url else None
    if app["pool"]:
        await app["pool"]
    yield
    if app["pool"]:
        await app["pool"].close()


def notify(text):
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def listeners():
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    return [socket.socket(fileno=FIRST_LISTENER + n) for n in range(int(os.environ.get("LISTEN_FDS", "0")))]


async def main():
    draining = Draining()
    app = web.Application(middlewares=[draining.middleware()])
    app.cleanup_ctx.append(pool)
    app.add_routes([
        web.get("/plaintext", plaintext), web.get("/json", json), web.get("/db", db), web.get("/queries/{number}", queries),
    ])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    inherited = listeners()
    sites = [web.SockSite(runner, listener) for listener in inherited] or [web.TCPSite(runner, "127.0.0.1", 8000)]
    for site in sites:
        await site.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notify("READY=1")
    await stop.wait()
    draining.begun = True
    # Closes this process's copy of the listener: the master and the other workers have theirs.
    for site in sites:
        site._server.close()
    end = loop.time() + DRAIN_SECONDS
    while runner.server.connections and loop.time() < end:
        await asyncio.sleep(0.05)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
