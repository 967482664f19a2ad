"""Exact range search: every pair of vectors whose score reaches a threshold.

The score is the fp64 inner product of the stored fp16 vectors (`exact_scores`). A product in a cheaper
arithmetic only proposes: every pair within the error bound (1) of `curation.search.codes` of the threshold is
scored again. So the result does not depend on backend, arithmetic or tiles, and the results of pairs of
blocks together are the result of the whole. With a limit of edges they are once `limit_edges` was applied to
their union. Memory: one tile of products, its proposals, and the result.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float16
from numpy import ndarray

from curation.errors import ConfigError
from curation.runs import batches
from curation.search.backend import Backend, Device
from curation.search.codes import Codes, encode, error_bound, tail_norms
from curation.search.edges import EdgeCollector, Pairs
from curation.search.installed import load_faiss, range_search
from curation.search.product import (
    ProposeDtype,
    buffer_for,
    exact_scores,
    fastest_dtype,
    multiply,
    nonzero_rows,
    require_gpu,
    round_down,
    sums_in_fp32,
)

Proposals = Iterator[tuple[np.ndarray, np.ndarray]]

# Small enough (2 MB in int32) that products are still in a core's own cache when their row maxima are taken.
TILE_ROWS = 512
TILE_COLUMNS = 1024
# 1 GB of fp16 products: enough work between two questions of the CPU to a GPU.
_GPU_TILE_ROWS = 16_384
_GPU_TILE_COLUMNS = 32_768
_BATCH_PAIRS = 16_384
# Fewer products than this take less time than a look at what they need.
_MIN_PAIRS_TO_ASK = 10**9
_ASKED_ROWS, _ASKED_COLUMNS = 256, 8192
_MAX_NEAR = 3e-5  # of all pairs: each is scored, and its row multiplied by its tile's columns once more
_INT8_ERROR = 0.02
_MIN_HITS = 1 / 8  # of the rows of a tile: with more, products are searched while they are in the cache


def cosine_pairs(
    a: Float16[ndarray, "n d"],
    b: Float16[ndarray, "m d"],
    *,
    threshold: float,
    same: bool,
    backend: Backend = "torch",
    dtype: ProposeDtype | None = None,
    max_edges_per_row: int | None = None,
) -> Pairs:
    """Find all pairs of rows with score >= threshold, exactly.

    Args:
        a: fp16 (n, d), unit rows, or zeros where there is no vector.
        b: fp16 (m, d), likewise.
        threshold: smallest score of a pair, -1 to 1. A fp16 vector's score with itself may be 0.9995.
        same: `b` is `a`: find each pair once, a < b, and multiply the upper half only.
        backend: torch (blocked product), cuda (the same on a GPU), or faiss (IndexFlatIP.range_search, fp32).
        dtype: None: `fastest_dtype`. Of pairs just below the threshold bf16 proposes fewer than int8.
        max_edges_per_row: a row names its best edges only, see `limit_edges`; None for all.

    Returns:
        Pairs, sorted by (a, b).

    Raises:
        ConfigError: threshold or limit out of range, or no GPU.
        IntegrityError: a vector is not finite or not of unit length.
    """
    _check(a, b, threshold=threshold, same=same)
    rows_a = np.flatnonzero(nonzero_rows(a))
    rows_b = rows_a if same else np.flatnonzero(nonzero_rows(b))
    dense_a = a if len(rows_a) == len(a) else a[rows_a]
    dense_b = dense_a if same else (b if len(rows_b) == len(b) else b[rows_b])
    collector = EdgeCollector(len(a), len(b), same, max_edges_per_row)
    found = _proposals(dense_a, dense_b, threshold=threshold, same=same, tiles=_tiles(backend, dtype))
    for i, j in _in_batches(found):
        score = exact_scores(dense_a, dense_b, rows=i, columns=j)
        keep = score >= threshold
        collector.add(rows_a[i[keep]], rows_b[j[keep]], score[keep])
    return collector.pairs()


def _check(a: np.ndarray, b: np.ndarray, *, threshold: float, same: bool) -> None:
    if not -1 <= threshold <= 1:
        raise ConfigError("The cosine threshold is no cosine", got=threshold, expected="-1 to 1")
    if same and len(a) != len(b):
        raise ConfigError("same=True needs the same rows twice", got=f"{len(a)} and {len(b)} rows")


def _in_batches(proposals: Proposals) -> Proposals:
    """The same pairs, but not a few at a time: what is called for each batch costs more than a few scores."""
    for held in batches(proposals, size=lambda pairs: len(pairs[0]), least=_BATCH_PAIRS):
        yield np.concatenate([i for i, _ in held]), np.concatenate([j for _, j in held])


@dataclass(frozen=True)
class _Tiles:
    """What multiplies, and how much at once."""

    dtype: ProposeDtype
    device: Device
    num_rows: int
    num_columns: int


def _tiles(backend: Backend, dtype: ProposeDtype | None) -> _Tiles | None:
    """Of a blocked product; None: FAISS multiplies."""
    match backend:
        case "torch":
            return _Tiles(dtype or fastest_dtype(), "cpu", TILE_ROWS, TILE_COLUMNS)
        case "cuda":
            require_gpu("join", instead="torch or faiss")
            return _Tiles(dtype or fastest_dtype("cuda"), "cuda", _GPU_TILE_ROWS, _GPU_TILE_COLUMNS)
        case "faiss":
            return None


def _proposals(
    a: np.ndarray, b: np.ndarray, *, threshold: float, same: bool, tiles: _Tiles | None
) -> Proposals:
    if tiles is None:
        yield from _propose_faiss(a, b, threshold=threshold, same=same)
    else:
        with sums_in_fp32():
            yield from _propose_tiles(a, b, threshold=threshold, same=same, tiles=tiles)


def _propose_tiles(a: np.ndarray, b: np.ndarray, *, threshold: float, same: bool, tiles: _Tiles) -> Proposals:
    dtype, device, num_columns = tiles.dtype, tiles.device, tiles.num_columns
    num_leading = enough_leading(a, b, threshold=threshold) if device == "cpu" else None
    left = encode(a, dtype=dtype, device=device, num_leading=num_leading)
    # Columns whose tails are of like length share a tile, and the longest of a tile is near each one's own.
    by_tail = None if num_leading is None else np.argsort(tail_norms(b, num_leading), kind="stable")
    if same and by_tail is not None:
        left = left[by_tail]
    num_products = min(tiles.num_rows, len(a)) * min(num_columns, len(b))
    buffer = buffer_for(dtype, num_products=num_products, device=device)
    for column in range(0, len(b), num_columns):
        places = slice(column, column + num_columns)
        columns = encode(
            b[places] if by_tail is None else b[by_tail[places]],
            dtype=dtype,
            one_scale=True,
            device=device,
            num_leading=num_leading,
        )
        last_row = min(len(a), column + len(columns)) if same else len(a)
        for i, j in propose(left[:last_row], columns, threshold=threshold, buffer=buffer):
            yield _placed(i, j + column, same=same, by_tail=by_tail)


def _placed(
    i: np.ndarray, j: np.ndarray, *, same: bool, by_tail: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of places among rows in the order of tails as pairs of rows; of the same rows each pair once."""
    if not same:
        return i, j if by_tail is None else by_tail[j]
    upper = i < j
    i, j = i[upper], j[upper]
    if by_tail is None:
        return i, j
    return np.minimum(by_tail[i], by_tail[j]), np.maximum(by_tail[i], by_tail[j])


