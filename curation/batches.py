"""Items gathered until there is enough work in them."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], *, size: Callable[[T], int], least: int) -> Iterator[list[T]]:
    """Cut items into runs that each close once they have a size of `least`; the last may have less.

    Args:
        items: in order.
        size: of an item; those of size 0 are kept too.
        least: of a run.
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
