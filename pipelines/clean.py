"""Finds and removes a run's intermediate data. The dataset is linked, not copied, so it stays whole."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from curation import storage
from pipelines.lock import lock
from pipelines.lvd import curate
from pipelines.progress import Progress
from pipelines.run_dir import read_manifest, read_run_config
from pipelines.runner import Runner, StopHereError


@dataclass(frozen=True)
class Leftover:
    """A folder that may go, and the bytes that this would free."""

    path: str
    num_bytes: int


def find_leftovers(run_dir: str, *, keep_current: bool) -> list[Leftover]:
    """Folders below `steps/` that no dataset needs, and datasets that the manifest no longer names.

    Args:
        run_dir: of a finished run.
        keep_current: keep what the config in run.yaml still uses, so that its next run has little to do.
    """
    manifest = read_manifest(run_dir)
    kept = _in_use(run_dir) if keep_current else set()
    sizes: dict[str, int] = {}
    for info in storage.list_files(run_dir):
        name = info.key.split("/")
        is_old_dataset = name[0].startswith("dataset-") and name[0] != manifest["dataset_dir"]
        folder = name[0] if is_old_dataset or name[0] == "tmp" else "/".join(name[:3])
        if (is_old_dataset or name[0] in ("steps", "tmp")) and folder not in kept and "markers" not in name:
            # What the dataset links to is freed by removing the dataset alone.
            is_linked = storage.local_path(info.path).stat().st_nlink > 1
            sizes[folder] = sizes.get(folder, 0) + (0 if is_linked else info.num_bytes)
    return [Leftover(folder, size) for folder, size in sorted(sizes.items())]


def _in_use(run_dir: str) -> set[str]:
    runner = Runner(run_dir, None, Progress(quiet=True))
    with contextlib.suppress(StopHereError):
        curate(runner, read_run_config(run_dir), refresh=False)
    return {receipt.folder for receipts in runner.receipts.values() for receipt in receipts}


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
        folders = find_leftovers(run_dir, keep_current=keep_current)
        for folder in folders:
            storage.remove_tree(storage.join(run_dir, folder.path))
        for info in list(storage.list_files(storage.join(run_dir, "steps"))):
            if "/markers/" in f"/{info.key}":
                storage.remove_file(info.path)
    return folders
