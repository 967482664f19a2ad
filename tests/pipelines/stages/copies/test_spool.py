"""Edges sorted on a disk: those of memory, whatever is held at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.dedup.edges import Edges
from curation.dedup.health import sort_in_memory
from pipelines.stages.copies import spool

EDGE = st.tuples(st.integers(0, 2**40), st.integers(0, 2**40), st.floats(0, 1), st.integers(0, 3))


@given(
    st.lists(st.lists(st.tuples(EDGE, st.integers(0, 4)), max_size=6), max_size=5),
    st.sampled_from([1, 4, 100]),
)
def test_every_edge_comes_once_in_its_bucket_and_in_order(pieces, held):
    def arrays():
        for piece in pieces:
            a, b, score, kind = ([edge[i] for edge, _ in piece] for i in range(4))
            edges = Edges(np.array(a, int), np.array(b, int), np.array(score, float), np.array(kind, np.int8))
            yield edges, np.array([bucket for _, bucket in piece], int)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "_HELD_EDGES", held)
        found = list(spool.spooled(arrays(), 5))
    expected = list(sort_in_memory(arrays(), 5))
    assert len(found) == len(expected) == 5
    for one, other in zip(found, expected, strict=True):
        for name in ("a", "b", "score", "kind"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype
