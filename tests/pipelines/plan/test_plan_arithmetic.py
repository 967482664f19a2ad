"""The arithmetic of a plan, on made-up receipts and by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.errors import ConfigError
from curation.retrieve import ClusterRetrieval, SampleRetrieval
from pipelines.config.run_config import RunConfig, load_config, validate
from pipelines.engine.runner import StepState
from pipelines.engine.step import Receipt
from pipelines.plan.answer import Plan, PlanQuestion, images_of, make_plan
from pipelines.plan.estimate import StepEstimate, Workers, estimate
from pipelines.plan.how_far import steps_to_come
from pipelines.plan.rates import Rate, Spent, given_rates, rates_of, read_rates, with_drawn
from pipelines.plan.words import duration, plan_report
from pipelines.plan.work import forecast
from pipelines.rows.groups import AlikeParts
from pipelines.stages.forecast import Shares, Sizes
from pipelines.stages.retrieve.forecast import num_kept
from pipelines.stages.shard.forecast import kept_bytes

SHARES = Shares(
    joined=0.9, alive_curated=1.0, alive_pool=0.5, unique_hits=0.5, image_bytes=1000, embedding_dim=8
)


def config(**more: Any) -> RunConfig:
    folder = {"kind": "folder", "path": "/nowhere"}
    pools = {
        "trusted": {"role": "curated", "sources": [folder]},
        "web": {"role": "uncurated", "sources": [folder, folder]},
        "exam": {"role": "holdout", "sources": [folder]},
    }
    return validate({"pools": pools, "ingest": {"part_rows": 100}, **more}, where="a test")


def sizes(**more: Any) -> Sizes:
    return Sizes(config(**more), {"trusted": 200, "web": 1000, "exam": 50}, SHARES)


def receipt(step: str, work_s: float, num_bytes: int = 0, **facts: Any) -> Receipt:
    timings = {"work_s": work_s, "cpu_s": 2 * work_s, "publish_s": 0.0, "ended": work_s}
    return Receipt(step, "id", "folder", {"a": (num_bytes, "sha")}, facts, timings)


def of(steps: Sequence[StepEstimate], name: str) -> StepEstimate:
    [step] = [step for step in steps if step.work.name == name]
    return step


def test_sizes_by_hand() -> None:
    some = sizes(dedup={"block_rows": 400}, cluster={"num_clusters": 10})
    assert some.total == 1250
    assert some.num_parts == 2 + 10 + 1
    assert (some.pool, some.alive) == (500, 700)
    # 200 curated images, and 4 neighbours of each, of which a half are the same as another's.
    assert num_kept(some) == 200 + 400
    assert kept_bytes(some) == 600_000


def test_the_work_by_hand() -> None:
    works = {
        work.name: work for work in forecast(sizes(dedup={"block_rows": 400}, cluster={"num_clusters": 10}))
    }
    assert works["describe"].units == 1250
    assert works["describe"].num_items == 13
    assert works["describe"].read_bytes == 1_250_000
    assert works["dedup_edges"].units == 1080**2 / 2
    assert works["dedup_edges"].num_items == 4 * 5 / 2
    assert works["decontaminate_edges"].units == 1200 * 50
    assert works["decontaminate_edges"].num_items == 1 + 3  # a block has images of one pool
    assert works["cluster"].units == (500 * 21 + 700) * 10
    assert works["retrieve"].units == 200 * 500
    assert works["shard"].units == 600
    for name in ("dedup_rows", "dedup_components", "decontaminate_leaks", "select", "lineage"):
        assert works[name].num_items == 1


def test_twice_the_images_is_four_times_the_pairs() -> None:
    small = sizes()
    large = Sizes(small.config, {name: 2 * n for name, n in small.images.items()}, SHARES)
    for before, after in zip(forecast(small), forecast(large), strict=True):
        grows = {"pairs": 4, "query × row": 4, "images": 2, "images written": 2}.get(before.unit)
        if grows:
            assert after.units == pytest.approx(grows * before.units, rel=0.01)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({}, []),
        (
            {"describe": {"descriptor": "gist"}, "dedup": {"pca_radius": 2, "phash_radius": None}},
            ["pca_fit", "pca_hash", "dedup_pca_edges"],
        ),
        (
            {"describe": {"descriptor": "gist"}, "dedup": {"cosine_threshold": 0.9, "search": "cells"}},
            [f"dedup_cell_edges{end}" for end in ("_cells", "_truth", "_recall", "_assign", "")],
        ),
        (
            {
                "cluster": {"num_clusters": 20},
                "hierarchy": {"splits": 2, "levels": [{"num_clusters": 8}, {"num_clusters": 3}]},
            },
            ["cluster_members", "cluster_splits", "cluster_leaves", "cluster_level", "cluster_level"],
        ),
    ],
)
def test_steps_of_every_kind_of_config(more: dict[str, Any], names: list[str]) -> None:
    plain = [work.name for work in forecast(sizes())]
    found = [work.name for work in forecast(sizes(**more))]
    added = list(found)
    for name in plain:
        if name in added:
            added.remove(name)
    assert added == names


def test_pictures_of_poor_hash_are_joined_where_there_are_any() -> None:
    plain = [work.name for work in forecast(sizes())]
    assert not [name for name in plain if "pixel" in name]
    shares = SHARES.model_copy(update={"joined_pixels": 0.5, "searched_pixels": 0.25, "holdout_pixels": 0.1})
    some = sizes(dedup={"block_rows": 400})
    works = {work.name: work for work in forecast(Sizes(some.config, some.images, shares))}
    assert (works["dedup_pixel_edges"].units, works["dedup_pixel_edges"].num_items) == (540**2 / 2, 3 * 4 / 2)
    leaks = works["decontaminate_pixel_edges"]
    assert (leaks.units, leaks.num_items) == (300 * 5, 2)
    names = list(works)
    assert names.index("dedup_pixel_edges") + 1 == names.index("dedup_components")
    assert names.index("decontaminate_pixel_edges") + 1 == names.index("decontaminate_leaks")


def staged(**sources: list[dict[str, Any]]) -> Sizes:
    pools = {name: {"role": "uncurated", "sources": own} for name, own in sources.items()}
    made = validate({"pools": pools}, where="a test")
    return Sizes(made, dict.fromkeys(sources, 1_000_000), SHARES.model_copy(update={"image_bytes": 1 << 20}))


def test_units_are_staged_side_by_side() -> None:
    """A list of a million URLs is staged by unit, not in one item; what has ranges is not staged."""
    urls = {"kind": "urls", "path": "/in/list.csv", "unit_rows": 5000}
    folder, tars = {"kind": "folder", "path": "/in/files"}, {"kind": "tars", "path": "/in/*.tar"}
    parquet, packed = {"kind": "parquet", "path": "/in/parquet"}, {"kind": "tars", "path": "/in/*.tar.GZ"}
    by_name = {work.name: work for work in forecast(staged(web=[urls], plain=[folder, tars]))}
    assert by_name["ingest_stage"].num_items == 200
    assert by_name["ingest_stage"].units == 1_000_000
    # A half of the images of either kind: 2,000 units of 512 MiB in all.
    by_name = {work.name: work for work in forecast(staged(web=[parquet, packed]))}
    assert by_name["ingest_stage"].num_items == 2 * math.ceil(500_000 / 512)
    assert "ingest_stage" not in {work.name for work in forecast(staged(web=[folder, tars]))}


def inverted_lists(**more: Any) -> Sizes:
    made = config(**more)
    rule = {"search": "ivf", "neighbours": 4, "ivf": {"shard_rows": 400, "num_lists": 10, "num_probes": 2}}
    pool = made.pools["trusted"]
    ivf = pool.model_copy(update={"retrieve": SampleRetrieval.model_validate(rule)})
    pools = {**made.pools, "trusted": ivf}
    return Sizes(made.model_copy(update={"pools": pools}), sizes().images, SHARES)


def test_inverted_lists_are_priced_as_such() -> None:
    works = {work.key: work for work in forecast(inverted_lists())}
    assert "retrieve" not in works
    assert works["retrieve_index"].units == 500 * 10 * 10  # a sample of 640 rows has no more than the pool
    assert works["retrieve_shards"].num_items == 3
    assert works["retrieve_shards"].units == 500 * 10 + 200 * 500 * 2 / 10 + 200 * 500
    assert works["retrieve_merge"].units == 200 * 4 * 3


def test_pieces_are_done_with_their_step() -> None:
    rates = dict.fromkeys(("retrieve_index", "retrieve_shards"), Rate(Spent(0.1)))
    for done in (0, 1):
        states = [StepState("retrieve", "retrieve", 1, done, 0)]
        steps = estimate(inverted_lists(), rates, Workers(1, ""), states=states)
        assert [step.wall_s == 0 for step in steps if step.work.within] == [bool(done)] * 2
    plan = Plan([], [], steps, inverted_lists(), Workers(1, ""), None, [])
    assert "no rate is known of" in (text := "\n".join(plan_report(plan, explain=False)))
    assert "retrieve_merge" in text
    assert "retrieve_index" not in steps_to_come([StepState("retrieve", "retrieve", 1, 1, 0)], config())


def test_rates_of_made_up_receipts() -> None:
    some = replace(sizes(), listed=(AlikeParts("trusted", 2, 100), AlikeParts("web", 1, 1050)))
    receipts = {
        "judge": [receipt("judge", 2.0, num_bytes=500), receipt("judge", 3.0, num_bytes=750)],
        "shard": [receipt("shard", 6.0, num_bytes=60_000)],
        # The first to end has loaded a model: 1 s for 100 images, and 9 s besides.
        "describe": [
            receipt("describe", 10.0, num_rows=100),
            receipt("describe", 11.0, num_rows=1000),
            receipt("describe", 12.0, num_rows=400),
        ],
    }
    rates = rates_of(some, receipts, source="a test")
    assert rates["judge"].unit.wall_s == 5 / 1250
    assert rates["judge"].unit.cpu_s == 10 / 1250
    assert rates["judge"].written_bytes == 1.0
    assert rates["shard"].unit.wall_s == 6 / 600
    assert rates["describe"].unit.wall_s == 23 / 1400
    assert rates["describe"].by_pool == {
        "trusted": Spent(11 / 1000, 22 / 1000),
        "web": Spent(12 / 400, 24 / 400),
    }
    assert rates["describe"].start.wall_s == pytest.approx(10 - 100 * 23 / 1400)
    assert "select" not in rates


def test_steps_of_one_name_have_a_receipt_each() -> None:
    """A curated pool retrieves in one way or another."""
    made = sizes()
    trusted = made.config.pools["trusted"]
    by_cluster = trusted.model_copy(update={"retrieve": ClusterRetrieval()})
    pools = {"shapes": by_cluster, **made.config.pools, "colours": trusted}
    images = {**made.images, "shapes": 30, "colours": 20}
    some = Sizes(made.config.model_copy(update={"pools": pools}), images, SHARES)
    receipts = {"retrieve": [receipt("retrieve", float(seconds)) for seconds in (1, 10, 100)]}
    rates = rates_of(some, receipts, source="a test")
    assert rates["retrieve_by_cluster"].unit == Spent(1 / 1300, 2 / 1300)
    assert rates["retrieve"].unit.wall_s == pytest.approx(110 / (220 * 500))


def test_a_small_join_is_overhead() -> None:
    some = sizes()  # 1,080 images: 583,200 pairs
    measured = rates_of(some, {"dedup_edges": [receipt("dedup_edges", 5.0)]}, source="a test")
    rate = with_drawn(measured, {"dedup_edges": Rate(Spent(1e-9), source="drawn")}, some)["dedup_edges"]
    assert rate.unit.wall_s == 1e-9
    items = next(work.num_items for work in forecast(some) if work.name == "dedup_edges")
    assert rate.item.wall_s * items == pytest.approx(5.0, rel=1e-3)


def test_a_billion_images_after_a_run_of_sixty_are_within_reason() -> None:
    """One item's file and start are overhead of an item, and what it has found grows with the images."""
    poor = SHARES.model_copy(
        update=dict.fromkeys(("joined_pixels", "searched_pixels", "holdout_pixels"), 1 / 60)
    )
    pools = {"web": 60, "exam": 4}
    few = Sizes(config(pools={name: config().pools[name].model_dump() for name in pools}), pools, poor)
    names = {
        work.name: [receipt(work.name, 1.0, 830)] * work.num_items
        for work in forecast(few)
        if work.unit not in ("images", "images written")
    }
    assert {"dedup_edges", "dedup_pixel_edges", "decontaminate_pixel_edges", "cluster"} <= names.keys()
    drawn = {name: Rate(Spent(1e-7), source="drawn") for name in names}
    rates = with_drawn(rates_of(few, names, source="a test"), drawn, few)
    many = Sizes(few.config, {"web": 10**9, "exam": 10**4}, poor)
    steps = {step.work.name: step for step in estimate(many, rates, Workers(1, "of a test"))}
    for name in names:
        assert steps[name].written_bytes == 830 * steps[name].num_items
        assert steps[name].written_bytes < 1e12
    pixels = steps["dedup_pixel_edges"]
    hours = (1e-7 * (10**9 * 0.9 / 60) ** 2 / 2 + pixels.num_items) / 3600
    assert pixels.wall_s == pytest.approx(3600 * hours, rel=0.01)


