"""A run of which nothing survives ends as an empty dataset, however its steps are cut or searched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.run import EMPTY
from pipelines.stages.cluster import seeding
from pipelines.stages.retrieve import retrieve

NONE_PASSES = "judge.min_side_px=100000"
LEVELS = ("hierarchy.levels=[{num_clusters: 2}]", "hierarchy.resampling_steps=1")


@pytest.mark.parametrize(
    "overrides",
    [
        ("cluster.num_clusters=2",),
        ("cluster.num_clusters=2", "cluster.group_rows=1"),
        ("cluster.group_rows=1",),
        (*LEVELS, "select.balanced={num_images: 5}"),
        (*LEVELS, "hierarchy.splits=2", "cluster.group_rows=1"),
        ("dedup.search=cells",),
        ("dedup.search=cells", "dedup.cells.num_cells=4", "dedup.block_rows=1", "dedup.cells.group_rows=1"),
        ("describe.descriptor=gist", "dedup.pca_radius=4", "dedup.cosine_threshold=0.9"),
        ("pools.trusted.retrieve={method: sample, search: ivf}",),
        ("pools.trusted.retrieve={method: cluster}",),
        ("decontaminate.by=component",),
    ],
    ids="; ".join,
)
def test_nothing_survives(
    overrides: tuple[str, ...],
    *,
    configure: Callable[..., Any],
    run_quietly: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieve, "QUERY_ROWS", 7)
    monkeypatch.setattr(retrieve, "TARGET_ROWS", 50)
    monkeypatch.setattr(seeding, "MANY_ROWS", 0)
    result = run_quietly(configure(tmp_path / "run", NONE_PASSES, *overrides))
    assert result.exit_code == EMPTY


@pytest.mark.parametrize(
    "overrides",
    [
        ("cluster.group_rows=1", "dedup.search=cells"),
        ("cluster.num_clusters=4", *LEVELS, "hierarchy.splits=2", "select.balanced={num_images: 5}"),
        ("pools.trusted.retrieve={method: sample, search: ivf}",),
    ],
    ids="; ".join,
)
def test_nothing_of_the_pool_survives(
    overrides: tuple[str, ...],
    *,
    configure: Callable[..., Any],
    run_quietly: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieve, "QUERY_ROWS", 7)
    (tmp_path / "web").mkdir()
    for number in range(3):
        (tmp_path / "web" / f"{number}.png").write_bytes(b"no picture")
    sources = f"pools.web.sources=[{{kind: folder, path: {tmp_path / 'web'}}}]"
    result = run_quietly(configure(tmp_path / "run", sources, *overrides))
    assert result.exit_code == 0
    assert result.manifest["counts"]["dataset"] > 0
