"""What searches and k-means cost: their kernels run on vectors drawn by lot.

What grows with pairs cannot be told from a few hundred images, which are compared in no time. So the vectors
are drawn, of the sample's length, and enough of them.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from curation.cluster.kmeans import KMeans, kmeans
from curation.describe.embed import unit_rows
from curation.describe.look import MIN_SIDE_PX
from curation.describe.miniature import make_miniature
from curation.search.binary import hamming_pairs
from curation.search.exact import cosine_pairs
from curation.search.miniatures import miniature_pairs
from curation.search.topk import top_k
from pipelines.config.run_config import RunConfig
from pipelines.engine.step import environment_kept, set_threads
from pipelines.plan.rates import Rate, Spent
from pipelines.rows.parts import Part, read_array
from pipelines.stages.retrieve.forecast import LIST_STEPS

JOIN_ROWS = 8192
QUERY_ROWS = 2048
PIXEL_ROWS = 1024
KMEANS_ROWS, KMEANS_CLUSTERS = 4096, 128


@environment_kept()
def drawn_rates(config: RunConfig, part: Part) -> dict[str, Rate]:
    """Seconds for a pair of images, and for a row and a cluster, on vectors drawn by lot.

    Args:
        config: of the run.
        part: described; its vectors tell how long they are, and how they lie.
    """
    set_threads(config.executor.threads)
    rng = np.random.default_rng(0)
    embeddings = np.asarray(read_array(part.embeddings))
    descriptors = np.asarray(read_array(part.copy_vectors))
    source = f"{JOIN_ROWS:,} vectors drawn by lot"
    hashing = _timed(lambda: _join_hashes(rng, config.dedup.phash_radius or 0))
    found: dict[str, Rate] = {}
    for name, radius, threshold in (
        ("dedup_edges", config.dedup.phash_radius, _cosine_from(config)),
        ("dedup_pca_edges", config.dedup.pca_radius, None),
        ("decontaminate_edges", config.decontaminate.phash_radius, config.decontaminate.cosine_threshold),
        ("decontaminate_pca_edges", config.decontaminate.pca_radius, None),
    ):
        if radius is None and threshold is None:
            continue
        spent = hashing if radius is not None else Spent()
        if threshold is not None:
            spent += _join_vectors(rng, descriptors.shape[1], threshold, config)
        found[name] = Rate(spent / (JOIN_ROWS**2 / 2), source=source)
    stages = {"dedup": config.dedup.thresholds, "decontaminate": config.decontaminate.thresholds}
    if by_pixels := [stage for stage, thresholds in stages.items() if "pixels" in thresholds]:
        rate = _pixel_rate(rng)
        found |= {f"{stage}_pixel_edges": rate for stage in by_pixels}
    vectors = _drawn(rng, JOIN_ROWS, embeddings.shape[1])
    blocks = [(np.arange(JOIN_ROWS), vectors)]
    searched = _timed(lambda: top_k(vectors[:QUERY_ROWS], blocks, k=4))
    found["retrieve"] = Rate(searched / (QUERY_ROWS * JOIN_ROWS), source=source)
    # FAISS is not asked: a product is a product, in lists or not.
    for name in LIST_STEPS:
        found[name] = replace(found["retrieve"], source=f"exact search of {source}, for inverted lists")
    found["cluster"] = _kmeans_rate(config, embeddings, rng)
    return found


def _cosine_from(config: RunConfig) -> float | None:
    return config.dedup.saved_from if config.dedup.search == "exact" else None


def _timed(work: Callable[[], object]) -> Spent:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - started, time.process_time() - cpu)


def _drawn(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    return unit_rows(rng.standard_normal((rows, dim)).astype(np.float32))


def _pixel_rate(rng: np.random.Generator) -> Rate:
    """Plain pictures, each of a colour of its own, compared by their pixels."""
    colours = rng.integers(0, 256, (PIXEL_ROWS, 1, 1, 3), dtype=np.uint8)
    made = [make_miniature(np.tile(colour, (MIN_SIDE_PX, MIN_SIDE_PX, 1))) for colour in colours]
    plain = np.frombuffer(b"".join(made), np.uint8).reshape(PIXEL_ROWS, -1)
    spent = _timed(lambda: miniature_pairs(plain, plain, same=True))
    return Rate(spent / (PIXEL_ROWS**2 / 2), source=f"{PIXEL_ROWS:,} plain pictures drawn by lot")


def _join_hashes(rng: np.random.Generator, radius: int) -> None:
    hashes = rng.integers(0, 1 << 63, JOIN_ROWS, dtype=np.uint64)
    hamming_pairs(hashes, hashes, radius=radius, same=True)


def _join_vectors(rng: np.random.Generator, dim: int, threshold: float, config: RunConfig) -> Spent:
    vectors = _drawn(rng, JOIN_ROWS, dim)
    backend = config.dedup.backend
    small = vectors[:256]
    cosine_pairs(small, small, threshold=threshold, same=True, backend=backend)  # libraries warm up
    return _timed(lambda: cosine_pairs(vectors, vectors, threshold=threshold, same=True, backend=backend))


def _kmeans_rate(config: RunConfig, embeddings: np.ndarray, rng: np.random.Generator) -> Rate:
    """k-means on vectors drawn around those of the sample, since its cost depends on how they lie."""
    centres = embeddings[embeddings.any(axis=1)].astype(np.float32)
    if not len(centres):
        centres = _drawn(rng, 1, embeddings.shape[1]).astype(np.float32)
    noise = rng.standard_normal((KMEANS_ROWS, centres.shape[1])).astype(np.float32)
    noise *= 0.5 / np.sqrt(centres.shape[1])
    vectors = unit_rows(centres[rng.integers(len(centres), size=KMEANS_ROWS)] + noise)
    rule = config.cluster
    k = min(rule.num_clusters or KMEANS_CLUSTERS, KMEANS_CLUSTERS)
    found: list[KMeans] = []
    spent = _timed(
        lambda: found.append(
            kmeans(
                [lambda: vectors],
                num_clusters=k,
                seed=0,
                iterations=rule.iterations,
                tolerance=rule.tolerance,
            )
        )
    )
    units = KMEANS_ROWS * k * (len(found[0].inertia) + 1)
    return Rate(spent / units, source=f"k-means of {KMEANS_ROWS:,} vectors drawn around the sample's")
