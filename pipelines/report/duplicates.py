"""Duplicate components: how large they are, and some of them to look at, with their edges."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64

from curation.dedup.config import DedupConfig
from curation.dedup.edges import Edges
from curation.schema import EDGE_KINDS
from pipelines.answers.lineage import Lineage
from pipelines.lvd import Curated
from pipelines.report.charts import Bar, Chart, Graph, draw_bars, draw_graph
from pipelines.report.edges import EdgeScores, gather_edges
from pipelines.report.pictures import Picture, pictures_at, sample
from pipelines.report.scan import Scan, find_members
from pipelines.rows.parts import read

NUM_ALARMS, NUM_LARGEST, NUM_WEAKEST, NUM_TYPICAL = 4, 4, 4, 8
NUM_HUBS = 6
MAX_MEMBERS = 14
# Members of a component that are looked at before those that are shown are chosen.
MAX_CANDIDATES = 4096
MAX_EDGES = 24
SIZE_BOUNDS = (2, 3, 4, 5, 6, 11, 21, 51, 101, 1001)


@dataclass(frozen=True)
class Edge:
    """An edge between two of the members shown."""

    a: int  # position among the members
    b: int
    score: float
    kind: str


@dataclass(frozen=True)
class Component:
    """One component to look at: its representative first."""

    number: int
    why: str  # why it is shown
    size: int
    health: Mapping[str, Any] | None  # a row of schema.HEALTH
    weakest: tuple[Picture, Picture] | None  # the ends of the weakest edge
    ends: tuple[Picture, Picture] | None  # of the longest path
    members: tuple[Picture, ...]
    edges: tuple[Edge, ...]  # weakest first
    num_edges: int
    graph: Graph | None


@dataclass(frozen=True)
class Hub:
    """An image with very many edges."""

    picture: Picture
    num_edges: int
    num_equal: int


@dataclass(frozen=True)
class Duplicates:
    """All that the page says of copies."""

    num_components: int
    num_rows: int
    num_alarms: int
    rule: str  # what makes an edge
    sizes: Chart | None
    scores: tuple[EdgeScores, ...]
    components: tuple[Component, ...]  # alarms first, then the largest
    hubs: tuple[Hub, ...]

    def pictures(self) -> list[Picture]:
        """In the order shown."""
        members = [member for component in self.components for member in component.members]
        return [*members, *(hub.picture for hub in self.hubs)]


def gather_duplicates(
    lineage: Lineage, scanned: Scan, made: Curated | None, *, config: DedupConfig, seed: int
) -> Duplicates:
    """Choose components and collect their members and edges; without `made` there are no edges."""
    size = scanned.component_size
    health = _Health(made, len(size))
    why = choose_components(size, health.weakest, alarm=health.alarm, seed=seed)
    candidates = find_members(lineage, "component", wanted=why, num_samples=MAX_CANDIDATES, seed=seed)
    leaders = _representatives(made, why)
    looked_at = [*leaders.values(), *(row for n in why for row in health.rows(n))]
    every = np.unique(np.concatenate([np.array(looked_at, np.int64), *candidates.values()]))
    edges, scores = gather_edges(made, every, config=config)
    chosen = {
        n: choose_members(rows, edges, leader=leaders.get(n), first=health.rows(n))
        for n, rows in candidates.items()
    }
    hubs = read(made.copies.hubs).slice(0, NUM_HUBS).to_pylist() if made is not None else []
    shown = [row for rows in chosen.values() for row in rows] + [hub["row"] for hub in hubs]
    pictures = pictures_at(lineage, shown)
    components = [
        _component(
            n, why[n], [pictures[row] for row in chosen[n]], edges, size=int(size[n]), health=health.of(n)
        )
        for n in sorted(why, key=lambda n: (not health.alarm[n], -size[n], n))
    ]
    sizes = size[size > 0]
    return Duplicates(
        num_components=len(sizes),
        num_rows=int(sizes.sum()),
        num_alarms=int(health.alarm.sum()),
        rule=_rule(config),
        sizes=_size_chart(sizes) if len(sizes) else None,
        scores=tuple(scores),
        components=tuple(components),
        hubs=tuple(Hub(pictures[hub["row"]], hub["num_edges"], hub["num_equal"]) for hub in hubs),
    )


class _Health:
    """The health of all components; nothing is known where intermediate data is gone."""

    def __init__(self, made: Curated | None, num: int) -> None:
        self._table = None if made is None else read(made.copies.health)
        self.weakest = np.full(num, np.inf)
        self.alarm = np.zeros(num, bool)
        if self._table is not None:
            self.weakest = self._table["weakest"].to_numpy()
            self.alarm = self._table["alarm"].to_numpy()

    def of(self, number: int) -> Mapping[str, Any] | None:
        """A component's row of `schema.HEALTH`."""
        return None if self._table is None else self._table.slice(number, 1).to_pylist()[0]

    def rows(self, number: int) -> list[int]:
        """The images that tell whether a component is well: ends of its weakest edge and longest path."""
        health = self.of(number)
        names = ("weakest_a", "weakest_b", "end_a", "end_b")
        return [] if health is None else [health[name] for name in names]


def _rule(config: DedupConfig) -> str:
    makers = ["equal bytes"]
    if config.phash_radius is not None:
        makers.append(f"perceptual hashes at most {config.phash_radius} of 64 bits apart")
    if config.cosine_threshold is not None:
        makers.append(f"descriptors of a cosine of at least {config.cosine_threshold}")
    if config.pca_radius is not None:
        makers.append(f"PCA hashes at most {config.pca_radius} of 64 bits apart")
    if "pixels" in config.thresholds:
        makers.append(
            "where a picture has too little in it for hashes and descriptors, equal pixels, to within what "
            "re-encoding changes"
        )
    return (
        f"An edge is made by {', or '.join(makers)}. The score of hashes is 1 − distance / 64; a cosine of "
        "fp16 vectors may pass 1 by their rounding."
    )


