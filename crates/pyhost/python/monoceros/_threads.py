"""The threads of a worker, where `threads` is above 1: their beginning and their end."""

import atexit
import os
import signal
import threading
import time

from monoceros import _load

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
    _watch_signals(threads)
    _start("monoceros-watch", threads.watch, RequestTimeout)
    for number in range(count):
        _start(f"monoceros-{number + 1}", _answer, threads, number)


def _watch_signals(threads):
    """Lets the loop know of signals that the application has handlers for: they run on its thread, the main one."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threads.watch_signals(reader)
    os.close(reader)


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
        _load.leave(code)
