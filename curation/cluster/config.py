"""What a user says of clusters. Apart from the code that makes them, which takes seconds to import."""

import math
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# The sums of a cluster have four times the bytes of a vector: a quarter then of what was read to make them, …
_GROUP_ROWS_PER_CENTROID = 16
# … and twice that where clusters are so many that this would be too much work for one unit.
_FEWEST_ROWS_PER_CENTROID = 2
_MAX_PRODUCTS = 1 << 35  # of a vector with a centroid: minutes of two cores at 384 dimensions
_SEEDING_ROWS_PER_CENTROID = 16  # k-means++ costs 2·rows·k·d: 16 keeps it below a few Lloyd iterations


class ClusterConfig(BaseModel):
    """How the pool is divided into clusters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_clusters: int | None = Field(
        None, ge=1, description="clusters; null: 2.8·√N (100,000 for 1.3 billion images), at most N/10"
    )
    iterations: int = Field(20, ge=1, le=1000, description="updates of the centroids, at most")
    tolerance: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="stop when an iteration lowers the inertia by no more than this share of it",
    )
    max_points_per_centroid: int | None = Field(
        None, ge=1, description="train on a seeded sample of this many vectors a cluster; null: on all"
    )
    group_rows: int = Field(
        1 << 16,
        ge=1,
        description="vectors of one unit of work and of resume, at least; never fewer than 16 for each "
        "cluster, so that sums are small beside vectors, or 2 where 16 would be more than minutes of work. "
        "No result depends on it",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="what vectors are assigned on; the same results. cuda: one GPU for each worker; what is "
        "too small for steps of its own stays on the CPU",
    )

    def clusters_of(self, num_rows: int) -> int:
        """Into how many clusters so many rows are divided."""
        return min(self.num_clusters or default_num_clusters(num_rows), num_rows)

    def of_level(self, num_clusters: int, *, iterations: int) -> "ClusterConfig":
        """How a level above is clustered: in such units of work, on such a device."""
        return ClusterConfig(
            num_clusters=num_clusters,
            iterations=iterations,
            group_rows=self.group_rows,
            device=self.device,
        )

    def rows_of_group(self, num_clusters: int) -> int:
        """Rows of a unit of work, at least, where there are so many clusters."""
        in_minutes = max(_MAX_PRODUCTS // max(num_clusters, 1), _FEWEST_ROWS_PER_CENTROID * num_clusters)
        return max(self.group_rows, min(_GROUP_ROWS_PER_CENTROID * num_clusters, in_minutes))

    def is_large(self, num_rows: int, num_clusters: int, *, clusterings: int = 1) -> bool:
        """Whether this is too much for one task, and goes in steps that are resumed one by one."""
        products = num_rows * num_clusters * self.iterations * clusterings
        return num_rows > self.rows_of_group(num_clusters) or products > _MAX_PRODUCTS


class LevelConfig(BaseModel):
    """One level above the leaves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_clusters: int = Field(ge=1, description="clusters of this level, fewer than the level below has")
    closest: int | None = Field(
        None,
        ge=2,
        description="centroids of the level below that a resampling keeps of each cluster, the nearest; "
        "null: half of what a cluster holds on average",
    )

    def num_closest(self, num_points: int) -> int:
        """How many a resampling keeps of each cluster, where the level below has so many."""
        return self.closest or max(2, math.ceil(num_points / self.num_clusters / 2))


class HierarchyConfig(BaseModel):
    """The levels above flat clusters: leaves first, then clusters of the clusters below."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    splits: int = Field(
        1, ge=1, description="clusters that each flat cluster is split into; 1: the flat ones are the leaves"
    )
    levels: tuple[LevelConfig, ...] = Field(min_length=1, description="above the leaves, from below")
    resampling_steps: int = Field(
        10, ge=0, le=1000, description="times that a level is clustered anew on its resampled points"
    )
    iterations: int = Field(
        50, ge=1, le=1000, description="updates of the centroids in each clustering, at most"
    )

    @model_validator(mode="after")
    def _levels_get_smaller(self) -> "HierarchyConfig":
        sizes = [level.num_clusters for level in self.levels]
        if any(above >= below for below, above in pairwise(sizes)):
            raise ValueError(f"levels ({sizes}) must get smaller from the first, next to the leaves, on")
        return self


def num_seeding_rows(num_rows: int, num_clusters: int) -> int:
    """Of how many vectors k-means++ draws its seeds."""
    return min(num_rows, _SEEDING_ROWS_PER_CENTROID * num_clusters)


def default_num_clusters(num_rows: int) -> int:
    """Clusters for a pool of `num_rows` vectors: the paper's share at its size, 10 vectors each or more."""
    return max(1, min(round(2.8 * math.sqrt(num_rows)), num_rows // 10))
