"""A balanced sample of a pool, end to end: precomputed vectors of a long tail, no curated pool or one."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.cluster.config import HierarchyConfig
from curation.cluster.hierarchy import build_levels
from curation.cluster.sampling import Candidates, balanced_sample
from curation.errors import ConfigError
from pipelines.answers.verify import verify
from pipelines.config.read import apply_override
from pipelines.config.run_config import RunConfig, validate
from pipelines.engine.inner import InnerSteps
from pipelines.engine.runner import Runner
from pipelines.engine.step import Step
from pipelines.stages.cluster import level, split_leaves
from tests.curation.cluster.long_tail import LongTail, balance_of, draw_long_tail
from tests.fake_executor import Interrupted

LEVELS = {"levels": [{"num_clusters": 16}, {"num_clusters": 8}], "resampling_steps": 3, "iterations": 5}


@pytest.fixture(scope="module")
def tail() -> LongTail:
    return draw_long_tail(360, num_concepts=8, dim=16, spread=0.7, seed=3)


@pytest.fixture(scope="module")
def pool(tail: LongTail, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny pictures, all different, and their vectors in a file beside it."""
    root = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    keys = [f"{number:04d}.png" for number in range(len(tail.vectors))]
    for folder, some in (("web", keys), ("trusted", keys[:5])):
        (root / folder).mkdir()
        for key in some:
            Image.fromarray(rng.integers(256, size=(9, 9, 3), dtype=np.uint8)).save(root / folder / key)
    flat = pa.array(np.concatenate([tail.vectors, tail.vectors[:5]]).ravel())
    columns = {
        "key": keys + keys[:5],
        "pool": ["web"] * len(keys) + ["trusted"] * 5,
        "embedding": pa.FixedSizeListArray.from_arrays(flat, tail.vectors.shape[1]),
    }
    pq.write_table(pa.table(columns), root / "vectors.parquet")
    return root


