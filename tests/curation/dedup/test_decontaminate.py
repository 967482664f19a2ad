"""Which images leak, and what each names as its cause."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curation import schema
from curation.dedup.decontaminate import DecontaminateConfig, exact_leaks, leaks
from curation.dedup.edges import Edges

EXACT, PHASH, COSINE = (schema.EDGE_KINDS.index(kind) for kind in ("exact", "phash", "cosine"))


def edges_of(rows: list[tuple[int, int, float, int]]) -> Edges:
    row, holdout, score, kind = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Edges(
        np.array(row, np.int64), np.array(holdout, np.int64), np.array(score, float), np.array(kind, np.int8)
    )


def test_closest_holdout_image_by_hand():
    edges = edges_of(
        [
            (0, 10, 0.95, PHASH),
            (0, 11, 0.97, COSINE),
            (1, 10, 1.0, PHASH),
            (1, 11, 1.0003, COSINE),  # a cosine may exceed 1 by rounding; equal bytes still win
            (1, 12, 1.0, EXACT),
            (2, 11, 0.9, COSINE),
            (2, 10, 0.9, COSINE),
        ]
    )
    rank = np.arange(13)
    rank[[10, 11]] = [11, 10]
    table = leaks(edges, rank=rank)
    assert table.schema == schema.LEAKS
    assert table["row"].to_pylist() == [0, 1, 2]
    assert table["holdout"].to_pylist() == [11, 12, 11]
    assert table["kind"].to_pylist() == ["cosine", "exact", "cosine"]
    assert table["score"].to_pylist() == [0.97, 1.0, 0.9]
    assert table["by_component"].to_pylist() == [False] * 3


def test_a_component_goes_whole_by_hand():
    labels = np.array([0, 0, 0, 3, 4, 4, 6, 7])
    edges = edges_of([(1, 6, 0.8, COSINE), (2, 7, 0.9, COSINE), (3, 6, 0.7, PHASH)])
    table = leaks(edges, rank=np.arange(8), labels=labels, by="component")
    assert table.to_pylist() == [
        {"row": 0, "holdout": 7, "score": 0.9, "kind": "cosine", "by_component": True},
        {"row": 1, "holdout": 6, "score": 0.8, "kind": "cosine", "by_component": False},
        {"row": 2, "holdout": 7, "score": 0.9, "kind": "cosine", "by_component": False},
        {"row": 3, "holdout": 6, "score": 0.7, "kind": "phash", "by_component": False},
    ]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 9), st.integers(10, 14), st.sampled_from([0.5, 0.75, 1.0]), st.integers(0, 2)
        ),
        max_size=25,
        unique_by=lambda edge: (edge[0], edge[1], edge[3]),
    ),
    st.randoms(use_true_random=False),
)
def test_equals_a_plain_loop_in_any_order(rows, random):
    labels = np.array([0, 0, 0, 3, 3, 5, 6, 6, 6, 6, 10, 11, 12, 13, 14])
    strength = {EXACT: 0, COSINE: 1, PHASH: 2}
    ordered = sorted(rows, key=lambda edge: (-edge[2], strength[edge[3]], edge[1], edge[0]))
    expected = {}
    for row in range(10):
        own = [edge for edge in ordered if edge[0] == row]
        kin = [edge for edge in ordered if labels[edge[0]] == labels[row]]
        if kin:
            expected[row] = (*(own or kin)[0][1:], not own)
    for order in (rows, random.sample(rows, len(rows))):
        table = leaks(edges_of(order), rank=np.arange(15), labels=labels, by="component").to_pylist()
        got = {
            line["row"]: (
                line["holdout"],
                line["score"],
                schema.EDGE_KINDS.index(line["kind"]),
                line["by_component"],
            )
            for line in table
        }
        assert got == expected
        assert [line["row"] for line in table] == sorted(expected)


def test_equal_bytes_leak():
    codes = np.array([[1], [2], [1], [1], [3], [2], [4]], np.uint64).repeat(4, axis=1)
    is_holdout = np.array([False, False, True, True, True, False, False])
    edges = exact_leaks(codes, is_holdout=is_holdout, rank=np.array([0, 1, 5, 4, 2, 3, 6]))
    # Row 0 equals the holdout rows 2 and 3, of which 3 ranks first; 1 and 5 equal each other alone.
    assert edges.a.tolist() == [0]
    assert edges.b.tolist() == [3]
    table = leaks(edges, rank=np.arange(7))
    assert table["kind"].to_pylist() == ["exact"]


def test_config_and_nothing():
    assert leaks(edges_of([]), rank=np.arange(3)).num_rows == 0
    assert leaks(edges_of([]), rank=np.arange(3), labels=np.arange(3), by="component").num_rows == 0
    assert DecontaminateConfig().by == "image"
    with pytest.raises(ValidationError, match="by"):
        DecontaminateConfig.model_validate({"by": "pool"})
