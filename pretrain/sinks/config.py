"""Which sinks a training has. Keys come from where each library looks for them, never from a config."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class TensorBoardConfig(BaseModel):
    """Event files, which `tensorboard --logdir` shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tensorboard"] = Field(description="event files in a folder")
    dir: str | None = Field(None, description="they go into NAME below it; null: RUN_DIR/tensorboard")


class MlflowConfig(BaseModel):
    """A run of MLflow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["mlflow"] = Field(description="a run of MLflow")
    tracking_uri: str | None = Field(
        None, description="the server, or a database; null: MLFLOW_TRACKING_URI, or MLflow's own default"
    )
    experiment: str = Field("lvd", min_length=1, description="which the run belongs to; made where missing")


class WandbConfig(BaseModel):
    """A run of Weights & Biases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["wandb"] = Field(description="a run of Weights & Biases")
    project: str = Field("lvd", min_length=1, description="which the run belongs to")
    entity: str | None = Field(None, description="the team or user that has it; null: the account's own")
    mode: Literal["online", "offline"] = Field(
        "online",
        description="online needs `wandb login` or WANDB_API_KEY; offline writes into RUN_DIR/wandb, for "
        "`wandb sync`",
    )


class TrackioConfig(BaseModel):
    """A run of trackio."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["trackio"] = Field(description="a run of trackio")
    project: str = Field("lvd", min_length=1, description="which the run belongs to")
    space: str | None = Field(
        None, description="of Hugging Face, which shows it; null: on this machine, in trackio's own folder"
    )


SinkConfig = Annotated[
    TensorBoardConfig | MlflowConfig | WandbConfig | TrackioConfig, Field(discriminator="kind")
]


def _each_kind_once(sinks: tuple[SinkConfig, ...]) -> tuple[SinkConfig, ...]:
    kinds = [sink.kind for sink in sinks]
    if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there twice; one sink of a kind is enough")
    return sinks


SinkConfigs = Annotated[tuple[SinkConfig, ...], AfterValidator(_each_kind_once)]
