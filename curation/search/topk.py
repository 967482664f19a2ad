"""Exact nearest neighbours over vectors that stream by in blocks.

The score is the fp64 inner product of the stored fp16 vectors; a cheap product only proposes. Let s' be a
cheap score and e the bound (1) of `curation.search.codes` for a query and a tile of rows, with what a product
in 16 bits is rounded by. If v is the k-th largest s' of the tile, k rows have scores of at least v - e, so a
row among the k best has s' >= v - 2e; and if L is the k-th best exact score so far, it has s' >= L - e.
Whatever passes both is scored exactly. The result is that of a full sort, whatever the blocks, their order,
the arithmetic and the device.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float64, Int64
from numpy import ndarray
from torch import Tensor

from curation.errors import ConfigError
from curation.search.backend import Device
from curation.search.codes import Codes, encode, error_bound
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

_TILE_QUERIES = 1024
_TILE_ROWS = 4096
# 1 GB of fp16 products.
_GPU_TILE_QUERIES = 16_384
_GPU_TILE_ROWS = 32_768
_MAX_PROPOSED = _TILE_QUERIES * _TILE_ROWS  # scored and merged at once


@dataclass(frozen=True)
class TopK:
    """The nearest rows of every query, best first; index -1 and score -inf where there are fewer than k."""

    index: Int64[ndarray, "q k"]
    score: Float64[ndarray, "q k"]


def top_k(
    queries: Float16[ndarray, "q d"],
    blocks: Float16[ndarray, "n d"] | Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    k: int,
    tie_rank: Int64[ndarray, " n"] | None = None,
    dtype: ProposeDtype | None = None,
    device: Device = "cpu",
) -> TopK:
    """Find the k rows of highest score for every query, exactly, by their global rows.

    Order: higher score, then smaller `tie_rank`, then smaller row. Rows and queries of zeros match nothing.

    Args:
        queries: fp16 (q, d), unit rows.
        blocks: the rows to search, fp16 (n, d); or of any number of them, each once, pairs of global rows,
            int64 (m,), and their vectors, fp16 (m, d).
        k: neighbours for each query, at least 1.
        tie_rank: int64 (n,), rank of every global row among equal scores; None: by row.
        dtype: arithmetic of the proposals; None: `fastest_dtype`.
        device: what proposes.

    Raises:
        ConfigError: k below 1, or no GPU.
        IntegrityError: a vector is not finite or not of unit length.
    """
    if k < 1:
        raise ConfigError("A search for no neighbours", got=f"k={k}", expected="k of at least 1")
    if isinstance(blocks, ndarray):
        blocks = [(np.arange(len(blocks)), blocks)]
    asked = np.flatnonzero(nonzero_rows(queries))
    found = no_neighbours(len(queries), k)
    with sums_in_fp32():
        search = _Search(queries[asked], k=k, dtype=dtype, device=device, tie_rank=tie_rank)
        for rows, vectors in blocks:
            present = nonzero_rows(vectors)
            some = slice(None) if present.all() else present
            search.add(rows[some], vectors[some])
    found.index[asked], found.score[asked] = search.best.index, search.best.score
    return found


def no_neighbours(num_queries: int, k: int) -> TopK:
    """Where a search begins."""
    return TopK(np.full((num_queries, k), -1, np.int64), np.full((num_queries, k), -np.inf))


def merge_top_k(found: Sequence[TopK], *, tie_rank: Int64[ndarray, " n"] | None = None) -> TopK:
    """The best of what the same queries found in different rows: what `top_k` finds in all of them.

    Args:
        found: of the same queries and k.
        tie_rank: rank of every global row among equal scores; None: by row.
    """
    index = np.concatenate([one.index for one in found], axis=1)
    score = np.concatenate([one.score for one in found], axis=1)
    # Row -1 is a free place: it scores -inf, so its rank is never asked.
    rank = index if tie_rank is None or not len(tie_rank) else tie_rank[index]
    order = np.lexsort((index, rank, -score), axis=1)[:, : found[0].index.shape[1]]
    return TopK(np.take_along_axis(index, order, axis=1), np.take_along_axis(score, order, axis=1))


def _runs(passes: Tensor) -> list[slice]:
    """Runs of queries with about as many proposals as memory should hold at once."""
    if passes.numel() <= _MAX_PROPOSED:
        return [slice(None)]
    run = passes.sum(dim=1).cumsum(dim=0).cpu().numpy() // _MAX_PROPOSED
    starts = np.concatenate([[0], np.flatnonzero(np.diff(run)) + 1, [len(run)]]).tolist()
    return list(map(slice, starts[:-1], starts[1:]))


class _Search:
    """The best rows so far of every query."""

    def __init__(
        self,
        queries: np.ndarray,
        *,
        k: int,
        dtype: ProposeDtype | None,
        device: Device,
        tie_rank: np.ndarray | None,
    ) -> None:
        if device == "cuda":
            require_gpu("search", instead="cpu")
        self._queries = queries
        self._dtype: ProposeDtype = dtype or fastest_dtype(device)
        self._device: Device = device
        self._codes = encode(queries, dtype=self._dtype, device=device)
        self._tie_rank = tie_rank
        on_gpu = device == "cuda"
        self._num_queries = _GPU_TILE_QUERIES if on_gpu else _TILE_QUERIES
        self._num_rows = _GPU_TILE_ROWS if on_gpu else _TILE_ROWS
        num_products = min(self._num_queries, len(queries)) * self._num_rows
        self._buffer = buffer_for(self._dtype, num_products=num_products, device=device)
        self.best = no_neighbours(len(queries), k)

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Let every query see one block."""
        for start in range(0, len(rows), self._num_rows):
            tile = vectors[start : start + self._num_rows]
            columns = encode(tile, dtype=self._dtype, one_scale=True, device=self._device)
            for first in range(0, len(self._queries), self._num_queries):
                chunk = slice(first, first + self._num_queries)
                for i, j in self._propose(self._codes[chunk], columns, floor=self.best.score[chunk, -1]):
                    score = exact_scores(self._queries, tile, rows=i + first, columns=j)
                    self._merge(i + first, rows[start + j], score)

    def _propose(
        self, codes: Codes, columns: Codes, *, floor: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not len(codes) or not len(columns):
            return
        bound = error_bound(codes, columns, held=self._buffer.dtype)
        scale = codes.scale * columns.scale[0]
        products = multiply(codes.values, columns.values, out=self._buffer)
        reach = (floor - bound) / scale
        # Comparisons in fp64 are exact for every kind of product.
        hit = np.flatnonzero(products.amax(dim=1).cpu().double().numpy() >= reach)
        if not len(hit):
            return
        scores = products[torch.from_numpy(hit).to(products.device)]
        reach = reach[hit]
        if scores.shape[1] > (k := self.best.index.shape[1]):
            kth = scores.topk(k, dim=1, sorted=False).values.amin(dim=1).cpu().double().numpy()
            reach = np.maximum(reach, kth - 2 * bound[hit] / scale[hit])
        cut = round_down(reach, dtype=scores.dtype).to(scores.device)
        passes = scores >= cut[:, None]
        for some in _runs(passes):
            query, row = (found.cpu().numpy() for found in torch.nonzero(passes[some], as_tuple=True))
            if len(query):
                yield hit[some][query], row

    def _merge(self, query: np.ndarray, row: np.ndarray, score: np.ndarray) -> None:
        """Take the best k of what was there and what is new, for the queries that have something new."""
        k = self.best.index.shape[1]
        touched = np.unique(query)
        old_row, old_score = self.best.index[touched].ravel(), self.best.score[touched].ravel()
        query = np.concatenate([np.repeat(touched, k), query])
        row, score = np.concatenate([old_row, row]), np.concatenate([old_score, score])
        # Row -1 is a free place: it scores -inf, so its rank is never asked.
        rank = row if self._tie_rank is None else self._tie_rank[row]
        order = np.lexsort((row, rank, -score, query))
        starts = np.searchsorted(query[order], touched)
        best = order[starts[:, None] + np.arange(k)]
        self.best.index[touched], self.best.score[touched] = row[best], score[best]
