"""Exact range search over 64-bit perceptual hashes.

Equal hashes are collapsed before the search, so that a million rows with the hash of one placeholder cost a
million edges and not their square: the first row of each group of equal hashes stands for its group, and
within one side every other row is linked to it alone (a star, score 1). Between groups only their first rows
are linked. Components are those of all pairs; edges are all pairs where hashes are distinct. Together the
results of pairs of blocks span the same components as the result of the whole.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from curation.errors import ConfigError
from curation.search.collapse import equal_codes, with_stars
from curation.search.edges import EdgeCollector, Pairs
from curation.search.installed import load_faiss, range_search


def hamming_pairs(
    a: UInt64[ndarray, " n"],
    b: UInt64[ndarray, " m"],
    *,
    radius: int,
    same: bool,
    every_a: bool = False,
    max_edges_per_row: int | None = None,
) -> Pairs:
    """Find the pairs of hashes within a Hamming radius; score = 1 - distance / 64.

    Args:
        a: uint64 (n,), hashes.
        b: uint64 (m,), likewise.
        radius: largest distance of a pair, bits, 0 to 64.
        same: `b` is `a`: each pair once, a < b.
        every_a: with same=False, link every row of `a` to the first rows of `b`'s groups, for where each
            needs a verdict of its own.
        max_edges_per_row: see `curation.search.edges.limit_edges`; None for all. A star is never limited.

    Returns:
        Pairs, sorted by (a, b).

    Raises:
        ConfigError: a radius that is no number of bits, or every_a with same.
    """
    _check(radius, same=same, every_a=every_a)
    groups_a = equal_codes(a)
    groups_b = groups_a if same else equal_codes(b)
    collector = EdgeCollector(len(a), len(b), same, max_edges_per_row)
    for i, j, apart in _search(a[groups_a.first], b[groups_b.first], radius=radius, same=same):
        rows, columns, score = groups_a.first[i], groups_b.first[j], 1 - apart / 64
        if every_a:
            rows, repeats = groups_a.expand(i)
            columns, score = np.repeat(columns, repeats), np.repeat(score, repeats)
        if same:
            rows, columns = np.minimum(rows, columns), np.maximum(rows, columns)
        collector.add(rows, columns, score)
    pairs = with_stars(collector.pairs(), groups_a) if same else collector.pairs()
    return replace(pairs, largest_group=max(groups_a.largest, groups_b.largest))


def _check(radius: int, *, same: bool, every_a: bool) -> None:
    if not 0 <= radius <= 64:
        raise ConfigError("The Hamming radius is no distance of two hashes", got=radius, expected="0 to 64")
    if same and every_a:
        raise ConfigError("every_a asks for every row of one side, and same=True has only one side")


def _search(
    codes_a: np.ndarray, codes_b: np.ndarray, *, radius: int, same: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    if not radius:
        yield _equal(codes_a, codes_b, same=same)
        return
    bytes_a, bytes_b = (np.ascontiguousarray(x).view(np.uint8).reshape(-1, 8) for x in (codes_a, codes_b))
    new_index = partial(load_faiss().IndexBinaryFlat, 64)
    # FAISS keeps distance < radius.
    found = range_search(bytes_a, bytes_b, make_index=new_index, radius=radius + 1, same=same)
    for i, j, distance in found:
        yield i, j, distance.astype(np.float64)


def _equal(
    codes_a: np.ndarray, codes_b: np.ndarray, *, same: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is at distance 0: codes of one side differ, so a sort finds it."""
    if same:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, np.zeros(0)
    _, i, j = np.intersect1d(codes_a, codes_b, assume_unique=True, return_indices=True)
    return i, j, np.zeros(len(i))
