"""What a file system refuses, as a sentence: which path, what was wanted, what room there is, what to do.

The operating system's words name no path when a write or a read fails, and a library's often not even the
reason: NumPy says `39840 requested and 18368 written`.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from curation.errors import ExecutorError, LvdError

AGAIN = "run the same command again: it goes on where it was"
_ROOM = f"Free some there, or move to where there is more, and {AGAIN}"
_HARDWARE = f"See what the kernel says of it (dmesg); when it is mended, {AGAIN}"
_UNTOLD = -1
# What is said, and what there is to do. Whatever else an operating system says is no file system's refusal.
_WORDS = {
    errno.ENOSPC: ("The disk is full", _ROOM),
    errno.EDQUOT: ("The quota on the disk is used up", _ROOM),
    errno.EFBIG: (
        "A file grows longer than its file system, or the limit of this process, allows",
        f"Raise the limit (ulimit -f), or use another file system, and {AGAIN}",
    ),
    errno.EIO: ("The disk reports an input/output error", _HARDWARE),
    errno.EROFS: (
        "The file system is read-only",
        f"Mount it for writing, or choose another path, and {AGAIN}",
    ),
    errno.EMFILE: ("This process has too many files open", f"Raise the limit (ulimit -n), and {AGAIN}"),
    errno.ENFILE: ("This machine has too many files open", f"Raise its limit (fs.file-max), and {AGAIN}"),
    errno.ENOMEM: (
        "The machine has no memory left for the files it reads",
        f"Give it more, or let fewer workers run at once (executor.workers), and {AGAIN}",
    ),
    errno.EACCES: ("Permission is denied", "Check owner and mode, or choose another path"),
    errno.EPERM: (
        "This operation is not permitted",
        "Check owner, mode and attributes, or choose another path",
    ),
    errno.ESTALE: ("The file server has lost a file (stale handle)", _HARDWARE),
    errno.ETIMEDOUT: ("The file server does not answer", _HARDWARE),
    _UNTOLD: ("A file could not be written whole", f"Check its disk and its quota, and {AGAIN}"),
}
# Lacks of this process or machine: they are told of whatever file is asked for then.
_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# An entry of another kind than lvd keeps there: no wrong of the file system, so it is said alone.
_ODD_ENTRY = {
    errno.EISDIR: ("A folder lies where a file is due", "Move it away"),
    errno.ENOTDIR: ("A file lies where a folder is due", "Move it away"),
    errno.EEXIST: ("Something lies already where lvd makes a file or folder of its own", "Move it away"),
    errno.ELOOP: ("A link leads round in a ring", "Remove the link, or give the path that it was to lead to"),
    errno.ENAMETOOLONG: ("A name is longer than the file system allows", "Give a shorter path"),
}
_READING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EISDIR)
_NO_INODES = "The file system has no room for one more file: it has no inode left"
_SHORT_WRITE = re.compile(r"(\d+) requested and (\d+) written")  # NumPy, where C's fwrite fails
_TORCH = re.compile(r"failed writing file|inline_container\.cc:\d+\] \. unexpected pos|basic_ios::clear")
# Less room than this, and a library that gives no reason has met a full disk.
_FULL_BYTES = 1 << 20


@contextmanager
def naming(path: str | Path, *, num_bytes: int | None = None) -> Iterator[None]:
    """Turn what a file system refuses inside into an error that names the path.

    Args:
        path: what is written or read, or the folder in which that is done, where an error names none itself.
        num_bytes: how much is to be written, where that is known.

    Raises:
        ExecutorError: for a full disk, one that fails, and the like. Other errors pass as they are.
    """
    try:
        yield
    except Exception as error:  # torch, safetensors and Arrow have classes of their own for a full disk
        refused = refusal(error, path, num_bytes=num_bytes)
        if refused is None:
            raise
        raise refused from error


@contextmanager
def with_path(path: str | Path) -> Iterator[None]:
    """Let an error in reading say what was read: the operating system names only what it could not open.

    Raises:
        ExecutorError: as `lack` says.
    """
    try:
        yield
    except OSError as error:
        if (lacking := lack(error, path)) is not None:
            raise lacking from error
        if error.errno in _READING and error.filename is None:
            error.filename = str(path)
        raise


def lack(error: BaseException, path: str | Path) -> ExecutorError | None:
    """The error to raise where this process may open no more files, or its machine has no memory left.

    That is no fault of a file, which would be taken for one that cannot be read: the next run could read it.

    Args:
        error: what was raised; a driver's own errors tell the system's as what they were raised from.
    """
    seen: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in seen:
        if isinstance(here, OSError) and here.errno in _LACKS:
            return refusal(here, path)
        seen.append(here)
        here = here.__cause__ or here.__context__
    return None


def sentence_of(error: LvdError | OSError) -> str:
    """What is said of an error to people: what it is, where, and what there is to do about it."""
    if isinstance(error, LvdError):
        return str(error)
    path = error.filename
    if not path:
        return f"{error.strerror or error}."
    if error.errno in _ODD_ENTRY:
        words, remedy = _ODD_ENTRY[error.errno]
        return str(ExecutorError(f"{words}: {path}", remedy=f"{remedy}, and {AGAIN}"))
    return str(refusal(error, path) or f"{error.strerror or error}: {path}.")


def refusal(error: Exception, path: str | Path, *, num_bytes: int | None = None) -> ExecutorError | None:
    """The error to raise for one that a file system is the cause of; None for any other."""
    if isinstance(error, LvdError):
        return None
    named = error.filename if isinstance(error, OSError) and isinstance(error.filename, str) else None
    if named and not any(part.endswith(".tmp") for part in Path(named).parts):  # a name that nobody has given
        path = named
    number = _number_of(error, path)
    if number not in _WORDS:
        return None
    words, remedy = _WORDS[number]
    room = _room_at(path) if number in (errno.ENOSPC, errno.EDQUOT) else None
    if room is not None and room.num_inodes == 0 and number == errno.ENOSPC:
        words = _NO_INODES
    got = [] if room is None else [f"{room.num_bytes:,} bytes free"]
    if short := _SHORT_WRITE.search(str(error)):
        got.append(short[0])
    return ExecutorError(
        f"{words}: {path}",
        got=", ".join(got) or None,
        expected=None if num_bytes is None else f"room for {num_bytes:,} bytes",
        remedy=remedy,
    )


def _number_of(error: Exception, path: str | Path) -> int | None:
    """The error number, wherever it stands: libraries put the words for it in messages of their own."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    for number in _WORDS:
        if os.strerror(number) in text:
            return number
    if _SHORT_WRITE.search(text) or _TORCH.search(text):
        room = _room_at(path)
        return _UNTOLD if room is None or room.num_bytes >= _FULL_BYTES else errno.ENOSPC
    return None


class _Room(NamedTuple):
    """What is free on a file system."""

    num_bytes: int
    num_inodes: int | None  # None where they are not counted


def _room_at(path: str | Path) -> _Room | None:
    place = Path(path).absolute()
    for folder in (place, *place.parents):
        try:
            found = os.statvfs(folder)
        except FileNotFoundError:
            continue
        except OSError:  # a disk that cannot even tell
            return None
        return _Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)
    return None
