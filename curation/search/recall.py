"""How much of what is there a search by cells finds: measured on sampled rows, with a confidence interval."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float16, Float64, Int32, Int64, UInt16
from numpy import ndarray
from scipy.special import betaincinv

from curation.errors import ConfigError
from curation.search.cells import nearest_cells, needed_probes
from curation.search.cells_config import MAX_PROBES
from curation.search.collapse import equal_vectors
from curation.search.exact import cosine_pairs

_SLICE_ROWS = 16_384  # of a block: bounds the pairs of distinct vectors held at once
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Truth:
    """The exact pairs of sampled rows, as how many probes each needs to be found.

    Of sampled row `row`, `count` pairs need `probes` probes (`max_probes` + 1: more than can be told).
    """

    row: Int64[ndarray, " t"]
    probes: Int32[ndarray, " t"]
    count: Int64[ndarray, " t"]


@dataclass(frozen=True)
class Recall:
    """The share of pairs found, and its 95 % confidence interval; None where the sample has no pair."""

    estimate: float | None
    low: float
    high: float
    num_rows: int  # sampled
    num_pairs: int  # that the sampled rows have


def exact_truth(
    sample: Float16[ndarray, "s d"],
    vectors: Float16[ndarray, "m d"],
    centroids: Float16[ndarray, "c d"],
    *,
    threshold: float,
    max_probes: int = MAX_PROBES,
) -> Truth:
    """Compare sampled rows with a block exactly, and say what each pair needs to be found.

    A pair is found when one of its rows visits the home of the other: it needs as many probes as the better
    of their two ranks. Equal vectors are left out: they are collapsed, and would drown what is hard.

    Args:
        sample: unit rows out of the pool.
        vectors: a block of the pool.
        centroids: of the cells.
        threshold: smallest score of a pair.
        max_probes: ranks beyond it are one.
    """
    sampled = equal_vectors(sample)
    asked = sample[sampled.first]
    home = nearest_cells(asked, centroids, num_probes=1)[:, 0]
    nothing = np.zeros(0, np.int64)
    found = [(nothing, nothing, nothing)]
    for start in range(0, len(vectors), _SLICE_ROWS):
        groups = equal_vectors(vectors[start : start + _SLICE_ROWS])
        part = vectors[start + groups.first]
        a, b = _unequal_pairs(asked, part, threshold=threshold)
        needed = _needed(asked, part, centroids, pairs=(a, b), home=home)
        found.append((a, np.minimum(needed, max_probes + 1), np.bincount(groups.group)[b]))
    row, needed, times = (np.concatenate(column) for column in zip(*found, strict=True))
    key, place = np.unique(row * (max_probes + 2) + needed, return_inverse=True)
    count = np.bincount(place, times, len(key)).astype(np.int64)
    group, needed = np.divmod(key, max_probes + 2)
    row, repeats = sampled.expand(group)  # rows of the sample that are equal have equal pairs
    order = np.argsort(row, kind="stable")
    return Truth(
        row[order], np.repeat(needed, repeats)[order].astype(np.int32), np.repeat(count, repeats)[order]
    )


def _unequal_pairs(
    asked: np.ndarray, part: np.ndarray, *, threshold: float
) -> tuple[Int64[ndarray, " e"], Int64[ndarray, " e"]]:
    pairs = cosine_pairs(asked, part, threshold=threshold, same=False)
    # Two fp16 unit vectors that score less cannot be equal.
    differ = pairs.score < 0.99
    differ[~differ] = (asked[pairs.a[~differ]] != part[pairs.b[~differ]]).any(axis=1)
    return pairs.a[differ], pairs.b[differ]


def _needed(
    asked: np.ndarray,
    part: np.ndarray,
    centroids: np.ndarray,
    *,
    pairs: tuple[Int64[ndarray, " e"], Int64[ndarray, " e"]],
    home: UInt16[ndarray, " s"],
) -> Int32[ndarray, " e"]:
    """How many probes each pair needs; `home` is that of the rows asked."""
    a, b = pairs
    partners, place = np.unique(b, return_inverse=True)
    near = np.asarray(part[partners])
    partner_home = nearest_cells(near, centroids, num_probes=1)[:, 0]
    there = _ranks(asked, centroids, row=a, cell=partner_home[place])
    return np.asarray(np.minimum(there, _ranks(near, centroids, row=place, cell=home[a])))


def _ranks(
    vectors: np.ndarray, centroids: np.ndarray, *, row: Int64[ndarray, " e"], cell: UInt16[ndarray, " e"]
) -> Int32[ndarray, " e"]:
    """`needed_probes` of rows for cells, each combination looked at once."""
    key, place = np.unique(row * len(centroids) + cell, return_inverse=True)
    row, cell = key // len(centroids), (key % len(centroids)).astype(np.uint16)
    return needed_probes(vectors[row], centroids, cell=cell)[place]


def measured_recall(truth: Truth, *, rows: Bool[ndarray, " s"], num_probes: int) -> Recall:
    """Measure the share of pairs that `num_probes` probes find.

    The interval is Clopper and Pearson's on an effective number of pairs (Korn and Graubard 1998). The pairs
    of one row are not independent: a row whose home lies badly loses all of them together. So they are
    counted as if they all shared one fate: n = (Σ m)² / Σ m² for rows with m pairs each (Kish), which is the
    number of rows where all have equally many. It errs on the side of a wider interval, and, unlike a
    bootstrap over rows, does not shrink to a point where the sample has lost nothing.

    Args:
        truth: of the sample.
        rows: bool (s,), the sampled rows to measure on.
        num_probes: cells that a row visits.
    """
    found = truth.probes <= num_probes
    pairs = np.bincount(truth.row, weights=truth.count, minlength=len(rows))
    hits = np.bincount(truth.row[found], weights=truth.count[found], minlength=len(rows))
    return recall_of_rows(hits[rows].astype(np.int64), pairs[rows].astype(np.int64))


def top_k_recall(found: Float64[ndarray, "q k"], exact: Float64[ndarray, "q k"]) -> Recall:
    """Measure how many of the exact nearest rows of sampled queries a search has found.

    By their scores: where several rows are equally far, any of them is as right as the one that ties choose.

    Args:
        found: fp64 (q, k), `TopK.score` of the search, best first.
        exact: fp64 (q, k), that of `curation.search.topk.top_k`.
    """
    there = np.isfinite(exact)
    last = np.where(there, exact, np.inf).min(axis=1, keepdims=True)  # the k-th best score
    hits = (np.isfinite(found) & (found >= last)).sum(axis=1)
    return recall_of_rows(hits, there.sum(axis=1))


def recall_of_rows(num_found: Int64[ndarray, " s"], num_pairs: Int64[ndarray, " s"]) -> Recall:
    """The recall over sampled rows, of their pairs, and of those found; see `measured_recall`."""
    total = int(num_pairs.sum())
    if not total:
        return Recall(None, 0.0, 1.0, len(num_pairs), 0)
    share = int(num_found.sum()) / total
    # In floats: a hub's pairs squared leave the whole numbers behind.
    low, high = interval(share, num_effective=total**2 / float((num_pairs.astype(np.float64) ** 2).sum()))
    return Recall(share, low, high, len(num_pairs), total)


def interval(share: float, *, num_effective: float) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share of `num_effective` trials, which may be a fraction."""
    hits, tail = share * num_effective, (1 - _CONFIDENCE) / 2
    misses = num_effective - hits
    low = float(betaincinv(hits, misses + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, misses, 1 - tail)) if misses > 0 else 1.0
    return low, high


