"""Geometry of the page's small charts: columns of counts, and a graph on a circle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

CHART_HEIGHT_PX = 120
MAX_BAR_PX = 56
GRAPH_RADIUS_PX = 62
GRAPH_SIDE_PX = 160


@dataclass(frozen=True)
class Bar:
    """One column of a chart: its label, its count, and the part of the count that is drawn darker."""

    label: str
    num: float
    num_dark: float = 0.0
    hint: str = ""


@dataclass(frozen=True)
class DrawnBar:
    """A column in px, y downwards."""

    bar: Bar
    x: float
    width: float
    height: float
    dark_height: float


@dataclass(frozen=True)
class Chart:
    """Columns of counts."""

    bars: tuple[DrawnBar, ...]
    width: float
    height: float
    has_labels: bool
    most: int  # the largest count, rounded


def draw_bars(
    bars: Sequence[Bar], *, width: float = 360.0, has_labels: bool = True, is_log: bool = False
) -> Chart:
    """Lay out columns side by side, the largest as high as the chart.

    Args:
        bars: from left to right.
        width: of the chart, px.
        has_labels: whether columns are labelled; without, they stand close.
        is_log: whether heights are logarithmic, so that one is seen beside a million.
    """
    step = width / max(len(bars), 1)
    gap = max(0.25 * step, step - MAX_BAR_PX) if has_labels else min(1.0, 0.15 * step)
    most = max((bar.num for bar in bars), default=0.0)
    top = math.log1p(most) if is_log else most

    def height(num: float) -> float:
        return max(CHART_HEIGHT_PX * (math.log1p(num) if is_log else num) / top, 1.0) if num else 0.0

    drawn = [
        DrawnBar(bar, i * step + gap / 2, step - gap, height(bar.num), height(bar.num_dark))
        for i, bar in enumerate(bars)
    ]
    return Chart(tuple(drawn), width, CHART_HEIGHT_PX, has_labels, round(most))


def rank_bars(
    sizes: Int64[np.ndarray, " n"],
    dark: Int64[np.ndarray, " n"],
    numbers: Int64[np.ndarray, " n"],
    *,
    noun: str,
    max_bars: int = 140,
) -> list[Bar]:
    """Columns of sizes, largest first; where there are too many, each stands for the mean of a run of them.

    Args:
        sizes: int64 (n,), descending.
        dark: int64 (n,), the part of each that is drawn darker.
        numbers: int64 (n,), by which each is known elsewhere.
        noun: what is counted, for the hints.
        max_bars: columns at most.
    """
    cuts = np.unique(np.linspace(0, len(sizes), min(len(sizes), max_bars) + 1).round().astype(np.int64))
    bars = []
    for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        mean, mean_dark = float(sizes[start:stop].mean()), float(dark[start:stop].mean())
        alone = stop == start + 1
        which = f"{noun} {numbers[start]}" if alone else f"{noun}s {start + 1}–{stop} by size, mean"
        bars.append(Bar("", mean, mean_dark, f"{which}: {mean:,.0f}, of these {mean_dark:,.0f} kept"))
    return bars


@dataclass(frozen=True)
class DrawnEdge:
    """A line between two nodes, px."""

    x1: float
    y1: float
    x2: float
    y2: float
    is_weakest: bool
    hint: str


@dataclass(frozen=True)
class Graph:
    """Nodes on a circle in their order, clockwise from the top, and links between them."""

    nodes: tuple[tuple[float, float], ...]
    links: tuple[DrawnEdge, ...]
    side: int


def draw_graph(num_nodes: int, links: Sequence[tuple[int, int, float]]) -> Graph:
    """Lay out a graph.

    Args:
        num_nodes: how many nodes.
        links: two nodes and a score each.
    """
    middle, nodes = GRAPH_SIDE_PX / 2, []
    for i in range(num_nodes):
        angle = 2 * math.pi * i / num_nodes
        nodes.append(
            (
                round(middle + GRAPH_RADIUS_PX * math.sin(angle), 1),
                round(middle - GRAPH_RADIUS_PX * math.cos(angle), 1),
            )
        )
    scores = [score for _, _, score in links]
    weakest = min(scores) if scores and min(scores) < max(scores) else None
    drawn = [
        DrawnEdge(*nodes[a], *nodes[b], score == weakest, f"{a + 1}–{b + 1}: {score:.4f}")
        for a, b, score in links
    ]
    return Graph(tuple(nodes), tuple(drawn), GRAPH_SIDE_PX)
