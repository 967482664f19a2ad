"""What saved edges decide: components, the row of each that stays, and how healthy they are.

Both the dedup step and the question what another threshold would decide come here.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from curation.dedup.components import CopyRows, Forest, choose_representatives, copies_table
from curation.dedup.config import DedupConfig
from curation.dedup.cut import cut_chains
from curation.dedup.edges import Edges
from curation.dedup.health import component_edges, component_health, health_table
from curation.dedup.likeness import Likeness, compare, hash_scores
from curation.schema import EDGE_KINDS, HUBS
from curation.search.miniatures import miniature_scores
from pipelines.rows.arrow_columns import numbers
from pipelines.rows.parts import Part, column, gather_vectors, sha256_words
from pipelines.stages.copies.poor_pictures import gather_miniatures, has_miniature, is_poor
from pipelines.stages.copies.saved_edges import DecidingEdges, EdgeFile
from pipelines.stages.copies.spool import spooled

# Rows are compared directly in runs of so many, to bound the vectors held.
COMPARE_ROWS = 1 << 16
MAX_HUBS = 100
# A row with fewer edges than this is nothing to look at.
MIN_HUB_EDGES = 16


@dataclass(frozen=True)
class Decision:
    """`schema.COPIES`, `schema.HEALTH` and `schema.HUBS`.

    num_cut: components that were cut. num_dropped: edges that the limit let go once all pairs of blocks met.
    """

    copies: pa.Table
    health: pa.Table
    hubs: pa.Table
    num_cut: int
    num_dropped: int


def components_of(
    edges: Iterable[Edges], num_rows: int, *, by_pixels: bool = True
) -> Int64[np.ndarray, " n"]:
    """The smallest row of every row's component; with `by_pixels=False` of the other edges alone."""
    forest = Forest(num_rows)
    for piece in edges:
        mine = piece if by_pixels else piece.take(piece.kind != EDGE_KINDS.index("pixels"))
        forest.join(mine.a, mine.b)
    return forest.labels()


def files_compared(kinds: Container[str]) -> tuple[str, ...]:
    """Names of the parts' files that a `Comparer` by these kinds reads."""
    by_kind = {"cosine": "copy_vectors", "pca_hash": "pca_hashes"}
    return ("described", *(file for kind, file in by_kind.items() if kind in kinds))


