"""Duplicate components: how large they are, how close their edges, and some of them to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64

from curation.dedup.pairs import DedupConfig
from pipelines.parts import read
from pipelines.report.charts import Bar, Chart, Graph, draw_bars, draw_graph
from pipelines.report.evidence import Steps
from pipelines.report.pictures import Lineage, Picture, sample
from pipelines.report.scan import Scan, find_members
from pipelines.step import FileRef

NUM_LARGEST, NUM_WEAKEST, NUM_TYPICAL = 3, 3, 6
MAX_MEMBERS = 12
MAX_EDGES = 24
COSINE_BINS = 40
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
class EdgeScores:
    """How the scores of one kind of edge are spread."""

    kind: str
    num: int
    chart: Chart
    note: str


@dataclass(frozen=True)
class Duplicates:
    """All that the page says of copies."""

    num_components: int
    num_rows: int
    sizes: Chart | None
    scores: tuple[EdgeScores, ...]
    components: tuple[Component, ...]

    def pictures(self) -> list[Picture]:
        """In the order shown."""
        return [member for component in self.components for member in component.members]


def gather_duplicates(
    lineage: Lineage, scanned: Scan, steps: Steps | None, *, config: DedupConfig, seed: int
) -> Duplicates:
    """Choose components and collect their members and edges; without `steps` there are no edges."""
    size = scanned.component_size
    numbers = np.flatnonzero(size)
    weakest = _weakest(steps, len(size))
    chosen = choose_components(size, weakest, seed=seed)
    rows = find_members(lineage, "component", numbers=chosen, num_samples=MAX_MEMBERS, seed=seed)
    leaders = _representatives(steps, chosen)
    for number, leader in leaders.items():
        if leader not in rows[number]:
            rows[number][-1] = leader
    pictures = lineage.pictures([row for some in rows.values() for row in some.tolist()])
    edges, scores = _edges(steps, np.unique(np.concatenate([*rows.values(), np.zeros(0, np.int64)])), config)
    components = []
    for number, why in chosen.items():
        members = _ordered([pictures[row] for row in rows[number].tolist()], leaders.get(number))
        mine = _edges_of(members, edges)
        links = [(edge.a, edge.b, edge.score) for edge in mine]
        components.append(
            Component(
                number,
                why,
                int(size[number]),
                float(weakest[number]) if np.isfinite(weakest[number]) else None,
                tuple(members),
                tuple(mine[:MAX_EDGES]),
                len(mine),
                draw_graph(len(members), links) if steps is not None and len(members) > 2 else None,
            )
        )
    chart = _size_chart(size[numbers]) if len(numbers) else None
    return Duplicates(len(numbers), int(size.sum()), chart, tuple(scores), tuple(components))


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


def _weakest(steps: Steps | None, num: int) -> Float64[np.ndarray, " c"]:
    if steps is None:
        return np.full(num, np.inf)
    return read(steps.health, ["weakest"])["weakest"].to_numpy()


def _representatives(steps: Steps | None, chosen: Mapping[int, str]) -> dict[int, int]:
    if steps is None:
        return {}
    copies = read(steps.copies, ["component", "representative"])
    component = copies["component"].to_numpy()
    mine = np.flatnonzero(np.isin(component, list(chosen)))
    leader = copies["representative"].take(pa.array(mine)).to_numpy()
    return dict(zip(component[mine].tolist(), leader.tolist(), strict=True))


def _ordered(members: Sequence[Picture], leader: int | None) -> list[Picture]:
    """The representative first; without knowing it, those that dedup did not drop. Then the closest ones."""
    return sorted(
        members,
        key=lambda m: (m.row != leader, m.stage == "dedup", -(m.score or 0.0), m.row),
    )


def _edges_of(members: Sequence[Picture], edges: pa.Table) -> list[Edge]:
    place = {member.row: i for i, member in enumerate(members)}
    found = [
        Edge(place[e["a"]], place[e["b"]], e["score"], e["kind"])
        for e in edges.to_pylist()
        if e["a"] in place and e["b"] in place
    ]
    # Rows of equal bytes are collapsed before the join: their edges are known without one.
    first: dict[str, int] = {}
    for i, member in enumerate(members):
        if member.image_id is not None and (j := first.setdefault(member.image_id, i)) != i:
            found.append(Edge(j, i, 1.0, "exact"))
    return sorted(found, key=lambda e: (e.score, e.a, e.b, e.kind))


def _edges(
    steps: Steps | None, rows: Int64[np.ndarray, " m"], config: DedupConfig
) -> tuple[pa.Table, list[EdgeScores]]:
    """The edges among some rows, and the spread of all scores; one file in memory at a time."""
    empty = pa.table({"a": [], "b": [], "score": [], "kind": []})
    if steps is None:
        return empty, []
    among, phash = [], np.zeros(65, np.int64)
    floor = config.saved_from or 0.0
    cosine_bins = np.linspace(floor, 1, COSINE_BINS + 1)
    cosine = np.zeros(COSINE_BINS, np.int64)
    for file in steps.edges:
        for edges in _by_kind(file):
            kind, score = edges["kind"][0].as_py(), edges["score"].to_numpy()
            if kind == "phash":
                phash += np.bincount(np.rint(64 * (1 - score)).astype(np.int64), minlength=65)
            else:
                cosine += np.histogram(np.clip(score, floor, 1), cosine_bins)[0]
            inside = np.isin(edges["a"].to_numpy(), rows) & np.isin(edges["b"].to_numpy(), rows)
            decides = np.ones(len(score), bool) if kind == "phash" else score >= (config.cosine_threshold or 0)
            among.append(edges.filter(pa.array(inside & decides)))
    return pa.concat_tables(among) if among else empty, _spread(phash, cosine, cosine_bins, config)


def _by_kind(file: FileRef) -> list[pa.Table]:
    edges = read(file)
    edges = edges.set_column(3, "kind", edges["kind"].cast(pa.string()))
    kinds = edges["kind"].to_numpy()
    return [part for kind in ("phash", "cosine") if len(part := edges.filter(pa.array(kinds == kind)))]


def _spread(
    phash: Int64[np.ndarray, " 65"],
    cosine: Int64[np.ndarray, " b"],
    cosine_bins: Float64[np.ndarray, " b1"],
    config: DedupConfig,
) -> list[EdgeScores]:
    spread = []
    if config.phash_radius is not None:
        bars = [
            Bar(str(d), int(phash[d]), int(phash[d]), f"distance {d}: {phash[d]:,} edges")
            for d in range(config.phash_radius + 1)
        ]
        note = f"bits of 64 in which two perceptual hashes differ; an edge up to {config.phash_radius}"
        spread.append(EdgeScores("perceptual hash", int(phash.sum()), draw_bars(bars), note))
    if config.cosine_threshold is not None:
        bars = []
        for low, high, count in zip(cosine_bins[:-1], cosine_bins[1:], cosine.tolist(), strict=True):
            decides = count if low >= config.cosine_threshold else 0
            bars.append(Bar(f"{low:.2f}", count, decides, f"{low:.3f} – {high:.3f}: {count:,} edges"))
        note = f"cosine of two descriptors; an edge from {config.cosine_threshold}, lighter ones are only saved"
        spread.append(EdgeScores("cosine", int(cosine.sum()), draw_bars(bars), note))
    return spread


def _size_chart(size: Int64[np.ndarray, " c"]) -> Chart:
    bounds = [b for b in SIZE_BOUNDS if b <= size.max()] + [int(size.max()) + 1]
    bars = []
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        num = int(np.count_nonzero((size >= low) & (size < high)))
        label = str(low) if high == low + 1 else f"{low}–{high - 1}"
        bars.append(Bar(label, num, num, f"{label} images: {num:,} components"))
    return draw_bars(bars)
