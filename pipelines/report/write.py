"""The report of a run: one self-contained HTML page beside the dataset."""

import hashlib

from curation import storage
from curation.errors import ConfigError, IntegrityError
from curation.shard.manifest import Entry, Manifest
from pipelines.answers.finished_run import FinishedRun, require_run
from pipelines.config.listed import entry_of, with_file, without_file, write_manifest
from pipelines.config.run_dir import read_manifest
from pipelines.engine.heal import damaged_item
from pipelines.engine.lock import lock
from pipelines.report.content import gather
from pipelines.report.render import render
from pipelines.report.thumbnails import PAGE_BYTES, Originals, make_thumbnails
from pipelines.stages.shard.dataset import report_path

WHOLE = 'data-evidence="whole"'  # stands in a report that was written with the run's intermediate data


def write_report(run_dir: str, *, max_thumbnail_bytes: int = PAGE_BYTES) -> str:
    """Write the report of a finished run; one that is there is replaced.

    But not by one that is written without the run's intermediate data, where it was written with them.

    Args:
        run_dir: of the run; its manifest is read, and its intermediate data as far as that is still there.
        max_thumbnail_bytes: what the thumbnails may add to the page.

    Returns:
        The path of `report.html`.

    Raises:
        ConfigError: when no dataset was finished in `run_dir`, or the report that is there was written from
            intermediate data that is gone.
        IntegrityError: when a file of the dataset is damaged.
    """
    run = require_run(run_dir)
    path = report_path(run_dir, run.manifest)
    if run.curated is None and storage.exists(path) and WHOLE.encode() in storage.read_bytes(path):
        raise ConfigError(
            f"{path} shows more than can be written anew",
            got="a run whose intermediate data is gone",
            expected="the data that copies, thresholds and clusters are shown from",
            remedy="Keep it, or run its config again; or remove the file, and a shorter one is written",
        )
    content = gather(run)
    pictures = content.pictures()
    parts = run.curated.parts if run.curated else None
    with Originals(run.dataset_dir, parts, pictures) as originals:
        thumbnails = make_thumbnails(
            pictures, originals, config=run.config.describe.decode, max_bytes=max_thumbnail_bytes
        )
    _publish(run, path, render(content, thumbnails).encode())
    return path


def _publish(run: FinishedRun, path: str, page: bytes) -> None:
    """Replace the report. The manifest never lists one that is another: it first forgets the one that was."""
    run_dir = run.run_dir
    name = _forget(run_dir, run.manifest, path)
    storage.publish_bytes(path, page, replace=True)
    entry: Entry = {"path": name, "bytes": len(page), "sha256": hashlib.sha256(page).hexdigest()}
    write_manifest(run_dir, with_file(run.manifest, entry))


def _forget(run_dir: str, manifest: Manifest, path: str) -> str:
    """Let the manifest list no report; returns the name that it is listed under."""
    name = path.removeprefix(storage.join(run_dir, ""))
    if entry_of(manifest, name) is not None:
        write_manifest(run_dir, without_file(manifest, name))
    return name


def rewrite_report(run_dir: str) -> str:
    """Write the report of a run that is not going on; raises as `write_report` does.

    Raises:
        LockedError: a run is going on, which replaces the manifest too.
    """
    read_manifest(run_dir)  # to lock a folder makes it
    with lock(run_dir):
        try:
            return write_report(run_dir)
        except IntegrityError as error:
            if damaged_item(run_dir, error.path) is not None:  # the next run writes the report, and heals it
                manifest = read_manifest(run_dir)
                _forget(run_dir, manifest, report_path(run_dir, manifest))
            raise
