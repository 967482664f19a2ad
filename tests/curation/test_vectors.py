import re
import subprocess
import sys

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from curation.cluster.config import HierarchyConfig
from curation.cluster.hierarchy import build_levels
from curation.cluster.kmeans import assign
from curation.cluster.kmeans import kmeans as kmeans_of_parts
from curation.errors import ConfigError
from curation.vectors import (
    balanced_sample,
    copies_among,
    hierarchy,
    kmeans,
    nearest_neighbours,
    unit_vectors,
)

pytestmark = pytest.mark.usefixtures("arithmetic")


def draw(num_rows: int, dim: int = 16, *, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_unit_vectors():
    found = unit_vectors(np.array([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0]]))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array([[0.6, 0.8], [0, 0], [1, 0]], np.float16))
    assert unit_vectors(np.zeros((0, 3), np.float32)).shape == (0, 3)


def test_unit_vectors_of_numbers_whose_squares_are_none():
    found = unit_vectors(np.array([[1e-200, 0], [1e200, 1e200], [-3e300, 4e300]]))
    np.testing.assert_array_equal(found, np.array([[1, 0], [0.5**0.5] * 2, [-0.6, 0.8]], np.float16))


def test_copies_by_hand():
    angle = np.radians([0, 90, 5, 10, 90, 200])  # 0 – 5 – 10 are a chain; two are equal; one is alone
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    found = copies_among(rows, threshold=float(np.cos(np.radians(6))))
    assert found.representative.tolist() == [0, 1, 0, 0, 1, 5]
    assert found.survivors.tolist() == [0, 1, 5]
    assert list(zip(found.edges.a, found.edges.b, strict=True)) == [(0, 2), (1, 4), (2, 3)]
    assert found.edges.score[1] == 1.0
    # Who is ranked first stays, and rows of zeros are nobody's copies.
    ranked = copies_among(rows, threshold=0.99, rank=np.array([5, 4, 3, 2, 1, 0]))
    assert ranked.representative.tolist() == [3, 4, 3, 3, 4, 5]
    assert copies_among(np.zeros((3, 4)), threshold=0.5).survivors.tolist() == [0, 1, 2]


def test_copies_are_the_components_of_scipy():
    rows = unit_vectors(np.repeat(draw(30), 4, axis=0) + 0.05 * draw(120, seed=1))
    found = copies_among(rows, threshold=0.97)
    cosine = rows.astype(np.float64) @ rows.astype(np.float64).T
    num_components, label = connected_components(csr_array(cosine >= 0.97))
    first = np.unique(label, return_index=True)[1]
    np.testing.assert_array_equal(found.representative, first[label])
    assert len(found.survivors) == num_components
    assert 30 <= num_components < 120


def test_kmeans_is_that_of_the_parts():
    rows = draw(500)
    found = kmeans(rows, num_clusters=12, seed=3)
    stored = rows.astype(np.float16)
    fitted = kmeans_of_parts([lambda: stored[:100], lambda: stored[100:]], num_clusters=12, seed=3)
    cluster, score = assign(stored, fitted.centroids)
    np.testing.assert_array_equal(found.centroids, fitted.centroids)
    np.testing.assert_array_equal(found.cluster, cluster)
    np.testing.assert_array_equal(found.score, score)
    assert found.parents == ()
    assert len(kmeans(rows).centroids) == 50  # the default of a run: at most n / 10
    np.testing.assert_array_equal(kmeans(rows.astype(np.float64), num_clusters=12, seed=3).cluster, cluster)


def test_hierarchy_is_that_of_the_levels():
    rows = draw(400)
    found = hierarchy(rows, [10, 3], num_clusters=40, seed=5)
    flat = kmeans(rows, num_clusters=40, seed=5)
    rule = HierarchyConfig.model_validate({"levels": [{"num_clusters": 10}, {"num_clusters": 3}]})
    levels = build_levels(flat.centroids, rule, seed=5)
    np.testing.assert_array_equal(found.cluster, flat.cluster)
    for parent, level in zip(found.parents, levels, strict=True):
        np.testing.assert_array_equal(parent, level.parent)
    np.testing.assert_array_equal(found.at_level(0), found.cluster)
    np.testing.assert_array_equal(found.at_level(2), levels[1].parent[levels[0].parent[flat.cluster]])


def test_leaves_are_splits_of_the_clusters():
    rows = draw(300)
    flat, found = kmeans(rows, num_clusters=8), hierarchy(rows, [5], num_clusters=8, splits=4)
    assert 8 < len(found.centroids) <= 32
    of_leaf = {}
    for leaf, cluster in zip(found.cluster.tolist(), flat.cluster.tolist(), strict=True):
        assert of_leaf.setdefault(leaf, cluster) == cluster
    exact = (rows.astype(np.float16).astype(np.float64) * found.centroids[found.cluster]).sum(axis=1)
    np.testing.assert_allclose(found.score, exact, atol=1e-6)


