"""Saved edges decide the same however rows were cut into blocks, with and without a limit."""

from functools import partial
from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import pytest

from curation import storage
from curation.dedup.components import choose_representatives, components
from curation.dedup.edges import Edges, distinct
from curation.dedup.health import component_health
from curation.schema import EDGE_KINDS, EDGES
from curation.search.binary import hamming_pairs
from curation.search.cell_join import Visitors, join_cells
from curation.search.cells import nearest_cells
from curation.search.collapse import collapsed_pairs, equal_vectors
from curation.search.edges import Pairs
from curation.search.exact import cosine_pairs
from pipelines.engine.step import FileRef
from pipelines.stages.copies.saved_edges import (
    DecidingEdges,
    EdgeFile,
    read_deciding,
    read_edges,
    write_edges,
)

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
        pieces = [Edges.of_kind(n, p.a, p.b, p.score) for n, p in (("phash", near), ("cosine", alike))]
        path = folder / f"{i}-{k}.parquet"
        write_edges(path, Edges.joined(pieces))
        sha256, num_bytes = storage.sha256_file(str(path))
        files.append(EdgeFile(FileRef(str(path), num_bytes, sha256), i, k))
    return files


def test_a_file_is_read_as_it_was_written_wherever_its_blocks_stand(tmp_path: Path) -> None:
    names = ["cosine", "phash", "pixels", "cosine"]
    kind = np.array([EDGE_KINDS.index(name) for name in names], np.int8)
    edges = Edges(np.array([0, 0, 3, 4]), np.array([1, 2, 0, 9]), np.array([0.9, 1.0, 0.95, 0.7]), kind)
    write_edges(tmp_path / "edges.parquet", edges)
    assert storage.read_table(str(tmp_path / "edges.parquet")).schema == EDGES
    sha256, num_bytes = storage.sha256_file(str(tmp_path / "edges.parquet"))
    file = FileRef(str(tmp_path / "edges.parquet"), num_bytes, sha256)
    found = read_edges(EdgeFile(file, 100, 5000))
    assert (found.a - 100).tolist() == edges.a.tolist()
    assert (found.b - 5000).tolist() == edges.b.tolist()
    assert (found.score.tolist(), found.kind.tolist()) == (edges.score.tolist(), kind.tolist())
    deciding = read_deciding(EdgeFile(file), {"cosine": 0.9, "pixels": 0.96})
    assert list(zip(deciding.a.tolist(), deciding.b.tolist(), strict=True)) == [(0, 1)]


def test_equal_bytes_come_first() -> None:
    firsts = np.array([[0, 0], [2, 1], [1, 1], [4, 0]])
    [exact] = DecidingEdges([], THRESHOLDS, num_rows=5, firsts=firsts)
    assert list(zip(exact.a.tolist(), exact.b.tolist(), strict=True)) == [(1, 2), (0, 4)]
    assert set(exact.kind.tolist()) == {EDGE_KINDS.index("exact")}
    assert (exact.score == 1).all()


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


def tied_rows(seed: int) -> np.ndarray:
    """A few hubs, and around each many distinct rows of exactly the same cosine; some rows thrice."""
    rng = np.random.default_rng(seed)
    vectors = np.zeros((NUM, 40), np.float16)
    for row in range(NUM):
        hub, other = row % 4, 4 + int(rng.integers(36))
        vectors[row, hub] = 0.9 if row >= 4 else 1
        vectors[row, other] += 0.4375 if row >= 4 else 0
    vectors[rng.permutation(np.arange(4, NUM))[:60]] = vectors[rng.integers(NUM, size=60)]
    return vectors


