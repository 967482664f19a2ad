"""How much a run has to do, in numbers of images: what comes in, and what is left for each stage."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from curation.cluster.config import default_num_clusters
from pipelines.config.run_config import RunConfig


class Shares(BaseModel):
    """What is left on the way, and how large an image is: measured on a run or a sample, or given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoded: float = Field(1.0, ge=0, le=1, description="share of all images that can be decoded")
    joined: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of images of pools that may enter which are usable and no exact copy",
    )
    alive_curated: float = Field(1.0, ge=0, le=1, description="share of curated images that survive")
    alive_pool: float = Field(1.0, ge=0, le=1, description="share of uncurated images that survive")
    unique_hits: float = Field(1.0, gt=0, le=1, description="unique of nominal hits")
    joined_pixels: float = Field(
        0.0, ge=0, le=1, description="of those joined, share that is compared by its pixels"
    )
    searched_pixels: float = Field(
        0.0, ge=0, le=1, description="of images searched for leaks, share that is compared by its pixels"
    )
    holdout_pixels: float = Field(
        0.0, ge=0, le=1, description="of evaluation images, share that is compared by its pixels"
    )
    image_bytes: float = Field(gt=0, description="mean bytes of an image")
    kept_bytes: float | None = Field(None, gt=0, description="mean bytes of a kept image; null: image_bytes")
    embedding_dim: int = Field(ge=1, description="numbers in an embedding")
    descriptor_dim: int | None = Field(None, ge=1, description="in a copy descriptor; null: no second vector")
    num_probes: int | None = Field(None, ge=1, description="cells that a row visits; null: not known")


@dataclass(frozen=True)
class Sizes:
    """A run of some size, real or imagined."""

    config: RunConfig
    images: Mapping[str, int]  # by pool
    shares: Shares

    @property
    def total(self) -> int:
        """All images that come in."""
        return sum(self.images.values())

    def of_role(self, role: str) -> int:
        """Images of all pools of a role."""
        return sum(n for name, n in self.images.items() if self.config.pools[name].role == role)

    @property
    def num_parts(self) -> int:
        """Parts, each of at most `ingest.part_rows` images of one pool."""
        return sum(math.ceil(n / self.config.ingest.part_rows) for n in self.images.values())

    @property
    def joined(self) -> int:
        """Images compared with one another as copies."""
        pools = self.config.pools
        candidates = sum(n for name, n in self.images.items() if pools[name].may_enter_dataset)
        return round(candidates * self.shares.joined)

    @property
    def num_blocks(self) -> int:
        """Blocks of the join; a block has images of one pool."""
        pools, rows = self.config.pools, self.config.dedup.block_rows
        sizes = [n for name, n in self.images.items() if pools[name].may_enter_dataset]
        return sum(math.ceil(n / max(rows, self.config.ingest.part_rows)) for n in sizes)

    @property
    def pool(self) -> int:
        """Surviving uncurated images: what is searched."""
        return round(self.of_role("uncurated") * self.shares.alive_pool)

    @property
    def alive(self) -> int:
        """Surviving images of curated and uncurated pools."""
        return self.pool + round(self.of_role("curated") * self.shares.alive_curated)

    def queries(self, name: str) -> int:
        """Surviving images of a curated pool."""
        return round(self.images[name] * self.shares.alive_curated)

    @property
    def clustered(self) -> int:
        """Images that k-means is trained on."""
        rows, rule = self.pool or self.alive, self.config.cluster
        if rule.max_points_per_centroid is not None:
            rows = min(rows, rule.max_points_per_centroid * self.num_clusters)
        return rows

    @property
    def num_clusters(self) -> int:
        """Clusters of the pool."""
        rows = self.pool or self.alive
        return max(1, min(self.config.cluster.num_clusters or default_num_clusters(rows), rows))

    @property
    def kept(self) -> int:
        """Images of the dataset: curated ones that enter, and what they bring in."""
        pools, kept, hits = self.config.pools, 0, 0.0
        for name, pool in pools.items():
            if pool.role != "curated":
                continue
            kept += self.queries(name) if pool.include else 0
            rule = pool.retrieval
            match rule.method:
                case "sample":
                    hits += self.queries(name) * rule.neighbours * self.shares.unique_hits
                case "cluster":
                    hits += min(rule.cap, self.num_clusters * rule.per_cluster)
        select = self.config.select
        if select.balanced is not None:
            hits += select.balanced.num_images
        elif not self.of_role("curated"):
            hits = self.pool
        return kept + min(round(hits), self.pool, select.max_images or self.pool)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the dataset's images."""
        return round(self.kept * (self.shares.kept_bytes or self.shares.image_bytes))

    @property
    def copy_dim(self) -> int:
        """Numbers in the vector by which copies are compared."""
        return self.shares.descriptor_dim or self.shares.embedding_dim
