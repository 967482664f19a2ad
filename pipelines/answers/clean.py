"""Finds and removes a run's intermediate data. The dataset is linked, not copied, so it stays whole."""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass

from curation import storage
from curation.errors import IntegrityError
from pipelines.answers.finished_run import FinishedRun, require_run
from pipelines.config.run_dir import read_run_config
from pipelines.engine.lock import lock
from pipelines.engine.row_notes import SCRATCH
from pipelines.engine.step import RECEIPT
from pipelines.lvd import curate
from pipelines.plan.dry_run import dry_run

# What runs name by its identity.
_DATASET, _ITEM = re.compile("dataset-[0-9a-f]{32}"), re.compile("steps/[^/]+/[0-9a-f]{32}")


@dataclass(frozen=True)
class Leftover:
    """A folder that may go, and the bytes that this would free."""

    path: str
    num_bytes: int


@dataclass(frozen=True)
class _InUse:
    """What the next run looks for: whole folders, and receipts that a later generation is found by."""

    folders: frozenset[str] = frozenset()
    receipts: frozenset[str] = frozenset()


def find_leftovers(run_dir: str, *, keep_current: bool) -> list[Leftover]:
    """Folders below `steps/` that no dataset needs, and datasets that the manifest no longer names.

    Args:
        run_dir: of a finished run.
        keep_current: keep what the config in run.yaml still uses, so that its next run has little to do.
    """
    run = _whole_run(run_dir)
    return _leftovers(run, _in_use(run_dir) if keep_current else _InUse())


def _whole_run(run_dir: str) -> FinishedRun:
    """The run of a dataset that is there: all others are taken for old ones."""
    run = require_run(run_dir)
    if not storage.is_dir(run.dataset_dir):
        raise IntegrityError(
            f"The dataset of {run_dir} is gone",
            got=f"no {run.dataset_dir}",
            expected="the folder that manifest.json names",
            remedy="Run the same config again: it is made anew from what is done",
        )
    return run


def _leftovers(run: FinishedRun, used: _InUse) -> list[Leftover]:
    sizes: dict[str, int] = {}
    linked: dict[tuple[int, int], int] = {}  # by file: its links that do not go
    for info in storage.list_files(run.run_dir):
        name = info.key.split("/")
        is_old_dataset = _DATASET.fullmatch(name[0]) is not None and name[0] != run.manifest["dataset_dir"]
        folder = name[0] if is_old_dataset or name[0] == SCRATCH else "/".join(name[:3])
        if folder in used.folders or info.key in used.receipts or "markers" in name:
            continue
        # Whatever else lies there is not a run's.
        if is_old_dataset or name[0] == SCRATCH or _ITEM.fullmatch(folder):
            # What the dataset links to stays with it; what has several links that all go is freed once.
            stat = storage.local_path(info.path).stat()
            left = linked[stat.st_dev, stat.st_ino] = (
                linked.get((stat.st_dev, stat.st_ino), stat.st_nlink) - 1
            )
            sizes[folder] = sizes.get(folder, 0) + (0 if left else info.num_bytes)
    return [Leftover(folder, size) for folder, size in sorted(sizes.items())]


def _in_use(run_dir: str) -> _InUse:
    runner = dry_run(read_run_config(run_dir), curate).runner
    found = [*runner.latest, *(one for receipts in runner.receipts.values() for one in receipts)]
    # What an earlier generation has staged is still pointed at.
    earlier = {folder for receipt in found for folder in receipt.facts.get("earlier", [])}
    passed = {posixpath.join(receipt.folder, RECEIPT) for receipt in runner.passed}
    return _InUse(frozenset({receipt.folder for receipt in found} | earlier), frozenset(passed))


def by_step(folders: Sequence[Leftover]) -> dict[str, int]:
    """Bytes for every step or old dataset: a step may have a folder for each of a hundred thousand parts."""
    sizes: dict[str, int] = {}
    for folder in folders:
        name = "/".join(folder.path.split("/")[:2])
        sizes[name] = sizes.get(name, 0) + folder.num_bytes
    return sizes


def clean(run_dir: str, *, keep_current: bool) -> list[Leftover]:
    """Remove what `find_leftovers` finds, and the markers, which speak of what is gone; returns what went."""
    with lock(run_dir):
        run = _whole_run(run_dir)
        used = _in_use(run_dir) if keep_current else _InUse()
        folders = _leftovers(run, used)
        for folder in folders:
            _remove(run_dir, folder.path, used)
        for info in list(storage.list_files(storage.join(run_dir, "steps"))):
            if "/markers/" in f"/{info.key}":
                storage.remove_file(info.path)
    return folders


def _remove(run_dir: str, folder: str, used: _InUse) -> None:
    """Remove a folder, but for a receipt that a later generation is found by."""
    path = storage.join(run_dir, folder)
    if posixpath.join(folder, RECEIPT) not in used.receipts:
        storage.remove_tree(path)
        return
    for info in list(storage.list_files(path)):
        if info.key != RECEIPT:
            storage.remove_file(info.path)
