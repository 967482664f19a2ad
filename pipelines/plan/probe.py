"""A short measurement of this machine: the real steps on a small sample of the sources, and drawn vectors.

The sample tells what an image costs. What grows with pairs cannot be told from a few hundred images, which
are compared in no time: there the kernels run on vectors drawn by lot, of the sample's length, and enough of
them.
"""

import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation import storage
from curation.cluster.kmeans import KMeans, kmeans
from curation.describe.embed import unit_rows
from curation.describe.look import MIN_SIDE_PX
from curation.describe.miniature import make_miniature
from curation.errors import ConfigError
from curation.ingest.listing import IndexTar, list_parts
from curation.ingest.listing import Part as ListedPart
from curation.ingest.sources import COMPRESSED_TAR_SUFFIXES, Source
from curation.ingest.tar_index import TarIndex
from curation.retrieve import SampleRetrieval
from curation.schema import IMAGES
from curation.search.binary import hamming_pairs
from curation.search.exact import cosine_pairs
from curation.search.miniatures import miniature_pairs
from curation.search.topk import top_k
from pipelines.config.run_config import RunConfig
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Receipt
from pipelines.engine.threads import set_threads
from pipelines.lvd import curate_parts
from pipelines.plan.known import known_run
from pipelines.plan.rates import Known, Rate, rates_of, with_drawn
from pipelines.plan.sizes import Shares, Sizes
from pipelines.rows.parts import Part, read, read_array

SAMPLE_IMAGES = 384
WARM_IMAGES = 32
# Sources looked at; a config may have hundreds.
MAX_SOURCES = 12
JOIN_ROWS = 8192
QUERY_ROWS = 2048
PIXEL_ROWS = 1024
KMEANS_ROWS, KMEANS_CLUSTERS = 4096, 128
# Listing stops being counted after so long: a bucket may take hours.
LIST_S = 60.0
IVF_STEPS = ("retrieve_index", "retrieve_shards")


@dataclass(frozen=True)
class Measured:
    """What a probe has found."""

    rates: Mapping[str, Rate]
    shares: Shares
    images: Mapping[str, int]  # by pool, as far as they were counted
    counted: bool  # whether the listing came to its end
    worker_bytes: float  # memory of a process with models and libraries loaded


@dataclass(frozen=True)
class Listed:
    """What ingest has listed, and staged, already."""

    parts: Sequence[Part] = ()
    receipts: Mapping[str, Sequence[Receipt]] = field(default_factory=dict)  # of its steps


@dataclass(frozen=True)
class _Time:
    """Seconds on the clock, and of all cores."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: "_Time") -> "_Time":
        return _Time(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def over(self, units: float, source: str) -> Rate:
        """The rate that it makes with so many units."""
        return Rate(self.wall_s / units, self.cpu_s / units, source=source)


def probe(
    config: RunConfig,
    *,
    listed: Listed | None = None,
    num_images: int = SAMPLE_IMAGES,
    progress: Progress | None = None,
) -> Measured:
    """Time every step on a sample of the sources, in a folder of its own that is removed afterwards.

    Args:
        config: with absolute paths.
        listed: what ingest has listed; None: the sources are listed here.
        num_images: of the sample, about.
        progress: shows the steps that are measured; None: nothing is shown.

    Raises:
        ConfigError: a source cannot be sampled before it is staged, or has nothing to sample.
        LvdError: as the stages say.
    """
    with tempfile.TemporaryDirectory(prefix="lvd-plan-") as folder:
        counted, listing = True, None
        shown = progress or Progress(quiet=True)
        if listed is None:
            shown.say("listing the sources …")
            tables, images, counted, listing = _sample(config, num_images)
        else:
            tables, images = _sample_listed(config, listed.parts, num_images)
        if not tables:
            raise ConfigError("The sources have no image to sample", remedy="Give `--like` or `--no-probe`")
        small = _config_of_sample(config, folder)
        runner = Runner(folder, LocalExecutor(), shown)
        made = curate_parts(runner, small, _parts(small, tables, folder), refresh=False)
        known = known_run(small, made.parts, runner.receipts, source=f"a sample of {num_images} images")
        shown.say("measuring searches on vectors drawn by lot …")
        drawn = drawn_rates(config, made.parts[-1])
        rates = with_drawn(rates_of(known), drawn, known)
        rates |= {name: drawn[name] for name in IVF_STEPS}  # the sample is searched exactly
        if listed is not None:
            sizes = Sizes(config, images, known.sizes.shares)
            rates |= rates_of(Known(sizes, [], listed.receipts, "this run's receipts"))
        if listing is not None:
            num_listed = sum(images.values())
            rates["ingest"] = listing.over(max(num_listed, 1), f"a listing of {num_listed:,} images")
        return Measured(rates, known.sizes.shares, images, counted, held_bytes())


def held_bytes() -> float:
    """The most memory that this process has held, bytes."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def worker_bytes(config: RunConfig) -> float:
    """Memory of a process with the libraries and models of describe, which is the largest there is.

    Raises:
        LvdError: a model cannot be loaded here.
    """
    from pipelines.models.embedders import load_embedder
    from pipelines.models.face_detectors import load_faces

    rule = config.describe
    models = [one for one in (rule.embed, rule.descriptor_embed, rule.heads_embed) if one is not None]
    held: list[object] = [load_embedder(one) for one in models]
    held += [load_faces(rule.faces)] if rule.faces else []
    assert held, "they count while they are held"
    return held_bytes()