def test_what_joins_find_grows_with_the_images() -> None:
    some = sizes()
    items = next(work.num_items for work in forecast(some) if work.name == "dedup_edges")
    receipts = [receipt("dedup_edges", 5.0, 5000 if i else 10_096) for i in range(items)]
    rate = rates_of(some, {"dedup_edges": receipts}, source="a test")["dedup_edges"]
    assert (rate.written_bytes, rate.item_bytes) == (0.0, 4096)
    assert rate.image_bytes == (6000 + 904 * (items - 1)) / 1250
    [step] = [
        one for one in estimate(some, {"dedup_edges": rate}, Workers(1, "")) if one.work.name == "dedup_edges"
    ]
    assert step.written_bytes == pytest.approx(sum(receipt.files["a"][0] for receipt in receipts))


def test_hours_on_workers_by_hand() -> None:
    rates = {
        "describe": Rate(Spent(0.1), start=Spent(5.0), written_bytes=16.0),
        "select": Rate(Spent(0.01)),
        "judge": Rate(Spent(0.001), item=Spent(1.0)),
    }
    one, four = (estimate(sizes(), rates, Workers(num, "of a test")) for num in (1, 4))
    assert of(one, "describe").work_s == of(one, "describe").wall_s == 125 + 5
    # 13 parts on 4 workers go in 4 waves; each worker loads its model.
    assert of(four, "describe").work_s == 125 + 4 * 5
    assert of(four, "describe").wall_s == pytest.approx(4 * 125 / 13 + 5)
    assert of(four, "describe").written_bytes == 20_000
    assert of(four, "select").wall_s == of(one, "select").wall_s == 12.5  # nobody can help
    assert of(four, "judge").wall_s == pytest.approx(4 * (1.25 / 13 + 1))
    assert of(four, "shard").wall_s is None


