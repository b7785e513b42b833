"""The Python host of Monoceros: `master module:callable` runs `python -m monoceros module:callable` in each worker.

An application needs nothing from here. `FileWrapper` is what it finds in the environ as `wsgi.file_wrapper`.
"""

from monoceros._files import FileWrapper

__all__ = ["FileWrapper"]
