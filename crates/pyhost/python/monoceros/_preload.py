"""Between the import of the application and the fork of the workers."""

import faulthandler
import gc
import sys
import threading


def settle():
    """Makes the memory fit to be shared; returns the names of threads that workers will not have.

    What is garbage goes now, and the collector never looks at the rest again: it would write into every object's head.
    """
    gc.collect()
    gc.freeze()
    # What is still buffered would be written by every worker.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass
    # Each worker begins it anew, behind its own report of what it was doing.
    faulthandler.disable()
    return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
