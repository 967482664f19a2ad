"""Every step that a config will run, in the order of the flow, and how its cost grows.

The cost of a step is a count of units, such as images or pairs, times the seconds of one unit, which are
measured (`rates.py`). So a formula here needs to be right in how it grows, not in any constant.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from curation.ingest.sources import COMPRESSED_TAR_SUFFIXES, Source, TarSource, UrlSource
from curation.ingest.units import UNIT_BYTES, has_units
from curation.retrieve import SampleRetrieval
from curation.search.cells_config import MAX_PROBES, default_num_cells
from pipelines.plan.sizes import Sizes

# Rows held by a search item, and the product tiles and code beside it: see `pipelines.stages`.
QUERY_ROWS, TARGET_ROWS = 1 << 16, 1 << 20
# Within `retrieve`, where it searches by inverted lists.
IVF_STEPS = ("retrieve_index", "retrieve_shards")
# Iterations of FAISS's k-means, by which the lists of an index are trained.
LIST_ITERATIONS = 10


@dataclass(frozen=True)
class StepWork:
    """What one step has to do.

    Args:
        name: of the step; retrieval has one for each curated pool, of one name.
        stage: of the flow.
        num_items: units of work that run side by side; 1 cannot be spread.
        unit: what its cost is counted in.
        units: how many.
        read_bytes: from sources and from earlier steps.
        held_bytes: memory that a worker holds beside its code, models and libraries, bytes.
        grows: how the cost grows, in words.
        within: the step that it is a piece of, whose receipt stands for it; empty for a step of its own.
        in_steps: whether it is done by steps of its own, so that its receipt is of its last piece alone.
    """

    name: str
    stage: str
    num_items: int
    unit: str
    units: float
    read_bytes: float
    held_bytes: float
    grows: str
    within: str = ""
    in_steps: bool = False

    @property
    def key(self) -> str:
        """What its rate is found by: the name, where a step of one name is of one kind."""
        kinds = {"images": "retrieve_by_cluster", "hits merged": "retrieve_merge"}
        return kinds.get(self.unit, self.name) if self.name == "retrieve" else self.name


def forecast(sizes: Sizes) -> list[StepWork]:
    """The work of every step of a run."""
    return [
        *_per_image(sizes),
        *_dedup(sizes),
        *_decontaminate(sizes),
        *_cluster(sizes),
        *_retrieve(sizes),
        *_dataset(sizes),
    ]


def _images(
    sizes: Sizes, name: str, stage: str, *, items: int, read: float, held: float, count: float | None = None
) -> StepWork:
    images = sizes.total if count is None else count
    spread = "in one item, which no worker shares" if items == 1 else "by part"
    return StepWork(name, stage, max(items, 1), "images", images, read, held, f"per image, {spread}")


def _per_image(sizes: Sizes) -> Iterator[StepWork]:
    config, shares = sizes.config, sizes.shares
    num_sources = sum(len(pool.sources) for pool in config.pools.values())
    rows = config.ingest.part_rows
    vectors = 2 * (shares.embedding_dim + (shares.descriptor_dim or 0))
    sources = [source for pool in config.pools.values() for source in pool.sources]
    if num_units := sum(map(has_units, sources)):
        yield StepWork("ingest_units", "ingest", num_units, "files listed", num_units, 0, 1e6, "per file")
    yield from _stage(sizes)
    yield StepWork(
        "ingest", "ingest", num_sources, "images", sizes.total, 0, 500.0 * rows, "per image listed, by source"
    )
    ahead = max(64, config.describe.embed.batch_rows) * 3e6  # a decoded megapixel each
    read = sizes.total * shares.image_bytes
    yield _images(
        sizes, "describe", "describe", items=sizes.num_parts, read=read, held=rows * vectors + ahead
    )
    if config.describe.heads.on:
        yield _images(
            sizes,
            "score",
            "describe",
            items=sizes.num_parts,
            read=2.0 * sizes.total * vectors,
            held=8.0 * rows * vectors,
        )
    yield _images(sizes, "judge", "judge", items=sizes.num_parts, read=80.0 * sizes.total, held=200.0 * rows)
    if config.dedup.pca_radius is not None or config.decontaminate.pca_radius is not None:
        yield from _pca(sizes)


def _stage(sizes: Sizes) -> Iterator[StepWork]:
    """Staging, by unit: so many rows of a list, or a file, of which nothing is known but what is in it."""
    num_units, num_images, image_bytes = 0, 0.0, sizes.shares.image_bytes
    for name, pool in sizes.config.pools.items():
        each = sizes.images.get(name, 0) / len(pool.sources) if pool.sources else 0.0
        for source in filter(is_staged_source, pool.sources):
            per_unit = source.unit_rows if isinstance(source, UrlSource) else UNIT_BYTES / image_bytes
            num_units += max(1, math.ceil(each / per_unit))
            num_images += each
    if num_units:
        yield StepWork(
            "ingest_stage", "ingest", num_units, "images", num_images, num_images * image_bytes, 200e6,
            "per image that is fetched or copied, by unit: so many rows of a list, or a file",
        )  # fmt: skip


def is_staged_source(source: Source) -> bool:
    """Whether a source is staged, as far as its path tells."""
    return has_units(source) and (
        not isinstance(source, TarSource) or source.path.lower().endswith(COMPRESSED_TAR_SUFFIXES)
    )


def _dedup(sizes: Sizes) -> Iterator[StepWork]:
    rule, n, m = sizes.config.dedup, sizes.total, sizes.joined
    yield _images(sizes, "dedup_rows", "dedup", items=1, read=48.0 * n, held=120.0 * n)
    if rule.search == "cells" and rule.saved_from is not None:
        yield from _cells(sizes)
        if rule.phash_radius is not None:
            yield _pairs(sizes, "dedup_edges", "dedup", dim=0)
    else:
        yield _pairs(sizes, "dedup_edges", "dedup", dim=sizes.copy_dim if rule.saved_from is not None else 0)
    if rule.pca_radius is not None:
        yield _pairs(sizes, "dedup_pca_edges", "dedup", dim=0)
    if "pixels" in rule.thresholds and (poor := m * sizes.shares.joined_pixels):
        yield _pixels(sizes, "dedup", poor, None)
    yield _images(sizes, "dedup_components", "dedup", items=1, read=60.0 * n, held=100.0 * n, count=m)


def _pca(sizes: Sizes) -> Iterator[StepWork]:
    dim = sizes.copy_dim
    sample = min(sizes.config.dedup.pca_sample_rows, sizes.total)
    yield StepWork(
        "pca_fit", "dedup", 1, "rows fitted", sample, 2.0 * dim * sample, 8.0 * dim * sample,
        "per row of a sample of fixed size",
    )  # fmt: skip
    held = 10.0 * dim * sizes.config.ingest.part_rows
    yield _images(sizes, "pca_hash", "dedup", items=sizes.num_parts, read=2.0 * dim * sizes.total, held=held)


def _pairs(sizes: Sizes, name: str, stage: str, *, dim: int) -> StepWork:
    """A join of all pairs, block by block; each block is read once for every other."""
    m, blocks = sizes.joined, max(sizes.num_blocks, 1)
    row_bytes = 48 + 2 * dim
    held = 2 * min(sizes.config.dedup.block_rows, m) * (row_bytes + dim * 5)
    return StepWork(
        name, stage, blocks * (blocks + 1) // 2, "pairs", m * m / 2, m * row_bytes * (blocks + 1), held,
        "per pair of images: four times for twice as many, by pair of blocks",
    )  # fmt: skip


def _pixels(sizes: Sizes, stage: str, left: float, right: float | None) -> StepWork:
    """A join of the pictures of poor hash, few of all; `right` where they are compared with other ones."""
    rows = sizes.config.dedup.block_rows
    lefts, rights = math.ceil(left / rows), math.ceil((left if right is None else right) / rows)
    num_items = lefts * (lefts + 1) // 2 if right is None else lefts * rights
    pairs = left * left / 2 if right is None else left * right
    read = 1024.0 * (lefts + rights) * max(left, right or 0.0)
    return StepWork(
        f"{stage}_pixel_edges", stage, num_items, "pairs", pairs, read, 2048.0 * min(rows, left),
        "per pair of images of poor hash, by pair of blocks",
    )  # fmt: skip


def _cells(sizes: Sizes) -> Iterator[StepWork]:
    rule, m = sizes.config.dedup.cells, sizes.joined
    cells = rule.num_cells or default_num_cells(m)
    probes = min(rule.num_probes or sizes.shares.num_probes or MAX_PROBES, cells)
    blocks, vector = max(sizes.num_blocks, 1), 2.0 * sizes.copy_dim
    trained = min(rule.sample_rows_per_cell * cells, m)
    name, stage = "dedup_cell_edges", "dedup"
    held = min(sizes.config.dedup.block_rows, m) * vector * 4
    yield StepWork(
        f"{name}_cells", stage, 1, "row × cell", trained * cells, trained * vector, trained * vector * 4,
        "per row of a sample and cell, in one item; both grow as √images",
    )  # fmt: skip
    yield StepWork(
        f"{name}_truth", stage, blocks, "pairs", min(rule.recall_rows, m) * m, m * vector, held,
        "per pair of a sampled row and any row, by block",
    )  # fmt: skip
    yield StepWork(f"{name}_recall", stage, 1, "rows sampled", rule.recall_rows, 0, 0, "a fixed sample")
    yield StepWork(
        f"{name}_assign",
        stage,
        blocks,
        "row × cell",
        m * cells,
        m * vector,
        held,
        "per row and cell, by block",
    )
    groups = max(1, math.ceil(m / rule.group_rows))
    yield StepWork(
        name, stage, groups, "pairs", m * probes * m / cells, m * probes * vector, 2000.0 * rule.group_rows,
        "per pair of images that meet in a cell: 2.8 times for twice as many, by group of cells",
    )  # fmt: skip


def _decontaminate(sizes: Sizes) -> Iterator[StepWork]:
    rule, n, holdout = sizes.config.decontaminate, sizes.total, sizes.of_role("holdout")
    searched = sum(num for name, num in sizes.images.items() if sizes.config.is_decontaminated(name))
    stage = "decontaminate"
    yield _images(sizes, "decontaminate_rows", stage, items=1, read=8.0 * n, held=16.0 * n)
    for name, dim in (("", sizes.copy_dim if rule.cosine_threshold is not None else 0), ("pca_", 0)):
        if name and rule.pca_radius is None:
            continue
        block_rows = sizes.config.dedup.block_rows
        left, right = math.ceil(searched / block_rows), math.ceil(holdout / block_rows)
        row_bytes = 48 + 2 * dim
        pairs = searched * holdout * sizes.shares.decoded**2
        yield StepWork(
            f"decontaminate_{name}edges", stage, left * right, "pairs", pairs,
            row_bytes * (right * searched + left * holdout),
            2 * min(block_rows, n) * (row_bytes + 5 * dim),
            "per pair of an image and an evaluation image, by pair of blocks",
        )  # fmt: skip
    poor, evaluated = searched * sizes.shares.searched_pixels, holdout * sizes.shares.holdout_pixels
    if "pixels" in rule.thresholds and poor and evaluated:
        yield _pixels(sizes, stage, poor, evaluated)
    yield _images(sizes, "decontaminate_leaks", stage, items=1, read=48.0 * n, held=120.0 * n)


def _cluster(sizes: Sizes) -> Iterator[StepWork]:
    rule, k, dim = sizes.config.cluster, sizes.num_clusters, sizes.shares.embedding_dim
    group_rows = rule.rows_of_group(k)
    groups = 1 if sizes.total <= rule.group_rows else max(1, math.ceil(sizes.clustered / group_rows))
    rows = sizes.clustered * (rule.iterations + 1) + sizes.alive
    held = (min(sizes.clustered, group_rows) if groups > 1 else sizes.clustered) * dim * 3 + k * dim * 16
    yield StepWork(
        "cluster", "cluster", groups, "row × cluster × iteration", rows * k, rows * 2.0 * dim,
        held + 25.0 * sizes.total, "per row, cluster and iteration at most, by group of rows",
        in_steps=rule.is_large(sizes.total, k),
    )  # fmt: skip
    levels = sizes.config.hierarchy
    if levels is None:
        return
    below = k
    if levels.splits > 1:
        below, pool = k * levels.splits, sizes.pool
        yield _images(sizes, "cluster_members", "cluster", items=1, read=4.0 * sizes.total, held=40.0 * pool)
        split_groups = max(1, math.ceil(pool / (1 << 19)))
        units = pool * levels.splits * (levels.iterations + 1)
        yield StepWork(
            "cluster_splits", "cluster", split_groups, "row × cluster × iteration", units, 2.0 * dim * pool,
            4.0 * dim * min(pool, 1 << 19),
            "per row, part of its cluster and iteration, by group of clusters",
        )  # fmt: skip
        yield _images(sizes, "cluster_leaves", "cluster", items=1, read=8.0 * pool, held=16.0 * sizes.total)
    for level in levels.levels:
        group_rows = rule.rows_of_group(level.num_clusters)
        kept, again = min(below, level.num_clusters * level.num_closest(below)), levels.resampling_steps
        # All points once, and what is kept of them for every resampling; after each, all points once more.
        rounds = levels.iterations * (below + again * kept) + below * (1 + again)
        groups = max(1, math.ceil((kept if again else below) / group_rows))
        level_rule = rule.model_copy(update={"iterations": levels.iterations})
        level_held = 12.0 * dim * min(below, group_rows) + 16.0 * dim * level.num_clusters
        yield StepWork(
            "cluster_level", "cluster", groups, "row × cluster × iteration",
            level.num_clusters * rounds, 4.0 * dim * below, level_held,
            "per cluster below (or as many as a resampling keeps), cluster and iteration, by group of them",
            in_steps=level_rule.is_large(below, level.num_clusters, clusterings=1 + again),
        )  # fmt: skip
        below = level.num_clusters


def _retrieve(sizes: Sizes) -> Iterator[StepWork]:
    vector = 2.0 * sizes.shares.embedding_dim
    for name, pool in sizes.config.pools.items():
        if pool.role != "curated":
            continue
        queries = sizes.queries(name)
        if pool.retrieval.method != "sample":
            yield _images(
                sizes, "retrieve", "retrieve", items=1, read=9.0 * sizes.total, held=60.0 * sizes.total
            )
            continue
        if pool.retrieval.search == "ivf":
            yield from _retrieve_ivf(sizes, pool.retrieval, queries)
            continue
        cuts = max(1, math.ceil(queries / QUERY_ROWS))
        groups = max(1, math.ceil(sizes.of_role("uncurated") / TARGET_ROWS))
        held = min(queries, QUERY_ROWS) * vector * 2 + 48.0 * min(sizes.total, TARGET_ROWS)
        yield StepWork(
            "retrieve", "retrieve", cuts * groups, "query × row", queries * sizes.pool,
            vector * (cuts * sizes.pool + groups * queries), held,
            "per curated image and pool image, by block of both",
            in_steps=cuts * groups > 1,
        )  # fmt: skip


def _retrieve_ivf(sizes: Sizes, rule: SampleRetrieval, queries: int) -> Iterator[StepWork]:
    """Lists are trained on a sample; each shard of the pool is put into them and searched."""
    index, pool, vector = rule.ivf, sizes.pool, 2.0 * sizes.shares.embedding_dim
    shard_rows = min(index.shard_rows, pool)
    lists = index.num_lists or default_num_cells(shard_rows)
    trained = min(index.sample_rows_per_list * lists, pool)
    yield StepWork(
        "retrieve_index", "retrieve", 1, "row × list", trained * lists * LIST_ITERATIONS, trained * vector,
        trained * vector * 3, "per row of a sample, list and iteration, in one item", within="retrieve",
    )  # fmt: skip
    shards = max(1, math.ceil(sizes.of_role("uncurated") / index.shard_rows))
    searched = queries * pool * min(index.num_probes, lists) / lists
    exact = min(index.recall_rows, queries) * pool
    held = shard_rows * vector * 2 + queries * (vector + 16 * rule.neighbours)
    yield StepWork(
        "retrieve_shards", "retrieve", shards, "products of vectors", pool * lists + searched + exact,
        vector * (pool + shards * queries), held,
        "per pool image and list, and per curated image and pool image in the lists that it visits, by shard",
        within="retrieve",
    )  # fmt: skip
    hits = float(queries * rule.neighbours * shards)
    yield StepWork(
        "retrieve", "retrieve", 1, "hits merged", hits, 16 * hits, 32 * hits,
        "per hit of a curated image in a shard, in one item",
    )  # fmt: skip


def _dataset(sizes: Sizes) -> Iterator[StepWork]:
    shard, n = sizes.config.shard, sizes.total
    yield _images(sizes, "select", "select", items=1, read=50.0 * n, held=90.0 * n)
    buckets = max(1, math.ceil(sizes.kept_bytes / shard.bucket_bytes))
    yield StepWork(
        "shard", "shard", buckets, "images written", sizes.kept, sizes.kept_bytes, 200e6,
        "per image of the dataset (its bytes are read and written once), by bucket",
    )  # fmt: skip
    yield _images(sizes, "lineage", "shard", items=1, read=150.0 * n, held=80.0 * n)