def test_what_is_done_costs_nothing() -> None:
    states = [StepState("describe", "describe", 13, 13, 0), StepState("judge", "judge", 13, 10, 300)]
    rates = {"describe": Rate(Spent(0.1), start=Spent(5.0)), "judge": Rate(Spent(0.01))}
    steps = estimate(sizes(), rates, Workers(1, ""), states=states)
    assert of(steps, "describe").wall_s == 0
    assert of(steps, "judge").wall_s == pytest.approx(12.5 * 3 / 13)
    assert of(steps, "select").num_done == 0
    assert of(estimate(sizes(), rates, Workers(1, "")), "select").num_done is None  # imagined


def test_given_workers_do_what_the_file_rates() -> None:
    rates = {"describe": Rate(Spent(0.1), is_given=True), "select": Rate(Spent(0.01))}
    workers = Workers(1, "here", num_given=13, given_kind="GPU")
    steps = estimate(sizes(), rates, workers)
    assert of(steps, "describe").wall_s == pytest.approx(125 / 13)
    assert of(steps, "select").wall_s == 12.5


def test_the_papers_run() -> None:
    """1.2 billion images on 160 V100: hours by hand from the numbers of the file."""
    lvd142m = load_config("lvd142m.yaml", [])
    asked = PlanQuestion(images={"": 1_200_000_000}, rates="v100.yaml", nodes=20, gpus=8, measure=False)
    plan = make_plan(lvd142m, asked)
    assert plan.sizes is not None
    assert plan.sizes.images["web"] == 1_200_000_000
    assert plan.sizes.images["imagenet22k"] == 14_197_086
    images = 1_200_000_000 + sum(n for name, n in plan.sizes.images.items() if name != "web")
    describe = of(plan.steps, "describe")
    assert describe.wall_s == pytest.approx(images / 158 / 160, rel=0.01)
    joined = images * plan.sizes.shares.joined
    assert of(plan.steps, "dedup_edges").wall_s == pytest.approx(joined**2 / 2 / 4.9e10 / 160, rel=0.01)
    assert plan.sizes.pool == 744_000_000
    lines = "\n".join(plan_report(plan, explain=True))
    assert "under two days" in lines
    assert "no rate is known of" in lines


