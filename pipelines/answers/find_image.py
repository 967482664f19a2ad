"""Finds images of a finished run by key, URI or id, and says what comes near where there is none."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import ConfigError
from curation.ingest.rows import as_text
from curation.printed import redact_link, redact_url
from pipelines.answers.finished_run import FinishedRun
from pipelines.rows.arrow_columns import places_of, places_with_prefix

MAX_MATCHES = 20
MIN_ID_DIGITS = 6
# Names are compared letter by letter with so many others at most: 0.2 s.
MAX_COMPARED = 20_000
NUM_NEAR = 5

_NAMES = ["pool", "key", "image_id"]


@dataclass(frozen=True)
class Found:
    """An image: its global row, and its row of the lineage."""

    row: int
    lineage: Mapping[str, Any]


def find_images(run: FinishedRun, asked: str, *, pool: str | None = None) -> list[Found]:
    """Every image whose key, pool/key or URI is `asked`, or whose id begins with it; at most `MAX_MATCHES`.

    Raises:
        ConfigError: there is none; names what comes near.
    """
    asked = as_text(asked)  # a name that is not UTF-8 stands so in the lineage
    found: list[int] = []
    shown = redact_link(asked.strip())  # as the lineage has what stood in a list of URLs
    is_uri = "://" in asked or asked.startswith("/") or shown != asked
    columns = [*_NAMES, "uri"] if is_uri else _NAMES
    for offset, table in run.lineage.tables(columns):
        if not _is_of(table, pool):
            continue
        match = set(places_of(table["key"], asked))
        if is_uri:
            for name in {redact_url(asked), shown}:
                match |= set(places_of(table["uri"], name))
        first, _, key = asked.partition("/")
        if key and _is_of(table, first):
            match |= set(places_of(table["key"], key))
        if len(asked) >= MIN_ID_DIGITS and _is_hex(asked):
            match |= set(places_with_prefix(table["image_id"], asked.lower()))
        found += [offset + place for place in sorted(match)[: MAX_MATCHES - len(found)]]
    if not found:
        raise _nothing(run, asked, pool=pool)
    return [Found(row, lineage) for row, lineage in run.lineage.at(found).items()]


def rows_of_id(run: FinishedRun, image_id: str) -> Iterator[int]:
    """Global rows of the images of an id, which have the same bytes."""
    for offset, table in run.lineage.tables(["image_id"]):
        yield from (offset + place for place in places_of(table["image_id"], image_id))


def _is_of(table: pa.Table, pool: str | None) -> bool:
    """Whether a file of the lineage, which has the images of one part, is of the pool."""
    return pool is None or (len(table) > 0 and table["pool"][0].as_py() == pool)


def _is_hex(text: str) -> bool:
    return not set(text.lower()) - set("0123456789abcdef")


def _nothing(run: FinishedRun, asked: str, *, pool: str | None) -> ConfigError:
    if pool is not None and pool not in run.pools:
        return no_pool(run, pool)
    near = near_names(run, asked, pool=pool)
    return ConfigError(
        f"No image {redact_link(asked)!r} in {run.run_dir}" + (f", pool {pool}" if pool else ""),
        expected="a key as in the listing (the path below the source), POOL/KEY, a URL or path, or "
        f"{MIN_ID_DIGITS} digits of an image id",
        remedy=f"Near it: {', '.join(near)}" if near else "",
    )


def no_pool(run: FinishedRun, pool: str) -> ConfigError:
    """The error for a pool that the run does not have."""
    return ConfigError(f"{run.run_dir} has no pool {pool!r}", expected=f"one of {', '.join(run.pools)}")


def near_names(run: FinishedRun, asked: str, *, pool: str | None = None) -> list[str]:
    """Names that somebody may have meant: `pool/key` with the same file name in it, or spelled alike; an id
    that begins alike.
    """
    stem = asked.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    alike: list[str] = []
    others: dict[str, str] = {}  # file name → pool/key
    for _, table in run.lineage.tables(_NAMES):
        if not _is_of(table, pool):
            continue
        if len(stem) >= 3:
            hit = pc.match_substring(table["key"], stem, ignore_case=True)
            alike += _labels(table.filter(hit).slice(0, NUM_NEAR))
        if _is_hex(asked) and len(asked) >= 4:
            begins = places_with_prefix(table["image_id"], asked[:4].lower())
            alike += [f"id {table['image_id'][place].as_py()}" for place in begins[:NUM_NEAR]]
        if len(others) < MAX_COMPARED:
            rest = table.slice(0, MAX_COMPARED - len(others))
            keys = [key.rsplit("/", 1)[-1] for key in rest["key"].to_pylist()]
            others |= dict(zip(keys, _labels(rest), strict=True))
        if len(alike) >= NUM_NEAR:
            return alike[:NUM_NEAR]
    if not alike:
        close = difflib.get_close_matches(asked.rsplit("/", 1)[-1], others, n=NUM_NEAR, cutoff=0.7)
        alike = [others[name] for name in close]
    return alike


def _labels(table: pa.Table) -> list[str]:
    pools, keys = table["pool"].to_pylist(), table["key"].to_pylist()
    return [f"{pool}/{key}" for pool, key in zip(pools, keys, strict=True)]
