"""A unit of a list of URLs is fetched, and given out as images to be staged.

What asks, with aiohttp of the extra `web`, is imported once there is something to fetch.
"""

import contextlib
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings
from curation.ingest.rows import ImageRow, as_text
from curation.ingest.sidecars import StoredFile
from curation.ingest.sources import UrlSource
from curation.ingest.staging import Place, StagedImage
from curation.ingest.tables.row_values import name_of, row_sidecars
from curation.ingest.web.blocked_domains import read_blocked
from curation.ingest.web.download_config import MAX_UNIT_BYTES, MAX_URL_CHARS, DownloadConfig
from curation.ingest.web.robots import product_token
from curation.ingest.web.text_lists import ListRow
from curation.ingest.web.url_lists import list_rows
from curation.packages import needing
from curation.printed import redact_link

# Reasons of rows that a later run asks for again: the others will not change by themselves.
MAY_SUCCEED_LATER = frozenset(("http_error", "connection_failed", "timeout", "unit_full"))
# Fetched at once, where a unit has more: so many, with so many bytes beside them.
_BATCH_URLS = 10_000
_BATCH_SIDECAR_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class WebImage:
    """An image to be fetched."""

    key: str
    url: str | None  # None: of a row that cannot be read
    sidecars: Mapping[str, bytes]
    reason: str | None = None  # why it is not asked for


def listed_images(
    info: storage.FileInfo, source: UrlSource, *, rows: tuple[int, int | None, int], findings: Findings
) -> Iterator[WebImage]:
    """The images of some rows of a list.

    Where a column names the rows, names may come again: `with_unique_keys` tells them apart, over all units.

    Args:
        rows: the first, the one before which they end (None: to the end), and the byte of the first.
    """
    first, stop, offset = rows
    with contextlib.closing(list_rows(info, source, start=(first, offset), findings=findings)) as listed:
        for row in listed:
            if stop is not None and row.number >= stop:
                return
            yield _web_image(row, info, source, findings=findings)


def _web_image(row: ListRow, info: storage.FileInfo, source: UrlSource, *, findings: Findings) -> WebImage:
    values = dict(row.values)
    named = values.get(source.key) if source.key is not None else None
    name = name_of(named, row.number, place=info.path, findings=findings)
    if source.columns is not None:
        values = {column: values.get(column) for column in source.columns}
    place = (info.path, f"row {row.number}")
    sidecars = row_sidecars(values or None, place, max_bytes=source.max_sidecar_bytes, findings=findings)
    key = f"{source.key_prefix}{as_text(info.key)}/{name}"
    if row.url is not None and len(row.url) > MAX_URL_CHARS and len(row.url.strip(" ")) > MAX_URL_CHARS:
        return WebImage(key, row.url.strip(" ")[:MAX_URL_CHARS], {}, "bad_url")
    return WebImage(key, row.url, sidecars)


def fetch_images(
    images: Iterable[WebImage], config: DownloadConfig, place: Place, *, before: pa.Table | None
) -> Iterator[StagedImage | ImageRow]:
    """Fetch images, in the order in which they come.

    A URL that comes again is `repeated_url`. Of what was asked before, only rows with a reason in
    `MAY_SUCCEED_LATER` are asked again; the others are given back as they are. After
    `MAX_UNIT_BYTES` of new images the rest is `unit_full`.

    Args:
        place: where the images are staged; beside it lie the files by which workers share the hosts' limits.
        before: what the same images gave when they were last asked, in the same order; rows of
            `schema.IMAGES`.

    Raises:
        ConfigError: when aiohttp is not installed, or a list of blocked domains cannot be read.
    """
    known = before.to_pylist() if before is not None else []
    seen: set[bytes] = set()
    start, left = 0, max(MAX_UNIT_BYTES, config.max_image_bytes)
    for batch in _batches(images):
        asked = known[start : start + len(batch)]
        for image in _fetch_batch(batch, config, place, before=asked, seen=seen, max_bytes=left):
            num_bytes = _num_bytes(image)
            if isinstance(image, StagedImage) and num_bytes > left:
                yield replace(image, data=None, reason="unit_full", sidecars={})
                left = 0
            else:
                yield image
                left -= num_bytes
        start += len(batch)


def _num_bytes(image: StagedImage | ImageRow) -> int:
    """What an image adds to its unit."""
    if isinstance(image, ImageRow) or not isinstance(image.data, bytes):
        return 0
    return len(image.data) + sum(map(len, image.sidecars.values()))


