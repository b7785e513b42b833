"""The end of a process that the application forked, where it comes back into the worker's code."""

import os
import sys
import traceback


def leave(error):
    """Ends the process, with the exit code that an interpreter would end with. Never returns."""
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = error.code
            if code is None:
                code = 0
            elif not isinstance(code, int):
                print(code, file=sys.stderr)
                code = 1
        elif error is not None:
            traceback.print_exception(error)
            code = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code & 0xFF)
