"""Equal rows are collapsed before a join: a placeholder a million times over costs a star, not a square."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float16, Int64, UInt8, UInt64
from numpy import ndarray

from curation.runs import places_of_runs, run_starts
from curation.search.edges import Pairs

# Descriptors, or miniatures.
Rows = Float16[ndarray, "n d"] | UInt8[ndarray, "n d"]
OtherRows = Float16[ndarray, "m d"] | UInt8[ndarray, "m d"]
Search = Callable[[Rows, OtherRows], Pairs]


@dataclass(frozen=True)
class Groups:
    """Rows with equal codes: the first row of every group, and the group of every row.

    Groups of vectors are numbered by their first rows: what stands for them keeps the order of rows, which
    breaks ties.
    """

    first: Int64[ndarray, " g"]
    group: Int64[ndarray, " n"]

    @property
    def largest(self) -> int:
        """Rows of the largest group."""
        return int(np.bincount(self.group).max(initial=0))

    @property
    def stars(self) -> tuple[Int64[ndarray, " c"], Int64[ndarray, " c"]]:
        """Of every row that is not the first of its group: that first row, and the row itself, ascending."""
        first = self.first[self.group]
        copies = np.flatnonzero(first != np.arange(len(first)))
        return first[copies], copies

    def expand(self, groups: Int64[ndarray, " e"]) -> tuple[Int64[ndarray, " r"], Int64[ndarray, " e"]]:
        """The rows of some groups one after another, and how many rows each has."""
        rows, starts = self._members
        sizes = starts[groups + 1] - starts[groups]
        return rows[places_of_runs(starts[groups], sizes)], sizes

    @cached_property
    def _members(self) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " g1"]]:
        rows = np.argsort(self.group, kind="stable")
        return rows, np.searchsorted(self.group[rows], np.arange(len(self.first) + 1))


def equal_codes(codes: UInt64[ndarray, " n"]) -> Groups:
    """Group rows by equal codes, such as perceptual hashes."""
    _, first, group = np.unique(codes, return_index=True, return_inverse=True)
    return Groups(first.astype(np.int64), group.astype(np.int64))


def equal_vectors(vectors: Rows) -> Groups:
    """Group rows by equal vectors, bit for bit."""
    prints = fingerprints(vectors)
    by_print = np.lexsort((prints[:, 1], prints[:, 0]))
    is_new = run_starts(*prints[by_print].T)
    first = by_print[is_new]
    order = np.argsort(first)
    number = np.empty(len(first), np.int64)
    number[order] = np.arange(len(first))
    group = np.empty(len(prints), np.int64)
    group[by_print] = number[np.cumsum(is_new) - 1]
    return Groups(first[order], group)


def with_stars(pairs: Pairs, groups: Groups, *, has: np.ndarray | None = None) -> Pairs:
    """Add the link, of score 1, from the first row of every group to each of its other rows.

    Args:
        pairs: links between first rows.
        groups: of all rows.
        has: bool (n,), rows that have a code at all; None: all of them.
    """
    first, copies = groups.stars
    if has is not None:
        first, copies = first[has[copies]], copies[has[copies]]
    return _sorted(
        pairs,
        a=np.concatenate([pairs.a, first]),
        b=np.concatenate([pairs.b, copies]),
        score=np.concatenate([pairs.score, np.ones(len(copies))]),
    )


def collapsed_pairs(
    a: Rows,
    b: OtherRows,
    *,
    same: bool,
    every_a: bool = False,
    search: Search,
) -> Pairs:
    """Join distinct vectors alone, and link equal ones by score 1.

    What an fp16 vector scores with itself differs from 1 by its rounding; equal vectors score 1 all the same,
    so that a score of 1 says of every kind of edge: these are equal. Within `same` the first row of each
    group stands for its group, and every other row is linked to it alone. Between two sides first rows are
    linked. Components are those of all pairs.

    Args:
        a: fp16 (n, d), unit rows, or zeros where there is no vector; or uint8 (n, d), miniatures.
        b: (m, d), likewise.
        same: `b` is `a`.
        every_a: with same=False, link every row of `a`, not just the first of its group.
        search: joins the distinct rows: `curation.search.exact.cosine_pairs` with its settings.

    Returns:
        Pairs, sorted by (a, b).
    """
    groups_a = equal_vectors(a)
    if same:
        distinct = a[groups_a.first]
        found = search(distinct, distinct)  # first rows ascend, and so the ends of a pair stay in order
        found = replace(found, a=groups_a.first[found.a], b=groups_a.first[found.b])
        pairs = with_stars(found, groups_a, has=_is_vector(a))
        return replace(pairs, largest_group=groups_a.largest)
    groups_b = equal_vectors(b)
    found = _between(a[groups_a.first], b[groups_b.first], search=search)
    rows, columns, score = groups_a.first[found.a], groups_b.first[found.b], found.score
    if every_a:
        rows, repeats = groups_a.expand(found.a)
        columns, score = np.repeat(columns, repeats), np.repeat(score, repeats)
    largest = max(groups_a.largest, groups_b.largest)
    return replace(_sorted(found, a=rows, b=columns, score=score), largest_group=largest)


def _between(a: Rows, b: OtherRows, *, search: Search) -> Pairs:
    """Pairs of distinct rows; equal ones score 1, whether the search missed them or scored them otherwise."""
    found = search(a, b)
    prints = np.concatenate([fingerprints(a), fingerprints(b)])
    order = np.lexsort((prints[:, 1], prints[:, 0]))
    equal = np.flatnonzero((prints[order[1:]] == prints[order[:-1]]).all(axis=1))
    rows, columns = order[equal], order[equal + 1] - len(a)  # stable: the row of `a` comes first
    has = _is_vector(a[rows])
    rows, columns = rows[has], columns[has]
    is_equal = np.isin(found.a * len(b) + found.b, rows * len(b) + columns)
    return replace(
        found,
        a=np.concatenate([found.a[~is_equal], rows]),
        b=np.concatenate([found.b[~is_equal], columns]),
        score=np.concatenate([found.score[~is_equal], np.ones(len(rows))]),
    )


def _is_vector(rows: Rows) -> Bool[ndarray, " n"]:
    """False for a row of zeros: a slot that has no vector."""
    return np.asarray(rows.any(axis=1))


def _sorted(pairs: Pairs, *, a: np.ndarray, b: np.ndarray, score: np.ndarray) -> Pairs:
    order = np.lexsort((b, a))
    return replace(pairs, a=a[order], b=b[order], score=score[order])


def fingerprints(vectors: Rows) -> UInt64[ndarray, "n 2"]:
    """128 bits of BLAKE2b of every row: about 2 µs a row of 664 dimensions."""
    rows = np.ascontiguousarray(vectors)
    digests = (hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    return np.frombuffer(b"".join(digests), np.uint64).reshape(len(rows), 2)
