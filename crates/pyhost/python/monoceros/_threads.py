"""The threads of a worker, where `threads` is above 1: their beginning and their end."""

import atexit
import os
import sys
import threading
import time

# Longest time that threads have for their end once the worker has done its work, in seconds.
END_MAX = 1.0

_started = []


class RequestTimeout(BaseException):
    """Raised in a thread whose request has stood still for its time limit: its client has had its answer, 504.

    No `Exception`, so that code which carries on after any error does not carry on after this one.
    """

    __module__ = "monoceros"


def start(threads, count):
    """Starts `count` threads that answer requests, and one that interrupts them when they take too long."""
    _start("monoceros-watch", threads.watch, RequestTimeout)
    for number in range(count):
        _start(f"monoceros-{number + 1}", _answer, threads, number)


def _start(name, function, *arguments):
    thread = threading.Thread(target=function, args=arguments, name=name, daemon=True)
    thread.start()
    _started.append(thread)


def _answer(threads, number):
    threads.answer(number, threading.get_ident())


def end(code):
    """Waits for the threads. Ends the process with `code` if one does not come to its end.

    The interpreter must not be taken down while a thread may yet wake up in it.
    """
    until = time.monotonic() + END_MAX
    for thread in _started:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in _started):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass
        os._exit(code)
