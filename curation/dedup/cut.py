"""Cuts chains: components whose members are not alike to their representative fall apart.

The rule. A representative keeps the members that are alike to it and that it reaches over edges among such
members. What is left falls apart into the components of the edges among itself, each of which has its own
best row as its representative, and so on. In the end all members of a piece are alike to its representative.
To cut the weakest edges one by one instead would peel a chain of edges of one strength into single images,
which are near copies of each other and would all stay.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from curation.dedup.components import choose_representatives, components

# Whether rows are alike to other rows: (r,) and (r,) → bool (r,).
IsAlike = Callable[[Int64[ndarray, " r"], Int64[ndarray, " r"]], Bool[ndarray, " r"]]


def cut_chains(
    rank: Int64[ndarray, " m"], a: Int64[ndarray, " e"], b: Int64[ndarray, " e"], *, is_alike: IsAlike
) -> Int64[ndarray, " m"]:
    """Cut every component until it is well; those that are well stay as they are.

    Args:
        rank: int64 (m,), of rows: the smallest of a piece is its representative; no two equal.
        a: int64 (e,), rows, one end of every edge.
        b: int64 (e,), the other.
        is_alike: compares rows with others directly.

    Returns:
        int64 (m,): the smallest row of the piece that each row is in.
    """
    labels = np.arange(len(rank))
    a, b = a[a != b], b[a != b]
    # Each round settles a representative and all that is alike to it in every component that is left.
    while len(a):
        left = choose_representatives(components(len(rank), a, b), rank)
        leader = np.arange(len(rank))
        leader[left.row] = left.representative
        stays = leader == np.arange(len(rank))
        asked = left.row[left.row != left.representative]
        stays[asked] = is_alike(asked, leader[asked])
        inside = stays[a] & stays[b]
        reached = components(len(rank), a[inside], b[inside])
        settled = left.row[reached[left.row] == reached[leader[left.row]]]
        labels[settled] = reached[settled]
        is_open = np.ones(len(rank), bool)
        is_open[settled] = False
        inside = is_open[a] & is_open[b]
        a, b = a[inside], b[inside]
    return labels
