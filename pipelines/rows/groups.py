"""Runs of parts, where a single one is too little work for a step's item."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import TypeVar

from curation.runs import batches
from pipelines.rows.parts import Part

P = TypeVar("P")


def make_groups(parts: Sequence[P], part_rows: Sequence[int], *, rows: int) -> list[tuple[P, ...]]:
    """Cut parts into runs of at least `rows` rows; the last may have fewer.

    Args:
        parts: in order.
        part_rows: rows of each that count.
        rows: a run closes once it has so many.
    """
    runs = batches(zip(parts, part_rows, strict=True), size=lambda of_part: of_part[1], least=rows)
    return [tuple(part for part, _ in run) for run in runs]


@dataclass(frozen=True)
class AlikeParts:
    """Consecutive parts of a pool, each of as many rows: a run that is only imagined may have millions."""

    pool: str
    num_parts: int
    num_rows: int  # of each


def alike_parts(parts: Iterable[Part]) -> tuple[AlikeParts, ...]:
    """Parts as they are, those that are alike together."""
    runs = groupby(parts, key=lambda part: (part.pool, part.num_rows))
    return tuple(AlikeParts(pool, sum(1 for _ in run), num_rows) for (pool, num_rows), run in runs)


def num_rows_of(parts: Iterable[AlikeParts]) -> int:
    """Rows of all parts."""
    return sum(alike.num_parts * alike.num_rows for alike in parts)


def num_groups(parts: Iterable[AlikeParts], *, rows: float) -> int:
    """How many groups `make_groups` cuts parts into; where a share of the rows counts, `rows` of all do."""
    counted, left, least = 0, list[int](), math.ceil(rows)
    for alike in parts:
        size, num = alike.num_rows, alike.num_parts if alike.num_rows else min(alike.num_parts, 1)
        if not num:
            continue
        of_group = len(next(batches(repeat(size, num), size=int, least=least)))
        # Alike parts make alike groups: but for the two at either end, which may hold others, none is cut.
        whole = max(0, num // of_group - 2)
        counted += whole
        left += [size] * (num - whole * of_group)
    return counted + len(make_groups(left, left, rows=least))
