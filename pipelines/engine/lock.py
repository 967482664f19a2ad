"""One run at a time on a run directory."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curation import storage
from curation.errors import ConfigError, LockedError

# `owner` holds the lock for an instant to see whether it is free: that is no run.
TRIES = 5
WAIT_S = 0.05


def _make_run_dir(folder: Path) -> None:
    remedy = "Set another: --set run_dir=DIR"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # modes alone do not tell: a disk may be read-only
            return
    except FileExistsError:
        reason = "a file lies there"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):  # no mistake of whoever chose the place
            raise
        reason = error.strerror or str(error)
        if error.errno == errno.EROFS:
            remedy = "Mount it for writing, or set another: --set run_dir=DIR"
    raise ConfigError(
        f"run_dir cannot be written: {folder}",
        got=reason,
        expected="a folder that this user may write, or a place for one",
        remedy=remedy,
    )


class Owned:
    """A run directory that this process owns.

    Two things are locked: the folder itself, and the file `lock` in it, which tells who the owner is. A file
    can be removed while it is locked, and the next run would lock a new one; the folder stays. Where folders
    cannot be locked (NFS) the file alone has to do.
    """

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self._folder = storage.local_path(run_dir)
        _make_run_dir(self._folder)
        self._folder_handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._file_handle: int | None = None
        try:
            with contextlib.suppress(OSError):  # a file system that does not lock folders
                self._lock(self._folder_handle)
            self._take_file()
        except BaseException:
            self.release()
            raise

    def require(self) -> None:
        """See that the lock is still ours; one that was removed is put back.

        Raises:
            LockedError: another run has the lock by now, or the run directory is gone.
        """
        if not _is_at(self._folder_handle, self._folder):
            raise LockedError(
                f"The run directory {self.run_dir} was removed, or replaced, while this run owned it",
                remedy="Run again: what this run has done since is gone",
            )
        if self._file_handle is None or not _is_at(self._file_handle, self._file):
            self._take_file()

    def release(self) -> None:
        """Give the lock back."""
        if self._file_handle is not None:
            os.ftruncate(self._file_handle, 0)
            os.close(self._file_handle)
        os.close(self._folder_handle)

    @property
    def _file(self) -> Path:
        return self._folder / "lock"

    def _take_file(self) -> None:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(self._file, flags, 0o666)
            try:
                _require_regular(handle, self._file)
                self._lock(handle)
            except BaseException:
                os.close(handle)
                raise
            if _is_at(handle, self._file):
                break
            os.close(handle)  # removed, or another's by now, between opening and locking it
        if self._file_handle is not None:
            os.close(self._file_handle)
        self._file_handle = handle
        os.ftruncate(handle, 0)
        text = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()})
        os.pwrite(handle, text.encode(), 0)

    def _lock(self, handle: int) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if not tries_left:
                    raise LockedError(
                        f"Another run owns {self.run_dir}",
                        got=owner(self.run_dir) or "an owner that left no name",
                        remedy="Wait until it ends, or end it; what it has done so far is kept",
                    ) from error
                time.sleep(WAIT_S)


@contextmanager
def lock(run_dir: str) -> Iterator[Owned]:
    """Own `run_dir` inside the `with`.

    The kernel gives the lock back when its owner dies, so there is no stale lock to remove.

    Raises:
        LockedError: naming the owner, when another run has it.
    """
    owned = Owned(run_dir)
    try:
        yield owned
    finally:
        owned.release()


def owner(run_dir: str) -> str | None:
    """Who owns the run directory now, or None."""
    folder = storage.local_path(run_dir)
    if not folder.is_dir() or not (_is_locked(folder) or _is_locked(folder / "lock")):
        return None
    try:
        data = json.loads(storage.read_bytes(str(folder / "lock")))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(data["since"]))
        return f"process {data['pid']} on {data['host']}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a run that has just begun, or whose lock was removed"


def _is_locked(path: Path) -> bool:
    """Whether somebody holds a lock on a file or folder; what is not there nobody holds."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system that does not lock folders
        return False
    finally:
        os.close(handle)
    return False


def _require_regular(handle: int, path: Path) -> None:
    """Refuse what cannot be written into as a file can: a pipe, a device."""
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise ConfigError(
            f"The run directory has a lock that is no regular file: {path}",
            got="a pipe or a device",
            expected="the file that runs lock",
            remedy="Remove it",
        )


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
