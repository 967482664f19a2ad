"""The cells of a join and what is measured of them, against all pairs of a small pool."""

from pathlib import Path

import numpy as np
import pytest
from part_files import attempt_at, make_part, published, unit_rows

from curation import storage
from curation.errors import ConfigError
from curation.search.cells import nearest_cells
from curation.search.cells_config import CellsConfig
from pipelines.stages.copies.blocks import Block, JoinedPart
from pipelines.stages.copies.cell_training import (
    TRUTH,
    RecallSettings,
    RecallTask,
    TrainedFile,
    TrainSettings,
    TrainTask,
    TruthSettings,
    TruthTask,
    load_recall,
    load_train,
    load_truth,
)

NUM, SIZE = 200, 50
NO_VECTOR, POOR = {7, 60}, {8, 120}


@pytest.fixture
def vectors() -> np.ndarray:
    rows = unit_rows(3, NUM, num_centres=12)
    rows[list(NO_VECTOR)] = 0
    return rows


@pytest.fixture
def blocks(tmp_path: Path, vectors: np.ndarray) -> tuple[Block, ...]:
    rows = published(tmp_path / "rows.npy", np.delete(np.arange(NUM), [0, 199]))
    bits = np.where(np.isin(np.arange(NUM), list(POOR)), 3, 64)
    found = []
    for number, start in enumerate(range(0, NUM, SIZE)):
        mine = slice(start, start + SIZE)
        part = make_part(
            tmp_path, number, offset=start, vectors=vectors[mine], certain_bits=bits[mine].tolist()
        )
        found.append(Block.of([JoinedPart(part, "some", SIZE)], rows, ("described", "copy_vectors")))
    return tuple(found)


def usable(vectors: np.ndarray) -> np.ndarray:
    return np.delete(vectors, sorted({0, 199} | NO_VECTOR | POOR), axis=0)


def trained(
    folder: Path, blocks: tuple[Block, ...], search: CellsConfig, *, seed: int = 0
) -> tuple[dict, np.ndarray, np.ndarray]:
    facts = load_train(TrainSettings(search, seed))(attempt_at(TrainTask(blocks), folder))
    centroids, sample = (storage.read_vectors(str(folder / name)) for name in TrainedFile)
    return facts, np.asarray(centroids), np.asarray(sample)


def test_samples_are_of_rows_with_a_descriptor_that_knows_enough(
    tmp_path: Path, blocks: tuple[Block, ...], vectors: np.ndarray
) -> None:
    search = CellsConfig(num_cells=6, recall_rows=1000, group_rows=80)
    facts, centroids, sample = trained(tmp_path / "0", blocks, search)
    np.testing.assert_array_equal(sample, usable(vectors))  # all of them, in order
    assert (facts["num_rows"], facts["num_cells"], facts["num_sampled"]) == (198, 6, 194)
    assert (facts["groups"][0], facts["groups"][-1]) == (0, 6)
    assert centroids.shape == (6, 16)
    few = CellsConfig(num_cells=6, recall_rows=20, group_rows=80)
    drawn = [
        trained(tmp_path / name, blocks, few, seed=seed)[2] for name, seed in (("1", 5), ("2", 5), ("3", 6))
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    assert {row.tobytes() for row in drawn[0]} <= {row.tobytes() for row in usable(vectors)}


def test_recall_is_the_share_of_pairs_of_which_one_visits_the_others_home(
    tmp_path: Path, blocks: tuple[Block, ...], vectors: np.ndarray
) -> None:
    search = CellsConfig(num_cells=20, recall_rows=1000)
    facts, centroids, sample = trained(tmp_path / "trained", blocks, search)
    files = [published(tmp_path / "trained" / name) for name in TrainedFile]
    truths = []
    for number, block in enumerate(blocks):
        out = tmp_path / f"truth{number}"
        load_truth(TruthSettings(0.85, 20))(attempt_at(TruthTask(block, *files), out))
        truths.append(published(out / TRUTH))
    task = RecallTask(tuple(truths), facts["num_sampled"], facts["num_cells"])
    exact = usable(vectors).astype(np.float64)
    a, b = np.nonzero((exact @ exact.T >= 0.85) & ~np.eye(len(exact), dtype=bool))
    for num_probes in (1, 2, 20):
        found = load_recall(RecallSettings(num_probes, 0.01, 20))(attempt_at(task, tmp_path / "recall"))
        cells = nearest_cells(sample, centroids, num_probes=num_probes)
        meets = (cells[a] == cells[b, :1]).any(axis=1) | (cells[b] == cells[a, :1]).any(axis=1)
        assert found["recall"]["num_pairs"] == len(a) > 100
        assert found["recall"]["estimate"] == pytest.approx(meets.mean())
    chosen = load_recall(RecallSettings(None, 0.9, 20))(attempt_at(task, tmp_path / "recall"))
    assert chosen["recall"]["num_rows"] == 97  # the others choose
    assert chosen["recall"]["estimate"] >= 0.9
    with pytest.raises(ConfigError, match="1 probe of 20 cells"):
        load_recall(RecallSettings(1, 1.0, 20))(attempt_at(task, tmp_path / "recall"))


def test_without_any_vector_any_cell_will_do(tmp_path: Path) -> None:
    rows = published(tmp_path / "rows.npy", np.arange(3))
    part = make_part(tmp_path, 0, offset=0, vectors=np.zeros((3, 8), np.float16))
    block = Block.of([JoinedPart(part, "all", 3)], rows, ("described", "copy_vectors"))
    facts, centroids, sample = trained(tmp_path / "out", (block,), CellsConfig())
    assert (facts["num_cells"], facts["num_sampled"]) == (1, 0)
    assert centroids.any()
    assert sample.shape == (0, 8)