def choose_components(
    size: Int64[np.ndarray, " c"],
    weakest: Float64[np.ndarray, " c"],
    *,
    alarm: Bool[np.ndarray, " c"],
    seed: int,
) -> dict[int, str]:
    """The components to show, and why: alarms, the largest, those with the weakest edges, some drawn by lot.

    Args:
        size: int64 (c,), by component number; 0 where there is none.
        weakest: float64 (c,), of their edges; infinite where not known.
        alarm: bool (c,), where a chain joins unlike images; the largest of them are shown.
        seed: of the lot.
    """
    numbers = np.flatnonzero(size)
    by_size = numbers[np.lexsort((numbers, -size[numbers]))]
    largest, chained = by_size[:NUM_LARGEST], by_size[alarm[by_size]][:NUM_ALARMS]
    chosen = dict.fromkeys(chained.tolist(), "a chain joins images that are not alike")
    chosen |= {int(n): "one of the largest" for n in largest if size[n] > 2 and n not in chosen}
    known = numbers[np.isfinite(weakest[numbers]) & (weakest[numbers] < 1)]
    loose = [n for n in known[np.lexsort((known, weakest[known]))].tolist() if n not in chosen]
    chosen |= dict.fromkeys(loose[:NUM_WEAKEST], "among the weakest edges")
    others = numbers[~np.isin(numbers, list(chosen))]
    return chosen | dict.fromkeys(sample(others, NUM_TYPICAL, seed=seed).tolist(), "drawn by lot")


def choose_members(
    rows: Int64[np.ndarray, " m"], edges: Edges, *, leader: int | None, first: Sequence[int] = ()
) -> list[int]:
    """The members of a component to show: its representative, its weakest link, its hubs, the rest by lot.

    Args:
        rows: global rows of the component in the order of the lot.
        edges: of this component and others.
        leader: the representative's row, where it is known.
        first: rows that must be among them, after the representative.
    """
    a, b, score = edges.a, edges.b, edges.score
    mine = np.flatnonzero(np.isin(a, rows))
    mine = mine[np.lexsort((b[mine], a[mine], score[mine]))]
    ends, degree = np.unique(np.concatenate([a[mine], b[mine]]), return_counts=True)
    hubs = ends[np.lexsort((ends, -degree))]
    weakest = [row for i in mine[:1].tolist() for row in (int(a[i]), int(b[i]))]
    ranked = (
        ([] if leader is None else [leader])
        + list(first)
        + weakest
        + hubs[: MAX_MEMBERS // 2].tolist()
        + rows.tolist()
    )
    return list(dict.fromkeys(ranked))[:MAX_MEMBERS]


def _component(
    number: int,
    why: str,
    members: Sequence[Picture],
    edges: Edges,
    *,
    size: int,
    health: Mapping[str, Any] | None,
) -> Component:
    leader = None if health is None else members[0].row
    # Without knowing the representative: it is among those that dedup did not drop. Then the closest to it.
    ordered = sorted(members, key=lambda m: (m.row != leader, m.stage == "dedup", -(m.score or 0.0), m.row))
    mine = _edges_of(ordered, edges)
    graph = None
    if mine and len(ordered) > 2:
        graph = draw_graph(len(ordered), [(edge.a, edge.b, edge.score) for edge in mine])
    by_row = {member.row: member for member in members}
    return Component(
        number,
        why,
        size,
        health,
        None if health is None else (by_row[health["weakest_a"]], by_row[health["weakest_b"]]),
        None if health is None else (by_row[health["end_a"]], by_row[health["end_b"]]),
        tuple(ordered),
        tuple(mine[:MAX_EDGES]),
        len(mine),
        graph,
    )


def _edges_of(members: Sequence[Picture], edges: Edges) -> list[Edge]:
    place = {member.row: i for i, member in enumerate(members)}
    mine = edges.take(np.isin(edges.a, list(place)) & np.isin(edges.b, list(place)))
    ends = zip(mine.a.tolist(), mine.b.tolist(), mine.score.tolist(), mine.kind.tolist(), strict=True)
    found = []
    for one, other, score, kind in ends:
        a, b = sorted((place[one], place[other]))
        found.append(Edge(a, b, score, EDGE_KINDS[kind]))
    # Rows of equal bytes are collapsed before the join: their edges are known without one.
    first: dict[str, int] = {}
    for i, member in enumerate(members):
        if member.image_id is not None and (j := first.setdefault(member.image_id, i)) != i:
            found.append(Edge(j, i, 1.0, "exact"))
    return sorted(found, key=lambda e: (e.score, e.a, e.b, e.kind))


def _representatives(made: Curated | None, numbers: Collection[int]) -> Mapping[int, int]:
    if made is None:
        return {}
    copies = read(made.copies.copies, ["component", "representative"])
    component = copies["component"].to_numpy()
    mine = np.flatnonzero(np.isin(component, list(numbers)))
    leader = copies["representative"].take(pa.array(mine)).to_numpy()
    return dict(zip(component[mine].tolist(), leader.tolist(), strict=True))


def _size_chart(size: Int64[np.ndarray, " c"]) -> Chart:
    bounds = [b for b in SIZE_BOUNDS if b <= size.max()] + [int(size.max()) + 1]
    bars = []
    for low, high in pairwise(bounds):
        num = int(np.count_nonzero((size >= low) & (size < high)))
        label = str(low) if high == low + 1 else f"{low}–{high - 1}"
        bars.append(Bar(label, num, num, f"{label} images: {num:,} components"))
    return draw_bars(bars)
