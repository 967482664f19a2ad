"""Zeros in a tar: the end mark with its padding, or members that never came.

An archive ends with two blocks of zeros, and is padded with more of them to a whole record. A file whose
download was begun at its full length, or that a crash caught before its blocks were written, holds zeros
where members should be, and to a reader of headers they look like the end.

Source: GNU tar manual, "The Blocking Factor of an Archive".
"""

import errno
import os

from curation.tar_headers import BLOCK_BYTES, RECORD_BYTES

_END_BYTES = 2 * BLOCK_BYTES
# The records that tars are written in: of `tar -b` up to a megabyte, as disks, tapes and habits have them.
_RECORDS = tuple(BLOCK_BYTES * n for n in (*(1 << i for i in range(12)), 10, 20, 40, 100, 126, 200))
STRIDE_BYTES = 1 << 20
_ZEROS = bytes(STRIDE_BYTES)
_MAGIC_AT = 257


def is_padding(start: int, end: int, *, archive: int) -> bool:
    """Whether zeros may be an archive's end mark and padding: these fill a record, and no more than one.

    Of the usual record (10,240 bytes) any part will do, since not every writer pads.
    """
    if end - start <= RECORD_BYTES + _END_BYTES - BLOCK_BYTES:
        return True
    return any((end - archive) % record == 0 and end - start < record + _END_BYTES for record in _RECORDS)


def count_zeros(data: bytes) -> int:
    """How many zeros data begin with."""
    if data == (_ZEROS if len(data) == STRIDE_BYTES else _ZEROS[: len(data)]):  # as fast as memory
        return len(data)
    return len(data) - len(data.lstrip(b"\0"))


def find_magic(data: bytes) -> list[int]:
    """Where in data, which begin with a block, a header may lie."""
    found, at = [], data.find(b"ustar")
    while at >= 0:
        if at % BLOCK_BYTES == _MAGIC_AT:
            found.append(at - _MAGIC_AT)
        at = data.find(b"ustar", at + 1)
    return found


def skip_hole(handle: int, offset: int, size: int) -> int:
    """Where a local file holds bytes of its own again, at or behind `offset`; `size` where it does not."""
    try:
        return min(os.lseek(handle, offset, os.SEEK_DATA), size)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole up to the end
            return size
        if error.errno in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no holes
            return offset
        raise
