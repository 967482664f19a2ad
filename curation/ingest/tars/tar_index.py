"""A tar of samples becomes rows of the `images` table: one row an image, its bytes a range of the tar."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation import local_reads, storage
from curation.hidden import is_hidden
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import FoundRows, ImageRow, as_text, rows_table
from curation.ingest.sidecars import (
    Paired,
    SidecarRule,
    StoredFile,
    left_out_note,
    limit_sidecars,
    pair_sidecars,
    sample_key,
)
from curation.ingest.sources import TarSource
from curation.ingest.tars.tar_format import ReadAt, TarWalk
from curation.ingest.tars.tar_samples import Samples, group_samples
from curation.ingest.tars.zero_runs import skip_hole
from curation.ingest.unique_names import UniqueNames

_ATTEMPTS = 3  # at a tar that cannot be read, before it is reported


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A compressed tar's plain bytes: where they lie now, and the path by which rows are to name them."""

    local_path: str
    num_bytes: int
    path: str


def index_tar(info: storage.FileInfo, source: TarSource, *, unpacked: Unpacked | None = None) -> FoundRows:
    """Index a tar by its headers.

    A row's key is `key_prefix`, the tar's key, a slash and the member's name with its extension: nothing is
    merged, whatever dots a name has, and equal names in two tars differ. A name that comes again in one tar
    gets `#2`, `#3`, … Rows are in the order of their names, folder by folder, as in a folder's listing.

    Members that are hidden (`curation.hidden`) are no rows.

    Which members form a sample `tar_samples.py` says, and `sidecars.py` which of its images has which
    sidecars. Those that have no image become one row with the reason `missing_image`. A member over
    `max_member_bytes` is a row with `file_too_large`, an image that the tar's end cuts off is one with
    `truncated`.

    Args:
        unpacked: its bytes, where the tar itself is compressed; keys, URIs and findings name the tar.

    Returns:
        Rows of `schema.IMAGES`; `problems` for what was not read, `notes` for what is merely odd.
    """
    plain = unpacked or Unpacked(info.path, info.num_bytes, info.path)
    for attempt in range(_ATTEMPTS):
        walk = TarWalk(info.path, plain.num_bytes)
        try:
            if storage.is_local(plain.local_path):
                _walk_here(walk, storage.local_path(plain.local_path), plain.num_bytes)
            else:
                with storage.open_stream(plain.local_path) as stream:
                    walk.run(_in_one_pass(stream, plain.local_path))
            break
        except OSError as error:  # what was found before is kept; the rest is named
            if attempt == _ATTEMPTS - 1 or isinstance(error, TimeoutError):
                walk.problems.append(Problem(info.path, "unreadable", str(error)))
                break
    table, notes = _index_members(walk, info, source, plain)
    return FoundRows(table, walk.problems, walk.notes + notes)


def _walk_here(walk: TarWalk, path: Path, size: int) -> None:
    """Walk a local tar; a header is a call to the disk, and it is their number that has to grow in time."""
    handle, _ = local_reads.in_time(path, lambda: local_reads.open_regular(path))
    num_calls, is_left = 0, False

    def count() -> None:
        nonlocal num_calls
        if is_left:
            raise OSError(errno.ETIMEDOUT, "nobody waits any more", str(path))
        num_calls += 1

    def skip(offset: int) -> int:
        count()
        return skip_hole(handle, offset, size)

    def read(offset: int, num_bytes: int) -> bytes:
        count()
        return _whole(os.pread(handle, num_bytes, offset), str(path), offset, num_bytes)

    try:
        local_reads.in_time(path, lambda: walk.run(read, skip), progress=lambda: num_calls)
    except BaseException as error:
        # Where nobody waits any more the handle stays open: the call may still be made.
        is_left = isinstance(error, TimeoutError) or not isinstance(error, Exception)
        if not is_left:
            os.close(handle)
        raise
    os.close(handle)