def _batches(images: Iterable[WebImage]) -> Iterator[list[WebImage]]:
    batch: list[WebImage] = []
    held = 0
    for image in images:
        num_bytes = sum(map(len, image.sidecars.values()))
        if batch and (len(batch) == _BATCH_URLS or held + num_bytes > _BATCH_SIDECAR_BYTES):
            yield batch
            batch, held = [], 0
        batch.append(image)
        held += num_bytes
    if batch:
        yield batch


def _fetch_batch(
    batch: Sequence[WebImage],
    config: DownloadConfig,
    place: Place,
    *,
    before: Sequence[Mapping[str, Any]],
    seen: set[bytes],
    max_bytes: int,
) -> Iterator[StagedImage | ImageRow]:
    # What could not be read to its end the last time has rows now that were never asked for.
    verdicts = [_verdict(image, row, seen) for image, row in zip_longest(batch, before)]
    wanted = [image.url or "" for image, verdict in zip(batch, verdicts, strict=True) if verdict is None]
    fetched = _download(wanted, config, place, max_bytes=max_bytes)
    for image, verdict in zip(batch, verdicts, strict=True):
        uri = redact_link(as_text(image.url or "").strip())[:MAX_URL_CHARS]
        if isinstance(verdict, ImageRow):
            yield verdict._replace(uri=uri)
        elif verdict is not None:
            yield StagedImage(image.key, uri, None, verdict)
        else:
            found = next(fetched)
            sidecars = image.sidecars if found.reason is None else {}
            yield StagedImage(image.key, uri, found.data, found.reason, sidecars)


def _verdict(image: WebImage, before: Mapping[str, Any] | None, seen: set[bytes]) -> ImageRow | str | None:
    """The row of before, a reason, or None for an image that is to be fetched."""
    url = (image.url or "").strip(" ")
    digest = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    is_repeated = digest in seen
    if url and image.reason is None:  # what one page forbids, another may still show
        seen.add(digest)
    is_known = before is not None and before["key"] == image.key
    if before is not None and is_known and before["reason"] not in MAY_SUCCEED_LATER:
        sidecars = [
            (s["name"], StoredFile(s["name"], s["path"], s["offset"], s["num_bytes"]))
            for s in before["sidecars"]
        ]
        return ImageRow(**{**before, "sidecars": sidecars})
    if image.reason is not None or not url:
        return image.reason or "bad_url"
    return "repeated_url" if is_repeated else None


def _download(urls: Sequence[str], config: DownloadConfig, place: Place, *, max_bytes: int) -> Iterator[Any]:
    install = "On every machine: pip install 'lvd[web]'"
    with needing("Images are fetched from the web with aiohttp", install=install):
        from curation.ingest.web.download import Downloads, download
    blocked, _ = _blocked(_list_files(config))
    return download(urls, config, Downloads(place.out.parent, blocked, max_bytes=max_bytes))


def _list_files(config: DownloadConfig) -> tuple[storage.FileInfo, ...]:
    try:
        return tuple(storage.stat(path) for path in config.blocked_domains)
    except OSError as error:
        raise ConfigError(
            "A list of blocked domains is not there",
            got=error,
            expected="a text file with a domain a line",
            remedy="Check `blocked_domains` of the source's `download`",
        ) from error


@functools.lru_cache(maxsize=4)
def _blocked(files: tuple[storage.FileInfo, ...]) -> tuple[frozenset[str], str]:
    return read_blocked([file.path for file in files])


def count_failed(table: pa.Table) -> int:
    """How many rows a later run may ask for again."""
    return sum(reason in MAY_SUCCEED_LATER for reason in table["reason"].to_pylist())


def download_settings(config: DownloadConfig) -> dict[str, object]:
    """What of the settings of downloads changes which images there are: what is left out of them.

    The names of the lists of blocked domains do not, what stands in them does.
    """
    settings = config.model_dump(mode="json", include={"honour_robots", "allow_private", "max_image_bytes"})
    return {**settings, **opt_out_settings(config), "blocked": _blocked(_list_files(config))[1]}


def opt_out_settings(config: DownloadConfig) -> dict[str, object]:
    """What decides whom headers, and robots.txt, keep out: of a user agent, the name that they address."""
    return {"honour_opt_outs": config.honour_opt_outs, "product": product_token(config.user_agent)}
