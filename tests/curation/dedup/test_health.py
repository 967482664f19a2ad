"""The health of components: by hand, against networks of plain Python, and in any batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from curation import schema
from curation.dedup import health as module
from curation.dedup.components import CopyRows, choose_representatives, components
from curation.dedup.edges import Edges, distinct, onto_roots, stars, strength
from curation.dedup.health import Health, component_edges, component_health, health_table
from curation.dedup.likeness import Likeness

KINDS = schema.EDGE_KINDS
THRESHOLDS = {"phash": 0.9, "cosine": 0.5}


def edges_of(rows: list[tuple[int, int, float, str]]) -> Edges:
    a, b, score, kind = zip(*rows, strict=True) if rows else ((), (), (), ())
    codes = [KINDS.index(name) for name in kind]
    return Edges(
        np.array(a, np.int64), np.array(b, np.int64), np.array(score, float), np.array(codes, np.int8)
    )


def measured(num_rows: int, pieces: list[Edges]) -> tuple[CopyRows, Health]:
    every = Edges.joined(pieces)
    copies = choose_representatives(components(num_rows, every.a, every.b), np.arange(num_rows))
    return copies, component_health(copies, pieces, num_rows=num_rows, thresholds=THRESHOLDS)


def test_by_hand():
    # A chain 0-1-2-3 with a weak hash edge; 4 equal to 0; a pair 5-6; an equal pair 7-8.
    pieces = [
        edges_of([(0, 1, 0.9, "phash"), (0, 1, 0.9, "cosine"), (1, 2, 0.96, "phash"), (7, 8, 1, "phash")]),
        edges_of([(2, 3, 0.52, "cosine"), (0, 4, 1, "cosine"), (5, 6, 0.91, "phash")]),
    ]
    copies, health = measured(10, pieces)
    assert copies.row.tolist() == list(range(9))
    assert health.size.tolist() == [5, 2, 2]
    assert health.distinct.tolist() == [4, 2, 1]
    assert health.diameter.tolist() == [3, 1, 0]
    assert health.diameter_is_exact.all()
    assert list(zip(health.end_a.tolist(), health.end_b.tolist(), strict=True)) == [(0, 3), (5, 6), (7, 7)]
    # By share of the threshold: 2-3 has 1.04 of its own, 1-2 has 1.07, 0-1 has 1.8 by its cosine.
    assert health.weakest.tolist() == [0.52, 0.91, 1.0]
    assert list(zip(health.weakest_a.tolist(), health.weakest_b.tolist(), strict=True)) == [
        (2, 3),
        (5, 6),
        (7, 8),
    ]
    assert [KINDS[kind] for kind in health.weakest_kind] == ["cosine", "phash", "phash"]


def test_alarm_by_hand():
    copies, health = measured(
        6, [edges_of([(0, 1, 0.6, "cosine"), (1, 2, 0.6, "cosine"), (4, 5, 0.6, "cosine")])]
    )
    members = Likeness(np.array([1, 0.6, 0.3, 1, 0.6]), np.array([np.inf, 1.2, 0.6, np.inf, 1.2]))
    ends = Likeness(np.array([0.3, 0.6]), np.array([0.6, 1.2]))
    table = health_table(health, copies=copies, members=members, ends=ends, alarm_below=0.85)
    assert table.schema == schema.HEALTH
    assert table["alarm"].to_pylist() == [True, False]
    assert table["least_row"].to_pylist() == [2, 5]
    assert table["least_score"].to_pylist() == [0.3, 0.6]
    assert table["ends_score"].to_pylist() == [0.3, 0.6]
    for bound in (None, 0.6):
        table = health_table(health, copies=copies, members=members, ends=ends, alarm_below=bound)
        assert table["alarm"].to_pylist() == [False, False]


def test_ends_that_are_not_alike_are_an_alarm_of_their_own():
    copies, health = measured(3, [edges_of([(0, 1, 0.6, "cosine"), (0, 2, 0.6, "cosine")])])
    alike = Likeness(np.array([1, 0.6, 0.6]), np.array([np.inf, 1.2, 1.2]))
    ends = Likeness(np.array([0.2]), np.array([0.4]))
    table = health_table(health, copies=copies, members=alike, ends=ends, alarm_below=0.85)
    assert (table["end_a"].to_pylist(), table["end_b"].to_pylist()) == ([1], [2])
    assert table["alarm"].to_pylist() == [True]


SCORES = st.sampled_from(
    [(1.0, "phash"), (1.0, "cosine"), (0.95, "phash"), (0.9, "phash"), (0.7, "cosine"), (0.5, "cosine")]
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19), SCORES), max_size=40),
    st.integers(0, 40),
    st.sampled_from([1, 5, 10**6]),
)
def test_equals_plain_python_in_any_batches(rows, cut, batch_edges):
    plain = [(min(a, b), max(a, b), *score) for a, b, score in rows if a != b]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_EDGES", batch_edges)
        copies, health = measured(20, [edges_of(plain[:cut]), edges_of(plain[cut:])])
    assert len(health.size) == len(np.unique(copies.component))
    for number in range(len(health.size)):
        members = copies.row[copies.component == number].tolist()
        expected = by_hand(members, [edge for edge in plain if edge[0] in members])
        got = (
            int(health.size[number]),
            int(health.distinct[number]),
            int(health.diameter[number]),
            int(health.weakest_a[number]),
            int(health.weakest_b[number]),
            float(health.weakest[number]),
        )
        assert got == expected


def by_hand(
    members: list[int], edges: list[tuple[int, int, float, str]]
) -> tuple[int, int, int, int, int, float]:
    root = {row: row for row in members}
    for _ in members:
        for a, b, score, _kind in edges:
            if score == 1:
                root[a] = root[b] = min(root[a], root[b])
    best: dict[tuple[int, int], tuple[float, int, int, int, float]] = {}
    for a, b, score, kind in edges:
        pair = (min(root[a], root[b]), max(root[a], root[b]))
        if pair[0] != pair[1]:
            mine = (-score / THRESHOLDS[kind], a, b, KINDS.index(kind), score)
            best[pair] = min(best.get(pair, mine), mine)
    nodes = sorted(set(root.values()))
    place = {row: i for i, row in enumerate(nodes)}
    graph = coo_array(
        (np.ones(len(best)), ([place[a] for a, _ in best], [place[b] for _, b in best])),
        shape=(len(nodes), len(nodes)),
    )
    apart = shortest_path(graph.tocsr(), directed=False, unweighted=True)
    if best:
        weakest = min((-strong, a, b, score) for strong, a, b, _, score in best.values())[1:]
    else:
        weakest = (*min((a, b) for a, b, score, _ in edges if score == 1), 1.0)
    return (len(members), len(nodes), int(apart.max()), *weakest)


def test_edges_between_components_that_were_cut_do_not_count():
    edges = edges_of([(0, 1, 0.9, "cosine"), (1, 2, 0.6, "cosine"), (2, 3, 0.9, "cosine")])
    copies = choose_representatives(np.array([0, 0, 2, 2]), np.arange(4))
    health = component_health(copies, [edges], num_rows=4, thresholds=THRESHOLDS)
    assert health.weakest.tolist() == [0.9, 0.9]
    assert health.diameter.tolist() == [1, 1]
    [batch] = component_edges(copies, [edges], num_rows=4, wanted=np.array([False, True]))
    assert batch.edges.a.tolist() == [2]


def test_nothing():
    copies, health = measured(3, [])
    assert len(health.size) == 0
    none = Likeness(np.zeros(0), np.zeros(0))
    table = health_table(health, copies=copies, members=none, ends=none, alarm_below=0.5)
    assert table.schema == schema.HEALTH


def test_edges_move_onto_the_smallest_of_equal_rows():
    # 1 = 3 = 5 by this kind; which of them an edge was found on is an accident of blocks.
    roots = np.array([0, 1, 2, 1, 4, 1])
    moved = onto_roots(
        edges_of([(0, 3, 0.7, "cosine"), (0, 5, 0.7, "cosine"), (1, 5, 1, "cosine"), (3, 4, 0.6, "cosine")]),
        roots,
    )
    assert list(zip(moved.a.tolist(), moved.b.tolist(), moved.score.tolist(), strict=True)) == [
        (0, 1, 0.7),
        (1, 4, 0.6),
    ]
    star = stars("cosine", roots)
    assert (star.a.tolist(), star.b.tolist(), star.score.tolist()) == ([1, 1], [3, 5], [1.0, 1.0])
    strongest = distinct(edges_of([(0, 1, 0.6, "cosine"), (0, 1, 0.8, "cosine")]))
    assert strongest.score.tolist() == [0.8]
    assert strength(
        edges_of([(0, 1, 0.6, "cosine"), (0, 1, 1, "phash"), (0, 1, 0.9, "phash")]), THRESHOLDS
    ).tolist() == [1.2, np.inf, 1]
