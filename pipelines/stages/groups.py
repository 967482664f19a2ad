"""Runs of parts, where a single one is too little work for a step's item."""

from collections.abc import Sequence

from pipelines.parts import Part
from pipelines.step import digest_of


def make_groups(parts: Sequence[Part], part_rows: Sequence[int], *, rows: int) -> list[tuple[Part, ...]]:
    """Cut parts into runs of at least `rows` rows; the last may have fewer.

    Args:
        parts: in order.
        part_rows: rows of each that count.
        rows: a run closes once it has so many.
    """
    groups: list[tuple[Part, ...]] = []
    run: list[Part] = []
    num_rows = 0
    for part, own in zip(parts, part_rows, strict=True):
        run.append(part)
        num_rows += own
        if num_rows >= rows:
            groups.append(tuple(run))
            run, num_rows = [], 0
    return [*groups, tuple(run)] if run else groups


def group_digest(group: Sequence[Part]) -> str:
    """Hash of which parts of the run a group has."""
    return digest_of(group[0].number, group[-1].number)
