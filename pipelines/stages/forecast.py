"""What a stage is asked before it runs, and answers: so many images come, each step has so much to do.

The cost of a step is a count of units, such as images or pairs, times the seconds of one unit, which are
measured (`pipelines/plan`). So what a stage says needs to be right in how it grows, not in any constant.
Items are counted by what cuts them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.config.run_config import RunConfig
from pipelines.rows.groups import AlikeParts

Unit = Literal[
    "files listed", "images", "images written", "rows fitted", "rows sampled", "hits merged", "pairs",
    "query × row", "row × cell", "row × list", "row × cluster × iteration", "products of vectors",
]  # fmt: skip


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
    """A run of some size, real or imagined.

    Args:
        config: of the run.
        images: by pool.
        shares: what is left on the way.
        listed: the parts that ingest has cut; none: they are imagined, the sources of a pool of one size.
    """

    config: RunConfig
    images: Mapping[str, int]
    shares: Shares
    listed: tuple[AlikeParts, ...] = ()

    @property
    def total(self) -> int:
        """All images that come in."""
        return sum(self.images.values())

    def of_role(self, role: str) -> int:
        """Images of all pools of a role."""
        return sum(n for name, n in self.images.items() if self.config.pools[name].role == role)

    @cached_property
    def parts(self) -> tuple[AlikeParts, ...]:
        """The parts of the run, in order."""
        if self.listed:
            return self.listed
        found, rows = list[AlikeParts](), self.config.ingest.part_rows
        for name, pool in self.config.pools.items():
            num_sources = len(pool.sources)
            for number in range(num_sources):
                whole, rest = divmod((self.images[name] + number) // num_sources, rows)
                found += [AlikeParts(name, whole, rows)] if whole else []
                found += [AlikeParts(name, 1, rest)] if rest else []
        return tuple(found)

    @property
    def num_parts(self) -> int:
        """Parts, each of at most `ingest.part_rows` images of one source."""
        return sum(alike.num_parts for alike in self.parts)

    def parts_of(self, takes: Callable[[str], bool]) -> Sequence[AlikeParts]:
        """The parts of some pools."""
        return [alike for alike in self.parts if takes(alike.pool)]

    def may_enter(self, pool: str) -> bool:
        """Whether a pool's images may enter the dataset."""
        return self.config.pools[pool].may_enter_dataset

    def is_uncurated(self, pool: str) -> bool:
        """Whether a pool is one to be searched."""
        return self.config.pools[pool].role == "uncurated"

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
    def copy_dim(self) -> int:
        """Numbers in the vector by which copies are compared."""
        return self.shares.descriptor_dim or self.shares.embedding_dim

    def by_part(self, name: str, stage: str, *, read: float, held: float) -> "StepForecast":
        """A step with an item for each part."""
        return StepForecast(
            name, stage, max(self.num_parts, 1), "images", self.total, read, held, "per image, by part"
        )

    def in_one_item(self, name: str, stage: str, *, read: float, held: float) -> "StepForecast":
        """A step over all images at once."""
        grows = "per image, in one item, which no worker shares"
        return StepForecast(name, stage, 1, "images", self.total, read, held, grows)


@dataclass(frozen=True)
class StepForecast:
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
        rated_as: what its rate is found by, where steps of one name are of several kinds.
        within: the step that it is a piece of, whose receipt stands for it; empty for a step of its own.
        in_steps: whether it is done by steps of its own, so that its receipt is of its last piece alone.
        loads_model: whether a worker's first item takes longer, and images of each pool their own time.
    """

    name: str
    stage: str
    num_items: int
    unit: Unit
    units: float
    read_bytes: float
    held_bytes: float
    grows: str
    rated_as: str = ""
    within: str = ""
    in_steps: bool = False
    loads_model: bool = False

    @property
    def key(self) -> str:
        """What its rate is found by."""
        return self.rated_as or self.name
