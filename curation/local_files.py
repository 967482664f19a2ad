"""Files of the operating system that appear whole or not at all: a temporary name, fsync, and rename.

A process that is killed meanwhile leaves the file under its temporary name.
"""

import contextlib
import os
import re
import stat
import uuid
from pathlib import Path

from curation.disk_errors import naming

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def temporary_name(target: Path) -> Path:
    """Beside the target, a name that nobody else has."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


def publish_bytes(target: Path, data: bytes, *, replace: bool) -> bool:
    """Make `data` appear at `target`; where not `replace`, what is there stays, and nothing appears.

    Returns:
        Whether it appeared.

    Raises:
        ExecutorError: when the file system refuses.
    """
    with naming(target, num_bytes=len(data)):
        target.parent.mkdir(parents=True, exist_ok=True)
        temp = temporary_name(target)
        try:
            with temp.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            return _rename(temp, target, replace=replace)
        finally:
            temp.unlink(missing_ok=True)


def publish_file(temp: Path, target: Path, *, replace: bool) -> bool:
    """Move a finished file of the same file system to `target`; where not `replace`, what is there stays.

    Returns:
        Whether it was moved; where not, it stays too.

    Raises:
        ExecutorError: when the file system refuses.
    """
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        fsync(temp)
        is_moved = _rename(temp, target, replace=replace)
        if is_moved:
            temp.unlink(missing_ok=True)
        return is_moved


def link(path: Path, target: Path) -> None:
    """Make a published file appear at `target` too; what is there stays.

    Raises:
        OSError: where the file systems cannot do it.
        ExecutorError: when there is no room even for a name.
    """
    with naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.link(path, target)
        fsync(target.parent)


def _rename(temp: Path, target: Path, *, replace: bool) -> bool:
    if replace:
        temp.replace(target)
    else:
        try:
            os.link(temp, target)  # a rename that never replaces; the caller removes the temporary name
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            temp.rename(target)
    fsync(target.parent)
    return True


def fsync(path: Path) -> None:
    """See that a file, or the names in a folder, outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_usual_mode(path: Path) -> None:
    """Give a file the mode of any new file in its folder: what the umask, or the folder's own rules, leave.

    For what a library has made as a temporary file, for its user alone. The umask itself cannot be read
    without changing it for all threads, so a new file is looked at.
    """
    probe = temporary_name(path)
    try:
        with probe.open("xb") as new:
            path.chmod(stat.S_IMODE(os.fstat(new.fileno()).st_mode))
    finally:
        probe.unlink(missing_ok=True)


def remove_temporaries(folder: Path, *, deep: bool, of: str = "") -> None:
    """Remove the files that were not whole yet; for one who knows that nobody is publishing there now.

    Args:
        folder: where; nothing is done where there is none.
        deep: in all folders below it too. Links are not followed.
        of: of this file alone.
    """
    if not folder.is_dir():
        return
    below = []
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.path)
            elif _TEMPORARY.fullmatch(entry.name) and entry.name.startswith(f".{of}"):
                Path(entry.path).unlink(missing_ok=True)
    for path in below if deep else ():
        remove_temporaries(Path(path), deep=True, of=of)
