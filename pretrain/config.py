"""The config of a training: what is trained, on what, how long, and where."""

import math
import re
from dataclasses import replace
from typing import cast, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pretrain.checkpoint import CheckpointConfig
from pretrain.data.augment import CropConfig, sides_of
from pretrain.data.config import DataConfig
from pretrain.data.masking import MaskingConfig
from pretrain.evaluate.probe import ProbeConfig
from pretrain.gram import GramConfig
from pretrain.model.convnet import MIN_PX, ConvNetConfig
from pretrain.model.heads import HeadConfig
from pretrain.model.network import BackboneConfig
from pretrain.model.vit import Arch, Ffn, variant, with_registers
from pretrain.objective import ObjectiveConfig
from pretrain.optimizer import OptimizerConfig
from pretrain.parallel import ParallelConfig
from pretrain.schedules import ScheduleConfig
from pretrain.sinks.config import SinkConfigs
from pretrain.start_config import StartConfig

_TIMM = "timm:"


class ModelConfig(BaseModel):
    """The backbone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str = Field(
        "vit_small",
        description=f"width, depth and heads: {', '.join(get_args(Arch))}; or timm:NAME, a ResNet or a "
        "ConvNeXt of timm, such as timm:resnet50",
    )
    patch_px: int = Field(
        14,
        ge=1,
        description="side of a patch, px; divides the sides of all crops. Of a convolutional network the "
        "virtual patch, to whose grid its last map is resampled",
    )
    channels: int = Field(3, ge=1, description="of the input: 3 for RGB, or as many as crops.bands")
    ffn: Ffn | None = Field(None, description="feed-forward branch; null: the architecture's own")
    depth: int | None = Field(None, ge=1, description="number of blocks; null: the architecture's own")
    registers: int = Field(0, ge=0, description="register tokens (4 in the released register models)")
    layer_scale: float = Field(1e-5, description="where the factors of the residual branches start")
    drop_path: float = Field(
        0.3, ge=0, lt=1, description="share of the student's images without a residual branch"
    )
    weights: str | None = Field(
        None,
        description="start from this backbone instead of at random: a checkpoint of ours or a file of the "
        "official, Hugging Face's or timm's kind",
    )
    inflate: bool = Field(
        False,
        description="model.weights may take another number of channels: each of ours begins with the mean of "
        "theirs, scaled so that a picture alike in all channels gives what it gave",
    )

    @field_validator("arch")
    @classmethod
    def _arch_is_known(cls, arch: str) -> str:
        if arch not in get_args(Arch) and not re.fullmatch(_TIMM + r"[a-z0-9_]+", arch):
            raise ValueError(
                f"no such architecture: {arch!r}; one of {', '.join(get_args(Arch))}, or timm:NAME"
            )
        return arch

    @model_validator(mode="after")
    def _a_convolutional_network_has_no_tokens(self) -> "ModelConfig":
        if self.timm_name is None:
            return self
        if self.channels != 3:
            raise ValueError(f"{self.arch} takes pictures in RGB; leave channels out with it")
        fields = ("ffn", "depth", "registers", "layer_scale")
        if moved := [name for name in fields if getattr(self, name) != type(self).model_fields[name].default]:
            raise ValueError(
                f"{', '.join(moved)} shape a vision transformer; leave them out with {self.arch}"
            )
        return self

    @property
    def timm_name(self) -> str | None:
        """The name in timm of a convolutional network; None for a vision transformer."""
        return self.arch.removeprefix(_TIMM) if self.arch.startswith(_TIMM) else None

    def shape(self, *, grid: int, drop_path: float) -> BackboneConfig:
        """The shape of the backbone, for crops of so many rows and columns of patches."""
        if self.timm_name is not None:
            return ConvNetConfig(self.timm_name, patch_px=self.patch_px, grid=grid, drop_path=drop_path)
        shape = variant(cast(Arch, self.arch))
        shape = replace(
            shape,
            patch_px=self.patch_px,
            channels=self.channels,
            grid=grid,
            ffn=self.ffn or shape.ffn,
            depth=self.depth or shape.depth,
            layer_scale=self.layer_scale,
            drop_path=drop_path,
        )
        return with_registers(shape, self.registers) if self.registers else shape


class HeadsConfig(BaseModel):
    """The projection heads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prototypes: int = Field(65_536, ge=2, description="of the class tokens' head (K)")
    hidden_dim: int = Field(2_048, ge=1, description="width of the hidden layers")
    bottleneck_dim: int = Field(256, ge=1, description="width of the last hidden layer")
    separate: bool = Field(False, description="whether patches have a head of their own, as in L/14 and g/14")
    ibot_prototypes: int | None = Field(
        None, ge=2, description="of that head; null: as many as the class tokens' head"
    )
    ibot_bottleneck_dim: int | None = Field(None, ge=1, description="of that head; null: likewise")

    @model_validator(mode="after")
    def _only_a_separate_head_has_a_shape(self) -> "HeadsConfig":
        if not self.separate and (self.ibot_prototypes or self.ibot_bottleneck_dim):
            raise ValueError("ibot_prototypes and ibot_bottleneck_dim shape a head that needs separate: true")
        return self


