"""Runs: of equal values in sorted arrays, and of items that have enough work in them together."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from jaxtyping import Int32, Int64

T = TypeVar("T")


def place_in_run(values: Int32[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Each element's place within its run of equal values."""
    starts = np.flatnonzero(np.diff(values, prepend=values[:1] - 1))
    return np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))


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
