"""What a process that was killed while it published a file leaves beside it: one under another name."""

import os
import re
from pathlib import Path

# `.NAME.UUID.tmp`, as `storage` names what is not whole yet.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def remove_temporaries(folder: Path, *, deep: bool, of: str = "") -> None:
    """Remove them; for one who knows that nobody is publishing there now.

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
