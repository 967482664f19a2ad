"""The config of a chain: what each link of it is, from the first training to what is measured at the end."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Format = Literal["huggingface", "timm", "official", "safetensors", "onnx", "torch_export"]


class ExportLink(BaseModel):
    """Which models are written for other programs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    formats: tuple[Format, ...] = Field(("huggingface",), min_length=1, description="for whom")
    of: Literal["students", "all"] = Field(
        "students", description="the students alone, or the larger models before them as well"
    )


class EvaluateLink(BaseModel):
    """On what every model of the chain is measured, by k-NN."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str = Field(description="a folder with a folder of images for each class: the neighbours")
    test: str = Field(description="a folder with the same classes: what is classified")
    neighbours: tuple[int, ...] = Field((10, 20), min_length=1, description="numbers of neighbours (k)")


class ChainConfig(BaseModel):
    """Trainings that follow one another, each beginning with what the one before has come to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        "chain", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="names the default run_dir"
    )
    run_dir: str | None = Field(None, description="where all links lie; null: runs/NAME")
    seed: int = Field(0, ge=0, lt=1 << 63, description="of every link that has none of its own")
    data: dict[str, Any] = Field(
        default={}, description="as `data` of a training: for every link that does not say otherwise"
    )
    parallel: dict[str, Any] = Field(default={}, description="likewise, `parallel`")
    pretrain: dict[str, Any] = Field(description="the first link: the config of a training")
    adapt: dict[str, Any] | None = Field(
        None, description="the next one, if any: what is new in it, as in the config of `lvd adapt`"
    )
    distill: dict[str, Any] | None = Field(
        None, description="the last training, if any: the config of `lvd distill`, but for its teacher"
    )
    export: ExportLink | None = Field(None, description="what is written at the end; null: nothing")
    evaluate: EvaluateLink | None = Field(None, description="what is measured at the end; null: nothing")

    @model_validator(mode="after")
    def _links_follow(self) -> "ChainConfig":
        for section in ("pretrain", "adapt", "distill"):
            given = getattr(self, section) or {}
            for name in ("run_dir", "start", "teacher"):
                if name == "teacher" and section != "distill":
                    continue
                if name in given and not (name == "teacher" and "path" not in given[name]):
                    raise ValueError(
                        f"{section}.{name} is decided by the chain: leave it out, or run that training alone"
                    )
        if self.export and self.export.of == "students" and self.distill is None:
            raise ValueError("export.of is students, and there is no distill; set it to all")
        return self
