"""The report of a run: one self-contained HTML page beside the dataset."""

from curation import storage
from curation.errors import ConfigError
from pipelines.report.content import gather
from pipelines.report.evidence import read_evidence
from pipelines.report.render import render
from pipelines.report.thumbnails import PAGE_BYTES, Originals, make_thumbnails
from pipelines.stages.dataset import report_path

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
    evidence = read_evidence(run_dir)
    path = report_path(run_dir, evidence.manifest)
    if evidence.steps is None and storage.exists(path) and WHOLE.encode() in storage.read_bytes(path):
        raise ConfigError(
            f"{path} shows more than can be written anew",
            got="a run whose intermediate data is gone",
            expected="the data that copies, thresholds and clusters are shown from",
            remedy="Keep the report as it is; or remove the file, and a shorter one is written",
        )
    content = gather(evidence)
    pictures = content.pictures()
    parts = evidence.steps.parts if evidence.steps else None
    with Originals(evidence.dataset_dir, parts, pictures) as originals:
        thumbnails = make_thumbnails(
            pictures, originals, config=evidence.config.describe.decode, max_bytes=max_thumbnail_bytes
        )
    storage.publish_bytes(path, render(content, thumbnails).encode(), replace=True)
    return path