def copied_rows(seed: int) -> np.ndarray:
    """Few distinct rows, most of them several times and in several blocks."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((4, 4))[rng.integers(4, size=60)] + 0.5 * rng.standard_normal((60, 4))
    kinds = np.pad(kinds / np.linalg.norm(kinds, axis=1, keepdims=True), ((0, 0), (0, 36)))
    return kinds.astype(np.float16)[rng.integers(60, size=NUM)]


def limited_by_the_rule(vectors: np.ndarray, *, threshold: float, limit: int) -> set[tuple[int, int]]:
    """Of distinct rows, each by its first: the edges that an end names among its best, ties by row."""
    firsts = np.sort(np.unique(vectors, axis=0, return_index=True)[1])
    exact = vectors[firsts].astype(np.float64)
    scores = exact @ exact.T
    kept = set()
    for place, first in enumerate(firsts.tolist()):
        others = [j for j in range(len(firsts)) if j != place and scores[place, j] >= threshold]
        others.sort(key=lambda j, place=place: (-scores[place, j], j))
        kept |= {tuple(sorted((first, int(firsts[j])))) for j in others[:limit]}
    return kept


def decided(files: list[EdgeFile], limit: int) -> set[tuple[int, int]]:
    edges = DecidingEdges(files, {"cosine": 0.75}, num_rows=NUM, max_edges_per_row=limit)
    return {(a, b) for a, b, score in everything(edges) if score < 1}


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("search", ["torch", "faiss", "cells"])
@pytest.mark.usefixtures("arithmetic")
def test_at_the_limit_equal_cosines_go_by_row_on_every_backend(
    search: str, limit: int, tmp_path: Path
) -> None:
    for seed, draw in enumerate([tied_rows, copied_rows]):
        vectors = draw(seed)
        wanted = limited_by_the_rule(vectors, threshold=0.75, limit=limit)
        for number, cuts in enumerate([[], [120], [50, 51, 200]]):
            folder = tmp_path / f"{seed}-{number}"
            folder.mkdir()
            blocks = list(pairwise([0, *cuts, NUM]))
            if search == "cells":
                files = save_by_cells(folder, vectors, blocks=blocks, limit=limit)
            else:
                files = save_by_blocks(folder, vectors, blocks=blocks, limit=limit, backend=search)
            assert decided(files, limit) == wanted


def save_edges(path: Path, pairs: Pairs, *, first_a: int = 0, first_b: int = 0) -> EdgeFile:
    write_edges(path, Edges.of_kind("cosine", pairs.a, pairs.b, pairs.score))
    sha256, num_bytes = storage.sha256_file(str(path))
    return EdgeFile(FileRef(str(path), num_bytes, sha256), first_a, first_b)


def save_by_blocks(
    folder: Path, vectors: np.ndarray, *, blocks: list[tuple[int, int]], limit: int, backend: str
) -> list[EdgeFile]:
    files = []
    for (i, j), (k, m) in combinations_with_replacement(blocks, 2):
        same = (i, j) == (k, m)
        search = partial(cosine_pairs, threshold=0.75, same=same, backend=backend, max_edges_per_row=limit)
        found = collapsed_pairs(vectors[i:j], vectors[k:m], same=same, search=search)
        files.append(save_edges(folder / f"{i}-{k}.parquet", found, first_a=i, first_b=k))
    return files


def save_by_cells(
    folder: Path, vectors: np.ndarray, *, blocks: list[tuple[int, int]], limit: int
) -> list[EdgeFile]:
    """Every row visits every cell, so that no pair is lost; blocks list the first of their equal rows."""
    centroids = np.eye(5, 40).astype(np.float16)
    cells = nearest_cells(vectors, centroids, num_probes=5)
    files, firsts = [], []
    for i, j in blocks:
        equal = equal_vectors(vectors[i:j])
        firsts.append(i + equal.first)
        first, copies = equal.stars
        star = Pairs(i + first, i + copies, np.ones(len(copies)))
        files.append(save_edges(folder / f"stars-{i}.parquet", star))
    rows = np.concatenate(firsts)
    for low, high in [(0, 1), (1, 3), (3, 5)] if len(blocks) > 1 else [(0, 5)]:
        home = rows[(cells[rows, 0] >= low) & (cells[rows, 0] < high)]
        found = join_cells(
            Visitors(home, vectors[home], cells[home]),
            (Visitors(own, vectors[own], cells[own]) for own in firsts),
            cells=range(low, high),
            rows=rows,
            threshold=0.75,
            max_edges_per_row=limit,
        )
        files.append(save_edges(folder / f"cells-{low}.parquet", found))
    return files
