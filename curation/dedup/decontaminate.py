"""Which images leak an evaluation set, and which evaluation image each of them leaks."""

from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from curation import schema
from curation.dedup.components import collapse_equal
from curation.dedup.config import thresholds
from curation.dedup.edges import Edges, kind_column

# Of equal scores, the evidence that is stronger: equal bytes, then equal pixels, descriptors, hashes.
_STRENGTH = ("exact", "pixels", "cosine", "phash", "pca_hash")


class DecontaminateConfig(BaseModel):
    """Which images count as leaks of a holdout image. Equal bytes always do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phash_radius: int | None = Field(
        6, description="largest Hamming distance to a holdout image, bits of 64; null: not used", ge=0, le=32
    )
    cosine_threshold: float | None = Field(
        None, description="smallest cosine to a holdout image's copy descriptor; null: not used", gt=0, le=1
    )
    pca_radius: int | None = Field(
        None,
        description="largest distance of two PCA hashes (see dedup), bits of 64; null: not used",
        ge=0,
        le=32,
    )
    by: Literal["image", "component"] = Field(
        "image",
        description="drop the image that leaks, or the whole component that it belongs to (as DINOv2)",
    )
    component_threshold: float | None = Field(
        None,
        description="smallest cosine of the edges that make these components, besides dedup's other kinds, "
        "dedup.edge_floor or above; null: the components of dedup",
        gt=0,
        le=1,
    )
    curated: bool = Field(
        True,
        description="whether images of curated pools that leak are dropped too; false: those of uncurated "
        "pools alone (as DINOv2, whose evaluation sets are curated ones as well)",
    )

    @model_validator(mode="after")
    def _threshold_makes_components(self) -> "DecontaminateConfig":
        if self.component_threshold is not None and self.by != "component":
            raise ValueError("component_threshold has no meaning by image: set by: component, or null")
        return self

    @property
    def thresholds(self) -> dict[str, float]:
        """The score from which a pair is an edge, by kind of edge in use."""
        return thresholds(self.phash_radius, self.cosine_threshold, self.pca_radius)


def exact_leaks(
    codes: UInt64[ndarray, "n 4"], *, is_holdout: Bool[ndarray, " n"], rank: Int64[ndarray, " n"]
) -> Edges:
    """One edge of score 1 for every row outside the holdout whose bytes lie within it.

    Args:
        codes: uint64 (n, 4), SHA-256 of every row.
        is_holdout: bool (n,).
        rank: int64 (n,), order among holdout images with equal bytes: the smallest is named.
    """
    order = np.empty(len(rank), np.int64)
    order[np.lexsort((rank, ~is_holdout))] = np.arange(len(rank))
    best = collapse_equal(codes, order)
    row = np.flatnonzero(~is_holdout & is_holdout[best])
    return Edges.of_kind("exact", row, best[row], np.ones(len(row)))


def leaks(
    edges: Edges,
    *,
    rank: Int64[ndarray, " n"],
    labels: Int64[ndarray, " n"] | None = None,
    by: Literal["image", "component"] = "image",
) -> pa.Table:
    """Name for every leaking image the holdout image that it leaks.

    The closest: by score (which equal bytes cannot lose: scores count up to 1), then kind (exact, pixels,
    cosine, phash, pca_hash), then `rank`. By component, every member of a component with a leak is
    condemned; a member without an edge of its own names the holdout image that is closest to any member.

    Args:
        edges: pairs at or above the thresholds, every described image against every holdout image.
        rank: int64 (n,), order of global rows among ties, e.g. of their image ids.
        labels: int64 (n,), component of every global row (a holdout row stands alone); needed by component.
        by: what a leak condemns.

    Returns:
        `schema.LEAKS`, one line for each condemned row, by row.

    Source: arXiv:2304.07193, §3 (a component that holds an evaluation image is discarded whole).
    """
    strength = np.array([_STRENGTH.index(kind) for kind in schema.EDGE_KINDS])
    by_closeness = np.lexsort(
        (rank[edges.a], rank[edges.b], strength[edges.kind], -np.minimum(edges.score, 1.0))
    )
    row = edges.a[by_closeness]
    _, best = np.unique(row, return_index=True)
    condemned, edge = row[best], by_closeness[best]
    by_component = np.zeros(len(condemned), bool)
    if by == "component":
        assert labels is not None, "by component needs the components"
        others, other_edge = _spread(labels, row, by_closeness, spared=condemned)
        order = np.argsort(np.concatenate([condemned, others]))
        condemned = np.concatenate([condemned, others])[order]
        edge = np.concatenate([edge, other_edge])[order]
        by_component = np.concatenate([by_component, np.ones(len(others), bool)])[order]
    return _leaks_table(edges, condemned=condemned, edge=edge, by_component=by_component)


def _spread(
    labels: np.ndarray, row: np.ndarray, edge: np.ndarray, *, spared: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that share a component with a leak, and the closest edge of their component.

    `row` and `edge` are sorted by closeness, so that the first of a component is its closest.
    """
    condemned_labels, first = np.unique(labels[row], return_index=True)
    if not len(condemned_labels):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    place = np.minimum(np.searchsorted(condemned_labels, labels), len(condemned_labels) - 1)
    others = np.setdiff1d(np.flatnonzero(condemned_labels[place] == labels), spared, assume_unique=True)
    return others, edge[first[place[others]]]


def _leaks_table(
    edges: Edges, *, condemned: np.ndarray, edge: np.ndarray, by_component: np.ndarray
) -> pa.Table:
    named = edges.take(edge)
    columns = (condemned, named.b, named.score, kind_column(named.kind), by_component)
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema.LEAKS)