def choose_probes(truth: Truth, *, rows: Bool[ndarray, " s"], min_recall: float, most: int) -> int:
    """Choose the fewest probes that lose at most half of the pairs that may be lost.

    Half, since another sample judges the choice. At least 8, and 16 where the sample has no pair to learn
    from: beyond their cells' own cost the first few probes are nearly free.

    Args:
        truth: of the sample.
        rows: bool (s,), the sampled rows to learn from.
        min_recall: the recall asked for.
        most: the largest answer; the number of cells, or less.
    """
    mine = rows[truth.row]
    needed = np.bincount(truth.probes[mine], weights=truth.count[mine], minlength=2)
    if not needed.sum():
        return min(16, most)
    reached = np.cumsum(needed) / needed.sum() >= 1 - (1 - min_recall) / 2
    return min(max(int(np.argmax(reached)), 8), most)


def require_recall(recall: Recall, *, min_recall: float, num_probes: int, num_cells: int) -> None:
    """Refuse a result that loses more than it may.

    The estimate decides, not the interval's low end: that asks how large the sample was. A sample without any
    pair refuses nothing.

    Raises:
        ConfigError: the recall is under the one asked for.
    """
    _require(
        recall,
        min_recall,
        "The search by cells finds too few of the pairs above the threshold",
        searched=f"with {_counted(num_probes, 'probe')} of {_counted(num_cells, 'cell')}",
        sample=f"{_counted(recall.num_pairs, 'pair')} of {_counted(recall.num_rows, 'row')}",
        remedy="Raise num_probes (null chooses it), choose another num_cells, or search exactly",
    )


def require_top_k_recall(recall: Recall, *, min_recall: float, index: str, num_probes: int) -> None:
    """Refuse a search for neighbours that misses more of them than it may; see `require_recall`.

    Raises:
        ConfigError: the recall is under the one asked for.
    """
    _require(
        recall,
        min_recall,
        "The search by inverted lists finds too few of the nearest images",
        searched=f"of {index} with {_counted(num_probes, 'probe')}",
        sample=f"{_counted(recall.num_pairs, 'neighbour')} of "
        f"{_counted(recall.num_rows, 'query', 'queries')}",
        remedy="Raise num_probes or refine, store codes with less loss, or search exactly",
    )


def _require(
    recall: Recall, min_recall: float, what: str, *, searched: str, sample: str, remedy: str
) -> None:
    if recall.estimate is not None and recall.estimate < min_recall:
        raise ConfigError(
            what,
            got=f"recall {recall.estimate:.4f} {searched} "
            f"(95 % interval {recall.low:.4f} to {recall.high:.4f}, {sample})",
            expected=f"at least {min_recall}, as min_recall asks",
            remedy=remedy,
        )


def _counted(num: int, one: str, many: str | None = None) -> str:
    """A count with its word: `1 probe`, `2 probes`."""
    return f"{num} {one if num == 1 else many or one + 's'}"
