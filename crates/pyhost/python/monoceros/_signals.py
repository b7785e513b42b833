"""What Python code finds in the place of signal handlers: an application may put its own there, and pass on to these."""

import signal

from monoceros import _monoceros

# The signals that a worker acts on.
CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)
QUICK = (signal.SIGINT, signal.SIGQUIT)


def arrived(number, _frame):
    """Tells the loop; for a quick stop, ends what is being done."""
    _monoceros.signal_arrived(number)
    if number in QUICK:
        raise SystemExit(0)


def install():
    """To be called before the loop installs its own handlers, which the system calls; these are called by those alone."""
    for number in CAUGHT:
        signal.signal(number, arrived)


def forget():
    """In a process that the application forked: signals mean to it what they mean to any program."""
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
