"""With which checkpoint of another training a training begins."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class StartConfig(BaseModel):
    """The checkpoint of another training that this one begins with: student, teacher, both heads, centres."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str = Field(description="a run directory, for its newest checkpoint, or one checkpoint of it")
    optimizer: bool = Field(True, description="whether AdamW's moments are carried over")
    schedule: Literal["go_on", "anew"] = Field(
        "go_on",
        description="whether iterations and schedules go on where the checkpoint was (a branch), or begin at "
        "0 (another stage)",
    )
    order: Literal["go_on", "anew"] = Field(
        "go_on", description="whether the images come that would have come next, or the order begins anew"
    )
