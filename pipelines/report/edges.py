"""The saved edges of dedup: those among some rows, and how all scores are spread."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from curation.dedup.config import DedupConfig
from curation.dedup.edges import Edges
from curation.schema import EDGE_KINDS
from pipelines.lvd import Curated
from pipelines.report.charts import Bar, Chart, draw_bars
from pipelines.stages.copies.saved_edges import read_edges

COSINE_BINS = 30
HASHES = {"phash": "perceptual hash", "pca_hash": "PCA hash"}


@dataclass(frozen=True)
class EdgeScores:
    """How the scores of one kind of edge are spread."""

    kind: str
    num: int
    chart: Chart
    note: str


@dataclass
class _Spread:
    """Counts of edges by distance of each hash, and by bin of the cosine."""

    hashes: dict[str, Int64[np.ndarray, " 65"]]
    cosine: Int64[np.ndarray, " b"]
    deciding: Int64[np.ndarray, " b"]  # of these, the ones at the threshold or above
    bounds: Float64[np.ndarray, " b1"]


def gather_edges(
    made: Curated | None, rows: Int64[np.ndarray, " m"], *, config: DedupConfig
) -> tuple[Edges, list[EdgeScores]]:
    """The edges among some rows that decide something, and the spread of all that were saved.

    Args:
        made: where the edges are; without them there are none.
        rows: global rows.
        config: thresholds.

    Returns:
        Edges by global rows, and the spread of every kind in use. One file of edges is in memory at a time.
    """
    bounds = np.linspace(config.saved_from or 0.0, 1, COSINE_BINS + 1)
    none = np.zeros(COSINE_BINS, np.int64)
    spread = _Spread({kind: np.zeros(65, np.int64) for kind in HASHES}, none, none, bounds)
    among = []
    for file in made.copies.edges if made is not None else ():
        edges = read_edges(file)
        decides = edges.reach(config.thresholds)
        for name in HASHES:
            distance = np.rint(64 * (1 - edges.score[edges.kind == EDGE_KINDS.index(name)])).astype(np.int64)
            spread.hashes[name] += np.bincount(distance, minlength=65)
        is_cosine = edges.kind == EDGE_KINDS.index("cosine")
        _count(spread, edges.score[is_cosine], decides=decides[is_cosine])
        among.append(edges.take(decides & np.isin(edges.a, rows) & np.isin(edges.b, rows)))
    return Edges.joined(among), _charts(spread, config) if made is not None else []


def _count(spread: _Spread, score: Float64[np.ndarray, " e"], *, decides: Bool[np.ndarray, " e"]) -> None:
    within = np.clip(score, spread.bounds[0], 1)  # a cosine of fp16 vectors may pass 1
    spread.cosine = spread.cosine + np.histogram(within, spread.bounds)[0]
    spread.deciding = spread.deciding + np.histogram(within[decides], spread.bounds)[0]


def _charts(spread: _Spread, config: DedupConfig) -> list[EdgeScores]:
    charts = []
    for kind, radius in (("phash", config.phash_radius), ("pca_hash", config.pca_radius)):
        if radius is not None:
            counts = spread.hashes[kind][: radius + 1].tolist()
            bars = [Bar(str(d), n, n, f"distance {d}: {n:,} edges") for d, n in enumerate(counts)]
            note = f"bits of 64 in which two {HASHES[kind]}es differ; an edge up to {radius}"
            charts.append(EdgeScores(HASHES[kind], sum(counts), draw_bars(bars), note))
    if config.cosine_threshold is not None:
        bars = []
        edges = np.stack([spread.cosine, spread.deciding], axis=1).tolist()
        for low, high, (num, num_deciding) in zip(spread.bounds[:-1], spread.bounds[1:], edges, strict=True):
            bars.append(Bar(f"{low:.2f}", num, num_deciding, f"{low:.4f} – {high:.4f}: {num:,} edges"))
        note = f"cosine of two descriptors, on a logarithmic scale; an edge from {config.cosine_threshold}"
        if config.saved_from != config.cosine_threshold:
            note += "; paler ones are saved and decide nothing"
        charts.append(EdgeScores("cosine", int(spread.cosine.sum()), draw_bars(bars, is_log=True), note))
    return charts
