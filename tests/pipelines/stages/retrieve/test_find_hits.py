"""The hits of a curated pool: the same in one piece and in blocks, by cluster by hand, and none."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from part_files import attempt_at, make_part, published, unit_rows

from curation import storage
from curation.retrieve import ClusterRetrieval, NoRetrieval, Retrieval, SampleRetrieval
from curation.schema import HITS
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part
from pipelines.stages.retrieve.find_hits import load_block, load_hits
from pipelines.stages.retrieve.neighbours import files_of
from pipelines.stages.retrieve.tasks import (
    HITS_FILE,
    BlockSettings,
    BlockTask,
    Labels,
    RetrieveSettings,
    RetrieveTask,
    Searched,
)

NUM, SIZE = 60, 10
DEAD = [2, 25, 26, 58]


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Part, ...]:
    """Two parts of a curated pool, four of the pool."""
    vectors = unit_rows(1, NUM)
    return tuple(
        make_part(
            tmp_path, i, offset=SIZE * i, vectors=vectors[SIZE * i : SIZE * (i + 1)],
            pool="web" if i > 1 else "trusted", role="uncurated" if i > 1 else "curated",
        )
        for i in range(NUM // SIZE)
    )  # fmt: skip


@pytest.fixture
def alive(tmp_path: Path) -> FileRef:
    return published(tmp_path / "alive.npy", ~np.isin(np.arange(NUM), DEAD))


def hits_of(rule: Retrieval, task: RetrieveTask, out: Path) -> tuple[dict[str, Any], pa.Table]:
    facts = load_hits(RetrieveSettings("trusted", rule, 0))(attempt_at(task, out))
    table = storage.read_table(str(out / HITS_FILE))
    assert table.schema.equals(HITS)
    return facts, table


def test_blocks_together_find_what_one_search_finds(
    parts: tuple[Part, ...], alive: FileRef, tmp_path: Path
) -> None:
    rule = SampleRetrieval(neighbours=3)
    facts, whole = hits_of(rule, RetrieveTask(parts, alive, None), tmp_path / "whole")
    assert facts == {"pool": "trusted", "num_queries": 19, "nominal": 57, "unique": facts["unique"]}
    assert not set(DEAD) & {*whole["row"].to_pylist(), *whole["query"].to_pylist()}
    queries = np.setdiff1d(np.arange(20), DEAD)
    rows = published(tmp_path / "queries.npy", queries)
    cuts, groups = ((0, 8), (8, 19)), (parts[2:4], parts[4:])
    found: dict[tuple[int, int], list[Any]] = {cut: [] for cut in cuts}
    for number, (cut, group) in enumerate(product(cuts, groups)):
        out = tmp_path / f"block{number}"
        task = BlockTask(rows, cut, parts[:2], group, alive)
        assert load_block(BlockSettings(3, "cpu"))(attempt_at(task, out)) == {}
        found[cut].append(tuple(published(out / name) for name in files_of("")))
    searched = Searched(tuple(tuple(files) for files in found.values()))
    _, together = hits_of(rule, RetrieveTask(parts, alive, None, searched), tmp_path / "together")
    assert together.equals(whole)


def test_by_cluster_by_hand(parts: tuple[Part, ...], alive: FileRef, tmp_path: Path) -> None:
    """Rows 0 to 19 ask; in cluster 1 are 0, 1 and 2, which is dead, and 31 and 32 are its best."""
    cluster, score = np.full(NUM, 2, np.int32), np.zeros(NUM, np.float32)
    cluster[[0, 1, 2, 30, 31, 32]] = 1
    score[[0, 1, 30, 31, 32]] = 0.5, 0.75, 0.25, 1.0, 0.5
    cluster[3:20], cluster[[40, 58]] = 0, 0
    labels = Labels(published(tmp_path / "cluster.npy", cluster), published(tmp_path / "score.npy", score))
    rule = ClusterRetrieval(method="cluster", min_seed_hits=2, per_cluster=2)
    facts, hits = hits_of(rule, RetrieveTask(parts, alive, labels), tmp_path / "hits")
    assert hits["row"].to_pylist() == [40, 31, 32]
    assert hits["query"].to_pylist()[1:] == [1, 1]
    assert hits["score"].to_pylist() == [0.0, 1.0, 0.5]
    assert (facts["nominal"], facts["unique"]) == (3, 3)


def test_none(parts: tuple[Part, ...], alive: FileRef, tmp_path: Path) -> None:
    facts, hits = hits_of(NoRetrieval(method="none"), RetrieveTask(parts, alive, None), tmp_path / "hits")
    assert hits.num_rows == facts["nominal"] == 0
    assert facts["num_queries"] == 19
