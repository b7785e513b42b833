"""The Python host of Monoceros: `master module:callable` runs `python -m monoceros module:callable` in each worker.

An application needs nothing from here. `FileWrapper` is what it finds in the environ as `wsgi.file_wrapper`;
`RequestTimeout` is what is raised in a thread of a worker whose request takes too long.
"""

from monoceros._files import FileWrapper
from monoceros._threads import RequestTimeout

__all__ = ["FileWrapper", "RequestTimeout"]
