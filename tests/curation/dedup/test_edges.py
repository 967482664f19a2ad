"""Edges as arrays: which of them decide, and how their kinds are written."""

import numpy as np

from curation.dedup.edges import Edges, distinct, kind_column
from curation.schema import EDGE_KINDS


def edges_of(*rows: tuple[int, int, float, str]) -> Edges:
    a, b, score, kind = zip(*rows, strict=True)
    codes = np.array([EDGE_KINDS.index(name) for name in kind], np.int8)
    return Edges(np.array(a), np.array(b), np.array(score, float), codes)


def test_an_edge_decides_from_the_threshold_of_its_kind_on() -> None:
    cosines = (0, 1, 0.9, "cosine"), (0, 2, 0.89, "cosine")
    edges = edges_of(*cosines, (1, 2, 0.9, "phash"), (3, 4, 1.0, "exact"))
    assert edges.reach({"cosine": 0.9, "phash": 0.95}).tolist() == [True, False, False, False]
    assert edges.reach({"phash": 0.9, "exact": 1.0}).tolist() == [False, False, True, True]
    assert not edges.reach({}).any()
    assert Edges.joined([]).reach({"cosine": 0.9}).tolist() == []


def test_a_pair_is_once_there_by_its_best_score() -> None:
    edges = edges_of((5, 9, 0.8, "phash"), (1, 2, 0.7, "cosine"), (5, 9, 0.9, "cosine"), (5, 8, 0.5, "phash"))
    found = distinct(edges)
    assert list(zip(found.a.tolist(), found.b.tolist(), found.score.tolist(), strict=True)) == [
        (1, 2, 0.7),
        (5, 8, 0.5),
        (5, 9, 0.9),
    ]


def test_kinds_are_words_in_a_table() -> None:
    edges = edges_of((0, 1, 0.9, "pixels"), (0, 2, 1.0, "exact"))
    assert kind_column(edges.kind).to_pylist() == ["pixels", "exact"]
