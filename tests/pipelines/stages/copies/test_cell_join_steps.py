"""The join by cells as a run does it: exact where it looks everywhere, refused where it finds too little."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import storage
from curation.errors import ConfigError
from curation.search.cells_config import CellsConfig
from curation.search.exact import cosine_pairs
from pipelines.engine.digest import digest_of
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, read
from pipelines.stages.copies import cell_groups
from pipelines.stages.copies.blocks import HASHES_AND_VECTORS, Block, JoinedPart
from pipelines.stages.copies.cell_join import CellJoin, cell_join
from pipelines.stages.copies.saved_edges import EdgeFile

SIZES = (90, 10, 150, 64, 186)


def published(path: Path, array: np.ndarray) -> FileRef:
    storage.write_vectors(path, array)
    sha256, num_bytes = storage.sha256_file(str(path))
    return FileRef(str(path), num_bytes, sha256)


def described_as(path: Path, num_rows: int) -> FileRef:
    """Pictures whose hashes know all their bits."""
    storage.write_table(path, pa.table({"certain_bits": pa.array([64] * num_rows, pa.int8())}))
    sha256, num_bytes = storage.sha256_file(str(path))
    return FileRef(str(path), num_bytes, sha256)


def pool(num_rows: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((num_rows // 10, 24))
    rows = centres[rng.integers(len(centres), size=num_rows)] + 0.6 * rng.standard_normal((num_rows, 24))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    rows[[5, 200]] = 0  # no vector
    rows[300:310] = rows[7]  # copies in another block
    return rows


def blocks_of(folder: Path, vectors: np.ndarray, joined: np.ndarray, sizes: Sequence[int]) -> list[Block]:
    """Blocks of one part each."""
    rows = published(folder / f"joined{len(sizes)}.npy", joined)
    blocks, offset = [], 0
    for number, size in enumerate(sizes):
        mine = vectors[offset : offset + size]
        file = published(folder / f"vectors{len(sizes)}-{number}.npy", mine)
        described = described_as(folder / f"described{len(sizes)}-{number}.parquet", size)
        part = Part(number, "web", "uncurated", offset, size, file, described, embeddings=file)
        taking_part = joined[(joined >= offset) & (joined < offset + size)]
        run = [JoinedPart(part, digest_of((taking_part - offset).tolist()), size)]
        blocks.append(Block.of(run, rows, HASHES_AND_VECTORS))
        offset += size
    return blocks


@pytest.fixture
def vectors() -> np.ndarray:
    return pool(sum(SIZES))


@pytest.fixture
def joined(vectors) -> np.ndarray:
    return np.delete(np.arange(len(vectors)), [3, 99, 400])


def runner_of(folder: Path) -> Runner:
    return Runner(str(folder), LocalExecutor(), Progress(quiet=True))


def by_cells(search: CellsConfig) -> CellJoin:
    return CellJoin("dedup", search, 0.6, max_edges_per_row=None, seed=0, threads=1)


def edges_of(files: Sequence[EdgeFile]) -> dict[tuple[int, int], float]:
    table = pa.concat_tables([read(file.file) for file in files])
    assert {(file.first_a, file.first_b) for file in files} == {(0, 0)}
    assert set(table["kind"].to_pylist()) <= {"cosine"}
    pairs = list(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    return dict(zip(pairs, table["score"].to_pylist(), strict=True))


def exact_edges(vectors: np.ndarray, joined: np.ndarray) -> dict[tuple[int, int], float]:
    found = cosine_pairs(vectors[joined], vectors[joined], threshold=0.6, same=True)
    pairs = zip(joined[found.a].tolist(), joined[found.b].tolist(), strict=True)
    return dict(zip(pairs, found.score.tolist(), strict=True))


def test_where_every_cell_is_visited_the_join_is_exact(tmp_path, vectors, joined):
    runner = runner_of(tmp_path / "run")
    blocks = blocks_of(tmp_path, vectors, joined, SIZES)
    search = CellsConfig(num_cells=12, num_probes=12, min_recall=1, recall_rows=50, group_rows=100)
    files = cell_join(runner, by_cells(search), blocks)
    assert len(files) == len(SIZES) + 5  # stars by block; 485 distinct rows, in groups of about 100
    got, expected = edges_of(files), exact_edges(vectors, joined)
    copies = {7, *range(300, 310)}
    for pair in ((7, 300), *((300, copy) for copy in range(301, 310))):
        assert got[pair] == 1.0
    assert not any(set(pair) & {*range(301, 310)} for pair in got if pair[0] != 300)
    # The copies' other edges hang on the first of each block.
    rest = {p: s for p, s in expected.items() if not set(p) & copies}
    assert {p: s for p, s in got.items() if not set(p) & copies} == rest
    of_seven = {p: s for p, s in expected.items() if 7 in p and not set(p) <= copies}
    assert of_seven.items() <= got.items()
    (recall,) = runner.receipts["dedup_cell_edges_recall"]
    assert recall.facts["recall"]["estimate"] == 1.0
    assert recall.facts["recall"]["num_pairs"] > 50


def test_probes_are_chosen_and_recall_is_what_was_found(tmp_path, vectors, joined):
    runner = runner_of(tmp_path / "run")
    blocks = blocks_of(tmp_path, vectors, joined, SIZES)
    search = CellsConfig(num_cells=40, min_recall=0.9, recall_rows=10**4)
    got = edges_of(cell_join(runner, by_cells(search), blocks))
    (facts,) = [receipt.facts for receipt in runner.receipts["dedup_cell_edges_recall"]]
    assert facts["num_probes"] < 40
    distinct = np.setdiff1d(joined, range(300, 310))
    expected = exact_edges(vectors, distinct)
    share = len(got.keys() & expected.keys()) / len(expected)
    assert facts["recall"]["low"] <= share <= facts["recall"]["high"]
    assert share >= 0.9


def test_a_result_under_the_recall_asked_for_is_refused(tmp_path, vectors, joined):
    runner = runner_of(tmp_path / "run")
    blocks = blocks_of(tmp_path, vectors, joined, SIZES)
    search = CellsConfig(num_cells=60, num_probes=1, min_recall=0.999)
    with pytest.raises(ConfigError, match=r"too few.*recall 0\.\d+ with 1 probe of 60.*num_probes"):
        cell_join(runner, by_cells(search), blocks)
    assert "dedup_cell_edges" not in runner.receipts  # before the work, not after


def test_chunks_and_resume_change_nothing(tmp_path, vectors, joined, monkeypatch):
    search = CellsConfig(num_cells=30, group_rows=120, recall_rows=100, min_recall=0.5)
    blocks = blocks_of(tmp_path, vectors, joined, SIZES)
    runner = runner_of(tmp_path / "run")
    first = cell_join(runner, by_cells(search), blocks)
    lost = Path(first[-1].file.path).parent
    content = (lost / "edges.parquet").read_bytes()
    shutil.rmtree(lost)
    monkeypatch.setattr(cell_groups, "CHUNK_ROWS", 1)
    again = runner_of(tmp_path / "run")
    assert cell_join(again, by_cells(search), blocks) == first
    assert (lost / "edges.parquet").read_bytes() == content
    assert [(s.name, s.num_items - s.num_done) for s in again.states if s.num_done < s.num_items] == [
        ("dedup_cell_edges", 1)
    ]


def test_the_cut_into_blocks_changes_nothing(tmp_path, vectors, joined):
    """But for edges of equal rows in several blocks, which each block has once."""
    joined = np.setdiff1d(joined, range(300, 310))
    search = CellsConfig(num_cells=30, group_rows=120, recall_rows=100, min_recall=0.5)
    edges = []
    for sizes in (SIZES, (len(vectors),), (250, 250)):
        runner = runner_of(tmp_path / f"run{len(sizes)}")
        blocks = blocks_of(tmp_path, vectors, joined, sizes)
        files = cell_join(runner, by_cells(search), blocks)
        edges.append([file.file.sha256 for file in files[len(sizes) :]])
    assert edges[0] == edges[1] == edges[2]


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_pool_of_nothing_and_of_little(tmp_path, num_rows):
    vectors = np.zeros((num_rows, 8), np.float16)
    if num_rows > 1:
        vectors[:, 0] = 1
        vectors[0] = np.eye(8, dtype=np.float16)[1]
    blocks = blocks_of(tmp_path, vectors, np.arange(num_rows), [num_rows])
    runner = runner_of(tmp_path / "run")
    files = cell_join(runner, by_cells(CellsConfig()), blocks)
    assert edges_of(files) == ({} if num_rows == 1 else {(1, 2): 1.0})
    (recall,) = runner.receipts["dedup_cell_edges_recall"]
    assert recall.facts["recall"]["num_pairs"] == 0


def test_a_run_by_cells_decides_as_an_exact_run(tmp_path, configure, run_quietly):
    """Every cell is visited, so that nothing is lost."""
    settings = ("dedup.cosine_threshold=0.95", "dedup.phash_radius=null", "describe.descriptor=gist")
    with_cells = ("dedup.search=cells", "dedup.cells.num_cells=5", "dedup.cells.num_probes=5")
    decisions = []
    for name, more in (("exact", ()), ("cells", with_cells)):
        run_quietly(configure(tmp_path / name, *settings, *more), until="dedup")
        (file,) = (tmp_path / name / "steps" / "dedup_components").glob("*/copies.parquet")
        decisions.append(pq.read_table(file))
    assert len(decisions[0]) > 10
    assert decisions[0].equals(decisions[1])
    assert (tmp_path / "exact" / "steps" / "dedup_edges").exists()
    assert not (tmp_path / "cells" / "steps" / "dedup_edges").exists()


def test_the_measured_recall_stands_in_manifest_and_report(tmp_path, configure, run_quietly):
    settings = ("dedup.edge_floor=0.6", "dedup.search=cells", "dedup.cells.num_cells=5")
    manifest = run_quietly(configure(tmp_path / "run", *settings, "dedup.cells.num_probes=5")).manifest
    (recall,) = manifest["recall"]
    assert recall["step"] == "dedup_cell_edges"
    assert (recall["estimate"], recall["num_cells"], recall["num_probes"]) == (1.0, 5, 5)
    assert recall["num_pairs"] > 0
    report = (tmp_path / "run" / manifest["dataset_dir"] / "report.html").read_text("utf-8")
    assert f"Of {recall['num_pairs']:,} pairs that {recall['num_rows']:,} sampled images have" in report
    assert "this finds 100.0 % (95 % confidence" in report