class Comparer:
    """Compares images of parts (with `files_compared`) directly, by every kind that a rule uses."""

    def __init__(self, parts: Sequence[Part], rule: DedupConfig) -> None:
        self._parts = parts
        self._thresholds = rule.thresholds
        self._words = sha256_words(parts)
        self._is_poor, self._has_miniature = is_poor(parts), has_miniature(parts)
        self._hashes = {}
        for kind, file in (("phash", "described"), ("pca_hash", "pca_hashes")):
            if kind in self._thresholds:
                hashes = column(parts, file, kind)
                has = hashes.is_valid().to_numpy() & ~self._is_poor
                self._hashes[kind] = numbers(hashes, null=0), has

    def compare(self, rows: Int64[np.ndarray, " r"], others: Int64[np.ndarray, " r"]) -> Likeness:
        """Each row with the other of its place."""
        pieces = [
            self._compare(rows[start : start + COMPARE_ROWS], others[start : start + COMPARE_ROWS])
            for start in range(0, max(len(rows), 1), COMPARE_ROWS)
        ]
        score = np.concatenate([piece.score for piece in pieces])
        return Likeness(score, np.concatenate([piece.likeness for piece in pieces]))

    def _compare(self, rows: np.ndarray, others: np.ndarray) -> Likeness:
        by_kind = {}
        for kind, (hashes, has) in self._hashes.items():
            by_kind[kind] = hash_scores(hashes[rows], hashes[others], has=has[rows] & has[others])
        if "cosine" in self._thresholds:
            from curation.dedup.cosines import cosine_scores  # torch, which hashes alone do not wait for

            by_kind["cosine"] = cosine_scores(self._vectors(rows), self._vectors(others))
        if "pixels" in self._thresholds:
            by_kind["pixels"] = self._pixel_scores(rows, others)
        return compare(by_kind, is_exact=self.is_exact(rows, others), thresholds=self._thresholds)

    def compares_pixels(self, rows: Int64[np.ndarray, " r"]) -> Bool[np.ndarray, " r"]:
        """Which rows are compared by their pixels."""
        return self._has_miniature[rows] if "pixels" in self._thresholds else np.zeros(len(rows), bool)

    def is_exact(self, rows: np.ndarray, others: np.ndarray) -> Bool[np.ndarray, " r"]:
        """Where bytes are equal."""
        return np.asarray((self._words[rows] == self._words[others]).all(axis=1))

    def _vectors(self, rows: np.ndarray) -> np.ndarray:
        ascending, place = np.unique(rows, return_inverse=True)
        vectors = gather_vectors(self._parts, "copy_vectors", ascending)
        vectors[self._is_poor[ascending]] = 0
        return vectors[place]

    def _pixel_scores(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        scores = np.full(len(rows), -np.inf)
        both = np.flatnonzero(self._has_miniature[rows] & self._has_miniature[others])
        left, right = (gather_miniatures(self._parts, ends[both]) for ends in (rows, others))
        scores[both] = miniature_scores(left, right)
        return scores


def deciding_edges(
    firsts: Int64[np.ndarray, "n 2"], files: Sequence[EdgeFile], *, num_rows: int, rule: DedupConfig
) -> DecidingEdges:
    """Equal bytes, and the saved edges that a rule lets decide."""
    limit = rule.max_edges_per_row
    return DecidingEdges(files, rule.thresholds, num_rows=num_rows, max_edges_per_row=limit, firsts=firsts)


def decide(
    parts: Sequence[Part],
    firsts: Int64[np.ndarray, "n 2"],
    files: Sequence[EdgeFile],
    *,
    rank: Int64[np.ndarray, " m"],
    rule: DedupConfig,
) -> Decision:
    """Decide which rows are copies of which.

    Args:
        parts: of the run; with `files_compared`.
        firsts: every usable row, and the one with the same bytes that stood for it in the join.
        files: the saved edges.
        rank: every global row's claim to survive, smaller is better.
        rule: thresholds, at or above those that edges were saved from.
    """
    num_rows = parts[-1].offset + parts[-1].num_rows
    edges = deciding_edges(firsts, files, num_rows=num_rows, rule=rule)
    comparer = Comparer(parts, rule)
    labels, num_cut = component_labels(edges, comparer, rank=rank, rule=rule)
    copies = choose_representatives(labels, rank)
    members = comparer.compare(copies.row, copies.representative)
    health = component_health(copies, edges, num_rows=num_rows, thresholds=rule.thresholds, sort=spooled)
    ends = comparer.compare(health.end_a, health.end_b)
    is_exact = comparer.is_exact(copies.row, copies.representative)
    return Decision(
        copies_table(copies, is_exact=is_exact, scores=members.score),
        health_table(health, copies=copies, members=members, ends=ends, alarm_below=rule.alarm_below),
        hubs_table(edges, num_rows),
        num_cut,
        edges.num_dropped,
    )


def component_labels(
    edges: Iterable[Edges], comparer: Comparer, *, rank: Int64[np.ndarray, " n"], rule: DedupConfig
) -> tuple[Int64[np.ndarray, " n"], int]:
    """A row of every row's component that is the same for all of it, and how many components were cut.

    Edges by pixels chain: a row of greys, each a copy of the next, leads from black to white. Hence no row
    stays with a representative over pixels alone unless the two are copies directly. Chains of other edges
    are cut where the rule says so.
    """
    labels = components_of(edges, len(rank))
    copies = choose_representatives(labels, rank)
    members = comparer.compare(copies.row, copies.representative)
    bonds = labels
    if _may_chain_by_pixels(copies, members, comparer):
        bonds = components_of(edges, len(rank), by_pixels=False)
    cut = _Cut(comparer, bonds, rule.alarm_below if rule.cut_chains else None)
    is_apart = ~cut.keeps(members, copies.row, copies.representative)
    return _cut(copies, is_apart, edges, rank=rank, cut=cut) if is_apart.any() else (labels, 0)


def _may_chain_by_pixels(copies: CopyRows, members: Likeness, comparer: Comparer) -> bool:
    """Whether a component has both pictures that are compared by pixels and a member that is no copy."""
    has_pixels = np.zeros(int(copies.component.max(initial=-1)) + 1, bool)
    has_pixels[copies.component[comparer.compares_pixels(copies.row)]] = True
    return bool((has_pixels[copies.component] & (members.likeness < 1)).any())


@dataclass(frozen=True)
class _Cut:
    """Tells which rows may stay with a representative.

    bonds: labels of the components without edges by pixels. alarm_below: the likeness that rows of such a
    component must have; None for any.
    """

    comparer: Comparer
    bonds: Int64[np.ndarray, " n"]
    alarm_below: float | None

    def keeps(self, likeness: Likeness, rows: np.ndarray, others: np.ndarray) -> Bool[np.ndarray, " r"]:
        """Of pairs that were compared."""
        is_bound = self.bonds[rows] == self.bonds[others]
        if self.alarm_below is not None:
            is_bound &= likeness.likeness >= self.alarm_below
        return np.asarray(is_bound | (likeness.likeness >= 1))

    def is_alike(self, rows: np.ndarray, one: np.ndarray, other: np.ndarray) -> Bool[np.ndarray, " r"]:
        """Compares some of `rows`, by place, with others."""
        return self.keeps(self.comparer.compare(rows[one], rows[other]), rows[one], rows[other])


def _cut(
    copies: CopyRows,
    is_apart: Bool[np.ndarray, " r"],
    edges: Iterable[Edges],
    *,
    rank: Int64[np.ndarray, " n"],
    cut: _Cut,
) -> tuple[Int64[np.ndarray, " n"], int]:
    """The label of every row once the components of rows that are apart are cut, and how many these are."""
    labels = np.arange(len(rank))
    labels[copies.row] = copies.representative
    wanted = np.zeros(int(copies.component.max(initial=-1)) + 1, bool)
    wanted[copies.component[is_apart]] = True
    for batch in component_edges(copies, edges, num_rows=len(rank), wanted=wanted, sort=spooled):
        mine = (copies.component >= batch.first) & (copies.component < batch.last)
        rows = copies.row[mine & wanted[copies.component]]
        a, b = np.searchsorted(rows, batch.edges.a), np.searchsorted(rows, batch.edges.b)
        labels[rows] = rows[cut_chains(rank[rows], a, b, is_alike=partial(cut.is_alike, rows))]
    return labels, int(wanted.sum())


def hubs_table(edges: Iterable[Edges], num_rows: int) -> pa.Table:
    """The rows with the most edges, ties by row: `schema.HUBS`."""
    degree, equal = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
    for piece in edges:
        is_equal = piece.score == 1
        for end in (piece.a, piece.b):
            np.add.at(degree, end, 1)
            np.add.at(equal, end[is_equal], 1)
    rows = np.flatnonzero(degree >= MIN_HUB_EDGES)
    rows = rows[np.lexsort((rows, -degree[rows]))][:MAX_HUBS]
    return pa.Table.from_arrays([pa.array(x) for x in (rows, degree[rows], equal[rows])], schema=HUBS)
