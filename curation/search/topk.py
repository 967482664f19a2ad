"""Exact nearest neighbours over vectors that stream by in blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float64, Int64
from numpy import ndarray

from curation.errors import ConfigError
from curation.search.product import (
    Codes,
    ProposeDtype,
    buffer_for,
    encode,
    error_bound,
    exact_scores,
    fastest_dtype,
    multiply,
    nonzero_rows,
)

_TILE_QUERIES = 1024
_TILE_ROWS = 4096


@dataclass(frozen=True)
class TopK:
    """The nearest rows of every query, best first; index -1 and score -inf where there are fewer than k."""

    index: Int64[ndarray, "q k"]
    score: Float64[ndarray, "q k"]


def top_k(
    queries: Float16[ndarray, "q d"],
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    k: int,
    tie_rank: Int64[ndarray, " n"] | None = None,
    dtype: ProposeDtype | None = None,
) -> TopK:
    """Find the k rows of highest score for every query, exactly.

    Order: higher score, then smaller `tie_rank`, then smaller row. The score is the fp64 inner product of the
    stored fp16 vectors; the cheap product only proposes. Let s' be a cheap score and e the bound (1) of
    `curation.search.product` for a query and a tile of rows. If v is the k-th largest s' of the tile, k rows
    have scores of at least v - e, so a row among the k best has s' >= v - 2e; and if L is the k-th best exact
    score so far, it has s' >= L - e. Whatever passes both is scored exactly. The result is that of a full
    sort, whatever the blocks, their order and the dtype. Rows and queries of zeros match nothing.

    Args:
        queries: fp16 (q, d), unit rows.
        blocks: pairs of global rows, int64 (m,), and their vectors, fp16 (m, d); each row once.
        k: neighbours for each query, at least 1.
        tie_rank: int64 (n,), rank of every global row among equal scores; None: by row.
        dtype: arithmetic of the proposals, int8 or fp32; None: `fastest_dtype`.

    Returns:
        TopK with global rows.

    Raises:
        ConfigError: k below 1, or dtype bf16.
        IntegrityError: a vector is not finite or not of unit length.
    """
    if k < 1:
        raise ConfigError("A search for no neighbours", got=f"k={k}", expected="k of at least 1")
    if dtype == "bf16":
        raise ConfigError("bf16 products are rounded beyond the bound", got=dtype, expected="int8 or fp32")
    asked = np.flatnonzero(nonzero_rows(queries))
    search = _Search(queries[asked], k=k, dtype=dtype or fastest_dtype(), tie_rank=tie_rank)
    for rows, vectors in blocks:
        present = nonzero_rows(vectors)
        if not present.all():
            search.add(rows[present], vectors[present])
        else:
            search.add(rows, vectors)
    index = np.full((len(queries), k), -1, np.int64)
    score = np.full((len(queries), k), -np.inf)
    index[asked], score[asked] = search.index, search.score
    return TopK(index, score)


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


class _Search:
    """The best rows so far of every query."""

    def __init__(
        self, queries: np.ndarray, *, k: int, dtype: ProposeDtype, tie_rank: np.ndarray | None
    ) -> None:
        self._queries = queries
        self._codes = encode(queries, dtype=dtype)
        self._dtype: ProposeDtype = dtype
        self._tie_rank = tie_rank
        self._buffer = buffer_for(dtype, num_products=_TILE_QUERIES * _TILE_ROWS)
        self.index = np.full((len(queries), k), -1, np.int64)
        self.score = np.full((len(queries), k), -np.inf)

    def add(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Let every query see one block."""
        for start in range(0, len(rows), _TILE_ROWS):
            tile = vectors[start : start + _TILE_ROWS]
            columns = encode(tile, dtype=self._dtype, one_scale=True)
            for first in range(0, len(self._queries), _TILE_QUERIES):
                chunk = slice(first, first + _TILE_QUERIES)
                i, j = self._propose(self._codes[chunk], columns, floor=self.score[chunk, -1])
                if len(i):
                    score = exact_scores(self._queries, tile, rows=i + first, columns=j)
                    self._merge(i + first, rows[start + j], score)

    def _propose(self, codes: Codes, columns: Codes, *, floor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bound = error_bound(codes, columns)
        scale = codes.scale * columns.scale[0]
        products = multiply(codes.values, columns.values, out=self._buffer)
        reach = (floor - bound) / scale
        # A comparison in fp64 of maxima is exact for int32 and fp32 alike.
        hit = np.flatnonzero(products.amax(dim=1).double().numpy() >= reach)
        if not len(hit):
            return hit, hit
        scores = products[torch.from_numpy(hit)]
        if scores.shape[1] > (k := self.index.shape[1]):
            kth = scores.topk(k, dim=1, sorted=False).values.amin(dim=1).double().numpy()
            reach[hit] = np.maximum(reach[hit], kth - 2 * bound[hit] / scale[hit])
        found = torch.nonzero(scores.double() >= torch.from_numpy(reach[hit, None])).numpy()
        return hit[found[:, 0]], found[:, 1]

    def _merge(self, query: np.ndarray, row: np.ndarray, score: np.ndarray) -> None:
        """Take the best k of what was there and what is new, for the queries that have something new."""
        k = self.index.shape[1]
        touched = np.unique(query)
        old_row, old_score = self.index[touched].ravel(), self.score[touched].ravel()
        query = np.concatenate([np.repeat(touched, k), query])
        row, score = np.concatenate([old_row, row]), np.concatenate([old_score, score])
        # Row -1 is a free place: it scores -inf, so its rank is never asked.
        rank = row if self._tie_rank is None else self._tie_rank[row]
        order = np.lexsort((row, rank, -score, query))
        starts = np.searchsorted(query[order], touched)
        best = order[starts[:, None] + np.arange(k)]
        self.index[touched], self.score[touched] = row[best], score[best]