def _config_of_sample(config: RunConfig, folder: str) -> RunConfig:
    """The same run in another place. Few images show no recall and train no lists: none is asked for."""
    cells = config.dedup.cells.model_copy(update={"min_recall": 1e-6})
    dedup = config.dedup.model_copy(update={"cells": cells})
    pools = dict(config.pools)
    for name, pool in pools.items():
        if isinstance(pool.retrieve, SampleRetrieval):
            exact = pool.retrieve.model_copy(update={"search": "exact"})
            pools[name] = pool.model_copy(update={"retrieve": exact})
    return config.model_copy(update={"run_dir": folder, "dedup": dedup, "pools": pools})


def _rows_of_each(config: RunConfig, num_images: int, *, num_sources: int) -> int:
    """Images taken of each source: whole forwards."""
    rows = max(WARM_IMAGES, num_images // max(1, min(num_sources, MAX_SOURCES)))
    batch = config.describe.embed.batch_rows
    return -(-rows // batch) * batch


def _sample_listed(
    config: RunConfig, parts: Sequence[Part], num_images: int
) -> tuple[list[tuple[str, pa.Table]], dict[str, int]]:
    """The first images of some parts of every pool, and how many images there are of each pool."""
    images, chosen = dict.fromkeys(config.pools, 0), list[Part]()
    for name in config.pools:
        own = [part for part in parts if part.pool == name]
        images[name] = sum(part.num_rows for part in own)
        num = min(len(own), max(1, MAX_SOURCES // len(config.pools)))
        chosen += [own[i * len(own) // num] for i in range(num)]
    rows = _rows_of_each(config, num_images, num_sources=len(chosen))
    return [(part.pool, read(part.images).slice(0, rows)) for part in chosen], images


def _only_plain(index: IndexTar, files: Iterable[storage.FileInfo]) -> Iterator[TarIndex]:
    """The indexes of tars, which have ranges as long as they are not compressed."""
    for file in files:
        if file.key.lower().endswith(COMPRESSED_TAR_SUFFIXES):
            raise _to_be_staged("A compressed tar", file.path)
        yield index(file)


def _to_be_staged(what: str, path: str) -> ConfigError:
    return ConfigError(
        f"{what} cannot be sampled before it is staged",
        got=storage.redact(path),
        remedy="Run the config with `--until ingest` first, or give `--like RUN_DIR` or `--no-probe`",
    )


def _list(source: Source, part_rows: int, run_dir: str) -> Iterator[ListedPart]:
    if source.kind not in ("folder", "tars"):
        raise _to_be_staged(f"A source of kind {source.kind}", source.path)
    return list_parts(source, part_rows=part_rows, run_dir=run_dir, map_units=_only_plain)


def _sample(
    config: RunConfig, num_images: int
) -> tuple[list[tuple[str, pa.Table]], dict[str, int], bool, _Time]:
    """The first images of each pool's first sources, and how many there are of each pool."""
    sources = [(name, s) for name, pool in config.pools.items() for s in pool.sources]
    per_source = _rows_of_each(config, num_images, num_sources=len(sources))
    tables, images = [], dict.fromkeys(config.pools, 0)
    started, cpu, counted = time.monotonic(), time.process_time(), True
    for number, (name, source) in enumerate(sources):
        listing = _list(source, per_source, config.run_dir)
        first = next(islice(listing, 1), None)
        if first is not None:
            images[name] += first.table.num_rows
            if number < MAX_SOURCES and first.table.num_rows:
                tables.append((name, first.table))
        for part in listing:
            images[name] += part.table.num_rows
            if time.monotonic() - started > LIST_S:
                counted = False
                break
    spent = _Time(time.monotonic() - started, time.process_time() - cpu)
    return tables, images, counted, spent


def _parts(config: RunConfig, tables: Sequence[tuple[str, pa.Table]], folder: str) -> tuple[Part, ...]:
    """Parts of the sample. A few images go ahead as a part of their own, on which the models warm up."""
    cut = []
    for number, (pool, table) in enumerate(tables):
        warm = min(WARM_IMAGES, table.num_rows // 2) if number == 0 else 0
        cut += [(pool, piece) for piece in (table.slice(0, warm), table.slice(warm)) if piece.num_rows]
    parts: list[Part] = []
    for number, (pool, table) in enumerate(cut):
        path = Path(folder) / f"listed-{number:03d}.parquet"
        storage.write_table(path, table.cast(IMAGES))
        sha256, num_bytes = storage.sha256_file(str(path))
        offset = parts[-1].offset + parts[-1].num_rows if parts else 0
        ref = FileRef(str(path), num_bytes, sha256)
        parts.append(Part(number, pool, config.pools[pool].role, offset, table.num_rows, ref))
    return tuple(parts)


def drawn_rates(config: RunConfig, part: Part) -> dict[str, Rate]:
    """Seconds for a pair of images, and for a row and a cluster, on vectors drawn by lot.

    Args:
        config: of the run.
        part: described; its vectors tell how long they are, and how they lie.
    """
    set_threads(config.describe.embed.threads)
    rng = np.random.default_rng(0)
    embeddings = np.asarray(read_array(part.embeddings))
    descriptors = embeddings if part.descriptors is None else np.asarray(read_array(part.descriptors))
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
        spent = hashing if radius is not None else _Time()
        if threshold is not None:
            spent += _join_vectors(rng, descriptors.shape[1], threshold, config)
        found[name] = spent.over(JOIN_ROWS**2 / 2, source)
    stages = {"dedup": config.dedup.thresholds, "decontaminate": config.decontaminate.thresholds}
    if by_pixels := [stage for stage, thresholds in stages.items() if "pixels" in thresholds]:
        rate = _pixel_rate(rng)
        found |= {f"{stage}_pixel_edges": rate for stage in by_pixels}
    vectors = _drawn(rng, JOIN_ROWS, embeddings.shape[1])
    blocks = [(np.arange(JOIN_ROWS), vectors)]
    searched = _timed(lambda: top_k(vectors[:QUERY_ROWS], blocks, k=4))
    found["retrieve"] = searched.over(QUERY_ROWS * JOIN_ROWS, source)
    # FAISS is not asked: a product is a product, in lists or not.
    for name in IVF_STEPS:
        found[name] = replace(found["retrieve"], source=f"exact search of {source}, for inverted lists")
    found["cluster"] = _kmeans_rate(config, embeddings, rng)
    return found


def _cosine_from(config: RunConfig) -> float | None:
    return config.dedup.saved_from if config.dedup.search == "exact" else None


def _timed(work: Callable[[], object]) -> _Time:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return _Time(time.perf_counter() - started, time.process_time() - cpu)


def _drawn(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    return unit_rows(rng.standard_normal((rows, dim)).astype(np.float32))


def _pixel_rate(rng: np.random.Generator) -> Rate:
    """Plain pictures, each of a colour of its own, compared by their pixels."""
    colours = rng.integers(0, 256, (PIXEL_ROWS, 1, 1, 3), dtype=np.uint8)
    made = [make_miniature(np.tile(colour, (MIN_SIDE_PX, MIN_SIDE_PX, 1))) for colour in colours]
    plain = np.frombuffer(b"".join(made), np.uint8).reshape(PIXEL_ROWS, -1)
    spent = _timed(lambda: miniature_pairs(plain, plain, same=True))
    return spent.over(PIXEL_ROWS**2 / 2, f"{PIXEL_ROWS:,} plain pictures drawn by lot")


def _join_hashes(rng: np.random.Generator, radius: int) -> None:
    hashes = rng.integers(0, 1 << 63, JOIN_ROWS, dtype=np.uint64)
    hamming_pairs(hashes, hashes, radius=radius, same=True)


def _join_vectors(rng: np.random.Generator, dim: int, threshold: float, config: RunConfig) -> _Time:
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
    return spent.over(units, f"k-means of {KMEANS_ROWS:,} vectors drawn around the sample's")
