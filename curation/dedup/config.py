"""What counts as a copy."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from curation.search.backend import Backend
from curation.search.cells_config import CellsConfig
from curation.search.miniatures import LEAST_SCORE


class DedupConfig(BaseModel):
    """Which pairs of images are copies of each other. Equal bytes always are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phash_radius: int | None = Field(
        6,
        description="largest Hamming distance of two perceptual hashes, bits of 64; null: not used",
        ge=0,
        le=32,
    )
    cosine_threshold: float | None = Field(
        None, description="smallest cosine of two copy descriptors; null: not used", gt=0, le=1
    )
    edge_floor: float | None = Field(
        None,
        description="smallest cosine of a saved edge, for what-if questions; null: cosine_threshold",
        gt=0,
        le=1,
    )
    pca_radius: int | None = Field(
        None,
        description="largest Hamming distance of two PCA hashes of descriptors, bits of 64; null: not used",
        ge=0,
        le=32,
    )
    pca_sample_rows: int = Field(
        65_536, description="descriptors that the PCA hash is fitted on, drawn by the seed", ge=64, le=1 << 20
    )
    alarm_below: float | None = Field(
        0.85,
        description="an alarm where two images of a component are alike by less than this share of the "
        "threshold: a member and the representative, or the ends of its longest path; null: no alarm",
        gt=0,
        le=1,
    )
    cut_chains: bool = Field(
        False,
        description="cut a component with such a member: the representative keeps what is alike to it and "
        "within reach, and what is left forms components of its own",
    )
    search: Literal["exact", "cells"] = Field(
        "exact",
        description="how cosine edges are found: exact compares all pairs; cells compares what meets in a "
        "cell, measures its recall, and refuses too little",
    )
    cells: CellsConfig = CellsConfig()
    backend: Backend = Field(
        "torch",
        description="what an exact join runs on, decontaminate's too: torch or faiss on cores, cuda on GPUs; "
        "same edges. A search by cells runs on cores",
    )
    block_rows: int = Field(65_536, description="rows a side of one block pair of the join", ge=1)
    max_edges_per_row: int | None = Field(
        None, description="edges that a row may name, its best ones; tames hubs; null: no limit", ge=1
    )

    @model_validator(mode="after")
    def _check_floor(self) -> "DedupConfig":
        if self.edge_floor is not None:
            if self.cosine_threshold is None:
                raise ValueError("edge_floor has no meaning without cosine_threshold: set both or neither")
            if self.edge_floor > self.cosine_threshold:
                raise ValueError(
                    f"edge_floor {self.edge_floor} is above cosine_threshold {self.cosine_threshold}: "
                    "edges that decide would not be saved; set it to the threshold or below"
                )
        return self

    @model_validator(mode="after")
    def _check_cut(self) -> "DedupConfig":
        if self.cut_chains and self.alarm_below is None:
            raise ValueError("cut_chains cuts what alarm_below finds: set alarm_below, or cut nothing")
        return self

    @property
    def thresholds(self) -> dict[str, float]:
        """The score from which a pair is an edge, by kind of edge in use."""
        return thresholds(self.phash_radius, self.cosine_threshold, self.pca_radius)

    @property
    def saved_from(self) -> float | None:
        """The cosine_threshold of the join: edge_floor, where there is one."""
        return self.cosine_threshold if self.edge_floor is None else self.edge_floor


def thresholds(
    phash_radius: int | None, cosine_threshold: float | None, pca_radius: int | None
) -> dict[str, float]:
    """The score from which a pair is an edge, by kind of edge; None switches a kind off.

    Where any is on, pictures of poor hash are compared by their pixels.
    """
    radii = {"phash": phash_radius, "pca_hash": pca_radius}
    found = {kind: 1 - radius / 64 for kind, radius in radii.items() if radius is not None}
    if cosine_threshold is not None:
        found["cosine"] = cosine_threshold
    return found | {"pixels": LEAST_SCORE} if found else found
