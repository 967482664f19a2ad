"""Scored edges as arrays: which of them decide, how strong each is, and rows that are equal taken as one."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int8, Int64
from numpy import ndarray

from curation.runs import run_starts
from curation.schema import EDGE_KINDS


@dataclass(frozen=True)
class Edges:
    """Scored pairs of rows; kind indexes `schema.EDGE_KINDS`. A score of 1 says: these are equal.

    Among one set of rows a < b; of a search for leaks `a` is the image and `b` the holdout image.
    """

    a: Int64[ndarray, " e"]
    b: Int64[ndarray, " e"]
    score: Float64[ndarray, " e"]
    kind: Int8[ndarray, " e"]

    def __len__(self) -> int:
        return len(self.a)

    def take(self, where: Int64[ndarray, " k"] | Bool[ndarray, " e"]) -> "Edges":
        """Some of the edges, by position or by mask."""
        return Edges(self.a[where], self.b[where], self.score[where], self.kind[where])

    def reach(self, thresholds: Mapping[str, float]) -> Bool[ndarray, " e"]:
        """Which of them are at or above the threshold of their kind; of a kind that has none, none."""
        by_kind = np.array([thresholds.get(kind, np.inf) for kind in EDGE_KINDS])
        return np.asarray(self.score >= by_kind[self.kind])

    @staticmethod
    def of_kind(kind: str, a: np.ndarray, b: np.ndarray, score: np.ndarray) -> "Edges":
        """Edges that are all of one kind."""
        return Edges(a, b, score, np.full(len(a), EDGE_KINDS.index(kind), np.int8))

    @staticmethod
    def joined(pieces: list["Edges"]) -> "Edges":
        """Pieces one after another."""
        if not pieces:
            none = np.zeros(0, np.int64)
            return Edges(none, none, np.zeros(0), np.zeros(0, np.int8))
        return Edges(
            np.concatenate([piece.a for piece in pieces]),
            np.concatenate([piece.b for piece in pieces]),
            np.concatenate([piece.score for piece in pieces]),
            np.concatenate([piece.kind for piece in pieces]),
        )


def kind_column(kind: Int8[ndarray, " e"]) -> pa.DictionaryArray:
    """Kinds as the tables of edges, leaks and health have them."""
    return pa.DictionaryArray.from_arrays(pa.array(kind, pa.int8()), list(EDGE_KINDS))


def strength(edges: Edges, thresholds: Mapping[str, float]) -> Float64[ndarray, " e"]:
    """The likeness of the two ends: score / threshold of the kind, so that kinds compare; inf for equals.

    Args:
        edges: of kinds that have a threshold, or exact.
        thresholds: the score from which a pair is an edge, by kind.
    """
    by_kind = np.array([thresholds.get(kind, 1.0) for kind in EDGE_KINDS])
    return np.where(edges.score == 1, np.inf, edges.score / by_kind[edges.kind])


def distinct(edges: Edges) -> Edges:
    """Each pair once, by its highest score, sorted by (a, b)."""
    order = np.lexsort((edges.kind, -edges.score, edges.b, edges.a))
    edges = edges.take(order)
    return edges.take(run_starts(edges.a, edges.b))


def onto_roots(edges: Edges, roots: Int64[ndarray, " n"]) -> Edges:
    """Move the ends of edges of one kind to the smallest rows that are equal to them by that kind.

    Which of several equal rows an edge was found on depends on how rows were cut into blocks; the smallest
    does not. Edges among equal rows vanish: `stars` stands for them.
    """
    a, b = roots[edges.a], roots[edges.b]
    if np.array_equal(a, edges.a) and np.array_equal(b, edges.b):
        return edges
    moved = Edges(np.minimum(a, b), np.maximum(a, b), edges.score, edges.kind)
    return distinct(moved.take(a != b))


def stars(kind: str, roots: Int64[ndarray, " n"]) -> Edges:
    """An edge of score 1 from the smallest of equal rows to each of the others."""
    rows = np.flatnonzero(roots != np.arange(len(roots)))
    return Edges.of_kind(kind, roots[rows], rows, np.ones(len(rows)))
