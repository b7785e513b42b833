"""The list of checks, and the words that they fail with."""

import os

PEP, GUNICORN, GOAL = "pep", "gunicorn", "goal"
LEVELS = (PEP, GUNICORN, GOAL)
# Longest time that a check may take, in seconds.
SECONDS_MAX = 30

CHECKS = []


class Failure(Exception):
    """A check's finding."""


class Skip(Exception):
    """The check cannot be made on this server, for the reason given."""


class Check:
    def __init__(self, function, level, name, seconds, is_long, arguments):
        self.function, self.level, self.seconds, self.is_long = function, level, seconds, is_long
        self.arguments = arguments
        self.module = function.__module__
        self.name = f"{self.module.rpartition('.')[2]}.{name}"


def check(level, seconds=SECONDS_MAX, is_long=False):
    """Registers a check: a function of one `client`, whose name says the behaviour."""

    def register(function):
        CHECKS.append(Check(function, level, function.__name__, seconds, is_long, ()))
        return function

    return register


def rows(level, table, seconds=SECONDS_MAX):
    """Registers a check for each row of a table: name, then what the function gets after the client."""

    def register(function):
        for name, *arguments in table:
            CHECKS.append(Check(function, level, f"{function.__name__}[{name}]", seconds, False, arguments))
        return function

    return register


def true(condition, why):
    if not condition:
        raise Failure(why)


def equal(got, want, what="got"):
    if got != want:
        raise Failure(f"{what}: {_short(got)}, wanted {_short(want)}")


def one_of(got, wanted, what="got"):
    if got not in wanted:
        raise Failure(f"{what}: {_short(got)}, wanted one of {_short(sorted(wanted, key=str))}")


def _short(value):
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:400]}... ({len(text)} characters)"


def folder():
    """The suite's own folder: the servers under test run in it."""
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

