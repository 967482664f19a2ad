"""Where shards of an object store lie while they are in use: a folder that nobody but the user can write to.

It lies where everybody may put something, under a name that everybody can tell beforehand. So it is taken
only if it is a folder of the user's own that nobody else has been able to write to, and no link is followed:
what lies there is hashed before its use, but what was hashed is remembered there too.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curation.errors import ConfigError


@dataclass(frozen=True)
class Spool:
    """Where shards of an object store are kept while they are in use.

    Attributes:
        folder: of this machine, for all processes of the user on it.
        max_bytes: of all shards in it; the ones used longest ago go first.
    """

    folder: Path
    max_bytes: int


def own_spool(parent: str | None, *, max_bytes: int) -> Spool:
    """The spool of this user in a folder that users may share; the machine's temporary folder where None."""
    return Spool(Path(parent or tempfile.gettempdir()) / f"lvd-spool-{os.geteuid()}", max_bytes)


def require_own(folder: Path) -> None:
    """Make a folder that is the user's alone, or see that it is.

    Raises:
        ConfigError: it is a link, no folder, or another user's; or others may have put something there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _not_own(folder, error.strerror) from error
    try:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid():
            raise _not_own(folder, f"a folder of user {found.st_uid}")
        mode = stat.S_IMODE(found.st_mode)
        # Never emptied instead: it may be another folder of the user's, which somebody has moved here.
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _not_own(folder, f"one that others may write to (mode {mode:04o})")
        if mode != 0o700:
            os.fchmod(handle, 0o700)
        if (name := _others_entry(handle)) is not None:
            raise _not_own(folder, f"another user's {name} in it: it was open to others once")
    finally:
        os.close(handle)


def _others_entry(handle: int) -> str | None:
    """The name of something in a folder that is not this user's, if there is any."""
    with os.scandir(handle) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another process made room
                if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    return entry.name
    return None


def _not_own(folder: Path, got: str | None) -> ConfigError:
    return ConfigError(
        f"The spool {folder} is not this user's own folder",
        got=got,
        expected=f"a folder of user {os.geteuid()}, no link to one, that nobody else has written to",
        remedy="Remove it, or set data.spool_dir to a folder in which nobody else can make one of that name",
    )


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes of this machine, and other threads, from what happens inside.

    Args:
        path: of the lock, in the spool. A link there is removed, and what it leads to stays as it is.
    """
    if path.is_symlink():
        path.unlink(missing_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_room(spool: Spool, *, keep: Path) -> None:
    """Remove the shards used longest ago until the rest fits. One that is needed again is fetched again.

    A shard's lock has the time when it was used last: that of the shard itself tells whether it has changed.
    """
    locks = {path.stem: path.lstat().st_mtime_ns for path in spool.folder.glob("*.lock")}
    found = []
    for path in spool.folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            found.append((locks.get(path.stem, 0), path.lstat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= spool.max_bytes:
            break
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size
