"""Files as response bodies: `wsgi.file_wrapper` of PEP 3333."""

import os
import stat


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
    """Descriptor, offset and length of what is left of a wrapper's file; None if it is no regular file."""
    filelike = wrapper.filelike
    try:
        fd = filelike.fileno()
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or isinstance(filelike.read(0), str):
            return None
        # What a buffered reader has read ahead is not sent yet.
        offset = filelike.tell()
        return fd, offset, max(status.st_size - offset, 0)
    except Exception:
        return None
