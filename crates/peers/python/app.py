"""The tests on aiohttp, uvloop and asyncpg, as gunicorn serves them: one process and one event loop per worker."""

import os
import random

import asyncpg
import jinja2
import orjson
from aiohttp import web

SELECT_WORLD = "SELECT id, randomnumber FROM world WHERE id = $1"
SELECT_FORTUNES = "SELECT id, message FROM fortune"
UPDATE_WORLDS = (
    "UPDATE world SET randomnumber = new.number"
    " FROM unnest($1::int[], $2::int[]) AS new (id, number) WHERE world.id = new.id"
)
ADDITIONAL = (0, "Additional fortune added at request time.")
PAGE = jinja2.Environment(autoescape=True).from_string(
    "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table><tr><th>id</th><th>message</th></tr>"
    "{% for id, message in fortunes %}<tr><td>{{ id }}</td><td>{{ message }}</td></tr>{% endfor %}"
    "</table></body></html>"
)
# Connections of one worker; asyncpg sends nothing ahead of an answer, so a second one keeps PostgreSQL busy.
CONNECTIONS = 2


class Connection(asyncpg.Connection):
    def get_reset_query(self):
        # Nothing here changes the session, so nothing has to be undone when a connection goes back to the pool.
        return ""


POOL = web.AppKey("pool", asyncpg.Pool)


async def pool(app):
    url = os.environ["DATABASE_URL"]
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, connection_class=Connection) as pool:
        app[POOL] = pool
        yield


def random_number():
    return random.randint(1, 10000)


def count(request):
    """The count asked for by the path or the first parameter: 1 to 500."""
    text = request.match_info.get("count") or next(iter(request.query.values()), "")
    try:
        return min(max(int(text), 1), 500)
    except ValueError:
        return 1


def json(value):
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def world(row):
    return {"id": row[0], "randomNumber": row[1]}


async def read(connection, number):
    """Each row by a SELECT of its own, all sent ahead of the answers."""
    return await connection.fetchmany(SELECT_WORLD, [(random_number(),) for _ in range(number)])


async def hello(request):
    return json({"message": "Hello, World!"})


async def plaintext(request):
    return web.Response(body=b"Hello, World!", content_type="text/plain")


async def db(request):
    async with request.app[POOL].acquire() as connection:
        return json(world(await connection.fetchrow(SELECT_WORLD, random_number())))


async def queries(request):
    async with request.app[POOL].acquire() as connection:
        rows = await read(connection, count(request))
    return json([world(row) for row in rows])


async def updates(request):
    async with request.app[POOL].acquire() as connection:
        rows = await read(connection, count(request))
        # Two updates that lock the same rows in the same order cannot deadlock.
        ids = sorted(row[0] for row in rows)
        numbers = [random_number() for _ in ids]
        await connection.execute(UPDATE_WORLDS, ids, numbers)
    return json([{"id": id, "randomNumber": number} for id, number in zip(ids, numbers)])


async def fortunes(request):
    async with request.app[POOL].acquire() as connection:
        rows = await connection.fetch(SELECT_FORTUNES)
    found = [tuple(row) for row in rows]
    found.append(ADDITIONAL)
    found.sort(key=lambda fortune: fortune[1])
    return web.Response(text=PAGE.render(fortunes=found), content_type="text/html", charset="utf-8")


async def application():
    app = web.Application()
    app.cleanup_ctx.append(pool)
    app.router.add_get("/json", hello)
    app.router.add_get("/plaintext", plaintext)
    app.router.add_get("/db", db)
    app.router.add_get("/queries", queries)
    app.router.add_get("/queries/{count}", queries)
    app.router.add_get("/updates", updates)
    app.router.add_get("/updates/{count}", updates)
    app.router.add_get("/fortunes", fortunes)
    return app