def _in_one_pass(stream: Any, path: str) -> ReadAt:  # a file of fsspec is no BinaryIO to a checker
    def read(offset: int, num_bytes: int) -> bytes:
        stream.seek(offset)  # forwards only, mostly within what was read ahead
        return _whole(stream.read(num_bytes), path, offset, num_bytes)

    return read


def _whole(data: bytes, path: str, offset: int, num_bytes: int) -> bytes:
    if len(data) != num_bytes:
        raise OSError(f"{storage.redact(path)} ends at {offset + len(data)}")
    return data


def _index_members(
    walk: TarWalk, info: storage.FileInfo, source: TarSource, plain: Unpacked
) -> tuple[pa.Table, list[Problem]]:
    rule = source.sidecar_rule
    shown = [member for member in walk.members if not is_hidden(member.name)]
    files = [StoredFile(m.name, plain.path, m.offset, m.num_bytes) for m in shown]
    if files and _is_torn(files[-1], plain) and rule.admits(files[-1].name, files[-1].num_bytes):
        files.pop()  # half a sidecar is none; the walk has named it
    samples = group_samples(files, rule)
    keys = UniqueNames()
    rows = []
    findings = Findings()
    for sample in samples.files:
        paired, is_alone, left_out = _pair(sample, rule)
        if left_out:
            findings.note(left_out_note(info.path, left_out, rule))
        for number, (file, sidecars) in enumerate(paired):
            missing = is_alone and number == len(paired) - 1
            reason = "missing_image" if missing else _reason(file, source, plain)
            name = keys.take(as_text(file.name))
            rows.append(
                ImageRow(
                    key=f"{source.key_prefix}{as_text(info.key)}/{name}",
                    uri=f"{storage.redact(info.path)}#{name}",
                    path=file.path,
                    offset=file.offset,
                    num_bytes=file.num_bytes,
                    version=info.version,
                    sidecars=[(as_text(extension), sidecar) for extension, sidecar in sidecars],
                    reason=reason,
                )
            )
    rows.sort(key=lambda row: row.key.split("/"))
    notes = _notes(walk, samples, num_shown=len(shown), num_repeated=keys.num_repeated)
    return rows_table(rows), [*findings.notes, *notes]


def _notes(walk: TarWalk, samples: Samples, *, num_shown: int, num_repeated: int) -> Iterator[Problem]:
    path = walk.path
    if num_hidden := len(walk.members) - num_shown:
        first = next(as_text(member.name) for member in walk.members if is_hidden(member.name))
        yield Problem(path, "hidden", f"{num_hidden} members are passed over, the first {first}")
    if num_repeated:
        detail = f"{num_repeated} members have a name that came before; all are kept"
        yield Problem(path, "duplicate_name", detail)
    if lost := samples.left_out:
        detail = (
            f"{len(lost)} sidecars, the first {lost[0].name[:200]!a}, may be of several images of one name, "
            "and are left out: each image's are to follow it"
        )
        yield Problem(path, "duplicate_name", detail)
    if num_split := samples.num_split:
        detail = f"the members of {num_split} samples are not adjacent; webdataset would tear them apart"
        yield Problem(path, "unsorted", detail)


def _pair(sample: list[StoredFile], rule: SidecarRule) -> tuple[list[Paired], bool, list[StoredFile]]:
    """Images with sidecars, last those that have no image, if there are any; and what is left out."""
    found = pair_sidecars(sample, rule)
    if not found.alone:
        return found.images, False, found.left_out
    skip = len(sample_key(found.alone[0].name)) + 1
    alone, beyond = limit_sidecars([(f.name[skip:], f) for f in found.alone], rule, num_images=1)
    return [*found.images, (found.alone[0], alone)], True, found.left_out + beyond


def _is_torn(file: StoredFile, plain: Unpacked) -> bool:
    return file.offset + file.num_bytes > plain.num_bytes


def _reason(file: StoredFile, source: TarSource, plain: Unpacked) -> str | None:
    if file.num_bytes > source.max_member_bytes:
        return "file_too_large"
    return "truncated" if _is_torn(file, plain) else None