def enough_leading(a: Float16[ndarray, "n d"], b: Float16[ndarray, "m d"], *, threshold: float) -> int | None:
    """How many leading numbers of the vectors are enough to tell nearly all pairs from those that are near.

    By a sample of both sides. It decides about time alone: the bound takes in what is left out.

    Args:
        a: fp16 (n, d), unit rows.
        b: fp16 (m, d), likewise.
        threshold: smallest score of a pair.

    Returns:
        A multiple of 32, from 64 to half of d; None where all are needed, or too few pairs are joined to ask.
    """
    dim = a.shape[1]
    if len(a) * len(b) < _MIN_PAIRS_TO_ASK:
        return None
    i = np.arange(0, len(a), -(-len(a) // _ASKED_ROWS))
    j = np.arange(0, len(b), -(-len(b) // _ASKED_COLUMNS))
    some, others = a[i].astype(np.float32), b[j].astype(np.float32)
    differ = i[:, None] != j  # where both sides are the same rows, a row with itself tells nothing
    for num in range(64, dim // 2 + 1, 32):
        most = some[:, :num] @ others[:, :num].T + np.outer(tail_norms(some, num), tail_norms(others, num))
        if (differ & (most >= threshold - _INT8_ERROR)).mean() <= _MAX_NEAR:
            return num
    return None


def propose(rows: Codes, columns: Codes, *, threshold: float, buffer: torch.Tensor) -> Proposals:
    """Name the pairs that may reach the threshold: all that do, and a few that do not.

    Args:
        rows: codes (n, d), multiplied a tile at a time.
        columns: codes (m, d) with one scale.
        threshold: smallest score of a pair.
        buffer: of `buffer_for`; a tile has as many rows as it has room for, at least one.

    Yields:
        int64 (e,) twice, places among the rows and among the columns.
    """
    if not len(rows) or not len(columns):
        return
    reach = (threshold - error_bound(rows, columns)) / (rows.scale * columns.scale[:1])
    cut = round_down(reach, dtype=buffer.dtype).to(buffer.device)
    num_rows = max(len(buffer) // max(len(columns), 1), 1)
    first = 0
    for first in range(0, len(rows), num_rows):
        tile = slice(first, first + num_rows)
        products = multiply(rows.values[tile], columns.values, out=buffer)
        hit = torch.nonzero(products.amax(dim=1) >= cut[tile]).flatten()
        yield _reaching(products[hit], cut[tile][hit], hit + first)
        if len(hit) < _MIN_HITS * len(products):
            break
    # Where few rows have a pair, their maxima alone are kept, and those that may have one are multiplied once
    # more: it costs less than to ask after every tile.
    rest = slice(first + num_rows, len(rows))
    if rest.start >= rest.stop:
        return
    maxima = torch.empty_like(cut)
    for row in range(rest.start, rest.stop, num_rows):
        tile = slice(row, row + num_rows)
        torch.amax(multiply(rows.values[tile], columns.values, out=buffer), dim=1, out=maxima[tile])
    for hit in (torch.nonzero(maxima[rest] >= cut[rest]).flatten() + rest.start).split(num_rows):
        products = multiply(rows.values.index_select(0, hit), columns.values, out=buffer)
        yield _reaching(products, cut[hit], hit)


def _reaching(products: torch.Tensor, cut: torch.Tensor, rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    i, j = torch.nonzero(products >= cut[:, None], as_tuple=True)
    return rows[i].cpu().numpy(), j.cpu().numpy()


def _propose_faiss(a: np.ndarray, b: np.ndarray, *, threshold: float, same: bool) -> Proposals:
    rows, columns = encode(a, dtype="fp32"), encode(b, dtype="fp32")
    # FAISS keeps similarity > radius, so the radius must lie below every proposal.
    reach = np.float32(threshold - error_bound(rows, columns).max(initial=0))
    radius = float(np.nextafter(reach, np.float32(-np.inf)))
    new_index = partial(load_faiss().IndexFlatIP, rows.values.shape[1])
    both = rows.values.numpy(), columns.values.numpy()
    found = range_search(*both, make_index=new_index, radius=radius, same=same)
    return ((i, j) for i, j, _ in found)