def test_files_of_rates_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "rates.yaml"
    rate = {"per_s": 10, "unit": "pairs", "why": "a test"}
    file.write_text(yaml.safe_dump({"kind": "GPU", "rates": {"describe": rate}}))
    with pytest.raises(ConfigError, match="other units"):
        given_rates(read_rates(str(file)), config(), str(file))
    file.write_text(yaml.safe_dump({"kind": "GPU", "rates": {"describe": {"per_s": 10, "unit": "images"}}}))
    with pytest.raises(ConfigError, match="why"):
        read_rates(str(file))
    with pytest.raises(ConfigError, match="No rates"):
        read_rates(str(tmp_path / "none.yaml"))


def test_images_are_read_as_people_write_them() -> None:
    assert images_of(["1.2e9"]) == {"": 1_200_000_000}
    assert images_of(["web=5000", "trusted=1e3"]) == {"web": 5000, "trusted": 1000}
    assert images_of([]) is None
    for wrong in ("many", "web=", "0", "web=-3", "inf"):
        with pytest.raises(ConfigError):
            images_of([wrong])


def test_durations_read_well() -> None:
    assert [duration(s) for s in (None, 0.04, 99.9, 100, 5999, 36000)] == [
        "", "0.0 s", "99.9 s", "1.7 min", "100.0 min", "10.0 h",
    ]  # fmt: skip
