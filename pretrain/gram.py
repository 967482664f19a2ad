"""The config of Gram anchoring, and when it acts: pure functions of the iteration."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pretrain.loss.gram import Negatives
from pretrain.schedules import cosine


class GramConfig(BaseModel):
    """Which earlier teacher anchors the similarities of patches, from when, and how strongly.

    The Gram teacher's crops are `crops.gram_size_px` wide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int = Field(0, ge=0, description="the first iteration with this term (officially 1,010,000)")
    weight: float = Field(2.0, gt=0, description="of the term, after its warm-up")
    warmup: int = Field(
        1_000, ge=0, description="iterations from start on in which the weight rises from 0, half a cosine"
    )
    teacher: str | None = Field(
        None,
        description="a checkpoint of ours whose teacher is the first Gram teacher; null: the teacher as it "
        "is at the start of iteration `start`",
    )
    every: int | None = Field(
        10_000,
        ge=1,
        description="after so many iterations from start on the Gram teacher becomes the teacher as it is "
        "then, and again after as many; null: never",
    )
    max_updates: int | None = Field(
        3,
        ge=0,
        description="how often the teacher becomes the Gram teacher at most, at `start` counted in; null: "
        "any number",
    )
    over: Literal["image", "rank", "batch"] = Field(
        "image",
        description="among which patches similarities are compared: those of an image, of all images of a "
        "rank, or of the whole batch, whose cost goes with the square of its patches",
    )
    normalised: bool = Field(True, description="whether similarities are cosines, not inner products")
    negatives: Negatives = Field(
        "keep",
        description="similarities below 0: keep them, zero both sides', or zero_teacher for the "
        "teacher's alone",
    )

    @model_validator(mode="after")
    def _there_is_a_teacher(self) -> "GramConfig":
        if self.teacher is None and self.max_updates == 0:
            raise ValueError(
                "max_updates: 0 leaves no Gram teacher; name a checkpoint as teacher, or allow one"
            )
        return self


def gram_weight(step: int, config: GramConfig) -> float:
    """The weight of the term in iteration `step`, counted from 0; 0.0 before `start`.

    Source: arXiv:2508.10104, §4; the shape of the ramp is that of the published config of the 7B model.
    """
    if step < config.start:
        return 0.0
    return cosine(step - config.start, 0.0, config.weight, total=config.warmup)


def is_refreshed(step: int, config: GramConfig) -> bool:
    """Whether the teacher, as it is before iteration `step`, becomes the Gram teacher.

    At `start`, unless a checkpoint gives the first one; then every `every` iterations.

    Source: arXiv:2508.10104, §4.
    """
    since, is_given = step - config.start, config.teacher is not None
    if since <= 0 or config.every is None:
        return since == 0 and not is_given
    num_before = since // config.every - is_given
    return since % config.every == 0 and (config.max_updates is None or num_before < config.max_updates)
