"""One unit of a source is staged, by the kind of the source."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from curation import storage
from curation.ingest.imagefolder import folder_version, imagefolder_images
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import FoundRows, rows_table
from curation.ingest.sources import (
    FolderSource,
    HuggingFaceSource,
    ParquetSource,
    Source,
    TarSource,
    UrlSource,
    WarcSource,
)
from curation.ingest.staging import Place, StagedImage, stage_images
from curation.ingest.tables.arrow_images import arrow_images
from curation.ingest.tables.parquet_images import parquet_images
from curation.ingest.tars.unpack import unpack_tar
from curation.ingest.units import Unit, is_parquet
from curation.ingest.web.img_links import linked_images
from curation.ingest.web.stage_urls import (
    WebImage,
    count_failed,
    download_settings,
    fetch_images,
    listed_images,
    opt_out_settings,
)
from curation.ingest.web.warc_images import warc_images


def stage_unit(source: Source, unit: Unit, place: Place, *, before: pa.Table | None) -> FoundRows:
    """Write a unit's images into tars, and say where each lies.

    Args:
        unit: what to read; a file that is no longer the one that was listed is not read.
        before: what the unit gave when it was last asked, where that is why it is asked again.

    Raises:
        ConfigError: when the unit is not what the source's settings say.
    """
    if problem := _changed(source, unit):
        return FoundRows(rows_table([]), [problem], [], count_again([problem]))
    file, findings = unit.file, Findings()
    images: Iterator[StagedImage]
    match source:
        case FolderSource():
            raise AssertionError("the files of a folder have ranges of their own")
        case TarSource():
            return unpack_tar(file, source, place)
        case UrlSource():
            rows = (unit.first, unit.stop, unit.offset)
            listed = listed_images(file, source, rows=rows, findings=findings)
            return _fetched(listed, source, unit, place, before=before, findings=findings)
        case WarcSource(take="links"):
            links = linked_images(file, source, findings=findings)
            return _fetched(links, source, unit, place, before=before, findings=findings)
        case WarcSource():
            images = warc_images(file, source, findings=findings)
        case HuggingFaceSource() if _is_folder(unit):
            images = imagefolder_images(file, source, findings=findings)
        case HuggingFaceSource() if not is_parquet(file):
            images = arrow_images(file, source, findings=findings)
        case ParquetSource() | HuggingFaceSource():
            images = parquet_images(file, source, first=unit.first, stop=unit.stop, findings=findings)
    table = stage_images(images, place, version=file.version, max_image_bytes=source.max_image_bytes)
    return FoundRows(table, findings.problems, findings.notes, count_again(findings.problems))


def _fetched(
    images: Iterator[WebImage],
    source: UrlSource | WarcSource,
    unit: Unit,
    place: Place,
    *,
    before: pa.Table | None,
    findings: Findings,
) -> FoundRows:
    """What is fetched from the web; a row that failed may be asked for again."""
    fetched = fetch_images(images, source.download, place, before=before)
    limit = source.download.max_image_bytes
    table = stage_images(fetched, place, version=unit.file.version, max_image_bytes=limit)
    num_again = count_again(findings.problems) + count_failed(table)
    return FoundRows(table, findings.problems, findings.notes, num_again)


def staged_settings(source: Source) -> dict[str, object]:
    """What of a source's settings changes what is staged of a unit, as plain data.

    Not the path: a wider pattern finds the same files; nor links, but for what of an imagefolder is read
    when it is staged. Of the settings of downloads, those that say what is left out, and not how fast or how
    patiently the rest is asked for.
    """
    plain = source.model_dump(mode="json")
    settings = {name: value for name, value in plain.items() if name not in ("path", "unit_rows", "download")}
    if not isinstance(source, HuggingFaceSource):
        del settings["links"]
    match source:
        case UrlSource() | WarcSource(take="links"):
            settings["download"] = download_settings(source.download)
        case WarcSource():
            settings["download"] = opt_out_settings(source.download)
    return settings


def _is_folder(unit: Unit) -> bool:
    return unit.file.key.endswith("/")


def _changed(source: Source, unit: Unit) -> Problem | None:
    """Whether another file lies there by now: rows were cut, and keys named, by the one that was listed."""
    path = unit.file.path
    try:
        if isinstance(source, HuggingFaceSource) and _is_folder(unit):
            version = folder_version(source, unit.file)
        else:
            version = storage.stat(path).version
    except OSError as error:
        return Problem(path, "unreadable", str(error))
    if version == unit.file.version:
        return None
    detail = f"version {version}, and {unit.file.version} was listed; --refresh lists it again"
    return Problem(path, "changed", detail)


def count_again(problems: Sequence[Problem]) -> int:
    """How many of the problems another try may mend."""
    return sum(problem.what == "unreadable" for problem in problems)
