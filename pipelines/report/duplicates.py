"""Duplicate components: how large they are, and some of them to look at, with their edges."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from curation.dedup.pairs import DedupConfig
from pipelines.parts import read
from pipelines.report.charts import Bar, Chart, Graph, draw_bars, draw_graph
from pipelines.report.edges import EdgeScores, read_edges
from pipelines.report.evidence import Steps
from pipelines.report.pictures import Lineage, Picture, sample
from pipelines.report.scan import Scan, find_members

NUM_LARGEST, NUM_WEAKEST, NUM_TYPICAL = 4, 4, 8
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
    weakest: float | None
    members: tuple[Picture, ...]
    edges: tuple[Edge, ...]  # weakest first
    num_edges: int
    graph: Graph | None


@dataclass(frozen=True)
class Duplicates:
    """All that the page says of copies."""

    num_components: int
    num_rows: int
    rule: str  # what makes an edge
    sizes: Chart | None
    scores: tuple[EdgeScores, ...]
    components: tuple[Component, ...]  # largest first

    def pictures(self) -> list[Picture]:
        """In the order shown."""
        return [member for component in self.components for member in component.members]


def gather_duplicates(
    lineage: Lineage, scanned: Scan, steps: Steps | None, *, config: DedupConfig, seed: int
) -> Duplicates:
    """Choose components and collect their members and edges; without `steps` there are no edges."""
    size = scanned.component_size
    weakest = _weakest(steps, len(size))
    why = choose_components(size, weakest, seed=seed)
    candidates = find_members(lineage, "component", numbers=why, num_samples=MAX_CANDIDATES, seed=seed)
    leaders = _representatives(steps, why)
    every = np.unique(np.concatenate([np.zeros(0, np.int64), *candidates.values()]))
    edges, scores = read_edges(
        steps, np.union1d(every, list(leaders.values())).astype(np.int64), config=config
    )
    chosen = {n: choose_members(rows, edges, leader=leaders.get(n)) for n, rows in candidates.items()}
    pictures = lineage.pictures([row for rows in chosen.values() for row in rows])
    components = [
        _component(
            n,
            why[n],
            [pictures[row] for row in chosen[n]],
            edges,
            leader=leaders.get(n),
            size=int(size[n]),
            weakest=float(weakest[n]),
        )
        for n in sorted(why, key=lambda n: (-size[n], n))
    ]
    sizes = size[size > 0]
    chart = _size_chart(sizes) if len(sizes) else None
    return Duplicates(len(sizes), int(sizes.sum()), _rule(config), chart, tuple(scores), tuple(components))


def _rule(config: DedupConfig) -> str:
    makers = ["equal bytes"]
    if config.phash_radius is not None:
        makers.append(f"perceptual hashes at most {config.phash_radius} of 64 bits apart")
    if config.cosine_threshold is not None:
        makers.append(f"descriptors of a cosine of at least {config.cosine_threshold}")
    return (
        f"An edge is made by {', or '.join(makers)}. The score of hashes is 1 − distance / 64; a cosine of "
        "fp16 vectors may pass 1 by their rounding."
    )


def choose_components(
    size: Int64[np.ndarray, " c"], weakest: Float64[np.ndarray, " c"], *, seed: int
) -> dict[int, str]:
    """The components to show, and why: the largest, those with the weakest edges, and some drawn by lot.

    Args:
        size: int64 (c,), by component number; 0 where there is none.
        weakest: float64 (c,), of their edges; infinite where not known.
        seed: of the lot.
    """
    numbers = np.flatnonzero(size)
    largest = numbers[np.lexsort((numbers, -size[numbers]))][:NUM_LARGEST]
    chosen = {int(n): "one of the largest" for n in largest if size[n] > 2}
    known = numbers[np.isfinite(weakest[numbers]) & (weakest[numbers] < 1)]
    loose = [n for n in known[np.lexsort((known, weakest[known]))].tolist() if n not in chosen]
    chosen |= dict.fromkeys(loose[:NUM_WEAKEST], "among the weakest edges")
    others = numbers[~np.isin(numbers, list(chosen))]
    return chosen | dict.fromkeys(sample(others, NUM_TYPICAL, seed=seed).tolist(), "drawn by lot")


def choose_members(rows: Int64[np.ndarray, " m"], edges: pa.Table, *, leader: int | None) -> list[int]:
    """The members of a component to show: its representative, its weakest link, its hubs, the rest by lot.

    Args:
        rows: global rows of the component in the order of the lot.
        edges: `schema.EDGES`, of this component and others.
        leader: the representative's row, where it is known.
    """
    a, b, score = (edges[name].to_numpy() for name in ("a", "b", "score"))
    mine = np.flatnonzero(np.isin(a, rows))
    mine = mine[np.lexsort((b[mine], a[mine], score[mine]))]
    ends, degree = np.unique(np.concatenate([a[mine], b[mine]]), return_counts=True)
    hubs = ends[np.lexsort((ends, -degree))]
    weakest = [row for i in mine[:1].tolist() for row in (int(a[i]), int(b[i]))]
    ranked = (
        ([] if leader is None else [leader]) + weakest + hubs[: MAX_MEMBERS // 2].tolist() + rows.tolist()
    )
    return list(dict.fromkeys(ranked))[:MAX_MEMBERS]


def _component(
    number: int,
    why: str,
    members: Sequence[Picture],
    edges: pa.Table,
    *,
    leader: int | None,
    size: int,
    weakest: float,
) -> Component:
    # Without knowing the representative: it is among those that dedup did not drop. Then the closest to it.
    ordered = sorted(members, key=lambda m: (m.row != leader, m.stage == "dedup", -(m.score or 0.0), m.row))
    mine = _edges_of(ordered, edges)
    graph = None
    if mine and len(ordered) > 2:
        graph = draw_graph(len(ordered), [(edge.a, edge.b, edge.score) for edge in mine])
    return Component(
        number,
        why,
        size,
        weakest if np.isfinite(weakest) else None,
        tuple(ordered),
        tuple(mine[:MAX_EDGES]),
        len(mine),
        graph,
    )


def _edges_of(members: Sequence[Picture], edges: pa.Table) -> list[Edge]:
    place = {member.row: i for i, member in enumerate(members)}
    inside = pa.array(
        np.isin(edges["a"].to_numpy(), list(place)) & np.isin(edges["b"].to_numpy(), list(place))
    )
    found = []
    for edge in edges.filter(inside).to_pylist():
        a, b = sorted((place[edge["a"]], place[edge["b"]]))
        found.append(Edge(a, b, edge["score"], edge["kind"]))
    # Rows of equal bytes are collapsed before the join: their edges are known without one.
    first: dict[str, int] = {}
    for i, member in enumerate(members):
        if member.image_id is not None and (j := first.setdefault(member.image_id, i)) != i:
            found.append(Edge(j, i, 1.0, "exact"))
    return sorted(found, key=lambda e: (e.score, e.a, e.b, e.kind))


def _weakest(steps: Steps | None, num: int) -> Float64[np.ndarray, " c"]:
    return np.full(num, np.inf) if steps is None else read(steps.health, ["weakest"])["weakest"].to_numpy()


def _representatives(steps: Steps | None, numbers: Collection[int]) -> Mapping[int, int]:
    if steps is None:
        return {}
    copies = read(steps.copies, ["component", "representative"])
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
