"""The funnel's geometry: bands as thick as what is left of a pool, drops as thick as what went."""

import re

import pytest

from curation.schema import STAGES
from pipelines.report.funnel import BAND_PX, HEAD_PX, MAX_LINES, draw_funnel


def levels(pool: str, num: int, drops: dict[str, dict[str, int]]) -> list[dict]:
    found = []
    for stage in STAGES:
        dropped = drops.get(stage, {})
        out = num - sum(dropped.values())
        found.append({"pool": pool, "stage": stage, "in": num, "out": out, "dropped": dropped})
        num = out
    return found


def test_band_and_drop_by_hand() -> None:
    drops = {"dedup": {"exact_copy": 10, "near_copy": 40}, "retrieve": {"not_retrieved": 25}}
    [lane] = draw_funnel(levels("web", 100, drops), {"web": "uncurated"}, {"web": 25})
    assert [(c.stage, c.num_out) for c in lane.columns] == [("dedup", 50), ("retrieve", 25)]
    bottoms = [float(y) - HEAD_PX for y in re.findall(r"V ([\d.]+)", lane.band)]
    assert bottoms == pytest.approx([BAND_PX / 4, BAND_PX / 2, BAND_PX])
    drop = lane.columns[0].drop
    assert drop is not None
    assert (drop.num, drop.lines, drop.num_more) == (50, ((40, "near_copy"), (10, "exact_copy")), 0)
    assert f"M {lane.columns[0].x:.1f} {HEAD_PX + BAND_PX / 2:.1f}" in drop.path


def test_columns_line_up_over_pools() -> None:
    both = levels("a", 10, {"judge": {"too_small": 1}}) + levels("b", 5, {"select": {"holdout": 5}})
    a, b = draw_funnel(both, {"a": "uncurated", "b": "holdout"}, {"a": 9, "b": 0})
    assert [(c.x, c.stage) for c in a.columns] == [(c.x, c.stage) for c in b.columns]
    assert [c.drop is not None for c in a.columns] == [True, False]
    assert f"H {b.columns[1].x:.1f} V" in b.band  # ends where its last image goes


def test_one_in_a_million_is_seen() -> None:
    [lane] = draw_funnel(
        levels("a", 10**6, {"dedup": {"near_copy": 10**6 - 1}}), {"a": "uncurated"}, {"a": 1}
    )
    assert f"V {HEAD_PX + 1.5:.1f}" in lane.band


def test_many_reasons_are_summed_up() -> None:
    dropped = {name: 10 - i for i, name in enumerate(["empty", "corrupt", "truncated", "not_an_image"])}
    dropped |= {"unreadable": 2, "too_many_pixels": 1}
    [lane] = draw_funnel(levels("a", 50, {"describe": dropped}), {"a": "uncurated"}, {"a": 13})
    drop = lane.columns[0].drop
    assert drop is not None
    assert len(drop.lines) == MAX_LINES - 1
    assert sum(num for num, _ in drop.lines) + drop.num_more == drop.num == sum(dropped.values())


@pytest.mark.parametrize("num", [0, 3])
def test_pool_with_nothing_to_draw(num: int) -> None:
    [lane] = draw_funnel(levels("a", num, {}), {"a": "curated"}, {"a": num})
    assert lane.columns == ()
    assert bool(lane.band) == bool(num)
    assert draw_funnel([], {"a": "curated"}, {"a": 0})[0].num_in == 0
