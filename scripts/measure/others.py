"""Servers of others, as `scripts/bench-peers` has built and listed them."""

import pathlib

LIST = pathlib.Path(".bench/peers/list.tsv")


def found():
    """{name: (tests, command line without its flags, versions)} of those that are built."""
    if not LIST.exists():
        return {}
    rows = (line.split("\t") for line in LIST.read_text().splitlines())
    return {name: (tests.split(","), command.split(), versions) for name, tests, command, versions in rows}


def command(program):
    """What starts such a server: all of them take the same flags."""

    def start(peer, database, flags):
        return [*program, "--bind", peer.address(), "--workers", str(flags.workers), "--database", database.url()]

    return start
