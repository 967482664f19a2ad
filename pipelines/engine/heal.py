"""What is damaged is set aside and made anew: the output of an item follows from what it was made from.

An item is set aside by renaming its receipt, so that its files are nobody's, and by removing the markers that
speak of it. Then the flow finds it not done. Files that are damaged go, since no attempt replaces what lies
in its way; those that are not are found again.
"""

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping

from curation import storage
from curation.errors import IntegrityError
from curation.hashes import Hashes
from pipelines.engine.inner import INNER
from pipelines.engine.step import RECEIPT, SET_ASIDE, STEPS, Receipt

# An item that lies within the folder of another one.
_INNER_ITEM = re.compile(f".*/{INNER}/(.*/)?[0-9a-f]{{32}}(?=/)")


def damaged_item(run_dir: str, path: str) -> str | None:
    """The folder of the item that a file belongs to, relative to the run directory; None: of no item."""
    root = f"{storage.join(run_dir, STEPS)}/"
    if not path.startswith(root):
        return None
    below = path.removeprefix(root)
    if inner := _INNER_ITEM.match(below):
        return posixpath.join(STEPS, inner[0])
    names = below.split("/")
    if len(names) not in (3, 4) or names[1] == "markers":
        return None
    return posixpath.join(STEPS, *names[:2])


def item_to_heal(
    run_dir: str, error: IntegrityError, *, receipts: Mapping[str, Iterable[Receipt]], healed: Collection[str]
) -> str:
    """The folder of the item that can be made anew, since one of its files is damaged.

    Args:
        receipts: of the run, as far as it came.
        healed: folders of items that it has made anew already.

    Raises:
        IntegrityError: the file is no item's; its item was made anew before; or a later generation points
            into it, and made anew it might hold other bytes there.
    """
    folder = damaged_item(run_dir, error.path)
    if folder is None:
        raise error
    if folder in healed:
        raise IntegrityError(
            error.what,
            got=f"{error.got}, after it was made anew",
            expected=error.expected,
            remedy="Check the disk that the run directory lies on",
        ) from error
    if any(folder in one.facts.get("earlier", ()) for found in receipts.values() for one in found):
        raise IntegrityError(
            error.what,
            got=error.got,
            expected=error.expected,
            remedy="Restore it from a copy. Without one remove steps/ingest_stage, steps/ingest_units and "
            "steps/ingest of the run directory, and run again: all that is staged is staged anew",
        ) from error
    return folder


def set_aside(run_dir: str, folder: str) -> None:
    """Let an item be done anew; markers first, lest they speak of what is not there."""
    step = posixpath.dirname(folder)
    storage.remove_tree(storage.join(run_dir, step, "markers"))
    receipt = storage.join(run_dir, folder, RECEIPT)
    was = (
        storage.read_bytes(receipt) if storage.exists(receipt) else b""
    )  # a marker may have held the only copy
    storage.publish_bytes(storage.join(run_dir, folder, SET_ASIDE), was, replace=True)
    storage.remove_file(receipt)
    _remove_damaged(run_dir, folder, was)


def _remove_damaged(run_dir: str, folder: str, receipt: bytes) -> None:
    """Remove the files that are not as their receipt says; all, where it says nothing any more."""
    try:
        item = Receipt.from_json(receipt, where=folder)
    except IntegrityError:
        found = list(storage.list_files(storage.join(run_dir, folder)))
        wrong = [info.path for info in found if info.key != SET_ASIDE]
    else:
        refs = [item.file(run_dir, name) for name in item.files]
        hashes = Hashes()
        wrong = [
            ref.path for ref in refs if storage.exists(ref.path) and not hashes.holds(ref.path, ref.sha256)
        ]
    for path in wrong:
        storage.remove_file(path)
