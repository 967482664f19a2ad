"""Runs: of equal values in sorted arrays, and of items that have enough work in them together."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int32, Int64

T = TypeVar("T")


def run_starts(*columns: np.ndarray) -> Bool[np.ndarray, "n"]:
    """Where a row differs from the one before in any of the columns; true for the first row."""
    is_new = np.ones(len(columns[0]), bool)
    is_new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return is_new


def place_in_run(values: Int32[np.ndarray, "n"] | Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Each element's place within its run of equal values."""
    starts = np.flatnonzero(run_starts(values))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


def places_of_runs(starts: Int64[np.ndarray, "r"], sizes: Int64[np.ndarray, "r"]) -> Int64[np.ndarray, "n"]:
    """The places of some runs, one run after another."""
    before = np.cumsum(sizes) - sizes
    return np.asarray(np.arange(sizes.sum()) + np.repeat(starts - before, sizes))


def batches(items: Iterable[T], *, size: Callable[[T], int], least: int) -> Iterator[list[T]]:
    """Cut items into runs that each close once they have a size of `least`; the last may have less.

    Args:
        size: of an item; those of size 0 are kept too.
    """
    held: list[T] = []
    total = 0
    for item in items:
        held.append(item)
        total += size(item)
        if total >= least:
            yield held
            held, total = [], 0
    if held:
        yield held
