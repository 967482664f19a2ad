"""Runs of parts, where a single one is too little work for a step's item."""

from collections.abc import Sequence

from curation.runs import batches
from pipelines.rows.parts import Part


def make_groups(parts: Sequence[Part], part_rows: Sequence[int], *, rows: int) -> list[tuple[Part, ...]]:
    """Cut parts into runs of at least `rows` rows; the last may have fewer.

    Args:
        parts: in order.
        part_rows: rows of each that count.
        rows: a run closes once it has so many.
    """
    runs = batches(zip(parts, part_rows, strict=True), size=lambda of_part: of_part[1], least=rows)
    return [tuple(part for part, _ in run) for run in runs]