class PretrainConfig(BaseModel):
    """One training of DINOv2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        "pretrain", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$", description="names the default run_dir"
    )
    run_dir: str | None = Field(
        None,
        description="where checkpoints and metrics go; null: runs/NAME, or RUN_DIR/pretrain of a curation",
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="of everything random")
    start: StartConfig | None = Field(
        None,
        description="begins with a checkpoint of another training, all of it; null: anew, or model.weights",
    )
    batch_images: int = Field(ge=1, description="images in a step, over all ranks")
    accumulate: int = Field(
        1,
        ge=1,
        description="micro-batches in which each rank works through its part of a step, for less memory; the "
        "gradient is that of the whole batch (batch normalisation and stochastic depth see a micro-batch)",
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    heads: HeadsConfig = HeadsConfig()
    crops: CropConfig = CropConfig()
    masking: MaskingConfig = MaskingConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    gram: GramConfig | None = Field(
        None,
        description="Gram anchoring: holds the likenesses among patches to an earlier teacher's; null: not",
    )
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    probe: ProbeConfig | None = Field(None, description="measures the teacher as it learns; null: not")
    sinks: SinkConfigs = Field(
        (), description="where the numbers of metrics.jsonl go as well: one of each kind at most"
    )
    parallel: ParallelConfig = ParallelConfig()
    max_skipped: int = Field(
        10, ge=0, description="steps in a row whose loss or gradient is not finite before the training fails"
    )

    @model_validator(mode="after")
    def _crops_are_whole_patches(self) -> "PretrainConfig":
        for name in ("global_size_px", "local_size_px", "gram_size_px"):
            size = getattr(self.crops, name)
            if size is not None and any(side % self.model.patch_px for side in sides_of(size)):
                raise ValueError(
                    f"crops.{name} ({size}) is no multiple of model.patch_px ({self.model.patch_px})"
                )
        return self

    @model_validator(mode="after")
    def _channels_are_there(self) -> "PretrainConfig":
        bands, channels = self.crops.bands, self.model.channels
        if channels != (num := 3 if bands is None else len(bands)):
            raise ValueError(
                f"model.channels ({channels}) is not what crops.bands gives ({num}"
                f"{', of RGB' if bands is None else ''}); name a band for each channel"
            )
        for name in ("mean", "std"):
            given = getattr(self.crops, name)
            if isinstance(given, tuple) and len(given) != channels:
                raise ValueError(
                    f"crops.{name} has {len(given)} numbers for {channels} channels; give one for each"
                )
        if self.probe is not None and bands is not None:
            raise ValueError("the probe reads pictures in RGB, and crops.bands are none; remove probe")
        return self

    @model_validator(mode="after")
    def _a_convolutional_network_sees_every_patch(self) -> "PretrainConfig":
        if self.model.timm_name is None:
            return self
        if self.objective.ibot_weight or self.masking.probability:
            raise ValueError(
                f"{self.model.arch} has no mask token, so that iBOT cannot train it: set "
                "objective.ibot_weight and masking.probability to 0 (DINO and KoLeo train it), or distil it "
                "from a teacher"
            )
        smallest = min(*sides_of(self.crops.local_size_px), *sides_of(self.crops.global_size_px))
        if smallest < MIN_PX:
            raise ValueError(f"{self.model.arch} takes crops of {MIN_PX} px and more, not {smallest}")
        return self

    @model_validator(mode="after")
    def _begins_once(self) -> "PretrainConfig":
        if self.start and self.model.weights:
            raise ValueError("start brings a backbone along; leave model.weights out")
        return self

    @model_validator(mode="after")
    def _gram_acts_and_adds_up(self) -> "PretrainConfig":
        if self.gram is None:
            if self.crops.gram_size_px is not None:
                raise ValueError("crops.gram_size_px is for a Gram teacher; set gram, or leave it out")
            return self
        end = max(self.schedule.iterations, self.schedule.total)
        if self.gram.start >= end:
            raise ValueError(f"gram.start {self.gram.start} is after the last of {end} iterations")
        if self.gram.over != "image" and self.accumulate > 1:
            raise ValueError(
                f"gram.over: {self.gram.over} compares patches of different images, which are not at hand "
                f"together with accumulate {self.accumulate}; set gram.over to image, or accumulate to 1"
            )
        return self

    @property
    def crop_grid(self) -> tuple[int, int]:
        """Rows and columns of patches of a global crop."""
        height, width = sides_of(self.crops.global_size_px)
        return height // self.model.patch_px, width // self.model.patch_px

    @property
    def grid(self) -> int:
        """Rows and columns of the square grid that positions are learned on.

        That of a square global crop; for another one the square of the nearest area, from which positions are
        resampled to the crop's own grid.
        """
        rows, columns = self.crop_grid
        return round(math.sqrt(rows * columns))

    def backbone(self, *, drop_path: float) -> BackboneConfig:
        """The shape of the backbone."""
        return self.model.shape(grid=self.grid, drop_path=drop_path)

    def head_shapes(self) -> tuple[HeadConfig, HeadConfig | None]:
        """The shapes of the class tokens' head and, where patches have their own, of theirs."""
        heads = self.heads
        shared = HeadConfig(
            self.backbone(drop_path=0.0).dim, heads.prototypes, heads.hidden_dim, heads.bottleneck_dim
        )
        own = replace(
            shared,
            prototypes=heads.ibot_prototypes or heads.prototypes,
            bottleneck_dim=heads.ibot_bottleneck_dim or heads.bottleneck_dim,
        )
        return shared, own if heads.separate else None