@pytest.fixture
def balanced(pool: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """`balanced("a.b=c", …, name="run")`: a config that samples 80 images of the pool."""

    def configure(*overrides: str, name: str = "run") -> RunConfig:
        data: dict[str, Any] = {
            "run_dir": str(tmp_path / name),
            "root": str(pool),
            "pools": {"web": {"role": "uncurated", "sources": [{"kind": "folder", "path": "web"}]}},
            "ingest": {"part_rows": 100},
            "describe": {
                "embed": {"embedder": f"precomputed:{pool / 'vectors.parquet'}"},
                "descriptor": None,
                "decode_threads": 1,
            },
            "judge": {"min_side_px": 1, "min_pixel_std": 0.0},
            "dedup": {"phash_radius": None, "cosine_threshold": None},
            "decontaminate": {"phash_radius": None, "cosine_threshold": None},
            "cluster": {"num_clusters": 60, "iterations": 5},
            "hierarchy": dict(LEVELS),
            "select": {"balanced": {"num_images": 80}},
            "executor": {"kind": "local"},
        }
        for override in overrides:
            apply_override(data, override)
        return validate(data, where="the test's config")

    return configure


def step_array(run_dir: str, step: str, name: str) -> np.ndarray:
    [file] = Path(run_dir, "steps", step).glob(f"*/{name}.npy")
    return np.load(file)


def test_a_sample_without_a_curated_pool(
    balanced: Any, run_quietly: Any, rows_of: Any, tail: LongTail, pool: Path
) -> None:
    config = balanced()
    result = run_quietly(config)
    assert result.exit_code == 0
    assert result.manifest["counts"]["dataset"] == 80
    lineage = rows_of(Path(config.run_dir), "lineage")
    kept = np.array(lineage["decision"].to_pylist()) == "kept"
    reasons = np.array(lineage["reason"].to_pylist())
    assert set(reasons[kept]) == {"sampled"}
    assert set(reasons[~kept]) == {"over_cap"}
    assert set(lineage["stage"].to_pylist()) == {"select"}
    assert set(rows_of(Path(config.run_dir), "selection")["origin"].to_pylist()) == {"sampled"}
    assert verify(config.run_dir) == []

    # The same by the library alone, on what the step `cluster` gave.
    settings = HierarchyConfig.model_validate(LEVELS)
    leaves = step_array(config.run_dir, "cluster", "centroids")
    parents = [each.parent for each in build_levels(leaves, settings, seed=0)]
    leaf, score = (step_array(config.run_dir, "cluster", name) for name in ("cluster", "score"))
    candidates = Candidates(leaf, score, id_ranks(pool, lineage["key"].to_pylist()))
    expected = balanced_sample(candidates, parents, budget=80, order="random", seed=0)
    np.testing.assert_array_equal(kept, expected)
    assert balance_of(tail.concept[kept], 8)[0] < 0.5 * balance_of(tail.concept, 8)[0]


def id_ranks(pool: Path, keys: list[str]) -> np.ndarray:
    """The place of every picture's id among all ids."""
    ids = [hashlib.sha256((pool / "web" / key).read_bytes()).hexdigest() for key in keys]
    return np.argsort(np.argsort(ids))


def test_split_clusters_are_leaves(
    balanced: Any, run_quietly: Any, rows_of: Any, tail: LongTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_leaves, "GROUP_ROWS", 90)
    splits = ("cluster.num_clusters=8", "hierarchy.splits=5", "select.balanced.order=closest")
    config = balanced(*splits)
    assert run_quietly(config).manifest["counts"]["dataset"] == 80
    assert len(list(Path(config.run_dir, "steps", "cluster_splits").glob("*/leaf.npy"))) > 2
    cluster = step_array(config.run_dir, "cluster", "cluster")
    leaf, score, centroids = (
        step_array(config.run_dir, "cluster_leaves", name) for name in ("leaf", "score", "centroids")
    )
    assert len(centroids) == leaf.max() + 1 <= 40
    for one in range(8):  # every leaf lies in one flat cluster, and is the nearest of that cluster's
        mine = np.flatnonzero(cluster == one)
        leaves = np.unique(leaf[mine])
        assert set(cluster[np.isin(leaf, leaves)].tolist()) == {one}
        products = tail.vectors[mine].astype(np.float64) @ centroids[leaves].astype(np.float64).T
        np.testing.assert_array_equal(leaf[mine], leaves[products.argmax(axis=1)])
        np.testing.assert_allclose(score[mine], products.max(axis=1), rtol=1e-6)

    def sampled(config: RunConfig) -> list[str]:
        assert run_quietly(config).exit_code == 0
        return sorted(rows_of(Path(config.run_dir), "selection")["key"].to_pylist())

    # However the pool is cut into parts and the clusters into groups, and whichever order it is run in.
    monkeypatch.setattr(split_leaves, "GROUP_ROWS", 1 << 19)
    assert sampled(balanced(*splits, "ingest.part_rows=37", name="other")) == sampled(config)
    assert sampled(balanced(*splits, "seed=1", name="seed")) != sampled(config)


@pytest.fixture
def clusterings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What clusterings of levels note; before the third the run breaks off."""
    seen: list[str] = []
    fit = level.fit_in_steps

    def breaks_off(*args: Any, **more: Any) -> Any:
        seen.append("clustering")
        if len(seen) == 3:
            raise Interrupted
        return fit(*args, **more)

    monkeypatch.setattr(level, "POINT_ROWS", 12)
    monkeypatch.setattr(level, "fit_in_steps", breaks_off)
    return seen


def level_files(run_dir: str) -> dict[str, bytes]:
    """What the levels are made of, by the files of their folders."""
    files = Path(run_dir, "steps", "cluster_level").glob("*/*.npy")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


def test_levels_in_steps_give_the_bytes_of_one_task(
    balanced: Any, run_quietly: Any, clusterings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 3 clusters want groups of 48 points, and there are 60: the first level is done in two groups.
    levels = "hierarchy.levels=[{num_clusters: 3, closest: 18}, {num_clusters: 2}]"
    at_once, in_steps = balanced(levels), balanced(levels, "cluster.group_rows=16", name="in_steps")
    run_quietly(at_once)
    seen = clusterings
    with pytest.raises(Interrupted):
        run_quietly(in_steps)
    levels_folder = Path(in_steps.run_dir, "steps", "cluster_level")

    def states() -> list[Path]:
        return list(levels_folder.glob("*/inner/*/level_states/*/receipt.json"))

    assert len(states()) == 1  # the second clustering's
    # Killed once more, now before a finished clustering's own steps were removed; and groups have changed.
    forget = InnerSteps.forget

    def dies(inner: InnerSteps) -> None:
        if len(seen) == 4 and "died" not in seen and len(states()) == 2:
            seen.append("died")
            raise Interrupted
        forget(inner)

    monkeypatch.setattr(InnerSteps, "forget", dies)
    with pytest.raises(Interrupted):
        run_quietly(in_steps)
    assert run_quietly(balanced(levels, "cluster.group_rows=20", name="in_steps")).exit_code == 0
    assert seen.count("clustering") == 3 + 2  # of four clusterings, those that were left
    assert len(level_files(at_once.run_dir)) == 4
    assert level_files(in_steps.run_dir) == level_files(at_once.run_dir)
    assert list(levels_folder.glob("*/inner")) == []


def test_nothing_of_another_version_of_a_level_is_taken(
    balanced: Any, run_quietly: Any, clusterings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = "hierarchy.levels=[{num_clusters: 3, closest: 18}, {num_clusters: 2}]"
    config = balanced(levels, "cluster.group_rows=16")
    with pytest.raises(Interrupted):
        run_quietly(config)

    def newer(name: str, version: int, *others: Any, **more: Any) -> Step:
        return Step(name, version + (name == "cluster_level"), *others, **more)

    monkeypatch.setattr(level, "Step", newer)
    run_quietly(config)
    assert clusterings.count("clustering") == 3 + 4  # all four, from the first


def test_a_sample_beside_what_is_retrieved(balanced: Any, run_quietly: Any, rows_of: Any) -> None:
    curated = (
        "pools.trusted.role=curated",
        "pools.trusted.sources=[{kind: folder, path: trusted}]",
        "pools.trusted.retrieve={method: sample, neighbours: 6}",
    )
    config = balanced(*curated)
    manifest = run_quietly(config).manifest
    rows = rows_of(Path(config.run_dir), "lineage").to_pylist()
    web = [row for row in rows if row["pool"] == "web"]
    count = Counter(row["reason"] for row in web)
    assert count["sampled"] == 80
    assert 6 <= count["retrieved_by_sample"] <= 30
    assert set(count) == {"sampled", "retrieved_by_sample", "over_cap"}
    assert manifest["counts"]["dataset"] == 5 + 80 + count["retrieved_by_sample"]
    assert all(row["by_pool"] is None for row in web if row["reason"] == "sampled")
    # Under a cap on all of them the sample gives way.
    assert run_quietly(balanced(*curated, "select.max_images=50")).exit_code == 0
    rows = rows_of_newest(config.run_dir)
    capped = Counter(row["reason"] for row in rows if row["pool"] == "web")
    assert capped["retrieved_by_sample"] == count["retrieved_by_sample"]
    assert capped["sampled"] == 50 - count["retrieved_by_sample"]


def rows_of_newest(run_dir: str) -> list[dict[str, Any]]:
    """The lineage of the dataset that the manifest names."""
    manifest = json.loads(Path(run_dir, "manifest.json").read_text())
    return [
        row for file in manifest["lineage"] for row in pq.read_table(Path(run_dir, file["path"])).to_pylist()
    ]


def test_a_budget_beyond_the_pool_takes_everything_and_flat_clusters_do(
    balanced: Any, run_quietly: Any, tail: LongTail
) -> None:
    config = balanced("hierarchy=null", "select.balanced.num_images=80")
    assert run_quietly(config).manifest["counts"]["dataset"] == 80
    assert not Path(config.run_dir, "steps", "cluster_level").exists()
    everything = balanced("hierarchy=null", "select.balanced.num_images=100000")
    assert run_quietly(everything).manifest["counts"]["dataset"] == len(tail.vectors)


def test_levels_must_stand_on_more_clusters(balanced: Any) -> None:
    with pytest.raises(ConfigError, match=r"hierarchy.levels.0.num_clusters \(16\) must be less .* \(15\)"):
        balanced("cluster.num_clusters=5", "hierarchy.splits=3")


def test_groups_close_once_they_are_full() -> None:
    starts = np.array([0, 3, 3, 10, 11, 12, 12])
    assert split_leaves.group_clusters(starts, 4) == [range(3), range(3, 6)]
    assert split_leaves.group_clusters(starts, 1) == [
        range(1),
        range(1, 3),
        range(3, 4),
        range(4, 5),
        range(5, 6),
    ]
    assert split_leaves.group_clusters(starts, 100) == [range(6)]
    assert split_leaves.group_clusters(np.array([0]), 100) == []


@pytest.mark.parametrize("max_products", [1, 1 << 35])
def test_a_level_above_too_few_clusters_is_refused(
    balanced: Any, run_quietly: Any, monkeypatch: pytest.MonkeyPatch, max_products: int
) -> None:
    """Also where the level would go in steps. Fewer clusters than are configured: the pool is small."""
    monkeypatch.setattr("curation.cluster.config._MAX_PRODUCTS", max_products)
    with pytest.raises(ConfigError, match="no fewer clusters than the level below"):
        run_quietly(balanced("cluster.num_clusters=400", "hierarchy.levels=[{num_clusters: 390}]"))


def test_long_clusterings_go_in_steps_with_the_same_result(
    balanced: Any, run_quietly: Any, digests: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_quietly(balanced(name="at-once"))
    asked: list[str] = []
    find = Runner.run_inside

    def noted(self: Runner, step: Step, items: Any, **more: Any) -> Any:
        asked.append(step.name)
        return find(self, step, items, **more)

    monkeypatch.setattr(Runner, "run_inside", noted)
    monkeypatch.setattr("curation.cluster.config._MAX_PRODUCTS", 1000)
    config = balanced(name="in-steps")
    run_quietly(config)
    assert {"kmeans_sums", "cluster_labels", "level_states"} <= set(asked)
    assert digests(Path(config.run_dir)) == digests(Path(config.run_dir).parent / "at-once")
