"""What stages say that they have to do, against what a run has done: the same steps, of as many items."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipelines.stages
from pipelines.config.run_config import RunConfig
from pipelines.lvd import curate
from pipelines.plan.dry_run import dry_run
from pipelines.plan.known import known_run
from pipelines.plan.work import forecast
from pipelines.rows.groups import AlikeParts
from pipelines.rows.staged import STAGED_STEP
from pipelines.stages.cluster.forecast import forecast_cluster, num_clusters
from pipelines.stages.copies.forecast import forecast_decontaminate, forecast_dedup, forecast_pca_hashes
from pipelines.stages.describe.forecast import forecast_describe
from pipelines.stages.forecast import Shares, Sizes
from pipelines.stages.ingest.forecast import forecast_ingest
from pipelines.stages.retrieve.forecast import LIST_STEPS, forecast_retrieve, forecast_select
from pipelines.stages.shard.forecast import forecast_shard, kept_bytes

Configure = Callable[..., RunConfig]
STAGES = Path(pipelines.stages.__path__[0])
IN_BLOCKS = ("dedup.block_rows=60", "dedup.pca_radius=1", "decontaminate.pca_radius=1")
BY_CELLS = (
    "dedup.block_rows=60",
    "dedup.search=cells",
    "dedup.cells={group_rows: 60, min_recall: 0.1}",
    "hierarchy={splits: 2, levels: [{num_clusters: 6}, {num_clusters: 3}]}",
)


def items_by_step(config: RunConfig) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """What was forecast of a finished run, and what it did: items of every step, in order."""
    dry = dry_run(config, curate)
    assert dry.made is not None
    known = known_run(config, dry)
    assert known is not None
    told: dict[str, int] = {}
    for work in forecast(known.sizes):
        told[work.name] = told.get(work.name, 0) + work.num_items
    return list(told.items()), [(name, len(receipts)) for name, receipts in known.receipts.items()]


def test_every_step_of_a_run_is_told(configure: Configure, finished: Path) -> None:
    told, done = items_by_step(configure(finished))
    assert told == done
    assert {"ingest_units", "describe", "dedup_pixel_edges", "lineage"} <= dict(done).keys()


@pytest.mark.parametrize("overrides", [IN_BLOCKS, BY_CELLS], ids=["in_blocks", "by_cells"])
def test_other_ways_of_a_run_are_told(
    configure: Configure, tmp_path: Path, run_quietly: Callable[..., Any], overrides: tuple[str, ...]
) -> None:
    config = configure(tmp_path / "run", *overrides)
    assert run_quietly(config).exit_code == 0
    told, done = items_by_step(config)
    assert told == done
    assert dict(done)["decontaminate_edges"] > 2


def sizes(configure: Configure, *overrides: str, listed: tuple[AlikeParts, ...] = ()) -> Sizes:
    config = configure(Path("/nowhere"), "ingest.part_rows=100", *overrides)
    images = dict(zip(config.pools, (200, 1050, 50), strict=True))
    shares = Shares(alive_pool=0.8, image_bytes=1000, embedding_dim=8, descriptor_dim=4)
    return Sizes(config, images, shares, listed)


def test_imagined_parts_are_of_one_source(configure: Configure) -> None:
    """The pool has two sources, of one size as far as anybody knows."""
    some = sizes(configure)
    trusted, web, exam = some.config.pools
    assert [(alike.pool, alike.num_parts, alike.num_rows) for alike in some.parts] == [
        (trusted, 2, 100), (web, 5, 100), (web, 1, 25), (web, 5, 100), (web, 1, 25), (exam, 1, 50),
    ]  # fmt: skip
    assert some.num_parts == 15
    assert sizes(configure, listed=(AlikeParts(web, 3, 7),)).num_parts == 3


def test_each_stage_by_hand(configure: Configure) -> None:
    some = sizes(configure, "dedup.block_rows=300", "cluster.num_clusters=10", "shard.bucket_bytes=200000")
    units, listing = forecast_ingest(some)
    assert (units.name, units.num_items) == ("ingest_units", 1)  # a plain tar is not staged
    assert (listing.name, listing.num_items, listing.units) == ("ingest", 4, 1300)
    assert [work.num_items for work in forecast_describe(some)] == [15, 15]
    assert [work.loads_model for work in forecast_describe(some)] == [True, False]
    assert not list(forecast_pca_hashes(some))
    # Of web: runs of three parts of 100, then of 25 and 200 and 75 of the next ones, …
    edges = {work.name: work for work in forecast_dedup(some)}["dedup_edges"]
    assert edges.num_items == 5 * 6 / 2
    assert edges.units == 1250**2 / 2
    leaks = {work.name: work for work in forecast_decontaminate(some)}["decontaminate_edges"]
    assert (leaks.num_items, leaks.units) == (5, 1250 * 50)
    [flat] = forecast_cluster(some)
    assert (flat.num_items, flat.in_steps, num_clusters(some)) == (1, False, 10)
    [search] = forecast_retrieve(some)
    assert (search.units, search.num_items) == (200 * 840, 1)
    assert forecast_select(some).units == 1300
    buckets, lineage = forecast_shard(some)
    assert kept_bytes(some) == 1_040_000
    assert buckets.num_items == 6
    assert lineage.num_items == 1


@pytest.mark.parametrize("name", ["score", "ingest_stage", *LIST_STEPS])
def test_steps_that_no_run_here_has_are_named_as_their_stage_names_them(name: str) -> None:
    """They need weights, compressed tars, or so many images that lists are trained."""
    files = [path for path in STAGES.rglob("*.py") if path.name != "forecast.py"]
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert name in texts | {STAGED_STEP}