def test_a_sample_is_balanced():
    crowd, rare = draw(1, seed=1) + 0.05 * draw(300, seed=2), draw(1, seed=3) + 0.05 * draw(20, seed=4)
    clusters = kmeans(unit_vectors(np.concatenate([crowd, rare])), num_clusters=2)
    chosen = balanced_sample(clusters, 30)
    assert np.bincount(clusters.cluster[chosen]).tolist() == [15, 15]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, balanced_sample(clusters, 30))
    assert len(balanced_sample(clusters, 1000)) == 320
    nearest = balanced_sample(clusters, 2, order="closest")
    for cluster in range(2):
        of_it = np.flatnonzero(clusters.cluster == cluster)
        assert of_it[clusters.score[of_it].argmax()] in nearest


def test_neighbours_are_those_of_a_sort():
    queries, rows = draw(7), draw(200, seed=1)
    found = nearest_neighbours(queries, rows, k=5)
    cosine = queries.astype(np.float16).astype(np.float64) @ rows.astype(np.float16).astype(np.float64).T
    np.testing.assert_array_equal(found.index, np.argsort(-cosine, axis=1, kind="stable")[:, :5])
    np.testing.assert_array_equal(found.score, -np.sort(-cosine, axis=1)[:, :5])
    few = nearest_neighbours(queries, rows[:2], k=3)
    assert few.index[:, 2].tolist() == [-1] * 7
    assert nearest_neighbours(np.zeros((1, 16)), rows, k=1).index.tolist() == [[-1]]


# As in a notebook: where the tests' own checks of types are on, they refuse these arguments before.
NO_ARRAYS = """
import numpy as np
import curation

rows = np.eye(4, 16)
for ask in (
    lambda: curation.kmeans([[1.0, 0.0]], num_clusters=1),
    lambda: curation.copies_among(rows[0], threshold=0.9),
    lambda: curation.unit_vectors(np.eye(3, dtype=np.int64)),
    lambda: curation.hierarchy(np.array([[1.0, 0.0], [np.nan, 1.0]]), [2]),
    lambda: curation.nearest_neighbours(rows, rows[:, :8]),
    lambda: curation.copies_among(rows, threshold=0.9, rank=np.arange(3)),
    lambda: curation.balanced_sample(curation.kmeans(rows, num_clusters=2), 2, order="best"),
):
    try:
        print("taken", ask())
    except curation.ConfigError as error:
        print(error)
"""


def test_what_is_no_array_of_vectors():
    done = subprocess.run(
        [sys.executable, "-c", NO_ARRAYS], capture_output=True, text=True, check=True, timeout=60
    )
    said = (
        r"No array of vectors\. Got: list of no dtype, shape none\. .*np\.stack",
        r"No array of vectors\. Got: ndarray of float64, shape \(16,\)\. ",
        r"No array of vectors\. Got: ndarray of int64, shape \(3, 3\)\. Expected: .*float32",
        r"A vector is not finite\. Got: .* in row 1\. ",
        r"Queries and vectors of two kinds\. Got: 16 and 8 dimensions\. ",
        r"No order of survival\. Got: shape \(3,\), 3 different ranks for 4 vectors\. ",
        r"No order of a sample\. Got: best\. Expected: random or closest\.",
    )
    for line, pattern in zip(done.stdout.splitlines(), said, strict=True):
        assert re.match(pattern, line)


def test_what_cannot_be_meant():
    rows = draw(20)
    longer = rows.copy()
    longer[3] *= 1.5
    with pytest.raises(ConfigError, match=r"length 1\.5000 in row 3.*: 1 of 20.*unit_vectors"):
        copies_among(longer, threshold=0.9)
    rows_with_none = rows.copy()
    rows_with_none[0] = 0
    with pytest.raises(ConfigError, match="leave out rows of zeros"):
        kmeans(rows_with_none, num_clusters=2)
    with pytest.raises(ConfigError, match="more clusters than vectors"):
        kmeans(rows, num_clusters=21)
    with pytest.raises(ConfigError, match="number of clusters that is none"):
        kmeans(rows, num_clusters=0)
    for levels in ([], [3, 3], [3, 5]):
        with pytest.raises(ConfigError, match="No levels of a hierarchy"):
            hierarchy(rows, levels, num_clusters=10)
    with pytest.raises(ConfigError, match="no fewer clusters than the level below"):
        hierarchy(rows, [10], num_clusters=10)
    with pytest.raises(ConfigError, match="number of images that is none"):
        balanced_sample(kmeans(rows, num_clusters=2), 0)
    with pytest.raises(ConfigError, match="19 different ranks for 20 vectors"):
        copies_among(rows, threshold=0.9, rank=np.array([0, *range(19)]))
    with pytest.raises(ConfigError, match="no cosine"):
        copies_among(rows, threshold=1.5)


def test_no_vectors_have_no_copies_and_no_neighbours():
    none = np.zeros((0, 16), np.float32)
    assert copies_among(none, threshold=0.9).survivors.tolist() == []
    assert nearest_neighbours(draw(2), none, k=3).index.tolist() == [[-1] * 3] * 2
    with pytest.raises(ConfigError, match="more clusters than vectors"):
        kmeans(none)
