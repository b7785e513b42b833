"""Files as response bodies: `wsgi.file_wrapper` of PEP 3333."""

import io
import os
import stat
import tempfile


class FileWrapper:
    """Iterates over a file-like object. Returned as the response itself, a real file is sent by the kernel."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration

    def __getitem__(self, key):
        data = self.filelike.read(self.blksize)
        if data:
            return data
        raise IndexError(key)


def part_of(wrapper):
    """Descriptor, offset and length of what is left of a wrapper's file; None if it is no plain regular file."""
    try:
        file = _plain(wrapper.filelike)
        if file is None:
            return None
        # What is written and not in the file yet; and what is read ahead was not given out yet.
        file.flush()
        status, offset = os.fstat(file.fileno()), file.tell()
        if not stat.S_ISREG(status.st_mode):
            return None
        return file.fileno(), offset, max(status.st_size - offset, 0)
    except Exception:
        return None


def _plain(filelike):
    """The file of the standard library whose own `read` an object reads with; None if there is none.

    Only of these is it known that the bytes of the descriptor are those that would be read: a compressed file has a
    descriptor too.
    """
    if isinstance(filelike, tempfile.SpooledTemporaryFile):
        filelike = filelike._file
    elif isinstance(filelike, tempfile._TemporaryFileWrapper):
        filelike = filelike.file
    read = filelike.read
    file = getattr(read, "__self__", None)
    if getattr(read, "__name__", None) != "read":
        return None
    if type(file) is io.FileIO or type(file) in (io.BufferedReader, io.BufferedRandom) and type(file.raw) is io.FileIO:
        return file
    return None
