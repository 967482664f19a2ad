"""Saved edges decide the same however rows were cut into blocks, with and without a limit."""

from functools import partial
from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import storage
from curation.dedup.components import choose_representatives, components
from curation.dedup.edges import Edges, distinct
from curation.dedup.health import component_health
from curation.search.binary import hamming_pairs
from curation.search.collapse import collapsed_pairs
from curation.search.exact import cosine_pairs
from pipelines.stages.edges import DecidingEdges
from pipelines.stages.join import EdgeFile, edge_table
from pipelines.step import FileRef

NUM = 240
THRESHOLDS = {"phash": 1 - 3 / 64, "cosine": 0.9}


def rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and vectors around a few centres; a third are placeholders that are equal in one or both."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(2**64, size=12, dtype=np.uint64)[rng.integers(12, size=NUM)]
    hashes ^= np.left_shift(np.uint64(1), rng.integers(64, size=NUM).astype(np.uint64))
    vectors = rng.standard_normal((10, 8))[rng.integers(10, size=NUM)] + 0.15 * rng.standard_normal((NUM, 8))
    hashes[rng.random(NUM) < 0.3] = hashes[0]
    vectors[rng.random(NUM) < 0.3] = vectors[0]
    vectors[rng.random(NUM) < 0.05] = 0
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return hashes, (vectors / length).astype(np.float16)


def save(
    folder: Path, hashes: np.ndarray, vectors: np.ndarray, *, cuts: list[int], limit: int | None, floor: float
) -> list[EdgeFile]:
    """What a join of blocks between the cuts leaves."""
    bounds = [0, *cuts, NUM]
    blocks = list(pairwise(bounds))
    files = []
    for (i, j), (k, m) in combinations_with_replacement(blocks, 2):
        same = (i, j) == (k, m)
        near = hamming_pairs(hashes[i:j], hashes[k:m], radius=3, same=same, max_edges_per_row=limit)
        search = partial(cosine_pairs, threshold=floor, same=same, dtype="fp32", max_edges_per_row=limit)
        alike = collapsed_pairs(vectors[i:j], vectors[k:m], same=same, search=search)
        tables = [edge_table(p.a, p.b, p.score, kind=n) for n, p in (("phash", near), ("cosine", alike))]
        path = folder / f"{i}-{k}.parquet"
        storage.write_table(path, pa.concat_tables(tables).unify_dictionaries())
        sha256, num_bytes = storage.sha256_file(str(path))
        files.append(EdgeFile(FileRef(str(path), num_bytes, sha256), i, k))
    return files


def everything(edges: DecidingEdges) -> list[tuple[int, int, float]]:
    found = distinct(Edges.joined(list(edges)))
    return list(zip(found.a.tolist(), found.b.tolist(), found.score.tolist(), strict=True))


@pytest.mark.parametrize("limit", [None, 1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_cuts_into_blocks_and_the_floor_decide_nothing(seed: int, limit: int | None, tmp_path: Path) -> None:
    hashes, vectors = rows(seed)
    wanted = None
    for number, (cuts, floor) in enumerate([([], 0.9), ([50, 51, 200], 0.9), ([120], 0.6)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = save(folder, hashes, vectors, cuts=cuts, limit=limit, floor=floor)
        edges = DecidingEdges(files, THRESHOLDS, num_rows=NUM, max_edges_per_row=limit)
        every = Edges.joined(list(edges))
        copies = choose_representatives(components(NUM, every.a, every.b), np.arange(NUM))
        health = component_health(copies, edges, num_rows=NUM, thresholds=THRESHOLDS)
        found = everything(edges), copies.representative.tolist(), [x.tolist() for x in health.columns()]
        wanted = wanted or found
        assert found == wanted


def test_components_are_those_of_all_pairs(tmp_path: Path) -> None:
    hashes, vectors = rows(7)
    files = save(tmp_path, hashes, vectors, cuts=[70, 160], limit=None, floor=0.9)
    every = Edges.joined(list(DecidingEdges(files, THRESHOLDS, num_rows=NUM)))
    exact = vectors.astype(np.float64)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= 3
    a, b = np.nonzero(np.triu(near | (exact @ exact.T >= 0.9), 1))
    assert components(NUM, every.a, every.b).tolist() == components(NUM, a, b).tolist()


def test_without_edges(tmp_path: Path) -> None:
    assert everything(DecidingEdges([], THRESHOLDS, num_rows=3, max_edges_per_row=2)) == []
    hashes, vectors = np.arange(NUM).astype(np.uint64) << np.uint64(40), np.zeros((NUM, 4), np.float16)
    files = save(tmp_path, hashes * np.uint64(0x9E3779B97F4A7C15), vectors, cuts=[], limit=None, floor=0.9)
    DecidingEdges(files, {}, num_rows=NUM)
