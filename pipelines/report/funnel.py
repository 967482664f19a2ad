"""The funnel as a picture: for every pool a band that runs through the stages and loses what they drop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curation.schema import STAGES, Role
from curation.shard.manifest import Level

PAGE_PX = 1140
MIN_COLUMN_PX, MAX_COLUMN_PX = 124, 190
BAND_PX = 56  # the whole pool; every pool has a scale of its own
HEAD_PX = 34
TONGUE_PX = 22  # how far what is dropped hangs below the band
LINE_PX = 15
MAX_LINES = 5


@dataclass(frozen=True)
class Drop:
    """What one stage takes off a band."""

    path: str
    num: int
    lines: tuple[tuple[int, str], ...]  # count and reason, largest first
    num_more: int  # images of the reasons that found no line


@dataclass(frozen=True)
class Column:
    """A stage as one band passes it."""

    x: float
    stage: str
    num_out: int
    drop: Drop | None


@dataclass(frozen=True)
class Lane:
    """One pool's band."""

    pool: str
    role: Role
    num_in: int
    num_kept: int
    columns: tuple[Column, ...]
    band: str  # SVG path, empty for an empty pool
    end: float  # where the last column begins, px
    width: float
    height: float
    text_y: float = HEAD_PX + BAND_PX + TONGUE_PX + 14  # of the first line below the tongues
    line_px: int = LINE_PX


def draw_funnel(levels: Sequence[Level], roles: Mapping[str, Role], kept: Mapping[str, int]) -> list[Lane]:
    """Lay out every pool's band.

    Args:
        levels: `funnel` of the manifest.
        roles: of the pools, in their order.
        kept: images of each pool in the dataset.
    """
    used = [s for s in STAGES if any(level["dropped"] for level in levels if level["stage"] == s)]
    column_px = min(max(PAGE_PX / (len(used) + 2), MIN_COLUMN_PX), MAX_COLUMN_PX)
    lanes = []
    for pool, role in roles.items():
        mine = {level["stage"]: level for level in levels if level["pool"] == pool}
        num_in = mine[STAGES[0]]["in"] if mine else 0
        stages = [mine[s] for s in used if mine]
        lanes.append(_lane(pool, role, stages, num_in=num_in, num_kept=kept[pool], column_px=column_px))
    return lanes


def _lane(
    pool: str,
    role: Role,
    levels: Sequence[Level],
    *,
    num_in: int,
    num_kept: int,
    column_px: float,
) -> Lane:
    columns, edge = [], [f"M 0 {HEAD_PX}"]
    thickness = _thickness(num_in, num_in)
    steps = []
    for i, level in enumerate(levels, start=1):
        x = i * column_px
        out = _thickness(level["out"], num_in)
        drop = _drop(x, level["dropped"], thickness, out) if level["dropped"] else None
        columns.append(Column(x, level["stage"], level["out"], drop))
        steps.append((x, thickness))
        thickness = out
    end_column = (len(levels) + 1) * column_px
    width = end_column + column_px
    end = width if num_kept else (steps[-1][0] if steps else 0.0)
    edge += [f"H {end:.1f}", f"V {HEAD_PX + thickness:.1f}"]
    for x, before in reversed(steps):
        edge += [f"H {x:.1f}", f"V {HEAD_PX + before:.1f}"]
    edge += ["H 0", "Z"]
    num_lines = max((len(c.drop.lines) + bool(c.drop.num_more) for c in columns if c.drop), default=0)
    below = TONGUE_PX + (num_lines + 1) * LINE_PX + 6 if num_lines else 8
    return Lane(
        pool,
        role,
        num_in,
        num_kept,
        tuple(columns),
        " ".join(edge) if num_in else "",
        end_column,
        width,
        HEAD_PX + BAND_PX + below,
    )


def _thickness(num: int, whole: int) -> float:
    """Of a band; one image in a million still is a line that can be seen."""
    return max(1.5, BAND_PX * num / whole) if num else 0.0


def _drop(x: float, dropped: Mapping[str, int], before: float, after: float) -> Drop:
    thick = max(before - after, 1.5)
    top, bottom = HEAD_PX + before - thick, HEAD_PX + before
    near, far, end = x + 10, x + 10 + thick, HEAD_PX + BAND_PX + TONGUE_PX
    path = (
        f"M {x:.1f} {top:.1f} Q {far:.1f} {top:.1f} {far:.1f} {bottom + 10:.1f} V {end} "
        f"H {near:.1f} V {bottom + 10:.1f} Q {near:.1f} {bottom:.1f} {x:.1f} {bottom:.1f} Z"
    )
    ranked = sorted(((num, reason) for reason, num in dropped.items()), key=lambda pair: (-pair[0], pair[1]))
    shown = ranked if len(ranked) <= MAX_LINES else ranked[: MAX_LINES - 1]
    num = sum(dropped.values())
    return Drop(path, num, tuple(shown), num - sum(n for n, _ in shown))
