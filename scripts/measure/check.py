"""Checks that a server does the work: its answers, and the statements that PostgreSQL saw."""

import json

# Requests per test; few, since only their count matters.
REQUESTS = 40
# SELECTs of one request.
SELECTS = {"db": 1, "queries": 20, "updates": 20, "fortunes": 1}
# Servers that are known to end several SELECTs with one Sync. It is said in the table; of any other it ends the run.
ONE_SYNC_FOR_SEVERAL = {"python": "asyncpg ends a batch with one Sync"}


def check(peer, tests, paths, database):
    """Returns {test: {"statements", "syncs"}}, both per request; ends the run when a server asks less than the others, or
    answers wrongly."""
    facts = {}
    for test in tests:
        database.reset()
        for _ in range(REQUESTS):
            status, headers, body = peer.get(paths[test][0])
            wrong = problem(test, status, headers, body)
            if wrong:
                raise SystemExit(f"bench: {peer.name} {paths[test][0]}: {wrong}: {body[:200]!r}")
        asked = statements(peer, test, database.statements())
        facts[test] = {"statements": asked, "syncs": syncs(peer, test, database.syncs())}
    return facts


def problem(test, status, headers, body):
    """What is wrong with an answer, if anything."""
    if status != 200:
        return f"status {status}"
    for name in ("server", "date", "content-type"):
        if name not in headers:
            return f"no {name}"
    kind = {"plaintext": "text/plain", "fortunes": "text/html"}.get(test, "application/json")
    if not headers["content-type"].startswith(kind):
        return f"content-type {headers['content-type']}"
    if test == "plaintext":
        return None if body == b"Hello, World!" else "body"
    if test == "fortunes":
        text = body.decode()
        right = text.count("<tr>") == 14 and "&lt;script&gt;" in text and "フレームワーク" in text and "Additional" in text
        return None if right else "body"
    value = json.loads(body)
    if test == "json":
        return None if value == {"message": "Hello, World!"} else "body"
    worlds = [value] if test == "db" else value
    # Updates may leave out ids that were drawn twice.
    enough = len(worlds) == 1 if test == "db" else (len(worlds) == 20 if test == "queries" else 17 <= len(worlds) <= 20)
    right = all(set(it) == {"id", "randomNumber"} and 1 <= it["id"] <= 10000 and 1 <= it["randomNumber"] <= 10000 for it in worlds)
    return None if enough and right else "body"


def statements(peer, test, seen):
    """Compares the statements that PostgreSQL counted with what the test demands; returns them per request."""
    selects, selected, updates, updated = seen["fortune" if test == "fortunes" else "world"]
    wanted = SELECTS.get(test, 0) * REQUESTS
    enough = selects >= wanted * 0.99 and selected >= wanted * 0.99
    if test == "updates":
        enough = enough and updates >= REQUESTS and updated >= wanted * 0.98
    if test == "fortunes":
        enough = enough and selected >= 12 * REQUESTS
    if not enough:
        raise SystemExit(f"bench: {peer.name} {test}: {REQUESTS} requests made only these statements: {seen}")
    return (selects + updates) / REQUESTS


def syncs(peer, test, seen):
    """Compares the Syncs with the SELECTs that the test demands; returns them per request."""
    if seen < SELECTS.get(test, 0) * REQUESTS * 0.99 and peer.name not in ONE_SYNC_FOR_SEVERAL:
        raise SystemExit(f"bench: {peer.name} {test}: several SELECTs share a Sync: {REQUESTS} requests had only {seen}")
    return seen / REQUESTS
