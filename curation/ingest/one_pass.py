"""Bytes that are read once, from start to end, as the file that Arrow wants."""

from collections.abc import Callable

import pyarrow as pa

Read = Callable[[int], bytes]  # at most so many bytes; none at the end


class _OnePass:
    closed = False

    def __init__(self, read: Read) -> None:
        self.read = read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """What is read is closed by whoever opened it."""


def arrow_file(read: Read) -> pa.PythonFile:
    """What `read` gives, as a file of Arrow's."""
    return pa.PythonFile(_OnePass(read), mode="r")


def arrow_unpacked(read: Read, codec: str) -> Read:
    """What `read` gives, unpacked by one of Arrow's codecs."""
    unpacked: Read = pa.CompressedInputStream(arrow_file(read), codec).read
    return unpacked
