"""FAISS inverted lists: nearest neighbours and range search over a pool that is indexed in shards.

The index proposes, the stored vectors decide: every candidate is scored again in fp64 (`exact_scores`), so a
score is the same whatever the index, and only which rows are found depends on it. FAISS trains in fp32 with
however many threads it has: an index is the same for the same sample, seed, threads and kind of machine.

Source: arXiv:2304.07193, appendix A (inverted lists with product quantisation on GPUs, k = 64).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float16, Float64, Int64, UInt8
from numpy import ndarray

from curation.errors import ConfigError
from curation.search.edges import EdgeCollector, Pairs
from curation.search.installed import load_faiss
from curation.search.ivf_config import Device, IvfConfig, IvfSpec
from curation.search.product import exact_scores, nonzero_rows
from curation.search.topk import TopK, merge_top_k

Shards = Iterable[tuple[ndarray, ndarray]]

_MAX_GPU_NEIGHBOURS = 2048  # also the most probes
_MAX_GPU_PQ_BYTES = 96
_QUERIES = 16_384  # searched at once: bounds the candidates held
_ID_BYTES = 8


@dataclass(frozen=True)
class TrainedIvf:
    """An empty index, trained; `margin` is what its codes may change in a score (three deviations)."""

    spec: IvfSpec
    index: UInt8[ndarray, " bytes"]  # `faiss.serialize_index`
    margin: float


def choose_index(config: IvfConfig, *, num_rows: int, dim: int) -> IvfSpec:
    """Choose the index of a pool: by name, or the most exact one whose shard fits the memory.

    Raises:
        ConfigError: nothing fits, or the product code does not divide the dimension.
    """
    rows = min(config.shard_rows, num_rows)
    needed = {"flat": 2 * dim, "sq8": dim, "pq": config.pq_bytes}
    fitting = [name for name, size in needed.items() if rows * (size + _ID_BYTES) <= config.memory_bytes]
    if config.codes == "auto" and not fitting:
        raise ConfigError(
            "No index of the shards fits the memory",
            got=f"{rows} rows of {config.pq_bytes + _ID_BYTES} bytes",
            expected=f"at most memory_bytes = {config.memory_bytes}",
            remedy="Lower shard_rows, or raise memory_bytes",
        )
    codes: Any = fitting[0] if config.codes == "auto" else config.codes
    if codes == "pq" and dim % config.pq_bytes:
        raise ConfigError(
            "A product code cuts the dimension into equal pieces",
            got=f"pq_bytes={config.pq_bytes} for {dim} dimensions",
            expected=f"a divisor of {dim}",
        )
    num_lists = config.lists_of(num_rows)
    refine = 1 if codes == "flat" else config.refine
    return IvfSpec(codes, num_lists, min(config.num_probes, num_lists), config.pq_bytes, refine)


def train_index(sample: Float16[ndarray, "s d"], spec: IvfSpec, *, seed: int) -> TrainedIvf:
    """Train the lists and codes of an index.

    Args:
        sample: fp16 (s, d), unit rows, no zeros.
        spec: of `choose_index`.
        seed: of FAISS's k-means.

    Raises:
        ConfigError: too few rows to train on.
    """
    least = max(spec.num_lists, 256 if spec.codes == "pq" else 1)
    if len(sample) < least:
        raise ConfigError(
            "Too few rows to train an index on",
            got=f"{len(sample)} rows for {spec.factory()}",
            expected=f"at least {least}",
            remedy="Lower num_lists, store codes otherwise, or search exactly",
        )
    vectors = sample.astype(np.float32)
    faiss = load_faiss()
    index: Any = faiss.index_factory(sample.shape[1], spec.factory(), faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed & 0x7FFFFFFF
    index.cp.spherical = True
    index.cp.min_points_per_centroid = 1  # else it writes a warning to stderr; recall is measured
    if spec.codes == "pq":
        index.pq.cp.min_points_per_centroid = 1
    index.train(vectors)
    # What codes change in a score, seen on neighbours in the sample's order.
    some = vectors[:4096]
    coded = index.sa_decode(index.sa_encode(some))
    changed = ((coded - some) * np.roll(some, 1, axis=0)).sum(axis=1)
    return TrainedIvf(spec, faiss.serialize_index(index), 3 * float(changed.std()))


def ivf_top_k(
    queries: Float16[ndarray, "q d"],
    shards: Shards,
    trained: TrainedIvf,
    *,
    k: int,
    tie_rank: Int64[ndarray, " n"] | None = None,
    device: Device = "cpu",
) -> TopK:
    """Find about the k nearest rows of every query, best first; see `IvfShard`.

    Args:
        queries: fp16 (q, d), unit rows, or zeros: they match nothing.
        shards: global rows, int64 (m,), and their vectors, fp16 (m, d); each row once. One is held at a time.
        trained: of `train_index`.
        k: neighbours for each query, at least 1.
        tie_rank: int64 (n,), rank of every global row among equal scores; None: by row.
        device: where FAISS searches; gpu needs `faiss-gpu`.

    Returns:
        TopK with global rows and exact scores; as many as were found.

    Raises:
        ConfigError: k below 1, or beyond FAISS's limits on a GPU.
    """
    check_limits(trained.spec, k=k, device=device)
    best = TopK(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf))
    for rows, vectors in shards:
        shard = IvfShard(rows, vectors, trained, device=device)
        found = shard.nearest(queries, k=k, tie_rank=tie_rank)
        best = merge_top_k([best, found], tie_rank=tie_rank)
    return best


class IvfShard:
    """The index of some rows, built: it answers any number of searches."""

    def __init__(
        self,
        rows: Int64[ndarray, " m"],
        vectors: Float16[ndarray, "m d"],
        trained: TrainedIvf,
        *,
        device: Device = "cpu",
    ) -> None:
        if device == "gpu":
            _require_gpu(trained.spec)
        self._spec, self._device = trained.spec, device
        self._index, self._rows, self._vectors = _build(trained, (rows, vectors), device=device)

    def nearest(
        self, queries: Float16[ndarray, "q d"], *, k: int, tie_rank: Int64[ndarray, " n"] | None = None
    ) -> TopK:
        """Find about the k nearest rows of every query, best first; equal scores by `tie_rank`, then by row.

        Args:
            queries: fp16 (q, d), unit rows, or zeros: they match nothing.
            k: neighbours for each query, at least 1.
            tie_rank: int64 (n,), of every row that the shard's rows name; None: by row.

        Raises:
            ConfigError: k below 1, or beyond FAISS's limits on a GPU.
        """
        num_candidates = _num_candidates(k, self._spec, device=self._device)
        found = TopK(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf))
        asked = np.flatnonzero(nonzero_rows(queries))
        for start in range(0, len(asked), _QUERIES):
            mine = asked[start : start + _QUERIES]
            _, place = self._index.search(queries[mine].astype(np.float32), num_candidates)
            row, score = _rescored(queries[mine], self._vectors, place)
            row = np.where(row >= 0, self._rows[row] if len(self._rows) else row, -1)
            best = merge_top_k([TopK(row, score)], tie_rank=tie_rank)
            found.index[mine], found.score[mine] = best.index[:, :k], best.score[:, :k]
        return found


def ivf_pairs(
    queries: Float16[ndarray, "q d"],
    shards: Shards,
    trained: TrainedIvf,
    *,
    threshold: float,
    max_edges_per_row: int | None = None,
) -> Pairs:
    """Find about all pairs of a query and a row with score >= threshold, on the CPU.

    The lists are searched down to the threshold less the margin of their codes; scores are exact.

    Args:
        queries: fp16 (q, d), unit rows, or zeros.
        shards: see `ivf_top_k`.
        trained: of `train_index`.
        threshold: smallest score of a pair.
        max_edges_per_row: a query names its best rows in each shard only; None for all.

    Returns:
        Pairs of a query's place and a global row, sorted.
    """
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    hubs, dropped = 0, 0
    asked = np.flatnonzero(nonzero_rows(queries))
    for shard in shards:
        index, rows, vectors = _build(trained, shard, device="cpu")
        collector = EdgeCollector(len(queries), len(rows), False, max_edges_per_row)
        radius = float(np.nextafter(np.float32(threshold - trained.margin - 1e-4), np.float32(-np.inf)))
        for start in range(0, len(asked), _QUERIES):
            mine = asked[start : start + _QUERIES]
            ends, _, place = index.range_search(queries[mine].astype(np.float32), radius)
            a = np.repeat(mine, np.diff(ends).astype(np.int64))
            score = exact_scores(queries, vectors, rows=a, columns=place)
            keep = score >= threshold
            collector.add(a[keep], place[keep], score[keep])
        pairs = collector.pairs()
        found.append((pairs.a, rows[pairs.b], pairs.score))
        hubs, dropped = hubs + pairs.num_hub_rows, dropped + pairs.num_dropped
    empty = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    a, b, score = (np.concatenate(column) for column in zip(empty, *found, strict=True))
    order = np.lexsort((b, a))
    return Pairs(a[order], b[order], score[order], hubs, dropped)


def _build(
    trained: TrainedIvf, shard: tuple[np.ndarray, np.ndarray], *, device: Device
) -> tuple[Any, np.ndarray, np.ndarray]:
    """The index of a shard, and the rows and vectors that are in it."""
    rows, vectors = shard
    has = nonzero_rows(vectors)
    if not has.all():
        rows, vectors = rows[has], vectors[has]
    faiss = load_faiss()
    index: Any = faiss.deserialize_index(trained.index)
    for start in range(0, len(vectors), _QUERIES):
        index.add(vectors[start : start + _QUERIES].astype(np.float32))
    index.nprobe = trained.spec.num_probes
    if device == "gpu":
        options = faiss.GpuClonerOptions()
        options.useFloat16 = True  # product codes of 56 bytes and more need tables in fp16
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
        index.nprobe = trained.spec.num_probes
    return index, rows, vectors


def _rescored(
    queries: np.ndarray, vectors: np.ndarray, place: Int64[ndarray, "q c"]
) -> tuple[Int64[ndarray, "q c"], Float64[ndarray, "q c"]]:
    """Candidates with their exact scores; -1 and -inf where there is none."""
    query, column = np.nonzero(place >= 0)
    score = np.full(place.shape, -np.inf)
    score[query, column] = exact_scores(queries, vectors, rows=query, columns=place[query, column])
    return place, score


def _num_candidates(k: int, spec: IvfSpec, *, device: Device) -> int:
    if k < 1:
        raise ConfigError("A search for no neighbours", got=f"k={k}", expected="k of at least 1")
    if device == "gpu":
        _require_few("neighbours (k × refine)", k * spec.refine, most=_MAX_GPU_NEIGHBOURS)
    return k * spec.refine


def check_limits(spec: IvfSpec, *, k: int, device: Device) -> None:
    """See, before an index is built, that FAISS can search it so.

    Raises:
        ConfigError: naming the limit.
    """
    _num_candidates(k, spec, device=device)
    if device == "gpu":
        _require_few("probes", spec.num_probes, most=_MAX_GPU_NEIGHBOURS)
        if spec.codes == "pq":
            _require_few("bytes of a product code", spec.pq_bytes, most=_MAX_GPU_PQ_BYTES)


def _require_gpu(spec: IvfSpec) -> None:
    """See that FAISS has a GPU, and that the index is within its limits there.

    Raises:
        ConfigError: naming the limit, or that there is none.
    """
    check_limits(spec, k=1, device="gpu")
    if not getattr(load_faiss(), "get_num_gpus", int)():
        raise ConfigError(
            "FAISS sees no GPU",
            got="faiss-cpu, or no device",
            remedy="Install faiss-gpu, or search on the cpu",
        )


def _require_few(what: str, got: int, *, most: int) -> None:
    if got > most:
        raise ConfigError(f"FAISS cannot search so many {what} on a GPU", got=got, expected=f"at most {most}")
