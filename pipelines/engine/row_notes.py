"""How many rows of an item are done while it is in work: a small file of each, for people who wait.

An item may take an hour. Who works on it notes now and then how far it is, in the run directory, which every
worker sees; the process that waits for them adds the notes up. They are for people alone: no output depends
on one, one that cannot be written is left out, and one that outlives its process goes with the next run.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from curation import storage

# Of a run directory, for what is not done yet. It is removed as a whole, so its name is nobody else's.
SCRATCH = ".lvd-tmp"
ROWS = "rows-"
EVERY_S = 2.0


class RowNote:
    """The note of one item, written by whoever works on it.

    On an object store there is none: there a write costs, and is tried again for longer than people wait.
    """

    def __init__(self, run_dir: str, identity: str) -> None:
        self._path = _folder(run_dir) / f"{ROWS}{identity}" if storage.is_local(run_dir) else None
        self._next_s = time.monotonic() + EVERY_S

    def tell(self, num_rows: int) -> None:
        """So many rows are done by now; called as often as one likes."""
        if self._path is None or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + EVERY_S
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:  # over the number that is there: a reader never finds less
                os.pwrite(file, b"%20d" % num_rows, 0)
            finally:
                os.close(file)
        except OSError:  # the work itself will say so, should it need the disk
            self._path = None

    def remove(self) -> None:
        """The item is done, or given up."""
        if self._path is not None:
            with suppress(OSError):  # the run removes the whole folder in the end
                self._path.unlink(missing_ok=True)


def noted_rows(run_dir: str) -> Mapping[str, int]:
    """Rows that are done of the items in work, by identity."""
    found: dict[str, int] = {}
    if not storage.is_local(run_dir):
        return found
    with suppress(OSError):  # no folder yet, or not for a moment
        for path in _folder(run_dir).glob(f"{ROWS}*"):
            with suppress(OSError, ValueError):  # gone by now, or half written
                found[path.name.removeprefix(ROWS)] = int(path.read_text())
    return found


def _folder(run_dir: str) -> Path:
    return storage.local_path(run_dir) / SCRATCH
