"""Edges by pixels make no chain: what stays with a representative over them is a copy of it directly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_poor_hashes import dropped, lineage, save

from curation.dedup.config import DedupConfig
from curation.dedup.edges import Edges
from curation.dedup.likeness import Likeness
from pipelines.stages.copies.components import component_labels


def greys(levels: Sequence[int]) -> dict[str, Image.Image]:
    return {f"g{level:03}": Image.new("RGB", (64, 64), (level,) * 3) for level in levels}


def level(key: str) -> int:
    return int(key[1:4])


def test_greys_do_not_lead_from_black_to_white(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "pool", greys(range(0, 256, 5)))
    found = dropped(lineage(tmp_path, rows_of, run_quietly))
    assert found
    assert all(abs(level(key) - level(by)) <= 5 for key, _, by in found)
    again = tmp_path / "again"
    settings = ("dedup.block_rows=5", f"run_dir={again}")
    assert dropped(lineage(tmp_path, lambda *_: rows_of(again, "lineage"), run_quietly, *settings)) == found


def test_a_leak_does_not_spread_from_black_to_white(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "pool", greys(range(100, 180, 5)))
    save(tmp_path / "holdout", greys([100]))
    settings = (
        *("describe.descriptor=gist", "dedup.cosine_threshold=0.95", "decontaminate.by=component"),
        "decontaminate.component_threshold=0.96",
    )
    found = dropped(lineage(tmp_path, rows_of, run_quietly, *settings))
    leaks = {level(key) for key, reason, _ in found if reason == "leaks_holdout"}
    assert {100, 105} <= leaks
    assert max(leaks) <= 105 + 2 * 5  # a copy of what leaks, or of its representative


class Alike:
    """Knows which rows are copies directly, and compares no others; all by their pixels."""

    def __init__(self, *pairs: tuple[int, int]) -> None:
        self._pairs = {frozenset(pair) for pair in pairs}

    def compare(self, rows: np.ndarray, others: np.ndarray) -> Likeness:
        pairs = zip(rows.tolist(), others.tolist(), strict=True)
        alike = np.array([a == b or frozenset((a, b)) in self._pairs for a, b in pairs], float)
        return Likeness(alike, alike)

    def compares_pixels(self, rows: np.ndarray) -> np.ndarray:
        return rows != 0  # the first one's hash knows enough


@pytest.mark.parametrize(
    ("by_hash", "by_pixels", "expected"),
    [
        ([], [(0, 1), (1, 2), (2, 3)], [0, 0, 2, 2]),
        ([(0, 1), (1, 2), (2, 3)], [], [0, 0, 0, 0]),  # such chains are told, and cut where that is set
        ([(0, 1)], [(1, 2), (2, 3)], [0, 0, 2, 2]),  # 2 and the first cannot be compared at all
        ([(0, 1), (2, 3)], [(1, 2)], [0, 0, 2, 2]),
        ([(0, 1), (1, 2)], [(2, 3)], [0, 0, 0, 3]),
    ],
)
def test_chains_of_two_kinds(
    by_hash: list[tuple[int, int]], by_pixels: list[tuple[int, int]], expected: list[int]
) -> None:
    edges = [
        Edges.of_kind(kind, *np.array(pairs, np.int64).reshape(-1, 2).T, np.full(len(pairs), 0.95))
        for kind, pairs in (("phash", by_hash), ("pixels", by_pixels))
    ]
    comparer: Any = Alike(*by_hash, *by_pixels)
    labels, num_cut = component_labels(edges, comparer, rank=np.arange(4), rule=DedupConfig())
    assert labels.tolist() == expected
    assert num_cut == int(expected != [0] * 4)
