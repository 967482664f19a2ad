"""FAISS inverted lists: nearest neighbours in a pool that is indexed in shards.

The index proposes, the stored vectors decide: every candidate is scored again in fp64 (`exact_scores`), so a
score is the same whatever the index, and only which rows are found depends on it. FAISS trains in fp32 with
however many threads it has: an index is the same for the same sample, seed, threads and kind of machine.

Source: arXiv:2304.07193, appendix A (inverted lists with product quantisation on GPUs, k = 64).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float16, Float64, Int64, UInt8
from numpy import ndarray

from curation.errors import ConfigError
from curation.search.installed import load_faiss
from curation.search.ivf_config import FaissDevice, IvfConfig, IvfSpec
from curation.search.product import exact_scores, nonzero_rows
from curation.search.topk import TopK, merge_top_k

_MAX_GPU_NEIGHBOURS = 2048  # also the most probes
_MAX_GPU_PQ_BYTES = 96
_QUERIES = 16_384  # searched at once: bounds the candidates held
_ID_BYTES = 8


@dataclass(frozen=True)
class TrainedIvf:
    """An empty index, trained."""

    spec: IvfSpec
    index: UInt8[ndarray, " bytes"]  # `faiss.serialize_index`


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
    faiss = load_faiss()
    index: Any = faiss.index_factory(sample.shape[1], spec.factory(), faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed & 0x7FFFFFFF
    index.cp.spherical = True
    index.cp.min_points_per_centroid = 1  # else it writes a warning to stderr; recall is measured
    if spec.codes == "pq":
        index.pq.cp.min_points_per_centroid = 1
    index.train(sample.astype(np.float32))
    return TrainedIvf(spec, faiss.serialize_index(index))


class IvfShard:
    """The index of some rows, built: it answers any number of searches."""

    def __init__(
        self,
        rows: Int64[ndarray, " m"],
        vectors: Float16[ndarray, "m d"],
        trained: TrainedIvf,
        *,
        device: FaissDevice = "cpu",
    ) -> None:
        if device == "gpu":
            _require_gpu(trained.spec)
        has = nonzero_rows(vectors)
        if not has.all():
            rows, vectors = rows[has], vectors[has]
        self._spec, self._device = trained.spec, device
        self._rows, self._vectors = rows, vectors
        self._index = _built(trained, vectors, device=device)

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
        check_limits(self._spec, k=k, device=self._device)
        found = TopK(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), -np.inf))
        asked = np.flatnonzero(nonzero_rows(queries))
        for start in range(0, len(asked), _QUERIES):
            mine = asked[start : start + _QUERIES]
            _, place = self._index.search(queries[mine].astype(np.float32), k * self._spec.refine)
            row, score = _rescored(queries[mine], self._vectors, place)
            row = np.where(row >= 0, self._rows[row] if len(self._rows) else row, -1)
            best = merge_top_k([TopK(row, score)], tie_rank=tie_rank)
            found.index[mine], found.score[mine] = best.index[:, :k], best.score[:, :k]
        return found


def _built(trained: TrainedIvf, vectors: Float16[ndarray, "m d"], *, device: FaissDevice) -> Any:
    """The index with vectors in it."""
    faiss = load_faiss()
    index: Any = faiss.deserialize_index(trained.index)
    for start in range(0, len(vectors), _QUERIES):
        index.add(vectors[start : start + _QUERIES].astype(np.float32))
    if device == "gpu":
        options = faiss.GpuClonerOptions()
        options.useFloat16 = True  # product codes of 56 bytes and more need tables in fp16
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index, options)
    index.nprobe = trained.spec.num_probes
    return index


def _rescored(
    queries: np.ndarray, vectors: np.ndarray, place: Int64[ndarray, "q c"]
) -> tuple[Int64[ndarray, "q c"], Float64[ndarray, "q c"]]:
    """Candidates with their exact scores; -1 and -inf where there is none."""
    query, column = np.nonzero(place >= 0)
    score = np.full(place.shape, -np.inf)
    score[query, column] = exact_scores(queries, vectors, rows=query, columns=place[query, column])
    return place, score


def check_limits(spec: IvfSpec, *, k: int, device: FaissDevice) -> None:
    """See, before an index is built, that FAISS can search it so.

    Raises:
        ConfigError: naming the limit.
    """
    if k < 1:
        raise ConfigError("A search for no neighbours", got=f"k={k}", expected="k of at least 1")
    if device == "gpu":
        _require_few("neighbours (k × refine)", k * spec.refine, most=_MAX_GPU_NEIGHBOURS)
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
